"""POST /api/create: a model from uploaded GGUF files or from another model, with new texts and parameters."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ollamacore.errors import InvalidFileError, TemplateError, UnsupportedModelError
from server.store import disk
from server.store.describe import GGUFDescription, describe_gguf
from server.store.digest import format_digest, parse_digest
from server.store.errors import CreateError, DamagedManifestError, InvalidDigestError, ModelNotFoundError
from server.store.manifests import Layer
from server.store.names import ModelName
from server.store.store import Store, StoredModel
from server.store.template import parsed

Progress = Callable[[dict[str, Any]], None]

#: Ollama reports the check of a file under this name, so that clients draw a progress bar.
_NO_DIGEST = "0" * 19
_EXISTING = "using existing"
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateSpec:
    """The fields of a create request; absent ones keep what `base` has. Given a base, `files` are ignored."""

    name: ModelName
    base: ModelName | None = None
    files: Mapping[str, str] | None = None
    adapters: Mapping[str, str] = field(default_factory=dict)
    draft_files: Mapping[str, str] = field(default_factory=dict)
    draft_quantize: str = ""
    quantize: str = ""
    template: str = ""
    system: str = ""
    license: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    messages: Sequence[Mapping[str, Any]] = ()
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)  # what the config is to say instead of the file


def create_model(store: Store, spec: CreateSpec, on_progress: Progress) -> StoredModel:
    """Make the model and report each step; raises CreateError with Ollama's text, or another StoreError."""
    _check(spec)
    _check_template(spec.template)
    with store.hold():
        build = _Build(store, on_progress)
        if spec.base is not None:
            build.inherit(spec.base)
        else:
            build.import_files(spec.files or {})
        build.apply(spec)
        for layer, status in build.layers:
            on_progress({"status": f"{status} layer {layer.digest}"})
        on_progress({"status": "writing manifest"})
        replaced = _replaced_model(store, spec.name)
        model = store.put(spec.name, build.config_bytes(), [layer for layer, _ in build.layers])
    if replaced is not None:
        store.release(replaced)
    on_progress({"status": "success"})
    return model


def _check(spec: CreateSpec) -> None:
    """Refuse what needs no look at the store."""
    for name, digest in [*(spec.files or {}).items(), *spec.draft_files.items(), *spec.adapters.items()]:
        if name.startswith("/") or not {"", ".", ".."}.isdisjoint(name.split("/")):
            raise CreateError("file path must be relative")
        try:
            parse_digest(digest)
        except InvalidDigestError as error:
            raise CreateError(str(error)) from error
    if spec.base is None and spec.files is None:
        raise CreateError("neither 'from' or 'files' was specified")
    if spec.base is None and not spec.files:
        raise CreateError("no files provided to convert")
    _check_info(spec.info)
    _check_unsupported(spec)


def _check_unsupported(spec: CreateSpec) -> None:
    if spec.draft_quantize and not spec.draft_files:
        raise CreateError("--draft-quantize requires a DRAFT model")
    if spec.draft_files:
        raise CreateError("draft models are not supported")
    if len(spec.adapters) > 1:
        raise CreateError("only one adapter is currently supported")
    if spec.adapters:
        raise CreateError("adapters are not supported")
    if spec.quantize:
        raise CreateError("quantization is not supported; supply a quantized GGUF file")


#: field of `info` -> key of the config
_INFO_TEXTS = {
    "model_family": "model_family",
    "base_name": "base_name",
    "quantization_level": "file_type",
    "parameter_size": "model_type",
}
_INFO_NUMBERS = ("context_length", "embedding_length")


def _check_info(info: Mapping[str, Any]) -> None:
    for name in _INFO_TEXTS:
        if not isinstance(info.get(name, ""), str):
            raise CreateError(f'info field "{name}" must be a string')
    for name in _INFO_NUMBERS:
        value = info.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CreateError(f'info field "{name}" must be a number')
        if not 0 <= value < 2**31 or value != int(value):
            raise CreateError(f'info field "{name}" must be a non-negative integer')


def _check_template(source: str) -> None:
    try:
        parsed(source)
    except TemplateError as error:
        raise CreateError(f"template error: {error}") from error


def _replaced_model(store: Store, name: ModelName) -> StoredModel | None:
    """The model of ours that is about to lose its name, if it can be read."""
    try:
        model = store.find(name)
    except DamagedManifestError:
        return None
    return None if model is None or model.read_only else model


class _Build:
    """The layers and the config of a model while it is put together."""

    def __init__(self, store: Store, on_progress: Progress) -> None:
        self._store = store
        self._on_progress = on_progress
        self._config: dict[str, Any] = {}
        self._params: dict[str, Any] = {}
        self.layers: list[tuple[Layer, str]] = []

    def inherit(self, base: ModelName) -> None:
        """Start from everything that another model has."""
        model = self._store.find(base)
        if model is None:
            raise ModelNotFoundError(f"model '{base.short}' not found")
        self._config = dict(model.config)
        self._params = model.params
        for layer in model.layers:
            self.layers.append((replace(layer, origin=model.name.short), _EXISTING))

    def import_files(self, files: Mapping[str, str]) -> None:
        """Start from uploaded GGUF files: one model, and perhaps projectors."""
        found = [self._import_file(name, digest) for name, digest in files.items()]
        found.sort(key=lambda pair: pair[1].kind != "model")
        kinds = [description.kind for _, description in found]
        if "adapter" in kinds:
            raise CreateError("adapters are not supported")
        if kinds.count("model") != 1:
            raise CreateError("exactly one of the files must be a model; split GGUF files are not supported")
        self.layers = [(layer, _EXISTING) for layer, _ in found]
        self._config = _config([description for _, description in found])

    def apply(self, spec: CreateSpec) -> None:
        """Put the request's texts and parameters over what is there: licences add, parameters merge."""
        if spec.template:
            self._replace("template", spec.template, "prompt")
        if spec.system:
            self._replace("system", spec.system)
        parameters = {key: value for key, value in spec.parameters.items() if value is not None}
        if parameters:
            self._replace("params", _json(dict(sorted((self._params | parameters).items()))))
        for text in spec.license:
            self._add("license", text)
        if spec.messages:
            self._replace("messages", _json([dict(message) for message in spec.messages]))
        texts = {"renderer": spec.renderer, "parser": spec.parser, "requires": spec.requires}
        self._config |= {key: text for key, text in texts.items() if text}
        self._tell(spec.info)

    def _tell(self, info: Mapping[str, Any]) -> None:
        """Put what a request says of the model over what its file says; capabilities add."""
        self._config |= {key: info[name] for name, key in _INFO_TEXTS.items() if info.get(name)}
        self._config |= {name: int(info[name]) for name in _INFO_NUMBERS if info.get(name)}
        if info.get("model_family"):
            self._config["model_families"] = [info["model_family"]]
        listed = info.get("capabilities")
        if isinstance(listed, list):
            known = self._config.get("capabilities") or []
            self._config["capabilities"] = list(dict.fromkeys([*known, *filter(_is_text, listed)]))

    def config_bytes(self) -> bytes:
        """The config JSON of the model as it is now."""
        digests = [layer.digest for layer, _ in self.layers]
        platform = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": digests}}
        return _encoded(_json({**self._config, **platform}))

    def _import_file(self, name: str, digest: str) -> tuple[Layer, GGUFDescription]:
        digest = format_digest(parse_digest(digest))
        if not self._store.has_blob(digest):
            raise CreateError(f'blob "{digest}" not found; upload it first')
        path = self._store.blob_path(digest)
        _check_format(name, path)
        self._on_progress({"status": "parsing GGUF"})
        try:
            description = describe_gguf(path)
        except (InvalidFileError, UnsupportedModelError) as error:
            raise CreateError(f"invalid GGUF file: {error}") from error
        size = self._store.verified_path(digest).stat().st_size
        self._on_progress(
            {"status": "validating GGUF model", "digest": _NO_DIGEST, "total": size, "completed": size}
        )
        return Layer.of(description.kind, digest, size), description

    def _replace(self, kind: str, text: str, *also: str) -> None:
        self.layers = [pair for pair in self.layers if pair[0].kind not in (kind, *also)]
        self._add(kind, text)

    def _add(self, kind: str, text: str) -> None:
        data = _encoded(text)
        existed = self._store.has_blob(format_digest(hashlib.sha256(data).hexdigest()))
        layer = Layer.of(kind, self._store.put_bytes(data), len(data))
        if all((layer.kind, layer.digest) != (other.kind, other.digest) for other, _ in self.layers):
            self.layers.append((layer, _EXISTING if existed else "creating new"))


def _check_format(name: str, path: Path) -> None:
    with disk.disk_errors("opening a blob"), open(disk.open_regular(path), "rb") as file:
        is_gguf = file.read(4) == b"GGUF"
    if name.endswith(".safetensors"):
        raise CreateError("converting safetensors is not supported; supply a GGUF file")
    if not is_gguf and name.endswith(".gguf"):
        raise CreateError("supplied file was not in GGUF format")
    if not is_gguf:
        raise CreateError("unknown type")


def _config(descriptions: Sequence[GGUFDescription]) -> dict[str, Any]:
    """The config as Ollama writes it, with the optional fields that save a look into the GGUF."""
    model = descriptions[0]
    return {
        "model_format": "gguf",
        "model_family": model.architecture,
        "model_families": list(dict.fromkeys(description.architecture for description in descriptions)),
        "model_type": model.parameter_size,
        "file_type": model.file_type,
        "capabilities": list(model.capabilities),
        **({"context_length": model.context_length} if model.context_length else {}),
        **({"embedding_length": model.embedding_length} if model.embedding_length else {}),
    }


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError as error:
        raise CreateError("exceeded max depth") from error


def _encoded(text: str) -> bytes:
    return _SURROGATES.sub("\ufffd", text).encode()
