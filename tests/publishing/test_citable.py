"""What can be cited: dangling starts, claims that lean on others, contradictions; and what only looks like them."""

from dataclasses import replace
from pathlib import Path

import pytest
from made_pages import article, page, site

from trimtab.publishing.citable import contradictions, dangling_starts, leans_on_others, sentences_of

SENTENCE = (
    "The harbour has a pier of old grey stone with a lamp at its end, a bell below, and a shed in which nets hang "
    "until sun and wind dry them. "
)
LONG = f"<p>{SENTENCE * 3}</p>"


@pytest.mark.parametrize(
    ("section", "dangles"),
    [
        ("<h2>Return journeys</h2><p>As described above, the last boat leaves at five.</p>", True),
        ("<h2>Rooms</h2><p>The latter fill quickly in September.</p>", True),
        ("<h2>Overview</h2><p>It closes when the water is high.</p>", True),
        ("<h2>The tide gate</h2><p>It closes when the water is high.</p>", False),
        ("<h2>Overview</h2><p>It is possible to cross on foot at low tide.</p>", False),
        ("<h2>Overview</h2><p>This guide names the harbours of the coast.</p>", False),
        (
            f"<h2>The tide gate</h2>{LONG}<p>They are paid in soup and in bread, "
            f"{'and in apples and pears ' * 6}of the year.</p>",
            True,
        ),
    ],
)
def test_a_passage_dangles_where_neither_it_nor_its_heading_names_the_subject(
    tmp_path: Path, section: str, dangles: bool
) -> None:
    found = list(
        dangling_starts(
            site(tmp_path, {"/": article(f"<h1>Harbours</h1><p>Four harbours stand on the coast.</p>{section}")})
        )
    )
    assert bool(found) == dangles


@pytest.mark.parametrize(
    ("sentence", "leans"),
    [
        ("Studies show that dogs disturb terns.", True),
        ("A recent survey found that ferries pay.", True),
        ("According to experts, pups rest.", True),
        ("62% of visitors come back.", True),
        ("The report stands on the shelf and says much.", False),
        ("A later study of the same questions says what changed.", False),
        ("The ferry takes 62 passengers.", False),
    ],
)
def test_a_claim_leans_on_others_where_it_says_so(sentence: str, leans: bool) -> None:
    assert leans_on_others(sentence) == leans


@pytest.mark.parametrize(
    ("one", "other", "contradict"),
    [
        ("The speed limit in the harbours is 3 knots.", "The speed limit in the harbours is 5 knots.", True),
        (
            "The Saltmere museum opens at 10:00 from April to October.",
            "The Saltmere museum opens at 11:00 from April to October.",
            True,
        ),
        ("The speed limit in the harbours is 3 knots.", "The speed limit in the harbours is three knots.", False),
        ("A berth in Saltmere costs 22 euros a night.", "A berth at Orrin costs 15 euros a night.", False),
        ("The Saltmere museum opens at 10:00 in April.", "The Saltmere museum closes at 17:00 in April.", False),
        ("In 2024 the Saltmere trust had 40 members.", "In 2025 the Saltmere trust had 52 members.", False),
        ("The crossing to Orrin takes about 35 minutes.", "The crossing to Orrin takes 40 minutes.", False),
        ("Step 3 of the winter launch begins here.", "Step 4 of the winter launch begins here.", False),
    ],
)
def test_pages_contradict_each_other_where_one_value_of_the_same_thing_differs(
    tmp_path: Path, one: str, other: str, contradict: bool
) -> None:
    pages = {"/a/": article(f"<h1>Pier</h1><p>{one}</p>"), "/b/": article(f"<h1>Quay</h1><p>{other}</p>")}
    assert bool(list(contradictions(site(tmp_path, pages)))) == contradict


def test_what_each_page_has_its_own_value_of_is_no_contradiction(tmp_path: Path) -> None:
    pages = {
        f"/{n}/": article(f"<h1>Part {n}</h1><p>The delivery time for spare parts is {n} days.</p>")
        for n in range(3, 9)
    }
    assert not list(contradictions(site(tmp_path, pages)))


def test_cells_of_a_table_are_read_with_their_heads_and_code_is_not_read() -> None:
    text = "# Fares\n\n| Ticket | Adult |\n|---|---|\n| Orrin | 18 euros |\n\n```\nprice = 3\n```"
    texts = [one.text for one in sentences_of(replace(page(article("<p>Fares</p>")), text=text))]
    assert texts == ["Orrin, Adult: 18 euros"]
