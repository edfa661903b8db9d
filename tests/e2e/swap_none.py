#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`tmem run --swap-max 0`: no swap file at all.

usage: swap_none.py --tmem PATH

What compresses stays within the limit, a few pages that don't compress do no
harm, and when nothing fits any more it is as --on-full says.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile

MIB = 1 << 20
LIMIT = 64 * MIB
TABLE = """
import os
table = {i: (b"%d " % i) * 100 for i in range(150000)}
pid = os.fork()
for i in range(0, 150000, 7):
    assert table[i] == (b"%d " % i) * 100
if pid:
    assert os.waitpid(pid, 0)[1] == 0
else:
    os._exit(0)
"""
NOISE = """
import os
noise = os.urandom(150 << 20)
assert sum(noise[::4096]) > 0
"""


def run(options, program, *more):
    with tempfile.NamedTemporaryFile() as report:
        status = subprocess.run(
            [options.tmem, "run", "-m", "64M", "--swap-max", "0",
             "--report", "json", "--report-file", report.name, *more, "--",
             sys.executable, "-c", program],
            stderr=subprocess.PIPE, text=True, timeout=120, check=False)
        return status.returncode, status.stderr, json.load(report)


def check(what, is_so):
    if not is_so:
        sys.exit("FAILED: " + what)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tmem", required=True, type=os.path.abspath)
    options = parser.parse_args()

    status, said, report = run(options, TABLE)
    print("table:", status, report["peak_bytes"] // MIB, "MiB", said)
    check("the table's program ends well", status == 0)
    check("nobody is told that anything is full", said == "")
    check("it stays near its limit",
          report["peak_bytes"] <= LIMIT + 16 * MIB)
    check("pages were stored", report["counters"]["evicted_store"] > 1000)
    check("nothing was swapped", report["counters"]["evicted_swap"] == 0)

    status, said, report = run(options, NOISE, "--on-full", "term")
    print("noise:", status, report["peak_bytes"] // MIB, "MiB", said)
    check("noise is ended", status == -signal.SIGTERM)
    check("and says why", "full" in said)
    check("before it takes much more than it may",
          report["peak_bytes"] <= LIMIT + 32 * MIB)


if __name__ == "__main__":
    main()
