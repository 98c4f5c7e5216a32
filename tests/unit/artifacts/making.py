"""Resolutions, releases and wheels as tests need them."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

from roost.fleet.artifacts.apt import Package
from roost.fleet.artifacts.plan import Choices
from roost.fleet.artifacts.resolution import Resolution, Wanted

REPOSITORY = Path(__file__).parents[3]


def package(name: str, version: str = "1.0", suite: str = "forky") -> Package:
    """Return a package whose content hash follows from name and version."""
    digest = hashlib.sha256(f"{name}{version}".encode()).hexdigest()
    return Package(
        name=name,
        version=version,
        arch="amd64",
        sha256=digest,
        size=1000,
        suite=suite,
        filename=f"pool/{name}_{version}_amd64.deb",
    )


def resolution(wanted: Wanted, **versions: str) -> Resolution:
    """Return a resolution of a wish; `_` in names stands for a hyphen."""
    packages = (package(name.replace("_", "-"), version, wanted.suite) for name, version in sorted(versions.items()))
    return Resolution(wanted=wanted, packages=tuple(packages))


def release(folder: Path) -> Path:
    """Make a small release: code, requirements and image recipes."""
    for name, text in {
        "app/roost/__init__.py": "VALUE = 1\n",
        "requirements/agent.txt": "",
        "images/agent/Dockerfile": "FROM base\n",
        "images/llama-server/Dockerfile": "FROM scratch\n",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def choices(folder: Path, runtime: str = "docker", **more: object) -> Choices:
    """Return choices whose folders are below `folder`."""
    values = {
        "runtime": runtime,
        "release_dir": release(folder / "release"),
        "cache_dir": folder / "cache",
        "artifacts_dir": folder / "artifacts",
        "base_packages": ("python3-minimal",),
        "engine_packages": ("llama.cpp-tools",),
    }
    return Choices.model_validate({**values, **more})


def wheel(folder: Path, name: str = "tiny", version: str = "1.0") -> tuple[Path, str]:
    """Make a wheel with one module; return it and its line for a locked requirements file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "VALUE = 1\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for file, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{file},sha256={digest},{len(text)}\n")
    files[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path, f"{name}=={version} \\\n    --hash=sha256:{digest}\n"
