"""Commands: functions whose signature is their schema; events: structs; the registry of both."""

import inspect
import typing
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, ClassVar, Final, overload

from blockemu.qmp_server.declare import ABSENT, Member, Struct, make_member
from blockemu.qmp_server.dump import check, dump, text
from blockemu.qmp_server.errors import CommandDisabledByPolicy
from blockemu.qmp_server.invalid import InvalidInput
from blockemu.qmp_server.profile import ALL, FOREVER, FeatureNames, Life, Profile
from blockemu.qmp_server.visit import JSON, MemberTable, Visitor, compiled, obey

Handler = Callable[..., Any]
_CO_COROUTINE: Final = 0x80  # of code: inspect has it, which is large (start-up)
Plan = Callable[[Any, dict[str, Any]], Any]


class Event(Struct):
    """Base of events: ``class JobDone(Event, event="JOB_DONE", since="3.0")``.

    ``rate`` is the least time in ns between two of them, told apart by the member ``rate_key``
    where there is one (after monitor_qapi_event_conf, monitor/monitor.c).
    """

    event: ClassVar[str] = ""
    rate: ClassVar[int] = 0
    rate_key: ClassVar[str | None] = None

    def __init_subclass__(cls, *, event: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if event:
            cls.event = event


class Command:
    """A command: its wire name, its life, and what runs it.  Types are looked at on first use."""

    __slots__ = (
        "_boxed",
        "_hints",
        "_parameters",
        "_plans",
        "allow_preconfig",
        "function",
        "gen",
        "is_async",
        "life",
        "name",
        "oob",
        "success_response",
    )

    def __init__(
        self,
        function: Handler,
        name: str = "",
        life: Life = FOREVER,
        *,
        oob: bool = False,
        gen: bool = True,
        allow_preconfig: bool = False,
        success_response: bool = True,
    ) -> None:
        code = function.__code__
        self.function = function
        self.name = name or function.__name__.rstrip("_").replace("_", "-")
        self.life = life
        self.oob = oob
        self.gen = gen
        self.allow_preconfig = allow_preconfig
        self.success_response = success_response
        self.is_async = bool(code.co_flags & _CO_COROUTINE)
        self._boxed = code.co_varnames[1] if code.co_argcount > 1 else None
        self._hints: dict[str, Any] | None = None
        self._parameters: dict[str, Member] | None = None
        self._plans: dict[Profile, Plan] = {}
        assert not (oob and self.is_async), "commands that run out of band cannot wait"

    def __repr__(self) -> str:
        return f"<command {self.name}>"

    def __call__(self, *arguments: Any, **members: Any) -> Any:
        """Call the function as it is."""
        return self.function(*arguments, **members)

    @property
    def doc(self) -> str:
        """What the function's docstring says."""
        return inspect.cleandoc(self.function.__doc__ or "")

    @property
    def hints(self) -> dict[str, Any]:
        """The annotations of the function."""
        if self._hints is None:
            self._hints = typing.get_type_hints(self.function, include_extras=True)
        return self._hints

    @property
    def returns(self) -> Any:
        """The type of the reply; None for an empty object."""
        hint = self.hints.get("return")
        return None if hint is type(None) else hint

    @property
    def boxed(self) -> Any:
        """The type that stands for all the arguments, None if they are parameters."""
        return None if self._boxed is None else self.hints[self._boxed]

    @property
    def parameters(self) -> dict[str, Member]:
        """The arguments by Python name, as members of a struct."""
        if self._parameters is None:
            function = self.function
            defaults = function.__kwdefaults__ or {}
            code = function.__code__
            names = code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount]
            self._parameters = {
                name: make_member(
                    name,
                    self.hints[name],
                    defaults.get(name, ABSENT),
                    optional=name in defaults,
                )
                for name in names
            }
        return self._parameters

    def run(self, context: Any, arguments: dict[str, Any], profile: Profile = ALL) -> Any:
        """Check the arguments and call the function; a coroutine if that is one.

        Raises InvalidInput, and what the function raises.
        """
        plan = self._plans.get(profile)
        if plan is None:
            plan = self._plans[profile] = self._plan(profile)
        return plan(context, arguments)

    def _plan(self, profile: Profile) -> Plan:
        """Return what checks and calls under a profile, with all look-ups done."""
        function = self.function
        if self._boxed is not None:
            visitor: Visitor = (
                (lambda value: value) if not self.gen else compiled(self.boxed, profile, JSON)
            )

            def run(context: Any, arguments: dict[str, Any]) -> Any:
                return function(context, visitor(arguments))

        else:
            table = MemberTable(self.parameters, profile, JSON)
            read, needs = table.read, not table.all_optional

            def run(context: Any, arguments: dict[str, Any]) -> Any:
                if arguments or needs:
                    return function(context, **read(arguments))
                return function(context)

        return self._wary(run, profile)

    def _wary(self, run: Plan, profile: Profile) -> Plan:
        if profile.quiet or self.life.plain:
            return run

        def obeying(context: Any, arguments: dict[str, Any]) -> Any:
            obey(profile, self.life, "command", self.name, CommandDisabledByPolicy)
            return run(context, arguments)

        return obeying

    def finish(self, result: Any, profile: Profile = ALL, *, self_check: bool = False) -> str:
        """Return the reply's value as JSON, checked against its type if asked to."""
        if self_check:
            check(self.returns, dump(result, profile.lenient), profile.lenient)
        return "{}" if result is None else text(result, profile)


@overload
def command(function: Handler, /) -> Command: ...
@overload
def command(
    *,
    name: str = ...,
    since: str | None = ...,
    deprecated: str | None = ...,
    removed: str | None = ...,
    features: FeatureNames = ...,
    oob: bool = ...,
    gen: bool = ...,
    allow_preconfig: bool = ...,
    success_response: bool = ...,
) -> Callable[[Handler], Command]: ...
def command(
    function: Handler | None = None,
    /,
    *,
    name: str = "",
    since: str | None = None,
    deprecated: str | None = None,
    removed: str | None = None,
    features: FeatureNames = (),
    **options: bool,
) -> Any:
    """Make a command of ``function(context, *, member: type = default, ...) -> type``.

    One positional parameter after the context stands for all the arguments, as QAPI's 'boxed'
    does; with ``gen=False`` it gets the JSON object unchecked.  ``oob``: may run out of band.
    """
    if function is not None:
        return Command(function)
    life = Life(since, deprecated, removed, features)

    def decorate(function: Handler) -> Command:
        return Command(function, name, life, **options)

    return decorate


class Registry:
    """The commands and events of a server, in order of registration.

    They may come late: ``import_family`` imports the module of a command that is not registered yet
    (None: it is in none), ``import_rest`` all modules, in order.
    """

    def __init__(
        self,
        items: Iterable[Command] = (),
        *,
        import_family: Callable[[str], ModuleType | None] = lambda name: None,
        import_rest: Callable[[], Iterable[ModuleType]] | None = None,
    ) -> None:
        self._commands: dict[str, Command] = {}
        self._events: dict[str, type[Event]] = {}
        self._found: dict[Profile, dict[str, Command]] = {}
        self._import_family = import_family
        self._import_rest = import_rest
        self.complete: Callable[[], object] = lambda: None  # imports cases of unions that are late
        for item in items:
            self.add(item)

    def add(self, item: Command | type[Event]) -> None:
        """Register a command or an event."""
        if isinstance(item, Command):
            self._commands[item.name] = item
        else:
            self._events[item.event] = item

    def collect(self, module: ModuleType) -> None:
        """Register all commands and events of a module, in order of definition."""
        for item in vars(module).values():
            if isinstance(item, Command) or (
                isinstance(item, type) and issubclass(item, Event) and item.event
            ):
                self.add(item)

    def get(self, name: str, profile: Profile = ALL) -> Command | None:
        """Return the command called ``name``, None if the profile has none."""
        found = self._found.setdefault(profile, {})
        return found.get(name) or self._find(name, profile, found)

    def _find(self, name: str, profile: Profile, found: dict[str, Command]) -> Command | None:
        if name not in self._commands and (module := self._import_family(name)) is not None:
            self.collect(module)
        command = self._commands.get(name)
        if command is None or not profile.knows(command.life):
            return None
        found[name] = command
        return command

    def known(self, profile: Profile = ALL) -> list[Command]:
        """Return the commands of a profile."""
        return [command for command in self if profile.knows(command.life)]

    def names(self, profile: Profile = ALL) -> list[str]:
        """Return the names of all commands."""
        return [command.name for command in self.known(profile)]

    def __iter__(self) -> Iterator[Command]:
        self._load()
        return iter(self._commands.values())

    def events(self, profile: Profile = ALL) -> list[type[Event]]:
        """Return the events of a profile."""
        self._load()
        return [event for event in self._events.values() if profile.knows(event.life)]

    def _load(self) -> None:
        """Import what is not there yet; what is, takes its place in the order."""
        if self._import_rest is None:
            return
        self._commands.clear()
        for module in self._import_rest():
            self.collect(module)
        self._import_rest = None


__all__ = ["Command", "Event", "InvalidInput", "Registry", "command"]
