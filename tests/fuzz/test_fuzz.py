"""A short run of the fuzzer; `make fuzz` does ten thousand requests."""

from tests.fuzz.__main__ import fuzz


def test_nothing_is_found_in_a_few_hundred_requests():
    made, failures = fuzz(cases=300, seed=1)
    assert not failures, failures
    assert made >= 300
