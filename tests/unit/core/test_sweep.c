/* The sweep: what is garbage of our partitions, and what is not. */
#include "tests/unit/core/fixture.h"

#define EVERY_MS UINT64_C(60000)

static struct world *sweeping(void **state)
{
    struct world *w = *state;
    w->config.sweep.every_seconds = (int)(EVERY_MS / 1000);
    w->config.n_providers = 1;
    world_restart(w);
    assign(w, 0, 5, NULL);
    return w;
}

/* Its first listing, two to four seconds after the assignment. */
static struct world *listing(void **state)
{
    struct world *w = sweeping(state);
    advance(w, 1999);
    expect_calls(w, 0);
    advance(w, 2001);
    expect_calls(w, 1);
    expect_call(w, "list session-jobs/0 -");
    return w;
}

static void next_round(struct world *w)
{
    advance(w, EVERY_MS * 6 / 5);
    expect_call(w, "list session-jobs/0 -");
}

#define GARBAGE "b1 ours provisional runs session=S1 job=session-jobs/0/3"

static void test_garbage_is_destroyed(void **state)
{
    struct world *w = listing(state);
    ANSWER(w, .boxes = GARBAGE);
    expect_calls(w, 1);
    expect_call(w, "find b1"); /* once more, by id */
    found(w, "b1 ours provisional runs");
    expect_call(w, "stop b1");
    ANSWER(w, .set = RESTS);
    expect_quiet(w);
    assert_int_equal(metric_value(M_SANDBOXES_SWEPT, 0), 1);
    assert_int_equal(metric_value(M_SANDBOXES_DESTROYED, 0), 1);
}

static void test_garbage_that_somebody_keeps_is_spared(void **state)
{
    struct world *w = listing(state);
    ANSWER(w, .boxes = GARBAGE);
    expect_call(w, "find b1");
    found(w, "b1 ours kept runs");
    expect_quiet(w);
}

static void test_what_is_garbage(void **state)
{
    (void)state;
    static const struct {
        const char *box;
        bool garbage;
    } cases[] = {
        {"b1 ours provisional runs session=S1 job=session-jobs/0/3", true},
        {"b1 ours provisional rests session=S1 job=session-jobs/0/3", true},
        {"b1 ours provisional error session=S1 job=session-jobs/0/3", true},
        {"b1 ours provisional transient session=S1 job=session-jobs/0/0", true},
        {"b1 ours provisional runs session=S1 job=session-jobs/0/5", false}, /* not finished */
        {"b1 ours provisional runs session=S1 job=session-jobs/0/99", false},
        {"b1 ours kept runs session=S1 job=session-jobs/0/3", false},
        {"b1 ours kept error session=S1 job=session-jobs/0/3", false},
        {"b1 provisional runs session=S1 job=session-jobs/0/3", false},
        {"b1 ours provisional runs session=S1 job=session-jobs/1/3", false},
        {"b1 ours provisional runs session=S1 job=session-jobs/01/3", false},
        {"b1 ours provisional runs session=S1 job=other/0/3", false},
        {"b1 ours provisional runs session=S1 job=session-jobs/0/x", false},
        {"b1 ours provisional runs session=S1 job=session-jobs/0/", false},
        {"b1 ours provisional runs session=S1", false},
        {"b1 ours provisional runs job=session-jobs/0/3", false},
        {"ours provisional runs session=S1 job=session-jobs/0/3", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        void *fresh = world_new();
        struct world *w = listing(&fresh);
        ANSWER(w, .boxes = cases[i].box);
        expect_calls(w, cases[i].garbage);
        assert_int_equal(status_of(w).destroys, cases[i].garbage);
        world_free(w);
    }
}

/* Finished means committed: a result that waits, or is in a batch, may yet be taken back. */
static void test_finished_by_the_committed_state(void **state)
{
    struct world *w = sweeping(state);
    start(w, "S1", "");
    job_at(w, 0, 6, "stop", "S2", "");
    look_misses(w, "S2");
    expect_batch(w, 1);
    advance(w, 4000);
    static const char left[] = "b2 ours provisional runs session=S3 job=session-jobs/0/6";
    expect_call(w, "list session-jobs/0 -");
    ANSWER(w, .boxes = left);
    assert_int_equal(status_of(w).destroys, 0);
    committed(w);
    next_round(w);
    ANSWER(w, .boxes = left); /* above the watermark, and done */
    expect_call(w, "find b2");
}

static void test_a_lane_that_is_busy_is_left_alone(void **state)
{
    struct world *w = listing(state);
    start(w, "S1", "");
    ANSWER(w, .boxes = GARBAGE);
    assert_int_equal(status_of(w).destroys, 0);
    expect_calls(w, 1); /* the create */
    fail_committed(w, "S1");
    next_round(w);
    ANSWER(w, .boxes = GARBAGE);
    expect_call(w, "find b1");
    found(w, "b1 ours provisional transient");
    expect_call(w, "stop b1");
    again(w, 500000);
    next_round(w);
    ANSWER(w, .boxes = GARBAGE); /* it is being destroyed already */
    assert_int_equal(status_of(w).destroys, 1);
}

static void test_every_page_to_the_last(void **state)
{
    struct world *w = listing(state);
    ANSWER(w, .boxes = GARBAGE, .next = "p2");
    expect_calls(w, 2);
    expect_call(w, "list session-jobs/0 p2");
    ANSWER(w,
           .boxes = "b2 ours provisional runs session=S2 job=session-jobs/0/4;"
                    "b3 ours kept runs session=S3 job=session-jobs/0/4",
           .next = "p3");
    expect_call(w, "list session-jobs/0 p3");
    ANSWER(w, .boxes = "");
    expect_calls(w, 2);
    expect_call(w, "find b1");
    expect_call(w, "find b2");
    next_round(w); /* the next round begins at the beginning */
}

static void test_a_list_without_an_end(void **state)
{
    struct world *w = listing(state);
    ANSWER(w, .boxes = "", .next = "p2");
    expect_call(w, "list session-jobs/0 p2");
    ANSWER(w, .boxes = GARBAGE, .next = "p2");
    expect_calls(w, 1);
    expect_call(w, "find b1"); /* what it named counts */
    missing(w);
    expect_quiet(w);
    next_round(w);
    expect_calls(w, 1);
}

static void test_a_list_that_cannot_be_read(void **state)
{
    struct world *w = listing(state);
    ANSWER(w, .boxes = "", .next = "p2");
    expect_call(w, "list session-jobs/0 p2");
    ANSWER(w, .verdict = RETRY, .boxes = GARBAGE, .http_status = 500);
    expect_quiet(w);
    advance(w, EVERY_MS * 4 / 5 - 1);
    expect_calls(w, 0);
    advance(w, EVERY_MS * 2 / 5 + 1);
    expect_call(w, "list session-jobs/0 -");
}

static void test_dry_run_counts_only(void **state)
{
    struct world *w = listing(state);
    w->config.sweep.dry_run = true;
    ANSWER(w, .boxes = GARBAGE);
    expect_quiet(w);
    assert_int_equal(metric_value(M_SANDBOXES_SWEPT, 0), 1);
}

static void test_every_provider_is_swept(void **state)
{
    struct world *w = *state;
    to_listing(w, 60);
    ANSWER(w, .boxes = GARBAGE);
    expect_call(w, "list session-jobs/0 -"); /* the other one's */
    ANSWER(w, .boxes = "b9 ours provisional runs session=S9 job=session-jobs/0/4");
    expect_calls(w, 2);
    expect_call(w, "find b1");
    expect_call(w, "find b9");
}

static void test_a_blocked_budget_holds_the_list_back(void **state)
{
    struct world *w = sweeping(state);
    const struct rate blocked = blocked_for(20000);
    stop(w, "S1", "");
    expect_call(w, "find fleet.S1");
    ANSWER(w, .verdict = AGAIN, .after_ms = 30000, .rate = &blocked);
    advance(w, 19999);
    expect_calls(w, 0);
    advance(w, 1);
    expect_call(w, "list session-jobs/0 -");
}

static void test_a_refused_key_skips_the_round(void **state)
{
    struct world *w = listing(state);
    ANSWER(w, .verdict = REFUSE, .rate = &refused_key);
    assert_true(status_of(w).unauthorized);
    advance(w, 200 * 1000);
    expect_calls(w, 1);
    expect_call(w, "key daytona");
    done(w, 0);
    next_round(w);
}

static void test_a_partition_that_goes_is_swept_no_more(void **state)
{
    struct world *w = listing(state);
    revoke(w, 0);
    expect_quiet(w);
    assert_int_equal(w->cancels, 1);
    advance(w, 10 * EVERY_MS);
    expect_quiet(w);
}

static void test_no_sweep_while_results_are_being_given_back(void **state)
{
    struct world *w = sweeping(state);
    start(w, "S1", "");
    fail_now(w, "S1");
    expect_batch(w, 1);
    revoke(w, 0);
    advance(w, 10000);
    expect_calls(w, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_garbage_is_destroyed),
        WORLD_TEST(test_garbage_that_somebody_keeps_is_spared),
        cmocka_unit_test(test_what_is_garbage),
        WORLD_TEST(test_finished_by_the_committed_state),
        WORLD_TEST(test_a_lane_that_is_busy_is_left_alone),
        WORLD_TEST(test_every_page_to_the_last),
        WORLD_TEST(test_a_list_without_an_end),
        WORLD_TEST(test_a_list_that_cannot_be_read),
        WORLD_TEST(test_dry_run_counts_only),
        WORLD_TEST(test_every_provider_is_swept),
        WORLD_TEST(test_a_blocked_budget_holds_the_list_back),
        WORLD_TEST(test_a_refused_key_skips_the_round),
        WORLD_TEST(test_a_partition_that_goes_is_swept_no_more),
        WORLD_TEST(test_no_sweep_while_results_are_being_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
