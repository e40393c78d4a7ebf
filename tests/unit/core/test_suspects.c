/* After three deaths records are taken one by one, and each is named before it is read. */
#include "tests/unit/core/fixture_trial.h"

/* ---- one by one ---- */

static void test_one_by_one(void **world)
{
    struct world *w = *world;
    take_over(w, 0, 5, 3);
    assert_false(w->open[0]);
    assert_true(view_of(w, 0).one_by_one);
    for (int64_t at = 5; at < 8; at++) {
        told(w, 0, 4, at);
        assert_true(w->open[0]);
        job_at(w, 0, at, "start", "S1", "");
        assert_false(w->open[0]);
        advance(w, 25);
        fail_now(w, "S1");
        expect_batch(w, 1);
        expect_offset(w, 0, at + 1);
        expect_word(w, 0, 4, NOBODY); /* progress, and no proof */
        assert_false(w->open[0]);
        committed(w);
        assert_false(w->open[0]);
    }
}

static void test_two_strikes_are_no_suspicion(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 2, 5);
    told(w, 0, 3, NOBODY);
    assert_true(w->open[0]);
    start(w, "S1", "");
    assert_true(w->parsed);
    assert_true(w->open[0]);
}

static void test_a_suspect_that_is_refused_is_told_again(void **world)
{
    struct world *w = *world;
    take_over(w, 0, 5, 3);
    advance(w, 25);
    expect_word(w, 0, 4, 5);
    refused(w);
    assert_false(w->open[0]);
    told(w, 0, 4, 5);
    assert_true(w->open[0]);
}

static void test_a_result_that_is_refused_keeps_the_suspect(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 3, NOBODY);
    told_trial(w, 0, 4, 5);
    record_at(w, 0, 5, "S1", "no job"); /* a refusal is a result as well */
    expect_batch(w, 1 + 1);
    expect_word(w, 0, 4, NOBODY);
    refused(w);
    assert_false(w->open[0]);
    expect_batch(w, 2);
    committed(w);
    told(w, 0, 4, 6);
}

/* The offset that would be read next is skipped to, past what is done, and may itself be a hole:
 * then the record above it is the one. */
static void test_the_suspect_may_be_a_hole(void **world)
{
    struct world *w = *world;
    offsets_init(&state, 5);
    offsets_done(&state, 6);
    offsets_done(&state, 7);
    state.strikes = 3;
    assign_state(w, 0);
    told_trial(w, 0, 4, 5);
    job_at(w, 0, 5, "start", "S1", "");
    fail_committed(w, "S1");
    told(w, 0, 4, 8);
    job_at(w, 0, 6, "start", "S2", ""); /* read again on the way */
    assert_false(w->parsed);
    assert_true(w->open[0]);
    job_at(w, 0, 10, "start", "S3", "");
    assert_false(w->open[0]);
    advance(w, 1000);
    expect_offset(w, 0, 10); /* the hint: 8 and 9 will never come */
    expect_word(w, 0, 4, 10);
    committed(w);
    fail_now(w, "S3");
    expect_batch(w, 1);
    expect_word(w, 0, 4, NOBODY);
    committed(w);
    told(w, 0, 4, 11);
}

static void test_one_suspect_at_a_time(void **world)
{
    struct world *w = *world;
    assign_only(w, 0, 0, NULL); /* has nothing to do with it */
    for (int32_t p = 1; p < 4; p++)
        assign_as(w, p, 10, 3, NOBODY);
    told(w, 1, 4, NOBODY);
    for (int32_t turn = 0; turn < 6; turn++) {
        int32_t p = 1 + turn % 3;
        int64_t at = 10 + turn / 3;
        told(w, p, 4, at);
        for (int32_t other = 1; other < 4; other++)
            assert_true(w->open[other] == (other == p));
        record_at(w, p, at, "S1", "no job");
        assert_false(w->open[p]);
        expect_batch(w, 2);
        assert_false(w->open[p]);
        committed(w);
        assert_true(w->open[0]);
    }
}

/* Partition 1 has been assigned at 10: to the job there, which is tried. */
static void to_trial_of_s1(struct world *w)
{
    told_trial(w, 1, 4, 10);
    job_at(w, 1, 10, "start", "S1", "");
    advance(w, 25);
}

static void test_a_partition_that_goes_frees_its_turn(void **world)
{
    struct world *w = *world;
    assign_as(w, 1, 10, 3, NOBODY);
    assign_as(w, 2, 10, 4, NOBODY);
    to_trial_of_s1(w);
    revoke(w, 1);
    expect_word(w, 1, 3, NOBODY); /* we are alive, and so it was not that one */
    expect_word(w, 2, 5, 10);
    committed(w);
    assert_true(w->open[2]);
    lose(w, 2);
    assign_as(w, 3, 10, 3, NOBODY);
    told_trial(w, 3, 4, 10);
}

/* ---- what the dead have read ---- */

/* The dead have read from 5 up to the limit. */
static void tried_up_to(struct world *w, int64_t limit)
{
    offsets_init(&state, 5);
    state.strikes = 3;
    state.limit = limit;
    assign_state(w, 0);
    told_limit(w, limit);
}

static void test_the_third_says_how_far_it_reads(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 2, NOBODY);
    told_limit(w, 5 + 64);
    for (int64_t at = 5; at < 5 + 32; at++)
        job_at(w, 0, at, "start", "S1", "");
    advance(w, 25);
    expect_word(w, 0, 3, NOBODY);
    expect_limit(w, 0, 5 + 32 + 64);
    for (int64_t at = 5 + 32; at < 5 + 64; at++) {
        assert_true(w->open[0]);
        job_at(w, 0, at, "start", "S1", "");
    }
    assert_false(w->open[0]);
    refused(w);
    assert_false(w->open[0]);
    told_limit(w, 5 + 64 + 64); /* as far as it has come meanwhile */
    assert_true(w->open[0]);
}

static void test_what_was_read_before_is_read_again_at_once(void **world)
{
    struct world *w = *world;
    offsets_init(&state, 5);
    state.strikes = 2;
    state.highest_started = 200;
    assign_state(w, 0);
    told_limit(w, 200 + 1 + 64);
    state.highest_started = 3;
    offsets_done(&state, 100);
    assign_state(w, 0);
    told_limit(w, 100 + 1 + 64);
}

static void test_with_progress_nobody_asks_any_more(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 2, NOBODY);
    told_limit(w, 5 + 64);
    start(w, "S1", "");
    advance(w, 25);
    fail_now(w, "S1");
    expect_word(w, 0, 1, NOBODY);
    expect_limit(w, 0, -1);
    committed(w);
    for (int i = 0; i < 100; i++) {
        assert_true(w->open[0]);
        start(w, "S2", "");
    }
    told_nothing(w);
}

static void test_the_first_two_say_nothing_of_it(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 1, NOBODY);
    told_limit(w, -1);
    for (int i = 0; i < 100; i++)
        start(w, "S1", "");
    assert_true(w->open[0]);
}

static void test_it_ends_when_all_have_survived(void **world)
{
    struct world *w = *world;
    offsets_init(&state, 5);
    offsets_done(&state, 7);
    state.strikes = 3;
    state.limit = 8;
    assign_state(w, 0);
    told_limit(w, 8);
    told(w, 0, 4, 5);
    record_at(w, 0, 5, "S1", "no job");
    expect_batch(w, 2);
    expect_limit(w, 0, 8);
    committed(w);
    assert_true(view_of(w, 0).one_by_one);
    told(w, 0, 4, 6);
    record_at(w, 0, 6, "S1", "no job");
    expect_batch(w, 2);
    expect_word(w, 0, 4, NOBODY);
    committed(w);
    assert_false(view_of(w, 0).one_by_one);
    assert_true(w->open[0]);
    job_at(w, 0, 8, "start", "S1", "");
    assert_true(w->open[0]);
    told_limit(w, -1);
    assert_int_equal(view_of(w, 0).strikes, 1);
}

static void test_there_may_be_nothing_to_try(void **world)
{
    struct world *w = *world;
    tried_up_to(w, 5);
    assert_true(w->open[0]);
    told(w, 0, 1, NOBODY);
}

static void test_without_a_limit_it_is_what_can_be_in_flight(void **world)
{
    struct world *w = *world;
    w->config.jobs.max_in_flight = 3;
    assign_as(w, 0, 5, 3, NOBODY);
    told_limit(w, 8);
}

static void test_a_goodbye_leaves_the_limit(void **world)
{
    struct world *w = *world;
    tried_up_to(w, 8);
    told(w, 0, 4, 5);
    revoke(w, 0);
    expect_word(w, 0, 3, NOBODY);
    expect_limit(w, 0, 8);
}

static void test_nothing_comes_and_the_next_has_its_turn(void **world)
{
    struct world *w = *world;
    assign_as(w, 1, 10, 3, NOBODY);
    assign_as(w, 2, 10, 3, NOBODY);
    told_trial(w, 1, 4, 10);
    advance(w, 4999);
    assert_null(w->batch);
    assert_false(w->open[2]);
    advance(w, 1);
    expect_word(w, 1, 1, NOBODY);
    expect_word(w, 2, 4, 10);
    committed(w);
    assert_true(w->open[1]);
    assert_true(w->open[2]);
    job_at(w, 2, 10, "start", "S1", "");
    advance(w, 1000);
    expect_word(w, 2, 4, 10); /* the hint that its CREATE was sent */
    committed(w);
    advance(w, 20000); /* one that lasts is not "nothing comes" */
    assert_null(w->batch);
    assert_int_equal(view_of(w, 2).strikes, 4);
    assert_false(w->open[2]);
}

static void test_a_drain_in_the_middle_of_it(void **world)
{
    struct world *w = *world;
    assign_as(w, 1, 10, 3, NOBODY);
    to_trial_of_s1(w);
    drain(w);
    fail_committed(w, "S1");
    assert_false(w->drained);
    expect_word(w, 1, 3, NOBODY);
    committed(w);
    assert_true(w->drained);
}

static void test_a_drain_tries_nobody(void **world)
{
    struct world *w = *world;
    assign_as(w, 1, 10, 3, NOBODY);
    assign_as(w, 2, 10, 3, NOBODY);
    to_trial_of_s1(w);
    drain(w);
    fail_now(w, "S1");
    committed(w);
    expect_word(w, 1, 3, NOBODY);
    expect_word(w, 2, 3, NOBODY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TRIAL_TEST(test_one_by_one),
        TRIAL_TEST(test_two_strikes_are_no_suspicion),
        TRIAL_TEST(test_a_suspect_that_is_refused_is_told_again),
        TRIAL_TEST(test_a_result_that_is_refused_keeps_the_suspect),
        TRIAL_TEST(test_the_suspect_may_be_a_hole),
        TRIAL_TEST(test_one_suspect_at_a_time),
        TRIAL_TEST(test_a_partition_that_goes_frees_its_turn),
        TRIAL_TEST(test_the_third_says_how_far_it_reads),
        TRIAL_TEST(test_what_was_read_before_is_read_again_at_once),
        TRIAL_TEST(test_with_progress_nobody_asks_any_more),
        TRIAL_TEST(test_the_first_two_say_nothing_of_it),
        TRIAL_TEST(test_it_ends_when_all_have_survived),
        TRIAL_TEST(test_there_may_be_nothing_to_try),
        TRIAL_TEST(test_without_a_limit_it_is_what_can_be_in_flight),
        TRIAL_TEST(test_a_goodbye_leaves_the_limit),
        TRIAL_TEST(test_nothing_comes_and_the_next_has_its_turn),
        TRIAL_TEST(test_a_drain_in_the_middle_of_it),
        TRIAL_TEST(test_a_drain_tries_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
