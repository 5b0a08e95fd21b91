"""What is kept of a token sequence that has outgrown its context: its start and its newest part."""

from __future__ import annotations

from array import array


def crop(tokens: array[int], num_ctx: int, num_keep: int) -> array[int]:
    """The first num_keep tokens and the newest of the rest, so that about half of what is not kept is free again."""
    keep = kept(num_ctx, num_keep)
    tail = max((num_ctx - keep) // 2, 1)
    return tokens[:keep] + tokens[max(len(tokens) - tail, keep) :]


def kept(num_ctx: int, num_keep: int) -> int:
    """Tokens at the start that a shift leaves alone: one newer token must fit beside them, and room for another."""
    return min(max(num_keep, 0), max(num_ctx - 2, 0))
