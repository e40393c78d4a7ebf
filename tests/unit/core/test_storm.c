/* Seeded storms: jobs of a few sessions over two partitions against a small model of the provider,
 * with lost answers, refused commits, rebalances and crashes, some of which look like a record's
 * doing. Then calm weather, and the sums must be right: one result per job, nothing left behind,
 * nothing destroyed that a result had promised.
 */
#include <inttypes.h>
#include <stdio.h>

#include "tests/unit/core/fixture.h"
#include "worker/core/backoff.h"

#define SESSIONS 6
#define OWNED 2
#define JOBS 60 /* of one partition */

struct thing { /* a session's sandbox */
    bool exists, kept, runs;
    char id[16], job[64];
};

struct storm {
    struct world *w;
    struct rng rng;
    bool calm;
    struct thing things[SESSIONS];
    int made;
    struct {
        bool ours, going;
        size_t n, position; /* records there are; the next one to be read */
        struct {
            const char *what, *members;
            int session;
        } log[JOBS];
        unsigned results[JOBS];
        int64_t watermark; /* committed */
        char *metadata;
    } parts[OWNED];
};

static bool chance(struct storm *s, unsigned percent)
{
    return rng_below(&s->rng, 100) < percent;
}

/* ---- the provider ---- */

static struct thing *thing_about(struct storm *s, const char *about)
{
    int i;
    if (sscanf(about, "fleet.S%d", &i) == 1)
        return &s->things[i];
    for (i = 0; i < SESSIONS; i++)
        if (strcmp(s->things[i].id, about) == 0)
            return &s->things[i];
    return NULL;
}

static const char *words_of(const struct storm *s, const struct thing *t)
{
    static char words[256];
    bool mine = strcmp(t->job, s->w->current.job) == 0;
    snprintf(words, sizeof words, "%s ours %s %s %s job=%s session=S%d", t->id,
             t->kept ? "kept" : "provisional",
             t->runs   ? "runs"
             : t->kept ? "rests"
                       : "transient",
             mine ? "mine" : "", t->job, (int)(t - s->things));
    return words;
}

static void on_find(struct storm *s, struct thing *t)
{
    if (t && t->exists)
        found(s->w, words_of(s, t));
    else
        missing(s->w);
}

static void on_create(struct storm *s, struct thing *t)
{
    if (!t->exists) {
        *t = (struct thing){.exists = true};
        snprintf(t->id, sizeof t->id, "b%d", ++s->made);
        snprintf(t->job, sizeof t->job, "%s", s->w->current.job);
    }
    if (!s->calm && chance(s, 15)) { /* made, and the answer got lost */
        retry(s->w, ERR_PROVIDER_UNAVAILABLE);
        return;
    }
    ANSWER(s->w, .set = EXISTS | (t->runs ? RUNS : 0) | (t->kept ? KEPT : 0),
           .box = words_of(s, t));
}

static void on_start(struct storm *s, struct thing *t)
{
    t->runs = true;
    done(s->w, RUNS);
}

static void on_launch(struct storm *s, struct thing *t)
{
    (void)t;
    if (!s->calm && chance(s, 10))
        refuse(s->w, ERR_SERVER_EXITED);
    else
        done(s->w, SERVER);
}

static void on_probe(struct storm *s, struct thing *t)
{
    ANSWER(s->w, .set = t->kept ? ANSWERS | ACCEPTS : ANSWERS);
}

static void on_keep(struct storm *s, struct thing *t)
{
    t->kept = true;
    if (!s->calm && chance(s, 20))
        retry(s->w, ERR_PROVIDER_UNAVAILABLE);
    else
        done(s->w, KEPT);
}

static void on_stop(struct storm *s, struct thing *t)
{
    t->runs = false;
    t->exists = t->kept;
    ANSWER(s->w, .set = RESTS | (t->exists || chance(s, 50) ? 0 : GONE));
}

static void on_delete(struct storm *s, struct thing *t)
{
    t->exists = false;
    done(s->w, GONE);
}

static void on_list(struct storm *s, int partition)
{
    char boxes[2048] = "";
    for (struct thing *t = s->things; t < s->things + SESSIONS; t++) {
        int made_by;
        assert_true(!t->exists || sscanf(t->job, "session-jobs/%d/", &made_by) == 1);
        if (!t->exists || made_by != partition)
            continue;
        size_t n = strlen(boxes);
        snprintf(boxes + n, sizeof boxes - n, "%s%s", n ? ";" : "", words_of(s, t));
    }
    ANSWER(s->w, .boxes = boxes);
}

static void answer_one(struct storm *s)
{
    static const struct {
        const char *phase;
        void (*judge)(struct storm *, struct thing *);
        bool needs_it;
    } phases[] = {{"find", on_find, false},  {"create", on_create, false},
                  {"start", on_start, true}, {"launch", on_launch, true},
                  {"probe", on_probe, true}, {"keep", on_keep, true},
                  {"stop", on_stop, true},   {"delete", on_delete, true}};
    struct world *w = s->w;
    char phase[16], about[64];
    int partition;
    w->current = w->calls[rng_below(&s->rng, w->n_calls)];
    if (sscanf(w->current.text, "list session-jobs/%d", &partition) == 1) {
        on_list(s, partition);
        return;
    }
    assert_int_equal(sscanf(w->current.text, "%15s %63s", phase, about), 2);
    if (!s->calm && chance(s, 8)) {
        retry(w, ERR_PROVIDER_UNAVAILABLE);
        return;
    }
    struct thing *t = thing_about(s, about);
    size_t i = 0;
    while (strcmp(phases[i].phase, phase) != 0)
        i++;
    bool ends = strcmp(phase, "stop") == 0 || strcmp(phase, "delete") == 0;
    if (phases[i].needs_it && (!t || !t->exists)) {
        if (ends)
            ANSWER(w, .set = RESTS | GONE);
        else
            lost(w, "gone -");
        return;
    }
    phases[i].judge(s, t);
}

/* ---- Kafka ---- */

static void write_record(struct storm *s)
{
    static const struct {
        const char *what, *members;
    } kinds[] = {{"start", ""},
                 {"start", ""},
                 {"start", "'on_failure':'keep'"},
                 {"start", "'on_failure':'stop','mode':'resume'"},
                 {"start", "'mode':'create'"},
                 {"start", "'mode':'attach'"},
                 {"start", "'sandbox':{'snapshot':'other'}"},
                 {"stop", ""},
                 {"delete", ""}};
    int session = (int)rng_below(&s->rng, SESSIONS), p = session % OWNED;
    size_t kind = rng_below(&s->rng, ARRAY_LEN(kinds));
    if (s->parts[p].n == JOBS)
        return;
    size_t n = s->parts[p].n++;
    s->parts[p].log[n].what = kinds[kind].what;
    s->parts[p].log[n].members = kinds[kind].members;
    s->parts[p].log[n].session = session;
}

static void read_record(struct storm *s, int p)
{
    char session[8];
    if (!s->parts[p].ours || !s->w->open[p] || s->parts[p].position == s->parts[p].n)
        return;
    size_t at = s->parts[p].position++;
    snprintf(session, sizeof session, "S%d", s->parts[p].log[at].session);
    job_at(s->w, p, (int64_t)at, s->parts[p].log[at].what, session, s->parts[p].log[at].members);
}

static void count_result(struct storm *s, const struct message *m)
{
    int p;
    int64_t offset;
    if (m->to == TO_DEAD_LETTERS) /* of what seemed to have killed us: its event goes beside it */
        return;
    assert_string_equal(m->headers[1].name, "ce_id");
    assert_int_equal(sscanf(m->headers[1].value, "session-jobs/%d/%" SCNd64, &p, &offset), 2);
    assert_int_equal(s->parts[p].results[offset]++, 0); /* one, whatever happens */
}

static void goes_through(struct storm *s)
{
    const struct batch *b = s->w->batch;
    for (size_t i = 0; i < b->n_messages; i++)
        count_result(s, &b->messages[i]);
    for (size_t i = 0; i < b->n_offsets; i++) {
        int32_t p = b->offsets[i].partition;
        assert_true(b->offsets[i].watermark >= s->parts[p].watermark);
        s->parts[p].watermark = b->offsets[i].watermark;
        free(s->parts[p].metadata);
        s->parts[p].metadata = strdup(b->offsets[i].metadata);
    }
}

static void end_batch(struct storm *s)
{
    if (!s->calm && chance(s, 25)) {
        refused(s->w);
        return;
    }
    goes_through(s);
    committed(s->w);
}

/* The process dies; what it had sent to the broker may have gone through. */
static void crash(struct storm *s)
{
    if (s->w->batch && chance(s, 50))
        goes_through(s);
    for (int p = 0; p < OWNED; p++)
        s->parts[p].ours = s->parts[p].going = false;
    world_restart(s->w);
}

static void note_releases(struct storm *s)
{
    for (size_t i = 0; i < s->w->n_released; i++)
        s->parts[s->w->released[i]].ours = s->parts[s->w->released[i]].going = false;
    s->w->n_released = 0;
}

/* An assignment's offset is read when no transaction is open any more. */
static void rebalance(struct storm *s, int p)
{
    if (s->parts[p].going)
        return;
    if (!s->parts[p].ours) {
        if (s->w->batch)
            return;
        assign_only(s->w, p, s->parts[p].watermark, s->parts[p].metadata);
        s->parts[p].ours = true;
        s->parts[p].position = (size_t)s->parts[p].watermark;
    } else if (chance(s, 50)) {
        s->parts[p].ours = false;
        lose(s->w, p);
    } else {
        s->parts[p].going = true;
        revoke(s->w, p);
    }
}

/* ---- weather ---- */

static void turn(struct storm *s)
{
    uint64_t what = rng_below(&s->rng, 100);
    int p = (int)rng_below(&s->rng, OWNED);
    if (what < 50 && s->w->n_calls)
        answer_one(s);
    else if (what < 65)
        read_record(s, p);
    else if (what < 75 && s->w->batch)
        end_batch(s);
    else if (what < 78 && !s->calm)
        write_record(s);
    else if (what < 80 && (!s->calm || !s->parts[p].ours))
        rebalance(s, p);
    else if (what < 81 && !s->calm && chance(s, 30))
        crash(s);
    else
        advance(s->w, rng_below(&s->rng, s->calm ? 5000 : 300));
    note_releases(s);
}

static void check_sums(const struct storm *s)
{
    for (int p = 0; p < OWNED; p++) {
        assert_int_equal(s->parts[p].watermark, s->parts[p].n);
        for (size_t i = 0; i < s->parts[p].n; i++)
            assert_int_equal(s->parts[p].results[i], 1);
    }
    for (int i = 0; i < SESSIONS; i++)
        assert_true(!s->things[i].exists || s->things[i].kept);
}

static void storm(uint64_t seed)
{
    struct storm s = {.w = world_new()};
    s.w->config.sweep.every_seconds = 5;
    s.w->config.n_providers = 1;
    s.w->hold_hints = true;
    world_restart(s.w);
    rng_init(&s.rng, seed);
    for (int i = 0; i < 4000; i++)
        turn(&s);
    s.calm = true;
    for (int i = 0; i < 3000; i++)
        turn(&s);
    check_sums(&s);
    for (int p = 0; p < OWNED; p++)
        free(s.parts[p].metadata);
    world_free(s.w);
}

static uint64_t from_environment(const char *name, int64_t otherwise)
{
    const char *text = getenv(name);
    int64_t value = otherwise;
    if (text && !parse_i64(text, strlen(text), 1, INT64_MAX, &value))
        fail_msg("%s must be a number", name);
    return (uint64_t)value;
}

/* STORM=seed and STORMS=how many, from the environment, replay and go on searching. */
static void test_storms(void **state)
{
    uint64_t first = from_environment("STORM", 1), n = from_environment("STORMS", 20);
    (void)state;
    for (uint64_t seed = first; seed < first + n; seed++) {
        print_message("storm %" PRIu64 "\n", seed);
        storm(seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_storms)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
