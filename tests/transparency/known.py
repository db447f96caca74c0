"""Which of CPython's tests proxies do not pass, and why; the documentation shows this list.

A test that is listed and passes fails the run: see `test_cpython.py`.
"""

_EXCEPTION = (
    "an exception of a class that was made in a function here is raised there, and its class has no"
    " name by which it could be found here again"
)
_PICKLE = (
    "wants a copy, but a pickled proxy is a reference: it loads as the proxy of the same object."
    " `copy.copy(p)` and pickles of `spawny.value(p)` are copies"
)
_FINALIZER = (
    "inherits from the class and counts on its `__del__` when an iteration is over; the remote"
    " iterator keeps the remote object, but not the proxy"
)

KNOWN: dict[str, dict[str, str]] = {
    "list": {
        "test_contains_order": _EXCEPTION,
        "test_free_after_iterating": _FINALIZER,
        "test_index": _EXCEPTION,
        "test_pickle": _PICKLE,
        "test_remove": _EXCEPTION,
        "test_sort": "`functools.cmp_to_key` gives an object of C code that cannot be pickled, nor"
        " can the keys that it makes",
    },
    "tuple": {
        "test_contains_order": _EXCEPTION,
        "test_free_after_iterating": _FINALIZER,
        "test_index": _EXCEPTION,
        "test_pickle": _PICKLE,
    },
    "dict": {
        "test_eq": _EXCEPTION,
        "test_getitem": _EXCEPTION,
        "test_pop": _EXCEPTION,
        "test_repr": _EXCEPTION,
        "test_setdefault": "changes the list that a call has returned; results come by value, so"
        " that is a copy. `spawny.ref(d.setdefault)` would give the list itself",
        "test_update": _EXCEPTION,
    },
    "set": {
        "test_cyclical_repr": "changes an object here after it was put into the set there, as a"
        " copy: arguments go by value",
        "test_free_after_iterating": _FINALIZER,
        "test_iterator_pickling": "an iterator over a proxy is not pickled",
    },
}
