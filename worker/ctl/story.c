/* story: see the header.
 *
 * A chapter is a job. Events name theirs (ce_id), dead letters tell where they came from, and a
 * worker's page has partition and offset: so everything finds its chapter, and makes it when the
 * job's record was not seen (it may be read later, or gone for good). Jobs are parsed as a worker
 * parses them, so that what is told is what was understood; env and keys are never told. */
#include "worker/ctl/story.h"

#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/xalloc.h"
#include "worker/ctl/advice.h"
#include "worker/ctl/event.h"
#include "worker/ctl/letter.h"
#include "worker/ctl/place.h"
#include "worker/ctl/record.h"

#define LETTER_JSON_MAX 16000000
#define WHAT_MAX 2000
#define CLOCKS_MS 1000 /* by which clocks may differ */
#define LATE_MS 5000   /* from a job's last moment to its event, at most */

void story_done(struct story *s)
{
    for (size_t i = 0; i < s->n; i++) {
        struct chapter *c = &s->chapters[i];
        for (size_t k = 0; k < c->n; k++) {
            cJSON_Delete(c->scenes[k].event);
            free(c->scenes[k].text);
            free(c->scenes[k].code);
            free(c->scenes[k].detail);
        }
        free(c->scenes);
        free(c->job);
        free(c->what);
        free(c->again);
    }
    free(s->chapters);
}

/* ---- taking it in ---- */

static struct chapter *chapter_of(struct story *s, const char *job)
{
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->chapters[i].job, job) == 0)
            return &s->chapters[i];
    GROW(s->chapters, s->n, s->cap);
    s->chapters[s->n] = (struct chapter){.job = xstrdup(job)};
    return &s->chapters[s->n++];
}

static void describe_start(const struct job *j, struct buf *out)
{
    static const char *const modes[] = {"ensure", "create", "attach", "resume"};
    static const char *const servers[] = {"v0", "v1", "custom", "none"};
    const char *from = j->sandbox.snapshot ? j->sandbox.snapshot : j->sandbox.image;
    buf_addf(out, "start-session  %s%s", from ? from : "default snapshot",
             j->sandbox.snapshot || !from ? "" : " (image)");
    buf_addf(out, ", server %s, mode %s, timeout %u s", servers[j->server.kind], modes[j->mode],
             j->timeout_seconds);
}

static void describe(const struct job *j, struct buf *out)
{
    if (j->type == JOB_START)
        describe_start(j, out);
    else
        buf_adds(out, j->type == JOB_STOP ? "stop-session" : "delete-session");
    if (j->type != JOB_START && j->sandbox.id)
        buf_addf(out, "  sandbox %s", j->sandbox.id);
    if (j->tenant)
        buf_addf(out, ", tenant %s", j->tenant);
}

void story_job(struct story *s, const struct record *r, const struct config *cfg)
{
    struct refusal why = {0};
    unsigned unknown;
    struct buf what;
    CLEANUP(free_ptr) char *place = place_text(r->topic, r->partition, r->offset);
    struct chapter *c = chapter_of(s, place);
    struct job *job = job_parse(r, cfg, &why, &unknown);
    buf_init(&what, WHAT_MAX);
    if (job)
        describe(job, &what);
    else
        buf_addf(&what, "not a job: %.1000s", why.message);
    c->what = buf_steal(&what);
    c->again = xstrdup0(record_header(r, "session-worker-original"));
    c->time_ms = r->timestamp_ms;
    c->timeout_ms = job ? (uint64_t)job->timeout_seconds * 1000 : 0;
    job_free(job);
    refusal_done(&why);
}

static struct scene *scene_new(struct chapter *c, enum scene_kind kind, uint64_t time_ms)
{
    GROW(c->scenes, c->n, c->cap);
    struct scene *scene = &c->scenes[c->n++];
    *scene = (struct scene){.kind = kind, .time_ms = time_ms};
    if (!c->what && (!c->time_ms || time_ms < c->time_ms))
        c->time_ms = time_ms;
    return scene;
}

void story_event(struct story *s, const struct record *r)
{
    cJSON *event = json_parse_reply(r->value ? r->value : "", r->value_len);
    enum event_end end = event_end(event);
    if (end == EVENT_FOREIGN) {
        cJSON_Delete(event);
        return;
    }
    CLEANUP(free_ptr) char *job = place_of_job(record_header(r, "ce_id"));
    struct chapter *c = chapter_of(s, job ? job : "unknown job");
    struct scene *scene =
        scene_new(c, end == EVENT_UNDERWAY ? SCENE_PROGRESS : SCENE_RESULT, r->timestamp_ms);
    scene->event = event;
    scene->text = xmemdup0(r->value, r->value_len);
}

void story_letter(struct story *s, const struct record *r)
{
    struct letter l;
    struct buf json;
    letter_read(&l, r);
    buf_init(&json, LETTER_JSON_MAX);
    letter_json(&l, false, &json);
    struct chapter *c = chapter_of(s, l.origin ? l.origin : "unknown job");
    struct scene *scene = scene_new(c, SCENE_LETTER, r->timestamp_ms);
    scene->text = buf_steal(&json);
    scene->code = xstrdup0(l.code);
    scene->detail = place_text(r->topic, r->partition, r->offset);
    letter_done(&l);
}

static void take_in_flight(struct story *s, const cJSON *page, const cJSON *session)
{
    if (strcmp(json_str(session, "session_id", ""), s->session_id) != 0)
        return;
    if (!json_str(session, "job_id", NULL)) {
        s->destroy = session;
        return;
    }
    CLEANUP(free_ptr)
    char *job = place_text(json_str(page, "jobs_topic", ""), json_int(session, "partition", -1),
                           json_int(session, "offset", -1));
    struct chapter *c = chapter_of(s, job);
    c->flight = session;
    c->page = page;
}

void story_page(struct story *s, const cJSON *page)
{
    const cJSON *session;
    cJSON_ArrayForEach(session, json_get(page, "sessions")) take_in_flight(s, page, session);
}

/* ---- in order ---- */

static int scene_order(const void *a, const void *b)
{
    const struct scene *x = a, *y = b;
    if (x->time_ms != y->time_ms)
        return x->time_ms < y->time_ms ? -1 : 1;
    return (int)x->kind - (int)y->kind;
}

/* Is x of a jobs topic that was there before the one that y is of, though its offset is larger?
 * Then its record is gone, and it went on before y began. */
static bool is_of_former_topic(const struct chapter *x, const struct chapter *y)
{
    return !x->what && is_long_after(y->time_ms, x->time_ms);
}

static bool is_before(const struct chapter *x, const struct chapter *y)
{
    struct place p, q;
    if (place_read(x->job, &p) && place_read(y->job, &q) && place_is_beside(&p, &q))
        return p.offset < q.offset ? !is_of_former_topic(y, x) : is_of_former_topic(x, y);
    if (x->time_ms != y->time_ms)
        return x->time_ms < y->time_ms;
    return strcmp(x->job, y->job) < 0;
}

/* By insertion: they come nearly in order, and is_before() is no order that qsort could stand, as
 * some are compared by place and some by time. */
static void sort_chapters(struct story *s)
{
    for (size_t i = 1; i < s->n; i++) {
        struct chapter c = s->chapters[i];
        size_t at = i;
        for (; at > 0 && is_before(&c, &s->chapters[at - 1]); at--)
            s->chapters[at] = s->chapters[at - 1];
        s->chapters[at] = c;
    }
}

void story_sort(struct story *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->chapters[i].n)
            qsort(s->chapters[i].scenes, s->chapters[i].n, sizeof(struct scene), scene_order);
    sort_chapters(s);
}

/* ---- what it comes to ---- */

static const struct scene *last_scene(const struct chapter *c, enum scene_kind kind)
{
    for (size_t i = c->n; i-- > 0;)
        if (c->scenes[i].kind == kind)
            return &c->scenes[i];
    return NULL;
}

const cJSON *story_result(const struct chapter *c)
{
    const struct scene *scene = last_scene(c, SCENE_RESULT);
    return scene ? scene->event : NULL;
}

/* Was it the job's own time that ran out, rather than a step's? The code may be the same. It is
 * counted from when a worker began; without progress all that is known is when the job was sent. */
static bool own_time_over(const struct chapter *c)
{
    const struct scene *result = last_scene(c, SCENE_RESULT), *told = last_scene(c, SCENE_PROGRESS);
    uint64_t begin = c->time_ms;
    if (told)
        begin = told->time_ms - (uint64_t)MAX(json_int(told->event, "elapsed_ms", 0), 0);
    uint64_t took = result->time_ms - begin + CLOCKS_MS;
    return c->timeout_ms && took >= c->timeout_ms && took < c->timeout_ms + CLOCKS_MS + LATE_MS;
}

const char *chapter_advice(const struct chapter *c)
{
    const char *code = json_str(json_get(story_result(c), "error"), "code", NULL);
    bool timed = code && (strcmp(code, error_name(ERR_START_TIMEOUT)) == 0 ||
                          strcmp(code, error_name(ERR_SERVER_TIMEOUT)) == 0);
    return advice_for(timed && own_time_over(c) ? error_name(ERR_DEADLINE_EXCEEDED) : code);
}

static bool is_under_way(const struct chapter *c)
{
    return !story_result(c) && (c->flight || last_scene(c, SCENE_PROGRESS));
}

const char *story_state(const struct story *s)
{
    const struct chapter *last = &s->chapters[s->n - 1];
    const cJSON *result = story_result(last);
    if (result)
        return json_str(result, "type", "") + strlen("session-");
    for (size_t i = 0; i < s->n; i++)
        if (is_under_way(&s->chapters[i]))
            return "in-progress";
    return last_scene(last, SCENE_LETTER) ? "refused" : "waiting";
}

static bool steps_of_timings(const cJSON *event, uint64_t steps_ms[N_STEPS])
{
    const cJSON *timings = json_get(event, "timings_ms");
    for (unsigned i = 0; i < N_STEPS; i++)
        steps_ms[i] = (uint64_t)MAX(json_int(timings, step_name((enum step)i), 0), 0);
    return cJSON_IsObject(timings);
}

static int step_number(const char *name)
{
    for (unsigned i = 0; i < N_STEPS; i++)
        if (strcmp(name, step_name((enum step)i)) == 0)
            return (int)i;
    return -1;
}

/* From one progress event to the next it was in the step that the first one names; before the first
 * one it was queued. */
static bool steps_of_progress(const struct chapter *c, uint64_t end_ms, uint64_t steps_ms[N_STEPS])
{
    int step = STEP_QUEUE;
    uint64_t since = 0, begin = 0;
    memset(steps_ms, 0, N_STEPS * sizeof *steps_ms);
    for (size_t i = 0; i < c->n; i++) {
        const struct scene *scene = &c->scenes[i];
        if (scene->kind != SCENE_PROGRESS)
            continue;
        uint64_t at = (uint64_t)MAX(json_int(scene->event, "elapsed_ms", 0), 0);
        int next = step_number(json_str(scene->event, "step", ""));
        if (at < since || next < 0) /* another worker's clock: it took the job over */
            return false;
        steps_ms[step] += at - since;
        step = next;
        since = at;
        begin = scene->time_ms - MIN(scene->time_ms, at);
    }
    if (begin && end_ms > begin + since)
        steps_ms[step] += end_ms - begin - since;
    return begin > 0 && end_ms > 0;
}

bool chapter_steps(const struct chapter *c, uint64_t now_ms, uint64_t steps_ms[N_STEPS],
                   bool *exactly)
{
    const struct scene *result = last_scene(c, SCENE_RESULT);
    uint64_t end_ms = result ? result->time_ms : c->flight ? now_ms : 0;
    *exactly = result && steps_of_timings(result->event, steps_ms);
    return *exactly || steps_of_progress(c, end_ms, steps_ms);
}
