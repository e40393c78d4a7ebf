/* roll: of each session the last word counts, whatever order the words come in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "worker/ctl/roll.h"

#define NOW UINT64_C(1700000100000)

static struct roll roll;
static struct buf out;
static struct table table;

static int setup(void **state)
{
    (void)state;
    roll = (struct roll){0};
    buf_init(&out, 1000000);
    table_init(&table, roll_heads, ROLL_COLUMNS);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    roll_done(&roll);
    buf_done(&out);
    table_done(&table);
    return 0;
}

/* Single quotes stand for double ones. */
static cJSON *tree(const char *json)
{
    char text[2000];
    snprintf(text, sizeof text, "%s", json);
    for (char *p = text; (p = strchr(p, '\''));)
        *p = '"';
    cJSON *t = cJSON_Parse(text);
    assert_non_null(t);
    return t;
}

static bool event(const char *job, uint64_t ago_s, const char *json)
{
    cJSON *t = tree(json);
    bool ours = roll_event(&roll, t, job, NOW - ago_s * 1000);
    cJSON_Delete(t);
    return ours;
}

static void page(const char *json)
{
    cJSON *t = tree(json);
    roll_page(&roll, t, NOW);
    cJSON_Delete(t);
}

/* One blank where there are several. */
static void squeeze(char *text)
{
    char *to = text;
    for (const char *from = text; *from; from++)
        if (*from != ' ' || from[1] != ' ')
            *to++ = *from;
    *to = '\0';
}

static const struct roll_wish all = {.now_ms = NOW};

static void expect_lines(const struct roll_wish *wish, const char *text)
{
    roll_table(&roll, wish, &table);
    table_print(&table, false, 0, &out);
    squeeze(out.data);
    assert_string_equal(strchr(out.data, '\n') + 1, text);
    buf_clear(&out);
    table_done(&table);
    table_init(&table, roll_heads, ROLL_COLUMNS);
}

static void each_state_in_a_line(void **state)
{
    (void)state;
    assert_true(event("j/0/1", 50,
                      "{'type':'session-ready','session_id':'S1','tenant':'acme',"
                      "'sandbox':{'id':'b1'},'server':{'url':'https://x/'}}"));
    assert_true(event("j/0/2", 40,
                      "{'type':'session-failed','session_id':'S2','sandbox':null,"
                      "'error':{'code':'no_capacity','step':'create',"
                      "'message':'no \x1b runners'}}"));
    assert_true(event("j/0/3", 30,
                      "{'type':'session-stopped','session_id':'S3',"
                      "'sandbox':{'id':'b3'}}"));
    assert_true(event("j/0/4", 20,
                      "{'type':'session-deleted','session_id':'S4',"
                      "'sandbox':{'id':'b4'}}"));
    assert_true(event("j/0/5/17", 10,
                      "{'type':'session-progress','session_id':'S5',"
                      "'step':'probe','attempt':2}"));
    assert_false(event("j/0/6", 1, "{'type':'session-ready'}"));
    assert_false(event("j/0/6", 1, "{'session_id':'S6'}"));
    expect_lines(&all, "S5 in-progress 10s - - probe, attempt 2\n"
                       "S4 deleted 20s - b4 -\n"
                       "S3 stopped 30s - b3 -\n"
                       "S2 failed 40s - - no_capacity at create: no "
                       "\\x1b runners\n"
                       "S1 ready 50s acme b1 https://x/\n");
}

static void filters_and_limit(void **state)
{
    (void)state;
    event("j/0/1", 50, "{'type':'session-ready','session_id':'S1','tenant':'acme'}");
    event("j/0/2", 40, "{'type':'session-ready','session_id':'S2','tenant':'other'}");
    event("j/0/3", 30, "{'type':'session-failed','session_id':'S3','tenant':'acme'}");
    struct roll_wish wish = {.state = "ready", .now_ms = NOW};
    expect_lines(&wish, "S2 ready 40s other - -\n"
                        "S1 ready 50s acme - -\n");
    wish.limit = 1;
    expect_lines(&wish, "S2 ready 40s other - -\n");
    wish.tenant = "acme";
    expect_lines(&wish, "S1 ready 50s acme - -\n");
    wish.tenant = "nobody";
    expect_lines(&wish, "");
}

static void the_last_job_has_the_last_word(void **state)
{
    (void)state;
    event("j/0/9", 10, "{'type':'session-deleted','session_id':'S1'}");
    event("j/0/5", 5, "{'type':'session-ready','session_id':'S1'}"); /* a repetition */
    expect_lines(&all, "S1 deleted 10s - - -\n");
    event("j/0/12", 20, "{'type':'session-failed','session_id':'S1'}"); /* clocks differ */
    expect_lines(&all, "S1 failed 20s - - -\n");
    event("j/1/2", 30, "{'type':'session-ready','session_id':'S1'}"); /* elsewhere: by the time */
    expect_lines(&all, "S1 failed 20s - - -\n");
    event("j/1/3", 2, "{'type':'session-ready','session_id':'S1'}");
    expect_lines(&all, "S1 ready 2s - - -\n");
}

static void a_result_ends_the_progress_of_its_job(void **state)
{
    (void)state;
    event("j/0/1", 10, "{'type':'session-ready','session_id':'S1'}");
    event("j/0/1/5", 9, "{'type':'session-progress','session_id':'S1','step':'keep'}");
    expect_lines(&all, "S1 ready 10s - - -\n");
    event("j/0/2/5", 8, "{'type':'session-progress','session_id':'S1','step':'find'}");
    expect_lines(&all, "S1 in-progress 8s - - find\n");
    event("j/0/2/6", 7, "{'type':'session-progress','session_id':'S1','step':'start'}");
    expect_lines(&all, "S1 in-progress 7s - - start\n");
    event("j/0/2", 6, "{'type':'session-ready','session_id':'S1'}");
    expect_lines(&all, "S1 ready 6s - - -\n");
}

#define PAGE                                                                                       \
    "{'instance':'w1','jobs_topic':'j','sessions':["                                               \
    "{'session_id':'S1','job_id':'x','partition':0,'offset':4,'step':'probe','age_ms':3000,"       \
    "'attempt':1,'sandbox':'b1','waiting_for':'the server does not answer yet','tenant':null},"    \
    "{'session_id':'S2','job_id':null,'partition':0,'offset':2,'step':'destroying','age_ms':1},"   \
    "{'session_id':7},5]}"

static void what_workers_have_in_hand(void **state)
{
    (void)state;
    event("j/0/3", 10, "{'type':'session-failed','session_id':'S1'}");
    page(PAGE);
    expect_lines(&all, "S1 in-progress 3s - b1 probe: the server does not "
                       "answer yet\n");
    event("j/0/4", 1, "{'type':'session-ready','session_id':'S1'}"); /* it ended meanwhile */
    expect_lines(&all, "S1 ready 1s - - -\n");
    page(PAGE);
    expect_lines(&all, "S1 ready 1s - - -\n");
    page("{'sessions':3}");
    page("[]");
}

/* Offsets begin anew with the topic: old ones are the larger. */
static void a_jobs_topic_that_was_made_anew(void **state)
{
    (void)state;
    event("j/0/500", 3600, "{'type':'session-deleted','session_id':'S1'}");
    event("j/0/3", 30, "{'type':'session-ready','session_id':'S1'}");
    event("j/0/3", 30, "{'type':'session-ready','session_id':'S2'}"); /* read the other way round */
    event("j/0/500", 3600, "{'type':'session-deleted','session_id':'S2'}");
    event("j/0/7", 3600, "{'type':'session-failed','session_id':'S3'}"); /* the very same place */
    event("j/0/7", 20, "{'type':'session-stopped','session_id':'S3'}");
    event("j/0/7", 3600, "{'type':'session-failed','session_id':'S3'}");
    expect_lines(&all, "S3 stopped 20s - - -\n"
                       "S1 ready 30s - - -\n"
                       "S2 ready 30s - - -\n");
}

static void what_is_in_hand_in_a_topic_made_anew(void **state)
{
    (void)state;
    event("j/0/500", 3600, "{'type':'session-deleted','session_id':'S1'}");
    page(PAGE); /* 0/4, for 3 s */
    expect_lines(&all, "S1 in-progress 3s - b1 probe: the server does not answer yet\n");
    event("j/0/500", 3600, "{'type':'session-deleted','session_id':'S1'}");
    expect_lines(&all, "S1 in-progress 3s - b1 probe: the server does not answer yet\n");
}

/* That it is old proves nothing: it may have waited behind another job of its session. */
static void what_is_in_hand_for_long(void **state)
{
    (void)state;
    static const char old[] =
        "{'instance':'w1','jobs_topic':'j','sessions':[{'session_id':'S1','job_id':'x',"
        "'partition':0,'offset':4,'step':'find','age_ms':600000,'attempt':1}]}";
    event("j/0/3", 200, "{'type':'session-stopped','session_id':'S1'}");
    page(old);
    expect_lines(&all, "S1 in-progress 10m - - find\n");
    event("j/0/3", 200, "{'type':'session-stopped','session_id':'S1'}");
    expect_lines(&all, "S1 in-progress 10m - - find\n");
    event("j/0/5", 100, "{'type':'session-deleted','session_id':'S1'}");
    page(old); /* of a worker that was cut off, while another one went on */
    expect_lines(&all, "S1 deleted 100s - - -\n");
}

static void a_record_without_a_time_goes_by_its_job(void **state)
{
    (void)state;
    event("j/0/3", 10, "{'type':'session-ready','session_id':'S1'}");
    event("j/0/4", NOW / 1000, "{'type':'session-deleted','session_id':'S1'}");
    event("j/0/3", 10, "{'type':'session-ready','session_id':'S1'}");
    expect_lines(&all, "S1 deleted - - - -\n");
}

static char objects[3][1000];
static size_t n_objects;

static void note(void *arg, const struct buf *json)
{
    assert_null(arg);
    snprintf(objects[n_objects++ % 3], sizeof objects[0], "%s", buf_text(json));
}

static void as_json(void **state)
{
    (void)state;
    event("j/0/3", 10,
          "{'type':'session-failed','session_id':'S2','provider':'daytona',"
          "'attempts':3,'error':{'code':'forbidden','step':'find','message':'m'}}");
    page(PAGE);
    n_objects = 0;
    roll_json(&roll, &all, note, NULL);
    assert_int_equal(n_objects, 2);
    assert_string_equal(objects[0],
                        "{\"type\":\"session\",\"session_id\":\"S1\",\"state\":\"in-progress\","
                        "\"time\":\"2023-11-14T22:14:57.000Z\",\"age_ms\":3000,\"tenant\":null,"
                        "\"provider\":null,\"sandbox\":\"b1\",\"url\":null,\"job\":\"j/0/4\","
                        "\"code\":null,\"step\":\"probe\",\"message\":null,"
                        "\"waiting_for\":\"the server does not answer yet\",\"worker\":\"w1\","
                        "\"attempt\":1}");
    assert_string_equal(objects[1],
                        "{\"type\":\"session\",\"session_id\":\"S2\",\"state\":\"failed\","
                        "\"time\":\"2023-11-14T22:14:50.000Z\",\"age_ms\":10000,\"tenant\":null,"
                        "\"provider\":\"daytona\",\"sandbox\":null,\"url\":null,\"job\":\"j/0/3\","
                        "\"code\":\"forbidden\",\"step\":\"find\",\"message\":\"m\","
                        "\"waiting_for\":null,\"worker\":null,\"attempt\":3}");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_state_in_a_line),
        TEST(filters_and_limit),
        TEST(the_last_job_has_the_last_word),
        TEST(a_result_ends_the_progress_of_its_job),
        TEST(what_workers_have_in_hand),
        TEST(a_jobs_topic_that_was_made_anew),
        TEST(what_is_in_hand_in_a_topic_made_anew),
        TEST(what_is_in_hand_for_long),
        TEST(a_record_without_a_time_goes_by_its_job),
        TEST(as_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
