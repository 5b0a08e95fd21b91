"""Which browsers may talk to the server: CORS answers and the Host check against DNS rebinding.

Both answer with an empty 403. The Host check applies only while the listener is a loopback address.
"""

import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

ALLOWED_METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
ALLOWED_HEADERS = ",".join([
    "Authorization", "Content-Type", "User-Agent", "Accept", "X-Requested-With", "OpenAI-Beta",
    *(f"x-stainless-{name}" for name in (
        "arch", "async", "custom-poll-interval", "helper-method", "lang", "os",
        "package-version", "poll-helper", "retry-count", "runtime", "runtime-version", "timeout",
    )),
])  # fmt: skip
MAX_AGE_S = 43200

_LOCAL_NAMES = ("localhost", "127.0.0.1", "0.0.0.0")
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")


def default_origins() -> list[str]:
    """The origins that are always accepted: this machine, and the schemes of desktop applications."""
    schemes, ports = ("http", "https"), ("", ":*")
    web = [f"{scheme}://{name}{port}" for name in _LOCAL_NAMES for scheme in schemes for port in ports]
    return [*web, "app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*"]


class Origins:
    """The list of accepted origins; one ``*`` in a pattern stands for any text."""

    def __init__(self, extra: Iterable[str] = ()):
        patterns = [*extra, *default_origins()]
        self.allow_all = "*" in patterns
        self._exact = {pattern.lower() for pattern in patterns if "*" not in pattern}
        self._wild = [_wildcard(pattern.lower()) for pattern in patterns if "*" in pattern]

    def allows(self, origin: str) -> bool:
        """Whether a browser page of this origin may call the server."""
        folded = origin.lower()
        return self.allow_all or folded in self._exact or any(p.fullmatch(folded) for p in self._wild)

    def headers(self, origin: str) -> list[tuple[str, str]]:
        """The headers of an accepted cross-origin answer."""
        if self.allow_all:
            return [("Access-Control-Allow-Origin", "*")]
        return [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]

    def preflight_headers(self, origin: str) -> list[tuple[str, str]]:
        """The headers of the 204 answer to a preflight request."""
        return [
            *self.headers(origin),
            ("Access-Control-Allow-Methods", ALLOWED_METHODS),
            ("Access-Control-Allow-Headers", ALLOWED_HEADERS),
            ("Access-Control-Max-Age", str(MAX_AGE_S)),
        ]


def is_cross_origin(origin: str, host: str) -> bool:
    """Whether a request with these Origin and Host headers needs CORS treatment at all."""
    return bool(origin) and origin not in {f"http://{host}", f"https://{host}"}


def host_is_allowed(host_header: str) -> bool:
    """Whether a Host header names this machine: the rule against DNS rebinding on a loopback listener."""
    name, is_local = _judge(host_header)
    return is_local if is_local is not None else _is_own_address(name)


@lru_cache(maxsize=256)
def _judge(host_header: str) -> tuple[str, bool | None]:
    """The name in a Host header and whether it is allowed; None: if it is an address of this machine today."""
    name = _host_name(host_header)
    if name is None:
        return "", False
    if not name or name == "localhost" or name.endswith(_LOCAL_SUFFIXES):
        return name, True
    try:
        address = ip_address(name)
    except ValueError:
        return name, name == socket.gethostname().lower()
    return name, address.is_loopback or address.is_private or address.is_unspecified or None


def _host_name(host_header: str) -> str | None:
    """The name in a Host header without port and brackets, lower case; None if it cannot be read."""
    try:
        split = urlsplit(f"//{host_header}")
        _ = split.port
    except ValueError:
        return None
    return (split.hostname or "").rstrip(".")


def _is_own_address(name: str) -> bool:
    """Whether an address belongs to one of this machine's interfaces."""
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((name, 0))
        except OSError:
            return False
    return True


def _wildcard(pattern: str) -> re.Pattern[str]:
    """A pattern whose first ``*`` stands for any text."""
    before, _, after = pattern.partition("*")
    return re.compile(f"{re.escape(before)}.*{re.escape(after)}", re.DOTALL)
