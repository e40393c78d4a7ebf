/* uthash and utlist as the simulator uses them: memory by xalloc, and a hash function without the
 * fall-throughs that compilers warn of. */
#ifndef SIM_MAPS_H
#define SIM_MAPS_H

#include <stdlib.h>

#include "common/xalloc.h"

#define uthash_malloc(size) xmalloc(size)
#define uthash_free(p, size) free(p)
#define HASH_FUNCTION HASH_FNV

#include <uthash.h>
#include <utlist.h>

#endif
