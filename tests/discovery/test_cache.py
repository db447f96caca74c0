"""What interpreters have said before."""

import json
import os
import sys
from pathlib import Path

import pytest

from spawny.interpreters import cache, choose
from spawny.interpreters.cache import Cache
from spawny.interpreters.probe import Report
from tests.discovery.conftest import Machine


def survey(machine: Machine, **options: bool) -> list[str]:
    return sorted(
        each.version_text or each.problem
        for each in choose.survey(machine.environ, str(machine.root), **options)
    )


def cache_file(machine: Machine) -> Path:
    return machine.root / "home" / "cache" / "interpreters.json"


def test_each_is_asked_once(machine: Machine) -> None:
    """The good and the broken."""
    machine.saying("bin/python3.9", "3.9.18")
    machine.saying("bin/python2.7", "2.7.18", problem="too old")
    assert survey(machine) == survey(machine) == ["2.7.18", "3.9.18"]
    assert sorted(machine.asked()) == ["bin/python2.7", "bin/python3.9"]
    assert cache_file(machine).stat().st_mode & 0o777 == 0o600


def test_one_that_has_changed_is_asked_again(machine: Machine) -> None:
    """And no other."""
    machine.saying("bin/python3.9", "3.9.18")
    machine.saying("bin/python3.8", "3.8.18")
    survey(machine)
    machine.asked()
    machine.saying("bin/python3.9", "3.9.19")
    assert survey(machine) == ["3.8.18", "3.9.19"]
    assert machine.asked() == ["bin/python3.9"]


def test_one_that_changes_while_it_is_asked_is_asked_again(machine: Machine) -> None:
    """What it said is of the one before."""
    after = machine.saying("after", "3.9.19")
    path = machine.saying("bin/python3.9", "3.9.18")
    text = Path(path).read_text()
    Path(path).write_text(text.replace("\n", f"\n/bin/mv {after} {path}\n", 1))
    assert survey(machine) == ["3.9.18"]
    assert survey(machine) == ["3.9.19"]


def test_one_that_leads_elsewhere_now_is_asked_again(machine: Machine) -> None:
    """As after an upgrade of what a link leads to."""
    for version in ("3.9.18", "3.9.19"):
        machine.saying(f"store/{version}/bin/python", version)
    link = machine.root / "bin" / "python3"
    link.parent.mkdir()
    link.symlink_to("../store/3.9.18/bin/python")
    assert survey(machine) == ["3.9.18"]
    link.unlink()
    link.symlink_to("../store/3.9.19/bin/python")
    assert survey(machine) == ["3.9.19"]


def test_an_environment_that_is_made_anew_is_asked_again(machine: Machine) -> None:
    """Its pyvenv.cfg is another one, though its link leads to the same interpreter."""
    machine.saying("env/bin/python", "3.9.18")
    machine.environ["VIRTUAL_ENV"] = str(machine.root / "env")
    machine.file("env/pyvenv.cfg", "home = /usr/bin\n")
    survey(machine)
    machine.asked()
    machine.file("env/pyvenv.cfg", "home = /usr/local/bin\n")
    survey(machine)
    assert machine.asked() == ["env/bin/python"]


def test_other_libraries_may_make_another_one_of_it(machine: Machine) -> None:
    """Some interpreters only start with an LD_LIBRARY_PATH."""
    machine.saying("bin/python3.9", "3.9.18")
    survey(machine)
    machine.environ["LD_LIBRARY_PATH"] = "/opt/lib"
    survey(machine)
    assert len(machine.asked()) == 2


def test_a_refresh_asks_all(machine: Machine) -> None:
    """Whatever is known."""
    machine.saying("bin/python3.9", "3.9.18")
    survey(machine)
    survey(machine, refresh=True)
    assert len(machine.asked()) == 2


def test_a_time_limit_is_no_verdict_for_ever(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while it is tried again; also when the clock was set back."""
    path = machine.script("python")
    known = Cache(machine.environ)
    known.put(path, Report(problem="it did not answer", is_passing=True))
    crashed = machine.script("other")
    known.put(crashed, Report(problem="it crashed"))
    assert known.get(path) is not None and known.get(path, 0) is None
    now = cache.time.time()
    for later in (now + cache.PASSING_SECONDS + 1, now - 1):
        with monkeypatch.context() as patch:
            patch.setattr(cache.time, "time", lambda later=later: later)
            assert known.get(path) is None
            assert known.get(crashed) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"spawny": "0.1", "entries": {}}',
        "[" * 100_000,
        "\x00",
        '{"spawny": "VERSION", "entries": []}',
        '{"spawny": "VERSION", "entries": {"PATH": {"at": 1}}}',
        '{"spawny": "VERSION", "entries": {"PATH": {"at": 1, "stamp": 1, "report": {}}}}',
    ],
)
def test_a_broken_cache_is_thrown_away(machine: Machine, text: str) -> None:
    """Without a word; the next one is whole."""
    path = machine.saying("bin/python3.9", "3.9.18")
    text = text.replace("VERSION", cache.__version__).replace("PATH", path)
    machine.file("home/cache/interpreters.json", text)
    cache_file(machine).parent.chmod(0o700)
    assert survey(machine) == ["3.9.18"]
    assert json.loads(cache_file(machine).read_text())["entries"].keys() == {path}


def test_a_cache_that_cannot_be_written_costs_only_time(machine: Machine) -> None:
    """A directory that others may write to is none, for one."""
    machine.saying("bin/python3.9", "3.9.18")
    (machine.root / "home" / "cache").mkdir(parents=True)
    (machine.root / "home" / "cache").chmod(0o777)
    assert survey(machine) == survey(machine) == ["3.9.18"]
    assert os.listdir(machine.root / "home" / "cache") == []


def test_what_could_not_be_tried_is_not_remembered(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of the interpreter."""
    machine.saying("bin/python3.9", "3.9.18")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        assert survey(machine) == ["it could not be tried: No such file or directory"]
    assert survey(machine) == ["3.9.18"]


def test_two_who_write_lose_nothing(machine: Machine) -> None:
    """Each adds what it has learnt."""
    first, second = Cache(machine.environ), Cache(machine.environ)
    a, b = machine.script("a"), machine.script("b")
    first.put(a, Report(version=(3, 9, 1)))
    second.put(b, Report(version=(3, 9, 2)))
    first.save()
    second.save()
    both = Cache(machine.environ)
    assert both.get(a) == Report(version=(3, 9, 1))
    assert both.get(b) == Report(version=(3, 9, 2))
