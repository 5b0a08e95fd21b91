"""What is said about a GGUF file: sizes, types, capabilities, metadata fit for JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from ollamacore.errors import InvalidFileError
from server.store.describe import describe_gguf, human_number
from server.store.errors import StoreError

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}{% endfor %}"


def write_gguf(path: Path, architecture="llama", fill=lambda writer: None, tensors=None) -> Path:
    writer = GGUFWriter(path, architecture)
    fill(writer)
    for name, data in (tensors or {"w": np.zeros((2, 8), np.float32)}).items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (999, "999"), (1000, "1K"), (1499, "1K"), (260_000, "260K"), (1_000_000, "1M"),
        (134_515_008, "134.52M"), (22_560_000, "22.56M"), (10**9, "1B"), (7_000_000_000, "7B"),
        (7_615_616_512, "7.6B"), (405_853_388_800, "405.9B"),
    ],
)  # fmt: skip
def test_human_number(number, text):
    assert human_number(number) == text


def test_describe_reads_the_header(tmp_path):
    def fill(writer):
        writer.add_context_length(2048)
        writer.add_embedding_length(64)
        writer.add_file_type(15)
        writer.add_chat_template(CHATML)

    tensors = {"a": np.zeros((3, 8), np.float32), "b": np.zeros(8, np.float32)}
    found = describe_gguf(write_gguf(tmp_path / "m.gguf", fill=fill, tensors=tensors))
    assert (found.architecture, found.kind) == ("llama", "model")
    assert (found.parameter_count, found.parameter_size) == (32, "32")
    assert found.file_type == "Q4_K_M"
    assert (found.context_length, found.embedding_length) == (2048, 64)
    assert found.chat_template == CHATML
    assert [(t.name, t.type, t.shape) for t in found.tensors] == [("a", "F32", (8, 3)), ("b", "F32", (8,))]


def test_describe_file_type_without_a_header_field_is_that_of_most_weights(tmp_path):
    tensors = {f"norm{i}": np.zeros(8, np.float32) for i in range(3)} | {"w": np.zeros((9, 8), np.float16)}
    assert describe_gguf(write_gguf(tmp_path / "m.gguf", tensors=tensors)).file_type == "F16"


@pytest.mark.parametrize(
    ("architecture", "fill", "expected"),
    [
        ("llama", lambda w: None, ("completion",)),
        ("bert", lambda w: w.add_uint32("bert.pooling_type", 1), ("embedding",)),
        ("llama", lambda w: w.add_uint32("bert.pooling_type", 1), ("completion",)),
        ("gemma3", lambda w: w.add_uint32("gemma3.vision.block_count", 1), ("completion", "vision")),
        ("llama", lambda w: w.add_chat_template(CHATML), ("completion",)),
        ("llama", lambda w: w.add_chat_template("{% if tools %}"), ("completion", "tools")),
        ("llama", lambda w: w.add_chat_template("{{ m.tool_calls }}"), ("completion", "tools")),
        ("llama", lambda w: w.add_chat_template("<think>{{ x }}</think>"), ("completion", "thinking")),
        ("llama", lambda w: w.add_chat_template("{{ c.split('</think>')[-1] }}"), ("completion", "thinking")),
        ("llama", lambda w: w.add_chat_template("<think>"), ("completion",)),
    ],
)
def test_capabilities(tmp_path, architecture, fill, expected):
    assert describe_gguf(write_gguf(tmp_path / "m.gguf", architecture, fill)).capabilities == expected


@pytest.mark.parametrize(
    ("architecture", "declared", "kind"),
    [
        ("llama", "model", "model"),
        ("llama", "adapter", "adapter"),
        ("clip", None, "projector"),
        ("clip", "mmproj", "projector"),
    ],
)
def test_kind_of_file(tmp_path, architecture, declared, kind):
    path = write_gguf(tmp_path / "m.gguf", architecture, lambda w: declared and w.add_type(declared))
    assert describe_gguf(path).kind == kind


def metadata_writer(writer):
    writer.add_name("hidden")
    writer.add_chat_template(CHATML)
    writer.add_float32("llama.eps", 1e-5)
    writer.add_float32("llama.third", 1 / 3)
    writer.add_float64("llama.base", 1e-300)
    writer.add_bool("llama.flag", True)
    writer.add_uint64("llama.big", 2**63)
    writer.add_array("llama.words", ["a", "é"])
    writer.add_array("llama.floats", [0.1, 2.0])
    writer.add_array("tokenizer.ggml.tokens", ["t"] * 1025)
    writer.add_array("tokenizer.ggml.limit", ["t"] * 1024)


def test_model_info_is_json_with_short_numbers(tmp_path):
    found = describe_gguf(write_gguf(tmp_path / "m.gguf", fill=metadata_writer)).model_info
    assert list(found) == sorted(found)
    assert json.loads(json.dumps(found)) == found
    assert "general.name" not in found
    assert "tokenizer.chat_template" not in found
    assert found["general.parameter_count"] == 16
    assert found["llama.eps"] == 1e-5
    assert found["llama.third"] == 0.33333334
    assert found["llama.base"] == 1e-300
    assert found["llama.flag"] is True
    assert found["llama.big"] == 2**63
    assert found["llama.words"] == ["a", "é"]
    assert found["llama.floats"] == [0.1, 2.0]
    assert found["tokenizer.ggml.tokens"] is None
    assert len(found["tokenizer.ggml.limit"]) == 1024


def test_model_info_verbose_has_long_arrays(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", fill=metadata_writer)
    assert describe_gguf(path, verbose=True).model_info["tokenizer.ggml.tokens"] == ["t"] * 1025


def test_describe_of_what_is_no_model(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(InvalidFileError):
        describe_gguf(path)
    with pytest.raises(StoreError) as caught:
        describe_gguf(tmp_path / "absent")
    assert str(tmp_path) not in str(caught.value)
