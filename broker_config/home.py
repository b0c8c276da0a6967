"""A server's own directory: its copy of valkey.conf, and nothing in it that other users of the machine can read.

CONFIG REWRITE writes into the file that the server was started on: paths, and the users' password hashes. So nobody
starts one on the file that every other server is started on.
"""

import os
import stat
from importlib.resources import files
from pathlib import Path

# For whoever starts a server: its files are 0600 from their first byte (umask(2)).
UMASK = 0o077

_CONF = "valkey.conf"
# What a server leaves in its directory. Only these are touched: the directory may be somebody's home.
_LEFT = (_CONF, "users.acl", "dump.rdb", "valkey.log", "valkey.log.1", "appendonlydir", "appendonlydir/*")


def furnish(directory: Path) -> Path:
    """Make `directory` private, and put today's valkey.conf there. Returns the copy's path. Raises OSError.

    The copy is a new one each time: what a running server was told by CONFIG SET ends with it.
    """
    private(directory)
    for pattern in _LEFT:
        for path in directory.glob(pattern):
            _close(path)
    conf = directory / _CONF
    conf.unlink(missing_ok=True)
    with os.fdopen(os.open(conf, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as copy:
        copy.write(files(__package__).joinpath(_CONF).read_text("utf-8"))
    return conf


def private(directory: Path) -> None:
    """Make it, and let nobody else in, also where it was there. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not directory.stat().st_mode & stat.S_ISVTX:  # /tmp is everybody's
        _close(directory)


def _close(path: Path) -> None:
    """Take from group and others what they may. A link is not followed."""
    mode = path.lstat().st_mode
    if not stat.S_ISLNK(mode) and mode & 0o077:
        path.chmod(mode & 0o700)
