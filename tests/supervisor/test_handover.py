"""What one version leaves to the next, through a real descriptor."""

import json
import os
from collections.abc import Iterator

import pytest

from spawny import __version__, control
from spawny.supervisor import handover
from spawny.supervisor.lifecycle import State
from spawny.supervisor.records import Cause, Life, Record, Stage
from spawny.supervisor.values import Busy, Identity
from tests.supervisor.world import PYTHON, definition, sample

RECORD = Record(
    definition(),
    PYTHON,
    State.STOPPING,
    Life(
        began_at=5,
        ready_at=6.5,
        busy=Busy("fit()", 7, 0.5),
        sample=sample(),
        stage=Stage.SIGTERM,
        cause=Cause.DECIDED,
        reason="stop requested",
    ),
    Identity("boot", 77, 1234),
    deadline=9.25,
    restarts=2,
    failures=1,
    deaths=(1.0, 2.0),
)

ANSWERED = {"t1": control.Done("ended"), "t2": control.Refused("DaemonNotFound", "no daemon")}


@pytest.fixture
def fds() -> Iterator[tuple[int, int, int]]:
    opened = tuple(os.open(os.devnull, os.O_RDONLY) for _ in range(3))
    yield opened
    for fd in opened:
        os.close(fd)


def test_everything_arrives(fds: tuple[int, int, int]) -> None:
    """Records and answers, as they were; definitions are bytes."""
    fd = handover.write(fds, True, (RECORD,), ANSWERED)
    assert all(os.get_inheritable(each) for each in (fd, *fds))
    found = handover.read(fd)
    assert found.version == __version__
    assert (found.lock_fd, found.control_fd, found.link_fd) == fds
    assert found.owns_socket
    assert found.records == (RECORD,)
    assert found.answered == ANSWERED
    assert not any(os.get_inheritable(each) for each in fds)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def changed(fds: tuple[int, int, int], **changes: object) -> handover.Handover:
    """What is read where the first record was written by another version."""
    fd = handover.write(fds, False, (RECORD, RECORD), ANSWERED)
    with open(os.dup(fd), encoding="utf-8") as file:
        content = json.load(file)
    first = content["records"][0]
    for key, value in changes.items():
        if value is None:
            del first[key]
        else:
            first[key] = value
    text = json.dumps(content)
    os.ftruncate(fd, 0)
    os.pwrite(fd, text.encode(), 0)
    os.lseek(fd, 0, os.SEEK_SET)
    return handover.read(fd)


def test_what_another_version_knows_besides_is_skipped(fds: tuple[int, int, int]) -> None:
    """And what it does not know has its default."""
    found = changed(fds, colour="red", restarts=None)
    assert [each.restarts for each in found.records] == [0, 2]


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "asleep"},
        {"request": ["AAAA"]},
        {"request": 7},
        {"interpreter": None},
        {"version": 7},
        {"identity": {"pid": "7"}},
        {"deaths": 5},
    ],
)
def test_a_record_that_makes_no_sense_is_left_out(
    fds: tuple[int, int, int], changes: dict[str, object]
) -> None:
    """The journal has that daemon, too."""
    assert len(changed(fds, **changes).records) == 1
