"""What one supervisor leaves to the next."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spawny import control
from spawny.supervisor.journal import Journal
from spawny.supervisor.lifecycle import State
from spawny.supervisor.records import Life, Record
from spawny.supervisor.values import Identity
from tests.supervisor.world import PYTHON, definition

IDENTITY = Identity("boot", 7, 70)


def record(state: State = State.READY, name: str = "etl") -> Record:
    life = Life(began_at=1.0, reason="killed by SIGSEGV")
    identity = IDENTITY if state is State.READY else None
    return Record(definition(name), PYTHON, state, life, identity, restarts=2)


def file_of(directory: Path, name: str = "etl") -> Path:
    return directory / f"{name}.json"


@pytest.mark.parametrize(
    ("state", "standing"),
    [(State.READY, "running"), (State.WAITING, "waiting"), (State.FAILED, "failed")],
)
def test_what_is_written_is_read(tmp_path: Path, state: State, standing: str) -> None:
    """The whole request with its definition, the process, and how it stands."""
    journal = Journal(tmp_path)
    journal.write(record(state))
    (entry,) = journal.read()
    assert entry.request == definition()
    assert entry.request.definition == b"payload"
    assert (entry.interpreter, entry.state) == (PYTHON, standing)
    assert entry.identity == (IDENTITY if standing == "running" else None)
    assert (entry.restarts, entry.reason) == (2, "killed by SIGSEGV")


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
        (("definition",), "not base64!"),
        (("definition",), None),
        (("request",), []),
        (("request", "type"), "Shutdown"),
        (("request",), json.loads(control.encode(control.Shutdown())[0])),
        (("request", "protocol"), 99),
        (("request", "body", "cwd"), 7),
        (("identity", "pid"), "7"),
        (("identity",), {}),
        (("interpreter", "key"), None),
        (("restarts",), None),
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
