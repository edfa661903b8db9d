#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`tmem set`, `tmem top`, `--stats` and `-m auto`, with a program that plays
pager; hostile neighbours too."""

import json
import os
import pty
import select
import socket
import subprocess
import sys
import time

from cli_lib import Case, Place, main, read_file, state_of, wait_for

MIB = 1 << 20
NOBODY = ("setpriv", "--reuid", "65534", "--clear-groups")
# Nobody else's tests run as that one.
STRANGER = ("setpriv", "--reuid", "65511", "--clear-groups")
V1 = "/sys/fs/cgroup/memory"
# Binds a name of a tree and answers every request by ARGV[1] bytes, result 0.
LIAR = """
import socket, struct, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.bind("\\0tmem-" + "%032x" % int(sys.argv[2]))
s.listen(64)
print("up", flush=True)
while True:
    c = s.accept()[0]
    if int(sys.argv[1]):
        request = c.recv(100)
        c.send(request[:8] + bytes(int(sys.argv[1]) - 8))
        c.close()
"""


class Live(Case):
    def setUp(self):
        super().setUp()
        os.chmod(Place.folder, 0o755)

    def up(self, *verbs, options=("-m", "64M")):
        """A fake that has said hello: (process, pid of the program)."""
        tmem = self.start_fake("pid", "hello", "live", *verbs,
                               options=options)
        pid = int(tmem.stdout.readline())
        return tmem, pid

    def seen(self, pid, *more):
        """What tmem top says of that tmem run, or None."""
        _, out, err = self.tmem("top", "--once", "--json", "--interval",
                                "100ms", *more)
        self.assertEqual(err, "")
        for program in json.loads(out)["programs"]:
            if program["pid"] == pid:
                return program
        return None

    def liar(self, answer_bytes, nr):
        process = subprocess.Popen(
            [*NOBODY, sys.executable, "-c", LIAR, answer_bytes,
             str(os.getpid() << 8 | nr)],
            stdout=subprocess.PIPE, text=True)
        self.started.append(process)
        self.assertEqual(process.stdout.readline(), "up\n")


class Set(Live):
    def set(self, *args, status=0, says="", runner=()):
        got = subprocess.run([*runner, Place.tmem, "set", *args],
                             capture_output=True, text=True, timeout=60)
        self.assertEqual(got.returncode, status, got)
        text = got.stdout if status == 0 else got.stderr
        self.assertIn(says, text)
        self.assertEqual(text.count("\n"), 1)
        if status:
            self.assertEqual(got.stdout, "")
            self.assertRegex(got.stderr, r"\Atmem: [^\n]*; [^\n]*\n\Z")

    def test_who_holds_more_than_a_lower_budget_gives_back(self):
        tmem, _ = self.up("grant=%d" % (40 * MIB), "print=up", "obey",
                          "wait-limit=%d" % (32 * MIB), "print=obeyed")
        self.assertEqual(tmem.stdout.readline(), "up\n")
        self.set(str(tmem.pid), "-m", "32M", says="32.0 MiB, was 64.0 MiB")
        self.assertEqual(tmem.communicate(timeout=60)[0], "obeyed\n")
        self.assertEqual(tmem.returncode, 0)

    def test_a_higher_budget_can_be_taken_at_once(self):
        # But for what the keeper grows by meanwhile.
        tmem, _ = self.up("all=1", "print=up", "wait-avail=%d" % (60 * MIB),
                          "grant=%d" % (60 * MIB))
        self.assertEqual(tmem.stdout.readline(), "up\n")
        self.set(str(tmem.pid), "-m", "128M")
        self.assertEqual(tmem.wait(60), 0)

    def test_any_process_of_the_tree_names_it(self):
        tmem, pid = self.up("spawn", "pid", "wait-file=" + self.path("end"),
                            "end", "reap")
        child = int(tmem.stdout.readline())
        keeper = int(self.parent(pid))
        for i, p in enumerate((tmem.pid, pid, child, keeper)):
            self.set(str(p), "--memory", "%dM" % (80 + i))
            self.assertEqual(self.seen(tmem.pid)["budget_bytes"],
                             (80 + i) * MIB)
        open(self.path("end"), "w").close()
        self.assertEqual(tmem.wait(60), 0)

    @staticmethod
    def parent(pid):
        with open("/proc/%d/stat" % pid, encoding="latin-1") as f:
            return f.read().rpartition(")")[2].split()[1]

    def test_percent_and_auto(self):
        tmem, pid = self.up("wait-file=" + self.path("end"))
        self.set(str(pid), "-m", "25%")
        with open("/proc/meminfo", encoding="ascii") as f:
            total = int(f.readline().split()[1]) << 10
        program = self.seen(tmem.pid)
        self.assertEqual(program["memory"], "percent")
        self.assertLessEqual(program["budget_bytes"], total // 4)
        self.set(str(pid), "-m", "auto")
        self.assertEqual(self.seen(tmem.pid)["memory"], "auto")
        open(self.path("end"), "w").close()
        self.assertEqual(tmem.wait(60), 0)

    def test_the_report_says_what_was_asked_last(self):
        tmem = self.start_fake(
            "hello", "live", "touch=" + self.path("up"),
            "wait-limit=%d" % (99 * MIB),
            options=("-m", "64M", "--report", "json", "--report-file",
                     self.path("report")))
        self.wait_file("up")
        self.set(str(tmem.pid), "-m", "99M")
        self.assertEqual(tmem.wait(60), 0)
        self.assertEqual(json.loads(read_file(self.path("report")))[
            "asked_bytes"], 99 * MIB)

    def test_what_cannot_be_set(self):
        tmem, pid = self.up("wait-file=" + self.path("end"))
        gone = subprocess.Popen(["true"])
        gone.wait()
        self.set(str(gone.pid), "-m", "64M", status=125,
                 says="no such process")
        self.set(str(os.getpid()), "-m", "64M", status=125,
                 says="not run by tmem run")
        self.set(str(pid), "-m", "64M", status=125, says="another user's",
                 runner=NOBODY)
        self.set(str(pid), "-m", "15M", status=125, says="16 MiB")
        for bad in ("0%", "101%", "1.5%", "%", "-5%", "5000000000%"):
            self.set(str(pid), "-m", bad, status=125, says="percentage")
        self.set(str(pid), "-m", "much", status=125, says="not a size")
        self.set("x", "-m", "64M", status=125, says="PID x")
        self.set("0", "-m", "64M", status=125, says="PID 0")
        for args in ((str(pid),), ("-m", "64M"), (),
                     (str(pid), "7", "-m", "64M")):
            self.set(*args, status=125, says="tmem set 4711")
        self.set(str(pid), "-q", status=125, says="-q")
        self.assertEqual(self.seen(tmem.pid)["budget_bytes"], 64 * MIB)
        open(self.path("end"), "w").close()
        self.assertEqual(tmem.wait(60), 0)

    def test_a_stranger_s_word_is_not_taken(self):
        tmem, pid = self.up("wait-file=" + self.path("end"))
        size = self.status_bytes(pid)
        self.liar(str(size), 1)
        self.set(str(os.getpid()), "-m", "64M", status=125,
                 says="another user's")
        self.set(str(pid), "-m", "70M", says="70.0 MiB, was 64.0 MiB")
        open(self.path("end"), "w").close()
        self.assertEqual(tmem.wait(60), 0)

    @staticmethod
    def status_bytes(pid):
        """The length of an answer, which SHOW brings."""
        with open("/proc/net/unix", encoding="ascii") as f:
            names = [line.split()[-1] for line in f
                     if " @tmem-" in line]
        for name in names:
            s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                s.settimeout(2)
                s.connect("\0" + name[1:])
                s.send((0x636f6e01).to_bytes(4, "little") +
                       (1).to_bytes(4, "little") + bytes(24))
                answer = s.recv(100000)
            except OSError:
                continue
            finally:
                s.close()
            # Others that run here may be of another version.
            if pid.to_bytes(4, "little") in answer:
                return len(answer)
        raise AssertionError("no answer that names pid %d" % pid)


class Top(Live):
    def test_figures_as_json(self):
        tmem, pid = self.up("grant=%d" % (20 * MIB), "stored=1000",
                            "count=faults_store:50", "print=up",
                            "wait-file=" + self.path("end"))
        self.assertEqual(tmem.stdout.readline(), "up\n")
        program = wait_for(lambda: self.seen(tmem.pid), "the tree")
        self.assertEqual(program["program"], "cli_fake_pager")
        self.assertEqual(program["program_pid"], pid)
        self.assertEqual(program["uid"], os.geteuid())
        self.assertEqual(program["memory"], "size")
        self.assertEqual(program["budget_bytes"], 64 * MIB)
        self.assertGreaterEqual(program["usage_bytes"], 20 * MIB)
        self.assertEqual(program["stored_pages"], 1000)
        self.assertEqual(program["counters"]["faults_store"], 50)
        self.assertEqual(program["per_second"]["faults_store"], 0)
        self.assertEqual(program["processes"], 1)
        open(self.path("end"), "w").close()
        self.assertEqual(tmem.wait(60), 0)
        self.assertIsNone(self.seen(tmem.pid))

    def test_rates_are_of_the_interval(self):
        tmem, _ = self.up("count=faults_swap:100000", "print=up",
                          "wait-file=" + self.path("go"),
                          "count=faults_store:1000", "count=stall_ns:20000000",
                          "wait-file=" + self.path("end"))
        self.assertEqual(tmem.stdout.readline(), "up\n")
        top = self.start("top", "--json", "--interval", "200ms")

        def line():
            return [p for p in json.loads(top.stdout.readline())["programs"]
                    if p["pid"] == tmem.pid]
        first, second = line(), line()
        self.assertEqual(len(first), 1)
        self.assertEqual(second[0]["per_second"]["faults_swap"], 0)
        open(self.path("go"), "w").close()
        while not second[0]["counters"]["stall_ns"]:
            second = line()
        rate = second[0]["per_second"]["stall_ns"]
        self.assertAlmostEqual(
            rate * second[0]["interval_seconds"], 20000000, delta=1000)
        self.assertAlmostEqual(second[0]["stall_percent"], rate / 1e7)
        open(self.path("end"), "w").close()
        self.assertEqual(tmem.wait(60), 0)

    def test_text_without_a_terminal_has_no_escapes(self):
        tmem, _ = self.up("wait-file=" + self.path("end"))
        status, out, err = self.tmem("top", "--once", "--interval", "0.1")
        self.assertEqual((status, err), (0, ""))
        self.assertRegex(out, r"\A +PID USER +PROGRAM +BUDGET ")
        self.assertRegex(out, r"(?m)^ *%d root +cli_fake_pager +64\.0 MiB "
                         % tmem.pid)
        self.assertNotIn("\033", out)
        open(self.path("end"), "w").close()
        tmem.wait(60)

    def test_on_a_terminal_lines_fit(self):
        trees = [self.up("wait-file=" + self.path("end"))[0]
                 for _ in range(4)]
        pid, fd = pty.fork()
        if pid == 0:
            os.execv("/bin/sh", ["sh", "-c", "stty cols 50 rows 5; exec %s "
                                 "top --interval 0.1" % Place.tmem])
        text = ""
        while text.count("\033[H") < 3:
            self.assertTrue(select.select([fd], [], [], 30)[0])
            text += os.read(fd, 65536).decode()
        os.write(fd, b"\x03")
        self.assertEqual(os.WTERMSIG(os.waitpid(pid, 0)[1]), 2)
        os.close(fd)
        whole = text.split("\033[H\033[J")[1].split("\r\n")
        self.assertTrue(all(len(line) <= 50 for line in whole), whole)
        # The header, some, and how many more; the last line is the cursor's.
        self.assertEqual((len(whole), whole[-1]), (5, ""))
        self.assertRegex("\n".join(whole), r"(?m)^\.\.\. and \d+ more$")
        open(self.path("end"), "w").close()
        for tmem in trees:
            tmem.wait(60)

    def test_another_user_sees_nothing_of_it(self):
        tmem, _ = self.up("wait-file=" + self.path("end"))
        got = subprocess.run([*STRANGER, Place.tmem, "top", "--once",
                              "--interval", "0.1"], capture_output=True,
                             text=True, timeout=60)
        self.assertEqual(got.returncode, 0, got)
        self.assertIn("Nothing of yours", got.stdout)
        self.assertNotIn("fake", got.stdout)
        open(self.path("end"), "w").close()
        tmem.wait(60)

    def test_mute_and_lying_neighbours_hide_nothing(self):
        tmem, _ = self.up("wait-file=" + self.path("end"))
        for i in range(3):
            self.liar("0", 10 + i)
        self.liar("64", 20)
        start = time.monotonic()
        self.assertIsNotNone(self.seen(tmem.pid))
        self.assertLess(time.monotonic() - start, 20)
        open(self.path("end"), "w").close()
        tmem.wait(60)

    def test_bad_options(self):
        for args in (("--nonsense",), ("x",), ("--interval", "0"),
                     ("--interval", "1m"), ("--interval",)):
            status, out, err = self.tmem("top", *args)
            self.assertEqual((status, out), (125, ""))
            self.assertRegex(err, r"\Atmem: [^\n]*; [^\n]*\n\Z")

    def test_a_closed_output_ends_it(self):
        process = subprocess.run("%s top --once --interval 0.1 > /dev/full"
                                 % Place.tmem, shell=True, timeout=60,
                                 capture_output=True, text=True)
        self.assertEqual(process.returncode, 125)
        self.assertIn("No space", process.stderr)


class Stats(Live):
    def lines(self, path):
        text = read_file(path)
        self.assertTrue(text.endswith("\n"), text)
        return [json.loads(line) for line in text.splitlines()]

    def test_lines_of_a_file_add_up(self):
        path = self.path("stats")
        status, _, err = self.run_fake(
            "hello", "live", "count=faults_store:5", "stored=7",
            "wait-ticks=250", "count=faults_store:6", "wait-ticks=250",
            options=("-m", "64M", "--stats", path, "--interval", "100ms"))
        self.assertEqual((status, err), (0, ""))
        lines = self.lines(path)
        self.assertGreaterEqual(len(lines), 3)
        self.assertEqual(lines[-1]["totals"]["faults_store"], 11)
        self.assertEqual(sum(line["differences"]["faults_store"]
                             for line in lines), 11)
        self.assertEqual(lines[1]["budget_bytes"], 64 * MIB)
        self.assertEqual(lines[1]["stored_pages"], 7)
        self.assertEqual(lines[1]["processes"], 1)
        self.assertEqual(lines[-1]["processes"], 0)
        self.assertAlmostEqual(
            sum(line["interval_seconds"] for line in lines),
            lines[-1]["age_seconds"], places=3)
        times = [line["time"] for line in lines]
        self.assertEqual(times, sorted(times))
        self.assertLess(abs(times[-1] - time.time()), 60)

    def test_a_short_program_leaves_one_line(self):
        path = self.path("stats")
        self.assertEqual(self.run_fake("hello", "live", options=(
            "-m", "64M", "--stats", path))[0], 0)
        self.assertEqual(len(self.lines(path)), 1)

    def test_a_descriptor_is_not_the_program_s(self):
        read, write = os.pipe()
        tmem = self.start("run", "-m", "64M", "--stats", str(write), "--",
                          "sh", "-c", "test ! -e /proc/self/fd/%d" % write,
                          pass_fds=(write,))
        os.close(write)
        with os.fdopen(read) as pipe:
            text = pipe.read()
        self.assertEqual(tmem.wait(60), 0)
        self.assertEqual(len(text.splitlines()), 1)
        self.assertIn("totals", json.loads(text))

    def test_standard_output_stays_the_program_s_too(self):
        status, out, _ = self.tmem("run", "-m", "64M", "--stats", "1", "--",
                                   "echo", "mine")
        self.assertEqual(status, 0)
        self.assertEqual(sorted(line[:1] for line in out.splitlines()),
                         ["m", "{"])

    def test_a_reader_that_does_not_read_holds_up_nobody(self):
        read, write = os.pipe()
        os.set_blocking(write, False)
        try:
            while True:
                os.write(write, b"x" * 4096)
        except BlockingIOError:
            pass
        os.set_blocking(write, True)
        tmem = self.start_fake("hello", "live", "wait-ticks=300", options=(
            "-m", "64M", "--stats", str(write), "--interval", "0.1"),
            pass_fds=(write,))
        self.assertEqual(tmem.wait(30), 0)
        os.close(read)
        os.close(write)

    def test_a_daemon_s_pipe_is_closed_and_its_file_goes_on(self):
        read, write = os.pipe()
        verbs = ("hello", "live", "fork", "close=0", "close=1", "close=2",
                 "setsid", "hello", "live", "touch=" + self.path("up"),
                 "wait-file=" + self.path("down"), "count=faults_store:9",
                 "end", "wait-file=" + self.path("up"))
        tmem = self.start_fake(*verbs, pass_fds=(write,), options=(
            "-m", "64M", "--stats", str(write)))
        os.close(write)
        self.assertEqual(tmem.wait(60), 0)
        with os.fdopen(read) as pipe:
            self.assertIn("totals", pipe.read())
        open(self.path("down"), "w").close()
        os.remove(self.path("up"))
        os.remove(self.path("down"))
        path = self.path("stats")
        self.assertEqual(self.run_fake(*verbs, options=(
            "-m", "64M", "--stats", path))[0], 0)
        open(self.path("down"), "w").close()
        wait_for(lambda: self.lines(path)[-1]["totals"]["faults_store"] == 9,
                 "the last line")

    def test_what_cannot_be_written(self):
        for bad in ("/nonexistent/x", self.folder, "77", "99999999999", ""):
            status, _, err = self.tmem("run", "-m", "64M", "--stats", bad,
                                       "--", "true")
            self.assertEqual(status, 125)
            self.assertRegex(err, r"\Atmem: --stats [^\n]*; [^\n]*\n\Z")
        status, _, err = self.tmem("run", "-m", "64M", "--interval", "1s",
                                   "--", "true")
        self.assertEqual(status, 125)
        self.assertIn("--stats", err)


class Auto(Live):
    """With a memory cgroup of our own; other kinds: cli_cgroup, cli_follow."""

    def group(self, limit):
        if not os.path.exists(V1 + "/memory.limit_in_bytes"):
            self.skipTest("no memory cgroup of version 1")
        path = V1 + "/tmem-test-%d" % os.getpid()
        os.mkdir(path)
        self.addCleanup(self.remove, path)
        self.limit(path, limit)
        return path

    @staticmethod
    def limit(path, limit):
        with open(path + "/memory.limit_in_bytes", "w",
                  encoding="ascii") as f:
            f.write(str(limit))

    @staticmethod
    def remove(path):
        def removed():
            try:
                os.rmdir(path)
                return True
            except OSError:
                return False
        wait_for(removed, "the group to empty")

    def inside(self, path, *args, **more):
        return self.start(*args, preexec_fn=lambda: self.enter(path), **more)

    @staticmethod
    def enter(path):
        with open(path + "/cgroup.procs", "w", encoding="ascii") as f:
            f.write("0")

    def test_the_budget_follows_the_group(self):
        path = self.group(400 * MIB)
        tmem = self.inside(path, "run", "-m", "auto", "--", Place.fake,
                           "hello", "live", "wait-file=" + self.path("end"))
        for mib in (400, 300, 600):
            self.limit(path, mib * MIB)
            low, high = 0.85 * mib * MIB, 0.9 * mib * MIB
            wait_for(lambda: (self.seen(tmem.pid) or {"budget_bytes": 0})[
                "budget_bytes"] > low, "%d MiB" % mib)
            wait_for(lambda: self.seen(tmem.pid)["budget_bytes"] <= high,
                     "%d MiB" % mib)
        open(self.path("end"), "w").close()
        self.assertEqual(tmem.wait(60), 0)

    def test_a_percentage_is_of_the_group(self):
        path = self.group(400 * MIB)
        tmem = self.inside(path, "run", "-m", "60%", "--", Place.fake,
                           "hello", "live", "wait-file=" + self.path("end"))
        program = wait_for(lambda: self.seen(tmem.pid), "the tree")
        self.assertAlmostEqual(program["budget_bytes"], 240 * MIB, delta=200)
        open(self.path("end"), "w").close()
        self.assertEqual(tmem.wait(60), 0)
        self.limit(path, 20 * MIB)
        tmem = self.inside(path, "run", "-m", "60%", "--", "true")
        self.assertEqual(tmem.wait(60), 125)
        self.assertIn("60%: less than 16 MiB", tmem.stderr.read())


if __name__ == "__main__":
    main()
