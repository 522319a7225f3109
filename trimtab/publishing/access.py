"""Who may read a site: what robots.txt, headers and meta elements say to the agents of assistants."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.base.surface import AgentAccess, Finding, Page, Site


def access_of(site: Site, pages: Sequence[Page]) -> tuple[tuple[AgentAccess, ...], tuple[Finding, ...]]:
    """Which pages each assistant's agent may read, by role, with the line of robots.txt that decides; and what was found about it."""
    raise NotImplementedError
