"""gemma-embedding: EmbeddingGemma.

Gemma 3 without a head, whose layers look both ways: five of them at a window, half of it on either side of a token.
"""

from dataclasses import replace

from ollamacore.arch.decoder import encoder
from ollamacore.arch.gemma3 import gemma3_blocks, read_hyper
from ollamacore.arch.hyper import Metadata
from ollamacore.arch.plan import Plan


def build(meta: Metadata) -> Plan:
    """The plan of an EmbeddingGemma model."""
    hyper = read_hyper(meta)
    blocks = [replace(block, both_ways=True) for block in gemma3_blocks(meta, hyper)]
    return encoder(meta.file, hyper, blocks, embedding_scale=hyper.n_embd**0.5)
