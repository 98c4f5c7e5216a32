"""How a prompt begins, as a chain of hashes over the blocks of its bytes: pure.

Two prompts that share their first N hashes begin with the same N blocks; a model server that has read one of them need
not read those again. Bytes of the request's JSON stand for tokens: a conversation grows at its end, and a client writes
what it has said before in the same way again.
"""

from __future__ import annotations

import re

BLOCK_BYTES = 128  # about 32 tokens of English text
MOST_BLOCKS = 4096  # of one prompt; what follows adds nothing to the choice
# What follows a conversation in a body and is no part of how its text goes on.
LATER_FIELDS = re.compile(rb'"(?:tools|response_format|json_schema|stop|logit_bias)"\s*:')
# OpenAI's two, the one of several routers, and Anthropic's in `metadata`; what names a conversation goes first.
SESSION_FIELDS = {
    name: re.compile(rb'"%b"\s*:\s*"([^"\\]{1,256})"' % name)
    for name in (b"prompt_cache_key", b"session_id", b"user_id", b"user")
}


def blocks_of(body: bytes, field: str, seed: str) -> tuple[int, ...]:
    """Return the hash of each whole block of what stands in `field`, each one over all that came before.

    `seed` is what makes equal texts different prompts: the model and its adapter. The hashes hold in this process only.
    """
    name = f'"{field}"'.encode()
    begin = body.find(name)
    if begin < 0:
        return ()
    begin += len(name)
    later = LATER_FIELDS.search(body, begin)
    end = min(later.start() if later else len(body), begin + MOST_BLOCKS * BLOCK_BYTES)
    chain = hash(seed)
    found = []
    for at in range(begin, end - BLOCK_BYTES + 1, BLOCK_BYTES):
        chain = hash((chain, body[at : at + BLOCK_BYTES]))
        found.append(chain)
    return tuple(found)


def session_of(body: bytes) -> str:
    """Return what a request says of the conversation, or at least the person, it belongs to; or nothing."""
    for name, field in SESSION_FIELDS.items():
        if name in body and (value := field.search(body)):
            return value[1].decode("utf-8", "replace")
    return ""
