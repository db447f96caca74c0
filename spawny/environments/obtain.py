"""An environment that has what is required: one that is there, or a new one.

Of any number of clients that need the same one at once, one builds it and the others wait.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..errors import InterpreterNotFound
from ..interpreters import find
from ..paths import locate
from . import indexes, key
from .bases import Base, base_of
from .build import Tools, build, find_uv
from .progress import Progress
from .requirements import Requirements
from .store import Environment, Lock, Store


@contextmanager
def obtained(
    wanted: Requirements,
    python: str | None,
    environ: Mapping[str, str],
    cwd: str,
    progress: Progress,
) -> Iterator[Environment]:
    """An environment with these requirements, made with the interpreter that `python` means here.

    It is built if need be. As long as the context lasts it cannot be removed. Raises
    `EnvironmentFailed` and `InterpreterNotFound`.
    """
    base = _base(wanted, python, environ, cwd)
    sources = indexes.read(environ, cwd)
    store = Store(locate())
    store.prepare()
    environment = store.environment(key.name_of(wanted, base, sources))
    lock = environment.lock()
    try:
        if not lock.try_share():
            _wait(lock, wanted, progress)
            lock.share()
        if environment.built() is None:
            if not lock.try_own():
                _wait(lock, wanted, progress)
                lock.own()
            # Whoever had it before us may have built it.
            if environment.built() is None:
                try:
                    _build(environment, lock, wanted, base, sources, environ, progress)
                except BaseException:
                    lock.close(remove=True)
                    raise
            lock.share()
        environment.touch()
        yield environment
    finally:
        lock.close()


def present(
    wanted: Requirements, python: str | None, environ: Mapping[str, str], cwd: str
) -> Environment | None:
    """One that is there already, wherever its packages came from; None where there is none.

    Raises `InterpreterNotFound`.
    """
    base = _base(wanted, python, environ, cwd)
    for environment in Store(locate()).all():
        if key.has(os.fspath(environment.python), wanted):
            built = environment.built()
            if built is not None and (built.base, built.version) == (
                base.executable,
                base.version_text,
            ):
                return environment
    return None


def _build(
    environment: Environment,
    lock: Lock,
    wanted: Requirements,
    base: Base,
    sources: indexes.Indexes,
    environ: Mapping[str, str],
    progress: Progress,
) -> None:
    uv = find_uv(environ)
    lock.tell(f"process {os.getpid()}")
    tools = Tools(sources.environ(environ), uv, progress, lock.fd)
    name = "uv" if uv else "venv and pip"
    progress.say(f"building an environment of Python {base.label} by {name}: {wanted.summary()}")
    try:
        build(environment, wanted, base, tools)
    finally:
        progress.close()
    built = environment.built()
    if built is not None:
        count = len(built.packages)
        packages = f"{count} package{'' if count == 1 else 's'}"
        progress.say(
            f"built it in {built.build_seconds:.1f} s, with {packages}: {environment.path}"
        )


def _wait(lock: Lock, wanted: Requirements, progress: Progress) -> None:
    who = lock.told() or "another process"
    progress.say(f"waiting for {who}, which works at the environment with {wanted.summary()}")


def _base(wanted: Requirements, python: str | None, environ: Mapping[str, str], cwd: str) -> Base:
    """The base of the interpreter that is meant; raises `InterpreterNotFound` for none."""
    needed = wanted.requires_python
    base = base_of(find(python or sys.executable, environ, cwd))
    if python is None and not base.satisfies(needed):
        base = base_of(find(needed, environ, cwd))
    if not base.satisfies(needed):
        raise InterpreterNotFound(
            f"Python {base.label} is not {needed}, which the requirements ask for: choose another"
            " interpreter"
        )
    return base
