/* budget to the last nanosecond: when the next token is there, what a header's word is worth and
 * for how long. test_budget.c has the rules, this one their edges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "worker/core/budget.h"

enum { CREATES, GENERAL };
static const struct scope creates = {"sandbox-create", true};
static const struct scope general = {"authenticated", false};
static struct budget b;

static void setup_budget(int per_minute, size_t owned, size_t total)
{
    const struct provider_config cfg = {.creates_per_minute = per_minute, .budget_share = 1.0};
    budget_init(&b, &cfg, 0);
    budget_share(&b, owned, total, 0);
}

static uint64_t when(uint64_t now_ns)
{
    return budget_when(&b, &creates, CREATES, now_ns);
}

static void take(unsigned n, uint64_t now_ns)
{
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(when(now_ns), now_ns);
        budget_take(&b, &creates, now_ns);
    }
}

static void note(const struct scope *scope, uint8_t index, int remaining, int reset_s,
                 uint64_t now_ns)
{
    const struct rate r = {.limit = 300, .remaining = remaining, .reset_s = reset_s};
    budget_note(&b, scope, index, &r, now_ns);
}

/* ---- tokens ---- */

/* 60 a minute: six at once, the others 0.9 a second. */
static void test_the_next_token(void **state)
{
    (void)state;
    setup_budget(60, 1, 1);
    take(6, 0);
    assert_in_range(when(0), 1111111111, 1111111113);
    assert_in_range(when(500 * NS_PER_MS), 1111111111, 1111111113);
    assert_in_range(when(1100 * NS_PER_MS), 1111111111, 1111111113);
    take(1, 1111111113);
    assert_in_range(when(1111111113), 2222222222, 2222222226);
}

/* A share of less than two is not eaten up by the one that may come at once. */
static void test_a_small_share_still_gives(void **state)
{
    (void)state;
    setup_budget(6, 1, 4);
    take(1, 0);
    assert_in_range(when(0), 80 * NS_PER_S, 80 * NS_PER_S + 2); /* 0.75 a minute */
}

static void test_tokens_are_told(void **state)
{
    (void)state;
    setup_budget(60, 1, 1);
    take(6, 0);
    assert_true(budget_tokens(&b, 0) < 0.001);
    assert_true(budget_tokens(&b, NS_PER_S) > 0.899 && budget_tokens(&b, NS_PER_S) < 0.901);
    assert_true(budget_tokens(&b, 3600 * NS_PER_S) < 6.001);
    assert_true(budget_tokens(&b, 0) < 0.001); /* looking has changed nothing */
}

/* What the old share has earned until then is there under the new one, as far as that goes. */
static void test_a_new_share_begins_with_what_was_earned(void **state)
{
    (void)state;
    setup_budget(60, 1, 1);
    take(6, 0);
    budget_share(&b, 0, 1, 10 * NS_PER_S);
    assert_true(budget_tokens(&b, 10 * NS_PER_S) > 0.999);
}

static void test_taking_counts_what_has_come_meanwhile(void **state)
{
    (void)state;
    setup_budget(60, 1, 1);
    take(6, 0);
    budget_take(&b, &creates, 10 * NS_PER_S);
    assert_true(budget_tokens(&b, 10 * NS_PER_S) < 5.001);
}

/* A clock that stands still, or goes back, gives nothing. */
static void test_time_goes_forward_only(void **state)
{
    (void)state;
    setup_budget(60, 1, 1);
    take(6, 10 * NS_PER_S);
    assert_true(when(9 * NS_PER_S) > 9 * NS_PER_S);
    assert_in_range(when(10 * NS_PER_S), 11 * NS_PER_S, 12 * NS_PER_S);
}

static void test_what_costs_nothing_waits_for_nothing(void **state)
{
    (void)state;
    setup_budget(60, 0, 1);
    assert_int_equal(budget_when(&b, NULL, SCOPE_FREE, 0), 0);
    assert_int_equal(budget_when(&b, &general, GENERAL, 0), 0);
    assert_int_equal(when(0), NEVER);
}

/* ---- what is spare at the end of a window ---- */

/* 300 a minute, 10 s to go: 50 are due to everybody; a quarter of the other 150 is this worker's.
 */
static void test_spare_is_shared_carefully(void **state)
{
    (void)state;
    setup_budget(300, 1, 10); /* three at once */
    take(3, 0);
    note(&creates, CREATES, 200, 10, 0);
    take(37, 0);
    assert_true(when(0) > 0);
}

static void test_spare_is_news_for_a_second(void **state)
{
    (void)state;
    setup_budget(60, 1, 10);
    take(1, 0);
    note(&creates, CREATES, 40, 10, 0);
    assert_int_equal(when(NS_PER_S - 1), NS_PER_S - 1);
    assert_true(when(NS_PER_S) > NS_PER_S);
}

static void test_nothing_is_spare_before_the_last_quarter(void **state)
{
    (void)state;
    setup_budget(60, 1, 10);
    take(1, 0);
    note(&creates, CREATES, 60, 16, 0);
    assert_true(when(0) > 0);
    note(&creates, CREATES, 60, 15, 0);
    assert_int_equal(when(0), 0);
    note(&creates, CREATES, -1, 15, 0); /* not said: what was spare before is no news any more */
    assert_true(when(0) > 0);
    note(&creates, CREATES, 60, -1, 0);
    assert_true(when(0) > 0);
    note(&creates, CREATES, 60, 0, 0); /* the window ends now */
    assert_int_equal(when(0), 0);
}

static void test_nothing_is_spare_when_all_is_due(void **state)
{
    (void)state;
    setup_budget(60, 1, 10);
    take(1, 0);
    note(&creates, CREATES, 10, 15, 0);
    assert_true(when(0) > 0);
    note(&creates, CREATES, 18, 15, 0); /* three quarters of one */
    assert_true(when(0) > 0);
    note(&creates, CREATES, 19, 15, 0);
    assert_int_equal(when(0), 0);
}

/* ---- blocked ---- */

static void test_the_last_of_a_window_blocks(void **state)
{
    (void)state;
    setup_budget(300, 1, 1);
    note(&creates, CREATES, 0, 10, NS_PER_S);
    assert_int_equal(when(NS_PER_S), 11 * NS_PER_S);
    assert_int_equal(when(11 * NS_PER_S), 11 * NS_PER_S);
    note(&creates, CREATES, 0, 2, 2 * NS_PER_S); /* no earlier by that */
    assert_int_equal(when(2 * NS_PER_S), 11 * NS_PER_S);
    note(&creates, CREATES, 1, 20, 12 * NS_PER_S);
    assert_int_equal(when(12 * NS_PER_S), 12 * NS_PER_S);
    note(&creates, CREATES, 0, 0, 12 * NS_PER_S); /* it is over already */
    assert_int_equal(when(12 * NS_PER_S), 12 * NS_PER_S);
}

static void test_a_longer_block_stays(void **state)
{
    (void)state;
    const struct rate longer = {
        .retry_after_ms = 9000, .limit = -1, .remaining = -1, .reset_s = -1};
    const struct rate shorter = {
        .retry_after_ms = 2000, .limit = -1, .remaining = -1, .reset_s = -1};
    setup_budget(300, 1, 1);
    budget_note(&b, &creates, CREATES, &longer, 0);
    budget_note(&b, &creates, CREATES, &shorter, NS_PER_S);
    assert_int_equal(when(NS_PER_S), 9 * NS_PER_S);
    assert_int_equal(budget_when(&b, &general, GENERAL, NS_PER_S), 0);
}

/* Only creations are worth stopping for before the provider says so. */
static void test_other_scopes_run_to_their_end(void **state)
{
    (void)state;
    setup_budget(60, 1, 10);
    take(1, 0);
    note(&general, GENERAL, 0, 10, NS_PER_S);
    assert_int_equal(budget_when(&b, &general, GENERAL, NS_PER_S), 0);
    note(&creates, CREATES, 60, 10, NS_PER_S);
    note(&general, GENERAL, 5, 10, NS_PER_S); /* and say nothing of what is spare */
    assert_int_equal(when(NS_PER_S), NS_PER_S);
}

static void test_a_call_of_no_scope_is_noted_nowhere(void **state)
{
    (void)state;
    const struct rate late = {.retry_after_ms = 9000, .limit = -1, .remaining = -1, .reset_s = -1};
    setup_budget(300, 1, 1);
    budget_note(&b, NULL, SCOPE_FREE, &late, 0);
    budget_note(&b, NULL, SCOPES_MAX, &late, 0);
    for (uint8_t i = 0; i < SCOPES_MAX; i++)
        assert_int_equal(b.blocked_until[i], 0);
    assert_int_equal(when(0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_next_token),
        cmocka_unit_test(test_a_small_share_still_gives),
        cmocka_unit_test(test_tokens_are_told),
        cmocka_unit_test(test_a_new_share_begins_with_what_was_earned),
        cmocka_unit_test(test_taking_counts_what_has_come_meanwhile),
        cmocka_unit_test(test_time_goes_forward_only),
        cmocka_unit_test(test_what_costs_nothing_waits_for_nothing),
        cmocka_unit_test(test_spare_is_shared_carefully),
        cmocka_unit_test(test_spare_is_news_for_a_second),
        cmocka_unit_test(test_nothing_is_spare_before_the_last_quarter),
        cmocka_unit_test(test_nothing_is_spare_when_all_is_due),
        cmocka_unit_test(test_the_last_of_a_window_blocks),
        cmocka_unit_test(test_a_longer_block_stays),
        cmocka_unit_test(test_other_scopes_run_to_their_end),
        cmocka_unit_test(test_a_call_of_no_scope_is_noted_nowhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
