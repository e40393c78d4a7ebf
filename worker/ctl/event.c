/* event: see the header.
 *
 * A line is for eyes and grep: time, session, a word in capitals, then what a person asks next. The
 * url when it is ready; when it failed the code, the step, our sentence, the provider's own words,
 * the last line of the server's log and whether trying again may help. Keys and tokens are in the
 * JSON only. Every text of an event goes through add_safe(). */
#include "worker/ctl/event.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/wire.h"
#include "worker/ctl/text.h"

struct writer {
    const cJSON *event;
    struct buf *out;
};

static void add_text(struct writer *w, const char *before, const char *text, const char *after)
{
    if (!text || !*text)
        return;
    buf_adds(w->out, before);
    add_safe(w->out, text, strlen(text));
    buf_adds(w->out, after);
}

/* ---- one word and what follows it ---- */

const char *event_url(const cJSON *event)
{
    const char *url = json_str(json_get(event, "server"), "url", NULL);
    const cJSON *urls = json_get(json_get(event, "sandbox"), "exposed_urls");
    if (!url && cJSON_IsArray(urls) && urls->child)
        url = json_str(urls->child, "url", NULL);
    return url;
}

static void add_ready(struct writer *w)
{
    const cJSON *sandbox = json_get(w->event, "sandbox");
    int64_t total = json_int(json_get(w->event, "timings_ms"), "total", -1);
    const char *url = event_url(w->event);
    add_text(w, "", url ? url : json_str(sandbox, "id", ""), "");
    add_text(w, "  ", json_str(sandbox, "outcome", ""), "");
    if (total >= 0)
        buf_addf(w->out, " in %.1f s", (double)total / 1000);
    if (json_bool(sandbox, "replaced", false))
        buf_adds(w->out, ", replaced");
    if (json_bool(sandbox, "drift", false))
        buf_adds(w->out, ", of another spec");
}

/* The last line of a log that holds anything. */
static void add_last_line(struct writer *w, const char *log)
{
    size_t end = log ? strlen(log) : 0;
    while (end > 0 && (log[end - 1] == '\n' || log[end - 1] == '\r' || log[end - 1] == ' '))
        end--;
    size_t start = end;
    while (start > 0 && log[start - 1] != '\n')
        start--;
    if (start == end)
        return;
    buf_adds(w->out, "; its log ends: ");
    add_safe(w->out, log + start, end - start);
}

static void add_failed(struct writer *w)
{
    const cJSON *error = json_get(w->event, "error");
    add_text(w, "", json_str(error, "code", "unknown"), "");
    add_text(w, " at ", json_str(error, "step", ""), "");
    add_text(w, ": ", json_str(error, "message", ""), "");
    add_text(w, "; provider: ", json_str(error, "provider_message", ""), "");
    add_last_line(w, json_str(error, "log_tail", NULL));
    if (json_bool(error, "retryable", false))
        buf_adds(w->out, " (trying again may help)");
    if (strcmp(json_str(json_get(w->event, "sandbox"), "cleanup", ""), "kept") == 0)
        add_text(w, "; kept: sandbox ", json_str(json_get(w->event, "sandbox"), "id", ""), "");
}

static void add_ended(struct writer *w)
{
    const cJSON *sandbox = json_get(w->event, "sandbox");
    const char *id = json_str(sandbox, "id", NULL);
    if (!id)
        buf_adds(w->out, "there was none");
    add_text(w, "sandbox ", id, "");
    add_text(w, ", was ", json_str(sandbox, "was", ""), "");
}

/* What goes on in a step; NULL: no step of ours. */
static const char *doing(const char *step)
{
    static const struct {
        enum step step;
        const char *words;
    } steps[] = {
        {STEP_QUEUE, "waiting for its turn"}, {STEP_FIND, "looking for the session's sandbox"},
        {STEP_CREATE, "making the sandbox"},  {STEP_START, "starting the sandbox"},
        {STEP_LAUNCH, "starting the server"}, {STEP_PROBE, "waiting for the server to answer"},
        {STEP_KEEP, "making it the user's"}};
    for (size_t i = 0; i < ARRAY_LEN(steps); i++)
        if (strcmp(step, step_name(steps[i].step)) == 0)
            return steps[i].words;
    return NULL;
}

static void add_progress(struct writer *w)
{
    const char *step = json_str(w->event, "step", "");
    int64_t attempt = json_int(w->event, "attempt", 1);
    add_text(w, "", step, "");
    add_text(w, ": ", doing(step), "");
    if (attempt > 1)
        buf_addf(w->out, ", attempt %lld", (long long)attempt);
    buf_addf(w->out, ", %.1f s so far", (double)json_int(w->event, "elapsed_ms", 0) / 1000);
}

static const struct kind {
    const char *type, *word, *colour;
    enum event_end end;
    void (*add)(struct writer *);
} kinds[] = {
    {"session-ready", "READY", GREEN, EVENT_GOOD, add_ready},
    {"session-failed", "FAILED", RED, EVENT_BAD, add_failed},
    {"session-stopped", "STOPPED", "", EVENT_GOOD, add_ended},
    {"session-deleted", "DELETED", "", EVENT_GOOD, add_ended},
    {"session-progress", "PROGRESS", DIM, EVENT_UNDERWAY, add_progress},
};

static const struct kind *kind_of(const cJSON *event)
{
    const char *type = json_str(event, "type", "");
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (strcmp(type, kinds[i].type) == 0)
            return &kinds[i];
    return NULL;
}

enum event_end event_end(const cJSON *event)
{
    const struct kind *k = kind_of(event);
    return k ? k->end : EVENT_FOREIGN;
}

void event_word(const cJSON *event, bool colour, struct buf *out)
{
    const struct kind *k = kind_of(event);
    char word[16];
    snprintf(word, sizeof word, "%-8s", k->word);
    add_painted(out, colour, k->colour, word);
}

void event_detail(const cJSON *event, struct buf *out)
{
    struct writer w = {event, out};
    kind_of(event)->add(&w);
}

void event_text(const cJSON *event, bool colour, struct buf *out)
{
    struct writer w = {event, out};
    add_text(&w, "", json_str(event, "time", "-"), "  ");
    add_text(&w, "", json_str(event, "session_id", "-"), "  ");
    event_word(event, colour, out);
    buf_adds(out, "  ");
    event_detail(event, out);
}
