"""The embedded Bedrock is a miniature that judges nothing: a judge there says so, and gives no score."""

import pytest

from lambdas.contract import InfrastructureError, Sample
from lambdas.rewards import judge
from rft.embedded.aws import EmbeddedAws

MODEL = "us.amazon.nova-2-lite-v1:0"


@pytest.mark.parametrize(
    ("form", "model", "says"),
    [
        ("tool", MODEL, "gives no verdicts: .*does not offer toolConfig"),
        ("json", MODEL, "gives no verdicts: .*it is not an object of a reason"),
        ("tool", "us.anthropic.claude-that-is-not-there-v1:0", "cannot be asked|gives no verdicts"),
    ],
)
def test_the_miniature_is_no_judge_and_never_a_score(
    aws: EmbeddedAws, monkeypatch: pytest.MonkeyPatch, form: judge.VerdictForm, model: str, says: str
) -> None:
    for name, value in aws.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    judge._client.cache_clear()
    try:
        asked = judge.Judge(
            model=model, rubric="A good answer is friendly.", verdict=form, seconds_per_batch=10
        )
        with pytest.raises(InfrastructureError, match=says):
            asked.score(Sample("a", ({"role": "user", "content": "Hello?"},), "Hello!"))
    finally:
        judge._client.cache_clear()
        monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
