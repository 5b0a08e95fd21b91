"""The prefix cache: KV blocks of earlier generations, found by the tokens they were computed from.

A tree with one node per block of 32 tokens: a path from the root is a prefix, a node holds one reference to its block.
A new generation takes the blocks of the longest path that its prompt begins with, and of one block more the positions
that agree: the engine copies that block before it writes behind them. They are bit for bit what it would have computed.
The block with which a generation ends may be filled in part; such a node has no children. Blocks that no sequence uses
are given back, least recently used first, when the pool needs room or the cache has reached its limit.

Where sequences have recurrent state, keys and values are of use only with the state at the same position, of which no
part can be taken. So nodes keep copies of it: where a prompt left the path of an earlier one, near the end of a prompt,
and where a generation ended. There are as many copies as the engine has room for; the one that was not used for longest
makes room for the next.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from ollamacore._core import Engine, Sequence

#: tokens of one KV block
BLOCK = 32
#: tokens at the end of a prompt in which the next one of a conversation may differ: what bids the model to answer
TAIL = 16
#: tokens that a state must save from being computed again
WORTH_A_STATE = 64
#: bytes of a token, and of a whole block's tokens, in a key
_TOKEN = array("i").itemsize
_WHOLE = _TOKEN * BLOCK


@dataclass(slots=True, eq=False)
class _Node:
    parent: _Node | None
    key: bytes  # the block's 32 tokens, or fewer
    block: int
    used: int = 0  # the clock at its last use
    state: int = -1  # the engine's copy of the recurrent state behind its tokens; -1: none
    state_used: int = 0  # the clock when it was made, or last resumed from
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
        self._has_state = engine.has_state
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

    def take(self, tokens: array[int], sequence: Sequence) -> list[int]:
        """Let an empty sequence begin with the longest cached prefix that leaves at least one token to compute.

        Returns the lengths, ascending, at which the sequence should be given to `add` on its way through the tokens.
        """
        self._clock += 1
        if self._has_state:
            return self._resume(tokens, sequence)
        blocks = array("i")
        node = self._root
        length = 0
        while length < len(tokens) - 1:
            rest = tokens[length : min(length + BLOCK, len(tokens) - 1)].tobytes()
            child = node.children.get(rest) or _nearest(node, rest)
            if child is None:
                break
            child.used = self._clock
            blocks.append(child.block)
            agreed = _agreement(child.key, rest)
            length += agreed
            if agreed < BLOCK:
                break
            node = child
        sequence.share(blocks)
        sequence.truncate(length)
        return []

    def _resume(self, tokens: array[int], sequence: Sequence) -> list[int]:
        """`take`, where there is state: as far as the last node on the path that has one."""
        node, path, most = self._root, array("i"), len(tokens) - 1
        last: _Node | None = None
        blocks, length = array("i"), 0
        while True:
            first = BLOCK * len(path)
            rest = tokens[first : min(first + BLOCK, most)].tobytes()
            saved = [c for c in node.children.values() if c.state >= 0 and rest.startswith(c.key)]
            if saved:
                last = max(saved, key=lambda child: len(child.key))
                blocks, length = path + array("i", [last.block]), first + len(last.key) // _TOKEN
            child = node.children.get(rest)
            if child is None or len(rest) < _WHOLE:
                break
            child.used = self._clock
            path.append(child.block)
            node = child
        if last is not None:
            sequence.resume(blocks, length, last.state)
            last.used = last.state_used = self._clock
        wanted = {BLOCK * len(path), (most - TAIL) // BLOCK * BLOCK}
        return sorted(mark for mark in wanted if mark >= length + WORTH_A_STATE)

    def add(self, tokens: array[int], sequence: Sequence, *, ended: bool) -> None:
        """Keep the blocks of a sequence that was computed from `tokens`: the whole ones until it has ended.

        And its state, if the last of them ends where the sequence does. A prefix that fills no block is not worth one.
        """
        self._clock += 1
        node, length = self._root, 0
        keys = _keys(tokens[: len(sequence)])
        for key, block in zip(keys, sequence.blocks(), strict=False):  # a draft may stand behind
            if len(key) < _WHOLE and not (ended and node is not self._root and self._adds(node, key)):
                break
            child = node.children.get(key)
            if child is None:
                child = self._insert(node, key, block)
            child.used = self._clock
            node = child
            length += len(key) // _TOKEN
        if self._has_state and length == len(sequence) > 0:
            self._save(node, sequence)
        self.trim()

    def _save(self, node: _Node, sequence: Sequence) -> None:
        """Keep the state of a sequence that ends where a node does, in place of the one not used for longest."""
        while node.state < 0:
            state = sequence.save()
            if state is not None:
                node.state = state
                break
            oldest = min((n for n in self._nodes if n.state >= 0), key=lambda n: n.state_used, default=None)
            if oldest is None:
                return
            self._forget(oldest)
        node.state_used = self._clock

    def _forget(self, node: _Node) -> None:
        """Give a state up; a node that is no whole block is of no use without."""
        if len(node.key) < _WHOLE:
            self._drop(node)
            return
        self._engine.release_state(node.state)
        node.state = -1

    def _insert(self, parent: _Node, key: bytes, block: int) -> _Node:
        """A new node, in place of those that are its beginning."""
        for child in list(parent.children.values()):
            if key.startswith(child.key) and child.state < 0:
                self._drop(child)
        self._engine.retain_block(block)
        node = parent.children[key] = _Node(parent, key, block)
        self._nodes.add(node)
        return node

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
            self._release(node)
        self._nodes.clear()
        self._root.children.clear()

    def entries(self, most: int) -> list[Entry]:
        """The most recently used whole blocks, parents before their children."""
        paths = [self._root]
        for node in paths:  # grows while it is walked
            paths.extend(node.children.values())
        whole = [node for node in paths[1:] if len(node.key) == _WHOLE]
        newest = sorted(whole, key=lambda node: -node.used)[:most]  # a parent is used whenever its child is
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
        self._release(leaf)

    def _release(self, node: _Node) -> None:
        self._engine.release_block(node.block)
        if node.state >= 0:
            self._engine.release_state(node.state)

    def _adds(self, node: _Node, key: bytes) -> bool:
        """Whether a short block has tokens that no child begins with; with state it has one of its own."""
        return self._has_state or not any(child.startswith(key) for child in node.children)


def _keys(tokens: array[int]) -> Iterator[bytes]:
    """The blocks of a token sequence, as dictionary keys; the last one may be short."""
    for start in range(0, len(tokens), BLOCK):
        yield tokens[start : start + BLOCK].tobytes()


def _nearest(node: _Node, rest: bytes) -> _Node | None:
    """The child that agrees longest with the tokens that come; None if none agrees in its first."""
    alike = [child for child in node.children.values() if child.key[:_TOKEN] == rest[:_TOKEN]]
    return max(alike, key=lambda child: _agreement(child.key, rest), default=None)


def _agreement(key: bytes, rest: bytes) -> int:
    """Tokens with which both begin."""
    length = min(len(key), len(rest)) // _TOKEN
    while key[: length * _TOKEN] != rest[: length * _TOKEN]:
        length -= 1
    return length
