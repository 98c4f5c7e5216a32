"""The service goes and comes back: pages say so, go on by themselves, and nobody has to log in again."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from tests.browser.support import Desk, Stage, ask, running_site


def test_a_restart_of_the_service_is_waited_for(desk: Desk, stage: Stage, tmp_path: Path) -> None:
    desk.expected = (
        "ERR_CONNECTION_REFUSED",
        "ERR_CONNECTION_RESET",
        "ERR_INCOMPLETE_CHUNKED_ENCODING",
        "503",
        "ERR_EMPTY_RESPONSE",
    )
    engine = stage.engine(pieces=("Paris", "."))
    key_file = tmp_path / "engine-key"
    key_file.write_text("engine-key")
    with running_site(tmp_path, engine.url, key_file, {"main": engine}) as site:
        chat = desk.open(site, "user")
        load = desk.open(site, "admin", at="#/load")
        ask(chat, "Hello")
        expect(chat.locator(".message.assistant")).to_contain_text("Paris.")
        expect(load.locator(".figures")).to_be_visible()
    for page in (chat, load):
        expect(page.locator("#banner")).to_contain_text("does not answer")
        expect(page.locator("#readiness")).to_have_text("not reachable")
    desk.picture(chat, "chat-not-reachable")
    ask(chat, "Are you there?")
    expect(chat.locator(".message.assistant").last.get_by_role("alert")).to_contain_text("cannot be reached")
    with site.up():
        for page in (chat, load):
            expect(page.locator("#banner")).to_be_hidden(timeout=40_000)
            expect(page.locator("#readiness")).to_have_text("ready")
        chat.get_by_role("button", name="Try again").click()
        expect(chat.locator(".message.assistant").last.locator(".prose")).to_have_text("Paris.")
        expect(load.locator(".figure", has_text="Under way").locator("strong")).to_have_text("0")
        chat.reload()
        expect(chat.locator("#who")).to_have_text("user")
