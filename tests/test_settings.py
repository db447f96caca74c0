"""The supervisor's figures."""

from dataclasses import fields
from typing import Any

import pytest

from spawny.errors import InvalidRequest
from spawny.settings import Settings, from_table, shown


def test_a_table_sets_what_it_names() -> None:
    """The rest stays as it is; whole numbers are good for seconds."""
    found = from_table({"stop_grace_seconds": 9, "log_files": 5})
    assert found == Settings(stop_grace_seconds=9, log_files=5)


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"stop_grace": 1}, "no key 'stop_grace'; the keys are adoption_seconds,"),
        ({"log_files": 1.5}, "log_files must be a whole number, not 1.5"),
        ({"log_files": True}, "log_files must be a whole number, not True"),
        ({"stop_grace_seconds": "5"}, "stop_grace_seconds must be a number"),
        ({"stop_grace_seconds": 0}, "stop_grace_seconds must be positive"),
        ({"stop_grace_seconds": float("nan")}, "stop_grace_seconds must be"),
        ({"stop_grace_seconds": float("inf")}, "stop_grace_seconds must be 1e\\+15 at most"),
        ({"memory_reserve_bytes": 10**400}, "memory_reserve_bytes must be 1e\\+15 at most"),
    ],
)
def test_what_is_wrong_is_named(table: dict[str, Any], complaint: str) -> None:
    """The message has the key."""
    with pytest.raises(InvalidRequest, match=complaint):
        from_table(table)


@pytest.mark.parametrize("name", [each.name for each in fields(Settings) if each.type != "bool"])
def test_every_figure_must_be_positive(name: str) -> None:
    """Zero would mean always or never, and each is a trap."""
    values: dict[str, Any] = {name: -1}
    with pytest.raises(InvalidRequest, match=f"{name.removeprefix('zygotes_')} must be positive"):
        Settings(**values)


def test_zygotes_have_a_table_of_their_own() -> None:
    """Its keys are short, and those of no other table."""
    table = {"enabled": False, "keep_seconds": 5, "most": 2}
    base = Settings(log_files=5)
    assert from_table(table, "zygotes", base) == Settings(
        log_files=5, zygotes_enabled=False, zygotes_keep_seconds=5, zygotes_most=2
    )
    with pytest.raises(InvalidRequest, match=r"\[supervisor\] has no key 'most'"):
        from_table({"most": 2})
    with pytest.raises(InvalidRequest, match=r"keys are enabled, keep_seconds, most$"):
        from_table({"log_files": 2}, "zygotes")
    with pytest.raises(InvalidRequest, match=r"^enabled must be true or false, not 1$"):
        from_table({"enabled": 1}, "zygotes")
    assert shown("zygotes_most") == "[zygotes] most"


def test_the_reserve_may_be_nothing() -> None:
    """That switches the guard off."""
    assert from_table({"memory_reserve_bytes": 0}).memory_reserve_bytes == 0
