#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The swap file gives its space back to the file system.

usage: swap_space.py --tmem PATH

A program fills memory with noise, which goes to the swap file as no codec
makes it smaller, frees it, and waits.  What the file holds on disk must grow
and then fall, while the program still runs; and words that every page had
must not be in it.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
WORDS = b"words that every page has"
PROGRAM = f"""
import mmap, os, sys
WORDS = {WORDS!r}
m = mmap.mmap(-1, 256 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for i in range(256 * 256):
    m[i << 12:(i + 1) << 12] = WORDS + os.urandom(4096 - len(WORDS))
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


def swap_file(keeper, folder):
    """The nameless file in `folder`."""
    for name in os.listdir(f"/proc/{keeper}/fd"):
        path = f"/proc/{keeper}/fd/{name}"
        if os.readlink(path).startswith(folder):
            return path
    sys.exit("the keeper has no swap file in " + folder)


def file_bytes(keeper, folder):
    return os.stat(swap_file(keeper, folder)).st_blocks * 512


def count_words(keeper, folder):
    """How many pages of what is on disk have the words."""
    n = 0
    with open(swap_file(keeper, folder), "rb") as f:
        chunk = f.read(MIB)
        while chunk:
            n += chunk.count(WORDS)
            chunk = f.read(MIB)
    return n


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
            assert count_words(keeper, folder) == 0
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
