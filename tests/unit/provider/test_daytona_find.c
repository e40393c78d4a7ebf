/* daytona, FIND: is there a sandbox of this session? */
#include "tests/unit/provider/box.h"

#define STOP_JOB "{\"type\":\"stop-session\",\"session_id\":\"s1\"}"
#define DELETE_JOB "{\"type\":\"delete-session\",\"session_id\":\"s1\"}"
#define ATTACH_JOB "{\"type\":\"start-session\",\"session_id\":\"s1\",\"mode\":\"attach\"}"
#define LABELS                                                                                     \
    "GET "                                                                                         \
    "/sandbox?labels=%7B%22session-worker%2Ffleet%22%3A%22oh%22%2C%22OpenHands_SID%22%3A%22s1%22%" \
    "7D"

/* ---- FIND ---- */

static void find_by_name(void **state)
{
    (void)state;
    w = world_new(START_JOB);
    talk(w, ENTER(FIND),
         {.ask = NAME,
          .status = 200,
          .body = DTO("started", "started", "-1"),
          .set = LOOKED | EXISTS | RUNS | KEPT});
    assert_string_equal(w->box->id, "box-1");
    assert_true(w->box->ours && w->box->mine && !w->box->provisional);
    assert_int_equal(w->box->state, BOX_RUNS);
    assert_string_equal(w->box->state_name, "started");
    assert_string_equal(w->box->target, "us");
    assert_string_equal(w->box->spec_id, "oh-v1");
    assert_string_equal(w->box->created_at, "2026-11-24T07:59:00.000Z");
    assert_string_equal(w->box->label_session, "s1");
    assert_string_equal(w->box->label_job, "session-jobs/3/42");
}

static void find_tells_whose_it_is(void **state)
{
    (void)state;
    w = world_new(START_JOB);
    talk(w, ENTER(FIND),
         {.ask = NAME,
          .status = 200,
          .body = DTO_OF("box-1", "oh.s1", "stopped", "stopped", "60", "0", OTHER_LABELS, ""),
          .set = LOOKED | EXISTS});
    assert_true(w->box->ours && !w->box->mine && w->box->provisional);
    assert_string_equal(w->box->label_spec, "abc");
    talk(w, ENTER(FIND),
         {.ask = BY_ID,
          .status = 200,
          .body = DTO_OF("box-1", "oh.s1", "started", "started", "60", "-1",
                         "\"OpenHands_SID\":\"s1\",\"session-worker/fleet\":\"theirs\"", ""),
          .set = LOOKED | EXISTS | RUNS | KEPT});
    assert_false(w->box->ours);
}

static void find_nothing_for_a_start(void **state)
{
    (void)state;
    w = world_new(START_JOB);
    talk(w, ENTER(FIND), {.ask = NAME, .status = 404, .body = NOT_FOUND, .set = LOOKED});
    assert_null(w->box->id);
}

static void find_believes_a_404_by_name_only_with_an_empty_list(void **state)
{
    static const char *const jobs[] = {STOP_JOB, DELETE_JOB, ATTACH_JOB};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(jobs); i++) {
        w = world_new(jobs[i]);
        talk(w, ENTER(FIND), {.ask = NAME, .status = 404, .body = NOT_FOUND},
             {.ask = LABELS,
              .status = 200,
              .body = "{\"items\":[],\"nextCursor\":null}",
              .set = LOOKED});
        world_free(w);
    }
    w = world_new(STOP_JOB);
    talk(w, ENTER(FIND), {.ask = NAME, .status = 404, .body = NOT_FOUND},
         {.ask = LABELS,
          .status = 200,
          .body = "{\"items\":["
          /* not ours, on its way out, without an id that can be used: none of them */
          DTO_OF("x-1", "n", "started", "started", "1", "-1", "\"OpenHands_SID\":\"s1\"",
                 "") "," DTO_OF("x-2", "n", "started", "destroyed", "1", "-1", OUR_LABELS,
                                "") "," DTO_OF("../x", "n", "started", "started", "1", "-1",
                                               OUR_LABELS,
                                               "") "," DTO("started", "started", "-1") "]}"},
         {.ask = BY_ID,
          .status = 200,
          .body = DTO("stopped", "stopped", "-1"),
          .set = LOOKED | EXISTS | KEPT | RESTS});
}

static void find_takes_a_bare_array_and_survives_a_stale_list(void **state)
{
    (void)state;
    w = world_new(DELETE_JOB);
    talk(w, ENTER(FIND), {.ask = NAME, .status = 404, .body = NOT_FOUND},
         {.ask = LABELS, .status = 200, .body = "[" DTO("started", "started", "-1") "]"},
         {.ask = BY_ID, .status = 404, .body = NOT_FOUND, .set = LOOKED});
    assert_null(w->box->id);
    talk(w, ENTER(FIND), {.ask = NAME, .status = 404, .body = NOT_FOUND},
         {.ask = LABELS,
          .status = 200,
          .body = "{\"what\":1}",
          .verdict = RETRY,
          .code = ERR_PROVIDER_PROTOCOL});
}

#define MADE(id, at)                                                                               \
    "{\"id\":\"" id "\",\"name\":\"oh.s1\",\"state\":\"started\",\"createdAt\":\"" at              \
    "\",\"labels\":{" OUR_LABELS "}}"
#define OLD MADE("old", "2026-11-24T07:58:59.999Z")
#define NEW MADE("new", "2026-11-24T07:59:00.000Z")
#define DATELESS                                                                                   \
    "{\"id\":\"x\",\"name\":\"oh.s1\",\"state\":\"started\",\"labels\":{" OUR_LABELS "}}"

static void find_takes_the_newest_of_a_list(void **state)
{
    static const char *const lists[] = {"[" OLD "," NEW "," DATELESS "]",
                                        "[" DATELESS "," NEW "," OLD "]"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        w = world_new(STOP_JOB);
        talk(w, ENTER(FIND), {.ask = NAME, .status = 404, .body = NOT_FOUND},
             {.ask = LABELS, .status = 200, .body = lists[i]},
             {.ask = "GET /sandbox/new",
              .status = 200,
              .body = NEW,
              .set = LOOKED | EXISTS | RUNS | KEPT});
        assert_string_equal(w->box->id, "new");
        world_free(w);
    }
    w = world_new(STOP_JOB);
}

static void find_goes_by_the_hint_and_falls_back(void **state)
{
    (void)state;
    w = world_new(START_JOB);
    w->box->hint_id = xstrdup("box-0");
    talk(w, ENTER(FIND), {.ask = "GET /sandbox/box-0", .status = 404, .body = NOT_FOUND},
         {.ask = NAME, .status = 404, .body = NOT_FOUND, .set = LOOKED}, ENTER(START), ENTER(FIND),
         {.wait_ms = 1,
          .ask = "GET /sandbox/box-0",
          .status = 200,
          .body = DTO_OF("box-0", "oh.s1", "destroying", "destroyed", "1", "0", OUR_LABELS, "")},
         {.ask = NAME,
          .status = 200,
          .body = DTO("started", "started", "-1"),
          .set = LOOKED | EXISTS | RUNS | KEPT});
    assert_string_equal(w->box->id, "box-1");
}

/* An attach may have been to a sandbox of nobody: the next job has not named it. */
static void a_hint_of_an_unlabelled_one_is_no_hint(void **state)
{
    static const struct line nobodys = {
        .ask = "GET /sandbox/b",
        .status = 200,
        .body = DTO_OF("b", "mine", "started", "started", "60", "-1", "", "")};
    (void)state;
    w = world_new(START_JOB);
    w->box->hint_id = xstrdup("b");
    talk(w, ENTER(FIND), nobodys, {.ask = NAME, .status = 404, .body = NOT_FOUND, .set = LOOKED});
    assert_null(w->box->id);
    world_free(w);
    w = world_new(ATTACH_JOB);
    w->box->hint_id = xstrdup("b");
    talk(w, ENTER(FIND), nobodys,
         {.ask = NAME,
          .status = 200,
          .body = DTO("started", "started", "-1"),
          .set = LOOKED | EXISTS | RUNS | KEPT});
    assert_string_equal(w->box->id, "box-1");
}

static void an_id_that_the_job_names_is_what_it_is_about(void **state)
{
    (void)state;
    w = world_new("{\"type\":\"delete-session\",\"session_id\":\"s1\",\"sandbox\":{\"id\":\"b\"}}");
    talk(w, ENTER(FIND),
         {.ask = "GET /sandbox/b", .status = 404, .body = NOT_FOUND, .set = LOOKED});
    world_free(w);
    w = world_new("{\"type\":\"start-session\",\"session_id\":\"s1\",\"mode\":\"attach\","
                  "\"sandbox\":{\"id\":\"b\"}}");
    talk(w, ENTER(FIND), /* another session's: not found */
         {.ask = "GET /sandbox/b",
          .status = 200,
          .body = DTO_OF("b", "n", "started", "started", "1", "-1", "\"OpenHands_SID\":\"s2\"", ""),
          .set = LOOKED});
    assert_null(w->box->id);
    talk(w, ENTER(FIND), /* nobody's: may be attached to, under its own name */
         {.ask = "GET /sandbox/b",
          .status = 200,
          .body = DTO_OF("b", "mine", "started", "started", "1", "-1", "", ""),
          .set = LOOKED | EXISTS | RUNS | KEPT});
    assert_true(w->box->ours);
    assert_string_equal(w->box->name, "mine");
}

static void looking_again_clears_the_doubt_about_a_keep(void **state)
{
    (void)state;
    found(START_JOB, DTO("started", "started", "0"));
    assert_true(w->box->provisional);
    w->box->maybe_kept = true;
    talk(w, ENTER(FIND),
         {.ask = BY_ID,
          .status = 500,
          .body = ERROR(500, "An unexpected error occurred."),
          .verdict = RETRY,
          .code = ERR_PROVIDER_UNAVAILABLE});
    assert_true(w->box->maybe_kept);
    talk(w, {.ask = BY_ID,
             .status = 200,
             .body = DTO("stopped", "stopped", "1440"),
             .set = LOOKED | EXISTS | KEPT,
             .clear = RUNS | SERVER | ANSWERS | ACCEPTS});
    assert_false(w->box->maybe_kept || w->box->provisional);
    w->box->maybe_kept = true;
    talk(w, ENTER(FIND),
         {.ask = BY_ID,
          .status = 404,
          .body = NOT_FOUND,
          .set = LOOKED,
          .clear = EXISTS | RUNS | KEPT});
    assert_false(w->box->maybe_kept);
    assert_int_equal(w->box->state, BOX_GONE);
    assert_string_equal(w->box->id, "box-1");
}

static void a_destroy_has_no_job(void **state)
{
    (void)state;
    w = world_new(NULL);
    w->box->id = xstrdup("box-1");
    w->box->name = xstrdup("oh.s1");
    talk(w, ENTER(FIND),
         {.ask = BY_ID,
          .status = 200,
          .body = DTO("started", "started", "0"),
          .set = LOOKED | EXISTS | RUNS});
    assert_true(w->box->ours && w->box->provisional);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(find_by_name, teardown),
        cmocka_unit_test_teardown(find_tells_whose_it_is, teardown),
        cmocka_unit_test_teardown(find_nothing_for_a_start, teardown),
        cmocka_unit_test_teardown(find_believes_a_404_by_name_only_with_an_empty_list, teardown),
        cmocka_unit_test_teardown(find_takes_a_bare_array_and_survives_a_stale_list, teardown),
        cmocka_unit_test_teardown(find_takes_the_newest_of_a_list, teardown),
        cmocka_unit_test_teardown(find_goes_by_the_hint_and_falls_back, teardown),
        cmocka_unit_test_teardown(a_hint_of_an_unlabelled_one_is_no_hint, teardown),
        cmocka_unit_test_teardown(an_id_that_the_job_names_is_what_it_is_about, teardown),
        cmocka_unit_test_teardown(looking_again_clears_the_doubt_about_a_keep, teardown),
        cmocka_unit_test_teardown(a_destroy_has_no_job, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
