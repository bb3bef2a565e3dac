"""What `warm_python` forks is a process as `sys.executable` would start it, but for what it has imported."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import warm_python

PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def run(program: str, *arguments: str, **options: object) -> tuple[int, str, str]:
    done = subprocess.run([program, *arguments], check=False, **PIPES, **options)  # type: ignore[call-overload]
    return done.returncode, done.stdout, done.stderr


def test_it_has_the_arguments_environment_folder_and_streams_of_its_program(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv, os.getcwd(), os.environ['MINE'], sys.stdin.read()); sys.exit(3)"
    options = {"env": os.environ | {"MINE": "mine"}, "cwd": tmp_path, "input": "in"}
    assert run(warm_python.python(), "-c", code, "a", "b", **options) == (
        3,
        f"['-c', 'a', 'b'] {tmp_path} mine in\n",
        "",
    )
    (tmp_path / "helper.py").write_text("name = 'helper'")
    (tmp_path / "script.py").write_text("import helper, sys; print(helper.name, __name__, sys.argv)")
    assert run(warm_python.python(), "script.py", "x", cwd=tmp_path)[1] == "helper __main__ ['script.py', 'x']\n"
    code, _, err = run(warm_python.python(), "-c", "1 / 0")
    assert (code, err.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")


def test_it_ends_after_its_threads_exit_functions_and_streams_as_it_says() -> None:
    code = (
        "import atexit, sys, threading, time\natexit.register(print, 'at exit', end='')\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\n"
    )
    assert run(warm_python.python(), "-c", code) == (0, "thread\nat exit", "")
    assert run(warm_python.python(), "-c", code + "sys.exit('no')") == (1, "thread\nat exit", "no\n")
    assert run(warm_python.python(), "-c", code + "sys.exit(True)")[0] == 1
    code, out, err = run(warm_python.python(), "-c", code + "raise KeyboardInterrupt")
    assert (code, out, err.splitlines()[-1]) == (-signal.SIGINT, "thread\nat exit", "KeyboardInterrupt")


def test_nothing_of_the_project_is_imported_nor_what_an_exported_model_must_do_without(tmp_path: Path) -> None:
    (tmp_path / "loaded.py").write_text("import sys; print(*sorted({m.partition('.')[0] for m in sys.modules}))")
    own = {"nas", "workers", "supernet", "search_spaces", "ray"}
    loaded = set(run(warm_python.python(), str(tmp_path / "loaded.py"))[1].split())
    assert (loaded & own, "torch" in loaded) == (set(), True)
    loaded = set(run(warm_python.torch_python(), "-I", "-B", str(tmp_path / "loaded.py"))[1].split())
    assert loaded & (own | {"onnx", "onnxruntime", "onnxscript", "torchvision", "optuna", "torch"}) == {"torch"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_a_signal_to_the_program_ends_the_process(number: signal.Signals) -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    program = subprocess.Popen([warm_python.python(), "-c", code], **PIPES)  # type: ignore[call-overload]
    pid = int(program.stdout.readline())
    program.send_signal(number)
    program.communicate()  # whose pipes the process has too
    assert program.returncode == -number
    while Path(f"/proc/{pid}").exists():  # until the server has seen its end
        time.sleep(0.01)


def test_a_handler_of_its_own_is_called() -> None:
    code = "import time\ntry:\n  print(1, flush=True)\n  time.sleep(600)\nexcept KeyboardInterrupt: exit(7)"
    program = subprocess.Popen([warm_python.python(), "-c", code], **PIPES)  # type: ignore[call-overload]
    assert program.stdout.readline() == "1\n"
    program.send_signal(signal.SIGINT)
    assert (program.wait(), program.communicate()) == (7, ("", ""))
