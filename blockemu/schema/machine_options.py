"""What machines are told of their CPUs, their memory and their start (qapi/machine.json)."""

from blockemu.qmp_server.qapi import QEnum, Size, Struct


class OnOffAuto(QEnum):
    """A switch that may be left to the machine."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class SmbiosEntryPointType(QEnum):
    """How a guest finds what firmware tells of the machine."""

    THIRTY_TWO = "32"
    SIXTY_FOUR = "64"


class SMPConfiguration(Struct):
    """How many CPUs there are, and how they lie.

    @cpus: those that are there from the start
    @sockets: sockets
    @dies: dies in a socket
    @clusters: clusters in a die
    @cores: cores in a cluster
    @threads: threads of a core
    @maxcpus: how many there may be
    """

    cpus: int | None = None
    sockets: int | None = None
    dies: int | None = None
    clusters: int | None = None
    cores: int | None = None
    threads: int | None = None
    maxcpus: int | None = None


class MemorySizeConfiguration(Struct):
    """How much memory there is.

    @size: from the start
    @max-size: with all that may come later
    @slots: places for what comes later
    """

    size: Size | None = None
    max_size: Size | None = None
    slots: int | None = None


class BootConfiguration(Struct):
    """What a guest is booted from.

    @order: letters of drives
    @once: the same, the first time
    @menu: whether a menu is shown
    @splash: a picture that is shown
    @splash-time: for how long, in milliseconds
    @reboot-timeout: after how long to try again
    @strict: whether nothing else is tried
    """

    order: str | None = None
    once: str | None = None
    menu: bool | None = None
    splash: str | None = None
    splash_time: int | None = None
    reboot_timeout: int | None = None
    strict: bool | None = None
