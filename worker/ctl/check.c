/* sessionctl check: is everything there that workers and clients need?
 *
 * Looks at the configuration, the brokers, the topics, whether results can be read, and with --live
 * at the providers. Goes on after a failure where that still tells something, and with
 * --create-topics makes what is missing. A missing provider's key is a note: only a worker needs
 * one, and this may be a client's machine. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/xalloc.h"
#include "worker/ctl/reader.h"
#include "worker/ctl/report.h"
#include "worker/ctl/text.h"

#define DEFAULT_PARTITIONS 12
#define ERRORS_MAX 20000

struct check_args {
    struct common common;
    bool live, create_topics;
    int64_t partitions, replication;
};

#define AT(member) offsetof(struct check_args, member)
/* clang-format off */
static const struct option options[] = {
    {"live", 0, OPT_FLAG, AT(live), NULL, "also ask the providers, with their keys", NULL, 0, 0},
    {"create-topics", 0, OPT_FLAG, AT(create_topics), NULL,
     "make the topics that are missing", NULL, 0, 0},
    {"partitions", 0, OPT_INT, AT(partitions), "N",
     "of new topics (default 12): at most as many workers", NULL, 1, 10000},
    {"replication", 0, OPT_INT, AT(replication), "N",
     "of new topics (default: the broker's own)", NULL, 1, 100},
};
/* clang-format on */

/* ---- the report ---- */

static const struct {
    const char *word, *colour;
} marks[] = {
    [REPORT_OK] = {"ok", GREEN},
    [REPORT_NOTE] = {"note", YELLOW},
    [REPORT_FAIL] = {"FAIL", RED},
};

static void add_json(struct buf *line, enum report_mark mark, const char *what,
                     const struct buf *text)
{
    buf_adds(line, "{\"check\":");
    json_quote(line, what, strlen(what));
    buf_addf(line,
             ",\"result\":\"%s\",\"detail\":", mark == REPORT_FAIL ? "fail" : marks[mark].word);
    json_quote(line, buf_text(text), text->len);
    buf_addc(line, '}');
}

void report_line(struct report *r, enum report_mark mark, const char *what, const char *fmt, ...)
{
    struct buf text, line;
    buf_init(&text, ERRORS_MAX);
    buf_init(&line, 8 * ERRORS_MAX);
    va_list ap;
    va_start(ap, fmt);
    buf_vaddf(&text, fmt, ap);
    va_end(ap);
    r->failed |= mark == REPORT_FAIL;
    if (r->view.json) {
        add_json(&line, mark, what, &text);
    } else {
        add_painted(&line, r->view.colour, marks[mark].colour, marks[mark].word);
        buf_addf(&line, "%*s", 6 - (int)strlen(marks[mark].word), "");
        add_safe(&line, what, strlen(what));
        buf_addf(&line, "%*s", MAX(2, 26 - (int)strlen(what)), "");
        add_safe(&line, buf_text(&text), text.len);
    }
    say(&line);
    buf_done(&text);
    buf_done(&line);
}

/* What `what` says already is not repeated. */
static void report_lines(struct report *r, enum report_mark mark, const char *what,
                         const char *text)
{
    static const char place[] = "configuration: ";
    for (size_t n; *text; text += n + (text[n] == '\n')) {
        text += strncmp(text, place, strlen(place)) == 0 ? strlen(place) : 0;
        n = strcspn(text, "\n");
        report_line(r, mark, what, "%.*s", (int)n, text);
    }
}

/* ---- the checks ---- */

/* Loads the configuration as a client; what only a worker would miss becomes a note. */
static bool check_config(struct report *r, const struct common *c, struct config *cfg)
{
    static const char what[] = "configuration";
    struct buf client, worker;
    struct config unused;
    buf_init(&client, ERRORS_MAX);
    buf_init(&worker, ERRORS_MAX);
    bool fine = ctl_config(c, false, cfg, &client);
    report_lines(r, REPORT_FAIL, what, buf_text(&client));
    if (fine)
        report_line(r, REPORT_OK, what, "%s", c->file ? c->file : "defaults and environment");
    if (fine && ctl_config(c, true, &unused, &worker))
        config_done(&unused);
    else if (fine)
        report_lines(r, REPORT_NOTE, "a worker's configuration", buf_text(&worker));
    buf_done(&client);
    buf_done(&worker);
    return fine;
}

static enum ctl_exit check_brokers(struct report *r, struct client *c)
{
    char why[WHY_SIZE];
    int n;
    enum ctl_exit code = client_brokers(c, &n, why);
    if (code)
        report_line(r, REPORT_FAIL, "brokers", "%s", why);
    else
        report_line(r, REPORT_OK, "brokers", "%s: %d broker%s", c->cfg->kafka.brokers, n,
                    n == 1 ? "" : "s");
    return code;
}

static bool create_topic(struct report *r, struct client *c, const struct check_args *a,
                         const char *what, const char *name)
{
    char why[WHY_SIZE];
    struct topic_plan plan = {
        .name = name,
        .partitions = a->partitions ? (int)a->partitions : DEFAULT_PARTITIONS,
        .replication = a->replication ? (int)a->replication : -1,
    };
    bool ok = client_create(c, &plan, why) == CTL_OK;
    if (ok)
        report_line(r, REPORT_OK, what, "made, %d partition%s", plan.partitions,
                    plan.partitions == 1 ? "" : "s");
    else
        report_line(r, REPORT_FAIL, what, "%s", why);
    return ok;
}

/* True: it is there now. */
static bool check_topic(struct report *r, struct client *c, const struct check_args *a,
                        const char *name)
{
    char why[WHY_SIZE];
    int n;
    CLEANUP(free_ptr) char *what = xasprintf("topic %s", name);
    if (client_partitions(c, name, &n, why))
        report_line(r, REPORT_FAIL, what, "%s", why);
    else if (n > 0 && a->partitions && n != a->partitions)
        report_line(r, REPORT_NOTE, what, "%d partition%s, not %d: --partitions is for new topics",
                    n, n == 1 ? "" : "s", (int)a->partitions);
    else if (n > 0)
        report_line(r, REPORT_OK, what, "%d partition%s", n, n == 1 ? "" : "s");
    else if (a->create_topics)
        return create_topic(r, c, a, what, name);
    else
        report_line(r, REPORT_FAIL, what,
                    "does not exist: sessionctl check --create-topics makes it, with --partitions "
                    "and --replication");
    return n > 0;
}

/* Every partition of the results topic is read up to its end. */
static void check_reading(struct report *r, const struct config *cfg)
{
    const char *const topics[READER_TOPICS] = {cfg->topics.results, ""};
    char why[WHY_SIZE] = "";
    struct reader reader;
    CLEANUP(free_ptr) char *what = xasprintf("reading %s", cfg->topics.results);
    enum ctl_exit code = reader_open(&reader, cfg, topics, READ_FROM_END, why);
    int left = code ? 0 : reader.topics[0].partitions;
    for (uint64_t until = now_ms() + KAFKA_TIMEOUT_MS; left > 0 && !*why && now_ms() < until;) {
        rd_kafka_message_t *m = reader_next(&reader, 200);
        if (m && m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
            left--;
        else if (m && m->err)
            client_explain(&reader.client, m->err, "reading", why);
        if (m)
            rd_kafka_message_destroy(m);
    }
    if (*why)
        report_line(r, REPORT_FAIL, what, "%s", why);
    else if (left > 0)
        report_line(r, REPORT_FAIL, what,
                    "no answer from %d of its partitions: are their leaders up?", left);
    else
        report_line(r, REPORT_OK, what, "committed events can be read");
    reader_close(&reader);
}

static void check_topics(struct report *r, struct client *c, const struct check_args *a)
{
    const struct config *cfg = c->cfg;
    const char *const names[] = {cfg->topics.jobs, cfg->topics.dead_letters, cfg->topics.progress};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (*names[i])
            check_topic(r, c, a, names[i]);
    if (check_topic(r, c, a, cfg->topics.results))
        check_reading(r, cfg);
}

static enum ctl_exit check_kafka(struct report *r, const struct config *cfg,
                                 const struct check_args *a)
{
    struct client c;
    char why[WHY_SIZE] = "";
    enum ctl_exit code = client_open(&c, cfg, &client_role_admin, why);
    if (code)
        report_line(r, REPORT_FAIL, "brokers", "%s", why);
    else
        code = check_brokers(r, &c);
    if (!code)
        check_topics(r, &c, a);
    client_close(&c);
    return code;
}

static enum ctl_exit run(void *args)
{
    const struct check_args *a = args;
    struct config cfg;
    struct report r = {.view = ctl_view(&a->common)};
    if (!check_config(&r, &a->common, &cfg))
        return CTL_USAGE;
    enum ctl_exit code = check_kafka(&r, &cfg, a);
    for (size_t i = 0; a->live && i < cfg.n_providers; i++)
        report_provider(&r, &cfg, &cfg.providers[i]);
    config_done(&cfg);
    return code ? code : r.failed ? CTL_FAILED : CTL_OK;
}

const struct verb verb_check = {
    .name = "check",
    .synopsis = "[OPTION]...",
    .summary = "look whether configuration, brokers, topics and providers are as needed",
    .notes =
        "A missing key of a provider is a note, as only workers need one; with --live it fails.\n",
    .tables = {{options, ARRAY_LEN(options)}},
    .args_size = sizeof(struct check_args),
    .max_operands = 0,
    .run = run,
};
