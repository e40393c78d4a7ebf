/* sessionctl dlq: looking at dead letters, and sending them again.
 *
 * list, show and replay choose by the same filters and in the same order, so that what one lists is
 * what the other would send. The topic is only read: a dead letter stays until its retention ends.
 */
#include "worker/ctl/dlq.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "worker/ctl/place.h"
#include "worker/ctl/record.h"
#include "worker/ctl/text.h"

#define OPERANDS_MAX 1000
#define OUTPUT_MAX (64u * 1024 * 1024)

#define AT(member) offsetof(struct dlq_args, member)
/* clang-format off */
static const struct option options[] = {
    {"code", 0, OPT_CHOICE, AT(code), "invalid_job|unsupported|poison", "only these", NULL, 0, 0},
    {"session", 0, OPT_TEXT, AT(session), "ID", "only this session's", NULL, 0, 0},
    {"since", 0, OPT_TEXT, AT(since), "AGO|TIME",
     "only those since: 10m, 2h, 3d or 2026-11-24T08:00:00Z", NULL, 0, 0},
    {"partition", 0, OPT_INDEX, AT(partition), "N", "only of this partition", NULL, 0, INT32_MAX},
    {"offset", 0, OPT_INDEX, AT(offset), "N", "only from this offset on", NULL, 0, INT64_MAX - 1},
    {"limit", 0, OPT_INT, AT(limit), "N", "at most so many", NULL, 1, 10000000},
    {"all", 0, OPT_FLAG, AT(all), NULL, "replay: every letter there is", NULL, 0, 0},
    {"dry-run", 0, OPT_FLAG, AT(dry_run), NULL,
     "replay: only say what would be sent", NULL, 0, 0},
};
/* clang-format on */

/* ---- which ---- */

bool choice_read(struct choice *c, const struct dlq_args *a)
{
    const struct texts *words = &a->common.operands; /* the first is the verb's own */
    *c = (struct choice){.args = a, .places = xcalloc(words->n, sizeof *c->places)};
    if (!ctl_since(a->since, &c->since_ms))
        return false;
    for (size_t i = 1; i < words->n; i++) {
        struct chosen_place *p = &c->places[c->n_places++];
        if (!place_read_short(words->items[i], &p->partition, &p->offset)) {
            complain("%s is no PARTITION/OFFSET, such as 0/41", words->items[i]);
            return false;
        }
    }
    return true;
}

void choice_done(struct choice *c)
{
    free(c->places);
}

static bool is_at(const struct choice *c, const struct record *r)
{
    for (size_t i = 0; i < c->n_places; i++)
        if (c->places[i].partition == r->partition &&
            (c->places[i].offset < 0 || c->places[i].offset == r->offset))
            return true;
    return c->n_places == 0;
}

bool choice_takes(const struct choice *c, const struct letter *l)
{
    const struct dlq_args *a = c->args;
    const struct record *r = l->record;
    return is_at(c, r) && (!a->partition || r->partition == a->partition - 1) &&
           r->offset >= a->offset - 1 && (!a->code || (l->code && strcmp(a->code, l->code) == 0)) &&
           (!a->session || (l->session_id && strcmp(a->session, l->session_id) == 0));
}

struct walk {
    const struct choice *choice;
    void (*each)(void *arg, const struct letter *);
    void *arg;
    size_t n;
};

static bool take(void *arg, size_t topic, rd_kafka_message_t *m)
{
    (void)topic;
    struct walk *w = arg;
    struct record *r = record_new(m);
    struct letter l;
    letter_read(&l, r);
    if (choice_takes(w->choice, &l)) {
        w->each(w->arg, &l);
        w->n++;
    }
    letter_done(&l);
    record_free(r);
    return !w->choice->args->limit || w->n < (size_t)w->choice->args->limit;
}

enum ctl_exit dlq_each(const struct choice *c, const struct config *cfg,
                       void (*each)(void *, const struct letter *), void *arg, size_t *n)
{
    char why[WHY_SIZE] = "";
    struct walk walk = {.choice = c, .each = each, .arg = arg};
    struct scan scan = {.topics = {{cfg->topics.dead_letters, true}},
                        .since_ms = c->since_ms,
                        .take = take,
                        .arg = &walk};
    enum ctl_exit code = scan_run(&scan, cfg, why);
    *n = walk.n;
    if (code)
        complain("%s", why);
    else if (walk.n == 0)
        complain("no such dead letter in %s", cfg->topics.dead_letters);
    return !code && walk.n == 0 && c->n_places ? CTL_FAILED : code;
}

/* ---- list and show ---- */

struct listing {
    struct view view;
    struct table table;
    uint64_t now_ms;
    bool whole;
};

static void say_letter(const struct letter *l, bool whole)
{
    struct buf json;
    buf_init(&json, OUTPUT_MAX);
    letter_json(l, whole, &json);
    say_json(&json);
    buf_done(&json);
}

static void list_letter(void *arg, const struct letter *l)
{
    struct listing *s = arg;
    if (s->view.json)
        say_letter(l, s->whole);
    else
        letter_row(l, s->now_ms, &s->table);
}

static enum ctl_exit list(const struct choice *c, const struct config *cfg)
{
    struct listing s = {.view = ctl_view(&c->args->common), .now_ms = wall_ms()};
    size_t n;
    table_init(&s.table, letter_heads, LETTER_COLUMNS);
    enum ctl_exit code = dlq_each(c, cfg, list_letter, &s, &n);
    say_table(&s.table, s.view.colour);
    table_done(&s.table);
    return code;
}

static void show_letter(void *arg, const struct letter *l)
{
    struct listing *s = arg;
    struct buf out;
    if (s->view.json) {
        say_letter(l, true);
        return;
    }
    buf_init(&out, OUTPUT_MAX);
    letter_text(l, s->now_ms, &out);
    say(&out); /* and an empty line between two */
    buf_done(&out);
}

static enum ctl_exit show(const struct choice *c, const struct config *cfg)
{
    struct listing s = {.view = ctl_view(&c->args->common), .now_ms = wall_ms()};
    size_t n;
    return dlq_each(c, cfg, show_letter, &s, &n);
}

/* ---- the verb ---- */

static const struct {
    const char *word;
    enum ctl_exit (*run)(const struct choice *, const struct config *);
} words[] = {{"list", list}, {"show", show}, {"replay", dlq_replay}};

static enum ctl_exit run_word(const struct dlq_args *a, const struct config *cfg, size_t i)
{
    struct choice choice = {0};
    enum ctl_exit code = CTL_USAGE;
    if (!*cfg->topics.dead_letters)
        complain("topics.dead_letters is empty: the workers keep no dead letters");
    else if (choice_read(&choice, a))
        code = words[i].run(&choice, cfg);
    choice_done(&choice);
    return code;
}

static enum ctl_exit run(void *args)
{
    const struct dlq_args *a = args;
    const char *word = a->common.operands.n ? a->common.operands.items[0] : "";
    struct config cfg;
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (strcmp(word, words[i].word) != 0)
            continue;
        if (!ctl_client_config(&a->common, &cfg))
            return CTL_USAGE;
        enum ctl_exit code = run_word(a, &cfg, i);
        config_done(&cfg);
        return code;
    }
    complain("dlq list, dlq show or dlq replay? (sessionctl dlq --help)");
    return CTL_USAGE;
}

const struct verb verb_dlq = {
    .name = "dlq",
    .synopsis = "list|show|replay [PARTITION[/OFFSET]]... [OPTION]...",
    .summary = "dead letters: list them, look into them, send them again",
    .notes =
        "list has a line for each, show all of it. replay sends key, value and headers to the\n"
        "jobs topic again, without what the dead letter added, and waits until the broker has\n"
        "them; it needs a PARTITION/OFFSET, a filter, or --all. Letters stay in their topic.\n"
        "-o json: {\"type\":\"dead-letter\", partition, offset, time, session_id, code, message,\n"
        "origin, first, cut, bytes}; show adds key, headers[{name, value}], value in base64;\n"
        "replay: {\"type\":\"replayed|would-replay|not-replayed\", partition, offset, session_id,\n"
        "job, why}.\n",
    .tables = {{options, ARRAY_LEN(options)}},
    .args_size = sizeof(struct dlq_args),
    .max_operands = OPERANDS_MAX,
    .run = run,
};
