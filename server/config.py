"""The server's settings, read once from the environment; nothing else looks at OLLAMA_* variables.

Values are trimmed of spaces and quotes, as Ollama does. A value that cannot be understood falls back to the
default with a warning: a typing mistake in a unit file must not keep the server from starting.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from server.times import FOREVER, SECOND, DurationError, parse_duration

log = logging.getLogger(__name__)

DEFAULT_PORT = 11434
DEFAULT_CONTEXT = 4096
#: The engine batches its sequences: more at a time cost little, and each needs its own KV memory.
DEFAULT_PARALLEL = 4
DEFAULT_KEEP_ALIVE_NS = 300 * SECOND
DEFAULT_KV_TYPE = "f16"
KV_TYPES = ("f16", "q8_0", "f32")

#: variable -> what it means; `serve --help` prints this table.
VARIABLES = {
    "OLLAMA_HOST": "address to listen on, [scheme://]host[:port] (default 127.0.0.1:11434)",
    "OLLAMA_MODELS": "folder of the model store (default ~/.ollama/models)",
    "OLLAMA_KEEP_ALIVE": "time an idle model stays loaded, e.g. 10m or 600; negative = for ever (default 5m)",
    "OLLAMA_CONTEXT_LENGTH": f"context size when a request names none (default {DEFAULT_CONTEXT})",
    "OLLAMA_KV_CACHE_TYPE": "type of the KV cache: f16, q8_0 (half the memory) or f32 (default f16)",
    "OLLAMA_NUM_PARALLEL": f"generations that one model runs at the same time (default {DEFAULT_PARALLEL})",
    "OLLAMA_MAX_LOADED_MODELS": "models held in memory at the same time (default 3)",
    "OLLAMA_MAX_QUEUE": "requests that may wait for a model before new ones get 503 (default 512)",
    "OLLAMA_ORIGINS": "additional web origins to accept, comma separated, one * in each",
    "OLLAMA_NOPRUNE": "1 keeps blobs that no model uses (default 0)",
    "OLLAMA_DEBUG": "1 logs requests and model loads, 2 logs more",
    "OLLAMACORE_THREADS": "compute threads (default: one per core)",
}


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting of a server."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    models: Path = Path("~/.ollama/models")
    keep_alive_ns: int = DEFAULT_KEEP_ALIVE_NS
    context_length: int = DEFAULT_CONTEXT
    kv_type: str = DEFAULT_KV_TYPE
    origins: tuple[str, ...] = ()
    prune: bool = True
    debug: int = 0
    num_parallel: int = DEFAULT_PARALLEL
    max_loaded_models: int = 3
    max_queue: int = 512
    threads: int | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the listener; the Host header is checked only then."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Config":
        """Read the settings from environment variables."""
        env = {name: clean(environ.get(name, "")) for name in VARIABLES}
        host, port = parse_host(env["OLLAMA_HOST"])
        models = env["OLLAMA_MODELS"] or "~/.ollama/models"
        origins = tuple(clean(part) for part in env["OLLAMA_ORIGINS"].split(",") if clean(part))
        return cls(
            host=host,
            port=port,
            models=Path(models).expanduser(),
            keep_alive_ns=_keep_alive(env["OLLAMA_KEEP_ALIVE"]),
            context_length=_number(env, "OLLAMA_CONTEXT_LENGTH", 0) or DEFAULT_CONTEXT,
            kv_type=_kv_type(env["OLLAMA_KV_CACHE_TYPE"]),
            origins=origins,
            prune=not _level(env["OLLAMA_NOPRUNE"]),
            debug=_level(env["OLLAMA_DEBUG"]),
            num_parallel=_number(env, "OLLAMA_NUM_PARALLEL", 0) or DEFAULT_PARALLEL,
            max_loaded_models=_number(env, "OLLAMA_MAX_LOADED_MODELS", 0) or 3,
            max_queue=_number(env, "OLLAMA_MAX_QUEUE", 512),
            threads=_number(env, "OLLAMACORE_THREADS", 0) or None,
        )


def clean(value: str) -> str:
    """Trim spaces and then quotes, as Ollama does with every variable."""
    return value.strip().strip("\"'")


def parse_host(value: str) -> tuple[str, int]:
    """Split ``[scheme://]host[:port][/path]`` into host and port; an empty host means every interface."""
    scheme, found, rest = value.strip().partition("://")
    if not found:
        scheme, rest = "", value.strip()
    default = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT)
    authority = rest.split("/", 1)[0]
    if not authority:
        return "127.0.0.1", default
    host, port = _split_authority(authority)
    if port is None:
        return host or "127.0.0.1", default
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        log.warning("OLLAMA_HOST: invalid port %r, using %d", port, default)
        return host, default
    return host, int(port)


def _split_authority(authority: str) -> tuple[str, str | None]:
    """Host and port text of ``host``, ``host:port``, ``[v6]``, ``[v6]:port`` or a bare IPv6 address."""
    if authority.startswith("["):
        host, _, tail = authority[1:].partition("]")
        return host, tail[1:] if tail.startswith(":") else None
    if authority.count(":") > 1:
        return authority, None
    host, found, port = authority.partition(":")
    return host, port if found else None


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    """A whole number >= 0, or the default with a warning."""
    text = env[name]
    if not text:
        return default
    if text.isascii() and text.isdigit():
        return int(text)
    log.warning("%s: %r is not a whole number, using %d", name, text, default)
    return default


def _kv_type(text: str) -> str:
    """OLLAMA_KV_CACHE_TYPE; like Ollama, f16 for a name that is not known. q4_0 gets the smallest there is."""
    kind = text.lower() or DEFAULT_KV_TYPE
    if kind in KV_TYPES:
        return kind
    used = "q8_0" if kind == "q4_0" else DEFAULT_KV_TYPE
    log.warning("OLLAMA_KV_CACHE_TYPE: %r is not supported, using %s", text, used)
    return used


def _keep_alive(text: str) -> int:
    """OLLAMA_KEEP_ALIVE in nanoseconds."""
    if not text:
        return DEFAULT_KEEP_ALIVE_NS
    try:
        ns = int(text) * SECOND if text.lstrip("+-").isdigit() else parse_duration(text)
    except DurationError as error:
        log.warning("OLLAMA_KEEP_ALIVE: %s, using 5m", error)
        return DEFAULT_KEEP_ALIVE_NS
    return FOREVER if ns < 0 or ns > FOREVER else ns


def _level(text: str) -> int:
    """A switch, perhaps with a level: a number, or any word that does not mean no."""
    if text.isascii() and text.isdigit():
        return min(int(text), 2)
    return 0 if text.lower() in {"", "f", "false", "no", "off"} else 1
