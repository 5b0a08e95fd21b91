"""The one place where digests are parsed and where a digest becomes a path.

Clients, manifests and registries speak sha256; our blobs are addressed by blake3. Under the models folder:

    ollamacore/blobs/blake3-<hex>     content
    ollamacore/aliases/sha256-<hex>   JSON: which blake3 blob has this sha256, and its last verified state
    blobs/sha256-<hex>                an Ollama store's content (older: sha256:<hex>), read in place

A real Ollama deletes every name it does not know from its own `blobs/`, so nothing of ours ever goes there.
"""

import re
from pathlib import Path

from server.store.errors import InvalidDigestError

_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")
_HEX = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"(?:blake3|sha256)-([0-9a-f]{64})")


def parse_digest(text: str) -> str:
    """The 64 lower-case hex digits of `sha256:<hex>` or `sha256-<hex>`; raises InvalidDigestError."""
    match = _DIGEST.fullmatch(text)
    if not match:
        raise InvalidDigestError("invalid digest format")
    return match[1].lower()


def format_digest(sha256: str) -> str:
    """The form used in manifests and answers: `sha256:<hex>`."""
    return f"sha256:{_checked(sha256)}"


def is_hex(text: object) -> bool:
    """Whether this is the lower-case hex form of a 256-bit hash."""
    return isinstance(text, str) and _HEX.fullmatch(text) is not None


def blob_file(folder: Path, blake3: str) -> Path:
    """Where the content with this blake3 hash is kept in our blobs folder."""
    return folder / f"blake3-{_checked(blake3)}"


def alias_file(folder: Path, sha256: str) -> Path:
    """Where the record of the content with this sha256 hash is kept."""
    return folder / f"sha256-{_checked(sha256)}"


def ollama_files(folder: Path, sha256: str) -> tuple[Path, Path]:
    """Where an Ollama store keeps this content: today's name and the one of old versions."""
    return folder / f"sha256-{_checked(sha256)}", folder / f"sha256:{sha256}"


def hex_of_file(name: str) -> str | None:
    """The hash in the name of one of our own blob or alias files; None for a foreign name."""
    match = _FILE.fullmatch(name)
    return match[1] if match else None


def _checked(value: str) -> str:
    if not is_hex(value):
        raise InvalidDigestError("invalid digest format")
    return value
