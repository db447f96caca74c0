"""Which of CPython's tests proxies do not pass, and why; the documentation shows this list.

A test that is listed and passes fails the run: see `test_cpython.py`.
"""

_PICKLE = (
    "wants a copy, but a pickled proxy is a reference: it loads as the proxy of the same object."
    " `copy.copy(p)` and pickles of `spawny.value(p)` are copies"
)

KNOWN: dict[str, dict[str, str]] = {
    "list": {
        "test_pickle": _PICKLE,
        "test_sort": "`functools.cmp_to_key` gives an object of C code that cannot be pickled, nor"
        " can the keys that it makes",
    },
    "tuple": {
        "test_pickle": _PICKLE,
    },
    "dict": {
        "test_setdefault": "changes the list that a call has returned; results come by value, so"
        " that is a copy. `spawny.ref(d.setdefault)` would give the list itself",
    },
    "set": {
        "test_cyclical_repr": "changes an object here after it was put into the set there, as a"
        " copy: arguments go by value",
        "test_iterator_pickling": "an iterator over a proxy is not pickled",
    },
}
