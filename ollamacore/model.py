"""Model: a loaded GGUF file - weights, KV pool, tokenizer, chat template - and the thread that computes on it."""

from __future__ import annotations

import atexit
import weakref
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ollamacore import _core, machine
from ollamacore.arch import build_plan
from ollamacore.arch.plan import Plan
from ollamacore.errors import ContextLengthError, InvalidOptionError, OutOfMemoryError, TemplateError
from ollamacore.gguf import GGUFFile
from ollamacore.prefix import BLOCK
from ollamacore.prompt.jinja import ChatTemplate
from ollamacore.sampling import SamplingOptions
from ollamacore.scheduler import Scheduler, crop
from ollamacore.session import Chunk, Generation
from ollamacore.tokenizer import Tokenizer

#: columns of one step: large enough for full GEMM tiles, small enough to be cancelled soon and to stay in cache
MAX_TOKENS = 256
#: sequences of one step, and columns of logits
MAX_SEQS = 16
#: sequences of full training context that the KV pool is reserved for, memory permitting
POOL_SEQUENCES = 4

_open_models: weakref.WeakSet[Model] = weakref.WeakSet()


class Model:
    """A model in memory. Thread-safe; `close` it, or use it as a context manager."""

    def __init__(self, file: GGUFFile, engine: _core.Engine, tokenizer: Tokenizer, pool_tokens: int) -> None:
        self._file = file
        self._engine = engine
        self.tokenizer = tokenizer
        self.architecture: str = file.get("general.architecture", str)
        #: the longest context that the model was trained for
        self.context_length: int = file.get(f"{self.architecture}.context_length", int)
        #: the longest context of one generation: training context or KV pool, whichever is smaller
        self.max_context = min(self.context_length, pool_tokens)
        self.chat_template: str | None = file.get("tokenizer.chat_template", str, None)
        self._template: ChatTemplate | None = None
        self._scheduler = Scheduler(engine, tokenizer, max_tokens=MAX_TOKENS, max_seqs=MAX_SEQS)
        _open_models.add(self)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        *,
        threads: int | None = None,
        context: int = 4096,
        kv_bytes: int | None = None,
        kv_type: str = "f16",
        on_progress: Callable[[float], None] | None = None,
    ) -> Self:
        """Load a GGUF file.

        `threads`: computing threads (default: the physical cores this process may use). `context`: tokens that the KV
        pool must hold at least. `kv_bytes`: size of the KV pool (default: several full contexts, at most half of the
        free memory). `kv_type`: "f16", "q8_0" (half the memory) or "f32". `on_progress` gets the fraction of the
        weights that is ready: 0.0 and 1.0 at least.

        Raises InvalidFileError, UnsupportedModelError, OutOfMemoryError, or OSError if the file cannot be read.
        """
        if kv_type not in _core.KV_TYPES:
            raise InvalidOptionError(f"kv_type must be one of {', '.join(_core.KV_TYPES)}, not {kv_type!r}")
        file = GGUFFile.open(path)
        plan = build_plan(file)
        tokenizer = Tokenizer.from_gguf(file)
        blocks = _pool_blocks(file, plan, context, kv_bytes, kv_type)
        engine = _core.Engine(
            n_threads=threads or machine.usable_threads(),
            max_tokens=MAX_TOKENS,
            max_outputs=MAX_SEQS,
            max_seqs=MAX_SEQS,
            n_layer=plan.kv.n_layer,
            n_kv_head=plan.kv.n_kv_head,
            head_dim=plan.kv.head_dim,
            kv_type=kv_type,
            kv_blocks=blocks,
        )
        plan.install(engine)
        if on_progress:
            on_progress(0.0)
        engine.load()
        if on_progress:
            on_progress(1.0)
        return cls(file, engine, tokenizer, blocks * BLOCK)

    # ---- what it is ----

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata of the GGUF file."""
        return self._file.metadata

    @property
    def n_vocab(self) -> int:
        """Tokens that the model can predict."""
        return self._file.tensors["token_embd.weight"].shape[1]

    @property
    def memory_bytes(self) -> int:
        """Bytes in use: weights, activations, and the KV blocks that have been written since the model was loaded."""
        return self._engine.weight_bytes + self._engine.scratch_bytes + self._engine.kv_bytes_used

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights in memory."""
        return self._engine.weight_bytes

    @property
    def counts(self) -> tuple[int, int]:
        """(running, waiting) generations."""
        return self._scheduler.counts

    @property
    def kv_blocks_free(self) -> int:
        """KV blocks of 32 positions that a new generation could take: unused ones, and cached ones no other uses."""
        return self._scheduler.kv_blocks_free

    # ---- text and tokens ----

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of a text; see Tokenizer.encode."""
        return self.tokenizer.encode(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, ids: Iterable[int]) -> str:
        """The text of token ids; see Tokenizer.decode."""
        return self.tokenizer.decode(ids)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The prompt that the model's chat template makes of messages. TemplateError if it has none or it fails."""
        if self.chat_template is None:
            raise TemplateError("the model has no chat template")
        if self._template is None:
            names = {
                name: self.tokenizer.token_text(token) if token is not None else ""
                for name, token in (("bos_token", self.tokenizer.bos), ("eos_token", self.tokenizer.eos))
            }
            self._template = ChatTemplate(self.chat_template, **names)
        return self._template.render(
            messages, tools=tools, add_generation_prompt=add_generation_prompt, **variables
        )

    def tokenize_prompt(self, prompt: str) -> list[int]:
        """Token ids of a rendered prompt: special tokens parsed, BOS added unless the text already begins with it."""
        ids = self.tokenizer.encode(prompt)
        if len(ids) > 1 and ids[0] == ids[1] == self.tokenizer.bos:
            del ids[0]
        return ids

    # ---- generating ----

    def generate(
        self, prompt: str | Sequence[int], options: SamplingOptions | None = None, **overrides: Any
    ) -> Generation:
        """Continue a prompt, text or token ids: an iterator of chunks. `overrides` are fields of SamplingOptions."""
        options = replace(options or SamplingOptions(), **overrides)
        tokens = self.tokenize_prompt(prompt) if isinstance(prompt, str) else prompt
        return self._submit(tokens, options, None)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        options: SamplingOptions | None = None,
        *,
        tools: Sequence[Any] | None = None,
        **overrides: Any,
    ) -> Generation:
        """Answer a conversation of {"role", "content"} messages: an iterator of chunks."""
        return self.generate(self.render_chat(messages, tools=tools), options, **overrides)

    def submit(
        self, tokens: Sequence[int], options: SamplingOptions, on_chunk: Callable[[Chunk], None]
    ) -> Generation:
        """Like generate, with chunks going to `on_chunk` in the engine's thread; it must return at once.

        Exactly one chunk has a done reason: the last.
        """
        return self._submit(tokens, options, on_chunk)

    def _submit(
        self, tokens: Sequence[int], options: SamplingOptions, on_chunk: Callable[[Chunk], None] | None
    ) -> Generation:
        num_ctx = min(options.num_ctx or self.max_context, self.max_context)
        prompt = array("i", tokens)
        if not prompt:
            raise InvalidOptionError("the prompt has no tokens")
        if not 0 <= min(prompt) <= max(prompt) < self.n_vocab:
            raise InvalidOptionError(f"token ids must lie between 0 and {self.n_vocab - 1}")
        if len(prompt) >= num_ctx:
            if not options.shift:
                raise ContextLengthError(f"the prompt has {len(prompt)} tokens, the context holds {num_ctx}")
            prompt = crop(prompt, num_ctx, options.num_keep)
        generation = Generation(prompt, options, num_ctx, on_chunk)
        self._scheduler.submit(generation)
        return generation

    def logits(self, tokens: Sequence[int], last: int = 1) -> npt.NDArray[np.float32]:
        """Raw logits (last, n_vocab) at the last positions of a token sequence."""
        ids = array("i", tokens)
        if not 1 <= last <= len(ids) or len(ids) > self.max_context:
            raise InvalidOptionError(
                f"{last} positions of {len(ids)} tokens in a context of {self.max_context}"
            )
        out = np.empty((last, self.n_vocab), dtype=np.float32)

        def compute(engine: _core.Engine) -> None:
            sequence = _core.Sequence(engine)
            try:
                _step_through(engine, sequence, ids, out)
            finally:
                sequence.close()

        self._scheduler.call(compute)
        return out

    def close(self) -> None:
        """End all generations with "cancelled" and give the memory back. May be called twice."""
        self._scheduler.close()
        self._engine.close()
        _open_models.discard(self)
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _step_through(
    engine: _core.Engine, sequence: _core.Sequence, ids: array[int], out: npt.NDArray[np.float32]
) -> None:
    """Feed ids in chunks and copy the logits of the last len(out) positions."""
    first = len(ids) - len(out)
    position = 0
    while position < len(ids):
        size = MAX_TOKENS if position < first else MAX_SEQS
        end = min(position + size, first if position < first else len(ids))
        outputs = 0 if position < first else end - position
        if engine.step([(sequence, ids[position:end], outputs)]) != _core.STEP_OK:
            raise OutOfMemoryError("the KV pool is full")
        for row in range(outputs):
            engine.copy_logits(row, out[position + row - first])
        position = end


def _pool_blocks(file: GGUFFile, plan: Plan, context: int, kv_bytes: int | None, kv_type: str) -> int:
    """KV blocks to reserve: pages are only used once written, so a large pool costs nothing until it is needed."""
    block_bytes = _core.kv_block_bytes(plan.kv.n_layer, plan.kv.n_kv_head, plan.kv.head_dim, kv_type)
    trained: int = file.get(f"{file.get('general.architecture', str)}.context_length", int)
    least = -(-min(context, trained) // BLOCK)
    if kv_bytes is not None:
        blocks = kv_bytes // block_bytes
    else:
        weights = sum(file.tensors[name].n_bytes for name in plan.used_tensors())
        free = (machine.available_memory() - weights) // 2
        blocks = max(min(POOL_SEQUENCES * -(-trained // BLOCK), free // block_bytes), 0)
    if blocks < least:
        raise OutOfMemoryError(
            f"a context of {min(context, trained)} tokens needs {least * block_bytes} bytes of KV memory, "
            f"{max(blocks, 0) * block_bytes} can be had"
        )
    return int(blocks)


def _close_all() -> None:
    for model in list(_open_models):
        model.close()


atexit.register(_close_all)
load = Model.load
