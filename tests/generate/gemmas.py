"""Tiny models of Gemma 3n and Gemma 4, with the quirks of each size, for the logits of transformers.

    path = gemma_model(tmp_path / "m.gguf", "gemma4-e2b", tensor_type="Q8_0")

tests/data/make_gemma_goldens.py gives the same weights to transformers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from statistics import NormalDist

import gguf
import numpy as np

from tests.generate.tiny import Weights, noise, write_tensors
from tests.generate.vocabulary import Vocabulary

WIDTH, N_HEAD, HEAD_DIM, N_FF, N_VOCAB, CONTEXT = 128, 4, 32, 192, 384, 1024
WINDOW, EPS, LOCAL_BASE, BASE, SOFTCAP = 16, 1e-6, 10000.0, 1e6, 3.0
N_STREAM, RANK, PER_LAYER, N_EXPERT, N_USED, N_FF_EXPERT = 4, 32, 32, 8, 3, 64
#: of pairs of a long head the first eighth is turned
TURNED = 0.25
#: one sequence, longer than the window and a KV block
TOKENS = [(7 * i * i + 3 * i + 5) % 340 + 3 for i in range(45)]
KEPT = 3


@dataclass(frozen=True)
class Gemma:
    """What the file of one model has; `is_local` has an entry for each layer, as `sparsity` if it is there."""

    architecture: str = "gemma4"
    is_local: tuple[bool, ...] = (True, False, True, False, True, False)
    n_shared: int = 0  # layers that read keys of others
    per_layer: int = 0  # width of the inputs of layers
    global_head: int = 2 * HEAD_DIM
    n_kv_head: int = 2
    n_global_kv_head: int = 2
    has_global_v: bool = True
    wide_ff: bool = False  # twice as wide in layers that share keys
    has_experts: bool = False
    fused_experts: bool = True
    sparsity: tuple[float, ...] = ()

    @property
    def n_layer(self) -> int:
        return len(self.is_local)

    def n_ff(self, layer: int) -> int:
        return N_FF * 2 if self.wide_ff and layer >= self.n_layer - self.n_shared else N_FF

    def head_dim(self, layer: int) -> int:
        return HEAD_DIM if self.is_local[layer] else self.global_head

    def kv_heads(self, layer: int) -> int:
        return self.n_kv_head if self.is_local[layer] else self.n_global_kv_head


GEMMAS = {
    "gemma3n": Gemma(
        architecture="gemma3n",
        is_local=(True, False, True, True, False, True),
        n_shared=2,
        per_layer=PER_LAYER,
        global_head=HEAD_DIM,
        sparsity=(0.7, 0.7, 0.5, 0.0, 0.0, 0.0),
    ),
    "gemma4-e2b": Gemma(
        is_local=(True, True, False) * 2,
        n_shared=3,
        per_layer=PER_LAYER,
        n_kv_head=1,
        n_global_kv_head=1,
        wide_ff=True,
    ),
    "gemma4-31b": Gemma(n_global_kv_head=1, has_global_v=False),
    "gemma4-26b-a4b": Gemma(
        is_local=(True, True, False), n_global_kv_head=1, has_global_v=False, has_experts=True
    ),
}


def gemma_tensors(model: Gemma, seed: int = 1) -> dict[str, np.ndarray]:
    """The tensors of a model; a matrix has a row for each output, stacks and experts are the first axis."""
    weights = Weights(seed)
    weights.matrix("token_embd", N_VOCAB, WIDTH, 1.0)
    weights.vector("output_norm.weight", WIDTH, 2.0, 0.3)
    if model.per_layer:
        weights.matrix("per_layer_token_embd", N_VOCAB, model.n_layer * model.per_layer, 6.0)
        weights.matrix("per_layer_model_proj", model.n_layer * model.per_layer, WIDTH, 12.0)
        weights.vector("per_layer_proj_norm.weight", model.per_layer, 1.0, 0.3)
    if model.architecture == "gemma3n":
        for name in ("altup_proj", "altup_unembd_proj"):
            stack = noise(seed, name, (N_STREAM - 1, WIDTH, WIDTH))
            weights.found[f"{name}.weight"] = stack * np.float32((3 / WIDTH) ** 0.5)
    else:
        pairs = model.global_head // 2
        turned = int(TURNED * pairs)
        weights.found["rope_freqs.weight"] = np.float32([1.0] * turned + [1e30] * (pairs - turned))
    for layer in range(model.n_layer):
        _add_layer(weights, model, layer)
    return weights.found


def _add_layer(weights: Weights, model: Gemma, layer: int) -> None:
    block, n_ff, head_dim = f"blk.{layer}.", model.n_ff(layer), model.head_dim(layer)
    query, keys = N_HEAD * head_dim, model.kv_heads(layer) * head_dim
    matrices = {
        "attn_q": (query, WIDTH), "attn_output": (WIDTH, query), "ffn_gate": (n_ff, WIDTH), "ffn_up": (n_ff, WIDTH),
        "ffn_down": (WIDTH, n_ff),
    }  # fmt: skip
    norms = dict.fromkeys(("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"), WIDTH)
    norms["attn_q_norm"] = head_dim
    if layer < model.n_layer - model.n_shared:
        matrices["attn_k"] = (keys, WIDTH)
        norms["attn_k_norm"] = head_dim
        if model.is_local[layer] or model.has_global_v:
            matrices["attn_v"] = (keys, WIDTH)
    if model.per_layer:
        matrices |= {"inp_gate": (model.per_layer, WIDTH), "proj": (WIDTH, model.per_layer)}
        norms["post_norm"] = WIDTH
    if model.architecture == "gemma3n":
        matrices |= {"laurel_l": (RANK, WIDTH), "laurel_r": (WIDTH, RANK), "altup_router": (N_STREAM, WIDTH)}
        norms |= {"laurel_post_norm": WIDTH, "altup_router_norm": WIDTH, "altup_correct_scale": WIDTH}
        for name, rows in (("predict", N_STREAM**2), ("correct", N_STREAM)):
            weights.matrix(f"{block}altup_{name}_coef", rows, N_STREAM, 0.5)
    else:
        weights.vector(f"{block}layer_output_scale.weight", 1, 0.7, 0.2)
    if model.has_experts:
        _add_experts(weights, model, block)
        norms |= dict.fromkeys(("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"), WIDTH)
    for name, (rows, columns) in matrices.items():
        weights.matrix(block + name, rows, columns, 60.0 if name == "altup_router" else 1.5)
    for name, size in norms.items():
        # Nothing divides the scores of attention; as in real models the norms of q and k keep them small.
        center = 0.5 if name in ("attn_q_norm", "attn_k_norm") else 1.0
        weights.vector(f"{block}{name}.weight", size, center, 0.3 * center)


def _add_experts(weights: Weights, model: Gemma, block: str) -> None:
    weights.matrix(f"{block}ffn_gate_inp", N_EXPERT, WIDTH, 20.0)
    weights.vector(f"{block}ffn_gate_inp.scale", WIDTH, 1.0, 0.3)
    weights.vector(f"{block}ffn_down_exps.scale", N_EXPERT, 1.0, 0.5)
    experts = {}
    for name, rows, columns in (("gate", N_FF_EXPERT, WIDTH), ("up", N_FF_EXPERT, WIDTH), ("down", WIDTH, N_FF_EXPERT)):
        scale = np.float32(1.5 * (3 / columns) ** 0.5)
        experts[name] = noise(weights.seed, f"{block}{name}", (N_EXPERT, rows, columns)) * scale
    if model.fused_experts:
        experts["gate_up"] = np.concatenate([experts.pop("gate"), experts.pop("up")], axis=1)
    weights.found |= {f"{block}ffn_{name}_exps.weight": values for name, values in experts.items()}


def gemma_model(
    path: str | PathLike[str],
    name: str,
    tensor_type: str = "F32",
    *,
    tensors: Mapping[str, np.ndarray | None] | None = None,
    metadata: Mapping[str, int] | None = None,
    **changes: object,
) -> Path:
    """Write a model and return its path. `tensor_type` is that of the matrices but small ones.

    `changes` replace fields of GEMMAS[name], `tensors` and `metadata` what the file has; None leaves a tensor out.
    """
    model = replace(GEMMAS[name], **changes)
    writer = gguf.GGUFWriter(Path(path), model.architecture)
    _write_metadata(writer, model)
    for key, value in (metadata or {}).items():
        writer.kv_data[0].pop(f"{model.architecture}.{key}", None)
        writer.add_uint32(f"{model.architecture}.{key}", value)
    wanted = gemma_tensors(model) | dict(tensors or {})
    kept = {tensor: values for tensor, values in wanted.items() if values is not None}
    write_tensors(writer, kept, tensor_type, lambda tensor: "_coef" in tensor or "_inp." in tensor)
    return Path(path)


def _write_metadata(writer: gguf.GGUFWriter, model: Gemma) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(model.n_layer)
    writer.add_head_count(N_HEAD)
    writer.add_key_length(model.global_head)
    writer.add_value_length(model.global_head)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_sliding_window(WINDOW)
    writer.add_sliding_window_pattern(list(model.is_local))
    writer.add_rope_freq_base(BASE)
    writer.add_rope_freq_base_swa(LOCAL_BASE)
    writer.add_shared_kv_layers(model.n_shared)
    writer.add_embedding_length_per_layer_input(model.per_layer)
    writer.add_final_logit_softcapping(SOFTCAP)
    if model.architecture == "gemma3n":
        writer.add_feed_forward_length(N_FF)
        writer.add_head_count_kv(model.n_kv_head)
        writer.add_altup_active_idx(0)
        writer.add_altup_num_inputs(N_STREAM)
        deviations = [NormalDist().inv_cdf(part) if part else -np.inf for part in model.sparsity]
        writer.add_activation_sparsity_scale(deviations)
    else:
        writer.add_key_length_swa(HEAD_DIM)
        writer.add_value_length_swa(HEAD_DIM)
        writer.add_rope_dimension_count(model.global_head)
        writer.add_rope_dimension_count_swa(HEAD_DIM)
        widths = [model.n_ff(layer) for layer in range(model.n_layer)]
        writer.add_feed_forward_length(widths if model.wide_ff else N_FF)
        heads = [model.kv_heads(layer) for layer in range(model.n_layer)]
        writer.add_head_count_kv(heads if len(set(heads)) > 1 else heads[0])
    if model.has_experts:
        writer.add_expert_count(N_EXPERT)
        writer.add_expert_used_count(N_USED)
        writer.add_expert_feed_forward_length(N_FF_EXPERT)
    vocabulary = Vocabulary("gpt2")
    while len(vocabulary.texts) < N_VOCAB:
        vocabulary.piece(f" w{len(vocabulary.texts)}")
    vocabulary.write(writer)
