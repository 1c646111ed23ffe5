"""Versions of an interface: marks on what exists since or until when, profiles to filter by.

Light on purpose: the greeting needs it before anything else is imported.
"""

from collections.abc import Mapping
from typing import Any, Final

Version = tuple[int, ...]

VERSIONS: Final[dict[str, Version]] = {
    "4.2": (4, 2, 0),
    "5.2": (5, 2, 0),
    "6.2": (6, 2, 0),
    "7.2": (7, 2, 22),
}
NEWEST: Final = (7, 2, 22)
NO_QEMU: Final = "1000"  # since when there is what no QEMU has: only the profile "all" shows it
POLICIES: Final = {
    "deprecated-input": ("accept", "reject", "crash"),
    "deprecated-output": ("accept", "hide"),
    "unstable-input": ("accept", "reject", "crash"),
    "unstable-output": ("accept", "hide"),
}


def parse_version(text: str) -> Version:
    """Return "4.2" as (4, 2)."""
    return tuple(int(part) for part in text.split("."))


class Since:
    """Mark of a member: the version it appeared in."""

    __slots__ = ("version",)

    def __init__(self, version: str) -> None:
        self.version = parse_version(version)


class Deprecated(Since):
    """Mark of a member: the version that deprecated it."""

    __slots__ = ()


class Removed(Since):
    """Mark of a member: the first version without it."""

    __slots__ = ()


class Features:
    """Mark of a member: its features, as introspection tells them ("unstable", ...)."""

    __slots__ = ("names",)

    def __init__(self, *names: str) -> None:
        self.names = names


FeatureNames = tuple[str, ...] | Mapping[str, str]  # a mapping: since when each is told
FEATURE_AGES: Final[dict[str, Version]] = {  # of those that mean something to QAPI itself
    "deprecated": (5, 0),
    "unstable": (6, 2),
}


class Life:
    """When something existed, since when it is deprecated, and which features it has."""

    __slots__ = ("ages", "deprecated", "features", "removed", "since", "unstable")

    def __init__(
        self,
        since: str | None = None,
        deprecated: str | None = None,
        removed: str | None = None,
        features: FeatureNames = (),
    ) -> None:
        self.since = parse_version(since) if since else None
        self.deprecated = parse_version(deprecated) if deprecated else None
        self.removed = parse_version(removed) if removed else None
        self.features = tuple(features)
        told = features if isinstance(features, Mapping) else {}
        self.ages = {name: parse_version(age) for name, age in told.items()}
        self.unstable = "unstable" in features

    def without_features(self) -> "Life":
        """Return the same ages and no features."""
        life = Life()
        life.since, life.deprecated, life.removed = self.since, self.deprecated, self.removed
        return life

    def without_ages(self) -> "Life":
        """Return the same features of something that there always was."""
        life = Life()
        life.features, life.ages, life.unstable = self.features, self.ages, self.unstable
        return life

    @classmethod
    def of(cls, notes: tuple[Any, ...]) -> "Life":
        """Return the life that the marks among ``notes`` (of an Annotated) describe."""
        life = cls()
        for note in notes:
            if type(note) is Since:
                life.since = note.version
            elif type(note) is Deprecated:
                life.deprecated = note.version
            elif type(note) is Removed:
                life.removed = note.version
            elif type(note) is Features:
                life.features = note.names
                life.unstable = "unstable" in note.names
        return life

    @property
    def plain(self) -> bool:
        """Whether no profile treats it in a special way."""
        return not (self.since or self.deprecated or self.removed or self.features)


FOREVER: Final = Life()


class UnknownProfile(ValueError):
    """The text names no profile or policy; it says so in words fit for a command line."""


class Profile:
    """A version of the interface, or all of them (``version`` None), and a policy."""

    __slots__ = ("lenient", "name", "policy", "quiet", "version")

    def __init__(
        self,
        name: str = "all",
        version: Version | None = None,
        policy: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.policy = dict(policy or {})  # as in QEMU's -compat; what is absent is accepted
        self.quiet = set(self.policy.values()) <= {"accept"}
        self.lenient: Profile = self if self.quiet else Profile(name, version)  # no policy

    def __repr__(self) -> str:
        return f"Profile({self.name!r}, {self.policy!r})"

    @classmethod
    def parse(cls, text: str) -> "Profile":
        """Return the profile of "4.2" or "all,deprecated-input=reject"; raise UnknownProfile."""
        name, version = "all", None
        policy: dict[str, str] = {}
        for item in text.split(","):
            key, is_policy, value = item.partition("=")
            if is_policy:
                policy[_checked(key, value)] = value
            elif key in VERSIONS or key == "all":
                name, version = key, VERSIONS.get(key)
            else:
                known = ", ".join([*VERSIONS, "all"])
                raise UnknownProfile(f"unknown profile '{key}' (known: {known})")
        return cls(name, version, policy)

    @property
    def greeting_version(self) -> Version:
        """The version to greet with."""
        return self.version or NEWEST

    def knows(self, life: Life) -> bool:
        """Tell whether this version has it."""
        version = self.version
        return version is None or (
            (life.since is None or life.since <= version)
            and (life.removed is None or version < life.removed)
        )

    def deprecates(self, life: Life) -> bool:
        """Tell whether this version calls it deprecated."""
        at = life.deprecated
        return at is not None and (self.version is None or at <= self.version)

    def features(self, life: Life) -> list[str]:
        """Return the features that this version tells of, "deprecated" first."""
        names = [*life.features]
        if self.deprecates(life) and "deprecated" not in names:
            names.insert(0, "deprecated")
        ages = FEATURE_AGES | life.ages
        version = self.version
        return [name for name in names if version is None or ages.get(name, version) <= version]

    def hides(self, life: Life) -> bool:
        """Tell whether it is kept out of output: not in this version, or by policy."""
        if not self.knows(life):
            return True
        if self.quiet:
            return False
        return (self.policy.get("deprecated-output") == "hide" and self.deprecates(life)) or (
            self.policy.get("unstable-output") == "hide" and life.unstable
        )

    def input_policy(self, life: Life) -> tuple[str, str]:
        """Return the policy against input of this kind and the adjective for its error."""
        policy = self.policy.get("deprecated-input", "accept")
        if policy != "accept" and self.deprecates(life):
            return policy, "Deprecated"
        policy = self.policy.get("unstable-input", "accept")
        if policy != "accept" and life.unstable:
            return policy, "Unstable"
        return "accept", ""


def _checked(key: str, value: str) -> str:
    if key not in POLICIES:
        raise UnknownProfile(f"Parameter '{key}' is unexpected")
    if value not in POLICIES[key]:
        raise UnknownProfile(f"Parameter '{key}' does not accept value '{value}'")
    return key


ALL: Final = Profile()
