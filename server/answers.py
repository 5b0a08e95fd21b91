"""Bodies of successful answers, as types: handlers build them, the OpenAPI document describes them."""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

#: RFC 3339, up to nine fractional digits
Timestamp = Annotated[str, ("format", "date-time")]
Nanoseconds = Annotated[int, ("minimum", 0)]
Count = Annotated[int, ("minimum", 0)]


class ErrorAnswer(TypedDict):
    """Every failure of a JSON route."""

    error: str
    signin_url: NotRequired[str]


class VersionAnswer(TypedDict):
    """GET /api/version."""

    version: str


class Cloud(TypedDict):
    """The state of Ollama's cloud."""

    disabled: bool
    source: Literal["none", "env", "config", "both"]


class StatusAnswer(TypedDict):
    """GET /api/status."""

    cloud: Cloud


class RecommendationsAnswer(TypedDict):
    """GET /api/experimental/model-recommendations."""

    recommendations: list[dict[str, Any]]


class Details(TypedDict):
    """Format, family and size of a model."""

    parent_model: str
    format: str
    family: str
    families: list[str] | None
    parameter_size: str
    quantization_level: str
    context_length: NotRequired[Count]
    embedding_length: NotRequired[Count]


class ListedModel(TypedDict):
    """One line of /api/tags."""

    name: str
    model: str
    modified_at: Timestamp
    size: Count
    digest: str
    details: Details
    capabilities: NotRequired[list[str]]


class TagsAnswer(TypedDict):
    """GET /api/tags."""

    models: list[ListedModel]


class LoadedModel(TypedDict):
    """One line of /api/ps."""

    name: str
    model: str
    size: Count
    digest: str
    details: Details
    expires_at: Timestamp
    size_vram: Count
    context_length: Count


class PsAnswer(TypedDict):
    """GET /api/ps."""

    models: list[LoadedModel]


class Tensor(TypedDict):
    """One tensor of a model file."""

    name: str
    type: str
    shape: list[Count]


class ShowAnswer(TypedDict):
    """POST /api/show."""

    license: NotRequired[str]
    modelfile: NotRequired[str]
    parameters: NotRequired[str]
    template: NotRequired[str]
    system: NotRequired[str]
    details: Details
    messages: NotRequired[list[dict[str, Any]]]
    model_info: dict[str, Any]
    tensors: list[Tensor]
    capabilities: list[str]
    modified_at: Timestamp


class ProgressAnswer(TypedDict):
    """One record of a job."""

    status: str
    digest: NotRequired[str]
    total: NotRequired[Count]
    completed: NotRequired[Count]


class TokenAlternative(TypedDict):
    """A token and its log-probability."""

    token: str
    logprob: float
    bytes: NotRequired[list[int]]


class TokenEntry(TokenAlternative):
    """A generated token, and the likeliest ones in its place."""

    top_logprobs: NotRequired[list[TokenAlternative]]


class DebugInfo(TypedDict):
    """What would have been run."""

    rendered_template: str
    image_count: NotRequired[Count]


class PromptProgress(TypedDict):
    """How far a prompt has come."""

    prompt_tokens_done: Count
    prompt_tokens: Count


class Truncated(TypedDict):
    """What was dropped because the context is too small."""

    messages_dropped: Count
    prompt_tokens_dropped: Count
    context_shifts: Count


class RunAnswer(TypedDict):
    """What the records of generate and chat have in common; figures stand in the last one."""

    model: str
    created_at: Timestamp
    done: bool
    done_reason: NotRequired[Literal["stop", "length", "load", "unload"]]
    _debug_info: NotRequired[DebugInfo]
    logprobs: NotRequired[list[TokenEntry]]
    total_duration: NotRequired[Nanoseconds]
    load_duration: NotRequired[Nanoseconds]
    prompt_eval_count: NotRequired[Count]
    prompt_eval_duration: NotRequired[Nanoseconds]
    eval_count: NotRequired[Count]
    eval_duration: NotRequired[Nanoseconds]
    prompt_eval_cached_count: NotRequired[Count]
    truncated: NotRequired[Truncated]
    progress: NotRequired[PromptProgress]


class GenerateAnswer(RunAnswer):
    """POST /api/generate."""

    response: str
    thinking: NotRequired[str]
    context: NotRequired[list[int]]


class CalledFunction(TypedDict):
    """What is to be called, and with what; the index counts the calls of an answer."""

    index: Count
    name: str
    arguments: dict[str, Any]


class AnswerCall(TypedDict):
    """One tool call."""

    id: str
    function: CalledFunction


class AnswerMessage(TypedDict):
    """A message, or a piece of one."""

    role: str
    content: str
    thinking: NotRequired[str]
    tool_calls: NotRequired[list[AnswerCall]]


class ChatAnswer(RunAnswer):
    """POST /api/chat."""

    message: AnswerMessage


class EmbedAnswer(TypedDict):
    """POST /api/embed."""

    model: str
    embeddings: list[list[float]]
    total_duration: NotRequired[Nanoseconds]
    load_duration: NotRequired[Nanoseconds]
    prompt_eval_count: NotRequired[Count]


class EmbeddingsAnswer(TypedDict):
    """POST /api/embeddings."""

    embedding: list[float]


class TokenizeAnswer(TypedDict):
    """POST /api/tokenize."""

    model: str
    tokens: list[int]
    count: Count


class DetokenizeAnswer(TypedDict):
    """POST /api/detokenize."""

    model: str
    content: str


class RankedDocument(TypedDict):
    """One document of /api/rerank, by its place in the request."""

    index: Count
    relevance_score: Annotated[float, ("minimum", 0), ("maximum", 1)]
    document: NotRequired[str]


class RerankAnswer(TypedDict):
    """POST /api/rerank: the best document first."""

    model: str
    results: list[RankedDocument]
    total_duration: NotRequired[Nanoseconds]
    load_duration: NotRequired[Nanoseconds]
    prompt_eval_count: NotRequired[Count]
