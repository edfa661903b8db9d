#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Real programs under budgets that change while they run.

usage: live_budget.py --tmem PATH [unittest arguments]

What they hold is measured by the kernel's figures (tools/pss.py), and what is
in their memory is verified.  With -m auto, in a memory cgroup of version 1
that is smaller than the program, nothing may be killed.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tools"))
sys.path.insert(0, os.path.join(HERE, "..", "matrix"))
import pss          # noqa: E402  pylint: disable=wrong-import-position
import redis_job    # noqa: E402  pylint: disable=wrong-import-position

MIB = 1 << 20
V1 = "/sys/fs/cgroup/memory"
# Growth between two looks of a pager, and what the kernel counts late.
SLACK = 8 * MIB
TMEM = ""

# Changes and verifies records at random until told to end, then all of them.
TABLE = """
import os, random, signal, sys
n, seed = int(sys.argv[1]), 1
stop = []
signal.signal(signal.SIGUSR1, lambda *a: stop.append(1))
def make(i, version):
    return b"%d %d " % (i, version) + os.urandom(900) + bytes(2000)
def check(i):
    assert table[i].startswith(b"%d %d " % (i, versions[i]))
    assert table[i].endswith(bytes(2000)) and len(table[i]) > 2900
versions = [0] * n
table = [make(i, 0) for i in range(n)]
pick = random.Random(seed)
print("up", flush=True)
while not stop:
    for _ in range(200):
        i = pick.randrange(n)
        check(i)
        if i % 5 == 0:
            versions[i] += 1
            table[i] = make(i, versions[i])
for i in range(n):
    check(i)
print("right\\n", end="", flush=True)    # in one write: two processes do
"""

# Text of which the first third is verified again and again for so many seconds,
# then all of it.
COLD = """
import random, sys, time
words = [b"%d transcendent memory %x " % (i, i * i) for i in range(3000)]
def make(i):
    pick = random.Random(i)
    return b"".join(pick.choice(words) for _ in range(140))
n = int(sys.argv[1])
table = [make(i) for i in range(n)]
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    for i in range(n // 3):
        assert table[i] == make(i)
for i in range(n):
    assert table[i] == make(i)
print("right")
"""


def wait_for(condition, what, timeout=60):
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("waited in vain for " + what)
        time.sleep(0.05)


def write(path, text):
    with open(path, "w", encoding="ascii") as f:
        f.write(str(text))


def read(path):
    with open(path, encoding="ascii") as f:
        return f.read()


class Case(unittest.TestCase):
    def setUp(self):
        self.place = tempfile.TemporaryDirectory()
        self.addCleanup(self.place.cleanup)
        self.report_file = os.path.join(self.place.name, "report")

    def start(self, memory, *program, options=(), **more):
        process = subprocess.Popen(
            [TMEM, "run", "-m", memory, "--report", "json", "--report-file",
             self.report_file, *options, "--", *program], **more)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        """The whole tree: it would live on without its tmem run."""
        for pid in pss.tree(process.pid) if process.poll() is None else ():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.wait()
        if process.stdout:
            process.stdout.close()

    def table(self, memory, records, **more):
        process = self.start(memory, sys.executable, "-c", TABLE,
                             str(records), stdout=subprocess.PIPE, text=True,
                             **more)
        self.assertEqual(process.stdout.readline(), "up\n")
        return process

    def finish(self, process):
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(process.communicate(timeout=120)[0], "right\n")
        self.assertEqual(process.returncode, 0)
        report = json.loads(read(self.report_file))
        self.assertEqual(report["counters"]["faults_lost"], 0)
        return report

    def set(self, process, memory):
        subprocess.run([TMEM, "set", str(process.pid), "-m", memory],
                       check=True, stdout=subprocess.DEVNULL, timeout=60)

    def stays_below(self, process, limit, seconds=1.5, slack=0):
        """After a while, and then for so long."""
        wait_for(lambda: pss.tree_bytes(process.pid) <= limit + slack,
                 "less than %d MiB" % (limit // MIB))
        end = time.monotonic() + seconds
        peak = 0
        while time.monotonic() < end:
            peak = max(peak, pss.tree_bytes(process.pid))
        print("  peak %.1f MiB at -m %d MiB" % (peak / MIB, limit // MIB),
              flush=True)
        self.assertLessEqual(peak, limit + SLACK)


class Set(Case):
    def test_a_table_through_budgets_up_and_down(self):
        process = self.table("400M", 50000)     # some 150 MiB
        need = pss.tree_bytes(process.pid)
        self.assertGreater(need, 140 * MIB)
        for mib in (96, 64, 128, 56):
            self.set(process, "%dM" % mib)
            self.stays_below(process, mib * MIB)
        self.set(process, "400M")
        wait_for(lambda: pss.tree_bytes(process.pid) > 0.8 * need,
                 "the memory to be used")
        report = self.finish(process)
        self.assertEqual(report["asked_bytes"], 400 * MIB)
        self.assertGreater(report["counters"]["faults_store"], 1000)

    def test_forked_processes_give_back_too(self):
        program = TABLE.replace('print("up"',
                                'forked = os.fork()\n'
                                'print("%d\\n" % os.getpid(), end=""')
        program += "if forked:\n    os.wait()\n"
        process = self.start("600M", sys.executable, "-c", program, "30000",
                             stdout=subprocess.PIPE, text=True)
        pids = [int(process.stdout.readline()) for _ in range(2)]
        for mib in (112, 200, 96):
            self.set(process, "%dM" % mib)
            # What both share goes last, and slowly.
            self.stays_below(process, mib * MIB, 1, SLACK)
        for pid in pids:
            os.kill(pid, signal.SIGUSR1)
        out = process.communicate(timeout=120)[0]
        self.assertEqual(out, "right\nright\n")
        self.assertEqual(process.returncode, 0)

    def test_stopped_for_lack_of_room_and_given_some_it_goes_on(self):
        program = ("import os; a = [os.urandom(4096) for _ in range(30000)]; "
                   "print(len(set(a)))")
        process = self.start(
            "64M", sys.executable, "-c", program, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
            options=("--swap-max", "16M", "--on-full", "pause"))
        wait_for(lambda: read("/proc/%d/stat" % process.pid).split()[2] == "T",
                 "it to be stopped")
        self.set(process, "300M")
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, out), (0, "30000\n"), err)
        self.assertEqual(err.count("stopped"), 1, err)

    def test_redis_under_changing_budgets(self):
        socket = os.path.join(self.place.name, "s")
        process = self.start(
            "400M", "redis-server", "--port", "0", "--unixsocket", socket,
            "--save", "", "--dir", self.place.name, "--enable-debug-command",
            "yes", stdout=subprocess.DEVNULL)
        client = redis_job.Client(socket, process)
        client.pipeline(redis_job.commands(0, 100000, 0))
        before = redis_job.digest(client)
        need = pss.tree_bytes(process.pid)
        self.assertGreater(need, 40 * MIB)
        for part in (0.6, 0.9, 0.5):
            mib = int(need * part) // MIB
            self.set(process, "%dM" % mib)
            self.assertEqual(redis_job.digest(client), before)
            self.stays_below(process, mib * MIB, 1)
        client.pipeline(redis_job.commands(0, 5000, 1))
        self.set(process, "400M")
        self.assertNotEqual(redis_job.digest(client), before)
        client.pipeline(redis_job.commands(5000, 9000, 0))
        client.socket.sendall(client.pack(("SHUTDOWN", "NOSAVE")))
        self.assertEqual(process.wait(60), 0)
        client.close()
        self.assertEqual(json.loads(read(self.report_file))["counters"][
            "faults_lost"], 0)


@unittest.skipUnless(os.path.exists(V1 + "/memory.limit_in_bytes"),
                     "no memory cgroup of version 1")
class Cold(Case):
    def test_what_nobody_wants_gets_smaller(self):
        for cool in ("on", "off"):
            process = self.start("48M", sys.executable, "-c", COLD, "16000",
                                 "18", options=("--cool", cool),
                                 stdout=subprocess.PIPE, text=True)
            self.assertEqual(process.communicate(timeout=120)[0], "right\n")
            self.assertEqual(process.returncode, 0)
            report = json.loads(read(self.report_file))
            cooled = report["counters"]["cooled_pages"]
            print("  --cool %s: %d pages cooled, %d faults" % (
                cool, cooled, report["counters"]["faults_store"]), flush=True)
            self.assertEqual(cooled > 1000, cool == "on")


class Auto(Case):
    def setUp(self):
        super().setUp()
        self.group = V1 + "/tmem-live-%d" % os.getpid()
        os.mkdir(self.group)
        self.addCleanup(self.remove)

    def remove(self):
        def removed():
            try:
                os.rmdir(self.group)
                return True
            except OSError:
                return False
        wait_for(removed, "the group to empty")

    def limit(self, mib):
        """Lower than what is in use, version 1 says no: until it is less."""
        def limited():
            try:
                write(self.group + "/memory.limit_in_bytes", mib * MIB)
                return True
            except OSError:
                return False
        wait_for(limited, "the limit to be taken")

    def enter(self):
        write(self.group + "/cgroup.procs", 0)

    def oom_kills(self):
        for line in read(self.group + "/memory.oom_control").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return 0

    def test_without_tmem_it_is_killed(self):
        self.limit(120)
        child = subprocess.run([sys.executable, "-c", TABLE, "50000"],
                               preexec_fn=self.enter, timeout=120,
                               stdout=subprocess.DEVNULL, check=False)
        self.assertEqual(child.returncode, -signal.SIGKILL)
        self.assertEqual(self.oom_kills(), 1)

    def test_in_a_group_smaller_than_the_program(self):
        self.limit(120)
        process = self.table("auto", 50000, preexec_fn=self.enter)
        time.sleep(1)
        self.limit(160)
        time.sleep(1.5)
        # In steps that leave it the time, as an operator would.
        for mib in (150, 140, 130, 120, 112, 104):
            self.limit(mib)
            time.sleep(0.4)
        report = self.finish(process)
        self.assertEqual(self.oom_kills(), 0)
        self.assertGreater(report["counters"]["faults_store"], 1000)
        used = int(read(self.group + "/memory.max_usage_in_bytes"))
        print("  at most %.1f MiB used" % (used / MIB), flush=True)

    def test_a_neighbour_in_the_group_gets_its_room(self):
        self.limit(300)
        process = self.table("auto", 50000, preexec_fn=self.enter)
        hog = subprocess.Popen(
            [sys.executable, "-c", "import sys, time\nm = []\n"
             "for i in range(150):\n    m.append(bytes([7]) * (1 << 20))\n"
             "    time.sleep(0.01)\nprint('full', flush=True)\n"
             "sys.stdin.read()"], preexec_fn=self.enter,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.assertEqual(hog.stdout.readline(), b"full\n")
        self.stays_below(process, 115 * MIB)
        hog.communicate()
        self.assertEqual(hog.returncode, 0)
        wait_for(lambda: pss.tree_bytes(process.pid) > 140 * MIB,
                 "the room to be used again")
        self.finish(process)
        self.assertEqual(self.oom_kills(), 0)

    def test_far_away_nothing_is_paged(self):
        self.limit(1000)
        process = self.table("auto", 50000, preexec_fn=self.enter)
        report = self.finish(process)
        counters = report["counters"]
        self.assertEqual(counters["scans"], 0)
        self.assertEqual(sum(n for name, n in counters.items()
                             if name.startswith("faults_")), 0)


def main():
    global TMEM     # pylint: disable=global-statement
    parser = argparse.ArgumentParser()
    parser.add_argument("--tmem", required=True, type=os.path.abspath)
    options, rest = parser.parse_known_args()
    TMEM = options.tmem
    os.environ.pop("TMEM_TREE", None)
    unittest.main(argv=[sys.argv[0], "-v", *rest])


if __name__ == "__main__":
    main()
