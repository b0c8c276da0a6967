"""What a user can get wrong: one clear sentence, exit code 1, no traceback, no hang."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loadtest.cli import main
from loadtest.spec import BadSpec, read_duration, read_endpoint

URL = "ws://127.0.0.1:9"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "which server?"),
        (f"-H {URL} -f chater", "unknown scenario 'chater': did you mean chatter?"),
        (f"-H {URL} -f /nowhere/at/all.py", "there is no scenario file /nowhere/at/all.py"),
        (f"-H {URL} Nobody", "unknown user class 'Nobody'"),
        (f"-H {URL} -u 0", "--users 0 makes no load test"),
        (f"-H {URL} --rate -3", "--rate -3.0 makes no load test"),
        (f"-H {URL} -t soon", "'soon' is no duration"),
        (f"-H {URL} -t 0s", "no time at all"),
        (f"-H {URL} --rooms 50", "50 rooms for 10 users"),
        (f"-H {URL} --rooms-per-connection 3", "--rooms-per-connection needs --wire v1"),
        (f"-H {URL} --wire v1 --rooms-per-connection 0", "--rooms-per-connection 0 makes no load test"),
        (f"-H {URL} --wire v1 --rooms-per-connection 9 --rooms 3", "there are only 3 --rooms"),
        (f"-H {URL}/ws/chat/{{room}}/ --wire v1 --rooms-per-connection 3", "is the address without a room, as /ws/"),
        (f"-H {URL} --processes 0", "--processes 0"),
        (f"-H {URL} -u 100 -r 1 -t 10s", "only 10 of 100 users"),
        (f"-H {URL} --shape steep", "unknown shape 'steep': did you mean steps?"),
        (f"-H {URL} --shape steps:cuont=3", "did you mean count?"),
        (f"-H {URL} --set speed=3", "unknown attribute of these users 'speed'"),
        (f"-H {URL} -f churn --set stay_s=long", "stay_s='long': that should be float"),
        (f"-H {URL} --tags none", "the tags leave no task"),
        (f"-H {URL} --fail-if p98>3", "unknown measure 'p98': did you mean p99?"),
        (f"-H {URL} --fail-if p99", "write it as"),
        (f"-H {URL} --json /nowhere/x.json", "there is no directory /nowhere"),
        (f"-H {URL} --html /proc", "/proc can't be written: Is a directory"),
        (f"-H {URL} --csv /proc/x", "/proc/x_timeline.csv can't be written"),
        ("-H ftp://127.0.0.1", "begins with ws:// or wss://"),
        ("-H ws://127.0.0.1:99999", "Port out of range"),
        ("-H ws://127.0.0.1:9/one/room/ -u 20 --rooms 2", "write {room}"),
        (f"-H {URL}", "can't be reached"),
        (f"-H {URL} --metrics http://127.0.0.1:9/metrics", "gives no metrics"),
        (f"-H {URL} -f presenter -u 2 --rooms 2 Presenter -u 4", "seats 1 per room"),
        (f"-H {URL} -u 2000000000", "file descriptors"),
        ("-H ws://two..dots", "'ws://two..dots'"),
    ],
)
def test_it_is_said_in_one_sentence(arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *arguments.split()]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import loadtest\nraise RuntimeError('no luck')\n", "fails at line 2: RuntimeError: no luck"),
        ("def broken(:\n", "fails at line 1: SyntaxError"),
        ("print()\n", "defines no User class"),
        (
            "from loadtest import User, task\nclass A(User):\n    @task\n    async def t(self): pass\n",
            "A has tasks and no wait_time",
        ),
        (
            "from loadtest import *\nclass A(User): pass\nclass S(LoadTestShape):\n    def tick(self): return 1 / 0\n",
            "the shape's tick fails: ZeroDivisionError",
        ),
    ],
)
def test_a_scenario_file_that_is_wrong(
    code: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scenario.py"
    file.write_text(code)
    assert main(["run", "-H", URL, "-f", str(file)]) == 1
    assert sentence in capsys.readouterr().err


@contextlib.asynccontextmanager
async def speaking(answer: bytes) -> AsyncIterator[str]:
    """A server that says the same to everyone."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(1)
            writer.write(answer)
            await writer.drain()
            await reader.read()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"220 mail.example ESMTP\r\n", "the answer to the handshake is not HTTP"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "the handshake was answered 404"),
        (b"HTTP/1.1 101 Switching\r\nSec-WebSocket-Accept: guess\r\n\r\n", "Sec-WebSocket-Accept is wrong"),
    ],
)
async def test_a_server_that_speaks_something_else(
    answer: bytes, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with speaking(answer) as url:
        assert await asyncio.to_thread(main, ["run", "-H", url]) == 1
    assert sentence in capsys.readouterr().err


def test_a_name_that_does_not_resolve(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Not the real resolver: a test asks no name server.
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert main(["run", "-H", "ws://no.such.host"]) == 1
    assert "can't be reached: Name or service not known" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[]", '{"schema": "other/1"}', "{"])
def test_a_report_of_something_else(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    file.write_text(text)
    assert main(["report", str(file)]) == 1
    assert str(file) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("500ms", 0.5), ("1.5s", 1.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert read_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "1x", "-3", "1h 30m", "m10", "90 s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(BadSpec):
        read_duration(text)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ws://host:8000", "ws://host:8000/ws/chat/{room}/"),
        ("host:8000", "ws://host:8000/ws/chat/{room}/"),
        ("https://chat.example", "wss://chat.example/ws/chat/{room}/"),
        ("wss://[::1]:9/x/{room}?k=v", "wss://[::1]:9/x/{room}?k=v"),
    ],
)
def test_addresses(url: str, told: str) -> None:
    assert read_endpoint(url, 5).url == told


def test_a_room_name_travels_in_the_path_and_an_id_in_the_query() -> None:
    assert read_endpoint("ws://h/x/{room}?k=v", 5).path_of("部屋", "17-3") == "/x/%E9%83%A8%E5%B1%8B?k=v&after=17-3"
