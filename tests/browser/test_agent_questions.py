"""Asked on the page before a tool runs: seen live and after a reload, allowed once, in the conversation, or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from roost.agent.sandbox.parent import Bubblewrap
from tests.browser.support import KEYS, PHONE, Desk, Site, ask
from tests.browser.test_agent import answers, decides, sound
from tests.support.worker import Home, worker

pytestmark = pytest.mark.skipif(bool(Bubblewrap().missing()), reason="bubblewrap is not on this machine")
COMMAND = "find . -name '*.tmp' -delete; echo '<img src=x onerror=window.pwned=1>'"
ASKED = "Run the shell command"


def asked(page: Page) -> None:
    question = page.locator(".question").last
    expect(question).to_contain_text("removes what it finds")
    expect(question).to_contain_text("<img")
    expect(question.get_by_role("button", name="Allow once")).to_be_visible()


def test_a_command_is_asked_about_allowed_and_refused(
    desk: Desk, scripted: Callable[..., Site], tmp_path: Path
) -> None:
    site = scripted(main={"says": decides("shell", {"command": COMMAND})})
    project = tmp_path / "home" / "project"
    project.mkdir(parents=True)
    home = Home(project.parent, site.url, KEYS["user"])
    home.run("workspace", "add", str(project))
    with worker(home):
        page = desk.open(site, "user", at="#/agent")
        (project / "a.tmp").write_text("x")
        ask(page, ASKED)
        asked(page)
        expect(page.locator("#doing")).to_have_text("Waiting for your word…")
        sound(page)
        desk.picture(page, "agent-question")
        page.reload()  # while it waits
        asked(page)
        page.get_by_role("button", name="Do not allow").click()
        expect(answers(page)).to_have_text("Paris.")
        expect(page.locator(".question").last).to_contain_text("You did not allow it.")
        assert (project / "a.tmp").exists()
        ask(page, ASKED)
        asked(page)
        page.get_by_role("button", name="Allow in this conversation").click()
        expect(answers(page)).to_have_count(2)
        expect(page.locator(".question").last).to_contain_text("You allowed it in this conversation.")
        assert not (project / "a.tmp").exists()
        (project / "b.tmp").write_text("x")
        ask(page, ASKED)
        expect(answers(page)).to_have_count(3)
        expect(page.locator(".question")).to_have_count(2)  # it was allowed
        assert not (project / "b.tmp").exists()
        page.reload()
        expect(page.locator(".question .note")).to_have_text(
            ["You did not allow it.", "You allowed it in this conversation."]
        )
        assert page.locator(".question img").count() == 0
        small = desk.open(site, context=page.context, size=PHONE)
        small.goto(page.url)
        page.get_by_role("button", name="New", exact=True).first.click()
        ask(page, ASKED)  # another conversation
        asked(page)
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".question").last).to_contain_text("not called")
        sound(page)
