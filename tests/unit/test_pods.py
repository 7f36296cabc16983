"""What pods say: exits, disruptions, and why they wait."""

import json
from typing import Any

import pytest

from isc_jobs.controller.pods import Outcome, Waiting, outcome, waiting

Object = dict[str, Any]


def pod(name: str = "p", phase: str = "Running", **status: object) -> Object:
    return {"metadata": {"name": name, "uid": name}, "status": {"phase": phase, **status}}


def failed(
    name: str, code: int, *, message: str = "", reason: str = "Error", at: str = "2026-01-01T00:00:00Z"
) -> Object:
    ended = {"exitCode": code, "reason": reason, "message": message, "finishedAt": at}
    return pod(name, "Failed", containerStatuses=[{"state": {"terminated": ended}}])


def test_an_attempt_runs_until_all_its_pods_have_succeeded() -> None:
    assert outcome([], 1) is None
    assert outcome([pod(phase="Succeeded"), pod()], 2) is None
    assert outcome([pod(phase="Succeeded")], 2) is None
    assert outcome([pod(phase="Succeeded"), pod(phase="Succeeded")], 2) == Outcome(0, "")


def test_the_first_failure_tells_the_reason_and_not_the_ranks_that_were_then_stopped() -> None:
    said = json.dumps({"exit_code": 65, "reason": "the loss is nan"})
    first = failed("worker-0", 65, message=said, at="2026-01-01T00:00:05Z")
    later = failed("master-0", 70, message="", at="2026-01-01T00:00:09Z")
    assert outcome([later, first, pod()], 3) == Outcome(65, "the loss is nan")


def test_out_of_memory_names_the_setting() -> None:
    found = outcome([failed("p", 137, reason="OOMKilled")], 1)
    assert found is not None
    assert (found.exit_code, "raise cluster.resources" in found.reason) == (137, True)


@pytest.mark.parametrize("message", ["", "Traceback ...", "[]", '{"exit_code": "x"}'])
def test_other_last_words_leave_the_exit_code(message: str) -> None:
    assert outcome([failed("p", 3, message=message)], 1) == Outcome(3, "")


def test_evictions_and_deletions_are_disruptions() -> None:
    evicted = pod(phase="Failed", reason="Evicted", message="node was low on memory")
    preempted = pod(phase="Failed", conditions=[{"type": "DisruptionTarget", "status": "True"}])
    deleted = pod()
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    for found in (outcome([item], 1) for item in (evicted, preempted, deleted)):
        assert found is not None
        assert found.exit_code == 143


@pytest.mark.parametrize(
    "reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"]
)
def test_images_and_secrets_that_are_not_there_are_permanent(reason: str) -> None:
    state = {"waiting": {"reason": reason, "message": 'secret "s3" not found'}}
    found = waiting([pod(phase="Pending", containerStatuses=[{"state": state}])], [])
    assert found == Waiting(f'{reason}: secret "s3" not found', permanent=True)


def test_the_schedulers_sentence_is_told() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    assert waiting([pod(phase="Pending", conditions=[condition])], []) == Waiting(
        "Unschedulable: 0/1 nodes", permanent=False
    )


def test_pods_that_may_not_be_made_are_explained_by_the_event() -> None:
    event = {"reason": "FailedCreate", "message": "exceeded quota: compute"}
    assert waiting([], [event]) == Waiting("pods are refused: exceeded quota: compute", permanent=True)
    assert waiting([], []) is None
    assert (
        waiting([pod(phase="Pending", containerStatuses=[{"state": {"waiting": {"reason": "ContainerCreating"}}}])], [])
        is None
    )
