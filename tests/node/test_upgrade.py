"""A rolling upgrade to entries with users, with the code of before as the old node (out of git)."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.node.conftest import redis_only
from tests.support.broker import Broker
from tests.support.client import Crowd
from tests.support.need import missing
from tests.support.node import Node
from tests.support.tokens import SECRET, token

ROOT = Path(__file__).parents[2]
# The last commit whose nodes know entries of format 1 only.
BEFORE = "b4ccbad"


def old_code(directory: Path) -> Path:
    """What is needed to run a node of before, unpacked."""
    argv = ["git", "archive", "--format=tar", BEFORE, "gateway", "broker_config", "clients"]
    archived = subprocess.run(argv, cwd=ROOT, capture_output=True, check=False)
    if archived.returncode:
        missing(f"git has no commit {BEFORE} here: a whole clone has (git fetch --unshallow)")
    with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as tar:
        tar.extractall(directory, filter="data")
    return directory


@pytest.mark.long  # a checkout without history has no code of before
@redis_only
async def test_old_and_new_nodes_serve_one_room_side_by_side(broker: Broker, tmp_path: Path, crowd: Crowd) -> None:
    """Who has no name is heard by all, as ever. What a user says an old node can't read: it tells a gap, of exactly
    that entry, and goes on. New nodes read both, also what was there before them."""
    old = Node(broker.url, tmp_path, "old")
    old.process.argv = [sys.executable, "-m", "gateway", "node"]
    old.process.cwd = old_code(tmp_path / "code")
    await old.start()
    at_old = await crowd.join(old, "room")
    await at_old.say("before")
    await at_old.hears("before")
    new = await Node(broker.url, tmp_path, "new", token_keys=f"HS256:{SECRET}", guests=True).start()

    ann = await crowd.join(new, "room", headers={"Authorization": f"Bearer {token(name='Ann')}"}, history=10)
    guest = await crowd.join(new, "room", history=10)
    said: list[tuple[object, str]] = []
    for speaker, text in ((at_old, "old"), (ann, "Ann"), (guest, "guest"), (ann, "Ann again"), (at_old, "and on")):
        await speaker.say(text)
        said.append(({"id": "7", "name": "Ann"} if speaker is ann else None, text))
        heard = ["before", *(text for _, text in said)]
        await ann.hears(*heard)
    await guest.hears(*heard)
    assert [(frame["user"], frame["message"]) for frame in ann.of_type("message")] == [(None, "before"), *said]

    await at_old.hears("before", "old", "guest", "and on")
    assert [(gap["before"].partition("-")[2], gap["lost"]) for gap in at_old.of_type("gap")] == [("4", 1), ("6", 1)]

    # What is whispered is nothing to an old node: no read in vain, and no line that calls it nonsense.
    await ann.send('{"type": "typing", "room": "room"}')
    await guest.until(lambda: guest.of_type("typing"), "Ann types")
    await ann.say("done")
    await at_old.until(lambda: len(at_old.of_type("gap")) == 3, "a gap more")
    assert not at_old.of_type("typing") and not [line for line in old.lines() if "nonsense" in line]
    said.append(({"id": "7", "name": "Ann"}, "done"))

    await old.stop()
    back = await crowd.join(new, "room", after=at_old.ids[0])
    await back.hears(*[text for _, text in said])
    assert (await back.welcome())["recovered"] and not back.of_type("gap")
