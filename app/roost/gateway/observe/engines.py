"""The metrics of model servers and workers themselves, under the fleet's labels: what `/metrics/engines` says.

Model servers listen on loopback and need their key, so the gateway asks them and Prometheus asks the gateway; see
docs/decisions/. Each is asked at most every `every_s` seconds however often somebody scrapes, one at a time and only
while it is ready: a busy llama-server can get stuck by questions once a second (llama.cpp, issue 29104), and a cold
model is nothing to wake up for a scrape.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from roost.engines.base import State
from roost.gateway.endpoints.endpoint import Endpoint
from roost.gateway.observe.allocations import Allocated, allocated
from roost.gateway.task_api import TaskApi
from roost.gateway.warm.planned import Planned
from roost.ops import metric_names as names
from roost.ops.metric_names import MOST_SERIES, Spec

PATH = "/metrics"
TIMEOUT_S = 5.0
MOST_BYTES = 1 << 20  # of one server's text
AT_ONCE = 8
NO_SUCH_PAGE = frozenset({404, 405, 501})
ASK_AGAIN_S = 600.0  # a server that has no such page
TYPES = frozenset({"counter", "gauge", "histogram", "summary"})
UNKNOWN = "unknown"
COUNTED = "_total"
ENDINGS = ("", "_bucket", "_sum", "_count")  # of samples, beyond the name that is declared


@dataclass(frozen=True)
class Scraped:
    """What one server gave: its families, or nothing because it failed."""

    labels: Mapping[str, str]
    took_s: float
    families: Sequence[Metric] = ()
    up: bool = False


@dataclass
class Gathered:
    """All of one round."""

    scraped: list[Scraped] = field(default_factory=list)
    jobs: list[tuple[Allocated, Mapping[str, str]]] = field(default_factory=list)


class Prefixes:
    """How jobs are called: model servers PREFIX + slot, workers PREFIX + slot + number."""

    def __init__(self, model: str, worker: str) -> None:
        self.model = model
        self.worker = worker

    def slot(self, job: str) -> str:
        """Return the slot that a job serves."""
        if job.startswith(self.worker):
            return job.removeprefix(self.worker).rpartition("-")[0]
        return job.removeprefix(self.model)


class EngineMetrics:
    """Gathers them when somebody asks. `endpoints` and `planned` are the registry's, `api` Nomad's or None."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoints: Callable[[], Collection[Endpoint]],
        planned: Callable[[], Mapping[str, Planned]],
        api: TaskApi | None,
        prefixes: Prefixes,
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._endpoints = endpoints
        self._planned = planned
        self._api = api
        self._prefixes = prefixes
        self._every_s = every_s
        self._clock = clock
        self._turn = asyncio.Lock()
        self._asked_at = float("-inf")
        self._text = b""
        self._without: dict[str, float] = {}  # endpoint -> when it said that it has no such page

    async def text(self) -> bytes:
        """Return everything in Prometheus' text format, at most `every_s` seconds old."""
        async with self._turn:
            if self._clock() - self._asked_at >= self._every_s:
                gathered = await self._gather()
                self._text = await asyncio.to_thread(_written, gathered)
                self._asked_at = self._clock()
            return self._text

    async def _gather(self) -> Gathered:
        jobs = await allocated(self._api, self._prefixes.model, self._prefixes.worker) if self._api else []
        nodes = {job.allocation: job.node for job in jobs}
        planned = self._planned()
        now = self._clock()
        self._without = {name: at for name, at in self._without.items() if now - at < ASK_AGAIN_S}
        turn = asyncio.Semaphore(AT_ONCE)
        asked = await asyncio.gather(
            *(
                self._scrape(endpoint, nodes.get(endpoint.member.allocation, ""), turn)
                for endpoint in self._endpoints()
                if endpoint.report.state is State.READY and not endpoint.engine.pause_s  # in the fleet
            )
        )
        found = Gathered([scraped for scraped in asked if scraped])
        for job in jobs:
            slot = self._prefixes.slot(job.job)
            serving = planned.get(f"{self._prefixes.model}{slot}")
            model = next(iter(serving.said.models), "") if serving else ""
            labels = {"job": job.job, "task": job.task, "slot": slot, "node": job.node, "model": model}
            found.jobs.append((job, labels))
        return found

    async def _scrape(self, endpoint: Endpoint, node: str, turn: asyncio.Semaphore) -> Scraped | None:
        """Ask one server; None if it has no such page."""
        if endpoint.id in self._without:
            return None
        labels = {
            "model": next(iter(endpoint.report.models), ""),
            "slot": endpoint.member.slot,
            "node": node,
            "endpoint": endpoint.id,
        }
        async with turn:
            began = time.perf_counter()
            try:
                async with (
                    asyncio.timeout(TIMEOUT_S),
                    self._session.get(
                        f"{endpoint.engine.base_url}{PATH}", headers=endpoint.engine.headers(), allow_redirects=False
                    ) as answer,
                ):
                    if answer.status in NO_SUCH_PAGE:
                        self._without[endpoint.id] = self._clock()
                        return None
                    text = await _read(answer)
                    # Beside the event loop: a server may write a megabyte, and requests would wait for it to be read.
                    families = await asyncio.to_thread(parse, text) if answer.status == 200 else None
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                families = None
        took_s = time.perf_counter() - began
        return Scraped(labels, took_s, families or (), up=families is not None)


async def _read(answer: aiohttp.ClientResponse) -> str:
    """Return the text of an answer.

    Raises:
        ValueError: it is too long, or no text.
    """
    data = b""
    while chunk := await answer.content.readany():
        data += chunk
        if len(data) > MOST_BYTES:
            raise ValueError("its metrics are too long")
    return data.decode()


def parse(text: str) -> list[Metric]:
    """Read Prometheus' text format. Names stay as the server wrote them.

    Samples are read without their types: the library would give what is declared a counter the suffix of one, and
    llama-server has counters without it (`n_tokens_max`).

    Raises:
        ValueError: it is something else, or has more series than a server can need.
    """
    lines = text.splitlines()
    types = _declared(lines, "# TYPE ")
    abouts = _declared(lines, "# HELP ")
    bare = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if len(bare) > MOST_SERIES:
        raise ValueError("more series than a server can need")
    try:
        families = text_string_to_metric_families("\n".join(bare) + "\n")
        samples = [sample for family in families for sample in family.samples]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"no text of Prometheus: {type(error).__name__}") from None
    found: dict[str, Metric] = {}
    for sample in samples:
        name = next((sample.name.removesuffix(end) for end in ENDINGS if sample.name.removesuffix(end) in types), "")
        name = name or sample.name
        kind = types.get(name, UNKNOWN)
        if kind == "counter" and not name.endswith(COUNTED):
            kind = UNKNOWN
        if name not in found:
            shown = name.removesuffix(COUNTED) if kind == "counter" else name  # written with its suffix again
            found[name] = Metric(shown, abouts.get(name, ""), kind if kind in TYPES else UNKNOWN)
        found[name].samples.append(sample)
    return list(found.values())


def _declared(lines: Iterable[str], what: str) -> dict[str, str]:
    pairs = (line.removeprefix(what).partition(" ") for line in lines if line.startswith(what))
    return {name: said.strip() for name, _, said in pairs}


def families_of(gathered: Gathered) -> list[Metric]:
    """Return one family a name, the fleet's labels on every sample: pure.

    A label of the server's own that is called like one of ours goes on as `exported_NAME`, as Prometheus does it.
    """
    found: dict[str, Metric] = {}
    for scraped in gathered.scraped:
        _add(found, names.ENGINE_UP, scraped.labels, float(scraped.up))
        _add(found, names.ENGINE_SECONDS, scraped.labels, scraped.took_s)
        for family in scraped.families:
            if family.name.startswith("roost_"):  # those are ours to say
                continue
            mine = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                mine.add_sample(
                    sample.name, {**_renamed(sample.labels, scraped.labels), **scraped.labels}, sample.value
                )
    for job, labels in gathered.jobs:
        _add(found, names.JOB_UP, labels, float(job.up))
        _add(found, names.JOB_RESTARTS, labels, float(job.restarts))
        if job.memory is not None:
            _add(found, names.JOB_MEMORY, labels, float(job.memory))
        if job.cores is not None:
            _add(found, names.JOB_CPU, labels, job.cores)
    return list(found.values())


def _renamed(theirs: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, str]:
    return {(f"exported_{name}" if name in ours else name): value for name, value in theirs.items()}


def _add(found: dict[str, Metric], spec: Spec, labels: Mapping[str, str], value: float) -> None:
    metric = found.setdefault(spec.name, Metric(spec.name, spec.about, spec.kind))
    metric.add_sample(spec.name, {name: labels[name] for name in spec.labels}, value)


def _written(gathered: Gathered) -> bytes:
    """Return it all as Prometheus reads it."""
    registry = CollectorRegistry()
    registry.register(_Fixed(families_of(gathered)))
    return generate_latest(registry)


class _Fixed(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families
