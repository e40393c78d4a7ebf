/* How many name look-ups are under way. Each is a thread of libcurl's until the name server answers
 * or the C library loses patience, whether a transfer still waits for it or not. Knows no libcurl
 * and no clock. */
#ifndef WORKER_IO_RESOLVING_H
#define WORKER_IO_RESOLVING_H

#include "common/base.h"

#define RESOLVING_MAX 64
#define RESOLVING_NS (30 * NS_PER_S) /* what glibc takes at most: 3 servers, 2 attempts of 5 s */

struct resolving { /* zeroed at first */
    unsigned n;    /* that a transfer waits for */
    unsigned n_left;
    uint64_t over_ns[RESOLVING_MAX]; /* of those given up: when they have surely ended; rising */
};

void resolving_begin(struct resolving *);
void resolving_end(struct resolving *);                      /* it ended */
void resolving_give_up(struct resolving *, uint64_t now_ns); /* nobody waits for it any more */

/* May another begin? */
bool resolving_room(struct resolving *, uint64_t now_ns);

/* When one of those given up is over; NEVER: there are none. */
uint64_t resolving_next(const struct resolving *);

#endif
