#!/usr/bin/env bash
# Everything that has to run on a GPU, in steps of at most ten minutes each; see docs/gpu.md.
#
#   benchmarks/gpu_suite.sh pack                    here: wheels of what a bare machine lacks
#   benchmarks/gpu_suite.sh setup                   there, once; then each of
#   benchmarks/gpu_suite.sh smoke|sharing|checkpoint
#   benchmarks/gpu_suite.sh suite PART OF           and with --device cpu for comparison
#   benchmarks/gpu_suite.sh compare
#
# GPU_SUITE_PYTHON is the Python that has torch (python3), GPU_SUITE_SITE the folder for what it
# lacks. Results go to the folder of --out (gpu-results): JSON, text, JUnit and what failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export GPU_SUITE_SITE=${GPU_SUITE_SITE:-${TMPDIR:-/tmp}/gpu-suite-site}
export PYTHONPATH=$GPU_SUITE_SITE:$PWD${PYTHONPATH:+:$PYTHONPATH}
exec "${GPU_SUITE_PYTHON:-python3}" -m benchmarks.gpu "$@"
