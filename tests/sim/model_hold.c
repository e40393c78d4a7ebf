/* Requests whose answer waits for a sandbox: create, start and recover.
 *
 * The reply is complete but for what the wait decides. create answers with the sandbox as it was
 * before the wait, however long that was; start with the true state, but with the intervals of
 * before; either with 400 when the sandbox has failed. After 30 s the answer comes whatever the
 * state. */
#include "tests/sim/model_impl.h"

#include <string.h>

void release_hold(struct model *m, struct hold *h)
{
    timer_disarm(m, &h->timer);
    DL_DELETE(h->box->holds, h);
    HASH_DEL(m->held, h);
    sim_reply_done(&h->reply);
    free(h->target);
    free(h);
}

static void finish_hold(struct model *m, struct hold *h)
{
    struct sim_reply *re = &h->reply;
    finish_reply(m, re);
    route_count(m, h->route, re->status);
    m->lost += re->lost;
    if (!h->gone) {
        GROW(m->finished, m->n_finished, m->cap_finished);
        m->finished[m->n_finished++] = *re;
        *re = (struct sim_reply){0};
    }
    release_hold(m, h);
}

static void drop_header(struct sim_reply *re, const char *name)
{
    size_t n = 0;
    for (size_t i = 0; i < re->n_headers; i++) {
        if (strcmp(re->headers[i].name, name) != 0)
            re->headers[n++] = re->headers[i];
        else
            free(re->headers[i].value);
    }
    re->n_headers = n;
}

static void answer_failed(struct model *m, struct hold *h)
{
    const char *reason = h->box->error_reason ? h->box->error_reason : "unknown";
    struct sim_request rq = {.method = "POST", .target = h->target};
    struct call c = {.m = m, .rq = &rq, .re = &h->reply};
    buf_clear(&h->reply.body);
    drop_header(&h->reply, "Content-Type"); /* it is written again */
    api_error(&c, 400, "Sandbox failed to start: %s", reason);
}

/* A start answers with the true state but with the intervals it read when it began. */
static void answer_started(struct model *m, struct hold *h)
{
    struct box seen = *h->box;
    seen.auto_stop = h->auto_stop;
    seen.auto_archive = h->auto_archive;
    seen.auto_delete = h->auto_delete;
    buf_clear(&h->reply.body);
    box_print(m, &seen, DTO_FULL, &h->reply.body);
}

static void answer_hold(struct model *m, struct hold *h)
{
    bool failed = h->box->state == S_ERROR || h->box->state == S_BUILD_FAILED;
    if (failed)
        answer_failed(m, h);
    else if (!h->creates)
        answer_started(m, h);
    finish_hold(m, h);
}

static void hold_fired(struct model *m, struct timer *t)
{
    answer_hold(m, CONTAINER_OF(t, struct hold, timer));
}

enum { HOLD_S = 30 };

/* Keeps the prepared reply of c until the sandbox has started or failed, 30 s at most. */
void box_hold(struct model *m, struct box *b, struct call *c, bool creates)
{
    struct hold *h = xcalloc(1, sizeof *h);
    h->box = b;
    h->route = c->route;
    h->creates = creates;
    h->auto_stop = b->auto_stop;
    h->auto_archive = b->auto_archive;
    h->auto_delete = b->auto_delete;
    h->target = xstrdup(c->rq->target);
    h->reply = *c->re;
    *c->re = (struct sim_reply){.token = h->reply.token, .held = true};
    h->timer = (struct timer){.at = NEVER, .fire = hold_fired};
    timer_arm(m, &h->timer, m->now + HOLD_S * NS_PER_S);
    DL_APPEND(b->holds, h);
    HASH_ADD(hh, m->held, reply.token, sizeof h->reply.token, h);
}

void answer_holds(struct model *m, struct box *b)
{
    struct hold *h, *next;
    DL_FOREACH_SAFE(b->holds, h, next)
    answer_hold(m, h);
}
