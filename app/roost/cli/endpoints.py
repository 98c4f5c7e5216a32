"""`roost endpoints`: the model servers that requests go to, and those that somebody added by hand."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from roost.cli.access import find_access
from roost.cli.api import Api
from roost.cli.model_estimate import extra_ca
from roost.cli.show import print_json, print_table, size
from roost.fleet import endpoint_list
from roost.fleet.document_store import update
from roost.fleet.endpoint_list import Change, Drain, EndpointDocument
from roost.fleet.endpoint_store import file_store
from roost.ops.errors import NOT_FOUND, USAGE, RoostError

app = typer.Typer(no_args_is_help=True)
Json = Any

PATH = "/roost/v1/endpoints"
SLOW_TIMEOUT_S = 150.0  # a cold model is loaded before it answers
DETECT_TIMEOUT_S = 30.0

NameArgument = Annotated[str, typer.Argument(help="Name or id of the endpoint; see `roost endpoints list`.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")]
FileOption = Annotated[
    Path | None,
    typer.Option("--file", help="Change this file (ROOST_ENDPOINTS_FILE without Nomad), not over the API."),
]
EngineOption = Annotated[
    str | None,
    typer.Option(
        help="llama.cpp, llama-cpp-python, ollama, lmstudio, vllm, openai, anthropic; found out where it is not said, "
        "but not with --file."
    ),
]
SlotOption = Annotated[str | None, typer.Option(help="Slot that it serves, main for one; its own name by default.")]
KeyFileOption = Annotated[str | None, typer.Option(help="File with its key, - for standard input.")]
KeyEnvOption = Annotated[str | None, typer.Option(help="Environment variable with its key.")]
ModelsOption = Annotated[str | None, typer.Option(help="Models that it may offer, separated by commas; else all.")]
CaOption = Annotated[Path | None, typer.Option(help="PEM file of an authority to trust; extra_ca_bundle by default.")]
AutoOption = Annotated[
    bool | None,
    typer.Option("--auto/--no-auto", help="Whether it may be used unasked. A cloud is not, unless you say so."),
]
HttpOption = Annotated[
    bool, typer.Option("--allow-http", help="Prompts, answers and key may cross the network readable for others.")
]


@app.command("list")
def show_all(*, file: FileOption = None, as_json: JsonOption = False) -> None:
    """List all endpoints: from Nomad, by hand, planned.

    Example: roost endpoints list
    """
    if file:
        _list_file(file, as_json=as_json)
        return
    with Api(find_access()) as api:
        found = api.get(PATH)["data"]
    if as_json:
        print_json(found)
        return
    print_table(
        ["endpoint", "source", "engine", "slot", "state", "models", "running", "waiting", "cache", "host", ""],
        [_row(entry) for entry in found],
    )
    if any(entry.get("auto") is False for entry in found):
        print(
            "\nby name only: prompts go there when somebody asks for it or one of its models by name, never otherwise."
        )


def _row(entry: dict[str, Json]) -> tuple[object, ...]:
    load, host = entry.get("load") or {}, entry.get("host") or {}
    state = "drained" if entry.get("drained") and entry["state"] != "gone" else entry["state"]
    if entry.get("ejected"):
        state = "ejected"
    notes = [] if entry.get("auto", True) else ["by name only"]
    notes += [entry["ejected"]["reason"]] if entry.get("ejected") else []
    notes += [entry["reason"]] if entry.get("reason") and state != "drained" else []
    return (
        entry["name"], entry.get("source"), entry.get("engine"), entry.get("slot"), state, _models(entry),
        load.get("running"), load.get("waiting"), _percent(load.get("cache_used")), _host(host), "; ".join(notes),
    )  # fmt: skip


def _models(entry: dict[str, Json]) -> str:
    models = entry.get("models") or []
    warm = sum(model["state"] == "ready" for model in models)
    if len(models) == 1:
        return str(models[0]["id"])
    return f"{len(models)} ({warm} warm)" if models else ""


def _host(host: dict[str, Json]) -> str:
    parts = [str(host["name"])] if host.get("name") else []
    parts += [f"cpu {_percent(host['cpu'])}"] if host.get("cpu") is not None else []
    for kind in ("ram", "vram"):
        if host.get(f"{kind}_total"):
            parts.append(f"{kind} {_percent(host[f'{kind}_used'] / host[f'{kind}_total'])}")
    return " ".join(parts)


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share * 100:.0f}%"


@app.command("show")
def show(name: NameArgument, *, as_json: JsonOption = False) -> None:
    """Show all that is known of one endpoint, each of its models with state and context.

    Example: roost endpoints show box
    """
    with Api(find_access()) as api:
        entry = api.send("GET", _path(name))
    if as_json:
        print_json(entry)
        return
    hidden = ("object", "models", "load", "host", "added", "ejected")
    rows = [(field, _said(value)) for field, value in entry.items() if field not in hidden and value not in (None, "")]
    rows += [("key", "set" if entry["added"]["key"] else "none")] if entry.get("added") else []
    rows += [("load", ", ".join(f"{k} {v}" for k, v in (entry.get("load") or {}).items() if v is not None))]
    rows += [("host", _host(entry.get("host") or {}))]
    rows += (
        [("ejected", f"for {entry['ejected']['for_s']} s: {entry['ejected']['reason']}")]
        if entry.get("ejected")
        else []
    )
    print_table(["", ""], [row for row in rows if row[1]])
    print()
    print_table(
        ["model", "state", "context", "at most", "memory", "vram", "quantisation", "can"],
        [
            (m["id"], m["state"], m["context"], m["context_most"], _size(m["memory"]), _size(m["vram"]),
             m["quantisation"], ", ".join(m["can"]))
            for m in entry.get("models") or []
        ],
    )  # fmt: skip


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Name for it; also the name by which its first model is asked for.")],
    url: Annotated[str, typer.Argument(help="http://HOST:PORT or https://HOST, without /v1.")],
    *,
    engine: EngineOption = None,
    slot: SlotOption = None,
    key_file: KeyFileOption = None,
    key_env: KeyEnvOption = None,
    models: ModelsOption = None,
    tier: Annotated[str | None, typer.Option(help="Tier of its host: potato, sweet, power, beast.")] = None,
    auto: AutoOption = None,
    allow_http: HttpOption = False,
    ca_file: CaOption = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the endpoint of that name.")] = False,
    file: FileOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add a model server that somebody else runs: it takes part at once, in every gateway, and over restarts.

    Example: roost endpoints add box http://192.0.2.7:11434 --allow-http --slot main
    """
    fields: dict[str, Json] = {
        "name": name, "url": url, "engine": engine, "slot": slot, "key": _key(key_file, key_env), "tier": tier,
        "models": _names(models), "auto": auto, "allow_http": allow_http, "ca": _ca(url, ca_file),
    }  # fmt: skip
    wanted = {field: value for field, value in fields.items() if value not in (None, "")}
    if file:
        if not engine:
            raise RoostError("Without a gateway the kind of server cannot be found out.", fix="Name it with --engine.")
        endpoint = endpoint_list.made_endpoint(wanted)
        _change_file(file, lambda d: endpoint_list.with_endpoint(d, endpoint, replace=replace), dry_run=dry_run)
        made = {**endpoint.shown(), "applied": not dry_run}
    else:
        with Api(find_access()) as api:
            body = wanted | ({"replace": True} if replace else {})
            made = api.send("POST", PATH + _query(dry_run=dry_run), body, timeout_s=DETECT_TIMEOUT_S)
    if as_json:
        print_json(made)
        return
    print(f"{name} {'would be' if dry_run else 'is'} added: {made['engine']} at {made['url']}, slot {made['slot']}.")
    if not made["auto"]:
        print("It gets prompts by its name or by those of its models only (--auto allows more).")


@app.command("remove")
def remove(
    name: NameArgument, *, file: FileOption = None, dry_run: DryRunOption = False, as_json: JsonOption = False
) -> None:
    """Forget an endpoint that was added by hand; what it works on goes on.

    Example: roost endpoints remove box
    """
    if file:
        _change_file(file, lambda d: endpoint_list.without_endpoint(d, name), dry_run=dry_run)
        _report({"name": name, "removed": True, "applied": not dry_run}, "removed", as_json=as_json)
        return
    with Api(find_access()) as api:
        _report(api.send("DELETE", _path(name) + _query(dry_run=dry_run)), "removed", as_json=as_json)


@app.command("drain")
def drain(
    name: NameArgument, *, file: FileOption = None, dry_run: DryRunOption = False, as_json: JsonOption = False
) -> None:
    """Give an endpoint no new requests; what it works on goes on.

    Example: roost endpoints drain main@127.0.0.1:23456
    """
    if file:
        _change_file(file, lambda d: endpoint_list.with_drain(_knows(d, name), Drain(endpoint=name)), dry_run=dry_run)
        _report({"name": name, "drained": True, "applied": not dry_run}, "drained", as_json=as_json)
        return
    with Api(find_access()) as api:
        _report(api.send("POST", _path(name, "drain") + _query(dry_run=dry_run)), "drained", as_json=as_json)


def _knows(document: EndpointDocument, name: str) -> EndpointDocument:
    """Return the document, if an endpoint of that name can be: one of it, or SLOT@HOST:PORT, which no file lists."""
    if "@" not in name and document.find(name) is None:
        raise RoostError(
            f"There is no endpoint {name!r} in the file.",
            fix="See `roost endpoints list --file FILE`; those of the settings are called SLOT@HOST:PORT.",
            exit_code=NOT_FOUND,
        )
    return document


@app.command("undrain")
def undrain(
    name: NameArgument, *, file: FileOption = None, dry_run: DryRunOption = False, as_json: JsonOption = False
) -> None:
    """Let an endpoint have requests again.

    Example: roost endpoints undrain box
    """
    if file:
        _change_file(file, lambda d: endpoint_list.without_drain(d, name), dry_run=dry_run)
        _report({"name": name, "drained": False, "applied": not dry_run}, "no longer drained", as_json=as_json)
        return
    with Api(find_access()) as api:
        _report(
            api.send("POST", _path(name, "undrain") + _query(dry_run=dry_run)), "no longer drained", as_json=as_json
        )


@app.command("test")
def try_one(
    name: Annotated[str, typer.Argument(help="Name or id, or a URL that was not added yet.")],
    *,
    engine: EngineOption = None,
    key_file: KeyFileOption = None,
    key_env: KeyEnvOption = None,
    model: Annotated[str | None, typer.Option(help="Model to ask; a cold one is loaded for it.")] = None,
    ask: Annotated[bool, typer.Option("--ask/--no-ask", help="Whether to ask for one token.")] = True,
    allow_http: HttpOption = False,
    ca_file: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Probe an endpoint from the gateway and ask it for one token. Ends with 1 if it does not answer.

    Example: roost endpoints test box
    """
    body: dict[str, Json] = {"ask": ask} | ({"model": model} if model else {})
    target = name
    if "://" in name:
        target = "-"
        given = {"url": name, "engine": engine, "key": _key(key_file, key_env), "ca": _ca(name, ca_file)}
        body |= {field: value for field, value in given.items() if value} | {"allow_http": allow_http}
    with Api(find_access()) as api:
        found = api.send("POST", _path(target, "test"), body, timeout_s=SLOW_TIMEOUT_S)
    if as_json:
        print_json(found)
    else:
        print(f"{name}: {found['engine']} {found['version']} at {found['url']}: {found['state']}".replace("  ", " "))
        for entry in found["models"]:
            print(f"  {entry['id']}: {entry['state']}, context {entry['context'] or 'unknown'}")
        if found["answered"]:
            print(f"{found['model']} answered within {found['answer_ms']:.0f} ms.")
        if found["reason"]:
            print(f"! {found['reason']}")
    raise typer.Exit(0 if found["ok"] else 1)


def _path(name: str, verb: str = "") -> str:
    return f"{PATH}/{quote(name, safe='')}{f'/{verb}' if verb else ''}"


def _query(*, dry_run: bool) -> str:
    return "?dry_run=true" if dry_run else ""


def _key(file: str | None, variable: str | None) -> str | None:
    """Return the endpoint's key; never from an argument, which other users of the machine could read.

    Raises:
        RoostError: the file or the variable is not there.
    """
    if file == "-":
        return sys.stdin.read().strip()
    if file:
        return _text_of(Path(file)).strip()
    if variable:
        if variable not in os.environ:
            raise RoostError(
                f"The environment variable {variable} is not set.", fix="Set it, or give --key-file.", exit_code=USAGE
            )
        return os.environ[variable].strip()
    return None


def _ca(url: str, file: Path | None) -> str | None:
    if not url.startswith("https://"):
        return None
    found = file or extra_ca()
    return _text_of(found) if found else None


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise RoostError(
            f"{path} cannot be read: {why}.", fix="Name a file that you may read.", exit_code=USAGE
        ) from None


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _change_file(file: Path, change: Change, *, dry_run: bool) -> EndpointDocument:
    store = file_store(file)
    return change(store.load()[0]) if dry_run else update(store, change)


def _list_file(file: Path, *, as_json: bool) -> None:
    document = file_store(file).load()[0]
    rows: list[dict[str, Json]] = [endpoint.shown() for endpoint in document.endpoints]
    if as_json:
        print_json({"endpoints": rows, "drained": [drain.endpoint for drain in document.drains]})
        return
    drained = {drain.endpoint for drain in document.drains}
    print_table(
        ["endpoint", "engine", "url", "slot", "key", ""],
        [
            (row["name"], row["engine"], row["url"], row["slot"], "set" if row["key"] else "none",
             "drained" if row["name"] in drained else "")
            for row in rows
        ],
    )  # fmt: skip


def _report(found: dict[str, Json], what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print(f"{found['name']} {'is' if found['applied'] else 'would be'} {what}.")
    if found.get("in_flight"):
        print(f"It still works on {found['in_flight']} requests.")


def _said(value: Json) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _size(count: int | None) -> str | None:
    return None if count is None else size(count)
