"""Objects that say who may come in (authz/simple.c, authz/list.c)."""

import re
from collections.abc import Callable
from typing import ClassVar

from blockemu.errors import QmpError
from blockemu.objects.qom import Object, Property, attribute
from blockemu.objects.user_object import UserObject
from blockemu.qmp_server.qapi import dump
from blockemu.schema.tls import QAuthZListFormat, QAuthZListPolicy, QAuthZListRule

Find = Callable[[str], object | None]


class NoAuthz(QmpError):
    """(id): there is no such object."""

    template = "Cannot find QAuthZ object ID {}"


class NotAuthz(QmpError):
    """(id): it is something else."""

    template = "Object '{}' is not a QAuthZ subclass"


class Authz(Object):
    """What all of them have in common."""

    TYPE = "authz"

    def allows(self, identity: str) -> bool:
        """Tell whether somebody may come in."""
        raise NotImplementedError


class AuthzSimple(Authz, UserObject):
    """One identity."""

    TYPE = "authz-simple"
    PROPERTIES = (attribute("identity", "string", str),)

    def __init__(self) -> None:
        super().__init__()
        self.identity = ""

    def allows(self, identity: str) -> bool:
        """Tell whether it is the one."""
        return identity == self.identity


def _policy_name(self: "AuthzList") -> str:
    return str(self.policy.value)


def _set_policy(self: "AuthzList", value: QAuthZListPolicy) -> None:
    self.policy = value


def _set_rules(self: "AuthzList", value: list[QAuthZListRule]) -> None:
    self.rules = value


class AuthzList(Authz, UserObject):
    """Rules of which the first that matches decides."""

    TYPE = "authz-list"
    PROPERTIES: ClassVar[tuple[Property, ...]] = (
        Property("policy", "QAuthZListPolicy", QAuthZListPolicy, _policy_name, _set_policy),
        Property(
            "rules",
            "QAuthZListRule",
            list[QAuthZListRule],
            lambda self: [dump(rule) for rule in self.rules],
            _set_rules,
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self.policy = QAuthZListPolicy.DENY
        self.rules: list[QAuthZListRule] = []

    def allows(self, identity: str) -> bool:
        """Tell what the rules say."""
        policy = next((r.policy for r in self.rules if _matches(r, identity)), self.policy)
        return policy == QAuthZListPolicy.ALLOW


def _matches(rule: QAuthZListRule, identity: str) -> bool:
    if rule.format != QAuthZListFormat.GLOB:
        return rule.match == identity
    words = {"*": ".*", "?": "."}
    pattern = "".join(words.get(letter) or re.escape(letter) for letter in rule.match)
    return re.fullmatch(pattern, identity, re.DOTALL) is not None


def is_allowed(find: Find, name: str, identity: str) -> bool:
    """Ask the object of that name about somebody (qauthz_is_allowed_by_id).

    Raises:
        NoAuthz: there is none.
        NotAuthz: it knows nothing of that.

    """
    found = find(name)
    if found is None:
        raise NoAuthz(name)
    if not isinstance(found, Authz):
        raise NotAuthz(name)
    return found.allows(identity)
