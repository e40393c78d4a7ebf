/* sessionctl watch: events as they come, until interrupted.
 *
 * Reads the results topic, and the progress topic where there is one; what comes together is put in
 * order before it is shown. A broker that goes away ends nothing: one line says so, and the reading
 * goes on when it is back. */
#include <string.h>

#include "common/json.h"
#include "common/xalloc.h"
#include "worker/ctl/ctl.h"
#include "worker/ctl/reader.h"
#include "worker/ctl/scan.h"
#include "worker/ctl/stream.h"

#define OPERANDS_MAX 1000
#define POLL_MS 500
#define PAUSE_MS 200      /* what comes without such a pause comes together, */
#define TOGETHER_MS 1000  /* for so long */
#define TOGETHER_MAX 4000 /* and so many */
#define QUIET_MS 30000    /* between two complaints about the broker */

struct watch_args {
    struct common common;
    bool from_beginning;
};

/* clang-format off */
static const struct option options[] = {
    {"from-beginning", 0, OPT_FLAG, offsetof(struct watch_args, from_beginning), NULL,
     "also what the topics still hold", NULL, 0, 0},
};
/* clang-format on */

/* Is the event's session one of those asked for? All are, when none was. */
static bool is_wanted(const struct texts *sessions, const cJSON *event)
{
    const char *id = json_str(event, "session_id", "");
    for (size_t i = 0; i < sessions->n; i++)
        if (strcmp(id, sessions->items[i]) == 0)
            return true;
    return sessions->n == 0;
}

struct watch {
    const struct texts *sessions;
    struct view view;
    struct stream stream;
    uint64_t until; /* now_ms: when what is held must be shown */
};

static void take(struct watch *w, rd_kafka_message_t *m)
{
    const char *id;
    size_t len;
    if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
        return;
    if (m->err) {
        complain("%s", rd_kafka_message_errstr(m));
        return;
    }
    if (w->stream.n == 0)
        w->until = now_ms() + TOGETHER_MS;
    CLEANUP(free_ptr)
    char *job = message_header(m, "ce_id", &id, &len) ? xmemdup0(id, len) : NULL;
    stream_add(&w->stream, m->payload ? m->payload : "", m->len, job, message_time_ms(m));
}

static void show(void *arg, const cJSON *event, const char *text, size_t len)
{
    const struct watch *w = arg;
    if (is_wanted(w->sessions, event))
        ctl_show(&w->view, event, text, len);
}

static bool is_complete(const struct watch *w, bool paused)
{
    return paused || w->stream.n >= TOGETHER_MAX || now_ms() >= w->until;
}

static void tell_trouble(struct client *c, uint64_t *next_ms)
{
    if (c->error && now_ms() >= *next_ms) {
        complain("still trying: %s", c->error_text);
        *next_ms = now_ms() + QUIET_MS;
    }
    c->error = 0;
}

/* Until interrupted, or until nobody takes what it says. */
static void follow(const struct watch_args *a, struct reader *r)
{
    struct watch w = {.sessions = &a->common.operands, .view = ctl_view(&a->common)};
    uint64_t next_complaint = 0;
    while (!output_fault()) {
        rd_kafka_message_t *m = reader_next(r, w.stream.n ? PAUSE_MS : POLL_MS);
        tell_trouble(&r->client, &next_complaint);
        if (m) {
            take(&w, m);
            rd_kafka_message_destroy(m);
        }
        if (is_complete(&w, !m))
            stream_tell(&w.stream, show, &w);
    }
    stream_done(&w.stream);
}

static enum ctl_exit run(void *args)
{
    const struct watch_args *a = args;
    struct config cfg;
    struct reader r;
    char why[WHY_SIZE] = "";
    if (!ctl_client_config(&a->common, &cfg))
        return CTL_USAGE;
    const char *const topics[READER_TOPICS] = {cfg.topics.results, cfg.topics.progress};
    enum read_from from = a->from_beginning ? READ_FROM_BEGINNING : READ_FROM_END;
    enum ctl_exit code = reader_open(&r, &cfg, topics, from, why);
    if (code)
        complain("%s", why);
    else
        follow(a, &r);
    reader_close(&r);
    config_done(&cfg);
    return code;
}

const struct verb verb_watch = {
    .name = "watch",
    .synopsis = "[SESSION]... [OPTION]...",
    .summary = "follow results, and progress where topics.progress is set",
    .notes = "It ends with Ctrl-C. With -o json an event is printed as it is, keys and tokens "
             "included.\n",
    .tables = {{options, ARRAY_LEN(options)}},
    .args_size = sizeof(struct watch_args),
    .max_operands = OPERANDS_MAX,
    .run = run,
};
