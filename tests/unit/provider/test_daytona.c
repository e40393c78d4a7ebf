/* daytona: a sandbox from the first look to the last, as conversations with the API. */
#include "tests/unit/provider/talk.h"

#define STOP_JOB "{\"type\":\"stop-session\",\"session_id\":\"s1\"}"
#define DELETE_JOB "{\"type\":\"delete-session\",\"session_id\":\"s1\"}"
#define ATTACH_JOB "{\"type\":\"start-session\",\"session_id\":\"s1\",\"mode\":\"attach\"}"
#define NAME "GET /sandbox/oh.s1"
#define BY_ID "GET /sandbox/box-1"
#define LABELS                                                                                     \
    "GET /sandbox?labels=%7B%22session-worker%2Ffleet%22%3A%22oh%22%2C%22OpenHands_SID%22%3A%22s1" \
    "%22%7D"
#define GONE_BY_ID {.ask = BY_ID, .status = 404, .body = NOT_FOUND, .set = RESTS | GONE}

static struct world *w;

static int teardown(void **state)
{
    (void)state;
    world_free(w);
    return 0;
}

/* A world whose box has been found in this state. */
static void found(const char *job, const char *dto)
{
    w = world_new(job);
    talk(w, ENTER(FIND));
    const struct line look = {
        .ask = NAME, .status = 200, .body = dto, .set = UINT32_MAX}; /* whatever it says */
    ask(w, 0);
    tell_line(w, &look);
    assert_int_equal(w->answer.verdict, OK);
}

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

/* ---- CREATE ---- */

static const cJSON *sent(void)
{
    static cJSON *tree;
    cJSON_Delete(tree);
    tree = w->call.body ? json_parse_reply(w->call.body, w->call.body_len) : NULL;
    return tree;
}

static const char *header(const char *name)
{
    for (size_t i = 0; i < w->call.n_headers; i++)
        if (strcmp(w->call.headers[i].name, name) == 0)
            return w->call.headers[i].value;
    return "";
}

static void create_says_all_that_matters(void **state)
{
    (void)state;
    w = world_new("{\"type\":\"start-session\",\"session_id\":\"s1\",\"tenant\":\"acme\","
                  "\"timeout_seconds\":601,\"sandbox\":{\"snapshot\":\"oh-v1\",\"public\":true,"
                  "\"os_user\":\"root\",\"labels\":{\"team\":\"a\\\"b\"},\"auto_stop_minutes\":3,"
                  "\"auto_archive_minutes\":500,\"auto_delete_minutes\":99,"
                  "\"volumes\":[{\"id\":\"v1\",\"mount_path\":\"/data\",\"subpath\":\"x\"}]}}");
    talk(w, ENTER(CREATE));
    assert_int_equal(ask(w, 0), ASKED_CALL);
    assert_string_equal(w->call.content_type, "application/json");
    assert_string_equal(header("Authorization"), "Bearer dtn_test");
    assert_string_equal(header("X-Daytona-Source"), "session-worker");
    assert_true(w->call.timeout_ms >= 45000 && !w->call.repeatable);
    assert_true(w->provider->ops->scopes[w->call.scope].creates);
    char *wanted = xasprintf(
        "{\"name\":\"oh.s1\",\"labels\":{\"team\":\"a\\\"b\",\"OpenHands_SID\":\"s1\","
        "\"session-worker/fleet\":\"oh\",\"session-worker/partition\":\"session-jobs/3\","
        "\"session-worker/job\":\"session-jobs/3/42\",\"session-worker/spec\":\"%s\","
        "\"session-worker/key\":\"%s\",\"session-worker/tenant\":\"acme\"},"
        "\"autoStopInterval\":16,\"autoArchiveInterval\":500,\"autoDeleteInterval\":0,"
        "\"target\":\"us\",\"snapshot\":\"oh-v1\",\"volumes\":[{\"volumeId\":\"v1\","
        "\"mountPath\":\"/data\",\"subpath\":\"x\"}],\"user\":\"root\",\"public\":true}",
        w->job->spec_hash, json_str(json_get(sent(), "labels"), "session-worker/key", ""));
    assert_string_equal(w->call.body, wanted);
    free(wanted);
}

static void create_from_an_image(void **state)
{
    (void)state;
    w = world_new(
        "{\"type\":\"start-session\",\"session_id\":\"s1\",\"session_api_key\":\"k-123456\","
        "\"sandbox\":{\"image\":\"python:3.12\",\"target\":\"eu\",\"auto_stop_minutes\":0,"
        "\"resources\":{\"cpu\":2,\"memory_gib\":4,\"disk_gib\":5}}}");
    talk(w, ENTER(CREATE));
    assert_int_equal(ask(w, 0), ASKED_CALL);
    const cJSON *body = sent();
    assert_string_equal(json_str(json_get(body, "buildInfo"), "dockerfileContent", ""),
                        "FROM python:3.12\n");
    assert_int_equal(json_int(body, "cpu", 0), 2);
    assert_int_equal(json_int(body, "memory", 0), 4);
    assert_int_equal(json_int(body, "disk", 0), 5);
    assert_int_equal(json_int(body, "autoStopInterval", 0), 10); /* never is not for provisional */
    assert_string_equal(json_str(body, "target", ""), "eu");
    assert_string_equal(json_str(json_get(body, "labels"), "session-worker/key", ""), "job");
    assert_null(json_get(body, "snapshot"));
    free(w->job->sandbox.image);
    w->job->sandbox.image = xstrdup("x\nRUN evil");
    assert_int_equal(ask(w, 0), ASKED_REFUSED);
    assert_int_equal(w->answer.code, ERR_INVALID_JOB);
}

static void create_with_the_configured_snapshot_and_no_stolen_labels(void **state)
{
    static const char *const sets[] = {"fleet=oh", "sandbox.snapshot=standard"};
    (void)state;
    w = xcalloc(1, sizeof *w);
    world_init(w, START_JOB, sets, ARRAY_LEN(sets));
    w->job->sandbox.labels = xcalloc(2, sizeof *w->job->sandbox.labels);
    w->job->sandbox.n_labels = 2;
    w->job->sandbox.labels[0] = (struct pair){xstrdup("OpenHands_SID"), xstrdup("s9")};
    w->job->sandbox.labels[1] = (struct pair){xstrdup("session-worker/job"), xstrdup("x")};
    talk(w, ENTER(CREATE));
    assert_int_equal(ask(w, 0), ASKED_CALL);
    assert_string_equal(json_str(sent(), "snapshot", ""), "standard");
    assert_null(strstr(w->call.body, "s9"));
    assert_null(strstr(w->call.body, "\"x\""));
}

static void a_held_create_says_creating_and_a_pool_says_started(void **state)
{
    (void)state;
    w = world_new(START_JOB);
    talk(w, ENTER(CREATE),
         {.ask = "POST /sandbox",
          .status = 200,
          .body = DTO("creating", "started", "0"),
          .set = EXISTS});
    assert_true(w->box->mine && !w->box->warm && w->box->provisional);
    world_free(w);
    w = world_new(START_JOB);
    talk(w, ENTER(CREATE),
         {.ask = "POST /sandbox",
          .status = 200,
          .body = DTO("started", "started", "0"),
          .set = EXISTS | RUNS});
    assert_true(w->box->warm);
}

static void create_409_adopts_by_name_after_a_stale_404(void **state)
{
    (void)state;
    w = world_new(START_JOB);
    talk(w, ENTER(CREATE),
         {.ask = "POST /sandbox",
          .status = 409,
          .body = ERROR(409, "Sandbox with name oh.s1 already exists")},
         {.ask = NAME,
          .status = 404,
          .body = NOT_FOUND,
          .verdict = AGAIN,
          .code = ERR_CREATE_FAILED,
          .after_ms = 200},
         {.ask = NAME,
          .wait_ms = 11000,
          .status = 404,
          .body = NOT_FOUND,
          .verdict = AGAIN,
          .code = ERR_CREATE_FAILED},
         {.ask = NAME,
          .status = 200,
          .body = DTO_OF("box-1", "oh.s1", "started", "started", "60", "-1", OTHER_LABELS, ""),
          .set = EXISTS | RUNS | KEPT});
    assert_false(w->box->mine);
}

static void create_409_and_12_s_of_404_posts_again(void **state)
{
    (void)state;
    w = world_new(START_JOB);
    talk(w, ENTER(CREATE), {.ask = "POST /sandbox", .status = 409, .body = ERROR(409, "exists")},
         {.ask = NAME, .wait_ms = 12000, .status = 404, .body = NOT_FOUND},
         {.ask = "POST /sandbox",
          .status = 200,
          .body = DTO("creating", "started", "0"),
          .set = EXISTS});
}

static void a_lost_create_is_looked_up_before_it_is_repeated(void **state)
{
    static const enum fault faults[] = {FAULT_LOST, FAULT_TIMEOUT, FAULT_TOO_LARGE};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        w = world_new(START_JOB);
        talk(w, ENTER(CREATE),
             {.ask = "POST /sandbox",
              .fault = faults[i],
              .verdict = RETRY,
              .code = ERR_PROVIDER_UNAVAILABLE},
             {.ask = NAME,
              .status = 200,
              .body = DTO("started", "started", "0"),
              .set = EXISTS | RUNS});
        assert_true(w->box->mine);
        world_free(w);
    }
    w = world_new(START_JOB);
    talk(w, ENTER(CREATE),
         {.ask = "POST /sandbox",
          .status = 503,
          .body = ERROR(503, "Service is currently under maintenance."),
          .verdict = RETRY,
          .code = ERR_PROVIDER_UNAVAILABLE,
          .says = "maintenance"},
         {.ask = NAME, .status = 404, .body = NOT_FOUND},
         {.ask = "POST /sandbox", /* nothing was sent: nothing to look for */
          .fault = FAULT_CONNECT,
          .verdict = RETRY,
          .code = ERR_PROVIDER_UNAVAILABLE},
         {.ask = "POST /sandbox", .fault = FAULT_REFUSED, .verdict = REFUSE, .code = ERR_INTERNAL});
}

static void after_a_lost_create_a_lack_of_room_is_no_answer(void **state)
{
    static const char *const bodies[] = {
        ERROR(400, "No available runners"),
        ERROR(400, "Total CPU limit exceeded. Maximum allowed: 1."),
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        w = world_new(START_JOB);
        talk(w, ENTER(CREATE),
             {.ask = "POST /sandbox",
              .fault = FAULT_LOST,
              .verdict = RETRY,
              .code = ERR_PROVIDER_UNAVAILABLE},
             {.ask = NAME, .status = 404, .body = NOT_FOUND},
             {.ask = "POST /sandbox", .status = 400, .body = bodies[i]},
             {.ask = NAME, .status = 200, .body = DTO("creating", "started", "0"), .set = EXISTS});
        world_free(w);
    }
    w = world_new(START_JOB);
}

static void failed_to_start_has_left_a_sandbox_behind(void **state)
{
    (void)state;
    w = world_new(START_JOB);
    talk(w, ENTER(CREATE),
         {.ask = "POST /sandbox",
          .status = 400,
          .body = ERROR(400, "Sandbox failed to start: no space left")},
         {.ask = NAME,
          .status = 200,
          .body = DTO_OF("box-1", "oh.s1", "error", "started", "60", "0", OUR_LABELS,
                         "\"errorReason\":\"no space left\","),
          .verdict = LOST,
          .code = ERR_CREATE_FAILED,
          .says = "no space left"});
    assert_string_equal(w->box->id, "box-1");
    assert_true(w->box->provisional && w->box->state == BOX_ERROR);
    talk(w, ENTER(STOP), /* which frees the name */
         {.ask = "DELETE /sandbox/box-1",
          .status = 200,
          .body = DTO("error", "destroyed", "0"),
          .set = RESTS | GONE});
    world_free(w);
    w = world_new(START_JOB);
    talk(w, ENTER(CREATE),
         {.ask = "POST /sandbox", .status = 400, .body = ERROR(400, "Sandbox failed to start: x")},
         {.ask = NAME,
          .status = 404,
          .body = NOT_FOUND,
          .verdict = LOST,
          .code = ERR_CREATE_FAILED});
    assert_null(w->box->id);
}

static void no_room_here_tries_the_next_target_at_once(void **state)
{
    (void)state;
    w = world_new(START_JOB);
    talk(w, ENTER(CREATE), /* targets us, eu */
         {.ask = "POST /sandbox",
          .status = 400,
          .body = ERROR(400, "No available runners"),
          .verdict = AGAIN});
    assert_true(w->answer.after_ms <= 1);
    assert_int_equal(ask(w, 0), ASKED_CALL);
    assert_string_equal(json_str(sent(), "target", ""), "eu");
    talk(w,
         {.ask = "POST /sandbox",
          .status = 400,
          .body = ERROR(400, "No available runners"),
          .verdict = AGAIN,
          .code = ERR_NO_CAPACITY,
          .after_ms = 1000,
          .says = "No available runners"},
         {.ask = "POST /sandbox",
          .status = 400,
          .body = ERROR(400, "No available runners"),
          .verdict = AGAIN},
         {.ask = "POST /sandbox", /* a target that this account has not got is no verdict then */
          .status = 403,
          .body = ERROR(403, "Region eu is not available to the organization"),
          .verdict = AGAIN,
          .code = ERR_NO_CAPACITY,
          .after_ms = 2000});
}

static void a_target_that_is_not_there_fails_when_no_other_is(void **state)
{
    static const struct line refusals[] = {
        {.status = 404, .body = ERROR(404, "Region not found"), .code = ERR_CREATE_FAILED},
        {.status = 403,
         .body = ERROR(403, "Region us is not available to the organization"),
         .code = ERR_FORBIDDEN},
        {.status = 400,
         .body = ERROR(400, "Snapshot oh-v1 is not available in region us"),
         .code = ERR_SNAPSHOT_NOT_FOUND},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
        struct line first = refusals[i], second = refusals[i];
        w = world_new(START_JOB);
        enter(w, CREATE);
        first.ask = second.ask = "POST /sandbox";
        first.verdict = AGAIN;
        first.code = ERR_NONE;
        second.verdict = REFUSE;
        talk_line(w, &first);
        talk_line(w, &second);
        world_free(w);
    }
    w = world_new(START_JOB);
}

static void what_create_refuses(void **state)
{
    static const struct line refusals[] = {
        {.status = 400,
         .body = ERROR(400, "Snapshot nope not found. Did you add it?"),
         .code = ERR_SNAPSHOT_NOT_FOUND,
         .verdict = REFUSE},
        {.status = 400,
         .body = ERROR(400, "Snapshot x is pulling"),
         .code = ERR_SNAPSHOT_NOT_FOUND,
         .verdict = AGAIN,
         .after_ms = 1000},
        {.status = 400,
         .body = ERROR(400, "CPU request 64 exceeds maximum allowed per sandbox (4)."),
         .code = ERR_QUOTA_EXCEEDED,
         .verdict = REFUSE},
        {.status = 400,
         .body = ERROR(400, "Total disk limit exceeded. Maximum allowed: 1GiB."),
         .code = ERR_QUOTA_EXCEEDED,
         .verdict = AGAIN,
         .after_ms = 10000},
        {.status = 400,
         .body = ERROR(400, "Cannot specify Sandbox resources when using a snapshot"),
         .code = ERR_CREATE_FAILED,
         .verdict = REFUSE},
        {.status = 400,
         .body = "{\"message\":[\"labels must be an object\",\"x\"]}",
         .code = ERR_CREATE_FAILED,
         .verdict = REFUSE,
         .says = "labels must be an object, x"},
        {.status = 404,
         .body = ERROR(404, "Volume 'nope' not found"),
         .code = ERR_CREATE_FAILED,
         .verdict = REFUSE,
         .says = "Volume"},
        {.status = 404,
         .body = ERROR(404, "Cannot POST /api/sandbox"),
         .code = ERR_CREATE_FAILED,
         .verdict = REFUSE},
        {.status = 403,
         .body = ERROR(403, "Organization is suspended: Credits depleted"),
         .code = ERR_FORBIDDEN,
         .verdict = REFUSE,
         .says = "Credits depleted"},
        {.status = 401,
         .body = ERROR(401, "Invalid credentials"),
         .code = ERR_UNAUTHORIZED,
         .verdict = AGAIN,
         .after_ms = 30000},
        {.status = 302,
         .type = "text/html",
         .body = "<html>moved</html>",
         .code = ERR_PROVIDER_PROTOCOL,
         .verdict = REFUSE},
        {.status = 402, .code = ERR_CREATE_FAILED, .verdict = REFUSE},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
        struct line l = refusals[i];
        w = world_new(START_JOB);
        enter(w, CREATE);
        w->row = (int)i;
        l.ask = "POST /sandbox";
        talk_line(w, &l);
        assert_int_equal(w->answer.http_status, l.status);
        assert_int_equal(w->answer.rate.unauthorized, l.status == 401);
        world_free(w);
    }
    w = world_new(START_JOB);
}

static void quota_backs_off_from_10_to_60_s(void **state)
{
    const struct line full = {.ask = "POST /sandbox",
                              .status = 400,
                              .body = ERROR(400, "Total CPU limit exceeded."),
                              .verdict = AGAIN,
                              .code = ERR_QUOTA_EXCEEDED};
    static const uint32_t pauses[] = {10000, 20000, 40000, 60000, 60000};
    (void)state;
    w = world_new(START_JOB);
    enter(w, CREATE);
    for (size_t i = 0; i < ARRAY_LEN(pauses); i++) {
        talk_line(w, &full);
        assert_int_equal(w->answer.after_ms, pauses[i]);
    }
}

static void a_create_that_makes_no_sense_is_looked_up(void **state)
{
    static const char *const bodies[] = {
        "",
        "<html>",
        "[]",
        "{}",
        "{\"id\":5}",
        "{\"id\":\"../../x\",\"name\":\"oh.s1\"}",
        "{\"id\":\"b\",\"name\":\"oh.s1\",\"toolboxProxyUrl\":\"http://plain.example\"}",
        "{\"id\":\"b\",\"name\":\"oh.s1\",\"toolboxProxyUrl\":\"https://u@evil.example\"}",
        "{\"id\":\"b\",\"name\":\"oh.s1\",\"toolboxProxyUrl\":\"ftp://x\"}",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        w = world_new(START_JOB);
        talk(w, ENTER(CREATE),
             {.ask = "POST /sandbox",
              .status = 200,
              .body = bodies[i],
              .verdict = RETRY,
              .code = ERR_PROVIDER_PROTOCOL},
             {.ask = NAME, .status = 404, .body = NOT_FOUND});
        world_free(w);
    }
    w = world_new(START_JOB);
    talk(w, ENTER(CREATE), /* the body was not read: an anonymous sandbox */
         {.ask = "POST /sandbox",
          .status = 200,
          .body = DTO_OF("box-9", "box-9", "creating", "started", "15", "-1", "", ""),
          .verdict = REFUSE,
          .code = ERR_PROVIDER_PROTOCOL,
          .says = "box-9"});
    assert_null(w->box->id);
}

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
         {.ask = STOP_IT, .status = 400, .body = ERROR(400, "Sandbox is not in a stoppable state")},
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
         {.ask = STOP_IT, .status = 400, .body = ERROR(400, "Sandbox is in an errored state")},
         {.ask = BY_ID, .status = 200, .body = DTO("error", "started", "-1"), .set = RESTS});
    world_free(w);
    found(START_JOB, DTO("error", "started", "0"));
    w->box->maybe_kept = true;
    talk(w, ENTER(STOP),
         {.ask = STOP_IT, .status = 400, .body = ERROR(400, "Sandbox is in an errored state")},
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
         {.ask = STOP_IT, .status = 400, .body = ERROR(400, "Sandbox is not in a stoppable state")},
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
         {.ask = STOP_IT, .status = 400, .body = ERROR(400, "Sandbox is not in a stoppable state")},
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

/* ---- limits ---- */

static struct rate rate_of(int status, const char *const *pairs, size_t n)
{
    struct reply_header headers[8];
    struct answer a = {0};
    for (size_t i = 0; i < n; i++)
        headers[i] = (struct reply_header){pairs[2 * i], pairs[2 * i + 1]};
    struct reply r = {
        .status = status, .headers = headers, .n_headers = n, .body = "{}", .body_len = 2};
    w->provider->ops->answer_key(w->provider, &r, &a);
    struct rate rate = a.rate;
    answer_done(&a);
    return rate;
}

static void limits_are_read_by_scope_in_any_case(void **state)
{
    static const char *const said[] = {
        "X-RateLimit-Limit-Authenticated", "2000", "x-ratelimit-remaining-authenticated", "1999",
        "x-ratelimit-reset-authenticated", "51",   "x-ratelimit-limit-sandbox-create",    "40"};
    static const char *const foreign[] = {"x-ratelimit-limit-sandbox-create", "40"};
    static const char *const strange[] = {"x-ratelimit-limit-authenticated", "-4"};
    (void)state;
    w = world_new(START_JOB);
    struct rate rate = rate_of(200, said, 4);
    assert_int_equal(rate.limit, 2000);
    assert_int_equal(rate.remaining, 1999);
    assert_int_equal(rate.reset_s, 51);
    assert_int_equal(rate_of(200, foreign, 1).limit, -1);
    assert_int_equal(rate_of(200, strange, 1).limit, -1);
    assert_true(rate_of(401, NULL, 0).unauthorized);
    assert_false(rate_of(200, NULL, 0).unauthorized);
}

static void retry_after_comes_in_three_forms(void **state)
{
    static const char *const ours[] = {"Retry-After-Authenticated", "17"};
    static const char *const bare[] = {"retry-after", "60"};
    static const char *const other[] = {"retry-after-sandbox-create", "33"};
    static const char *const date[] = {"retry-after", "Tue, 24 Nov 2026 08:00:00 GMT"};
    static const char *const zero[] = {"retry-after", "0"};
    (void)state;
    w = world_new(START_JOB);
    assert_int_equal(rate_of(429, ours, 1).retry_after_ms, 17000);
    assert_int_equal(rate_of(429, bare, 1).retry_after_ms, 60000);
    assert_int_equal(rate_of(429, other, 1).retry_after_ms, 33000);
    assert_int_equal(rate_of(429, date, 1).retry_after_ms, 10000);
    assert_int_equal(rate_of(429, NULL, 0).retry_after_ms, 10000);
    assert_int_equal(rate_of(429, zero, 1).retry_after_ms, 1000);
    assert_int_equal(rate_of(200, ours, 1).retry_after_ms, 0);
}

/* ---- the sweep's list, the key ---- */

static void list_asks_for_two_labels_and_checks_them(void **state)
{
    static const char body[] = "{\"items\":[" DTO_OF(
        "a", "oh.s1", "started", "started", "1", "0", OUR_LABELS,
        "") "," DTO_OF("b", "oh.s2", "error", "started", "1", "0", OUR_LABELS,
                       "") "," DTO_OF("c", "x", "started", "started", "1", "0",
                                      "\"session-worker/fleet\":\"oh\",\"session-worker/"
                                      "partition\":\"session-jobs/4\"",
                                      "") "," DTO_OF("d", "x", "started", "started", "1", "0", "",
                                                     "") "," DTO_OF("e", "DESTROYED_x_1", "started",
                                                                    "destroyed", "1", "0",
                                                                    OUR_LABELS,
                                                                    "") "," DTO_OF("../f", "x",
                                                                                   "started",
                                                                                   "started", "1",
                                                                                   "0", OUR_LABELS,
                                                                                   "") ",7,null],"
                                                                                       "\"nextCurso"
                                                                                       "r\":\"abc/"
                                                                                       "=\"}";
    struct listing first = {.partition = "session-jobs/3"};
    struct listing second = {.partition = "session-jobs/3", .cursor = "abc/="};
    struct reply r = {.status = 200, .body = body, .body_len = strlen(body)};
    struct listed listed = {0};
    struct answer a = {0};
    (void)state;
    w = world_new(START_JOB);
    w->provider->ops->ask_list(w->provider, &first, &w->call);
    char *what = asked_for(w);
    assert_non_null(strstr(what, "labels=%7B%22session-worker%2Ffleet%22%3A%22oh%22%2C%22session-"
                                 "worker%2Fpartition%22%3A%22session-jobs%2F3%22%7D&"));
    assert_non_null(strstr(what, "&states=error&"));
    assert_non_null(strstr(what, "&states=creating&"));
    assert_null(strstr(what, "stopped"));
    assert_null(strstr(what, "archived"));
    assert_non_null(strstr(what, "&limit=200"));
    assert_null(strstr(what, "cursor"));
    free(what);
    w->provider->ops->answer_list(w->provider, &first, &r, &listed, &a);
    assert_int_equal(a.verdict, OK);
    assert_int_equal(listed.n, 2);
    assert_string_equal(listed.boxes[0]->id, "a");
    assert_true(listed.boxes[0]->ours && listed.boxes[0]->provisional);
    assert_string_equal(listed.boxes[1]->name, "oh.s2");
    assert_int_equal(listed.boxes[1]->state, BOX_ERROR);
    assert_string_equal(listed.next, "abc/=");
    listed_done(w->provider, &listed);
    call_done(&w->call);
    w->provider->ops->ask_list(w->provider, &second, &w->call);
    assert_non_null(strstr(w->call.url, "&cursor=abc%2F%3D"));
}

static enum verdict list_verdict(int status, const char *body, size_t *n)
{
    struct listing q = {.partition = "session-jobs/3"};
    struct reply r = {.fault = status ? FAULT_NONE : FAULT_TIMEOUT,
                      .status = status,
                      .body = body,
                      .body_len = strlen(body)};
    struct listed listed = {0};
    struct answer a = {0};
    w->provider->ops->answer_list(w->provider, &q, &r, &listed, &a);
    enum verdict v = a.verdict;
    *n = listed.n;
    answer_done(&a);
    listed_done(w->provider, &listed);
    return v;
}

static void list_takes_a_bare_array_and_no_nonsense(void **state)
{
    size_t n;
    (void)state;
    w = world_new(START_JOB);
    assert_int_equal(list_verdict(200, "[" DTO("started", "started", "0") "]", &n), OK);
    assert_int_equal(n, 1);
    assert_int_equal(list_verdict(200, "{\"items\":[],\"nextCursor\":null}", &n), OK);
    assert_int_equal(list_verdict(200, "{\"items\":5}", &n), RETRY);
    assert_int_equal(list_verdict(200, "", &n), RETRY);
    assert_int_equal(list_verdict(500, "", &n), RETRY);
    assert_int_equal(list_verdict(0, "", &n), RETRY);
    assert_int_equal(list_verdict(400, ERROR(400, "Invalid cursor provided: zzz"), &n), REFUSE);
    assert_int_equal(list_verdict(429, ERROR(429, "ThrottlerException"), &n), AGAIN);
}

static void a_list_may_be_larger_than_an_ordinary_reply(void **state)
{
    struct buf body;
    size_t n;
    (void)state;
    w = world_new(START_JOB);
    buf_init(&body, 4 << 20);
    buf_addc(&body, '[');
    for (int i = 0; i < 3000; i++)
        buf_addf(&body, "%s" DTO("started", "started", "0"), i ? "," : "");
    buf_addc(&body, ']');
    assert_true(body.len > json_limits_reply.max_bytes);
    assert_int_equal(list_verdict(200, buf_text(&body), &n), OK);
    assert_int_equal(n, 3000);
    buf_done(&body);
}

static void the_key_is_tried_with_a_look_that_is_not_public(void **state)
{
    struct reply bad = {.status = 401, .body = "{}", .body_len = 2};
    struct reply good = {.status = 200, .body = "{\"items\":[]}", .body_len = 12};
    struct answer a = {0};
    (void)state;
    w = world_new(START_JOB);
    w->provider->ops->ask_key(w->provider, &w->call);
    char *what = asked_for(w);
    assert_string_equal(what, "GET /sandbox?labels=%7B%22session-worker%2Ffleet%22%3A%22oh%22%7D"
                              "&limit=1");
    free(what);
    w->provider->ops->answer_key(w->provider, &bad, &a);
    assert_true(a.rate.unauthorized && a.verdict == AGAIN);
    answer_done(&a);
    w->provider->ops->answer_key(w->provider, &good, &a);
    assert_true(!a.rate.unauthorized && a.verdict == OK);
    answer_done(&a);
}

/* ---- the rest ---- */

static void the_providers_words_are_cut_and_html_is_none(void **state)
{
    char body[3000] = "";
    (void)state;
    w = world_new(START_JOB);
    for (size_t i = 0; i + 2 < sizeof body - 1; i += 2)
        memcpy(body + i, "\xc3\xbc", 3);
    struct line text = {.ask = NAME,
                        .status = 400,
                        .type = "text/plain",
                        .body = body,
                        .verdict = REFUSE,
                        .code = ERR_PROVIDER_PROTOCOL};
    struct line html = {.ask = NAME,
                        .status = 400,
                        .type = "text/html; charset=utf-8",
                        .body = "<html>",
                        .verdict = REFUSE,
                        .code = ERR_PROVIDER_PROTOCOL};
    enter(w, FIND);
    talk_line(w, &text);
    assert_int_equal(strlen(w->answer.provider_message), 1000);
    body[0] = 'x'; /* so that a character would be cut in two */
    body[1] = 'y';
    memmove(body + 1, body + 2, sizeof body - 2);
    talk_line(w, &text);
    assert_int_equal(strlen(w->answer.provider_message), 999);
    talk_line(w, &html);
    assert_null(w->answer.provider_message);
}

static void names_are_encoded_and_ids_checked(void **state)
{
    (void)state;
    w = world_new(START_JOB);
    free(w->box->name);
    w->box->name = xstrdup("oh.a/b ?#%");
    talk(w, ENTER(FIND),
         {.ask = "GET /sandbox/oh.a%2Fb%20%3F%23%25",
          .status = 404,
          .body = NOT_FOUND,
          .set = LOOKED});
    w->box->hint_id = xstrdup("..");
    talk(w, ENTER(FIND));
    assert_int_equal(ask(w, 0), ASKED_REFUSED);
    enter(w, STOP);
    assert_int_equal(ask(w, 0), ASKED_REFUSED); /* no id at all */
}

static void the_second_slot_has_nothing_to_ask(void **state)
{
    static const enum phase phases[] = {FIND, CREATE, START, KEEP, STOP, DELETE};
    (void)state;
    found(START_JOB, DTO("started", "started", "0"));
    for (size_t i = 0; i < ARRAY_LEN(phases); i++) {
        enter(w, phases[i]);
        assert_int_equal(ask(w, 1), ASKED_NOTHING);
    }
}

static void forgetting_leaves_name_and_hint(void **state)
{
    (void)state;
    found(START_JOB, DTO("started", "started", "-1"));
    w->box->hint_id = xstrdup("h");
    w->provider->ops->box_forget(w->box);
    assert_string_equal(w->box->name, "oh.s1");
    assert_string_equal(w->box->hint_id, "h");
    assert_null(w->box->id);
    assert_null(w->box->label_job);
    assert_false(w->box->mine || w->box->ours || w->box->provisional);
    w->facts = 0;
    talk(w, ENTER(CREATE),
         {.ask = "POST /sandbox",
          .status = 200,
          .body = DTO("creating", "started", "0"),
          .set = EXISTS});
    w->provider->ops->box_free(NULL);
}

static void providers_are_known_by_type(void **state)
{
    static const char *const sets[] = {"fleet=oh"};
    (void)state;
    assert_true(provider_known("daytona"));
    assert_false(provider_known("modal"));
    w = xcalloc(1, sizeof *w);
    world_init(w, START_JOB, sets, 1);
    assert_int_equal(w->provider->n_keys, 1); /* derived from the key */
    assert_int_equal(strlen(w->provider->keys[0]), 43);
    free(w->config.providers[0].type);
    w->config.providers[0].type = xstrdup("modal");
    assert_null(provider_new(&w->config, 0));
    provider_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(find_by_name, teardown),
        cmocka_unit_test_teardown(find_tells_whose_it_is, teardown),
        cmocka_unit_test_teardown(find_nothing_for_a_start, teardown),
        cmocka_unit_test_teardown(find_believes_a_404_by_name_only_with_an_empty_list, teardown),
        cmocka_unit_test_teardown(find_takes_a_bare_array_and_survives_a_stale_list, teardown),
        cmocka_unit_test_teardown(find_goes_by_the_hint_and_falls_back, teardown),
        cmocka_unit_test_teardown(an_id_that_the_job_names_is_what_it_is_about, teardown),
        cmocka_unit_test_teardown(looking_again_clears_the_doubt_about_a_keep, teardown),
        cmocka_unit_test_teardown(a_destroy_has_no_job, teardown),
        cmocka_unit_test_teardown(create_says_all_that_matters, teardown),
        cmocka_unit_test_teardown(create_from_an_image, teardown),
        cmocka_unit_test_teardown(create_with_the_configured_snapshot_and_no_stolen_labels,
                                  teardown),
        cmocka_unit_test_teardown(a_held_create_says_creating_and_a_pool_says_started, teardown),
        cmocka_unit_test_teardown(create_409_adopts_by_name_after_a_stale_404, teardown),
        cmocka_unit_test_teardown(create_409_and_12_s_of_404_posts_again, teardown),
        cmocka_unit_test_teardown(a_lost_create_is_looked_up_before_it_is_repeated, teardown),
        cmocka_unit_test_teardown(after_a_lost_create_a_lack_of_room_is_no_answer, teardown),
        cmocka_unit_test_teardown(failed_to_start_has_left_a_sandbox_behind, teardown),
        cmocka_unit_test_teardown(no_room_here_tries_the_next_target_at_once, teardown),
        cmocka_unit_test_teardown(a_target_that_is_not_there_fails_when_no_other_is, teardown),
        cmocka_unit_test_teardown(what_create_refuses, teardown),
        cmocka_unit_test_teardown(quota_backs_off_from_10_to_60_s, teardown),
        cmocka_unit_test_teardown(a_create_that_makes_no_sense_is_looked_up, teardown),
        cmocka_unit_test_teardown(start_waits_while_it_is_on_its_way, teardown),
        cmocka_unit_test_teardown(start_polls_from_200_ms_to_2_s, teardown),
        cmocka_unit_test_teardown(start_of_one_at_rest, teardown),
        cmocka_unit_test_teardown(a_held_start_does_not_know_the_intervals, teardown),
        cmocka_unit_test_teardown(what_start_is_told, teardown),
        cmocka_unit_test_teardown(start_of_one_in_error, teardown),
        cmocka_unit_test_teardown(a_sandbox_that_dies_while_starting_is_lost, teardown),
        cmocka_unit_test_teardown(without_a_server_running_is_all, teardown),
        cmocka_unit_test_teardown(keep_sets_both_intervals_in_this_order, teardown),
        cmocka_unit_test_teardown(keep_is_in_doubt_until_a_look_comes_back, teardown),
        cmocka_unit_test_teardown(keep_judges_the_desired_state_not_the_201, teardown),
        cmocka_unit_test_teardown(keep_does_not_race_the_idle_stop, teardown),
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
        cmocka_unit_test_teardown(limits_are_read_by_scope_in_any_case, teardown),
        cmocka_unit_test_teardown(retry_after_comes_in_three_forms, teardown),
        cmocka_unit_test_teardown(list_asks_for_two_labels_and_checks_them, teardown),
        cmocka_unit_test_teardown(list_takes_a_bare_array_and_no_nonsense, teardown),
        cmocka_unit_test_teardown(a_list_may_be_larger_than_an_ordinary_reply, teardown),
        cmocka_unit_test_teardown(the_key_is_tried_with_a_look_that_is_not_public, teardown),
        cmocka_unit_test_teardown(the_providers_words_are_cut_and_html_is_none, teardown),
        cmocka_unit_test_teardown(names_are_encoded_and_ids_checked, teardown),
        cmocka_unit_test_teardown(the_second_slot_has_nothing_to_ask, teardown),
        cmocka_unit_test_teardown(forgetting_leaves_name_and_hint, teardown),
        cmocka_unit_test_teardown(providers_are_known_by_type, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
