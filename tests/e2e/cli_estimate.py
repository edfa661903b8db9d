#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tmem estimate: right about known content, and it leaves processes alone."""

import json
import os
import signal
import subprocess
import sys

from cli_lib import Case, Place, main, stat_fields, wait_for

PAGE = 4096
MIB = 1 << 20

# Half zeros that were written, half noise; then it works on a part of them,
# counting, until it is told to print a digest.
HOLDER = r"""
import hashlib, mmap, random, signal, sys, time
size, part = int(sys.argv[1]) << 20, float(sys.argv[2])
memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
rnd = random.Random(7)
for at in range(0, size, 8192):
    memory[at:at + 4096] = rnd.randbytes(4096)
    memory[at + 4096] = 0
ends = []
signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
print(hashlib.sha256(memory).hexdigest(), flush=True)
count = 0
while not ends:
    for at in range(0, int(size * part), 4096):
        count += memory[at] >= 0
    time.sleep(0.001)
print(hashlib.sha256(memory).hexdigest(), count, flush=True)
"""


class Estimate(Case):
    def hold(self, mib, part=0.0):
        """A process with that much known memory, and its digest."""
        child = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(mib), str(part)],
            stdout=subprocess.PIPE, text=True)
        self.started.append(child)
        return child, child.stdout.readline().strip()

    def estimate(self, *args):
        got = self.tmem("estimate", "--json", *args)
        self.assertEqual((got[0], got[2]), (0, ""), got)
        r = json.loads(got[1])
        self.check(r)
        return r

    def check(self, r):
        self.assertEqual(r["pageable_bytes"] + r["fixed_bytes"],
                         r["need_bytes"])
        self.assertEqual([round(b["percent_of_need"]) for b in
                          r["budgets"][:6]], [90, 75, 60, 50, 40, 30])
        for more, less in zip(r["budgets"][:6], r["budgets"][1:6]):
            self.assertGreaterEqual(more["resident_percent"],
                                    less["resident_percent"])
            self.assertLessEqual(more["refault_percent"],
                                 less["refault_percent"] + 1e-6)
            self.assertGreaterEqual(more["fits"], less["fits"])
        for b in r["budgets"]:
            self.assertEqual(b["fits"], b["swap_file_bytes"] == 0 and
                             not b["too_small"])
            self.assertTrue(0 <= b["refault_percent"] <= 100.001, b)
        self.assertIn("refaults", r["advice"] + r["assumption"])
        self.assertNotIn("\n", r["assumption"])

    def test_half_zeros_half_noise(self):
        child, _ = self.hold(64)
        r = self.estimate(str(child.pid))
        # Python itself needs some MiB.
        self.assertTrue(64 * MIB < r["need_bytes"] < 90 * MIB, r)
        self.assertTrue(64 * MIB <= r["pageable_bytes"], r)
        self.assertTrue(40 < r["same_filled_percent"] <= 51, r)
        self.assertTrue(40 < r["hopeless_percent"] <= 51, r)
        self.assertEqual(r["access"]["way"], "uniform")
        self.assertIsNone(r["budgets"][0]["refaults_per_cpu_second"])
        fits = {round(b["percent_of_need"]): b["fits"] for b in r["budgets"]}
        self.assertTrue(fits[90] and fits[75] and fits[60], r)
        self.assertFalse(fits[40] or fits[30], r)
        # Nobody watched: as much as is missing.
        for b in r["budgets"]:
            self.assertAlmostEqual(b["refault_percent"],
                                   100 - b["resident_percent"])

    def look_of(self, pid):
        """What must be the same afterwards."""
        folder = "/proc/%d/" % pid
        with open(folder + "maps", encoding="utf-8") as f:
            maps = f.read()
        with open(folder + "smaps_rollup", encoding="utf-8") as f:
            sizes = [line for line in f if line.startswith(
                ("Rss:", "Anonymous:", "Swap:"))]
        with open(folder + "status", encoding="utf-8") as f:
            status = [line for line in f if line.startswith(
                ("TracerPid:", "Threads:", "SigPnd:"))]
        # Page faults, minor and major.
        return (maps, sizes, status, stat_fields(pid)[7],
                stat_fields(pid)[9], sorted(os.listdir(folder + "fd")))

    def settled(self, pid):
        """That, once it has been the same for a while."""
        looks = [None, self.look_of(pid)]

        def same():
            looks.append(self.look_of(pid))
            return len(looks) > 20 and looks[-1] == looks[-20]
        wait_for(same, "a process that needs no more memory")
        return looks[-1]

    def test_the_process_is_as_before(self):
        child, digest = self.hold(32, 0.5)
        before = self.settled(child.pid)
        self.estimate(str(child.pid))
        self.estimate("--track", "--seconds", "1", str(child.pid))
        self.assertEqual(self.look_of(child.pid), before)
        self.assertIn(stat_fields(child.pid)[0], "RS")
        child.send_signal(signal.SIGTERM)
        after, count = child.stdout.readline().split()
        self.assertEqual(after, digest)
        self.assertGreater(int(count), 0)

    def test_what_is_used_is_seen(self):
        child, _ = self.hold(64, 0.25)
        r = self.estimate("--track", "--seconds", "2", str(child.pid))
        self.assertIn(r["access"]["way"], ("clear_refs", "page_idle"))
        used = r["access"]["pages_by_cpu_seconds"][-1][1] * PAGE
        # The processor does not mark again at once what it remembers.
        self.assertTrue(8 * MIB < used < 40 * MIB, r)
        budgets = {round(b["percent_of_need"]): b for b in r["budgets"]}
        # Three quarters of it are never looked at.
        self.assertLess(budgets[75]["refault_percent"], 5)
        self.assertGreater(budgets[75]["resident_percent"], 40)

    def test_a_size_of_ones_own(self):
        child, _ = self.hold(32)
        r = self.estimate("-m", "20M", "--pages", "500", str(child.pid))
        self.assertEqual(r["budgets"][6]["limit_bytes"], 20 * MIB)
        self.assertFalse(r["budgets"][6]["too_small"])
        self.assertEqual(r["sample_pages"], 500)
        r = self.estimate("-m", "4G", str(child.pid))
        self.assertTrue(r["budgets"][6]["fits"])
        self.assertEqual(r["budgets"][6]["refault_percent"], 0)
        r = self.estimate("-m", "8M", str(child.pid))
        self.assertTrue(r["budgets"][6]["too_small"])

    def test_a_corpus(self):
        with open(self.path("corpus"), "wb") as f:
            f.write((bytes(PAGE) * 3 + os.urandom(PAGE)) * 5000)
        r = self.estimate("--corpus", self.path("corpus"))
        self.assertEqual(r["need_bytes"], 20000 * PAGE)
        self.assertAlmostEqual(r["same_filled_percent"], 75)
        self.assertAlmostEqual(r["hopeless_percent"], 25)
        self.assertTrue(r["budgets"][4]["fits"], r)  # 40 %
        r = self.estimate("--corpus", self.path("corpus"), "--pages", "4001")
        self.assertEqual(r["sample_pages"], 4001)
        self.assertTrue(70 < r["same_filled_percent"] < 80)

    def test_text(self):
        child, _ = self.hold(32)
        status, out, err = self.tmem("estimate", str(child.pid))
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(len([line for line in out.split("\n") if
                              " % " in line and " MiB " in line and
                              ("  yes" in line or "  no" in line)]), 6, out)
        self.assertIn("--track", out)


class BadInput(Case):
    def bad(self, *args, says=""):
        got = self.tmem("estimate", *args)
        self.assertEqual((got[0], got[1]), (125, ""), got)
        self.assertRegex(got[2], r"\Atmem: [^\n]+; [^\n]+\n\Z")
        self.assertIn(says, got[2])

    def test_options(self):
        self.bad(says="no process")
        self.bad("1", "2", says="one process")
        self.bad("--corpus", "x", "1", says="one place")
        self.bad("--corpus", "x", "--track", says="not used by anybody")
        for value in ("0", "x", "-5", "1x", "99999999999"):
            self.bad("--", value, says=value)
        for option in ("--seconds", "--pages"):
            self.bad(option, "0", "1", says=option + " 0")
        self.bad("--seconds", "3601", "1", says="3600")
        self.bad("-m", "x", "1", says="not a size")
        self.bad("-m", "0", "1", says="-m 0")
        self.bad("--nonsense", says="--nonsense")
        self.bad("-m", says="needs an argument")

    def test_processes(self):
        ended = subprocess.Popen(["true"])
        ended.wait()
        self.bad(str(ended.pid), says="no such process")
        with subprocess.Popen(["true"]) as zombie:
            wait_for(lambda: stat_fields(zombie.pid)[0] == "Z", "a zombie")
            self.bad(str(zombie.pid), says="no private memory")

    def test_files(self):
        self.bad("--corpus", "/nonexistent", says="No such file")
        with open(self.path("odd"), "wb") as f:
            f.write(bytes(PAGE - 1))
        self.bad("--corpus", self.path("odd"), says="multiple of 4096")

    def test_a_process_of_another_user(self):
        if os.geteuid():
            self.skipTest("not root")
        os.chmod(Place.folder, 0o755)
        got = subprocess.run(
            ["setpriv", "--reuid", "65534", "--clear-groups", Place.tmem,
             "estimate", str(os.getpid())], capture_output=True, text=True,
            timeout=60)
        self.assertEqual(got.returncode, 125, got)
        self.assertRegex(got.stderr, r"\Atmem: process %d: you may not read "
                         r"its memory; run as root[^\n]*\n\Z" % os.getpid())

    def test_a_process_that_is_paged_already(self):
        job = ("import os, sys; memory = bytearray(1 << 24); "
               "print(os.getpid(), flush=True); sys.stdin.read()")
        child = self.start("run", "-m", "64M", "--", sys.executable, "-c",
                           job, stdin=subprocess.PIPE)
        self.bad(child.stdout.readline().strip(), says="pages it already")
        child.stdin.close()
        child.wait()


if __name__ == "__main__":
    main()
