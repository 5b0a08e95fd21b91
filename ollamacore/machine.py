"""What this machine offers: cores that may be used, memory that may be taken, instructions that can be trusted."""

import os
from pathlib import Path

from ollamacore import _core

_CGROUP = Path("/sys/fs/cgroup")
_OWN_GROUPS = "/proc/self/cgroup"
_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def _read(path: Path | str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _cpu_groups() -> list[Path]:
    """Folders of the control groups whose CPU quotas bind this process: its own, v2 and v1, and all above."""
    folders = []
    for line in _read(_OWN_GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = _CGROUP / controllers if (_CGROUP / controllers).is_dir() else _CGROUP / "cpu"
        own = Path(path.lstrip("/"))
        folders += [mount / part for part in (own, *own.parents)]
    return folders or [_CGROUP]


def _quota_cores() -> float:
    """Cores that the CPU quotas pay for; infinite without one."""
    least = float("inf")
    for folder in _cpu_groups():
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not period:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        try:
            cores = int(quota) / int(period)
        except ValueError:
            continue
        least = min(least, cores if cores > 0 else least)
    return least


def allowed_cpus() -> set[int]:
    """Logical processors that this process may run on."""
    try:
        return os.sched_getaffinity(0)
    except AttributeError:
        return set(range(os.cpu_count() or 1))


def usable_threads() -> int:
    """Threads that compute well here: $OLLAMACORE_THREADS, else physical cores within affinity and CPU quota."""
    asked = os.environ.get("OLLAMACORE_THREADS", "").strip()
    if asked.isdigit() and int(asked) > 0:
        return min(int(asked), 64)
    cores = {_read(_TOPOLOGY.format(cpu)).strip() or str(cpu) for cpu in allowed_cpus()}
    return max(1, min(len(cores), int(min(_quota_cores() + 0.5, 64)), 64))


def lookup_wanted() -> bool:
    """Whether prompt lookup may be used: yes, unless $OLLAMACORE_LOOKUP is 0."""
    return os.environ.get("OLLAMACORE_LOOKUP", "").strip() != "0"


def available_memory() -> int:
    """Bytes that can be taken without swapping, within the control group's limit."""
    available = 1 << 40
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            available = min(available, int(_read(_CGROUP / limit)) - int(_read(_CGROUP / used)))
        except ValueError:
            continue
    return max(available, 0)


def refused_kernels() -> list[str]:
    """Kernels that this processor claims to run but that gave wrong products at import: lesser ones run instead."""
    rows, chosen = _core.kernel_rows(), set(_core.chosen_rows())
    best = {rows[index][:2]: index for index in chosen}
    return [row[2] for index, row in enumerate(rows) if row[5] and index > best[row[:2]]]
