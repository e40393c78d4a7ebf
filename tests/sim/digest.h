/* digest: a state in 64 bits. Two states that say the same in the same order have the same one; of
 * a million different states two collide about once in forty million explorations.
 *
 * Times go in relative to now, since nothing depends on what time it is, only on how long it is
 * until something. Near ones count exactly; of far ones only the half minute does: what is that
 * far off is there to end something that goes on for ever. */
#ifndef SIM_DIGEST_H
#define SIM_DIGEST_H

#include <string.h>

#include "common/base.h"

#define DIGEST_NEAR_NS (15 * NS_PER_S)
#define DIGEST_STEP_NS (30 * NS_PER_S)

struct digest {
    uint64_t sum;
};

static inline void digest_add(struct digest *d, uint64_t v)
{
    uint64_t x = (d->sum ^ v) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
    d->sum = x ^ x >> 29;
}

static inline void digest_bytes(struct digest *d, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    uint64_t v = 0;
    for (digest_add(d, n); n >= sizeof v; p += sizeof v, n -= sizeof v) {
        memcpy(&v, p, sizeof v);
        digest_add(d, v);
    }
    v = 0;
    if (n)
        memcpy(&v, p, n);
    digest_add(d, v);
}

/* NULL is not "". */
static inline void digest_text(struct digest *d, const char *text)
{
    digest_add(d, text != NULL);
    if (text)
        digest_bytes(d, text, strlen(text));
}

static inline uint64_t digest_span(uint64_t ns)
{
    return ns <= DIGEST_NEAR_NS ? ns : DIGEST_NEAR_NS + ns / DIGEST_STEP_NS * DIGEST_STEP_NS;
}

/* When something will be: over is over. */
static inline void digest_until(struct digest *d, uint64_t at, uint64_t now)
{
    digest_add(d, at == NEVER ? NEVER : at > now ? digest_span(at - now) : 0);
}

/* When something was: 0 is never. */
static inline void digest_since(struct digest *d, uint64_t at, uint64_t now)
{
    digest_add(d, at == 0 ? NEVER : digest_span(now > at ? now - at : 0));
}

#endif
