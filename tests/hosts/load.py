"""Runs on a host with its own Python: asks gateways all the time, streamed and plain, and tries nothing a second time.

Usage: load.py OUT CA KEY_FILE WORKERS URL... CA is for https, - where there is none. What was asked and what
failed goes to OUT as JSON, again and again, until it is ended. Every request has a connection of its own; whatever is
not a whole answer counts as failed.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

TIMEOUT_S = 60.0
WRITE_S = 0.25
SHOWN = 40


class Tally:
    """What was asked so far."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.plain = self.streamed = self.failed = 0
        self.slowest_s = 0.0
        self.failures: list[str] = []

    def note(self, *, streamed: bool, seconds: float, problem: str, url: str) -> None:
        """Count a request."""
        with self.lock:
            self.streamed += streamed
            self.plain += not streamed
            self.slowest_s = max(self.slowest_s, seconds)
            if problem:
                self.failed += 1
                kind = "streamed" if streamed else "plain"
                self.failures.append(f"{time.time():.1f} {kind} {url} after {seconds:.1f} s: {problem}"[:400])

    def text(self) -> str:
        """Return it as JSON."""
        with self.lock:
            found = {"plain": self.plain, "streamed": self.streamed, "failed": self.failed}
            return json.dumps(found | {"slowest_s": self.slowest_s, "failures": self.failures[-SHOWN:]})


def connect(url: str, context: ssl.SSLContext | None) -> http.client.HTTPConnection:
    """Return a connection that is not made yet."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, parts.port or 80, timeout=TIMEOUT_S)
    return http.client.HTTPSConnection(host, parts.port or 443, timeout=TIMEOUT_S, context=context)


def ask(url: str, context: ssl.SSLContext | None, key: str, *, streamed: bool) -> str:
    """Ask once; return what was wrong with the answer, or nothing."""
    body = {
        "model": "main",
        "messages": [{"role": "user", "content": f"Count from {time.monotonic_ns() % 1000} on."}],
        "max_tokens": 8 if streamed else 2,
        "stream": streamed,
    }
    connection = connect(url, context)
    try:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    if answer.status != http.client.OK:
        return f"{answer.status} {text[:200]}"
    return streamed_problem(text) if streamed else plain_problem(text)


def plain_problem(text: str) -> str:
    """Return what is wrong with an answer, or nothing."""
    try:
        return "" if json.loads(text)["choices"][0]["finish_reason"] else "it did not end"
    except (ValueError, KeyError, IndexError):
        return f"no answer: {text[:200]}"


def streamed_problem(text: str) -> str:
    """Return what is wrong with a stream, or nothing: events with choices, a reason why it ended, the last word."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    if not lines or lines[-1] != "[DONE]":
        return f"the stream broke off: {text[-200:]}"
    events = [json.loads(line) for line in lines[:-1]]
    if any("error" in event for event in events):
        return f"an error in the stream: {text[-200:]}"
    ended = any(choice.get("finish_reason") for event in events for choice in event.get("choices", ()))
    return "" if ended else "the stream says no end"


def work(number: int, urls: list[str], context: ssl.SSLContext | None, key: str, tally: Tally) -> None:
    """Ask for ever, in turns the gateways; every second worker streams."""
    turn = number // 2
    while True:
        turn += 1
        url, streamed, begin = urls[turn % len(urls)], number % 2 == 0, time.monotonic()
        problem = ask(url, context, key, streamed=streamed)
        tally.note(streamed=streamed, seconds=time.monotonic() - begin, problem=problem, url=url)


def main(words: list[str]) -> None:
    """Ask until ended."""
    out, authority, key_file, workers, *urls = words
    context = None if authority == "-" else ssl.create_default_context(cafile=authority)
    if context:
        context.check_hostname = (
            False  # the certificate has the name of all gateways, and the test knows their addresses
        )
    key, tally = Path(key_file).read_text().strip(), Tally()
    for number in range(int(workers)):
        threading.Thread(target=work, args=(number, urls, context, key, tally), daemon=True).start()
    while True:
        new = Path(f"{out}.new")
        new.write_text(tally.text())
        new.replace(out)
        time.sleep(WRITE_S)


if __name__ == "__main__":
    main(sys.argv[1:])
