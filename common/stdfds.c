/* stdfds: see the header. open(2) takes the lowest free number, so in rising order each one gets
 * its own. */
#include "common/stdfds.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void stdfds_open(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) != -1 || errno != EBADF)
            continue;
        if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            _exit(1); /* there is nobody to tell */
    }
}
