"""What one rendering of a chat template may cost: time, loop turns, depth and bytes.

A template comes with a model file and is untrusted. The sandbox (sandbox.py, filters.py) asks the budget of
the rendering that runs in this thread before each operation whose cost the template chooses, and charges it
afterwards. Nothing here knows Jinja.
"""

import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from sys import getsizeof
from typing import Any, NamedTuple, TypeVar

SECONDS = 3.0
TURNS = 1_000_000
DEPTH = 64
OUTPUT_BYTES = 16 << 20
#: What a rendering may build, freed strings and lists included, besides INPUT_FACTOR times its input.
BUILT_BYTES = 16 << 20
INPUT_FACTOR = 32
MAX_BUILT_BYTES = 512 << 20
#: Items of one list that a template makes, and characters of a string that is taken apart.
ITEMS = 1 << 18
#: Values inside one container that is printed, compared or written as JSON.
NODES = 1 << 18

T = TypeVar("T")
CONTAINERS = (list, tuple, dict, ItemsView, KeysView, ValuesView)


class BudgetError(Exception):
    """A rendering asked for more than its budget."""


class Weight(NamedTuple):
    """How big a value is when all of it is visited; what is reachable on two ways counts twice."""

    nodes: int
    characters: int
    depth: int


class Budget:
    """The account of one rendering."""

    def __init__(self, input_bytes: int) -> None:
        self.deadline = time.monotonic() + SECONDS
        self.turns_left = TURNS
        self.depth_left = DEPTH
        self.bytes_left = min(BUILT_BYTES + INPUT_FACTOR * input_bytes, MAX_BUILT_BYTES)

    def tick(self) -> None:
        """One operation: stops a rendering that takes too long."""
        if time.monotonic() > self.deadline:
            raise BudgetError(f"the template takes longer than {SECONDS:g} seconds")

    def turn(self) -> None:
        """One turn of a loop or one call of a macro."""
        self.turns_left -= 1
        if self.turns_left < 0:
            raise BudgetError(f"the template takes more than {TURNS} loop turns")
        self.tick()

    @contextmanager
    def level(self) -> Iterator[None]:
        """One level of recursion."""
        if self.depth_left == 0:
            raise BudgetError(f"the template recurses deeper than {DEPTH} levels")
        self.depth_left -= 1
        try:
            yield
        finally:
            self.depth_left += 1

    def room(self, size: int) -> None:
        """Refuse to build something of `size` bytes or characters that cannot be paid for."""
        if size > self.bytes_left:
            raise BudgetError("the template builds too much text")

    def spend(self, size: int) -> None:
        """Pay for `size` bytes."""
        self.room(size)
        self.bytes_left -= size

    def charge(self, value: T) -> T:
        """Pay for a string or container (not for what it holds) and return it."""
        if isinstance(value, (str, list, tuple, dict)):
            self.spend(getsizeof(value))
        return value


_current: ContextVar[Budget] = ContextVar("template budget")


def current() -> Budget:
    """The budget of the rendering that runs."""
    return _current.get()


@contextmanager
def started(input_bytes: int) -> Iterator[Budget]:
    """Give the renderings inside this block a fresh budget."""
    budget = Budget(input_bytes)
    token = _current.set(budget)
    try:
        yield budget
    finally:
        _current.reset(token)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return (part for pair in value.items() for part in pair)
    return value  # type: ignore[no-any-return]


def measure(value: Any) -> Weight:
    """The weight of a value. Shared parts count each time, as they do when it is printed or compared."""
    budget = current()
    nodes = characters = deepest = 0
    stack: list[tuple[Any, int]] = [((value,), 0)]
    while stack:
        budget.tick()
        container, depth = stack.pop()
        deepest = max(deepest, depth)
        nodes += len(container)
        if nodes > NODES:
            raise BudgetError(f"a value of the template has more than {NODES} parts")
        for part in _parts(container):
            if isinstance(part, str):
                characters += len(part)
            elif isinstance(part, CONTAINERS):
                stack.append((part, depth + 1))
    return Weight(nodes, characters, deepest)


def comparable(value: T) -> T:
    """A value that can be compared, hashed or sorted in bounded time."""
    current().tick()
    if isinstance(value, CONTAINERS):
        measure(value)
    return value


def text(value: Any) -> str:
    """What a value prints as; a container is measured first."""
    budget = current()
    budget.tick()
    if type(value) is str:
        return value
    if isinstance(value, CONTAINERS):
        weight = measure(value)
        budget.room(weight.characters + 8 * weight.nodes)
    return str(value)


def items(value: Iterable[Any]) -> list[Any]:
    """The items of an iterable, at most ITEMS of them."""
    found = list(islice(value, ITEMS + 1))
    if len(found) > ITEMS:
        raise BudgetError(f"a list of the template has more than {ITEMS} items")
    return current().charge(found)


def few(count: int) -> int:
    """A count of list items that the template chose."""
    if count > ITEMS:
        raise BudgetError(f"a list of the template has more than {ITEMS} items")
    return count
