"""The command `hiroba`: reads the command line, hands typed settings to the part that does the work.

Exit codes: 0 done, 1 failed, 2 the command line or a setting is wrong (a line for each that is, no traceback),
130 Ctrl-C.
"""

import argparse
import shutil
import sys
from collections.abc import Collection
from typing import Any, NoReturn, get_args

from pydantic.fields import FieldInfo

from gateway import __version__
from gateway.settings import show
from gateway.settings.load import as_flag, as_variable, load, unknown
from gateway.settings.model import SECRETS, SECTIONS, Settings, SettingsError, as_text, masked

COMMANDS = {
    "up": "run node processes on one port, with a broker of their own unless one is named",
    "node": "run one node: what a container runs",
    "broker": "make a broker what hiroba wants, or say where it is not",
    "token": "make a token for a user, or say what one is and whether it is good",
    "keys": "make, list and revoke keys of the HTTP API",
    "publish": "say something in a room, by the HTTP API",
    "rooms": "list the rooms that there are, by the HTTP API",
    "delete": "delete a message, all of a room, or a room, by the HTTP API",
    "config": "print every setting, its value and where it came from",
    "kick": "put a user out, of one room or of all, for a time",
    "revoke": "make tokens good no more: a user's, one, everybody's",
    "loadtest": "measure how much a server holds, and whether anything was lost",
}
# Those that put somebody out.
PUT_OUT = ("kick", "revoke")
OF_PUT_OUT = ("user", "room", "for_s", "token", "everybody", "issued_before", "lift")
SETTINGS_OF_PUT_OUT = ("broker_url", "data", "key_prefix", "broker_timeout_s", "orders_max", "revoked_s")
KICK_S = 600.0
# Other names of a flag.
ALIASES = {"broker_url": ("--broker",)}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv[:1] == ["loadtest"]:
            return _loadtest(argv[1:])
        if argv[:1] == ["broker"]:
            return _broker(argv[1:])
        if argv[:1] == ["token"]:
            return _token(argv[1:])
        if argv[:1] == ["keys"]:
            return _keys(argv[1:])
        if argv[:1] in (["publish"], ["rooms"], ["delete"]):
            return _by_api(argv)
        return _run(argv)
    except SettingsError as exc:
        print(f"hiroba: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _run(argv: list[str]) -> int:
    parser = _parser()
    if not argv:
        parser.print_help(sys.stderr)
        return 2
    options, rest = parser.parse_known_args(argv)
    wrong = _strays(options.command, rest)
    given = vars(options)
    command, file = given.pop("command"), given.pop("config")
    asked = {name: given.pop(name) for name in OF_PUT_OUT if name in given}
    example, markdown = given.pop("example", False), given.pop("markdown", False)
    if (example or markdown) and not wrong:
        sys.stdout.write(show.example() if example else show.markdown())
        return 0
    if command == "node":
        if "nodes" in given:
            wrong.append("hiroba node runs one node; --nodes belongs to hiroba up")
        given["nodes"] = 1
    loaded = load(given, file, wrong)
    if command == "config":
        sys.stdout.write(show.values(loaded))
        return 0
    if command in PUT_OUT:
        return _put_out(command, asked, loaded.settings)
    return _serve(command, loaded.settings)


def _put_out(command: str, asked: dict[str, Any], settings: Settings) -> int:
    from gateway import put_out

    try:
        print(put_out.run(command, asked, settings))
    except put_out.Failed as exc:
        print(f"hiroba {command}: {exc}", file=sys.stderr)
        return 1
    return 0


def _serve(command: str, settings: Settings) -> int:
    # Imported late: `hiroba config` and `--help` need neither aiohttp nor redis.
    if command == "node":
        from gateway.node import run
    else:
        settings.require_distinct_ports()
        from gateway.process.supervisor import run
    return run(settings)


def _broker(argv: list[str]) -> int:
    from broker_config.cli import main as broker

    return broker(argv)


def _token(argv: list[str]) -> int:
    from gateway.auth.command import main as token

    return token(argv, lambda config: load({}, config).settings)


def _keys(argv: list[str]) -> int:
    from gateway.keys import main as keys

    return keys(argv, lambda flags, config: load(flags, config).settings)


def _by_api(argv: list[str]) -> int:
    from gateway.by_api import main as by_api

    return by_api(argv, lambda flags, config: load(flags, config).settings)


def _loadtest(argv: list[str]) -> int:
    try:
        from loadtest.cli import main as loadtest
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] in ("loadtest", "gateway"):
            raise
        print(
            f"hiroba loadtest needs {exc.name}, which is not installed: install hiroba with its extra `loadtest`",
            file=sys.stderr,
        )
        return 1
    return loadtest(argv)


class _Parser(argparse.ArgumentParser):
    """One sentence and exit code 2 instead of the usage of sixty flags."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{masked(message)}; `{self.prog} --help` lists what there is")


class _Help(argparse.HelpFormatter):
    """Wide enough for the longest flag beside its text."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=38, width=min(110, shutil.get_terminal_size().columns))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="hiroba",
        description="Chat rooms over Redis Streams.",
        epilog="`hiroba COMMAND --help` lists its flags. Every setting is a flag, a variable HIROBA_… "
        "and a key of hiroba.toml, in this order of precedence.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"hiroba {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            usage=f"hiroba {name} [FLAGS]",
            description=text[0].upper() + text[1:] + ".",
            allow_abbrev=False,
            formatter_class=_Help,
        )
        if name in PUT_OUT:
            command.usage = None
            _add_put_out(name, command)
            _add_settings(command, SETTINGS_OF_PUT_OUT)
            continue
        _add_settings(command, Settings.model_fields)
        if name == "config":
            command.add_argument("--example", action="store_true", help="print a commented hiroba.toml instead")
            command.add_argument("--markdown", action="store_true", help="print docs/settings.md instead")
    return parser


def _add_put_out(name: str, parser: argparse.ArgumentParser) -> None:
    """What is said of whom, beside settings."""
    if name == "kick":
        parser.add_argument("user", metavar="USER", help="the user's id: what tokens call sub")
        parser.add_argument("--room", metavar="ROOM", help="the room that is closed to the user (all)")
        parser.add_argument("--for-s", metavar="S", type=float, default=KICK_S, help=f"for how long ({KICK_S:g})")
    else:
        parser.add_argument("user", metavar="USER", nargs="?", help="all tokens of this user: what they call sub")
        parser.add_argument("--token", metavar="JTI", help="the one token of this id: what it calls jti")
        parser.add_argument("--everybody", action="store_true", help="all tokens of all users")
        when = "those issued before, 2027-01-31T12:00:00Z or Unix seconds (now)"
        parser.add_argument("--issued-before", metavar="WHEN", help=when)
    parser.add_argument("--lift", action="store_true", help="take such an order back")


def _add_settings(parser: argparse.ArgumentParser, names: Collection[str]) -> None:
    parser.add_argument("--config", metavar="FILE", help="the TOML file (else HIROBA_CONFIG, else ./hiroba.toml)")
    for section in SECTIONS:
        group = parser.add_argument_group((section.__doc__ or "").lower())
        for name in [name for name in section.__annotations__ if name in names and name not in SECRETS]:
            field = Settings.model_fields[name]
            # No default here: a flag that was not given must not hide the environment.
            extra: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": _help(field)}
            if field.annotation is bool:
                extra["action"] = argparse.BooleanOptionalAction
            else:
                extra["metavar"] = _metavar(name, field.annotation)
            group.add_argument(as_flag(name), *ALIASES.get(name, ()), **extra)


def _help(field: FieldInfo) -> str:
    """The first sentence of a description, and the default."""
    prose = " ".join((field.description or "").replace("`", "").split())
    default = as_text(field.default)
    return f"{prose.split('. ')[0].rstrip('.')}{default and f' ({default})'}".replace("%", "%%")


def _metavar(name: str, annotation: object) -> str:
    if name.endswith("_s") and not name.endswith("per_s"):
        return "S"
    if {int, float} & {annotation, *get_args(annotation)}:
        return "N"
    return {"data": "DIR", "broker_url": "URL"}.get(name, name.rpartition("_")[2].upper())


def _strays(command: str, arguments: list[str]) -> list[str]:
    """What is said of arguments that nobody takes. Beside a flag of no setting they may be its value."""
    secret = [name for name in SECRETS if any(word.startswith(as_flag(name)) for word in arguments)]
    if secret:  # nothing is said of the rest: one of them may be it
        why = "is no flag, for everybody on this machine can read command lines: it is the variable"
        return [f"{as_flag(name)} {why} {as_variable(name)}, or a key of hiroba.toml" for name in secret]
    if command in PUT_OUT:
        words = [word.partition("=")[0] for word in arguments if word.startswith("-")] or map(masked, arguments)
        return [f"hiroba {command} takes no {word}; `hiroba {command} --help` lists what there is" for word in words]
    known = [as_flag(name) for name in Settings.model_fields] + [flag for more in ALIASES.values() for flag in more]
    flags = [unknown(word.partition("=")[0], known) for word in arguments if word.startswith("--")]
    return flags or [f"unexpected argument {masked(word)}" for word in arguments]
