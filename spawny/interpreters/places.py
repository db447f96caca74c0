"""Where interpreters may be. Files and directories are looked at; nothing is executed.

What `py` of Windows reads from the registry does not exist elsewhere; the `py` of Unix looks at
`VIRTUAL_ENV`, at `.venv` in the directory and on the PATH, as is done here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from . import spec

# In this order: a directory may have several that are the same.
_IN_ENVIRONMENT = ("python", "python3", "pypy3", "pypy", "graalpy")

_DISTRIBUTION = ("/usr/local/bin", "/usr/bin", "/bin", "/opt/homebrew/bin")

# With a directory for each interpreter.
_DISTRIBUTIONS = ("/opt", "/opt/python", "/Library/Frameworks/Python.framework/Versions")

# Below the home, and for all users.
_CONDA = ("miniconda3", "anaconda3", "miniforge3", "mambaforge", "micromamba", "conda")
_CONDA_BASES = tuple(f"/opt/{name}" for name in _CONDA)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may be an interpreter; `name` is what its environment or installation is called.

    `sources` says where it was found.
    """

    path: str
    sources: tuple[str, ...]
    name: str = ""
    is_environment: bool = False


def candidates(environ: Mapping[str, str], cwd: str) -> list[Candidate]:
    """All that may be interpreters to a user with this environment and directory, each once."""
    found: dict[str, Candidate] = {}
    for each in _all(_Home(environ), environ, cwd):
        key = key_of(each.path)
        before = found.get(key)
        if before is None:
            found[key] = each
        else:
            sources = tuple(dict.fromkeys(before.sources + each.sources))
            is_environment = before.is_environment or each.is_environment
            name = before.name or each.name
            found[key] = replace(before, sources=sources, name=name, is_environment=is_environment)
    return list(found.values())


def key_of(executable: str) -> str:
    """What two paths have in common that start the same interpreter with the same packages.

    The venv, where it is one: its symbolic link leads to the interpreter it was made with, which
    has other packages. Otherwise the real file.
    """
    prefix = os.path.dirname(os.path.dirname(executable))
    if os.path.isfile(os.path.join(prefix, "pyvenv.cfg")):
        return os.path.realpath(prefix)
    return os.path.realpath(executable)


def in_environment(folder: str) -> str | None:
    """The interpreter of an environment's directory, or of an installation's."""
    paths = [os.path.join(folder, "bin", name) for name in _IN_ENVIRONMENT]
    return next(filter(is_executable, paths), None) or next(filter(os.path.islink, paths), None)


def on_path(name: str, environ: Mapping[str, str]) -> str | None:
    """What a shell would execute, but for shims."""
    paths = (os.path.join(folder, name) for folder in _path_folders(environ))
    return next(filter(is_executable, paths), None)


def is_executable(path: str) -> bool:
    """Whether it is a file that may be executed."""
    return os.path.isfile(path) and os.access(path, os.X_OK)


class _Home:
    """Directories below the user's home, where variables do not say otherwise."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._home = environ.get("HOME") or "/nonexistent"

    def of(self, variable: str, *below: str) -> str:
        """What the variable says, or this below the home."""
        return self._environ.get(variable) or os.path.join(self._home, *below)

    def at(self, *below: str) -> str:
        return os.path.join(self._home, *below)

    def data(self, *below: str) -> str:
        return os.path.join(self.of("XDG_DATA_HOME", ".local", "share"), *below)

    def cache(self, *below: str) -> str:
        return os.path.join(self.of("XDG_CACHE_HOME", ".cache"), *below)


def _all(home: _Home, environ: Mapping[str, str], cwd: str) -> Iterator[Candidate]:
    for folder in _path_folders(environ):
        yield from _plain(folder, "PATH")
    if active := environ.get("VIRTUAL_ENV"):
        yield from _environment(active, "VIRTUAL_ENV")
    for name in (".venv", "venv"):
        yield from _environment(os.path.join(cwd, name), "directory")
    yield from _pyenv(home.of("PYENV_ROOT", ".pyenv"))
    for folder in _folders(environ.get("UV_PYTHON_INSTALL_DIR") or home.data("uv", "python")):
        yield from _installation(folder, "uv")
    for folder in _folders(home.of("ASDF_DATA_DIR", ".asdf") + "/installs/python"):
        yield from _installation(folder, "asdf")
    mise = environ.get("MISE_DATA_DIR") or home.data("mise")
    for folder in _folders(mise + "/installs/python"):
        yield from _installation(folder, "mise")
    yield from _conda(home, environ)
    for folder in _DISTRIBUTION:
        yield from _plain(folder, "distribution")
    for parent in _DISTRIBUTIONS:
        for folder in _folders(parent):
            yield from _installation(folder, "distribution")
    for parent, source in _virtualenvs(home, environ):
        for folder in _folders(parent):
            yield from _environment(folder, source)


def _virtualenvs(home: _Home, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Directories of environments, and whose they are."""
    yield home.of("WORKON_HOME", ".virtualenvs"), "virtualenvs"
    yield home.data("virtualenvs"), "pipenv"
    yield environ.get("POETRY_CACHE_DIR", home.cache("pypoetry")) + "/virtualenvs", "poetry"
    yield home.of("PIPX_HOME", ".local", "share", "pipx") + "/venvs", "pipx"
    yield home.at(".local", "pipx", "venvs"), "pipx"  # until pipx 1.2
    yield environ.get("UV_TOOL_DIR") or home.data("uv", "tools"), "uv tool"


def _path_folders(environ: Mapping[str, str]) -> Iterator[str]:
    # Shims (of pyenv, asdf, mise) look for the version themselves, by the directory and variables,
    # and fail for most; what they lead to is found where it is.
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        if os.path.isabs(folder) and os.path.basename(os.path.normpath(folder)) != "shims":
            yield folder


def _pyenv(root: str) -> Iterator[Candidate]:
    for folder in _folders(os.path.join(root, "versions")):
        if _has(folder, "conda-meta"):
            yield from _conda_base(folder, "pyenv")
        else:
            yield from _installation(folder, "pyenv")
            for each in _folders(os.path.join(folder, "envs")):  # pyenv-virtualenv
                yield from _environment(each, "pyenv")


def _conda(home: _Home, environ: Mapping[str, str]) -> Iterator[Candidate]:
    executable = environ.get("CONDA_EXE", "")
    bases = [os.path.dirname(os.path.dirname(executable)) if executable else ""]
    bases += [environ.get(name, "") for name in ("MAMBA_ROOT_PREFIX", "CONDA_ROOT")]
    bases += [*(home.at(name) for name in _CONDA), *_CONDA_BASES]
    for base in filter(None, bases):
        yield from _conda_base(base, "conda")
    if active := environ.get("CONDA_PREFIX"):
        yield from _conda_folder(active)
    listed = environ.get("CONDA_ENVS_PATH") or environ.get("CONDA_ENVS_DIRS") or ""
    for parent in [*filter(None, listed.split(os.pathsep)), home.at(".conda", "envs")]:
        for folder in _folders(parent):
            yield from _environment(folder, "conda")
    for folder in _lines(home.at(".conda", "environments.txt")):
        yield from _conda_folder(folder)


def _conda_base(folder: str, source: str) -> Iterator[Candidate]:
    yield from _installation(folder, source)
    for each in _folders(os.path.join(folder, "envs")):
        yield from _environment(each, source)


def _conda_folder(folder: str) -> Iterator[Candidate]:
    """A directory that conda has named: a base, or an environment."""
    if _has(folder, "condabin"):
        yield from _conda_base(folder, "conda")
    else:
        yield from _environment(folder, "conda")


def _is_environment(prefix: str) -> bool:
    """Whether it is a virtual environment, or one of conda's, which bears no other mark."""
    if _has(prefix, "pyvenv.cfg"):
        return True
    return _has(prefix, "conda-meta") and not _has(prefix, "condabin")


def _has(folder: str, name: str) -> bool:
    return os.path.exists(os.path.join(folder, name))


def _installation(folder: str, source: str) -> Iterator[Candidate]:
    """A directory with an interpreter and its bin; or, among them, an environment."""
    if _is_environment(folder):
        yield from _environment(folder, source)
    else:
        yield from _plain(os.path.join(folder, "bin"), source, os.path.basename(folder))


def _environment(folder: str, source: str) -> Iterator[Candidate]:
    path = in_environment(folder)
    if path is not None:
        name = os.path.basename(os.path.normpath(folder))
        yield Candidate(path, (source,), name, is_environment=True)


def _plain(folder: str, source: str, name: str = "") -> Iterator[Candidate]:
    """The interpreters in a directory; the one with the longest of several names first."""
    prefix = os.path.dirname(os.path.normpath(folder))
    is_environment = _is_environment(prefix)
    if is_environment:
        name = os.path.basename(prefix)
    try:
        names = [each for each in os.listdir(folder) if spec.is_executable_name(each)]
    except OSError:
        return
    for each in sorted(names, key=lambda each: (-len(each), each)):
        yield Candidate(os.path.join(folder, each), (source,), name, is_environment)


def _folders(parent: str) -> list[str]:
    """The directories in one, in the order of their names; none where it cannot be read."""
    try:
        with os.scandir(parent) as entries:
            return sorted(each.path for each in entries if each.is_dir())
    except OSError:
        return []


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return [line.strip() for line in file if os.path.isabs(line.strip())]
    except OSError:
        return []
