"""What is required of a daemon's interpreter: whether it has it, and one that does.

A script that attaches loads this file where it requires anything, so the rest is imported where it
is used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..definitions import Definition, ScriptDefinition
from ..environments import key
from ..environments.requirements import Requirements, read
from ..errors import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from typing import Any


def required(wanted: object, definition: Definition) -> Requirements | None:
    """What the option `requirements` means for this definition."""
    script = definition.script if isinstance(definition, ScriptDefinition) else None
    return read(wanted, _cwd(), script)


def difference(wanted: Requirements, executable: str) -> list[str]:
    """What keeps a daemon's interpreter from being one with these requirements, in words."""
    if key.has(executable, wanted):
        return []
    from ..environments.store import Store
    from ..paths import locate

    paths = locate()
    name = key.name_in(executable, os.fspath(paths.environments))
    built = Store(paths).environment(name).built() if name else None
    has = "without an environment of its own"
    if built:
        has = f"with {Requirements(built.requirements).summary()}"
        if tuple(wanted.shown()) == built.requirements:
            has += ", of which files or the versions of Python have changed,"
    return [f"it runs {has}, not with {wanted.summary()}"]


def base_of(found: dict[str, Any], python: str | None) -> dict[str, Any]:
    """What a daemon says of its interpreter, as the one that its environment was made with says.

    Told by the links alone: where `python` leads to the same file, it is that.
    """
    if python is None:
        return found
    base = os.path.realpath(found["executable"])
    paths: list[str | None] = [python, os.path.join(python, "bin", "python")]
    if os.sep not in python:
        from ..interpreters.spec import parse

        if parse(python) is not None:
            return found  # a version, which it tells itself
        from ..interpreters.choose import look  # by the name of an environment, or an alias

        paths = [look(python, os.environ, _cwd())]
    is_same = any(path and os.path.realpath(path) == base for path in paths)
    return {**found, "executable": python} if is_same else found


@contextmanager
def interpreter_with(
    wanted: Requirements,
    python: str | None,
    environ: Mapping[str, str],
    logger: logging.Logger,
    cwd: str | None = None,
) -> Iterator[str]:
    """The interpreter of an environment with these requirements, which is built if need be."""
    from ..environments.obtain import obtained
    from ..environments.progress import progress_to

    progress = progress_to(sys.stderr, logger.getChild("environments").info)
    with obtained(wanted, python, environ, cwd or _cwd(), progress) as environment:
        yield os.fspath(environment.python)


def _cwd() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise InvalidRequest(
            "the current directory was deleted, to which paths in requirements are relative"
        ) from None
