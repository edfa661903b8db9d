/* SPDX-License-Identifier: MIT */
/* Sizes as people write them: "512M", "1.5GiB", "1073741824". */
#ifndef TMEM_CLI_SIZE_H
#define TMEM_CLI_SIZE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Digits, an optional decimal part, an optional unit: B, K, M, G, T (powers
 * of 1024), KiB, MiB, GiB, TiB; letter case does not matter.  MB and the
 * like are refused, for they mean two things.  0, -EINVAL or -ERANGE.
 */
int tmem_size_parse(const char *text, uint64_t *ret_bytes);
/* "1.5 GiB": three digits at the most before the point, one after. */
void tmem_size_format(uint64_t bytes, char *buf, size_t buf_bytes);
/* Digits only, of a value from min to max.  0, -EINVAL or -ERANGE. */
int tmem_number_parse(const char *text, uint64_t min, uint64_t max,
		      uint64_t *ret_value);
/* "10/30": percent 1..100 and seconds 1..3600.  0 or -EINVAL. */
int tmem_stall_parse(const char *text, unsigned *ret_percent,
		     unsigned *ret_seconds);
/*
 * "1s", "500ms", "0.5": seconds if there is no unit; from 0.1 s to an hour.
 * 0 or -EINVAL.
 */
int tmem_interval_parse(const char *text, uint64_t *ret_ns);

#endif
