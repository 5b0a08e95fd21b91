# sampler.pxi - Sampler (random state and recent tokens of one sequence) and log-probabilities.
import os


cdef int32_t _int32(object value):
    """An option as a C int; what does not fit becomes the nearest that does."""
    return min(max(value, -2**31), 2**31 - 1)


cdef class _Logits:
    """The caller's logits with the maxima of their runs."""
    cdef oc_logits _c

    def __cinit__(self, const float[::1] values):
        if values.shape[0] == 0 or values.shape[0] > 2**31 - 1:
            raise ValueError("no logits, or too many")
        self._c.values = <float *>&values[0]
        self._c.n = <int32_t>values.shape[0]
        self._c.maxima = <float *>malloc((values.shape[0] + OC_RUN - 1) // OC_RUN * sizeof(float))
        if self._c.maxima == NULL:
            raise OutOfMemoryError("out of memory")
        oc_fill_maxima(&self._c)

    def __dealloc__(self):
        free(self._c.maxima)


cdef class _Borrowed:
    """The parts of oc_sampler_params that oc_sampler_create copies: logit biases and DRY's sequence breakers."""
    cdef oc_bias *bias
    cdef oc_breaker *breakers
    cdef list _texts

    def __cinit__(self, options):
        cdef Py_ssize_t i
        self.bias = <oc_bias *>malloc((len(options.logit_bias) + 1) * sizeof(oc_bias))
        self.breakers = <oc_breaker *>malloc((len(options.dry_sequence_breakers) + 1) * sizeof(oc_breaker))
        if self.bias == NULL or self.breakers == NULL:
            raise OutOfMemoryError("out of memory")
        for i, (token, bias) in enumerate(options.logit_bias.items()):
            self.bias[i].token, self.bias[i].bias = _int32(token), bias
        self._texts = [text.encode("utf-8", "surrogatepass") for text in options.dry_sequence_breakers]
        for i, text in enumerate(self._texts):
            self.breakers[i].text, self.breakers[i].length = PyBytes_AsString(text), len(text)

    def __dealloc__(self):
        free(self.bias)
        free(self.breakers)


cdef const uint32_t *_allowed(const uint32_t[::1] mask, int32_t n_vocab) except? NULL:
    if mask is None:
        return NULL
    if mask.shape[0] < (n_vocab + 31) // 32:
        raise ValueError(f"a mask of {mask.shape[0]} words for {n_vocab} tokens")
    return &mask[0]


cdef class Sampler:
    """Chooses the tokens of one sequence by its SamplingOptions; equal options, seed, tokens and logits agree.

    `vocabulary` spells the tokens for DRY's sequence breakers. A mask, where one is given, has a bit for each token,
    lowest first, in 32-bit words; no other token is chosen.
    """

    cdef oc_sampler *_sampler
    cdef Vocabulary _vocabulary

    def __cinit__(self, options, int n_ctx, Vocabulary vocabulary=None):
        cdef oc_sampler_params params
        cdef _Borrowed borrowed = _Borrowed(options)
        seed = options.seed
        if seed is None or seed == -1:
            seed = int.from_bytes(os.urandom(8), "little")
        params.temperature, params.top_k = options.temperature, _int32(options.top_k)
        params.top_p, params.min_p, params.typical_p = options.top_p, options.min_p, options.typical_p
        params.top_n_sigma = options.top_n_sigma
        params.xtc_probability, params.xtc_threshold = options.xtc_probability, options.xtc_threshold
        params.repeat_penalty, params.repeat_last_n = options.repeat_penalty, _int32(options.repeat_last_n)
        params.presence_penalty, params.frequency_penalty = options.presence_penalty, options.frequency_penalty
        params.dry_multiplier, params.dry_base = options.dry_multiplier, options.dry_base
        params.dry_allowed_length = _int32(options.dry_allowed_length)
        params.dry_penalty_last_n = _int32(options.dry_penalty_last_n)
        params.mirostat, params.mirostat_tau = options.mirostat, options.mirostat_tau
        params.mirostat_eta = options.mirostat_eta
        params.seed = seed & 0xFFFFFFFFFFFFFFFF
        params.bias, params.n_bias = borrowed.bias, <int32_t>len(options.logit_bias)
        params.breakers, params.n_breakers = borrowed.breakers, <int32_t>len(options.dry_sequence_breakers)
        params.vocab = vocabulary._vocab if vocabulary is not None else NULL
        self._vocabulary = vocabulary
        _check(oc_sampler_create(&params, n_ctx, &self._sampler))

    def __dealloc__(self):
        oc_sampler_destroy(self._sampler)

    def accept(self, int token) -> None:
        """Put one token into the windows of penalties and DRY."""
        oc_sampler_accept(self._sampler, token)

    def accept_all(self, const int32_t[::1] tokens) -> None:
        """Put tokens, such as those of the prompt, into the windows."""
        cdef Py_ssize_t i
        for i in range(tokens.shape[0]):
            oc_sampler_accept(self._sampler, tokens[i])

    cdef int32_t _sample(self, const oc_logits *logits, const uint32_t *allowed) except -1:
        cdef int32_t token = 0
        cdef oc_status status
        with nogil:
            status = oc_sampler_sample(self._sampler, logits, allowed, &token)
        _check(status)
        return token

    def sample(self, Engine engine, int row, const uint32_t[::1] mask=None) -> int:
        """The next token after output row `row` of the engine's last step; it is not accepted yet."""
        cdef oc_logits logits = engine._row(row)
        return self._sample(&logits, _allowed(mask, logits.n))

    def sample_from(self, float[::1] logits, const uint32_t[::1] mask=None) -> int:
        """The next token by the caller's logits, which are the same afterwards."""
        cdef _Logits own = _Logits(logits)
        return self._sample(&own._c, _allowed(mask, own._c.n))

    def candidates(self, float[::1] logits, int32_t[::1] ids, float[::1] probs, const uint32_t[::1] mask=None) -> int:
        """Write what sample_from could return now into ids and probs, without drawing; returns how many they are."""
        cdef int32_t n = 0
        cdef _Logits own = _Logits(logits)
        if ids.shape[0] < logits.shape[0] or probs.shape[0] < logits.shape[0]:
            raise ValueError("not room for all logits")
        _check(oc_sampler_candidates(self._sampler, &own._c, _allowed(mask, own._c.n), own._c.n, &ids[0], &probs[0],
                                     &n))
        return n


cdef tuple _logprobs(const oc_logits *logits, int32_t token, int32_t n_top):
    """(log-probability of `token`, best ids, their log-probabilities)."""
    cdef int32_t ids[OC_MAX_TOP_LOGPROBS]
    cdef float values[OC_MAX_TOP_LOGPROBS]
    cdef float chosen
    cdef int32_t n
    if not 0 <= token < logits.n:
        raise ValueError(f"token {token} is not in the vocabulary")
    with nogil:
        n = oc_logprobs(logits, token, n_top, &chosen, ids, values)
    return chosen, [ids[i] for i in range(n)], [values[i] for i in range(n)]


def logprobs(Engine engine, int row, int token, int n_top) -> tuple:
    """(log-probability of `token`, best ids, their log-probabilities) of output row `row` of the engine's last step."""
    cdef oc_logits logits = engine._row(row)
    return _logprobs(&logits, token, n_top)


def logprobs_of(const float[::1] logits, int token, int n_top) -> tuple:
    """The same of the caller's logits."""
    cdef _Logits own = _Logits(logits)
    return _logprobs(&own._c, token, n_top)
