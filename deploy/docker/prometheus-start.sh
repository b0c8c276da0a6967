#!/bin/sh
# usage: prometheus-start.sh SOURCE DIRECTORY NAME [FLAGS of prometheus]
# Prometheus on prometheus.yml of SOURCE, but nodes are found by DNS: NAME has the addresses of all of them, however
# many there are. The file that it reads is written into DIRECTORY.
set -eu
source=$1 directory=$2 name=$3
shift 3

mkdir -p "$directory"
ln -sfn "$source/rules" "$directory/rules"
ln -sfn "$source/targets" "$directory/targets"
dns="dns_sd_configs: [{names: [$name], type: A, port: 9000, refresh_interval: 5s}]"
sed "/^ *file_sd_configs:\$/{N;s|file_sd_configs:\n *- files: \[targets/gateway\.yml\]|$dns|;}" \
    "$source/prometheus.yml" >"$directory/prometheus.yml"
if ! grep -q dns_sd_configs "$directory/prometheus.yml"; then
    echo "prometheus-start.sh: prometheus.yml names targets/gateway.yml in another way than this script knows" >&2
    exit 2
fi
exec prometheus --config.file="$directory/prometheus.yml" "$@"
