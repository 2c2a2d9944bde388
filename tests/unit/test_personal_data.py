"""What looks like personal data is found and shown masked, and what only looks like it is left alone."""

import time

import pytest

from lambdas import personal_data


def kinds(text: str) -> list[tuple[str, str]]:
    return list(personal_data.find(text))


# Put together here, so that no scanner of this repository takes them for real.
KEY_ID = "AKIA" + "Q7YRM2LSB4ZXCWNE"
GITHUB = "ghp" + "_" + "a1B2" * 9


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Write to ann.lee+x@corp.co.uk, please", [("email", "a•••@c•••.uk")]),
        ("Call +49 30 901820 today", [("phone", "••• 20")]),
        ("Call +442071838750.", [("phone", "••• 50")]),
        ("Call (212) 736-5000 or 212.736.5001", [("phone", "••• 00"), ("phone", "••• 01")]),
        ("Card 4111 1111 1111 1111", [("card", "•••• 1111")]),
        ("Card 5500-0055-5555-5559!", [("card", "•••• 5559")]),
        ("Amex 378282246310005", [("card", "•••• 0005")]),
        ("Pay to DE89 3704 0044 0532 0130 00.", [("iban", "DE•• •••• 00")]),
        ("Pay to GB29NWBK60161331926819", [("iban", "GB•• •••• 19")]),
        (f"id {KEY_ID}", [("secret", "AKIA•••")]),
        (f"token={GITHUB}", [("secret", "ghp_•••")]),
        ("aws_secret_access_key = " + "a/B+" * 10, [("secret", "aws_•••")]),
        ("-----BEGIN RSA " + "PRIVATE KEY-----", [("secret", "----•••")]),
    ],
)
def test_each_kind_is_found_and_masked(text: str, found: list[tuple[str, str]]) -> None:
    assert kinds(text) == found
    assert all(kind in personal_data.KINDS for kind, _ in found)


@pytest.mark.parametrize(
    "text",
    [
        "Please price 46 monitor arms for Birch Logistics. The list price is $81.25 per piece.",
        "What is 1234567890123456 + 4111111111111112?",
        "4111 1111 1111 1112 fails the checksum",
        "0000 0000 0000 0000",
        "DE89 3704 0044 0532 0130 01 fails the checksum",
        "GB29 NWBK 6016 1331 9268 is too short",
        "ann@example.com, bob@mail.example.org, eve@shop.test, root@localhost",
        "Call (212) 555-0143 in the film",
        "On 2026-11-24 at 10:15:30, version 1.2.3, ratio 3.14159265358979",
        "x = 12 +34 -56 +7 and 1,234,567.89",
        "arn:aws:iam::111122223333:role/x and AKIA" + "IOSFODNN7EXAMPLE",
        "a@b and @mention and user@host",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "uuid 123e4567-e89b-12d3-a456-426614174000",
        "3.4111111111111111 is no card",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert kinds(text) == []


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "a@",
        "a.",
        "1",
        "1 ",
        "+1 ",
        "eyJ-",
        "AB12 ",
        "sk-",
        "4111 ",
        "(212) ",
        "aws_secret_access_key ",
        "a@a.",
    ],
)
def test_no_text_takes_long(piece: str) -> None:
    start = time.perf_counter()
    kinds(piece * (personal_data.LONGEST // len(piece)))
    # A pattern that backtracks takes minutes here; a linear one some hundredths of a second.
    assert time.perf_counter() - start < 10
