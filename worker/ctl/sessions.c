/* sessionctl sessions: every session that is known, one line each.
 *
 * The results topic is read to its end, and of each session the last event counts; so are the
 * progress topic, where there is one, and the workers' admin ports for what is in flight. The
 * workers are asked first: a job that ends meanwhile is then seen in the topic. */
#include <stdio.h>

#include "common/json.h"
#include "worker/ctl/ctl.h"
#include "worker/ctl/reader.h"
#include "worker/ctl/roll.h"
#include "worker/ctl/scan.h"
#include "worker/ctl/text.h"

struct sessions_args {
    struct common common;
    const char *state, *tenant, *since;
    int64_t limit;
    struct texts admins;
};

#define AT(member) offsetof(struct sessions_args, member)
/* clang-format off */
static const struct option options[] = {
    {"state", 0, OPT_CHOICE, AT(state), ROLL_STATES, "only these", NULL, 0, 0},
    {"tenant", 0, OPT_TEXT, AT(tenant), "NAME", "only this tenant's", NULL, 0, 0},
    {"since", 0, OPT_TEXT, AT(since), "AGO|TIME",
     "only events since: 10m, 2h, 3d or 2026-11-24T08:00:00Z", NULL, 0, 0},
    {"limit", 0, OPT_INT, AT(limit), "N", "only the N newest", NULL, 1, 10000000},
    {"admin", 'a', OPT_PLACES, AT(admins), "HOST:PORT",
     "a worker's admin.listen, for what is in flight; several", NULL, 0, 0},
};
/* clang-format on */

struct listing {
    struct roll roll;
    size_t foreign;
};

static bool take(void *arg, size_t topic, rd_kafka_message_t *m)
{
    (void)topic;
    struct listing *l = arg;
    const char *id;
    size_t len;
    char job[300];
    bool named = message_header(m, "ce_id", &id, &len);
    snprintf(job, sizeof job, "%.*s", named ? (int)MIN(len, sizeof job - 1) : 0, named ? id : "");
    cJSON *event = json_parse_reply(m->payload, m->len);
    if (!roll_event(&l->roll, event, *job ? job : NULL, message_time_ms(m)))
        l->foreign++;
    cJSON_Delete(event);
    return true;
}

static void say_object(void *arg, const struct buf *json)
{
    (void)arg;
    say_json(json);
}

static void show(struct listing *l, const struct roll_wish *wish, const struct view *view)
{
    struct table table;
    if (view->json) {
        roll_json(&l->roll, wish, say_object, NULL);
        return;
    }
    table_init(&table, roll_heads, ROLL_COLUMNS);
    roll_table(&l->roll, wish, &table);
    say_table(&table, view->colour);
    if (!table_rows(&table))
        complain("no sessions%s", wish->state || wish->tenant ? " of that kind" : "");
    table_done(&table);
}

static enum ctl_exit list(const struct sessions_args *a, const struct config *cfg,
                          uint64_t since_ms)
{
    struct listing l = {0};
    struct admins admins;
    char why[WHY_SIZE] = "";
    struct scan scan = {.topics = {{cfg->topics.results, true}, {cfg->topics.progress, false}},
                        .since_ms = since_ms,
                        .take = take,
                        .arg = &l};
    ctl_admins(&a->common, &a->admins, cfg, &admins);
    struct worker_answer *answers = admins_ask(&admins);
    uint64_t now = wall_ms();
    enum ctl_exit code = scan_run(&scan, cfg, why);
    for (size_t i = 0; i < admins.addresses.n; i++)
        roll_page(&l.roll, answers[i].page, now);
    struct roll_wish wish = {a->state, a->tenant, (size_t)a->limit, wall_ms()};
    struct view view = ctl_view(&a->common);
    if (code)
        complain("%s", why);
    else
        show(&l, &wish, &view);
    if (!code && l.foreign)
        complain("passed over %zu record%s no event%s", l.foreign,
                 l.foreign == 1 ? " that is" : "s that are", l.foreign == 1 ? "" : "s");
    answers_free(answers, admins.addresses.n);
    admins_done(&admins);
    roll_done(&l.roll);
    return code;
}

static enum ctl_exit run(void *args)
{
    const struct sessions_args *a = args;
    struct config cfg;
    uint64_t since_ms = 0;
    if (!ctl_since(a->since, &since_ms) || !ctl_client_config(&a->common, &cfg))
        return CTL_USAGE;
    enum ctl_exit code = list(a, &cfg, since_ms);
    config_done(&cfg);
    return code;
}

const struct verb verb_sessions = {
    .name = "sessions",
    .synopsis = "[OPTION]...",
    .summary = "list the sessions: state, age, sandbox, and url or reason",
    .notes =
        "Each session's last event counts, the newest session comes first. What is in flight is\n"
        "told by topics.progress, where it is set, and by the workers of -a (with -c FILE also by\n"
        "the one at that file's admin.listen).\n"
        "-o json: {\"type\":\"session\", session_id, state, time, age_ms, tenant, provider, "
        "sandbox,\n"
        "url, job, code, step, message, waiting_for, worker, attempt}; null: nothing to say.\n",
    .tables = {{options, ARRAY_LEN(options)}},
    .args_size = sizeof(struct sessions_args),
    .max_operands = 0,
    .run = run,
};
