# SPDX-License-Identifier: MIT
"""The matrix' redis row: a real server, driven over its Unix socket.

Loads keys of several types, saves in the background (a fork that reads all
of memory) while keys change, restarts from the file, and returns the digests
that DEBUG DIGEST gave at each step.
"""
import hashlib
import os
import socket
import subprocess
import time

SOCKET = "redis.sock"


class Failure(Exception):
    """What redis did wrong, for a person."""


class Client:
    """Speaks RESP, pipelined."""

    def __init__(self, path, child, patience=60):
        end = time.monotonic() + patience
        while True:
            self.socket = socket.socket(socket.AF_UNIX)
            try:
                self.socket.connect(path)
                break
            except OSError:
                self.socket.close()
                if child.poll() is not None or time.monotonic() > end:
                    raise Failure("redis-server did not start") from None
                time.sleep(0.02)    # until its socket is there
        self.reader = self.socket.makefile("rb")

    @staticmethod
    def pack(words):
        out = [b"*%d\r\n" % len(words)]
        for w in words:
            w = w if isinstance(w, bytes) else str(w).encode()
            out.append(b"$%d\r\n%s\r\n" % (len(w), w))
        return b"".join(out)

    def answer(self):
        line = self.reader.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return self.reader.read(int(rest) + 2)[:-2] \
                if rest != b"-1" else None
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        if kind == b"-" or not line:
            raise Failure("redis: %r" % line)
        return rest

    def ask(self, *words):
        self.socket.sendall(self.pack(words))
        return self.answer()

    def pipeline(self, commands):
        batch = []
        for c in commands:
            batch.append(self.pack(c))
            if len(batch) == 1000:
                self.flush(batch)
        self.flush(batch)

    def flush(self, batch):
        self.socket.sendall(b"".join(batch))
        for _ in batch:
            self.answer()
        batch.clear()

    def close(self):
        self.reader.close()
        self.socket.close()


def value(i, version):
    h = hashlib.sha256(b"%d-%d" % (i, version)).hexdigest()
    return '{"id": %d, "version": %d, "hash": "%s", "text": "%s"}' % (
        i, version, h, "the same words over and over " * (5 + i % 12))


def commands(first, last, version):
    for i in range(first, last):
        if i % 10 == 0:
            yield ("HSET", "h:%d" % (i // 100), "f%d" % i, value(i, version))
        elif i % 10 == 1:
            yield ("RPUSH", "l:%d" % (i // 100), value(i, version))
        elif i % 10 == 2:
            yield ("ZADD", "z:%d" % (i // 100), i * 7 % 1000,
                   "m%d-%d" % (i, version))
        else:
            yield ("SET", "s:%d" % i, value(i, version))


def start(place):
    try:
        os.unlink(place.path(SOCKET))
    except FileNotFoundError:
        pass
    log = open(place.path("log"), "ab")
    child = place.start(
        ["redis-server", "--port", "0", "--unixsocket", SOCKET, "--save", "",
         "--dir", place.folder, "--enable-debug-command", "yes",
         "--daemonize", "no"],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    log.close()
    return child, Client(os.path.relpath(place.path(SOCKET)), child)


def wait_loaded(client):
    while b"loading:1" in client.ask("INFO", "persistence"):
        time.sleep(0.02)


def wait_saved(client):
    while b"rdb_bgsave_in_progress:1" in client.ask("INFO", "persistence"):
        time.sleep(0.02)
    if b"rdb_last_bgsave_status:ok" not in client.ask("INFO", "persistence"):
        raise Failure("BGSAVE failed")


def digest(client):
    return client.ask("DEBUG", "DIGEST").decode()


def stop(place, child, client, how):
    client.socket.sendall(client.pack(("SHUTDOWN", how)))
    client.close()
    place.finish(child)


def verify_some(client, keys, version):
    for i in range(3, keys, 997):
        if i % 10 > 2:
            got = client.ask("GET", "s:%d" % i)
            if got != value(i, version if i < keys // 8 else 0).encode():
                raise Failure("key s:%d is wrong" % i)


def run(place, keys):
    """Returns the digests: loaded, changed during BGSAVE, as saved, last."""
    os.chdir(place.folder)  # a Unix socket's path must be short
    child, client = start(place)
    client.pipeline(commands(0, keys, 0))
    loaded = digest(client)
    client.ask("BGSAVE")
    client.pipeline(commands(0, keys // 8, 1))
    changed = digest(client)
    wait_saved(client)
    verify_some(client, keys, 1)
    stop(place, child, client, "NOSAVE")

    child, client = start(place)
    wait_loaded(client)
    saved = digest(client)
    if saved != loaded:
        raise Failure("restarted with %s, saved %s" % (saved, loaded))
    client.pipeline(commands(0, keys // 8, 1))
    verify_some(client, keys, 1)
    last = digest(client)
    stop(place, child, client, "SAVE")
    os.chdir("/")
    return "%s %s %s %s" % (loaded, changed, saved, last)
