"""The models in memory: who uses them, when they leave, and who waits.

One model loads at a time. A request holds a lease while it runs; when the last lease of a model ends, its
keep_alive begins to run. Room for another model is made by unloading the least recently used idle one; if all
are busy, the least recently used one takes no new requests and leaves after those it has. All state is
changed on the event loop only, so none of it is locked; the loading lock orders loads.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ollamacore.errors import ClosedError, OutOfMemoryError
from server.errors import BusyError
from server.models.engine import Engine, EngineLoader
from server.times import FOREVER, SECOND

log = logging.getLogger(__name__)


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


class _Entry:
    """One model in memory, or on its way there."""

    def __init__(self, source: ModelSource, context: int, keep_alive_ns: int, parallel: int):
        self.source = source
        self.context = context  # of the last request
        self.capacity = context  # the most a request may ask for
        self.keep_alive_ns = keep_alive_ns
        self.slots = asyncio.Semaphore(parallel)
        self.engine: Engine | None = None
        self.task: asyncio.Task[Engine] | None = None
        self.users = 0
        self.retired = False
        self.last_used = 0.0
        self.expires_at_ns: int | None = None
        self.timer: asyncio.TimerHandle | None = None


class LoadedModels:
    """The table of models in memory."""

    def __init__(
        self, loader: EngineLoader, *, keep_alive_ns: int, max_loaded: int, max_queue: int, parallel: int
    ):
        self._loader = loader
        self._keep_alive_ns = keep_alive_ns
        self._max_loaded = max_loaded
        self._max_queue = max(1, max_queue)
        self._parallel = parallel
        self._entries: dict[Path, _Entry] = {}
        self._resident: set[_Entry] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unloading: set[asyncio.Task[None]] = set()
        self._loading = asyncio.Lock()
        self._changed = asyncio.Event()
        self._waiting = 0
        self._users = 0
        self._closed = False

    @asynccontextmanager
    async def lease(
        self, source: ModelSource, context: int, keep_alive_ns: int | None = None
    ) -> AsyncIterator[Lease]:
        """Use a model with room for ``context`` tokens, loading it first if need be.

        keep_alive_ns None leaves the time of a loaded model as it is. Raises BusyError when too many wait.
        """
        entry = self._enter(source, context, keep_alive_ns)
        try:
            engine = await self._ready(entry)
            await self._take_slot(entry)
            try:
                yield Lease(engine)
            finally:
                entry.slots.release()
        finally:
            self._leave(entry)

    async def unload(self, path: Path) -> None:
        """Unload a model now, or as soon as the requests that use it have ended."""
        entry = self._entries.get(path)
        if entry is None:
            return
        entry.keep_alive_ns = 0
        if entry.engine is not None and not entry.users:
            await asyncio.shield(self._start_unloading(entry))

    def running(self) -> list[RunningModel]:
        """The loaded models, longest remaining time first."""
        now = time.time_ns()
        found = []
        for entry in self._resident:
            if entry.engine is None:
                continue
            memory = entry.engine.stats().memory_bytes
            expires = entry.expires_at_ns
            if expires is None:  # in use, or for ever: an estimate
                expires = now + entry.keep_alive_ns
            found.append(RunningModel(entry.source, memory, entry.context, expires))
        return sorted(found, key=lambda model: (-model.expires_at_ns, model.source.name))

    @property
    def waiting(self) -> int:
        """Requests that wait for a load or a slot."""
        return self._waiting

    @property
    def users(self) -> int:
        """Requests that hold or wait for a lease."""
        return self._users

    async def close(self) -> None:
        """Take no more requests and unload everything; a load under way is finished first."""
        self._closed = True
        self._changed.set()
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        for entry in list(self._resident):
            self._start_unloading(entry)
        while self._unloading:
            await asyncio.wait(set(self._unloading))

    def _enter(self, source: ModelSource, context: int, keep_alive_ns: int | None) -> _Entry:
        """Count a user in; without a suitable entry, start a load."""
        if self._closed:
            raise ClosedError("the server is shutting down")
        entry = self._entries.get(source.path)
        if entry is None or entry.capacity < context:
            if self._waiting >= self._max_queue:
                raise BusyError
            if entry is not None:
                self._retire(entry)
            entry = _Entry(source, context, self._keep_alive_ns, self._parallel)
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
        if not entry.users and entry.engine is not None:
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
        if entry.engine is not None:
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
                entry.engine = await self._load_engine(entry)
        except BaseException:
            self._forget(entry)
            raise
        entry.capacity = max(entry.capacity, entry.engine.stats().max_context)
        self._resident.add(entry)
        entry.last_used = time.monotonic()
        if not entry.users:
            self._became_idle(entry)
        return entry.engine

    async def _load_engine(self, entry: _Entry) -> Engine:
        """Load; when memory is short, once more after unloading every idle model."""
        began = time.monotonic()
        try:
            engine = await self._loader.load(entry.source.path, context=entry.context)
        except OutOfMemoryError:
            idle = self._idle()
            if not idle:
                raise
            for other in idle:
                self._start_unloading(other)
            await self._unloads_end()
            engine = await self._loader.load(entry.source.path, context=entry.context)
        log.info("loaded %s in %.2f s", entry.source.name, time.monotonic() - began)
        return engine

    def _load_ended(self, task: asyncio.Task[Engine]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("%s: %s", task.get_name(), task.exception())

    async def _make_room(self, entry: _Entry) -> None:
        """Unload, or wait for, other models until this one may load, or nobody wants it any more."""
        while entry.users and not self._closed:
            await self._unloads_end()
            replaced = [other for other in self._resident if other.source.path == entry.source.path]
            if not replaced:
                if len(self._resident) < self._max_loaded:
                    return
                idle = self._idle()
                if idle:
                    self._start_unloading(idle[0])
                    continue
                if not any(other.retired for other in self._resident):
                    self._retire(min(self._resident, key=lambda other: other.last_used))
            self._changed.clear()
            await self._changed.wait()

    def _idle(self) -> list[_Entry]:
        """Loaded models without users, least recently used first."""
        return sorted((e for e in self._resident if not e.users), key=lambda e: e.last_used)

    def _retire(self, entry: _Entry) -> None:
        """Give no new leases on a model; it is unloaded when the last one ends."""
        entry.retired = True
        self._forget(entry)
        if entry.engine is not None and not entry.users:
            self._start_unloading(entry)

    def _forget(self, entry: _Entry) -> None:
        if self._entries.get(entry.source.path) is entry:
            del self._entries[entry.source.path]

    def _start_unloading(self, entry: _Entry) -> asyncio.Task[None]:
        """Take a model out of the table at once and free it."""
        self._forget(entry)
        self._resident.discard(entry)
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        assert entry.engine is not None
        task = asyncio.create_task(entry.engine.unload(), name=f"unload {entry.source.name}")
        self._unloading.add(task)
        task.add_done_callback(self._unload_ended)
        return task

    def _unload_ended(self, task: asyncio.Task[None]) -> None:
        self._unloading.discard(task)
        self._changed.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("%s: %s", task.get_name(), task.exception())
        else:
            log.info("%s", task.get_name())

    async def _unloads_end(self) -> None:
        if self._unloading:
            await asyncio.wait(set(self._unloading))
