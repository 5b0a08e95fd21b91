"""Where figures are kept, and what they were measured on."""

import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def cpu_name() -> str:
    """The processor's name, from the kernel where it tells one."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def commit() -> str:
    """The commit that is measured, with a + if files differ from it."""
    command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def stamp() -> dict[str, str]:
    """What every file of figures says about its origin."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"cpu": cpu_name(), "isa": os.environ.get("OLLAMACORE_CPU", "best"), "commit": commit(), "time": now}


def results_file(name: str) -> Path:
    """bench/results/<processor>-<cores>/<name>.json, in a folder that exists."""
    machine = f"{re.sub(r'[^a-z0-9]+', '-', cpu_name().lower()).strip('-')}-{os.cpu_count()}"
    target = ROOT / "bench" / "results" / machine / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def save(name: str, settings: dict[str, Any], figures: dict[str, Any]) -> Path:
    """Keep figures, and what they were measured with."""
    target = results_file(name)
    target.write_text(json.dumps({**settings, **stamp(), **figures}, indent=1) + "\n")
    return target
