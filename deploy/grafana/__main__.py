"""`python -m deploy.grafana [--check]`: write dashboards/*.json, or say which are stale. What is on them is elsewhere.

Exit codes: 0 written, or nothing stale; 1 stale.
"""

import argparse
import sys

from deploy.grafana.build import DIRECTORY, rendered


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m deploy.grafana", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a file is stale")
    check = parser.parse_args().check
    wanted = rendered()
    present = {path.name: path.read_text("utf-8") for path in DIRECTORY.glob("*.json")}
    stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
    if check:
        if stale:
            print(f"stale: {', '.join(stale)} in {DIRECTORY}: python -m deploy.grafana", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        if name in wanted:
            (DIRECTORY / name).write_text(wanted[name], "utf-8")
        else:
            (DIRECTORY / name).unlink()
        print(f"{'wrote' if name in wanted else 'removed'} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
