"""The files of the page at `/`: HTML, style sheets, ES modules and the vendored libraries, as they lie in `page/`.

Contract: only files that are listed at the start are served, each with its type and an ETag; a browser asks again each
time and receives 304 for what it has. The headers allow the page nothing but its own files and its own server: no
script in the text, no frame, no picture or request elsewhere, whatever a model writes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from wsd_local.server.errors import ApiError

FOLDER = Path(__file__).parent / "page"
VENDORED = FOLDER / "vendor"
MANIFEST = VENDORED / "manifest.json"

TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".json": "application/json",
}

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)
"""What the browser lets the page do (Content-Security-Policy)."""

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file with its type, and a tag that changes with its bytes."""

    content: bytes
    type: str
    tag: str


def files(folder: Path = FOLDER) -> dict[str, PageFile]:
    """All files of the page by their path below `folder`."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in TYPES:
            content = path.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[path.relative_to(folder).as_posix()] = PageFile(content, TYPES[path.suffix], tag)
    return found


def router() -> APIRouter:
    """The page at `/`, and its files under `/page/`."""
    made, known = APIRouter(include_in_schema=False), files()

    @made.get("/")
    def page(request: Request) -> Response:
        return _answer(request, known["index.html"])

    @made.get("/favicon.ico")
    def icon(request: Request) -> Response:
        return _answer(request, known["mark.svg"])

    @made.get("/page/{path:path}")
    def file(request: Request, path: str) -> Response:
        if path not in known:
            raise ApiError(404, "the page has no such file")
        return _answer(request, known[path])

    return made


def _answer(request: Request, file: PageFile) -> Response:
    headers = {**HEADERS, "ETag": file.tag}
    wanted = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if wanted & {file.tag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.type, headers=headers)
