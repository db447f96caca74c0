"""Amounts of memory, as people write them."""

from __future__ import annotations

import re

from .errors import InvalidRequest

_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", 1):
    _UNITS[_letter] = _UNITS[_letter + "B"] = 1000**_power
    _UNITS[_letter + "IB"] = 1024**_power


def size_bytes(size: int | str | None) -> int | None:
    """A size in bytes from a number or a text such as "2 GB" (2 * 1000^3) or "1.5 GiB" (1024^3).

    Raises `InvalidRequest`.
    """
    if size is None:
        return None
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([a-zA-Z]*)\s*", size)
        unit = _UNITS.get(match[2].upper()) if match else None
        amount = float(match[1]) * unit if match and unit else 0
        found = int(amount) if amount < 2**62 else 0
    else:
        found = size if type(size) is int else 0
    if not 0 < found < 2**62:
        raise InvalidRequest(f"max_rss is a number of bytes or a text such as '2 GB', not {size!r}")
    return found
