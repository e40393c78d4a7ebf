/* heap and backoff: what waits, and for how long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "worker/core/backoff.h"
#include "worker/core/heap.h"

#define N 300

static void test_heap_of_nothing(void **state)
{
    (void)state;
    struct heap h = {0};
    struct heap_node node;
    assert_null(heap_first(&h));
    heap_node_init(&node, 3);
    heap_set(&h, &node, NEVER);
    assert_null(heap_first(&h));
    heap_set(&h, &node, 5);
    assert_ptr_equal(heap_first(&h), &node);
    assert_int_equal(node.kind, 3);
    heap_set(&h, &node, 7);
    assert_int_equal(heap_first(&h)->at, 7);
    heap_set(&h, &node, NEVER);
    assert_null(heap_first(&h));
    heap_done(&h);
    assert_null(h.nodes);
    assert_int_equal(h.cap, 0);
}

static void assert_first_is_least(const struct heap *h, const struct heap_node *nodes)
{
    uint64_t least = NEVER;
    size_t n = 0;
    for (size_t i = 0; i < N; i++) {
        least = MIN(least, nodes[i].at);
        n += nodes[i].at != NEVER;
    }
    assert_int_equal(h->n, n);
    assert_int_equal(n ? heap_first(h)->at : NEVER, least);
    for (size_t i = 0; i < h->n; i++)
        assert_int_equal(h->nodes[i]->index, i);
}

/* In, moved either way, out: whatever is done to it, the first one is the least. */
static void test_heap_keeps_order(void **state)
{
    (void)state;
    static struct heap_node nodes[N];
    struct heap h = {0};
    struct rng r;
    rng_init(&r, 7);
    for (size_t i = 0; i < N; i++)
        heap_node_init(&nodes[i], 0);
    for (int round = 0; round < 5000; round++) {
        uint64_t at = rng_below(&r, 4) ? rng_below(&r, 1000) : NEVER;
        heap_set(&h, &nodes[rng_below(&r, N)], at);
        assert_first_is_least(&h, nodes);
    }
    uint64_t before = 0;
    while (heap_first(&h)) {
        assert_true(heap_first(&h)->at >= before);
        before = heap_first(&h)->at;
        heap_set(&h, heap_first(&h), NEVER);
    }
    heap_done(&h);
}

static void test_same_seed_same_numbers(void **state)
{
    (void)state;
    struct rng a, b, other;
    rng_init(&a, 42);
    rng_init(&b, 42);
    rng_init(&other, 43);
    unsigned differ = 0;
    for (int i = 0; i < 100; i++) {
        uint64_t v = rng_below(&a, UINT64_MAX);
        assert_int_equal(v, rng_below(&b, UINT64_MAX));
        differ += v != rng_below(&other, UINT64_MAX);
    }
    assert_int_equal(differ, 100);
}

static void test_jitter_is_a_fifth(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 1);
    uint64_t low = UINT64_MAX, high = 0;
    for (int i = 0; i < 10000; i++) {
        uint64_t ns = jitter_ns(&r, NS_PER_S);
        low = MIN(low, ns);
        high = MAX(high, ns);
    }
    assert_in_range(low, 800 * NS_PER_MS, 805 * NS_PER_MS);
    assert_in_range(high, 1195 * NS_PER_MS, 1200 * NS_PER_MS);
    assert_int_equal(jitter_ns(&r, 0), 0);
}

static uint64_t longest_of(unsigned failures)
{
    struct rng r;
    rng_init(&r, failures);
    uint64_t high = 0;
    for (int i = 0; i < 5000; i++) {
        uint64_t ns = backoff_ns(&r, failures);
        assert_true(ns > 0);
        high = MAX(high, ns);
    }
    return high;
}

static void test_backoff_doubles_up_to_ten_seconds(void **state)
{
    (void)state;
    assert_in_range(longest_of(0), 190 * NS_PER_MS, 200 * NS_PER_MS);
    assert_in_range(longest_of(1), 390 * NS_PER_MS, 400 * NS_PER_MS);
    assert_in_range(longest_of(4), 3100 * NS_PER_MS, 3200 * NS_PER_MS);
    assert_in_range(longest_of(6), 9900 * NS_PER_MS, 10 * NS_PER_S);
    assert_in_range(longest_of(1000000), 9900 * NS_PER_MS, 10 * NS_PER_S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heap_of_nothing),
        cmocka_unit_test(test_heap_keeps_order),
        cmocka_unit_test(test_same_seed_same_numbers),
        cmocka_unit_test(test_jitter_is_a_fifth),
        cmocka_unit_test(test_backoff_doubles_up_to_ten_seconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
