"""Following a log: its last lines, its new ones, rotation, and both ways of waiting."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spawny.client import filewatch
from spawny.client.follow import follow, tail


class Follower:
    """A follower in a thread, whose lines a test awaits one by one."""

    def __init__(self, path: Path, watch: type[filewatch.FileWatch], lines: int | None) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._stop, self._end = os.pipe()
        stream = follow(path, self._stop, watch=watch, lines=lines)
        self.first = next(stream)  # from here on the file is watched
        self._thread = threading.Thread(target=self._run, args=(stream,), daemon=True)
        self._thread.start()

    def _run(self, stream: Iterator[str]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put(None)

    def next(self) -> str | None:
        """The next line; None at the end."""
        return self._lines.get(timeout=30)

    def end(self) -> list[str]:
        """Stop it and return what came last."""
        if self._end >= 0:
            os.close(self._end)
            self._end = -1
        self._thread.join(30)
        os.close(self._stop)
        rest = []
        while (line := self.next()) is not None:
            rest.append(line)
        return rest


WATCHES = [filewatch.InotifyWatch, filewatch.TimerWatch]


@pytest.fixture(params=WATCHES, ids=["inotify", "timer"])
def watch(request: pytest.FixtureRequest) -> type[filewatch.FileWatch]:
    return request.param


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "etl.log"
    path.write_text("first\n")
    return path


def append(path: Path, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


def test_new_lines_arrive_as_they_are_completed(log, watch):
    """What is there comes first, then each line once it has its end."""
    follower = Follower(log, watch, None)
    assert follower.first == "first"
    append(log, "second\nthi")
    assert follower.next() == "second"
    append(log, "rd\n")
    assert follower.next() == "third"
    assert follower.end() == []


def test_the_end_brings_what_was_not_completed(log, watch):
    """Whoever stops following gets the last words without a line end too."""
    follower = Follower(log, watch, None)
    append(log, "last\nwords")
    assert follower.next() == "last"
    assert follower.end() == ["words"]


def test_rotation_by_copy_and_truncate_loses_nothing(log, watch):
    """A log that gets shorter is read from its start, after what the copy has on top."""
    append(log, "old\n" * 100)
    follower = Follower(log, watch, 1)
    assert follower.first == "old"
    missed = log.read_text() + "missed\n"
    (log.parent / "etl.log.1").write_text(missed)
    os.truncate(log, 0)
    append(log, "new\n")
    assert follower.next() == "missed"
    assert follower.next() == "new"
    follower.end()


def test_a_log_that_another_file_replaces_is_read_anew(log, watch):
    """A log that is removed and created again is followed on."""
    follower = Follower(log, watch, None)
    log.unlink()
    replacement = log.parent / "replacement"
    replacement.write_text("reborn\n")
    replacement.rename(log)
    assert follower.next() == "reborn"
    append(log, "grown\n")
    assert follower.next() == "grown"
    follower.end()


def test_the_timer_stands_in_where_inotify_is_not_to_be_had(log, monkeypatch):
    """On another platform the portable way is chosen, without an error."""
    monkeypatch.setattr(filewatch.sys, "platform", "darwin")
    assert isinstance(filewatch.watch_file(str(log)), filewatch.TimerWatch)


def test_the_last_lines_are_found_across_blocks(tmp_path):
    """A line longer than a block that is read backwards comes whole."""
    path = tmp_path / "long.log"
    long = "x" * 200_000
    path.write_text(f"a\n{long}\nb\n")
    assert tail(path, 2) == [long, "b"]
    assert tail(path, 0) == []


@given(st.text(alphabet="ab\n", max_size=40), st.integers(0, 50))
def test_tail_is_the_end_of_the_list_of_lines(tmp_path_factory, text, lines):
    """Whatever a log holds, tail gives the end of its list of lines."""
    path = tmp_path_factory.mktemp("log") / "any.log"
    path.write_text(text)
    every = text.removesuffix("\n").split("\n") if text else []
    assert tail(path) == every
    assert tail(path, lines) == every[max(len(every) - lines, 0) :]


def test_older_files_provide_what_a_rotation_took(tmp_path):
    """Right after a rotation the last lines are still those of before."""
    (tmp_path / "etl.log").write_text("d\n")
    (tmp_path / "etl.log.1").write_text("b\nc\n")
    (tmp_path / "etl.log.2").write_text("a\n")
    assert tail(tmp_path / "etl.log", 3) == ["b", "c", "d"]
    assert tail(tmp_path / "etl.log", 9) == ["a", "b", "c", "d"]
    assert tail(tmp_path / "etl.log") == ["d"]
