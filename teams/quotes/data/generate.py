"""Writes the synthetic dataset of the sample team `quotes`: `python teams/quotes/data/generate.py`.

Word problems of a sales-quote desk: twelve kinds, one to three operations over the numbers in the text.
Evaluation shares no prompt with training, and half of its rows use wordings that training never shows.
The same seed gives the same bytes on every Python.
"""

# ruff: noqa: E501 - a wording reads best on one line

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from random import Random

SEED = 20_261_123
ROWS = {"train": 360, "evaluation": 120}

SYSTEM = (
    "You prepare quotes at a sales desk. Work out what is asked, step by step. "
    "Give money in dollars, without rounding. "
    "End with a line that holds only the result, in the form #### <number>."
)
CUSTOMERS = (
    "Alder Clinic", "Birch Logistics", "Cedar Schools", "Dahlia Hotels", "Elm Street Bakery", "Fern Dental",
    "Gingko Studios", "Hazel Foods", "Iris Motors", "Juniper Farms", "Kelp Marine", "Linden Library",
)  # fmt: skip
ITEMS = (
    "desk lamps", "office chairs", "label printers", "barcode scanners", "water filters", "work gloves",
    "storage bins", "monitor arms", "tool kits", "safety vests", "whiteboards", "extension cords",
)  # fmt: skip

Numbers = dict[str, Decimal]


class Draw:
    """Random numbers as a quote shows them, from nothing but `Random.random`, the one stable method."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311 - sample data, nothing secret

    def one_of(self, values: tuple[str, ...]) -> str:
        """One of the values."""
        return values[int(self._random.random() * len(values))]

    def whole(self, low: int, high: int, step: int = 1) -> Decimal:
        """A multiple of the step from low to high."""
        return Decimal(low + step * int(self._random.random() * ((high - low) // step + 1)))

    def price(self, low: int, high: int) -> Decimal:
        """A unit price in quarters of a dollar."""
        return self.whole(low * 4, high * 4) / 4


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of problem: its numbers, its answer and its wordings."""

    name: str
    difficulty: str
    numbers: Callable[[Draw], Numbers]
    answer: Callable[[Numbers], Decimal]
    shared: tuple[str, ...]
    held_out: tuple[str, ...]


KINDS = (
    Kind(
        name="total",
        difficulty="easy",
        numbers=lambda draw: {"quantity": draw.whole(3, 60), "price": draw.price(4, 90)},
        answer=lambda n: n["quantity"] * n["price"],
        shared=(
            "{customer} orders {quantity} {item} at ${price} each. What is the total?",
            "How much do {quantity} {item} cost {customer} if one of them is ${price}?",
            "Please price {quantity} {item} for {customer}. The list price is ${price} per piece.",
        ),
        held_out=("We sell {item} at ${price} apiece and {customer} takes {quantity}. What do we bill?",),
    ),
    Kind(
        name="unit_price",
        difficulty="easy",
        numbers=lambda draw: {"quantity": (q := draw.whole(4, 40)), "total": q * draw.price(5, 60)},
        answer=lambda n: n["total"] / n["quantity"],
        shared=(
            "{customer} paid ${total} for {quantity} {item}. What was the price of one?",
            "A quote over {quantity} {item} for {customer} comes to ${total}. What is the unit price?",
            "{quantity} {item} cost {customer} ${total} altogether. How much is each?",
        ),
        held_out=(
            "The invoice of {customer} says ${total} for {quantity} {item}. Work out the price per piece.",
        ),
    ),
    Kind(
        name="fee_off",
        difficulty="easy",
        numbers=lambda draw: {"total": draw.whole(200, 900, 5), "rebate": draw.whole(15, 120, 5)},
        answer=lambda n: n["total"] - n["rebate"],
        shared=(
            "The {item} for {customer} come to ${total}. We take off a rebate of ${rebate}. What is left to pay?",
            "{customer} has a voucher worth ${rebate} and buys {item} for ${total}. What do they still pay?",
            "A quote for {item} stands at ${total}; {customer} gets ${rebate} off. What is the new amount?",
        ),
        held_out=("After a credit of ${rebate}, what does {customer} owe on {item} quoted at ${total}?",),
    ),
    Kind(
        name="with_shipping",
        difficulty="medium",
        numbers=lambda draw: {
            "quantity": draw.whole(3, 50),
            "price": draw.price(4, 80),
            "shipping": draw.whole(12, 95),
        },
        answer=lambda n: n["quantity"] * n["price"] + n["shipping"],
        shared=(
            "{customer} orders {quantity} {item} at ${price} each. Shipping is ${shipping}. What is the total?",
            "Quote {quantity} {item} for {customer} at ${price} apiece plus ${shipping} for shipping.",
            "One of our {item} is ${price}. What do {quantity} cost {customer} with ${shipping} of freight?",
        ),
        held_out=(
            "Freight to {customer} adds ${shipping} to {quantity} {item} of ${price} each. What is the sum?",
        ),
    ),
    Kind(
        name="rebate",
        difficulty="medium",
        numbers=lambda draw: {
            "quantity": draw.whole(8, 50),
            "price": draw.price(12, 80),
            "rebate": draw.whole(20, 90, 5),
        },
        answer=lambda n: n["quantity"] * n["price"] - n["rebate"],
        shared=(
            "{customer} buys {quantity} {item} at ${price} each and gets ${rebate} off the order. What do they pay?",
            "We offer {quantity} {item} at ${price} per piece, less a rebate of ${rebate}. What does {customer} owe?",
            "Price {quantity} {item} for {customer}: ${price} each, minus a voucher of ${rebate}.",
        ),
        held_out=(
            "A credit of ${rebate} goes against {quantity} {item} at ${price} apiece. What does {customer} pay?",
        ),
    ),
    Kind(
        name="budget_left",
        difficulty="medium",
        numbers=lambda draw: {
            "quantity": (q := draw.whole(4, 30)),
            "price": (p := draw.price(5, 50)),
            "budget": (q * p // 10 + draw.whole(5, 60)) * 10,
        },
        answer=lambda n: n["budget"] - n["quantity"] * n["price"],
        shared=(
            "{customer} has a budget of ${budget} and buys {quantity} {item} at ${price} each. How much is left?",
            "Out of ${budget}, {customer} pays for {quantity} {item} of ${price} each. What remains?",
            "What remains of a ${budget} budget after {customer} takes {quantity} {item} at ${price} apiece?",
        ),
        held_out=(
            "{customer} can spend ${budget}. If {quantity} {item} are ${price} each, what do they keep?",
        ),
    ),
    Kind(
        name="affordable",
        difficulty="medium",
        numbers=lambda draw: {
            "price": (p := draw.whole(6, 45)),
            "shipping": (s := draw.whole(10, 60, 5)),
            "budget": p * draw.whole(5, 40) + s,
        },
        answer=lambda n: (n["budget"] - n["shipping"]) / n["price"],
        shared=(
            "{customer} has ${budget}. Shipping is ${shipping} and {item} are ${price} each. How many can they order?",
            "With ${budget} in all, ${shipping} of it for freight, how many {item} at ${price} can {customer} buy?",
            "{item} are ${price} apiece plus ${shipping} per delivery. How many does {customer} get for ${budget}?",
        ),
        held_out=(
            "Delivery takes ${shipping} of the ${budget} that {customer} has. How many {item} at ${price} fit?",
        ),
    ),
    Kind(
        name="saving",
        difficulty="medium",
        numbers=lambda draw: {
            "quantity": draw.whole(5, 60),
            "price": (p := draw.price(8, 60)),
            "other": p + draw.price(1, 9),
        },
        answer=lambda n: n["quantity"] * (n["other"] - n["price"]),
        shared=(
            "{customer} needs {quantity} {item}. A rival asks ${other} each, we ask ${price}. What do they save with us?",
            "Our {item} are ${price}, another shop sells them at ${other}. What does {customer} save on {quantity}?",
            "The price of {item} fell from ${other} to ${price}. How much less do {quantity} cost {customer} now?",
        ),
        held_out=(
            "By paying ${price} in place of ${other} for {quantity} {item}, how much does {customer} keep?",
        ),
    ),
    Kind(
        name="boxes",
        difficulty="medium",
        numbers=lambda draw: {
            "boxes": draw.whole(2, 15),
            "per_box": draw.whole(4, 24, 2),
            "price": draw.price(2, 25),
        },
        answer=lambda n: n["boxes"] * n["per_box"] * n["price"],
        shared=(
            "{customer} orders {boxes} boxes of {item}, {per_box} in a box, at ${price} per piece. What is the total?",
            "A box holds {per_box} {item} of ${price} each. What do {boxes} boxes cost {customer}?",
            "Price {boxes} boxes for {customer}. Every box has {per_box} {item} and a piece is ${price}.",
        ),
        held_out=(
            "At ${price} apiece, what does {customer} pay for {boxes} cartons with {per_box} {item} in each?",
        ),
    ),
    Kind(
        name="two_lines",
        difficulty="hard",
        numbers=lambda draw: {
            "quantity": draw.whole(3, 30),
            "price": draw.price(4, 50),
            "quantity2": draw.whole(3, 30),
            "price2": draw.price(4, 50),
        },
        answer=lambda n: n["quantity"] * n["price"] + n["quantity2"] * n["price2"],
        shared=(
            "{customer} orders {quantity} {item} at ${price} each and {quantity2} {item2} at ${price2} each. "
            "What is the total?",
            "A quote for {customer} has two lines: {quantity} {item} of ${price} and {quantity2} {item2} of ${price2}. "
            "What do they add up to?",
            "What does {customer} pay for {quantity} {item} at ${price} apiece together with {quantity2} {item2} "
            "at ${price2} apiece?",
        ),
        held_out=(
            "Add up for {customer}: {quantity} times {item} at ${price}, {quantity2} times {item2} at ${price2}.",
        ),
    ),
    Kind(
        name="discount",
        difficulty="hard",
        numbers=lambda draw: {
            "quantity": draw.whole(4, 40, 2),
            "price": draw.whole(10, 80, 5),
            "percent": draw.whole(5, 40, 5),
        },
        answer=lambda n: n["quantity"] * n["price"] * (100 - n["percent"]) / 100,
        shared=(
            "{customer} orders {quantity} {item} at ${price} each with a discount of {percent}%. What do they pay?",
            "We give {customer} {percent}% off {quantity} {item} of ${price} each. What is the final price?",
            "{quantity} {item} are ${price} apiece. What does {customer} owe after {percent}% off?",
        ),
        held_out=(
            "As a regular, {customer} gets {percent}% off. What do {quantity} {item} at ${price} come to?",
        ),
    ),
    Kind(
        name="with_tax",
        difficulty="hard",
        numbers=lambda draw: {
            "quantity": draw.whole(4, 40, 2),
            "price": draw.whole(10, 80, 5),
            "percent": draw.whole(4, 20, 2),
        },
        answer=lambda n: n["quantity"] * n["price"] * (100 + n["percent"]) / 100,
        shared=(
            "{customer} orders {quantity} {item} at ${price} each. Sales tax is {percent}%. What is the total with tax?",
            "What does {customer} pay for {quantity} {item} of ${price} each once {percent}% tax is added?",
            "Net price ${price} per piece, {quantity} {item}, tax {percent}%: what is the gross amount for {customer}?",
        ),
        held_out=(
            "Tax of {percent}% comes on top of {quantity} {item} at ${price}. What does {customer} transfer?",
        ),
    ),
)


def shown(number: Decimal) -> str:
    """A number as people write it: no decimals when whole, else cents."""
    return f"{number:.0f}" if number == number.to_integral_value() else f"{number:.2f}"


def rows(split: str, draw: Draw, seen: set[str]) -> Iterator[dict[str, object]]:
    """The rows of a split, kinds in turn; no prompt is in `seen`, which grows."""
    number = 0
    while number < ROWS[split]:
        kind = KINDS[number % len(KINDS)]
        held_out = split == "evaluation" and number // len(KINDS) % 2 == 1
        numbers = kind.numbers(draw)
        item, item2 = draw.one_of(ITEMS), draw.one_of(ITEMS)
        prompt = draw.one_of(kind.held_out if held_out else kind.shared).format(
            customer=draw.one_of(CUSTOMERS),
            item=item,
            item2=item2,
            **{k: shown(v) for k, v in numbers.items()},
        )
        prompt = prompt[0].upper() + prompt[1:]
        answer = kind.answer(numbers)
        # The answer must be exact in cents and no line may list the same item twice.
        if prompt in seen or item == item2 or answer != round(answer, 2):
            continue
        seen.add(prompt)
        number += 1
        yield {
            "id": f"quotes-{split}-{number:04d}",
            "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}],
            # The service takes a string or an object here, no bare number.
            "reference_answer": shown(answer),
            "template": kind.name,
            "difficulty": kind.difficulty,
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
