"""Users, the group and the folders that Roost needs on a machine; one pass, recorded before it is made."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from roost.ops.errors import RoostError
from roost.ops.ownership import PRESENT, Manifest
from roost.ops.processes import end, running_as
from roost.ops.run import run

NO_HOME = "/nonexistent"
NO_SHELL = "/usr/sbin/nologin"


@dataclass(frozen=True)
class SystemUser:
    """A user that owns nothing but what it is given. `uid` is the same on every host and in the images.

    One that is `reserved` is for what may be enabled later, so that useradd gives its number to nobody: where somebody
    has it already, it is left out.
    """

    name: str
    uid: int
    comment: str
    reserved: bool = False


@dataclass(frozen=True)
class Folder:
    """A folder with its mode, in octal digits, and whose it is."""

    path: Path
    mode: str
    uid: int = 0


def ensure_layout(
    manifest: Manifest,
    group: str,
    users: Sequence[SystemUser],
    folders: Sequence[Folder],
    files: Sequence[str],
    *,
    groups: Sequence[str] = (),
    accounts: Sequence[str] = (),
    dry_run: bool = False,
) -> list[str]:
    """Make what is missing and put modes right; `files`, `groups` and `accounts` are only recorded, others make them.

    An account is a user and the group of its name. Without users there need be no group: it may be empty.

    Returns one line a change made, or that would be made with `dry_run`.

    Raises:
        RoostError: a user's number belongs to somebody else, or the user has another one.
    """
    users = [user for user in users if not user.reserved or _may_be_reserved(user)]
    if not dry_run:
        _record(manifest, "path", [*(str(f.path) for f in folders), *files])
        _record(manifest, "user", [*(u.name for u in users), *accounts])
        _record(manifest, "group", [*([group] if group else []), *groups, *accounts])
    changes: list[str] = []
    if group and not _has_group(group):
        changes.append(f"group {group}")
        if not dry_run:
            run(["groupadd", "--system", group])
    for user in users:
        if _has_user(user):
            continue
        changes.append(f"user {user.name} ({user.uid})")
        if not dry_run:
            run(
                ["useradd", "--system", "--uid", str(user.uid), "--gid", group, "--comment", user.comment,
                 "--home-dir", NO_HOME, "--no-create-home", "--shell", NO_SHELL, user.name]
            )  # fmt: skip
    return changes + [change for folder in folders if (change := _folder(folder, dry_run=dry_run))]


def remove_layout(
    manifest: Manifest, paths: Sequence[Path], *, if_empty: Sequence[Path] = (), dry_run: bool = False
) -> list[str]:
    """Remove our users and groups, and those of `paths` that are ours; return one line a removal.

    Folders of `if_empty` go, in that order, when they are ours and nothing else is left in them. A path counts as ours
    when it, or a folder above it, is in the manifest. What is still mounted below is unmounted first: Nomad mounts a
    task's secrets folder.
    """
    owned = {Path(name) for name in manifest.owned("path")}
    doomed = [p for p in paths if os.path.lexists(p) and not owned.isdisjoint({p, *p.parents})]
    going = set(doomed)
    for path in if_empty:
        if path in owned and path.is_dir() and going.issuperset(path.iterdir()):
            doomed.append(path)
            going.add(path)
    removed = [f"path {path}" for path in doomed]
    users = [name for name in manifest.owned("user") if PRESENT["user"](name)]
    groups = [name for name in manifest.owned("group") if PRESENT["group"](name)]
    removed += [f"user {name}" for name in users] + [f"group {name}" for name in groups]
    if dry_run:
        return removed
    # Nomad may have been ended while it still waited to stop a job, or have lost one after it was killed itself.
    end(running_as({pwd.getpwnam(name).pw_uid for name in users}))
    for path in doomed:
        _remove_tree(path)
    for name in users:
        run(["userdel", name], fix="Stop the processes of that user, then run it again.")
    for name in groups:
        if PRESENT["group"](name):
            run(["groupdel", name])
    manifest.forget("user", *manifest.owned("user"))
    manifest.forget("group", *manifest.owned("group"))
    return removed


def _remove_tree(path: Path) -> None:
    for mounted in sorted(_mounts_below(path), reverse=True):
        run(["umount", "--lazy", mounted], fix=f"Unmount {mounted}, then run it again.")
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _mounts_below(path: Path) -> list[Path]:
    """Return the mount points below a path; the kernel writes blanks in them as octal escapes."""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    found = [Path(point.replace("\\040", " ")) for point in points]
    return [point for point in found if path in point.parents]


def _record(manifest: Manifest, kind: str, names: Sequence[str]) -> None:
    manifest.own(kind, *(name for name in names if not PRESENT[kind](name)))


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _holder(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _may_be_reserved(user: SystemUser) -> bool:
    """Say whether nobody has the number, nor that name another one."""
    found = _holder(user.uid)
    return found == user.name or (not found and not PRESENT["user"](user.name))


def _has_user(user: SystemUser) -> bool:
    found = _holder(user.uid)
    variable = f"{user.name.replace('-', '_')}_uid"
    if found not in ("", user.name):
        raise RoostError(
            f"The user number {user.uid} belongs to {found!r}, Roost wants it for {user.name!r}.",
            fix=f"Give it a free one: `--set {variable}=NUMBER`.",
        )
    if not found and PRESENT["user"](user.name):
        number = pwd.getpwnam(user.name).pw_uid
        raise RoostError(
            f"The user {user.name!r} is there with the number {number}, Roost wants {user.uid}.",
            fix=f"Keep its number: `--set {variable}={number}`.",
        )
    return found == user.name


def _folder(folder: Folder, *, dry_run: bool) -> str:
    mode = int(folder.mode, 8)
    made = not os.path.lexists(folder.path)
    if made:
        if dry_run:
            return f"folder {folder.path} {folder.mode}"
        folder.path.mkdir(parents=True)
    handle = _open_folder(folder.path)
    try:
        state = os.fstat(handle)
        same = (state.st_mode & 0o7777, state.st_uid, state.st_gid) == (mode, folder.uid, 0)
        if not same and not dry_run:
            os.fchown(handle, folder.uid, 0)
            os.fchmod(handle, mode)
    finally:
        os.close(handle)
    if made:
        return f"folder {folder.path} {folder.mode}"
    return "" if same else f"folder {folder.path} {state.st_mode & 0o7777:04o} -> {folder.mode}"


def _open_folder(path: Path) -> int:
    """Return a descriptor of a folder, whatever its name leads to a moment later.

    A link may stand for it, say to another disk, but not below a folder of a service: that would choose what root
    gives it.

    Raises:
        RoostError: it is none.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | (os.O_NOFOLLOW if _of_service(path.parent) else 0))
    except OSError as error:
        if error.errno not in {errno.ENOTDIR, errno.ELOOP, errno.ENOENT}:
            raise
        raise RoostError(f"{path} is not a folder.", fix=f"Move {path} out of the way.") from None


def _of_service(folder: Path) -> bool:
    return folder.stat().st_uid not in {0, os.geteuid()}
