"""A machine without any interpreters but those of a test."""

from pathlib import Path

import pytest

from spawny.interpreters import places
from tests.discovery.zoo import Zoo


class Machine(Zoo):
    """A zoo, and the environment of a user there, whose home it is."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.environ = {"PATH": f"{root}/bin:{root}/pyenv/shims:/nowhere", "HOME": str(root)}
        self.environ["PYENV_ROOT"] = f"{root}/pyenv"

    def configure(self, text: str) -> None:
        """Write a config.toml."""
        self.file("home/config/config.toml", text)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("SPAWNY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(places, "_DISTRIBUTION", (f"{tmp_path}/usr/bin",))
    monkeypatch.setattr(places, "_DISTRIBUTIONS", (f"{tmp_path}/opt",))
    monkeypatch.setattr(places, "_CONDA_BASES", ())
    return Machine(tmp_path)
