"""Logit bias, DRY, XTC, top-n-sigma, Mirostat and masks: distributions against numpy, edge cases, seeds."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollamacore import _core
from ollamacore.errors import InvalidOptionError
from ollamacore.sampling import SamplingOptions
from ollamacore.tokenizer import Tokenizer
from tests.core.test_sampler import (
    PLAIN,
    accept,
    assert_same,
    candidates,
    make,
    random_logits,
    reference,
    softmax,
    uniforms,
)
from tests.core.vocabularies import USER_DEFINED, bpe

# ---- logit bias ----


def test_logit_bias_is_added_before_everything_else():
    logits = random_logits(1, 200)
    bias = {3: 4.5, 150: -100.0, 7: float("-inf"), 500: 3.0}
    biased = logits.astype(np.float64)
    for token, value in bias.items():
        if token < 200:
            biased[token] += value
    options = {"top_k": 20, "repeat_penalty": 1.5}
    sampler = make(logit_bias=bias, **options)
    accept(sampler, [3, 9])
    expected = reference(biased.astype(np.float32), SamplingOptions(**{**PLAIN, **options}), [3, 9])
    assert_same(candidates(sampler, logits), expected)


def test_logit_bias_decides_greedy_sampling():
    logits = np.array([5, 1, 2], np.float32)
    assert make(temperature=0.0, logit_bias={1: 10.0}).sample_from(logits) == 1
    assert make(temperature=0.0, logit_bias={0: -100.0}).sample_from(logits) == 2


# ---- DRY ----


def dry_penalties(history, options, breakers=frozenset()):
    """{token: penalty} by the definition, in cubic time."""
    last = options.dry_penalty_last_n
    window = history[len(history) - last :] if 0 <= last < len(history) else history
    unbroken = next((i for i, token in enumerate(reversed(history)) if token in breakers), len(history))
    longest = {}
    for at in range(1, len(window)):
        length = 0
        while length < min(at, unbroken) and window[at - 1 - length] == window[len(window) - 1 - length]:
            length += 1
        if length >= max(options.dry_allowed_length, 1):
            longest[window[at]] = max(longest.get(window[at], 0), length)
    return {
        token: options.dry_multiplier * options.dry_base ** (length - options.dry_allowed_length)
        for token, length in longest.items()
    }


def with_penalties(logits, penalties):
    logits = logits.astype(np.float64)
    for token, penalty in penalties.items():
        logits[token] -= penalty
    return logits


@given(
    history=st.lists(st.integers(0, 3), max_size=60),
    multiplier=st.sampled_from([0.8, 2.0, -0.5]),
    base=st.sampled_from([1.0, 1.75, 3.0]),
    allowed=st.sampled_from([0, 1, 2, 5]),
    last=st.sampled_from([-1, 1, 7, 64]),
)
@settings(deadline=None, max_examples=150)
def test_dry_against_its_definition(history, multiplier, base, allowed, last):
    options = SamplingOptions(
        **{**PLAIN, "seed": 1}, dry_multiplier=multiplier, dry_base=base, dry_allowed_length=allowed,
        dry_penalty_last_n=last, dry_sequence_breakers=(),
    )  # fmt: skip
    logits = random_logits(3, 6)
    sampler = _core.Sampler(options, 4096)
    accept(sampler, history)
    penalised = with_penalties(logits, dry_penalties(history, options))
    expected = {i: p for i, p in enumerate(softmax(penalised)) if p > 0}
    found = candidates(sampler, logits)
    for i in range(6):
        assert found.get(i, 0) == pytest.approx(expected.get(i, 0), rel=1e-4, abs=1e-9)


def test_dry_beyond_all_floats_forbids_the_token():
    sampler = make(dry_multiplier=1.0, dry_base=10.0, dry_sequence_breakers=())
    accept(sampler, [1] * 100)
    assert candidates(sampler, np.zeros(3, np.float32)) == pytest.approx({0: 0.5, 2: 0.5})


@pytest.mark.parametrize(
    "off", [{"dry_multiplier": 0.0}, {"dry_base": 0.9}, {"dry_penalty_last_n": 0}, {"dry_allowed_length": 50}]
)
def test_dry_switched_off(off):
    options = {"dry_multiplier": 5.0, "dry_sequence_breakers": (), **off}
    sampler = make(**options)
    accept(sampler, [1, 2, 3, 1, 2, 3, 1, 2])
    assert candidates(sampler, np.zeros(5, np.float32)) == pytest.approx(dict.fromkeys(range(5), 0.2))


def spelled(*pieces):
    """A vocabulary that spells these, and the id of each; bytes are those of the byte tokens."""
    texts = [piece for piece in pieces if isinstance(piece, str)]
    vocabulary = Tokenizer.from_gguf(bpe(special=[(text, USER_DEFINED) for text in texts])).vocabulary
    return vocabulary, [256 + texts.index(p) if isinstance(p, str) else p[0] for p in pieces]


BREAKERS = ("\n", "stop now", "é")


@pytest.mark.parametrize(
    ("breaking", "is_breaker"),
    [
        (["x\ny"], True), (["stop", " now"], True), (["sto", "p n", "ow!"], True), ([b"\xc3", b"\xa9"], True),
        (["stop", "now"], False), (["plain"], False), (["now", "stop "], False),
    ],
)  # fmt: skip
def test_dry_breakers_are_found_across_tokens(breaking, is_breaker):
    vocabulary, ids = spelled("a", "b", "c", *breaking)
    one, two, other, *tail = ids
    history = [one, two, *tail, other, one, two, *tail]
    options = SamplingOptions(
        **{**PLAIN, "seed": 1}, dry_multiplier=3.0, dry_allowed_length=1, dry_sequence_breakers=BREAKERS
    )
    sampler = _core.Sampler(options, 100, vocabulary)
    accept(sampler, history)
    logits = np.zeros(vocabulary.count, np.float32)
    expected = softmax(with_penalties(logits, dry_penalties(history, options, {tail[-1]} if is_breaker else set())))
    found = candidates(sampler, logits)
    assert [found[i] for i in range(len(logits))] == pytest.approx(expected.tolist(), rel=1e-4)
    assert (found[other] == pytest.approx(max(found.values()))) == is_breaker


def test_dry_repetition_after_a_breaker_counts_again():
    vocabulary, (one, two, newline) = spelled("a", "b", "\n")
    options = SamplingOptions(**{**PLAIN, "seed": 1}, dry_multiplier=3.0, dry_allowed_length=1)
    history = [one, two, one, newline, one, two, one, 2**31 - 1, newline, one]  # one has no spelling: it breaks nothing
    sampler = _core.Sampler(options, 100, vocabulary)
    accept(sampler, history)
    penalties = dry_penalties(history, options, {newline})
    logits = np.zeros(vocabulary.count, np.float32)
    expected = softmax(with_penalties(logits, {k: v for k, v in penalties.items() if k < len(logits)}))
    found = candidates(sampler, logits)
    assert [found[i] for i in range(len(logits))] == pytest.approx(expected.tolist(), rel=1e-4)
    assert found[two] < found[0]


def test_dry_breakers_need_a_vocabulary():
    with pytest.raises(InvalidOptionError):
        make(dry_multiplier=1.0)


# ---- top-n-sigma ----


@pytest.mark.parametrize("n_sigma", [0.1, 0.5, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [0, 40])
def test_top_n_sigma(n_sigma, top_k):
    logits = random_logits(11, 300)
    logits[::7] = -np.inf
    logits[3] = np.nan
    real = logits[logits > -np.inf].astype(np.float64)
    lowest = real.max() - n_sigma * real.std()
    ids = sorted(np.flatnonzero(logits >= lowest).tolist(), key=lambda i: -logits[i])[: top_k or None]
    expected = dict(zip(ids, softmax(logits[ids].astype(np.float64)), strict=True))
    assert_same(candidates(make(top_n_sigma=n_sigma, top_k=top_k), logits), expected)


def test_top_n_sigma_of_equal_logits_keeps_all():
    assert len(candidates(make(top_n_sigma=1.0), np.full(40, 2, np.float32))) == 40


# ---- XTC ----


def xtc(logits, threshold):
    probs = softmax(logits.astype(np.float64))
    above = [i for i in np.argsort(-probs, kind="stable") if probs[i] >= threshold]
    ids = sorted(set(range(len(logits))) - set(above[:-1]))
    return dict(zip(ids, softmax(logits[ids].astype(np.float64)), strict=True))


@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.05, 0.1, 0.3, 0.5])
def test_xtc_leaves_the_least_of_the_top(threshold):
    logits = random_logits(12, 30, 1.0)
    assert_same(candidates(make(xtc_probability=1.0, xtc_threshold=threshold), logits), xtc(logits, threshold))


def test_xtc_acts_with_its_probability_and_draws_before_the_token():
    logits = np.log(np.array([0.5, 0.3, 0.2])).astype(np.float32)
    sampler, numbers = make(seed=5, xtc_probability=0.4, xtc_threshold=0.25), uniforms(5)
    acted = 0
    for _ in range(300):
        weights = [0, 0.3, 0.2] if next(numbers) < np.float32(0.4) else [0.5, 0.3, 0.2]
        acted += weights[0] == 0
        target, running = next(numbers) * sum(weights), np.cumsum(weights)
        assert sampler.sample_from(logits) == int(np.flatnonzero(running > target)[0])
    assert 90 < acted < 150


@pytest.mark.parametrize("off", [{"xtc_probability": 0.0}, {"xtc_threshold": 0.51}, {"temperature": 0.0}])
def test_xtc_switched_off(off):
    logits = random_logits(13, 20, 1.0)
    options = {"xtc_probability": 1.0, "xtc_threshold": 0.01, **off}
    plain = {"temperature": options.get("temperature", 1.0)}
    assert candidates(make(**options), logits) == candidates(make(**plain), logits)


# ---- Mirostat ----


def mirostat_ids(version, logits, mu):
    probs = softmax(logits)
    best = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    if version == 2:
        return [i for i in best if -np.log2(probs[i]) <= mu] or best[:1]
    top = best[:100]
    t = np.array([math.log((i + 2) / (i + 1)) for i in range(len(top) - 1)])
    b = np.array([math.log(probs[one] / probs[two]) for one, two in pairwise(top)])
    s = (t * b).sum() / (t * t).sum()
    k = ((s - 1) * 2**mu / (1 - len(logits) ** (1 - s))) ** (1 / s)
    return best[: max(int(k), 1)]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("tau", "eta"), [(5.0, 0.1), (2.0, 0.5), (0.5, 1.0)])
@pytest.mark.parametrize("temperature", [0.8, 1.0])
def test_mirostat_follows_the_surprise(version, tau, eta, temperature):
    sampler = make(
        mirostat=version, mirostat_tau=tau, mirostat_eta=eta, temperature=temperature, top_k=3, top_p=0.1, min_p=0.9
    )
    mu = 2 * tau
    for step in range(30):
        logits = random_logits(100 + step, 400, 2.0)
        warm = logits.astype(np.float64) / temperature
        ids = mirostat_ids(version, warm, mu)
        expected = dict(zip(ids, softmax(warm[ids]), strict=True))
        assert_same(candidates(sampler, logits), expected)
        token = sampler.sample_from(logits)
        mu -= eta * (-math.log2(expected[token]) - tau)


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_with_temperature_zero_is_greedy(version):
    logits = random_logits(14, 50)
    sampler = make(mirostat=version, temperature=0.0)
    assert {sampler.sample_from(logits) for _ in range(5)} == {int(logits.argmax())}


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_comes_after_the_penalties(version):
    sampler = make(mirostat=version, presence_penalty=100.0)
    accept(sampler, [1])
    assert 1 not in {sampler.sample_from(np.array([0, 5, 0], np.float32)) for _ in range(20)}


# ---- masks ----


def mask_of(ids, n):
    bits = np.zeros(-(-n // 32) * 32, np.uint8)
    bits[list(ids)] = 1
    return np.packbits(bits, bitorder="little").view(np.uint32)


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"temperature": 0.0}, {"top_n_sigma": 1.0}, {"mirostat": 2}])
def test_mask_equals_minus_infinity_elsewhere(options):
    logits = random_logits(15, 100)
    ids = [0, 31, 32, 63, 64, 77, 99]
    masked = np.full(100, -np.inf, np.float32)
    masked[ids] = logits[ids]
    found, probs = np.zeros(100, np.int32), np.zeros(100, np.float32)
    n = make(**options).candidates(logits, found, probs, mask_of(ids, 100))
    found = dict(zip(found[:n].tolist(), probs[:n].tolist(), strict=True))
    assert found == pytest.approx(candidates(make(**options), masked))


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"temperature": 0.0}])
@pytest.mark.parametrize("fill", [0.0, -np.inf, np.nan])
def test_mask_of_one_token_forces_it_whatever_its_logit(options, fill):
    logits = np.full(70, 50.0, np.float32)
    logits[69] = fill
    assert make(**options).sample_from(logits, mask_of([69], 70)) == 69


def test_mask_that_allows_nothing_or_is_too_short_is_refused():
    logits = np.zeros(40, np.float32)
    with pytest.raises(InvalidOptionError):
        make().sample_from(logits, mask_of([], 40))
    with pytest.raises(ValueError, match="mask of 1 words"):
        make().sample_from(logits, mask_of([0], 32))


# ---- all of them: hostile logits, undo, seeds ----

EXTRAS = [
    {"logit_bias": {1: 5.0, 4: -5.0}},
    {"dry_multiplier": 1.0, "dry_sequence_breakers": ()},
    {"top_n_sigma": 1.0},
    {"xtc_probability": 1.0, "xtc_threshold": 0.01},
    {"mirostat": 1},
    {"mirostat": 2},
    {"top_n_sigma": 2.0, "xtc_probability": 0.5, "dry_multiplier": 0.8, "dry_sequence_breakers": (), "top_k": 40},
]
TEMPERATURES = [0.0, 0.8]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("options", EXTRAS)
@pytest.mark.parametrize(("fill", "expected"), [((np.nan, np.nan), 0), ((-np.inf, -np.inf), 0), ((np.nan, -np.inf), 1)])
def test_nothing_to_choose_from_gives_the_lowest_id(options, temperature, fill, expected):
    logits = np.array(fill * 40, np.float32)
    assert make(temperature=temperature, **options).sample_from(logits) == expected


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("options", EXTRAS)
def test_vocabulary_of_one_nan_and_infinities(options, temperature):
    sampler = make(temperature=temperature, **options)
    assert sampler.sample_from(np.array([-3], np.float32)) == 0
    logits = random_logits(16, 100)
    logits[::3] = np.nan
    logits[1::3] = -np.inf
    assert {sampler.sample_from(logits) % 3 for _ in range(50)} == {2}
    logits[[30, 61]] = np.inf
    assert sampler.sample_from(logits) in (30, 61)


@pytest.mark.parametrize("options", EXTRAS)
def test_equal_seeds_draw_equally_and_logits_come_back(options):
    one, two = (make(seed=9, temperature=0.8, **options) for _ in range(2))
    for step in range(40):
        logits = random_logits(step, 80, 1.5)
        before = logits.tobytes()
        token = one.sample_from(logits)
        assert two.sample_from(logits) == token
        assert logits.tobytes() == before
        one.accept(token)
        two.accept(token)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_edits_leave_the_maxima_right(data):
    """Penalised and biased ids in the same run of 32, up and down: the best logit is found, again and again."""
    n = data.draw(st.integers(1, 100))
    ids = st.integers(0, n - 1)
    bias = data.draw(st.dictionaries(ids, st.sampled_from([-50.0, -1.0, 1.0, 50.0]), max_size=20))
    window = data.draw(st.lists(ids, max_size=30))
    options = SamplingOptions(temperature=0.0, logit_bias=bias, presence_penalty=3.0, repeat_last_n=-1)
    logits = random_logits(n, n, 1.0)
    sampler = _core.Sampler(options, 100)
    biased = logits.copy()
    for token, value in bias.items():
        biased[token] += np.float32(value)
    for i, token in enumerate(window):
        sampler.accept(token)
        assert sampler.sample_from(logits) == biased_argmax(biased, window[: i + 1])


def biased_argmax(logits, window):
    changed = logits.copy()
    changed[list(set(window))] -= np.float32(3.0)
    return changed.argmax()
