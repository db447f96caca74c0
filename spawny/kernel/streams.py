"""What iterators give, in chunks where fetching ahead cannot be noticed."""

# Iterators over these hold nothing back: fetching many items at once has no effect to be seen.
_EAGER_ITERATORS = tuple(
    type(iter(each))
    for each in ([], (), {}, {}.values(), {}.items(), set(), "", "\u20ac", b"", range(0))
) + (type(iter(range(1 << 70))), type(reversed([])))


def next_items(iterator, most, seconds):
    """Up to `most` items where fetching ahead cannot be noticed, else one; (items, is it over?)."""
    if not isinstance(iterator, _EAGER_ITERATORS):
        most = 1
    items = []
    try:
        while len(items) < most:
            items.append(next(iterator))
    except StopIteration:
        return items, True
    return items, False
