"""Uploads: the raw bytes of a video, counted as they come, and resumed at the byte where they broke off."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from vltrack.core.errors import ResourceError
from vltrack.core.files import as_resource_error, sha256_of
from vltrack.serve.bodies import Refused
from vltrack.serve.settings import Settings
from vltrack.serve.store import Store

_PIECE = 1 << 20
_CHECKED = 64 << 20
"""Bytes between two looks at the free space of the disk."""
_SLOW_AFTER = 15.0
"""Seconds in which an upload may be slow."""


class Uploads:
    """Uploads in progress: one request at a time for each video."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings
        self._busy: set[str] = set()

    def check_size(self, size: int) -> None:
        """Raise ``Refused`` (413) or ``ResourceError`` for a video that is too large for the limit or the disk."""
        if size > self._settings.max_upload:
            raise Refused(413, f"The video has more than {self._settings.max_upload:,} bytes.", "Open it by its path.")
        self._check_room(size)

    def _check_room(self, more: int) -> None:
        if self._store.room() - more < self._settings.reserve:
            raise ResourceError("The disk of the media folder is nearly full.", hint="Remove videos, or free space.")

    def received(self, key: str) -> int:
        """Bytes of a video that are there."""
        with suppress(OSError):
            return self._store.upload_path(key).stat().st_size
        return 0

    async def receive(self, request: Request, video: dict[str, Any], sha256: str = "") -> bool:
        """Append the body of a request to the video's file; return whether it is complete.

        Args:
            request, video: the request, and the row of its video.
            sha256: of the whole file in hex digits, compared where this request completes it; "" compares nothing.

        Raises:
            Refused: another offset than the file's (409), more bytes than announced (413), too slow (408), or another
                sha256 (422). The file is removed unless the offset was wrong.
            ResourceError: the disk is full; the file is removed.
            ClientDisconnect: the request broke off; what came is kept.
        """
        key, path = video["id"], self._store.upload_path(video["id"])
        offset = request.headers.get("upload-offset", "0")
        if not offset.isascii() or not offset.isdigit():
            raise Refused(400, "Upload-Offset is not a number of bytes.", "Send how many bytes are there.")
        if sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
            raise Refused(400, "sha256 is not 64 digits from 0 to f.", "Send the digest in lower case, or none.")
        if video["state"] != "uploading" or key in self._busy or int(offset) != self.received(key):
            raise Refused(409, "The upload is at another place, or in progress.", "Ask how many bytes are there.")
        self._busy.add(key)
        try:
            with path.open("ab") as file:
                count = await self._copy(request, file, int(offset), video["size"])
            complete = bool(count == video["size"])
            if complete and sha256 and await run_in_threadpool(sha256_of, path) != sha256:
                raise Refused(422, "The bytes that came are not those of the video: sha256 differs.", "Send it again.")
            return complete
        except (Refused, ResourceError):
            path.unlink(missing_ok=True)
            raise
        except OSError as error:
            path.unlink(missing_ok=True)
            full = as_resource_error(error, Path(video["name"]))
            raise ResourceError(full.message, hint="Remove videos or free space, and send it again.") from error
        finally:
            self._busy.discard(key)

    async def _copy(self, request: Request, file: Any, count: int, size: int) -> int:
        began, start, checked = time.monotonic(), count, count
        pieces = bytearray()
        stream: AsyncIterator[bytes] = request.stream()
        try:
            while True:
                try:
                    piece = await asyncio.wait_for(anext(stream), self._settings.idle_s)
                except StopAsyncIteration:
                    return count
                except TimeoutError:
                    raise Refused(408, "The upload stopped.", "Send the video again.") from None
                count += len(piece)
                if count > size:
                    raise Refused(413, f"More than the announced {size:,} bytes came.", "Send the video again.")
                seconds = time.monotonic() - began
                if seconds > _SLOW_AFTER and (count - start) / seconds < self._settings.slowest:
                    raise Refused(408, "The upload is too slow.", "Send the video again, or open it by its path.")
                pieces += piece
                if len(pieces) >= _PIECE:
                    await run_in_threadpool(file.write, bytes(pieces))
                    pieces.clear()
                if count - checked >= _CHECKED:
                    checked = count
                    self._check_room(0)
        except ClientDisconnect:
            return count
        finally:
            file.write(bytes(pieces))
