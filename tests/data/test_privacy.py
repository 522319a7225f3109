"""Privacy: what is private is found and validated; numbers that only look like it are not."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.records import Example, Message
from trimtab.data.privacy import Finding, count_private, find_private, mask_private, private_kinds


@pytest.mark.parametrize(
    ("text", "kind", "match"),
    [
        ("write to jane.doe+x@mail.example.co.uk.", "email", "jane.doe+x@mail.example.co.uk"),
        ("card 4111 1111 1111 1111, please", "card", "4111 1111 1111 1111"),
        ("5500005555555559", "card", "5500005555555559"),
        ("3782-822463-10005", "card", "3782-822463-10005"),
        ("to DE89 3704 0044 0532 0130 00 today", "iban", "DE89 3704 0044 0532 0130 00"),
        ("GB82WEST12345698765432", "iban", "GB82WEST12345698765432"),
        ("from 8.8.8.8.", "ipv4", "8.8.8.8"),
        ("SSN 123-45-6789", "us_ssn", "123-45-6789"),
        ("ring +44 20 7946 0958 now", "phone", "+44 20 7946 0958"),
        ("+1 (555) 123-4567", "phone", "+1 (555) 123-4567"),
        ("(555) 123-4567", "phone", "(555) 123-4567"),
        ("555-123-4567", "phone", "555-123-4567"),
        ("030 1234 5678", "phone", "030 1234 5678"),
        ("Call 09061701461 to claim", "phone", "09061701461"),
    ],
)
def test_found(text: str, kind: str, match: str) -> None:
    assert find_private(text) == [(kind, match)]


def test_iban_before_capitals_is_found() -> None:
    assert [kind for kind, _ in find_private("PAY DE89 3704 0044 0532 0130 00 NOW")] == ["iban"]


@pytest.mark.parametrize(
    "text",
    [
        "order 4111111111111112",  # fails Luhn
        "order 1234567890123452",  # passes Luhn, no card begins with 1
        "order number 20231107445",
        "DE89 3704 0044 0532 0130 01",
        "in 1999-2024, from 2024-11-05 10:30 to 12/11/2025",
        "it costs 1,299.00 or 1 299 000 EUR, 19.99 - 24.99",
        "version 1.2.3.4 and 10.0.0.1 and 192.168.1.20 and 300.1.1.1 and v1.2.3.4",
        "000-12-3456 and 666-12-3456 and 123-00-6789 and 1123-45-67890",
        "@handle, a@b, 5 @ 3.20 each",
        "GSM8K: 120 / 45 = 2.67, 0.5 - 0.25, 007",
        "ISBN 978-3-16-148410-0",
        "IP68, ABCD12, 3 x 100 x 200",
        "3.14159265358979323846",
    ],
)
def test_not_found(text: str) -> None:
    assert find_private(text) == []


@given(st.integers(0, 10**14 - 1))
def test_a_card_has_exactly_one_check_digit(number: int) -> None:
    assert sum(bool(find_private(f"card 4{number:014}{digit} it is")) for digit in range(10)) == 1


def test_one_wrong_character_breaks_an_iban() -> None:
    iban = "GB82WEST12345698765432"
    assert find_private(iban)
    wrong = [iban[:i] + other + iban[i + 1 :] for i in range(8, 22) for other in "0123456789" if other != iban[i]]
    assert not any(kind == "iban" for text in wrong for kind, _ in find_private(text))


@pytest.mark.parametrize(
    "text",
    [
        "+999 123456789",
        "+44 20 7946 0958 123",
        "0000 123 456 789",
        "0900-0130",
        "GB82WEST123456987654",
        "XX89370400440532013000",
    ],
)
def test_what_no_numbering_plan_or_country_has_is_not_private(text: str) -> None:
    assert find_private(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "01 42 68 53 00",
        "+34 912 34 56 78",
        "06 12345678",
        "(02) 9374 4000",
        "03-3224-9999",
        "0131 496 0000",
        "(11) 91234-5678",
    ],
)
def test_numbers_of_many_countries_are_found(text: str) -> None:
    assert [kind for kind, _ in find_private(f"ring {text} today")] == ["phone"]


def test_counts_and_places() -> None:
    def row(text: str, answer: str, line: int) -> Example:
        return Example(
            id=str(line), messages=(Message(role="user", content=text),), references=(answer,), file="m.csv", line=line
        )

    rows = [row("a@x.org and b@x.org", "c@x.org", 2), row("nothing in 2024", "no", 3)]
    rows += [row("d@x.org", "8.8.4.4", line) for line in range(4, 10)]
    found = [(row, private_kinds([row.input, *row.references])) for row in rows]
    assert count_private(found) == (
        Finding("email", 9, 7, ("m.csv:2", "m.csv:4", "m.csv:5", "m.csv:6", "m.csv:7")),
        Finding("ipv4", 6, 6, ("m.csv:4", "m.csv:5", "m.csv:6", "m.csv:7", "m.csv:8")),
    )
    assert count_private([]) == ()


def test_long_runs_of_digits_take_linear_time() -> None:
    assert find_private("1" * 200_000 + " " + "a." * 50_000 + "1 " * 50_000) == []


@pytest.mark.parametrize(
    "unit",
    [
        "a.b@x.org ",
        "4111 1111 1111 1111, ",
        "DE89 3704 0044 0532 0130 00 ",
        "8.8.8.8 ",
        "030 1234 5678; ",
        "1-",
        "AB12 ",
        "a@",
        "x@a.",
    ],
)
def test_time_is_linear_in_bytes(unit: str) -> None:
    def seconds(size: int) -> float:
        began = time.process_time()
        find_private(unit * (size // len(unit)))
        return time.process_time() - began

    seconds(1000)
    small, large = (min(seconds(size) for _ in range(2)) for size in (100_000, 400_000))
    assert large < 4 * small * 2 + 0.05  # quadratic would be 16 times


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("write to a.b@example.org and c@example.org", "write to [email] and [email]"),
        ("card 4111 1111 1111 1111, ring +44 20 7946 0958", "card [card], ring [phone]"),
        ("version 1.2.3.4 of 12345, at 10:30", "version 1.2.3.4 of 12345, at 10:30"),
    ],
)
def test_private_data_is_masked_by_its_kind_and_the_rest_stays(text: str, wanted: str) -> None:
    assert mask_private(text) == wanted


@given(st.text())
def test_what_was_masked_holds_no_private_data_any_more(text: str) -> None:
    hidden = mask_private(f"{text} anna@example.org {text}")
    assert "anna@example.org" not in hidden
    assert mask_private(hidden) == hidden
