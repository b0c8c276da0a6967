"""The built wheel, installed into an empty environment outside the checkout, is the whole product."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import aiohttp
import pytest

from tests.support.up import Up

CHECKOUT = Path(__file__).parents[2]
SOURCES = ("gateway", "clients", "broker_config", "loadtest", "pyproject.toml", "README.md", "LICENSE")


def _run(*argv: str | Path, cwd: Path) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that has our wheel, and otherwise only borrows the tests' libraries."""
    here = tmp_path_factory.mktemp("wheel")
    source, environment = here / "source", here / "environment"
    for name in SOURCES:
        original = CHECKOUT / name
        if original.is_dir():
            shutil.copytree(original, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(original, source / name)
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", here, cwd=source)
    (wheel,) = here.glob("hiroba-*.whl")
    venv.create(environment)
    python = environment / "bin" / "python"
    _run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=here)
    (site_packages,) = (environment / "lib").glob("python*/site-packages")
    # Only the directory: an editable hiroba in it is made known by a .pth file of its own, which is not read here.
    (site_packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = _run(python, "-c", "import gateway, broker_config, loadtest; print(gateway.__file__)", cwd=here)
    assert str(environment) in where, "the wheel's code runs, not the checkout's"
    return environment / "bin"


async def test_the_wheel_runs_hiroba_up(installed: Path, tmp_path: Path) -> None:
    """Scripts, configuration and pages are inside: a broker starts, a message makes the round, pages answer."""
    up = Up(tmp_path, argv=(str(installed / "hiroba"), "up"))
    up.process.cwd = tmp_path
    await up.start()
    async with aiohttp.ClientSession() as http:
        async with http.get(f"http://127.0.0.1:{up.port}/chat/部屋/") as page:
            assert page.status == 200
            assert "chat-message-input" in await page.text()
        for file in ("room.js", "client/index.js"):
            async with http.get(f"http://127.0.0.1:{up.port}/static/{file}") as script:
                assert script.status == 200
        async with http.ws_connect(up.ws_url("部屋")) as ws:
            await ws.send_json({"message": "やあ"})
            assert await ws.receive_json(timeout=20) == {"message": "やあ"}
    assert await up.process.stop() == 0


@pytest.mark.parametrize(
    "argv",
    [("--version",), ("config", "--example"), ("broker", "--help"), ("loadtest", "--help"), ("publish", "--help")],
)
def test_every_command_is_inside(installed: Path, tmp_path: Path, argv: tuple[str, ...]) -> None:
    assert _run(installed / "hiroba", *argv, cwd=tmp_path)


def test_the_load_test_finds_its_page(installed: Path, tmp_path: Path) -> None:
    script = "from importlib.resources import files; print(files('loadtest.page').joinpath('report.html').read_text())"
    assert "<html" in _run(installed / "python", "-c", script, cwd=tmp_path)
