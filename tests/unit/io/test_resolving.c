/* Look-ups that nobody waits for any more hold their place until they have surely ended. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/io/resolving.h"

#define NOW (1000 * NS_PER_S)

static void begin(struct resolving *r, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        resolving_begin(r);
}

static void give_up(struct resolving *r, unsigned n, uint64_t now)
{
    for (unsigned i = 0; i < n; i++)
        resolving_give_up(r, now);
}

static void there_is_room_for_so_many(void **state)
{
    (void)state;
    struct resolving r = {0};
    begin(&r, RESOLVING_MAX - 1);
    assert_true(resolving_room(&r, NOW));
    begin(&r, 1);
    assert_false(resolving_room(&r, NOW));
    resolving_end(&r);
    assert_true(resolving_room(&r, NOW));
    assert_true(resolving_next(&r) == NEVER);
}

static void who_is_given_up_makes_room_later(void **state)
{
    (void)state;
    struct resolving r = {0};
    begin(&r, RESOLVING_MAX);
    give_up(&r, 1, NOW);
    give_up(&r, RESOLVING_MAX - 1, NOW + 5);
    assert_true(resolving_next(&r) == NOW + RESOLVING_NS);
    assert_false(resolving_room(&r, NOW + RESOLVING_NS - 1));
    assert_true(resolving_room(&r, NOW + RESOLVING_NS));
    begin(&r, 1);
    assert_false(resolving_room(&r, NOW + RESOLVING_NS));
    assert_true(resolving_next(&r) == NOW + 5 + RESOLVING_NS);
    assert_true(resolving_room(&r, NOW + 5 + RESOLVING_NS));
    assert_true(resolving_next(&r) == NEVER);
    assert_int_equal(r.n, 1);
}

static void more_than_there_is_room_for(void **state)
{
    (void)state;
    struct resolving r = {0};
    begin(&r, RESOLVING_MAX * 2);
    give_up(&r, RESOLVING_MAX * 2, NOW);
    assert_false(resolving_room(&r, NOW));
    assert_true(resolving_room(&r, NOW + RESOLVING_NS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_is_room_for_so_many),
        cmocka_unit_test(who_is_given_up_makes_room_later),
        cmocka_unit_test(more_than_there_is_room_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
