"""From what a user writes to an executable: a path, a venv, or a version such as `3.9` or `pypy3`.

Nothing is executed to find out: names and files have to tell. Names are looked up as the client
would, on its PATH, then among its pyenv versions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import InterpreterNotFound
from .values import Interpreter

# 3.9, 3.9.18, python3.9, pypy3.9, pypy3, python
_VERSION = re.compile(r"(?P<name>python|pypy|cpython|graalpy)?-?(?P<version>\d+(\.\d+)*)?\Z")

_EXECUTABLE = re.compile(r"(python|pypy|graalpy)(\d+(\.\d+)?)?\Z")


def resolve(spec: str, environ: Mapping[str, str], cwd: str) -> Interpreter:
    """The interpreter that `spec` means to a client with this environment and directory.

    Raises `InterpreterNotFound`, which lists what there is.
    """
    if os.sep in spec or spec.startswith("~") or os.path.exists(os.path.join(cwd, spec)):
        path = _resolve_path(spec, environ, cwd)
    else:
        path = _resolve_version(spec, environ)
    if path is None:
        raise InterpreterNotFound(
            f"there is no Python interpreter {spec!r}; found were: {_found(environ)}"
        )
    return describe(path)


def describe(executable: str) -> Interpreter:
    """The interpreter at a path that is known to be one."""
    return Interpreter(executable, key_of(executable))


def key_of(executable: str) -> str:
    """What two paths have in common that start the same interpreter with the same packages.

    The venv, where it is one: its symbolic link leads to the interpreter it was made with, which
    has other packages. Otherwise the real file.
    """
    prefix = Path(executable).parent.parent
    if (prefix / "pyvenv.cfg").is_file():
        return os.path.realpath(prefix)
    return os.path.realpath(executable)


def _resolve_path(spec: str, environ: Mapping[str, str], cwd: str) -> str | None:
    if spec == "~" or spec.startswith("~" + os.sep):
        spec = environ.get("HOME", "~") + spec[1:]
    # Not realpath: the path of a venv's python is what makes it the venv's.
    path = os.path.normpath(os.path.join(cwd, spec))
    if os.path.isdir(path):
        names = ("python", "python3", "pypy3")
        return next(
            filter(_is_executable, (os.path.join(path, "bin", name) for name in names)), None
        )
    return path if _is_executable(path) else None


def _resolve_version(spec: str, environ: Mapping[str, str]) -> str | None:
    match = _VERSION.match(spec)
    if match is None:
        return _on_path(spec, environ)
    version = match["version"] or ""
    name = (match["name"] or "python").removeprefix("c")
    if version.count(".") < 2:
        # python3.9, pypy3: so are executables named. (A bare "2.7.18" is not.)
        return _on_path(name + version, environ) or _in_pyenv(name + version, "", environ)
    minor = ".".join(version.split(".")[:2])
    return _in_pyenv(name + minor, version, environ)


def _on_path(name: str, environ: Mapping[str, str]) -> str | None:
    for folder in _path_folders(environ):
        path = os.path.join(folder, name)
        if _is_executable(path):
            return path
    return None


def _path_folders(environ: Mapping[str, str]) -> Iterator[str]:
    # pyenv's shims are scripts that look for the version themselves, and fail for most; what they
    # lead to is found among the versions.
    shims = str(_pyenv_root(environ) / "shims")
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        if os.path.isabs(folder) and os.path.normpath(folder) != shims:
            yield folder


def _pyenv_root(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("PYENV_ROOT") or Path(environ.get("HOME", "/nonexistent")) / ".pyenv")


def _pyenv_versions(environ: Mapping[str, str]) -> list[Path]:
    """The newest first."""
    try:
        folders = list((_pyenv_root(environ) / "versions").iterdir())
    except OSError:
        return []
    numbers = {each: [int(part) for part in re.findall(r"\d+", each.name)] for each in folders}
    return sorted(folders, key=lambda each: (numbers[each], each.name), reverse=True)


def _in_pyenv(name: str, version: str, environ: Mapping[str, str]) -> str | None:
    """The newest pyenv version with an executable `name`, of exactly `version` where given."""
    prefix = "" if name.startswith("python") else name
    for folder in _pyenv_versions(environ):
        path = str(folder / "bin" / name)
        if version and folder.name not in (version, f"{prefix.rstrip('0123456789.')}{version}"):
            continue
        if _is_executable(path):
            return path
    return None


def _found(environ: Mapping[str, str]) -> str:
    """What a user could have meant, for a message."""
    names: dict[str, None] = {}
    for folder in _path_folders(environ):
        try:
            entries = os.listdir(folder)
        except OSError:
            continue
        names |= dict.fromkeys(sorted(each for each in entries if _EXECUTABLE.match(each)))
    names |= dict.fromkeys(f"{each.name} (pyenv)" for each in _pyenv_versions(environ))
    return ", ".join(names) or "none at all"


def _is_executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)
