"""The dependencies in a pyproject.toml."""

from pathlib import Path

import pytest

from spawny.environments.requirements import Requirements, read
from spawny.errors import InvalidRequest

TEXT = """
[project]
name = "Model"
requires-python = ">=3.8"
dependencies = ["numpy<2"]
[project.optional-dependencies]
plot = ["matplotlib"]
web_ui = ["flask"]
all = ["model[plot,web-ui]"]
[dependency-groups]
test = ["pytest", {include-group = "Lint_It"}]
lint-it = ["ruff"]
circle = [{include-group = "circle"}]
odd = [1]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(TEXT)
    return tmp_path


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        ("pyproject.toml", ("numpy<2",)),
        ("pyproject.toml[plot]", ("matplotlib", "numpy<2")),
        ("./pyproject.toml[plot, Web.UI]", ("flask", "matplotlib", "numpy<2")),
        ("pyproject.toml[all]", ("flask", "matplotlib", "numpy<2")),
    ],
)
def test_a_project_requires_its_dependencies_and_those_of_extras(
    written: str, lines: tuple[str, ...], project: Path
) -> None:
    """As pip writes extras, which may name each other; and its versions of Python."""
    assert read(written, str(project)) == Requirements(lines, requires_python=">=3.8")


def test_a_group_stands_alone(project: Path) -> None:
    """With the groups that it includes, and nothing of the project's own."""
    assert read("pyproject.toml:test", str(project)) == Requirements(("pytest", "ruff"))
    assert read(project / "pyproject.toml:lint_it", "/") == Requirements(("ruff",))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("pyproject.toml:nope", "no dependency group 'nope'; it has circle, lint-it, odd, test"),
        ("pyproject.toml[nope]", "no extra 'nope'; it has all, plot, web-ui"),
        ("pyproject.toml:circle", "includes itself"),
        ("pyproject.toml:odd", "'odd' .* has 1"),
        ("sub/pyproject.toml", "cannot read"),
    ],
)
def test_what_is_not_there_is_named(written: str, said: str, project: Path) -> None:
    """Beside what there is."""
    with pytest.raises(InvalidRequest, match=said):
        read(written, str(project))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[project", "cannot read"),
        ("[build-system]", r"no \[project\]"),
        ("[project]\ndynamic = ['dependencies']", "dynamic"),
        ("[project]\ndependencies = 'numpy'", "no list of texts"),
    ],
)
def test_a_file_that_does_not_say_is_refused(text: str, said: str, tmp_path: Path) -> None:
    """Dynamic dependencies are known only to a build of the project."""
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(InvalidRequest, match=said):
        read("pyproject.toml", str(tmp_path))
