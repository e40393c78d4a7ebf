/* roll: see the header.
 *
 * Which of two words about a session is the later one is told by time, where the times are further
 * apart than the clocks of those who said them may be: the offsets of their jobs cannot tell alone,
 * as they begin anew with a jobs topic that was deleted and made again. Closer together it is told
 * by the jobs: a session's jobs stand in one partition in their order, and every event names its
 * job. So what may be told wrongly is a session with jobs before and after a new topic within that
 * time, until its next word; and a result that is repeated later than that is news, until those of
 * the jobs behind it are repeated as well. A result is the last word about its job.
 *
 * An event was true when it was written. A job in hand is true from its beginning, which may lie
 * before the result of the job that it waited behind, until now: such a span is later than a time
 * only as a whole. */
#include "worker/ctl/roll.h"

#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/maps.h"
#include "common/xalloc.h"
#include "worker/ctl/event.h"
#include "worker/ctl/place.h"
#include "worker/ctl/text.h"

#define LINE_MAX_BYTES 16000000

struct entry {
    char *session_id; /* owned, as all below; NULL: not known */
    char *job, *tenant, *provider, *sandbox, *url, *code, *step, *message, *worker;
    enum roll_state state;
    uint64_t time_ms, until_ms; /* when that was true; they differ for a job in hand */
    int64_t attempt;
    UT_hash_handle hh;
};

static const struct {
    const char *name, *paint;
} states[] = {
    [ROLL_IN_PROGRESS] = {"in-progress", YELLOW},
    [ROLL_READY] = {"ready", GREEN},
    [ROLL_FAILED] = {"failed", RED},
    [ROLL_STOPPED] = {"stopped", NO_PAINT},
    [ROLL_DELETED] = {"deleted", DIM},
};

const char *roll_state_name(enum roll_state state)
{
    return states[state].name;
}

/* ---- entries ---- */

static void entry_clear(struct entry *e)
{
    char **texts[] = {&e->job,  &e->tenant, &e->provider, &e->sandbox, &e->url,
                      &e->code, &e->step,   &e->message,  &e->worker};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        free(*texts[i]);
        *texts[i] = NULL;
    }
    e->attempt = 0;
}

void roll_done(struct roll *r)
{
    struct entry *e, *next;
    HASH_ITER(hh, r->entries, e, next)
    {
        HASH_DEL(r->entries, e);
        entry_clear(e);
        free(e->session_id);
        free(e);
    }
}

/* What somebody says of a session. */
struct word {
    const char *session_id, *job; /* job NULL: it names none */
    uint64_t from_ms, until_ms;   /* when it was true */
    bool result;
};

/* Is it later than what is known? */
static bool is_later(const struct entry *e, const struct word *w)
{
    struct place known, said;
    bool beside =
        place_read(e->job, &known) && place_read(w->job, &said) && place_is_beside(&known, &said);
    bool ended = e->state != ROLL_IN_PROGRESS;
    if (!beside)
        return w->from_ms >= e->time_ms;
    if (known.offset == said.offset && ended != w->result)
        return w->result;
    if (is_long_after(w->from_ms, e->until_ms))
        return true;
    if (is_long_after(e->time_ms, w->until_ms))
        return false;
    return said.offset >= known.offset;
}

/* The session's entry, emptied; NULL: something later is known. */
static struct entry *renew(struct roll *r, const struct word *w)
{
    struct entry *e;
    HASH_FIND_STR(r->entries, w->session_id, e);
    if (e && !is_later(e, w))
        return NULL;
    if (!e) {
        e = xcalloc(1, sizeof *e);
        e->session_id = xstrdup(w->session_id);
        HASH_ADD_KEYPTR(hh, r->entries, e->session_id, strlen(e->session_id), e);
    }
    entry_clear(e);
    e->job = place_of_job(w->job);
    e->time_ms = w->from_ms;
    e->until_ms = w->until_ms;
    e->state = ROLL_IN_PROGRESS;
    return e;
}

static void fill_result(struct entry *e, const cJSON *event)
{
    static const struct {
        const char *type;
        enum roll_state state;
    } types[] = {{"session-ready", ROLL_READY},
                 {"session-failed", ROLL_FAILED},
                 {"session-stopped", ROLL_STOPPED},
                 {"session-deleted", ROLL_DELETED}};
    const cJSON *error = json_get(event, "error");
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (strcmp(json_str(event, "type", ""), types[i].type) == 0)
            e->state = types[i].state;
    e->code = xstrdup0(json_str(error, "code", NULL));
    e->step = xstrdup0(json_str(error, "step", NULL));
    e->message = xstrdup0(json_str(error, "message", NULL));
    e->url = xstrdup0(event_url(event));
    e->attempt = json_int(event, "attempts", 0);
}

bool roll_event(struct roll *r, const cJSON *event, const char *job, uint64_t time_ms)
{
    const char *id = json_str(event, "session_id", NULL);
    enum event_end end = event_end(event);
    if (end == EVENT_FOREIGN || !id)
        return false;
    struct word word = {id, job, time_ms, time_ms, end != EVENT_UNDERWAY};
    struct entry *e = renew(r, &word);
    if (!e)
        return true;
    e->tenant = xstrdup0(json_str(event, "tenant", NULL));
    e->provider = xstrdup0(json_str(event, "provider", NULL));
    e->sandbox = xstrdup0(json_str(json_get(event, "sandbox"), "id", NULL));
    if (end != EVENT_UNDERWAY) {
        fill_result(e, event);
    } else {
        e->step = xstrdup0(json_str(event, "step", NULL));
        e->attempt = json_int(event, "attempt", 0);
    }
    return true;
}

static void take_in_flight(struct roll *r, const cJSON *page, const cJSON *s, uint64_t now_ms)
{
    const char *id = json_str(s, "session_id", NULL);
    int64_t age = MAX(json_int(s, "age_ms", 0), 0);
    if (!id || !json_str(s, "job_id", NULL)) /* a sandbox that is being destroyed */
        return;
    CLEANUP(free_ptr)
    char *job = place_text(json_str(page, "jobs_topic", ""), json_int(s, "partition", -1),
                           json_int(s, "offset", -1));
    struct word word = {id, job, now_ms - MIN(now_ms, (uint64_t)age), now_ms, false};
    struct entry *e = renew(r, &word);
    if (!e)
        return;
    e->tenant = xstrdup0(json_str(s, "tenant", NULL));
    e->provider = xstrdup0(json_str(s, "provider", NULL));
    e->sandbox = xstrdup0(json_str(s, "sandbox", NULL));
    e->step = xstrdup0(json_str(s, "step", NULL));
    e->message = xstrdup0(json_str(s, "waiting_for", NULL));
    e->worker = xstrdup0(json_str(page, "instance", NULL));
    e->attempt = json_int(s, "attempt", 0);
}

void roll_page(struct roll *r, const cJSON *page, uint64_t now_ms)
{
    const cJSON *s;
    cJSON_ArrayForEach(s, json_get(page, "sessions")) take_in_flight(r, page, s, now_ms);
}

/* ---- those that are wanted ---- */

static bool is_wanted(const struct entry *e, const struct roll_wish *w)
{
    return (!w->state || strcmp(w->state, roll_state_name(e->state)) == 0) &&
           (!w->tenant || (e->tenant && strcmp(w->tenant, e->tenant) == 0));
}

static int newest_first(struct entry *a, struct entry *b)
{
    if (a->time_ms != b->time_ms)
        return a->time_ms > b->time_ms ? -1 : 1;
    return strcmp(a->session_id, b->session_id);
}

static void each_wanted(struct roll *r, const struct roll_wish *w,
                        void (*each)(void *arg, const struct entry *, uint64_t age_ms), void *arg)
{
    struct entry *e, *next;
    size_t n = 0;
    HASH_SORT(r->entries, newest_first);
    HASH_ITER(hh, r->entries, e, next)
    {
        if (!is_wanted(e, w))
            continue;
        each(arg, e, w->now_ms - MIN(w->now_ms, e->time_ms));
        if (++n == w->limit)
            return;
    }
}

/* ---- as a table ---- */

const char *const roll_heads[ROLL_COLUMNS] = {"SESSION", "STATE",   ">AGE",
                                              "TENANT",  "SANDBOX", "DETAIL"};

/* The url; why it failed; where it is. */
static void add_detail(struct table *t, const struct entry *e)
{
    struct buf text;
    buf_init(&text, LINE_MAX_BYTES);
    if (e->url)
        buf_adds(&text, e->url);
    if (e->code)
        buf_adds(&text, e->code);
    if (e->step)
        buf_addf(&text, "%s%s", e->code ? " at " : "", e->step);
    if (e->state == ROLL_IN_PROGRESS && e->attempt > 1)
        buf_addf(&text, ", attempt %lld", (long long)e->attempt);
    if (e->message)
        buf_addf(&text, ": %s", e->message);
    table_text(t, buf_text(&text));
    buf_done(&text);
}

static void add_row(void *arg, const struct entry *e, uint64_t age_ms)
{
    struct table *t = arg;
    table_text(t, e->session_id);
    table_add(t, "%s", roll_state_name(e->state));
    table_paint(t, states[e->state].paint);
    if (e->time_ms)
        table_age(t, age_ms);
    else
        table_text(t, NULL);
    table_text(t, e->tenant);
    table_text(t, e->sandbox);
    add_detail(t, e);
}

void roll_table(struct roll *r, const struct roll_wish *w, struct table *t)
{
    each_wanted(r, w, add_row, t);
}

/* ---- as JSON ---- */

struct json_arg {
    void (*each)(void *arg, const struct buf *json);
    void *arg;
};

static void add_object(void *arg, const struct entry *e, uint64_t age_ms)
{
    const struct json_arg *j = arg;
    char time[TIME_TEXT_SIZE];
    struct buf out;
    bool flying = e->state == ROLL_IN_PROGRESS;
    buf_init(&out, LINE_MAX_BYTES);
    format_time_ms(e->time_ms, time);
    buf_adds(&out, "{\"type\":\"session\"");
    add_json_member(&out, "session_id", e->session_id);
    add_json_member(&out, "state", roll_state_name(e->state));
    add_json_member(&out, "time", e->time_ms ? time : NULL);
    buf_addf(&out, ",\"age_ms\":%llu", (unsigned long long)age_ms);
    add_json_member(&out, "tenant", e->tenant);
    add_json_member(&out, "provider", e->provider);
    add_json_member(&out, "sandbox", e->sandbox);
    add_json_member(&out, "url", e->url);
    add_json_member(&out, "job", e->job);
    add_json_member(&out, "code", e->code);
    add_json_member(&out, "step", e->step);
    add_json_member(&out, "message", flying ? NULL : e->message);
    add_json_member(&out, "waiting_for", flying ? e->message : NULL);
    add_json_member(&out, "worker", e->worker);
    buf_addf(&out, ",\"attempt\":%lld}", (long long)e->attempt);
    j->each(j->arg, &out);
    buf_done(&out);
}

void roll_json(struct roll *r, const struct roll_wish *w, void (*each)(void *, const struct buf *),
               void *arg)
{
    struct json_arg j = {each, arg};
    each_wanted(r, w, add_object, &j);
}
