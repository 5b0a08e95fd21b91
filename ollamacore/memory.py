"""What a model needs of the machine's memory, known from the header of its file before anything is reserved."""

from dataclasses import dataclass

from ollamacore import _core
from ollamacore.arch.plan import Plan
from ollamacore.errors import OutOfMemoryError
from ollamacore.prefix import BLOCK

#: sequences of full training context that a KV pool is made for, memory permitting
POOL_SEQUENCES = 4


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one model: weights and activations, and a KV pool between the least and the most that is of use."""

    fixed: int
    kv_block: int
    least_blocks: int
    most_blocks: int
    trained_blocks: int

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


def memory_of(
    plan: Plan, trained: int, *, context: int, kv_bytes: int | None, kv_type: str, max_tokens: int, max_seqs: int
) -> Memory:
    """The memory of a model whose pool holds a request of `context` tokens, cut to the `trained` ones.

    `kv_bytes` fixes the size of the pool; OutOfMemoryError if the request does not fit it.
    """
    kv_block = _core.kv_block_bytes(plan.kv.n_layer, plan.kv.n_kv_head, plan.kv.head_dim, kv_type)
    least, whole = (-(-tokens // BLOCK) for tokens in (min(context, trained), trained))
    most = POOL_SEQUENCES * whole
    if kv_bytes is not None:
        most = kv_bytes // kv_block
        if most < least:
            raise OutOfMemoryError(
                f"a context of {min(context, trained)} tokens needs {least * kv_block} bytes of KV memory, "
                f"{most * kv_block} can be had"
            )
        least = whole = most
    fixed = plan.weight_bytes() + plan.scratch_bytes(max_tokens, max_seqs)
    return Memory(fixed, kv_block, least, most, whole)


def _shown(size: int) -> str:
    """A size as Ollama prints it, e.g. 1.5 GiB."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"
