"""The prefix cache: what is found again, what is given back, and that nobody can tell from the text."""

from array import array

import pytest

import ollamacore
from ollamacore import SamplingOptions, _core
from ollamacore.arch import build_plan
from ollamacore.gguf import GGUFFile
from ollamacore.prefix import PrefixCache
from tests.generate.tiny import tiny_model

VOCABULARY = 384
PROMPT = [(7 * i + 3) % 250 + 3 for i in range(150)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("prefix") / "tiny.gguf", "gemma3", tensor_type="Q8_0")


@pytest.fixture
def model(path):
    with ollamacore.load(path, threads=2) as model:
        yield model


@pytest.fixture
def engine(path):
    plan = build_plan(GGUFFile.open(path))
    engine = _core.Engine(
        n_threads=1, max_tokens=64, max_outputs=1, max_seqs=4, kv=plan.kv,
        kv_type="f16", kv_blocks=16,
    )  # fmt: skip
    plan.install(engine)
    engine.load()
    return engine


def computed(engine, tokens):
    sequence = _core.Sequence(engine)
    for start in range(0, len(tokens), 64):
        assert engine.step([(sequence, array("i", tokens[start : start + 64]), 0)]) == _core.STEP_OK
    return sequence


def taken(cache, engine, tokens):
    """Cached tokens of a prompt, and their blocks."""
    sequence = _core.Sequence(engine)
    cache.take(array("i", tokens), sequence)
    try:
        return len(sequence), list(sequence.blocks())
    finally:
        sequence.close()


def test_longest_prefix_is_taken(engine):
    cache = PrefixCache(engine, limit=16)
    sequence = computed(engine, PROMPT[:100])
    blocks = list(sequence.blocks())
    cache.add(array("i", PROMPT[:100]), sequence, ended=False)
    assert (len(blocks), len(cache)) == (4, 3)
    assert taken(cache, engine, PROMPT) == (96, blocks[:3])
    cache.add(array("i", PROMPT[:100]), sequence, ended=True)
    assert len(cache) == 4
    assert taken(cache, engine, PROMPT) == (100, blocks), "the last block, which is filled in part"
    assert taken(cache, engine, PROMPT[:96]) == (95, blocks[:3]), "one token must be left to compute"
    assert taken(cache, engine, PROMPT[:97]) == (96, blocks[:3])
    assert taken(cache, engine, PROMPT[:70] + [9] * 30) == (70, blocks[:3]), "what agrees of a block"
    assert taken(cache, engine, [9, *PROMPT]) == (0, [])


def test_longer_block_takes_the_place_of_its_beginning(engine):
    cache = PrefixCache(engine, limit=16)
    for length in (40, 50, 45, 96):
        sequence = computed(engine, PROMPT[:length])
        cache.add(array("i", PROMPT[:length]), sequence, ended=True)
        sequence.close()
    assert (len(cache), engine.kv_blocks_free) == (3, 13)
    assert taken(cache, engine, PROMPT)[0] == 96


def test_prefix_below_a_block_is_not_kept(engine):
    cache = PrefixCache(engine, limit=16)
    cache.add(array("i", PROMPT[:31]), computed(engine, PROMPT[:31]), ended=True)
    assert len(cache) == 0


def test_tokens_after_a_shared_part_of_a_block_leave_it_as_it_was(engine):
    cache = PrefixCache(engine, limit=16)
    first = computed(engine, PROMPT[:60])
    cache.add(array("i", PROMPT[:60]), first, ended=True)
    first.close()
    for tail in ([9] * 10, [8] * 10):
        prompt = PROMPT[:50] + tail
        sequence = _core.Sequence(engine)
        cache.take(array("i", prompt), sequence)
        assert len(sequence) == 50
        assert engine.step([(sequence, array("i", tail), 0)]) == _core.STEP_OK
        assert logits(engine, sequence, 5) == logits(engine, computed(engine, prompt), 5)
    again = _core.Sequence(engine)
    cache.take(array("i", PROMPT[:61]), again)
    assert logits(engine, again, PROMPT[60]) == logits(engine, computed(engine, PROMPT[:60]), PROMPT[60])


def test_blocks_outlive_their_sequence_until_reclaimed(engine):
    cache = PrefixCache(engine, limit=16)
    sequence = computed(engine, PROMPT[:100])
    cache.add(array("i", PROMPT[:100]), sequence, ended=False)
    assert cache.reclaimable == 0
    assert cache.reclaim(3) == 0, "blocks in use stay"
    sequence.close()
    assert (engine.kv_blocks_free, cache.reclaimable) == (13, 3)
    assert cache.reclaim(1) == 1
    assert taken(cache, engine, PROMPT)[0] == 64, "the end of the path goes first"
    assert cache.reclaim(10) == 2
    assert engine.kv_blocks_free == 16


def test_least_recently_used_goes_first(engine):
    cache = PrefixCache(engine, limit=16)
    old, new = PROMPT[:40], [9, *PROMPT[:40]]
    for tokens in (old, new):
        sequence = computed(engine, tokens)
        cache.add(array("i", tokens), sequence, ended=False)
        sequence.close()
    taken(cache, engine, old)
    assert cache.reclaim(1) == 1
    assert (taken(cache, engine, old)[0], taken(cache, engine, new)[0]) == (32, 0)


def test_limit_holds(engine):
    cache = PrefixCache(engine, limit=4)
    for first in range(5):
        tokens = [first + 3, *PROMPT[:64]]
        sequence = computed(engine, tokens)
        cache.add(array("i", tokens), sequence, ended=False)
        sequence.close()
    assert len(cache) <= 4 + 2
    cache.clear()
    assert (len(cache), engine.kv_blocks_free) == (0, 16)


def logits(engine, sequence, token):
    assert engine.step([(sequence, token, 1)]) == _core.STEP_OK
    found = memoryview(bytearray(4 * VOCABULARY)).cast("f")
    engine.copy_logits(0, found)
    return found


def test_shared_partial_block_is_copied_before_it_grows(engine):
    first = computed(engine, PROMPT[:64])
    second = _core.Sequence(engine)
    second.share(first.blocks())
    second.truncate(40)
    assert engine.kv_blocks_free == 14
    assert engine.step([(second, array("i", [9] * 10), 0)]) == _core.STEP_OK
    assert engine.kv_blocks_free == 13
    assert logits(engine, second, 5) == logits(engine, computed(engine, PROMPT[:40] + [9] * 10), 5)
    assert logits(engine, first, 7) == logits(engine, computed(engine, PROMPT[:64]), 7)


@pytest.mark.parametrize("blocks", [[16], [-1], [5]])
def test_foreign_blocks_are_refused(engine, blocks):
    sequence = _core.Sequence(engine)
    with pytest.raises(ollamacore.InvalidOptionError):
        sequence.share(array("i", blocks))
    with pytest.raises(ollamacore.InvalidOptionError):
        engine.retain_block(blocks[0])


def test_texts_are_the_same_with_and_without_a_cached_prefix(path, model):
    options = SamplingOptions(seed=11, num_predict=20)
    histories = [PROMPT[:n] for n in (150, 100, 64, 65, 33)]
    with ollamacore.load(path, threads=1) as fresh:
        expected = [fresh.generate(history, options).text() for history in histories[:1]]
    for history in histories:
        with ollamacore.load(path, threads=1) as fresh:
            cold = fresh.generate(history, options)
            text = cold.text()
            assert cold.stats.cached_tokens == 0
        warm = model.generate(history, options)
        assert warm.text() == text
    assert expected[0] == model.generate(histories[0], options).text()


def test_second_turn_computes_its_new_tokens_only(model):
    first = model.generate(PROMPT, seed=1, num_predict=30)
    answer = [token for chunk in first for token in chunk.tokens]
    second = model.generate([*PROMPT, *answer, 5, 6, 7], seed=1, num_predict=1)
    second.text()
    assert first.stats.cached_tokens == 0
    assert second.stats.prompt_tokens == len(PROMPT) + len(answer) + 3
    assert second.stats.cached_tokens == len(PROMPT) + len(answer) - 1


def test_prefix_is_shared_while_its_first_user_runs(model):
    running = iter(model.generate(PROMPT, seed=1, num_predict=100000))
    next(running)
    second = model.generate(PROMPT, seed=1, num_predict=1)
    second.text()
    assert second.stats.cached_tokens == 128
    running.close()


def test_full_pool_gives_cached_blocks_back(path):
    options = SamplingOptions(seed=3, num_predict=8)
    prompts = [[5 + i] * 120 for i in range(8)]
    with ollamacore.load(path) as model:
        block = model._engine.kv_bytes // model.kv_blocks_free
        expected = [model.generate(prompt, options).text() for prompt in prompts]
    with ollamacore.load(path, kv_bytes=10 * block, context=200) as model:
        free = model.kv_blocks_free
        assert [model.generate(prompt, options).text() for prompt in prompts] == expected
        generations = [model.generate(prompt, options) for prompt in prompts]
        assert [generation.text() for generation in generations] == expected
        assert model.kv_blocks_free == free
