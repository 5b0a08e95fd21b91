# grammar.pxi - Grammar (what a text may be), Spellings (what a vocabulary's tokens add to it), Matcher (one text).
from itertools import count

NODE_KINDS = {
    "return": OC_NODE_RETURN, "bytes": OC_NODE_BYTES, "fork": OC_NODE_FORK, "call": OC_NODE_CALL,
    "repeat": OC_NODE_REPEAT, "text": OC_NODE_TEXT, "space": OC_NODE_SPACE,
}
NO_LIMIT = <uint32_t>OC_NO_LIMIT

_grammar_ids = count(1)

# What is looked for at a time where a grammar leaves no choice.
cdef enum:
    _FORCED_BYTES = 512


cdef class Grammar:
    """The texts that are allowed, as a graph (oc.h). Immutable; thread-safe.

    `nodes` has five numbers for each node (kind, next, a, b, c), `sets` four words for each set of bytes.
    """
    cdef oc_grammar *_grammar
    #: bytes of the graph
    cdef readonly size_t size

    def __cinit__(self, const uint32_t[::1] nodes, const uint32_t[::1] edges, const uint64_t[::1] sets,
                  uint32_t root):
        cdef oc_grammar_spec spec
        cdef char err[OC_ERR_LEN]
        cdef oc_status status
        if nodes.shape[0] % 5 or sets.shape[0] % 4 or max(nodes.shape[0], edges.shape[0], sets.shape[0]) > 2**31:
            raise ValueError("these are no nodes, edges and sets")
        spec.id = next(_grammar_ids)
        spec.n_nodes, spec.n_edges, spec.n_sets = nodes.shape[0] // 5, edges.shape[0], sets.shape[0] // 4
        spec.nodes = <const oc_grammar_node *>(&nodes[0] if spec.n_nodes else NULL)
        spec.edges = &edges[0] if spec.n_edges else NULL
        spec.sets = &sets[0] if spec.n_sets else NULL
        spec.root = root
        self.size = 4 * nodes.shape[0] + 4 * edges.shape[0] + 8 * sets.shape[0]
        err[0] = 0
        with nogil:
            status = oc_grammar_create(&spec, &self._grammar, err)
        _check(status, err)

    def __dealloc__(self):
        oc_grammar_destroy(self._grammar)


cdef class Spellings:
    """What the tokens of a vocabulary below `n_vocab` spell, without those that end an answer."""
    cdef oc_spellings *_spellings
    cdef readonly int n_vocab

    def __cinit__(self, Vocabulary vocabulary not None, int n_vocab, ends):
        cdef oc_status status
        cdef const int32_t[::1] ids = array("i", [*ends, -1])
        cdef int32_t n_ends = ids.shape[0] - 1
        self.n_vocab = n_vocab
        with nogil:
            status = oc_spellings_create(vocabulary._vocab, n_vocab, &ids[0], n_ends, &self._spellings)
        _check(status)

    def __dealloc__(self):
        oc_spellings_destroy(self._spellings)


cdef class Matcher:
    """One text in a grammar, from its beginning."""
    cdef oc_matcher *_matcher
    cdef Grammar _grammar

    def __cinit__(self, Grammar grammar not None):
        self._grammar = grammar
        _check(oc_matcher_create(grammar._grammar, &self._matcher))

    def __dealloc__(self):
        oc_matcher_destroy(self._matcher)

    def accept(self, bytes text not None) -> bool:
        """Go on by these bytes; False, with nothing changed, if the grammar does not have them."""
        cdef oc_status status = oc_matcher_accept(
            self._matcher, <const uint8_t *>PyBytes_AsString(text), len(text)
        )
        if status == OC_ERR_ARGUMENT:
            return False
        _check(status)
        return True

    def mask(self, Spellings spellings not None, uint32_t[::1] out) -> None:
        """Write a bit for each token that may come next; EngineError if there is none."""
        if out.shape[0] != (spellings.n_vocab + 31) // 32:
            raise ValueError(f"a mask of {out.shape[0]} words for {spellings.n_vocab} tokens")
        cdef oc_status status = oc_matcher_mask(self._matcher, spellings._spellings, &out[0])
        if status == OC_ERR_FORMAT:
            raise EngineError("the model's vocabulary cannot spell what the format asks for")
        _check(status)

    def forced(self) -> bytes:
        """The next bytes as far as there is no choice."""
        cdef uint8_t text[_FORCED_BYTES]
        cdef size_t n = 0
        _check(oc_matcher_forced(self._matcher, text, _FORCED_BYTES, &n))
        return PyBytes_FromStringAndSize(<const char *>text, n)

    @property
    def may_end(self) -> bool:
        """Whether the text may end here."""
        return oc_matcher_may_end(self._matcher) != 0

    @property
    def must_end(self) -> bool:
        """Whether it can only end here."""
        return oc_matcher_must_end(self._matcher) != 0
