"""Every page for every role, on a desk and on a telephone, light and dark, and for those who do not see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.support import DESKTOP, PHONE, Desk, Site, Stage, ask, login, running_site
from tests.support.engine import EngineProcess

PAGES = {"chat": "Chat", "agent": "Agent", "models": "Models", "endpoints": "Endpoints", "load": "Load",
         "decisions": "Routing", "usage": "Usage", "keys": "Keys"}  # fmt: skip
SEES = {
    "admin": list(PAGES),
    "user": ["chat", "agent", "models", "usage"],
    "watcher": ["models", "endpoints", "load", "decisions", "usage"],
}
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
SCRIPTED = "ministral-3-8b-instruct-2512"
WIDER = "document.documentElement.scrollWidth > innerWidth || document.body.scrollWidth > innerWidth"


@pytest.fixture(scope="module")
def busy(engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A service with a real and some scripted model servers, one of them down, that has answered before."""
    folder = tmp_path_factory.mktemp("busy")
    with Stage() as stage:
        more = stage.engine(model=SCRIPTED, key=Path(engine.key_file).read_text())
        loading = stage.engine(model="nvidia-orchestrator-8b", key=Path(engine.key_file).read_text(), mode="loading")
        urls = f"main={engine.base_url},specialist={more.url},router={loading.url}"
        with running_site(folder, urls, engine.key_file, {"specialist": more, "router": loading}) as site:
            yield site


def settled(page: Page, name: str) -> None:
    """Wait until a page shows what it has to show."""
    if name == "chat":
        expect(page.get_by_label("Model", exact=True).locator("option")).not_to_have_count(1)
    elif name == "agent":
        expect(page.get_by_text("Tell the agent what you want.")).to_be_visible()
    else:
        expect(page.get_by_role("heading", level=1, name=PAGES[name])).to_be_visible()
        expect(page.locator(".stack > *").first).to_be_visible()


def sound(page: Page, where: str) -> None:
    """Hold a page against the rules of accessibility."""
    found = Axe().run(page, options=RULES)
    assert found.violations_count == 0, f"{where}\n{found.generate_report()}"


@pytest.mark.parametrize("who", list(SEES))
def test_a_role_sees_its_pages_only_and_the_api_refuses_the_others(desk: Desk, busy: Site, who: str) -> None:
    desk.expected = ("403",)
    page = desk.open(busy, who)
    links = page.locator("#nav a")
    expect(links).to_have_text([PAGES[name] for name in SEES[who]])
    for name in PAGES:
        page.goto(f"{busy.url}/#/{name}")
        if name in SEES[who]:
            settled(page, name)
            expect(page.locator("#nav [aria-current]")).to_have_text(PAGES[name])
        else:
            expect(page.locator(".toast").last).to_contain_text("has no page")
    paths = {"/v1/limits": "keys", "/roost/v1/load": "load"}
    for path, name in paths.items():
        status = page.evaluate(f"fetch('{path}').then((answer) => answer.status)")
        assert status == (200 if name in SEES[who] else 403), path
    chat = "{method: 'POST', headers: {'content-type': 'application/json'}, body: '{}'}"
    assert (
        page.evaluate(f"fetch('/v1/chat/completions', {chat}).then((answer) => answer.status)") == 403
    )  # no form token


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desk", "phone"])
def test_every_page_looks_well_and_can_be_used_by_all(
    desk: Desk, busy: Site, size: tuple[int, int], scheme: str
) -> None:
    device = "phone" if size is PHONE else "desk"
    page = desk.open(busy, size=size, scheme=scheme)
    sound(page, "login")
    desk.picture(page, f"login-{device}-{scheme}")
    login(page, "admin")
    page.get_by_label("Model", exact=True).select_option(SCRIPTED)
    ask(page, "What is the capital of France?")
    expect(page.locator(".message.assistant footer .note")).to_contain_text("first token")
    for name in PAGES:
        page.goto(f"{busy.url}/#/{name}")
        settled(page, name)
        assert not page.evaluate(WIDER), f"{name} is wider than the window"
        sound(page, f"{name}, {device}, {scheme}")
        desk.picture(page, f"{name}-{device}-{scheme}")


def test_the_page_is_used_with_the_keyboard_alone(desk: Desk, busy: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy.engines["specialist"], "hold", 1)  # a real one may be done before it is stopped
    page = desk.open(busy, "admin")
    page.goto(f"{busy.url}/#/models")
    settled(page, "models")
    page.reload()
    settled(page, "models")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#view")).to_be_focused()
    expect(page.get_by_role("heading", level=1, name="Models")).to_be_visible()
    page.locator("#nav a", has_text="Chat").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Message", exact=True)).to_be_visible()
    page.get_by_label("Model", exact=True).select_option(SCRIPTED)
    page.get_by_label("Message", exact=True).focus()
    page.keyboard.type("Count to one hundred thousand.")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("In words.")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".message.assistant footer").last).to_contain_text("stopped")
    expect(page.locator(".message.user .as-typed").last).to_contain_text("In words.")


def test_colours_can_be_chosen_and_stay(desk: Desk, busy: Site) -> None:
    page = desk.open(busy)
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    button = page.locator("#theme")
    button.click()
    button.click()
    expect(button).to_have_attribute("aria-label", "Colours: dark")
    dark = page.evaluate(paper)
    assert dark != light
    page.reload()
    assert page.evaluate(paper) == dark


def test_models_and_endpoints_are_live(desk: Desk, scripted: Callable[..., Site], stage: Stage) -> None:
    site = scripted(main={}, router={"model": "small", "mode": "loading"})
    models = desk.open(site, "admin", at="#/models")
    endpoints = desk.open(site, "watcher", at="#/endpoints")
    expect(models.locator(".card", has_text="tiny").locator(".card-top .pill")).to_have_text("ready")
    expect(endpoints.locator("tr", has_text="router@").locator(".pill")).to_have_text("loading")
    stage.call(lambda: setattr(site.engines["router"], "mode", "ready"))
    expect(endpoints.locator("tr", has_text="router@").locator(".pill")).to_have_text("ready")
    expect(models.locator(".card", has_text="small").locator(".card-top .pill")).to_have_text("ready")
    stage.run(site.engines["main"].stop())
    expect(endpoints.locator("tr", has_text="main@").locator(".pill")).to_have_text("down")
    expect(models.locator(".card", has_text="tiny")).to_contain_text("nothing answers there")


def test_usage_counts_what_the_chat_used(desk: Desk, scripted: Callable[..., Site]) -> None:
    page = desk.open(scripted(main={}), "user")
    ask(page, "Hello")
    expect(page.locator(".message.assistant")).to_contain_text("Paris.")
    expect(page.locator(".message.assistant footer")).to_contain_text("first token")  # it is over, so counted
    page.locator("#nav a", has_text="Usage").click()
    expect(page.locator(".figure", has_text="Requests").locator("strong")).to_have_text("1")
    expect(page.get_by_role("region", name="Usage by key").locator("tbody tr")).to_have_count(1)


def test_an_administrator_drains_adds_and_removes_endpoints(
    desk: Desk, scripted: Callable[..., Site], stage: Stage
) -> None:
    site = scripted(main={}, specialist={"model": "small"})
    more = stage.engine(model="more", key="another-key")
    page = desk.open(site, "admin", at="#/endpoints")
    row = page.locator("tr", has_text="specialist@")
    row.get_by_role("button", name="Drain").click()
    expect(row.locator(".pill")).to_have_text("drained")
    row.get_by_role("button", name="Undrain").click()
    expect(row.locator(".pill")).to_have_text("ready")
    row.get_by_role("button", name="Test").click()
    expect(page.locator(".toast").last).to_contain_text("answered with small")
    page.get_by_role("button", name="Add an endpoint").click()
    page.get_by_label("Name").fill("not a name")
    page.get_by_label("Base URL").fill(more.url)
    page.get_by_label("Its API key").fill("another-key")
    page.get_by_label("Engine").select_option("llama.cpp")
    desk.expected = ("400",)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#add-form").get_by_role("alert")).to_contain_text("name")
    sound(page, "endpoints, with the form")
    desk.picture(page, "endpoints-add")
    page.get_by_label("Name").fill("workstation")
    page.get_by_role("button", name="Add", exact=True).click()
    added = page.locator("tr", has_text="workstation")
    expect(added.locator(".pill")).to_have_text("ready")
    expect(added).to_contain_text("more")
    assert "another-key" not in page.content()
    added.get_by_role("button", name="Remove").click()
    page.locator("dialog").get_by_role("button", name="Remove").click()
    expect(added).to_have_count(0)


def test_routing_says_what_was_chosen_and_why(desk: Desk, scripted: Callable[..., Site]) -> None:
    page = desk.open(scripted(main={}, specialist={"model": "small"}), "admin")
    ask(page, "Hello")
    expect(page.locator(".message.assistant")).to_contain_text("Paris.")
    page.locator("#nav a", has_text="Routing").click()
    row = page.get_by_role("region", name="Last decisions").locator("tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("200")
    page.get_by_label("A question").fill("Prove that there are infinitely many primes.")
    page.get_by_role("button", name="Explain").click()
    expect(page.locator("form.card")).to_contain_text("in the slot")
    assert "Hello" not in page.locator("#view").inner_text()
    desk.picture(page, "decisions")
