"""OLLAMA_DEBUG_LOG_REQUESTS: the bodies of requests to models in files, each with a script that sends it again."""

import asyncio
import logging
import os
import re
import shlex
import tempfile
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from server.http import Request

log = logging.getLogger(__name__)

ROUTES = frozenset(("/api/generate", "/api/chat", "/api/embed", "/api/embeddings", "/api/rerank"))


class RequestLog:
    """A new folder for the requests of one server; only its owner may read what is in it."""

    def __init__(self, scheme: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ollamacore-request-logs-"))
        self._scheme = scheme
        self._numbers = count(1)
        log.info("bodies of requests to models, and scripts that repeat them, are kept in %s", self.folder)

    def watch(self, request: Request) -> None:
        """Keep the body of a request once it has come."""

        async def keep(body: bytes) -> None:
            await asyncio.to_thread(self._write, request, body)

        if request.path in ROUTES:
            request.watch(keep)

    def _write(self, request: Request, body: bytes) -> None:
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        name = f"{moment}-{next(self._numbers):06d}_{re.sub('[^A-Za-z0-9]', '_', request.path.lstrip('/'))}"
        content = f"Content-Type: {request.headers.get('content-type') or 'application/json'}"
        url = f"{self._scheme}://{request.headers.get('host') or request.local}{request.path}"
        words = ["curl", "--request", request.method, "--url", url, "--header", content, "--data-binary"]
        script = f'cd "$(dirname "$0")" && {shlex.join([*words, f"@{name}_body.json"])}\n'
        try:
            _create(self.folder / f"{name}_body.json", body)
            _create(self.folder / f"{name}_request.sh", f"#!/bin/sh\n{script}".encode(errors="replace"))
        except OSError as error:
            log.warning("a request could not be kept: %s", error)


def _create(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
