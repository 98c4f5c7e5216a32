"""The outline of source code: its declarations, by tree-sitter's grammars, each with its lines.

Where the grammars are not installed (the hub carries none, to stay small) lines that begin like one are taken.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING

from roost.context.outline.lines import Entry

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

SUFFIXES: Mapping[str, str] = MappingProxyType(
    {
        ".py": "python", ".pyi": "python", ".sh": "bash", ".bash": "bash", ".c": "c", ".h": "c", ".cc": "cpp",
        ".cpp": "cpp", ".cxx": "cpp", ".hpp": "cpp", ".hh": "cpp", ".go": "go", ".java": "java", ".js": "javascript",
        ".mjs": "javascript", ".cjs": "javascript", ".jsx": "javascript", ".rs": "rust", ".ts": "typescript",
        ".mts": "typescript", ".tsx": "tsx",
    }
)  # fmt: skip
DECLARATIONS = frozenset(
    {
        # Python, bash, JavaScript and TypeScript
        "class_definition", "function_definition", "class_declaration", "abstract_class_declaration",
        "function_declaration", "generator_function_declaration", "method_definition", "interface_declaration",
        "type_alias_declaration", "enum_declaration", "internal_module",
        # Go, Java
        "method_declaration", "type_spec", "constructor_declaration", "record_declaration",
        "annotation_type_declaration",
        # Rust
        "function_item", "struct_item", "enum_item", "trait_item", "impl_item", "mod_item", "macro_definition",
        "union_item",
        # C and C++
        "struct_specifier", "class_specifier", "enum_specifier", "union_specifier", "namespace_definition",
        "type_definition",
    }
)  # fmt: skip
NEEDS_BODY = frozenset({"struct_specifier", "class_specifier", "enum_specifier", "union_specifier"})
MOST_NODES = 200_000
MOST_DEPTH = 4
LIKE_A_DECLARATION = re.compile(
    r"^[ \t]*(?:export\s+|default\s+|pub(?:\([^)]*\))?\s+|async\s+|public\s+|private\s+|protected\s+|static\s+|final\s+"
    r"|abstract\s+|unsafe\s+)*(?:def|class|func|fn|function|interface|struct|enum|trait|impl|mod|namespace|type|record)\b"
    r"[^;]*$"
)


def language_of(name: str) -> str:
    """Return the language that a file's name tells, or nothing."""
    return SUFFIXES.get(PurePosixPath(name).suffix.lower(), "")


def entries(text: str, language: str) -> list[Entry]:
    """Return the declarations of a source text, in order; none if there are none."""
    parser = _parser(language)
    return _by_lines(text) if parser is None else _by_tree(text, parser)


@cache
def _parser(language: str) -> Parser | None:
    package = "typescript" if language == "tsx" else language
    name = {"typescript": "language_typescript", "tsx": "language_tsx"}.get(language, "language")
    try:
        core = importlib.import_module("tree_sitter")
        module = importlib.import_module(f"tree_sitter_{package}")
    except ImportError:
        return None
    made: Parser = core.Parser(core.Language(getattr(module, name)()))
    return made


def _by_tree(text: str, parser: Parser) -> list[Entry]:
    source = text.encode("utf-8", "replace")
    found: list[Entry] = []
    stack: list[tuple[Node, int]] = [(parser.parse(source).root_node, 0)]
    seen = 0
    while stack and seen < MOST_NODES:
        node, depth = stack.pop()
        seen += 1
        body = node.child_by_field_name("body")
        if node.type in DECLARATIONS and (body is not None or node.type not in NEEDS_BODY):
            end = node.end_byte if body is None else body.start_byte
            said = source[node.start_byte : end].decode("utf-8", "replace").rstrip(" \t\r\n:{")
            found.append(Entry(depth, said, node.start_point[0] + 1, node.end_point[0] + 1))
            depth += 1
        if depth <= MOST_DEPTH:
            stack += [(child, depth) for child in reversed(node.named_children)]
    return found


def _by_lines(text: str) -> list[Entry]:
    lines = text.split("\n")
    starts = [number for number, line in enumerate(lines) if LIKE_A_DECLARATION.match(line)]
    margins = sorted({_margin(lines[number]) for number in starts})
    found = []
    for at, number in enumerate(starts):
        end = starts[at + 1] if at + 1 < len(starts) else len(lines)
        depth = min(margins.index(_margin(lines[number])), MOST_DEPTH)
        found.append(Entry(depth, lines[number].strip().rstrip(":{ "), number + 1, end))
    return found


def _margin(line: str) -> int:
    return len(line) - len(line.lstrip())
