"""Ollama's model-name grammar: `[scheme://][host/][namespace/]model[:tag]`, defaults, display, comparison."""

import re
from dataclasses import dataclass
from typing import Self

from server.store.errors import InvalidNameError

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

#: No part can be "..", hold a slash or start with a dot, so four parts joined to a folder stay inside it.
_PARTS = {
    "host": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}"),
    "namespace": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}"),
    "model": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
    "tag": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
}


@dataclass(frozen=True, slots=True)
class ModelName:
    """A complete, valid model name; one that breaks the grammar cannot be made."""

    host: str
    namespace: str
    model: str
    tag: str

    def __post_init__(self) -> None:
        for field, pattern in _PARTS.items():
            if not pattern.fullmatch(getattr(self, field)):
                raise InvalidNameError("invalid model name")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name as clients write it; raises InvalidNameError. A scheme is accepted and dropped."""
        path, tag = text, DEFAULT_TAG
        if text.rfind(":") > text.rfind("/"):  # a colon before the last slash is a scheme's or a port's
            path, _, tag = text.rpartition(":")
        rest, model_slash, model = path.rpartition("/")
        host, namespace_slash, namespace = rest.rpartition("/")
        if host.startswith(("http://", "https://")):
            host = host.partition("://")[2]
        return cls(
            host if namespace_slash else DEFAULT_HOST,
            namespace if model_slash else DEFAULT_NAMESPACE,
            model,
            tag,
        )

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """Host, namespace, model and tag: the folders and the file of a manifest."""
        return self.host, self.namespace, self.model, self.tag

    @property
    def key(self) -> tuple[str, ...]:
        """What two spellings of one name have in common: names are compared without case."""
        return tuple(part.lower() for part in self.parts)

    @property
    def short(self) -> str:
        """The form shown to people: without the default host and namespace, always with the tag."""
        host, namespace, _, _ = self.key
        if host != DEFAULT_HOST:
            return self.full
        if namespace != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def full(self) -> str:
        """All four parts: `registry.ollama.ai/library/x:tag`."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    def __str__(self) -> str:
        return self.short
