"""The exception tree of the library; nothing here knows HTTP."""


class OllamaCoreError(Exception):
    """Base of every error that ollamacore raises on purpose."""


class InvalidFileError(OllamaCoreError):
    """A GGUF file is damaged, truncated or not a GGUF file."""


class UnsupportedModelError(OllamaCoreError):
    """Architecture, tensor type or tokenizer of a sound file is not supported; the text names it."""


class InvalidOptionError(OllamaCoreError, ValueError):
    """A sampling or load option has the wrong type or is out of range; the text names it."""


class OptionRangeError(InvalidOptionError):
    """An option of the right type has a value that means nothing."""


class InvalidFormatError(InvalidOptionError):
    """What an answer is to look like is no JSON schema, asks for what cannot be had, or is too large."""


class InvalidPromptError(OllamaCoreError, ValueError):
    """A prompt without tokens, or with ids that the model does not have."""


class TemplateError(OllamaCoreError):
    """A chat template cannot be parsed, fails while rendering, or exceeds its time or size budget."""


class ContextLengthError(OllamaCoreError):
    """The prompt does not fit the context."""


class OutOfMemoryError(OllamaCoreError, MemoryError):
    """Weights, KV cache or scratch memory cannot be allocated."""


class ClosedError(OllamaCoreError):
    """The model was closed."""


class EngineError(OllamaCoreError):
    """The engine failed while computing; the text says where."""
