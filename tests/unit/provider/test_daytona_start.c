/* daytona, START: until it runs. */
#include "tests/unit/provider/box.h"

/* ---- START ---- */

static void start_waits_while_it_is_on_its_way(void **state)
{
    (void)state;
    found(START_JOB, DTO("creating", "started", "0"));
    talk(w, ENTER(START),
         {.ask = BY_ID,
          .status = 200,
          .body = DTO("creating", "started", "0"),
          .verdict = AGAIN,
          .code = ERR_CREATE_FAILED,
          .after_ms = 200,
          .says = "creating"},
         {.ask = BY_ID,
          .status = 200,
          .body = DTO("some_new_state", "started", "0"),
          .verdict = AGAIN,
          .code = ERR_CREATE_FAILED,
          .after_ms = 260},
         {.ask = BY_ID, .status = 200, .body = DTO("started", "started", "0"), .set = RUNS});
}

static void start_polls_from_200_ms_to_2_s(void **state)
{
    const struct line look = {.ask = BY_ID,
                              .status = 200,
                              .body = DTO("starting", "started", "0"),
                              .verdict = AGAIN,
                              .code = ERR_CREATE_FAILED};
    (void)state;
    found(START_JOB, DTO("creating", "started", "0"));
    enter(w, START);
    for (int i = 0; i < 12; i++)
        talk_line(w, &look);
    assert_int_equal(w->answer.after_ms, 2000);
}

static void start_of_one_at_rest(void **state)
{
    static const char *const at_rest[] = {
        DTO("stopped", "stopped", "-1"), DTO("archived", "archived", "-1"),
        DTO("archiving", "archived", "-1"), DTO("paused", "paused", "-1")};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(at_rest); i++) {
        found(START_JOB, at_rest[i]);
        talk(w, ENTER(START),
             {.ask = "POST /sandbox/box-1/start",
              .status = 200,
              .body = DTO("archived", "started", "-1"), /* until the runner begins */
              .verdict = AGAIN,
              .code = ERR_START_TIMEOUT},
             {.ask = BY_ID, .status = 200, .body = DTO("started", "started", "-1"), .set = RUNS});
        world_free(w);
    }
    found(START_JOB, DTO("stopping", "stopped", "-1"));
    talk(w, ENTER(START),
         {.ask = BY_ID,
          .status = 200,
          .body = DTO("stopping", "stopped", "-1"),
          .verdict = AGAIN,
          .code = ERR_START_TIMEOUT},
         {.ask = BY_ID, .status = 200, .body = DTO("stopped", "stopped", "-1")},
         {.ask = "POST /sandbox/box-1/start",
          .status = 200,
          .body = DTO("stopped", "stopped", "-1"),
          .verdict = AGAIN,
          .code = ERR_START_TIMEOUT},
         {.ask = "POST /sandbox/box-1/start",
          .status = 200,
          .body = DTO("started", "started", "-1"),
          .set = RUNS});
}

static void a_held_start_does_not_know_the_intervals(void **state)
{
    (void)state;
    found(START_JOB, DTO("stopped", "stopped", "1440"));
    talk(w, ENTER(START),
         {.ask = "POST /sandbox/box-1/start",
          .status = 200,
          .body = DTO("started", "started", "0"),
          .set = RUNS});
    assert_false(w->box->provisional);
}

static void what_start_is_told(void **state)
{
    static const struct line answers[] = {
        {.status = 409,
         .body = ERROR(409, "Sandbox state change in progress"),
         .verdict = AGAIN,
         .code = ERR_START_TIMEOUT,
         .after_ms = 200},
        {.status = 400,
         .body = ERROR(400, "Sandbox is not in valid state"),
         .verdict = AGAIN,
         .code = ERR_START_TIMEOUT,
         .after_ms = 200},
        {.status = 400, .body = ERROR(400, "Sandbox is in an errored state")},
        {.status = 400, .body = ERROR(400, "Sandbox failed to start: stub")},
        {.fault = FAULT_TIMEOUT, .verdict = RETRY, .code = ERR_PROVIDER_UNAVAILABLE},
        {.status = 502, .verdict = RETRY, .code = ERR_PROVIDER_UNAVAILABLE},
        {.status = 200, .body = "{}", .verdict = RETRY, .code = ERR_PROVIDER_PROTOCOL},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
        struct line l = answers[i];
        found(START_JOB, DTO("stopped", "stopped", "-1"));
        enter(w, START);
        w->row = (int)i;
        l.ask = "POST /sandbox/box-1/start";
        talk_line(w, &l);
        talk(w, /* none of them says how it stands */
             {.ask = BY_ID, .status = 200, .body = DTO("started", "started", "-1"), .set = RUNS});
        world_free(w);
    }
    found(START_JOB, DTO("stopped", "stopped", "-1"));
    talk(w, ENTER(START),
         {.ask = "POST /sandbox/box-1/start",
          .status = 400,
          .body = ERROR(400, "Total CPU limit exceeded."),
          .verdict = AGAIN,
          .code = ERR_QUOTA_EXCEEDED,
          .after_ms = 10000},
         {.ask = "POST /sandbox/box-1/start",
          .status = 400,
          .body = ERROR(400, "Only ephemeral sandboxes are permitted in this region"),
          .verdict = REFUSE,
          .code = ERR_START_FAILED},
         {.ask = "POST /sandbox/box-1/start",
          .status = 404,
          .body = NOT_FOUND,
          .verdict = LOST,
          .code = ERR_START_FAILED});
}

static void start_of_one_in_error(void **state)
{
    (void)state;
    found(START_JOB, DTO("error", "started", "0")); /* provisional: nobody can use it */
    talk(w, ENTER(START),
         {.ask = BY_ID,
          .status = 200,
          .body = DTO("error", "started", "0"),
          .verdict = LOST,
          .code = ERR_CREATE_FAILED});
    w->box->started_here = true;
    talk(w, ENTER(START),
         {.ask = BY_ID,
          .status = 200,
          .body = DTO("build_failed", "started", "0"),
          .verdict = LOST,
          .code = ERR_START_FAILED});
    world_free(w);
    found(START_JOB, DTO("error", "started", "-1")); /* kept */
    talk(w, ENTER(START),
         {.ask = BY_ID,
          .status = 200,
          .body = DTO_OF("box-1", "oh.s1", "error", "started", "60", "-1", OUR_LABELS,
                         "\"recoverable\":true,\"errorReason\":\"disk full\","),
          .verdict = OK},
         {.ask = "POST /sandbox/box-1/recover",
          .status = 200,
          .body = DTO_OF("box-1", "oh.s1", "error", "started", "60", "-1", OUR_LABELS,
                         "\"recoverable\":true,\"errorReason\":\"disk full\","),
          .verdict = REFUSE,
          .code = ERR_START_FAILED,
          .says = "disk full"});
    world_free(w);
    found(START_JOB, DTO("error", "started", "-1"));
    talk(w, ENTER(START),
         {.ask = BY_ID,
          .status = 200,
          .body = DTO("error", "started", "-1"),
          .verdict = REFUSE,
          .code = ERR_START_FAILED});
}

static void a_sandbox_that_dies_while_starting_is_lost(void **state)
{
    (void)state;
    found(START_JOB, DTO("creating", "started", "0"));
    talk(w, ENTER(START),
         {.ask = BY_ID,
          .status = 404,
          .body = NOT_FOUND,
          .verdict = LOST,
          .code = ERR_CREATE_FAILED,
          .says = "gone"},
         {.ask = BY_ID,
          .status = 200,
          .body = DTO("destroying", "destroyed", "0"),
          .verdict = LOST,
          .code = ERR_CREATE_FAILED},
         {.ask = BY_ID,
          .status = 200,
          .body = "[]",
          .verdict = RETRY,
          .code = ERR_PROVIDER_PROTOCOL});
}

static void without_a_server_running_is_all(void **state)
{
    (void)state;
    found("{\"type\":\"start-session\",\"session_id\":\"s1\",\"server\":{\"kind\":\"none\"}}",
          DTO("creating", "started", "0"));
    talk(w, ENTER(START),
         {.ask = BY_ID,
          .status = 200,
          .body = DTO("started", "started", "0"),
          .set = RUNS | SERVER | ANSWERS | ACCEPTS});
    assert_int_equal(w->facts & (SERVER | ANSWERS | ACCEPTS), SERVER | ANSWERS | ACCEPTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(start_waits_while_it_is_on_its_way, teardown),
        cmocka_unit_test_teardown(start_polls_from_200_ms_to_2_s, teardown),
        cmocka_unit_test_teardown(start_of_one_at_rest, teardown),
        cmocka_unit_test_teardown(a_held_start_does_not_know_the_intervals, teardown),
        cmocka_unit_test_teardown(what_start_is_told, teardown),
        cmocka_unit_test_teardown(start_of_one_in_error, teardown),
        cmocka_unit_test_teardown(a_sandbox_that_dies_while_starting_is_lost, teardown),
        cmocka_unit_test_teardown(without_a_server_running_is_all, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
