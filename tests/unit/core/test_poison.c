/* The record that killed: not parsed any more, and what becomes of it. */
#include "tests/unit/core/fixture_trial.h"

#include <stdio.h>

#include "common/xalloc.h"

/* ---- guilty ---- */

/* Four have died of the partition that begins at 5, the last one with this suspect. */
static void guilty(struct world *w, int32_t partition, int64_t suspect)
{
    assign_as(w, partition, 5, 4, suspect);
    told(w, partition, 5, suspect);
}

/* It looks for the session's sandbox, and there is none. */
static void expect_poison(struct world *w, const char *session)
{
    char *look = xasprintf("find fleet.%s", session);
    expect_call(w, look);
    free(look);
    missing(w);
    expect_batch(w, 2);
    assert_int_equal(w->batch->messages[0].to, TO_DEAD_LETTERS);
    expect_failed(w, session, "poison", "queue", NULL);
}

static void test_the_guilty_one_is_not_parsed(void **world)
{
    struct world *w = *world;
    guilty(w, 0, 5);
    assert_true(w->open[0]);
    record_at(w, 0, 5, "S1", "whatever it is");
    assert_false(w->parsed);
    assert_false(w->open[0]); /* before the verdict is committed nothing else is taken */
    expect_poison(w, "S1");
    const struct message *letter = &w->batch->messages[0];
    assert_string_equal(letter->value, "whatever it is");
    assert_string_equal(letter->key, "S1");
    expect_offset(w, 0, 6);
    expect_word(w, 0, 1, NOBODY);
    committed(w);
    assert_true(w->open[0]);
    start(w, "S2", "");
    assert_true(w->parsed);
    assert_true(w->open[0]);
    told_nothing(w);
}

static void test_a_caller_that_has_parsed_it_is_not_believed(void **world)
{
    struct world *w = *world;
    guilty(w, 0, 5);
    w->parse_all = true;
    job_at(w, 0, 5, "start", "S1", "");
    expect_calls(w, 1);
    expect_poison(w, "S1");
    expect_calls(w, 0);
}

static void test_without_a_session_there_is_a_dead_letter(void **world)
{
    struct world *w = *world;
    guilty(w, 0, 5);
    record_at(w, 0, 5, NULL, "{}");
    expect_calls(w, 0);
    expect_batch(w, 1);
    assert_int_equal(w->batch->messages[0].to, TO_DEAD_LETTERS);
    expect_word(w, 0, 1, NOBODY);
    assert_int_equal(metric_value(M_JOBS_COMPLETED, MO_REFUSED), 1);
    assert_int_equal(metric_value2(M_JOB_FAILURES, STEP_QUEUE, ERR_POISON), 1);
    committed(w);
    guilty(w, 1, 5);
    record_at(w, 1, 5, "no session id", "{}");
    expect_batch(w, 1);
    assert_int_equal(w->batch->messages[0].to, TO_DEAD_LETTERS);
}

static void poisoned(struct world *w)
{
    guilty(w, 0, 5);
    record_at(w, 0, 5, "S1", "{}");
    expect_call(w, "find fleet.S1");
}

/* A life before had done all but commit. */
static void test_a_sandbox_that_was_kept_is_named(void **world)
{
    struct world *w = *world;
    poisoned(w);
    found(w, "b1 mine ours kept runs");
    expect_batch(w, 2);
    expect_failed(w, "S1", "poison", "queue", "kept");
    expect_field(w, "sandbox.id", "b1");
    committed(w);
    expect_calls(w, 0);
}

static void test_one_that_was_not_is_destroyed(void **world)
{
    struct world *w = *world;
    poisoned(w);
    found(w, "b1 mine ours provisional runs");
    expect_batch(w, 2);
    expect_failed(w, "S1", "poison", "queue", "scheduled");
    expect_calls(w, 0);
    committed(w);
    expect_call(w, "find b1");
}

static void test_anothers_is_left_alone(void **world)
{
    struct world *w = *world;
    poisoned(w);
    found(w, "b1 ours provisional runs");
    expect_failed(w, "S1", "poison", "queue", "none");
    committed(w);
    expect_calls(w, 0);
}

static void test_the_look_has_its_end(void **world)
{
    struct world *w = *world;
    poisoned(w);
    advance(w, 60000);
    expect_failed(w, "S1", "poison", "queue", NULL);
    assert_int_equal(w->batch->n_messages, 2);
}

static void test_a_look_that_is_never_committed(void **world)
{
    struct world *w = *world;
    poisoned(w);
    lose(w, 0); /* the letter is freed with its session */
    assign_as(w, 0, 5, 5, 5);
    told(w, 0, 6, 5);
    record_at(w, 0, 5, "S1", "{}");
    expect_call(w, "find fleet.S1");
    drain(w);
    advance(w, 30000);
    expect_word(w, 0, 5, 5);
}

static void test_without_a_topic_no_dead_letter(void **world)
{
    struct world *w = *world;
    w->config.topics.dead_letters[0] = '\0';
    poisoned(w);
    missing(w);
    expect_batch(w, 1);
    expect_failed(w, "S1", "poison", "queue", NULL);
    committed(w);
    guilty(w, 1, 5);
    record_at(w, 1, 5, NULL, "{}");
    expect_batch(w, 0);
    expect_offset(w, 1, 6);
}

static void test_the_guilty_one_lies_above_a_hole(void **world)
{
    struct world *w = *world;
    guilty(w, 0, 5);
    record_at(w, 0, 8, "S1", "{}");
    assert_false(w->parsed);
    expect_poison(w, "S1");
    expect_offset(w, 0, 9);
    expect_word(w, 0, 1, NOBODY);
}

static void test_what_lies_below_the_guilty_one_is_innocent(void **world)
{
    struct world *w = *world;
    guilty(w, 0, 7);
    job_at(w, 0, 6, "start", "S1", "");
    assert_true(w->parsed);
    fail_now(w, "S1");
    expect_batch(w, 1);
    expect_word(w, 0, 5, 7);
    committed(w);
    record_at(w, 0, 7, "S2", "{}");
    expect_poison(w, "S2");
}

static void test_a_suspect_that_was_finished_is_not_guilty(void **world)
{
    struct world *w = *world;
    offsets_init(&state, 5);
    offsets_done(&state, 7);
    state.strikes = 4;
    state.suspect = 7;
    assign_state(w, 0);
    told_trial(w, 0, 5, 5);
    job_at(w, 0, 5, "start", "S1", "");
    assert_true(w->parsed);
}

static void test_a_goodbye_leaves_the_verdict_to_the_next(void **world)
{
    struct world *w = *world;
    guilty(w, 0, 5);
    revoke(w, 0);
    expect_word(w, 0, 4, 5);
    committed(w);
    assert_int_equal(w->releases, 1);
}

static void test_a_verdict_that_is_refused_is_told_again(void **world)
{
    struct world *w = *world;
    guilty(w, 0, 5);
    advance(w, 25);
    record_at(w, 0, 5, "S1", "{}");
    expect_poison(w, "S1");
    refused(w);
    assert_false(w->open[0]);
    revoke(w, 0);
    expect_failed(w, "S1", "poison", "queue", NULL);
    expect_word(w, 0, 0, NOBODY);
    refused(w);
    assert_int_equal(w->releases, 1); /* the next owner finds what we found */
}

static void test_the_verdict_explains_the_strikes_of_the_others(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 4, 5);
    assign_as(w, 1, 5, 4, NOBODY);
    assign_as(w, 2, 5, 2, NOBODY);
    assign_as(w, 3, 5, 4, 6);
    told(w, 1, 5, NOBODY);
    advance(w, 300); /* no trial while a verdict is due */
    assert_null(w->batch);
    assert_false(w->open[1]);
    record_at(w, 0, 5, "S1", "{}");
    expect_poison(w, "S1");
    committed(w);
    assert_true(w->open[1]);
    advance(w, 25);
    expect_word(w, 1, 1, NOBODY);
    expect_word(w, 2, 1, NOBODY);
    committed(w);
    assert_int_equal(view_of(w, 3).strikes, 5); /* has a verdict of its own */
    record_at(w, 3, 6, "S2", "{}");
    expect_poison(w, "S2");
}

static void test_the_verdict_frees_who_is_on_trial(void **world)
{
    struct world *w = *world;
    assign_as(w, 1, 5, 4, NOBODY);
    told_trial(w, 1, 5, 5);
    job_at(w, 1, 5, "start", "S1", "");
    guilty(w, 0, 5);
    assert_false(w->open[1]);
    record_at(w, 0, 5, "S2", "{}");
    expect_poison(w, "S2");
    committed(w);
    assert_true(w->open[1]);
    told(w, 1, 1, NOBODY);
    advance(w, 25);
    fail_now(w, "S1");
    expect_batch(w, 1);
    expect_word(w, 1, 1, NOBODY);
}

static void test_the_guilty_one_is_not_there_any_more(void **world)
{
    struct world *w = *world;
    guilty(w, 0, 5);
    advance(w, 59999);
    assert_null(w->batch);
    advance(w, 1);
    expect_word(w, 0, 1, NOBODY);
    committed(w);
    start(w, "S1", "");
    assert_true(w->parsed);
}

static void test_the_log_begins_again(void **world)
{
    struct world *w = *world;
    guilty(w, 0, 5);
    advance(w, 25);
    job_at(w, 0, 0, "start", "S1", "");
    assert_true(w->parsed);
    expect_call(w, "create fleet.S1");
    told(w, 0, 1, NOBODY);
    job_at(w, 0, 5, "start", "S2", "");
    assert_true(w->parsed);
    fail_now(w, "S1");
    expect_batch(w, 1);
    expect_word(w, 0, 1, NOBODY);
}

static void test_what_is_done_is_not_parsed(void **world)
{
    struct world *w = *world;
    take_first(w, 0, 5);
    start(w, "S1", "");
    assert_true(w->parsed);
    assert_false(core_may_parse(w->core, 0, 5)); /* taken */
    assert_true(core_may_parse(w->core, 0, 6));
    assert_false(core_may_parse(w->core, 1, 6)); /* not ours */
    revoke(w, 0);
    assert_false(core_may_parse(w->core, 0, 6)); /* not for long */
}

/* ---- the whole way ---- */

#define RECORDS 150

struct way { /* of a partition with a killer in it, through many lives */
    struct world *w;
    int64_t killer;
    bool in_the_parser; /* else when it has become a job */
    int64_t watermark;
    char *metadata;
    unsigned results[RECORDS], letters, deaths;
};

static void way_commits(struct way *y)
{
    const struct batch *b = y->w->batch;
    int of;
    for (size_t i = 0; i < b->n_messages; i++) {
        const struct message *m = &b->messages[i];
        y->letters += m->to == TO_DEAD_LETTERS;
        if (m->to == TO_RESULTS && sscanf(m->key, "S%d", &of) == 1)
            y->results[of]++;
    }
    y->watermark = b->offsets[0].watermark;
    free(y->metadata);
    y->metadata = xstrdup(b->offsets[0].metadata);
    committed(y->w);
}

/* False: the process dies of it. */
static bool way_reads(struct way *y, int64_t at)
{
    struct world *w = y->w;
    bool parsed = core_may_parse(w->core, 0, at);
    if (parsed && at == y->killer && y->in_the_parser)
        return false;
    char *session = xasprintf("S%d", (int)at);
    job_at(w, 0, at, "start", session, "");
    free(session);
    return !parsed || at != y->killer;
}

static void way_answers(struct way *y)
{
    struct world *w = y->w;
    w->current = w->calls[w->n_calls - 1];
    if (w->current.step == STEP_FIND)
        missing(w);
    else
        refuse(w, ERR_SESSION_EXISTS);
}

/* Records are read as long as the partition is open; then one of the sessions ends. */
static bool way_lives(struct way *y)
{
    struct world *w = y->w;
    assign_only(w, 0, y->watermark, y->metadata);
    int64_t at = y->watermark;
    for (int turn = 0; turn < 10 * RECORDS && y->watermark < RECORDS; turn++) {
        while (w->open[0] && at < RECORDS)
            if (!way_reads(y, at++))
                return false;
        if (w->n_calls)
            way_answers(y);
        advance(w, 30);
        if (w->batch)
            way_commits(y);
    }
    return true;
}

static void walk(int64_t killer, bool in_the_parser, int max_in_flight)
{
    struct way y = {.w = world_new(), .killer = killer, .in_the_parser = in_the_parser};
    y.w->hold_hints = true;
    y.w->config.jobs.max_in_flight = max_in_flight;
    y.w->config.providers[0].creates_per_minute = 1000000;
    world_restart(y.w);
    while (!way_lives(&y)) {
        assert_true(++y.deaths <= 4);
        world_restart(y.w);
    }
    assert_int_equal(y.deaths, 4);
    assert_int_equal(y.watermark, RECORDS);
    assert_int_equal(y.letters, 1);
    for (int i = 0; i < RECORDS; i++)
        assert_int_equal(y.results[i], 1);
    free(y.metadata);
    world_free(y.w);
}

static void test_four_deaths_and_no_more(void **world)
{
    static const int64_t killers[] = {0, 1, 31, 32, 63, 64, 65, 100, RECORDS - 1};
    static const int in_flight[] = {1, 2, 40, 1000};
    (void)world;
    for (size_t k = 0; k < ARRAY_LEN(killers); k++)
        for (size_t m = 0; m < ARRAY_LEN(in_flight); m++) {
            walk(killers[k], true, in_flight[m]);
            walk(killers[k], false, in_flight[m]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TRIAL_TEST(test_the_guilty_one_is_not_parsed),
        TRIAL_TEST(test_a_caller_that_has_parsed_it_is_not_believed),
        TRIAL_TEST(test_without_a_session_there_is_a_dead_letter),
        TRIAL_TEST(test_a_sandbox_that_was_kept_is_named),
        TRIAL_TEST(test_one_that_was_not_is_destroyed),
        TRIAL_TEST(test_anothers_is_left_alone),
        TRIAL_TEST(test_the_look_has_its_end),
        TRIAL_TEST(test_a_look_that_is_never_committed),
        TRIAL_TEST(test_without_a_topic_no_dead_letter),
        TRIAL_TEST(test_the_guilty_one_lies_above_a_hole),
        TRIAL_TEST(test_what_lies_below_the_guilty_one_is_innocent),
        TRIAL_TEST(test_a_suspect_that_was_finished_is_not_guilty),
        TRIAL_TEST(test_a_goodbye_leaves_the_verdict_to_the_next),
        TRIAL_TEST(test_a_verdict_that_is_refused_is_told_again),
        TRIAL_TEST(test_the_verdict_explains_the_strikes_of_the_others),
        TRIAL_TEST(test_the_verdict_frees_who_is_on_trial),
        TRIAL_TEST(test_the_guilty_one_is_not_there_any_more),
        TRIAL_TEST(test_the_log_begins_again),
        TRIAL_TEST(test_what_is_done_is_not_parsed),
        cmocka_unit_test(test_four_deaths_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
