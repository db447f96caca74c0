"""Every program in the README and the tutorial runs, and prints what the page says it prints.

A `python` block is a whole script; one that begins with a comment such as `# shop.py` is kept under
that name, so that later ones can import it. A `console` block holds commands, each after `$ `. The
`text` block that follows a script, and the lines below a command, are what it must print, with
`...` for anything; a script without one must print nothing. Below a command, numbers and the width
of columns may differ. The blocks of a page run in order, in one directory and one SPAWNY_HOME.
Other languages (`sh` for what only a reader can run) do not run.
"""

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import interpreters

REPOSITORY = Path(__file__).parents[1]
PAGES = ["README.md", "docs/tutorial.md"]

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"# (\w+\.py)$", re.MULTILINE)
COMMAND = re.compile(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
NUMBER = re.compile(r"\d+(\.\d+)*")
ASKED_VERSION = re.compile(r'python_exe="(3\.\d+)"')

# One that hangs is told from one that is slow on a loaded machine.
BLOCK_SECONDS = 60


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    is_adjacent: bool  # nothing but blank lines lies between it and the one before

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str, text: str) -> Iterator[Block]:
    end = 0
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, match[1], match[2], not text[end : match.start()].strip())
        end = match.end()


@dataclass(frozen=True)
class Run:
    """One program of a page: what runs, and what it must print."""

    block: Block
    arguments: tuple[str, ...]
    expected: str


def runs(page: list[Block]) -> Iterator[Run]:
    followers: list[Block | None] = [*page[1:], None]
    for block, after in zip(page, followers, strict=True):
        if block.language == "python":
            has_output = after is not None and after.language == "text" and after.is_adjacent
            expected = after.text if has_output and after is not None else ""
            yield Run(block, (sys.executable, "-u", file_of(block)), expected)
        elif block.language == "console":
            for command, printed in COMMAND.findall(block.text):
                yield Run(block, ("sh", "-c", command), printed)


def file_of(block: Block) -> str:
    """Where a script is kept: under the name that it states, else under its place in the page."""
    named = NAMED.match(block.text)
    return named[1] if named else f"line_{block.line}.py"


def with_interpreters_found(text: str) -> str:
    """The page with versions that this machine lacks replaced by one that it has.

    What a page shows of another version must run everywhere, if need be under our own.
    """
    found = [f"3.{each.version[1]}" for each in interpreters.find()]
    for version in set(ASKED_VERSION.findall(text)) - set(found):
        text = text.replace(version, found[0])
    return text


@pytest.mark.parametrize("page", PAGES)
def test_what_the_page_shows_is_what_happens(page: str, home: Path, tmp_path: Path) -> None:
    """Every block runs without an error and prints what stands below it."""
    text = with_interpreters_found((REPOSITORY / page).read_text(encoding="utf-8"))
    found = list(blocks(page, text))
    assert any(block.language == "python" for block in found)
    # `spawny` is the command of this very installation.
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    for block in found:
        if block.language == "python":
            tmp_path.joinpath(file_of(block)).write_text(block.text, encoding="utf-8")
    for run in runs(found):
        ran = subprocess.run(
            run.arguments,
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BLOCK_SECONDS,
        )
        assert ran.returncode == 0, f"{run.block.place} failed:\n{ran.stdout}"
        assert not (difference := compare(run, ran.stdout)), f"{run.block.place}:\n{difference}"


def compare(run: Run, printed: str) -> str:
    """How what was printed differs from what the page says; empty where it does not."""
    expected, options = run.expected, doctest.ELLIPSIS
    if run.block.language == "console":
        expected, printed = NUMBER.sub("0", expected), NUMBER.sub("0", printed)
        options |= doctest.NORMALIZE_WHITESPACE
    checker = doctest.OutputChecker()
    if checker.check_output(expected, printed, options):
        return ""
    return checker.output_difference(doctest.Example("", expected), printed, options)


PAGE = """\
```python
# one.py
print("one", 11100)
```

```text
one ...
```

```python
print("two")
```
Words.
```text
not its output
```

```console
$ echo a   b 7
a b 12
$ true
```

```sh
exit 1
```
"""


def test_the_page_is_read_as_the_rules_say() -> None:
    """Output belongs to the script right above it, and only `python` and `console` run."""
    found = [
        (run.block.line, run.arguments[-1], run.expected) for run in runs(list(blocks("p", PAGE)))
    ]
    assert found == [
        (1, "one.py", "one ...\n"),
        (10, "line_10.py", ""),
        (18, "echo a   b 7", "a b 12\n"),
        (18, "true", ""),
    ]


@pytest.mark.parametrize(
    ("place", "printed", "is_same"),
    [
        (0, "one 2\n", True),
        (0, "two 2\n", False),
        (1, "two\n", False),
        (2, "a    b 7\n", True),
        (2, "a    c 7\n", False),
    ],
)
def test_what_is_printed_is_compared(place: int, printed: str, is_same: bool) -> None:
    """Dots stand for anything; what a page does not say is a difference."""
    run = list(runs(list(blocks("p", PAGE))))[place]
    assert (compare(run, printed) == "") is is_same
