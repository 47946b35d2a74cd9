"""JSON bodies of requests: bounded, strict, and of known shape; and JSON answers."""

from __future__ import annotations

import math
from typing import Annotated, Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vltrack.core.errors import DataError, VltrackError
from vltrack.core.json_io import parse_json

Number = Annotated[float, Field(ge=-1e7, le=1e7, allow_inf_nan=False)]
Index = Annotated[int, Field(ge=0, le=10**9)]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Body(BaseModel):
    """Base of all bodies: no other keys, no conversions."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NewVideo(Body):
    """A video that will be uploaded."""

    name: Annotated[str, Field(max_length=1024)]
    size: Annotated[int, Field(ge=1)]


class OpenClip(Body):
    """A clip that ships."""

    clip: Annotated[str, Field(max_length=64)]


class Ask(Body):
    """A sentence at a frame."""

    frame: Index
    text: Annotated[str, Field(max_length=1 << 13)]


class Mark(Body):
    """What a person says about a target at a frame."""

    frame: Index
    box: Annotated[list[Number], Field(min_length=4, max_length=4)] | None = None
    text: Annotated[str, Field(max_length=1 << 13)] | None = None
    absent: bool = False


class MarkEdit(Body):
    """A correction: the right box, that the target is not there, or a mark that is taken back."""

    frame: Index
    box: Annotated[list[Number], Field(min_length=4, max_length=4)] | None = None
    absent: bool = False
    remove: bool = False


class NewTarget(Body):
    """A target by its first mark."""

    start: Mark
    name: Annotated[str, Field(max_length=256)] = ""


class Rename(Body):
    """A name."""

    name: Annotated[str, Field(min_length=1, max_length=256)]


class Run(Body):
    """Targets to track."""

    targets: Annotated[list[Key], Field(min_length=1, max_length=16)]
    model: Annotated[str, Field(max_length=64)] = ""


class Export(Body):
    """A file to make."""

    targets: Annotated[list[Key], Field(min_length=1, max_length=16)]
    format: Annotated[str, Field(max_length=32)]


class Login(Body):
    """The token."""

    token: Annotated[str, Field(max_length=512)]


class Refused(VltrackError):
    """A request that is refused with an HTTP status."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


B = TypeVar("B", bound=Body)


async def read_body(request: Request, kind: type[B], most: int) -> B:
    """Return the body of a request.

    Raises:
        Refused: it is not JSON by its type (415), too large (413), not strict JSON (400), or of another shape (422).
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "The request is not JSON.", "Send Content-Type: application/json.")
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > most:
            raise Refused(413, f"The request is larger than {most} bytes.", "Send less.")
    try:
        value = parse_json(data.decode("utf-8"), "The request")
    except UnicodeDecodeError as error:
        raise Refused(400, "The request is not UTF-8 text.", "Send UTF-8.") from error
    except DataError as error:
        raise Refused(400, error.message, "Send strict JSON.") from error
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"]) or "The request"
        raise Refused(422, f"{where}: {first['msg']}.", "Reload the page.") from error


def answer(value: Any, status: int = 200) -> JSONResponse:
    """Return JSON; numbers that JSON does not have become null."""
    return JSONResponse(_finite(value), status)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
