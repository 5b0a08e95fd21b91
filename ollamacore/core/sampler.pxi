# sampler.pxi - Sampler (random state and penalty window of one sequence) and log-probabilities.
import os


cdef int32_t _int32(object value):
    """An option as a C int; what does not fit becomes the nearest that does."""
    return min(max(value, -2**31), 2**31 - 1)


cdef class Sampler:
    """Chooses the tokens of one sequence by its SamplingOptions; equal options, seed, tokens and logits agree."""

    cdef oc_sampler *_sampler

    def __cinit__(self, options, int n_ctx):
        cdef oc_sampler_params params
        seed = options.seed
        if seed is None or seed == -1:
            seed = int.from_bytes(os.urandom(8), "little")
        params.temperature, params.top_k = options.temperature, _int32(options.top_k)
        params.top_p, params.min_p, params.typical_p = options.top_p, options.min_p, options.typical_p
        params.repeat_penalty, params.repeat_last_n = options.repeat_penalty, _int32(options.repeat_last_n)
        params.presence_penalty, params.frequency_penalty = options.presence_penalty, options.frequency_penalty
        params.seed = seed & 0xFFFFFFFFFFFFFFFF
        _check(oc_sampler_create(&params, n_ctx, &self._sampler))

    def __dealloc__(self):
        oc_sampler_destroy(self._sampler)

    def accept(self, int token) -> None:
        """Put one token into the penalty window."""
        oc_sampler_accept(self._sampler, token)

    def accept_all(self, const int32_t[::1] tokens) -> None:
        """Put tokens, such as those of the prompt, into the penalty window."""
        cdef Py_ssize_t i
        for i in range(tokens.shape[0]):
            oc_sampler_accept(self._sampler, tokens[i])

    cdef int32_t _sample(self, float *logits, int32_t n_vocab) except -1:
        cdef int32_t token = 0
        cdef oc_status status
        with nogil:
            status = oc_sampler_sample(self._sampler, logits, n_vocab, &token)
        _check(status)
        return token

    def sample(self, Engine engine, int row) -> int:
        """The next token after output row `row` of the engine's last step; it is not accepted yet."""
        return self._sample(<float *>engine._row(row), <int32_t>engine._n_vocab)

    def sample_from(self, float[::1] logits) -> int:
        """The next token by the caller's logits, which are the same afterwards."""
        if logits.shape[0] == 0:
            raise ValueError("no logits")
        return self._sample(&logits[0], <int32_t>logits.shape[0])

    def candidates(self, float[::1] logits, int32_t[::1] ids, float[::1] probs) -> int:
        """Write what sample_from could return now into ids and probs, without drawing; returns how many they are."""
        cdef int32_t n = 0
        if logits.shape[0] == 0 or ids.shape[0] < logits.shape[0] or probs.shape[0] < logits.shape[0]:
            raise ValueError("no logits, or not room for all of them")
        _check(oc_sampler_candidates(self._sampler, &logits[0], <int32_t>logits.shape[0], <int32_t>ids.shape[0],
                                     &ids[0], &probs[0], &n))
        return n


cdef tuple _logprobs(const float *logits, int32_t n_vocab, int32_t token, int32_t n_top):
    """(log-probability of `token`, best ids, their log-probabilities)."""
    cdef int32_t ids[OC_MAX_TOP_LOGPROBS]
    cdef float values[OC_MAX_TOP_LOGPROBS]
    cdef float chosen
    cdef int32_t n
    if not 0 <= token < n_vocab:
        raise ValueError(f"token {token} is not in the vocabulary")
    with nogil:
        n = oc_logprobs(logits, n_vocab, token, n_top, &chosen, ids, values)
    return chosen, [ids[i] for i in range(n)], [values[i] for i in range(n)]


def logprobs(Engine engine, int row, int token, int n_top) -> tuple:
    """(log-probability of `token`, best ids, their log-probabilities) of output row `row` of the engine's last step."""
    return _logprobs(engine._row(row), <int32_t>engine._n_vocab, token, n_top)


def logprobs_of(const float[::1] logits, int token, int n_top) -> tuple:
    """The same of the caller's logits."""
    if logits.shape[0] == 0:
        raise ValueError("no logits")
    return _logprobs(&logits[0], <int32_t>logits.shape[0], token, n_top)
