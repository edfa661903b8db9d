#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tmem bench: its figures make sense, and wrong input gets one line."""

import json
import os
import re
import subprocess

from cli_lib import Case, Place, main, read_file, stat_fields, wait_for

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
PAGE = 4096


class Bench(Case):
    def bench(self, *args, pages=600, rounds=2):
        got = self.tmem("bench", "--json", "--pages", str(pages), "--rounds",
                        str(rounds), *args)
        self.assertEqual((got[0], got[2]), (0, ""), got)
        r = json.loads(got[1])
        self.check(r)
        return r, {f["form"]: f for f in r["forms"]}

    def check(self, r):
        self.assertGreater(r["limit_bytes"], 1 << 20)
        self.assertTrue(r["advice"].endswith("."))
        for f in r["forms"]:
            self.assertEqual(f["accepted_pages"] + f["refused_pages"],
                             r["pages"])
            self.assertGreater(f["store_ns"], 0)
            self.assertGreater(f["stores_per_second"], 0)
            if not f["accepted_pages"]:
                continue
            self.assertGreater(f["load_ns"], 0)
            self.assertAlmostEqual(
                f["ratio"], f["accepted_pages"] * PAGE / f["held_bytes"])
            self.assertAlmostEqual(f["bytes_per_gib"] * f["ratio"] / 2 ** 30,
                                   1)
            if f["form"] != "copy":
                self.assertEqual(f["same_filled_pages"] + f["lz4_pages"] +
                                 f["raw_pages"] + f["zstd_pages"] +
                                 f["lz4_dict_pages"] + f["zstd_dict_pages"],
                                 f["accepted_pages"])
                self.assertGreater(f["metadata_bytes_per_page"], 24)

    def file(self, content):
        with open(self.path("corpus"), "wb") as f:
            f.write(content)
        return self.path("corpus")

    def test_built_in_pages(self):
        r, forms = self.bench(pages=1600)
        self.assertEqual((r["source"], r["pages"]), ("built in", 1600))
        self.assertEqual(forms["auto"]["raw_pages"], 100)
        self.assertEqual(forms["auto"]["same_filled_pages"], 200)
        self.assertEqual(forms["lz4"]["refused_pages"], 100)
        self.assertEqual(forms["copy"]["ratio"], 1)
        self.assertGreater(forms["cold"]["ratio"], forms["auto"]["ratio"])
        self.assertGreater(forms["cold"]["work_ns"], 0)
        again = self.bench(pages=1600)[1]
        for name in ("held_bytes", "lz4_pages", "metadata_bytes_per_page"):
            self.assertEqual(forms["auto"][name], again["auto"][name])

    def test_a_corpus(self):
        path = self.file((bytes(PAGE) + os.urandom(PAGE)) * 300)
        r, forms = self.bench("--corpus", path)
        self.assertEqual((r["pages"], r["source_pages"]), (600, 600))
        self.assertEqual(forms["auto"]["same_filled_pages"], 300)
        self.assertEqual(forms["auto"]["raw_pages"], 300)
        self.assertEqual(forms["lz4"]["refused_pages"], 300)
        r = self.bench("--corpus", path, pages=50)[0]
        self.assertEqual((r["pages"], r["source_pages"]), (50, 600))

    def test_one_page(self):
        self.bench("--corpus", self.file(b"x" * PAGE), rounds=1)

    def test_threads(self):
        r = self.bench("--threads", "5")[0]
        self.assertEqual(r["threads"], 5)

    def test_a_process(self):
        r = self.bench("--pid", str(os.getpid()))[0]
        self.assertRegex(r["source"], r"\Aprocess %d \(" % os.getpid())
        self.assertEqual(r["pages"], 600)

    def test_a_small_store_refuses(self):
        path = self.file(os.urandom(PAGE) * 1000)
        _, forms = self.bench("--corpus", path, "--limit", "2M", pages=1000)
        self.assertGreater(forms["auto"]["refused_pages"], 500)
        self.assertLessEqual(forms["auto"]["held_bytes"], 2 << 20)

    def test_what_it_advises(self):
        noise = self.bench("--corpus", self.file(os.urandom(600 * PAGE)))[0]
        self.assertIn("hardly compress", noise["advice"])
        zeros = self.bench("--corpus", self.file(bytes(600 * PAGE)))[0]
        self.assertIn("half of their memory would hold", zeros["advice"])

    def test_text(self):
        status, out, err = self.tmem("bench", "--pages", "100", "--rounds",
                                     "1")
        self.assertEqual((status, err), (0, ""))
        for form in ("auto", "lz4", "dict", "cold", "coldest", "copy"):
            self.assertRegex(out, r"(?m)^%s +\d+ +\d+ +\d" % form)
        self.assertIn("These pages compress", out)


class BadInput(Case):
    def bad(self, *args, status=125, says="", **more):
        got = self.tmem("bench", *args, **more)
        self.assertEqual((got[0], got[1]), (status, ""), got)
        # What, why; what to do.
        self.assertRegex(got[2], r"\Atmem: [^\n]+; [^\n]+\n\Z")
        self.assertIn(says, got[2])

    def test_corpora(self):
        self.bad("--corpus", "/nonexistent", says="No such file")
        self.bad("--corpus", self.folder, says="not a regular file")
        with open(self.path("odd"), "wb") as f:
            f.write(bytes(PAGE + 1))
        self.bad("--corpus", self.path("odd"), says="multiple of 4096")
        with open(self.path("empty"), "wb"):
            pass
        self.bad("--corpus", self.path("empty"), says="empty")
        os.mkfifo(self.path("pipe"))
        self.bad("--corpus", self.path("pipe"), says="not a regular file")

    def test_numbers(self):
        for option in ("--threads", "--rounds", "--pages", "--pid"):
            for value in ("0", "-1", "x", "", "1x", "99999999999999999999"):
                self.bad(option, value, says=option + " " + value)
        self.bad("--threads", "257", says="from 1 to 256")
        self.bad("--threads", "9", "--pages", "8", says="more than the 8")
        self.bad("--limit", "x", says="not a size")
        for size in ("0", "4K"):
            self.bad("--limit", size, says="1 MiB")

    def test_options(self):
        self.bad("--nonsense", says="--nonsense")
        self.bad("-q", says="-q")
        self.bad("--corpus", says="needs an argument")
        self.bad("--json=1", says="takes no argument")
        self.bad("file", says="--corpus FILE")
        self.bad("--corpus", "x", "--pid", "1", says="one place")

    def test_processes(self):
        ended = subprocess.Popen(["true"])
        ended.wait()
        self.bad("--pid", str(ended.pid), says="no such process")
        with subprocess.Popen(["true"]) as zombie:
            wait_for(lambda: stat_fields(zombie.pid)[0] == "Z", "a zombie")
            self.bad("--pid", str(zombie.pid), says="no private memory")

    def test_a_process_of_another_user(self):
        if os.geteuid():
            self.skipTest("not root")
        os.chmod(Place.folder, 0o755)
        got = subprocess.run(
            ["setpriv", "--reuid", "65534", "--clear-groups", Place.tmem,
             "bench", "--pid", str(os.getpid())], capture_output=True,
            text=True, timeout=60)
        self.assertEqual(got.returncode, 125, got)
        self.assertRegex(got.stderr, r"\Atmem: process %d: you may not read "
                         r"its memory; run as root[^\n]*\n\Z" % os.getpid())


class Agreement(Case):
    """Help, manual pages and completion name the same options."""

    def options_of(self, command):
        out = self.tmem(command, "--help")[1]
        self.assertEqual(out, self.tmem("help", command)[1])
        self.assertIn("Examples:", out)
        found = re.findall(r"^  (?:-(.), )?--([a-z-]+)(?: ([A-Z]+))?$", out,
                           re.M)
        self.assertGreater(len(found), 5)
        return found

    def test_every_option_is_everywhere(self):
        completion = read_file(ROOT + "/completions/tmem.bash")
        for command in ("bench", "estimate"):
            options = self.options_of(command)
            manual = read_file(ROOT + "/man/tmem-%s.1.scd" % command)
            found = re.findall(
                r"^\*(?:-(.)\*, \*)?--([a-z-]+)\*(?: _([A-Z]+)_)?$", manual,
                re.M)
            self.assertEqual(found, options)
            part = completion.split("_tmem_%s()" % command)[1].split("\n}")[0]
            for _, name, _ in options:
                self.assertRegex(part, "--%s\\b" % name)
            self.assertIn(command, self.tmem("--help")[1])

    def complete(self, *words):
        """What bash offers for the last word."""
        script = ("source %s/completions/tmem.bash; COMP_WORDS=(%s); "
                  "COMP_CWORD=%d; _tmem; printf '%%s\\n' \"${COMPREPLY[@]}\""
                  % (ROOT, " ".join("'%s'" % w for w in words),
                     len(words) - 1))
        got = subprocess.run(["bash", "-c", script], capture_output=True,
                             text=True, timeout=60, check=True)
        return got.stdout.split()

    def test_completion_offers_them(self):
        self.assertIn("bench", self.complete("tmem", "b"))
        self.assertEqual(self.complete("tmem", "help", "est"), ["estimate"])
        self.assertEqual(self.complete("tmem", "bench", "--thr"),
                         ["--threads"])
        self.assertIn("--track", self.complete("tmem", "estimate", "--"))
        self.assertIn(str(os.getpid()),
                      self.complete("tmem", "bench", "--pid", ""))
        self.assertIn(str(os.getpid()), self.complete("tmem", "estimate", ""))
        with open(self.path("corpus"), "wb"):
            self.assertEqual(
                self.complete("tmem", "bench", "--corpus", self.path("cor")),
                [self.path("corpus")])


if __name__ == "__main__":
    main()
