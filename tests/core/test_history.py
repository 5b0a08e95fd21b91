"""Truncation of a conversation to what fits the context."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamacore.errors import TemplateError
from ollamacore.prompt.history import truncate


def message(role: str, content: str) -> dict:
    return {"role": role, "content": content}


class Counter:
    """Counts the characters of a conversation, and how often it is asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self, messages):
        self.calls += 1
        return sum(len(m["content"]) + 2 for m in messages)


CHAT = [
    message("system", "s" * 8),
    message("user", "a" * 8),
    message("assistant", "b" * 8),
    message("system", "t" * 8),
    message("user", "c" * 8),
]


@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        (50, "sabtc"),
        (49, "sbtc"),
        (40, "sbtc"),
        (39, "stc"),
        (30, "stc"),
        (29, "stc"),
        (0, "stc"),
    ],
)
def test_truncate_drops_from_the_front_and_keeps_system_and_last(limit, kept):
    assert "".join(m["content"][0] for m in truncate(CHAT, limit, Counter())) == kept


def test_truncate_of_nothing_and_of_one_message():
    assert truncate([], 0, Counter()) == []
    assert truncate([message("user", "x" * 99)], 1, Counter()) == [message("user", "x" * 99)]


def test_truncate_leaves_the_messages_alone():
    before = [dict(m) for m in CHAT]
    found = truncate(CHAT, 30, Counter())
    assert before == CHAT
    assert found is not CHAT


def test_truncate_asks_once_when_everything_fits():
    counter = Counter()
    truncate(CHAT, 50, counter)
    assert counter.calls == 1


def test_truncate_asks_rarely():
    counter = Counter()
    chat = [message("user", "x") for _ in range(1000)]
    assert len(truncate(chat, 300, counter)) == 100
    assert counter.calls <= 11


def test_truncate_passes_errors_of_the_template_on():
    def fails(messages):
        raise TemplateError("no")

    with pytest.raises(TemplateError):
        truncate(CHAT, 10, fails)


@given(
    st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.integers(0, 9)), max_size=12),
    st.integers(0, 80),
)
def test_truncate_equals_dropping_one_by_one(shape, limit):
    chat = [message(role, "x" * size) for role, size in shape]
    expected = chat
    for first in range(1, len(chat)):
        if Counter()(expected) <= limit:
            break
        expected = [m for m in chat[:first] if m["role"] == "system"] + chat[first:]
    assert truncate(chat, limit, Counter()) == expected
