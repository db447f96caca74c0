"""The header of a script (PEP 723)."""

import pytest

from spawny.environments.requirements import Requirements
from spawny.environments.script import header
from spawny.errors import InvalidRequest

TEXT = """#!/usr/bin/env python
# /// script
# requires-python = ">=3.8, <3.12"
# dependencies = [
#   "numpy<2",
#   "rich",
# ]
# ///
import numpy
"""


def test_it_says_packages_and_versions_of_python() -> None:
    """Wherever it stands, and with the ends of lines of any system."""
    expected = Requirements(("numpy<2", "rich"), requires_python=">=3.8, <3.12")
    assert header(TEXT) == expected
    assert header(TEXT.replace("\n", "\r\n")) == expected


@pytest.mark.parametrize(
    "text",
    ["import numpy\n", "# /// other\n# x = 1\n# ///\n", "# /// script\n# dependencies = []\n"],
    ids=["none", "another's", "without an end"],
)
def test_most_scripts_have_none(text: str) -> None:
    """Then nothing is said of what they require."""
    assert header(text) is None


def test_an_empty_one_requires_no_packages() -> None:
    """Unlike none: the script runs in an environment without any."""
    assert header("# /// script\n# dependencies = []\n# ///\n") == Requirements()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("# dependencies = [", "no TOML"),
        ("# dependencies = 'numpy'", "list of texts"),
        ("# requires-python = 3.8", "requires-python"),
        ("# [tool.uv.sources]\n# six = {url = 'https://example.org'}", "'sources' in"),
        ("# x = 1\n# ///\n\n# /// script\n# x = 1", "more than one"),
    ],
)
def test_a_wrong_one_is_refused(content: str, said: str) -> None:
    """Not skipped: the script would fail later, in less clear words."""
    with pytest.raises(InvalidRequest, match=said):
        header(f"# /// script\n{content}\n# ///\n")
