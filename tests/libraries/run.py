"""Well-known libraries in daemons that require them: python -m tests.libraries.run [NAME...]

Needs a package index, and minutes the first time. Each library runs in a daemon that was started
plainly and in two whose `preload` names it. Fails on any wrong answer.
"""

import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass

import spawny
from tests.libraries.cases import CASES, Case

# A cold import of the largest from a slow disk.
START_SECONDS = 300

HEAD = ("REQUIREMENT", "PYTHON", "VERSION", "BUILT", "PLAIN", "PRELOAD", "AGAIN", "RESULT")


@dataclass(frozen=True)
class Outcome:
    """What became of a case; times are in seconds, of a start until its first answer."""

    version: str = "-"
    build: float = 0.0
    plain: float = 0.0
    preload: float = 0.0
    again: float = 0.0
    result: str = "right"
    is_wrong: bool = False


def main(names: list[str]) -> int:
    """Run those whose requirement begins with one of the names; all without any."""
    home = tempfile.mkdtemp(prefix="sp-", dir="/tmp")
    os.environ["SPAWNY_HOME"] = home
    logging.getLogger("spawny").addHandler(logging.NullHandler())  # the table says what matters
    chosen = [each for each in CASES if not names or each.requirement.startswith(tuple(names))]
    outcomes = []
    try:
        for case in chosen:
            outcomes.append(_outcome(case))
            print(f"{case.requirement} on {case.python}: {outcomes[-1].result}", flush=True)
    finally:
        with spawny.connect() as supervisor:
            supervisor.shutdown()
        shutil.rmtree(home, ignore_errors=True)
    _show(chosen, outcomes)
    return 1 if not chosen or any(each.is_wrong for each in outcomes) else 0


def _outcome(case: Case) -> Outcome:
    begin = time.monotonic()
    try:
        spawny.run_script("", case.python, requirements=[case.requirement])
    except spawny.InterpreterNotFound:
        return Outcome(result=f"not run: there is no Python {case.python}")
    except spawny.EnvironmentFailed as error:
        reason = str(error).splitlines()[-1]
        if case.optional:
            return Outcome(result=f"not run: {case.optional}")
        return Outcome(result=f"not built: {reason}", is_wrong=True)
    build = time.monotonic() - begin
    try:
        version, plain = _answer(case, {})
        _, preload = _answer(case, {"preload": [case.preload]})
        _, again = _answer(case, {"preload": [case.preload]})
    except Exception as error:  # whatever a library may raise
        return Outcome(build=build, result=f"{type(error).__name__}: {error}", is_wrong=True)
    return Outcome(version, build, plain, preload, again)


def _answer(case: Case, options: Mapping[str, object]) -> tuple[str, float]:
    """The library's version, and how long its first answer took; raises where that is wrong."""
    begin = time.monotonic()
    there = spawny.run_script(
        case.script,
        case.python,
        requirements=[case.requirement],
        start_timeout=START_SECONDS,
        **options,  # type: ignore[typeddict-item]
    )
    answer = there.answer()
    seconds = time.monotonic() - begin
    if answer != case.answer:
        raise AssertionError(f"it answers {answer!r}, not {case.answer!r}")
    if there.answer() != case.answer:
        raise AssertionError("it answers otherwise the second time")
    return str(there.version), seconds


def _show(cases: list[Case], outcomes: list[Outcome]) -> None:
    from spawny.cli import show

    rows = [
        (
            case.requirement,
            case.python,
            one.version,
            *(f"{each:.2f} s" for each in (one.build, one.plain, one.preload, one.again)),
            one.result,
        )
        for case, one in zip(cases, outcomes, strict=True)
    ]
    print(show.table(HEAD, rows, numbers={"BUILT", "PLAIN", "PRELOAD", "AGAIN"}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
