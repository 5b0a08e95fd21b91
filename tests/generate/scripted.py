"""Scripted models: tiny GGUF files whose weights force one fixed answer, token by token.

Architecture llama, one layer, F32. Attention and feed-forward give zero, so what a position predicts depends on its
own token alone: the embedding is one-hot, and the output matrix maps each token of the script to the next. Every
position of a script has a token id of its own, also where pieces repeat. Logits are MARGIN for the right token and 0
for all others, so that neither temperature nor penalties leave the path.

Any prompt is answered: its last token decides. After the `prompt_end` token of a script, that script follows; after
any other token, the first script. The vocabulary spells every text (byte by byte).

    path = scripted_model(tmp_path / "m.gguf", ["Hel", "lo", " ", b"\\xe2\\x82", b"\\xac"])
    # greedy answer: five tokens "Hello €", then the end-of-text token

The gguf package writes the file. llama.cpp gives the same answers, but it refuses a file in which a piece is
spelled like another token (pieces that repeat, single bytes).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from os import PathLike
from pathlib import Path

import gguf
import numpy as np

from tests.generate.vocabulary import Control, Piece, Vocabulary

Script = Sequence[Piece]

MARGIN = 64.0
HEAD = 64
PROMPT_END = "<|go|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
#: <|role|>content for each message, then the prompt-end token.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}" + PROMPT_END + "{% endif %}"
)


def scripted_model(
    path: str | PathLike[str],
    script: Script | Mapping[str, Script],
    *,
    prompt_end: str = PROMPT_END,
    model: str = "gpt2",
    chat_template: str | None = CHAT_TEMPLATE,
    loop: bool = False,
    context: int = 4096,
    name: str = "scripted",
) -> Path:
    """Write a model that answers with `script`; returns its path.

    `script`: the pieces of the answer, one token each. Bytes may be part of a character; in a vocabulary of kind
    "llama" (SentencePiece) bytes come one by one. A mapping gives each prompt-end token a script of its own.
    `loop`: after the last piece comes the first again, for ever; otherwise the end-of-text token.
    """
    scripts = dict(script) if isinstance(script, Mapping) else {prompt_end: script}
    vocabulary = Vocabulary(model)
    for text in ROLES:
        vocabulary.control(text)
    successors: dict[int, int] = {}
    first: int | None = None
    for start, pieces in scripts.items():
        ids = [vocabulary.piece(piece) for piece in pieces]
        chain = [vocabulary.control(start), *ids, ids[0] if loop and ids else vocabulary.end]
        successors.update(pairwise(chain))
        first = chain[1] if first is None else first
    if first is None:
        raise ValueError("no script")
    _write(Path(path), vocabulary, successors, first, chat_template, context, name)
    return Path(path)


#: How Qwen 3 writes conversations, in short; the prompt ends with a token of its own for each thing to be said.
AGENT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool_call>"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>{% endfor %}'
    "{% if m.role == 'tool' %}({{ m.tool_name }}){% endif %}{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{{ '<|told|>' if messages[-1].role == 'tool' else '<|asked|>' if enable_thinking else '<|quiet|>' }}"
)
AGENT_THOUGHT = "I need the weather."
AGENT_CALL = ("weather", {"city": "Oslo", "days": 2})


def agent_model(path: str | PathLike[str]) -> Path:
    """A model that thinks, calls a tool, and tells what the tool said; its tags are control tokens."""
    think, thought, call, called = map(Control, ("<think>", "</think>", "<tool_call>", "</tool_call>"))
    arguments = ['\n{"name": "weather", "argu', 'ments": {"city": "Os', 'lo", "days"', ": 2}}", "\n"]
    asked = [think, "\n", "I need", " the ", "weather.", "\n", thought, "\n\n", "I look.", "\n", call]
    asked += [*arguments, called]
    scripts = {"<|asked|>": asked, "<|quiet|>": ["No", " thoughts."], "<|told|>": ["11 ", "degrees."]}
    return scripted_model(path, scripts, chat_template=AGENT_TEMPLATE, name="agent")


def _matrices(size: int, successors: Mapping[int, int], first: int) -> tuple[np.ndarray, np.ndarray]:
    """Embedding and output matrix. Column 0 stands for all tokens that are in no script."""
    width = -(-(len(successors) + 1) // HEAD) * HEAD
    embedding = np.zeros((size, width), np.float32)
    output = np.zeros((size, width), np.float32)
    # The final norm makes the one 1 of a row sqrt(width).
    weight = MARGIN / width**0.5
    output[first, 0] = weight
    columns = {token: 1 + i for i, token in enumerate(successors)}
    for token in range(size):
        embedding[token, columns.get(token, 0)] = 1.0
    for token, successor in successors.items():
        output[successor, columns[token]] = weight
    return embedding, output


def _write(
    path: Path,
    vocabulary: Vocabulary,
    successors: Mapping[int, int],
    first: int,
    chat_template: str | None,
    context: int,
    name: str,
) -> None:
    embedding, output = _matrices(len(vocabulary.texts), successors, first)
    width = embedding.shape[1]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_file_type(0)
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HEAD)
    writer.add_head_count(width // HEAD)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(HEAD)
    writer.add_vocab_size(len(vocabulary.texts))
    vocabulary.write(writer)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for norm in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{norm}.weight", np.ones(width, np.float32))
    shapes = {
        "attn_q": (width, width), "attn_k": (HEAD, width), "attn_v": (HEAD, width), "attn_output": (width, width),
        "ffn_gate": (HEAD, width), "ffn_up": (HEAD, width), "ffn_down": (width, HEAD),
    }  # fmt: skip
    for part, shape in shapes.items():
        writer.add_tensor(f"blk.0.{part}.weight", np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
