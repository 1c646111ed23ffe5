"""The command line of qemu-system: one dash or two, each argument a word of its own."""

from collections.abc import Iterable, Iterator
from typing import Final

from blockemu.arguments import Option, UsageError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


WITH_VALUE: Final = _words(
    """
    D L M accel acpitable action add-fd append audio audiodev bios blockdev boot cdrom chardev
    chroot compat cpu d debugcon device dfilter display drive dtb dump-vmstate echr fda fdb fsdev
    fw_cfg g gdb global hda hdb hdc hdd icount incoming initrd iscsi k kernel loadvm m machine
    mem-path mon monitor msg mtdblock name net netdev nic numa object option-rom overcommit
    parallel pflash pidfile plugin prom-env qmp qmp-pretty qtest qtest-log readconfig rotate rtc
    runas sandbox sd seed semihosting-config serial set smbios smp spice tpmdev trace usbdevice
    uuid vga virtfs vnc watchdog-action xen-domid
    """
)
ALONE: Final = _words(
    """
    S async-teardown audio-help daemonize enable-kvm enable-sync-profile full-screen h help
    mem-prealloc no-acpi no-fd-bootchk no-hpet no-reboot no-shutdown no-user-config nodefaults
    nographic old-param only-migratable portrait preconfig s semihosting singlestep snapshot usb
    version win2k-hack xen-attach xen-domid-restrict
    """
)
LOOKED_AT: Final = _words(  # that do nothing (``checked_options``)
    """
    acpitable audio audiodev dfilter display fw_cfg g icount msg net nic numa old-param overcommit
    prom-env rotate rtc runas sandbox seed semihosting semihosting-config smbios trace usbdevice
    xen-attach xen-domid xen-domid-restrict
    """
)
LOOKED_AT_LATER: Final = _words("D chroot d mem-path rtc vga")
OURS: Final = {"log-level": True, "log-format": True, "no-plan": False, "self-check": False}


def scan(argv: Iterable[str]) -> Iterator[Option]:
    """Yield the options; a word that is none is a disk image, an option without name.

    Raises:
        UsageError: at the option that is wrong.

    """
    words = iter(argv)
    for word in words:
        if not word.startswith("-") or word == "-":
            yield Option("", word, word)
            continue
        name = word[1:].removeprefix("-")
        if name in ALONE or OURS.get(name) is False:
            yield Option(name, "", word)
        elif name in WITH_VALUE or name in OURS:
            value = next(words, None)
            if value is None:
                raise UsageError(f"{word}: requires an argument")
            yield Option(name, value, f"{word} {value}")
        else:
            raise UsageError(f"{word}: invalid option")
