/* secret: known digests, base64 both ways, and what the redactor hides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/secret.h"
#include "common/xalloc.h"

static void test_sha256(void **state)
{
    (void)state;
    char out[65];
    sha256_hex("abc", 3, out, 64);
    assert_string_equal(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_hex("abc", 3, out, 7);
    assert_string_equal(out, "ba7816b");
    sha256_hex("", 0, out, 16);
    assert_string_equal(out, "e3b0c44298fc1c14");
}

/* RFC 4231, cases 1 and 2, in base64url. */
static void test_hmac(void **state)
{
    (void)state;
    char key[20], out[HMAC_TEXT_SIZE];
    memset(key, 0x0b, sizeof key);
    hmac_sha256_text(key, sizeof key, "Hi There", 8, out);
    assert_string_equal(out, "sDRMYdjbOFNcqK_OrwvxK4gdwgDJgz2nJuk3bC4yz_c");
    hmac_sha256_text("Jefe", 4, "what do ya want for nothing?", 28, out);
    assert_string_equal(out, "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM");
    assert_int_equal(strlen(out), HMAC_TEXT_SIZE - 1);
}

static void test_base64(void **state)
{
    (void)state;
    static const struct {
        const char *plain, *text;
    } cases[] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
        {"\xfb\xff\xfe", "+//+"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf b;
        buf_init(&b, 100);
        base64_encode(cases[i].plain, strlen(cases[i].plain), &b);
        assert_string_equal(buf_text(&b), cases[i].text);
        buf_clear(&b);
        assert_true(base64_decode(cases[i].text, strlen(cases[i].text), &b));
        assert_string_equal(buf_text(&b), cases[i].plain);
        buf_done(&b);
    }
}

static void test_not_base64(void **state)
{
    (void)state;
    static const char *const bad[] = {"Z",      "Zg",   "Zg=",  "Zm9v=",    "Zh==", "Zm9=",
                                      "Zm9v\n", "Z g=", "=Zg=", "Zg==Zg==", "Zm-_", "Z==="};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct buf b;
        buf_init(&b, 100);
        assert_false(base64_decode(bad[i], strlen(bad[i]), &b));
        buf_done(&b);
    }
}

static void test_base64_of_all_bytes(void **state)
{
    (void)state;
    unsigned char bytes[256];
    struct buf text, back;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)i;
    buf_init(&text, 1000);
    buf_init(&back, 1000);
    base64_encode(bytes, sizeof bytes, &text);
    assert_true(base64_decode(text.data, text.len, &back));
    assert_int_equal(back.len, sizeof bytes);
    assert_memory_equal(back.data, bytes, sizeof bytes);
    buf_done(&text);
    buf_done(&back);
}

static void test_random(void **state)
{
    (void)state;
    unsigned char a[32] = {0}, b[32] = {0};
    random_bytes(a, sizeof a);
    random_bytes(b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
    random_bytes(a, 0);
}

static void check_redact(const char *text, const char *shown)
{
    struct buf b;
    buf_init(&b, 100000);
    redact(text, strlen(text), &b);
    assert_string_equal(buf_text(&b), shown);
    buf_done(&b);
}

static void test_redact(void **state)
{
    (void)state;
    check_redact("key hunter2-hunter2", "key hunter2-hunter2");
    redact_add("hunter2-hunter2");
    redact_add("hunter2");
    redact_add("short");
    redact_add(NULL);
    redact_add("sixsix");
    check_redact("sixsix", "***");
    check_redact("sixsi sixsix", "sixsi ***");
    redact_remove("sixsix");
    check_redact("", "");
    check_redact("hunter2", "***");
    check_redact("key hunter2-hunter2 and hunter2, short", "key *** and ***, short");
    check_redact("hunter2hunter2hunter", "******hunter"); /* the last one is cut */
    redact_remove("hunter2");
    check_redact("hunter2 hunter2-hunter2", "hunter2 ***");
    redact_remove("hunter2-hunter2");
    redact_remove("short");
    redact_remove(NULL);
    check_redact("hunter2 hunter2-hunter2", "hunter2 hunter2-hunter2");
}

static void check_redact_end(const char *text, size_t last, const char *shown)
{
    struct buf b;
    buf_init(&b, 1000);
    redact_end(text, strlen(text), last, &b);
    assert_string_equal(buf_text(&b), shown);
    buf_done(&b);
}

static void test_redact_end(void **state)
{
    (void)state;
    check_redact_end("abc", 2, "bc");
    redact_add("hunter2");
    check_redact_end("ter2 hunter2 x", 99, "ter2 *** x");
    check_redact_end("ter2 hunter2 x", 14, "ter2 *** x");
    check_redact_end("ter2 hunter2 x", 9, "*** x");
    check_redact_end("ter2 hunter2 x", 8, "*** x"); /* it begins before */
    check_redact_end("ter2 hunter2 x", 3, "*** x"); /* its last byte is left */
    check_redact_end("ter2 hunter2 x", 2, " x");
    check_redact_end("ter2 hunter2 x", 0, "");
    check_redact_end("hunter2hunter2", 9, "******");
    redact_remove("hunter2");
}

static void test_redact_counts(void **state)
{
    (void)state;
    redact_add("secret-value");
    redact_add("secret-value");
    redact_remove("secret-value");
    check_redact("a secret-value", "a ***");
    redact_remove("secret-value");
    check_redact("a secret-value", "a secret-value");
}

static void test_redact_many(void **state)
{
    (void)state;
    char value[32];
    for (int i = 0; i < 20000; i++) {
        snprintf(value, sizeof value, "token-%d!", i);
        redact_add(value);
    }
    check_redact("token-0! token-19999! token-20000!", "*** *** token-20000!");
    for (int i = 0; i < 20000; i++) {
        snprintf(value, sizeof value, "token-%d!", i);
        redact_remove(value);
    }
    check_redact("token-0!", "token-0!");
}

static void test_wipe(void **state)
{
    (void)state;
    secret_wipe(NULL);
    secret_wipe(xstrdup("x"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256),
        cmocka_unit_test(test_hmac),
        cmocka_unit_test(test_base64),
        cmocka_unit_test(test_not_base64),
        cmocka_unit_test(test_base64_of_all_bytes),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_redact),
        cmocka_unit_test(test_redact_end),
        cmocka_unit_test(test_redact_counts),
        cmocka_unit_test(test_redact_many),
        cmocka_unit_test(test_wipe),
    };
    return cmocka_run_group_tests_name("secret", tests, NULL, NULL);
}
