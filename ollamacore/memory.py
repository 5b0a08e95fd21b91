"""What a model needs of the machine's memory, known from the header of its file before anything is reserved."""

import os
from dataclasses import dataclass, replace
from typing import NamedTuple

from ollamacore import _core
from ollamacore.arch.plan import Plan
from ollamacore.errors import OutOfMemoryError
from ollamacore.prefix import BLOCK

#: columns of one step: large enough for full GEMM tiles, small enough to be cancelled soon and to stay in cache
MAX_TOKENS = 256
#: sequences of one step, and columns of logits
MAX_SEQS = 16
#: the same for encoders, whose texts are never divided and which have an output for each token
ENCODER_TOKENS = 512
ENCODER_SEQS = 128
#: at most, for the groups of rows that threads pack as they need them where weights stay in the file
PANEL_BYTES = 8 << 20
#: of the bytes of the weights, the part that recurrent states of running sequences may take, and those of prefixes;
#: but for so many sequences and prefixes there is room always, and for more prefixes never
SEQUENCE_STATES, LEAST_SEQUENCES = 1 / 4, 2
PREFIX_STATES, LEAST_PREFIXES, MOST_PREFIXES = 1 / 8, 4, 128
#: sequences of calls between two steps
BETWEEN_STEPS = 1
#: sequences of full training context that a KV pool is made for, memory permitting
POOL_SEQUENCES = 4


class StepLimits(NamedTuple):
    """The most that one step may hold."""

    tokens: int
    outputs: int
    sequences: int


class MemoryRequest(NamedTuple):
    """What Model.load was asked for, as far as it decides about memory."""

    context: int
    kv_bytes: int | None
    kv_type: str
    repack: bool | None


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one model: weights and activations, and a KV pool between the least and the most that is of use."""

    limits: StepLimits
    kv_type: str
    is_packed: bool
    fixed: int
    kv_block: int
    least_blocks: int
    most_blocks: int
    trained_blocks: int
    saved_states: int = 0

    @property
    def least(self) -> int:
        """Bytes without which the model cannot run."""
        return self.fixed + self.least_blocks * self.kv_block

    def blocks(self, limit: int) -> int:
        """KV blocks to reserve when the model may take `limit` bytes.

        Half of what the weights leave, so that another model finds room beside this one; but one whole training
        context wherever that fits, so that no request's num_ctx ever needs a larger pool.
        """
        self.check(limit)
        room = (limit - self.fixed) // self.kv_block
        fair = max(room // 2, self.trained_blocks if self.trained_blocks <= room else 0, self.least_blocks)
        return min(fair, self.most_blocks)

    def check(self, limit: int) -> None:
        """OutOfMemoryError, in Ollama's words, if `limit` bytes are too few."""
        if self.least > limit:
            raise OutOfMemoryError(
                f"model requires more system memory ({_shown(self.least)}) than is available ({_shown(limit)})"
            )


def memory_of(plan: Plan, request: MemoryRequest, limit: int | None) -> Memory:
    """The memory of a model that may take `limit` bytes; its pool holds a request of `context` tokens.

    Weights are packed into memory, unless the request or $OLLAMACORE_REPACK says otherwise, or only the file, which
    the system may evict, fits the limit. A given `kv_bytes` fixes the pool; OutOfMemoryError if the request's context
    does not fit it.
    """
    packed = _packed(plan, request)
    unpacked = packed.fixed - plan.weight_bytes() + plan.made_bytes() + PANEL_BYTES
    in_file = replace(packed, is_packed=False, fixed=unpacked)
    asked = request.repack
    if asked is None:
        asked = {"0": False, "1": True}.get(os.environ.get("OLLAMACORE_REPACK", "").strip())
    if asked is not None:
        return packed if asked else in_file
    if limit is None or packed.least <= limit:
        return packed
    size = plan.source_bytes()
    return in_file if max(size, in_file.least) <= limit else packed


def _packed(plan: Plan, request: MemoryRequest) -> Memory:
    trained = plan.context_length
    context = min(request.context, trained)
    kv_type = "f32" if plan.is_encoder else request.kv_type
    kv_block = _core.kv_block_bytes(plan.kv, kv_type)
    if plan.is_encoder:
        tokens = max(ENCODER_TOKENS, context)
        limits = StepLimits(tokens, tokens, ENCODER_SEQS)
        # Keys and values last for a layer only; each text fills whole blocks but for one.
        least = whole = most = tokens // BLOCK + ENCODER_SEQS
    else:
        limits = StepLimits(MAX_TOKENS, MAX_SEQS, _sequences(plan))
        least, whole = (-(-tokens // BLOCK) for tokens in (context, trained))
        most = POOL_SEQUENCES * whole
        if request.kv_bytes is not None:
            most = request.kv_bytes // kv_block
            _check_pool(context, least, most, kv_block)
            least = whole = most
    saved = _saved_states(plan)
    states = (2 * (limits.sequences + BETWEEN_STEPS) + saved) * plan.state_bytes
    fixed = plan.weight_bytes() + plan.scratch_bytes(limits.tokens, limits.outputs) + states
    return Memory(limits, kv_type, True, fixed, kv_block, least, most, whole, saved)


def _sequences(plan: Plan) -> int:
    """Sequences that run at the same time: fewer where each carries a large state, twice."""
    if not plan.state_size:
        return MAX_SEQS
    room = int(SEQUENCE_STATES * plan.weight_bytes()) // (2 * plan.state_bytes)
    return min(max(room, LEAST_SEQUENCES), MAX_SEQS)


def _saved_states(plan: Plan) -> int:
    """Recurrent states that prefixes may have."""
    if not plan.state_size:
        return 0
    room = int(PREFIX_STATES * plan.weight_bytes()) // plan.state_bytes
    return min(max(room, LEAST_PREFIXES), MOST_PREFIXES)


def _check_pool(context: int, least: int, most: int, kv_block: int) -> None:
    if most < least:
        raise OutOfMemoryError(
            f"a context of {context} tokens needs {least * kv_block} bytes of KV memory, {most * kv_block} can be had"
        )


def _shown(size: int) -> str:
    """A size as Ollama prints it, e.g. 1.5 GiB."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"
