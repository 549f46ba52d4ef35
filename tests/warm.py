"""Command lines of the tests without four seconds of imports each: processes forked from one that has imported all.

`install` makes `subprocess` start `python -m sfllava.cli ...`, the kernels of notebooks, the processes that decode
videos and the servers of judges by asking a small server of the test process that imported torch, transformers and the
rest once. What it forks is a process of its own: its pid, its signals, its working directory, environment, standard
streams and exit status are those of the command. The decoders and kernels of a command are forked from the command. A
process is started cold, as ever, where its environment has something that only a new interpreter reads.
"""

from __future__ import annotations

import array
import asyncio
import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

COLD = "SFLLAVA_COLD"
"""Set in a command's environment: start it cold"""
MARK = "SFLLAVA_MARK"
"""Set in a command's environment: what is forked with it has it as its name, since /proc/PID/environ does not change"""
_DECODER = "sfllava.sampler.pool"
_JUDGE = str(Path(__file__).with_name("openai_server.py"))
_COMMANDS = (  # a command line begins with these words and one of these modules
    ([sys.executable, "-m"], ("sfllava.cli", "ipykernel_launcher")),
    ([sys.executable, "-P", "-m"], (_DECODER,)),
    ([sys.executable], (_JUDGE,)),
)
# what the commands import; a module that is missing here costs time only
_IMPORTS = (
    "torch", "transformers.models.llava_next.modeling_llava_next", "transformers.generation", "pandas", "scipy.stats",
    "openai", "tqdm.auto", "yaml", "sfllava.cli", "sfllava.models.load", "sfllava.runs.evaluate", "sfllava.runs.ask",
    "sfllava.runs.judge", "sfllava.ablation", "sfllava.reports.export", "ipykernel.kernelapp", "ipywidgets", "plotly.io",
    "decord", "av", _DECODER,
)  # fmt: skip
_LIGHT = (_DECODER, "decord", "av", "asyncio", "urllib.request")
"""What decoders and judges import: a server of their own, for tests that need no command, starts in a second"""
_Popen = subprocess.Popen
_PATH = frozenset(sys.path)


class WarmPopen(_Popen):
    """`subprocess.Popen`, whose processes are forked by the server where they run one of these modules."""

    _status: socket.socket | None = None

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, *rest: Any) -> None:
        task, streams = _task_of(args, executable, preexec_fn, rest)
        if task is None:
            return super()._execute_child(args, executable, preexec_fn, *rest)  # type: ignore[misc]
        self._start(task, streams)
        self._child_created = True
        (_, _, _, _, _, _, _, stdin, p2cwrite, c2pread, stdout, errread, stderr, *_) = rest
        self._close_pipe_fds(stdin, p2cwrite, c2pread, stdout, errread, stderr)  # type: ignore[attr-defined]

    def _start(self, task: dict[str, Any], streams: list[int]) -> None:
        light = task["words"][0] in (_DECODER, _JUDGE)
        self.pid, self._status = _server(light).start(task, streams)  # type: ignore[misc]

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._status is None:
            return super()._try_wait(wait_flags)  # type: ignore[misc]
        if wait_flags == os.WNOHANG and not select.select([self._status], [], [], 0)[0]:
            return 0, 0
        said = self._status.recv(64)
        self._status.close()
        return self.pid, int(said) if said else signal.SIGKILL

    def _internal_poll(self, *args: Any, **options: Any) -> int | None:
        if self._status is None:
            return super()._internal_poll(*args, **options)  # type: ignore[misc]
        if self.returncode is None and self._waitpid_lock.acquire(False):  # type: ignore[attr-defined]
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid == self.pid:
                        self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


class ForkingPopen(WarmPopen):
    """In a process that the server forked: its decoders and kernels are forked from it, and are its children."""

    def _start(self, task: dict[str, Any], streams: list[int]) -> None:
        read, write = os.pipe()
        if pid := os.fork():
            os.close(write)
            os.read(read, 1)  # the end: from now on it has its own process group, which the kernel's manager asks for
            os.close(read)
            self.pid = pid  # type: ignore[misc]
            return
        try:
            if task["session"]:
                os.setsid()
            gc.freeze()  # no file of the parent's is closed by a destructor here: its number may be another file's
            atexit._clear()
            asyncio.set_event_loop_policy(None)  # the parent's loop is not this process's
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # such as the lock of the run folder
            _run(task)
        finally:
            os._exit(1)


def _task_of(args: Any, executable: Any, preexec_fn: Any, rest: Any) -> tuple[dict[str, Any] | None, list[int]]:
    """What the server needs to know of a process, None where it is started cold; and its standard streams."""
    (close_fds, pass_fds, cwd, env, _, _, shell, stdin, _, _, stdout, _, stderr, *_) = rest
    words = [] if isinstance(args, str | bytes | os.PathLike) else [os.fspath(word) for word in args]
    start = 0
    for first, modules in _COMMANDS:
        n = len(first)
        if words[:n] == first and words[n : n + 1] and words[n] in modules:
            start = n
    environment = dict(os.environ if env is None else env)
    if not start or shell or executable or preexec_fn or pass_fds or not close_fds:
        return None, []
    if not _is_warm(environment, words[start]):
        return None, []
    task = {"words": words[start:], "cwd": os.fspath(cwd or Path.cwd()), "env": environment, "session": rest[-2]}
    return task, [own if own != -1 else default for own, default in ((stdin, 0), (stdout, 1), (stderr, 2))]


def _is_warm(environment: dict[str, str], module: str) -> bool:
    folders = [Path(f) for f in environment.get("PYTHONPATH", "").split(os.pathsep) if f and f not in _PATH]
    seeded = environment.get("PYTHONHASHSEED") != os.environ.get("PYTHONHASHSEED")
    # what decodes has imported decord, and a test may put another in its place
    others = ("sitecustomize.py", "decord.py") if module == _DECODER else ("sitecustomize.py",)
    return not (COLD in environment or seeded or any((f / name).exists() for f in folders for name in others))


class _Server:
    def __init__(self, light: bool) -> None:
        self._connection, theirs = socket.socketpair()
        self._lock = threading.Lock()
        command = [sys.executable, __file__, str(theirs.fileno()), str(os.getpid()), str(int(light))]
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self._process = _Popen(command, pass_fds=[theirs.fileno()], env={**os.environ, "PYTHONPATH": path})
        theirs.close()
        atexit.register(self.stop)

    def start(self, task: dict[str, Any], streams: list[int]) -> tuple[int, socket.socket]:
        """The pid of a command, and where its status will be read."""
        # packets: the pid and the status of a command that ends at once are two messages, never one
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with self._lock:
            data = json.dumps(task).encode()
            fds = array.array("i", [*streams, theirs.fileno()])
            self._connection.sendmsg([len(data).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            self._connection.sendall(data)
            theirs.close()
            pid = int(mine.recv(64))
        return pid, mine

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


_servers: dict[tuple[int, bool], _Server] = {}
_lock = threading.Lock()


def _server(light: bool) -> _Server:
    key = os.getpid(), light  # one that was forked with this process belongs to its parent
    with _lock:  # several threads start decoders
        if key not in _servers:
            started = threading.Event()

            def start() -> None:
                _servers[key] = _Server(light)
                started.set()
                threading.Event().wait()  # PR_SET_PDEATHSIG: it would end with this thread

            threading.Thread(target=start, name="warm server", daemon=True).start()
            started.wait()
        return _servers[key]


def install() -> None:
    """Let `subprocess` start commands by the server, where the system can."""
    if sys.platform == "linux":
        subprocess.Popen = WarmPopen  # type: ignore[misc]


def _serve(connection: socket.socket, light: bool) -> None:
    subprocess.Popen = ForkingPopen  # type: ignore[misc]
    for name in _LIGHT if light else _IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what was imported is not looked through, and so copied, in each process
    running: dict[int, socket.socket] = {}
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(write)
    while True:
        ready, _, _ = select.select([connection, read], [], [])
        if read in ready:
            os.read(read, 4096)
        _reap(running)
        if connection not in ready:
            continue
        head, fds, _, _ = socket.recv_fds(connection, 8, 4)
        if not head:
            return
        data, size = b"", int.from_bytes(head, "big")
        while len(data) < size:
            data += connection.recv(size - len(data))
        status = socket.socket(fileno=fds.pop())
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            task = json.loads(data)
            if task["session"]:
                os.setsid()
            # only now, since the kernel's manager at once asks for its process group
            status.send(str(os.getpid()).encode())
            for one in [connection, status, *running.values()]:
                one.close()
            for number, stream in enumerate(fds):
                os.dup2(stream, number)
            for fd in [*fds, read, write]:
                os.close(fd)
            _run(task)
        for fd in fds:
            os.close(fd)
        running[pid] = status


def _reap(running: dict[int, socket.socket]) -> None:
    for pid, status in list(running.items()):
        done, code = os.waitpid(pid, os.WNOHANG)
        if done:
            with contextlib.suppress(OSError):
                status.send(str(code).encode())
            status.close()
            del running[pid]


def _run(task: dict[str, Any]) -> NoReturn:
    """In the forked process: be the command, and end."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        os.chdir(task["cwd"])
        os.environ.clear()
        os.environ.update(task["env"])
        if MARK in task["env"]:
            Path("/proc/self/comm").write_text(task["env"][MARK][:15])
        sys.path[:0] = [folder for folder in task["env"].get("PYTHONPATH", "").split(os.pathsep) if folder]
        sys.argv = task["words"]
        if sys.argv[0] == _DECODER:
            from sfllava.sampler.pool import _serve as decode

            decode(os.getppid())
            os._exit(0)
        if sys.argv[0] == "ipykernel_launcher":
            from ipykernel.kernelapp import IPKernelApp

            # which it reads at its import; by it a kernel knows that its parent has ended
            main = partial(IPKernelApp.launch_instance, parent_handle=int(task["env"].get("JPY_PARENT_PID") or 0))
        elif sys.argv[0] == _JUDGE:
            from openai_server import run as main
        else:
            from sfllava.cli import main
        code = main() or 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


if __name__ == "__main__":
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it does not outlive the tests
    if os.getppid() == int(sys.argv[2]):
        _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[3] == "1")
