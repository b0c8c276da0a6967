"""System packages: no daemon starts when they are installed, and what is missing is said and cannot hide.

.ci/packages itself, on copies of the paths that it would change; apt-get stands on PATH in our place.
"""

import subprocess
from pathlib import Path

import pytest

from deploy.stack.parts import DEPLOY
from tests.support.need import need_tool

SCRIPT = DEPLOY.parent / ".ci" / "packages"
# Says what invoke-rc.d would have been told while packages are unpacked, and what it was asked for.
APT_GET = """#!/bin/sh
"$POLICY" ssh start; echo "apt-get $* ($?)" >>"$TOLD"
exit ${APT_GET_EXIT:-0}
"""


class Machine:
    """A Debian of its own: `id`, `apt-get`, os-release and policy-rc.d in a directory."""

    def __init__(self, directory: Path, *, root: bool = True) -> None:
        self.policy, self.told, binaries = directory / "policy-rc.d", directory / "told", directory / "bin"
        (directory / "os-release").write_text("ID=debian\n")
        binaries.mkdir()
        for name, text in (("apt-get", APT_GET), ("id", f"#!/bin/sh\necho {0 if root else 1000}\n")):
            (binaries / name).write_text(text)
            (binaries / name).chmod(0o755)
        script = SCRIPT.read_text("utf-8")
        for real, ours in (("/usr/sbin/policy-rc.d", self.policy), ("/etc/os-release", directory / "os-release")):
            assert real in script
            script = script.replace(real, str(ours))
        self.script = directory / "packages"
        self.script.write_text(script)
        self.path = f"{binaries}:/usr/bin:/bin"

    def install(self, *packages: str, **env: str) -> subprocess.CompletedProcess[str]:
        known = {"PATH": self.path, "POLICY": str(self.policy), "TOLD": str(self.told), **env}
        argv = ["sh", str(self.script), *packages]
        return subprocess.run(argv, env=known, capture_output=True, text=True, timeout=60, check=False)

    def asked(self) -> list[str]:
        return self.told.read_text().splitlines() if self.told.exists() else []


@pytest.mark.parametrize("apt_get_exit", ["0", "1"])
def test_no_daemon_may_start_while_packages_are_installed_and_any_may_afterwards(
    tmp_path: Path, apt_get_exit: str
) -> None:
    machine = Machine(tmp_path)
    machine.policy.write_text("#!/bin/sh\nexit 0 # the administrator's own\n")
    machine.policy.chmod(0o755)
    done = machine.install("sh", "no-such-program", APT_GET_EXIT=apt_get_exit, CI="true")
    assert done.returncode == int(apt_get_exit)
    assert machine.asked()[0] == "apt-get update (101)"
    if apt_get_exit == "0":
        assert machine.asked()[1:] == ["apt-get install -y --no-install-recommends no-such-program (101)"]
    assert "the administrator's own" in machine.policy.read_text()
    machine.policy.unlink()
    machine.install("no-such-program")
    assert not machine.policy.exists()


def test_what_is_there_is_not_installed_again(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.install("sh", "cat", CI="true").returncode == 0
    assert machine.asked() == []


def test_who_may_not_install_is_told_the_line_and_ci_does_not_go_on(tmp_path: Path) -> None:
    machine = Machine(tmp_path, root=False)
    laptop, ci = machine.install("no-such-program"), machine.install("no-such-program", CI="true")
    for done in (laptop, ci):
        assert "sudo apt-get install -y --no-install-recommends no-such-program" in done.stderr
    assert (laptop.returncode, ci.returncode) == (0, 1)
    assert machine.asked() == [] and not machine.policy.exists()


def test_a_test_without_its_tool_is_skipped_on_a_laptop_and_fails_where_ci_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Path(need_tool("sh", "dash")).is_absolute()
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install --no-install-recommends some-package"):
        need_tool("no-such-program", "some-package")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install --no-install-recommends some-package"):
        need_tool("no-such-program", "some-package")
