# Sourced by reproduce.sh and test.sh: go to the project's root, and make .venv with everything installed.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/supervised.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python3}
# Threads that wait for one another spin only briefly: where other jobs share the cores, they can starve each other otherwise.
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-1000}

has_pip() { .venv/bin/python -m pip --version >/dev/null 2>&1; }
whole() { [ ! -e .venv/unfinished ] && { has_pip || { .venv/bin/python -m ensurepip && has_pip; } >/dev/null 2>&1; }; }

if ! whole; then
    if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        echo "error: $PYTHON is missing or older than Python 3.10: install one, or set PYTHON to its name" >&2
        exit 2
    fi
    if [ -e .venv ]; then
        echo "making .venv anew: the one there does not run" >&2
        rm -rf .venv/installed .venv
    fi
    mkdir .venv
    touch .venv/unfinished # a start that finds this makes .venv anew
    "$PYTHON" -m venv .venv
    rm .venv/unfinished
fi

wanted=$(cat requirements.txt constraints.txt pyproject.toml | cksum)
if [ "$(cat .venv/installed 2>/dev/null)" != "$wanted" ]; then
    echo "installing into .venv (some minutes; PyTorch is large)"
    rm -f .venv/installed
    for package in .venv/lib/python*/site-packages/*.dist-info; do # pip would take half of one for installed
        [ -e "$package/RECORD" ] || rm -rf "$package"
    done
    if ! .venv/bin/python -m pip install -q -c constraints.txt -r requirements.txt; then
        echo "the versions in constraints.txt cannot be had here: installing the newest that fit requirements.txt" >&2
        .venv/bin/python -m pip install -q -r requirements.txt
    fi
    echo "$wanted" >.venv/installed
fi
