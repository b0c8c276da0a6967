"""The configuration files, each judged by the program that reads it. A copy that is broken must be refused."""

import os
import re
import subprocess
from pathlib import Path

import aiohttp
import pytest

from deploy.stack.parts import DEPLOY, WEBHOOK
from gateway.settings.model import Settings
from tests.support.certs import make_certs
from tests.support.haproxy import FALL, INTER_S, RISE
from tests.support.need import need_tool
from tests.support.ports import free_ports
from tests.support.process import Process
from tests.support.until import until

HAPROXY = DEPLOY / "haproxy"
PROMETHEUS = DEPLOY / "prometheus"


def judge(*argv: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, argv)),
        env={"PATH": "/usr/bin:/bin", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("nodes", ["nodes.cfg", "nodes-dns.cfg"])
def test_haproxy_takes_its_files_without_a_warning(tmp_path: Path, nodes: str) -> None:
    haproxy = need_tool("haproxy", "haproxy")
    certs = make_certs(tmp_path)
    pem = tmp_path / "both.pem"
    pem.write_bytes(certs.cert.read_bytes() + certs.key.read_bytes())
    for env in ({}, {"LB_CERT": str(pem)}):
        done = judge(haproxy, "-c", "-dW", "-f", HAPROXY / "haproxy.cfg", "-f", HAPROXY / nodes, **env)
        assert done.returncode == 0, done.stderr
    files = {"haproxy.cfg": ("leastconn", "lastconn"), nodes: ("server", "servers")}
    for name, (old, new) in files.items():
        broken = tmp_path / name
        text = (HAPROXY / name).read_text()
        assert old in text
        broken.write_text(text.replace(old, new))
        read = [broken if each == name else HAPROXY / each for each in files]
        assert judge(haproxy, "-c", "-dW", "-f", read[0], "-f", read[1]).returncode != 0, name


async def test_a_container_with_few_descriptors_takes_fewer_connections_and_says_so(tmp_path: Path) -> None:
    """HAProxy itself would not start, again and again: 20,000 connections want 40,063 descriptors."""
    prlimit, _ = need_tool("prlimit", "util-linux"), need_tool("haproxy", "haproxy")
    first = free_ports(2)
    env = {"LB_BIND": f"127.0.0.1:{first}", "LB_OPS_BIND": f"127.0.0.1:{first + 1}", "LB_NODES": "localhost"}
    env["LB_SOCKET"] = str(tmp_path / "socket")
    argv = [prlimit, "--nofile=4096:4096", "sh", str(HAPROXY / "haproxy-start.sh")]
    balancer = Process("haproxy", argv, tmp_path / "haproxy.log", env={**os.environ, **env})
    balancer.spawn()

    async def is_there() -> bool:
        assert balancer.running, balancer.tail()
        try:
            async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{first + 1}/metrics") as page:
                return "\nhaproxy_process_max_connections 1948\n" in await page.text()
        except aiohttp.ClientError:
            return False

    await until(is_there, "HAProxy serves with as many connections as its descriptors hold")
    assert "enough for 1948 connections and not for 20000" in balancer.tail(100)


def test_the_tests_know_the_checks_of_haproxy_cfg() -> None:
    (line,) = re.findall(r"^ +default-server (.+)", (HAPROXY / "haproxy.cfg").read_text(), re.MULTILINE)
    assert f"inter {INTER_S}s fall {FALL} rise {RISE}" in line
    assert "on-marked-down" not in line, "the node sends its sessions away, paced; HAProxy would cut them"


def test_a_node_is_out_of_the_balancer_before_it_sends_anybody_away() -> None:
    """Else handshakes reach a node that refuses them."""
    assert Settings().lb_wait_s >= 2 * INTER_S * FALL


def test_the_balancer_waits_longer_than_nodes_ping() -> None:
    text = (HAPROXY / "haproxy.cfg").read_text()
    (tunnel,) = re.findall(r"timeout tunnel (\d+)h", text)
    (server,) = re.findall(r"timeout server (\d+)s", text)
    settings = Settings()
    assert int(tunnel) * 3600 > 2 * settings.ping_s and int(server) > 2 * settings.ping_s


def test_prometheus_and_alertmanager_take_their_files(tmp_path: Path) -> None:
    promtool, amtool = need_tool("promtool", "prometheus"), need_tool("amtool", "prometheus-alertmanager")
    done = judge(promtool, "check", "config", PROMETHEUS / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    done = judge(amtool, "check-config", PROMETHEUS / "alertmanager.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    text = (PROMETHEUS / "alertmanager.yml").read_text()
    assert WEBHOOK in text, "the stack looks for it"
    broken = tmp_path / "prometheus.yml"
    broken.write_text((PROMETHEUS / "prometheus.yml").read_text().replace("job_name:", "job:", 1))
    assert judge(promtool, "check", "config", broken).returncode != 0
    broken = tmp_path / "alertmanager.yml"
    broken.write_text(text.replace("receiver: webhook", "receiver: nobody", 1))
    assert judge(amtool, "check-config", broken).returncode != 0
