#!/bin/sh
# Make the virtual environment with the pinned packages and this project in it, editable.
#
#   tools/bootstrap.sh FOLDER        PYTHON=python3.12 tools/bootstrap.sh FOLDER
#
# Needs Python >= 3.11 and nothing else.  Debian ships Python without ensurepip and pip; then pip
# comes from a wheel on this machine, or from the package python3-pip-whl, which is unpacked into a
# temporary folder and not installed.  Only if that fails, too, and we are root or may use sudo
# without a password, python3-venv is installed.
set -eu

venv=${1:?usage: bootstrap.sh FOLDER}
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

say() { echo "bootstrap: $*" >&2; }
fail() {
    for line; do say "$line"; done
    exit 1
}

# No "have PROGRAM and run it": a Python older than 3.11 must be able to run this line.
recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if command -v "$python" >/dev/null 2>&1 && recent "$python"; then
            return
        fi
    done
    fail "no Python 3.11 or newer: '${PYTHON:-python3}' is $("${PYTHON:-python3}" --version 2>&1 || true)." \
        "Debian 12 and later have one (apt-get install python3); or say which: make PYTHON=/path/to/python3.12"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

# Each of these prints the path of a pip wheel, or fails.
wheel_here() {
    for folder in /usr/share/python-wheels /usr/lib/python3/dist-packages/ensurepip/_bundled; do
        for wheel in "$folder"/pip-*.whl; do
            [ -f "$wheel" ] && echo "$wheel" && return
        done
    done
    return 1
}

wheel_from_debian() {
    command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1 || return 1
    say "no pip here: unpacking Debian's python3-pip-whl into a temporary folder"
    # Lists and cache of our own: works without root, and on a machine whose lists are empty.
    mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial" "$scratch/deb"
    own="-o Dir::State::Lists=$scratch/lists -o Dir::Cache=$scratch/cache -o APT::Sandbox::User="
    (
        cd "$scratch/deb"
        # shellcheck disable=SC2086
        apt-get -qq download python3-pip-whl 2>/dev/null ||
            { apt-get -qq $own update && apt-get -qq $own download python3-pip-whl; }
    ) >&2 || return 1
    dpkg -x "$scratch"/deb/python3-pip-whl_*.deb "$scratch/unpacked" || return 1
    for wheel in "$scratch"/unpacked/usr/share/python-wheels/pip-*.whl; do
        [ -f "$wheel" ] && echo "$wheel" && return
    done
    return 1
}

make_environment() {
    "$python" -m venv --clear "$venv" >"$scratch/venv.log" 2>&1 && return
    "$python" -m venv --clear --without-pip "$venv" || {
        cat "$scratch/venv.log" >&2
        fail "'$python -m venv' does not work. On Debian: apt-get install python3 python3-venv"
    }
    # Debian's pip wheel carries the pinned packages' installer only as far as the pinned pip itself.
    pin=$(grep '^pip==' constraints.txt)
    for source in wheel_here wheel_from_debian; do
        if wheel=$($source) && "$venv/bin/python" "$wheel/pip" -q install --disable-pip-version-check "$pin"; then
            return
        fi
    done
    if "$python" -m pip --python "$venv/bin/python" -q install "$pin" 2>/dev/null; then
        return
    fi
    say "trying to install python3-venv"
    if as_root apt-get -qq update >&2 && as_root apt-get -qq install -y --no-install-recommends python3-venv >&2 &&
        "$python" -m venv --clear "$venv"; then
        return
    fi
    rm -rf "$venv"
    fail "this Python has neither ensurepip nor pip, and neither could be had (no network, or no rights)." \
        "As root: apt-get install python3-venv     then run make again."
}

find_python
if ! recent "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    say "making $venv with $("$python" --version)"
    make_environment
fi

pip() { "$venv/bin/python" -m pip -q --disable-pip-version-check "$@"; }
say "installing the packages pinned in constraints.txt"
pip install --no-deps -r constraints.txt || fail "pip could not get the pinned packages: is there a network?"
pip install --no-deps --no-build-isolation -e .
pip check >&2
