"""The errors that reach a QMP client: one class for each text, the text a template on the class."""

from typing import ClassVar


class QmpError(Exception):
    """An error reply: its text is ``desc``, its class the QMP error class.

    ``template`` is filled with the values given.  ``hint`` is shown on a terminal only, as QEMU's
    error hints are.
    """

    qmp_class: ClassVar[str] = "GenericError"
    template: ClassVar[str] = "{}"

    def __init__(self, *values: object, hint: str = "") -> None:
        super().__init__(self.template.format(*values))
        self.values = values
        self.hint = hint


class HostError(QmpError, OSError):
    """A request failed with an errno and QEMU has words for it, too."""

    def __init__(self, *values: object, errno: int, hint: str = "") -> None:
        QmpError.__init__(self, *values, hint=hint)
        self.errno = errno


class CommandNotFound(QmpError):
    """The command is unknown or not allowed now."""

    qmp_class = "CommandNotFound"
    template = "The command {} has not been found"


class DeviceNotFound(QmpError):
    """The named device or node does not exist."""

    qmp_class = "DeviceNotFound"
    template = "Device '{}' not found"


class DeviceNotActive(QmpError):
    """The job that was named does not exist (the class dates from when each device had one)."""

    qmp_class = "DeviceNotActive"
    template = "Block job '{}' not found"


class NodeNotFound(QmpError):
    """No node or device has this name."""

    template = "Cannot find device='{}' nor node-name='{}'"


class NoSuchNode(QmpError):
    """No node has this name (commands that take node names only)."""

    template = "Failed to find node with node-name='{}'"


class MissingParameter(QmpError):
    """A parameter that the schema leaves open is needed here."""

    template = "Parameter '{}' is missing"


class InvalidParameterValue(QmpError):
    """A value is well-formed but not allowed: (parameter, what it expects)."""

    template = "Parameter '{}' expects {}"


class ValueOutOfRange(QmpError):
    """A size is too large for 64 bits: (value, parameter)."""

    template = "Value '{}' is out of range for parameter '{}'"


class ValueTooLarge(QmpError):
    """Likewise of a number: (value, parameter)."""

    template = "Value '{}' is too large for parameter '{}'"


class PermissionConflict(QmpError):
    """Two users of a node do not get along; ``earlier``: what QEMU said of that before 6.1."""

    earlier = ""

    template = (
        "Permission conflict on node '{0}': permissions '{1}' are both required by {2} "
        "(uses node '{0}' as '{3}' child) and unshared by {4} (uses node '{0}' as '{5}' child)."
    )


class ReadOnlyNode(QmpError):
    """Write permission was asked of a read-only node."""

    template = "Block node is read-only"


class Wrapped(QmpError):
    """An error with what was tried before it."""

    template = "{}: {}"
    qmp_class = "GenericError"


class BeyondMaximum(HostError):
    """(offset, maximum): no request can reach there."""

    template = "offset({}) exceeds maximum({})"


class ReadOnlyImage(HostError):
    """A read-only image keeps its size."""

    template = "Image is read-only"


class CannotResize(HostError):
    """The driver cannot change the size."""

    template = "Image format driver does not support resize"
