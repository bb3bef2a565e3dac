"""docker/rayjob.yaml against the fields of ray.io/v1 RayJob (KubeRay 1.6) and of the pods in it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parent.parent
JOB = yaml.safe_load((ROOT / "docker" / "rayjob.yaml").read_text())

TEXT, WHOLE, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}  # a map of text to text: a number in it is refused


def fields(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """An object with these fields and no other."""
    return {
        "type": "object", "required": list(required), "properties": properties, "additionalProperties": False,
    }  # fmt: skip


def items(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of, "minItems": 1}


RESOURCES = fields(requests=TEXTS, limits=TEXTS, claims={"type": "array"})
CONTAINER = fields(
    ("name", "image"),
    name=TEXT, image=TEXT, imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    command=items(TEXT), args=items(TEXT), workingDir=TEXT, resources=RESOURCES,
    env=items(fields(("name",), name=TEXT, value=TEXT, valueFrom={"type": "object"})),
    ports=items(fields(("containerPort",), containerPort=WHOLE, name=TEXT, protocol={"enum": ["TCP", "UDP", "SCTP"]})),
    volumeMounts=items(fields(("name", "mountPath"), name=TEXT, mountPath=TEXT, readOnly=FLAG, subPath=TEXT)),
    securityContext={"type": "object"}, livenessProbe={"type": "object"}, readinessProbe={"type": "object"},
)  # fmt: skip
POD = fields(
    ("spec",),
    metadata={"type": "object"},
    spec=fields(
        ("containers",),
        containers=items(CONTAINER), initContainers=items(CONTAINER),
        volumes=items(
            fields(
                ("name",),
                name=TEXT, emptyDir={"type": "object"}, secret={"type": "object"}, configMap={"type": "object"},
                persistentVolumeClaim=fields(("claimName",), claimName=TEXT, readOnly=FLAG),
            )
        ),
        securityContext=fields(
            runAsNonRoot=FLAG, runAsUser=WHOLE, runAsGroup=WHOLE, fsGroup=WHOLE,
            fsGroupChangePolicy={"enum": ["Always", "OnRootMismatch"]}, seccompProfile={"type": "object"},
        ),
        nodeSelector=TEXTS, tolerations={"type": "array"}, affinity={"type": "object"}, serviceAccountName=TEXT,
        imagePullSecrets=items(fields(("name",), name=TEXT)), runtimeClassName=TEXT,
    ),
)  # fmt: skip
CLUSTER = fields(
    ("headGroupSpec",),
    rayVersion=TEXT, enableInTreeAutoscaling=FLAG, autoscalerOptions={"type": "object"}, suspend=FLAG,
    authOptions=fields(mode={"enum": ["disabled", "token"]}, secretName=TEXT, enableK8sTokenAuth=FLAG),
    gcsFaultToleranceOptions={"type": "object"}, headServiceAnnotations=TEXTS,
    headGroupSpec=fields(
        ("template",),
        rayStartParams=TEXTS, serviceType=TEXT, headService={"type": "object"}, enableIngress=FLAG,
        resources=TEXTS, labels=TEXTS, template=POD,
    ),
    workerGroupSpecs=items(
        fields(
            ("groupName", "template"),
            groupName=TEXT, replicas=WHOLE, minReplicas=WHOLE, maxReplicas=WHOLE, numOfHosts=WHOLE,
            idleTimeoutSeconds=WHOLE, suspend=FLAG, scaleStrategy={"type": "object"},
            rayStartParams=TEXTS, resources=TEXTS, labels=TEXTS, template=POD,
        )
    ),
)  # fmt: skip
RAY_JOB = fields(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=fields(("name",), name={"type": "string", "pattern": "^[a-z0-9-]{1,47}$"}, namespace=TEXT,
                    labels=TEXTS, annotations=TEXTS),
    spec=fields(
        ("entrypoint", "rayClusterSpec"),
        entrypoint=TEXT, runtimeEnvYAML=TEXT, jobId=TEXT, metadata=TEXTS, activeDeadlineSeconds=WHOLE,
        backoffLimit=WHOLE, submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        shutdownAfterJobFinishes=FLAG, ttlSecondsAfterFinished=WHOLE, suspend=FLAG, managedBy=TEXT,
        entrypointNumCpus={"type": "number"}, entrypointNumGpus={"type": "number"}, entrypointResources=TEXT,
        clusterSelector=TEXTS, submitterPodTemplate=POD, submitterConfig=fields(backoffLimit=WHOLE),
        deletionStrategy={"type": "object"}, rayClusterSpec=CLUSTER,
    ),
)  # fmt: skip


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_it_has_the_fields_of_a_rayjob_and_no_other() -> None:
    jsonschema.Draft202012Validator.check_schema(RAY_JOB)
    jsonschema.validate(JOB, RAY_JOB)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("apiVersion",), "ray.io/v1alpha1"),
        (("spec", "ttlSecondsAfterFinish"), 600),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "on"),
        (("spec", "rayClusterSpec", "rayVersion"), 2.6),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "replicas"), "4"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "volumeMount"), []),
    ],
    ids=lambda value: str(value[-1]) if isinstance(value, tuple) else "",
)
def test_another_field_or_value_is_refused(path: tuple[Any, ...], value: Any) -> None:
    changed = copy.deepcopy(JOB)
    place = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed, RAY_JOB)


def test_mounts_have_volumes_and_nothing_runs_as_root() -> None:
    for pod in pods(JOB):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] > 0
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_cluster_has_room_for_the_workers_that_the_search_asks_for() -> None:
    words = JOB["spec"]["entrypoint"].split()
    asked = int(words[words.index("--num-workers") + 1])
    groups = JOB["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    room = sum(
        group["maxReplicas"] * int(container["resources"]["limits"]["cpu"])
        for group in groups
        for container in group["template"]["spec"]["containers"]
    )
    assert asked <= room
