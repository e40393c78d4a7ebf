/* event: one line for eyes, one for scripts, neither of which steers a terminal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "worker/ctl/event.h"
#include "worker/ctl/text.h"

static void expect_text(const char *json, bool colour, const char *text)
{
    struct buf out;
    cJSON *event = cJSON_Parse(json);
    assert_non_null(event);
    buf_init(&out, 10000);
    event_text(event, colour, &out);
    assert_string_equal(buf_text(&out), text);
    buf_done(&out);
    cJSON_Delete(event);
}

#define HEAD "\"time\":\"2026-11-24T08:00:00.000Z\",\"session_id\":\"S1\""
#define LINE "2026-11-24T08:00:00.000Z  S1  "

static void each_event_in_one_line(void **state)
{
    (void)state;
    expect_text(
        "{\"type\":\"session-ready\"," HEAD ",\"server\":{\"url\":\"https://x/\"},"
        "\"sandbox\":{\"id\":\"i\",\"outcome\":\"started\",\"replaced\":true,\"drift\":true},"
        "\"timings_ms\":{\"total\":4210}}",
        false, LINE "READY     https://x/  started in 4.2 s, replaced, of another spec");
    expect_text("{\"type\":\"session-failed\"," HEAD ",\"error\":{\"code\":\"server_exited\","
                "\"step\":\"probe\",\"message\":\"it ended with 3\",\"retryable\":true,"
                "\"provider_message\":\"no\",\"log_tail\":\"a\\nb\\n\\n\"},"
                "\"sandbox\":{\"id\":\"i\",\"cleanup\":\"kept\"}}",
                false,
                LINE
                "FAILED    server_exited at probe: it ended with 3; provider: no; its log ends: b "
                "(trying again may help); kept: sandbox i");
    expect_text("{\"type\":\"session-stopped\"," HEAD
                ",\"sandbox\":{\"id\":\"i\",\"was\":\"started\"}}",
                false, LINE "STOPPED   sandbox i, was started");
    expect_text("{\"type\":\"session-deleted\"," HEAD ",\"sandbox\":null}", false,
                LINE "DELETED   there was none");
    expect_text("{\"type\":\"session-progress\"," HEAD ",\"status\":\"STARTING_RUNTIME\","
                "\"step\":\"create\",\"attempt\":2,\"elapsed_ms\":1500}",
                false, LINE "PROGRESS  create: making the sandbox, attempt 2, 1.5 s so far");
    expect_text("{\"type\":\"session-progress\"," HEAD ",\"step\":\"dance\",\"attempt\":1}", false,
                LINE "PROGRESS  dance, 0.0 s so far");
}

static void a_ready_without_a_server_names_what_there_is(void **state)
{
    (void)state;
    expect_text("{\"type\":\"session-ready\"," HEAD ",\"server\":null,\"sandbox\":{\"id\":\"i\","
                "\"exposed_urls\":[{\"name\":\"W\",\"url\":\"https://w/\"}]}}",
                false, LINE "READY     https://w/");
    expect_text("{\"type\":\"session-ready\"," HEAD ",\"server\":null,\"sandbox\":{\"id\":\"i\","
                "\"exposed_urls\":[]}}",
                false, LINE "READY     i");
}

static void an_event_of_odd_types_is_shown_all_the_same(void **state)
{
    (void)state;
    expect_text("{\"type\":\"session-failed\",\"time\":3,\"session_id\":null,\"error\":[],"
                "\"sandbox\":7}",
                false, "-  -  FAILED    unknown");
}

static void no_text_of_an_event_steers_a_terminal(void **state)
{
    (void)state;
    expect_text(
        "{\"type\":\"session-failed\",\"time\":\"t\",\"session_id\":\"S\\u001b[31m\","
        "\"error\":{\"code\":\"c\\r\",\"message\":\"\\u009b1A \\u202etxt \\u00e9 \\u007f\","
        "\"log_tail\":\"x\\u0007\"}}",
        false,
        "t  S\\x1b[31m  FAILED    c\\x0d: \\x9b1A \\u{202e}txt \xc3\xa9 \\x7f; its log ends: "
        "x\\x07");
}

static void colours_only_where_asked(void **state)
{
    (void)state;
    expect_text("{\"type\":\"session-ready\"," HEAD ",\"sandbox\":{\"id\":\"i\"}}", true,
                LINE "\033[32mREADY   \033[0m  i");
}

static void kinds_of_events(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        enum event_end end;
    } cases[] = {
        {"{\"type\":\"session-ready\"}", EVENT_GOOD},
        {"{\"type\":\"session-stopped\"}", EVENT_GOOD},
        {"{\"type\":\"session-deleted\"}", EVENT_GOOD},
        {"{\"type\":\"session-failed\"}", EVENT_BAD},
        {"{\"type\":\"session-progress\"}", EVENT_UNDERWAY},
        {"{\"type\":\"session-else\"}", EVENT_FOREIGN},
        {"{\"type\":7}", EVENT_FOREIGN},
        {"[]", EVENT_FOREIGN},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        cJSON *tree = cJSON_Parse(cases[i].json);
        assert_int_equal(event_end(tree), cases[i].end);
        cJSON_Delete(tree);
    }
    assert_int_equal(event_end(NULL), EVENT_FOREIGN);
}

static void json_stays_json_on_one_line(void **state)
{
    (void)state;
    static const char text[] =
        "{\r\n\t\"a\": \"\x1b[2J \x7f \xc2\x9b \xff \xe2\x80\xae \xc3\xa9\"}";
    struct buf out;
    buf_init(&out, 1000);
    add_json_line(&out, text, strlen(text));
    assert_string_equal(buf_text(&out),
                        "{   \"a\": \"\\u001b[2J \\u007f \\u009b \\ufffd \\u202e \xc3\xa9\"}");
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_event_in_one_line),
        cmocka_unit_test(a_ready_without_a_server_names_what_there_is),
        cmocka_unit_test(an_event_of_odd_types_is_shown_all_the_same),
        cmocka_unit_test(no_text_of_an_event_steers_a_terminal),
        cmocka_unit_test(colours_only_where_asked),
        cmocka_unit_test(kinds_of_events),
        cmocka_unit_test(json_stays_json_on_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
