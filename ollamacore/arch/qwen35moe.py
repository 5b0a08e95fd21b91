"""qwen35moe: Qwen3.5 with experts (35B-A3B and larger), text only.

As qwen35, with the feed-forward of qwen3next.
"""

from ollamacore.arch.experts import ExpertFeedForward
from ollamacore.arch.hyper import Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.qwen3next import hybrid


def build(meta: Metadata) -> Plan:
    """The plan of a Qwen3.5 mixture of experts."""
    return hybrid(meta, ExpertFeedForward.read(meta, normalize=True), grouped=False)
