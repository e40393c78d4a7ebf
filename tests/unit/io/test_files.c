/* The share of the open files that calls get. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <limits.h>

#include "worker/io/files.h"

static void calls_fit_into_the_limit(void **state)
{
    (void)state;
    static const struct {
        uint64_t limit;
        unsigned wanted, calls;
    } cases[] = {
        {0, 2064, 0},
        {87, 2064, 0},
        {88, 2064, 8},
        {120, 2064, 18},
        {120, 10, 10},
        {1024, 2064, 320},
        {6255, 2064, 2063},
        {6256, 2064, 2064},
        {65536, 2064, 2064},
        {UINT64_MAX, 2064, 2064},
        {UINT64_MAX, UINT_MAX, UINT_MAX},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(files_for_calls(cases[i].limit, cases[i].wanted), cases[i].calls);
    assert_int_equal(files_needed(2064), 6256);
    assert_int_equal(FILES_LEAST, 88);
    assert_true(files_limit() > 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(calls_fit_into_the_limit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
