/* Jobs of one session: one after the other, in record order; what cancels what. */
#include "tests/unit/core/fixture.h"

static void test_one_job_of_a_session_at_a_time(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    start(w, "S1", "");
    start(w, "S2", ""); /* another session does not wait */
    expect_calls(w, 2);
    assert_string_equal(phase_of(w, 0, 1), "queued");
    to_ready(w, "S1", "b1");
    expect_no_call(w, "find b1"); /* not before the commit */
    committed(w);
    expect_call(w, "find b1");
    found(w, "b1 ours kept runs");
    expect_call(w, "launch b1");
}

static void test_record_order(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    stop(w, "S2", "");
    for (int i = 0; i < 5; i++)
        start(w, "S1", "");
    for (int64_t offset = 2; offset < 7; offset++) {
        expect_call(w, offset == 2 ? "create fleet.S1" : "create fleet.S1");
        refuse(w, ERR_SESSION_EXISTS);
        expect_batch(w, 1);
        for (int64_t later = offset; later < 7; later++)
            assert_string_equal(phase_of(w, 0, later), "queued");
        committed(w);
    }
}

static void test_queue_time_is_told(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    start(w, "S1", "'timeout_seconds':1");
    advance(w, 3000); /* the clock of the second does not run yet */
    fail_committed(w, "S1");
    to_ready(w, "S1", "b1");
    expect_field(w, "timings_ms.queue", "3000");
}

/* ---- stop and delete cancel ---- */

static void test_a_stop_cancels_what_waits(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_start(w, "S1", "b1");
    again(w, 5000);
    stop(w, "S1", ""); /* at once, since nothing is under way */
    expect_failed(w, "S1", "cancelled", "create", "scheduled");
    assert_string_equal(phase_of(w, 0, 1), "queued");
    committed(w);
    expect_call(w, "find fleet.S1");
}

static void test_a_delete_cancels_at_the_next_step(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    delete (w, "S1", "");
    expect_calls(w, 1); /* the create is heard to its end */
    assert_null(w->batch);
    expect_call(w, "create fleet.S1");
    made(w, "b1");
    expect_calls(w, 0);
    expect_failed(w, "S1", "cancelled", "create", "scheduled");
}

static void test_all_earlier_starts_are_cancelled(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    start(w, "S1", "");
    start(w, "S2", "");
    delete (w, "S1", "");
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    made(w, "b1");
    expect_failed(w, "S1", "cancelled", "create", "scheduled");
    committed(w);
    look_misses(w, "S1"); /* the second looks whether there is one */
    expect_failed(w, "S1", "cancelled", "queue", NULL);
    committed(w);
    look_misses(w, "S1"); /* the delete */
    expect_event(w, "S1", "session-deleted");
    committed(w);
    expect_call(w, "create fleet.S1"); /* the last start came after it */
    expect_call(w, "create fleet.S2"); /* and the other session never noticed */
}

static void test_stops_cancel_no_stops(void **state)
{
    struct world *w = *state;
    stop(w, "S1", "");
    delete (w, "S1", "");
    look_finds(w, "S1", "b1 ours kept rests");
    expect_event(w, "S1", "session-stopped");
}

static void test_a_finished_start_is_past_it(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_ready(w, "S1", "b1");
    stop(w, "S1", "");
    expect_event(w, "S1", "session-ready");
    refused(w);
    stop(w, "S1", "");
    expect_event(w, "S1", "session-ready"); /* once more, unchanged */
    committed(w);
    expect_call(w, "find b1");
    found(w, "b1 ours kept runs");
    expect_call(w, "stop b1");
}

static void test_a_kept_one_that_is_cancelled_does_not_go_on(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    retry(w, ERR_PROVIDER_UNAVAILABLE);
    stop(w, "S1", "");
    look_finds(w, "S1", "b1 mine ours kept runs");
    expect_failed(w, "S1", "cancelled", "create", "kept");
    committed(w);
    expect_call(w, "find b1"); /* the stop knows where */
    found(w, "b1 ours kept runs");
    expect_call(w, "stop b1");
}

static void test_cancelled_while_keep_is_out(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_keep(w, "S1", "b1");
    stop(w, "S1", "");
    expect_calls(w, 1);
    done(w, KEPT);
    expect_failed(w, "S1", "cancelled", "keep", "kept");
}

static void test_a_failing_start_is_not_cancelled(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    refuse(w, ERR_QUOTA_EXCEEDED);
    stop(w, "S1", "");
    look_misses(w, "S1");
    expect_failed(w, "S1", "quota_exceeded", "create", NULL);
}

static void test_cancelled_with_two_slots(void **state)
{
    struct world *w = *state;
    w->beside = 1 << LAUNCH;
    start(w, "S1", "");
    to_start(w, "S1", "b1");
    done(w, RUNS);
    stop(w, "S1", "");
    expect_call(w, "launch b1");
    again(w, 100);
    assert_null(w->batch); /* the other one is still out */
    expect_call(w, "launch+ b1");
    again(w, 100);
    expect_failed(w, "S1", "cancelled", "launch", "scheduled");
}

/* Without jobs.require_key a session's jobs may come from two partitions. */
static void test_a_lane_over_two_partitions(void **state)
{
    struct world *w = *state;
    assign(w, 1, 0, NULL);
    start(w, "S1", "");
    job_at(w, 1, 0, "start", "S1", "");
    expect_calls(w, 1);
    lose(w, 0); /* the first one's partition goes: the second's turn */
    expect_calls(w, 1);
    fail_now(w, "S1");
    expect_batch(w, 1);
    expect_offset(w, 1, 1);
}

static void test_ending_with_lanes_in_every_state(void **state)
{
    struct world *w = *state;
    assign(w, 1, 0, NULL);
    server_exits(w, "S1", "", "b1");
    expect_batch(w, 1);
    job_at(w, 1, 0, "start", "S1", "");
    committed(w); /* a destroy of partition 0 behind a job of partition 1 */
    server_exits(w, "S2", "", "b2");
    expect_batch(w, 1);
    start(w, "S3", "");
    start(w, "S3", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_one_job_of_a_session_at_a_time),
        WORLD_TEST(test_record_order),
        WORLD_TEST(test_queue_time_is_told),
        WORLD_TEST(test_a_stop_cancels_what_waits),
        WORLD_TEST(test_a_delete_cancels_at_the_next_step),
        WORLD_TEST(test_all_earlier_starts_are_cancelled),
        WORLD_TEST(test_stops_cancel_no_stops),
        WORLD_TEST(test_a_finished_start_is_past_it),
        WORLD_TEST(test_a_kept_one_that_is_cancelled_does_not_go_on),
        WORLD_TEST(test_cancelled_while_keep_is_out),
        WORLD_TEST(test_a_failing_start_is_not_cancelled),
        WORLD_TEST(test_cancelled_with_two_slots),
        WORLD_TEST(test_a_lane_over_two_partitions),
        WORLD_TEST(test_ending_with_lanes_in_every_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
