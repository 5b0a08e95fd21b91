"""Reranking: a tiny encoder with a random head against a float64 computation of the same file."""

from contextlib import closing

import numpy as np
import pytest

import ollamacore
from ollamacore import ContextLengthError, InvalidFileError, Tokenizer, UnsupportedModelError
from ollamacore.rerank import PairTokenizer
from tests.core.vocabularies import CONTROL, bpe
from tests.generate.bert import BertReference, tiny_bert
from tests.generate.decoders import RANK_TEMPLATE, tiny_decoder
from tests.generate.encoders import RANK, tiny_encoder

DOCUMENTS = ["the token", "a running tokenizer, running.", "", "token " * 60]


def loaded(path):
    return closing(ollamacore.Model.load(path, threads=2))


def pairs_of(model, query, documents, limit=512):
    """[CLS] query [SEP] document [SEP], the end of a long document cut off."""
    first = model.tokenize(query)
    return [[*first, *model.tokenize(text)[1:-1]][: limit - 1] + first[-1:] for text in documents]


@pytest.mark.parametrize(("tensor_type", "labels"), [("F32", 1), ("F16", 2)])
def test_scores_equal_the_reference(tmp_path, tensor_type, labels):
    path = tiny_bert(tmp_path / "m.gguf", tensor_type=tensor_type, pooling=4, labels=labels)
    with loaded(path) as model:
        found = model.rerank("the token?", DOCUMENTS)
        pairs = pairs_of(model, "the token?", DOCUMENTS)
    exact = [BertReference(path).relevance(ids) for ids in pairs]
    np.testing.assert_allclose(found.relevance, exact, atol=1e-5)
    assert found.tokens == tuple(map(len, pairs))
    assert np.ptp(exact) > 0.05


def test_a_score_depends_on_its_pair_alone(tmp_path):
    with loaded(tiny_bert(tmp_path / "m.gguf", pooling=4, labels=1)) as model:
        together = model.rerank("run", DOCUMENTS).relevance
        assert [model.rerank("run", [text]).relevance[0] for text in DOCUMENTS] == list(together)


def test_a_long_document_loses_its_end(tmp_path):
    path = tiny_bert(tmp_path / "m.gguf", pooling=4, labels=1)
    with loaded(path) as model:
        found = model.rerank("run", [DOCUMENTS[3]], num_ctx=20)
        [cut] = pairs_of(model, "run", [DOCUMENTS[3]], limit=20)
        with pytest.raises(ContextLengthError, match="the query has"):
            model.rerank("token " * 30, ["run"], num_ctx=20)
    assert found.tokens == (20,)
    assert found.relevance[0] == pytest.approx(BertReference(path).relevance(cut), abs=1e-5)


def test_a_second_separator_stands_between_the_texts_where_the_model_has_it():
    special = [("<s>", CONTROL), ("</s>", CONTROL), ("<sep>", CONTROL)]
    ids = {"bos_token_id": 256, "eos_token_id": 257, "seperator_token_id": 258}
    ids |= {"add_bos_token": True, "add_eos_token": True}
    for keys, between in (({}, [257]), ({"add_sep_token": True}, [257, 258])):
        file = bpe(special=special, **ids, **keys)
        pairs = PairTokenizer(file, Tokenizer.from_gguf(file))
        assert list(pairs.pair("a", "bc", 64)) == [256, 97, *between, 98, 99, 257]
        assert list(pairs.pair("a", "bc", 5 + len(between) - 1)) == [256, 97, *between, 98, 257]


@pytest.mark.parametrize(("name", "separators"), [("xlm-roberta-rank", 2), ("modern-bert-rank", 1)])
def test_separators_between_query_and_document(tmp_path, name, separators):
    with loaded(tiny_encoder(tmp_path / "m.gguf", name, pooling=RANK)) as model:
        bos, *query, eos = model.tokenize("a query")
        text = model.tokenize("a document", add_special=False)
        whole = [bos, *query, *[eos] * separators, *text, eos]
        assert list(model._pairs.pair("a query", "a document", 64)) == whole
        assert list(model._pairs.pair("a query", "a document", len(whole) - 4)) == [*whole[:-5], eos]
        room = len(whole) - len(text) + 1
        assert list(model._pairs.pair("a query", "a document", room)) == [*whole[: room - 1], eos]
        with pytest.raises(ContextLengthError, match="the query has"):
            model._pairs.pair("a query", "a document", room - 1)


def test_a_generative_model_scores_by_its_labels(tmp_path):
    path, labels = tiny_decoder(tmp_path / "m.gguf", "qwen3", labels=(40, 70)), [40, 70]
    documents = ["{query}", "another one", "", "x" * 99]
    with closing(ollamacore.Model.load(path, threads=2, kv_type="f32")) as model:
        found = model.rerank("a {document}?", documents)
        prompts = [
            RANK_TEMPLATE.split("{document}")[0].replace("{query}", "a {document}?") + text + ">?"
            for text in documents
        ]
        pairs = [model.tokenize(text) for text in prompts]
        pairs[-1] = pairs[-1][:62] + model.tokenize(">?")
        logits = np.stack([model.logits(pair)[0][labels] for pair in pairs]).astype(np.float64)
        with pytest.raises(ContextLengthError, match="the query has"):
            model.rerank("y" * 60, ["x"])
    assert found.tokens == tuple(map(len, pairs))
    np.testing.assert_allclose(found.relevance, 1 / (1 + np.exp(logits[:, 1] - logits[:, 0])), atol=1e-5)
    assert np.ptp(found.relevance) > 0.01


def test_a_template_without_a_document_is_refused(tmp_path):
    path = tiny_decoder(tmp_path / "m.gguf", "qwen3", labels=(40, 70))
    path.write_bytes(path.read_bytes().replace(b"<{document}>?", b"<{argument}>?"))
    with pytest.raises(InvalidFileError, match="document"):
        ollamacore.Model.load(path)


def test_a_model_without_a_head_is_refused(tmp_path):
    with loaded(tiny_bert(tmp_path / "m.gguf")) as model, pytest.raises(UnsupportedModelError, match="no head"):
        model.rerank("run", ["token"])
