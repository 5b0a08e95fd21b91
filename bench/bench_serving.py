"""The figures of serving: a real server process, and clients in other processes on the same cores.

    python -m bench.bench_serving MODEL.gguf [--threads 2] [--rounds 3] [--only NAME] [--save]

streams     tokens per second of 8 streams at once over those of one
second_turn time to the first token of a chat's second turn over that of the first, 1,000 tokens of history
control     latency of GET /api/version while 8 streams run and a prompt of 4,000 tokens is computed
pace        time between the tokens of a stream while such a prompt is computed, over the median before the prompt came,
            and over that of the same tokens alone: a stream of some thousand tokens is slower by itself at its end
cancel      time from a disconnect to the sequence's end, seen by the next request in a server with one slot
clients     256 clients at temperature 0: texts that differ from those of single requests, and errors
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.machine import ROOT, save
from server.store.create import CreateSpec, create_model
from server.store.names import ModelName
from server.store.store import Store

STREAMS = 8
TOKENS = 96
LONG_PROMPT = 4000
HISTORY = 1000
CLIENTS = 256
CONTEXT = 8192
ENDLESS = 7000  # tokens of a stream that shall not end by itself
TRIAL = 200  # tokens after which a stream that has not ended is taken for one of these
WORDS = ("river", "stone", "lamp", "garden", "window", "paper", "horse", "silver",
         "evening", "bridge", "letter", "music", "harbour", "winter", "bread")  # fmt: skip


def words(count: int, start: int) -> str:
    """About `count` tokens of text that shares no prefix with another start."""
    return " ".join(WORDS[(start * 7 + n * n + n // 3) % len(WORDS)] for n in range(start % 97, start % 97 + count))


def endless(start: int) -> str:
    """A prompt that a greedy model repeats, mostly for ever."""
    return f"{start}: " + f"{WORDS[start % 15]} {WORDS[start * 7 % 15]} and " * 12


class Served:
    """A server process with one model."""

    def __init__(self, model: Path, folder: Path, threads: int, **environment: str) -> None:
        store = Store(folder)
        digest = store.add_file(model)
        create_model(store, CreateSpec(name=ModelName.parse("bench"), files={model.name: digest}), lambda record: None)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        settings = {
            "OLLAMA_HOST": f"127.0.0.1:{self.port}",
            "OLLAMA_MODELS": str(folder),
            "OLLAMA_KEEP_ALIVE": "-1",
            "OLLAMA_CONTEXT_LENGTH": str(CONTEXT),
            "OLLAMACORE_THREADS": str(threads),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "server"],
            cwd=ROOT,
            env={**os.environ, **settings, **environment},
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> "Served":
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                if self._process.poll() is not None:
                    sys.exit("the server did not start")
                time.sleep(0.02)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


@dataclass(slots=True)
class Answer:
    """One streamed answer and when its parts came."""

    began: float
    text: str = ""
    times: list[float] = field(default_factory=list)
    final: dict[str, Any] = field(default_factory=dict)

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.times[0] - self.began


async def post(port: int, path: str, body: dict[str, Any], answer: Answer | None = None) -> Answer:
    """Stream an answer; `answer` is filled while it comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps({"model": "bench", **body}).encode()
    answer = answer or Answer(0)
    answer.began = time.perf_counter()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    try:
        status = await reader.readline()
        await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in status:
            raise RuntimeError(status.decode())
        while size := int(await reader.readline(), 16):
            record = json.loads((await reader.readexactly(size + 2))[:-2])
            answer.times.append(time.perf_counter())
            if "error" in record:
                raise RuntimeError(record["error"])
            answer.text += record["response"] if "response" in record else record["message"]["content"]
            if record["done"]:
                answer.final = record
    finally:
        writer.close()
    return answer


def generate(port: int, prompt: str, tokens: int, answer: Answer | None = None) -> Awaitable[Answer]:
    """A greedy completion of a bare prompt."""
    options = {"temperature": 0, "num_predict": tokens}
    return post(port, "/api/generate", {"prompt": prompt, "raw": True, "options": options}, answer)


async def throughput(port: int, streams: int, salt: int) -> float:
    """Tokens per second of some streams at once."""
    began = time.perf_counter()
    answers = await asyncio.gather(*(generate(port, f"{salt + n}. The {WORDS[n]} was", TOKENS) for n in range(streams)))
    return sum(answer.final["eval_count"] for answer in answers) / (time.perf_counter() - began)


async def streams(port: int, rounds: int) -> dict[str, Any]:
    single, many = [], []
    for number in range(rounds):
        single.append(await throughput(port, 1, 100 * number + 1000))
        many.append(await throughput(port, STREAMS, 100 * number))
    one, eight = statistics.median(single), statistics.median(many)
    return {"one_tokens_per_s": one, "eight_tokens_per_s": eight, "ratio": eight / one, "goal": ">= 1.8"}


async def second_turn(port: int, rounds: int) -> dict[str, Any]:
    first, second = [], []
    for number in range(rounds):
        messages = [{"role": "user", "content": f"{number} {words(HISTORY, number + 3)}"}]
        options = {"temperature": 0, "num_predict": 24}
        answer = await post(port, "/api/chat", {"messages": messages, "options": options})
        first.append(answer.first)
        messages += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": "And then?"}]
        again = await post(port, "/api/chat", {"messages": messages, "options": options})
        second.append(again.first)
    one, two = statistics.median(first), statistics.median(second)
    tokens = answer.final["prompt_eval_count"]
    return {"first_s": one, "second_s": two, "history_tokens": tokens, "ratio": two / one, "goal": "<= 0.05"}


def ping(port: int, stop: Any, found: Any) -> None:
    """GET /api/version every few milliseconds until told to stop; sends (time, seconds) pairs."""
    latencies = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while not stop.is_set():
            began = time.perf_counter()
            connection.sendall(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if not connection.recv(4096):
                sys.exit("the server closed the connection")
            latencies.append((began, time.perf_counter() - began))
            time.sleep(0.003)
    found.put(latencies)


def percentile(values: list[float], share: float) -> float:
    """The value below which a share of all lies."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


async def endless_prompts(port: int, count: int, salt: int) -> list[str]:
    """The first prompts from a number on that the model does repeat."""
    found: list[str] = []
    while len(found) < count:
        prompts = [endless(salt + n) for n in range(count)]
        answers = await asyncio.gather(*(generate(port, prompt, TRIAL) for prompt in prompts))
        found += [p for p, answer in zip(prompts, answers, strict=True) if answer.final["done_reason"] == "length"]
        salt += count
    return found[:count]


@asynccontextmanager
async def running_streams(port: int, count: int, salt: int) -> AsyncIterator[list[Answer]]:
    """Streams that go on for as long as the block lasts."""
    prompts = await endless_prompts(port, count, salt)
    running = [Answer(0) for _ in range(count)]
    tasks = [asyncio.create_task(generate(port, prompts[n], ENDLESS, running[n])) for n in range(count)]
    try:
        yield running
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.3)


async def reached(running: list[Answer], count: int) -> None:
    """Wait until every stream has so many tokens."""
    while not all(len(answer.times) > count for answer in running):
        if any(answer.final for answer in running):
            raise RuntimeError("a stream has ended before the measurement")
        await asyncio.sleep(0.01)


async def beside_prompt(port: int, count: int, salt: int) -> tuple[list[Answer], tuple[float, float]]:
    """Streams that run while a long prompt is computed, and the time of that."""
    async with running_streams(port, count, salt) as running:
        await reached(running, 160)
        prompt = await generate(port, f"{salt} {words(LONG_PROMPT, salt)}", 1)
    return running, (prompt.began, prompt.times[0])


async def control(port: int, rounds: int) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    stop, found = context.Event(), context.Queue()
    pinger = context.Process(target=ping, args=(port, stop, found))
    pinger.start()
    spans = [(await beside_prompt(port, STREAMS, 5000 + 31 * number))[1] for number in range(rounds)]
    stop.set()
    latencies = await asyncio.to_thread(found.get)
    pinger.join()
    busy = [seconds * 1000 for at, seconds in latencies if any(begin <= at < end for begin, end in spans)]
    return {
        "p50_ms": statistics.median(busy),
        "p99_ms": percentile(busy, 0.99),
        "max_ms": max(busy),
        "pings": len(busy),
        "prompt_s": statistics.median(end - begin for begin, end in spans),
        "goal": "<= 25",
    }


def gaps(times: list[float], begin: float, end: float) -> list[float]:
    """Milliseconds between tokens inside a span of time."""
    inside = [at for at in times if begin <= at <= end]
    return [1000 * (later - earlier) for earlier, later in pairwise(inside)]


async def pace(port: int, rounds: int) -> dict[str, Any]:
    figures: dict[str, Any] = {"goal": "<= 4"}
    for count, name in ((1, "one_stream"), (STREAMS, "eight_streams")):
        before, alone, busy, took = [], [], [], []
        for number in range(rounds):
            salt = 9000 + 29 * number + 1000 * count
            running, (begin, end) = await beside_prompt(port, count, salt)
            took.append(end - begin)
            before += [gap for answer in running for gap in gaps(answer.times, answer.times[10], begin)]
            busy += [gap for answer in running for gap in gaps(answer.times, begin, end)]
            last = min(sum(at <= end for at in answer.times) for answer in running)
            async with running_streams(port, count, salt) as again:
                await reached(again, last)
            alone += [gap for answer in again for gap in gaps(answer.times, answer.times[60], answer.times[last])]
        medians = {"before_median_ms": statistics.median(before), "alone_median_ms": statistics.median(alone)}
        p99 = percentile(busy, 0.99)
        figures[name] = {**medians, "busy_median_ms": statistics.median(busy), "busy_p99_ms": p99,
                         "prompt_s": statistics.median(took), "ratio": p99 / medians["before_median_ms"],
                         "ratio_to_same_tokens": p99 / medians["alone_median_ms"]}  # fmt: skip
    return figures


async def cancel(port: int, rounds: int) -> dict[str, Any]:
    """With one slot: the time to the first token of a request that waits behind one whose client leaves."""
    found: dict[str, list[float]] = {"alone": [], "answer": [], "prompt": []}
    for number in range(3 * rounds):
        found["alone"].append((await generate(port, f"{number} alone", 1)).first)
        for phase, prompt in (("answer", "The"), ("prompt", words(LONG_PROMPT, 70 + number))):
            leaving = Answer(0)
            task = asyncio.create_task(generate(port, f"{number} {prompt} {endless(number)}", 2000, leaving))
            if phase == "answer":
                while not leaving.times:  # noqa: ASYNC110  progress, not an event
                    await asyncio.sleep(0.005)
            else:
                await asyncio.sleep(0.3)
            waiting = asyncio.create_task(generate(port, f"{number} {phase}", 1))
            await asyncio.sleep(0.05)
            left = time.perf_counter()
            task.cancel()
            found[phase].append((await waiting).times[0] - left)
    return {**{f"{name}_max_ms": 1000 * max(values) for name, values in found.items()}, "goal": "<= 300"}


async def clients(port: int, rounds: int) -> dict[str, Any]:
    prompts = [f"{n}: {words(5 + n % 20, n)}" for n in range(CLIENTS)]
    alone = [(await generate(port, prompt, 4)).text for prompt in prompts]
    began = time.perf_counter()
    together = await asyncio.gather(*(generate(port, prompt, 4) for prompt in prompts), return_exceptions=True)
    seconds = time.perf_counter() - began
    errors = sum(isinstance(answer, BaseException) for answer in together)
    same = sum(isinstance(answer, Answer) and answer.text == text for answer, text in zip(together, alone, strict=True))
    return {
        "clients": CLIENTS,
        "errors": errors,
        "different": CLIENTS - errors - same,
        "seconds": seconds,
        "goal": "0, 0",
    }


MEASURES: dict[str, tuple[Callable[[int, int], Awaitable[dict[str, Any]]], dict[str, str]]] = {
    "streams": (streams, {"OLLAMA_NUM_PARALLEL": "8"}),
    "second_turn": (second_turn, {}),
    "control": (control, {"OLLAMA_NUM_PARALLEL": "16"}),
    "pace": (pace, {"OLLAMA_NUM_PARALLEL": "16", "OLLAMACORE_LOOKUP": "0"}),  # drafts come in bursts
    "cancel": (cancel, {"OLLAMA_NUM_PARALLEL": "1"}),
    "clients": (clients, {}),
}


async def warm(port: int) -> None:
    """Load the model."""
    await generate(port, "warm up", 8)


def shown(value: Any) -> Any:
    """Figures to three places."""
    if isinstance(value, dict):
        return {name: shown(inner) for name, inner in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.bench_serving", description=__doc__, formatter_class=raw)
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=MEASURES, action="append", help="measure this alone; may be repeated")
    parser.add_argument("--save", action="store_true", help="keep the figures under bench/results")
    args = parser.parse_args()
    figures = {}
    for name in args.only or MEASURES:
        measure, environment = MEASURES[name]
        with (
            tempfile.TemporaryDirectory() as folder,
            Served(args.model, Path(folder), args.threads, **environment) as served,
        ):
            asyncio.run(warm(served.port))
            figures[name] = shown(asyncio.run(measure(served.port, args.rounds)))  # type: ignore[arg-type]
        print(name, json.dumps(figures[name]), flush=True)
    if args.save:
        settings = {"model": args.model.name, "threads": args.threads, "rounds": args.rounds}
        print(save(f"serving-{args.model.stem.lower()}-{args.threads}t", settings, figures))


if __name__ == "__main__":
    main()
