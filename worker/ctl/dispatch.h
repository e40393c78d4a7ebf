/* Sends jobs and, if asked to, waits for the event of each: what start, submit, stop and delete
 * share. Complains itself; the caller carries exit codes. */
#ifndef WORKER_CTL_DISPATCH_H
#define WORKER_CTL_DISPATCH_H

#include "worker/ctl/ctl.h"
#include "worker/ctl/reader.h"
#include "worker/ctl/sender.h"

/* Arguments of a verb that sends begin with this; its second table is sending_options. */
struct sending {
    struct common common;
    bool wait, cloudevents;
    int64_t wait_seconds; /* 0: not given */
};
#define N_SENDING_OPTIONS 3
extern const struct option sending_options[N_SENDING_OPTIONS];

struct pending;

struct dispatch {
    const struct config *cfg;
    const struct sending *how; /* borrowed */
    struct view view;
    struct sender sender;
    struct reader reader;    /* with --wait only */
    struct pending *pending; /* by event id: delivered, their events not seen yet */
    bool failed, no_broker;
};

/* Connects; with --wait it reads the results topic from now on, before anything is sent. */
enum ctl_exit dispatch_open(struct dispatch *, const struct config *, const struct sending *);

/* One job: its text, and its session's id, which becomes the key (NULL: none). */
enum ctl_exit dispatch_send(struct dispatch *, const char *session_id, const char *json,
                            size_t len);

/* Shows what comes in until then (now_ms). */
void dispatch_until(struct dispatch *, uint64_t until);

/* Waits for what is outstanding, for events as long as --wait-seconds says or else a little longer
 * than timeout_seconds, and says what did not come. The exit code of it all. */
enum ctl_exit dispatch_finish(struct dispatch *, int64_t timeout_seconds);
void dispatch_close(struct dispatch *); /* also after a failed dispatch_open */

#endif
