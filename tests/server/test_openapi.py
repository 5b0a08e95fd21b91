"""The OpenAPI document: that it is one, and that answers and requests are what it says."""

import json

import jsonschema
import pytest

from ollamacore import SamplingOptions
from server.openapi import document
from server.routes import ROUTES
from server.schema import parse


@pytest.fixture(scope="module")
def spec():
    return document(ROUTES)


def checked(spec, name, value):
    """The value, after it was held against a schema of the document."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": spec["components"]}
    jsonschema.Draft202012Validator(schema).validate(value)
    return value


def test_the_server_serves_it(http, spec):
    answer = http.get("/openapi.json")
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json() == spec


def test_every_route_is_in_it(spec):
    assert {(path, method.upper()) for path, methods in spec["paths"].items() for method in methods} == {
        (path, method) for path, methods in ROUTES.items() for method in methods
    }


def test_references_lead_somewhere(spec):
    def references(node):
        if isinstance(node, dict):
            yield from [node["$ref"]] if "$ref" in node else []
            node = list(node.values())
        if isinstance(node, list):
            for item in node:
                yield from references(item)

    names = {reference.removeprefix("#/components/schemas/") for reference in references(spec)}
    assert names <= set(spec["components"]["schemas"])
    for name in spec["components"]["schemas"]:
        jsonschema.Draft202012Validator.check_schema(spec["components"]["schemas"][name])


@pytest.mark.parametrize(
    ("method", "path", "body", "name"),
    [
        ("GET", "/api/version", None, "VersionAnswer"),
        ("GET", "/api/status", None, "StatusAnswer"),
        ("GET", "/api/tags", None, "TagsAnswer"),
        ("GET", "/api/ps", None, "PsAnswer"),
        ("POST", "/api/show", {"model": "tiny"}, "ShowAnswer"),
        ("POST", "/api/show", {"model": "no"}, "ErrorAnswer"),
        (
            "POST",
            "/api/generate",
            {"model": "tiny", "prompt": "x", "logprobs": True, "top_logprobs": 2},
            "GenerateAnswer",
        ),
        ("POST", "/api/generate", {"model": "tiny"}, "GenerateAnswer"),
        ("POST", "/api/generate", {"model": "tiny", "prompt": "x", "_debug_render_only": True}, "GenerateAnswer"),
        ("POST", "/api/chat", {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}, "ChatAnswer"),
        ("POST", "/api/create", {"model": "new", "from": "tiny", "system": "Short."}, "ProgressAnswer"),
    ],
)
def test_answers_are_what_it_says(http, spec, method, path, body, name):
    answer = http.request(method, path, json=body and {**body, "stream": False})
    shown = checked(spec, name, answer.json())
    assert shown
    if name in ("GenerateAnswer", "ChatAnswer"):
        with http.stream("POST", path, json=body) as records:
            for line in records.iter_lines():
                checked(spec, name, json.loads(line))


def test_requests_are_what_it_says(spec):
    for methods in ROUTES.values():
        for route in methods.values():
            if route.takes is not None:
                parse(route.takes, b'{"model": "m", "options": {}}')
                assert spec["components"]["schemas"][route.takes.__name__]["properties"]


def test_options_accept_what_their_types_say(spec):
    values = {"number": 0.5, "integer": 1, "array": ["x"], "object": {"1": 0.5}}
    for name, schema in spec["components"]["schemas"]["Options"]["properties"].items():
        kinds = {schema.get("type")} | {option.get("type") for option in schema.get("anyOf", ())}
        [kind] = kinds & set(values)
        assert getattr(SamplingOptions.from_mapping({name: values[kind]}), name) is not None
