"""A short run of the fuzzer; `make fuzz` does ten thousand requests."""

from tests.fuzz.__main__ import fuzz


def test_nothing_is_found_in_a_thousand_requests():
    made, failures = fuzz(cases=1000, seed=1)
    assert not failures, failures
    assert made >= 1000
