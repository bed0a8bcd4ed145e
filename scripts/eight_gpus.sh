#!/usr/bin/env bash
# A run on all GPUs of one machine.
#
#   scripts/eight_gpus.sh synthesis:toilet,paper \
#     --config.chains.num_chains=32 --config.data.batch_size=32
#
# One process has all GPUs. PROCESSES=8 takes eight processes of one GPU each: the
# same result, as a rehearsal of a cluster. Ctrl-C or SIGTERM saves and stops all;
# the same command goes on.
set -euo pipefail

if (($# == 0)); then
  echo 'a config is needed, such as synthesis:toilet,paper' >&2
  exit 2
fi
config=$1
shift
python=${PYTHON:-.venv/bin/python}
number=${PROCESSES:-1}
name=${config//[:,]/_}
command=("$python" -m experiments.main train "$config"
  --workdir="${WORKDIR:-runs/$name}" "$@")

if ((number == 1)); then
  exec "${command[@]}"
fi

port=${PORT:-12355}
running=()
# shellcheck disable=SC2329  # The trap calls it.
stop() {
  kill -TERM "${running[@]}" 2>/dev/null || true
}
trap stop TERM INT
for ((i = 0; i < number; i++)); do
  CUDA_VISIBLE_DEVICES=$i "${command[@]}" --num_processes="$number" \
    --process_id="$i" --coordinator_address="127.0.0.1:$port" &
  running+=($!)
done
# The first failure is that of the run. A signal ends `wait` early.
status=0
for one in "${running[@]}"; do
  own=0
  wait "$one" || own=$?
  while kill -0 "$one" 2>/dev/null; do
    own=0
    wait "$one" || own=$?
  done
  if ((status == 0)); then
    status=$own
  fi
done
exit "$status"
