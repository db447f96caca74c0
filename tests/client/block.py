"""Large data without numpy, for any interpreter."""

import pickle


class Block:
    """Bytes that can be changed, and travel beside the pickle where it can have that."""

    def __init__(self, data):  # type: ignore[no-untyped-def]
        self.data = memoryview(data)

    def __reduce_ex__(self, protocol):  # type: ignore[no-untyped-def]
        if protocol >= 5:
            return Block, (pickle.PickleBuffer(self.data),)
        return Block, (bytearray(self.data),)
