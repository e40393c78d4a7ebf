/* Secrets and digests. The redactor knows the live secrets and hides them in foreign text (logs,
 * log tails, what a provider says); it may be called from any thread. */
#ifndef COMMON_SECRET_H
#define COMMON_SECRET_H

#include "common/base.h"
#include "common/buf.h"

/* SHA-256 of data, the first n (<= 64) hex digits and a NUL into out. */
void sha256_hex(const void *data, size_t len, char *out, size_t n);

/* HMAC-SHA256(key, data) as base64url without padding: 43 characters and a NUL. */
#define HMAC_TEXT_SIZE 44
void hmac_sha256_text(const void *key, size_t key_len, const void *data, size_t len,
                      char out[HMAC_TEXT_SIZE]);

/* base64 (standard alphabet, padded) both ways. decode: false on anything that is not base64. */
void base64_encode(const void *data, size_t len, struct buf *out);
MUST_USE bool base64_decode(const char *text, size_t len, struct buf *out);

/* n random bytes from the operating system; aborts if there are none. Not for pure code. */
void random_bytes(void *out, size_t n);

/* The redactor: values of 6 or more bytes, counted (the same value may be added twice). */
void redact_add(const char *value);
void redact_remove(const char *value);
/* Appends text to out with every known secret replaced by *** . */
void redact(const char *text, size_t len, struct buf *out);
/* The same of the last bytes of the text only. What stands before them is looked at as well, so
 * that a secret which reaches into them is hidden. */
void redact_end(const char *text, size_t len, size_t last, struct buf *out);

void secret_wipe(char *text); /* overwrites and frees; NULL allowed */

#endif
