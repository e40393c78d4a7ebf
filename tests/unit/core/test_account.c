/* Our standing with the provider: create tokens and who waits for them, 429, a refused key. */
#include "tests/unit/core/fixture.h"

/* S1 has the only token, and S2 comes behind it. */
static void two_for_a_token(struct world *w, const char *members)
{
    few_tokens(w);
    start(w, "S1", "");
    start(w, "S2", members);
}

/* And S3 of another partition behind that. */
static void three_for_a_token(struct world *w)
{
    few_tokens(w);
    assign(w, 1, 0, NULL);
    start(w, "S1", "");
    start(w, "S2", "");
    job_at(w, 1, 0, "start", "S3", "");
}

/* S2's wait for a token is over, and there is no sandbox of an earlier delivery. */
static void expect_no_token(struct world *w, const char *code)
{
    look_misses(w, "S2");
    expect_failed(w, "S2", code, "queue", NULL);
}

/* Moves on until something happens; how long that took. */
static uint64_t wait_for_call(struct world *w)
{
    uint64_t begin = w->now_ns;
    size_t before = w->n_calls;
    for (int i = 0; i < 1000 && w->n_calls == before; i++)
        advance(w, 1000);
    assert_true(w->n_calls > before);
    return w->now_ns - begin;
}

/* ---- parked ---- */

static void test_a_start_without_a_token_is_parked(void **state)
{
    struct world *w = *state;
    few_tokens(w);
    start(w, "S1", "");
    expect_calls(w, 1);
    assert_true(w->open[0]);
    start(w, "S2", "");
    expect_calls(w, 1);
    assert_string_equal(phase_of(w, 0, 1), "parked");
    assert_int_equal(status_of(w).parked, 1);
    assert_int_equal(metric_value(M_JOBS_PARKED, 0), 1);
    assert_false(w->open[0]); /* nothing more is taken from its partition */
    assert_in_range(wait_for_call(w), 20 * NS_PER_S, 21 * NS_PER_S);
    expect_call(w, "create fleet.S2");
    assert_true(w->open[0]);
    assert_int_equal(status_of(w).parked, 0);
}

static void test_a_drain_does_not_wait_for_the_parked(void **state)
{
    struct world *w = *state;
    two_for_a_token(w, "");
    assert_int_equal(status_of(w).parked, 1);
    drain(w);
    assert_false(w->drained);
    fail_now(w, "S1");
    committed(w);
    assert_true(w->drained);
    expect_no_call(w, "create fleet.S2");
}

static void test_first_come_first_served(void **state)
{
    struct world *w = *state;
    three_for_a_token(w);
    assert_int_equal(status_of(w).parked, 2);
    wait_for_call(w);
    expect_call(w, "create fleet.S2");
    expect_no_call(w, "create fleet.S3");
    wait_for_call(w);
    expect_call(w, "create fleet.S3");
}

/* Tokens or not: who comes later waits behind those that wait. */
static void test_nobody_overtakes(void **state)
{
    struct world *w = *state;
    const struct rate blocked = blocked_for(5000);
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    ANSWER(w, .verdict = AGAIN, .after_ms = 1000, .code = ERR_RATE_LIMITED, .rate = &blocked);
    start(w, "S2", "");
    assert_int_equal(status_of(w).parked, 1);
    advance(w, 1500); /* S1 wants again: behind S2 */
    assert_int_equal(status_of(w).parked, 2);
    advance(w, 3499);
    expect_calls(w, 0);
    advance(w, 1);
    expect_calls(w, 2);
    assert_string_equal(w->calls[0].text, "create fleet.S2");
    assert_string_equal(w->calls[1].text, "create fleet.S1");
}

static void test_the_clock_begins_with_the_token(void **state)
{
    struct world *w = *state;
    two_for_a_token(w, "'timeout_seconds':18");
    uint64_t waited = wait_for_call(w);
    expect_call(w, "create fleet.S2");
    advance(w, 15000);
    to_ready(w, "S2", "b2");
    const cJSON *timings = json_get(w->event, "timings_ms");
    assert_in_range(json_int(timings, "queue", 0), waited / NS_PER_MS - 1000, waited / NS_PER_MS);
    assert_in_range(json_int(timings, "create", 0), 15000, 16000);
}

/* Who looked first and found nothing waits for its token without a clock as well. */
static void test_the_clock_begins_with_the_token_after_a_look(void **state)
{
    struct world *w = *state;
    two_for_a_token(w, "'mode':'resume','timeout_seconds':15,'timeouts':{'create':15}");
    expect_call(w, "find fleet.S2");
    advance(w, 2000);
    missing(w);
    assert_string_equal(phase_of(w, 0, 1), "parked");
    wait_for_call(w);
    to_ready(w, "S2", "b2");
    expect_field(w, "timings_ms.find", "2000");
    const cJSON *timings = json_get(w->event, "timings_ms");
    int64_t total = json_int(timings, "total", 0);
    assert_in_range(json_int(timings, "queue", 0), total - 2000 - 1000, total - 2000);
}

static void test_expired_while_parked(void **state)
{
    struct world *w = *state;
    two_for_a_token(w, "'expires_at':'2023-11-14T22:13:30Z'");
    advance(w, 10000);
    assert_int_equal(status_of(w).parked, 0);
    expect_no_token(w, "expired");
    assert_true(w->open[0]);
}

static void test_out_of_time_while_parked(void **state)
{
    struct world *w = *state;
    two_for_a_token(w, "'deadline':'2023-11-14T22:13:30Z'");
    advance(w, 10000);
    expect_no_token(w, "deadline_exceeded");
    expect_field(w, "error.message", "its deadline went by before its turn came");
}

/* A worker that stood still finds both gone by, the wait for the token first. */
static void test_out_of_time_when_its_token_came(void **state)
{
    struct world *w = *state;
    two_for_a_token(w, "'deadline':'2023-11-14T22:13:45Z'"); /* the token comes 20 s from now */
    w->now_ns += 30 * NS_PER_S;
    w->wall_ms += 30 * 1000;
    tick(w);
    assert_int_equal(w->cancels, 0);
    expect_calls(w, 2);
    expect_no_token(w, "deadline_exceeded");
    assert_int_equal(status_of(w).parked, 0);
}

static void test_cancelled_while_parked(void **state)
{
    struct world *w = *state;
    two_for_a_token(w, "");
    job_at(w, 0, 2, "delete", "S2", "");
    assert_int_equal(status_of(w).parked, 0);
    expect_no_token(w, "cancelled");
}

static void test_too_old_when_its_token_came(void **state)
{
    struct world *w = *state;
    w->config.jobs.max_age_seconds = 15;
    two_for_a_token(w, "");
    start(w, "S3", "");
    wait_for_call(w);
    expect_call(w, "find fleet.S2");
    expect_call(w, "find fleet.S3"); /* nor does it cost a token: the next one's turn at once */
}

static void test_a_partition_that_goes_frees_its_place(void **state)
{
    struct world *w = *state;
    three_for_a_token(w);
    lose(w, 0);
    assert_int_equal(status_of(w).parked, 1);
    wait_for_call(w);
    expect_call(w, "create fleet.S3");
}

static void test_a_share_of_nothing_parks(void **state)
{
    struct world *w = *state;
    w->config.providers[0].creates_per_minute = 0;
    world_restart(w);
    assign(w, 0, 0, NULL);
    start(w, "S1", "");
    assert_int_equal(status_of(w).parked, 1);
    advance(w, 3600 * 1000);
    assert_int_equal(status_of(w).parked, 1);
}

static void test_the_other_providers_tokens_are_its_own(void **state)
{
    struct world *w = *state;
    few_tokens(w);
    start(w, "S1", "");
    job_at(w, 0, 1, "start", "S2", "'provider':'other'");
    expect_call(w, "create fleet.S2");
}

/* ---- 429 ---- */

static void test_429_holds_the_scope_back(void **state)
{
    struct world *w = *state;
    const struct rate blocked = {
        .retry_after_ms = 5000, .limit = 600, .remaining = 0, .reset_s = -1};
    start(w, "S1", "");
    to_start(w, "S1", "b1");
    ANSWER(w, .verdict = AGAIN, .after_ms = 10, .code = ERR_RATE_LIMITED, .rate = &blocked);
    stop(w, "S2", "");
    start(w, "S3", ""); /* creates are another scope */
    expect_call(w, "create fleet.S3");
    expect_calls(w, 1);
    advance(w, 4999);
    expect_calls(w, 1);
    advance(w, 1);
    expect_calls(w, 3);
    expect_call(w, "start b1");
    expect_call(w, "find fleet.S2");
    assert_int_equal(metric_value(M_PROVIDER_REMAINING, SCOPE_GENERAL), 0);
}

static void test_rate_limited_to_the_end(void **state)
{
    struct world *w = *state;
    const struct rate blocked = blocked_for(600000);
    start(w, "S1", "'timeouts':{'create':30}");
    expect_call(w, "create fleet.S1");
    ANSWER(w, .verdict = AGAIN, .after_ms = 10, .code = ERR_RATE_LIMITED, .rate = &blocked);
    advance(w, 30000);
    look_misses(w, "S1"); /* the look before it is of another scope */
    expect_failed(w, "S1", "rate_limited", "create", NULL);
}

/* ---- the key ---- */

static void key_refused(struct world *w)
{
    start(w, "S1", "'timeouts':{'create':3000},'timeout_seconds':3000");
    to_start(w, "S1", "b1");
    ANSWER(w, .verdict = AGAIN, .after_ms = 1000, .code = ERR_UNAUTHORIZED, .rate = &refused_key);
    assert_true(status_of(w).unauthorized);
    assert_false(w->open[0]);
}

static void test_a_refused_key_stops_everything(void **state)
{
    struct world *w = *state;
    key_refused(w);
    advance(w, 59999);
    expect_calls(w, 0);
    advance(w, 1);
    expect_calls(w, 1);
    expect_call(w, "key daytona");
    ANSWER(w, .verdict = REFUSE, .rate = &refused_key);
    advance(w, 59999);
    expect_calls(w, 0);
    advance(w, 1);
    expect_call(w, "key daytona");
    ANSWER(w, .verdict = RETRY, .fault = FAULT_TIMEOUT); /* no word of the key */
    assert_true(status_of(w).unauthorized);
    advance(w, 60000);
    expect_call(w, "key daytona");
    done(w, 0);
    assert_false(status_of(w).unauthorized);
    assert_true(w->open[0]);
    expect_call(w, "start b1"); /* where it was */
}

static void test_who_is_parked_waits_for_the_key_too(void **state)
{
    struct world *w = *state;
    few_tokens(w);
    key_refused(w);
    start(w, "S2", "");
    assert_int_equal(status_of(w).parked, 1);
    advance(w, 60000);
    expect_calls(w, 1);
    expect_call(w, "key daytona");
    advance(w, 100000);
    expect_calls(w, 1);
    done(w, 0);
    expect_call(w, "create fleet.S2");
    expect_call(w, "start b1");
}

static void test_jobs_in_flight_end_with_their_time(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'timeout_seconds':30");
    expect_call(w, "create fleet.S1");
    ANSWER(w, .verdict = AGAIN, .after_ms = 1000, .code = ERR_UNAUTHORIZED,
           .message = "the key was refused", .rate = &refused_key);
    advance(w, 30000);
    expect_failed(w, "S1", "unauthorized", "create", NULL);
    expect_field(w, "error.message", "the key was refused");
}

/* Its step's limit, 120 s, does not run meanwhile. */
static void test_a_step_has_its_time_again_with_the_key(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'timeout_seconds':1000");
    to_start(w, "S1", "b1");
    ANSWER(w, .verdict = AGAIN, .after_ms = 1000, .code = ERR_UNAUTHORIZED, .rate = &refused_key);
    advance(w, 300000);
    expect_no_event(w, "S1");
    expect_call(w, "key daytona");
    done(w, 0);
    expect_call(w, "start b1");
    advance(w, 119999);
    expect_no_event(w, "S1");
    advance(w, 1);
    expect_failed(w, "S1", "unauthorized", "create", "scheduled"); /* what it waited for last */
}

/* After KEPT there is no deadline: then the step's limit is what ends it. */
static void test_after_kept_the_limit_runs_without_a_key(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_keep(w, "S1", "b1");
    ANSWER(w, .verdict = AGAIN, .set = KEPT, .after_ms = 1000, .rate = &refused_key,
           .box = "kept certain");
    expect_call(w, "probe b1");
    advance(w, 60000);
    expect_failed(w, "S1", "server_timeout", "probe", "kept");
}

static void test_probes_need_no_key(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    start(w, "S2", "");
    to_probe(w, "S1", "b1");
    expect_call(w, "create fleet.S2");
    ANSWER(w, .verdict = AGAIN, .after_ms = 1000, .rate = &refused_key);
    expect_call(w, "probe b1");
    again(w, 100);
    advance(w, 150);
    expect_call(w, "probe b1");
    done(w, ANSWERS);
    expect_calls(w, 0); /* the KEEP waits */
}

static void test_one_key_of_two_stops_the_taking(void **state)
{
    struct world *w = *state;
    job_at(w, 0, 0, "start", "S1", "'provider':'other'");
    start(w, "S2", "");
    expect_call(w, "create fleet.S1");
    ANSWER(w, .verdict = AGAIN, .after_ms = 1000, .rate = &refused_key);
    assert_false(w->open[0]);
    expect_call(w, "create fleet.S2"); /* the other provider's jobs go on */
    made(w, "b2");
    expect_call(w, "start b2");
    advance(w, 60000);
    expect_call(w, "key other");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_a_start_without_a_token_is_parked),
        WORLD_TEST(test_a_drain_does_not_wait_for_the_parked),
        WORLD_TEST(test_first_come_first_served),
        WORLD_TEST(test_nobody_overtakes),
        WORLD_TEST(test_the_clock_begins_with_the_token),
        WORLD_TEST(test_the_clock_begins_with_the_token_after_a_look),
        WORLD_TEST(test_expired_while_parked),
        WORLD_TEST(test_out_of_time_while_parked),
        WORLD_TEST(test_out_of_time_when_its_token_came),
        WORLD_TEST(test_cancelled_while_parked),
        WORLD_TEST(test_too_old_when_its_token_came),
        WORLD_TEST(test_a_partition_that_goes_frees_its_place),
        WORLD_TEST(test_a_share_of_nothing_parks),
        WORLD_TEST(test_the_other_providers_tokens_are_its_own),
        WORLD_TEST(test_429_holds_the_scope_back),
        WORLD_TEST(test_rate_limited_to_the_end),
        WORLD_TEST(test_a_refused_key_stops_everything),
        WORLD_TEST(test_who_is_parked_waits_for_the_key_too),
        WORLD_TEST(test_jobs_in_flight_end_with_their_time),
        WORLD_TEST(test_a_step_has_its_time_again_with_the_key),
        WORLD_TEST(test_after_kept_the_limit_runs_without_a_key),
        WORLD_TEST(test_probes_need_no_key),
        WORLD_TEST(test_one_key_of_two_stops_the_taking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
