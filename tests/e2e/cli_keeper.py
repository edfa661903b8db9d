#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The keeper, tested by a program that plays pager (cli_fake_pager.c)."""

import json
import os
import signal
import subprocess

from cli_lib import Case, Place, main, read_file, state_of, wait_for

MIB = 1 << 20
EPERM, EINVAL, ENOSPC = 1, 22, 28


class Slots(Case):
    def test_a_pager_is_welcomed_and_counted(self):
        r = self.report("hello", "live", "uffd", "grant=1000000",
                        "count=faults_store:5", "count=stall_ns:700",
                        "count=stall_max_ns:300", "stored=10", "shared=4096")
        self.assertEqual(r["counters"]["faults_store"], 5)
        self.assertEqual(r["counters"]["stall_ns"], 700)
        self.assertEqual(r["counters"]["stall_max_ns"], 300)
        self.assertEqual(r["store"]["pages"], 10)
        self.assertEqual(r["shared_bytes"], 4096)
        self.assertEqual(r["programs_paged"], 1)
        self.assertGreaterEqual(r["peak_bytes"], 1000000)
        self.assertEqual(r["exit_status"], 0)

    def test_a_killed_program_is_reported_all_the_same(self):
        r = self.report("hello", "live", "uffd", "count=faults_swap:7",
                        "raise=9", status=-signal.SIGKILL)
        self.assertEqual(r["counters"]["faults_swap"], 7)
        self.assertEqual(r["signal"], signal.SIGKILL)

    def test_counters_of_all_processes_are_added_and_the_worst_kept(self):
        r = self.report(
            "hello", "live", "count=faults_store:1", "count=stall_max_ns:50",
            "fork", "hello", "live", "count=faults_store:2",
            "count=stall_max_ns:90", "end", "reap",
            "fork", "hello", "live", "count=faults_store:4", "dead", "end",
            "reap")
        self.assertEqual(r["counters"]["faults_store"], 7)
        self.assertEqual(r["counters"]["stall_max_ns"], 90)
        self.assertEqual(r["programs_paged"], 3)

    def test_waits_of_all_processes_are_in_the_histogram(self):
        verbs = ("hello", "live", "waited=1000:60", "waited=5000:30",
                 "count=stall_max_ns:3000000", "fork", "hello", "live",
                 "waited=3000000:1", "waited=1:9", "dead", "end", "reap")
        r = self.report(*verbs)["stall"]
        self.assertEqual(r["faults"], 100)
        self.assertEqual(r["histogram"],
                         [{"from_ns": 0, "faults": 9},
                          {"from_ns": 512, "faults": 60},
                          {"from_ns": 4096, "faults": 30},
                          {"from_ns": 2097152, "faults": 1}])
        self.assertTrue(512 <= r["p50_ns"] < 1024, r)
        self.assertTrue(4096 <= r["p99_ns"] <= 8192, r)
        self.assertTrue(2097152 <= r["p999_ns"] <= 3000000, r)
        err = self.run_fake(*verbs, options=("-m", "64M", "--report",
                                             "text"))[2]
        self.assertRegex(err, r"p50 0\.\d us, p99 \d\.\d us, p99\.9 3")
        self.assertRegex(err, r"from +0\.512 us +60\.00 % #{18}\n")

    def test_the_grant_of_a_dead_process_comes_back(self):
        self.report("hello", "live", "fork", "hello", "live", "all=1",
                    "raise=9", "end", "reap",
                    "wait-avail=%d" % (60 * MIB), "wait-slots=1")

    def test_after_exec_the_old_slot_is_freed(self):
        r = self.report("hello", "live", "grant=1000000", "dead", "exec",
                        "hello", "live", "wait-slots=1",
                        "count=faults_store:1")
        self.assertEqual(r["programs_paged"], 2)
        self.assertIsNone(r["signal"])

    def test_a_pager_that_dies_at_exec_without_a_word_harms_nobody(self):
        self.report("hello", "live", "exec", "hello", "live",
                    "wait-slots=1")

    def test_a_program_whose_pager_is_killed_is_killed(self):
        status, _, err = self.run_fake(
            "pager", "hello-for-parent", "live", "uffd", "raise=9", "end",
            "wait-file=/nonexistent")
        self.assertEqual(status, -signal.SIGKILL)
        self.assertIn("pager of process", err)
        self.assertEqual(err.count("\n"), 1)

    def test_when_slots_run_out_the_next_is_refused_and_named(self):
        r = self.report("hello", "live", "claim-all", "spawn",
                        "refused=%d" % ENOSPC, "end", "reap")
        self.assertEqual(r["not_paged"],
                         [{"name": "fake", "count": 1,
                           "reason": "too many processes at once"}])

    def test_a_second_hello_and_garbage_cost_the_connection_only(self):
        self.report("bad=1", "bad=56", "bad=57", "bad=300", "hello", "live",
                    "wait-slots=1")

    def test_a_slot_that_nobody_claimed_is_refused(self):
        # A child whose parent's claim was already taken by a sibling.
        self.report("hello", "live", "fork", "hello", "live", "touch=" +
                    self.path("a"), "wait-file=" + self.path("b"), "end",
                    "wait-file=" + self.path("a"), "wait-slots=2",
                    "touch=" + self.path("b"), "reap", "wait-slots=1")


class Peers(Case):
    def foreign(self, *verbs, tree, **more):
        env = dict(os.environ, TMEM_TREE=tree)
        return subprocess.run([Place.fake, *verbs], env=env, timeout=60,
                              capture_output=True, text=True, **more)

    def test_a_foreign_process_is_refused(self):
        tmem = self.start_fake("tree", "pid", "hello", "live",
                               "wait-file=" + self.path("go"))
        tree = tmem.stdout.readline().strip()
        pid = tmem.stdout.readline().strip()
        got = self.foreign("refused=%d" % EPERM, tree=tree)
        self.assertEqual(got.returncode, 0, got)
        # Nor in the name of a process of the tree: not its memory.
        got = self.foreign("refused-pid=" + pid, tree=tree)
        self.assertEqual(got.returncode, 0, got)
        open(self.path("go"), "w").close()
        self.assertEqual(tmem.wait(60), 0)

    def test_a_descendant_of_dead_parents_is_of_the_tree(self):
        self.report("spawn", "spawn", "wait-file=" + self.path("go"), "hello",
                    "live", "count=faults_store:3", "touch=" +
                    self.path("done"), "end", "end", "reap",
                    "touch=" + self.path("go"),
                    "wait-file=" + self.path("done"))

    def test_a_process_that_dropped_its_user_is_served(self):
        status, _, err = self.tmem(
            "run", "-m", "64M", "--", "setpriv", "--reuid", "65534",
            "--clear-groups", Place.fake, "hello", "live", "uffd")
        self.assertEqual(status, 0, err)

    def test_a_process_in_another_pid_namespace_is_served(self):
        status, _, err = self.tmem(
            "run", "-m", "64M", "--", "unshare", "--pid", "--fork",
            Place.fake, "hello-there")
        self.assertEqual(status, 0, err)


class Shares(Case):
    def test_who_holds_all_gives_back_when_another_wants(self):
        self.report("hello", "live", "all=1", "fork", "hello", "live",
                    "want=%d" % (16 * MIB), "wait-avail=%d" % (8 * MIB),
                    "grant=%d" % (8 * MIB), "want=0", "touch=" +
                    self.path("fed"), "end", "obey",
                    "wait-file=" + self.path("fed"), "reap")

    def test_alone_nobody_is_told_to_give_back(self):
        r = self.report("hello", "live", "all=1", "want=%d" % MIB, "spawn",
                        "end", "reap", "check-no-target")
        self.assertEqual(r["exit_status"], 0)


class Limits(Case):
    def test_full_grow_warns_once_and_lets_grow(self):
        status, _, err = self.run_fake("hello", "live", "swap-full",
                                       "swap-full", "wait-growing")
        self.assertEqual(status, 0)
        self.assertEqual(err.count("\n"), 1, err)
        self.assertIn("--swap-max", err)

    def test_full_term_ends_the_program(self):
        status, _, err = self.run_fake(
            "hello", "live", "swap-full", "wait-file=/nonexistent",
            options=("-m", "64M", "--on-full", "term"))
        self.assertEqual(status, -signal.SIGTERM)
        self.assertEqual(err.count("\n"), 1, err)
        self.assertIn("full", err)

    def test_full_pause_stops_until_continued(self):
        tmem = self.start_fake(
            "pid", "catch=18", "hello", "live", "swap-full", "wait-signal=18",
            "print=on", options=("-m", "64M", "--on-full", "pause"))
        pid = int(tmem.stdout.readline())
        wait_for(lambda: state_of(pid) == "T", "the program to stop")
        wait_for(lambda: state_of(tmem.pid) == "T", "tmem to stop")
        tmem.send_signal(signal.SIGCONT)
        out, err = tmem.communicate(timeout=60)
        self.assertEqual((tmem.returncode, out), (0, "on\n"))
        self.assertIn("fg", err)

    def test_a_report_that_finds_no_room_is_told(self):
        status, _, err = self.run_fake("hello", "live", "exit=3", options=(
            "-m", "64M", "--report", "json", "--report-file", "/dev/full"))
        self.assertEqual(status, 3)
        self.assertIn("/dev/full: No space left", err)
        self.assertEqual(err.count("\n"), 1, err)

    def test_max_stall_ends_a_program_that_only_waits(self):
        status, _, err = self.run_fake(
            "hello", "live", "stall", options=("-m", "64M", "--max-stall",
                                               "50/1"))
        self.assertEqual(status, -signal.SIGTERM)
        self.assertIn("50%", err)
        self.assertEqual(err.count("\n"), 1, err)


class Outside(Case):
    def test_words_of_unpaged_processes_are_counted_by_name(self):
        # Many, since each may end while it is asked for its parents.
        short = ("spawn", "not-paged=1:busybox", "end", "reap")
        r = self.report(*(30 * short), "not-paged=4:musl\x1bthing")
        self.assertEqual(
            sorted((o["name"], o["count"]) for o in r["not_paged"]),
            [("busybox", 30), ("musl?thing", 1)])
        self.assertEqual(r["not_paged_count"], 31)


class Daemon(Case):
    def test_a_daemon_lives_on_in_the_budget(self):
        path = self.path("report")
        status, out, _ = self.run_fake(
            "hello", "live", "fork", "close=0", "close=1", "close=2",
            "setsid", "hello", "live", "count=faults_store:1",
            "touch=" + self.path("up"), "wait-file=" + self.path("down"),
            "count=faults_store:10", "grant=1000", "end",
            "wait-file=" + self.path("up"), "print=started", "exit=5",
            options=("-m", "64M", "--report", "json", "--report-file", path))
        self.assertEqual((status, out), (5, "started\n"))
        first = json.loads(read_file(path))
        self.assertEqual(first["programs_living"], 1)
        self.assertEqual(first["counters"]["faults_store"], 1)
        open(self.path("down"), "w").close()

        def whole():
            text = read_file(path)
            return text.endswith("\n") and json.loads(text)

        def last():
            r = whole()
            return r and not r["programs_living"] and r
        r = wait_for(last, "the last report")
        self.assertEqual(r["counters"]["faults_store"], 11)
        self.assertEqual(r["exit_status"], 5)


if __name__ == "__main__":
    main()
