"""Certificates that end are told before they do: real HAProxy and servers with TLS, seen by the real exporter.

With the shipped prometheus.yml, blackbox.yml, rules and routes; only addresses and what they wait for differ.
"""

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy.pages import typed
from deploy.stack import parts
from tests.deploy.watched import shorten, suppressed, tell
from tests.deploy.webhook import Webhook
from tests.support.broker import Broker, BrokerOptions
from tests.support.certs import Certs, make_certs
from tests.support.haproxy import HAProxy
from tests.support.need import need_tool
from tests.support.node import Node
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.until import until

pytestmark = pytest.mark.timeout(180)

OPERATIONS = "docs/operations.md"
TLS = "docs/tls.md"


class Watch:
    """Prometheus, Alertmanager and blackbox_exporter, who look at `addresses` from `look` on."""

    def __init__(self, directory: Path) -> None:
        self.webhook_port, self.alertmanager_port, blackbox_port = free_port(), free_port(), free_port()
        self._prometheus = directory / "prometheus"
        alertmanager = directory / "alertmanager"
        made = [
            parts.blackbox(blackbox_port),
            parts.alertmanager(alertmanager, self.alertmanager_port),
            parts.prometheus(
                self._prometheus,
                {"alertmanager": [self.alertmanager_port], "certificates": []},
                free_port(),
                blackbox_port,
            ),
        ]
        shorten(self._prometheus, alertmanager)
        # How long an alert waits is rules/tests' business.
        alerts = self._prometheus / "rules" / "alerts.yml"
        alerts.write_text(re.sub(r"for: \d+ms", "for: 1s", alerts.read_text("utf-8")), "utf-8")
        tell(alertmanager / "alertmanager.yml", self.webhook_port)
        self.exporter, *_ = self._processes = [
            Process(part.name, [need_tool(part.argv[0], part.argv[0]), *part.argv[1:]], directory / f"{part.name}.log",
                    env={**os.environ, **part.env})
            for part in made
        ]  # fmt: skip

    def start(self) -> None:
        for process in self._processes:
            process.spawn()

    def look(self, *addresses: str) -> None:
        parts.target(self._prometheus, "certificates", addresses)


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    watch = Watch(tmp_path)
    watch.start()
    yield watch


def put(certs: Certs, pem: Path) -> None:
    """As docs/tls.md has it: chain and key, in the old file's place in one step."""
    fresh = pem.with_suffix(".new")
    fresh.write_bytes(certs.cert.read_bytes() + certs.key.read_bytes())
    fresh.replace(pem)


async def test_a_certificate_that_ends_is_told_and_its_renewal_is(watch: Watch, tmp_path: Path) -> None:
    """At the balancer within a week, at the broker within three; one that ended is told too; a password never is."""
    pem, tls_port = tmp_path / "both.pem", free_port()
    put(make_certs(tmp_path / "soon", days=3), pem)
    balancer = HAProxy([], tmp_path, LB_CERT=pem, LB_TLS_BIND=f"127.0.0.1:{tls_port}")
    await balancer.start()
    broker = with_certs(tmp_path / "broker", 14)
    await broker.start()
    # It asks its clients for certificates, and its own has ended.
    strict = with_certs(tmp_path / "strict", -0.01, "tls-auth-clients yes")
    strict.process.spawn()

    at_balancer, at_broker = f"https://127.0.0.1:{tls_port}", f"rediss://127.0.0.1:{broker.port}"
    at_strict = f"rediss://127.0.0.1:{strict.port}"
    watch.look(f"{at_balancer}/chat/", broker.url, at_strict)
    async with Webhook(watch.webhook_port) as told:
        for instance, alert, severity in (
            (at_balancer, "HirobaCertificateExpires", "critical"),
            (at_strict, "HirobaCertificateExpires", "critical"),
            (at_broker, "HirobaCertificateNotRenewed", "warning"),
        ):
            message, found = await told.alert(alert, "firing", instance)
            assert found["labels"]["severity"] == severity
            assert message["groupLabels"]["alertname"] == alert
        what_the_pages_look_at(tls_port, pem)
        (days,) = re.findall(r"ends in (\S+) days", (await told.alert(
            "HirobaCertificateExpires", "firing", at_balancer))[1]["annotations"]["summary"])  # fmt: skip
        assert 2.5 < float(days) <= 3

        async def said_once() -> bool:
            return ("HirobaCertificateNotRenewed", at_balancer) in await suppressed(watch.alertmanager_port)

        await until(said_once, "what the other says already is held back", every_s=0.1)

        put(make_certs(tmp_path / "new", days=90), pem)
        balancer.process.signal(signal.SIGUSR2)
        await renew(broker, make_certs(tmp_path / "renewed", days=90))
        await told.alert("HirobaCertificateExpires", "resolved", at_balancer)
        await told.alert("HirobaCertificateNotRenewed", "resolved", at_broker)
        assert "geheim" not in str(told.messages)


def what_the_pages_look_at(tls_port: int, pem: Path) -> None:
    """An end in three days: at the address, in the file; and by exit code."""
    at = {"HOST:443": f"127.0.0.1:{tls_port}"}
    for text in (
        typed(OPERATIONS, "openssl s_client -connect HOST:443 </dev/null 2>/dev/null | openssl x509", at),
        typed("docs/troubleshooting.md", "openssl s_client", at),
        typed(OPERATIONS, "openssl x509 -noout -enddate -in FILE", {"FILE": str(pem)}),
    ):
        said = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True).stdout.strip()
        end = datetime.strptime(said, "notAfter=%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
        assert timedelta(days=2) < end - datetime.now(UTC) <= timedelta(days=3), said
    spoken = typed(OPERATIONS, "openssl s_client -connect HOST:443 </dev/null", at)
    assert b"BEGIN CERTIFICATE" in subprocess.run(["sh", "-c", spoken], capture_output=True, check=False).stdout
    ends = typed(TLS, "openssl x509 -noout -checkend", {"/etc/hiroba/node.pem": str(pem)})
    assert subprocess.run(["sh", "-c", ends], capture_output=True, check=False).returncode == 1


def with_certs(directory: Path, days: float, *directives: str) -> Broker:
    broker = Broker(directory, BrokerOptions(tls=True, directives=directives))
    assert broker.certs is not None
    make_certs(broker.certs.cert.parent, days)
    return broker


async def renew(broker: Broker, certs: Certs) -> None:
    """docs/tls.md: a running server takes a new pair, and no connection is lost."""
    async with broker.client() as operator:
        for text in (typed(TLS, "CONFIG SET tls-cert-file"), typed(OPERATIONS, "CONFIG SET tls-cert-file")):
            said = text.replace("FILE", str(certs.cert), 1).replace("FILE", str(certs.key))
            await operator.execute_command(*said.split())  # type: ignore[no-untyped-call]


@pytest.mark.long
async def test_a_certificate_that_nobody_sees_is_told(watch: Watch, tmp_path: Path) -> None:
    """Nobody listens, no TLS is spoken, the exporter hangs: silence must not look like a long life."""
    pem, tls_port = tmp_path / "both.pem", free_port()
    put(make_certs(tmp_path / "certs", days=90), pem)
    balancer = await HAProxy([], tmp_path, LB_CERT=pem, LB_TLS_BIND=f"127.0.0.1:{tls_port}").start()
    seen, nobody, plain = (f"https://127.0.0.1:{port}" for port in (tls_port, free_port(), balancer.port))
    watch.look(seen, nobody, plain)
    async with Webhook(watch.webhook_port) as told:
        await asyncio.gather(*(told.alert("HirobaCertificateUnseen", "firing", each) for each in (nobody, plain)))
        assert seen not in str(told.messages)
        watch.exporter.pause()
        await told.alert("HirobaCertificateUnseen", "firing", seen)
        watch.exporter.cont()
        await told.alert("HirobaCertificateUnseen", "resolved", seen)


def test_a_node_s_own_certificate_is_looked_at_by_a_timer(tmp_path: Path) -> None:
    """It is on no address where an exporter could see it: docs/tls.md has a command."""
    (command,) = re.findall(r"^openssl x509 -noout -checkend .+$", page("tls.md"), re.MULTILINE)
    for days, code in ((22, 0), (20, 1), (-0.01, 1)):
        certs = make_certs(tmp_path, days)
        asked = command.replace("/etc/hiroba/node.pem", str(certs.cert)).split()
        assert subprocess.run(asked, capture_output=True, check=False).returncode == code


async def test_a_node_whose_certificate_has_ended_says_so(tmp_path: Path) -> None:
    """In the words that somebody looks for in docs/troubleshooting.md."""
    certs = make_certs(tmp_path / "own", -0.01)
    broker = Broker(
        tmp_path / "broker",
        BrokerOptions(tls=True, directives=("tls-auth-clients yes", f"tls-ca-cert-file {certs.ca}")),
    )
    broker.process.spawn()
    for number, (own, words) in enumerate((
        (f"&ssl_certfile={certs.cert}&ssl_keyfile={certs.key}", "alert certificate expired"),
        ("", "alert certificate required"),
    )):  # fmt: skip
        assert words in page("troubleshooting.md")
        node = Node(broker.url + own, tmp_path, f"node{number}")
        node.process.spawn()
        await until(lambda node=node, words=words: words in node.process.tail(), f"the node says: {words}")  # type: ignore[misc]
        await node.kill()


def page(name: str) -> str:
    return (parts.DEPLOY.parent / "docs" / name).read_text("utf-8")
