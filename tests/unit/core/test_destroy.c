/* Sandboxes that are to be destroyed: after the commit, by id, and only while provisional. */
#include "tests/unit/core/fixture.h"

/* S1's job at the next offset fails; its event is in the batch. */
static void fail_with(struct world *w, const char *session, const char *id)
{
    start(w, session, "");
    to_probe(w, session, id);
    refuse(w, ERR_SERVER_EXITED);
    expect_failed(w, session, "server_exited", "probe", "scheduled");
    expect_calls(w, 0);
}

static void destroy_queued(struct world *w)
{
    fail_with(w, "S1", "b1");
    committed(w);
    expect_calls(w, 1);
    expect_call(w, "find b1");
    assert_int_equal(status_of(w).destroys, 1);
}

static void expect_over(struct world *w)
{
    expect_quiet(w);
    assert_int_equal(status_of(w).destroys, 0);
    advance(w, 3600 * 1000);
    expect_quiet(w);
}

static void test_destroyed_after_the_commit(void **state)
{
    struct world *w = *state;
    fail_with(w, "S1", "b1");
    advance(w, 10000);
    expect_calls(w, 0);
    committed(w);
    destroy_to_stop(w, "b1");
    ANSWER(w, .set = RESTS);
    expect_over(w);
    assert_int_equal(metric_value(M_SANDBOXES_DESTROYED, 0), 1);
}

static void test_not_before_it_went_through(void **state)
{
    struct world *w = *state;
    fail_with(w, "S1", "b1");
    refused(w);
    expect_calls(w, 0);
    expect_batch(w, 1);
    expect_calls(w, 0);
    refused(w);
    expect_batch(w, 1);
    committed(w);
    expect_call(w, "find b1");
}

/* By a request that the failure overtook: it costs nothing any more, and nothing is lost. */
static void test_stopped_when_kept_meanwhile(void **state)
{
    struct world *w = *state;
    destroy_queued(w);
    found(w, "b1 ours kept runs");
    expect_call(w, "stop b1");
    ANSWER(w, .set = RESTS);
    expect_over(w);
    assert_int_equal(metric_value(M_LATE_KEEPS, 0), 1);
    assert_int_equal(metric_value(M_SANDBOXES_DESTROYED, 0), 0);
}

static void test_gone_already(void **state)
{
    struct world *w = *state;
    destroy_queued(w);
    missing(w);
    expect_over(w);
    assert_int_equal(metric_value(M_SANDBOXES_DESTROYED, 0), 0);
}

static void test_at_rest_already(void **state)
{
    struct world *w = *state;
    destroy_queued(w);
    found(w, "b1 ours provisional rests");
    expect_over(w);
}

static void test_one_that_is_busy_is_put_off(void **state)
{
    struct world *w = *state;
    destroy_queued(w);
    for (int i = 0; i < 3; i++) {
        expect_call(w, "find b1"); /* every try begins with a look */
        found(w, "b1 ours provisional transient");
        expect_call(w, "stop b1");
        again(w, 10000);
        expect_calls(w, 0);
        advance(w, 7999);
        expect_calls(w, 0);
        advance(w, 4001);
    }
    expect_call(w, "find b1");
    found(w, "b1 ours kept rests");
    expect_over(w);
}

static void test_one_that_does_not_answer_is_put_off(void **state)
{
    struct world *w = *state;
    destroy_queued(w);
    retry(w, ERR_PROVIDER_UNAVAILABLE);
    expect_calls(w, 0);
    advance(w, 240);
    destroy_to_stop(w, "b1");
    retry(w, ERR_PROVIDER_UNAVAILABLE);
    expect_calls(w, 0);
    advance(w, 319);
    expect_calls(w, 0);
    advance(w, 161);
    expect_call(w, "find b1");
}

static void test_a_look_that_is_not_ready_holds_the_lane(void **state)
{
    struct world *w = *state;
    destroy_queued(w);
    again(w, 1000);
    start(w, "S1", "");
    expect_calls(w, 0);
    advance(w, 1200);
    expect_call(w, "find b1");
    missing(w);
    expect_call(w, "create fleet.S1");
}

static void test_given_up_after_a_quarter_of_an_hour(void **state)
{
    struct world *w = *state;
    destroy_queued(w);
    uint64_t begin = w->now_ns;
    while (status_of(w).destroys) {
        expect_call(w, "find b1");
        found(w, "b1 ours provisional transient");
        expect_call(w, "stop b1");
        again(w, 30000);
        if (status_of(w).destroys)
            advance(w, 36000);
    }
    assert_in_range(w->now_ns - begin, 15 * 60 * NS_PER_S, 16 * 60 * NS_PER_S);
    expect_over(w);
}

static void look_refused(struct world *w)
{
    refuse(w, ERR_SESSION_EXISTS);
}

static void look_lost(struct world *w)
{
    lost(w, NULL);
}

static void look_endless(struct world *w)
{
    advance(w, 60 * 1000);
}

static void stop_refused(struct world *w)
{
    found(w, "b1 ours provisional runs");
    expect_call(w, "stop b1");
    refuse(w, ERR_SESSION_EXISTS);
}

static void stop_unsayable(struct world *w)
{
    w->unsayable = 1 << STOP;
    found(w, "b1 ours provisional runs");
}

static void test_one_that_cannot_be(void **state)
{
    static void (*const ways[])(struct world *) = {look_refused, look_lost, look_endless,
                                                   stop_refused, stop_unsayable};
    (void)state;
    for (size_t how = 0; how < ARRAY_LEN(ways); how++) {
        struct world *w = world_new();
        assign(w, 0, 0, NULL);
        destroy_queued(w);
        ways[how](w);
        expect_over(w);
        assert_int_equal(metric_value(M_SANDBOXES_DESTROYED, 0), 0);
        world_free(w);
    }
}

/* ---- the lane ---- */

static void test_a_queued_one_gives_way(void **state)
{
    struct world *w = *state;
    fail_with(w, "S1", "b1");
    start(w, "S1", "");
    committed(w);
    expect_calls(w, 1);
    expect_call(w, "create fleet.S1"); /* the job first: it may want the sandbox */
    ANSWER(w, .set = EXISTS | RUNS, .box = "b1 ours provisional runs");
    launch_to_ready(w, "S1", "b1");
    expect_field(w, "sandbox.outcome", "adopted");
    expect_calls(w, 0);
    committed(w);
    expect_over(w); /* what is ready now is not even looked at */
}

/* A later job's sandbox is none of its business: it has an id of its own. */
static void test_a_queued_one_goes_on_after_a_ready_of_another(void **state)
{
    struct world *w = *state;
    fail_with(w, "S1", "b1");
    start(w, "S1", "");
    committed(w);
    to_ready(w, "S1", "b2");
    committed(w);
    destroy_to_stop(w, "b1");
}

static void test_one_that_was_put_off_gives_way(void **state)
{
    struct world *w = *state;
    destroy_queued(w);
    found(w, "b1 ours provisional transient");
    expect_call(w, "stop b1");
    again(w, 5000);
    start(w, "S1", "");
    expect_call(w, "create fleet.S1"); /* at once */
    advance(w, 10000);
    expect_calls(w, 1);
    fail_now(w, "S1");
    expect_batch(w, 1);
    expect_calls(w, 0);
    committed(w);
    expect_call(w, "find b1");
}

static void test_one_that_was_sent_is_waited_for(void **state)
{
    struct world *w = *state;
    destroy_queued(w);
    start(w, "S1", "");
    expect_calls(w, 1);
    expect_call(w, "find b1");
    found(w, "b1 ours provisional runs");
    expect_calls(w, 1);
    expect_call(w, "stop b1");
    ANSWER(w, .set = RESTS | GONE);
    expect_calls(w, 1);
    expect_call(w, "create fleet.S1");
}

static void test_two_of_one_session(void **state)
{
    struct world *w = *state;
    destroy_queued(w);
    found(w, "b1 ours provisional transient");
    expect_call(w, "stop b1");
    again(w, 600000);
    fail_with(w, "S1", "b2");
    committed(w);
    expect_call(w, "find b2");
    missing(w);
    assert_int_equal(status_of(w).destroys, 1);
    fail_with(w, "S1", "b1"); /* the same sandbox again, adopted and failed: one destroy of it */
    committed(w);
    assert_int_equal(status_of(w).destroys, 1);
    expect_calls(w, 0);
    for (int i = 0; i < 720 && w->n_calls == 0; i++)
        advance(w, 1000);
    expect_call(w, "find b1");
}

/* on_failure = stop: what failed is to be stopped, but a later job comes first and is ready in it.
 */
static void test_what_is_ready_meanwhile_is_not_stopped(void **state)
{
    struct world *w = *state;
    server_exits(w, "S1", "'on_failure':'stop'", "b1");
    start(w, "S1", "");
    expect_call(w, "find b1");
    found(w, "b1 mine ours provisional runs");
    expect_call(w, "keep b1");
    done(w, KEPT);
    expect_failed(w, "S1", "server_exited", "probe", "kept");
    committed(w);
    assert_int_equal(status_of(w).destroys, 1);
    expect_call(w, "find b1");
    found(w, "b1 ours kept runs");
    kept_launch_to_ready(w, "S1", "b1");
    committed(w);
    expect_over(w);
}

/* ---- the partition ---- */

static void test_a_partition_that_goes_takes_its_destroys_along(void **state)
{
    struct world *w = *state;
    destroy_queued(w);
    found(w, "b1 ours provisional runs");
    expect_call(w, "stop b1");
    revoke(w, 0);
    assert_int_equal(w->n_released, 1);
    expect_over(w);
}

static void test_a_budget_that_is_blocked_holds_a_destroy(void **state)
{
    struct world *w = *state;
    const struct rate blocked = blocked_for(20000);
    destroy_queued(w);
    ANSWER(w, .set = LOOKED | EXISTS | RUNS, .box = "b1 ours provisional runs", .rate = &blocked);
    expect_calls(w, 0);
    advance(w, 19999);
    expect_calls(w, 0);
    advance(w, 1);
    expect_call(w, "stop b1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_destroyed_after_the_commit),
        WORLD_TEST(test_not_before_it_went_through),
        WORLD_TEST(test_stopped_when_kept_meanwhile),
        WORLD_TEST(test_gone_already),
        WORLD_TEST(test_at_rest_already),
        WORLD_TEST(test_one_that_is_busy_is_put_off),
        WORLD_TEST(test_one_that_does_not_answer_is_put_off),
        WORLD_TEST(test_a_look_that_is_not_ready_holds_the_lane),
        WORLD_TEST(test_given_up_after_a_quarter_of_an_hour),
        cmocka_unit_test(test_one_that_cannot_be),
        WORLD_TEST(test_a_queued_one_gives_way),
        WORLD_TEST(test_a_queued_one_goes_on_after_a_ready_of_another),
        WORLD_TEST(test_one_that_was_put_off_gives_way),
        WORLD_TEST(test_one_that_was_sent_is_waited_for),
        WORLD_TEST(test_two_of_one_session),
        WORLD_TEST(test_what_is_ready_meanwhile_is_not_stopped),
        WORLD_TEST(test_a_partition_that_goes_takes_its_destroys_along),
        WORLD_TEST(test_a_budget_that_is_blocked_holds_a_destroy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
