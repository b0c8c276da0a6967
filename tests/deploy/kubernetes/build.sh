#!/bin/sh
# usage: build.sh
# Builds what tests/deploy/test_k8s_for_real.py runs, of Go modules in the versions of go.mod beside this file: etcd,
# Kubernetes' API server, controllers, scheduler and kubectl, and prometheus-operator's custom resources as YAML, into the
# directory that KUBERNETES_BINARIES names. Once: half an hour on two busy cores, 400 MB, and of Go's caches 4 GB.
# GO_PARALLEL: how many packages are compiled at a time (2).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n 's|^require k8s.io/kubernetes ||p' "$here/go.mod")
into=${KUBERNETES_BINARIES:-${XDG_CACHE_HOME:-$HOME/.cache}/hiroba/kubernetes-$version}

command -v go >/dev/null || {
    echo "build.sh: Go is missing, in the version of $here/go.mod or newer: https://go.dev/doc/install" >&2
    exit 2
}
mkdir -p "$into"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
cp -R "$here/go.mod" "$here/operator" "$work/"
# Which versions the other modules have follows from go.mod's; their sums are checked against Go's public log of them.
export GOFLAGS="-mod=mod -trimpath" CGO_ENABLED=0

# usage: program NAME PACKAGE
program() {
    [ ! -x "$into/$1" ] || return 0
    echo "Building $1 …"
    stamp="-X k8s.io/component-base/version.gitVersion=$version"
    go build -p "${GO_PARALLEL:-2}" -ldflags "-s -w $stamp" -o "$work/$1" "$2"
    mv "$work/$1" "$into/$1"
}

cd "$work"
program etcd go.etcd.io/etcd/server/v3
program kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
program kubectl k8s.io/kubernetes/cmd/kubectl
program kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager
program kube-scheduler k8s.io/kubernetes/cmd/kube-scheduler

if [ ! -d "$into/operator" ]; then
    echo "Making prometheus-operator's custom resources …"
    cd "$work/operator"
    go run -p "${GO_PARALLEL:-2}" sigs.k8s.io/controller-tools/cmd/controller-gen crd \
        paths=github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1 output:dir="$work/crds"
    mkdir "$work/operator/chosen"
    mv "$work"/crds/*_servicemonitors.yaml "$work"/crds/*_prometheusrules.yaml "$work/operator/chosen/"
    mv "$work/operator/chosen" "$into/operator"
fi
echo "$into"
