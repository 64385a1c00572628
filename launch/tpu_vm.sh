#!/usr/bin/env bash
# Trains on all hosts of a Cloud TPU slice:
#   TPU=NAME ZONE=ZONE launch/tpu_vm.sh --workdir SHARED_FOLDER --config configs/acdc.py …
# Needs gcloud here, this repository at ~/mijax on each host, with its environment at ~/mijax/.venv
# (pip install -e '.[train,tpu]'), and a work folder that all hosts see.
set -euo pipefail
: "${TPU:?name of the TPU}" "${ZONE:?zone of the TPU}"
command="cd ~/mijax && .venv/bin/python -m mijax.main$(printf ' %q' "$@")"
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone "$ZONE" --worker=all --command "$command"
