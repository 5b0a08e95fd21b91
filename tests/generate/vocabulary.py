"""Vocabularies of generated models: every text can be spelled byte by byte, and pieces are added at will."""

import gguf

Piece = str | bytes

END = "<|end|>"
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


def byte_alphabet() -> dict[int, str]:
    """The printable character that stands for each byte in byte-level vocabularies (GPT-2's rule)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


class Control(str):
    """A piece of a script that is a control token: where nobody looks for it, it is not seen. Once in a model."""


class Vocabulary:
    """Token texts and types under construction."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.texts: list[str] = []
        self.types: list[int] = []
        self.alphabet = byte_alphabet()
        if model == "gpt2":
            self.end = self.add(END, CONTROL)
            for byte in range(256):
                self.add(self.alphabet[byte])
            self.add("ĠĠ")  # the result of the one merge: the format asks for a list that is not empty
        elif model == "llama":
            self.add("<unk>", UNKNOWN)
            self.add("<s>", CONTROL)
            self.end = self.add("</s>", CONTROL)
            for byte in range(256):
                self.add(f"<0x{byte:02X}>", BYTE)
            for code in range(0x21, 0x7F):
                self.add(chr(code))
            self.add("▁")
        else:
            raise ValueError(f"no vocabulary of kind {model!r}")

    def add(self, text: str, kind: int = NORMAL) -> int:
        self.texts.append(text)
        self.types.append(kind)
        return len(self.texts) - 1

    def control(self, text: str) -> int:
        """The id of a control token, added if it is new."""
        return self.texts.index(text) if text in self.texts else self.add(text, CONTROL)

    def piece(self, piece: Piece) -> int:
        """A new token that prints as `piece`."""
        if isinstance(piece, Control):
            return self.control(str(piece))
        raw = piece.encode() if isinstance(piece, str) else piece
        if not raw:
            raise ValueError("a piece of a script is empty")
        if self.model == "gpt2":
            return self.add("".join(self.alphabet[byte] for byte in raw))
        if len(raw) == 1 and (isinstance(piece, bytes) or piece == "\n"):
            return self.add(f"<0x{raw[0]:02X}>", BYTE)
        return self.add(raw.decode().replace(" ", "▁"))

    def write(self, writer: gguf.GGUFWriter, *, pre: str = "gpt-2", ends: bool = False) -> None:
        """Add the tokenizer to a file. With `ends` BOS and EOS stand around every text, and two EOS in a pair."""
        writer.add_tokenizer_model(self.model)
        writer.add_token_list(self.texts)
        writer.add_token_types(self.types)
        writer.add_eos_token_id(self.end)
        writer.add_add_bos_token(ends)
        if ends:
            writer.add_add_eos_token(True)
            writer.add_add_sep_token(True)
        if self.model == "gpt2":
            writer.add_tokenizer_pre(pre)
            writer.add_token_merges(["Ġ Ġ"])
            writer.add_bos_token_id(self.end)
        else:
            writer.add_token_scores([0.0 if kind != NORMAL else -1.0 for kind in self.types])
            writer.add_bos_token_id(1)
            writer.add_unk_token_id(0)
            writer.add_add_space_prefix(False)
