"""Times as Ollama writes and reads them: RFC 3339 with trimmed nanoseconds, Go durations, keep_alive values.

A duration is an integer of nanoseconds everywhere in the server; FOREVER stands for "never".
"""

import math
import re
import time
from datetime import UTC, datetime, timedelta

#: The longest duration, about 292 years; Ollama reports it as an expiry in the year 2318.
FOREVER = 2**63 - 1
SECOND = 1_000_000_000

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
}
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")


class DurationError(ValueError):
    """A duration or keep_alive value that cannot be understood; the text is the one Ollama gives."""


def _seconds(moment: datetime) -> str:
    """The date and time of day, without fraction and zone."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S")


def _fraction(ns: int) -> str:
    """Up to nine digits after the point, trailing zeros trimmed; nothing for a whole second."""
    return f".{ns:09d}".rstrip("0") if ns else ""


def format_utc(ns: int) -> str:
    """Write nanoseconds since the epoch as UTC, e.g. ``2026-08-21T10:00:00.2Z``."""
    seconds, rest = divmod(ns, SECOND)
    return f"{_seconds(datetime.fromtimestamp(seconds, UTC))}{_fraction(rest)}Z"


def format_local_ns(ns: int) -> str:
    """Write nanoseconds since the epoch in the server's own zone."""
    seconds, rest = divmod(ns, SECOND)
    return _with_zone(datetime.fromtimestamp(seconds, UTC).astimezone(), rest)


def format_now() -> str:
    """Write the present moment as UTC."""
    return format_utc(time.time_ns())


def format_local(moment: datetime) -> str:
    """Write an aware moment in the server's own zone, e.g. ``2026-08-21T12:00:00.5+02:00``."""
    local = moment.astimezone()
    return _with_zone(local, local.microsecond * 1000)


def _with_zone(local: datetime, ns: int) -> str:
    """Date, time, fraction and the offset of a moment in the server's zone."""
    offset = local.utcoffset() or timedelta(0)
    minutes = round(offset.total_seconds() / 60)
    hours, rest = divmod(abs(minutes), 60)
    zone = f"{'-' if minutes < 0 else '+'}{hours:02d}:{rest:02d}" if minutes else "Z"
    return f"{_seconds(local)}{_fraction(ns)}{zone}"


def parse_duration(text: str) -> int:
    """Read a Go duration such as ``1h30m``, ``-1.5s`` or ``0`` into nanoseconds."""
    shown = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    negative = text.startswith("-")
    rest = text[1:] if text[:1] in {"-", "+"} else text
    if rest == "0":
        return 0
    if not rest:
        raise DurationError(f"time: invalid duration {shown}")
    total = 0
    while rest:
        match = _PART.match(rest)
        if match is None or not (match[1] or match[2]):
            raise DurationError(f"time: invalid duration {shown}")
        whole, fraction, unit = match[1], match[2] or "", match[3]
        if not unit:
            raise DurationError(f"time: missing unit in duration {shown}")
        if unit not in _UNITS:
            raise DurationError(f'time: unknown unit "{unit}" in duration {shown}')
        total += int(whole or "0") * _UNITS[unit]
        total += int(fraction or "0") * _UNITS[unit] // 10 ** len(fraction)
        if total > FOREVER:
            raise DurationError(f"time: invalid duration {shown}")
        rest = rest[match.end() :]
    return -total if negative else total


def keep_alive_of(value: object) -> int:
    """Read a JSON keep_alive: a number of seconds or a Go duration; every negative value means for ever."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise DurationError(f"Unsupported type: '{_go_type(value)}'")
    if isinstance(value, str):
        ns = parse_duration(value)
        return FOREVER if ns < 0 else ns
    if value < 0 or math.isinf(value) or value * SECOND > FOREVER:
        return FOREVER
    return int(value * SECOND)


def _go_type(value: object) -> str:
    """The name Go prints for the type that a JSON value decodes to."""
    if isinstance(value, bool):
        return "bool"
    return "[]interface {}" if isinstance(value, list) else "map[string]interface {}"
