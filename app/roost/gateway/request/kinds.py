"""The kinds of requests that model servers answer: one row each, one way through the gateway for all of them."""

from __future__ import annotations

from dataclasses import dataclass

from roost.engines.base import Skill
from roost.gateway.paths import CHAT_PATH, MESSAGES_PATH, RESPONSES_PATH
from roost.gateway.request import bodies
from roost.gateway.request.bodies import Asked


@dataclass(frozen=True)
class Kind:
    """One kind of request.

    `engine_path` is where model servers have it, `last_event` how the last event of a stream begins. `limit_field` is
    the field that limits the answer. `adapters`: the body can say which LoRA adapter to use. `counted`: the prompt is
    held against the context before the model server gets it. `counts`: the gateway itself answers, with that count.
    """

    name: str
    path: str
    shape: type[Asked]
    skill: Skill = Skill.GENERATE
    engine_path: str = ""
    last_event: tuple[bytes, ...] = (b"data: [DONE]",)
    limit_field: str = "max_tokens"
    prompt_field: str = "messages"
    adapters: bool = False
    counted: bool = False
    counts: bool = False

    @property
    def chosen(self) -> bool:
        """Say whether `auto` is a choice among models here: where a text is answered."""
        return self.skill is Skill.GENERATE

    @property
    def upstream(self) -> str:
        """Return the path at the model server."""
        return self.engine_path or self.path

    def ended(self, data: bytes) -> bool:
        """Say whether whole events of a stream include its last one."""
        last = data.rstrip()
        at = max(last.rfind(b"\n\n"), last.rfind(b"\n\r\n"))
        return last[at + 1 :].lstrip().startswith(self.last_event)


CHAT = Kind("chat", CHAT_PATH, bodies.ChatRequest, adapters=True, counted=True)
COMPLETIONS = Kind(
    "completions", "/v1/completions", bodies.CompletionRequest, adapters=True, counted=True, prompt_field="prompt"
)
RESPONSES = Kind(
    "responses",
    RESPONSES_PATH,
    bodies.ResponsesRequest,
    last_event=(b"event: response.completed", b"event: response.incomplete", b"event: response.failed"),
    limit_field="max_output_tokens",
    prompt_field="input",
    counted=True,
)
MESSAGES = Kind("messages", MESSAGES_PATH, bodies.MessagesRequest, last_event=(b"event: message_stop",), counted=True)
COUNT = Kind("count", "/v1/count", bodies.CountRequest, Skill.TOKENIZE, counts=True)
KINDS = (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    MESSAGES,
    Kind("embeddings", "/v1/embeddings", bodies.EmbeddingRequest, Skill.EMBED, prompt_field="input"),
    Kind("rerank", "/v1/rerank", bodies.RerankRequest, Skill.RERANK, prompt_field="documents"),
    Kind("tokenize", "/v1/tokenize", bodies.TokenizeRequest, Skill.TOKENIZE, "/tokenize"),
    Kind("detokenize", "/v1/detokenize", bodies.DetokenizeRequest, Skill.TOKENIZE, "/detokenize"),
    COUNT,
    Kind("messages_count", "/v1/messages/count_tokens", bodies.MessagesCountRequest, Skill.TOKENIZE),
    Kind(
        "responses_count", "/v1/responses/input_tokens", bodies.ResponsesRequest, Skill.TOKENIZE, prompt_field="input"
    ),
)
