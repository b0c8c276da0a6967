"""Manifests that were rendered once, for every test that reads them."""

from pathlib import Path

import pytest

from tests.deploy.kustomize import Resource, render
from tests.deploy.manifests import OVERLAYS, with_secrets


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_secrets(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def example(project: Path) -> list[Resource]:
    return render(project / "deploy/k8s/example")


@pytest.fixture(scope="session", params=OVERLAYS)
def overlay(project: Path, request: pytest.FixtureRequest) -> list[Resource]:
    return render(project / "deploy/k8s" / request.param)
