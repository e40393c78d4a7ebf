/* resolving: see the header.
 *
 * All that are given up go on for equally long, so over_ns is a queue. It may be full when more
 * transfers began in one turn than there was room for; those are not remembered, for there is no
 * room anyway until as many as it holds are over. */
#include "worker/io/resolving.h"

#include <string.h>

void resolving_begin(struct resolving *r)
{
    r->n++;
}

void resolving_end(struct resolving *r)
{
    ASSERT(r->n > 0);
    r->n--;
}

void resolving_give_up(struct resolving *r, uint64_t now_ns)
{
    resolving_end(r);
    if (r->n_left < RESOLVING_MAX)
        r->over_ns[r->n_left++] = now_ns + RESOLVING_NS;
}

bool resolving_room(struct resolving *r, uint64_t now_ns)
{
    unsigned over = 0;
    while (over < r->n_left && r->over_ns[over] <= now_ns)
        over++;
    r->n_left -= over;
    memmove(r->over_ns, r->over_ns + over, r->n_left * sizeof r->over_ns[0]);
    return r->n + r->n_left < RESOLVING_MAX;
}

uint64_t resolving_next(const struct resolving *r)
{
    return r->n_left ? r->over_ns[0] : NEVER;
}
