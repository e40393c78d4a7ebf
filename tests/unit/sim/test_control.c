/* What is the simulator's own: faults, clock, ledger, scenario, and that it is one function of its
 * input. */
#include "tests/unit/sim/talk.h"

static void a_lost_answer_has_been_processed(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, NULL);
    SAY(&t,
        {0, "POST /_sim/faults",
         "{\"match\":{\"method\":\"POST\",\"path_contains\":\"/sandbox\"},\"do\":\"lose_answer\"}",
         200, NULL, NULL},
        {0, "GET /api/sandbox/a", NULL, 404, NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":\"a\"}", 0, NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":\"a\"}", 409, NULL, NULL},
        {0, "GET /_sim/stats", NULL, 200, "\"lost\":1", NULL});
    talk_end(&t);
}

static void a_lost_request_has_not(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, NULL);
    SAY(&t,
        {0, "POST /_sim/faults",
         "[{\"match\":{\"path_contains\":\"/"
         "sandbox\",\"nth\":2},\"do\":\"lose_request\",\"times\":2}]",
         200, NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":\"a\"}", 200, NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":\"b\"}", 0, NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":\"b\"}", 0, NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":\"b\"}", 200, NULL, NULL});
    talk_end(&t);
}

static void a_status_comes_instead_and_a_delay_on_top(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, NULL);
    SAY(&t, {0, "POST /api/sandbox", "{\"name\":\"a\"}", 200, NULL, NULL},
        {0, "POST /_sim/faults",
         "{\"match\":{\"method\":\"DELETE\"},\"do\":\"status\",\"status\":503}", 200, NULL, NULL},
        {0, "DELETE /api/sandbox/a", NULL, 503, "\"statusCode\":503", NULL},
        {0, "GET /api/sandbox/a", NULL, 200, "started", NULL},
        {0, "GET /_sim/stats", NULL, 200, "\"other\":{\"503\":1}", NULL},
        {0, "POST /_sim/faults", "{\"do\":\"delay_ms\",\"delay_ms\":700,\"times\":9}", 200, NULL,
         NULL},
        {0, "GET /api/sandbox/a", NULL, 200, NULL, NULL});
    assert_int_equal(t.took_ns, 700 * NS_PER_MS);
    SAY(&t, {0, "DELETE /_sim/faults", NULL, 200, NULL, NULL},
        {0, "GET /api/sandbox/a", NULL, 200, NULL, NULL});
    assert_int_equal(t.took_ns, 0);
    SAY(&t, {0, "POST /_sim/faults", "{\"do\":\"explode\"}", 400, "error", NULL});
    talk_end(&t);
}

static void a_held_answer_can_be_lost_too(void **state)
{
    struct model_options o = {.boot_ms = 500};
    struct talk t;
    (void)state;
    talk_begin(&t, &o);
    SAY(&t,
        {0, "POST /_sim/faults", "{\"match\":{\"method\":\"POST\"},\"do\":\"lose_answer\"}", 200,
         NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":\"a\"}", 0, NULL, NULL});
    assert_int_equal(t.took_ns, 500 * NS_PER_MS);
    talk_end(&t);
}

static void a_client_that_left_is_not_answered(void **state)
{
    struct model_options o = {.boot_ms = 500};
    struct sim_header key = {"Authorization", "Bearer dtn_x"};
    struct sim_reply re;
    struct talk t;
    (void)state;
    talk_begin(&t, &o);
    model_request(t.m, 0,
                  &(struct sim_request){.method = "POST",
                                        .target = "/api/sandbox",
                                        .host = "",
                                        .headers = &key,
                                        .n_headers = 1},
                  &re);
    assert_true(re.held);
    assert_int_equal(model_next(t.m), 500 * NS_PER_MS);
    model_forget(t.m, re.token);
    sim_reply_done(&re);
    assert_false(model_advance(t.m, NS_PER_S, &re));
    t.now_ns = NS_PER_S;
    SAY(&t, {0, "GET /_sim/stats", NULL, 200, "\"live\":1", "\"held\":0"});
    talk_end(&t);
}

static void the_clock_can_be_put_forward(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, NULL);
    SAY(&t,
        {0, "POST /api/sandbox", "{\"name\":\"a\",\"autoDeleteInterval\":0,\"autoStopInterval\":5}",
         200, NULL, NULL},
        {0, "POST /_sim/clock", "{\"advance_seconds\":400}", 200, NULL, NULL},
        {0, "GET /api/sandbox/{id}", NULL, 404, NULL, NULL},
        {0, "GET /_sim/ledger", NULL, 200, "\"destroyed_by\":\"auto_stop\"", NULL},
        {0, "POST /_sim/clock", "{\"advance_seconds\":-1}", 400, NULL, NULL});
    assert_true(t.now_ns < NS_PER_S); /* the host's clock has not moved */
    talk_end(&t);
}

static void the_ledger_names_every_sandbox(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, NULL);
    SAY(&t, {0, "POST /api/sandbox", "{\"name\":\"a\",\"labels\":{\"l\":\"1\"}}", 200, NULL, NULL},
        {0, "POST /api/sandbox/{id}/autodelete/0", NULL, 201, NULL, NULL},
        {0, "GET /api/sandbox/a", NULL, 200, NULL, NULL},
        {0, "GET /api/sandbox/a", NULL, 200, NULL, NULL},
        {0, "GET /_sim/ledger", NULL, 200, "\"name\":\"a\",\"labels\":{\"l\":\"1\"}",
         "\"requests\":{\"POST /sandbox\":1,\"GET /sandbox/{x}\":2,\"POST "
         "/sandbox/{x}/autodelete/{n}\":1}"},
        {0, "GET /_sim/ledger", NULL, 200,
         "\"ephemeral\":true,\"created_at\":1795500000000,\"destroyed_at\":null",
         "\"destroyed_by\":null"},
        {0, "DELETE /api/sandbox/a", NULL, 200, NULL, NULL},
        {0, "GET /_sim/ledger", NULL, 200, "\"name\":\"a\"", "\"destroyed_by\":\"delete\""});
    talk_end(&t);
}

static void count_lines(void *arg, const char *line, size_t len)
{
    assert_int_equal(strlen(line), len);
    *(int *)arg += 1;
}

static void ledger_lines_are_handed_out(void **state)
{
    struct talk t;
    int lines = 0;
    (void)state;
    talk_begin(&t, NULL);
    model_on_destroyed(t.m, count_lines, &lines);
    SAY(&t, {0, "POST /api/sandbox", "{\"name\":\"a\"}", 200, NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":\"b\"}", 200, NULL, NULL},
        {0, "DELETE /api/sandbox/a", NULL, 200, NULL, NULL});
    assert_int_equal(lines, 1);
    model_close_ledger(t.m);
    assert_int_equal(lines, 2);
    talk_end(&t);
}

static void note_sandbox(void *arg, const struct sim_sandbox *s)
{
    struct buf *out = arg;
    buf_addf(out, "%s %s %s %s %d;", s->name, s->labels, s->live ? "live" : s->destroyed_by,
             s->auto_delete == 0 ? "ephemeral" : "kept", s->servers_started);
}

static void a_host_may_look_at_the_sandboxes(void **state)
{
    struct talk t;
    struct buf seen;
    (void)state;
    talk_begin(&t, NULL);
    buf_init(&seen, 1000);
    SAY(&t, {0, "POST /api/sandbox", "{\"name\":\"a\",\"autoDeleteInterval\":0}", 200, NULL, NULL},
        {0, "POST /api/sandbox/a/stop", NULL, 200, NULL, NULL},
        {0, "POST /api/sandbox", "{\"name\":\"a\",\"labels\":{\"x\":\"1\"}}", 200, NULL, NULL},
        {0, "POST /toolbox/{id}/process/execute", "{\"command\":\"./serve 80 &\"}", 0, NULL, NULL});
    model_each_sandbox(t.m, note_sandbox, &seen);
    assert_string_equal(buf_text(&seen), "a {} stop ephemeral 0;a {\"x\":\"1\"} live kept 1;");
    buf_done(&seen);
    talk_end(&t);
}

static void a_scenario_scripts_snapshots_and_sandboxes(void **state)
{
    struct model_options o = {
        .scenario = "{\"snapshots\":{\"s\":{\"boot\":\"error\",\"reason\":\"no space\"},"
                    "\"slow\":{\"boot_ms\":3000}},\"sandboxes\":{\"b\":{\"boot\":\"not_found\"}}}"};
    struct talk t;
    char error[MODEL_ERROR_SIZE];
    (void)state;
    talk_begin(&t, &o);
    SAY(&t,
        {0, "POST /api/sandbox", "{\"name\":\"a\",\"snapshot\":\"s\"}", 400,
         "Sandbox failed to start: no space", NULL},
        {0, "POST /api/sandbox", "{\"name\":\"b\"}", 400, "not found", NULL},
        {0, "POST /api/sandbox", "{\"name\":\"c\",\"snapshot\":\"slow\"}", 200, NULL, NULL});
    assert_int_equal(t.took_ns, 3 * NS_PER_S);
    talk_end(&t);
    o.base_url = o.domain = "x";
    o.scenario = "{\"snapshots\":{\"s\":{\"boot\":\"sideways\"}}}";
    assert_null(model_new(&o, error));
    assert_non_null(strstr(error, "unknown boot or server"));
    o.scenario = "{";
    assert_null(model_new(&o, error));
}

/* Everything that two worlds say about the same conversation. */
static char *transcript(uint64_t seed, enum model_profile profile)
{
    static const char *const asked[] = {
        "POST /api/sandbox",     "GET /api/sandbox/a", "GET /api/sandbox/a/ports/8000/preview-url",
        "DELETE /api/sandbox/a", "GET /api/sandbox/x", "GET /_sim/ledger"};
    struct model_options o = {.seed = seed, .profile = profile};
    struct talk t;
    struct buf all;
    buf_init(&all, 1 << 20);
    talk_begin(&t, &o);
    for (size_t i = 0; i < ARRAY_LEN(asked); i++) {
        ask(&t, asked[i], i == 0 ? "{\"name\":\"a\"}" : NULL);
        buf_addf(&all, "%llu %d %s\n", (unsigned long long)t.took_ns, t.reply.status,
                 buf_text(&t.reply.body));
    }
    talk_end(&t);
    return buf_steal(&all);
}

static void the_same_seed_gives_the_same_bytes(void **state)
{
    char *a = transcript(7, PROFILE_CLOUD), *b = transcript(7, PROFILE_CLOUD);
    char *c = transcript(8, PROFILE_CLOUD);
    (void)state;
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
    free(a);
    free(b);
    free(c);
}

static void only_the_cloud_takes_its_time(void **state)
{
    struct model_options fast = {.profile = PROFILE_FAST}, cloud = {.profile = PROFILE_CLOUD};
    struct talk t;
    (void)state;
    talk_begin(&t, &fast);
    SAY(&t, {0, "GET /api/sandbox/x", NULL, 404, NULL, NULL});
    assert_int_equal(t.took_ns, 0);
    talk_end(&t);
    talk_begin(&t, &cloud);
    SAY(&t, {0, "GET /api/sandbox/x", NULL, 404, NULL, NULL});
    assert_in_range(t.took_ns, NS_PER_MS, 200 * NS_PER_MS);
    SAY(&t, {0, "POST /api/sandbox", "{\"name\":\"a\"}", 200, NULL, NULL});
    assert_in_range(t.took_ns, 100 * NS_PER_MS, 15 * NS_PER_S);
    talk_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lost_answer_has_been_processed),
        cmocka_unit_test(a_lost_request_has_not),
        cmocka_unit_test(a_status_comes_instead_and_a_delay_on_top),
        cmocka_unit_test(a_held_answer_can_be_lost_too),
        cmocka_unit_test(a_client_that_left_is_not_answered),
        cmocka_unit_test(the_clock_can_be_put_forward),
        cmocka_unit_test(the_ledger_names_every_sandbox),
        cmocka_unit_test(ledger_lines_are_handed_out),
        cmocka_unit_test(a_host_may_look_at_the_sandboxes),
        cmocka_unit_test(a_scenario_scripts_snapshots_and_sandboxes),
        cmocka_unit_test(the_same_seed_gives_the_same_bytes),
        cmocka_unit_test(only_the_cloud_takes_its_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
