"""Machines on which nothing runs: what kubelets would say of pods, so that controllers have something to judge."""

import asyncio
import contextlib
import datetime
import json
from collections.abc import Callable
from typing import Any, Self

import aiohttp

from tests.deploy.control_plane import ControlPlane
from tests.deploy.kustomize import Resource

MACHINES = {"machine-a": "zone-1", "machine-b": "zone-1", "machine-c": "zone-2"}
SIZE = {"cpu": "8", "memory": "16Gi", "pods": "110"}
# kubelets patch their own objects by these.
MERGE, STRATEGIC = ({"Content-Type": f"application/{kind}+json"} for kind in ("merge-patch", "strategic-merge-patch"))


def is_ready(pod: Resource) -> bool:
    """Its endpoint gets connections: ready, and not told to end."""
    conditions = {each["type"]: each["status"] for each in pod.get("status", {}).get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


class Kubelets:
    """`async with Kubelets(plane)`: every pod that gets a machine is ready, every one that is to end ends."""

    def __init__(self, plane: ControlPlane, on_change: Callable[[list[Resource]], None] = lambda pods: None) -> None:
        self._plane = plane
        # Called with all pods after each event.
        self._on_change = on_change
        # Pods with this image tag never get ready.
        self.broken_tag: str | None = None
        # Cleared: nobody says anything of any pod, as on a machine that is slow.
        self.awake = asyncio.Event()
        self._pods: dict[str, Resource] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.awake.set()
        async with self._plane.client() as http:
            for name, zone in MACHINES.items():
                labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}
                status = {"capacity": SIZE, "allocatable": SIZE, "conditions": [_condition("Ready")]}
                machine = {"metadata": {"name": name, "labels": labels}, "status": status}
                await _ask(http, "POST", "/api/v1/nodes", machine)
                # The server taints every new one until who watches over machines has seen it.
                await _ask(http, "PATCH", f"/api/v1/nodes/{name}", {"spec": {"taints": None}}, MERGE)
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _watch(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._plane.client() as http:
            # Ended with the session, which does not wait for TLS's farewell: the loop may be gone before it comes.
            events = await http.get("/api/v1/pods?watch=1", timeout=timeout)
            async for line in events.content:
                event = json.loads(line)
                pod = event["object"]
                if event["type"] == "DELETED":
                    self._pods.pop(pod["metadata"]["uid"], None)
                else:
                    self._pods[pod["metadata"]["uid"]] = pod
                self._on_change(list(self._pods.values()))
                await self.awake.wait()
                if event["type"] != "DELETED" and "nodeName" in pod["spec"]:
                    await self._say(http, pod)

    async def _say(self, http: aiohttp.ClientSession, pod: Resource) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        if "deletionTimestamp" in metadata:
            gone = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
            await _ask(http, "DELETE", path, gone)
        elif not is_ready(pod) and self._works(pod):
            conditions = [_condition(kind) for kind in ("Initialized", "ContainersReady", "Ready")]
            address = f"10.244.0.{len(self._pods) + 1}"
            status = {"phase": "Running", "startTime": _now(), "podIPs": [{"ip": address}], "podIP": address}
            await _ask(http, "PATCH", f"{path}/status", {"status": status | {"conditions": conditions}}, STRATEGIC)

    def _works(self, pod: Resource) -> bool:
        return all(each["image"].rpartition(":")[2] != self.broken_tag for each in pod["spec"]["containers"])


async def _ask(
    http: aiohttp.ClientSession, method: str, path: str, body: Any, headers: dict[str, str] | None = None
) -> None:
    async with http.request(method, path, json=body, headers=headers) as answer:
        # 404 and 409: somebody was faster, and another event tells of it.
        assert answer.status in (200, 201, 404, 409), await answer.text()


def _condition(kind: str) -> dict[str, str]:
    return {"type": kind, "status": "True", "reason": "Test", "lastTransitionTime": _now()}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
