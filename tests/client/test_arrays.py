"""numpy, pandas and pyarrow between processes that have different versions of them."""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import spawny
from spawny import ObjectProxy, SerializationError
from tests.client import arrays
from tests.venvs import environment

np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")

# Making an environment may take minutes, the first time.
pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.timeout(900), pytest.mark.one_supervisor]

NUMPYS = {
    "1.16": ["3.7", "3.6"],
    "1.19": ["3.8", "3.7", "3.6"],
    "1.24": ["3.10", "3.9", "3.8", "3.11"],
    "1.26": ["3.12", "3.11", "3.10", "3.9"],
    "2": ["3.13", "3.12", "3.11"],
}

# (packages, Pythons)
FRAMES = {
    "pandas 1.1": (["pandas==1.1.5", "numpy==1.19.5", "pyarrow==6.0.1"], ["3.8", "3.7"]),
    "pandas 2.2": (["pandas==2.2.3", "numpy==1.26.4", "pyarrow==17.0.0"], ["3.12", "3.11"]),
    "the newest": (["pandas", "pyarrow"], ["3.13", "3.12", "3.11"]),
}

CLIENT = ["pyzmq>=26", "psutil>=6", "cloudpickle>=3"]

FRAMES_SCRIPT = """
import numpy as np, pandas as pd, pyarrow as pa
def make(code):
    return eval(code)
def contents(x):
    if hasattr(x, "to_dict") and hasattr(x, "columns"):
        return [str(x.columns.tolist())] + [contents(x[each]) for each in x.columns]
    for name in ("tolist", "to_pylist"):
        if hasattr(x, name):
            return [str(each) for each in getattr(x, name)()]
    return str(x)
def check(code, x):
    made = eval(code)
    return type(x).__name__ == type(made).__name__ and contents(x) == contents(made)
"""

here: dict[str, Any] = {}
exec(FRAMES_SCRIPT, here)

PANDAS = [
    "pd.DataFrame({'a': [1, 2, 3], 'b': [1.5, 2.5, None]})",
    "pd.DataFrame(np.arange(400000.0).reshape(-1, 4), columns=list('abcd'))",
    "pd.DataFrame({'text': ['x', 'y', 'z']})",
    "pd.DataFrame({'when': pd.date_range('2020', periods=3), 'kind': pd.Categorical(list('aba'))})",
    "pd.Series(range(5), name='s')",
    "pd.Series(np.arange(100000))",
    "pd.Series([pd.NaT, 1], dtype=object)",
    "pd.date_range('2020', periods=9)",
    "pd.Index([1, 2])",
    "pd.MultiIndex.from_product([[1, 2], ['a', 'b']])",
    "pd.Timestamp('2020-02-02')",
    "pd.NaT",
    "pd.array([1, None], dtype='Int64')",
]

PYARROW = [
    "pa.array([1, 2, None])",
    "pa.array(np.arange(100000.0))",
    "pa.table({'a': [1, 2], 'b': ['x', None]})",
    "pa.chunked_array([[1], [2]])",
    "pa.schema([('a', pa.int32())])",
]


@pytest.fixture(autouse=True)
def deprecations() -> Iterator[None]:
    """Matrices and the like are said to be out of fashion."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("version", NUMPYS)
def test_arrays_of_each_kind(version: str, pytestconfig: pytest.Config) -> None:
    """Every type, order and shape, scalars and subclasses, arrive as what they are: there and
    back, small and large, whatever numpy the daemon has."""
    python = environment(pytestconfig, NUMPYS[version], f"numpy=={version}.*")
    daemon = spawny.run_script(arrays.SCRIPT, python_exe=python)
    assert daemon.version().startswith(version + ".")
    assert arrays.travel(daemon) == []


@pytest.mark.parametrize("there", ["1.16", "1.26", "2"])
@pytest.mark.parametrize("version", ["1.24", "1.26"])
def test_arrays_of_an_older_client(version: str, there: str, pytestconfig: pytest.Config) -> None:
    """So they do where it is the client that has the older numpy."""
    client = environment(pytestconfig, ["3.11", "3.12"], f"numpy=={version}.*", *CLIENT)
    python = environment(pytestconfig, NUMPYS[there], f"numpy=={there}.*")
    done = subprocess.run(
        [client, "-W", "ignore", "-m", "tests.client.arrays", python],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.DEVNULL,
    )
    first, *wrong, last = [line for line in done.stdout.splitlines() if line[:1] != "["]
    assert first.startswith(f"numpy {version}.") and last == "over"
    assert wrong == []


def test_what_an_older_numpy_does_not_have(pytestconfig: pytest.Config) -> None:
    """It is refused, with both versions named, and the daemon goes on."""
    python = environment(pytestconfig, NUMPYS["1.16"], "numpy==1.16.*")
    daemon = spawny.run_script(arrays.SCRIPT, python_exe=python)
    with pytest.raises(SerializationError) as caught:
        daemon.echo(np.array(["a", "bc"], dtype=np.dtypes.StringDType()))
    assert f"numpy {np.__version__}" in str(caught.value) and "numpy 1.16." in str(caught.value)
    assert daemon.echo(1) == 1


def test_arrays_in_definitions_callbacks_and_errors(pytestconfig: pytest.Config) -> None:
    """There, too, what an older numpy calls otherwise is found."""
    python = environment(pytestconfig, NUMPYS["1.16"], "numpy==1.16.*")
    scalar, items = np.float32(2.5), np.array([(1,), None], dtype=object)
    definition = spawny.InstanceDefinition("collections", "Counter", {"a": scalar})
    assert spawny.run_object(definition, python_exe=python)["a"] == 2.5
    assert list(spawny.run_object([items, scalar], python_exe=python)[0]) == [(1,), None]
    daemon = spawny.run_script(
        arrays.SCRIPT
        + "def call(f, *args):\n    return f(*args)\n"
        + "def fail(x):\n    raise LookupError(np.float32(x))\n",
        python_exe=python,
    )
    got: list[Any] = []
    there = daemon.call(spawny.callback(lambda x: got.append(x) or scalar), scalar)
    assert there == 2.5 and type(there) is np.float32 and type(got[0]) is np.float32
    with pytest.raises(LookupError) as caught:
        daemon.fail(1.5)
    assert type(caught.value.args[0]) is np.float32
    assert daemon.call(lambda: str(items[1]) + str(scalar)) == "None2.5"


def test_arrays_are_private() -> None:
    """What has arrived can be changed, whatever its size, and nobody sees it at the other end."""
    daemon = spawny.run_script(arrays.SCRIPT + "kept = {n: line(n, 'f8') for n in (5, 20000)}\n")
    for n in (5, 20_000):
        copy = spawny.value(daemon.kept)[n]
        copy[:] = -1
        assert float(daemon.kept[n][-1]) == (n - 1) % 100
        mine = np.ones(n)
        assert daemon.change(mine) is True and mine.all()


def test_read_only_arrays() -> None:
    """They are read-only at the other end, too."""
    daemon = spawny.run_script(
        arrays.SCRIPT + "def is_writable(x):\n    return x.flags.writeable\n"
    )
    for n in (5, 20_000):
        mine = arrays.here["frozen"](np.arange(n))
        assert daemon.is_writable(mine) is False
        assert not daemon.echo(mine).flags.writeable


def test_subclasses_of_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a module that both can import arrives as itself, one of the daemon's script stays."""
    text = "import numpy as np\nclass Unit(np.ndarray):\n    unit = 'm'\n"
    (tmp_path / "res_units.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    from res_units import Unit  # type: ignore[import-not-found]

    try:
        daemon = spawny.run_script(
            arrays.SCRIPT
            + "import res_units\nclass Own(np.ndarray):\n    pass\n"
            + "def view(n, own):\n    return line(n, 'f8').view(Own if own else res_units.Unit)\n"
            + "def unit_of(x):\n    return type(x).__name__, x.unit, float(x.sum())\n"
        )
        for n in (5, 20_000):
            there = daemon.view(n, False)
            assert type(there) is Unit and there.shape == (n,)
            assert daemon.unit_of(np.ones(n).view(Unit)) == ("Unit", "m", n)
            own = daemon.view(n, True)
            assert issubclass(type(own), ObjectProxy) and len(own) == n
            assert float(own[1]) == float(there[1])
    finally:
        del sys.modules["res_units"]


@pytest.mark.parametrize("version", ["1.16", "2"])
def test_arrays_beside_what_stays(version: str, pytestconfig: pytest.Config) -> None:
    """They come by value, also where it takes a second answer to find out what does not load."""
    daemon = spawny.run_script(
        arrays.SCRIPT
        + "import sys, types\n"
        + "class Thing:\n    pass\n"
        + "hidden = sys.modules['only_there'] = types.ModuleType('only_there')\n"
        + "exec('class Far: pass', hidden.__dict__)\n"
        + "def mixed(n, far):\n"
        + "    thing = hidden.Far() if far else Thing()\n"
        + "    return {'thing': thing, 'array': line(n, 'f8'), 'more': [line(n, 'U3'), thing]}\n",
        python_exe=environment(pytestconfig, NUMPYS[version], f"numpy=={version}.*"),
    )
    for n in (5, 20_000):
        for far in (False, True):
            result = daemon.mixed(n, far)
            assert type(result["array"]) is np.ndarray and result["array"].flags.writeable
            assert (result["array"] == np.arange(n) % 100).all()
            assert result["more"][0][4] == "4" and result["more"][1] is result["thing"]


def travelled(daemon: Any, code: str, value: Any) -> bool | None:
    """Has it arrived as what it is? None where it was refused, with both versions in the text."""
    package = pd if code in PANDAS else pa
    try:
        return bool(daemon.check(code, value))
    except SerializationError as error:
        *_, versions = str(error).split("(there: ")
        there, here = versions.split("; here: ")
        name = package.__name__
        is_told = f"{name} {package.__version__}" in here and f"{name} " in there
        return None if is_told else False


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_and_tables(kind: str, pytestconfig: pytest.Config) -> None:
    """What the versions allow travels as a copy. An argument that does not load is refused with
    both versions named; a result that does not load is a proxy."""
    requirements, pythons = FRAMES[kind]
    daemon = spawny.run_script(
        FRAMES_SCRIPT, python_exe=environment(pytestconfig, pythons, *requirements)
    )
    refused, stayed = [], []
    for code in PANDAS + PYARROW:
        value = here["make"](code)
        there = travelled(daemon, code, value)
        assert there in (True, None), code
        if there is None:
            refused.append(code)
        back = daemon.make(code)
        if issubclass(type(back), ObjectProxy):
            stayed.append(code)
        else:
            assert here["contents"](back) == here["contents"](value), code
    assert not set(PYARROW).intersection(refused + stayed)
    if kind == "the newest":
        assert refused == stayed == []
    assert len(stayed) <= 3 and PANDAS[4] not in refused and PANDAS[5] not in refused


def test_a_package_that_is_not_there(pytestconfig: pytest.Config) -> None:
    """The refusal says that it is missing, and which version the argument is of."""
    python = environment(pytestconfig, NUMPYS["1.24"], "numpy==1.24.*")
    daemon = spawny.run_script(arrays.SCRIPT, python_exe=python)
    with pytest.raises(SerializationError, match=f"no pandas; here: pandas {pd.__version__}"):
        daemon.echo(pd.NaT)
    with pytest.raises(SerializationError, match=f"no pyarrow; here: pyarrow {pa.__version__}"):
        daemon.echo(pa.array([1]))
