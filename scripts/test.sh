#!/usr/bin/env bash
# Set up and test: bash scripts/test.sh [pytest arguments]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

.venv/bin/python -m ruff check -q .
.venv/bin/python -m ruff format -q --check .
.venv/bin/python -m pytest -q --durations=8 "$@"
