"""Models by name: both trees in one view, damage stays where it is, deletion keeps what others use."""

import contextlib
import json
import logging
import os
import threading
from datetime import datetime

import pytest

from server.store.errors import (
    BlobNotFoundError,
    DamagedBlobError,
    DamagedManifestError,
    ModelNotFoundError,
    ReadOnlyModelError,
    StoreError,
)
from server.store.manifests import Layer
from server.store.names import ModelName
from server.store.store import Store
from tests.server.store.conftest import blob_files, sha256, snapshot

M, N = ModelName.parse("m"), ModelName.parse("n")


def layer(store, kind, data):
    return Layer.of(kind, store.put_bytes(data), len(data))


def put(store, name, weights=b"weights", config=b"{}", **texts):
    layers = [layer(store, "model", weights)]
    layers += [layer(store, kind, text.encode()) for kind, text in texts.items()]
    return store.put(name, config, layers)


def manifest_path(root, name):
    return root.joinpath("ollamacore", "manifests", *name.parts)


def make_old(root):
    for folder in ("blobs", "aliases"):
        for path in (root / "ollamacore" / folder).iterdir():
            os.utime(path, (1, 1))


def names(store):
    return {model.name.short for model in store.list()}


def test_empty_store(store):
    assert store.list() == []
    assert store.find(M) is None


def test_put_writes_ollamas_manifest(store, root):
    model = put(store, M, b"weights", b'{"model_family":"llama"}', system="be kind")
    data = manifest_path(root, M).read_bytes()
    docker, ollama = "application/vnd.docker", "application/vnd.ollama.image"
    config, weights, system = b'{"model_family":"llama"}', b"weights", b"be kind"
    assert json.loads(data) == {
        "schemaVersion": 2,
        "mediaType": f"{docker}.distribution.manifest.v2+json",
        "config": {
            "mediaType": f"{docker}.container.image.v1+json",
            "digest": f"sha256:{sha256(config)}",
            "size": len(config),
        },
        "layers": [
            {"mediaType": f"{ollama}.model", "digest": f"sha256:{sha256(weights)}", "size": len(weights)},
            {"mediaType": f"{ollama}.system", "digest": f"sha256:{sha256(system)}", "size": len(system)},
        ],
    }
    assert b"\n" not in data
    assert model.digest == sha256(data)
    assert model.size == len(config + weights + system)
    assert model == store.find(M)
    assert not model.read_only


def test_modified_at_is_the_manifests_local_time(store, root):
    put(store, M)
    os.utime(manifest_path(root, M), ns=(0, 1_700_000_000_123_456_789))
    modified = store.find(M).modified_at
    assert modified.isoformat(timespec="microseconds")[19:26] == ".123456"
    assert modified.timestamp() == pytest.approx(1_700_000_000.123456, abs=1e-6)
    assert modified.utcoffset() == datetime.fromtimestamp(1_700_000_000).astimezone().utcoffset()


def test_accessors_read_the_layers(store, root):
    texts = {
        "template": "{{ .Prompt }}",
        "system": "be kind",
        "license": "MIT",
        "params": '{"stop":["x"],"temperature":0.5}',
        "messages": '[{"role":"user","content":"hi"}]',
    }
    model = put(store, M, config=b'{"model_type":"7B"}', **texts)
    assert model.config == {"model_type": "7B"}
    assert model.template == "{{ .Prompt }}"
    assert model.system == "be kind"
    assert model.licenses == ("MIT",)
    assert model.params == {"stop": ["x"], "temperature": 0.5}
    assert model.messages == [{"role": "user", "content": "hi"}]
    assert model.model_path.read_bytes() == b"weights"
    assert model.parent_model == ""
    assert model.projector_paths == ()


def test_accessors_of_a_bare_model(store):
    model = store.put(M, b"{}", [])
    assert (model.template, model.system, model.licenses) == (None, None, ())
    assert (model.params, model.messages) == ({}, [])
    with pytest.raises(StoreError, match="has no GGUF weights"):
        _ = model.model_path


def test_legacy_prompt_layer_is_the_template(store):
    assert put(store, M, prompt="{{ .Prompt }}").template == "{{ .Prompt }}"


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 2000])
def test_damaged_json_layer_is_an_error_when_used(store, text):
    model = put(store, M, params=text)
    with pytest.raises(DamagedBlobError):
        _ = model.params


def test_changed_text_layer_is_an_error_when_used(store, root):
    model = put(store, M, system="be kind")
    store.blob_path(f"sha256:{sha256(b'be kind')}").write_bytes(b"be evil")
    with pytest.raises(DamagedBlobError):
        _ = model.system


def test_put_refuses_missing_layers(store, root):
    with pytest.raises(BlobNotFoundError):
        store.put(M, b"{}", [Layer.of("model", "sha256:" + "0" * 64, 1)])
    assert store.find(M) is None


def test_names_are_found_without_case_and_keep_their_spelling(store):
    put(store, ModelName.parse("Me/Model:Q4"))
    found = store.find(ModelName.parse("mE/mODEL:q4"))
    assert found.name.short == "Me/Model:Q4"
    put(store, ModelName.parse("ME/MODEL:Q4"), b"other weights")
    assert names(store) == {"Me/Model:Q4"}
    assert store.find(ModelName.parse("me/model:q4")).model_path.read_bytes() == b"other weights"


def test_list_is_sorted_by_time(store, root):
    for age, text in enumerate(["a", "b", "c"]):
        put(store, ModelName.parse(text))
        os.utime(manifest_path(root, ModelName.parse(text)), (1000 - age, 1000 - age))
    assert [model.name.model for model in store.list()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "damage",
    [
        b"", b"\0" * 300, b"{", b"null", b"{}", b'{"config":{},"layers":[]}', b'{"layers":null}', b"[" * 9000,
        b"9" * 5000, b"\xff\xfe", b" " * (4 << 20) + b" ",
        b'{"config":{"mediaType":"x","digest":"sha256:../../x","size":1},"layers":[]}',
        b'{"config":{"mediaType":"x","digest":"sha256:%s","size":-1},"layers":[]}' % (b"0" * 64),
        b'{"config":{"mediaType":"x","digest":"sha256:%s","size":1.5},"layers":[]}' % (b"0" * 64),
        b'{"config":{"mediaType":"x","digest":"sha256:%s","size":1},"layers":[7]}' % (b"0" * 64),
    ],
)  # fmt: skip
def test_damaged_manifest_hides_nothing_else(store, root, damage, caplog):
    put(store, M)
    put(store, N)
    manifest_path(root, M).write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        assert names(store) == {"n:latest"}
        assert names(store) == {"n:latest"}
    assert len([r for r in caplog.records if "m:latest" in r.getMessage()]) == 1
    with pytest.raises(DamagedManifestError) as caught:
        store.find(M)
    assert str(root) not in str(caught.value)
    put(store, M)  # creating it again repairs it
    assert names(store) == {"m:latest", "n:latest"}


def test_model_without_config_hides_nothing_else(store, root, caplog):
    put(store, M, config=b'{"a":1}')
    put(store, N)
    store.blob_path("sha256:" + sha256(b'{"a":1}')).unlink()
    assert names(store) == {"n:latest"}
    assert "m:latest" in caplog.text


def test_foreign_files_among_the_manifests_are_ignored(store, root, tmp_path):
    put(store, M)
    tree = root / "ollamacore" / "manifests"
    (tree / ".DS_Store").write_bytes(b"x")
    (tree / "registry.ollama.ai" / "library" / "m" / ".hidden").write_bytes(b"x")
    (tree / "registry.ollama.ai" / "library" / "file").write_bytes(b"x")
    outside = tmp_path / "outside" / "library" / "x"
    outside.mkdir(parents=True)
    (outside / "latest").write_bytes(manifest_path(root, M).read_bytes())
    (tree / "evil.example").symlink_to(tmp_path / "outside")
    assert names(store) == {"m:latest"}


@pytest.mark.parametrize("kind", ["symlink", "fifo"])
def test_manifest_must_be_a_regular_file(store, root, tmp_path, kind):
    put(store, M)
    path = manifest_path(root, M)
    moved = tmp_path / "manifest"
    path.rename(moved)
    path.symlink_to(moved) if kind == "symlink" else os.mkfifo(path)
    assert names(store) == set()
    with pytest.raises(DamagedManifestError):
        store.find(M)


def test_manifest_is_not_written_through_a_symlinked_folder(store, root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "ollamacore" / "manifests" / "registry.ollama.ai").symlink_to(outside)
    with pytest.raises(StoreError):
        put(store, M)
    assert not list(outside.iterdir())


def test_name_too_long_for_the_disk_is_an_error_without_path(store, root):
    with pytest.raises(StoreError) as caught:
        put(store, ModelName("h" * 300, "n", "m", "t"))
    assert str(root) not in str(caught.value)


# -- an Ollama store beside ours


@pytest.mark.parametrize("separator", ["-", ":"])
def test_ollama_models_are_served_in_place(root, ollama, separator):
    path = ollama.model("llama3:8b", b"weights", separator=separator)
    ollama.manifest("broken", b"")
    before = snapshot(root / "blobs", root / "manifests")
    store = Store(root)
    model = store.find(ModelName.parse("LLAMA3:8B"))
    assert names(store) == {"llama3:8b"}
    assert model.digest == sha256(path.read_bytes())
    assert model.config == {"model_family": "llama"}
    assert model.read_only
    assert model.model_path == root / "blobs" / f"sha256{separator}{sha256(b'weights')}"
    store.copy(model.name, M)
    with pytest.raises(ReadOnlyModelError, match="'llama3:8b' belongs to Ollama's own store"):
        store.delete(model.name)
    store.delete(M)
    store.collect_garbage(grace_s=-10)
    assert snapshot(root / "blobs", root / "manifests") == before


def test_our_manifest_wins_over_ollamas(root, ollama):
    ollama.model("m", b"theirs")
    store = Store(root)
    put(store, M, b"ours")
    assert [model.model_path.read_bytes() for model in store.list()] == [b"ours"]
    assert store.find(M).model_path.read_bytes() == b"ours"
    store.delete(M)
    assert store.find(M).model_path.read_bytes() == b"theirs"


def test_our_damaged_manifest_does_not_hide_ollamas(root, ollama):
    ollama.model("m", b"theirs")
    store = Store(root)
    put(store, M, b"ours")
    manifest_path(root, M).write_bytes(b"")
    assert store.find(M).model_path.read_bytes() == b"theirs"
    assert names(store) == {"m:latest"}


# -- copy, delete, garbage


def test_copy_shares_everything(store, root):
    original = put(store, M, system="be kind")
    before = blob_files(root)
    copied = store.copy(ModelName.parse("M"), N)
    assert (copied.digest, copied.layers, copied.size) == (original.digest, original.layers, original.size)
    assert copied.name == N
    assert blob_files(root) == before
    store.delete(M)
    assert store.find(N).system == "be kind"
    assert blob_files(root) == before


def test_copy_of_a_missing_model(store):
    with pytest.raises(ModelNotFoundError, match="'m:latest' not found"):
        store.copy(M, N)


def test_delete_keeps_what_others_use(store, root):
    put(store, M, b"shared", system="only m")
    put(store, N, b"shared", system="only n")
    store.delete(ModelName.parse("M"))
    assert store.find(M) is None
    assert store.find(N).model_path.read_bytes() == b"shared"
    assert store.find(N).system == "only n"
    assert not store.has_blob(f"sha256:{sha256(b'only m')}")
    store.delete(N)
    assert blob_files(root) == []
    assert list((root / "ollamacore" / "manifests").iterdir()) == []
    assert list((root / "ollamacore" / "aliases").iterdir()) == []


def test_delete_keeps_the_folders_of_other_tags(store, root):
    put(store, ModelName.parse("m:a"))
    put(store, ModelName.parse("m:b"))
    store.delete(ModelName.parse("m:a"))
    assert names(store) == {"m:b"}


def test_delete_of_a_missing_model(store):
    with pytest.raises(ModelNotFoundError):
        store.delete(M)


def test_deleted_model_in_use_stays_readable(store):
    model = put(store, M, b"weights")
    with open(model.model_path, "rb") as file:
        store.delete(M)
        assert file.read() == b"weights"


def test_unreadable_manifest_stops_the_deletion_of_blobs(store, root):
    put(store, M, b"a")
    put(store, N, b"b")
    before = blob_files(root)
    manifest_path(root, N).write_bytes(b"")
    store.delete(M)
    make_old(root)
    assert store.collect_garbage() == 0
    assert store.find(M) is None
    assert blob_files(root) == before
    store.delete(N)  # a damaged model can be deleted, and then the rest is free to go
    assert store.collect_garbage() > 0
    assert blob_files(root) == []


def test_garbage_is_collected_after_the_grace_period(store, root):
    put(store, M, b"used")
    store.put_bytes(b"uploaded")
    assert store.collect_garbage() == 0
    make_old(root)
    assert store.collect_garbage() == 1
    assert not store.has_blob(f"sha256:{sha256(b'uploaded')}")
    assert store.find(M).model_path.read_bytes() == b"used"


def test_asking_for_a_blob_keeps_it(store, root):
    digest = store.put_bytes(b"uploaded")
    make_old(root)
    assert store.has_blob(digest)
    assert store.collect_garbage() == 0
    assert store.has_blob(digest)


def test_pruning_can_be_switched_off(root):
    store = Store(root, prune=False)
    digest = store.put_bytes(b"uploaded")
    make_old(root)
    assert store.collect_garbage() == 0
    assert store.has_blob(digest)


def test_garbage_collection_leaves_foreign_files_and_used_blobs_without_alias(store, root):
    put(store, M, b"used")
    foreign = root / "ollamacore" / "blobs" / "README"
    foreign.write_bytes(b"x")
    make_old(root)
    (root / "ollamacore" / "aliases" / f"sha256-{sha256(b'used')}").unlink()
    store.collect_garbage()
    assert foreign.exists()
    assert store.find(M).model_path.read_bytes() == b"used"


def test_garbage_collection_removes_damaged_blobs_nobody_can_reach(store, root):
    store.put_bytes(b"uploaded")
    (path,) = (root / "ollamacore" / "blobs").iterdir()
    path.write_bytes(b"damage")
    (root / "ollamacore" / "aliases" / f"sha256-{sha256(b'uploaded')}").unlink()
    assert store.collect_garbage() == 0
    make_old(root)
    assert store.collect_garbage() == 1
    assert blob_files(root) == []


def test_release_frees_what_only_the_replaced_model_used(store, root):
    old = put(store, M, b"old", config=b'{"v":1}', system="both")
    put(store, M, b"new", config=b'{"v":2}', system="both")
    store.release(old)
    assert not store.has_blob(f"sha256:{sha256(b'old')}")
    assert store.find(M).system == "both"
    assert len(blob_files(root)) == 3


def test_every_whole_model_is_listed_after_a_restart(root):
    store = Store(root)
    for number in range(12):
        put(store, ModelName.parse(f"m{number}"), b"shared", system=str(number))
    for number in (0, 7):
        manifest_path(root, ModelName.parse(f"m{number}")).write_bytes(b"")
    assert names(Store(root)) == {f"m{number}:latest" for number in range(12)} - {"m0:latest", "m7:latest"}


def test_store_that_cannot_be_opened_says_so(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="opening the model store") as caught:
        Store(tmp_path / "file" / "models")
    assert str(tmp_path) not in str(caught.value)


def test_threads_that_change_the_same_names(root):
    """Two stores on one folder, as two processes would have them."""
    stores, errors, start = [Store(root), Store(root)], [], threading.Barrier(4)

    def work(number):
        store = stores[number % 2]
        start.wait()
        try:
            for turn in range(12):
                with contextlib.suppress(ModelNotFoundError, BlobNotFoundError):
                    match (number + turn) % 4:
                        case 0 | 1:
                            put(store, M, b"%d" % (turn % 3), system="shared")
                        case 2:
                            store.copy(M, N)
                        case 3:
                            store.delete(N)
                store.list()
                store.collect_garbage()
        except Exception as error:  # noqa: BLE001 (any of them fails the test)
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for model in stores[0].list():
        assert model.system == "shared"
        assert stores[0].verified_path(model.model_layer.digest).read_bytes() in (b"0", b"1", b"2")


def test_hold_keeps_blobs_until_it_ends(store, root):
    put(store, M, b"weights")
    thread = threading.Thread(target=store.delete, args=(M,))
    with store.hold():
        thread.start()
        thread.join(0.3)  # it must wait, however long
        assert thread.is_alive()
        assert store.has_blob(f"sha256:{sha256(b'weights')}")
    thread.join()
    assert blob_files(root) == []
