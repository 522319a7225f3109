"""Finds equal texts by their digests (128-bit hashes), and the template that all texts share, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.base.common_prefix import common_prefix_length

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trimtab.data.row_store import RowNumbers

_BYTES = 16  # of a digest; among 10⁷ different texts two are equal with a probability of about 10⁻²⁵
_TEMPLATE_TEXTS = 20  # fewest texts for which a common beginning or end counts as a template


@dataclass(frozen=True, slots=True)
class Template:
    """The whole words with which all texts begin and end, left out of comparisons: their lengths in characters."""

    start: int = 0
    end: int = 0

    def strip(self, text: str) -> str:
        """Return a text without the template."""
        bare = text[self.start :]
        return bare[: len(bare) - self.end].strip() if self.start or self.end else text


class TemplateFinder:
    """A search, over a stream of texts, for the whole words with which all of them begin and end."""

    def __init__(self) -> None:
        self._first = self._last = self._first_reversed = self._last_reversed = ""
        self._shortest = -1

    def add(self, text: str) -> None:
        """Add a text of the stream."""
        backwards = text[::-1]
        if self._shortest < 0:
            self._first = self._last = text
            self._first_reversed = self._last_reversed = backwards
            self._shortest = len(text)
            return
        self._shortest = min(self._shortest, len(text))
        self._first, self._last = min(self._first, text), max(self._last, text)
        self._first_reversed = min(self._first_reversed, backwards)
        self._last_reversed = max(self._last_reversed, backwards)

    def template(self, distinct: int) -> Template:
        """Return the template; none for fewer than 20 distinct texts."""
        if distinct < _TEMPLATE_TEXTS:
            return Template()
        start = self._first[: common_prefix_length(self._first, self._last)].rfind(" ") + 1
        length = common_prefix_length(self._first_reversed, self._last_reversed)
        end = self._first_reversed[: min(length, self._shortest - start)].rfind(" ") + 1
        return Template(start, end)


class Digests:
    """The digests of N texts [N, 16 bytes], added one by one."""

    def __init__(self) -> None:
        self._digests = bytearray()

    def add(self, digest: bytes) -> None:
        """Add the digest of a text (`digest_of`)."""
        self._digests += digest

    def first_occurrences(self) -> RowNumbers:
        """Return for each text the number of the first text with the same digest [N]."""
        keys: NDArray[Any] = np.frombuffer(self._digests, np.uint64).reshape(-1, _BYTES // 8)
        order = np.lexsort(keys.T).astype(np.int32)
        is_new = np.zeros(len(order), bool)
        is_new[:1] = True
        for column in keys.T:
            ordered = column[order]
            is_new[1:] |= ordered[1:] != ordered[:-1]
        first = np.empty(len(order), np.int32)
        first[order] = order[is_new][np.cumsum(is_new, dtype=np.int32) - 1]
        return first


def digest_of(text: str) -> bytes:
    """Return the digest of a text, 16 bytes (BLAKE2b)."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest()
