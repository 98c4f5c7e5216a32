"""Skills over the API: list, show, write, remove. Another key's skill is 404, as one that does not exist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from roost.agent.audit.log import AuditLog
from roost.agent.memory.facts import USER
from roost.agent.skills.skill import MOST_STEPS_BYTES, BadSkillError, Skill
from roost.agent.skills.store import SkillStore
from roost.agent.storage import stored
from roost.gateway.errors import ApiError

PATH = "/roost/v1/skills"


class Written(BaseModel):
    """A skill as a user writes it."""

    model_config = ConfigDict(extra="forbid")

    description: str = Field(min_length=1, max_length=1000)
    steps: str = Field(min_length=1, max_length=2 * MOST_STEPS_BYTES)


def skill_routes(
    skills: SkillStore, owner_of: Callable[[Request], str], audit: AuditLog, changed: Callable[[str], None]
) -> APIRouter:
    """Return the routes below `PATH`. `changed` is told whose skills are others now."""
    router = APIRouter()

    @router.get(PATH, summary="List skills; with q those that it may be about")
    async def listed(request: Request, q: str = "") -> JSONResponse:
        owner = owner_of(request)
        found, damaged = await stored(lambda: skills.all_of(owner))
        if q:
            found = await stored(lambda: skills.search(owner, q))
        return JSONResponse({"object": "list", "data": [shown(skill) for skill in found], "damaged": damaged})

    @router.get(f"{PATH}/{{name}}", summary="Show a skill")
    async def one(request: Request, name: str) -> JSONResponse:
        owner = owner_of(request)
        return JSONResponse(shown(await stored(lambda: skills.get(owner, name))))

    @router.put(f"{PATH}/{{name}}", summary="Write a skill")
    async def written(request: Request, name: str, body: Written) -> JSONResponse:
        owner = owner_of(request)

        def save() -> tuple[Skill, bool]:
            try:
                kept = skills.save(owner, Skill(name, body.description, body.steps, USER))
            except BadSkillError as error:
                raise ApiError(422, str(error), code="no_skill") from None
            audit.add(owner, "skill.save", {"skill": name, "new": kept[1]})
            return kept

        skill, new = await stored(save)
        changed(owner)
        return JSONResponse(shown(skill), 201 if new else 200)

    @router.delete(f"{PATH}/{{name}}", summary="Remove a skill", status_code=204)
    async def removed(request: Request, name: str) -> Response:
        owner = owner_of(request)
        await stored(lambda: skills.remove(owner, name))
        await stored(lambda: audit.add(owner, "skill.remove", {"skill": name}))
        changed(owner)
        return Response(status_code=204)

    return router


def shown(skill: Skill) -> dict[str, object]:
    """Return a skill for a client."""
    return {"object": "skill", **asdict(skill)}
