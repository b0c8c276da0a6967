"""`hiroba publish` and `hiroba rooms`: what an operator says and sees by the HTTP API, as any server would."""

import argparse
import json
import sys
from datetime import UTC, datetime

from gateway.keys import Load, Parser
from gateway.settings.model import Settings, SettingsError
from hiroba_client import Hiroba, HirobaError, Room, User


def main(argv: list[str], load: Load) -> int:
    """Exit code; 1: the API did not do it. `load`: the settings, by flags and file. Raises SettingsError."""
    options = _parser(argv[0]).parse_args(argv[1:])
    given = {name: value for name in ("api_url", "ops_port") if (value := getattr(options, name)) is not None}
    settings = load(given, options.config)
    try:
        with Hiroba(_urls(settings), settings.api_key, within_s=options.within_s) as hiroba:
            _publish(hiroba, options) if argv[0] == "publish" else _rooms(hiroba)
    except HirobaError as exc:
        print(f"hiroba {argv[0]}: {exc}", file=sys.stderr)
        return 1
    return 0


def _urls(settings: Settings) -> str:
    return settings.api_url or f"http://127.0.0.1:{settings.ops_port}"


def _parser(command: str) -> argparse.ArgumentParser:
    text = "Say something in a room." if command == "publish" else "List the rooms in which somebody spoke."
    parser = Parser(prog=f"hiroba {command}", description=text, allow_abbrev=False)
    if command == "publish":
        parser.add_argument("room", metavar="ROOM")
        parser.add_argument("text", metavar="TEXT", help="what is said; -: what stands on standard input")
        parser.add_argument("--json", action="store_true", help="TEXT is any JSON, as clients will hear it")
        parser.add_argument("--user", metavar="ID", help="who says it (nobody with a name)")
        parser.add_argument("--name", metavar="NAME", help="what others see of the user (the id)")
        parser.add_argument("--idempotency-key", metavar="KEY", help="said once, however often this is typed (5 min)")
    parser.add_argument("--api-url", metavar="URL", help="ops ports of nodes, with commas between (api_url)")
    parser.add_argument("--ops-port", metavar="N", help="of the node on this machine (ops_port)")
    parser.add_argument("--within-s", metavar="S", type=float, default=30.0, help="how long to try (30)")
    parser.add_argument("--config", metavar="FILE", help="the TOML file (else HIROBA_CONFIG, else ./hiroba.toml)")
    return parser


def _publish(hiroba: Hiroba, options: argparse.Namespace) -> None:
    text = sys.stdin.read() if options.text == "-" else options.text
    try:
        message = json.loads(text) if options.json else text
    except ValueError as exc:
        raise SettingsError(f"TEXT is no JSON: {exc}") from None
    if options.name is not None and options.user is None:
        raise SettingsError("--name is of somebody: --user ID")
    user = None if options.user is None else User(options.user, options.name)
    print(hiroba.publish(options.room, message, user, idempotency_key=options.idempotency_key).id)


def _rooms(hiroba: Hiroba) -> None:
    for room in hiroba.all_rooms():
        print(_line(room))


def _line(room: Room) -> str:
    last = datetime.fromtimestamp(room.last_at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{room.room}  {room.entries} entries, the last one {last}  {room.last_id}"
