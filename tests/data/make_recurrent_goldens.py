"""Makes recurrent.npz: logits that transformers computes in F32 from the weights of tests/generate/recurrent.py.

    PYTHONPATH=. python tests/data/make_recurrent_goldens.py        needs torch, transformers, gguf

The GGUF names and layouts are turned back into those of transformers: norm weights of Qwen (stored plus one), A (stored
as -e^A), and the rows of the delta net, which qwen3next has by heads of k, and qwen35 with the heads of v in another
order.
"""

from pathlib import Path

import numpy as np
import torch
import transformers

from tests.generate.recurrent import (
    CONTEXT,
    EPS,
    HEAD_DIM,
    HYBRIDS,
    KEPT,
    KEY,
    N_EXPERT,
    N_FF,
    N_FF_EXPERT,
    N_FF_SHARED,
    N_HEAD,
    N_K,
    N_KV_HEAD,
    N_LAYER,
    N_ROT,
    N_USED,
    N_V,
    N_VOCAB,
    ROPE_BASE,
    TOKENS,
    VALUE,
    WIDTH,
    recurrent_tensors,
)

CLASSES = {
    "lfm2": ("Lfm2Config", "Lfm2ForCausalLM"),
    "lfm2moe": ("Lfm2MoeConfig", "Lfm2MoeForCausalLM"),
    "qwen3next": ("Qwen3NextConfig", "Qwen3NextForCausalLM"),
    "qwen35": ("Qwen3_5TextConfig", "Qwen3_5ForCausalLM"),
    "qwen35moe": ("Qwen3_5MoeTextConfig", "Qwen3_5MoeForCausalLM"),
    "mamba2": ("Mamba2Config", "Mamba2ForCausalLM"),
}
_LFM2 = {
    "attn_norm": "operator_norm", "ffn_norm": "ffn_norm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.out_proj", "attn_q_norm": "self_attn.q_layernorm",
    "attn_k_norm": "self_attn.k_layernorm", "shortconv.in_proj": "conv.in_proj", "shortconv.conv": "conv.conv",
    "shortconv.out_proj": "conv.out_proj", "ffn_gate": "feed_forward.w1", "ffn_up": "feed_forward.w3",
    "ffn_down": "feed_forward.w2", "ffn_gate_inp": "feed_forward.gate",
}  # fmt: skip
_QWEN = {
    "attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ssm_norm": "linear_attn.norm", "ssm_out": "linear_attn.out_proj", "ssm_conv1d": "linear_attn.conv1d",
    "ssm_ba": "linear_attn.in_proj_ba", "ssm_beta": "linear_attn.in_proj_b", "ssm_alpha": "linear_attn.in_proj_a",
    "attn_qkv": "linear_attn.in_proj_qkv", "attn_gate": "linear_attn.in_proj_z",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate", "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj", "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}  # fmt: skip
OUTER = {
    "token_embd": "model.embed_tokens", "output": "lm_head", "output_norm": "model.norm",
    "token_embd_norm": "model.embedding_norm",
}  # fmt: skip
_MAMBA2 = {
    "attn_norm.weight": "norm.weight", "ssm_in.weight": "mixer.in_proj.weight",
    "ssm_out.weight": "mixer.out_proj.weight",
    "ssm_conv1d.weight": "mixer.conv1d.weight", "ssm_conv1d.bias": "mixer.conv1d.bias", "ssm_a": "mixer.A_log",
    "ssm_d": "mixer.D", "ssm_dt.bias": "mixer.dt_bias", "ssm_norm.weight": "mixer.norm.weight",
    "token_embd.weight": "backbone.embeddings.weight", "output_norm.weight": "backbone.norm_f.weight",
}  # fmt: skip
RATIO = N_V // N_K


def configuration(name: str) -> transformers.PretrainedConfig:
    """The configuration of the model in transformers."""
    model = HYBRIDS[name]
    if model.is_scan:
        return transformers.Mamba2Config(
            vocab_size=N_VOCAB, hidden_size=WIDTH, num_hidden_layers=N_LAYER, expand=N_V * VALUE // WIDTH,
            num_heads=N_V, head_dim=VALUE, state_size=KEY, n_groups=N_K, conv_kernel=model.conv_width,
            layer_norm_epsilon=EPS, rms_norm=True, tie_word_embeddings=True, chunk_size=32, dtype="float32",
        )  # fmt: skip
    recurrent = "linear_attention" if model.is_delta else "conv"
    kinds = ["full_attention" if layer in model.attention else recurrent for layer in range(N_LAYER)]
    rope = {"rope_type": "default", "rope_theta": ROPE_BASE}
    if model.is_delta:
        rope["partial_rotary_factor"] = N_ROT / HEAD_DIM
    if name.startswith("qwen35"):
        rope |= {"mrope_section": [2, 1, 1], "mrope_interleaved": True}
    options = {
        "vocab_size": N_VOCAB, "hidden_size": WIDTH, "intermediate_size": N_FF, "num_hidden_layers": N_LAYER,
        "num_attention_heads": N_HEAD, "num_key_value_heads": N_KV_HEAD, "max_position_embeddings": CONTEXT,
        "rms_norm_eps": EPS, "norm_eps": EPS, "tie_word_embeddings": model.tied, "layer_types": kinds,
        "rope_parameters": rope, "attn_implementation": "eager", "dtype": "float32",
        "conv_L_cache": model.conv_width, "block_auto_adjust_ff_dim": False, "head_dim": HEAD_DIM,
        "linear_conv_kernel_dim": model.conv_width, "linear_key_head_dim": KEY, "linear_value_head_dim": VALUE,
        "linear_num_key_heads": N_K, "linear_num_value_heads": N_V, "num_experts": N_EXPERT,
        "num_experts_per_tok": N_USED, "moe_intermediate_size": N_FF_EXPERT, "num_dense_layers": model.n_dense,
        "shared_expert_intermediate_size": N_FF_SHARED, "norm_topk_prob": True,
    }  # fmt: skip
    if not model.is_delta:
        del options["head_dim"]  # computed
    return getattr(transformers, CLASSES[name][0])(**options)


def by_key_head(own: dict[str, np.ndarray]) -> np.ndarray:
    """Rows of q, k, v and the gate of each head of k, from those of all heads one after another."""
    keys = N_K * KEY
    qkv = own.pop("attn_qkv.weight")
    parts = (qkv[:keys], qkv[keys : 2 * keys], qkv[2 * keys :], own.pop("attn_gate.weight"))
    return np.concatenate([part.reshape(N_K, -1, WIDTH) for part in parts], axis=1).reshape(-1, WIDTH)


def by_value_head(values: np.ndarray) -> np.ndarray:
    """Heads of v that share one of k side by side, which the file has N_K apart."""
    return values.reshape(RATIO, N_K, -1, *values.shape[1:]).swapaxes(0, 1).reshape(values.shape)


def reordered(own: dict[str, np.ndarray]) -> None:
    """All that qwen35 has by heads of v, in the order of transformers."""
    keys = 2 * N_K * KEY
    for name in ("attn_qkv.weight", "ssm_conv1d.weight"):
        own[name] = np.concatenate([own[name][:keys], by_value_head(own[name][keys:])])
    for name in ("attn_gate.weight", "ssm_beta.weight", "ssm_alpha.weight", "ssm_a", "ssm_dt.bias"):
        own[name] = by_value_head(own[name])
    own["ssm_out.weight"] = by_value_head(own["ssm_out.weight"].T).T


def layer_state(name: str, own: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of one layer as transformers has them."""
    model = HYBRIDS[name]
    found = {}
    if "ssm_a" in own:
        if model.grouped:
            found["linear_attn.in_proj_qkvz.weight"] = by_key_head(own)
        else:
            reordered(own)
        found["linear_attn.A_log"] = np.log(-own.pop("ssm_a"))
        found["linear_attn.dt_bias"] = own.pop("ssm_dt.bias")
    folder = "mlp" if model.is_delta else "feed_forward"
    if "exp_probs_b.bias" in own:
        found["feed_forward.expert_bias"] = own.pop("exp_probs_b.bias")
    if "ffn_gate_exps.weight" in own:
        gate, up = own.pop("ffn_gate_exps.weight"), own.pop("ffn_up_exps.weight")
        found[f"{folder}.experts.gate_up_proj"] = np.concatenate([gate, up], axis=1)
        found[f"{folder}.experts.down_proj"] = own.pop("ffn_down_exps.weight")
    for tensor, values in own.items():
        stem = tensor.removesuffix(".weight")
        if stem in ("shortconv.conv", "ssm_conv1d"):
            values = values[:, None]
        if stem == "ffn_gate_inp_shexp":
            values = values[None]
        if model.is_delta and stem.endswith("norm") and stem != "ssm_norm":
            values = values - 1
        found[f"{(_QWEN if model.is_delta else _LFM2)[stem]}.weight"] = values
    return found


def mamba2_state(file: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a state space model as transformers has them."""
    found = {}
    for tensor, values in file.items():
        layer, _, stem = tensor.removeprefix("blk.").partition(".") if tensor.startswith("blk.") else ("", "", tensor)
        if stem == "ssm_a":
            values = np.log(-values)
        if stem == "ssm_conv1d.weight":
            values = values[:, None]
        if stem in ("ssm_a", "ssm_d", "ssm_norm.weight"):
            values = values.reshape(-1)
        found[f"backbone.layers.{layer}.{_MAMBA2[stem]}" if layer else _MAMBA2[stem]] = values
    return found


def hybrid_state(name: str, file: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a hybrid model as transformers has them."""
    model, state = HYBRIDS[name], {}
    for tensor, values in file.items():
        if not tensor.startswith("blk."):
            stem = tensor.removesuffix(".weight")
            state[f"{OUTER[stem]}.weight"] = values - 1 if model.is_delta and stem == "output_norm" else values
    for layer in range(N_LAYER):
        block = f"blk.{layer}."
        own = {key.removeprefix(block): values for key, values in file.items() if key.startswith(block)}
        state |= {f"model.layers.{layer}.{key}": values for key, values in layer_state(name, own).items()}
    return state


def logits(name: str) -> np.ndarray:
    """The logits of the last KEPT positions."""
    model, file = HYBRIDS[name], recurrent_tensors(name)
    state = mamba2_state(file) if model.is_scan else hybrid_state(name, file)
    network = getattr(transformers, CLASSES[name][1])(configuration(name)).eval()
    tensors = {key: torch.tensor(np.ascontiguousarray(values)) for key, values in state.items()}
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    if set(missing) - ({"lm_head.weight"} if model.tied else set()) or unexpected:
        raise ValueError(f"{name}: missing {missing}, unexpected {unexpected}")
    network.tie_weights()
    with torch.no_grad():
        found = network(torch.tensor([TOKENS]), use_cache=False).logits[0, -KEPT:].numpy()
    if not np.isfinite(found).all():
        raise ValueError(f"{name}: logits are not finite")
    return found


def main() -> None:
    """Write the goldens beside this file."""
    goldens = {name: logits(name) for name in HYBRIDS}
    np.savez_compressed(Path(__file__).with_name("recurrent.npz"), **goldens)
    for name, values in goldens.items():
        print(f"{name:20} standard deviation of logits {values.std():.2f}")


if __name__ == "__main__":
    main()
