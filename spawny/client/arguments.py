"""Arguments that cannot travel as they are, and what goes in their place."""

from __future__ import annotations

from itertools import islice

from ..errors import RemoteTraceback
from .serialize import Unsendable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# An iterator that gives more than this may never end.
ITEMS_LIMIT = 1_000_000


class Items:
    """What an iterator gave; it is an iterator again where it arrives."""

    __slots__ = ("_items",)

    def __init__(self, items: list[Any]) -> None:
        self._items = items

    def __reduce__(self) -> Any:
        return iter, (self._items,)


def with_items(
    refused: Unsendable, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, each iterator among them (a generator, as a rule) replaced by what it gives.

    What it raises is raised here. Raises `refused` again where there is none.
    """
    values = [*args, *kwargs.values()]
    # One with a traceback comes from a daemon that the call itself has called: that was executed.
    if isinstance(refused.__cause__, RemoteTraceback) or not any(map(_is_iterator, values)):
        raise refused
    taken = [_taken(each, refused) if _is_iterator(each) else each for each in values]
    count = len(args)
    return tuple(taken[:count]), dict(zip(kwargs, taken[count:], strict=True))


def _is_iterator(value: Any) -> bool:
    from .proxy import ObjectProxy

    kind = type(value)
    is_iterator = hasattr(kind, "__next__") and hasattr(kind, "__iter__")
    return is_iterator and not issubclass(kind, ObjectProxy)


def _taken(iterator: Any, refused: Unsendable) -> Items:
    items = list(islice(iterator, ITEMS_LIMIT + 1))
    if len(items) > ITEMS_LIMIT:
        raise Unsendable(
            f"an iterator as an argument gives more than {ITEMS_LIMIT:,} items, if it ends at all:"
            " pass a list, or spawny.callback(iterator.__next__)"
        ) from refused
    return Items(items)
