/* Whose time runs when: a start's with its token, a stop's from the head of its lane, a record's
 * age from its timestamp, if it has one. */
#include "tests/unit/core/fixture.h"

/* ---- age ---- */

static void test_a_record_without_a_timestamp_has_no_age(void **state)
{
    struct world *w = *state;
    w->record_age_ms = w->wall_ms;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
}

static void test_no_limit_of_age(void **state)
{
    struct world *w = *state;
    w->config.jobs.max_age_seconds = 0;
    w->record_age_ms = UINT64_C(40) * 365 * 86400 * 1000;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
}

static void test_an_age_to_the_millisecond(void **state)
{
    struct world *w = *state;
    w->config.jobs.max_age_seconds = 60;
    w->record_age_ms = 60000;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    w->record_age_ms = 60001;
    start(w, "S2", "");
    look_misses(w, "S2"); /* the look before a failure that leaves it open */
    expect_failed(w, "S2", "expired", "queue", NULL);
}

/* ---- a stop and a delete have no token to wait for ---- */

static void expect_late(struct world *w, const char *session, const char *code)
{
    advance(w, 4990);
    expect_no_event(w, session);
    assert_int_equal(status_of(w).unpublished, 0);
    advance(w, 20);
    expect_event(w, session, "session-failed");
    expect_field(w, "error.code", code);
}

static void test_a_stop_runs_out_of_time(void **state)
{
    struct world *w = *state;
    stop(w, "S1", "'timeout_seconds':5");
    expect_call(w, "find fleet.S1");
    expect_late(w, "S1", "deadline_exceeded");
}

static void test_a_stop_that_waits_in_its_lane_loses_no_time(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_start(w, "S1", "b1");
    stop(w, "S1", "'timeout_seconds':5");
    advance(w, 20000);
    again(w, 1000); /* now it notices */
    expect_failed(w, "S1", "cancelled", "create", "scheduled");
    committed(w);
    expect_call(w, "find fleet.S1");
    expect_late(w, "S1", "deadline_exceeded");
}

/* ---- once it is kept, the deadline is past it ---- */

static void expect_ready_after_deadline(struct world *w)
{
    expect_call(w, "keep b1");
    advance(w, 8000);
    done(w, KEPT);
    expect_call(w, "probe b1");
    again(w, 1000);
    advance(w, 4000); /* 12 s of 10 */
    assert_int_equal(status_of(w).unpublished, 0);
    assert_null(w->batch);
    last_probe_to_ready(w, "S1", "b1");
}

static void test_kept_is_past_its_deadline(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'timeout_seconds':10");
    to_probe(w, "S1", "b1");
    done(w, ANSWERS);
    expect_ready_after_deadline(w);
}

static void test_adopted_and_kept_is_past_its_deadline(void **state)
{
    struct world *w = *state;
    lose(w, 0);
    start_again(w, "S1", "'timeout_seconds':10");
    look_finds(w, "S1", "b1 ours provisional runs spec=same");
    expect_call(w, "launch b1");
    done(w, SERVER);
    expect_call(w, "probe b1");
    done(w, ANSWERS);
    expect_ready_after_deadline(w);
    expect_field(w, "sandbox.outcome", "adopted");
}

/* A kept one that it only uses is not its own to wait for. */
static void test_what_was_kept_before_does_not_stop_the_clock(void **state)
{
    struct world *w = *state;
    lose(w, 0);
    start_again(w, "S1", "'timeout_seconds':10");
    look_finds(w, "S1", "b1 ours kept runs");
    expect_call(w, "launch b1");
    advance(w, 9900);
    assert_int_equal(status_of(w).unpublished, 0);
    advance(w, 200);
    expect_failed(w, "S1", "deadline_exceeded", "launch", "kept");
}

/* No stop is taken while it is being made: that it is stopped is settled, and done afterwards. */
static void test_a_stop_of_what_is_being_made(void **state)
{
    struct world *w = *state;
    stop(w, "S1", "");
    look_finds(w, "S1", "b1 ours provisional transient");
    expect_calls(w, 0);
    expect_event(w, "S1", "session-stopped");
    expect_field(w, "sandbox.was", "transient");
    committed(w);
    expect_call(w, "find b1");
    assert_int_equal(status_of(w).destroys, 1);
}

/* ---- what an event says of it ---- */

static void test_a_refusal_says_so_little(void **state)
{
    struct world *w = *state;
    record_at(w, 0, 0, "S1", "{'type':7,'tenant':'t'}");
    expect_event(w, "S1", "session-failed");
    expect_field(w, "attempts", "1");
    expect_field(w, "requests", "0");
    expect_field(w, "provider", "null");
    expect_field(w, "sandbox", "null");
    expect_field(w, "error.step", "queue");
    expect_field(w, "error.retryable", "false");
    expect_field(w, "job_id", "session-jobs/0/0");
}

static void test_a_failure_says_how_often_and_how_long(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'tenant':'t'");
    expect_call(w, "create fleet.S1");
    retry(w, ERR_PROVIDER_UNAVAILABLE);
    advance(w, 20000);
    fail_now(w, "S1");
    expect_failed(w, "S1", "session_exists", "create", NULL);
    expect_field(w, "attempts", "2");
    expect_field(w, "requests", "2");
    expect_field(w, "tenant", "t");
    expect_field(w, "provider", "daytona");
    expect_field(w, "error.http_status", "400");
    expect_field(w, "error.provider_message", "NO!");
}

/* Only who asks for the sandbox that was there is told that it is another one. */
static void test_lost_and_made_again_is_not_replaced(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_launch(w, "S1", "b1");
    lost(w, "gone");
    to_ready(w, "S1", "b2");
    expect_field(w, "sandbox.replaced", "false");
    expect_field(w, "sandbox.outcome", "created");
    expect_field(w, "attempts", "2");
}

static void test_resumed_is_not_replaced(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'mode':'resume'");
    look_finds(w, "S1", "b1 ours kept runs");
    kept_launch_to_ready(w, "S1", "b1");
    expect_field(w, "sandbox.replaced", "false");
}

/* ---- a provider that this worker does not have ---- */

static void test_a_provider_that_is_gone(void **state)
{
    struct world *w = *state;
    struct provider_config renamed = w->config.providers[1];
    renamed.name = (char *)(uintptr_t)"renamed";
    w->fakes[1].provider.cfg = &renamed; /* the parser knows it still, the core does not */
    start(w, "S1", "'provider':'other'");
    expect_calls(w, 0);
    expect_failed(w, "S1", "invalid_job", "queue", NULL);
    w->fakes[1].provider.cfg = &w->config.providers[1];
}

/* ---- yes without an end ---- */

static unsigned yes_until_it_ends(struct world *w, const char *call)
{
    unsigned n = 0;
    for (; n < 100 && w->n_calls > 0; n++) {
        expect_call(w, call);
        done(w, 0);
    }
    return n;
}

static void test_yes_for_ever_is_no_answer(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_start(w, "S1", "b1");
    assert_int_equal(yes_until_it_ends(w, "start b1"), 9);
    expect_failed(w, "S1", "provider_protocol", "create", "scheduled");
}

/* Each port that is exposed may take an answer of its own. */
static void test_ports_take_answers(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'server':{'expose':[{'name':'a','port':81},{'name':'b','port':82}]}");
    to_start(w, "S1", "b1");
    assert_int_equal(yes_until_it_ends(w, "start b1"), 11);
}

static void test_yes_for_ever_to_a_destroy(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_destroy(w, "S1", "b1");
    found(w, "b1 ours provisional runs");
    assert_int_equal(yes_until_it_ends(w, "stop b1"), 9);
    assert_int_equal(status_of(w).destroys, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_a_record_without_a_timestamp_has_no_age),
        WORLD_TEST(test_no_limit_of_age),
        WORLD_TEST(test_an_age_to_the_millisecond),
        WORLD_TEST(test_a_stop_runs_out_of_time),
        WORLD_TEST(test_a_stop_that_waits_in_its_lane_loses_no_time),
        WORLD_TEST(test_kept_is_past_its_deadline),
        WORLD_TEST(test_adopted_and_kept_is_past_its_deadline),
        WORLD_TEST(test_what_was_kept_before_does_not_stop_the_clock),
        WORLD_TEST(test_a_stop_of_what_is_being_made),
        WORLD_TEST(test_a_refusal_says_so_little),
        WORLD_TEST(test_a_failure_says_how_often_and_how_long),
        WORLD_TEST(test_lost_and_made_again_is_not_replaced),
        WORLD_TEST(test_resumed_is_not_replaced),
        WORLD_TEST(test_a_provider_that_is_gone),
        WORLD_TEST(test_yes_for_ever_is_no_answer),
        WORLD_TEST(test_ports_take_answers),
        WORLD_TEST(test_yes_for_ever_to_a_destroy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
