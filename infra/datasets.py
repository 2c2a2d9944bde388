"""Where a team's rows come from, where they are kept, and where everything a run makes is kept.

Logical ids here are a public contract (tests/infra/test_contract.py): a renamed bucket is a new, empty one.
Buckets of throw-away stages are deleted with their stack but not emptied by it: a function that may delete
every version of every object is not worth having in every environment. `rft retire` empties them first.
"""

from collections.abc import Sequence
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from infra.config import CASES, Dataset, Stage
from infra.encryption import TeamKey
from infra.permissions import Permission, accept, allow

_DAYS_OLD_VERSIONS_ARE_KEPT = 90
_DAYS_THROWAWAY_RUNS_ARE_KEPT = 30
_DAYS_ACCESS_LOGS_ARE_KEPT = 365


class AccessLogs(Construct):
    """The bucket that records who touched the other two."""

    def __init__(self, scope: Construct, construct_id: str, *, lasting: bool) -> None:
        super().__init__(scope, construct_id)
        self.bucket = s3.Bucket(
            self,
            "Default",
            # S3 cannot deliver access logs under a KMS key.
            encryption=s3.BucketEncryption.S3_MANAGED,
            lifecycle_rules=[s3.LifecycleRule(expiration=cdk.Duration.days(_DAYS_ACCESS_LOGS_ARE_KEPT))],
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            removal_policy=_removal(lasting=lasting),
        )
        accept(
            self.bucket,
            {"AwsSolutions-S1": "Access logs of the bucket of access logs would log their own delivery."},
        )


class Datasets(Construct):
    """The S3 home of a team's rows.

    `incoming/` is where people upload; the workflow copies what it accepted to `datasets/<sha256>/`.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, key: TeamKey, access_logs: AccessLogs, lasting: bool
    ) -> None:
        super().__init__(scope, construct_id)
        self.bucket = encrypted_bucket(self, key=key, access_logs=access_logs, lasting=lasting)
        self._arn = self.bucket.bucket_arn

    def announce_uploads(self) -> None:
        """Has S3 tell EventBridge of new objects."""
        resource = self.bucket.node.default_child
        assert isinstance(resource, s3.CfnBucket)  # noqa: S101 - narrows the type, the library always makes it one
        # The L2 flag would add a function, a role and a custom resource to set this one property.
        resource.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
            event_bridge_configuration=s3.CfnBucket.EventBridgeConfigurationProperty(
                event_bridge_enabled=True
            )
        )

    def read(self, *keys: str) -> Permission:
        """Lets its holder read the objects below these keys."""
        return self._objects("s3:GetObject", keys)

    def list_objects(self) -> Permission:
        """Lets its holder list the bucket; without it a missing object reads as forbidden."""
        return allow("s3:ListBucket", on=[self._arn])

    def write(self, *keys: str) -> Permission:
        """Lets its holder write the objects below these keys."""
        return self._objects("s3:PutObject", keys)

    def train_from(self) -> tuple[Permission, ...]:
        """Lets a customization job read what the workflow accepted, and nothing that people upload."""
        return self.read("datasets/*"), self.list_objects()

    def _objects(self, action: str, keys: Sequence[str]) -> Permission:
        return allow(
            action,
            on=[f"{self._arn}/{key}" for key in keys],
            because="People name what they upload, and accepted datasets are named by their content.",
        )


class Artifacts(Construct):
    """The S3 home of everything a run makes, below `runs/<run>/`.

    The champion's `history/`, the lock of the environment and the ledger of its costs lie beside.
    A stage that asks for it gets S3 Object Lock: not as a default for every object, most of which are large
    and of passing interest, but for those that `lock` names. Switching it on does not replace the bucket
    (docs/decisions.md); S3 never switches it off again.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, key: TeamKey, access_logs: AccessLogs, stage: Stage
    ) -> None:
        super().__init__(scope, construct_id)
        lasting = stage.retention == "lasting"
        self.bucket = encrypted_bucket(
            self,
            key=key,
            access_logs=access_logs,
            lasting=lasting,
            lifecycle=[]
            if lasting
            else [
                s3.LifecycleRule(
                    id="RunsOfThrowawayStages",
                    prefix="runs/",
                    expiration=cdk.Duration.days(_DAYS_THROWAWAY_RUNS_ARE_KEPT),
                )
            ],
        )
        self._arn = self.bucket.bucket_arn
        self.lock_settings: dict[str, str] = {}
        if stage.object_lock_days:
            self.lock_settings = {
                "LOCK_DAYS": str(stage.object_lock_days),
                "LOCK_MODE": stage.object_lock_mode.upper(),
            }
            resource = self.bucket.node.default_child
            assert isinstance(resource, s3.CfnBucket)  # noqa: S101 - narrows the type, the library always makes it one
            # Both: the one makes a new bucket with it, the other switches it on for a bucket that is there.
            resource.object_lock_enabled = True
            resource.object_lock_configuration = s3.CfnBucket.ObjectLockConfigurationProperty(
                object_lock_enabled="Enabled"
            )

    def lock(self, *names: str) -> list[Permission]:
        """Lets its holder lock these objects of every run, where the stage asks for that."""
        return [self._objects("s3:PutObjectRetention", names)] if self.lock_settings else []

    def read(self, *names: str) -> Permission:
        """Lets its holder read these objects of every run."""
        return self._objects("s3:GetObject", names)

    def write(self, *names: str) -> Permission:
        """Lets its holder write these objects of every run."""
        return self._objects("s3:PutObject", names)

    def read_history(self) -> Permission:
        """Lets its holder read who changed the champion, when and why."""
        return self._history("s3:GetObject")

    def write_history(self) -> Permission:
        """Lets its holder add to the history; the bucket keeps what is written over."""
        return self._history("s3:PutObject")

    def use_lock(self) -> Permission:
        """Lets its holder take and give back the lock of the environment."""
        return allow("s3:GetObject", "s3:PutObject", on=[f"{self._arn}/lock.json"])

    def use_ledger(self) -> Permission:
        """Lets its holder read and write what runs were estimated at."""
        return allow(
            "s3:GetObject",
            "s3:PutObject",
            on=[f"{self._arn}/ledger/*"],
            because="Entries are named by the month and by the run.",
        )

    def list_objects(self) -> Permission:
        """Lets its holder list the bucket; without it a missing object reads as forbidden."""
        return allow("s3:ListBucket", on=[self._arn])

    def train_into(self) -> tuple[Permission, ...]:
        """Lets a customization job write its output and read it back, and read rows that passed a filter."""
        return self.read("output/*", "filtered/*"), self.write("output/*"), self.list_objects()

    def _objects(self, action: str, names: Sequence[str]) -> Permission:
        return allow(
            action,
            on=[f"{self._arn}/runs/*/{name}" for name in names],
            because="A run is named when it starts.",
        )

    def _history(self, action: str) -> Permission:
        return allow(
            action,
            on=[f"{self._arn}/history/*"],
            because="An entry of the history is named by its time.",
        )


class Rows(Construct):
    """The files a run starts from: in the team's folder, from where they travel with the deploy, or in S3.

    `cases` is the URI of the team's own cases for the rehearsal of its reward, if it has any.
    """

    def __init__(self, scope: Construct, construct_id: str, *, dataset: Dataset, folder: Path) -> None:
        super().__init__(scope, construct_id)
        self.uris: dict[str, str] = {}
        self.object_arns: list[str] = []
        for name, location in dataset.files().items():
            if location.startswith("s3://"):
                uri, partition = location, cdk.Stack.of(self).partition
                arn = f"arn:{partition}:s3:::{location.removeprefix('s3://')}"
            else:
                asset = assets.Asset(self, name.capitalize(), path=str(folder / location))
                uri = asset.s3_object_url
                arn = asset.bucket.arn_for_objects(asset.s3_object_key)
            self.uris[name] = uri
            self.object_arns.append(arn)
        self.cases: str | None = None
        self.case_arns: list[str] = []
        if (folder / CASES).is_file():
            asset = assets.Asset(self, "Cases", path=str(folder / CASES))
            self.cases = asset.s3_object_url
            self.case_arns.append(asset.bucket.arn_for_objects(asset.s3_object_key))


def encrypted_bucket(
    scope: Construct,
    *,
    key: TeamKey,
    access_logs: AccessLogs,
    lasting: bool,
    lifecycle: Sequence[s3.LifecycleRule] = (),
) -> s3.Bucket:
    """Makes the bucket that is its scope: versioned, under the key, TLS only, and with a record of access."""
    return s3.Bucket(
        scope,
        "Default",
        versioned=True,
        encryption=s3.BucketEncryption.KMS,
        encryption_key=key.key,
        bucket_key_enabled=True,
        block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
        object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
        enforce_ssl=True,
        minimum_tls_version=1.2,
        server_access_logs_bucket=access_logs.bucket,
        server_access_logs_prefix=f"{scope.node.id.lower()}/",
        lifecycle_rules=[
            s3.LifecycleRule(
                id="OldVersions",
                noncurrent_version_expiration=cdk.Duration.days(_DAYS_OLD_VERSIONS_ARE_KEPT),
                abort_incomplete_multipart_upload_after=cdk.Duration.days(7),
            ),
            *lifecycle,
        ],
        removal_policy=_removal(lasting=lasting),
    )


def _removal(*, lasting: bool) -> cdk.RemovalPolicy:
    return cdk.RemovalPolicy.RETAIN if lasting else cdk.RemovalPolicy.DESTROY
