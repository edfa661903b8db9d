#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""In a guest whose kernel is too old: doctor says what is missing and what
to do, `tmem run` refuses with the same words and starts nothing.

usage: refusal.py --tmem PATH
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

REMEDY = "run Linux 6.8 or newer"
DETAIL = "this kernel (%s) has no UFFDIO_MOVE" % os.uname().release
failures = 0


def expect(what, ok, got):
    global failures
    print("%-7s %s" % ("ok" if ok else "FAILED", what))
    if not ok:
        failures += 1
        print("got: %r" % (got,))


def call(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, timeout=60)


def check_doctor(tmem):
    done = call(tmem, "doctor")
    lines = done.stdout.splitlines()
    expect("doctor: exit status 1", done.returncode == 1, done)
    expect("doctor: UFFDIO_MOVE is missing, and the remedy",
           "MISSING  move          %s\n         remedy: %s\n" %
           (DETAIL, REMEDY) in done.stdout, done.stdout)
    expect("doctor: the verdict is its last line",
           lines[-1:] == ["tmem run cannot work here."], lines)
    expect("doctor: nothing else to say", done.stderr == "", done.stderr)


def check_json(tmem):
    done = call(tmem, "doctor", "--json")
    report = json.loads(done.stdout)
    move = [p for p in report["probes"] if p["name"] == "move"]
    expect("doctor --json: exit status 1", done.returncode == 1, done)
    expect("doctor --json: the same words",
           report["ok"] is False and move == [{
               "name": "move", "needed": True, "ok": False,
               "detail": DETAIL, "remedy": REMEDY}], report)


def check_run(tmem):
    with tempfile.TemporaryDirectory() as folder:
        mark, report = folder + "/started", folder + "/report"
        done = call(tmem, "run", "-m", "64M", "--swap-dir", folder,
                    "--report", "json", "--report-file", report, "--",
                    "/usr/bin/touch", mark)
        left = os.listdir(folder)
    expect("run: exit status 125", done.returncode == 125, done)
    expect("run: the same words as doctor",
           done.stderr == "tmem: %s; %s\n" % (DETAIL, REMEDY), done.stderr)
    expect("run: started nothing, left nothing", left == [], left)
    expect("run: printed nothing else", done.stdout == "", done.stdout)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--tmem", required=True)
    tmem = p.parse_args().tmem
    print("Linux %s" % os.uname().release)
    check_doctor(tmem)
    check_json(tmem)
    check_run(tmem)
    return failures != 0


if __name__ == "__main__":
    sys.exit(main())
