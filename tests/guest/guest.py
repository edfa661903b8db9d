#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Runs a command in a virtual machine with another kernel.

usage: guest.py --kernel 6.1|6.12 [OPTION...] -- COMMAND [ARGUMENT...]

The guest's files are this machine's, read-only by 9p, with an overlay in its
memory for what is written: so it has the programs and the build tree, and
leaves nothing behind.  The command runs as root in this folder, without a
network; guest.py prints what it printed and ends with its exit status.  77 says
that there is no such kernel, or no qemu, to be had; 124 that time was up; 125
(or the command's own 125) that the guest died of something else.

qemu emulates the CPU (TCG): some ten times slower than the machine, but it
goes everywhere, in virtual machines too.
"""
import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE]
import kernels  # noqa: E402

SKIP, TIMED_OUT, DIED = 77, 124, 125
BUSYBOX = "/bin/busybox"
PASSED_ON = ("TMEM_SEED",)
RUN = """\
(
cd {folder}
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LC_ALL=C {variables}
exec {command}
) >/mnt/output 2>&1 </dev/null
echo $? >/mnt/status
echo b >/proc/sysrq-trigger
sleep 60
"""


def cpio(files):
    """The bytes of an archive as the kernel wants it: [(name, mode, data)]."""
    out = bytearray()
    for number, (name, mode, data) in enumerate(
            files + [("TRAILER!!!", 0, b"")], 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0,
                  len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % f for f in fields)
        out += name.encode() + b"\0"
        out += bytes(-len(out) % 4)
        out += data
        out += bytes(-len(out) % 4)
    return bytes(out)


def initramfs(kernel):
    def read(path):
        with open(path, "rb") as f:
            return f.read()

    files = [(d, 0o40755, b"") for d in ("bin", "modules")]
    files.append(("bin/busybox", 0o100755, read(BUSYBOX)))
    files.append(("init", 0o100755, read(os.path.join(HERE, "init"))))
    files += [("modules/" + name, 0o100644, read(os.path.join(kernel, name)))
              for name in os.listdir(kernel) if name != "vmlinuz"]
    return cpio(files)


def qemu_command(options, kernel, job):
    return [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot",
        "-display", "none", "-serial", "file:" + os.path.join(job, "console"),
        "-machine", "q35", "-accel", "tcg", "-cpu", "max,la57=off",
        "-smp", str(options.cpus), "-m", options.memory,
        "-kernel", os.path.join(kernel, "vmlinuz"),
        "-initrd", os.path.join(job, "initramfs"),
        "-append", "console=ttyS0 quiet panic=-1 mitigations=off",
        "-virtfs", "local,path=/,mount_tag=host,security_model=none,"
        "readonly=on,multidevs=remap",
        "-virtfs", "local,path=%s,mount_tag=job,security_model=none" %
        job.replace(",", ",,")]


def write_job(options, kernel, job):
    with open(os.path.join(job, "initramfs"), "wb") as f:
        f.write(initramfs(kernel))
    variables = ["%s=%s" % (name, shlex.quote(os.environ[name]))
                 for name in PASSED_ON if name in os.environ]
    with open(os.path.join(job, "run"), "w", encoding="utf-8") as f:
        f.write(RUN.format(folder=shlex.quote(os.getcwd()),
                           variables=" ".join(variables),
                           command=shlex.join(options.command)))


def show(path, last=1 << 20):
    """Prints the end of a file, if there is one."""
    try:
        with open(path, "rb") as f:
            sys.stdout.buffer.write(f.read()[-last:])
    except FileNotFoundError:
        pass
    sys.stdout.flush()


def boot(options, kernel, job):
    """The exit status of the command in the guest."""
    start, late = time.monotonic(), False
    with subprocess.Popen(qemu_command(options, kernel, job),
                          stdin=subprocess.DEVNULL) as qemu:
        try:
            qemu.wait(options.timeout)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            qemu.kill()     # also if we are ended ourselves
    show(os.path.join(job, "output"))
    spent = os.times()
    print("guest: %.1f s, of CPU %.1f s" % (
        time.monotonic() - start,
        spent.children_user + spent.children_system))
    try:
        with open(os.path.join(job, "status"), encoding="utf-8") as f:
            return int(f.read())
    except (FileNotFoundError, ValueError):
        pass
    show(os.path.join(job, "console"), 4000)
    print("guest: %s" % ("still running after %d s" % options.timeout
                         if late else "died; above are its last words"))
    return TIMED_OUT if late else DIED


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--kernel", required=True, help="6.1 or 6.12")
    p.add_argument("--cache", required=True, help="where kernels are kept")
    p.add_argument("--memory", default="1G")
    p.add_argument("--cpus", type=int, default=2)
    p.add_argument("--timeout", type=int, default=120, help="in seconds")
    p.add_argument("command", nargs="+")
    return p.parse_args()


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda n, _: sys.exit(128 + n))
    for program in ("qemu-system-x86_64", BUSYBOX):
        if not shutil.which(program):
            print("guest: no %s here" % program)
            return SKIP
    try:
        kernel = kernels.fetch(options.kernel, options.cache)
    except kernels.Unavailable as why:
        print("guest: %s" % why)
        return SKIP
    with tempfile.TemporaryDirectory(dir="/var/tmp") as job:
        write_job(options, kernel, job)
        return boot(options, kernel, job)


if __name__ == "__main__":
    sys.exit(main())
