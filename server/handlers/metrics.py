"""GET /metrics: what the server does and has done, in Prometheus' text format."""

from collections.abc import Iterable, Iterator, Mapping

from server.context import Context
from server.http import Request, Response
from server.metrics import BUCKETS, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

#: field of TableState -> (kind, name, help)
_TABLE = {
    "users": ("gauge", "requests_active", "Requests that use a model or wait for one"),
    "waiting": ("gauge", "requests_waiting", "Requests that wait for a model"),
    "memory_used": ("gauge", "memory_used_bytes", "Memory that the loaded models have reserved"),
    "memory_budget": ("gauge", "memory_budget_bytes", "Memory that models may reserve"),
    "loads": ("counter", "model_loads_total", "Models loaded"),
    "failed_loads": ("counter", "model_load_failures_total", "Loads that failed"),
    "evictions": ("counter", "model_evictions_total", "Models unloaded to make room for another"),
}
#: field of ModelState -> the same, for each loaded model
_MODEL = {
    "running": ("gauge", "sequences_active", "Generations that run"),
    "waiting": ("gauge", "sequences_waiting", "Generations that wait for room in the batch"),
    "kv_blocks": ("gauge", "kv_blocks", "Blocks of the KV cache"),
    "kv_blocks_used": ("gauge", "kv_blocks_used", "Blocks of the KV cache that hold something"),
    "kv_blocks_cached": ("gauge", "kv_blocks_cached", "Blocks that hold prefixes of earlier prompts"),
}
#: field of TokenTotals -> the same, for each model since the server started
_TOKENS = {
    "prompt": ("counter", "prompt_tokens_total", "Prompt tokens of generations that have ended"),
    "cached": ("counter", "prompt_tokens_cached_total", "Of them, those that the prefix cache had"),
    "generated": ("counter", "generated_tokens_total", "Generated tokens of generations that have ended"),
    "prefix_evictions": ("counter", "prefix_evictions_total", "Cached prefix blocks given back"),
}


def metrics(request: Request, context: Context) -> Response:
    """Queue, loaded models, KV cache, tokens, requests and latencies as Prometheus text."""
    return Response(200, "".join(_lines(context)).encode(), (("Content-Type", CONTENT_TYPE),))


def _lines(context: Context) -> Iterator[str]:
    table = context.models.state()
    for field, (kind, name, help) in _TABLE.items():
        yield from _family(kind, name, help, [({}, getattr(table, field))])
    yield from _family("gauge", "models_loaded", "Models in memory", [({}, len(table.models))])
    states = {model: state for model, state in table.models.items() if state is not None}
    for field, (kind, name, help) in _MODEL.items():
        rows = [({"model": model}, getattr(state, field)) for model, state in states.items()]
        yield from _family(kind, name, help, rows)
    for field, (kind, name, help) in _TOKENS.items():
        rows = [({"model": model}, getattr(totals, field)) for model, totals in table.tokens.items()]
        yield from _family(kind, name, help, rows)
    yield from _histograms(
        "request_seconds",
        "From a request to the end of its answer; 499: the client left before",
        {
            _labels(route=route, method=method, status=str(status)): histogram
            for (route, method, status), histogram in context.metrics.requests.items()
        },
    )
    yield from _histograms(
        "first_token_seconds",
        "From a request to the first token of its answer",
        {_labels(route=route): histogram for route, histogram in context.metrics.first_tokens.items()},
    )


def _family(kind: str, name: str, help: str, rows: Iterable[tuple[dict[str, str], int]]) -> Iterator[str]:
    yield _head(kind, name, help)
    for labels, value in rows:
        shown = f"{{{_labels(**labels)}}}" if labels else ""
        yield f"ollamacore_{name}{shown} {value}\n"


def _histograms(name: str, help: str, rows: Mapping[str, Histogram]) -> Iterator[str]:
    yield _head("histogram", name, help)
    for labels, histogram in rows.items():
        count = 0
        for bound, more in zip((*map(str, BUCKETS), "+Inf"), histogram.counts, strict=True):
            count += more
            yield f'ollamacore_{name}_bucket{{{labels},le="{bound}"}} {count}\n'
        yield f"ollamacore_{name}_sum{{{labels}}} {histogram.total:.6f}\n"
        yield f"ollamacore_{name}_count{{{labels}}} {count}\n"


def _head(kind: str, name: str, help: str) -> str:
    return f"# HELP ollamacore_{name} {help}\n# TYPE ollamacore_{name} {kind}\n"


def _labels(**labels: str) -> str:
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())
