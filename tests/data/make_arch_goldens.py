"""Makes architectures.npz: logits that transformers computes in F32 from the weights of tests/generate/decoders.py.

    PYTHONPATH=. python tests/data/make_arch_goldens.py        needs torch, transformers, gguf

The GGUF names and layouts of the tiny models are turned back into those of transformers here: q and k of the models
that llama.cpp turns in adjacent pairs, norm weights of Gemma (stored plus one), q, k and v of GPT-NeoX and Falcon by
head.
"""

import math
import re
from pathlib import Path

import numpy as np
import torch
import transformers

from tests.generate.decoders import (
    CONTEXT,
    DECODERS,
    EPS,
    HEAD_DIM,
    KEPT,
    N_FF,
    N_HEAD,
    N_LAYER,
    N_ROT,
    N_VOCAB,
    ROPE_BASE,
    TOKENS,
    WIDTH,
    WINDOW,
    Decoder,
    decoder_tensors,
)

#: GGUF name in a layer -> name in transformers, most models
LAYER = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_SANDWICH = {
    "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip
_FALCON = {
    "attn_qkv": "self_attention.query_key_value", "attn_output": "self_attention.dense",
    "ffn_up": "mlp.dense_h_to_4h", "ffn_down": "mlp.dense_4h_to_h",
}  # fmt: skip
#: architecture -> (prefix of layers, changes of LAYER, changes of OUTER)
NAMES = {
    "gemma2": ("model.layers", _SANDWICH, {}),
    "gemma3": ("model.layers", _SANDWICH, {}),
    "olmo2": ("model.layers", _SANDWICH, {}),
    "olmo3": ("model.layers", _SANDWICH, {}),
    "phi3": ("model.layers", {"ffn_up": "mlp.gate_up_proj"}, {}),
    "starcoder2": ("model.layers", {"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}, {}),
    "phi2": (
        "model.layers",
        {"attn_output": "self_attn.dense", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2"},
        {"output_norm": "model.final_layernorm"},
    ),
    "gpt2": (
        "transformer.h",
        {
            "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
            "attn_norm": "ln_1", "ffn_norm": "ln_2",
        },
        {"token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f"},
    ),
    "gptneox": (
        "gpt_neox.layers",
        {
            "attn_qkv": "attention.query_key_value", "attn_output": "attention.dense",
            "ffn_up": "mlp.dense_h_to_4h", "ffn_down": "mlp.dense_4h_to_h",
        },
        {"token_embd": "gpt_neox.embed_in", "output_norm": "gpt_neox.final_layer_norm"},
    ),
    "falcon": (
        "transformer.h", _FALCON, {"token_embd": "transformer.word_embeddings", "output_norm": "transformer.ln_f"}
    ),
    "falcon-40b": (
        "transformer.h",
        _FALCON | {"attn_norm": "ln_mlp", "attn_norm_2": "ln_attn"},
        {"token_embd": "transformer.word_embeddings", "output_norm": "transformer.ln_f"},
    ),
}  # fmt: skip

_SLIDING = {"sliding_window": WINDOW}
_NEOX = {"rotary_pct": N_ROT / HEAD_DIM, "hidden_act": "gelu"}
_NEOX_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": ROPE_BASE, "partial_rotary_factor": 0.5}}
#: name -> (class, changes of the common configuration)
CONFIGS = {
    "llama": ("Llama", {}),
    "llama3": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "llama3", "rope_theta": ROPE_BASE, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 24,
            },
        },
    ),
    "mistral3": (
        "Ministral3",
        {
            "rope_parameters": {
                "rope_type": "yarn", "rope_theta": ROPE_BASE, "factor": 16.0, "beta_fast": 32.0, "beta_slow": 1.0,
                "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 48,
                "llama_4_scaling_beta": 0.1,
            },
            "sliding_window": None,
        },
    ),
    "smollm3": ("SmolLM3", {"no_rope_layer_interval": 4, "pad_token_id": 0}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {}),
    "granite": (
        "Granite",
        {
            "attention_multiplier": 0.1, "embedding_multiplier": 6.0, "residual_multiplier": 0.5,
            "logits_scaling": 2.0,
        },
    ),
    "olmo2": ("Olmo2", {"pad_token_id": 0}),
    "olmo3": (
        "Olmo3",
        {
            "pad_token_id": 0, **_SLIDING, "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": ROPE_BASE},
                "full_attention": {
                    "rope_type": "yarn", "rope_theta": ROPE_BASE, "factor": 8.0, "beta_fast": 32.0, "beta_slow": 1.0,
                    "original_max_position_embeddings": 32,
                },
            },
        },
    ),
    "gemma": ("Gemma", {"hidden_activation": "gelu_pytorch_tanh"}),
    "gemma2": (
        "Gemma2",
        {
            "query_pre_attn_scalar": HEAD_DIM, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0,
            **_SLIDING,
        },
    ),
    "gemma3": (
        "Gemma3",
        {
            "query_pre_attn_scalar": HEAD_DIM, **_SLIDING,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "rope_parameters": {
                kind: {"rope_type": "default", "rope_theta": ROPE_BASE}
                for kind in ("sliding_attention", "full_attention")
            },
        },
    ),
    "phi3": ("Phi3", {"pad_token_id": 0}),
    "phi3-longrope": (
        "Phi3",
        {"pad_token_id": 0, "original_max_position_embeddings": 32},
    ),
    "stablelm": ("StableLm", {"use_qkv_bias": True, **_NEOX_ROPE}),
    "stablelm-parallel": ("StableLm", {"use_parallel_residual": True, **_NEOX_ROPE}),
    "cohere2": ("Cohere2", {"logit_scale": 0.5, "pad_token_id": 0, **_SLIDING}),
    "starcoder2": ("Starcoder2", {"use_bias": True, "hidden_act": "gelu_pytorch_tanh", "sliding_window": None}),
    "gpt2": (
        "GPT2",
        {"n_embd": WIDTH, "n_layer": N_LAYER, "n_head": N_HEAD, "n_inner": N_FF, "n_positions": CONTEXT},
    ),
    "gptneox": ("GPTNeoX", {"use_parallel_residual": True, **_NEOX, **_NEOX_ROPE}),
    "gptneox-sequential": ("GPTNeoX", {"use_parallel_residual": False, **_NEOX, **_NEOX_ROPE}),
    "falcon": ("Falcon", {"multi_query": True, "parallel_attn": True, "bias": False, "ffn_hidden_size": N_FF}),
    "falcon-40b": (
        "Falcon",
        {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": False, "ffn_hidden_size": N_FF},
    ),
    "phi2": ("Phi", {"hidden_act": "gelu_new", **_NEOX_ROPE}),
}  # fmt: skip


def configuration(name: str, model: Decoder) -> transformers.PretrainedConfig:
    """The configuration of the model in transformers."""
    kind, changes = CONFIGS[name]
    common = {
        "vocab_size": N_VOCAB, "hidden_size": WIDTH, "intermediate_size": N_FF, "num_hidden_layers": N_LAYER,
        "num_attention_heads": N_HEAD, "num_key_value_heads": model.n_kv_head, "head_dim": HEAD_DIM,
        "max_position_embeddings": CONTEXT, "rms_norm_eps": EPS, "layer_norm_eps": EPS, "norm_epsilon": EPS,
        "layer_norm_epsilon": EPS, "tie_word_embeddings": model.tied, "bos_token_id": 0, "eos_token_id": 0,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_BASE},
        "attn_implementation": "eager", "dtype": "float32",
    }  # fmt: skip
    if name == "phi3-longrope":
        tensors = decoder_tensors(model)
        common["rope_parameters"] = {
            "rope_type": "longrope", "rope_theta": ROPE_BASE, "attention_factor": 1.25,
            "original_max_position_embeddings": 32,
            "short_factor": tensors["rope_factors_short.weight"].tolist(),
            "long_factor": tensors["rope_factors_long.weight"].tolist(),
        }  # fmt: skip
    if model.architecture == "falcon":  # computes it
        del common["head_dim"]
    config_class = getattr(transformers, f"{kind}TextConfig" if kind == "Gemma3" else f"{kind}Config")
    return config_class(**(common | changes))


def unpaired(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k for rope over halves, from those for adjacent pairs."""
    return values.reshape(heads, HEAD_DIM // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)


def by_head(values: np.ndarray, n_kv_head: int) -> np.ndarray:
    """Rows of q, k and v, all of one after another, as queries, key and value of each kv head."""
    q, k, v = np.split(values, [N_HEAD * HEAD_DIM, (N_HEAD + n_kv_head) * HEAD_DIM])
    parts = [part.reshape(n_kv_head, -1, HEAD_DIM, *values.shape[1:]) for part in (q, k, v)]
    return np.concatenate(parts, axis=1).reshape(values.shape)


def converted(model: Decoder, name: str, tensor: str, values: np.ndarray) -> np.ndarray:
    """The values as transformers stores them."""
    if model.architecture in {"llama", "mistral3", "smollm3", "granite"}:
        if ".attn_q." in tensor:
            return unpaired(values, N_HEAD)
        if ".attn_k." in tensor:
            return unpaired(values, model.n_kv_head)
    if model.architecture.startswith("gemma") and tensor.endswith("norm.weight"):
        return values - 1
    if ".attn_qkv." in tensor and (model.architecture == "gptneox" or name == "falcon-40b"):
        return by_head(values, model.n_kv_head)
    if model.architecture == "gpt2" and re.search(r"blk.*(attn|ffn)_(qkv|output|up|down).weight", tensor):
        return values.T
    return values


def logits(name: str, model: Decoder) -> np.ndarray:
    """The logits of the last KEPT positions."""
    prefix, layer_names, outer_names = NAMES.get(name, NAMES.get(model.architecture, ("model.layers", {}, {})))
    state = {}
    for tensor, values in decoder_tensors(model).items():
        values = torch.tensor(np.ascontiguousarray(converted(model, name, tensor, values)))
        stem, suffix = tensor.rsplit(".", 1)
        if match := re.fullmatch(r"blk\.(\d+)\.(\w+)", stem):
            state[f"{prefix}.{match[1]}.{(LAYER | layer_names)[match[2]]}.{suffix}"] = values
        elif not stem.startswith("rope_"):
            state[f"{(OUTER | outer_names)[stem]}.{suffix}"] = values
    kind = CONFIGS[name][0]
    network_class = getattr(transformers, "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")
    network = network_class(configuration(name, model)).eval()
    missing, unexpected = network.load_state_dict(state, strict=False)
    zero = [key for key in missing if not key.endswith(".bias") and not (model.tied and key == "lm_head.weight")]
    if zero or unexpected:
        raise ValueError(f"{name}: missing {zero}, unexpected {unexpected}")
    for key, parameter in network.named_parameters():
        if key in missing and key.endswith(".bias"):
            torch.nn.init.zeros_(parameter)
    network.tie_weights()
    with torch.no_grad():
        found = network(torch.tensor([TOKENS]), use_cache=False).logits[0, -KEPT:]
    if not math.isfinite(float(found.sum())):
        raise ValueError(f"{name}: logits are not finite")
    return found.numpy()


def main() -> None:
    """Write the goldens beside this file."""
    goldens = {name: logits(name, model) for name, model in DECODERS.items()}
    np.savez_compressed(Path(__file__).with_name("architectures.npz"), **goldens)
    for name, values in goldens.items():
        print(f"{name:20} standard deviation of logits {values.std():.2f}")


if __name__ == "__main__":
    main()
