/* Tells the service manager how it goes: READY=1 once, STATUS= when that changes, WATCHDOG=1 in
 * time, STOPPING=1 (sd_notify(3)). Does nothing where no manager listens. */
#ifndef WORKER_IO_NOTIFY_H
#define WORKER_IO_NOTIFY_H

#include "common/buf.h"
#include "worker/io/loop.h"

struct notify;

struct notify_source {
    /* Appends one line for people, without its newline. True: it is up and does its work. Called
     * from the loop, five times a second until it was true once, then once. */
    bool (*look)(void *arg, struct buf *status);
    void *arg;
};

/* Takes NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID out of the environment. NULL when nobody
 * listens, or not where it can be told (said in the log). */
struct notify *notify_new(struct loop *, const struct notify_source *);
void notify_free(struct notify *); /* NULL allowed, here and below */

/* It ends now, after what it still has to do; sent at once. */
void notify_stopping(struct notify *);

#endif
