"""The models in memory: who uses them, when they leave, and who waits.

One model loads at a time. A request holds a lease while it runs; when the last lease of a model ends, its
keep_alive begins to run. Models share a memory budget: each counts what it has reserved, from the start of its load
until it has been unloaded. Room for another model is made by unloading the least recently used idle one; if all are
busy, the least recently used one takes no new requests and leaves after those it has. All state is changed on the
event loop only, so none of it is locked; the loading lock orders loads.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ollamacore import ModelState
from ollamacore.errors import ClosedError, OutOfMemoryError
from server.errors import BusyError, LoadTimeoutError
from server.models.engine import Engine, EngineLoader, Text
from server.times import FOREVER, SECOND

log = logging.getLogger(__name__)

#: vocabularies kept for models that are not loaded: some 20 MB each
MAX_TEXTS = 4


@dataclass(frozen=True, slots=True)
class ModelSource:
    """What to load, and what /api/ps says of it. Names that share weights share the loaded model."""

    path: Path
    name: str
    digest: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to use a loaded model."""

    engine: Engine


@dataclass(frozen=True, slots=True)
class RunningModel:
    """One line of /api/ps."""

    source: ModelSource
    memory_bytes: int
    context: int
    expires_at_ns: int


@dataclass(frozen=True, slots=True)
class TokenTotals:
    """What one model has computed since the server started, however often it was loaded."""

    prompt: int = 0
    cached: int = 0
    generated: int = 0
    prefix_evictions: int = 0

    def plus(self, state: ModelState) -> "TokenTotals":
        """With what a load of it has computed."""
        return TokenTotals(
            self.prompt + state.prompt_tokens,
            self.cached + state.cached_tokens,
            self.generated + state.generated_tokens,
            self.prefix_evictions + state.prefix_evictions,
        )


@dataclass(frozen=True, slots=True)
class TableState:
    """One moment of the table, and what it has done since the server started."""

    users: int  # requests that hold or wait for a lease
    waiting: int  # of those, the ones that wait
    memory_used: int
    memory_budget: int
    loads: int
    failed_loads: int
    evictions: int
    models: Mapping[str, ModelState | None]
    tokens: Mapping[str, TokenTotals]  # of models in memory and of those that have left


class _Entry:
    """One model in memory, or on its way there."""

    def __init__(self, source: ModelSource, context: int, keep_alive_ns: int, needs: int):
        self.source = source
        self.context = context  # of the last request
        self.capacity = context  # the most a request may ask for
        self.keep_alive_ns = keep_alive_ns
        self.needs = needs  # bytes, at least
        self.memory = needs  # bytes that count against the budget once the load has begun
        self.progress = -1.0  # of the load
        self.slots = asyncio.Semaphore()  # a new one once the engine tells how many requests it can run
        self.engine: Engine | None = None
        self.task: asyncio.Task[Engine] | None = None
        self.users = 0
        self.retired = False
        self.last_used = 0.0
        self.expires_at_ns: int | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.leaving_ns: int | None = None  # when its unloading began, or its load was given up

    @property
    def is_ready(self) -> bool:
        """Whether it is loaded and will stay for the moment."""
        return self.engine is not None and self.leaving_ns is None

    @property
    def is_given_up(self) -> bool:
        """Whether its load hangs and nobody waits for it any more."""
        return self.engine is None and self.leaving_ns is not None


class LoadedModels:
    """The table of models in memory."""

    def __init__(
        self,
        loader: EngineLoader,
        *,
        keep_alive_ns: int,
        max_loaded: int,
        max_queue: int,
        parallel: int,
        memory: int,
        load_timeout_s: float | None,
    ):
        self._loader = loader
        self._keep_alive_ns = keep_alive_ns
        self._max_loaded = max_loaded
        self._max_queue = max(1, max_queue)
        self._parallel = parallel
        self._memory = memory
        self._load_timeout_s = load_timeout_s
        self._entries: dict[Path, _Entry] = {}  # those that take requests
        self._held: set[_Entry] = set()  # those that hold memory
        self._measuring: dict[tuple[Path, int], asyncio.Task[int]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unloading: set[asyncio.Task[None]] = set()
        self._given_up: set[asyncio.Task[Engine]] = set()
        self._loading = asyncio.Lock()
        self._changed = asyncio.Event()
        self._waiting = 0
        self._users = 0
        self._loads = self._failed_loads = self._evictions = 0
        self._left: dict[str, TokenTotals] = {}  # of models that were unloaded
        self._texts: dict[Path, Text] = {}  # of models that are not loaded, the last used one at the end
        self._closed = False

    @asynccontextmanager
    async def lease(
        self, source: ModelSource, context: int, keep_alive_ns: int | None = None
    ) -> AsyncIterator[Lease]:
        """Use a model with room for ``context`` tokens, loading it first if need be.

        keep_alive_ns None leaves the time of a loaded model as it is. Raises BusyError when too many wait, and
        OutOfMemoryError when the budget could not hold the model even alone.
        """
        needs = 0 if self._serves(source.path, context) else await self._needs(source.path, context)
        entry = self._enter(source, context, keep_alive_ns, needs)
        try:
            engine = await self._ready(entry)
            await self._take_slot(entry)
            try:
                yield Lease(engine)
            finally:
                entry.slots.release()
        finally:
            self._leave(entry)

    async def text(self, path: Path) -> Text:
        """The vocabulary and template of a model: the loaded model's own, or read without its weights."""
        entry = self._entries.get(path)
        if entry is not None and entry.engine is not None:
            return entry.engine
        text = self._texts.pop(path, None) or await self._loader.text(path)
        self._texts[path] = text
        if len(self._texts) > MAX_TEXTS:
            del self._texts[next(iter(self._texts))]
        return text

    async def unload(self, path: Path) -> None:
        """Unload a model now, or as soon as the requests that use it have ended."""
        entry = self._entries.get(path)
        if entry is None:
            return
        entry.keep_alive_ns = 0
        if entry.is_ready and not entry.users:
            await asyncio.shield(self._start_unloading(entry))

    def running(self) -> list[RunningModel]:
        """The models that hold memory, longest remaining time first; those that leave have no time left."""
        now = time.time_ns()
        found = []
        for entry in self._held:
            memory = entry.memory
            if entry.engine is not None and entry.is_ready:
                memory = entry.engine.stats().memory_bytes
            expires = entry.leaving_ns or entry.expires_at_ns
            if expires is None:  # loading, in use, or for ever: an estimate
                expires = now + entry.keep_alive_ns
            found.append(RunningModel(entry.source, memory, entry.context, expires))
        return sorted(found, key=lambda model: (-model.expires_at_ns, model.source.name))

    def state(self) -> TableState:
        """What is going on, and what has been done."""
        ready = [entry for entry in self._held if entry.is_ready]
        models = {entry.source.name: entry.engine.stats().state for entry in ready if entry.engine is not None}
        return TableState(
            self._users,
            self._waiting,
            memory_used=sum(entry.memory for entry in self._held),
            memory_budget=self._memory,
            loads=self._loads,
            failed_loads=self._failed_loads,
            evictions=self._evictions,
            models=models,
            tokens=self._left
            | {name: self._tokens(name).plus(state) for name, state in models.items() if state is not None},
        )

    def _tokens(self, name: str) -> TokenTotals:
        return self._left.get(name, TokenTotals())

    async def close(self) -> None:
        """Take no more requests and unload everything; a load under way is finished first."""
        self._closed = True
        self._changed.set()
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        for entry in [entry for entry in self._held if entry.is_ready]:
            self._start_unloading(entry)
        while self._unloading:
            await asyncio.wait(set(self._unloading))

    def _serves(self, path: Path, context: int) -> bool:
        """Whether a model is there, or on its way, with room for such a request."""
        entry = self._entries.get(path)
        return entry is not None and entry.capacity >= context

    async def _needs(self, path: Path, context: int) -> int:
        """Bytes that a model needs; requests that come at once ask once. OutOfMemoryError beyond the budget."""
        key = (path, context)
        if key not in self._measuring:
            asking = self._loader.needs(path, context=context, memory=self._memory)
            self._measuring[key] = asyncio.create_task(asking)
            self._measuring[key].add_done_callback(lambda _: self._measuring.pop(key))
        return await asyncio.shield(self._measuring[key])

    def _enter(self, source: ModelSource, context: int, keep_alive_ns: int | None, needs: int) -> _Entry:
        """Count a user in; without a suitable entry, start a load."""
        if self._closed:
            raise ClosedError("the server is shutting down")
        entry = self._entries.get(source.path)
        if entry is None or entry.capacity < context:
            if self._waiting >= self._max_queue:
                raise BusyError
            if entry is not None:
                self._retire(entry)
            entry = _Entry(source, context, self._keep_alive_ns, needs)
            self._entries[source.path] = entry
            entry.users = 1
            entry.task = asyncio.create_task(self._load(entry), name=f"load {source.name}")
            self._tasks.add(entry.task)
            entry.task.add_done_callback(self._load_ended)
        else:
            entry.users += 1
        self._users += 1
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        entry.expires_at_ns = None
        entry.source, entry.context = source, context
        if keep_alive_ns is not None:
            entry.keep_alive_ns = keep_alive_ns
        return entry

    def _leave(self, entry: _Entry) -> None:
        """Count a user out; the last one starts the keep_alive time."""
        entry.users -= 1
        self._users -= 1
        entry.last_used = time.monotonic()
        if not entry.users and entry.is_ready:
            self._became_idle(entry)
        self._changed.set()

    def _became_idle(self, entry: _Entry) -> None:
        if entry.retired or entry.keep_alive_ns <= 0:
            self._start_unloading(entry)
        elif entry.keep_alive_ns < FOREVER:
            entry.expires_at_ns = time.time_ns() + entry.keep_alive_ns
            delay = entry.keep_alive_ns / SECOND
            entry.timer = asyncio.get_running_loop().call_later(delay, self._start_unloading, entry)

    @contextmanager
    def _pending(self) -> Iterator[None]:
        """Count a request that has to wait; refuse it when too many do."""
        if self._waiting >= self._max_queue:
            raise BusyError
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def _ready(self, entry: _Entry) -> Engine:
        """Wait for the load; a client that leaves does not stop it for the others."""
        if entry.is_ready and entry.engine is not None:
            return entry.engine
        assert entry.task is not None
        with self._pending():
            return await asyncio.shield(entry.task)

    async def _take_slot(self, entry: _Entry) -> None:
        """Wait, first come first served, until the model has a free slot."""
        if not entry.slots.locked():
            await entry.slots.acquire()
            return
        with self._pending():
            await entry.slots.acquire()

    async def _load(self, entry: _Entry) -> Engine:
        """Make room and load; if everyone who wanted the model has left by then, do not."""
        try:
            async with self._loading:
                await self._make_room(entry)
                if not entry.users or self._closed:
                    raise ClosedError("the load was abandoned")
                self._held.add(entry)
                engine = await self._load_engine(entry)
        except BaseException:
            self._forget(entry)
            if not entry.is_given_up:
                self._held.discard(entry)
            self._changed.set()
            raise
        stats = engine.stats()
        entry.engine, entry.memory = engine, stats.reserved_bytes
        entry.capacity = max(entry.capacity, stats.max_context)
        entry.slots = asyncio.Semaphore(self._parallel or stats.sequences)
        entry.last_used = time.monotonic()
        self._loads += 1
        if not entry.users:
            self._became_idle(entry)
        return engine

    async def _load_engine(self, entry: _Entry) -> Engine:
        """Load; when memory is short, once more after unloading every idle model."""
        began = time.monotonic()
        try:
            engine = await self._load_in_time(entry)
        except OutOfMemoryError:
            idle = self._idle()
            if not idle:
                raise
            await asyncio.wait([self._evict(other) for other in idle])
            engine = await self._load_in_time(entry)
        log.info("loaded %s in %.2f s", entry.source.name, time.monotonic() - began)
        return engine

    async def _load_in_time(self, entry: _Entry) -> Engine:
        """Load, and give up when there is no progress for the load timeout."""

        def on_progress(fraction: float) -> None:
            entry.progress = fraction

        others = sum(other.memory for other in self._held if other is not entry)
        loading = asyncio.create_task(
            self._loader.load(
                entry.source.path, context=entry.context, memory=self._memory - others, on_progress=on_progress
            )
        )
        while True:
            seen = entry.progress
            finished, _ = await asyncio.wait({loading}, timeout=self._load_timeout_s)
            if finished:
                return loading.result()
            if entry.progress == seen:
                self._give_up(entry, loading)
                raise LoadTimeoutError(
                    f"timed out waiting for the model to load: no progress for {self._load_timeout_s:g} s "
                    f"after {max(seen, 0.0):.0%}"
                )

    def _give_up(self, entry: _Entry, loading: asyncio.Task[Engine]) -> None:
        """Wait no longer for a load. Its memory counts until it has really ended."""
        entry.leaving_ns = time.time_ns()
        self._given_up.add(loading)

        def ended(loading: asyncio.Task[Engine]) -> None:
            self._given_up.discard(loading)
            self._held.discard(entry)
            self._changed.set()

        loading.add_done_callback(ended)
        loading.cancel()

    def _load_ended(self, task: asyncio.Task[Engine]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failed_loads += 1
            log.warning("%s: %s", task.get_name(), task.exception())

    async def _make_room(self, entry: _Entry) -> None:
        """Unload, or wait for, other models until this one may load, or nobody wants it any more."""
        while entry.users and not self._closed and not self._has_place(entry):
            ready = [other for other in self._held if other.is_ready]
            if not self._unloading and not self._replaced(entry):
                idle = self._idle()
                if idle:
                    self._evict(idle[0])
                elif ready and not any(other.retired for other in ready):
                    self._retire(min(ready, key=lambda other: other.last_used))
                elif not ready:  # only loads that hang hold memory: an error says what is left
                    await self._loader.needs(entry.source.path, context=entry.context, memory=self._free())
            self._changed.clear()
            await self._changed.wait()

    def _has_place(self, entry: _Entry) -> bool:
        """Whether a model may load now: by number, by memory, and once the one it replaces is gone."""
        loaded = sum(not other.is_given_up for other in self._held)
        return loaded < self._max_loaded and entry.needs <= self._free() and not self._replaced(entry)

    def _replaced(self, entry: _Entry) -> bool:
        """Whether an earlier load of the same file is still there, with a pool too small for this request."""
        return any(other.source.path == entry.source.path and not other.is_given_up for other in self._held)

    def _free(self) -> int:
        """Bytes of the budget that no model has reserved."""
        return self._memory - sum(entry.memory for entry in self._held)

    def _idle(self) -> list[_Entry]:
        """Loaded models without users, least recently used first."""
        return sorted((e for e in self._held if e.is_ready and not e.users), key=lambda e: e.last_used)

    def _evict(self, entry: _Entry) -> asyncio.Task[None]:
        self._evictions += 1
        return self._start_unloading(entry)

    def _retire(self, entry: _Entry) -> None:
        """Give no new leases on a model; it is unloaded when the last one ends."""
        entry.retired = True
        self._forget(entry)
        if entry.is_ready and not entry.users:
            self._start_unloading(entry)

    def _forget(self, entry: _Entry) -> None:
        if self._entries.get(entry.source.path) is entry:
            del self._entries[entry.source.path]

    def _start_unloading(self, entry: _Entry) -> asyncio.Task[None]:
        """Give no more leases on a model and free it."""
        assert entry.engine is not None
        self._forget(entry)
        stats = entry.engine.stats()
        entry.memory = max(entry.memory, stats.memory_bytes)
        if stats.state is not None:
            self._left[entry.source.name] = self._tokens(entry.source.name).plus(stats.state)
        entry.leaving_ns = time.time_ns()
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        task = asyncio.create_task(entry.engine.unload(), name=f"unload {entry.source.name}")
        self._unloading.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._unloading.discard(task)
            self._held.discard(entry)
            self._changed.set()
            if not task.cancelled() and task.exception() is not None:
                log.error("%s: %s", task.get_name(), task.exception())
            else:
                log.info("%s", task.get_name())

        task.add_done_callback(ended)
        return task
