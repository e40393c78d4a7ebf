/* backoff: see the header. The generator is splitmix64: one word of state, good enough for
 * spreading waits, and the same seed gives the same schedule in every simulation. */
#include "worker/core/backoff.h"

#define BACKOFF_FIRST_NS (200 * NS_PER_MS)
#define BACKOFF_MOST_NS (10 * NS_PER_S)

void rng_init(struct rng *r, uint64_t seed)
{
    r->state = seed;
}

static uint64_t rng_next(struct rng *r)
{
    uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
    ASSERT(n > 0);
    return rng_next(r) % n;
}

uint64_t jitter_ns(struct rng *r, uint64_t ns)
{
    uint64_t fifth = ns / 5;
    return ns - fifth + rng_below(r, 2 * fifth + 1);
}

uint64_t backoff_ns(struct rng *r, unsigned failures)
{
    uint64_t cap = BACKOFF_FIRST_NS;
    for (unsigned i = 0; i < failures && cap < BACKOFF_MOST_NS; i++)
        cap *= 2;
    return 1 + rng_below(r, MIN(cap, BACKOFF_MOST_NS));
}
