"""What Gemma 3n and Gemma 4 have in common: an embedding for every layer, and layers that read the keys of others."""

from dataclasses import dataclass

from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan, Rows
from ollamacore.errors import InvalidFileError


@dataclass(frozen=True, slots=True)
class PerLayerInputs:
    """An embedding of the token for each layer, plus what its first embedding gives for the layer.

    The table of them is larger than the rest of the model. It stays in the file, of which a token reads one row.
    """

    width: int

    @classmethod
    def read(cls, meta: Metadata) -> "PerLayerInputs | None":
        """None where the model has none."""
        width = meta.integer("embedding_length_per_layer_input", 0, 1 << 16, 0)
        return cls(width) if width else None

    def prepare(self, plan: Plan, hyper: Hyper) -> None:
        """Emit the inputs of all layers, from the residual as `embed` has made it."""
        n = hyper.n_layer * self.width
        plan.norm(None, hyper.eps)
        plan.linear("residual", Rows("per_layer_model_proj", n), "per_layer", scale=hyper.n_embd**-0.5)
        plan.norm_buffer("per_layer", "per_layer_proj_norm", hyper.eps, parts=hyper.n_layer)
        plan.gather("per_layer_token_embd.weight", "per_layer", self.width**0.5)

    def project(self, plan: Plan, hyper: Hyper, layer: int, src: str) -> str:
        """Emit what `src` lets through of the layer's input; the block's post_norm is still to come."""
        name = f"blk.{layer}."
        gated = plan.linear(
            src,
            Rows(f"{name}inp_gate", self.width),
            "per_layer_gate",
            activation="gelu",
            factors="per_layer",
            offset=layer * self.width,
        )
        # The two parts of the input were summed up where the model has their sum divided by sqrt(2).
        return plan.linear(gated, Rows(f"{name}proj", hyper.n_embd), "projected", scale=0.5**0.5)


def kv_owners(meta: Metadata, is_windowed: list[bool]) -> list[int | None]:
    """Whose keys and values a layer reads; None: its own.

    The last layers have none, and read those of the last layer before them that sees as far as they do.
    """
    n_layer = len(is_windowed)
    first = n_layer - meta.integer("attention.shared_kv_layers", 0, n_layer - 1, 0)
    last = {is_windowed[layer]: layer for layer in range(first)}
    if set(is_windowed[first:]) - set(last):
        raise InvalidFileError(f"layers from {first} on share keys that no layer before them has")
    return [None if layer < first else last[is_windowed[layer]] for layer in range(n_layer)]
