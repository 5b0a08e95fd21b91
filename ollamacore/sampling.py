"""Sampling options: the request options of Ollama with its defaults, its type rules and its error texts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ollamacore.errors import InvalidOptionError


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How one request chooses and ends its tokens.

    The order is penalties, top_k, typical_p, top_p, min_p, temperature, draw; a temperature of 0 or less takes the best
    token after the penalties.
    """

    temperature: float = 0.8
    #: 0 or less: all tokens
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    #: tokens, the prompt's included, that the penalties look back on; 0: none, -1: the whole context
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    #: None or -1: a new one for each request
    seed: int | None = None
    stop: tuple[str, ...] = ()
    #: negative: until the model ends by itself (Ollama caps it at ten contexts)
    num_predict: int = -1
    #: tokens at the start that survive when a full context is shifted
    num_keep: int = 4
    num_ctx: int | None = None
    #: computing threads; 0 or less: as many as the model was loaded with. In a step that several generations share,
    #: the largest number of them
    num_thread: int = 0
    #: whether a full context is shifted; if not, it ends the generation
    shift: bool = True
    logprobs: bool = False
    #: alternatives beside each token's log-probability, 0 to 20
    top_logprobs: int = 0

    @classmethod
    def from_mapping(
        cls, options: Mapping[str, object], base: "SamplingOptions | None" = None
    ) -> "SamplingOptions":
        """Options of a request over `base` (or the defaults).

        Unknown keys are ignored and None is skipped, as Ollama does; a value of the wrong type raises
        InvalidOptionError in Ollama's words.
        """
        changes: dict[str, object] = {}
        for key, value in options.items():
            if value is None:
                continue
            if key in _FLOATS:
                changes[key] = _float(key, value)
            elif key in _INTEGERS:
                changes[key] = _integer(key, value)
            elif key == "stop":
                changes[key] = _strings(key, value)
        return replace(base or cls(), **changes)  # type: ignore[arg-type]


_FLOATS = frozenset(
    ("temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
)
_INTEGERS = frozenset(("top_k", "repeat_last_n", "seed", "num_predict", "num_keep", "num_ctx", "num_thread"))


def _float(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidOptionError(f'option "{key}" must be of type float32')
    try:
        return float(value)
    except OverflowError:  # an integer beyond all floats
        return math.inf if value > 0 else -math.inf


def _integer(key: str, value: object) -> int:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or (isinstance(value, float) and not math.isfinite(value)):
        raise InvalidOptionError(f'option "{key}" must be of type integer')
    return int(value)  # type: ignore[call-overload, no-any-return]


def _strings(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise InvalidOptionError(f'option "{key}" must be of type array')
    if not all(isinstance(item, str) for item in value):
        raise InvalidOptionError(f'option "{key}" must be of an array of strings')
    return tuple(value)
