"""A running server, compared with what hiroba wants, and made so. The command line is in cli.py.

Speaks to servers of any user's making: what a managed service refuses is named, and the rest is done all the same.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis

from broker_config import SCRIPTS, directives, script, users

VERSION_MIN = (7, 0)


@dataclass(frozen=True)
class Drift:
    """Something is not as hiroba wants it, or the server would not tell."""

    text: str
    # What `apply` cannot mend.
    by_hand: bool = False
    # Nodes see to it by themselves when they need it: told, and no reason for anybody to do something.
    passing: bool = False
    # Why the server would not tell.
    refused: redis.ResponseError | None = None

    @classmethod
    def of(cls, what: str, exc: redis.ResponseError) -> "Drift":
        # What follows quotes the command, and with it hashes of passwords.
        return cls(f"{what}: {str(exc).partition(', with args')[0]}", by_hand=True, refused=exc)


def client(url: str, passwords: Mapping[str, str], timeout_s: float, user: str | None = None) -> "redis.Redis":
    """As `user`, else as the URL's. A user of ours whose password the URL does not name has it from `passwords`.

    Raises ValueError, whose text may quote the URL.
    """
    found = redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        decode_responses=True,
        # No CLIENT SETINFO: not every user may, and Redis 7.0 does not know it.
        lib_name=None,
        lib_version=None,
    )
    options = found.connection_pool.connection_kwargs
    if user is not None:
        options |= {"username": user, "password": passwords[user]}
    elif options.get("username") in passwords and not options.get("password"):
        options["password"] = passwords[options["username"]]
    return found


def version(server: "redis.Redis") -> str:
    """`Valkey 9.1.2` or `Redis 7.0.15`."""
    info: Any = server.info("server")
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"


def drifts(server: "redis.Redis", passwords: Mapping[str, str], prefixes: Sequence[str]) -> Iterator[Drift]:
    """What differs. `passwords` may be empty: then they are not compared. Raises redis.RedisError.

    What the server refuses to tell is one drift, and the rest is compared all the same.
    """
    yield from _as_far_as("its version could not be asked", _version_drift(server))
    yield from _as_far_as("its settings could not be compared", _setting_drifts(server))
    yield from _as_far_as("its disk could not be asked", _health(server))
    if not guarded(server):
        yield from _as_far_as("its users could not be compared", _user_drifts(server, passwords, prefixes))
    yield from _as_far_as("its scripts could not be asked", _script_drifts(server))


def guarded(server: "redis.Redis") -> bool:
    """Whether a Unix socket is the only way in, whose file says who may come: the embedded broker's.

    Users of ours would shut out those who are in.
    """
    try:
        found: Any = server.config_get("*port")
    except redis.ResponseError:
        return False
    return bool(found.get("port") == "0" == found.get("tls-port", "0"))


def _as_far_as(what: str, found: Iterator[Drift]) -> Iterator[Drift]:
    try:
        yield from found
    except redis.ResponseError as exc:
        yield Drift.of(what, exc)


def _version_drift(server: "redis.Redis") -> Iterator[Drift]:
    info: Any = server.info("server")
    found = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    if found < VERSION_MIN:
        yield Drift(f"{version(server)} is too old: sharded pub/sub came with Redis 7.0", by_hand=True)
    if "cluster" in (info.get("redis_mode"), info.get("server_mode")):
        yield Drift("it runs in cluster mode, which this version can't speak to: cluster-enabled no", by_hand=True)


def _setting_drifts(server: "redis.Redis") -> Iterator[Drift]:
    found: Any = server.config_get("*")
    for name, value in directives.wanted().items():
        # A name that this server does not know is a feature that it does not have.
        if name in found and not directives.same(name, found[name]):
            danger = directives.DANGERS.get(name)
            yield Drift(f"{name} is '{found[name]}', not '{value}'" + (f": {danger}" if danger else ""))
    if found.get("maxmemory") == "0":
        yield Drift("maxmemory is 0, no limit: the kernel may kill the server instead of a publish being refused")


def _health(server: "redis.Redis") -> Iterator[Drift]:
    info: Any = server.info("persistence")
    for field in ("aof_last_write_status", "aof_last_bgrewrite_status"):
        if info.get(field, "ok") != "ok":
            yield Drift(f"{field} is '{info[field]}': look at the server's log and its disk", by_hand=True)


def _script_drifts(server: "redis.Redis") -> Iterator[Drift]:
    for name, known in zip(SCRIPTS, server.script_exists(*map(_sha, SCRIPTS)), strict=True):
        if not known:
            yield Drift(f"script {name}.lua is not loaded", passing=True)


def _user_drifts(server: "redis.Redis", passwords: Mapping[str, str], prefixes: Sequence[str]) -> Iterator[Drift]:
    for user, wanted in users.rules(passwords or dict.fromkeys(users.PASSWORDS, ""), prefixes).items():
        found: Any = server.acl_getuser(user)
        if found is None:
            yield Drift(f"user {user} is missing")
            continue
        # `reset` is where the rules begin from, not one of them.
        want, have = set(wanted) - {"reset"}, _rules_of(found)
        if "+@all" not in want:
            want.add("-@all")
        if not passwords:
            want, have = ({rule for rule in rules if not rule.startswith("#")} for rules in (want, have))
        if user == "default":
            if not want <= have:
                yield Drift(_default_drift(have))
            continue
        yield from _rule_drifts(user, want, have)


def _default_drift(have: set[str]) -> str:
    if "off" not in have:
        return "user default is somebody: whoever reaches the port may do what it may"
    return "user default is off, but lacks rights: Redis 7.0 replays its append-only file with them, and empties rooms"


def _rule_drifts(user: str, want: set[str], have: set[str]) -> Iterator[Drift]:
    if {rule for rule in want if rule.startswith("#")} != {rule for rule in have if rule.startswith("#")}:
        yield Drift(f"user {user} has another password than ours")
    for verb, rules in (("lacks", want - have), ("has, and should not,", have - want)):
        plain = sorted(rule for rule in rules if not rule.startswith("#"))
        if plain:
            yield Drift(f"user {user} {verb} {' '.join(plain)}")


def _rules_of(user: Mapping[str, Any]) -> set[str]:
    """What ACL GETUSER answered, as the rules that would make it."""
    switches = {flag for flag in user["flags"] if flag in ("on", "off", "nopass")}
    words = switches | {"#" + hash for hash in user["passwords"]} | set(user["commands"]) | set(user["categories"])
    for field in ("keys", "channels"):
        listed = user[field]
        words |= set(listed.split() if isinstance(listed, str) else listed)
    return words | {f"({selector})" for selector in user.get("selectors", ())}


# ---- making it so ----


def apply(server: "redis.Redis", passwords: Mapping[str, str], prefixes: Sequence[str]) -> Iterator[Drift]:
    """Settings, scripts and our users. Yields what was refused. The caller goes on as operator: `close`."""
    yield from _as_far_as("its settings could not be made so", _apply_settings(server))
    for name in SCRIPTS:
        yield from _try(f"script {name}.lua", partial(server.script_load, script(name)))
    if guarded(server):
        return
    for user, rules in users.rules(passwords, prefixes).items():
        if user != "default":
            yield from _set_user(server, user, rules)


def close(operator: "redis.Redis", passwords: Mapping[str, str]) -> Iterator[Drift]:
    """The default user becomes nobody, and all is written where the server reads it at its next start."""
    if not guarded(operator):
        yield from _set_user(operator, "default", users.rules(passwords)["default"])
    yield from _keep(operator)


def _set_user(server: "redis.Redis", user: str, rules: list[str]) -> Iterator[Drift]:
    yield from _try(f"user {user}", partial(server.execute_command, "ACL", "SETUSER", user, *rules))


def _apply_settings(server: "redis.Redis") -> Iterator[Drift]:
    found: Any = server.config_get("*")
    wanted = directives.wanted()
    if found.get("maxmemory") == "0":
        found["maxmemory"], wanted["maxmemory"] = "", directives.site("maxmemory")
    for name, value in wanted.items():
        if name in found and (name == "maxmemory" or not directives.same(name, found[name])):
            yield from _try(f"{name} {value}", partial(server.config_set, name, value))


def _keep(server: "redis.Redis") -> Iterator[Drift]:
    """Write it where the server reads it at its next start."""
    info: Any = server.info("server")
    if not info.get("config_file"):
        yield Drift("this server was started without a configuration file: all this ends with it", by_hand=True)
    else:
        yield from _try("CONFIG REWRITE", server.config_rewrite)
    yield from _as_far_as("ACL SAVE was not tried", _keep_users(server))


def _keep_users(server: "redis.Redis") -> Iterator[Drift]:
    found: Any = server.config_get("aclfile")
    if found.get("aclfile"):
        yield from _try("ACL SAVE", server.acl_save)


def _try(what: str, step: Callable[[], object]) -> Iterator[Drift]:
    try:
        step()
    except redis.ResponseError as exc:
        yield Drift.of(f"{what} was refused", exc)


def _sha(name: str) -> str:
    """As the server names a script: SCRIPT EXISTS."""
    return hashlib.sha1(script(name).encode()).hexdigest()
