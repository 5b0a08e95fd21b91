"""Prompt tokens beside streams follow what steps have taken."""

import pytest

from ollamacore.pace import CHUNK, FIRST, LEAST, MOST, PAUSE, SLOWDOWN, Pace

STAGES = 24


def measured(alone, token, streams=1, steps=30):
    """A pace that has seen an engine with these times, its own choices included."""
    pace = Pace(STAGES)
    pace.note(streams, 0, alone)
    for _ in range(steps):
        tokens = pace.room(streams)
        pace.note(streams, tokens, alone + token * tokens)
    return pace


def test_nothing_is_known_at_first():
    pace = Pace(STAGES)
    assert pace.room(1) == FIRST
    pace.note(0, 256, 1.0)
    assert pace.room(1) == FIRST, "a prompt alone says nothing about streams"


@pytest.mark.parametrize(
    ("token", "expected"), [(0.1, 14.985), (0.01, MOST), (0.25, 5.994), (0.4, 3.74625), (100.0, LEAST)]
)
def test_room_keeps_the_step_within_the_slowdown(token, expected):
    pace = measured(1.0, token, steps=80)
    assert pace.room(1) == pytest.approx(expected)
    if LEAST < expected < MOST:
        assert 1.0 + token * pace.room(1) == pytest.approx(SLOWDOWN - PAUSE)


def test_a_step_that_gets_memory_has_less_room():
    pace = measured(1.0, 0.1, steps=80)
    usual = pace.room(1)
    assert pace.room(1, gets_memory=True) == usual, "nothing is known of it"
    pace.note(1, 4, 1.0 + 4 * 0.1 + 0.5, gets_memory=True)
    assert 0.5 + 1.0 + 0.1 * pace.room(1, gets_memory=True) == pytest.approx(SLOWDOWN - PAUSE)
    assert pace.room(1) == usual, "others have what they had"
    pace.note(1, 0, 6.0, gets_memory=True)
    assert pace.room(1, gets_memory=True) == 0
    assert pace.stages(0, CHUNK) == 0, "what was begun waits"


def test_prompt_moves_on_even_if_steps_are_long():
    assert measured(1.0, 100.0).room(1) == LEAST
    assert Pace(STAGES).stages(0.01, CHUNK) == 1


def test_short_steps_may_take_twice_as_long():
    assert measured(0.002, 0.0005, steps=80).room(1) == pytest.approx(4)


@pytest.mark.parametrize("room", [0.01, 0.5, 1, 1.9, 3.6, 15, 31.9, 32, 33, 50, 64])
@pytest.mark.parametrize("n_stages", [1, 2, 6, 24, 80])
def test_chunk_and_its_stages_are_no_more_than_there_is_room_for(room, n_stages):
    pace = Pace(n_stages)
    tokens = pace.chunk(room)
    stages = pace.stages(room, tokens)
    assert tokens * stages / n_stages <= room or (tokens, stages) == (1, 1)
    assert tokens <= CHUNK or stages == n_stages, "larger chunks go through at once"
    if room * n_stages >= CHUNK:
        assert tokens >= CHUNK, "keys are read for that many"
        assert tokens * (stages + 1) / n_stages > min(room, tokens), "room is used"


def test_end_of_a_prompt_goes_through_in_as_few_steps_as_there_is_room_for():
    pace = Pace(24)
    assert (pace.stages(3.0, 6), pace.stages(3.0, 3), pace.stages(3.0, 1)) == (12, 24, 24)


def test_prompt_among_many_streams_moves_on_by_more():
    assert measured(1.0, 100.0, streams=8).room(8) == 4


def test_pause_of_the_machine_counts_little():
    pace = measured(1.0, 0.1, steps=80)
    before = pace.room(1)
    pace.note(1, 0, 45.0)
    pace.note(1, before, 45.0)
    assert pace.room(1) >= before // 4


def test_pauses_do_not_make_steps_of_streams_seem_longer():
    pace = measured(1.0, 0.1, steps=80)
    before = pace.room(1)
    for i in range(300):
        pace.note(1, 0, (0.95, 1.0, 1.0, 1.05, 3.0)[i % 5])
    assert pace.room(1) == pytest.approx(before, rel=0.1)


def test_chunk_shrinks_while_a_prompt_grows_deeper_and_recovers():
    pace = measured(1.0, 0.04, steps=200)
    shallow = pace.room(1)
    for depth in range(50):
        pace.note(1, 16, 1.0 + 16 * 0.01 * depth)
    deep = pace.room(1)
    for _ in range(200):
        pace.note(1, deep, 1.0 + deep * 0.04)
    assert LEAST <= deep < shallow
    assert pace.room(1) == pytest.approx(shallow)


def test_mean_of_a_lone_stream_counts_at_once():
    pace = measured(1.0, 0.1, steps=80)
    pace.know(1, 0.5)
    assert pace.room(1) == pytest.approx(((SLOWDOWN - 1) * 0.5 - PAUSE) / 0.1)


def test_more_streams_allow_more():
    pace = measured(1.0, 0.1)
    pace.note(8, 0, 3.0)
    assert pace.room(8) > pace.room(1)
    assert pace.room(7) == pace.room(8), "the nearest number that was seen"


def test_one_slow_step_does_not_decide():
    pace = measured(1.0, 0.05)
    before = pace.room(1)
    pace.note(1, before, 3.0)
    assert pace.room(1) >= before // 2
