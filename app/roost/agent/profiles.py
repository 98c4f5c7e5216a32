"""What is particular about families of models, as flags: how they were taught to call tools, and that some think.

A model of no known family gets the careful way: free words, then a call under a grammar. Where a family was trained on
a form that its server parses, its free words may already be the call. Whatever a model writes is read in every form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """Flags of a family.

    `native_tools`: tool schemas go with the request, and the server's parser finds the calls. `form`: how to write a
    call, told to models that know one. `thinks`: it thinks aloud first, which needs room.
    """

    family: str
    native_tools: bool = False
    form: str = ""
    thinks: bool = False


CHATML = 'A call is written <tool_call>{"name": NAME, "arguments": {…}}</tool_call>.'
JSON_FORM = 'A call is written {"name": NAME, "parameters": {…}}.'
TEXT = "A call is written [NAME(argument=value)]."

CAREFUL = Profile("unknown")
PROFILES: tuple[tuple[re.Pattern[str], Profile], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), profile)
    for pattern, profile in (
        (r"functiongemma", Profile("functiongemma", native_tools=True)),
        (r"deepseek.*r1|r1-distill|qwq", Profile("deepseek-r1", thinks=True)),
        (r"qwen3(?!.*(coder|instruct))|qwen3\.\d", Profile("qwen3", native_tools=True, form=CHATML, thinks=True)),
        (r"qwen", Profile("qwen", native_tools=True, form=CHATML)),
        (r"hermes", Profile("hermes", native_tools=True, form=CHATML)),
        (r"llama-?3", Profile("llama3", native_tools=True, form=JSON_FORM)),
        (r"mistral|ministral|devstral|magistral", Profile("mistral", native_tools=True)),
        (r"granite", Profile("granite", native_tools=True)),
        (r"lfm2", Profile("lfm2", form=TEXT)),
        (r"gpt-oss", Profile("gpt-oss", native_tools=True, thinks=True)),
        (r"smollm3", Profile("smollm3", form=CHATML, thinks=True)),
        (r"xlam|hammer", Profile("xlam", form='A call is written [{"name": NAME, "arguments": {…}}].')),
    )
)


def profile_of(model: str) -> Profile:
    """Return the profile of a model by its name; the careful one for names that say nothing."""
    return next((profile for pattern, profile in PROFILES if pattern.search(model)), CAREFUL)
