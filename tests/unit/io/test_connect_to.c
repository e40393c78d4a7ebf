/* Which hosts are connected to elsewhere: a domain itself and all below it, nothing that only looks
 * like it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/io/connect_to.h"

static char proxy[] = "proxy.localhost=10.0.0.7:4000", local[] = "localhost=simulator:3986",
            six[] = "six.test=[::1]:80";
static char *const items[] = {proxy, local, six};

static const char *found(const struct connect_to *c, const char *url)
{
    const struct curl_slist *list = connect_to_find(c, url);
    assert_true(!list || !list->next);
    return list ? list->data : "";
}

static void test_domains(void **state)
{
    (void)state;
    static const struct {
        const char *url, *where;
    } cases[] = {
        {"http://4444-abc.localhost:3986/alive", "::simulator:3986"},
        {"http://localhost/", "::simulator:3986"},
        {"https://4444-ABC.Proxy.LocalHost", "::10.0.0.7:4000"},
        {"http://a.b.six.test?x", "::[::1]:80"},
        {"http://notlocalhost:3986/", ""},
        {"http://localhost.example/", ""},
        {"http://example/http://localhost/", ""},
        {"", ""},
    };
    struct connect_to *c = connect_to_new(items, ARRAY_LEN(items));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_string_equal(found(c, cases[i].url), cases[i].where);
    connect_to_free(c);
}

static void test_none(void **state)
{
    (void)state;
    assert_null(connect_to_new(items, 0));
    assert_null(connect_to_find(NULL, "http://localhost/"));
    connect_to_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_domains), cmocka_unit_test(test_none)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
