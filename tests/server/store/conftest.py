"""Stores for tests: an empty one, and one with a model from an Ollama store beside it."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from server.store.store import Store


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class OllamaTree:
    """Files as a real Ollama lays them out under one models folder."""

    def __init__(self, root: Path):
        self.root = root

    def blob(self, data: bytes, *, separator: str = "-") -> dict:
        folder = self.root / "blobs"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"sha256{separator}{sha256(data)}").write_bytes(data)
        return {"digest": f"sha256:{sha256(data)}", "size": len(data)}

    def model(self, name: str, weights: bytes, *, separator: str = "-") -> Path:
        config = self.blob(b'{"model_family":"llama"}', separator=separator)
        layer = self.blob(weights, separator=separator)
        manifest = {
            "schemaVersion": 2,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", **config},
            "layers": [{"mediaType": "application/vnd.ollama.image.model", **layer}],
        }
        return self.manifest(name, json.dumps(manifest).encode())

    def manifest(self, name: str, data: bytes) -> Path:
        model, _, tag = name.partition(":")
        path = self.root / "manifests" / "registry.ollama.ai" / "library" / model / (tag or "latest")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path


def snapshot(*folders: Path) -> dict:
    """Every file below the folders: its bytes, mode and time."""
    return {
        path: (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns, path.stat().st_nlink)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def blob_files(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "ollamacore" / "blobs").iterdir())


def temp_files(root: Path) -> list[Path]:
    return list((root / "ollamacore" / "tmp").iterdir())


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch):
    """Only a power cut needs the sync, and here nobody cuts it; that it is called is tested."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def store(root) -> Store:
    return Store(root)


@pytest.fixture
def ollama(root) -> OllamaTree:
    return OllamaTree(root)
