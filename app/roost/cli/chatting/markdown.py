"""Markdown for a terminal while it is written: every character is printed once, nothing is ever printed again.

The common part of CommonMark (https://spec.commonmark.org) with GitHub's tables. What cannot be told yet is held back:
a word until its end, a mark of emphasis until its partner or the end of the line, a table until its last row. Texts
come in cleaned (`safe`); the only escape codes are those made here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from unicodedata import combining, east_asian_width

RESET = "\x1b[0m"
BOLD, DIM, ITALIC, UNDERLINE, STRUCK = "\x1b[1m", "\x1b[2m", "\x1b[3m", "\x1b[4m", "\x1b[9m"
CODE = "\x1b[36m"
HEADING = re.compile(r"^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})\s*([^`]*)$")
ITEM = re.compile(r"^(\s*)([-*+]|\d{1,9}[.)])\s+")
QUOTE = re.compile(r"^ {0,3}>\s?")
RULE = re.compile(r"^ {0,3}([-*_])(\s*\1){2,}\s*$")
ROW = re.compile(r"^\s*\|")
DELIMITER = re.compile(r"^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$")
SPAN = re.compile(
    r"(?P<code>`+)(?P<coded>.+?)(?<!`)(?P=code)(?!`)"
    r"|\*\*(?P<bold>\S(?:.*?\S)?)\*\*|(?<!\w)__(?P<bold2>\S(?:.*?\S)?)__(?!\w)"
    r"|\*(?P<italic>[^\s*](?:[^*]*[^\s*])?)\*|(?<!\w)_(?P<italic2>[^\s_](?:[^_]*[^\s_])?)_(?!\w)"
    r"|~~(?P<struck>\S(?:.*?\S)?)~~"
    r"|!?\[(?P<label>[^\]\n]*)\]\((?P<target>[^)\s]*)(?:\s+\"[^\"]*\")?\)"
)
OPENERS = ("**", "__", "*", "_", "~~", "`", "[")
HELD = 400
"""A mark without a partner within so many characters is a mark."""
DECIDES = 24
"""So many characters of a line say what it is, unless it begins like a table, a heading or a fence."""
BULLET = "•"


def columns(text: str) -> int:
    """Return how many columns a text takes on a terminal."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


class Markdown:
    """Writes Markdown with `write` on a terminal of `width()` columns."""

    def __init__(self, write: Callable[[str], object], width: Callable[[], int]) -> None:
        self._write = write
        self._width = width
        self._line = ""
        """Of the line that is being written: what is not shown yet."""
        self._open = False
        """Whether the beginning of that line is shown already."""
        self._fence = ""
        self._table: list[str] = []
        self._column = 0
        self._indent = ""
        self._gap = False
        """Whether words before this one wait for a blank."""
        self._paragraph = False

    def feed(self, text: str) -> None:
        """Take the next piece; show what is certain of it."""
        for part in text.replace("\t", "    ").splitlines(keepends=True):
            self._line += part.removesuffix("\n")
            if part.endswith("\n"):
                self._end_line()
            else:
                self._show_certain()

    def end(self) -> None:
        """Show the rest; the cursor is at the beginning of a line afterwards."""
        if self._line or self._open:
            self._end_line()
        self._flush_table()
        self._break()
        self._fence = ""

    # --- Lines --------------------------------------------------------------------------------------------------------

    def _end_line(self) -> None:
        line, self._line = self._line, ""
        if self._fence:
            self._code(line)
        elif self._open:
            self._words(line, final=True)
            self._open = False
            self._gap = True
        else:
            self._whole(line)

    def _whole(self, line: str) -> None:
        """Show a line of which nothing was shown yet."""
        if ROW.match(line) or (self._table and "|" in line):
            self._break()
            self._table.append(line)
            return
        self._flush_table()
        fence, heading = FENCE.match(line), HEADING.match(line)
        if fence:
            self._break()
            self._fence = fence.group(1)
            self._put(f"{DIM}╭─ {fence.group(2).strip() or 'text'}{RESET}\n")
        elif not line.strip():
            self._break()
            self._put("\n")
            self._indent = ""
        elif heading:
            self._break()
            mark = UNDERLINE if len(heading.group(1)) == 1 else ""
            self._put(f"{BOLD}{mark}{spans(heading.group(2), BOLD + mark)}{RESET}\n")
        elif RULE.match(line):
            self._break()
            self._put(f"{DIM}{'─' * min(self._width(), 40)}{RESET}\n")
        else:
            self._begin(line)
            self._words(self._rest, final=True)
            self._gap = True

    def _begin(self, line: str) -> None:
        """Show what a line of words begins with; the rest is in `_rest`."""
        quoted = ""
        while quote := QUOTE.match(line):
            line = line[quote.end() :]
            quoted += f"{DIM}│{RESET} "
        item = ITEM.match(line)
        if item or quoted:
            self._break()
        if item:
            depth = " " * (min(len(item.group(1)), 12) // 2 * 2)
            sign = BULLET if item.group(2) in "-*+" else item.group(2)
            self._put(f"{quoted}{depth}{sign} ")
            self._indent = f"{quoted}{depth}{' ' * (len(sign) + 1)}"
            line = line[item.end() :]
            if task := re.match(r"^\[([ xX])\]\s+", line):
                line = ("☐ " if task.group(1) == " " else "☑ ") + line[task.end() :]
        elif quoted:
            self._put(quoted)
            self._indent = quoted
        elif not self._paragraph and not line.startswith(" "):
            self._indent = ""
        self._column = self._column or columns(re.sub(r"\x1b\[\d+m", "", self._indent))
        self._paragraph = True
        self._rest = line.lstrip()

    def _show_certain(self) -> None:
        """Show the words of an unfinished line, if it is one of words."""
        if self._fence or self._table:
            return
        if not self._open:
            lead = self._line.lstrip(" >")
            if len(self._line) < DECIDES or (lead[:1] in "#`~|" or (lead[:1] in "-*_" and not ITEM.match(lead))):
                return
            self._flush_table()
            self._begin(self._line)
            self._open = True
            self._line = self._rest
        end = certain(self._line)
        if end:
            self._words(self._line[:end], final=False)
            self._line = self._line[end:]

    # --- Words --------------------------------------------------------------------------------------------------------

    def _words(self, text: str, *, final: bool) -> None:
        """Show words, broken at the width; a blank before a word is shown with the word."""
        if text[:1] == " ":
            self._gap = True
        for style, run in runs(text):
            for index, word in enumerate(re.split(r" +", run)):
                if index:
                    self._gap = True
                if not word:
                    continue
                width = columns(word)
                room = max(self._width(), 20)
                gap = 1 if self._gap and self._column > columns(re.sub(r"\x1b\[\d+m", "", self._indent)) else 0
                if self._gap and self._column + gap + width > room:
                    self._put(f"\n{self._indent}")
                    self._column = columns(re.sub(r"\x1b\[\d+m", "", self._indent))
                    gap = 0
                self._put(" " * gap + (f"{style}{word}{RESET}" if style else word))
                self._column += gap + width
                self._gap = False
        if final or text.endswith(" "):
            self._gap = True

    def _break(self) -> None:
        """End a paragraph."""
        if self._paragraph:
            self._put("\n")
        self._column, self._gap, self._paragraph = 0, False, False

    def _code(self, line: str) -> None:
        closing = FENCE.match(line)
        if closing and closing.group(1).startswith(self._fence) and not closing.group(2).strip():
            self._fence = ""
            self._put(f"{DIM}╰─{RESET}\n")
        else:
            self._put(f"{DIM}│{RESET} {CODE}{line}{RESET}\n" if line else f"{DIM}│{RESET}\n")

    # --- Tables -------------------------------------------------------------------------------------------------------

    def _flush_table(self) -> None:
        lines, self._table = self._table, []
        if not lines:
            return
        if len(lines) < 2 or not DELIMITER.match(lines[1]):
            for line in lines:
                self._put(f"{line}\n")
            return
        rows = [cells(line) for index, line in enumerate(lines) if index != 1]
        right = [cell.endswith(":") and not cell.startswith(":") for cell in cells(lines[1])]
        count = max(map(len, rows))
        shown = [[(spans(cell, ""), columns(bare(cell))) for cell in row + [""] * (count - len(row))] for row in rows]
        widths = [max(row[n][1] for row in shown) for n in range(count)]
        for index, row in enumerate(shown):
            parts = []
            for n, (cell, taken) in enumerate(row):
                fill = " " * (widths[n] - taken)
                parts.append(fill + cell if n < len(right) and right[n] else cell + fill)
            text = "  ".join(parts).rstrip()
            self._put(f"{BOLD}{text}{RESET}\n" if index == 0 else f"{text}\n")
            if index == 0:
                self._put(f"{DIM}{'  '.join('─' * width for width in widths)}{RESET}\n")

    def _put(self, text: str) -> None:
        self._write(text)


def certain(text: str) -> int:
    """Return up to where words can be shown: before the last word, and before a mark whose partner may still come."""
    end = text.rfind(" ") + 1
    place = 0
    while place < end:
        match = SPAN.match(text, place)
        if match:
            place = match.end()
            if place > end:
                return match.start()
            continue
        mark = next((one for one in OPENERS if text.startswith(one, place)), "")
        following = text[place + len(mark) : place + len(mark) + 1]
        before = text[place - 1 : place]
        opens = mark and following.strip() and not (mark[0] == "_" and before.isalnum())
        if opens and len(text) - place < HELD:
            return place
        place += len(mark) or 1
    return end


def runs(text: str) -> list[tuple[str, str]]:
    """Return a text's parts with the style of each."""
    found: list[tuple[str, str]] = []
    place = 0
    for match in SPAN.finditer(text):
        if match.start() > place:
            found.append(("", text[place : match.start()]))
        got = match.groupdict()
        if got["coded"] is not None:
            found.append((CODE, got["coded"]))
        elif got["label"] is not None:
            found.append((UNDERLINE, got["label"] or got["target"]))
            if got["target"] and got["target"] != got["label"]:
                found.append((DIM, f" ({got['target']})"))  # said openly: a label may say something else
        else:
            for names, style in ((("bold", "bold2"), BOLD), (("italic", "italic2"), ITALIC), (("struck",), STRUCK)):
                inner = next((got[name] for name in names if got[name] is not None), None)
                if inner is not None:
                    found += [(style + more, part) for more, part in runs(inner)]
        place = match.end()
    if place < len(text):
        found.append(("", text[place:]))
    return found


def spans(text: str, around: str) -> str:
    """Return a text with its styles, within the style `around`."""
    return "".join(f"{style}{part}{RESET}{around}" if style else part for style, part in runs(text))


def bare(text: str) -> str:
    """Return a text without its marks."""
    return "".join(part for _, part in runs(text))


def cells(row: str) -> list[str]:
    """Return the cells of a table's row."""
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row.strip().strip("|"))]
