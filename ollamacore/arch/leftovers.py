"""What a file has beside what its plan reads.

A weight that nobody multiplies, or a number that nobody looks at, makes another model than the one that is computed.
So both are refused by name, but for those that are known to belong to something else.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ollamacore.arch.hyper import Metadata
from ollamacore.arch.plan import Plan
from ollamacore.errors import UnsupportedModelError

#: tensors that no plan reads
_BESIDE = re.compile(
    r"cls(\.output|\.norm)?\.(weight|bias)"  # a scoring head: rerank.py
    r"|dense_[23]\.(weight|bias)"  # behind the pooling: dense.py
    r"|(a|v|mm)\..+"  # towers for sound and images, in files for Ollama's own engine
    r"|blk\.\d+\.nextn\..+"  # drafts of further tokens
    r"|blk\.\d+\.attn_rot_embd(\.weight)?"  # what rope.py computes, in old files
)
_LAYER = re.compile(r"blk\.(\d+)\.")

#: numbers of a file that change what is computed -> values with which they do not
_NEUTRAL: dict[str, tuple[float, ...]] = {
    "attention.clamp_kqv": (0,), "attention.max_alibi_bias": (0,), "attention.output_scale": (0, 1),
    "attention.scale": (0,), "attention.shared_kv_layers": (0,), "attention.temperature_scale": (0,),
    "attention.value_scale": (0, 1), "attn_logit_softcapping": (0,), "embedding_scale": (0, 1),
    "expert_count": (0,), "expert_group_count": (0, 1), "expert_group_scale": (0, 1),
    "expert_weights_scale": (0, 1), "final_logit_softcapping": (0,), "logit_scale": (0, 1), "num_loops": (0, 1),
    "residual_scale": (0, 1), "rope.scaling.alpha": (0, 1), "router_logit_softcapping": (0,),
    "swiglu_clamp_exp": (0,), "swiglu_clamp_shexp": (0,),
}  # fmt: skip


def check_leftovers(meta: Metadata, plan: Plan) -> None:
    """UnsupportedModelError that names a tensor or a key of the file which `plan` should have read."""
    known = plan.tensors() | meta.tensors_read
    _refuse(meta, "tensor", (name for name in plan.file.tensors if name not in known and not _is_beside(meta, name)))
    prefix = f"{meta.architecture}."
    values = {
        key.removeprefix(prefix): value
        for key, value in plan.file.metadata.items()
        if key.startswith(prefix) and key not in meta.keys_read
    }
    _refuse(meta, "metadata value", (prefix + key for key in values if not _is_neutral(meta, plan, key, values[key])))


def _refuse(meta: Metadata, kind: str, names: Iterable[str]) -> None:
    found = list(names)
    if found:
        others = f" and {len(found) - 1} others" if len(found) > 1 else ""
        raise UnsupportedModelError(
            f"{kind} {found[0]!r}{others}: not known of architecture {meta.architecture!r}, so results would be wrong"
        )


def _is_beside(meta: Metadata, name: str) -> bool:
    if _BESIDE.fullmatch(name):
        return True
    layer, n_layer = _LAYER.match(name), meta.integer("block_count", 1, 512)
    n_draft = meta.integer("nextn_predict_layers", 0, 512, 0)
    return layer is not None and n_layer - n_draft <= int(layer[1]) < n_layer


def _is_neutral(meta: Metadata, plan: Plan, key: str, value: Any) -> bool:
    """Whether a number that nobody has read may be left unread."""
    special: dict[str, Callable[[], bool]] = {
        "attention.causal": lambda: plan.is_encoder or bool(value),
        "attention.rope_pattern": lambda: bool(np.all(value)),
        "attention.sliding_window": lambda: not 0 < value < meta.integer("context_length", 1, 1 << 26),
    }
    if key in special:
        return special[key]()
    if key.endswith("_swa"):  # of the layers with a window, where they differ from the others
        return bool(np.all(value == meta.file.metadata.get(f"{meta.architecture}.{key.removesuffix('_swa')}")))
    return key not in _NEUTRAL or bool(np.isin(value, _NEUTRAL[key]).all())
