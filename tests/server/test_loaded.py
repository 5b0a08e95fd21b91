"""The table of loaded models: one load at a time, leases, eviction, keep_alive, queue."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from ollamacore import ClosedError, InvalidFileError, OutOfMemoryError
from server.errors import BusyError, LoadTimeoutError
from server.models.loaded import LoadedModels, ModelSource
from server.times import FOREVER, SECOND
from tests.server.clock import ClockLoop
from tests.server.fake import FakeLoader, Script


def source(name):
    return ModelSource(Path(name), f"{name}:latest", "d" * 64, {})


def table(script, **settings):
    defaults = {"keep_alive_ns": FOREVER, "max_loaded": 2, "max_queue": 10, "parallel": 2}
    defaults |= {"memory": 10_000, "load_timeout_s": None}
    return LoadedModels(FakeLoader(script), **(defaults | settings))


def scenario(test):
    """Run an async test on a loop of its own, with a limit. Its time is that of the loop: see clock.py."""

    def run():
        async def limited():
            async with asyncio.timeout(1000):
                await test()

        with asyncio.Runner(loop_factory=ClockLoop) as runner:
            runner.run(limited())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


async def settle():
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


async def use(models, name, context=100, keep_alive_ns=None):
    async with models.lease(source(name), context, keep_alive_ns) as lease:
        return lease.engine


def names(models):
    return [model.source.name.removesuffix(":latest") for model in models.running()]


@scenario
async def test_lease_loads_once_and_shares_the_engine():
    script = Script()
    models = table(script)
    script.hold_load = asyncio.Event()
    users = [asyncio.create_task(use(models, "a")) for _ in range(5)]
    await settle()
    script.hold_load.set()
    engines = await asyncio.gather(*users)
    assert len(script.loads) == len(set(map(id, engines))) == 1
    assert models.state().users == models.state().waiting == 0
    await models.close()


@scenario
async def test_loads_run_one_at_a_time():
    script = Script()
    models = table(script)
    script.hold_load = asyncio.Event()
    users = [asyncio.create_task(use(models, name)) for name in "ab"]
    await settle()
    assert len(script.loads) == 1
    script.hold_load.set()
    await asyncio.gather(*users)
    assert len(script.loads) == 2
    await models.close()


@scenario
async def test_the_least_recently_used_idle_model_makes_room():
    script = Script()
    models = table(script)
    for name in "aba":
        await use(models, name)
    await use(models, "c")
    assert script.unloads == [Path("b")]
    assert sorted(names(models)) == ["a", "c"]
    await models.close()


@scenario
async def test_a_busy_model_is_never_unloaded_and_gets_no_new_requests():
    script = Script()
    models = table(script, max_loaded=1)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(models.lease(source("a"), 100))
        other = asyncio.create_task(use(models, "b"))
        await settle()
        late = asyncio.create_task(use(models, "a"))
        await settle()
        assert script.unloads == []
        assert len(script.loads) == 1
    await other
    await late
    assert [path.name for path, _ in script.loads] == ["a", "b", "a"]
    assert script.unloads == [Path("a"), Path("b")]
    await models.close()


@scenario
async def test_slots_are_taken_in_order():
    script = Script()
    models = table(script, parallel=1)
    order = []

    async def user(number):
        async with models.lease(source("a"), 100):
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(user(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]
    await models.close()


@scenario
async def test_a_full_queue_refuses():
    script = Script()
    models = table(script, max_queue=2)
    script.hold_load = asyncio.Event()
    waiting = [asyncio.create_task(use(models, name)) for name in "ab"]
    await settle()
    for name in ("a", "c"):
        with pytest.raises(BusyError):
            await use(models, name)
    script.hold_load.set()
    await asyncio.gather(*waiting)
    assert len(script.loads) == 2
    await models.close()


@scenario
async def test_keep_alive_runs_from_the_end_of_the_last_lease():
    script = Script()
    models = table(script, keep_alive_ns=30 * SECOND)
    async with models.lease(source("a"), 100):
        await asyncio.sleep(100)
        assert names(models) == ["a"]
    await asyncio.sleep(29)
    assert names(models) == ["a"]
    await asyncio.sleep(2)
    assert script.unloads == [Path("a")]
    await models.close()


@scenario
async def test_a_new_lease_stops_the_clock():
    script = Script()
    models = table(script)
    await use(models, "a", keep_alive_ns=20 * SECOND)
    async with models.lease(source("a"), 100):
        await asyncio.sleep(60)
        assert script.unloads == []
    await models.close()


@scenario
async def test_keep_alive_of_a_request_replaces_the_earlier_one():
    models = table(Script(), keep_alive_ns=60 * SECOND)
    await use(models, "a")
    await use(models, "b", keep_alive_ns=3600 * SECOND)
    assert names(models) == ["b", "a"]
    await use(models, "a", keep_alive_ns=FOREVER)
    await use(models, "a")
    assert names(models) == ["a", "b"]
    await models.close()


@scenario
async def test_unload_waits_for_the_requests_that_use_the_model():
    script = Script()
    models = table(script)
    async with models.lease(source("a"), 100):
        await models.unload(Path("a"))
        assert script.unloads == []
    await settle()
    assert script.unloads == [Path("a")]
    await models.unload(Path("a"))
    await models.close()


@scenario
async def test_a_longer_context_reloads_when_the_model_is_free():
    script = Script()
    models = table(script)
    await use(models, "a", 100)
    await use(models, "a", 50)
    assert script.loads == [(Path("a"), 100)]
    async with models.lease(source("a"), 100):
        longer = asyncio.create_task(use(models, "a", 200))
        await settle()
        assert len(script.loads) == 1
    engine = await longer
    assert engine.context == 200
    assert script.unloads == [Path("a")]
    await use(models, "a", 100)
    assert len(script.loads) == 2
    await models.close()


@scenario
async def test_a_waiting_user_that_leaves_does_not_stop_the_load_of_others():
    script = Script()
    models = table(script)
    script.hold_load = asyncio.Event()
    first, second = (asyncio.create_task(use(models, "a")) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    script.hold_load.set()
    assert await second
    assert models.state().users == 0
    await models.close()


@scenario
async def test_a_load_that_nobody_waits_for_any_more_is_not_begun():
    script = Script()
    models = table(script)
    script.hold_load = asyncio.Event()
    first, second = (asyncio.create_task(use(models, name)) for name in "ab")
    await settle()
    second.cancel()
    await settle()
    script.hold_load.set()
    await first
    await settle()
    assert [path.name for path, _ in script.loads] == ["a"]
    await models.close()


@scenario
async def test_a_model_whose_users_left_during_the_load_becomes_idle():
    script = Script()
    models = table(script, keep_alive_ns=0)
    script.hold_load = asyncio.Event()
    user = asyncio.create_task(use(models, "a"))
    await settle()
    user.cancel()
    await settle()
    script.hold_load.set()
    await settle()
    assert script.unloads == [Path("a")]
    await models.close()


@scenario
async def test_a_failed_load_reaches_everyone_who_waits():
    script = Script()
    models = table(script)
    script.hold_load = asyncio.Event()
    script.load_errors = [InvalidFileError("bad")]
    users = [asyncio.create_task(use(models, "a")) for _ in range(3)]
    await settle()
    script.hold_load.set()
    found = await asyncio.gather(*users, return_exceptions=True)
    assert [type(error) for error in found] == [InvalidFileError] * 3
    assert await use(models, "a")
    await models.close()


@scenario
async def test_close_finishes_loads_unloads_and_refuses():
    script = Script()
    models = table(script)
    await use(models, "a")
    script.hold_load = asyncio.Event()
    waiting = asyncio.create_task(use(models, "b"))
    await settle()
    closing = asyncio.create_task(models.close())
    await settle()
    with pytest.raises(ClosedError):
        await use(models, "a")
    script.hold_load.set()
    await closing
    await asyncio.gather(waiting, return_exceptions=True)
    await settle()
    assert sorted(script.unloads) == [Path("a"), Path("b")]
    assert names(models) == []


# ---- the memory budget ----


def held(models):
    return models.state().memory_used


@scenario
async def test_models_share_the_budget_and_the_least_recently_used_ones_leave():
    script = Script()
    script.sizes = {"a": 400, "b": 400, "c": 700, "d": 100}
    models = table(script, max_loaded=9, memory=1000)
    for name in "abda":
        await use(models, name)
    assert (script.unloads, held(models)) == ([], 900)
    await use(models, "c")
    assert script.unloads == [Path("b"), Path("d"), Path("a")], "one by one, until it fits"
    assert (held(models), models.state().evictions) == (700, 3)
    await models.close()
    assert held(models) == 0


@scenario
async def test_a_model_larger_than_the_budget_is_refused_and_evicts_nobody():
    script = Script()
    script.sizes = {"huge": 1001, "a": 500}
    models = table(script, memory=1000)
    await use(models, "a")
    with pytest.raises(OutOfMemoryError, match="huge needs 1001 of 1000"):
        await use(models, "huge")
    assert names(models) == ["a"]
    assert [path.name for path, _ in script.loads] == ["a"], "nothing was begun"
    await models.close()


@scenario
async def test_a_request_beyond_memory_leaves_the_loaded_model_alone():
    script = Script()
    script.sizes = {"a": 500}
    models = table(script, memory=1000)
    await use(models, "a", 100)
    script.sizes = {"a": 5000}  # with so long a context
    with pytest.raises(OutOfMemoryError):
        await use(models, "a", 200)
    assert script.unloads == []
    assert (await use(models, "a", 100)).context == 100
    await models.close()


@scenario
async def test_a_model_that_does_not_fit_beside_a_busy_one_waits_for_it():
    script = Script()
    script.sizes = {"a": 600, "b": 600}
    models = table(script, memory=1000)
    async with models.lease(source("a"), 100):
        other = asyncio.create_task(use(models, "b"))
        await settle()
        assert (script.unloads, len(script.loads), models.state().waiting) == ([], 1, 1)
    await other
    assert script.unloads == [Path("a")]
    await models.close()


@scenario
async def test_requests_that_come_at_once_measure_once():
    script = Script()
    models = table(script)
    loader, asked = models._loader, []
    measure = loader.needs

    async def needs(path, **arguments):
        asked.append(path)
        return await measure(path, **arguments)

    loader.needs = needs
    await asyncio.gather(*(use(models, "a") for _ in range(8)))
    assert asked == [Path("a")]
    await models.close()


# ---- loads that hang ----


@scenario
async def test_a_load_without_progress_is_given_up():
    script = Script()
    models = table(script, load_timeout_s=0.05)
    script.hold_load, script.progress = asyncio.Event(), [0.25] * 3
    users = [asyncio.create_task(use(models, "a")) for _ in range(2)]
    for error in await asyncio.gather(*users, return_exceptions=True):
        assert isinstance(error, LoadTimeoutError)
        assert str(error) == "timed out waiting for the model to load: no progress for 0.05 s after 25%"
    await settle()
    state = models.state()
    assert (state.memory_used, state.users, state.failed_loads, models.running()) == (0, 0, 1, [])
    script.hold_load = None
    assert await use(models, "a")
    await models.close()


@scenario
async def test_a_slow_load_that_makes_progress_is_waited_for():
    script = Script()
    models = table(script, load_timeout_s=0.05)
    script.hold_load, script.progress = asyncio.Event(), [n / 100 for n in range(100)]
    user = asyncio.create_task(use(models, "a"))
    while script.progress:  # noqa: ASYNC110  100 steps of a millisecond: longer than the time without progress
        await asyncio.sleep(0.001)
    script.hold_load.set()
    assert await user
    await models.close()


class StuckLoader(FakeLoader):
    """Its loads end only when the test says so, cancelled or not."""

    def __init__(self, script):
        super().__init__(script)
        self.release = asyncio.Event()

    async def load(self, path, **arguments):
        if path.name != "stuck":
            return await super().load(path, **arguments)
        try:
            await asyncio.Event().wait()
        finally:
            await self.release.wait()


@scenario
async def test_memory_of_a_load_that_hangs_counts_until_it_has_ended():
    script = Script()
    script.sizes = {"stuck": 600, "small": 300, "large": 600}
    loader = StuckLoader(script)
    settings = {"keep_alive_ns": FOREVER, "max_loaded": 1, "max_queue": 10, "parallel": 2}
    models = LoadedModels(loader, memory=1000, load_timeout_s=0.02, **settings)
    with pytest.raises(LoadTimeoutError):
        await use(models, "stuck")
    assert await use(models, "small"), "others load beside it"
    with pytest.raises(OutOfMemoryError, match="large needs 600 of 400"):
        await use(models, "large")
    assert names(models) == ["stuck"]
    assert models.running()[0].expires_at_ns <= time.time_ns()
    loader.release.set()
    await settle()
    assert await use(models, "large")
    await models.close()


# ---- what /api/ps shows ----


@scenario
async def test_running_is_true_while_loading_loaded_and_leaving():
    script = Script()
    models = table(script, keep_alive_ns=60 * SECOND)
    script.hold_load = asyncio.Event()
    user = asyncio.create_task(use(models, "a", 77))
    await settle()
    (loading,) = models.running()
    assert (loading.memory_bytes, loading.context) == (2000, 77)
    assert 0 < loading.expires_at_ns - time.time_ns() <= 60 * SECOND
    script.hold_load.set()
    engine = await user
    (loaded,) = models.running()
    assert loaded.memory_bytes == 1000
    gate = asyncio.Event()
    engine.unload = gate.wait
    leaving = asyncio.create_task(models.unload(Path("a")))
    await settle()
    (stopping,) = models.running()
    assert (stopping.source.name, stopping.expires_at_ns <= time.time_ns(), held(models)) == ("a:latest", True, 2000)
    gate.set()
    await leaving
    assert models.running() == []
    await models.close()


@scenario
async def test_a_model_asked_to_leave_while_in_use_shows_no_time_left():
    models = table(Script())
    async with models.lease(source("a"), 100):
        await models.unload(Path("a"))
        assert models.running()[0].expires_at_ns <= time.time_ns()
    await settle()
    assert models.running() == []
    await models.close()


@scenario
async def test_as_many_requests_run_as_the_engine_says_unless_configured():
    for parallel, expected in ((0, 4), (2, 2)):
        models = table(Script(), parallel=parallel)
        async with AsyncExitStack() as stack:
            for _ in range(expected):
                await stack.enter_async_context(models.lease(source("a"), 100))
            more = asyncio.create_task(use(models, "a"))
            await settle()
            assert models.state().waiting == 1
        await more
        await models.close()
