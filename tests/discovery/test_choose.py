"""The interpreter that is meant, out of those that there are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import spawny
from spawny import interpreters
from spawny.errors import InterpreterNotFound, InvalidRequest
from spawny.interpreters import cache
from spawny.interpreters.probe import Report
from tests.discovery.conftest import Machine
from tests.interpreters import Interpreter


def chosen(machine: Machine, text: str) -> str:
    """The path below the machine's root."""
    found = interpreters.find(text, machine.environ, str(machine.root))
    return os.path.relpath(found.path, machine.root)


def refusal(machine: Machine, text: str) -> str:
    with pytest.raises(InterpreterNotFound) as caught:
        interpreters.find(text, machine.environ, str(machine.root))
    return str(caught.value)


# --- versions -------------------------------------------------------------------------------------


def test_the_newest_that_fits_is_chosen(machine: Machine) -> None:
    """By number, not by letters, wherever it is."""
    machine.saying("bin/python3.9", "3.9.2")
    machine.saying("pyenv/versions/3.9.9/bin/python3.9", "3.9.9")
    machine.saying("pyenv/versions/3.9.18/bin/python3.9", "3.9.18")
    machine.saying("pyenv/versions/3.10.1/bin/python3.10", "3.10.1")
    assert chosen(machine, "3.9") == "pyenv/versions/3.9.18/bin/python3.9"
    assert chosen(machine, "3.9.9") == "pyenv/versions/3.9.9/bin/python3.9"
    assert chosen(machine, ">=3.8,<3.10") == "pyenv/versions/3.9.18/bin/python3.9"
    assert chosen(machine, ">=3.8") == "pyenv/versions/3.10.1/bin/python3.10"
    assert "no Python interpreter '3.9.1'" in refusal(machine, "3.9.1")


def test_of_the_same_version_that_on_the_path_is_chosen(machine: Machine) -> None:
    """And else the first that is found."""
    machine.saying("usr/bin/python3.9", "3.9.18")
    machine.saying("pyenv/versions/3.9.18/bin/python3.9", "3.9.18")
    assert chosen(machine, "3.9") == "pyenv/versions/3.9.18/bin/python3.9"
    machine.environ["PATH"] = f"{machine.root}/usr/bin"
    assert chosen(machine, "3.9") == "usr/bin/python3.9"


def test_cpython_goes_before_others_unless_they_are_asked_for(machine: Machine) -> None:
    """A plain version is CPython's; a range is met by PyPy where there is nothing else."""
    machine.saying("bin/pypy3.10", "3.10.1", implementation="pypy")
    assert chosen(machine, "pypy") == chosen(machine, "pypy3.10") == "bin/pypy3.10"
    assert chosen(machine, ">=3.8") == "bin/pypy3.10"
    assert "no Python interpreter '3.10'" in refusal(machine, "3.10")
    machine.saying("bin/python3.8", "3.8.1")
    assert chosen(machine, ">=3.8") == "bin/python3.8"
    assert chosen(machine, "python") == "bin/python3.8"


def test_prereleases_and_free_threaded_ones_come_last(machine: Machine) -> None:
    """But before none at all."""
    machine.saying("bin/python3.14", "3.14.0rc1", level="candidate", version=[3, 14, 0])
    assert chosen(machine, ">=3.8") == "bin/python3.14"
    machine.saying("bin/python3.13t", "3.13.1", abiflags="t")
    assert chosen(machine, ">=3.8") == "bin/python3.13t"
    machine.saying("bin/python3.13", "3.13.0")
    assert chosen(machine, ">=3.8") == chosen(machine, "3.13") == "bin/python3.13"
    assert chosen(machine, "3.14") == "bin/python3.14"


def test_environments_are_not_chosen_by_their_version(machine: Machine) -> None:
    """Not even an active one: its packages are somebody's own."""
    path = machine.saying("work/bin/python", "3.9.18", base_prefix="/usr")
    machine.file("work/pyvenv.cfg", "")
    machine.environ |= {"PATH": f"{machine.root}/work/bin", "VIRTUAL_ENV": f"{machine.root}/work"}
    assert "found were: the environment work" in refusal(machine, "3.9")
    # But a shell would execute it.
    assert interpreters.locate("python", machine.environ, "/") == path


def test_only_those_that_may_fit_are_executed(machine: Machine) -> None:
    """And each once."""
    for version in ("3.8.1", "3.9.1", "3.10.1"):
        machine.saying(f"pyenv/versions/{version}/bin/python{version[:-2]}", version)
    machine.saying("opt/old/bin/python", "3.9.0")
    chosen(machine, "3.9")
    assert sorted(machine.asked()) == [
        "opt/old/bin/python",
        "pyenv/versions/3.9.1/bin/python3.9",
    ]
    chosen(machine, "3.9")
    assert machine.asked() == []


def test_a_refusal_asks_nobody_twice(machine: Machine) -> None:
    """Not even one that may answer otherwise the next time, as what leads elsewhere may."""
    machine.saying("bin/python3.9", "3.8.1", executable="/elsewhere/python3.8")
    assert "found were: cpython 3.8.1" in refusal(machine, "3.9")
    assert machine.asked() == ["bin/python3.9"]


def test_a_name_of_a_file_is_what_a_shell_would_execute(machine: Machine) -> None:
    """Where the PATH has none, it is a version."""
    machine.saying("bin/python3.9", "3.9.2")
    machine.saying("pyenv/versions/3.9.18/bin/python3.9", "3.9.18")
    machine.saying("pyenv/versions/3.8.1/bin/python3.8", "3.8.1")
    assert chosen(machine, "python3.9") == "bin/python3.9"
    assert chosen(machine, "python3.8") == "pyenv/versions/3.8.1/bin/python3.8"
    machine.saying("bin/my-python", "3.7.1")
    assert chosen(machine, "my-python") == "bin/my-python"


def test_broken_ones_are_no_choice(machine: Machine) -> None:
    """Where there is no other, the refusal says what ails them."""
    machine.saying("pyenv/versions/3.9.18/bin/python3.9", "3.9.18")
    machine.script("bin/python3.9", "kill -SEGV $$")
    assert chosen(machine, "3.9") == "pyenv/versions/3.9.18/bin/python3.9"
    said = refusal(machine, "3.8")
    assert "found were: cpython 3.9.18 (" in said
    assert "bin/python3.9 (it was killed by SIGSEGV)" in said
    assert refusal(machine, "python3.9").endswith(
        "bin/python3.9 cannot run a daemon: it was killed by SIGSEGV"
    )


def test_one_that_hung_before_is_waited_for_only_where_there_is_no_other(
    machine: Machine,
) -> None:
    """Though it may be well by now."""
    path = machine.saying("bin/python3", "3.8.1")
    known = cache.Cache(machine.environ)
    known.put(path, Report(problem="it did not answer within 5 s", is_passing=True))
    known.save()
    machine.saying("pyenv/versions/3.9.18/bin/python3.9", "3.9.18")
    assert chosen(machine, "3.9") == "pyenv/versions/3.9.18/bin/python3.9"
    assert "bin/python3" not in machine.asked()
    assert chosen(machine, "3.8") == "bin/python3"


# --- paths, directories, names ------------------------------------------------------------------


def test_paths_and_directories(machine: Machine) -> None:
    """Relative to the user's directory or below its home, links unresolved."""
    machine.saying("opt/old/bin/python3.9", "3.9.1")
    machine.saying("env/bin/python", "3.9.2")
    (machine.root / "link").symlink_to("opt/old/bin/python3.9")
    for text in ("opt/old/bin/python3.9", "./opt/../opt/old/bin/python3.9", "~/env/../link"):
        assert chosen(machine, text) in ("opt/old/bin/python3.9", "link")
    for text in ("env", "./env", "env/", "~/env", str(machine.root / "env")):
        assert chosen(machine, text) == "env/bin/python"


def test_a_directory_that_looks_like_a_version_is_none(machine: Machine) -> None:
    """`3.9` is a version, `./3.9` a path."""
    machine.saying("3.9/bin/python", "3.6.1")
    machine.saying("bin/python3.9", "3.9.1")
    (machine.root / "python3.9").mkdir()
    assert chosen(machine, "3.9") == chosen(machine, "python3.9") == "bin/python3.9"
    assert chosen(machine, "./3.9") == "3.9/bin/python"


def test_an_environment_by_its_name(machine: Machine) -> None:
    """Before a command of that name, as pipx has them."""
    machine.saying(".local/share/pipx/venvs/black/bin/python", "3.9.1")
    machine.saying("miniconda3/envs/work/bin/python", "3.9.2")
    machine.saying("pyenv/versions/pypy3.9-7.3.13/bin/pypy3.9", "3.9.3")
    machine.script("bin/black", "exit 1")
    assert chosen(machine, "black") == ".local/share/pipx/venvs/black/bin/python"
    assert chosen(machine, "work") == "miniconda3/envs/work/bin/python"
    assert chosen(machine, "pypy3.9-7.3.13") == "pyenv/versions/pypy3.9-7.3.13/bin/pypy3.9"
    (machine.root / "work").mkdir()  # a directory of anything else
    found = interpreters.find("work", machine.environ, str(machine.root))
    assert (found.environment, found.sources) == ("work", ("conda",))


def test_an_alias_goes_first(machine: Machine) -> None:
    """It stands for a path, relative to the configuration, or for a version."""
    machine.configure('[pythons]\nlegacy = "../../opt/old/bin/python"\nnew = ">=3.8"\nwork = "3.9"')
    machine.saying("opt/old/bin/python", "3.6.1")
    machine.saying("bin/python3.9", "3.9.1")
    machine.saying("work/bin/python", "3.8.1")
    assert chosen(machine, "legacy") == "opt/old/bin/python"
    assert chosen(machine, "new") == chosen(machine, "work") == "bin/python3.9"
    assert chosen(machine, "./work") == "work/bin/python"


def test_an_alias_that_leads_nowhere_says_so(machine: Machine) -> None:
    """With what it stands for; a configuration that is wrong is another error."""
    machine.configure('[pythons]\nlegacy = "3.4"')
    assert "'legacy' (an alias of '3.4')" in refusal(machine, "legacy")
    machine.configure("[pythons]\nlegacy = 3")
    with pytest.raises(InvalidRequest, match=r"config.toml:2: \[pythons\] legacy must be"):
        interpreters.find("legacy", machine.environ, "/")


@pytest.mark.parametrize(
    "text", ["3.9", "/nowhere/python", "plain", "folder", "", "no-such", "a\0b"]
)
def test_what_is_not_found_lists_what_is(machine: Machine, text: str) -> None:
    """The good ones first."""
    machine.file("plain", "", 0o644)
    (machine.root / "folder").mkdir()
    assert refusal(machine, text).endswith("found were: none at all")
    path = machine.saying("usr/bin/python3", "3.11.2")
    assert refusal(machine, text).endswith(f"found were: cpython 3.11.2 ({path})")


def test_a_long_list_is_cut(machine: Machine) -> None:
    """`spawny pythons` has them all."""
    for number in range(25):
        machine.saying(f"pyenv/versions/3.8.{number}/bin/python3.8", f"3.8.{number}")
    assert refusal(machine, "3.9").endswith(" and 5 more: see spawny pythons")


# --- all of them ----------------------------------------------------------------------------------


def test_a_wrapper_is_the_one_that_it_leads_to(machine: Machine) -> None:
    """It is listed once, by the path of the interpreter itself."""
    real = machine.saying("pyenv/versions/3.9.18/bin/python3.9", "3.9.18")
    machine.script("bin/python3.9", f'exec {real} "$@"')
    (found,) = interpreters.survey(machine.environ, "/")
    assert (found.path, found.sources) == (real, ("PATH", "pyenv"))


def test_progress_is_told(machine: Machine) -> None:
    """How many have answered, out of how many."""
    for name in ("python3.8", "python3.9"):
        machine.saying(f"bin/{name}", f"{name[6:]}.1", executable=name)
    told: list[tuple[int, int]] = []
    interpreters.survey(machine.environ, "/", progress=lambda *each: told.append(each))
    assert told == [(1, 2), (2, 2)]


def test_all_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The public function finds each pyenv version and PyPy, as each says itself, best first."""
    monkeypatch.setenv("SPAWNY_HOME", str(tmp_path / "home"))
    found = spawny.pythons()
    say = "import sys, platform; sys.stdout.write(platform.python_version() + ' ' + sys.prefix)"
    for each in found:
        if each.version:
            said = subprocess.check_output([each.path, "-c", say], text=True).split()
            assert said == [each.version_text, each.prefix]
    able = [each.can_run for each in found]
    assert able == sorted(able, reverse=True)
    assert any(os.path.samefile(each.prefix, sys.base_prefix) for each in found)


def test_every_interpreter_is_found_by_its_version(
    interpreter: Interpreter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real ones of this machine."""
    monkeypatch.setenv("SPAWNY_HOME", str(tmp_path / "home"))
    name = "" if interpreter.implementation == "cpython" else interpreter.implementation
    minor = ".".join(map(str, interpreter.version[:2]))
    found = interpreters.find(f"{name}{minor}")
    assert found.can_run
    assert (found.implementation, found.version[:2]) == (
        interpreter.implementation,
        interpreter.version[:2],
    )
