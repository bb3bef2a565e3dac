"""A Hub on this machine that speaks as much of the protocol as uploading takes; what was committed is in `repos`."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_of_the_tests"


@dataclass
class Hub:
    """repos: files by name of every repository. commits: number of commits. blobs: large files by SHA-256."""

    url: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: int = 0
    blobs: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def _answer(self, value: object, status: int = 200) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers["Content-Length"]))

        def do_PUT(self) -> None:
            hub.blobs[self.path.removeprefix("/blobs/")] = self._body()
            self._answer({})

        def do_POST(self) -> None:
            body, path = self._body(), self.path.partition("?")[0]
            if path == "/api/validate-yaml":  # of the card, which the client asks for without a token
                return self._answer({"errors": [], "warnings": []})
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self._answer({"error": "Invalid username or password."}, 401)
            if path == "/api/repos/create":
                return self._create(json.loads(body))
            repo = path.removeprefix("/api/models/").rpartition("/")[0].rpartition("/")[0]
            if path.endswith("/preupload/main"):
                mode = {True: "lfs", False: "regular"}
                files = json.loads(body)["files"]
                return self._answer({"files": [
                    {"path": f["path"], "uploadMode": mode[f["path"].endswith(".safetensors")], "shouldIgnore": False}
                    for f in files
                ]})  # fmt: skip
            if path.endswith(".git/info/lfs/objects/batch"):
                objects = json.loads(body)["objects"]
                upload = [{**o, "actions": {"upload": {"href": f"{hub.url}/blobs/{o['oid']}"}}} for o in objects]
                return self._answer({"transfer": "basic", "objects": upload})
            if path.endswith("/commit/main"):
                return self._commit(repo, [json.loads(line) for line in body.splitlines()])
            return self._answer({"error": f"no such place {path}"}, 404)

        def _create(self, wanted: dict) -> None:
            repo = f"{wanted['organization']}/{wanted['name']}"
            if wanted["organization"] == "others":
                return self._answer({"error": "You don't have the rights to create a model under others"}, 403)
            answer = {"url": f"{hub.url}/{repo}", "name": repo}
            if repo in hub.repos:
                return self._answer(answer | {"error": "You already created this model repo"}, 409)
            hub.repos[repo] = {}
            return self._answer(answer)

        def _commit(self, repo: str, lines: list[dict]) -> None:
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    hub.repos[repo][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.repos[repo][value["path"]] = hub.blobs[value["oid"]]
            hub.commits += 1
            oid = f"{hub.commits:040x}"
            self._answer({"commitUrl": f"{hub.url}/{repo}/commit/{oid}", "commitOid": oid, "success": True})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
