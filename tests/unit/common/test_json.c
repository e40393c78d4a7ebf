/* json: what is let through, what is refused and with which words, and text made from trees. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "common/xalloc.h"

static void test_accepts(void **state)
{
    (void)state;
    static const char *const good[] = {
        "{}",
        " [ ] ",
        "null",
        "\"\"",
        "-0.5e+3",
        "2E-5",
        "0.0000000000000000000000000000000000000000000000000000000000001", /* 63 characters */
        "\"\\ud800\\udc00\\udbff\\udfff\\ue000\"",
        "9007199254740992",
        "-9007199254740992",
        "{\"a\":{\"a\":[1,2,{\"a\":null}]}}",
        "\"\\ud83d\\ude00 \\u00e4 \xc3\xa4 \\\" \\\\ \\/ \\b\\f\\n\\r\\t\"",
        "[true,false,null,0,1.25,1E2]",
        "\r\n\t {\"a\" : [ 1 , 2 ] }\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        char error[JSON_ERROR_SIZE] = "";
        cJSON *tree = json_parse(good[i], strlen(good[i]), &json_limits_job, error);
        if (!tree)
            print_error("%s: %s\n", good[i], error);
        assert_non_null(tree);
        cJSON_Delete(tree);
    }
}

static void test_refuses(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } bad[] = {
        {"", "unexpected end at byte 0"},
        {"   ", "unexpected end at byte 3"},
        {"{", "a string is missing at byte 1"},
        {"{\"a\"}", "':' is missing at byte 4"},
        {"{\"a\":1,}", "a string is missing at byte 7"},
        {"{\"a\":1", "',' or '}' is missing at byte 6"},
        {"{a:1}", "a string is missing at byte 1"},
        {"[1,]", "unexpected byte at byte 3"},
        {"[1 2]", "',' or ']' is missing at byte 3"},
        {"[1", "',' or ']' is missing at byte 2"},
        {"{} x", "trailing bytes at byte 3"},
        {"{}{}", "trailing bytes at byte 2"},
        {"01", "trailing bytes at byte 1"},
        {"1.", "broken number at byte 2"},
        {"1e", "broken number at byte 2"},
        {"-", "unexpected byte at byte 1"},
        {"+1", "unexpected byte at byte 0"},
        {".5", "unexpected byte at byte 0"},
        {"NaN", "unexpected byte at byte 0"},
        {"nul", "unexpected byte at byte 0"},
        {"9007199254740993", "number beyond 2^53 at byte 16"},
        {"-9007199254740993", "number beyond 2^53 at byte 17"},
        {"9007199254740994", "number beyond 2^53 at byte 16"},
        {"9007199254740994.0", "number beyond 2^53 at byte 18"},
        {"1e999", "number beyond 2^53 at byte 5"},
        {"0.0000000000000000000000000000000000000000000000000000000000000001",
         "number of more than 63 characters at byte 66"},
        {"\"abc", "unfinished string at byte 4"},
        {"\"\n\"", "control byte in a string at byte 1"},
        {"\"\\x\"", "unknown escape at byte 2"},
        {"\"\\u12g4\"", "broken \\u escape at byte 5"},
        {"\"\\u0000\"", "\\u0000 is not allowed at byte 7"},
        {"\"\\ud800\"", "lone surrogate at byte 7"},
        {"\"\\udc00\"", "lone surrogate at byte 7"},
        {"\"\\udfff\"", "lone surrogate at byte 7"},
        {"\"\\udbff\\ue000\"", "lone surrogate at byte 13"},
        {"\"\\ud800x\"", "lone surrogate at byte 7"},
        {"1e+", "broken number at byte 3"},
        {"\"\\ud800\\u0041\"", "lone surrogate at byte 13"},
        {"\"\xff\"", "invalid UTF-8 at byte 1"},
        {"\"\xed\xa0\x80\"", "invalid UTF-8 at byte 1"},
        {"\xef\xbb\xbf{}", "unexpected byte at byte 0"},
        {"{\"a\":1,\"b\":2,\"a\":3}", "duplicate key a"},
        {"[{\"x\":{\"a\":1,\"\\u0061\":3}}]", "duplicate key a"},
        {"{\"a\":1}\v", "trailing bytes at byte 7"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char error[JSON_ERROR_SIZE] = "";
        assert_null(json_parse(bad[i].text, strlen(bad[i].text), &json_limits_job, error));
        assert_string_equal(error, bad[i].error);
    }
}

static void test_embedded_nul(void **state)
{
    (void)state;
    char error[JSON_ERROR_SIZE];
    assert_null(json_parse("\"a\0b\"", 5, &json_limits_job, error));
    assert_string_equal(error, "control byte in a string at byte 2");
    assert_null(json_parse("{}\0", 3, &json_limits_job, error));
    assert_string_equal(error, "trailing bytes at byte 2");
}

/* n times text, then its mirror. */
static char *nested(size_t n, const char *open, const char *close)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    for (size_t i = 0; i < n; i++)
        buf_adds(&b, open);
    for (size_t i = 0; i < n; i++)
        buf_adds(&b, close);
    return buf_steal(&b);
}

static void test_limits(void **state)
{
    (void)state;
    static const struct json_limits limits = {200, 8, 3};
    char error[JSON_ERROR_SIZE];
    char *deep = nested(8, "[", "]"), *deeper = nested(9, "[", "]"),
         *large = nested(100, "[", "] ");
    cJSON *tree = json_parse(deep, strlen(deep), &limits, error);
    assert_non_null(tree);
    cJSON_Delete(tree);
    assert_null(json_parse(deeper, strlen(deeper), &limits, error));
    assert_string_equal(error, "nested deeper than 8 at byte 8");
    assert_null(json_parse(large, strlen(large), &limits, error));
    assert_string_equal(error, "300 bytes, more than 200");
    static const char four[] = "{\"a\":1,\"b\":2,\"c\":3,\"d\":4}";
    assert_null(json_parse(four, strlen(four), &limits, error));
    assert_string_equal(error, "more than 3 keys in one object at byte 19");
    free(deep);
    free(deeper);
    free(large);
    deep = nested(100000, "[", "]");
    assert_null(json_parse_reply(deep, strlen(deep)));
    free(deep);
}

static void test_reply_is_lenient(void **state)
{
    (void)state;
    static const char text[] = "{\"a\":\"\xff\",\"a\":2,\"n\":1e300,\"i\":-7.9,\"s\":\"\\u0000x\","
                               "\"t\":true,\"z\":null,\"A\":3}";
    cJSON *tree = json_parse_reply(text, strlen(text));
    assert_non_null(tree);
    assert_string_equal(json_str(tree, "a", "?"), "\xff");
    assert_string_equal(json_str(tree, "t", "?"), "?");
    assert_string_equal(json_str(tree, "none", "?"), "?");
    assert_string_equal(json_str(NULL, "a", "?"), "?");
    assert_int_equal(json_int(tree, "n", 5), 5);
    assert_int_equal(json_int(tree, "i", 5), -7);
    assert_int_equal(json_int(tree, "a", 5), 5);
    assert_int_equal(json_int(tree, "A", 5), 3);
    assert_true(json_bool(tree, "t", false));
    assert_true(json_bool(tree, "z", true));
    assert_false(json_bool(tree, "z", false));
    assert_null(json_get(tree, "b"));
    assert_null(json_get(json_get(tree, "t"), "b"));
    cJSON_Delete(tree);
    assert_null(json_parse_reply("<html>", 6));
    assert_null(json_parse_reply("{} x", 4));
    assert_null(json_parse_reply("", 0));
}

static cJSON *tree_of(const char *text)
{
    char error[JSON_ERROR_SIZE];
    cJSON *tree = json_parse(text, strlen(text), &json_limits_job, error);
    assert_non_null(tree);
    return tree;
}

static void test_reader(void **state)
{
    (void)state;
    static const char *const colours[] = {"red", "green"};
    cJSON *tree =
        tree_of("{\"s\":\"text\",\"i\":7,\"b\":true,\"c\":\"green\",\"o\":{\"x\":1},\"l\":[1,2],"
                "\"t\":\"1970-01-01T00:00:01Z\",\"z\":null}");
    struct json_error error = {""};
    struct json_reader r = {tree, "", &error};
    const char *s = NULL;
    int64_t i = 0;
    bool b = false;
    int c = -1;
    uint64_t ms = 0;
    const cJSON *o = NULL, *l = NULL;
    assert_true(json_read_str(&r, "s", 4, &s));
    assert_string_equal(s, "text");
    assert_true(json_read_int(&r, "i", 7, 7, &i));
    assert_int_equal(i, 7);
    assert_true(json_read_bool(&r, "b", &b));
    assert_true(b);
    assert_true(json_read_enum(&r, "c", colours, 2, &c));
    assert_int_equal(c, 1);
    assert_true(json_read_time(&r, "t", &ms));
    assert_int_equal(ms, 1000);
    assert_true(json_read_object(&r, "o", &o));
    assert_int_equal(json_int(o, "x", 0), 1);
    assert_true(json_read_array(&r, "l", 2, &l));
    assert_int_equal(cJSON_GetArraySize(l), 2);
    assert_false(json_read_str(&r, "z", 4, &s)); /* null is absent */
    assert_false(json_read_str(&r, "none", 4, &s));
    assert_false(json_read_int(&r, "none", 0, 1, &i));
    assert_false(json_read_bool(&r, "none", &b));
    assert_false(json_read_enum(&r, "none", colours, 2, &c));
    assert_false(json_read_time(&r, "none", &ms));
    assert_false(json_read_object(&r, "none", &o));
    assert_false(json_read_array(&r, "none", 2, &l));
    assert_int_equal(c, 1);
    assert_true(b);
    assert_int_equal(i, 7);
    assert_false(json_failed(&r));
    cJSON_Delete(tree);
}

static void test_reader_faults(void **state)
{
    (void)state;
    static const char *const colours[] = {"red", "green"};
    cJSON *tree = tree_of("{\"s\":\"text\",\"i\":7.5,\"l\":[1,2,3]}");
    const char *s;
    int64_t i;
    bool b;
    int c;
    uint64_t ms;
    const cJSON *t;
    struct json_error error = {""};
    struct json_reader r = {tree, "env", &error};
#define FAULT(call, expected)                                                                      \
    do {                                                                                           \
        error.text[0] = '\0';                                                                      \
        assert_false(call);                                                                        \
        assert_string_equal(error.text, expected);                                                 \
    } while (0)
    FAULT(json_read_str(&r, "i", 9, &s), "env.i must be a string");
    FAULT(json_read_str(&r, "s", 3, &s), "env.s must not be longer than 3 bytes");
    FAULT(json_read_int(&r, "s", 0, 9, &i), "env.s must be a whole number from 0 to 9");
    FAULT(json_read_int(&r, "i", 0, 9, &i), "env.i must be a whole number from 0 to 9");
    FAULT(json_read_bool(&r, "s", &b), "env.s must be true or false");
    FAULT(json_read_enum(&r, "s", colours, 2, &c), "env.s must be one of red, green");
    FAULT(json_read_enum(&r, "i", colours, 2, &c), "env.i must be one of red, green");
    FAULT(json_read_time(&r, "s", &ms),
          "env.s must be an RFC 3339 time such as 2026-11-24T08:10:38Z");
    FAULT(json_read_object(&r, "l", &t), "env.l must be an object");
    FAULT(json_read_array(&r, "s", 9, &t), "env.s must be an array");
    FAULT(json_read_array(&r, "l", 2, &t), "env.l must not have more than 2 elements");
    r.path = "";
    FAULT(json_read_array(&r, "l", 2, &t), "l must not have more than 2 elements");
    assert_false(json_read_str(&r, "s", 9, &s)); /* nothing is read after a fault */
    json_fail(&r, "x", "is another fault");
    assert_string_equal(error.text, "l must not have more than 2 elements"); /* the first stays */
    cJSON_Delete(tree);
}

static void check_quote(const char *text, size_t len, const char *quoted)
{
    struct buf b;
    buf_init(&b, 1000);
    json_quote(&b, text, len);
    assert_string_equal(buf_text(&b), quoted);
    buf_done(&b);
}

static void test_quote(void **state)
{
    (void)state;
    check_quote("", 0, "\"\"");
    check_quote("plain", 5, "\"plain\"");
    check_quote("a\"b\\c/\b\f\n\r\t", 11, "\"a\\\"b\\\\c/\\b\\f\\n\\r\\t\"");
    check_quote("\0\x01\x1b[31m\x7f", 8, "\"\\u0000\\u0001\\u001b[31m\\u007f\"");
    check_quote("\xc3\xa4\xf0\x9f\x98\x80", 6, "\"\xc3\xa4\xf0\x9f\x98\x80\"");
    check_quote("\xc2\x9b\xc2\xa0", 4, "\"\\u009b\xc2\xa0\""); /* C1 control, no-break space */
    check_quote("x\xff\xc3", 3, "\"x\xef\xbf\xbd\xef\xbf\xbd\"");
}

static void check_canonical(const char *text, const char *canonical)
{
    struct buf b;
    cJSON *tree = tree_of(text);
    buf_init(&b, 10000);
    json_canonical(&b, tree);
    assert_string_equal(buf_text(&b), canonical);
    buf_done(&b);
    cJSON_Delete(tree);
}

static void test_canonical(void **state)
{
    (void)state;
    check_canonical(
        " { \"b\" : [ 1 , 2.5 , { \"d\" : null, \"c\" : true } ] , \"a\" : \"\\u0041\\n\" } ",
        "{\"a\":\"A\\n\",\"b\":[1,2.5,{\"c\":true,\"d\":null}]}");
    check_canonical("[9007199254740992,-0,1e2,0.1,[],{}]", "[9007199254740992,0,100,0.1,[],{}]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts),          cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_embedded_nul),     cmocka_unit_test(test_limits),
        cmocka_unit_test(test_reply_is_lenient), cmocka_unit_test(test_reader),
        cmocka_unit_test(test_reader_faults),    cmocka_unit_test(test_quote),
        cmocka_unit_test(test_canonical),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
