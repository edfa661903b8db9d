#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""store_manual.py SOURCE: libtmem(3) names every public function, and has
every counter with its unit and text, as the headers and the tables do."""
import os
import re
import sys

root = sys.argv[1]


def read(*path):
    with open(os.path.join(root, *path), encoding="utf-8") as f:
        return f.read()


manual = read("man", "libtmem.3.scd").replace("\\_", "_")
missing = []
functions = 0
for header in sorted(os.listdir(os.path.join(root, "include", "tmem"))):
    if not header.endswith(".h"):
        continue
    text = read("include", "tmem", header)
    for name in re.findall(r"TMEM_API[^;]*?\b(tmem_\w+)\s*\(", text):
        functions += 1
        if f"*{name}*(" not in manual:
            missing.append(f"{header}: {name}()")
counters = []
for table in sorted(os.listdir(os.path.join(root, "include", "tmem"))):
    if table.endswith(".def"):
        found = re.findall(
            r'COUNTER\((\w+),\s*"(\w+)",\s*((?:"[^"]*"\s*)+)\)',
            read("include", "tmem", table))
        if len(found) < 10:
            sys.exit(f"{table}: found too little")
        counters += found
for name, unit, text in counters:
    text = "".join(re.findall(r'"([^"]*)"', text))
    if f"*{name}* ({unit})++\n{text}\n" not in manual:
        missing.append(f"counter {name}")
for what in missing:
    print(f"libtmem(3) lacks {what}")
if functions < 20 or len(counters) < 20:
    sys.exit("found too little to compare: wrong folder?")
sys.exit(bool(missing))
