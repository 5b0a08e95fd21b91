# Text: the vocabulary object. Everything it is given is copied; nothing is borrowed past the constructor.
from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize

# Below this many bytes a call takes microseconds, which is less than handing the GIL around costs.
cdef enum:
    _NOGIL_BYTES = 4096

_TOKEN_MODELS = {"gpt2": OC_TOKENS_BPE, "llama": OC_TOKENS_SPM, "bert": OC_TOKENS_WPM, "t5": OC_TOKENS_UGM}


cdef class _View:
    """`count` elements of `itemsize` bytes in one contiguous buffer, held while C reads them."""
    cdef Py_buffer _buffer
    cdef bint _held

    def __cinit__(self, source, Py_ssize_t itemsize, Py_ssize_t count):
        PyObject_GetBuffer(source, &self._buffer, PyBUF_SIMPLE)
        self._held = True
        if self._buffer.len // itemsize < count:
            raise InvalidOptionError(f"a tokenizer array of {self._buffer.len} bytes is shorter than {count} elements")

    def __dealloc__(self):
        if self._held:
            PyBuffer_Release(&self._buffer)


cdef class _Strings:
    """A string array (region, offsets, count) as oc_strings."""
    cdef _View _data
    cdef _View _offsets
    cdef oc_strings _c

    def __cinit__(self, source):
        data, offsets, count = source
        self._data = _View(data, 1, 0)
        self._offsets = _View(offsets, 8, count)
        self._c.data = <const uint8_t *>self._data._buffer.buf
        self._c.size = <size_t>self._data._buffer.len
        self._c.offsets = <const uint64_t *>self._offsets._buffer.buf
        self._c.count = count


cdef class Vocabulary:
    """Pieces, merges and special tokens of one model; thread-safe. Ids are checked, text is UTF-8 bytes."""
    cdef oc_vocab *_vocab
    cdef readonly Py_ssize_t count

    def __cinit__(self, *, str model, str pre, tokens, merges=None, scores=None, types=None, charsmap=None,
                  control=None, int32_t unknown=-1, bint ignore_merges=False, bint add_space_prefix=False,
                  bint trim_spaces=False, bint lowercase=False):
        cdef oc_vocab_spec spec
        cdef char err[OC_ERR_LEN]
        cdef oc_status status
        cdef _View view_scores, view_types, view_charsmap
        cdef bytes rules = pre.encode()
        cdef _Strings strings = _Strings(tokens)
        cdef _Strings pairs = _Strings(merges if merges is not None else (b"", b"", 0))
        cdef _Strings listed = _Strings(control if control is not None else (b"", b"", 0))
        self.count = strings._c.count
        spec.model = _TOKEN_MODELS[model]
        spec.pre = PyBytes_AsString(rules)
        spec.ignore_merges = ignore_merges
        spec.lowercase = lowercase
        spec.add_space_prefix = add_space_prefix
        spec.trim_spaces = trim_spaces
        spec.unknown = unknown
        spec.tokens = strings._c
        spec.merges = pairs._c
        spec.control = listed._c
        spec.scores = NULL
        spec.charsmap = NULL
        spec.charsmap_size = 0
        spec.types = NULL
        if scores is not None:
            view_scores = _View(scores, 4, self.count)
            spec.scores = <const float *>view_scores._buffer.buf
        if charsmap is not None:
            view_charsmap = _View(charsmap, 1, 0)
            spec.charsmap = <const uint8_t *>view_charsmap._buffer.buf
            spec.charsmap_size = <size_t>view_charsmap._buffer.len
        if types is not None:
            view_types = _View(types, 4, self.count)
            spec.types = <const int32_t *>view_types._buffer.buf
        err[0] = 0
        with nogil:
            status = oc_vocab_create(&spec, &self._vocab, err)
        _check(status, err)

    def __dealloc__(self):
        oc_vocab_free(self._vocab)

    cdef int32_t _id(self, id) except -1:
        if not 0 <= id < self.count:
            raise InvalidOptionError(f"token id {id} is not in the vocabulary of {self.count} tokens")
        return id

    def encode(self, bytes text, bint parse_special):
        """Ids of a UTF-8 text, without BOS and EOS."""
        cdef oc_tokens tokens
        cdef oc_status status
        cdef size_t i, length = len(text)
        cdef const uint8_t *data = <const uint8_t *>PyBytes_AsString(text)
        tokens.ids = NULL
        tokens.count = tokens.capacity = 0
        try:
            if length < _NOGIL_BYTES:
                status = oc_vocab_encode(self._vocab, data, length, parse_special, &tokens)
            else:
                with nogil:
                    status = oc_vocab_encode(self._vocab, data, length, parse_special, &tokens)
            if status == OC_ERR_ARGUMENT:
                _check(status, b"the text is too long to tokenise")
            _check(status)
            return [tokens.ids[i] for i in range(tokens.count)]
        finally:
            oc_tokens_free(&tokens)

    def spelling(self, id):
        """The vocabulary's own spelling of a token."""
        cdef size_t length = 0
        cdef const uint8_t *data = oc_vocab_text(self._vocab, self._id(id), &length)
        return PyBytes_FromStringAndSize(<const char *>data, length)

    def piece(self, id, bint special=False):
        """What a token adds to a text; nothing for control and unknown tokens unless `special`."""
        return self._piece(self._id(id), special)

    cdef bytes _piece(self, int32_t token, bint special):
        cdef size_t length = 0
        cdef const uint8_t *data
        cdef oc_token_type type = oc_vocab_type(self._vocab, token)
        if not special and (type == OC_TOKEN_CONTROL or type == OC_TOKEN_UNKNOWN):
            return b""
        data = oc_vocab_bytes(self._vocab, token, &length)
        return PyBytes_FromStringAndSize(<const char *>data, length)

    def type(self, id):
        """The token's tokenizer.ggml.token_type, but for those of `control`."""
        return <int>oc_vocab_type(self._vocab, self._id(id))

    def strip(self, id, *, bint left=False, bint right=False):
        """Let a special token take the white space at these sides with it. Only before the first text is encoded."""
        _check(oc_vocab_strip(self._vocab, self._id(id), OC_STRIP_LEFT * left | OC_STRIP_RIGHT * right))


cdef extern from "Python.h":
    str PyUnicode_DecodeUTF8Stateful(const char *data, Py_ssize_t size, const char *errors, Py_ssize_t *consumed)


cdef class TokenStream:
    """Turns tokens into text, holding back the bytes of a character until it is complete."""
    cdef Vocabulary _vocabulary
    cdef bint _special
    cdef bytes _held

    def __cinit__(self, Vocabulary vocabulary not None, bint special):
        self._vocabulary, self._special, self._held = vocabulary, special, b""

    def push(self, id):
        """Text that this token completes, perhaps none; bytes that can never become UTF-8 are U+FFFD."""
        cdef bytes data = self._vocabulary._piece(self._vocabulary._id(id), self._special)
        cdef Py_ssize_t size, used
        if self._held:
            data = self._held + data
        size = used = len(data)  # Python before 3.11.3 leaves it as it is where all is ASCII, and so consumed
        text = PyUnicode_DecodeUTF8Stateful(PyBytes_AsString(data), size, b"replace", &used)
        self._held = data[used:] if used < size else b""
        return text

    def flush(self):
        """End of the stream: an incomplete character is dropped, and the stream can be used anew."""
        self._held = b""
        return ""
