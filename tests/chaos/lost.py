#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Pages that can't be read back: what their program, and who runs it, gets.

usage: lost.py --tmem PATH --program PATH [--seed N] CASE

t_lost.c checks that nobody reads anything wrong, once where reads of the swap
file fail and once where what is read was damaged.  The run must say on
standard error and in its report which pages were lost, and why.
"""
import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile

SKIP = 77
MIB, LIMIT = "40", "24M"
TIMEOUT = 100
# kind of chaos: what the reason must say
CAUSES = {
    "read": r"the swap file could not be read at byte \d+: "
            r"Input/output error",
    "damage": r"its copy in the swap file, at byte \d+, fails its checksum",
}


class Failure(Exception):
    pass


def expect(ok, *what):
    if not ok:
        raise Failure(" ".join(map(str, what)))


def check(report, printed, said, cause):
    found = set(re.findall(r"lost (0x[0-9a-f]+)", printed))
    lost = report["lost"]
    expect(found, "the program met no lost page")
    expect(lost, "the report names none")
    expect(report["counters"]["faults_lost"] >= len(found) > 0,
           "fewer are counted than were met:", report["counters"])
    for page in lost:
        expect("%#x" % page["address"] in found,
               "named, but the program did not meet it:", page)
        expect(re.fullmatch(cause, page["cause"]), "wrong cause:", page)
        expect(page["swap_file_offset"] % 4096 == 0, "wrong place:", page)
        expect(page["pid"] > 0 and page["name"] == "t_lost", page)
    lines = re.findall(r"^tmem: process (\d+) \(t_lost\) has lost the page at "
                       r"(0x[0-9a-f]+): (.*); a touch of it raises SIGBUS$",
                       said, re.M)
    expect(lines, "nothing was said:", said)
    for pid, address, why in lines:
        expect([p for p in lost if p["pid"] == int(pid) and
                "%#x" % p["address"] == address and p["cause"] == why],
               "said, but not in the report:", address)


def run(options, kind, folder):
    report = os.path.join(folder, "report.json")
    command = [options.tmem, "run", "-m", LIMIT, "--report", "json",
               "--report-file", report, "--", options.program, MIB,
               str(options.seed), options.case]
    chaos = "%d,all=0,%s=100" % (options.seed, kind)
    print("# TMEM_CHAOS=%s %s" % (chaos, " ".join(command)), flush=True)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=dict(os.environ, TMEM_CHAOS=chaos),
                          timeout=TIMEOUT, check=False)
    if done.returncode == SKIP:
        sys.exit(SKIP)
    expect(done.returncode == 0, "exit status", done.returncode,
           done.stdout[-500:], done.stderr[-1000:])
    with open(report, encoding="utf-8") as f:
        check(json.load(f), done.stdout, done.stderr, CAUSES[kind])


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--tmem", required=True)
    p.add_argument("--program", required=True)
    p.add_argument("--seed", type=int,
                   default=int(os.environ.get("TMEM_SEED", 0)) or
                   random.randrange(1, 1 << 31))
    p.add_argument("case")
    options = p.parse_args()
    for kind in CAUSES:
        with tempfile.TemporaryDirectory(prefix="lost-",
                                         dir="/var/tmp") as folder:
            try:
                run(options, kind, folder)
            except (Failure, subprocess.TimeoutExpired) as reason:
                print("FAILED %s, %s: %s" % (options.case, kind, reason))
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
