"""Prompt tokens beside streams follow what steps have taken."""

import pytest

from ollamacore.pace import FIRST, LEAST, MOST, SLOWDOWN, Pace


def measured(alone, token, streams=1, steps=30):
    """A pace that has seen an engine with these times, its own choices included."""
    pace = Pace()
    pace.note(streams, 0, alone)
    for _ in range(steps):
        tokens = pace.prompt_tokens(streams)
        pace.note(streams, tokens, alone + token * tokens)
    return pace


def test_nothing_is_known_at_first():
    pace = Pace()
    assert pace.prompt_tokens(1) == FIRST
    pace.note(0, 256, 1.0)
    assert pace.prompt_tokens(1) == FIRST, "a prompt alone says nothing about streams"


@pytest.mark.parametrize(("token", "expected"), [(0.1, 8), (0.01, MOST), (0.25, 3), (0.4, 2), (100.0, LEAST)])
def test_chunk_keeps_the_step_within_the_slowdown(token, expected):
    pace = measured(1.0, token, steps=80)
    assert pace.prompt_tokens(1) == expected
    if LEAST < expected < MOST:
        assert 1.0 + token * expected <= SLOWDOWN


def test_prompt_among_many_streams_moves_on_by_more():
    pace = measured(1.0, 100.0, streams=8)
    assert pace.prompt_tokens(8) == 4


def test_pause_of_the_machine_counts_little():
    pace = measured(1.0, 0.1, steps=80)
    before = pace.prompt_tokens(1)
    pace.note(1, 0, 45.0)
    pace.note(1, before, 45.0)
    assert pace.prompt_tokens(1) >= before // 4


def test_chunk_shrinks_while_a_prompt_grows_deeper_and_recovers():
    pace = measured(1.0, 0.04, steps=200)
    shallow = pace.prompt_tokens(1)
    for depth in range(50):
        pace.note(1, 16, 1.0 + 16 * 0.01 * depth)
    deep = pace.prompt_tokens(1)
    for _ in range(200):
        pace.note(1, deep, 1.0 + deep * 0.04)
    assert LEAST <= deep < shallow == pace.prompt_tokens(1)


def test_mean_of_a_lone_stream_counts_at_once():
    pace = measured(1.0, 0.1, steps=80)
    pace.know(1, 0.5)
    assert pace.prompt_tokens(1) == int((SLOWDOWN - 1) * 0.5 / 0.1)


def test_more_streams_allow_more():
    pace = measured(1.0, 0.1)
    pace.note(8, 0, 3.0)
    assert pace.prompt_tokens(8) > pace.prompt_tokens(1)
    assert pace.prompt_tokens(7) == pace.prompt_tokens(8), "the nearest number that was seen"


def test_one_slow_step_does_not_decide():
    pace = measured(1.0, 0.05)
    before = pace.prompt_tokens(1)
    pace.note(1, before, 3.0)
    assert pace.prompt_tokens(1) >= before // 2
