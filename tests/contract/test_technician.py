"""`roost technician` as users run it, with a real model server: it ends, killed or not, and says the truth."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from roost.agent.technician.job import Job, Phase
from roost.ops.errors import NOT_FOUND
from tests.support.gateway import API_KEY, Service
from tests.support.worker import Home

PATIENCE_S = 1200


def begin(home: Home, *words: str) -> subprocess.Popen[str]:
    """Run a verb beside the test."""
    return subprocess.Popen(home.words("technician", *words), env=home.environment(), stdout=subprocess.PIPE, text=True)


def run(home: Home, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a verb to its end."""
    return subprocess.run(
        home.words("technician", *words), env=home.environment(), capture_output=True, text=True, check=False,
        timeout=PATIENCE_S,
    )  # fmt: skip


def project(home: Home) -> Path:
    """Return the folder to work in."""
    return home.folder / "project"


@pytest.fixture
def home(roost: Service, tmp_path: Path) -> Home:
    made = Home(tmp_path / "anna", roost.url, API_KEY)
    project(made).mkdir(parents=True)
    (project(made) / "notes.txt").write_text("The harbour master is called Odile.\n")
    return made


def truthful(home: Home, job: Job, code: int) -> None:
    """Check that a job rests in a state that its steps and the files bear out."""
    assert {Phase.DONE: 0, Phase.ASKING: 3}.get(job.phase, 1) == code
    assert job.phase.over or job.phase is Phase.ASKING
    assert job.answer or job.question
    if job.phase is Phase.DONE:
        assert any("notes.txt" in json.dumps(step.call.arguments) for step in job.steps)
    for step in job.steps:
        if step.result and step.result.changed:
            assert all((project(home) / name).exists() for name in step.result.changed)
    assert {path.name for path in home.folder.iterdir()} <= {"project", ".local", ".config", ".cache"}


@pytest.mark.timeout(1500)
def test_killed_it_goes_on_at_the_next_start_and_ends_with_the_truth(home: Home) -> None:
    with begin(home, "start", "Read notes.txt", "--folder", str(project(home)), "--json") as process:
        assert process.stdout
        begun = json.loads(process.stdout.readline())
        job_id = begun["jobs"][0]
        while json.loads(process.stdout.readline())["type"] != "state":
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert process.returncode == -signal.SIGKILL
    done = run(home, "resume", "--json")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [told[0]["type"], told[-1]["type"]] == ["begin", "job"]
    job = Job.model_validate({name: value for name, value in told[-1].items() if name != "type"})
    truthful(home, job, done.returncode)
    assert job.id == job_id
    assert [event["state"] for event in told if event["type"] == "state"][-1] == job.phase.value
    assert [one["phase"] for one in json.loads(run(home, "list", "--json").stdout)] == [job.phase.value]
    assert json.loads(run(home, "cancel", job.id, "--json").stdout)["phase"] == job.phase.value  # it stays as it ended
    assert run(home, "start", "x", "--workspace", "no-such").returncode == NOT_FOUND


@pytest.mark.timeout(1500)
def test_cancelled_from_elsewhere_it_rests(home: Home) -> None:
    with begin(home, "start", "Read notes.txt", "--folder", str(project(home)), "--json") as process:
        assert process.stdout
        job_id = json.loads(process.stdout.readline())["jobs"][0]
        assert run(home, "cancel", job_id).returncode == 0
        code = process.wait(PATIENCE_S)
    shown = json.loads(run(home, "show", job_id, "--json").stdout)
    assert (shown["phase"], code) == ("cancelled", 1) or Phase(shown["phase"]).over
