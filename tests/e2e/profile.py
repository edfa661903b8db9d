#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`tmem run --profile`: the right stacks pay, and the program is unharmed.

usage: profile.py --tmem PATH --victim PATH [--list] [NAME...]
"""
import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

SIZE, LIMIT = "64", "24M"


class Failed(Exception):
    pass


def check(what, is_so):
    if not is_so:
        raise Failed(what)


class Run:
    """A victim under --profile: its status, what was said, and the profile."""

    def __init__(self, options, case, out="", more=(), program=None):
        self.folder = tempfile.mkdtemp(dir=options.folder)
        self.out = out or os.path.join(self.folder, "out")
        self.report_file = os.path.join(self.folder, "report")
        command = program or [options.victim, SIZE, case]
        done = subprocess.run(
            [options.tmem, "run", "-m", LIMIT, "--profile", self.out,
             "--report", "json", "--report-file", self.report_file, *more,
             "--", *command],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            timeout=120, check=False)
        self.status, self.said = done.returncode, done.stderr
        self.printed = done.stdout
        print(f"{case}: status {self.status} {self.said.strip()}")

    def report(self):
        with open(self.report_file, encoding="utf-8") as f:
            return json.load(f)

    def wait_for_profile(self):
        """It may be written after `tmem run` has ended."""
        deadline = time.monotonic() + 60
        while not os.path.getsize(self.out) and time.monotonic() < deadline:
            time.sleep(0.05)

    def stacks(self):
        """[(frames, microseconds)]; every line must be well-formed."""
        stacks = []
        with open(self.out, encoding="utf-8") as f:
            for line in f:
                text, count = line.rstrip("\n").rsplit(" ", 1)
                check(f"a frame is empty: {line}", all(text.split(";")))
                check(f"a count is positive: {line}", int(count) > 0)
                stacks.append((text.split(";"), int(count)))
        check("no line comes twice",
              len(stacks) == len({tuple(s) for s, _ in stacks}))
        return stacks

    def paid(self):
        """Microseconds of each function, with all that it called."""
        paid = collections.Counter()
        for frames, us in self.stacks():
            for name in {frame.split(" (")[0] for frame in frames[1:]}:
                paid[name] += us
        return paid

    def check_good(self):
        """The program ended well, and the profile adds up."""
        check("the program ended well", self.status == 0)
        report, total = self.report(), sum(us for _, us in self.stacks())
        check("the report says what is in the file",
              report["profile"]["stall_us"] == total and
              report["profile"]["stacks"] == len(self.stacks()))
        stall = report["counters"]["stall_ns"] / 1000
        print(f"  {total} us of {stall:.0f}, {report['profile']}")
        check("the stalls are those of the report",
              0.8 * stall <= total <= 1.01 * stall)
        check("nearly all have a stack",
              self.paid()["[no stack]"] <= 0.1 * total)


def parts(options):
    """Two functions that take turns, with three faults to one."""
    run = Run(options, "parts")
    run.check_good()
    paid = run.paid()
    ratio = paid["three_parts"] / max(paid["one_part"], 1)
    measured = float(run.printed)
    print(f"  three parts to one: {ratio:.2f}, measured {measured:.2f}")
    # With other load a few stalls of many milliseconds are most of it.
    check("it is as the program measured itself",
          0.4 < ratio / measured < 2.5)
    check("the lines are named", any(
        frame.startswith("check (profile_victim.c:")
        for frames, _ in run.stacks() for frame in frames))
    for frames, _ in run.stacks():
        check("the first frame is the process", frames[0] == "profile_victim")
        if "three_parts" in frames:
            check("the stack is whole", frames.index("main") <
                  frames.index("parts") < frames.index("three_parts"))


def threads(options):
    run = Run(options, "threads")
    run.check_good()
    paid = run.paid()
    for name in ("in_one_thread", "in_other_thread"):
        check(f"{name} paid", paid[name] > 0.2 * sum(
            us for _, us in run.stacks()))


def fork(options):
    run = Run(options, "fork")
    run.check_good()
    paid = run.paid()
    for name in ("in_one_thread", "in_other_thread"):
        check(f"{name} paid", paid[name] > 0)


def names(options):
    """Processes are told apart; a program that another one becomes, too."""
    other = os.path.join(options.folder, "other")
    shutil.copy(options.victim, other)
    run = Run(options, "names", program=[
        "/bin/sh", "-c", f"{options.victim} {SIZE} parts; "
        f"exec {other} {SIZE} threads"])
    run.check_good()
    first = {frames[0] for frames, _ in run.stacks()}
    check(f"both are there: {first}", {"profile_victim", "other"} <= first)
    for frames, _ in run.stacks():
        check("nobody has the other's functions",
              not (frames[0] == "other" and "three_parts" in frames))


def syscall(options):
    run = Run(options, "syscall")
    run.check_good()
    check("the caller of the system call paid", any(
        "by_write" in frames and frames[-1] == "[system call]"
        for frames, _ in run.stacks()))


def stripped(options):
    """Without symbols: the file and the address in it."""
    bare = os.path.join(options.folder, "bare")
    subprocess.run(["strip", "-o", bare, options.victim], check=True)
    run = Run(options, "stripped", program=[bare, SIZE, "parts"])
    run.check_good()
    check("addresses stand for names", any(
        frame.startswith("bare+0x") for frames, _ in run.stacks()
        for frame in frames))


def traced(options):
    """A process that is traced already is profiled like any other."""
    run = Run(options, "traced")
    run.check_good()
    check("the traced child paid", run.paid()["three_parts"] > 0)


def signals(options):
    run = Run(options, "signals")
    run.check_good()
    check("the child paid", run.paid()["three_parts"] > 0)


def takes_over(options):
    run = Run(options, "parts", more=["--exec"])
    check("the program ended well", run.status == 0)
    run.wait_for_profile()
    check("three parts paid", run.paid()["three_parts"] > 0)


def daemon(options):
    """Written when the last process of the tree has ended."""
    run = Run(options, "daemon")
    check("the program ended well", run.status == 0)
    run.wait_for_profile()
    check("the one that lived on paid", run.paid()["in_other_thread"] > 0)


def longer_before(options):
    """An earlier, longer file is replaced whole."""
    path = os.path.join(options.folder, "earlier")
    with open(path, "w", encoding="utf-8") as f:
        f.write("old;" * (1 << 20) + " 1\n")
    run = Run(options, "parts", out=path)
    run.check_good()
    check("nothing of it is left",
          all("old" not in frames for frames, _ in run.stacks()))


def not_writable(options):
    """Refused before the program starts."""
    for path in ("/nonexistent/out", options.folder):
        mark = os.path.join(options.folder, "started")
        run = Run(options, "not_writable", out=path,
                  program=["/bin/touch", mark])
        check("tmem fails", run.status == 125)
        check("it says what and where", f"--profile {path}: " in run.said and
              run.said.count("\n") == 1)
        check("the program was not started", not os.path.exists(mark))


def full(options):
    run = Run(options, "parts", out="/dev/full")
    check("the program's status stays", run.status == 0)
    check("the loss is told", "--profile /dev/full: No space left" in run.said)


TESTS = {f.__name__: f for f in (
    parts, threads, fork, names, syscall, stripped, traced, signals,
    takes_over, daemon, longer_before, not_writable, full)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tmem", required=True, type=os.path.abspath)
    parser.add_argument("--victim", required=True, type=os.path.abspath)
    parser.add_argument("names", nargs="*", choices=[*TESTS, []])
    options = parser.parse_args()
    probe = subprocess.run(
        [options.tmem, "run", "-m", "24M", "--profile", "/dev/null", "--",
         "/bin/true"], stderr=subprocess.PIPE, text=True, check=False)
    if probe.returncode == 125:
        print("skipped:", probe.stderr)
        sys.exit(77)
    failed = 0
    with tempfile.TemporaryDirectory() as options.folder:
        for name in options.names or TESTS:
            try:
                TESTS[name](options)
            except Failed as e:
                failed += 1
                print(f"FAILED {name}: {e}")
    sys.exit(failed != 0)


main()
