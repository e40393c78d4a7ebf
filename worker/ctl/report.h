/* What check prints: one line per thing looked at, as text or JSON. */
#ifndef WORKER_CTL_REPORT_H
#define WORKER_CTL_REPORT_H

#include "worker/ctl/ctl.h"

enum report_mark { REPORT_OK, REPORT_NOTE, REPORT_FAIL };

struct report {
    struct view view;
    bool failed;
};

/* what: "topic session-jobs"; the rest is the finding, which may hold foreign text. */
void report_line(struct report *, enum report_mark, const char *what, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

/* The provider itself, over the network: is that its API, and does it take our key? */
void report_provider(struct report *, const struct config *, const struct provider_config *);

#endif
