"""Changing a volume's key slots (qcrypto_block_luks_amend_options, crypto/block-luks.c)."""

import os
from typing import Final

from blockemu.encryption import LuksVolume
from blockemu.errors import QmpError
from blockemu.images.errors import FormatError
from blockemu.images.luks.header import DEFAULT_ITER_TIME, ERASE_ROUNDS, SECTOR, SLOTS
from blockemu.qmp_server.scalars import c_int
from blockemu.schema.crypto import QCryptoBlockAmendOptionsLUKS, QCryptoBlockLUKSKeyslotState

_LAST: Final = SLOTS - 1


class NewSecretMissing(QmpError):
    """A slot is to be filled, and not with what."""

    template = "'new-secret' is required to activate a keyslot"


class OldSecretGiven(QmpError):
    """A slot to be filled has none."""

    template = "'old-secret' must not be given when activating keyslots"


class NotToErase(QmpError):
    """(option): it is about filling slots."""

    template = "'{}' must not be given when erasing keyslots"


class NoSuchSlot(QmpError):
    """(slot, last slot)."""

    template = "Invalid keyslot {} specified, must be between 0 and {}"


class NoFreeSlot(QmpError):
    """All are in use."""

    template = "Can't add a keyslot - all keyslots are in use"


class SlotInUse(QmpError):
    """(slot)."""

    template = "Refusing to overwrite active keyslot {} - please erase it first"


class OtherPassphrase(QmpError):
    """(slot)."""

    template = "Given keyslot {} doesn't contain the given old password for erase operation"


class AlreadyErased(QmpError):
    """(slot), with a blank at the end as in QEMU."""

    template = "Given keyslot {} is already erased (inactive) "


class OnlySlot(QmpError):
    """(slot)."""

    template = (
        "Attempt to erase the only active keyslot {} which will erase all the data in the image "
        "irreversibly - refusing operation"
    )


class NoSlotMatches(QmpError):
    """None has the passphrase."""

    template = "No keyslots match given (old) password for erase operation"


class AllSlotsMatch(QmpError):
    """Nothing would open the volume any more."""

    template = (
        "All the active keyslots match the (old) password that was given and erasing them will "
        "erase all the data in the image irreversibly - refusing operation"
    )


class NothingNamed(QmpError):
    """Neither a slot nor a passphrase."""

    template = (
        "To erase keyslot(s), either explicit keyslot index or the password currently contained "
        "in them must be given"
    )


async def change_keyslots(
    volume: LuksVolume, options: QCryptoBlockAmendOptionsLUKS, *, force: bool
) -> None:
    """Fill a slot or erase some.

    Raises:
        QmpError: in QEMU's words; nothing has been changed, unless writing failed.

    """
    if options.state is QCryptoBlockLUKSKeyslotState.ACTIVE:
        await _add(volume, options, force)
    else:
        await _erase(volume, options, force)


async def _add(volume: LuksVolume, options: QCryptoBlockAmendOptionsLUKS, force: bool) -> None:
    """Fill a slot (qcrypto_block_luks_amend_add_keyslot)."""
    if options.new_secret is None:
        raise NewSecretMissing
    if options.old_secret is not None:
        raise OldSecretGiven
    slot = _slot_to_fill(volume, options.keyslot)
    if not force and volume.header.slots[slot].active:
        raise SlotInUse(slot)
    opener = volume.key_secret if options.secret is None else options.secret
    old = volume.passphrase(opener or "")
    try:
        key = await volume.find_key(old)
    except FormatError as e:
        raise QmpError(str(e), hint="Failed to retrieve the master key") from e
    new = volume.passphrase(options.new_secret)
    iter_time = DEFAULT_ITER_TIME if options.iter_time is None else options.iter_time
    try:
        await volume.store_key(slot, new, key, iter_time)
    except (FormatError, QmpError) as e:
        raise QmpError(str(e), hint=f"Failed to write to keyslot {slot}") from e


def _slot_to_fill(volume: LuksVolume, given: int | None) -> int:
    if given is not None:
        number = c_int(given)
        if not 0 <= number < SLOTS:
            raise NoSuchSlot(number & 0xFFFFFFFF, _LAST)
        return number
    free = [i for i, slot in enumerate(volume.header.slots) if not slot.active]
    if not free:
        raise NoFreeSlot
    return free[0]


async def _erase(volume: LuksVolume, options: QCryptoBlockAmendOptionsLUKS, force: bool) -> None:
    """Erase slots (qcrypto_block_luks_amend_erase_keyslots)."""
    for name, value in (
        ("new-secret", options.new_secret),
        ("iter-time", options.iter_time),
        ("secret", options.secret),
    ):
        if value is not None:
            raise NotToErase(name)
    old = None if options.old_secret is None else volume.passphrase(options.old_secret)
    if options.keyslot is not None:
        slots = [await _slot_to_erase(volume, options.keyslot, old, force)]
    elif old is not None:
        slots = [i for i in range(SLOTS) if await volume.try_slot(i, old) is not None]
        if not slots:
            raise NoSlotMatches
        if not force and len(slots) == len(volume.header.active_slots()):
            raise AllSlotsMatch
    else:
        raise NothingNamed
    for slot in slots:
        try:
            await _erase_slot(volume, slot)
        except QmpError as e:
            raise QmpError(str(e), hint=f"Failed to erase keyslot {slot}") from e


async def _slot_to_erase(volume: LuksVolume, given: int, old: bytes | None, force: bool) -> int:
    slot = c_int(given)
    if not 0 <= slot < SLOTS:
        raise NoSuchSlot(slot, _LAST)
    if old is not None and await volume.try_slot(slot, old) is None:
        raise OtherPassphrase(slot)
    active = volume.header.active_slots()
    if not force and slot not in active:
        raise AlreadyErased(slot)
    if not force and len(active) == 1:
        raise OnlySlot(slot)
    return slot


async def _erase_slot(volume: LuksVolume, slot: int) -> None:
    """Forget a key: in the header first, then its material, again and again."""
    header, failed = volume.header, None
    header.slots[slot] = header.slots[slot].erased()
    try:
        await volume.store.write(0, header.pack())
    except QmpError as e:
        failed = e
    size = header.key_bytes * header.slots[slot].stripes
    for _ in range(ERASE_ROUNDS):
        await volume.store.write(header.slots[slot].offset * SECTOR, os.urandom(size))
    if failed is not None:
        raise failed
