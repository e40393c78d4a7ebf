/* sessionctl explain: all that is known of one session, in the order in which it happened.
 *
 * Reads jobs, results, progress and dead letters to their ends, and asks the workers what is in
 * flight (before, so that what ends meanwhile is seen in the topics). */
#include <string.h>

#include "worker/ctl/ctl.h"
#include "worker/ctl/record.h"
#include "worker/ctl/scan.h"
#include "worker/ctl/story.h"

#define OUTPUT_MAX (SIZE_MAX / 4) /* what was read bounds it */

struct explain_args {
    struct common common;
    const char *since;
    struct texts admins;
};

#define AT(member) offsetof(struct explain_args, member)
/* clang-format off */
static const struct option options[] = {
    {"since", 0, OPT_TEXT, AT(since), "AGO|TIME",
     "only what happened since: 10m, 2h, 3d or 2026-11-24T08:00:00Z", NULL, 0, 0},
    {"admin", 'a', OPT_PLACES, AT(admins), "HOST:PORT",
     "a worker's admin.listen, for what is in flight; several", NULL, 0, 0},
};
/* clang-format on */

enum source { JOBS, RESULTS, PROGRESS, LETTERS };

struct search {
    struct story story;
    const struct config *cfg;
};

/* Nearly every record is another session's: its key says so before anything is copied. */
static bool has_other_key(const rd_kafka_message_t *m, const char *session_id)
{
    size_t len = strlen(session_id);
    return m->key && m->key_len > 0 && (m->key_len != len || memcmp(m->key, session_id, len) != 0);
}

static bool take(void *arg, size_t topic, rd_kafka_message_t *m)
{
    struct search *s = arg;
    if (has_other_key(m, s->story.session_id))
        return true;
    struct record *r = record_new(m);
    if (!record_is_about(r, s->story.session_id)) {
        record_free(r);
        return true;
    }
    if (topic == JOBS)
        story_job(&s->story, r, s->cfg);
    else if (topic == LETTERS)
        story_letter(&s->story, r);
    else
        story_event(&s->story, r);
    record_free(r);
    return true;
}

static void say_object(void *arg, const struct buf *json)
{
    (void)arg;
    say_json(json);
}

static void tell(struct search *s, const struct view *view)
{
    struct buf out;
    story_sort(&s->story);
    if (view->json) {
        story_json(&s->story, say_object, NULL);
        return;
    }
    buf_init(&out, OUTPUT_MAX);
    story_text(&s->story, wall_ms(), view->colour, &out);
    say_text(&out);
    buf_done(&out);
}

static enum ctl_exit explain(const struct explain_args *a, const struct config *cfg,
                             uint64_t since_ms)
{
    struct search s = {.story.session_id = a->common.operands.items[0], .cfg = cfg};
    struct admins admins;
    struct view view = ctl_view(&a->common);
    char why[WHY_SIZE] = "";
    struct scan scan = {.topics = {[JOBS] = {cfg->topics.jobs, true},
                                   [RESULTS] = {cfg->topics.results, true},
                                   [PROGRESS] = {cfg->topics.progress, false},
                                   [LETTERS] = {cfg->topics.dead_letters, false}},
                        .since_ms = since_ms,
                        .take = take,
                        .arg = &s};
    ctl_admins(&a->common, &a->admins, cfg, &admins);
    struct worker_answer *answers = admins_ask(&admins);
    enum ctl_exit code = scan_run(&scan, cfg, why);
    for (size_t i = 0; i < admins.addresses.n; i++)
        story_page(&s.story, answers[i].page);
    if (code)
        complain("%s", why);
    else if (s.story.n == 0)
        complain("nothing is known of session %s", s.story.session_id);
    else
        tell(&s, &view);
    bool found = s.story.n > 0;
    story_done(&s.story);
    answers_free(answers, admins.addresses.n);
    admins_done(&admins);
    return code ? code : found ? CTL_OK : CTL_FAILED;
}

static enum ctl_exit run(void *args)
{
    const struct explain_args *a = args;
    struct config cfg;
    uint64_t since_ms;
    if (a->common.operands.n == 0)
        return complain("which session? sessionctl explain SESSION"), CTL_USAGE;
    if (!ctl_since(a->since, &since_ms) || !ctl_client_config(&a->common, &cfg))
        return CTL_USAGE;
    enum ctl_exit code = explain(a, &cfg, since_ms);
    config_done(&cfg);
    return code;
}

const struct verb verb_explain = {
    .name = "explain",
    .synopsis = "SESSION [OPTION]...",
    .summary = "tell a session's whole story: its jobs, what became of each, and why",
    .notes = "Reads the topics of jobs, results, progress and dead letters to their ends; --since\n"
             "shortens that. With -c FILE also the worker at that file's admin.listen is asked.\n"
             "-o json: lines of type job, event (the event as it is, keys and tokens included),\n"
             "dead-letter, in-flight, and at last {\"type\":\"summary\", session_id, state, code,\n"
             "to_do, jobs}. Exit code 1: nothing is known of it.\n",
    .tables = {{options, ARRAY_LEN(options)}},
    .args_size = sizeof(struct explain_args),
    .max_operands = 1,
    .run = run,
};
