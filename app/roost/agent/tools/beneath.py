"""Files below one folder, reached name by name without following symbolic links, so that nothing leads out of it.

Each folder on the way is opened relative to the one before (openat) with O_NOFOLLOW, and what is then read or replaced
is what was opened: there is no moment between a check of a path and its use.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Event

from roost.agent.tools.errors import EndedError, MissingError, RefusedError, ToolError

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # without NONBLOCK a FIFO would hold us
HIDDEN = frozenset({".roost"})
"""Names that are neither read nor changed, at any depth."""
KEPT = frozenset({".git"})
"""Names that are read and never changed, at any depth: what lies there is run by the user's own git."""
FILE_BYTES = 16 << 20
PUT_BACK_BYTES = 256 << 20
CLOSED = -1


@dataclass(frozen=True)
class Entry:
    """A name in a folder. `kind`: file, folder, link, other; `size` in bytes."""

    path: str
    kind: str
    size: int
    mtime_ns: int
    inode: int


class Beneath:
    """The files of one folder, by paths relative to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stopped = Event()
        """Set to end a walk early."""
        try:
            self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ToolError(f"The workspace {root} cannot be opened: {error.strerror}.") from error

    def close(self) -> None:
        """Let go of the folder: what is asked for afterwards fails, whatever gets the number of its descriptor."""
        handle, self._root = self._root, CLOSED
        os.close(handle)

    def relative(self, path: str, *, change: bool = False) -> str:
        """Return a path as the tools write it: relative, without `.` and `..`; '' is the workspace itself.

        Raises:
            RefusedError: it leads out of the workspace, or to what is protected.
        """
        if "\0" in path:
            raise RefusedError("A path has no zero bytes.")
        given = PurePosixPath(path or ".")
        if given.is_absolute():
            for top in (PurePosixPath("/workspace"), PurePosixPath(str(self.root))):
                if given.is_relative_to(top):
                    given = given.relative_to(top)
                    break
            else:
                raise RefusedError(f"{path} is outside the workspace: give a path relative to it.")
        parts: list[str] = []
        for part in given.parts:
            if part == "..":
                if not parts:
                    raise RefusedError(f"{path} is outside the workspace: give a path relative to it.")
                parts.pop()
            else:
                parts.append(part)
        folded = {part.casefold() for part in parts}
        if folded & HIDDEN:
            raise RefusedError(f"{path} is protected.")
        if change and folded & KEPT:
            raise RefusedError(f"{path} is protected: a tool does not change what git runs.")
        return "/".join(parts)

    def read(self, path: str, limit: int = FILE_BYTES) -> bytes:
        """Return a file's bytes.

        Raises:
            ToolError: there is none, it is no plain file, or it has more than `limit` bytes.
            RefusedError: it is outside or protected.
        """
        with self._opened(self.relative(path), FILE) as handle:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise ToolError(f"{path} is {'a folder' if stat.S_ISDIR(found.st_mode) else 'no plain file'}.")
            if found.st_size > limit:
                raise ToolError(f"{path} has {found.st_size:,} bytes; at most {limit:,} are read.")
            with os.fdopen(os.dup(handle), "rb") as stream:
                data = stream.read(limit + 1)
            if len(data) > limit:
                raise ToolError(f"{path} has more than {limit:,} bytes.")
            return data

    def state(self, path: str) -> tuple[bytes, int] | None:
        """Return a plain file's bytes and permission bits; None where nothing is.

        Raises:
            ToolError: it is no plain file, or has more bytes than can be put back.
        """
        try:
            with self._opened(self.relative(path), FILE) as handle:
                found = os.fstat(handle)
                if not stat.S_ISREG(found.st_mode):
                    raise ToolError(f"{path} is no plain file.")
                if found.st_size > PUT_BACK_BYTES:
                    raise ToolError(f"{path} has {found.st_size:,} bytes: too many to be put back.")
                with os.fdopen(os.dup(handle), "rb") as stream:
                    return stream.read(), stat.S_IMODE(found.st_mode)
        except MissingError:
            return None

    def write(self, path: str, data: bytes, mode: int | None = None) -> None:
        """Replace or make a file as a whole; folders on the way are made. A hard link elsewhere keeps its content.

        Raises:
            ToolError: the disk is full, or a folder stands there.
            RefusedError: it is outside or protected.
        """
        name = self.relative(path, change=True)
        if not name:
            raise ToolError("The path of a file is needed.")
        *folders, last = name.split("/")
        with self._folder(folders, make=True) as folder:
            kept = _mode(folder, last, path)
            temporary = f".{last[:100]}.{secrets.token_hex(6)}.part"
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fchmod(stream.fileno(), (mode if mode is not None else kept) & 0o777)
                    os.fsync(stream.fileno())
                os.replace(temporary, last, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError as error:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise ToolError(f"{path} was not written: {error.strerror}.") from error

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens where none is."""
        *folders, last = self.relative(path, change=True).split("/")
        with suppress(MissingError), self._folder(folders) as folder, suppress(FileNotFoundError):
            os.unlink(last, dir_fd=folder)

    def entries(self, path: str) -> list[Entry]:
        """Return what is in a folder, by name, without what is hidden."""
        name = self.relative(path)
        with self._folder(name.split("/") if name else []) as folder:
            found = []
            for entry in _names(folder):
                if entry.casefold() in HIDDEN:
                    continue
                with suppress(FileNotFoundError):
                    status = os.stat(entry, dir_fd=folder, follow_symlinks=False)
                    found.append(_entry(f"{name}/{entry}" if name else entry, status))
            return found

    def walk(self, path: str, limit: int) -> Iterator[Entry]:
        """Give what is below a folder, at most `limit` entries, without what is in `.git`.

        Raises:
            EndedError: it was stopped.
        """
        waiting = [self.relative(path)]
        count = 0
        while waiting:
            try:
                entries = self.entries(waiting.pop(0))
            except (ToolError, OSError):
                continue  # went away, or may not be read
            for entry in entries:
                count += 1
                if count > limit:
                    return
                if self.stopped.is_set():
                    raise EndedError
                yield entry
                if entry.kind == "folder" and entry.path.rsplit("/", 1)[-1] not in KEPT:
                    waiting.append(entry.path)

    def hidden(self) -> list[str]:
        """Return the hidden folders at the top."""
        with self._folder([]) as folder:
            names = [name for name in _names(folder) if name.casefold() in HIDDEN]
            return [name for name in names if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)]

    def hold(self, path: str, new_name: str) -> None:
        """Give something another name in its folder, whatever it is."""
        *folders, last = path.split("/")
        with self._folder(folders) as folder:
            os.rename(last, new_name, src_dir_fd=folder, dst_dir_fd=folder)

    @contextmanager
    def _opened(self, name: str, flags: int) -> Iterator[int]:
        *folders, last = name.split("/")
        with self._folder(folders) as folder:
            try:
                handle = os.open(last or ".", flags, dir_fd=folder)
            except OSError as error:
                raise _failure(name, error) from error
            try:
                yield handle
            finally:
                os.close(handle)

    @contextmanager
    def _folder(self, parts: list[str], *, make: bool = False) -> Iterator[int]:
        handle = os.dup(self._root)
        try:
            for part in parts:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=handle)
                try:
                    below = os.open(part, FOLDER, dir_fd=handle)
                except OSError as error:
                    raise _failure("/".join(parts), error) from error
                os.close(handle)
                handle = below
            yield handle
        finally:
            os.close(handle)


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as found:
        return sorted(entry.name for entry in found)


def _failure(name: str, error: OSError) -> ToolError | RefusedError:
    if error.errno == errno.ENOENT:
        return MissingError(f"{name} does not exist.")
    if error.errno in (errno.ELOOP, errno.EMLINK):  # the latter on FreeBSD, open(2): O_NOFOLLOW
        return RefusedError(f"{name} is, or passes, a symbolic link: links are not followed.")
    if error.errno == errno.ENOTDIR:  # O_DIRECTORY on a link says this too
        return RefusedError(f"{name} passes a file or a symbolic link: links are not followed.")
    return ToolError(f"{name}: {error.strerror}.")


def _mode(folder: int, last: str, path: str) -> int:
    try:
        found = os.stat(last, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return 0o644
    if stat.S_ISLNK(found.st_mode):
        raise RefusedError(f"{path} is a symbolic link: links are not followed.")
    if not stat.S_ISREG(found.st_mode):
        raise ToolError(f"{path} is no plain file.")
    return stat.S_IMODE(found.st_mode)


def _entry(path: str, found: os.stat_result) -> Entry:
    kinds = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "folder"), (stat.S_ISLNK, "link"))
    kind = next((word for test, word in kinds if test(found.st_mode)), "other")
    return Entry(path, kind, found.st_size, found.st_mtime_ns, found.st_ino)
