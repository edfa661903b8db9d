# SPDX-License-Identifier: MIT
"""Debian's kernels, taken out of their packages; nothing is installed.

The packages are those that apt-get serves here, which checks their signatures.
An unpacked kernel is a folder of the cache: `vmlinuz`, the modules that a guest
needs, and `order`, their names in the order in which they are to be loaded.
Delete it to have a newer one fetched.
"""
import fcntl
import glob
import lzma
import os
import re
import shutil
import subprocess
import tarfile
import tempfile

# Which package stands for the newest of a series.
META = {"6.1": "linux-image-amd64", "6.12": "linux-image-6.12-amd64"}
WANTED = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
PART = re.compile(r"/(vmlinuz-[^/]*|kernel/(fs|net/9p|drivers/virtio)/(.*/)?"
                  r"(?P<module>[^/]+)\.ko(?P<xz>\.xz)?)$")


class Unavailable(Exception):
    """Why there is no such kernel, for a person."""


def apt(*argv, **how):
    """What it printed, or "" if it failed."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=200,
                              capture_output=True, text=True, check=False,
                              **how)
    except subprocess.TimeoutExpired:
        raise Unavailable("no end of " + " ".join(argv)) from None
    return done.stdout if done.returncode == 0 else ""


def package_name(series):
    """The package of the newest kernel of `series`, or ""."""
    pattern = r"Depends: (linux-image-%s\S*)" % re.escape(series + ".")
    found = re.search(pattern, apt("apt-cache", "depends", META[series]))
    return found[1] if found else ""


def download(series, folder):
    """The path of the package of the newest kernel of `series`."""
    if not shutil.which("apt-get"):
        raise Unavailable("no apt-get here to fetch Linux %s" % series)
    for retry in (False, True):
        if retry and os.getuid() == 0:  # what apt knows may be too old
            apt("apt-get", "-qq", "update")
        name = package_name(series)
        if name:
            apt("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "-o",
                "Acquire::Retries=3", "download", name, cwd=folder)
        for path in glob.glob(os.path.join(folder, "*.deb")):
            return path
    raise Unavailable("apt-get can't get %s: Debian 12 has it, with its "
                      "security suite" % (name or META[series]))


def read_package(package):
    """The kernel's image, and {module name: bytes} of what it may need."""
    image, modules = None, {}
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package],
                          stdout=subprocess.PIPE) as unpacker, \
            tarfile.open(fileobj=unpacker.stdout, mode="r|") as archive:
        for member in archive:
            found = PART.search(member.name)
            if not found or not member.isfile():
                continue
            data = archive.extractfile(member).read()
            if found["module"]:
                modules[found["module"]] = \
                    lzma.decompress(data) if found["xz"] else data
            else:
                image = data
    if not image:
        raise Unavailable("%s has no kernel in it" % package)
    return image, modules


def collect(modules, name, order):
    """Adds a module to `order` after what it depends on."""
    if name not in modules or name in order:
        return      # built in, or there
    found = re.search(rb"\0depends=([^\0]*)\0", modules[name])
    for other in found[1].decode().split(",") if found else []:
        collect(modules, other, order)
    order.append(name)


def unpack(package, target):
    """Takes what we need out of the package."""
    image, modules = read_package(package)
    order = []
    for name in WANTED:
        collect(modules, name, order)
    os.mkdir(target)
    files = {name + ".ko": modules[name] for name in order}
    files["order"] = "".join(name + ".ko\n" for name in order).encode()
    files["vmlinuz"] = image
    for name, data in files.items():
        with open(os.path.join(target, name), "wb") as f:
            f.write(data)


def fetch(series, cache):
    """The folder of the newest kernel of `series`, fetched if need be."""
    if series not in META:
        raise Unavailable("Linux %s is none of %s" % (series, ", ".join(META)))
    os.makedirs(cache, exist_ok=True)
    target = os.path.join(cache, series)
    with open(target + ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(target):
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                unpack(download(series, folder), folder + "/done")
                os.rename(folder + "/done", target)
    return target
