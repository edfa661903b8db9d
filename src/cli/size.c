/* SPDX-License-Identifier: MIT */
/*
 * Integer arithmetic throughout, checked: a fraction is kept as a numerator
 * over a power of ten (nine digits of it count, more are ignored).
 */
#include "cli/size.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
	FRACTION_DIGITS = 9
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static int parse_unit(const char *text, uint64_t *ret_unit)
{
	static const char letters[] = "KMGT";
	const char *at;
	unsigned i;

	if (!*text || !strcasecmp(text, "B")) {
		*ret_unit = 1;
		return 0;
	}
	for (i = 0; i < strlen(letters); i++) {
		at = text + 1;
		if ((*text | 0x20) != (letters[i] | 0x20))
			continue;
		if (*at && strcasecmp(at, "iB") != 0)
			return -EINVAL;
		*ret_unit = 1ull << (10 * (i + 1));
		return 0;
	}
	return -EINVAL;
}

int tmem_size_parse(const char *text, uint64_t *ret_bytes)
{
	uint64_t whole = 0, fraction = 0, scale = 1, unit, bytes;
	int digits;

	if (!is_digit(*text))
		return -EINVAL;
	for (; is_digit(*text); text++)
		if (__builtin_mul_overflow(whole, 10, &whole) ||
		    __builtin_add_overflow(whole, (uint64_t)(*text - '0'),
					   &whole))
			return -ERANGE;
	if (*text == '.') {
		text++;
		if (!is_digit(*text))
			return -EINVAL;
		for (digits = 0; is_digit(*text); text++, digits++) {
			if (digits >= FRACTION_DIGITS)
				continue;
			fraction = fraction * 10 + (uint64_t)(*text - '0');
			scale *= 10;
		}
	}
	if (parse_unit(text, &unit) < 0)
		return -EINVAL;
	/* fraction < 10^9 and unit <= 2^40: the product overflows 64 bits. */
	fraction = (uint64_t)((unsigned __int128)fraction * unit / scale);
	if (__builtin_mul_overflow(whole, unit, &bytes) ||
	    __builtin_add_overflow(bytes, fraction, &bytes))
		return -ERANGE;
	*ret_bytes = bytes;
	return 0;
}

void tmem_size_format(uint64_t bytes, char *buf, size_t buf_bytes)
{
	static const char *const units[] = { "bytes", "KiB", "MiB",
					     "GiB",   "TiB", "PiB" };
	double value = (double)bytes;
	unsigned unit = 0;

	while (value >= 999.95 && unit + 1 < sizeof(units) / sizeof(*units)) {
		value /= 1024;
		unit++;
	}
	snprintf(buf, buf_bytes, unit ? "%.1f %s" : "%.0f %s", value,
		 units[unit]);
}

int tmem_number_parse(const char *text, uint64_t min, uint64_t max,
		      uint64_t *ret_value)
{
	uint64_t value = 0;

	if (!is_digit(*text))
		return -EINVAL;
	for (; is_digit(*text); text++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*text - '0'),
					   &value))
			return -ERANGE;
	if (*text)
		return -EINVAL;
	if (value < min || value > max)
		return -ERANGE;
	*ret_value = value;
	return 0;
}

/* Up to four digits; 0 if there is none or too many. */
static const char *parse_number(const char *text, unsigned *ret_value)
{
	unsigned value = 0;
	int digits;

	for (digits = 0; is_digit(*text) && digits < 4; digits++)
		value = value * 10 + (unsigned)(*text++ - '0');
	*ret_value = value;
	return text;
}

int tmem_stall_parse(const char *text, unsigned *ret_percent,
		     unsigned *ret_seconds)
{
	unsigned percent, seconds;

	text = parse_number(text, &percent);
	if (*text == '%')
		text++;
	if (*text++ != '/')
		return -EINVAL;
	text = parse_number(text, &seconds);
	if (*text == 's')
		text++;
	if (*text || percent < 1 || percent > 100 || seconds < 1 ||
	    seconds > 3600)
		return -EINVAL;
	*ret_percent = percent;
	*ret_seconds = seconds;
	return 0;
}

int tmem_interval_parse(const char *text, uint64_t *ret_ns)
{
	uint64_t ns = 0, unit = 1000000000;
	unsigned whole, scale;

	text = parse_number(text, &whole);
	if (*text == '.') {
		text++;
		for (scale = 100000000; is_digit(*text) && scale; scale /= 10)
			ns += (uint64_t)(*text++ - '0') * scale;
	}
	if (!strcmp(text, "ms")) {
		unit = 1000000;
		ns /= 1000;
	} else if (*text && strcmp(text, "s") != 0) {
		return -EINVAL;
	}
	ns += whole * unit;
	if (ns < 100000000ull || ns > 3600000000000ull)
		return -EINVAL;
	*ret_ns = ns;
	return 0;
}
