/* Randomness for waiting times: a small seeded generator, jitter, and full-jitter back-off. */
#ifndef WORKER_CORE_BACKOFF_H
#define WORKER_CORE_BACKOFF_H

#include "common/base.h"

struct rng {
    uint64_t state;
};
void rng_init(struct rng *, uint64_t seed);
uint64_t rng_below(struct rng *, uint64_t n); /* uniform in [0, n); n > 0 */

/* ns moved by up to a fifth either way, so that a crowd does not march in step. */
uint64_t jitter_ns(struct rng *, uint64_t ns);

/* Full jitter: uniform in (0, cap], cap = 200 ms doubled per earlier failure, at most 10 s. */
uint64_t backoff_ns(struct rng *, unsigned failures);

#endif
