"""How much memory is free, read from files as Linux has them."""

from pathlib import Path

from spawny.supervisor import room


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_a_limit_it_is_what_the_machine_has(tmp_path: Path) -> None:
    """MemAvailable, in bytes."""
    write(tmp_path / "meminfo", "MemTotal: 9 kB\nMemAvailable:     1000 kB\n")
    write(tmp_path / "self/cgroup", "0::/a/b\n")
    write(tmp_path / "cg/a/b/memory.max", "max\n")
    write(tmp_path / "cg/a/b/memory.current", "5\n")
    write(tmp_path / "cg/a/b/memory.stat", "active_file 1\n")
    assert room.free_bytes(tmp_path, tmp_path / "cg") == 1_024_000


def test_the_tightest_cgroup_counts(tmp_path: Path) -> None:
    """Version 2: of those around ours, too; pages of files can be dropped."""
    write(tmp_path / "meminfo", "MemAvailable:     1000 kB\n")
    write(tmp_path / "self/cgroup", "0::/a/b\n")
    write(tmp_path / "cg/a/memory.max", "5000\n")
    write(tmp_path / "cg/a/memory.current", "4000\n")
    write(tmp_path / "cg/a/memory.stat", "active_file 100\ninactive_file 200\nanon 9\n")
    assert room.free_bytes(tmp_path, tmp_path / "cg") == 1300


def test_version_1_has_other_names(tmp_path: Path) -> None:
    """And a hierarchy of its own; what is over its limit has nothing left."""
    write(tmp_path / "meminfo", "MemAvailable:     1000 kB\n")
    write(tmp_path / "self/cgroup", "4:cpu,memory:/x\n1:cpu:/\n0::/\n")
    write(tmp_path / "cg/memory/x/memory.limit_in_bytes", "5000\n")
    write(tmp_path / "cg/memory/x/memory.usage_in_bytes", "4000\n")
    write(tmp_path / "cg/memory/x/memory.stat", "total_active_file 7\ntotal_inactive_file 3\n")
    assert room.free_bytes(tmp_path, tmp_path / "cg") == 1010
    write(tmp_path / "cg/memory/x/memory.usage_in_bytes", "9000\n")
    assert room.free_bytes(tmp_path, tmp_path / "cg") == 0


def test_a_system_that_does_not_tell_is_believed(tmp_path: Path) -> None:
    """No files at all, as on macOS, and files that make no sense."""
    assert room.free_bytes(tmp_path, tmp_path) is None
    write(tmp_path / "meminfo", "MemAvailable: much\n")
    assert room.free_bytes(tmp_path, tmp_path) is None


def test_this_machine_has_some() -> None:
    """Whatever it is, a test runs on it."""
    found = room.free_bytes()
    assert found is None or found > 10_000_000
