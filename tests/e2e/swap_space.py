#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The swap file gives its space back to the file system.

usage: swap_space.py --tmem PATH

A program fills memory with noise, which goes to the swap file as no codec
makes it smaller, frees it, and waits.  What the file holds on disk must grow
and then fall, while the program still runs.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
PROGRAM = """
import mmap, os, sys
m = mmap.mmap(-1, 256 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for i in range(256):
    m[i << 20:(i + 1) << 20] = os.urandom(1 << 20)
print("full", flush=True)
sys.stdin.readline()
m.close()
print("empty", flush=True)
sys.stdin.readline()
"""


def keeper_of(pid):
    """The keeper: the child of `tmem run` that is called so."""
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8") as f:
                comm, _, rest = f.read().partition("(")[2].rpartition(")")
        except OSError:
            continue
        if comm == "tmem-keeper" and int(rest.split()[1]) == pid:
            return int(name)
    return None


def file_bytes(keeper, folder):
    """What the nameless file in `folder` has on disk."""
    for name in os.listdir(f"/proc/{keeper}/fd"):
        path = f"/proc/{keeper}/fd/{name}"
        if os.readlink(path).startswith(folder):
            return os.stat(path).st_blocks * 512
    sys.exit("the keeper has no swap file in " + folder)


def wait_until(what, seconds, is_true):
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            sys.exit(f"after {seconds} s not yet: {what}")
        time.sleep(0.05)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--tmem", required=True)
    options = p.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        with subprocess.Popen(
                [options.tmem, "run", "-m", "64M", "--swap-dir", folder,
                 "--swap-max", "400M", "--report", "none", "--", sys.executable,
                 "-c", PROGRAM],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            wait_until("a keeper", 10, lambda: keeper_of(child.pid))
            keeper = keeper_of(child.pid)
            assert child.stdout.readline() == b"full\n"
            wait_until("150 MiB on disk", 10, lambda: file_bytes(
                keeper, folder) > 150 * MIB)
            child.stdin.write(b"\n")
            child.stdin.flush()
            assert child.stdout.readline() == b"empty\n"
            wait_until("less than 32 MiB on disk", 10, lambda: file_bytes(
                keeper, folder) < 32 * MIB)
            child.stdin.write(b"\n")
            child.stdin.close()
            assert child.wait(30) == 0


if __name__ == "__main__":
    main()
