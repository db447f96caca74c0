"""The supervisor's figures."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from spawny.errors import InvalidRequest
from spawny.settings import Settings, from_table, load


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    """A config file is nobody's duty."""
    assert load(tmp_path / "config.toml") == Settings()


def test_a_file_sets_what_it_names(tmp_path: Path) -> None:
    """The rest stays as it is; whole numbers are good for seconds."""
    path = tmp_path / "config.toml"
    path.write_text("[supervisor]\nstop_grace_seconds = 9\nlog_files = 5\n[other]\nx = 1\n")
    assert load(path) == Settings(stop_grace_seconds=9, log_files=5)


def test_a_file_without_our_table(tmp_path: Path) -> None:
    """It is somebody else's matter."""
    path = tmp_path / "config.toml"
    path.write_text("[client]\ncolour = true\n")
    assert load(path) == Settings()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[supervisor\n", "Expected"),
        ("[supervisor]\nstop_grace = 1\n", "no key 'stop_grace'; the keys are adoption_seconds,"),
        ("[supervisor]\nlog_files = 1.5\n", "log_files must be a whole number, not 1.5"),
        ("[supervisor]\nlog_files = true\n", "log_files must be a whole number, not True"),
        ("[supervisor]\nstop_grace_seconds = '5'\n", "stop_grace_seconds must be a number"),
        ("[supervisor]\nstop_grace_seconds = 0\n", "stop_grace_seconds must be positive"),
        ("[supervisor]\nstop_grace_seconds = nan\n", "stop_grace_seconds must be"),
        ("supervisor = 3\n", "[supervisor] must be a table"),
        ("# \udcff\n", "codec can't decode"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    """The message has the file and the key."""
    path = tmp_path / "config.toml"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(InvalidRequest) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert complaint in str(caught.value)


@pytest.mark.parametrize("name", [each.name for each in fields(Settings)])
def test_every_figure_must_be_positive(name: str) -> None:
    """Zero would mean always or never, and each is a trap."""
    values: dict[str, Any] = {name: -1}
    with pytest.raises(InvalidRequest, match=f"{name} must be positive"):
        from_table(values)
