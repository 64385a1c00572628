#!/usr/bin/env bash
# Trains with N processes on this machine: launch/local.sh N --config configs/phantom.py …
# Their output is told apart by their number; the first that fails ends them all.
set -euo pipefail
if [[ ! ${1:-} =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 N --config FILE …, N processes" >&2
    exit 2
fi
processes=$1
shift
python=${PYTHON:-python}
port=${PORT:-$("$python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')}
export JAX_COORDINATOR_ADDRESS=127.0.0.1:$port JAX_NUM_PROCESSES=$processes
stopping=
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
stop='stopping=1; kill -TERM $(jobs -p) 2>/dev/null || true' # they save, and end by themselves
trap "$stop" TERM
trap 'if [[ $stopping ]]; then kill -KILL $(jobs -p); fi; '"$stop" INT # a second Ctrl-C ends them
for ((i = 0; i < processes; i++)); do
    JAX_PROCESS_ID=$i "$python" -m mijax.main "$@" > >(sed -u "s/^/[$i] /") 2> >(sed -u "s/^/[$i] /" >&2) &
done
while ((processes > 0)); do
    code=0
    wait -n || code=$?
    if [[ $stopping && $code -gt 128 ]]; then # it was the signal that ended the waiting
        continue
    elif ((code > 0)); then
        exit $code
    fi
    processes=$((processes - 1))
done
