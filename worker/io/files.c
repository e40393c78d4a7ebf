/* files: see the header.
 *
 * What is not ours to count comes off first: Kafka's connections and wake-up pipes (three clients,
 * each with a few per broker), the admin port's connections, the loop, the log. The rest is shared
 * out by calls. A call may hold two at once (the pipe of its look-up beside the C library's socket,
 * or a connection by IPv6 and one by IPv4), and a third is for a connection kept for a later call.
 */
#include "worker/io/files.h"

#include <sys/resource.h>

#define ELSEWHERE 64
#define PER_CALL 3

uint64_t files_limit(void)
{
    struct rlimit files;
    ASSERT(getrlimit(RLIMIT_NOFILE, &files) == 0);
    return files.rlim_cur == RLIM_INFINITY ? UINT64_MAX : files.rlim_cur;
}

unsigned files_for_calls(uint64_t limit, unsigned wanted)
{
    if (limit < FILES_LEAST)
        return 0;
    return (unsigned)MIN((limit - ELSEWHERE) / PER_CALL, wanted);
}

uint64_t files_needed(unsigned calls)
{
    return ELSEWHERE + (uint64_t)calls * PER_CALL;
}
