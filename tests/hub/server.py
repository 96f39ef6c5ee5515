"""A small hub on this machine's loopback: enough of its interface for the hub's own client.

Answers to what the client asks: facts of a repository, its tree, and its files with the headers
by which the cache is laid out. Refusals carry the header that makes the client raise the real
exceptions.
"""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/(revision|tree|auth-check)/?([^?]*)")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repo:
    """A repository: its files, and the commits that its revisions stand for."""

    folder: Path | None
    revisions: dict[str, str]
    gated: bool = False
    card: dict[str, Any] = field(default_factory=dict)


class LocalHub:
    """Serves `repos`, keyed by (kind, name) with kind 'models' or 'datasets'."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.asked: list[str] = []
        self.broken = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                """Nothing on the terminal."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlparse(request.path).path)
        self.asked.append(path)
        api, file = _API.fullmatch(path), _FILE.fullmatch(path)
        kind, name, what, revision = ("", "", "", "")
        if api:
            kind, name, what, revision = api.groups()
        elif file:
            kind, name, what, revision = "datasets" if file[1] else "models", file[2], "", file[3]
        repo = self.repos.get((kind, name))
        refusal = self._refusal(repo, what, revision)
        if refusal or repo is None:
            status, code = refusal or (404, "EntryNotFound")
            self._send(request, status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})
        elif file:
            self._file(request, repo, repo.revisions.get(revision, revision), file[4])
        else:
            content = self._facts(name, what, repo, repo.revisions.get(revision, revision))
            headers = {"Content-Type": "application/json"}
            self._send(request, 200, json.dumps(content).encode(), headers)

    def _refusal(self, repo: Repo | None, what: str, revision: str) -> tuple[int, str] | None:
        if self.broken:
            return 503, ""
        if repo is None:
            return 401, "RepoNotFound"
        if repo.gated and what in ("", "auth-check"):
            return 403, "GatedRepo"
        known = {*repo.revisions, *repo.revisions.values()}
        return None if what == "auth-check" or revision in known else (404, "RevisionNotFound")

    def _facts(self, name: str, what: str, repo: Repo, commit: str) -> Any:
        files = [] if repo.folder is None else sorted(repo.folder.rglob("*"))
        names = {f.relative_to(repo.folder).as_posix(): f for f in files if f.is_file()}
        if what == "tree":
            return [
                {"type": "file", "path": path, "size": file.stat().st_size, "oid": _sha(file)}
                for path, file in names.items()
            ]
        return {
            "id": name,
            "sha": commit,
            "gated": "manual" if repo.gated else False,
            "private": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "cardData": repo.card,
            "siblings": [{"rfilename": path} for path in names],
        }

    def _file(self, request: Any, repo: Repo, commit: str, name: str) -> None:
        file = repo.folder / name if repo.folder else None
        if file is None or not file.is_file():
            return self._send(request, 404, b"{}", {"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_sha(file)}"'}
        self._send(request, 200, file.read_bytes(), headers)

    def _send(self, request: Any, status: int, body: bytes, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


def _sha(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
