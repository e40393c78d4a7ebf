/* What a provider lets us ask: per scope a block after a 429, and for creates a bucket of tokens.
 *
 * In any minute the bucket gives no more than the replica's share, and one where that is less: the
 * share is creates_per_minute x budget_share x (partitions owned / all), a tenth of it may come at
 * once and the rest flows in. Late in the provider's window, what its headers show unspent beyond
 * everybody's share may be taken too, a quarter by each. Pure. */
#ifndef WORKER_CORE_BUDGET_H
#define WORKER_CORE_BUDGET_H

#include "common/base.h"
#include "worker/provider/provider.h"

struct budget {
    uint64_t blocked_until[SCOPES_MAX]; /* ns; 0: free */
    double limit;                       /* of the provider per minute, times budget_share */
    double share;                       /* of this replica per minute */
    double tokens;
    bool begun; /* the first burst was given */
    uint64_t filled_ns;
    double extra; /* spare ones of the provider's window, seen at extra_ns */
    uint64_t extra_ns;
};

void budget_init(struct budget *, const struct provider_config *, uint64_t now_ns);

/* The replica owns `owned` of `total` partitions from now on. */
void budget_share(struct budget *, size_t owned, size_t total, uint64_t now_ns);

/* When a call of the scope may go out (now_ns or earlier: at once). Takes nothing. */
uint64_t budget_when(struct budget *, const struct scope *, uint8_t scope, uint64_t now_ns);

/* Tokens that are there now: creations that may go out at once. */
double budget_tokens(const struct budget *, uint64_t now_ns);

/* A call of the scope goes out now; budget_when said that it may. */
void budget_take(struct budget *, const struct scope *, uint64_t now_ns);

/* What an answer of the scope said. */
void budget_note(struct budget *, const struct scope *, uint8_t scope, const struct rate *,
                 uint64_t now_ns);

#endif
