"""Write what blockemu/machine/data says of types and devices, by asking qemu-system-x86_64 7.2.

Each type is asked for its properties, each device plugged into a machine that stands still and
looked at there.  The program dies of a few questions, and is then started anew.
"""

import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = "qemu-system-x86_64"
DATA = Path(__file__).parent.parent / "blockemu" / "machine" / "data"
SECONDS = 20  # to wait for an answer
# What a device is plugged into, what else it needs, and what it must be told.
HELPERS = {
    "usb-bus": ["-device", "qemu-xhci,id=hc"],
    "virtio-serial-bus": ["-device", "virtio-serial,id=hc"],
    "HDA": ["-device", "intel-hda,id=hc"],
    "ISA": ["-chardev", "null,id=nothing"],
}
TOLD = {"pci-bridge-seat": "chassis_nr=9", "isa-debugcon": "chardev=nothing"}
OF_ALL = frozenset({"type", "parent_bus", "realized", "hotplugged", "hotpluggable"})
# What depends on where a device is, on what came before it, on the host, or on chance.
OF_ONE = frozenset(
    {"addr", "disable-legacy", "mac", "audiodev", "nr", "cad", "guid", "osk", "fp_start_macaddr"}
) | {"len-reserved-regions", "reserved-regions[0]"}


class Program:
    """The program with a monitor."""

    def __init__(self, *options: str) -> None:
        self._process = subprocess.Popen(
            [PROGRAM, "-display", "none", "-S", "-nodefaults", "-qmp", "stdio", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self._read = b""
        self._line()
        self.ask("qmp_capabilities")

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._read:
            more = b""
            if select.select([self._process.stdout], [], [], SECONDS)[0]:
                more = os.read(self._process.stdout.fileno(), 1 << 20)
            if not more:
                raise EOFError
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line

    def ask(self, command: str, **arguments: Any) -> Any:
        """Return the answer, None for an error.  Raises OSError, EOFError: it died."""
        return self.reply(command, **arguments).get("return")

    def reply(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Return an answer or an error."""
        assert self._process.stdin is not None
        said = {"execute": command, "arguments": arguments}
        self._process.stdin.write(json.dumps(said).encode() + b"\n")
        while "event" in (reply := json.loads(self._line())):
            pass
        return dict(reply)

    def human(self, line: str) -> str:
        """Return what the human monitor says."""
        return str(self.ask("human-monitor-command", **{"command-line": line}))

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def collect_types() -> dict[str, Any]:
    """Return the types, who implements what, and what is told of their properties."""
    program = Program("-machine", "none")
    types = program.ask("qom-list-types", abstract=True)
    found: dict[str, Any] = {"types": types, "rows": {}, "defaults": {}}
    names = [each["name"] for each in types]
    found["kinds"] = {
        name: [e["name"] for e in program.ask("qom-list-types", implements=name, abstract=True)]
        for name in names
    }
    for name in names:
        for key, command in (
            ("rows", "qom-list-properties"),
            ("defaults", "device-list-properties"),
        ):
            try:
                found[key][name] = program.ask(command, typename=name)
            except (EOFError, OSError):
                program.close()
                program = Program("-machine", "none")
                program.ask("qom-list-types", abstract=True)
                found[key][name] = None
    program.close()
    return found


def listed() -> Iterator[tuple[str, str, str]]:
    """Yield the devices that may be plugged in: name, kind of bus, alias."""
    help_ = subprocess.run([PROGRAM, "-device", "help"], capture_output=True, text=True, check=True)
    row = re.compile(r'name "([^"]+)"(?:, bus ([^,\n]+))?(?:, alias "([^"]+)")?')
    for name, bus, alias in row.findall(help_.stdout):
        if not name.endswith("-cpu"):
            yield name, bus, alias


def plug(name: str, bus: str, machine: str) -> dict[str, Any]:
    """Return what a device looks like once it is plugged in, or why it cannot be."""
    device = f"{name},id=x" + (f",{TOLD[name]}" if name in TOLD else "")
    options = ["-machine", machine, "-accel", "tcg", *HELPERS.get(bus, []), "-device", device]
    start = [PROGRAM, "-display", "none", "-S", "-nodefaults", "-monitor", "stdio", *options]
    done = subprocess.run(start, input="quit\n", capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        return {"rc": done.returncode, "err": done.stderr}
    program = Program(*options)
    found: dict[str, Any] = {"rc": 0, "qtree": program.human("info qtree"), "qom": {}}
    found["pci"] = program.ask("query-pci")
    paths = ["/machine/peripheral/x"]
    while paths:
        at = paths.pop()
        rows = program.ask("qom-list", path=at)
        found["qom"][at] = [
            (row["name"], row["type"], program.ask("qom-get", path=at, property=row["name"]))
            for row in rows
        ]
        paths += [f"{at}/{row['name']}" for row in rows if row["type"].startswith("child<")]
    program.close()
    return found


def collect_fixed(names: list[str]) -> list[str]:
    """Return the types whose devices cannot come while the machine is on."""
    fixed = []
    program = Program("-machine", "pc")
    for name in names:
        try:
            said = program.reply("device_add", driver=name, id="x")
            if "pluggable device type" in said.get("error", {}).get("desc", ""):
                fixed.append(name)
            elif "return" in said:
                raise EOFError  # with another machine
        except (EOFError, OSError):
            program.close()
            program = Program("-machine", "pc")
    program.close()
    return fixed


def collect() -> tuple[dict[str, Any], dict[str, Any], list[tuple[str, str, str]]]:
    """Ask for everything."""
    devices = list(listed())
    plugged = {}
    for name, bus, _ in devices:
        for machine in ("pc", "q35"):
            try:
                plugged[f"{name}@{machine}"] = plug(name, bus, machine)
            except (EOFError, OSError) as e:
                plugged[f"{name}@{machine}"] = {"rc": -1, "err": str(e)}
    told = collect_types()
    told["fixed"] = collect_fixed([name for name, _, _ in devices])
    return told, plugged, devices


class Shown:
    """A device in ``info qtree``: the names of its properties, and all other lines about it."""

    def __init__(self, lines: list[str]) -> None:
        depth = _depth(lines[0]) + 2
        self.names: list[str] = []
        self.others: list[str] = []
        self.buses: list[str] = []
        self.within: list[Shown] = []
        for i, line in enumerate(lines[1:], 1):
            text = line.strip()
            if text.startswith("dev: ") and _depth(line) == depth + 2:
                end = next(
                    (n for n in range(i + 1, len(lines)) if _depth(lines[n]) <= depth + 2),
                    len(lines),
                )
                self.within.append(Shown(lines[i:end]))
            elif _depth(line) != depth:
                continue
            elif text.startswith("bus: "):
                self.buses.append(f"{text[5:]} {lines[i + 1].split()[1]}")
            elif match := re.match(r"([\w.-]+) = ", text):
                self.names.append(match[1])
            elif not text.startswith(("class ", "bar ")):
                self.others.append(text)


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def shown(tree: str) -> Shown:
    """Return the device that was plugged in."""
    lines = tree.splitlines()
    start = next((i for i, line in enumerate(lines) if line.endswith(', id "x"')), -1)
    if start < 0:
        return Shown([""])  # on no bus
    depth = _depth(lines[start])
    end = next(i for i in range(start + 1, len(lines)) if _depth(lines[i]) <= depth)
    return Shown(lines[start:end])


def compose_types(told: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of types.txt: name, parent, whether abstract, interfaces."""
    parents = {each["name"]: each.get("parent", "") for each in told["types"]}
    interfaces = [name for name in parents if _is_interface(name, parents)]
    for each in told["types"]:
        name, parent = each["name"], each.get("parent", "")
        mine = [
            i
            for i in interfaces
            if i != "interface" and i != name
            if name in told["kinds"][i] and parent not in told["kinds"][i]
        ]
        abstract = "abstract" if each.get("abstract") else "-"
        yield " ".join([name, parent or "-", abstract, *mine])


def _is_interface(name: str, parents: dict[str, str]) -> bool:
    while name not in ("interface", ""):
        name = parents[name]
    return bool(name)


def compose_properties(told: dict[str, Any], plugged: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of properties.txt."""
    parents = {each["name"]: each.get("parent", "") for each in told["types"]}
    rows = {name: found or [] for name, found in told["rows"].items()}
    base, own = {}, {}
    for name in parents:
        at = parents[name]
        while at and rows[at] != rows[name][: len(rows[at])]:
            at = parents[at]
        base[name], own[name] = at, rows[name][len(rows[at]) if at else 0 :]
    ranks = _ranks(plugged)
    written: dict[str, str] = {}
    for name in parents:
        defaults = {row["name"]: row for row in told["defaults"][name] or []}
        order = next((r for r in (ranks.get(name), *_below(name, parents, ranks)) if r), [])
        if not defaults and own[name]:
            defaults = _heirs_defaults(name, told, base)
        lines = [_row(row, defaults, order) for row in own[name]]
        text = "\n".join(lines)
        if len(text) > 200 and text in written:
            lines = [f"={written[text]}"]
        written.setdefault(text, name)
        yield f"@{name} {base[name] or '-'}"
        yield from lines


def _heirs_defaults(name: str, told: dict[str, Any], base: dict[str, str]) -> dict[str, Any]:
    """Return what a device of a class that has none itself is told to begin with."""
    for heir, rows in told["defaults"].items():
        at = heir
        while at and at != name:
            at = base[at]
        if at and rows:
            return {row["name"]: row for row in rows}
    return {}


def _below(name: str, parents: dict[str, str], ranks: dict[str, list[str]]) -> Iterator[list[str]]:
    for heir, order in ranks.items():
        at = heir
        while at and at != name:
            at = parents.get(at, "")
        if at:
            yield order


def _ranks(plugged: dict[str, Any]) -> dict[str, list[str]]:
    """Return the properties of each type in the order of ``info qtree``."""
    found: dict[str, list[str]] = {}
    for key, one in plugged.items():
        if one["rc"] == 0:
            device = shown(one["qtree"])
            found.setdefault(key.split("@")[0], device.names)
            inner = dict(_inner(one)).get("type")
            if inner:
                found.setdefault(inner, device.within[0].names)
    return found


def _inner(one: dict[str, Any]) -> list[tuple[str, Any]]:
    rows = one["qom"].get("/machine/peripheral/x/virtio-backend", [])
    return [(name, value) for name, _, value in rows]


def _row(row: dict[str, Any], defaults: dict[str, Any], order: list[str]) -> str:
    name = row["name"]
    rank = str(order.index(name)) if name in order else ""
    default = defaults.get(name, {})
    value = json.dumps(default["default-value"]) if "default-value" in default else ""
    return "\t".join([rank, name, row["type"], value, row.get("description", "")]).rstrip("\t")


def compose_devices(
    told: dict[str, Any], plugged: dict[str, Any], devices: list[tuple[str, str, str]]
) -> Iterator[str]:
    """Yield the lines of devices.txt: a type, and what is known of it (JSON)."""
    for name, bus, alias in devices:
        both = [plugged[f"{name}@{machine}"] for machine in ("pc", "q35")]
        one = next((each for each in both if each["rc"] == 0), None)
        known = {"bus": bus, "alias": alias, "fixed": name in told["fixed"]}
        if one is None:
            known["refusal"] = both[0]["err"].split(f"{name},id=x: ")[-1].rstrip("\n")
        else:
            known |= _look(told, name, one)
        kept = {key: value for key, value in known.items() if value}
        yield f"{name} {json.dumps(kept, separators=(',', ':'))}"


def _look(told: dict[str, Any], name: str, one: dict[str, Any]) -> dict[str, Any]:
    device, inner = shown(one["qtree"]), dict(_inner(one))
    values = {row[0]: row[2] for row in one["qom"]["/machine/peripheral/x"]}
    holder = device.within[0] if inner else device
    behind = inner.get("type", "")
    return {
        "wires": [line for line in device.others if line.startswith("gpio")],
        "tail": [line for line in device.others if not line.startswith("gpio")],
        "buses": [each.removeprefix("x") for each in reversed(holder.buses) if each[0] == "x"],
        "pci": _pci(one["pci"]),
        "settled": _settled(told, name, values, device.names),
        "extra": _extra(one, "/machine/peripheral/x", device.names, set(inner)),
        "inner_extra": _extra(one, "/machine/peripheral/x/virtio-backend", holder.names, set()),
        "inner": behind,
        "inner_settled": _settled(told, behind, inner, holder.names) if behind else {},
    }


def _extra(one: dict[str, Any], path: str, shown_: list[str], others: set[str]) -> list[list[Any]]:
    """Return what a device takes besides what its class says: name, type, value."""
    rows = one["qom"].get(path, [])
    told = set(shown_) | OF_ALL | OF_ONE | others | {name for name, _, _ in rows if _legacy(name)}
    return [
        [name, type_, value]
        for name, type_, value in rows
        if name not in told
        and not name.startswith("bootindex")
        and f"legacy-{name}" not in told
        and re.fullmatch(r"bool|str|u?int\d*|guest statistics", type_)
    ]


def _legacy(name: str) -> bool:
    return name.startswith("legacy-")


def _settled(
    told: dict[str, Any], name: str, values: dict[str, Any], shown_: list[str]
) -> dict[str, Any]:
    begun = {row["name"]: row.get("default-value") for row in told["defaults"][name] or []}
    return {
        key: values[key]
        for key in shown_
        if key in begun
        and key not in OF_ONE
        and f"{key}=" not in TOLD.get(name, "")
        and values[key] != begun[key]
        and not (begun[key] is None and values[key] == "")
    }


def _pci(buses: list[dict[str, Any]]) -> dict[str, Any] | None:
    for each in (device for bus in buses for device in bus["devices"]):
        if each["qdev_id"] == "x":
            id_, kind = each["id"], each["class_info"]
            return {
                "class": kind["class"],
                "desc": kind.get("desc", ""),
                "id": [id_["vendor"], id_["device"]],
                "sub": [id_.get("subsystem-vendor", 0), id_.get("subsystem", 0)],
                "pin": each["irq_pin"],
                "closed": bool(_base(each.get("pci_bridge"))),
                "regions": [
                    [r["bar"], r["type"], r["size"], *(r.get(k, False) for k in _BITS)]
                    for r in each["regions"]
                ],
            }
    return None


def _base(bridge: dict[str, Any] | None) -> int:
    return bridge["bus"]["io_range"]["base"] if bridge else 0


_BITS = ("mem_type_64", "prefetch")


def write(told: dict[str, Any], plugged: dict[str, Any], devices: list[Any]) -> None:
    """Write the three files."""
    DATA.mkdir(exist_ok=True)
    for name, lines in (
        ("types.txt", compose_types(told)),
        ("properties.txt", compose_properties(told, plugged)),
        ("devices.txt", compose_devices(told, plugged, devices)),
    ):
        (DATA / name).write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    sys.exit(write(*collect()))
