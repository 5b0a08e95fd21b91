"""The server under load, with a real engine: hundreds of clients at once, and hundreds that leave at any moment."""

import asyncio
import json
import os
import random
import socket
import struct
import threading
import time

import pytest

from server.models.engine import LocalLoader
from server.times import FOREVER
from tests.generate.tiny import tiny_model
from tests.generate.vocabulary import Vocabulary
from tests.server.live import LiveServer

CONTEXT = 4096


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("load")
    path = tiny_model(folder / "tiny.gguf", "llama", tensor_type="Q8_0", context=CONTEXT)
    settings = {"keep_alive_ns": FOREVER, "context_length": CONTEXT, "num_parallel": 6, "max_queue": 1000}
    with LiveServer(folder / "models", LocalLoader(2), **settings) as server:
        server.add_model("tiny", path)
        ask(server, "x", 1)
        yield server


def request(prompt, tokens, **options):
    options = {"temperature": 0, "num_predict": tokens, **options}
    body = json.dumps({"model": "tiny", "prompt": prompt, "raw": True, "options": options}).encode()
    return b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def connect(live):
    return socket.create_connection(address(live), 120)


def address(live):
    host, port = live.url.removeprefix("http://").split(":")
    return host, int(port)


def text_of(data):
    """The text of a chunked answer, each of its lines a record; the status must be 200."""
    head, _, rest = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    records = [json.loads(line) for line in rest.split(b"\r\n")[1::2] if line]
    assert records[-1]["done_reason"] in ("length", "stop"), records[-1]
    assert [record["done"] for record in records[:-1]] == [False] * (len(records) - 1)
    return "".join(record["response"] for record in records)


def ask(live, prompt, tokens):
    with connect(live) as client:
        client.sendall(request(prompt, tokens))
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            part = client.recv(65536)
            assert part, data
            data += part
    return text_of(data)


def model_state(live):
    return live.call(live.context.models.state).models["tiny:latest"]


def engine_of(live):
    (entry,) = live.context.models._held
    return entry.engine._model


def blocks_after_clearing(live):
    """KV blocks in use once nothing runs and the prefix cache is empty."""
    scheduler = engine_of(live)._scheduler
    scheduler.call(lambda engine: scheduler._prefixes.clear())
    return model_state(live).kv_blocks_used


def is_idle(live):
    table = live.context.models.state()
    state = table.models["tiny:latest"]
    return table.users == table.waiting == state.running == state.waiting == 0


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_256_clients_at_once_get_the_text_that_each_gets_alone(live):
    prompts = [f"{'once upon a time ' * (n % 5)}client {n}" for n in range(256)]
    alone = [ask(live, prompt, 6) for prompt in prompts]
    assert len(set(alone)) > 50

    async def client(prompt):
        reader, writer = await asyncio.open_connection(*address(live))
        writer.write(request(prompt, 6))
        data = await reader.readuntil(b"0\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return text_of(data)

    async def together():
        async with asyncio.timeout(60):
            return await asyncio.gather(*(client(prompt) for prompt in prompts))

    assert asyncio.run(together()) == alone
    live.until(lambda: is_idle(live))
    state = model_state(live)
    assert state.kv_blocks_used == state.kv_blocks_cached
    assert state.finished["error"] == 0


def leave(client, rng):
    """Close a connection: half of them politely, half with a reset."""
    if rng.random() < 0.5:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def visit(live, rng):
    """Ask, and leave in the queue, in the prompt, or in the middle of the answer."""
    client = connect(live)
    prompt = "word " * rng.choice((1, 30, 300))
    data = request(f"{rng.random()} {prompt}", 1000)
    phase = rng.randrange(4)
    if phase == 0:  # before the request is whole
        client.sendall(data[: rng.randrange(1, len(data))])
    else:
        client.sendall(data)
    if phase == 2:
        time.sleep(rng.random() * 0.01)  # a moment of the server's, whatever it is doing
    elif phase == 3:
        client.recv(rng.choice((1, 200, 2000)))
    leave(client, rng)


def test_500_disconnects_leak_nothing_and_change_no_text(live):
    expected = ask(live, "witness", 200)
    live.until(lambda: is_idle(live))
    blocks_after_clearing(live)
    threads, open_files = threading.active_count(), descriptors()
    before = model_state(live)
    failures = []

    def worker(seed):
        rng = random.Random(seed)
        try:
            for _ in range(100):
                visit(live, rng)
        except Exception as error:  # noqa: BLE001  told below
            failures.append(error)

    workers = [threading.Thread(target=worker, args=(seed,)) for seed in range(5)]
    for thread in workers:
        thread.start()
    witnesses = []
    while any(thread.is_alive() for thread in workers):
        witnesses.append(ask(live, "witness", 200))
    assert failures == []
    assert set(witnesses) == {expected}
    live.until(lambda: is_idle(live))
    after = model_state(live)
    assert after.finished["cancelled"] - before.finished["cancelled"] > 100
    assert after.finished["error"] == 0
    assert after.kv_blocks_used == after.kv_blocks_cached
    assert blocks_after_clearing(live) == 0
    live.until(lambda: descriptors() <= open_files)
    assert threading.active_count() <= threads + 2, "the pool for blocking calls may have grown to its size"
    assert ask(live, "witness", 200) == expected


@pytest.mark.parametrize("phase", ["queue", "prompt", "answer"])
def test_a_client_that_leaves_frees_its_sequence_soon(live, phase):
    def running():
        state = live.context.models.state()
        return state.models["tiny:latest"].running

    # All six fit the pool together, and none of them ends by itself.
    endless = {"num_ctx": 512, "logit_bias": {str(Vocabulary("gpt2").end): -100}}
    held = []
    if phase == "queue":
        for _ in range(6):
            held.append(connect(live))
            held[-1].sendall(request("hold", 100_000, **endless))
        live.until(lambda: running() == 6)
    client = connect(live)
    prompt = {"queue": "x", "prompt": f"{time.time_ns()} word" * 3000, "answer": "hi"}[phase]
    client.sendall(request(prompt, 100_000))
    if phase == "answer":
        assert client.recv(100)
    before = model_state(live).finished["cancelled"]
    if phase == "queue":
        live.until(lambda: live.context.models.state().waiting == 1)
    else:
        live.until(lambda: running() == 1)
    client.close()
    if phase == "queue":
        live.until(lambda: live.context.models.state().waiting == 0)
        assert model_state(live).running == 6
    else:
        live.until(lambda: running() == 0)
        assert model_state(live).finished["cancelled"] == before + 1
    for other in held:
        other.close()
    live.until(lambda: is_idle(live))
