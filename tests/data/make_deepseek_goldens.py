"""Makes deepseek.npz: what transformers computes in F32 for the models of tests/generate/deepseek.py.

    PYTHON -m tests.data.make_deepseek_goldens   (with torch, transformers, gguf; the repository root is the folder)
"""

from pathlib import Path

import numpy as np
import torch
import transformers

from tests.generate.deepseek import DEEPSEEK_SHAPES, DeepseekShape, tensors
from tests.generate.moe import TOKENS

#: positions kept, the last of TOKENS
LAST = 8
RENAMED = {
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_q_a.weight": "self_attn.q_a_proj.weight",
    "attn_q_a_norm.weight": "self_attn.q_a_layernorm.weight",
    "attn_q_b.weight": "self_attn.q_b_proj.weight",
    "attn_kv_a_mqa.weight": "self_attn.kv_a_proj_with_mqa.weight",
    "attn_kv_a_norm.weight": "self_attn.kv_a_layernorm.weight",
    "attn_kv_b.weight": "self_attn.kv_b_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_gate_inp.weight": "mlp.gate.weight",
    "exp_probs_b.bias": "mlp.gate.e_score_correction_bias",
    "ffn_down_exps.weight": "mlp.experts.down_proj",
}


def config(shape: DeepseekShape) -> transformers.PretrainedConfig:
    """The shape in the words of transformers; sigmoid routing is V3's."""
    rope = {"rope_type": "default", "rope_theta": shape.rope_base}
    if shape.yarn:
        rope |= {
            "rope_type": "yarn", "factor": shape.yarn_factor, "mscale": shape.yarn, "mscale_all_dim": shape.yarn,
            "original_max_position_embeddings": shape.yarn_original, "beta_fast": 32, "beta_slow": 1,
        }  # fmt: skip
    options = {
        "vocab_size": shape.n_vocab,
        "hidden_size": shape.n_embd,
        "num_hidden_layers": shape.n_layer,
        "first_k_dense_replace": shape.n_dense,
        "num_attention_heads": shape.n_head,
        "num_key_value_heads": shape.n_head,
        "qk_nope_head_dim": shape.plain,
        "qk_rope_head_dim": shape.turned,
        "v_head_dim": shape.value,
        "kv_lora_rank": shape.latent,
        "q_lora_rank": shape.q_low or None,
        "intermediate_size": shape.n_ff,
        "moe_intermediate_size": shape.n_ff_expert,
        "n_routed_experts": shape.n_expert,
        "num_experts_per_tok": shape.n_used,
        "n_shared_experts": shape.n_shared,
        "routed_scaling_factor": shape.scale,
        "norm_topk_prob": shape.normalize,
        "n_group": shape.n_group,
        "topk_group": shape.n_group_used,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.eps,
        "rope_parameters": rope,
        "tie_word_embeddings": False,
        "attn_implementation": "eager",
    }
    if shape.sigmoid:
        return transformers.DeepseekV3Config(**options)
    method = "group_limited_greedy" if shape.n_group > 1 else "greedy"
    return transformers.DeepseekV2Config(topk_method=method, **options)


def state(shape: DeepseekShape) -> dict[str, np.ndarray]:
    """The tensors of the file under the names of transformers."""
    file = tensors(shape)
    found = {
        "model.embed_tokens.weight": file["token_embd.weight"],
        "model.norm.weight": file["output_norm.weight"],
        "lm_head.weight": file["output.weight"],
    }
    for layer in range(shape.n_layer):
        block, to = f"blk.{layer}.", f"model.layers.{layer}."
        own = {name.removeprefix(block): values for name, values in file.items() if name.startswith(block)}
        found |= {to + RENAMED[name]: values for name, values in own.items() if name in RENAMED}
        for name in ("gate", "up", "down"):
            for kind, folder in (("", "mlp"), ("_shexp", "mlp.shared_experts")):
                if f"ffn_{name}{kind}.weight" in own:
                    found[f"{to}{folder}.{name}_proj.weight"] = own[f"ffn_{name}{kind}.weight"]
        if "ffn_gate_exps.weight" in own:
            both = np.concatenate([own["ffn_gate_exps.weight"], own["ffn_up_exps.weight"]], 1)
            found[f"{to}mlp.experts.gate_up_proj"] = both
    return found


def main() -> None:
    """Compute and write all of them."""
    kept = {}
    for name, shape in DEEPSEEK_SHAPES.items():
        kind = transformers.DeepseekV3ForCausalLM if shape.sigmoid else transformers.DeepseekV2ForCausalLM
        model = kind(config(shape)).eval()
        values = {key: torch.from_numpy(np.ascontiguousarray(x)) for key, x in state(shape).items()}
        model.load_state_dict(values, strict=False)
        missing = [key for key in model.state_dict() if key not in values and "e_score_correction" not in key]
        if missing or set(values) - set(model.state_dict()):
            raise SystemExit(f"{name}: {missing} {set(values) - set(model.state_dict())}")
        with torch.no_grad():
            logits = model(torch.tensor([TOKENS])).logits[0, -LAST:]
        kept[name] = logits.numpy().astype(np.float32)
        print(name, kept[name].std())
    np.savez_compressed(Path(__file__).parent / "deepseek.npz", **kept)


if __name__ == "__main__":
    main()
