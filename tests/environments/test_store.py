"""The environments that are kept, and their locks."""

import os
from pathlib import Path

import pytest

from spawny.environments import key
from spawny.environments.store import MARKER, Built, Environment, Store
from spawny.errors import EnvironmentFailed
from spawny.paths import locate

NAME = "0123456789ab-0123456789ab"
BUILT = Built(("numpy<2",), "/usr/bin/python3", "cpython", "3.9.18", "uv", 1.0, 2.0, ("a==1",))


@pytest.fixture
def store(home: Path) -> Store:
    found = Store(locate())
    found.prepare()
    return found


@pytest.fixture
def environment(store: Store) -> Environment:
    found = store.environment(NAME)
    found.python.parent.mkdir(parents=True)
    found.python.symlink_to("/bin/sh")
    return found


def test_what_has_no_marker_is_not_believed(environment: Environment) -> None:
    """Its build has not ended, or ended with its client."""
    assert environment.built() is None
    environment.mark(BUILT)
    assert environment.built() == BUILT
    environment.remove()
    assert environment.built() is None
    assert not environment.path.exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}', '{"format": 2}', "\xff"])
def test_a_marker_that_says_something_else_is_none(environment: Environment, text: str) -> None:
    """Of another version, or damaged."""
    environment.mark(BUILT)
    (environment.path / MARKER).write_text(text, encoding="latin-1")
    assert environment.built() is None


def test_one_without_its_interpreter_is_none(environment: Environment) -> None:
    """It was made with an interpreter that has been removed since."""
    environment.mark(BUILT)
    environment.python.unlink()
    environment.python.symlink_to("/nonexistent/python")
    assert environment.built() is None


def test_use_is_remembered(environment: Environment) -> None:
    """For those who remove what nobody uses."""
    environment.mark(BUILT)
    os.utime(environment.path / MARKER, (1, 1))
    assert environment.used_at() == 1
    environment.touch()
    assert environment.used_at() > 1_000_000


def test_files_shared_with_a_cache_are_told_apart(environment: Environment) -> None:
    """To remove them frees nothing."""
    (environment.path / "own").write_bytes(bytes(8192))
    (environment.path / "shared").write_bytes(bytes(8192))
    os.link(environment.path / "shared", environment.path.parent / "elsewhere")
    size = environment.size()
    assert size.own >= 8192
    assert size.shared >= 8192
    assert size.total == size.own + size.shared


def test_the_store_lists_what_looks_like_an_environment(store: Store) -> None:
    """Locks and strangers are none."""
    (store.directory / NAME).mkdir()
    (store.directory / f"{NAME}.lock").touch()
    (store.directory / "stranger").mkdir()
    assert [each.name for each in store.all()] == [NAME]
    assert list(Store(locate({"SPAWNY_HOME": "/nonexistent"})).all()) == []


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """With what to set."""
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFailed, match="SPAWNY_HOME or XDG_CACHE_HOME"):
        Store(locate({"SPAWNY_HOME": str(tmp_path / "file")})).prepare()


def test_many_share_a_lock_that_only_one_owns(environment: Environment) -> None:
    """Whoever starts a daemon keeps it from being removed, and not from being used."""
    first, second = environment.lock(), environment.lock()
    first.share()
    assert second.try_share()
    second.close()
    assert not second.try_own()
    second.close()
    first.close()
    assert second.try_own()
    second.tell("process 1")
    assert not first.try_share()
    assert first.told() == "process 1"
    first.close()
    second.close(remove=True)
    assert not environment.lock_file.exists()


def test_a_lock_that_was_removed_meanwhile_is_not_taken_for_the_next(
    environment: Environment,
) -> None:
    """Or two would own it, each by a file of its own."""
    first, second = environment.lock(), environment.lock()
    first.own()
    second.fd = os.open(environment.lock_file, os.O_RDWR)  # it waits
    first.close(remove=True)
    second.own()
    assert not first.try_own()
    first.close()
    second.close()


def test_the_path_of_an_interpreter_tells_its_environment(store: Store, tmp_path: Path) -> None:
    """By its look alone; and of this user's environments, not of any others."""
    directory = str(store.directory)
    assert key.name_in(f"{directory}/{NAME}/bin/python", directory) == NAME
    (tmp_path / "link").symlink_to(directory)
    assert key.name_in(f"{tmp_path}/link/{NAME}/bin/python", directory) == NAME
    for other in ("/usr/bin/python", f"/elsewhere/{NAME}/bin/python", f"{directory}/x/bin/python"):
        assert key.name_in(other, directory) is None
