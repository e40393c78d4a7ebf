/* The state of the model in one number, for a host that wants to know whether it has been here
 * before.
 *
 * All that may still make a difference goes in. Left out: what is only counted (statistics, the
 * ledger's numbers, the windows of limits that such a host sets out of reach), faults and texts
 * that only the control paths or the cloud profile make, and what is over. Who died counts by id
 * and cause. When a sandbox was used last counts by the minute, since the crons act minutes later.
 */
#include "tests/sim/digest.h"
#include "tests/sim/model_impl.h"

/* Two ways to the same place draw differently often. Chance begins anew with every request, from
 * what has been made so far: what is the same also has the same ids. */
void model_steady(struct model *m)
{
    uint64_t made = m->n_boxes;
    for (size_t i = 0; i < m->n_boxes; i++)
        if (m->boxes[i]->daemon)
            for (struct shell_session *s = m->boxes[i]->daemon->sessions; s; s = s->next)
                made += 1000 * (s->n + 1);
    m->rng[0] = made * UINT64_C(0x9e3779b97f4a7c15) + 1;
    m->rng[1] = UINT64_C(0xd6e8feb86659fd93) ^ made;
    (void)model_random(m);
}

static void add_proc(struct digest *d, const struct proc *p, uint64_t now)
{
    digest_until(d, p->ended, now);
    digest_add(d, (uint64_t)p->exit_code | (uint64_t)p->is_server << 32 | (uint64_t)p->kind << 33);
    digest_add(d, (uint64_t)p->port << 8 | (uint64_t)p->fate);
    digest_until(d, p->listens_from, now);
    digest_text(d, p->key);
}

static void add_stream(struct digest *d, const struct stream *s, uint64_t now)
{
    digest_add(d, s->n);
    for (size_t i = 0; i < s->n; i++) {
        digest_until(d, s->chunks[i].at, now);
        digest_bytes(d, s->chunks[i].text, s->chunks[i].len);
    }
}

static void add_session(struct digest *d, const struct shell_session *s, uint64_t now)
{
    digest_text(d, s->id);
    digest_until(d, s->dead_at, now);
    digest_add(d, s->n);
    for (size_t i = 0; i < s->n; i++) {
        const struct command *c = s->commands[i];
        digest_text(d, c->id);
        if (c->began == NEVER) { /* it begins when somebody looks, with the time of its turn */
            digest_add(d, now - c->queued_at);
            digest_add(d,
                       i && s->commands[i - 1]->ended < now ? now - s->commands[i - 1]->ended : 0);
        }
        digest_until(d, c->ended, now);
        digest_add(d, (uint64_t)c->exit_code << 1 | c->fatal);
        add_stream(d, &c->out, now);
    }
}

static void add_daemon(struct digest *d, const struct daemon *n, uint64_t now)
{
    digest_add(d, n != NULL);
    if (!n)
        return;
    for (const struct shell_session *s = n->sessions; s; s = s->next)
        add_session(d, s, now);
    digest_add(d, n->n_procs);
    for (size_t i = 0; i < n->n_procs; i++)
        add_proc(d, n->procs[i], now);
    for (const struct file *f = n->files; f; f = f->hh.next) {
        digest_text(d, f->path);
        digest_until(d, f->made_at, now);
        add_stream(d, &f->stream, now);
    }
}

static uint64_t minutes_ago(const struct model *m, uint64_t ms, uint64_t now)
{
    uint64_t wall = m->opt.wall_ms + now / NS_PER_MS;
    return wall > ms ? (wall - ms) / 60000 : 0;
}

static void add_tokens(struct digest *d, const struct box *b, uint64_t now)
{
    digest_text(d, b->token);
    digest_until(d, b->old_token_until, now);
    for (size_t i = 0; i < N_TOKENS; i++) {
        if (b->tokens[i].until <= now)
            continue;
        digest_text(d, b->tokens[i].token);
        digest_add(d, b->tokens[i].valid);
        digest_until(d, b->tokens[i].until, now);
    }
}

static void add_box(struct digest *d, const struct model *m, const struct box *b, uint64_t now)
{
    digest_text(d, b->id);
    digest_add(d, (uint64_t)b->state << 8 | (uint64_t)b->desired);
    digest_add(d, (uint64_t)b->ended_by << 1 | box_live(b));
    if (b->state == S_DESTROYED)
        return;
    digest_add(d, (uint64_t)b->pending | (uint64_t)b->recoverable << 1 |
                      (uint64_t)b->recovered << 2 | (uint64_t)b->doomed << 3 |
                      (uint64_t)b->has_runner << 4);
    digest_text(d, b->labels);
    digest_text(d, b->snapshot);
    digest_add(d, (uint64_t)b->auto_stop);
    digest_add(d, (uint64_t)b->auto_archive);
    digest_add(d, (uint64_t)b->auto_delete);
    digest_add(d, minutes_ago(m, b->activity_shown_ms, now));
    digest_until(d, b->life.at, now);
    digest_until(d, b->raced_until, now);
    digest_until(d, b->kept_until, now);
    digest_add(d, b->started_at == NEVER);
    digest_add(d, (uint64_t)b->asked_port);
    digest_add(d, b->servers_started);
    add_tokens(d, b, now);
    add_daemon(d, b->daemon, now);
    for (const struct hold *h = b->holds; h; h = h->next) {
        digest_until(d, h->timer.at, now);
        digest_add(d, h->creates);
    }
}

void model_digest(const struct model *m, uint64_t now_ns, struct digest *d)
{
    uint64_t now = now_ns + m->skew;
    for (size_t i = 0; i < m->n_boxes; i++)
        add_box(d, m, m->boxes[i], now);
    for (const struct name *n = m->names; n; n = n->hh.next) {
        if (n->known_until <= now && n->missing_until <= now)
            continue;
        digest_text(d, n->text);
        digest_until(d, n->known_until, now);
        digest_until(d, n->missing_until, now);
    }
}
