"""A Python that starts at once: its processes are forked from one that has imported the libraries already.

Importing torch and its like takes a process seconds, which tests that start many would spend on nothing. The folder of
a session of tests has three programs: `python` and `nas`, and `torch_python`, for which torch alone is imported. Each
hands its arguments, environment, folder and descriptors to a server, passes SIGINT and SIGTERM on, and ends as the
process ends that was forked for it; where the program is killed, so is that process. This project's own modules are
imported by the process itself, as by any. So start, too, the workers of every Ray that a test or a command joins.

Not for a test of what is imported, of process groups and SIGSTOP, of the id of the process that it started, or of what
happens while an interpreter is taken apart: these end after their threads, exit functions and streams. With
WARM_CHILDREN=1 a process starts what it starts by `sys.executable` in the same way: not for one that starts a Ray.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
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
import threading
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

# Not Ray and NiceGUI, which read their variables while they are imported: of a cluster's token, of where to store.
# torch._dynamo is what the first optimizer of a process imports, for more than a second.
LIBRARIES = (
    "torch", "torch._dynamo", "tensorboardX", "numpy", "sklearn.datasets", "sklearn.ensemble", "sklearn.linear_model",
    "optuna", "moocore", "matplotlib.figure", "matplotlib.backends.backend_agg", "pydantic", "typer", "rich.console",
    "rich.table", "rich.progress", "PIL.Image", "yaml", "orjson", "safetensors.torch", "fsspec", "fastapi", "uvicorn",
)  # fmt: skip

# Ray takes from it what the workers of a driver have, unless a job has brought it its own
RAY_WORKERS = "RAY_JOB_CONFIG_JSON_ENV_VAR"

PROGRAM = """#!{python} -IS
import marshal, os, signal, socket, sys

arguments = {arguments}
if arguments[0][0] == "-" and arguments[0] not in ("-c", "-m", "-I"):
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
    """Where the programs are."""
    return Path(os.environ["WARM_PYTHON"])


def python() -> str:
    """What to start in the place of `sys.executable`, with `-c`, `-m` or a file; that itself where no tests run."""
    return str(folder() / "python") if "WARM_PYTHON" in os.environ else sys.executable


def torch_python() -> str:
    """As `python`, or with `-I -B` and a file, where nothing but torch may be there before."""
    return str(folder() / "torch_python")


def start() -> Callable[[], None]:
    """Starts the servers, which import their libraries when they are first asked; gives what ends them."""
    place = Path(tempfile.mkdtemp(prefix="warm"))
    os.environ["WARM_PYTHON"] = str(place)
    os.environ[RAY_WORKERS] = json.dumps({"runtime_env": {"py_executable": str(place / "python")}})
    servers = [_start_server(place / "server", LIBRARIES), _start_server(place / "torch_server", ("torch",))]
    _write_program(place / "python", place / "server")
    _write_program(place / "torch_python", place / "torch_server")
    _write_program(place / "nas", place / "server", NAS)

    def stop() -> None:
        for server in servers:
            server.communicate()  # closes what it takes for the sign
        shutil.rmtree(place, ignore_errors=True)

    return stop


def _start_server(address: Path, libraries: Sequence[str]) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen(64)
        return subprocess.Popen(
            [sys.executable, __file__, str(listener.fileno()), *libraries], pass_fds=[listener.fileno()],
            env=environment, stdin=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip


def _write_program(file: Path, address: Path, first: Sequence[str] = ()) -> None:
    arguments = f"{list(first)!r} + sys.argv[1:]"
    file.write_text(PROGRAM.format(python=sys.executable, arguments=arguments, address=str(address)))
    file.chmod(0o755)


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

    def __init__(self, listener: socket.socket, libraries: Sequence[str]) -> None:
        self._listener, self._libraries = listener, libraries
        self._clients, self._ready = dict[int, socket.socket](), selectors.DefaultSelector()
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
                if key.fileobj is sys.stdin:  # the session has ended, however it did
                    for pid in self._clients:
                        os.kill(pid, signal.SIGKILL)
                    os._exit(0)
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
        for name in self._libraries:
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
    # anew, for those of the server know whether its files are terminals, and whether they can be sought in
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.stdout.reconfigure(write_through="PYTHONUNBUFFERED" in os.environ)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kind, *rest = request.arguments
    isolated = kind == "-I"
    if isolated:
        _, kind, *rest = rest
    paths = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if kind in ("-c", "-m"):
        own, sys.argv = "" if kind == "-c" else os.getcwd(), [kind, *rest[1:]]
    else:
        own, sys.argv = str(Path(kind).parent.resolve()), [kind, *rest]
    if not isolated:
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


def live(request: Request) -> None:
    """Becomes the process and ends as any does, but does not take apart what it was forked with: half a second each."""
    code: object = 0
    try:
        become(request)
    except SystemExit as stop:
        code = 0 if stop.code is None else stop.code
    except BaseException as error:
        sys.excepthook(*sys.exc_info())
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # as `multiprocessing` ends what it forks
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the reader or the program itself has closed it
            stream.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


if __name__ == "__main__":
    del sys.path[0]  # this file's folder
    live(Server(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]).serve())
