"""Build the one extension, ollamacore._core, from Cython and every C file under csrc.

Switches (environment): OLLAMACORE_SANITIZE=address,undefined   OLLAMACORE_WERROR=1   OLLAMACORE_ANNOTATE=1
ISA variants carry their own target pragma, so one binary holds all of them and no -m flag is needed here.
"""

import os
import platform
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
MACHINE = platform.machine().lower()
ISA_FOLDER = {"x86_64": "x86", "amd64": "x86", "aarch64": "arm", "arm64": "arm"}.get(MACHINE)
SANITIZE = os.environ.get("OLLAMACORE_SANITIZE", "")
ABI3 = 0x030B0000


def c_sources() -> list[str]:
    """Every C file of the core that this machine's instruction set can compile, sorted."""
    other = {"x86", "arm", "cuda"} - {ISA_FOLDER}
    found = (path.relative_to(ROOT) for path in (ROOT / "csrc").rglob("*.c"))
    return sorted(str(path) for path in found if not other & set(path.parts))


def dependencies() -> list[str]:
    """Headers, tables and included bodies: editing one rebuilds what it reaches."""
    patterns = ["csrc/**/*.[ch]", "csrc/**/*.def", "csrc/**/*.inc", "ollamacore/**/*.pxi", "ollamacore/*.pxd"]
    return sorted(str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern))


def flags() -> tuple[list[str], list[str]]:
    """Compiler and linker flags."""
    compile_flags = ["-std=c11", "-O3", "-g1", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
                     "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter"]
    link_flags = ["-lm", "-pthread"]
    if os.environ.get("OLLAMACORE_WERROR"):
        compile_flags.append("-Werror")
    if SANITIZE:
        compile_flags += [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1"]
        link_flags.append(f"-fsanitize={SANITIZE}")
    return compile_flags, link_flags


def export_header() -> None:
    """Ship the public C header beside oc.pxd, where ollamacore.get_include() finds it."""
    target = ROOT / "ollamacore" / "include"
    target.mkdir(exist_ok=True)
    shutil.copy2(ROOT / "csrc" / "oc.h", target / "oc.h")


def extension() -> Extension:
    """The only extension: csrc linked twice would have two thread pools and two kernel tables."""
    compile_flags, link_flags = flags()
    # The limited API of free-threaded builds does not exist yet; those get a plain build.
    abi3 = not (sys.version_info >= (3, 13) and not getattr(sys, "_is_gil_enabled", lambda: True)())
    macros = [("Py_LIMITED_API", f"0x{ABI3:08X}")] if abi3 else []
    return Extension(
        "ollamacore._core",
        sources=["ollamacore/_core.pyx", *c_sources()],
        depends=dependencies(),
        include_dirs=["csrc"],
        define_macros=[*macros, ("_GNU_SOURCE", "1")],
        extra_compile_args=compile_flags,
        extra_link_args=link_flags,
        py_limited_api=abi3,
    )


class ParallelBuild(build_ext):
    """Compile as many files at a time as there are cores: setuptools compiles those of one extension in turn."""

    def build_extensions(self) -> None:
        compile_in_turn = self.compiler.compile

        def compile_together(sources: list[str], *args: object, **options: object) -> list[str]:
            # The largest file, Cython's output, would otherwise be alone at the end.
            largest_first = sorted(sources, key=os.path.getsize, reverse=True)
            with ThreadPoolExecutor(os.cpu_count()) as workers:
                jobs = [workers.submit(compile_in_turn, [source], *args, **options) for source in largest_first]
            return [built for job in jobs for built in job.result()]

        self.compiler.compile = compile_together
        super().build_extensions()


export_header()
directives = {"language_level": 3, "embedsignature": True, "boundscheck": bool(SANITIZE), "wraparound": False,
              "initializedcheck": bool(SANITIZE), "freethreading_compatible": False}
setup(
    cmdclass={"build_ext": ParallelBuild},
    ext_modules=cythonize([extension()], compiler_directives=directives,
                          annotate=bool(os.environ.get("OLLAMACORE_ANNOTATE"))),
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
