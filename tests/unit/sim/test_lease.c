/* The lease of an ephemeral sandbox: stop destroys it, KEEP ends it, crons and races. */
#include "tests/unit/sim/talk.h"

static const char ephemeral[] = "{\"name\":\"a\",\"autoDeleteInterval\":0,\"autoStopInterval\":1}";

/* Destruction takes three seconds. */
static void begin(struct talk *t, int64_t race_ms)
{
    struct model_options o = {.destroy_ms = 3000, .race_ms = race_ms};
    talk_begin(t, &o);
    SAY(t, {0, "POST /api/sandbox", ephemeral, 200, NULL, NULL});
}

static void stop_destroys_what_is_ephemeral(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, 0);
    SAY(&t,
        {0, "POST /api/sandbox/{id}/stop", NULL, 200, "\"state\":\"destroying\"",
         "\"name\":\"DESTROYED_a_"},
        {0, "GET /api/sandbox/a", NULL, 404, NULL, NULL},
        {0, "POST /api/sandbox/{id}/autodelete/1440", NULL, 201, "\"desiredState\":\"destroyed\"",
         "\"autoDeleteInterval\":1440"},
        {0, "POST /api/sandbox/a/autodelete/1440", NULL, 404, NULL, NULL},
        {2900, "GET /api/sandbox/{id}", NULL, 200, "destroying", NULL},
        {200, "POST /api/sandbox/{id}/autodelete/1440", NULL, 404, NULL, NULL},
        {0, "GET /_sim/ledger", NULL, 200, "\"destroyed_by\":\"stop\"", "\"state\":\"destroyed\""});
    talk_end(&t);
}

static void stop_spares_what_was_kept(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, 0);
    SAY(&t, {0, "POST /api/sandbox/{id}/autodelete/1440", NULL, 201, "\"state\":\"started\"", NULL},
        {0, "POST /api/sandbox/{id}/stop", NULL, 200, "\"state\":\"stopping\"", "\"name\":\"a\""},
        {100, "GET /api/sandbox/a", NULL, 200, "\"state\":\"stopped\"", NULL},
        {0, "GET /_sim/ledger", NULL, 200, "\"destroyed_at\":null", "\"ephemeral\":false"});
    talk_end(&t);
}

static void delete_asks_no_questions(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, 0);
    SAY(&t, {0, "POST /api/sandbox/{id}/autodelete/1440", NULL, 201, NULL, NULL},
        {0, "DELETE /api/sandbox/{id}", NULL, 200, "destroying", NULL},
        {0, "GET /_sim/stats", NULL, 200, "DELETE of a kept sandbox\":1", NULL});
    talk_end(&t);
}

static void an_idle_one_ends_at_the_next_tick(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, 0); /* 20 ms past a tick: due at 60.02 s, so taken at 70 s */
    SAY(&t, {69500, "GET /api/sandbox/{id}", NULL, 200, "\"state\":\"started\"", NULL},
        {1000, "GET /api/sandbox/{id}", NULL, 200, "\"state\":\"destroying\"", NULL},
        {0, "GET /_sim/ledger", NULL, 200, "\"destroyed_by\":\"auto_stop\"", NULL});
    talk_end(&t);
}

static void only_the_inside_is_activity(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, 0);
    SAY(&t, {30000, "GET /toolbox/{id}/version", NULL, 200, "version", NULL},
        {41000, "GET /api/sandbox/{id}", NULL, 200, "\"state\":\"started\"", NULL},
        {0, "GET /api/sandbox/{id}/ports/1/preview-url", NULL, 200, NULL, NULL},
        {0, "POST /api/sandbox/{id}/autostop/1", NULL, 201, NULL, NULL},
        {30000, "GET /api/sandbox/{id}", NULL, 200, "\"state\":\"destroying\"", NULL});
    talk_end(&t);
}

static void activity_can_be_kept_silent(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, 0);
    t.header_name = "X-Daytona-Skip-Last-Activity-Update";
    t.header_value = "true";
    SAY(&t, {30000, "GET /toolbox/{id}/version", NULL, 200, "version", NULL},
        {41000, "GET /api/sandbox/{id}", NULL, 200, "\"state\":\"destroying\"", NULL});
    talk_end(&t);
}

static void a_kept_one_that_is_idle_is_only_stopped(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, 0);
    SAY(&t, {0, "POST /api/sandbox/{id}/autodelete/2", NULL, 201, NULL, NULL},
        {71000, "GET /api/sandbox/{id}", NULL, 200, "\"state\":\"stopped\"", NULL},
        {100000, "GET /api/sandbox/{id}", NULL, 200, "\"state\":\"stopped\"", NULL},
        {30000, "GET /api/sandbox/{id}", NULL, 200, "\"state\":\"destroying\"", NULL},
        {0, "GET /_sim/ledger", NULL, 200, "\"destroyed_by\":\"auto_delete\"", NULL});
    talk_end(&t);
}

static void what_is_archived_first_is_never_deleted(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, NULL);
    SAY(&t,
        {0, "POST /api/sandbox",
         "{\"name\":\"a\",\"autoStopInterval\":0,\"autoArchiveInterval\":1,\"autoDeleteInterval\":"
         "2}",
         200, NULL, NULL},
        {0, "POST /api/sandbox/a/stop", NULL, 200, NULL, NULL},
        {3600000, "GET /api/sandbox/a", NULL, 200, "\"state\":\"archived\"", NULL});
    talk_end(&t);
}

static void without_auto_stop_nothing_ends_it(void **state)
{
    struct talk t;
    (void)state;
    talk_begin(&t, NULL);
    SAY(&t,
        {0, "POST /api/sandbox", "{\"name\":\"a\",\"autoStopInterval\":0,\"autoDeleteInterval\":0}",
         200, NULL, NULL},
        {3600000, "GET /api/sandbox/a", NULL, 200, "\"state\":\"started\"", NULL});
    talk_end(&t);
}

static void a_container_that_dies_is_stopped_and_then_destroyed(void **state)
{
    struct talk t;
    (void)state;
    begin(&t, 0);
    SAY(&t, {1000, "POST /_sim/world", "{\"crash\":\"a\"}", 200, NULL, NULL},
        {0, "GET /api/sandbox/a", NULL, 200, "\"state\":\"stopped\"", NULL},
        {9500, "GET /api/sandbox/{id}", NULL, 200, "\"state\":\"destroying\"", NULL});
    talk_end(&t);
}

/* At the tick the cron has chosen it: what KEEP says then is no use, whatever it says. */
static void a_keep_at_the_tick_may_come_too_late(void **state)
{
    unsigned said[2] = {0};
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct model_options o = {.seed = seed};
        struct talk t;
        talk_begin(&t, &o);
        SAY(&t, {0, "POST /api/sandbox", ephemeral, 200, NULL, NULL});
        t.now_ns = 70 * NS_PER_S;
        ask(&t, "POST /api/sandbox/{id}/autodelete/1440", NULL);
        said[t.reply.status == 201 && strstr(buf_text(&t.reply.body), "\"state\":\"started\"")]++;
        SAY(&t, {1000, "GET /api/sandbox/{id}", NULL, 404, NULL, NULL});
        talk_end(&t);
    }
    assert_true(said[0] > 5);
    assert_true(said[1] > 5);
}

static void a_keep_beside_a_stop_may_be_overtaken(void **state)
{
    unsigned said_409 = 0, said_started = 0;
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct model_options o = {.seed = seed, .race_ms = 10};
        struct talk t;
        talk_begin(&t, &o);
        SAY(&t, {0, "POST /api/sandbox", ephemeral, 200, NULL, NULL},
            {0, "POST /api/sandbox/{id}/stop", NULL, 200, NULL, NULL});
        ask(&t, "POST /api/sandbox/{id}/autodelete/1440", NULL);
        said_409 += t.reply.status == 409;
        said_started += strstr(buf_text(&t.reply.body), "\"state\":\"started\"") != NULL;
        SAY(&t, {100, "GET /api/sandbox/{id}", NULL, 404, NULL, NULL});
        talk_end(&t);
    }
    assert_int_equal(said_409 + said_started, 40);
    assert_in_range(said_409, 15, 35);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stop_destroys_what_is_ephemeral),
        cmocka_unit_test(stop_spares_what_was_kept),
        cmocka_unit_test(delete_asks_no_questions),
        cmocka_unit_test(an_idle_one_ends_at_the_next_tick),
        cmocka_unit_test(only_the_inside_is_activity),
        cmocka_unit_test(activity_can_be_kept_silent),
        cmocka_unit_test(a_kept_one_that_is_idle_is_only_stopped),
        cmocka_unit_test(what_is_archived_first_is_never_deleted),
        cmocka_unit_test(without_auto_stop_nothing_ends_it),
        cmocka_unit_test(a_container_that_dies_is_stopped_and_then_destroyed),
        cmocka_unit_test(a_keep_at_the_tick_may_come_too_late),
        cmocka_unit_test(a_keep_beside_a_stop_may_be_overtaken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
