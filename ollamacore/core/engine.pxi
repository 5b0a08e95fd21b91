# engine.pxi - Engine (weights, plan, KV pool) and Sequence (one timeline in it).
from array import array

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport free, malloc
from posix.unistd cimport write


cdef extern from "base/slice.h" nogil:
    void oc_slice_lengthen() noexcept


KV_TYPES = {"f16": OC_KV_F16, "q8_0": OC_KV_Q8_0, "f32": OC_KV_F32}
#: names of ops and flags, as ollamacore.arch.plan writes them
OP_KINDS = {
    "embed": OC_OP_EMBED, "norm": OC_OP_NORM, "linear": OC_OP_LINEAR, "glu": OC_OP_GLU,
    "rope_kv": OC_OP_ROPE_KV, "attention": OC_OP_ATTENTION, "quantize": OC_OP_QUANTIZE,
    "route": OC_OP_ROUTE, "expert_glu": OC_OP_EXPERT_GLU, "expert_sum": OC_OP_EXPERT_SUM,
    "gather": OC_OP_GATHER, "sparse_glu": OC_OP_SPARSE_GLU, "predict": OC_OP_PREDICT, "correct": OC_OP_CORRECT,
    "match": OC_OP_MATCH,
    "head_linear": OC_OP_HEAD_LINEAR,
    "conv": OC_OP_CONV, "delta": OC_OP_DELTA,
}
OP_FLAGS = {
    "quantize": OC_FLAG_QUANTIZE, "join": OC_FLAG_JOIN, "neox": OC_FLAG_NEOX, "gelu": OC_FLAG_GELU,
    "select": OC_FLAG_SELECT, "center": OC_FLAG_CENTER, "erf": OC_FLAG_ERF, "both_ways": OC_FLAG_BOTH_WAYS,
    "plain": OC_FLAG_PLAIN,
    "sigmoid": OC_FLAG_SIGMOID, "normalize": OC_FLAG_NORMALIZE, "clamp": OC_FLAG_CLAMP,
    "norm_value": OC_FLAG_NORM_VALUE,
    "gated": OC_FLAG_GATED, "grouped": OC_FLAG_GROUPED, "scan": OC_FLAG_SCAN,
}
#: version of the layout of packed weights
PACKED_LAYOUT = OC_PACKED_LAYOUT
STEP_OK = OC_OK
STEP_CANCELLED = OC_ERR_CANCELLED
STEP_FULL = OC_ERR_FULL


cdef oc_kv_layer *_kv_layers(kv) except NULL:
    """(KV heads, their length, that of values or 0) of each layer, for free()."""
    cdef oc_kv_layer *layers = <oc_kv_layer *>malloc(max(len(kv), 1) * sizeof(oc_kv_layer))
    if layers == NULL:
        raise OutOfMemoryError("out of memory")
    for i, (n_kv_head, head_dim, value_dim) in enumerate(kv):
        layers[<int>i].n_kv_head, layers[<int>i].head_dim = n_kv_head, head_dim
        layers[<int>i].value_dim = value_dim or head_dim
    return layers


def kv_block_bytes(kv, str kv_type) -> int:
    """Bytes of one KV block, 32 positions of all layers; `kv` is that of Engine."""
    cdef oc_engine_params params
    cdef oc_kv_layer *layers = _kv_layers(kv)
    params.n_layer, params.kv_layers, params.kv_type = <int32_t>len(kv), layers, KV_TYPES[kv_type]
    size = oc_engine_kv_block_bytes(&params)
    free(layers)
    return size


def lengthen_slice() -> None:
    """Ask for long time slices for this thread, as the engine's workers do: others preempt it sooner."""
    oc_slice_lengthen()


@cython.no_gc_clear  # __dealloc__ needs the views of the file
cdef class Engine:
    """Weights, plan and KV pool of one model.

    `kv`: of each layer of the KV cache how many KV heads it has, their length, and how much of a key is its value, or 0
    where values are as long and kept apart. Build it with the add_* methods, then finish() and load(); afterwards one
    thread at a time may call step().
    """

    cdef oc_engine *_engine
    cdef oc_engine_params _params
    cdef oc_kv_layer *_layers
    cdef const float *_logits
    cdef int64_t _stride
    cdef int64_t _n_vocab
    cdef int64_t _progress
    cdef int32_t _cancel_load
    cdef list _sources
    cdef list _tables
    cdef oc_batch_item *_items
    cdef int _n_sequences
    cdef int64_t _n_outputs  # of the last step
    cdef int _bell
    cdef bint _is_due  # the bell is

    def __cinit__(self, *, int n_threads, int max_tokens, int max_outputs, int max_seqs, kv,
                  str kv_type, long long kv_blocks, long long state_size=0, int n_sequences=0,
                  int n_saved=0):
        cdef char err[OC_ERR_LEN]
        cdef oc_status status
        self._sources = []
        self._tables = []
        self._bell = -1
        self._params.n_threads, self._params.max_tokens = n_threads, max_tokens
        self._params.max_outputs, self._params.max_seqs = max_outputs, max_seqs
        self._layers = _kv_layers(kv)
        self._params.n_layer, self._params.kv_layers = <int32_t>len(kv), self._layers
        self._params.kv_type, self._params.kv_blocks = KV_TYPES[kv_type], kv_blocks
        self._params.state_size, self._params.n_sequences, self._params.n_saved = state_size, n_sequences, n_saved
        self._items = <oc_batch_item *>malloc(max(max_seqs, 1) * sizeof(oc_batch_item))
        if self._items == NULL:
            raise OutOfMemoryError("out of memory")
        err[0] = 0
        with nogil:
            status = oc_engine_create(&self._params, &self._engine, err)
        _check(status, err)

    def __dealloc__(self):
        self._destroy()
        free(self._items)
        free(self._layers)

    def close(self) -> None:
        """Give all memory back. Every sequence must be closed, and no other method works afterwards."""
        if self._n_sequences:
            raise EngineError(f"{self._n_sequences} sequences are open")
        if self._engine == NULL:
            return
        self._destroy()
        self._sources.clear()
        self._tables.clear()

    cdef void _destroy(self) noexcept:
        """Without the GIL: it waits for threads that are late to leave a step."""
        cdef oc_engine *engine = self._engine
        self._engine, self._logits = NULL, NULL
        with nogil:
            oc_engine_destroy(engine)

    @property
    def n_threads(self) -> int:
        """Threads that load() and step() compute on; what is set is cut to what there is room for."""
        self._need_open()
        return oc_engine_threads(self._engine)

    @n_threads.setter
    def n_threads(self, int n_threads):
        self._need_open()
        oc_engine_set_threads(self._engine, n_threads)

    cdef int _need_open(self) except -1:
        if self._engine == NULL:
            raise ClosedError("the engine is closed")
        return 0

    @property
    def max_tokens(self) -> int:
        """Columns of one step."""
        return self._params.max_tokens

    @property
    def max_seqs(self) -> int:
        """Sequences of one step."""
        return self._params.max_seqs

    def add_matrix(self, int gguf_type, long long n_rows, long long k, *runs) -> int:
        """A weight matrix (n_rows, k) in GGUF layout, in one or several runs of as many rows of a mapped file.

        The buffers are held until they are packed.
        """
        cdef char err[OC_ERR_LEN]
        cdef int32_t index
        cdef const unsigned char[::1] data
        cdef const void **at = <const void **>malloc(max(1, len(runs)) * sizeof(void *))
        cdef size_t size = 0
        try:
            if at == NULL:
                raise OutOfMemoryError("out of memory")
            self._need_open()
            err[0] = 0
            for i, run in enumerate(runs):
                data = run
                if data.shape[0] == 0:
                    raise InvalidFileError("matrix without data")
                if i > 0 and <size_t>data.shape[0] != size:
                    raise InvalidFileError("runs of rows differ in size")
                at[i], size = &data[0], data.shape[0]
            status = oc_engine_add_matrix(self._engine, gguf_type, n_rows, k, at, <int32_t>len(runs), size, &index, err)
            _check(status, err)
        finally:
            free(at)
        self._sources.extend(runs)
        return index

    def add_table(self, int gguf_type, long long n_rows, long long k, const unsigned char[::1] data) -> int:
        """Rows for "gather" ops in GGUF layout, part of a mapped file: they are read there, and held until close()."""
        cdef char err[OC_ERR_LEN]
        cdef int32_t index
        self._need_open()
        err[0] = 0
        if data.shape[0] == 0:
            raise InvalidFileError("table without data")
        _check(oc_engine_add_table(self._engine, gguf_type, n_rows, k, &data[0], data.shape[0], &index, err), err)
        self._tables.append(data)
        return index

    def add_vector(self, const float[::1] data) -> int:
        """A vector of floats, copied."""
        cdef char err[OC_ERR_LEN]
        cdef int32_t index
        self._need_open()
        err[0] = 0
        if data.shape[0] == 0:
            raise InvalidFileError("vector without data")
        _check(oc_engine_add_vector(self._engine, &data[0], data.shape[0], &index, err), err)
        return index

    def add_buffer(self, int width) -> int:
        """A buffer of `width` floats per token."""
        cdef char err[OC_ERR_LEN]
        cdef int32_t index
        self._need_open()
        err[0] = 0
        _check(oc_engine_add_buffer(self._engine, width, &index, err), err)
        return index

    def add_rope(self, const double[::1] freq, double mscale) -> int:
        """A rope table from angular frequencies in radians per position."""
        cdef char err[OC_ERR_LEN]
        cdef int32_t index
        self._need_open()
        err[0] = 0
        if freq.shape[0] == 0:
            raise InvalidFileError("rope without frequencies")
        _check(oc_engine_add_rope(self._engine, &freq[0], <int32_t>freq.shape[0], mscale, &index, err), err)
        return index

    def add_op(self, str kind, *, flags=(), int src=-1, int src2=-1, int src3=-1, int src4=-1, int dst=-1, int dst2=-1,
               int matrix=-1, int matrix2=-1, int vector=-1, int vector2=-1, int vector3=-1, int layer=0, int n_head=0,
               int n_kv_head=0, int head_dim=0, int rope=-1, int rope_at=0, int window=0, float eps=0, float scale=1,
               float softcap=0, int n_expert=0, int n_used=0, int n_group=0, int n_group_used=0, int n_stream=0,
               int offset=0, int state=0):
        """One op of the plan; oc.h says what each kind reads and writes."""
        cdef char err[OC_ERR_LEN]
        cdef oc_op op
        self._need_open()
        op.kind, op.flags = OP_KINDS[kind], 0
        for flag in flags:
            op.flags |= <int32_t>OP_FLAGS[flag]
        op.src, op.src2, op.src3, op.src4, op.dst, op.dst2 = src, src2, src3, src4, dst, dst2
        op.matrix, op.matrix2, op.vector, op.vector2, op.vector3 = matrix, matrix2, vector, vector2, vector3
        op.layer, op.n_head, op.n_kv_head, op.head_dim = layer, n_head, n_kv_head, head_dim
        op.rope, op.rope_at, op.window = rope, rope_at, window
        op.eps, op.scale, op.softcap = eps, scale, softcap
        op.n_expert, op.n_used, op.n_group, op.n_group_used = n_expert, n_used, n_group, n_group_used
        op.n_stream, op.offset, op.state = n_stream, offset, state
        err[0] = 0
        _check(oc_engine_add_op(self._engine, &op, err), err)

    def finish(self, long long n_vocab) -> None:
        """Check the plan and reserve scratch memory; the last op writes n_vocab logits a column."""
        cdef char err[OC_ERR_LEN]
        self._need_open()
        err[0] = 0
        _check(oc_engine_finish(self._engine, err), err)
        self._n_vocab = n_vocab

    def load(self) -> None:
        """Pack all weights in parallel; cancel_load() from another thread ends it with an EngineError."""
        cdef char err[OC_ERR_LEN]
        cdef oc_status status
        self._need_open()
        err[0] = 0
        with nogil:
            status = oc_engine_load(self._engine, &self._progress, &self._cancel_load, err)
        self._sources.clear()
        _check(status, err)

    def load_packed(self, const unsigned char[::1] packed) -> None:
        """Take over weights that packed_weights() gave for the same matrices; the buffer is held until close()."""
        cdef char err[OC_ERR_LEN]
        self._need_open()
        err[0] = 0
        if packed.shape[0] == 0:
            raise InvalidFileError("no packed weights")
        _check(oc_engine_load_packed(self._engine, &packed[0], packed.shape[0], err), err)
        self._sources.clear()
        self._sources.append(packed)

    def load_source(self) -> None:
        """Leave the weights in their file, to be packed as they are used; its views are held until close()."""
        cdef char err[OC_ERR_LEN]
        self._need_open()
        err[0] = 0
        _check(oc_engine_load_source(self._engine, err), err)

    def packed_weights(self, size_t start, size_t size) -> bytes:
        """Up to `size` bytes of the packed weights from `start` on; nothing at their end."""
        cdef size_t total = 0
        cdef const unsigned char *base = NULL
        self._need_open()
        base = <const unsigned char *>oc_engine_packed_weights(self._engine, &total)
        if start >= total:
            return b""
        return (<const char *>base + start)[:min(size, total - start)]

    def cancel_load(self) -> None:
        """End a running load()."""
        oc_cancel(&self._cancel_load)

    @property
    def n_vocab(self) -> int:
        """Logits of a column, as finish() was told."""
        return self._n_vocab

    @property
    def loaded_bytes(self) -> int:
        """Source bytes that load() has packed so far."""
        return oc_progress(&self._progress)

    @property
    def weight_bytes(self) -> int:
        """Bytes of packed weights; 0 once closed, like all sizes here."""
        return oc_engine_weight_bytes(self._engine) if self._engine != NULL else 0

    @property
    def kv_bytes(self) -> int:
        """Bytes reserved for KV blocks; memory is used as blocks are first written."""
        return oc_engine_kv_bytes(self._engine) if self._engine != NULL else 0

    @property
    def kv_bytes_used(self) -> int:
        """Bytes of KV blocks that have been handed out at least once."""
        return oc_engine_kv_bytes_used(self._engine) if self._engine != NULL else 0

    @property
    def scratch_bytes(self) -> int:
        """Bytes reserved for activations and logits."""
        return oc_engine_scratch_bytes(self._engine) if self._engine != NULL else 0

    @property
    def has_state(self) -> bool:
        """Whether sequences have recurrent state, and so cannot go back to an earlier position."""
        return self._params.state_size > 0

    @property
    def state_bytes(self) -> int:
        """Bytes reserved for recurrent states."""
        return oc_engine_state_bytes(self._engine) if self._engine != NULL else 0

    @property
    def states_saved(self) -> int:
        """Copies of states that Sequence.save() made."""
        return oc_engine_states_saved(self._engine) if self._engine != NULL else 0

    @property
    def kv_blocks_free(self) -> int:
        """KV blocks that no sequence holds."""
        return oc_engine_kv_blocks_free(self._engine) if self._engine != NULL else 0

    @property
    def n_stages(self) -> int:
        """Parts of the plan that a step can compute of its last item, and later ones the rest."""
        self._need_open()
        return oc_engine_stages(self._engine)

    def ring(self, int bell) -> None:
        """Write eight bytes to a file descriptor when this thread next lets go of the interpreter for longer.

        That is in a step, and in let_go(). Who is woken before that would only wait for the interpreter, and where cores
        are busy each waking may cost a time slice.
        """
        self._bell, self._is_due = bell, True

    cdef void _let_go(self) noexcept nogil:
        cdef uint64_t one = 1
        if self._is_due:
            self._is_due = False
            write(self._bell, &one, sizeof(one))  # or nobody reads it: no harm

    def let_go(self) -> None:
        """Ring the bell now, if it is due: no step follows soon."""
        with nogil:
            self._let_go()

    def needs_memory(self, int64_t n_blocks) -> bool:
        """Whether one of the next `n_blocks` free KV blocks has no memory yet: the step that takes it waits for that."""
        self._need_open()
        return oc_engine_needs_memory(self._engine, n_blocks)

    def commit(self, int64_t n_blocks) -> bool:
        """Ask the system for memory of the next `n_blocks` free KV blocks, 2 MiB at most; False: they have it."""
        cdef bint was_needed
        self._need_open()
        with nogil:
            was_needed = oc_engine_commit(self._engine, n_blocks)
        return was_needed

    def step(self, list batch, int end_stage=0, int64_t ahead=0) -> int:
        """Append tokens to sequences in one pass.

        `batch` holds (sequence, tokens, n_outputs) with tokens an array of C ints ('i') or one int. Returns STEP_OK,
        STEP_CANCELLED or STEP_FULL; after the latter two no sequence has changed. Other failures raise.

        With `end_stage`, 1 to n_stages, the last item goes through the stages before that only, and its sequence does not
        grow until it has gone through all: the next step goes on, if it has the same last item (Sequence.staged). With
        the same `end_stage` again, the item waits in that step.

        While the other threads compute, this one gets memory for the next `ahead` KV blocks, as commit() does.
        """
        cdef char err[OC_ERR_LEN]
        cdef oc_status status
        cdef int n = <int>len(batch), i
        cdef Sequence sequence
        cdef const int32_t[::1] view
        cdef list views = []
        self._need_open()
        if n > self._params.max_seqs:
            raise InvalidOptionError(f"batch of {n} sequences, the limit is {self._params.max_seqs}")
        for i in range(n):
            sequence, tokens, n_outputs = batch[i]
            self._items[i].seq = sequence._seq
            self._items[i].n_outputs = n_outputs
            self._items[i].cancel = &sequence._cancel
            if isinstance(tokens, int):
                sequence._token = tokens
                self._items[i].tokens = &sequence._token
                self._items[i].n_tokens = 1
            else:
                view = tokens
                views.append(view)
                self._items[i].n_tokens = <int32_t>view.shape[0]
                self._items[i].tokens = &view[0] if view.shape[0] else NULL
            self._items[i].end_stage = end_stage if i == n - 1 else 0
        err[0] = 0
        with nogil:
            self._let_go()
            status = oc_step(self._engine, self._items, n, ahead, &self._logits, &self._stride, err)
        self._n_outputs = 0
        if status == OC_ERR_CANCELLED or status == OC_ERR_FULL:
            return status
        _check(status, err)
        for i in range(n):
            self._n_outputs += self._items[i].n_outputs
        return OC_OK

    def retain_block(self, int block) -> None:
        """Keep a block of an open sequence beyond that sequence's life."""
        self._need_block(block)
        oc_block_retain(self._engine, block)

    def release_block(self, int block) -> None:
        """Give a block up that retain_block kept."""
        self._need_block(block)
        oc_block_release(self._engine, block)

    def block_references(self, int block) -> int:
        """How many sequences and retainers hold a block."""
        return 0 if self._engine == NULL else oc_block_references(self._engine, block)

    def release_state(self, int state) -> None:
        """Give a state back that Sequence.save() made."""
        self._need_open()
        if not 0 <= state < 2 * self._params.n_sequences + self._params.n_saved or self.states_saved == 0:
            raise InvalidOptionError(f"state {state} is not in use")
        oc_state_release(self._engine, state)

    def read_block(self, int block) -> bytes:
        """The keys and values of a block, kv_block_bytes() bytes."""
        self._need_block(block)
        return PyBytes_FromStringAndSize(<const char *>oc_block_data(self._engine, block),
                                         oc_engine_kv_block_bytes(&self._params))

    def add_block(self, const unsigned char[::1] data) -> int:
        """Take a free block, held once, and fill it with what read_block() gave."""
        cdef int32_t block
        self._need_open()
        if data.shape[0] != oc_engine_kv_block_bytes(&self._params):
            raise InvalidOptionError(f"a block has {oc_engine_kv_block_bytes(&self._params)} bytes")
        _check(oc_block_add(self._engine, &data[0], &block))
        return block

    cdef int _need_block(self, int block) except -1:
        self._need_open()
        if not 0 <= block < self._params.kv_blocks or oc_block_references(self._engine, block) < 1:
            raise InvalidOptionError(f"block {block} is not in use")
        return 0

    cdef oc_logits _row(self, int row) except *:
        """Logits of output `row` of the last step."""
        if self._logits == NULL:
            raise EngineError("no step has been made, or the model has no head")
        return oc_step_logits(self._engine, row)

    def pool_hidden(self, int first, int n, str pooling, float[::1] out) -> None:
        """Outputs [first, first + n) of the last step as one vector: their "mean", the "first" or the "last".

        An output here is the hidden state after the final norm, before any head.
        """
        cdef int64_t width, stride
        cdef const float *hidden
        self._need_open()
        if not (0 <= first and 1 <= n <= self._n_outputs - first):
            raise InvalidOptionError(f"outputs {first} to {first + n} of {self._n_outputs}")
        hidden = oc_engine_hidden(self._engine, &width, &stride)
        if out.shape[0] != width:
            raise InvalidOptionError(f"out must have {width} floats")
        if pooling == "mean":
            oc_mean_rows(hidden + first * stride, n, width, stride, &out[0])
        elif pooling in ("first", "last"):
            memcpy(&out[0], hidden + (first if pooling == "first" else first + n - 1) * stride, width * sizeof(float))
        else:
            raise InvalidOptionError(f"pooling {pooling!r} is not known")

    def copy_logits(self, int row, float[::1] out) -> None:
        """Copy the logits of output `row` of the last step; out has n_vocab floats."""
        cdef const float *source = self._row(row).values
        if out.shape[0] != self._n_vocab:
            raise InvalidOptionError(f"out must have {self._n_vocab} floats")
        memcpy(&out[0], source, self._n_vocab * sizeof(float))


@cython.no_gc_clear  # __dealloc__ needs the engine
cdef class Sequence:
    """One timeline of tokens in an engine's KV pool. Not thread-safe, but cancel() may come from any thread."""

    cdef Engine _engine
    cdef oc_seq *_seq
    cdef int32_t _cancel
    cdef int32_t _token

    def __cinit__(self, Engine engine):
        engine._need_open()
        _check(oc_seq_create(engine._engine, &self._seq))
        self._engine = engine
        engine._n_sequences += 1

    def __dealloc__(self):
        if self._seq != NULL:
            self._engine._n_sequences -= 1
            oc_seq_destroy(self._seq)

    def close(self) -> None:
        """Give the KV blocks back."""
        if self._seq != NULL:
            self._engine._n_sequences -= 1
            oc_seq_destroy(self._seq)
            self._seq = NULL

    def __len__(self) -> int:
        return oc_seq_length(self._seq) if self._seq != NULL else 0

    def truncate(self, long long length) -> None:
        """Forget all positions from `length` on, or all of them if there is state: see Engine.has_state."""
        if self._seq != NULL:
            oc_seq_truncate(self._seq, length)

    def blocks(self) -> array:
        """Ids of its KV blocks, 32 positions each; the last one may be filled in part."""
        ids = array("i", bytes(4 * ((len(self) + 31) // 32)))
        cdef int32_t[::1] view = ids
        if len(ids):
            oc_seq_blocks(self._seq, &view[0], view.shape[0])
        return ids

    def share(self, const int32_t[::1] blocks) -> None:
        """Continue with whole blocks that hold the same tokens at the same positions, from blocks()."""
        if blocks.shape[0]:
            _check(oc_seq_share(self._seq, &blocks[0], blocks.shape[0]))

    def save(self) -> int | None:
        """A copy of the state, for resume(); None if there is no room for one. Engine.release_state() gives it back."""
        cdef int32_t state
        status = oc_seq_save(self._seq, &state) if self._seq != NULL else OC_ERR_ARGUMENT
        if status == OC_ERR_FULL:
            return None
        _check(status)
        return state

    def resume(self, const int32_t[::1] blocks, long long length, int state) -> None:
        """Begin an empty sequence with `length` positions of another: its blocks, and its state saved there."""
        if self._seq == NULL or not blocks.shape[0]:
            raise InvalidOptionError("a sequence resumes from blocks and a state")
        _check(oc_seq_resume(self._seq, &blocks[0], blocks.shape[0], length, state))

    @property
    def staged(self) -> tuple[int, int]:
        """(tokens, stages) behind its end that the last step computed, (0, 0) if none: see Engine.step."""
        cdef int32_t tokens, stages = 0
        tokens = oc_seq_staged(self._seq, &stages) if self._seq != NULL else 0
        return tokens, stages

    def cancel(self) -> None:
        """End a step that works on this sequence within one layer."""
        oc_cancel(&self._cancel)

    @property
    def cancelled(self) -> bool:
        """Whether cancel() was called."""
        return self._cancel != 0
