"""What a user may write as requirements."""

import os
from pathlib import Path

import pytest

from spawny.environments.requirements import Requirements, read
from spawny.errors import InvalidRequest
from tests.environments.packages import wheel


def lines(wanted: object, cwd: Path) -> tuple[str, ...]:
    found = read(wanted, str(cwd))
    assert found is not None
    return found.lines


def test_equal_lists_are_equal_requirements(tmp_path: Path) -> None:
    """Order, repetition, blanks and comments make no difference."""
    first = read(["numpy < 2", "pandas>=1,  <3", "numpy<2"], str(tmp_path))
    second = read(("pandas >=1,<3  # tables", "", "# arrays", "numpy<2"), str(tmp_path))
    assert first == second
    assert first is not None
    assert first.lines == ("numpy<2", "pandas>=1,<3")


def test_markers_and_addresses_stay_as_they_are(tmp_path: Path) -> None:
    """What is compared in a marker, or stands in an address, is not ours to change."""
    wanted = [
        "numpy <2 ; python_version < '3.12'",
        "thing @ https://user:secret@example.org/a.whl#sha256=12",
        "six==1.0 --hash=sha256:34",
    ]
    assert lines(wanted, tmp_path) == (
        "numpy<2 ; python_version < '3.12'",
        "six==1.0 --hash=sha256:34",
        "thing @ https://user:secret@example.org/a.whl#sha256=12",
    )


def test_nothing_is_required_by_none_and_by_an_empty_list(tmp_path: Path) -> None:
    """Then the interpreter is used as it is."""
    assert read(None, str(tmp_path)) is None
    assert read([], str(tmp_path)) is None


def test_a_file_is_read_with_what_it_includes(tmp_path: Path) -> None:
    """Relative to itself, whatever the directory; constraints stay constraints; a circle ends."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "requirements.txt").write_text("-r sub/more.txt\n-c limits.txt\nnumpy\\\n  <2\n")
    (tmp_path / "sub" / "more.txt").write_text("-r ../requirements.txt\npandas # tables\n")
    (tmp_path / "limits.txt").write_text("six<2\n")
    found = read(tmp_path / "requirements.txt", "/")
    assert found == Requirements(("numpy<2", "pandas"), ("six<2",))
    assert found == read("requirements.txt", str(tmp_path))
    assert found == read(["-r requirements.txt"], str(tmp_path))


def test_a_local_file_is_known_by_its_content(tmp_path: Path) -> None:
    """A wheel that was built anew under its old name is another requirement."""
    path = wheel(tmp_path, "demo")
    first = read([f"./{path.name}"], str(tmp_path))
    assert first is not None
    assert first.lines == (str(path),)
    assert first == read([str(path)], "/")
    named = read([f"demo @ file://{path}"], "/")
    assert named is not None
    assert named.contents == first.contents
    path.write_bytes(b"another")
    assert read([str(path)], "/") != first


def test_a_local_project_is_known_by_the_times_of_its_files(tmp_path: Path) -> None:
    """What is hidden, and what was built there, does not count; extras stay."""
    project = tmp_path / "project"
    (project / "__pycache__").mkdir(parents=True)
    (project / "code.py").write_text("x = 1")
    first = read(["./project[plot]"], str(tmp_path))
    assert first is not None
    assert first.lines == (f"{project}[plot]",)
    (project / "__pycache__" / "code.pyc").write_text("")
    (project / ".git").write_text("")
    assert read(["./project[plot]"], str(tmp_path)) == first
    os.utime(project / "code.py", (1, 1))
    assert read(["./project[plot]"], str(tmp_path)) != first


def test_an_editable_project_is_an_absolute_path(tmp_path: Path) -> None:
    """The environment is used in another directory than it was asked for in."""
    (tmp_path / "pyproject.toml").write_text("")
    assert lines(["-e ."], tmp_path) == (f"-e {tmp_path}",)
    assert lines([f"--editable=file://{tmp_path}"], Path("/")) == (f"-e {tmp_path}",)


def test_options_about_indexes_are_permitted(tmp_path: Path) -> None:
    """With absolute paths, and the same under their short names."""
    long = ["--no-index", "--find-links=wheels", "--index-url https://example.org/simple"]
    short = ["--no-index", "-f wheels", "-i https://example.org/simple"]
    assert lines(long, tmp_path) == lines(short, tmp_path)
    assert f"--find-links {tmp_path}/wheels" in lines(short, tmp_path)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("numpy<2", r"in a list: \['numpy<2'\]"),
        ("missing.txt", "cannot read .*missing.txt"),
        (["--user numpy"], "'--user numpy' has no place"),
        (["--target=/"], "has no place"),
        (["./missing.whl"], "cannot read .*missing.whl"),
        (["-r missing.txt"], "cannot read"),
        ([1], "list of texts"),
        (3, "list of texts"),
        (b"requirements.txt", "list of texts"),
        ("script", "'./script'"),
    ],
)
def test_what_makes_no_sense_is_refused(wanted: object, said: str, tmp_path: Path) -> None:
    """With what to write in its place, where that can be known."""
    with pytest.raises(InvalidRequest, match=said):
        read(wanted, str(tmp_path))


def test_a_header_is_read_only_where_it_was_asked_for(tmp_path: Path) -> None:
    """`"script"` means the header; a script without one cannot be meant."""
    header = "# /// script\n# dependencies = ['numpy <2']\n# ///\n"
    found = read("script", str(tmp_path), header)
    assert found == Requirements(("numpy<2",))
    with pytest.raises(InvalidRequest, match="no header"):
        read("script", str(tmp_path), "x = 1")


def test_a_sum_requires_both() -> None:
    """As `spawny run --with` adds to the header; both must like the version of Python."""
    both = Requirements(("a",), requires_python=">=3.8") + Requirements(("b",), ("c",))
    assert both == Requirements(("a", "b"), ("c",), requires_python=">=3.8")
    assert (both + Requirements(requires_python="<3.12")).requires_python == ">=3.8,<3.12"


def test_passwords_are_not_shown() -> None:
    """They are needed in lines, and have no place in messages."""
    secret = Requirements(("--index-url https://user:secret@example.org/simple", "six"))
    assert "secret" not in secret.summary()
    assert secret.shown()[0] == "--index-url https://***@example.org/simple"
    assert "secret" not in secret.digest()


def test_a_long_list_is_summed_up() -> None:
    """Messages name a few."""
    many = Requirements(tuple(f"p{number}" for number in range(9)))
    assert many.summary() == "p0, p1, p2, p3 and 5 more"
    assert Requirements().summary() == "no packages"
