"""API keys: who may come in.

Keys are compared as SHA-256 digests in constant time, all of them every time, so that an answer's time tells nothing
about how near a guess was.
"""

import hmac
from collections.abc import Iterable
from hashlib import sha256

from server.http import Headers, Response, json_response

#: what tells a client or a supervisor that the server lives, and gives nothing away
OPEN_PATHS = frozenset({"/", "/api/version"})


class ApiKeys:
    """The keys that open a server; without any, everybody may come in."""

    def __init__(self, keys: Iterable[str]):
        self._digests = tuple(_digest(key) for key in keys)

    def admit(self, path: str, headers: Headers) -> bool:
        """Whether a request may go on: its path is open to all, or it brings a key.

        The key stands in `Authorization: Bearer` (Ollama's and OpenAI's clients) or `x-api-key` (Anthropic's).
        """
        if not self._digests or path in OPEN_PATHS:
            return True
        scheme, _, token = (headers.get("authorization") or "").partition(" ")
        candidates = [token.strip() if scheme.lower() == "bearer" else "", (headers.get("x-api-key") or "").strip()]
        return any([self._knows(candidate) for candidate in candidates])  # noqa: C419  all are looked at

    def _knows(self, key: str) -> bool:
        given = _digest(key)
        return any([hmac.compare_digest(given, known) for known in self._digests]) and bool(key)  # noqa: C419

    @staticmethod
    def refusal() -> Response:
        """The answer to a request without a key."""
        return json_response({"error": "unauthorized"}, 401, (("WWW-Authenticate", "Bearer"),))


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()
