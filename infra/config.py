"""What the platform and its teams ask for: TOML files in, frozen typed settings out.

The folder `teams/` holds `platform.toml` and one folder per team with its `team.toml`.
Everything wrong in any of the files is found in one pass and raised as one `SettingsError`.
"""

import ast
import datetime
import functools
import importlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from infra.faults import (
    Schema,
    SettingsError,
    TomlFile,
    did_you_mean,
    listed,
    plain,
    read_toml,
    unknown_key,
    unknown_keys,
)
from lambdas.composition import CompositionError, compose

__all__ = [
    "Platform",
    "SettingsError",
    "Stage",
    "Team",
    "examine_team",
    "load_platform",
    "load_team",
    "load_teams",
    "schemas",
]

TEAMS = "teams"
PLATFORM_FILE = "platform.toml"
TEAM_FILE = "team.toml"
OWN_REWARD = "reward.py"
# What a team knows of its own reward: cases that every rehearsal tries.
CASES = "rehearsal.jsonl"

# The service writes `<stack>-<run>` into names of at most 63 characters that refuse two hyphens in a row:
# rft- (4) + team (24) + - (1) + stage (10) + - (1) + run (20) = 60.
_TEAM_NAME = re.compile(r"(?=.{3,24}$)[a-z](-?[a-z0-9])+")
# What every S3 URI of a customization job must match; `=`, `+`, spaces and `//` are not in it.
_S3_URI = re.compile(r"(?=.{1,1024}$)s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](/[-!_*'().a-z0-9A-Z]+)+")
_LIBRARY = Path(__file__).parent.parent / "lambdas" / "rewards"
# Bedrock chooses the ids of jobs, models and deployments, so policies tell them apart by this tag, and bills
# tell environments apart by it. Its value is the stack's name.
ENVIRONMENT_TAG = "rft:environment"
_OWN_TAGS = ("team", "stage", "owner", "description", ENVIRONMENT_TAG)

# Of the places an inference profile's id may begin with; one that is missing only goes without a warning.
_PROFILE = re.compile(r"(us|us-gov|eu|apac|jp|au|ca|global)\.|arn:.*inference-profile/")

_NO_PRICES = f"needs the table [prices] of {TEAMS}/{PLATFORM_FILE}, which says in which currency, and when"

TrainWhen = Literal["manual", "on-deploy", "on-upload"]


def _text(words: str, *, like: str, pattern: str) -> Any:
    """A text that matches the pattern; the words say so to a person, who gets to see them in place of it."""
    return Field(pattern=pattern, examples=[like], json_schema_extra={"$comment": words})


StageName = Annotated[
    str,
    _text(
        "2 to 10 lower-case letters and digits, a letter first", like="dev", pattern=r"^[a-z][a-z0-9]{1,9}$"
    ),
]
ComponentName = Annotated[
    str,
    _text(
        "1 to 40 lower-case letters, digits and underscores, a letter first",
        like="answer",
        pattern=r"^[a-z][a-z0-9_]{0,39}$",
    ),
]
MetricName = Annotated[
    str,
    _text(
        "the name of a component or metric: 1 to 100 letters, digits and underscores",
        like="answer_answered",
        pattern=r"^[A-Za-z0-9_]{1,100}$",
    ),
]
Email = Annotated[
    str,
    _text(
        "an e-mail address",
        like="quotes-ml@example.com",
        pattern=r"^[A-Za-z0-9_.+=-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$",
    ),
]
Account = Annotated[str, _text("12 digits in quotes", like="111122223333", pattern=r"^[0-9]{12}$")]
Region = Annotated[
    str, _text("an AWS region in quotes", like="us-east-1", pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")
]
TagKey = Annotated[
    str,
    _text(
        "1 to 128 letters, digits, spaces and . _ : / = + - @",
        like="cost-center",
        pattern=r"^[A-Za-z0-9 ._:/=+@-]{1,128}$",
    ),
]
TagValue = Annotated[
    str,
    _text(
        "1 to 256 letters, digits, spaces and . _ : / = + - @ in quotes",
        like="machine-learning",
        pattern=r"^[A-Za-z0-9 ._:/=+@-]{1,256}$",
    ),
]
ModelId = Annotated[
    str,
    _text(
        "the id of a Bedrock model",
        like="amazon.nova-2-lite-v1:0:256k",
        pattern=r"^[a-z0-9-]{1,63}\.[a-z0-9.-]{1,63}(:[a-z0-9-]{1,63}){0,2}$",
    ),
]
JudgeName = Annotated[
    str,
    _text(
        "the id or ARN of a Bedrock model or inference profile",
        like="us.amazon.nova-2-lite-v1:0",
        pattern=r"^([a-z0-9-]{1,63}(\.[a-z0-9-]{1,63}){1,4}(:[a-z0-9-]{1,63}){0,2}"
        r"|arn:aws(-[a-z-]+)?:bedrock:[a-z0-9-]*:([0-9]{12})?:[a-z-]+/[A-Za-z0-9.:/-]{1,200})$",
    ),
]
KeyArn = Annotated[
    str,
    _text(
        "the ARN of a KMS key, not of an alias",
        like="arn:aws:kms:us-east-1:111122223333:key/01234567-89ab-cdef-0123-456789abcdef",
        pattern=r"^arn:aws(-[a-z-]+)?:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]{36}$",
    ),
]
PolicyName = Annotated[
    str,
    _text(
        "the name or ARN of a managed IAM policy",
        like="arn:aws:iam::111122223333:policy/developer-boundary",
        pattern=r"^([A-Za-z0-9+=,.@_-]{1,128}|arn:aws(-[a-z-]+)?:iam::([0-9]{12}|aws):policy/[!-~]+)$",
    ),
]
RoleThere = Annotated[
    str,
    _text(
        "the ARN of a role with {account} in place of the account",
        like="arn:aws:iam::{account}:role/rft-fleet",
        pattern=r"^arn:aws(-[a-z-]+)?:iam::\{account\}:role/[A-Za-z0-9+=,.@_/-]{1,512}$",
    ),
]
ConnectionArn = Annotated[
    str,
    _text(
        "the ARN of a connection of CodeConnections",
        like="arn:aws:codeconnections:us-east-1:111122223333:connection/01234567-89ab-cdef-0123-456789abcdef",
        pattern=r"^arn:aws(-[a-z-]+)?:(codeconnections|codestar-connections):[a-z0-9-]+:[0-9]{12}:connection/"
        r"[A-Za-z0-9-]{36}$",
    ),
]
VpcId = Annotated[
    str, _text("the id of a VPC", like="vpc-0123456789abcdef0", pattern=r"^vpc-[0-9a-f]{8,17}$")
]
SubnetId = Annotated[
    str, _text("the id of a subnet", like="subnet-0123456789abcdef0", pattern=r"^subnet-[0-9a-f]{8,17}$")
]
GroupId = Annotated[
    str, _text("the id of a security group", like="sg-0123456789abcdef0", pattern=r"^sg-[0-9a-f]{8,17}$")
]
Currency = Annotated[str, _text("a currency code", like="USD", pattern=r"^[A-Z]{3}$")]
Price = Annotated[float, Field(ge=0)]
Amount = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
EpochCount = Annotated[int, Field(ge=1, le=50)]
BatchSize = Annotated[int, Field(ge=16, le=512)]
SamplesPerPrompt = Annotated[int, Field(ge=2, le=16)]
# The service publishes no upper bound for either length.
Tokens = Annotated[int, Field(ge=1)]
MeasuredPrompts = Annotated[int, Field(ge=2, le=20_000)]
MeasuredSamples = Annotated[int, Field(ge=1, le=32)]
Concurrency = Annotated[int, Field(ge=1, le=1000)]
LambdaSeconds = Annotated[int, Field(ge=1, le=900)]
LambdaMegabytes = Annotated[int, Field(ge=128, le=10_240)]


class Table(BaseModel):
    """A TOML table: unknown keys are refused, types are not converted, values never change."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class StageTable(Table):
    """One `[stages.<name>]` of a team file."""

    retention: Literal["throwaway", "lasting"]
    """lasting: data and keys outlive the stack, which refuses deletion; throwaway: all goes with it."""
    train_when: TrainWhen | None = None
    """What starts a training run in this stage; the team's `train_when` when left out."""
    account: Account | None = None
    """AWS account to deploy to, in quotes; the account of the credentials in use when left out."""
    region: Region | None = None
    """AWS region to deploy to; the region of the credentials in use when left out."""
    dashboard: bool = False
    """Whether the stage has a CloudWatch dashboard, which costs money while nothing trains as well."""
    expires: Annotated[
        datetime.date | None,
        Field(json_schema_extra={"$comment": "a date like 2027-01-31, without quotes"}),
    ] = None
    """The last day of a throw-away stage: from the day after on the nightly workflow retires it."""
    approval: bool = False
    """Whether a person has to approve a model that passed before it is promoted: `rft approve`."""
    approval_hours: Annotated[int, Field(ge=1, le=336)] = 72
    """How long a run waits for that person; then its model is not promoted."""
    object_lock_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    """For lasting stages: how long nobody can change or delete what a run was and why it was decided so."""
    object_lock_mode: Literal["governance", "compliance"] = "governance"
    """governance: who has the right to can still lift the lock; compliance: nobody can, not even the root."""

    @field_validator("expires")
    @classmethod
    def _throwaway(cls, value: datetime.date | None, info: ValidationInfo) -> datetime.date | None:
        if value and info.data.get("retention") == "lasting":
            raise ValueError('is for stages with retention = "throwaway": a lasting one ends by `rft retire`')
        return value


class Stage(StageTable):
    """One stage of a team, with what it takes over from the team filled in."""

    name: str
    train_when: TrainWhen


class Model(Table):
    """The base model that is tuned."""

    base: ModelId
    """Id of the base model; `platform.toml` lists the allowed ones."""


class Dataset(Table):
    """Where the rows come from: a file in the team's folder or an S3 object."""

    train: str
    """Rows to train on: a path in the team's folder, or s3://bucket/key."""
    evaluation: str
    """Held-out rows to measure on: a path in the team's folder, or s3://bucket/key."""
    regression: str | None = None
    """Held-out rows of what the model must not unlearn: a path in the team's folder, or s3://bucket/key."""

    def files(self) -> dict[str, str]:
        """The place of each file that there is, by its name."""
        return self.model_dump(exclude_none=True)

    @field_validator("train", "evaluation", "regression")
    @classmethod
    def _place(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if value.startswith("s3://"):
            if not _S3_URI.fullmatch(value):
                raise ValueError(
                    "must be s3://bucket/key with only letters, digits and -!_*'(). between single slashes, "
                    "which is what the service accepts"
                )
        elif not value or Path(value).is_absolute() or ".." in Path(value).parts:
            raise ValueError("must be a path inside the team's folder, or s3://bucket/key")
        return value


class Gate(Table):
    """A component that must reach a bar before the rest counts."""

    below: float
    """The gate closes when the component scores below this."""
    cap: float
    """While the gate is closed the total is at most this."""


class Component(Table, extra="allow"):
    """One `[reward.components.<name>]`: a reward function, its weight, and the function's own parameters."""

    function: str
    """A file of the reward library without its `.py`, or "reward.py" for the team's own."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Share in the weighted mean; 0 watches the component without optimizing it."""
    gate: Gate | None = None
    """Caps the total while this component scores too low."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The keys that belong to the reward function, as written."""
        return self.model_extra or {}


class RewardDefaults(Table):
    """How the reward function runs: the part of `[reward]` that a platform may preset."""

    range: Annotated[tuple[float, float], Field(strict=False)] = (0.0, 1.0)
    """Lowest and highest score; everything is clipped to it and bad rows get its lower end."""
    timeout_seconds: LambdaSeconds = 60
    """Longest time one batch may take."""
    memory_mb: LambdaMegabytes = 512
    """Memory of the function; its CPU share grows with it."""
    log_sampling_rate: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of samples that get a line in the log; those in trouble always do."""
    log_completions: bool = False
    """Whether those lines carry what the model wrote, which may be personal data."""
    seconds_per_sample: Annotated[float, Field(gt=0, le=900)] = 2.0
    """Longest time one sample may take before it counts as a failed one."""
    completion_limit: Annotated[int, Field(ge=1, le=6_000_000)] = 400_000
    """Characters of a completion that are read; a longer one is scored as a bad one."""

    @field_validator("range")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError("must be [lowest, highest] with lowest below highest")
        return value


class RewardSettings(RewardDefaults):
    """The `[reward]` table: what a good completion is worth."""

    formula: str | None = None
    """Arithmetic over component names; the weighted mean of the components when left out."""
    components: Annotated[dict[ComponentName, Component], Field(min_length=1)]
    """The parts of the reward; each name becomes a metric."""

    def document(self) -> dict[str, Any]:
        """The table as JSON-serializable data under its TOML keys, defaults filled in, unset keys not."""
        return self.model_dump(mode="json", exclude_none=True)

    def rehearsed(self) -> dict[str, Any]:
        """What a rehearsal goes by: range, time, functions, and the names that their answers stand by."""
        components = [each.parameters for each in self.components.values()]
        names = {each[key] for each in components for key in ("tag", "label", "json_field") if key in each}
        return {
            "range": list(self.range),
            "timeout_seconds": self.timeout_seconds,
            "functions": sorted({each.function for each in self.components.values()}),
            "names": sorted(names),
            "sections": [list(each["tags"]) for each in components if each.get("tags")],
        }


class Training(Table):
    """The `[training]` table: every RFT hyperparameter, within the service's ranges."""

    epoch_count: EpochCount = 2
    """Passes over the training rows."""
    batch_size: BatchSize = 32
    """Prompts per training step."""
    learning_rate: Annotated[float, Field(ge=1e-7, le=1e-3)] = 1e-4
    """Step size of the optimizer."""
    training_sample_per_prompt: SamplesPerPrompt = 8
    """Completions sampled per prompt and compared with each other."""
    max_prompt_length: Tokens = 4096
    """Longest prompt in tokens; the service drops longer ones without a word."""
    inference_max_tokens: Tokens = 1024
    """Longest completion in tokens."""
    reasoning_effort: Literal["low", "medium", "high"] = "low"
    """How much the model thinks before it answers."""
    eval_interval: Annotated[int, Field(ge=1, le=100)] = 10
    """Training steps between two evaluations."""

    def request(self) -> dict[str, int | float | str]:
        """The `hyperParameters` of `rftConfig`: the service's camelCase names, typed values."""
        return {camel_case(key): value for key, value in self.model_dump().items()}


class Measurement(Table):
    """The `[measurement]` table: how base and candidate are compared on held-out rows."""

    prompts: MeasuredPrompts = 100
    """Held-out prompts to measure on, at most."""
    samples_per_prompt: MeasuredSamples = 4
    """Completions per prompt."""
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Sampling temperature."""
    concurrency: Concurrency = 10
    """Prompts measured at the same time."""


class Promotion(Table):
    """The `[promotion]` table: the bar a candidate has to clear."""

    minimum_gain: float = 0.0
    """The lower bound of the paired confidence interval of the gain must be above this."""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """Confidence level of that interval."""
    guards: Annotated[tuple[MetricName, ...], Field(strict=False, max_length=20)] = ()
    """Components and metrics of the reward that must not drop, against the base or the champion."""
    tolerated_drop: Annotated[float, Field(ge=0)] = 0.0
    """How far the lower bound may lie below zero: of guards, regression prompts, and against the champion."""


class Retention(Table):
    """The `[retention]` table: which models of earlier runs stay."""

    models: Annotated[int, Field(ge=2, le=1000)] = 5
    """The newest models that always stay."""
    days: Annotated[int, Field(ge=0, le=3650)] = 0
    """Models younger than this stay as well."""


class DatasetGate(Table):
    """The `[gates.dataset]` table: what the dataset gate looks at beyond the format; all of it only warns."""

    near_duplicates: bool = True
    """Whether to look for prompts that say almost the same as others, also across the two files."""
    near_duplicate_similarity: Annotated[float, Field(ge=0.5, lt=1)] = 0.8
    """Share of three-word sequences two prompts have in common from which on they are near duplicates."""
    near_duplicate_share: Share = 0.02
    """Share of rows that may be near duplicates before it is more than a remark."""
    most_common_answer: Share = 0.5
    """Share of rows that one constant answer may be right about."""
    personal_data: bool = True
    """Whether to look for what may be personal data or secrets."""


class RehearsalGate(Table):
    """The `[gates.rehearsal]` table: what a reward function must withstand before it trains a model."""

    rows: Annotated[int, Field(ge=1, le=20_000)] = 200
    """Training rows whose reference answer is scored, at most; a fixed sample where there are more."""
    max_hackability: Share = 0.5
    """Share of the reward's range that a bad completion must not earn on average over the rows."""
    min_reference_share: Share = 1.0
    """Share of reference answers that must earn the maximum."""
    max_latency_share: Share = 0.5
    """Share of the reward function's `timeout_seconds` that the slowest batch may take."""


Tripping = Literal["warn", "stop", "off"]
# From the loosest to the strictest.
_TRIPPINGS: Final = ("off", "warn", "stop")


class TripwireGate(Table):
    """The `[gates.tripwires]` table: what stops a job while it trains, by its reward function's own metrics.

    Every wire is "stop", "warn" or "off", and compares a window of some steps with the run's first one.
    """

    window_steps: Annotated[int, Field(ge=1, le=1000)] = 4
    """Training steps that make up a window; a run of less than two windows is hardly watched."""
    unscorable: Tripping = "stop"
    """What too many rows that cannot be scored do."""
    unscorable_share: Share = 0.05
    """Share of the samples of a window that are too many."""
    errors: Tripping = "stop"
    """What too many samples that the reward function fails on do."""
    error_share: Share = 0.05
    """Share of the samples of a window that are too many."""
    collapse: Tripping = "stop"
    """What a reward that falls, or that nothing earns, does."""
    collapse_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of what the best window gained over the lowest score that must not be lost again."""
    saturation: Tripping = "warn"
    """What a reward that nothing is left to gain of does."""
    saturation_share: Annotated[float, Field(gt=0, le=1)] = 0.995
    """How far up from the lowest score to the highest the mean of a window is saturated."""
    spread: Tripping = "stop"
    """What completions that all earn the same, and far less than the maximum, do."""
    spread_share: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the first window's standard deviation that is too little."""
    length: Tripping = "stop"
    """What completions that get longer while the reward rises do."""
    length_warn: Annotated[float, Field(gt=1)] = 2.0
    """How many times as long as at the start warns."""
    length_stop: Annotated[float, Field(gt=1, validate_default=True)] = 3.0
    """How many times as long as at the start stops."""
    shadow: ComponentName | None = None
    """A component with weight 0 that judges independently; without it there is no gap to look at."""
    gap: Tripping = "stop"
    """What a reward that rises away from the shadow does."""
    gap_warn: Annotated[float, Field(gt=0, le=1)] = 0.05
    """How far apart they may move, as a share of the reward's range, before it warns."""
    gap_stop: Annotated[float, Field(gt=0, le=1, validate_default=True)] = 0.1
    """How far apart they may move before it stops."""

    @field_validator("length_stop", "gap_stop")
    @classmethod
    def _not_before_its_warning(cls, value: float, info: ValidationInfo) -> float:
        warns = f"{str(info.field_name).removesuffix('stop')}warn"
        if value < info.data.get(warns, value):
            raise ValueError(f"must be at least {warns}, {info.data[warns]}")
        return value


class SignalGate(Table):
    """The `[gates.signal]` table: what the base model must show before training on it is worth its price."""

    prompts: MeasuredPrompts = 50
    """Held-out prompts that the base model answers as often as training would have it, at most."""
    passing: Share = 0.5
    """How far up from the lowest score to the highest a completion must get to pass."""
    failing: Annotated[tuple[Share, Share], Field(strict=False)] = (0.1, 0.7)
    """Share of completions that should not pass, from and to; beyond it the gate says how to change that."""
    needless: Share = 0.95
    """Mean score, measured like `passing`, above which the base model needs no training."""
    sparse: Share = 0.05
    """Share of completions above the lowest score under which there is too little to learn from."""
    flat: Share = 0.9
    """Share of prompts whose completions all score the same above which there is too little to compare."""

    @field_validator("failing")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError("must be [from, to] with from below to")
        return value


class FilterGate(Table):
    """The `[gates.filter]` table: which training prompts are left out because they show training nothing."""

    drop: Literal["none", "solved", "flat"] = "none"
    """flat: prompts whose completions all earn the same; solved: those of them that pass; none: nothing."""
    prompts: MeasuredPrompts = 200
    """Training prompts that the base model is tried on to find out, at most; all others stay."""
    max_dropped: Share = 0.5
    """Share of the training rows that may be left out; above it the run stops."""


class CostGate(Table):
    """The `[gates.cost]` table: how a run's cost is estimated before it is spent."""

    growth: Annotated[float, Field(ge=1)] = 3.0
    """How many times longer than the base model's the completions may get, for the estimate's upper end."""


class Gates(Table):
    """The `[gates]` table: what a run must pass before it spends money, and while it does."""

    dataset: DatasetGate = DatasetGate()
    rehearsal: RehearsalGate = RehearsalGate()
    tripwires: TripwireGate = TripwireGate()
    signal: SignalGate = SignalGate()
    filter: FilterGate = FilterGate()
    cost: CostGate = CostGate()


class Budget(Table):
    """The `[budget]` table: what may be spent, in the currency of the platform's prices."""

    per_run: Amount | None = None
    """What one run may cost by its estimate."""
    per_month: Amount | None = None
    """What the runs of a calendar month (UTC) may cost by their estimates; also sets alerts on the bill."""


class Network(Table):
    """The VPC that training jobs reach the buckets through, and that can close in the reward function."""

    vpc_id: VpcId
    """The VPC."""
    subnet_ids: Annotated[tuple[SubnetId, ...], Field(strict=False, min_length=1, max_length=16)]
    """Its subnets, one per availability zone at least."""
    security_group_ids: Annotated[tuple[GroupId, ...], Field(strict=False, min_length=1, max_length=5)]
    """Security groups of the job's network interfaces."""
    reward_security_group_ids: Annotated[tuple[GroupId, ...], Field(strict=False, max_length=5)] = ()
    """Puts the reward function into the same subnets, with these security groups."""


class Encryption(Table):
    """A key the team brings itself, instead of one made by its stack."""

    key_arn: KeyArn
    """ARN of the KMS key; the key's own policy must let the account's IAM policies grant its use."""


class TeamTable(Table):
    """What a team chooses: the whole of a `team.toml`."""

    owner: Email
    """Who answers for this environment; gets the notifications."""
    description: Annotated[str, Field(min_length=1, max_length=400)]
    """What the team trains, in a sentence."""
    train_when: TrainWhen = "manual"
    """What starts a training run: a command, a deploy that changes what is trained, or an upload."""
    # `tags` is the method that answers with all tags of a stage.
    extra_tags: Annotated[dict[TagKey, TagValue], Field(alias="tags")] = {}
    """Tags on everything of this team, on top of the platform's."""
    stages: Annotated[Mapping[StageName, StageTable], Field(min_length=1)]
    """The environments of the team; one stack each."""
    model: Model
    dataset: Dataset
    reward: RewardSettings
    training: Training = Training()
    measurement: Measurement = Measurement()
    promotion: Promotion = Promotion()
    gates: Gates = Gates()
    retention: Retention = Retention()
    budget: Budget = Budget()
    network: Network | None = None
    encryption: Encryption | None = None

    @field_validator("extra_tags")
    @classmethod
    def _not_ours(cls, value: dict[str, str]) -> dict[str, str]:
        return _without_own_tags(value)


class Team(TeamTable, validate_by_name=True):
    """A team: its settings with the platform's defaults under them, its name and its folder."""

    name: str
    folder: Path
    stages: Mapping[str, Stage]

    def stack_id(self, stage: str) -> str:
        """The stack's id and name for the stage of that name."""
        return f"rft-{self.name}-{self.stages[stage].name}"

    def tags(self, stage: str, platform: "Platform") -> dict[str, str]:
        """The stack tags of one stage: the platform's, the team's, then what tells it from the others."""
        own = {
            "team": self.name,
            "stage": self.stages[stage].name,
            "owner": self.owner,
            ENVIRONMENT_TAG: self.stack_id(stage),
        }
        return {**platform.tags, **self.extra_tags, **own}


class InferenceProfile(Table):
    """What answers for a model on demand: Bedrock serves the newer models through profiles only."""

    profile: Annotated[str, Field(pattern=r"^[a-z-]+\.[a-zA-Z0-9.:-]+$")]
    """Id of a system-defined inference profile; what follows its first dot is the model's id."""
    regions: Annotated[tuple[Region, ...], Field(strict=False, min_length=1)]
    """Regions the profile may route to."""


class AllowedJudge(Table):
    """What may judge completions: a model, or an inference profile in front of one."""

    regions: Annotated[tuple[Region, ...], Field(strict=False)] = ()
    """For an inference profile: every region it may route to."""
    model: ModelId | None = None
    """For an application inference profile, whose ARN does not say it: the id of the model behind it."""


class AllowedModel(Table):
    """A base model teams may tune."""

    regions: Annotated[tuple[Region, ...], Field(strict=False, min_length=1)]
    """Regions in which the service tunes it."""
    inference: InferenceProfile
    """How the base model is measured."""


class AllowedVpc(Table):
    """What teams may use of a VPC: whose subnet it is, a template does not say."""

    subnet_ids: Annotated[tuple[SubnetId, ...], Field(strict=False, min_length=1)]
    """The subnets."""
    security_group_ids: Annotated[tuple[GroupId, ...], Field(strict=False, min_length=1)]
    """The security groups."""


class AllowedNetworks(Table):
    """Where in the network teams may be."""

    vpcs: Annotated[dict[VpcId, AllowedVpc], Field(min_length=1)]
    """The VPCs of all accounts and regions that teams may use."""
    closed_functions: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Reward functions that may run in one of them only, as code_tests, which runs what a model wrote."""


class TrainingLimits(Table):
    """Upper bounds for `[training]`."""

    epoch_count: EpochCount | None = None
    batch_size: BatchSize | None = None
    training_sample_per_prompt: SamplesPerPrompt | None = None
    max_prompt_length: Tokens | None = None
    inference_max_tokens: Tokens | None = None


class MeasurementLimits(Table):
    """Upper bounds for `[measurement]`."""

    prompts: MeasuredPrompts | None = None
    samples_per_prompt: MeasuredSamples | None = None
    concurrency: Concurrency | None = None


class RewardLimits(Table):
    """Upper bounds for `[reward]`."""

    timeout_seconds: LambdaSeconds | None = None
    memory_mb: LambdaMegabytes | None = None


class BudgetLimits(Table):
    """Upper bounds for `[budget]`; they hold for teams without a budget of their own as well."""

    per_run: Amount | None = None
    per_month: Amount | None = None


# Of what a limit bounds from below; all other limits are the most that a team may set.
_AT_LEAST: Final = "at least"
AtLeastShare = Annotated[Share | None, _AT_LEAST]
# A team may be stricter: stop where the platform wants a warning.
AtLeastTripping = Annotated[Literal["warn", "stop"] | None, _AT_LEAST]
# What has only one strict side: with it the team cannot switch it off.
Demanded = Annotated[Literal[True] | None, _AT_LEAST]


class PromotionLimits(Table):
    """How low `[promotion]` may lay the bar."""

    minimum_gain: Annotated[float | None, _AT_LEAST] = None
    confidence: Annotated[Annotated[float, Field(ge=0.5, lt=1)] | None, _AT_LEAST] = None
    tolerated_drop: Annotated[float, Field(ge=0)] | None = None


class DatasetGateLimits(Table):
    """How far `[gates.dataset]` may be loosened."""

    near_duplicates: Demanded = None
    near_duplicate_similarity: Annotated[float, Field(ge=0.5, lt=1)] | None = None
    near_duplicate_share: Share | None = None
    most_common_answer: Share | None = None
    personal_data: Demanded = None


class RehearsalGateLimits(Table):
    """How far `[gates.rehearsal]` may be loosened."""

    rows: Annotated[Annotated[int, Field(ge=1, le=20_000)] | None, _AT_LEAST] = None
    max_hackability: Share | None = None
    min_reference_share: AtLeastShare = None
    max_latency_share: Share | None = None


class TripwireGateLimits(Table):
    """How far `[gates.tripwires]` may be loosened: "warn" keeps a wire from being off, "stop" on "stop"."""

    window_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    unscorable: AtLeastTripping = None
    unscorable_share: Share | None = None
    errors: AtLeastTripping = None
    error_share: Share | None = None
    collapse: AtLeastTripping = None
    collapse_share: Share | None = None
    saturation: AtLeastTripping = None
    saturation_share: Share | None = None
    spread: AtLeastTripping = None
    spread_share: AtLeastShare = None
    length: AtLeastTripping = None
    length_warn: Annotated[float, Field(gt=1)] | None = None
    length_stop: Annotated[float, Field(gt=1)] | None = None
    gap: AtLeastTripping = None
    gap_warn: Share | None = None
    gap_stop: Share | None = None


class SignalGateLimits(Table):
    """How far `[gates.signal]` may be loosened."""

    prompts: Annotated[MeasuredPrompts | None, _AT_LEAST] = None
    needless: Share | None = None
    sparse: AtLeastShare = None
    flat: Share | None = None


class FilterGateLimits(Table):
    """How far `[gates.filter]` may be loosened."""

    prompts: MeasuredPrompts | None = None
    max_dropped: Share | None = None


class CostGateLimits(Table):
    """How far `[gates.cost]` may be loosened."""

    growth: Annotated[Annotated[float, Field(ge=1)] | None, _AT_LEAST] = None


class GateLimits(Table):
    """Bounds for `[gates]`: each on the side on which a gate lets more pass."""

    dataset: DatasetGateLimits = DatasetGateLimits()
    rehearsal: RehearsalGateLimits = RehearsalGateLimits()
    tripwires: TripwireGateLimits = TripwireGateLimits()
    signal: SignalGateLimits = SignalGateLimits()
    filter: FilterGateLimits = FilterGateLimits()
    cost: CostGateLimits = CostGateLimits()


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One bound that the platform sets: on which key of a team, where it stands, and to which side."""

    path: tuple[str, ...]
    """Tables and key as in a team's file: ("training", "epoch_count")."""
    value: Any
    at_least: bool

    @property
    def words(self) -> str:
        """What a value must be, after "must be" or "to"."""
        if isinstance(self.value, str):
            return listed([json.dumps(each) for each in _TRIPPINGS[_TRIPPINGS.index(self.value) :]], " or ")
        if isinstance(self.value, bool):
            return json.dumps(self.value)
        return f"at {'least' if self.at_least else 'most'} {self.value}"

    @property
    def decided(self) -> str:
        """Who can move it, and by which key."""
        return decided_by(".".join(("limits", *self.path)))

    def exceeded_by(self, value: Any) -> bool:
        """Whether a team's value lies beyond it."""
        if isinstance(self.value, str):
            return _TRIPPINGS.index(value) < _TRIPPINGS.index(self.value)
        return bool(value < self.value if self.at_least else value > self.value)


class Limits(Table):
    """What no team may exceed, table by table; in `promotion` and `gates` what no team may loosen."""

    training: TrainingLimits = TrainingLimits()
    measurement: MeasurementLimits = MeasurementLimits()
    reward: RewardLimits = RewardLimits()
    promotion: PromotionLimits = PromotionLimits()
    gates: GateLimits = GateLimits()
    budget: BudgetLimits = BudgetLimits()

    def each(self) -> Iterator[Limit]:
        """Every limit that is set."""
        return _limits_of(self)


def _limits_of(table: Table, *outer: str) -> Iterator[Limit]:
    for key, field in type(table).model_fields.items():
        value, path = getattr(table, key), (*outer, key)
        if isinstance(value, Table):
            yield from _limits_of(value, *path)
        elif value is not None:
            yield Limit(path=path, value=value, at_least=_AT_LEAST in field.metadata)


class Defaults(Table):
    """Tables that lie under those of every team file; a team overrides key by key."""

    reward: RewardDefaults = RewardDefaults()
    training: Training = Training()
    measurement: Measurement = Measurement()
    promotion: Promotion = Promotion()
    gates: Gates = Gates()
    retention: Retention = Retention()
    budget: Budget = Budget()


class ModelPrice(Table):
    """Prices of one base model or judge."""

    input_per_million_tokens: Price | None = None
    """Price of a million prompt tokens."""
    output_per_million_tokens: Price | None = None
    """Price of a million completion tokens."""
    training_per_hour: Price | None = None
    """Price of an hour of reinforcement fine-tuning."""
    training_tokens_per_hour: Annotated[float, Field(gt=0)] | None = None
    """Tokens, prompts and completions together, that fine-tuning gets through in an hour; from past jobs."""


class Prices(Table):
    """Prices for estimates; a price that is not known is left out, never guessed."""

    date: Annotated[
        datetime.date, Field(json_schema_extra={"$comment": "a date like 2026-01-31, without quotes"})
    ]
    """The day the prices were looked up."""
    currency: Currency
    """Currency code of every price."""
    lambda_gb_second: Price | None = None
    """Price of a gigabyte-second of an arm64 Lambda function."""
    kms_key_month: Price | None = None
    """Price of a customer-managed key for a month."""
    alarm_month: Price | None = None
    """Price of a standard-resolution alarm on one metric for a month."""
    dashboard_month: Price | None = None
    """Price of a dashboard for a month."""
    s3_gb_month: Price | None = None
    """Price of a gigabyte in S3 Standard for a month."""
    custom_model_month: Price | None = None
    """Price of keeping a custom model for a month."""
    models: dict[JudgeName, ModelPrice] = {}
    """Prices per base model, and per judge by the name it has under `judges`."""


class Fleet(Table):
    """How `rft status` and `rft lineage` reach the accounts of stages."""

    role_arn: RoleThere
    """Role to take in every account but the one of the credentials in use."""


class Delivery(Table):
    """Who may deploy: the repository whose workflows do it, or what a pipeline in AWS deploys."""

    repository: Annotated[
        str, _text("owner/name", like="example/rft", pattern=r"^[A-Za-z0-9-]{1,39}/[A-Za-z0-9._-]{1,100}$")
    ]
    """The repository on GitHub, or wherever the connection leads."""
    branch: Annotated[str, _text("a branch", like="main", pattern=r"^[A-Za-z0-9._/-]{1,100}$")] = "main"
    """The branch that is deployed and watched for drift."""
    environments: Annotated[tuple[StageName, ...], Field(strict=False, min_length=1)] = ("dev", "prod")
    """The waves in their order: each is the stage it deploys, and on GitHub the environment that may."""
    existing_provider: bool = False
    """Whether the account has an identity provider for GitHub already, of which there can be but one."""
    qualifier: Annotated[
        str, _text("1 to 10 lower-case letters and digits", like="hnb659fds", pattern=r"^[a-z0-9]{1,10}$")
    ] = "hnb659fds"
    """The qualifier of the CDK bootstrap, which is in the names of its roles."""
    connection_arn: ConnectionArn | None = None
    """Connection of CodeConnections through which CodePipeline reads the repository."""
    smoke_role_arn: RoleThere | None = None
    """Role by which CodePipeline tries out what it deployed to accounts other than its own."""


class Platform(Table):
    """What the platform team fixes for everyone: the whole of `platform.toml`."""

    permissions_boundary: PolicyName | None = None
    """Name or ARN of the managed policy that bounds every role of every stack."""
    required_tags: Annotated[tuple[TagKey, ...], Field(strict=False)] = ()
    """Tags every team must carry, from its own `[tags]` or from the platform's."""
    tags: dict[TagKey, TagValue] = {}
    """Tags on everything of every team."""
    models: Annotated[dict[ModelId, AllowedModel], Field(min_length=1)]
    """The base models teams may tune, and where."""
    judges: dict[JudgeName, AllowedJudge] = {}
    """The models that `judge` components may ask: each costs money with every completion."""
    limits: Limits = Limits()
    accounts: dict[StageName, Annotated[tuple[Account, ...], Field(strict=False, min_length=1)]] = {}
    """The accounts each stage may be deployed to; where it is set, there are no other stages."""
    lasting_stages: Annotated[tuple[StageName, ...], Field(strict=False)] = ()
    """Stages whose data, keys and stacks no team may have thrown away."""
    network: AllowedNetworks | None = None
    """The VPCs teams may use; any, when left out."""
    defaults: Defaults = Defaults()
    prices: Prices | None = None
    fleet: Fleet | None = None
    """How the accounts of stages are reached by who looks at all of them."""
    delivery: Delivery | None = None
    """Who may deploy without a person's credentials."""
    runbook: Annotated[str, Field(min_length=1, max_length=200)] = "docs/operations.md"
    """Where people on call read what to do; every alarm points to a section of it."""

    @field_validator("tags")
    @classmethod
    def _not_ours(cls, value: dict[str, str]) -> dict[str, str]:
        return _without_own_tags(value)

    @field_validator("judges")
    @classmethod
    def _routed(cls, value: dict[str, AllowedJudge]) -> dict[str, AllowedJudge]:
        for name, judge in value.items():
            if _PROFILE.match(name) and not judge.regions:
                raise ValueError(f"{name} is an inference profile: list the regions it may route to")
            if ":application-inference-profile/" in name and not judge.model:
                raise ValueError(f"{name} needs model, the id of the model behind it")
        return value

    def judges_of(self, reward: RewardSettings) -> dict[str, AllowedJudge]:
        """The judges that a reward asks, by the name it calls them."""
        asked = [each.parameters["model"] for each in reward.components.values() if each.function == "judge"]
        return {name: self.judges[name] for name in asked}

    def budget_of(self, team: TeamTable) -> Budget:
        """The team's budget, with the platform's limits where it sets none of its own."""
        return Budget.model_validate(
            {
                **self.limits.budget.model_dump(exclude_none=True),
                **team.budget.model_dump(exclude_none=True),
            }
        )

    def check_region(self, model: str, region: str) -> None:
        """Raises `SettingsError` unless the platform allows tuning the model in the region."""
        if fault := self.region_fault(model, region):
            raise SettingsError([f"{TEAMS}/{PLATFORM_FILE}: region {region}: {fault}"])

    def check_account(self, stage: str, account: str) -> None:
        """Raises `SettingsError` unless the platform allows deploying the stage to the account."""
        if fault := self.account_fault(stage, account):
            raise SettingsError([f"{TEAMS}/{PLATFORM_FILE}: account {account}: {fault}"])

    def account_fault(self, stage: str, account: str) -> str | None:
        """What is wrong with deploying the stage to the account, or None."""
        allowed = self.accounts.get(stage, ())
        if not self.accounts or account in allowed:
            return None
        return f"is not allowed; allowed: {listed(allowed)} {decided_by(f'accounts.{stage}')}"

    def region_fault(self, model: str, region: str) -> str | None:
        """What is wrong with tuning the model in the region, or None."""
        allowed = self.models[model].regions if model in self.models else ()
        return None if region in allowed else f"{model} is tuned in {listed(allowed)} only"


def decided_by(key: str) -> str:
    """Who can allow what a team cannot, and by which key: the end of what a team is told."""
    return f"(the platform team decides: {TEAMS}/{PLATFORM_FILE}, {key})"


# What a team may think of setting, and cannot.
_ONLY_THE_PLATFORMS = Platform.model_fields.keys() - {"tags", *TeamTable.model_fields}


def load_platform(root: Path) -> Platform:
    """Reads `teams/platform.toml` under the project's root; raises `SettingsError` with all its faults."""
    platform, faults = _read_platform(root)
    if platform is None or faults:
        raise SettingsError(faults)
    return platform


def load_team(root: Path, team: str, platform: Platform) -> Team:
    """Reads one team's folder; raises `SettingsError` with all its faults, or with the known teams."""
    loaded, faults = _read_team(root, team, platform)
    if loaded is None or faults:
        raise SettingsError(faults)
    return loaded


def examine_team(root: Path, team: str) -> tuple[Team | None, dict[str, Any], list[str]]:
    """Returns all that can be known of a team whose settings may have faults, and every fault.

    Returns:
        The team, unless its file cannot be understood as a whole; the typed tables of its file that are sound
        by themselves, by name, defaults filled in; and the faults of the platform's file and its own.
    """
    platform, faults = _read_platform(root)
    loaded, wrong = _read_team(root, team, platform)
    faults += wrong
    if loaded is not None:
        return loaded, {name: getattr(loaded, name) for name in TeamTable.model_fields}, faults
    file, _ = read_toml(root, root / TEAMS / team / TEAM_FILE)
    if file is None:
        return None, {}, faults
    document = _with_defaults(file, platform)
    try:
        return None, dict(TeamTable.model_validate(document)), faults
    except ValidationError as error:
        return None, _sound_parts(document, {entry["loc"][0] for entry in error.errors()}), faults


def load_teams(root: Path, only: Iterable[str] | None = None) -> list[Team]:
    """Reads all teams, or only those named, by name; raises `SettingsError` with the faults of all files."""
    platform, faults = _read_platform(root)
    names = team_names(root) if only is None else sorted(set(only))
    if not names and only is None:
        faults.append(f"{TEAMS}: has no team: make a folder {TEAMS}/<team> with a {TEAM_FILE}")
    teams = []
    for name in names:
        team, wrong = _read_team(root, name, platform)
        faults += wrong
        teams += [team] if team else []
    if faults:
        raise SettingsError(faults)
    return teams


def team_names(root: Path) -> list[str]:
    """The folders under `teams/`, whose names are the teams', sorted; hidden ones and caches do not count."""
    return sorted(path.name for path in (root / TEAMS).glob("[!._]*") if path.is_dir())


def reward_functions() -> list[str]:
    """The reward functions of the library, as `function = "…"` names them."""
    return sorted(path.stem for path in _LIBRARY.glob("[!_]*.py"))


def schemas() -> dict[str, Schema]:
    """The JSON Schemas of both kinds of file, by their path under the project's root."""
    functions = {name: dict(_component_schema(name)) for name in (*reward_functions(), OWN_REWARD)}
    team = _schema(TeamTable)
    parts = {**team["$defs"], "Component": {"oneOf": list(functions.values())}}
    for function in functions.values():
        parts |= function.pop("$defs", {})
    return {
        f"{TEAMS}/team.schema.json": {**team, "$defs": parts},
        f"{TEAMS}/platform.schema.json": _schema(Platform),
    }


def _read_platform(root: Path) -> tuple[Platform | None, list[str]]:
    file, faults = read_toml(root, root / TEAMS / PLATFORM_FILE)
    if file is None:
        return None, faults
    try:
        platform = Platform.model_validate(file.document)
    except ValidationError as error:
        return None, file.faults(error, _schema(Platform))
    for limit in platform.limits.each():
        start = _value_at(platform.defaults, limit.path)
        # A budget that is not set starts from nothing.
        if start is not None and limit.exceeded_by(start):
            key = ".".join(("defaults", *limit.path))
            problem = f"teams start from {json.dumps(start)}: set {key} to {limit.words} as well"
            faults.append(file.fault(("limits", *limit.path), problem, limit.value))
    for path, budget in (("limits", platform.limits.budget), ("defaults", platform.defaults.budget)):
        if platform.prices is None and budget.model_dump(exclude_none=True):
            faults.append(file.fault((path, "budget"), _NO_PRICES))
    known = [*reward_functions(), OWN_REWARD]
    for function in platform.network.closed_functions if platform.network else ():
        if function not in known:
            problem = (
                f"{function} is no reward function{did_you_mean(function, known)}; allowed: {listed(known)}"
            )
            faults.append(file.fault(("network", "closed_functions"), problem))
    return platform, faults


def _read_team(root: Path, name: str, platform: Platform | None) -> tuple[Team | None, list[str]]:
    """One team, or None when its file cannot be understood; and every fault found on the way."""
    if name not in (known := team_names(root)):
        return None, [f"{TEAMS}/{name}: no such team{did_you_mean(name, known)}; teams: {listed(known)}"]
    folder = root / TEAMS / name
    file, faults = read_toml(root, folder / TEAM_FILE)
    if not _TEAM_NAME.fullmatch(name):
        faults.append(
            f"{TEAMS}/{name}: the folder's name is the team's name and must have 3 to 24 characters: "
            "lower-case letters, digits and single hyphens, a letter first, no hyphen last"
        )
    if file is None:
        return None, faults
    faults += [file.fault((key,), f"is no team's to set {decided_by(key)}") for key in _not_theirs(file)]
    document = _with_defaults(file, platform)
    faults += _component_faults(folder, file)
    try:
        table = TeamTable.model_validate(document)
    except ValidationError as error:
        # Defaults were checked when they were read, so what is wrong stands in the team's own file.
        faults += file.faults(error, _schema(TeamTable))
        parts = _sound_parts(document, {entry["loc"][0] for entry in error.errors()})
        return None, [*faults, *_rule_faults(folder, parts, platform, file)]
    # Components with faults of their own would only be told a second time.
    faults += [] if faults else _composition_faults(table.reward, file)
    faults += _rule_faults(folder, dict(table), platform, file)
    stages = {
        key: Stage.model_validate(
            {"train_when": table.train_when, **stage.model_dump(exclude_none=True), "name": key}
        )
        for key, stage in table.stages.items()
    }
    return Team.model_validate({**dict(table), "name": name, "folder": folder, "stages": stages}), faults


def _not_theirs(file: TomlFile) -> list[str]:
    """Keys of a team's file that are the platform's to set: told once, and read no further."""
    return [key for key in file.document if key in _ONLY_THE_PLATFORMS]


def _with_defaults(file: TomlFile, platform: Platform | None) -> dict[str, Any]:
    """The team's own keys over the platform's defaults."""
    defaults = platform.defaults.model_dump(mode="json", exclude_unset=True) if platform else {}
    theirs = _not_theirs(file)
    return _merged(defaults, {key: value for key, value in file.document.items() if key not in theirs})


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both tables in one; where both have a key, tables are merged and anything else comes from `over`."""
    merged = {**under, **over}
    for key in under.keys() & over.keys():
        if isinstance(under[key], dict) and isinstance(over[key], dict):
            merged[key] = _merged(under[key], over[key])
    return merged


@functools.cache
def _schema(model: type[BaseModel]) -> Schema:
    schema: Schema = plain(model.model_json_schema())
    return schema


def _reward_class(function: str) -> type[Any]:
    """The dataclass of a library function, whose fields are its parameters: named after its file."""
    module = importlib.import_module(f"lambdas.rewards.{function}")
    found: type[Any] = getattr(module, "".join(part.capitalize() for part in function.split("_")))
    return found


@functools.cache
def _parameters(function: str) -> TypeAdapter[Any]:
    """What checks the parameters of a library function; made once, however many teams use the function."""
    return TypeAdapter(_reward_class(function))


@functools.cache
def _component_schema(function: str) -> Schema:
    """A component with this function: the keys every component has, and the parameters of the function."""
    component = _schema(TeamTable)["$defs"]["Component"]
    own: Schema = {"description": "The team's own reward function."}
    parameters = own if function == OWN_REWARD else plain(_parameters(function).json_schema())
    for described in (parameters, *parameters.get("$defs", {}).values()):
        # The rest of a class's documentation is for readers of the code.
        described["description"] = described.get("description", "").partition("\n")[0]
    named = {"function": {**component["properties"]["function"], "const": function}}
    return {
        **component,
        **parameters,
        "properties": {**component["properties"], **named, **parameters.get("properties", {})},
        "required": [*component["required"], *parameters.get("required", [])],
        # What the team's own function takes, only its code says.
        "additionalProperties": function == OWN_REWARD,
    }


def _component_faults(folder: Path, file: TomlFile) -> list[str]:
    """What is wrong with the functions the components name and with the parameters they pass."""
    reward = file.document.get("reward")
    components = reward.get("components") if isinstance(reward, dict) else None
    known = [*reward_functions(), OWN_REWARD]
    faults: list[str] = []
    for name, table in components.items() if isinstance(components, dict) else ():
        function = table.get("function") if isinstance(table, dict) else None
        path = ("reward", "components", name)
        if function == OWN_REWARD:
            faults += _own_reward_faults(folder, file, path, table)
        elif function in known:
            faults += _parameter_faults(file, path, table)
        elif isinstance(function, str):
            problem = f"is no reward function{did_you_mean(function, known)}; allowed: {listed(known)}"
            faults.append(file.fault((*path, "function"), problem, function))
    return faults


def _parameter_faults(file: TomlFile, path: tuple[str, ...], table: Mapping[str, Any]) -> list[str]:
    schema = _component_schema(table["function"])
    parameters = {key: value for key, value in table.items() if key not in Component.model_fields}
    faults = [
        file.fault((*path, *inner), problem, value)
        for inner, value, problem in unknown_keys(schema, parameters)
    ]
    # The deployed function reads JSON, so the parameters are checked as JSON: there a list may fill a tuple.
    # A TOML date has no JSON form; as an empty table it fits no parameter that is a text or a number.
    written = json.dumps(parameters, default=lambda _: {})
    try:
        _parameters(table["function"]).validate_json(written, strict=True)
    except ValidationError as error:
        faults += file.faults(error, schema, under=path)
    return faults


def _own_reward_faults(
    folder: Path, file: TomlFile, path: tuple[str, ...], table: Mapping[str, Any]
) -> list[str]:
    """Whether the team's own reward function can be one and takes these parameters; it is read, not run."""
    code = folder / OWN_REWARD
    name = file.name.replace(TEAM_FILE, OWN_REWARD)
    if not code.is_file():
        return [file.fault((*path, "function"), f"there is no file {name}", OWN_REWARD)]
    try:
        body = ast.parse(code.read_bytes()).body
    except SyntaxError as error:
        return [f"{name}:{error.lineno}: is not valid Python: {error.msg}"]
    score = next((each for each in body if isinstance(each, ast.FunctionDef) and each.name == "score"), None)
    if score is None:
        return [f"{name}: has no function `def score(sample: Sample) -> Reward`"]
    arguments = score.args
    known = {arg.arg for arg in (*arguments.posonlyargs, *arguments.args)[1:]} | {
        a.arg for a in arguments.kwonlyargs
    }
    return [
        file.fault((*path, key), unknown_key(key, {*Component.model_fields, *known}), value)
        for key, value in table.items()
        if key not in {*Component.model_fields, *known} and arguments.kwarg is None
    ]


def _composition_faults(reward: RewardSettings, file: TomlFile) -> list[str]:
    """What is wrong with how the components make one number, as the deployed composition finds it."""
    table = reward.document()
    # The team's own code must not run here, so a function of the library that needs no parameters stands in.
    stand_in = "numeric_answer"
    for name, component in reward.components.items():
        if component.function == OWN_REWARD:
            table["components"][name] = {"function": stand_in, "weight": component.weight}
    try:
        compose(table)
    except CompositionError as error:
        # Its text begins with the key.
        key = re.split(r"[ :]", str(error), maxsplit=1)[0]
        return [f"{file.place(tuple(key.split('.')))}: {error}"]
    return []


def _sound_parts(document: Mapping[str, Any], broken: set[int | str]) -> dict[str, Any]:
    """The typed parts of a team's file that can be judged although others of it are broken."""
    parts = {}
    for name, field in TeamTable.model_fields.items():
        key = field.alias or name
        if key in document and key not in broken:
            parts[name] = TypeAdapter[Any](field.annotation or Any).validate_python(document[key])
        elif key not in broken:
            parts[name] = field.get_default()
    return parts


def _rule_faults(
    folder: Path, parts: Mapping[str, Any], platform: Platform | None, file: TomlFile
) -> list[str]:
    """Where parts that are sound by themselves break a rule: files, the key's region, the platform."""
    dataset: Dataset | None = parts.get("dataset")
    model: Model | None = parts.get("model")
    encryption: Encryption | None = parts.get("encryption")
    stages: Mapping[str, StageTable] = parts.get("stages", {})
    faults = _dataset_faults(folder, dataset, file) if dataset else []
    faults += _lock_faults(stages, file)
    faults += _shadow_faults(parts.get("gates"), parts.get("reward"), file)
    if encryption:
        faults += _key_faults(encryption, stages, file)
    if "promotion" in parts and "reward" in parts:
        faults += _guard_faults(parts["promotion"], parts["reward"], file)
    if platform and model:
        faults += _model_faults(model, stages, platform, file)
    if platform and platform.prices is None and file.document.get("budget"):
        faults.append(file.fault(("budget",), _NO_PRICES))
    if platform:
        faults += _limit_faults(parts, platform, file)
        faults += _judge_faults(parts.get("reward"), platform, file)
        faults += _stage_faults(stages, platform, file)
        faults += _network_faults(parts, platform, file)
    return faults


def _dataset_faults(folder: Path, dataset: Dataset, file: TomlFile) -> list[str]:
    faults = [
        file.fault(("dataset", key), f"there is no such file in {TEAMS}/{folder.name}", value)
        for key, value in dataset.files().items()
        if not value.startswith("s3://") and not (folder / value).is_file()
    ]
    if dataset.train == dataset.evaluation:
        problem = "is also what is trained on: measure on rows that are held out"
        faults.append(file.fault(("dataset", "evaluation"), problem, dataset.evaluation))
    if dataset.regression in (dataset.train, dataset.evaluation):
        problem = "is another file of the dataset as well: regression prompts are rows of their own"
        faults.append(file.fault(("dataset", "regression"), problem, dataset.regression))
    return faults


def _shadow_faults(gates: Gates | None, reward: RewardSettings | None, file: TomlFile) -> list[str]:
    shadow = gates.tripwires.shadow if gates else None
    if shadow is None or reward is None:
        return []
    names, formula = list(reward.components), reward.formula or ""
    used = set(re.findall(r"[a-z_][a-z0-9_]*", formula))
    watched = [
        name
        for name, component in reward.components.items()
        if (name not in used if formula else component.weight == 0)
    ]
    if shadow in watched:
        return []
    problem = (
        "is part of what is optimized: a shadow needs weight = 0, and no place in the formula"
        if shadow in names
        else f"is no component of [reward]{did_you_mean(shadow, names)}; components: {listed(names)}"
    )
    return [file.fault(("gates", "tripwires", "shadow"), problem, shadow)]


def _guard_faults(promotion: Promotion, reward: RewardSettings, file: TomlFile) -> list[str]:
    """Where a guard can be no number of the reward; what metrics a function has, only running it tells."""
    components = list(reward.components)
    return [
        file.fault(
            ("promotion", "guards"),
            f"is neither a component of the reward nor <component>_<metric>{did_you_mean(name, components)}; "
            f"components: {listed(components)}",
            name,
        )
        for name in promotion.guards
        if not any(name == each or name.startswith(f"{each}_") for each in components)
    ]


def _lock_faults(stages: Mapping[str, StageTable], file: TomlFile) -> list[str]:
    problem = "is for lasting stages: what is locked cannot be thrown away with its stack"
    return [
        file.fault(("stages", name, "object_lock_days"), problem, stage.object_lock_days)
        for name, stage in stages.items()
        if stage.object_lock_days and stage.retention != "lasting"
    ]


def _key_faults(encryption: Encryption, stages: Mapping[str, StageTable], file: TomlFile) -> list[str]:
    region = encryption.key_arn.split(":")[3]
    return [
        file.fault(("stages", name, "region"), f"the key in encryption.key_arn is in {region}", stage.region)
        for name, stage in stages.items()
        if stage.region and stage.region != region
    ]


def _model_faults(
    model: Model, stages: Mapping[str, StageTable], platform: Platform, file: TomlFile
) -> list[str]:
    base, allowed = model.base, list(platform.models)
    if base not in allowed:
        problem = f"is not allowed{did_you_mean(base, allowed)}; allowed: {listed(allowed)}"
        return [file.fault(("model", "base"), f"{problem} {decided_by('models')}", base)]
    decided = decided_by(f'models."{base}".regions')
    return [
        file.fault(("stages", name, "region"), f"{fault} {decided}", stage.region)
        for name, stage in stages.items()
        if stage.region and (fault := platform.region_fault(base, stage.region))
    ]


def _stage_faults(stages: Mapping[str, StageTable], platform: Platform, file: TomlFile) -> list[str]:
    """Where a stage is not one of the platform's, is elsewhere than allowed, or is thrown away too easily."""
    faults = []
    for name, stage in stages.items():
        if platform.accounts and name not in platform.accounts:
            problem = f"is no stage of the platform; allowed: {listed(platform.accounts)}"
            faults.append(file.fault(("stages", name), f"{problem} {decided_by('accounts')}"))
        elif stage.account and (fault := platform.account_fault(name, stage.account)):
            faults.append(file.fault(("stages", name, "account"), fault, stage.account))
        if name in platform.lasting_stages and stage.retention != "lasting":
            problem = f'must be "lasting" {decided_by("lasting_stages")}'
            faults.append(file.fault(("stages", name, "retention"), problem, stage.retention))
    return faults


def _network_faults(parts: Mapping[str, Any], platform: Platform, file: TomlFile) -> list[str]:
    """Where a team is outside the VPCs that are allowed, or its reward function outside of any."""
    network: Network | None = parts.get("network")
    reward: RewardSettings | None = parts.get("reward")
    if platform.network is None:
        return []
    faults = []
    closed = "network" not in parts or (network and network.reward_security_group_ids)
    for name, component in reward.components.items() if reward and not closed else ():
        if component.function in platform.network.closed_functions:
            decided = decided_by("network.closed_functions")
            problem = f"may run in a VPC only: set network.reward_security_group_ids {decided}"
            place = ("reward", "components", name, "function")
            faults.append(file.fault(place, problem, component.function))
    if network is None:
        return faults
    allowed = platform.network.vpcs.get(network.vpc_id)
    if allowed is None:
        vpcs = listed(platform.network.vpcs)
        problem = f"is not allowed; allowed: {vpcs} {decided_by('network.vpcs')}"
        return [*faults, file.fault(("network", "vpc_id"), problem, network.vpc_id)]
    for key, known in (
        ("subnet_ids", allowed.subnet_ids),
        ("security_group_ids", allowed.security_group_ids),
        ("reward_security_group_ids", allowed.security_group_ids),
    ):
        if strange := [each for each in getattr(network, key) if each not in known]:
            decided = decided_by(f"network.vpcs.{network.vpc_id}.{key.removeprefix('reward_')}")
            problem = f"{listed(strange)} is not allowed; allowed: {listed(known)} {decided}"
            faults.append(file.fault(("network", key), problem))
    return faults


def _judge_faults(reward: RewardSettings | None, platform: Platform, file: TomlFile) -> list[str]:
    allowed, rules = list(platform.judges), f"{TEAMS}/{PLATFORM_FILE}"
    faults = []
    for name, component in reward.components.items() if reward else ():
        model = component.parameters.get("model") if component.function == "judge" else None
        # A judge without a model, or with one that is no text, is told with the other parameters.
        if isinstance(model, str) and model not in allowed:
            problem = (
                f"is no judge of {rules}{did_you_mean(model, allowed)}; allowed: {listed(allowed)}"
                if allowed
                else f'is no judge of {rules}, which allows none: add [judges."{model}"] to it'
            )
            place = ("reward", "components", name, "model")
            faults.append(file.fault(place, f"{problem} {decided_by('judges')}", model))
    return faults


def _limit_faults(parts: Mapping[str, Any], platform: Platform, file: TomlFile) -> list[str]:
    faults = []
    for limit in platform.limits.each():
        # A default beyond its limit is the platform's fault and is told there.
        if limit.path[0] in parts and _is_written(file.document, limit.path):
            value = _value_at(parts[limit.path[0]], limit.path[1:])
            problem = f"must be {limit.words} {limit.decided}"
            faults += [file.fault(limit.path, problem, value)] if limit.exceeded_by(value) else []
    if "extra_tags" in parts:
        own = parts["extra_tags"]
        missing = [key for key in platform.required_tags if key not in {**platform.tags, **own}]
        problem = f"is missing: every team must have this tag {decided_by('required_tags')}"
        faults += [file.fault(("tags", key), problem) for key in missing]
        for key in (key for key in own if key in platform.tags):
            problem = f'is "{platform.tags[key]}" for every team {decided_by("tags")}'
            faults += [file.fault(("tags", key), problem, own[key])] if own[key] != platform.tags[key] else []
    return faults


def _value_at(table: Any, path: Iterable[str]) -> Any:
    """What a path of attributes leads to."""
    return functools.reduce(getattr, path, table)


def _is_written(document: Any, path: Iterable[str]) -> bool:
    """Whether a file has the key itself, and not only a default for it."""
    for key in path:
        if not isinstance(document, dict) or key not in document:
            return False
        document = document[key]
    return True


def _without_own_tags(tags: dict[str, str]) -> dict[str, str]:
    taken = [key for key in tags if key in _OWN_TAGS or key.lower().startswith("aws:")]
    if taken:
        raise ValueError(
            f"{listed(taken)} cannot be set: every stack carries {listed(_OWN_TAGS, ' and ')} by itself, "
            "and aws: belongs to AWS"
        )
    return tags


def camel_case(key: str) -> str:
    """Returns a key of ours as the service spells it."""
    first, *rest = key.split("_")
    return first + "".join(part.capitalize() for part in rest)
