/* Two requests of one session side by side: each sleeps, waits for its turn and goes on by itself.
 * And what a refused key holds back, in whatever lane. */
#include "tests/unit/core/fixture.h"

#include "common/log.h"
#include "worker/core/internal.h"

static void both_launch(struct world *w)
{
    w->beside = 1u << LAUNCH;
    start(w, "S1", "");
    to_start(w, "S1", "b1");
    done(w, RUNS);
    expect_calls(w, 2);
}

/* ---- asleep ---- */

static void test_the_second_sleeps_and_wakes(void **state)
{
    struct world *w = *state;
    both_launch(w);
    expect_call(w, "launch+ b1");
    again(w, 1000);
    expect_calls(w, 1);
    advance(w, 700);
    expect_no_call(w, "launch+ b1");
    advance(w, 600);
    expect_call(w, "launch+ b1");
    expect_call(w, "launch b1");
}

static void test_each_wakes_in_its_time(void **state)
{
    struct world *w = *state;
    both_launch(w);
    expect_call(w, "launch b1");
    again(w, 8000);
    expect_call(w, "launch+ b1");
    again(w, 1000);
    expect_calls(w, 0);
    advance(w, 1300);
    expect_call(w, "launch+ b1");
    again(w, 30000);
    advance(w, 9000);
    expect_call(w, "launch b1");
    expect_calls(w, 1);
}

static void test_both_end_with_the_phase(void **state)
{
    struct world *w = *state;
    both_launch(w);
    expect_call(w, "launch+ b1");
    again(w, 1000);
    expect_call(w, "launch b1");
    done(w, SERVER);
    expect_calls(w, 1); /* the probe; nothing of the launch comes later */
    expect_call(w, "probe b1");
    advance(w, 2000);
    expect_calls(w, 1);
}

static void test_the_second_one_alone_can_fail_it(void **state)
{
    struct world *w = *state;
    both_launch(w);
    expect_call(w, "launch+ b1");
    refuse(w, ERR_BAD_COMMAND);
    expect_calls(w, 0);
    assert_int_equal(w->cancels, 1);
    expect_failed(w, "S1", "bad_command", "launch", "scheduled");
}

/* ---- held back ---- */

static void refuse_key_of_both(struct world *w)
{
    expect_call(w, "launch b1");
    ANSWER(w, .verdict = AGAIN, .after_ms = 100, .rate = &refused_key);
    expect_call(w, "launch+ b1");
    again(w, 100);
    advance(w, 200);
    expect_calls(w, 0);
}

static void test_both_go_on_when_the_key_is_good_again(void **state)
{
    struct world *w = *state;
    both_launch(w);
    refuse_key_of_both(w);
    advance(w, 60000);
    expect_calls(w, 1);
    expect_call(w, "key daytona");
    done(w, 0);
    expect_calls(w, 2);
    expect_call(w, "launch b1");
    expect_call(w, "launch+ b1");
}

static bool told;

static void hear(void *arg, const char *line, size_t len)
{
    (void)arg;
    told = told || memmem(line, len, "takes our key again", 19);
}

static void test_a_key_that_stays_refused_is_tried_once_a_minute(void **state)
{
    struct world *w = *state;
    told = false;
    log_capture(hear, NULL);
    both_launch(w);
    refuse_key_of_both(w);
    for (int minute = 0; minute < 2; minute++) {
        advance(w, 60000);
        expect_calls(w, 1);
        expect_call(w, "key daytona");
        ANSWER(w, .verdict = REFUSE, .code = ERR_UNAUTHORIZED, .rate = &refused_key);
        expect_calls(w, 0);
        assert_true(status_of(w).unauthorized);
        assert_false(told);
        advance(w, 59000);
        expect_calls(w, 0);
    }
    advance(w, 1000);
    expect_call(w, "key daytona");
    retry(w, ERR_PROVIDER_UNAVAILABLE); /* no answer is none, too */
    assert_true(status_of(w).unauthorized);
    assert_false(told);
    advance(w, 60000);
    expect_call(w, "key daytona");
    done(w, 0);
    assert_true(told);
}

/* Lanes that rest, that are of another provider, or that are parked. */
static void test_a_good_key_wakes_whom_it_concerns(void **state)
{
    struct world *w = *state;
    start(w, "S0", "");
    to_ready(w, "S0", "b0");
    start(w, "S2", "'provider':'other'");
    expect_call(w, "create fleet.S2");
    again(w, 300000);
    both_launch(w);
    refuse_key_of_both(w);
    advance(w, 30000);
    committed(w); /* S0's lane is idle, and remembers the sandbox for a minute */
    advance(w, 30000);
    expect_call(w, "key daytona");
    done(w, 0);
    expect_calls(w, 2);
    expect_no_call(w, "create fleet.S2"); /* it sleeps for a reason of its own */
}

/* ---- parked ---- */

/* What an answer says of spare creations is news for those that wait. */
static void test_a_parked_one_hears_of_spare_tokens(void **state)
{
    const struct rate spare = {.limit = 16, .remaining = 15, .reset_s = 10};
    struct world *w = *state;
    few_tokens(w);
    start(w, "S1", "");
    start(w, "S2", "");
    assert_int_equal(status_of(w).parked, 1);
    expect_call(w, "create fleet.S1");
    ANSWER(w, .set = EXISTS, .box = "b1 mine ours provisional transient", .rate = &spare);
    advance(w, 1);
    expect_call(w, "create fleet.S2");
    assert_int_equal(status_of(w).parked, 0);
}

/* The key is good again, and creations are blocked still. */
static void test_parked_for_two_reasons(void **state)
{
    const struct rate later = blocked_for(300000);
    struct world *w = *state;
    start(w, "S1", "");
    start(w, "S3", "");
    to_start(w, "S3", "b3");
    expect_call(w, "create fleet.S1");
    ANSWER(w, .verdict = AGAIN, .after_ms = 100, .code = ERR_RATE_LIMITED, .rate = &later);
    start(w, "S2", "");
    advance(w, 200);
    assert_int_equal(status_of(w).parked, 2);
    expect_call(w, "start b3");
    ANSWER(w, .verdict = AGAIN, .after_ms = 100, .rate = &refused_key);
    advance(w, 60000);
    expect_call(w, "key daytona");
    done(w, 0);
    assert_int_equal(status_of(w).parked, 2);
    expect_calls(w, 1);
    expect_call(w, "start b3");
}

/* ---- lanes ---- */

static void test_a_lane_that_is_idle_is_freed(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    fail_committed(w, "S1");
    assert_int_equal(HASH_COUNT(w->core->lanes), 0);
    start(w, "S2", "");
    to_ready(w, "S2", "b2");
    committed(w);
    assert_int_equal(HASH_COUNT(w->core->lanes), 1); /* it remembers the sandbox for a minute */
    advance(w, 59000);
    assert_int_equal(HASH_COUNT(w->core->lanes), 1);
    advance(w, 2000);
    assert_int_equal(HASH_COUNT(w->core->lanes), 0);
}

static void test_a_lane_that_remembers_holds_up_no_drain(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_ready(w, "S1", "b1");
    committed(w);
    advance(w, 1000);
    drain(w);
    advance(w, 100); /* the goodbye is told */
    assert_true(w->drained);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_the_second_sleeps_and_wakes),
        WORLD_TEST(test_each_wakes_in_its_time),
        WORLD_TEST(test_both_end_with_the_phase),
        WORLD_TEST(test_the_second_one_alone_can_fail_it),
        WORLD_TEST(test_both_go_on_when_the_key_is_good_again),
        WORLD_TEST(test_a_key_that_stays_refused_is_tried_once_a_minute),
        WORLD_TEST(test_a_good_key_wakes_whom_it_concerns),
        WORLD_TEST(test_a_parked_one_hears_of_spare_tokens),
        WORLD_TEST(test_parked_for_two_reasons),
        WORLD_TEST(test_a_lane_that_is_idle_is_freed),
        WORLD_TEST(test_a_lane_that_remembers_holds_up_no_drain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
