"""Logging: structlog on standard error, set up when the first line is due.

structlog costs a tenth of our start-up, so ``Log`` keeps its import for the first line that the
level lets through.
"""

import logging
import sys
from typing import Any, Final

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
FORMATS: Final = ("console", "json")


class Log:
    """A logger with a level; ``log.info("connected", monitor="m0")``."""

    def __init__(self, level: str = "warning", format: str = "console") -> None:
        self.level = LEVELS[level]
        self._format = format
        self._logger: Any = None

    def enabled(self, level: str) -> bool:
        """Tell whether lines of a level are written."""
        return LEVELS[level] >= self.level

    def write(self, level: str, event: str, **values: Any) -> None:
        """Write a line, if the level lets it through."""
        if not self.enabled(level):
            return
        if self._logger is None:
            self._logger = self._configure()
        getattr(self._logger, level)(event, **values)

    def debug(self, event: str, **values: Any) -> None:
        """Write what only a developer wants to see."""
        self.write("debug", event, **values)

    def info(self, event: str, **values: Any) -> None:
        """Write what happens seldom."""
        self.write("info", event, **values)

    def warning(self, event: str, **values: Any) -> None:
        """Write what should not be."""
        self.write("warning", event, **values)

    def error(self, event: str, **values: Any) -> None:
        """Write what went wrong."""
        self.write("error", event, **values)

    def _configure(self) -> Any:
        import structlog  # start-up

        last: Any = (
            structlog.processors.JSONRenderer()
            if self._format == "json"
            else structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        )
        trace: list[Any] = [structlog.processors.format_exc_info] if self._format == "json" else []
        return structlog.wrap_logger(
            structlog.PrintLogger(sys.stderr),
            wrapper_class=structlog.make_filtering_bound_logger(self.level),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso"),
                *trace,
                last,
            ],
        )
