#!/bin/bash
# One evaluation on a Ray cluster, a worker for each of its GPUs, or processors where it has none:
#
#     RAY_ADDRESS=10.0.0.1:6379 bash examples/ray/attack.sh RUN MODEL.keras --dataset mnist --eps 0.3
#
# RUN is a folder that all nodes see by that path; what follows are arguments of `bcgan-tf attack`. All
# nodes have the same version of bcgan-tf[ray]. Killed workers are replaced; the same command goes on
# with a run that was killed itself. Without RAY_ADDRESS, as the tests try it: a cluster of two nodes of
# one processor each on this machine, which ends with the script; RAY_PORT, 6379 if it is not set, must be
# free, and outside of 10002 to 19999, which Ray's workers have.
set -euo pipefail
run=$1
shift
if [ -z "${RAY_ADDRESS:-}" ]; then
    port=${RAY_PORT:-6379}
    # Since version 2.52 a cluster that is started so asks for a token, which Ray keeps in ~/.ray.
    export RAY_ADDRESS=127.0.0.1:$port RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
    trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
    nodes() { ray status 2>/dev/null | grep -c ' node_' || true; }
    until_there() { # so many nodes, unless the last one that was started has ended
        until [ "$(nodes)" -ge "$1" ]; do
            kill -0 $! 2>/dev/null || { echo "Error: Ray started no node (above is why)" >&2; exit 1; }
            sleep 1
        done
    }
    ray start --head --port="$port" --num-cpus=1 --include-dashboard=false --block >&2 &
    until_there 1
    ray start --address="$RAY_ADDRESS" --num-cpus=1 --block >&2 &
    until_there 2
fi
bcgan-tf attack "$@" --workers "ray:$RAY_ADDRESS" --run-dir "$run" --resume
