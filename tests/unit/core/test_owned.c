/* What is handed over on the ways that are seldom gone: freed there, once, or the address sanitizer
 * says so. And what is left of a sandbox that nobody sees any more. */
#include "tests/unit/core/fixture.h"

#include "common/secret.h"
#include "worker/core/offsets.h"

static double note_adopted;

/* ---- jobs that are parsed and not taken ---- */

static void test_a_job_that_was_done_before(void **state)
{
    struct world *w = *state;
    assign(w, 1, 5, NULL);
    start(w, "S0", "");
    w->parse_all = true; /* as a host that does not ask */
    job_at(w, 0, 0, "start", "S0", "'env':{'A':'long enough'}");
    assert_int_equal(metric_value(M_JOBS_SKIPPED, 0), 1);
    assert_int_equal(status_of(w).in_flight, 1);
}

static void test_a_job_of_a_partition_that_is_not_ours(void **state)
{
    struct world *w = *state;
    w->parse_all = true;
    job_at(w, 2, 7, "start", "S1", "");
    start(w, "S2", "");
    expect_calls(w, 1);
    assert_int_equal(status_of(w).in_flight, 1);
}

static void test_a_job_that_kills(void **state)
{
    static struct offsets o;
    struct world *w = *state;
    struct buf text;
    offsets_init(&o, 10);
    o.strikes = 3;
    o.suspect = 10;
    buf_init(&text, OFFSETS_TEXT_MAX);
    offsets_encode(&o, &text);
    assign(w, 1, 10, buf_text(&text));
    buf_done(&text);
    w->parse_all = true;
    job_at(w, 1, 10, "start", "S1", "");
    look_misses(w, "S1");
    expect_failed(w, "S1", "poison", "queue", NULL);
    assert_int_equal(w->batch->n_messages, 2); /* with its dead letter */
}

/* ---- pages of a list ---- */

static void test_a_page_that_fails_and_names_the_next(void **state)
{
    struct world *w = *state;
    to_listing(w, 60);
    ANSWER(w, .verdict = RETRY, .code = ERR_PROVIDER_UNAVAILABLE, .next = "page2");
    expect_calls(w, 0);
    advance(w, 80000); /* the next round is of the first page again */
    expect_call(w, "list session-jobs/0 -");
    ANSWER(w, .next = "page2");
    expect_call(w, "list session-jobs/0 page2");
    lose(w, 0);
    expect_calls(w, 0);
}

/* ---- a sandbox that was kept perhaps, and is gone ---- */

static void to_last_look(struct world *w)
{
    start(w, "S1", "");
    to_keep(w, "S1", "b1");
    refuse(w, ERR_PROVIDER_PROTOCOL);
    expect_call(w, "find b1"); /* the KEEP may have been carried out */
}

static void test_gone_at_the_last_look(void **state)
{
    struct world *w = *state;
    to_last_look(w);
    ANSWER(w, .set = LOOKED, .clear = EXISTS | RUNS | KEPT, .box = "gone"); /* its id is known */
    expect_failed(w, "S1", "provider_protocol", "keep", NULL);
    committed(w);
    expect_quiet(w); /* there is nothing to destroy */
    assert_int_equal(status_of(w).destroys, 0);
}

static void test_kept_and_gone_at_the_last_look(void **state)
{
    struct world *w = *state;
    to_last_look(w);
    ANSWER(w, .set = LOOKED, .clear = EXISTS | RUNS | KEPT, .box = "kept gone");
    expect_failed(w, "S1", "provider_protocol", "keep", NULL);
    committed(w);
    expect_quiet(w);
}

static void test_not_ours_any_more_at_the_last_look(void **state)
{
    struct world *w = *state;
    to_last_look(w);
    found(w, "b1 foreign provisional runs");
    expect_failed(w, "S1", "provider_protocol", "keep", "none");
    committed(w);
    expect_quiet(w);
}

static void test_still_provisional_at_the_last_look(void **state)
{
    struct world *w = *state;
    to_last_look(w);
    found(w, "b1 ours mine provisional runs");
    expect_failed(w, "S1", "provider_protocol", "keep", "scheduled");
    committed(w);
    expect_call(w, "find b1");
    assert_int_equal(status_of(w).destroys, 1);
}

/* A create that failed may have made one all the same, or an earlier delivery of the job has: it is
 * looked for, unless the failure itself says that there is none. */
static void test_failures_that_leave_it_open(void **state)
{
    static const enum error_code open[] = {
        ERR_EXPIRED,      ERR_QUOTA_EXCEEDED,       ERR_NO_CAPACITY,       ERR_RATE_LIMITED,
        ERR_CANCELLED,    ERR_PROVIDER_UNAVAILABLE, ERR_PROVIDER_PROTOCOL, ERR_DEADLINE_EXCEEDED,
        ERR_POISON,       ERR_START_TIMEOUT,        ERR_FORBIDDEN,         ERR_SNAPSHOT_NOT_FOUND,
        ERR_CREATE_FAILED};
    struct world *w = *state;
    for (int code = ERR_NONE + 1; code < N_ERRORS; code++) {
        bool looks = false;
        for (size_t i = 0; i < ARRAY_LEN(open); i++)
            looks |= open[i] == (enum error_code)code;
        advance(w, 2000); /* there is a token */
        start(w, "S1", "");
        expect_call(w, "create fleet.S1");
        refuse(w, (enum error_code)code);
        expect_calls(w, looks);
        if (looks)
            look_misses(w, "S1");
        expect_failed(w, "S1", error_name((enum error_code)code),
                      code == ERR_EXPIRED ? "queue" : "create", NULL);
        committed(w);
    }
}

/* What does not exist cannot be kept for its user to look at. */
static void test_nothing_is_left_to_keep(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'on_failure':'keep'");
    to_launch(w, "S1", "b1");
    ANSWER(w, .verdict = REFUSE, .code = ERR_LAUNCH_FAILED, .clear = EXISTS | RUNS, .box = "gone");
    expect_calls(w, 0);
    expect_failed(w, "S1", "launch_failed", "launch", NULL);
}

/* ---- another job's sandbox that is in the way ---- */

static void to_stop_in_the_way(struct world *w)
{
    lose(w, 0);
    assign_started(w, 0, 0, 9);
    note_adopted = metric_value(M_SANDBOXES_ADOPTED, 0);
    start(w, "S1", "");
    look_finds(w, "S1", "b0 ours provisional runs spec=other");
    expect_call(w, "stop b0");
}

static void test_in_the_way_is_not_adopted(void **state)
{
    struct world *w = *state;
    to_stop_in_the_way(w);
    ANSWER(w, .set = RESTS | GONE, .clear = EXISTS, .box = "gone");
    expect_call(w, "create fleet.S1");
    assert_true(metric_value(M_SANDBOXES_ADOPTED, 0) == note_adopted);
}

/* That it runs no more is not yet that it rests. */
static void test_in_the_way_until_it_rests(void **state)
{
    struct world *w = *state;
    to_stop_in_the_way(w);
    ANSWER(w, .verdict = AGAIN, .clear = RUNS, .after_ms = 1000);
    expect_calls(w, 0);
    advance(w, 1300);
    expect_calls(w, 1);
    expect_call(w, "stop b0");
}

/* ---- garbage whose destroy waits for its next try ---- */

static void test_garbage_is_not_found_twice(void **state)
{
    static const char garbage[] = "b1 ours provisional runs session=S1 job=session-jobs/0/3";
    struct world *w = *state;
    w->config.n_providers = 1;
    to_listing(w, 5);
    ANSWER(w, .boxes = garbage);
    for (int i = 0; i < 5; i++) { /* it waits longer and longer */
        expect_call(w, "find b1");
        retry(w, ERR_PROVIDER_UNAVAILABLE);
        for (int ms = 0; ms < 60000 && (w->n_calls == 0 || w->calls[0].text[0] == 'l'); ms += 100) {
            if (w->n_calls) {
                expect_call(w, "list session-jobs/0 -");
                ANSWER(w, .boxes = garbage);
            }
            advance(w, 100);
        }
    }
    assert_int_equal(metric_value(M_SANDBOXES_SWEPT, 0), 1);
    assert_int_equal(status_of(w).destroys, 1);
}

/* It is given up when it has taken too long, not when the worker has lived for long. */
static void test_a_late_destroy_has_its_time_as_well(void **state)
{
    struct world *w = *state;
    advance(w, 3600000);
    start(w, "S1", "");
    to_destroy(w, "S1", "b1");
    retry(w, ERR_PROVIDER_UNAVAILABLE);
    assert_int_equal(status_of(w).destroys, 1);
    advance(w, 1000);
    expect_call(w, "find b1");
}

/* ---- secrets of a sandbox ---- */

static void expect_redacted(const char *text, const char *wanted)
{
    struct buf out;
    buf_init(&out, 1000);
    redact(text, strlen(text), &out);
    assert_string_equal(buf_text(&out), wanted);
    buf_done(&out);
}

/* Its key is hidden in what its server wrote, and forgotten afterwards: the text may be another's.
 */
static void test_a_key_is_a_secret_of_its_own_event(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_start(w, "S1", "b1");
    ANSWER(w, .verdict = REFUSE, .code = ERR_SERVER_EXITED, .message = "no",
           .box = "key=k-9876543210 tail=says:k-9876543210");
    expect_failed(w, "S1", "server_exited", "create", "scheduled");
    expect_field(w, "error.log_tail", "says:***");
    expect_redacted("k-9876543210", "k-9876543210");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_a_job_that_was_done_before),
        WORLD_TEST(test_a_job_of_a_partition_that_is_not_ours),
        WORLD_TEST(test_a_job_that_kills),
        WORLD_TEST(test_a_page_that_fails_and_names_the_next),
        WORLD_TEST(test_gone_at_the_last_look),
        WORLD_TEST(test_kept_and_gone_at_the_last_look),
        WORLD_TEST(test_not_ours_any_more_at_the_last_look),
        WORLD_TEST(test_still_provisional_at_the_last_look),
        WORLD_TEST(test_failures_that_leave_it_open),
        WORLD_TEST(test_nothing_is_left_to_keep),
        WORLD_TEST(test_in_the_way_is_not_adopted),
        WORLD_TEST(test_in_the_way_until_it_rests),
        WORLD_TEST(test_garbage_is_not_found_twice),
        WORLD_TEST(test_a_late_destroy_has_its_time_as_well),
        WORLD_TEST(test_a_key_is_a_secret_of_its_own_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
