"""Architectures: one module per `general.architecture`, each with build(meta) -> Plan.

A module is named as the file names the architecture, with `_` for `-`.
"""

from importlib import import_module
from importlib.util import find_spec

from ollamacore.arch.hyper import Metadata
from ollamacore.arch.leftovers import check_leftovers
from ollamacore.arch.plan import Plan
from ollamacore.errors import UnsupportedModelError
from ollamacore.gguf import GGUFFile

#: modules of this package that are no architecture
_SHARED = {"decoder", "encoder", "experts", "hyper", "latent", "leftovers", "per_layer", "plan", "recurrent", "rope"}


def supports(architecture: str) -> bool:
    """Whether models of this architecture can run."""
    name = _module_name(architecture)
    if "_" in architecture or not name.isidentifier() or name in _SHARED:
        return False
    return find_spec(f"{__name__}.{name}") is not None


def build_plan(file: GGUFFile, context: int = 4096) -> Plan:
    """The plan of the model in `file`; UnsupportedModelError names what is not known: the architecture or a part.

    `context`: tokens of the longest context that is wanted, for models that compute long ones in another way.
    """
    architecture = file.get("general.architecture", str)
    if not supports(architecture):
        raise UnsupportedModelError(f"architecture {architecture!r} is not supported")
    meta = Metadata(file, context)
    plan: Plan = import_module(f"{__name__}.{_module_name(architecture)}").build(meta)
    check_leftovers(meta, plan)
    return plan


def _module_name(architecture: str) -> str:
    return architecture.replace("-", "_")
