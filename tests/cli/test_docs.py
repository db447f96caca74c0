"""The page about the command line says all that the commands take."""

import argparse
from dataclasses import fields
from pathlib import Path

import pytest

from spawny.cli import command, exits
from spawny.cli.ps import STATE_COLOURS
from spawny.control import DaemonStatus

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    (action,) = (
        each for each in command.parser()._actions if isinstance(each, argparse._SubParsersAction)
    )
    return action.choices


@pytest.mark.parametrize("name", commands())
def test_each_command_and_option_is_described(name):
    """A section per command, which names each of its options."""
    section = PAGE.partition(f"\n## spawny {name}\n")[2].partition("\n## ")[0]
    assert section
    for action in commands()[name]._actions:
        for option in set(action.option_strings) - {"-h", "--help"}:
            assert f"`{option}" in section


def test_each_state_key_and_exit_code_is_described():
    """What programs see is listed whole."""
    for state in STATE_COLOURS:
        assert f"\n| {state} |" in PAGE
    for field in fields(DaemonStatus):
        assert f"`{field.name}`" in PAGE
    for name, code in vars(exits).items():
        if name.isupper():
            assert f"\n| {code} |" in PAGE
