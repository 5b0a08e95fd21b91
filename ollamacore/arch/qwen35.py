"""qwen35: Qwen3.5, dense, text only.

As qwen3next, with a SwiGLU feed-forward, and beta and alpha of the delta net as two matrices. The sections of its rope
are one for text.
"""

from ollamacore.arch.decoder import GatedFeedForward
from ollamacore.arch.hyper import Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.qwen3next import hybrid


def build(meta: Metadata) -> Plan:
    """The plan of a Qwen3.5 model."""
    return hybrid(meta, GatedFeedForward(), grouped=False)
