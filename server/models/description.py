"""What a model is, read from its GGUF header and its manifest: details, capabilities, limits."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ollamacore.gguf import GGUFFile


@dataclass(frozen=True, slots=True)
class Description:
    """The facts of a GGUF file that requests depend on."""

    architecture: str
    chat_template: str | None
    capabilities: tuple[str, ...]
    context_length: int
    embedding_length: int
    parameter_count: int
    file_type: str

    def supports(self, capability: str) -> bool:
        """Whether the model can do this: completion, embedding, tools, insert, vision, thinking."""
        return capability in self.capabilities


@lru_cache(maxsize=256)
def describe(path: Path) -> Description:
    """Read the header of a model file. Files of the store never change, so each is read once."""
    with GGUFFile.open(path) as gguf:
        architecture = gguf.architecture
        template = gguf.get("tokenizer.chat_template", str, None)
        return Description(
            architecture=architecture,
            chat_template=template,
            capabilities=tuple(_capabilities(gguf, architecture, template or "")),
            context_length=gguf.get(f"{architecture}.context_length", int, 0),
            embedding_length=gguf.get(f"{architecture}.embedding_length", int, 0),
            parameter_count=gguf.parameter_count,
            file_type=gguf.file_type_name,
        )


def _capabilities(gguf: GGUFFile, architecture: str, template: str) -> list[str]:
    """The abilities that the header shows, in Ollama's order."""
    found = ["embedding" if f"{architecture}.pooling_type" in gguf.metadata else "completion"]
    if "tools" in template or "tool_call" in template:
        found.append("tools")
    if ("<think>" in template and "</think>" in template) or "split('</think>')" in template:
        found.append("thinking")
    return found


def details(config: Mapping[str, Any], description: Description) -> dict[str, Any]:
    """The ``details`` object of tags, ps and show: the manifest's words first, the file's otherwise."""
    family = config.get("model_family") or description.architecture
    shown: dict[str, Any] = {
        "parent_model": "",
        "format": config.get("model_format") or "gguf",
        "family": family,
        "families": config.get("model_families") or [family],
        "parameter_size": config.get("model_type") or human_count(description.parameter_count),
        "quantization_level": config.get("file_type") or description.file_type,
    }
    if description.context_length:
        shown["context_length"] = description.context_length
    if description.embedding_length:
        shown["embedding_length"] = description.embedding_length
    return shown


def human_count(count: int) -> str:
    """A number of parameters as Ollama writes it: 134.52M, 7.6B, 3B, 512K."""
    for size, unit, digits in ((10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 0)):
        if count >= size:
            text = f"{count / size:.{digits}f}"
            return (text.rstrip("0").rstrip(".") if digits and not float(text) % 1 else text) + unit
    return str(count)
