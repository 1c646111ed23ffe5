"""The one command that belongs to the session itself."""

from typing import Annotated, Any

from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.profile import Since
from blockemu.qmp_server.qenum import QEnum, values


@values(since={"oob": "2.12"})
class QMPCapability(QEnum):
    """What a client can ask for in the negotiation."""

    OOB = "oob"


@command(name="qmp_capabilities", since="0.13", allow_preconfig=True)
def qmp_capabilities(
    session: Any, *, enable: Annotated[list[QMPCapability] | None, Since("2.12")] = None
) -> None:
    """Enable capabilities and end the negotiation.

    @enable: the capabilities to enable
    """
    session.negotiate([str(capability) for capability in enable or ()])
