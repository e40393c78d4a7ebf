/* A start job that fails: the look before it, what the event says, what is kept. */
#include "tests/unit/core/fixture.h"

/* ---- looking before failing ---- */

static void test_some_failures_look_first(void **state)
{
    (void)state;
    static const struct {
        enum error_code code;
        bool looks;
    } cases[] = {{ERR_QUOTA_EXCEEDED, true},     {ERR_NO_CAPACITY, true},
                 {ERR_RATE_LIMITED, true},       {ERR_FORBIDDEN, true},
                 {ERR_SNAPSHOT_NOT_FOUND, true}, {ERR_CREATE_FAILED, true},
                 {ERR_SESSION_EXISTS, false}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct world *w = world_new();
        assign(w, 0, 0, NULL);
        start(w, "S1", "");
        expect_call(w, "create fleet.S1");
        refuse(w, cases[i].code);
        expect_calls(w, cases[i].looks);
        if (cases[i].looks)
            look_misses(w, "S1");
        expect_failed(w, "S1", error_name(cases[i].code), "create", NULL);
        expect_field(w, "error.message", "no");
        expect_field(w, "error.provider_message", "NO!");
        expect_field(w, "error.http_status", "400");
        expect_field(w, "attempts", "1");
        world_free(w);
    }
}

static void out_of_quota(struct world *w, const char *members)
{
    start(w, "S1", members);
    expect_call(w, "create fleet.S1");
    refuse(w, ERR_QUOTA_EXCEEDED);
    expect_call(w, "find fleet.S1");
}

static void test_no_second_look(void **state)
{
    static const enum error_code codes[] = {ERR_FORBIDDEN, ERR_SNAPSHOT_NOT_FOUND,
                                            ERR_CREATE_FAILED};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
        struct world *w = world_new();
        assign(w, 0, 0, NULL);
        start(w, "S1", "'mode':'resume'");
        look_misses(w, "S1");
        expect_call(w, "create fleet.S1");
        refuse(w, codes[i]);
        expect_calls(w, 0);
        expect_failed(w, "S1", error_name(codes[i]), "create", NULL);
        world_free(w);
    }
}

static void test_its_own_kept_one_goes_on_to_ready(void **state)
{
    struct world *w = *state;
    out_of_quota(w, "'mode':'create'");
    found(w, "b1 mine ours kept rests");
    kept_start_to_ready(w, "S1", "b1");
    expect_field(w, "sandbox.outcome", "created");
}

/* An earlier delivery made it, and since then its snapshot has gone. */
static void test_its_own_kept_one_needs_no_create(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    refuse(w, ERR_SNAPSHOT_NOT_FOUND);
    look_finds(w, "S1", "b1 mine ours kept runs");
    kept_launch_to_ready(w, "S1", "b1");
    expect_field(w, "sandbox.outcome", "created");
}

static void test_going_on_is_no_endless_round(void **state)
{
    struct world *w = *state;
    out_of_quota(w, "");
    for (int i = 0; i < 3; i++) {
        if (i)
            expect_call(w, "find b1");
        found(w, "b1 mine ours kept rests");
        expect_call(w, "start b1");
        ANSWER(w, .verdict = REFUSE, .code = ERR_QUOTA_EXCEEDED, .box = "maybe");
    }
    expect_call(w, "find b1");
    found(w, "b1 mine ours kept rests");
    expect_failed(w, "S1", "quota_exceeded", "start", "kept");
}

static void test_a_kept_one_of_an_earlier_job_is_named(void **state)
{
    struct world *w = *state;
    out_of_quota(w, "");
    found(w, "b1 ours kept runs");
    expect_failed(w, "S1", "quota_exceeded", "create", "kept");
    expect_field(w, "sandbox.id", "b1");
    expect_end(w, 1000);
}

static void test_its_own_provisional_one_is_destroyed(void **state)
{
    struct world *w = *state;
    out_of_quota(w, "");
    found(w, "b1 mine ours provisional runs");
    expect_failed(w, "S1", "quota_exceeded", "create", "scheduled");
    committed(w);
    expect_call(w, "find b1");
}

static void test_a_provisional_one_of_another_is_left_to_the_sweep(void **state)
{
    struct world *w = *state;
    out_of_quota(w, "");
    found(w, "b1 ours provisional runs");
    expect_failed(w, "S1", "quota_exceeded", "create", "none");
    expect_end(w, 1000);
}

static void test_a_look_that_fails_tells_the_first_reason(void **state)
{
    struct world *w = *state;
    out_of_quota(w, "");
    refuse(w, ERR_FORBIDDEN);
    expect_failed(w, "S1", "quota_exceeded", "create", NULL);
}

static void test_a_look_may_be_tried_again(void **state)
{
    struct world *w = *state;
    out_of_quota(w, "");
    retry(w, ERR_PROVIDER_UNAVAILABLE);
    advance(w, 300);
    expect_call(w, "find fleet.S1");
    retry(w, ERR_PROVIDER_UNAVAILABLE);
    advance(w, 500);
    expect_call(w, "find fleet.S1");
    retry(w, ERR_PROVIDER_UNAVAILABLE);
    advance(w, 1000);
    look_misses(w, "S1"); /* as often as its time allows */
    expect_failed(w, "S1", "quota_exceeded", "create", NULL);
}

static void test_a_look_that_is_lost(void **state)
{
    struct world *w = *state;
    out_of_quota(w, "");
    lost(w, NULL);
    expect_failed(w, "S1", "quota_exceeded", "create", NULL);
}

static void test_a_look_takes_a_minute_at_most(void **state)
{
    struct world *w = *state;
    out_of_quota(w, "'timeout_seconds':10");
    advance(w, 59999);
    assert_null(w->batch);
    advance(w, 1);
    expect_failed(w, "S1", "quota_exceeded", "create", NULL);
}

/* ---- expired ---- */

static void test_expired_before_its_turn(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'expires_at':'2023-11-14T22:13:20Z'"); /* now */
    look_misses(w, "S1");
    expect_failed(w, "S1", "expired", "queue", NULL);
    expect_field(w, "error.retryable", "false");
}

static void test_too_old(void **state)
{
    struct world *w = *state;
    w->record_age_ms = UINT64_C(21600) * 1000;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    refuse(w, ERR_FORBIDDEN);
    w->record_age_ms++;
    start(w, "S2", "");
    expect_call(w, "find fleet.S2");
    found(w, "b2 mine ours kept runs"); /* it had been ready all along */
    expect_call(w, "launch b2");
}

static void expect_no_turn(struct world *w)
{
    expect_calls(w, 1);
    expect_call(w, "find fleet.S1");
    assert_int_equal(w->cancels, 0); /* no create was sent before it */
    missing(w);
    expect_failed(w, "S1", "deadline_exceeded", "queue", NULL);
    expect_field(w, "error.message", "its deadline went by before its turn came");
}

static void test_a_deadline_that_is_over(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'deadline':'2023-11-14T22:13:20Z'"); /* now */
    expect_no_turn(w);
}

static void test_a_deadline_before_its_turn_in_the_lane(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    start(w, "S1", "'deadline':'2023-11-14T22:13:30Z'");
    advance(w, 20000);
    fail_committed(w, "S1");
    expect_no_turn(w);
}

static void test_expiry_is_judged_once(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'expires_at':'2023-11-14T22:13:30Z'");
    to_probe(w, "S1", "b1");
    advance(w, 20000);
    probe_to_ready(w, "S1", "b1");
}

static void test_a_stop_does_not_expire(void **state)
{
    struct world *w = *state;
    w->record_age_ms = UINT64_C(999999) * 1000;
    stop(w, "S1", "");
    look_finds(w, "S1", "b1 ours kept rests");
    expect_event(w, "S1", "session-stopped");
}

/* ---- maybe kept ---- */

static void keep_unanswered(struct world *w)
{
    start(w, "S1", "");
    to_probe(w, "S1", "b1");
    done(w, ANSWERS);
    for (int i = 0; i < 3; i++) {
        expect_call(w, "keep b1");
        retry(w, ERR_PROVIDER_UNAVAILABLE);
        if (i < 2)
            advance(w, 1000);
    }
    expect_calls(w, 1);
    expect_call(w, "find b1");
    assert_null(w->batch);
}

static void test_maybe_kept_was_kept(void **state)
{
    struct world *w = *state;
    keep_unanswered(w);
    found(w, "b1 mine ours kept runs");
    last_probe_to_ready(w, "S1", "b1");
}

static void test_maybe_kept_was_not(void **state)
{
    struct world *w = *state;
    keep_unanswered(w);
    found(w, "b1 mine ours provisional runs");
    expect_failed(w, "S1", "provider_unavailable", "keep", "scheduled");
}

static void test_maybe_kept_is_gone(void **state)
{
    struct world *w = *state;
    keep_unanswered(w);
    missing(w);
    expect_failed(w, "S1", "provider_unavailable", "keep", NULL);
}

static void test_maybe_kept_and_no_look_destroys_nothing(void **state)
{
    struct world *w = *state;
    keep_unanswered(w);
    refuse(w, ERR_FORBIDDEN);
    expect_failed(w, "S1", "provider_unavailable", "keep", "kept");
    expect_field(w, "sandbox.id", "b1");
    expect_end(w, 60 * 60 * 1000);
}

static void test_a_kept_one_is_not_destroyed_by_a_late_failure(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_last_probe(w, "S1", "b1");
    refuse(w, ERR_UNAUTHORIZED);
    expect_failed(w, "S1", "unauthorized", "probe", "kept");
    expect_end(w, 60 * 60 * 1000);
}

/* ---- on_failure ---- */

/* From the look before the failed event to the KEEP. */
static void look_to_keep(struct world *w)
{
    expect_call(w, "find b1");
    found(w, "b1 mine ours provisional runs");
    expect_call(w, "keep b1");
}

static void test_delete_is_the_default(void **state)
{
    struct world *w = *state;
    server_exits(w, "S1", "", "b1");
    expect_calls(w, 0);
    expect_failed(w, "S1", "server_exited", "probe", "scheduled");
}

static void test_keep(void **state)
{
    struct world *w = *state;
    server_exits(w, "S1", "'on_failure':'keep'", "b1");
    look_to_keep(w);
    assert_null(w->batch); /* before the failed event is committed */
    done(w, KEPT);
    expect_failed(w, "S1", "server_exited", "probe", "kept");
    expect_end(w, 60 * 60 * 1000);
}

static void test_stop(void **state)
{
    struct world *w = *state;
    server_exits(w, "S1", "'on_failure':'stop'", "b1");
    look_to_keep(w);
    done(w, KEPT);
    expect_failed(w, "S1", "server_exited", "probe", "kept");
    expect_calls(w, 0);
    committed(w);
    expect_call(w, "find b1");
    found(w, "b1 ours kept runs");
    expect_call(w, "stop b1");
    ANSWER(w, .set = RESTS);
    expect_quiet(w);
    assert_int_equal(metric_value(M_SANDBOXES_DESTROYED, 0), 0);
}

/* Its KEEP went unanswered: a stop might destroy what the event called kept. */
static void test_stop_spares_what_is_provisional_still(void **state)
{
    struct world *w = *state;
    server_exits(w, "S1", "'on_failure':'stop'", "b1");
    look_to_keep(w);
    refuse(w, ERR_FORBIDDEN);
    expect_failed(w, "S1", "server_exited", "probe", "kept");
    committed(w);
    expect_call(w, "find b1");
    found(w, "b1 ours provisional runs");
    expect_quiet(w);
}

static void test_keep_finds_nothing_to_keep(void **state)
{
    struct world *w = *state;
    server_exits(w, "S1", "'on_failure':'keep'", "b1");
    expect_call(w, "find b1");
    missing(w);
    expect_calls(w, 0);
    expect_failed(w, "S1", "server_exited", "probe", NULL);
}

static void test_keep_of_what_is_kept_already(void **state)
{
    struct world *w = *state;
    start_again(w, "S1", "'on_failure':'stop'");
    look_finds(w, "S1", "b1 ours kept runs");
    expect_call(w, "launch b1");
    refuse(w, ERR_LAUNCH_FAILED);
    expect_calls(w, 0);
    expect_failed(w, "S1", "launch_failed", "launch", "kept");
    expect_end(w, 1000); /* it was there before: it is not stopped */
}

/* Nor what the last look was the first to see. */
static void test_stop_not_of_one_that_was_only_seen(void **state)
{
    struct world *w = *state;
    out_of_quota(w, "'on_failure':'stop'");
    found(w, "b1 ours kept runs");
    expect_failed(w, "S1", "quota_exceeded", "create", "kept");
    expect_end(w, 1000);
}

static void test_keep_not_of_one_in_error(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'on_failure':'keep'");
    to_start(w, "S1", "b1");
    ANSWER(w, .verdict = REFUSE, .code = ERR_START_FAILED, .box = "error");
    expect_failed(w, "S1", "start_failed", "create", "scheduled");
}

static void test_keep_has_a_minute(void **state)
{
    struct world *w = *state;
    server_exits(w, "S1", "'on_failure':'keep'", "b1");
    expect_call(w, "find b1");
    advance(w, 50000);
    found(w, "b1 mine ours provisional runs");
    expect_call(w, "keep b1");
    advance(w, 9999);
    assert_null(w->batch);
    advance(w, 1);
    expect_failed(w, "S1", "server_exited", "probe", "kept");
}

/* ---- what the event says ---- */

static void test_foreign_words_are_redacted(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'env':{'TOKEN':'env-secret-1'},'session_api_key':'key-secret-2'");
    to_probe(w, "S1", "b1");
    ANSWER(w, .verdict = REFUSE, .code = ERR_SERVER_EXITED, .message = "exit 3 env-secret-1",
           .words = "with key-secret-2",
           .box = "tail=x:env-secret-1:box-secret-3 key=box-secret-3");
    expect_failed(w, "S1", "server_exited", "probe", "scheduled");
    expect_field(w, "error.message", "exit 3 ***");
    expect_field(w, "error.provider_message", "with ***");
    expect_field(w, "error.log_tail", "x:***:***");
}

static void test_a_failure_without_words_says_its_code(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    ANSWER(w, .verdict = REFUSE);
    expect_failed(w, "S1", "internal", "create", NULL);
    expect_field(w, "error.message", "internal");
    expect_field(w, "error.http_status", "null");
    expect_field(w, "error.log_tail", "null");
}

static void test_secrets_may_be_left_out(void **state)
{
    struct world *w = *state;
    w->config.events.with_secrets = false;
    start(w, "S1", "");
    to_ready(w, "S1", "b1");
    const cJSON *sandbox = json_get(w->event, "sandbox");
    assert_non_null(json_get(sandbox, "id"));
    assert_null(json_get(sandbox, "session_api_key"));
    assert_null(json_get(sandbox, "preview_token"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_some_failures_look_first),
        cmocka_unit_test(test_no_second_look),
        WORLD_TEST(test_its_own_kept_one_goes_on_to_ready),
        WORLD_TEST(test_its_own_kept_one_needs_no_create),
        WORLD_TEST(test_going_on_is_no_endless_round),
        WORLD_TEST(test_a_kept_one_of_an_earlier_job_is_named),
        WORLD_TEST(test_its_own_provisional_one_is_destroyed),
        WORLD_TEST(test_a_provisional_one_of_another_is_left_to_the_sweep),
        WORLD_TEST(test_a_look_that_fails_tells_the_first_reason),
        WORLD_TEST(test_a_look_may_be_tried_again),
        WORLD_TEST(test_a_look_that_is_lost),
        WORLD_TEST(test_a_look_takes_a_minute_at_most),
        WORLD_TEST(test_expired_before_its_turn),
        WORLD_TEST(test_too_old),
        WORLD_TEST(test_a_deadline_that_is_over),
        WORLD_TEST(test_a_deadline_before_its_turn_in_the_lane),
        WORLD_TEST(test_expiry_is_judged_once),
        WORLD_TEST(test_a_stop_does_not_expire),
        WORLD_TEST(test_maybe_kept_was_kept),
        WORLD_TEST(test_maybe_kept_was_not),
        WORLD_TEST(test_maybe_kept_is_gone),
        WORLD_TEST(test_maybe_kept_and_no_look_destroys_nothing),
        WORLD_TEST(test_a_kept_one_is_not_destroyed_by_a_late_failure),
        WORLD_TEST(test_delete_is_the_default),
        WORLD_TEST(test_keep),
        WORLD_TEST(test_stop),
        WORLD_TEST(test_stop_spares_what_is_provisional_still),
        WORLD_TEST(test_keep_finds_nothing_to_keep),
        WORLD_TEST(test_keep_of_what_is_kept_already),
        WORLD_TEST(test_stop_not_of_one_that_was_only_seen),
        WORLD_TEST(test_keep_not_of_one_in_error),
        WORLD_TEST(test_keep_has_a_minute),
        WORLD_TEST(test_foreign_words_are_redacted),
        WORLD_TEST(test_a_failure_without_words_says_its_code),
        WORLD_TEST(test_secrets_may_be_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
