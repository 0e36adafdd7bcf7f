"""The web server: MONAI Label's endpoints behind the gate; it only answers its own pages."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from monailabel import endpoints
from monailabel.config import settings
from monailabel.endpoints import login
from monailabel.endpoints.user.auth import get_current_user
from monailabel.interfaces.exception import MONAILabelException
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..support.errors import InputError
from .values import LONGEST_JSON, quoted

__all__ = ["build_server"]


def build_server(checks: Iterable[tuple[APIRouter, Callable[..., Any]]]) -> FastAPI:
    """Make a server with some of MONAI Label's endpoints, whose errors take one line.

    Args:
        checks: the groups of endpoints, each with a dependency that checks every request first.
    """
    server = FastAPI(title=settings.MONAI_LABEL_PROJECT_NAME, docs_url="/", redoc_url="/docs")
    prefix = settings.MONAI_LABEL_API_STR
    if settings.MONAI_LABEL_AUTH_ENABLE:
        server.include_router(login.router, prefix=prefix)
    for router, check in checks:
        server.include_router(router, prefix=prefix, dependencies=[Depends(get_current_user), Depends(check)])
    server.mount("/static", StaticFiles(directory=Path(endpoints.__file__).parent / "static"))
    origins = [str(origin).rstrip("/") for origin in settings.MONAI_LABEL_CORS_ORIGINS]
    server.add_middleware(
        CORSMiddleware, allow_origins=origins, allow_credentials=True, allow_methods=["*"], allow_headers=["*"]
    )
    server.add_middleware(Entrance, origins=origins)  # the outermost
    for kind in (InputError, MONAILabelException, HTTPException, RequestValidationError, Exception):
        server.add_exception_handler(kind, answer_error)
    return server


class Entrance:
    """Refuses requests from pages of other sites, requests that use another name for the server, and long ones.

    A browser sends the requests of any page, also to servers in its own network. It names the site of the page in
    ``Origin``, and the server in ``Host``; a page of another site may use its own name, which leads to this server.

    Args:
        app: the application to protect.
        origins: other sites whose pages may send requests, such as ``https://viewer.example:3000``; their names are
            also accepted as names of the server.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str] = ()) -> None:
        self.app = app
        self.origins = origins
        own = socket.gethostname().lower()
        self.names = {"localhost", own, f"{own}.local", *(urlsplit(origin).hostname for origin in origins)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = None
        if scope["type"] == "http":
            answer = self.refuse(scope)
            if not _has_files(scope):
                receive = limited(receive, LONGEST_JSON)
        await (answer or self.app)(scope, receive, send)

    def refuse(self, scope: Scope) -> JSONResponse | None:
        """Return the answer to a request that is refused, or None if it may pass."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        allowed = "expected the server's own, or one in MONAI_LABEL_CORS_ORIGINS."
        if not self._is_own(host):
            return _answer(f"the host is {quoted(host)}: {allowed}", 403)
        if origin is not None and origin not in self.origins and origin.partition("://")[2] != host:
            return _answer(f"the origin is {quoted(origin)}: {allowed}", 403)
        address = scope["path"] + unquote(scope["query_string"].decode("latin-1"))
        if not address.isprintable():
            return _answer(f"the address is {quoted(address)}: expected characters that can be printed.", 400)
        return None

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self.names or bool(ip_address(name))
        except ValueError:
            return False


def _has_files(scope: Scope) -> bool:
    """Whether the parts of a request go to the disk; other endpoints read the whole of it."""
    form = Headers(scope=scope).get("content-type", "").lower().startswith("multipart/form-data")
    return form and (scope["method"] == "PUT" or scope["path"].startswith(f"{settings.MONAI_LABEL_API_STR}/infer/"))


def limited(receive: Receive, most: int) -> Receive:
    """Receive a body in its parts, and no more than this many bytes."""
    left = most

    async def receive_part() -> Message:
        nonlocal left
        part = await receive()
        left -= len(part.get("body", b""))
        if left < 0:
            raise HTTPException(413, f"the request has more than {most} bytes: expected fewer, apart from files.")
        return part

    return receive_part


async def answer_error(request: Request, error: Exception) -> JSONResponse:
    """Answer with the message of an error as JSON, in one line: 4xx for a bad request, 500 for a defect."""
    if isinstance(error, RequestValidationError):
        faults = [f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors()]
        return _answer("; ".join(faults), 422)
    if isinstance(error, HTTPException):
        status = 400 if error.status_code == 500 else error.status_code  # MONAI Label uses 500 if a request has no file
        return _answer(str(error.detail), status, error.headers)
    if isinstance(error, InputError):
        return _answer(str(error), 400)
    if isinstance(error, MONAILabelException):
        return _answer(error.msg, 404 if "not found" in error.msg else 400)
    return _answer(f"a defect of the server, see its log: {type(error).__name__}: {error}", 500)


def _answer(detail: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    line = " ".join(detail.split()).encode("utf-8", "replace").decode()
    return JSONResponse({"detail": line}, status, headers)
