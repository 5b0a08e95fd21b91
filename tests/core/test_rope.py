"""Rope frequencies against transformers.

The goldens are ROPE_INIT_FUNCTIONS["yarn"](config, "cpu") of transformers 5.23 with torch 2.13, to 8 digits, for
Qwen2Config(hidden_size=256, num_attention_heads=8, rope_parameters={"rope_type": "yarn", "rope_theta": 1e6, ...}).
"""

import numpy as np
import pytest
from gguf import GGUFWriter

import ollamacore
from ollamacore.arch.hyper import Metadata
from ollamacore.arch.rope import rope_frequencies, scaled_rope
from ollamacore.gguf import GGUFFile

#: rope metadata -> (frequencies, factor of cos and sin)
YARN = [
    (
        {"factor": 4.0, "original_context_length": 32768},
        [1.0, 0.42169651, 0.17782794, 0.074989416, 0.031622779, 0.013335215, 0.0047799014, 0.0016599617, 0.00055,
         0.00016867858, 4.4456985e-05, 1.8747356e-05, 7.9056936e-06, 3.3338035e-06, 1.4058534e-06, 5.9284343e-07],
        1.138629436111989,
    ),
    (
        {"factor": 8.0, "original_context_length": 4096, "yarn_beta_fast": 16.0, "yarn_beta_slow": 2.0},
        [1.0, 0.42169651, 0.17782794, 0.074989416, 0.031622779, 0.0094457772, 0.0023430889, 0.00029642173,
         0.00012500001, 5.2712061e-05, 2.2228493e-05,
         9.373678e-06, 3.9528468e-06, 1.6669018e-06, 7.0292668e-07, 2.9642172e-07],
        1.2079441541679836,
    ),
]  # fmt: skip


def metadata(path, kind, **scaling):
    """The metadata of a file with this rope scaling and a context of 131,072."""
    writer = GGUFWriter(path, "qwen2")
    writer.add_uint32("qwen2.context_length", 131072)
    writer.add_string("qwen2.rope.scaling.type", kind)
    for key, value in scaling.items():
        (writer.add_uint32 if isinstance(value, int) else writer.add_float32)(f"qwen2.rope.scaling.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return Metadata(GGUFFile.open(path))


@pytest.mark.parametrize(("scaling", "freq", "mscale"), YARN)
def test_yarn_equals_transformers(tmp_path, scaling, freq, mscale):
    rope = scaled_rope(metadata(tmp_path / "m.gguf", "yarn", **scaling), 32, 1e6)
    np.testing.assert_allclose(rope.freq, freq, rtol=2e-7)
    assert rope.mscale == pytest.approx(mscale, rel=1e-7)


def test_linear_divides_every_frequency(tmp_path):
    rope = scaled_rope(metadata(tmp_path / "m.gguf", "linear", factor=4.0), 32, 1e6)
    np.testing.assert_array_equal(rope.freq, rope_frequencies(32, 1e6) / 4)
    assert rope.mscale == 1.0


def test_unknown_scaling_is_named(tmp_path):
    with pytest.raises(ollamacore.UnsupportedModelError, match="'spiral'"):
        scaled_rope(metadata(tmp_path / "m.gguf", "spiral", factor=4.0), 32, 1e6)


@pytest.mark.parametrize("keys", [{"rope.scale_linear": 4.0}, {"rope.scaling.factor": 4.0}])
def test_factor_without_a_type_is_linear(tmp_path, keys):
    """Old files: a key of its own, or no name for the only kind that there was."""
    file = metadata(tmp_path / "m.gguf", "none").file
    file.metadata = {key: value for key, value in file.metadata.items() if key != "qwen2.rope.scaling.type"}
    file.metadata |= {f"qwen2.{key}": value for key, value in keys.items()}
    np.testing.assert_array_equal(scaled_rope(Metadata(file), 32, 1e6).freq, rope_frequencies(32, 1e6) / 4)


def test_scaling_of_no_kind_leaves_the_factor_alone(tmp_path):
    rope = scaled_rope(metadata(tmp_path / "m.gguf", "none", factor=4.0), 32, 1e6)
    np.testing.assert_array_equal(rope.freq, rope_frequencies(32, 1e6))
