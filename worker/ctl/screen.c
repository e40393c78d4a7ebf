/* screen: see the header.
 *
 * The signals that end it, stop it or change its size are blocked but for the time that we wait:
 * so none of them comes amid a drawing, and none is missed between looking and waiting. */
#include "worker/ctl/screen.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "worker/ctl/text.h"

#define ENTER "\033[?1049h\033[?25l\033[?7l" /* ?7: what is too wide is not wrapped */
#define LEAVE "\033[?7h\033[?25h\033[?1049l"
#define SCREEN_MAX 1000000
#define USUAL_ROWS 24
#define USUAL_COLUMNS 80

static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH};

static struct {
    struct termios before;
    struct sigaction actions[ARRAY_LEN(signals)];
    sigset_t mask; /* as it was */
    bool keys;     /* stdin is a terminal, too */
} was;
static int lost; /* errno of the first write that failed: there is no terminal any more; or 0 */
static volatile sig_atomic_t over, stopped;

static void on_signal(int number)
{
    if (number == SIGTSTP)
        stopped = 1;
    else if (number != SIGWINCH)
        over = 1;
}

static void put(const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDOUT_FILENO, bytes, len);
        if (n < 0 && errno != EAGAIN && !lost) /* EAGAIN: the next drawing will do */
            lost = errno;
        if (n <= 0)
            return;
        bytes += n;
        len -= (size_t)n;
    }
}

bool screen_possible(void)
{
    const char *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0;
}

/* ---- in and out ---- */

static void enter(void)
{
    was.keys = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &was.before) == 0;
    if (was.keys) {
        struct termios raw = was.before;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        raw.c_cc[VMIN] = 0;
        raw.c_cc[VTIME] = 0;
        tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    }
    put(ENTER, strlen(ENTER));
}

static void leave(void)
{
    put(LEAVE, strlen(LEAVE));
    if (was.keys)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &was.before);
}

void screen_begin(void)
{
    sigset_t ours;
    sigemptyset(&ours);
    for (size_t i = 0; i < ARRAY_LEN(signals); i++)
        sigaddset(&ours, signals[i]);
    sigprocmask(SIG_BLOCK, &ours, &was.mask);
    for (size_t i = 0; i < ARRAY_LEN(signals); i++)
        sigaction(signals[i], &(struct sigaction){.sa_handler = on_signal}, &was.actions[i]);
    enter();
}

int screen_end(void)
{
    int error = lost;
    leave();
    for (size_t i = 0; i < ARRAY_LEN(signals); i++)
        sigaction(signals[i], &was.actions[i], NULL);
    sigprocmask(SIG_SETMASK, &was.mask, NULL);
    return error;
}

/* ---- drawing ---- */

static struct winsize size(void)
{
    struct winsize s = {0};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &s) != 0 || s.ws_row == 0 || s.ws_col == 0)
        s = (struct winsize){.ws_row = USUAL_ROWS, .ws_col = USUAL_COLUMNS};
    return s;
}

size_t screen_height(void)
{
    return size().ws_row;
}

/* Bytes of the colour that begins at text; 0: none does. */
static size_t colour_len(const char *text, size_t len)
{
    if (len < 3 || text[0] != '\033')
        return 0;
    const char *end = memchr(text, 'm', len);
    return end ? (size_t)(end - text) + 1 : 0;
}

void add_cut(struct buf *out, const char *line, size_t len, size_t width)
{
    for (size_t i = 0; i < len;) {
        size_t colour = colour_len(line + i, len - i);
        size_t n = colour ? colour : MAX(utf8_char(line + i, len - i), (size_t)1);
        if (colour || width > 0)
            buf_add(out, line + i, n);
        width -= !colour && width > 0;
        i += n;
    }
}

void screen_draw(const struct buf *text)
{
    struct winsize s = size();
    struct buf out;
    const char *line = buf_text(text);
    buf_init(&out, SCREEN_MAX);
    buf_adds(&out, "\033[H");
    for (unsigned row = 0; row < s.ws_row && *line; row++) {
        size_t len = strcspn(line, "\n");
        buf_adds(&out, row ? "\r\n" : "");
        add_cut(&out, line, len, s.ws_col);
        buf_adds(&out, "\033[K");
        line += len + (line[len] == '\n');
    }
    buf_adds(&out, "\033[J");
    put(buf_text(&out), out.len);
    buf_done(&out);
}

/* ---- waiting ---- */

/* A stop that leaves the terminal to the shell, and takes it again when it is over. */
static void stop(void)
{
    stopped = 0;
    leave();
    raise(SIGSTOP);
    enter();
}

/* True when a key says that it is to end, or there is no terminal any more. */
static bool key_ends(void)
{
    char key = 0;
    ssize_t n = read(STDIN_FILENO, &key, 1);
    return n <= 0 || key == 'q' || key == 'Q';
}

bool screen_wait(unsigned ms)
{
    if (lost)
        return false;
    struct pollfd p = {.fd = was.keys ? STDIN_FILENO : -1, .events = POLLIN};
    struct timespec limit = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * (long)NS_PER_MS};
    int n = ppoll(&p, 1, &limit, &was.mask);
    if (stopped)
        stop();
    return !over && !(n > 0 && key_ends());
}
