#!/usr/bin/env bash
# All measurements that need a GPU, within 10 minutes: bench/gpu.sh [small]
#
# Results with the date and the card's name go to bench/results/, and a line for each step to the terminal. A step that
# fails or takes too long does not stop the others. PYTHON is the interpreter that has sfllava (default: .venv's);
# VLLM_PYTHON the one that also has vLLM (default: .venv-vllm's; without it the engines are not compared).
# With "small", or without a GPU, all shapes are small: it then takes about 4 minutes on 2 cores.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
VLLM_PYTHON=${VLLM_PYTHON:-.venv-vllm/bin/python}
failed=0
gpu=$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")')
small=$([ "${1:-}" = small ] || [ -z "$gpu" ] && echo 1 || echo "")
echo "device: ${gpu:-no GPU}; ${small:+small shapes}"

step() { # seconds at most, then the command
  local limit=$1 start=$SECONDS
  shift
  if timeout "$limit" "$@"; then
    echo "done in $((SECONDS - start)) s: $*"
  else
    echo "FAILED after $((SECONDS - start)) s: $*"
    failed=1
  fi
}

if [ -n "$small" ]; then
  step 240 "$PYTHON" bench/gpu.py --videos 8
  step 240 "$PYTHON" bench/throughput.py --shape small --questions 1 4 --new-tokens 8 --videos 3 --repeats 1 --no-count
  [ -x "$VLLM_PYTHON" ] && step 120 "$VLLM_PYTHON" bench/engines.py --shape try
else
  step 120 "$PYTHON" bench/gpu.py --videos 100
  step 180 "$PYTHON" bench/throughput.py --shape 7b --no-count
  step 60 "$PYTHON" bench/throughput.py --shape 7b --profile
  [ -x "$VLLM_PYTHON" ] && step 220 "$VLLM_PYTHON" bench/engines.py --shape 1b --dtype bfloat16
fi
[ -x "$VLLM_PYTHON" ] || echo "engines not compared: no $VLLM_PYTHON (make .venv-vllm/.installed VLLM='vllm>=0.32,<0.33')"
exit $failed
