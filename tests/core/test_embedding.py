"""Embeddings: tiny encoders against a float64 computation of the same file, the real one against transformers."""

import json
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import ollamacore
from ollamacore import ClosedError, ContextLengthError, InvalidOptionError, InvalidPromptError, UnsupportedModelError
from tests.generate.bert import VOCABULARY, BertReference, tiny_bert
from tests.generate.numpy_reference import Reference
from tests.generate.tiny import tiny_model

REFERENCE = Path(__file__).parent.parent / "data" / "minilm-l6-v2" / "reference.json"
#: from one token to several KV blocks
LENGTHS = (1, 2, 3, 31, 32, 33, 47, 48, 49, 64, 97, 150)


def tokens_of(length):
    return [(7 * i * i + 3 * i + 5 * length) % (len(VOCABULARY) - 5) + 5 for i in range(length)]


def pooled(hidden, pooling):
    return {1: hidden.mean(axis=0), 2: hidden[0], 3: hidden[-1]}[pooling]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    path = tiny_bert(tmp_path_factory.mktemp("bert") / "m.gguf")
    with closing(ollamacore.Model.load(path, threads=2)) as model:
        yield model


@pytest.mark.parametrize("pooling", [1, 2, 3])
@pytest.mark.parametrize("tensor_type", ["F32", "F16"])
def test_encoder_equals_reference(tmp_path, tensor_type, pooling):
    path = tiny_bert(tmp_path / "m.gguf", tensor_type=tensor_type, pooling=pooling)
    texts = [tokens_of(length) for length in LENGTHS]
    with closing(ollamacore.Model.load(path, threads=2)) as model:
        found = model.embed(texts, normalize=False)
    reference = BertReference(path)
    exact = np.stack([pooled(reference.hidden(text), pooling) for text in texts])
    assert found.vectors.dtype == np.float32
    assert found.tokens == LENGTHS
    np.testing.assert_allclose(found.vectors, exact, atol=1e-4)


@pytest.mark.parametrize("pooling", [1, 2, 3])
def test_encoder_of_odd_width_equals_reference(tmp_path, pooling):
    path = tiny_bert(tmp_path / "m.gguf", n_embd=60, n_ff=101, pooling=pooling)
    texts = [tokens_of(length) for length in (1, 33, 150)]
    with closing(ollamacore.Model.load(path, threads=2)) as model:
        found = model.embed(texts, normalize=False)
    exact = np.stack([pooled(BertReference(path).hidden(text), pooling) for text in texts])
    np.testing.assert_allclose(found.vectors, exact, atol=1e-4)


@pytest.mark.parametrize("tensor_type", ["Q8_0", "Q4_0"])
def test_quantised_encoder_is_near_the_reference(tmp_path, tensor_type):
    path = tiny_bert(tmp_path / "m.gguf", tensor_type=tensor_type)
    texts = [tokens_of(length) for length in (5, 40)]
    with closing(ollamacore.Model.load(path, threads=2)) as model:
        found = model.embed(texts).vectors
    for vector, text in zip(found, texts, strict=True):
        exact = BertReference(path).hidden(text).mean(axis=0)
        assert vector @ exact / np.linalg.norm(exact) > 0.999


def test_heads_of_an_odd_width(tmp_path):
    path = tiny_bert(tmp_path / "m.gguf", n_embd=120, n_head=6, n_ff=200)
    text = tokens_of(50)
    with closing(ollamacore.Model.load(path, threads=2)) as model:
        found = model.embed([text], normalize=False).vectors[0]
    np.testing.assert_allclose(found, BertReference(path).hidden(text).mean(axis=0), atol=1e-4)


def test_same_bits_alone_and_in_a_batch(bert):
    texts = [tokens_of(1 + (37 * i) % 90) for i in range(64)]
    together = bert.embed(texts, normalize=False).vectors
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_array_equal(bert.embed([text], normalize=False).vectors[0], vector)


def test_same_bits_with_any_number_of_threads(tmp_path):
    path = tiny_bert(tmp_path / "m.gguf", tensor_type="F16")
    texts, found = [tokens_of(length) for length in LENGTHS], []
    for threads in (1, 2, 3):
        with closing(ollamacore.Model.load(path, threads=threads)) as model:
            found.append(model.embed(texts).vectors)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_order_of_texts_is_kept(bert):
    texts = ["the token", "a", "running, running!", ""]
    backwards = bert.embed(texts[::-1])
    found = bert.embed(texts)
    np.testing.assert_array_equal(found.vectors, backwards.vectors[::-1])
    assert found.tokens == backwards.tokens[::-1]
    assert found.tokens[-1] == 2


def test_more_sequences_than_one_step_holds(bert):
    found = bert.embed([[5 + i % 40] for i in range(300)])
    np.testing.assert_array_equal(found.vectors[:40], found.vectors[200:240])


def test_nothing_to_embed(bert):
    found = bert.embed([])
    assert (found.vectors.shape, found.tokens) == ((0, 128), ())


def test_vectors_have_length_one(bert):
    vectors = bert.embed(["a b", "the"]).vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_dimensions_cut_and_normalise_again(bert):
    whole = bert.embed(["the token"]).vectors[0]
    cut = bert.embed(["the token"], dimensions=10).vectors[0]
    np.testing.assert_allclose(cut, whole[:10] / np.linalg.norm(whole[:10]), rtol=1e-5)
    assert bert.embed(["the token"], dimensions=1000).vectors.shape == (1, 128)


def test_long_text_loses_its_end_and_keeps_the_last_special_token(bert):
    text = "a " * 600
    found = bert.embed([text])
    assert found.tokens == (512,)
    cls, sep = VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]")
    same = bert.embed([[cls, *[VOCABULARY.index("a")] * 510, sep]])
    np.testing.assert_array_equal(found.vectors, same.vectors)
    assert bert.embed([text], num_ctx=20).tokens == (20,)


def test_long_text_is_an_error_without_truncate(bert):
    with pytest.raises(ContextLengthError):
        bert.embed(["a", "a " * 511], truncate=False)
    assert bert.embed(["a " * 510], truncate=False).tokens == (512,)


def test_no_room_beside_the_special_tokens(bert):
    with pytest.raises(ContextLengthError):
        bert.embed(["a"], num_ctx=2)


def test_text_without_tokens_is_refused(bert):
    with pytest.raises(InvalidPromptError):
        bert.embed([[]])


def test_token_outside_the_vocabulary_is_refused(bert):
    with pytest.raises(ollamacore.OllamaCoreError, match="vocabulary"):
        bert.embed([[5, 99999]])
    assert bert.kv_blocks_free == 512 // 32 + 128


def test_encoder_does_not_generate(bert):
    with pytest.raises(InvalidOptionError, match="embeddings"):
        bert.generate("the")


def test_reranker_is_refused(tmp_path):
    path = tiny_bert(tmp_path / "m.gguf", pooling=4)
    with closing(ollamacore.Model.load(path)) as model, pytest.raises(UnsupportedModelError, match="pooling"):
        model.embed(["a"])


def test_cancelled_call_ends(bert):
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(ClosedError):
        bert.embed(["a"], cancel=cancel)


def test_missing_bias_names_the_tensor(tmp_path):
    path = tiny_bert(tmp_path / "m.gguf")
    data = path.read_bytes().replace(b"token_embd_norm.bias", b"token_embd_norm.bios")
    path.write_bytes(data)
    with pytest.raises(ollamacore.InvalidFileError, match=r"token_embd_norm\.bias"):
        ollamacore.Model.load(path)


# ---- generative models ----


@pytest.fixture(scope="module")
def llama_path(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("llama") / "m.gguf", "llama")


def test_generative_model_gives_the_state_of_its_last_token(llama_path):
    texts = [[(7 * i + n) % 300 for i in range(n)] for n in (1, 5, 300)]
    with closing(ollamacore.Model.load(llama_path, threads=2, kv_type="f32")) as model:
        found = model.embed(texts, normalize=False).vectors
    reference = Reference(llama_path)
    head = reference.weights["token_embd.weight"]
    for vector, text in zip(found, texts, strict=True):
        np.testing.assert_allclose(head @ vector, reference.logits(text)[-1], atol=2e-3)


def test_generative_model_embeds_beside_a_generation(llama_path):
    texts = [[(11 * i + n) % 300 for i in range(20 + n)] for n in range(30)]
    with closing(ollamacore.Model.load(llama_path, threads=2)) as model:
        alone = model.embed(texts).vectors
        stream = iter(model.generate([5, 6, 7], temperature=0.0, num_predict=400))
        next(stream)
        np.testing.assert_array_equal(model.embed(texts).vectors, alone)
        stream.close()


def test_cancelled_call_of_a_generative_model_leaves_nothing(llama_path):
    cancel = threading.Event()
    cancel.set()
    with closing(ollamacore.Model.load(llama_path, threads=2)) as model:
        with pytest.raises(ClosedError):
            model.embed([[1, 2, 3]] * 20, cancel=cancel)
        assert model.embed([[1, 2, 3]]).vectors.shape == (1, 128)
        assert model.counts == (0, 0)


# ---- the real model ----


@pytest.fixture(scope="module")
def reference():
    return json.loads(REFERENCE.read_text())


@pytest.fixture(scope="module")
def minilm(minilm_path):
    with closing(ollamacore.Model.load(minilm_path, threads=2)) as model:
        yield model


@pytest.mark.model
def test_minilm_equals_transformers(minilm, reference):
    found = minilm.embed(reference["sentences"])
    assert [minilm.tokenize(text) for text in reference["sentences"]] == reference["token_ids"]
    cosine = (found.vectors * np.array(reference["embeddings"])).sum(axis=1)
    assert cosine.min() > 0.99999  # what is left is the rounding of the weights to F16


@pytest.mark.model
def test_minilm_equals_float64(minilm, minilm_path, reference):
    exact = BertReference(minilm_path)
    found = minilm.embed(reference["sentences"][:8], normalize=False)
    for vector, ids in zip(found.vectors, reference["token_ids"], strict=False):
        np.testing.assert_allclose(vector, exact.hidden(ids).mean(axis=0), atol=1e-5)


@pytest.mark.model
def test_minilm_cuts_a_text_of_513_tokens(minilm):
    text = "cat " * 511
    assert len(minilm.tokenize(text)) == 513
    assert minilm.embed([text]).tokens == (512,)
    with pytest.raises(ContextLengthError):
        minilm.embed([text], truncate=False)
