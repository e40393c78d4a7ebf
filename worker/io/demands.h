/* What librdkafka and the providers demand of a configuration, beyond what common/config knows. */
#ifndef WORKER_IO_DEMANDS_H
#define WORKER_IO_DEMANDS_H

#include "common/buf.h"
#include "common/config.h"

/* For config_source.check: one line per mistake appended to errors; true when there is none. Opens
 * no connection. */
MUST_USE bool demands_met(const struct config *, struct buf *errors);

#endif
