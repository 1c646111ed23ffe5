#!/bin/sh
# Start blockemu over a disk of its own making, and say what to try.
#
#   tools/run-demo.sh BIN SOCKET     BIN: the environment's bin folder
set -eu
bin=$1 socket=$2
disk=.demo/disk.qcow2

[ -f "$disk" ] || "$bin/python" tools/demo_disk.py "$disk"
cat <<TEXT
blockemu listens on $socket; Ctrl-C ends it. In a second shell (Tab completes):

    $bin/qmp-shell $socket

    query-named-block-nodes flat=true
    blockdev-add driver=null-co node-name=target size=67108864
    blockdev-backup job-id=b0 device=disk target=target sync=full

TEXT
exec "$bin/blockemu" \
    --blockdev driver=qcow2,node-name=disk,file.driver=file,file.filename="$disk" \
    --qmp "unix:$socket"
