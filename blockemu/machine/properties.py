"""The properties of devices: what ``-device`` and ``device_add`` take, with their types."""

from typing import Final


def _table(text: str) -> dict[str, str]:
    """Read ``type: name name ...`` lines."""
    found: dict[str, str] = {}
    for line in text.strip().splitlines():
        kind, _, names = line.partition(": ")
        found |= dict.fromkeys(names.split(), kind)
    return found


BLOCK: Final = _table(
    """
OnOffAuto: account-failed account-invalid backend_defaults write-cache
int32: bootindex
size: discard_granularity logical_block_size min_io_size opt_io_size physical_block_size
str: drive serial
BlockdevOnError: rerror werror
bool: share-rw
    """
)
PCI: Final = _table(
    """
uint32: acpi-index rombar romsize vectors
int32: addr
bool: aer any_layout ats disable-modern event_idx indirect_desc ioeventfd iommu_platform
bool: migrate-extra modern-pio-notify multifunction notify_on_empty packed page-per-vq
bool: queue_reset use-disabled-flag use-started virtio-pci-bus-master-bug-migration
bool: x-ats-page-aligned x-disable-legacy-check x-disable-pcie x-ignore-backend-features
bool: x-pcie-deverr-init x-pcie-extcap-init x-pcie-flr-init x-pcie-lnkctl-init
bool: x-pcie-lnksta-dllla x-pcie-pm-init
OnOffAuto: disable-legacy
str: failover_pair_id romfile
link<iothread>: iothread
    """
)
VIRTIO_BLK: Final = (
    BLOCK
    | PCI
    | _table(
        """
uint32: class cyls heads lcyls lheads lsecs max-discard-sectors max-write-zeroes-sectors secs
bool: config-wce discard report-discard-granularity request-merging scsi seg-max-adjust
bool: write-zeroes x-enable-wce-if-config-wce
uint16: num-queues queue-size
    """
    )
)
VIRTIO_SCSI: Final = PCI | _table(
    """
uint32: cmd_per_lun max_sectors num_queues virtqueue_size
bool: hotplug param_change seg_max_adjust
    """
)
LSI: Final = _table(
    """
uint32: acpi-index rombar romsize
int32: addr
bool: multifunction x-pcie-extcap-init x-pcie-lnksta-dllla
str: failover_pair_id romfile
    """
)
PCI_BRIDGE: Final = _table(
    """
uint32: acpi-index bus-reserve rombar romsize
int32: addr
uint8: chassis_nr
size: io-reserve mem-reserve pref32-reserve pref64-reserve
OnOffAuto: msi
bool: multifunction shpc x-pcie-extcap-init x-pcie-lnksta-dllla
str: failover_pair_id romfile
    """
)
SCSI_HD: Final = BLOCK | _table(
    """
uint32: channel cyls heads lcyls lheads lsecs lun scsi-id secs
str: device_id product vendor ver
bool: dpofua quirk_mode_page_vendor_specific_apple removable
uint64: max_io_size max_unmap_size port_wwn wwn
uint16: port_index rotation_rate
int32: scsi_version
    """
)
SCSI_CD: Final = BLOCK | _table(
    """
uint32: channel lun scsi-id
str: device_id product vendor ver
uint64: max_io_size port_wwn wwn
uint16: port_index
bool: quirk_mode_page_apple_vendor quirk_mode_page_truncated
bool: quirk_mode_page_vendor_specific_apple quirk_mode_sense_rom_use_dbd
int32: scsi_version
    """
)
IDE_HD: Final = BLOCK | _table(
    """
BiosAtaTranslation: bios-chs-trans
uint32: cyls heads lcyls lheads lsecs secs unit
str: model ver
uint16: rotation_rate
uint64: wwn
    """
)
IDE_CD: Final = BLOCK | _table(
    """
str: model ver
uint32: unit
uint64: wwn
    """
)
FLOPPY: Final = _table(
    """
OnOffAuto: account-failed account-invalid backend_defaults write-cache
size: discard_granularity logical_block_size min_io_size opt_io_size physical_block_size
str: drive
FdcDriveType: drive-type
bool: share-rw
uint32: unit
    """
)
