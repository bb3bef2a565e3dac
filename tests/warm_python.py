"""A Python that starts at once: its processes are forked from one that has imported the libraries already.

Importing torch and its like takes a process seconds, which tests that start many would spend on nothing. The folder of
a session of tests has two programs, `python` and `nas`. Each hands its arguments, environment, folder and descriptors
to a server, passes SIGINT and SIGTERM on, and ends as the process ends that was forked for it; where the program is
killed, so is that process. It imports this project's own modules itself, as any process does.

Not for a test of what is imported, of process groups and SIGSTOP, or of the id of the process that it started. With
WARM_CHILDREN=1 a process starts what it starts by `sys.executable` in the same way: not for one that starts a Ray.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import marshal
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# Not Ray, which reads its variables, those of a cluster's token among them, while it is imported.
LIBRARIES = (
    "torch", "torchvision", "numpy", "scipy.stats", "sklearn.ensemble", "optuna", "moocore", "matplotlib.pyplot",
    "pydantic", "typer", "rich.console", "rich.table", "PIL.Image", "fastapi", "uvicorn",
)  # fmt: skip

PROGRAM = """#!{python} -IS
import marshal, os, signal, socket, sys

arguments = {arguments}
if arguments[0][0] == "-" and arguments[0] not in ("-c", "-m"):
    os.execv({python!r}, [{python!r}, *arguments])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: server.send(bytes([number])))
request = marshal.dumps((arguments, dict(os.environ), os.getcwd()))
socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
server.sendall(request)
code = int(server.recv(16))
if code < 0:
    if code != -signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""
NAS = ["-c", "import sys; sys.argv[0] = 'nas'; from nas.cli import main; sys.exit(main())"]


def folder() -> Path:
    """Where the two programs are."""
    return Path(os.environ["WARM_PYTHON"])


def python() -> str:
    """What to start in the place of `sys.executable`, with `-c`, `-m` or a file."""
    return str(folder() / "python")


def start() -> Callable[[], None]:
    """Starts the server, which imports the libraries when it is first asked; gives what ends it."""
    place = Path(tempfile.mkdtemp(prefix="warm"))
    address = str(place / "server")
    for name, arguments in (("python", "sys.argv[1:]"), ("nas", f"{NAS!r} + sys.argv[1:]")):
        program = place / name
        program.write_text(PROGRAM.format(python=sys.executable, arguments=arguments, address=address))
        program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        server = subprocess.Popen(
            [sys.executable, __file__, str(listener.fileno())], pass_fds=[listener.fileno()], env=environment,
            stdin=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    os.environ["WARM_PYTHON"] = str(place)

    def stop() -> None:
        server.kill()
        server.communicate()
        shutil.rmtree(place, ignore_errors=True)

    return stop


class Request(NamedTuple):
    """What a process is to be."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    descriptors: list[int]

    @classmethod
    def received(cls, client: socket.socket) -> Request | None:
        """None where the program was ended before it had asked."""
        header, descriptors, _, _ = socket.recv_fds(client, 8, 3)
        size, body = int.from_bytes(header, "big"), b""
        while len(body) < size:
            body += (part := client.recv(size - len(body)))
            if not part:
                break
        return cls(*marshal.loads(body), descriptors) if body else None


class Server:
    """Forks a process for each program that asks, and tells the program how it ended."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener, self._clients, self._ready = listener, dict[int, socket.socket](), selectors.DefaultSelector()
        self._woken, waker = socket.socketpair()
        for end in (self._woken, waker):
            end.setblocking(False)
        self._waker = waker
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(waker.fileno())
        for file in (listener, self._woken, sys.stdin):
            self._ready.register(file, selectors.EVENT_READ)

    def serve(self) -> Request:
        """Returns in the forked processes alone."""
        while True:
            for key, _ in self._ready.select():
                if key.fileobj is sys.stdin:
                    os._exit(0)  # the session has ended, however it did
                elif key.fileobj is self._woken:
                    self._woken.recv(1000)
                    self._tell_of_ended()
                elif key.fileobj is self._listener:
                    if request := self._forked():
                        return request
                elif key.data in self._clients:
                    self._pass_on(key.data)

    def _forked(self) -> Request | None:
        client, _ = self._listener.accept()
        request = Request.received(client)
        if request is None:
            client.close()
            return None
        for name in LIBRARIES:
            importlib.import_module(name)
        gc.freeze()  # or the first collection of each process would copy all of its memory
        pid = os.fork()
        if pid == 0:
            self._close()
            client.close()
            return request
        for descriptor in request.descriptors:
            os.close(descriptor)
        self._clients[pid] = client
        self._ready.register(client, selectors.EVENT_READ, pid)
        return None

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._ready.close()
        for file in (self._listener, self._woken, self._waker, *self._clients.values()):
            file.close()

    def _pass_on(self, pid: int) -> None:
        client = self._clients[pid]
        try:
            numbers = client.recv(16)
        except ConnectionError:
            numbers = b""
        for number in numbers or [signal.SIGKILL]:
            os.kill(pid, number)
        if not numbers:
            self._ready.unregister(client)

    def _tell_of_ended(self) -> None:
        while self._clients:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            client = self._clients.pop(pid)
            with contextlib.suppress(OSError):  # the program was killed
                client.send(str(os.waitstatus_to_exitcode(status)).encode())
            with contextlib.suppress(KeyError):
                self._ready.unregister(client)
            client.close()


def become(request: Request) -> None:
    """Makes this process the one that was asked for; what is raised ends it as it would end any."""
    os.setsid()
    for target, descriptor in enumerate(request.descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    if os.environ.pop("WARM_CHILDREN", None):
        sys.executable = python()
    if "PYTHONUNBUFFERED" in os.environ:
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kind, *rest = request.arguments
    paths = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if kind in ("-c", "-m"):
        own, sys.argv = "" if kind == "-c" else os.getcwd(), [kind, *rest[1:]]
    else:
        own, sys.argv = str(Path(kind).parent.resolve()), [kind, *rest]
    sys.path[:0] = paths if "PYTHONSAFEPATH" in os.environ else [own, *paths]
    importlib.invalidate_caches()
    if kind == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        return
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if kind != "-c":
        main.__file__ = kind
    source = rest[0] if kind == "-c" else Path(kind).read_text()
    exec(compile(source, "<string>" if kind == "-c" else kind, "exec"), main.__dict__)


if __name__ == "__main__":
    del sys.path[0]  # this file's folder
    become(Server(socket.socket(fileno=int(sys.argv[1]))).serve())
