"""Reads `agents.toml`: the agents of assistants, each with its vendor's page and date, and the hosts of assistants."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from trimtab.publishing.records import AgentRole

OLD_AFTER = 90  # days after which a row may no longer hold


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantAgent:
    """One row of the table; the head of `agents.toml` explains its fields."""

    token: str
    vendor: str
    role: AgentRole
    obeys: bool
    source: str
    checked: date
    seen: Literal["vendor", "second-hand"]
    departs: str = ""
    unreadable: Literal["stays away", "crawls"] = "stays away"
    follows: str | None = None
    crawler: bool = True
    ranges: str = ""


@lru_cache(maxsize=1)
def assistant_agents() -> tuple[AssistantAgent, ...]:
    """Return every agent of the table, in its order."""
    return tuple(AssistantAgent(**row) for row in _table()["agent"])


@lru_cache(maxsize=1)
def _table() -> dict[str, list[dict[str, Any]]]:
    with open(Path(__file__).with_name("agents.toml"), "rb") as file:
        return tomllib.load(file)


def agent_of(user_agent: str) -> AssistantAgent | None:
    """Return the agent that a header `User-Agent` names as a whole word, None without one."""
    match = _tokens().search(user_agent)
    return None if match is None else _by_token()[match[0].lower()]


@lru_cache(maxsize=1_000)
def assistant_at(host: str) -> str | None:
    """Return the assistant whose answers stand at a host, or that a campaign's source names."""
    host = host.lower().removeprefix("www.")
    return next((name for name, hosts in _hosts().items() if host in hosts), None)


@lru_cache(maxsize=1)
def _hosts() -> dict[str, tuple[str, ...]]:
    return {row["name"]: tuple(row["hosts"]) for row in _table()["assistant"]}


@lru_cache(maxsize=1)
def _tokens() -> re.Pattern[str]:
    tokens = sorted((agent.token for agent in assistant_agents() if agent.crawler), key=len, reverse=True)
    return re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, tokens))})(?![\w-])", re.IGNORECASE)


@lru_cache(maxsize=1)
def _by_token() -> dict[str, AssistantAgent]:
    return {agent.token.lower(): agent for agent in assistant_agents()}


def oldest_check() -> date:
    """Return the earliest date on which a row was checked."""
    return min(agent.checked for agent in assistant_agents())
