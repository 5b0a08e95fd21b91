"""Where figures are kept: bench/results/<processor>-<cores>/<name>.json."""

import json
import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def cpu_name() -> str:
    """The processor's name, from the kernel where it tells one."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def save(name: str, settings: dict[str, Any], figures: dict[str, Any]) -> Path:
    """Keep figures, and what they were measured with."""
    machine = f"{re.sub(r'[^a-z0-9]+', '-', cpu_name().lower()).strip('-')}-{os.cpu_count()}"
    target = ROOT / "bench" / "results" / machine / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    about = {**settings, "cpu": cpu_name(), "time": datetime.now(UTC).isoformat(timespec="seconds")}
    target.write_text(json.dumps({**about, **figures}, indent=1) + "\n")
    return target
