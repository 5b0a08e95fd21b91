"""The in-process engine over a stand-in for ollamacore.Model: chunks come by mailbox, leaving cancels."""

import asyncio
import os
import threading
from contextlib import aclosing, asynccontextmanager

import pytest

from ollamacore import Chunk, EngineError, SamplingOptions
from server.models.engine import INLINE_CHARACTERS, LocalEngine, Progress
from server.models.mailbox import Mailbox


class Handle:
    def __init__(self):
        self.cancelled = False

    def cancel(self):
        self.cancelled = True


class StandIn:
    """The methods of a Model that the engine uses; chunks come from another thread, which rings behind each."""

    class tokenizer:
        bos = 1

    n_vocab = 10
    memory_bytes = 5
    max_context = 7

    def __init__(self, *chunks):
        self.text = self
        self.chunks = chunks
        self.handle = Handle()
        self.threads = []
        self.bell = None

    def submit(self, tokens, options, on_chunk, on_progress=None, constraint=None, answer=None):
        if on_progress is not None:
            on_progress(1)
        threading.Thread(target=self.give, args=(on_chunk,)).start()
        return self.handle

    def give(self, on_chunk):
        for chunk in self.chunks:
            on_chunk(chunk)
            os.write(self.bell, bytes(8))

    def close(self):
        pass

    def tokenize_prompt(self, text):
        self.threads.append(threading.current_thread())
        return [1, 2]

    def tokenize(self, text, *, add_special):
        assert not add_special
        return [1, 3] if text == "<bos>" else [3]


@asynccontextmanager
async def engine_over(model):
    mailbox = Mailbox()
    model.bell = mailbox.bell
    engine = LocalEngine(model, mailbox)
    yield engine
    await engine.unload()


async def collect(model):
    async with engine_over(model) as engine, aclosing(engine.generate([1], SamplingOptions())) as chunks:
        return [chunk.text async for chunk in chunks]


async def call(model, method, *args, **options):
    async with engine_over(model) as engine:
        return await getattr(engine, method)(*args, **options)


def test_generate_yields_every_chunk_and_does_not_cancel_a_finished_run():
    model = StandIn(Chunk("a"), Chunk("b"), Chunk("c", done_reason="stop"))
    assert asyncio.run(collect(model)) == ["a", "b", "c"]
    assert not model.handle.cancelled


def test_progress_comes_before_the_chunks_if_asked_for():
    async def kinds(progress):
        model = StandIn(Chunk("a", done_reason="stop"))
        async with (
            engine_over(model) as engine,
            aclosing(engine.generate([1, 2], SamplingOptions(), progress=progress)) as chunks,
        ):
            return [chunk if isinstance(chunk, Progress) else chunk.text async for chunk in chunks]

    assert asyncio.run(kinds(progress=True)) == [Progress(1, 2), "a"]
    assert asyncio.run(kinds(progress=False)) == ["a"]


def test_generate_raises_the_error_of_a_chunk():
    model = StandIn(Chunk("a"), Chunk("", done_reason="error", error=EngineError("broke")))
    with pytest.raises(EngineError, match="broke"):
        asyncio.run(collect(model))


def test_closing_between_chunks_cancels():
    async def scenario(model):
        async with (
            engine_over(model) as engine,
            aclosing(engine.generate([1], SamplingOptions())) as chunks,
        ):
            await anext(chunks)

    model = StandIn(Chunk("a"))
    asyncio.run(scenario(model))
    assert model.handle.cancelled


def test_cancelling_a_task_that_waits_for_a_chunk_cancels():
    async def scenario(model):
        task = asyncio.create_task(collect(model))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    model = StandIn()
    asyncio.run(scenario(model))
    assert model.handle.cancelled


def test_tokenize_begins_a_prompt_or_continues_one():
    assert asyncio.run(call(StandIn(), "tokenize", "x")) == [1, 2]
    assert asyncio.run(call(StandIn(), "tokenize", "x", add_special=False)) == [3]
    assert asyncio.run(call(StandIn(), "tokenize", "<bos>", add_special=False)) == [3]


def test_tokenize_of_long_text_leaves_the_loop():
    model = StandIn()
    asyncio.run(call(model, "tokenize", "x" * (INLINE_CHARACTERS + 1)))
    assert model.threads[0] is not threading.current_thread()


@pytest.mark.parametrize(("tokens", "expected"), [([], True), ([0, 9], True), ([10], False), ([-1], False)])
def test_accepts_only_tokens_of_the_vocabulary(tokens, expected):
    assert LocalEngine(StandIn(), mailbox=None).accepts(tokens) is expected
