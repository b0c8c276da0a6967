"""Log lines: the tutorial's for people, one JSON object each for machines, no password and no broken line in either."""

import ast
import json
import logging
import os
import pty
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gateway.settings.model import Settings
from gateway.telemetry import logs
from gateway.telemetry.logs import access
from gateway.telemetry.repeats import LINES_MAX

ROOT = Path(__file__).parents[2]
PASSWORD = "hunter2-geheim"
URL = f"redis://app:{PASSWORD}@broker:6379/0"
PEER = "127.0.0.1:56379"
LEVELS = ("info", "warning", "error", "exception", "critical")

Lines = Callable[[], list[str]]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, hook, unraisable = logging.getLogger(), sys.excepthook, sys.unraisablehook
    handlers, level = root.handlers, root.level
    yield
    logging.captureWarnings(False)
    root.handlers, root.level, sys.excepthook, sys.unraisablehook = handlers, level, hook, unraisable
    access.on = access.people = False
    structlog.reset_defaults()


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Lines:
    """What was written to standard error since the last call; nothing goes to standard output."""

    def read() -> list[str]:
        out, err = capfd.readouterr()
        assert out == ""
        return err.split("\n")[:-1]

    return read


def for_people(level: str = "info") -> None:
    logs.setup(Settings(log_format="console", log_level=level), "n1")  # type: ignore[arg-type]


def for_machines(level: str = "info") -> None:
    logs.setup(Settings(log_format="json", log_level=level), "n1")  # type: ignore[arg-type]


def the_life_of_a_connection() -> None:
    access.http("GET", "/chat/demoroom/", 200, 0.0213, PEER)
    access.ws("HANDSHAKING", "/ws/chat/demoroom/", PEER)
    access.ws("CONNECT", "/ws/chat/demoroom/", PEER)
    access.ws("REJECT", "/ws/chat/x/", PEER, status=403, reason="origin")
    access.ws("DISCONNECT", "/ws/chat/demoroom/", PEER, room="demoroom", code=1001, open_s=3.25)


def test_people_see_what_the_tutorials_server_showed(lines: Lines) -> None:
    for_people()
    the_life_of_a_connection()
    shown = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines()]
    assert shown == [
        "HTTP GET /chat/demoroom/ 200 [0.02, 127.0.0.1:56379]",
        "WebSocket HANDSHAKING /ws/chat/demoroom/ [127.0.0.1:56379]",
        "WebSocket CONNECT /ws/chat/demoroom/ [127.0.0.1:56379]",
        "WebSocket REJECT /ws/chat/x/ [127.0.0.1:56379]  status=403 reason=origin",
        "WebSocket DISCONNECT /ws/chat/demoroom/ [127.0.0.1:56379]  room=demoroom code=1001 open_s=3.25",
    ]


def test_machines_get_one_canonical_line_per_connection(lines: Lines) -> None:
    for_machines()
    the_life_of_a_connection()
    got = [json.loads(line) for line in lines()]
    for line in got:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
        assert (line.pop("level"), line.pop("node")) == ("info", "n1")
    assert got == [
        {
            "event": "http",
            "method": "GET",
            "path": "/chat/demoroom/",
            "status": 200,
            "seconds": 0.0213,
            "peer": PEER,
        },
        {
            "event": "websocket",
            "step": "REJECT",
            "path": "/ws/chat/x/",
            "peer": PEER,
            "status": 403,
            "reason": "origin",
        },
        {
            "event": "websocket",
            "step": "DISCONNECT",
            "path": "/ws/chat/demoroom/",
            "peer": PEER,
            "room": "demoroom",
            "code": 1001,
            "open_s": 3.25,
        },
    ]


@pytest.mark.parametrize("use", [for_people, for_machines])
def test_only_the_level_asked_for_is_written(use: Callable[[str], None], lines: Lines) -> None:
    log = structlog.get_logger()
    use("warning")
    the_life_of_a_connection()
    log.info("quiet")
    assert lines() == []
    log.warning("loud")
    assert len(lines()) == 1
    use("debug")
    log.debug("talkative")
    assert "talkative" in lines()[0]


def calls_of_log() -> Iterator[tuple[str, str, str]]:
    """Where, at what level and in what words each `log.` call of the node speaks; `#` for what it fills in."""
    for path in sorted({*(ROOT / "gateway").rglob("*.py")} - {ROOT / "gateway" / "telemetry" / "logs.py"}):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            if ast.unparse(call.func.value) in ("log", "self._log") and call.func.attr in LEVELS:
                (words,) = call.args
                yield f"{path.relative_to(ROOT)}:{call.lineno}", call.func.attr, "".join(_words(words)) or "#"


def _words(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        for part in node.values:
            yield from _words(part)
    elif isinstance(node, ast.FormattedValue):
        yield "#"


def test_no_call_of_log_writes_more_than_its_share(lines: Lines) -> None:
    """Whatever the broker refuses, however many rooms meet it: each `log.` call there is, said twice as often.

    But for those of logs.Access: a line for each connection or request is theirs.
    """
    calls = list(calls_of_log())
    assert len(calls) > 30 and any("broker/refusals.py" in where for where, _, _ in calls)
    for where, level, words in calls:
        for_machines()
        for n in range(2 * LINES_MAX):
            getattr(structlog.get_logger(), level)(words.replace("#", str(n)), room=f"room{n}")
        assert len(lines()) == LINES_MAX, (where, words)


def test_access_says_nothing_before_setup(lines: Lines) -> None:
    the_life_of_a_connection()
    assert lines() == []


# What could end a line, steer a terminal or not be written at all.
NASTY = "a\r\nb\x1b[31m\x00\x7f\x85\u2028\u202e\udcff部屋"


@pytest.mark.parametrize("nasty", [NASTY, "\r\n\x1b[31m\x00\x7froom"], ids=["any", "ascii"])
@pytest.mark.parametrize("use", [for_people, for_machines])
def test_control_characters_neither_break_a_line_nor_steer_a_terminal(
    use: Callable[[], None], lines: Lines, nasty: str
) -> None:
    use()
    access.http("GET", f"/chat/{nasty}/", 404, 0.0, PEER)
    structlog.get_logger().warning(nasty, fact=nasty, **{"odd\nkey": nasty})
    for line in lines():
        assert line.splitlines() == [line]
        assert nasty[-2:] in line
        assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]", line)
        line.encode()


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(text=st.text(st.characters()))
def test_json_gives_back_what_was_logged(text: str, lines: Lines) -> None:
    for_machines()
    structlog.get_logger().info("said", path=text)
    (line,) = lines()
    assert json.loads(line)["path"] == text or "://" in text


def test_values_of_any_type_are_written(lines: Lines) -> None:
    for_machines()
    structlog.get_logger().info("ready", data=Path("x"), nested={"a": (1, None)}, error=OSError("gone"))
    (line,) = lines()
    got = json.loads(line)
    assert (got["data"], got["nested"], got["error"]) == ("x", {"a": [1, None]}, "OSError: gone")


@pytest.mark.parametrize("use", [for_people, for_machines])
def test_libraries_and_warnings_take_the_same_road(use: Callable[[], None], lines: Lines) -> None:
    use()
    logging.getLogger("asyncio").error("Task of %s failed", URL, exc_info=OSError(URL))
    logging.getLogger("redis").info("inner life")
    logging.getLogger("odd").log(37, "a level without a name")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old ways", stacklevel=1)
    shown = "\n".join(lines())
    assert "Task of redis://app:***@broker:6379/0 failed" in shown and "OSError" in shown
    assert "a level without a name" in shown and "old ways" in shown
    assert "inner life" not in shown and PASSWORD not in shown


@pytest.mark.parametrize("use", [for_people, for_machines])
def test_no_line_holds_a_password(use: Callable[[], None], lines: Lines) -> None:
    """Wherever it hides: in text, objects, lists, exceptions and their causes."""
    use()
    log = structlog.get_logger()
    log.info(f"connecting to {URL}", url=URL, settings=Settings(broker_url=URL), urls=[URL, {"a": URL}])
    log.warning("broker gone", error=ConnectionError(f"{URL} refused"))
    try:
        try:
            raise OSError(URL)
        except OSError as exc:
            raise RuntimeError(f"no road to {URL}") from exc
    except RuntimeError as exc:
        log.exception("given up")
        log.error("given up", exc_info=exc)
    shown = "\n".join(lines())
    assert shown.count("redis://app:***@broker:6379/0") >= 9
    assert PASSWORD not in shown


def run(script: str, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_crash_is_one_line_without_local_variables_and_passwords() -> None:
    script = (
        "from gateway.telemetry import logs; from gateway.settings.model import Settings\n"
        f"settings = Settings(broker_url={URL!r}, log_format='json')\n"
        "logs.setup(settings)\n"
        "def fail():\n"
        "    secret_local = 'in-a-local'\n"
        "    raise OSError(settings.broker_url)\n"
        "fail()\n"
    )
    done = run(script)
    (line,) = done.stderr.splitlines()
    got = json.loads(line)
    assert done.returncode == 1 and done.stdout == ""
    assert (got["level"], got["event"]) == ("critical", "crashed")
    assert "OSError: redis://app:***@broker" in got["exception"] and "in fail" in got["exception"]
    assert PASSWORD not in line and "in-a-local" not in line


def test_auto_is_console_on_a_terminal_and_json_elsewhere() -> None:
    script = (
        "import structlog; from gateway.telemetry import logs; from gateway.settings.model import Settings\n"
        "logs.setup(Settings()); structlog.get_logger().warning('hello', n=1)\n"
    )
    assert json.loads(run(script).stderr)["event"] == "hello"
    outside, inside = pty.openpty()
    try:
        run(script, stderr=inside)
        shown = os.read(outside, 4096).decode()
    finally:
        os.close(inside)
        os.close(outside)
    assert re.fullmatch(r"\d\d:\d\d:\d\d \x1b\[33mwarning: \x1b\[0mhello  \x1b\[2mn=1\x1b\[0m", shown.strip())


def long_lines() -> str:
    """A process whose lines are as long as a stranger can make them: a request line may have 8,190 bytes."""
    return (
        "import sys; from gateway.telemetry import logs; from gateway.settings.model import Settings\n"
        "logs.setup(Settings(log_format='json'), sys.argv[1])\n"
        "for _ in range(300): logs.access.http('GET', '/部屋/' + sys.argv[1] * 8_000, 404, 0.0, '-')\n"
    )


def test_lines_of_several_processes_on_one_slow_pipe_stay_whole_and_utf8() -> None:
    """Nodes of one `hiroba up`, or of a container, share a pipe; the kernel keeps a write whole up to PIPE_BUF only."""
    ours, theirs = os.pipe()
    env = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    with os.fdopen(ours, "rb", buffering=0) as pipe:
        children = [
            subprocess.Popen([sys.executable, "-c", long_lines(), name], cwd=ROOT, stderr=theirs, env=env)
            for name in "ab"
        ]
        os.close(theirs)
        read = b"".join(iter(lambda: pipe.read(1_000), b""))
    assert [child.wait(60) for child in children] == [0, 0]
    lines = [json.loads(line) for line in read.decode().splitlines()]
    assert len(lines) == 600
    for line in lines:
        assert line["path"].startswith("/部屋/aaa" if line["node"] == "a" else "/部屋/bbb")
        assert "characters cut" in line["path"] and line["cut"] == ["path"]


class Deep:
    """What `repr` makes long."""

    def __repr__(self) -> str:
        return "deep " * 2_000


@pytest.mark.parametrize("use", [for_people, for_machines])
@pytest.mark.parametrize("char", ["x", "部", "🙂", '"', "\x1b", "\udcff", "\n"])
def test_a_line_too_long_is_cut_where_one_sees_it(use: Callable[[], None], char: str, lines: Lines) -> None:
    """Whatever a character costs when it is escaped: 1 byte or 12."""
    use()
    log = structlog.get_logger()
    long = f"begin{char * 5_000}end"
    log.info("one", path=long, short="kept")
    log.info(long, path=long, facts=[long, {"deep": long}], other=Deep())
    log.info("many", **{f"field_{n}": long for n in range(200)})
    shown = lines()
    assert len(shown) == 3
    for line in shown:
        assert len(line.encode()) < logs.LINE_BYTES_MAX
    assert "kept" in shown[0] and "begin" in shown[0] and "characters cut" in shown[0] and "end" in shown[0]
    assert "many" in shown[2] and "all other fields" in shown[2]
    if use is for_machines:
        one, all_of_it, many = map(json.loads, shown)
        assert (one["cut"], one["short"]) == (["path"], "kept")
        assert set(all_of_it["cut"]) == {"event", "path", "facts", "other"}
        assert (many["cut"], many["level"], many["node"]) == ("all other fields", "info", "n1")


def fail(depth: int) -> None:
    if depth:
        fail(depth - 1)
    raise OSError("the innermost reason" + "!" * 5_000 + "ends so")


@pytest.mark.parametrize("use", [for_people, for_machines])
def test_a_long_traceback_keeps_its_ends(use: Callable[[], None], lines: Lines) -> None:
    use()
    try:
        fail(20)
    except OSError:
        structlog.get_logger().exception("given up")
    shown = "\n".join(lines())
    assert len(shown.encode()) < logs.LINE_BYTES_MAX
    assert "given up" in shown and "Traceback (most recent call last)" in shown and "ends so" in shown
    assert "characters cut" in shown


def test_an_exception_that_nobody_can_catch_is_one_line_too() -> None:
    script = (
        "from gateway.telemetry import logs; from gateway.settings.model import Settings\n"
        "logs.setup(Settings(log_format='json'))\n"
        "class Odd:\n"
        "    def __del__(self): raise OSError('gone')\n"
        "Odd()\n"
    )
    (line,) = run(script).stderr.splitlines()
    got = json.loads(line)
    assert got["level"] == "error" and "OSError: gone" in got["exception"] and "__del__" in got["at"]


def test_no_order_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    """Who put out whom is asked for later: lines that only repeat are bounded, these are not."""
    logs.setup(Settings(log_format="json"))
    for n in range(50):
        structlog.get_logger().info(logs.ORDER, user=f"u{n}", by="operator")
    assert len(capfd.readouterr().err.splitlines()) == 50


def test_no_connection_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    """Of any kind: each line is somebody's."""
    for_machines()
    for say in (access.ws, access.sse, access.stream):
        for n in range(LINES_MAX + 5):
            say("DISCONNECT", f"/{n}", PEER)
    assert capfd.readouterr().err.count("DISCONNECT") == 3 * (LINES_MAX + 5)
