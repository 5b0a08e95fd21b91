"""all-MiniLM-L6-v2 from safetensors to GGUF, named and typed as converters do it: matrices F16, all else F32."""

import json
from pathlib import Path

import gguf
import numpy as np

#: [PAD] and so on: control tokens that keep their spelling
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
NORMAL, CONTROL = 1, 3

_NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
#: matrices that stay F32
_F32 = ("position_embd.weight", "token_types.weight")


def read_safetensors(data: bytes) -> dict[str, np.ndarray]:
    """The F32 tensors of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    found = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue
        first, last = entry["data_offsets"]
        found[name] = np.frombuffer(data[8 + size + first : 8 + size + last], "<f4").reshape(entry["shape"])
    return found


def gguf_name(name: str) -> str | None:
    """The tensor's name in GGUF; None for those that are left out (the pooler)."""
    stem, _, kind = name.rpartition(".")
    block = ""
    if stem.startswith("encoder.layer."):
        _, _, number, stem = stem.split(".", 3)
        block = f"blk.{number}."
    return f"{block}{_NAMES[stem]}.{kind}" if stem in _NAMES else None


def gguf_piece(token: str) -> str:
    """A piece of vocab.txt as GGUF has it: U+2581 where a word begins, nothing inside one."""
    if token in SPECIAL:
        return token
    return token.removeprefix("##") if token.startswith("##") else f"\u2581{token}"


def write_vocabulary(writer: gguf.GGUFWriter, tokens: list[str]) -> None:
    """The tokenizer of a BERT model from the lines of its vocab.txt."""
    writer.add_tokenizer_model("bert")
    writer.add_token_list([gguf_piece(token) for token in tokens])
    writer.add_token_types([CONTROL if token in SPECIAL else NORMAL for token in tokens])
    writer.add_uint32("tokenizer.ggml.unknown_token_id", tokens.index("[UNK]"))
    writer.add_uint32("tokenizer.ggml.bos_token_id", tokens.index("[CLS]"))
    writer.add_uint32("tokenizer.ggml.seperator_token_id", tokens.index("[SEP]"))


def write_minilm(path: Path, safetensors: bytes, vocabulary: list[str]) -> None:
    """Write the model to path."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_token_type_count(2)
    for add, value in (
        (writer.add_block_count, 6),
        (writer.add_context_length, 512),
        (writer.add_embedding_length, 384),
        (writer.add_feed_forward_length, 1536),
        (writer.add_head_count, 12),
        (writer.add_layer_norm_eps, 1e-12),
        (writer.add_causal_attention, False),
        (writer.add_pooling_type, gguf.PoolingType.MEAN),
    ):
        add(value)
    writer.add_token_type_count(2)  # llama.cpp wants to know
    write_vocabulary(writer, vocabulary)
    for name, values in read_safetensors(safetensors).items():
        target = gguf_name(name)
        if target is not None:
            is_half = values.ndim == 2 and target not in _F32
            writer.add_tensor(target, values.astype(np.float16) if is_half else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
