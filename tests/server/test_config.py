"""Settings from the environment."""

import logging
from pathlib import Path

import pytest

from server.config import Config, parse_host
from server.times import FOREVER, SECOND


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ("127.0.0.1", 11434)),
        ("1.2.3.4", ("1.2.3.4", 11434)),
        ("1.2.3.4:5", ("1.2.3.4", 5)),
        (":1234", ("", 1234)),
        ("0.0.0.0", ("0.0.0.0", 11434)),
        ("localhost:0", ("localhost", 0)),
        ("example.com", ("example.com", 11434)),
        ("http://1.2.3.4", ("1.2.3.4", 80)),
        ("https://1.2.3.4", ("1.2.3.4", 443)),
        ("http://1.2.3.4:9/path/x", ("1.2.3.4", 9)),
        ("example.com/path", ("example.com", 11434)),
        ("[::1]", ("::1", 11434)),
        ("[::1]:1234", ("::1", 1234)),
        ("::1", ("::1", 11434)),
        ("1.2.3.4:66000", ("1.2.3.4", 11434)),
        ("1.2.3.4:x", ("1.2.3.4", 11434)),
        ("1.2.3.4:-1", ("1.2.3.4", 11434)),
        ("https://1.2.3.4:x", ("1.2.3.4", 443)),
    ],
)
def test_parse_host_of_every_form(value, expected):
    assert parse_host(value) == expected


def test_from_env_trims_spaces_and_quotes():
    config = Config.from_env({"OLLAMA_HOST": ' "0.0.0.0:99" ', "OLLAMA_ORIGINS": "'a://*, \"b\" ,,'"})
    assert (config.host, config.port) == ("0.0.0.0", 99)
    assert config.origins == ("a://*", "b")


def test_from_env_of_nothing_gives_the_defaults():
    config = Config.from_env({})
    assert (config.host, config.port, config.context_length) == ("127.0.0.1", 11434, 4096)
    assert config.keep_alive_ns == 300 * SECOND
    assert config.models.name == "models"
    assert config.models.is_absolute()
    assert config.threads is None


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        ("10m", 600 * SECOND),
        ("90", 90 * SECOND),
        ("-1", FOREVER),
        ("-2h", FOREVER),
        ("0", 0),
        ("1.5s", SECOND * 3 // 2),
        ("999999999999", FOREVER),
    ],
)
def test_keep_alive_takes_durations_and_seconds(value, ns):
    assert Config.from_env({"OLLAMA_KEEP_ALIVE": value}).keep_alive_ns == ns


@pytest.mark.parametrize("name", ["OLLAMA_CONTEXT_LENGTH", "OLLAMA_MAX_QUEUE", "OLLAMA_KEEP_ALIVE"])
def test_from_env_of_nonsense_warns_and_uses_the_default(name, caplog):
    with caplog.at_level(logging.WARNING):
        assert Config.from_env({name: "lots"}) == Config.from_env({})
    assert name in caplog.text


@pytest.mark.parametrize(
    ("value", "kind", "warns"),
    [("", "f16", False), ("f16", "f16", False), ("Q8_0", "q8_0", False), ("f32", "f32", False), ("q4_0", "q8_0", True),
     ("lots", "f16", True)],
)
def test_kv_cache_type(value, kind, warns, caplog):
    with caplog.at_level(logging.WARNING):
        assert Config.from_env({"OLLAMA_KV_CACHE_TYPE": value}).kv_type == kind
    assert ("OLLAMA_KV_CACHE_TYPE" in caplog.text) is warns


@pytest.mark.parametrize(("value", "level"), [("", 0), ("0", 0), ("false", 0), ("1", 1), ("true", 1), ("2", 2)])
def test_debug_is_a_level_or_a_word(value, level):
    assert Config.from_env({"OLLAMA_DEBUG": value}).debug == level


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("", False),
        ("192.168.0.2", False),
        ("example.com", False),
    ],
)
def test_is_loopback(host, expected):
    assert Config(host=host).is_loopback is expected


def test_noprune_keeps_unused_blobs():
    assert Config.from_env({}).prune is True
    assert Config.from_env({"OLLAMA_NOPRUNE": "1"}).prune is False


@pytest.mark.parametrize(
    ("value", "folder"),
    [("", None), ("0", None), ("1", "/m/ollamacore/packed"), ("/fast/disk", "/fast/disk")],
)
def test_packed_cache_is_a_switch_or_a_folder(value, folder):
    config = Config.from_env({"OLLAMA_MODELS": "/m", "OLLAMACORE_PACKED_CACHE": value})
    assert config.packed_cache == (None if folder is None else Path(folder))


@pytest.mark.parametrize(
    ("value", "size"),
    [("", None), ("1000", 1000), ("2k", 2000), ("1.5GiB", 3 << 29), ("512 MB", 512_000_000), ("x", None), ("-1", None)],
)
def test_memory_is_a_size(value, size):
    assert Config.from_env({"OLLAMACORE_MEMORY": value}).memory == size
    assert Config.from_env({"OLLAMACORE_KV_MEMORY": value}).kv_bytes == size


@pytest.mark.parametrize(("value", "seconds"), [("", 300), ("90", 90), ("1m", 60), ("0", None), ("-1", None)])
def test_load_timeout_is_a_duration_or_none(value, seconds):
    assert Config.from_env({"OLLAMA_LOAD_TIMEOUT": value}).load_timeout_s == seconds
