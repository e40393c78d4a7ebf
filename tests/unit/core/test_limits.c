/* A start job and its time: the limit of each step, the deadline of the whole. */
#include "tests/unit/core/fixture.h"

static void test_create_has_its_limit(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'timeouts':{'create':20}");
    expect_call(w, "create fleet.S1");
    made(w, "b1");
    for (int i = 0; i < 19; i++) {
        expect_call(w, "start b1");
        ANSWER(w, .verdict = AGAIN, .after_ms = 1);
        advance(w, 1000);
    }
    assert_null(w->batch);
    advance(w, 1001);
    expect_failed(w, "S1", "start_timeout", "create", "scheduled");
    assert_int_equal(w->cancels, 1);
}

static void test_again_names_the_failure_of_its_deadline(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'timeouts':{'create':20}");
    expect_call(w, "create fleet.S1");
    ANSWER(w, .verdict = AGAIN, .after_ms = 19000, .code = ERR_SESSION_EXISTS, .http_status = 409,
           .message = "taken", .words = "name taken");
    advance(w, 23000);
    expect_failed(w, "S1", "session_exists", "create", NULL);
    expect_field(w, "error.message", "taken");
    expect_field(w, "error.provider_message", "name taken");
    expect_field(w, "error.http_status", "409");
}

/* What an earlier wait was for is no reason any more once something came of it. */
static void test_news_forget_what_was_waited_for(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'timeouts':{'launch':20}");
    to_probe(w, "S1", "b1");
    ANSWER(w, .verdict = AGAIN, .after_ms = 10, .code = ERR_UNHEALTHY);
    advance(w, 20);
    expect_call(w, "probe b1");
    ANSWER(w, .set = ANSWERS);
    expect_call(w, "keep b1");
    advance(w, 60 * 1000);
    expect_call(w, "find b1");
    found(w, "b1 mine ours provisional runs");
    expect_failed(w, "S1", "provider_unavailable", "keep", "scheduled");
}

static void test_server_has_its_limit(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'timeouts':{'launch':20}");
    to_probe(w, "S1", "b1");
    advance(w, 19999);
    assert_null(w->batch);
    advance(w, 1);
    expect_failed(w, "S1", "server_timeout", "probe", "scheduled");
}

static void test_launch_has_the_same_limit(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'timeouts':{'launch':20}");
    to_start(w, "S1", "b1");
    done(w, RUNS);
    advance(w, 20000);
    expect_failed(w, "S1", "launch_failed", "launch", "scheduled");
}

static void test_start_of_an_adopted_one_has_its_limit(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'mode':'resume','timeouts':{'start':20,'create':500}");
    look_finds(w, "S1", "b1 ours kept rests");
    expect_call(w, "start b1");
    advance(w, 20000);
    expect_failed(w, "S1", "start_timeout", "start", "kept");
}

static void test_the_last_look_has_a_limit_too(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_last_probe(w, "S1", "b1");
    advance(w, 60 * 1000);
    expect_failed(w, "S1", "server_timeout", "probe", "kept");
}

static void test_deadline_ends_a_start(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'timeout_seconds':100,'timeouts':{'create':90,'launch':90}");
    expect_call(w, "create fleet.S1");
    made(w, "b1");
    advance(w, 60000);
    expect_call(w, "start b1");
    done(w, RUNS);
    advance(w, 39000);
    assert_null(w->batch);
    advance(w, 1000);
    expect_failed(w, "S1", "deadline_exceeded", "launch", "scheduled");
}

static void test_deadline_of_a_probe_is_the_servers(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'timeout_seconds':10");
    to_probe(w, "S1", "b1");
    advance(w, 10000);
    expect_failed(w, "S1", "server_timeout", "probe", "scheduled");
}

static void test_after_kept_no_deadline_fails_it(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'timeout_seconds':10");
    to_keep(w, "S1", "b1");
    advance(w, 9000);
    done(w, KEPT);
    expect_call(w, "probe b1");
    advance(w, 50000);
    assert_null(w->batch);
    done(w, ACCEPTS);
    expect_event(w, "S1", "session-ready");
}

static void test_an_absolute_deadline(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'deadline':'2023-11-14T22:13:30Z'"); /* ten seconds from now */
    expect_call(w, "create fleet.S1");
    advance(w, 9999);
    assert_null(w->batch);
    advance(w, 1);
    look_finds(w, "S1", "b1 mine ours provisional transient"); /* the create may have made it */
    expect_failed(w, "S1", "start_timeout", "create", "scheduled");
}

/* 2^64 ns and a minute from now. */
static void test_a_deadline_beyond_all_clocks(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'deadline':'2608-06-04T21:48:53Z','timeouts':{'create':500}");
    expect_call(w, "create fleet.S1");
    advance(w, 120 * 1000);
    assert_int_equal(w->cancels, 0);
    to_ready(w, "S1", "b1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_create_has_its_limit),
        WORLD_TEST(test_again_names_the_failure_of_its_deadline),
        WORLD_TEST(test_news_forget_what_was_waited_for),
        WORLD_TEST(test_server_has_its_limit),
        WORLD_TEST(test_launch_has_the_same_limit),
        WORLD_TEST(test_start_of_an_adopted_one_has_its_limit),
        WORLD_TEST(test_the_last_look_has_a_limit_too),
        WORLD_TEST(test_deadline_ends_a_start),
        WORLD_TEST(test_deadline_of_a_probe_is_the_servers),
        WORLD_TEST(test_after_kept_no_deadline_fails_it),
        WORLD_TEST(test_an_absolute_deadline),
        WORLD_TEST(test_a_deadline_beyond_all_clocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
