"""Every key and channel that hiroba has in Redis, spelled here and nowhere else. PREFIX is the setting `key_prefix`.

    PREFIX:{p}:log:<room>     stream: the room's log
    PREFIX:{p}:rooms          sorted set: room of this partition -> when its log's expiry was renewed, ms (publish.lua)
    PREFIX:{p}:once:<node>    string: number and answer of the node's last publish call
    PREFIX:{p}:producer:<room> <id>   string: what a producer appended last to the room (publish.lua)
    PREFIX:{p}:sequence:<room>   string: the last Stream-Seq of the room's Durable Stream
    PREFIX:{p}:appended:<room> <key>   string: what a request with this Idempotency-Key appended (publish.lua)
    PREFIX:{p}:erasure:<user>     string: how far the deletion of what this user said is, JSON
    PREFIX:{p}:asked:<key>    string: a mark of the request with this Idempotency-Key, and its answer once there is one
    PREFIX:{p}:keys:api       hash: id -> what is known of a key of the API, JSON
    PREFIX:{p}:probe:<node>   stream: the log of the node's own liveness probe
    PREFIX:{p}:read:<user>    hash: room -> up to where this user has read, and a count (mark.lua)
    PREFIX:{p}:members:<room>   hash: user -> by which claims he is here, and how he is told of (members.lua)
    PREFIX:{p}:claims:<room>  sorted set: claim, of a node -> until when it counts, broker's clock, ms
    PREFIX:{p}:presence:<room>   stream: who came and went
    PREFIX:{p}:orders:control     stream: the control log, what all nodes must hear
    PREFIX:{p}:standing:control   sorted set: order that stands -> until when, broker's clock, ms (order.lua)
    PREFIX:{p}:given:control      sorted set: the same -> when it was given, µs
    PREFIX:{p}:typing:<room>      no key, but a channel: who types in the room (whispers.py)
    PREFIX:{p}:questions:all      nothing: its channel is where one node asks all (questions.py)
    PREFIX:{p}:answers:<question>   hash: node -> what it answered, JSON
    PREFIX:nodes              sorted set: node id -> broker's clock at its last heartbeat, ms

A log's doorbell is the sharded pub/sub channel of the log's name, with ` db<N>` behind it where the database is not 0:
pub/sub knows no databases, and others may have the same rooms in theirs. No room's name has a space. A user's markers
have a channel too, named in the same way; his id stands percent-encoded, for it may have any character.

p = CRC16(room) mod 256, in braces: the rooms of one partition share a Cluster slot, so that one call serves many.
It is part of the data and can't be changed later, so a single broker has it too.
"""

from binascii import crc_hqx
from urllib.parse import quote

from gateway.core.names import RoomName

PARTITIONS = 256


class Keys:
    """The names of one installation: those with its prefix, in its database."""

    def __init__(self, prefix: str, db: int) -> None:
        self._prefix = prefix
        # What follows a log's name in its doorbell's.
        self.channel_tail = f" db{db}".encode() if db else b""
        self.nodes = f"{prefix}:nodes".encode()
        # The control log, and the sets of orders that stand: in one partition.
        self.orders = self._key("control", "orders")
        self.standing = self._key("control", "standing")
        self.given = self._key("control", "given")
        self.api_keys = self._key("api", "keys")
        self.questions = self._key("all", "questions")

    def log(self, room: RoomName) -> bytes:
        """A room's log."""
        return self._key(room, "log")

    def rooms(self, partition: int) -> bytes:
        """The index of a partition's rooms."""
        return f"{self._prefix}:{{{partition}}}:rooms".encode()

    def index_of(self, log: bytes) -> tuple[bytes, bytes] | None:
        """The index in which a log's room stands, and its name; None: it is no room's."""
        partition, kind, room = log.partition(b"}:log:")
        return (partition + b"}:rooms", room) if kind else None

    def once(self, node: str) -> bytes:
        """What the node's last publish call returned. One call serves all partitions of a single broker."""
        return self._key(node, "once")

    def producer(self, room: RoomName, id: bytes) -> bytes:
        """How far a producer of a room's Durable Stream is."""
        return self._key(room, "producer") + b" " + id

    def sequence(self, room: RoomName) -> bytes:
        """The last Stream-Seq with which somebody wrote to a room."""
        return self._key(room, "sequence")

    def appended(self, room: RoomName, key: str) -> bytes:
        """What a request with this Idempotency-Key appended to a room."""
        return self._key(room, "appended") + f" {key}".encode()

    def erasure(self, user: str) -> bytes:
        """How far the deletion of all that a user said is."""
        return self._key(quote(user, safe=""), "erasure")

    def asked(self, key: str) -> bytes:
        """The request with this Idempotency-Key, and what was answered."""
        return self._key(key, "asked")

    def answers(self, question: str) -> bytes:
        """What the nodes answered."""
        return self._key(question, "answers")

    def probe(self, node: str) -> bytes:
        """The log that a node writes to and reads from, to prove the road."""
        return self._key(node, "probe")

    def read(self, user: str) -> bytes:
        """Up to where a user has read, room by room."""
        return self._key(quote(user, safe=""), "read")

    def typing(self, room: RoomName) -> bytes:
        """Who types in a room: there is nothing under this name but its channel."""
        return self._key(room, "typing")

    def members(self, room: RoomName) -> tuple[bytes, bytes, bytes]:
        """Who is in a room, by which claims, and the log of who came and went."""
        return self._key(room, "members"), self._key(room, "claims"), self._key(room, "presence")

    def channel(self, key: bytes) -> bytes:
        """The channel of a log's doorbell, of a user's markers, of who types in a room."""
        return key + self.channel_tail

    def rung(self, channel: bytes) -> bytes:
        """What has this channel."""
        return channel.removesuffix(self.channel_tail)

    def _key(self, name: str, kind: str) -> bytes:
        return f"{self._prefix}:{{{partition(name)}}}:{kind}:{name}".encode()


def partition(name: str) -> int:
    """0 … 255. crc_hqx(…, 0) is the CRC16 (XMODEM) of Redis Cluster."""
    return crc_hqx(name.encode(), 0) % PARTITIONS


def group(node: str) -> bytes:
    """A node's consumer group on each log it follows."""
    return f"node:{node}".encode()


def node_of(group: bytes) -> str | None:
    """The node whose group this is; None: somebody else's (a room worker's)."""
    return group[5:].decode(errors="replace") if group.startswith(b"node:") else None
