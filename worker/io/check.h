/* --check --live: are the broker, its topics and the provider there, and do they let us in? */
#ifndef WORKER_IO_CHECK_H
#define WORKER_IO_CHECK_H

#include "common/config.h"

/* Prints one line per thing looked at on stdout. True when all is well. At most about 20 s. */
MUST_USE bool check_live(const struct config *);

#endif
