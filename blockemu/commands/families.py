"""Which module has which commands, so that each is imported when somebody names one of its own.

A test compares this with what the modules say themselves.
"""

from typing import Final

FAMILIES: Final = {
    "backup": "blockdev-backup drive-backup",
    "bitmaps": """
        block-dirty-bitmap-add block-dirty-bitmap-clear block-dirty-bitmap-disable
        block-dirty-bitmap-enable block-dirty-bitmap-merge block-dirty-bitmap-remove
        x-debug-block-dirty-bitmap-sha256
    """,
    "blockdev": """
        block_resize blockdev-add blockdev-del blockdev-reopen change-backing-file
        x-blockdev-change x-blockdev-reopen
    """,
    "chain_jobs": "block-commit block-stream",
    "chardev": """
        chardev-add chardev-change chardev-remove chardev-send-break query-chardev
        query-chardev-backends ringbuf-read ringbuf-write
    """,
    "control": """
        cont query-command-line-options query-commands query-name query-qmp-schema
        query-status query-uuid query-version quit stop
    """,
    "crashes": "x-emu-crash x-emu-crash-record",
    "creation": "blockdev-create x-blockdev-amend",
    "devices": "device_add device_del system_reset",
    "displays": """
        add_client change-vnc-password client_migrate_info display-reload display-update
        expire_password input-send-event query-display-options query-vnc-servers
        screendump send-key set_password
    """,
    "exports": """
        block-export-add block-export-del nbd-server-add nbd-server-remove
        nbd-server-start nbd-server-stop query-block-exports
    """,
    "external_snapshots": "blockdev-snapshot blockdev-snapshot-sync",
    "fds": "add-fd closefd getfd query-fdsets remove-fd",
    "guest": "x-emu-guest-io",
    "guest_memory": """
        calc-dirty-rate cancel-vcpu-dirty-limit dump-guest-memory dumpdtb memsave pmemsave
        query-dirty-rate query-dump query-dump-guest-memory-capability query-memdev
        query-memory-devices query-sev query-sev-attestation-report query-sev-capabilities
        query-sev-launch-measure query-sgx query-sgx-capabilities query-vcpu-dirty-limit
        set-vcpu-dirty-limit sev-inject-launch-secret x-colo-lost-heartbeat
    """,
    "human": "human-monitor-command",
    "iothreads": "x-blockdev-set-iothread",
    "jobs": """
        block-job-cancel block-job-complete block-job-dismiss block-job-finalize
        block-job-pause block-job-resume block-job-set-speed job-cancel job-complete
        job-dismiss job-finalize job-pause job-resume query-block-jobs query-jobs
    """,
    "machine": """
        balloon inject-nmi query-yank rtc-reset-reinjection set-action set-numa-node
        system_powerdown system_wakeup trace-event-get-state trace-event-set-state
        watchdog-set-action x-exit-preconfig yank
    """,
    "machine_facts": """
        query-acpi-ospm-status query-balloon query-cpus-fast query-current-machine
        query-hotpluggable-cpus query-iothreads query-kvm query-machines
        query-memory-size-summary query-mice query-pr-managers query-replay query-spice
        query-target query-tpm query-tpm-models query-tpm-types query-vm-generation-id
        query-vnc
    """,
    "machine_reports": """
        announce-self query-colo-status query-cpu-definitions query-cpu-model-expansion
        query-stats query-stats-schemas replay-break replay-delete-break replay-seek
        x-query-irq x-query-jit x-query-numa x-query-opcount x-query-profile
        x-query-ramblock x-query-rdma x-query-roms x-query-usb x-query-virtio
    """,
    "machine_snapshots": "snapshot-delete snapshot-load snapshot-save",
    "media": """
        blockdev-change-medium blockdev-close-tray blockdev-insert-medium
        blockdev-open-tray blockdev-remove-medium eject
    """,
    "migration": """
        migrate migrate-continue migrate-incoming migrate-pause migrate-recover
        migrate-set-capabilities migrate-set-parameters migrate-start-postcopy
        migrate_cancel query-migrate query-migrate-capabilities query-migrate-parameters
    """,
    "mirror": "blockdev-mirror drive-mirror",
    "networks": "netdev_add netdev_del query-rx-filter set_link",
    "objects": """
        device-list-properties object-add object-del qom-get qom-list qom-list-properties
        qom-list-types qom-set
    """,
    "old": "block_passwd change query-events",
    "pci": "query-pci",
    "query": "query-block query-named-block-nodes x-debug-query-block-graph",
    "rocker": """
        query-rocker query-rocker-of-dpa-flows query-rocker-of-dpa-groups
        query-rocker-ports
    """,
    "snapshots": "blockdev-snapshot-delete-internal-sync blockdev-snapshot-internal-sync",
    "statistics": "block-latency-histogram-set block-set-write-threshold query-blockstats",
    "throttling": "block_set_io_throttle",
    "transaction": "transaction",
    "virtqueues": """
        x-query-virtio-queue-element x-query-virtio-queue-status x-query-virtio-status
        x-query-virtio-vhost-queue-status
    """,
    "xen": """
        query-xen-replication-status xen-colo-do-checkpoint xen-load-devices-state
        xen-save-devices-state xen-set-global-dirty-log xen-set-replication
    """,
}
