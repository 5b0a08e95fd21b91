"""Between tokens and chunks: stop strings, held-back text, and the generation handle."""

import pytest

from ollamacore import Chunk, EngineError, Generation, SamplingOptions, Stats
from ollamacore.session import TextAssembler

STATS = Stats(1, 0, 0, 1, 0)


class Pieces:
    """Stands in for a TokenStream: token i is the i-th piece."""

    def __init__(self, *pieces, tail=""):
        self.pieces = pieces
        self.tail = tail

    def push(self, token):
        return self.pieces[token]

    def flush(self):
        return self.tail


def emitted(pieces, stops):
    assembler = TextAssembler(Pieces(*pieces), stops)
    out = []
    for token in range(len(pieces)):
        out.append(assembler.push(token))
        if assembler.stopped:
            return out, True
    return [*out, assembler.flush()], False


@pytest.mark.parametrize(
    ("pieces", "stops", "expected", "stopped"),
    [
        (["a", "b"], (), ["a", "b", ""], False),
        (["one ", "STOP", " two"], ("STOP",), ["one ", ""], True),
        (["one S", "TO", "P two"], ("STOP",), ["one ", "", ""], True),
        (["one S", "TO", "re"], ("STOP",), ["one ", "", "STOre", ""], False),
        (["one S", "TO"], ("STOP",), ["one ", "", "STO"], False),
        (["xxSTOPyy"], ("STOP",), ["xx"], True),
        (["ababa", "c"], ("abac",), ["ab", ""], True),
        (["b then a"], ("a", "b"), [""], True),
        (["<|", "end", "|>"], ("<|end|>", "end"), ["", "<|"], True),
        (["äö", "ü"], ("öü",), ["ä", ""], True),
        (["aaa", "aaa", "b"], ("aab",), ["a", "aaa", ""], True),
    ],
)
def test_stop_strings_never_leak(pieces, stops, expected, stopped):
    assert emitted(pieces, stops) == (expected, stopped)


def test_flush_gives_held_text_and_the_stream_tail():
    assembler = TextAssembler(Pieces("x <", tail="!"), ("<end>",))
    assert assembler.push(0) == "x "
    assert assembler.flush() == "<!"
    assert assembler.flush() == "!"


def test_generation_iterates_until_the_last_chunk():
    generation = Generation([1], SamplingOptions(), 10, None)
    for chunk in (Chunk("a"), Chunk("b"), Chunk("c", done_reason="stop", stats=STATS)):
        generation.deliver(chunk)
    assert [chunk.text for chunk in generation] == ["a", "b", "c"]
    assert (generation.done_reason, generation.stats, generation.cancelled) == ("stop", STATS, False)


def test_generation_raises_the_error_of_its_last_chunk():
    generation = Generation([1], SamplingOptions(), 10, None)
    generation.deliver(Chunk("a"))
    generation.deliver(Chunk("", done_reason="error", stats=STATS, error=EngineError("broken")))
    chunks = iter(generation)
    assert next(chunks).text == "a"
    with pytest.raises(EngineError, match="broken"):
        next(chunks)


def test_leaving_the_iteration_cancels():
    generation = Generation([1], SamplingOptions(), 10, None)
    interrupted = []
    generation.attach(lambda: interrupted.append(True))
    generation.deliver(Chunk("a"))
    for _ in generation:
        break
    assert generation.cancelled
    assert interrupted == [True]


def test_generation_cancelled_before_it_starts_interrupts_its_first_step():
    generation = Generation([1], SamplingOptions(), 10, None)
    generation.cancel()
    interrupted = []
    generation.attach(lambda: interrupted.append(True))
    assert interrupted == [True]


def test_generation_with_a_callback_cannot_be_iterated():
    with pytest.raises(TypeError):
        next(iter(Generation([1], SamplingOptions(), 10, print)))
