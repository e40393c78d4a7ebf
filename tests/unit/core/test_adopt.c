/* A start job that finds a sandbox: whose it is, and what becomes of it. */
#include "tests/unit/core/fixture.h"

static void test_redelivery_looks_first(void **state)
{
    struct world *w = *state;
    assign_started(w, 0, 0, 1);
    start(w, "S0", "");
    start(w, "S1", "");
    start(w, "S2", "");
    expect_calls(w, 3);
    expect_call(w, "find fleet.S0");
    expect_call(w, "create fleet.S2");
    look_misses(w, "S1");
    to_start(w, "S1", "b1");
}

static void test_a_sandbox_that_was_named_is_looked_for(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'mode':'attach','sandbox':{'id':'x1'}");
    expect_calls(w, 1);
    expect_call(w, "find x1");
}

static void test_the_lane_remembers_for_a_minute(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_ready(w, "S1", "b1");
    committed(w);
    advance(w, 59900);
    start(w, "S1", "");
    expect_call(w, "find b1");
    found(w, "b1 ours kept runs");
    expect_call(w, "launch b1");
    refuse(w, ERR_LAUNCH_FAILED);
    expect_failed(w, "S1", "launch_failed", "launch", "kept");
    committed(w);
    advance(w, 60001);
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
}

/* ---- every mode against every kind of sandbox ---- */

struct meeting {
    const char *members, *box;
    const char *next;    /* the call that follows; NULL: it fails */
    const char *code;    /* then */
    const char *cleanup; /* then; NULL: without a sandbox */
};

static void meet(struct world *w, const struct meeting *m)
{
    start_again(w, "S1", m->members);
    look_finds(w, "S1", m->box);
    if (m->next) {
        expect_calls(w, 1);
        expect_call(w, m->next);
        return;
    }
    expect_calls(w, 0);
    expect_failed(w, "S1", m->code, "find", m->cleanup);
    expect_end(w, 30 * 60 * 1000); /* and nothing is destroyed */
}

static void test_who_meets_what(void **state)
{
    (void)state;
    static const struct meeting meetings[] = {
        {"", "b1 ours kept runs", "launch b1", NULL, NULL},
        {"", "b1 ours kept runs spec=same", "launch b1", NULL, NULL},
        {"", "b1 ours kept runs spec=other", "launch b1", NULL, NULL},
        {"", "b1 ours kept rests", "start b1", NULL, NULL},
        {"", "b1 ours kept error", "start b1", NULL, NULL},
        {"", "b1 ours kept transient", "start b1", NULL, NULL},
        {"", "b1 mine ours kept runs", "launch b1", NULL, NULL},
        {"", "b1 mine ours provisional runs spec=other", "launch b1", NULL, NULL},
        {"", "b1 mine ours provisional error", "start b1", NULL, NULL},
        {"", "b1 ours provisional runs", "launch b1", NULL, NULL},
        {"", "b1 ours provisional runs spec=same", "launch b1", NULL, NULL},
        {"", "b1 ours provisional rests spec=same", "start b1", NULL, NULL},
        {"", "b1 ours provisional runs spec=other", "stop b1", NULL, NULL},
        {"", "b1 ours provisional error spec=same", "stop b1", NULL, NULL},
        {"", "b1 kept runs", NULL, "session_exists", "none"},
        {"", "b1 provisional runs", NULL, "session_exists", "none"},
        {"'sandbox':{'on_drift':'fail'}", "b1 ours kept runs spec=other", NULL, "session_exists",
         "kept"},
        {"'sandbox':{'on_drift':'fail'}", "b1 ours kept runs spec=same", "launch b1", NULL, NULL},
        {"'sandbox':{'on_drift':'fail'}", "b1 ours kept runs", "launch b1", NULL, NULL},
        /* of another version of the worker, while a group is upgraded: says nothing */
        {"'sandbox':{'on_drift':'fail'}", "b1 ours kept runs spec=2:other", "launch b1", NULL,
         NULL},
        {"", "b1 ours provisional runs spec=2:other", "launch b1", NULL, NULL},
        {"'sandbox':{'on_drift':'fail'}", "b1 mine ours kept runs spec=other", "launch b1", NULL,
         NULL},

        {"'mode':'create'", "b1 ours kept runs", NULL, "session_exists", "kept"},
        {"'mode':'create'", "b1 ours kept rests spec=same", NULL, "session_exists", "kept"},
        {"'mode':'create'", "b1 mine ours kept runs", "launch b1", NULL, NULL},
        {"'mode':'create'", "b1 mine ours provisional runs", "launch b1", NULL, NULL},
        {"'mode':'create'", "b1 ours provisional runs spec=same", "stop b1", NULL, NULL},
        {"'mode':'create'", "b1 kept runs", NULL, "session_exists", "none"},

        {"'mode':'attach'", "b1 ours kept runs spec=other", "launch b1", NULL, NULL},
        {"'mode':'attach'", "b1 ours kept rests", "start b1", NULL, NULL},
        {"'mode':'attach'", "b1 ours provisional runs spec=same", NULL, "not_found", "none"},
        {"'mode':'attach'", "b1 kept runs", NULL, "session_exists", "none"},

        {"'mode':'resume'", "b1 ours kept rests", "start b1", NULL, NULL},
        {"'mode':'resume'", "b1 ours kept runs spec=other", "launch b1", NULL, NULL},
        {"'mode':'resume'", "b1 ours provisional runs spec=same", "launch b1", NULL, NULL},
        {"'mode':'resume'", "b1 ours provisional runs spec=other", "stop b1", NULL, NULL},
        {"'mode':'resume'", "b1 provisional runs", NULL, "session_exists", "none"},
    };
    for (size_t i = 0; i < ARRAY_LEN(meetings); i++) {
        struct world *w = world_new();
        meet(w, &meetings[i]);
        world_free(w);
    }
}

/* The sandbox that it finds runs: to the first probe. */
static void adopt(struct world *w, const char *members, const char *box)
{
    start_again(w, "S1", members);
    look_finds(w, "S1", box);
    expect_call(w, "launch b1");
    done(w, SERVER);
    expect_call(w, "probe b1");
}

static void test_a_kept_one_keeps_its_intervals(void **state)
{
    struct world *w = *state;
    adopt(w, "", "b1 ours kept runs spec=other");
    done(w, ANSWERS);
    expect_no_call(w, "keep b1");
    last_probe_to_ready(w, "S1", "b1");
    expect_field(w, "sandbox.outcome", "adopted");
    expect_field(w, "sandbox.drift", "true");
    expect_field(w, "sandbox.replaced", "false");
    assert_int_equal(metric_value(M_SANDBOXES_ADOPTED, 0), 1);
}

static void test_a_provisional_one_is_kept_when_adopted(void **state)
{
    struct world *w = *state;
    adopt(w, "", "b1 ours provisional runs spec=same");
    probe_to_ready(w, "S1", "b1");
    expect_field(w, "sandbox.outcome", "adopted");
    expect_field(w, "sandbox.drift", "false");
}

static void test_a_woken_one(void **state)
{
    struct world *w = *state;
    start_again(w, "S1", "");
    look_finds(w, "S1", "b1 ours kept rests");
    expect_call(w, "start b1");
    assert_string_equal(phase_of(w, 0, 0), "start");
    done(w, RUNS);
    kept_launch_to_ready(w, "S1", "b1");
    expect_field(w, "sandbox.outcome", "started");
}

static void test_our_own_from_before_counts_as_created(void **state)
{
    struct world *w = *state;
    adopt(w, "", "b1 mine ours kept runs spec=other");
    kept_probe_to_ready(w, "S1", "b1");
    expect_field(w, "sandbox.outcome", "created");
    expect_field(w, "sandbox.drift", "false");
    assert_int_equal(metric_value(M_SANDBOXES_ADOPTED, 0), 0);
}

static void test_attach_never_creates(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'mode':'attach'");
    look_misses(w, "S1");
    expect_calls(w, 0);
    expect_failed(w, "S1", "not_found", "find", NULL);
    expect_field(w, "error.retryable", "false");
}

static void test_attach_to_ready(void **state)
{
    struct world *w = *state;
    adopt(w, "'mode':'attach'", "b1 ours kept runs");
    kept_probe_to_ready(w, "S1", "b1");
    expect_field(w, "sandbox.outcome", "attached");
}

static void test_resume_says_that_it_replaced(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'mode':'resume'");
    look_misses(w, "S1");
    to_ready(w, "S1", "b1");
    expect_field(w, "sandbox.replaced", "true");
    expect_field(w, "sandbox.outcome", "created");
}

/* A 404 by name may be a stale one: the conflict tells. */
static void test_resume_of_one_that_was_not_seen(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'mode':'resume'");
    look_misses(w, "S1");
    expect_call(w, "create fleet.S1");
    ANSWER(w, .set = EXISTS | RUNS | KEPT, .box = "b1 ours kept runs");
    kept_launch_to_ready(w, "S1", "b1");
    expect_field(w, "sandbox.outcome", "adopted");
    expect_field(w, "sandbox.replaced", "false");
}

/* What an earlier delivery of the job made is not the one that was to be resumed. */
static void test_resume_taken_over_is_replaced(void **state)
{
    struct world *w = *state;
    adopt(w, "'mode':'resume'", "b1 mine ours kept runs");
    kept_probe_to_ready(w, "S1", "b1");
    expect_field(w, "sandbox.replaced", "true");
}

/* Nor is what an earlier job never made ready. */
static void test_resume_of_a_provisional_one_is_replaced(void **state)
{
    struct world *w = *state;
    adopt(w, "'mode':'resume'", "b1 ours provisional runs spec=same");
    probe_to_ready(w, "S1", "b1");
    expect_field(w, "sandbox.replaced", "true");
}

static void test_a_conflict_finds_it_as_well(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    ANSWER(w, .set = EXISTS | RUNS | KEPT, .box = "b1 ours kept runs");
    kept_launch_to_ready(w, "S1", "b1");
    expect_field(w, "sandbox.outcome", "adopted");
}

static void test_a_conflict_with_anothers(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    ANSWER(w, .set = EXISTS | RUNS, .box = "b1 foreign provisional runs");
    expect_failed(w, "S1", "session_exists", "create", "none");
    expect_end(w, 1000);
}

static void test_a_kept_one_in_error_stays(void **state)
{
    struct world *w = *state;
    start_again(w, "S1", "");
    look_finds(w, "S1", "b1 ours kept error");
    expect_call(w, "start b1");
    refuse(w, ERR_START_FAILED);
    expect_failed(w, "S1", "start_failed", "start", "kept");
    expect_end(w, 1000);
}

/* ---- clearing the way ---- */

static void in_the_way(struct world *w, const char *members)
{
    start_again(w, "S1", members);
    look_finds(w, "S1", "b1 ours provisional runs spec=other");
    expect_call(w, "stop b1");
}

static void test_what_is_in_the_way_is_cleared(void **state)
{
    struct world *w = *state;
    in_the_way(w, "'mode':'resume'");
    ANSWER(w, .set = RESTS | GONE);
    to_ready(w, "S1", "b2");
    expect_field(w, "sandbox.outcome", "created");
    expect_field(w, "sandbox.replaced", "true");
    expect_field(w, "sandbox.drift", "false");
    assert_int_equal(metric_value(M_SANDBOXES_DESTROYED, 0), 1);
}

/* A stop that was accepted frees the name later: no storm of looks meanwhile. */
static void test_its_name_is_awaited(void **state)
{
    struct world *w = *state;
    in_the_way(w, "");
    for (int i = 0; i < 3; i++) {
        expect_call(w, "stop b1");
        ANSWER(w, .set = RESTS);
        expect_calls(w, 0);
        advance(w, 399);
        expect_calls(w, 0);
        advance(w, 201);
        look_finds(w, "S1", "b1 ours provisional transient spec=other");
    }
    expect_call(w, "stop b1");
    ANSWER(w, .set = RESTS);
    advance(w, 600);
    look_misses(w, "S1");
    expect_call(w, "create fleet.S1");
}

static void test_somebody_keeps_what_was_in_the_way(void **state)
{
    struct world *w = *state;
    in_the_way(w, "");
    ANSWER(w, .set = RESTS);
    advance(w, 600);
    look_finds(w, "S1", "b1 ours kept rests spec=other");
    expect_call(w, "start b1");
}

static void test_clearing_has_a_limit(void **state)
{
    struct world *w = *state;
    in_the_way(w, "'timeouts':{'create':20}");
    advance(w, 20000);
    expect_failed(w, "S1", "provider_unavailable", "stop", "none");
}

/* ---- lost ---- */

static void test_lost_begins_again(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_probe(w, "S1", "b1");
    lost(w, "gone");
    expect_calls(w, 1);
    to_probe(w, "S1", "b2"); /* nothing of the old one's facts holds */
    probe_to_ready(w, "S1", "b2");
    expect_field(w, "sandbox.outcome", "created");
    expect_field(w, "attempts", "2");
}

static void test_lost_three_times_is_enough(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    for (int i = 0; i < 3; i++) {
        assert_null(w->batch);
        to_probe(w, "S1", "b1");
        lost(w, "gone");
    }
    expect_failed(w, "S1", "start_failed", "probe", "scheduled");
    expect_field(w, "attempts", "4");
}

/* At its last probe. */
static void adopt_and_lose(struct world *w, const char *members, const char *box, const char *how)
{
    adopt(w, members, box);
    done(w, ANSWERS);
    expect_call(w, "probe b1");
    lost(w, how);
}

/* Who looked first looks again, and here makes another one. */
static void adopt_in_vain(struct world *w, const char *members, const char *box)
{
    adopt_and_lose(w, members, box, "gone");
    look_misses(w, "S1");
    to_ready(w, "S1", "b2");
}

static void test_lost_after_a_look(void **state)
{
    struct world *w = *state;
    adopt_in_vain(w, "", "b1 ours kept runs spec=other");
    expect_field(w, "sandbox.outcome", "created");
    expect_field(w, "sandbox.drift", "false");
}

static void test_resume_lost_is_replaced(void **state)
{
    struct world *w = *state;
    adopt_in_vain(w, "'mode':'resume'", "b1 ours kept runs");
    expect_field(w, "sandbox.replaced", "true");
}

static void test_resume_lost_and_found_is_not_replaced(void **state)
{
    struct world *w = *state;
    adopt_and_lose(w, "'mode':'resume'", "b1 ours kept runs", "rests");
    look_finds(w, "S1", "b1 ours kept rests");
    kept_start_to_ready(w, "S1", "b1");
    expect_field(w, "sandbox.replaced", "false");
}

/* A fresh start whose own sandbox, kept already, stops under it. */
static void kept_and_lost(struct world *w)
{
    start(w, "S1", "");
    to_last_probe(w, "S1", "b1");
    lost(w, "rests");
    expect_calls(w, 1);
    expect_call(w, "find fleet.S1");
}

static void test_a_kept_one_is_looked_for_when_lost(void **state)
{
    struct world *w = *state;
    kept_and_lost(w);
    found(w, "b1 mine ours kept rests");
    kept_start_to_ready(w, "S1", "b1");
    expect_field(w, "sandbox.outcome", "created");
    expect_field(w, "attempts", "2");
}

static void test_a_kept_one_that_was_lost_is_named(void **state)
{
    struct world *w = *state;
    kept_and_lost(w);
    missing(w); /* not seen yet */
    expect_call(w, "create fleet.S1");
    refuse(w, ERR_SNAPSHOT_NOT_FOUND);
    look_finds(w, "S1", "b1 mine ours kept rests");
    expect_call(w, "start b1");
    refuse(w, ERR_START_FAILED);
    expect_failed(w, "S1", "start_failed", "start", "kept");
    expect_field(w, "sandbox.id", "b1");
    expect_end(w, 60 * 60 * 1000);
}

static void test_one_that_may_be_kept_is_looked_for_when_lost(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_keep(w, "S1", "b1");
    retry(w, ERR_PROVIDER_UNAVAILABLE);
    advance(w, 1000);
    expect_call(w, "keep b1");
    lost(w, "rests");
    expect_calls(w, 1);
    expect_call(w, "find fleet.S1");
}

static void test_attach_lost_fails(void **state)
{
    struct world *w = *state;
    adopt_and_lose(w, "'mode':'attach'", "b1 ours kept runs", NULL);
    expect_failed(w, "S1", "start_failed", "probe", "kept");
}

/* One exception to R1: its own provisional sandbox in error, which nobody can adopt. */
static void test_a_broken_one_is_removed_at_once(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    to_start(w, "S1", "b1");
    lost(w, "error");
    expect_call(w, "stop b1");
    ANSWER(w, .set = RESTS | GONE);
    to_ready(w, "S1", "b2");
}

/* ---- other providers ---- */

static void test_the_other_provider(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'provider':'other'");
    to_ready(w, "S1", "b1");
    expect_field(w, "provider", "other");
}

static void test_an_unknown_provider(void **state)
{
    struct world *w = *state;
    start(w, "S1", "'provider':'nobody'");
    expect_calls(w, 0);
    expect_failed(w, "S1", "invalid_job", "queue", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_redelivery_looks_first),
        WORLD_TEST(test_a_sandbox_that_was_named_is_looked_for),
        WORLD_TEST(test_the_lane_remembers_for_a_minute),
        cmocka_unit_test(test_who_meets_what),
        WORLD_TEST(test_a_kept_one_keeps_its_intervals),
        WORLD_TEST(test_a_provisional_one_is_kept_when_adopted),
        WORLD_TEST(test_a_woken_one),
        WORLD_TEST(test_our_own_from_before_counts_as_created),
        WORLD_TEST(test_attach_never_creates),
        WORLD_TEST(test_attach_to_ready),
        WORLD_TEST(test_resume_says_that_it_replaced),
        WORLD_TEST(test_resume_of_one_that_was_not_seen),
        WORLD_TEST(test_resume_taken_over_is_replaced),
        WORLD_TEST(test_resume_of_a_provisional_one_is_replaced),
        WORLD_TEST(test_a_conflict_finds_it_as_well),
        WORLD_TEST(test_a_conflict_with_anothers),
        WORLD_TEST(test_a_kept_one_in_error_stays),
        WORLD_TEST(test_what_is_in_the_way_is_cleared),
        WORLD_TEST(test_its_name_is_awaited),
        WORLD_TEST(test_somebody_keeps_what_was_in_the_way),
        WORLD_TEST(test_clearing_has_a_limit),
        WORLD_TEST(test_lost_begins_again),
        WORLD_TEST(test_lost_three_times_is_enough),
        WORLD_TEST(test_lost_after_a_look),
        WORLD_TEST(test_resume_lost_is_replaced),
        WORLD_TEST(test_resume_lost_and_found_is_not_replaced),
        WORLD_TEST(test_a_kept_one_is_looked_for_when_lost),
        WORLD_TEST(test_a_kept_one_that_was_lost_is_named),
        WORLD_TEST(test_one_that_may_be_kept_is_looked_for_when_lost),
        WORLD_TEST(test_attach_lost_fails),
        WORLD_TEST(test_a_broken_one_is_removed_at_once),
        WORLD_TEST(test_the_other_provider),
        WORLD_TEST(test_an_unknown_provider),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
