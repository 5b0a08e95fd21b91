"""Times and durations in Go's forms."""

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.times import (
    FOREVER,
    SECOND,
    DurationError,
    format_local,
    format_utc,
    keep_alive_of,
    parse_duration,
)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_755_770_400_200_000_000, "2025-08-21T10:00:00.2Z"),
        (1_755_770_400_123_456_789, "2025-08-21T10:00:00.123456789Z"),
        (1_755_770_400_000_000_010, "2025-08-21T10:00:00.00000001Z"),
    ],
)
def test_format_utc_trims_zeros(ns, text):
    assert format_utc(ns) == text


@given(st.integers(0, 2**62))
def test_format_utc_is_read_back_by_python(ns):
    read = datetime.fromisoformat(format_utc(ns))
    assert abs((read - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1) - ns / 1000) < 256


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("UTC", "2025-08-21T10:00:00.5Z"),
        ("CET-2", "2025-08-21T12:00:00.5+02:00"),
        ("NST3:30", "2025-08-21T06:30:00.5-03:30"),
    ],
)
def test_format_local_shows_the_servers_offset(zone, text, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        moment = datetime(2025, 8, 21, 15, 0, 0, 500_000, tzinfo=timezone(timedelta(hours=5)))
        assert format_local(moment) == text
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("-0", 0),
        ("5m", 300 * SECOND),
        ("1h30m", 5400 * SECOND),
        ("1.5h", 5400 * SECOND),
        ("-1m", -60 * SECOND),
        ("+2s", 2 * SECOND),
        (".5s", SECOND // 2),
        ("1.s", SECOND),
        ("100ms", SECOND // 10),
        ("3us2ns", 3002),
        ("1µs", 1000),
        ("1m0.5s", 60_500_000_000),
    ],
)
def test_parse_duration_reads_gos_forms(text, ns):
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("300", 'time: missing unit in duration "300"'),
        ("-1", 'time: missing unit in duration "-1"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("m", 'time: invalid duration "m"'),
        (".s", 'time: invalid duration ".s"'),
        ("9999999h", 'time: invalid duration "9999999h"'),
        ("5 m", 'time: unknown unit " m" in duration "5 m"'),
    ],
)
def test_parse_duration_of_nonsense_uses_gos_words(text, message):
    with pytest.raises(DurationError) as caught:
        parse_duration(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        (0, 0),
        (30, 30 * SECOND),
        (0.5, SECOND // 2),
        (-1, FOREVER),
        (-0.1, FOREVER),
        ("-1m", FOREVER),
        ("0", 0),
        ("1h", 3600 * SECOND),
        (1e300, FOREVER),
    ],
)
def test_keep_alive_takes_seconds_and_durations(value, ns):
    assert keep_alive_of(value) == ns


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "Unsupported type: 'bool'"),
        ([1], "Unsupported type: '[]interface {}'"),
        ("300", "missing unit"),
    ],
)
def test_keep_alive_of_another_type_is_an_error(value, message):
    with pytest.raises(DurationError) as caught:
        keep_alive_of(value)
    assert message in str(caught.value)
