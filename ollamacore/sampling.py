"""Sampling options: the request options of Ollama with its defaults, its type rules and its error texts."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ollamacore.errors import InvalidOptionError, OptionRangeError


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How one request chooses and ends its tokens.

    The order is logit_bias, penalties, DRY, top_n_sigma, top_k, typical_p, top_p, min_p, XTC, temperature, draw.
    Mirostat takes the place of everything from top_n_sigma to XTC; a temperature of 0 or less takes the best token
    after DRY.
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
    #: token id -> what is added to its logit, as in OpenAI's API; -100 all but forbids, 100 all but forces
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    #: DRY: a token that would prolong a repetition of n tokens loses multiplier * base ** (n - allowed_length)
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    #: tokens that DRY looks back on; 0: none, -1: the whole context
    dry_penalty_last_n: int = -1
    #: a repetition does not go beyond these texts
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    #: probability with which all tokens above the threshold but the least probable of them are left out
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    #: standard deviations below the highest logit that are kept; 0 or less: all
    top_n_sigma: float = -1.0
    #: 0: off, 1 and 2: the version
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
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

    def __post_init__(self) -> None:
        if self.mirostat not in (0, 1, 2):
            raise OptionRangeError(f'option "mirostat" must be 0, 1 or 2, not {self.mirostat}')
        if min(self.logit_bias, default=0) < 0:
            raise OptionRangeError('option "logit_bias" must name tokens by ids, which are not negative')

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
            elif key in _STRINGS:
                changes[key] = _strings(key, value)
            elif key == "logit_bias":
                changes[key] = _biases(key, value)
            elif key in _UNUSED:
                _UNUSED[key](key, value)
        return replace(base or cls(), **changes)  # type: ignore[arg-type]


_FLOATS = frozenset(
    (
        *("temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty"),
        *("dry_multiplier", "dry_base", "xtc_probability", "xtc_threshold", "top_n_sigma"),
        *("mirostat_tau", "mirostat_eta"),
    )
)
_INTEGERS = frozenset(
    (
        *("top_k", "repeat_last_n", "seed", "num_predict", "num_keep", "num_ctx", "num_thread"),
        *("dry_allowed_length", "dry_penalty_last_n", "mirostat"),
    )
)
_STRINGS = frozenset(("stop", "dry_sequence_breakers"))


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


def _boolean(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidOptionError(f'option "{key}" must be of type boolean')
    return value


#: Ollama's options of other engines: nothing depends on them here, but a wrong type is an error there
_UNUSED: dict[str, Callable[[str, object], object]] = {
    "num_batch": _integer,
    "num_gpu": _integer,
    "main_gpu": _integer,
    "draft_num_predict": _integer,
    "use_mmap": _boolean,
}


def _biases(key: str, value: object) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise InvalidOptionError(f'option "{key}" must be of type map')
    if not all(str(token).removeprefix("-").isdecimal() for token in value):
        raise InvalidOptionError(f'option "{key}" must be of a map of token ids')
    return {int(token): _float(key, bias) for token, bias in value.items()}
