"""Prompt lookup: the answer is the same with and without, however a draft ends; and drafts are made where they win."""

from array import array
from dataclasses import replace

import pytest

import ollamacore
from ollamacore._core import LONGEST_DRAFT, PromptLookup, StepCosts
from tests.generate.scripted import scripted_model
from tests.generate.tiny import tiny_model


def free():
    """Columns cost nothing, so every proposal is tried to its end."""
    return StepCosts(extra=0.0, weight=0.0)


def open_pair(path):
    """The same model without lookup, and with lookup that drafts whenever it can."""
    pair = ollamacore.load(path, threads=2, lookup=False), ollamacore.load(path, threads=2, lookup=True)
    pair[1]._scheduler._costs = free()
    return pair


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pair = open_pair(tiny_model(tmp_path_factory.mktemp("tiny") / "m.gguf", "llama", tensor_type="Q8_0"))
    yield pair
    for model in pair:
        model.close()


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    path = tmp_path_factory.mktemp("scripted") / "m.gguf"
    pair = open_pair(scripted_model(path, ["one ", "two ", "three ", "\u20ac", "four "], loop=True))
    yield pair
    for model in pair:
        model.close()


def outcome(model, prompt, **options):
    """Everything of a generation that anyone sees, but times; and what was drafted and accepted."""
    chunks = list(model.generate(prompt, **options))
    stats = replace(chunks[-1].stats, prompt_ns=0, eval_ns=0, cached_tokens=0, drafted_tokens=0, accepted_tokens=0)
    seen = [replace(chunk, stats=None) for chunk in chunks], stats
    return seen, chunks[-1].stats.drafted_tokens, chunks[-1].stats.accepted_tokens


def assert_same(pair, prompt, **options):
    without, drafted, accepted = outcome(pair[0], prompt, **options)
    assert drafted == accepted == 0
    found, drafted, accepted = outcome(pair[1], prompt, **options)
    assert found == without
    return drafted, accepted


REPEATED = [5, 6, 7, 8, 9, 10, 11, 12] * 4

OPTIONS = [
    {"temperature": 0.0},
    {"temperature": 0.8},
    {"temperature": 0.25},
    {"temperature": 0.3, "repeat_penalty": 1.1, "frequency_penalty": 0.1},
    {"temperature": 0.3, "dry_multiplier": 0.3, "dry_allowed_length": 4},
    {"temperature": 0.3, "mirostat": 1, "mirostat_tau": 1.0},
    {"temperature": 0.3, "mirostat": 2, "mirostat_tau": 1.0},
    {"temperature": 0.3, "xtc_probability": 0.3, "top_n_sigma": 2.0},
    {"temperature": 0.2, "logprobs": True, "top_logprobs": 3},
]


def test_answers_are_the_same_for_every_sampler(tiny):
    drafted = accepted = 0
    for options in OPTIONS:
        for seed in (1, 2):
            counts = assert_same(tiny, REPEATED, seed=seed, num_predict=80, **options)
            drafted, accepted = drafted + counts[0], accepted + counts[1]
    assert drafted > accepted > 10


@pytest.mark.parametrize("num_predict", range(8, 20))
def test_limit_in_the_middle_of_a_draft(scripted, num_predict):
    drafted, accepted = assert_same(scripted, "<|go|>", num_predict=num_predict, temperature=0.0)
    assert drafted == accepted


@pytest.mark.parametrize(
    "stop", ["wo three \u20acfour one two three \u20acfour one", "four one two three \u20acfour o"]
)
def test_stop_string_in_the_middle_of_a_draft(scripted, stop):
    prompts = ["<|go|>" + "one two three \u20acfour " * times + "<|go|>" for times in range(4)]
    assert sum(assert_same(scripted, prompt, stop=(stop * 2, stop))[1] for prompt in prompts) > 0


@pytest.mark.parametrize("num_ctx", [16, 23, 40])
def test_context_shift_in_the_middle_of_a_draft(tiny, scripted, num_ctx):
    assert assert_same(scripted, "<|go|>", num_ctx=num_ctx, num_predict=90)[1] > 0
    assert_same(tiny, REPEATED[:12], num_ctx=num_ctx, num_predict=90, temperature=0.2, seed=4)
    assert_same(scripted, "<|go|>", num_ctx=num_ctx, shift=False)


def test_end_token_in_the_middle_of_a_draft(tmp_path):
    pieces = [f"w{i} " for i in range(12)]
    pair = open_pair(scripted_model(tmp_path / "m.gguf", pieces))
    text = "".join(pieces)
    for repeated in (text, text + "<|endoftext|>"):
        assert_same(pair, "<|user|>" + repeated + "<|go|>")
    for model in pair:
        model.close()


def test_next_prompt_reuses_blocks_of_a_drafted_answer(scripted):
    model = scripted[1]
    tokens = model.tokenize("<|go|>")
    answer = [token for chunk in model.generate(tokens, num_predict=75) for token in chunk.tokens]
    follow_up = [*tokens, *answer]
    assert assert_same(scripted, follow_up, num_predict=40, temperature=0.5)[1] > 0


def test_streams_that_come_and_go_beside_each_other_stay_the_same(tiny):
    """Drafts begin and end as streams are alone or not."""
    lengths = (20, 90, 45, 70)
    options = [{"num_predict": n, "seed": i, "temperature": 0.3} for i, n in enumerate(lengths)]
    alone = [tiny[0].generate(REPEATED, **each).text() for each in options]
    together = [tiny[1].generate(REPEATED, **each) for each in options]
    assert [generation.text() for generation in together] == alone


def test_cancelled_draft_ends_its_generation(scripted):
    model = scripted[1]
    free = model.kv_blocks_free
    chunks = []

    def receive(chunk):
        chunks.append(chunk)
        if len(chunks) == 30:
            generation.cancel()
        if chunk.done_reason:
            done.append(chunk.done_reason)

    done = []
    generation = ollamacore.Generation([], ollamacore.SamplingOptions(), 4096, receive)
    generation.prompt = array("i", model.tokenize("<|go|>"))
    model._scheduler.submit(generation)
    assert model.generate("<|go|>", num_predict=1).text() == "one "
    while not done:
        model.generate("<|go|>", num_predict=1).text()
    assert done == ["cancelled"]
    assert len(chunks) == 31
    assert model.kv_blocks_free == free


# ---- what is proposed ----


def fed(prompt, tokens):
    sequence = array("i", prompt)
    lookup = PromptLookup(sequence)
    for token in tokens:
        sequence.append(token)
        lookup.accept(token)
    return lookup


def test_proposal_is_what_followed_the_last_three_tokens():
    lookup = fed([1, 2, 3, 4, 5, 6, 9], [1, 2, 3])
    assert list(lookup.propose(8, free())) == [4, 5, 6, 9, 1, 2, 3]
    assert list(lookup.propose(2, free())) == [4, 5]
    assert list(lookup.propose(0, free())) == []
    assert list(fed([1, 2, 3, 4], [7, 2, 3]).propose(8, free())) == []
    assert list(fed([1, 2], [1]).propose(8, free())) == []


def test_latest_place_wins():
    assert list(fed([1, 2, 3, 4, 1, 2, 3, 5], [1, 2, 3]).propose(1, free())) == [5]


def test_no_draft_where_columns_cost_as_much_as_steps():
    costs = StepCosts()
    for _ in range(50):
        costs.observe(1, 0.01)
        costs.observe(5, 0.05)
    lookup = fed(range(100), range(30))
    assert costs.extra == pytest.approx(1.0, abs=0.01)
    assert list(lookup.propose(8, costs)) == []


def test_cheap_columns_and_a_long_match_make_a_full_draft():
    costs = StepCosts()
    for _ in range(50):
        costs.observe(1, 0.01)
        costs.observe(5, 0.012)
    assert len(fed(range(100), range(30)).propose(20, costs)) == LONGEST_DRAFT


def test_proposals_that_fail_are_soon_no_longer_made():
    noise = [token for i in range(60) for token in (1, 2, 3, 100 + i)]
    costs = StepCosts()
    assert list(fed([1, 2, 3, 50], [*noise, 1, 2, 3]).propose(8, costs)) == []


def test_pause_of_the_machine_counts_little():
    costs = StepCosts()
    for _ in range(20):
        costs.observe(1, 0.01)
    costs.observe(1, 45.0)
    costs.observe(5, 0.012)
    before = costs.extra
    costs.observe(5, 45.0)
    assert costs.extra - before < 0.2


def test_usual_time_is_that_of_half_of_the_steps():
    costs = StepCosts()
    for i in range(400):
        costs.observe(1, (0.009, 0.01, 0.01, 0.011, 0.08)[i % 5])
    assert costs.usual == pytest.approx(0.01, rel=0.05)
    assert costs.single == pytest.approx(0.0102, rel=0.05)
    costs.observe(5, 45.0)
    assert costs.usual == pytest.approx(0.01, rel=0.05), "of one token"


def test_drafts_that_were_too_dear_are_tried_again():
    costs = StepCosts(extra=1.0)
    lookup = fed(range(100), range(30))
    assert sum(bool(lookup.propose(8, costs)) for _ in range(500)) > 0
