"""Tables of the task file that the server reads."""

from __future__ import annotations

from pydantic import Field

from trimtab.base.config import Settings


class TrafficTable(Settings):
    """`[traffic]`: which answers `serve` stores, and for how long; without this table nothing is stored."""

    share: float = Field(0.1, gt=0, le=1, description="Share of the requests that is stored.")
    keep_days: int = Field(
        30, ge=1, le=3_650, description="Days after which a stored answer and its labels are deleted."
    )
    mask: bool = Field(
        True,
        description="true: mask e-mail addresses, telephone, card and account numbers before storing.",
    )

    @property
    def sentence(self) -> str:
        """Return a sentence for whoever starts a server: what is stored."""
        how = "masked" if self.mask else "as they are"
        return f"Keeps {self.share:.0%} of the questions and answers, {how}, for {self.keep_days} days"
