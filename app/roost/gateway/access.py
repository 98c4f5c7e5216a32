"""What each role may do, once for every route. A route that is not named here cannot be served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from roost.gateway.auth import caller_of
from roost.gateway.errors import not_allowed
from roost.gateway.request.kinds import KINDS
from roost.ops.api_keys import Role
from roost.ops.metric_names import AGENT_PAGE

EVERYBODY = frozenset[Role]()  # without a key
ANY_KEY = frozenset(Role)
ADMINS = frozenset({Role.ADMIN})
USERS = frozenset({Role.ADMIN, Role.USER})
WATCHERS = frozenset({Role.ADMIN, Role.READ_ONLY})

RULES: Mapping[str, frozenset[Role]] = {
    "/healthz": EVERYBODY,
    "/readyz": EVERYBODY,
    "/openapi.json": ANY_KEY,
    "/metrics": WATCHERS,
    "/metrics/engines": WATCHERS,
    AGENT_PAGE: WATCHERS,
    "/v1/models": ANY_KEY,
    "/v1/models/{name:path}": ANY_KEY,
    "/v1/key": ANY_KEY,
    "/v1/usage": ANY_KEY,
    "/v1/limits": ADMINS,
    "/roost/v1/replicas": WATCHERS,
    "/roost/v1/replicas/exchange": EVERYBODY,  # who has the gateways' own key
    "/roost/v1/decisions": WATCHERS,
    "/roost/v1/explain": USERS,
    "/roost/v1/router": WATCHERS,
    "/roost/v1/endpoints": ADMINS,
    "/roost/v1/endpoints/{name}": ADMINS,
    "/roost/v1/endpoints/{name}/drain": ADMINS,
    "/roost/v1/endpoints/{name}/undrain": ADMINS,
    "/roost/v1/endpoints/{name}/test": ADMINS,
    "/roost/v1/load": WATCHERS,
    **{kind.path: USERS for kind in KINDS},
}


class Allow:
    """ASGI application around a route's own: lets the roles in that may, 403 for the others."""

    def __init__(self, app: ASGIApp, roles: frozenset[Role]) -> None:
        self._app = app
        self._roles = roles

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        key = caller_of(scope)
        if key.role not in self._roles:
            await not_allowed(key.role, scope["method"], scope["path"]).response()(scope, receive, send)
            return
        await self._app(scope, receive, send)


def guard(routes: Sequence[BaseRoute], public: frozenset[str]) -> None:
    """Put its rule before each route.

    Raises:
        LookupError: a route has no rule, or is open in one place and not in the other.
    """
    for route in routes:
        path = route.path if isinstance(route, Route) else None
        roles = RULES.get(path, EVERYBODY if path in public else None) if path else None
        if roles is None or not isinstance(route, Route):
            raise LookupError(f"the route {path or route} has no rule in roost.gateway.access")
        if (roles == EVERYBODY) != (route.path in public):
            raise LookupError(f"the route {route.path} is open in one place and not in the other")
        if roles != EVERYBODY:
            route.app = Allow(route.app, roles)


def owner_or_admin(request: Request, name: str) -> bool:
    """Say whether what belongs to the key `name` exists for who asks; if not it is 404."""
    key = caller_of(request.scope)
    return key.role is Role.ADMIN or key.name == name
