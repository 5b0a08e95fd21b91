"""Requests made from our own OpenAPI document against a whole server with a tiny model.

    python -m tests.fuzz --cases 10000

Ends with status 1 when an answer has a status of 500 or more (checks.py), one that the document does not name, or a
body that is not what it says.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from server.models.engine import LocalLoader
from server.openapi import document
from server.routes import ROUTES
from tests.generate.bert import tiny_bert
from tests.generate.tiny import tiny_model
from tests.server.live import LiveServer

CHECKS = "no_server_error_of_ours,status_code_conformance,content_type_conformance,response_schema_conformance"
#: cases that one example of each operation amounts to, about: some operations have only one
CASES_PER_EXAMPLE = 20
#: request -> the key that names a stored model, so that requests get past the first check
NAMES = {"GenerateRequest": "model", "ChatRequest": "model", "ShowRequest": "model", "CopyRequest": "source"}
NAMES |= {"CreateRequest": "from", "TokenizeRequest": "model", "DetokenizeRequest": "model"}
#: a request that sets no length, or none that counts, is answered soon all the same
SHORT = {"num_predict": 3}
#: seconds that an answer may take on a machine that has other things to do
PATIENCE = 120


def narrowed(digest: str) -> dict[str, Any]:
    """Our document with what it cannot know: the models and blobs that exist, and that a generation may be short."""
    spec = document(ROUTES)
    schemas = spec["components"]["schemas"]
    for name, key in NAMES.items():
        schemas[name]["properties"][key] = {"enum": ["tiny", "tiny:latest", "TINY"]}
        schemas[name]["required"] = [key]
    schemas["RerankRequest"]["properties"]["model"] = {"enum": ["ranker", "tiny"]}
    schemas["RerankRequest"]["required"] = ["model"]
    for name in ("CreateRequest", "DeleteRequest"):
        schemas[name]["properties"]["model"] = {"enum": ["made"]}
    schemas["Options"]["properties"]["num_predict"] = {"enum": [0, 1, 3]}
    schemas["Options"]["required"] = ["num_predict"]
    for request in ("GenerateRequest", "ChatRequest"):
        schemas[request]["required"].append("options")
    for operation in spec["paths"]["/api/blobs/{digest}"].values():
        operation["parameters"][0]["schema"] = {"enum": [digest, f"sha256:{'0' * 64}"]}
    return spec


def fuzz(cases: int, seed: int) -> tuple[int, str]:
    """Run about so many requests; the number of them, and the report."""
    made = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with LiveServer(path / "models", LocalLoader(None)) as server:
            digest = server.add_model("tiny", tiny_model(path / "tiny.gguf", "llama"), parameters=SHORT)
            server.add_model("ranker", tiny_bert(path / "ranker.gguf", pooling=4, labels=1))
            (path / "openapi.json").write_text(json.dumps(narrowed(digest)))
            while made < cases:
                examples = max((cases - made) // CASES_PER_EXAMPLE, 1)
                report = _run(path / "openapi.json", server.url, examples, seed)
                found = re.search(r"(\d+) generated", report)
                made += int(found[1]) if found else 0
                if not found or "FAILURES" in report or "ERRORS" in report:
                    return made, report
                seed += 1
    return made, ""


def _run(spec: Path, url: str, examples: int, seed: int) -> str:
    command = [sys.executable, "-m", "schemathesis.cli", "run", str(spec), "--url", url, "--no-color"]
    command += ["--max-examples", str(examples), "--seed", str(seed), "--phases", "coverage,fuzzing"]
    command += ["--request-timeout", str(PATIENCE), "--checks", CHECKS, "--generation-database", ":memory:"]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.fuzz.checks"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    count, failures = fuzz(arguments.cases, arguments.seed)
    print(failures or f"{count} requests, nothing found")
    sys.exit(bool(failures))
