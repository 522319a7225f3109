"""The next tokens of an answer, guessed from where its last ones stood before: tried together in one pass, which reads each weight once.

Prompt lookup (Saxena 2023), the simplest kind of speculative decoding (Leviathan et al. 2023, arXiv 2211.17192). A token is said only
where the model would have said it, greedy or drawn, since a draw depends on nothing but seed and place (`sample`).
"""

from __future__ import annotations

from collections.abc import Sequence

GRAM_LENGTHS = (3, 2, 1)  # tokens that must have stood together before, the longer first
ROWS = 8  # tokens of all sequences that a pass runs over; up to as many sequences have a guess each


def draft_length(sequences: int) -> int:
    """How many tokens are guessed for each of so many sequences."""
    return max(1, ROWS // sequences - 1) if sequences <= ROWS else 0


class PromptLookup:
    """What came behind the last tokens where they stood before, in a prompt and its answer so far."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids: list[int] = []
        # by gram, where the last one that goes on ends
        self._following: list[dict[tuple[int, ...], int]] = [{} for _ in GRAM_LENGTHS]
        self.extend(ids)

    def __len__(self) -> int:
        return len(self._ids)

    def extend(self, ids: Sequence[int]) -> None:
        """Go on by these tokens."""
        for token in ids:
            for length, following in zip(GRAM_LENGTHS, self._following, strict=True):
                if len(self._ids) >= length:
                    following[tuple(self._ids[-length:])] = len(self._ids)
            self._ids.append(token)

    def next(self, limit: int) -> list[int]:
        """Up to so many tokens that may come next; none where the last ones are new."""
        for length, following in zip(GRAM_LENGTHS, self._following, strict=True):
            start = following.get(tuple(self._ids[-length:]))
            if start is not None:
                return self._ids[start : start + limit]
        return []
