"""From a model back to the rows it was trained on, and from rows to every model that was trained on them.

Every run left a manifest in the artifact bucket of its stage (see lambdas/workflow/report.py); this finds the
ones that are asked for, wherever they are.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final

from botocore.exceptions import ClientError

from lambdas import dataset
from rft.cloud import CloudError, Deployed

_READERS: Final = 12
_CHUNK: Final = 1 << 20
_RUN: Final = re.compile(r"run-[0-9a-f]{16}")
_ARN: Final = re.compile(
    r"arn:aws[a-z-]*:bedrock:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12})"
    r":(?P<kind>custom-model|custom-model-deployment|model-customization-job)/.+"
)
_SHA256: Final = re.compile(r"[0-9a-f]{8,64}")
# Where a manifest names what an ARN of each kind is.
_NAMED_IN: Final = {
    "custom-model": ("models", "custom_model_arn"),
    "custom-model-deployment": ("models", "champion_deployment_arn"),
    "model-customization-job": ("job", "jobArn"),
}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One file of a dataset as the run read it, and where the team had it from.

    A file called "filtered" is what was trained on: the training file without what a filter left out.
    """

    name: str
    uri: str
    rows: int | None
    sha256: str | None
    source: str | None


@dataclass(frozen=True, kw_only=True)
class Trace:
    """How a model came about; what a run did not get to is None."""

    stack: str
    run: str
    outcome: str
    sentence: str
    model: str | None
    base_model: str | None
    job: str | None
    deployment: str | None
    reward_version: str | None
    reward_sha256: str | None
    settings: Mapping[str, Any]
    dataset_sha256: str | None
    rows: Sequence[Rows]
    verified: bool | None
    """Whether the rows that are kept still have the hash of the dataset; None where nobody has looked."""
    revision: str | None
    template_sha256: str | None
    approver: str | None
    manifest: str
    locked_until: str | None

    def document(self) -> dict[str, Any]:
        """Returns it as JSON."""
        return asdict(self)


def of(what: str, environments: Sequence[Deployed], *, verify: bool = False) -> list[Trace]:
    """Returns how a model, a deployment, a customization job or a run came about.

    what: their ARN, or the name of the run.
    verify: also read the rows and hold them against their hash.

    Raises:
        CloudError: It is nothing of the kind.
    """
    if _RUN.fullmatch(what):
        found = _manifests(environments, lambda _: True, run=what)
    elif match := _ARN.fullmatch(what):
        found = _of_arn(what, match, environments)
    else:
        raise CloudError(
            f"{what}: expected the ARN of a custom model, of a deployment or of a customization job, or the"
            " name of a run (run-0123456789abcdef)"
        )
    return [_trace(deployed, manifest, verify=verify) for deployed, manifest in found]


def of_dataset(sha256: str, environments: Sequence[Deployed]) -> list[Trace]:
    """Returns every run that was trained on this dataset, or on this one file of it.

    sha256: the hash of the dataset or of one of its files, or how it begins.

    Raises:
        CloudError: It is no hash.
    """
    if not _SHA256.fullmatch(sha256):
        raise CloudError(
            f"--dataset {sha256}: expected a SHA-256 in hexadecimal, 8 characters of it at least"
        )

    def trained_on(manifest: Mapping[str, Any]) -> bool:
        found = manifest["lineage"]["dataset"]
        names = (*dataset.FILES, "filtered")
        hashes = [found.get("sha256"), *((found.get(name) or {}).get("sha256") for name in names)]
        return any(each and each.startswith(sha256) for each in hashes)

    return [_trace(*found, verify=False) for found in _manifests(environments, trained_on)]


def _of_arn(
    arn: str, match: re.Match[str], environments: Sequence[Deployed]
) -> list[tuple[Deployed, dict[str, Any]]]:
    """Asks Bedrock for the name, which says whose it is; reads all manifests where it is deleted."""
    near = [
        each for each in environments if (each.account, each.region) == (match["account"], match["region"])
    ]
    kind = match["kind"]
    if near and kind == "custom-model-deployment" and (model := _model_behind(near[0], arn)):
        arn, kind = model, "custom-model"
    if near and kind == "custom-model" and (name := _name_of(near[0], arn)):
        for each in near:
            run = name.removeprefix(f"{each.stack}-")
            if _RUN.fullmatch(run):
                return _manifests([each], lambda _: True, run=run)
    part, key = _NAMED_IN[kind]
    return _manifests(near, lambda manifest: manifest["lineage"][part].get(key) == arn)


def _model_behind(deployed: Deployed, arn: str) -> str | None:
    bedrock = deployed.cloud.client("bedrock")
    try:
        return str(bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=arn)["modelArn"])
    except bedrock.exceptions.ResourceNotFoundException:
        return None


def _name_of(deployed: Deployed, arn: str) -> str | None:
    bedrock = deployed.cloud.client("bedrock")
    try:
        return str(bedrock.get_custom_model(modelIdentifier=arn)["modelName"])
    except bedrock.exceptions.ResourceNotFoundException:
        return None


def _manifests(
    environments: Sequence[Deployed], wanted: Callable[[Mapping[str, Any]], bool], run: str | None = None
) -> list[tuple[Deployed, dict[str, Any]]]:
    """Returns the wanted manifests with whose they are, of all runs or of the one of that name."""
    with ThreadPoolExecutor(_READERS) as readers:
        names = readers.map(lambda each: [f"runs/{run}/"] if run else each.keys("runs/", "/"), environments)
        places = [(each, key) for each, keys in zip(environments, names, strict=True) for key in keys]
        bodies = readers.map(lambda place: place[0].artifact(f"{place[1]}manifest.json"), places)
        read = [
            (each, json.loads(body))
            for (each, _), body in zip(places, bodies, strict=True)
            if body is not None
        ]
    # Manifests of an earlier shape are none that can be read.
    return [(each, found) for each, found in read if found.get("schema") == 1 and wanted(found)]


def _trace(deployed: Deployed, manifest: Mapping[str, Any], *, verify: bool) -> Trace:
    lineage = manifest["lineage"]
    models, data, stack = lineage["models"], lineage["dataset"], lineage["deployment"]
    sha256 = data.get("sha256")
    folder = f"datasets/{sha256}"
    bucket = deployed.outputs["DatasetBucket"]
    rows = [
        Rows(
            name=name,
            uri=f"s3://{bucket}/{folder}/{name}.jsonl",
            rows=(data.get(name) or {}).get("rows"),
            sha256=(data.get(name) or {}).get("sha256"),
            source=(data.get("source") or {}).get(name),
        )
        for name in (_files(data) if sha256 else ())
    ]
    filtered = data.get("filtered") or {}
    if filtered.get("uri"):
        rows.append(
            Rows(
                name="filtered",
                uri=filtered["uri"],
                rows=filtered["kept"],
                sha256=filtered["sha256"],
                source=rows[0].uri,
            )
        )
    return Trace(
        stack=manifest["environment"],
        run=manifest["run"],
        outcome=manifest["outcome"],
        sentence=manifest["sentence"],
        model=models["custom_model_arn"],
        base_model=models["base_model"],
        job=lineage["job"].get("jobArn"),
        deployment=models["champion_deployment_arn"],
        reward_version=models["reward_version"],
        reward_sha256=models["reward_sha256"],
        settings=lineage["settings"],
        dataset_sha256=sha256,
        rows=rows,
        verified=_fits(deployed, folder, data) if verify and sha256 else None,
        revision=stack.get("revision"),
        template_sha256=stack.get("template_sha256"),
        approver=manifest["approver"],
        manifest=f"s3://{deployed.outputs['ArtifactBucket']}/runs/{manifest['run']}/manifest.json",
        locked_until=manifest["locked_until"],
    )


def _files(data: Mapping[str, Any]) -> list[str]:
    """Returns the names of a dataset's files; regression prompts are optional."""
    return [name for name in dataset.FILES if name != "regression" or name in data]


def _fits(deployed: Deployed, folder: str, data: Mapping[str, Any]) -> bool:
    """Says whether the rows that are kept still have the hashes that the manifest names them by."""
    s3, bucket = deployed.cloud.client("s3"), deployed.outputs["DatasetBucket"]
    places = [(bucket, f"{folder}/{name}.jsonl") for name in _files(data)]
    filtered = data.get("filtered") or {}
    if filtered.get("uri"):
        kept, _, key = filtered["uri"].removeprefix("s3://").partition("/")
        places.append((kept, key))
    try:
        hashes = [
            _hash(s3.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(_CHUNK)) for bucket, key in places
        ]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchKey":
            raise
        return False
    trained = [hashes.pop()] if filtered.get("uri") else []
    return dataset.identity(*hashes) == data["sha256"] and trained in ([], [filtered.get("sha256")])


def _hash(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
