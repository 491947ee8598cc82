"""The page and its JSON API, as a Starlette application. `static/openapi.json` describes it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ucadi.events import Events
from ucadi.labels import LABELS
from ucadi.web.gate import COOKIE, DOCUMENT_POLICY, Access, Gate
from ucadi.web.jobs import FullError, Job, Queue
from ucadi.web.reference import reference_page
from ucadi.web.runner import Runner, short
from ucadi.web.settings import MAX_FILES, Settings
from ucadi.web.uploads import Uploads

STATIC = Path(__file__).parent / "static"

_RESULTS = {
    "result.json": "application/json",
    "report.html": "text/html; charset=utf-8",
    "quality.html": "text/html; charset=utf-8",
    "ct.nii.gz": "application/gzip",
    "heatmap.nii.gz": "application/gzip",
    "overlay.nii.gz": "application/gzip",
    "heatmap-dicom.zip": "application/zip",
    "montage.png": "image/png",
}
"""The files of a job that is done, by their media types; no other is ever sent."""

_PROGRESS = ("step", "steps", "name")
"""What a worker says of a job under way."""

_SIGN_IN_BYTES = 4096
_SIGN_IN_SECONDS = 1.0

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
"""What a form on another site could send without asking first."""


class Page:
    """The handlers, by what they need: the queue, the runner, the uploads."""

    def __init__(
        self, settings: Settings, queue: Queue, runner: Runner, access: Access, service: dict[str, Any], tell: Events
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._runner = runner
        self._access = access
        self._service = service
        self._tell = tell
        self._uploads = Uploads(settings.upload_bytes)

    def application(self) -> Starlette:
        """The application, behind its gate."""
        routes = [
            Route("/", self.index),
            Route("/sign-in", self.sign_in_form),
            Route("/sign-in", self.sign_in, methods=["POST"]),
            Route("/sign-out", self.sign_out, methods=["POST"]),
            Route("/api", self.reference),
            Route("/api/openapi.json", self.openapi),
            Route("/api/service", self.service),
            Route("/api/jobs", self.create, methods=["POST"]),
            Route("/api/jobs/{job}", self.show),
            Route("/api/jobs/{job}", self.remove, methods=["DELETE"]),
            Route("/api/jobs/{job}/files/{number:int}", self.receive, methods=["PUT"]),
            Route("/api/jobs/{job}/start", self.start, methods=["POST"]),
            Route("/api/jobs/{job}/results/{name}", self.result),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        return Starlette(
            routes=routes,
            middleware=[Middleware(Gate, access=self._access, tell=self._tell)],
            exception_handlers={HTTPException: _refused, sqlite3.OperationalError: _no_queue},
            lifespan=self._alive,
        )

    @asynccontextmanager
    async def _alive(self, _: Starlette) -> AsyncIterator[None]:
        running = asyncio.create_task(self._runner.run())
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    # pages

    async def index(self, _: Request) -> Response:
        """The page."""
        return FileResponse(STATIC / "index.html")

    async def sign_in_form(self, _: Request) -> Response:
        """The form that takes the token."""
        return FileResponse(STATIC / "sign-in.html")

    async def sign_in(self, request: Request) -> Response:
        """Takes the token, and gives the cookie that stands for it."""
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > _SIGN_IN_BYTES:
                raise HTTPException(413, "too much for a token")
        token = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0].strip()
        if not self._access.knows(token):
            await asyncio.sleep(_SIGN_IN_SECONDS)
            return RedirectResponse("/sign-in?refused", status_code=303)
        response = RedirectResponse("/", status_code=303)
        secure = request.headers.get("origin", "").startswith("https://")
        response.set_cookie(COOKIE, self._access.cookie, httponly=True, samesite="strict", secure=secure)
        return response

    async def sign_out(self, _: Request) -> Response:
        """Takes the cookie back."""
        response = RedirectResponse("/sign-in", status_code=303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    async def reference(self, _: Request) -> Response:
        """The API's reference, for people."""
        return HTMLResponse(reference_page(_openapi()))

    # the API

    async def openapi(self, _: Request) -> Response:
        """The API's description, for programs."""
        return JSONResponse(_openapi())

    async def service(self, _: Request) -> Response:
        """The model, and the limits."""
        return JSONResponse(self._service)

    async def create(self, request: Request) -> Response:
        """A new job. With a body, that is its only file, and the job waits for its turn at once."""
        _no_form(request)
        diagnosis = request.query_params.get("diagnosis", "")
        if diagnosis and diagnosis not in LABELS:
            raise HTTPException(400, f"unknown diagnosis; it is one of {', '.join(LABELS)}")
        try:
            job = self._queue.add(request.scope["owner"], diagnosis)
        except FullError:
            raise HTTPException(503, "too many jobs wait", headers={"retry-after": "60"}) from None
        self._settings.uploads(job.id).mkdir(parents=True, mode=0o700)
        try:
            if await self._uploads.receive(request, job.id, self._settings.uploads(job.id), 0):
                self._enqueue(job)
            else:
                (self._settings.uploads(job.id) / "00000").unlink()
        except BaseException:
            self._uploads.forget(job.id)
            await self._runner.remove(job.id)
            raise
        self._tell("new", {"job": short(job.id)})
        return JSONResponse(self._shown(self._found(job.id)), 201, headers={"location": f"/api/jobs/{job.id}"})

    async def receive(self, request: Request) -> Response:
        """One file of a job."""
        _no_form(request)
        job = self._job(request)
        if job.state != "receiving":
            raise HTTPException(409, "the job has begun")
        await self._uploads.receive(
            request, job.id, self._settings.uploads(job.id), request.path_params["number"]
        )  # fmt: skip
        self._queue.touch(job.id)
        return Response(status_code=204)

    async def start(self, request: Request) -> Response:
        """All files are here: the job waits for its turn."""
        job = self._job(request)
        if job.state == "receiving":
            names = [file.suffix for file in self._settings.uploads(job.id).iterdir()]
            if ".part" in names or not names:
                raise HTTPException(409, "a file is under way" if names else "no file is here yet")
            self._enqueue(job)
        return JSONResponse(self._shown(self._found(job.id)), 202)

    async def show(self, request: Request) -> Response:
        """How a job goes."""
        return JSONResponse(self._shown(self._job(request)))

    async def remove(self, request: Request) -> Response:
        """Ends a job and removes all of it."""
        job = self._job(request)
        self._uploads.forget(job.id)
        await self._runner.remove(job.id)
        return Response(status_code=204)

    async def result(self, request: Request) -> Response:
        """A file of the results."""
        job, name = self._job(request), request.path_params["name"]
        if name not in self._results(job):
            raise HTTPException(404, "no such result")
        response = FileResponse(self._settings.results(job.id) / name, media_type=_RESULTS[name])
        response.headers["content-security-policy"] = DOCUMENT_POLICY
        if "download" in request.query_params:
            response.headers["content-disposition"] = f'attachment; filename="{name}"'
        return response

    # what they share

    def _enqueue(self, job: Job) -> None:
        self._queue.enqueue(job.id)
        self._uploads.forget(job.id)
        self._runner.ring()
        self._tell("queued", {"job": short(job.id)})

    def _job(self, request: Request) -> Job:
        """The job that a request names. Another's is as unknown as one that never was."""
        job = self._found(request.path_params["job"])
        if job.owner != request.scope["owner"]:
            raise HTTPException(404, "no such job")
        return job

    def _found(self, identifier: str) -> Job:
        job = self._queue.find(identifier)
        if job is None:
            raise HTTPException(404, "no such job")
        return job

    def _results(self, job: Job) -> list[str]:
        """Names of the results that may be had: all of a job that is done, of one that failed the quality report."""
        over = {"done": list(_RESULTS), "failed": ["quality.html"]}
        paths = [self._settings.results(job.id) / name for name in over.get(job.state, [])]
        return [path.name for path in paths if path.is_file() and not path.is_symlink()]

    def _shown(self, job: Job) -> dict[str, Any]:
        shown: dict[str, Any] = {"id": job.id, "state": job.state}
        if job.state == "queued":
            shown["ahead"] = self._queue.ahead(job)
        if job.state == "running":
            shown |= {name: value for name, value in self._runner.progress(job.id).items() if name in _PROGRESS}
        if job.state == "failed":
            shown |= {"error": job.error, "hint": job.hint}
        if job.state in ("done", "failed"):
            shown["expires"] = int(job.changed + self._settings.keep_seconds)
            shown["results"] = self._results(job)
        return shown


def _no_form(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _FORMS:
        raise HTTPException(415, "send the file itself, as application/octet-stream")


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "no other is registered for it"
    return JSONResponse({"error": error.detail, "hint": ""}, error.status_code, headers=error.headers)


def _no_queue(_: Request, __: Exception) -> Response:
    """The disk is full, or another program holds the file: both pass."""
    said = {"error": "the queue cannot be written just now", "hint": "is the server's disk full?"}
    return JSONResponse(said, 503, headers={"retry-after": "60"})


def _openapi() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((STATIC / "openapi.json").read_text(encoding="utf-8"))
    return document


def limits(settings: Settings) -> dict[str, Any]:
    """What a client should know before it sends."""
    return {
        "upload_bytes": settings.upload_bytes,
        "files": MAX_FILES,
        "seconds": settings.seconds,
        "keep_seconds": settings.keep_seconds,
        "least_slices": settings.min_slices,
    }
