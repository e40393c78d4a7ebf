/* What workers say of themselves: GET /sessions of their admin ports, all at a time. */
#ifndef WORKER_CTL_ASK_H
#define WORKER_CTL_ASK_H

#include <cjson/cJSON.h>

#include "common/config.h"
#include "worker/ctl/options.h"

#define ASK_ERROR_SIZE 200

struct worker_answer {
    const char *address; /* borrowed: as it was given */
    cJSON *page;         /* owned; NULL: error says why */
    char error[ASK_ERROR_SIZE];
};

/* One answer for each address ("host:port"), in their order, within timeout_ms. The caller's to
 * answers_free. */
struct worker_answer *ask_workers(const struct texts *addresses, unsigned timeout_ms);
void answers_free(struct worker_answer *, size_t n);

/* The address where a worker that listens there can be asked: of "0.0.0.0:9464" and ":9464" it is
 * "127.0.0.1:9464". Owned. */
char *dial_address(const char *listen);

#endif
