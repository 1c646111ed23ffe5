"""Input that does not fit its type, in QEMU's words (after qapi/qobject-input-visitor.c).

The place of the trouble is collected while the error travels up, so that good input pays nothing.
"""

from typing import ClassVar

from blockemu.qmp_server.errors import ProtocolError


class InvalidInput(ProtocolError):
    """The value does not fit; ``str()`` is the text for the client.

    ``template`` is filled with the place and then with the values given.  Where ``local`` is
    true the place is the name of the innermost member alone, "null" if it has none.
    """

    template: ClassVar[str] = "Parameter '{}' is invalid"
    local: ClassVar[bool] = False

    def __init__(self, *values: object) -> None:
        Exception.__init__(self, *values)
        self.values = values
        self.parts: list[str | int] = []  # innermost first
        self.keyval = False

    def __str__(self) -> str:
        return self.template.format(self.where, *self.values)

    @property
    def where(self) -> str:
        """The place in QEMU's notation."""
        parts = self.parts
        if self.local:
            return parts[0] if parts and isinstance(parts[0], str) else "null"
        index = ".{}" if self.keyval else "[{}]"
        text = "".join(
            f".{part}" if isinstance(part, str) else index.format(part) for part in reversed(parts)
        )
        if not parts:
            return "<anonymous>"
        return text[1:] if isinstance(parts[-1], str) else text


class WrongType(InvalidInput):
    """The value is of another JSON type."""

    template = "Invalid parameter type for '{}', expected: {}"


class WrongAlternate(WrongType):
    """The alternate has no choice of this JSON type."""

    local = True


class WrongValue(InvalidInput):
    """The value cannot be read as what it should be."""

    template = "Parameter '{}' expects {}"


class OutOfRange(WrongValue):
    """The number is too big or too small."""

    local = True


class NotAccepted(InvalidInput):
    """The enum has no such value."""

    template = "Parameter '{}' does not accept value '{}'"
    local = True


class Missing(InvalidInput):
    """A member that is not optional is absent."""

    template = "Parameter '{}' is missing"


class Unexpected(InvalidInput):
    """The type has no such member."""

    template = "Parameter '{}' is unexpected"


class UnexpectedKeys(InvalidInput):
    """Dotted keys where the type wants one value."""

    template = "Parameters '{}.*' are unexpected"
