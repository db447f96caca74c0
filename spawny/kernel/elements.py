"""What is in a container: its elements, some of which stay here while the rest travels.

The one rule: the containers are exactly those below, however deep in each other; whatever else
holds something (a subclass of them, a namedtuple, an instance) is one element, and travels as a
whole or not at all. For what a class makes of its own contents, only that class could tell.
"""

import io
import itertools
import pickle

from . import buffers

# Not what holds others, and never a reference.
ATOMS = frozenset([type(None), bool, int, float, complex, str, bytes, type(NotImplemented)])

CONTAINERS = frozenset([list, tuple, dict, set, frozenset])

# Elements are pickled one by one, to see which can be, and what several refer to is visited for
# each of them: of nodes that all hold their whole tree, that would be the square of their number.
# What is beyond these limits stays.
VISITS = 1000000
VISITS_AN_ELEMENT = 50  # an instance with ten attributes takes 35
# (Large buffers are not copied for that.)
COPIED_BYTES = 256 * 1024 * 1024


def elements_of(container):
    """What is in it, at any depth, that is neither container nor atom; each object once."""
    seen = {id(container)}
    elements = []
    containers = [container]
    for each in containers:  # which grows meanwhile
        members = each if type(each) is not dict else itertools.chain(each, each.values())
        for member in members:
            kind = type(member)
            if kind not in ATOMS and id(member) not in seen:
                seen.add(id(member))
                (containers if kind in CONTAINERS else elements).append(member)
    return elements


def shape_of(container):
    """A container like this one, of the same elements, that nobody else can change."""
    if not any(type(each) in CONTAINERS for each in container) and type(container) is not dict:
        return container if type(container) in (tuple, frozenset) else container.copy()
    import copy  # which few daemons need

    elements = elements_of(container)
    return copy.deepcopy(container, {id(each): each for each in elements})


class Trial:
    """Pickles the elements of one container by themselves, within the limits above."""

    def __init__(self, count, protocol):
        self.visits_left = VISITS + count * VISITS_AN_ELEMENT
        self._bytes_left = COPIED_BYTES
        self._protocol = protocol

    def pickled(self, element):
        """(pickle, buffers beside it) of one; without a pickle where there can be none, or where it
        would be too much."""
        if self._bytes_left <= 0 or self.visits_left <= 0:
            return None, ()
        file = io.BytesIO()
        collector = buffers.Collector(self._protocol)
        pickler = collector.pickler(_CountingPickler, file)
        pickler.trial = self
        try:
            pickler.dump(element)
        except Exception:  # of user code, which says how its objects are pickled
            return None, ()
        finally:
            self._bytes_left -= file.tell()
        return file.getvalue(), collector.buffers


class _TooMuch(Exception):
    """The limit of visits is reached."""


class _CountingPickler(pickle.Pickler):
    def persistent_id(self, item):
        trial = self.trial
        trial.visits_left -= 1
        if trial.visits_left < 0:
            raise _TooMuch
