"""GraDIRN, a MONAI bundle for deformable registration of medical images."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .support.bundle import BUNDLE_ROOT
from .support.errors import InputError

if TYPE_CHECKING:
    from .networks import GraDIRN, load_weights
    from .registration import RegisterImaged, Registration

__all__ = ["BUNDLE_ROOT", "GraDIRN", "InputError", "RegisterImaged", "Registration", "load_weights"]

_HOMES = {
    "GraDIRN": "networks",
    "load_weights": "networks",
    "RegisterImaged": "registration",
    "Registration": "registration",
}


def __getattr__(name: str) -> Any:
    """Import only the requested name, because the commands need nothing but ``BUNDLE_ROOT``."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
