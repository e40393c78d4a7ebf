/* The admin port: GET /healthz /readyz /metrics /sessions, nothing that changes anything. */
#ifndef WORKER_IO_ADMIN_H
#define WORKER_IO_ADMIN_H

#include "common/buf.h"
#include "worker/io/loop.h"

struct admin;

struct admin_pages { /* each appends its page and returns the HTTP status */
    int (*healthz)(void *arg, struct buf *out);
    int (*readyz)(void *arg, struct buf *out);
    int (*sessions)(void *arg, struct buf *out); /* JSON */
    void *arg;
};

/* listen: "host:port". -errno when it cannot listen (said in the log). /metrics is metrics_print.
 */
int admin_new(struct loop *, const char *listen, const struct admin_pages *, struct admin **out);
void admin_free(struct admin *); /* NULL allowed */

/* --healthcheck: asks http://<listen>/healthz, blocking, at most 2 s. 0 = healthy. */
int admin_healthcheck(const char *listen);

#endif
