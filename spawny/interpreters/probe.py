"""What interpreters say of themselves, each executed once, many side by side.

One rule: whatever a candidate does when it is executed (crash, hang, print rubbish, nothing) ends
as the reason in its report. They are executed by `prober.py`, a process that ends what it started
when we are gone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from .. import children

# What an interpreter gets to start and import what a daemon needs; a tenth of it is usual.
SECONDS = 5.0

# Those that hang do nothing meanwhile, so that there may be more than processors.
AT_ONCE = 8

_PROBER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "prober.py")
_KERNEL = os.path.join(os.path.dirname(os.path.dirname(_PROBER)), "kernel")

# They would have it start another interpreter, or load packages of another one. A daemon that runs
# under another interpreter than its client does not have them, either. Nor is it what the client is
# a daemon of.
_DROPPED = ("SPAWNY_", "PYTHON", "VIRTUAL_ENV", "CONDA_", "__PYVENV_LAUNCHER__", "PYENV_VERSION")


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a file that may be an interpreter; `problem`: why it can run no daemon."""

    version: tuple[int, ...] = ()
    version_text: str = ""
    implementation: str = ""
    executable: str = ""
    prefix: str = ""
    base_prefix: str = ""
    is_prerelease: bool = False
    is_free_threaded: bool = False
    problem: str = ""
    remark: str = ""
    is_passing: bool = False
    """It may be another the next time, without a change of the file: it took too long."""
    is_untried: bool = False
    """It could not be executed for a reason of our own, which says nothing of it."""


def probe(
    paths: Sequence[str], environ: Mapping[str, str], seconds: float = SECONDS
) -> Iterator[tuple[str, Report]]:
    """Ask each of these; each with its report, in the order in which they are there."""
    asked = []
    for path in dict.fromkeys(paths):
        problem = why_no_program(path)
        if problem:
            yield path, Report(problem=problem)
        else:
            asked.append(path)
    if asked:
        yield from _ask(asked, environ, seconds)


def why_no_program(path: str) -> str:
    """Why this cannot be executed, as far as can be said without doing it; empty: it can."""
    if not os.path.exists(path):
        if os.path.islink(path):
            return f"its interpreter is gone: {os.path.realpath(path)}"
        return "there is no such file"
    if not os.path.isfile(path):
        return "it is a directory" if os.path.isdir(path) else "it is no regular file"
    if not os.access(path, os.X_OK):
        return "it is not executable"
    return ""


def _ask(
    paths: list[str], environ: Mapping[str, str], seconds: float
) -> Iterator[tuple[str, Report]]:
    request = {
        "paths": paths,
        "environ": {name: value for name, value in environ.items() if _is_kept(name)},
        "kernel": _KERNEL,
        "seconds": seconds,
        "at_once": AT_ONCE,
    }
    left = dict.fromkeys(paths)
    try:
        prober = children.start(
            [sys.executable, "-I", "-S", _PROBER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # it ends by its input, not by Ctrl-C
        )
    except OSError as error:
        reason = f"it could not be tried: {error.strerror or error}"
    else:
        reason = "it could not be tried: what was to try it has failed"
        with prober:
            assert prober.stdin and prober.stdout
            try:
                prober.stdin.write(json.dumps(request).encode() + b"\n")
                prober.stdin.flush()
                for line in prober.stdout:
                    told = json.loads(line)
                    del left[told["path"]]
                    yield told["path"], _report(told, seconds)
            except (BrokenPipeError, ValueError, KeyError):
                pass  # it was killed
            finally:
                prober.stdin.close()
    for path in left:
        yield path, Report(problem=reason, is_untried=True)


def _is_kept(name: str) -> bool:
    return not name.startswith(_DROPPED)


def _report(told: Mapping[str, object], seconds: float) -> Report:
    """From what the prober tells of one."""
    path = str(told["path"])
    if told.get("error"):
        return Report(problem=f"it cannot be executed: {told['error']}")
    if told.get("answer"):
        report = read(str(told["answer"]))
        # A script that finds another interpreter may find yet another one tomorrow.
        is_itself = os.path.realpath(report.executable) == os.path.realpath(path)
        return report if is_itself else replace(report, is_passing=True)
    if told.get("late"):
        return Report(problem=f"it did not answer within {seconds:g} s", is_passing=True)
    if told.get("endless"):
        return Report(problem="it prints without end")
    return Report(problem=_why_no_answer(told.get("code"), str(told.get("stderr", ""))))


def read(answer: str) -> Report:
    """From what an interpreter says of itself; what makes no sense is its problem."""
    nonsense = Report(problem="what it says of itself makes no sense")
    try:
        said = json.loads(answer)
        texts = {name: said[name] for name in _TEXTS}
        version, no_ssl, flags, level = (
            said[name] for name in ("version", "no_ssl", "abiflags", "level")
        )
    except (ValueError, KeyError, TypeError):
        return nonsense
    is_version = isinstance(version, list) and len(version) == 3
    if not is_version or any(type(each) is not int for each in version):
        return nonsense
    if any(not isinstance(each, str) for each in (*texts.values(), no_ssl, flags, level)):
        return nonsense
    return Report(
        version=tuple(version),
        is_prerelease=level != "final",
        is_free_threaded="t" in flags,
        remark=f"no ssl ({no_ssl})" if no_ssl else "",
        **texts,
    )


_TEXTS = ("version_text", "implementation", "executable", "prefix", "base_prefix", "problem")


def _why_no_answer(code: object, stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    said = f": {lines[-1][:200]}" if lines else ""
    if isinstance(code, int) and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"it was killed by {name}{said}"
    if code == 0:
        return f"it ends without an answer{said}"
    return f"it ends with exit code {code}{said}"
