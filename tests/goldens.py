"""Reference logits: how they are stored, and the two distances that tests and the generator share.

For each position the exact distribution is kept as its TOP most likely tokens and the mass of all others as
one bucket. The divergence from it is computed over those TOP + 1 outcomes, by this same code for llama.cpp
(when the data was made) and for this engine (in the tests), so the two figures compare.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parent / "data"
#: tokens kept per position
TOP = 128
#: tokens over which the mean absolute log-probability difference is taken
COMPARED = 10


@dataclass(frozen=True, slots=True)
class Exact:
    """The exact distribution at one position, most likely token first."""

    ids: np.ndarray  # (TOP,) int32
    logprobs: np.ndarray  # (TOP,) float32
    rest: float  # log of the mass of every other token


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt: the sequence to evaluate, and the exact answers at its last len(exact) positions."""

    name: str
    tokens: list[int]
    exact: list[Exact]


@dataclass(frozen=True, slots=True)
class Golden:
    """All prompts of one model, and how far llama.cpp is from the exact answers on the same positions."""

    cases: list[Case]
    llama_cpp_kl: float
    llama_cpp_difference: float


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities of one row of logits, in float64."""
    logits = logits.astype(np.float64)
    top = logits.max()
    return logits - (top + np.log(np.exp(logits - top).sum()))


def summarise(logits: np.ndarray) -> Exact:
    """What is kept of one exact row of logits."""
    logprobs = log_softmax(logits)
    order = np.argsort(-logprobs, kind="stable")
    best, others = order[:TOP], order[TOP:]
    rest = float(np.logaddexp.reduce(logprobs[others]))
    return Exact(best.astype(np.int32), logprobs[best].astype(np.float32), rest)


def divergence(exact: Exact, logits: np.ndarray) -> float:
    """KL divergence of logits from the exact distribution, all tokens but the kept ones being one outcome."""
    found = log_softmax(logits)
    outside = np.ones(len(found), dtype=bool)
    outside[exact.ids] = False
    ours = np.append(found[exact.ids], np.logaddexp.reduce(found[outside]))
    theirs = np.append(exact.logprobs.astype(np.float64), exact.rest)
    return float((np.exp(theirs) * (theirs - ours)).sum())


def differences(exact: Exact, logits: np.ndarray, count: int = COMPARED) -> np.ndarray:
    """Absolute log-probability differences on the exact answer's most likely tokens."""
    return np.abs(log_softmax(logits)[exact.ids[:count]] - exact.logprobs[:count])


def load_golden(name: str | Path) -> Golden:
    """The stored golden of one model: tests/data/<name>/logits.{npz,json}, or of a folder elsewhere."""
    report = json.loads((DATA / name / "logits.json").read_text())
    with np.load(DATA / name / "logits.npz") as stored:
        tokens = np.split(stored["tokens"], stored["lengths"].cumsum()[:-1])
        rows = zip(stored["ids"], stored["logprobs"], stored["rest"].tolist(), strict=True)
        exact = [Exact(*row) for row in rows]
        ends = stored["positions"].cumsum().tolist()
    cases = [
        Case(name, sequence.tolist(), exact[start:end])
        for name, sequence, start, end in zip(report["prompts"], tokens, [0, *ends], ends, strict=False)
    ]
    return Golden(cases, report["llama_cpp"]["kl"], report["llama_cpp"]["difference"])
