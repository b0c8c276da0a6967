"""Settings: every field from every source, precedence, errors in words, the pages made from the fields."""

import base64
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.settings import show
from gateway.settings.load import as_flag, as_variable, load
from gateway.settings.model import SECTIONS, Settings, SettingsError, as_text, masked
from gateway.settings.urls import sentinel_url

ROOT = Path(__file__).parents[2]
FIELDS = list(Settings.model_fields)
PASSWORD = "hunter2-geheim"


@pytest.fixture(autouse=True)
def _empty_directory_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for key in [key for key in os.environ if key.startswith("HIROBA_")]:
        monkeypatch.delenv(key)


def other(name: str, part: float = 0.5) -> Any:
    """A valid value of the field `name` that is not its default, as TOML has it."""
    texts = {
        "broker_url": f"redis://app:pass-{part}@broker:6379/1",
        "host": [f"host-{part}", "::"],
        "ops_host": f"ops-{part}",
        "base_path": f"/talk-{part}",
        "data": f"dir-{part}",
        "allowed_origins": ["https://a.example", f"b{part}.example:8443"],
        "trusted_proxies": ["10.0.0.0/8", "fd00::/8", f"192.0.2.{int(part * 100)}/32"],
        "key_prefix": f"chat:{part}",
        "log_format": "json",
        "log_level": "error" if part == 0.5 else "debug",
        "fd": int(10 * part),
        "connections_max": int(100 * part),
        "token_keys": ["HS256:" + "x" * 32, f"@key-{part}.pem"],
        "token_jwks_url": f"https://site.example/{part}",
        "token_audience": f"chat-{part}",
        "token_issuer": f"site-{part}",
        "site_url": f"http://127.0.0.1:8080/{part}",
        "login_url": f"/login/{part}",
        "site_publish_url": f"http://127.0.0.1:8080/said/{part}",
        "site_publish_rooms": ["lobby", f"team-{part}-*"],
        "site_publish_away": "allow",
        "user_rights": ["*=r", f"team-{part}=rw"],
        "guest_rights": ["*=r"] if part == 0.5 else ["lobby=rw"],
        "guests": True,
        "guest_secret": f"guest-{part}" * 8,
        "api_url": f"http://127.0.0.1:9000/{part}",
        "api_key": f"key-{part}",
    }
    if name in texts:
        return texts[name]
    default = Settings.model_fields[name].default
    if isinstance(default, bool):
        return True
    return type(default)(default * part) if default else 1


def in_text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else as_text(value)


def as_toml(values: dict[str, Any]) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_means_the_same_from_every_source(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One field, one meaning: as a flag, a variable, a TOML key."""
    value = other(name)
    by_flag = load({name: in_text(value)})
    Path("hiroba.toml").write_text(as_toml({name: value}))
    by_file = load({})
    monkeypatch.setenv("HIROBA_CONFIG", "")
    monkeypatch.setenv(as_variable(name), in_text(value))
    by_variable = load({})
    assert by_flag.settings == by_file.settings == by_variable.settings
    assert getattr(by_flag.settings, name) != Settings.model_fields[name].default
    assert [loaded.origins[name] for loaded in (by_flag, by_variable, by_file)] == [
        "flag",
        "environment",
        "hiroba.toml",
    ]
    assert {origin for field, origin in by_flag.origins.items() if field != name} == {"default"}


def test_flag_beats_variable_beats_file_beats_default(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.toml").write_text("nodes = 3\nport = 3003\nops_port = 3103\n")
    monkeypatch.setenv("HIROBA_PORT", "4004")
    monkeypatch.setenv("HIROBA_OPS_PORT", "4104")
    loaded = load({"ops_port": "5105"}, "mine.toml")
    got = loaded.settings
    assert (got.nodes, got.port, got.ops_port, got.drain_s) == (3, 4004, 5105, 20.0)
    assert [loaded.origins[name] for name in ("nodes", "port", "ops_port", "drain_s")] == [
        "mine.toml",
        "environment",
        "flag",
        "default",
    ]


def test_which_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--config`, else HIROBA_CONFIG, else ./hiroba.toml; an empty HIROBA_CONFIG is none."""
    assert load({}).settings.nodes == 2
    for name, nodes in (("hiroba.toml", 3), ("variable.toml", 4), ("flag.toml", 5)):
        Path(name).write_text(f"nodes = {nodes}\n")
    assert load({}).settings.nodes == 3
    monkeypatch.setenv("HIROBA_CONFIG", "variable.toml")
    assert load({}).settings.nodes == 4
    assert load({}, "flag.toml").settings.nodes == 5
    monkeypatch.setenv("HIROBA_CONFIG", "")
    assert load({}).settings.nodes == 2


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("hiroba.toml").write_text("port = 3003\n")
    monkeypatch.setenv("HIROBA_PORT", "")
    loaded = load({})
    assert (loaded.settings.port, loaded.origins["port"]) == (3003, "hiroba.toml")


@pytest.mark.parametrize("changed", [[], FIELDS, ["broker_url", "fd"]])
def test_a_child_gets_exactly_its_parents_settings(changed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the parent inherited or a file in the directory says."""
    parent = Settings(**{name: other(name) for name in changed})
    Path("hiroba.toml").write_text(as_toml({name: other(name, 0.75) for name in FIELDS}))
    for name in FIELDS:
        monkeypatch.setenv(as_variable(name), in_text(other(name, 0.75)))
    assert load({}).settings != parent
    for key, value in parent.to_environ().items():
        monkeypatch.setenv(key, value)
    assert load({}).settings == parent


def test_settings_made_in_code_hear_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIROBA_PORT", "4004")
    Path("hiroba.toml").write_text("nodes = 7\n")
    assert (Settings().port, Settings().nodes) == (8000, 2)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


# ---- errors ----


def said(flags: dict[str, object] | None = None, config: str | None = None) -> str:
    with pytest.raises(SettingsError) as error:
        load(flags or {}, config)
    return str(error.value)


def test_an_unknown_variable_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIROBA_DRIAN_S", "5")
    assert said() == "HIROBA_DRIAN_S is not a setting (in the environment); the nearest one is HIROBA_DRAIN_S"


def test_an_unknown_key_of_the_file_names_the_nearest() -> None:
    Path("hiroba.toml").write_text("message_byte_max = 5\n")
    assert said() == "message_byte_max is not a setting (in hiroba.toml); the nearest one is message_bytes_max"


def test_a_service_named_hiroba_on_kubernetes_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubelet sets HIROBA_PORT=tcp://10.0.0.1:8000 and more in every pod beside a Service of that name."""
    monkeypatch.setenv("HIROBA_PORT", "tcp://10.0.0.1:8000")
    assert "enableServiceLinks: false" in said()
    monkeypatch.setenv("HIROBA_PORT", "8000")
    monkeypatch.setenv("HIROBA_SERVICE_HOST", "10.0.0.1")
    assert "enableServiceLinks: false" in said()


WRONG = [
    ("port", "70000", "--port '70000' is too large: the most is 65535"),
    ("port", "many", "--port 'many' is not a whole number"),
    ("nodes", "0", "--nodes '0' is too small: the least is 1"),
    ("nodes", "1.5", "--nodes '1.5' is not a whole number"),
    ("room_name_chars_max", "101", "--room-name-chars-max '101' is too large: the most is 100"),
    ("stall_s", "0", "--stall-s '0' is too small: it must be more than 0"),
    ("drain_s", "-1", "--drain-s '-1' is too small: the least is 0"),
    ("drain_s", "soon", "--drain-s 'soon' is not a number"),
    ("drain_s", "inf", "--drain-s 'inf' is not a number one can wait for"),
    ("messages_per_s", "nan", "--messages-per-s 'nan' is not a number one can wait for"),
    ("reuse_port", "perhaps", "--reuse-port 'perhaps' is neither true nor false"),
    ("log_format", "xml", "--log-format 'xml' is not one of 'auto', 'json' or 'console'"),
    ("host", "", "--host '' is empty"),
    ("fd", "1", "--fd '1' is too small: the least is 3"),
    ("trusted_proxies", "10.0.0.0/8,x", "--trusted-proxies 'x' is not a network such as 10.0.0.0/8"),
    ("trusted_proxies", "10.0.0.1/8", "--trusted-proxies '10.0.0.1/8' is not a network such as 10.0.0.0/8"),
    ("allowed_origins", "https://a/b", "--allowed-origins 'https://a/b' is not an origin: write"),
    ("allowed_origins", "*", "--allowed-origins '*' is not an origin: write"),
    ("base_path", "/talk?x", "--base-path '/talk?x' must be a path of letters, digits"),
    ("base_path", "/a/../b", "--base-path '/a/../b' must be a path of letters, digits"),
    ("base_path", "/chat/", "--base-path '/chat/' begins with /chat, an address that hiroba has already"),
    ("key_prefix", "a{1}", "--key-prefix 'a{1}' is no prefix of keys: 1 to 64 letters"),
    ("key_prefix", "a*", "--key-prefix 'a*' is no prefix of keys"),
    ("key_prefix", "a:", "--key-prefix 'a:' is no prefix of keys"),
    ("key_prefix", "", "--key-prefix '' is no prefix of keys"),
    ("allowed_origins", "wss://a", "--allowed-origins 'wss://a' can match no page: write https:// for wss://"),
    ("allowed_origins", "file://a", "--allowed-origins 'file://a' can match no page"),
    ("allowed_origins", "https://a:99999", "--allowed-origins 'https://a:99999' is not an origin: write"),
    ("allowed_origins", "https://[::1", "--allowed-origins 'https://[::1' is not an origin: write"),
    ("allowed_origins", "https://ひろば.example", "--allowed-origins 'https://ひろば.example' can match no page"),
    ("allowed_origins", "null", "--allowed-origins 'null' can't be told from any other"),
    ("broker_url", "http://h", "--broker-url must begin with redis://, rediss://, unix:// or redis+sentinel://"),
    ("broker_url", "redis:h", "--broker-url must begin with redis://, rediss://, unix:// or redis+sentinel://"),
    ("broker_url", "redis://", "--broker-url must name a host: redis://host:6379/0"),
    ("broker_url", "redis://h:0x", "--broker-url is not a URL"),
    ("broker_url", "redis://[h", "--broker-url is not a URL"),
    ("broker_url", "unix://", "--broker-url must name an absolute path"),
    ("broker_url", "unix://run/v.sock", "--broker-url must name an absolute path"),
    ("broker_url", "unix://a:b://c@/v.sock", "--broker-url is not a URL"),
    ("broker_url", "redis://a:b://c@h", "--broker-url has a '/', '?' or '#' in its user or password"),
    ("broker_url", "redis://a:b c@h", "--broker-url holds white space"),
    ("broker_url", "redis://a:1/b@h", "--broker-url has a '/', '?' or '#' in its user or password"),
    ("broker_url", "redis+sentinel://h:1,i:2", "--broker-url must name sentinels and a service: redis+sentinel://"),
    ("broker_url", "redis+sentinel:///chat", "--broker-url must name sentinels and a service"),
    ("broker_url", "redis+sentinel://h/chat/zero", "--broker-url must name sentinels and a service"),
    ("broker_url", "redis+sentinel://h:1,i:x/chat", "--broker-url is not a URL: look at the hosts, their ports"),
    ("broker_url", "redis+sentinel://:1/chat", "--broker-url is not a URL: look at the hosts"),
    ("broker_url", "redis+sentinel://h/chat?sentinel", "--broker-url is not a URL: look at the hosts"),
    ("broker_url", "redis+sentinel://a:1/b@h/chat", "--broker-url has a '/', '?' or '#' in its user or password"),
    ("broker_url", "redis://h/zero", "--broker-url must name a database by its number"),
    ("broker_url", "redis://h/1/2", "--broker-url must name a database by its number"),
    ("broker_url", "redis://h/1#2", "--broker-url has a '#': write it as %23"),
    ("broker_url", "redis://h?foo=bar", "--broker-url says foo, which is no option of redis://: there are db, user"),
    ("broker_url", "redis://h?family=0", "--broker-url says family, which is no option of redis://"),
    ("broker_url", "redis://h?tls=true", "--broker-url says tls, which belongs to rediss://"),
    ("broker_url", "redis://h?ssl_cert_reqs=none", "--broker-url says ssl_cert_reqs, which belongs to rediss://"),
    ("broker_url", "unix:///v?ssl_cert_reqs=none", "--broker-url says ssl_cert_reqs, which belongs to rediss://"),
    (
        "broker_url",
        "rediss://h?ssl_ca_cert=f",
        "--broker-url says ssl_ca_cert, which is no option of rediss://: the nea",
    ),
    ("broker_url", "rediss://h?ssl_ca_certs=", "--broker-url ssl_ca_certs is empty"),
    ("broker_url", "redis://h/0?db=x", "--broker-url db must be a number"),
    ("broker_url", "redis://h?db=1&db=2", "--broker-url says db twice"),
    ("broker_url", "redis://h?db", "--broker-url is not a URL: look at what follows the '?'"),
    (
        "broker_url",
        "rediss://h?ssl_cert_reqs=no&a=1",
        "--broker-url ssl_cert_reqs must be none, optional or required; sa",
    ),
    ("broker_url", "rediss://h?ssl_cert_reqs=NONE", "--broker-url ssl_cert_reqs must be none, optional or required"),
    ("broker_url", "rediss://h?ssl_check_hostname=off", "--broker-url ssl_check_hostname must be true or false"),
    ("broker_url", "redis+sentinel://h/c?ssl_ca_certs=f", "--broker-url says ssl_ca_certs, which belongs to rediss://"),
    (
        "broker_url",
        "redis+sentinel://h/c?sentinel_user=x",
        "--broker-url says sentinel_user, which is no option of red",
    ),
    ("broker_url", "rediss+sentinel://h/chat", "--broker-url this version can't speak rediss+sentinel://"),
    ("broker_url", "redis+cluster://h:1,i:2", "--broker-url this version can't speak redis+cluster://"),
]


@pytest.mark.parametrize(("name", "text", "words"), WRONG, ids=lambda value: str(value)[:30])
def test_a_wrong_value_is_refused_in_words(name: str, text: str, words: str) -> None:
    error = said({name: text})
    assert error.startswith(words)
    assert "Input should" not in error and "\n" not in error


def test_an_error_says_which_source_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("hiroba.toml").write_text("nodes = 0\n")
    assert said() == "nodes (in hiroba.toml) 0 is too small: the least is 1"
    monkeypatch.setenv("HIROBA_NODES", "-1")
    assert said() == "HIROBA_NODES '-1' is too small: the least is 1"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"port": 8000, "ops_port": 8000}, "port and ops_port are both 8000"),
        ({"ops_port": 65_535}, "the last node's ops port would be 65536"),
        ({"gather_s": 1.0}, "gather_s (1) must not be above gather_max_s (0.02)"),
        ({"heartbeat_s": 15.1}, "heartbeat_s (15.1) must not be above half of node_ttl_s (30)"),
        ({"sweep_s": 70.0, "room_idle_s": 130.0}, "sweep_s (70) must not be above half of room_idle_s (130)"),
        ({"gather_max_s": 20.0, "publish_timeout_s": 60.0}, "gather_max_s (20) must not be above probe_s (5)"),
        ({"gather_max_s": 20.0, "probe_s": 60.0}, "gather_max_s (20) must not be above publish_timeout_s (10)"),
        ({"outgoing_bytes_max": 65_535}, "message_bytes_max (65536) must not be above outgoing_bytes_max (65535)"),
        ({"retention_entries_min": 200_000}, "retention_entries_min (200000) must not be above"),
        ({"retention_s": 1e6}, "retention_s (1e+06) must not be above room_idle_s (604800)"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_settings_that_contradict_each_other_are_refused(values: dict[str, object], words: str) -> None:
    assert said(values).startswith(words)


def test_ports_of_a_test_may_both_be_free_ones() -> None:
    assert Settings(port=0, ops_port=0).port == 0


def test_the_nodes_ops_ports_must_not_meet_the_public_port() -> None:
    for port, fits in ((8999, True), (9000, False), (9003, False), (9004, True)):
        settings = Settings.model_construct(**{**Settings().model_dump(), "port": port, "nodes": 4})
        if fits:
            settings.require_distinct_ports()
        else:
            with pytest.raises(SettingsError, match="9000 to 9003"):
                settings.require_distinct_ports()


def test_all_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each start told one of them: as many starts as mistakes."""
    Path("hiroba.toml").write_text("message_byte_max = 5\nnods = 1\nnodes = 0\n")
    monkeypatch.setenv("HIROBA_DRIAN_S", "5")
    monkeypatch.setenv("HIROBA_OPS_PORT", "8000")
    assert sorted(said({"stall_s": "z", "gather_s": "1", "allowed_origins": "a/b,c/d"}).splitlines()) == [
        "--allowed-origins 'a/b' is not an origin: write https://chat.example.org or chat.example.org:8443",
        "--allowed-origins 'c/d' is not an origin: write https://chat.example.org or chat.example.org:8443",
        "--stall-s 'z' is not a number",
        "HIROBA_DRIAN_S is not a setting (in the environment); the nearest one is HIROBA_DRAIN_S",
        "gather_s (1) must not be above gather_max_s (0.02)",
        "message_byte_max is not a setting (in hiroba.toml); the nearest one is message_bytes_max",
        "nodes (in hiroba.toml) 0 is too small: the least is 1",
        "nods is not a setting (in hiroba.toml); the nearest one is nodes",
        "port and ops_port are both 8000: give one of them another number",
    ]


def test_what_a_wrong_value_would_contradict_is_not_told() -> None:
    """node_ttl_s contradicts the default, and not what was meant."""
    assert said({"heartbeat_s": "x", "node_ttl_s": "8"}) == "--heartbeat-s 'x' is not a number"


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"port = \n", "is not TOML: Invalid value"), (b'host = "\xff"', "is not TOML"), (None, "can't read")],
)
def test_a_file_that_cannot_be_used_is_named(content: bytes | None, words: str) -> None:
    if content is not None:
        Path("mine.toml").write_bytes(content)
    assert re.search(f"mine.toml.*{words}|{words}.*mine.toml", said(config="mine.toml"))


# ---- passwords ----


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://app:s3cret@h:1/0", "redis://app:***@h:1/0"),
        ("redis://:s3cret@h", "redis://:***@h"),
        ("redis://s3cret@h", "redis://***@h"),
        ("redis://u:s3c@r:e/t@h/0", "redis://u:***@h/0"),
        ("unix:///run/v.sock?db=1&password=s3cret&x=1", "unix:///run/v.sock?db=1&password=***&x=1"),
        ("rediss://h?ssl_keyfile=k&ssl_password=s3cret", "rediss://h?ssl_keyfile=k&ssl_password=***"),
        ("no rediss://a:s3@h, yes redis://b:cret@i!", "no rediss://a:***@h, yes redis://b:***@i!"),
        ("redis://h:6379/0 of me@example.org", "redis://h:6379/0 of me@example.org"),
        ("me@example.org", "me@example.org"),
    ],
)
def test_a_url_is_shown_without_its_password(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize("space", ["", " ", "\n", "\t\r\n  "])
def test_a_token_is_masked_however_its_head_begins(space: str) -> None:
    """Libraries write `{"` first; JSON allows spaces, before and behind the brace."""
    for head in (f'{space}{{"alg":"HS256"}}', f'{{{space}"alg":"HS256"}}'):
        parts = (head.encode(), b'{"sub":"7","exp":9999999999}', b"\xff" * 32)
        said = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
        for text in (f"/ws/{said}/", f"hiroba.token.{said}, hiroba.v1", f"token={said}&a=b"):
            assert not any(part in masked(text) for part in said.split(".")), masked(text)
    host = "gateway-0.gateway-headless.chat-production.svc.cluster.local"
    assert masked(host) == host


@given(st.text(st.characters(codec="utf-8").filter(lambda char: not char.isspace()), min_size=1))
def test_no_password_survives_masking(password: str) -> None:
    assume("://" not in f":{password}")  # refused as a broker's URL, see WRONG
    text = masked(f"can't reach redis://app:{password}@host/0 now")
    assert text == "can't reach redis://app:***@host/0 now"
    assert masked(text) == text


@pytest.mark.parametrize("written", ["/talk", "talk", "/talk/"])
def test_a_base_path_is_the_same_with_and_without_its_slashes(written: str) -> None:
    assert load({"base_path": written}).settings.base_path == "/talk"
    assert load({"base_path": "/"}).settings.base_path == ""


def test_a_url_of_sentinels_is_read() -> None:
    url = "redis+sentinel://app:p%2Fss@h,[::1]:1,i:2/chat%20room/3?sentinel_username=s&sentinel_password=x%26y&health=1"
    found = sentinel_url(url)
    assert found.sentinels == (("h", 26379), ("::1", 1), ("i", 2)) and found.service == "chat room"
    assert found.broker_url == "redis://app:p%2Fss@master/3?health=1"
    assert (found.sentinel_username, found.sentinel_password) == ("s", "x&y")
    assert masked(url).partition("?")[::2] == (
        "redis+sentinel://app:***@h,[::1]:1,i:2/chat%20room/3",
        "sentinel_username=s&sentinel_password=***&health=1",
    )
    assert sentinel_url("redis+sentinel://h/chat") == ((("h", 26379),), "chat", "redis://master/0?", None, None)


@pytest.mark.timeout(20)
def test_no_input_makes_masking_slow() -> None:
    """Clients choose paths that are logged; a quadratic scan of these would take hours."""
    for text in (
        "a://" * 250_000,
        "://" + "a" * 1_000_000,
        "?password=" * 100_000 + "://",
        "@://" * 250_000,
        "a." * 500_000,
        "a" * 999_999 + ".",
        ("a" * 20 + ".") * 50_000,
    ):
        masked(text)


def test_settings_never_show_a_password() -> None:
    settings = Settings(broker_url=f"redis://app:{PASSWORD}@h/0")
    assert settings.broker_url is not None and PASSWORD in settings.broker_url
    for shown in (repr(settings), str(settings), f"{settings}", "%s" % settings):  # noqa: UP031
        assert PASSWORD not in shown and "redis://app:***@h/0" in shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://a:{}/x@h",
        "http://a:{}@h",
        "redis://a:{}@h:port",
        "redis+cluster://a:{}@h",
        "redis+sentinel://a:{}@h:port/chat",
        "redis+sentinel://h?sentinel_password={}",
        "redis://h?password={}#a",
        "rediss://h?ssl_password={}&foo=1",
    ],
)
def test_errors_never_show_a_password(url: str) -> None:
    wrong = url.format(PASSWORD)
    assert PASSWORD not in said({"broker_url": wrong})
    assert PASSWORD not in said({"log_level": wrong})
    with pytest.raises(ValidationError) as error:
        Settings(broker_url=wrong)
    assert PASSWORD not in str(error.value) and PASSWORD not in repr(error.value)


@pytest.mark.parametrize("query", ["password=a&{}", "password=a&{}=b", "pasword={}"])
def test_an_option_that_is_wrong_is_told_without_what_may_be_a_password(query: str) -> None:
    assert PASSWORD not in said({"broker_url": f"redis://h?{query.format(PASSWORD)}"})


# ---- the fields themselves, and what is made from them ----


def test_every_field_says_what_it_is_and_has_a_place() -> None:
    assert sorted(name for section in SECTIONS for name in section.__annotations__) == sorted(FIELDS)
    for name, field in Settings.model_fields.items():
        assert field.description and field.description.rstrip().endswith("."), name
        assert field.default is not None or field.examples, name


def test_a_number_of_seconds_or_bytes_says_so_in_its_name() -> None:
    for name, field in Settings.model_fields.items():
        if float in {field.annotation, *get_args(field.annotation)}:
            assert name.endswith("_s"), name


def test_names_that_others_script_are_there() -> None:
    fixed = (
        "broker_url port ops_port nodes data host ops_host messages_per_s connections_max message_bytes_max "
        "publish_timeout_s stall_s drain_s lb_wait_s allowed_origins trusted_proxies log_format"
    )
    assert set(fixed.split()) <= set(FIELDS)


def test_the_example_file_parses_to_the_defaults() -> None:
    example = show.example()
    assert tomllib.loads(example) == {}
    uncommented = re.sub(r"^#(?=\w)", "", example, flags=re.M)
    values = tomllib.loads(uncommented)
    assert list(values) == [name for section in SECTIONS for name in section.__annotations__]
    unset = {name for name, field in Settings.model_fields.items() if field.default is None}
    Path("hiroba.toml").write_text(as_toml({name: value for name, value in values.items() if name not in unset}))
    assert load({}).settings == Settings()
    Settings(**values)  # the examples of unset ones are valid


def test_the_table_of_what_is_set_shows_value_and_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIROBA_BROKER_URL", f"redis://app:{PASSWORD}@h/0")
    shown = show.values(load({"drain_s": "7.5"}))
    rows = [re.split(r"  +", line) for line in shown.splitlines()]
    assert ["drain_s", "7.5", "flag"] in rows and ["port", "8000", "default"] in rows
    assert ["broker_url", "redis://app:***@h/0", "environment"] in rows
    assert len(rows) == len(FIELDS) and PASSWORD not in shown


def test_the_page_about_settings_is_the_codes() -> None:
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    assert page == show.markdown(), "stale: hiroba config --markdown > docs/settings.md"
    assert all(f"| `{name}` |" in page for name in FIELDS)


def test_flags_and_variables_are_spelt_from_the_name() -> None:
    assert (as_flag("ops_port"), as_variable("ops_port")) == ("--ops-port", "HIROBA_OPS_PORT")
