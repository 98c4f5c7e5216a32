"""The names that spans and their attributes have, once: OpenTelemetry's semantic conventions.

Generative AI: https://github.com/open-telemetry/semantic-conventions-genai (status Development, read 2026-11; a test
holds them against the package opentelemetry-semantic-conventions). HTTP, server, error: conventions 1.41, stable. What
they have no word for begins with `roost.`. Prompts and answers are never recorded.
"""

from __future__ import annotations

from collections.abc import Mapping

SERVICE_NAME = "service.name"
SERVICE_VERSION = "service.version"
SERVICE_INSTANCE = "service.instance.id"
SERVICE = "roost-gateway"
SCOPE = "roost.gateway"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
RESPONSE_MODEL = "gen_ai.response.model"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"  # seconds
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
GEN_AI = (
    *(OPERATION, PROVIDER, REQUEST_MODEL, REQUEST_STREAM, RESPONSE_MODEL, FIRST_CHUNK),
    *(INPUT_TOKENS, OUTPUT_TOKENS, CACHED_TOKENS),
)

ERROR_TYPE = "error.type"
HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"

REQUEST_ID = "roost.request_id"
KEY = "roost.key"  # the key's name
SLOT = "roost.slot"
ENDPOINT = "roost.endpoint"
FALLBACK_FOR = "roost.fallback_for"
REASON = "roost.reason"

# Spans of a request beside the attempts, and events on it.
QUEUE = "queue"
ROUTE = "route"
FAILOVER = "failover"
FIRST_CONTENT = "first_content"

# What the conventions call the kinds of requests that they know; the others keep our name.
OPERATIONS: Mapping[str, str] = {
    "chat": "chat",
    "responses": "chat",
    "messages": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
# They know no name for local engines: then the engine's own, as for other systems that they do not list.
ENGINE_PROVIDERS: Mapping[str, str] = {"openai": "openai", "anthropic": "anthropic"}
DEFAULT_PROVIDER = "llama.cpp"
