"""Prompt lookup decoding: drafts the tokens that followed an earlier occurrence of the latest n-gram.

Drafts are verified in one pass, which reads each weight once. Prompt lookup (Saxena 2023) is the simplest kind of
speculative decoding (Leviathan et al. 2023, arXiv 2211.17192). A draft token is accepted only if the model would have
sampled it, greedy or drawn, as a draw depends only on seed and step (`sampling.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

GRAM_LENGTHS = (3, 2, 1)  # lengths of the token n-grams that are looked up, longest first
ROWS = 8  # tokens of all sequences in a pass; up to as many sequences have one draft token each


def draft_length(sequences: int) -> int:
    """Return how many tokens are drafted for each of `sequences` sequences."""
    return max(1, ROWS // sequences - 1) if sequences <= ROWS else 0


class PromptLookup:
    """Finds what followed earlier occurrences of the last tokens, in a prompt and its answer so far."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids: list[int] = []
        # by n-gram, the position after its last occurrence
        self._following: list[dict[tuple[int, ...], int]] = [{} for _ in GRAM_LENGTHS]
        self.extend(ids)

    def __len__(self) -> int:
        return len(self._ids)

    def extend(self, ids: Sequence[int]) -> None:
        """Append tokens."""
        for token in ids:
            for length, following in zip(GRAM_LENGTHS, self._following, strict=True):
                if len(self._ids) >= length:
                    following[tuple(self._ids[-length:])] = len(self._ids)
            self._ids.append(token)

    def next(self, limit: int) -> list[int]:
        """Return up to `limit` draft tokens; none if the last tokens are new."""
        for length, following in zip(GRAM_LENGTHS, self._following, strict=True):
            start = following.get(tuple(self._ids[-length:]))
            if start is not None:
                return self._ids[start : start + limit]
        return []
