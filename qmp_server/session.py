"""One client's conversation, sans-IO: bytes in, requests; requests in, replies out.

After monitor/qmp.c and qapi/qmp-dispatch.c.  Nothing of QAPI is imported until a command needs it,
so that the greeting and the negotiation cost nothing at start-up.
"""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, Final

from blockemu.qmp_server.errors import (
    AlreadyNegotiated,
    CapabilityUnavailable,
    CommandNotFound,
    DisabledByPolicy,
    NoOob,
    NotNegotiated,
    ParseError,
    PolicyCrash,
    ProtocolError,
)
from blockemu.qmp_server.jsonstream import Parser
from blockemu.qmp_server.order import in_order
from blockemu.qmp_server.profile import ALL, Profile
from blockemu.qmp_server.qdict import encode, prettify

if TYPE_CHECKING:
    from blockemu.qmp_server.dispatch import Command, Registry

OOB: Final = "oob"
NO_ARGUMENTS: Final[dict[str, Any]] = {}
_NO_ID: Final = object()
_ID_FIRST: Final = {
    key: in_order(["id", key])[0] == "id" for key in ("return", "error")
}  # whether QEMU prints the id before the outcome


class NotAnObject(ProtocolError):
    """A request that is no JSON object."""

    template = "QMP input must be a JSON object"


class NotAString(ProtocolError):
    """The command's name is no string."""

    template = "QMP input member '{}' must be a string"


class Clash(ProtocolError):
    """Both execute and exec-oob."""

    template = "QMP input member '{}' clashes with '{}'"


class ArgumentsNotAnObject(ProtocolError):
    """The arguments are no JSON object."""

    template = "QMP input member 'arguments' must be an object"


class UnexpectedMember(ProtocolError):
    """A request has a member too many."""

    template = "QMP input member '{}' is unexpected"


class NothingToExecute(ProtocolError):
    """A request without a command's name."""

    template = "QMP input lacks member 'execute'"


class InternalError(ProtocolError):
    """A command failed in a way that it did not foresee; the log has the rest."""

    template = "Internal error: {}"


class Pending:
    """A command that waits: the coroutine to run, then ``finish`` or ``fail`` it."""

    __slots__ = ("command", "coroutine", "ident")

    def __init__(self, command: "Command", coroutine: Coroutine[Any, Any, Any], ident: Any) -> None:
        self.command = command
        self.coroutine = coroutine
        self.ident = ident


class Service:
    """What the sessions of a server share: the commands, the profile, the checks."""

    def __init__(
        self,
        registry_loader: "Callable[[], Registry]",
        profile: Profile = ALL,
        *,
        self_check: bool = False,
        on_bug: Callable[[Exception], None] | None = None,
        reword: Callable[[Exception, str], str] | None = None,
        crash: Callable[[], None] | None = None,
    ) -> None:
        self.profile = profile
        self.crash = crash or (lambda: None)  # ends the program, if there is one to end
        self.self_check = self_check
        self.reword = reword or (lambda error, command: str(error))  # its text as it is sent
        self.on_bug = on_bug or _log_bug
        self._loader = registry_loader
        self._registry: Registry | None = None

    @property
    def registry(self) -> "Registry":
        """The commands; loaded at the first command."""
        if self._registry is None:
            self._registry = self._loader()
        return self._registry


def _log_bug(error: Exception) -> None:
    import logging

    logging.getLogger("blockemu.qmp").error("a command failed unexpectedly", exc_info=error)


class Session:
    """A client's state: what is half received, what was negotiated."""

    offered: ClassVar[tuple[str, ...]] = (OOB,)

    def __init__(self, service: Service, *, pretty: bool = False) -> None:
        self.service = service
        self.pretty = pretty
        self.negotiated = False
        self.capabilities: frozenset[str] = frozenset()
        self._parser = Parser()

    # In

    def greeting(self) -> bytes:
        """Return what the client is greeted with."""
        major, minor, micro = (*self.service.profile.greeting_version, 0, 0)[:3]
        version = {
            "qemu": {"major": major, "minor": minor, "micro": micro},
            "package": "",
        }
        hello = {"QMP": {"version": version, "capabilities": list(self._offers())}}
        return self.message(hello)

    def _offers(self) -> tuple[str, ...]:
        version = self.service.profile.version
        return self.offered if version is None or version >= (2, 12) else ()

    def receive(self, data: bytes | bytearray | memoryview) -> list[Any]:
        """Take bytes; return the requests that they complete, in order: values or ParseErrors."""
        return self._parser.feed(data)

    def is_oob(self, request: Any) -> bool:
        """Tell whether a request is to run at once, past all that wait."""
        return type(request) is dict and "exec-oob" in request and "execute" not in request

    @property
    def oob_enabled(self) -> bool:
        """Whether the client may send out-of-band commands."""
        return OOB in self.capabilities

    def negotiate(self, capabilities: list[str]) -> None:
        """End the negotiation; raise ProtocolError if it is over or asks for too much."""
        if self.negotiated:
            raise AlreadyNegotiated
        missing = [each for each in capabilities if each not in self._offers()]
        if missing:
            raise CapabilityUnavailable(", ".join(missing))
        self.capabilities = frozenset(capabilities)
        self.negotiated = True

    # Execution

    def execute(self, request: Any, context: Any = None) -> bytes | Pending:
        """Run a request; return the reply, or what is to be awaited for it.

        Commands get ``context``.  Errors become replies.
        """
        ident: Any = _NO_ID
        name = ""
        try:
            if type(request) is not dict:
                raise request if isinstance(request, ParseError) else NotAnObject
            if "id" in request:
                ident = request["id"]
            name, arguments, oob = self._examine(request)
            command = self._find(name)
            if oob and not command.oob:
                raise NoOob(name)
            if name == "qmp_capabilities":
                context = self
            result = command.run(context, arguments, self.service.profile)
            if command.is_async:
                return Pending(command, result, ident)
            return self._success(command, result, ident)
        except PolicyCrash as e:
            self.service.crash()
            return self._failure(DisabledByPolicy(*e.args), ident, name)
        except Exception as e:
            return self._failure(e, ident, name)

    def finish(self, pending: Pending, result: Any) -> bytes:
        """Return the reply to a command that has ended."""
        try:
            return self._success(pending.command, result, pending.ident)
        except Exception as e:
            return self._failure(e, pending.ident, pending.command.name)

    def fail(self, pending: Pending, error: Exception) -> bytes:
        """Return the reply to a command that has failed."""
        return self._failure(error, pending.ident, pending.command.name)

    def _find(self, name: str) -> "Command":
        if not self.negotiated:
            if name != "qmp_capabilities":
                raise NotNegotiated
        elif name != "qmp_capabilities":
            command = self.service.registry.get(name, self.service.profile)
            if command is None:
                raise CommandNotFound(name)
            return command
        from blockemu.qmp_server.control import qmp_capabilities

        return qmp_capabilities

    def _examine(self, request: dict[str, Any]) -> tuple[str, dict[str, Any], bool]:
        """Return the command's name, the arguments, and whether it is out of band."""
        name = request.get("execute")
        arguments = request.get("arguments", NO_ARGUMENTS)
        known = 1 + ("arguments" in request) + ("id" in request)
        if type(name) is str and type(arguments) is dict and len(request) == known:
            return name, arguments, False
        return self._examine_closely(request)

    def _examine_closely(self, request: dict[str, Any]) -> tuple[str, dict[str, Any], bool]:
        found = ""
        for key in in_order(request):
            value = request[key]
            if key == "execute" or (key == "exec-oob" and self.oob_enabled):
                if type(value) is not str:
                    raise NotAString(key)
                if found:
                    raise Clash(key, found)
                found = key
            elif key == "arguments":
                if type(value) is not dict:
                    raise ArgumentsNotAnObject
            elif key != "id":
                raise UnexpectedMember(key)
        if not found:
            raise NothingToExecute
        return request[found], request.get("arguments", NO_ARGUMENTS), found == "exec-oob"

    # Out

    def message(self, value: Any) -> bytes:
        """Return a plain JSON value as a message."""
        text = encode(value)
        return ((prettify(text) if self.pretty else text) + "\r\n").encode("ascii")

    def _success(self, command: "Command", result: Any, ident: Any) -> bytes:
        service = self.service
        text = command.finish(result, service.profile, self_check=service.self_check)
        if not command.success_response:
            return b""
        return self._reply("return", text, ident)

    def _failure(self, error: Exception, ident: Any, command: str) -> bytes:
        kind = getattr(error, "qmp_class", None)
        if kind is None:
            self.service.on_bug(error)
            error = InternalError(f"{type(error).__name__}: {error}")
            kind = error.qmp_class
        text = self.service.reword(error, command)
        return self._reply("error", encode({"class": kind, "desc": text}), ident)

    def _reply(self, key: str, value: str, ident: Any) -> bytes:
        if ident is _NO_ID:
            text = f'{{"{key}": {value}}}'
        elif _ID_FIRST[key]:
            text = f'{{"id": {encode(ident)}, "{key}": {value}}}'
        else:
            text = f'{{"{key}": {value}, "id": {encode(ident)}}}'
        if self.pretty:
            text = prettify(text)
        return (text + "\r\n").encode("ascii")
