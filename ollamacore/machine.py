"""What this machine offers: cores that may be used and memory that may be taken."""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def _read(path: Path | str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _quota_cores() -> float:
    """Cores that the control group's CPU quota pays for (v2, then v1); infinite without one."""
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")
    if not period:
        quota = _read(_CGROUP / "cpu/cpu.cfs_quota_us").strip()
        period = _read(_CGROUP / "cpu/cpu.cfs_period_us")
    try:
        cores = int(quota) / int(period)
    except ValueError:
        return float("inf")
    return cores if cores > 0 else float("inf")


def usable_threads() -> int:
    """Threads that compute well here: $OLLAMACORE_THREADS, else physical cores within affinity and CPU quota."""
    asked = os.environ.get("OLLAMACORE_THREADS", "").strip()
    if asked.isdigit() and int(asked) > 0:
        return min(int(asked), 64)
    try:
        cpus = os.sched_getaffinity(0)
    except AttributeError:
        cpus = set(range(os.cpu_count() or 1))
    cores = {_read(_TOPOLOGY.format(cpu)).strip() or str(cpu) for cpu in cpus}
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
