/* The simulated shell from inside: the process, its parser, its programs.
 *
 * model_shell.c runs lists of commands, model_words.c reads words and redirections,
 * model_programs.c and model_tools.c are the programs. Nothing outside these files sees more than
 * shell_run. */
#ifndef SIM_MODEL_SHELL_H
#define SIM_MODEL_SHELL_H

#include "tests/sim/model_impl.h"

struct sink {
    struct stream *stream; /* NULL: /dev/null */
    int tag;
};
struct input {
    bool open;           /* never ends */
    struct stream *text; /* NULL: empty */
};
struct shell { /* one shell process at work */
    struct model *m;
    struct box *box;
    struct daemon *d;
    struct shell_session *session; /* NULL: process/execute */
    struct proc *proc;             /* what a kill of the whole ends; borrowed */
    struct vars vars;              /* owned */
    char *cwd;                     /* owned */
    uint64_t t;                    /* its time; NEVER: runs on */
    uint64_t held_until;           /* something in the background holds the output that long */
    struct sink out, err;
    bool stdin_open;
    const struct stream *own; /* the command's own output */
    bool holds_output;        /* something it ran writes there */
    int status, last_status;
    const char *script_name; /* as it stands in front of its complaints; borrowed */
    bool exited;             /* nothing after it runs */
    bool replaced;           /* by exec: it is the program now */
    bool errexit;
    int signal; /* killed by it; 0: not */
    int depth;
};
void shell_init(struct shell *, struct model *, struct box *);
void shell_done(struct shell *);
void shell_fork(struct shell *child, const struct shell *);
void shell_join(struct shell *, struct shell *child); /* ends the child */
void shell_run(struct shell *, const char *text, size_t len);
const char *vars_get(const struct vars *, const char *name);
void vars_set(struct vars *, const char *name, const char *value);
void vars_done(struct vars *);
void vars_copy(struct vars *to, const struct vars *from);

/* ---- programs: each sets status and lets the shell's time pass ---- */
struct args {
    char **v;
    size_t n;
};
void program_run(struct shell *, const struct args *, const struct input *);
void sink_write(struct shell *, struct sink, const char *text, size_t len);
void sink_printf(struct shell *, struct sink, const char *fmt, ...) PRINTF_LIKE(3, 4);

const char *arg(const struct args *, size_t i);        /* NULL: there is none */
struct args tail_of(const struct args *, size_t from); /* borrowed */

struct program {
    const char *name;
    void (*run)(struct shell *, const struct args *, const struct input *);
};
extern const struct program tools[]; /* ends with a NULL name */
void server_run(struct shell *, const struct args *);

/* ---- the parser ---- */
enum { SHELL_DEPTH_MAX = 12, HEREDOCS_MAX = 4 };

struct parse {
    const char *p, *end;
    struct shell *sh;
    bool dry;
    bool bad;
    int depth;
    struct { /* here-documents announced on this line */
        char *until;
        bool raw;
        struct stream *into;
    } here[HEREDOCS_MAX];
    size_t n_here;
    const char *after_heredoc; /* where the text behind them goes on; NULL: none were read */
};

struct io { /* of one command */
    struct sink out, err;
    struct input in;
};

/* model_shell.c */
void run_list(struct parse *, const struct io *);

/* model_words.c */
bool parse_more(const struct parse *);
bool parse_at(const struct parse *, const char *token);
bool parse_at_keyword(const struct parse *, const char *word);
bool parse_at_list_end(const struct parse *);
void parse_skip_blank(struct parse *);
bool ends_word(char c);
char *parse_word(struct parse *, bool *quoted);   /* caller owns it; *quoted: an empty one counts */
bool parse_redirect(struct parse *, struct io *); /* true: there was one */
void parse_heredocs(struct parse *); /* the texts behind this line, before its command runs */

#endif
