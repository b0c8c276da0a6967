"""What docker-compose.yml promises, tried on what runs: each function is a trial, its docstring the line that is said.

They go in the order in which they stand here, each leaving everything well. Raises AssertionError.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from deploy.compose.engine import compose, containers, docker, password, reader, types, wanted
from deploy.compose.load import Load
from deploy.pages import typed

PUBLIC, WS = "http://127.0.0.1:8000", "ws://127.0.0.1:8000"
BALANCER, PROMETHEUS, ALERTMANAGER = "http://127.0.0.1:8404", "http://127.0.0.1:9090", "http://127.0.0.1:9093"
NODES = 4
OPERATIONS = "docs/operations.md"
# The block that begins so.
AT_BROKER = "export REDISCLI_AUTH=…    # BROKER_OPERATOR_PASSWORD\ndocker"

Trial = Callable[[], Coroutine[Any, Any, None]]


class Untried(Exception):
    """Something that a trial needs is not here. The text says what."""


async def locked_up() -> None:
    """every container is healthy, has the user, capabilities, limits and read-only root that the file says"""
    services = wanted()
    for name, found in containers().items():
        service = services[found["Config"]["Labels"]["com.docker.compose.service"]]
        host = found["HostConfig"]
        assert found["State"]["Health"]["Status"] == "healthy", name
        assert found["Config"]["User"] == service["user"], name
        assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["CapAdd"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert host["Memory"] == int(service["mem_limit"]) > 0 and host["PidsLimit"] == service["pids_limit"] > 0, name


async def watched() -> None:
    """people chat, Prometheus scrapes everything, and the watchdog goes off"""
    await chat(PUBLIC)

    async def all_up() -> bool:
        targets = (await asked(f"{PROMETHEUS}/api/v1/targets"))["data"]["activeTargets"]
        jobs = {each["labels"]["job"] for each in targets}
        assert "loadtest" not in jobs, "a target, and no load test runs"
        all_up = all(each["health"] == "up" for each in targets)
        return all_up and jobs == {"alertmanager", "broker", "gateway", "haproxy", "prometheus"}

    await until(all_up, "all targets are up")
    await until(lambda: firing("HirobaWatchdog"), "the watchdog goes off")


async def a_load_test() -> None:
    """README.md's load test: a target of Prometheus while it runs and no longer, nothing lost, and its report"""
    _, text = typed("README.md", "make secrets && GATEWAY_REPLICAS=4").splitlines()
    run, taken = text.split(";")
    with tempfile.TemporaryDirectory() as here, (Path(here) / "said").open("wb+") as said:
        with reader(run, here, said.fileno()) as typing:
            # Its image is built first.
            await until(lambda: health("loadtest", ["up"]), "the load test is scraped", 300)
            code = await asyncio.to_thread(typing.wait, 300)
        counts = (Path(here) / "said").read_text("utf-8")
        # 98: this machine was too busy to say how fast it was.
        assert code in (0, 98) and "lost 0  doubled 0  reordered 0" in counts, counts
        types(taken, here)
        assert "<html" in (Path(here) / "report.html").read_text("utf-8")
    await until(lambda: health("loadtest", []), "its target is gone with it")
    docker("volume", "rm", "hiroba-test_report")


async def the_runbook() -> None:
    """what docs/operations.md types at the broker, a node, the balancer: each does what the page says"""
    await chat(PUBLIC)
    asked, checked = types(typed(OPERATIONS, AT_BROKER, password())).split("aof_current_size")
    assert "aof_enabled:1" in asked and "as hiroba wants it" in checked, checked
    drain = typed(OPERATIONS, "docker compose exec haproxy sh -c")
    types(drain)
    await until(lambda: nodes_up(1), "one node drains")
    await chat(PUBLIC)
    types(drain.replace("state drain", "state ready"))
    await until(lambda: nodes_up(2), "it is back")


async def a_backup_restored() -> None:
    """the backup of docs/operations.md, made while people chat, put into a broker that has lost what it had"""
    with tempfile.TemporaryDirectory() as here:
        with Load(WS) as load:
            load.everybody_hears()
            types(typed(OPERATIONS, "docker compose cp broker"), here)
        kept = await rooms()
        (broker,) = containers("broker")
        docker("exec", broker, "sh", "-c", "rm /data/appendonlydir/*")
        docker("kill", broker)
        # Else the two that are ready at the end may be those from before.
        await until(lambda: nodes_up(0), "no node is ready")
        types(typed(OPERATIONS, "docker compose stop broker"), here)
        await until(lambda: nodes_up(2), "both nodes are ready again")
    assert kept <= await rooms(), "rooms that the backup had"
    await chat(PUBLIC)


async def rooms() -> set[str]:
    """Those that have a log at the broker, by their keys."""
    line = typed(OPERATIONS, AT_BROKER, password() | {"INFO persistence": "--scan --pattern 'hiroba:*:log:*'"})
    return {key for key in types(line).split() if key.startswith("hiroba:")}


async def restarted() -> None:
    """HAProxy restarted, not reloaded, as docs/operations.md warns: all are cut, come back, and miss nothing"""
    with Load(WS) as load:
        types(typed(OPERATIONS, "docker compose restart haproxy"))
        load.everybody_hears()
    assert load.result["counts"]["closed"] > 0, load.result["closes"]


async def as_the_pages_have_it() -> None:
    """README.md's own line brings up four nodes, Ctrl-C takes all down, docs/operations.md's brings up two again"""
    up, _ = typed("README.md", "make secrets && GATEWAY_REPLICAS=4").splitlines()
    with reader(up):
        await until(lambda: nodes_up(4), "HAProxy has four nodes", 120)
        await chat(PUBLIC)
    assert not any(found["State"]["Running"] for found in containers().values())
    types(typed(OPERATIONS, "make secrets && docker compose up -d"))
    await until(lambda: nodes_up(2), "both nodes are ready")


async def scaled() -> None:
    """from 2 nodes to 4 and back under load, and the next `up` leaves them alone"""
    with Load(WS) as load:
        compose("up", "--detach", "--wait", GATEWAY_REPLICAS=str(NODES))
        await until(lambda: nodes_up(NODES), f"HAProxy has {NODES} nodes")
        compose("up", "--detach", "--wait", GATEWAY_REPLICAS=str(NODES))
        assert len(containers("gateway")) == NODES
        compose("up", "--detach", "--wait")
        await until(lambda: nodes_up(2), "HAProxy has 2 nodes")
        load.everybody_hears()


async def replaced() -> None:
    """nodes with another setting take the place of the old ones, as docs/operations.md has it: nobody loses anything"""
    before = {found["Id"] for found in containers("gateway").values()}
    with Load(WS) as load:
        types("export HIROBA_LOG_LEVEL=debug\n" + typed(OPERATIONS, "docker compose build gateway"))
        after = {found["Id"] for found in containers("gateway").values()}
        assert len(after) == 2 and not after & before
        await until(lambda: nodes_up(2), "both nodes are ready")
        load.everybody_hears()
    assert all(close.startswith("1012 ") for close in load.result["closes"]), load.result["closes"]
    compose("up", "--detach", "--wait")
    await until(lambda: nodes_up(2), "both are as they were")


async def a_node_killed() -> None:
    """a node killed under load: nobody loses anything"""
    with Load(WS) as load:
        victim = next(iter(containers("gateway")))
        docker("kill", victim)
        await until(lambda: nodes_up(1), "HAProxy has 1 node")
        load.everybody_hears()
        docker("start", victim)
        await until(lambda: nodes_up(2), "HAProxy has 2 nodes")


async def a_broker_killed() -> None:
    """the broker killed with SIGKILL under load: what was acknowledged is there"""
    with Load(WS) as load:
        (broker,) = containers("broker")
        docker("kill", broker)
        docker("start", broker)
        load.everybody_hears()
        await until(lambda: nodes_up(2), "both nodes are ready again")


async def a_broker_that_hangs() -> None:
    """the broker paused: HirobaBrokerDown is told, that its nodes are deaf is held back, and it heals"""
    (broker,) = containers("broker")
    docker("pause", broker)
    try:
        await until(lambda: firing("HirobaBrokerDown"), "HirobaBrokerDown goes off", 120)
        await until(lambda: suppressed("HirobaNodeDeaf"), "HirobaNodeDeaf is held back", 180)
    finally:
        docker("unpause", broker)
    await until(lambda: nodes_up(2), "both nodes are ready again")
    await until(lambda: silent("HirobaBrokerDown"), "HirobaBrokerDown is over", 120)
    await chat(PUBLIC)


async def those_around_gone() -> None:
    """a node paused, the balancer and the exporter stopped: each is told by its own name"""
    node = next(iter(containers("gateway")))
    docker("pause", node)
    compose("stop", "redis-exporter")
    compose("kill", "haproxy")
    try:
        for alert in ("HirobaNodeDown", "HirobaBalancerDown", "HirobaBrokerUnwatched"):
            await until(lambda alert=alert: firing(alert), f"{alert} goes off", 180)  # type: ignore[misc]
    finally:
        docker("unpause", node)
        compose("up", "--detach")
    await until(well, "every container is healthy again")
    await until(lambda: nodes_up(2), "both nodes are ready again")


async def reloaded() -> None:
    """HAProxy reloaded under load: no connection is cut"""
    with Load(WS) as load:
        types(typed(OPERATIONS, "docker compose exec haproxy kill"))
        types(typed("docs/tls.md", "docker compose exec haproxy kill"))
        await until(lambda: nodes_up(2), "the new process has 2 nodes")
        await chat(PUBLIC)
        load.everybody_hears()
    assert load.result["counts"]["closed"] == 0, load.result["closes"]


async def crowded() -> None:
    """one address with too many handshakes: 429, and only for the handshakes above the limit"""
    await asyncio.sleep(10)  # the window of haproxy.cfg
    async with aiohttp.ClientSession() as http:
        statuses = [await _handshake(http) for _ in range(330)]
        assert 0 < statuses.count(429) < 60, f"{statuses.count(429)} of {len(statuses)} were answered 429"
        async with http.get(f"{PUBLIC}/chat/") as page:
            assert page.status == 200
    await asyncio.sleep(10)


async def stopped_and_started() -> None:
    """everything stopped, each with the exit code of an end in order, and started: people chat on in the same rooms"""
    types(typed(OPERATIONS, "docker compose stop"))
    codes = {
        found["Config"]["Labels"]["com.docker.compose.service"]: found["State"]["ExitCode"]
        for found in containers().values()
    }
    # 143: SIGTERM, passed on by the init of a program that knows no end in order.
    assert codes == dict.fromkeys(codes, 0) | {"redis-exporter": 143, "grafana": codes["grafana"]}, codes
    compose("up", "--detach", "--wait")
    await until(lambda: nodes_up(2), "both nodes are ready")
    await chat(PUBLIC)


ALL: tuple[Trial, ...] = (
    locked_up, watched, a_load_test, the_runbook, a_backup_restored, scaled, replaced, a_node_killed, a_broker_killed,
    a_broker_that_hangs, those_around_gone, reloaded, restarted, crowded, stopped_and_started, as_the_pages_have_it,
)  # fmt: skip


# ---- what they look at ----


async def chat(url: str, room: str = "compose", talkers: int = 8) -> None:
    """Everybody says something, and everybody hears all of it, once and in one order."""
    async with aiohttp.ClientSession() as http, asyncio.timeout(30):
        address = f"{url.replace('http', 'ws', 1)}/ws/chat/{room}/"
        sockets = [await http.ws_connect(address) for _ in range(talkers)]
        said = {f"{number} at {time.time_ns()}" for number in range(talkers)}
        for socket, text in zip(sockets, sorted(said), strict=True):
            await socket.send_json({"message": text})
        heard = [[(await socket.receive_json())["message"] for _ in said] for socket in sockets]
        for socket in sockets:
            await socket.close()
    assert set(heard[0]) == said, f"heard {heard[0]} of {said}"
    assert all(each == heard[0] for each in heard), "heard in different orders"


async def asked(url: str) -> Any:
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return await answer.json()


async def health(job: str, wanted: list[str]) -> bool:
    """Whether Prometheus has these targets of a job, by how they are."""
    targets = (await asked(f"{PROMETHEUS}/api/v1/targets"))["data"]["activeTargets"]
    return [each["health"] for each in targets if each["labels"]["job"] == job] == wanted


async def well() -> bool:
    """Whether every container says that it is. (`up --wait` gives up at the first that is unhealthy yet.)"""
    return all(found["State"]["Health"]["Status"] == "healthy" for found in containers().values())


async def nodes_up(count: int) -> bool:
    """Whether HAProxy has so many. A balancer that is away has none."""
    try:
        async with aiohttp.ClientSession() as http, http.get(f"{BALANCER}/metrics") as answer:
            lines = (await answer.text()).splitlines()
    except aiohttp.ClientError:
        return False
    up = [line for line in lines if line.startswith("haproxy_server_status{") and 'state="UP"' in line]
    return sum(line.endswith(" 1") for line in up if 'proxy="nodes"' in line) == count


async def firing(alert: str) -> bool:
    """Whether Alertmanager has it and tells it."""
    return any(_is(each, alert) for each in await asked(f"{ALERTMANAGER}/api/v2/alerts?active=true&inhibited=false"))


async def suppressed(alert: str) -> bool:
    """Whether Alertmanager has it and tells nobody, for another says it already."""
    return any(_is(each, alert) for each in await asked(f"{ALERTMANAGER}/api/v2/alerts?active=false&inhibited=true"))


async def silent(alert: str) -> bool:
    return not any(_is(each, alert) for each in await asked(f"{ALERTMANAGER}/api/v2/alerts"))


def _is(found: Mapping[str, Any], alert: str) -> bool:
    return bool(found["labels"]["alertname"] == alert)


async def _handshake(http: aiohttp.ClientSession) -> int:
    try:
        await (await http.ws_connect(f"{WS}/ws/chat/crowded/")).close()
    except aiohttp.WSServerHandshakeError as refused:
        return refused.status
    return 101


async def until(condition: Callable[[], Awaitable[bool]], what: str, within_s: float = 60.0) -> None:
    """Raises AssertionError."""
    deadline = time.monotonic() + within_s
    while not await condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(0.5)
