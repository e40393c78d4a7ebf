/* A shard: one libcurl multi handle on the loop. Carries transfers and gives them back when libcurl
 * is through with them. Internal to the http module. */
#ifndef WORKER_IO_SHARD_H
#define WORKER_IO_SHARD_H

#include "worker/io/loop.h"
#include "worker/io/transfer.h"

#define SHARD_TRANSFERS 64 /* libcurl's own bookkeeping stays cheap up to about this many */

struct shard;

/* Keeps up to max_idle connections that were used and may be again. done: libcurl is through with
 * it, and it is out of the shard; called from the loop or from shard_kick, never inside libcurl. */
struct shard *shard_new(struct loop *, long max_idle, void (*done)(struct transfer *, CURLcode));
void shard_free(struct shard *); /* NULL allowed; asserts that no transfer is left */

/* Hands it to libcurl; nothing moves before shard_kick. */
void shard_add(struct shard *, struct transfer *);
void shard_kick(struct shard *);

/* Takes it back unfinished; its connection is closed unless it was idle. Not inside libcurl. */
void shard_remove(struct transfer *);

size_t shard_load(const struct shard *); /* transfers now; NULL: 0 */

#endif
