/* board: see the header.
 *
 * Head: what all workers together have in hand and have done, the steps that jobs are in, and for
 * each provider the creation budget. Then a table of workers, one of partitions and one of the
 * slowest jobs. On a screen that is too small the tables give way, partitions first: those in most
 * trouble are sorted to the top. A page is what some process at that address says: every number
 * has a default, every text is made safe by the tables. */
#include "worker/ctl/board.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/xalloc.h"
#include "worker/ctl/table.h"
#include "worker/ctl/text.h"

#define LINE_MAX_BYTES 1000000
#define SLOWEST_PLAIN 10 /* rows where there is no screen */
#define ROWS_MIN 3

void look_done(struct look *l)
{
    answers_free(l->answers, l->n);
    *l = (struct look){0};
}

/* ---- sums ---- */

static int64_t sum(const struct look *l, const char *group, const char *name)
{
    int64_t total = 0;
    for (size_t i = 0; i < l->n; i++)
        total += json_int(json_get(l->answers[i].page, group), name, 0);
    return total;
}

static size_t answering(const struct look *l)
{
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++)
        n += l->answers[i].page != NULL;
    return n;
}

/* Per second since the look before; negative: not known (no look, or a worker came or went). */
static double rate(const struct board *b, const char *name)
{
    bool known =
        b->before && answering(b->before) == answering(b->now) && b->now->at_ms > b->before->at_ms;
    int64_t more = known ? sum(b->now, "totals", name) - sum(b->before, "totals", name) : -1;
    return more < 0 ? -1 : (double)more * 1000 / (double)(b->now->at_ms - b->before->at_ms);
}

/* ---- the head ---- */

/* In the order in which a job goes through them. */
static const char *const steps[] = {"queued", "parked",     "find",      "create", "start",
                                    "launch", "probe",      "keep",      "stop",   "delete",
                                    "queue",  "publishing", "destroying"};

static void count_steps(const cJSON *page, int64_t counts[ARRAY_LEN(steps)])
{
    const cJSON *s;
    cJSON_ArrayForEach(s, json_get(page, "sessions"))
    {
        for (size_t i = 0; i < ARRAY_LEN(steps); i++)
            counts[i] += strcmp(json_str(s, "step", ""), steps[i]) == 0;
    }
}

static void add_steps(const struct board *b, struct buf *out)
{
    int64_t counts[ARRAY_LEN(steps)] = {0};
    bool any = false;
    for (size_t i = 0; i < b->now->n; i++)
        count_steps(b->now->answers[i].page, counts);
    add_painted(out, b->colour, DIM, "steps      ");
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        if (counts[i])
            buf_addf(out, "%s%s %lld", any ? "  " : "", steps[i], (long long)counts[i]);
        any |= counts[i] > 0;
    }
    buf_adds(out, any ? "\n" : "nothing is under way\n");
}

static void add_totals(const struct board *b, struct buf *out)
{
    static const char *const names[] = {"ready",   "failed",  "stopped",
                                        "deleted", "refused", "requests"};
    add_painted(out, b->colour, DIM, "since start");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        double r = rate(b, names[i]);
        buf_addf(out, " %s%s %lld", i ? " " : "", names[i],
                 (long long)sum(b->now, "totals", names[i]));
        if (r > 0)
            buf_addf(out, " (%.1f/s)", r);
    }
    buf_addc(out, '\n');
}

static void add_state(const struct board *b, struct buf *out)
{
    add_painted(out, b->colour, DIM, "in hand    ");
    buf_addf(out, "jobs %lld  parked %lld  to publish %lld  to destroy %lld\n",
             (long long)sum(b->now, "status", "in_flight"),
             (long long)sum(b->now, "status", "parked"),
             (long long)sum(b->now, "status", "unpublished"),
             (long long)sum(b->now, "status", "destroys"));
}

/* The creation budget of one provider, all workers together. */
struct purse {
    const char *provider; /* borrowed of a page */
    double limit, share, tokens;
    int64_t parked, blocked_ms;
    bool unauthorized;
};

static double number(const cJSON *o, const char *name)
{
    const cJSON *n = json_get(o, name);
    return cJSON_IsNumber(n) ? n->valuedouble : 0;
}

static void add_to_purse(struct purse *p, const cJSON *budget)
{
    p->limit = MAX(p->limit, number(budget, "creates_per_minute"));
    p->share += number(budget, "share");
    p->tokens += number(budget, "tokens");
    p->parked += json_int(budget, "parked", 0);
    p->blocked_ms = MAX(p->blocked_ms, json_int(budget, "blocked_ms", 0));
    p->unauthorized |= json_bool(budget, "unauthorized", false);
}

static void print_purse(const struct board *b, const struct purse *p, struct buf *out)
{
    add_painted(out, b->colour, DIM, "creations  ");
    add_safe(out, p->provider, strlen(p->provider));
    buf_addf(out, ": %.0f at once, %.0f of %.0f a minute are these workers' share, %lld waiting",
             p->tokens, p->share, p->limit, (long long)p->parked);
    char blocked[60];
    snprintf(blocked, sizeof blocked, ", blocked for %.0f s", (double)p->blocked_ms / 1000);
    if (p->blocked_ms > 0)
        add_painted(out, b->colour, RED, blocked);
    if (p->unauthorized)
        add_painted(out, b->colour, RED, ", the key is refused");
    buf_addc(out, '\n');
}

#define PURSES_MAX 8
static void add_budgets(const struct board *b, struct buf *out)
{
    struct purse purses[PURSES_MAX] = {0};
    size_t n = 0;
    for (size_t i = 0; i < b->now->n; i++) {
        const cJSON *budget;
        cJSON_ArrayForEach(budget, json_get(b->now->answers[i].page, "budgets"))
        {
            size_t k = 0;
            const char *name = json_str(budget, "provider", "?");
            while (k < n && strcmp(purses[k].provider, name) != 0)
                k++;
            if (k == PURSES_MAX)
                break;
            purses[k].provider = name;
            n = MAX(n, k + 1);
            add_to_purse(&purses[k], budget);
        }
    }
    for (size_t k = 0; k < n; k++)
        print_purse(b, &purses[k], out);
}

static void add_head(const struct board *b, struct buf *out)
{
    size_t n = answering(b->now);
    char text[100];
    snprintf(text, sizeof text, "%zu worker%s%s", n, n == 1 ? "" : "s",
             n < b->now->n ? ", and some that do not answer" : "");
    add_painted(out, b->colour, BOLD, text);
    buf_addf(out, "  %s\n", b->clock);
    add_state(b, out);
    add_steps(b, out);
    add_totals(b, out);
    add_budgets(b, out);
}

/* ---- tables ---- */

static void add_worker(struct table *t, const struct worker_answer *a)
{
    const cJSON *p = a->page, *status = json_get(p, "status"), *totals = json_get(p, "totals");
    static const char *const of_status[] = {"in_flight", "parked", "unpublished"};
    static const char *const of_totals[] = {"ready", "failed", "retries"};
    table_text(t, a->address);
    table_text(t, json_str(p, "instance", NULL));
    bool draining = json_bool(status, "draining", false);
    bool refused = json_bool(status, "unauthorized", false);
    table_add(t, "%s", !p ? "no answer" : draining ? "draining" : refused ? "key refused" : "up");
    table_paint(t, !p || refused ? RED : draining ? YELLOW : GREEN);
    table_add(t, "%d", cJSON_GetArraySize(json_get(p, "partitions")));
    for (size_t i = 0; i < ARRAY_LEN(of_status); i++)
        table_add(t, "%lld", (long long)json_int(status, of_status[i], 0));
    for (size_t i = 0; i < ARRAY_LEN(of_totals); i++)
        table_add(t, "%lld", (long long)json_int(totals, of_totals[i], 0));
    table_text(t, p ? " " : a->error);
}

static void fill_workers(const struct look *l, struct table *t)
{
    static const char *const heads[] = {
        "WORKER",      "INSTANCE", "STATE",   ">PARTITIONS", ">IN HAND", ">PARKED",
        ">TO PUBLISH", ">READY",   ">FAILED", ">RETRIES",    ""};
    table_init(t, heads, ARRAY_LEN(heads));
    for (size_t i = 0; i < l->n; i++)
        add_worker(t, &l->answers[i]);
}

/* Something of a page, and whose it is. */
struct item {
    const cJSON *object, *page;
    int64_t first, second; /* sorted by, the largest first */
};

struct items {
    struct item *all; /* owned */
    size_t n, cap;
};

static int largest_first(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->first != y->first)
        return x->first > y->first ? -1 : 1;
    return x->second > y->second ? -1 : x->second < y->second;
}

static void collect(const struct look *l, const char *list, const char *const by[2],
                    struct items *out)
{
    for (size_t i = 0; i < l->n; i++) {
        const cJSON *o;
        cJSON_ArrayForEach(o, json_get(l->answers[i].page, list))
        {
            GROW(out->all, out->n, out->cap);
            out->all[out->n++] = (struct item){o, l->answers[i].page, json_int(o, by[0], -1),
                                               by[1] ? json_int(o, by[1], -1) : 0};
        }
    }
    if (out->n)
        qsort(out->all, out->n, sizeof *out->all, largest_first);
}

static void fill_partitions(const struct look *l, struct table *t)
{
    static const char *const heads[] = {">PARTITION", "WORKER",      ">WATERMARK", ">LAG",
                                        ">TAKEN",     ">DONE ABOVE", "READING"};
    static const char *const by[] = {"lag", "taken"};
    struct items items = {0};
    table_init(t, heads, ARRAY_LEN(heads));
    collect(l, "partitions", by, &items);
    for (size_t i = 0; i < items.n; i++) {
        const cJSON *p = items.all[i].object;
        table_add(t, "%lld", (long long)json_int(p, "partition", -1));
        table_text(t, json_str(items.all[i].page, "instance", NULL));
        table_add(t, "%lld", (long long)json_int(p, "offset", -1));
        if (cJSON_IsNumber(json_get(p, "lag")))
            table_add(t, "%lld", (long long)json_int(p, "lag", 0));
        else
            table_text(t, NULL);
        table_add(t, "%lld", (long long)json_int(p, "taken", 0));
        table_add(t, "%lld", (long long)json_int(p, "done_above", 0));
        table_add(t, "%s", json_bool(p, "open", false) ? "yes" : "held back");
    }
    free(items.all);
}

static void fill_slowest(const struct look *l, struct table *t)
{
    static const char *const heads[] = {"SLOWEST",  ">AGE",      "STEP",   ">IN STEP",
                                        ">ATTEMPT", ">REQUESTS", "WORKER", "WAITING FOR"};
    static const char *const by[] = {"age_ms", NULL};
    struct items items = {0};
    table_init(t, heads, ARRAY_LEN(heads));
    collect(l, "sessions", by, &items);
    for (size_t i = 0; i < items.n; i++) {
        const cJSON *s = items.all[i].object;
        table_text(t, json_str(s, "session_id", NULL));
        table_seconds(t, (uint64_t)MAX(json_int(s, "age_ms", 0), 0));
        table_text(t, json_str(s, "step", NULL));
        table_seconds(t, (uint64_t)MAX(json_int(s, "step_ms", 0), 0));
        table_add(t, "%lld", (long long)json_int(s, "attempt", 0));
        table_add(t, "%lld", (long long)json_int(s, "requests", 0));
        table_text(t, json_str(items.all[i].page, "instance", NULL));
        table_text(t, json_str(s, "waiting_for", NULL));
    }
    free(items.all);
}

/* ---- the whole ---- */

static size_t lines_of(const struct buf *out)
{
    size_t n = 0;
    for (size_t i = 0; i < out->len; i++)
        n += out->data[i] == '\n';
    return n;
}

/* Prints the table and says what was left out; max_rows 0: all rows. */
static void add_table(const struct board *b, const struct table *t, size_t max_rows,
                      struct buf *out)
{
    if (table_rows(t) == 0)
        return;
    buf_addc(out, '\n');
    table_print(t, b->colour, max_rows, out);
    if (max_rows && table_rows(t) > max_rows)
        buf_addf(out, "... %zu more\n", table_rows(t) - max_rows);
}

/* Rows for a table on what is left of the screen when `reserve` lines are to follow it: a blank
 * line, a head and a line for what is left out have to fit, too. 0: all. */
static size_t fit(const struct board *b, const struct buf *out, size_t reserve)
{
    size_t used = lines_of(out) + reserve + 3;
    if (!b->height)
        return 0;
    return used + ROWS_MIN < b->height ? b->height - used : ROWS_MIN;
}

static void add_tables(const struct board *b, struct buf *out)
{
    struct table workers, partitions, slowest;
    fill_workers(b->now, &workers);
    fill_partitions(b->now, &partitions);
    fill_slowest(b->now, &slowest);
    size_t slow = MIN(table_rows(&slowest), (size_t)SLOWEST_PLAIN);
    size_t slow_lines = slow ? slow + 3 : 0;
    add_table(b, &workers, fit(b, out, slow_lines), out);
    add_table(b, &partitions, fit(b, out, slow_lines), out);
    add_table(b, &slowest, b->height ? fit(b, out, 0) : SLOWEST_PLAIN, out);
    table_done(&workers);
    table_done(&partitions);
    table_done(&slowest);
}

void board_text(const struct board *b, struct buf *out)
{
    add_head(b, out);
    add_tables(b, out);
}

/* ---- JSON ---- */

static void add_step_counts(const cJSON *page, struct buf *out)
{
    int64_t counts[ARRAY_LEN(steps)] = {0};
    count_steps(page, counts);
    buf_adds(out, ",\"steps\":{");
    for (size_t i = 0; i < ARRAY_LEN(steps); i++)
        buf_addf(out, "%s\"%s\":%lld", i ? "," : "", steps[i], (long long)counts[i]);
    buf_addc(out, '}');
}

/* A part of the page as the worker gave it. */
static void add_part(const cJSON *page, const char *name, struct buf *out)
{
    char *text = cJSON_PrintUnformatted(json_get(page, name));
    buf_addf(out, ",\"%s\":%s", name, text ? text : "null");
    free(text);
}

void board_json(const struct board *b, void (*each)(void *, const struct buf *), void *arg)
{
    static const char *const parts[] = {"status", "totals", "budgets", "partitions", "sessions"};
    struct buf out;
    buf_init(&out, 64 * LINE_MAX_BYTES);
    for (size_t i = 0; i < b->now->n; i++) {
        const struct worker_answer *a = &b->now->answers[i];
        buf_adds(&out, "{\"type\":\"worker\"");
        add_json_member(&out, "time", b->clock);
        add_json_member(&out, "admin", a->address);
        add_json_member(&out, "error", a->page ? NULL : a->error);
        add_json_member(&out, "instance", json_str(a->page, "instance", NULL));
        add_json_member(&out, "fleet", json_str(a->page, "fleet", NULL));
        add_json_member(&out, "jobs_topic", json_str(a->page, "jobs_topic", NULL));
        add_step_counts(a->page, &out);
        for (size_t k = 0; k < ARRAY_LEN(parts); k++)
            add_part(a->page, parts[k], &out);
        buf_addc(&out, '}');
        each(arg, &out);
        buf_clear(&out);
    }
    buf_done(&out);
}
