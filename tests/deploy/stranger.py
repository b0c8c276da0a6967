"""Runs a program as a container would, without an engine: as a user who owns nothing, on files that nobody can write.

As root, in a mount namespace of its own whose every file system is read-only but for what is named, as another uid
and without a capability. Where no namespace can be had, as that uid, whom file modes hold; where the tests do not run
as root, as whoever runs them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.deploy.compose import ROOT
from tests.support.need import missing, need_tool

# $1: directories that stay writable; $2: directories that must be reached, as COVER=DIRECTORY, COVER being what
# keeps strangers out above it. Both one per line. Then the program.
_NAMESPACE = """
set -eu
writable=$1 opened=$2
shift 2
stage=$(mktemp -d)
mount -t tmpfs -o mode=755 tmpfs "$stage"
number=0
IFS='
'
for pair in $opened; do
    number=$((number + 1))
    mkdir "$stage/$number"
    mount --bind "${pair#*=}" "$stage/$number"
done
covered=
number=0
for pair in $opened; do
    number=$((number + 1)) cover=${pair%%=*}
    case "$covered" in *"|$cover|"*) ;; *)
        mount -t tmpfs -o mode=755 tmpfs "$cover"
        covered="$covered|$cover|" ;;
    esac
    mkdir -p "${pair#*=}"
    mount --bind "$stage/$number" "${pair#*=}"
done
umount -R "$stage"
rmdir "$stage"
for at in $(findmnt --raw --noheadings --output TARGET); do
    case "$at" in
    /proc* | /sys* | /dev | /dev/pts) ;;
    *) mount -o remount,bind,ro "$at" 2>/dev/null || : ;;
    esac
done
for at in $writable; do
    mount --bind "$at" "$at"
    mount -o remount,bind,rw "$at"
done
# Where we are is still the place below what was mounted on it.
cd "$(pwd)"
exec "$@"
"""


def stranger(*argv: object, uid: int, writable: Iterable[Path] = ()) -> list[str]:
    """`argv` as a command of the user `uid`, who may write below `writable` (where modes let it) and nowhere else.

    Its pid is the program's: nothing stays in between. What it reads must be readable for everybody.
    """
    if os.getuid():
        return [str(word) for word in argv]
    setpriv = need_tool("setpriv", "util-linux")
    # --pdeathsig: a change of uid forgets the one that tests.support.process sets.
    bare = [setpriv, "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--clear-groups", "--pdeathsig=KILL"]
    program = [*bare, f"--reuid={uid}", f"--regid={uid}", *map(str, argv)]
    closed = [(_cover(path), path) for path in sorted({ROOT, Path(sys.prefix), Path(sys.base_prefix)})]
    pairs = [f"{cover}={path}" for cover, path in closed if cover is not None]
    if isolated():
        namespace = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _NAMESPACE, "stranger"]
        return [*namespace, "\n".join(map(str, writable)), "\n".join(pairs), *program]
    if pairs:
        missing(f"what runs here is for root only, and no mount namespace can be had: {', '.join(pairs)}")
    return program


@cache
def isolated() -> bool:
    """Whether a stranger has a mount namespace: then all is read-only, and not just what file modes protect."""
    if os.getuid():
        return False
    argv = ["unshare", "--mount", "--propagation", "private", "mount", "-o", "remount,bind,ro", "/"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def _cover(path: Path) -> Path | None:
    """The highest directory of `path` that others may not enter; None: they reach it."""
    for above in [*reversed(path.parents), path]:
        if above.stat().st_mode & 0o001 == 0:
            return above
    return None


@contextmanager
def ground(uid: int) -> Iterator[Path]:
    """A directory that everybody may read, and in it one, `own`, that is `uid`'s."""
    base = Path(tempfile.mkdtemp(prefix="hiroba-"))
    base.chmod(0o755)
    try:
        (base / "own").mkdir()
        if not os.getuid():
            os.chown(base / "own", uid, uid)
        yield base
    finally:
        unlock = ["chmod", "-R", "u+w", str(base)]
        subprocess.run(unlock, check=True)
        shutil.rmtree(base)
