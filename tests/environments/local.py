"""Building environments without an index: packages come from one folder."""

import os
from pathlib import Path

import pytest

from tests.environments.packages import wheel


def only_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have pip and uv take packages from this new folder alone: `demo` 1.0 and 2.0, which needs
    `base`."""
    folder.mkdir()
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    wheel(folder, "base", "1.0")
    wheel(folder, "demo", "1.0")
    wheel(folder, "demo", "2.0", requires=["base"])
    return folder
