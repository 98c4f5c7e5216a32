"""The text of a job: HCL from a template of `nomad/`."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from roost.fleet.agent_jobs import AgentJob
from roost.fleet.jobs import ModelServerJob, MonitoringJob, RpcWorkerJob, SearchJob

MODEL_TEMPLATE = "model-server.nomad.hcl.j2"
AGENT_TEMPLATE = "agent.nomad.hcl.j2"
RPC_TEMPLATE = "rpc-worker.nomad.hcl.j2"
MONITORING_TEMPLATE = "monitoring.nomad.hcl.j2"
SEARCH_TEMPLATE = "search.nomad.hcl.j2"
# What HCL would not take for itself in a string: quotes, control characters, interpolation (but not of Nomad's own
# variables, which it fills in when a task starts) and directives.
HCL_SPECIAL = re.compile(r'[\\"\x00-\x1f\x7f]|\$(?=\{(?!NOMAD_\w+\}))|%(?=\{)')
HCL_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
Job = ModelServerJob | RpcWorkerJob | AgentJob | MonitoringJob | SearchJob
TEMPLATES = {
    ModelServerJob: MODEL_TEMPLATE,
    RpcWorkerJob: RPC_TEMPLATE,
    AgentJob: AGENT_TEMPLATE,
    MonitoringJob: MONITORING_TEMPLATE,
    SearchJob: SEARCH_TEMPLATE,
}


def hcl_string(value: object) -> str:
    """Quote a value as an HCL string. `${NOMAD_…}` stays, so that Nomad fills it in at run time; nothing else is code.

    What begins an interpolation or a directive is written as an escape, which HCL reads as the plain character
    (https://github.com/hashicorp/hcl/blob/main/hclsyntax/spec.md, Template Literals).
    """
    escaped = HCL_SPECIAL.sub(lambda found: HCL_ESCAPES.get(found[0], f"\\u{ord(found[0]):04x}"), str(value))
    return f'"{escaped}"'


def render_job(templates: Path, job: Job) -> str:
    """Return the job's HCL text from the template of its kind in the folder `templates`."""
    environment = Environment(
        loader=FileSystemLoader(templates),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=select_autoescape(enabled_extensions=()),  # HCL, not HTML
    )
    environment.filters["hcl"] = hcl_string
    return environment.get_template(TEMPLATES[type(job)]).render(job=asdict(job))
