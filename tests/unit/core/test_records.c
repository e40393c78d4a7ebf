/* Records as they come: refused, seen before, from elsewhere, too many. */
#include "tests/unit/core/fixture.h"

static void test_refusals_give_a_dead_letter_and_an_event(void **state)
{
    struct world *w = *state;
    record_at(w, 0, 0, "S1",
              "{\"type\":\"start-session\",\"job_id\":\"j1\",\"tenant\":\"t\",\"env\":{\"A\":1}}");
    expect_batch(w, 2);
    assert_int_equal(w->batch->messages[0].to, TO_DEAD_LETTERS);
    assert_string_equal(w->batch->messages[0].key, "S1");
    expect_offset(w, 0, 1);
    expect_failed(w, "S1", "invalid_job", "queue", NULL);
    expect_field(w, "job_id", "j1");
    expect_field(w, "tenant", "t");
    expect_field(w, "provider", "null");
    expect_field(w, "error.message", "env.A must be a string");
    assert_int_equal(status_of(w).in_flight, 0); /* it enters no lane */
    committed(w);
    assert_int_equal(view_of(w, 0).watermark, 1);
}

static void test_a_refusal_of_nobody_is_a_dead_letter_only(void **state)
{
    struct world *w = *state;
    record_at(w, 0, 0, NULL, "what is this");
    expect_batch(w, 1);
    assert_int_equal(w->batch->messages[0].to, TO_DEAD_LETTERS);
    committed(w);
    record_at(w, 0, 1, "S1", NULL); /* a tombstone is one of its key */
    expect_batch(w, 2);
    expect_failed(w, "S1", "invalid_job", "queue", NULL);
}

static void test_without_a_topic_no_dead_letter(void **state)
{
    struct world *w = *state;
    w->config.topics.dead_letters[0] = '\0';
    record_at(w, 0, 0, "S1", "{\"type\":\"dance\"}");
    expect_batch(w, 1);
    expect_failed(w, "S1", "unsupported", "queue", NULL);
    committed(w);
    record_at(w, 0, 1, NULL, "?"); /* nobody to tell: the offset goes on all the same */
    advance(w, 20);
    expect_quiet(w);
    assert_int_equal(view_of(w, 0).watermark, 2);
}

static void test_a_refusal_does_not_wait_for_the_lane(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    record_at(w, 0, 1, "S1", "{}");
    expect_batch(w, 2);
    expect_offset(w, 0, 0);
}

static void test_duplicates_are_skipped(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    job_at(w, 0, 0, "start", "S1", ""); /* in hand */
    assert_int_equal(status_of(w).in_flight, 1);
    fail_now(w, "S1");
    job_at(w, 0, 0, "start", "S1", ""); /* in a batch */
    committed(w);
    job_at(w, 0, 0, "start", "S1", ""); /* done */
    expect_quiet(w);
    assert_int_equal(metric_value(M_JOBS_SKIPPED, 0), 3);
    record_at(w, 0, 0, NULL, "?");
    expect_quiet(w);
}

static void test_of_a_partition_that_is_not_ours(void **state)
{
    struct world *w = *state;
    job_at(w, 3, 0, "start", "S1", "");
    record_at(w, 3, 1, NULL, "?");
    expect_quiet(w);
    assert_int_equal(status_of(w).in_flight, 0);
}

static void test_the_log_begins_again(void **state)
{
    struct world *w = *state;
    assign_started(w, 0, 1000, 1500);
    start(w, "S0", "");
    expect_call(w, "find fleet.S0");
    assign_started(w, 0, 1000, 1500);
    job_at(w, 0, 0, "start", "S1", "");
    expect_call(w, "create fleet.S1"); /* what was started was another log's */
    assert_int_equal(metric_value(M_OFFSETS_REPLAYED, 0), 1);
    fail_now(w, "S1");
    expect_batch(w, 1);
    expect_offset(w, 0, 1);
    committed(w);
    job_at(w, 0, 1, "start", "S2", "");
    expect_call(w, "create fleet.S2");
}

static void test_counts_stop_the_taking(void **state)
{
    struct world *w = *state;
    w->config.jobs.max_in_flight = 2;
    start(w, "S0", "");
    assert_true(w->open[0]);
    start(w, "S1", "");
    assert_false(w->open[0]);
    assert_int_equal(status_of(w).in_flight, 2);
    fail_now(w, "S0"); /* finished: there is room again, though it is not committed */
    assert_true(w->open[0]);
    fail_now(w, "S1");
    start(w, "S2", "");
    fail_now(w, "S2");
    assert_int_equal(status_of(w).unpublished, 2);
    assert_false(w->open[0]); /* what is not published counts as well */
    committed(w);
    expect_batch(w, 2);
    assert_true(w->open[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_refusals_give_a_dead_letter_and_an_event),
        WORLD_TEST(test_a_refusal_of_nobody_is_a_dead_letter_only),
        WORLD_TEST(test_without_a_topic_no_dead_letter),
        WORLD_TEST(test_a_refusal_does_not_wait_for_the_lane),
        WORLD_TEST(test_duplicates_are_skipped),
        WORLD_TEST(test_of_a_partition_that_is_not_ours),
        WORLD_TEST(test_the_log_begins_again),
        WORLD_TEST(test_counts_stop_the_taking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
