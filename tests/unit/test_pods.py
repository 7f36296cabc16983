"""What pods say: exits, disruptions, and why they wait."""

import json
from typing import Any

import pytest

from isc_jobs.controller.pods import Outcome, Waiting, is_over, logs_by_rank, outcome, rank, waiting

Object = dict[str, Any]


def pod(name: str = "p", phase: str = "Running", **status: object) -> Object:
    return {"metadata": {"name": name, "uid": name}, "status": {"phase": phase, **status}}


def failed(
    name: str, code: int, *, message: str = "", reason: str = "Error", at: str = "2026-01-01T00:00:00Z"
) -> Object:
    ended = {"exitCode": code, "reason": reason, "message": message, "finishedAt": at}
    return pod(name, "Failed", containerStatuses=[{"name": "stage", "state": {"terminated": ended}}])


def test_an_attempt_runs_until_all_its_pods_have_succeeded() -> None:
    assert outcome([], 1) is None
    assert outcome([pod(phase="Succeeded"), pod()], 2) is None
    assert outcome([pod(phase="Succeeded")], 2) is None
    assert outcome([pod(phase="Succeeded"), pod(phase="Succeeded")], 2) == Outcome(0, "")


def test_the_first_failure_tells_the_reason_and_not_the_ranks_that_were_then_stopped() -> None:
    said = json.dumps({"exit_code": 65, "reason": "the loss is nan"})
    first = failed("worker-0", 65, message=said, at="2026-01-01T00:00:05Z")
    later = failed("master-0", 70, message="", at="2026-01-01T00:00:09Z")
    evidence = "container stage: Error, exit code 65"
    assert outcome([later, first, pod()], 3) == Outcome(65, "the loss is nan", "worker-0", evidence)


def test_out_of_memory_names_the_setting() -> None:
    found = outcome([failed("p", 137, reason="OOMKilled")], 1)
    assert found is not None
    assert (found.exit_code, "raise cluster.stages.*.memory" in found.reason) == (137, True)


@pytest.mark.parametrize("message", ["", "Traceback ...", "[]", '{"exit_code": "x"}'])
def test_other_last_words_leave_the_exit_code(message: str) -> None:
    assert outcome([failed("p", 3, message=message)], 1) == Outcome(3, "", "p", "container stage: Error, exit code 3")


def deleted(name: str) -> Object:
    found = pod(name)
    found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return found


TARGET = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "a greater one"}
DISRUPTED = [
    (pod("q", "Failed", reason="Evicted", message="node was low on memory"), "Evicted: node was low on memory"),
    (pod("q", "Failed", reason="NodeLost"), "NodeLost: disruption"),
    (pod("q", "Failed", conditions=[TARGET]), "DisruptionTarget, PreemptionByScheduler: a greater one"),
    (pod("q", conditions=[TARGET]), "DisruptionTarget, PreemptionByScheduler: a greater one"),
    (deleted("q"), "deletionTimestamp 2026-01-01T00:00:00Z"),
]


@pytest.mark.parametrize(("item", "evidence"), DISRUPTED)
def test_a_disrupted_pod_is_the_cause_though_a_peer_that_lost_it_failed_first(item: Object, evidence: str) -> None:
    for pods in ([item], [failed("p", 1), item]):
        found = outcome(pods, 2)
        assert found is not None
        assert (found.exit_code, found.pod, found.evidence) == (143, "q", evidence)


def test_what_a_stage_did_itself_is_no_disruption_whatever_the_conditions_say() -> None:
    over = pod("q", "Failed", reason="Evicted", message='Usage of EmptyDir volume "work" exceeds the limit "10Mi".',
               conditions=[TARGET])  # fmt: skip
    found = outcome([over], 1)
    assert found is not None
    assert (found.exit_code, "raise cluster.stages.*.scratch" in found.reason) == (137, True)
    assert outcome([pod("q", "Succeeded", conditions=[TARGET])], 1) == Outcome(0, "")  # it ended before


def test_a_pod_that_its_node_refused_before_anything_ran_is_tried_again_after_a_while() -> None:
    said = "Pod was rejected: Allocate failed due to no healthy devices present"
    found = outcome([pod("q", "Failed", reason="UnexpectedAdmissionError", message=said)], 1)
    assert found == Outcome(75, f"pod q was refused by its node: {said}", "q", said)
    found = outcome([pod("q", "Failed", reason="DeadlineExceeded", message="active on the node too long")], 1)
    assert found is not None
    assert found.exit_code == 70


@pytest.mark.parametrize(
    "reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"]
)
def test_images_and_secrets_that_are_not_there_are_permanent(reason: str) -> None:
    state = {"waiting": {"reason": reason, "message": 'secret "s3" not found'}}
    found = waiting([pod(phase="Pending", containerStatuses=[{"state": state}])], [])
    assert found == Waiting(f'{reason}: secret "s3" not found', permanent=True)


def test_a_registry_that_does_not_answer_is_waited_for() -> None:
    state = {"waiting": {"reason": "ErrImagePull", "message": "dial tcp: i/o timeout"}}
    found = waiting([pod(phase="Pending", containerStatuses=[{"state": state}])], [])
    assert found == Waiting("ErrImagePull: dial tcp: i/o timeout", permanent=False)


def test_an_attempt_is_over_when_none_of_its_pods_lives() -> None:
    assert is_over([pod(phase="Succeeded"), failed("q", 1)], 2)
    assert not is_over([pod(phase="Succeeded"), pod()], 2)
    assert not is_over([pod(phase="Succeeded")], 2)


@pytest.mark.parametrize(
    "message",
    ["failed to sync secret cache: timed out waiting for the condition",
     "forbidden: status unknown for quota: x", "context deadline exceeded",
     "Internal error: failed calling webhook x: connection refused", "the object has been modified"],
)  # fmt: skip
def test_trouble_that_passes_is_waited_for(message: str) -> None:
    state = {"waiting": {"reason": "CreateContainerConfigError", "message": message}}
    found = waiting([pod(phase="Pending", containerStatuses=[{"state": state}])], [])
    refused = waiting([], [{"reason": "FailedCreate", "message": message}])
    assert found is not None
    assert refused is not None
    assert (found.permanent, refused.permanent) == (False, False)


def test_a_full_work_folder_names_the_setting_and_is_no_disruption() -> None:
    full = pod(phase="Failed", reason="Evicted", message='Usage of EmptyDir volume "work" exceeds the limit "2Gi".')
    found = outcome([full], 1)
    assert found is not None
    assert (found.exit_code, "raise cluster.stages.*.scratch" in found.reason) == (137, True)


def test_the_schedulers_sentence_is_told() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    assert waiting([pod(phase="Pending", conditions=[condition])], []) == Waiting(
        "Unschedulable: 0/1 nodes", permanent=False
    )


@pytest.mark.parametrize(
    ("message", "permanent"),
    [
        ("exceeded quota: compute, requested: cpu=4, used: cpu=8, limited: cpu=10", False),  # others free it
        ('violates PodSecurity "restricted:latest"', True),
        ('admission webhook "policy.example" denied the request', True),
        ("failed quota: compute: must specify limits.cpu", True),
    ],
)
def test_pods_that_may_not_be_made_are_explained_by_the_event(message: str, permanent: bool) -> None:
    events = [
        {"reason": "FailedCreate", "message": message, "lastTimestamp": "2026-01-01T00:00:02Z"},
        {"reason": "FailedCreate", "message": "older", "lastTimestamp": "2026-01-01T00:00:01Z"},
        {"reason": "SuccessfulDelete", "message": "newer", "lastTimestamp": "2026-01-01T00:00:03Z"},
    ]
    assert waiting([], events) == Waiting(f"pods are refused: {message}", permanent)
    assert waiting([], []) is None


def test_a_pod_with_a_place_that_does_not_start_is_explained_by_its_events() -> None:
    creating = pod(phase="Pending", containerStatuses=[{"state": {"waiting": {"reason": "ContainerCreating"}}}])
    assert waiting([creating], []) is None
    event = {"reason": "FailedMount", "message": 'MountVolume.SetUp failed for volume "spec" : configmap "x" not found'}
    found = waiting([creating], [event])
    assert found is not None
    assert (found.permanent, 'configmap "x" not found' in found.reason) == (True, True)
    network = waiting([creating], [{"reason": "FailedCreatePodSandBox", "message": "network is not ready"}])
    assert network == Waiting("a pod cannot start: network is not ready", permanent=False)


def test_pods_are_numbered_as_their_processes_are() -> None:
    worker = {"training.kubeflow.org/replica-type": "worker", "training.kubeflow.org/replica-index": "11"}
    labels = [
        {"training.kubeflow.org/replica-type": "master"},
        worker,
        {"batch.kubernetes.io/job-completion-index": "3"},
    ]
    assert [rank({"metadata": {"labels": item}}) for item in [*labels, {}]] == [0, 12, 3, 0]


def test_a_pods_log_is_told_apart_by_process() -> None:
    log = b"agent\n4| a\n5| b | c\n4| d\nx| y\n"
    assert logs_by_rank(log, 4) == {4: b"agent\na\nd\nx| y\n", 5: b"b | c\n"}
    assert logs_by_rank(b"plain\n", 2) == {2: b"plain\n"}
