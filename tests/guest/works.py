#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""In a guest whose kernel will do: doctor is content, the given tests pass,
and so do the given rows of the matrix, with a few thousand pages evicted.

usage: works.py --tmem PATH [--churn PATH] [--run PROGRAM]... [ROW...]
"""
import argparse
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MATRIX = os.path.join(HERE, "..", "matrix", "matrix.py")
AT_LEAST = 2000
SKIP = 77


def call(what, argv):
    """True if it passed.  Its output is shown when it is there."""
    start = time.monotonic()
    status = subprocess.run(argv, stdin=subprocess.DEVNULL, check=False,
                            stderr=subprocess.STDOUT).returncode
    answer = {0: "ok", SKIP: "skipped"}.get(status, "FAILED (%d)" % status)
    print("-- %s: %s, %.1f s" % (what, answer, time.monotonic() - start),
          flush=True)
    return status in (0, SKIP)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--tmem", required=True)
    p.add_argument("--churn")
    p.add_argument("--run", action="append", default=[])
    p.add_argument("rows", nargs="*")
    options = p.parse_args()
    print("Linux %s" % os.uname().release, flush=True)
    ok = call("doctor", [options.tmem, "doctor"])
    for program in options.run:
        ok &= call(os.path.basename(program), [program])
    for row in options.rows:
        ok &= call(row, [
            sys.executable, MATRIX, "--tmem", options.tmem, "--at-least",
            str(AT_LEAST)] + (["--churn", options.churn]
                              if options.churn else []) + [row])
    return not ok


if __name__ == "__main__":
    sys.exit(main())
