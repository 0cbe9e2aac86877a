#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Releases an image to the idle color with kubectl alone: the usual script of a blue-green release, without its sleeps.
# Prints the seconds of each step.
#
# usage: KUBECONFIG=... KUBECTL=... blue-green.sh NAMESPACE IMAGE NEW_COLOR REPLICAS
set -euo pipefail
export LC_ALL=C

namespace=$1 image=$2 new=$3 replicas=$4

k() { "${KUBECTL:-kubectl}" --namespace "$namespace" "$@"; }

step() {
  local name=$1 started=${EPOCHREALTIME/./}
  shift
  "$@" >/dev/null
  local microseconds=$((${EPOCHREALTIME/./} - started))
  printf '%d.%06d %s\n' $((microseconds / 1000000)) $((microseconds % 1000000)) "$name"
}

# A pod that is not on its way out: after a rollout those of the old revision may still be.
smoke_test() {
  local template='{{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}}{{"\n"}}{{end}}{{end}}'
  local pods
  pods=$(k get pods --selector "app=web,version=$new" --output go-template="$template")
  k exec "${pods%%$'\n'*}" -- wget -q -O - http://127.0.0.1:9898/healthz
}

step "set image" k set image "deployment/web-$new" "app=$image"
step "scale" k scale "deployment/web-$new" --replicas "$replicas"
step "rollout status" k rollout status "deployment/web-$new" --timeout 90s
step "smoke test" smoke_test
step "switch" k patch service web --patch "{\"spec\":{\"selector\":{\"version\":\"$new\"}}}"
