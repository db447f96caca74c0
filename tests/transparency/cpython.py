"""CPython's own tests of what a list, a tuple, a dict and a set are, for whatever acts as one.

They are written for classes that are not the builtin ones, too: `type2test` is any callable that
makes the thing under test, and a class that may be inherited from.
"""

import signal
import sys
import types
import unittest
from collections.abc import Callable
from typing import Any

from test import list_tests, mapping_tests, seq_tests, test_set

# A test that takes longer than this hangs; they take milliseconds, or a second over a slow channel.
TEST_SECONDS = 30


class Travelling:
    """Some tests send themselves along, in the closure of a class: their data, and no more."""

    def __reduce__(self) -> Any:
        shown = {name: value for name, value in vars(self).items() if name[:1] != "_"}
        return types.SimpleNamespace, (), shown


def suites(make: Callable[[str], Any]) -> dict[str, type[unittest.TestCase]]:
    """The test cases, each of what `make(name)` gives; it may give None for what it has not."""
    bases: dict[str, tuple[str, Any]] = {
        "list": ("type2test", list_tests.CommonTest),
        "tuple": ("type2test", seq_tests.CommonTest),
        "dict": ("type2test", mapping_tests.TestHashMappingProtocol),
        "set": ("thetype", test_set.TestJointOps),
    }
    found = {}
    for name, (attribute, base) in bases.items():
        made = make(name)
        parents = (Travelling, base)
        if not issubclass(base, unittest.TestCase):
            parents += (unittest.TestCase,)
        if made is not None:
            found[name] = type(name, parents, {attribute: made, "basetype": set})
    return found


def names(suite: type[unittest.TestCase]) -> list[str]:
    return list(unittest.defaultTestLoader.getTestCaseNames(suite))


def failure(suite: type[unittest.TestCase], name: str) -> str | None:
    """Runs one test: the last line of what went wrong, None if nothing did."""
    result = unittest.TestResult()
    lost: list[Any] = []  # what a finalizer raised: Python would only print it
    hook, sys.unraisablehook = sys.unraisablehook, lost.append
    alarm = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(TEST_SECONDS)
    try:
        suite(name).run(result)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, alarm)
        sys.unraisablehook = hook
    wrong = result.failures + result.errors
    if wrong:
        return wrong[0][1].strip().splitlines()[-1]
    return f"in a finalizer: {lost[0].exc_value!r}" if lost else None


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"takes longer than {TEST_SECONDS} s")
