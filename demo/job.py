#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The demo's job: an ordinary Python program with a big table of records.

It builds --mib MiB of records, visits them in random order, rewrites one in
eight, and verifies every record that it touches byte for byte against what it
must be, which it can compute anew from the record's number and version.  At
the end it verifies all of them and prints a digest over the whole table.
It knows nothing of tmem.
"""
import argparse
import hashlib
import random
import resource
import sys
import time

CITIES = ("Amsterdam", "Bergen", "Coimbra", "Dresden", "Evora", "Freiburg",
          "Gdansk", "Heraklion", "Innsbruck", "Jyvaskyla", "Kaunas", "Lugano",
          "Malmo", "Namur", "Ostrava", "Pecs")
STATES = ("ordered", "packed", "shipped", "delivered", "returned")
MASK = (1 << 64) - 1


def record(number, version):
    """Record `number` in its `version`: some 2 KiB of JSON, always the same."""
    x = (number * 0x9E3779B97F4A7C15 + version * 0xD1B54A32D192ED03) & MASK
    x ^= x >> 29
    parts = ['{"order": %d, "version": %d, "customer": {"id": %d, "name": '
             '"Customer %d", "city": "%s", "since": "20%02d-%02d-%02d"}, '
             '"state": "%s", "lines": [' %
             (number, version, x >> 40, x >> 44, CITIES[x & 15],
              x >> 8 & 15, (x >> 12) % 12 + 1, (x >> 20) % 28 + 1,
              STATES[x % 5])]
    for line in range(14):
        x = (x * 6364136223846793005 + 1442695040888963407) & MASK
        parts.append('{"line": %d, "article": "A-%07d", "quantity": %d, '
                     '"price": %d.%02d, "currency": "EUR", "warehouse": "%s", '
                     '"reserved": false},' %
                     (line, x >> 41, (x >> 20) % 9 + 1, (x >> 24) % 900,
                      (x >> 34) % 100, CITIES[x >> 60]))
    parts.append('null], "note": ""}')
    return "".join(parts).encode()


def fill(target_bytes):
    table, size = [], 0
    while size < target_bytes:
        table.append(record(len(table), 0))
        size += len(table[-1]) + 48
    return table


def visit(table, versions, numbers, rng):
    """Returns how many of the visited records are wrong."""
    wrong = 0
    for n in numbers:
        if table[n] != record(n, versions[n]):
            wrong += 1
        elif rng.random() < 0.125:
            versions[n] += 1
            table[n] = record(n, versions[n])
    return wrong


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--mib", type=int, default=640)
    p.add_argument("--rounds", type=float, default=1.0,
                   help="visits, as a multiple of the number of records")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--times", action="store_true")
    args = p.parse_args()
    clock = time.monotonic
    start = clock()
    rng = random.Random(args.seed)
    table = fill(args.mib << 20)
    versions = [0] * len(table)
    filled = clock()
    count = len(table)
    visits = int(count * args.rounds)
    wrong = visit(table, versions,
                  (rng.randrange(count) for _ in range(visits)), rng)
    visited = clock()
    digest = hashlib.sha256()
    order = list(range(count))
    rng.shuffle(order)
    for n in order:
        if table[n] != record(n, versions[n]):
            wrong += 1
        digest.update(table[n])
    print("%d records, %d random visits, %d rewritten, %d wrong" %
          (count, visits + count, sum(versions), wrong))
    print("sha256 %s" % digest.hexdigest())
    if args.times:
        print("times fill %.2f visit %.2f verify %.2f maxrss %d KiB" %
              (filled - start, visited - filled, clock() - visited,
               resource.getrusage(resource.RUSAGE_SELF).ru_maxrss),
              file=sys.stderr)
    sys.exit(wrong != 0)


main()
