/* What a start tells about itself while it goes on: where it is, once a second at most. */
#include "tests/unit/core/fixture.h"

static struct world *with_topic(struct world *w)
{
    free(w->config.topics.progress);
    w->config.topics.progress = strdup("progress");
    return w;
}

static void expect_told(struct world *w, unsigned times, const char *last)
{
    assert_int_equal(w->progress, times);
    assert_string_equal(w->told, last);
}

static void test_nothing_without_a_topic(void **state)
{
    struct world *w = *state;
    start(w, "S1", "");
    advance(w, 2000);
    to_ready(w, "S1", "b1");
    assert_int_equal(w->progress, 0);
}

static void test_every_step_that_lasts_is_told(void **state)
{
    struct world *w = with_topic(*state);
    start(w, "S1", "");
    expect_told(w, 1, "create session-jobs/0/0/1700000000000");
    advance(w, 1500);
    to_probe(w, "S1", "b1"); /* launch, and at once probe */
    expect_told(w, 2, "launch session-jobs/0/0/1700000001500");
    advance(w, 999);
    expect_told(w, 2, "launch session-jobs/0/0/1700000001500");
    advance(w, 1);
    expect_told(w, 3, "probe session-jobs/0/0/1700000002500");
    advance(w, 5000);
    assert_int_equal(w->progress, 3); /* it has not moved since */
    probe_to_ready(w, "S1", "b1");
    expect_told(w, 4, "keep session-jobs/0/0/1700000007500");
    committed(w);
    advance(w, 5000);
    assert_int_equal(w->progress, 4);
}

static void test_what_fails_within_the_second_is_not_told(void **state)
{
    struct world *w = with_topic(*state);
    start(w, "S1", "");
    to_probe(w, "S1", "b1");
    expect_told(w, 1, "create session-jobs/0/0/1700000000000");
    refuse(w, ERR_SERVER_EXITED);
    advance(w, 3000);
    expect_told(w, 1, "create session-jobs/0/0/1700000000000");
    expect_failed(w, "S1", "server_exited", "probe", "scheduled");
}

/* Its last look is a step too, but no longer one towards ready. */
static void test_no_progress_of_what_fails(void **state)
{
    struct world *w = with_topic(*state);
    start(w, "S1", "");
    expect_call(w, "create fleet.S1");
    advance(w, 2000);
    refuse(w, ERR_QUOTA_EXCEEDED);
    expect_call(w, "find fleet.S1");
    advance(w, 2000);
    expect_told(w, 1, "create session-jobs/0/0/1700000000000");
}

static void test_each_session_has_its_own_second(void **state)
{
    struct world *w = with_topic(*state);
    start(w, "S1", "");
    advance(w, 500);
    start(w, "S2", "");
    expect_told(w, 2, "create session-jobs/0/1/1700000000500");
}

static void test_a_stop_is_short_and_says_nothing(void **state)
{
    struct world *w = with_topic(*state);
    stop(w, "S1", "");
    expect_call(w, "find fleet.S1");
    advance(w, 2000);
    assert_int_equal(w->progress, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_nothing_without_a_topic),
        WORLD_TEST(test_every_step_that_lasts_is_told),
        WORLD_TEST(test_what_fails_within_the_second_is_not_told),
        WORLD_TEST(test_no_progress_of_what_fails),
        WORLD_TEST(test_each_session_has_its_own_second),
        WORLD_TEST(test_a_stop_is_short_and_says_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
