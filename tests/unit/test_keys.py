"""Keys, partitions and reply codes: what the broker's data and answers mean."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from gateway.broker import keys
from gateway.broker.errors import BrokerRefused, Fault, fault_of
from gateway.core.names import RoomName, room_name

# NFC takes some letters apart into a letter and a mark, which is no word any more.
words = st.from_regex(r"\w{1,40}", fullmatch=True)
rooms = words.filter(lambda raw: unicodedata.is_normalized("NFC", raw)).map(room_name)
KEYS = keys.Keys("hiroba", 0)
nodes = st.from_regex(r"[0-9a-f]{12}", fullmatch=True)


@given(rooms)
def test_a_partition_is_redis_clusters_crc16(room: RoomName) -> None:
    """Part of the data: it can't be changed later. 16,384 slots are a multiple of 256."""
    assert keys.partition(room) == key_slot(room.encode()) % keys.PARTITIONS


def test_partitions_that_are_in_peoples_data() -> None:
    assert [keys.partition(name) for name in ("lobby", "部屋", "123456789")] == [54, 115, 0xC3]


@given(st.lists(rooms, min_size=2, max_size=8))
def test_rooms_of_one_partition_share_a_slot_and_no_two_rooms_a_key(names: list[RoomName]) -> None:
    slots = {key_slot(KEYS.log(name)) for name in names}
    assert len(slots) <= len({keys.partition(name) for name in names})
    assert len({KEYS.log(name) for name in names}) == len(set(names))


@given(rooms, nodes)
def test_kinds_of_keys_never_meet(room: RoomName, node: str) -> None:
    """A room may have any word for a name, a node's id too."""
    assert len({KEYS.log(room), KEYS.log(room_name(node)), KEYS.once(node), KEYS.probe(node), KEYS.nodes}) >= 4
    assert key_slot(KEYS.once(node)) == key_slot(KEYS.probe(node))


@given(rooms, nodes)
def test_installations_on_one_server_share_no_channel_and_with_a_prefix_no_key(room: RoomName, node: str) -> None:
    """A database has its own keys; pub/sub has one name space for all. The default's names are in people's data."""
    apart = [KEYS, keys.Keys("hiroba", 1), keys.Keys("hiroba", 11), keys.Keys("hiroba:staging", 0)]
    channels = [one.channel(one.log(room)) for one in apart]
    assert len(set(channels)) == len(apart) and channels[0] == KEYS.log(room)
    assert [one.rung(channel) for one, channel in zip(apart, channels, strict=True)] == [one.log(room) for one in apart]
    assert len({key for one in (apart[0], apart[3]) for key in (one.log(room), one.once(node), one.nodes)}) == 6


def test_names_that_are_in_peoples_data() -> None:
    assert (KEYS.log(room_name("lobby")), KEYS.nodes) == (b"hiroba:{54}:log:lobby", b"hiroba:nodes")


@given(nodes)
def test_a_group_tells_its_node(node: str) -> None:
    assert keys.node_of(keys.group(node)) == node


@pytest.mark.parametrize("group", [b"archiver", b"", b"node", b"Node:1", b"xnode:1"])
def test_others_groups_are_nobodys_here(group: bytes) -> None:
    assert keys.node_of(group) is None


def test_a_group_that_no_node_made_does_not_end_the_sweep() -> None:
    """Anybody may XGROUP CREATE a name that is not UTF-8; it is swept as a dead node's."""
    assert keys.node_of(b"node:\xff") not in (None, "")


# ---- reply codes ----


@pytest.mark.parametrize(
    ("text", "code", "fault"),
    [
        ("NOSCRIPT No matching script. Please use EVAL.", "NOSCRIPT", Fault.LOAD),
        ("NOGROUP No such key 'x' or consumer group 'y'", "NOGROUP", Fault.NO_GROUP),
        ("LOADING Redis is loading the dataset in memory", "LOADING", Fault.GONE),
        ("READONLY You can't write against a read only replica.", "READONLY", Fault.DEMOTED),
        ("MOVED 3999 127.0.0.1:6381", "MOVED", Fault.GONE),
        ("OOM command not allowed when used memory > 'maxmemory'.", "OOM", Fault.REFUSED),
        ("MISCONF Redis is configured to save RDB snapshots", "MISCONF", Fault.REFUSED),
        ("NOREPLICAS Not enough good replicas to write.", "NOREPLICAS", Fault.REFUSED),
        ("WRONGTYPE Operation against a key", "WRONGTYPE", Fault.BUG),
        ("NOPERM this user has no permissions", "NOPERM", Fault.DENIED),
        ("ERR unknown command", "ERR", Fault.BUG),
        ("BUSYGROUP Consumer Group name already exists", "BUSYGROUP", Fault.BUG),
        ("", "", Fault.BUG),
    ],
)
def test_an_error_reply_means_what_its_first_word_says(text: str, code: str, fault: Fault) -> None:
    """The prose behind it changes from version to version."""
    refused = BrokerRefused(text)
    assert (refused.code, str(refused), fault_of(refused.code)) == (code, text, fault)
