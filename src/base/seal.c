/* SPDX-License-Identifier: MIT */
/*
 * See seal.h.
 *
 * libsodium is linked statically, and only its primitives: sodium_init()
 * would bring its random numbers, password hashes, curves, a mutex and an
 * allocator into every program that is paged.  What the primitives want of
 * the rest is three functions, which are here: the archive's members that
 * have them are then not linked.  sodium_init()'s one service to us, to
 * choose the fast ChaCha20 and Poly1305, is done by calling the two functions
 * that it calls; weak, since they are libsodium's own affair: without them
 * it is the slow ones.
 */
#include "seal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <sodium/crypto_aead_aes256gcm.h>
#include <sodium/crypto_aead_xchacha20poly1305.h>
#include <sodium/runtime.h>
#include <string.h>

#include "assert.h"
#include "sys.h"

#define MAGIC 0x79656b6d656d74ull /* "tmemkey" */

enum {
	VERSION = 1,
	PAGE = 4096,
	/* More than a primitive of libsodium's uses of a stack (0.6 KiB). */
	WIPE_BYTES = 2048,
	GET_SEALS = 1034,
	ALL_SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
};

struct tmem_seal {
	crypto_aead_aes256gcm_state aes;
	struct tmem_seal_key key;
	void *memfd; /* the page of it that the key is from, or NULL */
};
_Static_assert(sizeof(struct tmem_seal) <= PAGE, "one page");
_Static_assert(crypto_aead_aes256gcm_KEYBYTES == TMEM_SEAL_KEY_BYTES &&
		       crypto_aead_xchacha20poly1305_ietf_KEYBYTES ==
			       TMEM_SEAL_KEY_BYTES &&
		       crypto_aead_aes256gcm_ABYTES == TMEM_SEAL_TAG_BYTES &&
		       crypto_aead_xchacha20poly1305_ietf_ABYTES ==
			       TMEM_SEAL_TAG_BYTES &&
		       crypto_aead_xchacha20poly1305_ietf_NPUBBYTES ==
			       TMEM_SEAL_NONCE_BYTES,
	       "as libsodium has it");

/* A key in a memfd. */
struct saved {
	uint64_t magic;
	uint64_t version;
	struct tmem_seal_key key;
};

/* What libsodium's primitives call: see above. */
_Noreturn void sodium_misuse(void);
void sodium_memzero(void *bytes, size_t nr_bytes);
void randombytes_buf(void *bytes, size_t nr_bytes);
/* What its sodium_init() calls. */
extern int _crypto_stream_chacha20_pick_best_implementation(void)
	__attribute__((weak));
extern int _crypto_onetimeauth_poly1305_pick_best_implementation(void)
	__attribute__((weak));

_Noreturn void sodium_misuse(void)
{
	tmem_assert_fail("libsodium is used rightly", __FILE__, __LINE__);
}

void sodium_memzero(void *bytes, size_t nr_bytes)
{
	tmem_seal_wipe(bytes, nr_bytes);
}

/* Only its key generators do, which we don't use. */
void randombytes_buf(void *bytes, size_t nr_bytes)
{
	TMEM_ASSERT(tmem_seal_random(bytes, nr_bytes) == 0);
}

void tmem_seal_wipe(void *bytes, size_t nr_bytes)
{
	memset(bytes, 0, nr_bytes);
	__asm__ volatile("" : : "r"(bytes) : "memory");
}

/*
 * What was called before has left on the stack, below its caller's frame, and
 * in registers: its spilled round keys are as good as the key.
 */
__attribute__((noinline)) static void wipe_traces(void)
{
	char below[WIPE_BYTES];

	tmem_seal_wipe(below, sizeof(below));
	__asm__ volatile("pxor %%xmm0, %%xmm0\n\t"
			 "pxor %%xmm1, %%xmm1\n\t"
			 "pxor %%xmm2, %%xmm2\n\t"
			 "pxor %%xmm3, %%xmm3\n\t"
			 "pxor %%xmm4, %%xmm4\n\t"
			 "pxor %%xmm5, %%xmm5\n\t"
			 "pxor %%xmm6, %%xmm6\n\t"
			 "pxor %%xmm7, %%xmm7\n\t"
			 "pxor %%xmm8, %%xmm8\n\t"
			 "pxor %%xmm9, %%xmm9\n\t"
			 "pxor %%xmm10, %%xmm10\n\t"
			 "pxor %%xmm11, %%xmm11\n\t"
			 "pxor %%xmm12, %%xmm12\n\t"
			 "pxor %%xmm13, %%xmm13\n\t"
			 "pxor %%xmm14, %%xmm14\n\t"
			 "pxor %%xmm15, %%xmm15"
			 :
			 :
			 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
			   "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
			   "xmm12", "xmm13", "xmm14", "xmm15");
}

int tmem_seal_random(void *ret_bytes, size_t nr_bytes)
{
	char *to = ret_bytes;

	while (nr_bytes != 0) {
		long r = tmem_sys(SYS_getrandom, to, nr_bytes, 0);

		if (r < 0 && r != -EINTR)
			return (int)r;
		if (r > 0) {
			to += r;
			nr_bytes -= (size_t)r;
		}
	}
	return 0;
}

int tmem_seal_can(enum tmem_cipher cipher)
{
	/* The choice of the fast ChaCha20 and Poly1305 rests on it, too. */
	_sodium_runtime_get_cpu_features();
	if (cipher == TMEM_CIPHER_XCHACHA20POLY1305)
		return 0;
	if (cipher != TMEM_CIPHER_AES256GCM)
		return -EINVAL;
	return sodium_runtime_has_aesni() && sodium_runtime_has_pclmul()
		       ? 0
		       : -EOPNOTSUPP;
}

int tmem_seal_draw(struct tmem_seal_key *ret_key)
{
	struct tmem_seal_key key = { .cipher = TMEM_CIPHER_AES256GCM };
	int r;

	if (tmem_seal_can(TMEM_CIPHER_AES256GCM) < 0)
		key.cipher = TMEM_CIPHER_XCHACHA20POLY1305;
	r = tmem_seal_random(key.key, sizeof(key.key));
	if (r == 0)
		*ret_key = key;
	tmem_seal_wipe(&key, sizeof(key));
	return r;
}

/* Best effort: where there is no right to, the kernel may swap it. */
void tmem_seal_adopt(const struct tmem_seal *seal)
{
	tmem_sys(SYS_mlock, seal, PAGE);
}

int tmem_seal_create(const struct tmem_seal_key *key,
		     struct tmem_seal **ret_seal)
{
	struct tmem_seal *seal;
	int r = tmem_seal_can(key->cipher);

	if (r < 0)
		return r;
	seal = tmem_sys_map_anon(PAGE, PROT_READ | PROT_WRITE);
	if (!seal)
		return -ENOMEM;
	tmem_sys_madvise(seal, PAGE, MADV_DONTDUMP);
	tmem_seal_adopt(seal);
	seal->key = *key;
	if (key->cipher == TMEM_CIPHER_AES256GCM) {
		crypto_aead_aes256gcm_beforenm(&seal->aes, key->key);
		wipe_traces();
	} else {
		if (_crypto_stream_chacha20_pick_best_implementation)
			_crypto_stream_chacha20_pick_best_implementation();
		if (_crypto_onetimeauth_poly1305_pick_best_implementation)
			_crypto_onetimeauth_poly1305_pick_best_implementation();
	}
	*ret_seal = seal;
	return 0;
}

void tmem_seal_destroy(struct tmem_seal *seal)
{
	if (!seal)
		return;
	if (seal->memfd)
		tmem_sys_unmap(seal->memfd, PAGE);
	tmem_seal_wipe(seal, sizeof(*seal));
	tmem_sys_unmap(seal, PAGE);
}

enum tmem_cipher tmem_seal_cipher(const struct tmem_seal *seal)
{
	return seal->key.cipher;
}

int tmem_seal_save(const struct tmem_seal *seal)
{
	struct saved saved = { MAGIC, VERSION, seal->key };
	long fd, r;

	fd = tmem_sys(SYS_memfd_create, "tmem-key",
		      MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd >= 0) {
		r = tmem_sys(SYS_pwrite64, fd, &saved, sizeof(saved), 0);
		if (r == (long)sizeof(saved))
			r = tmem_sys(SYS_fcntl, fd, F_ADD_SEALS, ALL_SEALS);
		if (r != 0) {
			tmem_sys_close((int)fd);
			fd = r < 0 ? r : -EIO;
		}
	}
	tmem_seal_wipe(&saved, sizeof(saved));
	return (int)fd;
}

/* The memfd's own page is kept in RAM, too, as long as the seal is. */
static void *hold_memfd(int fd)
{
	void *page = tmem_sys_map_anon(PAGE, PROT_NONE);

	if (!page)
		return NULL;
	tmem_sys(SYS_mmap, page, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd,
		 0);
	tmem_sys_madvise(page, PAGE, MADV_DONTDUMP);
	tmem_sys(SYS_mlock, page, PAGE);
	return page;
}

int tmem_seal_restore(int fd, struct tmem_seal **ret_seal)
{
	struct saved saved = { 0 };
	long r = tmem_sys(SYS_fcntl, fd, GET_SEALS);

	if (r >= 0 && (r & ALL_SEALS) != ALL_SEALS)
		r = -EINVAL;
	if (r >= 0)
		r = tmem_sys(SYS_pread64, fd, &saved, sizeof(saved), 0);
	if (r >= 0 && (r != (long)sizeof(saved) || saved.magic != MAGIC ||
		       saved.version != VERSION))
		r = -EINVAL;
	if (r >= 0)
		r = tmem_seal_create(&saved.key, ret_seal);
	if (r == 0)
		(*ret_seal)->memfd = hold_memfd(fd);
	tmem_seal_wipe(&saved, sizeof(saved));
	return (int)r;
}

void tmem_seal_encrypt(const struct tmem_seal *seal,
		       const struct tmem_seal_text *t,
		       uint8_t ret_tag[TMEM_SEAL_TAG_BYTES])
{
	if (seal->key.cipher == TMEM_CIPHER_AES256GCM)
		crypto_aead_aes256gcm_encrypt_detached_afternm(
			t->to, ret_tag, NULL, t->from, t->bytes, t->ad,
			t->ad_bytes, NULL, t->nonce, &seal->aes);
	else
		crypto_aead_xchacha20poly1305_ietf_encrypt_detached(
			t->to, ret_tag, NULL, t->from, t->bytes, t->ad,
			t->ad_bytes, NULL, t->nonce, seal->key.key);
	wipe_traces();
}

int tmem_seal_decrypt(const struct tmem_seal *seal,
		      const struct tmem_seal_text *t,
		      const uint8_t tag[TMEM_SEAL_TAG_BYTES])
{
	int r;

	if (seal->key.cipher == TMEM_CIPHER_AES256GCM)
		r = crypto_aead_aes256gcm_decrypt_detached_afternm(
			t->to, NULL, t->from, t->bytes, tag, t->ad, t->ad_bytes,
			t->nonce, &seal->aes);
	else
		r = crypto_aead_xchacha20poly1305_ietf_decrypt_detached(
			t->to, NULL, t->from, t->bytes, tag, t->ad, t->ad_bytes,
			t->nonce, seal->key.key);
	wipe_traces();
	return r == 0 ? 0 : -EIO;
}
