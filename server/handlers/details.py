"""The ``details`` object that tags, ps and show have in common."""

from typing import Any

from server.store.store import ModelSummary, StoredModel


def details_of(model: StoredModel, summary: ModelSummary, *, parent: bool = True) -> dict[str, Any]:
    """What the model's config says of its format, family and size; ps shows no parent."""
    config = model.config
    shown: dict[str, Any] = {
        "parent_model": model.parent_model if parent else "",
        "format": config.get("model_format") or "",
        "family": config.get("model_family") or "",
        "families": config.get("model_families"),
        "parameter_size": config.get("model_type") or "",
        "quantization_level": config.get("file_type") or "",
    }
    if summary.context_length:
        shown["context_length"] = summary.context_length
    if summary.embedding_length:
        shown["embedding_length"] = summary.embedding_length
    return shown
