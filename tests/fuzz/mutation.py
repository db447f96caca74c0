"""Valid data made wrong, with its structure in mind: random bytes fail at the first check."""

import random
from collections.abc import Callable
from typing import Any

# Where sizes, counts and limits turn over.
NUMBERS = (
    *(0, 1, -1, 2, 7, 8, 12, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1),
    *(2**32, 2**42, 2**42 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**31), -(2**63), 10**30),
)
TEXTS = ("", "\0", "x" * 5000, "..", "/", "a/b", "\ud800", "é", "None", "__class__", "-", " ")
VALUES = (
    *(
        None,
        True,
        False,
        [],
        {},
        (),
        0.0,
        -0.0,
        1e308,
        float("inf"),
        float("nan"),
        [[]],
        {"": None},
    ),
    *NUMBERS,
    *TEXTS,
)


class Mutator:
    """Makes wrong what it is given; the same for the same seed."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def bytes(self, data: bytes) -> bytes:
        """One to three changes of single bytes, of stretches, and of what may be a number."""
        changed = bytearray(data)
        for _ in range(self.rng.choice((1, 1, 1, 2, 3))):
            change: Callable[[bytearray], None] = self.rng.choice(self._CHANGES).__get__(self)
            change(changed)
        return bytes(changed)

    def _place(self, data: bytearray) -> int:
        return self.rng.randrange(len(data) + 1)

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)

    def _set(self, data: bytearray) -> None:
        if data:
            data[self.rng.randrange(len(data))] = self.rng.randrange(256)

    def _insert(self, data: bytearray) -> None:
        at = self._place(data)
        data[at:at] = self.rng.randbytes(self.rng.randrange(1, 9))

    def _delete(self, data: bytearray) -> None:
        at = self._place(data)
        del data[at : at + self.rng.randrange(1, 9)]

    def _repeat(self, data: bytearray) -> None:
        at = self._place(data)
        data[at:at] = data[at : at + self.rng.randrange(1, 33)]

    def _cut(self, data: bytearray) -> None:
        del data[self._place(data) :]

    def _number(self, data: bytearray) -> None:
        size = self.rng.choice((1, 2, 4, 8))
        number = self.rng.choice(NUMBERS) % (1 << 8 * size)
        at = self._place(data)
        order = self.rng.choice(("little", "big"))
        data[at : at + size] = number.to_bytes(size, order)  # type: ignore[arg-type]

    _CHANGES: tuple[Any, ...] = (_flip, _set, _insert, _delete, _repeat, _cut, _number)

    def value(self, value: Any) -> Any:
        """The same structure with one part replaced, removed or added, however deep it lies."""
        if isinstance(value, dict) and value and self.rng.random() < 0.9:
            return self._dict(value)
        if isinstance(value, (list, tuple)) and value and self.rng.random() < 0.9:
            return self._sequence(value)
        if isinstance(value, int) and self.rng.random() < 0.3:
            return value + self.rng.choice((-1, 1))
        return self.rng.choice(VALUES)

    def _dict(self, value: dict[Any, Any]) -> dict[Any, Any]:
        key = self.rng.choice(list(value))
        changed = dict(value)
        what = self.rng.random()
        if what < 0.1:
            del changed[key]
        elif what < 0.15:
            changed[self.rng.choice(TEXTS)] = self.rng.choice(VALUES)
        else:
            changed[key] = self.value(value[key])
        return changed

    def _sequence(self, value: Any) -> Any:
        at = self.rng.randrange(len(value))
        changed = list(value)
        what = self.rng.random()
        if what < 0.1:
            del changed[at]
        elif what < 0.2:
            changed.insert(at, self.rng.choice(VALUES))
        else:
            changed[at] = self.value(value[at])
        return type(value)(changed)
