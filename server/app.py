"""Wiring and life of a server: build its parts, listen, drain and stop on a signal."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any

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

_LEVELS = {0: logging.INFO, 1: logging.DEBUG, 2: logging.DEBUG}


class StartError(Exception):
    """The server cannot start; the text is meant for the person who started it."""


def build_models(config: Config, loader: EngineLoader) -> LoadedModels:
    """The table of models of a configuration."""
    return LoadedModels(
        loader,
        keep_alive_ns=config.keep_alive_ns,
        max_loaded=config.max_loaded_models,
        max_queue=config.max_queue,
        parallel=config.num_parallel,
    )


async def listen(context: Context) -> Server:
    """Start answering requests; StartError says why not."""
    config = context.config
    server = Server(Router(context))
    try:
        await server.start(config.host, config.port)
    except OSError as error:
        where = f"{config.host or '*'}:{config.port}"
        raise StartError(f"cannot listen on {where}: {error.strerror or error} (set OLLAMA_HOST)") from None
    return server


async def serve(config: Config) -> None:
    """Run a server until SIGINT or SIGTERM; a second signal ends the process at once."""
    models = build_models(config, LocalLoader(config.threads, config.kv_type))
    try:
        context = Context(config, Store(config.models, prune=config.prune), models)
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
    log.info("listening on %s (Ollama API %s), models in %s", _url(server.address), OLLAMA_VERSION, config.models)
    if not config.is_loopback:
        log.warning("reachable from other machines, without authentication")
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


def _url(address: tuple[str, int]) -> str:
    host, port = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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
