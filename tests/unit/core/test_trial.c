/* Strikes: told before anything is read, and taken back by who goes in peace. */
#include "tests/unit/core/fixture_trial.h"

/* ---- strikes ---- */

static void test_the_strike_comes_first(void **world)
{
    struct world *w = *world;
    assign_only(w, 0, 0, NULL);
    assert_null(w->batch);
    advance(w, 1);
    expect_batch(w, 0);
    expect_offset(w, 0, 0);
    expect_word(w, 0, 1, NOBODY);
    assert_false(w->open[0]);
    committed(w);
    assert_true(w->open[0]);
    assert_int_equal(view_of(w, 0).strikes, 1);
    told_nothing(w);
}

static void test_what_is_assigned_together_is_told_together(void **world)
{
    struct world *w = *world;
    for (int32_t p = 0; p < PARTITIONS; p++)
        assign_as(w, p, 10 + p, (uint8_t)p, NOBODY);
    advance(w, 1);
    expect_batch(w, 0);
    for (int32_t p = 0; p < PARTITIONS; p++)
        expect_word(w, p, (unsigned)p + 1, NOBODY);
    committed(w);
    for (int32_t p = 0; p < 3; p++)
        assert_true(w->open[p]);
}

static void test_a_strike_that_is_refused_is_told_again(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 0, 1, NOBODY);
    advance(w, 1);
    for (int i = 0; i < 5; i++) {
        expect_word(w, 0, 2, NOBODY);
        refused(w);
        assert_false(w->open[0]);
        advance(w, 99);
        assert_null(w->batch);
        advance(w, 1);
    }
    told(w, 0, 2, NOBODY);
    assert_true(w->open[0]);
}

static void test_strikes_have_a_most(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 0, UINT8_MAX, NOBODY);
    told(w, 0, UINT8_MAX, NOBODY);
}

static void test_progress_begins_a_new_row(void **world)
{
    struct world *w = *world;
    take_over(w, 0, 0, 2);
    advance(w, 25);
    start(w, "S1", "");
    start(w, "S2", "");
    fail_now(w, "S2");
    expect_batch(w, 1);
    expect_offset(w, 0, 0);
    expect_word(w, 0, 3, NOBODY); /* the first one holds the watermark up */
    committed(w);
    fail_now(w, "S1");
    expect_batch(w, 1);
    expect_offset(w, 0, 2);
    expect_word(w, 0, 1, NOBODY);
    refused(w);
    assert_int_equal(view_of(w, 0).strikes, 3);
    expect_batch(w, 1);
    expect_word(w, 0, 1, NOBODY);
    committed(w);
    assert_int_equal(view_of(w, 0).strikes, 1);
    told_nothing(w);
}

/* The watermark, which was 5, goes up to it; the strikes stay. */
static void read_above_the_gap(struct world *w)
{
    job_at(w, 0, 7, "start", "S1", "");
    advance(w, 1000);
    expect_batch(w, 0); /* the hint that its CREATE was sent */
    expect_offset(w, 0, 7);
    expect_word(w, 0, 2, NOBODY);
}

/* A marker of a transaction lies between any two records: that the next one has a higher offset
 * moves the watermark, and proves nothing. */
static void test_a_gap_is_no_progress(void **world)
{
    struct world *w = *world;
    take_over(w, 0, 5, 1);
    read_above_the_gap(w);
    committed(w);
    job_at(w, 0, 9, "start", "S2", "");
    fail_now(w, "S1");
    expect_batch(w, 1);
    expect_offset(w, 0, 9);
    expect_word(w, 0, 1, NOBODY);
}

static void test_a_gap_after_progress_is_still_progress(void **world)
{
    struct world *w = *world;
    take_over(w, 0, 5, 1);
    advance(w, 25);
    job_at(w, 0, 5, "start", "S1", "");
    fail_now(w, "S1");
    committed(w);
    job_at(w, 0, 9, "start", "S2", "");
    advance(w, 1000);
    expect_batch(w, 0);
    expect_word(w, 0, 1, NOBODY);
}

/* What an earlier owner did above a gap is no progress of ours. */
static void test_a_gap_below_what_was_done_is_no_progress(void **world)
{
    struct world *w = *world;
    offsets_init(&state, 5);
    offsets_done(&state, 6);
    state.strikes = 1;
    assign_state(w, 0);
    told(w, 0, 2, NOBODY);
    read_above_the_gap(w);
}

/* ---- goodbye ---- */

static void test_a_goodbye_takes_the_strike_back(void **world)
{
    struct world *w = *world;
    take_over(w, 0, 5, 2);
    revoke(w, 0);
    assert_int_equal(w->releases, 0);
    expect_batch(w, 0);
    expect_word(w, 0, 2, NOBODY);
    committed(w);
    assert_int_equal(w->releases, 1);
}

static void test_a_goodbye_after_progress_leaves_none(void **world)
{
    struct world *w = *world;
    take_over(w, 0, 5, 2);
    advance(w, 25);
    job_at(w, 0, 5, "start", "S1", "");
    job_at(w, 0, 6, "start", "S2", "");
    fail_now(w, "S1");
    committed(w);
    fail_now(w, "S2");
    revoke(w, 0);
    expect_batch(w, 1); /* goes along with the last results */
    expect_word(w, 0, 0, NOBODY);
    committed(w);
    assert_int_equal(w->releases, 1);
}

static void test_a_goodbye_is_said_once(void **world)
{
    struct world *w = *world;
    take_first(w, 0, 5);
    revoke(w, 0);
    expect_word(w, 0, 0, NOBODY);
    refused(w);
    assert_int_equal(w->releases, 1);
    told_nothing(w);
}

static void test_who_was_not_announced_says_no_goodbye(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 2, NOBODY);
    revoke(w, 0);
    assert_int_equal(w->releases, 1);
    told_nothing(w);
}

static void test_a_revoke_that_meets_the_announcement(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 2, NOBODY);
    advance(w, 1);
    revoke(w, 0);
    assert_int_equal(w->releases, 0);
    expect_word(w, 0, 3, NOBODY);
    committed(w);
    expect_word(w, 0, 2, NOBODY);
    committed(w);
    assert_int_equal(w->releases, 1);
}

static void test_lost_says_nothing(void **world)
{
    struct world *w = *world;
    take_first(w, 0, 5);
    lose(w, 0);
    told_nothing(w);
}

static void test_a_drain_has_nothing_to_say(void **world)
{
    struct world *w = *world;
    assign_only(w, 0, 5, NULL);
    drain(w);
    assert_true(w->drained);
    assert_null(w->batch);
}

static void test_a_drain_says_goodbye(void **world)
{
    struct world *w = *world;
    assign_as(w, 0, 5, 1, NOBODY);
    assign_only(w, 1, 0, NULL);
    told(w, 0, 2, NOBODY);
    job_at(w, 1, 0, "start", "S1", "");
    drain(w);
    advance(w, 24999);
    expect_word(w, 1, 1, NOBODY); /* the hint that its CREATE was sent */
    committed(w);
    advance(w, 1);
    expect_word(w, 0, 1, NOBODY);
    expect_word(w, 1, 0, NOBODY);
    assert_false(w->drained);
    committed(w);
    assert_true(w->drained);
    expect_quiet(w);
}

static void test_a_drain_says_goodbye_once(void **world)
{
    struct world *w = *world;
    take_first(w, 0, 5);
    drain(w);
    expect_word(w, 0, 0, NOBODY);
    assert_int_equal(core_next(w->core), w->now_ns + NS_PER_S);
    refused(w);
    assert_true(w->drained);
}

static void test_a_drain_has_no_time_for_a_long_goodbye(void **world)
{
    struct world *w = *world;
    take_first(w, 0, 5);
    drain(w);
    expect_batch(w, 0);
    advance(w, 999);
    assert_false(w->drained);
    advance(w, 1);
    assert_true(w->drained);
}

static void test_a_drain_after_the_goodbye(void **world)
{
    struct world *w = *world;
    assign_only(w, 0, 5, NULL);
    assign_only(w, 1, 0, NULL);
    told(w, 0, 1, NOBODY);
    revoke(w, 0);
    committed(w);
    drain(w);
    expect_batch(w, 0);
    assert_null(batch_metadata(w, 0));
    committed(w);
    assert_true(w->drained);
}

/* ---- nothing is there ---- */

static void test_an_open_partition_with_nothing_in_it_is_above_suspicion(void **world)
{
    struct world *w = *world;
    take_over(w, 0, 5, 2);
    advance(w, 4999);
    assert_null(w->batch);
    told(w, 0, 1, NOBODY);
    advance(w, 20000);
    assert_null(w->batch);
    assert_true(w->open[0]);
}

static void test_one_with_a_job_under_way_is_not(void **world)
{
    struct world *w = *world;
    take_over(w, 0, 5, 2);
    start(w, "S1", "");
    advance(w, 1000);
    expect_word(w, 0, 3, NOBODY); /* the hint that its CREATE was sent */
    committed(w);
    advance(w, 20000);
    assert_null(w->batch);
    assert_int_equal(view_of(w, 0).strikes, 3);
}

static void test_one_without_strikes_has_nothing_to_tell(void **world)
{
    struct world *w = *world;
    take_first(w, 0, 5);
    advance(w, 20000);
    assert_null(w->batch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TRIAL_TEST(test_the_strike_comes_first),
        TRIAL_TEST(test_what_is_assigned_together_is_told_together),
        TRIAL_TEST(test_a_strike_that_is_refused_is_told_again),
        TRIAL_TEST(test_strikes_have_a_most),
        TRIAL_TEST(test_progress_begins_a_new_row),
        TRIAL_TEST(test_a_gap_is_no_progress),
        TRIAL_TEST(test_a_gap_after_progress_is_still_progress),
        TRIAL_TEST(test_a_gap_below_what_was_done_is_no_progress),
        TRIAL_TEST(test_a_goodbye_takes_the_strike_back),
        TRIAL_TEST(test_a_goodbye_after_progress_leaves_none),
        TRIAL_TEST(test_a_goodbye_is_said_once),
        TRIAL_TEST(test_who_was_not_announced_says_no_goodbye),
        TRIAL_TEST(test_a_revoke_that_meets_the_announcement),
        TRIAL_TEST(test_lost_says_nothing),
        TRIAL_TEST(test_a_drain_has_nothing_to_say),
        TRIAL_TEST(test_a_drain_says_goodbye),
        TRIAL_TEST(test_a_drain_says_goodbye_once),
        TRIAL_TEST(test_a_drain_has_no_time_for_a_long_goodbye),
        TRIAL_TEST(test_a_drain_after_the_goodbye),
        TRIAL_TEST(test_an_open_partition_with_nothing_in_it_is_above_suspicion),
        TRIAL_TEST(test_one_with_a_job_under_way_is_not),
        TRIAL_TEST(test_one_without_strikes_has_nothing_to_tell),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
