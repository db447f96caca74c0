"""The interpreter that a user means, out of those that there are.

One rule: what is named by a path, a directory, an alias or an environment's name is that one; a
version is the newest plain interpreter that has it. Plain: no virtual environment, whose packages
are somebody's own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from ..errors import InterpreterNotFound
from ..paths import locate as locate_files
from . import places, spec
from .cache import PASSING_SECONDS, Cache
from .found import Found
from .places import Candidate
from .probe import Report, probe

# So many are named in a message; `spawny pythons` shows all.
_SHOWN = 20

Progress = Callable[[int, int], object]


def pythons(*, refresh: bool = False, progress: Progress | None = None) -> list[Found]:
    """The Python interpreters on this machine, the first choices first: plain ones, then
    environments, then those that cannot run a daemon.

    Each is executed once, and again when its file has changed or with `refresh`; one that hangs
    costs 5 seconds. `progress` is called with how many have answered, out of how many.
    """
    found = survey(os.environ, _directory(), refresh=refresh, progress=progress)
    found.sort(key=lambda each: (each.can_run, not each.environment, _rank(each)), reverse=True)
    return found


def find(
    text: str,
    environ: Mapping[str, str] | None = None,
    cwd: str | None = None,
    *,
    refresh: bool = False,
) -> Found:
    """The interpreter that a user with this environment and directory means, ready for a daemon.

    By default those of this process. It is executed where it was not before; `refresh`: in any
    case. Raises `InterpreterNotFound`, which lists what there is, or says why it cannot run a
    daemon.
    """
    environ = os.environ if environ is None else environ
    cwd = _directory() if cwd is None else cwd
    path = locate(text, environ, cwd)
    (found,) = _Survey(environ, refresh=refresh).founds([_candidate(path, environ, cwd)], 0)
    if not found.can_run:
        raise InterpreterNotFound(f"{path} cannot run a daemon: {found.problem}")
    return found


def locate(text: str, environ: Mapping[str, str], cwd: str) -> str:
    """The path of the interpreter that is meant; others are executed only to find a version.

    Raises `InterpreterNotFound`.
    """
    path = look(text, environ, cwd)
    if path is not None:
        return path
    meant = dealiased(text)
    shown = repr(text) if meant == text else f"{text!r} (an alias of {meant!r})"
    raise InterpreterNotFound(
        f"there is no Python interpreter {shown}; found were: {_list(environ, cwd)}"
    )


def look(text: str, environ: Mapping[str, str], cwd: str) -> str | None:
    """As `locate`, or None."""
    meant = dealiased(text)
    path = at_path(meant, environ, cwd)
    return path if path or _is_path(meant) else _by_name(meant, environ, cwd)


def dealiased(text: str) -> str:
    """What an alias of the configuration stands for; the text itself, where it is none."""
    if not text or _is_path(text) or spec.parse(text) is not None:
        return text
    from .. import config  # which knows what an alias may be called, from here

    return config.pythons(locate_files().config_file).get(text, text)


def at_path(text: str, environ: Mapping[str, str], cwd: str) -> str | None:
    """The interpreter that a path, or the directory of an environment, leads to; nothing is
    executed. None where there is none, or for what looks like a version: `./3.9` is a path."""
    if not text or (not _is_path(text) and spec.parse(text) is not None):
        return None
    if text == "~" or text.startswith("~" + os.sep):
        text = environ.get("HOME", "~") + text[1:]
    # Not realpath: the path of a venv's python is what makes it the venv's.
    path = os.path.normpath(os.path.join(cwd, text))
    if os.path.isdir(path):
        path = places.in_environment(path) or path
    return path if places.is_executable(path) else None


def _is_path(text: str) -> bool:
    return os.sep in text or text.startswith("~")


def survey(
    environ: Mapping[str, str],
    cwd: str,
    *,
    refresh: bool = False,
    progress: Progress | None = None,
) -> list[Found]:
    """All interpreters that a user with this environment and directory has, each once.

    `refresh` asks them all again; `progress` is told how many of those that are asked have answered
    and how many there are.
    """
    every = _Survey(environ, refresh=refresh, progress=progress)
    return every.founds(places.candidates(environ, cwd))


def _directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was deleted
        return os.sep


class _Survey:
    """What candidates say of themselves, now or before."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        refresh: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._environ = environ
        self._cache = Cache(environ)
        self._refresh = refresh
        self._progress = progress
        self._heard: dict[str, Report] = {}

    def founds(
        self, candidates: Iterable[Candidate], passing_seconds: float = PASSING_SECONDS
    ) -> list[Found]:
        """These, each once; what may have changed without a trace is believed for so long."""
        reports: dict[Candidate, Report] = {}
        asked: dict[str, Candidate] = {}
        for each in candidates:
            cached = self._cache.get(each.path, passing_seconds)
            known = self._heard.get(each.path) or (None if self._refresh else cached)
            if known is None:
                asked[each.path] = each
            reports[each] = known or Report()  # in their order
        for count, (path, report) in enumerate(probe(list(asked), self._environ), 1):
            reports[asked[path]] = self._heard[path] = report
            self._cache.put(path, report)
            if self._progress is not None:
                self._progress(count, len(asked))
        self._cache.save()
        return _merged(reports)


def _by_name(name: str, environ: Mapping[str, str], cwd: str) -> str | None:
    wanted = spec.parse(name)
    if not name:
        return None
    if wanted is None:
        return _environment(name, environ, cwd) or places.on_path(name, environ)
    # What a shell would execute. Not so pypy, which is often that of Python 2.
    if name.startswith("python") and spec.is_executable_name(name):
        path = places.on_path(name, environ)
        if path is not None:
            return path
    best = _best(wanted, environ, cwd)
    return best.path if best else None


def _best(wanted: spec.Wanted, environ: Mapping[str, str], cwd: str) -> Found | None:
    plain = [
        each
        for each in places.candidates(environ, cwd)
        if not each.is_environment and wanted.may_be(os.path.basename(each.path))
    ]
    every = _Survey(environ)
    # One that has hung before is waited for again only where it may be the only one. Perhaps the
    # machine was busy.
    return _newest(wanted, every.founds(plain, math.inf)) or _newest(wanted, every.founds(plain, 0))


def _newest(wanted: spec.Wanted, founds: Iterable[Found]) -> Found | None:
    fitting = [
        each
        for each in founds
        if each.can_run
        and not each.environment
        and wanted.allows(each.implementation, each.version)
    ]
    return max(fitting, key=_rank, default=None)


def _rank(found: Found) -> tuple[bool, bool, bool, tuple[int, ...], bool]:
    return (
        not found.is_prerelease,
        not found.is_free_threaded,
        found.implementation == "cpython",
        found.version,
        "PATH" in found.sources,
    )


def _environment(name: str, environ: Mapping[str, str], cwd: str) -> str | None:
    """The interpreter of the environment, or of the installation, that is called so."""
    named = (each for each in places.candidates(environ, cwd) if each.name == name)
    return next((each.path for each in named if places.is_executable(each.path)), None)


def _candidate(path: str, environ: Mapping[str, str], cwd: str) -> Candidate:
    """Where it was found, if it was not given as a path."""
    there = places.candidates(environ, cwd)
    return next((each for each in there if each.path == path), Candidate(path, ("path",)))


def _merged(reports: Mapping[Candidate, Report]) -> list[Found]:
    """Each once: a script that leads to an interpreter is no other one."""
    merged: dict[tuple[str, str], Found] = {}
    for candidate, report in reports.items():
        each = _found(candidate, report)
        itself = os.path.realpath(report.executable) if report.executable else each.path
        before = merged.get((itself, each.prefix))
        if before is not None:
            is_itself = os.path.realpath(before.path) == itself
            sources = tuple(dict.fromkeys(before.sources + each.sources))
            each = replace(before if is_itself else each, sources=sources)
        merged[itself, each.prefix] = each
    return list(merged.values())


def _found(candidate: Candidate, report: Report) -> Found:
    is_environment = candidate.is_environment or report.prefix != report.base_prefix
    name = candidate.name or os.path.basename(report.prefix)
    return Found(
        path=candidate.path,
        version=report.version,
        version_text=report.version_text,
        implementation=report.implementation,
        prefix=report.prefix,
        base_prefix=report.base_prefix,
        environment=name if is_environment else "",
        sources=candidate.sources,
        problem=report.problem,
        remark=report.remark,
        is_prerelease=report.is_prerelease,
        is_free_threaded=report.is_free_threaded,
    )


def _list(environ: Mapping[str, str], cwd: str) -> str:
    """What a user could have meant, for a message."""
    there = places.candidates(environ, cwd)
    plain = _Survey(environ).founds(each for each in there if not each.is_environment)
    good = sorted((each for each in plain if each.can_run), key=_rank, reverse=True)
    shown = [f"{each.implementation} {each.version_text} ({each.path})" for each in good]
    shown += [f"{each.path} ({each.problem})" for each in plain if not each.can_run]
    shown += [f"the environment {each.name}" for each in there if each.is_environment]
    more = f" and {len(shown) - _SHOWN} more: see spawny pythons" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more or "none at all"
