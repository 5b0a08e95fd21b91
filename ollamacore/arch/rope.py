"""Rotary position embeddings: the angular frequencies of a model, with the scaling that its file asks for."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.errors import InvalidFileError, UnsupportedModelError

#: values of YaRN that files leave out: rotations over the original context from which a pair counts as fast or slow
YARN_BETA_FAST = 32.0
YARN_BETA_SLOW = 1.0


class Rope(NamedTuple):
    """A rope table: radians per position of each pair, a factor for cos and sin, and how far it reaches."""

    freq: npt.NDArray[np.float64]
    mscale: float = 1.0
    limit: int | None = None  # positions; None: all


def rope_frequencies(n_rot: int, base: float) -> npt.NDArray[np.float64]:
    """base^(-2i/n_rot) radians per position for i < n_rot/2 (Su et al., RoFormer, arXiv 2104.09864)."""
    if n_rot % 2:
        raise InvalidFileError(f"rope turns pairs, not {n_rot} values")
    return base ** (-np.arange(0, n_rot, 2, dtype=np.float64) / n_rot)


def model_rope(meta: Metadata, hyper: Hyper, *, whole_pairs: bool = True) -> Rope:
    """The rope table of a model: `scaled_rope`, and a divisor for each frequency where the file has them (Llama 3)."""
    if "rope_factors_long.weight" in meta.file.tensors:
        return _longrope(meta, hyper)
    rope = scaled_rope(meta, hyper.n_rot, hyper.rope_base, whole_pairs=whole_pairs)
    if "rope_freqs.weight" in meta.file.tensors:
        rope = Rope(rope.freq / meta.floats("rope_freqs.weight", hyper.n_rot // 2), rope.mscale)
    if meta.number("attention.temperature_scale", 0.0, 1e3, 0.0):  # queries grow with positions beyond it
        rope = rope._replace(limit=meta.integer("rope.scaling.original_context_length", 1, 1 << 26))
    return rope


def _longrope(meta: Metadata, hyper: Hyper) -> Rope:
    """LongRoPE (Ding et al., arXiv 2402.13753): divisors for contexts up to the original length, and for longer ones.

    A model is loaded for one of the two, whichever the context that is wanted asks for.
    """
    trained = meta.integer("context_length", 1, 1 << 26)
    original = meta.integer("rope.scaling.original_context_length", 1, 1 << 26, trained)
    is_long = min(meta.context, trained) > original
    factors = {kind: meta.floats(f"rope_factors_{kind}.weight", hyper.n_rot // 2) for kind in ("long", "short")}
    freq = rope_frequencies(hyper.n_rot, hyper.rope_base) / factors["long" if is_long else "short"]
    return Rope(freq, meta.number("rope.scaling.attn_factor", 0.0, 1e3, 1.0), None if is_long else original)


def scaled_rope(meta: Metadata, n_rot: int, base: float, *, whole_pairs: bool = True) -> Rope:
    """`rope_frequencies` with the file's scaling, linear (if it has a factor) or YaRN; other kinds are refused by name.

    `whole_pairs`: the ramp of YaRN begins and ends at a pair, as it does in all models but gpt-oss; no file says so.
    """
    kind = meta.text("rope.scaling.type", "linear")
    freq = rope_frequencies(n_rot, base)
    if kind == "none":
        return Rope(freq)
    old = meta.number("rope.scale_linear", 0.0, 1e6, 1.0)
    factor = meta.number("rope.scaling.factor", 0.0, 1e6, old) or 1.0
    if kind == "linear":
        return Rope(freq / factor)
    if kind == "yarn":
        return _yarn(meta, freq, base, factor, whole_pairs)
    raise UnsupportedModelError(f"rope scaling {kind!r} is not supported")


def _yarn(meta: Metadata, freq: npt.NDArray[np.float64], base: float, factor: float, whole_pairs: bool) -> Rope:
    """YaRN (Peng et al., arXiv 2309.00071): NTK by parts.

    Pairs that turn fast keep their frequency, slow ones are interpolated, those between are blended on a ramp.
    cos and sin grow by 0.1 ln(factor) + 1: sharper attention over the longer context. They grow less by the same
    expression with the file's multiplier (1 for Mistral 3: not at all).
    """
    n_rot = 2 * len(freq)
    trained = meta.integer("context_length", 1, 1 << 26)
    original = meta.integer("rope.scaling.original_context_length", 1, 1 << 26, trained)

    def pair_that_turns(rotations: float) -> float:
        return n_rot * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low = pair_that_turns(meta.number("rope.scaling.yarn_beta_fast", 1e-6, 1e6, YARN_BETA_FAST))
    high = pair_that_turns(meta.number("rope.scaling.yarn_beta_slow", 1e-6, 1e6, YARN_BETA_SLOW))
    if whole_pairs:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, n_rot - 1)
    ramp = np.clip((np.arange(len(freq)) - low) / max(high - low, 1e-3), 0.0, 1.0)
    blend = (1.0 - ramp) * meta.number("rope.scaling.yarn_ext_factor", 0.0, 1.0, 1.0)
    attention = meta.number("rope.scaling.attn_factor", 0.0, 1e3, 1.0)
    sharper = 0.1 * math.log(factor)
    attention *= (1.0 + sharper) / (1.0 + meta.number("rope.scaling.yarn_log_multiplier", 0.0, 1e3, 0.0) * sharper)
    return Rope(freq / factor * (1.0 - blend) + freq * blend, attention)
