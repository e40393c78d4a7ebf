/* stop-session and delete-session. */
#include "tests/unit/core/fixture.h"

/* ---- stop ---- */

static void test_stop_of_a_running_one(void **state)
{
    struct world *w = *state;
    stop(w, "S1", "");
    look_finds(w, "S1", "b1 ours kept runs");
    expect_call(w, "stop b1");
    again(w, 500);
    expect_calls(w, 0);
    advance(w, 600);
    expect_call(w, "stop b1");
    ANSWER(w, .set = RESTS, .clear = RUNS, .box = "rests");
    expect_event(w, "S1", "session-stopped");
    expect_field(w, "sandbox.id", "b1");
    expect_field(w, "sandbox.was", "runs");
    expect_end(w, 1000);
}

static void test_stop_of_one_at_rest(void **state)
{
    struct world *w = *state;
    stop(w, "S1", "");
    look_finds(w, "S1", "b1 ours kept rests");
    expect_calls(w, 0);
    expect_event(w, "S1", "session-stopped");
    expect_field(w, "sandbox.was", "rests");
}

static void test_stop_of_a_provisional_one_destroys_it(void **state)
{
    struct world *w = *state;
    stop(w, "S1", "");
    look_finds(w, "S1", "b1 ours provisional runs");
    expect_call(w, "stop b1");
    ANSWER(w, .set = RESTS | GONE);
    expect_event(w, "S1", "session-stopped");
}

static void test_nothing_to_stop(void **state)
{
    struct world *w = *state;
    stop(w, "S1", "");
    look_misses(w, "S1");
    expect_failed(w, "S1", "not_found", "find", NULL);
}

static void test_stop_of_a_foreign_one(void **state)
{
    struct world *w = *state;
    stop(w, "S1", "");
    look_finds(w, "S1", "b1 kept runs");
    expect_failed(w, "S1", "session_exists", "find", "none");
}

static void test_stop_that_does_not_end(void **state)
{
    struct world *w = *state;
    stop(w, "S1", "");
    look_finds(w, "S1", "b1 ours kept runs");
    expect_call(w, "stop b1");
    advance(w, 120 * 1000);
    assert_int_equal(w->cancels, 1);
    expect_failed(w, "S1", "provider_unavailable", "stop", "kept");
}

static void test_stop_has_a_deadline(void **state)
{
    struct world *w = *state;
    stop(w, "S1", "'timeout_seconds':10");
    expect_call(w, "find fleet.S1");
    advance(w, 10000);
    expect_failed(w, "S1", "deadline_exceeded", "find", NULL);
}

static void test_stop_retries(void **state)
{
    struct world *w = *state;
    stop(w, "S1", "");
    for (int i = 0; i < 3; i++) {
        expect_call(w, "find fleet.S1");
        retry(w, ERR_PROVIDER_UNAVAILABLE);
        advance(w, 1000);
    }
    expect_failed(w, "S1", "provider_unavailable", "find", NULL);
}

static void test_stop_loses_it(void **state)
{
    struct world *w = *state;
    stop(w, "S1", "");
    look_finds(w, "S1", "b1 ours kept runs");
    expect_call(w, "stop b1");
    lost(w, NULL);
    expect_failed(w, "S1", "start_failed", "stop", "kept");
}

static void test_stop_by_id(void **state)
{
    struct world *w = *state;
    stop(w, "S1", "'sandbox':{'id':'x1'}");
    expect_call(w, "find x1");
}

static void test_stop_after_a_start_asks_by_its_id(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_ready(w, "S1", "b1");
    committed(w);
    stop(w, "S1", "");
    expect_call(w, "find b1");
    found(w, "b1 mine ours kept runs");
    expect_call(w, "stop b1");
    ANSWER(w, .set = RESTS);
    expect_event(w, "S1", "session-stopped");
    committed(w);
    delete (w, "S1", ""); /* it is remembered still */
    expect_call(w, "find b1");
    missing(w);
    expect_event(w, "S1", "session-deleted");
    committed(w);
    start(w, "S1", ""); /* and now forgotten */
    expect_call(w, "create fleet.S1");
}

/* ---- delete ---- */

static void test_delete_of_a_kept_one(void **state)
{
    struct world *w = *state;
    delete (w, "S1", "'metadata':{'x':1}");
    look_finds(w, "S1", "b1 ours kept runs job=session-jobs/0/0");
    expect_call(w, "delete b1");
    done(w, GONE);
    expect_event(w, "S1", "session-deleted");
    expect_field(w, "sandbox.id", "b1");
    expect_field(w, "sandbox.was", "runs");
    expect_field(w, "metadata", "{\"x\":1}");
    expect_end(w, 1000);
}

static void test_delete_of_nothing(void **state)
{
    struct world *w = *state;
    delete (w, "S1", "");
    look_misses(w, "S1");
    expect_event(w, "S1", "session-deleted");
    expect_field(w, "sandbox", "null");
}

static void test_delete_of_a_foreign_one(void **state)
{
    struct world *w = *state;
    delete (w, "S1", "");
    look_finds(w, "S1", "b1 kept runs");
    expect_failed(w, "S1", "session_exists", "find", "none");
}

static void test_delete_of_a_provisional_one_is_a_destroy(void **state)
{
    struct world *w = *state;
    delete (w, "S1", "");
    look_finds(w, "S1", "b1 ours provisional runs");
    expect_calls(w, 0);
    expect_event(w, "S1", "session-deleted"); /* reported at once */
    committed(w);
    destroy_to_stop(w, "b1");
}

static void test_a_late_delete_destroys_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *members, *box;
        const char *late; /* then the cleanup */
    } cases[] = {
        {"", "b1 ours kept runs job=session-jobs/0/6", "kept"},
        {"", "b1 ours provisional runs job=session-jobs/0/6", "none"},
        {"", "b1 ours kept runs job=session-jobs/0/5", NULL},
        {"", "b1 ours kept runs job=session-jobs/0/4", NULL},
        {"", "b1 ours kept runs job=session-jobs/1/6", NULL},  /* another partition's */
        {"", "b1 ours kept runs job=session-jobs/01/6", NULL}, /* not ours, nor a number */
        {"", "b1 ours kept runs job=session-jobs/0/6x", NULL},
        {"", "b1 ours kept runs job=6", NULL},
        {"", "b1 ours kept runs", NULL},
        {"'sandbox':{'id':'b1'}", "b1 ours kept runs job=session-jobs/0/6", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct world *w = world_new();
        assign(w, 0, 5, NULL);
        delete (w, "S1", cases[i].members);
        expect_calls(w, 1);
        w->current = w->calls[0];
        found(w, cases[i].box);
        if (cases[i].late) {
            expect_failed(w, "S1", "session_exists", "find", cases[i].late);
            expect_field(w, "error.message",
                         "sandbox b1 was made by the later job session-jobs/0/6");
            expect_end(w, 1000);
        } else {
            expect_call(w, "delete b1");
        }
        world_free(w);
    }
}

static bool told_late;

static void note_late(const struct deal *d, unsigned what, const struct reply *r, struct answer *a)
{
    told_late = d->late;
    fake_ops.answer(d, what, r, a);
}

/* From here on told_late is what the provider was told with the last answer. */
static void watch_late(struct world *w)
{
    static struct provider_ops watched;
    watched = fake_ops;
    watched.answer = note_late;
    w->fakes[0].provider.ops = &watched;
}

static void delete_is_out(struct world *w)
{
    delete (w, "S1", "'timeout_seconds':10");
    look_finds(w, "S1", "b1 ours kept runs");
    expect_call(w, "delete b1");
    start(w, "S1", "");
    advance(w, 10000);
}

/* The lane must not go on while a DELETE may still be carried out. */
static void test_delete_waits_for_its_answer(void **state)
{
    struct world *w = *state;
    delete_is_out(w);
    assert_null(w->batch);
    expect_calls(w, 1);
    advance(w, 10000);
    done(w, GONE);
    expect_event(w, "S1", "session-deleted");
}

static void test_delete_waits_for_the_look_after_it(void **state)
{
    struct world *w = *state;
    delete_is_out(w);
    retry(w, ERR_PROVIDER_UNAVAILABLE);
    advance(w, 1000);
    expect_call(w, "delete b1");
    done(w, GONE);
    expect_event(w, "S1", "session-deleted");
}

static void test_delete_does_not_wait_for_ever(void **state)
{
    struct world *w = *state;
    delete_is_out(w);
    advance(w, 59999);
    assert_null(w->batch);
    advance(w, 1);
    expect_failed(w, "S1", "provider_unavailable", "delete", "kept");
}

static void delete_waits_to_look(struct world *w)
{
    watch_late(w);
    delete (w, "S1", "'timeout_seconds':10");
    look_finds(w, "S1", "b1 ours kept runs");
    expect_call(w, "delete b1");
    start(w, "S1", "");
    advance(w, 9500);
    again(w, 1000);
    assert_false(told_late);
    advance(w, 500); /* its time is over, and no call is out */
    expect_calls(w, 0);
    assert_null(w->batch);
    assert_int_equal(status_of(w).unpublished, 0);
    advance(w, 1000);
    expect_calls(w, 1);
    expect_call(w, "delete b1");
}

static void test_delete_out_of_time_looks_once_more(void **state)
{
    struct world *w = *state;
    delete_waits_to_look(w);
    done(w, GONE);
    assert_true(told_late);
    expect_event(w, "S1", "session-deleted");
}

static void test_delete_that_the_look_refuses(void **state)
{
    struct world *w = *state;
    delete_waits_to_look(w);
    refuse(w, ERR_PROVIDER_UNAVAILABLE);
    assert_true(told_late);
    expect_failed(w, "S1", "provider_unavailable", "delete", "kept");
    committed(w);
    expect_call(w, "find b1"); /* only now the session's next job */
}

static void test_delete_gets_no_third_time(void **state)
{
    struct world *w = *state;
    delete_waits_to_look(w);
    again(w, 600000);
    advance(w, 58999);
    assert_null(w->batch);
    advance(w, 1);
    expect_failed(w, "S1", "provider_unavailable", "delete", "kept");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_stop_of_a_running_one),
        WORLD_TEST(test_stop_of_one_at_rest),
        WORLD_TEST(test_stop_of_a_provisional_one_destroys_it),
        WORLD_TEST(test_nothing_to_stop),
        WORLD_TEST(test_stop_of_a_foreign_one),
        WORLD_TEST(test_stop_that_does_not_end),
        WORLD_TEST(test_stop_has_a_deadline),
        WORLD_TEST(test_stop_retries),
        WORLD_TEST(test_stop_loses_it),
        WORLD_TEST(test_stop_by_id),
        WORLD_TEST(test_stop_after_a_start_asks_by_its_id),
        WORLD_TEST(test_delete_of_a_kept_one),
        WORLD_TEST(test_delete_of_nothing),
        WORLD_TEST(test_delete_of_a_foreign_one),
        WORLD_TEST(test_delete_of_a_provisional_one_is_a_destroy),
        cmocka_unit_test(test_a_late_delete_destroys_nothing),
        WORLD_TEST(test_delete_waits_for_its_answer),
        WORLD_TEST(test_delete_waits_for_the_look_after_it),
        WORLD_TEST(test_delete_does_not_wait_for_ever),
        WORLD_TEST(test_delete_out_of_time_looks_once_more),
        WORLD_TEST(test_delete_that_the_look_refuses),
        WORLD_TEST(test_delete_gets_no_third_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
