#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Wrong input: one line that says what to do, the right status, nothing
started."""

import json
import os
import re
import shutil
import subprocess

from cli_lib import Case, Place, main

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))


class BadInput(Case):
    def bad(self, *args, status=125, says="", program=None, **more):
        """tmem run with these options must fail; the program must not run."""
        mark = self.path("started")
        if program is None:
            program = (Place.fake, "touch=" + mark)
        got = self.tmem("run", *args, "--", *program, **more)
        self.assertEqual(got[0], status, got)
        self.assertEqual(got[1], "")
        self.assertRegex(got[2], r"\Atmem: [^\n]*\n\Z")
        self.assertIn(says, got[2])
        # What to do is after the last semicolon.
        self.assertRegex(got[2], "; [a-z`-]")
        self.assertFalse(os.path.exists(mark))

    def test_sizes(self):
        for size in ("", "x", "12Q", "1.M", ".5G", "-5M", "10MB", "1 G",
                     "0x100M"):
            self.bad("-m", size, says="not a size")
        for size in ("99999999999999999999", "18446744073709551616G",
                     "16777216T"):
            self.bad("-m", size, says="larger")
        for size in ("0", "15.9M", "4096"):
            self.bad("-m", size, says="16 MiB")
        self.bad("-m", "64M", "--swap-max", "some", says="--swap-max")

    def test_options(self):
        self.bad(says="-m SIZE")
        self.bad("-m", "64M", "--nonsense", says="--nonsense")
        self.bad("-m", "64M", "-q", says="-q")
        self.bad("-m", "64M", "--exec=1", says="--exec=1")
        self.bad("-m", "64M", "--on-full", "explode", says="pause")
        self.bad("-m", "64M", "--read-ahead", "maybe", says="off")
        self.bad("-m", "64M", "--report", "xml", says="json")
        for stall in ("50", "0/10", "101/10", "50/0", "50/9999", "a/b",
                      "50/10x"):
            self.bad("-m", "64M", "--max-stall", stall, says="60/30")
        for args in (["run", "-m", "64M"], ["run", "-m", "64M", "--"],
                     ["run", "-m"], [], ["nonsense"], ["--nonsense"],
                     ["help", "nonsense"], ["doctor", "--nonsense"]):
            got = self.tmem(*args)
            self.assertEqual(got[0], 125, got)
            self.assertRegex(got[2], r"\Atmem: [^\n]*; [^\n]*\n\Z|"
                             r"\Atmem: no command; [^\n]*\n\Z")

    def test_programs(self):
        limit = ("-m", "64M")
        self.bad(*limit, program=["nonexistent-program"], status=127)
        self.bad(*limit, program=["/nonexistent/program"], status=127)
        self.bad(*limit, program=[""], status=127)
        self.bad(*limit, program=["/etc/passwd"], status=126)
        self.bad(*limit, program=["/tmp"], status=126)
        binary = self.path("binary")
        with open(binary, "wb") as f:
            f.write(b"\x00\x01\x02\x03" * 100)
        os.chmod(binary, 0o755)
        self.bad(*limit, program=[binary], status=126)

    def test_programs_that_cannot_be_paged(self):
        limit = ("-m", "64M")
        shutil.copy(Place.fake, self.path("setuid"))
        os.chmod(self.path("setuid"), 0o4755)
        self.bad(*limit, program=[self.path("setuid")], says="set-user-ID")
        os.chmod(self.path("setuid"), 0o2755)
        self.bad(*limit, program=[self.path("setuid")], says="set-group-ID")
        with open(Place.fake, "rb") as f:
            elf = f.read()
        cases = {
            "musl": elf.replace(b"/lib64/ld-linux-x86-64.so.2\0",
                                b"/lib/ld-musl-x86_64.so.1\0\0\0\0"),
            "machine": elf[:18] + b"\xb7\x00" + elf[20:],
            "another dynamic loader": elf.replace(
                b"/lib64/ld-linux-x86-64.so.2\0",
                b"/lib64/ld-other-x86-64.so.2\0"),
        }
        for says, content in cases.items():
            path = self.path("program")
            with open(path, "wb") as f:
                f.write(content)
            os.chmod(path, 0o755)
            self.bad(*limit, program=[path], says=says)
            with open(self.path("script"), "w", encoding="utf-8") as f:
                f.write("#! %s -x\n" % path)
            os.chmod(self.path("script"), 0o755)
            self.bad(*limit, program=[self.path("script")], says=says)

    def test_a_static_program(self):
        # ldconfig is the one static program of every Debian system.
        static = shutil.which("ldconfig", path="/sbin:/usr/sbin")
        self.bad("-m", "64M", program=[static, "-p"], says="statically")

    def test_swap_directories(self):
        limit = ("-m", "64M")
        self.bad(*limit, "--swap-dir", "/nonexistent", says="--swap-max 0")
        self.bad(*limit, "--swap-dir", "/etc/passwd", says="--swap-max 0")
        self.bad(*limit, "--swap-dir", "/proc", says="--swap-dir /proc")
        self.bad(*limit, "--swap-dir", "/dev/shm", says="in memory")
        self.bad(*limit, "--swap-max", "1000T", says="free")
        self.bad(*limit, "--swap-max", "4K", says="full")

    def test_an_unwritable_swap_directory(self):
        os.mkdir(self.path("closed"), 0o555)
        # Root without the capability that lets it write everywhere.
        got = subprocess.run(
            ["setpriv", "--bounding-set", "-dac_override", Place.tmem, "run",
             "-m", "64M", "--swap-dir", self.path("closed"), "--", "true"],
            capture_output=True, text=True, timeout=60)
        self.assertEqual(got.returncode, 125, got)
        self.assertRegex(got.stderr, r"\Atmem: --swap-dir [^\n]*Permission "
                         r"denied; [^\n]*\n\Z")

    def test_report_files(self):
        self.bad("-m", "64M", "--report-file", "/nonexistent/x",
                 says="--report-file")
        self.bad("-m", "64M", "--report-file", self.folder,
                 says="--report-file")

    def test_a_user_without_userfaultfd(self):
        os.chmod(Place.folder, 0o755)
        got = subprocess.run(
            ["setpriv", "--reuid", "65534", "--clear-groups", Place.tmem,
             "run", "-m", "64M", "--", "true"], capture_output=True,
            text=True, timeout=60)
        self.assertEqual(got.returncode, 125, got)
        # Whose the device is, before what opens it to everybody.
        self.assertRegex(got.stderr, r"\Atmem: [^\n]*userfaultfd[^\n]*; join "
                         r"[^\n]*group[^\n]*--device[^\n]*sysctl[^\n]*\n\Z")
        doctor = subprocess.run(
            ["setpriv", "--reuid", "65534", "--clear-groups", Place.tmem,
             "doctor"], capture_output=True, text=True, timeout=60)
        self.assertEqual(doctor.returncode, 1)
        # The same words.
        for part in got.stderr[6:].strip().split("; ", 1):
            self.assertIn(part, doctor.stdout)

    def test_a_missing_pager_library(self):
        shutil.copy(Place.tmem, self.path("tmem"))
        got = subprocess.run([self.path("tmem"), "run", "-m", "64M", "true"],
                             capture_output=True, text=True, timeout=60)
        self.assertEqual(got.returncode, 125, got)
        self.assertRegex(got.stderr, r"\Atmem: libtmem-pager.so: [^\n]*\n\Z")

    def test_a_tree_inside_a_tree(self):
        self.bad("-m", "64M", says="TMEM_TREE",
                 env=dict(os.environ, TMEM_TREE="tmem-x"))


class Doctor(Case):
    def test_text_and_json_agree(self):
        status, out, _ = self.tmem("doctor")
        r = json.loads(self.tmem("doctor", "--json")[1])
        self.assertEqual(r["ok"], status == 0)
        for probe in r["probes"]:
            self.assertIn(probe["detail"], out)
        self.assertIn("move", [p["name"] for p in r["probes"]])

    def test_programs_are_named(self):
        static = shutil.which("ldconfig", path="/sbin:/usr/sbin")
        status, out, _ = self.tmem("doctor", "--", "sh", static)
        self.assertEqual(status, 1)
        self.assertRegex(out, "ok +sh: ")
        self.assertIn("statically linked", out)
        r = json.loads(self.tmem("doctor", "--json", "--", "sh", static)[1])
        self.assertEqual([p["ok"] for p in r["programs"]], [True, False])


class Agreement(Case):
    """Help, manual pages, completion and the option table say the same."""

    def table(self):
        with open(ROOT + "/src/cli/options.def", encoding="utf-8") as f:
            text = f.read()
        rows = re.findall(r'^OPTION\(\w+,\s*(\'.\'|0),\s*"([^"]+)",\s*'
                          r'("[^"]*"|NULL)', text, re.M)
        self.assertGreater(len(rows), 5)
        return [(letter.strip("'") if letter != "0" else "", name,
                 argument.strip('"') if argument != "NULL" else "")
                for letter, name, argument in rows]

    def manual(self, name):
        with open(ROOT + "/man/" + name, encoding="utf-8") as f:
            return f.read().replace("\\", "")

    def test_help_lists_the_table(self):
        out = self.tmem("run", "--help")[1]
        self.assertEqual(out, self.tmem("help", "run")[1])
        found = re.findall(r"^  (?:-(.), )?--([a-z-]+)(?: (\S+))?$", out,
                           re.M)
        self.assertEqual(found, self.table())

    def test_the_manual_lists_the_table(self):
        found = re.findall(r"^\*(?:-(.)\*, \*)?--([a-z-]+)\*(?: _(.+)_)?$",
                           self.manual("tmem-run.1.scd"), re.M)
        self.assertEqual([(a, b, c.replace("_", "")) for a, b, c in found],
                         self.table())

    def test_completion_knows_the_table(self):
        with open(ROOT + "/completions/tmem.bash", encoding="utf-8") as f:
            text = f.read()
        for _, name, _ in self.table():
            self.assertRegex(text, "--%s\\b" % name)

    def test_the_manual_lists_every_counter(self):
        with open(ROOT + "/src/wire/counters.def", encoding="utf-8") as f:
            names = re.findall(r"^COUNTER\((\w+)", f.read(), re.M)
        self.assertGreater(len(names), 10)
        page = self.manual("tmem-run.1.scd")
        for name in names:
            self.assertIn("\n*%s* (" % name, page)

    def test_the_manual_lists_every_probe(self):
        page = self.manual("tmem-doctor.1.scd")
        r = json.loads(self.tmem("doctor", "--json")[1])
        for probe in r["probes"]:
            self.assertIn("*%s*" % probe["name"], page)

    def test_help_shows_examples(self):
        for command in ("run", "doctor"):
            self.assertIn("Examples:", self.tmem("help", command)[1])
        self.assertIn("tmem run", self.tmem("--help")[1])
        self.assertRegex(self.tmem("--version")[1], r"\Atmem \d+\.\d+")


if __name__ == "__main__":
    main()
