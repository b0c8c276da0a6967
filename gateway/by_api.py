"""`hiroba publish`, `hiroba rooms`, `hiroba delete`: what an operator says, sees and deletes by the HTTP API, as
any server would."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
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
            _DOES[argv[0]](hiroba, options)
    except HirobaError as exc:
        print(f"hiroba {argv[0]}: {exc}", file=sys.stderr)
        return 1
    return 0


def _urls(settings: Settings) -> str:
    return settings.api_url or f"http://127.0.0.1:{settings.ops_port}"


def _parser(command: str) -> argparse.ArgumentParser:
    parser = Parser(prog=f"hiroba {command}", description=_SAYS[command], allow_abbrev=False)
    if command == "publish":
        parser.add_argument("room", metavar="ROOM")
        parser.add_argument("text", metavar="TEXT", help="what is said; -: what stands on standard input")
        parser.add_argument("--json", action="store_true", help="TEXT is any JSON, as clients will hear it")
        parser.add_argument("--user", metavar="ID", help="who says it (nobody with a name)")
        parser.add_argument("--name", metavar="NAME", help="what others see of the user (the id)")
        parser.add_argument("--idempotency-key", metavar="KEY", help="said once, however often this is typed (5 min)")
    if command == "delete":
        parser.add_argument("room", metavar="ROOM")
        parser.add_argument("message", metavar="ID", nargs="?", help="one message; without it the room itself")
        parser.add_argument("--messages", action="store_true", help="all messages of the room: who is there stays")
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


def _delete(hiroba: Hiroba, options: argparse.Namespace) -> None:
    if options.message is not None and options.messages:
        raise SettingsError("one message by its ID, or all: --messages")
    if options.message is not None:
        done = hiroba.delete_message(options.room, options.message)
    elif options.messages:
        done = hiroba.empty_room(options.room)
    else:
        done = hiroba.delete_room(options.room)
    print(f"deleted: {done.deleted}")


def _rooms(hiroba: Hiroba, options: argparse.Namespace) -> None:
    for room in hiroba.all_rooms():
        print(_line(room))


def _line(room: Room) -> str:
    last = datetime.fromtimestamp(room.last_at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{room.room}  {room.entries} entries, the last one {last}  {room.last_id}"


_DOES: Mapping[str, Callable[[Hiroba, argparse.Namespace], None]] = {
    "publish": _publish,
    "rooms": _rooms,
    "delete": _delete,
}
_SAYS = {
    "publish": "Say something in a room.",
    "rooms": "List the rooms in which somebody spoke.",
    "delete": "Delete a message, all messages of a room, or a room.",
}
