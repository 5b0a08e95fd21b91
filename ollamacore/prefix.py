"""The prefix cache: KV blocks of earlier generations, found by the tokens they were computed from.

A tree with one node per block of 32 tokens: a path from the root is a prefix, a node holds one reference to its block.
A new generation takes the blocks of the longest path that its prompt begins with; they are bit for bit what it would
have computed. Blocks that no sequence uses are given back, least recently used first, when the pool needs room or the
cache has reached its limit.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from ollamacore._core import Engine, Sequence

#: tokens of one KV block
BLOCK = 32


@dataclass(slots=True, eq=False)
class _Node:
    parent: _Node | None
    key: bytes  # the block's 32 tokens
    block: int
    used: int = 0  # the clock at its last use
    children: dict[bytes, _Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """A cached block outside of the tree."""

    parent: int  # place of the parent in the list of entries; -1: none
    tokens: bytes
    block: int


class PrefixCache:
    """One engine's cached prefixes, at most `limit` blocks. Used by the engine's thread only."""

    def __init__(self, engine: Engine, limit: int) -> None:
        self._engine = engine
        self.limit = limit
        self._root = _Node(None, b"", -1)
        self._nodes: set[_Node] = set()
        self._clock = 0
        #: blocks given back so far, because the pool or the cache was full
        self.evictions = 0

    def __len__(self) -> int:
        """Blocks in the cache."""
        return len(self._nodes)

    @property
    def reclaimable(self) -> int:
        """Blocks that `reclaim` could give back now."""
        return sum(self._engine.block_references(node.block) == 1 for node in list(self._nodes))

    def find(self, tokens: array[int]) -> array[int]:
        """Blocks of the longest cached prefix that leaves at least one token to compute."""
        self._clock += 1
        blocks = array("i")
        node = self._root
        for key in _keys(tokens[: len(tokens) - 1]):
            child = node.children.get(key)
            if child is None:
                break
            child.used = self._clock
            blocks.append(child.block)
            node = child
        return blocks

    def add(self, tokens: array[int], sequence: Sequence) -> None:
        """Keep the whole blocks of a sequence that was computed from `tokens`."""
        self._clock += 1
        node = self._root
        for key, block in zip(_keys(tokens), sequence.blocks(), strict=False):
            child = node.children.get(key)
            if child is None:
                self._engine.retain_block(block)
                child = node.children[key] = _Node(node, key, block)
                self._nodes.add(child)
            child.used = self._clock
            node = child
        self.trim()

    def trim(self) -> None:
        """Give back what is beyond the limit and in nobody's use."""
        self.reclaim(len(self._nodes) - self.limit)

    def reclaim(self, wanted: int) -> int:
        """Give up to `wanted` blocks back to the pool; returns how many."""
        given = 0
        while given < wanted:
            leaves = [n for n in self._nodes if not n.children and self._engine.block_references(n.block) == 1]
            if not leaves:
                break
            leaves.sort(key=lambda node: node.used)
            for leaf in leaves[: wanted - given]:
                self._drop(leaf)
                given += 1
        self.evictions += given
        return given

    def clear(self) -> None:
        """Give up every block."""
        for node in self._nodes:
            self._engine.release_block(node.block)
        self._nodes.clear()
        self._root.children.clear()

    def entries(self, most: int) -> list[Entry]:
        """The most recently used blocks, parents before their children."""
        paths = [self._root]
        for node in paths:  # grows while it is walked
            paths.extend(node.children.values())
        newest = sorted(paths[1:], key=lambda node: -node.used)[:most]  # a parent is used whenever its child is
        places: dict[_Node | None, int] = {node: place for place, node in enumerate(newest)}
        return [Entry(places.get(node.parent, -1), node.key, node.block) for node in newest]

    def restore(self, entries: list[Entry]) -> None:
        """Fill an empty cache with entries; it takes over one reference to each block."""
        nodes: list[_Node] = []
        for place, entry in enumerate(entries):
            parent = nodes[entry.parent] if entry.parent >= 0 else self._root
            node = parent.children[entry.tokens] = _Node(parent, entry.tokens, entry.block, used=-place)
            nodes.append(node)
        self._nodes.update(nodes)

    def _drop(self, leaf: _Node) -> None:
        self._nodes.remove(leaf)
        if leaf.parent is not None:
            del leaf.parent.children[leaf.key]
        self._engine.release_block(leaf.block)


def _keys(tokens: array[int]) -> Iterator[bytes]:
    """The whole blocks of a token sequence, as dictionary keys."""
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        yield tokens[start : start + BLOCK].tobytes()
