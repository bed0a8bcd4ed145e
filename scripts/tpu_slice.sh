#!/usr/bin/env bash
# A run on a slice of Cloud TPU VMs, from your own machine, by gcloud.
#
#   scripts/tpu_slice.sh create     asks for the slice, and waits for it
#   scripts/tpu_slice.sh install    this repository and JAX on all workers
#   scripts/tpu_slice.sh run synthesis:toilet,paper \
#     --config.chains.num_chains=32 --config.data.batch_size=32
#   scripts/tpu_slice.sh logs       of the first worker, as they come
#   scripts/tpu_slice.sh stop       SIGTERM: all save one checkpoint and end
#   scripts/tpu_slice.sh delete
#
# `run` again goes on where the run was stopped. Set these, or take the defaults:
#
#   PROJECT ZONE              of Google Cloud
#   NAME                      of the slice
#   TYPE                      such as v5litepod-16 or v5p-256
#   VERSION                   of the TPU software, such as v2-alpha-tpuv5-lite
#   SPOT=1                    a preemptible slice
#   SHARED                    a folder that all workers share, such as Filestore
#                             by NFS: checkpoints have to be renamed in one go, so
#                             a mounted bucket will not do
#   REPOSITORY                what the workers clone
set -euo pipefail

PROJECT=${PROJECT:-$(gcloud config get-value project 2>/dev/null)}
ZONE=${ZONE:-us-west4-a}
NAME=${NAME:-dnet}
TYPE=${TYPE:-v5litepod-16}
VERSION=${VERSION:-v2-alpha-tpuv5-lite}
SPOT=${SPOT:-}
SHARED=${SHARED:-/mnt/shared}
REPOSITORY=${REPOSITORY:-}

there=(--project="$PROJECT" --zone="$ZONE")

on_all() {
  gcloud compute tpus tpu-vm ssh "$NAME" "${there[@]}" --worker=all \
    --command="$1"
}

create() {
  local spot=()
  if [[ -n $SPOT ]]; then
    spot=(--spot)
  fi
  gcloud compute tpus queued-resources create "$NAME" "${there[@]}" \
    --node-id="$NAME" --accelerator-type="$TYPE" \
    --runtime-version="$VERSION" "${spot[@]}"
  echo "Waiting for $TYPE; Ctrl-C does not take the request back."
  local state=
  until [[ $state == ACTIVE ]]; do
    sleep 30
    state=$(gcloud compute tpus queued-resources describe "$NAME" \
      "${there[@]}" --format='value(state.state)')
    echo "$state"
    if [[ $state == FAILED || $state == SUSPENDED ]]; then
      exit 1
    fi
  done
}

install() {
  if [[ -z $REPOSITORY ]]; then
    echo 'Set REPOSITORY to what the workers shall clone.' >&2
    exit 2
  fi
  on_all "set -e
    test -d '$SHARED' || { echo 'mount $SHARED first' >&2; exit 1; }
    test -d dnet_jax || git clone --quiet '$REPOSITORY' dnet_jax
    cd dnet_jax && git pull --quiet
    python3 -m venv .venv
    .venv/bin/pip install --quiet --upgrade 'jax[tpu]' -e '.[experiments]'"
}

run() {
  local config=$1
  shift
  local name=${config//[:,]/_} extra=
  if (($#)); then
    extra=$(printf ' %q' "$@")
  fi
  # Each worker has a process; JAX finds the others by itself.
  on_all "cd dnet_jax && mkdir -p '$SHARED/runs'
    nohup .venv/bin/python -m experiments.main train $(printf %q "$config") \
      --distributed --workdir='$SHARED/runs/$name'$extra \
      </dev/null >>~/dnet.log 2>&1 &
    echo \$! >~/dnet.pid"
}

logs() {
  gcloud compute tpus tpu-vm ssh "$NAME" "${there[@]}" --worker=0 \
    --command='tail -n 50 -f ~/dnet.log'
}

stop() {
  # One would do: the others learn of it.
  # shellcheck disable=SC2016
  on_all 'kill -TERM "$(cat ~/dnet.pid)"'
}

delete() {
  gcloud compute tpus queued-resources delete "$NAME" "${there[@]}" --force
}

case ${1:-} in
  create | install | logs | stop | delete) "$1" ;;
  run)
    if [[ -z ${2:-} ]]; then
      echo 'run needs a config, such as synthesis:toilet,paper' >&2
      exit 2
    fi
    run "${@:2}"
    ;;
  *)
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
