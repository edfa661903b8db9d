#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Real programs, each in half of the memory it needs.

usage: matrix.py --tmem PATH [--churn PATH] [--seed N] [--at-least PAGES]
                 [--option=OPTION]... [--all-off] [--chaos SPEC] ROW
       matrix.py --list

A row is run free first, which tells its output and its need (the peak of
Pss_Anon + Pss_Shmem of its processes), then under `tmem run -m NEED/2`.  It
passes if the second run prints and leaves behind exactly what the first did,
stays in its budget, and its report says that pages were really evicted.
Exit status 77 says that the program isn't installed.
"""
import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "tools"),
                os.path.join(HERE, "..", "lib")]
import programs  # noqa: E402
import pss  # noqa: E402
import redis_job  # noqa: E402
import switches  # noqa: E402

MIB = 1 << 20
SKIP = 77
SMALLEST = 20 * MIB
TIMEOUT = 840   # a test's own may come first
PYTHON = "/usr/bin/python3"


class Failure(Exception):
    """What is wrong with this row, for a person."""


class Place:
    """One run's folder, and how its commands are to be started."""

    def __init__(self, folder, options, prefix, allowed):
        self.folder = folder
        self.prefix = prefix      # [] or [tmem, run, ..., --]
        self.options = options
        self.allowed = allowed    # bytes, or None
        self.peak = 0
        self.env = dict(os.environ, LC_ALL="C", HOME=folder, TMPDIR=folder,
                        PYTHONHASHSEED="0", PYTHONDONTWRITEBYTECODE="1")
        self.env.pop("MALLOC_PERTURB_", None)  # meson sets it: fills memory
        self.reports = 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.writelines([text] if isinstance(text, str) else text)
        return self.path(name)

    def command(self, argv):
        if not self.prefix:
            return argv
        self.reports += 1
        return self.prefix + [
            "--report", "json", "--report-file",
            self.path("report-%d.json" % self.reports), "--"] + argv

    def start(self, argv, **how):
        child = subprocess.Popen(self.command(argv), env=self.env,
                                 cwd=self.folder, start_new_session=True,
                                 **how)
        child.sampler = pss.Sampler(
            child.pid, 0.1 if self.prefix else 0.03, self.allowed)
        return child

    def finish(self, child, timeout=TIMEOUT, send=None):
        """Waits for a started command; returns what it printed."""
        try:
            out, err = child.communicate(send, timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            raise Failure("still running after %d s" % timeout) from None
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)    # we are ended ourselves
            raise
        finally:
            self.peak = max(self.peak, child.sampler.stop())
        if child.returncode != 0:
            raise Failure("exit status %d\n%s%s" % (
                child.returncode, (out or b"").decode(errors="replace")[-2000:],
                (err or b"").decode(errors="replace")[-2000:]))
        return out

    def run(self, argv, send=None):
        return self.finish(self.start(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE), send=send)


def digest_of(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while True:
            part = f.read(MIB)
            if not part:
                return h.hexdigest()
            h.update(part)


def need_program(*names):
    for name in names:
        if not shutil.which(name):
            print("no %s here" % name)
            sys.exit(SKIP)


def python_row(text, size):
    def row(place):
        return place.run([PYTHON, place.write("job.py", text), str(size)])
    return row


def redis(keys):
    def row(place):
        need_program("redis-server")
        return redis_job.run(place, keys)
    return row


def sqlite(rows):
    def row(place):
        need_program("sqlite3")
        text = programs.SQLITE.format(rows=rows)
        out = place.run(["sqlite3", "-batch", ":memory:"], text.encode())
        if not out.endswith(b"\nok\n"):
            raise Failure("integrity_check: %r" % out[-300:])
        return out
    return row


def gcc(functions):
    def row(place):
        need_program("gcc")
        source = place.write("big.c", programs.big_c_file(functions))
        place.run(["gcc", "-O2", "-c", "-frandom-seed=1", "-o", "big.o",
                   os.path.basename(source)])
        return digest_of(place.path("big.o"))
    return row


def write_lines(place, name, lines, width=1):
    def text():
        for i in range(lines):
            h = hashlib.sha256(b"%d" % i).hexdigest()
            yield "%s some text of line %d, %s\n" % (
                h[:16], i, "with the same words in all of them; " * width)
    return place.write(name, text())


def sort(lines):
    """Long lines: a sort touches each of them many times, at random."""
    def row(place):
        source = write_lines(place, "lines", lines, width=18)
        place.run(["sort", "-S", "700M", "--parallel=2", "-o", "sorted",
                   source])
        place.run(["sort", "-c", "sorted"])
        return digest_of(place.path("sorted"))
    return row


def xz(lines):
    def row(place):
        need_program("xz")
        source = write_lines(place, "lines", lines)
        place.run(["xz", "-9", "-k", "-T1", source])
        place.run(["xz", "-d", "-c", "-k", "--stdout", "lines.xz"])
        packed = digest_of(place.path("lines.xz"))
        os.rename(place.path("lines.xz"), place.path("again.xz"))
        place.run(["xz", "-d", "again.xz"])
        if digest_of(place.path("again")) != digest_of(source):
            raise Failure("what was unpacked is not what was packed")
        return packed
    return row


def stress(*methods):
    def row(place):
        need_program("stress-ng")
        for method in methods:
            place.run(["stress-ng", "--vm", "2", "--vm-bytes", "128M",
                       "--vm-keep", "--vm-method", method, "--verify",
                       "--vm-ops", "2000", "--timeout", "60",
                       "--oomable", "--quiet"])
        return "verified by itself: %s" % " ".join(methods)
    return row


def churn(mib, threads, rounds, preload=None):
    def row(place):
        if preload:
            place.env["LD_PRELOAD"] = preload
        out = place.run([place.options.churn, str(mib), str(threads),
                         str(rounds), str(place.options.seed)])
        if preload and b"jemalloc" not in out:
            if not place.prefix:
                print("no %s here" % preload)
                sys.exit(SKIP)
            raise Failure("the LD_PRELOAD that was there is gone: %r" % out)
        return out
    return row


def perl(size):
    def row(place):
        need_program("perl")
        return place.run(["perl", place.write("job.pl", programs.PERL),
                          str(size)])
    return row


def node(size):
    def row(place):
        need_program("node")
        return place.run(["node", "--max-old-space-size=4096",
                          place.write("job.js", programs.NODE), str(size)])
    return row


def java(size):
    def row(place):
        need_program("java", "javac")
        place.write("Main.java", programs.JAVA)
        subprocess.run(["javac", "Main.java"], cwd=place.folder, check=True)
        return place.run(["java", "-Xmx1g", "-cp", place.folder, "Main",
                          str(size)])
    return row


def openssl(lines):
    """Ed25519 signs in one piece: openssl holds the whole file."""
    def row(place):
        need_program("openssl")
        source = write_lines(place, "lines", lines)
        key = place.write("key.pem", "-----BEGIN PRIVATE KEY-----\n"
                          "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMRE"
                          "Scui2/nFCKHp7cuw6U/q\n-----END PRIVATE KEY-----\n")
        place.run(["openssl", "pkeyutl", "-sign", "-inkey", key, "-rawin",
                   "-in", source, "-out", "signature"])
        place.run(["openssl", "pkeyutl", "-verify", "-inkey", key, "-rawin",
                   "-in", source, "-sigfile", "signature"])
        return digest_of(place.path("signature"))
    return row


ROWS = {
    # a sample, for `make check`
    "python-dicts-small": python_row(programs.PYTHON_DICTS, 60000),
    "perl-small": perl(30000),
    "sort-small": sort(100000),
    "churn-small": churn(100, 4, 8),
    # for an ordinary user, whose forks are trapped
    "python-pool-small": python_row(programs.PYTHON_POOL, 60000),
    "python-subprocess-small": python_row(programs.PYTHON_SUBPROCESS, 60000),
    # for a guest whose CPU is emulated: a few thousand pages are evicted
    "python-dicts-tiny": python_row(programs.PYTHON_DICTS, 14000),
    "redis-tiny": redis(40000),
    "sqlite-tiny": sqlite(55000),
    "sort-tiny": sort(30000),
    "churn-tiny": churn(24, 2, 2),
    # all of it
    "python-dicts": python_row(programs.PYTHON_DICTS, 100000),
    "python-pool": python_row(programs.PYTHON_POOL, 300000),
    "python-subprocess": python_row(programs.PYTHON_SUBPROCESS, 250000),
    "redis": redis(300000),
    "sqlite": sqlite(700000),
    "gcc": gcc(1200),
    "sort": sort(300000),
    "xz": xz(60000),
    "xz-half": xz(60000),
    "stress-ng": stress("flip", "galpat-0", "gray", "incdec", "modulo-x",
                        "move-inv", "rand-set", "ror", "swap", "walk-1d",
                        "zero-one"),
    "churn": churn(300, 6, 10),
    "churn-jemalloc": churn(150, 4, 12, preload="libjemalloc.so.2"),
    "perl": perl(100000),
    "node": node(150000),
    "java": java(400000),
    "openssl": openssl(2000000),
}

# A program that looks at random places of all of its memory for every byte, as
# xz's match finder does, takes minutes in half of its need: xz-half, by hand.
SHARE = {"xz": 0.8}

# Where a MiB more or less makes ten times as many faults, or none: the limit.
LIMIT_MIB = {"python-dicts-tiny": 25, "redis-tiny": 26}


def total(report, key):
    """The sum of all numbers called `key`, wherever in the report."""
    if isinstance(report, dict):
        return sum(v if k == key and isinstance(v, (int, float))
                   else total(v, key) for k, v in report.items())
    if isinstance(report, list):
        return sum(total(v, key) for v in report)
    return 0


def check_reports(place, at_least):
    evicted = 0
    for i in range(1, place.reports + 1):
        with open(place.path("report-%d.json" % i), encoding="utf-8") as f:
            report = json.load(f)
        evicted += total(report, "evicted_store")
        evicted += total(report, "evicted_swap")
        if total(report, "faults_lost"):
            raise Failure("pages were lost: %s" % report)
    if evicted < at_least:
        raise Failure("%d pages were evicted: the row proves nothing" %
                      evicted)
    return evicted


def measure(row, folder, options, prefix=(), allowed=None):
    os.mkdir(folder)
    place = Place(folder, options, list(prefix), allowed)
    start = time.monotonic()
    answer = row(place)
    return place, answer, time.monotonic() - start


def run_row(name, options):
    row = ROWS[name]
    with tempfile.TemporaryDirectory(dir=options.dir) as top:
        free, want, free_seconds = measure(row, os.path.join(top, "free"),
                                           options)
        limit = LIMIT_MIB.get(name, 0) * MIB or \
            max(int(free.peak * SHARE.get(name, 0.5)), SMALLEST)
        print("%s: free: needs %d MiB, %.1f s" %
              (name, free.peak // MIB, free_seconds), flush=True)
        prefix = [options.tmem, "run", "-m", "%dK" % (limit // 1024)] + \
            options.option
        allowed = limit + max(limit * 3 // 100, 16 * MIB)
        half, got, seconds = measure(row, os.path.join(top, "half"), options,
                                     prefix, allowed)
        evicted = check_reports(half, options.at_least)
    print("%s: in %d MiB: peak %d MiB, %.1f s (%.2f x), %d pages evicted" %
          (name, limit // MIB, half.peak // MIB, seconds,
           seconds / free_seconds, evicted))
    if got != want:
        raise Failure("printed %r, free run printed %r" %
                      (got[:2000], want[:2000]))
    # Who is late or refused holds more.
    if half.peak > allowed and not options.chaos:
        raise Failure("used %.1f MiB, may use %.1f MiB" %
                      (half.peak / MIB, allowed / MIB))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--tmem")
    p.add_argument("--churn")
    p.add_argument("--option", action="append", default=[],
                   help="of tmem run, as --option=--read-ahead=off")
    p.add_argument("--all-off", action="store_true",
                   help="without all policies that tmem run can switch off")
    p.add_argument("--chaos", metavar="SEED[,KIND=PER_MILLE]...",
                   help="with the pager of tests/chaos: src/base/chaos.h")
    p.add_argument("--seed", type=int,
                   default=int(os.environ.get("TMEM_SEED", "1")))
    p.add_argument("--at-least", type=int, default=1, metavar="PAGES",
                   help="so many have to be evicted")
    p.add_argument("--dir", default="/var/tmp")
    p.add_argument("--list", action="store_true")
    p.add_argument("row", nargs="?", choices=sorted(ROWS))
    options = p.parse_args()
    if options.list or not options.row:
        print("\n".join(ROWS))
        return 0
    if not options.tmem:
        p.error("--tmem PATH is needed")
    options.tmem = os.path.abspath(options.tmem)
    if options.all_off:
        options.option += switches.all_off(options.tmem)
    if options.chaos:
        os.environ["TMEM_CHAOS"] = options.chaos
    options.churn = options.churn and os.path.abspath(options.churn)
    signal.signal(signal.SIGTERM, lambda n, _: sys.exit(128 + n))
    try:
        run_row(options.row, options)
    except (Failure, redis_job.Failure) as f:
        print("%s: FAILED: %s" % (options.row, f))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
