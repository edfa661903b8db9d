# SPDX-License-Identifier: MIT
"""How much memory a tree of processes really needs.

Sums Pss_Anon + Pss_Shmem of /proc/PID/smaps_rollup over a process and all
its descendants: pages shared by fork count once, files of the page cache not
at all.  That is what `tmem run -m` promises to bound.  Processes that share
one address space (a pager and its program) count once, told by kcmp(2).
"""
import ctypes
import os
import platform
import threading
import time

_KCMP_NUMBER = {"x86_64": 312, "aarch64": 272}.get(platform.machine())
_KCMP_VM = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _same_memory(a, b):
    if _KCMP_NUMBER is None:
        return False
    return _libc.syscall(ctypes.c_long(_KCMP_NUMBER), ctypes.c_long(a),
                         ctypes.c_long(b), ctypes.c_long(_KCMP_VM),
                         ctypes.c_long(0), ctypes.c_long(0)) == 0


def tree(root):
    """The pids of a process and of all its descendants."""
    pids, todo = [], [root]
    while todo:
        pid = todo.pop()
        pids.append(pid)
        try:
            for task in os.listdir("/proc/%d/task" % pid):
                with open("/proc/%d/task/%s/children" % (pid, task),
                          encoding="ascii") as f:
                    todo += [int(p) for p in f.read().split()]
        except OSError:
            pass  # it has just ended
    return pids


def _rollup(pid):
    total = 0
    with open("/proc/%d/smaps_rollup" % pid, encoding="ascii") as f:
        for line in f:
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                total += int(line.split()[1]) * 1024
    return total


def tree_bytes(root):
    """Pss_Anon + Pss_Shmem of the tree, each address space once."""
    total, counted = 0, []
    for pid in tree(root):
        try:
            size = _rollup(pid)
        except OSError:
            continue    # it has just ended
        if any(_same_memory(pid, other) for other in counted):
            continue
        counted.append(pid)
        total += size
    return total


class Sampler(threading.Thread):
    """Samples a tree until stopped; peak_bytes is the highest seen.

    The processes are read one after the other, so a page that moves from one
    to another meanwhile may count twice.  A sample above `doubt` bytes counts
    only as far as an immediate second one confirms it.
    """

    def __init__(self, root, interval=0.1, doubt=None):
        super().__init__(daemon=True)
        self.root = root
        self.interval = interval
        self.doubt = doubt
        self.peak_bytes = 0
        self.samples = 0
        self._done = threading.Event()
        self.start()

    def run(self):
        while True:
            start = time.monotonic()
            size = tree_bytes(self.root)
            if self.doubt is not None and size > self.doubt:
                size = min(size, tree_bytes(self.root))
            self.peak_bytes = max(self.peak_bytes, size)
            self.samples += 1
            left = self.interval - (time.monotonic() - start)
            if self._done.wait(max(left, self.interval / 5)):
                return

    def stop(self):
        self._done.set()
        self.join()
        return self.peak_bytes
