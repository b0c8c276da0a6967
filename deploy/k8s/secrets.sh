#!/bin/sh
# usage: secrets.sh [DIRECTORY]     (deploy/k8s/example/secrets)
# What `make secrets` made, as the files of which kustomize makes the Secrets `hiroba-broker` and `hiroba-broker-users`.
set -eu
cd "$(dirname "$0")/../.."
directory=${1:-deploy/k8s/example/secrets}
if [ ! -f .env ] || [ ! -f secrets/users.acl ]; then
    echo "secrets.sh: there are no passwords yet: make secrets" >&2
    exit 2
fi
# shellcheck source=/dev/null
. ./.env
umask 077
mkdir -p "$directory"
printf 'redis://gateway:%s@hiroba-broker:6379/0' "$BROKER_GATEWAY_PASSWORD" >"$directory/url"
printf %s "$BROKER_EXPORTER_PASSWORD" >"$directory/exporter-password"
cp secrets/users.acl "$directory/users.acl"
