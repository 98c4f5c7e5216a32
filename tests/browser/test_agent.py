"""The agent's page in a real browser: what is said, called and answered is seen while it happens, and again later."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import APIResponse, Locator, Page, Route, WebSocketRoute, expect

from tests.browser.support import DESKTOP, KEYS, PHONE, Desk, Site, Stage, ask, login, running_site
from tests.browser.test_chat import HARMLESS, HOSTILE
from tests.browser.test_pages import RULES, WIDER
from tests.support.net import wait_until
from tests.support.worker import Home, worker

FACT = "my dog is called Rex"
ASKED = f"Remember that {FACT}"
WRITE = "Write the file notes.txt"
ASKED_AGAIN = re.compile(r"\?limit=1$")  # what a page asks before it connects again
NEWER = re.compile(r"[?&]after=[1-9]\d*$")  # what a page asks for what is new in the records


def decides(tool: str, arguments: dict[str, str]) -> Callable[[dict[str, Any]], tuple[str, ...] | None]:
    """Return a model server's script: it has one tool called, and says that all is done."""

    def says(chat: dict[str, Any]) -> tuple[str, ...] | None:
        if chat.get("max_tokens") == 1:
            return ("Hi",)
        if "response_format" not in chat:
            return None
        if "actions" in json.dumps(chat["response_format"]):
            asked = chat["messages"][-1]["content"]
            mine = tool in asked.lower()
            return (json.dumps({"actions": [{"tool": tool, "arguments": arguments}] if mine else []}),)
        return ('{"done": true}',)

    return says


def answers(page: Page) -> Locator:
    return page.locator(".message.assistant .prose")


def sound(page: Page) -> None:
    found = Axe().run(page, options=RULES)
    assert found.violations_count == 0, found.generate_report()
    assert not page.evaluate(WIDER)


def test_a_tool_and_an_answer_are_seen_live_and_again_after_a_reload(
    desk: Desk, scripted: Callable[..., Site], stage: Stage
) -> None:
    site = scripted(main={"says": decides("remember", {"text": FACT}), "pieces": ("I keep", " that."), "hold": 1})
    page = desk.open(site, "user", at="#/agent")
    expect(page.get_by_text("Tell the agent what you want.")).to_be_visible()
    ask(page, ASKED)
    tool = page.locator(".tool[data-tool=remember]")
    expect(tool.locator(".pill")).to_have_text("ok")
    expect(tool).to_contain_text(f"text={FACT}")
    expect(tool).to_contain_text("bytes")
    expect(answers(page)).to_have_text("I keep")  # the rest of it is not written yet
    expect(page.locator("#doing")).to_have_text("Main answers…")
    desk.picture(page, "agent-live")
    page.reload()  # in the middle of a turn: what it told so far is told again
    expect(answers(page)).to_have_text("I keep")
    expect(tool).to_have_count(1)
    stage.call(site.engines["main"].go.set)
    expect(answers(page)).to_have_text("I keep that.")
    expect(page.locator("#took")).to_contain_text("1 turn · 1 call")
    expect(page.locator(".took")).to_contain_text("main tiny")
    page.reload()
    expect(answers(page)).to_have_text("I keep that.")
    expect(page.locator(".message.user")).to_have_text(ASKED)
    expect(tool.locator(".pill")).to_have_text("ok")
    expect(page.locator(".took")).to_have_count(1)
    tool.locator("summary").click()
    expect(tool.locator("pre").last).to_contain_text("Remembered")


def test_a_turn_is_stopped_and_the_conversation_goes_on(
    desk: Desk, scripted: Callable[..., Site], stage: Stage
) -> None:
    site = scripted(main={"pieces": ("Once", " upon a time"), "hold": 1})
    page = desk.open(site, "user", at="#/agent")
    other = desk.open(site, at="", context=page.context)
    ask(page, "Tell me a story")
    expect(answers(page)).to_have_text("Once")
    other.goto(page.url)  # a second page looks at the same turn
    expect(answers(other)).to_have_text("Once")
    page.get_by_role("button", name="Stop").click()
    for one in (page, other):
        expect(one.locator(".turns")).to_contain_text("stopped")
        expect(one.get_by_role("button", name="Stop")).to_be_hidden()
    wait_until(lambda: stage.run(left(site)) >= 1, 20, "the model server to see it")
    stage.call(site.engines["main"].go.set)
    ask(page, "Another one")
    for one in (page, other):  # what another page said is seen, too
        expect(answers(one).last).to_have_text("Once upon a time")
        expect(one.locator(".message.user").last).to_have_text("Another one")


def test_what_was_read_before_the_end_of_a_turn_does_not_hide_its_answer(
    desk: Desk, scripted: Callable[..., Site], stage: Stage
) -> None:
    site = scripted(main={"pieces": ("Once", " upon a time"), "hold": 1})
    go = site.engines["main"].go
    page = desk.open(site, "user", at="#/agent")
    other = desk.open(site, at="", context=page.context)
    stage.call(go.set)
    ask(page, "Tell me a story")
    expect(page.locator(".took")).to_be_visible()
    with other.expect_response(NEWER):  # it reads once more as soon as it watches
        other.goto(page.url)
    expect(answers(other)).to_have_text("Once upon a time")
    stage.call(go.clear)
    late: list[tuple[Route, APIResponse]] = []

    def slowly(route: Route) -> None:
        if late:
            route.continue_()
        else:  # the first answer: what the records are before the turn is over
            late.append((route, route.fetch()))

    other.route(NEWER, slowly)
    ask(page, "Another one")
    expect(answers(other).last).to_have_text("Once")
    # Asking the page for anything lets Playwright go on with the route.
    wait_until(lambda: bool(other.evaluate("true")) and bool(late), 30, "what is recorded so far")
    stage.call(go.set)
    expect(other.locator("#doing")).to_have_text("")
    ((route, answer),) = late
    with other.expect_request(NEWER):
        route.fulfill(response=answer)
    expect(other.locator(".took")).to_have_count(2)
    expect(answers(other)).to_have_text(["Once upon a time", "Once upon a time"])
    expect(other.locator(".message.user")).to_have_text(["Tell me a story", "Another one"])


async def left(site: Site) -> int:
    return site.engines["main"].left


def test_a_connection_that_was_lost_goes_on_where_it_was(
    desk: Desk, scripted: Callable[..., Site], stage: Stage
) -> None:
    site = scripted(main={"pieces": ("Once", " upon", " a time"), "hold": 1})
    page = desk.open(site, "user")
    sockets: list[WebSocketRoute] = []

    def through(socket: WebSocketRoute) -> None:
        sockets.append(socket)
        socket.connect_to_server()

    def connecting(route: Route) -> None:
        # It says so for half a second only, unless what it asks before is held.
        expect(page.locator("#doing")).to_have_text("Connecting again…")
        route.continue_()

    page.route_web_socket("**/events?**", through)
    page.goto(f"{site.url}/#/agent")
    page.reload()
    ask(page, "Tell me a story")
    expect(answers(page)).to_have_text("Once")
    page.route(ASKED_AGAIN, connecting)
    with page.expect_response(ASKED_AGAIN):
        sockets[0].close()
    stage.call(site.engines["main"].go.set)
    expect(answers(page)).to_have_text("Once upon a time")
    expect(page.locator(".took")).to_have_count(1)
    assert "whole_turn" in sockets[0].url
    assert "last_event_id" in sockets[1].url


def test_a_restart_of_the_service_is_waited_for(desk: Desk, stage: Stage, tmp_path: Path) -> None:
    desk.expected = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "503", "WebSocket")
    engine = stage.engine()
    (tmp_path / "engine-key").write_text("engine-key")
    with running_site(tmp_path, engine.url, tmp_path / "engine-key", {"main": engine}) as site:
        page = desk.open(site, "user", at="#/agent")
        ask(page, "Hello")
        expect(answers(page)).to_have_text("Paris.")
    expect(page.locator("#doing")).to_have_text("Connecting again…")
    ask(page, "Are you there?")
    expect(page.locator(".toast")).to_contain_text("cannot be reached")
    expect(page.get_by_label("Message", exact=True)).to_have_value("Are you there?")
    with site.up():
        expect(page.locator("#doing")).to_have_text("", timeout=40_000)
        expect(page.locator("#readiness")).to_have_text("ready")
        page.get_by_role("button", name="Send").click()
        expect(answers(page)).to_have_text(["Paris.", "Paris."])
        expect(page.locator(".message.user")).to_have_text(["Hello", "Are you there?"])


def test_conversations_are_listed_resumed_begun_and_removed(desk: Desk, scripted: Callable[..., Site]) -> None:
    site = scripted(main={})
    page = desk.open(site, "user", at="#/agent")
    for text in ("The first", "The second"):
        page.get_by_role("button", name="New", exact=True).first.click()
        ask(page, text)
        expect(answers(page)).to_have_text("Paris.")
        expect(page.locator("#agent-list [aria-current]")).to_have_text(text)
    page.locator("#agent-list").get_by_text("The first").click()
    expect(page.locator(".message.user")).to_have_text("The first")
    expect(answers(page)).to_have_text("Paris.")
    page.get_by_label("Settings of this conversation").click()
    page.get_by_label("Cost mode").select_option("fast")
    expect(page.locator("#took")).to_contain_text("cost mode fast")
    page.reload()
    expect(page.locator(".message.user")).to_have_text("The first")
    expect(page.locator("#took")).to_contain_text("cost mode fast")
    other = desk.open(site, context=page.context)
    other.goto(page.url)
    expect(other.locator(".message.user")).to_have_text("The first")
    page.get_by_role("button", name="Remove “The first”").click()
    page.locator("dialog").get_by_role("button", name="Remove").click()
    expect(page.locator("#agent-list li")).to_have_count(1)
    expect(page.get_by_text("Tell the agent what you want.")).to_be_visible()
    expect(other.locator(".toast")).to_contain_text("was removed")


def test_conversations_are_found_named_put_away_and_taken_back(desk: Desk, scripted: Callable[..., Site]) -> None:
    site = scripted(main={"pieces": ("It is <b>red</b>.",)})
    page = desk.open(site, "user", at="#/agent")
    rows = page.locator("#agent-list li")
    for text in ("The first about roofs", "The second about doors"):
        page.get_by_role("button", name="New", exact=True).first.click()
        ask(page, text)
        expect(answers(page)).to_have_text("It is <b>red</b>.")
    page.get_by_label("Search conversations").fill("roofs")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("about [roofs]")
    rows.get_by_role("button").click()
    expect(page.locator(".message.user")).to_have_text("The first about roofs")
    page.get_by_label("Search conversations").fill("<b>red")
    expect(rows).to_have_count(2)  # one answer in each
    assert page.locator("#agent-list b").count() == 0
    sound(page)
    desk.picture(page, "agent-search")
    page.get_by_label("Search conversations").fill("zebra")
    expect(rows).to_have_count(1)
    expect(rows).to_have_text("Nothing was found.")
    page.get_by_label("Search conversations").fill("")
    expect(rows).to_have_count(2)

    page.get_by_label("Settings of this conversation").click()
    page.get_by_label("Title").fill("Roofs <i>")
    page.get_by_role("button", name="Rename").click()
    expect(page.locator("#agent-list [aria-current]")).to_have_text("Roofs <i>")
    expect(page.locator("#agent-title")).to_have_text("Roofs <i>")
    page.get_by_role("button", name="Put away", exact=True).click()
    expect(rows).to_have_count(1)
    expect(page.locator(".message.user")).to_have_text("The first about roofs")  # still there to be read
    with page.expect_download() as saved:
        page.get_by_role("link", name="Export").click()
    assert "about roofs" in Path(saved.value.path()).read_text()
    page.reload()
    expect(page.locator("#agent-title")).to_have_text("Roofs <i>")
    page.get_by_role("button", name="Those put away").click()
    expect(rows.locator(".past-one")).to_have_text("Roofs <i>")
    page.get_by_label("Settings of this conversation").click()
    page.get_by_role("button", name="Take back").click()
    expect(rows).to_have_text("Nothing was put away.")
    page.get_by_role("button", name="Those put away").click()
    expect(rows).to_have_count(2)


def test_a_file_is_written_by_a_worker_and_put_back(desk: Desk, scripted: Callable[..., Site], tmp_path: Path) -> None:
    arguments = {"path": "notes.txt", "content": "<img src=x onerror=window.pwned=1>"}
    site = scripted(main={"says": decides("write", arguments)})
    project = tmp_path / "home" / "project"
    project.mkdir(parents=True)
    home = Home(project.parent, site.url, KEYS["user"])
    home.run("workspace", "add", str(project))
    with worker(home):
        page = desk.open(site, "user", at="#/agent")
        ask(page, WRITE)
        expect(answers(page)).to_have_text("Paris.")
        expect(page.locator(".tool[data-tool=write]")).to_contain_text("changed notes.txt")
        assert (project / "notes.txt").read_text() == arguments["content"]
        page.get_by_label("Settings of this conversation").click()
        expect(page.locator("#workers")).to_contain_text("project")
        page.get_by_label("Workspace").select_option("project")
        page.get_by_label("Settings of this conversation").click()
        page.get_by_role("button", name="Undo").click()
        expect(page.locator(".tool[data-tool=undo] .pill")).to_have_text("ok")
        assert not (project / "notes.txt").exists()
        assert page.locator(".tool img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desk", "phone"])
def test_it_can_be_used_by_all_and_foreign_text_is_text(
    desk: Desk, scripted: Callable[..., Site], size: tuple[int, int], scheme: str
) -> None:
    hostile = "\n\n".join(HOSTILE[:33])
    says = decides("remember", {"text": HOSTILE[1]})
    site = scripted(main={"says": says, "pieces": (hostile,)})
    page = desk.open(site, size=size, scheme=scheme)
    login(page, "user")
    page.goto(f"{site.url}/#/agent")
    ask(page, f"Remember that {HOSTILE[1]}")
    expect(page.locator(".took")).to_be_visible()
    expect(page.locator(".message.user")).to_contain_text("<img")
    assert page.evaluate(HARMLESS) == []
    assert page.evaluate("window.pwned") is None
    page.locator(".tool summary").first.click()
    sound(page)
    page.get_by_label("Settings of this conversation").click()
    sound(page)
    device = "phone" if size is PHONE else "desk"
    desk.picture(page, f"agent-{device}-{scheme}")
