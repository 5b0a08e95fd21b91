"""A whole server in a thread of this process: real HTTP on loopback, a real store, the loader of the test."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from server.app import build_models, listen
from server.config import Config
from server.context import Context
from server.models.engine import EngineLoader
from server.store.create import CreateSpec, create_model
from server.store.names import ModelName
from server.store.store import Store

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"


class LiveServer:
    """Started by ``with``; everything inside runs on its own event loop."""

    def __init__(self, root: Path, loader: EngineLoader, **settings: Any):
        self.config = replace(Config(host="127.0.0.1", port=0, models=root), **settings)
        self.store = Store(root)
        self._loader = loader
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> "LiveServer":
        self._thread.start()
        self.context, self._server = self.run(self._start())
        host, port = self._server.address
        self.url = f"http://{host}:{port}"
        return self

    def stop_loop(self) -> None:
        """End the thread; for a server that never started this is all there is to end."""
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self):
        context = Context(self.config, self.store, build_models(self.config, self._loader))
        return context, await listen(context)

    def run(self, coroutine):
        """The result of a coroutine that runs on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of a function that is called on the server's loop."""

        async def inside():
            return function(*arguments)

        return self.run(inside())

    def event(self) -> asyncio.Event:
        return self.call(asyncio.Event)

    def until(self, condition: Callable[[], bool]) -> None:
        """Let the server run until something holds; fail after many turns of its loop."""

        async def inside():
            async with asyncio.timeout(120):
                while not condition():  # noqa: ASYNC110  a state of the server, not an event
                    await asyncio.sleep(0.001)

        self.run(inside())

    def __exit__(self, *_: object) -> None:
        self.run(self._server.stop(1.0))
        self.run(self.context.models.close())
        self.stop_loop()

    def keep_only(self, name: str) -> None:
        """Delete and unload every other model."""
        for model in self.store.list():
            if model.name.short != name:
                self.store.delete(model.name)
        for running in self.call(self.context.models.running):
            if running.source.name != name:
                self.run(self.context.models.unload(running.source.path))

    def add_model(self, name: str, path: Path, **fields: Any) -> str:
        """Create a model from a GGUF file; returns the digest of the weights."""
        digest = self.store.add_file(path)
        spec = CreateSpec(name=ModelName.parse(name), files={path.name: digest}, **fields)
        create_model(self.store, spec, lambda record: None)
        return digest


def write_gguf(
    path: Path,
    *,
    template: str | None = TEMPLATE,
    context: int = 2048,
    embedding: bool = False,
    pooling: int = 1,
    tokens: Sequence[str] = (),
    insert: tuple[int, int, int] | None = None,
    salt: str = "",
) -> Path:
    """A sound GGUF file with one small tensor; ``salt`` makes its bytes differ.

    ``embedding``, or a ``pooling`` other than the mean, makes it an encoder; ``insert`` has the tokens of gaps.
    """
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(64)
    writer.add_file_type(0)
    writer.add_string("general.description", salt)
    if embedding or pooling != 1:
        writer.add_uint32("llama.pooling_type", pooling)
    if tokens:
        writer.add_token_list(list(tokens))
    if insert is not None:
        for name, token in zip(("fim_pre", "fim_suf", "fim_mid"), insert, strict=True):
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token)
    if template is not None:
        writer.add_chat_template(template)
    writer.add_tensor("token_embd.weight", np.ones((300, 64), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
