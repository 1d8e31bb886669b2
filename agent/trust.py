"""Whom the agent trusts at the control plane's API: a file that may come late and may change, as a ConfigMap's does."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from hairpin.errors import UnavailableError

log = logging.getLogger(__name__)


class Trust:
    """The TLS context of a file of certificates, made anew when its content changed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._content = ""
        self._problem = ""
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """The context for the next connection. A file that can't be used any more leaves the last one.

        Raises:
            UnavailableError: there was no file that can be used yet.
        """
        try:
            content = self._file.read_text()
            if content != self._content or self._context is None:
                context = ssl.create_default_context(cadata=content)
                if not content.strip():
                    raise ValueError("it is empty")  # noqa: TRY301 # such a context trusts the system's authorities
                self._content, self._context = content, context
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            problem = f"controlPlane.authority: {self._file} can't be used: {error}"
            if self._context is None:
                raise UnavailableError(problem) from error
            if problem != self._problem:
                log.warning("%s; what it held before is trusted on", problem)
            self._problem = problem
        return self._context
