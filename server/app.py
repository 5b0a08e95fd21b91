"""Wiring and life of a server: build its parts, listen, drain and stop on a signal."""

import asyncio
import logging
import os
import signal
import ssl
import sys
from collections.abc import Coroutine
from typing import Any

from ollamacore import PrefixStore, available_memory
from server.config import Config
from server.context import OLLAMA_VERSION, Context
from server.http import Server
from server.models.engine import EngineLoader, LocalLoader
from server.models.loaded import LoadedModels
from server.router import Router
from server.store.errors import StoreError
from server.store.store import Store

log = logging.getLogger(__name__)

#: How long requests may take to end after the first signal.
DRAIN_SECONDS = 10.0
#: Where prefixes are kept, in the folder of models.
PREFIXES = "ollamacore/prefixes"
#: Memory that models leave to others, at least.
MEMORY_RESERVE = 128 << 20

_LEVELS = {0: logging.INFO, 1: logging.DEBUG, 2: logging.DEBUG}


class StartError(Exception):
    """The server cannot start; the text is meant for the person who started it."""


def local_loader(config: Config) -> LocalLoader:
    """The engine of this process, as configured."""
    store = PrefixStore(config.models / PREFIXES, config.prefix_disk) if config.prefix_disk else None
    return LocalLoader(
        config.threads,
        kv_type=config.kv_type,
        kv_bytes=config.kv_bytes,
        prefix_share=config.prefix_share,
        prefix_store=store,
        packed_cache=config.packed_cache,
    )


def memory_budget() -> int:
    """The memory for models when none is set: what is available, less a tenth for others."""
    available = available_memory()
    return max(available - max(available // 10, MEMORY_RESERVE), 0)


def build_models(config: Config, loader: EngineLoader) -> LoadedModels:
    """The table of models of a configuration."""
    return LoadedModels(
        loader,
        keep_alive_ns=config.keep_alive_ns,
        max_loaded=config.max_loaded_models,
        max_queue=config.max_queue,
        parallel=config.num_parallel,
        memory=config.memory or memory_budget(),
        load_timeout_s=config.load_timeout_s,
    )


async def listen(context: Context) -> Server:
    """Start answering requests; StartError says why not."""
    config = context.config
    server = Server(Router(context))
    tls = _tls(config)
    try:
        if config.socket is not None:
            await server.start_unix(config.socket, tls)
        else:
            await server.start(config.host, config.port, tls)
    except OSError as error:
        where = config.socket or f"{config.host or '*'}:{config.port}"
        raise StartError(f"cannot listen on {where}: {error.strerror or error} (set OLLAMA_HOST)") from None
    return server


def _tls(config: Config) -> ssl.SSLContext | None:
    """The certificate to show, if there is one."""
    if config.tls_cert is None:
        if config.tls_key is not None:
            raise StartError("OLLAMACORE_TLS_KEY is set without OLLAMACORE_TLS_CERT")
        return None
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        tls.load_cert_chain(config.tls_cert, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"cannot use the certificate {config.tls_cert}: {error}") from None
    return tls


def _store(config: Config) -> Store:
    """The models on disk."""
    folder, packed = config.models, config.packed_cache
    return Store(folder, prune=config.prune, packed=packed, go_templates=config.go_templates)


async def serve(config: Config) -> None:
    """Run a server until SIGINT or SIGTERM; a second signal ends the process at once."""
    models = build_models(config, local_loader(config))
    try:
        context = Context(config, _store(config), models)
    except (OSError, StoreError) as error:
        raise StartError(f"cannot use the models folder {config.models}: {error} (set OLLAMA_MODELS)") from None
    server = await listen(context)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    log.info("listening on %s (Ollama API %s), models in %s", _url(config, server), OLLAMA_VERSION, config.models)
    if not config.is_loopback and not config.api_keys:
        log.warning("reachable from other machines, without authentication (set OLLAMACORE_API_KEYS)")
    pruning = asyncio.create_task(_prune(context.store))
    await stop.wait()
    log.info("stopping; a second signal stops at once")
    await server.stop(DRAIN_SECONDS)
    await context.models.close()
    await pruning


async def _prune(store: Store) -> None:
    """Delete what interrupted uploads left behind."""
    try:
        removed = await asyncio.to_thread(store.collect_garbage)
    except (OSError, StoreError) as error:
        log.warning("unused blobs cannot be deleted: %s", error)
        return
    if removed:
        log.info("deleted %d unused blobs", removed)


def _url(config: Config, server: Server) -> str:
    if config.socket is not None:
        return f"unix:{config.socket}"
    host, port = server.address
    scheme = "http" if config.tls_cert is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on uvloop where there is one, else on asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def set_up_logging(config: Config) -> None:
    """Log to standard error; prompts and answers are never logged."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("server").setLevel(_LEVELS[config.debug])
    if config.debug > 1:
        logging.getLogger("asyncio").setLevel(logging.DEBUG)
