"""Digests: only sha256 with 64 hex digits, and only one module turns one into a path."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import server.store
from server.store import digest
from server.store.errors import InvalidDigestError

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize("text", [f"sha256:{HEX}", f"sha256-{HEX}", f"sha256:{HEX.upper()}"])
def test_parse_gives_lower_case_hex(text):
    assert digest.parse_digest(text) == HEX
    assert digest.format_digest(digest.parse_digest(text)) == f"sha256:{HEX}"


@pytest.mark.parametrize(
    "text",
    [
        "", HEX, f"sha256{HEX}", f"sha256:{HEX[1:]}", f"sha256:{HEX}0", f"sha256:{HEX}\n", f" sha256:{HEX}",
        f"SHA256:{HEX}", f"sha256_{HEX}", f"blake3:{HEX}", f"sha512:{HEX}", f"sha256:../{HEX[3:]}",
        f"sha256:{HEX[:-1]}g", f"sha256:{HEX[:-1]}\u0661", f"sha256:{'/' * 64}", f"sha256:{HEX[:-1]}\0",
        "sha256:../../../../etc/passwd",
    ],
)  # fmt: skip
def test_parse_refuses(text):
    with pytest.raises(InvalidDigestError, match=r"^invalid digest format$"):
        digest.parse_digest(text)


@given(st.text(max_size=80))
@pytest.mark.parametrize("make", [digest.blob_file, digest.alias_file])
def test_no_text_but_hex_becomes_a_path(make, text):
    if re.fullmatch(r"[0-9a-f]{64}", text, re.ASCII):
        return
    with pytest.raises(InvalidDigestError):
        make(Path("/models"), text)


def test_files_lie_directly_in_their_folder():
    folder = Path("/models/x")
    paths = [digest.blob_file(folder, HEX), digest.alias_file(folder, HEX), *digest.ollama_files(folder, HEX)]
    assert [path.parent for path in paths] == [folder] * 4
    assert [path.name.removesuffix(HEX) for path in paths] == ["blake3-", "sha256-", "sha256-", "sha256:"]


def test_only_this_module_builds_blob_paths():
    for path in Path(server.store.__file__).parent.parent.rglob("*.py"):
        if path.name != "digest.py":
            joined = re.search(r"""/\s*f?["'](sha256|blake3)""", path.read_text())
            assert not joined, f"{path.name} builds the path of a blob by itself"
