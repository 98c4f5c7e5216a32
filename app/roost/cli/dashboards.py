"""`roost dashboards`: what a Grafana and a Prometheus of one's own need to watch Roost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from roost.cli.show import print_json, print_table
from roost.fleet.artifacts.from_site import site_variables
from roost.fleet.monitoring.dashboards import dashboard_text, dashboards
from roost.fleet.monitoring.prometheus import grafana_provider, grafana_source, scrape_document
from roost.fleet.monitoring.rules import Thresholds, rules_text
from roost.ops.errors import RoostError
from roost.ops.files import write_atomic
from roost.ops.site import Site, load_site
from roost.ops.validation import in_words

app = typer.Typer(help="Grafana dashboards and alert rules, for a monitoring of your own.", no_args_is_help=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_SOURCE = "http://127.0.0.1:9090"
DEFAULT_API = "http://127.0.0.1:8360"
FOLDER = Path("roost-dashboards")
GRAFANA_FOLDER = "/var/lib/grafana/dashboards/roost"


@app.command("list")
def show(*, as_json: JsonFlag = False) -> None:
    """Show the dashboards and how many panels each has.

    Example: roost dashboards list
    """
    rows = [{"uid": d.uid, "title": d.title, "panels": len(d.panels)} for d in dashboards()]
    if as_json:
        print_json(rows)
    else:
        print_table(["uid", "title", "panels"], [(row["uid"], row["title"], row["panels"]) for row in rows])


@app.command("export")
def export(
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder that the files go to.")] = FOLDER,
    grafana_folder: Annotated[str, typer.Option(help="Where the dashboards will lie for Grafana.")] = GRAFANA_FOLDER,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only name the files.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write dashboards, Grafana's provisioning files, the alert rules and a scrape configuration.

    Example: roost dashboards export --out /tmp/roost
    """
    files = files_of(grafana_folder, *_of_this_machine())
    if not dry_run:
        for name, text in files.items():
            path = out / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, text)
            except OSError as error:
                raise RoostError(
                    f"{path} cannot be written: {error.strerror}.", fix="Name another folder with --out."
                ) from None
    if as_json:
        print_json({"folder": str(out), "files": sorted(files), "written": not dry_run})
        return
    for name in sorted(files):
        print(out / name)


def files_of(grafana_folder: str, source: str, api: str, limits: Thresholds) -> dict[str, str]:
    """Return the text of each file, by its path in the folder."""
    targets: dict[str, object] = {"static_configs": [{"targets": [api.split("://", 1)[-1]]}]}
    files = {f"dashboards/{dashboard.uid}.json": dashboard_text(dashboard) for dashboard in dashboards()}
    files["provisioning/datasources/roost.yaml"] = grafana_source(source)
    files["provisioning/dashboards/roost.yaml"] = grafana_provider(grafana_folder)
    files["prometheus/rules.yaml"] = rules_text(limits)
    files["prometheus/prometheus.yaml"] = scrape_document(
        key_file="api-key", targets=targets, rules="rules.yaml", every_s=15
    )
    return files


def _of_this_machine() -> tuple[str, str, Thresholds]:
    """Return where Prometheus and the API are, and the thresholds; the defaults where nothing is installed."""
    try:
        site: Site = load_site()
        limits = Thresholds.model_validate(site_variables(site)["monitoring_thresholds"])
    except RoostError:
        return DEFAULT_SOURCE, DEFAULT_API, Thresholds()
    except ValidationError as error:
        said = in_words(error)
        raise RoostError(f"monitoring_thresholds is not valid: {said}.", fix="Correct it in host.yaml.") from None
    return site.monitoring or DEFAULT_SOURCE, site.api, limits
