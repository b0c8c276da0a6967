"""`hiroba keys`: make, list and revoke keys of the HTTP API. Written straight to the broker: all nodes know within a
second."""

import argparse
import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NoReturn

from gateway.broker.api_keys import ApiKeys, without_a_node
from gateway.broker.endpoint import Endpoint
from gateway.broker.errors import BrokerGone, BrokerRefused
from gateway.core.api_keys import ApiKey, BadKey, Scope, scopes_of
from gateway.put_out import broker_of, who
from gateway.settings.model import Settings, SettingsError
from gateway.telemetry import logs

Load = Callable[[Mapping[str, object], str | None], Settings]


class Parser(argparse.ArgumentParser):
    """A sentence where the command line is wrong."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; `{self.prog} --help` lists what there is")


def main(argv: list[str], load: Load) -> int:
    """Exit code. `load`: the settings, by flags and by the file that was named. Raises SettingsError."""
    given = vars(_parser().parse_args(argv))
    command, config = given.pop("command"), given.pop("config")
    asked: dict[str, str] = {name: given.pop(name) for name in ("name", "scopes") if name in given}
    settings = load(given, config)
    logs.setup(settings)
    try:
        print(asyncio.run(_done(command, asked, settings)))
    except BadKey as exc:
        raise SettingsError(str(exc)) from None
    except (BrokerGone, BrokerRefused, TimeoutError) as exc:
        raise SystemExit(_away(settings, exc)) from None
    return 0


def _away(settings: Settings, exc: Exception) -> str:
    place = Endpoint(broker_of(settings), settings.broker_timeout_s)
    return f"hiroba keys: {place} did not answer: {exc or f'not within {settings.broker_timeout_s:g} s'}"


def _parser() -> argparse.ArgumentParser:
    text = "Keys of the HTTP API, by which servers speak and operators act."
    parser = Parser(prog="hiroba keys", description=text, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    make = commands.add_parser("make", help="print a new key: nobody can be told it again", allow_abbrev=False)
    make.add_argument("name", metavar="NAME", help="whose it is, for logs: django, nightly-job")
    scopes = f"what it opens: {','.join(Scope)} ({Scope.PUBLISH},{Scope.READ})"
    make.add_argument("--scopes", metavar="SCOPE,…", default=f"{Scope.PUBLISH},{Scope.READ}", help=scopes)
    listed = commands.add_parser("list", help="say which there are", allow_abbrev=False)
    revoke = commands.add_parser("revoke", help="make a key good no more, within a second", allow_abbrev=False)
    revoke.add_argument("name", metavar="NAME", help="its name, or its id")
    for command in (make, listed, revoke):
        command.add_argument("--config", metavar="FILE", help="the TOML file (else HIROBA_CONFIG, else ./hiroba.toml)")
        for flag, metavar in (("--broker-url", "URL"), ("--data", "DIR"), ("--key-prefix", "PREFIX")):
            command.add_argument(flag, metavar=metavar, default=argparse.SUPPRESS, help="as of `hiroba node`")
    return parser


async def _done(command: str, asked: Mapping[str, str], settings: Settings) -> str:
    async with without_a_node(broker_of(settings), settings, lambda name, down: None) as keys:
        async with asyncio.timeout(settings.broker_timeout_s):
            if command == "make":
                names = [name.strip() for name in asked["scopes"].split(",") if name.strip()]
                return await keys.make(asked["name"], scopes_of(names), who())
            if command == "revoke":
                key = await keys.revoke(asked["name"])
                return f"{key.name} ({key.id}) is good no more"
            return await _listed(keys)


async def _listed(keys: ApiKeys) -> str:
    found = await keys.all()
    if not found:
        return "no key: the API answers on loopback only"
    return "\n".join(map(_line, found))


def _line(key: ApiKey) -> str:
    made = datetime.fromtimestamp(key.made_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{key.id}  {key.name}  {','.join(key.scopes)}  made {made} by {key.made_by}"
