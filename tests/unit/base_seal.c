/* SPDX-License-Identifier: MIT */
/*
 * Sealing: published vectors, every bit of text, ad, nonce and tag counts,
 * keys travel by memfd, and a key's page is neither dumped nor left behind.
 */
#include <fcntl.h>
#include <sys/syscall.h>

#include "base/seal.h"
#include "fstest.h"

enum {
	STACK_BYTES = 16 << 10,
	SCHEDULE_BYTES = 240 /* of AES-256 */
};

static const enum tmem_cipher ciphers[] = { TMEM_CIPHER_AES256GCM,
					    TMEM_CIPHER_XCHACHA20POLY1305 };

static struct tmem_seal *seal_of(enum tmem_cipher cipher, uint8_t first)
{
	struct tmem_seal_key key = { .cipher = cipher };
	struct tmem_seal *seal;

	for (unsigned i = 0; i < sizeof(key.key); i++)
		key.key[i] = (uint8_t)(first + i);
	CHECK_EQ(tmem_seal_create(&key, &seal), 0);
	CHECK_EQ(tmem_seal_cipher(seal), cipher);
	return seal;
}

static void from_hex(const char *hex, uint8_t *bytes)
{
	for (size_t i = 0; hex[2 * i]; i++) {
		char byte[3] = { hex[2 * i], hex[2 * i + 1], 0 };

		bytes[i] = (uint8_t)strtoul(byte, NULL, 16);
	}
}

/* McGrew and Viega, "The Galois/Counter Mode of Operation", test case 16. */
static void aes_is_the_published_one(void)
{
	struct tmem_seal_key key = { .cipher = TMEM_CIPHER_AES256GCM };
	struct tmem_seal_text t = { .bytes = 60, .ad_bytes = 20 };
	uint8_t text[60], want[60], ad[20], tag[16], want_tag[16];
	struct tmem_seal *seal;

	from_hex("feffe9928665731c6d6a8f9467308308"
		 "feffe9928665731c6d6a8f9467308308",
		 key.key);
	from_hex("cafebabefacedbaddecaf888", t.nonce);
	from_hex("feedfacedeadbeeffeedfacedeadbeefabaddad2", ad);
	from_hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da"
		 "2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525"
		 "b16aedf5aa0de657ba637b39",
		 text);
	from_hex("522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c9"
		 "7598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838"
		 "c5f61e6393ba7a0abcc9f662",
		 want);
	from_hex("76fc6ece0f4e1768cddf8853bb2d551b", want_tag);
	CHECK_EQ(tmem_seal_create(&key, &seal), 0);
	t.ad = ad;
	t.from = t.to = text;
	tmem_seal_encrypt(seal, &t, tag);
	CHECK(memcmp(text, want, sizeof(want)) == 0);
	CHECK(memcmp(tag, want_tag, sizeof(tag)) == 0);
	CHECK_EQ(tmem_seal_decrypt(seal, &t, tag), 0);
	CHECK(text[0] == 0xd9 && text[59] == 0x39);
	tmem_seal_destroy(seal);
}

/* draft-irtf-cfrg-xchacha-03, A.3.1. */
static void xchacha_is_the_published_one(void)
{
	static const char text[] =
		"Ladies and Gentlemen of the class of '99: If I could offer "
		"you only one tip for the future, sunscreen would be it.";
	struct tmem_seal *seal = seal_of(TMEM_CIPHER_XCHACHA20POLY1305, 0x80);
	struct tmem_seal_text t = { .from = text, .bytes = sizeof(text) - 1 };
	uint8_t to[sizeof(text)], ad[12], tag[16], want[16];

	for (unsigned i = 0; i < 24; i++)
		t.nonce[i] = (uint8_t)(0x40 + i);
	from_hex("50515253c0c1c2c3c4c5c6c7", ad);
	t.ad = ad;
	t.ad_bytes = sizeof(ad);
	t.to = to;
	tmem_seal_encrypt(seal, &t, tag);
	from_hex("c0875924c1c7987947deafd8780acf49", want);
	CHECK(memcmp(tag, want, sizeof(want)) == 0);
	CHECK(to[0] == 0xbd && to[1] == 0x6d && to[2] == 0x17);
	tmem_seal_destroy(seal);
}

static void every_bit_counts(enum tmem_cipher cipher)
{
	struct tmem_seal *seal = seal_of(cipher, 1),
			 *other = seal_of(cipher, 2);
	uint8_t text[100], sealed[100], back[100], ad[20] = { 7 }, tag[16];
	struct tmem_seal_text t = { .ad = ad,
				    .ad_bytes = sizeof(ad),
				    .from = text,
				    .to = sealed,
				    .bytes = sizeof(text) };

	for (unsigned i = 0; i < sizeof(text); i++)
		text[i] = (uint8_t)i;
	tmem_seal_encrypt(seal, &t, tag);
	CHECK(memcmp(text, sealed, sizeof(text)) != 0);
	t.from = sealed;
	t.to = back;
	for (unsigned bit = 0; bit < 8 * (100 + 20 + 12 + 16); bit++) {
		unsigned at = bit / 8;
		uint8_t *byte = at < 100   ? &sealed[at]
				: at < 120 ? &ad[at - 100]
				: at < 132 ? &t.nonce[at - 120]
					   : &tag[at - 132];

		*byte ^= (uint8_t)(1u << bit % 8);
		memset(back, 0xee, sizeof(back));
		CHECK_EQ(tmem_seal_decrypt(seal, &t, tag), -EIO);
		CHECK(memcmp(back, text, 16) != 0);
		*byte ^= (uint8_t)(1u << bit % 8);
	}
	CHECK_EQ(tmem_seal_decrypt(other, &t, tag), -EIO);
	CHECK_EQ(tmem_seal_decrypt(seal, &t, tag), 0);
	CHECK(memcmp(back, text, sizeof(text)) == 0);
	tmem_seal_destroy(seal);
	tmem_seal_destroy(other);
}

static void every_length_goes_in_place(enum tmem_cipher cipher)
{
	struct tmem_seal *seal = seal_of(cipher, 3);
	static uint8_t page[PAGE], before[PAGE];
	struct rng rng = { 1 };
	uint8_t tag[16];

	for (unsigned n = 0; n <= PAGE; n += n < 300 ? 1 : 211) {
		struct tmem_seal_text t = { .from = page,
					    .to = page,
					    .bytes = n };

		for (unsigned i = 0; i < n; i++)
			before[i] = page[i] = (uint8_t)rng_next(&rng);
		t.nonce[0] = (uint8_t)n;
		t.nonce[1] = (uint8_t)(n >> 8);
		tmem_seal_encrypt(seal, &t, tag);
		CHECK(n < 16 || memcmp(page, before, n) != 0);
		CHECK_EQ(tmem_seal_decrypt(seal, &t, tag), 0);
		CHECK(memcmp(page, before, n) == 0);
	}
	tmem_seal_destroy(seal);
}

static void a_key_travels_by_memfd(void)
{
	struct tmem_seal_key key;
	struct tmem_seal *a, *b;
	uint8_t text[32] = "travels", tag[16];
	struct tmem_seal_text t = { .from = text, .to = text, .bytes = 32 };
	int fd, plain;

	CHECK_EQ(tmem_seal_draw(&key), 0);
	CHECK_EQ(tmem_seal_create(&key, &a), 0);
	fd = tmem_seal_save(a);
	CHECK(fd >= 0);
	CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	CHECK_EQ(pwrite(fd, text, 1, 0), -1);
	CHECK_EQ(tmem_seal_restore(fd, &b), 0);
	tmem_seal_encrypt(a, &t, tag);
	tmem_seal_destroy(a);
	CHECK_EQ(tmem_seal_decrypt(b, &t, tag), 0);
	CHECK(strcmp((char *)text, "travels") == 0);
	tmem_seal_destroy(b);
	close(fd);
	CHECK_EQ(tmem_seal_restore(fd, &b), -EBADF);
	/* One that could still be changed is none. */
	plain = (int)syscall(SYS_memfd_create, "x", 2u);
	CHECK_EQ(pwrite(plain, &key, sizeof(key), 0), sizeof(key));
	CHECK_EQ(tmem_seal_restore(plain, &b), -EINVAL);
	close(plain);
}

static void wrong_keys_are_refused(void)
{
	struct tmem_seal_key key = { .cipher = TMEM_CIPHER_NONE }, again;
	struct tmem_seal *seal;

	CHECK_EQ(tmem_seal_create(&key, &seal), -EINVAL);
	key.cipher = 77;
	CHECK_EQ(tmem_seal_create(&key, &seal), -EINVAL);
	CHECK_EQ(tmem_seal_draw(&key), 0);
	CHECK_EQ(tmem_seal_draw(&again), 0);
	CHECK(memcmp(key.key, again.key, sizeof(key.key)) != 0);
	tmem_seal_destroy(NULL);
}

/* "dd" in VmFlags: left out of core dumps. */
static void a_seal_is_not_dumped(void)
{
	struct tmem_seal *seal = seal_of(ciphers[1], 9);
	FILE *f = fopen("/proc/self/smaps", "r");
	bool here = false, dont_dump = false;
	unsigned long start, end;
	char line[512];

	CHECK(f != NULL);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start <= (uintptr_t)seal &&
			       (uintptr_t)seal < end;
		if (here && strncmp(line, "VmFlags:", 8) == 0)
			dont_dump = strstr(line, " dd") != NULL;
	}
	fclose(f);
	CHECK(dont_dump);
	tmem_seal_destroy(seal);
}

/* So that there is such a stack, without a trace of before. */
__attribute__((noinline)) static void fill_stack(void)
{
	char below[STACK_BYTES];

	memset(below, 0x5a, sizeof(below));
	__asm__ volatile("" : : "r"(below) : "memory");
}

/*
 * Is there any of these 16 bytes' blocks, or one turned round, in so much of
 * the stack below?  Nothing is called, so that nothing covers it.
 */
__attribute__((noinline, no_sanitize("address"))) static int
stack_has(const unsigned char *secret, unsigned nr_bytes)
{
	const volatile unsigned char *p = __builtin_frame_address(0);
	unsigned at, block, k, same, turned;

	p -= STACK_BYTES;
	for (block = 0; block + 16 <= nr_bytes; block += 16)
		for (at = 0; at < STACK_BYTES - 512; at += 8) {
			same = turned = 0;
			for (k = 0; k < 16; k++) {
				same += p[at + k] == secret[block + k];
				turned += p[at + k] == secret[block + 15 - k];
			}
			if (same == 16 || turned == 16)
				return (int)block + 1;
		}
	return 0;
}

/* Further down, where stack_has() itself does not cover it. */
__attribute__((noinline)) static int use_deep(const struct tmem_seal *seal,
					      const struct tmem_seal_text *t,
					      uint8_t *tag, int decrypt)
{
	char above[1024];
	int r = 0;

	__asm__ volatile("" : : "r"(above) : "memory");
	if (decrypt)
		r = tmem_seal_decrypt(seal, t, tag);
	else
		tmem_seal_encrypt(seal, t, tag);
	__asm__ volatile("" : : "r"(above) : "memory");
	return r;
}

/* Key and schedule, which a seal begins with; zeros are no secret. */
static void nothing_of_it_is_left_on_the_stack(void)
{
	static unsigned char secret[400], page[4096];
	static uint8_t tag[TMEM_SEAL_TAG_BYTES];
	struct tmem_seal_text t = { .from = page,
				    .to = page,
				    .bytes = sizeof(page) };
	struct tmem_seal *seal;
	unsigned i, nr = 0;

	for (i = 0; i < sizeof(ciphers) / sizeof(ciphers[0]); i++) {
		fill_stack();
		seal = seal_of(ciphers[i], 0x31);
		for (nr = 0; nr < 32; nr++)
			secret[nr] = (unsigned char)(0x31 + nr);
		if (ciphers[i] == TMEM_CIPHER_AES256GCM)
			memcpy(secret + nr, seal, SCHEDULE_BYTES);
		nr += ciphers[i] == TMEM_CIPHER_AES256GCM ? SCHEDULE_BYTES : 0;
		fill_stack();
		CHECK_EQ(use_deep(seal, &t, tag, 0), 0);
		CHECK_EQ(stack_has(secret, nr), 0);
		fill_stack();
		CHECK_EQ(use_deep(seal, &t, tag, 1), 0);
		CHECK_EQ(stack_has(secret, nr), 0);
		tmem_seal_destroy(seal);
	}
}

int main(void)
{
	if (tmem_seal_can(TMEM_CIPHER_AES256GCM) == 0)
		RUN(aes_is_the_published_one);
	RUN(xchacha_is_the_published_one);
	for (unsigned i = 0; i < 2; i++) {
		if (tmem_seal_can(ciphers[i]) < 0)
			continue;
		fprintf(stderr, "  cipher %d\n", (int)ciphers[i]);
		every_bit_counts(ciphers[i]);
		every_length_goes_in_place(ciphers[i]);
	}
	RUN(a_key_travels_by_memfd);
	RUN(wrong_keys_are_refused);
	RUN(a_seal_is_not_dumped);
	RUN(nothing_of_it_is_left_on_the_stack);
	return 0;
}
