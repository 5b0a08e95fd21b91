"""Which rows of kernels.def run: the best that the processor has, unless its products are wrong."""

import os

import pytest

from ollamacore import _core, machine

ROWS = _core.kernel_rows()
QUANTISED = [row[0] for row in _core.format_rows() if not row[5]]


@pytest.fixture
def restored_mask():
    yield
    _core.set_cpu_mask(os.environ.get("OLLAMACORE_CPU"))


def rows_of(gguf_type, op="matmul"):
    """Indices of the rows of one op and format that this processor can run: the reference first."""
    return [i for i, row in enumerate(ROWS) if row[0] == op and row[3] == gguf_type and row[5]]


def test_chosen_rows_are_the_last_that_run():
    best = {row[:2]: index for index, row in enumerate(ROWS) if row[5]}
    assert sorted(best.values()) == _core.chosen_rows()
    assert machine.refused_kernels() == []


def test_chosen_rows_under_a_mask_are_references(restored_mask):
    _core.set_cpu_mask("generic")
    assert {row[4] for row in _core.kernel_rows() if row[5]} == {"generic"}
    assert {ROWS[index][4] for index in _core.chosen_rows()} == {"generic"}


@pytest.mark.parametrize("gguf_type", QUANTISED)
def test_choose_row_refuses_wrong_products(gguf_type):
    rows = rows_of(gguf_type)
    others = [rows_of(other)[-1] for other in QUANTISED if other != gguf_type]
    same_function = {"IQ2_XS", "IQ2_S"}, {"IQ2_XXS"}, {"Q2_K", "TQ1_0", "TQ2_0"}, {"IQ1_M"}, {"IQ1_S"}
    name = ROWS[rows[0]][1]
    alike = next((names for names in same_function if name in names), {name})
    wrong = [index for index in others if ROWS[index][1] not in alike]
    assert len(wrong) >= len(QUANTISED) - 3
    for index in wrong:
        assert _core.choose_row([*rows, index]) == rows[-1]
        assert _core.choose_row([rows[0], index, index]) == rows[0]


def test_choose_row_of_another_op_keeps_the_best():
    rows = rows_of(-1, "maxima")
    assert _core.choose_row(rows) == rows[-1]


def test_choose_row_refuses_a_mixture():
    with pytest.raises(ValueError, match="several ops"):
        _core.choose_row([rows_of(2)[0], rows_of(-1, "maxima")[0]])
    with pytest.raises(ValueError, match="float"):
        _core.choose_row([rows_of(2)[0], rows_of(0)[0]])
    with pytest.raises(ValueError, match="no such row"):
        _core.choose_row([len(ROWS)])
    with pytest.raises(ValueError, match="1 to 16"):
        _core.choose_row([])


def test_refused_kernels_are_named(monkeypatch):
    reference, *better = rows_of(2)
    chosen = [reference if index in better else index for index in _core.chosen_rows()]
    monkeypatch.setattr(_core, "chosen_rows", lambda: chosen)
    assert machine.refused_kernels() == [ROWS[index][2] for index in better]
