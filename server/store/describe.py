"""What a GGUF file says about the model in it, in the words of /api/show and of a model's config."""

import math
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ollamacore import InsertMarks, insert_marks
from ollamacore.gguf import GGUFFile
from server.store.disk import disk_errors
from server.store.template import jinja_capabilities

#: Arrays longer than this are left out of model_info unless the client asks for all: they are vocabularies.
_ARRAY_LIMIT = 1024
#: `<architecture>.pooling_type` of a model that scores pairs of texts
_RANK = 4
#: In model_info these would only repeat `template` and the model's name.
_HIDDEN_KEYS = {"general.name", "tokenizer.chat_template"}


@dataclass(frozen=True, slots=True)
class TensorDescription:
    """One tensor; the first number of the shape is the contiguous one."""

    name: str
    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GGUFDescription:
    """The facts about one GGUF file; nothing in here refers to the file any more."""

    architecture: str
    kind: str  # "model", "projector" or "adapter"
    parameter_count: int
    file_type: str
    context_length: int | None
    embedding_length: int | None
    chat_template: str | None
    insert: InsertMarks | None  # how a prompt with a gap is written
    capabilities: tuple[str, ...]
    model_info: Mapping[str, Any]
    tensors: tuple[TensorDescription, ...]

    @property
    def parameter_size(self) -> str:
        """The number of parameters as people read it: "134.52M"."""
        return human_number(self.parameter_count)


def describe_gguf(path: Path, *, verbose: bool = False) -> GGUFDescription:
    """Read a GGUF file's header; raises OllamaCoreError, StoreError. `verbose` keeps long arrays."""
    with disk_errors("opening the model"), GGUFFile.open(path) as gguf:
        architecture = gguf.architecture
        chat_template = gguf.get("tokenizer.chat_template", str, None)
        insert = insert_marks(gguf)
        return GGUFDescription(
            architecture=architecture,
            kind=_kind(architecture, gguf.get("general.type", str, "model")),
            parameter_count=gguf.parameter_count,
            file_type=_file_type(gguf),
            context_length=gguf.get(f"{architecture}.context_length", int, None),
            embedding_length=gguf.get(f"{architecture}.embedding_length", int, None),
            chat_template=chat_template,
            insert=insert,
            capabilities=tuple(_capabilities(gguf.metadata, architecture, chat_template or "", insert)),
            model_info=_model_info(gguf.metadata, gguf.parameter_count, None if verbose else _ARRAY_LIMIT),
            tensors=tuple(
                TensorDescription(tensor.name, tensor.type_name, tuple(tensor.shape))
                for tensor in gguf.tensors.values()
            ),
        )


def human_number(number: int) -> str:
    """A count as Ollama shows it: 7.6B, 134.52M, 7B, 260K, 12."""
    for unit, suffix, decimals in ((10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 0)):
        if number >= unit:
            return f"{number / unit:.{0 if number % unit == 0 else decimals}f}{suffix}"
    return str(number)


def _kind(architecture: str, declared: str) -> str:
    if declared == "adapter":
        return "adapter"
    return "projector" if architecture == "clip" or declared in ("mmproj", "projector") else "model"


def _file_type(gguf: GGUFFile) -> str:
    """By the header, or else the type that holds most of the weights."""
    if gguf.file_type_name != "unknown":
        return gguf.file_type_name
    weights: Counter[str] = Counter()
    for tensor in gguf.tensors.values():
        weights[tensor.type_name] += tensor.n_values
    return weights.most_common(1)[0][0] if weights else "unknown"


def _capabilities(
    metadata: Mapping[str, Any], architecture: str, chat_template: str, insert: InsertMarks | None
) -> list[str]:
    pooling = metadata.get(f"{architecture}.pooling_type")
    found = ["completion" if pooling is None else "rerank" if pooling == _RANK else "embedding"]
    if f"{architecture}.vision.block_count" in metadata:
        found.append("vision")
    if f"{architecture}.audio.block_count" in metadata:
        found.append("audio")
    found += jinja_capabilities(chat_template)
    if insert is not None and pooling is None:
        found.append("insert")
    return found


def _model_info(metadata: Mapping[str, Any], parameter_count: int, limit: int | None) -> dict[str, Any]:
    shown = {key: value for key, value in metadata.items() if key not in _HIDDEN_KEYS}
    shown["general.parameter_count"] = parameter_count
    return {key: _plain(value, limit) for key, value in sorted(shown.items())}


def _plain(value: Any, limit: int | None) -> Any:
    """A metadata value as JSON has it: arrays as lists, None for one that is too long."""
    if isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return _shortest(value)
    if limit is not None and len(value) > limit:
        return None
    items: Sequence[Any] = value.tolist() if hasattr(value, "tolist") else list(value)
    return [_shortest(item) if isinstance(item, float) else item for item in items]


def _shortest(value: float) -> float:
    """The shortest decimal that is this float32, so that 1e-05 does not become 9.999999747378752e-06."""
    if not math.isfinite(value):
        return value
    for digits in range(6, 9):
        short = float(f"{value:.{digits}g}")
        with_32_bits = struct.unpack("<f", struct.pack("<f", short))[0] if abs(short) < 3.4e38 else short
        if with_32_bits == value:
            return short
    return value
