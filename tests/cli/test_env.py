"""`spawny env`, and what `spawny run` requires."""

import json
import os
import time
from pathlib import Path

import pytest

from spawny.cli import env
from spawny.environments.store import Store
from spawny.paths import locate
from tests.cli.processes import Ended, spawny

pytestmark = pytest.mark.usefixtures("home", "wheels")

SCRIPT = """
# /// script
# dependencies = ["./demo-1.0-py3-none-any.whl"]
# ///
import demo
print("demo", demo.version)
"""


def build(*requirements: str) -> Path:
    ended = spawny("env", "build", *requirements)
    assert ended.code == 0, ended.error
    return Path(ended.out.strip())


def age(environment: Path, days: float) -> None:
    then = time.time() - days * 86400
    os.utime(environment / "spawny.json", (then, then))


def good(ended: Ended) -> Ended:
    assert ended.code == 0, ended.error
    return ended


def test_build_prints_the_directory_and_shows_the_rest() -> None:
    """So that a script can take it; the second time there is nothing to show."""
    ended = spawny("env", "build", "demo")
    assert "building an environment of Python" in ended.error
    assert (Path(ended.out.strip()) / "bin" / "python").exists()
    assert spawny("env", "build", "demo") == Ended(0, ended.out, "")


def test_build_says_why_it_fails() -> None:
    """And what makes no sense is a matter of usage."""
    failed = spawny("env", "build", "demo>5")
    assert (failed.code, failed.out) == (1, "")
    assert "spawny: no environment of Python" in failed.error
    assert spawny("env", "build").code == 2
    assert spawny("env", "build", "--with-requirements", "missing.txt").code == 2


def test_ls_shows_what_there_is() -> None:
    """For people, and for programs."""
    assert spawny("env", "ls").out.startswith("there are no environments")
    path = build("demo<2")
    _, line = good(spawny("env", "ls")).out.splitlines()
    assert path.name in line
    assert line.endswith("demo<2")
    (found,) = json.loads(spawny("env", "ls", "--json").out)
    assert found["path"] == str(path)
    assert found["packages"] == ["demo==1.0"]
    assert found["daemons"] == []
    assert found["size_bytes"] > 0


def test_prune_removes_what_is_old() -> None:
    """By default what was not used for 30 days; those that are used again are not old."""
    old, recent = build("demo<2"), build("demo>1")
    age(old, 31)
    age(recent, 29)
    dry = good(spawny("env", "prune", "--dry-run"))
    assert f"would remove {old.name}" in dry.out
    assert old.exists()
    pruned = good(spawny("env", "prune")).out
    assert f"removed {old.name} (Python " in pruned
    assert "freed " in pruned
    assert not old.exists()
    assert recent.exists()
    build("demo>1")
    assert good(spawny("env", "prune", "--older-than", "28d")).out == "freed 0 B\n"
    assert good(spawny("env", "prune", "--older-than", "0s")).out.startswith("removed")


def test_prune_removes_those_that_are_named() -> None:
    """A beginning of the name will do; a wrong one removes nothing."""
    first, second = build("demo<2"), build("demo>1")
    wrong = spawny("env", "prune", first.name, "nonsense")
    assert wrong.code == 2
    assert "no environment 'nonsense'" in wrong.error
    assert spawny("env", "prune", "--all", first.name).code == 2
    assert spawny("env", "prune", "--older-than", "soon").code == 2
    good(spawny("env", "prune", first.name[:20]))
    assert not first.exists()
    assert second.exists()


def test_prune_keeps_what_was_used_since_it_asked_for_daemons() -> None:
    """The daemon that was started in it is not among those that it was told of."""
    path = build("demo")
    environment = Store(locate()).environment(path.name)
    assert not env._remove(environment, path.stat().st_mtime - 60, dry_run=False)
    assert env._remove(environment, time.time(), dry_run=True)
    assert path.exists()
    assert env._remove(environment, time.time(), dry_run=False)
    assert not path.exists()


def test_prune_removes_what_was_not_built_whole() -> None:
    """Nobody would use it, nor remove it."""
    path = build("demo")
    (path / "spawny.json").unlink()
    assert "not built whole" in good(spawny("env", "prune")).out
    assert list(locate().environments.iterdir()) == []


def test_run_requires_what_header_and_options_say(tmp_path: Path, wheels: Path) -> None:
    """Paths in the header are relative to the script, as those in a file are to that."""
    script = wheels / "script.py"
    script.write_text(SCRIPT)
    (tmp_path / "more.txt").write_text("base")
    started = spawny(
        *("run", str(script), "--name", "model", "--preload", "base"),
        *("--with-requirements", str(tmp_path / "more.txt")),
    )
    assert "demo 1.0" in good(started).out
    assert "building an environment" in started.error
    (found,) = json.loads(spawny("env", "ls", "--json").out)
    assert found["daemons"] == ["model"]
    assert found["packages"] == ["base==1.0", "demo==1.0"]
    kept = good(spawny("env", "prune", "--all")).out
    assert kept == f"kept {found['name']}: used by model\nfreed 0 B\n"
    other = spawny("run", str(script), "--name", "model", "--with", "demo")
    assert other.code == 1
    assert "exists and differs" in other.error
    good(spawny("stop", "model"))
    assert "removed" in good(spawny("env", "prune", "--all")).out
