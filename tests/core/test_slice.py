"""Time slices of the threads that compute: long ones where the system has them, and nothing else changes."""

import ctypes
import os
import platform
import struct
import threading
from pathlib import Path

import ollamacore
from ollamacore import _core
from tests.generate.tiny import tiny_model

GETATTR = {"x86_64": 315, "aarch64": 275}
#: the kernel's struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period
ATTRIBUTES = struct.Struct("=IIQiIQQQ")


def attributes(thread=0):
    """(policy, nice, slice in ns or 0) of a thread, None where the system cannot tell."""
    number = GETATTR.get(platform.machine()) if platform.system() == "Linux" else None
    found = ctypes.create_string_buffer(ATTRIBUTES.size)
    if number is None or ctypes.CDLL(None).syscall(number, thread, found, ATTRIBUTES.size, 0) != 0:
        return None
    _, policy, _, nice, _, slice_ns, _, _ = ATTRIBUTES.unpack(found.raw)
    return policy, nice, slice_ns


def in_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def lengthened():
    _core.lengthen_slice()
    return attributes()


def test_only_the_slice_changes():
    usual, long = in_thread(attributes), in_thread(lengthened)
    assert (usual is None) == (long is None)
    if usual is not None:
        assert usual[:2] == long[:2], "policy and priority are the user's"
        knows_slices = usual[2] > 0  # Linux 6.12
        assert long[2] == (20_000_000 if knows_slices else 0)
    assert in_thread(attributes) == usual, "another thread keeps its own"


def test_threads_that_compute_have_long_slices(tmp_path):
    path = tiny_model(tmp_path / "tiny.gguf", "llama", tensor_type="Q8_0")
    with ollamacore.load(path, threads=2) as model:
        model.generate([5] * 40, num_predict=8).text()
        engine_thread = model._scheduler.call(lambda engine: attributes())
        assert engine_thread == in_thread(lengthened)
        if engine_thread is not None and engine_thread[2] > 0:
            threads = [attributes(int(entry)) for entry in os.listdir("/proc/self/task")]
            assert sum(entry is not None and entry[2] == engine_thread[2] for entry in threads) >= 2
            assert attributes() != engine_thread, "not the caller's"


def test_a_thread_with_a_policy_of_its_own_keeps_it():
    def run():
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        before = attributes()
        return before, lengthened()

    if hasattr(os, "SCHED_IDLE") and Path("/proc/self/task").exists():
        before, after = in_thread(run)
        assert before == after
