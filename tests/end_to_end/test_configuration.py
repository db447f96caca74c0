"""Daemons that `config.toml` declares, and changes of it, as their users meet them."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import spawny
from spawny import control
from spawny.cli import main
from spawny.paths import locate
from tests.supervisor.site import Supervised

SCRIPT = """
import os
foo = "here"
colour = os.environ.get("COLOUR")
def beside():
    import neighbour
    return neighbour.bar
"""


@pytest.fixture
def config(home: Path) -> Path:
    """The file, in a folder with a script and a module."""
    folder = locate().config
    folder.mkdir(parents=True)
    (folder / "web.py").write_text(SCRIPT)
    (folder / "neighbour.py").write_text("bar = 7")
    return folder / "config.toml"


DECLARED = """
[daemons.web]
script = "web.py"
env = {COLOUR = "red"}
"""


def test_whoever_attaches_gets_a_declared_daemon(config: Path) -> None:
    """Nobody has started it, nor a supervisor; later ones find the same, and a script of the same
    text attaches to it."""
    config.write_text(DECLARED)
    web = spawny.attach("web")
    assert (web.foo, web.colour, web.beside()) == ("here", "red", 7)
    pid = spawny.daemon(web).pid
    assert spawny.daemon(spawny.attach("web")).pid == pid
    assert spawny.daemon(spawny.run_script(SCRIPT, name="web")).pid == pid
    assert main(["run", str(config.parent / "web.py"), "--name", "web"]) == 0
    spawny.connect().stop("web")


def test_a_declared_daemon_has_its_limits(config: Path) -> None:
    """As one has that a client starts."""
    limits = 'max_rss = "1 GB"\nmax_calls = 1000\nmax_age = 60\ncall_deadline = 5\n'
    config.write_text(DECLARED + limits)
    spawny.attach("web")
    found = spawny.connect().status("web")
    assert (found.max_rss, found.max_calls) == (1_000_000_000, 1000)
    assert (found.max_age, found.call_deadline) == (60, 5)
    spawny.connect().stop("web")


def test_autostart_and_reload(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One is there with the supervisor; a change restarts it, its removal ends it."""
    config.write_text(f"{DECLARED}autostart = true")
    supervisor = spawny.connect()
    pid = spawny.daemon(spawny.attach("web")).pid
    config.write_text(DECLARED.replace("red", "blue") + "[supervisor]\nlog_files = 5\n")
    told = "[supervisor] log_files: 3 -> 5\n[daemons.web] changed (autostart, env): restarts\n"
    assert main(["reload", "--dry-run"]) == 0
    assert capsys.readouterr().out == told
    assert supervisor.status("web").pid == pid
    events = supervisor.events()
    assert main(["reload"]) == 0
    assert capsys.readouterr().out == told
    while (event := next(events)).kind != "ready":
        pass
    events.close()
    assert event.name == "web"
    assert spawny.attach("web").colour == "blue"
    assert main(["reload"]) == 0
    assert capsys.readouterr().out == "nothing has changed\n"
    pid = supervisor.status("web").pid
    config.unlink()
    assert supervisor.reload()[1:] == ["[daemons.web] removed: stops"]
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], 30)
    with pytest.raises(spawny.DaemonNotFound):
        spawny.attach("web")


def test_equal_daemons(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them start with the supervisor, each is attached to by its number; a reload with
    another count starts or stops those that make the difference, and leaves the others alone."""
    config.write_text(f"{DECLARED}autostart = true\ncount = 2\n")
    assert main(["config", "check"]) == 0
    assert capsys.readouterr().out.endswith("good, declares 2 daemons\n")
    supervisor = spawny.connect()
    found = [spawny.daemon(spawny.attach(f"web-{number}")).pid for number in (1, 2)]
    assert [(each.name, each.pid) for each in supervisor.list()] == [
        ("web-1", found[0]),
        ("web-2", found[1]),
    ]
    with pytest.raises(spawny.DaemonNotFound):
        spawny.attach("web")
    config.write_text(config.read_text().replace("count = 2", "count = 3"))
    assert supervisor.reload() == ["[daemons.web-3] added: starts"]
    third = spawny.attach("web-3")
    assert third.colour == "red"
    config.write_text(config.read_text().replace("count = 3", "count = 1"))
    assert [*supervisor.reload()] == [
        "[daemons.web-2] removed: stops",
        "[daemons.web-3] removed: stops",
    ]
    assert supervisor.status("web-1").pid == found[0]
    config.write_text(config.read_text().replace("red", "blue"))
    assert supervisor.reload() == ["[daemons.web-1] changed (env): restarts"]
    config.unlink()
    supervisor.reload()


def test_a_reload_that_changes_options_keeps_the_state(config: Path) -> None:
    """The definition is the same, so that the next process takes it over."""
    hooks = """
def __spawny_save__():
    return foo
def __spawny_restore__(state):
    global foo
    foo = state
"""
    (config.parent / "web.py").write_text(SCRIPT + hooks)
    config.write_text(DECLARED)
    web = spawny.attach("web")
    web.foo = "there"
    supervisor = spawny.connect()
    pid = supervisor.status("web").pid
    events = supervisor.events()
    config.write_text(f'{DECLARED}restart = "always"\n')
    supervisor.reload()
    while (event := next(events)).kind != "ready":
        pass
    events.close()
    assert event.pid != pid
    assert supervisor.status("web").restart == "always"
    assert spawny.attach("web").foo == "there"
    supervisor.stop("web")


def test_a_broken_file_changes_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`reload` and `config check` say the same of it."""
    config.write_text(DECLARED)
    spawny.attach("web")
    config.write_text(DECLARED + "restart = 'maybe'\n")
    wrong = f"spawny: {config}:5: [daemons.web] restart must be one of never, on-failure, always"
    for command in (["reload"], ["reload", "--dry-run"], ["config", "check"]):
        assert main(command) == 2
        assert capsys.readouterr().err.startswith(wrong)
    assert spawny.attach("web").foo == "here"
    spawny.connect().stop("web")


def test_a_check_needs_no_supervisor(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor does it start one; neither does a reload."""
    assert main(["config", "check"]) == 0
    assert main(["reload"]) == 0
    config.write_text(DECLARED)
    assert main(["config", "check"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{config}: there is none, and none is needed"
    assert said[1].startswith("no supervisor runs")
    assert said[2] == f"{config}: good, declares 1 daemon"
    assert not locate().supervisor_socket.exists()


@pytest.fixture
def site(home: Path) -> Iterator[Supervised]:
    site = Supervised(home)
    yield site
    site.close()


def test_a_service_reloads_on_sighup(config: Path, site: Supervised) -> None:
    """The service manager hears when it begins and when it is done; a broken file is logged."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(site.home / "notify"))
        manager.settimeout(60)
        told = iter(lambda: manager.recv(4096).decode(), None)
        site.environ["NOTIFY_SOCKET"] = str(site.home / "notify")
        service = site.start("--service", boot=None)
        assert next(told).startswith("READY=1")
        config.write_text(f"{DECLARED}autostart = true")
        service.send_signal(signal.SIGHUP)
        assert next(told).startswith("RELOADING=1")
        assert next(told).startswith("READY=1")
        with site.client() as client:
            listing = client.ask(control.ListDaemons())
            assert [each.name for each in listing.daemons] == ["web"]
            config.write_text("nonsense")
            service.send_signal(signal.SIGHUP)
            assert next(told).startswith("RELOADING=1")
            assert next(told).startswith("READY=1")
            assert client.status("web").state in ("starting", "loading", "ready")
            assert isinstance(client.ask(control.Shutdown()), control.Done)
    assert f"reloaded: nothing: {config}:" in site.log_of(service)


REQUIRING = """
[daemons.web]
script = "shop.py"
requirements = ["-r needed.txt"]
autostart = true
"""


def test_a_reload_builds_what_declared_daemons_require(
    config: Path, wheels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The supervisor builds nothing: it says who does. A change of the file counts as one."""
    (config.parent / "shop.py").write_text("from importlib import import_module as load")
    (config.parent / "needed.txt").write_text("demo<2")
    config.write_text(REQUIRING)
    with pytest.raises(spawny.InterpreterNotFound, match="demo<2 yet: spawny reload builds it"):
        spawny.attach("web")
    assert main(["reload", "--dry-run"]) == 0
    assert capsys.readouterr().out == "nothing has changed\n"
    assert main(["reload"]) == 0
    assert capsys.readouterr().out == "[daemons.web] changed (requirements): starts\n"
    web = spawny.attach("web")
    assert web.load("demo").version == "1.0"
    assert main(["reload"]) == 0
    assert capsys.readouterr().out == "nothing has changed\n"
    (config.parent / "needed.txt").write_text("demo>1")
    events = spawny.connect().events()
    assert main(["reload"]) == 0
    assert capsys.readouterr().out == "[daemons.web] changed (requirements): restarts\n"
    while next(events).kind != "ready":
        pass
    events.close()
    assert spawny.attach("web").load("demo").version == "2.0"
    spawny.connect().stop("web")
    assert main(["env", "prune", "--all"]) == 0
    assert "used by web, which is declared" in capsys.readouterr().out
    assert spawny.attach("web").load("demo").version == "2.0"
    spawny.connect().stop("web")


def test_requirements_that_cannot_be_read_are_named(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the check, and by a reload, which changes nothing."""
    (config.parent / "shop.py").write_text("")
    config.write_text(REQUIRING)
    for command in (["config", "check"], ["reload"], ["env", "prune"]):
        assert main(command) == 2
        assert "cannot read" in capsys.readouterr().err
