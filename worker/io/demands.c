/* demands: see the header. The layers below know neither librdkafka nor each other, so what they
 * are asked with one configuration is gathered here. */
#include "worker/io/demands.h"

#include "worker/io/kafka.h"
#include "worker/provider/provider.h"

static bool check_type(const struct provider_config *p, struct buf *errors)
{
    if (provider_known(p->type))
        return true;
    buf_addf(errors, "configuration: providers.%s.type must be one of ", p->name);
    provider_types(errors);
    buf_addf(errors, " (is %s)\n", p->type);
    return false;
}

bool demands_met(const struct config *cfg, struct buf *errors)
{
    bool fine = kafka_check(cfg, errors);
    for (size_t i = 0; i < cfg->n_providers; i++)
        fine = check_type(&cfg->providers[i], errors) && fine;
    return fine;
}
