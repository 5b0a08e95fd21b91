"""Makes encoders.npz: what transformers computes in F32 from the weights of tests/generate/encoders.py.

    PYTHONPATH=. python tests/data/make_encoder_goldens.py        needs torch, transformers, gguf

For each text of TEXTS the mean of the hidden states (behind the projections of EmbeddingGemma), the first and the last
one; of models with a head that scores pairs its logit.
"""

import re
from pathlib import Path

import numpy as np
import torch
import transformers

from tests.generate.encoders import (
    CONTEXT,
    ENCODERS,
    EPS,
    HEAD_DIM,
    IN_NUMPY,
    LOCAL_BASE,
    N_FF,
    N_HEAD,
    N_LAYER,
    N_VOCAB,
    PATTERN,
    ROPE_BASE,
    TEXTS,
    WIDTH,
    WINDOW,
    Encoder,
    encoder_tensors,
)

_BERT = {
    "attn_q": "attention.self.query", "attn_k": "attention.self.key", "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense", "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense", "ffn_down": "output.dense", "layer_output_norm": "output.LayerNorm",
    "token_embd": "embeddings.word_embeddings", "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings", "token_embd_norm": "embeddings.LayerNorm",
    "cls": "classifier.dense", "cls.output": "classifier.out_proj",
}  # fmt: skip
_GEMMA = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
#: architecture -> (prefix of layers, GGUF name -> name in transformers)
NAMES = {
    "bert": ("encoder.layer", _BERT),
    "nomic-bert": (
        "layers",
        _BERT | _GEMMA | {
            "attn_output_norm": "post_attention_layernorm", "layer_output_norm": "post_mlp_layernorm",
        },
    ),
    "modern-bert": (
        "layers",
        {
            "token_embd": "embeddings.tok_embeddings", "token_embd_norm": "embeddings.norm",
            "attn_norm": "attn_norm", "attn_qkv": "attn.Wqkv", "attn_output": "attn.Wo", "ffn_norm": "mlp_norm",
            "ffn_up": "mlp.Wi", "ffn_down": "mlp.Wo", "output_norm": "final_norm",
            "cls": "head.dense", "cls.norm": "head.norm", "cls.output": "classifier",
        },
    ),
    "gemma-embedding": (
        "layers",
        _GEMMA | {
            "token_embd": "embed_tokens", "attn_norm": "input_layernorm",
            "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm", "output_norm": "norm",
        },
    ),
}  # fmt: skip


def _ropes(full: float, local: float) -> dict[str, object]:
    bases = {"full_attention": full, "sliding_attention": local}
    return {
        "layer_types": None,
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": base} for kind, base in bases.items()},
    }


#: architecture -> (class of the encoder, class with a head, configuration beside the common one)
CLASSES = {
    "bert": (
        "XLMRobertaModel",
        "XLMRobertaForSequenceClassification",
        {"max_position_embeddings": CONTEXT + 2, "type_vocab_size": 1, "pad_token_id": 1},
    ),
    "nomic-bert": (
        "NomicBertModel", "", {"rope_parameters": {"rope_type": "default", "rope_theta": ROPE_BASE}}
    ),
    "modern-bert": (
        "ModernBertModel",
        "ModernBertForSequenceClassification",
        {
            "local_attention": WINDOW, "global_attn_every_n_layers": PATTERN, "classifier_pooling": "mean",
            **_ropes(ROPE_BASE, LOCAL_BASE),
        },
    ),
    "gemma-embedding": (
        "Gemma3TextModel",
        "",
        {
            "use_bidirectional_attention": True, "sliding_window": WINDOW, "sliding_window_pattern": PATTERN,
            "query_pre_attn_scalar": HEAD_DIM, "rms_norm_eps": EPS, "pad_token_id": 0, **_ropes(ROPE_BASE, LOCAL_BASE),
        },
    ),
}  # fmt: skip


def network_of(model: Encoder) -> torch.nn.Module:
    """The network of transformers with the weights of the model."""
    plain, scoring, changes = CLASSES[model.architecture]
    kind = scoring if model.head in ("dense", "normed") else plain
    network_class = getattr(transformers, kind)
    common = {
        "vocab_size": N_VOCAB, "hidden_size": WIDTH, "intermediate_size": N_FF, "num_hidden_layers": N_LAYER,
        "num_attention_heads": N_HEAD, "num_key_value_heads": model.n_kv_head, "head_dim": HEAD_DIM,
        "max_position_embeddings": CONTEXT, "layer_norm_eps": EPS, "norm_eps": EPS, "num_labels": 1,
        "attn_implementation": "eager", "dtype": "float32", "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
        "cls_token_id": 0, "sep_token_id": 0,
    }  # fmt: skip
    if model.architecture == "bert":
        del common["num_key_value_heads"], common["head_dim"]
    network = network_class(network_class.config_class(**(common | changes))).eval()
    missing, unexpected = network.load_state_dict(state_of(model, kind == scoring), strict=False)
    if unexpected or [name for name in missing if "pooler" not in name]:
        raise ValueError(f"{model.architecture}: missing {missing}, unexpected {unexpected}")
    return network


def state_of(model: Encoder, scores: bool) -> dict[str, torch.Tensor]:
    """The weights as transformers names and stores them."""
    folder, names = NAMES[model.architecture]
    inside = {"bert": "roberta.", "modern-bert": "model."}[model.architecture] if scores else ""
    state = {}
    for tensor, found in encoder_tensors(model).items():
        stem, suffix = tensor.rsplit(".", 1)
        layer = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
        place, name = (f"{folder}.{layer[1]}.", layer[2]) if layer else ("", stem)
        for part, values in parts_of(model, name, found):
            if part in names:
                prefix = "" if part.startswith("cls") else inside
                state[f"{prefix}{place}{names[part]}.{suffix}"] = torch.tensor(np.ascontiguousarray(values))
    return state


def parts_of(model: Encoder, name: str, values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """A tensor as transformers stores it, or those that it is made of."""
    if name == "attn_qkv" and model.architecture == "nomic-bert":
        return list(zip(("attn_q", "attn_k", "attn_v"), np.split(values, 3), strict=True))
    if name == "position_embd":  # positions count from two on
        return [(name, np.concatenate([np.full((2, WIDTH), np.nan, np.float32), values]))]
    if name in ("token_types", "cls.output") and values.ndim == 1 and len(values) == WIDTH:
        return [(name, values[None])]
    if model.architecture == "gemma-embedding" and name.endswith("norm"):
        return [(name, values - 1)]
    return [(name, values)]


def golden(model: Encoder) -> np.ndarray:
    """For each text (mean, first, last) of the hidden states, or the logit of the head."""
    network = network_of(model)
    found = []
    for text in TEXTS:
        with torch.no_grad():
            out = network(torch.tensor([text]), attention_mask=torch.ones(1, len(text), dtype=torch.long))
        if model.head in ("dense", "normed"):
            found.append(out.logits[0].numpy())
            continue
        hidden = out.last_hidden_state[0]
        vectors = torch.stack([hidden.mean(dim=0), hidden[0], hidden[-1]])
        if model.head == "projections":
            tensors = encoder_tensors(model)
            for name in ("dense_2.weight", "dense_3.weight"):
                vectors = vectors @ torch.tensor(tensors[name]).T
        found.append(vectors.numpy())
    return np.stack(found)


def main() -> None:
    """Write the goldens beside this file."""
    goldens = {name: golden(model) for name, model in ENCODERS.items() if name not in IN_NUMPY}
    if not all(np.isfinite(values).all() for values in goldens.values()):
        raise ValueError("a golden is not finite")
    np.savez_compressed(Path(__file__).with_name("encoders.npz"), **goldens)
    for name, values in goldens.items():
        print(f"{name:20} {values.shape} standard deviation {values.std():.2f}")


if __name__ == "__main__":
    main()
