"""Makes gemma.npz: logits that transformers computes in F32 from the weights of tests/generate/gemmas.py.

    PYTHON -m tests.data.make_gemma_goldens        (with torch, transformers, gguf; the repository root is the folder)
"""

import re
from pathlib import Path

import numpy as np
import torch
import transformers

from tests.generate.gemmas import (
    BASE,
    CONTEXT,
    EPS,
    GEMMAS,
    HEAD_DIM,
    KEPT,
    LOCAL_BASE,
    N_EXPERT,
    N_FF,
    N_FF_EXPERT,
    N_HEAD,
    N_STREAM,
    N_USED,
    N_VOCAB,
    RANK,
    SOFTCAP,
    TOKENS,
    TURNED,
    WIDTH,
    WINDOW,
    Gemma,
    gemma_tensors,
)

#: GGUF name in a layer -> name in transformers; those that end in .weight there are written without it
LAYER = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
    "inp_gate": "per_layer_input_gate", "proj": "per_layer_projection", "post_norm": "post_per_layer_input_norm",
    "laurel_l": "laurel.linear_left", "laurel_r": "laurel.linear_right",
    "laurel_post_norm": "laurel.post_laurel_norm", "altup_router": "altup.modality_router",
    "altup_router_norm": "altup.router_norm", "altup_predict_coef": "altup.prediction_coefs",
    "altup_correct_coef": "altup.correction_coefs", "pre_ffw_norm_2": "pre_feedforward_layernorm_2",
    "post_ffw_norm_1": "post_feedforward_layernorm_1", "post_ffw_norm_2": "post_feedforward_layernorm_2",
    "ffn_gate_inp": "router.proj",
}  # fmt: skip
PLAIN = {
    "altup_correct_scale.weight": "altup.correct_output_scale", "layer_output_scale.weight": "layer_scalar",
    "ffn_gate_inp.scale": "router.scale", "ffn_down_exps.scale": "router.per_expert_scale",
    "ffn_gate_up_exps.weight": "experts.gate_up_proj", "ffn_down_exps.weight": "experts.down_proj",
}  # fmt: skip
OUTER = {
    "token_embd": "embed_tokens", "output_norm": "norm", "per_layer_token_embd": "embed_tokens_per_layer",
    "per_layer_model_proj": "per_layer_model_projection", "per_layer_proj_norm": "per_layer_projection_norm",
}  # fmt: skip
STACKS = {"altup_proj": "altup_projections", "altup_unembd_proj": "altup_unembed_projections"}


def configuration(model: Gemma) -> transformers.PretrainedConfig:
    """The model in the words of transformers."""
    common = {
        "vocab_size": N_VOCAB, "vocab_size_per_layer_input": N_VOCAB, "hidden_size": WIDTH,
        "intermediate_size": N_FF, "num_hidden_layers": model.n_layer, "num_attention_heads": N_HEAD,
        "num_key_value_heads": model.n_kv_head, "head_dim": HEAD_DIM, "max_position_embeddings": CONTEXT,
        "rms_norm_eps": EPS, "sliding_window": WINDOW, "final_logit_softcapping": SOFTCAP,
        "layer_types": [("sliding" if local else "full") + "_attention" for local in model.is_local],
        "num_kv_shared_layers": model.n_shared, "hidden_size_per_layer_input": model.per_layer,
        "attn_implementation": "eager", "dtype": "float32",
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": LOCAL_BASE},
            "full_attention": {"rope_type": "default", "rope_theta": BASE},
        },
    }  # fmt: skip
    if model.architecture == "gemma3n":
        return transformers.Gemma3nTextConfig(
            **common, laurel_rank=RANK, altup_num_inputs=N_STREAM, activation_sparsity_pattern=list(model.sparsity)
        )
    common["rope_parameters"]["full_attention"] |= {"rope_type": "proportional", "partial_rotary_factor": TURNED}
    if model.has_experts:
        common |= {
            "enable_moe_block": True, "num_experts": N_EXPERT, "top_k_experts": N_USED,
            "moe_intermediate_size": N_FF_EXPERT,
        }  # fmt: skip
    return transformers.Gemma4TextConfig(
        **common,
        global_head_dim=model.global_head,
        num_global_key_value_heads=model.n_global_kv_head,
        attention_k_eq_v=not model.has_global_v,
        use_double_wide_mlp=model.wide_ff,
    )


def state(model: Gemma) -> dict[str, torch.Tensor]:
    """The tensors of the file under the names of transformers."""
    found = {}
    for name, values in gemma_tensors(model).items():
        base = name.removesuffix(".weight")
        if match := re.fullmatch(r"blk\.(\d+)\.(.+)", name):
            own = PLAIN.get(match[2]) or f"{LAYER[match[2].removesuffix('.weight')]}.weight"
            found[f"model.layers.{match[1]}.{own}"] = values
        elif base in STACKS:
            found |= {f"model.{STACKS[base]}.{i}.weight": part for i, part in enumerate(values)}
        elif base in OUTER:
            found[f"model.{OUTER[base]}.weight"] = values
    return {name: torch.tensor(np.ascontiguousarray(values)) for name, values in found.items()}


def logits(name: str, model: Gemma) -> np.ndarray:
    """The logits of the last KEPT positions."""
    kind = transformers.Gemma3nForCausalLM if model.architecture == "gemma3n" else transformers.Gemma4ForCausalLM
    network = kind(configuration(model)).eval()
    missing, unexpected = network.load_state_dict(state(model), strict=False)
    network.tie_weights()
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"{name}: missing {missing}, unexpected {unexpected}")
    with torch.no_grad():
        return network(torch.tensor([TOKENS]), use_cache=False).logits[0, -KEPT:].numpy()


def main() -> None:
    """Write the goldens beside this file."""
    goldens = {name: logits(name, model) for name, model in GEMMAS.items()}
    np.savez_compressed(Path(__file__).with_name("gemma.npz"), **goldens)
    for name, values in goldens.items():
        print(f"{name:20} standard deviation of logits {values.std():.2f}, largest {np.abs(values).max():.2f}")


if __name__ == "__main__":
    main()
