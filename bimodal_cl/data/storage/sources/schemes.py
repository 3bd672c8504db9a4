"""Open the source of a location by its scheme. A new scheme adds a class like these and a line here."""

from __future__ import annotations

from bimodal_cl.data.storage.locations import is_pipe
from bimodal_cl.data.storage.sources.command import CommandSource
from bimodal_cl.data.storage.sources.file_system import FileSystemSource
from bimodal_cl.data.storage.sources.source import Source


def open_source(location: str, timeout: float) -> Source:
    """Open the source that a location names, without a request yet. It belongs to the process that opens it.

    Args:
        location: a URL or a ``pipe:COMMAND``.
        timeout: seconds without a byte after which an attempt has failed (HTTP).

    Raises:
        UserError: no scheme here can read such a location.
    """
    if is_pipe(location):
        return CommandSource(location)
    if location.lower().startswith(("http://", "https://")):
        from bimodal_cl.data.storage.sources.http import HttpSource  # its libraries take long to import

        return HttpSource(location, timeout)
    return FileSystemSource(location)
