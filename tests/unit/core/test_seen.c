/* Looking in from outside: what the admin port's pages are made of. */
#include "tests/unit/core/fixture.h"

#include <stdio.h>

/* ---- sessions ---- */

static struct {
    struct session_view view;
    char box_id[16], waiting_for[64];
    size_t n;
} seen;

/* Those of partition 0; the last one stays. */
static void see_session(void *arg, const struct session_view *v)
{
    (void)arg;
    seen.n++;
    seen.view = *v;
    snprintf(seen.box_id, sizeof seen.box_id, "%s", v->box_id ? v->box_id : "");
    snprintf(seen.waiting_for, sizeof seen.waiting_for, "%s", v->waiting_for ? v->waiting_for : "");
}

static const struct session_view *look(const struct world *w)
{
    seen.n = 0;
    core_each_session(w->core, w->now_ns, see_session, NULL);
    return &seen.view;
}

static void test_a_session_as_it_goes(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'tenant':'acme','job_id':'j1'");
    const struct session_view *v = look(w);
    assert_int_equal(seen.n, 1);
    assert_string_equal(v->session_id, "S1");
    assert_string_equal(v->job_id, "j1");
    assert_string_equal(v->tenant, "acme");
    assert_string_equal(v->provider, "daytona");
    assert_int_equal(v->partition, 0);
    assert_int_equal(v->offset, 0);
    assert_string_equal(v->phase, "create");
    assert_int_equal(v->attempts, 1);
    assert_int_equal(v->requests, 1);
    assert_int_equal(v->age_ms, 0);
    advance(w, 2000);
    assert_int_equal(look(w)->age_ms, 2000);
    assert_int_equal(look(w)->step_ms, 2000);
}

static void test_a_session_says_what_it_waits_for(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    advance(w, 1000);
    retry(w, ERR_PROVIDER_UNAVAILABLE);
    assert_int_equal(look(w)->attempts, 2);
    assert_string_equal(seen.waiting_for, "try again");
    advance(w, 20000);
    to_start(w, "S1", "b1");
    look(w);
    assert_string_equal(seen.box_id, "b1");
    assert_string_equal(seen.waiting_for, "");
    assert_int_equal(seen.view.requests, 3);
    assert_int_equal(seen.view.age_ms, 21000);
}

static void test_the_phases_beside_the_steps(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    start(w, "S1", "");
    assert_string_equal(phase_of(w, 0, 1), "queued");
    to_launch(w, "S1", "b1");
    refuse(w, ERR_BAD_COMMAND);
    assert_string_equal(phase_of(w, 0, 0), "publishing");
    expect_batch(w, 1);
    committed(w);
    assert_string_equal(phase_of(w, 0, 1), "create");
    assert_string_equal(phase_of(w, 0, -1), "destroying");
    assert_int_equal(status_of(w).destroys, 1);
}

/* ---- partitions ---- */

static void test_a_partition(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    start(w, "S2", "");
    start(w, "S3", "");
    fail_committed(w, "S3");
    struct partition_view v = view_of(w, 0);
    assert_int_equal(v.watermark, 0);
    assert_int_equal(v.taken, 2);
    assert_int_equal(v.finished_above, 1);
    assert_true(v.open);
    assert_false(v.one_by_one);
}

/* ---- budgets ---- */

static struct budget_view budgets[2];
static size_t n_budgets;

static void see_budget(void *arg, const struct budget_view *v)
{
    (void)arg;
    assert_true(n_budgets < ARRAY_LEN(budgets));
    budgets[n_budgets++] = *v;
}

static const struct budget_view *budget_of(const struct world *w, size_t i)
{
    n_budgets = 0;
    core_each_budget(w->core, w->now_ns, see_budget, NULL);
    assert_int_equal(n_budgets, 2);
    return &budgets[i];
}

static void test_budgets(void **state)
{
    struct world *w = *state;
    const struct budget_view *v = budget_of(w, 0);
    assert_string_equal(v->provider, "daytona");
    assert_string_equal(budgets[1].provider, "other");
    assert_true(v->limit > 299.9 && v->limit < 300.1);
    assert_true(v->share > 74.9 && v->share < 75.1); /* one of four partitions */
    assert_true(v->tokens > 7.4 && v->tokens < 7.6); /* a tenth of it at once */
    assert_int_equal(v->blocked_ms, 0);
    assert_int_equal(v->parked, 0);
    start(w, "S1", "");
    v = budget_of(w, 0);
    assert_true(v->tokens > 6.4 && v->tokens < 6.6);
    assert_true(budgets[1].tokens > 7.4);
}

static void test_a_budget_that_is_blocked(void **state)
{
    const struct rate later = blocked_for(5000);
    struct world *w = *state;
    start(w, "S1", "");
    start(w, "S2", "");
    expect_call(w, "create fleet.S1");
    ANSWER(w, .verdict = AGAIN, .after_ms = 100, .code = ERR_RATE_LIMITED, .rate = &later);
    advance(w, 1000);
    const struct budget_view *v = budget_of(w, 0);
    assert_int_equal(v->blocked_ms, 4000);
    assert_int_equal(v->parked, 1);
    assert_int_equal(budgets[1].parked, 0);
    advance(w, 4000);
    assert_int_equal(budget_of(w, 0)->blocked_ms, 0);
    assert_int_equal(budgets[0].parked, 0);
}

/* What other requests are told does not count as a block of creations. */
static void test_another_scope_that_is_blocked(void **state)
{
    const struct rate later = blocked_for(5000);
    struct world *w = *state;
    start(w, "S1", "");
    to_start(w, "S1", "b1");
    ANSWER(w, .verdict = AGAIN, .after_ms = 100, .rate = &later);
    assert_int_equal(budget_of(w, 0)->blocked_ms, 0);
}

/* ---- the whole ---- */

static void test_status(void **state)
{
    struct world *w = *state;
    struct core_status s = status_of(w);
    assert_int_equal(s.partitions, 1);
    assert_false(s.draining || s.unauthorized || s.committing);
    start(w, "S1", "");
    start(w, "S2", "");
    fail_now(w, "S1");
    expect_batch(w, 1);
    fail_now(w, "S2");
    s = status_of(w);
    assert_true(s.committing);
    assert_int_equal(s.unpublished, 1);
    assert_int_equal(s.in_flight, 0);
    drain(w);
    assert_true(status_of(w).draining);
}

static void test_status_of_a_refused_key(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    ANSWER(w, .verdict = AGAIN, .code = ERR_UNAUTHORIZED, .rate = &refused_key);
    assert_true(status_of(w).unauthorized);
    assert_true(budget_of(w, 0)->unauthorized);
    assert_false(budgets[1].unauthorized);
}

/* ---- progress ---- */

static void expect_status(struct world *w, const char *status)
{
    advance(w, 1000); /* it is told once a second at most */
    assert_string_equal(w->told_status, status);
}

static void test_progress_in_the_words_of_openhands(void **state)
{
    struct world *w = *state;
    free(w->config.topics.progress);
    w->config.topics.progress = strdup("progress");
    start(w, "S1", "");
    expect_status(w, "STATUS$BUILDING_RUNTIME 0 1");
    to_start(w, "S1", "b1");
    done(w, RUNS);
    expect_status(w, "STATUS$RUNTIME_STARTED 1000 1");
    expect_call(w, "launch b1");
    done(w, SERVER);
    expect_status(w, "STATUS$STARTING_RUNTIME 2000 1");
    assert_int_equal(w->progress, 3);
}

/* A step is told when it begins; while it lasts there is nothing new. */
static void test_progress_is_told_once_a_step(void **state)
{
    struct world *w = *state;
    free(w->config.topics.progress);
    w->config.topics.progress = strdup("progress");
    start(w, "S1", "");
    to_start(w, "S1", "b1");
    for (int i = 0; i < 10; i++) {
        again(w, 1000);
        advance(w, 1300);
        expect_call(w, "start b1");
    }
    assert_int_equal(w->progress, 1);
}

/* ---- the outbox ---- */

static void test_an_outbox_that_is_done_is_empty(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    outbox_done(&w->out);
    assert_null(w->out.effects);
    assert_int_equal(w->out.n, 0);
    assert_int_equal(w->out.cap, 0);
    expect_call(w, "create fleet.S1");
    made(w, "b1"); /* and may be used again */
    expect_call(w, "start b1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_a_session_as_it_goes),
        WORLD_TEST(test_a_session_says_what_it_waits_for),
        WORLD_TEST(test_the_phases_beside_the_steps),
        WORLD_TEST(test_a_partition),
        WORLD_TEST(test_budgets),
        WORLD_TEST(test_a_budget_that_is_blocked),
        WORLD_TEST(test_another_scope_that_is_blocked),
        WORLD_TEST(test_status),
        WORLD_TEST(test_status_of_a_refused_key),
        WORLD_TEST(test_progress_in_the_words_of_openhands),
        WORLD_TEST(test_progress_is_told_once_a_step),
        WORLD_TEST(test_an_outbox_that_is_done_is_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
