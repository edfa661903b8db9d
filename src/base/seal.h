/* SPDX-License-Identifier: MIT */
/*
 * Authenticated encryption of what leaves RAM, by libsodium.
 *
 * A *key* is drawn for a run.  A *seal* is a key made ready: a page of its
 * own that is left out of core dumps and, if we are allowed, locked in RAM;
 * with the key goes the AES schedule, as secret as the key.  A seal is
 * constant: any number of threads use it at a time, and the child of a fork.
 *
 * AES-256-GCM where the CPU has AES and carry-less multiplication, else
 * XChaCha20-Poly1305.  The cipher is part of the key: what one wrote the
 * other can't read.
 *
 * What the ciphers leave of the key's schedule on the stack and in registers is
 * wiped before a call returns: threads' stacks are dumped, and may be swapped.
 *
 * THE NONCE is the caller's care: with one key no nonce is used for two
 * texts, in no process that has the key.  AES takes the first 12 bytes of it,
 * so these alone have to differ.
 *
 * No malloc, no state of libsodium's (sodium_init() is never called), no
 * errno.
 */
#ifndef TMEM_BASE_SEAL_H
#define TMEM_BASE_SEAL_H

#include <stddef.h>
#include <stdint.h>

/* Part of formats: never changes. */
enum tmem_cipher {
	TMEM_CIPHER_NONE = 0, /* not encrypted; no seal has it */
	TMEM_CIPHER_AES256GCM = 1,
	TMEM_CIPHER_XCHACHA20POLY1305 = 2
};

enum {
	TMEM_SEAL_KEY_BYTES = 32,
	TMEM_SEAL_NONCE_BYTES = 24,
	TMEM_SEAL_TAG_BYTES = 16
};

/* Secret.  Whoever has one on a stack wipes it. */
struct tmem_seal_key {
	uint32_t cipher;
	uint32_t zero;
	uint8_t key[TMEM_SEAL_KEY_BYTES];
};
_Static_assert(sizeof(struct tmem_seal_key) == 40, "shared between processes");

/* One text.  `from` and `to` are the same, or don't overlap. */
struct tmem_seal_text {
	uint8_t nonce[TMEM_SEAL_NONCE_BYTES];
	const void *ad; /* authenticated with it, not encrypted */
	size_t ad_bytes;
	const void *from;
	void *to;
	size_t bytes;
};

struct tmem_seal;

/* -EOPNOTSUPP if this CPU can't. */
int tmem_seal_can(enum tmem_cipher cipher);

/* `nr_bytes` that nobody can guess.  0 or -errno. */
int tmem_seal_random(void *ret_bytes, size_t nr_bytes);

/* A new key, for the best cipher that this CPU has.  0 or -errno. */
int tmem_seal_draw(struct tmem_seal_key *ret_key);
/* Writes zeros that no optimiser leaves out. */
void tmem_seal_wipe(void *bytes, size_t nr_bytes);

/* 0, -EINVAL (no such cipher), -EOPNOTSUPP, -ENOMEM.  The key is copied. */
int tmem_seal_create(const struct tmem_seal_key *key,
		     struct tmem_seal **ret_seal);
/* In the child of a fork: locked in RAM is not inherited. */
void tmem_seal_adopt(const struct tmem_seal *seal);
void tmem_seal_destroy(struct tmem_seal *seal);
enum tmem_cipher tmem_seal_cipher(const struct tmem_seal *seal);

/*
 * The key in a memfd that can't be changed any more (close-on-exec), for
 * whoever re-opens after us; or -errno.  And a seal out of such a memfd:
 * -EINVAL if it is none.  As long as that seal is there the memfd's page is
 * left out of core dumps and, if we are allowed, locked in RAM as well.
 */
int tmem_seal_save(const struct tmem_seal *seal);
int tmem_seal_restore(int fd, struct tmem_seal **ret_seal);

void tmem_seal_encrypt(const struct tmem_seal *seal,
		       const struct tmem_seal_text *text,
		       uint8_t ret_tag[TMEM_SEAL_TAG_BYTES]);
/*
 * 0, or -EIO if a bit of the text, its ad, nonce or tag is not as it was;
 * `to` may then have been overwritten, but not with what was decrypted.
 */
int tmem_seal_decrypt(const struct tmem_seal *seal,
		      const struct tmem_seal_text *text,
		      const uint8_t tag[TMEM_SEAL_TAG_BYTES]);

#endif
