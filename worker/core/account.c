/* account: our standing with each provider: its budget, who waits for a create token, and whether
 * it takes our key.
 *
 * A start that is about to create waits parked, first come first served; while its partition has a
 * parked job nothing more is taken from it. A refused key holds everything back, since repeated
 * failures would block the whole address: one look a minute tells when it is good again. */
#include "worker/core/internal.h"

#include "common/xalloc.h"

void accounts_init(struct core *c, struct provider *const *providers)
{
    c->n_accounts = c->config->n_providers;
    c->accounts = xcalloc(c->n_accounts, sizeof *c->accounts);
    for (size_t i = 0; i < c->n_accounts; i++) {
        struct account *a = &c->accounts[i];
        a->provider = providers[i];
        budget_init(&a->budget, providers[i]->cfg, 0);
        heap_node_init(&a->node, NODE_ACCOUNT);
    }
}

struct account *account_named(struct core *c, const char *name)
{
    if (!name)
        return &c->accounts[0];
    for (size_t i = 0; i < c->n_accounts; i++)
        if (strcmp(c->accounts[i].provider->cfg->name, name) == 0)
            return &c->accounts[i];
    return NULL;
}

bool accounts_unauthorized(const struct core *c)
{
    for (size_t i = 0; i < c->n_accounts; i++)
        if (c->accounts[i].unauthorized)
            return true;
    return false;
}

static void arm(struct core *c, struct account *a)
{
    const struct provider_ops *ops = a->provider->ops;
    uint64_t at = a->unauthorized && !a->key.id ? a->key_ns : NEVER;
    for (uint8_t i = 0; a->parked && !a->unauthorized && i < ops->n_scopes; i++)
        if (ops->scopes[i].creates)
            at = MIN(at, budget_when(&a->budget, &ops->scopes[i], i, c->now_ns));
    heap_set(&c->heap, &a->node, at);
}

void accounts_share(struct core *c)
{
    size_t owned = 0;
    for (const struct part *p = c->parts; p; p = p->hh.next)
        owned += !p->closing;
    size_t total = MAX(owned, (size_t)MAX(c->partitions_total, 0));
    for (size_t i = 0; i < c->n_accounts; i++) {
        budget_share(&c->accounts[i].budget, owned, total, c->now_ns);
        arm(c, &c->accounts[i]);
    }
}

static void park(struct session *s, struct slot *slot)
{
    slot->wake_ns = NEVER;
    if (s->parked)
        return;
    s->parked = true;
    s->part->parked++;
    DL_APPEND2(s->account->parked, s, park_prev, park_next);
    arm(s->core, s->account);
}

void account_unpark(struct session *s)
{
    if (!s->parked)
        return;
    s->parked = false;
    s->part->parked--;
    DL_DELETE2(s->account->parked, s, park_prev, park_next);
    arm(s->core, s->account);
}

static const struct scope *scope_of(const struct account *a, uint8_t i)
{
    const struct provider_ops *ops = a->provider->ops;
    return i < ops->n_scopes ? &ops->scopes[i] : NULL;
}

uint64_t account_when(struct account *a, uint8_t i, uint64_t now_ns)
{
    const struct scope *scope = scope_of(a, i);
    return a->unauthorized && scope ? NEVER : budget_when(&a->budget, scope, i, now_ns);
}

/* While the key is refused, the limit of a step that needs it does not run: the deadline ends the
 * job. Where there is none any more, the limit is the only end. */
static void pause_limit(struct session *s)
{
    bool refused = s->account->unauthorized;
    if (refused && s->deadline_ns != NEVER)
        s->limit_ns = NEVER;
    else if (!refused && s->limit_ns == NEVER)
        engine_limit(s);
}

bool account_may_send(struct session *s, struct slot *slot)
{
    struct account *a = s->account;
    const struct scope *scope = scope_of(a, slot->held.scope);
    if (scope)
        pause_limit(s);
    bool creates = scope && scope->creates;
    bool not_first = creates && a->parked && a->parked != s;
    uint64_t when = account_when(a, slot->held.scope, s->core->now_ns);
    if (when <= s->core->now_ns && !not_first) {
        account_unpark(s);
        budget_take(&a->budget, scope, s->core->now_ns);
        return true;
    }
    if (creates)
        park(s, slot);
    else
        slot->wake_ns = when;
    return false;
}

/* Everything that was held back is looked at again. */
static void release_all(struct core *c, struct account *a)
{
    for (struct lane *l = c->lanes, *next; l; l = next) {
        next = l->hh.next;
        struct session *s = l->active;
        if (s && s->account == a && s->state == S_RUNNING && !s->parked)
            engine_unpark(s);
    }
    account_tick(c, a);
}

static void refused_key(struct core *c, struct account *a)
{
    if (!a->unauthorized)
        log_error(NULL, "the provider refuses our key: nothing is taken until it is good again",
                  L_STR("provider", a->provider->cfg->name),
                  L_STR("advice", "start the worker with a valid key (api_key_file, for daytona "
                                  "also DAYTONA_API_KEY); this one is tried once a minute"));
    a->unauthorized = true;
    a->key_ns = c->now_ns + KEY_EVERY_NS;
    arm(c, a);
}

static void note_metrics(const struct account *a, uint8_t scope, const struct rate *r)
{
    if (scope < a->provider->ops->n_scopes && r->remaining >= 0)
        metric_set1(M_PROVIDER_REMAINING, scope, r->remaining);
}

void account_noted(struct core *c, struct account *a, uint8_t scope, const struct answer *answer)
{
    const struct provider_ops *ops = a->provider->ops;
    if (answer->rate.unauthorized) {
        refused_key(c, a);
        return;
    }
    if (scope >= ops->n_scopes)
        return;
    note_metrics(a, scope, &answer->rate);
    budget_note(&a->budget, &ops->scopes[scope], scope, &answer->rate, c->now_ns);
    if (ops->scopes[scope].creates)
        arm(c, a);
}

static void try_key(struct core *c, struct account *a)
{
    struct call call;
    a->provider->ops->ask_key(a->provider, &call);
    a->key.kind = FLIGHT_KEY;
    a->key.owner = a;
    a->key.step = STEP_FIND;
    core_send(c, &a->key, &call);
}

void account_key_reply(struct core *c, struct account *a, const struct reply *r)
{
    struct answer answer = {0};
    a->provider->ops->answer_key(a->provider, r, &answer);
    bool good = answer.verdict == OK && !answer.rate.unauthorized;
    answer_done(&answer);
    a->key_ns = c->now_ns + KEY_EVERY_NS;
    a->unauthorized = !good;
    arm(c, a);
    if (!good)
        return;
    log_info(NULL, "the provider takes our key again", L_STR("provider", a->provider->cfg->name));
    release_all(c, a);
}

void account_tick(struct core *c, struct account *a)
{
    if (a->unauthorized && !a->key.id && c->now_ns >= a->key_ns)
        try_key(c, a);
    while (a->parked &&
           !a->unauthorized) { /* the first one leaves the queue when it may send, or ends */
        struct session *first = a->parked;
        engine_unpark(first);
        if (a->parked == first)
            break;
    }
    arm(c, a);
}
