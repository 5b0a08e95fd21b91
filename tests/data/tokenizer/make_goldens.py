"""Write goldens.json: what llama.cpp makes of CASES and of mixed.txt with real vocabularies.

Command (from the repository root, where llama-cpp-python 0.3.36 is installed):
    python tests/data/tokenizer/make_goldens.py smollm2=FILE.gguf qwen05=FILE.gguf gemma3=FILE.gguf
"""

import ctypes
import hashlib
import json
import sys
from array import array
from pathlib import Path

import llama_cpp

HERE = Path(__file__).parent
CASES = [
    "", " ", "  ", "   ", "\t", "\n", "\n\n", "\n\n\n", " \n ", "\r\n", "Hello", " Hello", "  Hello", "Hello ",
    "Hello world", " Hello world! ", "Hello, y'all! How are you 😁 ?", "I'm he'd WE'LL they'Re 'tis rock'n'roll ''s",
    "3", "33", "333", "3333", "33333", " 3 33  333", "1,234.56e-7", "a1b22c333", "２０２４年", "½ Ⅷ ²",
    "if (x == 1) {\n        return  y;\n\t}\r\n\r\n", "def f(a,b):\n    '''doc'''\n    return a+b  # sum\n",
    "ied 4 ½ months", "w048 7tuijk dsdfhu", "Führer Straße ÄÖÜ", "naïve café e\u0301", "Привет, мир! Їжак",
    "您好，世界。清晨的集市", "駅前のパン屋 ｶﾀｶﾅ", "안녕하세요 세계", "नमस्ते दुनिया", "สวัสดีชาวโลก", "שלום עולם",
    "مرحبا بالعالم", "🚀 (normal) 😶\u200d🌫️ ✅ 🦙🦙 👩🏿\u200d🚀 🇩🇪", "\u200b\u00a0\u3000\u2028x", "\x00\x01\x1f\x7f",
    "▁", "▁▁", " ▁ ", "a▁b", "> </", "</s", "!!!!!!", "==========", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "                                                  x", "\U00031350\U0001fae8",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", " <|im_end|> <|im_end|>", "<|im_end", "<|im_end|",
    "<|endoftext|><|endoftext|>", "<start_of_turn>user\nhi<end_of_turn>\n", "<bos>a<eos>",
    "<s>[INST] x [/INST]",
    '<tool_call>\n{"name": 1}\n</tool_call>', "<table><tr><td>1</td></tr></table>", "<unk>", "<0x0A>", "a<pad>b",
    "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>", "<file_sep><reponame>x", "<unused9><unused99><unused999>",
]  # fmt: skip


def tokenize(vocab: ctypes.c_void_p, text: str, special: bool) -> list[int]:
    """Ids without BOS and EOS."""
    data = text.encode()
    out = (llama_cpp.llama_token * (len(data) + 16))()
    count = llama_cpp.llama_tokenize(vocab, data, len(data), out, len(out), False, special)
    assert count >= 0
    return list(out[:count])


def digest(ids: list[int]) -> str:
    """sha256 of the ids as little-endian 32-bit integers."""
    return hashlib.sha256(array("i", ids).tobytes()).hexdigest()


def golden(path: str) -> dict[str, object]:
    """Everything that is kept of one vocabulary."""
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
    vocab = llama_cpp.llama_model_get_vocab(model)
    mixed = tokenize(vocab, (HERE / "mixed.txt").read_bytes().decode(), False)
    n_vocab = llama_cpp.llama_vocab_n_tokens(vocab)
    return {
        "end_ids": [i for i in range(n_vocab) if llama_cpp.llama_vocab_is_eog(vocab, i)],
        "add_bos": bool(llama_cpp.llama_vocab_get_add_bos(vocab)),
        "mixed": {"count": len(mixed), "sha256": digest(mixed)},
        "plain": [tokenize(vocab, text, False) for text in CASES],
        "special": [tokenize(vocab, text, True) for text in CASES],
    }


def main() -> None:
    """Write the file beside this script, one line for each list."""
    models = {name: golden(path) for name, path in (argument.split("=", 1) for argument in sys.argv[1:])}
    lines = []
    for name, values in {"cases": {"texts": CASES}, **models}.items():
        rows = [f'    "{key}": {json.dumps(value, separators=(",", ":"))}' for key, value in values.items()]
        lines.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(rows) + "\n  }")
    (HERE / "goldens.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
