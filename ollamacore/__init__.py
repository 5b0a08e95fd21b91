"""ollamacore: run GGUF language models on small machines, with an engine of its own.

import ollamacore
with ollamacore.load("SmolLM2-135M-Instruct.Q4_1.gguf") as model:
    for chunk in model.chat([{"role": "user", "content": "Why is the sky blue?"}]):
        print(chunk.text, end="", flush=True)
"""

from pathlib import Path

from ollamacore.constraint import Choice, TokenConstraint
from ollamacore.context import crop
from ollamacore.embedding import Embeddings
from ollamacore.errors import (
    ClosedError,
    ContextLengthError,
    EngineError,
    InvalidFileError,
    InvalidOptionError,
    InvalidPromptError,
    OllamaCoreError,
    OptionRangeError,
    OutOfMemoryError,
    TemplateError,
    UnsupportedModelError,
)
from ollamacore.gguf import GGUFFile, TensorInfo
from ollamacore.machine import available_memory
from ollamacore.model import Model, load
from ollamacore.prefix_store import PrefixStore
from ollamacore.prompt.answer import AnswerFormat, AnswerParser, ToolCall, jinja_answer_format
from ollamacore.prompt.modelfile import ModelfileTemplate
from ollamacore.rerank import Scores
from ollamacore.sampling import SamplingOptions
from ollamacore.session import Chunk, Generation, Stats, TokenLogprob
from ollamacore.state import ModelState
from ollamacore.text import ModelText
from ollamacore.tokenizer import Tokenizer
from ollamacore.tokenizer.insert import InsertMarks, insert_marks

__version__ = "0.1.0"

__all__ = [
    "AnswerFormat",
    "AnswerParser",
    "Choice",
    "Chunk",
    "ClosedError",
    "ContextLengthError",
    "Embeddings",
    "EngineError",
    "GGUFFile",
    "Generation",
    "InsertMarks",
    "InvalidFileError",
    "InvalidOptionError",
    "InvalidPromptError",
    "Model",
    "ModelState",
    "ModelText",
    "ModelfileTemplate",
    "OllamaCoreError",
    "OptionRangeError",
    "OutOfMemoryError",
    "PrefixStore",
    "SamplingOptions",
    "Scores",
    "Stats",
    "TemplateError",
    "TensorInfo",
    "TokenConstraint",
    "TokenLogprob",
    "Tokenizer",
    "ToolCall",
    "UnsupportedModelError",
    "__version__",
    "available_memory",
    "crop",
    "get_include",
    "insert_marks",
    "jinja_answer_format",
    "load",
]


def get_include() -> str:
    """The folder of oc.h, for C and Cython code that links the core."""
    return str(Path(__file__).parent / "include")
