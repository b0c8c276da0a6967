"""README.md and docs/load-testing.md, typed by somebody who has just cloned hiroba: what they say is what happens."""

import re
import subprocess
from pathlib import Path

import pytest

from deploy.compose.trials import chat
from deploy.pages import ROOT, typed
from tests.deploy.machine import Machine, machine
from tests.support.process import Process
from tests.support.until import until

README = "README.md"
LOAD = "docs/load-testing.md"
K8S = "deploy/k8s/README.md"
PUBLIC = "http://127.0.0.1:8000"
# 98: this machine was too busy to say.
JUDGED = "; code=$?; [ $code = 98 ] || exit $code"

pytestmark = [pytest.mark.timeout(240)]


@pytest.mark.long
async def test_make_run_and_a_load_test_against_it(tmp_path: Path) -> None:
    """One command and everybody talks; each load test of the pages (shorter) judges it, and writes what it says."""
    with machine(tmp_path) as at:
        run, activate, first = typed(LOAD, "make run", {"60s": "8s"}).splitlines()
        for same in (typed(README, "make run     # all"), typed(README, "make run      ")):
            assert same.split()[:2] == run.split()[:2] == ["make", "run"]
        server = await serving(at, run, PUBLIC)
        for text in (
            f"{activate}\n{first}",
            typed(README, ".venv/bin/hiroba loadtest run", {"60s": "8s"}),
            typed(LOAD, "hiroba loadtest run -H ws://127.0.0.1:8000 -u 500", {"5m": "16s"}),
            typed(LOAD, "hiroba loadtest run -H ws://127.0.0.1:8000 --wire v1", {"60s": "8s"}),
        ):
            said = at.run(text.rstrip("\n") + JUDGED)
            assert "lost 0  doubled 0" in said, said
        assert "<html" in (at.checkout / "report.html").read_text("utf-8")
        page = (ROOT / LOAD).read_text("utf-8")
        (at.checkout / "gossip.py").write_text(page.split("```python\n", 1)[1].split("```", 1)[0])
        said = at.run(typed(LOAD, "hiroba loadtest run -f gossip.py") + f" -t 5s {JUDGED}")
        assert "closed" in said and "lost 0" in said
        at.run(typed(LOAD, "hiroba loadtest report F", {"F": "result.json"}))
        assert "<html" in (at.checkout / "result.html").read_text("utf-8")
        assert "usage: " in at.run(f"{typed(LOAD, 'python -m loadtest')} --help")
        await at.ctrl_c(server)


async def test_other_ways_to_start_it(tmp_path: Path) -> None:
    """Four nodes on one port; one on somebody's broker; every setting with where it came from; beside Channels."""
    with machine(tmp_path) as at:
        activate, four, one, config = typed(README, ". .venv/bin/activate").splitlines()
        server = await serving(at, f"{activate}\n{four}", PUBLIC)

        def listening() -> bool:
            return len(set(re.findall(r"pid=(\d+)", at.run("ss -ltnpH 'sport = :8000'")))) == 4

        await until(listening, "four nodes listen", 60)
        await at.ctrl_c(server)
        at.start("broker", f"cd {at.temp} && exec valkey-server --port 6379 --bind 127.0.0.1")
        node = await serving(at, f"{activate}\n{one.replace('10.0.0.5', '127.0.0.1')}", PUBLIC)
        await at.ctrl_c(node)
        assert re.search(r"messages_per_s\s+20.*default", at.run(f"{activate}\n{config}"))
        beside = typed("docs/moving-from-channels.md", "HIROBA_TRUSTED", {"/var/lib/hiroba": f"{at.temp}/channels"})
        await at.ctrl_c(await serving(at, beside, "http://127.0.0.1:8100"))


async def test_people_come_with_a_token_and_are_put_out(tmp_path: Path) -> None:
    with machine(tmp_path) as at:
        activate = ". .venv/bin/activate"
        server = at.start("server", f"{activate}\n{typed(README, 'export HIROBA_TOKEN_KEYS')}")
        ask = f"curl -s -m 5 -o answer -w '%{{http_code}}' {PUBLIC}/streams/chat"
        await until(lambda: at.run(f"{ask}/team-a || true") == "401", "nobody without a token", 60, every_s=0.2)
        (token,) = re.findall(r"(?m)^eyJ\S+$", "\n".join(server.lines()))
        mine = f"-H 'Authorization: Bearer {token}'"
        assert [at.run(f"{ask}/{room} {mine}") for room in ("team-a", "lobby")] == ["200", "403"]
        at.run(f"{activate}\n{typed(README, 'hiroba kick 7')}")
        await until(lambda: at.run(f"{ask}/team-a {mine}") == "403", "Ann is out", 30, every_s=0.2)
        assert "put out" in (at.checkout / "answer").read_text("utf-8")
        await at.ctrl_c(server)


async def serving(at: Machine, text: str, url: str) -> Process:
    """Returns when people can talk there."""
    server = at.start("server", text)

    async def talks() -> bool:
        assert server.running, server.tail()
        await chat(url)
        return True

    await until(talks, "people talk", 60, every_s=0.2)
    return server


def test_what_kubernetes_needs_beside_kubectl(tmp_path: Path) -> None:
    with machine(tmp_path) as at:
        at.run("make secrets")
        at.run("mkdir deploy/k8s/mine")
        at.run(typed(K8S, "sh deploy/k8s/secrets.sh deploy", {"NAME": "mine"}))
        assert at.password("gateway") in (at.checkout / "deploy/k8s/mine/secrets/url").read_text("utf-8")
        made = at.checkout / "deploy/k8s/monitoring/prometheusrule.yaml"
        before = made.read_text("utf-8")
        made.unlink()
        at.run(typed(K8S, "python -m deploy.k8s.rules"))
        assert made.read_text("utf-8") == before


def test_who_made_the_newest_release_has_an_address() -> None:
    text = typed("SECURITY.md", "git log -1", {"v…": "HEAD"})
    said = subprocess.run(["sh", "-c", text], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(r"<\S+@\S+>", said)
