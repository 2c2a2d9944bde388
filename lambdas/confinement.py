"""What a process gives up before it runs hostile code, and how to tell whether it is really gone.

Limits of the kernel carry the weight: no descriptor above those a process has (so no file and no socket),
no further process or thread, no byte written to a file, bounded memory and processor time. Where the kernel
takes a system-call filter, one goes on top: only computing, reading and writing what is open, and ending are
left. Where it takes none, an audit hook refuses what the limits do not cover, signals to other processes and
operations on names of files, as far as an interpreter can.
"""

from __future__ import annotations

import math
import os
import resource
import struct
import sys
from collections.abc import Mapping
from typing import Any

# Functions of the system that ask no audit hook; families of events that the hook refuses; single events.
_UNASKED = """
    mkfifo mknod setsid setpgid setpgrp setns unshare setpriority sched_setaffinity sched_setparam
    sched_setscheduler setregid setreuid
"""
_REFUSED_FAMILIES = """
    os subprocess socket shutil ctypes fcntl resource mmap gc pty syslog tempfile marshal _posixsubprocess
"""
_REFUSED = """
    signal.pthread_kill code.__new__ sys._current_frames sys._current_exceptions sys.remote_exec
    cpython._PySys_ClearAuditHooks cpython.PyInterpreterState_New
"""

# The user that owns nothing, for a process that would be root otherwise.
_NOBODY = 65534


def bound(memory: float, seconds: float) -> None:
    """Bounds what this process may use, for good: bytes of address space and processor seconds.

    A process that crashes leaves no file with its memory either.
    """
    _limit(resource.RLIMIT_CORE, 0)
    # A second more than the sandbox itself gives, so that it is the one to say why.
    _limit(resource.RLIMIT_CPU, math.ceil(seconds) + 1)
    if sys.platform == "linux":
        _limit(resource.RLIMIT_AS, int(memory))


def give_up() -> None:
    """Gives up root, every further file, socket, process and thread, and every further byte in a file."""
    if os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        except OSError:
            # A container may hold no other user; the probe finds out whether the rest is enough.
            pass
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NPROC, 0)
    _limit(resource.RLIMIT_NOFILE, 0)


def probe(call_filter: CallFilter | None) -> tuple[bool, bool]:
    """Tries out, in a process of its own, whether what is given up is really gone.

    Args:
        call_filter: The filter to try; None tries the limits alone.

    Returns:
        Whether the confinement holds, and whether it holds with the filter on.
    """
    with_filter, without = 10, 20
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            # Afterwards nothing it needs could be read any more.
            usable = call_filter is not None and call_filter.prepare()
            give_up()
            if not _can_open_or_fork():
                code = without
                if usable and call_filter is not None and call_filter.install():
                    code = 1 if _can_open_or_fork() or _can_signal() else with_filter
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code in {with_filter, without}, code == with_filter


def _limit(kind: int, value: int) -> None:
    """Lowers a limit for good; one that is lower already stays."""
    highest = resource.getrlimit(kind)[1]
    value = value if highest == resource.RLIM_INFINITY else min(value, highest)
    resource.setrlimit(kind, (value, value))


def _can_open_or_fork() -> bool:
    try:
        os.close(os.open("/", os.O_RDONLY))
    except OSError:
        pass
    else:
        return True
    try:
        pid = os.fork()
    except OSError:
        return False
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return True


def _can_signal() -> bool:
    try:
        os.kill(os.getpid(), 0)
    except OSError:
        return False
    return True


# Every system call that is left to a candidate, with its number on x86-64 and on arm64 (None where the
# machine has no such call). They compute, allocate, tell the time, wait, and read and write what is open;
# none takes the name of a file or the number of another process, except for one that only tells a file's
# size and dates.
_CALLS: Mapping[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "lseek": (8, 62),
    "close": (3, 57),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "futex": (202, 98),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "getitimer": (36, 102),
    "setitimer": (38, 103),
    "alarm": (37, None),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "restart_syscall": (219, 128),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getcwd": (79, 17),
    "uname": (63, 160),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class CallFilter:
    """A system-call filter that leaves the calls of ``_CALLS``; every other one is "not implemented"."""

    def __init__(self) -> None:
        self._prepared: tuple[Any, Any, Any] | None = None

    def prepare(self) -> bool:
        """Builds what the kernel is handed, and says whether this machine has a way to hand it over."""
        # Here and not above: without a filter, no candidate is to hold a way to native memory.
        try:
            import ctypes

            code = filter_program(os.uname().machine)
            libc = ctypes.CDLL(None)
        except (OSError, ImportError, KeyError):
            return False
        instructions = ctypes.create_string_buffer(code, len(code))
        program = ctypes.create_string_buffer(
            struct.pack("HP", len(code) // 8, ctypes.addressof(instructions))
        )
        libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
        # The instructions are only pointed to, so they are kept alive here.
        self._prepared = libc.prctl, program, instructions
        return True

    def install(self) -> bool:
        """Puts the prepared filter on this process for good, and says whether the kernel took it."""
        if self._prepared is None:
            return False
        prctl, program, _ = self._prepared
        no_new_privileges, seccomp, filter_mode = 38, 22, 2
        return bool(
            prctl(no_new_privileges, 1, None, 0, 0) == 0 and prctl(seccomp, filter_mode, program, 0, 0) == 0
        )


def filter_program(machine: str) -> bytes:
    """Writes the filter as the kernel's packet-filter instructions for a machine.

    Raises:
        KeyError: The machine is neither x86_64 nor aarch64.
    """
    column, architecture = _MACHINES[machine]
    load, equal, give = 0x20, 0x15, 0x06
    allow, fail, kill = 0x7FFF0000, 0x00050000, 0x80000000
    not_implemented = 38
    lines = [
        # Calls by another architecture's convention have other numbers.
        (load, 0, 0, 4),
        (equal, 1, 0, architecture),
        (give, 0, 0, kill),
        (load, 0, 0, 0),
    ]
    for numbers in _CALLS.values():
        number = numbers[column]
        if number is not None:
            lines += [(equal, 0, 1, number), (give, 0, 0, allow)]
    lines.append((give, 0, 0, fail | not_implemented))
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def refuse() -> None:
    """Refuses, where there is no filter, what the limits leave over, as far as an interpreter can."""
    # A second copy of a built-in module would have what is taken out of the first below.
    for name in ("create_builtin", "create_dynamic"):
        sys.modules["_imp"].__dict__.pop(name, None)
    for name in _UNASKED.split():
        function = getattr(os, name, None)
        for module in (os, sys.modules["posix"]):
            module.__dict__.pop(name, None)
        for known in (
            os.supports_dir_fd,
            os.supports_effective_ids,
            os.supports_fd,
            os.supports_follow_symlinks,
        ):
            known.discard(function)

    def hook(
        event: str,
        arguments: tuple[Any, ...],
        # As defaults, because a completion can change every global name.
        families: frozenset[str] = frozenset(_REFUSED_FAMILIES.split()),
        exactly: frozenset[str] = frozenset(_REFUSED.split()),
        harmless: frozenset[str] = frozenset(("os.putenv", "os.unsetenv")),
        error: type[Exception] = PermissionError,
    ) -> None:
        if event in harmless:
            return
        if event in exactly or event.partition(".")[0] in families:
            raise error(f"{event} is not allowed in the sandbox")
        if event == "object.__setattr__" and arguments[1] in ("__code__", "__defaults__", "__kwdefaults__"):
            raise error("functions cannot be changed in the sandbox")

    sys.addaudithook(hook)
