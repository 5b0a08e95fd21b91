"""What every handler works with."""

from dataclasses import dataclass, field

from server.config import Config
from server.metrics import Metrics
from server.models.loaded import LoadedModels
from server.store.store import Store


@dataclass(frozen=True, slots=True)
class Context:
    """The settings, the store, the loaded models and the counters of one server."""

    config: Config
    store: Store
    models: LoadedModels
    metrics: Metrics = field(default_factory=Metrics)


#: The Ollama version whose API this server speaks; clients refuse servers that report an old one.
OLLAMA_VERSION = "0.33.0"
