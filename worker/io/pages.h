/* The text of the admin port's pages. */
#ifndef WORKER_IO_PAGES_H
#define WORKER_IO_PAGES_H

#include "common/buf.h"
#include "worker/core/core.h"

struct readiness {
    bool publisher, consumer, key, staying;
};

/* Appends what is missing, or "ready"; 200 or 503. */
int page_readyz(const struct readiness *, struct buf *out);

/* Appends {"instance","fleet","jobs_topic","status","totals","budgets","partitions","sessions"};
 * 200.
 */
struct page_sources {
    const struct core *core;
    const struct config *config;
    const char *instance;
    int64_t (*end_of)(void *arg, int32_t partition); /* of the log, as last heard; -1: not yet */
    void *arg;
};
int page_sessions(const struct page_sources *, uint64_t now_ns, struct buf *out);

#endif
