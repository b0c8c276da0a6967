"""Every command that a page tells people to type is run by a test, as it stands there, or says here why it is not."""

import ast
import re
import subprocess
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import pytest

from deploy.pages import PAGES, ROOT, commands, typed

# By page, how the command begins -> why nobody runs it, and what is looked at instead.
_NOT_RUN = {
    "README.md": {
        "docker build": "no registry, no cluster; `docker compose up --build` builds the same image",
    },
    "deploy/k8s/README.md": {
        "docker build": "the same; test_k8s.py runs secrets.sh and renders what is applied",
        "kubectl apply": "a part of the first; test_k8s_for_real.py runs that",
        "kubectl rollout undo": "what the page says not to type: test_k8s_for_real.py shows why",
        "make test-long PYTEST='-k k8s_for_real'": "it is these tests",
    },
    "docs/load-testing.md": {
        "python -m tests.loadtest.bench_reading": "it measures; no test asserts speed",
    },
    "docs/operations.md": {
        "sh deploy/docker/build.sh . /opt/hiroba\n": "no systemd as process 1. test_dockerfile.py runs build.sh, "
        "test_systemd.py has the unit judged and holds it against strace; its files: below",
        "journalctl": "no journald",
        "systemctl list-timers": "no systemd as process 1, and the timer is the ACME client's",
        "certbot renew": "no authority; test_haproxy.py runs its hook",
        "docker compose kill": "what the page says not to type",
    },
    "docs/tls.md": {
        "prometheus-blackbox-exporter": "test_certificates.py runs it at a port of its own, by deploy.stack.parts",
        "make stack CERT=FILE": "test_stack.py runs it at ports of its own, by `python -m deploy.stack --cert`",
    },
}
NOT_RUN = [(page, beginning) for page, reasons in _NOT_RUN.items() for beginning in reasons]


@cache
def claims() -> Collection[tuple[str, str]]:
    """Each `typed(page, beginning)` in the source of tests and trials."""
    sources = {path: path.read_text("utf-8") for part in ("tests", "deploy") for path in (ROOT / part).rglob("*.py")}
    del sources[Path(__file__)]
    return frozenset(claim for text in sources.values() if "typed(" in text for claim in _claims(ast.parse(text)))


def _claims(tree: ast.Module) -> Iterator[tuple[str, str]]:
    texts = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "typed":
            page, beginning = (
                arg.value if isinstance(arg, ast.Constant) else texts[getattr(arg, "id", "")] for arg in call.args[:2]
            )
            yield str(page), str(beginning)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_run_or_says_why_not(page: str) -> None:
    claimed = {typed(page, beginning) for at, beginning in (*claims(), *NOT_RUN) if at == page}
    nobodys = [text for text in commands(page) if text not in claimed]
    assert nobodys == [], "a test asks for it by deploy.pages.typed, or _NOT_RUN says why none can"


def test_every_claim_is_a_command_of_its_page() -> None:
    for page, beginning in (*claims(), *NOT_RUN):
        assert typed(page, beginning)


def test_a_command_that_nobody_runs_is_found() -> None:
    assert len(claims()) > 30
    assert not any(page == "docs/operations.md" and "hiroba broker frobnicate".startswith(b) for page, b in claims())


@pytest.mark.parametrize("page", PAGES)
def test_a_shell_can_read_every_command(page: str) -> None:
    for text in commands(page):
        if text.split()[0].isupper():
            continue  # redis-cli's
        argv = ["sh", "-n", "-c", text]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stderr}"


def test_the_unit_is_installed_where_it_looks_for_its_files() -> None:
    """What can be seen of it without a systemd: the paths of the page's commands are the unit's."""
    unit = (ROOT / "deploy/systemd/hiroba@.service").read_text("utf-8")
    build, install, *rest = typed("docs/operations.md", "sh deploy/docker/build.sh . /opt/hiroba\n").splitlines()
    assert f"ExecStart={build.split()[-1]}/bin/hiroba" in unit
    assert (ROOT / install.split()[3]).is_file()
    made = [line.split()[4] for line in rest if line.startswith("install -m 600")]
    assert [path.replace("node-0", "node-%i") for path in made] == re.findall(r"EnvironmentFile=-?(\S+)", unit)
    assert rest[-1].endswith("hiroba@0")
