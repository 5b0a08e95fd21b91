"""The fuzzer's own check: no answer of 500 or more, but for two that are part of Ollama's API."""

import re

import schemathesis

#: an option of a wrong type and an unknown format are 500s in Ollama, and so here
OLLAMAS_OWN = re.compile(r'option "\w+" must be of |invalid format: ')


@schemathesis.check
def no_server_error_of_ours(context, response, case):
    """A request may be refused, never fail."""
    if response.status_code >= 500:
        assert OLLAMAS_OWN.match(response.json()["error"]), f"status {response.status_code}: {response.text}"
