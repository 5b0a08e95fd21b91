"""Requests per second of our HTTP server and of uvicorn with httptools, answering the same bytes.

    python -m bench.http [--rounds 5] [--seconds 3] [--connections 32] [--save]

One process each, on uvloop both, driven by `wrk` in turns. Prints medians and the ratio of each round's two figures.
Needs wrk, uvicorn and httptools. `--save` adds the run to those kept under bench/results.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import version

from bench.machine import results_file, stamp

PORTS = {"ollamacore": 18434, "uvicorn": 18435}
APPLICATION = '''
BODY = b'{"version":"0.33.0"}'
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json; charset=utf-8"),
        (b"content-length", str(len(BODY)).encode())]}
TAIL = {"type": "http.response.body", "body": BODY}

async def app(scope, receive, send):
    await send(HEAD)
    await send(TAIL)
'''
OURS = """
import asyncio, dataclasses, pathlib, tempfile
from server.app import run, serve
from server.config import Config
run(serve(Config(port={port}, models=pathlib.Path(tempfile.mkdtemp()))))
"""
UVICORN = """
import uvicorn
{application}
uvicorn.run(app, port={port}, http="httptools", loop="uvloop", log_level="critical", access_log=False, lifespan="off")
"""


def start(name: str) -> subprocess.Popen[bytes]:
    """A server process that answers."""
    port = PORTS[name]
    code = OURS.format(port=port) if name == "ollamacore" else UVICORN.format(application=APPLICATION, port=port)
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/version") as answer:
                assert answer.read() == b'{"version":"0.33.0"}', "the servers must answer the same bytes"
                return process
        except OSError:
            time.sleep(0.05)
    process.kill()
    sys.exit(f"{name} does not answer")


def rate(name: str, seconds: int, connections: int) -> float:
    """Requests per second as wrk counts them."""
    url = f"http://127.0.0.1:{PORTS[name]}/api/version"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", url]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in report or "Socket errors" in report:
        sys.exit(f"{name}: {report}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", report)[1])


def keep(run: dict[str, object]) -> None:
    """Add a run to those kept."""
    target = results_file("http")
    runs = json.loads(target.read_text())["runs"] if target.exists() else []
    target.write_text(json.dumps({"runs": [*runs, run]}, indent=1) + "\n")


def main() -> None:
    """Alternate between the two and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--save", action="store_true", help="keep the figures under bench/results")
    args = parser.parse_args()
    processes = [start(name) for name in PORTS]
    try:
        rates = {name: [] for name in PORTS}
        for _ in range(args.rounds):
            for name in PORTS:
                rates[name].append(rate(name, args.seconds, args.connections))
    finally:
        for process in processes:
            process.terminate()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratio = statistics.median(ours / theirs for ours, theirs in zip(*rates.values(), strict=True))
    for name, value in medians.items():
        print(f"{name:12} {value:10.0f} requests/s")
    print(f"ratio        {ratio:10.2f}")
    if args.save:
        peers = {name: version(name) for name in ("uvicorn", "httptools", "uvloop")}
        settings = {"seconds": args.seconds, "connections": args.connections, "peers": peers}
        keep({**stamp(), **settings, "requests_per_second": rates, "ratio": round(ratio, 3)})


if __name__ == "__main__":
    main()
