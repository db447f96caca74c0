"""Log files."""

import os
import resource
from pathlib import Path

from spawny.supervisor import logs


def write(path: Path, text: str) -> None:
    fd = logs.open_for_append(path)
    os.write(fd, text.encode())
    os.close(fd)


def test_a_log_is_appended_to_and_closed_to_others(tmp_path: Path) -> None:
    """Over every restart of its daemon."""
    path = tmp_path / "etl.log"
    write(path, "one\n")
    write(path, "two\n")
    assert path.read_text() == "one\ntwo\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_rotation_moves_every_file_one_on(tmp_path: Path) -> None:
    """The limit of files holds, the newest old one is .1."""
    path = tmp_path / "etl.log"
    for number in range(5):
        write(path, f"{number}" * 11)
        assert logs.rotate(path, limit_bytes=10, files=3)
        assert path.stat().st_size == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "etl.log",
        "etl.log.1",
        "etl.log.2",
        "etl.log.3",
    ]
    assert (tmp_path / "etl.log.1").read_text() == "4" * 11
    assert (tmp_path / "etl.log.3").read_text() == "2" * 11
    assert (tmp_path / "etl.log.1").stat().st_mode & 0o777 == 0o600


def test_of_one_that_grew_too_fast_the_end_is_kept(tmp_path: Path) -> None:
    """Copying gigabytes would keep the supervisor from all else."""
    path = tmp_path / "etl.log"
    write(path, "old" * 1000 + "new" * 5)
    assert logs.rotate(path, limit_bytes=10, files=3)
    assert (tmp_path / "etl.log.1").read_text() == "ldold" + "new" * 5


def test_a_writer_goes_on_where_the_file_now_ends(tmp_path: Path) -> None:
    """A daemon keeps its descriptor over the rotation and leaves no hole."""
    path = tmp_path / "etl.log"
    fd = logs.open_for_append(path)
    os.write(fd, b"x" * 20)
    assert logs.rotate(path, 10, 1)
    os.write(fd, b"after\n")
    os.close(fd)
    assert path.read_bytes() == b"after\n"
    assert (tmp_path / "etl.log.1").read_bytes() == b"x" * 20


def test_a_small_log_or_none_is_left(tmp_path: Path) -> None:
    """Up to the limit nothing happens."""
    path = tmp_path / "etl.log"
    assert not logs.rotate(path, 10, 3)
    write(path, "x" * 10)
    assert not logs.rotate(path, 10, 3)


def test_the_tail_begins_with_a_whole_line(tmp_path: Path) -> None:
    """Cut at the limit, not in a line; at the offset, exactly there."""
    path = tmp_path / "etl.log"
    assert logs.tail(path) == ""
    write(path, "first life\nsecond life\nends\n")
    assert logs.tail(path) == "first life\nsecond life\nends\n"
    assert logs.tail(path, offset=11) == "second life\nends\n"
    assert logs.tail(path, limit_bytes=10) == "ends\n"
    assert logs.tail(path, offset=1000) == "first life\nsecond life\nends\n"


def test_a_tail_of_bytes_that_are_no_text(tmp_path: Path) -> None:
    """C code writes what it likes."""
    path = tmp_path / "etl.log"
    path.write_bytes(b"\xff\xfe ok\n")
    assert logs.tail(path) == "\ufffd\ufffd ok\n"


def test_on_a_full_disk_a_log_is_cut_without_a_copy(tmp_path: Path) -> None:
    """It is what fills the disk; no half-made copy is left."""
    log = tmp_path / "etl.log"
    log.write_bytes(b"x" * 200)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))
    try:
        assert logs.rotate(log, 100, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert log.stat().st_size == 0
    assert [each.name for each in tmp_path.iterdir()] == ["etl.log"]
