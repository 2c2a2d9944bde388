"""Settings: what the sample files mean, and what a person is told when a file is wrong."""

# ruff: noqa: E501 - messages stand here as people see them, on one line

import json
import re
import shutil
import tomllib
from pathlib import Path

import botocore.session
import jsonschema_rs
import pytest
from pydantic import ValidationError

from infra.config import (
    Budget,
    MeasurementLimits,
    Platform,
    SettingsError,
    Training,
    load_platform,
    load_team,
    load_teams,
    reward_functions,
    schemas,
)
from lambdas.rewards.numeric_answer import NumericAnswer

ROOT = Path(__file__).parents[2]

PLATFORM = """\
required_tags = ["cost-center"]
permissions_boundary = "boundary"
[tags]
application = "rft"
[models."amazon.nova-2-lite-v1:0:256k"]
regions = ["us-east-1"]
[limits.training]
epoch_count = 12
[defaults.training]
reasoning_effort = "medium"
epoch_count = 3
[defaults.reward]
range = [-1.0, 1.0]
[prices]
date = 2026-11-23
currency = "USD"
[models."amazon.nova-2-lite-v1:0:256k".inference]
profile = "us.amazon.nova-2-lite-v1:0"
regions = ["us-east-2"]
"""

TEAM = """\
owner = "alpha@example.com"
description = "Answers questions."
train_when = "on-deploy"
[tags]
cost-center = "42"
[stages.dev]
retention = "throwaway"
train_when = "manual"
[stages.prod]
retention = "lasting"
region = "us-east-1"
[model]
base = "amazon.nova-2-lite-v1:0:256k"
[dataset]
train = "data/train.jsonl"
evaluation = "data/evaluation.jsonl"
[reward]
timeout_seconds = 30
[reward.components.answer]
function = "numeric_answer"
[reward.components.format]
function = "numeric_answer"
weight = 0.5
gate = { below = 0.5, cap = 0.1 }
[training]
epoch_count = 2
batch_size = 32
[measurement]
prompts = 50
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one team, `alpha`, in which nothing is wrong."""
    data = tmp_path / "teams" / "alpha" / "data"
    data.mkdir(parents=True)
    (data / "train.jsonl").touch()
    (data / "evaluation.jsonl").touch()
    (tmp_path / "teams" / "platform.toml").write_text(PLATFORM)
    (tmp_path / "teams" / "alpha" / "team.toml").write_text(TEAM)
    return tmp_path


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{old!r} must be in {file.name} once"
    file.write_text(text.replace(old, new))


def faults(project: Path) -> list[str]:
    with pytest.raises(SettingsError) as error:
        load_teams(project)
    assert str(error.value) == "\n".join(error.value.faults)
    return list(error.value.faults)


# What is changed in the team's file, and all that is said about it.
MISTAKES = {
    "number out of range": (
        "batch_size = 32",
        "batch_size = 8",
        ["teams/alpha/team.toml:27: training.batch_size = 8: must be from 16 to 512"],
    ),
    "number with only one bound": (
        "weight = 0.5",
        "weight = -1",
        ["teams/alpha/team.toml:23: reward.components.format.weight = -1: must be at least 0"],
    ),
    "not a finite number": (
        "weight = 0.5",
        "weight = inf",
        ["teams/alpha/team.toml:23: reward.components.format.weight = inf: must be a number of at least 0"],
    ),
    "text for a number": (
        "batch_size = 32",
        'batch_size = "32"',
        ['teams/alpha/team.toml:27: training.batch_size = "32": must be a whole number from 16 to 512'],
    ),
    "guard that is no number of the reward": (
        "[measurement]",
        '[promotion]\nguards = ["answer_answered", "fromat"]\n[measurement]',
        [
            'teams/alpha/team.toml:29: promotion.guards = "fromat": is neither a component of the reward nor'
            " <component>_<metric> (did you mean format?); components: answer, format"
        ],
    ),
    "too few models kept": (
        "[measurement]",
        "[retention]\nmodels = 1\n[measurement]",
        ["teams/alpha/team.toml:29: retention.models = 1: must be from 2 to 1000"],
    ),
    "too long to approve": (
        'retention = "throwaway"',
        'retention = "throwaway"\napproval = true\napproval_hours = 337',
        ["teams/alpha/team.toml:9: stages.dev.approval_hours = 337: must be from 1 to 336"],
    ),
    "drop that is a rise": (
        "[measurement]",
        "[promotion]\ntolerated_drop = -0.1\n[measurement]",
        ["teams/alpha/team.toml:29: promotion.tolerated_drop = -0.1: must be at least 0"],
    ),
    "fraction for a whole number": (
        "batch_size = 32",
        "batch_size = 32.5",
        ["teams/alpha/team.toml:27: training.batch_size = 32.5: must be a whole number from 16 to 512"],
    ),
    "switch for a number": (
        "prompts = 50",
        "prompts = true",
        ["teams/alpha/team.toml:29: measurement.prompts = true: must be a whole number from 2 to 20000"],
    ),
    "value for a table": (
        "[measurement]\nprompts = 50\n",
        "[measurement.prompts]\nx = 1\n",
        ["teams/alpha/team.toml:28: measurement.prompts: must be a whole number from 2 to 20000"],
    ),
    "none of the words": (
        'retention = "throwaway"',
        'retention = "temporary"',
        ['teams/alpha/team.toml:7: stages.dev.retention = "temporary": must be "throwaway" or "lasting"'],
    ),
    "none of three words": (
        'train_when = "manual"',
        'train_when = "nightly"',
        [
            'teams/alpha/team.toml:8: stages.dev.train_when = "nightly": '
            'must be "manual", "on-deploy" or "on-upload"'
        ],
    ),
    "misspelled key": (
        "batch_size = 32",
        "batchsize = 32",
        [
            "teams/alpha/team.toml:27: training.batchsize = 32: unknown key (did you mean batch_size?); allowed: "
            "batch_size, epoch_count, eval_interval, inference_max_tokens, learning_rate, max_prompt_length, "
            "reasoning_effort, training_sample_per_prompt"
        ],
    ),
    "unknown table": (
        "[measurement]",
        "[approval]",
        [
            "teams/alpha/team.toml:28: approval: unknown key; allowed: budget, dataset, description, encryption, "
            "gates, measurement, model, network, owner, promotion, retention, reward, stages, tags, train_when, "
            "training"
        ],
    ),
    "name of what the platform fills in": (
        'owner = "alpha@example.com"',
        'owner = "alpha@example.com"\nname = "beta"',
        [
            'teams/alpha/team.toml:2: name = "beta": unknown key; allowed: budget, dataset, description, encryption, '
            "gates, measurement, model, network, owner, promotion, retention, reward, stages, tags, train_when, "
            "training"
        ],
    ),
    "missing key": (
        'owner = "alpha@example.com"\n',
        "",
        [
            'teams/alpha/team.toml: owner: is missing: it must be an e-mail address, like "quotes-ml@example.com" '
            "(Who answers for this environment; gets the notifications)"
        ],
    ),
    "missing key in a table": (
        'retention = "throwaway"\n',
        "",
        [
            'teams/alpha/team.toml:6: stages.dev.retention: is missing: it must be "throwaway" or "lasting" '
            "(lasting: data and keys outlive the stack, which refuses deletion; throwaway: all goes with it)"
        ],
    ),
    "not an address": (
        'owner = "alpha@example.com"',
        'owner = "team alpha"',
        [
            'teams/alpha/team.toml:1: owner = "team alpha": must be an e-mail address, like "quotes-ml@example.com"'
        ],
    ),
    "account without quotes": (
        'retention = "throwaway"',
        'retention = "throwaway"\naccount = 111122223333',
        [
            'teams/alpha/team.toml:8: stages.dev.account = 111122223333: must be 12 digits in quotes, like "111122223333"'
        ],
    ),
    "stage name": (
        "[stages.dev]",
        "[stages.Dev-1]",
        [
            "teams/alpha/team.toml:6: stages.Dev-1: its name must be "
            '2 to 10 lower-case letters and digits, a letter first, like "dev"'
        ],
    ),
    "no stage": (
        TEAM[TEAM.index("[stages.dev]") : TEAM.index("[model]")],
        "[stages]\n",
        ["teams/alpha/team.toml:6: stages: must be a table with at least one entry"],
    ),
    "model the platform does not allow": (
        'base = "amazon.nova-2-lite-v1:0:256k"',
        'base = "amazon.nova-2-lite-v1:0"',
        [
            'teams/alpha/team.toml:13: model.base = "amazon.nova-2-lite-v1:0": is not allowed '
            "(did you mean amazon.nova-2-lite-v1:0:256k?); allowed: amazon.nova-2-lite-v1:0:256k "
            "(the platform team decides: teams/platform.toml, models)"
        ],
    ),
    "region the model is not tuned in": (
        'region = "us-east-1"',
        'region = "eu-west-1"',
        [
            'teams/alpha/team.toml:11: stages.prod.region = "eu-west-1": '
            "amazon.nova-2-lite-v1:0:256k is tuned in us-east-1 only "
            '(the platform team decides: teams/platform.toml, models."amazon.nova-2-lite-v1:0:256k".regions)'
        ],
    ),
    "above the platform's limit": (
        "epoch_count = 2",
        "epoch_count = 20",
        [
            "teams/alpha/team.toml:26: training.epoch_count = 20: "
            "must be at most 12 (the platform team decides: teams/platform.toml, limits.training.epoch_count)"
        ],
    ),
    "difficulty the wrong way round": (
        "prompts = 50",
        "prompts = 50\n[gates.signal]\nfailing = [0.7, 0.1]",
        [
            "teams/alpha/team.toml:31: gates.signal.failing = [0.7, 0.1]: "
            "must be [from, to] with from below to"
        ],
    ),
    "tripwire that stops before it warns": (
        "prompts = 50",
        "prompts = 50\n[gates.tripwires]\nlength_stop = 1.5\ngap_warn = 0.2",
        [
            "teams/alpha/team.toml:31: gates.tripwires.length_stop = 1.5: must be at least length_warn, 2.0",
            "teams/alpha/team.toml:30: gates.tripwires.gap_stop = 0.1: must be at least gap_warn, 0.2",
        ],
    ),
    "tripwire that does something else": (
        "prompts = 50",
        'prompts = 50\n[gates.tripwires]\nlength = "ring"',
        ['teams/alpha/team.toml:31: gates.tripwires.length = "ring": must be "warn", "stop" or "off"'],
    ),
    "shadow that is optimized": (
        "prompts = 50",
        'prompts = 50\n[gates.tripwires]\nshadow = "format"',
        [
            'teams/alpha/team.toml:31: gates.tripwires.shadow = "format": is part of what is optimized: a '
            "shadow needs weight = 0, and no place in the formula"
        ],
    ),
    "shadow that is no component": (
        "prompts = 50",
        'prompts = 50\n[gates.tripwires]\nshadow = "formt"',
        [
            'teams/alpha/team.toml:31: gates.tripwires.shadow = "formt": is no component of [reward] (did you '
            "mean format?); components: answer, format"
        ],
    ),
    "share above one": (
        "prompts = 50",
        "prompts = 50\n[gates.signal]\nneedless = 95",
        ["teams/alpha/team.toml:31: gates.signal.needless = 95: must be from 0 to 1"],
    ),
    "filter that drops something else": (
        "prompts = 50",
        'prompts = 50\n[gates.filter]\ndrop = "hard"\nmax_droped = 2',
        [
            'teams/alpha/team.toml:31: gates.filter.drop = "hard": must be "none", "solved" or "flat"',
            "teams/alpha/team.toml:32: gates.filter.max_droped = 2: unknown key (did you mean max_dropped?); "
            "allowed: drop, max_dropped, prompts",
        ],
    ),
    "regression prompts that are measured anyway": (
        'evaluation = "data/evaluation.jsonl"',
        'evaluation = "data/evaluation.jsonl"\nregression = "data/evaluation.jsonl"',
        [
            'teams/alpha/team.toml:17: dataset.regression = "data/evaluation.jsonl": is another file of the'
            " dataset as well: regression prompts are rows of their own"
        ],
    ),
    "regression prompts that are not there": (
        'evaluation = "data/evaluation.jsonl"',
        'evaluation = "data/evaluation.jsonl"\nregression = "data/old.jsonl"',
        [
            'teams/alpha/team.toml:17: dataset.regression = "data/old.jsonl": there is no such file in'
            " teams/alpha"
        ],
    ),
    "budget of nothing": (
        "prompts = 50",
        "prompts = 50\n[budget]\nper_run = 0",
        ["teams/alpha/team.toml:31: budget.per_run = 0: must be above 0"],
    ),
    "missing tag": (
        'cost-center = "42"',
        'project = "x"',
        [
            "teams/alpha/team.toml:4: tags.cost-center: is missing: every team must have this tag "
            "(the platform team decides: teams/platform.toml, required_tags)"
        ],
    ),
    "tag that is taken": (
        'cost-center = "42"',
        'cost-center = "42"\nteam = "x"',
        [
            "teams/alpha/team.toml:4: tags: team cannot be set: "
            "every stack carries team, stage, owner, description and rft:environment by itself, and aws: belongs to AWS"
        ],
    ),
    "tag AWS refuses": (
        'cost-center = "42"',
        'cost-center = "forty-two!"',
        [
            'teams/alpha/team.toml:5: tags.cost-center = "forty-two!": must be '
            '1 to 256 letters, digits, spaces and . _ : / = + - @ in quotes, like "machine-learning"'
        ],
    ),
    "missing dataset file": (
        'train = "data/train.jsonl"',
        'train = "data/training.jsonl"',
        [
            'teams/alpha/team.toml:15: dataset.train = "data/training.jsonl": '
            "there is no such file in teams/alpha"
        ],
    ),
    "dataset outside the folder": (
        'train = "data/train.jsonl"',
        'train = "../beta/train.jsonl"',
        [
            'teams/alpha/team.toml:15: dataset.train = "../beta/train.jsonl": '
            "must be a path inside the team's folder, or s3://bucket/key"
        ],
    ),
    "S3 key the service refuses": (
        'train = "data/train.jsonl"',
        'train = "s3://bucket/run=1/train.jsonl"',
        [
            'teams/alpha/team.toml:15: dataset.train = "s3://bucket/run=1/train.jsonl": '
            "must be s3://bucket/key with only letters, digits and -!_*'(). between single slashes, "
            "which is what the service accepts"
        ],
    ),
    "measured on what was trained on": (
        'evaluation = "data/evaluation.jsonl"',
        'evaluation = "data/train.jsonl"',
        [
            'teams/alpha/team.toml:16: dataset.evaluation = "data/train.jsonl": '
            "is also what is trained on: measure on rows that are held out"
        ],
    ),
    "range upside down": (
        "timeout_seconds = 30",
        "range = [1, 0]",
        [
            "teams/alpha/team.toml:18: reward.range = [1, 0]: must be [lowest, highest] with lowest below highest"
        ],
    ),
    "range of one": (
        "timeout_seconds = 30",
        "range = [1]",
        ["teams/alpha/team.toml:18: reward.range = [1]: must be a list of 2"],
    ),
    "unknown reward function": (
        '[reward.components.answer]\nfunction = "numeric_answer"',
        '[reward.components.answer]\nfunction = "numeric_anwser"',
        [
            'teams/alpha/team.toml:20: reward.components.answer.function = "numeric_anwser": is no reward function '
            f"(did you mean numeric_answer?); allowed: {', '.join([*reward_functions(), 'reward.py'])}"
        ],
    ),
    "name of a component": (
        "[reward.components.answer]",
        "[reward.components.my-answer]",
        [
            "teams/alpha/team.toml:19: reward.components.my-answer: its name must be "
            '1 to 40 lower-case letters, digits and underscores, a letter first, like "answer"'
        ],
    ),
    "key inside an inline table": (
        "cap = 0.1",
        "top = 0.1",
        [
            "teams/alpha/team.toml:24: reward.components.format.gate.cap: is missing: it must be a number "
            "(While the gate is closed the total is at most this)",
            "teams/alpha/team.toml:24: reward.components.format.gate.top = 0.1: unknown key; allowed: below, cap",
        ],
    ),
    "formula with an unknown name": (
        "timeout_seconds = 30",
        'formula = "0.8 * answers + 0.2 * format"',
        [
            "teams/alpha/team.toml:18: reward.formula '0.8 * answers + 0.2 * format': "
            "'answers' is no component; the components are answer, format"
        ],
    ),
    "formula that is none": (
        "timeout_seconds = 30",
        'formula = "0.8 answer"',
        ["teams/alpha/team.toml:18: reward.formula: '0.8 answer' is not an arithmetic expression"],
    ),
    "formula that can divide by zero": (
        "timeout_seconds = 30",
        'formula = "answer / format"',
        [
            "teams/alpha/team.toml:18: reward.formula 'answer / format': it can divide by zero; "
            "keep the divisor away from 0, as in max(x, 0.1)"
        ],
    ),
    "component with a name that is taken": (
        "[reward.components.answer]",
        "[reward.components.error]",
        [
            "teams/alpha/team.toml:19: reward.components.error: a name is lower-case letters, digits and _, "
            "starts with a letter, and is none of unscorable, error, over_time, over_length, min, max, abs, clip, "
            "floor, ceil, sqrt, exp, log, gated"
        ],
    ),
    "own reward that is not there": (
        '[reward.components.answer]\nfunction = "numeric_answer"',
        '[reward.components.answer]\nfunction = "reward.py"',
        [
            'teams/alpha/team.toml:20: reward.components.answer.function = "reward.py": '
            "there is no file teams/alpha/reward.py",
        ],
    ),
    "key that is no key": (
        "[measurement]",
        '[encryption]\nkey_arn = "alias/alpha"\n[measurement]',
        [
            'teams/alpha/team.toml:29: encryption.key_arn = "alias/alpha": must be the ARN of a KMS key, not of an alias, like '
            '"arn:aws:kms:us-east-1:111122223333:key/01234567-89ab-cdef-0123-456789abcdef"'
        ],
    ),
    "lock of what is thrown away": (
        'retention = "throwaway"',
        'retention = "throwaway"\nobject_lock_days = 30',
        [
            "teams/alpha/team.toml:8: stages.dev.object_lock_days = 30: "
            "is for lasting stages: what is locked cannot be thrown away with its stack"
        ],
    ),
    "key in another region": (
        "[measurement]",
        '[encryption]\nkey_arn = "arn:aws:kms:us-west-2:111122223333:key/01234567-89ab-cdef-0123-456789abcdef"\n'
        "[measurement]",
        [
            'teams/alpha/team.toml:11: stages.prod.region = "us-east-1": '
            "the key in encryption.key_arn is in us-west-2"
        ],
    ),
    "not a security group": (
        "[measurement]",
        '[network]\nvpc_id = "vpc-0123456789abcdef0"\nsubnet_ids = ["subnet-0123456789abcdef0"]\n'
        'security_group_ids = ["sg-00000001", "x"]\n'
        "[measurement]",
        [
            'teams/alpha/team.toml:31: network.security_group_ids.1 = "x": '
            'must be the id of a security group, like "sg-0123456789abcdef0"'
        ],
    ),
    "not TOML": (
        "batch_size = 32",
        "batch_size = ",
        ["teams/alpha/team.toml:27: is not valid TOML: Invalid value (column 14)"],
    ),
    "key twice": (
        "batch_size = 32",
        "epoch_count = 32",
        ["teams/alpha/team.toml:27: is not valid TOML: Cannot overwrite a value (column 17)"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_readable_line(project: Path, mistake: str) -> None:
    old, new, expected = MISTAKES[mistake]
    change(project / "teams/alpha/team.toml", old, new)
    assert faults(project) == expected


def test_all_mistakes_of_all_files_are_told_at_once(project: Path) -> None:
    beta = project / "teams/beta"
    shutil.copytree(project / "teams/alpha", beta)
    change(project / "teams/platform.toml", "2026-11-23", '"today"')
    change(project / "teams/alpha/team.toml", "batch_size = 32", "batch_size = 8")
    change(project / "teams/alpha/team.toml", "prompts = 50", "prompts = 0")
    change(project / "teams/alpha/team.toml", "data/train.jsonl", "train.jsonl")
    change(beta / "team.toml", "data/train.jsonl", "train.jsonl")
    assert faults(project) == [
        'teams/platform.toml:15: prices.date = "today": must be a date like 2026-01-31, without quotes',
        "teams/alpha/team.toml:27: training.batch_size = 8: must be from 16 to 512",
        "teams/alpha/team.toml:29: measurement.prompts = 0: must be from 2 to 20000",
        'teams/alpha/team.toml:15: dataset.train = "train.jsonl": there is no such file in teams/alpha',
        'teams/beta/team.toml:15: dataset.train = "train.jsonl": there is no such file in teams/beta',
    ]


def test_a_broken_table_hides_no_mistake_of_another(project: Path) -> None:
    file = project / "teams/alpha/team.toml"
    change(file, "batch_size = 32", "batch_size = 8")
    change(file, 'region = "us-east-1"', 'region = "eu-west-1"')
    change(file, 'cost-center = "42"', 'project = "x"')
    change(file, 'function = "numeric_answer"\n[reward', 'function = "numeric"\n[reward')
    change(
        project / "teams/platform.toml",
        "[defaults.training]",
        "[limits.measurement]\nprompts = 40\n[defaults.training]",
    )
    change(
        project / "teams/platform.toml",
        "[defaults.reward]",
        "[defaults.measurement]\nprompts = 40\n[defaults.reward]",
    )
    assert [fault.partition(": ")[2].partition(": ")[0] for fault in faults(project)] == [
        'reward.components.answer.function = "numeric"',
        "training.batch_size = 8",
        'stages.prod.region = "eu-west-1"',
        "measurement.prompts = 50",
        "tags.cost-center",
    ]


# A component that passes parameters, and what is said about them.
PARAMETERS = {
    "unknown": (
        'froms = "hashes"',
        [
            'teams/alpha/team.toml:21: reward.components.answer.froms = "hashes": unknown key (did you mean form?); '
            "allowed: absolute_tolerance, accounting_negatives, currencies, decimal_mark, form, function, gate, "
            "json_field, label, percent, reference_field, relative_tolerance, tag, units, weight, words"
        ],
    ),
    "none of the words": (
        'decimal_mark = ";"',
        ['teams/alpha/team.toml:21: reward.components.answer.decimal_mark = ";": must be "." or ","'],
    ),
    "wrong type": (
        'absolute_tolerance = "small"',
        ['teams/alpha/team.toml:21: reward.components.answer.absolute_tolerance = "small": must be a number'],
    ),
    "wrong type in a list": (
        'currencies = ["$", 5]',
        ["teams/alpha/team.toml:21: reward.components.answer.currencies.1 = 5: must be a text"],
    ),
    "date": (
        "label = 2026-01-01",
        ["teams/alpha/team.toml:21: reward.components.answer.label: must be a text"],
    ),
}


@pytest.mark.parametrize("mistake", PARAMETERS)
def test_parameters_are_those_of_the_reward_function(project: Path, mistake: str) -> None:
    line, expected = PARAMETERS[mistake]
    function = '[reward.components.answer]\nfunction = "numeric_answer"'
    change(project / "teams/alpha/team.toml", function, f"{function}\n{line}")
    assert faults(project) == expected


def test_what_a_reward_function_refuses_is_told_in_its_own_words(project: Path) -> None:
    function = '[reward.components.answer]\nfunction = "numeric_answer"'
    change(project / "teams/alpha/team.toml", function, f"{function}\nabsolute_tolerance = -1.0")
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - its words are compared below
        NumericAnswer(absolute_tolerance=-1.0)
    (fault,) = faults(project)
    assert fault == f"teams/alpha/team.toml:19: reward.components.answer: {refusal.value}"


def test_keys_inside_a_parameter_are_checked_too(project: Path) -> None:
    change(
        project / "teams/alpha/team.toml",
        '[reward.components.answer]\nfunction = "numeric_answer"',
        '[reward.components.answer]\nfunction = "json_match"\n'
        "[reward.components.answer.fields.category]\nweigth = 2\n"
        '[reward.components.answer.fields."customer.tier"]\nweight = "2"',
    )
    assert faults(project) == [
        "teams/alpha/team.toml:22: reward.components.answer.fields.category.weigth = 2: "
        "unknown key (did you mean weight?); "
        "allowed: absolute_tolerance, arrays, relative_tolerance, strings, type, weight",
        'teams/alpha/team.toml:24: reward.components.answer.fields."customer.tier".weight = "2": must be a number',
    ]


def test_lists_fill_the_tuples_of_a_reward_function(project: Path) -> None:
    function = '[reward.components.answer]\nfunction = "numeric_answer"'
    change(
        project / "teams/alpha/team.toml",
        function,
        f'{function}\nwords = ["yes", "no"]\nunits = {{ kg = 1 }}',
    )
    (team,) = load_teams(project)
    assert team.reward.components["answer"].parameters == {"words": ["yes", "no"], "units": {"kg": 1}}


OWN = '[reward.components.answer]\nfunction = "reward.py"'


def test_a_teams_own_reward_function_is_read_but_not_run(project: Path) -> None:
    change(project / "teams/alpha/team.toml", OWN.replace("reward.py", "numeric_answer"), OWN)
    code = project / "teams/alpha/reward.py"
    code.write_text("raise RuntimeError\n\ndef score(sample, strict):\n    return 1\n")
    assert load_teams(project)[0].reward.components["answer"].function == "reward.py"
    change(project / "teams/alpha/team.toml", OWN, f"{OWN}\nstrikt = true")
    assert faults(project) == [
        "teams/alpha/team.toml:21: reward.components.answer.strikt = true: unknown key (did you mean strict?); "
        "allowed: function, gate, strict, weight"
    ]
    change(project / "teams/alpha/team.toml", "strikt = true", "strict = true")
    assert load_teams(project)[0].reward.components["answer"].parameters == {"strict": True}
    code.write_text("def scores(sample):\n    return 1\n")
    assert faults(project) == ["teams/alpha/reward.py: has no function `def score(sample: Sample) -> Reward`"]
    code.write_text("def score(sample)\n    return 1\n")
    assert faults(project) == ["teams/alpha/reward.py:1: is not valid Python: expected ':'"]


def test_weights_that_are_all_zero_are_refused(project: Path) -> None:
    file = project / "teams/alpha/team.toml"
    change(file, "weight = 0.5", "weight = 0")
    change(file, "[reward.components.format]", "weight = 0\n[reward.components.format]")
    assert faults(project) == [
        "teams/alpha/team.toml:19: reward.components: every weight is 0, so there is nothing to optimize; "
        "give one a weight above 0"
    ]


@pytest.mark.parametrize("name", ["ab", "a" * 25, "1st", "al--pha", "alpha-", "Alpha", "al_pha"])
def test_a_team_name_must_fit_the_names_of_its_stacks(project: Path, name: str) -> None:
    (project / "teams/alpha").rename(project / "teams" / name)
    assert faults(project) == [
        f"teams/{name}: the folder's name is the team's name and must have 3 to 24 characters: "
        "lower-case letters, digits and single hyphens, a letter first, no hyphen last"
    ]


def test_the_longest_names_still_fit_the_service(project: Path) -> None:
    name = "a-" + "b" * 22
    (project / "teams/alpha").rename(project / "teams" / name)
    change(project / "teams" / name / "team.toml", "[stages.dev]", "[stages.abcdefghij]")
    (team,) = load_teams(project)
    stack = team.stack_id("abcdefghij")
    assert stack == f"rft-{name}-abcdefghij"
    shape = botocore.session.get_session().get_service_model("bedrock")
    members = shape.operation_model("CreateModelCustomizationJob").input_shape.members
    for member in ("jobName", "customModelName"):
        limits = members[member].metadata
        job = f"{stack}-run-0123456789abcdef"
        assert re.fullmatch(limits["pattern"], job)
        assert len(job) <= limits["max"]


def test_an_unknown_team_is_told_with_the_known_ones(project: Path) -> None:
    expected = "teams/alhpa: no such team (did you mean alpha?); teams: alpha"
    with pytest.raises(SettingsError) as error:
        load_teams(project, ["alhpa"])
    assert str(error.value) == expected
    with pytest.raises(SettingsError) as error:
        load_team(project, "alhpa", load_platform(project))
    assert str(error.value) == expected


def test_only_the_named_teams_are_read(project: Path) -> None:
    (project / "teams/broken").mkdir()
    assert [team.name for team in load_teams(project, ["alpha"])] == ["alpha"]
    assert faults(project) == ["teams/broken/team.toml: cannot be read: the file must be there and readable"]


def test_a_project_without_teams_says_what_to_do(project: Path) -> None:
    shutil.rmtree(project / "teams/alpha")
    assert faults(project) == ["teams: has no team: make a folder teams/<team> with a team.toml"]
    shutil.rmtree(project / "teams")
    assert faults(project) == [
        "teams/platform.toml: cannot be read: the file must be there and readable",
        "teams: has no team: make a folder teams/<team> with a team.toml",
    ]


def test_a_file_that_is_no_text_is_told_apart(project: Path) -> None:
    (project / "teams/alpha/team.toml").write_bytes(b"owner = '\xff'")
    assert faults(project) == ["teams/alpha/team.toml: is not UTF-8 text (byte 9): save the file as UTF-8"]


PLATFORM_MISTAKES = {
    "unknown key": (
        "required_tags",
        "requried_tags",
        [
            'teams/platform.toml:1: requried_tags = ["cost-center"]: unknown key (did you mean required_tags?); '
            "allowed: accounts, defaults, delivery, fleet, judges, lasting_stages, limits, models, network, permissions_boundary, "
            "prices, required_tags, runbook, tags"
        ],
    ),
    "default above its limit": (
        "epoch_count = 3",
        "epoch_count = 13",
        [
            "teams/platform.toml:8: limits.training.epoch_count = 12: "
            "teams start from 13: set defaults.training.epoch_count to at most 12 as well"
        ],
    ),
    "limit no team could exceed": (
        "epoch_count = 12",
        "epoch_count = 60",
        ["teams/platform.toml:8: limits.training.epoch_count = 60: must be from 1 to 50"],
    ),
    "default out of range": (
        "epoch_count = 3",
        "epoch_count = 0",
        ["teams/platform.toml:11: defaults.training.epoch_count = 0: must be from 1 to 50"],
    ),
    "closed function that is none": (
        "[tags]",
        '[network]\nclosed_functions = ["code_test"]\n[network.vpcs.vpc-01234567]\n'
        'subnet_ids = ["subnet-01234567"]\nsecurity_group_ids = ["sg-01234567"]\n[tags]',
        [
            "teams/platform.toml:4: network.closed_functions: code_test is no reward function "
            "(did you mean code_tests?); allowed: " + ", ".join([*reward_functions(), "reward.py"])
        ],
    ),
    "model without a region": (
        'regions = ["us-east-1"]',
        "regions = []",
        ['teams/platform.toml:6: models."amazon.nova-2-lite-v1:0:256k".regions = []: must be a list'],
    ),
    "connection by its name": (
        "[tags]",
        '[delivery]\nrepository = "example/rft"\nconnection_arn = "github"\n[tags]',
        [
            'teams/platform.toml:5: delivery.connection_arn = "github": must be the ARN of a connection of '
            'CodeConnections, like "arn:aws:codeconnections:us-east-1:111122223333:connection/'
            "01234567-89ab-cdef..."
        ],
    ),
    "role of one account": (
        "[tags]",
        '[delivery]\nrepository = "example/rft"\nsmoke_role_arn = "arn:aws:iam::111122223333:role/x"\n[tags]',
        [
            'teams/platform.toml:5: delivery.smoke_role_arn = "arn:aws:iam::111122223333:role/x": must be the '
            'ARN of a role with {account} in place of the account, like "arn:aws:iam::{account}:role/rft-fleet"'
        ],
    ),
    "prices without a date": (
        "date = 2026-11-23\n",
        "",
        [
            "teams/platform.toml:14: prices.date: is missing: it must be a date like 2026-01-31, without quotes "
            "(The day the prices were looked up)"
        ],
    ),
}


@pytest.mark.parametrize("mistake", PLATFORM_MISTAKES)
def test_a_mistake_of_the_platform_is_one_readable_line(project: Path, mistake: str) -> None:
    old, new, expected = PLATFORM_MISTAKES[mistake]
    change(project / "teams/platform.toml", old, new)
    assert faults(project) == expected


def test_the_platforms_defaults_lie_under_the_teams_tables(project: Path) -> None:
    (team,) = load_teams(project)
    assert team.training.reasoning_effort == "medium"
    assert team.training.epoch_count == 2
    assert team.reward.range == (-1.0, 1.0)
    assert team.reward.timeout_seconds == 30
    change(project / "teams/alpha/team.toml", "epoch_count = 2\n", "")
    assert load_teams(project)[0].training.epoch_count == 3


def test_a_stage_takes_over_when_the_team_trains(project: Path) -> None:
    (team,) = load_teams(project)
    assert {name: stage.train_when for name, stage in team.stages.items()} == {
        "dev": "manual",
        "prod": "on-deploy",
    }
    assert {name: stage.name for name, stage in team.stages.items()} == {"dev": "dev", "prod": "prod"}


def test_stack_tags_are_the_platforms_and_the_teams_and_who_it_is(project: Path) -> None:
    platform = load_platform(project)
    team = load_team(project, "alpha", platform)
    assert team.tags("prod", platform) == {
        "application": "rft",
        "cost-center": "42",
        "team": "alpha",
        "stage": "prod",
        "owner": "alpha@example.com",
        "rft:environment": "rft-alpha-prod",
    }


def test_the_platform_limits_the_budget_of_every_team(project: Path) -> None:
    platform, team = project / "teams/platform.toml", project / "teams/alpha/team.toml"
    change(platform, "[defaults.training]", "[limits.budget]\nper_run = 50\n[defaults.training]")
    assert budget_of_alpha(project) == Budget(per_run=50.0)
    # Without a limit of the platform a team sets its own, and below one it may.
    team.write_text(TEAM + "[budget]\nper_run = 20.5\nper_month = 300\n")
    assert budget_of_alpha(project) == Budget(per_run=20.5, per_month=300.0)
    team.write_text(TEAM + "[budget]\nper_run = 51\n")
    assert faults(project) == [
        "teams/alpha/team.toml:31: budget.per_run = 51.0: must be at most 50.0 "
        "(the platform team decides: teams/platform.toml, limits.budget.per_run)"
    ]
    change(platform, "[defaults.training]", "[defaults.budget]\nper_run = 60\n[defaults.training]")
    assert faults(project)[0] == (
        "teams/platform.toml:10: limits.budget.per_run = 50.0: teams start from 60.0: "
        "set defaults.budget.per_run to at most 50.0 as well"
    )


def budget_of_alpha(project: Path) -> Budget:
    platform = load_platform(project)
    return platform.budget_of(load_team(project, "alpha", platform))


def test_a_budget_needs_prices(project: Path) -> None:
    platform, team = project / "teams/platform.toml", project / "teams/alpha/team.toml"
    change(platform, '[prices]\ndate = 2026-11-23\ncurrency = "USD"\n', "")
    load_teams(project)
    team.write_text(TEAM + "[budget]\nper_run = 20\n")
    (fault,) = faults(project)
    assert fault.endswith(
        ": needs the table [prices] of teams/platform.toml, which says in which currency, and when"
    )
    assert fault.startswith("teams/alpha/team.toml:30: budget")
    team.write_text(TEAM)
    change(platform, "[defaults.training]", "[limits.budget]\nper_month = 50\n[defaults.training]")
    (fault,) = faults(project)
    assert fault.startswith("teams/platform.toml:9: limits.budget: needs the table [prices]")


def test_judges_and_models_have_prices_by_their_names(project: Path) -> None:
    judge = "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/abc123def456"
    file = project / "teams/platform.toml"
    file.write_text(PLATFORM + f'[prices.models."{judge}"]\ninput_per_million_tokens = 0.3\n')
    prices = load_platform(project).prices
    assert prices is not None
    assert prices.models[judge].input_per_million_tokens == 0.3


def test_the_region_of_the_credentials_is_checked_when_it_is_known(project: Path) -> None:
    platform = load_platform(project)
    platform.check_region("amazon.nova-2-lite-v1:0:256k", "us-east-1")
    with pytest.raises(SettingsError) as error:
        platform.check_region("amazon.nova-2-lite-v1:0:256k", "eu-west-1")
    assert str(error.value) == (
        "teams/platform.toml: region eu-west-1: amazon.nova-2-lite-v1:0:256k is tuned in us-east-1 only"
    )


def test_training_settings_are_the_services_by_name_type_and_range() -> None:
    model = botocore.session.get_session().get_service_model("bedrock")
    config = model.operation_model("CreateModelCustomizationJob").input_shape.members["customizationConfig"]
    service = config.members["rftConfig"].members["hyperParameters"].members
    ours = schemas()["teams/team.schema.json"]["$defs"]["Training"]["properties"]
    assert dict(zip(Training().request(), ours, strict=True)).keys() == service.keys()
    types = {"integer": "integer", "number": "float", "string": "string"}
    for name, described in zip(Training().request(), ours.values(), strict=True):
        shape = service[name]
        assert types[described["type"]] == shape.type_name, name
        assert described.get("enum", []) == list(getattr(shape, "enum", [])), name
        if "max" in shape.metadata:
            assert (described["minimum"], described["maximum"]) == (
                shape.metadata["min"],
                shape.metadata["max"],
            ), name
    assert {type(value) for value in Training().request().values()} == {int, float, str}


def test_the_reward_document_is_the_reward_table_with_defaults(project: Path) -> None:
    (team,) = load_teams(project)
    document = team.reward.document()
    assert document == {
        "range": [-1.0, 1.0],
        "timeout_seconds": 30,
        "memory_mb": 512,
        "log_sampling_rate": 0.01,
        "log_completions": False,
        "seconds_per_sample": 2.0,
        "completion_limit": 400_000,
        "components": {
            "answer": {"function": "numeric_answer", "weight": 1.0},
            "format": {"function": "numeric_answer", "weight": 0.5, "gate": {"below": 0.5, "cap": 0.1}},
        },
    }
    assert json.loads(json.dumps(document)) == document


def test_settings_do_not_change(project: Path) -> None:
    (team,) = load_teams(project)
    with pytest.raises(ValidationError):
        team.training.epoch_count = 50  # type: ignore[misc] # that it is read-only is what is tested


def test_the_sample_teams_are_two_kinds_in_two_stages() -> None:
    teams = load_teams(ROOT, ["quotes", "support"])
    assert [team.name for team in teams] == ["quotes", "support"]
    for team in teams:
        assert {name: stage.retention for name, stage in team.stages.items()} == {
            "dev": "throwaway",
            "prod": "lasting",
        }
        assert team.stages["dev"].train_when == "manual"
    functions = [{each.function for each in team.reward.components.values()} for team in teams]
    assert functions[0].isdisjoint(functions[1])


@pytest.mark.parametrize("path", schemas())
def test_committed_schemas_are_current(path: str) -> None:
    committed = (ROOT / path).read_text()
    assert committed == json.dumps(schemas()[path], indent=2) + "\n", "run `rft schema`"


def test_schemas_and_settings_agree(project: Path) -> None:
    team = jsonschema_rs.validator_for(schemas()["teams/team.schema.json"])
    platform = jsonschema_rs.validator_for(schemas()["teams/platform.schema.json"])
    for file in [*ROOT.glob("teams/*/team.toml"), project / "teams/alpha/team.toml"]:
        assert team.is_valid(tomllib.loads(file.read_text())), file
    # Dates are the one type of TOML that JSON lacks; editors see them as text.
    written = json.dumps(tomllib.loads((ROOT / "teams/platform.toml").read_text()), default=str)
    assert platform.is_valid(json.loads(written))


# What a schema can know: everything but the platform's rules, files on disk and how keys go together.
SEEN_BY_EDITORS = (
    "number out of range", "number with only one bound", "text for a number", "fraction for a whole number",
    "none of the words", "misspelled key", "unknown table", "missing key", "missing key in a table",
    "not an address", "account without quotes", "stage name", "no stage", "tag AWS refuses", "range of one",
    "unknown reward function", "name of a component", "key inside an inline table", "key that is no key",
)  # fmt: skip


@pytest.mark.parametrize("mistake", SEEN_BY_EDITORS)
def test_editors_see_the_mistake_too(mistake: str) -> None:
    old, new, _ = MISTAKES[mistake]
    validator = jsonschema_rs.validator_for(schemas()["teams/team.schema.json"])
    assert validator.is_valid(tomllib.loads(TEAM))
    assert not validator.is_valid(tomllib.loads(TEAM.replace(old, new)))


@pytest.mark.parametrize("mistake", ["unknown", "none of the words", "wrong type", "wrong type in a list"])
def test_editors_see_the_parameters_too(mistake: str) -> None:
    function = '[reward.components.answer]\nfunction = "numeric_answer"'
    document = tomllib.loads(TEAM.replace(function, f"{function}\n{PARAMETERS[mistake][0]}"))
    assert not jsonschema_rs.validator_for(schemas()["teams/team.schema.json"]).is_valid(document)


def test_the_example_in_the_documentation_is_valid(project: Path) -> None:
    text = (ROOT / "docs/teams.md").read_text()
    examples = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    team, platform = (next(each for each in examples if mark in each) for mark in ("[stages.", "[limits."))
    (project / "teams/alpha/team.toml").write_text(team)
    (project / "teams/alpha/reward.py").write_text("def score(sample):\n    return 1\n")
    (project / "teams/platform.toml").write_text(platform)
    (loaded,) = load_teams(project)
    assert loaded.network is not None
    assert loaded.encryption is not None
    described = set(re.findall(r"^\| `(\w+)`", text, flags=re.MULTILINE))
    assert {*Training.model_fields, *MeasurementLimits.model_fields, *Platform.model_fields} <= described
