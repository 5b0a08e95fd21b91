"""The server's settings, read once from the environment; nothing else looks at OLLAMA_* variables.

Values are trimmed of spaces and quotes, as Ollama does. A value that cannot be understood falls back to the
default with a warning: a typing mistake in a unit file must not keep the server from starting. Keys and certificates
are the exception.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from server.times import FOREVER, SECOND, DurationError, parse_duration

log = logging.getLogger(__name__)

DEFAULT_PORT = 11434
DEFAULT_CONTEXT = 4096
DEFAULT_KEEP_ALIVE_NS = 300 * SECOND
DEFAULT_LOAD_TIMEOUT_NS = 300 * SECOND

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) *(?:([kmgt])(i)?)?b?", re.IGNORECASE)
DEFAULT_KV_TYPE = "f16"
KV_TYPES = ("f16", "q8_0", "f32")

#: variable -> what it means; `serve --help` prints this table.
VARIABLES = {
    "OLLAMA_HOST": "address to listen on, [scheme://]host[:port] or unix:/path (default 127.0.0.1:11434)",
    "OLLAMA_MODELS": "folder of the model store (default ~/.ollama/models)",
    "OLLAMA_KEEP_ALIVE": "time an idle model stays loaded, e.g. 10m or 600; negative = for ever (default 5m)",
    "OLLAMA_CONTEXT_LENGTH": f"context size when a request names none (default {DEFAULT_CONTEXT})",
    "OLLAMA_KV_CACHE_TYPE": "type of the KV cache: f16, q8_0 (half the memory) or f32 (default f16)",
    "OLLAMA_GO_TEMPLATE": "1 or 0: Modelfile TEMPLATEs always, or never, before GGUF ones (default: the abler)",
    "OLLAMA_NUM_PARALLEL": "generations that one model runs at the same time (default: what its memory holds, 4 to 16)",
    "OLLAMA_MAX_LOADED_MODELS": "models held in memory at the same time (default 3)",
    "OLLAMA_LOAD_TIMEOUT": "time without progress after which a load is given up; 0 = never (default 5m)",
    "OLLAMACORE_MEMORY": "memory for all models, e.g. 3GiB (default: what is available at the start, less a tenth)",
    "OLLAMACORE_KV_MEMORY": "memory for the KV cache of one model (default: chosen within OLLAMACORE_MEMORY)",
    "OLLAMACORE_PREFIX_SHARE": "percent of the KV cache that may hold prefixes of earlier prompts (default 50)",
    "OLLAMACORE_PREFIX_DISK": "disk space to keep prefixes in while their model is not loaded, e.g. 500MB (default 0)",
    "OLLAMA_MAX_QUEUE": "requests that may wait for a model before new ones get 503 (default 512)",
    "OLLAMACORE_STRICT_CONTEXT": "1 answers 400 rather than drop messages or tokens that do not fit (default 0)",
    "OLLAMA_ORIGINS": "additional web origins to accept, comma separated, one * in each",
    "OLLAMA_NO_CLOUD": "1 is what this server does anyway; /api/status then says that the environment wants it",
    "OLLAMA_NOPRUNE": "1 keeps blobs that no model uses (default 0)",
    "OLLAMA_DEBUG": "1 logs requests and model loads, 2 logs more",
    "OLLAMA_DEBUG_LOG_REQUESTS": "1 keeps bodies of requests to models, and scripts that repeat them, in a new folder",
    "OLLAMACORE_API_KEYS": "keys that clients must bring, comma separated, or @file with one a line (default: none)",
    "OLLAMACORE_TLS_CERT": "PEM file of a certificate chain: serve HTTPS",
    "OLLAMACORE_TLS_KEY": "PEM file of its private key (default: in the certificate's file)",
    "OLLAMACORE_READ_ONLY": "1 refuses what would change the store (default 0)",
    "OLLAMACORE_THREADS": "compute threads (default: one per core)",
    "OLLAMACORE_REPACK": "0 computes on the model file's own pages, 1 never does (default: when memory is short)",
    "OLLAMACORE_PACKED_CACHE": "1, or a folder: keep packed weights on disk for the next load (default off)",
    "OLLAMACORE_LOOKUP": "0 turns prompt lookup off; it changes speed alone (default 1)",
}


class ConfigError(Exception):
    """A setting on which safety depends cannot be used; the text is meant for the person who made it."""


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting of a server."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    socket: Path | None = None  # listen here instead of on host and port
    tls_cert: Path | None = None
    tls_key: Path | None = None
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    read_only: bool = False
    models: Path = Path("~/.ollama/models")
    keep_alive_ns: int = DEFAULT_KEEP_ALIVE_NS
    context_length: int = DEFAULT_CONTEXT
    kv_type: str = DEFAULT_KV_TYPE
    go_templates: bool | None = None
    origins: tuple[str, ...] = ()
    prune: bool = True
    no_cloud: bool = False  # somebody asked for it; there is none in any case
    debug: int = 0
    log_requests: bool = False
    num_parallel: int = 0  # as many as the engine can usefully run
    max_loaded_models: int = 3
    max_queue: int = 512
    load_timeout_s: float | None = DEFAULT_LOAD_TIMEOUT_NS / SECOND
    memory: int | None = None
    kv_bytes: int | None = None
    prefix_share: float = 0.5
    prefix_disk: int = 0
    strict_context: bool = False
    threads: int | None = None
    packed_cache: Path | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the listener."""
        if self.socket is not None:
            return True
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
        path = socket_path(env["OLLAMA_HOST"])
        host, port = parse_host("" if path else env["OLLAMA_HOST"])
        models = env["OLLAMA_MODELS"] or "~/.ollama/models"
        origins = tuple(clean(part) for part in env["OLLAMA_ORIGINS"].split(",") if clean(part))
        return cls(
            host=host,
            port=port,
            socket=path,
            tls_cert=_path(env["OLLAMACORE_TLS_CERT"]),
            tls_key=_path(env["OLLAMACORE_TLS_KEY"]),
            api_keys=_api_keys(env["OLLAMACORE_API_KEYS"]),
            read_only=bool(_level(env["OLLAMACORE_READ_ONLY"])),
            models=Path(models).expanduser(),
            keep_alive_ns=_duration(env, "OLLAMA_KEEP_ALIVE", DEFAULT_KEEP_ALIVE_NS),
            context_length=_number(env, "OLLAMA_CONTEXT_LENGTH", 0) or DEFAULT_CONTEXT,
            kv_type=_kv_type(env["OLLAMA_KV_CACHE_TYPE"]),
            go_templates=bool(_level(env["OLLAMA_GO_TEMPLATE"])) if env["OLLAMA_GO_TEMPLATE"] else None,
            origins=origins,
            no_cloud=bool(_level(env["OLLAMA_NO_CLOUD"])),
            prune=not _level(env["OLLAMA_NOPRUNE"]),
            debug=_level(env["OLLAMA_DEBUG"]),
            log_requests=bool(_level(env["OLLAMA_DEBUG_LOG_REQUESTS"])),
            num_parallel=_number(env, "OLLAMA_NUM_PARALLEL", 0),
            max_loaded_models=_number(env, "OLLAMA_MAX_LOADED_MODELS", 0) or 3,
            max_queue=_number(env, "OLLAMA_MAX_QUEUE", 512),
            load_timeout_s=_timeout(_duration(env, "OLLAMA_LOAD_TIMEOUT", DEFAULT_LOAD_TIMEOUT_NS)),
            memory=_size(env, "OLLAMACORE_MEMORY"),
            kv_bytes=_size(env, "OLLAMACORE_KV_MEMORY"),
            prefix_share=min(_number(env, "OLLAMACORE_PREFIX_SHARE", 50), 100) / 100,
            prefix_disk=_size(env, "OLLAMACORE_PREFIX_DISK") or 0,
            strict_context=_level(env["OLLAMACORE_STRICT_CONTEXT"]) > 0,
            threads=_number(env, "OLLAMACORE_THREADS", 0) or None,
            packed_cache=_packed_cache(env["OLLAMACORE_PACKED_CACHE"], Path(models).expanduser()),
        )


def clean(value: str) -> str:
    """Trim spaces and then quotes, as Ollama does with every variable."""
    return value.strip().strip("\"'")


def socket_path(value: str) -> Path | None:
    """The path of ``unix:/path`` or ``unix:///path``; None if the value is no such address."""
    scheme, found, path = value.partition(":")
    if not found or scheme.lower() != "unix":
        return None
    return Path(path.removeprefix("//")).expanduser()


def _path(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


def _api_keys(text: str) -> tuple[str, ...]:
    """The keys themselves, or those in a file. ConfigError if there are none: better no server than an open one."""
    if text.startswith("@"):
        try:
            lines = Path(text[1:]).expanduser().read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"OLLAMACORE_API_KEYS: {error}") from None
        keys = [line.strip() for line in lines if not line.startswith("#")]
    else:
        keys = [clean(key) for key in text.split(",")]
    found = tuple(key for key in keys if key)
    if text and not found:
        raise ConfigError("OLLAMACORE_API_KEYS holds no key")
    return found


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


def _duration(env: Mapping[str, str], name: str, default: int) -> int:
    """A duration or a number of seconds, in nanoseconds; negative means for ever."""
    text = env[name]
    if not text:
        return default
    try:
        ns = int(text) * SECOND if text.lstrip("+-").isdigit() else parse_duration(text)
    except DurationError as error:
        log.warning("%s: %s, using %gm", name, error, default / (60 * SECOND))
        return default
    return FOREVER if ns < 0 or ns > FOREVER else ns


def _packed_cache(text: str, models: Path) -> Path | None:
    """A folder, or a switch for the one in the store."""
    if "/" in text:
        return Path(text).expanduser()
    return models / "ollamacore" / "packed" if _level(text) else None


def _timeout(ns: int) -> float | None:
    """Seconds to wait; none or for ever is no limit."""
    return ns / SECOND if 0 < ns < FOREVER else None


def _size(env: Mapping[str, str], name: str) -> int | None:
    """A number of bytes such as 1500000000, 1.5GB or 2GiB; None, with a warning, if it is none."""
    text = env[name]
    if not text:
        return None
    found = _SIZE.fullmatch(text)
    if found is None:
        log.warning("%s: %r is not a size such as 2GiB, ignored", name, text)
        return None
    number, prefix, binary = found.groups()
    exponent = "kmgt".index(prefix.lower()) + 1 if prefix else 0
    return int(float(number) * (1024 if binary else 1000) ** exponent)


def _level(text: str) -> int:
    """A switch, perhaps with a level: a number, or any word that does not mean no."""
    if text.isascii() and text.isdigit():
        return min(int(text), 2)
    return 0 if text.lower() in {"", "f", "false", "no", "off"} else 1
