"""What a request asks for, read without a model: the Router's stand-in where it is absent, slow or wrong.

The first rule that matches and whose tool exists decides. It reads words, not meaning: where it is not sure it has the
user asked, or lets Main just talk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

URL = re.compile(r"\bhttps?://[^\s<>\"')\]]+", re.IGNORECASE)
HACKER_NEWS = re.compile(r"\b(hacker\s*news|hackernews|hn)\b", re.IGNORECASE)
HACKER_NEWS_URL = "https://news.ycombinator.com/"
# A path: has a slash or an ending, or stands in quotes or backquotes behind a word such as "file".
PATH = re.compile(
    r"`(?P<quoted>[^`\s]+)`|(?<![\w@:/])(?P<path>(?:~|\.{1,2})?/?(?:[\w.-]+/)*[\w-]*\.[A-Za-z]\w{0,9}|(?:~|\.{1,2})?/[\w./-]+|"
    r"(?:[\w.-]+/)+[\w.-]*|README|LICENSE|Makefile|Dockerfile)(?![\w/])"
)
QUOTES = "\"'`\u201c\u201d\u2018\u2019"
QUOTED = re.compile(rf"[{QUOTES}](?P<text>[^{QUOTES}]{{2,200}})[{QUOTES}]")
IN_BACKQUOTES = re.compile(r"`([^`]+)`")
BEHIND_RUN = re.compile(r"\b(?:run|execute|start)\s+(?:the\s+)?(?:command\s+)?([^.?!]+)", re.IGNORECASE)


def _words(*words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(words)})\b", re.IGNORECASE)


RESEARCH = _words("research", "investigate", "look into", "find out", "compare", "study", "dig into")
NEWS = _words("latest", "news", "headlines", "recent developments", "what'?s new", "what is new")
READ = _words(
    "read",
    "show",
    "open",
    "display",
    "print",
    "cat",
    "view",
    "see",
    "look at",
    "what'?s in",
    "what is in",
    "contents? of",
)
WRITE = _words("write", "create", "make", "generate", "save", "put")
EDIT = _words("edit", "modify", "change", "fix", "update", "replace", "rename", "refactor", "add", "remove", "correct")
LIST = _words(
    "list",
    "which files",
    "what files",
    "show (?:me )?(?:the |all )?files",
    "directory",
    "folder contents?",
    "files? (?:are )?in",
)
SEARCH = _words("search", "find", "grep", "where (?:is|are|does|do)", "look for", "locate", "occurrences?")
EXECUTE = _words("run", "execute", "start", "launch", "test", "compile", "build")
FILES = _words("files?", "folders?", "director(?:y|ies)")
TALK = re.compile(
    r"^\W*(?:hi|hello|hey|thanks?|thank you|good (?:morning|evening|night)|how are you|who are you|bye|okay|ok)\b",
    re.IGNORECASE,
)
REMEMBER = re.compile(
    r"^\W*(?:please\s+|(?:can|could|will) you\s+(?:please\s+)?)?"
    r"(?:(?:remember|keep in mind|don'?t forget)(?:\s+that\b|\s*:)?|note(?:\s+that\b|\s*:))\s+"
    r"(?!when\b|how\b|what\b|who\b|where\b|why\b|which\b|to\b|our\b)(?P<text>[^?]{4,})$",
    re.IGNORECASE,
)
FORGET = re.compile(
    r"^\W*(?:please\s+)?forget\s+(?:(?:about|that|everything about|what you (?:know|remember) (?:about|of))\s+)?"
    r"(?P<words>(?!it\b|that\b|this\b)[^?]{3,}?)[.!\s]*$",
    re.IGNORECASE,
)
RECALL = re.compile(
    r"\b(?:what (?:do|did) you (?:know|remember) (?:about|of)|do you remember|"
    r"what did (?:we|i) (?:say|talk|tell you) about)\s+(?P<words>[^?]{3,})",
    re.IGNORECASE,
)
SAVE_SKILL = re.compile(
    r"\b(?:save|keep|store) (?:it|this|that)(?: way)? as (?:a |my )?skill"
    r"(?:\s+(?:called|named)\s+(?P<name>[\w -]{1,60}))?",
    re.IGNORECASE,
)
SKILLS = re.compile(
    r"\b(?:which|what|any|search(?: the| my)?) skills?\b(?:[^?]*?\b(?:for|about|to)\s+(?P<words>[^?]+))?", re.IGNORECASE
)


@dataclass(frozen=True)
class Guess:
    """What to do: a tool with arguments, a question for the user, or (neither) just an answer."""

    tool: str = ""
    arguments: dict[str, JsonValue] | None = None
    question: str = ""
    rule: str = ""


Rule = Callable[[str], dict[str, Any] | None]


def _url(text: str) -> str:
    found = URL.search(text)
    return found.group().rstrip(".,;:!?") if found else ""


def _path(text: str) -> str:
    without = URL.sub(" ", text)
    found = PATH.search(without)
    return (found.group("quoted") or found.group("path") or "") if found else ""


def _research_url(text: str) -> dict[str, Any] | None:
    return {"task": text} if RESEARCH.search(text) and _url(text) else None


def _news(text: str) -> dict[str, Any] | None:
    return {"task": text} if NEWS.search(text) and not HACKER_NEWS.search(text) and not _path(text) else None


def _fetch(text: str) -> dict[str, Any] | None:
    if url := _url(text):
        return {"url": url}
    return {"url": HACKER_NEWS_URL} if HACKER_NEWS.search(text) else None


def _edit(text: str) -> dict[str, Any] | None:
    return {"path": _path(text), "task": text} if EDIT.search(text) and _path(text) else None


def _write(text: str) -> dict[str, Any] | None:
    return {"path": _path(text), "task": text} if WRITE.search(text) and _path(text) else None


def _read(text: str) -> dict[str, Any] | None:
    return {"path": _path(text)} if READ.search(text) and _path(text) and not _path(text).endswith("/") else None


def _list(text: str) -> dict[str, Any] | None:
    path = _path(text)
    return {"path": path or "."} if LIST.search(text) or (READ.search(text) and path.endswith("/")) else None


def _search(text: str) -> dict[str, Any] | None:
    if not SEARCH.search(text):
        return None
    quoted = QUOTED.search(text)
    if quoted:
        return {"pattern": quoted.group("text")}
    rest = SEARCH.split(text, maxsplit=1)[-1]
    words = [
        word for word in re.findall(r"[\w.-]{3,}", rest) if word.lower() not in {"for", "the", "all", "that", "files"}
    ]
    return {"pattern": words[0]} if words else None


def _execute(text: str) -> dict[str, Any] | None:
    if not EXECUTE.search(text):
        return None
    found = IN_BACKQUOTES.search(text) or BEHIND_RUN.search(text)
    command = found.group(1).strip() if found else ""
    return {"command": command} if command else None


def _remember(text: str) -> dict[str, Any] | None:
    found = REMEMBER.search(text)
    return {"text": found.group("text").strip()} if found else None


def _forget(text: str) -> dict[str, Any] | None:
    found = FORGET.search(text)
    return {"words": found.group("words").strip()} if found else None


def _recall(text: str) -> dict[str, Any] | None:
    found = RECALL.search(text)
    return {"words": found.group("words").strip()} if found else None


def _save_skill(text: str) -> dict[str, Any] | None:
    found = SAVE_SKILL.search(text)
    if not found:
        return None
    return {"name": found.group("name").strip()} if found.group("name") else {}


def _skills(text: str) -> dict[str, Any] | None:
    found = SKILLS.search(text)
    return {"words": (found.group("words") or text).strip()} if found else None


RULES: tuple[tuple[str, str, Rule], ...] = (
    ("remember", "remember", _remember),
    ("forget", "forget", _forget),
    ("recall", "recall", _recall),
    ("save skill", "save_skill", _save_skill),
    ("skills", "search_skills", _skills),
    ("research+url", "researcher", _research_url),
    ("news", "researcher", _news),
    ("url", "web_fetch", _fetch),
    ("read+path", "read", _read),
    ("edit+path", "edit", _edit),
    ("write+path", "write", _write),
    ("list", "list", _list),
    ("search", "search", _search),
    ("execute", "shell", _execute),
)
"""Name of the rule, the tool that it calls, and what reads its arguments; in order."""


def names_something(text: str) -> bool:
    """Say whether what a rule found is named in so many words: an address, a path, something quoted, files."""
    named = bool(_url(text) or HACKER_NEWS.search(text) or _path(text) or QUOTED.search(text))
    return named or bool(LIST.search(text) and FILES.search(text))


def needs_tools(text: str) -> bool:
    """Say whether a request names something that only tools reach."""
    return bool(guess(text, {tool for _, tool, _ in RULES}).tool) and names_something(text)


def asks_for_change(text: str) -> bool:
    """Say whether a request asks for a file to be written or changed."""
    if REMEMBER.search(text) or FORGET.search(text):
        return False
    return bool(_path(text)) and bool(WRITE.search(text) or EDIT.search(text)) and not TALK.match(text)


def guess(request: str, tools: Collection[str]) -> Guess:
    """Return what a request asks for, of the tools that exist."""
    text = request.strip()
    if not text or TALK.match(text):
        return Guess(rule="talk")
    missing = ""
    for rule, tool, read in RULES:
        arguments = read(text)
        if arguments is None:
            continue
        if tool in tools:
            return Guess(tool, arguments, rule=rule)
        missing = missing or tool
    if missing:
        return Guess(
            question=f"That needs the tool {missing}, which is not there now. What else may I do?", rule="missing"
        )
    return Guess(rule="none")
