"""Default thread count: affinity, control group quotas of both versions, and the environment's word over both."""

import pytest

from ollamacore import machine


@pytest.fixture
def cpus(monkeypatch, tmp_path):
    """Eight processors on cores of their own and no quota; returns the control group mount."""
    monkeypatch.delenv("OLLAMACORE_THREADS", raising=False)
    monkeypatch.setattr(machine, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "_TOPOLOGY", str(tmp_path / "cpu{}"))
    monkeypatch.setattr(machine, "allowed_cpus", lambda: set(range(8)))
    return tmp_path


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("cpu_", "cpu.", 1)).write_text(text)


def test_threads_without_quota_are_one_per_core(cpus):
    assert machine.usable_threads() == 8


def test_threads_of_hyperthreads_are_one_per_core(cpus):
    for cpu in range(8):
        (cpus / f"cpu{cpu}").write_text(f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}\n")
    assert machine.usable_threads() == 4


@pytest.mark.parametrize(
    ("quota", "threads"),
    [("max 100000", 8), ("300000 100000", 3), ("150000 100000", 2), ("10000 100000", 1), ("nonsense", 8)],
)
def test_threads_keep_to_the_quota_of_a_container(cpus, quota, threads):
    (cpus / "own").write_text("0::/\n")
    write(cpus / "cgroup", cpu_max=quota + "\n")
    assert machine.usable_threads() == threads


def test_threads_keep_to_the_smallest_quota_above(cpus):
    (cpus / "own").write_text("0::/system.slice/ollama.service\n")
    write(cpus / "cgroup/system.slice", cpu_max="200000 100000\n")
    write(cpus / "cgroup/system.slice/ollama.service", cpu_max="500000 100000\n")
    assert machine.usable_threads() == 2


def test_threads_keep_to_a_quota_of_version_1(cpus):
    (cpus / "own").write_text("9:name=systemd:/\n3:cpu,cpuacct:/jobs/one\n1:memory:/\n")
    write(cpus / "cgroup/cpu,cpuacct/jobs", cpu_cfs_quota_us="-1\n", cpu_cfs_period_us="100000\n")
    write(cpus / "cgroup/cpu,cpuacct/jobs/one", cpu_cfs_quota_us="250000\n", cpu_cfs_period_us="100000\n")
    assert machine.usable_threads() == 3


def test_environment_overrides_threads(cpus, monkeypatch):
    monkeypatch.setenv("OLLAMACORE_THREADS", "12")
    assert machine.usable_threads() == 12
    monkeypatch.setenv("OLLAMACORE_THREADS", "many")
    assert machine.usable_threads() == 8
