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

/* Appends {"instance","status","partitions","sessions"}; 200. */
int page_sessions(const struct core *, const char *instance, uint64_t now_ns, struct buf *out);

#endif
