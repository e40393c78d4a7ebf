/* The roll of sessions: what is known of each, from events and from workers. The last word wins,
 * whatever order they come in. Pure. */
#ifndef WORKER_CTL_ROLL_H
#define WORKER_CTL_ROLL_H

#include <cjson/cJSON.h>

#include "common/base.h"
#include "common/buf.h"
#include "worker/ctl/table.h"

enum roll_state { ROLL_IN_PROGRESS, ROLL_READY, ROLL_FAILED, ROLL_STOPPED, ROLL_DELETED };
#define ROLL_STATES "in-progress|ready|failed|stopped|deleted"
const char *roll_state_name(enum roll_state);

struct entry;
struct roll {
    struct entry *entries; /* owned; by session id */
};
void roll_done(struct roll *);

/* An event of the results or progress topic; job is its ce_id (NULL: none), time_ms when it was
 * written. False: it is no event of a session. */
bool roll_event(struct roll *, const cJSON *event, const char *job, uint64_t time_ms);

/* A worker's page: the jobs that it has in hand. */
void roll_page(struct roll *, const cJSON *page, uint64_t now_ms);

struct roll_wish {
    const char *state, *tenant; /* NULL: any */
    size_t limit;               /* 0: all */
    uint64_t now_ms;
};

/* Those that are wanted, the newest first. */
void roll_table(struct roll *, const struct roll_wish *, struct table *);
void roll_json(struct roll *, const struct roll_wish *,
               void (*each)(void *arg, const struct buf *json), void *arg);

#define ROLL_COLUMNS 6
extern const char *const roll_heads[ROLL_COLUMNS];

#endif
