"""The arrows of docs/architecture.md: an import or #include that goes up fails here."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: folder of csrc -> folders it may include from (besides itself and oc.h)
C_MAY_INCLUDE = {
    "base": set(),
    "quant": {"base"},
    "kernels": {"base", "quant"},
    "engine": {"base", "quant", "kernels"},
    "sampling": {"base", "kernels"},
    "text": {"base"},
    "decode": set(),
}
#: package -> imports that it must never have
PYTHON_BANNED = {
    "ollamacore": {
        "server",
        "asyncio",
        "orjson",
        "uvloop",
        "torch",
        "llama_cpp",
        "onnxruntime",
        "tests",
        "bench",
    },
    "server": {"torch", "llama_cpp", "onnxruntime", "tests", "bench"},
    "server/http": {
        "ollamacore",
        "server.handlers",
        "server.models",
        "server.store",
        "server.app",
        "server.router",
    },
    "server/store": {"server.handlers", "server.models", "server.app", "server.router", "server.http"},
    "server/models": {"server.handlers", "server.app", "server.router", "server.http"},
    "server/handlers": {"server.app", "server.router", "server.http.connection", "server.http.protocol"},
}


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", PYTHON_BANNED)
def test_python_imports_point_down(folder):
    for path in (ROOT / folder).rglob("*.py"):
        for module in imported_modules(path):
            bad = [b for b in PYTHON_BANNED[folder] if module == b or module.startswith(b + ".")]
            assert not bad, f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "ollamacore").rglob("*.p[yx][xid]")), ids=lambda p: p.name)
def test_cython_imports_point_down(path):
    for module in re.findall(r"^\s*(?:c?import|from)\s+([\w.]+)", path.read_text(), re.M):
        assert module.split(".")[0] not in PYTHON_BANNED["ollamacore"], f"{path.name} imports {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "csrc").rglob("*.[ch]")), ids=lambda p: p.name)
def test_c_includes_point_down(path):
    text = path.read_text()
    assert not re.search(r'#\s*include\s*[<"](Python\.h|stdio\.h)', text), "csrc is free of Python and stdio"
    assert not re.search(r"\b(exit|abort|printf)\s*\(", text), "csrc never ends the process and never prints"
    layer = path.relative_to(ROOT / "csrc").parts[0]
    if layer == "oc.h":
        return
    for name in re.findall(r'#\s*include\s*"([^"]+)"', text):
        first = name.split("/")[0]
        if "/" in name and first in C_MAY_INCLUDE:
            assert first == layer or first in C_MAY_INCLUDE[layer], f"{layer} includes {name}"


@pytest.mark.parametrize("folder", ["server/store", "server/models", "server/handlers", "server"])
def test_server_uses_only_public_names_of_the_core(folder):
    for path in (ROOT / folder).rglob("*.py"):
        private = [m for m in imported_modules(path) if m.startswith("ollamacore.") and "._" in m]
        assert not private, f"{path.relative_to(ROOT)} imports {private}"
