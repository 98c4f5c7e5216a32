"""Login in a real browser: what it keeps, and how it ends."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect

from tests.browser.support import KEYS, Desk, Site, ask, login

KEPT = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"


def test_a_wrong_key_is_said_and_a_right_one_is_kept_nowhere(desk: Desk, scripted: Callable[..., Site]) -> None:
    desk.expected = ("401",)
    site = scripted(main={})
    page = desk.open(site)
    desk.picture(page, "login")
    page.get_by_label("API key").fill("roost-wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("This key is not accepted.")
    login(page, "admin")
    ask(page, "Hello")
    expect(page.locator(".message.assistant")).to_contain_text("Paris.")
    assert KEYS["admin"] not in page.evaluate(KEPT)
    assert KEYS["admin"] not in page.content()
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    assert KEYS["admin"] not in cookie["value"]
    page.reload()
    expect(page.locator("#who")).to_have_text("admin")


def test_guessing_is_slowed_down_and_says_so(desk: Desk, scripted: Callable[..., Site]) -> None:
    desk.expected = ("401", "429")
    page = desk.open(scripted(main={}))
    for _ in range(21):
        page.get_by_label("API key").fill("roost-wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Log in")).to_be_enabled()
        expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("Try again in")


def test_logout_ends_the_session_and_forgets_conversations(desk: Desk, scripted: Callable[..., Site]) -> None:
    desk.expected = ("401",)
    site = scripted(main={})
    page = desk.open(site, "user")
    other = desk.open(site, "user")
    ask(page, "A secret")
    expect(page.locator(".message.assistant")).to_contain_text("Paris.")
    page.locator("#account summary").click()
    desk.picture(page, "account")
    page.get_by_role("button", name="Log out everywhere").click()
    expect(page.get_by_label("API key")).to_be_visible()
    assert "A secret" not in page.evaluate(KEPT)
    expect(other.get_by_label("API key")).to_be_visible()  # its next question told it
    expect(other.get_by_role("alert")).to_contain_text("logged out")
    assert page.context.cookies() == []


def test_a_revoked_key_is_logged_out_on_whatever_page(desk: Desk, scripted: Callable[..., Site]) -> None:
    desk.expected = ("401",)
    site = scripted(main={})
    pages = [desk.open(site, "user", at=f"#/{name}") for name in ("chat", "models", "usage")]
    pages.append(desk.open(site, "watcher", at="#/load"))
    site.revoke("user")
    for page in pages[:-1]:
        expect(page.get_by_label("API key")).to_be_visible()
        expect(page.locator("#nav")).to_be_hidden()
    expect(pages[-1].locator("#who")).to_have_text("watcher")
    desk.picture(pages[0], "logged-out")
    site.write_keys()
    pages[0].reload()
    expect(pages[0].get_by_label("API key")).to_be_visible()  # good again, but its sessions are over
    login(pages[0], "user")


def test_another_site_cannot_use_the_session(desk: Desk, scripted: Callable[..., Site]) -> None:
    """A page at another address of this machine sends what it can; the browser holds the cookie back, or we refuse."""
    desk.expected = ("CORS", "ERR_FAILED", "403", "401")
    site = scripted(main={})
    page = desk.open(site, "admin")
    evil = page.context.new_page()
    evil.route("http://evil.example/**", lambda route: route.fulfill(body="<h1>evil</h1>", content_type="text/html"))
    evil.goto("http://evil.example/")
    for options in (
        "{mode: 'no-cors', credentials: 'include'}",
        "{method: 'POST', mode: 'no-cors', credentials: 'include', body: '{}'}",
    ):
        evil.evaluate(f"fetch('{site.url}/v1/chat/completions', {options}).catch(() => 0)")
        evil.evaluate(f"fetch('{site.url}/web/session', {options}).catch(() => 0)")
    assert site.engines["main"].chats == []
    page.reload()
    expect(page.locator("#who")).to_have_text("admin")
