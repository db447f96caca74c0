"""CPython's own tests of executors, run on ours.

Its `test` package is part of Python's installation, but some installations leave it out.
"""

import importlib
import sys
import unittest
from collections.abc import Iterator
from typing import Any

import pytest

import spawny
from tests.conftest import private_home

suite = pytest.importorskip(
    "test.test_concurrent_futures",
    reason=f"{sys.executable} came without CPython's tests (the package test)",
    exc_type=ImportError,
)


@pytest.fixture(scope="module", autouse=True)
def home() -> Iterator[None]:
    """One home for all: these tests start many daemons, and each looks after its own."""
    with pytest.MonkeyPatch.context() as monkeypatch, private_home() as path:
        monkeypatch.setenv("SPAWNY_HOME", str(path))
        # The two threads that spawny has as long as the process runs are no leak of any test.
        spawny.run_script("")
        yield


BY_NAME = "looks the executor up in concurrent.futures, by the name of its class"

DOES_NOT_APPLY = {
    "test_interpreter_shutdown": BY_NAME,
    "test_submit_after_interpreter_shutdown": BY_NAME,
    "test_hang_gh83386": BY_NAME,
}


def find(module: str, name: str) -> Any:
    """A class of the suite: in a module of its own from 3.12 on, before that in the only one."""
    if hasattr(suite, "__path__"):
        return getattr(importlib.import_module(f"{suite.__name__}.{module}"), name)
    return getattr(suite, name)


class DaemonsMixin(find("util", "ExecutorMixin")):  # type: ignore[misc]
    executor_type = spawny.Executor


def run_on_ours(module: str, name: str) -> type[unittest.TestCase]:
    """The test case that a mixin of the suite makes with our executor."""
    mixin = find(module, name)
    case = type(f"Daemons{name}", (mixin, DaemonsMixin, find("util", "BaseTestCase")), {})
    for test, reason in DOES_NOT_APPLY.items():
        if hasattr(case, test):
            setattr(case, test, not_applicable(getattr(case, test), reason))
    return case


def not_applicable(test: Any, reason: str) -> Any:
    @pytest.mark.xfail(strict=True, reason=reason)
    def run(self: unittest.TestCase) -> None:
        test(self)

    return run


TestExecutor = run_on_ours("executor", "ExecutorTest")
TestWait = run_on_ours("test_wait", "WaitTests")
TestAsCompleted = run_on_ours("test_as_completed", "AsCompletedTests")
TestShutdown = run_on_ours("test_shutdown", "ExecutorShutdownTest")
TestInitializer = run_on_ours("test_init", "InitializerMixin")
TestFailingInitializer = run_on_ours("test_init", "FailingInitializerMixin")
