"""What others rely on: ids, names, outputs, what outlives a stack, what starts a run."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from infra.config import TripwireGate, load_teams
from tests.infra.conftest import ACCOUNT, KEY_ARN, REGION, REPOSITORY, Assembly, synthesize

# Renaming one of these makes CloudFormation delete the old resource and all it holds.
STATEFUL = {
    "Key961B73FD": "AWS::KMS::Key",
    "AccessLogs8B620ECA": "AWS::S3::Bucket",
    "Datasets0030EE04": "AWS::S3::Bucket",
    "Artifacts82DD59A1": "AWS::S3::Bucket",
    "ChampionDeploymentBF727125": "AWS::SSM::Parameter",
    "RewardFunctionLogGroup5DBE7E5F": "AWS::Logs::LogGroup",
    "TrainingStateMachineLogGroup7448D6CE": "AWS::Logs::LogGroup",
    # Runs are known by the ARN of their state machine, jobs by that of their role.
    "TrainingStateMachineEAE34FB3": "AWS::StepFunctions::StateMachine",
    "Customization1AAFC5FD": "AWS::IAM::Role",
    # People subscribe to it.
    "NotificationsTopicAE679CBD": "AWS::SNS::Topic",
}

OUTPUTS = {
    "DatasetBucket",
    "ArtifactBucket",
    "Workflow",
    "Start",
    "RewardVersion",
    "RewardLogGroup",
    "Champion",
    "ChangeChampion",
    "Topic",
}

# The properties by which a resource gets a name of ours instead of one that CloudFormation makes up.
NAMES = re.compile(
    r"^(Bucket|Function|Role|Policy|ManagedPolicy|Topic|Rule|StateMachine|LogGroup|Alias)?Name$"
)


def resources(template: dict[str, Any], *types: str) -> dict[str, dict[str, Any]]:
    found = {name: each for name, each in template["Resources"].items() if each["Type"] in types}
    assert found, f"no {types} in the template"
    return found


def every_stack(assembly: Assembly) -> list[str]:
    assert len(assembly.stacks) >= 18
    return assembly.stacks


def test_ids_of_what_holds_state_never_change(assembly: Assembly) -> None:
    for stack in every_stack(assembly):
        template = assembly.template(stack)["Resources"]
        expected = dict(STATEFUL)
        if stack.startswith("rft-walled-"):
            del expected["Key961B73FD"]
        assert {name: template[name]["Type"] for name in expected if name in template} == expected, stack


def test_every_bucket_key_parameter_and_log_group_outlives_a_lasting_stack_only(assembly: Assembly) -> None:
    kinds = ("AWS::KMS::Key", "AWS::S3::Bucket", "AWS::SSM::Parameter", "AWS::Logs::LogGroup")
    for stack in every_stack(assembly):
        policy = "Retain" if stack.endswith("-prod") else "Delete"
        for name, each in resources(assembly.template(stack), *kinds).items():
            assert (each.get("DeletionPolicy"), each.get("UpdateReplacePolicy")) == (policy, policy), name


def test_only_lasting_stacks_refuse_to_be_deleted(assembly: Assembly) -> None:
    protected = {stack for stack in assembly.stacks if assembly.stack(stack).get("terminationProtection")}
    assert protected == {stack for stack in assembly.stacks if stack.endswith("-prod")}


def test_runs_expire_on_throwaway_stages_only(assembly: Assembly) -> None:
    def prefixes(stack: str) -> list[Any]:
        rules = assembly.template(stack)["Resources"]["Artifacts82DD59A1"]["Properties"][
            "LifecycleConfiguration"
        ]
        return [rule["Prefix"] for rule in rules["Rules"] if "ExpirationInDays" in rule]

    assert prefixes("rft-quotes-dev") == ["runs/"]
    assert prefixes("rft-quotes-prod") == []


def test_old_versions_of_the_reward_function_stay(assembly: Assembly) -> None:
    for stack in every_stack(assembly):
        (version,) = resources(assembly.template(stack), "AWS::Lambda::Version").values()
        assert (version["DeletionPolicy"], version["UpdateReplacePolicy"]) == ("Retain", "Retain")


def test_equal_teams_get_the_same_bytes(assembly: Assembly) -> None:
    for stage in ("dev", "prod"):
        assert assembly.text(f"rft-quotes-{stage}") == assembly.text(f"rft-twins-{stage}")
    tags = assembly.stack("rft-twins-dev")["tags"]
    assert (tags["team"], tags["stage"], tags["owner"], tags["cost-center"]) == (
        "twins",
        "dev",
        "twins@example.com",
        "twins",
    )


def test_templates_know_neither_team_nor_stage(assembly: Assembly) -> None:
    for stack in every_stack(assembly):
        _, team, stage = stack.split("-")
        text = assembly.text(stack)
        # The team "remote" names its bucket in its settings, which are in the template.
        if team != "remote":
            assert team not in text
        assert f"-{stage}" not in text


def test_two_syntheses_write_the_same(
    assembly: Assembly, projects: list[Path], packages: Path, tmp_path: Path
) -> None:
    def digests(folder: Path) -> dict[str, str]:
        # What is written for people to look at names the folder; what is deployed must not differ.
        files = [*folder.glob("*.template.json"), *folder.glob("*.assets.json")]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    again = synthesize(projects, packages, tmp_path)
    assert digests(assembly.folder) == digests(again.folder)
    assert len(digests(assembly.folder)) == 2 * len(assembly.stacks)


def test_outputs_are_these(assembly: Assembly) -> None:
    for stack in every_stack(assembly):
        assert assembly.template(stack)["Outputs"].keys() == OUTPUTS


def test_nothing_but_the_log_group_of_the_workflow_has_a_name_of_ours(assembly: Assembly) -> None:
    for stack in every_stack(assembly):
        named = {
            (name, key)
            for name, each in assembly.template(stack)["Resources"].items()
            for key in each.get("Properties", {})
            if NAMES.match(key)
            # These name another resource, or, for an inline policy, nothing outside its role.
            and (each["Type"], key)
            not in {
                ("AWS::Lambda::Version", "FunctionName"),
                ("AWS::Lambda::Permission", "FunctionName"),
                ("AWS::Lambda::EventInvokeConfig", "FunctionName"),
                ("AWS::IAM::Policy", "PolicyName"),
            }
        }
        # See the comment beside it in infra/training.py.
        assert named == {("TrainingStateMachineLogGroup7448D6CE", "LogGroupName")}


def test_no_function_and_no_custom_resource_but_ours(assembly: Assembly, projects: list[Path]) -> None:
    deploying = {
        team.stack_id(name)
        for project in projects
        for team in load_teams(project)
        for name, stage in team.stages.items()
        if stage.train_when == "on-deploy"
    }
    assert len(deploying) >= 2
    for stack in every_stack(assembly):
        template = assembly.template(stack)
        for each in resources(template, "AWS::Lambda::Function").values():
            properties = each["Properties"]
            assert properties["Runtime"] == "python3.14"
            assert properties["Architectures"] == ["arm64"]
            assert "ReservedConcurrentExecutions" not in properties
            assert properties["Environment"]["Variables"]["STACK"] == {"Ref": "AWS::StackName"}
        custom = [
            each["Type"] for each in template["Resources"].values() if each["Type"].startswith("Custom::")
        ]
        assert custom == (["Custom::TrainingRun"] if stack in deploying else [])


def test_reward_settings_reach_the_function(assembly: Assembly) -> None:
    def limits(stack: str) -> tuple[int, int]:
        reward = assembly.template(stack)["Resources"]["RewardFunction1B502C03"]["Properties"]
        return reward["Timeout"], reward["MemorySize"]

    assert limits("rft-quotes-dev") == (60, 512)
    assert limits("rft-patient-dev") == (120, 1024)


def test_buckets_are_closed_encrypted_and_watched(assembly: Assembly) -> None:
    for stack in every_stack(assembly):
        template = assembly.template(stack)
        key = KEY_ARN if stack.startswith("rft-walled-") else {"Fn::GetAtt": ["Key961B73FD", "Arn"]}
        for name, bucket in resources(template, "AWS::S3::Bucket").items():
            properties = bucket["Properties"]
            assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
            assert properties["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
            assert properties["LifecycleConfiguration"]["Rules"]
            (encryption,) = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
            if name == "AccessLogs8B620ECA":
                assert encryption["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
            else:
                assert encryption == {
                    "BucketKeyEnabled": True,
                    "ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key},
                }
                assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
                assert properties["LoggingConfiguration"]["DestinationBucketName"] == {
                    "Ref": "AccessLogs8B620ECA"
                }
            (policy,) = (
                each["Properties"]["PolicyDocument"]["Statement"]
                for each in resources(template, "AWS::S3::BucketPolicy").values()
                if each["Properties"]["Bucket"] == {"Ref": name}
            )
            denied = [statement["Condition"] for statement in policy if statement["Effect"] == "Deny"]
            assert {"Bool": {"aws:SecureTransport": "false"}} in denied
            assert {"NumericLessThan": {"s3:TlsVersion": 1.2}} in denied


ALARMS_OF_THE_STACK = {
    "StringEquals": {"aws:SourceAccount": ACCOUNT},
    "ArnLike": {
        "aws:SourceArn": {
            "Fn::Join": [
                "",
                [f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:", {"Ref": "AWS::StackName"}, "-*"],
            ]
        }
    },
}


def test_everything_else_that_keeps_data_is_under_the_same_key(assembly: Assembly) -> None:
    for stack in every_stack(assembly):
        template = assembly.template(stack)
        key = KEY_ARN if stack.startswith("rft-walled-") else {"Fn::GetAtt": ["Key961B73FD", "Arn"]}
        groups = resources(template, "AWS::Logs::LogGroup")
        assert len(groups) == 19
        for group in groups.values():
            assert group["Properties"]["KmsKeyId"] == key
            assert group["Properties"]["RetentionInDays"] == (365 if stack.endswith("-prod") else 30)
        (topic,) = resources(template, "AWS::SNS::Topic").values()
        assert topic["Properties"]["KmsMasterKeyId"] == key
        (policy,) = resources(template, "AWS::SNS::TopicPolicy").values()
        transport, alarms, *budgets = policy["Properties"]["PolicyDocument"]["Statement"]
        assert bool(budgets) is ("-thrifty-" in stack or "-sparing-" in stack)
        assert alarms["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
        assert (alarms["Effect"], alarms["Action"]) == ("Allow", "sns:Publish")
        assert alarms["Condition"] == ALARMS_OF_THE_STACK
        assert (transport["Effect"], transport["Condition"]) == (
            "Deny",
            {"Bool": {"aws:SecureTransport": "false"}},
        )


def test_key_rotates_and_serves_the_logs_and_alarms_of_this_stack_only(assembly: Assembly) -> None:
    key = assembly.template("rft-quotes-dev")["Resources"]["Key961B73FD"]["Properties"]
    assert key["EnableKeyRotation"] is True
    account, logs, alarms = key["KeyPolicy"]["Statement"]
    assert account["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    assert logs["Principal"] == {"Service": f"logs.{REGION}.amazonaws.com"}
    groups = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:"
    assert logs["Condition"] == {
        "ArnLike": {
            "kms:EncryptionContext:aws:logs:arn": [
                {"Fn::Join": ["", [f"{groups}{prefix}", {"Ref": "AWS::StackName"}, "-*"]]}
                for prefix in ("", "/aws/vendedlogs/states/")
            ]
        }
    }
    assert alarms["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert alarms["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert alarms["Condition"] == ALARMS_OF_THE_STACK
    # CloudFormation begins the names of log groups with the stack's; ours has to do the same.
    group = assembly.template("rft-quotes-dev")["Resources"]["TrainingStateMachineLogGroup7448D6CE"]
    assert group["Properties"]["LogGroupName"]["Fn::Join"][1][:3] == [
        "/aws/vendedlogs/states/",
        {"Ref": "AWS::StackName"},
        "-",
    ]


def test_a_team_that_brings_its_key_gets_none(assembly: Assembly) -> None:
    template = assembly.template("rft-walled-dev")
    assert "AWS::KMS::Key" not in {each["Type"] for each in template["Resources"].values()}
    train = template["Resources"]["StepsTrain3AE25CBF"]["Properties"]["Environment"]["Variables"]
    assert train["MODEL_KEY"] == KEY_ARN


def test_network_reaches_the_function_that_submits_the_job(assembly: Assembly) -> None:
    def variables(stack: str) -> dict[str, Any]:
        train = assembly.template(stack)["Resources"]["StepsTrain3AE25CBF"]["Properties"]
        found: dict[str, Any] = train["Environment"]["Variables"]
        return found

    assert json.loads(variables("rft-walled-dev")["VPC_CONFIG"]) == {
        "subnetIds": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
        "securityGroupIds": ["sg-0123456789abcdef0"],
    }
    assert "VPC_CONFIG" not in variables("rft-quotes-dev")


def test_a_monthly_budget_is_watched_by_the_tag_of_the_environment(assembly: Assembly) -> None:
    template = assembly.template("rft-thrifty-dev")
    assert assembly.text("rft-thrifty-dev") == assembly.text("rft-sparing-dev")
    assert assembly.stack("rft-thrifty-dev")["tags"]["rft:environment"] == "rft-thrifty-dev"
    (budget,) = resources(template, "AWS::Budgets::Budget").values()
    properties = budget["Properties"]
    assert properties["Budget"] == {
        "BudgetType": "COST",
        "TimeUnit": "MONTHLY",
        "BudgetLimit": {"Amount": 200, "Unit": "USD"},
        "CostFilters": {
            "TagKeyValue": [{"Fn::Join": ["", ["user:rft:environment$", {"Ref": "AWS::StackName"}]]}]
        },
    }
    alerts = [
        (each["Notification"]["NotificationType"], each["Notification"]["Threshold"], each["Subscribers"])
        for each in properties["NotificationsWithSubscribers"]
    ]
    topic = [{"SubscriptionType": "SNS", "Address": {"Ref": "NotificationsTopicAE679CBD"}}]
    assert alerts == [("ACTUAL", 80, topic), ("ACTUAL", 100, topic), ("FORECASTED", 100, topic)]
    ours = {
        "StringEquals": {"aws:SourceAccount": ACCOUNT},
        "ArnLike": {"aws:SourceArn": f"arn:aws:budgets::{ACCOUNT}:*"},
    }
    (policy,) = resources(template, "AWS::SNS::TopicPolicy").values()
    key = template["Resources"]["Key961B73FD"]["Properties"]["KeyPolicy"]
    for document in (policy["Properties"]["PolicyDocument"], key):
        (statement,) = (
            each
            for each in document["Statement"]
            if each["Principal"] == {"Service": "budgets.amazonaws.com"}
        )
        assert statement["Condition"] == ours
    # It is there before AWS Budgets tries the topic.
    assert set(resources(template, "AWS::SNS::TopicPolicy")) <= set(budget["DependsOn"])
    assert "AWS::Budgets::Budget" not in assembly.text("rft-quotes-dev")


def test_cost_gate_knows_prices_reward_and_budget(assembly: Assembly) -> None:
    def costs(stack: str) -> Any:
        function = assembly.template(stack)["Resources"]["StepsEstimate8E8E9D82"]["Properties"]
        return json.loads(function["Environment"]["Variables"]["COSTS"])

    assert costs("rft-thrifty-dev") == {
        "prices": {
            "date": "2026-11-23",
            "currency": "USD",
            "lambda_gb_second": 0.0000133334,
            "models": {},
        },
        "reward": {"memory_mb": 512, "seconds_per_sample": 2.0, "judges": {}},
        "budget": {"per_run": 50.0, "per_month": 200.0},
    }
    assert costs("rft-quotes-dev")["budget"] == {}


def test_champion_begins_as_none(assembly: Assembly) -> None:
    for stack in every_stack(assembly):
        (parameter,) = resources(assembly.template(stack), "AWS::SSM::Parameter").values()
        assert parameter["Properties"]["Value"] == "none"


def test_dataset_files_travel_by_their_content(assembly: Assembly, projects: list[Path]) -> None:
    settings = settings_of_start(assembly.template("rft-quotes-dev"))
    for name, uri in settings["source"].items():
        content = (projects[0] / "teams" / "quotes" / "data" / f"{name}.jsonl").read_bytes()
        (asset,) = (path for path in assembly.folder.glob("asset.*.jsonl") if path.read_bytes() == content)
        key = asset.name.removeprefix("asset.")
        assert uri == f"s3://cdk-hnb659fds-assets-{ACCOUNT}-{REGION}/{key}"


def test_settings_of_a_run_are_those_of_the_team(assembly: Assembly) -> None:
    settings = settings_of_start(assembly.template("rft-remote-dev"))
    assert settings == {
        "source": {
            "train": "s3://rows-elsewhere/quotes/train.jsonl",
            "evaluation": "s3://rows-elsewhere/quotes/evaluation.jsonl",
        },
        "base_model": "amazon.nova-2-lite-v1:0:256k",
        "reward_version": "<RewardVersion>",
        "training": {
            "epochCount": 6,
            "batchSize": 32,
            "learningRate": 1e-4,
            "trainingSamplePerPrompt": 8,
            "maxPromptLength": 2048,
            "inferenceMaxTokens": 1024,
            "reasoningEffort": "low",
            "evalInterval": 10,
        },
        "measurement": {"prompts": 100, "samples_per_prompt": 4, "temperature": 0.7, "concurrency": 10},
        "promotion": {"minimum_gain": 0.0, "confidence": 0.95, "guards": [], "tolerated_drop": 0.0},
        "gates": {
            "dataset": {
                "near_duplicates": True,
                "near_duplicate_similarity": 0.8,
                "near_duplicate_share": 0.02,
                "most_common_answer": 0.5,
                "personal_data": True,
            },
            "rehearsal": {
                "rows": 200,
                "max_hackability": 0.5,
                "min_reference_share": 1,
                "max_latency_share": 0.5,
                "range": [0.0, 1.0],
                "timeout_seconds": 60,
                "functions": ["numeric_answer"],
                "names": [],
                "sections": [],
            },
            "tripwires": {**TripwireGate().model_dump(exclude_none=True), "range": [0.0, 1.0]},
            "signal": {
                "prompts": 50,
                "passing": 0.5,
                "failing": [0.1, 0.7],
                "needless": 0.95,
                "sparse": 0.05,
                "flat": 0.9,
                "range": [0.0, 1.0],
            },
            "filter": {"max_dropped": 0.5, "range": [0.0, 1.0]},
            "cost": {"growth": 3.0},
        },
        "limits": {"epochCount": 12, "trainingSamplePerPrompt": 16, "inferenceMaxTokens": 8192},
    }


def settings_of_start(template: dict[str, Any]) -> dict[str, Any]:
    start = template["Resources"]["RunStarterFunctionAD9141CF"]["Properties"]
    return parsed(start["Environment"]["Variables"]["SETTINGS"])


def parsed(joined: dict[str, Any]) -> dict[str, Any]:
    """JSON that CloudFormation joins from parts; the reference in it is that to the reward version."""
    text = "".join(part if isinstance(part, str) else "<RewardVersion>" for part in joined["Fn::Join"][1])
    document: dict[str, Any] = json.loads(text)
    return document


# What starts a run


def test_a_deploy_starts_a_run_for_exactly_what_a_run_is_named_by(assembly: Assembly) -> None:
    template = assembly.template("rft-deploying-dev")
    (run,) = resources(template, "Custom::TrainingRun").values()
    assert run["Properties"].keys() == {"ServiceToken", "ServiceTimeout", "Settings"}
    assert run["Properties"]["ServiceToken"] == {"Fn::GetAtt": ["RunStarterFunctionAD9141CF", "Arn"]}
    assert int(run["Properties"]["ServiceTimeout"]) <= 600
    settings = settings_of_start(template)
    # What a gate lets pass changes no model, and so it names no run.
    del settings["limits"], settings["gates"]
    assert parsed(run["Properties"]["Settings"]) == settings


def test_a_run_begins_when_all_that_it_uses_is_there(assembly: Assembly) -> None:
    template = assembly.template("rft-deploying-dev")
    (run,) = resources(template, "Custom::TrainingRun").values()
    waits = set(run["DependsOn"])
    for each in list(waits):
        reference = json.dumps(template["Resources"][each])
        waits |= {name for name in template["Resources"] if f'"{name}"' in reference}
    roles_and_policies = resources(template, "AWS::IAM::Role", "AWS::IAM::Policy")
    # What people use to change the champion is no part of a run.
    needed = {name for name in roles_and_policies if not name.startswith("ChampionChanges")}
    assert needed < set(roles_and_policies)
    assert needed <= waits
    assert set(resources(template, "AWS::Lambda::Version", "AWS::StepFunctions::StateMachine")) <= waits


@pytest.mark.parametrize("stack", ["rft-quotes-dev", "rft-deploying-prod"])
def test_uploads_start_nothing_unless_asked_for(assembly: Assembly, stack: str) -> None:
    template = assembly.template(stack)
    assert not upload_rules(template)
    assert "NotificationConfiguration" not in template["Resources"]["Datasets0030EE04"]["Properties"]


def test_an_upload_starts_a_run_by_its_key_alone(assembly: Assembly) -> None:
    template = assembly.template("rft-uploading-dev")
    datasets = template["Resources"]["Datasets0030EE04"]["Properties"]
    assert datasets["NotificationConfiguration"] == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    ((name, rule),) = upload_rules(template).items()
    assert rule["Targets"] == [
        {"Id": "Function", "Arn": {"Fn::GetAtt": ["RunStarterFunctionAD9141CF", "Arn"]}}
    ]
    detail = rule["EventPattern"]["detail"]
    assert detail["bucket"] == {"name": [{"Ref": "Datasets0030EE04"}]}
    (pattern,) = detail["object"]["key"]
    regex = re.compile(
        "".join(".*" if part == "*" else re.escape(part) for part in re.split(r"(\*)", pattern["wildcard"]))
    )

    def starts(key: str) -> bool:
        return regex.fullmatch(key) is not None

    assert starts("incoming/monday/train.jsonl")
    assert not starts("incoming/monday/evaluation.jsonl")
    assert not starts("datasets/0123/train.jsonl")
    assert not starts("runs/run-1/incoming/x/train.jsonl")
    permission = [
        each["Properties"]
        for each in resources(template, "AWS::Lambda::Permission").values()
        if each["Properties"]["FunctionName"] == {"Fn::GetAtt": ["RunStarterFunctionAD9141CF", "Arn"]}
    ]
    assert [each["SourceArn"] for each in permission] == [{"Fn::GetAtt": [name, "Arn"]}]


def upload_rules(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    rules = resources(template, "AWS::Events::Rule")
    return {
        name: each["Properties"]
        for name, each in rules.items()
        if each["Properties"]["EventPattern"]["source"] == ["aws.s3"]
    }


def test_runs_that_end_badly_are_cleaned_up_after(assembly: Assembly) -> None:
    (rule,) = (
        each["Properties"]
        for each in resources(assembly.template("rft-quotes-dev"), "AWS::Events::Rule").values()
        if each["Properties"]["EventPattern"]["source"] == ["aws.states"]
    )
    assert rule["EventPattern"] == {
        "source": ["aws.states"],
        "detail-type": ["Step Functions Execution Status Change"],
        "detail": {
            "stateMachineArn": [{"Ref": "TrainingStateMachineEAE34FB3"}],
            "status": ["ABORTED", "FAILED", "TIMED_OUT"],
        },
    }
    assert rule["Targets"] == [{"Id": "Function", "Arn": {"Fn::GetAtt": ["StepsCleanUp9053C88A", "Arn"]}}]


def test_news_of_jobs_are_those_of_this_environment(assembly: Assembly) -> None:
    template = assembly.template("rft-quotes-dev")
    rule = template["Resources"]["NotificationsJobStateChange3130357B"]["Properties"]
    assert rule["EventPattern"] == {
        "source": ["aws.bedrock"],
        "detail-type": ["Model Customization Job State Change"],
        "detail": {"roleArn": [{"Fn::GetAtt": ["Customization1AAFC5FD", "Arn"]}]},
    }
    (target,) = rule["Targets"]
    assert target["Arn"] == {"Ref": "NotificationsTopicAE679CBD"}
    # Bedrock calls it jobStatus; what does not exist would be filled in as nothing.
    assert set(target["InputTransformer"]["InputPathsMap"].values()) == {
        "$.detail.jobName",
        "$.detail.jobStatus",
    }


def test_events_that_a_function_cannot_handle_are_told(assembly: Assembly) -> None:
    template = assembly.template("rft-quotes-dev")
    configured = {
        each["Properties"]["FunctionName"]["Ref"]: each["Properties"]["DestinationConfig"]["OnFailure"][
            "Destination"
        ]
        for each in resources(template, "AWS::Lambda::EventInvokeConfig").values()
    }
    topic = {"Ref": "NotificationsTopicAE679CBD"}
    assert configured == {"RunStarterFunctionAD9141CF": topic, "StepsCleanUp9053C88A": topic}


def test_alarms_tell_the_topic_and_point_to_a_page(assembly: Assembly) -> None:
    page = (REPOSITORY / "docs" / "operations.md").read_text()
    for stack in every_stack(assembly):
        template = assembly.template(stack)
        topic = {"Ref": "NotificationsTopicAE679CBD"}
        alarms = resources(template, "AWS::CloudWatch::Alarm")
        assert len(alarms) == 5
        for alarm in alarms.values():
            properties = alarm["Properties"]
            assert properties["AlarmActions"] == [topic]
            assert properties["TreatMissingData"] == "notBreaching"
            anchor = properties["AlarmDescription"].rpartition("#")[2]
            assert re.search(rf"(?im)^### {anchor}$", page), f"docs/operations.md says nothing of {anchor}"


def test_a_dashboard_is_there_where_a_stage_asks_for_it(assembly: Assembly) -> None:
    have = {
        stack
        for stack in every_stack(assembly)
        if any(
            each["Type"] == "AWS::CloudWatch::Dashboard"
            for each in assembly.template(stack)["Resources"].values()
        )
    }
    assert have == {"rft-watched-dev", "rft-watched-prod"}
    (board,) = resources(assembly.template("rft-watched-dev"), "AWS::CloudWatch::Dashboard").values()
    body = "".join(
        part if isinstance(part, str) else f"<{part['Ref'] if 'Ref' in part else part['Fn::GetAtt'][0]}>"
        for part in board["Properties"]["DashboardBody"]["Fn::Join"][1]
    )
    shown = json.dumps(json.loads(body))
    for metric in (
        "reward_mean",
        "reward_std",
        "zero_share",
        "unscorable_share",
        "error_share",
        "component_",
    ):
        assert metric in shown
    for metric in ("Duration", "Errors", "Throttles", "ExecutionsFailed"):
        assert metric in shown
