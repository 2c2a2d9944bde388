"""Model-written code gets at nothing, stays within its bounds, and never has a say in its verdict."""

import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from lambdas.confinement import filter_program
from lambdas.sandbox import Sandbox, SandboxError

SECRET = "SECRET-4f1d"
RULES = {"stdout": "lines", "absolute_tolerance": 0.0, "relative_tolerance": 1e-9, "own_operators": False}


@pytest.fixture(scope="module")
def surroundings():
    """A process with credentials and an open, inheritable descriptor."""
    reading, writing = os.pipe()
    for descriptor in (reading, writing):
        os.set_inheritable(descriptor, True)
    os.environ["AWS_SECRET_ACCESS_KEY"] = SECRET
    yield
    del os.environ["AWS_SECRET_ACCESS_KEY"]
    os.close(reading)
    os.close(writing)


@pytest.fixture(scope="module")
def unfiltered(surroundings):
    """A sandbox as on a system without a system-call filter: the weaker one."""
    made = Sandbox(filtered=False)
    yield made
    made.close()


@pytest.fixture(scope="module")
def filtered(surroundings):
    made = Sandbox()
    if not made.filtered:
        made.close()
        pytest.skip("this kernel takes no system-call filter")
    yield made
    made.close()


@pytest.fixture(params=["filtered", "unfiltered"])
def sandbox(request):
    return request.getfixturevalue(request.param)


def examine(sandbox, code, *tests, seconds=1.0, **rules):
    job = {"code": textwrap.dedent(code), "tests": tests, **RULES, **rules}
    return sandbox.examine(job, test_seconds=seconds, total_seconds=3 * seconds, memory_bytes=256 * 2**20)


def call(function, *args, expected):
    return {"kind": "call", "function": function, "args": args, "kwargs": {}, "expected": expected}


def program(stdin, stdout):
    return {"kind": "program", "stdin": stdin, "stdout": stdout}


def assertion(source, *names):
    return {"kind": "assertion", "source": source, "names": names}


def test_honest_code_passes_every_kind_of_test(sandbox):
    code = """
        import sys, json, collections, datetime, decimal

        def add(a, b):
            return a + b

        class Solution:
            def twice(self, numbers):
                return [2 * number for number in numbers]

        if __name__ == "__main__":
            for line in sys.stdin:
                print(add(*map(int, line.split())))
    """
    verdicts = examine(
        sandbox,
        code,
        call("add", 1, 2, expected=3),
        call("Solution().twice", [1, 2], expected=[2, 4]),
        assertion("assert add('a', 'b') == 'ab'", "add"),
        program("1 2\n3 4\n", "3\n7\n"),
    )
    assert [verdict["passed"] for verdict in verdicts] == [True] * 4, verdicts


# What gets at something it should not: attempt() returns True where it succeeds, as in a plain Python.
REACHES = {
    "reads a file": "return bool(open('/etc/passwd').read())",
    "reads a file by the raw call": "return os.read(os.open('/etc/passwd', os.O_RDONLY), 1) != b''",
    "reads a file by the loader of modules": """
        import importlib.machinery
        return bool(importlib.machinery.SourceFileLoader('x', '/etc/passwd').get_data('/etc/passwd'))
    """,
    "reads a file by the input module": "import fileinput; return bool(next(fileinput.input('/etc/passwd')))",
    "reads a file by linecache": "import linecache; return bool(linecache.getlines('/etc/passwd'))",
    "writes a file": "open(PLACE, 'w').write('x'); return True",
    "writes a temporary file": "import tempfile; tempfile.TemporaryFile().write(b'x'); return True",
    "makes a database": "import sqlite3; sqlite3.connect(PLACE).execute('create table a (b)'); return True",
    "lists a folder": "return bool(os.listdir('/'))",
    "makes a folder": "os.mkdir(PLACE); return True",
    "makes a symbolic link": "os.symlink('/etc/passwd', PLACE); return True",
    "makes a hard link": "open(PLACE + '1', 'w').close(); os.link(PLACE + '1', PLACE); return True",
    "makes a named pipe": "os.mkfifo(PLACE); return True",
    "makes a named pipe by the module below": "import posix; posix.mkfifo(PLACE); return True",
    "makes a named pipe by a fresh copy of that module": """
        import importlib.machinery, importlib.util, sys
        spec = importlib.util.spec_from_loader("posix", importlib.machinery.BuiltinImporter)
        fresh = sys.modules["_imp"].create_builtin(spec)
        sys.modules["_imp"].exec_builtin(fresh)
        fresh.mkfifo(PLACE); return True
    """,
    "removes a file": "os.unlink(OWN); return True",
    "renames a file": "os.rename(OWN, PLACE); return True",
    "changes a file's mode": "os.chmod(OWN, 0o600); return True",
    "opens a socket": "import socket; socket.socket().close(); return True",
    "asks for a name": "import socket; return bool(socket.getaddrinfo('localhost', 80))",
    "makes a pair of sockets": "import socket; socket.socketpair(); return True",
    "makes a pipe": "return len(os.pipe()) == 2",
    "copies a descriptor": "return os.dup(0) > 0",
    "makes a file of memory": "return os.memfd_create('x') > 0",
    "shares memory": """
        from multiprocessing.shared_memory import SharedMemory
        memory = SharedMemory(create=True, size=16); memory.close(); memory.unlink(); return True
    """,
    "forks": "pid = os.fork() or os._exit(0); os.waitpid(pid, 0); return True",
    "spawns": "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0); return True",
    "becomes another program": "os.execv('/bin/echo', ['echo', 'true'])",
    "runs a shell": "return os.system('true') == 0",
    "runs a program": "import subprocess; return subprocess.run(['/bin/true']).returncode == 0",
    "opens a pipe to a program": "return os.popen('echo x').read() == 'x\\n'",
    "starts a thread": """
        import _thread, time
        ran = []; _thread.start_new_thread(ran.append, (1,)); time.sleep(0.1); return bool(ran)
    """,
    "signals its parent": "os.kill(os.getppid(), 0); return True",
    "signals its group": "os.killpg(0, 0); return True",
    "signals a thread": """
        import signal, threading
        signal.pthread_kill(threading.get_ident(), 0); return True
    """,
    "leaves its session": "os.setsid(); return True",
    "leaves its group": "os.setpgid(0, 0); return True",
    "reads the credentials": "return 'AWS_SECRET_ACCESS_KEY' in os.environ",
    "reads the credentials by the bytes": "return any(name.startswith(b'AWS') for name in os.environb)",
    "reads its own environment in /proc": "return bool(open('/proc/self/environ').read())",
    "reads its parent's environment": "return bool(open(f'/proc/{os.getppid()}/environ').read())",
    "reads memory in /proc": "return bool(open('/proc/self/maps').read())",
    "finds an inherited descriptor": """
        def is_open(number):
            try:
                os.fstat(number)
            except OSError:
                return False
            return True
        return any(map(is_open, range(4, 1024)))
    """,
    "writes to an inherited descriptor": """
        def written(number):
            try:
                return os.write(number, b'x')
            except OSError:
                return 0
        return any(map(written, range(4, 1024)))
    """,
    "calls native code": "import ctypes; return ctypes.CDLL(None).getpid() > 0",
    "calls native code by the module below": "import _ctypes; return bool(_ctypes.dlopen(None, 0))",
    "raises a limit": """
        import resource
        highest = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(64, highest), highest))
        open('/dev/null'); return True
    """,
    "writes over its own memory": "return bool(open('/proc/self/mem', 'rb+'))",
    "has a debugger of its own": "import pdb; return bool(open(pdb.__file__))",
    "waits on many descriptors": "import select; return bool(select.epoll())",
}
# Whether these succeed in a plain Python says nothing, or depends on how it was started.
WITHOUT_CONTROL = {"leaves its session", "leaves its group", "becomes another program"}


def attempt(body, place, own):
    lines = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return f"import os\nPLACE, OWN = {str(place)!r}, {str(own)!r}\ndef attempt():\n{lines}\n"


@pytest.fixture
def everyones():
    """A folder in which every user of the machine may do everything, so that no other rule helps."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.parametrize("does", REACHES)
def test_code_gets_at_nothing(sandbox, does, everyones):
    own = everyones / "own"
    own.touch()
    own.chmod(0o666)
    place = everyones / "place"
    [verdict] = examine(
        sandbox, attempt(REACHES[does], place, own), call("attempt", expected=True), seconds=0.5
    )
    assert not verdict["passed"]
    # It was held, and did not stumble.
    assert not any(word in verdict["reason"] for word in ("SyntaxError", "NameError", "cannot be read"))
    assert own.exists()
    assert [path.name for path in everyones.iterdir()] == ["own"]


@pytest.mark.parametrize("does", [name for name in REACHES if name not in WITHOUT_CONTROL])
def test_the_same_code_gets_at_it_without_a_sandbox(does, tmp_path):
    own = tmp_path / "own"
    own.touch()
    code = attempt(REACHES[does], tmp_path / "place", own) + "print(attempt())\n"
    with Path("/dev/null").open("w") as null:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "AWS_SECRET_ACCESS_KEY": SECRET},
            cwd=tmp_path,
            pass_fds=[null.fileno()],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.stdout.splitlines()[-1:] == ["True"], done.stderr


# What tries to pass tests it cannot know the answers of. Each is put to all tests of UNKNOWABLE.
CHEATS = {
    "looks through all objects": """
        import gc
        def answer(*_):
            return next(each for each in gc.get_objects() if SOUGHT in str(each))
        print(answer())
    """,
    "looks through the frames": """
        import sys
        def answer(*_):
            frame = sys._getframe()
            while frame:
                for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
                    if SOUGHT in repr(value) and "SOUGHT" not in repr(value):
                        return repr(value)
                frame = frame.f_back
        print(answer())
    """,
    "looks through the frames by inspect": """
        import inspect
        def answer(*_):
            lines = [line for frame in inspect.stack() for line in frame.code_context or []]
            return next(line for line in lines if SOUGHT in line)
        print(answer())
    """,
    "looks through the traceback": """
        def answer(*_):
            try:
                raise ValueError
            except ValueError as error:
                frame = error.__traceback__.tb_frame.f_back
                while frame:
                    for value in frame.f_locals.values():
                        for inner in getattr(value, "__dict__", {}).values():
                            if SOUGHT in str(inner):
                                return str(inner)
                    frame = frame.f_back
        print(answer())
    """,
    "looks through the modules": """
        import sys
        def answer(*_):
            for module in list(sys.modules.values()):
                for value in vars(module or object).values() if module else ():
                    if isinstance(value, (str, list, dict)) and SOUGHT in str(value):
                        return value
        print(answer())
    """,
    "looks into its memory": """
        def answer(*_):
            for line in open("/proc/self/maps"):
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                with open("/proc/self/mem", "rb") as memory:
                    memory.seek(start)
                    if SOUGHT.encode() in memory.read(end - start):
                        return SOUGHT
        print(answer())
    """,
    "looks into the argument's function": """
        def answer(ask=None, *_):
            return [ask.__globals__, ask.__closure__, ask.__code__.co_consts, ask.__self__]
        print(answer())
    """,
    "asks what it is asked": """
        import sys
        seen = []
        def trace(frame, event, argument):
            seen.append(str(frame.f_locals))
            return trace
        sys.settrace(trace)
        sys.setprofile(trace)
        def answer(*_):
            return next(each for each in seen if SOUGHT in each)
        print(answer())
    """,
    "exits at once": "import os; os._exit(0)",
    "exits politely": "import sys; sys.exit(0)",
    "exits when asked": "def answer(*_): import sys; sys.exit(0)",
    "exits at once when asked": "def answer(*_): import os; os._exit(0)",
    "exits while it ends": "import atexit, os; atexit.register(os._exit, 0)",
    "prints a verdict": 'print(\'{"passed": true, "reason": "", "late": false, "broken": false}\')',
    "sends verdicts to every descriptor": """
        import os
        line = b'{"passed": true, "reason": "", "late": false, "broken": false}\\n'
        def answer(*_):
            for number in range(64):
                try:
                    os.write(number, 8 * line)
                except OSError:
                    pass
        answer()
    """,
    "sends answers of every kind": """
        import os
        def answer(*_):
            for line in ('{"value": true}', '{"value": {"object": 0}}',
                         '{"callback": 0, "args": [], "kwargs": {}}', '[]', '1', '{}',
                         '{"value": 1, "changed": {"0": [1]}}', '{"value": {"exec": "1"}}'):
                os.write(3, line.encode() + b"\\n")
        answer()
    """,
    "brings its own built-in functions": """
        import os
        names = ["answer", "all", "len", "AssertionError"]
        told = ", ".join('["%s", {"object": 0}]' % name for name in names)
        for line in ('{"value": null}', '{"value": {"dict": [%s]}}' % told):
            os.write(3, line.encode() + b"\\n")
        os.write(3, 100 * b'{"value": true}\\n')
        def answer(*_): return True
    """,
    "returns an exception": "def answer(*_): return KeyError",
    "raises what clears a screen": "def answer(*_): raise ValueError('\\x1b[2J\\r[bold]\\udc80')",
    "calls back what is not there": """
        import os
        def answer(*_): os.write(3, b'{"callback": 99, "args": [], "kwargs": {}}\\n')
    """,
    "closes everything": "import os\ndef answer(*_): os.closerange(0, 64)\nanswer()",
    "returns what equals everything": """
        class Always:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __bool__(self): return True
            def __contains__(self, other): return True
            __lt__ = __le__ = __gt__ = __ge__ = __eq__
            def __hash__(self): return hash(SOUGHT)
        def answer(*_): return Always()
    """,
    "returns text that equals everything": """
        class Always(str):
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __hash__(self): return hash(SOUGHT)
        def answer(*_): return Always("x")
    """,
    "returns a list that equals everything": """
        class Always(list):
            def __eq__(self, other): return True
            def __getitem__(self, _): return self
            def __len__(self): return 3
        def answer(*_): return Always()
    """,
    "claims to be a text": """
        class Always:
            __class__ = str
            def __eq__(self, other): return True
        def answer(*_): return Always()
    """,
    "changes equality": """
        import builtins, operator
        class Anything(str):
            def __eq__(self, other): return True
        builtins.str = Anything
        operator.eq = lambda *_: True
        builtins.AssertionError = type("Passed", (Exception,), {})
        builtins.all = builtins.any = builtins.bool = builtins.isinstance = lambda *_: True
        def answer(*_): return True
    """,
    "changes our own modules": """
        import sys
        def passed(*_, **__): return {"passed": True, "reason": "", "late": False, "broken": False}
        for module in list(sys.modules.values()):
            if getattr(module, "__name__", "").startswith("lambdas"):
                for name in list(vars(module)):
                    setattr(module, name, passed)
        def answer(*_): return passed()
    """,
    "changes JSON": """
        import json
        json.dumps = lambda *_, **__: '{"value": true}'
        json.loads = lambda *_, **__: {"passed": True}
        def answer(*_): return True
    """,
    "changes importing": """
        import builtins, sys
        class Finder:
            def find_spec(self, *_): raise SystemExit(0)
        sys.meta_path.insert(0, Finder())
        builtins.__import__ = lambda *_, **__: sys
        def answer(*_): import tests; return tests
    """,
    "returns a pickle bomb": """
        import os
        class Bomb:
            def __reduce__(self): return os._exit, (0,)
            def __reduce_ex__(self, _): return os._exit, (0,)
        def answer(*_): return Bomb()
    """,
    "returns nested lists": """
        def answer(*_):
            value = []
            for _ in range(100_000): value = [value]
            return value
    """,
    "returns nested JSON": "import os\ndef answer(*_): os.write(3, b'[' * 1_000_000 + b'\\n')",
    "returns itself in itself": "def answer(*_): value = []; value.append(value); return value",
    "returns not a number": "def answer(*_): return float('nan')",
    "returns a huge integer": "def answer(*_): return 10 ** 1_000_000",
    "returns a huge decimal": "import decimal\ndef answer(*_): return decimal.Decimal('1e999999999')",
    "returns a huge list": "def answer(*_): return [0] * 10_000_000",
    "returns what repr cannot show": """
        class Bomb:
            def __repr__(self): return "x" * 100_000_000
            __str__ = __repr__
        def answer(*_): return Bomb()
    """,
    "returns keys that cannot be keys": """
        import os
        def answer(*_): os.write(3, b'{"value": {"dict": [[[1], 1]]}}\\n')
    """,
    "returns an endless generator": "def answer(*_):\n    while True: yield 1",
    "raises what no handler expects": """
        class Odd(BaseException):
            def __str__(self): raise Odd
        def answer(*_): raise Odd
    """,
    "raises a failed assertion": "def answer(*_): raise AssertionError('passed')",
    "stops an iteration": "def answer(*_): raise StopIteration(SOUGHT)",
    "raises its own exit": "def answer(*_): raise type('SystemExit', (BaseException,), {})()",
    "is no program": "def answer(*_):",
    "is nested too deep to read": "(" * 5_000 + ")" * 5_000,
    "has half a character": "def answer(*_): return '\udc80'",
}

UNKNOWABLE = [
    call("answer", expected=SECRET),
    assertion(f"assert answer(lambda: {SECRET!r} + str(len({SECRET!r}))) == {SECRET!r}", "answer"),
    assertion(f"assert answer() in [{SECRET!r}]", "answer"),
    assertion(f"assert all([answer() == {SECRET!r}])", "answer"),
    assertion(f"assert len(answer(answer)) == {len(SECRET)}", "answer"),
    assertion(f"assert not answer() != {SECRET!r}", "answer"),
    program(f"{SECRET[::-1]}\n", f"{SECRET}\n"),
]


# Where there is a filter, there is no hook, and more of the interpreter is to be seen.
LOOKS = [name for name in CHEATS if name.startswith(("looks", "asks", "changes"))]


@pytest.mark.parametrize(
    ("system", "does"), [("unfiltered", name) for name in CHEATS] + [("filtered", name) for name in LOOKS]
)
def test_code_passes_no_test_it_cannot_solve(system, does, request):
    sandbox = request.getfixturevalue(system)
    code = f"SOUGHT = {SECRET[:3]!r} + {SECRET[3:6]!r}\n" + textwrap.dedent(CHEATS[does])
    verdicts = examine(sandbox, code, *UNKNOWABLE, seconds=0.2)
    assert [verdict["passed"] for verdict in verdicts] == [False] * len(UNKNOWABLE), verdicts
    assert all(SECRET not in verdict["reason"].partition(", not ")[0] for verdict in verdicts)
    assert not any(verdict["broken"] for verdict in verdicts)
    assert all(verdict["reason"].isprintable() for verdict in verdicts)


def test_who_knows_the_answer_passes_those_tests(sandbox):
    code = f"""
        def answer(*_): return {SECRET!r}
        print({SECRET!r})
    """
    verdicts = examine(sandbox, code, *UNKNOWABLE)
    assert [verdict["passed"] for verdict in verdicts] == [True] * len(UNKNOWABLE), verdicts


@pytest.mark.parametrize(
    "body", ["import os; os._exit(0)", "return type('A', (), {'__eq__': lambda *_: True})()"]
)
def test_a_test_that_catches_everything_does_not_hide_how_its_candidate_failed(sandbox, body):
    source = f"try:\n    held = answer() == {SECRET!r}\nexcept:\n    held = True\nassert held"
    [verdict] = examine(sandbox, f"def answer(): {body}", assertion(source, "answer"))
    assert not verdict["passed"]


# What would never end, or take everything.
EXCESSES = {
    "computes forever": ("while True: pass", "processor time"),
    "catches everything forever": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "processor time",
    ),
    "ignores signals": (
        """
        import signal
        for number in range(1, 32):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        while True: pass
        """,
        "processor time",
    ),
    "sleeps forever": ("import time\nwhile True: time.sleep(1000)", "waited too long"),
    "waits for a lock forever": (
        "import threading\nthreading.Lock().acquire() and threading.Event().wait()",
        "waited too long",
    ),
    "sleeps in a finally": (
        "import time\ntry: 1 / 0\nfinally:\n    while True: time.sleep(1)",
        "waited too long",
    ),
    "matches a regular expression forever": (
        "import re; re.match('(a+)+$', 'a' * 64 + 'b')",
        "processor time",
    ),
    "computes one huge number": ("x = 3 ** 10_000_000_000", "processor time|MemoryError"),
    "bombs with forks": ("import os\nwhile True: os.fork()", "Error"),
    "bombs with threads": (
        "import _thread\nwhile True: _thread.start_new_thread(print, ())",
        "RuntimeError|error|not allowed",
    ),
    "takes all memory": ("x = bytearray(10 ** 10)", "MemoryError"),
    "takes all memory by and by": (
        "x = []\nwhile True: x.append(bytearray(10 ** 7))",
        "MemoryError|processor time",
    ),
    "recurses forever": ("def f(): return f()\nf()", "RecursionError"),
    "recurses without a limit": (
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): return [f() for _ in (1,)]\nf()",
        "SIGSEGV|MemoryError|processor time|RecursionError|ended early",
    ),
    "crashes": ("import os; os.abort()", "SIGABRT|ENOSYS|SIGSEGV|exit code"),
    "prints forever": ("while True: print('x' * 1000)", "printed more than|processor time|BrokenPipe"),
    "prints too much": ("print('x' * 2_000_000)", "printed more than"),
    "fills the standard input": ("import os\nwhile True: os.write(0, b'x' * 10 ** 6)", "Error"),
    "writes forever where answers go": ("import os\nwhile True: os.write(3, b'x' * 10 ** 6)", "."),
}


@pytest.mark.parametrize("does", EXCESSES)
def test_code_stays_within_its_bounds(unfiltered, does):
    code, says = EXCESSES[does]
    started = time.monotonic()
    verdicts = examine(unfiltered, code, call("answer", expected=1), program("", "x"), seconds=0.1)
    # The bounds are 0.1 s of a processor and 0.5 s of waiting for each; the rest is a busy machine's.
    assert time.monotonic() - started < 20
    assert [verdict["passed"] for verdict in verdicts] == [False, False]
    assert any(re.search(says, verdict["reason"]) for verdict in verdicts), verdicts


def test_a_test_learns_nothing_from_the_one_before(sandbox):
    """The second run of a program would print what the first one read."""
    code = """
        import builtins, os, sys, tempfile
        given = input()
        for keep in (
            lambda: os.environ.__setitem__("KEPT", given),
            lambda: setattr(builtins, "kept", given),
            lambda: setattr(sys, "kept", given),
            lambda: open(tempfile.gettempdir() + "/kept", "w").write(given),
            lambda: os.lseek(0, 0, 0),
            lambda: os.write(0, b"kept"),
        ):
            try:
                found = os.environ.get("KEPT") or getattr(builtins, "kept", "") or getattr(sys, "kept", "")
                keep()
            except Exception:
                pass
            if found and found != given:
                print(found)
    """
    verdicts = examine(sandbox, code, program("first", ""), program("second", "first"))
    assert [verdict["passed"] for verdict in verdicts] == [True, False]


def test_nothing_is_left_running(sandbox):
    code = "import time, os\ntry: os.fork()\nexcept OSError: pass\nexcept Exception: pass\ntime.sleep(100)"
    examine(sandbox, code, call("answer", expected=1), seconds=0.1)
    [verdict] = examine(sandbox, "def add(a, b): return a + b", call("add", 1, 2, expected=3))
    assert verdict["passed"]
    warden = sandbox._warden.pid
    children = Path(f"/proc/{warden}/task/{warden}/children")
    if children.exists():
        assert children.read_text() == ""
    assert len([*Path(f"/proc/{warden}/fd").iterdir()]) < 12


def test_the_completion_time_is_used_up_once():
    made = Sandbox()
    try:
        verdicts = examine(made, "while True: pass", *[call("answer", expected=1)] * 10, seconds=0.1)
    finally:
        made.close()
    assert len(verdicts) == 10
    assert all(verdict["late"] for verdict in verdicts)
    assert sum("used up" in verdict["reason"] for verdict in verdicts) == 7


def test_a_warden_that_is_gone_is_no_verdict():
    made = Sandbox()
    os.kill(made._warden.pid, signal.SIGKILL)
    with pytest.raises(SandboxError, match="the sandbox broke"):
        examine(made, "x = 1", call("answer", expected=1))
    assert made.closed


def test_the_warden_ends_with_the_process_it_serves():
    code = (
        "import os, sys; from lambdas.sandbox import Sandbox; made = Sandbox(); "
        "print(made._warden.pid, flush=True); os._exit(1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    warden = int(done.stdout)
    for _ in range(100):
        state = Path(f"/proc/{warden}/stat")
        # What nobody waits for stays as a zombie where the machine has no init.
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the warden still runs")


def verdict_of(program, architecture, number):
    """Runs a packet-filter program over a system call, as the kernel does."""
    lines = list(struct.iter_unpack("HBBI", program))
    data = {0: number, 4: architecture}
    place, register = 0, 0
    while True:
        code, if_true, if_false, value = lines[place]
        if code == 0x06:
            return value
        if code == 0x20:
            register = data[value]
            place += 1
        else:
            place += 1 + (if_true if register == value else if_false)


@pytest.mark.parametrize(
    ("machine", "architecture", "left", "refused"),
    [
        ("x86_64", 0xC000003E, (0, 1, 9, 228, 231), (2, 41, 56, 57, 59, 62, 101, 257, 425, 0x40000000 | 2)),
        ("aarch64", 0xC00000B7, (63, 64, 222, 113, 94), (56, 198, 220, 221, 129, 117, 35, 425)),
    ],
)
def test_the_filter_leaves_computing_and_nothing_else(machine, architecture, left, refused):
    filtering = filter_program(machine)
    assert {verdict_of(filtering, architecture, number) for number in left} == {0x7FFF0000}
    assert {verdict_of(filtering, architecture, number) for number in refused} == {0x00050000 | 38}
    assert verdict_of(filtering, 0x40000003, left[0]) == 0x80000000
