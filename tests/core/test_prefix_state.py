"""Prefixes of models with recurrent state: where states are kept, what they save, and that no text depends on them."""

from dataclasses import replace

import pytest

import ollamacore
from ollamacore import SamplingOptions, memory
from ollamacore.memory import LEAST_PREFIXES
from ollamacore.prefix import BLOCK, TAIL
from ollamacore.prefix_store import PrefixStore
from tests.generate.recurrent import recurrent_model

PROMPT = [(7 * i * i + 5 * i + 3) % 340 + 3 for i in range(150)]
#: where the state of a prompt of 150 tokens is kept
MARK = (len(PROMPT) - 1 - TAIL) // BLOCK * BLOCK


@pytest.fixture(scope="module", params=["lfm2", "qwen35", "mamba2"])
def path(request, tmp_path_factory):
    return recurrent_model(tmp_path_factory.mktemp("prefix") / "m.gguf", request.param, "Q8_0")


@pytest.fixture
def model(path):
    with ollamacore.load(path, threads=2, context=512) as model:
        yield model
        engine = model._engine
        model._scheduler.call(lambda _: model._scheduler._prefixes.clear())
        assert engine.kv_blocks_free == model.state.kv_blocks
        assert engine.states_saved == 0, "nothing is lost"


OPTIONS = SamplingOptions(temperature=0.7, seed=3, logit_bias={0: -100.0}, num_predict=12)
ONE = replace(OPTIONS, num_predict=1)


def answer(model, prompt, options=OPTIONS):
    """The tokens of a continuation and its statistics."""
    generation = model.generate(prompt, options)
    tokens = [token for chunk in generation for token in chunk.tokens]
    return tokens, generation.stats


def fresh(path, prompt, options=OPTIONS):
    """What a model that has seen nothing answers."""
    with ollamacore.load(path, threads=1, context=512) as model:
        return answer(model, prompt, options)[0]


def test_next_turn_computes_only_what_is_new(path, model):
    first, stats = answer(model, PROMPT)
    assert stats.cached_tokens == 0
    conversation = PROMPT + first + [9, 8, 7]
    second, stats = answer(model, conversation)
    assert stats.cached_tokens == len(PROMPT) + len(first) - 1, "the last token of an answer is not computed"
    assert second == fresh(path, conversation)
    third = conversation + second + [5, 4]
    assert answer(model, third)[1].cached_tokens == len(conversation) + len(second) - 1
    assert answer(model, conversation)[1].cached_tokens == len(PROMPT) + len(first) - 1, "the first turn's end is kept"


def test_same_prompt_starts_near_its_end(path, model):
    first, _ = answer(model, PROMPT)
    again, stats = answer(model, PROMPT)
    assert (again, stats.cached_tokens) == (first, MARK)
    changed = [*PROMPT[:-3], 11, 12, 13]
    tokens, stats = answer(model, changed)
    assert (tokens, stats.cached_tokens) == (fresh(path, changed), MARK)


def test_start_that_prompts_share_is_kept_when_the_second_leaves_it(path, model):
    prompts = [PROMPT[:100] + [number] * 60 for number in (20, 30, 40)]
    cached = []
    for prompt in prompts:
        tokens, stats = answer(model, prompt)
        assert tokens == fresh(path, prompt)
        cached.append(stats.cached_tokens)
    assert cached == [0, 0, 96]


def test_without_a_state_nothing_is_taken(model):
    answer(model, PROMPT[:60])
    assert answer(model, PROMPT)[1].cached_tokens == 0, "a short prompt has none but at its end"


def test_state_that_was_not_used_for_longest_makes_room(path, monkeypatch):
    monkeypatch.setattr(memory, "PREFIX_STATES", 0)
    ends = []
    with ollamacore.load(path, context=512) as model:
        for number in range(LEAST_PREFIXES + 2):
            prompt = [number + 3, *PROMPT[:60]]
            ends.append(prompt + answer(model, prompt)[0])
            answer(model, ends[0], ONE)  # keeps being used
        cached = [answer(model, [*end, 9], ONE)[1].cached_tokens > 0 for end in (ends[-1], ends[0], ends[1])]
        assert model._engine.states_saved == LEAST_PREFIXES
    assert cached == [True, True, False]


def test_prompts_side_by_side_answer_as_alone(path, model):
    prompts = [PROMPT[shift:] + PROMPT[:shift] for shift in (0, 10, 20)]
    running = [model.generate(prompt, OPTIONS) for prompt in prompts]
    together = [[token for chunk in generation for token in chunk.tokens] for generation in running]
    assert together == [fresh(path, prompt) for prompt in prompts]


def test_full_context_goes_on_from_what_is_kept(path, model):
    greedy = SamplingOptions(temperature=0.0, repeat_penalty=1.0, logit_bias={0: -100.0}, num_ctx=64, num_keep=8)
    generation = model.generate(PROMPT[:40], greedy, num_predict=50)
    tokens = [token for chunk in generation for token in chunk.tokens]
    assert generation.stats.context_shifts == 1
    whole = PROMPT[:40] + tokens[:25]  # one more than the context holds
    rest = fresh(path, whole[:8] + whole[-28:], options=replace(greedy, num_predict=25))
    assert tokens[25:] == rest


def test_no_draft_is_made(model):
    assert answer(model, [7, 8, 9] * 40)[1].drafted_tokens == 0


def test_nothing_is_kept_on_disk(path, tmp_path):
    """Blocks are of no use without a state."""
    with ollamacore.load(path, context=512, prefix_store=PrefixStore(tmp_path / "prefixes", 1 << 30)) as model:
        answer(model, PROMPT)
    assert not (tmp_path / "prefixes").exists()


def test_memory_of_states_is_known_before_the_load(path):
    needed = ollamacore.Model.memory_needed(path, context=512)
    with ollamacore.load(path, context=512, memory=needed) as model:
        assert model._engine.state_bytes > 0
        assert needed - (12 << 20) < model.reserved_bytes <= needed
        assert model.sequences(32) == model._engine.max_seqs
