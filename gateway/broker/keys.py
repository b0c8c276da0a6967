"""Every key that hiroba has in Redis, spelled here and nowhere else.

    hiroba:{p}:log:<room>     stream: the room's log; also the name of its doorbell's sharded pub/sub channel
    hiroba:{p}:once:<node>    string: number and answer of the node's last publish call
    hiroba:{p}:probe:<node>   stream: the log of the node's own liveness probe
    hiroba:nodes              sorted set: node id -> broker's clock at its last heartbeat, ms

p = CRC16(room) mod 256, in braces: the rooms of one partition share a Cluster slot, so that one call serves many.
It is part of the data and can't be changed later, so a single broker has it too.
"""

from binascii import crc_hqx

from gateway.core.names import RoomName

PARTITIONS = 256

NODES = b"hiroba:nodes"


def partition(name: str) -> int:
    """0 … 255. crc_hqx(…, 0) is the CRC16 (XMODEM) of Redis Cluster."""
    return crc_hqx(name.encode(), 0) % PARTITIONS


def log(room: RoomName) -> bytes:
    """A room's log, and the channel of its doorbell."""
    return f"hiroba:{{{partition(room)}}}:log:{room}".encode()


def once(node: str) -> bytes:
    """What the node's last publish call returned. One call serves all partitions of a single broker."""
    return f"hiroba:{{{partition(node)}}}:once:{node}".encode()


def probe(node: str) -> bytes:
    """The log that a node writes to and reads from, to prove the road."""
    return f"hiroba:{{{partition(node)}}}:probe:{node}".encode()


def group(node: str) -> bytes:
    """A node's consumer group on each log it follows."""
    return f"node:{node}".encode()


def node_of(group: bytes) -> str | None:
    """The node whose group this is; None: somebody else's (a room worker's)."""
    return group[5:].decode(errors="replace") if group.startswith(b"node:") else None
