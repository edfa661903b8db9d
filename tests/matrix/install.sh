#!/bin/bash
# SPDX-License-Identifier: MIT
#
# install.sh BUILD PREFIX LIBDIR: installs into a temporary DESTDIR and uses
# what is there: tmem (as root) finds its pager library in libdir, the man pages
# and headers are in place, the headers are C99 and C++ clean, and a program
# built against them runs with the installed libtmem.
set -eu
build=$1 prefix=$2 libdir=$3
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
root=$dir/root$prefix

DESTDIR=$dir/root meson install -C "$build" --no-rebuild --quiet >/dev/null
for f in bin/tmem "$libdir/libtmem.so" "$libdir/libtmem-pager.so" \
	include/tmem/tmem.h include/tmem/store.h include/tmem/backend.h \
	include/tmem/stats.h include/tmem/frontswap.h \
	include/tmem/cleancache.h include/tmem/cleancache.def \
	include/tmem/swapfile.h share/man/man1/tmem-run.1 \
	share/man/man1/tmem-doctor.1 share/man/man1/tmem-bench.1 \
	share/man/man1/tmem-estimate.1 share/man/man3/libtmem.3 \
	share/man/man7/tmem.7 share/bash-completion/completions/tmem \
	lib/udev/rules.d/60-tmem.rules; do
	if [ ! -s "$root/$f" ] && [ ! -s "$root/$f.gz" ]; then
		echo "not installed: $f"
		exit 1
	fi
done

# As bash loads it, and what it offers for "tmem est".
# shellcheck disable=SC2016 # the dollars are those of the inner shell
offered=$(bash -c 'source "$1"; COMP_WORDS=(tmem est); COMP_CWORD=1; _tmem
	complete -p tmem >/dev/null; echo "${COMPREPLY[*]}"' bash \
	"$root/share/bash-completion/completions/tmem")
if [ "$offered" != estimate ]; then
	echo "completion of \"tmem est\" offers: $offered"
	exit 1
fi

# In a mount namespace of our own what we installed is where it belongs.  A
# program of 60 MiB in 32: it was paged, by the pager library of libdir.
if [ "$(id -u)" = 0 ] && [ -d "$prefix" ]; then
	# shellcheck disable=SC2016 # the dollars are those of the inner shells
	unshare -m bash -eu -c '
		mount --bind "$1" "$2"
		"$2/bin/tmem" --version
		"$2/bin/tmem" run -m 32M --report json --report-file "$3" -- \
			/usr/bin/perl -e "$4" >"$5"
	' sh "$root" "$prefix" "$dir/report" '
		my @a; push @a, "line $_ " x 100 for 1 .. 50000;
		for (1 .. 50000) { die unless $a[$_ - 1] eq "line $_ " x 100 }
		open my $m, "<", "/proc/self/maps"; print grep /pager/, <$m>;
	' "$dir/maps"
	if ! grep -q "$prefix/$libdir/libtmem-pager.so" "$dir/maps"; then
		echo "the program ran with another pager library, or none:"
		cat "$dir/maps"
		exit 1
	fi
	grep -q evicted_store "$dir/report"
fi

for h in tmem stats backend store frontswap swapfile cleancache; do
	echo "#include <tmem/$h.h>"
done >"$dir/all.c"
cat >>"$dir/all.c" <<'END'
#include <stdio.h>
#include <string.h>

int main(void)
{
	struct tmem_store_options options;
	struct tmem_store *store;
	struct tmem_backend b;
	tmem_pool_id pool;
	struct tmem_io io;
	static char page[TMEM_PAGE_SIZE], back[TMEM_PAGE_SIZE];

	memset(&options, 0, sizeof(options));
	memset(&io, 0, sizeof(io));
	options.limit_bytes = 8u << 20;
	strcpy(page, "a page of a program");
	if (tmem_store_open(&options, &store))
		return 2;
	b = tmem_store_backend(store);
	if (b.ops->pool_create(b.self, NULL, &pool))
		return 3;
	io.page = page;
	if (b.ops->store(b.self, pool, &io, 1) || io.result)
		return 4;
	io.page = back;
	if (b.ops->load(b.self, pool, &io, 1) || io.result)
		return 5;
	if (memcmp(page, back, sizeof(page)))
		return 6;
	tmem_store_close(store);
	puts("stored and loaded");
	return 0;
}
END
flags=(-Wall -Wextra -Werror -pedantic "-I$root/include")
lib=(-L"$root/$libdir" "-Wl,-rpath,$root/$libdir" -ltmem)
"${CC:-cc}" -std=c99 "${flags[@]}" -o "$dir/c99" "$dir/all.c" "${lib[@]}"
[ "$("$dir/c99")" = "stored and loaded" ]
if command -v c++ >/dev/null; then
	c++ -std=c++11 "${flags[@]}" -x c++ "$dir/all.c" -x none \
		-o "$dir/cxx" "${lib[@]}"
	[ "$("$dir/cxx")" = "stored and loaded" ]
fi
# Each header by itself, too.
for h in "$root"/include/tmem/*.h; do
	"${CC:-cc}" -std=c99 "${flags[@]}" -fsyntax-only -x c "$h" 2>"$dir/err" || {
		cat "$dir/err"
		exit 1
	}
done
echo "install: all there, and it works"
