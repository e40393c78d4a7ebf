/* job: from options, env files and lines to a job that a worker takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "worker/ctl/job.h"

struct args {
    const char *snapshot, *metadata, *unset;
    int64_t port;
    bool wait;
};

#define AT(member) offsetof(struct args, member)
static const struct option options[] = {
    {.name = "snapshot", .kind = OPT_TEXT, .offset = AT(snapshot), .path = "sandbox.snapshot"},
    {.name = "metadata", .kind = OPT_JSON, .offset = AT(metadata), .path = "metadata"},
    {.name = "unset", .kind = OPT_TEXT, .offset = AT(unset), .path = "tenant"},
    {.name = "port", .kind = OPT_INT, .offset = AT(port), .path = "server.port"},
    {.name = "wait", .kind = OPT_FLAG, .offset = AT(wait)},
};
static const struct option_table table = {options, ARRAY_LEN(options)};

static void expect_json(const cJSON *tree, const char *text)
{
    struct buf out;
    buf_init(&out, 10000);
    json_canonical(&out, tree);
    assert_string_equal(buf_text(&out), text);
    buf_done(&out);
}

static void options_go_over_the_file(void **state)
{
    (void)state;
    char error[JOB_ERROR_SIZE];
    const char *file = "{\"sandbox\":{\"snapshot\":\"old\",\"target\":\"eu\"},\"tenant\":\"t\"}";
    cJSON *job = cJSON_Parse(file);
    struct args args = {.snapshot = "new", .metadata = "{\"a\":[1]}", .port = 80, .wait = true};
    assert_true(job_set_options(job, &table, &args, error));
    expect_json(job,
                "{\"metadata\":{\"a\":[1]},\"sandbox\":{\"snapshot\":\"new\",\"target\":\"eu\"},"
                "\"server\":{\"port\":80},\"tenant\":\"t\"}");
    cJSON_Delete(job);
}

static void options_find_a_file_of_the_wrong_shape(void **state)
{
    (void)state;
    char error[JOB_ERROR_SIZE];
    cJSON *job = cJSON_Parse("{\"sandbox\":\"oh-v1\"}");
    struct args args = {.snapshot = "new"};
    assert_false(job_set_options(job, &table, &args, error));
    assert_string_equal(error, "sandbox must be an object");
    args = (struct args){.metadata = "{a}"};
    assert_false(job_set_options(job, &table, &args, error));
    assert_non_null(strstr(error, "--metadata is not JSON: "));
    cJSON_Delete(job);
}

static void env_files_as_people_write_them(void **state)
{
    (void)state;
    char error[JOB_ERROR_SIZE];
    cJSON *job = cJSON_CreateObject();
    setenv("TEST_OURS", "our own", 1);
    assert_true(job_add_env_text(job,
                                 "# a comment\n"
                                 "\n"
                                 "PLAIN=a b  # comment\n"
                                 "HASH=a#b\r\n"
                                 "  export EXPORTED=1\n"
                                 "SINGLE='$x \\n' # comment\n"
                                 "DOUBLE=\"a\\nb \\\"c\\\" \\$d \\q\"\n"
                                 "EMPTY=\n"
                                 "EQUALS=a=b\n"
                                 "PLAIN2=x\n"
                                 "PLAIN2=y\n"
                                 "TEST_OURS\n"
                                 "LAST=no newline",
                                 error));
    expect_json(cJSON_GetObjectItemCaseSensitive(job, "env"),
                "{\"DOUBLE\":\"a\\nb \\\"c\\\" $d \\\\q\",\"EMPTY\":\"\",\"EQUALS\":\"a=b\","
                "\"EXPORTED\":\"1\",\"HASH\":\"a#b\",\"LAST\":\"no newline\",\"PLAIN\":\"a b\","
                "\"PLAIN2\":\"y\",\"SINGLE\":\"$x \\\\n\",\"TEST_OURS\":\"our own\"}");
    cJSON_Delete(job);
}

static void env_mistakes_name_the_line_and_no_value(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"A=1\n2B=secret", "line 2: the name before = must be letters, digits and _"},
        {"=secret", "line 1: the name before = must be letters, digits and _"},
        {"A-B=secret", "line 1: the name before = must be letters, digits and _"},
        {"A='secret", "line 1: the closing quote is missing"},
        {"A=\"secret\" more", "line 1: there is text behind the closing quote"},
        {"TEST_UNSET", "line 1: TEST_UNSET has no value, and our environment has none either"},
    };
    unsetenv("TEST_UNSET");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char error[JOB_ERROR_SIZE];
        cJSON *job = cJSON_CreateObject();
        assert_false(job_add_env_text(job, cases[i].text, error));
        assert_string_equal(error, cases[i].error);
        cJSON_Delete(job);
    }
}

static void an_env_word_is_taken_as_it_is(void **state)
{
    (void)state;
    char error[JOB_ERROR_SIZE];
    cJSON *job = cJSON_CreateObject();
    assert_true(job_add_env_word(job, "A='x' # y", error));
    assert_true(job_add_env_word(job, "B=", error));
    assert_false(job_add_env_word(job, "a b=1", error));
    expect_json(job, "{\"env\":{\"A\":\"'x' # y\",\"B\":\"\"}}");
    cJSON_Delete(job);
}

/* ---- what a worker would say ---- */

static struct config cfg;

static int load_defaults(void **state)
{
    (void)state;
    struct config_source src = {.client = true};
    struct buf errors;
    buf_init(&errors, 10000);
    bool ok = config_load(&src, &cfg, &errors);
    buf_done(&errors);
    return ok ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    config_done(&cfg);
    return 0;
}

static void a_job_tells_its_key(void **state)
{
    (void)state;
    struct job_verdict v;
    static const char text[] =
        "{\"type\":\"stop-session\",\"session_id\":\"S1\",\"seession\":1,\"x\":2}";
    assert_true(job_check(text, strlen(text), &cfg, &v));
    assert_string_equal(v.session_id, "S1");
    assert_string_equal(v.warning, "warning: 2 unknown fields will be ignored: seession, x");
    job_verdict_done(&v);
    static const char nested[] = "{\"type\":\"stop-session\",\"session_id\":\"S1\","
                                 "\"sandbox\":{\"idd\":\"i\"}}";
    assert_true(job_check(nested, strlen(nested), &cfg, &v));
    assert_string_equal(v.warning, "warning: 1 unknown field will be ignored: sandbox.idd");
    job_verdict_done(&v);
}

static void a_job_without_a_session(void **state)
{
    (void)state;
    static const struct {
        const char *job, *why;
    } cases[] = {
        {"{\"type\":\"stop-session\"}", "session_id must be given"},
        {"{\"type\":\"stop-session\",\"session_id\":null}", "session_id must be given"},
        {"{\"type\":\"stop-session\",\"session_id\":\"\"}", "session_id must not be empty"},
        {"{\"type\":\"stop-session\",\"session_id\":7}", "session_id must be a string"},
        {"[]", "the value must be a JSON object"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct job_verdict v;
        assert_false(job_check(cases[i].job, strlen(cases[i].job), &cfg, &v));
        assert_string_equal(v.why, cases[i].why);
        job_verdict_done(&v);
    }
}

static void a_refusal_names_the_field(void **state)
{
    (void)state;
    struct job_verdict v;
    static const char text[] =
        "{\"type\":\"start-session\",\"session_id\":\"S1\",\"sandbox\":{\"snapshot\":\"x\"},"
        "\"env\":{\"FOO\":3}}";
    assert_false(job_check(text, strlen(text), &cfg, &v));
    assert_string_equal(v.session_id, "S1");
    assert_string_equal(v.why, "env.FOO must be a string");
    job_verdict_done(&v);
}

static void what_is_no_json_has_no_key(void **state)
{
    (void)state;
    struct job_verdict v;
    assert_false(job_check("nope", 4, &cfg, &v));
    assert_null(v.session_id);
    assert_true(strlen(v.why) > 0);
    job_verdict_done(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_go_over_the_file),
        cmocka_unit_test(options_find_a_file_of_the_wrong_shape),
        cmocka_unit_test(env_files_as_people_write_them),
        cmocka_unit_test(env_mistakes_name_the_line_and_no_value),
        cmocka_unit_test(an_env_word_is_taken_as_it_is),
        cmocka_unit_test(a_job_tells_its_key),
        cmocka_unit_test(a_job_without_a_session),
        cmocka_unit_test(a_refusal_names_the_field),
        cmocka_unit_test(what_is_no_json_has_no_key),
    };
    return cmocka_run_group_tests(tests, load_defaults, unload);
}
