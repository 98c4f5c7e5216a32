"""FreeBSD's packages of the Python modules that the worker needs. Standard library only: it is asked what is missing.

Names of packages as in the ports tree: without the prefix of a Python (`py311-`).
"""

from __future__ import annotations

PACKAGES = {
    "aiohttp": "aiohttp",
    "dotenv": "python-dotenv",
    "httpx": "httpx",
    "jinja2": "Jinja2",
    "pydantic": "pydantic2",
    "pydantic_core": "pydantic-core",
    "pydantic_settings": "pydantic-settings",
    "rich": "rich",
    "starlette": "starlette",
    "structlog": "structlog",
    "typer": "typer",
    "yarl": "yarl",
}
"""Top module -> package."""
OLDEST_PYTHON = (3, 11)


def package_of(module: str, python: tuple[int, int]) -> str:
    """Return the package of a module for a Python; '' if the worker needs none of that name."""
    name = PACKAGES.get(module.partition(".")[0])
    return f"py{python[0]}{python[1]}-{name}" if name else ""


def all_packages(python: tuple[int, int] = OLDEST_PYTHON) -> tuple[str, ...]:
    """Return all of them by name."""
    return tuple(sorted(package_of(module, python) for module in PACKAGES))
