/* uthash and utlist as all of the project uses them: memory by xalloc, and FNV for the hash:
 * uthash's own function falls through switch labels, which compilers warn of. Include this, never
 * uthash.h. */
#ifndef COMMON_MAPS_H
#define COMMON_MAPS_H

#include <stdlib.h>

#include "common/xalloc.h"

#define uthash_malloc(size) xmalloc(size)
#define uthash_free(p, size) free(p)
#define HASH_FUNCTION HASH_FNV

#include <uthash.h>
#include <utlist.h>

#endif
