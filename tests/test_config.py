"""`config.toml`, and what is said of one that is wrong."""

import os
from pathlib import Path

import pytest

from spawny import config
from spawny.definitions import ModuleDefinition, ScriptDefinition
from spawny.errors import InvalidRequest
from spawny.settings import Settings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def problems(path: Path, text: str) -> list[str]:
    """What is said of it, without the path of the file."""
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(InvalidRequest) as caught:
        config.load(path)
    lines = str(caught.value).splitlines()
    assert all(each.startswith(f"{path}:") for each in lines)
    return [each.removeprefix(f"{path}:") for each in lines]


def test_without_a_file_the_defaults_hold(path: Path) -> None:
    """A config file is nobody's duty."""
    assert config.load(path) == config.Config(Settings(), {})


def test_what_is_no_regular_file_is_not_waited_for(path: Path) -> None:
    """A FIFO that nobody writes to, say."""
    os.mkfifo(path)
    with pytest.raises(InvalidRequest, match="it is no regular file"):
        config.load(path)


def test_a_script_that_is_no_regular_file_is_not_waited_for(path: Path) -> None:
    """The same holds for what a declaration reads."""
    os.mkfifo(path.parent / "pipe")
    (found,) = problems(path, "[daemons.web]\nscript = 'pipe'\n")
    assert found == "2: [daemons.web] script cannot be read: it is no regular file: 'pipe'"


def test_a_declared_script(path: Path) -> None:
    """It is the same as that of a client with its text; it finds the modules beside it."""
    (path.parent / "web.py").write_text("foo = 1\n")
    path.write_text("""
[daemons.web]
script = "web.py"
python = "3.9"
restart = "always"
idle_timeout = 60
start_timeout = 5.5
preload = ["json", "os.path"]
max_rss = "1.5 GB"
max_calls = 1000
max_age = 86400
call_deadline = 0.5
output = "log"
cwd = "sub"
env = {COLOUR = "red"}
autostart = true
""")
    web = config.load(path).daemons["web"]
    assert web.definition.digest() == ScriptDefinition("foo = 1\n").digest()
    assert web.definition.summary() == "script web.py"
    assert web.sys_path == (str(path.parent),)
    assert web.cwd == str(path.parent / "sub")
    assert (web.python, web.restart, web.idle_timeout, web.start_timeout) == (
        "3.9",
        "always",
        60,
        5.5,
    )
    assert (web.max_rss, web.max_calls, web.max_age, web.call_deadline) == (
        1_500_000_000,
        1000,
        86400,
        0.5,
    )
    assert (web.preload, web.output, web.env, web.autostart) == (
        ("json", "os.path"),
        "log",
        {"COLOUR": "red"},
        True,
    )


def test_a_declared_module(path: Path) -> None:
    """By its name, or with the path of its file; its directory is the home's by default."""
    (path.parent / "m.py").write_text("")
    path.write_text(
        '[daemons]\na.module = "json"\nb = {module = "m", module_path = "m.py", cwd = "/"}\n'
    )
    daemons = config.load(path).daemons
    assert daemons["a"].definition == ModuleDefinition("json")
    assert daemons["a"].cwd == str(Path.home())
    assert daemons["b"].definition == ModuleDefinition("m", path.parent / "m.py")
    assert daemons["b"].sys_path == ("/",)
    assert daemons["b"].env == {}


def test_equal_daemons(path: Path) -> None:
    """They are numbered on; how many there are changes none of them."""
    text = "[daemons.worker]\nmodule = 'json'\nautostart = true\ncount = "
    path.write_text(text + "3")
    daemons = config.load(path).daemons
    assert [*daemons] == ["worker-1", "worker-2", "worker-3"]
    assert [each.name for each in daemons.values()] == [*daemons]
    assert all(each.autostart for each in daemons.values())
    assert daemons["worker-1"].keys == {"module": "json", "autostart": True}
    path.write_text(text + "1")
    assert config.load(path).daemons == {"worker-1": daemons["worker-1"]}


def test_a_daemon_that_is_declared_twice(path: Path) -> None:
    """By a table of its own, wherever that stands, and by a count: both are named."""
    a, b = "[daemons.w-2]\nmodule = 'json'\n", "[daemons.w]\nmodule = 'json'\ncount = 2\n"
    said = "[daemons.w-2] is declared twice, also by [daemons.w] with count = 2"
    assert problems(path, a + b) == [f"1: {said}"]
    assert problems(path, b + a) == [f"4: {said}"]


def test_a_count_that_makes_a_name_too_long(path: Path) -> None:
    """The number counts."""
    name = "n" * 62
    path.write_text(f"[daemons.{name}]\nmodule = 'json'\ncount = 9\n")
    assert len(config.load(path).daemons) == 9
    text = path.read_text().replace("9", "10")
    said = f"[daemons.{name}] count makes a name that is too long: '{name}-10'"
    assert problems(path, text) == [f"3: {said}"]


@pytest.mark.parametrize("count", ["0", "101", "-1", "true", "2.0", "'4'"])
def test_a_count_that_is_none(path: Path, count: str) -> None:
    """It is refused as any other value."""
    (found,) = problems(path, f"[daemons.w]\nmodule = 'json'\ncount = {count}\n")
    assert found.startswith("3: [daemons.w] count must be a number from 1 to 100, not ")


def test_a_size_may_be_a_number(path: Path) -> None:
    """Of bytes; a text has units of 1000 or of 1024."""
    path.write_text(
        "[daemons]\na = {module = 'a', max_rss = 5}\nb = {module = 'b', max_rss = '5 MiB'}\n"
    )
    daemons = config.load(path).daemons
    assert (daemons["a"].max_rss, daemons["b"].max_rss) == (5, 5 * 1024**2)


@pytest.mark.parametrize(
    ("written", "requirements"),
    [
        ("['numpy<2', 'six']", ("numpy<2", "six")),
        ("[]", ()),
        ("'requirements.txt'", "requirements.txt"),
    ],
)
def test_requirements_are_as_a_client_writes_them(
    path: Path, written: str, requirements: object
) -> None:
    """A list of lines, or a file; who builds will read it."""
    path.write_text(f"[daemons.web]\nmodule = 'a'\nrequirements = {written}\n")
    assert config.load(path).daemons["web"].requirements == requirements


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "[daemons.web]\nmodule = 'a'\nrequirements = ['']\n",
            "3: [daemons.web] requirements must be a list of texts such as 'numpy<2', the path",
        ),
        (
            "[daemons.web]\nmodule = 'a'\nrequirements = 1\n",
            "3: [daemons.web] requirements must be",
        ),
        ("[supervisor\n", " Expected"),
        ("# \udcff\n", " 'utf-8' codec can't decode"),
        ("supervisor = 3\n", "1: [supervisor] must be a table"),
        ("\n[supervisor]\nlog_files = 1\nlog_file = 2\n", "4: [supervisor] has no key 'log_file'"),
        ("[supervisor]\nlog_files = 'x'\n", "2: log_files must be a whole number, not 'x'"),
        (
            "[supervisor]\n[daemon.web]\nmodule = 'a'\n",
            "2: there is no 'daemon' here; there are [supervisor], [zygotes], [daemons.NAME],",
        ),
        ("daemons = 3\n", "1: daemons must be tables such as [daemons.NAME]"),
        ("[daemons]\nweb = 3\n", "2: [daemons.web] must be a table"),
        ('[daemons."a b"]\n', "1: 'a b' cannot name a daemon"),
        ("[daemons.web]\nrestart = 'never'\n", "1: [daemons.web] must have a script or a module"),
        ("[daemons.web]\nmodule = 'a'\nscript = 'b'\n", "1: [daemons.web] must have a script or"),
        (
            "[daemons.web]\nscript = 'b'\nmodule_path = 'c'\n",
            "3: [daemons.web] has a module_path, which belongs to a module",
        ),
        (
            "[daemons.web]\nmodule = 'a'\nrestart = 'sometimes'\n",
            "3: [daemons.web] restart must be one of never, on-failure, always, not 'sometimes'",
        ),
        (
            "[daemons.web]\nmodule = 'a'\ncolour = 'red'\n",
            "3: [daemons.web] has no key 'colour'; the keys are script, module,",
        ),
        ("[daemons.web]\nmodule = 'a b'\n", "2: [daemons.web] module must be the name of a module"),
        ("[daemons.web]\nmodule = 'a'\nenv = {A = 1}\n", "3: [daemons.web] env must be a table of"),
        ("[daemons.web]\nmodule = 'a'\nenv = 1\n", "3: [daemons.web] env must be a table of"),
        ("[daemons.web]\nmodule = 'a'\npreload = 'b'\n", "3: [daemons.web] preload must be a list"),
        ("[daemons.web]\nmodule = 'a'\nidle_timeout = -1\n", "3: [daemons.web] idle_timeout must"),
        ("[daemons.web]\nmodule = 'a'\nidle_timeout = inf\n", "3: [daemons.web] idle_timeout must"),
        (
            f"[daemons.web]\nmodule = 'a'\nidle_timeout = 1{'0' * 400}\n",
            "3: [daemons.web] idle_timeout must",
        ),
        ("[daemons.web]\nmodule = 'a'\nidle_timeout = true\n", "3: [daemons.web] idle_timeout mu"),
        ("[daemons.web]\nmodule = 'a'\nmax_rss = 'big'\n", "3: [daemons.web] max_rss must be a nu"),
        ("[daemons.web]\nmodule = 'a'\nmax_rss = 1.5\n", "3: [daemons.web] max_rss must be a numb"),
        ("[daemons.web]\nmodule = 'a'\nmax_calls = 0\n", "3: [daemons.web] max_calls must be a nu"),
        ("[daemons.web]\nmodule = 'a'\nmax_age = 0\n", "3: [daemons.web] max_age must be a numbe"),
        (
            "[daemons.web]\nmodule = 'a'\ncall_deadline = '1'\n",
            "3: [daemons.web] call_deadline must",
        ),
        ("[daemons.web]\nmodule = 'a'\nautostart = 1\n", "3: [daemons.web] autostart must be true"),
        ("[daemons.web]\nmodule = 'a'\npython = ''\n", "3: [daemons.web] python must be a path,"),
        (
            "[daemons.web]\nscript = 'gone.py'\n",
            "2: [daemons.web] script cannot be read: No such file or directory: 'gone.py'",
        ),
        (
            "[daemons.web]\nmodule = 'a'\nmodule_path = 'gone.py'\n",
            "3: [daemons.web] module_path cannot be read: module 'a': there is no file",
        ),
    ],
)
def test_what_is_wrong_is_named(path: Path, text: str, complaint: str) -> None:
    """File, line, key, what is wrong and what is allowed."""
    (found,) = problems(path, text)
    assert found.startswith(complaint)


def test_aliases_of_interpreters(path: Path) -> None:
    """Paths are relative to the file, all else is as it is written; daemons need not be right."""
    path.write_text("""
[pythons]
legacy = "old/bin/python"
here = "./venv"
home = "~/venv"
"new.one" = ">=3.8"
[daemons.web]
colour = "red"
""")
    assert config.pythons(path) == {
        "legacy": str(path.parent / "old/bin/python"),
        "here": str(path.parent / "venv"),
        "home": os.path.expanduser("~/venv"),
        "new.one": ">=3.8",
    }
    path.write_text('[pythons]\nold = "3.6"\n')
    assert config.load(path).pythons == config.pythons(path) == {"old": "3.6"}
    assert config.pythons(path.with_name("none.toml")) == {}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("pythons = 1\n", "1: [pythons] must be a table of names and interpreters"),
        ("[pythons]\n'3.9' = 'a'\n", "2: [pythons] '3.9' cannot be an alias: it is no name, or"),
        ("[pythons]\npypy = 'a'\n", "2: [pythons] 'pypy' cannot be an alias"),
        ("[pythons]\n'a b' = 'a'\n", "2: [pythons] 'a b' cannot be an alias"),
        ("[pythons]\na = ''\n", "2: [pythons] a must be a path, the directory or"),
        ("[pythons]\na = 3.9\n", "2: [pythons] a must be a path, the directory or"),
        ("[pythons]\na = 'b'\nb = '3.9'\n", "2: [pythons] a stands for another alias, 'b', which"),
        ("[pythons]\na = 'a'\n", "2: [pythons] a stands for another alias, 'a', which"),
    ],
)
def test_wrong_aliases_are_named(path: Path, text: str, complaint: str) -> None:
    """As all else in the file; who looks for an alias is told, too."""
    (found,) = problems(path, text)
    assert found.startswith(complaint)
    with pytest.raises(InvalidRequest, match="pythons"):
        config.pythons(path)


def test_a_file_that_is_nested_without_end_is_wrong(path: Path) -> None:
    """The parser gives up with an error of its own."""
    (found,) = problems(path, "a = " + "[" * 100_000)
    assert "recursion" in found


def test_a_long_file_is_split_into_its_statements_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is wrong with it: a supervisor that reads it serves nobody meanwhile."""
    parsed = []
    loads = config.tomllib.loads
    monkeypatch.setattr(config.tomllib, "loads", lambda text: parsed.append(1) or loads(text))
    text = "".join(f"[daemons.d{number}]\nmodule = 'json'\nx = 1\n" for number in range(100))
    assert len(problems(path, text)) == 100
    assert len(parsed) == 1 + 300


def test_everything_wrong_is_told_at_once(path: Path) -> None:
    """One run, one list."""
    text = "[supervisor]\nx = 1\nlog_files = 0\n[daemons.a]\nx = 1\n[daemons.b]\nmodule = 'json'\n"
    assert [each[0] for each in problems(path, text)] == ["2", "3", "5", "4"]


FILE = '''# one
[a]
text = """
[b]
key = 1
"""
list = [
  1,

  2,
]

# of c
c.d.e = 5
[a.f]
[[g]]
h = 1
[i]
j = 1
k = {l = 1}
'''


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("a",), 2),
        (("a", "text"), 3),
        (("a", "list"), 7),
        (("a", "c", "d", "e"), 14),
        (("a", "f"), 15),
        (("g",), 16),
        (("g", "h"), 17),
        (("i", "j"), 19),
        (("i", "k", "l"), 20),
        (("b",), 1),
    ],
)
def test_the_line_of_a_key(keys: tuple[str, ...], line: int) -> None:
    """Where its statement begins, whatever it looks like; the first for what is nowhere."""
    assert config.line_of(FILE, *keys) == line
