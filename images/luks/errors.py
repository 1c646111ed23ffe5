"""What can be wrong with a LUKS header and with what is asked of one; the words are QEMU's."""

from blockemu.images.errors import FormatError


class NotLuks(FormatError):
    """The magic number is not there."""

    template = "Volume is not in LUKS format"


class BadVersion(FormatError):
    """Only version 1 is read."""

    template = "LUKS version {} is not supported"


class NotTerminated(FormatError):
    """(which field): a text that fills its field."""

    template = "LUKS header {} is not NUL terminated"


class PayloadInHeader(FormatError):
    """The payload lies where the header is."""

    template = "LUKS payload is overlapping with the header"


class NoIterations(FormatError):
    """The master key's digest was made by no iterations."""

    template = "LUKS key iteration count is zero"


class BadStripes(FormatError):
    """(slot, stripes, what they must be)."""

    template = "Keyslot {} is corrupted (stripes {} != {})"


class BadSlotState(FormatError):
    """(slot): neither active nor not."""

    template = "Keyslot {} state (active/disable) is corrupted"


class NoSlotIterations(FormatError):
    """(slot)."""

    template = "Keyslot {} iteration count is zero"


class SlotInHeader(FormatError):
    """(slot): its material lies where the header is."""

    template = "Keyslot {} is overlapping with the LUKS header"


class SlotInPayload(FormatError):
    """(slot): its material lies in the payload."""

    template = "Keyslot {} is overlapping with the encrypted payload"


class SlotsOverlap(FormatError):
    """(one, other)."""

    template = "Keyslots {} and {} are overlapping in the header"


class BadModeText(FormatError):
    """(the text): not a mode, a dash and an IV generator."""

    template = "Unexpected cipher mode string format '{}'"


class UnknownName(FormatError):
    """(what, its name): not among the algorithms."""

    template = "{} '{}' not supported"


class BadKeySize(FormatError):
    """(cipher, bytes)."""

    template = "Algorithm '{}' with key size {} bytes not supported"


class NoCipher(FormatError):
    """(algorithm): there is no such cipher for LUKS."""

    template = "Algorithm '{}' not supported"


class CipherNotHere(FormatError):
    """(algorithm): LUKS has it and we do not."""

    template = "Unsupported cipher algorithm {}"


class BadCipherMode(FormatError):
    """(mode): not with this cipher."""

    template = "Unsupported cipher mode {}"


class MissingIvHash(FormatError):
    """ESSIV without a hash."""

    template = "Missing IV generator hash specification"


class NoEssivCipher(FormatError):
    """(family, bytes): no cipher has keys as long as the hash is."""

    template = "No {} cipher with key size {} available"


class NotForEssiv(FormatError):
    """(algorithm)."""

    template = "Cipher {} not supported with essiv"


class NameTooLong(FormatError):
    """(what, its text)."""

    template = "{} '{}' is too long for LUKS header"


class TooManyIterations(FormatError):
    """(iterations, limit)."""

    template = "PBKDF iterations {} must be less than {}: Numerical result out of range"


class TooSlowToScale(FormatError):
    """(iterations): times milliseconds, they are no number of 64 bits."""

    template = "PBKDF iterations {} too large to scale: Numerical result out of range"


class TooSlow(FormatError):
    """(iterations, limit)."""

    template = "PBKDF iterations {} larger than {}: Numerical result out of range"


class WrongPassphrase(FormatError):
    """No slot is opened by it."""

    template = "Invalid password, cannot unlock any keyslot"
