#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tmem core: what was evicted when a program died is in the rebuilt core, to
the byte, and a debugger reads it there.

--fake is core_victim here, --pager the real one.  The kernel writes the cores,
as core_pattern has it: where that is not a plain name, these tests are skipped.
"""

import glob
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import unittest

from cli_lib import Case, Place, main, read_file

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
PAGE = 4096
WORDS = PAGE // 8
MASK = (1 << 64) - 1
NR_NOISE = 100
NR_FRAMES = 18 * 16                 # that pages leave by: src/pager/frames.h
ANCHOR = 0x7ffffffff000 - 4 * PAGE     # src/wire/anchor.h
ZEROS = bytes(PAGE)
KEY_AT, KEY_BYTES = 2048 + 8, 32    # in the slot map: base/seal.h

# Objects of known content; where each lies goes to a file, then it dies.
PYTHON = r"""
import hashlib, json, os, sys
records = [(b"%d,name-%d;" % (i, i * 7)) * (20 + i % 300)
           for i in range(10000)]
index = {b"%d" % i: r for i, r in enumerate(records)}
with open(sys.argv[1], "w") as f:
    json.dump([(id(r) + bytes.__basicsize__ - 1, len(r),
                hashlib.sha256(r).hexdigest()) for r in records], f)
filler = [b"%d" % i * 90 for i in range(80000)]
os.abort()
"""


def core_pattern():
    return read_file("/proc/sys/kernel/core_pattern").strip()


def page_of(number):
    """Of the array of core_victim.c."""
    words = [number * 3 + 1] * (WORDS - NR_NOISE)
    words += [i * 0x9e3779b97f4a7c15 & MASK for i in
              range((number + 1) * WORDS - NR_NOISE, (number + 1) * WORDS)]
    return struct.pack("<%dQ" % WORDS, *words)


class CoreFile:
    """Memory by address, as readelf would find it."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = f.read()
        at, = struct.unpack_from("<Q", self.data, 32)
        n, = struct.unpack_from("<H", self.data, 56)
        self.segments = []
        for i in range(n):
            h = struct.unpack_from("<IIQQQQQQ", self.data, at + 56 * i)
            if h[0] == 1:
                self.segments.append((h[3], h[5], h[2]))

    def place(self, addr):
        for start, size, offset in self.segments:
            if start <= addr < start + size:
                return offset + addr - start
        raise AssertionError("%#x is not in the core" % addr)

    def read(self, addr, size):
        """Within neighbouring mappings, too."""
        out = b""
        while len(out) < size:
            for start, bytes_, offset in self.segments:
                if start <= addr + len(out) < start + bytes_:
                    break
            else:
                raise AssertionError("%#x is not in the core" % addr)
            skip = addr + len(out) - start
            n = min(size - len(out), bytes_ - skip)
            out += self.data[offset + skip:offset + skip + n]
        return out


def keeper_file(pid, name):
    """A file of a keeper's, whose front has that pid, by what it is called."""
    for other in os.listdir("/proc"):
        try:
            with open("/proc/%s/stat" % other, encoding="latin-1") as f:
                comm, _, rest = f.read().partition("(")[2].rpartition(")")
            if comm != "tmem-keeper" or int(rest.split()[1]) != pid:
                continue
            for fd in os.listdir("/proc/%s/fd" % other):
                path = "/proc/%s/fd/%s" % (other, fd)
                if name in os.readlink(path):
                    return path
        except OSError:
            continue
    raise AssertionError("no keeper with " + name)


class Core(Case):
    def setUp(self):
        super().setUp()
        pattern = core_pattern()
        if not pattern or pattern[0] == "|" or "/" in pattern:
            self.skipTest("core_pattern is " + pattern)
        if self.tmem("doctor")[0] != 0:
            self.skipTest("can't page here: see tmem doctor")

    def dumping(self, *args, **more):
        """Like start(), in our folder, and a core may be written."""
        return self.start(*args, cwd=self.folder, preexec_fn=lambda:
                          resource.setrlimit(resource.RLIMIT_CORE,
                                             (resource.RLIM_INFINITY,) * 2),
                          **more)

    def core(self):
        found = [p for p in glob.glob(self.path("*core*"))
                 if not p.endswith(".tmem")]
        self.assertEqual(len(found), 1, found)
        return found[0]

    def run_victim(self, mib, memory, end="abort"):
        """The core, and where the array is."""
        process = self.dumping("run", "-m", memory, "--", Place.fake,
                               str(mib), end)
        where = process.stdout.readline().split()
        process.wait()
        self.assertEqual(process.returncode,
                         -(signal.SIGSEGV if end == "segv" else
                           signal.SIGABRT), process.stderr.read())
        return self.core(), [int(x, 16) for x in where[:2]]

    def rebuild(self, core, *args):
        status, out, err = self.tmem("core", "--json", *args, core)
        self.assertIn(status, (0, 1), err)
        report = json.loads(out)
        self.assertEqual(status, len(report["missing"]) > 0)
        self.assertEqual((err, report["damaged_parts"]), ("", 0))
        missing = set()
        for m in report["missing"]:
            # The pager may have been at work for a moment when it crashed.
            self.assertIn(m["why"], ("swapped", "unsure"))
            missing.update(range(int(m["start"], 16), int(m["end"], 16),
                                 PAGE))
        self.assertEqual(len(missing), report["swapped_pages"] +
                         report["unsure_pages"])
        self.assertLessEqual(report["unsure_pages"], NR_FRAMES)
        return report, missing

    def pages_of(self, core, where):
        memory = CoreFile(core).read(*where)
        return [memory[at:at + PAGE] for at in range(0, where[1], PAGE)]

    def gdb(self, program, core, *what):
        if not shutil.which("gdb"):
            self.skipTest("no gdb")
        args = ["gdb", "-nx", "-batch"]
        for w in what:
            args += ["-ex", w]
        return subprocess.run(args + [program, core], text=True, timeout=60,
                              stdout=subprocess.PIPE, check=True,
                              stderr=subprocess.DEVNULL).stdout

    def test_gdb_reads_a_crashed_program(self):
        core, where = self.run_victim(40, "24M", "segv")
        before = self.pages_of(core, where)
        report, missing = self.rebuild(core)
        self.assertEqual(report["swapped_pages"], 0)
        self.assertEqual(report["output"], core + ".tmem")
        out = [i for i, page in enumerate(before)
               if page == ZEROS and where[0] + i * PAGE not in missing]
        self.assertGreater(len(out), 2000)
        self.assertGreaterEqual(report["rebuilt_pages"], len(out))
        self.check_array(core + ".tmem", where, missing)
        # Nothing else was changed, and what was a hole may be one.
        self.same_but_for_zeros(core, core + ".tmem")
        a, b = os.stat(core), os.stat(core + ".tmem")
        self.assertEqual((a.st_size, a.st_mode), (b.st_size, b.st_mode))
        self.assertLessEqual(b.st_blocks, a.st_blocks +
                             report["rebuilt_pages"] * 8 * 1.5 + 4096)
        self.ask_gdb(core, out)

    def same_but_for_zeros(self, core, out):
        with open(core, "rb") as a, open(out, "rb") as b:
            while True:
                x, y = a.read(PAGE), b.read(PAGE)
                if not x and not y:
                    return
                self.assertTrue(x in (y, bytes(len(y))))

    def ask_gdb(self, core, out):
        i = out[len(out) // 2] * WORDS
        asked = ("print array[%d]" % i, "print array[%d]" % (i + WORDS - 1),
                 "print first->name", "print first->next->next->number")
        self.assertIn("$1 = 0\n", self.gdb(Place.fake, core, *asked))
        said = self.gdb(Place.fake, core + ".tmem", *asked)
        for value in ("$1 = %d\n" % (i // WORDS * 3 + 1),
                      "$2 = %d\n" % ((i + WORDS - 1) *
                                     0x9e3779b97f4a7c15 & MASK),
                      '"node number 49999"', "$4 = 49997\n"):
            self.assertIn(value, said)

    def test_what_was_swapped_is_listed_and_the_key_stays_secret(self):
        process = self.dumping("run", "-m", "16M", "--", Place.fake, "64",
                               "pause")
        *where, victim = [int(x, 16) for x in
                          process.stdout.readline().split()]
        with open(keeper_file(process.pid, "tmem-swapmap"), "rb") as f:
            key = f.read(KEY_AT + KEY_BYTES)[KEY_AT:]
        self.assertGreater(len(set(key)), 8)
        os.kill(victim, signal.SIGABRT)
        process.wait()
        core = self.core()
        report, missing = self.rebuild(core, "-o", self.path("out"))
        self.assertGreater(report["swapped_pages"], 100)
        self.assertGreater(report["rebuilt_pages"], 100)
        self.check_array(self.path("out"), where, missing)
        for path in (core, self.path("out")):
            with open(path, "rb") as f:
                data = f.read()
            self.assertEqual(data.count(key[:16]) + data.count(key[16:]), 0)
        text = self.tmem("core", "--in-place", core)
        self.assertEqual(text[0], 1)
        self.assertRegex(text[1], r"missing +0x[0-9a-f]+-0x[0-9a-f]+, "
                                  r"[0-9]+ pages?: in the swap file")
        self.assertEqual(read_bytes(core), read_bytes(self.path("out")))
        # A second time there is nothing left to do.
        again = self.rebuild(core, "--in-place")[0]
        self.assertEqual((again["rebuilt_pages"], again["present_pages"]),
                         (0, report["rebuilt_pages"]))

    def check_array(self, core, where, missing):
        for i, page in enumerate(self.pages_of(core, where)):
            self.assertEqual(page, ZEROS if where[0] + i * PAGE in missing
                             else page_of(i), "page %d" % i)

    def test_python(self):
        process = self.dumping("run", "-m", "28M", "--swap-max", "0",
                               "--", sys.executable, "-c", PYTHON,
                               self.path("where"))
        process.wait()
        core = self.core()
        missing = self.rebuild(core)[1]
        before, after = CoreFile(core), CoreFile(core + ".tmem")
        wrong = 0
        for addr, size, digest in json.loads(read_file(self.path("where"))):
            if missing.intersection(range(addr // PAGE * PAGE, addr + size,
                                          PAGE)):
                continue
            self.assertEqual(
                hashlib.sha256(after.read(addr, size)).hexdigest(), digest)
            if hashlib.sha256(before.read(addr, size)).hexdigest() != digest:
                wrong = addr
        self.assertTrue(wrong, "nothing was out")
        said = self.gdb(sys.executable, core + ".tmem", "x/s %d" % wrong)
        self.assertRegex(said, r'"[0-9]+,name-[0-9]+;')

    def failed(self, *args):
        got = self.tmem("core", *args)
        self.assertEqual((got[0], got[1]), (125, ""), got)
        self.assertEqual(got[2].count("\n"), 1)
        return got[2]

    def test_other_cores_are_told(self):
        core, where = self.run_victim(24, "16M")
        self.assertGreater(where[0], 0)
        out = core + ".tmem"
        self.assertIn("the core dump itself", self.failed("-o", core, core))
        data = bytearray(read_bytes(core))
        at = CoreFile(core).place(ANCHOR)
        self.assertEqual(data[at:at + 11], b"tmem anchor")
        write_bytes(self.path("other"), data[:at + 48] + b"?" +
                    data[at + 49:])
        self.assertIn("another build", self.failed(self.path("other")))
        write_bytes(self.path("none"), data[:at] + b"?" + data[at + 1:])
        self.assertIn("no pager", self.failed(self.path("none")))
        write_bytes(self.path("short"), data[:-PAGE])
        self.assertIn("truncated", self.failed(self.path("short")))
        # None of these left anything behind.
        self.assertFalse(os.path.exists(out))
        self.assertEqual(sorted(os.listdir(self.folder)),
                         sorted([os.path.basename(core), "other", "none",
                                 "short"]))


class Words(Case):
    """What needs no core."""

    def failed(self, *args):
        got = self.tmem("core", *args)
        self.assertEqual((got[0], got[1]), (125, ""), got)
        self.assertEqual(got[2].count("\n"), 1)
        return got[2]

    def test_other_files(self):
        write_bytes(self.path("text"), b"no core\n")
        write_bytes(self.path("zstd"), b"\x28\xb5\x2f\xfd1234")
        self.assertIn("not a core dump", self.failed(self.path("text")))
        self.assertIn("compressed", self.failed(self.path("zstd")))
        self.assertIn("an ELF file", self.failed(Place.fake))
        self.assertIn("No such file", self.failed(self.path("nowhere")))
        self.assertIn("s a directory", self.failed(self.folder))
        self.assertIn("not a regular file", self.failed("/dev/null"))
        self.assertIn("needed", self.failed())
        self.assertIn("needed", self.failed("a", "b"))
        self.assertIn("exclude", self.failed("--in-place", "-o", "x", "y"))
        self.assertIn("--bad", self.failed("--bad"))

    def test_help_and_manual_and_completion(self):
        status, out, _ = self.tmem("core", "--help")
        options = set(re.findall(r"--[a-z-]+", out.split("Options:")[1]
                                 .split("Examples:")[0]))
        self.assertEqual((status, options),
                         (0, {"--output", "--in-place", "--json", "--help"}))
        manual = read_file(ROOT + "/man/tmem-core.1.scd")
        script = read_file(ROOT + "/completions/tmem.bash")
        part = script.split("_tmem_core()")[1].split("\n}")[0]
        for option in options:
            self.assertIn("*%s*" % option, manual)
            self.assertIn(option, part)
        self.assertIn("core", self.tmem("--help")[1])


def read_bytes(path):
    with open(path, "rb") as f:
        return f.read()


def write_bytes(path, data):
    with open(path, "wb") as f:
        f.write(data)


if __name__ == "__main__":
    main()
