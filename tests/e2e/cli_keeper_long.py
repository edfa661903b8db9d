#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The keeper, where it takes seconds to see what it does."""

import json

from cli_lib import Case, Place, main, read_file


class Patience(Case):
    def test_a_child_that_never_says_hello_leaves_its_slot(self):
        self.report("hello", "live", "fork", "raise=9", "end", "reap",
                    "wait-slots=1")

    def test_max_stall_leaves_alone_who_waits_little(self):
        r = self.report("hello", "live", "count=stall_ns:1000",
                        "wait-ticks=3000",
                        options=("-m", "64M", "--max-stall", "50/1"))
        self.assertEqual(r["exit_status"], 0)

    def test_silent_ones_are_found(self):
        path = self.path("report")
        tmem = self.start("run", "-m", "64M", "--report", "json",
                          "--report-file", path, "--", Place.fake, "hello",
                          "live", "spawn", "wait-file=" + self.path("go"),
                          "end", "wait-ticks=3500",
                          "touch=" + self.path("go"), "reap")
        self.assertEqual(tmem.wait(60), 0)
        found = json.loads(read_file(path))["not_paged"]
        self.assertEqual([o["count"] for o in found], [1])
        self.assertIn("environment", found[0]["reason"])


if __name__ == "__main__":
    main()
