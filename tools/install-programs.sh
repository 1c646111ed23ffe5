#!/bin/sh
# Install from Debian the real programs that tests/compat compares with, where we may (root, or sudo
# without a password).  Says what is still missing; that is an error only under CI=true or
# BLOCKEMU_COMPAT=require.  BLOCKEMU_INSTALL=no: look, but install nothing.
#
#   tools/install-programs.sh [bench|iotests]    with what only measurements, or QEMU's own tests, need
set -u

# What is looked for -> the package that has it.  From Debian 13 on qemu-storage-daemon is in
# qemu-utils, which is on the list anyway.
wanted='qemu-img                qemu-utils
qemu-io                 qemu-utils
qemu-storage-daemon     qemu-system-common
qemu-system-x86_64      qemu-system-x86
nbdinfo                 libnbd-bin
nbdcopy                 libnbd-bin
nbdkit                  nbdkit
cryptsetup              cryptsetup-bin
python3-module:nbd      python3-libnbd'
[ "${1:-}" != bench ] || wanted="$wanted
fio                     fio"
[ "${1:-}" != iotests ] || wanted="$wanted
certtool                gnutls-bin
psktool                 gnutls-bin"

present() {
    case $1 in
        # Debian's module is for Debian's Python, not for the one of the virtual environment.
        python3-module:*) /usr/bin/python3 -c "import ${1#*:}" 2>/dev/null ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

# Print the lines of $wanted that this machine lacks.
missing() {
    echo "$wanted" | while read -r name package; do
        present "$name" || echo "$name $package"
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        env DEBIAN_FRONTEND=noninteractive "$@"
    else
        sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
    fi
}

may_install() {
    [ "${BLOCKEMU_INSTALL:-yes}" != no ] && command -v apt-get >/dev/null 2>&1 || return 1
    [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null
}

# One at a time if all at once fails: a package that is not to be had must not keep the others out.
install() {
    as_root apt-get -qq install -y --no-install-recommends "$@" && return
    for package; do
        as_root apt-get -qq install -y --no-install-recommends "$package"
    done
}

packages_of() { echo "$1" | cut -d' ' -f2 | sort -u | tr '\n' ' '; }

lacking=$(missing)
[ -n "$lacking" ] || exit 0

if may_install; then
    packages=$(packages_of "$lacking")
    echo "installing, to compare with: $packages" >&2
    as_root apt-get -qq update || echo "apt-get update failed; trying with the lists there are" >&2
    # shellcheck disable=SC2086
    install $packages >&2
    lacking=$(missing)
    [ -n "$lacking" ] || exit 0
fi

{
    echo "Not installed, and could not be (not root, no sudo without password, or no such package):"
    echo "$lacking" | sed 's/^\([^ ]*\) \(.*\)$/    \1  (Debian package \2)/'
    echo "To have them all:  sudo apt-get install --no-install-recommends $(packages_of "$lacking")"
} >&2
if [ "${CI:-}" = true ] || [ "${BLOCKEMU_COMPAT:-auto}" = require ]; then
    echo "Nothing may be skipped here: stopping." >&2
    exit 1
fi
echo "The tests and measurements that need them are skipped, no others." >&2
