"""What a user may write for a version."""

import pytest

from spawny.interpreters import spec


def allows(text: str, implementation: str, *version: int) -> bool:
    wanted = spec.parse(text)
    assert wanted is not None
    return wanted.allows(implementation, version)


@pytest.mark.parametrize(
    "text", ["3.9", "python3.9", "cpython3.9", "python-3.9", "3.9.*", "==3.9.*"]
)
def test_a_version_is_all_that_begin_so(text: str) -> None:
    """A third number may be any."""
    assert allows(text, "cpython", 3, 9, 0) and allows(text, "cpython", 3, 9, 18)
    assert not allows(text, "cpython", 3, 10, 9)
    assert not allows(text, "cpython", 3, 90, 0)


def test_an_exact_version() -> None:
    """No other third number will do."""
    assert allows("3.9.18", "cpython", 3, 9, 18)
    assert not allows("3.9.18", "cpython", 3, 9, 1)


def test_a_plain_version_is_of_cpython() -> None:
    """A range may be met by any implementation; a name says which."""
    assert not allows("3.9", "pypy", 3, 9, 16)
    assert not allows("python3", "pypy", 3, 9, 16)
    assert allows(">=3.8", "pypy", 3, 9, 16)
    assert allows("python", "pypy", 3, 9, 16)
    assert allows("pypy", "pypy", 3, 9, 16)
    assert allows("pypy3.9", "pypy", 3, 9, 16)
    assert allows("pypy>=3.8,<3.10", "pypy", 3, 9, 16)
    assert not allows("pypy", "cpython", 3, 9, 18)
    assert not allows("cpython>=3.8", "pypy", 3, 9, 16)


@pytest.mark.parametrize(
    ("text", "fits", "does_not"),
    [
        (">=3.8,<3.12", (3, 8, 0), (3, 12, 0)),
        (">=3.8, <3.12", (3, 11, 7), (3, 7, 16)),
        (">3.8", (3, 8, 1), (3, 8, 0)),
        ("<=3.8", (3, 8, 0), (3, 8, 1)),
        ("<=3.8.18", (3, 8, 18), (3, 8, 19)),
        ("~=3.8", (3, 13, 0), (4, 0, 0)),
        ("~=3.8.2", (3, 8, 9), (3, 9, 0)),
        ("!=3.9,>=3", (3, 8, 0), (3, 9, 5)),
        ("!=3.9.*", (3, 10, 0), (3, 9, 5)),
    ],
)
def test_a_range(text: str, fits: tuple[int, ...], does_not: tuple[int, ...]) -> None:
    """As packages' requirements have it, but that `==3.9` is any 3.9."""
    assert allows(text, "cpython", *fits)
    assert not allows(text, "cpython", *does_not)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "venv", "pypy3.9-7.3.13", "3.9/bin", "/usr/bin/python3", "3.9.1.2", "3.9rc1"),
        *(">=", ">=3.*", "~=3", "3.9,", "=3.9", "my-python", "python3.9-config", "3.x", "3..9"),
    ],
)
def test_all_else_is_no_version(text: str) -> None:
    """Paths, names of environments, slips of the keyboard."""
    assert spec.parse(text) is None


def test_names_of_files_tell_what_need_not_be_tried() -> None:
    """A python3.11 is no 3.9, a python may be."""
    wanted = spec.parse(">=3.8.5,<3.10")
    assert wanted is not None
    may_be = ["python", "python3", "python3.8", "python3.9", "pypy3.9", "wrapper"]
    assert [each for each in may_be if not wanted.may_be(each)] == []
    assert [each for each in ("python3.7", "python3.10", "python3.11") if wanted.may_be(each)] == []
    exact = spec.parse("3.9.18")
    assert exact is not None and exact.may_be("python3.9") and exact.may_be("python3")


def test_what_files_of_interpreters_are_called() -> None:
    """And not what belongs to them."""
    names = ["python", "python3", "python3.13", "python3.13t", "python2.7", "pypy3.9", "pypy"]
    assert all(map(spec.is_executable_name, names))
    others = ["python3-config", "python3.9m", "pythonw", "ipython", "pypy3-c", "3.9", ""]
    assert not any(map(spec.is_executable_name, others))
