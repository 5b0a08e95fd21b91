"""Write iq_tables.h: the grids of the IQ formats, from the data of the gguf package."""

import sys
from importlib.metadata import version

import numpy as np
from gguf import quants

#: name -> (class of the gguf package, values in rising order, meaning of an entry)
GRIDS = {
    "iq1": (quants.IQ1_S, (-1, 0, 1), "IQ1_S, IQ1_M: 8 values + 1"),
    "iq2_xxs": (quants.IQ2_XXS, (8, 25, 43), "IQ2_XXS: 8 indices into 8, 25, 43"),
    "iq2_xs": (quants.IQ2_XS, (8, 25, 43), "IQ2_XS: the same"),
    "iq2_s": (quants.IQ2_S, (8, 25, 43), "IQ2_S: the same"),
    "iq3_xxs": (quants.IQ3_XXS, (4, 12, 20, 28, 36, 44, 52, 62), "IQ3_XXS: 4 indices into 4, 12 .. 52, 62"),
    "iq3_s": (quants.IQ3_S, tuple(range(1, 16, 2)), "IQ3_S: 4 indices into the odd numbers up to 15"),
}


def entries(kind: type, values: tuple[int, ...]) -> list[int]:
    """Every entry of a grid as one number: the index of element i from bit 2 i (8 elements) or 3 i (4) on."""
    kind.init_grid()
    grid = kind.grid.reshape(kind.grid_shape)
    index = np.searchsorted(values, grid)
    assert np.array_equal(np.array(values)[index], grid)
    bits = 2 if grid.shape[1] == 8 else 3
    return [int(sum(int(v) << (bits * i) for i, v in enumerate(row))) for row in index]


def main() -> None:
    """Print the header."""
    lines = [
        f"/* iq_tables.h - the grids of the IQ formats, generated from gguf {version('gguf')}; books.c reads them.",
        " * Elements stand in ascending order from the lowest bits on, 2 bits each if there are 8, 3 if there are 4.",
        " * Command: python csrc/quant/make_iq_tables.py > csrc/quant/iq_tables.h",
        " */",
        "#ifndef OC_QUANT_IQ_TABLES_H",
        "#define OC_QUANT_IQ_TABLES_H",
        "",
        "#include <stdint.h>",
    ]
    for name, (kind, values, meaning) in GRIDS.items():
        numbers = [f"0x{n:04x}," for n in entries(kind, values)]
        lines += ["", f"/* {meaning} */", f"static const uint16_t oc_grid_{name}[{len(numbers)}] = {{"]
        lines += ["    " + " ".join(numbers[i : i + 13]) for i in range(0, len(numbers), 13)]
        lines.append("};")
    sys.stdout.write("\n".join([*lines, "", "#endif", ""]))


if __name__ == "__main__":
    main()
