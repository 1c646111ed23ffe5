"""What others' modules bring along is executed when it is used, not when it is imported.

``import asyncio`` brings TLS, the inspection of source code and the formatting of tracebacks;
``import numpy`` brings linear algebra, type hints and the docstrings of all it can do.  That took
more than half of a run of ``blockemu-img info``.  ``install`` has the modules of ``LATE`` made
empty: the first name that is looked up in one executes it, in place.  Nobody sees a difference but
in time and in ``sys.modules``.  numpy in particular gives out what is in its core, and is executed
as a whole for anything else; what its core says of its functions to who reads documentation is cut
short.

A module that is otherwise in another version of Python or numpy is imported as ever: at worst this
saves nothing.  Only our programs do so, first of all (``programs.process.prepare``); who imports
``blockemu`` keeps the imports they have.  ``make bench`` measures it: start-up, images.
"""

import sys
from _thread import RLock
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, Final

# Who imports them uses them in functions only.
LATE: Final = frozenset(
    {
        "ast",  # inspect, numpy
        "asyncio.sslproto",
        "asyncio.staggered",  # asyncio, for servers with several addresses
        "asyncio.trsock",
        "base64",  # ssl
        "ctypes",  # numpy
        "hashlib",
        "ipaddress",
        "inspect",  # dataclasses, asyncio
        "linecache",  # traceback
        "locale",  # subprocess
        "numpy",
        "numpy._core._add_newdocs",
        "numpy._core._add_newdocs_scalars",
        "numpy._core._dtype_ctypes",
        "numpy._core._internal",
        "numpy.lib",
        "pickle",  # numpy
        "platform",  # numpy
        "ssl",  # asyncio
        "textwrap",  # traceback
        "tokenize",  # linecache
        "urllib.parse",
        "uuid",
    }
)
# What some who import them do without if it is not there.
_NEEDS: Final = {"ctypes": "_ctypes", "ssl": "_ssl"}

# Versions of numpy that are known to be so, and where they have what we use: in ``numpy._core``,
# but for these.  What is not among this is looked for in numpy as a whole.
_NUMPY_VERSIONS: Final = ("2.0", "2.1", "2.2", "2.3", "2.4")
_OVERRIDES: Final = "numpy._core.overrides"
_NUMPY: Final[Mapping[str, str]] = {
    "_CopyMode": "numpy._globals",
    "_NoValue": "numpy._globals",
    "append": "numpy.lib._function_base_impl",
    "bincount": "numpy._core.multiarray",
    "broadcast_to": "numpy.lib._stride_tricks_impl",
    "delete": "numpy.lib._function_base_impl",
    "diff": "numpy.lib._function_base_impl",
    "insert": "numpy.lib._function_base_impl",
    "isin": "numpy.lib._arraysetops_impl",
    "iterable": "numpy.lib._function_base_impl",
    "packbits": "numpy._core.multiarray",
    "unique": "numpy.lib._arraysetops_impl",
    "unpackbits": "numpy._core.multiarray",
}


class _Late(ModuleType):
    """A module that is executed when something is first looked up in it."""

    def __getattr__(self, name: str) -> Any:
        _execute(self)
        return getattr(self, name)

    def __dir__(self) -> list[str]:
        _execute(self)
        return dir(self)


class _Matrix:
    """In place of ``numpy.matrix``, of which there are none while numpy is not executed."""


class _LateNumpy(_Late):
    """numpy: what it is asked for is taken from its core as long as that has it."""

    def __getattr__(self, name: str) -> Any:
        part = sys.modules.get(f"numpy.{name}")
        if part is not None:  # it is named in numpy when it is complete
            return part
        if name == "matrix":
            return _Matrix
        place = _place(name)
        if place is None:
            return super().__getattr__(name)
        value = self.__dict__[name] = getattr(import_module(place), name)
        return value


class _Loader(SourceFileLoader):
    """Leaves a module empty until it is used."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name, path)
        self.lock = RLock()
        self.executing = False

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _LateNumpy if module.__name__ == "numpy" else _Late

    def execute(self, module: ModuleType) -> None:
        """Fill the module."""
        empty = dict(vars(module))
        self.executing = True
        try:
            super().exec_module(module)
        except BaseException:
            vars(module).clear()
            vars(module).update(empty)
            raise
        finally:
            self.executing = False
        module.__class__ = ModuleType


class _Undocumented:
    """In place of ``inspect`` where numpy has it look through the documentation of functions."""

    @staticmethod
    def cleandoc(text: str) -> str:
        """Leave a docstring as it is."""
        return text

    @staticmethod
    def signature(function: object) -> None:
        """Do not look for a signature."""


class _OverridesLoader(SourceFileLoader):
    """Loads ``numpy._core.overrides``, by which numpy wraps, and documents, its functions."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        vars(module)["inspect"] = _Undocumented


def _execute(module: ModuleType) -> None:
    """Execute a module, unless another thread just did."""
    loader = module.__loader__
    assert isinstance(loader, _Loader)
    with loader.lock:
        if loader.executing:  # by this thread: what it looks for may come later, or never
            raise AttributeError(f"module {module.__name__!r} has no attribute so far")
        if isinstance(module, _Late):
            loader.execute(module)


def _place(name: str) -> str | None:
    """Return the module that has a name of numpy's; None if numpy must be executed to know."""
    if not _numpy_is_known():
        return None
    if name in _NUMPY:
        return _NUMPY[name]
    # Of a core that is not complete, which asks for it itself, that raises AttributeError: it
    # copes, since numpy as a whole begins with it, too.
    return "numpy._core" if name in import_module("numpy._core").__all__ else None


def _numpy_is_known() -> bool:
    version: str = import_module("numpy.version").short_version
    return version.startswith(tuple(f"{known}." for known in _NUMPY_VERSIONS))


class _Finder:
    """Finds the modules of ``LATE``."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        kind = _OverridesLoader if name == _OVERRIDES else _Loader
        if name not in LATE and not (name == _OVERRIDES and _numpy_is_known()):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return None
        if name in _NEEDS and PathFinder.find_spec(_NEEDS[name]) is None:
            return None
        spec.loader = kind(name, spec.loader.path)
        return spec


def install() -> None:
    """Have the modules of ``LATE`` that are not yet imported executed late."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
