/* stream: see the header.
 *
 * A result is the last word about its job, so progress that comes behind it is no news, however
 * late its topic was read. Of the results only the latest are remembered: progress is behind by
 * moments, not by thousands of jobs.
 *
 * Invariant: moments hold what was added since the last stream_tell(), in the order of coming. */
#include "worker/ctl/stream.h"

#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/maps.h"
#include "common/xalloc.h"
#include "worker/ctl/event.h"
#include "worker/ctl/place.h"

#define ENDED_MAX 10000

struct moment {
    cJSON *event; /* owned; NULL: no JSON */
    char *text;   /* owned */
    size_t len;
    char *job; /* owned; NULL: it names none */
    uint64_t time_ms;
    size_t number;
};

struct ended {
    char *job; /* owned */
    UT_hash_handle hh;
};

/* ---- jobs that have ended ---- */

static bool has_ended(const struct stream *s, const char *job)
{
    struct ended *e = NULL;
    if (job)
        HASH_FIND_STR(s->ended, job, e);
    return e != NULL;
}

static void ended_remove(struct stream *s, struct ended *e)
{
    HASH_DEL(s->ended, e);
    free(e->job);
    free(e);
}

/* The oldest makes room: a hash keeps the order in which its members came. */
static void ended_add(struct stream *s, const char *job)
{
    if (!job || has_ended(s, job))
        return;
    if (HASH_COUNT(s->ended) == ENDED_MAX)
        ended_remove(s, s->ended);
    struct ended *e = xcalloc(1, sizeof *e);
    e->job = xstrdup(job);
    HASH_ADD_KEYPTR(hh, s->ended, e->job, strlen(e->job), e);
}

/* ---- what came ---- */

static void moment_done(struct moment *m)
{
    cJSON_Delete(m->event);
    free(m->text);
    free(m->job);
}

void stream_done(struct stream *s)
{
    for (size_t i = 0; i < s->n; i++)
        moment_done(&s->moments[i]);
    free(s->moments);
    while (s->ended)
        ended_remove(s, s->ended);
}

void stream_add(struct stream *s, const char *text, size_t len, const char *job, uint64_t time_ms)
{
    uint64_t told;
    GROW(s->moments, s->n, s->cap);
    struct moment *m = &s->moments[s->n];
    *m = (struct moment){.event = json_parse_reply(text, len),
                         .text = xmemdup0(text, len),
                         .len = len,
                         .job = place_of_job(job),
                         .time_ms = time_ms,
                         .number = s->n++};
    if (parse_time_ms(json_str(m->event, "time", ""), &told))
        m->time_ms = told;
}

static int by_time(const void *a, const void *b)
{
    const struct moment *x = a, *y = b;
    if (x->time_ms != y->time_ms)
        return x->time_ms < y->time_ms ? -1 : 1;
    return x->number < y->number ? -1 : 1;
}

void stream_tell(struct stream *s,
                 void (*each)(void *arg, const cJSON *event, const char *text, size_t len),
                 void *arg)
{
    if (s->n)
        qsort(s->moments, s->n, sizeof *s->moments, by_time);
    for (size_t i = 0; i < s->n; i++) {
        struct moment *m = &s->moments[i];
        enum event_end end = event_end(m->event);
        if (end != EVENT_UNDERWAY || !has_ended(s, m->job))
            each(arg, m->event, m->text, m->len);
        if (end == EVENT_GOOD || end == EVENT_BAD)
            ended_add(s, m->job);
        moment_done(m);
    }
    s->n = 0;
}
