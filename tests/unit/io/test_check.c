/* check: what broker and provider say cannot forge a line nor steer a terminal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/io/check.h"

/* What check_line() writes to stdout. */
static const char *printed(bool ok, const char *what, const char *detail)
{
    static char text[1000];
    FILE *f = tmpfile();
    assert_non_null(f);
    fflush(stdout);
    int kept = dup(STDOUT_FILENO);
    dup2(fileno(f), STDOUT_FILENO);
    bool said = check_line(ok, what, detail);
    fflush(stdout);
    dup2(kept, STDOUT_FILENO);
    close(kept);
    rewind(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    assert_int_equal(said, ok);
    return text;
}

static void test_lines(void **state)
{
    (void)state;
    assert_string_equal(printed(true, "provider daytona", "the key is accepted"),
                        "ok    provider daytona          the key is accepted\n");
    assert_string_equal(printed(false, "brokers", "sch\xc3\xb6n 100 %s"),
                        "FAIL  brokers                   sch\xc3\xb6n 100 %s\n");
}

static void test_foreign_words(void **state)
{
    (void)state;
    assert_string_equal(
        printed(false, "provider daytona", "bad \033[31mred\a\nok    provider\r\x7f\xc2\x9b\xff"),
        "FAIL  provider daytona          bad ?[31mred??ok    provider?????\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_foreign_words),
    };
    return cmocka_run_group_tests_name("check", tests, NULL, NULL);
}
