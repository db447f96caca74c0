"""What one supervisor leaves to the next."""

import base64
import json
import os
import resource
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spawny import control
from spawny.paths import Paths
from spawny.supervisor import proctable
from spawny.supervisor.adoption import read_journal
from spawny.supervisor.journal import Journal
from spawny.supervisor.lifecycle import State
from spawny.supervisor.records import Life, Record
from spawny.supervisor.values import Ending, Identity
from tests.supervisor.world import PYTHON, definition

IDENTITY = Identity("boot", 7, 70)


def record(state: State = State.READY, name: str = "etl") -> Record:
    life = Life(began_at=1.0, reason="killed by SIGSEGV")
    identity = IDENTITY if state is State.READY else None
    ending = Ending(900.0, 1.0, 7, "killed by SIGSEGV", None, "SIGSEGV", False, "pid 5", 123)
    return Record(kept(name), PYTHON, state, life, identity, restarts=2, endings=(ending,))


def kept(name: str = "etl", token: str = "t1") -> control.StartDaemon:
    """As the core has it."""
    return replace(definition(name, token), definition=b"")


def file_of(directory: Path, name: str = "etl") -> Path:
    return directory / f"{name}.json"


@pytest.mark.parametrize(
    ("state", "standing"),
    [
        (State.READY, "running"),
        (State.WAITING, "waiting"),
        (State.FAILED, "failed"),
        (State.ENDED, "ended"),
    ],
)
def test_what_is_written_is_read(tmp_path: Path, state: State, standing: str) -> None:
    """The whole request with its definition, the process, and how it stands."""
    journal = Journal(tmp_path)
    journal.keep(definition())
    journal.write(record(state))
    (entry,) = journal.read()
    assert entry.request == kept()
    assert journal.definition(entry.request) == b"payload"
    assert (entry.interpreter, entry.state) == (PYTHON, standing)
    assert entry.identity == (IDENTITY if standing == "running" else None)
    assert (entry.restarts, entry.reason) == (2, "killed by SIGSEGV")
    (ending,) = entry.endings
    assert ending.at == pytest.approx(900, abs=1)
    assert (ending.signal_name, ending.asked_by, ending.log_offset) == ("SIGSEGV", "pid 5", 123)


def test_a_daemon_is_as_old_as_its_request(tmp_path: Path) -> None:
    """However long its process was kept ready before; a clock that was set makes it no older."""
    journal = Journal(tmp_path)
    this = proctable.identify(os.getpid())
    assert this is not None
    process_age = proctable.age_seconds(this)
    for asked_for, least, most in ((0.0, 0.0, process_age), (1e6, process_age, process_age + 60.0)):
        life = Life(began_at=time.monotonic() - asked_for)
        journal.write(record().changed(identity=this, life=life))
        (found,) = read_journal(journal, Paths(tmp_path, tmp_path, tmp_path, tmp_path))
        assert least <= found.age_seconds <= most


def test_a_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """It holds an environment, and so perhaps secrets; nothing else stays in the directory."""
    Journal(tmp_path).write(record())
    assert [each.name for each in tmp_path.iterdir()] == ["etl.json"]
    assert stat.S_IMODE(file_of(tmp_path).stat().st_mode) == 0o600


def test_the_last_word_counts(tmp_path: Path) -> None:
    """Written twice, read once; dropped, and dropped again."""
    journal = Journal(tmp_path)
    journal.write(record())
    journal.write(record(State.FAILED))
    (entry,) = journal.read()
    assert entry.state == "failed"
    journal.drop("etl")
    journal.drop("etl")
    assert list(journal.read()) == []


def damaged(content: dict[str, Any], *path: str, value: object) -> dict[str, Any]:
    *parents, last = path
    place = content
    for key in parents:
        place = place[key]
    place[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), 99),
        (("state",), "dancing"),
        (("endings",), None),
        (("endings",), [{}]),
        (("endings",), [7]),
        (("request",), []),
        (("request", "type"), "Shutdown"),
        (("request",), json.loads(control.encode(control.Shutdown())[0])),
        (("request", "protocol"), 99),
        (("request", "body", "cwd"), 7),
        (("identity", "pid"), "7"),
        (("identity",), {}),
        (("interpreter", "key"), None),
        (("restarts",), None),
        (("began_at",), "yesterday"),
        (("request", "body", "name"), "other"),
    ],
)
def test_a_damaged_file_is_moved_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, path: tuple[str, ...], value: object
) -> None:
    """It costs its own daemon and no other, and a line in the log says so."""
    journal = Journal(tmp_path)
    journal.write(record())
    journal.write(record(name="other"))
    content = json.loads(file_of(tmp_path).read_text())
    file_of(tmp_path).write_text(json.dumps(damaged(content, *path, value=value)))
    (entry,) = journal.read()
    assert entry.request.name == "other"
    assert "etl.json is no journal" in caplog.text
    assert (tmp_path / "etl.broken").exists()
    assert not file_of(tmp_path).exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=50) | st.sampled_from([b"[]", b"{}", b"1", b"null", b"[" * 9999]))
def test_garbage_is_moved_aside(tmp_path: Path, content: bytes) -> None:
    """Whatever bytes are there."""
    file_of(tmp_path).write_bytes(content)
    assert list(Journal(tmp_path).read()) == []
    assert not file_of(tmp_path).exists()


def test_a_file_cut_short_by_a_full_disk_is_not_seen(tmp_path: Path) -> None:
    """The name appears only with the whole content."""
    journal = Journal(tmp_path)
    journal.write(record())
    (tmp_path / "_etl.tmp").write_text('{"format": 1, "requ')
    (entry,) = journal.read()
    assert entry.request.name == "etl"


def test_a_definition_is_written_once(tmp_path: Path) -> None:
    """The next token's takes its place, as soon as that daemon is in the journal."""
    journal = Journal(tmp_path)
    journal.keep(definition())
    journal.write(record())
    (first,) = tmp_path.glob("*.definition")
    before = first.stat().st_mtime_ns
    journal.write(record(State.WAITING))
    assert first.stat().st_mtime_ns == before
    journal.keep(replace(definition(token="t2"), definition=b"other"))
    assert journal.definition(kept()) == b"payload"
    journal.write(record().changed(request=kept(token="t2")))
    (second,) = tmp_path.glob("*.definition")
    assert second != first
    assert journal.definition(kept(token="t2")) == b"other"
    journal.drop("etl")
    assert list(tmp_path.iterdir()) == []


def test_a_definition_of_no_entry_goes(tmp_path: Path) -> None:
    """Its supervisor died between the two; those of other daemons stay."""
    journal = Journal(tmp_path)
    journal.keep(definition())
    journal.keep(definition("etl.b"))
    journal.write(record(name="etl.b"))
    assert len(list(journal.read())) == 1
    assert journal.definition(kept("etl.b")) == b"payload"
    with pytest.raises(FileNotFoundError):
        Journal(tmp_path).definition(kept())


def test_the_first_format_is_read(tmp_path: Path) -> None:
    """A supervisor of an earlier version left it; its definition moves into a file."""
    journal = Journal(tmp_path)
    journal.write(record())
    content = json.loads(file_of(tmp_path).read_text())
    del content["endings"]
    content["definition"] = base64.b64encode(b"old payload").decode()
    file_of(tmp_path).write_text(json.dumps({**content, "format": 1}))
    (entry,) = Journal(tmp_path).read()
    assert entry.request == kept()
    assert Journal(tmp_path).definition(entry.request) == b"old payload"
    file_of(tmp_path).write_text(json.dumps({**content, "format": 1, "definition": "not base64!"}))
    assert list(Journal(tmp_path).read()) == []


def test_the_ended_ones_are_read_in_their_order(tmp_path: Path) -> None:
    """First, and the latest last; a daemon that was started again has not ended."""
    journal = Journal(tmp_path)
    for number, name in enumerate(("c", "a", "b")):
        journal.write(record(State.ENDED, name))
        os.utime(tmp_path / f"{name}.ended", (number, number))
    journal.write(record(State.READY, "a"))
    assert [each.request.name for each in journal.read()] == ["c", "b", "a"]


def test_definitions_of_ended_daemons_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest go first, the last one never."""
    monkeypatch.setattr("spawny.supervisor.journal.ENDED_DEFINITIONS_BYTES", 10)
    journal = Journal(tmp_path)
    for number, name in enumerate("abc"):
        journal.keep(definition(name))
        journal.write(record(State.ENDED, name))
        os.utime(tmp_path / f"{name}.ended", (number, number))
    (left,) = tmp_path.glob("*.definition")
    assert left.name.startswith("c~")


def test_a_full_disk_costs_nothing_that_was_there(tmp_path: Path) -> None:
    """What could not be written is known all the same, and written when there is room."""
    journal = Journal(tmp_path)
    journal.write(record())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As a full disk does, this fails in the middle of a file. (Python ignores the SIGXFSZ.)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        large = replace(definition(token="t2"), definition=b"x" * 100)
        problem = journal.keep(large)
        assert problem is not None
        assert "cannot write" in problem
        assert journal.definition(large) == large.definition
        assert "File too large" in (journal.write(record(State.FAILED)) or "")
        assert "cannot write" in (journal.retry() or "")
        assert [each.name for each in tmp_path.iterdir()] == ["etl.json"]
        (entry,) = journal.read()
        assert entry.state == "running"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert journal.retry() is None
    (entry,) = Journal(tmp_path).read()
    assert entry.state == "failed"


def test_a_file_that_somebody_removed_is_missed(tmp_path: Path) -> None:
    """Until it is written again, or its daemon forgotten; also one that was read."""
    journal = Journal(tmp_path)
    assert journal.is_whole()
    journal.write(record())
    assert list(Journal(tmp_path).read())
    assert journal.is_whole()
    file_of(tmp_path).unlink()
    assert not journal.is_whole()
    journal.write(record(State.ENDED))
    assert journal.is_whole()
    later = Journal(tmp_path)
    assert list(later.read())
    (tmp_path / "etl.ended").unlink()
    assert not later.is_whole()
    later.drop("etl")
    assert later.is_whole()


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    """The half of a file under its other name."""
    (tmp_path / "_etl.json.tmp").write_text("{")
    assert list(Journal(tmp_path).read()) == []
    assert list(tmp_path.iterdir()) == []
