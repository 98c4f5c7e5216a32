"""Questions and the files of conversations: what is asked stands in them, and what a killed process left is settled."""

from __future__ import annotations

import structlog
from pydantic import JsonValue

from roost.agent.audit.log import AuditLog
from roost.agent.live import Live
from roost.agent.permission.allowed import AllowedStore, Open, OpenQuestions
from roost.agent.permission.asking import ANSWERED, UNANSWERED, Asking
from roost.agent.permission.policy import Answer, refusal
from roost.agent.sessions.records import EventBody, ToolResultBody
from roost.agent.sessions.store import SessionNotFoundError, SessionStore
from roost.agent.tool import Outcome, ToolResult
from roost.agent.turn import Record

log = structlog.get_logger(__name__)
STARTED_ANEW = "the service was started anew before the user answered"


def asking_of(
    live: Live, record: Record, store: SessionStore, audit: AuditLog, allowed: AllowedStore, questions: OpenQuestions
) -> Asking:
    """Return who asks in a conversation."""

    async def tell(name: str, detail: dict[str, JsonValue]) -> None:
        await record(EventBody(name=name, detail=detail, turn=live.turn))
        await live.tell({"type": name, **detail})

    def before() -> set[str]:
        events = [one.body for one in store.read(live.owner, live.session).records if isinstance(one.body, EventBody)]
        answers = [one.detail for one in events if one.name == ANSWERED]
        return {str(one.get("mark")) for one in answers if one.get("answer") == Answer.CONVERSATION}

    return Asking(live.owner, live.session, live, tell, audit, allowed, questions, before)


def settle(questions: OpenQuestions, store: SessionStore, audit: AuditLog) -> None:
    """End what a process asked that is gone: not answered, and so nothing was called."""
    for left in questions.left():
        try:
            _settle(left, store, audit)
        except SessionNotFoundError:
            pass  # removed: nobody is told any more
        except OSError as error:  # a full disk: at the next start
            log.warning("question_not_settled", reason=str(error))
            continue
        questions.remove(left.id)


def _settle(left: Open, store: SessionStore, audit: AuditLog) -> None:
    detail: dict[str, JsonValue] = {
        "id": left.id, "call": left.call, "tool": left.tool, "answer": UNANSWERED, "by": "", "mark": "",
    }  # fmt: skip
    result = ToolResult(id=left.call, outcome=Outcome.REFUSED, text=refusal(left.tool, left.why, STARTED_ANEW))
    event = EventBody(name=ANSWERED, detail=detail, turn=left.turn)
    store.append(left.owner, left.session, event, ToolResultBody(result=result, turn=left.turn))
    audit.add(left.owner, "tool.answered", detail, left.session)
