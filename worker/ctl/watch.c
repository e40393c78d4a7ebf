/* sessionctl watch: events as they come, until interrupted.
 *
 * Reads the results topic, and the progress topic where there is one. A broker that goes away ends
 * nothing: one line says so, and the reading goes on when it is back. */
#include <string.h>

#include "common/json.h"
#include "worker/ctl/ctl.h"
#include "worker/ctl/reader.h"

#define OPERANDS_MAX 1000
#define POLL_MS 500
#define QUIET_MS 30000 /* between two complaints about the broker */

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

static void take(const struct watch_args *a, const struct view *view, rd_kafka_message_t *m)
{
    if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
        return;
    if (m->err) {
        complain("%s", rd_kafka_message_errstr(m));
        return;
    }
    cJSON *event = json_parse_reply(m->payload, m->len);
    if (is_wanted(&a->common.operands, event))
        ctl_show(view, event, m->payload, m->len);
    cJSON_Delete(event);
}

static void tell_trouble(struct client *c, uint64_t *next_ms)
{
    if (c->error && now_ms() >= *next_ms) {
        complain("still trying: %s", c->error_text);
        *next_ms = now_ms() + QUIET_MS;
    }
    c->error = 0;
}

static _Noreturn void follow(const struct watch_args *a, struct reader *r)
{
    struct view view = ctl_view(&a->common);
    uint64_t next_complaint = 0;
    for (;;) {
        rd_kafka_message_t *m = reader_next(r, POLL_MS);
        tell_trouble(&r->client, &next_complaint);
        if (m) {
            take(a, &view, m);
            rd_kafka_message_destroy(m);
        }
    }
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
    if (!code)
        follow(a, &r);
    complain("%s", why);
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
