/* A core as an exploration sees it: its state in one number. */
#ifndef SIM_WORLD_CORE_H
#define SIM_WORLD_CORE_H

#include "tests/sim/digest.h"
#include "worker/core/core.h"

/* All that its next steps depend on, at now_ns. wall_ms is the time of the provider's clock. */
void world_core_digest(const struct core *, uint64_t now_ns, uint64_t wall_ms, struct digest *);

/* The same of one that next hears that all its partitions are lost: what it remembers then. */
void world_core_digest_lost(const struct core *, uint64_t now_ns, struct digest *);

/* Before a step: chance begins from the same place each time. */
void world_core_steady(struct core *);

#endif
