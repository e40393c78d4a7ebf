/* The name of this worker among those of its group: client id, and the end of its transactional id.
 * No two that live may have the same one; a worker that is started again should get its old one. */
#ifndef WORKER_IO_INSTANCE_H
#define WORKER_IO_INSTANCE_H

#include "common/config.h"

struct instance {
    char *name; /* owned: kafka.instance, or "<host name>-<slot>" */
    int slot;   /* a socket that holds the slot; -1: none */
};

/* kafka.instance "": the host name and the first slot that no process of this group on this host
 * holds. It is held until instance_done or the end of the process, however that comes.
 * 0, or -errno (said in the log): then kafka.instance must be set. */
MUST_USE int instance_take(const struct config *, struct instance *out);
void instance_done(struct instance *); /* may be called twice, and on a zeroed one */

#endif
