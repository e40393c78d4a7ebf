/* instance: see the header.
 *
 * A slot is an abstract socket name, not a lock file: the kernel gives it back at the very end of
 * the process however that ends, it needs no folder that may be written, and it is one per network
 * namespace, hence per host name, also where each service has a /tmp of its own. */
#include "worker/io/instance.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "common/secret.h"
#include "common/xalloc.h"

#define SLOTS_MAX 1000

/* The host name as it may stand in a client id. */
static void host_name(char out[256])
{
    if (gethostname(out, 256) < 0 || !*out)
        strncpy(out, "localhost", 256);
    out[255] = '\0';
    for (char *p = out; *p; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                     (*p >= '0' && *p <= '9') || *p == '-' || *p == '.' || *p == '_';
        if (!plain)
            *p = '_';
    }
}

/* A socket that holds the slot for as long as it is open; -errno, -EADDRINUSE when another does. */
static int slot_take(const char *group, int slot)
{
    char digest[33];
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    sha256_hex(group, strlen(group), digest, 32);
    int n =
        snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "session-worker-%s-%d", digest, slot);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    if (bind(fd, (struct sockaddr *)&name, len) == 0)
        return fd;
    int err = -errno;
    close(fd);
    return err;
}

static int slot_first_free(const char *group, int *slot)
{
    for (*slot = 0; *slot < SLOTS_MAX; ++*slot) {
        int fd = slot_take(group, *slot);
        if (fd != -EADDRINUSE)
            return fd;
    }
    return -EADDRINUSE;
}

int instance_take(const struct config *cfg, struct instance *out)
{
    char host[256];
    int number;
    *out = (struct instance){.slot = -1};
    if (*cfg->kafka.instance) {
        out->name = xstrdup(cfg->kafka.instance);
        return 0;
    }
    int fd = slot_first_free(cfg->kafka.group, &number);
    if (fd < 0) {
        log_error(NULL, "no slot for this worker: set kafka.instance", L_STR("why", strerror(-fd)));
        return fd;
    }
    host_name(host);
    *out = (struct instance){.name = xasprintf("%s-%d", host, number), .slot = fd};
    return 0;
}

void instance_done(struct instance *i)
{
    if (i->name && i->slot >= 0)
        close(i->slot);
    free(i->name);
    *i = (struct instance){.slot = -1};
}
