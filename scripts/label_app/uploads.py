"""The files that clients upload, in a separate folder."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

from monailabel.config import settings
from monailabel.utils.sessions import Sessions

from ..support.files import PARTIAL, remove_debris

__all__ = ["Uploads"]


class Uploads:
    """A temporary folder for the files of requests; it is removed when the process ends.

    MONAI Label would write uploads to the temporary folder of the system, which has files of other programs, too.

    Args:
        studies: where to make the folder; without it, in that of the system.

    Attributes:
        sessions: uploads that are kept for some time; in ``MONAI_LABEL_SESSION_PATH``, if it is set.
    """

    def __init__(self, studies: Path | None = None) -> None:
        if studies is not None:
            remove_debris(studies)
        self.folder = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=studies)).resolve()
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        tempfile.tempdir = str(self.folder)
        path = settings.MONAI_LABEL_SESSION_PATH or str(self.folder / "sessions")
        self.sessions = Sessions(path, settings.MONAI_LABEL_SESSION_EXPIRY)

    def __contains__(self, name: object) -> bool:
        file, kept = Path(str(name)).resolve(), Path(self.sessions.store_path).resolve()
        return file.is_file() and any(file.is_relative_to(folder) for folder in (self.folder, kept))

    def remove(self, *names: object) -> None:
        """Remove the files among these that were uploaded for one request only."""
        for file in (Path(str(name)).resolve() for name in names):
            if file.parent == self.folder:
                file.unlink(missing_ok=True)
