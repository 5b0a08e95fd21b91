"""Makes moe/logits.npz: what transformers computes in F32 for the models of tests/generate/moe.py.

    PYTHON -m tests.data.make_moe_goldens        (with torch, transformers, gguf; the repository root is the folder)
"""

from pathlib import Path

import numpy as np
import torch
import transformers

from tests.generate.moe import MOE_SHAPES, TOKENS, MoeShape, tensors

#: positions kept, the last of TOKENS
LAST = 8
#: classes of transformers, and the folder of the feed-forward in a layer
CLASSES = {
    "llama": ("Mixtral", "mlp.gate"),
    "qwen2moe": ("Qwen2Moe", "mlp.gate"),
    "qwen3moe": ("Qwen3Moe", "mlp.gate"),
    "olmoe": ("Olmoe", "mlp.gate"),
    "granitemoe": ("GraniteMoe", "block_sparse_moe.router"),
    "glm4moe": ("Glm4Moe", "mlp.gate"),
    "gpt-oss": ("GptOss", "mlp.router"),
}
#: architectures whose files hold q and k with the pairs of a head side by side
PAIRED = {"llama", "granitemoe"}
RENAMED = {
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "attn_sinks.weight": "self_attn.sinks",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "exp_probs_b.bias": "mlp.gate.e_score_correction_bias",
    "ffn_gate_inp_shexp.weight": "mlp.shared_expert_gate.weight",
}


def config(architecture: str, shape: MoeShape) -> transformers.PretrainedConfig:
    """The shape in the words of transformers."""
    name = CLASSES[architecture][0]
    options = {
        "vocab_size": shape.n_vocab,
        "hidden_size": shape.n_embd,
        "num_hidden_layers": shape.n_layer,
        "num_attention_heads": shape.n_head,
        "num_key_value_heads": shape.n_kv_head,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.n_ff,
        "moe_intermediate_size": shape.n_ff,
        "num_local_experts": shape.n_expert,
        "num_experts": shape.n_expert,
        "num_experts_per_tok": shape.n_used,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.rope_base,
        "tie_word_embeddings": False,
        "max_position_embeddings": 4096,
        "sliding_window": None,
        "attn_implementation": "eager",
    }
    if shape.n_ff_shared:
        options["shared_expert_intermediate_size"] = shape.n_ff_shared
    if architecture == "qwen3moe":
        options["norm_topk_prob"] = True
    if architecture == "glm4moe":
        options |= {
            "n_routed_experts": shape.n_expert, "n_shared_experts": shape.n_ff_shared // shape.n_ff,
            "first_k_dense_replace": 0, "norm_topk_prob": True, "use_qk_norm": True, "attention_bias": True,
            "routed_scaling_factor": shape.extra["expert_weights_scale"], "n_group": 1, "topk_group": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_base,
                                "partial_rotary_factor": shape.n_rot / shape.head_dim},
        }  # fmt: skip
    if architecture == "granitemoe":
        scales = {"attention.scale": "attention_multiplier", "embedding_scale": "embedding_multiplier",
                  "residual_scale": "residual_multiplier", "logit_scale": "logits_scaling"}  # fmt: skip
        options |= {scales[key]: value for key, value in shape.extra.items()}
    if shape.is_gpt_oss:
        options["sliding_window"] = 24
        options["rope_parameters"] = {
            "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
            "original_max_position_embeddings": 4096, "rope_theta": shape.rope_base,
        }  # fmt: skip
        options["layer_types"] = [("full" if i % 2 else "sliding") + "_attention" for i in range(shape.n_layer)]
    return getattr(transformers, f"{name}Config")(**options)


def state(architecture: str, shape: MoeShape) -> dict[str, np.ndarray]:
    """The tensors of the file under the names, and in the layout, of transformers."""
    file = tensors(shape)
    found = {
        "model.embed_tokens.weight": file["token_embd.weight"],
        "model.norm.weight": file["output_norm.weight"],
        "lm_head.weight": file["output.weight"],
    }
    for layer in range(shape.n_layer):
        block = f"blk.{layer}."
        own = {name.removeprefix(block): values for name, values in file.items() if name.startswith(block)}
        found |= {f"model.layers.{layer}.{key}": values for key, values in _layer(architecture, shape, own).items()}
    return found


def _layer(architecture: str, shape: MoeShape, own: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    router = CLASSES[architecture][1]
    experts = router.split(".")[0] + ".experts."
    found = {}
    for name, values in own.items():
        base, kind = name.rsplit(".", 1)
        if name in RENAMED:
            found[RENAMED[name]] = values[None] if base.endswith("shexp") else values
        elif base.startswith("attn_"):
            if architecture in PAIRED and base in ("attn_q", "attn_k"):
                heads = values.reshape(-1, shape.head_dim // 2, 2, shape.n_embd)
                values = heads.swapaxes(1, 2).reshape(values.shape)
            found[f"self_attn.{base[5:].replace('output', 'o')}_proj.{kind}"] = values
        elif base == "ffn_gate_inp":
            found[f"{router}.{kind}"] = values
        elif base.endswith("_shexp"):
            shared = "shared_experts" if architecture == "glm4moe" else "shared_expert"
            found[f"mlp.{shared}.{base[4:-6]}_proj.weight"] = values
    gate, up, down = (own[f"ffn_{name}_exps.weight"] for name in ("gate", "up", "down"))
    if not shape.is_gpt_oss:
        return found | {f"{experts}gate_up_proj": np.concatenate([gate, up], 1), f"{experts}down_proj": down}
    biases = [own[f"ffn_{name}_exps.bias"] for name in ("gate", "up")]
    both = np.stack([gate, up], 2).reshape(shape.n_expert, 2 * shape.n_ff, shape.n_embd)
    return found | {
        f"{experts}gate_up_proj": both.swapaxes(1, 2),
        f"{experts}down_proj": down.swapaxes(1, 2),
        f"{experts}gate_up_proj_bias": np.stack(biases, 2).reshape(shape.n_expert, -1),
        f"{experts}down_proj_bias": own["ffn_down_exps.bias"],
    }


def main() -> None:
    """Compute and write all of them."""
    kept = {}
    for architecture, shape in MOE_SHAPES.items():
        model = getattr(transformers, f"{CLASSES[architecture][0]}ForCausalLM")(config(architecture, shape)).eval()
        values = {key: torch.from_numpy(np.ascontiguousarray(x)) for key, x in state(architecture, shape).items()}
        model.load_state_dict(values, strict=True)
        with torch.no_grad():
            logits = model(torch.tensor([TOKENS])).logits[0, -LAST:]
        kept[architecture] = logits.numpy().astype(np.float32)
        print(architecture, kept[architecture].std())
    folder = Path(__file__).parent / "moe"
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / "logits.npz", **kept)


if __name__ == "__main__":
    main()
