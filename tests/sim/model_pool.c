/* The warm pool: started sandboxes that a plain create is given at once.
 *
 * One create with something that the pool has not (variables, say) makes everybody skip it for a
 * minute; a create that is then refused for its name keeps the one that was picked for it locked
 * for ten seconds. Any snapshot's pool is the same pool here: what matters is when it is hit and
 * when it is not. */
#include "tests/sim/model_impl.h"

#include <string.h>

#include "common/json.h"

enum { POOL_LOCK_S = 10, POOL_SKIP_S = 60 };

void pool_skip(struct model *m)
{
    if (m->opt.warm)
        m->pool_skip_until = m->now + POOL_SKIP_S * NS_PER_S;
}

static void pool_add(struct model *m)
{
    struct box *b = box_new(m);
    b->snapshot = xstrdup("ubuntu:22.04");
    b->user = xstrdup("daytona");
    b->env = xstrdup("{}");
    b->volumes = xstrdup("[]");
    b->labels = xstrdup("{}");
    b->first_name = xstrdup("");
    b->target = "us";
    b->cpu = b->memory = 1;
    b->disk = 3;
    b->pooled = b->has_runner = true;
    b->state = S_STARTED;
    b->started_at = m->now;
    GROW(m->pool, m->n_pool, m->cap_pool);
    m->pool[m->n_pool++] = b;
}

/* Those that wait are gone without a trace. */
void pool_drain(struct model *m)
{
    for (size_t i = 0; i < m->n_pool; i++) {
        m->pool[i]->state = S_DESTROYED;
        HASH_DEL(m->by_id, m->pool[i]);
    }
    m->n_pool = 0;
}

static void refill(struct model *m, struct timer *t)
{
    (void)t;
    pool_fill(m);
}

void pool_fill(struct model *m)
{
    m->pool_refill.fire = refill;
    while (m->n_pool < (size_t)m->opt.warm)
        pool_add(m);
}

struct box *pool_take(struct call *c, const char *snapshot)
{
    struct model *m = c->m;
    struct name *taken = NULL;
    const char *name = json_str(c->body, "name", "");
    if (m->pool_skip_until > m->now)
        return NULL;
    HASH_FIND_STR(m->names, name, taken);
    for (size_t i = 0; i < m->n_pool; i++) {
        struct box *b = m->pool[i];
        if (b->locked_until > m->now)
            continue;
        if (taken && taken->box) { /* the create will be refused; this one stays locked */
            b->locked_until = m->now + POOL_LOCK_S * NS_PER_S;
            return NULL;
        }
        m->pool[i] = m->pool[--m->n_pool];
        free(b->first_name);
        b->first_name = NULL;
        free(b->labels);
        b->labels = NULL;
        free(b->snapshot);
        b->snapshot = xstrdup(snapshot);
        if (m->pool_refill.at == NEVER && m->opt.pool_refill_ms)
            timer_arm(m, &m->pool_refill, m->now + from_ms((uint64_t)m->opt.pool_refill_ms));
        return b;
    }
    return NULL;
}
