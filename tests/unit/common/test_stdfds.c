/* Closed descriptors 0 to 2 are taken before anything else can get their numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/stdfds.h"

/* In a child with the descriptors of `closed` (bits) closed: what is wrong there; 0: nothing. */
static int look(unsigned closed)
{
    int ends[2];
    char byte;
    for (int fd = 0; fd <= 2; fd++)
        if (closed & (1u << fd))
            close(fd);
    stdfds_open();
    if (pipe(ends) != 0 || ends[0] < 3 || ends[1] < 3)
        return 1;
    if ((closed & 1) && (read(0, &byte, 1) != -1 || errno != EBADF))
        return 2;
    for (int fd = 1; fd <= 2; fd++)
        if ((closed & (1u << fd)) && (write(fd, "x", 1) != -1 || errno != EBADF))
            return 3;
    return 0;
}

static void missing_ones_are_taken(void **state)
{
    (void)state;
    for (unsigned closed = 0; closed < 8; closed++) {
        int status = 0;
        pid_t pid = fork();
        if (pid == 0)
            _exit(look(closed));
        assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(missing_ones_are_taken)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
