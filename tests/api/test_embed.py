"""Embeddings through the official Python client, with a real encoder and beside a model that chats."""

import numpy as np
import ollama
import pytest

from server.models.engine import LocalLoader
from tests.server.live import LiveServer

pytestmark = [pytest.mark.client, pytest.mark.model]


@pytest.fixture(scope="module")
def client(tmp_path_factory, minilm_path, smollm2_path):
    with LiveServer(tmp_path_factory.mktemp("models"), LocalLoader(2)) as server:
        server.add_model("all-minilm", minilm_path)
        server.add_model("smollm2", smollm2_path)
        made = ollama.Client(host=server.url)
        yield made
        made._client.close()


def test_embed(client):
    texts = ["Why is the sky blue?", "What makes the sky look blue?", "Invoice number 17 is overdue."]
    answer = client.embed(model="all-minilm", input=texts)
    vectors = np.array(answer.embeddings)
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    assert vectors[0] @ vectors[1] > 0.8 > 0.3 > vectors[0] @ vectors[2]
    assert answer.model == "all-minilm"
    assert answer.prompt_eval_count == 8 + 9 + 11
    assert answer.total_duration >= answer.load_duration > 0
    one = client.embed(model="all-minilm", input=texts[0])
    assert one.embeddings == answer.embeddings[:1]


def test_embed_with_fewer_dimensions(client):
    whole = np.array(client.embed(model="all-minilm", input="sky").embeddings[0])
    cut = np.array(client.embed(model="all-minilm", input="sky", dimensions=100).embeddings[0])
    np.testing.assert_allclose(cut, whole[:100] / np.linalg.norm(whole[:100]), atol=1e-6)


def test_embed_of_a_long_text(client):
    text = "cat " * 600
    assert client.embed(model="all-minilm", input=text).prompt_eval_count == 512
    with pytest.raises(ollama.ResponseError, match="the input length exceeds the context length") as error:
        client.embed(model="all-minilm", input=text, truncate=False)
    assert error.value.status_code == 400


def test_embeddings_are_as_long_as_the_model_makes_them(client):
    old = np.array(client.embeddings(model="all-minilm", prompt="sky").embedding)
    new = np.array(client.embed(model="all-minilm", input="sky").embeddings[0])
    assert abs(np.linalg.norm(old) - 1) > 0.1
    np.testing.assert_allclose(old / np.linalg.norm(old), new, atol=1e-6)


def test_generative_model_embeds(client):
    vectors = np.array(client.embed(model="smollm2", input=["the sky is blue", "the sky looks blue"]).embeddings)
    assert vectors.shape == (2, 576)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_encoder_says_what_it_can_do(client):
    assert client.show("all-minilm").capabilities == ["embedding"]
    with pytest.raises(ollama.ResponseError, match='"all-minilm" does not support generate'):
        client.generate(model="all-minilm", prompt="hi")
    with pytest.raises(ollama.ResponseError, match='"all-minilm" does not support chat'):
        client.chat(model="all-minilm", messages=[{"role": "user", "content": "hi"}])
