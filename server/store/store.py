"""The model store: blobs and manifests together, as one object that any thread may use.

Locks (advisory, between threads and processes): `store` is held shared while a model is being put together
and exclusively while blobs are deleted, so no blob vanishes between its check and its manifest; `manifests`
is held for the moment in which a name changes.
"""

import contextlib
import functools
import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ollamacore import ModelfileTemplate
from ollamacore.errors import OllamaCoreError
from server.store import disk
from server.store.blobs import BlobStore, BlobWriter, VerifyMode
from server.store.describe import GGUFDescription, describe_gguf
from server.store.digest import parse_digest
from server.store.errors import DamagedBlobError, ModelNotFoundError, StoreError
from server.store.manifests import CONFIG_TYPE, Layer, Manifest, ManifestStore
from server.store.names import ModelName
from server.store.template import TEMPLATE_CAPABILITIES, chosen, go_capabilities

log = logging.getLogger(__name__)

#: Blobs that no model uses are kept this long: a client uploads them before it creates the model.
GRACE_S = 3600
_DESCRIPTIONS = 64
#: one of these is in every list of capabilities that is complete
_KINDS = {"completion", "embedding", "rerank"}
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class StoredModel:
    """A model in the store. Its texts are read, and checked against their digests, when first asked for."""

    name: ModelName
    digest: str
    modified_at: datetime
    size: int
    layers: tuple[Layer, ...]
    read_only: bool
    _config: Layer = field(repr=False)
    _blobs: BlobStore = field(repr=False, compare=False)

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The config JSON: model_format, model_family, model_families, model_type, file_type, ..."""
        found: dict[str, Any] = self._json(self._config, dict)
        return found

    @functools.cached_property
    def params(self) -> dict[str, Any]:
        """The PARAMETERs."""
        found: dict[str, Any] = {}
        for layer in self._layers("params"):
            found |= self._json(layer, dict)
        return found

    @functools.cached_property
    def messages(self) -> list[dict[str, Any]]:
        """The MESSAGEs."""
        return [message for layer in self._layers("messages") for message in self._json(layer, list)]

    @functools.cached_property
    def template(self) -> str | None:
        """The Go TEMPLATE, or None where the GGUF's own chat template is used."""
        return self._text("template", "prompt")

    @functools.cached_property
    def system(self) -> str | None:
        """The SYSTEM message."""
        return self._text("system")

    @functools.cached_property
    def licenses(self) -> tuple[str, ...]:
        """The LICENSE texts."""
        return tuple(self._read_text(layer) for layer in self._layers("license"))

    @property
    def model_layer(self) -> Layer:
        """The layer of the GGUF weights; raises StoreError where there is none."""
        layers = self._layers("model")
        if not layers:
            raise StoreError(f"model '{self.name.short}' has no GGUF weights")
        return layers[0]

    @property
    def model_path(self) -> Path:
        """The GGUF file, unchecked; to load it take Store.verified_path(model.model_layer.digest)."""
        return self._blobs.path(self.model_layer.digest)

    @property
    def has_projector(self) -> bool:
        """Whether the model takes images through a projector of its own."""
        return bool(self._layers("projector"))

    @property
    def projector_paths(self) -> tuple[Path, ...]:
        """The projector files, unchecked."""
        return tuple(self._blobs.path(layer.digest) for layer in self._layers("projector"))

    @property
    def parent_model(self) -> str:
        """The short name of the model whose weights these are, or an empty text."""
        return next((layer.origin for layer in self._layers("model")), "")

    def _layers(self, *kinds: str) -> list[Layer]:
        return [layer for layer in self.layers if layer.kind in kinds]

    def _text(self, *kinds: str) -> str | None:
        layers = self._layers(*kinds)
        return self._read_text(layers[-1]) if layers else None

    def _read_text(self, layer: Layer) -> str:
        return self._blobs.read(layer.digest).decode(errors="replace")

    def _json(self, layer: Layer, kind: type) -> Any:
        try:
            found = json.loads(self._blobs.read(layer.digest))
        except (ValueError, RecursionError) as error:
            raise DamagedBlobError(f"blob {layer.digest} is damaged") from error
        if not isinstance(found, kind):
            raise DamagedBlobError(f"blob {layer.digest} is damaged")
        return found


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """What /api/tags and /api/show say about a model beside its config."""

    capabilities: tuple[str, ...]
    context_length: int | None
    embedding_length: int | None


class Store:
    """Models by name over content by digest, in the folder `root` ($OLLAMA_MODELS).

    Everything is written under `root/ollamacore`. A real Ollama's models in `root` are read in place and
    never changed; a copy of such a model, or one made from it, uses its blobs where they are. `packed` is where
    the engine keeps packed weights beside the blobs that they were made of (by default `root/ollamacore/packed`).
    `go_templates` puts Modelfiles' templates always, or never, before those of GGUF files (template.py).
    """

    def __init__(
        self,
        root: Path,
        *,
        verify: VerifyMode = "stat",
        prune: bool = True,
        packed: Path | None = None,
        go_templates: bool | None = None,
    ) -> None:
        root = root.absolute()
        with disk.disk_errors("opening the model store"):
            root.mkdir(parents=True, exist_ok=True)
            for folder in ("blobs", "aliases", "manifests", "tmp", "locks"):
                disk.make_folders(root, ("ollamacore", folder))
        self._locks = root / "ollamacore" / "locks"
        self._prune = prune
        self._go_templates = go_templates
        self._blobs = BlobStore(root, verify, packed)
        self._manifests = ManifestStore(root)
        self._descriptions: dict[str, GGUFDescription] = {}
        self._descriptions_lock = threading.Lock()
        self._blobs.recover()

    # -- blobs --

    def has_blob(self, digest: str) -> bool:
        """Whether the blob is here; it is then kept for at least the grace period."""
        return self._blobs.has(digest)

    def blob_path(self, digest: str) -> Path:
        """The file of a blob, unchecked; raises BlobNotFoundError."""
        return self._blobs.path(digest)

    def verified_path(self, digest: str) -> Path:
        """The file of a blob whose bytes are right, by the store's verify mode; raises DamagedBlobError."""
        return self._blobs.verified_path(digest)

    def writer(self) -> BlobWriter:
        """Begin a blob: write(bytes) and then commit(expected digest or None) -> digest, or abort()."""
        return self._blobs.writer()

    def put_bytes(self, data: bytes) -> str:
        """Keep a small blob and return its digest."""
        return self._blobs.put(data)

    def add_file(self, path: Path) -> str:
        """Keep a copy of a file on this machine and return its digest."""
        return self._blobs.add_file(path)

    # -- models --

    def list(self) -> list[StoredModel]:
        """Every model whose manifest and config can be read, the last changed first."""
        models = []
        for manifest in self._manifests.read_all():
            model = self._model(manifest)
            try:
                _ = model.config
            except StoreError as error:
                self._manifests.report(f"model '{model.name.short}' is not listed: {error}")
            else:
                models.append(model)
        return sorted(models, key=lambda model: model.modified_at, reverse=True)

    def find(self, name: ModelName) -> StoredModel | None:
        """The model of a name, compared without case; raises DamagedManifestError."""
        manifest = self._manifests.find(name)
        return self._model(manifest) if manifest else None

    def put(self, name: ModelName, config: bytes, layers: Sequence[Layer]) -> StoredModel:
        """Give a name to these layers, all of which must be in the store; what had the name loses it."""
        with self.hold():
            config_layer = Layer(CONFIG_TYPE, self.put_bytes(config), len(config))
            for layer in layers:
                self._blobs.path(layer.digest)
            with self._naming():
                return self._model(self._manifests.put(name, config_layer, tuple(layers)))

    def copy(self, source: ModelName, destination: ModelName) -> StoredModel:
        """Give a model a second name: the manifest is copied, the blobs are shared."""
        with self.hold():
            manifest = self._manifests.find(source)
            if manifest is None:
                raise ModelNotFoundError(f"model '{source.short}' not found")
            with self._naming():
                return self._model(self._manifests.put_bytes(destination, manifest.data))

    def delete(self, name: ModelName) -> None:
        """Remove a model, then its blobs that no other model uses; Ollama's raise ReadOnlyModelError."""
        with self._naming():
            digests = self._manifests.delete(name)
        self._remove_unused(digests)

    # -- what models are --

    def describe(self, model: StoredModel, *, verbose: bool = False) -> GGUFDescription:
        """What the model's GGUF says about itself; raises StoreError, or the core's InvalidFileError."""
        digest = model.model_layer.digest
        found = None if verbose else self._descriptions.get(digest)
        if found is None:
            found = describe_gguf(model.model_path, verbose=verbose)
            if not verbose:  # the full vocabulary is too much to keep
                with self._descriptions_lock:
                    self._descriptions[digest] = found
                    if len(self._descriptions) > _DESCRIPTIONS:
                        del self._descriptions[next(iter(self._descriptions))]
        return found

    def summarise(self, model: StoredModel) -> ModelSummary:
        """What lists of models show beside the config; a GGUF that cannot be read is logged and left out."""
        config = model.config
        listed = config.get("capabilities")
        capabilities = [str(name) for name in listed] if isinstance(listed, list) else []
        context, embedding = config.get("context_length"), config.get("embedding_length")
        try:
            if model.template is not None:
                context = context or self.describe(model).context_length
                embedding = embedding or self.describe(model).embedding_length
                capabilities[:] = self._with_template(model, capabilities)
            elif not (context and _KINDS & set(capabilities)):  # a model made here has them in its config
                description = self.describe(model)
                capabilities += description.capabilities
                context = context or description.context_length
                embedding = embedding or description.embedding_length
        except (StoreError, OllamaCoreError) as error:
            self._manifests.report(f"model '{model.name.short}': {error}")
        if model.has_projector:
            capabilities.append("vision")
        return ModelSummary(tuple(dict.fromkeys(capabilities)), context, embedding)

    def template(self, model: StoredModel) -> ModelfileTemplate | None:
        """The Go template that writes the model's prompts, None where the Jinja template of its GGUF does.

        TemplateError if it is no template.
        """
        return chosen(model.template, self.describe(model).chat_template, self._go_templates)

    def _with_template(self, model: StoredModel, listed: Sequence[str]) -> tuple[str, ...]:
        """The capabilities of a model with a Go template: what the weights can do, and the template in force."""
        template, everything = self.template(model), (*listed, *self.describe(model).capabilities)
        if template is None:
            return everything
        return (*(name for name in everything if name not in TEMPLATE_CAPABILITIES), *go_capabilities(template))

    # -- housekeeping --

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """While this is held no blob is deleted."""
        with disk.lock(self._locks / "store", exclusive=False):
            yield

    def release(self, replaced: StoredModel) -> None:
        """Delete what only this model used, whose name another one took; nothing when pruning is off."""
        if self._prune:
            layers = (replaced._config, *replaced.layers)
            self._remove_unused({parse_digest(layer.digest) for layer in layers})

    def collect_garbage(self, grace_s: float = GRACE_S) -> int:
        """Delete our blobs that no model uses and nobody touched for the grace period; how many."""
        if not self._prune:
            return 0
        with disk.lock(self._locks / "store", exclusive=True):
            used = self._used()
            return 0 if used is None else self._blobs.collect(used, time.time() - grace_s)

    def _remove_unused(self, digests: set[str]) -> None:
        with disk.lock(self._locks / "store", exclusive=True):
            used = self._used()
            if used is not None:
                for sha256 in digests - used:
                    self._blobs.remove(sha256)

    def _used(self) -> set[str] | None:
        """What our manifests name; None if one of them cannot be read, and so nothing may be deleted."""
        try:
            return self._manifests.referenced()
        except StoreError as error:
            log.warning("unused blobs are kept: %s", error)
            return None

    def _naming(self) -> contextlib.AbstractContextManager[None]:
        return disk.lock(self._locks / "manifests", exclusive=True)

    def _model(self, manifest: Manifest) -> StoredModel:
        return StoredModel(
            name=manifest.name,
            digest=manifest.digest,
            modified_at=(_EPOCH + timedelta(microseconds=manifest.mtime_ns // 1000)).astimezone(),
            size=manifest.config.size + sum(layer.size for layer in manifest.layers),
            layers=manifest.layers,
            read_only=manifest.read_only,
            _config=manifest.config,
            _blobs=self._blobs,
        )
