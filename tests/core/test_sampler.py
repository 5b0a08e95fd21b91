"""The sampler against a numpy reimplementation of its chain, and its random numbers against their definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollamacore import _core
from ollamacore.errors import InvalidOptionError
from ollamacore.sampling import SamplingOptions

#: everything off: plain multinomial over the vocabulary
PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}


def make(n_ctx=4096, **options):
    return _core.Sampler(SamplingOptions(**{"seed": 1, **PLAIN, **options}), n_ctx)


def candidates(sampler, logits):
    before = logits.tobytes()
    ids, probs = np.zeros(len(logits), np.int32), np.zeros(len(logits), np.float32)
    n = sampler.candidates(logits, ids, probs)
    assert logits.tobytes() == before
    return dict(zip(ids[:n].tolist(), probs[:n].tolist(), strict=True))


def accept(sampler, tokens):
    sampler.accept_all(np.array(tokens, np.int32))


def random_logits(seed, n, scale=3.0):
    return (np.random.default_rng(seed).standard_normal(n) * scale).astype(np.float32)


# ---- the reference ----


def softmax(logits):
    weight = np.exp(logits - logits.max())
    return weight / weight.sum()


def penalised(logits, window, options):
    logits = logits.astype(np.float64)
    for token in set(window):
        value = logits[token]
        value = value / options.repeat_penalty if value > 0 else value * options.repeat_penalty
        logits[token] = value - window.count(token) * options.frequency_penalty - options.presence_penalty
    return logits


def ranked(ids, keys):
    return sorted(ids, key=lambda i: (-keys[i], i))


def kept_until(ids, probs, limit, beyond):
    total, kept = 0.0, []
    for i in ids:
        kept.append(i)
        total += probs[i]
        if total > limit or (not beyond and total >= limit):
            break
    return kept


def reference(logits, options, window=()):
    """{id: probability} of the last step of the chain; float64 throughout."""
    logits = penalised(logits, list(window), options)
    ids = [i for i in range(len(logits)) if logits[i] > -np.inf]
    if options.temperature <= 0:
        return {ranked(ids, logits)[0]: 1.0}
    if options.top_k > 0:
        ids = ranked(ids, logits)[: options.top_k]
    if options.typical_p < 1:
        probs = dict(zip(ids, softmax(logits[ids]), strict=True))
        entropy = -sum(p * np.log(p) for p in probs.values() if p > 0)
        with np.errstate(divide="ignore"):
            distance = {i: -abs(-np.log(p) - entropy) for i, p in probs.items()}
        ids = kept_until(ranked(ids, distance), probs, options.typical_p, beyond=True)
    if options.top_p < 1:
        probs = dict(zip(ids, softmax(logits[ids]), strict=True))
        ids = kept_until(ranked(ids, logits), probs, options.top_p, beyond=False)
    if options.min_p > 0:
        best = ranked(ids, logits)[0]
        ids = [i for i in ids if i == best or logits[i] >= logits[best] + np.log(options.min_p)]
    return dict(zip(ids, softmax(logits[ids] / options.temperature), strict=True))


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for i, p in expected.items():
        assert found[i] == pytest.approx(p, rel=2e-5, abs=1e-9)


def check(seed=1, n=300, scale=3.0, window=(), **changes):
    options = SamplingOptions(**{"seed": 1, **PLAIN, **changes})
    logits = random_logits(seed, n, scale)
    sampler = _core.Sampler(options, 4096)
    accept(sampler, list(window))
    skipped = len(window) - min(options.repeat_last_n, len(window)) if options.repeat_last_n >= 0 else 0
    assert_same(candidates(sampler, logits), reference(logits, options, window[skipped:]))


# ---- each option alone ----


def test_no_option_leaves_the_softmax():
    check()


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 31, 33, 100])
@pytest.mark.parametrize("top_k", [1, 2, 15, 40, 99, 100, 101, 100_000])
def test_top_k_at_every_size(n, top_k):
    check(n=n, top_k=top_k)


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_top_k_of_sorted_logits(order):
    logits = np.arange(1000, dtype=np.float32)[:: 1 if order == "ascending" else -1].copy()
    expected = set(range(960, 1000)) if order == "ascending" else set(range(40))
    assert candidates(make(top_k=40), logits).keys() == expected


def test_top_k_ties_go_to_the_lower_ids():
    logits = np.zeros(1000, np.float32)
    logits[500:] = 1
    assert candidates(make(top_k=40), logits).keys() == set(range(500, 540))


@pytest.mark.parametrize("top_p", [-1.0, 0.0, 0.01, 0.5, 0.9, 0.99, 0.9999, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [0, 40])
def test_top_p(top_p, top_k):
    check(top_p=top_p, top_k=top_k)


def test_top_p_keeps_the_token_that_reaches_it():
    logits = np.log(np.array([0.125, 0.5, 0.25, 0.125])).astype(np.float32)
    assert candidates(make(top_p=0.6), logits) == pytest.approx({1: 2 / 3, 2: 1 / 3}, rel=1e-6)


@pytest.mark.parametrize("min_p", [0.001, 0.05, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("top_k", [0, 40])
def test_min_p(min_p, top_k):
    check(min_p=min_p, top_k=top_k)


@pytest.mark.parametrize("typical_p", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("top_k", [0, 40])
def test_typical_p(typical_p, top_k):
    check(typical_p=typical_p, top_k=top_k)


def test_typical_p_may_drop_the_best_token():
    logits = np.log(np.array([0.4] + [0.6 / 60] * 60)).astype(np.float32)
    assert 0 not in candidates(make(typical_p=0.3), logits)


@pytest.mark.parametrize("temperature", [0.01, 0.5, 0.8, 1.0, 2.0, 100.0, float("inf")])
def test_temperature(temperature):
    check(temperature=temperature)


def test_temperature_comes_after_the_filters():
    check(temperature=3.0, top_p=0.8, min_p=0.05, typical_p=0.95, top_k=50)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_greedy_takes_the_best_after_penalties(temperature):
    logits = np.array([0, 5, 4, 1], np.float32)
    sampler = make(temperature=temperature, repeat_penalty=2.0, top_k=40)
    assert sampler.sample_from(logits) == 1
    sampler.accept(1)
    assert sampler.sample_from(logits) == 2
    assert candidates(sampler, logits) == {2: 1.0}


def test_limits_that_are_met_exactly():
    logits = np.zeros(4, np.float32)
    assert candidates(make(top_p=0.5), logits).keys() == {0, 1}, "top_p is reached"
    assert candidates(make(typical_p=0.5), logits).keys() == {0, 1, 2}, "typical_p is exceeded"
    assert candidates(make(min_p=1.0), logits).keys() == {0, 1, 2, 3}


# ---- penalties ----


@pytest.mark.parametrize(
    "penalty",
    [
        {"repeat_penalty": 1.3},
        {"presence_penalty": 0.7},
        {"frequency_penalty": 0.4},
        {"repeat_penalty": 0.8, "presence_penalty": -0.5, "frequency_penalty": 0.2},
    ],
)
def test_penalties(penalty):
    check(window=[3, 7, 3, 3, 250, 9], **penalty)


def test_penalties_count_the_last_tokens_only():
    check(window=[1, 2, 3, 4, 5, 1, 1], repeat_last_n=4, frequency_penalty=0.5, repeat_penalty=1.5)


def test_penalty_window_zero_is_off():
    check(window=[1, 2, 3], repeat_last_n=0, repeat_penalty=5.0)


def test_penalty_window_minus_one_is_the_context():
    options = {"repeat_last_n": -1, "presence_penalty": 50.0}
    sampler = make(n_ctx=5, **options)
    accept(sampler, range(8))
    found = candidates(sampler, np.zeros(10, np.float32))
    assert {i for i, p in found.items() if p > 1e-3} == {0, 1, 2, 8, 9}


def test_penalty_of_tokens_without_a_logit_is_ignored():
    sampler = make(presence_penalty=5.0)
    accept(sampler, [-1, 10, 2**31 - 1])
    assert candidates(sampler, np.zeros(10, np.float32)) == pytest.approx(dict.fromkeys(range(10), 0.1))


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_penalty_window_against_a_list(data):
    n_vocab, last = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 12))
    tokens = data.draw(st.lists(st.integers(0, n_vocab - 1), max_size=80))
    options = SamplingOptions(
        **PLAIN, repeat_last_n=last, repeat_penalty=1.2, frequency_penalty=0.3, presence_penalty=0.1, seed=0
    )
    sampler = _core.Sampler(options, 100)
    logits = random_logits(n_vocab, n_vocab)
    for i, token in enumerate(tokens):
        sampler.accept(token)
        if i % 7 == 0 or i == len(tokens) - 1:
            window = tokens[max(0, i + 1 - last) : i + 1]
            assert_same(candidates(sampler, logits), reference(logits, options, window))


# ---- all together ----


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 400),
    scale=st.sampled_from([0.1, 1.0, 5.0, 30.0]),
    window=st.lists(st.integers(0, 399), max_size=30),
    changes=st.fixed_dictionaries(
        {
            "temperature": st.sampled_from([0.0, 0.3, 0.8, 1.7]),
            "top_k": st.sampled_from([0, 1, 7, 40, 500]),
            "top_p": st.sampled_from([0.05, 0.5, 0.93, 1.0]),
            "min_p": st.sampled_from([0.0, 0.03, 0.4]),
            "typical_p": st.sampled_from([0.2, 0.77, 1.0]),
            "repeat_penalty": st.sampled_from([1.0, 1.2, 0.7]),
            "presence_penalty": st.sampled_from([0.0, 0.6]),
            "frequency_penalty": st.sampled_from([0.0, -0.2]),
            "repeat_last_n": st.sampled_from([-1, 0, 5, 64]),
        }
    ),
)
@settings(deadline=None, max_examples=150)
def test_chain_against_the_reference(seed, n, scale, window, changes):
    check(seed, n, scale, [token % n for token in window], **changes)


# ---- draws ----

MASK = 2**64 - 1


def rotated(x, bits):
    return (x << bits | x >> (64 - bits)) & MASK


def uniforms(seed):
    """xoshiro256++ seeded by splitmix64; the upper 53 bits of each output, as csrc/engine/sampler.c documents."""
    state = []
    for _ in range(4):
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        z = seed
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
        state.append(z ^ z >> 31)
    a, b, c, d = state
    while True:
        yield ((rotated((a + d) & MASK, 23) + a & MASK) >> 11) * 2.0**-53
        shifted = b << 17 & MASK
        c, d = c ^ a, d ^ b
        b, a = b ^ c, a ^ d
        c, d = c ^ shifted, rotated(d, 45)


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32, 2**64 - 2, -7])
def test_draws_follow_the_documented_generator(seed):
    sampler, numbers = make(seed=seed), uniforms(seed & MASK)
    logits = np.zeros(1000, np.float32)
    drawn = [sampler.sample_from(logits) for _ in range(50)]
    assert drawn == [int(next(numbers) * 1000) for _ in range(50)]


def test_equal_seeds_draw_equally_whatever_another_sampler_does():
    logits = random_logits(5, 500, 1.0)
    one, two, other = make(seed=9), make(seed=9), make(seed=10)
    drawn = [(one.sample_from(logits), other.sample_from(logits)) for _ in range(60)]
    assert [a for a, _ in drawn] == [two.sample_from(logits) for _ in range(60)]
    assert any(a != b for a, b in drawn)


@pytest.mark.parametrize("seed", [None, -1])
def test_no_seed_differs_from_run_to_run(seed):
    logits = np.zeros(100_000, np.float32)
    runs = {tuple(sampler.sample_from(logits) for _ in range(4)) for sampler in (make(seed=seed), make(seed=seed))}
    assert len(runs) == 2


def test_draws_have_the_frequencies_of_the_candidates():
    logits = random_logits(6, 30, 1.5)
    sampler = make(seed=3, temperature=0.7, top_k=8, top_p=0.95)
    expected = candidates(sampler, logits)
    drawn = np.bincount([sampler.sample_from(logits) for _ in range(20_000)], minlength=30) / 20_000
    assert set(np.flatnonzero(drawn).tolist()) == expected.keys()
    for i, p in expected.items():
        assert drawn[i] == pytest.approx(p, abs=0.015)


def test_sampling_leaves_the_logits_as_they_were():
    logits = random_logits(7, 1000)
    before = logits.tobytes()
    sampler = make(top_k=40, repeat_penalty=1.7, presence_penalty=2.0)
    accept(sampler, range(0, 1000, 9))
    for _ in range(20):
        sampler.accept(sampler.sample_from(logits))
    assert logits.tobytes() == before


# ---- hostile logits ----

HOSTILE = [
    PLAIN,
    {"top_k": 3},
    {"top_p": 0.5},
    {"typical_p": 0.5},
    {"min_p": 0.1},
    {"temperature": 0.0},
    {"top_k": 3, "top_p": 0.5, "typical_p": 0.5, "min_p": 0.1, "temperature": 0.1},
]


@pytest.mark.parametrize("options", HOSTILE)
def test_nan_never_wins(options):
    logits = np.array([np.nan, 1, np.nan, 2, np.nan] * 9, np.float32)
    sampler = make(**options)
    assert not {sampler.sample_from(logits) % 5 for _ in range(200)} & {0, 2, 4}


@pytest.mark.parametrize("options", HOSTILE)
@pytest.mark.parametrize(("fill", "expected"), [((np.nan, np.nan), 0), ((-np.inf, -np.inf), 0), ((np.nan, -np.inf), 1)])
def test_nothing_to_choose_from_gives_the_lowest_id(options, fill, expected):
    logits = np.array(fill * 20, np.float32)
    assert make(**options).sample_from(logits) == expected


@pytest.mark.parametrize("options", HOSTILE)
def test_minus_infinity_is_never_drawn(options):
    logits = np.full(100, -np.inf, np.float32)
    logits[[4, 50]] = -1e30, -1e30
    sampler = make(**options)
    assert {sampler.sample_from(logits) for _ in range(100)} <= {4, 50}


@pytest.mark.parametrize("options", HOSTILE)
def test_infinity_wins(options):
    logits = random_logits(8, 100)
    logits[[60, 30]] = np.inf
    sampler = make(**options)
    assert {sampler.sample_from(logits) for _ in range(50)} <= {30, 60}


@pytest.mark.parametrize("options", HOSTILE)
def test_huge_differences_stay_finite(options):
    logits = np.linspace(-3e38, 3e38, 50).astype(np.float32)
    assert make(**options).sample_from(logits) == 49


def test_single_token_vocabulary():
    assert make(top_k=40).sample_from(np.array([-3], np.float32)) == 0


def test_nan_options_do_not_crash():
    nan = float("nan")
    sampler = make(temperature=nan, top_p=nan, min_p=nan, typical_p=nan, repeat_penalty=nan)
    accept(sampler, [1, 2])
    assert sampler.sample_from(np.array([3, 2, 1], np.float32)) == 0


def test_options_beyond_the_integers_are_capped():
    sampler = make(n_ctx=64, top_k=2**70, repeat_last_n=2**70, repeat_penalty=1.1, seed=2**70 + 3)
    assert sampler.sample_from(np.array([-100, 2, -100], np.float32)) == 1


def test_context_of_nothing_is_refused():
    with pytest.raises(InvalidOptionError):
        make(n_ctx=0)


def test_large_vocabulary_with_every_option():
    logits = random_logits(9, 151_936)
    for options in ({"top_k": 40, "top_p": 0.9}, {"top_p": 0.7}, {"typical_p": 0.3}, {"min_p": 0.2}, {"top_k": 20_000}):
        expected = candidates(make(**options), logits)
        drawn = make(**options).sample_from(logits)
        assert drawn in expected
        assert sum(expected.values()) == pytest.approx(1, abs=1e-4)


# ---- log-probabilities ----


def log_softmax(logits):
    logits = logits.astype(np.float64)
    top = logits.max()
    return logits - top - np.log(np.exp(logits - top).sum())


@pytest.mark.parametrize("n", [1, 7, 8, 9, 100, 32_000, 151_936])
@pytest.mark.parametrize("scale", [0.01, 3.0, 30.0])
def test_logprobs(n, scale):
    logits = random_logits(n, n, scale) + np.float32(100)
    expected = log_softmax(logits)
    token = n // 3
    chosen, ids, values = _core.logprobs_of(logits, token, 20)
    assert chosen == pytest.approx(expected[token], abs=1e-5)
    assert ids == sorted(range(n), key=lambda i: (-logits[i], i))[:20]
    np.testing.assert_allclose(values, expected[ids], rtol=0, atol=1e-5)


def test_logprobs_count_and_ties():
    logits = np.zeros(50, np.float32)
    assert _core.logprobs_of(logits, 3, 5)[1] == [0, 1, 2, 3, 4]
    assert _core.logprobs_of(logits, 3, 0)[1:] == ([], [])
    assert len(_core.logprobs_of(logits, 3, 1000)[1]) == 20


def test_logprobs_of_impossible_tokens_have_a_floor():
    logits = np.array([0, -np.inf, np.nan, -1e30, 0], np.float32)
    assert _core.logprobs_of(logits, 1, 5)[0] == -9999
    assert _core.logprobs_of(logits, 2, 5)[0] == -9999
    chosen, ids, values = _core.logprobs_of(logits, 0, 5)
    assert ids == [0, 4, 3]
    assert values == pytest.approx([chosen, chosen, -9999])
    assert chosen == pytest.approx(np.log(0.5))


def test_logprobs_of_nothing_but_nan():
    assert _core.logprobs_of(np.full(9, np.nan, np.float32), 4, 3) == (-9999.0, [], [])


def test_logprobs_token_outside_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="not in the vocabulary"):
        _core.logprobs_of(np.zeros(3, np.float32), 3, 0)
