/* A binary heap of times, intrusive: what waits embeds a node and is found again by its kind. */
#ifndef WORKER_CORE_HEAP_H
#define WORKER_CORE_HEAP_H

#include "common/base.h"

struct heap_node {
    uint64_t at;  /* NEVER: not in the heap */
    size_t index; /* where it stands, while in it */
    int kind;     /* the owner's: what the node is embedded in */
};

struct heap {
    struct heap_node **nodes; /* owned array of borrowed nodes */
    size_t n, cap;
};

void heap_node_init(struct heap_node *, int kind);
void heap_set(struct heap *, struct heap_node *, uint64_t at); /* in, moved, or (NEVER) out */
struct heap_node *heap_first(const struct heap *);             /* NULL when empty */
void heap_done(struct heap *);                                 /* asserts that it is empty */

#endif
