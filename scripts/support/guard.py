"""Ends a command before MONAI runs an import statement in a name that the user wrote.

MONAI executes every text that begins with ``$`` and is an import statement before it evaluates the first expression of
``run``, where other names are made safe (:func:`scripts.support.command_line.prepare`). It does so in the order of the
configuration: so each one imports this module first.
"""

from __future__ import annotations

import sys

from .command_line import is_bundle_command, refuse_imports
from .errors import InputError

__all__: list[str] = []

if is_bundle_command():
    try:
        refuse_imports(sys.argv[2:])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)  # MONAI takes no notice of exceptions of an import, but of this one
