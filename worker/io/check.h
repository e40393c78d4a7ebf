/* --check --live: are the broker, its topics and the provider there, and do they let us in? */
#ifndef WORKER_IO_CHECK_H
#define WORKER_IO_CHECK_H

#include "common/config.h"

/* A line on stdout, of the shape and in the words of sessionctl check, whatever bytes detail
 * holds; ok as it came. */
bool check_line(bool ok, const char *what, const char *detail);

/* Prints one line per thing looked at. True when all is well. At most about 20 s. */
MUST_USE bool check_live(const struct config *);

#endif
