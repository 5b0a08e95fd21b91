"""Go's text/template language, as far as templates without methods and functions of their own can use it.

A template comes with a model or with a request and is untrusted: whatever it does ends in text or a TemplateError
within seconds and a bounded amount of memory. What it costs is accounted for in ollamacore/prompt/budget.py.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ollamacore.errors import TemplateError
from ollamacore.prompt.budget import BudgetError, measure, started
from ollamacore.prompt.gotemplate.execute import NAMES, Run
from ollamacore.prompt.gotemplate.parser import parse
from ollamacore.prompt.gotemplate.tree import Block, Tree

MAX_SOURCE = 128 << 10

__all__ = ["MAX_SOURCE", "GoTemplate"]


class GoTemplate:
    """A parsed template; rendering is thread-safe and leaves the data alone."""

    def __init__(self, source: str) -> None:
        if len(source) > MAX_SOURCE:
            raise TemplateError(f"template: more than {MAX_SOURCE} characters")
        self.source = source
        with _bounded():
            self.tree: Tree = parse(source, NAMES)

    def render(self, data: Mapping[str, Any], root: Block | None = None) -> str:
        """The text that the template, or some of its statements, makes of data (see values.py)."""
        with _bounded(), started(0) as budget:
            budget.bytes_left += 32 * measure(data).characters
            return Run(self.tree).render(self.tree.root if root is None else root, data)


@contextmanager
def _bounded() -> Iterator[None]:
    """Whatever a template runs into becomes a TemplateError."""
    try:
        yield
    except BudgetError as error:
        raise TemplateError(f"template: {error}") from error
    except RecursionError:
        raise TemplateError("template: the template is nested too deeply") from None
    except MemoryError:
        raise TemplateError("template: the template needs too much memory") from None
