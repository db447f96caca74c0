"""Fixtures that every test may take: the interpreters found, and a home that must end empty."""

import gc
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from spawny.client.ending import wait_gone
from tests import interpreters
from tests.environments.local import only_from
from tests.interpreters import Interpreter

# How long a test's daemons may take to end by themselves after the test.
SETTLE_SECONDS = 5

# A unix socket's path has 107 bytes; /run/d/NAME.sock with the longest name takes 76 of them.
HOME_BYTES = 107 - 76

SELECTED = pytest.StashKey[list[Interpreter]]()


def pytest_configure(config: pytest.Config) -> None:
    # Whoever runs the tests may have a spawny of their own, and it is none of ours.
    os.environ.pop("SPAWNY_HOME", None)
    config.stash[SELECTED] = _selected()


def _selected() -> list[Interpreter]:
    try:
        return interpreters.select(
            interpreters.find(), os.environ.get("SPAWNY_TEST_INTERPRETERS", "")
        )
    except LookupError as error:
        raise pytest.UsageError(f"SPAWNY_TEST_INTERPRETERS: {error}") from None


def pytest_collection_finish() -> None:
    # What pytest holds is not garbage, but it is two hundred thousand objects that the collector
    # would look at after every test with a daemon: a tenth of a second each.
    gc.collect()
    gc.freeze()


def pytest_report_header(config: pytest.Config) -> str:
    return "interpreters: " + ", ".join(
        f"{each.label} ({each.path})" for each in config.stash[SELECTED]
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "interpreter" in metafunc.fixturenames:
        selected = metafunc.config.stash[SELECTED]
        metafunc.parametrize(
            "interpreter",
            [
                pytest.param(each, id=each.label, marks=pytest.mark.interpreters)
                for each in selected
            ],
            indirect=True,
        )


@pytest.fixture
def interpreter(request: pytest.FixtureRequest) -> Interpreter:
    """Each interpreter found, one after the other."""
    selected: Interpreter = request.param
    return selected


@pytest.fixture(scope="session", autouse=True)
def stray_home() -> Iterator[None]:
    """Where a test that forgot to take `home` ends up: never in the user's own spawny."""
    with pytest.MonkeyPatch.context() as monkeypatch, private_home() as path:
        monkeypatch.setenv("SPAWNY_HOME", str(path))
        yield


@pytest.fixture
def home(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A private SPAWNY_HOME; the test fails if it leaves a daemon or anything else running there.

    The supervisor may remain: ending it is the fixture's part. A daemon with a name has to be
    stopped by the test.

    Starting a supervisor takes longer than most tests. Where a module is marked `one_supervisor`
    its tests have the home in common, but for those that are marked `own_supervisor`.
    """
    marks = {each.name for each in request.node.iter_markers()}
    if "one_supervisor" in marks and "own_supervisor" not in marks:
        path = request.getfixturevalue("common_home")
        monkeypatch.setenv("SPAWNY_HOME", str(path))
        yield path
        _fail_for(_left_behind(path))
    else:
        with private_home() as path:
            monkeypatch.setenv("SPAWNY_HOME", str(path))
            yield path


@pytest.fixture(scope="module")
def common_home() -> Iterator[Path]:
    """The home of a module's tests, where each daemon's interpreter is started anew: which of them
    would be forked from a zygote depends on the tests before."""
    with private_home() as path:
        config = path / "config"
        config.mkdir(mode=0o700)
        (config / "config.toml").write_text("[zygotes]\nenabled = false\n")
        yield path


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder that packages come from, with `demo` 1.0 and 2.0, which needs `base`."""
    return only_from(tmp_path / "wheels", monkeypatch)


@contextmanager
def private_home() -> Iterator[Path]:
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) + len("/sp-12345678") > HOME_BYTES:
        base = "/tmp"
    path = Path(tempfile.mkdtemp(prefix="sp-", dir=base))
    try:
        yield path
    finally:
        left = _left_behind(path)
        _end_everything(path)
        shutil.rmtree(path, ignore_errors=True)
    _fail_for(left)


def _left_behind(home: Path) -> list[str]:
    """The home's processes that should have ended by themselves, described before they are ended.

    The supervisor stays: it is what ends the rest.
    """
    # Proxies in a cycle keep their daemons until the collector comes round.
    gc.collect()
    strays = _still_there([each for each in _processes(home) if not _is_supervisor(each)])
    left = [_describe(each) for each in strays]
    for stray in strays:
        _signal(stray.kill)
    return left


def _fail_for(left: list[str]) -> None:
    if left:
        pytest.fail("left running: " + "; ".join(left), pytrace=False)


def _end_everything(home: Path) -> None:
    """End the supervisor, and what it does not end."""
    supervisors = [each for each in _processes(home) if _is_supervisor(each)]
    for supervisor in supervisors:
        _signal(supervisor.terminate)
    _still_there(supervisors)
    rest = _processes(home)
    for process in rest:
        _signal(process.kill)
    _still_there(rest)


def _still_there(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended by themselves after a while."""
    deadline = time.monotonic() + SETTLE_SECONDS
    alive = []
    for process in processes:
        # psutil would look again and again; this is woken by the end.
        with wait_gone(process.pid) as wait:
            if not wait(max(0.0, deadline - time.monotonic())) and process.is_running():
                alive.append(process)
    return alive


def _processes(home: Path) -> list[psutil.Process]:
    return [each for each in psutil.process_iter() if _belongs(each, home)]


def _belongs(process: psutil.Process, home: Path) -> bool:
    """Whether a process was told of the home, in its environment or its arguments."""
    if process.pid == os.getpid():
        return False
    try:
        if process.environ().get("SPAWNY_HOME") == str(home):
            return True
        # A daemon may have been given an environment of the test's making.
        return any(str(home) in argument for argument in process.cmdline())
    except psutil.Error:
        # It ended meanwhile, or is another user's.
        return False


def _is_supervisor(process: psutil.Process) -> bool:
    try:
        arguments = process.cmdline()
    except psutil.Error:
        return False
    # Zygotes are kept by their supervisor, and end with it.
    words = ("spawny-supervisor", "spawny.supervisor", "--zygote")
    return any(word in each for each in arguments for word in words)


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())}"
    except psutil.Error:
        return str(process.pid)


def _signal(send: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):
        send()
