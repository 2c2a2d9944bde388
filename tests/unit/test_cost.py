"""What a template costs while nothing happens."""

import datetime
import json
import re
from pathlib import Path

import pytest

from infra.config import Prices
from rft import cli
from rft.cost import Item, idle_month
from rft.delivery import Cdk

PRICES = Prices(date=datetime.date(2026, 11, 23), currency="USD", kms_key_month=1.0, alarm_month=0.1)


def template(*types: str) -> dict[str, object]:
    return {"Resources": {f"R{number}": {"Type": each} for number, each in enumerate(types)}}


def test_what_is_billed_by_the_month_is_counted_and_priced() -> None:
    found = idle_month(
        template("AWS::KMS::Key", "AWS::CloudWatch::Alarm", "AWS::CloudWatch::Alarm", "AWS::IAM::Role"),
        PRICES,
    )
    assert found == [
        Item(type="AWS::CloudWatch::Alarm", count=2, price=0.1),
        Item(type="AWS::KMS::Key", count=1, price=1.0),
    ]


def test_what_has_no_price_is_not_taken_for_free() -> None:
    # One whose price the platform left out, and one that nobody has thought of.
    found = idle_month(template("AWS::CloudWatch::Dashboard", "AWS::EC2::NatGateway"), PRICES)
    assert [(each.type, each.price) for each in found] == [
        ("AWS::CloudWatch::Dashboard", None),
        ("AWS::EC2::NatGateway", None),
    ]


def test_without_prices_there_are_still_counts() -> None:
    assert idle_month(template("AWS::KMS::Key"), None) == [Item(type="AWS::KMS::Key", count=1, price=None)]


def test_what_is_unpriced_is_told_and_never_shown_as_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def synth(_: Cdk, __: object, output: Path) -> None:
        output.mkdir()
        made = template("AWS::KMS::Key", "AWS::EC2::NatGateway")
        (output / "rft-quotes-dev.template.json").write_text(json.dumps(made))

    monkeypatch.setattr(Cdk, "synth", synth)
    cli.app(["cost", "quotes"], standalone_mode=False)
    said = capsys.readouterr().out
    assert re.search(r"AWS::EC2::NatGateway +1 +unpriced +unpriced", said)
    assert re.search(r"what has a price, in all +1\.00 USD", said)
    # The sample platform has no price for keeping one.
    assert re.search(r"on top: every custom model +unpriced", said)
