"""Where sockets of files are, which kernels and the run's warm process are spoken to by."""

import os
import tempfile


def folder(prefix: str) -> tempfile.TemporaryDirectory:
    """A temporary folder with a path that leaves room for a socket's name: on some systems both have 104 characters."""
    place = "/tmp" if os.name != "nt" and len(tempfile.gettempdir()) > 75 else None
    return tempfile.TemporaryDirectory(prefix=prefix, dir=place)
