"""What the chat templates of model families do with a conversation, written anew in few lines: what they raise on, what
they drop, what they want of ids. The marks round messages are theirs, prose and features without bearing are left out.

Read as of November 2026 in the templates that llama.cpp keeps (models/templates) and in those of the models' own
repositories: Llama-3.2-3B-Instruct, Mistral-7B-Instruct-v0.1, Mistral-Nemo-Instruct-2407, Mistral-Small-3.1,
gemma-2-2b-it, gemma-3-4b-it, Qwen3-0.6B, Qwen3.5, Phi-3.5-mini-instruct, Phi-4-mini-instruct, DeepSeek-V3.1,
DeepSeek-R1-Distill-Qwen-32B, granite-3.3-2b-instruct, c4ai-command-r7b-12-2024, Hermes-3-Llama-3.1-8B.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import JsonValue

from roost.context.messages import Message, to_wire
from roost.context.tokens import NotCountedError

CHATML = """\
{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}<|im_start|>assistant
"""

LLAMA_3 = """\
{%- if messages[0].role == 'system' %}{% set told = messages[0].content | trim %}{% set messages = messages[1:] %}
{%- else %}{% set told = '' %}{% endif -%}
<|start_header_id|>system<|end_header_id|>

{{ told }}<|eot_id|>
{%- if tools %}
{%- if not messages %}{{ raise_exception("there's no first user message!") }}{% endif -%}
<|start_header_id|>user<|end_header_id|>

{{ tools | tojson }}{{ messages[0].content | trim }}<|eot_id|>{% set messages = messages[1:] %}{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}<|start_header_id|>ipython<|end_header_id|>

{{ m.content | tojson }}<|eot_id|>
{%- elif 'tool_calls' in m %}
{%- if m.tool_calls | length != 1 %}{{ raise_exception('only supports single tool-calls at once') }}{% endif -%}
<|start_header_id|>assistant<|end_header_id|>

{% set call = m.tool_calls[0].function -%}
{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}<|eot_id|>
{%- else %}<|start_header_id|>{{ m.role }}<|end_header_id|>

{{ m.content | trim }}<|eot_id|>{% endif %}{% endfor %}"""

MISTRAL_V1 = """\
{%- for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{%- if m.role == 'user' %}[INST] {{ m.content }} [/INST]
{%- elif m.role == 'assistant' %}{{ m.content + eos_token }}
{%- else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"""

MISTRAL_NEMO = """\
{%- if messages[0].role == 'system' %}{% set told = messages[0].content %}{% set messages = messages[1:] %}{% endif %}
{%- set ns = namespace(at=0) %}
{%- for m in messages if not (m.role == 'tool' or m.tool_calls is defined) %}
{%- if (m.role == 'user') != (ns.at % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{%- set ns.at = ns.at + 1 %}{% endfor %}
{%- for m in messages %}
{%- if m.role == 'user' %}[INST]{% if loop.last and told is defined %}{{ told }}

{% endif %}{{ m.content }}[/INST]
{%- elif m.tool_calls is defined %}[TOOL_CALLS][
{%- for call in m.tool_calls %}{{ call.function | tojson }}
{%- if call.id | length != 9 %}{{ raise_exception('ids should have length 9') }}{% endif %}
{{- call.id }}{% endfor %}]{{ eos_token }}
{%- elif m.role == 'assistant' %}{{ m.content + eos_token }}
{%- elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content | string }}
{%- if m.tool_call_id | length != 9 %}{{ raise_exception('ids should have length 9') }}{% endif %}
{{- m.tool_call_id }}[/TOOL_RESULTS]
{%- else %}{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}{% endfor %}"""

MISTRAL_SMALL = """\
{%- if messages[0].role == 'system' %}[SYSTEM_PROMPT]{{ messages[0].content }}[/SYSTEM_PROMPT]
{%- set messages = messages[1:] %}{% endif %}
{%- set ns = namespace(at=0) %}
{%- for m in messages if m.role != 'tool' and not m.tool_calls %}
{%- if (m.role == 'user') != (ns.at % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{%- set ns.at = ns.at + 1 %}{% endfor %}
{%- for m in messages %}
{%- if m.role == 'user' %}[INST]{{ m.content }}[/INST]
{%- elif m.tool_calls is defined %}[TOOL_CALLS] [
{%- for call in m.tool_calls %}{{ call.function | tojson }}
{%- if call.id | length < 9 %}{{ raise_exception('ids should have length >= 9') }}{% endif %}
{{- call.id[-9:] }}{% endfor %}]{{ eos_token }}
{%- elif m.role == 'assistant' %}{{ m.content + eos_token }}
{%- elif m.role == 'tool' %}[TOOL_RESULTS] {{ m.content | string }}
{%- if m.tool_call_id | length < 9 %}{{ raise_exception('ids should have length >= 9') }}{% endif %}
{{- m.tool_call_id[-9:] }}[/TOOL_RESULTS]
{%- else %}{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}{% endfor %}"""

GEMMA_2 = """\
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif -%}
<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}
{{ m.content | trim }}<end_of_turn>
{% endfor %}<start_of_turn>model
"""

GEMMA_3 = """\
{%- if messages[0].role == 'system' %}{% set told = messages[0].content %}{% set messages = messages[1:] %}{% endif %}
{%- for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif -%}
<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}
{% if loop.first and told is defined %}{{ told }}

{% endif %}{{ m.content | trim }}<end_of_turn>
{% endfor %}<start_of_turn>model
"""

QWEN_3 = """\
{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif %}{{ tools | tojson }}<|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- for m in messages %}
{%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% elif m.role == 'assistant' %}<|im_start|>assistant
{{ m.content.split('</think>')[-1].lstrip('\n') }}
{%- for call in m.tool_calls %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% elif m.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}
<tool_response>
{{ m.content }}
</tool_response>{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>
{% endif %}{% endif %}{% endfor %}<|im_start|>assistant
"""

QWEN_35 = """\
{%- set ns = namespace(asked=false) %}
{%- for m in messages if m.role == 'user' %}
{%- set text = m.content | trim %}
{%- if not (text.startswith('<tool_response>') and text.endswith('</tool_response>')) %}{% set ns.asked = true %}
{%- endif %}{% endfor %}
{%- if not ns.asked %}{{ raise_exception('No user query found in messages.') }}{% endif %}
{%- for m in messages if m.role == 'system' and not m == messages[0] %}
{{- raise_exception('System message must be at the beginning.') }}{% endfor %}
""" + QWEN_3.replace("(m.role == 'system' and not loop.first)", "false")

PHI_35 = """\
{%- for m in messages %}
{%- if m.role == 'system' and m.content %}<|system|>
{{ m.content }}<|end|>
{% elif m.role == 'user' %}<|user|>
{{ m.content }}<|end|>
{% elif m.role == 'assistant' %}<|assistant|>
{{ m.content }}<|end|>
{% endif %}{% endfor %}<|assistant|>
"""

PHI_4 = """\
{%- if messages[0].role == 'system' %}<|system|>{{ messages[0].content }}{{ tools | tojson if tools else '' }}<|end|>
{%- endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}<|tool_response|>{{ m.content | tojson }}<|end|>
{%- elif m.role != 'system' %}<|{{ m.role }}|>{{ m.content or '' }}
{%- for call in m.tool_calls %}<|tool_call|>{{ call.function | tojson }}<|/tool_call|>{% endfor %}<|end|>{% endif %}
{%- endfor %}<|assistant|>"""

DEEPSEEK_R1 = """\
{%- set ns = namespace(told='', tool=false) %}
{%- for m in messages if m.role == 'system' %}{% set ns.told = m.content %}{% endfor %}{{ ns.told }}
{%- for m in messages %}
{%- if m.role == 'user' %}{% set ns.tool = false %}<|User|>{{ m.content }}
{%- elif m.role == 'assistant' and m.content is none %}
{%- for call in m.tool_calls %}<|call|>{{ call.function.name + '\n' + call.function.arguments }}{% endfor %}
{%- elif m.role == 'assistant' %}<|Assistant|>{{ m.content.split('</think>')[-1] }}<|end|>
{%- elif m.role == 'tool' %}{% set ns.tool = true %}<|output|>{{ m.content }}<|/output|>{% endif %}{% endfor %}"""

DEEPSEEK_V31 = """\
{%- set ns = namespace(told='') %}
{%- for m in messages if m.role == 'system' %}{% set ns.told = ns.told + '\n\n' + m.content %}{% endfor %}{{ ns.told }}
{%- for m in messages %}
{%- if m.role == 'user' %}<|User|>{{ m.content }}
{%- elif m.role == 'assistant' and m.tool_calls is defined %}{{ m.content or '' }}
{%- for call in m.tool_calls %}<|call|>{{ call.function.name + '<|sep|>' + call.function.arguments }}{% endfor %}<|end|>
{%- elif m.role == 'assistant' %}{{ m.content + '<|end|>' }}
{%- elif m.role == 'tool' %}<|output|>{{ m.content }}<|/output|>{% endif %}{% endfor %}<|Assistant|>"""

GRANITE_33 = """\
{%- if messages[0].role == 'system' %}{% set told = messages[0].content %}{% set messages = messages[1:] %}{% endif -%}
<|start_of_role|>system<|end_of_role|>{{ told }}<|end_of_text|>
{% if tools %}<|start_of_role|>available_tools<|end_of_role|>{{ tools | tojson }}<|end_of_text|>
{% endif %}{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>
{% endfor %}<|start_of_role|>assistant<|end_of_role|>"""

COMMAND_R7B = """\
{%- if messages and messages[0].role == 'system' %}{% set told = messages[0].content %}{% endif -%}
<|SYSTEM_TOKEN|>{{ told }}{{ tools | tojson if tools else '' }}<|END_OF_TURN_TOKEN|>
{%- for m in messages %}
{%- if m.role == 'system' and not loop.first %}<|SYSTEM_TOKEN|>{{ m.content }}<|END_OF_TURN_TOKEN|>
{%- elif m.role == 'user' %}<|USER_TOKEN|>{{ m.content }}<|END_OF_TURN_TOKEN|>
{%- elif m.role == 'assistant' %}<|CHATBOT_TOKEN|>
{%- if m.tool_calls %}<|START_THINKING|>{{ m.tool_plan }}<|END_THINKING|>{% for call in m.tool_calls %}
{{- call.function.name }} {{ call.function.arguments | tojson }}{% endfor %}<|END_ACTION|><|END_OF_TURN_TOKEN|>
{%- else %}{{ m.content }}<|END_OF_TURN_TOKEN|>{% endif %}
{%- elif m.role == 'tool' %}<|START_TOOL_RESULT|>{{ m.content | tojson }}<|END_TOOL_RESULT|>{% endif %}
{%- endfor %}<|CHATBOT_TOKEN|>"""

HERMES_3 = """\
<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|im_end|>
{% for m in messages %}
{%- if m.role in ('user', 'system') or m.role == 'assistant' and m.tool_calls is not defined %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% elif m.role == 'assistant' %}<|im_start|>assistant
{%- for call in m.tool_calls %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>
{% elif m.role == 'tool' %}<tool_response>{{ m.content }}</tool_response>{% endif %}{% endfor %}"""

FAMILIES: Mapping[str, str] = {
    "chatml": CHATML,
    "llama 3.2": LLAMA_3,
    "mistral v0.1": MISTRAL_V1,
    "mistral nemo": MISTRAL_NEMO,
    "mistral small 3.1": MISTRAL_SMALL,
    "gemma 2": GEMMA_2,
    "gemma 3": GEMMA_3,
    "qwen 3": QWEN_3,
    "qwen 3.5": QWEN_35,
    "phi 3.5": PHI_35,
    "phi 4 mini": PHI_4,
    "deepseek r1 distill": DEEPSEEK_R1,
    "deepseek v3.1": DEEPSEEK_V31,
    "granite 3.3": GRANITE_33,
    "command r7b": COMMAND_R7B,
    "hermes 3": HERMES_3,
}


class JinjaTemplate:
    """A template as transformers and llama.cpp run it; also a counter, of the words that it renders."""

    def __init__(self, text: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals |= {"raise_exception": _raise, "strftime_now": lambda _format: "today"}
        environment.filters["tojson"] = _to_json
        self._template = environment.from_string(text)

    def render(self, messages: Sequence[Message], tools: Sequence[JsonValue] = ()) -> str:
        """Return the prompt. Arguments are given as an object or as text, whichever the template renders.

        Raises:
            jinja2.TemplateError, TypeError: the template does not take it.
        """
        try:
            return self._rendered([_with_objects(message) for message in to_wire(messages)], tools)
        except TypeError:  # it wants text; llama.cpp tries both, too
            return self._rendered(to_wire(messages), tools)

    def _rendered(self, messages: list[dict[str, Any]], tools: Sequence[JsonValue]) -> str:
        given = {"tools": list(tools)} if tools else {}
        return self._template.render(
            messages=messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=True, **given
        )

    async def text(self, text: str) -> int:
        """Return the number of words."""
        return len(text.split())

    async def prompt(self, messages: Sequence[Message], tools: Sequence[JsonValue] = ()) -> int:
        """Return the number of words that are rendered."""
        try:
            return len(self.render(messages, tools).split())
        except (jinja2.TemplateError, TypeError) as error:
            raise NotCountedError(str(error)) from None


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _with_objects(message: dict[str, Any]) -> dict[str, Any]:
    if "tool_calls" not in message:
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}
