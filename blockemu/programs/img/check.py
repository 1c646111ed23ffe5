"""``check``: whether an image is consistent, and repairs."""

import errno
import os
from typing import Any

from blockemu.cache_modes import CACHE_MODES
from blockemu.check import CheckResult, Fix
from blockemu.node import Node
from blockemu.programs.img.arguments import IMAGE, Syntax
from blockemu.programs.img.info import pretty
from blockemu.programs.img.program import Mode, Program, is_json
from blockemu.programs.img.refusals import BadSourceCache, Misused, OneImageExpected, Refusal
from blockemu.records import record

SYNTAX = Syntax(
    "hf:r:T:qU",
    IMAGE | {"format": "f", "repair": "r", "output": ":", "force-share": "U"},
)
GOOD, FAILED, CORRUPT, LEAKS, NO_CHECKS = 0, 1, 2, 3, 63  # exit statuses
REPAIRS = {"leaks": Fix.LEAKS, "all": Fix.ALL}
COUNTS = (
    "corruptions",
    "leaks",
    "corruptions_fixed",
    "leaks_fixed",
    "image_end_offset",
    "total_clusters",
    "allocated_clusters",
    "fragmented_clusters",
    "compressed_clusters",
)


class BadRepair(Misused):
    """(as given)."""

    template = "Unknown option value for -r (expecting 'leaks' or 'all'): {}"


class NoChecks(Refusal):
    """The format has none."""

    status = NO_CHECKS
    template = "This image format does not support checks"


class CheckFailed(Refusal):
    """(why, after a colon, if that is known)."""

    template = "Check failed{}"


@record(frozen=True)
class Report:
    """Where to tell what was found, and how."""

    program: Program
    filename: str
    as_json: bool

    def repaired(self, result: CheckResult) -> None:
        """Tell that there will be another check, and why."""
        if not self.as_json:
            self.program.tell(
                "The following inconsistencies were found and repaired:\n\n"
                f"    {result.leaks_fixed} leaked clusters\n"
                f"    {result.corruptions_fixed} corruptions\n\n"
                "Double checking the fixed image now...\n"
            )

    def found(self, result: CheckResult, fmt: str) -> None:
        """Tell what was found."""
        self.program.tell(self._json(result, fmt) if self.as_json else _text(result))

    def _json(self, result: CheckResult, fmt: str) -> str:
        found = {
            "filename": self.filename,
            "format": fmt,
            "check-errors": result.check_errors,
        }
        counts = {name.replace("_", "-"): getattr(result, name) for name in COUNTS}
        return pretty(found | {name: count for name, count in counts.items() if count})


def _text(result: CheckResult) -> str:
    text = ""
    if not (result.corruptions or result.leaks or result.check_errors):
        text += "No errors were found on the image.\n"
    if result.corruptions:
        text += (
            f"\n{result.corruptions} errors were found on the image.\n"
            "Data may be corrupted, or further writes to the image may corrupt it.\n"
        )
    if result.leaks:
        text += (
            f"\n{result.leaks} leaked clusters were found on the image.\n"
            "This means waste of disk space, but no harm to data.\n"
        )
    if result.check_errors:
        text += f"\n{result.check_errors} internal errors have occurred during the check.\n"
    total, allocated = result.total_clusters, result.allocated_clusters
    if total and allocated:
        text += (
            f"{allocated}/{total} = {allocated * 100.0 / total:.2f}% allocated, "
            f"{result.fragmented_clusters * 100.0 / allocated:.2f}% fragmented, "
            f"{result.compressed_clusters * 100.0 / allocated:.2f}% compressed clusters\n"
        )
    if result.image_end_offset:
        text += f"Image end offset: {result.image_end_offset}\n"
    return text


async def run(program: Program, argv: list[str]) -> int:
    """Check, repair with ``-r``, and then check again."""
    given: dict[str, str] = {}
    names = []
    for name, value in program.options(SYNTAX, argv):
        if name == "r" and value not in REPAIRS:
            raise BadRepair(value)
        if name:
            given[name] = value
        else:
            names.append(value)
    if len(names) != 1:
        raise OneImageExpected
    report = Report(program, names[0], is_json(given.get("output")))
    program.quiet = "q" in given
    cache = given.get("T", "writeback")
    if cache not in CACHE_MODES:
        raise BadSourceCache(cache)
    mode = Mode(write="r" in given, check=True, force_share="U" in given, cache=CACHE_MODES[cache])
    image = await program.open(names[0], given.get("f"), mode, image_opts="image-opts" in given)
    return await _check(image.node, REPAIRS.get(given.get("r", ""), Fix.NOTHING), report)


async def _check(node: Node[Any], fix: int, report: Report) -> int:
    result = await _result(node, fix)
    if result.corruptions_fixed or result.leaks_fixed:
        report.repaired(result)
        fixed = result
        result = await _result(node, Fix.NOTHING)
        result.corruptions_fixed = fixed.corruptions_fixed
        result.leaks_fixed = fixed.leaks_fixed
    report.found(result, node.driver)
    if result.check_errors:
        raise CheckFailed("")
    return CORRUPT if result.corruptions else LEAKS if result.leaks else GOOD


async def _result(node: Node[Any], fix: int) -> CheckResult:
    try:
        return await node.check(fix)
    except NotImplementedError as e:
        raise NoChecks from e
    except OSError as e:
        raise CheckFailed(f": {os.strerror(e.errno or errno.EIO)}") from e
