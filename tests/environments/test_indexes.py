"""Where packages come from, for pip and uv alike."""

from pathlib import Path

import pytest

from spawny.environments.indexes import masked, read

HOME = {"HOME": "/nonexistent", "PIP_CONFIG_FILE": "/dev/null"}


def told(cwd: str = "/", **environ: str) -> dict[str, str]:
    """The variables of the tools in such an environment."""
    both = {**HOME, **environ}
    return read(both, cwd).environ(both)


def test_uv_is_told_what_pip_was_told() -> None:
    """A package of another index is another package. Several are asked as pip asks them."""
    found = told(
        PIP_INDEX_URL="https://a", PIP_EXTRA_INDEX_URL="https://b https://c", PIP_NO_INDEX="1"
    )
    assert found["UV_DEFAULT_INDEX"] == "https://a"
    assert found["UV_INDEX"] == "https://b https://c"
    assert found["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert found["UV_NO_INDEX"] == "1"


def test_pip_is_told_what_uv_was_told() -> None:
    """Without the names that uv gives to indexes."""
    found = told(UV_DEFAULT_INDEX="ours=https://a", UV_INDEX="b=https://b https://c")
    assert found["PIP_INDEX_URL"] == "https://a"
    assert found["PIP_EXTRA_INDEX_URL"] == "https://b https://c"
    assert found["UV_DEFAULT_INDEX"] == "ours=https://a"


def test_each_keeps_what_it_was_told_itself() -> None:
    """Who says different things to the two means it."""
    found = told(PIP_INDEX_URL="https://a", UV_INDEX_URL="https://b")
    assert "UV_DEFAULT_INDEX" not in found
    assert found["UV_INDEX_URL"] == "https://b"


def test_relative_folders_are_those_of_the_client() -> None:
    """The tools run elsewhere."""
    found = told("/work", PIP_FIND_LINKS="wheels https://a")
    assert found["PIP_FIND_LINKS"] == "/work/wheels https://a"
    assert found["UV_FIND_LINKS"] == "/work/wheels,https://a"


def test_where_to_install_is_not_to_be_told() -> None:
    """It would go into the user's own directories."""
    found = told(PIP_USER="1", PIP_TARGET="/", UV_SYSTEM_PYTHON="1", PYTHONPATH="/", HOME="/x")
    assert found.keys().isdisjoint({"PIP_USER", "PIP_TARGET", "UV_SYSTEM_PYTHON", "PYTHONPATH"})
    assert found["HOME"] == "/x"


def test_files_of_pip_count_where_variables_do_not(tmp_path: Path) -> None:
    """One that does not parse is for pip to complain of."""
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://a\nextra-index-url =\n  https://b\n  https://c"
    )
    found = told(PIP_CONFIG_FILE=str(config))
    assert found["UV_DEFAULT_INDEX"] == "https://a"
    assert found["PIP_EXTRA_INDEX_URL"] == "https://b https://c"
    assert told(PIP_CONFIG_FILE=str(config), PIP_INDEX_URL="https://d")["PIP_INDEX_URL"] == (
        "https://d"
    )
    config.write_text("nonsense")
    assert told(PIP_CONFIG_FILE=str(config))


@pytest.mark.parametrize(
    "variable", ["PIP_INDEX_URL", "UV_INDEX", "PIP_PRE", "UV_EXCLUDE_NEWER", "PIP_FIND_LINKS"]
)
def test_what_changes_the_result_changes_the_digest(variable: str) -> None:
    """Whatever else is in the environment does not."""
    plain = read(HOME, "/").digest()
    assert read({**HOME, variable: "x"}, "/").digest() != plain
    assert read({**HOME, "PIP_TIMEOUT": "9", "LANG": "C"}, "/").digest() == plain


def test_the_content_of_constraints_counts(tmp_path: Path) -> None:
    """They are named by a path that stays."""
    limits = tmp_path / "limits.txt"
    limits.write_text("six<2")
    environ = {**HOME, "PIP_CONSTRAINT": str(limits)}
    before = read(environ, "/").digest()
    limits.write_text("six<3")
    assert read(environ, "/").digest() != before


def test_passwords_are_masked() -> None:
    """In whatever a tool writes."""
    text = "ERROR: https://user:secret@example.org/simple and https://example.org"
    assert masked(text) == "ERROR: https://***@example.org/simple and https://example.org"
