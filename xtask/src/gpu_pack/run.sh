#!/bin/sh
# Tries Binade on this machine's GPU: sh run.sh OUT [DEVICE]. Every step has a limit; all end within 8 minutes.
# Leaves OUT/result.tar.gz, with a log of each step and `steps`, which has the exit codes.
set -u
out=${1:?usage: sh run.sh OUT [DEVICE]}
device=${2:-cuda}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out/result"
cd "$out/result" || exit 1
: >steps

# SECONDS NAME COMMAND…: its output in NAME.log, its exit code in `steps`; 124 is a step that took too long.
step() {
    limit=$1 name=$2
    shift 2
    begun=$(date +%s)
    timeout -k 5 "$limit" "$@" >"$name.log" 2>&1
    code=$?
    echo "$name: exit code $code after $(($(date +%s) - begun)) s" | tee -a steps
}

# The tools of a toolkit, where one is.
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
sanitizer=${sanitizer:-compute-sanitizer}

step 15 driver nvidia-smi
step 15 devices nvidia-smi -L
step 10 doctor "$here/binade" doctor
step 210 registry "$here/binade" doctor --device "$device" --only "" --against "$here/digests.txt" @SAMPLES@
step 40 training "$here/binade" doctor --device "$device" --training
step 70 memcheck "$sanitizer" --tool memcheck "$here/binade" doctor --device "$device" --samples 1 --only norm
step 70 racecheck "$sanitizer" --tool racecheck "$here/binade" doctor --device "$device" --samples 1 --only norm

cd .. || exit 1
tar -czf result.tar.gz result
ls -l result.tar.gz
