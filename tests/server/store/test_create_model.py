"""Creating models: the steps reported, what lands in the manifest, what is inherited, what is refused."""

import json

import numpy as np
import pytest

from server.store.create import CreateSpec, create_model
from server.store.errors import CreateError, DamagedBlobError, ModelNotFoundError, StoreError
from server.store.names import ModelName
from server.store.store import Store
from tests.server.store.conftest import blob_files, sha256
from tests.server.store.test_describe import CHATML, write_gguf

M, N = ModelName.parse("m"), ModelName.parse("me/n:v2")
ZEROS = "0000000000000000000"


def llama(writer):
    writer.add_context_length(2048)
    writer.add_embedding_length(64)
    writer.add_file_type(3)
    writer.add_chat_template(CHATML + "{{ tools }}")


@pytest.fixture
def upload(store, tmp_path):
    """Put a GGUF file into the store and return its digest and size."""

    def put(architecture="llama", fill=llama, rows=2):
        path = write_gguf(tmp_path / "up.gguf", architecture, fill, {"w": np.ones((rows, 8), np.float32)})
        return store.add_file(path), path.stat().st_size

    return put


def create(store, name=M, **fields):
    lines = []
    model = create_model(store, CreateSpec(name=name, **fields), lines.append)
    return model, lines


def statuses(lines):
    return [line["status"] for line in lines]


def test_create_from_an_uploaded_file(store, root, upload):
    digest, size = upload()
    model, lines = create(store, files={"model.gguf": digest})
    assert lines == [
        {"status": "parsing GGUF"},
        {"status": "validating GGUF model", "digest": ZEROS, "total": size, "completed": size},
        {"status": f"using existing layer {digest}"},
        {"status": "writing manifest"},
        {"status": "success"},
    ]
    assert model == store.find(M)
    assert model.config == {
        "model_format": "gguf",
        "model_family": "llama",
        "model_families": ["llama"],
        "model_type": "16",
        "file_type": "Q4_1",
        "capabilities": ["completion", "tools"],
        "context_length": 2048,
        "embedding_length": 64,
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    }
    assert [layer.to_json() for layer in model.layers] == [
        {"mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": size}
    ]
    assert model.template is None  # the GGUF's own chat template is used
    assert len(blob_files(root)) == 2


def test_create_with_everything(store, upload):
    digest, _ = upload()
    model, lines = create(
        store,
        files={"dir/model.gguf": digest.replace(":", "-")},
        template="{{ .Prompt }}",
        system="be kind\ud800",
        license=["MIT", "Apache", "MIT"],
        parameters={"temperature": 0.5, "stop": ["<|im_end|>"], "seed": None},
        messages=[{"role": "user", "content": "hi"}],
        renderer="r",
        parser="p",
        requires="0.1.0",
    )
    new = [f"creating new layer {layer.digest}" for layer in model.layers[1:]]
    assert statuses(lines)[2:] == [f"using existing layer {digest}", *new, "writing manifest", "success"]
    assert [layer.kind for layer in model.layers] == [
        "model", "template", "system", "params", "license", "license", "messages",
    ]  # fmt: skip
    assert model.template == "{{ .Prompt }}"
    assert model.system == "be kind\ufffd"
    assert model.licenses == ("MIT", "Apache")
    assert model.params == {"stop": ["<|im_end|>"], "temperature": 0.5}
    assert model.messages == [{"role": "user", "content": "hi"}]
    assert [model.config[key] for key in ("renderer", "parser", "requires")] == ["r", "p", "0.1.0"]
    assert model.config["rootfs"]["diff_ids"] == [layer.digest for layer in model.layers]


def test_create_from_a_model_inherits_and_merges(store, upload):
    digest, _ = upload()
    base, _ = create(
        store,
        files={"model.gguf": digest},
        template="old template",
        system="old system",
        license=["MIT"],
        parameters={"temperature": 0.5, "top_k": 3},
        messages=[{"role": "user", "content": "old"}],
        renderer="r",
    )
    model, lines = create(
        store,
        N,
        base=ModelName.parse("M"),
        system="new system",
        license=["Apache"],
        parameters={"temperature": 0.9, "stop": ["x"]},
    )
    assert model.template == "old template"
    assert model.system == "new system"
    assert model.licenses == ("MIT", "Apache")
    assert model.params == {"stop": ["x"], "temperature": 0.9, "top_k": 3}
    assert model.messages == [{"role": "user", "content": "old"}]
    assert model.parent_model == "m:latest"
    assert {**model.config, "rootfs": 0} == {**base.config, "rootfs": 0}
    made = [layer.digest for layer in model.layers if not layer.origin]
    assert statuses(lines) == [
        *(f"{'creating new' if layer.digest in made else 'using existing'} layer {layer.digest}"
          for layer in model.layers),
        "writing manifest",
        "success",
    ]  # fmt: skip
    assert len(made) == 3
    assert store.find(M) == base


def test_new_template_replaces_a_legacy_one(store, upload):
    digest, _ = upload()
    base, _ = create(store, files={"model.gguf": digest})
    legacy = store.put_bytes(b"legacy")
    layers = [*base.layers, type(base.layers[0]).of("prompt", legacy, 6)]
    store.put(M, json.dumps(base.config).encode(), layers)
    model, _ = create(store, N, base=M, template="new")
    assert model.template == "new"
    assert [layer.kind for layer in model.layers] == ["model", "template"]


def test_create_in_place_of_a_model_frees_what_it_alone_used(store, root, upload):
    digest, _ = upload()
    create(store, files={"model.gguf": digest}, system="old")
    model, _ = create(store, base=M, system="new")
    assert model.system == "new"
    assert not store.has_blob(f"sha256:{sha256(b'old')}")
    assert len(blob_files(root)) == 3


def test_create_again_gives_the_same_manifest(store, upload):
    digest, _ = upload()
    fields = {"files": {"model.gguf": digest}, "system": "s", "parameters": {"b": 1, "a": 2}}
    first, _ = create(store, **fields)
    second, lines = create(store, **(fields | {"parameters": {"a": 2, "b": 1}}))
    assert second.digest == first.digest
    assert not any(status.startswith("creating") for status in statuses(lines))


def test_create_repairs_a_damaged_manifest(store, root, upload):
    digest, _ = upload()
    create(store, files={"model.gguf": digest})
    root.joinpath("ollamacore", "manifests", *M.parts).write_bytes(b"")
    create(store, files={"model.gguf": digest})
    assert store.find(M).model_layer.digest == digest


def test_create_from_an_ollama_model_uses_its_blobs_in_place(root, ollama):
    ollama.model("llama3", b"weights")
    store = Store(root)
    model, _ = create(store, base=ModelName.parse("llama3"), system="be kind")
    assert model.model_path == root / "blobs" / f"sha256-{sha256(b'weights')}"
    assert model.config["model_family"] == "llama"
    assert model.system == "be kind"
    assert not model.read_only


def test_create_with_a_projector(store, upload):
    weights, _ = upload("gemma3", lambda writer: None)
    projector, _ = upload("clip", lambda writer: writer.add_type("mmproj"), rows=3)
    model, _ = create(store, files={"a-mmproj.gguf": projector, "model.gguf": weights})
    assert [(layer.kind, layer.digest) for layer in model.layers] == [
        ("model", weights),
        ("projector", projector),
    ]
    assert model.config["model_family"] == "gemma3"
    assert model.config["model_families"] == ["gemma3", "clip"]
    assert "vision" in store.summarise(model).capabilities


GOOD = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "neither 'from' or 'files' was specified"),
        ({"files": {}}, "no files provided to convert"),
        ({"files": {"/etc/passwd": GOOD}}, "file path must be relative"),
        ({"files": {"../m.gguf": GOOD}}, "file path must be relative"),
        ({"files": {"a/../m.gguf": GOOD}}, "file path must be relative"),
        ({"files": {"./m.gguf": GOOD}}, "file path must be relative"),
        ({"files": {"": GOOD}}, "file path must be relative"),
        ({"base": M, "adapters": {"/a": GOOD}}, "file path must be relative"),
        ({"files": {"m.gguf": ""}}, "invalid digest format"),
        ({"files": {"m.gguf": "sha256:../../etc"}}, "invalid digest format"),
        ({"base": M, "adapters": {"a": GOOD, "b": GOOD}}, "only one adapter is currently supported"),
        ({"base": M, "adapters": {"a": GOOD}}, "adapters are not supported"),
        ({"base": M, "quantize": "Q4_K_M"}, "quantization is not supported; supply a quantized GGUF file"),
        ({"files": {"m.gguf": GOOD}}, f'blob "{GOOD}" not found; upload it first'),
    ],
)
def test_bad_request_is_refused_with_its_text(store, root, fields, text):
    lines = []
    with pytest.raises(CreateError) as caught:
        create_model(store, CreateSpec(name=N, **fields), lines.append)
    assert (str(caught.value), caught.value.status) == (text, 400)
    assert not lines
    assert store.find(N) is None
    assert not blob_files(root)


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("m.gguf", b"PK\x03\x04zip", "supplied file was not in GGUF format"),
        ("m.gguf", b"", "supplied file was not in GGUF format"),
        ("m.bin", b"PK\x03\x04zip", "unknown type"),
        ("m.safetensors", b"\x02{}", "converting safetensors is not supported; supply a GGUF file"),
        ("m.gguf", b"GGUF", "invalid GGUF file: not a GGUF file"),
        ("m", b"GGUF\x03\0\0\0", "invalid GGUF file: the file ends inside the number of tensors"),
        ("m.gguf", b"GGUF\x63\0\0\0", "invalid GGUF file: GGUF version 99 is not supported"),
    ],
)
def test_file_that_is_no_gguf_is_refused(store, name, data, text):
    digest = store.put_bytes(data)
    with pytest.raises(CreateError) as caught:
        create(store, files={name: digest})
    assert (str(caught.value), caught.value.status) == (text, 400)
    assert store.find(M) is None


def test_files_must_hold_one_model(store, upload):
    one, _ = upload()
    two, _ = upload(rows=3)
    projector, _ = upload("clip", lambda writer: None)
    adapter, _ = upload(fill=lambda writer: writer.add_type("adapter"))
    for files in ({"a.gguf": one, "b.gguf": two}, {"p.gguf": projector}):
        with pytest.raises(CreateError, match="exactly one of the files must be a model"):
            create(store, files=files)
    with pytest.raises(CreateError, match="adapters are not supported"):
        create(store, files={"m.gguf": one, "a.gguf": adapter})


def test_damaged_upload_is_refused(store, upload):
    digest, _ = upload()
    path = store.blob_path(digest)
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(DamagedBlobError):
        create(store, files={"m.gguf": digest})
    assert store.find(M) is None


def test_missing_base(store):
    with pytest.raises(ModelNotFoundError, match="model 'm:latest' not found"):
        create(store, N, base=M)


def test_base_without_its_weights(store, root, upload):
    digest, _ = upload()
    create(store, files={"m.gguf": digest})
    store.blob_path(digest).unlink()
    with pytest.raises(StoreError, match="not found"):
        create(store, N, base=M, system="x")
    assert store.find(N) is None


def test_parameters_nested_too_deeply(store, upload):
    digest, _ = upload()
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(CreateError, match="exceeded max depth"):
        create(store, files={"m.gguf": digest}, parameters={"stop": nested})


def test_summary_of_a_created_model_needs_no_gguf(store, upload):
    digest, _ = upload()
    model, _ = create(store, files={"m.gguf": digest})
    store.blob_path(digest).unlink()
    summary = store.summarise(model)
    assert summary.capabilities == ("completion", "tools")
    assert (summary.context_length, summary.embedding_length) == (2048, 64)


def test_summary_of_an_ollama_model_comes_from_its_gguf(root, ollama, tmp_path):
    ollama.model("m", write_gguf(tmp_path / "m.gguf", fill=llama).read_bytes())
    ollama.model("broken", b"GGUF")
    store = Store(root)
    summary = store.summarise(store.find(M))
    assert summary.capabilities == ("completion", "tools")
    assert (summary.context_length, summary.embedding_length) == (2048, 64)
    broken = store.summarise(store.find(ModelName.parse("broken")))
    assert (broken.capabilities, broken.context_length) == ((), None)


def test_describe_goes_by_the_model_layer(store, upload):
    digest, _ = upload(fill=lambda writer: writer.add_array("tokenizer.ggml.tokens", ["t"] * 2000))
    model, _ = create(store, files={"m.gguf": digest})
    assert store.describe(model).architecture == "llama"
    assert store.describe(model).model_info["tokenizer.ggml.tokens"] is None
    assert len(store.describe(model, verbose=True).model_info["tokenizer.ggml.tokens"]) == 2000
    assert store.describe(model).model_info["tokenizer.ggml.tokens"] is None
