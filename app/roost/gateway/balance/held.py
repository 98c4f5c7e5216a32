"""What a model server's slots and its cache of prompts probably hold: conversations, bounded, oldest out first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

CONVERSATIONS = 64  # of one endpoint; its host memory keeps more of them than it has slots
MOST_BLOCKS = 8192  # of one endpoint: 1 MiB of text
OTHER_END_BLOCKS = 2  # the last block of a prompt also has what closes the JSON
OTHER_END_SHARE = 0.15


@dataclass(eq=False)
class _Conversation:
    blocks: Sequence[int]


@dataclass
class _Node:
    """One block: in how many conversations it is, and the newest of them while that is there."""

    count: int
    owner: _Conversation | None


@dataclass(frozen=True)
class Match:
    """How many blocks of a prompt are held; whether the prompt goes on with a conversation, or branches off one."""

    blocks: int = 0
    continues: bool = False


NOTHING = Match()


class Held:
    """What one endpoint holds. Each conversation counts with all blocks of its last prompt."""

    def __init__(self, conversations: int = CONVERSATIONS, blocks: int = MOST_BLOCKS) -> None:
        self._most = conversations
        self._most_blocks = blocks
        self._nodes: dict[int, _Node] = {}
        self._conversations: OrderedDict[int, _Conversation] = OrderedDict()  # by identity, longest unused first

    def __len__(self) -> int:
        """Return how many conversations there are."""
        return len(self._conversations)

    @property
    def blocks(self) -> int:
        """Return how many different blocks there are."""
        return len(self._nodes)

    def match(self, blocks: Sequence[int]) -> Match:
        """Say how much of a prompt is held. Each hash covers all before it, so the held ones come first."""
        low, high = 0, len(blocks)
        while low < high:
            middle = (low + high + 1) // 2
            if blocks[middle - 1] in self._nodes:
                low = middle
            else:
                high = middle - 1
        if not low:
            return NOTHING
        owner = self._nodes[blocks[low - 1]].owner
        return Match(low, owner is not None and _nearly(low, len(owner.blocks)))

    def add(self, blocks: Sequence[int]) -> None:
        """Take note that the endpoint gets this prompt; it replaces the conversation that it goes on with."""
        if not blocks:
            return
        blocks = blocks[: self._most_blocks]
        match = self.match(blocks)
        new = _Conversation(blocks)
        before = self._nodes[blocks[match.blocks - 1]].owner if match.continues else None
        for block in blocks:
            node = self._nodes.get(block)
            if node:
                node.count += 1
                node.owner = new
            else:
                self._nodes[block] = _Node(1, new)
        self._conversations[id(new)] = new
        if before:
            self._drop(before)
        self._fit(self._most)

    def shrink(self, *, conversations: int | None = None, blocks: int | None = None) -> None:
        """Keep only so many of the newest conversations now, or so many blocks from now on."""
        self._most_blocks = self._most_blocks if blocks is None else blocks
        self._fit(self._most if conversations is None else conversations)

    def clear(self) -> None:
        """Take note that the endpoint lost everything."""
        self._nodes.clear()
        self._conversations.clear()

    def _fit(self, conversations: int) -> None:
        while len(self._conversations) > conversations or len(self._nodes) > self._most_blocks:
            self._drop(next(iter(self._conversations.values())))

    def _drop(self, conversation: _Conversation) -> None:
        del self._conversations[id(conversation)]
        for block in conversation.blocks:
            node = self._nodes[block]
            node.count -= 1
            if not node.count:
                del self._nodes[block]
            elif node.owner is conversation:
                node.owner = None


def _nearly(held: int, whole: int) -> bool:
    return whole - held <= max(OTHER_END_BLOCKS, whole * OTHER_END_SHARE)
