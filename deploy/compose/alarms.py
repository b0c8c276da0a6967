"""Every alarm of deploy/prometheus/rules made to go off by what it is about, as Alertmanager has it, until it is over.

Prometheus is in a hurry meanwhile: a copy of its file and of the rules has shorter intervals, windows and waits, and no
other thresholds. Nodes have room for few (alarms.yml). Who is told what, and when, is tests/deploy's business.
"""

import asyncio
import re
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import aiohttp

from deploy.compose.engine import ROOT, compose, types
from deploy.compose.mishaps import ALWAYS, MISHAPS, PATIENCE_S, Mishap, nothing, stopped
from deploy.compose.trials import ALERTMANAGER, PUBLIC, Untried, asked, nodes_up, until, well
from deploy.pages import typed

HERE = ROOT / "deploy" / "compose"
TLS = HERE / "tls.yml"
# What the shipped files wait for goes by faster: windows and what is asked how often, and how long something must last.
WINDOWS, WAITS = 5, 15


async def every_alarm() -> None:
    """every alarm, those of certificates apart: its cause, Alertmanager has it, the cause gone, it is over"""
    async with told_as_they_go(), in_a_hurry():
        for mishap, alarms in MISHAPS.items():
            await goes_off(mishap, alarms)


async def certificates() -> None:
    """deploy/compose/tls.yml: people come in by TLS, and each alarm about a certificate that nobody renews"""
    there_is_an_image()
    with directory() as here:
        pem = here / "tls" / "both.pem"
        make_certificate(pem, 90)
        async with told_as_they_go(), in_a_hurry(TLS, TLS_DIRECTORY=str(pem.parent)):
            await by_tls()
            for days, alarms in ENDS.items():
                renew(pem, days)
                await goes_off(nothing, alarms)
            renew(pem, 90)
            await goes_off(lambda told: stopped("blackbox-exporter", told), UNSEEN)


def there_is_an_image() -> None:
    """Raises Untried: the engine can't get it."""
    (image,) = re.findall(r"(?m)^ +image: (\S+)$", TLS.read_text("utf-8"))
    if any(subprocess.run(["docker", *get, image], capture_output=True, check=False).returncode == 0
           for get in (["image", "inspect"], ["pull"])):  # fmt: skip
        return
    raise Untried(f"the engine can't get the image {image}")


async def goes_off(mishap: Mishap, alarms: set[str]) -> None:
    """It is quiet before. Raises AssertionError."""
    what = ", ".join(sorted(alarms))

    async def quiet() -> bool:
        return not alarms & await telling()

    seen: set[str] = set()

    async def told() -> bool:
        seen.update(await telling())
        return alarms <= seen

    if alarms != {ALWAYS}:
        await until(quiet, f"quiet before {what}", PATIENCE_S)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await mishap(told)
    except TimeoutError:
        raise AssertionError(f"not within {PATIENCE_S:g} s: {what}; of these only {seen & alarms}") from None


async def telling() -> set[str]:
    """The alarms that Alertmanager has and no other holds back."""
    return await named("?active=true&inhibited=false")


async def named(which: str = "") -> set[str]:
    """The alarms that Alertmanager has, all or `which`."""
    return {each["labels"]["alertname"] for each in await asked(f"{ALERTMANAGER}/api/v2/alerts{which}")}


@asynccontextmanager
async def told_as_they_go() -> AsyncIterator[None]:
    """A line for each alarm that goes off, and for each that is over, held back or not, with its second."""
    began, known = time.monotonic(), set[str]()

    async def look() -> None:
        nonlocal known
        while True:
            with suppress(aiohttp.ClientError):  # Alertmanager is started anew at both ends
                now = await named()
                for alarm in sorted(now ^ known):
                    what = "goes off" if alarm in now else "is over"
                    print(f"\n{time.monotonic() - began:5.0f} s  {alarm} {what}", end="", flush=True)
                known = now
            await asyncio.sleep(0.5)

    looking = asyncio.create_task(look(), name="look at alarms")
    try:
        yield
    finally:
        looking.cancel()


@asynccontextmanager
async def in_a_hurry(*overlays: Path, **variables: str) -> AsyncIterator[None]:
    """docker-compose.yml with alarms.yml and what else is named; alone again when nothing is told any more."""
    with directory() as here:
        hurry(here)
        try:
            compose("up", "--detach", overlays=[HERE / "alarms.yml", *overlays], SOONER=str(here), **variables)
            # It forgets what the Prometheus before told it last.
            compose("restart", "alertmanager")
            await until(well, "every container is healthy", PATIENCE_S)
            await until(lambda: nodes_up(2), "both nodes are ready")
            yield

            async def over() -> bool:
                return await named() == {ALWAYS}

            # The longest is how often a node started within a quarter of an hour, a fifth of that here.
            await until(over, "every alarm is over", 2 * PATIENCE_S)
        finally:
            compose("up", "--detach", "--remove-orphans")
        await until(well, "every container is healthy again", PATIENCE_S)
        await until(lambda: nodes_up(2), "both nodes are ready again")


@contextmanager
def directory() -> Iterator[Path]:
    """One that the users of containers can read."""
    with tempfile.TemporaryDirectory(prefix="hiroba-compose-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def hurry(directory: Path) -> None:
    """Copies of prometheus.yml and rules/, in a hurry."""
    shipped = ROOT / "deploy" / "prometheus"
    text = (shipped / "prometheus.yml").read_text("utf-8")
    text = re.sub(r"(scrape_interval|scrape_timeout|evaluation_interval): \w+", rf"\1: {10 // WINDOWS}s", text)
    (directory / "prometheus.yml").write_text(text, "utf-8")
    (directory / "rules").mkdir()
    for rules in (shipped / "rules").glob("*.yml"):
        text = re.sub(
            r"\[(\d+)([smh])\]", lambda found: f"[{_milliseconds(found, WINDOWS)}ms]", rules.read_text("utf-8")
        )
        text = re.sub(r"for: (\d+)([smh])", lambda found: f"for: {_milliseconds(found, WAITS)}ms", text)
        (directory / "rules" / rules.name).write_text(text, "utf-8")


def _milliseconds(found: re.Match[str], by: int) -> int:
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] * 1000 // by


# ---- certificates ----

# Days until the end -> what is told.
ENDS: Mapping[int, set[str]] = {15: {"HirobaCertificateNotRenewed"}, 5: {"HirobaCertificateExpires"}}
UNSEEN = {"HirobaCertificateUnseen"}


def make_certificate(pem: Path, days: int) -> None:
    """Certificate and key in one file, in the old one's place in one step. (HAProxy takes all files beside it, too.)"""
    pem.parent.mkdir(exist_ok=True)
    key, fresh = pem.parent.parent / "key.pem", pem.parent.parent / "both.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    argv += ["-days", str(days), "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(fresh)]
    subprocess.run(argv, capture_output=True, check=True)
    fresh.write_bytes(fresh.read_bytes() + key.read_bytes())
    fresh.chmod(0o644)  # the container's user reads it
    fresh.replace(pem)


def renew(pem: Path, days: int) -> None:
    """As docs/tls.md has it."""
    make_certificate(pem, days)
    types(typed("docs/tls.md", "docker compose exec haproxy kill"))


async def by_tls() -> None:
    """A page, a socket, and who comes without TLS is sent there."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as http:
        async with http.get(f"{PUBLIC}/chat/", allow_redirects=False) as sent_on:
            secure = sent_on.headers["Location"]
            assert sent_on.status == 308 and secure == "https://127.0.0.1:8443/chat/", secure
        async with http.get(secure) as page:
            assert page.status == 200 and "Strict-Transport-Security" in page.headers
        async with http.ws_connect("wss://127.0.0.1:8443/ws/chat/secure/") as talker:
            await talker.send_json({"message": "by TLS"})
            assert (await talker.receive_json(timeout=10))["message"] == "by TLS"


# All that have a trial. A new alarm without one fails tests/deploy/test_compose.py.
TRIED = frozenset[str]().union(*MISHAPS.values(), *ENDS.values(), UNSEEN)
