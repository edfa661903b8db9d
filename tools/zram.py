# SPDX-License-Identifier: MIT
"""A zram device and a memory cgroup of our own, for benches.

They are added, so that nobody else's are touched, and removed in the end.
"""
import errno
import os
import subprocess
import sys
import time


def write(path, text):
    with open(path, "w", encoding="ascii") as f:
        f.write(str(text))


def read(path):
    with open(path, encoding="ascii") as f:
        return f.read()


class Zram:
    """on() or swap_on(), off(), and so on; remove() at the end."""

    def __init__(self, size):
        try:
            number = read("/sys/class/zram-control/hot_add")
        except FileNotFoundError:
            subprocess.run(["modprobe", "zram"], check=True)
            number = read("/sys/class/zram-control/hot_add")
        self.size = size
        self.number = int(number)
        self.device = "/dev/zram%d" % self.number
        self.sys = "/sys/block/zram%d/" % self.number
        self.swapping = False

    def on(self, algorithm="lz4"):
        write(self.sys + "comp_algorithm", algorithm)
        write(self.sys + "disksize", self.size)

    def swap_on(self):
        self.on()
        subprocess.run(["mkswap", self.device], check=True,
                       stdout=subprocess.DEVNULL)
        subprocess.run(["swapon", "-p", "100", self.device], check=True)
        self.swapping = True

    def stat(self):
        names = ("orig_data_size", "compr_data_size", "mem_used_total",
                 "mem_limit", "mem_used_max")
        return dict(zip(names, map(int, read(self.sys + "mm_stat").split())))

    def off(self):
        if self.swapping:
            subprocess.run(["swapoff", self.device], check=False)
            self.swapping = False
        for _ in range(100):
            try:
                write(self.sys + "reset", 1)
                return
            except OSError as e:
                if e.errno != errno.EBUSY:
                    raise
            time.sleep(0.05)    # until the kernel has let go of it
        sys.exit("%s stays busy" % self.device)

    def remove(self):
        self.off()
        write("/sys/class/zram-control/hot_remove", self.number)


class Group:
    """A memory cgroup of our own, version 1 or 2."""

    def __init__(self):
        name = "tmem-bench-%d" % os.getpid()
        if os.path.exists("/sys/fs/cgroup/memory/memory.limit_in_bytes"):
            self.folder = "/sys/fs/cgroup/memory/" + name
            self.limit_file = "memory.limit_in_bytes"
        else:
            self.folder = "/sys/fs/cgroup/" + name
            self.limit_file = "memory.max"
            write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
        os.mkdir(self.folder)

    def limit(self, size):
        write(os.path.join(self.folder, self.limit_file), size)

    def enter(self):
        write(os.path.join(self.folder, "cgroup.procs"), os.getpid())

    def remove(self):
        for _ in range(100):
            try:
                os.rmdir(self.folder)
                return
            except OSError:
                time.sleep(0.05)    # until the kernel has let go of it
        print("could not remove %s" % self.folder, file=sys.stderr)
