"""What a request is like, as numbers: pure, in one pass over its document, and without keeping what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic_core import from_json

from roost.gateway.request.kinds import Kind

HEAD_CHARS, TAIL_CHARS = 6000, 2000  # of a long text; what is asked stands at its beginning or its end
ENOUGH_CHARS = 200  # a shorter turn ("and in French?") is looked at with the user's turns before it
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
FENCE = re.compile(r"```|~~~")
CODE_LINE = re.compile(
    r"^\s*(?:def |class |import |from \w+ import|return\b|func |fn |let |const |var |public |private |#include|package "
    r"|SELECT\b|INSERT\b|CREATE TABLE|if \(|for \(|while \(|\}|</?\w+[ >]|Traceback |at \w[\w.$]*\()|[;{]\s*$",
    re.MULTILINE,
)
STEP = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+\S", re.MULTILINE)
MATHS = re.compile(r"[=≤≥≠∑∫√∂∞^±\u00d7÷]|\\(?:frac|sum|int|sqrt)\b|\b\d+\s*[-+*/]\s*\d+")
QUESTION = re.compile(r"[?¿\uff1f\u061f]")
# Words that ask for thought rather than for knowledge, in the languages of the shipped examples; parts of words,
# because most of these languages bend theirs.
THOUGHT = re.compile(
    r"step[- ]by[- ]step|\bprove|\bproof|\bderiv|trade-?off|\banaly[sz]|\bcompar|\bevaluat|\bdesign|\barchitect"
    r"|\bstrateg|\broot cause|\boptimi[sz]|\brefactor|\bplan\b|\bcritic|\breason|\bjustif|pros and cons|\bdebug"
    r"|schritt für schritt|beweis|vergleich|entwirf|entwurf|abwäg|begründ|ursache|untersuch"
    r"|étape par étape|démontr|prouv|conçoi|compar[ez]|justifi|avantages et"
    r"|paso a paso|demuestr|diseñ|razon|ventajas y|passo a passo|progett|dimostr|projet"
    r"|шаг за шагом|докаж|сравн|проанализ|спроектир|обоснуй|逐步|证明|分析|比较|设计|手順|比較|証明|設計",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Features:
    """`prompt_bytes` are those of the whole request; characters, words and lines those of what the user asks last.

    `thought` counts words that ask for reasoning, `steps` items of a list, `code` lines of code and its fences.
    `answer_tokens` is the longest answer asked for, 0 if that is not said; `effort` what the client says of reasoning.
    """

    prompt_bytes: int = 0
    chars: int = 0
    turns: int = 0
    images: int = 0
    tools: int = 0
    schema: bool = False
    code: int = 0
    steps: int = 0
    questions: int = 0
    maths: int = 0
    thought: int = 0
    answer_tokens: int = 0
    effort: str = ""


@dataclass(frozen=True)
class Asked:
    """What a request asks: the text that says it, which is never kept, and its features."""

    text: str
    features: Features


def read_request(kind: Kind, body: bytes, answer_tokens: int | None = None) -> Asked:
    """Look at a checked request to be answered with text; `answer_tokens` is the longest answer that it asks for."""
    document: dict[str, object] = from_json(body)
    turns: list[str] = []
    images = 0
    for mine, text, pictures in _turns(document.get(kind.prompt_field)):
        images += pictures
        if mine:
            turns.append(text)
    text = _last(turns)
    return Asked(text, _features(document, text, len(body), len(turns), images, answer_tokens or 0))


def _features(
    document: Mapping[str, object], text: str, size: int, turns: int, images: int, answer_tokens: int
) -> Features:
    tools = document.get("tools")
    looked_at = text if len(text) <= HEAD_CHARS + TAIL_CHARS else f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"
    return Features(
        prompt_bytes=size,
        chars=len(text),
        turns=turns,
        images=images,
        tools=len(tools) if isinstance(tools, list) and document.get("tool_choice") != "none" else 0,
        schema=_wants_schema(document),
        code=len(FENCE.findall(looked_at)) + len(CODE_LINE.findall(looked_at)),
        steps=len(STEP.findall(looked_at)),
        questions=len(QUESTION.findall(looked_at)),
        maths=len(MATHS.findall(looked_at)),
        thought=len(THOUGHT.findall(looked_at)),
        answer_tokens=answer_tokens,
        effort=_effort(document),
    )


def _last(turns: list[str]) -> str:
    """Return the user's last turn, with those before it while all of that is short."""
    taken: list[str] = []
    for turn in reversed(turns):
        taken.insert(0, turn)
        if sum(map(len, taken)) >= ENOUGH_CHARS:
            break
    return "\n".join(taken)


def _turns(prompt: object) -> Iterator[tuple[bool, str, int]]:
    """Yield for each turn whether it is the user's, its text, and how many images it has."""
    if isinstance(prompt, str):
        yield True, prompt, 0
    for item in prompt if isinstance(prompt, list) else ():
        if isinstance(item, str):
            yield True, item, 0
        elif isinstance(item, dict):
            text, images = _content(item.get("content"))
            yield item.get("role", "user") == "user" and (bool(text) or images > 0), text, images


def _content(content: object) -> tuple[str, int]:
    """Return the text and the number of images of a message, in the words of OpenAI's two APIs and of Anthropic's."""
    if isinstance(content, str):
        return content, 0
    texts: list[str] = []
    images = 0
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            continue
        kind, text = part.get("type"), part.get("text")
        if isinstance(text, str):
            texts.append(text)
        images += kind in ("image_url", "input_image", "image")
        if kind == "tool_result":
            images += _content(part.get("content"))[1]
    return "\n".join(texts), images


def _wants_schema(document: Mapping[str, object]) -> bool:
    text = document.get("text")
    answer = document.get("response_format") or (text.get("format") if isinstance(text, dict) else None)
    said = isinstance(answer, dict) and answer.get("type") in ("json_schema", "json_object")
    return said or document.get("json_schema") is not None


def _effort(document: Mapping[str, object]) -> str:
    reasoning = document.get("reasoning")
    said = document.get("reasoning_effort") or (reasoning.get("effort") if isinstance(reasoning, dict) else None)
    return said if isinstance(said, str) and said in EFFORTS else ""
