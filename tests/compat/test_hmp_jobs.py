"""The human monitor's jobs, snapshots and NBD server, beside QEMU's."""

from compat.test_blockemu_qemu import image
from compat.test_media import folder as folder
from compat.test_media import talk

LINES = """
snapshot_blkdev
snapshot_blkdev x
snapshot_blkdev absent f.qcow2
snapshot_blkdev x f.qcow2 qcow2
snapshot_blkdev -n x absent.qcow2
info block x
snapshot_blkdev_internal x s
snapshot_blkdev_internal x s
snapshot_delete_blkdev_internal x s
snapshot_delete_blkdev_internal x s 1
block_stream absent
block_stream x foo
block_stream x 1M absent
block_job_set_speed x 5
block_job_set_speed x foo
block_job_cancel x
block_job_cancel -f x
block_job_complete x
block_job_pause x
block_job_resume x
block_job_cancel
drive_mirror x
drive_mirror absent t.qcow2
drive_mirror -n x absent.qcow2
nbd_server_start
nbd_server_start -w localhost:0
nbd_server_add x
nbd_server_stop
nbd_server_remove x
nbd_server_start -a unix:n.sock
nbd_server_start unix:n.sock
nbd_server_add x
nbd_server_add x other
nbd_server_add absent
nbd_server_remove absent
nbd_server_remove other
nbd_server_remove -f x
nbd_server_stop
nbd_server_stop
help block_job_cancel
help block_stream
help nbd_server_start
""".strip().splitlines()


def test_lines_good_and_bad(folder):
    image("create", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "ov.qcow2", cwd=folder)
    talk(
        folder,
        ["-drive", "if=none,id=x,file=ov.qcow2", "-drive", "if=none,id=empty"],
        [f"hmp {line}" for line in LINES],
    )
