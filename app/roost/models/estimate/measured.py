"""What the engine itself said, kept on the host: bytes by engine build, file, flags and graphics processors."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from roost.models.estimate.oracle import settings_arguments
from roost.models.footprint import DeviceBytes, Estimate, LayerSplit, ServerSettings
from roost.ops.files import write_atomic

NAME = "memory-measured.json"
MAX_ENTRIES = 500
RANK = {"measured": 1, "oracle": 0}


@dataclass(frozen=True)
class MeasuredKey:
    """What figures hold for. `engine` is its build, `gpu` names the host's graphics processors, empty for none."""

    engine: str
    sha256: str
    settings: ServerSettings
    split: LayerSplit
    gpu: str = ""

    def text(self) -> str:
        """Return the key as one line of text."""
        flags = [*settings_arguments(self.settings, self.split), "--cache-ram", str(self.settings.cache_ram_mib)]
        gpus = ",".join(map(str, self.split.gpus))
        return "|".join((self.engine, self.sha256, " ".join(flags), f"{self.gpu}[{gpus}]"))


class _Device(BaseModel):
    model_config = ConfigDict(extra="forbid")

    device: str
    weights: int = Field(ge=0)
    kv: int = Field(ge=0)
    compute: int = Field(ge=0)
    output: int = Field(ge=0)
    other: int = Field(ge=0)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    origin: Literal["oracle", "measured"]
    devices: list[_Device]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    engine: str = ""
    entries: dict[str, _Entry] = Field(default_factory=dict)


class MeasuredStore:
    """Figures in one small JSON file; a file that cannot be read counts as empty, as it can be made anew."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._seen: tuple[object, _File] | None = None

    @property
    def engine(self) -> str:
        """Return the build of the engine that runs on this host, empty where nobody said."""
        return self._read().engine

    def use(self, engine: str) -> bool:
        """Keep which build of the engine runs on this host; say whether that was new.

        Raises:
            OSError: the file cannot be written.
        """
        with self._turn():
            content = self._read().model_copy(deep=True)
            if content.engine == engine:
                return False
            content.engine = engine
            self._write(content)
            return True

    def get(self, key: MeasuredKey) -> Estimate | None:
        """Return what is known for this key."""
        entry = self._read().entries.get(key.text())
        if entry is None:
            return None
        return Estimate(tuple(DeviceBytes(**device.model_dump()) for device in entry.devices), entry.origin)

    def find(self, sha256: str, settings: ServerSettings, split: LayerSplit) -> list[Estimate]:
        """Return all that is known of a file with these settings, of any engine and prompt cache; the best last."""
        wanted = " ".join(settings_arguments(settings, split))
        found = [entry for text, entry in self._read().entries.items() if f"|{sha256}|{wanted} --cache-ram " in text]
        found.sort(key=lambda entry: RANK[entry.origin])
        return [Estimate(tuple(DeviceBytes(**d.model_dump()) for d in entry.devices), entry.origin) for entry in found]

    def keep(self, key: MeasuredKey, found: Estimate) -> bool:
        """Keep figures unless better ones are there; say whether the file changed.

        Raises:
            OSError: the file cannot be written.
        """
        if found.origin == "header":
            return False
        entry = _Entry(origin=found.origin, devices=[_Device(**asdict(device)) for device in found.devices])
        with self._turn():
            content = self._read().model_copy(deep=True)
            there = content.entries.get(key.text())
            if there is not None and (RANK[there.origin] > RANK[entry.origin] or there == entry):
                return False
            content.entries.pop(key.text(), None)
            content.entries[key.text()] = entry
            while len(content.entries) > MAX_ENTRIES:
                del content.entries[next(iter(content.entries))]
            self._write(content)
            return True

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let one writer in at a time."""
        with self.path.with_name(f".{NAME}.lock").open("a") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            yield

    def _write(self, content: _File) -> None:
        write_atomic(self.path, content.model_dump_json(indent=1) + "\n")

    def _read(self) -> _File:
        """Return the file's content, read again only when it was replaced: a search asks it many times."""
        try:
            info = self.path.stat()
            version = (info.st_ino, info.st_size, info.st_mtime_ns)
            if self._seen is None or self._seen[0] != version:
                self._seen = (version, _File.model_validate_json(self.path.read_text()))
            return self._seen[1]
        except (OSError, UnicodeDecodeError, ValidationError):
            return _File()


Keys = Callable[[str, str, ServerSettings, LayerSplit], MeasuredKey | None]
