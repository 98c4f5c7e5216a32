"""Every metric of Roost: its name, labels and buckets, once for who counts, for dashboards, alert rules and documents.

Labels are bounded: kinds, states, reasons, statuses and queues are closed sets of ours; models, endpoints, slots, jobs,
nodes and keys are what the fleet has, never what a client writes; and a family keeps at most `MOST_SERIES` series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MOST_SERIES = 1000  # of one family in one process; what was touched longest ago makes room

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
ROUTE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01)
GAP_SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 10)

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Spec:
    """One family. `name` is without the suffixes that Prometheus' text format adds."""

    name: str
    kind: Kind
    about: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def total(self) -> str:
        """Return the name of a counter's samples."""
        return f"{self.name}_total"

    @property
    def bucket(self) -> str:
        """Return the name of a histogram's buckets."""
        return f"{self.name}_bucket"

    @property
    def samples(self) -> tuple[str, ...]:
        """Return the names that its samples have in Prometheus."""
        if self.kind == "counter":
            return (self.total,)
        if self.kind == "histogram":
            return (self.bucket, f"{self.name}_sum", f"{self.name}_count")
        return (self.name,)


# --- Requests -----------------------------------------------------------------------------------------------------
WHO = ("model", "endpoint")  # empty for what came to no model, so that clients cannot invent values

REQUESTS = Spec("roost_requests", "counter", "Finished requests.", ("kind", *WHO, "status"))
ERRORS = Spec("roost_errors", "counter", "Requests that did not end well, by what was the matter.", (*WHO, "error"))
FIRST_TOKEN = Spec(
    "roost_time_to_first_token_seconds",
    "histogram",
    "From the request's arrival to the first byte of the streamed answer.",
    WHO,
    SECONDS,
)
INTER_TOKEN = Spec(
    "roost_inter_token_seconds",
    "histogram",
    "Between two pieces of a streamed answer as they came from the model server.",
    WHO,
    GAP_SECONDS,
)
DURATION = Spec(
    "roost_request_duration_seconds",
    "histogram",
    "From the request's arrival to the end of the answer.",
    WHO,
    SECONDS,
)
TOKENS = Spec("roost_tokens", "counter", "Tokens: in, of those cached, and out.", (*WHO, "direction"))
QUEUE_WAIT = Spec(
    "roost_queue_wait_seconds",
    "histogram",
    "From a request's admission until a model server got it.",
    ("model",),
    SECONDS,
)
QUEUE = Spec("roost_queue_length", "gauge", "Requests that wait: for their key, a model, or a slot.", ("queue",))
IN_FLIGHT = Spec("roost_in_flight", "gauge", "Requests being worked on.")
FAILOVERS = Spec("roost_failovers", "counter", "Attempts that went on to another endpoint.", ("reason",))
ROUTED = Spec("roost_route_decisions", "counter", "Models chosen for auto.", ("model", "reason"))
ROUTE_TIME = Spec("roost_route_seconds", "histogram", "Time that a choice took.", (), ROUTE_SECONDS)
CASCADES = Spec(
    "roost_cascades",
    "counter",
    "Answers that were not good enough, by the model that gave them; a stronger one was asked.",
    ("model", "reason"),
)
CHOICES = Spec("roost_endpoint_choices", "counter", "Attempts by why their endpoint was chosen.", ("why",))
EXPECTED = Spec("roost_prefix_expected_tokens", "counter", "Prompt tokens that the chosen endpoint should hold.")
NOT_SEATED = Spec("roost_queue_refused", "counter", "Requests that got no slot, full or late.", ("reason",))
OPENED = Spec("roost_breaker_opened", "counter", "Circuit breakers opened.", ("endpoint",))
RETRIES = Spec("roost_retries", "counter", "Further attempts, made or over the budget.", ("result",))
BROKEN = Spec("roost_streams_broken", "counter", "Streams whose server failed, continued or interrupted.", ("result",))
FALLBACKS = Spec("roost_fallbacks", "counter", "Answers of another model than the chosen one.", ("slot", "reason"))

# --- Model servers ------------------------------------------------------------------------------------------------
ENDPOINTS = Spec("roost_endpoints", "gauge", "Model servers by state.", ("slot", "state", "tier"))
ENDPOINT_UP = Spec("roost_endpoint_up", "gauge", "Whether a model server answers our probes.", ("slot", "endpoint"))
ENDPOINT_BUSY = Spec("roost_endpoint_in_flight", "gauge", "Requests at a model server.", ("slot", "endpoint"))
ENDPOINT_SLOTS = Spec("roost_endpoint_slots", "gauge", "Requests that it serves at a time.", ("slot", "endpoint"))
STARTS = Spec("roost_model_starts", "counter", "Cold models started because somebody asked.", ("slot",))
STOPS = Spec("roost_model_stops", "counter", "Models stopped, idle or to make room.", ("slot", "reason"))
RESTARTS = Spec("roost_restarts", "counter", "Stuck model servers that were replaced, or not.", ("slot", "result"))
SLOT_TOKENS = Spec("roost_slot_tokens", "counter", "Tokens of conversations saved and restored.", ("slot", "action"))

# --- Keys, limits, usage ------------------------------------------------------------------------------------------
WRONG_KEYS = Spec("roost_wrong_keys", "counter", "Requests without a good key.")
REFUSED = Spec("roost_refused", "counter", "Requests that a limit of their key refused.", ("key", "reason"))
INVALID = Spec("roost_invalid_requests", "counter", "Requests refused for what they are.", ("key", "status"))
USAGE_TROUBLE = Spec("roost_usage_not_written", "counter", "Failures to write usage down.", ("where",))

# --- The service itself -------------------------------------------------------------------------------------------
CERTIFICATE_END = Spec(
    "roost_certificate_end_timestamp_seconds",
    "gauge",
    "When the certificate that clients are shown at an address ends, in seconds since 1970.",
    ("address",),
)
BUILD = Spec("roost_build_info", "gauge", "The version that runs.", ("version",))

OWN = (
    *(REQUESTS, ERRORS, FIRST_TOKEN, INTER_TOKEN, DURATION, TOKENS, QUEUE_WAIT, QUEUE, IN_FLIGHT, FAILOVERS, FALLBACKS),
    *(ROUTED, ROUTE_TIME, CASCADES, CHOICES, EXPECTED, NOT_SEATED, OPENED, RETRIES, BROKEN),
    *(ENDPOINTS, ENDPOINT_UP, ENDPOINT_BUSY, ENDPOINT_SLOTS, STARTS, STOPS, RESTARTS, SLOT_TOKENS),
    *(WRONG_KEYS, REFUSED, INVALID, USAGE_TROUBLE, CERTIFICATE_END, BUILD),
)  # what /metrics has

# --- /metrics/agent: turns of the agent, at a hub -----------------------------------------------------------------
AGENT_PAGE = "/metrics/agent"
AGENT_TURNS = Spec("roost_agent_turns", "counter", "Turns, by delegation mode and how they ended.", ("mode", "ended"))
AGENT_PREFLIGHTS = Spec("roost_agent_preflights", "counter", "Router's preflights, fired or skipped.", ("result", "by"))
AGENT_TOKENS = Spec(
    "roost_agent_tokens", "counter", "Tokens of turns: in, of those cached, and out.", ("role", "model", "direction")
)
AGENT_ROLE_SECONDS = Spec("roost_agent_role_seconds", "counter", "Time that roles took.", ("role", "model"))
AGENT_CALLS = Spec(
    "roost_agent_tool_calls", "counter", "Tool calls: asked, run, blocked, repaired, malformed.", ("result",)
)
AGENT_QUESTIONS = Spec(
    "roost_agent_questions", "counter", "Calls that need the user's word: asked, allowed, refused.", ("result",)
)
AGENT_CONTEXT = Spec("roost_agent_context_changes", "counter", "Compactions and changed cost modes.", ("what",))
AGENT_TURN_SECONDS = Spec("roost_agent_turn_seconds", "histogram", "Time of a whole turn.", ("mode",), SECONDS)
AGENT = (
    *(AGENT_TURNS, AGENT_PREFLIGHTS, AGENT_TOKENS, AGENT_ROLE_SECONDS, AGENT_CALLS, AGENT_CONTEXT),
    AGENT_QUESTIONS,
    AGENT_TURN_SECONDS,
)

# --- /metrics/engines: what model servers and workers say, under the fleet's labels -------------------------------
ENGINE_LABELS = ("model", "slot", "node", "endpoint")
JOB_LABELS = ("job", "task", "slot", "node", "model")
ENGINE_UP = Spec("roost_engine_scrape_up", "gauge", "Whether a model server gave its own metrics.", ENGINE_LABELS)
ENGINE_SECONDS = Spec("roost_engine_scrape_seconds", "gauge", "How long that took.", ENGINE_LABELS)
JOB_UP = Spec("roost_job_up", "gauge", "Whether an allocation of a model server or worker runs.", JOB_LABELS)
JOB_RESTARTS = Spec("roost_job_restarts", "gauge", "How often its task was restarted.", JOB_LABELS)
JOB_MEMORY = Spec("roost_job_memory_bytes", "gauge", "Memory of its processes, as Nomad measures it.", JOB_LABELS)
JOB_CPU = Spec("roost_job_cpu_cores", "gauge", "Processors that it keeps busy, as Nomad measures it.", JOB_LABELS)
GATHERED = (ENGINE_UP, ENGINE_SECONDS, JOB_UP, JOB_RESTARTS, JOB_MEMORY, JOB_CPU)

# llama.cpp's own, as far as dashboards and rules use them (server-context.cpp of build 11669; its `/metrics`).
LLAMA_BUSY = Spec("llamacpp:requests_processing", "gauge", "Requests at work.", ENGINE_LABELS)
LLAMA_DEFERRED = Spec("llamacpp:requests_deferred", "gauge", "Requests that wait for a slot.", ENGINE_LABELS)
LLAMA_PROMPT = Spec("llamacpp:prompt_tokens", "counter", "Prompt tokens computed.", ENGINE_LABELS)
LLAMA_PREDICTED = Spec("llamacpp:tokens_predicted", "counter", "Tokens generated.", ENGINE_LABELS)
LLAMA_DECODES = Spec("llamacpp:n_decode", "counter", "Calls of llama_decode().", ENGINE_LABELS)
LLAMA = (LLAMA_BUSY, LLAMA_DEFERRED, LLAMA_PROMPT, LLAMA_PREDICTED, LLAMA_DECODES)

ALL = (*OWN, *GATHERED, *LLAMA)

# Closed sets of label values.
QUEUES = ("key", "model", "slot")
DIRECTIONS = ("in", "cached", "out")
