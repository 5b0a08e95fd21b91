"""Manifests: which layers a model name stands for.

Ours lie in `ollamacore/manifests/<host>/<namespace>/<model>/<tag>`; an Ollama store's own `manifests/` tree
is read in place. Where both have a name, ours wins. A manifest that cannot be read is logged and counts as
absent, so that it never hides another model; only what deletes blobs refuses to go on, as it may name them.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from server.store import disk
from server.store.digest import format_digest, parse_digest
from server.store.errors import (
    DamagedManifestError,
    InvalidNameError,
    ModelNotFoundError,
    ReadOnlyModelError,
    StoreError,
)
from server.store.names import ModelName

log = logging.getLogger(__name__)

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
#: Before the kind of a layer: model, template, system, params, license, messages, projector, ...
LAYER_PREFIX = "application/vnd.ollama.image."

_SIZE_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class Layer:
    """One blob of a model and what it is for; `origin` is the short name of the model it came from."""

    media_type: str
    digest: str
    size: int
    origin: str = ""

    @classmethod
    def of(cls, kind: str, digest: str, size: int, origin: str = "") -> Self:
        """A layer of one of Ollama's kinds: "model", "template", "params", ..."""
        return cls(LAYER_PREFIX + kind, digest, size, origin)

    @classmethod
    def parse(cls, found: Any) -> Self:
        """Read a layer of a manifest; raises ValueError."""
        if not isinstance(found, dict):
            raise ValueError("a layer is not an object")
        media_type, digest, size = (found.get(key) for key in ("mediaType", "digest", "size"))
        if not isinstance(media_type, str) or not isinstance(digest, str):
            raise ValueError("a layer has no type or no digest")
        if type(size) is not int or not 0 <= size < 1 << 63:
            raise ValueError("a layer has no valid size")
        origin = found.get("from")
        sha256 = parse_digest(digest)
        return cls(media_type, format_digest(sha256), size, origin if isinstance(origin, str) else "")

    @property
    def kind(self) -> str:
        """The media type without Ollama's prefix."""
        return self.media_type.removeprefix(LAYER_PREFIX)

    def to_json(self) -> dict[str, Any]:
        """The object that stands in a manifest."""
        found: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return found | ({"from": self.origin} if self.origin else {})


@dataclass(frozen=True, slots=True)
class Manifest:
    """One manifest as it lies on disk."""

    name: ModelName
    config: Layer
    layers: tuple[Layer, ...]
    digest: str
    mtime_ns: int
    read_only: bool
    data: bytes

    @property
    def digests(self) -> set[str]:
        """The sha256 (hex) of every blob that this manifest needs."""
        return {parse_digest(layer.digest) for layer in (self.config, *self.layers)}


class ManifestStore:
    """The manifests of one models folder, both trees in one view."""

    def __init__(self, root: Path) -> None:
        own = root / "ollamacore"
        self._own = own / "manifests"
        self._ollama = root / "manifests"
        self._temp = own / "tmp"
        self._reported: set[str] = set()

    def read_all(self) -> list[Manifest]:
        """Every readable manifest, one for each name."""
        found: dict[tuple[str, ...], Manifest] = {}
        for tree in (self._own, self._ollama):
            for name, path in _walk(tree):
                if name.key not in found and (manifest := self._try_read(name, path)):
                    found[name.key] = manifest
        return list(found.values())

    def find(self, name: ModelName) -> Manifest | None:
        """The manifest of a name, compared without case; raises DamagedManifestError if it is damaged."""
        damage = None
        for tree in (self._own, self._ollama):
            for spelled, path in _matches(tree, name):
                try:
                    if manifest := self._read(spelled, path):
                        return manifest
                except DamagedManifestError as error:
                    damage = error
        if damage:
            raise damage
        return None

    def put(self, name: ModelName, config: Layer, layers: tuple[Layer, ...]) -> Manifest:
        """Write a manifest."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
        return self.put_bytes(name, json.dumps(manifest, separators=(",", ":")).encode())

    def put_bytes(self, name: ModelName, data: bytes) -> Manifest:
        """Write a manifest's bytes as they are, under the spelling that the name already has, if any."""
        with disk.disk_errors("writing a manifest"):
            spelled, path = next(_matches(self._own, name), (name, self._own.joinpath(*name.parts)))
            disk.make_folders(self._own, spelled.parts[:-1])
            disk.write_atomically(self._temp, path, data)
        manifest = self._read(spelled, path)
        if manifest is None:
            raise ModelNotFoundError(f"model '{name.short}' not found")
        return manifest

    def delete(self, name: ModelName) -> set[str]:
        """Remove a manifest of ours and return the sha256 of the blobs it named (none if it was damaged)."""
        found = next(_matches(self._own, name), None)
        if found is None:
            if next(_matches(self._ollama, name), None):
                raise ReadOnlyModelError(
                    f"model '{name.short}' belongs to Ollama's own store, which is only read; delete it there"
                )
            raise ModelNotFoundError(f"model '{name.short}' not found")
        manifest = self._try_read(*found)
        with disk.disk_errors("deleting a manifest"):
            os.unlink(found[1])
            disk.sync_folder(found[1].parent)
        self._remove_empty_folders(found[1])
        return manifest.digests if manifest else set()

    def referenced(self) -> set[str]:
        """The sha256 of every blob that our manifests name; one that cannot be read raises."""
        with disk.disk_errors("reading the manifests"):
            found = list(_walk(self._own, strict=True))
        manifests = (self._read(name, path) for name, path in found)
        return {sha256 for manifest in manifests if manifest for sha256 in manifest.digests}

    def _read(self, name: ModelName, path: Path) -> Manifest | None:
        """A manifest; None if it has just been deleted. Raises DamagedManifestError, StoreError."""
        with disk.disk_errors("reading a manifest"):
            try:
                data, state = disk.read_small(path, _SIZE_LIMIT)
                config, layers = _parse(data)
            except FileNotFoundError:
                return None
            except (OSError, ValueError, RecursionError) as error:
                if isinstance(error, OSError) and error.errno not in disk.NOT_OURS:
                    raise
                text = f"the manifest of model '{name.short}' is damaged; create it again"
                raise DamagedManifestError(text) from error
        digest = hashlib.sha256(data).hexdigest()
        read_only = path.is_relative_to(self._ollama)
        return Manifest(name, config, layers, digest, state.st_mtime_ns, read_only, data)

    def _try_read(self, name: ModelName, path: Path) -> Manifest | None:
        try:
            return self._read(name, path)
        except StoreError as error:
            self.report(f"model '{name.short}' is left out: {error} ({error.__cause__})")
            return None

    def report(self, text: str) -> None:
        """Log a damage once: clients list the models every few seconds."""
        if text not in self._reported:
            self._reported.add(text)
            log.warning("%s", text)

    def _remove_empty_folders(self, path: Path) -> None:
        try:
            for folder in list(path.relative_to(self._own).parents)[:-1]:
                os.rmdir(self._own / folder)
        except OSError:
            return  # not empty


def _parse(data: bytes) -> tuple[Layer, tuple[Layer, ...]]:
    """Config and layers of a manifest; raises ValueError, RecursionError."""
    found = json.loads(data)
    if not isinstance(found, dict) or not isinstance(found.get("layers"), list):
        raise ValueError("not a manifest")
    return Layer.parse(found.get("config")), tuple(map(Layer.parse, found["layers"]))


def _walk(tree: Path, *, strict: bool = False) -> Iterator[tuple[ModelName, Path]]:
    """Every file of a tree whose path is a model name; other files are not ours to judge."""
    paths = [tree]
    for level in range(4):
        paths = [entry for folder in paths for entry in _entries(folder, folders=level < 3, strict=strict)]
    return _named(tree, paths)


def _matches(tree: Path, name: ModelName) -> Iterator[tuple[ModelName, Path]]:
    """The files of a tree that have this name in any case, the same spelling first."""
    paths = [tree]
    for level, part in enumerate(name.parts):
        entries = [entry for folder in paths for entry in _entries(folder, folders=level < 3)]
        alike = [entry for entry in entries if entry.name.lower() == part.lower()]
        paths = [e for e in alike if e.name == part] + [e for e in alike if e.name != part]
    return _named(tree, paths)


def _named(tree: Path, paths: list[Path]) -> Iterator[tuple[ModelName, Path]]:
    for path in paths:
        try:
            yield ModelName(*path.relative_to(tree).parts), path
        except InvalidNameError:
            continue


def _entries(folder: Path, *, folders: bool, strict: bool = False) -> list[Path]:
    """The folders (real ones: a link could lead anywhere) or the other entries in a folder, sorted."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(e.path) for e in entries if e.is_dir(follow_symlinks=False) == folders)
    except FileNotFoundError:
        return []
    except OSError as error:
        if strict:
            raise
        log.warning("%s: %s", folder, error.strerror)
        return []
