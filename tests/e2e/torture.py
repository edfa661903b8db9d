#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the torture programs, free or under `tmem run`, and watches the budget.

A row of the table names a program, its size, the limit it gets, and what must
be true of the run:

  R1  The program verifies its own memory: exit status 0 (or what `status`
      says), 77 if this kernel or user can't do it.
  R2  Under tmem the report must show that pages were evicted (evicted_store +
      evicted_swap > 0), else the row proved nothing and fails.
  R3  Rows marked `budget`: the sum over the whole process tree of Pss_Anon +
      Pss_Shmem, sampled every 100 ms, stays below SIZE + max(3 %, 16 MiB).
      Pagers share the program's memory (CLONE_VM), so each address space is
      counted once, as kcmp(2) tells them apart.  Samples of several processes
      are not taken at one moment: over the limit counts if an immediate
      second sample says so too.
  R4  Nothing of the tree is left running afterwards.

Usage: torture.py --build DIR [--native] [--tmem PATH] [--suite check|long|soak]
                  [--repeat N] [--seed N] [--timeout SECONDS] [--list]
                  [--option=OPTION]... [--all-off] [--chaos SPEC]
                  [--as-user | --container] [NAME...]
"""
import argparse
import ctypes
import functools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
import switches  # noqa: E402

MIB = 1 << 20
SKIP = 77
SAMPLE_SECONDS = 0.1
MARK = "TT_RUN"
SYS_KCMP, KCMP_VM = 312, 1
AS_USER = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                       "..", "..", "tools", "as-user")


class Row:
    """One run of one program."""

    def __init__(self, program, case="", mib=48, limit="24M", suite="long",
                 **more):
        self.program, self.case, self.mib = program, case, mib
        self.limit, self.suite = limit, suite
        self.options = more.pop("options", [])    # of tmem run
        self.status = more.pop("status", 0)       # expected; < 0: a signal
        self.evicts = more.pop("evicts", True)
        self.swaps = more.pop("swaps", False)     # must reach the swap file
        self.budget = more.pop("budget", True)
        self.native_ok = more.pop("native_ok", True)
        self.timeout = more.pop("timeout", 240)
        self.daemon = more.pop("daemon", False)   # result comes in a file
        self.user = more.pop("user", "")          # "user" or "container"
        suffix = more.pop("suffix", "")
        assert not more, more
        self.name = program + (f"-{case}" if case else "") + suffix

    def args(self, seed):
        return [str(self.mib), str(seed)] + ([self.case] if self.case else [])


# Rows that continuous integration does not run.  They are right, but thrash:
# many relatives that together need several times the memory and the swap file
# (chain: over the limit, as --on-full grow has it; bomb: for a moment).
SOAK = {"fork_many-readers-half", "fork_many-bomb", "fork_many-chain"}

# Programs that need all CPUs, or more memory than two at a time should have.
ALONE = {"fork_many", "sched", "memset"}


def rows():
    """The table: suite `check` is a sample, `long` and `soak` the rest."""
    table = []

    def add(program, cases, **more):
        for case in cases.split() or [""]:
            table.append(Row(program, case, **more))

    def check(program, case="", **more):
        table.append(Row(program, case, suite="check", **more))

    check("threads", "words", mib=64, limit="32M")
    add("threads", "atomics readers regions")
    add("threads", "first", mib=128, limit="32M")
    check("fork", "both", mib=64, limit="64M")
    # Parent and children write all of it: their sum is what must fit.
    add("fork", "nested thread", mib=64, limit="64M")
    add("fork", "writers", limit="48M")
    add("fork", "atfork", mib=64, limit="48M")
    add("fork", "vfork")
    check("fork", "behind", mib=64, limit="48M")
    add("fork", "moves", mib=64, limit="48M")
    add("fork_raw", "moves", mib=48, limit="44M")
    check("mremap", "random", mib=64, limit="32M")
    add("mremap", "grow move shrink shorten dontunmap pieces realloc")
    check("unmap", "partial", mib=64, limit="32M")
    add("unmap", "whole over churn holes")
    check("madvise", "dontneed", mib=64, limit="32M")
    add("madvise", "free remove guard hints")
    add("madvise", "wipefork", mib=64, limit="64M")
    add("madvise", "dontfork", mib=64, limit="56M")
    check("rw", "file", mib=64, limit="32M")
    add("rw", "socket results strings splice")
    check("races", "neighbours", mib=64, limit="32M")
    add("races", "readers remap protect")
    add("races", "forks", mib=64, limit="64M")
    add("mprotect", "none readonly exec pieces cycle")
    check("uring", "registered", mib=64, limit="32M")
    add("uring", "plain vector late pipe sqpoll")
    add("direct", "direct threads")
    add("vmreadv", "child parent write")
    check("zerocopy", "zerocopy", mib=64, limit="32M")
    add("zerocopy", "uring vmsplice gift")
    check("self", mib=32, limit="32M", evicts=False)
    # Their children are past the C library: they may run on unpaged.
    check("fork_raw", "clone", mib=64, limit="44M", budget=False)
    add("fork_raw", "fork clone3 thread", budget=False)
    # All of it fits, and is shared: the children cost nothing.
    add("fork_many", "readers", mib=300, limit="400M", evicts=False)
    add("fork_many", "readers", mib=300, limit="200M", suffix="-half")
    add("fork_many", "bomb workers chain")
    check("exec", "again", mib=64, limit="32M")
    add("exec", "failed spawn vfork thread forked")
    check("thread_exit", "cached", mib=64, limit="32M")
    add("thread_exit", "owned c11 robust detached cancel keys")
    add("closeall", "from range loop reuse child exec")
    add("sigblock", "blocked pending fork ignored")
    add("sched", "pinned process fifo busy idle")
    add("userns", "userns self mountns pidns dumpable")
    # Born without rights or without /proc, a child can only be right.
    add("userns", "setuid chroot", budget=False)
    add("seccomp", "child errno kill")
    # A child born under the filter can't be paged, only be right.
    add("seccomp", "fork", budget=False)
    add("symbols", "")
    add("rlimit", "late as nofile nproc")
    add("rlimit", "fsize", mib=64, limit="32M", swaps=True)
    # Locked memory can't be evicted: it has to fit.
    add("mlock", "part onfault fork", mib=128, limit="88M")
    add("mlock", "all", mib=128, limit="88M")
    add("thp", "madvise collapse split fork")
    check("guard", "none", mib=64, limit="32M")
    add("guard", "unmapped readonly beyond overflow")
    add("barrier", "write read threads")
    add("reserve", "commit mapped sparse")
    add("manymaps", "alternate scattered fork", mib=96)
    # The kernel does not move read-only pages: they have to fit.
    add("manymaps", "readonly", mib=96, limit="64M")
    check("daemon", "left", mib=64, limit="32M", daemon=True)
    add("daemon", "watched")
    add("pipes", "pair pipeline threads")
    add("stacks", "deep thread contexts jumps")
    add("memset", "once twice calloc", mib=2048, limit="256M")
    add("memset", "mixed", mib=512, limit="96M", swaps=True)
    check("memset", "mixed", mib=96, limit="24M", swaps=True,
          suffix="-small")
    check("heap", "malloc", mib=48, limit="24M")
    add("heap", "brk calloc trim")
    add("late", "moved")
    add("populate", "mmap write read touch", mib=96, limit="24M", swaps=True)
    add("populate", "sparse", mib=256, limit="24M")
    add("uffd", "missing protect")
    add("exit", "killed exit quick leader orphan atexit")
    add("exit", "kill", status=-signal.SIGKILL)
    add("exit", "abort", status=-signal.SIGABRT)
    add("exit", "segv", status=-signal.SIGSEGV)
    add("signals", "timer threads restart stop")
    # Nearly all of it past the store, on the swap file.
    for program, case in (("threads", "words"), ("fork", "both"),
                          ("mremap", "random"), ("unmap", "partial"),
                          ("madvise", "dontneed"), ("races", "forks"),
                          ("uring", "registered"), ("rw", "file")):
        add(program, case, swaps=True, suffix="-swap")
    add("births", "churn pieces alone", mib=96, limit="48M")
    add("births", "churn pieces", mib=96, limit="48M", user="user",
        suffix="-user")
    add("births", "moves", mib=64, limit="48M")
    # Without capabilities forks are trapped.  A container's filter, too.
    check("fork", "both", mib=64, limit="64M", user="user", suffix="-user")
    check("fork_raw", "clone", mib=48, limit="56M", user="container",
          suffix="-container")
    add("fork", "atfork", mib=64, limit="48M", user="container",
        suffix="-container")
    add("fork", "vfork", user="user", suffix="-user")
    check("fork", "behind", mib=64, limit="48M", user="user", suffix="-user")
    add("fork_raw", "clone3", mib=48, limit="56M", user="user", suffix="-user")
    add("races", "forks", mib=64, limit="64M", user="user", suffix="-user")
    add("madvise", "dontfork", mib=64, limit="56M", user="user",
        suffix="-user")
    add("exec", "forked", mib=64, limit="48M", user="user", suffix="-user")
    add("daemon", "left", mib=64, limit="48M", daemon=True, user="container",
        suffix="-container")
    # A child born under a filter of the program's goes unpaged.
    add("seccomp", "fork", budget=False, user="user", suffix="-user")
    for row in table:
        if row.suite == "long" and row.name in SOAK:
            row.suite = "soak"
    return table


# The budget sampler

libc = ctypes.CDLL(None, use_errno=True)


def kcmp_vm(a, b):
    """How two address spaces compare: 0 same, 1 less, 2 greater, -1 gone."""
    return libc.syscall(SYS_KCMP, a, b, KCMP_VM, 0, 0)


def read_processes():
    """{pid: (ppid, start time, state)} of all that run."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as f:
                fields = f.read().rpartition(b")")[2].split()
        except OSError:
            continue
        found[int(name)] = (int(fields[1]), int(fields[19]), fields[0])
    return found


class Tree:
    """All processes of one run: descendants of the first, whoever was one
    once, and whoever carries the run's mark in its environment."""

    def __init__(self, root, mark):
        self.root, self.mark = root, f"{MARK}={mark}".encode()
        self.known = {}        # pid: start time
        self.strangers = set() # (pid, start time): looked at, not ours

    def carries_mark(self, pid):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                return self.mark in f.read()
        except OSError:
            return False

    def pids(self):
        now = read_processes()
        self.known = {p: s for p, s in self.known.items()
                      if p in now and now[p][1] == s}
        if self.root in now:
            self.known[self.root] = now[self.root][1]
        grew = True
        while grew:
            grew = False
            for pid, (ppid, start, _) in now.items():
                if pid not in self.known and ppid in self.known:
                    self.known[pid] = start
                    grew = True
        for pid, (_, start, _) in now.items():
            if pid in self.known or (pid, start) in self.strangers:
                continue
            if self.carries_mark(pid):
                self.known[pid] = start
            else:
                self.strangers.add((pid, start))
        return [p for p in self.known if now[p][2] not in (b"Z", b"X")]

    def kill(self):
        for pid in self.pids():
            if pid != os.getpid():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass


def one_of_each_mm(pids):
    """Of processes that share an address space, one."""
    known = []

    def order(a, b):
        return {0: 0, 1: -1, 2: 1}.get(kcmp_vm(a, b), a - b)

    for pid in sorted(pids, key=functools.cmp_to_key(order)):
        if not known or kcmp_vm(known[-1], pid) != 0:
            known.append(pid)
    return known


def pss_bytes(pid):
    total = 0
    try:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            for line in f:
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    total += int(line.split()[1]) * 1024
    except OSError:
        pass
    return total


class Sampler(threading.Thread):
    """Samples the tree until told to stop."""

    def __init__(self, tree, allowed):
        super().__init__(daemon=True)
        self.tree, self.allowed = tree, allowed
        self.peak = self.worst = self.samples = 0
        self.done = threading.Event()

    def sample(self):
        spaces = one_of_each_mm(self.tree.pids())
        return sum(pss_bytes(p) for p in spaces), len(spaces)

    def run(self):
        while not self.done.is_set():
            start = time.monotonic()
            total, spaces = self.sample()
            self.peak = max(self.peak, total)
            if total > self.allowed and spaces > 2:
                total = min(total, self.sample()[0])
            self.worst = max(self.worst, total)
            self.samples += 1
            took = time.monotonic() - start
            self.done.wait(max(SAMPLE_SECONDS - took, took))

    def finish(self):
        self.done.set()
        self.join()


def parse_size(text):
    return int(text[:-1]) * {"K": 1 << 10, "M": MIB, "G": 1 << 30}[text[-1]]


# Running

def find_counter(report, key):
    """The largest value of `key` anywhere in the report: the tree's sum."""
    best = 0
    if isinstance(report, dict):
        value = report.get(key)
        if isinstance(value, (int, float)):
            best = value
        report = list(report.values())
    if isinstance(report, list):
        best = max([best] + [find_counter(item, key) for item in report])
    return best


class Failure(Exception):
    pass


class Run:
    """One row, once."""

    def __init__(self, row, options, seed):
        self.row, self.options, self.seed = row, options, seed
        self.dir = tempfile.mkdtemp(prefix="torture-", dir="/var/tmp")
        self.report_file = os.path.join(self.dir, "report.json")
        self.result_file = os.path.join(self.dir, "result")
        self.log_file = os.path.join(self.dir, "log")
        self.timeout = options.timeout or row.timeout
        self.notes = []

    def command(self):
        row, options = self.row, self.options
        program = os.path.join(options.build, "t_" + row.program)
        command = [program] + row.args(self.seed)
        if options.native:
            return self.prefix() + command
        return self.prefix() + ([options.tmem, "run", "-m", row.limit, "--report", "json",
                 "--report-file", self.report_file, "--swap-dir", self.dir] +
                row.options +
                options.option + ["--"] + command)

    def prefix(self):
        """Who runs it: see tools/as-user."""
        who = self.options.user or self.row.user
        if not who:
            return []
        command = [AS_USER, "--write", self.dir]
        return command + (["--container", "--"] if who == "container"
                          else ["--"])

    def environment(self, mark):
        more = {MARK: mark}
        if self.options.chaos:
            more["TMEM_CHAOS"] = self.options.chaos
        return dict(os.environ, TT_LOG=self.log_file,
                    TT_RESULT=self.result_file, **more)

    def run(self):
        mark = uuid.uuid4().hex
        with open(self.log_file, "ab") as log:
            os.chmod(self.log_file, 0o666)
            child = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
                env=self.environment(mark))
        tree = Tree(child.pid, mark)
        size = parse_size(self.row.limit)
        sampler = Sampler(tree, size + max(size * 3 // 100, 16 * MIB))
        if not self.options.native:
            sampler.start()
        try:
            status = self.wait(child, tree)
            self.check_result_file(tree)
        finally:
            if not self.options.native:
                sampler.finish()
            self.no_survivors(child, tree)
        self.check_status(status)
        if not self.options.native:
            self.check_report()
            self.check_budget(sampler)

    def wait(self, child, tree):
        try:
            return child.wait(self.timeout)
        except subprocess.TimeoutExpired:
            for pid in tree.pids():
                self.notes.append(describe(pid))
            tree.kill()
            child.wait()
            raise Failure(f"no end after {self.timeout} s") from None

    def no_survivors(self, child, tree):
        # Orphans may have work to do for some seconds on a busy machine.
        deadline = time.monotonic() + self.timeout / 2
        while left := tree.pids():
            if time.monotonic() > deadline:
                names = ", ".join(describe(p) for p in left)
                tree.kill()
                raise Failure(f"left running: {names}")
            time.sleep(0.02)
        child.poll()

    def check_result_file(self, tree):
        """A daemon's verdict: the program itself has ended long before."""
        if not self.row.daemon:
            return
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                with open(self.result_file) as f:
                    text = f.read()
            except FileNotFoundError:
                text = ""
            if text.endswith("\n"):
                break
            if time.monotonic() > deadline or not tree.pids():
                raise Failure("the daemon wrote no result")
            time.sleep(0.02)
        if not text.startswith("ok"):
            raise Failure(text.strip())

    def check_status(self, status):
        expected = self.row.status
        if status == SKIP:
            raise unavailable(self.log())
        failed = [l for l in self.log().splitlines()
                  if l.startswith("FAILED")]
        if failed: # a process that nobody waits for may have said so
            raise Failure(failed[0])
        # tmem run ends as the program did; a shell's 128 + n counts too.
        if status != expected and not (
                expected < 0 and status == 128 - expected):
            raise Failure(f"exit status {status}, expected {expected}")

    def check_report(self):
        try:
            with open(self.report_file) as f:
                report = json.load(f)
        except (OSError, ValueError) as error:
            raise Failure(f"report: {error}") from None
        store = find_counter(report, "evicted_store")
        swap = find_counter(report, "evicted_swap")
        stalls = find_counter(report, "stall_ns") / 1e9
        outside = find_counter(report, "not_paged_count")
        if outside:
            self.notes.append(f"{outside} processes not paged")
        self.notes.append(f"evicted {store}+{swap} pages, "
                          f"stalled {stalls:.1f} s")
        if self.row.evicts and store + swap == 0:
            raise Failure("no page was evicted: proves nothing")
        if self.row.swaps and swap == 0:
            raise Failure("no page reached the swap file: proves nothing")
        lost = find_counter(report, "faults_lost")
        if lost:
            raise Failure(f"{lost} pages were lost")

    def check_budget(self, sampler):
        self.notes.append(f"peak {sampler.peak / MIB:.1f} MiB of "
                          f"{self.row.limit}")
        if self.options.chaos: # who is late or refused holds more
            return
        if self.row.budget and sampler.worst > sampler.allowed:
            raise Failure(f"over budget: {sampler.worst / MIB:.1f} MiB, "
                          f"allowed {sampler.allowed / MIB:.1f} MiB")

    def log(self):
        with open(self.log_file, errors="replace") as f:
            return f.read()[-3000:]

    def clean(self):
        for name in os.listdir(self.dir):
            os.unlink(os.path.join(self.dir, name))
        os.rmdir(self.dir)


class Unavailable(Exception):
    pass


def unavailable(log):
    lines = [l for l in log.splitlines() if l.startswith("SKIPPED")]
    return Unavailable(lines[-1] if lines else "status 77")


def describe(pid):
    def read(name):
        try:
            with open(f"/proc/{pid}/{name}") as f:
                return f.read().strip()
        except OSError:
            return "?"
    return (f"{pid} ({read('comm')}) in {read('wchan')}, syscall "
            f"{read('syscall').split(' ')[0]}")


def run_row(row, options, seed):
    run = Run(row, options, seed)
    try:
        return report_row(run, row, seed)
    finally:
        run.clean()


def report_row(run, row, seed):
    """Prints one line; 0 if ok, 1 if not, 2 if it can't be done here."""
    start, verdict, result = time.monotonic(), "ok", 0
    try:
        run.run()
    except Unavailable as reason:
        verdict, result = "skip", 2
        run.notes.append(str(reason))
    except Failure as reason:
        verdict, result = "not ok", 1
        run.notes.insert(0, str(reason))
    took = time.monotonic() - start
    notes = "; ".join(run.notes)
    print(f"{verdict} {row.name} {took:.1f} s{'; ' + notes if notes else ''}",
          flush=True)
    if result == 1:
        print(f"# seed {seed}: {' '.join(run.command())}")
        for line in run.log().splitlines():
            print(f"#   {line}", flush=True)
    return result


def select(options):
    chosen = [r for r in rows() if not options.names or
              any(r.name == n or r.program == n for n in options.names)]
    if options.suite:
        chosen = [r for r in chosen if r.suite == options.suite]
    if options.native:
        chosen = [r for r in chosen if r.native_ok]
    return chosen


def parse_arguments():
    here = os.path.dirname(os.path.abspath(__file__))
    root = os.path.dirname(os.path.dirname(here))
    p = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    p.add_argument("names", nargs="*", help="rows, or programs")
    p.add_argument("--build", help="folder of the torture programs",
                   default=os.path.join(root, "build", "tests", "e2e"))
    p.add_argument("--tmem", default=os.path.join(root, "build", "tmem"))
    p.add_argument("--as-user", dest="user", action="store_const",
                   const="user", help="an ordinary one who has the device")
    p.add_argument("--container", dest="user", action="store_const",
                   const="container", help="as in a container, too")
    p.add_argument("--native", action="store_true", help="without tmem")
    p.add_argument("--option", action="append", default=[],
                   help="of tmem run, as --option=--read-ahead=off")
    p.add_argument("--all-off", action="store_true",
                   help="without all policies that tmem run can switch off")
    p.add_argument("--chaos", metavar="SEED[,KIND=PER_MILLE]...",
                   help="with the pager of tests/chaos: src/base/chaos.h")
    p.add_argument("--suite", choices=["check", "long", "soak"])
    p.add_argument("--repeat", type=int, default=1)
    p.add_argument("--seed", type=int,
                   default=int(os.environ.get("TMEM_SEED", 0)) or
                   random.randrange(1, 1 << 31))
    p.add_argument("--timeout", type=int, help="seconds for each run")
    p.add_argument("--list", action="store_true")
    return p.parse_args()


def main():
    # Told to stop: the tree is still taken down, see Run.run().
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    options = parse_arguments()
    chosen = select(options)
    if options.list:
        for row in chosen:
            print(row.suite, row.name,
                  "alone" if row.program in ALONE else "beside")
        return 0
    if not chosen:
        print("no such row", file=sys.stderr)
        return 1
    print(f"# seed {options.seed}")
    if options.all_off:
        options.option += switches.all_off(options.tmem)
    results = [run_row(row, options, options.seed + i)
               for i in range(options.repeat) for row in chosen]
    failed = results.count(1)
    print(f"# {len(results)} runs, {failed} failed, "
          f"{results.count(2)} skipped")
    if failed:
        return 1
    return SKIP if results.count(2) == len(results) else 0


if __name__ == "__main__":
    sys.exit(main())
