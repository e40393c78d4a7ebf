/* Rate limits and keys: windows, blocks, headers, and what pays for what. */
#include "tests/unit/sim/talk.h"

static const struct model_options small = {
    .create_limit = 3, .general_limit = 4, .lifecycle_limit = 2, .failed_auth_limit = 3};

static void going_over_blocks_for_a_whole_window(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, &small);
    SAY(&t, {0, "POST /api/sandbox", "{\"name\":\"a\"}", 200, NULL, NULL});
    assert_string_equal(answer_header(&t, "x-ratelimit-limit-sandbox-create"), "3");
    assert_string_equal(answer_header(&t, "x-ratelimit-remaining-sandbox-create"), "2");
    assert_null(answer_header(&t, "retry-after"));
    SAY(&t, {0, "POST /api/sandbox", "{\"name\":\"a\"}", 409, NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":5}", 400, NULL, NULL},
        {30000, "POST /api/sandbox", "{\"name\":\"b\"}", 429,
         "ThrottlerException: Too Many Requests", NULL});
    assert_string_equal(answer_header(&t, "retry-after-sandbox-create"), "60");
    assert_null(answer_header(&t, "retry-after"));
    assert_null(answer_header(&t, "x-ratelimit-limit-sandbox-create"));
    SAY(&t, {0, "GET /api/sandbox/a", NULL, 200, NULL, NULL}, /* other scopes go on */
        {59000, "POST /api/sandbox", "{\"name\":\"b\"}", 429, NULL, NULL});
    assert_string_equal(answer_header(&t, "retry-after-sandbox-create"), "1");
    SAY(&t, {1100, "POST /api/sandbox", "{\"name\":\"b\"}", 200, NULL, NULL});
    assert_string_equal(answer_header(&t, "x-ratelimit-remaining-sandbox-create"), "2");
    talk_end(&t);
}

static void a_window_ends_by_itself(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, &small);
    SAY(&t, {0, "DELETE /api/sandbox/x", NULL, 404, NULL, NULL},
        {59000, "POST /api/sandbox/x/stop", NULL, 404, NULL, NULL},
        {1000, "POST /api/sandbox/x/start", NULL, 404, NULL, NULL},
        {0, "DELETE /api/sandbox/x", NULL, 404, NULL, NULL},
        {0, "DELETE /api/sandbox/x", NULL, 429, NULL, NULL});
    assert_string_equal(answer_header(&t, "retry-after-sandbox-lifecycle"), "60");
    talk_end(&t);
}

static void windows_can_be_shortened(void **state)
{
    struct model_options o = {.create_limit = 1, .window_ms = 2000};
    struct talk t;
    (void)state;
    talk_begin(&t, &o);
    SAY(&t, {0, "POST /api/sandbox", "{}", 200, NULL, NULL},
        {0, "POST /api/sandbox", "{}", 429, NULL, NULL},
        {1900, "POST /api/sandbox", "{}", 429, NULL, NULL},
        {200, "POST /api/sandbox", "{}", 200, NULL, NULL},
        {0, "GET /api/config", NULL, 200, "\"sandboxCreate\":{\"ttl\":2,\"limit\":1}", NULL});
    talk_end(&t);
}

static void malformed_json_and_the_inside_cost_nothing(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, &small);
    for (int i = 0; i < 10; i++)
        SAY(&t, {0, "POST /api/sandbox", "{bad", 400, "Invalid JSON", NULL},
            {0, "GET /api/config", NULL, 200, NULL, NULL},
            {0, "GET /toolbox/x/version", NULL, 401, "Bearer token is invalid", NULL});
    SAY(&t, {0, "POST /api/sandbox", "{}", 200, NULL, NULL});
    assert_string_equal(answer_header(&t, "x-ratelimit-remaining-sandbox-create"), "2");
    talk_end(&t);
}

static void tier_one_has_its_limits(void **state)
{
    struct model_options o = {.profile = PROFILE_TIER1};
    struct talk t;
    (void)state;
    talk_begin(&t, &o);
    SAY(&t, {0, "POST /api/sandbox", "{}", 200, NULL, NULL});
    assert_string_equal(answer_header(&t, "x-ratelimit-limit-sandbox-create"), "300");
    SAY(&t, {0, "GET /api/sandbox/{id}", NULL, 200, NULL, NULL});
    assert_string_equal(answer_header(&t, "x-ratelimit-limit-authenticated"), "10000");
    SAY(&t, {0, "POST /api/sandbox/{id}/stop", NULL, 200, NULL, NULL});
    assert_string_equal(answer_header(&t, "x-ratelimit-limit-sandbox-lifecycle"), "10000");
    talk_end(&t);
}

static void use_key(struct talk *t, const char *key)
{
    free(t->key);
    t->key = xstrdup0(key);
}

static void wrong_keys_block_the_address(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, &small);
    use_key(&t, "Bearer dtn_bad1");
    SAY(&t, {0, "GET /api/sandbox/x", NULL, 401, "\"message\":\"Invalid credentials\"", NULL});
    assert_string_equal(answer_header(&t, "x-ratelimit-remaining-failed-auth"), "2");
    use_key(&t, NULL);
    SAY(&t, {0, "GET /api/sandbox/x", NULL, 401, NULL, NULL});
    use_key(&t, "Basic abc");
    SAY(&t, {0, "GET /api/sandbox/x", NULL, 429, NULL, NULL});
    assert_string_equal(answer_header(&t, "retry-after"), "60");
    use_key(&t, "Bearer dtn_good");
    SAY(&t, {0, "GET /api/sandbox/x", NULL, 429, NULL, NULL},
        {0, "GET /api/config", NULL, 429, NULL, NULL},
        {60500, "GET /api/sandbox/x", NULL, 404, NULL, NULL});
    talk_end(&t);
}

static void a_key_may_be_for_reading_only(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, NULL);
    SAY(&t, {0, "POST /api/sandbox", "{\"name\":\"a\"}", 200, NULL, NULL});
    use_key(&t, "Bearer dtn_x_READONLY");
    SAY(&t, {0, "GET /api/sandbox/a", NULL, 200, NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":\"b\"}", 403, "\"message\":\"Access denied\"", NULL},
        {0, "POST /api/sandbox/a/autodelete/5", NULL, 403, NULL, NULL},
        {0, "DELETE /api/sandbox/a", NULL, 403, NULL, NULL},
        {0, "GET /api/sandbox/a/ports/1/preview-url", NULL, 200, NULL, NULL});
    talk_end(&t);
}

static void a_suspended_organization_may_clean_up(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, NULL);
    SAY(&t, {0, "POST /api/sandbox", "{\"name\":\"a\"}", 200, NULL, NULL},
        {0, "POST /_sim/world", "{\"suspended\":true}", 200, NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":\"b\"}", 200, NULL, NULL}, /* the look-up is cached */
        {7000, "POST /api/sandbox", "{\"name\":\"c\"}", 403,
         "Organization is suspended: Credits depleted", NULL},
        {0, "GET /api/sandbox/a", NULL, 200, NULL, NULL},
        {0, "POST /api/sandbox/a/stop", NULL, 200, NULL, NULL},
        {100, "POST /api/sandbox/a/start", NULL, 403, NULL, NULL},
        {0, "DELETE /api/sandbox/a", NULL, 200, NULL, NULL});
    talk_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(going_over_blocks_for_a_whole_window),
        cmocka_unit_test(a_window_ends_by_itself),
        cmocka_unit_test(windows_can_be_shortened),
        cmocka_unit_test(malformed_json_and_the_inside_cost_nothing),
        cmocka_unit_test(tier_one_has_its_limits),
        cmocka_unit_test(wrong_keys_block_the_address),
        cmocka_unit_test(a_key_may_be_for_reading_only),
        cmocka_unit_test(a_suspended_organization_may_clean_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
