"""What the package ships: one extension that exports nothing but its module, its public header, its types."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ollamacore
from ollamacore import _core

ROOT = Path(__file__).resolve().parent.parent


def test_extension_is_abi3():
    assert ".abi3." in Path(_core.__file__).name


@pytest.mark.skipif(shutil.which("nm") is None or sys.platform != "linux", reason="needs nm and ELF")
def test_extension_exports_its_module_only():
    listed = subprocess.run(["nm", "-D", "--defined-only", _core.__file__], capture_output=True, text=True, check=True)
    names = {line.split()[-1] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(("__asan", "__ubsan", "_init", "_fini"))} == {"PyInit__core"}


def test_public_header_is_shipped():
    shipped = Path(ollamacore.get_include(), "oc.h")
    assert shipped.read_text() == (ROOT / "csrc" / "oc.h").read_text()


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == ollamacore.__version__


def test_every_public_name_exists():
    assert all(hasattr(ollamacore, name) for name in ollamacore.__all__)
    assert sorted(ollamacore.__all__) == list(ollamacore.__all__)


def test_library_needs_no_server_and_no_asyncio():
    code = "import sys, ollamacore; print(sorted({'asyncio', 'orjson', 'uvloop', 'server'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
