"""The store when the process is killed, or the disk fails, at each single system call.

A killed process is a forked child that ends with os._exit in place of its k-th call (or in the middle of it,
for a write), for every k until the work is done. A failing disk is an OSError from the k-th call.
"""

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from server.store.errors import NoSpaceError, StoreError
from server.store.manifests import Layer
from server.store.names import ModelName
from server.store.store import Store
from tests.server.store.conftest import blob_files, temp_files

M, N, OTHER = (ModelName.parse(text) for text in ("m", "n", "other"))
CALLS = ("open", "write", "fsync", "fchmod", "rename", "unlink", "mkdir", "rmdir")
KILLED = 9


def put(store, name, weights):
    layer = Layer.of("model", store.put_bytes(weights), len(weights))
    return store.put(name, b'{"of":"%s"}' % weights, [layer])


def weights_of(store, name):
    """What the name stands for, all of it checked; None if it is absent."""
    model = store.find(name)
    if model is None:
        return None
    data = store.verified_path(model.model_layer.digest).read_bytes()
    assert model.config == {"of": data.decode()}
    return data


def operations():
    return {
        "create": (lambda store: put(store, N, b"new"), (None, b"new"), N),
        "replace": (lambda store: put(store, M, b"new"), (b"old", b"new"), M),
        "copy": (lambda store: store.copy(OTHER, M), (b"old", b"other"), M),
        "delete": (lambda store: store.delete(M), (b"old", None), M),
        "collect": (lambda store: store.collect_garbage(grace_s=-10), (b"old",), M),
    }


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A models folder with two models and one blob that no model uses."""
    root = tmp_path_factory.mktemp("template") / "models"
    store = Store(root)
    put(store, M, b"old")
    put(store, OTHER, b"other")
    store.put_bytes(b"unused")
    return root


class Fault:
    """Counts the calls of the store and does something in place of the k-th."""

    def __init__(self, monkeypatch, at, act):
        self.count, self.at, self.act = 0, at, act
        for name in CALLS:
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name, call):
        def wrapper(*args, **kwargs):
            self.count += 1
            if self.count == self.at:
                self.act(name, call, args)
            return call(*args, **kwargs)

        return wrapper


def die(name, call, args):
    if name == "write":
        call(args[0], args[1][: len(args[1]) // 2])
    os._exit(KILLED)


def run_killed_at(step, root, operation):
    """Run the operation in a child that dies at the given call; whether it died."""
    pid = os.fork()
    if pid == 0:
        try:
            with pytest.MonkeyPatch.context() as patch:
                store = Store(root)
                Fault(patch, step, die)
                operation(store)
            os._exit(0)
        except BaseException:  # noqa: BLE001 (a child must never come back into pytest)
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, KILLED)
    return code == KILLED


def assert_sound(root, operation, name, states):
    """Each name is as it was or as it should become, nothing is left over, and doing it again works."""
    store = Store(root)
    assert weights_of(store, name) in states
    assert weights_of(store, OTHER) == b"other"
    assert not temp_files(root)
    if not (states[-1] is None and weights_of(store, name) is None):
        operation(store)
    assert weights_of(store, name) == states[-1]
    store.collect_garbage(grace_s=-10)
    assert weights_of(store, OTHER) == b"other"
    distinct = {weights_of(store, model.name) for model in store.list()}
    assert len(blob_files(root)) == 2 * len(distinct)
    assert len(list((root / "ollamacore" / "aliases").iterdir())) == 2 * len(distinct)


@pytest.mark.parametrize("action", operations())
def test_kill_at_any_call_leaves_old_or_new(action, template, tmp_path):
    operation, states, name = operations()[action]
    step, died = 0, True
    while died:
        step += 1
        root = tmp_path / str(step)
        shutil.copytree(template, root)
        died = run_killed_at(step, root, operation)
        if died or step == 1:
            assert_sound(root, operation, name, states)
        shutil.rmtree(root)
    assert step > 5


@pytest.mark.parametrize(
    ("action", "number"),
    [("replace", errno.ENOSPC), ("copy", errno.EIO), ("delete", errno.EIO), ("collect", errno.EIO)],
)
def test_failure_of_any_call_is_clean(action, number, template, tmp_path, monkeypatch):
    def fail(name, call, args):
        raise OSError(number, os.strerror(number), "/secret/path")

    operation, states, name = operations()[action]
    step, failed = 0, True
    while failed:
        step += 1
        root = tmp_path / str(step)
        shutil.copytree(template, root)
        store = Store(root)
        error = None
        with monkeypatch.context() as patch:
            fault = Fault(patch, step, fail)
            try:
                operation(store)
            except StoreError as raised:
                error = raised
        failed = fault.count >= step
        assert "secret" not in str(error)
        assert error is None or number != errno.ENOSPC or isinstance(error, NoSpaceError)
        assert weights_of(store, name) in states
        assert len(temp_files(root)) <= 1  # at most the one whose own removal failed
        assert_sound(root, operation, name, states)
        shutil.rmtree(root)
    assert step > 5


def test_everything_is_durable_before_the_manifest_names_it(root, monkeypatch):
    """The order rule: file synced, then renamed, then its folder synced; all blobs before the manifest."""
    store = Store(root)
    paths, synced, renamed_unsynced, order = {}, set(), set(), []
    real = {name: getattr(os, name) for name in ("open", "write", "fsync", "rename")}

    def opened(path, *args, **kwargs):
        fd = real["open"](path, *args, **kwargs)
        paths[fd] = Path(path)
        return fd

    def written(fd, data):
        synced.discard(paths[fd])
        return real["write"](fd, data)

    def fsynced(fd):
        real["fsync"](fd)
        synced.add(paths[fd])
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            renamed_unsynced.difference_update({p for p in renamed_unsynced if p.parent == paths[fd]})

    def renamed(source, target):
        assert Path(source) in synced, "renamed before its bytes were durable"
        if "manifests" in Path(target).parts:
            assert not renamed_unsynced, "the manifest came before its blobs were durable"
        real["rename"](source, target)
        renamed_unsynced.add(Path(target))
        order.append(Path(target).parent.name)

    for name, double in {"open": opened, "write": written, "fsync": fsynced, "rename": renamed}.items():
        monkeypatch.setattr(os, name, double)
    put(store, M, b"weights")
    assert order == ["blobs", "aliases"] * 2 + ["m"]
    assert not renamed_unsynced
    assert root / "ollamacore" / "manifests" in synced  # the new folders on the way are durable as well


def test_manifest_goes_before_its_blobs(store, monkeypatch):
    put(store, M, b"weights")
    unlink, order = os.unlink, []
    monkeypatch.setattr(os, "unlink", lambda path: (order.append(Path(path).parent.name), unlink(path)))
    store.delete(M)
    assert order[0] == "m"
    assert order[1:] == ["blobs", "aliases"] * 2


def test_lock_dies_with_its_process(root):
    Store(root)
    pid = os.fork()
    if pid == 0:
        with Store(root).hold():
            os._exit(KILLED)
    os.waitpid(pid, 0)
    Store(root).collect_garbage()  # would hang if the lock were still held
