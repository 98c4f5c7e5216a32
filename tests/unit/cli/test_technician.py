"""`roost technician`: what it says to words that it does not know."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from roost.agent.technician.journal import Journal
from roost.agent.tool import ToolCall
from roost.agent.tools.workspaces import Workspaces
from roost.cli import technician
from roost.cli.access import Access
from roost.context.budget import CostMode
from roost.ops.errors import NOT_FOUND, RoostError


def test_an_answer_that_is_none_is_told_with_those_there_are() -> None:
    for words in (["maybe"], ["4be1a90c", "maybe"]):
        done = CliRunner().invoke(technician.app, ["answer", "8f3k2m9q0a1b2c3d", *words])
        assert isinstance(done.exception, RoostError)
        said = "'maybe' is no answer; there are yes, conversation, always, no, done, again, stop."
        assert done.exception.message == said
        assert done.exception.exit_code == 2


def test_an_answer_as_it_was_given_once_is_told_to_name_its_question() -> None:
    done = CliRunner().invoke(technician.app, ["answer", "8f3k2m9q0a1b2c3d", "yes"])
    assert isinstance(done.exception, RoostError)
    assert (done.exception.message.startswith("yes names no question"), done.exception.exit_code) == (True, 2)
    assert "roost technician answer 8f3k2m9q0a1b2c3d ID yes" in (done.exception.fix or "")


def test_a_question_is_shown_with_what_answers_it(at: technician.Desk) -> None:
    job = at.journal.add("anna", "goal", None)
    call = ToolCall(id=f"{job.id}-1", name="send", arguments={}, session=job.id)
    at.journal.planned(job.id, [])
    at.journal.intend(job.id, "", call)
    at.journal.ask_whether(job.id, 1, call, "May send be called?", "send@1")
    asking = at.journal.job(job.id)
    command = f"roost technician answer {job.id} {asking.question_id} yes|conversation|always|no"
    assert technician._ending(asking).endswith(f"fix: {command}")
    assert technician._shown(asking)["question_id"] == asking.question_id


@pytest.fixture
def at(tmp_path: Path) -> Iterator[technician.Desk]:
    """A desk at which no folder was named yet."""
    journal = Journal(tmp_path / "jobs")
    own, shared = (Workspaces(tmp_path / f"{name}.json") for name in ("own", "shared"))
    yield technician.Desk(Access("http://127.0.0.1:1"), "anna", CostMode.SMART, tmp_path, journal, own, shared)
    journal.close()


def test_the_only_workspace_is_taken_and_said_of_several_one_has_to_be(
    at: technician.Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RoostError, match="It has to be said where to work") as told:
        technician._workspace(at, "", None)
    assert told.value.exit_code == 2
    for name in ("site", "notes"):
        (tmp_path / "work" / name).mkdir(parents=True)
    at.shared.add(tmp_path / "work" / "site", "anna")
    assert technician._workspace(at, "", None) == "site"
    assert f"Works in site ({tmp_path}/work/site), the only workspace" in capsys.readouterr().err
    at.shared.add(tmp_path / "work" / "notes", "anna")
    with pytest.raises(RoostError, match="It has to be said where to work") as several:
        technician._workspace(at, "", None)
    assert "notes|site" in (several.value.fix or "")
    assert technician._workspace(at, "notes", None) == "notes"
    assert capsys.readouterr().err == ""
    with pytest.raises(RoostError, match="no workspace 'else'") as missing:
        technician._workspace(at, "else", None)
    assert missing.value.exit_code == NOT_FOUND
