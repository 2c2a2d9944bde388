"""Finds what looks like personal data or a secret in text: addresses, numbers with a checksum, keys.

Everything is a guess that a person looks at: what is found is a warning and is shown masked. Numbers must
have the form and, where there is one, the checksum of their kind; what the standards reserve for examples
(example.com, 555-01xx, …EXAMPLE) is none. Every pattern is linear in the text.
"""

import re
from collections.abc import Iterator
from typing import Final

# Characters of one row that are read; the cost of a row is bounded.
LONGEST: Final = 200_000

# What is told to a person, by kind.
KINDS: Final = {
    "email": "e-mail addresses",
    "phone": "telephone numbers",
    "card": "payment card numbers",
    "iban": "bank account numbers (IBAN)",
    "secret": "access keys or other secrets",
}

# What may stand before and behind an @ sign.
_NAME = re.compile(r"[\w.+%-]{1,64}$")
_DOMAIN = re.compile(r"(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])")
# RFC 2606 and RFC 6761.
_EXAMPLE_DOMAIN = re.compile(
    r"@(?:.*\.)?(?:example(?:\.[a-z]+)?|.*\.(?:test|invalid|localhost|example))$", re.I
)
# What stands before a first character is looked at behind it: the search for that one is fast then.
# With a country code and at least two gaps or none, or as North America writes it.
_PHONE = re.compile(
    r"[+(2-9](?<![\w.,+$€£-].)(?:(?<=\+)[1-9](?:[0-9]{0,2}(?:[ .-]\(?[0-9]{1,8}\)?){2,5}|[0-9]{9,14})"
    r"|(?:(?<=\()[2-9][0-9]{2}\) ?|(?<=[2-9])[0-9]{2}[.-])[2-9][0-9]{2}[.-][0-9]{4})(?![\w-]|[.,][0-9])"
)
# North America keeps these for fiction.
_FICTION = re.compile(r"55501\d\d$")
_CARD = re.compile(r"[0-9](?<![\w.,-].)(?:[ -]?[0-9]){12,18}(?![\w-]|[.,][0-9])")
_ISSUER = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]|2[2-7]|35|65)\d{14}|(?:6011|64[4-9]\d)\d{12}|3[47]\d{13}|3[068]\d{12}"
)
_IBAN = re.compile(r"[A-Z](?<!\w.)[A-Z][0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
# How long a country's are, by the registry of ISO 13616.
_IBAN_LENGTHS: Final = {
    length: countries.split()
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
}
_SECRET = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[A-Z2-7]{16}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{40,90}"
    r"|glpat-[\w-]{20}|xox[abprs]-[A-Za-z0-9-]{10,80}|AIza[\w-]{35}|(?:sk|rk)_live_[A-Za-z0-9]{16,100}"
    r"|sk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,200}|npm_[A-Za-z0-9]{36}"
    r"|eyJ[\w-]{10,400}\.eyJ[\w-]{10,2000}\.[\w-]{20,1000})(?![A-Za-z0-9])"
)
# These have spaces in them; a secret key of AWS has no shape of its own, but with its name in front it has.
_SPACED_SECRET = re.compile(
    r"-----BEGIN (?:[A-Z]{1,12} ){0,2}PRIVATE KEY-----"
    r"|(?i:aws_?secret_?access_?key)[\"']?\s{0,4}[:=]\s{0,4}[\"']?[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])"
)
_SHORTEST_SECRET: Final = 15
_DIGITS = re.compile(r"\d{2}")


def find(text: str) -> Iterator[tuple[str, str]]:
    """Yields each thing found in the first `LONGEST` characters: its kind, and what it is, masked."""
    text = text[:LONGEST]
    yield from _emails(text)
    tokens = [token for token in text.split() if len(token) >= _SHORTEST_SECRET]
    for found in _SECRET.finditer(" ".join(tokens)):
        if not found[0].endswith("EXAMPLE"):
            yield "secret", f"{found[0][:4]}•••"
    # One look for what these cannot be without spares most texts a slow search.
    if "PRIVATE KEY-" in text or "ecret" in text or "ECRET" in text:
        for found in _SPACED_SECRET.finditer(text):
            if not found[0].endswith("EXAMPLEKEY"):
                yield "secret", f"{found[0][:4]}•••"
    if not _DIGITS.search(text):
        return
    for found in _CARD.finditer(text):
        digits = re.sub(r"\D", "", found[0])
        if _ISSUER.fullmatch(digits) and _luhn(digits):
            yield "card", f"•••• {digits[-4:]}"
    for found in _IBAN.finditer(text):
        if _is_iban(number := found[0].replace(" ", "")):
            yield "iban", f"{number[:2]}•• •••• {number[-2:]}"
    for found in _PHONE.finditer(text):
        digits = re.sub(r"\D", "", found[0])
        if 8 <= len(digits) <= 15 and not _FICTION.search(digits):
            yield "phone", f"••• {digits[-2:]}"


def _emails(text: str) -> Iterator[tuple[str, str]]:
    at = text.find("@")
    while at >= 0:
        name, domain = _NAME.search(text[max(0, at - 64) : at]), _DOMAIN.match(text, at + 1)
        if name and domain and not _EXAMPLE_DOMAIN.search(f"@{domain[0]}"):
            yield "email", f"{name[0][0]}•••@{domain[0][0]}•••{domain[0][domain[0].rindex('.') :]}"
        at = text.find("@", at + 1)


def _luhn(digits: str) -> bool:
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return len(set(digits)) > 1 and (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


def _is_iban(number: str) -> bool:
    if number[:2] not in _IBAN_LENGTHS.get(len(number), ()):
        return False
    return int("".join(str(int(sign, 36)) for sign in number[4:] + number[:4])) % 97 == 1
