# SPDX-License-Identifier: MIT
"""What the tests of the tmem command share.

The binary is copied beside a pager library that does nothing, so that these
tests ask the command and its keeper only.  Called as
    cli_x.py --tmem TMEM --pager DUMMY --fake FAKE_PAGER [unittest arguments]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

TIMEOUT = 60


class Place:
    """Set by main(): where things are."""
    tmem = fake = folder = ""


def wait_for(condition, what, timeout=TIMEOUT):
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("waited in vain for " + what)
        time.sleep(0.005)


def stat_fields(pid):
    with open("/proc/%d/stat" % pid, "rb") as f:
        return f.read().decode("latin-1").rpartition(")")[2].split()


def state_of(pid):
    try:
        return stat_fields(pid)[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def read_file(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(dir=Place.folder)
        self.started = []

    def tearDown(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe:
                    pipe.close()

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self, *args, **more):
        """tmem with these arguments, in the background."""
        options = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, text=True)
        options.update(more)
        process = subprocess.Popen([Place.tmem, *args], **options)
        self.started.append(process)
        return process

    def tmem(self, *args, **more):
        """tmem with these arguments: (status, stdout, stderr)."""
        process = self.start(*args, **more)
        out, err = process.communicate(timeout=TIMEOUT)
        return process.returncode, out, err

    def run_fake(self, *verbs, options=("-m", "64M"), **more):
        """tmem run of a fake pager: (status, stdout, stderr)."""
        return self.tmem("run", *options, "--", Place.fake, *verbs, **more)

    def start_fake(self, *verbs, options=("-m", "64M"), **more):
        return self.start("run", *options, "--", Place.fake, *verbs, **more)

    def report(self, *verbs, options=("-m", "64M"), status=0):
        """The JSON report of a run that must end with `status`."""
        path = self.path("report.json")
        got = self.run_fake(*verbs, options=(*options, "--report", "json",
                                             "--report-file", path))
        self.assertEqual(got[0], status, got)
        return json.loads(read_file(path))

    def wait_file(self, name):
        wait_for(lambda: os.path.exists(self.path(name)), name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tmem", required=True)
    parser.add_argument("--pager", required=True)
    parser.add_argument("--fake", required=True)
    args, rest = parser.parse_known_args()
    os.environ.pop("TMEM_TREE", None)
    os.environ.pop("LD_PRELOAD", None)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(args.tmem, folder + "/tmem")
        shutil.copy(args.pager, folder + "/libtmem-pager.so")
        Place.folder = folder
        Place.tmem = folder + "/tmem"
        Place.fake = os.path.abspath(args.fake)
        program = unittest.main(argv=[sys.argv[0], *rest], exit=False)
    sys.exit(0 if program.result.wasSuccessful() else 1)
