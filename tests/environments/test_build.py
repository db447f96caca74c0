"""Building environments, by uv and by venv and pip."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spawny.environments import indexes
from spawny.environments.bases import Base, base_of
from spawny.environments.build import Tools, build, find_uv
from spawny.environments.progress import Lines
from spawny.environments.requirements import Requirements, read
from spawny.environments.store import Environment, Store
from spawny.errors import EnvironmentFailed
from spawny.interpreters import find
from spawny.paths import locate
from tests.environments.packages import wheel
from tests.interpreters import Interpreter

NAME = "0123456789ab-0123456789ab"


@pytest.fixture
def environment(home: Path) -> Environment:
    store = Store(locate())
    store.prepare()
    return store.environment(NAME)


@pytest.fixture(params=["uv", "pip"])
def uv(request: pytest.FixtureRequest) -> str | None:
    """Each of the two that build: the path of uv, or None for venv and pip."""
    if request.param == "pip":
        return None
    found = find_uv(os.environ)
    if found is None:
        pytest.skip("uv is not here")
    return found


def build_with(
    environment: Environment, wanted: object, uv: str | None, python: str | None = None
) -> list[str]:
    """Build it, and what was shown."""
    shown: list[str] = []
    found = read(wanted, os.getcwd())
    assert found is not None
    lock = environment.lock()
    lock.own()
    told = indexes.read(os.environ, os.getcwd()).environ(os.environ)
    try:
        build(environment, found, base(python), Tools(told, uv, Lines(shown.append), lock.fd))
    finally:
        lock.close()
    return shown


def base(python: str | None = None) -> Base:
    return base_of(find(python or sys.executable, os.environ, os.getcwd()))


def run(environment: Environment, *arguments: str) -> str:
    command = [os.fspath(environment.python), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.usefixtures("wheels")
def test_every_interpreter_gets_one(
    interpreter: Interpreter, environment: Environment, uv: str | None
) -> None:
    """With what is required, and what that requires; its scripts find their interpreter."""
    build_with(environment, ["demo>1"], uv, interpreter.path)
    assert run(environment, "-c", "import demo, base; print(demo.version)") == "2.0"
    assert run(environment, "-c", "import sys; print(sys.prefix)") == str(environment.path)
    script = subprocess.run([environment.path / "bin" / "demo"], capture_output=True, text=True)
    assert script.stdout == "demo 2.0\n"
    built = environment.built()
    assert built is not None
    assert built.tool == ("uv" if uv else "pip")
    assert built.requirements == ("demo>1",)
    assert built.version == ".".join(map(str, interpreter.version))
    assert {"demo==2.0", "base==1.0"} <= set(built.packages)


@pytest.mark.usefixtures("wheels")
def test_constraints_and_local_files_are_heeded(
    environment: Environment, uv: str | None, tmp_path: Path
) -> None:
    """A constraint installs nothing by itself."""
    limits = tmp_path / "limits.txt"
    limits.write_text("demo<2\nbase<1")
    own = wheel(tmp_path, "own")
    build_with(environment, ["demo", f"own @ file://{own}", f"-c {limits}"], uv)
    built = environment.built()
    assert built is not None
    assert [each for each in built.packages if each[:3] in ("dem", "own", "bas")] == [
        "demo==1.0",
        "own==1.0",
    ]


def test_one_without_packages_is_empty(environment: Environment, uv: str | None) -> None:
    """As a header without dependencies asks for."""
    build_with(environment, Requirements(), uv)
    assert run(environment, "-c", "print(1)") == "1"


@pytest.mark.usefixtures("wheels")
def test_what_cannot_be_had_is_told_in_the_tools_words(
    environment: Environment, uv: str | None
) -> None:
    """And nothing stays behind, not even of what was there before."""
    environment.path.mkdir()
    (environment.path / "rubbish").touch()
    with pytest.raises(
        EnvironmentFailed, match=r"demo>5: (uv|pip) failed with exit code 1"
    ) as told:
        build_with(environment, ["demo>5"], uv)
    assert "demo" in told.value.output
    assert told.value.output in str(told.value)
    assert not environment.path.exists()


@pytest.mark.usefixtures("wheels")
def test_no_index_to_reach_is_told(
    environment: Environment, uv: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens at port 9; passwords are not shown."""
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(EnvironmentFailed, match="this machine may be offline") as told:
        build_with(environment, ["six"], uv)
    assert "secret" not in str(told.value)


@pytest.mark.usefixtures("wheels")
def test_what_the_tools_do_is_shown(environment: Environment, uv: str | None) -> None:
    """Line by line."""
    assert any("demo" in line for line in build_with(environment, ["demo"], uv))


@pytest.mark.usefixtures("wheels")
def test_pip_takes_over_where_uv_makes_none(environment: Environment, tmp_path: Path) -> None:
    """As for interpreters that are too old for it."""
    refusing = tmp_path / "uv"
    refusing.write_text("#!/bin/sh\necho too old; exit 2\n")
    refusing.chmod(0o755)
    shown = build_with(environment, ["demo"], str(refusing))
    assert any("trying venv and pip" in line for line in shown)
    built = environment.built()
    assert built is not None
    assert built.tool == "pip"


@pytest.mark.usefixtures("wheels")
def test_an_interpreter_without_venv_says_what_to_install(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Debian's without the package python3-venv."""
    lacking = tmp_path / "python"
    lacking.write_text("#!/bin/sh\necho No module named venv; exit 1\n")
    lacking.chmod(0o755)
    monkeypatch.setenv("PATH", "/nonexistent")
    found = Base(str(lacking), "cpython", (3, 9, 18), "3.9.18")
    told = indexes.read(os.environ, "/").environ(os.environ)
    lock = environment.lock()
    lock.own()
    with pytest.raises(EnvironmentFailed, match=r"python3-venv.*\nNo module named venv"):
        build(environment, Requirements(), found, Tools(told, None, Lines(print), lock.fd))
    lock.close()


def test_uv_is_that_of_the_extra_or_on_the_path(tmp_path: Path) -> None:
    """The extra puts it beside the interpreter's other commands."""
    (tmp_path / "uv").write_text("")
    (tmp_path / "uv").chmod(0o755)
    beside = Path(sys.executable).parent / "uv"
    expected = beside if beside.exists() else tmp_path / "uv"
    assert find_uv({"PATH": str(tmp_path)}) == str(expected)
    if not beside.exists():
        assert find_uv({"PATH": "/nonexistent"}) is None


def test_a_base_is_never_of_an_environment(tmp_path: Path) -> None:
    """An environment of an environment would end with it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"])
    assert base(str(tmp_path / "venv")) == base()
    assert "venv" not in base().executable.split(os.sep)
