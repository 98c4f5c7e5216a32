"""Runs on a disposable host with its own Python: ask the installed Roost a question until it answers.

Usage: ask.py SECONDS. Prints a JSON object: answer, seconds until it came, failures before it.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from pathlib import Path

SITE = Path("/etc/roost/site.json")
SYSTEM = "You are a helpful assistant."
QUESTION = "What is the capital of France?"
REQUEST_S = 20.0
PAUSE_S = 0.2


def ask() -> str:
    """Return the model's answer.

    Raises:
        OSError, http.client.HTTPException, ValueError, KeyError: there was none.
    """
    site = json.loads(SITE.read_text())
    key = Path(site["api_key_file"]).read_text().strip()
    body = {
        "model": site["slots"][0]["model"],
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": 40,
    }
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection(site["api"].removeprefix("http://"), timeout=REQUEST_S)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        reply = connection.getresponse()
        text = reply.read().decode()
    finally:
        connection.close()
    if reply.status != http.client.OK:
        raise ValueError(f"HTTP {reply.status}: {text[:200]}")
    return str(json.loads(text)["choices"][0]["message"]["content"])


def main(limit_s: float) -> int:
    """Ask again and again for `limit_s` seconds; 0 when an answer came."""
    start = time.monotonic()
    failures: list[str] = []
    while (passed := time.monotonic() - start) < limit_s:
        try:
            answer = ask()
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            text = f"{type(error).__name__}: {error}"
            if not failures or failures[-1] != text:
                failures.append(text)
            time.sleep(PAUSE_S)
        else:
            passed = time.monotonic() - start
            sys.stdout.write(json.dumps({"answer": answer, "seconds": round(passed, 2), "failures": failures}))
            return 0
    sys.stdout.write(json.dumps({"answer": "", "seconds": round(passed, 2), "failures": failures}))
    return 1


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
