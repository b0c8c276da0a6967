"""The command line as a user meets it: real processes, their output and exit codes."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gateway import __version__
from gateway.cli import main
from gateway.settings.model import SECRETS, Settings

ROOT = Path(__file__).parents[2]
PASSWORD = "hunter2-geheim"
URL = f"redis://app:{PASSWORD}@broker:6379/0"


def hiroba(*argv: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """`hiroba argv…` in the directory `cwd`, with no settings but those given."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HIROBA_")}
    return subprocess.run(
        [sys.executable, "-m", "gateway", *argv],
        cwd=cwd,
        env={**inherited, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_version(tmp_path: Path) -> None:
    done = hiroba("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"hiroba {__version__}\n", "")


def test_help_lists_commands_and_every_setting(tmp_path: Path) -> None:
    done = hiroba("--help", cwd=tmp_path)
    assert done.returncode == 0
    for command in ("up", "node", "config", "loadtest"):
        assert f"\n    {command} " in done.stdout
    of_up = hiroba("up", "--help", cwd=tmp_path).stdout
    for name in Settings.model_fields.keys() - set(SECRETS):
        assert f"--{name.replace('_', '-')}" in of_up
    assert "--broker URL" in of_up and "(8000)" in of_up
    assert max(map(len, of_up.splitlines())) <= 100


def test_no_command_shows_the_help(tmp_path: Path) -> None:
    done = hiroba(cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "") and "loadtest" in done.stderr


WRONG = [
    (["up", "--drian-s", "5"], "hiroba: --drian-s is not a setting; the nearest one is --drain-s\n"),
    (["up", "--brokr=x"], "hiroba: --brokr is not a setting; the nearest one is --broker\n"),
    (["up", "--drain", "5"], "hiroba: --drain is not a setting; the nearest one is --drain-s\n"),
    (["revoke"], "hiroba: say whose tokens: one of USER, --token JTI, --everybody\n"),
    (["revoke", "ann", "--everybody"], "hiroba: say whose tokens: one of USER, --token JTI, --everybody\n"),
    (["revoke", "ann", "--issued-before", "1e999"], "hiroba: --issued-before '1e999' is neither"),
    (["revoke", "ann", "--issued-before", "2999-01-01"], "hiroba: --issued-before '2999-01-01' is still to come"),
    (["revoke", "ann", "--issued-before", "1"], "hiroba: tokens issued before 1 have all expired"),
    (["revoke", "--token", "j", "--issued-before", "1"], "hiroba: --issued-before is said of a user's tokens"),
    (["kick", ""], "hiroba: USER is an id: 1 to 256 characters in UTF-8\n"),
    (["kick", "ann", "--room", "a b"], "hiroba: --room 'a b': a room name holds"),
    (["kick", "ann", "--for-s", "0"], "hiroba: --for-s is a number of seconds above 0; --lift takes a kick back\n"),
    (["kick", "ann", "--port", "1"], "hiroba: hiroba kick takes no --port; `hiroba kick --help` lists what there is\n"),
    (["node", "--port", "x"], "hiroba: --port 'x' is not a whole number\n"),
    (["node", "--nodes", "3"], "hiroba: hiroba node runs one node; --nodes belongs to hiroba up\n"),
    (["node", "8001"], "hiroba: unexpected argument 8001\n"),
    (["up", "--port", "9001"], "hiroba: port 9001 lies among the ops ports of the 2 nodes, 9000 to 9001: "),
    (["up", "--port"], "hiroba: argument --port: expected one argument; `hiroba up --help` lists what there is\n"),
    (
        ["up", "--drian-s", "5", "--port", "x"],
        "hiroba: --drian-s is not a setting; the nearest one is --drain-s\n--port ",
    ),
    (
        ["node", "--nodes", "3", "--port", "x"],
        "hiroba: hiroba node runs one node; --nodes belongs to hiroba up\n--port ",
    ),
    (["upp"], "hiroba: argument COMMAND: invalid choice: 'upp'"),
    (["config", "--config", "no.toml"], "hiroba: can't read no.toml: No such file or directory\n"),
]


@pytest.mark.parametrize(("argv", "said"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_wrong_command_line_gets_a_sentence_and_exit_code_2(argv: list[str], said: str, tmp_path: Path) -> None:
    done = hiroba(*argv, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said) and done.stderr.count("\n") <= 2


def test_an_unknown_key_is_an_error_from_every_source(tmp_path: Path) -> None:
    for argv, environ, file in (
        (["--drian-s", "5"], {}, ""),
        ([], {"HIROBA_DRIAN_S": "5"}, ""),
        ([], {}, "drian_s = 5"),
    ):
        (tmp_path / "hiroba.toml").write_text(file)
        done = hiroba("config", *argv, cwd=tmp_path, **environ)
        assert (done.returncode, done.stdout) == (2, "")
        assert "drain" in done.stderr.lower() and done.stderr.count("\n") == 1


def test_config_shows_each_value_and_its_origin(tmp_path: Path) -> None:
    (tmp_path / "hiroba.toml").write_text("stall_s = 11\n")
    done = hiroba("config", "--reuse-port", "--broker", URL, cwd=tmp_path, HIROBA_PORT="4004")
    assert done.returncode == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    for row in (
        ["stall_s", "11.0", "hiroba.toml"],
        ["port", "4004", "environment"],
        ["reuse_port", "true", "flag"],
        ["broker_url", "redis://app:***@broker:6379/0", "flag"],
        ["nodes", "2", "default"],
    ):
        assert row in rows


def test_the_example_is_toml_and_can_be_used_at_once(tmp_path: Path) -> None:
    example = hiroba("config", "--example", cwd=tmp_path).stdout
    assert tomllib.loads(example) == {} and '#host = "127.0.0.1"' in example
    (tmp_path / "hiroba.toml").write_text(example)
    done = hiroba("config", cwd=tmp_path)
    assert done.returncode == 0 and "hiroba.toml" not in done.stdout


def test_no_output_holds_a_password(tmp_path: Path) -> None:
    """By flag, variable and file; where all is well and where something is wrong."""
    (tmp_path / "with.toml").write_text(f'broker_url = "{URL}"\n')
    (tmp_path / "torn.toml").write_text(f'broker_url = "{URL}\n')
    runs = [
        hiroba("config", "--broker", URL, cwd=tmp_path),
        hiroba("config", "--example", "--broker", URL, cwd=tmp_path),
        hiroba("config", cwd=tmp_path, HIROBA_BROKER_URL=URL),
        hiroba("config", "--config", "with.toml", cwd=tmp_path),
        hiroba("config", "--broker", f"redis+sentinel://h/chat?sentinel_password={PASSWORD}", cwd=tmp_path),
        hiroba("config", "--config", "torn.toml", cwd=tmp_path),
        hiroba("config", "--port", "x", cwd=tmp_path, HIROBA_BROKER_URL=URL),
        hiroba("config", "--log-level", URL, cwd=tmp_path),
        hiroba("config", "--port", URL, cwd=tmp_path),
        hiroba("config", f"--brokr={URL}", cwd=tmp_path),
        hiroba("up", URL, cwd=tmp_path),
        hiroba(URL, cwd=tmp_path),
        hiroba("up", "--broker", URL.replace("redis", "redis+cluster"), cwd=tmp_path),
        hiroba("up", "--broker", URL.replace("@", "/@"), cwd=tmp_path),
        hiroba("up", "--broker", URL, "--port", "9001", cwd=tmp_path),
        hiroba("node", "--broker", URL, "--ops-port", "8000", cwd=tmp_path),
    ]
    for done in runs:
        assert done.stdout + done.stderr, done.args
        assert PASSWORD not in done.stdout + done.stderr, done.args
        assert "Traceback" not in done.stderr, done.args
    assert [done.returncode for done in runs] == [0] * 5 + [2] * 11


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A directory whose package `loadtest` comes before ours."""
    (tmp_path / "loadtest").mkdir()
    (tmp_path / "loadtest/__init__.py").touch()
    return tmp_path


def test_loadtest_gets_the_rest_of_the_line_untouched(stand_in: Path) -> None:
    (stand_in / "loadtest/cli.py").write_text("def main(argv): print(argv); return 99\n")
    done = hiroba("loadtest", "run", "--users", "5", "--port", "x", "--help", cwd=stand_in)
    assert (done.returncode, done.stderr) == (99, "")
    assert done.stdout == "['run', '--users', '5', '--port', 'x', '--help']\n"


def test_loadtest_without_its_extra_says_what_to_install(stand_in: Path) -> None:
    (stand_in / "loadtest/cli.py").write_text("import a_package_that_nobody_has\n")
    done = hiroba("loadtest", "run", cwd=stand_in)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "hiroba loadtest needs a_package_that_nobody_has, which is not installed: "
        "install hiroba with its extra `loadtest`\n"
    )


def test_a_bug_in_loadtest_is_not_taken_for_a_missing_extra(stand_in: Path) -> None:
    (stand_in / "loadtest/cli.py").write_text("import loadtest.nothing_here\n")
    assert "ModuleNotFoundError" in hiroba("loadtest", "run", cwd=stand_in).stderr


def test_main_can_be_called(capsys: pytest.CaptureFixture[str]) -> None:
    """As the script `hiroba` does."""
    assert main(["config", "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("# Settings\n")


def test_a_secret_on_the_command_line_is_refused_and_not_repeated(tmp_path: Path) -> None:
    """Everybody on a machine can read command lines: it must not look as if that were a way to give one."""
    secret = "s" * 40
    for words in ([f"--token-keys=HS256:{secret}"], ["--token-keys", f"HS256:{secret}"]):
        done = hiroba("up", *words, cwd=tmp_path)
        assert done.returncode == 2 and "HIROBA_TOKEN_KEYS" in done.stderr and secret not in done.stderr
