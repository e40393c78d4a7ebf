/* daytona, KEEP, STOP, DELETE: a sandbox for good, or for nobody. */
#include "tests/unit/provider/box.h"

#define STOP_JOB "{\"type\":\"stop-session\",\"session_id\":\"s1\"}"
#define DELETE_JOB "{\"type\":\"delete-session\",\"session_id\":\"s1\"}"
#define GONE_BY_ID {.ask = BY_ID, .status = 404, .body = NOT_FOUND, .set = RESTS | GONE}

/* ---- KEEP ---- */

#define KEEP_JOB                                                                                   \
    "{\"type\":\"start-session\",\"session_id\":\"s1\",\"sandbox\":{\"auto_stop_minutes\":30,"     \
    "\"auto_delete_minutes\":1440}}"
#define KEPT_DTO(stop, del)                                                                        \
    DTO_OF("box-1", "oh.s1", "started", "started", stop, del, OUR_LABELS, "")
#define AUTODELETE "POST /sandbox/box-1/autodelete/1440"
#define AUTOSTOP "POST /sandbox/box-1/autostop/30"

static void keep_sets_both_intervals_in_this_order(void **state)
{
    (void)state;
    found(KEEP_JOB, DTO("started", "started", "0"));
    talk(w, ENTER(KEEP), {.ask = AUTODELETE, .status = 201, .body = KEPT_DTO("60", "1440")});
    assert_false(w->box->provisional || w->box->maybe_kept);
    talk(w, {.ask = AUTOSTOP, .status = 201, .body = KEPT_DTO("30", "1440"), .set = KEPT});
    world_free(w);
    found("{\"type\":\"start-session\",\"session_id\":\"s1\"}", DTO("started", "started", "0"));
    talk(w, ENTER(KEEP), /* for ever, and the interval is as it should be */
         {.ask = "POST /sandbox/box-1/autodelete/-1",
          .status = 201,
          .body = DTO("started", "started", "-1"),
          .set = KEPT});
}

static void keep_is_in_doubt_until_a_look_comes_back(void **state)
{
    (void)state;
    found(KEEP_JOB, DTO("started", "started", "0"));
    talk(w, ENTER(KEEP),
         {.ask = AUTODELETE,
          .fault = FAULT_TIMEOUT,
          .verdict = RETRY,
          .code = ERR_PROVIDER_UNAVAILABLE});
    assert_true(w->box->maybe_kept);
    talk(w, {.ask = AUTODELETE,
             .status = 409,
             .body = ERROR(409, "modified by another operation"),
             .verdict = AGAIN,
             .after_ms = 200});
    assert_true(w->box->maybe_kept);
    talk(w, {.ask = BY_ID, .status = 200, .body = KEPT_DTO("60", "1440")});
    assert_false(w->box->maybe_kept);
    talk(w,
         {.ask = AUTOSTOP,
          .status = 201,
          .body = "?",
          .verdict = RETRY,
          .code = ERR_PROVIDER_PROTOCOL},
         {.ask = BY_ID, .status = 200, .body = KEPT_DTO("30", "1440"), .set = KEPT});
}

static void keep_judges_the_desired_state_not_the_201(void **state)
{
    (void)state;
    found(KEEP_JOB, DTO("started", "started", "0"));
    talk(w, ENTER(KEEP),
         {.ask = AUTODELETE,
          .status = 201,
          .body = DTO_OF("box-1", "DESTROYED_oh.s1_1795507200000", "destroying", "destroyed", "60",
                         "1440", OUR_LABELS, ""),
          .verdict = LOST,
          .code = ERR_START_FAILED,
          .says = "gone"});
    world_free(w);
    found(KEEP_JOB, DTO("started", "started", "0"));
    w->box->started_here = true;
    talk(w, ENTER(KEEP),
         {.ask = AUTODELETE,
          .status = 404,
          .body = NOT_FOUND,
          .verdict = LOST,
          .code = ERR_START_FAILED},
         {.ask = AUTODELETE,
          .status = 201,
          .body = DTO("stopping", "stopped", "1440"),
          .verdict = LOST,
          .code = ERR_START_FAILED,
          .says = "stopping"},
         {.ask = AUTODELETE,
          .status = 400,
          .body = ERROR(400, "GPU sandboxes must remain ephemeral"),
          .verdict = REFUSE,
          .code = ERR_CREATE_FAILED});
    talk(w, ENTER(KEEP), /* an operation on a live one is waited for */
         {.ask = AUTOSTOP,
          .status = 201,
          .body = DTO("resizing", "resized", "1440"),
          .verdict = AGAIN,
          .code = ERR_START_TIMEOUT},
         {.ask = BY_ID, .status = 200, .body = KEPT_DTO("30", "1440"), .set = KEPT});
}

static void keep_does_not_race_the_idle_stop(void **state)
{
    (void)state;
    found(KEEP_JOB, KEPT_DTO("2", "0")); /* active until 07:59:30: stops at 08:01:30 */
    talk(w, ENTER(KEEP),
         {.wait_ms = 31000,
          .ask = "POST /sandbox/box-1/last-activity",
          .status = 201,
          .verdict = AGAIN,
          .after_ms = 13000},
         {.ask = BY_ID, .status = 200, .body = KEPT_DTO("2", "0")}, /* not written yet */
         {.ask = "POST /sandbox/box-1/last-activity", .status = 201, .verdict = AGAIN},
         {.ask = BY_ID,
          .status = 200,
          .body =
              "{\"id\":\"box-1\",\"name\":\"oh.s1\",\"state\":\"started\",\"desiredState\":"
              "\"started\",\"autoStopInterval\":2,\"autoDeleteInterval\":0,\"labels\":{" OUR_LABELS
              "},\"lastActivityAt\":\"2026-11-24T08:00:40Z\"}"},
         {.ask = AUTODELETE,
          .status = 201,
          .body = "{\"id\":\"box-1\",\"name\":\"oh.s1\",\"state\":\"started\",\"desiredState\":"
                  "\"started\",\"autoStopInterval\":2,\"autoDeleteInterval\":1440,\"labels\":"
                  "{" OUR_LABELS "},\"lastActivityAt\":\"2026-11-24T08:00:40Z\"}"},
         {.ask = AUTOSTOP, .status = 201, .body = KEPT_DTO("30", "1440"), .set = KEPT});
}

/* One that is always within a minute of its idle stop is kept all the same. */
static void keep_with_the_shortest_auto_stop(void **state)
{
    (void)state;
    found("{\"type\":\"start-session\",\"session_id\":\"s1\",\"sandbox\":{"
          "\"auto_stop_minutes\":1}}",
          KEPT_DTO("10", "0"));
    talk(w, ENTER(KEEP),
         {.ask = "POST /sandbox/box-1/autodelete/-1", .status = 201, .body = KEPT_DTO("10", "-1")},
         {.ask = "POST /sandbox/box-1/autostop/1",
          .status = 201,
          .body = KEPT_DTO("1", "-1"),
          .set = KEPT});
}

static void keep_goes_by_the_servers_clock(void **state)
{
    (void)state;
    found(KEEP_JOB, KEPT_DTO("2", "0"));
    const struct line late = {.ask = BY_ID, .status = 200, .body = KEPT_DTO("2", "0")};
    const struct reply r = {.status = 200,
                            .body = late.body,
                            .body_len = strlen(late.body),
                            .date_ms = WALL_MS + 40000}; /* ours is 40 s behind */
    enter(w, FIND);
    assert_int_equal(ask(w, 0), ASKED_CALL);
    tell(w, 0, &r);
    talk(w, ENTER(KEEP),
         {.ask = "POST /sandbox/box-1/last-activity", .status = 201, .verdict = AGAIN});
}

static void a_kept_one_is_looked_at_and_left_alone(void **state)
{
    (void)state;
    found(KEEP_JOB, KEPT_DTO("30", "1440"));
    talk(w, ENTER(KEEP),
         {.ask = BY_ID, .status = 200, .body = KEPT_DTO("30", "1440"), .set = KEPT});
}

/* ---- STOP, DELETE ---- */

#define STOP_IT "POST /sandbox/box-1/stop"

static void a_destroy_is_over_when_the_stop_is_taken(void **state)
{
    (void)state;
    found(START_JOB, DTO("started", "started", "0"));
    talk(w, ENTER(STOP),
         {.ask = STOP_IT,
          .status = 200,
          .body = DTO_OF("box-1", "DESTROYED_oh.s1_1795507200000", "destroying", "destroyed", "60",
                         "0", OUR_LABELS, ""),
          .set = RESTS | GONE});
    world_free(w);
    found(START_JOB, DTO("started", "started", "0"));
    talk(w, ENTER(STOP), /* somebody has kept it meanwhile: stopped, no more */
         {.ask = STOP_IT, .status = 200, .body = DTO("stopping", "stopped", "1440"), .set = RESTS});
}

static void a_user_stop_is_over_when_it_rests(void **state)
{
    (void)state;
    found(STOP_JOB, DTO("started", "started", "-1"));
    talk(w, ENTER(STOP),
         {.ask = STOP_IT,
          .status = 200,
          .body = DTO("stopping", "stopped", "-1"),
          .verdict = AGAIN,
          .after_ms = 500},
         {.ask = BY_ID,
          .status = 200,
          .body = DTO("stopping", "stopped", "-1"),
          .verdict = AGAIN,
          .after_ms = 500},
         {.ask = BY_ID,
          .status = 200,
          .body = DTO("stopped", "stopped", "-1"),
          .set = RESTS,
          .clear = RUNS | SERVER});
    world_free(w);
    found(STOP_JOB, DTO("started", "started", "-1"));
    talk(w, ENTER(STOP),
         {.ask = STOP_IT,
          .status = 400,
          .body = ERROR(400, "Sandbox is not in a stoppable state"),
          .verdict = AGAIN,
          .code = ERR_PROVIDER_UNAVAILABLE,
          .after_ms = 200},
         {.ask = BY_ID, .status = 200, .body = DTO("archived", "archived", "-1"), .set = RESTS});
    world_free(w);
    found(STOP_JOB, DTO("started", "started", "-1"));
    talk(w, ENTER(STOP), {.ask = STOP_IT, .status = 404, .body = NOT_FOUND, .set = RESTS | GONE});
}

static void a_kept_one_in_error_is_never_deleted(void **state)
{
    (void)state;
    found(STOP_JOB, DTO("error", "started", "-1"));
    talk(w, ENTER(STOP),
         {.ask = STOP_IT,
          .status = 400,
          .body = ERROR(400, "Sandbox is in an errored state"),
          .verdict = AGAIN,
          .code = ERR_PROVIDER_UNAVAILABLE,
          .after_ms = 200},
         {.ask = BY_ID, .status = 200, .body = DTO("error", "started", "-1"), .set = RESTS});
    world_free(w);
    found(START_JOB, DTO("error", "started", "0"));
    w->box->maybe_kept = true;
    talk(w, ENTER(STOP),
         {.ask = STOP_IT,
          .status = 400,
          .body = ERROR(400, "Sandbox is in an errored state"),
          .verdict = AGAIN,
          .code = ERR_PROVIDER_UNAVAILABLE,
          .after_ms = 200},
         {.ask = BY_ID, .status = 200, .body = DTO("error", "started", "0")},
         {.ask = "DELETE /sandbox/box-1", .status = 200, .set = RESTS | GONE});
}

static void a_stop_that_comes_too_early_waits(void **state)
{
    static const uint32_t pauses[] = {200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000};
    (void)state;
    found(STOP_JOB, DTO("creating", "started", "0"));
    enter(w, STOP);
    for (size_t i = 0; i < ARRAY_LEN(pauses); i++) {
        const struct line busy = {.ask = STOP_IT,
                                  .status = 409,
                                  .body = ERROR(409, "Sandbox state change in progress"),
                                  .verdict = AGAIN};
        talk_line(w, &busy);
        assert_int_equal(w->answer.after_ms, pauses[i]);
        talk(w, {.ask = BY_ID,
                 .status = 200,
                 .body = DTO("creating", "started", "0"),
                 .verdict = AGAIN});
    }
    talk(w, {.ask = STOP_IT, .status = 409, .body = ERROR(409, "in progress"), .verdict = AGAIN},
         GONE_BY_ID);
}

static void a_409_may_mean_that_it_is_being_destroyed(void **state)
{
    static const enum phase phases[] = {STOP, DELETE};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(phases); i++) {
        found(START_JOB, DTO("started", "started", "0"));
        enter(w, phases[i]);
        talk(w,
             {.ask = phases[i] == STOP ? STOP_IT : "DELETE /sandbox/box-1",
              .status = 409,
              .body = ERROR(409, "Sandbox state change in progress"),
              .verdict = AGAIN,
              .after_ms = 200},
             {.ask = BY_ID,
              .status = 200,
              .body = DTO("destroying", "destroyed", "0"),
              .set = RESTS | GONE});
        world_free(w);
    }
    w = world_new(START_JOB);
}

static void a_lost_stop_is_looked_up(void **state)
{
    (void)state;
    found(STOP_JOB, DTO("started", "started", "-1"));
    talk(w, ENTER(STOP),
         {.ask = STOP_IT, .fault = FAULT_LOST, .verdict = RETRY, .code = ERR_PROVIDER_UNAVAILABLE},
         {.ask = BY_ID, .status = 200, .body = DTO("started", "started", "-1"), .verdict = AGAIN},
         {.ask = STOP_IT,
          .status = 200,
          .body = "{}",
          .verdict = RETRY,
          .code = ERR_PROVIDER_PROTOCOL},
         {.ask = BY_ID, .status = 200, .body = DTO("stopped", "stopped", "-1"), .set = RESTS});
}

static void what_is_provisional_and_stopped_goes_by_itself(void **state)
{
    (void)state;
    found(START_JOB, DTO("stopped", "stopped", "0"));
    talk(w, ENTER(STOP), /* a start that needs the name waits for it */
         {.ask = STOP_IT,
          .status = 400,
          .body = ERROR(400, "Sandbox is not in a stoppable state"),
          .verdict = AGAIN,
          .code = ERR_PROVIDER_UNAVAILABLE,
          .after_ms = 200},
         {.ask = BY_ID,
          .status = 200,
          .body = DTO("stopped", "stopped", "0"),
          .verdict = AGAIN,
          .after_ms = 200},
         GONE_BY_ID);
    world_free(w);
    w = world_new(NULL); /* a destroy does not */
    w->box->id = xstrdup("box-1");
    w->box->name = xstrdup("oh.s1");
    talk(w, ENTER(STOP),
         {.ask = STOP_IT,
          .status = 400,
          .body = ERROR(400, "Sandbox is not in a stoppable state"),
          .verdict = AGAIN,
          .code = ERR_PROVIDER_UNAVAILABLE,
          .after_ms = 200},
         {.ask = BY_ID, .status = 200, .body = DTO("stopped", "stopped", "0"), .set = RESTS});
}

static void delete_is_done_with_200_and_404(void **state)
{
    (void)state;
    found(DELETE_JOB, DTO("started", "started", "-1"));
    talk(w, ENTER(DELETE),
         {.ask = "DELETE /sandbox/box-1",
          .status = 200,
          .body = DTO("destroying", "destroyed", "-1"),
          .set = RESTS | GONE});
    w->facts = EXISTS;
    talk(w, ENTER(DELETE),
         {.ask = "DELETE /sandbox/box-1", .status = 404, .body = NOT_FOUND, .set = RESTS | GONE});
}

static void a_lost_delete_is_decided_by_a_look(void **state)
{
    (void)state;
    found(DELETE_JOB, DTO("started", "started", "-1"));
    talk(w, ENTER(DELETE), {.ask = "DELETE /sandbox/box-1", .fault = FAULT_LOST, .verdict = AGAIN},
         {.ask = BY_ID, .status = 200, .body = DTO("started", "started", "-1"), .verdict = AGAIN},
         {.ask = "DELETE /sandbox/box-1", .fault = FAULT_TIMEOUT, .verdict = AGAIN},
         {.ask = BY_ID, .fault = FAULT_CONNECT, .verdict = RETRY, .code = ERR_PROVIDER_UNAVAILABLE},
         {.ask = BY_ID,
          .status = 200,
          .body = DTO("destroying", "destroyed", "-1"),
          .set = RESTS | GONE});
    world_free(w);
    found(DELETE_JOB, DTO("creating", "started", "-1"));
    talk(w, ENTER(DELETE),
         {.ask = "DELETE /sandbox/box-1",
          .status = 409,
          .body = ERROR(409, "Sandbox state change in progress"),
          .verdict = AGAIN,
          .after_ms = 200},
         {.ask = BY_ID, .status = 200, .body = DTO("creating", "started", "-1"), .verdict = AGAIN},
         {.ask = "DELETE /sandbox/box-1",
          .status = 429,
          .header = "retry-after-sandbox-lifecycle",
          .value = "60",
          .verdict = AGAIN,
          .code = ERR_RATE_LIMITED,
          .after_ms = 60000},
         {.ask = "DELETE /sandbox/box-1",
          .status = 500,
          .verdict = RETRY,
          .code = ERR_PROVIDER_UNAVAILABLE},
         GONE_BY_ID);
}

static void a_delete_that_cannot_be_yet_waits(void **state)
{
    static const uint32_t pauses[] = {200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000};
    (void)state;
    found(DELETE_JOB, DTO("started", "started", "-1"));
    enter(w, DELETE);
    for (size_t i = 0; i < ARRAY_LEN(pauses); i++) {
        const struct line not_now = {.ask = "DELETE /sandbox/box-1",
                                     .status = 400,
                                     .body = ERROR(400, "Sandbox is being snapshotted"),
                                     .verdict = AGAIN,
                                     .code = ERR_PROVIDER_UNAVAILABLE};
        talk_line(w, &not_now);
        assert_int_equal(w->answer.after_ms, pauses[i]);
        assert_string_equal(w->answer.provider_message, "Sandbox is being snapshotted");
        talk(w, {.ask = BY_ID,
                 .status = 200,
                 .body = DTO("started", "started", "-1"),
                 .verdict = AGAIN});
    }
}

static void a_late_delete_ends_with_its_look(void **state)
{
    static const struct line looks[] = {
        {.ask = BY_ID,
         .status = 200,
         .body = DTO("started", "started", "-1"),
         .verdict = REFUSE,
         .code = ERR_PROVIDER_UNAVAILABLE,
         .says = "the sandbox is still started"},
        {.ask = BY_ID,
         .status = 200,
         .body = DTO("destroying", "destroyed", "-1"),
         .set = RESTS | GONE},
        {.ask = BY_ID, .status = 404, .body = NOT_FOUND, .set = RESTS | GONE},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(looks); i++) {
        found(DELETE_JOB, DTO("started", "started", "-1"));
        talk(w, ENTER(DELETE),
             {.ask = "DELETE /sandbox/box-1", .fault = FAULT_LOST, .verdict = AGAIN});
        w->late = true;
        talk_line(w, &looks[i]);
        world_free(w);
    }
    found(DELETE_JOB, DTO("started", "started", "-1")); /* nor is one sent that has not arrived */
    talk(w, ENTER(DELETE),
         {.ask = "DELETE /sandbox/box-1",
          .fault = FAULT_CONNECT,
          .verdict = RETRY,
          .code = ERR_PROVIDER_UNAVAILABLE});
    w->late = true;
    talk_line(w, &looks[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(keep_sets_both_intervals_in_this_order, teardown),
        cmocka_unit_test_teardown(keep_is_in_doubt_until_a_look_comes_back, teardown),
        cmocka_unit_test_teardown(keep_judges_the_desired_state_not_the_201, teardown),
        cmocka_unit_test_teardown(keep_does_not_race_the_idle_stop, teardown),
        cmocka_unit_test_teardown(keep_with_the_shortest_auto_stop, teardown),
        cmocka_unit_test_teardown(keep_goes_by_the_servers_clock, teardown),
        cmocka_unit_test_teardown(a_kept_one_is_looked_at_and_left_alone, teardown),
        cmocka_unit_test_teardown(a_destroy_is_over_when_the_stop_is_taken, teardown),
        cmocka_unit_test_teardown(a_user_stop_is_over_when_it_rests, teardown),
        cmocka_unit_test_teardown(a_kept_one_in_error_is_never_deleted, teardown),
        cmocka_unit_test_teardown(a_stop_that_comes_too_early_waits, teardown),
        cmocka_unit_test_teardown(a_409_may_mean_that_it_is_being_destroyed, teardown),
        cmocka_unit_test_teardown(a_lost_stop_is_looked_up, teardown),
        cmocka_unit_test_teardown(what_is_provisional_and_stopped_goes_by_itself, teardown),
        cmocka_unit_test_teardown(delete_is_done_with_200_and_404, teardown),
        cmocka_unit_test_teardown(a_lost_delete_is_decided_by_a_look, teardown),
        cmocka_unit_test_teardown(a_delete_that_cannot_be_yet_waits, teardown),
        cmocka_unit_test_teardown(a_late_delete_ends_with_its_look, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
