"""A stand-in for the Hugging Face hub on this machine: repositories, commits and downloads."""

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub(ThreadingHTTPServer):
    """Keeps the commits of each repository: its files by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.token = "hf_stand_in"  # any other is refused, as by the hub

    def revision(self, repo: str, name: str) -> tuple[str, dict[str, bytes]] | None:
        """Id and files of "main" or of a commit's id, which tells its number."""
        commits = self.commits.get(repo, [])
        ids = [hashlib.sha1(f"{repo} {number}".encode()).hexdigest() for number in range(len(commits))]
        found = {**dict(zip(ids, commits, strict=True)), **({"main": commits[-1]} if commits else {})}
        return None if name not in found else (ids[-1] if name == "main" else name, found[name])


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, content: bytes = b"{}", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def _missing(self, code: str) -> None:
        self._answer(404, X_Error_Code=code, X_Error_Message=f"{code} here")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _knows_who_asks(self) -> bool:
        if self.headers.get("Authorization", "").removeprefix("Bearer ") in ("", self.server.token):
            return True
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(401, X_Error_Message="Invalid credentials in Authorization header")
        return False

    def do_GET(self) -> None:
        if not self._knows_who_asks():
            return
        path = unquote(urlsplit(self.path).path).strip("/").split("/")
        if path[:2] == ["api", "models"]:
            self._describe("/".join(path[2:4]), path[4:])
        elif "resolve" in path:
            self._file("/".join(path[:2]), path[3], "/".join(path[4:]))
        else:
            self._missing("EntryNotFound")

    def _describe(self, repo: str, rest: list[str]) -> None:
        found = self.server.revision(repo, rest[1] if len(rest) > 1 else "main")
        if found is None:
            self._missing("RevisionNotFound" if repo in self.server.commits else "RepoNotFound")
        elif rest[:1] == ["tree"]:
            self._json(
                [
                    {"type": "file", "path": path, "size": len(each), "oid": _oid(each)}
                    for path, each in found[1].items()
                ]
            )
        else:
            self._json({"id": repo, "sha": found[0], "siblings": [{"rfilename": path} for path in found[1]]})

    def _file(self, repo: str, revision: str, path: str) -> None:
        found = self.server.revision(repo, revision)
        if found is None or path not in found[1]:
            self._missing("EntryNotFound")
            return
        self._answer(200, found[1][path], ETag=f'"{_oid(found[1][path])}"', X_Repo_Commit=found[0])

    def do_POST(self) -> None:
        if not self._knows_who_asks():
            return
        path = unquote(urlsplit(self.path).path).strip("/").split("/")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if path == ["api", "repos", "create"]:
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.server.commits.setdefault(repo, [{}])
            self.server.private[repo] = asked.get("private", asked.get("visibility") == "private")
            self._json({"url": f"{self.server.address}/{repo}", "id": repo})
        elif path == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif path[4] == "preupload":
            files = json.loads(body)["files"]
            self._json(
                {"files": [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in files]}
            )
        else:
            self._commit("/".join(path[2:4]), [json.loads(line) for line in body.splitlines()])

    def _commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
        files = dict(self.server.commits[repo][-1])
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        self.server.commits[repo].append(files)
        found = self.server.revision(repo, "main")
        assert found is not None
        self._json(
            {"success": True, "commitOid": found[0], "commitUrl": f"{self.server.address}/{repo}/commit/{found[0]}"}
        )


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
