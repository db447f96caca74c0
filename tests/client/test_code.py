"""Functions and classes of the running script, sent to daemons of other versions and of its own."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import interpreters, venvs
from tests.interpreters import Interpreter

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.one_supervisor]

REPOSITORY = Path(__file__).parents[2]
KINDS = Path(__file__).with_name("kinds.py")
REQUIRED = ("pyzmq", "psutil", "cloudpickle")

PATIENCE_SECONDS = 60
INSTALL_SECONDS = 120

# What the scripts of these tests begin with: `same` runs a bare interpreter of their own version,
# `other` one of another.
OPENING = """
import functools, logging, sys
import spawny

quiet = logging.getLogger("quiet")
quiet.setLevel(logging.ERROR)

SCRIPT = '''
import sys
kept = []
def call(f, *args):
    return f(*args)
def keep(x):
    kept.append(x)
def are_kept_instances(cls):
    return [isinstance(each, cls) for each in kept]
def echo(x):
    return x
def is_same(a, b):
    return a is b
'''

def daemon(python):
    return spawny.run_script(SCRIPT, python_exe=python, logger=quiet)

def refusal(call, *args):
    try:
        result = call(*args)
    except spawny.SerializationError as error:
        return str(error)
    raise AssertionError("it was not refused: %r" % (result,))

same, other = sys.argv[1:3]
"""


def another(least: tuple[int, int] = (3, 7)) -> Interpreter:
    """The oldest interpreter from this version on that is not of our own."""
    for each in interpreters.find():
        if each.version[:2] != sys.version_info[:2] and each.version >= least:
            return each
    pytest.skip("there is only one version of Python here")


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python of our own version with nothing installed."""
    folder = tmp_path_factory.mktemp("bare")
    command = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_SECONDS)
    return str(folder / "bin" / "python")


@pytest.fixture
def run(tmp_path: Path, bare: str) -> Callable[[str], str]:
    """Runs a script from a file, so that it has a source; gives what it prints."""

    def run_script(text: str) -> str:
        script = tmp_path / "script.py"
        script.write_text(OPENING + textwrap.dedent(text), encoding="utf-8")
        return output_of(sys.executable, str(script), bare, another().path)

    return run_script


def output_of(*command: str) -> str:
    process = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="session", params=["3.11", "3.12", "3.13"])
def client(request: pytest.FixtureRequest) -> str:
    """A Python of this version that a client can run under."""
    version: str = request.param
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    label = f"cpython{version}"
    found = [each for each in interpreters.find() if each.label == label]
    if not found:
        pytest.skip(f"there is no {label} here")
    probe = [found[0].path, "-c", "import zmq, psutil, cloudpickle"]
    if subprocess.run(probe, capture_output=True).returncode == 0:
        return found[0].path
    return venvs.environment(request.config, [version], *REQUIRED)


def test_ten_kinds_of_function(client: str, interpreter: Interpreter) -> None:
    """Each arrives, and does there what it does here, whatever version either end runs."""
    found = json.loads(output_of(client, str(KINDS), interpreter.path))
    assert found == dict.fromkeys(found, "right")
    assert len(found) == 10


# --- by source ---


def test_cells_stay_shared(run: Callable[[str], str]) -> None:
    """What one function writes into a variable that it shares with another, that one reads."""
    assert run(
        """
        def counter():
            count = 0
            def step():
                nonlocal count
                count += 1
            def read():
                return count
            return step, read

        def use(pair):
            step, read = pair
            step(), step()
            return read()

        print(daemon(other).call(use, counter()))
        """
    ).split() == ["2"]


def test_a_decorator_is_not_called_again(run: Callable[[str], str]) -> None:
    """What it made of the function is what travels, with the state that it has by then."""
    assert (
        run(
            """
        registered = []

        class counted:
            def __init__(self, function):
                registered.append(function.__name__)
                self.function, self.calls = function, 0
            def __call__(self, *args):
                self.calls += 1
                return self.calls, self.function(*args), len(registered)

        @counted
        def double(n):
            return 2 * n

        @functools.lru_cache(maxsize=None)
        def fibonacci(n):
            return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

        double(1)
        m = daemon(other)
        print(m.call(double, 21), m.call(fibonacci, 60))
        """
        ).strip()
        == "(2, 42, 1) 1548008755920"
    )


def test_a_class_is_one_class(run: Callable[[str], str]) -> None:
    """Sent again, and with instances that are sent later, it is the class that it was; with the
    attributes that it has by then."""
    assert (
        run(
            """
        class Point:
            unit = "m"
            def __init__(self, x): self.x = x
            def shown(self): return "%d %s" % (self.x, self.unit)
        class Sub(Point):
            pass

        m = daemon(other)
        m.keep(Point(1))
        m.keep(Sub(2))
        m.keep(3)
        Point.unit = "km"
        unit = m.call(lambda p: type(p).unit, Point(1))
        print(m.are_kept_instances(Point), m.call(Sub(4).shown), unit)
        """
        ).strip()
        == "[True, True, False] 4 km km"
    )


def test_hooks_of_a_class_are_not_called_again(run: Callable[[str], str]) -> None:
    """A class that registered itself when it was made is registered once where it arrives."""
    assert (
        run(
            """
        registry = []
        class Plugin:
            def __init_subclass__(cls, tag):
                cls.tag = tag
                registry.append(tag)
        class One(Plugin, tag="one"):
            pass
        class Meta(type):
            made = []
            def __new__(mcs, name, bases, namespace):
                mcs.made.append(name)
                return super().__new__(mcs, name, bases, namespace)
        class Made(metaclass=Meta):
            pass

        def look():
            class Two(Plugin, tag="two"):
                pass
            return registry, One.tag, Made.made, type(Made).__name__

        print(daemon(other).call(look))
        """
        ).strip()
        == "(['one', 'two'], 'one', ['Made'], 'Meta')"
    )


def test_classes_that_python_writes(run: Callable[[str], str]) -> None:
    """Named tuples, enumerations and dataclasses, whose methods have no source."""
    assert run(
        """
        import collections, dataclasses, enum, typing

        class Pair(collections.namedtuple("Pair", "a b")):
            def total(self): return self.a + self.b
        class Typed(typing.NamedTuple):
            a: int
            b: int = 5
            def total(self): return self.a + self.b
        class Color(enum.Enum):
            RED, BLUE = 1, 2
            CRIMSON = 1
            def label(self): return self.name.lower()
        class Planet(enum.Enum):
            EARTH = (1.0, 2.0)
            def __init__(self, mass, radius): self.mass = mass
        @dataclasses.dataclass(order=True)
        class Item:
            name: str
            tags: list = dataclasses.field(default_factory=list)
            count: int = 0
            KIND: "typing.ClassVar[str]" = "item"
            def size(self): return len(self.tags)
        @dataclasses.dataclass(frozen=True)
        class Frozen:
            x: int = 1

        def look(color):
            item = Item("b", [1])
            try:
                Frozen().x = 2
            except dataclasses.FrozenInstanceError:
                frozen = hash(Frozen(1)) == hash(Frozen())
            return [
                Pair(1, 2).total(), Typed(1).total(), Typed(1)._replace(b=1),
                color is Color.RED, color.label(), Color.CRIMSON is color, Color(2).name,
                list(Color) == [color, Color.BLUE], Planet.EARTH.mass, repr(item), item.size(),
                Item("a") < item, Item("a").tags, Item.KIND, frozen,
            ]

        m = daemon(other)
        here = look(Color.RED)
        print(m.call(look, Color.RED) == here, m.call(look, Color.RED) == here)
        """
    ).split() == ["True", "True"]


def test_a_named_tuple_while_the_collector_runs(run: Callable[[str], str]) -> None:
    """It is compared with a class that is made for that, which must live until then."""
    out = run(
        """
        import collections, gc
        Pair = collections.namedtuple("Pair", "a b")
        m = daemon(other)
        ours = lambda frame: frame.f_code.co_filename.endswith("client/classes.py")
        sys.setprofile(lambda frame, *_: ours(frame) and gc.collect())
        try:
            got = m.call(len, Pair(1, 2))
        finally:
            sys.setprofile(None)
        print(got)
        """
    )
    assert out.split() == ["2"]


def test_what_an_exception_class_of_the_script_comes_back_as(run: Callable[[str], str]) -> None:
    """Raised there, it is caught here as the class that it is."""
    assert (
        run(
            """
        class Refused(ValueError):
            pass
        def refuse():
            raise Refused("no", 3)
        try:
            daemon(other).call(refuse)
        except Refused as error:
            print("caught", error.args)
        """
        ).strip()
        == "caught ('no', 3)"
    )


def test_what_is_captured_may_be_anything_that_travels(run: Callable[[str], str]) -> None:
    """Modules by name, their submodules, proxies and callbacks; what is sent and what comes out of
    callbacks alike."""
    assert (
        run(
            """
        import os.path, xml.dom.minidom, xml
        m = daemon(other)
        there = m.kept
        here = spawny.callback(lambda n: lambda k: n * k)
        def use():
            text = xml.dom.minidom.parseString("<tag/>").documentElement.tagName
            there.append(text)
            return os.path.join("a", "b"), here(6)(7)
        print(m.call(use), list(m.kept))
        """
        ).strip()
        == "('a/b', 42) ['tag']"
    )


def test_tracebacks_of_what_was_sent(run: Callable[[str], str]) -> None:
    """They name the file, the line and its text; also of a cell of a notebook, and of a file that
    reads otherwise by then."""
    out = run(
        """
        import linecache, os

        def outer():
            number = 0

            # A comment.
            def divide():
                return 1 / number
            return divide

        def trace(m, function):
            try:
                m.call(function)
            except ZeroDivisionError as error:
                print(error.__cause__)

        m = daemon(other)
        trace(m, outer())

        cell = "x = 0\\n\\nf = lambda: 1 / x\\n"
        linecache.cache["<cell 1>"] = len(cell), None, cell.splitlines(True), "<cell 1>"
        namespace = {}
        exec(compile(cell, "<cell 1>", "exec"), namespace)
        trace(m, namespace["f"])

        with open(__file__) as file:
            text = file.read()
        linecache.getlines(__file__)  # what is known of a file before it is edited
        with open(__file__, "w") as file:
            file.write("# new first line\\n" + text)
        trace(daemon(other), outer())
        """
    )
    whole, of_cell, edited = out.split("Traceback (most recent call last):\n")[1:]
    assert '/script.py", line ' in whole
    assert "return 1 / number\n" in whole
    assert 'File "<cell 1 ' in of_cell
    assert ", line 3, in <lambda>\n    f = lambda: 1 / x\n" in of_cell
    assert "/script.py " in edited  # under a name of its own
    assert "return 1 / number\n" in edited
    line = whole.partition('script.py", line ')[2].partition(",")[0]
    assert f", line {line}, in divide" in edited


def test_a_file_that_was_edited(run: Callable[[str], str]) -> None:
    """What runs is not what stands there any more: it is refused by name."""
    assert "double (script.py, line" in run(
        """
        def double(n):
            return 2 * n
        with open(__file__) as file:
            text = file.read()
        with open(__file__, "w") as file:
            file.write(text.replace("2 * n", "3 * n"))
        print(refusal(daemon(other).call, double, 1))
        """
    )


def test_syntax_that_is_too_new(run: Callable[[str], str]) -> None:
    """It is refused before anything is executed; both versions are named, and the line."""
    old = another()
    if old.version >= (3, 10):
        pytest.skip("there is no Python here that is so old")
    out = run(
        """
        def kind(x):
            match x:
                case 1:
                    return "one"
        m = daemon(other)
        print(refusal(m.call, m.keep, kind))
        print(len(m.kept))
        """
    )
    refusal, _, kept = out.strip().rpartition("\n")
    assert f"{old.implementation} {old.version[0]}.{old.version[1]} cannot compile kind" in refusal
    assert "written for cpython 3." in refusal
    assert kept == "0"


def test_code_objects_are_refused(run: Callable[[str], str]) -> None:
    """However deep they hide, and whoever taught pickle to pickle them."""
    out = run(
        """
        import copyreg, marshal, pickle, types
        import cloudpickle

        class ByMarshal:
            def __init__(self, function): self.function = function
            def __reduce__(self):
                return marshal.loads, (marshal.dumps(self.function.__code__),)
        class ByPickle:
            def __init__(self, function): self.function = function
            def __reduce__(self):
                return pickle.loads, (cloudpickle.dumps(self.function),)
        def f():
            return 1

        m = daemon(other)
        for hidden in [f.__code__, {"a": [f.__code__]}, types.SimpleNamespace(a=f.__code__, b=f),
                       functools.partial(print, f.__code__), ByMarshal(f), ByPickle(f)]:
            print(refusal(m.echo, hidden))
        copyreg.pickle(types.CodeType, lambda code: (ByMarshal, (len,)))
        print(refusal(m.echo, [f.__code__]))
        # Where nothing makes code of it, it is data.
        print(m.echo([pickle.loads is None, "CodeType", cloudpickle.dumps(f)])[1])
        """
    ).splitlines()
    assert len(out) == 8
    assert all("the code object of f (script.py" in line for line in [*out[:4], out[6]])
    assert "marshal" in out[4]
    assert "a pickle within it holds code" in out[5]
    assert out[7] == "CodeType"


def test_functions_deep_in_an_argument(run: Callable[[str], str]) -> None:
    """They go by source wherever they are."""
    assert run(
        """
        import types
        def f():
            return 1
        def add(a, b):
            return a + b
        def use(x):
            return x["a"][0]() + x["b"].f() + x["c"](2)
        deep = {"a": [lambda: 1], "b": types.SimpleNamespace(f=f), "c": functools.partial(add, 3)}
        print(daemon(other).call(use, deep))
        """
    ).split() == ["7"]


def test_what_cannot_be_captured(run: Callable[[str], str]) -> None:
    """The refusal names it, and the function that uses it."""
    out = run(
        """
        import threading
        lock = threading.Lock()
        def locked():
            with lock:
                return 1
        m = daemon(other)
        print(refusal(m.call, lambda: locked()))
        print(refusal(m.call, eval("lambda: 1")))
        """
    )
    first, second = out.splitlines()
    assert "global lock of locked (script.py, line" in first
    assert "its source is not to be had" in second
    assert "move it into a module that both can import" in second


def test_an_object_to_run(run: Callable[[str], str]) -> None:
    """`run_object` of an instance from the script, on any version, also after a restart; an equal
    one is the same definition."""
    assert run(
        """
        class Box:
            def __init__(self, x): self.x = x
            def get(self): return self.x, sys.version_info[:2]
        for python in (same, other):
            box = spawny.run_object(Box(3), python, quiet, name="box")
            print(box.get())
            spawny.daemon(box).restart()
            print(spawny.attach("box").get())
            assert spawny.run_object(Box(3), python, quiet, name="box") is not None  # an equal one
            spawny.attach("box").terminate_daemon()
        """
    ).splitlines() == [
        str((3, version[:2])) for version in [sys.version_info] * 2 + [another().version] * 2
    ]


def test_cells_of_a_notebook(run: Callable[[str], str]) -> None:
    """IPython keeps the text of what was typed in, so it goes by source like a file's."""
    pytest.importorskip("IPython")
    out = run(
        """
        import os
        os.environ["IPYTHONDIR"] = os.path.dirname(__file__)
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance(history_length=0)
        shell.user_ns["m"] = daemon(other)
        shell.run_cell("class Half:\\n    def of(self, n):\\n        return divide(n, 2)")
        shell.run_cell("def divide(a, b):\\n    return a / b")
        shell.run_cell("print(m.call(Half().of, 3), m.call(lambda: 5))")
        """
    )
    assert "1.5 5" in out


def test_an_executor(run: Callable[[str], str]) -> None:
    """Its workers may run any version."""
    out = run(
        """
        def double(n):
            return 2 * n
        with spawny.Executor(max_workers=1, python_exe=other) as executor:
            print(list(executor.map(double, [1, 2])), executor.submit(lambda: 3).result())
        """
    )
    assert out.splitlines()[-1] == "[2, 4] 3"


# --- by cloudpickle ---


def test_cloudpickle_is_lent(run: Callable[[str], str]) -> None:
    """A bare interpreter of the same version loads what it made, and user code there sees none."""
    assert (
        run(
            """
        def f(n):
            return n * 2
        def look():
            try:
                import cloudpickle
            except ImportError:
                return [name for name in sys.modules if name.startswith("cloudpickle")]
        m = daemon(same)
        print(m.call(f, 4), m.call(look))
        """
        ).strip()
        == "8 []"
    )


def test_a_cloudpickle_of_the_daemons_own(run: Callable[[str], str]) -> None:
    """It is left alone: what the client sends is loaded by the client's."""
    out = run(
        """
        import os, tempfile
        def version():
            import cloudpickle
            return cloudpickle.__version__
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "cloudpickle.py"), "w") as file:
                file.write("__version__ = 'mine'")
            m = daemon(same)
            m.call(exec, "import sys; sys.path.insert(0, %r)" % folder)
            print(m.call(version), m.call(version))
        """
    )
    assert out.split() == ["mine", "mine"]
