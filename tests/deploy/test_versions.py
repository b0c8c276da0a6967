"""docs/versions.md: what it says was tested is of the line that is deployed. Its images: test_one_source.py."""

import re
import sys

import pytest

from tests.deploy import sources
from tests.deploy.compose import ROOT

VERSIONS = (ROOT / "docs/versions.md").read_text("utf-8")


def check_lines(text: str) -> None:
    """Each image of docs/versions.md is of the major line that the tests ran; Grafana never ran, and it says so."""
    rows = re.findall(r"^\| `([\w./-]+):v?(\d+)\.[\w.-]+`[^|]*\| ([^|]+) \|", text, re.MULTILINE)
    assert len(rows) == 9
    for image, major, tested in rows:
        assert re.search(rf"\b{major}\.\d", tested) or ("grafana" in image and "never" in tested), image


def test_images_are_of_the_line_that_was_tested() -> None:
    check_lines(VERSIONS)
    for image, other in (
        ("redis:7.0", "redis:8.0"),
        ("prometheus:v2.", "prometheus:v3."),
        ("`python:3.11", "`python:4.0"),
    ):
        assert image in VERSIONS
        with pytest.raises(AssertionError):
            check_lines(VERSIONS.replace(image, other))


def test_the_python_of_the_image_is_the_one_of_the_tests() -> None:
    (base,) = [line.split()[1] for line in sources.dockerfile() if line.startswith("FROM") and ":" in line]
    tested = re.search(r"`python:(\d+\.\d+)-\S+` \| CPython (\d+\.\d+)", VERSIONS)
    assert tested and tested[1] == tested[2] and base.startswith(f"python:{tested[1]}-")
    assert sys.version_info >= tuple(map(int, tested[1].split(".")))
