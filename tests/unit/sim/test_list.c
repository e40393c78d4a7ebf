/* GET /sandbox: filters, order, pages. */
#include "tests/unit/sim/talk.h"

#define LIST "GET /api/sandbox?"
#define BY_JOB LIST "labels=%7B%22job%22%3A%22x%22%7D" /* {"job":"x"} */

static void make(struct talk *t, const char *name, const char *labels)
{
    char *body = xasprintf("{\"name\":\"%s\",\"labels\":%s}", name, labels);
    SAY(t, {10, "POST /api/sandbox", body, 200, NULL, NULL});
    free(body);
}

static void begin(struct talk *t)
{
    struct model_options o = {.destroy_ms = 500};
    talk_begin(t, &o);
    make(t, "one", "{\"job\":\"x\",\"n\":\"1\"}");
    make(t, "two", "{\"job\":\"x\",\"n\":\"2\"}");
    make(t, "three", "{\"job\":\"y\"}");
}

/* How many sandboxes the last answer lists. */
static int listed(const struct talk *t)
{
    cJSON *tree = cJSON_Parse(buf_text(&t->reply.body));
    int n = cJSON_GetArraySize(json_get(tree, "items"));
    cJSON_Delete(tree);
    return n;
}

static void labels_must_all_be_there(void **state)
{
    static const struct {
        const char *query;
        int n;
    } table[] = {
        {"labels=%7B%22job%22%3A%22x%22%7D", 2},
        {"labels=%7B%22job%22%3A%22x%22%2C%22n%22%3A%222%22%7D", 1}, /* {"job":"x","n":"2"} */
        {"labels=%7B%22n%22%3A2%7D", 0},                             /* {"n":2} is not "2" */
        {"labels=5", 0},
        {"labels=%7B%22job%22%3A%22z%22%7D", 0},
        {"name=T", 2}, /* prefix, any case */
        {"name=%25ee", 1},
        {"name=t_o", 1},
        {"states=started", 3},
        {"states=started&states%5B%5D=stopped", 3},
        {"states=stopped", 0},
        {"createdAtBefore=2020-01-01T00%3A00%3A00Z", 0},
        {"nonsense=1", 3},
        {"id=nope", 0},
    };
    struct talk t;
    (void)state;
    begin(&t);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        char *what = xasprintf(LIST "%s", table[i].query);
        SAY(&t, {0, what, NULL, 200, NULL, NULL});
        if (listed(&t) != table[i].n)
            fail_msg("%s lists %d, expected %d", table[i].query, listed(&t), table[i].n);
        free(what);
    }
    SAY(&t, {0, "GET /_sim/stats", NULL, 200, "!empty label filter", NULL});
    talk_end(&t);
}

static void an_empty_filter_lists_everything(void **state)
{
    static const char *const empty[] = {"", "%7B%7D", "null", "%5B%5D"};
    struct talk t;
    (void)state;
    begin(&t);
    for (size_t i = 0; i < ARRAY_LEN(empty); i++) {
        char *what = xasprintf(LIST "labels=%s", empty[i]);
        SAY(&t, {0, what, NULL, 200, NULL, NULL});
        assert_int_equal(listed(&t), 3);
        free(what);
    }
    SAY(&t, {0, "GET /_sim/stats", NULL, 200, "\"list with an empty label filter\":4", NULL});
    talk_end(&t);
}

static void indexed_labels_are_filters_like_others(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, NULL);
    make(&t, "a", "{\"OpenHands_SID\":\"s1\",\"session-worker/fleet\":\"f\"}");
    make(&t, "b", "{\"OpenHands_SID\":\"s1\",\"session-worker/fleet\":\"g\"}");
    make(&t, "c", "{\"session-worker/partition\":\"jobs/1\",\"session-worker/fleet\":\"f\"}");
    SAY(&t,
        {0, LIST "labels=%7B%22OpenHands_SID%22%3A%22s1%22%7D", NULL, 200, "\"name\":\"a\"",
         "\"name\":\"b\""},
        {0,
         LIST
         "labels=%7B%22OpenHands_SID%22%3A%22s1%22%2C%22session-worker%2Ffleet%22%3A%22f%22%7D",
         NULL, 200, "\"name\":\"a\"", "!\"name\":\"b\""},
        {0, LIST "labels=%7B%22session-worker%2Fpartition%22%3A%22jobs%2F1%22%7D", NULL, 200,
         "\"name\":\"c\"", "!\"name\":\"a\""},
        {0, "PUT /api/sandbox/a/labels", "{\"labels\":{\"OpenHands_SID\":\"s2\"}}", 200, NULL,
         NULL},
        {0, LIST "labels=%7B%22OpenHands_SID%22%3A%22s1%22%7D", NULL, 200, "!\"name\":\"a\"", NULL},
        {0, "GET /_sim/stats", NULL, 200, "two live sandboxes with label OpenHands_SID=s1",
         "{\"s1\":2}"});
    talk_end(&t);
}

static void the_dying_are_listed_until_they_are_gone(void **state)
{
    struct talk t;
    (void)state;
    begin(&t);
    SAY(&t, {0, "DELETE /api/sandbox/one", NULL, 200, NULL, NULL},
        {0, BY_JOB, NULL, 200, "DESTROYED_one_", "\"desiredState\":\"destroyed\""},
        {0, LIST "states=destroying", NULL, 200, "DESTROYED_one_", "!two"},
        {600, BY_JOB, NULL, 200, "!DESTROYED_one_", "two"});
    talk_end(&t);
}

static void errored_and_deleted_ones_are_listed_on_request(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, NULL);
    SAY(&t,
        {0, "POST /api/sandbox", "{\"name\":\"a\",\"snapshot\":\"sim-error\"}", 400, NULL, NULL},
        {0, LIST, NULL, 200, "\"name\":\"a\"", NULL},
        {0, "DELETE /api/sandbox/a", NULL, 200, NULL, NULL},
        {0, LIST, NULL, 200, "!DESTROYED_a", NULL},
        {0, LIST "includeErroredDeleted=true", NULL, 200, "DESTROYED_a", NULL});
    talk_end(&t);
}

static void pages_follow_each_other(void **state)
{
    struct talk t;
    (void)state;
    begin(&t);
    SAY(&t,
        {0, LIST "limit=2&sort=createdAt&order=asc", NULL, 200, "\"name\":\"one\"",
         "\"name\":\"two\""},
        {0, LIST "limit=2&sort=createdAt&order=asc&cursor={cursor}", NULL, 200,
         "\"name\":\"three\"", "\"nextCursor\":null"},
        {0, LIST "limit=1&sort=name&order=desc", NULL, 200, "\"name\":\"two\"", NULL},
        {0, LIST "limit=1&sort=name&order=desc&cursor={cursor}", NULL, 200, "\"name\":\"three\"",
         NULL},
        {0, LIST "cursor=zzz", NULL, 400, "Invalid cursor provided: zzz", NULL},
        {0, "GET /api/sandbox/paginated?limit=2&page=2", NULL, 200, "\"name\":\"one\"",
         "\"total\":3,\"page\":2,\"totalPages\":2"});
    talk_end(&t);
}

/* A restart of two changes its activity, and with it the usual order. */
static void the_latest_activity_comes_first(void **state)
{
    struct talk t;
    (void)state;
    begin(&t);
    SAY(&t, {10, "POST /api/sandbox/one/stop", NULL, 200, NULL, NULL},
        {10, LIST "limit=1", NULL, 200, "\"name\":\"one\"", NULL});
    talk_end(&t);
}

static void bad_questions_are_refused(void **state)
{
    static const struct {
        const char *query, *message;
        int status;
    } table[] = {
        {"limit=0", "limit must not be less than 1", 400},
        {"limit=201", "limit must not be greater than 200", 400},
        {"limit=1.5", "limit must be an integer number", 400},
        {"limit=abc", "limit must be an integer number, limit must not be less than 1, limit must",
         400},
        {"states=destroyed", "each value must be one of the following values: creating, ", 400},
        {"states=started%2Cstopped", "each value must be one of", 400},
        {"sort=updatedAt", "sort must be one of the following values: name, ", 400},
        {"order=up", "order must be one of the following values: asc, desc", 400},
        {"createdAtBefore=yesterday", "createdAtBefore must be a Date instance", 400},
        {"labels=%7Bbad", "Invalid labels JSON format", 400},
        {"labels=%22x%22", "An unexpected error occurred.", 500},
    };
    struct talk t;
    (void)state;
    begin(&t);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        char *what = xasprintf(LIST "%s", table[i].query);
        SAY(&t, {0, what, NULL, table[i].status, table[i].message, NULL});
        free(what);
    }
    talk_end(&t);
}

static void items_lack_what_a_get_has(void **state)
{
    struct talk t;
    (void)state;
    begin(&t);
    SAY(&t, {0, LIST, NULL, 200, "!\"env\"", "!\"volumes\""},
        {0, "GET /api/sandbox/one", NULL, 200, "\"env\":{}", "\"volumes\":[]"});
    talk_end(&t);
}

static void a_list_may_lag_behind(void **state)
{
    struct model_options o = {.list_lag_ms = 2000};
    struct talk t;
    (void)state;
    talk_begin(&t, &o);
    make(&t, "a", "{}");
    SAY(&t, {1000, LIST, NULL, 200, "!\"name\":\"a\"", NULL},
        {0, "GET /api/sandbox/a", NULL, 200, NULL, NULL},
        {1100, LIST, NULL, 200, "\"name\":\"a\"", NULL});
    talk_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_must_all_be_there),
        cmocka_unit_test(an_empty_filter_lists_everything),
        cmocka_unit_test(indexed_labels_are_filters_like_others),
        cmocka_unit_test(the_dying_are_listed_until_they_are_gone),
        cmocka_unit_test(errored_and_deleted_ones_are_listed_on_request),
        cmocka_unit_test(pages_follow_each_other),
        cmocka_unit_test(the_latest_activity_comes_first),
        cmocka_unit_test(bad_questions_are_refused),
        cmocka_unit_test(items_lack_what_a_get_has),
        cmocka_unit_test(a_list_may_lag_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
