#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs a case of t_schedule.c under the pager of this folder.

usage: schedule.py --tmem PATH --program PATH [--limit SIZE] [--seed N] CASE

The page that program and pagers share is a file in a folder of its own.  The
program checks every byte; the report must say that pages were evicted, and
none lost.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

SKIP = 77
MIB = "32"
TIMEOUT = 150
PAGE_BYTES = 8192


def run(options, folder):
    shared = os.path.join(folder, "shared")
    report = os.path.join(folder, "report.json")
    with open(shared, "wb") as f:
        f.truncate(PAGE_BYTES)
    command = [options.tmem, "run", "-m", options.limit, "--report", "json",
               "--report-file", report, "--", options.program, MIB,
               str(options.seed), options.case]
    print("# seed %d: %s" % (options.seed, " ".join(command)), flush=True)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                             env=dict(os.environ, TMEM_CHAOS_FILE=shared))
    try:
        status = child.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        child.terminate()  # passed on to the program
        child.wait()
        return "no end after %d s" % TIMEOUT
    if status:
        return SKIP if status == SKIP else "exit status %d" % status
    with open(report, encoding="utf-8") as f:
        counters = json.load(f)["counters"]
    if not counters["evicted_store"] + counters["evicted_swap"]:
        return "no page was evicted: proves nothing"
    if counters["faults_lost"]:
        return "%d pages were lost" % counters["faults_lost"]
    return 0


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--tmem", required=True)
    p.add_argument("--program", required=True)
    p.add_argument("--limit", default="20M")
    p.add_argument("--seed", type=int,
                   default=int(os.environ.get("TMEM_SEED", 0)) or
                   random.randrange(1, 1 << 31))
    p.add_argument("case")
    options = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="schedule-",
                                     dir="/var/tmp") as folder:
        result = run(options, folder)
    if isinstance(result, str):
        print("FAILED %s: %s" % (options.case, result))
        return 1
    return result


if __name__ == "__main__":
    sys.exit(main())
