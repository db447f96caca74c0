"""The header of a script that says what it requires (PEP 723)."""

from __future__ import annotations

import os
import re

from ..errors import InvalidRequest
from .requirements import Requirements, from_lines

# From PEP 723.
_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")


def header(text: str, folder: str | None = None) -> Requirements | None:
    """What the header of a script requires; None where it has none.

    Local paths in it are relative to `folder`, by default the current directory. Raises
    `InvalidRequest` for a header that is none.
    """
    if "# /// script" not in text:
        return None
    blocks = [each for each in _BLOCK.finditer(text.replace("\r\n", "\n")) if each[1] == "script"]
    if not blocks:
        return None
    if len(blocks) > 1:
        raise InvalidRequest("the script has more than one header '# /// script'")
    return _requirements(_table(blocks[0]["content"]), folder or os.getcwd())


def _table(content: str) -> dict[str, object]:
    import tomllib

    lines = (line[2:] if line.startswith("# ") else line[1:] for line in content.splitlines())
    try:
        return tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequest(f"the script's header is no TOML: {error}") from error


def _requirements(table: dict[str, object], folder: str) -> Requirements:
    lines = table.get("dependencies", [])
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise InvalidRequest(f"the script's header: dependencies is a list of texts, not {lines!r}")
    python = table.get("requires-python", "")
    if not isinstance(python, str):
        raise InvalidRequest(f"the script's header: requires-python is a text, not {python!r}")
    tools = table.get("tool")
    uv = tools.get("uv") if isinstance(tools, dict) else None
    unread = sorted(set(uv) & {"sources", "index"}) if isinstance(uv, dict) else []
    if unread:
        # Not to be skipped: a package of that name from elsewhere is another package.
        raise InvalidRequest(
            f"the script's header has {unread[0]!r} in [tool.uv], which spawny does not read: write"
            " the address in dependencies ('NAME @ URL'), or set the index in the environment"
        )
    found = from_lines(lines, folder, "the script's header")
    return found + Requirements(requires_python=" ".join(python.split()))
