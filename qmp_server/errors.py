"""The errors of this package: what a client sent that it may not send."""

from typing import ClassVar


class ProtocolError(Exception):
    """An error reply made here; the text is QEMU's own, ``qmp_class`` the class in the reply.

    Any exception with a ``qmp_class`` that a command raises becomes an error reply, so users of
    this package have their own hierarchy.
    """

    qmp_class: ClassVar[str] = "GenericError"
    template: ClassVar[str] = "{}"

    def __init__(self, *values: object) -> None:
        super().__init__(self.template.format(*values))
        self.values = values


class ParseError(ProtocolError):
    """Input that is not JSON as QEMU has it."""


class CommandNotFound(ProtocolError):
    """No command has this name."""

    qmp_class = "CommandNotFound"
    template = "The command {} has not been found"


class DisabledByPolicy(ProtocolError):
    """The compat policy refuses what was used: '(Deprecated|Unstable) KIND NAME ...'."""

    template = "{} {} {} disabled by policy"


class CommandDisabledByPolicy(DisabledByPolicy):
    """The compat policy refuses this command."""

    qmp_class = "CommandNotFound"


class NoOob(ProtocolError):
    """The command cannot run out of band."""

    template = "The command {} does not support OOB"


class NotNegotiated(ProtocolError):
    """Only qmp_capabilities is allowed yet."""

    qmp_class = "CommandNotFound"
    template = "Expecting capabilities negotiation with 'qmp_capabilities'"


class AlreadyNegotiated(ProtocolError):
    """Negotiation is over."""

    qmp_class = "CommandNotFound"
    template = "Capabilities negotiation is already complete, command ignored"


class CapabilityUnavailable(ProtocolError):
    """The capability exists, but this monitor did not offer it."""

    template = "Capability {} not available"


class PolicyCrash(BaseException):
    """(adjective, kind, name) of input that a policy forbids on pain of death: time to abort."""
