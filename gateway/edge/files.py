"""Files that are served as they lie there: scripts, styles, pictures of the pages."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

# Said here: what mimetypes knows of .js depends on the machine, and under nosniff a wrong type is a dead page.
_CONTENT_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}


@dataclass(frozen=True, slots=True)
class File:
    body: bytes
    content_type: str
    etag: str


def load(paths: Iterable[Path], under: Path) -> dict[str, File]:
    """By name. Read once, at import: a request never touches the disk, and only what lies here can ever be served."""
    return {path.relative_to(under).as_posix(): _load(path) for path in paths if path.is_file()}


def _load(path: Path) -> File:
    body = path.read_bytes()
    return File(body, _CONTENT_TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:32])


def answer(request: web.Request, files: Mapping[str, File], security: Mapping[str, str]) -> web.StreamResponse:
    """What `{file}` of the path names. Revalidated by its ETag, not cached for ever under a hashed name: during an
    upgrade the page may come from a node of one version and its script from another's. `security`: headers of each."""
    file = files.get(request.match_info["file"])
    if file is None:
        raise web.HTTPNotFound(headers=security)
    # Looked for and not taken apart: the header may hold 6,000 tags, and no other tag holds one of ours.
    known = request.headers.get("If-None-Match", "")
    headers = {**security, "Cache-Control": "no-cache", "ETag": f'"{file.etag}"'}
    if file.etag in known or known == "*":
        return web.Response(status=304, headers=headers)
    return web.Response(body=file.body, headers=headers | {"Content-Type": file.content_type})
