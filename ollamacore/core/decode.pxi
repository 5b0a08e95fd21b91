# decode.pxi - Stream (what a sequence's next tokens come from), and prompt lookup with its costs.

#: tokens proposed at most
LONGEST_DRAFT = OC_LONGEST_DRAFT


cdef class StepCosts:
    """What steps of one sequence cost on an engine: of one token, and more for each further one."""
    cdef oc_costs _c

    def __cinit__(self, *, double extra=0.25, double weight=0.15):
        self._c.single, self._c.usual, self._c.extra, self._c.weight = 0, 0, extra, weight

    def observe(self, int columns, double seconds) -> None:
        """A step of one sequence with so many tokens took so long. A pause of the machine counts little."""
        oc_costs_observe(&self._c, columns, seconds)

    @property
    def single(self) -> float:
        """Seconds of a step of one token; 0: none was measured."""
        return self._c.single

    @property
    def usual(self) -> float:
        """Half of those steps take less, pauses or not; 0: none was measured."""
        return self._c.usual

    @property
    def extra(self) -> float:
        """What a further column costs, as a part of that."""
        return self._c.extra


cdef class PromptLookup:
    """The proposals of one generation: what followed its last tokens when they came before (csrc/decode/lookup.c)."""
    cdef oc_lookup *_lookup

    def __cinit__(self, const int32_t[::1] tokens):
        _check(oc_lookup_create(&self._lookup))
        self.restart(tokens)

    def __dealloc__(self):
        oc_lookup_destroy(self._lookup)

    def restart(self, const int32_t[::1] tokens) -> None:
        """The sequence is another one now, such as after a context shift."""
        _check(oc_lookup_restart(self._lookup, &tokens[0] if tokens.shape[0] else NULL, tokens.shape[0]))

    def accept(self, int token) -> None:
        """One token more."""
        _check(oc_lookup_accept(self._lookup, token))

    def propose(self, long long most, StepCosts costs not None) -> list:
        """The next tokens, at most `most`: as many as are worth their columns, often none."""
        cdef int32_t draft[OC_LONGEST_DRAFT]
        cdef int32_t n = oc_lookup_propose(self._lookup, most, &costs._c, draft)
        return [draft[i] for i in range(n)]


@cython.no_gc_clear  # __dealloc__ needs the sequence
cdef class Stream:
    """What a sequence's next tokens come from, and its next step.

    Alone on its engine it goes from step to step by `begin` and then `advance`, which returns when the next step is
    under way: the caller has other threads compute while it looks at the tokens. Until then no other step is made.
    """
    cdef oc_stream _c
    cdef Sequence _sequence
    cdef Sampler _sampler
    cdef PromptLookup _lookup
    cdef StepCosts _costs

    def __cinit__(self, Sequence sequence not None, Sampler sampler not None, PromptLookup lookup,
                  StepCosts costs not None):
        self._sequence, self._sampler, self._lookup, self._costs = sequence, sampler, lookup, costs
        self._c.engine, self._c.seq, self._c.cancel = sequence._engine._engine, sequence._seq, &sequence._cancel
        self._c.sampler, self._c.costs = sampler._sampler, &costs._c
        self._c.lookup = lookup._lookup if lookup is not None else NULL

    def __dealloc__(self):
        self.give_up()  # or every other step would wait for this one's end

    def choose(self, int row, const uint32_t[::1] mask=None) -> int:
        """The next token after output row `row` of the engine's last step."""
        cdef int32_t token = 0
        cdef oc_status status
        cdef const uint32_t *allowed = _allowed(mask, self._sequence._engine._row(row).n)
        with nogil:
            status = oc_stream_choose(&self._c, row, allowed, &token)
        _check(status)
        return token

    def accept(self, int token) -> None:
        """Take a token that leaves no choice: a draw among one moves the random numbers as any draw does."""
        cdef int32_t chosen = 0
        cdef float value = 0, maximum = 0
        cdef oc_logits only
        only.values, only.maxima, only.n = &value, &maximum, 1
        _check(oc_sampler_sample(self._c.sampler, &only, NULL, &chosen))
        _check(oc_stream_accept(&self._c, token))

    def begin(self, int token, long long wanted) -> int:
        """Begin the step that computes what follows `token`, with a draft if one promises to win.

        `wanted` is how many tokens may be wanted after the next. Returns STEP_OK or STEP_FULL; other failures raise.
        """
        cdef char err[OC_ERR_LEN]
        cdef oc_status status
        err[0] = 0
        with nogil:
            self._sequence._engine._let_go()
            status = oc_stream_begin(&self._c, token, wanted, err)
        if status != OC_ERR_FULL:
            _check(status, err)
        return status

    def advance(self) -> list:
        """The tokens that the step under way brings, none if it was cancelled.

        The next step is under way then, if more tokens are wanted and there is room for them.
        """
        cdef char err[OC_ERR_LEN]
        cdef oc_status status
        cdef int32_t tokens[1 + OC_LONGEST_DRAFT]
        cdef int32_t n = 0, i
        err[0] = 0
        with nogil:
            self._sequence._engine._let_go()
            status = oc_stream_advance(&self._c, tokens, &n, err)
        if status != OC_ERR_CANCELLED:
            _check(status, err)
        return [tokens[i] for i in range(n)]

    def give_up(self) -> None:
        """End the step under way, if there is one, within a layer, as if it had not been begun."""
        with nogil:
            oc_stream_give_up(&self._c)

    @property
    def under_way(self) -> bool:
        """Whether a step is."""
        return self._c.is_begun != 0

    @property
    def drafted(self) -> int:
        """Tokens that prompt lookup proposed."""
        return self._c.drafted

    @property
    def accepted(self) -> int:
        """Those of them that were chosen."""
        return self._c.accepted

    @property
    def step_ns(self) -> tuple:
        """When a step was last begun, when its caller joined it, and when it ended, on the monotonic clock."""
        return self._c.began, self._c.joined, self._c.ended
