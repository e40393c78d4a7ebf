/* sessionctl dlq: what its parts share: its options, and the dead letters that they choose. */
#ifndef WORKER_CTL_DLQ_H
#define WORKER_CTL_DLQ_H

#include "worker/ctl/ctl.h"
#include "worker/ctl/letter.h"
#include "worker/ctl/scan.h"

struct dlq_args {
    struct common common;
    const char *code, *session, *since;
    int64_t partition, offset; /* plus 1 */
    int64_t limit;
    bool dry_run, all;
};

struct chosen_place {
    int32_t partition;
    int64_t offset; /* -1: all of the partition */
};

/* Which letters are meant. */
struct choice {
    const struct dlq_args *args;
    struct chosen_place *places; /* owned; of the operands */
    size_t n_places;
    uint64_t since_ms;
};
MUST_USE bool choice_read(struct choice *, const struct dlq_args *); /* false: complained */
void choice_done(struct choice *);
bool choice_takes(const struct choice *, const struct letter *);

/* Calls each for the letters that are chosen, in the order of partition and offset, at most --limit
 * of them; says so when there is none. *n: how many. Complains itself. */
enum ctl_exit dlq_each(const struct choice *, const struct config *,
                       void (*each)(void *arg, const struct letter *), void *arg, size_t *n);

enum ctl_exit dlq_replay(const struct choice *, const struct config *);

#endif
