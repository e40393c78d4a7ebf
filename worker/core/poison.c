/* poison: what becomes of a record that must not be parsed.
 *
 * Its dead letter is the record as it came. If its key is a session id, there is a failed event as
 * well, and it goes the way of every failure: a job of which nothing is known but its session takes
 * its place in the lane and looks for the sandbox, because a life before this one may have kept it,
 * and then the event has to name it. Nothing of the value is looked at, here or behind. */
#include "worker/core/internal.h"

#include <stdlib.h>

#include "common/xalloc.h"

#define WHY                                                                                        \
    "the record killed the worker four times, the last time while it was the only one to be "      \
    "suspected"

static struct job *unread_job(const struct record *r)
{
    struct job *j = xcalloc(1, sizeof *j);
    j->type = JOB_START;
    j->partition = r->partition;
    j->offset = r->offset;
    j->timestamp_ms = r->timestamp_ms;
    j->session_id = xmemdup0(r->key, r->key_len);
    j->event_id = xasprintf("%s/%d/%lld", r->topic, (int)r->partition, (long long)r->offset);
    j->job_id = xstrdup(j->event_id);
    return j;
}

static bool letter(const struct core *c, const struct record *r, struct message *out)
{
    if (!c->config->topics.dead_letters[0])
        return false;
    dead_letter_print(r, ERR_POISON, WHY, out);
    return true;
}

void poison_take(struct core *c, struct part *p, const struct record *r)
{
    log_error(NULL, "poison: this record killed the worker again and again",
              L_STR("topic", r->topic), L_INT("partition", r->partition),
              L_INT("offset", r->offset));
    if (r->key && session_id_valid(r->key, r->key_len)) {
        struct session *s = session_of_job(c, p, unread_job(r));
        s->poison = true;
        s->has_letter = letter(c, r, &s->letter);
        lane_kick(c, s->lane);
        return;
    }
    struct result *result = result_new(c, p, r->offset);
    result->n_messages = letter(c, r, &result->messages[0]);
    metric_add1(M_JOBS_COMPLETED, MO_REFUSED, 1);
    metric_add2(M_JOB_FAILURES, STEP_QUEUE, ERR_POISON, 1);
}

void poison_fail(struct session *s)
{
    session_fail(s, ERR_POISON, WHY);
}
