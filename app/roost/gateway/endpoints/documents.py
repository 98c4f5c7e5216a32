"""What is said of endpoints to administrators, as plain documents: everything but secrets."""

from __future__ import annotations

import time
from dataclasses import asdict

from roost.engines.base import Report, Skill, State
from roost.fleet.endpoint_list import EndpointDocument, HandEndpoint
from roost.gateway.endpoints.endpoint import BY_HAND, Endpoint
from roost.gateway.endpoints.hand import member_of
from roost.gateway.endpoints.hosts import HostUse
from roost.gateway.registry import Registry
from roost.gateway.routing import View

Json = dict[str, object]
NOT_THERE = Report(State.DOWN)


def endpoint_documents(registry: Registry, document: EndpointDocument, hosts: dict[str, HostUse]) -> list[Json]:
    """Return all endpoints, those that are planned and not there, and those drained that are gone."""
    found = []
    for view in registry.views():
        endpoint = registry.get(view.id)
        found.append(endpoint_document(view, endpoint, registry, hosts))
    known = {str(entry[field]) for entry in found for field in ("id", "name", "job")}
    gone = [drain for drain in document.drains if drain.endpoint not in known]
    return found + [
        {"object": "endpoint", "id": d.endpoint, "name": d.endpoint, "state": "gone", "drained": True} for d in gone
    ]


def endpoint_document(view: View, endpoint: Endpoint | None, registry: Registry, hosts: dict[str, HostUse]) -> Json:
    """Return what is known of one endpoint."""
    report = endpoint.report if endpoint else NOT_THERE
    member = endpoint.member if endpoint else None
    record = registry.record_of(view.id)
    left_s = round(record.ejected_until - time.monotonic(), 1)
    ejection = {"for_s": left_s, "reason": record.why, "times": record.ejections}
    hand: HandEndpoint | None = member.hand if member else None
    use = hosts.get(member.node) if member else None
    return {
        "object": "endpoint",
        "id": view.id,
        "name": hand.name if hand else view.id,
        "source": view.source,
        "engine": (member.engine if member else "") or "llama.cpp",
        "version": report.version,
        "url": member.base_url if member else None,
        "slot": view.slot,
        "tier": view.tier or None,
        "state": view.state.value,
        "reason": view.reason,
        "models": [model_document(model, report) for model in view.models],
        "context": report.context,
        "parallel": view.slots,
        "in_flight": view.in_flight,
        "load": asdict(report.load),
        "auto": not view.by_name,
        "drained": view.drained,
        "ejected": ejection if view.ejected else None,
        "job": view.job or None,
        "memory": view.memory or None,
        "host": use.document() if use else None,
        "added": hand.shown() if hand else None,
    }


def model_document(model: str, report: Report) -> Json:
    """Return what is known of a model at one endpoint."""
    detail = report.details.get(model)
    return {
        "id": model,
        "state": report.state_of(model).value,
        "context": report.context_of(model),
        "context_most": detail.context_most if detail else None,
        "can": sorted(skill.value for skill in Skill if skill not in report.lacks_of(model)),
        "memory": detail.memory if detail else None,
        "vram": detail.vram if detail else None,
        "quantisation": (detail.quantisation if detail else "") or None,
    }


def pending_document(endpoint: HandEndpoint) -> Json:
    """Return an endpoint that would be added."""
    return {
        "object": "endpoint",
        "id": member_of(endpoint).id,
        "name": endpoint.name,
        "source": BY_HAND,
        "engine": endpoint.engine,
        "url": endpoint.url,
        "slot": endpoint.serves,
        "auto": endpoint.auto,
        "added": endpoint.shown(),
    }
