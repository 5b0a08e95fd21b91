"""Prompt lookup: what followed the last tokens earlier in a sequence is proposed as what follows now.

The engine computes the proposal and its predecessor in one step, and the scheduler samples each position from its own
logits: the first token that differs ends the run. So the text is the same with and without; only the time differs. A
proposal is made when it is expected to win: by how often such proposals held in this generation, and by what a column
more costs this engine.
"""

from __future__ import annotations

from array import array

#: tokens that must agree before anything is proposed
NGRAM = 3
#: tokens proposed at most
LONGEST_DRAFT = 8
#: a draft must promise so much more speed, or none is made
MARGIN = 1.05
#: what one more column costs before any was measured, as a part of a step of one token
USUAL_EXTRA = 0.25
#: weight of a new observation in a running mean
PACE = 0.15
#: matches of at least so many tokens share a rate, whose start is a guess
_CLASSES = ((3, 0.2), (5, 0.5), (9, 0.8))


class StepCosts:
    """What steps of one sequence cost on an engine: of one token, and more for each further one."""

    def __init__(self) -> None:
        self.single = 0.0  # seconds of a step of one token; 0: none was measured
        self.extra = USUAL_EXTRA

    def observe(self, columns: int, seconds: float) -> None:
        """A step of one sequence with so many tokens took so long. A pause of the machine counts little."""
        if columns == 1:
            self.single = self.single or seconds
            self.single += PACE * (min(seconds, 2 * self.single) - self.single)
        elif self.single:
            extra = (seconds / self.single - 1) / (columns - 1)
            self.extra += PACE * (min(max(extra, 0.0), 1.0) - self.extra)

    def forget(self) -> None:
        """A draft was too dear: drift towards the usual cost, so that it is measured again some day."""
        self.extra += 0.01 * (USUAL_EXTRA - self.extra)


class PromptLookup:
    """The proposals of one generation. Every token goes through `accept`, so rates are learned without drafts too."""

    def __init__(self, tokens: array[int]) -> None:
        self._rates = [rate for _, rate in _CLASSES]
        self.restart(tokens)

    def restart(self, tokens: array[int]) -> None:
        """The sequence is another one now, such as after a context shift; `tokens` is only read, and may grow."""
        self._tokens = tokens
        self._last: dict[bytes, int] = {}  # the latest place after each n-gram
        self._source = -1  # the place of the token that is expected next; -1: none
        self._matched = 0  # tokens before it that agree with the last ones
        for end in range(NGRAM, len(tokens)):
            self._last[tokens[end - NGRAM : end].tobytes()] = end
        self._look_up()

    def accept(self, token: int) -> None:
        """`token` has just been appended to the tokens."""
        at = len(self._tokens) - 1
        if at >= NGRAM:
            self._last[self._tokens[at - NGRAM : at].tobytes()] = at
        if self._source >= 0:
            is_hit = self._tokens[self._source] == token
            level = self._level()
            self._rates[level] += PACE * (is_hit - self._rates[level])
            self._source, self._matched = (self._source + 1, self._matched + 1) if is_hit else (-1, 0)
        if self._source < 0:
            self._look_up()

    def propose(self, most: int, costs: StepCosts) -> array[int]:
        """The next tokens, at most `most`: as many as are worth their columns, often none."""
        if self._source < 0:
            return self._tokens[:0]
        most = min(most, LONGEST_DRAFT, len(self._tokens) - self._source)
        rate, promise, best, length = self._rates[self._level()], 1.0, MARGIN, 0
        for drafted in range(1, most + 1):
            promise += rate**drafted
            if promise / (1 + costs.extra * drafted) > best:
                best, length = promise / (1 + costs.extra * drafted), drafted
        if length == 0:
            costs.forget()
        return self._tokens[self._source : self._source + length]

    def _level(self) -> int:
        return max(level for level, (least, _) in enumerate(_CLASSES) if self._matched >= least)

    def _look_up(self) -> None:
        end = len(self._tokens)
        source = self._last.get(self._tokens[end - NGRAM :].tobytes(), -1) if end >= NGRAM else -1
        if source < 0:
            return
        longest = min(source, _CLASSES[-1][0])
        matched = NGRAM
        while matched < longest and self._tokens[source - 1 - matched] == self._tokens[end - 1 - matched]:
            matched += 1
        self._source, self._matched = source, matched
