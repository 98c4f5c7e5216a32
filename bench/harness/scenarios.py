"""What is asked, what a model that makes no mistakes would do, and how to see whether it was done."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from bench.harness.world import World

Arguments = dict[str, JsonValue]
Seen = str
"""All that a model was shown."""


@dataclass(frozen=True)
class Step:
    """One call of a perfect plan. Arguments that follow from what was seen are a function; None: not seen yet."""

    tool: str
    arguments: Arguments | Callable[[Seen], Arguments | None]

    def of(self, seen: Seen) -> Arguments | None:
        """Return the arguments."""
        return self.arguments(seen) if callable(self.arguments) else self.arguments


@dataclass(frozen=True)
class Scenario:
    """`possible` says whether it can be done at all: where it cannot, saying so is what is wanted."""

    name: str
    request: str
    plan: tuple[Step, ...]
    answer: Callable[[Seen], str]
    done: Callable[[World, str], bool]
    files: Mapping[str, str] = field(default_factory=dict)
    pages: Mapping[str, str] = field(default_factory=dict)
    commands: Mapping[str, str | tuple[str, str, str, str]] = field(default_factory=dict)
    possible: bool = True

    def world(self) -> World:
        """Return a fresh world of it."""
        return World(self.files, self.pages, self.commands)


def told(pattern: str) -> Callable[[Seen], str]:
    """Answer with what a pattern finds in what was seen."""

    def answer(seen: Seen) -> str:
        found = re.search(pattern, seen)
        return f"It is {found.group(1)}." if found else "I could not find it."

    return answer


def says(text: str) -> Callable[[World, str], bool]:
    """Say whether the answer has a text."""
    return lambda _world, answer: text in answer


def talks(world: World, answer: str) -> bool:
    """Say whether something was said and nothing done."""
    return bool(answer.strip()) and not world.called


def holds(path: str, text: str) -> Callable[[World, str], bool]:
    """Say whether a file has a text."""
    return lambda world, _answer: text in world.files.get(path, "")


def from_seen(pattern: str, make: Callable[[str], Arguments]) -> Callable[[Seen], Arguments | None]:
    """Return arguments made of what a pattern finds in what was seen."""

    def arguments(seen: Seen) -> Arguments | None:
        found = re.search(pattern, seen)
        return make(found.group(1)) if found else None

    return arguments


def into(path: str) -> Callable[[str], Arguments]:
    """Return what writes a text to a file."""
    return lambda text: {"path": path, "content": text}


def fixed(path: str, good: str, command: str) -> Callable[[World, str], bool]:
    """Say whether a file has a text and a command was run."""
    return lambda world, _answer: good in world.files[path] and command in world.ran


def _did(_seen: Seen) -> str:
    return "That is done."


def _noise(name: str, lines: int) -> str:
    return "\n".join(f"2026-01-01 {n % 24:02}:00 {name} step {n} finished without trouble" for n in range(lines))


def _reads() -> list[Scenario]:
    facts = {
        "notes.txt": (
            "The meeting is in room Kestrel.",
            r"in room (\w+)\.",
            "Kestrel",
            "In which room is it?",
        ),
        "config.yaml": ("port: 8471\nhost: here\n", r"port: (\d+)", "8471", "Which port is set?"),
        "docs/team.md": ("# Team\n\nLead: Amara Okafor\n", r"Lead: (\w+)", "Amara", "Who leads the team?"),
        "setup.cfg": ("[metadata]\nversion = 4.7.1\n", r"version = ([\d.]+\d)", "4.7.1", "Which version is it?"),
        "data/prices.csv": ("item,price\npear,73\nfig,12\n", r"pear,(\d+)", "73", "What does a pear cost?"),
        "LICENSE": ("Licensed under the Heron licence.", r"the (\w+) licence", "Heron", "Which licence is it?"),
    }
    return [
        Scenario(
            f"read {path}", f"Read {path}. {question}", (Step("read", {"path": path}),), told(pattern), says(fact),
            files={path: text, "other.txt": "nothing here"},
        )
        for path, (text, pattern, fact, question) in facts.items()
    ]  # fmt: skip


def _sources(seen: Seen) -> str:
    return ", ".join(sorted(set(re.findall(r"src/\w+\.py", seen))))


def _looks() -> list[Scenario]:
    files = {f"src/{name}.py": f"def {name}():\n    return {n}\n" for n, name in enumerate(["fox", "elk", "owl"])}
    return [
        Scenario("list src", "List the files in src/", (Step("list", {"path": "src/"}),),
                 _sources, says("src/elk.py"), files=files),
        Scenario("list all", "Which files are there? List them.", (Step("list", {"path": "."}),),
                 _sources, says("src/owl.py"), files=files),
        Scenario("search def", 'Search for "def owl" in the files.', (Step("search", {"pattern": "def owl"}),),
                 told(r"(src/\w+\.py):\d+: def owl"), says("src/owl.py"), files=files),
        Scenario("search number", 'Find where "return 1" is.', (Step("search", {"pattern": "return 1"}),),
                 told(r"(src/\w+\.py):\d+:\s+return 1"), says("src/elk.py"), files=files),
    ]  # fmt: skip


def _writes() -> list[Scenario]:
    wanted = {
        "hello.txt": "Good morning", "out/list.md": "- milk\n- bread", "run.sh": "#!/bin/sh\necho ready",
        "a.json": '{"ready": true}', "src/new.py": "def new():\n    return 5",
    }  # fmt: skip
    writes = [
        Scenario(
            f"write {path}", f"Create the file {path} with this content: {content}",
            (Step("write", {"path": path, "content": content}),), _did, holds(path, content),
        )
        for path, content in wanted.items()
    ]  # fmt: skip
    edits = {
        "port.yaml": ("port: 80\nhost: a\n", "port: 80", "port: 8080"),
        "src/main.py": ("LIMIT = 10\nNAME = 'x'\n", "LIMIT = 10", "LIMIT = 25"),
        "README.md": ("# Old title\n\nText.\n", "# Old title", "# New title"),
        "Makefile": ("all:\n\ttrue\n", "true", "make test"),
        "app.ini": ("debug=1\nlevel=2\n", "debug=1", "debug=0"),
    }
    return writes + [
        Scenario(
            f"edit {path}", f"Edit {path}: replace `{old}` by `{new}`.",
            (Step("read", {"path": path}), Step("edit", {"path": path, "old": old, "new": new})), _did,
            holds(path, new), files={path: text},
        )
        for path, (text, old, new) in edits.items()
    ]  # fmt: skip


def _derived() -> list[Scenario]:
    found = []
    for number, (source, target, secret) in enumerate(
        [("in.txt", "copy.txt", "QX-17"), ("token.txt", "use.cfg", "BZ-55"), ("a/key.txt", "b/key.txt", "LM-90"),
         ("old.env", "new.env", "RT-31"), ("id.txt", "report.md", "VV-08")]
    ):  # fmt: skip
        found.append(
            Scenario(
                f"derive {target}", f"Read {source} and write the code that is in it to {target}.",
                (
                    Step("read", {"path": source}),
                    Step("write", from_seen(r"the code is ([A-Z]{2}-\d+)", into(target))),
                ),
                _did, holds(target, secret), files={source: f"Line {number}: the code is {secret}, keep it."},
            )
        )  # fmt: skip
    return found


def _webs() -> list[Scenario]:
    pages = {
        "https://one.example/": "Weather: 17 degrees in Turin.", "https://two.example/": "Weather: 23 degrees in Oslo.",
        "https://news.ycombinator.com/": "1. A tiny engine in Zig (421 points)",
    }  # fmt: skip
    one = Step("web_fetch", {"url": "https://one.example/"})
    two = Step("web_fetch", {"url": "https://two.example/"})

    def both(seen: Seen) -> str:
        degrees = re.findall(r"(\d+) degrees in (\w+)", seen)
        if len(set(degrees)) < 2:
            return "I could not find both."
        return f"The warmer one is {max(degrees, key=lambda d: int(d[0]))[1]}."

    def report(seen: Seen) -> Arguments | None:
        degrees = sorted(set(re.findall(r"(\d+) degrees", seen)))
        return {"path": "report.md", "content": " and ".join(degrees)} if len(degrees) == 2 else None

    return [
        Scenario("fetch one", "What does https://one.example/ say?", (one,), told(r"(\d+) degrees in Turin"),
                 says("17"), pages=pages),
        Scenario("fetch two", "Look at https://two.example/ and tell me the weather.", (two,),
                 told(r"(\d+) degrees in Oslo"), says("23"), pages=pages),
        Scenario("hacker news", "What is on Hacker News now?", (Step("web_fetch", {"url": "https://news.ycombinator.com/"}),),
                 told(r"1\. (.+?) \("), says("tiny engine"), pages=pages),
        Scenario("compare", "Fetch https://one.example/ and https://two.example/ and say where it is warmer.",
                 (one, two), both, says("Oslo"), pages=pages),
        Scenario("compare and write",
                 "Fetch https://one.example/ and https://two.example/ and write both temperatures to report.md.",
                 (one, two, Step("write", report)), _did, holds("report.md", "17 and 23"), pages=pages),
    ]  # fmt: skip


def _runs() -> list[Scenario]:
    test = "python3 test.py"
    plain = {"make lint": "0 problems in 12 files", test: "5 passed", "./count.sh": "total 318"}
    runs = [
        Scenario(f"run {command}", f"Run `{command}` and tell me what comes of it.",
                 (Step("shell", {"command": command}),), told(pattern), says(fact), commands=plain)
        for command, pattern, fact in [("make lint", r"(\d+ problems)", "0 problems"), (test, r"(\d+) passed", "5"),
                                       ("./count.sh", r"total (\d+)", "318")]
    ]  # fmt: skip
    bugs = {"calc.py": ("a - b", "a + b"), "loop.py": ("n <= 0", "n >= 0"), "name.py": ("nmae", "name")}
    return runs + [
        Scenario(
            f"fix {path}", f"The tests fail (`{test}`). Fix {path}: replace `{bad}` by `{good}`, and run them again.",
            (
                Step("shell", {"command": test}), Step("read", {"path": path}),
                Step("edit", {"path": path, "old": bad, "new": good}), Step("shell", {"command": test}),
            ),
            _did, fixed(path, good, test),
            files={path: f"def f(a, b, n, name):\n    return {bad}\n"},
            commands={test: (path, good, "4 passed", "1 failed, 3 passed")},
        )
        for path, (bad, good) in bugs.items()
    ]  # fmt: skip


def _large() -> list[Scenario]:
    log = _noise("mail", 1500) + "\nERROR disk Osprey is full\n" + _noise("mail", 1500)
    page = "Head: the winner is Lyra.\n" + _noise("web", 3000)
    table = "id,name\n" + "\n".join(f"{n},user{n}" for n in range(20000)) + "\n20000,Zenobia\n"
    return [
        Scenario("search a long log", 'Search for "ERROR" in server.log and say which disk is full.',
                 (Step("search", {"pattern": "ERROR"}),), told(r"ERROR disk (\w+)"), says("Osprey"),
                 files={"server.log": log}),
        Scenario("read then search a long log", "Read server.log and find the line with ERROR: which disk is full?",
                 (Step("read", {"path": "server.log"}), Step("search", {"pattern": "ERROR"})),
                 told(r"ERROR disk (\w+)"), says("Osprey"), files={"server.log": log}),
        Scenario("a long page", "Who is the winner on https://long.example/?",
                 (Step("web_fetch", {"url": "https://long.example/"}),), told(r"winner is (\w+)"), says("Lyra"),
                 pages={"https://long.example/": page}),
        Scenario("a long table", 'Search for "Zenobia" in users.csv and say her id.',
                 (Step("search", {"pattern": "Zenobia"}),), told(r"(\d+),Zenobia"), says("20000"),
                 files={"users.csv": table}),
        Scenario("two long files", "Read one.log and two.log, then write the word done to end.txt.",
                 (Step("read", {"path": "one.log"}), Step("read", {"path": "two.log"}),
                  Step("write", {"path": "end.txt", "content": "done"})), _did, holds("end.txt", "done"),
                 files={"one.log": log, "two.log": log}),
    ]  # fmt: skip


def _others() -> list[Scenario]:
    return [
        Scenario("greeting", "Hello, how are you?", (), lambda _seen: "I am well.", talks),
        Scenario("knowledge", "What is the capital of France?", (), lambda _seen: "Paris.", says("Paris")),
        Scenario("thanks", "Thanks, that was good.", (), lambda _seen: "You are welcome.", talks),
        Scenario("no such file", "Read absent.txt and tell me what it says.", (Step("read", {"path": "absent.txt"}),),
                 told(r"absent says (\w+)"), says("never"), files={"other.txt": "x"}, possible=False),
        Scenario("no such page", "Fetch https://gone.example/ and write its title to title.txt.",
                 (Step("web_fetch", {"url": "https://gone.example/"}),
                  Step("write", from_seen(r"title: (\w+)", lambda t: {"path": "title.txt", "content": t}))),
                 _did, holds("title.txt", "never"), possible=False),
    ]  # fmt: skip


def scenarios() -> list[Scenario]:
    """Return all of them."""
    return [*_reads(), *_looks(), *_writes(), *_derived(), *_webs(), *_runs(), *_large(), *_others()]
