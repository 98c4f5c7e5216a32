"""Literals that a user may want to change, in roles, playbooks and job templates: they belong into group_vars/all.yaml.

`python -m tests.support.literals` looks at the repository, names each with its place, and ends with 1 if there is one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
WHERE = ("ansible/roles", "nomad", "app/roost/ops/unit_templates", "*.yaml")
NOT_THERE = ("nomad/build/",)  # what Nomad is compiled from: no job
KINDS = ("address", "subnet", "port", "user", "path", "secret")
WAIVER = re.compile(r"#\s*literal: \S")  # a line that needs one says why: `# literal: RFC 5737, in a documentation`

IP = re.compile(r"(?<![\w.:])(?=[0-9a-fA-F:.]*[.:])([0-9a-fA-F:.]+)(/\d{1,3})?(?![\w.:])")
# `api_port: 8360`, `static = 8360`, `dport 8360`, `http = 4646`, `HOST:8360`; not `report` or `support`.
PORT = re.compile(
    r"""(?:(?<![a-z])(?:[a-z]+_)*port['"]?\s*[:=]\s*|(?<![\w])[sd]port\s+(?:!=\s*)?|(?<!\w)static\s*=\s*
    |^\s*(?:http|rpc|serf)\s*=\s*|(?<=[\w\]}])(?<!\d):(?=\d{2,5}(?![\w.:])))['"]?(\d{2,5})(?![\w.])""",
    re.VERBOSE,
)
USER = re.compile(
    r"""(?<![\w-])(?:owner|group|user|uid|gid|become_user|remote_user|login)['"]?\s*[:=]\s*['"]?([A-Za-z_][\w-]*|\d+)"""
)
NOBODYS = {"root", "true", "false", "omit", "yes", "no", "null", "0"}  # exist on every machine, or name nobody
PATH = re.compile(r"""(?<![\w.}/$])(/(?:home|root|Users|srv|mnt|opt|tmp)(?:/[\w.-]+)+|/(?:[\w.-]+/)+roost[\w./-]*)""")
SECRET = re.compile(
    r"""(?i)(?<![a-z])(?:[a-z]+[_-])*(?:password|passwd|secret|token|api_key|private_key)['"]?\s*[:=]\s*['"]?
    ([A-Za-z0-9+/_-]{8,}={0,2})['"]?\s*$|-----BEGIN""",
    re.VERBOSE,
)
COMMENT = re.compile(r"(?:^|\s)(?:#|//)\s.*$|^\s*#.*$")
REMARK = re.compile(r"\{#.*?#\}", re.DOTALL)


@dataclass(frozen=True)
class Literal:
    """One literal: its file, line, kind and text."""

    path: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        """Return it as compilers write a finding."""
        return f"{self.path}:{self.line}: the {self.kind} {self.text} is a literal; make it a variable of all.yaml"


def literals(text: str, path: str, known: Mapping[str, Collection[str]] | None = None) -> list[Literal]:
    """Return the literals in a file's text. Pure.

    `known` has for a kind values that are refused wherever they stand alone: the defaults of the variables.
    """
    found: list[Literal] = []
    for number, line in enumerate(_without_prose(text, path).splitlines(), 1):
        for kind, what in _in_line(line, known or {}):
            found.append(Literal(path, number, kind, what))
    return found


def _without_prose(text: str, path: str) -> str:
    """Take out comments and, of argument specs, descriptions; lines stay where they are."""
    kept: list[str] = []
    for line in REMARK.sub(lambda m: "\n" * m[0].count("\n"), text).splitlines():
        if WAIVER.search(line) or line.startswith("#!"):
            kept.append("")
            continue
        spoken = path.endswith("argument_specs.yml") and re.match(r"\s*-?\s*(short_)?description:", line)
        kept.append("" if spoken else COMMENT.sub("", line))
    return "\n".join(kept)


def _addresses(line: str) -> Iterator[tuple[str, str]]:
    for found in IP.finditer(line):
        if found[2] and _is_network(found[1]):
            yield "subnet", found[0]
        elif _is_address(found[1]) or _is_address(found[1].rstrip(".:")):  # one that ends a sentence
            yield "address", found[1]


def _in_line(line: str, known: Mapping[str, Collection[str]]) -> Iterator[tuple[str, str]]:
    yield from _addresses(line)
    for found in PORT.finditer(line):
        yield "port", found[1]
    for found in USER.finditer(line):
        if found[1] not in NOBODYS:
            yield "user", found[1]
    for found in PATH.finditer(line):
        yield "path", found[1]
    if found_secret := SECRET.search(line):
        yield "secret", found_secret[1] or found_secret[0]
    for kind, values in known.items():
        for value in values:
            if re.search(rf"(?<![\w.:-]){re.escape(value)}(?![\w.-])", line):
                yield kind, value


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def defaults_of(variables: Mapping[str, object]) -> dict[str, set[str]]:
    """Return the numbers that are ports and users by their variables' names."""
    by_end = {"port": ("_port", "_port_min", "_port_max"), "user": ("_uid",)}
    return {
        kind: {str(value) for name, value in variables.items() if name.endswith(ends) and isinstance(value, int)}
        for kind, ends in by_end.items()
    }


def files(root: Path = ROOT) -> list[str]:
    """Return what is looked at: all that git knows or would add."""
    asked = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *WHERE]
    listed = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=True).stdout.split()
    playbooks = {p.name for p in root.glob("*.yaml")}
    return sorted(n for n in set(listed) if (n in playbooks or "/" in n) and _counts(root, n))


def _counts(root: Path, name: str) -> bool:
    of_ours = name.startswith(WHERE[:-1]) or "/" not in name
    return of_ours and not name.startswith(NOT_THERE) and not name.endswith(".md") and (root / name).is_file()


def main() -> int:
    """Print every literal of the repository; return the exit code."""
    variables = yaml.safe_load((ROOT / "group_vars/all.yaml").read_text())
    known, looked_at = defaults_of(variables), files()
    found = [one for name in looked_at for one in literals((ROOT / name).read_text(), name, known)]
    for one in found:
        print(one)
    print(f"literals: {len(looked_at)} files, {len(found) or 'no'} finding{'s' if len(found) > 1 else ''}")
    return 1 if found or not looked_at else 0


if __name__ == "__main__":
    sys.exit(main())
