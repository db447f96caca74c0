"""The documentation says what the code says, where both name the same things."""

import importlib.util
import json
import re
import typing
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType

import pytest

import spawny
from spawny import control
from spawny.client.options import Options
from spawny.kernel import link, wire
from spawny.settings import Settings, shown
from spawny.supervisor import links

DOCS = Path(__file__).parents[1] / "docs"

ROW = re.compile(r"^\| `(\w+)` \| (.*?) \|", re.MULTILINE)


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next one of any level; empty without the heading."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def rows(text: str) -> dict[str, str]:
    """The first two columns of the tables whose first column is a name in backticks."""
    return dict(ROW.findall(text))


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name.removesuffix(".py"), DOCS / name)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_diagram_is_that_of_the_table() -> None:
    """A change of the lifecycle is drawn: python docs/lifecycle_diagram.py."""
    text = page("design.md")
    assert script("lifecycle_diagram.py").with_diagram(text) == text


def test_every_public_name_is_described() -> None:
    """The reference has a directive for whatever `from spawny import *` gives."""
    described = set(re.findall(r"\.\. auto\w+:: spawny\.(\w+)", page("reference.md")))
    assert described >= set(spawny.__all__) - {"__version__"}


def test_every_option_is_described() -> None:
    """The table has each option of `run_*` and no other, with all values that it may have."""
    table = section(page("reference.md"), "Options")
    assert rows(table).keys() == Options.__annotations__.keys()
    for option, hint in typing.get_type_hints(Options).items():
        for choice in typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ():
            assert f'`"{choice}"`' in table, f"{option} may be {choice!r}"


def test_every_setting_is_described() -> None:
    """The tables have each key of `[supervisor]` and `[zygotes]`, with its default."""
    tables = {
        "[supervisor]": rows(section(page("reference.md"), "Configuration")),
        "[zygotes]": rows(section(page("reference.md"), "Zygotes")),
    }
    assert {
        f"{table} {key}": json.loads(default)
        for table, keys in tables.items()
        for key, default in keys.items()
    } == {shown(each.name): each.default for each in fields(Settings)}


def test_every_kind_of_event_is_described() -> None:
    """The tables have each kind that the supervisor publishes, and no other."""
    sources = (Path(control.__file__).parent / "supervisor").glob("*.py")
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    calls = re.findall(r"\.(?:publish|announce)\(\s*([^,]+),", text)
    published = {kind for call in calls for kind in re.findall(r'"(\w+)"', call)}
    described = re.findall(r"^\| (\w+) \|", section(page("reference.md"), "Events"), re.MULTILINE)
    assert set(described) - {"kind"} == published


MESSAGES = [
    each
    for each in vars(control).values()
    if isinstance(each, type) and is_dataclass(each) and issubclass(each, control.Message)
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: each.__name__)
def test_every_control_message_is_described(message: type[control.Message]) -> None:
    """The page has a section for each message, with each of its fields and no other."""
    text = page("protocol-control.md")
    assert f"\n### {message.__name__}\n" in text
    described = rows(section(text, message.__name__)).keys()
    assert list(described) == [each.name for each in fields(message)]  # type: ignore[arg-type]


# Numbers of `wire` that are on no frame.
SIZES = {"HEADER_BYTES", "BODY_LIMIT_BYTES", "AT_ONCE_BYTES", "SCRATCH_BYTES"}
NO_FRAMES = {"PROTOCOL", "ROOT", *SIZES}


def test_every_kind_of_frame_is_described() -> None:
    """The page has each kind and flag of the call channel under its number, and no other."""
    described = dict(
        re.findall(r"^\| ([A-Z_]+) \| (\d+) \|", page("protocol-call.md"), re.MULTILINE)
    )
    named = {
        name: str(value)
        for name, value in vars(wire).items()
        if name.isupper() and isinstance(value, int) and name not in NO_FRAMES
    }
    assert described == named


def test_every_link_message_is_described() -> None:
    """The page has a section for whatever either side of the link understands."""
    described = set(re.findall(r"^### (\w+)$", page("protocol-link.md"), re.MULTILINE))
    kernel = (Path(link.__file__).parent / "phone.py").read_text(encoding="utf-8")
    to_daemon = re.search(r"_COMMANDS = \{(.*?)\}", kernel, re.DOTALL)
    assert to_daemon
    understood = set(re.findall(r'"(\w+)":', to_daemon[1])) | links._PARSERS.keys()
    assert described == understood


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("protocol-control.md", f"can be said; the newest is {control.PROTOCOL} |"),
        ("protocol-call.md", f"The protocol's version is {wire.PROTOCOL},"),
        ("protocol-link.md", f"version of this protocol, {link.PROTOCOL};"),
    ],
)
def test_the_pages_have_the_versions_spoken(name: str, said: str) -> None:
    """Each protocol page names the version that the code speaks."""
    assert said in page(name)
