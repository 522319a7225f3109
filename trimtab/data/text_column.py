"""Collects texts one by one into an Arrow array, without a second copy of them."""

from __future__ import annotations

from array import array
from typing import Any


class TextColumn:
    """A growing column of texts: their UTF-8 bytes end to end, and where each ends."""

    def __init__(self) -> None:
        self._text, self._ends = bytearray(), array("q", [0])

    def append(self, text: str) -> None:
        """Add a text."""
        self._text += text.encode()
        self._ends.append(len(self._text))

    def finish(self) -> Any:
        """Return the texts as an Arrow array (large_string) over the collected bytes; no more can be added."""
        import pyarrow

        buffers = [None, pyarrow.py_buffer(self._ends), pyarrow.py_buffer(self._text)]
        return pyarrow.Array.from_buffers(pyarrow.large_string(), len(self._ends) - 1, buffers)
