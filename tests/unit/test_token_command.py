"""`hiroba token`: what it makes a node takes, and what a node would refuse it refuses in the same words."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tests.support.node import environment
from tests.support.tokens import PRIVATE, SECRET, public_pem, token


def hiroba_token(*argv: str, said: str = "", **settings: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "gateway", "token", *argv]
    return subprocess.run(
        command, input=said, env=environment(settings), capture_output=True, text=True, check=False, timeout=60
    )


KEYS = f"HS256:{SECRET},{public_pem('EdDSA')}"


def test_what_is_made_is_good(tmp_path: Path) -> None:
    """By a secret of the settings, and by a private key that no node has; with the audience that nodes ask for."""
    pem = PRIVATE["EdDSA"].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key.pem").write_bytes(pem)
    for more in ([], ["--key", str(tmp_path / "key.pem")]):
        rest = ["--name", "Ann 安", "--rooms", "team-*=rw,x=", "--info", '{"a":1}', *more]
        made = hiroba_token("make", "7", *rest, token_keys=KEYS, token_audience="hiroba")
        assert made.returncode == 0, made.stderr
        looked = hiroba_token("look", said=made.stdout, token_keys=KEYS, token_audience="hiroba")
        assert looked.returncode == 0 and re.search(r"exp: .* UTC, in 3[56]\d\d s", looked.stdout)
        assert "good: user '7', called 'Ann 安'" in looked.stdout
        assert '"rooms": {"team-*": "rw", "x": ""}' in looked.stdout
        other = hiroba_token("look", made.stdout.strip(), token_keys=KEYS)
        assert other.returncode == 1 and "refused, token_audience" in other.stdout


@pytest.mark.parametrize(
    ("said", "reason"),
    [(token(exp=1), "token_expired"), ("nonsense", "token_malformed"), (token("ES256"), "token_key")],
)
def test_what_is_not_good_is_explained(said: str, reason: str) -> None:
    looked = hiroba_token("look", said=said, token_keys=KEYS)
    assert looked.returncode == 1 and f"refused, {reason}" in looked.stdout


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["make", "guest:1"], "of guests"),
        (["make", "7", "--rooms", "a=x"], "rights are letters"),
        (["make", "7", "--info", "{"], "--info is no JSON"),
        (["make", "7", "--key", "missing.pem"], "can't be read"),
        (["make"], "--help"),
    ],
)
def test_what_no_node_would_take_is_not_made(argv: list[str], why: str) -> None:
    made = hiroba_token(*argv, token_keys=KEYS)
    assert made.returncode == 2 and why in made.stderr and not made.stdout and "Traceback" not in made.stderr


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ("HS256:short", "32 bytes"),
        ("@missing.pem", "can't be read"),
        ("-----BEGIN PRIVATE KEY-----", "must be"),
        (public_pem("ES256").replace("A", "B"), "no public key"),
    ],
)
def test_a_key_that_is_none_is_refused_without_being_told(keys: str, why: str) -> None:
    looked = hiroba_token("look", said=token(), token_keys=keys)
    assert looked.returncode == 2 and why in looked.stderr and "short" not in looked.stderr
