"""What counts as an element of a container, and how much is done to find out about it."""

import pickle
import threading
from collections import OrderedDict
from fractions import Fraction
from typing import Any

import pytest

from spawny.kernel import elements
from spawny.kernel.elements import Trial, elements_of, shape_of


class Node:
    """One of many that all hold each other."""

    def __init__(self, others: list[Any]) -> None:
        self.others = others


def test_elements_are_found_at_any_depth() -> None:
    """Each object once, in keys and values; neither containers nor atoms are among them."""
    one, two, three = Fraction(1), Fraction(2), OrderedDict(a=Fraction(3))
    nested: Any = [one, 1, "text", {two: (one, [three])}, frozenset([two]), None]
    assert [id(each) for each in elements_of(nested)] == [id(each) for each in (one, two, three)]


def test_a_container_in_itself_has_an_end() -> None:
    """It is looked into once."""
    outer: list[Any] = [Fraction(1)]
    outer.append(outer)
    assert elements_of(outer) == [Fraction(1)]


def test_depth_takes_no_stack() -> None:
    """A container in a container, a hundred thousand times, is no error."""
    nested: list[Any] = [Fraction(1)]
    for _ in range(100_000):
        nested = [nested]
    assert elements_of(nested) == [Fraction(1)]
    while nested and type(nested[0]) is list:  # or the interpreter would recurse to free it
        nested = nested[0]


def test_a_trial_pickles_or_does_not() -> None:
    """What pickle refuses has no pickle; whatever else fails in it does no harm either."""
    trial = Trial(3, 4)
    assert pickle.loads(trial.pickled(Fraction(1, 2))[0]) == Fraction(1, 2)
    assert trial.pickled(threading.Lock()) == (None, ())
    assert trial.pickled(Fraction(3))[0] is not None


def test_a_trial_visits_so_many_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """What elements share is visited for each of them, until the limit of all is reached."""
    monkeypatch.setattr(elements, "VISITS", 10_000)
    nodes: list[Any] = []
    nodes += [Node(nodes) for _ in range(100)]
    trial = Trial(len(nodes), 4)
    pickled = [trial.pickled(each)[0] for each in nodes]
    assert pickled[0] is not None and pickled[-1] is None


def test_a_trial_copies_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of what is shared and large."""
    monkeypatch.setattr(elements, "COPIED_BYTES", 10_000)
    text = "x" * 4000
    nodes = [Node([text]) for _ in range(5)]
    trial = Trial(len(nodes), 4)
    assert [trial.pickled(each)[0] is None for each in nodes] == [False] * 3 + [True] * 2


@pytest.mark.parametrize(
    "container",
    [[Fraction(1), 2], {Fraction(1): Fraction(2)}, {Fraction(3)}, ([Fraction(1)], 1), [[{}]]],
    ids=str,
)
def test_a_shape_is_a_copy_with_the_same_elements(container: Any) -> None:
    """Whatever is done to the container later."""
    shape = shape_of(container)
    assert shape == container and type(shape) is type(container)
    before = [id(each) for each in elements_of(container)]
    if hasattr(container, "clear"):
        container.clear()
    else:
        container[0].clear()
    assert [id(each) for each in elements_of(shape)] == before


def test_a_shape_keeps_what_is_in_itself() -> None:
    """And what is there twice is there twice."""
    outer: list[Any] = [[]]
    outer += [outer, outer[0]]
    shape = shape_of(outer)
    assert shape is not outer and shape[1] is shape and shape[2] is shape[0]
