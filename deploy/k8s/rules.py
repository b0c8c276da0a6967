"""`python -m deploy.k8s.rules [--check]`: the rules of deploy/prometheus/rules as PrometheusRules, one per file.

kustomize can put a file into a ConfigMap, but not into another resource. So the file is generated; a test fails when
it is stale. Exit codes: 0 written, or not stale; 1 stale.
"""

import sys
from pathlib import Path

RULES = Path(__file__).parents[1] / "prometheus" / "rules"
RESOURCE = Path(__file__).with_name("monitoring") / "prometheusrule.yaml"

HEAD = """\
# yamllint disable rule:line-length
# Made by `python -m deploy.k8s.rules` of deploy/prometheus/rules: change it there.
"""
RULE = """\
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: hiroba-{name}
spec:
  groups:
"""


def resource(rules: Path = RULES) -> str:
    """All rule files in their own words. Not one resource: two files may name a group alike. Raises ValueError."""
    return HEAD + "".join(RULE.format(name=path.stem) + _groups(path) for path in sorted(rules.glob("*.yml")))


def _groups(path: Path) -> str:
    """What stands below `groups:`, two further in."""
    _, found, groups = path.read_text("utf-8").partition("\ngroups:\n")
    if not found:
        raise ValueError(f"{path} has no line `groups:`")
    return (
        "".join(f"  {line}" if line.strip() else line for line in groups.strip("\n").splitlines(keepends=True)) + "\n"
    )


def main() -> int:
    wanted = resource()
    if "--check" in sys.argv[1:]:
        if RESOURCE.read_text("utf-8") != wanted:
            print(f"stale: {RESOURCE.name}: python -m deploy.k8s.rules", file=sys.stderr)
            return 1
        return 0
    RESOURCE.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
