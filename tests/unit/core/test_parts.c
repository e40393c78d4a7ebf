/* Partitions come and go: assigned, revoked, lost, drained. */
#include "tests/unit/core/fixture.h"

#include <stdio.h>

#include "common/log.h"

static void expect_released(struct world *w, int32_t partition)
{
    assert_int_equal(w->releases, 1);
    assert_int_equal(w->n_released, 1);
    assert_int_equal(w->released[0], partition);
}

/* It is given back, and nothing goes on. */
static void expect_left(struct world *w, int32_t partition)
{
    expect_released(w, partition);
    expect_quiet(w);
}

static void test_assigned_is_opened(void **state)
{
    struct world *w = *state;
    assert_true(w->open[0]);
    assign(w, 2, 77, NULL);
    assert_true(w->open[2]);
    assert_int_equal(view_of(w, 2).watermark, 77);
    assert_true(view_of(w, 2).open);
    assert_int_equal(status_of(w).partitions, 2);
    assign(w, 3, -1, NULL); /* nothing was ever committed */
    assert_int_equal(view_of(w, 3).watermark, 0);
}

static void test_assigned_once_more_begins_afresh(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_calls(w, 1);
    assign(w, 0, 0, NULL);
    expect_calls(w, 0);
    assert_int_equal(status_of(w).in_flight, 0);
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
}

/* What was to be published never is. */
static void expect_forgotten(struct world *w)
{
    advance(w, 10000);
    expect_quiet(w);
    assert_int_equal(status_of(w).unpublished, 0);
}

/* ---- revoked ---- */

static void test_revoked_without_results(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_probe(w, "S1", "b1");
    start(w, "S1", "");
    revoke(w, 0);
    expect_left(w, 0); /* at once; the sandbox stays as it is */
    assert_int_equal(w->cancels, 1);
    assert_int_equal(status_of(w).in_flight, 0);
    assert_int_equal(status_of(w).partitions, 0);
    job_at(w, 0, 2, "start", "S3", ""); /* nothing is taken any more */
    expect_quiet(w);
}

static void test_revoked_with_results_that_wait(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    start(w, "S2", "");
    start(w, "S3", "");
    fail_now(w, "S1");
    committed(w);
    fail_now(w, "S2"); /* waits for the last batch's rest to be over */
    assert_null(w->batch);
    revoke(w, 0);
    expect_batch(w, 1); /* now */
    assert_int_equal(w->releases, 0);
    expect_offset(w, 0, 2);
    expect_call(w, "create fleet.S3"); /* goes on meanwhile, and comes too late */
    refuse(w, ERR_SESSION_EXISTS);
    job_at(w, 0, 3, "start", "S4", "");
    expect_calls(w, 0);
    committed(w);
    expect_left(w, 0);
}

/* S1's is in the batch under way, and S2's waits for the next one. */
static void two_results(struct world *w)
{
    start(w, "S1", "");
    start(w, "S2", "");
    fail_now(w, "S1");
    fail_now(w, "S2");
}

static void test_revoked_with_a_batch_under_way(void **state)
{
    struct world *w = *state;
    two_results(w);
    expect_event(w, "S1", "session-failed");
    revoke(w, 0);
    assert_int_equal(w->releases, 0);
    committed(w);
    expect_event(w, "S2", "session-failed"); /* one last batch */
    expect_offset(w, 0, 2);
    assert_int_equal(w->releases, 0);
    committed(w);
    expect_left(w, 0);
}

static void test_revoked_and_the_batch_under_way_is_refused(void **state)
{
    struct world *w = *state;
    two_results(w);
    revoke(w, 0);
    refused(w);
    expect_batch(w, 2); /* the last one holds what that one held */
    committed(w);
    expect_released(w, 0);
}

static void test_revoked_and_the_last_batch_is_refused(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    fail_now(w, "S1");
    committed(w);
    start(w, "S2", "");
    fail_now(w, "S2");
    revoke(w, 0);
    expect_batch(w, 1);
    refused(w);
    expect_released(w, 0); /* the next owner runs it again */
    expect_forgotten(w);
}

static void test_a_failure_that_was_not_committed_destroys_nothing(void **state)
{
    struct world *w = *state;
    server_exits(w, "S1", "", "b1");
    expect_batch(w, 1);
    revoke(w, 0);
    refused(w);
    refused(w); /* the last one */
    expect_released(w, 0);
    advance(w, 10000);
    expect_quiet(w);
}

/* After the last commit its destroys are forgotten: the next owner's sweep finds them. */
static void test_a_failure_in_the_last_batch_destroys_nothing_either(void **state)
{
    struct world *w = *state;
    server_exits(w, "S1", "", "b1");
    revoke(w, 0);
    committed(w);
    expect_left(w, 0);
}

static void test_other_partitions_go_on(void **state)
{
    struct world *w = *state;
    assign(w, 1, 0, NULL);
    w->hold_hints = true;
    start(w, "S1", "");
    job_at(w, 1, 0, "start", "T1", "");
    job_at(w, 1, 1, "start", "T2", "");
    fail_now(w, "T1");
    revoke(w, 0);
    committed(w);
    expect_batch(w, 0);
    fail_now(w, "T2"); /* waits behind the goodbye */
    committed(w);
    expect_released(w, 0);
    assert_true(w->open[1]);
    assert_int_equal(status_of(w).partitions, 1);
    advance(w, 100); /* and is not forgotten over the release */
    expect_batch(w, 1);
    expect_event(w, "T2", "session-failed");
    expect_offset(w, 1, 2);
}

static void test_the_last_batch_takes_the_others_along(void **state)
{
    struct world *w = *state;
    assign(w, 1, 0, NULL);
    start(w, "S1", "");
    start(w, "S2", "");
    job_at(w, 1, 0, "start", "T1", "");
    fail_now(w, "S1");
    committed(w);
    fail_now(w, "S2");
    fail_now(w, "T1");
    revoke(w, 0);
    expect_batch(w, 2);
    expect_offset(w, 0, 2);
    expect_offset(w, 1, 1);
    refused(w);
    expect_released(w, 0);
    expect_batch(w, 1); /* of the one that we still own */
    expect_event(w, "T1", "session-failed");
    assert_null(batch_metadata(w, 0));
    committed(w);
    expect_quiet(w);
}

static void test_revoke_of_what_was_lost_is_answered(void **state)
{
    struct world *w = *state;
    lose(w, 0);
    revoke(w, 0);
    expect_released(w, 0);
}

static void test_hints_of_a_closing_partition_are_not_sent(void **state)
{
    struct world *w = *state;
    w->hold_hints = true;
    start(w, "S1", "");
    fail_now(w, "S1");
    start(w, "S2", "");
    revoke(w, 0);
    advance(w, 5000);
    committed(w);
    expect_batch(w, 0); /* the goodbye, once */
    committed(w);
    expect_released(w, 0);
    advance(w, 5000);
    expect_quiet(w);
}

/* ---- lost ---- */

static void test_lost_sends_nothing_more(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    start(w, "S2", "");
    fail_now(w, "S1");
    committed(w);
    fail_now(w, "S2");
    lose(w, 0);
    assert_int_equal(w->releases, 0);
    expect_forgotten(w);
}

static void lost_in_a_batch(struct world *w)
{
    server_exits(w, "S1", "", "b1");
    expect_batch(w, 1);
    lose(w, 0);
    assert_true(status_of(w).committing); /* it is ended all the same */
    assert_int_equal(status_of(w).partitions, 0);
}

static void test_lost_with_a_batch_that_goes_through(void **state)
{
    struct world *w = *state;
    lost_in_a_batch(w);
    committed(w);
    expect_quiet(w); /* nothing is destroyed: it is the next owner's */
}

static void test_lost_with_a_batch_that_does_not(void **state)
{
    struct world *w = *state;
    lost_in_a_batch(w);
    refused(w);
    expect_forgotten(w);
}

static void test_lost_and_won_again_meanwhile(void **state)
{
    struct world *w = *state;
    lost_in_a_batch(w);
    assign(w, 0, 0, NULL);
    start(w, "S1", "");
    committed(w); /* an old batch says nothing of the new assignment */
    assert_int_equal(view_of(w, 0).watermark, 0);
    assert_int_equal(status_of(w).in_flight, 1);
    expect_call(w, "create fleet.S1");
}

static void test_lost_while_it_is_being_given_back(void **state)
{
    struct world *w = *state;
    assign(w, 1, 0, NULL);
    start(w, "S1", "");
    fail_now(w, "S1");
    revoke(w, 0);
    lose(w, 0);
    job_at(w, 1, 0, "start", "T1", "");
    fail_now(w, "T1");
    committed(w);
    assert_int_equal(w->releases, 0); /* there is nothing to give back */
    expect_batch(w, 1);
    expect_event(w, "T1", "session-failed");
}

/* ---- drain ---- */

static void test_drain_of_an_idle_one(void **state)
{
    struct world *w = *state;
    drain(w);
    assert_true(w->drained);
    assert_true(status_of(w).draining);
    assert_false(w->open[0]);
    drain(w); /* once is enough */
    assert_int_equal(core_next(w->core), NEVER);
}

static void test_drain_waits_for_what_can_be_finished(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    start(w, "S1", "");
    start(w, "S2", "");
    drain(w);
    assert_false(w->open[0]);
    assert_false(w->drained);
    to_ready(w, "S1", "b1");
    committed(w);
    expect_no_call(w, "find b1"); /* the next of the lane does not begin */
    assert_false(w->drained);
    advance(w, 20000);
    fail_now(w, "S2");
    expect_batch(w, 1);
    assert_false(w->drained);
    committed(w);
    assert_true(w->drained);
    expect_quiet(w);
}

/* What a drain says that it leaves. */
static char left_behind[200];

static void hear(void *arg, const char *line, size_t len)
{
    (void)arg;
    const char *jobs = memmem(line, len, " jobs=", 6);
    if (memmem(line, len, "left to the next owner", 22) && jobs)
        snprintf(left_behind, sizeof left_behind, "%s", jobs);
}

static void test_drain_tells_what_it_leaves(void **state)
{
    struct world *w = *state;
    log_capture(hear, NULL);
    for (int i = 0; i < 6; i++)
        start(w, (char[]){'S', (char)('1' + i), '\0'}, "");
    start(w, "S1", ""); /* behind the first */
    left_behind[0] = '\0';
    drain(w);
    advance(w, 24999);
    assert_string_equal(left_behind, "");
    advance(w, 1);
    assert_true(w->drained);
    assert_string_equal(left_behind, " jobs=7 sessions=\"S1 S2 S3 S4 S5 …\"");
}

static void test_drain_has_an_end(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    drain(w);
    advance(w, 24999);
    assert_false(w->drained);
    advance(w, 1);
    assert_true(w->drained); /* the rest is left as it is */
    revoke(w, 0);
    expect_left(w, 0);
}

static void test_drain_waits_for_the_batch(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    drain(w);
    advance(w, 24990);
    fail_now(w, "S1");
    expect_batch(w, 1);
    advance(w, 9);
    assert_false(w->drained);
    committed(w);
    assert_true(w->drained);
}

static void test_drain_does_not_wait_for_a_broker_that_is_away(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    drain(w);
    fail_now(w, "S1");
    advance(w, 25999); /* a second more for the goodbye */
    assert_false(w->drained);
    advance(w, 1);
    assert_true(w->drained);
    committed(w); /* too late to matter, and no harm */
    expect_quiet(w);
}

static void test_drain_does_not_wait_for_commits_for_ever(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    drain(w);
    fail_now(w, "S1");
    for (int i = 0; i < 1000 && !w->drained; i++) {
        if (w->batch)
            refused(w);
        advance(w, 100);
    }
    assert_true(w->drained);
}

static void test_drain_tries_each_destroy_once(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    start(w, "S2", "");
    to_probe(w, "S1", "b1");
    refuse(w, ERR_SERVER_EXITED);
    committed(w);
    expect_call(w, "create fleet.S2");
    made(w, "b2");
    drain(w);
    expect_call(w, "start b2");
    refuse(w, ERR_START_FAILED);
    expect_batch(w, 1);
    committed(w);
    expect_call(w, "find b1");
    found(w, "b1 ours provisional transient");
    expect_call(w, "stop b1");
    again(w, 1000); /* no second try */
    assert_int_equal(status_of(w).destroys, 1);
    assert_false(w->drained);
    destroy_to_stop(w, "b2");
    ANSWER(w, .set = RESTS);
    assert_true(w->drained);
    expect_quiet(w);
}

static void test_draining_takes_nothing_new(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    drain(w);
    assign(w, 1, 0, NULL);
    assert_false(w->open[1]);
    job_at(w, 0, 1, "start", "S2", ""); /* one that was read before it was told */
    expect_calls(w, 1);
    expect_call(w, "create fleet.S1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_assigned_is_opened),
        WORLD_TEST(test_assigned_once_more_begins_afresh),
        WORLD_TEST(test_revoked_without_results),
        WORLD_TEST(test_revoked_with_results_that_wait),
        WORLD_TEST(test_revoked_with_a_batch_under_way),
        WORLD_TEST(test_revoked_and_the_batch_under_way_is_refused),
        WORLD_TEST(test_revoked_and_the_last_batch_is_refused),
        WORLD_TEST(test_a_failure_that_was_not_committed_destroys_nothing),
        WORLD_TEST(test_a_failure_in_the_last_batch_destroys_nothing_either),
        WORLD_TEST(test_other_partitions_go_on),
        WORLD_TEST(test_the_last_batch_takes_the_others_along),
        WORLD_TEST(test_revoke_of_what_was_lost_is_answered),
        WORLD_TEST(test_hints_of_a_closing_partition_are_not_sent),
        WORLD_TEST(test_lost_sends_nothing_more),
        WORLD_TEST(test_lost_with_a_batch_that_goes_through),
        WORLD_TEST(test_lost_with_a_batch_that_does_not),
        WORLD_TEST(test_lost_and_won_again_meanwhile),
        WORLD_TEST(test_lost_while_it_is_being_given_back),
        WORLD_TEST(test_drain_of_an_idle_one),
        WORLD_TEST(test_drain_waits_for_what_can_be_finished),
        WORLD_TEST(test_drain_has_an_end),
        WORLD_TEST(test_drain_tells_what_it_leaves),
        WORLD_TEST(test_drain_waits_for_the_batch),
        WORLD_TEST(test_drain_does_not_wait_for_a_broker_that_is_away),
        WORLD_TEST(test_drain_does_not_wait_for_commits_for_ever),
        WORLD_TEST(test_drain_tries_each_destroy_once),
        WORLD_TEST(test_draining_takes_nothing_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
