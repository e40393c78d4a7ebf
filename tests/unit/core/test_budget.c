/* budget: how many creates in a minute, and what a 429 stops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "worker/core/budget.h"

enum { CREATES, GENERAL };
static const struct scope creates = {"sandbox-create", true};
static const struct scope general = {"authenticated", false};
static const struct rate silent = {.limit = -1, .remaining = -1, .reset_s = -1};
static struct budget b;

static void setup_budget(int per_minute, double share, size_t owned, size_t total)
{
    const struct provider_config cfg = {.creates_per_minute = per_minute, .budget_share = share};
    budget_init(&b, &cfg, 0);
    budget_share(&b, owned, total, 0);
}

/* Takes all it can get until `until_ns`, as fast as it may; how many that were. */
static unsigned take_all(uint64_t from_ns, uint64_t until_ns)
{
    unsigned n = 0;
    for (uint64_t now = from_ns; now < until_ns;) {
        uint64_t when = budget_when(&b, &creates, CREATES, now);
        if (when > now) {
            now = when;
            continue;
        }
        budget_take(&b, &creates, now);
        n++;
    }
    return n;
}

static void test_no_minute_gives_more_than_the_share(void **state)
{
    (void)state;
    static const struct {
        int per_minute;
        double share;
        size_t owned, total;
        unsigned least, most;
    } cases[] = {
        {300, 1.0, 4, 4, 298, 300}, {300, 1.0, 1, 4, 74, 75}, {300, 0.5, 4, 4, 149, 150},
        {60, 1.0, 3, 6, 29, 30},    {10, 1.0, 1, 1, 9, 10},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        setup_budget(cases[i].per_minute, cases[i].share, cases[i].owned, cases[i].total);
        for (uint64_t minute = 0; minute < 3; minute++) {
            uint64_t from = minute * 60 * NS_PER_S;
            unsigned n = take_all(from, from + 60 * NS_PER_S);
            assert_true(n <= cases[i].most);
            if (minute == 0)
                assert_true(n >= cases[i].least);
        }
    }
}

static void test_a_tenth_may_come_at_once(void **state)
{
    (void)state;
    setup_budget(300, 1.0, 1, 1);
    assert_int_equal(take_all(0, 1), 30);
    assert_true(budget_when(&b, &creates, CREATES, 0) > 0);
    take_all(0, 60 * NS_PER_S);
    uint64_t later = 3600 * NS_PER_S; /* an idle hour saves up no more */
    assert_int_equal(take_all(later, later + 1), 30);
}

static void test_who_owns_nothing_waits(void **state)
{
    (void)state;
    setup_budget(300, 1.0, 0, 8);
    assert_int_equal(budget_when(&b, &creates, CREATES, 5), NEVER);
    setup_budget(300, 1.0, 0, 0);
    assert_int_equal(budget_when(&b, &creates, CREATES, 5), NEVER);
}

static void test_a_rebalance_gives_no_second_burst(void **state)
{
    (void)state;
    setup_budget(300, 1.0, 4, 4);
    assert_int_equal(take_all(0, 1), 30);
    budget_share(&b, 0, 4, 2);
    budget_share(&b, 4, 4, 3);
    assert_true(budget_when(&b, &creates, CREATES, 3) > 3);
}

static void test_a_smaller_share_takes_tokens_away(void **state)
{
    (void)state;
    setup_budget(300, 1.0, 4, 4);
    budget_share(&b, 1, 4, 1);
    assert_int_equal(take_all(1, 2), 7); /* a tenth of 75 */
}

static void test_only_creates_cost_tokens(void **state)
{
    (void)state;
    setup_budget(10, 1.0, 1, 1);
    for (int i = 0; i < 1000; i++) {
        assert_true(budget_when(&b, &general, GENERAL, 1) <= 1);
        budget_take(&b, &general, 1);
        assert_true(budget_when(&b, NULL, SCOPE_FREE, 1) <= 1);
        budget_take(&b, NULL, 1);
    }
    assert_int_equal(take_all(1, 2), 1);
}

static void test_429_stops_its_scope_only(void **state)
{
    (void)state;
    struct rate r = silent;
    r.retry_after_ms = 5000;
    setup_budget(300, 1.0, 1, 1);
    budget_note(&b, &general, GENERAL, &r, NS_PER_S);
    assert_int_equal(budget_when(&b, &general, GENERAL, 2 * NS_PER_S), 6 * NS_PER_S);
    assert_true(budget_when(&b, &creates, CREATES, 2 * NS_PER_S) <= 2 * NS_PER_S);
    r.retry_after_ms = 1000; /* a shorter one does not shorten it */
    budget_note(&b, &general, GENERAL, &r, 2 * NS_PER_S);
    assert_int_equal(budget_when(&b, &general, GENERAL, 2 * NS_PER_S), 6 * NS_PER_S);
    assert_true(budget_when(&b, &general, GENERAL, 6 * NS_PER_S) <= 6 * NS_PER_S);
    budget_note(&b, NULL, SCOPE_FREE, &r, NS_PER_S);
    assert_true(budget_when(&b, NULL, SCOPE_FREE, NS_PER_S) <= NS_PER_S);
}

static void test_429_of_creates_stops_even_with_tokens(void **state)
{
    (void)state;
    struct rate r = silent;
    r.retry_after_ms = 7000;
    setup_budget(300, 1.0, 1, 1);
    budget_note(&b, &creates, CREATES, &r, 0);
    assert_int_equal(budget_when(&b, &creates, CREATES, 0), 7 * NS_PER_S);
    assert_int_equal(take_all(7 * NS_PER_S, 7 * NS_PER_S + 1), 30);
}

static void test_the_last_of_a_window_is_not_asked_for(void **state)
{
    (void)state;
    setup_budget(300, 1.0, 1, 1);
    budget_note(&b, &creates, CREATES, &(struct rate){.limit = 300, .remaining = 0, .reset_s = 20},
                0);
    assert_int_equal(budget_when(&b, &creates, CREATES, 0), 20 * NS_PER_S);
}

static void test_late_in_the_window_a_quarter_of_what_is_spare(void **state)
{
    (void)state;
    struct rate r = {.limit = 300, .remaining = 190, .reset_s = 10};
    setup_budget(300, 1.0, 1, 10);
    take_all(0, 1);
    budget_note(&b, &creates, CREATES, &r, 1);
    assert_int_equal(take_all(1, 2), 35); /* (190 - the 50 that are due) / 4 */
    budget_note(&b, &creates, CREATES, &r, 2);
    assert_true(budget_when(&b, &creates, CREATES, 2 + NS_PER_S) > 2 + NS_PER_S); /* old news */
    r.reset_s = 30; /* early in the window nothing is spare yet */
    budget_note(&b, &creates, CREATES, &r, 3);
    assert_int_equal(take_all(3, 4), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_minute_gives_more_than_the_share),
        cmocka_unit_test(test_a_tenth_may_come_at_once),
        cmocka_unit_test(test_who_owns_nothing_waits),
        cmocka_unit_test(test_a_rebalance_gives_no_second_burst),
        cmocka_unit_test(test_a_smaller_share_takes_tokens_away),
        cmocka_unit_test(test_only_creates_cost_tokens),
        cmocka_unit_test(test_429_stops_its_scope_only),
        cmocka_unit_test(test_429_of_creates_stops_even_with_tokens),
        cmocka_unit_test(test_the_last_of_a_window_is_not_asked_for),
        cmocka_unit_test(test_late_in_the_window_a_quarter_of_what_is_spare),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
