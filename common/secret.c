/* secret: digests, random bytes, base64 and the redactor. See the header.
 *
 * The redactor runs over every log line while thousands of secrets are live (keys, tokens, every
 * job's env values), so its cost must not depend on how many there are: secrets hang in a hash
 * table under their first six bytes, and a text is walked once with a window of six bytes. Of
 * several secrets that begin alike the longest one that matches is hidden. One mutex guards the
 * table; it is held for the length of one line at most. */
#include "common/secret.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/xalloc.h"

void sha256_hex(const void *data, size_t len, char *out, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char digest[SHA256_DIGEST_LENGTH];
    ASSERT(n <= 2 * sizeof digest);
    ASSERT(SHA256(data, len, digest));
    for (size_t i = 0; i < n; i++)
        out[i] = hex[i % 2 ? digest[i / 2] & 15 : digest[i / 2] >> 4];
    out[n] = '\0';
}

/* Three bytes as four letters of alphabet. */
static void encode3(const char *alphabet, const unsigned char in[3], char out[4])
{
    unsigned v = (unsigned)in[0] << 16 | (unsigned)in[1] << 8 | in[2];
    for (int i = 3; i >= 0; i--, v >>= 6)
        out[i] = alphabet[v & 63];
}

static const char standard[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char url_safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void hmac_sha256_text(const void *key, size_t key_len, const void *data, size_t len,
                      char out[HMAC_TEXT_SIZE])
{
    unsigned char digest[SHA256_DIGEST_LENGTH + 1] = {0}; /* 33 bytes are 44 letters */
    unsigned n = 0;
    ASSERT(HMAC(EVP_sha256(), key, (int)key_len, data, len, digest, &n));
    ASSERT(n == SHA256_DIGEST_LENGTH);
    for (size_t i = 0; i < sizeof digest; i += 3)
        encode3(url_safe, digest + i, out + i / 3 * 4);
    out[HMAC_TEXT_SIZE - 1] = '\0';
}

void base64_encode(const void *data, size_t len, struct buf *out)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < len; i += 3) {
        size_t n = MIN(len - i, 3);
        unsigned char in[3] = {0};
        char letters[4];
        memcpy(in, p + i, n);
        encode3(standard, in, letters);
        memset(letters + n + 1, '=', 3 - n);
        buf_add(out, letters, 4);
    }
}

static int letter_value(char c)
{
    const char *at = c ? strchr(standard, c) : NULL;
    return at ? (int)(at - standard) : -1;
}

/* Four characters, of which the last `pad` are '='. False: not base64, or stray bits at the end. */
static bool decode4(const char *in, size_t pad, unsigned char out[3])
{
    unsigned v = 0;
    for (size_t i = 0; i < 4; i++) {
        int digit = i < 4 - pad ? letter_value(in[i]) : in[i] == '=' ? 0 : -1;
        if (digit < 0)
            return false;
        v = v << 6 | (unsigned)digit;
    }
    out[0] = v >> 16 & 255;
    out[1] = v >> 8 & 255;
    out[2] = v & 255;
    return (v & ((1u << 8 * pad) - 1)) == 0;
}

bool base64_decode(const char *text, size_t len, struct buf *out)
{
    if (len % 4 != 0)
        return false;
    for (size_t i = 0; i < len; i += 4) {
        bool last = i + 4 == len;
        size_t pad = last && text[i + 3] == '=' ? (text[i + 2] == '=' ? 2 : 1) : 0;
        unsigned char bytes[3];
        if (!decode4(text + i, pad, bytes))
            return false;
        buf_add(out, bytes, 3 - pad);
    }
    return true;
}

void random_bytes(void *out, size_t n)
{
    unsigned char *p = out;
    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);
        ASSERT(got > 0 || errno == EINTR);
        if (got > 0) {
            p += got;
            n -= (size_t)got;
        }
    }
}

/* ---- the redactor ---- */

#define PREFIX 6      /* bytes; shorter values are no secrets */
#define BUCKETS 16384 /* two for each secret at a thousand jobs with eight secrets */

struct known {
    struct known *next;
    size_t len;
    unsigned count; /* how often it was added */
    char value[];
};

static struct known *buckets[BUCKETS];
static size_t n_known;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct known **bucket(const char *prefix)
{
    uint64_t v = 0;
    memcpy(&v, prefix, PREFIX);
    return &buckets[v * UINT64_C(0x9e3779b97f4a7c15) >> 32 & (BUCKETS - 1)];
}

/* Where the pointer to this very value is (or would be: **it is NULL). */
static struct known **find(const char *value, size_t len)
{
    struct known **at = bucket(value);
    while (*at && ((*at)->len != len || memcmp((*at)->value, value, len) != 0))
        at = &(*at)->next;
    return at;
}

static void add_new(struct known **at, const char *value, size_t len)
{
    struct known *k = xcalloc(1, sizeof *k + len);
    k->len = len;
    k->count = 1;
    memcpy(k->value, value, len);
    *at = k;
    n_known++;
}

void redact_add(const char *value)
{
    size_t len = value ? strlen(value) : 0;
    if (len < PREFIX)
        return;
    pthread_mutex_lock(&lock);
    struct known **at = find(value, len);
    if (*at)
        (*at)->count++;
    else
        add_new(at, value, len);
    pthread_mutex_unlock(&lock);
}

static void forget(struct known **at)
{
    struct known *k = *at;
    *at = k->next;
    explicit_bzero(k->value, k->len);
    free(k);
    n_known--;
}

void redact_remove(const char *value)
{
    size_t len = value ? strlen(value) : 0;
    if (len < PREFIX)
        return;
    pthread_mutex_lock(&lock);
    struct known **at = find(value, len);
    ASSERT(*at);
    if (--(*at)->count == 0)
        forget(at);
    pthread_mutex_unlock(&lock);
}

/* Length of the longest secret that text[0..len) begins with; 0: none. */
static size_t secret_at(const char *text, size_t len)
{
    size_t longest = 0;
    for (const struct known *k = *bucket(text); k; k = k->next)
        if (k->len > longest && k->len <= len && memcmp(k->value, text, k->len) == 0)
            longest = k->len;
    return longest;
}

void redact_end(const char *text, size_t len, size_t last, struct buf *out)
{
    size_t from = len - MIN(last, len), i = 0; /* [from, i) holds no secret and is not copied yet */
    pthread_mutex_lock(&lock);
    while (n_known > 0 && i + PREFIX <= len) {
        size_t n = secret_at(text + i, len - i);
        i += n ? n : 1;
        if (n == 0 || i <= from)
            continue;
        if (i - n > from)
            buf_add(out, text + from, i - n - from);
        buf_adds(out, "***");
        from = i;
    }
    pthread_mutex_unlock(&lock);
    buf_add(out, text + from, len - from);
}

void redact(const char *text, size_t len, struct buf *out)
{
    redact_end(text, len, len, out);
}

void secret_wipe(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
    free(text);
}
