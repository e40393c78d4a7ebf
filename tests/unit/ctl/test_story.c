/* story: a session's jobs and what became of each, told in order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "worker/ctl/story.h"

#define T0 UINT64_C(1700000000000) /* 2023-11-14T22:13:20Z */
#define PAD "                          "

static struct story story;
static struct config cfg;
static struct buf out;

static int setup(void **state)
{
    (void)state;
    struct config_source source = {.client = true};
    struct buf errors;
    buf_init(&errors, 10000);
    assert_true(config_load(&source, &cfg, &errors));
    buf_done(&errors);
    buf_init(&out, 1000000);
    story = (struct story){.session_id = "S1"};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    story_done(&story);
    config_done(&cfg);
    buf_done(&out);
    return 0;
}

/* Single quotes become double ones. */
static const char *quoted(const char *json)
{
    static char text[4000];
    snprintf(text, sizeof text, "%s", json);
    for (char *p = text; (p = strchr(p, '\''));)
        *p = '"';
    return text;
}

static struct record record(const char *topic, int64_t offset, uint64_t ms, const char *value)
{
    return (struct record){.topic = topic,
                           .partition = 3,
                           .offset = offset,
                           .timestamp_ms = T0 + ms,
                           .key = "S1",
                           .key_len = 2,
                           .value = value,
                           .value_len = strlen(value)};
}

static void job(int64_t offset, uint64_t ms, const char *json)
{
    struct record r = record("session-jobs", offset, ms, quoted(json));
    story_job(&story, &r, &cfg);
}

static void event(const char *ce_id, uint64_t ms, const char *json)
{
    struct record r = record("session-results", 0, ms, quoted(json));
    struct header h = {(char *)(uintptr_t)"ce_id", (char *)(uintptr_t)ce_id, strlen(ce_id)};
    r.headers = &h;
    r.n_headers = 1;
    story_event(&story, &r);
}

static void expect(const char *text)
{
    story_sort(&story);
    buf_clear(&out);
    story_text(&story, T0 + 20000, false, &out);
    assert_string_equal(buf_text(&out), text);
}

static void expect_part(const char *part)
{
    story_sort(&story);
    buf_clear(&out);
    story_text(&story, T0 + 20000, false, &out);
    if (!strstr(buf_text(&out), part))
        fail_msg("not there: %s\nin: %s", part, buf_text(&out));
}

#define START "{'type':'start-session','session_id':'S1','sandbox':{'snapshot':'oh-v0'}}"
#define READY                                                                                      \
    "{'type':'session-ready','session_id':'S1','attempts':1,'requests':11,"                        \
    "'sandbox':{'id':'b1','outcome':'created'},'server':{'url':'https://x/'},"                     \
    "'timings_ms':{'queue':0,'create':2000,'launch':100,'probe':4000,'total':6100}}"
#define JOB_LINE "start-session  oh-v0, server v0, mode ensure, timeout 300 s  session-jobs/3/4\n"

static void a_ready_session(void **state)
{
    (void)state;
    event("session-jobs/3/4", 6100, READY);
    job(4, 0, START);
    expect("session S1  ready  1 job\n\n"
           "2023-11-14T22:13:20.000Z  JOB       " JOB_LINE
           "               +   6.1 s  READY     https://x/  created in 6.1 s\n" PAD
           "sandbox   b1\n" PAD "attempts  1, 11 requests to the provider\n" PAD
           "create       2.0 s  ####################\n" PAD "launch       0.1 s  #\n" PAD
           "probe        4.0 s  ########################################\n");
    assert_string_equal(story_state(&story), "ready");
}

static void a_failed_one_says_why_and_what_to_do(void **state)
{
    (void)state;
    job(4, 0, START);
    event("session-jobs/3/4/1", 500,
          "{'type':'session-progress','session_id':'S1','step':'create','attempt':1,"
          "'elapsed_ms':400}");
    event("session-jobs/3/4/2", 2500,
          "{'type':'session-progress','session_id':'S1','step':'probe','attempt':1,"
          "'elapsed_ms':2400}");
    event("session-jobs/3/4/3", 3500,
          "{'type':'session-progress','session_id':'S1','step':'probe','attempt':1,"
          "'elapsed_ms':3400}");
    event("session-jobs/3/4", 4100,
          "{'type':'session-failed','session_id':'S1','attempts':2,'requests':9,"
          "'error':{'code':'server_exited','step':'probe','message':'it ended with 3',"
          "'provider_message':'no\\u001b[2J','http_status':502,'retryable':true,"
          "'log_tail':'one\\ntwo\\u0007\\n\\n'},'sandbox':{'id':'b1','cleanup':'scheduled'}}");
    expect(
        "session S1  failed  1 job\n\n"
        "2023-11-14T22:13:20.000Z  JOB       " JOB_LINE
        "               +   0.5 s  PROGRESS  create\n"
        "               +   2.5 s  PROGRESS  probe\n"
        "               +   4.1 s  FAILED    server_exited at probe: it ended with 3 (HTTP "
        "502)\n" PAD "provider  no\\x1b[2J\n" PAD "log       one\n" PAD "          two\\x07\n" PAD
        "to do     The server ended by itself; its log says why. on_failure keep leaves the "
        "sandbox to look into.\n" PAD "retry     the same job may succeed later\n" PAD
        "sandbox   b1\n" PAD "cleanup   scheduled\n" PAD
        "attempts  2, 9 requests to the provider\n" PAD "queue     about    0.4 s  ########\n" PAD
        "create    about    2.0 s  ########################################\n" PAD
        "probe     about    1.6 s  ################################\n");
}

#define LATE                                                                                       \
    "{'type':'session-failed','session_id':'S1','attempts':1,'requests':1,"                        \
    "'error':{'code':'server_timeout','step':'probe'}}"
#define LARGER "to do     The job's time was over: send it again with a larger timeout_seconds"
#define RAISE "to do     The server did not answer in time: look at its log"

static void what_to_raise_when_time_was_over(void **state)
{
    (void)state;
    job(4, 0, "{'type':'start-session','session_id':'S1','timeout_seconds':60}");
    event("session-jobs/3/4", 60010, LATE);
    expect_part(LARGER);
    expect_part("attempts  1, 1 request to the provider\n");
    job(5, 0, "{'type':'start-session','session_id':'S1','timeout_seconds':300}");
    event("session-jobs/3/5", 185000, LATE); /* the step's own limit */
    expect_part(RAISE);
    job(6, 0, "{'type':'start-session','session_id':'S1','timeout_seconds':300}");
    event("session-jobs/3/6/1", 100000,
          "{'type':'session-progress','session_id':'S1','step':'probe','elapsed_ms':2000}");
    event("session-jobs/3/6", 301000, LATE); /* it was queued for the rest */
    story_sort(&story);
    assert_non_null(strstr(chapter_advice(&story.chapters[2]), "timeouts.launch"));
}

static void jobs_stand_in_their_order(void **state)
{
    (void)state;
    event("session-jobs/3/5", 9000,
          "{'type':'session-deleted','session_id':'S1',"
          "'sandbox':{'id':'b1','was':'started'}}");
    job(5, 8000, "{'type':'delete-session','session_id':'S1'}");
    event("session-jobs/3/4", 6100, READY); /* its job is gone */
    expect_part("session S1  deleted  2 jobs\n\n"
                "2023-11-14T22:13:26.100Z  JOB       its record is not in the topic (any more)  "
                "session-jobs/3/4\n2023-11-14T22:13:26.100Z  READY");
    expect_part("22:13:28.000Z  JOB       delete-session  session-jobs/3/5\n"
                "               +   1.0 s  DELETED   sandbox b1, was started\n");
}

/* In the order in which they are told. */
static void expect_jobs(const char *const places[], size_t n)
{
    story_sort(&story);
    assert_int_equal(story.n, n);
    for (size_t i = 0; i < n; i++)
        assert_string_equal(story.chapters[i].job, places[i]);
}

#define DELETED "{'type':'session-deleted','session_id':'S1','sandbox':{'id':'b1'}}"

/* Offsets begin anew with the topic: old ones are the larger, and their records are gone. */
static void jobs_of_a_topic_before_this_one(void **state)
{
    (void)state;
    static const char *const places[] = {"session-jobs/3/499", "session-jobs/3/500",
                                         "session-jobs/3/2", "session-jobs/3/4"};
    job(4, 3600000, START);
    event("session-jobs/3/500", 2000, DELETED);
    event("session-jobs/3/499", 1000, READY);
    event("session-jobs/3/2", 3500000, DELETED);
    event("session-jobs/3/4", 3606000, READY);
    expect_jobs(places, ARRAY_LEN(places));
    assert_string_equal(story_state(&story), "ready");
}

/* A job whose record was passed over, by --since, may end long after the next one was sent. */
static void jobs_that_waited_keep_their_order(void **state)
{
    (void)state;
    static const char *const places[] = {"session-jobs/3/3", "session-jobs/3/4",
                                         "session-jobs/3/5"};
    job(4, 1000, START);
    event("session-jobs/3/3", 600000, READY);
    event("session-jobs/3/5", 700000, DELETED);
    expect_jobs(places, ARRAY_LEN(places));
}

static void a_job_without_a_result(void **state)
{
    (void)state;
    job(4, 0, START);
    expect_part("session S1  waiting  1 job\n");
    expect_part(PAD "WAITING   no result yet: ");
    cJSON *page = cJSON_Parse(quoted(
        "{'instance':'w1','jobs_topic':'session-jobs','sessions':[{'session_id':'S1','job_id':'x',"
        "'partition':3,'offset':4,'step':'create','step_ms':1500,'attempt':2,'requests':7,"
        "'waiting_for':'Daytona answers 502','sandbox':null},"
        "{'session_id':'S2','job_id':'x','partition':3,'offset':5,'step':'create'},"
        "{'session_id':'S1','job_id':null,'step':'destroying','sandbox':'b0'}]}"));
    story_page(&story, page);
    expect_part("session S1  in-progress  1 job\n");
    expect_part(
        "               +  20.0 s  NOW       create for 1.5 s, attempt 2, 7 requests, at w1\n" PAD
        "waiting   Daytona answers 502\n");
    expect_part("NOW       its sandbox is being destroyed: b0\n");
    event("session-jobs/3/4", 6100, READY); /* it ended meanwhile */
    expect_part("session S1  ready  1 job\n");
    assert_null(strstr(buf_text(&out), "create for"));
    cJSON_Delete(page);
}

static void what_is_no_job_and_its_dead_letter(void **state)
{
    (void)state;
    struct header h[] = {
        {(char *)(uintptr_t)"__connect.errors.topic", (char *)(uintptr_t)"session-jobs", 12},
        {(char *)(uintptr_t)"__connect.errors.partition", (char *)(uintptr_t)"3", 1},
        {(char *)(uintptr_t)"__connect.errors.offset", (char *)(uintptr_t)"4", 1},
        {(char *)(uintptr_t)"__connect.errors.exception.class.name",
         (char *)(uintptr_t)"invalid_job", 11}};
    struct record r = record("dlq", 9, 100, "{}");
    r.headers = h;
    r.n_headers = ARRAY_LEN(h);
    story_letter(&story, &r);
    job(4, 0, "{'type':'start-session','env':{'SECRET':5}}");
    expect_part("session S1  refused  1 job\n");
    expect_part("JOB       not a job: env.SECRET must be a string  session-jobs/3/4\n");
    expect_part("DEAD      invalid_job: dlq/3/9 (sessionctl dlq show)\n");
}

static void env_and_keys_are_never_told(void **state)
{
    (void)state;
    job(4, 0,
        "{'type':'start-session','session_id':'S1','env':{'A':'hush-hush'},"
        "'session_api_key':'top-secret-key'}");
    expect_part("default snapshot");
    assert_null(strstr(buf_text(&out), "hush"));
    assert_null(strstr(buf_text(&out), "top-secret"));
}

static char lines[6][1500];
static size_t n_lines;

static void note(void *arg, const struct buf *json)
{
    (void)arg;
    cJSON *t = cJSON_ParseWithLength(buf_text(json), json->len);
    assert_non_null(t);
    cJSON_Delete(t);
    snprintf(lines[n_lines++ % 6], sizeof lines[0], "%s", buf_text(json));
}

static void as_json(void **state)
{
    (void)state;
    job(4, 0, START);
    event("session-jobs/3/4", 500,
          "{'type':'session-failed','session_id':'S1',"
          "'error':{'code':'cancelled','step':'create'}}");
    job(5, 400, "{'type':'stop-session','session_id':'S1'}");
    n_lines = 0;
    story_sort(&story);
    story_json(&story, note, NULL);
    assert_int_equal(n_lines, 4);
    assert_string_equal(lines[0], "{\"type\":\"job\",\"job\":\"session-jobs/3/4\","
                                  "\"session_id\":\"S1\",\"time\":\"2023-11-14T22:13:20.000Z\","
                                  "\"what\":\"start-session  oh-v0, server v0, mode ensure, "
                                  "timeout 300 s\",\"first\":null}");
    assert_string_equal(lines[1], "{\"type\":\"event\",\"job\":\"session-jobs/3/4\","
                                  "\"time\":\"2023-11-14T22:13:20.500Z\",\"event\":"
                                  "{\"type\":\"session-failed\",\"session_id\":\"S1\","
                                  "\"error\":{\"code\":\"cancelled\",\"step\":\"create\"}}}");
    assert_non_null(strstr(lines[2], "\"what\":\"stop-session\""));
    assert_string_equal(lines[3],
                        "{\"type\":\"summary\",\"session_id\":\"S1\",\"state\":\"waiting\","
                        "\"code\":null,\"to_do\":null,\"jobs\":2}");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_ready_session),
        TEST(a_failed_one_says_why_and_what_to_do),
        TEST(what_to_raise_when_time_was_over),
        TEST(jobs_stand_in_their_order),
        TEST(jobs_of_a_topic_before_this_one),
        TEST(jobs_that_waited_keep_their_order),
        TEST(a_job_without_a_result),
        TEST(what_is_no_job_and_its_dead_letter),
        TEST(env_and_keys_are_never_told),
        TEST(as_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
