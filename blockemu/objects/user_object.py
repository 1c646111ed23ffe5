"""What all objects have in common that clients can add and delete."""

from typing import TYPE_CHECKING, Protocol

from blockemu.objects.qom import Object

if TYPE_CHECKING:
    from blockemu.throttling.group import ThrottleGroups


class Known(Protocol):
    """The objects that are there already."""

    throttle_groups: "ThrottleGroups"

    def find(self, name: str) -> Object | None:
        """Return the object of that name."""

    def secret(self, name: str) -> bytes:
        """Return the content of a secret.  Raises QmpError."""


class UserObject(Object):
    """An object that a client can add and delete."""

    users = 0  # who needs it to stay

    def complete(self, objects: Known) -> None:
        """Check what was set and become usable."""

    def deleted(self) -> None:
        """Hear that it is not there any more; nobody uses it."""
