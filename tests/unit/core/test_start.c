/* A start job on its way to ready: fresh, retried, late. */
#include "tests/unit/core/fixture.h"

static void test_fresh_start_to_ready(void **state)
{
    struct world *w = *state;
    assert_true(w->open[0]);
    start(w, "S1", "'tenant':'acme','metadata':{'a':1}");
    assert_string_equal(phase_of(w, 0, 0), "create");
    expect_calls(w, 1);
    expect_call(w, "create fleet.S1");
    made(w, "b1");
    expect_call(w, "start b1");
    again(w, 200);
    expect_calls(w, 0);
    advance(w, 250);
    expect_call(w, "start b1");
    done(w, RUNS);
    expect_call(w, "launch b1");
    ANSWER(w, .set = SERVER, .box = "url=http://u token=t command=c1 warm port=4444 port=80");
    expect_call(w, "probe b1");
    done(w, ANSWERS);
    expect_call(w, "keep b1");
    done(w, KEPT);
    expect_call(w, "probe b1"); /* the last look, with the key */
    assert_null(w->batch);
    ANSWER(w, .set = ACCEPTS, .box = "key=k1");

    expect_batch(w, 1);
    expect_offset(w, 0, 1);
    expect_event(w, "S1", "session-ready");
    expect_field(w, "tenant", "acme");
    expect_field(w, "job_id", "session-jobs/0/0");
    expect_field(w, "metadata", "{\"a\":1}");
    expect_field(w, "provider", "daytona");
    expect_field(w, "attempts", "1");
    expect_field(w, "requests", "7");
    expect_field(w, "sandbox.id", "b1");
    expect_field(w, "sandbox.name", "fleet.S1");
    expect_field(w, "sandbox.outcome", "created");
    expect_field(w, "sandbox.replaced", "false");
    expect_field(w, "sandbox.drift", "false");
    expect_field(w, "sandbox.launch", "warm");
    expect_field(w, "sandbox.session_api_key", "k1");
    expect_field(w, "sandbox.preview_token", "t");
    expect_field(w, "sandbox.exposed_urls",
                 "[{\"name\":\"P4444\",\"url\":\"http://4444\",\"port\":4444},"
                 "{\"name\":\"P80\",\"url\":\"http://80\",\"port\":80}]");
    expect_field(w, "server.url", "http://u");
    expect_field(w, "server.command_id", "c1");
    assert_string_equal(phase_of(w, 0, 0), "publishing");
    assert_int_equal(view_of(w, 0).watermark, 0); /* done when committed, not before */
    committed(w);
    assert_null(phase_of(w, 0, 0));
    assert_int_equal(view_of(w, 0).watermark, 1);
    expect_quiet(w);
    advance(w, 3600 * 1000);
    expect_quiet(w);
}

static void test_timings_say_where_the_time_went(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    advance(w, 500);
    expect_call(w, "create fleet.S1");
    made(w, "b1");
    advance(w, 700); /* being created until it has run once */
    expect_call(w, "start b1");
    done(w, RUNS);
    advance(w, 30);
    expect_call(w, "launch b1");
    done(w, SERVER);
    advance(w, 40);
    expect_call(w, "probe b1");
    done(w, ANSWERS);
    advance(w, 50);
    expect_call(w, "keep b1");
    done(w, KEPT);
    advance(w, 60);
    last_probe_to_ready(w, "S1", "b1");
    expect_field(w, "timings_ms.queue", "0");
    expect_field(w, "timings_ms.find", "0");
    expect_field(w, "timings_ms.create", "1200");
    expect_field(w, "timings_ms.start", "0");
    expect_field(w, "timings_ms.launch", "30");
    expect_field(w, "timings_ms.probe", "100");
    expect_field(w, "timings_ms.keep", "50");
    expect_field(w, "timings_ms.total", "1380");
}

static void test_a_second_slot_runs_beside(void **state)
{
    struct world *w = *state;
    w->beside = 1 << LAUNCH | 1 << PROBE;
    start(w, "S1", "");
    to_start(w, "S1", "b1");
    done(w, RUNS);
    expect_calls(w, 2);
    expect_call(w, "launch+ b1");
    ANSWER(w, .verdict = AGAIN, .after_ms = 1000);
    expect_call(w, "launch b1");
    done(w, SERVER);
    expect_calls(w, 2); /* what slept in the phase before is forgotten */
    expect_call(w, "probe b1");
    done(w, ANSWERS);
    assert_int_equal(w->cancels, 1); /* the exit code is not watched any more */
    expect_calls(w, 1);
    expect_call(w, "keep b1");
    done(w, KEPT);
    expect_call(w, "probe+ b1");
    expect_call(w, "probe b1");
    done(w, ACCEPTS);
    expect_calls(w, 0);
    expect_event(w, "S1", "session-ready");
    expect_field(w, "requests", "9");
}

static void test_the_second_slot_may_end_the_job(void **state)
{
    struct world *w = *state;
    w->beside = 1 << PROBE;
    start(w, "S1", "");
    to_probe(w, "S1", "b1");
    expect_call(w, "probe+ b1");
    ANSWER(w, .verdict = REFUSE, .code = ERR_SERVER_EXITED, .box = "tail=bye");
    expect_calls(w, 0);
    expect_failed(w, "S1", "server_exited", "probe", "scheduled");
    expect_field(w, "error.log_tail", "bye");
}

static void test_a_stream_is_heard_until_it_says_something(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_start(w, "S1", "b1");
    ANSWER(w, .more = true);
    expect_calls(w, 1); /* the same call goes on */
    ANSWER(w, .more = true, .set = RUNS, .box = "runs");
    assert_int_equal(w->cancels, 1);
    expect_calls(w, 1);
    expect_call(w, "launch b1");
    ANSWER(w, .more = true, .verdict = AGAIN, .after_ms = 100);
    expect_calls(w, 0);
    assert_int_equal(w->cancels, 2);
    advance(w, 200);
    expect_call(w, "launch b1");
    ANSWER(w, .more = true, .verdict = REFUSE, .code = ERR_LAUNCH_FAILED);
    expect_calls(w, 0);
    expect_failed(w, "S1", "launch_failed", "launch", "scheduled");
}

static void test_late_answers_are_dropped(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    made(w, "b1");
    w->current.id = 1; /* the create's, once more */
    w->calls[w->n_calls++] = w->current;
    ANSWER(w, .verdict = REFUSE, .code = ERR_CREATE_FAILED);
    assert_null(w->batch);
    expect_call(w, "start b1");
}

static void test_retry_ends_after_three_attempts(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_probe(w, "S1", "b1");
    done(w, ANSWERS);
    for (int i = 0; i < 2; i++) {
        expect_call(w, "keep b1");
        retry(w, ERR_PROVIDER_UNAVAILABLE);
        assert_null(w->batch);
        expect_calls(w, 0);
        advance(w, 600);
    }
    expect_call(w, "keep b1");
    retry(w, ERR_PROVIDER_UNAVAILABLE);
    expect_call(w, "find b1"); /* a KEEP was sent: look */
    found(w, "b1 mine ours provisional runs");
    expect_failed(w, "S1", "provider_unavailable", "keep", "scheduled");
    expect_field(w, "error.http_status", "500");
    expect_field(w, "error.message", "try again");
    expect_field(w, "error.retryable", "true");
    expect_field(w, "attempts", "4");
}

static void test_success_forgets_earlier_attempts(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    retry(w, ERR_PROVIDER_UNAVAILABLE);
    advance(w, 10000);
    expect_call(w, "create fleet.S1");
    retry(w, ERR_PROVIDER_UNAVAILABLE);
    advance(w, 10000);
    to_probe(w, "S1", "b1");
    retry(w, ERR_UNHEALTHY);
    advance(w, 10000);
    expect_call(w, "probe b1");
    retry(w, ERR_UNHEALTHY);
    advance(w, 10000);
    probe_to_ready(w, "S1", "b1");
    expect_field(w, "attempts", "5");
}

static void test_retry_waits_as_long_as_it_is_told(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    ANSWER(w, .verdict = RETRY, .after_ms = 30000);
    advance(w, 29999);
    expect_calls(w, 0);
    advance(w, 1);
    expect_call(w, "create fleet.S1");
}

static void test_again_costs_no_attempt(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    made(w, "b1");
    for (int i = 0; i < 100; i++) {
        expect_call(w, "start b1");
        again(w, 100);
        advance(w, 120);
    }
    expect_call(w, "start b1");
    done(w, RUNS);
    launch_to_ready(w, "S1", "b1");
    expect_field(w, "attempts", "1");
}

static void test_yes_without_news_is_no_protocol(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    made(w, "b1");
    for (int i = 0; i < 8; i++) {
        assert_null(w->batch);
        expect_call(w, "start b1");
        done(w, 0);
    }
    assert_null(w->batch);
    expect_call(w, "start b1");
    done(w, 0);
    expect_failed(w, "S1", "provider_protocol", "create", "scheduled");
}

static void test_every_exposed_port_is_one_more_yes(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'server':{'expose':[{'name':'a','port':1001},{'name':'b','port':1002}]}");
    expect_call(w, "create fleet.S1");
    made(w, "b1");
    for (int i = 0; i < 10; i++) {
        expect_call(w, "start b1");
        done(w, 0);
    }
    expect_call(w, "start b1");
    done(w, RUNS);
    expect_call(w, "launch b1");
}

static void test_a_provider_without_words_is_a_bug(void **state)
{
    struct world *w = *state;
    w->dumb = 1 << LAUNCH;
    start(w, "S1", "");
    to_start(w, "S1", "b1");
    done(w, RUNS);
    expect_failed(w, "S1", "internal", "launch", "scheduled");
}

static void test_what_cannot_be_said_fails(void **state)
{
    struct world *w = *state;
    w->unsayable = 1 << LAUNCH;
    start(w, "S1", "");
    to_start(w, "S1", "b1");
    done(w, RUNS);
    expect_failed(w, "S1", "bad_command", "launch", "scheduled");
    expect_field(w, "error.message", "it cannot be said");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_fresh_start_to_ready),
        WORLD_TEST(test_timings_say_where_the_time_went),
        WORLD_TEST(test_a_second_slot_runs_beside),
        WORLD_TEST(test_the_second_slot_may_end_the_job),
        WORLD_TEST(test_a_stream_is_heard_until_it_says_something),
        WORLD_TEST(test_late_answers_are_dropped),
        WORLD_TEST(test_retry_ends_after_three_attempts),
        WORLD_TEST(test_success_forgets_earlier_attempts),
        WORLD_TEST(test_retry_waits_as_long_as_it_is_told),
        WORLD_TEST(test_again_costs_no_attempt),
        WORLD_TEST(test_yes_without_news_is_no_protocol),
        WORLD_TEST(test_every_exposed_port_is_one_more_yes),
        WORLD_TEST(test_a_provider_without_words_is_a_bug),
        WORLD_TEST(test_what_cannot_be_said_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
