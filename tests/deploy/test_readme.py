"""README.md's three ways to run hiroba: short, and made of what is there."""

import re

import pytest

from tests.deploy.compose import FILE, ROOT, services

README = (ROOT / "README.md").read_text("utf-8")
LINES_MAX = 5


def ways(text: str) -> list[str]:
    """The three blocks of commands."""
    _, _, rest = text.partition("Three ways to run it all:")
    return re.findall(r"^```sh\n(.*?)^```$", rest, re.MULTILINE | re.DOTALL)[:3]


def check_ways(text: str) -> None:
    one, compose, kubernetes = ways(text)
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for way in (one, compose, kubernetes):
        assert len(way.splitlines()) <= LINES_MAX
        assert set(re.findall(r"\bmake (\S+)", way)) <= set(targets)
        for path in re.findall(r"\bdeploy/[\w/.]*\w", way):
            assert (ROOT / path).exists(), path
    assert re.findall(r"\bmake (\S+)", one) == ["run"]
    named = services()
    assert "docker compose up" in compose and {*re.findall(r"loadtest (\w+) ", compose)} <= named.keys()
    for variable in re.findall(r"(\w+)=\S+ docker", compose):
        assert f"${{{variable}" in FILE.read_text("utf-8"), variable
    assert re.findall(r"kubectl apply .*-k (\S+)", kubernetes) == ["deploy/k8s/example"]


def test_three_ways_of_a_few_lines_each() -> None:
    check_ways(README)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("make run                                   ", "make start                                   "),
        ("make secrets && GATEWAY_REPLICAS=4 docker compose up", "docker compose pull\n\n\n\n\ndocker compose up"),
        ("-k deploy/k8s/example", "-k deploy/k8s/overlay"),
        ("GATEWAY_REPLICAS=4", "NODES=4"),
    ],
)
def test_a_readme_that_tells_of_something_else_is_refused(old: str, new: str) -> None:
    assert old in README
    with pytest.raises(AssertionError):
        check_ways(README.replace(old, new))
