"""The exception tree of the store. No text here ever holds a path of this machine: clients get to read it."""


class StoreError(Exception):
    """Base of every error that the store raises on purpose; also disk errors without a class of their own."""


class NoSpaceError(StoreError):
    """The disk or the quota is full; what was being written has been removed."""


class InvalidNameError(StoreError, ValueError):
    """A model name does not follow the name grammar."""


class InvalidDigestError(StoreError, ValueError):
    """A digest is not `sha256:<64 hex>`."""


class DigestMismatchError(StoreError):
    """Bytes were written whose digest is not the announced one."""


class BlobNotFoundError(StoreError):
    """No blob of that digest is in the store."""


class DamagedBlobError(StoreError):
    """A blob's bytes are not what its digest says, or its text cannot be read."""


class ModelNotFoundError(StoreError):
    """No model of that name is in the store."""


class DamagedManifestError(StoreError):
    """A manifest cannot be read."""


class ReadOnlyModelError(StoreError):
    """The model belongs to an Ollama store, which is only read."""


class CreateError(StoreError):
    """A model cannot be created from what the client sent; `status` is the HTTP status Ollama gives."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status
