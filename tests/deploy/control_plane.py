"""A Kubernetes control plane on 127.0.0.1: etcd, API server, controllers, scheduler. No machine, no container.

Built by `make kubernetes` (tests/deploy/kubernetes/build.sh). Flags: https://kubernetes.io/docs/reference/command-line-tools-reference/
"""

import asyncio
import contextlib
import json
import os
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from tests.deploy.kustomize import Resource
from tests.support import need
from tests.support.certs import make_certs
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.until import until

HERE = Path(__file__).with_name("kubernetes")
(VERSION,) = re.findall(r"^require k8s\.io/kubernetes (\S+)$", (HERE / "go.mod").read_text("utf-8"), re.MULTILINE)
# Whose token is whose name: the programs have the rights that Kubernetes gives them by these names, and no more.
USERS = {"admin": "system:masters", "system:kube-controller-manager": "", "system:kube-scheduler": ""}


def binaries() -> Path:
    """Where build.sh puts them, or no test."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = Path(os.environ.get("KUBERNETES_BINARIES") or cache / "hiroba" / f"kubernetes-{VERSION}")
    if (directory / "operator").is_dir():  # the last that is built
        return directory
    need.missing(f"{directory} has no control plane of Kubernetes {VERSION}: make kubernetes (wants Go)")
    raise AssertionError


class Refused(Exception):
    """kubectl's own words, when it ended with another code than 0."""


class ControlPlane:
    """An empty cluster whose pods are never run: a test says of them what a kubelet would (kubelet.py)."""

    def __init__(self, directory: Path) -> None:
        self.binaries = binaries()
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.certs = make_certs(directory / "certs")
        self.url = f"https://127.0.0.1:{free_port()}"
        self._etcd_url = f"http://127.0.0.1:{free_port()}"
        for user in USERS:
            self._write_kubeconfig(user)
        tokens = "".join(f'token-{user},{user},{user},"{groups}"\n' for user, groups in USERS.items())
        (directory / "tokens.csv").write_text(tokens)

    async def start(self, *, controllers: bool = False) -> "ControlPlane":
        """Objects are stored and judged. With `controllers` they are also acted upon, and pods get a machine."""
        peers = f"http://127.0.0.1:{free_port()}"
        self._spawn("etcd", {
            "data-dir": self.directory / "etcd", "unsafe-no-fsync": "true",
            "listen-client-urls": self._etcd_url, "advertise-client-urls": self._etcd_url,
            "listen-peer-urls": peers, "initial-advertise-peer-urls": peers, "initial-cluster": f"default={peers}",
        })  # fmt: skip
        self._spawn("kube-apiserver", {
            "etcd-servers": self._etcd_url,
            "bind-address": "127.0.0.1", "advertise-address": "127.0.0.1", "secure-port": self.url.rpartition(":")[2],
            # Nobody reaches it by the Service `kubernetes`, and 127.0.0.1 may not stand behind one.
            "endpoint-reconciler-type": "none", "service-cluster-ip-range": "10.96.0.0/16",
            "tls-cert-file": self.certs.cert, "tls-private-key-file": self.certs.key,
            "token-auth-file": self.directory / "tokens.csv", "authorization-mode": "RBAC",
            "service-account-issuer": self.url, "service-account-key-file": self.certs.cert,
            "service-account-signing-key-file": self.certs.key,
            "cert-dir": self.directory / "apiserver",
        })  # fmt: skip
        async with self.client() as http:
            await until(lambda: _is_ready(http), "the API server is ready", within_s=120, every_s=0.1)
        if controllers:
            self._spawn("kube-controller-manager", {
                "kubeconfig": self._kubeconfig("system:kube-controller-manager"), "secure-port": "0",
                "use-service-account-credentials": "true", "leader-elect": "false",
                "service-account-private-key-file": self.certs.key, "root-ca-file": self.certs.ca,
                # It would take machines for dead whose kubelet does not report every few seconds.
                "controllers": "*,-node-lifecycle-controller", "horizontal-pod-autoscaler-sync-period": "1s",
            })  # fmt: skip
            self._spawn("kube-scheduler", {
                "kubeconfig": self._kubeconfig("system:kube-scheduler"), "secure-port": "0", "leader-elect": "false",
            })  # fmt: skip
        return self

    async def kubectl(self, *argv: str | Path, given: Resource | None = None) -> str:
        """What it prints. `given`: its standard input, an object. Raises Refused; warnings of the server are such."""
        process = await asyncio.create_subprocess_exec(
            self.binaries / "kubectl", "--warnings-as-errors", *argv,
            env={**os.environ, "KUBECONFIG": str(self._kubeconfig("admin")), "HOME": str(self.directory)},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(120):
            out, error = await process.communicate(json.dumps(given).encode() if given else b"")
        if process.returncode != 0:
            raise Refused(error.decode() + out.decode())
        return out.decode()

    async def get(self, *argv: str) -> Any:
        """`kubectl get` of one object, or of many: then their list."""
        found = json.loads(await self.kubectl("get", *argv, "-o", "json"))
        return found["items"] if found["kind"] == "List" else found

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[aiohttp.ClientSession]:
        """HTTP as `admin`, paths from the root: for what is asked too often for a process each time."""
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(self.certs.ca)))
        headers = {"Authorization": "Bearer token-admin"}
        async with aiohttp.ClientSession(self.url, connector=connector, headers=headers) as http:
            yield http

    def _spawn(self, program: str, flags: Mapping[str, object]) -> None:
        argv = [str(self.binaries / program), *(f"--{name}={value}" for name, value in flags.items())]
        Process(program, argv, self.directory / f"{program}.log").spawn()

    def _kubeconfig(self, user: str) -> Path:
        return self.directory / f"{user.replace(':', '-')}.kubeconfig"

    def _write_kubeconfig(self, user: str) -> None:
        # JSON is YAML, and kubectl takes it.
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": self.url, "certificate-authority": str(self.certs.ca)}}],
            "users": [{"name": "it", "user": {"token": f"token-{user}"}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        }  # fmt: skip
        self._kubeconfig(user).write_text(json.dumps(config))


async def _is_ready(http: aiohttp.ClientSession) -> bool:
    async with http.get("/readyz") as answer:
        return answer.status == 200
