"""docs/operations.md from top to bottom, by somebody who types what it says: by hand, and on `make stack`.

Each step looks for what the page says of it, and not only for exit code 0. On Compose it is deploy/compose/trials.py.
"""

import re
from pathlib import Path

import aiohttp
import psutil
import pytest

from deploy.compose.trials import chat
from deploy.pages import typed
from deploy.stack.parts import PACKAGES
from tests.deploy.machine import Machine, machine
from tests.support.need import need_tool
from tests.support.process import Process
from tests.support.until import until

OPERATIONS = "docs/operations.md"
TROUBLE = "docs/troubleshooting.md"
K8S = "deploy/k8s/README.md"
PUBLIC, BALANCER = "http://127.0.0.1:8000", "http://127.0.0.1:8404"
AT_BROKER = {"HOST:6379": "127.0.0.1:6379"}
# HAProxy's own: wants no more descriptors than a small machine gives.
SMALL = {"LB_CONNECTIONS_MAX": "1000"}
OPERATOR = "redis-cli --user operator -e"

pytestmark = [pytest.mark.timeout(240)]


@pytest.fixture(autouse=True)
def programs() -> None:
    for program, package in PACKAGES.items():
        need_tool(program, package)


@pytest.mark.long
async def test_an_installation_by_hand_as_the_page_has_it(tmp_path: Path) -> None:
    """Broker, its users, nodes, HAProxy, a new password: `For real`, step by step."""
    with machine(tmp_path) as at:
        made = typed(OPERATIONS, "hiroba broker secrets", {"[": "", "]": ""})
        at.run(made)
        passwords = {user: at.password(user) for user in ("gateway", "operator", "exporter")}
        at.run(made)
        assert passwords == {user: at.password(user) for user in passwords}, "written once"
        assert len(set(passwords.values())) == 3
        await the_broker(at, tmp_path)
        for number in range(2):  # where nodes.cfg says that they are
            settings = {
                "HIROBA_BROKER_URL": f"redis://gateway:{passwords['gateway']}@127.0.0.1:6379/0",
                "HIROBA_TRUSTED_PROXIES": "127.0.0.1",
                "HIROBA_PORT": str(8001 + number),
                "HIROBA_OPS_PORT": str(9000 + number),
            }
            at.start(f"node{number}", "exec hiroba node", **settings)
        await the_balancer(at)
        await a_new_password(at)


async def the_broker(at: Machine, directory: Path) -> None:
    places = {
        "/var/lib/hiroba": str(directory / "data"),
        "/etc/hiroba/users.acl": str(at.checkout / "secrets/users.acl"),
    }
    (directory / "data").mkdir()
    at.start("broker", typed(OPERATIONS, "valkey-server", {"ADDRESS": "127.0.0.2", **places}), at="broker_config")
    operator = {"REDISCLI_AUTH": at.password("operator")}
    for address in ("127.0.0.1", "127.0.0.2"):
        await until(
            lambda a=address: "PONG" in at.run(f"{OPERATOR} -h {a} PING || :", **operator), "it answers", every_s=0.1
        )  # type: ignore[misc]
    assert "NOAUTH" in at.run("redis-cli -e PING", code=1), "`default` is nobody"
    check = typed(OPERATIONS, "hiroba broker check redis://operator@HOST", AT_BROKER)
    said = at.run(check)
    assert "note: script publish.lua is not loaded" in said and "as hiroba wants it" in said
    at.run(f"{OPERATOR} CONFIG SET maxmemory-policy allkeys-lru", **operator)
    assert "drift: maxmemory-policy" in at.run(check, code=3), "exit code 3 when it differs"
    assert "mended: maxmemory-policy" in at.run(
        typed(OPERATIONS, "hiroba broker apply redis://operator@HOST", AT_BROKER)
    )
    assert "is not loaded" not in at.run(check)
    # A server that runs already.
    (directory / "other").mkdir()
    (directory / "other" / "server.conf").write_text("port 6390\nbind 127.0.0.1\n")
    at.start("other", f"cd {directory}/other && valkey-server server.conf")
    await until(lambda: "PONG" in at.run("redis-cli -p 6390 PING || :"), "the other answers", every_s=0.1)
    said = at.run(typed(OPERATIONS, "hiroba broker apply redis://HOST", {"HOST:6379": "127.0.0.1:6390"}))
    assert "mended: appendonly" in said and "log in as operator" in said


async def the_balancer(at: Machine) -> None:
    checked = at.run(typed(OPERATIONS, "haproxy -c -f"), at="deploy/haproxy", **SMALL)
    assert "valid" in checked
    socket = {"LB_SOCKET": f"{at.temp}/haproxy.sock"}
    haproxy = at.start("haproxy", f"exec {typed(OPERATIONS, 'haproxy -W')}", at="deploy/haproxy", **SMALL, **socket)
    await until(lambda: nodes(at, socket["LB_SOCKET"], "UP") == 2, "HAProxy has both nodes", every_s=0.2)
    await chat(PUBLIC)
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{PUBLIC}/ws/chat/reload/") as before:
        worker = at.run(f"pgrep -P {haproxy.pid}").split()
        at.run(typed(OPERATIONS, "kill -USR2", {"PID": str(haproxy.pid)}))
        assert typed(OPERATIONS, "kill -USR2") == typed(TROUBLE, "kill -USR2")
        await until(lambda: len(at.run(f"pgrep -P {haproxy.pid}").split()) > len(worker), "a new process takes over")
        await before.send_json({"message": "nobody is cut off"})
        assert await before.receive_json(timeout=20) == {"message": "nobody is cut off"}
        await chat(PUBLIC)


async def a_new_password(at: Machine) -> None:
    """Both are valid between the two steps, and then the new one."""
    old, operator = at.password("gateway"), {"REDISCLI_AUTH": at.password("operator")}
    at.run(f"{OPERATOR} {quoted(typed(OPERATIONS, 'ACL SETUSER gateway', {'NEW': 'a-new-one'}))}", **operator)
    assert let_in(at, old) and let_in(at, "a-new-one")
    file = at.checkout / ".env"
    file.write_text(file.read_text("utf-8").replace(old, "a-new-one"), "utf-8")
    at.run(typed(OPERATIONS, "hiroba broker apply redis://operator@HOST", AT_BROKER))
    assert let_in(at, "a-new-one") and not let_in(at, old)


def let_in(at: Machine, password: str) -> bool:
    """Whether the broker knows `gateway` by this password; that it may not PING, it is told afterwards."""
    said = at.run("redis-cli -e --user gateway PING", code=1, REDISCLI_AUTH=password)
    assert "WRONGPASS" in said or "NOPERM" in said, said
    return "WRONGPASS" not in said


async def test_what_the_page_has_people_type_on_the_stack(tmp_path: Path) -> None:
    """From `make stack` on a checkout in which nothing was run, over a day of work at it, to Ctrl-C."""
    with machine(tmp_path) as at:
        stack = await up(at)
        await chat(PUBLIC)
        the_broker_of_the_stack(at)
        await a_node_taken_out(at)
        await a_backup(at, tmp_path)
        await what_alarms_ask_for(at)
        parts = psutil.Process(stack.pid).children(recursive=True)
        await at.ctrl_c(stack)
        assert "Stopping …" in stack.tail() and not any(part.is_running() for part in parts)


async def up(at: Machine) -> Process:
    stack = at.start("stack", "exec make stack")
    await until(lambda: "Up in" in stack.tail() or not stack.running, "the stack is up", 120, every_s=0.1)
    assert "Up in" in stack.tail(), stack.tail()
    return stack


def the_broker_of_the_stack(at: Machine) -> None:
    url = {"URL": "redis://operator@127.0.0.1:6379"}
    for text in (
        typed(OPERATIONS, "hiroba broker check redis://operator@HOST", AT_BROKER),
        typed(OPERATIONS, "hiroba broker apply URL", url),
        typed(OPERATIONS, "hiroba broker check URL", url),
        typed(K8S, "hiroba broker apply URL", url),
        typed(K8S, "hiroba broker check URL", url),
    ):
        assert "as hiroba wants it" in at.run(text)


async def a_node_taken_out(at: Machine) -> None:
    """It gets nobody new, and those that it has stay."""
    text = typed(OPERATIONS, "echo 'set server", {"/tmp/hiroba-haproxy.sock": f"{at.temp}/hiroba-haproxy-8000.sock"})
    socket = f"{at.temp}/hiroba-haproxy-8000.sock"
    at.run(text)
    await until(lambda: nodes(at, socket, "DRAIN") == 1, "node0 drains")
    at.run(text.replace("state drain", "state ready"))
    await until(lambda: nodes(at, socket, "UP") == 2, "node0 is back", every_s=0.2)


async def a_backup(at: Machine, directory: Path) -> None:
    """What was said before it is in a server on the copy."""
    (backup := directory / "backup").mkdir()
    filled = {"…": at.password("operator"), "/var/lib/hiroba": "data/stack/broker", "/backup/": f"{backup}/"}
    said = at.run(typed(OPERATIONS, "export REDISCLI_AUTH=…    # BROKER_OPERATOR_PASSWORD\nredis-cli --user", filled))
    assert "aof_rewrite_in_progress:0" in said
    await restored(at, backup)


async def restored(at: Machine, backup: Path) -> None:
    (backup / "server.conf").write_text("port 6391\nbind 127.0.0.1\nappendonly yes\n")
    server = at.start("restored", f"cd {backup} && exec valkey-server server.conf")
    await until(lambda: "PONG" in at.run("redis-cli -p 6391 PING || :"), "the restored server answers", every_s=0.1)
    assert ":log:compose" in at.run("redis-cli -p 6391 --scan --pattern 'hiroba:*:log:*'")
    assert await server.stop() == 0


async def what_alarms_ask_for(at: Machine) -> None:
    """Each command of the paragraphs shows what it is named for."""
    auth = {"REDISCLI_AUTH": at.password("operator")}
    assert "hiroba:" in at.run(typed(OPERATIONS, "redis-cli --user operator --memkeys"), **auth)
    for text, answer in (
        (typed(OPERATIONS, "LATENCY LATEST"), ""),
        (typed(OPERATIONS, "CONFIG SET maxmemory"), "OK"),
        (typed(OPERATIONS, "BGREWRITEAOF"), "started"),
        (typed(OPERATIONS, "BGSAVE"), "started"),
    ):
        assert answer in at.run(f"{OPERATOR} {quoted(text)}", **auth), text
        await until(lambda: not rewriting(at, auth), "the child is done", every_s=0.1)
    listening = at.run(typed(TROUBLE, "ss -ltnp"))
    (pid,) = re.findall(r":8001 .*pid=(\d+)", listening)
    for stack in (typed(OPERATIONS, "py-spy dump", {"…": pid}), typed(TROUBLE, "py-spy dump", {"…": pid})):
        assert "MainThread" in at.run(stack)
    for limit in (typed(OPERATIONS, "ulimit -n"), typed(TROUBLE, "ulimit -n")):
        assert int(at.run(limit)) > 0


@pytest.mark.long
async def test_an_upgrade_beside_the_load_test_of_the_page(tmp_path: Path) -> None:
    """One node after the other, as the page has it, until Ctrl-C ends the load test: what it judges by is met."""
    with machine(tmp_path) as at:
        stack = await up(at)
        text = typed(OPERATIONS, "hiroba loadtest run", {"wss://chat.example.org": PUBLIC.replace("http", "ws")})
        run = at.start("loadtest", f"exec {text}")
        await until(lambda: "200 users  " in run.tail() or not run.running, "people chat", 60)
        for number in range(2):
            await restarted(at, stack, number)
        # 98: this machine was too busy to say.
        assert await at.ctrl_c(run) in (0, 98), run.tail()
        assert "lost 0  doubled 0" in run.tail() and "overdue max" in run.tail(), run.tail()


async def restarted(at: Machine, stack: Process, number: int) -> None:
    """`make stack` starts the new one as soon as the old one has ended."""
    (pid,) = re.findall(rf"(?m)^node{number} .* (\d+)  \S+log$", stack.tail())
    at.run(f"kill -TERM {pid}")
    await until(lambda: not psutil.pid_exists(int(pid)), "it has drained and ended", 90, every_s=0.2)
    await until(
        lambda: nodes(at, f"{at.temp}/hiroba-haproxy-8000.sock", "UP") == 2, "HAProxy has it UP", 30, every_s=0.2
    )
    at.run(f"curl -fsS http://127.0.0.1:{9000 + number}/readyz")


def rewriting(at: Machine, auth: dict[str, str]) -> bool:
    return bool(re.search("(rewrite|bgsave)_in_progress:1", at.run(f"{OPERATOR} INFO persistence", **auth)))


def quoted(text: str) -> str:
    return " ".join(f"'{word}'" for word in text.split())


def nodes(at: Machine, socket: str, state: str) -> int:
    """How many of HAProxy's nodes are so, by its own statistics."""
    said = at.run(f"echo 'show stat' | socat - {socket} || :")
    return sum(line.startswith("nodes,node") and f",{state}," in line for line in said.splitlines())
