"""clients/js as a stranger gets it: small, typed, alone, and what its README says runs."""

import gzip
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.clients.person import need_node
from tests.conftest import NodeFactory
from tests.support.need import need_tool
from tests.support.process import Process
from tests.support.until import until

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "js"
HERE = Path(__file__).parent
# Bundled and minified, as a page loads them. Some gzips make 10 bytes more of it than Python's zlib: hence the reserve.
SIZES_MAX_BYTES = {"index": 6 * 1024, "people": 1024}
RESERVE_BYTES = 32


def run(*argv: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A project of somebody's that has our package in its node_modules, and no more of it than is published."""
    home = tmp_path / "node_modules" / "hiroba"
    home.mkdir(parents=True)
    for name in ["package.json", *json.loads((CLIENT / "package.json").read_text())["files"]]:
        original = CLIENT / name
        (shutil.copytree if original.is_dir() else shutil.copy)(original, home / name)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    return tmp_path


@pytest.mark.parametrize("module", SIZES_MAX_BYTES)
def test_it_is_small(module: str) -> None:
    esbuild = need_tool("esbuild", "esbuild")
    bundle = run(esbuild, CLIENT / "src" / f"{module}.js", "--bundle", "--minify", "--format=esm")
    assert len(gzip.compress(bundle.encode(), 9)) <= SIZES_MAX_BYTES[module] - RESERVE_BYTES


def test_it_stands_alone_and_has_our_version() -> None:
    package = json.loads((CLIENT / "package.json").read_text())
    assert not {"dependencies", "peerDependencies", "scripts"} & package.keys()
    assert package["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for file in CLIENT.glob("src/*.js"):
        assert all(name.startswith("./") for name in re.findall(r'from "(.+?)"', file.read_text("utf-8"))), file


@pytest.mark.parametrize("module", [".", "./people"])
def test_its_types_are_what_it_exports(installed: Path, module: str) -> None:
    package = json.loads((CLIENT / "package.json").read_text())
    name, types_of = f"hiroba{module[1:]}", package["exports"][module]["types"]
    (installed / "names.js").write_text(f'console.log(JSON.stringify(Object.keys(await import("{name}"))))')
    exported = set(json.loads(run(*need_node(), installed / "names.js", cwd=installed)))
    types = (CLIENT / types_of).read_text("utf-8")
    assert set(re.findall(r"^export (?:class|const|function) (\w+)", types, re.MULTILINE)) == exported


def test_a_stranger_s_program_is_checked_by_the_types(installed: Path) -> None:
    tsc = need_tool("tsc", "node-typescript")
    shutil.copy(HERE / "stranger.ts", installed)
    flags = ["--strict", "--noEmit", "--target", "es2022", "--module", "nodenext", "--moduleResolution", "nodenext"]
    run(tsc, *flags, "stranger.ts", cwd=installed)


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
async def test_the_ten_lines_of_the_readme_run(start_node: NodeFactory, installed: Path) -> None:
    node = await start_node()
    lines, *_ = re.findall(r"```js\n(.+?)```", (CLIENT / "README.md").read_text("utf-8"), re.DOTALL)
    assert "https://chat.example.org/" in lines and len(lines.split("\n\n")[1].splitlines()) <= 10
    (installed / "ten.js").write_text(lines.replace("https://chat.example.org/", node.url()))
    process = Process("ten", [*need_node(), "ten.js"], installed / "ten.log")
    process.cwd = installed
    process.spawn()
    said = ("connected", "not delivered yet: 1", "me: hello", "not delivered yet: 0", "in the log as ")
    await until(lambda: all(line in process.tail() for line in said), "all that the ten lines say")


def test_every_event_and_option_is_in_the_readme() -> None:
    readme = (CLIENT / "README.md").read_text("utf-8")
    types = (CLIENT / "index.d.ts").read_text("utf-8")
    for block in re.findall(
        r"interface (?:Options|RoomEvents|HirobaEvents) \{(.+?)^\}", types, re.DOTALL | re.MULTILINE
    ):
        for name in re.findall(r"^  (\w+)\??:", block, re.MULTILINE):
            assert f"`{name}`" in readme, name
