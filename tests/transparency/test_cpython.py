"""CPython's own tests of its collections, against proxies of collections in a real daemon.

Each must pass, but those that `known.py` lists: these must fail, or the list would not be true.
"""

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip(
    "test.list_tests",
    reason="this interpreter comes without the package `test` (Debian: libpython3-testsuite)",
)

import spawny
from spawny import ObjectProxy
from tests.transparency import candidates, cpython
from tests.transparency.known import KNOWN

Suites = dict[str, Any]

# Their names are the same whatever they test.
TESTS = {
    name: cpython.names(suite)
    for name, suite in cpython.suites(lambda name: getattr(candidates.builtins, name)).items()
}


@pytest.fixture(scope="module")
def module() -> Iterator[Any]:
    """One daemon for all of them."""
    module: Any = spawny.run_script(candidates.SCRIPT)
    yield module
    module.terminate_daemon()


@pytest.fixture(scope="module")
def suites(module: Any) -> Suites:
    return cpython.suites(candidates.spawny_types(module))


def _parameters() -> Iterator[Any]:
    for suite, tests in TESTS.items():
        for name in tests:
            reason = KNOWN[suite].get(name)
            marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
            yield pytest.param(suite, name, id=f"{suite}-{name}", marks=marks)


@pytest.mark.parametrize(("suite", "name"), list(_parameters()))
def test_as_python_tests_it(suites: Suites, suite: str, name: str) -> None:
    """Whatever CPython demands of the builtin, the proxy does; but for what is known, with why."""
    if wrong := cpython.failure(suites[suite], name):
        pytest.fail(wrong, pytrace=False)


@pytest.mark.parametrize("suite", TESTS)
def test_what_is_tested_is_remote(suites: Suites, suite: str) -> None:
    """Each thing under test is a proxy, and what inherits from its class is one, too."""
    kind = getattr(suites[suite], "type2test", None) or suites[suite].thetype

    class Derived(kind):  # type: ignore[misc, valid-type]
        pass

    for made in (kind(), kind([]), Derived([])):
        assert issubclass(type(made), ObjectProxy)


def test_known_failures_are_tests() -> None:
    """What is listed exists."""
    for suite, known in KNOWN.items():
        assert set(known) <= set(TESTS[suite])


@pytest.mark.parametrize("suite", TESTS)
def test_the_tests_can_be_passed(suite: str) -> None:
    """By the builtins themselves, in the form in which these tests are run here."""
    with candidates.builtin_candidate() as make:
        case = cpython.suites(make)[suite]
        assert {
            name: wrong for name in TESTS[suite] if (wrong := cpython.failure(case, name))
        } == {}
