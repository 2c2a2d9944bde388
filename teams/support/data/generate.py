"""Writes the synthetic dataset of the sample team `support`: `python teams/support/data/generate.py`.

Short support tickets, each put together from sentences that state its four labels in words.
Evaluation shares no ticket with training, and half of its rows use sentences that training never shows.
The same seed gives the same bytes on every Python.
"""

import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

SEED = 20_261_124
ROWS = {"train": 384, "evaluation": 192}

PRODUCTS = ("router", "camera", "thermostat", "doorbell")
SYSTEM = (
    "You sort support tickets. Answer with one JSON object and nothing else. It has exactly these keys:\n"
    "- category: one of billing, technical, account, shipping\n"
    "- priority: one of low, normal, high\n"
    f"- product: one of {', '.join(PRODUCTS)}\n"
    "- refund_requested: true or false\n"
    "Use high only when the ticket says it is urgent and low only when it says there is no hurry."
)

# Sentences by label: those both splits use, then those only evaluation uses.
Sentences = Mapping[object, tuple[tuple[str, ...], tuple[str, ...]]]
CATEGORY: Sentences = {
    "billing": (
        (
            "I was charged twice for my {product}.",
            "The invoice for the {product} shows the wrong amount.",
            "My card was charged for a {product} plan that I cancelled.",
            "There is a fee on my bill for the {product} that nobody told me about.",
        ),
        (
            "The bill for my {product} has a second payment on it.",
            "Why is there an extra fee on the invoice of the {product}?",
        ),
    ),
    "technical": (
        (
            "My {product} keeps crashing with an error.",
            "The {product} does not connect to the network any more.",
            "Since the last update the {product} freezes every few minutes.",
            "The {product} shows an error and will not turn on.",
        ),
        (
            "An error comes up whenever the {product} tries to connect.",
            "The {product} freezes after the update and then will not turn on.",
        ),
    ),
    "account": (
        (
            "I forgot my password and cannot log in to set up the {product}.",
            "Please change the email address of the account my {product} belongs to.",
            "I am locked out of my account, so I cannot manage the {product}.",
            "How do I add a second user to the login of my {product}?",
        ),
        (
            "The password reset for the account of my {product} never reaches me.",
            "I cannot log in with the new email address to see the {product}.",
        ),
    ),
    "shipping": (
        (
            "The parcel with my {product} has not arrived.",
            "Tracking says the {product} was delivered, but no parcel came.",
            "The courier left my {product} at the wrong address.",
            "My {product} was to be shipped last week and the tracking has not moved.",
        ),
        (
            "The courier lost the parcel with the {product}.",
            "When will the {product} be delivered? The tracking shows nothing.",
        ),
    ),
}
PRIORITY: Sentences = {
    "low": (
        ("There is no hurry.", "No rush, whenever you have time.", "This is not urgent, take your time."),
        ("Take your time with this, no hurry at all.", "No rush with this one."),
    ),
    "normal": (
        ("Please have a look.", "Could you help me with this?", "I hope you can sort this out."),
        ("Please help me sort this out.", "Could somebody have a look at this?"),
    ),
    "high": (
        (
            "This is urgent.",
            "I need this solved immediately.",
            "It is urgent, my shop cannot open without it.",
        ),
        ("Please treat this as urgent, I need it immediately.", "Urgent: I cannot open my shop."),
    ),
}
REFUND: Sentences = {
    True: (
        ("I want my money back.", "Please refund me.", "I would like a full refund."),
        ("Send my money back, I want a refund.", "Please give me a full refund of my money."),
    ),
    False: (
        ("I have been a customer for years.", "A replacement or a fix is fine.", "Thanks in advance."),
        ("Thanks, a fix is fine for me.", "Thanks, I have been happy with it for years."),
    ),
}
# Tickets that speak of a refund without asking for one: the words alone mislead.
NO_REFUND = (
    ("I do not need a refund.", "I am not asking for my money back."),
    ("I do not want a refund.", "I am not asking for a refund, a fix is fine."),
)
OPENINGS = ("", "Hello,\n", "Hi there,\n", "Good morning,\n", "Dear team,\n", "Hi, me again.\n")


class Draw:
    """Random choices from nothing but `Random.random`, the one stable method."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311 - sample data, nothing secret

    def one_of(self, values: tuple[str, ...]) -> str:
        """One of the values."""
        return values[int(self._random.random() * len(values))]

    def chance(self, share: float) -> bool:
        """True in that share of the calls."""
        return self._random.random() < share

    def shuffled(self, values: list[str]) -> list[str]:
        """The values in random order."""
        return [value for _, value in sorted((self._random.random(), value) for value in values)]


def rows(split: str, draw: Draw, seen: set[str]) -> Iterator[dict[str, object]]:
    """The rows of a split, all combinations of labels in turn; no ticket is in `seen`, which grows."""
    labels = list(itertools.product(CATEGORY, PRIORITY, PRODUCTS, REFUND))
    # A stride without a common factor with the number of combinations mixes them and misses none.
    stride = 37
    number = 0
    while number < ROWS[split]:
        # In evaluation every combination comes in both wordings, so neither goes with certain labels.
        held_out = split == "evaluation" and number % 2 == 1
        turn = number // 2 if split == "evaluation" else number
        category, priority, product, refund = labels[turn * stride % len(labels)]
        negated = refund is False and draw.chance(0.25)
        sentences = [
            draw.one_of(CATEGORY[category][held_out]).format(product=product),
            draw.one_of(PRIORITY[priority][held_out]),
            draw.one_of(NO_REFUND[held_out] if negated else REFUND[refund][held_out]),
        ]
        ticket = draw.one_of(OPENINGS) + " ".join(draw.shuffled(sentences))
        if ticket in seen:
            continue
        seen.add(ticket)
        number += 1
        yield {
            "id": f"support-{split}-{number:04d}",
            "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ticket}],
            "reference_answer": {
                "category": category,
                "priority": priority,
                "product": product,
                "refund_requested": refund,
            },
            "difficulty": "misleading" if negated or "not urgent" in ticket else "plain",
            "wording": "held-out" if held_out else "shared",
        }


def write(folder: Path) -> None:
    """Writes both files of the dataset into the folder."""
    draw, seen = Draw(SEED), set[str]()
    for split in ROWS:
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows(split, draw, seen)]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
