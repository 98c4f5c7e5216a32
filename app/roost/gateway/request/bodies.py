"""What each kind of request must have before a model server sees it; all other fields pass untouched.

The gateway looks at what it decides by, and at what model servers are known to take wrongly: an empty conversation,
which llama-server answers with endless text, and a kind of tool that it fails at.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictBool, StrictInt, model_validator

from roost.gateway.errors import ApiError
from roost.gateway.request.shape import ShapeLimits, check_images, check_messages, check_schema

Name = Annotated[str, Field(min_length=1, max_length=256)]


class Asked(BaseModel):
    """Any request. Nesting ends at 200 levels."""

    model: Name = "auto"
    stream: StrictBool | None = False
    json_schema: JsonValue = None  # llama-server's own ways to say what an answer shall look like
    grammar: JsonValue = None
    n_probs: JsonValue = None
    logprobs: JsonValue = None
    top_logprobs: JsonValue = None
    repeat_last_n: JsonValue = None
    dry_penalty_last_n: JsonValue = None

    def answer_tokens(self) -> int | None:
        """Return how long the answer may be, in tokens; None if the client does not say."""
        return None

    def check(self, limits: ShapeLimits) -> None:
        """See that no part of the request is larger than allowed.

        Raises:
            ApiError: 400.
        """


class Message(BaseModel):
    """One message; everything beyond its role is the model server's to judge."""

    model_config = ConfigDict(extra="allow")

    role: str = Field(min_length=1, max_length=64)


def _contents(messages: Iterable[Message]) -> Iterable[object]:
    return ((message.model_extra or {}).get("content") for message in messages)


def _check_items(given: str | list[JsonValue] | None, limits: ShapeLimits) -> None:
    items = given if isinstance(given, list) else []
    check_messages(len(items), limits, "input")
    for field in ("content", "output"):  # of a message, of a tool
        check_images((item.get(field) if isinstance(item, dict) else None for item in items), limits, "input")


class ChatRequest(Asked):
    """`/v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)
    tools: JsonValue = None
    response_format: JsonValue = None
    max_tokens: StrictInt | None = None
    max_completion_tokens: StrictInt | None = None

    def answer_tokens(self) -> int | None:
        """Return the newer field's value, else the older one's."""
        return _limit(self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens)

    def check(self, limits: ShapeLimits) -> None:
        """Bound messages, images, tools and the schema of the answer."""
        check_messages(len(self.messages), limits)
        check_images(_contents(self.messages), limits)
        check_schema("tools", self.tools, limits)
        check_schema("response_format", self.response_format, limits)
        _check_tools(self.tools)


class CompletionRequest(Asked):
    """`/v1/completions`: a text, tokens, or several of either."""

    prompt: str | list[int] | list[str] | list[list[int]]
    max_tokens: StrictInt | None = None

    def answer_tokens(self) -> int | None:
        """Return `max_tokens`."""
        return _limit(self.max_tokens)


class EmbeddingRequest(Asked):
    """`/v1/embeddings`."""

    model: Name = "embedding"
    input: str | list[int] | list[str] | list[list[int]] = Field(min_length=1)


class RerankRequest(Asked):
    """`/v1/rerank`: which of the documents answer the query."""

    model: Name = "rerank"
    query: str = Field(min_length=1)
    documents: list[str] = Field(min_length=1)

    def check(self, limits: ShapeLimits) -> None:
        """Bound the number of documents."""
        check_messages(len(self.documents), limits, "documents")


class ResponsesRequest(Asked):
    """`/v1/responses`."""

    input: str | list[JsonValue] = Field(min_length=1)
    tools: JsonValue = None
    text: JsonValue = None
    max_output_tokens: StrictInt | None = None

    def answer_tokens(self) -> int | None:
        """Return `max_output_tokens`."""
        return _limit(self.max_output_tokens)

    def check(self, limits: ShapeLimits) -> None:
        """Bound items, images, tools and the schema of the answer."""
        _check_items(self.input, limits)
        check_schema("tools", self.tools, limits)
        check_schema("text", self.text, limits)


class MessagesCountRequest(Asked):
    """`/v1/messages/count_tokens`, of Anthropic's API."""

    messages: list[Message] = Field(min_length=1)
    tools: JsonValue = None

    def check(self, limits: ShapeLimits) -> None:
        """Bound messages, images and tools."""
        check_messages(len(self.messages), limits)
        check_images(_contents(self.messages), limits)
        check_schema("tools", self.tools, limits)


class MessagesRequest(MessagesCountRequest):
    """`/v1/messages`, of Anthropic's API."""

    max_tokens: StrictInt = Field(ge=1)

    def answer_tokens(self) -> int | None:
        """Return `max_tokens`."""
        return self.max_tokens


class TokenizeRequest(Asked):
    """`/v1/tokenize`."""

    content: str


class DetokenizeRequest(Asked):
    """`/v1/detokenize`."""

    tokens: list[Annotated[int, Field(ge=0)]]


class CountRequest(Asked):
    """`/v1/count`: the body of a request to be counted: of a chat, a response or a completion."""

    messages: list[Message] | None = Field(default=None, min_length=1)
    input: str | list[JsonValue] | None = Field(default=None, min_length=1)
    prompt: str | list[int] | list[str] | list[list[int]] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> CountRequest:
        if [self.messages, self.input, self.prompt].count(None) != 2:
            raise ValueError("exactly one of messages, input and prompt is needed")
        return self

    def check(self, limits: ShapeLimits) -> None:
        """Bound messages, items and images."""
        check_messages(len(self.messages or ()), limits)
        check_images(_contents(self.messages or ()), limits)
        _check_items(self.input, limits)


def _limit(value: int | None) -> int | None:
    return value if value is not None and value >= 0 else None  # llama-server: -1 is as long as it goes


def _check_tools(tools: JsonValue) -> None:
    """Refuse a tool that is no function with a name: llama-server fails at it with a status of its own fault."""
    for number, tool in enumerate(tools if isinstance(tools, list) else ()):
        kind, function = (tool.get("type"), tool.get("function")) if isinstance(tool, dict) else (None, None)
        if kind != "function":
            raise ApiError(400, f"tools.{number}.type: only functions can be tools.", param=f"tools.{number}.type")
        if not (isinstance(function, dict) and isinstance(function.get("name"), str) and function["name"]):
            where = f"tools.{number}.function.name"
            raise ApiError(400, f"{where}: a function needs a name.", param=where)
