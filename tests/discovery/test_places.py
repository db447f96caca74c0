"""Where interpreters are looked for."""

import os

import pytest

from spawny.interpreters import places
from tests.discovery.conftest import Machine

HERE = "project"


def found(machine: Machine) -> list[tuple[str, str, str]]:
    """The path of each, the first of its sources, and the name of its environment."""
    return [
        (
            os.path.relpath(each.path, machine.root),
            each.sources[0],
            each.name if each.is_environment else "",
        )
        for each in places.candidates(machine.environ, str(machine.root / HERE))
    ]


def environment(machine: Machine, folder: str) -> str:
    machine.file(f"{folder}/pyvenv.cfg", "")
    return machine.script(f"{folder}/bin/python")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("bin/python3.9", "PATH"),
        ("pyenv/versions/3.9.18/bin/python3.9", "pyenv"),
        ("pyenv/versions/pypy3.9-7.3.13/bin/pypy3.9", "pyenv"),
        (".local/share/uv/python/cpython-3.12.1-linux-x86_64-gnu/bin/python3.12", "uv"),
        (".asdf/installs/python/3.9.18/bin/python3.9", "asdf"),
        (".local/share/mise/installs/python/3.9/bin/python3.9", "mise"),
        ("miniforge3/bin/python3.12", "conda"),
        ("usr/bin/python3", "distribution"),
        ("opt/old/bin/python2.7", "distribution"),
    ],
)
def test_a_plain_interpreter_is_found(machine: Machine, path: str, source: str) -> None:
    """With where it came from; one that is not active, too."""
    machine.script(path)
    assert found(machine) == [(path, source, "")]


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        (f"{HERE}/.venv", "directory"),
        (f"{HERE}/venv", "directory"),
        (".virtualenvs/work", "virtualenvs"),
        (".local/share/virtualenvs/work-AbCd12", "pipenv"),
        (".cache/pypoetry/virtualenvs/work-x-py3.9", "poetry"),
        (".local/share/pipx/venvs/work", "pipx"),
        (".local/share/uv/tools/work", "uv tool"),
        ("pyenv/versions/work", "pyenv"),
        ("pyenv/versions/3.9.18/envs/work", "pyenv"),
        ("miniconda3/envs/work", "conda"),
        (".conda/envs/work", "conda"),
    ],
)
def test_an_environment_is_found_by_its_name(machine: Machine, folder: str, source: str) -> None:
    """The directory's."""
    environment(machine, folder)
    assert found(machine) == [(f"{folder}/bin/python", source, os.path.basename(folder))]


@pytest.mark.parametrize(
    ("variable", "folder", "source"),
    [
        ("VIRTUAL_ENV", "active", "VIRTUAL_ENV"),
        ("CONDA_PREFIX", "active", "conda"),
        ("WORKON_HOME", "", "virtualenvs"),
        ("CONDA_ENVS_PATH", "", "conda"),
        ("UV_TOOL_DIR", "", "uv tool"),
    ],
)
def test_variables_say_where_else(
    machine: Machine, variable: str, folder: str, source: str
) -> None:
    """Those of the user, which need not be ours."""
    environment(machine, "elsewhere/active")
    machine.environ[variable] = str(machine.root / "elsewhere" / folder)
    assert found(machine) == [("elsewhere/active/bin/python", source, "active")]


def test_conda_lists_environments_in_a_file(machine: Machine) -> None:
    """A base is no environment; what is gone is passed over."""
    machine.script("there/env/bin/python")
    machine.script("base/bin/python3.12")
    (machine.root / "base" / "condabin").mkdir()
    lines = [f"{machine.root}/{each}\n" for each in ("there/env", "base", "gone")]
    machine.file(".conda/environments.txt", "".join(lines))
    assert found(machine) == [
        ("there/env/bin/python", "conda", "env"),
        ("base/bin/python3.12", "conda", ""),
    ]


def test_the_same_one_is_found_once(machine: Machine) -> None:
    """By its longest name, which an upgrade does not make another one's; all places are told."""
    python = machine.script("usr/bin/python3.11")
    (machine.root / "usr/bin/python3").symlink_to("python3.11")
    (machine.root / "bin").symlink_to(machine.root / "usr/bin")
    (each,) = places.candidates(machine.environ, "/")
    assert os.path.realpath(each.path) == python
    assert os.path.basename(each.path) == "python3.11"
    assert each.sources == ("PATH", "distribution")


def test_an_active_environment_is_none_of_the_plain(machine: Machine) -> None:
    """It is on the PATH, and known by its name."""
    environment(machine, "work")
    machine.environ["PATH"] = f"{machine.root}/work/bin"
    machine.environ["VIRTUAL_ENV"] = f"{machine.root}/work"
    (each,) = places.candidates(machine.environ, "/")
    assert each.is_environment
    assert (each.name, each.sources) == ("work", ("PATH", "VIRTUAL_ENV"))


def test_conda_s_environments_are_told_by_their_marks(machine: Machine) -> None:
    """Also on the PATH, where conda does not know of them."""
    machine.script("some/env/bin/python3.12")
    machine.script("some/base/bin/python3.11")
    for folder in ("env/conda-meta", "base/conda-meta", "base/condabin"):
        (machine.root / "some" / folder).mkdir()
    machine.environ["PATH"] = f"{machine.root}/some/env/bin:{machine.root}/some/base/bin"
    assert found(machine) == [
        ("some/env/bin/python3.12", "PATH", "env"),
        ("some/base/bin/python3.11", "PATH", ""),
    ]


def test_shims_are_passed_over(machine: Machine) -> None:
    """They fail for every version that is not switched on; the versions themselves do not."""
    machine.script("pyenv/shims/python3.9")
    assert found(machine) == []
    assert places.on_path("python3.9", machine.environ) is None


def test_what_belongs_to_interpreters_is_none(machine: Machine) -> None:
    """Nor are relative directories on the PATH looked at, nor is a file taken for one."""
    for name in ("python3-config", "pythonw", "ipython3", "python3.9-gdb.py"):
        machine.script(f"bin/{name}")
    machine.environ["PATH"] += ":.:"
    machine.file("pyenv/versions", "")
    assert found(machine) == []


def test_without_a_home_or_path(machine: Machine) -> None:
    """There is what the distribution has."""
    machine.script("usr/bin/python3")
    machine.environ = {}
    assert [path for path, _, _ in found(machine)][-1:] == ["usr/bin/python3"]
