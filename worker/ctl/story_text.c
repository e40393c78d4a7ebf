/* story_text: a story as people read it, and as JSON lines. See story.h.
 *
 * One line for each thing that happened, the time to its left: that of the job in full, of the rest
 * how long after it. Below a result stands what one asks next: why, whose words, what to do, and
 * where the time went. */
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "worker/ctl/event.h"
#include "worker/ctl/story.h"
#include "worker/ctl/text.h"

#define BLANK "                          " /* time and two spaces */
#define BAR_WIDTH 40
#define LOG_LINES 8
#define LINE_MAX_BYTES 64000000

struct teller {
    struct buf *out;
    bool colour;
    uint64_t now_ms;
};

/* ---- lines ---- */

static void add_time(struct teller *t, uint64_t ms)
{
    char time[TIME_TEXT_SIZE] = "                       -";
    if (ms)
        format_time_ms(ms, time);
    buf_addf(t->out, "%s  ", time);
}

static void add_after(struct teller *t, const struct chapter *c, uint64_t ms)
{
    if (ms >= c->time_ms && c->time_ms && c->what)
        buf_addf(t->out, "%16s%6.1f s  ", "+", (double)(ms - c->time_ms) / 1000);
    else
        add_time(t, ms);
}

static void add_word(struct teller *t, const char *paint, const char *word)
{
    char padded[16];
    snprintf(padded, sizeof padded, "%-8s", word);
    add_painted(t->out, t->colour, paint, padded);
    buf_adds(t->out, "  ");
}

static void add_text(struct teller *t, const char *text)
{
    add_safe(t->out, text, strlen(text));
}

/* Something beside the timeline; nothing without text. */
static void add_aside(struct teller *t, const char *word, const char *text)
{
    if (!text || !*text)
        return;
    buf_adds(t->out, BLANK);
    add_word(t, DIM, word);
    add_text(t, text);
    buf_addc(t->out, '\n');
}

/* ---- failures ---- */

/* The last lines of the log, each on its own. */
static void add_log(struct teller *t, const char *log)
{
    size_t end = log ? strlen(log) : 0;
    while (end > 0 && (log[end - 1] == '\n' || log[end - 1] == '\r'))
        end--;
    size_t start = end;
    for (unsigned lines = 0; start > 0; start--)
        if (log[start - 1] == '\n' && ++lines == LOG_LINES)
            break;
    for (bool first = true; start < end; first = false) {
        size_t n = MIN(strcspn(log + start, "\n"), end - start);
        buf_adds(t->out, BLANK);
        add_word(t, DIM, first ? "log" : "");
        add_safe(t->out, log + start, n);
        buf_addc(t->out, '\n');
        start += n + 1;
    }
}

static void add_failure(struct teller *t, const struct chapter *c, const cJSON *event)
{
    const cJSON *error = json_get(event, "error"), *box = json_get(event, "sandbox");
    const char *code = json_str(error, "code", "unknown");
    int64_t status = json_int(error, "http_status", 0);
    add_text(t, code);
    buf_adds(t->out, " at ");
    add_text(t, json_str(error, "step", "?"));
    buf_adds(t->out, ": ");
    add_text(t, json_str(error, "message", ""));
    if (status > 0)
        buf_addf(t->out, " (HTTP %lld)", (long long)status);
    buf_addc(t->out, '\n');
    add_aside(t, "provider", json_str(error, "provider_message", NULL));
    add_log(t, json_str(error, "log_tail", NULL));
    add_aside(t, "to do", chapter_advice(c));
    add_aside(t, "retry",
              json_bool(error, "retryable", false) ? "the same job may succeed later"
                                                   : "the same job will fail again");
    add_aside(t, "sandbox", json_str(box, "id", NULL));
    add_aside(t, "cleanup", json_str(box, "cleanup", NULL));
}

/* ---- where the time went ---- */

static void add_steps(struct teller *t, const struct chapter *c)
{
    uint64_t ms[N_STEPS], longest = 0;
    bool exactly;
    if (!chapter_steps(c, t->now_ms, ms, &exactly))
        return;
    for (unsigned i = 0; i < N_STEPS; i++)
        longest = MAX(longest, ms[i]);
    for (unsigned i = 0; i < N_STEPS; i++) {
        if (ms[i] == 0)
            continue;
        buf_adds(t->out, BLANK);
        add_word(t, DIM, step_name((enum step)i));
        buf_addf(t->out, "%s%6.1f s  ", exactly ? "" : "about ", (double)ms[i] / 1000);
        add_bar(t->out, ms[i], longest, BAR_WIDTH);
        buf_addc(t->out, '\n');
    }
}

/* ---- scenes ---- */

static void add_result(struct teller *t, const struct chapter *c, const cJSON *event)
{
    char counts[80];
    event_word(event, t->colour, t->out);
    buf_adds(t->out, "  ");
    if (event_end(event) == EVENT_BAD) {
        add_failure(t, c, event);
    } else {
        event_detail(event, t->out);
        buf_addc(t->out, '\n');
        if (event_url(event))
            add_aside(t, "sandbox", json_str(json_get(event, "sandbox"), "id", NULL));
    }
    int64_t requests = json_int(event, "requests", 0);
    snprintf(counts, sizeof counts, "%lld, %lld request%s to the provider",
             (long long)json_int(event, "attempts", 0), (long long)requests,
             requests == 1 ? "" : "s");
    add_aside(t, "attempts", counts);
}

static void add_letter(struct teller *t, const struct scene *s)
{
    add_word(t, YELLOW, "DEAD");
    add_text(t, s->code ? s->code : "a dead letter");
    buf_adds(t->out, ": ");
    add_text(t, s->detail);
    buf_adds(t->out, " (sessionctl dlq show)\n");
}

/* Does it say the same as the progress before it? */
static bool is_stale(const struct chapter *c, size_t i)
{
    const struct scene *s = &c->scenes[i], *before = i ? s - 1 : NULL;
    return before && s->kind == SCENE_PROGRESS && before->kind == SCENE_PROGRESS &&
           strcmp(json_str(s->event, "step", ""), json_str(before->event, "step", "")) == 0 &&
           json_int(s->event, "attempt", 0) == json_int(before->event, "attempt", 0);
}

static void add_progress(struct teller *t, const cJSON *event)
{
    int64_t attempt = json_int(event, "attempt", 1);
    event_word(event, t->colour, t->out);
    buf_adds(t->out, "  ");
    add_text(t, json_str(event, "step", ""));
    if (attempt > 1)
        buf_addf(t->out, ", attempt %lld", (long long)attempt);
    buf_addc(t->out, '\n');
}

static void add_scene(struct teller *t, const struct chapter *c, size_t i)
{
    const struct scene *s = &c->scenes[i];
    if (is_stale(c, i))
        return;
    add_after(t, c, s->time_ms);
    if (s->kind == SCENE_LETTER)
        add_letter(t, s);
    else if (s->kind == SCENE_RESULT)
        add_result(t, c, s->event);
    else
        add_progress(t, s->event);
}

static void add_flight(struct teller *t, const struct chapter *c)
{
    int64_t requests = json_int(c->flight, "requests", 0);
    add_after(t, c, t->now_ms);
    add_word(t, YELLOW, "NOW");
    add_text(t, json_str(c->flight, "step", "?"));
    buf_addf(t->out, " for %.1f s, attempt %lld, %lld request%s, at ",
             (double)json_int(c->flight, "step_ms", 0) / 1000,
             (long long)json_int(c->flight, "attempt", 0), (long long)requests,
             requests == 1 ? "" : "s");
    add_text(t, json_str(c->page, "instance", "?"));
    buf_addc(t->out, '\n');
    add_aside(t, "waiting", json_str(c->flight, "waiting_for", NULL));
    add_aside(t, "sandbox", json_str(c->flight, "sandbox", NULL));
}

static void add_chapter(struct teller *t, const struct chapter *c)
{
    buf_addc(t->out, '\n');
    add_time(t, c->time_ms);
    add_word(t, BOLD, "JOB");
    add_text(t, c->what ? c->what : "its record is not in the topic (any more)");
    buf_adds(t->out, "  ");
    add_text(t, c->job);
    buf_addc(t->out, '\n');
    add_aside(t, "replay", c->again);
    for (size_t i = 0; i < c->n; i++)
        add_scene(t, c, i);
    if (c->flight && !story_result(c))
        add_flight(t, c);
    else if (c->n == 0)
        add_aside(t, "WAITING",
                  "no result yet: it is queued, or with a worker that was not asked "
                  "(-a HOST:PORT asks one)");
    add_steps(t, c);
}

/* ---- the whole ---- */

static const char *paint_of(const char *state)
{
    static const struct {
        const char *state, *paint;
    } paints[] = {{"ready", GREEN},
                  {"failed", RED},
                  {"refused", RED},
                  {"in-progress", YELLOW},
                  {"waiting", YELLOW}};
    for (size_t i = 0; i < ARRAY_LEN(paints); i++)
        if (strcmp(paints[i].state, state) == 0)
            return paints[i].paint;
    return NO_PAINT;
}

void story_text(const struct story *s, uint64_t now_ms, bool colour, struct buf *out)
{
    struct teller t = {out, colour, now_ms};
    const char *state = story_state(s);
    buf_adds(out, "session ");
    add_text(&t, s->session_id);
    buf_adds(out, "  ");
    add_painted(out, colour, paint_of(state), state);
    buf_addf(out, "  %zu job%s\n", s->n, s->n == 1 ? "" : "s");
    for (size_t i = 0; i < s->n; i++)
        add_chapter(&t, &s->chapters[i]);
    if (s->destroy) {
        buf_addc(out, '\n');
        add_time(&t, now_ms);
        add_word(&t, YELLOW, "NOW");
        buf_adds(out, "its sandbox is being destroyed: ");
        add_text(&t, json_str(s->destroy, "sandbox", "?"));
        buf_addc(out, '\n');
    }
}

/* ---- as JSON ---- */

static void add_when(struct buf *out, uint64_t ms)
{
    char time[TIME_TEXT_SIZE];
    format_time_ms(ms, time);
    add_json_member(out, "time", ms ? time : NULL);
}

static void json_job(const struct chapter *c, const char *session_id, struct buf *out)
{
    buf_adds(out, "{\"type\":\"job\"");
    add_json_member(out, "job", c->job);
    add_json_member(out, "session_id", session_id);
    add_when(out, c->time_ms);
    add_json_member(out, "what", c->what);
    add_json_member(out, "first", c->again);
    buf_addc(out, '}');
}

static void json_scene(const struct chapter *c, const struct scene *s, struct buf *out)
{
    if (s->kind == SCENE_LETTER) {
        buf_adds(out, s->text);
        return;
    }
    buf_adds(out, "{\"type\":\"event\"");
    add_json_member(out, "job", c->job);
    add_when(out, s->time_ms);
    buf_addf(out, ",\"event\":%s}", s->text);
}

static void json_flight(const struct chapter *c, struct buf *out)
{
    const cJSON *f = c->flight;
    buf_adds(out, "{\"type\":\"in-flight\"");
    add_json_member(out, "job", c->job);
    add_json_member(out, "worker", json_str(c->page, "instance", NULL));
    add_json_member(out, "step", json_str(f, "step", NULL));
    add_json_member(out, "waiting_for", json_str(f, "waiting_for", NULL));
    add_json_member(out, "sandbox", json_str(f, "sandbox", NULL));
    static const char *const numbers[] = {"step_ms", "age_ms", "attempt", "requests"};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        buf_addf(out, ",\"%s\":%lld", numbers[i], (long long)json_int(f, numbers[i], 0));
    buf_addc(out, '}');
}

static void json_summary(const struct story *s, struct buf *out)
{
    const struct chapter *last = &s->chapters[s->n - 1];
    const cJSON *result = story_result(last);
    const char *code = json_str(json_get(result, "error"), "code", NULL);
    buf_adds(out, "{\"type\":\"summary\"");
    add_json_member(out, "session_id", s->session_id);
    add_json_member(out, "state", story_state(s));
    add_json_member(out, "code", code);
    add_json_member(out, "to_do", chapter_advice(last));
    buf_addf(out, ",\"jobs\":%zu}", s->n);
}

struct sink {
    void (*each)(void *arg, const struct buf *json);
    void *arg;
    struct buf line;
};

static void put(struct sink *k)
{
    k->each(k->arg, &k->line);
    buf_clear(&k->line);
}

void story_json(const struct story *s, void (*each)(void *, const struct buf *), void *arg)
{
    struct sink k = {each, arg, {0}};
    buf_init(&k.line, LINE_MAX_BYTES);
    for (size_t i = 0; i < s->n; i++) {
        const struct chapter *c = &s->chapters[i];
        json_job(c, s->session_id, &k.line);
        put(&k);
        for (size_t n = 0; n < c->n; n++) {
            json_scene(c, &c->scenes[n], &k.line);
            put(&k);
        }
        if (c->flight && !story_result(c)) {
            json_flight(c, &k.line);
            put(&k);
        }
    }
    json_summary(s, &k.line);
    put(&k);
    buf_done(&k.line);
}
