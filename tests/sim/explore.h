/* The two ways to explore: see explore_random.c and explore_exhaustive.c. */
#ifndef SIM_EXPLORE_H
#define SIM_EXPLORE_H

#include "common/base.h"

struct random_options {
    uint64_t seed, runs;
    bool story;   /* of every seed, not only of one that breaks */
    bool shorter; /* a story that breaks is made shorter before it is printed */
};

/* True: every invariant held in every seed. Prints what it did, and the story of one that broke. */
bool explore_random(const struct random_options *);

struct exhaustive_options {
    const char *pair; /* NULL: all of them */
    unsigned faults;
    unsigned jobs; /* pairs at a time */
    bool audit;    /* check that equal states have equal futures */
};

/* True: every invariant held in every schedule. False as well when there is no such pair. */
bool explore_exhaustive(const struct exhaustive_options *);

#endif
