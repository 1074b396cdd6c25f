#!/usr/bin/env bash
# Plays a source to the tracker over DDS and shows what came back:
#   scripts/demo.sh [SOURCE] [--mask PNG | --point X,Y | --box X0,Y0,X1,Y1] [--truth DIR] [--rate HZ]
#                   [--deadline-ms MS] [--scale S] [--variant V] [--model FILE] [--frames N] [--topic T] [--out DIR]
# Without SOURCE a rendered clip is played. Writes demo_out/ in the current folder; `--help` explains everything.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/scripts/setup.sh"
. "$root/scripts/env.sh"
exec python -m sam2lite_ros.sessions.demo "$@"
