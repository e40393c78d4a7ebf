/* board: what top shows of the pages of workers, whatever these hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "worker/ctl/board.h"

static struct buf out;
static struct worker_answer answers[3], earlier[3];
static struct look now, before;

static int setup(void **state)
{
    (void)state;
    buf_init(&out, 1000000);
    memset(answers, 0, sizeof answers);
    memset(earlier, 0, sizeof earlier);
    now = (struct look){answers, 0, 5000};
    before = (struct look){earlier, 0, 3000};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
        cJSON_Delete(answers[i].page);
        cJSON_Delete(earlier[i].page);
    }
    buf_done(&out);
    return 0;
}

/* Another worker of the look; NULL: it does not answer. Single quotes become double ones. */
static void add(struct look *l, const char *json)
{
    char text[4000];
    struct worker_answer *a = &l->answers[l->n++];
    snprintf(text, sizeof text, "%s", json ? json : "");
    for (char *p = text; (p = strchr(p, '\''));)
        *p = '"';
    a->address = "h:1";
    a->page = json ? cJSON_Parse(text) : NULL;
    assert_true(a->page || !json);
    snprintf(a->error, sizeof a->error, "%s", json ? "" : "Connection refused");
}

static const char *draw(size_t height)
{
    struct board b = {&now, before.n ? &before : NULL, "12:00", false, height};
    buf_clear(&out);
    board_text(&b, &out);
    return buf_text(&out);
}

static void expect_part(const char *part)
{
    if (!strstr(buf_text(&out), part))
        fail_msg("not there: %s\nin: %s", part, buf_text(&out));
}

#define BUDGET                                                                                     \
    "{'provider':'daytona','creates_per_minute':300,'share':150,'tokens':7,'blocked_ms':0,"        \
    "'parked':2,'unauthorized':false}"
#define WORKER                                                                                     \
    "{'instance':'w1','status':{'in_flight':3,'parked':2,'unpublished':1,'destroys':1,"            \
    "'draining':false},'totals':{'ready':20,'failed':3,'requests':400,'retries':5},"               \
    "'budgets':[" BUDGET "],'partitions':["                                                        \
    "{'partition':0,'offset':10,'lag':1,'taken':1,'done_above':0,'open':true},"                    \
    "{'partition':4,'offset':7,'lag':90,'taken':2,'done_above':5,'open':false},"                   \
    "{'partition':5,'offset':7,'lag':null,'taken':0,'done_above':0,'open':true}],"                 \
    "'sessions':[{'session_id':'quick','step':'create','age_ms':100,'step_ms':100,'attempt':1,"    \
    "'requests':1},{'session_id':'slow','step':'probe','age_ms':90000,'step_ms':2000,"             \
    "'attempt':2,'requests':33,'waiting_for':'no \\u001b[2J'},{'session_id':'p','step':"           \
    "'parked','age_ms':5000}]}"

static void everything_about_one_worker(void **state)
{
    (void)state;
    add(&now, WORKER);
    draw(0);
    expect_part("1 worker  12:00\nin hand    jobs 3  parked 2  to publish 1  to destroy 1\n"
                "steps      parked 1  create 1  probe 1\n"
                "since start ready 20  failed 3  stopped 0  deleted 0  refused 0  requests 400\n"
                "creations  daytona: 7 at once, 150 of 300 a minute are these workers' share, "
                "2 waiting\n");
    expect_part("WORKER  INSTANCE  STATE  PARTITIONS  IN HAND  PARKED  TO PUBLISH  READY  FAILED  "
                "RETRIES\nh:1     w1        up              3        3       2           1     20 "
                "      3        5\n");
    expect_part("PARTITION  WORKER  WATERMARK  LAG  TAKEN  DONE ABOVE  READING\n"
                "        4  w1              7   90      2           5  held back\n"
                "        0  w1             10    1      1           0  yes\n"
                "        5  w1              7    -      0           0  yes\n");
    expect_part("SLOWEST     AGE  STEP    IN STEP  ATTEMPT  REQUESTS  WORKER  WAITING FOR\n"
                "slow     90.0 s  probe     2.0 s        2        33  w1      no \\x1b[2J\n"
                "p         5.0 s  parked    0.0 s        0         0  w1      -\n"
                "quick     0.1 s  create    0.1 s        1         1  w1      -\n");
}

static void sums_and_rates(void **state)
{
    (void)state;
    add(&now, WORKER);
    add(&now, WORKER);
    add(&before, "{'totals':{'ready':10,'failed':6,'requests':300}}");
    add(&before, "{'totals':{'ready':10,'failed':0,'requests':100}}");
    draw(0);
    expect_part("2 workers  12:00\nin hand    jobs 6 ");
    expect_part("ready 40 (10.0/s)  failed 6  stopped 0  deleted 0  refused 0  "
                "requests 800 (200.0/s)\n");
    expect_part("daytona: 14 at once, 300 of 300 a minute");
}

static void a_worker_that_came_makes_no_rate(void **state)
{
    (void)state;
    add(&now, WORKER);
    add(&now, WORKER);
    add(&before, "{'totals':{'ready':1}}");
    add(&before, NULL);
    draw(0);
    expect_part("ready 40  failed 6");
}

static void trouble_is_seen(void **state)
{
    (void)state;
    add(&now, NULL);
    add(&now, "{'instance':'w2','status':{'draining':true},'budgets':[{'provider':'daytona',"
              "'blocked_ms':12000,'unauthorized':true}]}");
    draw(0);
    expect_part("1 worker, and some that do not answer  12:00\n");
    expect_part("steps      nothing is under way\n");
    expect_part(", blocked for 12 s, the key is refused\n");
    expect_part("no answer");
    expect_part("Connection refused\n");
    expect_part("draining");
}

static void a_page_may_hold_anything(void **state)
{
    (void)state;
    add(&now, "[]");
    add(&now, "{'instance':7,'status':[],'totals':3,'budgets':[1,{'provider':null}],"
              "'partitions':{'a':1},'sessions':[null,{'session_id':'x\\u001b','age_ms':-5}]}");
    draw(0);
    assert_null(strchr(buf_text(&out), '\x1b'));
    expect_part("2 workers");
}

static size_t lines(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += *text == '\n';
    return n;
}

static void it_fits_the_screen(void **state)
{
    (void)state;
    char many[4000] = "{'partitions':[";
    size_t len = strlen(many);
    for (int i = 0; i < 60; i++)
        len += (size_t)snprintf(many + len, sizeof many - len, "%s{'partition':%d,'lag':%d}",
                                i ? "," : "", i, i);
    snprintf(many + len, sizeof many - len,
             "],'sessions':[{'session_id':'a'},{'session_id':'b'}]}");
    add(&now, many);
    draw(30);
    assert_in_range(lines(buf_text(&out)), 25, 30);
    expect_part("       59  ");
    expect_part("more\n");
    expect_part("\nb  ");
    assert_true(lines(draw(0)) > 60);
}

static char objects[2][3000];
static size_t n_objects;

static void note(void *arg, const struct buf *json)
{
    (void)arg;
    cJSON *t = cJSON_ParseWithLength(buf_text(json), json->len);
    assert_non_null(t);
    cJSON_Delete(t);
    snprintf(objects[n_objects++ % 2], sizeof objects[0], "%s", buf_text(json));
}

static void as_json(void **state)
{
    (void)state;
    struct board b = {&now, NULL, "2026", false, 0};
    add(&now, "{'instance':'w','fleet':'f','jobs_topic':'j','status':{'parked':1},'totals':{},"
              "'budgets':[],'partitions':[],'sessions':[{'step':'probe'}]}");
    add(&now, NULL);
    n_objects = 0;
    board_json(&b, note, NULL);
    assert_int_equal(n_objects, 2);
#define NO_STEPS "\"keep\":0,\"stop\":0,\"delete\":0,\"queue\":0,\"publishing\":0,\"destroying\":0}"
    assert_string_equal(
        objects[0],
        "{\"type\":\"worker\",\"time\":\"2026\",\"admin\":\"h:1\",\"error\":null,"
        "\"instance\":\"w\",\"fleet\":\"f\",\"jobs_topic\":\"j\",\"steps\":{\"queued\":0,"
        "\"parked\":0,\"find\":0,\"create\":0,\"start\":0,\"launch\":0,\"probe\":1," NO_STEPS
        ",\"status\":{\"parked\":1},\"totals\":{},\"budgets\":[],\"partitions\":[],"
        "\"sessions\":[{\"step\":\"probe\"}]}");
    assert_non_null(strstr(objects[1], "\"error\":\"Connection refused\",\"instance\":null,"));
    assert_non_null(strstr(objects[1], "\"status\":null"));
}

static void where_a_worker_can_be_asked(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"127.0.0.1:9464", "127.0.0.1:9464"}, {"0.0.0.0:9464", "127.0.0.1:9464"},
        {":9464", "127.0.0.1:9464"},          {"[::]:9464", "[::1]:9464"},
        {"worker-3:80", "worker-3:80"},       {"", ""}};
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        char *address = dial_address(pairs[i][0]);
        assert_string_equal(address, pairs[i][1]);
        free(address);
    }
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(everything_about_one_worker),
        TEST(sums_and_rates),
        TEST(a_worker_that_came_makes_no_rate),
        TEST(trouble_is_seen),
        TEST(a_page_may_hold_anything),
        TEST(it_fits_the_screen),
        TEST(as_json),
        TEST(where_a_worker_can_be_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
