"""`make stack`: HAProxy, broker, nodes, Prometheus and its company on this machine. Ctrl-C takes all down.

Exit codes: 0 taken down, 1 not brought up (one sentence).
"""

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from pathlib import Path

from broker_config import users
from deploy.stack import parts
from deploy.stack.run import Certificates, Ports, Stack, StackError
from gateway.broker.embedded import EmbeddedBrokerError
from gateway.settings.model import Settings
from gateway.telemetry import logs


def main() -> int:
    options = _parser().parse_args()
    logs.setup(Settings(log_format="console", log_level="warning"))
    missing = parts.missing_packages()
    if missing:
        return _fail(f"not installed: {' '.join(missing)}; on Debian: sudo apt-get install -y {' '.join(missing)}")
    ports = Ports.in_a_row(options.nodes, options.ports) if options.ports else Ports.usual(options.nodes)
    try:
        passwords = users.passwords(options.secrets)
        certificates = Certificates(options.cert, tuple(options.watch))
        asyncio.run(_run(Stack(options.data, ports, passwords, options.webhook, certificates)))
    except (StackError, EmbeddedBrokerError, users.NoPasswords, OSError) as exc:
        return _fail(f"{exc}; logs are in {options.data}/logs" if isinstance(exc, StackError) else str(exc))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make stack", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--nodes", type=int, default=2, metavar="N", help="hiroba nodes (%(default)s)")
    parser.add_argument("--data", type=Path, default=Path("data/stack"), metavar="DIR", help="(%(default)s)")
    parser.add_argument("--secrets", type=Path, default=Path(".env"), metavar="FILE", help="(%(default)s)")
    parser.add_argument("--ports", type=int, metavar="FIRST", help="all ports in a row from this one")
    parser.add_argument("--webhook", metavar="URL", help="who gets Alertmanager's messages")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="TLS by HAProxy (docs/tls.md): certificate and key")
    parser.add_argument(
        "--watch",
        nargs="*",
        default=[],
        metavar="URL",
        help="https:// and rediss:// addresses whose certificates may end",
    )
    return parser


async def _run(stack: Stack) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    began = time.monotonic()
    print("Starting …", flush=True)
    starting = asyncio.create_task(stack.__aenter__())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        return
    await starting
    print(
        f"{stack.table()}\n\n{await stack.consoles()}\n\n"
        f"Up in {time.monotonic() - began:.0f} s. Ctrl-C takes all down.",
        flush=True,
    )
    await stopping
    print("Stopping …", flush=True)
    await stack.stop()


def _fail(text: str) -> int:
    print(f"stack: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
