/* The client side of Kafka: one handle and what it knows of topics. Blocking calls with time-outs.
 *
 * Functions that can fail return an exit code and leave in `why` one sentence that says what to do;
 * nothing is printed here. */
#ifndef WORKER_CTL_CLIENT_H
#define WORKER_CTL_CLIENT_H

#include <librdkafka/rdkafka.h>

#include "common/config.h"
#include "worker/ctl/ctl.h"

#define WHY_SIZE 600
#define KAFKA_TIMEOUT_MS 10000

struct client {
    rd_kafka_t *rk;            /* owned */
    const struct config *cfg;  /* borrowed */
    rd_kafka_resp_err_t error; /* the last that the handle reported; 0: none */
    char error_text[200];
};

struct client_property {
    const char *name, *value;
};

/* Opens a handle with the configuration's brokers, password and properties; n of `ours` are set
 * after them, so that no property can undo them. deliver: see rd_kafka_conf_set_dr_msg_cb, its
 * opaque being the struct client; NULL: none. */
struct client_role {
    rd_kafka_type_t type;
    const struct client_property *ours;
    size_t n;
    void (*deliver)(rd_kafka_t *, const rd_kafka_message_t *, void *client);
};
enum ctl_exit client_open(struct client *, const struct config *, const struct client_role *,
                          char why[WHY_SIZE]);
extern const struct client_role client_role_admin; /* to look around and to make topics */
void client_close(struct client *);                /* also when it was never opened */

/* How many brokers the cluster has: it answers. */
enum ctl_exit client_brokers(struct client *, int *brokers, char why[WHY_SIZE]);

/* Partitions of the topic; 0: there is no such topic. Never makes it. */
enum ctl_exit client_partitions(struct client *, const char *topic, int *partitions,
                                char why[WHY_SIZE]);

/* The same where the topic must be there. */
enum ctl_exit client_topic(struct client *, const char *topic, int *partitions, char why[WHY_SIZE]);

/* Sets the offset of every element to the end of its partition (of what is committed, when the
 * handle reads that), in one request per broker. */
rd_kafka_resp_err_t client_ends(struct client *, rd_kafka_topic_partition_list_t *);

/* Makes a topic. One that is there by now is fine. -1: the broker's own default. */
struct topic_plan {
    const char *name;
    int partitions, replication;
};
enum ctl_exit client_create(struct client *, const struct topic_plan *, char why[WHY_SIZE]);

/* The exit code and the sentence for err, which came up while `what` ("reading session-results")
 * was done. */
enum ctl_exit client_explain(struct client *, rd_kafka_resp_err_t err, const char *what,
                             char why[WHY_SIZE]);

#endif
