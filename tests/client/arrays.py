"""Arrays of each kind and what they are when they have travelled; runs in any client.

`python -m tests.client.arrays PYTHON` travels to a daemon of that interpreter and back, and prints
what came out wrong. The same text makes and compares the arrays at both ends, so that nothing that
is compared depends on how it travelled.
"""

import sys
from typing import Any

import spawny

# For any numpy since 1.16, under any Python since 3.6.
BOTH_ENDS = '''
import os, tempfile
import numpy as np

PLAIN = """? i1 u1 i2 u2 i4 u4 i8 u8 f2 f4 f8 g F D G >i2 >u4 >i8 >f2 >f4 >f8 >c8 >c16""".split()
TEXT = ["S5", "U3", ">U3", "S40"]
TIMES = ["M8[ns]", "M8[D]", "m8[s]", ">M8[us]", "m8"]
RECORDS = [
    [("a", "i4"), ("b", "f8", (2,)), ("c", "U3")],
    [("outer", [("inner", ">i2"), ("when", "M8[s]")]), ("flag", "?")],
    {"names": ["x", "y"], "formats": ["i2", "f8"], "offsets": [0, 16], "itemsize": 32},
    [(("a title", "name"), "f4")],
]

def line(n, dtype):
    """One dimension of n different items."""
    dtype = np.dtype(dtype)
    if dtype.names:
        array = np.zeros(n, dtype)
        for name in dtype.names:
            column = dtype[name]
            shape = (n,) + column.shape
            array[name] = line(int(np.prod(shape)), column.base).reshape(shape)
        return array
    if dtype.kind in "SU":
        return np.array([str(i) for i in range(n)]).astype(dtype)
    if dtype.kind == "V":
        return np.arange(n * dtype.itemsize).astype("u1").view(dtype)
    if dtype.kind in "mM":
        return np.arange(n).astype("i8").astype(dtype)
    return (np.arange(n) % 100).astype(dtype)

def objects(n):
    return np.array([(i, str(i)) if i % 2 else [i] for i in range(n)] + [None], dtype=object)

def mapped(n):
    fd, path = tempfile.mkstemp()
    os.close(fd)
    array = np.memmap(path, "f8", "w+", shape=(n,))
    array[:] = np.arange(n)
    os.unlink(path)
    return array

def frozen(array):
    array.flags.writeable = False
    return array

def cases(n):
    """{what it is: how it is made}"""
    found = {}
    for dtype in PLAIN + TEXT + TIMES + RECORDS + ["V6"]:
        found["line of %s" % (dtype,)] = lambda dtype=dtype: line(n, dtype)
        found["scalar of %s" % (dtype,)] = lambda dtype=dtype: line(n, dtype)[1]
        found["table of %s" % (dtype,)] = lambda dtype=dtype: line(4 * n, dtype).reshape(n, 4).T
    found["objects"] = lambda: objects(n)
    found["records with objects"] = lambda: np.array([(1, [2])] * n, [("a", "i4"), ("o", "O")])
    found["fortran"] = lambda: np.asfortranarray(line(6 * n, "f8").reshape(n, 2, 3))
    found["transposed"] = lambda: line(6 * n, "f8").reshape(n, 2, 3).transpose(1, 0, 2)
    found["every third"] = lambda: line(3 * n, "i4")[::3]
    found["backwards"] = lambda: line(n, "i4")[::-1]
    found["backwards table"] = lambda: line(4 * n, "f4").reshape(n, 4)[::-2, ::-1]
    found["column of records"] = lambda: line(n, RECORDS[0])["b"]
    found["broadcast"] = lambda: np.broadcast_to(line(4, "f8"), (n, 4))
    found["broadcast dates"] = lambda: np.broadcast_to(line(1, "M8[s]"), (n, 4))
    found["no dimension"] = lambda: np.array(5.5)
    found["no dimension, a date"] = lambda: np.array("2020-02-02", "M8[D]")
    found["no dimension, object"] = lambda: np.array({"a": 1}, dtype=object)
    found["empty"] = lambda: np.zeros(0)
    found["empty table"] = lambda: np.zeros((n, 0, 3), "i2")
    found["empty text"] = lambda: np.zeros(n, "S0")
    found["empty objects"] = lambda: np.zeros((0, 2), object)
    found["read-only"] = lambda: frozen(line(n, "f8"))
    found["mapped"] = lambda: mapped(n)
    found["matrix"] = lambda: np.matrix(line(4 * n, "f8").reshape(n, 4))
    found["recarray"] = lambda: line(n, RECORDS[0]).view(np.recarray)
    found["record"] = lambda: line(n, RECORDS[0]).view(np.recarray)[1]
    mask = line(n, "i8") % 3 == 0
    found["masked"] = lambda: np.ma.MaskedArray(line(n, "f8"), mask, fill_value=-1)
    found["masked constant"] = lambda: np.ma.masked
    found["masked records"] = lambda: np.ma.MaskedArray(line(n, [("a", "i4"), ("b", "f4")]))
    found["chararray"] = lambda: np.char.array(["a", "bc"] * n)
    found["in containers"] = lambda: {"a": [line(n, "f8"), (line(n, "M8[s]"), 1)], "b": mask}
    found["dtype"] = lambda: np.dtype(RECORDS[0])
    found["types"] = lambda: [np.float32, np.int64, np.ndarray, np.datetime64][n % 4]
    return found

def difference(one, other):
    """In what the two differ; an empty text where they do not."""
    if type(one).__name__ == "memmap":
        one = np.array(one)  # what is in the file travels, and not the file
    if type(one).__name__ != type(other).__name__:
        return "type %s, not %s" % (type(other).__name__, type(one).__name__)
    if type(one) in (list, tuple):
        texts = [difference(a, b) for a, b in zip(one, other)]
        return "; ".join(filter(None, texts)) if len(one) == len(other) else "length"
    if type(one) is dict:
        return difference(sorted(one.items()), sorted(other.items()))
    if one is np.ma.masked or other is np.ma.masked:
        return "" if one is other else "identity"
    if not isinstance(one, (np.ndarray, np.generic)):
        return "" if one == other else "%r, not %r" % (other, one)
    if one.dtype != other.dtype or one.dtype.str != other.dtype.str:
        return "dtype %s, not %s" % (other.dtype, one.dtype)
    if one.shape != other.shape:
        return "shape %s, not %s" % (other.shape, one.shape)
    if isinstance(one, np.ma.MaskedArray):
        text = difference(one.mask, other.mask) or difference(one.filled(), other.filled())
        return text or difference(one.fill_value, other.fill_value)
    if isinstance(one, np.generic):
        is_equal = one.tobytes() == other.tobytes() or one == other
        return "" if is_equal else "%r, not %r" % (other, one)
    if one.dtype.hasobject:
        return difference(one.ravel().tolist(), other.ravel().tolist())
    if one.flags.f_contiguous and not one.flags.c_contiguous and not other.flags.f_contiguous:
        return "order"
    is_equal = one.tobytes() == other.tobytes() or np.array_equal(one, other)
    return "" if is_equal else "content"
'''

SCRIPT = (
    BOTH_ENDS
    + """
def version():
    return np.__version__
def make(name, n):
    return cases(n)[name]()
def check(name, n, argument):
    return difference(cases(n)[name](), argument)
def change(array):
    array[...] = 0
    return bool((array == 0).all())
def echo(x):
    return x
"""
)

# In the pickle itself, and beside it.
SIZES = (5, 20_000)

here: dict[str, Any] = {}
exec(BOTH_ENDS, here)


def travel(daemon: Any) -> list[str]:
    """What comes out wrong of a journey there, and of one back."""
    wrong = []
    for n in SIZES:
        for name, make in here["cases"](n).items():
            try:
                there = daemon.check(name, n, make())
            except Exception as error:
                there = f"{type(error).__name__}: {error}"
            try:
                back = here["difference"](make(), daemon.make(name, n))
            except Exception as error:
                back = f"{type(error).__name__}: {error}"
            if name == "types":
                back = ""  # classes are proxies, as always
            ways = (("there", there), ("back", back))
            wrong += [f"{name} x {n} {way}: {text}" for way, text in ways if text]
    return wrong


def main() -> None:
    daemon = spawny.run_script(SCRIPT, python_exe=sys.argv[1])
    print("numpy", here["np"].__version__, "->", daemon.version())
    for each in travel(daemon):
        print(each)
    print("over")


if __name__ == "__main__":
    main()
