"""Daemons that require packages."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import spawny
from spawny import DaemonExists, EnvironmentFailed, InterpreterNotFound, InvalidRequest
from spawny.paths import locate
from tests.environments.packages import wheel
from tests.interpreters import Interpreter

SCRIPT = "import demo\ndef version(): return demo.version"
HEADER = "# /// script\n# requires-python = '>=3.8'\n# dependencies = ['demo<2']\n# ///\n"

pytestmark = pytest.mark.usefixtures("home", "wheels")


@pytest.fixture
def stopped(home: Path) -> Iterator[None]:
    """The daemon of the test has a name and is stopped after it."""
    yield
    with spawny.connect() as supervisor:
        supervisor.stop("model")


def test_a_daemon_of_any_interpreter_has_what_it_requires(interpreter: Interpreter) -> None:
    """And the interpreter itself has nothing of it."""
    there = spawny.run_script(SCRIPT, interpreter.path, requirements=["demo>1"])
    assert there.version() == "2.0"
    with pytest.raises(ImportError):
        spawny.run_script(SCRIPT, interpreter.path)


def test_every_kind_of_definition_takes_requirements() -> None:
    """Equal ones share an environment."""
    assert spawny.run_module("demo", requirements=["demo==1.0"]).version == "1.0"
    definition = spawny.InstanceDefinition("types", "SimpleNamespace", a=1)
    assert spawny.run_object(definition, requirements=("demo == 1.0",)).a == 1
    with spawny.Executor(requirements=["demo==1.0"]) as executor:
        assert executor.submit(__import__, "demo").result(60)
    assert len(list(locate().environments.glob("*/spawny.json"))) == 1


def test_a_header_is_read_where_it_is_asked_for() -> None:
    """It may exclude the interpreter that was chosen."""
    assert spawny.run_script(HEADER + SCRIPT, requirements="script").version() == "1.0"
    with pytest.raises(ImportError):
        spawny.run_script(HEADER + SCRIPT)
    with pytest.raises(InvalidRequest, match="no header"):
        spawny.run_script(SCRIPT, requirements="script")
    with pytest.raises(InterpreterNotFound, match="which the requirements ask for"):
        text = HEADER.replace(">=3.8", "<3.8") + SCRIPT
        spawny.run_script(text, sys.executable, requirements="script")


@pytest.mark.usefixtures("stopped")
def test_a_second_script_attaches_where_requirements_agree() -> None:
    """Whoever requires nothing agrees with all."""
    first = spawny.run_script(SCRIPT, sys.executable, name="model", requirements=["demo < 2"])
    version = "{}.{}".format(*sys.version_info)
    for same in (sys.executable, sys.prefix, version):
        again = spawny.run_script(SCRIPT, same, name="model", requirements=["demo<2"])
        assert spawny.daemon(first).pid == spawny.daemon(again).pid
    other = spawny.run_script(SCRIPT, name="model")
    assert spawny.daemon(first).pid == spawny.daemon(other).pid


@pytest.mark.usefixtures("stopped")
def test_other_requirements_are_a_difference() -> None:
    """Which is named, and nothing is built for it."""
    spawny.run_script(SCRIPT, name="model", requirements=["demo<2"])
    built = sorted(locate().environments.iterdir())
    with pytest.raises(DaemonExists, match="it runs with demo<2, not with demo>1"):
        spawny.run_script(SCRIPT, name="model", requirements=["demo>1"])
    assert sorted(locate().environments.iterdir()) == built
    replaced = spawny.run_script(SCRIPT, name="model", requirements=["demo>1"], if_exists="replace")
    assert replaced.version() == "2.0"


@pytest.mark.usefixtures("stopped")
def test_a_local_package_that_has_changed_is_a_difference(tmp_path: Path) -> None:
    """Its name alone has not changed."""
    own = wheel(tmp_path, "own")
    spawny.run_script("import own", name="model", requirements=[str(own)])
    own.write_bytes(wheel(tmp_path, "own", "1.1").read_bytes())
    with pytest.raises(DaemonExists, match=r"files .* have changed"):
        spawny.run_script("import own", name="model", requirements=[str(own)])


@pytest.mark.usefixtures("stopped")
def test_a_daemon_without_an_environment_differs() -> None:
    """It may have the packages by chance; nobody knows."""
    spawny.run_script("x = 1", name="model")
    with pytest.raises(DaemonExists, match="without an environment of its own, not with demo"):
        spawny.run_script("x = 1", name="model", requirements=["demo"])


@pytest.mark.usefixtures("stopped")
def test_to_attach_builds_nothing_and_loads_little() -> None:
    """What builds is not even imported; nor is zmq."""
    text = f"import spawny; m = spawny.run_script({SCRIPT!r}, name='model', requirements=['demo'])"
    spawny.run_script(SCRIPT, name="model", requirements=["demo"])
    text = text.replace("name=", "python_exe=sys.executable, name=")
    show = f"import sys; {text}; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", show], text=True).split()
    heavy = {"zmq", "subprocess", "tomllib", "logging", "json", "pathlib", "configparser"}
    assert heavy.isdisjoint(loaded)
    assert {"spawny.environments.build", "spawny.interpreters.choose"}.isdisjoint(loaded)


def test_what_cannot_be_built_starts_nothing() -> None:
    """No daemon, and no supervisor."""
    with pytest.raises(EnvironmentFailed, match="demo>5"):
        spawny.run_script(SCRIPT, requirements=["demo>5"])
    assert not locate().supervisor_socket.exists()


def test_a_missing_file_is_named() -> None:
    """Before anything else."""
    with pytest.raises(InvalidRequest, match=r"cannot read .*missing\.txt"):
        spawny.run_script(SCRIPT, requirements="missing.txt")
