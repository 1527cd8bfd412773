"""The algorithms by name, for ``Config(congestion_control=...)``."""

from __future__ import annotations

from collections.abc import Callable

from utcp.core.congestion.control import CongestionControl
from utcp.core.congestion.cubic import Cubic
from utcp.core.congestion.newreno import NewReno

# Called with the segment size and the window so far, in bytes; a class derived from CongestionControl is one
Factory = Callable[[int, int], CongestionControl]

_by_name: dict[str, Factory] = {"cubic": Cubic, "reno": NewReno}


def register(name: str, factory: Factory) -> None:
    """Make ``factory`` known under ``name``. Raises ValueError if the name is taken by another one."""
    if not callable(factory):
        raise TypeError(f"factory: {factory!r} is not callable")
    if _by_name.setdefault(name, factory) is not factory:
        raise ValueError(f"name: {name!r} is taken")


def name_of(choice: object) -> str:
    """What a Config's ``congestion_control`` is called: the name it was chosen by, or the class's or function's own."""
    return choice if isinstance(choice, str) else str(getattr(choice, "__name__", type(choice).__name__))


def factory_of(choice: object) -> Factory:
    """What a Config's ``congestion_control`` stands for. Raises ValueError for an unknown name, TypeError."""
    if isinstance(choice, str):
        found = _by_name.get(choice)
        if found is None:
            raise ValueError(f"congestion_control: {choice!r} is not one of {', '.join(sorted(_by_name))}")
        return found
    if not callable(choice) or choice.__hash__ is None:  # equal configs share what is made of them
        raise TypeError(f"congestion_control: {choice!r} is neither a name nor a (hashable) factory")
    return choice
