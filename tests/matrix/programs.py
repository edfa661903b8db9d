# SPDX-License-Identifier: MIT
"""The programs that the matrix runs inside python3, node, perl and sqlite3.

Each prints only what must be the same in every run, and checks itself where
it can: a wrong byte changes a digest or fails an assertion.
"""

PYTHON_DICTS = r"""
import hashlib, random, sys
n = int(sys.argv[1])
rng = random.Random(7)
def value(i):
    return ("user-%d|" % (i % 977)) * (1 + i % 40) + str(i * 2654435761)
table = {}
for i in range(n):
    table["key-%d" % i] = {"name": value(i), "raw": value(i).encode() * 2,
                           "list": [i, i + 1, value(i % 100)]}
blob = bytearray(b"".join(hashlib.sha256(b"%d" % i).digest()
                          for i in range(n)))
for i in range(n // 2):
    k = rng.randrange(n)
    e = table["key-%d" % k]
    assert e["name"] == value(k) and e["raw"] == value(k).encode() * 2
    assert e["list"][0] == k
    assert blob[32 * k:32 * k + 32] == hashlib.sha256(b"%d" % k).digest()
    if i % 16 == 0:
        table["key-%d" % k] = {"name": value(k), "list": [k, value(k)],
                               "raw": value(k).encode() * 2}
h = hashlib.sha256(blob)
for k in sorted(table):
    h.update(table[k]["name"].encode())
    h.update(table[k]["raw"])
print("dicts", n, h.hexdigest())
"""

# The children read what they inherit, write their own, and answer in bulk.
PYTHON_POOL = r"""
import hashlib, multiprocessing, random, sys
n = int(sys.argv[1])
shared = [("row %d " % i * 20).encode() + hashlib.sha256(b"%d" % i).digest()
          for i in range(n)]
def work(part):
    rng = random.Random(part)
    own = {}
    for _ in range(n // 4):
        i = rng.randrange(n)
        want = ("row %d " % i * 20).encode() + \
            hashlib.sha256(b"%d" % i).digest()
        assert shared[i] == want, "inherited row %d is wrong" % i
        own[i] = want[::-1]
    h = hashlib.sha256()
    for i in sorted(own):
        assert own[i][::-1] == shared[i]
        h.update(own[i])
    return h.hexdigest(), b"".join(own[i] for i in sorted(own)[:500])
with multiprocessing.get_context("fork").Pool(3) as pool:
    total = hashlib.sha256()
    for digest, rows in pool.map(work, range(6)):
        total.update(digest.encode())
        total.update(rows)
for i in range(n):      # and the parent still has its own
    assert shared[i].endswith(hashlib.sha256(b"%d" % i).digest())
print("pool", n, total.hexdigest())
"""

# subprocess closes all descriptors in the child before it execs.
PYTHON_SUBPROCESS = r"""
import hashlib, subprocess, sys
n = int(sys.argv[1])
held = [hashlib.sha256(b"%d" % i).hexdigest() * 12 for i in range(n)]
def lines():
    return "".join(h[:64] + "\n" for h in held).encode()
text = lines()
want = "".join(sorted(h[:64] + "\n" for h in held)).encode()
for i in range(3):
    got = subprocess.run(["sort", "-S", "64M"], input=text, check=True,
                         stdout=subprocess.PIPE, close_fds=True,
                         env={**__import__("os").environ, "LC_ALL": "C"})
    assert got.stdout == want, "sort of round %d" % i
child = subprocess.run(
    [sys.executable, "-c",
     "import sys; d = sys.stdin.buffer.read(); e = d[::-1]\n"
     "sys.stdout.buffer.write(e)"],
    input=want, check=True, stdout=subprocess.PIPE)
assert child.stdout == want[::-1]
assert lines() == text
print("subprocess", n, hashlib.sha256(child.stdout).hexdigest())
"""

SQLITE = r"""
CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, x INTEGER, body TEXT);
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c LIMIT {rows})
INSERT INTO t SELECT i, 'name-' || (i * 7919 % 100003), i * 2654435761 % 1000003,
  hex(i * 48271 % 2147483647) || printf(' body of row %d, %s', i,
  substr('transcendent memory in user space on stock kernels', 1 + i % 20))
  || hex(i * 69621 % 2147483647) FROM c;
CREATE INDEX by_name ON t(name);
CREATE INDEX by_x ON t(x, id);
UPDATE t SET body = body || ' updated' WHERE x % 5 = 0;
DELETE FROM t WHERE x % 11 = 3;
SELECT count(*), sum(x), sum(length(body)) FROM t;
SELECT x % 97 AS g, count(*), min(name), max(name), total(id) FROM t
  GROUP BY g ORDER BY g;
SELECT a.id, a.name, b.body FROM t a JOIN t b ON b.x = a.id
  WHERE a.id % 1999 = 7 ORDER BY a.id, b.id LIMIT 500;
PRAGMA integrity_check;
"""

PERL = r"""
use strict; use warnings; use Digest::SHA;
my $n = shift; my %h; my @a;
sub value { my $i = shift; return ("line $i of many; " x (40 + $i % 120)) . $i * 7919 }
for my $i (0 .. $n - 1) { $h{"k$i"} = value($i); push @a, [$i, "x$i" x 4]; }
my $x = 1;
for (1 .. $n / 4) {
	$x = ($x * 1103515245 + 12345) % 2147483648;
	my $i = $x % $n;
	die "wrong at $i" if $h{"k$i"} ne value($i) or $a[$i][1] ne "x$i" x 4;
	if ($x % 16 == 0) { delete $h{"k$i"}; $h{"k$i"} = value($i); }
}
my $d = Digest::SHA->new(256);
$d->add($h{"k$_"}) for 0 .. $n - 1;
print "perl $n ", $d->hexdigest, "\n";
"""

NODE = r"""
const crypto = require('crypto');
const n = parseInt(process.argv[2]);
const map = new Map(), buffers = [];
const value = i => ({ id: i, name: 'user-' + (i % 997),
  text: 'the quick brown fox '.repeat(1 + i % 12) + i, nums: [i, i * 2, i / 3] });
const bytes = i => crypto.createHash('sha256').update('' + i).digest();
for (let i = 0; i < n; i++) {
  map.set('k' + i, value(i));
  if (i % 4 === 0) buffers.push(Buffer.concat(Array(24).fill(bytes(i))));
}
let x = 1;
for (let s = 0; s < n; s++) {
  x = (x * 69069 + 12345) % 4294967296;
  const i = x % n, v = map.get('k' + i), w = value(i);
  if (v.id !== i || v.text !== w.text || v.nums[2] !== w.nums[2])
    throw new Error('wrong at ' + i);
  const j = x % buffers.length;
  if (!buffers[j].subarray(0, 32).equals(bytes(4 * j)))
    throw new Error('buffer ' + j);
  if (s % 8 === 0) map.set('k' + i, w);      // work for the collector
}
const h = crypto.createHash('sha256');
for (const [k, v] of map) h.update(k + v.name + v.text + v.nums.join());
for (const b of buffers) h.update(b);
console.log('node', n, h.digest('hex'));
"""

JAVA = r"""
import java.util.*;
public class Main {
  static String value(int i) { return "row " + i + " of a table ".repeat(1 + i % 16) + i * 31L; }
  public static void main(String[] a) {
    int n = Integer.parseInt(a[0]); Random r = new Random(5);
    HashMap<Integer, String> m = new HashMap<>();
    for (int i = 0; i < n; i++) m.put(i, value(i));
    for (int s = 0; s < 2 * n; s++) {
      int i = r.nextInt(n);
      if (!m.get(i).equals(value(i))) throw new Error("wrong at " + i);
      if (s % 8 == 0) m.put(i, value(i));
    }
    long h = 17;
    for (int i = 0; i < n; i++) h = h * 31 + m.get(i).hashCode();
    System.out.println("java " + n + " " + h);
  }
}
"""


def big_c_file(functions):
    """A C file that is much work for the optimiser."""
    yield "#include <stdint.h>\n"
    for i in range(functions):
        yield ("static const char *const name_%d = \"function %d of many\";\n"
               "uint64_t f%d(uint64_t a, const uint8_t *p, int n)\n{\n"
               "\tuint64_t h = %du, t[16];\n\tint i, j;\n"
               "\tfor (j = 0; j < 16; j++)\n\t\tt[j] = h * (j + %du);\n"
               "\tfor (i = 0; i < n; i++) {\n"
               "\t\th = (h ^ p[i]) * %dull + t[(h >> 60) & 15];\n"
               "\t\tswitch (p[i] %% 7) {\n"
               "\t\tcase 0: h += a; break;\n\t\tcase 1: h ^= a << %d; break;\n"
               "\t\tcase 2: t[i & 15] ^= h; break;\n"
               "\t\tcase 3: h = h >> 7 | h << 57; break;\n"
               "\t\tcase 5: a += name_%d[i %% 10]; break;\n"
               "\t\tdefault: h -= t[(i + 3) & 15];\n\t\t}\n\t}\n"
               "\treturn h + a;\n}\n" %
               (i, i, i, i * 7 + 1, i % 31 + 1, 1099511628211 + 2 * i,
                i % 13 + 1, i))
