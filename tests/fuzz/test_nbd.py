"""NBD on bytes: whatever comes gives a value or our protocol error, in both roles, alone and face to face."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from blockemu.backend import Backend
from blockemu.emulator import Emulator
from blockemu.exports.requests import Request, Requests
from blockemu.nbd import client, wire
from blockemu.nbd.client import ExportInfo, Wanted
from blockemu.nbd.client_errors import HandshakeError
from blockemu.nbd.lost import EndOfFile
from blockemu.nbd.server import Negotiation, Refused, Session
from blockemu.nbd.steps import Handshake, Receive, Send
from blockemu.nbd.transmission import Command, RemoteProtocolError, Transmission
from blockemu.perm import Perm

SIZE = 1 << 20
MOST_TURNS = 100_000
Mutation = tuple[int, bytes | None]  # where in the stream; what stands there, None: it ends there


@dataclass
class Shown:
    """What a handshake sees of an export."""

    name: str = "e"
    description: str | None = "a text"
    size: int = SIZE
    allocation_depth: bool = True
    flags: int = wire.HAS_FLAGS | wire.SEND_FLUSH | wire.SEND_FUA | wire.SEND_TRIM
    alignment: int = 1
    max_transfer: int = wire.MAX_PAYLOAD
    bitmap_names: list[str] = field(default_factory=lambda: ["b0", "b1"])


class Offer:
    """One export."""

    def __init__(self) -> None:
        self.export = Shown()

    def find(self, name: str) -> Shown | None:
        return self.export if name == self.export.name else None

    def all(self) -> list[Shown]:
        return [self.export]


class Pipe:
    """Carries bytes one way, one at a time, and may change or end what it carries."""

    def __init__(self, mutation: Mutation | None) -> None:
        self._mutation = mutation
        self._carried = 0
        self._waiting = bytearray()
        self.arrived = bytearray()
        self.ended = False

    def put(self, data: bytes) -> None:
        self._waiting += data

    def carry(self) -> bool:
        """Let one byte arrive; tell whether one did."""
        if not self._waiting or self.ended:
            return False
        byte = self._waiting[:1]
        del self._waiting[:1]
        if self._mutation is not None and self._carried == self._mutation[0]:
            if self._mutation[1] is None:
                self.ended = True
                return False
            byte = bytearray(self._mutation[1])
        self._carried += 1
        self.arrived += byte
        return True


class Side:
    """One end of a handshake."""

    def __init__(self, steps: Handshake[Any], hears: Pipe, speaks: Pipe) -> None:
        self._steps, self._hears, self._speaks = steps, hears, speaks
        self._step: Any = None
        self.result: Any = None
        self.over = False

    def advance(self) -> None:
        """Go as far as what has arrived allows."""
        while not self.over:
            answer = b""
            if isinstance(self._step, Receive):
                if len(self._hears.arrived) < self._step.size:
                    if not self._hears.ended:
                        return
                    self._go(lambda: self._steps.throw(EndOfFile()))
                    continue
                answer = bytes(self._hears.arrived[: self._step.size])
                del self._hears.arrived[: self._step.size]
            self._go(
                lambda data=answer: self._steps.send(data) if self._step else next(self._steps)
            )

    def _go(self, on: Any) -> None:
        try:
            self._step = on()
        except StopIteration as stop:
            self.result, self.over = stop.value, True
        except (Refused, HandshakeError, EndOfFile) as e:
            self.result, self.over = e, True
        else:
            if isinstance(self._step, Send):
                self._speaks.put(self._step.data)


def meet(steps: Handshake[Any], tls: bool, up: Pipe, down: Pipe) -> tuple[Side, Side]:
    """Have a client and our server talk byte by byte, until neither has anything to say."""
    ours = Side(steps, down, up)
    theirs = Side(Negotiation(Offer(), tls=tls).run(), up, down)
    for _ in range(MOST_TURNS):
        ours.advance()
        theirs.advance()
        if not (up.carry() | down.carry()):
            if (ours.over and theirs.over) or (up.ended and down.ended):
                break
            up.ended, down.ended = True, True  # they wait for each other: both hear the end
    ours.advance()
    theirs.advance()
    return ours, theirs


mutations = st.one_of(
    st.none(), st.tuples(st.integers(0, 600), st.one_of(st.none(), st.binary(max_size=3)))
)
wants = st.builds(
    Wanted,
    st.sampled_from(["e", "", "no", "x" * 4097]),
    st.sampled_from(["base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b1", "z"]),
    st.booleans(),
)


@given(wants, st.booleans(), mutations, mutations)
def test_a_handshake_ends_well_or_with_our_errors_on_both_sides(
    wanted: Wanted, listing: bool, up: Mutation | None, down: Mutation | None
) -> None:
    steps: Handshake[Any] = (
        client.list_exports(tls=wanted.tls) if listing else client.connect(wanted)
    )
    ours, theirs = meet(steps, wanted.tls, Pipe(up), Pipe(down))
    assert ours.over
    assert isinstance(ours.result, ExportInfo | list | HandshakeError)
    if theirs.over:
        assert isinstance(theirs.result, Session | Refused | EndOfFile)
    if up is None and down is None and wanted.name == "e" and not listing:
        assert ours.result.size == theirs.result.export.size


# Requests and replies


@asynccontextmanager
async def disk() -> AsyncIterator[Backend]:
    emu = Emulator()
    try:
        options = {"driver": "null-co", "size": SIZE, "read-zeroes": True, "latency-ns": 0}
        backend = Backend(perm=Perm.CONSISTENT_READ | Perm.WRITE, shared=Perm.ALL)
        emu.graph.insert(backend, await emu.opener.open(options))
        yield backend
        await emu.graph.remove(backend)
    finally:
        await emu.close()


async def served(pipe: Pipe, requests: Requests) -> bytes | None:
    """Answer a request that has arrived; None if none has, or if it is none."""
    if len(pipe.arrived) < wire.REQUEST.size:
        return None
    magic, *head = wire.REQUEST.unpack_from(pipe.arrived)
    request = Request(*head)
    size = request.length if request.kind == wire.CMD_WRITE else 0
    if magic != wire.REQUEST_MAGIC or size > wire.MAX_PAYLOAD:
        pipe.ended = True
        return None
    if len(pipe.arrived) < wire.REQUEST.size + size:
        return None
    payload = bytes(pipe.arrived[wire.REQUEST.size : wire.REQUEST.size + size])
    del pipe.arrived[: wire.REQUEST.size + size]
    pieces = await requests.answer(request, payload)
    return b"".join(bytes(piece) for piece in pieces)


def fed(transmission: Transmission, pipe: Pipe) -> Iterator[None]:
    """Give a client the bytes that have arrived, one at a time."""
    while pipe.arrived:
        transmission.room()[:1] = pipe.arrived[:1]
        del pipe.arrived[:1]
        transmission.received(1)
        yield


asked = st.lists(
    st.tuples(
        st.sampled_from(
            [wire.CMD_READ, wire.CMD_WRITE, wire.CMD_FLUSH, wire.CMD_TRIM, wire.CMD_CACHE,
             wire.CMD_WRITE_ZEROES, wire.CMD_BLOCK_STATUS, 99]
        ),
        st.sampled_from([0, 1, 511, 4096, SIZE - 1, SIZE, 1 << 63]),
        st.sampled_from([0, 1, 100, 512]),
        st.sampled_from([0, 0, 0, 1, 2, 4, 8, 16, 0x8000]),
    ),
    min_size=1,
    max_size=5,
)  # fmt: skip


@given(asked, st.booleans(), mutations, mutations)
def test_requests_end_once_each_whatever_becomes_of_their_bytes(
    wanted: list[tuple[int, int, int, int]],
    structured: bool,
    up_mutation: Mutation | None,
    down_mutation: Mutation | None,
) -> None:
    async def main() -> None:
        async with disk() as backend:
            await talk(backend)

    async def talk(backend: Backend) -> None:
        session = Session(Shown(), structured, [0] if structured else [])
        requests = Requests(backend, session, [], size=SIZE, writable=True)
        info = ExportInfo("e", SIZE, wire.HAS_FLAGS, structured=structured, context_id=0)
        transmission = Transmission(info)
        up, down = Pipe(up_mutation), Pipe(down_mutation)
        ended: list[Command] = []
        for kind, offset, length, flags in wanted:
            buf = memoryview(bytearray(length)) if kind == wire.CMD_READ else None
            command = Command(kind, offset, length, ended.append, flags, buf)
            up.put(transmission.begin(command))
            if kind == wire.CMD_WRITE:
                up.put(bytes(length))
        with suppress(RemoteProtocolError):
            while up.carry():
                if (answer := await served(up, requests)) is not None:
                    down.put(answer)
            while down.carry():
                for _ in fed(transmission, down):
                    pass
        if up_mutation is None and down_mutation is None and all(each[2] for each in wanted):
            assert len(ended) == len(wanted)
        transmission.fail(wire.EIO)
        assert len({id(command) for command in ended}) == len(ended) == len(wanted)

    asyncio.run(main())


@given(st.lists(st.one_of(st.binary(max_size=60), st.just(struct.pack(">I", 3))), max_size=6))
def test_a_server_has_an_answer_or_a_refusal_for_any_bytes(parts: list[bytes]) -> None:
    up, down = Pipe(None), Pipe(None)
    up.put(b"".join(parts))
    side = Side(Negotiation(Offer()).run(), up, down)
    while up.carry():
        side.advance()
    up.ended = True
    side.advance()
    assert isinstance(side.result, Session | Refused | EndOfFile)
