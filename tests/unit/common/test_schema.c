/* config/schema: what the schemas list is what the code reads and prints, member by member. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/config.h"
#include "common/json.h"
#include "common/wire.h"
#include "common/xalloc.h"
#include "tests/unit/common/samples.h"

static cJSON *read_schema(const char *name)
{
    static char text[100000];
    char path[100], error[JSON_ERROR_SIZE];
    snprintf(path, sizeof path, "config/schema/%s.json", name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    cJSON *schema = json_parse(text, n, &json_limits_job, error);
    assert_non_null(schema);
    assert_string_equal(json_str(schema, "$schema", ""),
                        "https://json-schema.org/draft/2020-12/schema");
    assert_string_equal(json_str(schema, "title", ""), name);
    return schema;
}

/* ---- a small validator that also refuses members without a schema ---- */

static const char *type_of(const cJSON *value)
{
    if (cJSON_IsNumber(value))
        return value->valuedouble == (double)(int64_t)value->valuedouble ? "integer" : "number";
    return cJSON_IsString(value)   ? "string"
           : cJSON_IsBool(value)   ? "boolean"
           : cJSON_IsObject(value) ? "object"
           : cJSON_IsArray(value)  ? "array"
                                   : "null";
}

static bool same_text(const cJSON *a, const cJSON *b)
{
    struct buf x, y;
    buf_init(&x, 10000);
    buf_init(&y, 10000);
    json_canonical(&x, a);
    json_canonical(&y, b);
    bool same = strcmp(buf_text(&x), buf_text(&y)) == 0;
    buf_done(&x);
    buf_done(&y);
    return same;
}

static bool among(const cJSON *list, const cJSON *value)
{
    for (const cJSON *m = list->child; m; m = m->next)
        if (same_text(m, value))
            return true;
    return false;
}

static bool has_type(const cJSON *types, const cJSON *value)
{
    if (!types)
        return true;
    if (cJSON_IsString(types))
        return strcmp(types->valuestring, type_of(value)) == 0;
    for (const cJSON *t = types->child; t; t = t->next)
        if (has_type(t, value))
            return true;
    return false;
}

static void check(const cJSON *schema, const cJSON *value, const char *path);

static void check_object(const cJSON *schema, const cJSON *object, const char *path)
{
    const cJSON *properties = json_get(schema, "properties");
    const cJSON *required = json_get(schema, "required");
    const cJSON *more = json_get(schema, "additionalProperties");
    for (const cJSON *r = required ? required->child : NULL; r; r = r->next)
        if (!json_get(object, r->valuestring))
            fail_msg("%s.%s is required and not there", path, r->valuestring);
    for (const cJSON *m = object->child; properties && m; m = m->next) {
        char below[200];
        snprintf(below, sizeof below, "%s.%s", path, m->string);
        if (!json_get(properties, m->string))
            fail_msg("%s is in no schema", below);
        check(json_get(properties, m->string), m, below);
    }
    for (const cJSON *m = object->child; more && m; m = m->next)
        check(more, m, path);
}

static void check(const cJSON *schema, const cJSON *value, const char *path)
{
    const cJSON *constant = json_get(schema, "const"), *list = json_get(schema, "enum");
    if (!has_type(json_get(schema, "type"), value))
        fail_msg("%s has type %s", path, type_of(value));
    if (constant && !same_text(constant, value))
        fail_msg("%s is not the constant", path);
    if (list && !among(list, value))
        fail_msg("%s is not in the list", path);
    if (cJSON_IsObject(value))
        check_object(schema, value, path);
    for (const cJSON *m = cJSON_IsArray(value) ? value->child : NULL; m; m = m->next)
        check(json_get(schema, "items"), m, path);
}

/* ---- events ---- */

static void check_event(const struct event *e, const char *name)
{
    struct message m;
    cJSON *schema = read_schema(name);
    event_print(e, &m);
    cJSON *value = json_parse_reply(m.value, m.value_len);
    check(schema, value, name);
    cJSON_Delete(value);
    cJSON_Delete(schema);
    message_done(&m);
}

static void test_events(void **state)
{
    (void)state;
    static const char *const names[] = {
        [EVENT_READY] = "session-ready",       [EVENT_FAILED] = "session-failed",
        [EVENT_STOPPED] = "session-stopped",   [EVENT_DELETED] = "session-deleted",
        [EVENT_PROGRESS] = "session-progress",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct event e = sample_event((enum event_type)i);
        check_event(&e, names[i]);
        e.tenant = e.provider = e.metadata = e.job_id = NULL;
        e.with_secrets = e.server.present = false;
        e.vscode.url = e.sandbox.was = NULL;
        e.error.provider_message = e.error.log_tail = NULL;
        e.error.http_status = 0;
        if (i != EVENT_READY)
            e.sandbox.id = NULL;
        check_event(&e, names[i]);
    }
}

static const cJSON *property(const cJSON *schema, const char *a, const char *b)
{
    return json_get(json_get(json_get(json_get(schema, "properties"), a), "properties"), b);
}

static void test_codes_and_steps(void **state)
{
    (void)state;
    cJSON *schema = read_schema("session-failed");
    const cJSON *codes = json_get(property(schema, "error", "code"), "enum");
    const cJSON *steps = json_get(property(schema, "error", "step"), "enum");
    assert_int_equal(cJSON_GetArraySize(codes), N_ERRORS - 1);
    assert_int_equal(cJSON_GetArraySize(steps), N_STEPS - 1);
    for (int i = 1; i < N_ERRORS; i++)
        assert_string_equal(cJSON_GetArrayItem(codes, i - 1)->valuestring,
                            error_name((enum error_code)i));
    for (int i = 0; i < STEP_PUBLISH; i++)
        assert_string_equal(cJSON_GetArrayItem(steps, i)->valuestring, step_name((enum step)i));
    cJSON_Delete(schema);
}

/* ---- jobs ---- */

static void test_sample_job(void **state)
{
    (void)state;
    cJSON *schema = read_schema("start-session");
    cJSON *job = json_parse_reply(sample_job, strlen(sample_job));
    check(schema, job, "start-session");
    cJSON_Delete(job);
    cJSON_Delete(schema);
}

struct probe {
    const char *type;
    const struct config *cfg;
};

/* The parser knows the member: it does not count it as unknown. A null is of no type's fault. */
static void check_known(const struct probe *p, const char *before, const char *name,
                        const char *after)
{
    char value[500];
    struct refusal why = {0};
    unsigned unknown = 0;
    snprintf(value, sizeof value, "{\"type\":\"%s\"%s\"%s\":null%s}", p->type, before, name, after);
    struct record r = {.topic = "t", .key = "s", .key_len = 1, .value = value};
    r.value_len = strlen(value);
    job_free(job_parse(&r, p->cfg, &why, &unknown));
    if (unknown)
        fail_msg("%s is not known to the parser", name);
    refusal_done(&why);
}

static void check_all_known(const struct probe *p, const cJSON *schema, const char *before,
                            const char *after)
{
    const cJSON *properties = json_get(schema, "properties");
    for (const cJSON *m = properties ? properties->child : NULL; m; m = m->next) {
        char longer[200], end[20];
        if (strcmp(m->string, "type") == 0)
            continue;
        check_known(p, before, m->string, after);
        bool array = json_get(m, "items") != NULL;
        snprintf(longer, sizeof longer, "%s\"%s\":%s{", before, m->string, array ? "[" : "");
        snprintf(end, sizeof end, "%s%s", array ? "}]" : "}", after);
        check_all_known(p, array ? json_get(m, "items") : m, longer, end);
    }
}

static void test_schemas_of_jobs(void **state)
{
    (void)state;
    static const char *const types[] = {"start-session", "stop-session", "delete-session"};
    const struct config_source src = {.client = true};
    struct config cfg;
    struct buf errors;
    buf_init(&errors, 1000);
    assert_true(config_load(&src, &cfg, &errors));
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        const struct probe p = {types[i], &cfg};
        cJSON *schema = read_schema(types[i]);
        assert_true(cJSON_GetArraySize(json_get(schema, "properties")) > 8);
        check_all_known(&p, schema, ",", "");
        cJSON_Delete(schema);
    }
    config_done(&cfg);
    buf_done(&errors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_codes_and_steps),
        cmocka_unit_test(test_sample_job),
        cmocka_unit_test(test_schemas_of_jobs),
    };
    return cmocka_run_group_tests_name("schema", tests, NULL, NULL);
}
