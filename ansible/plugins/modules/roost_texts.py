#!/usr/bin/python
"""Ansible module: small files whose text is known, all in one go; only root writes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from roost.ops.errors import user_message
from roost.ops.files import write_atomic

DOCUMENTATION = r"""
module: roost_texts
short_description: Write small files whose text is known
description:
  - Brings each file to its text and mode, in one step each; it belongs to who runs this, root that is.
  - One task in place of one a file, since what a task costs is mostly its start.
options:
  files:
    description: Files, each with path and text, and mode, which is 0644 where none is named.
    type: list
    elements: dict
    required: true
author: Roost developers
"""

EXAMPLES = r"""
- name: Write down what is installed where
  roost_texts:
    files:
      - path: /etc/roost/site.json
        text: "{{ lookup('ansible.builtin.template', 'etc/roost/site.json.j2') }}"
"""

RETURN = r"""
written:
  description: Paths that were changed, or would be.
  type: list
  returned: always
"""


def bring(path: Path, text: str, mode: int, *, dry_run: bool) -> dict[str, Any] | None:
    """Write one file if it differs; return the difference, or None."""
    owner = (os.geteuid(), os.getegid())
    before = path.read_text() if path.exists() else ""
    same = path.exists() and before == text
    info = path.stat() if path.exists() else None
    kept = info is not None and (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (mode, *owner)
    if same and kept:
        return None
    if not dry_run:
        write_atomic(path, text, mode=mode)
    if not same:
        return difference(path, before, text)
    was = f"mode {info.st_mode & 0o7777:04o}, owner {info.st_uid}\n" if info else ""
    return difference(path, was, f"mode {mode:04o}, owner {owner[0]}\n")


def difference(path: Path, before: str, after: str) -> dict[str, Any]:
    """Return a difference as Ansible shows it."""
    return {"before_header": str(path), "after_header": str(path), "before": before, "after": after}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"files": {"type": "list", "elements": "dict", "required": True}}, supports_check_mode=True
    )
    diffs: list[dict[str, Any]] = []
    try:
        for file in module.params["files"]:
            mode = int(str(file.get("mode", "0644")), 8)
            found = bring(Path(file["path"]), str(file["text"]), mode, dry_run=module.check_mode)
            diffs += [found] if found else []
    except (OSError, UnicodeDecodeError, ValueError) as error:
        module.fail_json(msg=user_message(error) if isinstance(error, OSError) else str(error))
    module.exit_json(changed=bool(diffs), written=[diff["after_header"] for diff in diffs], diff=diffs)


if __name__ == "__main__":
    main()
