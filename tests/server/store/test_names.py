"""Model names: Ollama's grammar, defaults and display; no name leads out of the store."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.store.errors import InvalidNameError
from server.store.names import ModelName

FIRST = "abcXYZ019_"
NAMESPACE = st.text(FIRST + "-", max_size=79).flatmap(lambda t: st.sampled_from(FIRST).map(lambda c: c + t))
MODEL = st.text(FIRST + "-.", max_size=79).flatmap(lambda t: st.sampled_from(FIRST).map(lambda c: c + t))
HOST = st.text(FIRST + "-.:", max_size=349).flatmap(lambda t: st.sampled_from(FIRST).map(lambda c: c + t))


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("smollm2", "registry.ollama.ai/library/smollm2:latest"),
        ("smollm2:135m", "registry.ollama.ai/library/smollm2:135m"),
        ("me/smollm2:135m", "registry.ollama.ai/me/smollm2:135m"),
        ("hf.co/user/repo.GGUF:Q4_K_M", "hf.co/user/repo.GGUF:Q4_K_M"),
        ("localhost:5000/ns/m", "localhost:5000/ns/m:latest"),
        ("localhost:5000/ns/m:tag", "localhost:5000/ns/m:tag"),
        ("http://localhost:5000/ns/m:tag", "localhost:5000/ns/m:tag"),
        ("https://registry.ollama.ai/library/m", "registry.ollama.ai/library/m:latest"),
        ("_x", "registry.ollama.ai/library/_x:latest"),
        ("a..b", "registry.ollama.ai/library/a..b:latest"),
        ("m" * 80, f"registry.ollama.ai/library/{'m' * 80}:latest"),
    ],
)
def test_parse_fills_in_defaults(text, full):
    assert ModelName.parse(text).full == full


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "/", ":tag", "m:", "/m", "a//m", "a/m/", ".m", "-m", "m:.t", "m:-t", "..", "../m",
        "a/../m", "../../../etc/passwd", "a/b/c/d", "h/n.s/m", "n.s/m", "localhost:5000/m", "m m", " m", "m ",
        "m\n", "m\0", "mödel", "m\u0660", "m:t:u", "a\\b", "ftp://h/n/m", "https:/m", "m" * 81,
        "m:" + "t" * 81, "n" * 81 + "/m", "h" * 351 + "/n/m", "m@sha256:" + "0" * 64, "%2e%2e/m", "C:\\m",
        "~", "m?x", "m#x", "m*",
    ],
)  # fmt: skip
def test_parse_refuses(text):
    with pytest.raises(InvalidNameError, match="invalid model name"):
        ModelName.parse(text)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("m", "m:latest"),
        ("library/m", "m:latest"),
        ("LIBRARY/M:T", "M:T"),
        ("Registry.Ollama.AI/library/m", "m:latest"),
        ("me/m", "me/m:latest"),
        ("hf.co/library/m", "hf.co/library/m:latest"),
    ],
)
def test_short_drops_only_defaults(text, short):
    assert ModelName.parse(text).short == short
    assert str(ModelName.parse(text)) == short


def test_key_ignores_case():
    assert ModelName.parse("HF.co/Me/Model:Q4").key == ModelName.parse("hf.CO/me/mODEL:q4").key
    assert ModelName.parse("m:a").key != ModelName.parse("m:b").key


@given(HOST, NAMESPACE, MODEL, MODEL)
def test_parse_gives_back_every_valid_name(host, namespace, model, tag):
    name = ModelName.parse(f"{host}/{namespace}/{model}:{tag}")
    assert name.parts == (host, namespace, model, tag)
    assert ModelName.parse(name.short).key == name.key


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("./:\\-_a~\0")), max_size=120))
def test_every_accepted_name_stays_under_the_store(text):
    try:
        name = ModelName.parse(text)
    except InvalidNameError:
        return
    base = Path("/models/manifests")
    path = base.joinpath(*name.parts)
    assert path.relative_to(base).parts == name.parts
    assert not {".", ".."} & set(name.parts)
    assert text.isascii()
