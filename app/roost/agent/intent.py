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

from roost.agent.foreign import PREFIX

URL = re.compile(r"\bhttps?://[^\s<>\"')\]]+", re.IGNORECASE)
HACKER_NEWS = re.compile(r"\b(hacker\s*news|hackernews|hn)\b", re.IGNORECASE)
MOST_READ = 1000
"""Characters of a request that are read for what it asks."""
HACKER_NEWS_URL = "https://news.ycombinator.com/"
# A path: has a slash or an ending, or stands in quotes or backquotes behind a word such as "file".
PATH = re.compile(
    r"`(?P<quoted>[^`\s]+)`|(?<![\w@:/])(?P<path>(?:~|\.{1,2})?/?(?:[\w.-]+/)*[\w-]*\.[A-Za-z]\w{0,9}|(?:~|\.{1,2})?/[\w./-]+|"
    r"(?:[\w.-]+/)+[\w.-]*|README|LICENSE|Makefile|Dockerfile)(?![\w/])"
)
NAMED_TOOL = re.compile(rf"(?<!\w){PREFIX}[a-z0-9_]+(?!\w)")
"""A foreign tool's whole name."""
SENTENCE = re.compile(r"[.!?;]\s|\n|\bbut\b", re.IGNORECASE)
CALLING = re.compile(
    r"\b(?:use|using|call|calling|run|running|execute|invoke|try|ask|with|by|via|through)\b", re.IGNORECASE
)
NOT_CALLING = re.compile(
    r"\b(?:not|never|under no|without|avoid|stop|don'?t|mustn'?t|shouldn'?t|cannot|can'?t|how to|"
    r"(?:what|how|which|when|why) (?:do|does|did|can|could|would|may|should) (?:i|you|we|one)|"
    r"(?:should|may|can|could|do|did|have) (?:i|we)|(?:do|did|have|would) you)\b|\u2019t\b",
    re.IGNORECASE,
)
"""Who writes this in one sentence with a tool's name forbids it, or asks about it."""
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
ONLY_TALK = re.compile(
    r"\W*(?:(?:hi|hello|hey|thanks|thank you|good (?:morning|evening|night)|how are you(?: today| doing)?|bye|there|"
    r"very much|a lot|that was (?:very )?(?:good|great|nice|helpful))\b\W*)+",
    re.IGNORECASE,
)
MOST_TALK = 80
REMEMBER = re.compile(
    r"^\W*(?:please |(?:can|could|will) you (?:please )?)?"
    r"(?:(?:remember|keep in mind|don'?t forget)(?: that\b| ?:)?|note(?: that\b| ?:)) "
    r"(?!when\b|how\b|what\b|who\b|where\b|why\b|which\b|to\b|our\b)",
    re.IGNORECASE,
)
"""How it begins; the rest is what is to be remembered. Read, as the next one, where blanks are single ones."""
LEAST_REMEMBERED = 4
FORGET = re.compile(
    r"^\W*(?:please )?forget (?:(?:about|that|everything about|what you (?:know|remember) (?:about|of)) )?"
    r"(?!it\b|that\b|this\b)",
    re.IGNORECASE,
)
LEAST_FORGOTTEN = 3
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


Rule = Callable[[str, str], dict[str, Any] | None]
"""Reads the arguments from the head of a request (see `head_of`), and takes what is handed on from the whole of it."""


def head_of(request: str) -> str:
    """Return as much of a request as rules look at, in whole words: their time grows with the square of its length."""
    if len(request) <= MOST_READ:
        return request
    head = request[:MOST_READ]
    return head if request[MOST_READ].isspace() else head[: max(map(head.rfind, " \n\t"), default=0) + 1].rstrip()


def _url(text: str) -> str:
    found = URL.search(text)
    return found.group().rstrip(".,;:!?") if found else ""


def _path(text: str) -> str:
    without = URL.sub(" ", text)
    found = PATH.search(without)
    return (found.group("quoted") or found.group("path") or "") if found else ""


def _research_url(head: str, text: str) -> dict[str, Any] | None:
    return {"task": text} if RESEARCH.search(head) and _url(head) else None


def _news(head: str, text: str) -> dict[str, Any] | None:
    return {"task": text} if NEWS.search(head) and not HACKER_NEWS.search(head) and not _path(head) else None


def _fetch(head: str, _text: str) -> dict[str, Any] | None:
    if url := _url(head):
        return {"url": url}
    return {"url": HACKER_NEWS_URL} if HACKER_NEWS.search(head) else None


def _edit(head: str, text: str) -> dict[str, Any] | None:
    return {"path": _path(head), "task": text} if EDIT.search(head) and _path(head) else None


def _write(head: str, text: str) -> dict[str, Any] | None:
    return {"path": _path(head), "task": text} if WRITE.search(head) and _path(head) else None


def _read(head: str, _text: str) -> dict[str, Any] | None:
    return {"path": _path(head)} if READ.search(head) and _path(head) and not _path(head).endswith("/") else None


def _list(head: str, _text: str) -> dict[str, Any] | None:
    path = _path(head)
    return {"path": path or "."} if LIST.search(head) or (READ.search(head) and path.endswith("/")) else None


def _search(head: str, _text: str) -> dict[str, Any] | None:
    if not SEARCH.search(head):
        return None
    quoted = QUOTED.search(head)
    if quoted:
        return {"pattern": quoted.group("text")}
    rest = SEARCH.split(head, maxsplit=1)[-1]
    words = [
        word for word in re.findall(r"[\w.-]{3,}", rest) if word.lower() not in {"for", "the", "all", "that", "files"}
    ]
    return {"pattern": words[0]} if words else None


def _execute(head: str, text: str) -> dict[str, Any] | None:
    if not EXECUTE.search(head):
        return None
    found = IN_BACKQUOTES.search(head) or BEHIND_RUN.search(head)
    cut = found is not None and found.end() == len(head) < len(text)  # half a command is another one
    command = found.group(1).strip() if found and not cut else ""
    return {"command": command} if command else None


def _remember(_head: str, text: str) -> dict[str, Any] | None:
    said = behind(REMEMBER, text)
    return {"text": said} if len(said) >= LEAST_REMEMBERED and "?" not in said else None


def _forget(_head: str, text: str) -> dict[str, Any] | None:
    words = behind(FORGET, text).rstrip(".! ")
    return {"words": words} if len(words) >= LEAST_FORGOTTEN and "?" not in words else None


def behind(beginning: re.Pattern[str], text: str) -> str:
    """Return what stands behind the words that a request begins with, on one line, '' where it begins otherwise."""
    plain = " ".join(text.split())
    found = beginning.match(plain[:MOST_READ])
    return plain[found.end() :] if found else ""


def _recall(head: str, _text: str) -> dict[str, Any] | None:
    found = RECALL.search(head)
    return {"words": found.group("words").strip()} if found else None


def _save_skill(head: str, _text: str) -> dict[str, Any] | None:
    found = SAVE_SKILL.search(head)
    if not found:
        return None
    return {"name": found.group("name").strip()} if found.group("name") else {}


def _skills(head: str, text: str) -> dict[str, Any] | None:
    found = SKILLS.search(head)
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


def named_tools(head: str) -> list[str]:
    """Return the foreign tools that are to be called: behind a verb that says so, or first in their sentence."""
    found = []
    for match in NAMED_TOOL.finditer(head):
        before = SENTENCE.split(head[: match.start()])[-1]
        behind_it = SENTENCE.split(head[match.end() :], maxsplit=1)[0]
        first = not re.search(r"\w", before)
        if not NOT_CALLING.search(behind_it if first else before) and (first or CALLING.search(before)):
            found.append(match.group())
    return found


def names_something(text: str) -> bool:
    """Say whether what a rule found is named in so many words: an address, a path, a tool, something quoted, files."""
    head = head_of(text)
    named = bool(named_tools(head) or _url(head) or HACKER_NEWS.search(head) or _path(head) or QUOTED.search(head))
    return named or bool(LIST.search(head) and FILES.search(head))


def only_talk(text: str) -> bool:
    """Say whether a request is a greeting or thanks and nothing else."""
    return len(text) <= MOST_TALK and ONLY_TALK.fullmatch(text) is not None


def needs_tools(text: str) -> bool:
    """Say whether a request names something that only tools reach."""
    if named_tools(head_of(text)):
        return True
    return bool(guess(text, {tool for _, tool, _ in RULES}).tool) and names_something(text)


def asks_to_remember(text: str) -> bool:
    """Say whether a user asks for something to be remembered."""
    return _remember("", text) is not None


def asks_for_skill(text: str) -> bool:
    """Say whether a user asks for a skill to be kept."""
    return bool(SAVE_SKILL.search(head_of(text)))


def asks_for_change(text: str) -> bool:
    """Say whether a request asks for a file to be written or changed."""
    head = head_of(text)
    if asks_to_remember(text) or _forget("", text):
        return False
    return bool(_path(head)) and bool(WRITE.search(head) or EDIT.search(head)) and not TALK.match(head)


def guess(request: str, tools: Collection[str]) -> Guess:
    """Return what a request asks for, of the tools that exist."""
    text = request.strip()
    head = head_of(text)
    if not text or TALK.match(head):
        return Guess(rule="talk")
    if named := named_tools(head):
        there = next((name for name in named if name in tools), "")
        return Guess(there, {}, rule="named tool") if there else _not_there(named[0])
    missing = ""
    for rule, tool, read in RULES:
        arguments = read(head, text)
        if arguments is None:
            continue
        if tool in tools:
            return Guess(tool, arguments, rule=rule)
        missing = missing or tool
    return _not_there(missing) if missing else Guess(rule="none")


def _not_there(tool: str) -> Guess:
    return Guess(question=f"That needs the tool {tool}, which is not there now. What else may I do?", rule="missing")
