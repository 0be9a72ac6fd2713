/* warp: a reverse proxy, load balancer and process supervisor in one file.
 *
 * The file is a house. Each room opens with a sign: what it owns, what it
 * offers, whom it calls; `grep '==== ' warp.c` prints the list. Calls go down
 * the file's floors, never up: there are no forward declarations, so a call
 * upward does not compile. Types are in warp.h under the same signs, numbers
 * in config.def.h. To understand the program start at main, at the end, and
 * the way of a request: conn_read_head, exchange_begin, exchange_step. */

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <math.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include <bearssl.h>

#include "warp.h"

/* ==== base ===================================================================
 * Owns    nothing.
 * Offers  LEN, MIN, MAX, slices, text.
 * Calls   libc only. */

#define LEN(a)    (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define S(lit)    ((struct slice){ "" lit, sizeof(lit) - 1 })

#define SECOND_MS 1000
#define MINUTE_S  60
#define HOUR_S    3600
#define DAY_S     86400

static struct slice
slice_of(const char *s)
{
	return (struct slice){ s, s ? strlen(s) : 0 };
}

static bool
slice_eq(struct slice a, struct slice b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* ASCII case-insensitive. */
static bool
slice_ieq(struct slice a, struct slice b)
{
	if (a.n != b.n)
		return false;
	for (size_t i = 0; i < a.n; i++)
		if (lower(a.p[i]) != lower(b.p[i]))
			return false;
	return true;
}

static bool
slice_starts(struct slice s, struct slice prefix)
{
	return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

static bool
slice_ends(struct slice s, struct slice suffix)
{
	return s.n >= suffix.n && memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0;
}

/* What is left of s after its first n bytes. */
static struct slice
slice_from(struct slice s, size_t n)
{
	return (struct slice){ s.p + n, s.n - n };
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* Without spaces and tabs at both ends. */
static struct slice
slice_trim(struct slice s)
{
	while (s.n > 0 && is_blank(s.p[0]))
		s = slice_from(s, 1);
	while (s.n > 0 && is_blank(s.p[s.n - 1]))
		s.n--;
	return s;
}

/* Takes the text before the first sep off the front of *rest; false at the
 * end. Without sep: all of it. */
static bool
slice_cut(struct slice *rest, char sep, struct slice *piece)
{
	const char *at;

	if (!rest->p)
		return false;
	at = rest->n ? memchr(rest->p, sep, rest->n) : NULL;
	if (!at) {
		*piece = *rest;
		*rest = (struct slice){ NULL, 0 };
		return true;
	}
	*piece = (struct slice){ rest->p, (size_t)(at - rest->p) };
	*rest = slice_from(*rest, piece->n + 1);
	return true;
}

/* The next member of a comma list, trimmed, empty ones skipped.
 * RFC 9110 5.6.1. */
static bool
slice_list_next(struct slice *rest, struct slice *item)
{
	while (slice_cut(rest, ',', item)) {
		*item = slice_trim(*item);
		if (item->n > 0)
			return true;
	}
	return false;
}

/* Decimal digits only, at most max; -1 otherwise. */
static int64_t
slice_uint(struct slice s, uint64_t max)
{
	uint64_t v = 0;

	if (s.n == 0)
		return -1;
	for (size_t i = 0; i < s.n; i++) {
		unsigned d = (unsigned)(unsigned char)s.p[i] - '0';
		if (d > 9 || d > max || v > (max - d) / 10)
			return -1;
		v = v * 10 + d;
	}
	return (int64_t)v;
}

/* Equal, in time that does not depend on where they differ. */
static bool
slice_eq_secret(struct slice given, struct slice secret)
{
	unsigned char diff = given.n != secret.n;

	for (size_t i = 0; i < given.n; i++)
		diff |= (unsigned char)(given.p[i] ^ (secret.n ? secret.p[i % secret.n] : 0));
	return diff == 0 && secret.n > 0;
}

static void
text_add(struct text *t, struct slice s)
{
	if (s.n > t->cap - t->n) {
		t->full = true;
		return;
	}
	if (s.n > 0)
		memcpy(t->p + t->n, s.p, s.n);
	t->n += s.n;
}

static void
text_str(struct text *t, const char *s)
{
	text_add(t, slice_of(s));
}

static void
text_char(struct text *t, char c)
{
	text_add(t, (struct slice){ &c, 1 });
}

static void
text_uint(struct text *t, uint64_t v)
{
	char b[20];
	size_t i = sizeof b;

	do
		b[--i] = (char)('0' + v % 10);
	while ((v /= 10) > 0);
	text_add(t, (struct slice){ b + i, sizeof b - i });
}

/* v in hexadecimal, at least width digits. */
static void
text_hex(struct text *t, uint64_t v, unsigned width)
{
	char b[16];
	size_t i = sizeof b;

	do
		b[--i] = "0123456789abcdef"[v & 15];
	while ((v >>= 4) > 0 || sizeof b - i < width);
	text_add(t, (struct slice){ b + i, sizeof b - i });
}

__attribute__((format(printf, 2, 3))) static void
text_fmt(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->p + t->n, t->cap - t->n, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= t->cap - t->n)
		t->full = true;
	else
		t->n += (size_t)n;
}

static struct slice
text_slice(const struct text *t)
{
	return (struct slice){ t->p, t->n };
}

/* ==== arena ==================================================================
 * Owns    blocks that are freed together.
 * Offers  arena_alloc, arena_dup, arena_fmt, arena_free. Never fails: a
 *         configuration that does not fit in memory ends the program.
 * Calls   base. */

struct arena_block {
	struct arena_block *next;
	size_t n, cap;
	max_align_t data[];
};

#define ARENA_BLOCK 16384 /* a typical configuration fits in one */

_Noreturn static void
die_memory(void)
{
	static const char msg[] = "warp: out of memory\n";

	if (write(STDERR_FILENO, msg, sizeof msg - 1) < 0)
		_exit(4);
	_exit(4);
}

static void *
xcalloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);

	if (!p)
		die_memory();
	return p;
}

/* n zeroed bytes, aligned for anything. */
static void *
arena_alloc(struct arena *a, size_t n)
{
	struct arena_block *b = a->top;
	size_t cap;
	void *p;

	n = (n + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
	if (!b || b->cap - b->n < n) {
		cap = MAX(n, (size_t)ARENA_BLOCK);
		b = xcalloc(1, sizeof *b + cap);
		b->cap = cap;
		b->next = a->top;
		a->top = b;
	}
	p = (char *)b->data + b->n;
	b->n += n;
	return p;
}

/* A copy with a NUL behind it. */
static struct slice
arena_dup(struct arena *a, struct slice s)
{
	char *p = arena_alloc(a, s.n + 1);

	if (s.n > 0)
		memcpy(p, s.p, s.n);
	return (struct slice){ p, s.n };
}

static char *
arena_vfmt(struct arena *a, const char *fmt, va_list ap)
{
	va_list again;
	char *p;
	int n;

	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, again);
	va_end(again);
	if (n < 0)
		die_memory();
	p = arena_alloc(a, (size_t)n + 1);
	vsnprintf(p, (size_t)n + 1, fmt, ap);
	return p;
}

__attribute__((format(printf, 2, 3))) static char *
arena_fmt(struct arena *a, const char *fmt, ...)
{
	va_list ap;
	char *p;

	va_start(ap, fmt);
	p = arena_vfmt(a, fmt, ap);
	va_end(ap);
	return p;
}

static void
arena_free(struct arena *a)
{
	struct arena_block *b;

	while ((b = a->top)) {
		a->top = b->next;
		free(b);
	}
}

/* ==== clock ==================================================================
 * Owns    now_ms, now_us, now_s and the Date text, read once a turn.
 * Offers  clock_turn, clock_date, clock_format.
 * Calls   base. */

static int64_t now_ms; /* monotonic */
static int64_t now_us; /* monotonic */
static time_t now_s;   /* wall clock */

#define DATE_LEN 29 /* Sun, 06 Nov 1994 08:49:37 GMT */

static void
clock_turn(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	now_us = (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
	now_ms = now_us / 1000;
	clock_gettime(CLOCK_REALTIME, &t);
	now_s = t.tv_sec;
}

/* The value of Date for now_s. RFC 9110 5.6.7. */
static struct slice
clock_date(void)
{
	static const char days[] = "SunMonTueWedThuFriSat";
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	static char text[DATE_LEN + 1];
	static time_t of;
	struct tm tm;

	if (of != now_s || !text[0]) {
		gmtime_r(&now_s, &tm);
		snprintf(text, sizeof text, "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT",
		    days + tm.tm_wday * 3, (unsigned)tm.tm_mday % 100,
		    months + tm.tm_mon * 3, (unsigned)(tm.tm_year + 1900) % 10000,
		    (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100,
		    (unsigned)tm.tm_sec % 100);
		of = now_s;
	}
	return (struct slice){ text, DATE_LEN };
}

/* ==== log ====================================================================
 * Owns    the error log: its descriptor, level and this process's name.
 * Offers  log_error, log_warn, log_info, log_debug, log_errno, die.
 * Calls   base, clock. Every line is one write, so lines never tear. */

#define LOG_LINE 1024 /* bytes of one line; what is longer is cut */

static int log_fd = STDERR_FILENO;
static bool log_to_syslog;
static enum log_level log_level = LOG_LVL_INFO;
static const char *log_who = "warp"; /* "warp", "worker", "resolver" */

__attribute__((format(printf, 2, 0))) static void
log_v(enum log_level level, const char *fmt, va_list ap)
{
	static const char *const names[] = { "error", "warn", "info", "debug" };
	static const int priority[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG };
	char line[LOG_LINE];
	struct text t = { line, 0, sizeof line - 1, false };
	time_t s = time(NULL);
	struct tm tm;
	ssize_t done;
	int n;

	if (level > log_level)
		return;
	if (log_to_syslog) {
		vsyslog(priority[level], fmt, ap);
		return;
	}
	localtime_r(&s, &tm);
	text_fmt(&t, "%04d-%02d-%02d %02d:%02d:%02d %s[%d] %s: ", tm.tm_year + 1900,
	    tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, log_who,
	    (int)getpid(), names[level]);
	n = vsnprintf(t.p + t.n, t.cap - t.n, fmt, ap);
	if (n > 0)
		t.n += MIN((size_t)n, t.cap - t.n - 1);
	for (size_t i = 0; i < t.n; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?'; /* what clients send must not forge lines */
	line[t.n++] = '\n';
	do
		done = write(log_fd, line, t.n);
	while (done < 0 && errno == EINTR); /* a full disk loses log lines only */
}

#define LOG_FN(name, level)                                        \
	__attribute__((format(printf, 1, 2))) static void name(    \
	    const char *fmt, ...)                                  \
	{                                                          \
		va_list ap;                                        \
		va_start(ap, fmt);                                 \
		log_v(level, fmt, ap);                             \
		va_end(ap);                                        \
	}
LOG_FN(log_error, LOG_LVL_ERROR)
LOG_FN(log_warn, LOG_LVL_WARN)
LOG_FN(log_info, LOG_LVL_INFO)
LOG_FN(log_debug, LOG_LVL_DEBUG)
#undef LOG_FN

/* Logs the text and errno's own; always -1, so a failing check is one line. */
__attribute__((format(printf, 1, 2))) static int
log_errno(const char *fmt, ...)
{
	char what[LOG_LINE / 2];
	int err = errno;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	log_error("%s: %s", what, strerror(err));
	errno = err;
	return -1;
}

/* ==== diag ===================================================================
 * Owns    nothing: a struct diags is its maker's.
 * Offers  diag_add, diags_print.
 * Calls   base, arena. */

#define DIAGS_MAX 100 /* one file's worth of complaints; the rest is counted */

/* Notes what is wrong at line:col; line 0 when it is not in the file. */
__attribute__((format(printf, 5, 6))) static void
diag_add(struct diags *ds, enum diag_level level, unsigned line, unsigned col,
    const char *fmt, ...)
{
	struct diag *d;
	va_list ap;

	if (level == DIAG_ERROR)
		ds->errors++;
	else
		ds->warnings++;
	if (ds->errors + ds->warnings > DIAGS_MAX)
		return;
	d = arena_alloc(ds->arena, sizeof *d);
	d->level = level;
	d->line = line;
	d->col = col;
	va_start(ap, fmt);
	d->text = arena_vfmt(ds->arena, fmt, ap);
	va_end(ap);
	if (ds->last)
		ds->last->next = d;
	else
		ds->first = d;
	ds->last = d;
}

/* Line number `line` of text, without its end. */
static struct slice
text_line(struct slice text, unsigned line)
{
	struct slice piece = { "", 0 };

	while (line-- > 0)
		if (!slice_cut(&text, '\n', &piece))
			return S("");
	if (piece.n > 0 && piece.p[piece.n - 1] == '\r')
		piece.n--;
	return piece;
}

/* The offending line with a caret below the column; control characters are
 * shown as spaces, a tab keeps its width under the caret. */
static void
diag_quote(const struct diags *ds, const struct diag *d, FILE *to)
{
	struct slice line = text_line(ds->source, d->line);

	fputs("    ", to);
	for (size_t i = 0; i < line.n; i++)
		fputc(line.p[i] == '\t' || (unsigned char)line.p[i] >= ' ' ? line.p[i] : ' ', to);
	fputs("\n    ", to);
	for (unsigned i = 1, at = 0; i < d->col; i++, at++) {
		while (at < line.n && ((unsigned char)line.p[at] & 0xc0) == 0x80)
			at++; /* a UTF-8 sequence is one column */
		fputc(at < line.n && line.p[at] == '\t' ? '\t' : ' ', to);
	}
	fputs("^\n", to);
}

/* file:line:col: error: text, then the line itself. */
static void
diags_print(const struct diags *ds, FILE *to)
{
	static const char *const names[] = { "error", "warning" };

	for (const struct diag *d = ds->first; d; d = d->next) {
		if (d->line > 0)
			fprintf(to, "%s:%u:%u: %s: %s\n", ds->file, d->line, d->col,
			    names[d->level], d->text);
		else
			fprintf(to, "%s: %s: %s\n", ds->file ? ds->file : "warp",
			    names[d->level], d->text);
		if (d->line > 0)
			diag_quote(ds, d, to);
	}
	if (ds->errors + ds->warnings > DIAGS_MAX)
		fprintf(to, "... and %d more\n", ds->errors + ds->warnings - DIAGS_MAX);
}
/* ==== toml ===================================================================
 * Owns    nothing: the tree is in the caller's arena.
 * Offers  toml_parse, toml_get, toml_kind_names.
 * Calls   base, arena, diag. All of TOML 1.0.0. After an error the parser goes
 *         on with the next line, so that all errors are told at once.
 * Keys of a table are looked up one by one: fine for what people write. */

#define TOML_ERRORS_MAX 20 /* of the parser, in one text */
#define TOML_SHOWN_MAX  40 /* bytes of a key or value in an error's text */
#define DATE_CHARS      10 /* YYYY-MM-DD */

/* How a table or array came to be; what may still be added follows from it. */
enum {
	TOML_EXPLICIT = 1, /* [header], or the root */
	TOML_IMPLICIT = 2, /* named on the way to a header */
	TOML_DOTTED = 4,   /* made by a dotted key */
	TOML_CLOSED = 8,   /* inline: nothing is ever added */
	TOML_TABLES = 16   /* [[header]]: an array that grows */
};

static const char *const toml_kind_names[TOML_KINDS] = {
	[TOML_STRING] = "a text", [TOML_INTEGER] = "an integer", [TOML_FLOAT] = "a float",
	[TOML_BOOLEAN] = "true or false", [TOML_DATETIME] = "a date and time",
	[TOML_DATETIME_LOCAL] = "a local date and time", [TOML_DATE_LOCAL] = "a date",
	[TOML_TIME_LOCAL] = "a time", [TOML_ARRAY] = "an array", [TOML_TABLE] = "a table",
};

struct toml_parser {
	struct arena *arena;
	struct diags *diags;
	const char *p, *end, *line_start;
	const char *col_at; /* col is the column there: counted on, never anew */
	unsigned line, col;
	unsigned depth;       /* of tables and arrays around this place */
	unsigned open;        /* '[' and '{' of values, not closed yet */
	unsigned table_depth; /* depth of table */
	struct toml *table;   /* that lines go into */
	bool (*value)(struct toml_parser *, struct toml *); /* arrays hold values */
};

static const struct toml *
toml_get(const struct toml *t, const char *key)
{
	struct slice k = slice_of(key);

	for (t = t && t->kind == TOML_TABLE ? t->first : NULL; t; t = t->next)
		if (slice_eq(t->key, k))
			return t;
	return NULL;
}

/* Characters, not bytes, from the start of the line; from 1. */
static unsigned
toml_col(struct toml_parser *tp, const char *at)
{
	if (tp->col_at < tp->line_start || tp->col_at > at) {
		tp->col_at = tp->line_start;
		tp->col = 1;
	}
	for (; tp->col_at < at; tp->col_at++)
		tp->col += ((unsigned char)*tp->col_at & 0xc0) != 0x80;
	return tp->col;
}

/* How much of s to show: no UTF-8 sequence is cut. */
static int
toml_shown(struct slice s)
{
	size_t n = MIN(s.n, (size_t)TOML_SHOWN_MAX);

	while (n > 0 && n < s.n && ((unsigned char)s.p[n] & 0xc0) == 0x80)
		n--;
	return (int)n;
}

static bool
toml_is_control(char c)
{
	return ((unsigned char)c < ' ' && c != '\t') || c == 0x7f;
}

__attribute__((format(printf, 3, 4))) static bool
toml_error(struct toml_parser *tp, const char *at, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	for (char *p = text; *p; p++)
		if (toml_is_control(*p))
			*p = '?'; /* decoded keys may hold them */
	if (tp->diags->errors < TOML_ERRORS_MAX)
		diag_add(tp->diags, DIAG_ERROR, tp->line, toml_col(tp, at), "%s", text);
	return false;
}

static bool
toml_at(const struct toml_parser *tp, char c)
{
	return tp->p < tp->end && *tp->p == c;
}

static bool
toml_at_text(const struct toml_parser *tp, const char *s)
{
	size_t n = strlen(s);

	return (size_t)(tp->end - tp->p) >= n && memcmp(tp->p, s, n) == 0;
}

static void
toml_blanks(struct toml_parser *tp)
{
	while (tp->p < tp->end && is_blank(*tp->p))
		tp->p++;
}

static bool
toml_at_newline(const struct toml_parser *tp)
{
	return toml_at(tp, '\n') || toml_at_text(tp, "\r\n");
}

/* Over one line end. */
static void
toml_newline(struct toml_parser *tp)
{
	tp->p += *tp->p == '\r' ? 2 : 1;
	tp->line++;
	tp->line_start = tp->p;
}

static bool
toml_comment(struct toml_parser *tp)
{
	if (!toml_at(tp, '#'))
		return true;
	for (; tp->p < tp->end && !toml_at_newline(tp); tp->p++)
		if (toml_is_control(*tp->p))
			return toml_error(tp, tp->p, "a comment holds a control character");
	return true;
}

/* What may stand behind a value or header: blanks, a comment, the line's end. */
static bool
toml_line_end(struct toml_parser *tp)
{
	toml_blanks(tp);
	if (!toml_comment(tp))
		return false;
	if (tp->p == tp->end)
		return true;
	if (!toml_at_newline(tp))
		return toml_error(tp, tp->p, "expected the end of the line");
	toml_newline(tp);
	return true;
}

/* Blanks, comments and line ends inside an array. */
static bool
toml_space(struct toml_parser *tp)
{
	for (;;) {
		toml_blanks(tp);
		if (!toml_comment(tp))
			return false;
		if (tp->p == tp->end || !toml_at_newline(tp))
			return true;
		toml_newline(tp);
	}
}

/* ---- strings ---- */

static void
utf8_add(struct text *t, uint32_t c)
{
	static const unsigned char lead[] = { 0, 0xc0, 0xe0, 0xf0 };
	int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;

	text_char(t, (char)(lead[more] | c >> 6 * more));
	while (more-- > 0)
		text_char(t, (char)(0x80 | (c >> 6 * more & 0x3f)));
}

static int
toml_digit(char c, int base)
{
	int v = c >= '0' && c <= '9' ? c - '0' : -1;

	if (v < 0 && lower(c) >= 'a' && lower(c) <= 'f')
		v = lower(c) - 'a' + 10;
	return v < base ? v : -1;
}

/* \uXXXX or \UXXXXXXXX, behind the letter. */
static bool
toml_unicode(struct toml_parser *tp, struct text *t, int digits)
{
	const char *at = tp->p - 2;
	uint32_t c = 0;
	int v;

	for (int i = 0; i < digits; i++) {
		if (tp->p == tp->end || (v = toml_digit(*tp->p, 16)) < 0)
			return toml_error(tp, at, "expected %d hexadecimal digits", digits);
		c = c << 4 | (uint32_t)v;
		tp->p++;
	}
	if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return toml_error(tp, at, "this is no Unicode character");
	utf8_add(t, c);
	return true;
}

/* Behind a backslash. */
static bool
toml_escape(struct toml_parser *tp, struct text *t)
{
	static const char letters[] = "btnfr\"\\", bytes[] = "\b\t\n\f\r\"\\";
	const char *at;
	char c = tp->p < tp->end ? *tp->p : '\0';

	if (c == 'u' || c == 'U') {
		tp->p++;
		return toml_unicode(tp, t, c == 'u' ? 4 : 8);
	}
	if (!c || !(at = strchr(letters, c)))
		return toml_error(tp, tp->p - 1, "unknown escape; use \\\\ for a backslash");
	text_char(t, bytes[at - letters]);
	tp->p++;
	return true;
}

/* A backslash at a line's end takes all white space behind it along. False:
 * there is none. */
static bool
toml_joins_lines(struct toml_parser *tp)
{
	const char *p = tp->p;

	toml_blanks(tp);
	if (!toml_at_newline(tp)) {
		tp->p = p;
		return false;
	}
	while (toml_at_newline(tp)) {
		toml_newline(tp);
		toml_blanks(tp);
	}
	return true;
}

/* Three quotes, and up to two more that belong to the text. */
static bool
toml_long_end(struct toml_parser *tp, char quote, struct text *t)
{
	size_t n = 0;

	while (n < 5 && tp->p + n < tp->end && tp->p[n] == quote)
		n++;
	if (n < 3)
		return false;
	for (size_t i = 3; i < n; i++)
		text_char(t, quote);
	tp->p += n;
	return true;
}

/* One character of a string, or one line end. False: error; the string goes on. */
static bool
toml_char(struct toml_parser *tp, struct text *t, bool basic, bool lines)
{
	char c = *tp->p;

	if (toml_at_newline(tp)) {
		text_char(t, '\n');
		toml_newline(tp);
		return true;
	}
	tp->p++;
	if (toml_is_control(c))
		return toml_error(tp, tp->p - 1, "a text holds a control character; use \\u00XX");
	if (!basic || c != '\\') {
		text_char(t, c);
		return true;
	}
	return (lines && toml_joins_lines(tp)) || toml_escape(tp, t);
}

/* Bytes from here to the closing quotes, at most: decoding only shortens. */
static size_t
toml_raw_bytes(const struct toml_parser *tp, char quote, bool lines)
{
	const char *p = tp->p;

	for (; p < tp->end && (lines || *p != '\n'); p++) {
		if (*p == '\\' && quote == '"')
			p++;
		else if (*p == quote &&
		    (!lines || (tp->end - p > 2 && p[1] == quote && p[2] == quote)))
			return (size_t)(p - tp->p) + 2; /* two quotes may belong to it */
	}
	return (size_t)(MIN(p, tp->end) - tp->p);
}

/* At a quote. Decoded text, NUL behind it. */
static bool
toml_string(struct toml_parser *tp, struct slice *out, bool may_span)
{
	const char *from = tp->p;
	char quote = *from;
	bool basic = quote == '"', lines = toml_at_text(tp, basic ? "\"\"\"" : "'''");
	bool good = true;
	struct toml_parser began = *tp;
	struct text t = { NULL, 0, 0, false };

	if (lines && !may_span)
		return toml_error(tp, from, "a key cannot span lines");
	tp->p += lines ? 3 : 1;
	if (lines && toml_at_newline(tp))
		toml_newline(tp);
	t.cap = toml_raw_bytes(tp, quote, lines);
	t.p = arena_alloc(tp->arena, t.cap + 1);
	while (tp->p < tp->end) {
		if (lines ? toml_long_end(tp, quote, &t) : *tp->p == quote) {
			tp->p += !lines;
			*out = text_slice(&t);
			return good;
		}
		if (!lines && toml_at_newline(tp))
			return toml_error(tp, tp->p,
			    "a text must end on its line; use three quotes for several lines");
		good = toml_char(tp, &t, basic, lines) && good;
	}
	tp->line = began.line;
	tp->line_start = began.line_start;
	return toml_error(tp, from, "this text has no closing quote%s", lines ? "s" : "");
}

/* ---- numbers and dates ---- */

/* Digits with single underscores between them, without those, into t. */
static bool
number_digits(struct slice s, int base, struct text *t)
{
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '_' && i > 0 && i + 1 < s.n && s.p[i - 1] != '_')
			continue;
		if (toml_digit(s.p[i], base) < 0)
			return false;
		text_char(t, s.p[i]);
	}
	return s.n > 0 && !t->full;
}

/* Over a sign, copied to t. */
static bool
number_sign(struct slice *s, struct text *t)
{
	if (s->n == 0 || (s->p[0] != '-' && s->p[0] != '+'))
		return false;
	text_char(t, s->p[0]);
	*s = slice_from(*s, 1);
	return true;
}

/* t is empty and has room for s, as in the next ones. */
static bool
number_integer(struct slice s, struct text *t, struct toml *v)
{
	bool sign = number_sign(&s, t);
	int base = 10;

	if (!sign && s.n > 2 && s.p[0] == '0' && strchr("xob", s.p[1])) {
		base = s.p[1] == 'x' ? 16 : s.p[1] == 'o' ? 8 : 2;
		s = slice_from(s, 2);
	}
	if ((base == 10 && s.n > 1 && s.p[0] == '0') || !number_digits(s, base, t))
		return false;
	t->p[t->n] = '\0';
	errno = 0;
	v->integer = strtoll(t->p, NULL, base);
	v->kind = TOML_INTEGER;
	return errno == 0;
}

static bool
number_special(struct slice s, struct text *t, struct toml *v)
{
	double sign = number_sign(&s, t) && t->p[0] == '-' ? -1.0 : 1.0;

	v->kind = TOML_FLOAT;
	v->real = sign * (slice_eq(s, S("inf")) ? HUGE_VAL : (double)NAN);
	return slice_eq(s, S("inf")) || slice_eq(s, S("nan"));
}

/* [sign] digits [. digits] [e [sign] digits], one of the last two at least. */
static bool
number_float(struct slice s, struct text *t, struct toml *v)
{
	struct slice rest = s, whole;
	size_t e = 0;

	while (e < s.n && lower(s.p[e]) != 'e')
		e++;
	rest.n = e;
	number_sign(&rest, t);
	slice_cut(&rest, '.', &whole);
	if ((whole.n > 1 && whole.p[0] == '0') || !number_digits(whole, 10, t) ||
	    (!rest.p && e == s.n))
		return false;
	if (rest.p) {
		text_char(t, '.');
		if (!number_digits(rest, 10, t))
			return false;
	}
	if (e < s.n) {
		rest = slice_from(s, e + 1);
		text_char(t, 'e');
		number_sign(&rest, t);
		if (!number_digits(rest, 10, t))
			return false;
	}
	t->p[t->n] = '\0';
	v->kind = TOML_FLOAT;
	v->real = strtod(t->p, NULL);
	return isfinite(v->real); /* stricter than TOML: 1e999 is a slip */
}

static bool
number_parse(struct toml_parser *tp, struct slice s, struct toml *v)
{
	static bool (*const ways[])(struct slice, struct text *, struct toml *) = {
		number_integer, number_special, number_float };
	char *p = arena_alloc(tp->arena, s.n + 1);

	for (size_t i = 0; i < LEN(ways); i++) {
		struct text t = { p, 0, s.n, false };
		if (ways[i](s, &t, v))
			return true;
	}
	return false;
}

/* n digits at the front of *s; -1 when they are not there. */
static int
date_number(struct slice *s, size_t n)
{
	int64_t v = s->n >= n ? slice_uint((struct slice){ s->p, n }, INT_MAX) : -1;

	if (v >= 0)
		*s = slice_from(*s, n);
	return (int)v;
}

static bool
date_sign(struct slice *s, char c)
{
	if (s->n == 0 || lower(s->p[0]) != c)
		return false;
	*s = slice_from(*s, 1);
	return true;
}

static bool
date_day(struct slice *s)
{
	static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	int y = date_number(s, 4), m, d;
	bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;

	if (y < 0 || !date_sign(s, '-') || (m = date_number(s, 2)) < 1 || m > 12 ||
	    !date_sign(s, '-') || (d = date_number(s, 2)) < 1)
		return false;
	return d <= days[m - 1] + (m == 2 && leap);
}

static bool
date_time(struct slice *s)
{
	int h = date_number(s, 2), m, sec;

	if (h < 0 || h > 23 || !date_sign(s, ':') || (m = date_number(s, 2)) < 0 || m > 59 ||
	    !date_sign(s, ':') || (sec = date_number(s, 2)) < 0 || sec > 60)
		return false;
	if (!date_sign(s, '.'))
		return true;
	if (date_number(s, 1) < 0)
		return false;
	while (date_number(s, 1) >= 0)
		;
	return true;
}

static bool
date_zone(struct slice *s)
{
	int h, m;

	if (date_sign(s, 'z'))
		return true;
	if (!date_sign(s, '+') && !date_sign(s, '-'))
		return false;
	return (h = date_number(s, 2)) >= 0 && h <= 23 && date_sign(s, ':') &&
	    (m = date_number(s, 2)) >= 0 && m <= 59;
}

static bool
date_parse(struct toml_parser *tp, struct slice s, struct toml *v)
{
	struct slice rest = s;

	v->text = arena_dup(tp->arena, s);
	if (s.n > 2 && s.p[2] == ':') {
		v->kind = TOML_TIME_LOCAL;
		return date_time(&rest) && rest.n == 0;
	}
	if (!date_day(&rest))
		return false;
	v->kind = TOML_DATE_LOCAL;
	if (rest.n == 0)
		return true;
	if ((!date_sign(&rest, 't') && !date_sign(&rest, ' ')) || !date_time(&rest))
		return false;
	v->kind = TOML_DATETIME_LOCAL;
	if (rest.n == 0)
		return true;
	v->kind = TOML_DATETIME;
	return date_zone(&rest) && rest.n == 0;
}

/* Begins like a date or a time: DDDD- or DD: */
static bool
date_begins(struct slice s)
{
	size_t n = 0;

	while (n < s.n && n < 4 && isdigit((unsigned char)s.p[n]))
		n++;
	return n < s.n && ((n == 4 && s.p[n] == '-') || (n == 2 && s.p[n] == ':'));
}

static bool
toml_is_bare(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '-';
}

/* Over the characters of a number, date, or word. */
static void
toml_over_word(struct toml_parser *tp)
{
	while (tp->p < tp->end && (toml_is_bare(*tp->p) || (*tp->p && strchr("+.:", *tp->p))))
		tp->p++;
}

/* A number, date, or word. One blank may part a date from its time. */
static struct slice
toml_word(struct toml_parser *tp)
{
	const char *from = tp->p;

	toml_over_word(tp);
	if (tp->p - from == DATE_CHARS && from[4] == '-' && tp->end - tp->p > 3 &&
	    tp->p[0] == ' ' && tp->p[3] == ':') {
		tp->p++;
		toml_over_word(tp);
	}
	return (struct slice){ from, (size_t)(tp->p - from) };
}

static bool
toml_scalar(struct toml_parser *tp, struct toml *v)
{
	const char *from = tp->p;
	struct slice s = toml_word(tp);

	if (slice_eq(s, S("true")) || slice_eq(s, S("false"))) {
		v->kind = TOML_BOOLEAN;
		v->boolean = s.n == 4;
		return true;
	}
	if (s.n == 0)
		return toml_error(tp, from, "expected a value");
	if (date_begins(s)) {
		if (date_parse(tp, s, v))
			return true;
		return toml_error(tp, from, "'%.*s' is no date or time", toml_shown(s), s.p);
	}
	if (number_parse(tp, s, v))
		return true;
	if (isalpha((unsigned char)s.p[0]))
		return toml_error(tp, from, "expected a value; a text needs quotes: \"%.*s\"",
		    toml_shown(s), s.p);
	return toml_error(tp, from, "'%.*s' is no number, or one out of range",
	    toml_shown(s), s.p);
}

/* ---- the tree ---- */

static struct toml *
toml_add(struct toml_parser *tp, struct toml *to, struct slice key, const char *at,
    enum toml_kind kind)
{
	struct toml *v = arena_alloc(tp->arena, sizeof *v);

	v->kind = kind;
	v->key = key;
	v->text = S(""); /* stays where the value is an error */
	v->line = v->vline = tp->line;
	v->col = v->vcol = toml_col(tp, at);
	if (to->last)
		to->last->next = v;
	else
		to->first = v;
	to->last = v;
	to->count++;
	return v;
}

static struct toml *
toml_find(const struct toml *t, struct slice key)
{
	for (struct toml *v = t->first; v; v = v->next)
		if (slice_eq(v->key, key))
			return v;
	return NULL;
}

/* A bare or quoted key. */
static bool
toml_key(struct toml_parser *tp, struct slice *key)
{
	const char *from = tp->p;

	if (toml_at(tp, '"') || toml_at(tp, '\''))
		return toml_string(tp, key, false);
	while (tp->p < tp->end && toml_is_bare(*tp->p))
		tp->p++;
	if (tp->p == from)
		return toml_error(tp, from, "expected a key");
	*key = arena_dup(tp->arena, (struct slice){ from, (size_t)(tp->p - from) });
	return true;
}

/* Over a dot that says the key goes on. */
static bool
toml_dot(struct toml_parser *tp)
{
	toml_blanks(tp);
	if (!toml_at(tp, '.'))
		return false;
	tp->p++;
	toml_blanks(tp);
	return true;
}

static bool
toml_twice(struct toml_parser *tp, const char *at, const struct toml *first)
{
	return toml_error(tp, at, "'%.*s' is defined twice, first in line %u",
	    toml_shown(first->key), first->key.p, first->line);
}

/* A table beside the tree, for what has no place in it but is read all the
 * same, to find the errors in it and its end. */
static struct toml *
toml_scratch(struct toml_parser *tp)
{
	struct toml *v = arena_alloc(tp->arena, sizeof *v);

	v->kind = TOML_TABLE;
	return v;
}

/* One level down. Callers of the parser recurse over its tree. */
static bool
toml_deeper(struct toml_parser *tp, const char *at)
{
	if (tp->depth == TOML_DEPTH_MAX)
		return toml_error(tp, at, "nested deeper than %d levels", TOML_DEPTH_MAX);
	tp->depth++;
	return true;
}

/* ---- values ---- */

/* Behind '['. */
static bool
toml_array(struct toml_parser *tp, struct toml *v)
{
	v->kind = TOML_ARRAY;
	for (;;) {
		if (!toml_space(tp))
			return false;
		if (toml_at(tp, ']'))
			break;
		if (!tp->value(tp, toml_add(tp, v, S(""), tp->p, TOML_STRING)) || !toml_space(tp))
			return false;
		if (toml_at(tp, ']'))
			break;
		if (!toml_at(tp, ','))
			return toml_error(tp, tp->p, "expected ',' or ']' in the array begun in line %u",
			    v->vline);
		tp->p++;
	}
	tp->p++;
	return true;
}

/* One step along a dotted key; NULL when that cannot be added to. */
static struct toml *
toml_dotted(struct toml_parser *tp, struct toml *to, struct slice key, const char *at)
{
	struct toml *v = toml_find(to, key);

	if (!v) {
		v = toml_add(tp, to, key, at, TOML_TABLE);
		v->flags = TOML_DOTTED;
	}
	if (v->kind == TOML_TABLE && v->flags & TOML_DOTTED)
		return v;
	toml_error(tp, at, "'%.*s' was defined in line %u and cannot be added to here",
	    toml_shown(key), key.p, v->line);
	return NULL;
}

/* key = value into a table, dotted keys made on the way. */
static bool
toml_pair(struct toml_parser *tp, struct toml *to)
{
	unsigned depth = tp->depth;
	const char *at = tp->p;
	struct slice key;
	struct toml *v;
	bool good = true;

	if (!toml_key(tp, &key))
		return false;
	while (toml_dot(tp)) {
		if (!toml_deeper(tp, at))
			return false;
		if (!(to = toml_dotted(tp, to, key, at))) {
			good = false;
			to = toml_scratch(tp);
		}
		at = tp->p;
		if (!toml_key(tp, &key))
			return false;
	}
	if ((v = toml_find(to, key))) {
		good = toml_twice(tp, at, v);
		to = toml_scratch(tp);
	}
	if (!toml_at(tp, '='))
		return toml_error(tp, tp->p, "expected '=' behind the key");
	tp->p++;
	toml_blanks(tp);
	if (tp->p == tp->end || toml_at_newline(tp) || toml_at(tp, '#'))
		return toml_error(tp, tp->p, "expected a value after '='");
	good = tp->value(tp, toml_add(tp, to, key, at, TOML_STRING)) && good;
	tp->depth = depth;
	return good;
}

/* Behind '{'. All on one line, no comma at the end. */
static bool
toml_inline(struct toml_parser *tp, struct toml *v)
{
	bool more = false;

	v->kind = TOML_TABLE;
	toml_blanks(tp);
	while (more || !toml_at(tp, '}')) {
		if (!toml_at_newline(tp) && !toml_pair(tp, v))
			return false;
		toml_blanks(tp);
		more = toml_at(tp, ',');
		if (!more && !toml_at(tp, '}'))
			return toml_error(tp, tp->p, toml_at_newline(tp)
			    ? "expected ',' or '}': an inline table must end on its line"
			    : "expected ',' or '}' in an inline table");
		tp->p += more;
		toml_blanks(tp);
	}
	v->flags = TOML_CLOSED;
	tp->p++;
	return true;
}

static bool
toml_value(struct toml_parser *tp, struct toml *v)
{
	const char *from = tp->p;

	v->vline = tp->line;
	v->vcol = toml_col(tp, from);
	if (toml_at(tp, '"') || toml_at(tp, '\'')) {
		v->kind = TOML_STRING;
		return toml_string(tp, &v->text, true);
	}
	if (!toml_at(tp, '[') && !toml_at(tp, '{'))
		return toml_scalar(tp, v);
	if (!toml_deeper(tp, from))
		return false;
	tp->open++;
	tp->p++;
	if (!(*from == '[' ? toml_array(tp, v) : toml_inline(tp, v)))
		return false; /* open stays: toml_recover looks for the end */
	tp->open--;
	tp->depth--;
	return true;
}

/* ---- headers ---- */

/* One step down toward a header's last key. */
static struct toml *
toml_descend(struct toml_parser *tp, struct toml *to, struct slice key, const char *at)
{
	struct toml *v = toml_find(to, key);

	if (!v) {
		v = toml_add(tp, to, key, at, TOML_TABLE);
		v->flags = TOML_IMPLICIT;
		return v;
	}
	if (v->kind == TOML_ARRAY && v->flags & TOML_TABLES)
		return v->last;
	if (v->kind == TOML_TABLE && !(v->flags & TOML_CLOSED))
		return v;
	toml_error(tp, at, "'%.*s' was defined in line %u as %s, nothing can go below it",
	    toml_shown(key), key.p, v->line,
	    v->kind == TOML_TABLE ? "an inline table" : toml_kind_names[v->kind]);
	return NULL;
}

/* The table that [key] or [[key]] opens in `to`. */
static struct toml *
toml_open(struct toml_parser *tp, struct toml *to, struct slice key, const char *at,
    bool many)
{
	struct toml *v = toml_find(to, key);

	if (many) {
		if (!v) {
			v = toml_add(tp, to, key, at, TOML_ARRAY);
			v->flags = TOML_TABLES;
		} else if (!(v->flags & TOML_TABLES) || v->kind != TOML_ARRAY) {
			toml_twice(tp, at, v);
			return NULL;
		}
		v = toml_add(tp, v, S(""), at, TOML_TABLE);
	} else if (!v) {
		v = toml_add(tp, to, key, at, TOML_TABLE);
	} else if (v->kind != TOML_TABLE || v->flags != TOML_IMPLICIT) {
		toml_twice(tp, at, v);
		return NULL;
	} else {
		v->line = v->vline = tp->line;
		v->col = v->vcol = toml_col(tp, at);
	}
	v->flags = TOML_EXPLICIT;
	return v;
}

/* [a.b] or [[a.b]] */
static bool
toml_header(struct toml_parser *tp, struct toml *root)
{
	bool many = toml_at_text(tp, "[[");
	struct toml *to = root;
	struct slice key;
	const char *at;

	tp->table = toml_scratch(tp); /* for the lines below a bad header */
	tp->depth = tp->table_depth = 1;
	tp->p += many ? 2 : 1;
	toml_blanks(tp);
	at = tp->p;
	if (!toml_key(tp, &key))
		return false;
	while (toml_dot(tp)) {
		if (!toml_deeper(tp, at) || !(to = toml_descend(tp, to, key, at)))
			return false;
		at = tp->p;
		if (!toml_key(tp, &key))
			return false;
	}
	if (!toml_at_text(tp, many ? "]]" : "]"))
		return toml_error(tp, tp->p, "expected '%s'", many ? "]]" : "]");
	tp->p += many ? 2 : 1;
	if (!(to = toml_open(tp, to, key, at, many)))
		return false;
	tp->table = to;
	tp->table_depth = tp->depth;
	return toml_line_end(tp);
}

/* ---- the whole text ---- */

/* Whether a line begins here that is hardly part of an array: `key =`, or a
 * header of letters. */
static bool
toml_resumes(const struct toml_parser *tp)
{
	bool header = toml_at(tp, '[');
	const char *p = tp->p, *from;

	while (header && p < tp->end && *p == '[')
		p++;
	if (header && p < tp->end && !isalpha((unsigned char)*p))
		return false;
	for (from = p; p < tp->end && (toml_is_bare(*p) || *p == '.' || is_blank(*p)); p++)
		;
	return p > from && p < tp->end && *p == (header ? ']' : '=');
}

/* The rest of the line of an error; quotes and brackets as far as they tell
 * where a broken array ends. */
static void
toml_skip_line(struct toml_parser *tp)
{
	char quote = '\0', c;

	while (tp->p < tp->end && *tp->p != '\n') {
		c = *tp->p++;
		if (quote == '"' && c == '\\' && tp->p < tp->end && *tp->p != '\n')
			tp->p++;
		else if (quote)
			quote = c == quote ? '\0' : quote;
		else if (c == '"' || c == '\'')
			quote = c;
		else if (c == '#')
			quote = '\n';
		else if (c == '[' || c == '{')
			tp->open += tp->open > 0;
		else if (c == ']' || c == '}')
			tp->open -= tp->open > 0;
	}
	if (tp->p < tp->end)
		toml_newline(tp);
	toml_blanks(tp);
}

/* Behind an error in what began in that line: to where the next begins. */
static void
toml_recover(struct toml_parser *tp, unsigned began)
{
	const char *p = tp->p;

	if (tp->open > 0 && tp->line > began) { /* perhaps the array never ended */
		tp->p = tp->line_start;
		toml_blanks(tp);
		if (toml_resumes(tp))
			return;
		tp->p = p;
	}
	do
		toml_skip_line(tp);
	while (tp->open > 0 && tp->p < tp->end && !toml_resumes(tp));
}

/* Length of the UTF-8 sequence at p; 0: none. */
static size_t
utf8_length(const unsigned char *p, const unsigned char *end)
{
	size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 :
	    (p[0] & 0xf0) == 0xe0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;

	if (n == 0 || (size_t)(end - p) < n)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

/* Tells the first bad byte of every line. */
static void
toml_check_utf8(struct toml_parser tp)
{
	size_t n;

	while (tp.p < tp.end) {
		n = utf8_length((const unsigned char *)tp.p, (const unsigned char *)tp.end);
		if (n == 0)
			toml_error(&tp, tp.p, "this is not UTF-8");
		while (n == 0 && tp.p < tp.end && *tp.p != '\n')
			tp.p++;
		if (toml_at(&tp, '\n'))
			toml_newline(&tp);
		else
			tp.p += n;
	}
}

/* A header, a key with its value, or an empty line. False: error. */
static bool
toml_statement(struct toml_parser *tp, struct toml *root)
{
	toml_blanks(tp);
	tp->open = 0;
	tp->depth = tp->table_depth;
	if (toml_at(tp, '['))
		return toml_header(tp, root);
	if (tp->p == tp->end || toml_at(tp, '#') || toml_at_newline(tp))
		return toml_line_end(tp);
	return toml_pair(tp, tp->table) && toml_line_end(tp);
}

/* Parses text into a tree in a; what is wrong goes to ds. Never NULL. */
static struct toml *
toml_parse(struct arena *a, struct slice text, struct diags *ds)
{
	struct toml *root = arena_alloc(a, sizeof *root);
	const char *p = text.p ? text.p : "";
	struct toml_parser tp = { .arena = a, .diags = ds, .p = p, .end = p + text.n,
		.line_start = p, .col_at = p, .col = 1, .line = 1, .table = root,
		.value = toml_value };
	unsigned line;

	root->kind = TOML_TABLE;
	root->flags = TOML_EXPLICIT;
	toml_check_utf8(tp);
	if (toml_at_text(&tp, "\xef\xbb\xbf"))
		tp.line_start = tp.p += 3;
	while (tp.p < tp.end && ds->errors < TOML_ERRORS_MAX) {
		line = tp.line;
		if (!toml_statement(&tp, root))
			toml_recover(&tp, line);
	}
	return root;
}
/* ==== http ===================================================================
 * Owns    nothing.
 * Offers  request_parse, response_parse, head_scan, body_of_*, chunk_decode,
 *         body_take, and what is asked of a head.
 * Calls   base. RFC 9110, 9112. Strict: what two parsers could read
 *         differently is refused, never repaired. */

enum {
	METHOD_MAX = 64,
	EMPTY_LINES = 2,           /* before a request line; RFC 9112 2.2 */
	VERSION_LEN = 8,           /* HTTP/1.1 */
	CONNECTION_OPTIONS = 64,   /* in all Connection fields of a head */
	CHUNK_DIGITS_MAX = 16,
	CHUNK_EXT_FREE = 16        /* extension bytes each chunk may bring */
};

enum { CH_TOKEN = 1, CH_VALUE = 2, CH_TARGET = 4, CH_HOST = 8 };

/* What each byte may be part of: a sum of CH_. Rows of 16, from NUL. */
/* clang-format off */
static const uint8_t chars[256] = {
	 0,  0,  0,  0,  0,  0,  0,  0,  0,  2,  0,  0,  0,  0,  0,  0,
	 0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
	 2, 15,  6,  3, 15, 15, 15, 15,  6,  6, 15, 15,  6, 15, 15,  6,
	15, 15, 15, 15, 15, 15, 15, 15, 15, 15,  6,  6,  6, 14,  6,  6,
	 6, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
	15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,  6,  6,  6,  7, 15,
	 7, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
	15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,  6,  7,  6, 15,  0,
	 6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,
	 6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,
	 6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,
	 6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,
	 6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,
	 6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,
	 6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,
	 6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,
};
/* clang-format on */

static bool
all_are(struct slice s, uint8_t bit)
{
	for (size_t i = 0; i < s.n; i++)
		if (!(chars[(unsigned char)s.p[i]] & bit))
			return false;
	return true;
}

/* A control byte is among the eight of w. Bytes that are not ASCII are none. */
static bool
word_has_control(uint64_t w)
{
	const uint64_t ones = UINT64_MAX / UINT8_MAX, high = ones << 7;
	uint64_t del = w ^ ones * 0x7f;

	return (((w - ones * ' ') & ~w) | ((del - ones) & ~del)) & high;
}

/* Where the text that a field value may hold ends: at a byte that it may not
 * hold, or at s.n. */
static size_t
value_end(struct slice s, size_t at)
{
	uint64_t w;

	for (; s.n - at >= sizeof w; at += sizeof w) {
		memcpy(&w, s.p + at, sizeof w);
		if (word_has_control(w))
			break;
	}
	while (at < s.n && chars[(unsigned char)s.p[at]] & CH_VALUE)
		at++;
	return at;
}

static bool
is_token(struct slice s)
{
	return s.n > 0 && all_are(s, CH_TOKEN);
}

static bool
is_field_value(struct slice s)
{
	return value_end(s, 0) == s.n;
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = lower(c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* ---- names ---- */

enum { FIELD_HOP = 1, FIELD_KEPT = 2 /* cannot be named in Connection */ };

static const struct {
	struct slice name;
	uint8_t flags;
} http_fields[FIELD_IDS] = {
	[F_ACCEPT]            = { { "Accept", 6 }, 0 },
	[F_AUTHORIZATION]     = { { "Authorization", 13 }, FIELD_KEPT },
	[F_CONNECTION]        = { { "Connection", 10 }, FIELD_HOP },
	[F_CONTENT_LENGTH]    = { { "Content-Length", 14 }, FIELD_KEPT },
	[F_CONTENT_TYPE]      = { { "Content-Type", 12 }, FIELD_KEPT },
	[F_COOKIE]            = { { "Cookie", 6 }, FIELD_KEPT },
	[F_DATE]              = { { "Date", 4 }, FIELD_KEPT },
	[F_EXPECT]            = { { "Expect", 6 }, FIELD_KEPT },
	[F_FORWARDED]         = { { "Forwarded", 9 }, FIELD_KEPT },
	[F_HOST]              = { { "Host", 4 }, FIELD_KEPT },
	[F_HTTP2_SETTINGS]    = { { "HTTP2-Settings", 14 }, FIELD_HOP },
	[F_KEEP_ALIVE]        = { { "Keep-Alive", 10 }, FIELD_HOP },
	[F_PROXY_AUTHENTICATE] = { { "Proxy-Authenticate", 18 }, FIELD_HOP },
	[F_PROXY_AUTHORIZATION] = { { "Proxy-Authorization", 19 }, FIELD_HOP },
	[F_PROXY_CONNECTION]  = { { "Proxy-Connection", 16 }, FIELD_HOP },
	[F_REFERER]           = { { "Referer", 7 }, 0 },
	[F_SERVER]            = { { "Server", 6 }, FIELD_KEPT },
	[F_TE]                = { { "TE", 2 }, FIELD_HOP },
	[F_TRAILER]           = { { "Trailer", 7 }, FIELD_KEPT },
	[F_TRANSFER_ENCODING] = { { "Transfer-Encoding", 17 }, FIELD_HOP },
	[F_UPGRADE]           = { { "Upgrade", 7 }, FIELD_HOP },
	[F_USER_AGENT]        = { { "User-Agent", 10 }, 0 },
	[F_VIA]               = { { "Via", 3 }, FIELD_KEPT },
	[F_X_ADMIN_TOKEN]     = { { "X-Admin-Token", 13 }, FIELD_KEPT },
	[F_X_FORWARDED_FOR]   = { { "X-Forwarded-For", 15 }, FIELD_KEPT },
	[F_X_FORWARDED_HOST]  = { { "X-Forwarded-Host", 16 }, FIELD_KEPT },
	[F_X_FORWARDED_PORT]  = { { "X-Forwarded-Port", 16 }, FIELD_KEPT },
	[F_X_FORWARDED_PROTO] = { { "X-Forwarded-Proto", 17 }, FIELD_KEPT },
	[F_X_REAL_IP]         = { { "X-Real-IP", 9 }, FIELD_KEPT },
	[F_X_REQUEST_ID]      = { { "X-Request-Id", 12 }, FIELD_KEPT },
};

/* Fields of no id that Connection cannot name, and that no trailer may be. */
static const struct slice kept_names[] = {
	{ "Set-Cookie", 10 }, { "Cache-Control", 13 }, { "Location", 8 }, { "WWW-Authenticate", 16 },
	{ "Range", 5 }, { "If-Match", 8 }, { "If-None-Match", 13 }, { "If-Modified-Since", 17 },
	{ "If-Unmodified-Since", 19 }, { "If-Range", 8 }, { "Max-Forwards", 12 }, { "Pragma", 6 },
	{ "Vary", 4 }, { "Age", 3 }, { "Expires", 7 }, { "Retry-After", 11 },
};

static const struct slice kept_prefixes[] = { { "Content-", 8 }, { "X-Forwarded-", 12 } };

/* Length, first letter and last but one tell all names of http_fields[] apart;
 * should a new one fall on a taken slot, the compiler says so. */
#define FIELD_SLOT(n, first, near_last) (((n) + (first) * 33u + (near_last) * 39u) % 64u)

/* clang-format off */
static const uint8_t field_slots[64] = {
	[FIELD_SLOT(6, 'a', 'p')] = F_ACCEPT,
	[FIELD_SLOT(13, 'a', 'o')] = F_AUTHORIZATION,
	[FIELD_SLOT(10, 'c', 'o')] = F_CONNECTION,
	[FIELD_SLOT(14, 'c', 't')] = F_CONTENT_LENGTH,
	[FIELD_SLOT(12, 'c', 'p')] = F_CONTENT_TYPE,
	[FIELD_SLOT(6, 'c', 'i')] = F_COOKIE,
	[FIELD_SLOT(4, 'd', 't')] = F_DATE,
	[FIELD_SLOT(6, 'e', 'c')] = F_EXPECT,
	[FIELD_SLOT(9, 'f', 'e')] = F_FORWARDED,
	[FIELD_SLOT(4, 'h', 's')] = F_HOST,
	[FIELD_SLOT(14, 'h', 'g')] = F_HTTP2_SETTINGS,
	[FIELD_SLOT(10, 'k', 'v')] = F_KEEP_ALIVE,
	[FIELD_SLOT(18, 'p', 't')] = F_PROXY_AUTHENTICATE,
	[FIELD_SLOT(19, 'p', 'o')] = F_PROXY_AUTHORIZATION,
	[FIELD_SLOT(16, 'p', 'o')] = F_PROXY_CONNECTION,
	[FIELD_SLOT(7, 'r', 'e')] = F_REFERER,
	[FIELD_SLOT(6, 's', 'e')] = F_SERVER,
	[FIELD_SLOT(2, 't', 't')] = F_TE,
	[FIELD_SLOT(7, 't', 'e')] = F_TRAILER,
	[FIELD_SLOT(17, 't', 'n')] = F_TRANSFER_ENCODING,
	[FIELD_SLOT(7, 'u', 'd')] = F_UPGRADE,
	[FIELD_SLOT(10, 'u', 'n')] = F_USER_AGENT,
	[FIELD_SLOT(3, 'v', 'i')] = F_VIA,
	[FIELD_SLOT(13, 'x', 'e')] = F_X_ADMIN_TOKEN,
	[FIELD_SLOT(15, 'x', 'o')] = F_X_FORWARDED_FOR,
	[FIELD_SLOT(16, 'x', 's')] = F_X_FORWARDED_HOST,
	[FIELD_SLOT(16, 'x', 'r')] = F_X_FORWARDED_PORT,
	[FIELD_SLOT(17, 'x', 't')] = F_X_FORWARDED_PROTO,
	[FIELD_SLOT(9, 'x', 'i')] = F_X_REAL_IP,
	[FIELD_SLOT(12, 'x', 'i')] = F_X_REQUEST_ID,
};
/* clang-format on */

static enum field_id
field_id_of(struct slice name)
{
	unsigned first, near_last;
	enum field_id id;

	if (name.n < 2)
		return F_OTHER;
	first = (unsigned char)lower(name.p[0]);
	near_last = (unsigned char)lower(name.p[name.n - 2]);
	id = field_slots[FIELD_SLOT(name.n, first, near_last)];
	return slice_ieq(name, http_fields[id].name) ? id : F_OTHER;
}

static const struct slice method_names[METHODS] = {
	[M_OTHER] = { "", 0 },          [M_GET] = { "GET", 3 },
	[M_HEAD] = { "HEAD", 4 },       [M_POST] = { "POST", 4 },
	[M_PUT] = { "PUT", 3 },         [M_DELETE] = { "DELETE", 6 },
	[M_PATCH] = { "PATCH", 5 },     [M_OPTIONS] = { "OPTIONS", 7 },
	[M_TRACE] = { "TRACE", 5 },     [M_CONNECT] = { "CONNECT", 7 },
};

static enum method
method_of(struct slice s)
{
	for (int i = M_OTHER + 1; i < METHODS; i++)
		if (slice_eq(s, method_names[i]))
			return (enum method)i;
	return M_OTHER;
}

static const char *
status_text(int status)
{
	static const struct { int status; const char *text; } texts[] = {
		{ 100, "Continue" }, { 101, "Switching Protocols" },
		{ 102, "Processing" }, { 103, "Early Hints" }, { 200, "OK" },
		{ 201, "Created" }, { 202, "Accepted" },
		{ 203, "Non-Authoritative Information" }, { 204, "No Content" },
		{ 205, "Reset Content" }, { 206, "Partial Content" },
		{ 207, "Multi-Status" }, { 208, "Already Reported" }, { 226, "IM Used" },
		{ 300, "Multiple Choices" }, { 301, "Moved Permanently" },
		{ 302, "Found" }, { 303, "See Other" }, { 304, "Not Modified" },
		{ 305, "Use Proxy" }, { 307, "Temporary Redirect" },
		{ 308, "Permanent Redirect" }, { 400, "Bad Request" },
		{ 401, "Unauthorized" }, { 402, "Payment Required" },
		{ 403, "Forbidden" }, { 404, "Not Found" }, { 405, "Method Not Allowed" },
		{ 406, "Not Acceptable" }, { 407, "Proxy Authentication Required" },
		{ 408, "Request Timeout" }, { 409, "Conflict" }, { 410, "Gone" },
		{ 411, "Length Required" }, { 412, "Precondition Failed" },
		{ 413, "Content Too Large" }, { 414, "URI Too Long" },
		{ 415, "Unsupported Media Type" }, { 416, "Range Not Satisfiable" },
		{ 417, "Expectation Failed" }, { 418, "I'm a teapot" },
		{ 421, "Misdirected Request" }, { 422, "Unprocessable Content" },
		{ 423, "Locked" }, { 424, "Failed Dependency" }, { 425, "Too Early" },
		{ 426, "Upgrade Required" }, { 428, "Precondition Required" },
		{ 429, "Too Many Requests" }, { 431, "Request Header Fields Too Large" },
		{ 451, "Unavailable For Legal Reasons" },
		{ 500, "Internal Server Error" }, { 501, "Not Implemented" },
		{ 502, "Bad Gateway" }, { 503, "Service Unavailable" },
		{ 504, "Gateway Timeout" }, { 505, "HTTP Version Not Supported" },
		{ 506, "Variant Also Negotiates" }, { 507, "Insufficient Storage" },
		{ 508, "Loop Detected" }, { 511, "Network Authentication Required" },
	};

	for (size_t i = 0; i < LEN(texts); i++)
		if (texts[i].status == status)
			return texts[i].text;
	return "Status"; /* not in the IANA registry */
}

/* ---- lines ---- */

/* How many bytes of empty lines stand before a request line. RFC 9112 2.2. */
static size_t
lines_empty(struct slice in)
{
	size_t at = 0;

	while (at < 2 * EMPTY_LINES && in.n - at >= 2 && in.p[at] == '\r' && in.p[at + 1] == '\n')
		at += 2;
	return at;
}

/* Looks for the empty line that ends a head, on from *scanned. Returns bytes
 * up to its end, 0 when it is not there yet, -400 for a bare LF or a head that
 * begins with too many empty lines. */
static int
head_scan(struct slice in, uint32_t *scanned)
{
	size_t start = lines_empty(in), at = MAX((size_t)*scanned, start), i;
	const char *lf;

	for (; at < in.n && (lf = memchr(in.p + at, '\n', in.n - at)); at = i + 1) {
		i = (size_t)(lf - in.p);
		if (i < start + 2 || in.p[i - 1] != '\r')
			return -400;
		if (in.p[i - 2] == '\n')
			return (int)(i + 1);
	}
	*scanned = (uint32_t)in.n;
	return 0;
}

/* Steps over the CRLF at *at: 1, 0 when it is not there yet, -1 when something
 * else is. A bare CR or LF ends nothing: stricter than RFC 9112 2.2. */
static int
line_end(struct slice in, size_t *at)
{
	if (*at == in.n)
		return 0;
	if (in.p[*at] != '\r')
		return -1;
	if (*at + 1 == in.n)
		return 0;
	if (in.p[*at + 1] != '\n')
		return -1;
	*at += 2;
	return 1;
}

/* ---- fields ---- */

static void
field_count(struct head *h, enum field_id id)
{
	if (id == F_OTHER)
		return;
	if (!h->first[id])
		h->first[id] = (uint16_t)h->n;
	if (h->count[id] < UINT8_MAX)
		h->count[id]++;
}

/* The field line at *at: 1, 0 unfinished, -1 malformed. RFC 9112 5; obs-fold
 * is refused. */
static int
field_parse(struct head *h, struct slice in, size_t *at)
{
	struct field *f = &h->f[h->n];
	size_t start = *at, colon = start, value, end;
	int got;

	while (colon < in.n && chars[(unsigned char)in.p[colon]] & CH_TOKEN)
		colon++;
	if (colon == in.n)
		return 0;
	if (colon == start || in.p[colon] != ':')
		return -1;
	for (value = colon + 1; value < in.n && is_blank(in.p[value]); value++)
		;
	end = *at = value_end(in, value);
	if ((got = line_end(in, at)) <= 0)
		return got;
	while (end > value && is_blank(in.p[end - 1]))
		end--;
	f->name = (struct slice){ in.p + start, colon - start };
	f->value = (struct slice){ in.p + value, end - value };
	f->start = in.p + start;
	f->end = in.p + *at;
	f->drop = false;
	f->id = (uint8_t)field_id_of(f->name);
	h->n++;
	field_count(h, (enum field_id)f->id);
	return 1;
}

/* All field lines at *at and the empty one: 1, 0 unfinished, -1 malformed, -2
 * too many. */
static int
fields_parse(struct head *h, struct slice in, size_t *at)
{
	int got;

	h->n = 0;
	memset(h->first, 0, sizeof h->first);
	memset(h->count, 0, sizeof h->count);
	while (*at < in.n && in.p[*at] != '\r') {
		if (h->n == FIELDS_MAX)
			return -2;
		if ((got = field_parse(h, in, at)) <= 0)
			return got;
	}
	return line_end(in, at);
}

static const struct field *
head_field(const struct head *h, enum field_id id)
{
	return h->first[id] ? &h->f[h->first[id] - 1] : NULL;
}

/* The token is a member of the comma lists in such fields. */
static bool
head_has(const struct head *h, enum field_id id, const char *token)
{
	struct slice want = slice_of(token), rest, item;

	for (int i = h->first[id] - 1; h->first[id] && i < h->n; i++) {
		if (h->f[i].id != id)
			continue;
		rest = h->f[i].value;
		while (slice_list_next(&rest, &item))
			if (slice_ieq(item, want))
				return true;
	}
	return false;
}

static bool
name_is_kept(const struct field *f)
{
	if (f->id != F_OTHER)
		return http_fields[f->id].flags & FIELD_KEPT;
	for (size_t i = 0; i < LEN(kept_prefixes); i++)
		if (f->name.n > kept_prefixes[i].n &&
		    slice_ieq((struct slice){ f->name.p, kept_prefixes[i].n }, kept_prefixes[i]))
			return true;
	for (size_t i = 0; i < LEN(kept_names); i++)
		if (slice_ieq(f->name, kept_names[i]))
			return true;
	return false;
}

/* Connection names no more options than will be looked at. */
static bool
connection_is_short(const struct head *h)
{
	struct slice rest, item;
	int n = 0;

	for (int i = h->first[F_CONNECTION] - 1; h->count[F_CONNECTION] && i < h->n; i++) {
		rest = h->f[i].id == F_CONNECTION ? h->f[i].value : (struct slice){ NULL, 0 };
		while (slice_cut(&rest, ',', &item))
			if (++n > CONNECTION_OPTIONS)
				return false;
	}
	return true;
}

/* Marks what ends here: hop-by-hop fields and those that Connection names,
 * unless somebody would gain by stripping them. RFC 9110 7.6.1. */
static void
head_hop_by_hop(struct head *h)
{
	for (int i = 0; i < h->n; i++)
		if (h->f[i].id != F_OTHER && http_fields[h->f[i].id].flags & FIELD_HOP)
			h->f[i].drop = true;
	if (h->count[F_CONNECTION] == 0)
		return;
	for (int i = 0; i < h->n; i++) {
		struct slice rest = h->f[i].value, item;
		if (h->f[i].id != F_CONNECTION)
			continue;
		while (slice_list_next(&rest, &item))
			for (int k = 0; k < h->n; k++)
				if (slice_ieq(h->f[k].name, item) && !name_is_kept(&h->f[k]))
					h->f[k].drop = true;
	}
}

/* ---- request line ---- */

/* The bytes of s up to its port: a reg-name, IPv4, or [v6]; 0: malformed. */
static size_t
host_name_end(struct slice s)
{
	char text[INET6_ADDRSTRLEN];
	struct in6_addr v6;
	const char *close;
	size_t i;

	if (s.p[0] == '[') {
		close = memchr(s.p, ']', MIN(s.n, sizeof text));
		i = close ? (size_t)(close - s.p) : 0;
		if (i == 0 || memchr(s.p, '\0', i))
			return 0;
		memcpy(text, s.p + 1, i - 1);
		text[i - 1] = '\0';
		return inet_pton(AF_INET6, text, &v6) == 1 ? i + 1 : 0;
	}
	for (i = 0; i < s.n && chars[(unsigned char)s.p[i]] & CH_HOST; i++)
		if (s.p[i] == '%' && (s.n - i < 3 || hex_value(s.p[i + 1]) < 0 ||
		    hex_value(s.p[i + 2]) < 0))
			return 0;
	return i;
}

/* uri-host and an optional port; may be empty. RFC 9110 7.2. Delimiters that a
 * reg-name could hold, as "," and ";", are refused: stricter than RFC 3986. */
static bool
is_host(struct slice s)
{
	struct slice port;
	size_t end;

	if (s.n == 0)
		return true;
	if ((end = host_name_end(s)) == 0)
		return false;
	if (end == s.n)
		return true;
	port = slice_from(s, end + 1);
	return s.p[end] == ':' && (port.n == 0 || slice_uint(port, UINT16_MAX) >= 0);
}

static void
target_split(struct head *h, struct slice t)
{
	const char *q = t.n ? memchr(t.p, '?', t.n) : NULL;

	h->has_query = q != NULL;
	h->path = q ? (struct slice){ t.p, (size_t)(q - t.p) } : t;
	h->query = q ? slice_from(t, h->path.n + 1) : (struct slice){ "", 0 };
	if (h->path.n == 0)
		h->path = S("/");
	h->path_plain = true;
	for (size_t i = 0; i < h->path.n; i++)
		if (h->path.p[i] == '%' || h->path.p[i] == '\\' ||
		    (h->path.p[i] == '/' && i + 1 < h->path.n &&
		    (h->path.p[i + 1] == '/' || h->path.p[i + 1] == '.')))
			h->path_plain = false;
}

/* scheme://authority and the rest; the authority wins over Host. RFC 9112
 * 3.2.2. 0 or -400. */
static int
target_absolute(struct head *h)
{
	static const struct slice schemes[] = { { "http://", 7 }, { "https://", 8 } };
	struct slice t = h->target, authority;
	size_t i = 0, n = 0;

	while (i < LEN(schemes) && (t.n <= schemes[i].n ||
	    !slice_ieq((struct slice){ t.p, schemes[i].n }, schemes[i])))
		i++;
	if (i == LEN(schemes))
		return -400;
	authority = slice_from(t, schemes[i].n);
	while (n < authority.n && authority.p[n] != '/' && authority.p[n] != '?')
		n++;
	target_split(h, slice_from(authority, n));
	authority.n = n;
	h->form = TARGET_ABSOLUTE;
	h->host = authority;
	h->has_host = true;
	return n > 0 && authority.p[0] != ':' && is_host(authority) ? 0 : -400;
}

/* RFC 9112 3.2. 0 or -status. */
static int
target_parse(struct head *h)
{
	struct slice t = h->target;

	if (h->method == M_CONNECT)
		return -501;
	h->form = TARGET_ORIGIN;
	if (t.p[0] == '/') {
		target_split(h, t);
		return 0;
	}
	if (t.n == 1 && t.p[0] == '*') {
		h->form = TARGET_ASTERISK;
		target_split(h, S("/"));
		return h->method == M_OPTIONS ? 0 : -400;
	}
	return target_absolute(h);
}

/* A run of bytes of that class at *at, and the space behind it. 1, 0
 * unfinished, -1 malformed. */
static int
word_take(struct slice in, size_t *at, uint8_t class, struct slice *word)
{
	size_t from = *at;

	while (*at < in.n && chars[(unsigned char)in.p[*at]] & class)
		++*at;
	*word = (struct slice){ in.p + from, *at - from };
	if (*at == in.n)
		return 0;
	return word->n > 0 && in.p[(*at)++] == ' ' ? 1 : -1;
}

/* HTTP/d.d at *at: 1, 0 unfinished, or -status. RFC 9112 2.3. */
static int
version_take(struct slice in, size_t *at, int *minor)
{
	struct slice v = { in.p + *at, MIN(in.n - *at, (size_t)VERSION_LEN) };

	if (memcmp(v.p, "HTTP/", MIN(v.n, (size_t)5)) != 0)
		return -400;
	if (v.n < VERSION_LEN)
		return 0;
	if (!isdigit((unsigned char)v.p[5]) || v.p[6] != '.' || !isdigit((unsigned char)v.p[7]))
		return -400;
	if (v.p[5] != '1')
		return -505;
	*minor = v.p[7] != '0';
	*at += VERSION_LEN;
	return 1;
}

/* method SP target SP version CRLF: 1, 0 unfinished, or -status. RFC 9112 3. */
static int
request_line(struct head *h, struct slice in, size_t *at)
{
	int got = word_take(in, at, CH_TOKEN, &h->method_text);

	if (got < 0 || h->method_text.n > METHOD_MAX)
		return -400;
	if (got == 0)
		return 0;
	got = word_take(in, at, CH_TARGET, &h->target);
	if (h->target.n > TARGET_MAX)
		return -414;
	if (got <= 0)
		return got == 0 ? 0 : -400;
	if ((got = version_take(in, at, &h->minor)) <= 0)
		return got;
	if ((got = line_end(in, at)) <= 0)
		return got == 0 ? 0 : -400;
	h->method = method_of(h->method_text);
	got = target_parse(h);
	return got < 0 ? got : 1;
}

/* RFC 9112 3.2. 0 or -400. */
static int
host_parse(struct head *h)
{
	const struct field *f = head_field(h, F_HOST);

	if (h->count[F_HOST] > 1 || (!f && h->minor > 0) || (f && !is_host(f->value)))
		return -400;
	if (f && h->form != TARGET_ABSOLUTE) {
		h->host = f->value;
		h->has_host = true;
	}
	return 0;
}

/* A request head at the front of in. Returns bytes eaten, 0 unfinished, or
 * minus the status to answer with: as soon as what there is cannot become a
 * request. */
static int
request_parse(struct head *h, struct slice in)
{
	size_t at = lines_empty(in);
	int got;

	h->host = (struct slice){ NULL, 0 };
	h->has_host = false;
	h->status = 0;
	if (in.n - at == 1 && in.p[at] == '\r' && at < 2 * EMPTY_LINES)
		return 0;
	if ((got = request_line(h, in, &at)) <= 0)
		return got;
	if ((got = fields_parse(h, in, &at)) <= 0)
		return got == 0 ? 0 : got == -2 ? -431 : -400;
	if (host_parse(h) < 0 || !connection_is_short(h))
		return -400;
	return (int)at;
}

/* HTTP/1.d SP 3DIGIT [SP reason] CRLF: 1, 0 unfinished, -1. RFC 9112 4. */
static int
status_line(struct head *h, struct slice in, size_t *at)
{
	enum { STATUS_LEN = 5 /* with the space before and behind */ };
	struct slice code;
	size_t from;
	int got;

	if ((got = version_take(in, at, &h->minor)) <= 0)
		return got;
	code = (struct slice){ in.p + *at, MIN(in.n - *at, (size_t)STATUS_LEN) };
	if (code.n < STATUS_LEN)
		return memchr(code.p, '\n', code.n) ? -1 : 0;
	h->status = (int)slice_uint((struct slice){ code.p + 1, 3 }, 599);
	if (code.p[0] != ' ' || h->status < 100 || (code.p[4] != ' ' && code.p[4] != '\r'))
		return -1;
	*at += code.p[4] == ' ' ? STATUS_LEN : STATUS_LEN - 1;
	from = *at;
	*at = value_end(in, from);
	h->reason = (struct slice){ in.p + from, *at - from };
	return line_end(in, at);
}

/* A response head at the front of in. Bytes eaten, 0 unfinished, -502. */
static int
response_parse(struct head *h, struct slice in)
{
	size_t at = 0;
	int got;

	if ((got = status_line(h, in, &at)) <= 0 || (got = fields_parse(h, in, &at)) <= 0)
		return got == 0 ? 0 : -502;
	return connection_is_short(h) ? (int)at : -502;
}

/* ---- bodies ---- */

/* What all Transfer-Encoding fields say: 1 chunked alone, 0 other codings before
 * it, -1 malformed, or chunked twice or not last. RFC 9112 6.1. */
static int
coding_of(const struct head *h)
{
	struct slice rest, item;
	int chunked = 0, others = 0;

	for (int i = 0; i < h->n; i++) {
		if (h->f[i].id != F_TRANSFER_ENCODING)
			continue;
		rest = h->f[i].value;
		while (slice_cut(&rest, ',', &item)) {
			item = slice_trim(item);
			if (chunked || !is_token(item))
				return -1;
			if (slice_ieq(item, S("chunked")))
				chunked++;
			else
				others++;
		}
	}
	return !chunked ? -1 : others ? 0 : 1;
}

/* Content-Length once, digits only: stricter than RFC 9110 8.6, which lets
 * equal ones be merged. -1: not so. */
static int64_t
length_of(const struct head *h)
{
	return h->count[F_CONTENT_LENGTH] == 1
	    ? slice_uint(head_field(h, F_CONTENT_LENGTH)->value, INT64_MAX) : -1;
}

static void
body_set(struct body *b, enum body_kind kind, uint64_t left)
{
	*b = (struct body){ .kind = kind, .left = left,
		.done = kind == BODY_NONE || (kind == BODY_LENGTH && left == 0) };
}

/* How the request's body ends: 0, or minus the status. RFC 9112 6.3. */
static int
body_of_request(struct body *b, const struct head *h)
{
	int64_t n;
	int coding;

	body_set(b, BODY_NONE, 0);
	if (h->count[F_TRANSFER_ENCODING] > 0) {
		if (h->count[F_CONTENT_LENGTH] > 0 || h->minor == 0 || (coding = coding_of(h)) < 0)
			return -400;
		body_set(b, BODY_CHUNKED, 0);
		return coding ? 0 : -501;
	}
	if (h->count[F_CONTENT_LENGTH] == 0)
		return 0;
	if ((n = length_of(h)) < 0)
		return -400;
	body_set(b, BODY_LENGTH, (uint64_t)n);
	return 0;
}

/* The same for the response to a request of that method: 0 or -502. */
static int
body_of_response(struct body *b, const struct head *h, enum method m)
{
	int64_t n = 0;

	body_set(b, BODY_NONE, 0);
	if (h->count[F_TRANSFER_ENCODING] > 0 &&
	    (h->count[F_CONTENT_LENGTH] > 0 || coding_of(h) != 1))
		return -502;
	if (h->count[F_CONTENT_LENGTH] > 0 && (n = length_of(h)) < 0)
		return -502;
	if (m == M_HEAD || h->status < 200 || h->status == 204 || h->status == 304)
		return 0;
	if (h->count[F_TRANSFER_ENCODING] > 0)
		body_set(b, BODY_CHUNKED, 0);
	else if (h->count[F_CONTENT_LENGTH] > 0)
		body_set(b, BODY_LENGTH, (uint64_t)n);
	else
		body_set(b, BODY_CLOSE, 0);
	return 0;
}

/* How many of n bytes that came belong to a body without chunks. */
static size_t
body_take(struct body *b, size_t n)
{
	if (b->kind == BODY_NONE)
		return 0;
	if (b->kind == BODY_LENGTH) {
		n = (size_t)MIN((uint64_t)n, b->left);
		b->left -= n;
		b->done = b->left == 0;
	}
	b->total += n;
	return n;
}

/* ---- chunks ---- */

/* A trailer line is whole: checked, and cut off again when it is one that may
 * not come behind the body. RFC 9110 6.5.1. -1: malformed. */
static int
trailer_check(struct body *b, struct text *t)
{
	struct slice line = { t->p + b->line_at, t->n - b->line_at - 2 };
	struct field f = { .name = line };

	for (f.name.n = 0; f.name.n < line.n && chars[(unsigned char)line.p[f.name.n]] & CH_TOKEN;)
		f.name.n++;
	if (f.name.n == 0 || f.name.n == line.n || line.p[f.name.n] != ':' ||
	    !is_field_value(slice_from(line, f.name.n + 1)))
		return -1;
	f.id = (uint8_t)field_id_of(f.name);
	if (name_is_kept(&f) || (f.id != F_OTHER && http_fields[f.id].flags))
		t->n = b->line_at;
	b->line_at = (uint32_t)t->n;
	return 0;
}

/* One byte of a trailer part. -1: malformed or too long. */
static int
trailer_byte(struct body *b, char c, struct text *t)
{
	if (++b->ext_bytes > CHUNK_EXT_MAX)
		return -1;
	text_char(t, c);
	if (t->full)
		return -1;
	if (b->chunk == CHUNK_TRAILER_LF) {
		b->chunk = CHUNK_TRAILER;
		return c == '\n' ? trailer_check(b, t) : -1;
	}
	b->chunk = c == '\r' ? CHUNK_TRAILER_LF : CHUNK_TRAILING;
	return c == '\n' ? -1 : 0;
}

/* A digit of the size, or what follows the digits. */
static int
chunk_size_byte(struct body *b, char c)
{
	int v = hex_value(c);

	if (v >= 0) {
		if (b->left > (uint64_t)INT64_MAX >> 4 || ++b->digits > CHUNK_DIGITS_MAX)
			return -1;
		b->left = b->left << 4 | (unsigned)v;
		b->chunk = CHUNK_DIGITS;
		return 0;
	}
	if (b->chunk == CHUNK_SIZE || (c != '\r' && c != ';' && !is_blank(c)))
		return -1;
	b->chunk = c == '\r' ? CHUNK_SIZE_LF : c == ';' ? CHUNK_EXT : CHUNK_BWS;
	return 0;
}

enum ext_class {
	EXT_BLANK, EXT_SEMICOLON, EXT_EQUALS, EXT_QUOTE, EXT_BACKSLASH, EXT_CR,
	EXT_TOKEN, EXT_TEXT, EXT_BAD, EXT_CLASSES
};

/* The grammar of extensions, *( BWS ; BWS token [ BWS = BWS ( token /
 * quoted-string ) ] ): what each byte leads to. CHUNK_SIZE: it may not stand
 * there. RFC 9112 7.1.1. */
/* clang-format off */
static const uint8_t ext_next[CHUNK_EXT_END + 1][EXT_CLASSES] = {
	[CHUNK_BWS]       = { [EXT_BLANK] = CHUNK_BWS, [EXT_SEMICOLON] = CHUNK_EXT },
	[CHUNK_EXT]       = { [EXT_BLANK] = CHUNK_EXT, [EXT_TOKEN] = CHUNK_EXT_NAME },
	[CHUNK_EXT_NAME]  = { [EXT_BLANK] = CHUNK_EXT_NAMED, [EXT_SEMICOLON] = CHUNK_EXT,
	                      [EXT_EQUALS] = CHUNK_EXT_EQUALS, [EXT_CR] = CHUNK_SIZE_LF,
	                      [EXT_TOKEN] = CHUNK_EXT_NAME },
	[CHUNK_EXT_NAMED] = { [EXT_BLANK] = CHUNK_EXT_NAMED, [EXT_SEMICOLON] = CHUNK_EXT,
	                      [EXT_EQUALS] = CHUNK_EXT_EQUALS },
	[CHUNK_EXT_EQUALS] = { [EXT_BLANK] = CHUNK_EXT_EQUALS, [EXT_QUOTE] = CHUNK_QUOTED,
	                      [EXT_TOKEN] = CHUNK_EXT_VALUE },
	[CHUNK_EXT_VALUE] = { [EXT_BLANK] = CHUNK_BWS, [EXT_SEMICOLON] = CHUNK_EXT,
	                      [EXT_CR] = CHUNK_SIZE_LF, [EXT_TOKEN] = CHUNK_EXT_VALUE },
	[CHUNK_QUOTED]    = { [EXT_BLANK] = CHUNK_QUOTED, [EXT_SEMICOLON] = CHUNK_QUOTED,
	                      [EXT_EQUALS] = CHUNK_QUOTED, [EXT_QUOTE] = CHUNK_EXT_END,
	                      [EXT_BACKSLASH] = CHUNK_ESCAPED, [EXT_TOKEN] = CHUNK_QUOTED,
	                      [EXT_TEXT] = CHUNK_QUOTED },
	[CHUNK_ESCAPED]   = { [EXT_BLANK] = CHUNK_QUOTED, [EXT_SEMICOLON] = CHUNK_QUOTED,
	                      [EXT_EQUALS] = CHUNK_QUOTED, [EXT_QUOTE] = CHUNK_QUOTED,
	                      [EXT_BACKSLASH] = CHUNK_QUOTED, [EXT_TOKEN] = CHUNK_QUOTED,
	                      [EXT_TEXT] = CHUNK_QUOTED },
	[CHUNK_EXT_END]   = { [EXT_BLANK] = CHUNK_BWS, [EXT_SEMICOLON] = CHUNK_EXT,
	                      [EXT_CR] = CHUNK_SIZE_LF },
};
/* clang-format on */

static enum ext_class
ext_class_of(char c)
{
	uint8_t may = chars[(unsigned char)c];

	switch (c) {
	case ' ':
	case '\t': return EXT_BLANK;
	case ';': return EXT_SEMICOLON;
	case '=': return EXT_EQUALS;
	case '"': return EXT_QUOTE;
	case '\\': return EXT_BACKSLASH;
	case '\r': return EXT_CR;
	default: return may & CH_TOKEN ? EXT_TOKEN : may & CH_VALUE ? EXT_TEXT : EXT_BAD;
	}
}

/* Extensions mean nothing to a proxy; their form and number are checked. */
static int
chunk_ext_byte(struct body *b, char c)
{
	b->chunk = (enum chunk_state)ext_next[b->chunk][ext_class_of(c)];
	return b->chunk == CHUNK_SIZE || ++b->ext_bytes > CHUNK_EXT_MAX ? -1 : 0;
}

/* The end of a size line. Content pays for extensions, so that no flood of
 * small chunks with long ones goes on for ever. */
static int
chunk_size_end(struct body *b, char c)
{
	uint64_t paid = CHUNK_EXT_FREE + b->left;

	b->ext_bytes = b->left > 0 && b->ext_bytes > paid ? b->ext_bytes - (uint32_t)paid : 0;
	b->digits = 0;
	b->chunk = b->left > 0 ? CHUNK_DATA : CHUNK_TRAILER;
	return c == '\n' ? 0 : -1;
}

/* Framing, a byte at a time. -1: malformed. */
static int
chunk_byte(struct body *b, char c, struct text *trailers)
{
	switch (b->chunk) {
	case CHUNK_SIZE:
	case CHUNK_DIGITS:
		return chunk_size_byte(b, c);
	case CHUNK_SIZE_LF:
		return chunk_size_end(b, c);
	case CHUNK_DATA_CR:
		b->chunk = CHUNK_DATA_LF;
		return c == '\r' ? 0 : -1;
	case CHUNK_DATA_LF:
		b->chunk = CHUNK_SIZE;
		return c == '\n' ? 0 : -1;
	case CHUNK_TRAILER:
		if (c != '\r')
			return trailer_byte(b, c, trailers);
		b->chunk = CHUNK_END_LF;
		return 0;
	case CHUNK_END_LF:
		if (c != '\n')
			return -1;
		b->chunk = CHUNK_DONE;
		b->done = true;
		return 0;
	case CHUNK_TRAILING:
	case CHUNK_TRAILER_LF:
		return trailer_byte(b, c, trailers);
	default:
		return chunk_ext_byte(b, c);
	}
}

/* Decodes n bytes at p in place: *content bytes of the body end up at p.
 * Returns how many bytes were used; what is behind them stays where it is. -1:
 * malformed. Stops before the first trailer line, with need_trailers set, when
 * trailers has no room at all: the caller brings some and calls again. */
static ssize_t
chunk_decode(struct body *b, char *p, size_t n, size_t *content, struct text *trailers)
{
	size_t at = 0, run;

	*content = 0;
	b->need_trailers = false;
	while (at < n && !b->done) {
		if (b->chunk == CHUNK_DATA) {
			run = (size_t)MIN((uint64_t)(n - at), b->left);
			if (at != *content)
				memmove(p + *content, p + at, run);
			*content += run;
			at += run;
			b->total += run;
			b->left -= run;
			if (b->left == 0)
				b->chunk = CHUNK_DATA_CR;
			continue;
		}
		if (b->chunk == CHUNK_TRAILER && p[at] != '\r' && trailers->cap == 0) {
			b->need_trailers = true;
			break;
		}
		if (chunk_byte(b, p[at++], trailers) < 0)
			return -1;
	}
	return (ssize_t)at;
}

/* ==== path ===================================================================
 * Owns    the normalised view of the path in hand.
 * Offers  path_plain, path_normalise, path_encode, query_has.
 * Calls   base, http. Routes match this view, so that no spelling slips past a
 *         guarded one; RFC 3986 6.2.2. */

static char path_buf[PATH_PAD + TARGET_MAX + 1]; /* the pad stays zero */

/* A path that is its own normalised view. */
static void
path_plain(struct slice raw, struct path_view *v)
{
	char *to = path_buf + PATH_PAD;

	memcpy(to, raw.p, raw.n);
	to[raw.n] = '\0';
	v->path = (struct slice){ to, raw.n };
}

/* The byte that %XX stands for, -1 when it is not that. */
static int
percent_value(struct slice s)
{
	int high, low;

	if (s.n < 3 || s.p[0] != '%' || (high = hex_value(s.p[1])) < 0 ||
	    (low = hex_value(s.p[2])) < 0)
		return -1;
	return high << 4 | low;
}

/* One segment, decoded behind *n. An encoded slash or percent sign stays
 * encoded. -1: malformed, or a NUL. */
static int
segment_decode(struct slice s, char *to, size_t *n)
{
	int c;

	for (size_t i = 0; i < s.n; i++) {
		c = s.p[i] == '%' ? percent_value(slice_from(s, i)) : (unsigned char)s.p[i];
		if (c <= 0)
			return -1;
		if (s.p[i] == '%')
			i += 2;
		if (c != '/' && c != '%') {
			to[(*n)++] = (char)c;
			continue;
		}
		memcpy(to + *n, c == '/' ? "%2F" : "%25", 3);
		*n += 3;
	}
	return 0;
}

static bool
is_dots(struct slice s)
{
	return slice_eq(s, S(".")) || slice_eq(s, S(".."));
}

/* A dot segment stands in a decoded segment, beside an encoded slash or a
 * backslash, which some backends take for one: `..%2F`, `..\`. */
static bool
hides_dots(struct slice s)
{
	size_t from = 0, skip;

	for (size_t i = 0; i < s.n; i += skip) {
		bool slash = s.n - i >= 3 && memcmp(s.p + i, "%2F", 3) == 0;
		skip = slash ? 3 : 1;
		if (!slash && s.p[i] != '\\')
			continue;
		if (is_dots((struct slice){ s.p + from, i - from }))
			return true;
		from = i + skip;
	}
	return from > 0 && is_dots(slice_from(s, from));
}

/* Percent-decoded but for %2F and %25, dot segments resolved, slashes merged.
 * 0, or -400: malformed, a NUL, or above the root. The view is good until the
 * next call, has a NUL behind it and PATH_PAD zero bytes before. */
static int
path_normalise(struct slice raw, struct path_view *v)
{
	char *to = path_buf + PATH_PAD;
	struct slice rest = raw, seg, done;
	size_t n = 0, start;

	if (raw.n == 0 || raw.n > TARGET_MAX || raw.p[0] != '/')
		return -400;
	to[n++] = '/';
	rest = slice_from(raw, 1);
	while (slice_cut(&rest, '/', &seg)) {
		start = n;
		if (segment_decode(seg, to, &n) < 0)
			return -400;
		done = (struct slice){ to + start, n - start };
		if (hides_dots(done))
			return -400;
		if (done.n == 0)
			continue;
		if (slice_eq(done, S("."))) {
			n = start;
			continue;
		}
		if (slice_eq(done, S(".."))) {
			if (start == 1)
				return -400;
			for (n = start - 1; to[n - 1] != '/'; n--)
				;
			continue;
		}
		if (rest.p)
			to[n++] = '/';
	}
	to[n] = '\0';
	v->path = (struct slice){ to, n };
	return 0;
}

/* A normalised path, or one that was rewritten, as it may stand in a request
 * line. What is percent-encoded stays so. */
static void
path_encode(struct text *t, struct slice normal)
{
	static const char bare[] = "/-._~!$&'()*+,;=:@";

	for (size_t i = 0; i < normal.n; i++) {
		unsigned char c = (unsigned char)normal.p[i];
		if (c < 0x80 && (isalnum(c) || (c && strchr(bare, c)) ||
		    (c == '%' && percent_value(slice_from(normal, i)) >= 0))) {
			text_char(t, (char)c);
			continue;
		}
		text_char(t, '%');
		text_char(t, "0123456789ABCDEF"[c >> 4]);
		text_char(t, "0123456789ABCDEF"[c & 15]);
	}
}

/* s, form-decoded, is want. */
static bool
form_is(struct slice s, struct slice want)
{
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++, n++) {
		int c = s.p[i] == '+' ? ' ' : percent_value(slice_from(s, i));
		if (c >= 0 && s.p[i] == '%')
			i += 2;
		else if (c < 0)
			c = (unsigned char)s.p[i];
		if (n >= want.n || (unsigned char)want.p[n] != c)
			return false;
	}
	return n == want.n;
}

/* The query has that name with that value; `*`: with any. */
static bool
query_has(struct slice query, struct slice name, struct slice value)
{
	struct slice rest = query, pair, key;
	bool any = slice_eq(value, S("*"));

	while (slice_cut(&rest, '&', &pair)) {
		struct slice given = pair;
		slice_cut(&given, '=', &key);
		if (!given.p)
			given = S("");
		if (form_is(key, name) && (any || form_is(given, value)))
			return true;
	}
	return false;
}

/* ==== addr ===================================================================
 * Owns    nothing.
 * Offers  addr_parse, ip_*, cidr_*, proxy_parse, proxy_write.
 * Calls   base, arena. One grammar for every address, see CONFIG.md. */

enum {
	IP_BYTES = 16,
	IP_WORDS = IP_BYTES / 2,
	IP_V4_PREFIX = 12, /* bytes of ::ffff: before an IPv4 address */
	IP_V4_BITS = 32,
	IP_BITS = 128
};

static const uint8_t v4_mapped[IP_V4_PREFIX] = { [10] = 0xff, [11] = 0xff };

static bool
ip_is_none(const struct ip *ip)
{
	static const struct ip none;

	return memcmp(ip, &none, sizeof none) == 0;
}

static bool
ip_is_v4(const struct ip *ip)
{
	return memcmp(ip->b, v4_mapped, IP_V4_PREFIX) == 0;
}

static bool
ip_parse(struct slice s, struct ip *ip)
{
	char text[INET6_ADDRSTRLEN];

	if (s.n == 0 || s.n >= sizeof text || memchr(s.p, '\0', s.n))
		return false;
	memcpy(text, s.p, s.n);
	text[s.n] = '\0';
	memcpy(ip->b, v4_mapped, IP_V4_PREFIX);
	return inet_pton(AF_INET, text, ip->b + IP_V4_PREFIX) == 1 ||
	    inet_pton(AF_INET6, text, ip->b) == 1;
}

static void
ip_text_v4(struct text *t, const struct ip *ip)
{
	for (int i = IP_V4_PREFIX; i < IP_BYTES; i++) {
		if (i > IP_V4_PREFIX)
			text_char(t, '.');
		text_uint(t, ip->b[i]);
	}
}

static uint16_t
two_bytes(const void *p)
{
	const uint8_t *b = p;

	return (uint16_t)(b[0] << 8 | b[1]);
}

/* Dotted, or RFC 5952; nothing for none. inet_ntop differs from libc to libc. */
static void
ip_text(struct text *t, const struct ip *ip)
{
	int first = IP_WORDS, most = 1; /* the longest run of zeros, 2 at least */

	if (ip_is_v4(ip)) {
		ip_text_v4(t, ip);
		return;
	}
	if (ip_is_none(ip))
		return;
	for (int i = 0, run = 0; i < IP_WORDS; i++) {
		run = two_bytes(ip->b + 2 * i) == 0 ? run + 1 : 0;
		if (run > most) {
			most = run;
			first = i + 1 - run;
		}
	}
	for (int i = 0; i < IP_WORDS; i++) {
		if (i == first) {
			text_str(t, "::");
			i += most - 1;
			continue;
		}
		if (i > 0 && i != first + most)
			text_char(t, ':');
		text_hex(t, two_bytes(ip->b + 2 * i), 1);
	}
}

/* The bits of ip behind the first bits are zero then. */
static void
ip_mask(struct ip *ip, unsigned bits)
{
	for (unsigned i = 0; i < IP_BYTES; i++, bits -= MIN(bits, 8u))
		ip->b[i] &= (uint8_t)(0xff00u >> MIN(bits, 8u));
}

/* A network, or an address alone; bits of the host are masked away. */
static bool
cidr_parse(struct slice s, struct cidr *c)
{
	struct slice rest = s, ip;
	int64_t bits, most;

	if (!slice_cut(&rest, '/', &ip) || !ip_parse(ip, &c->ip))
		return false;
	most = memchr(ip.p, ':', ip.n) ? IP_BITS : IP_V4_BITS;
	bits = rest.p ? slice_uint(rest, (uint64_t)most) : most;
	if (bits < 0)
		return false;
	c->bits = (uint8_t)(IP_BITS - most + bits);
	ip_mask(&c->ip, c->bits);
	return true;
}

static bool
cidr_has(const struct cidr *c, const struct ip *ip)
{
	size_t whole = c->bits / 8;
	unsigned rest = c->bits % 8, mask = (0xff00u >> rest) & 0xff;

	return memcmp(c->ip.b, ip->b, whole) == 0 &&
	    (rest == 0 || ((c->ip.b[whole] ^ ip->b[whole]) & mask) == 0);
}

static bool
cidrs_have(const struct cidrs *c, const struct ip *ip)
{
	for (int i = 0; i < c->n; i++)
		if (!ip_is_none(ip) && cidr_has(&c->v[i], ip))
			return true;
	return false;
}

/* None for a unix socket. */
static struct ip
ip_of_sock(const union sock *s, uint16_t *port)
{
	struct ip ip = { { 0 } };

	*port = 0;
	if (s->sa.sa_family == AF_INET) {
		memcpy(ip.b, v4_mapped, IP_V4_PREFIX);
		memcpy(ip.b + IP_V4_PREFIX, &s->in.sin_addr, 4);
		*port = ntohs(s->in.sin_port);
	} else if (s->sa.sa_family == AF_INET6) {
		memcpy(ip.b, &s->in6.sin6_addr, sizeof ip.b);
		*port = ntohs(s->in6.sin6_port);
	}
	return ip;
}

static socklen_t
sock_of_ip(union sock *s, const struct ip *ip, uint16_t port)
{
	memset(s, 0, sizeof *s);
	if (ip_is_v4(ip)) {
		s->in.sin_family = AF_INET;
		s->in.sin_port = htons(port);
		memcpy(&s->in.sin_addr, ip->b + IP_V4_PREFIX, 4);
		return sizeof s->in;
	}
	s->in6.sin6_family = AF_INET6;
	s->in6.sin6_port = htons(port);
	memcpy(&s->in6.sin6_addr, ip->b, sizeof ip->b);
	return sizeof s->in6;
}

/* ---- the grammar ---- */

#define HOST_NAME_BYTES 253 /* of a DNS name; RFC 1035 2.3.4 */

static bool
addr_unix(struct arena *a, struct slice path, bool abstract, struct addr *out,
    const char **why)
{
	struct sockaddr_un *un = &out->sock.un;

	while (!abstract && path.n > 1 && path.p[1] == '/')
		path = slice_from(path, 1); /* also those of `unix:///path` */
	*why = "the path or name of a unix socket has 1 to 107 bytes";
	if (path.n == 0 || path.n >= sizeof un->sun_path)
		return false;
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path + abstract, path.p, path.n);
	out->kind = abstract ? ADDR_ABSTRACT : ADDR_UNIX;
	out->sock_n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.n + 1);
	out->text = arena_fmt(a, abstract ? "@%.*s" : "unix:%.*s", (int)path.n, path.p);
	return true;
}

static bool
addr_fd(struct arena *a, struct slice number, struct addr *out, const char **why)
{
	int64_t fd = slice_uint(number, INT_MAX);

	*why = "expected the number of a descriptor";
	if (fd < 0)
		return false;
	out->kind = ADDR_FD;
	out->fd = (int)fd;
	out->text = arena_fmt(a, "fd://%d", (int)fd);
	return true;
}

/* One that is all numbers in the end is a mistyped IPv4 address. */
static bool
is_host_name(struct slice s)
{
	const char *dot = s.n ? memrchr(s.p, '.', s.n) : NULL;
	size_t last = dot ? (size_t)(dot - s.p) + 1 : 0, letters = 0;

	for (size_t i = 0; i < s.n; i++) {
		if (!isalnum((unsigned char)s.p[i]) && !memchr("-._", s.p[i], 3))
			return false;
		letters += i >= last && !isdigit((unsigned char)s.p[i]);
	}
	return s.n > 0 && s.n <= HOST_NAME_BYTES && s.p[0] != '.' && s.p[0] != '-' &&
	    (letters > 0 || last == s.n);
}

/* Splits `host:port`, `[v6]:port`, `:port`; port is empty when there is none. */
static bool
addr_split(struct slice s, struct slice *host, struct slice *port, bool *v6)
{
	const char *at;

	*v6 = s.n > 0 && s.p[0] == '[';
	at = s.n ? memchr(s.p, *v6 ? ']' : ':', s.n) : NULL;
	if (*v6 && !at)
		return false;
	*host = (struct slice){ s.p + *v6, (at ? (size_t)(at - s.p) : s.n) - *v6 };
	s = slice_from(s, host->n + 2 * *v6);
	*port = s.n > 0 ? slice_from(s, 1) : S("");
	return s.n == 0 || s.p[0] == ':';
}

/* The host of out: every interface, a numeric address, or a name. */
static bool
addr_host(struct arena *a, struct slice host, bool v6, struct addr *out, const char **why)
{
	char b[INET6_ADDRSTRLEN];
	struct text t = { b, 0, sizeof b, false };
	struct ip ip = { { 0 } };

	out->kind = ADDR_INET;
	out->any = !v6 && (host.n == 0 || slice_eq(host, S("*")));
	if (out->any || (ip_parse(host, &ip) && v6 == (memchr(host.p, ':', host.n) != NULL))) {
		out->sock_n = sock_of_ip(&out->sock, &ip, out->port);
		ip_text(&t, &ip);
		if (v6 && ip_is_none(&ip))
			text_str(&t, "::");
		out->host = out->any ? NULL : arena_dup(a, text_slice(&t)).p;
		return true;
	}
	out->kind = ADDR_NAME;
	out->host = v6 ? NULL : arena_dup(a, host).p;
	*why = v6 ? "expected an IPv6 address in []" : "expected a host name or an IP address";
	return !v6 && is_host_name(host);
}

static bool
addr_inet(struct arena *a, struct slice s, int preset, struct addr *out, const char **why)
{
	struct slice host, port;
	bool v6;
	int64_t n;

	*why = "expected host:port, :port, [v6]:port, unix:/path or @name";
	if (!addr_split(s, &host, &port, &v6) || (port.n == 0 && (preset < 0 || host.n == 0)))
		return false;
	*why = port.n && memchr(port.p, ':', port.n)
	    ? "expected host:port; an IPv6 address stands in []"
	    : "expected a port from 0 to 65535";
	if ((n = port.n ? slice_uint(port, UINT16_MAX) : preset) < 0)
		return false;
	out->port = (uint16_t)n;
	if (!addr_host(a, host, v6, out, why))
		return false;
	v6 = out->host && strchr(out->host, ':');
	out->text = arena_fmt(a, v6 ? "[%s]:%u" : "%s:%u", out->any ? "" : out->host, out->port);
	return true;
}

static const struct addr_scheme {
	struct slice name;
	enum scheme scheme;
	int port;
} addr_schemes[] = {
	{ { "http://", 7 }, SCHEME_HTTP, 80 },   { { "ws://", 5 }, SCHEME_HTTP, 80 },
	{ { "https://", 8 }, SCHEME_HTTPS, 443 }, { { "wss://", 6 }, SCHEME_HTTPS, 443 },
	{ { "uwsgi://", 8 }, SCHEME_UWSGI, -1 },
};

static bool
addr_url(struct arena *a, struct slice s, const struct addr_scheme *sc, struct addr *out,
    const char **why)
{
	const char *slash;

	out->scheme = sc->scheme;
	s = slice_from(s, sc->name.n);
	slash = s.n ? memchr(s.p, '/', s.n) : NULL;
	if (slash && slash + 1 < s.p + s.n) {
		*why = "an upstream's URL ends after the port; use rewrite for a path";
		return false;
	}
	if (slash)
		s.n = (size_t)(slash - s.p);
	if (!addr_inet(a, s, sc->port, out, why))
		return false;
	*why = "a URL names its host";
	return !out->any;
}

/* Parses s; its texts are in a. False: *why says what was expected. */
static bool
addr_parse(struct arena *a, struct slice s, struct addr *out, const char **why)
{
	*out = (struct addr){ .fd = -1 };
	*why = "an address holds no NUL";
	if (s.n > 0 && memchr(s.p, '\0', s.n))
		return false;
	for (size_t i = 0; i < LEN(addr_schemes); i++)
		if (slice_starts(s, addr_schemes[i].name))
			return addr_url(a, s, &addr_schemes[i], out, why);
	if (slice_starts(s, S("uwsgi//"))) {
		out->scheme = SCHEME_UWSGI;
		return addr_unix(a, slice_from(s, 6), false, out, why);
	}
	if (slice_starts(s, S("unix:/")) || slice_starts(s, S("unix//")))
		return addr_unix(a, slice_from(s, 5), false, out, why);
	if (slice_starts(s, S("/")))
		return addr_unix(a, s, false, out, why);
	if (slice_starts(s, S("@")))
		return addr_unix(a, slice_from(s, 1), true, out, why);
	if (slice_starts(s, S("\\0")) && slice_ends(s, S("\\0")) && s.n > 4)
		return addr_unix(a, (struct slice){ s.p + 2, s.n - 4 }, true, out, why);
	if (slice_starts(s, S("fd://")))
		return addr_fd(a, slice_from(s, 5), out, why);
	if (slice_starts(s, S("=")))
		return addr_fd(a, slice_from(s, 1), out, why);
	return addr_inet(a, s, -1, out, why);
}

/* ---- PROXY protocol ---- */

enum {
	PROXY_V1_MAX = 107,
	PROXY_V1_PARTS = 6,
	PROXY_V2_HEAD = 16,
	PROXY_V2_MAX = 4096,      /* with its TLVs; nginx takes as much */
	PROXY_V2_UNIX = 2 * 108,  /* two paths */
	PROXY_V2_LOCAL = 0x20,    /* version and command in one byte */
	PROXY_V2_PROXY = 0x21,
	PROXY_V2_TCP4 = 0x11,     /* family and transport */
	PROXY_V2_TCP6 = 0x21
};

static const struct slice proxy_v2_mark = { "\r\n\r\n\0\r\nQUIT\n", 12 };

/* An address of the family that was said. */
static bool
proxy_ip(struct slice s, bool v6, struct ip *ip)
{
	return ip_parse(s, ip) && v6 == (memchr(s.p, ':', s.n) != NULL);
}

static bool
proxy_port(struct slice s, uint16_t *port)
{
	int64_t n = slice_uint(s, UINT16_MAX);

	*port = (uint16_t)n;
	return n >= 0 && (s.n == 1 || s.p[0] != '0');
}

/* PROXY TCP4 src dst sport dport CRLF; or UNKNOWN and anything. */
static int
proxy_parse_v1(struct slice in, struct ip *src, uint16_t *sport, struct ip *dst,
    uint16_t *dport)
{
	const char *lf = memchr(in.p, '\n', MIN(in.n, (size_t)PROXY_V1_MAX));
	struct slice rest, part[PROXY_V1_PARTS];
	int n = 0;
	bool v6;

	if (!lf)
		return in.n >= PROXY_V1_MAX ? -1 : 0;
	if (lf == in.p || lf[-1] != '\r')
		return -1;
	rest = (struct slice){ in.p, (size_t)(lf - in.p) - 1 };
	while (n < PROXY_V1_PARTS && slice_cut(&rest, ' ', &part[n]))
		n++;
	if (n >= 2 && slice_eq(part[1], S("UNKNOWN")))
		return (int)(lf - in.p) + 1;
	if (n != PROXY_V1_PARTS || rest.p)
		return -1;
	v6 = slice_eq(part[1], S("TCP6"));
	if ((!v6 && !slice_eq(part[1], S("TCP4"))) || !proxy_ip(part[2], v6, src) ||
	    !proxy_ip(part[3], v6, dst) || !proxy_port(part[4], sport) ||
	    !proxy_port(part[5], dport))
		return -1;
	return (int)(lf - in.p) + 1;
}

/* The addresses of a whole version 2 header. TLVs behind them are skipped. */
static int
proxy_v2_addrs(struct slice in, struct ip *src, uint16_t *sport, struct ip *dst,
    uint16_t *dport)
{
	static const size_t need[] = { 0, 12, 36, PROXY_V2_UNIX }; /* by family */
	size_t n = in.n - PROXY_V2_HEAD, family = (unsigned char)in.p[13] >> 4, size;
	unsigned transport = (unsigned char)in.p[13] & 15;
	const char *p = in.p + PROXY_V2_HEAD;

	if (family >= LEN(need) || transport > 2 || n < need[family])
		return -1;
	if (transport == 0 || family == 0 || need[family] == PROXY_V2_UNIX)
		return (int)in.n;
	size = (need[family] - 4) / 2;
	memcpy(src->b, v4_mapped, IP_V4_PREFIX);
	memcpy(dst->b, v4_mapped, IP_V4_PREFIX);
	memcpy(src->b + IP_BYTES - size, p, size);
	memcpy(dst->b + IP_BYTES - size, p + size, size);
	*sport = two_bytes(p + 2 * size);
	*dport = two_bytes(p + 2 * size + 2);
	return (int)in.n;
}

static int
proxy_parse_v2(struct slice in, struct ip *src, uint16_t *sport, struct ip *dst,
    uint16_t *dport)
{
	unsigned char command;
	size_t n;

	if (in.n < PROXY_V2_HEAD)
		return 0;
	command = (unsigned char)in.p[12];
	n = PROXY_V2_HEAD + (size_t)two_bytes(in.p + 14);
	if ((command != PROXY_V2_LOCAL && command != PROXY_V2_PROXY) || n > PROXY_V2_MAX)
		return -1;
	if (in.n < n)
		return 0;
	if (command == PROXY_V2_LOCAL)
		return (int)n;
	return proxy_v2_addrs((struct slice){ in.p, n }, src, sport, dst, dport);
}

/* A PROXY header at the front of in: bytes eaten, 0 not whole, -1 none. src
 * stays as it is when the header names nobody. */
static int
proxy_parse(struct slice in, struct ip *src, uint16_t *sport, struct ip *dst, uint16_t *dport)
{
	size_t mark = MIN(in.n, proxy_v2_mark.n), word = MIN(in.n, (size_t)6);

	if (in.n > 0 && memcmp(in.p, proxy_v2_mark.p, mark) == 0)
		return proxy_parse_v2(in, src, sport, dst, dport);
	if (in.n > 0 && memcmp(in.p, "PROXY ", word) == 0)
		return proxy_parse_v1(in, src, sport, dst, dport);
	return in.n > 0 ? -1 : 0;
}

static void
proxy_write_v2(struct text *t, const struct ip *src, uint16_t sport, const struct ip *dst,
    uint16_t dport)
{
	bool known = !ip_is_none(src) && !ip_is_none(dst);
	bool v4 = known && ip_is_v4(src) && ip_is_v4(dst);
	size_t size = v4 ? IP_BYTES - IP_V4_PREFIX : IP_BYTES, n = known ? 2 * size + 4 : 0;
	char ports[4] = { (char)(sport >> 8), (char)sport, (char)(dport >> 8), (char)dport };

	text_add(t, proxy_v2_mark);
	text_char(t, known ? PROXY_V2_PROXY : PROXY_V2_LOCAL);
	text_char(t, !known ? 0 : v4 ? PROXY_V2_TCP4 : PROXY_V2_TCP6);
	text_char(t, 0);
	text_char(t, (char)n);
	if (!known)
		return;
	text_add(t, (struct slice){ (const char *)src->b + IP_BYTES - size, size });
	text_add(t, (struct slice){ (const char *)dst->b + IP_BYTES - size, size });
	text_add(t, (struct slice){ ports, sizeof ports });
}

/* Says who the client is, as version 1 or 2. */
static void
proxy_write(struct text *t, int version, const struct ip *src, uint16_t sport,
    const struct ip *dst, uint16_t dport)
{
	if (version == 2) {
		proxy_write_v2(t, src, sport, dst, dport);
		return;
	}
	if (ip_is_none(src) || ip_is_none(dst) || ip_is_v4(src) != ip_is_v4(dst)) {
		text_add(t, S("PROXY UNKNOWN\r\n"));
		return;
	}
	text_add(t, ip_is_v4(src) ? S("PROXY TCP4 ") : S("PROXY TCP6 "));
	ip_text(t, src);
	text_char(t, ' ');
	ip_text(t, dst);
	text_char(t, ' ');
	text_uint(t, sport);
	text_char(t, ' ');
	text_uint(t, dport);
	text_add(t, S("\r\n"));
}

/* ==== balance ================================================================
 * Owns    nothing: what it weighs is the worker's (current) or the board's.
 * Offers  balances[], balance_find, instance_failed, instance_worked.
 * Calls   base, clock. Every strategy is a row: name, alias, pick. */

#define TRIED_BITS 64 /* of exchange.tried; instance 64 shares a bit with 0 */

static bool
instance_tried(const struct instance *in, uint64_t tried)
{
	return tried >> ((size_t)(in - in->up->instances) % TRIED_BITS) & 1;
}

/* Has an address and may be asked now, as far as this try is concerned. */
static bool
instance_usable(const struct instance *in, uint64_t tried)
{
	return in->board && in->board->addrs.n > 0 && !instance_tried(in, tried);
}

/* When its breaker lets a trial through; 0: closed. The only instance of an
 * upstream is never shut out. */
static int64_t
instance_open_until(const struct instance *in)
{
	return in->up->n_instances > 1 ? in->board->open_until_ms : 0;
}

/* The breaker is half-open: the first to come is the trial, the others find
 * it open again until the trial's outcome is known. */
static bool
instance_claim(const struct instance *in)
{
	long long until = in->board->open_until_ms;

	if (until == 0 || in->up->n_instances == 1)
		return true;
	return atomic_compare_exchange_strong(&in->board->open_until_ms, &until,
	    now_ms + in->up->fail_ms);
}

static void
instance_failed(const struct instance *in)
{
	struct board_instance *b = in->board;
	const struct upstream *up = in->up;

	b->failures++;
	if (up->max_fails == 0)
		return;
	if (now_ms - b->window_ms > up->fail_ms) {
		b->window_ms = now_ms;
		b->fails = 0;
	}
	if (++b->fails < up->max_fails && b->open_until_ms == 0)
		return;
	if (b->open_until_ms == 0 && up->n_instances > 1)
		log_warn("upstream %s: %s failed %u times, left out for %u ms", up->name,
		    in->addr.text, b->fails, up->fail_ms);
	b->open_until_ms = now_ms + up->fail_ms;
}

static void
instance_worked(const struct instance *in)
{
	struct board_instance *b = in->board;

	if (b->open_until_ms != 0) {
		if (in->up->n_instances > 1)
			log_info("upstream %s: %s answers again", in->up->name, in->addr.text);
		b->open_until_ms = 0;
	}
	if (b->fails != 0)
		b->fails = 0;
}

/* All are open: the one that failed longest ago gets the trial. */
static struct instance *
balance_last_resort(struct upstream *up, uint64_t tried)
{
	struct instance *best = NULL;

	for (int i = 0; i < up->n_instances; i++) {
		struct instance *in = &up->instances[i];
		if (instance_usable(in, tried) &&
		    (!best || in->board->open_until_ms < best->board->open_until_ms))
			best = in;
	}
	return best;
}

/* Smooth weighted round robin: each gains its weight, the richest pays all. */
static struct instance *
pick_round_robin(struct upstream *up, uint64_t tried)
{
	struct instance *best = NULL;
	int total = 0;

	for (int i = 0; i < up->n_instances; i++) {
		struct instance *in = &up->instances[i];
		if (!instance_usable(in, tried) || instance_open_until(in) > now_ms)
			continue;
		in->current += (int)in->weight;
		total += (int)in->weight;
		if (!best || in->current > best->current)
			best = in;
	}
	if (!best)
		return balance_last_resort(up, tried);
	best->current -= total;
	return instance_claim(best) ? best : balance_last_resort(up, tried);
}

/* pick returns an instance that is not in tried, NULL when there is none.
 * Strategies without a function are refused when the configuration is read. */
static const struct balance {
	const char *name, *alias;
	struct instance *(*pick)(struct upstream *, uint64_t tried);
} balances[] = {
	{ "round_robin", NULL, pick_round_robin },
	{ "weighted", NULL, NULL },
	{ "least_conn", "least_connections", NULL },
	{ "random", NULL, NULL },
	{ "random_two", NULL, NULL },
	{ "ip_hash", NULL, NULL },
	{ "uri_hash", NULL, NULL },
	{ "header_hash", NULL, NULL },
	{ "cookie", NULL, NULL },
	{ "least_time", NULL, NULL },
	{ "first", NULL, NULL },
};

static const struct balance *
balance_find(struct slice name)
{
	for (size_t i = 0; i < LEN(balances); i++)
		if (slice_eq(name, slice_of(balances[i].name)) ||
		    (balances[i].alias && slice_eq(name, slice_of(balances[i].alias))))
			return &balances[i];
	return NULL;
}

/* ==== route ==================================================================
 * Owns    nothing: a table is its configuration's.
 * Offers  route_table_build, route_find, route_why, route_shadowed.
 * Calls   base, arena, http, path, addr.
 *
 * Routes are tried in order, the first whose conditions all hold wins. What is
 * scanned is one 32-bit key a route: the last four bytes of its path, and its
 * host if that is exact. Neighbours whose paths have the same length share a
 * run, so that the request's own key is made once for all of them. */

#define HOST_MAX    255
#define FNV_BASIS   2166136261u
#define FNV_PRIME   16777619u
#define KEY_BYTES   4 /* <= PATH_PAD */

/* Lower case, without port and the root's dot; views a static buffer. */
static struct slice
host_normal(struct slice host)
{
	static char buf[HOST_MAX + 1];
	size_t n = 0, end = host.n;
	const char *colon = host.n ? memchr(host.p, ':', host.n) : NULL;

	if (host.n > 0 && host.p[0] == '[') {
		const char *close = memchr(host.p, ']', host.n);
		colon = close && close + 1 < host.p + host.n ? close + 1 : NULL;
	}
	if (colon)
		end = (size_t)(colon - host.p);
	if (end > 0 && host.p[end - 1] == '.')
		end--;
	if (end > HOST_MAX)
		return S("");
	for (; n < end; n++)
		buf[n] = lower(host.p[n]);
	return (struct slice){ buf, n };
}

static uint32_t
host_hash(struct slice host)
{
	uint32_t h = FNV_BASIS;

	for (size_t i = 0; i < host.n; i++)
		h = (h ^ (unsigned char)host.p[i]) * FNV_PRIME;
	return h;
}

/* The four bytes that end at p; there are PATH_PAD readable ones before it. */
static uint32_t
key_before(const char *p)
{
	uint32_t k;

	memcpy(&k, p - KEY_BYTES, sizeof k);
	return k;
}

static size_t
route_path_n(const struct route *r)
{
	return r->path_kind == PATH_PREFIX || r->path_kind == PATH_EXACT ? r->path.n : 0;
}

static uint32_t
route_key(const struct route *r)
{
	char b[KEY_BYTES] = { 0 };
	size_t n = MIN(route_path_n(r), sizeof b);

	if (n > 0)
		memcpy(b + sizeof b - n, r->path.p + r->path.n - n, n);
	return key_before(b + sizeof b) ^
	    (r->host_kind == HOST_EXACT ? host_hash(r->host) : 0);
}

/* Fills keys and runs from routes[0 .. n). */
static void
route_table_build(struct arena *a, struct route_table *t)
{
	struct route_run *run = NULL;

	t->keys = arena_alloc(a, (size_t)t->n * sizeof *t->keys);
	t->runs = arena_alloc(a, (size_t)t->n * sizeof *t->runs);
	for (int i = 0; i < t->n; i++) {
		const struct route *r = &t->routes[i];
		bool by_host = r->host_kind == HOST_EXACT;
		uint16_t path_n = (uint16_t)route_path_n(r);

		t->keys[i] = route_key(r);
		t->by_host |= r->host_kind != HOST_ANY;
		if (!run || run->path_n != path_n || run->by_host != by_host) {
			run = &t->runs[t->n_runs++];
			*run = (struct route_run){ path_n, by_host, (uint32_t)i, 0 };
		}
		run->n++;
	}
}

static bool
route_host_fits(const struct route *r, struct slice host)
{
	switch (r->host_kind) {
	case HOST_EXACT:
		return slice_eq(host, r->host);
	case HOST_WILD:
		return host.n > r->host.n && slice_ends(host, r->host);
	default:
		return true;
	}
}

/* path has a NUL behind it, see path_normalise. */
static bool
route_path_fits(const struct route *r, struct slice path)
{
	switch (r->path_kind) {
	case PATH_PREFIX:
		return slice_starts(path, r->path);
	case PATH_EXACT:
		return slice_eq(path, r->path);
	case PATH_REGEX:
		return regexec(&r->regex, path.p, 0, NULL, 0) == 0;
	default:
		return true;
	}
}

static bool
route_method_fits(const struct route *r, const struct head *h)
{
	if (r->methods == 0 && r->methods_other.n == 0)
		return true;
	if (r->methods >> h->method & 1)
		return true;
	for (int i = 0; i < r->methods_other.n; i++)
		if (slice_eq(r->methods_other.v[i], h->method_text))
			return true;
	return false;
}

/* Any line of that name with that value, or any value when it is `*`. */
static bool
head_line_is(const struct head *h, const struct pair *p)
{
	bool any = slice_eq(p->value, S("*"));

	for (int i = 0; i < h->n; i++)
		if (slice_ieq(h->f[i].name, p->name) && (any || slice_eq(h->f[i].value, p->value)))
			return true;
	return false;
}

static bool
route_headers_fit(const struct route *r, const struct head *h)
{
	for (int i = 0; i < r->headers.n; i++)
		if (!head_line_is(h, &r->headers.v[i]))
			return false;
	return true;
}

static bool
route_queries_fit(const struct route *r, const struct head *h)
{
	for (int i = 0; i < r->queries.n; i++)
		if (!query_has(h->query, r->queries.v[i].name, r->queries.v[i].value))
			return false;
	return true;
}

/* Why r does not take this request: the condition's name; NULL: it does. */
static const char *
route_why(const struct route *r, const struct head *h, struct slice host, struct slice path,
    const struct ip *client)
{
	if (!route_path_fits(r, path))
		return "path";
	if (!route_host_fits(r, host))
		return "host";
	if (!route_method_fits(r, h))
		return "method";
	if (!route_headers_fit(r, h))
		return "header";
	if (!route_queries_fit(r, h))
		return "query";
	if (r->clients.n > 0 && !cidrs_have(&r->clients, client))
		return "client";
	return NULL;
}

/* The first route that takes the request, NULL: none. path is the normalised
 * view, with its pad in front. */
static const struct route *
route_find(const struct route_table *t, const struct head *h, struct slice path,
    const struct ip *client)
{
	struct slice host = t->by_host ? host_normal(h->host) : S("");
	uint32_t hash = t->by_host ? host_hash(host) : 0;

	for (int k = 0; k < t->n_runs; k++) {
		const struct route_run *run = &t->runs[k];
		uint32_t end = run->first + run->n, key;

		if (path.n < run->path_n)
			continue;
		key = key_before(path.p + run->path_n) ^ (run->by_host ? hash : 0);
		for (uint32_t i = run->first; i < end; i++)
			if (t->keys[i] == key &&
			    !route_why(&t->routes[i], h, host, path, client))
				return &t->routes[i];
	}
	return NULL;
}

static bool
route_path_covers(const struct route *wide, const struct route *narrow)
{
	bool text = narrow->path_kind == PATH_PREFIX || narrow->path_kind == PATH_EXACT;

	switch (wide->path_kind) {
	case PATH_PREFIX:
		return (text && slice_starts(narrow->path, wide->path)) || wide->path.n <= 1;
	case PATH_EXACT:
		return narrow->path_kind == PATH_EXACT && slice_eq(narrow->path, wide->path);
	case PATH_REGEX:
		return narrow->path_kind == PATH_REGEX && slice_eq(narrow->path, wide->path);
	default:
		return true;
	}
}

static bool
route_host_covers(const struct route *wide, const struct route *narrow)
{
	if (wide->host_kind == HOST_ANY)
		return true;
	if (wide->host_kind == HOST_EXACT)
		return narrow->host_kind == HOST_EXACT && slice_eq(wide->host, narrow->host);
	return narrow->host_kind != HOST_ANY && slice_ends(narrow->host, wide->host) &&
	    (narrow->host_kind == HOST_WILD || narrow->host.n > wide->host.n);
}

/* earlier takes all that later could: later is never reached. Only what is
 * certain counts; conditions on head lines and clients are never compared. */
static bool
route_shadowed(const struct route *later, const struct route *earlier)
{
	bool any_method = earlier->methods == 0 && earlier->methods_other.n == 0;
	bool same_methods = later->methods != 0 && later->methods_other.n == 0 &&
	    (later->methods & ~earlier->methods) == 0;

	return earlier->headers.n == 0 && earlier->queries.n == 0 && earlier->clients.n == 0 &&
	    (any_method || same_methods) && route_path_covers(earlier, later) &&
	    route_host_covers(earlier, later);
}

/* ==== fortify ================================================================
 * Owns    nothing.
 * Offers  what Debian's libbearssl.a, built against glibc, asks of its libc.
 * Calls   libc. */

#ifndef __GLIBC__
#define FORTIFIED(name, type)                                                    \
	void *__##name##_chk(void *to, type from, size_t n, size_t room);        \
	void *__##name##_chk(void *to, type from, size_t n, size_t room)         \
	{                                                                        \
		if (n > room)                                                    \
			abort();                                                 \
		return name(to, from, n);                                        \
	}
FORTIFIED(memcpy, const void *)
FORTIFIED(memmove, const void *)
FORTIFIED(memset, int)
#undef FORTIFIED
#endif

/* ==== crypt ==================================================================
 * Owns    nothing.
 * Offers  crypt_sha, crypt_is_known.
 * Calls   base, BearSSL's hashes. The crypt(3) schemes $5$ and $6$ (SHA-crypt),
 *         which musl on Debian comes without. */

#define SHA_ROUNDS       5000 /* presets and bounds of the scheme */
#define SHA_ROUNDS_MIN   1000
#define SHA_ROUNDS_MAX   999999999
#define SHA_SALT_MAX     16
#define SHA_BYTES_MAX    64
#define SHA_PASSWORD_MAX 256

/* One of the two: its hash, bytes, and the step of its odd output order. */
struct sha_scheme {
	const br_hash_class *hash;
	size_t n;
	unsigned step;
};

static void
sha_add(br_hash_compat_context *h, const void *p, size_t n)
{
	h->vtable->update(&h->vtable, p, n);
}

/* n bytes made of the digest, over and over. */
static void
sha_add_repeated(br_hash_compat_context *h, const unsigned char *digest, size_t digest_n, size_t n)
{
	for (; n > digest_n; n -= digest_n)
		sha_add(h, digest, digest_n);
	sha_add(h, digest, n);
}

/* The digest of s, said `times` times, repeated to fill n bytes. */
static void
sha_fill(const struct sha_scheme *sc, struct slice s, size_t times, unsigned char *to, size_t n)
{
	br_hash_compat_context h;
	unsigned char digest[SHA_BYTES_MAX];

	sc->hash->init(&h.vtable);
	for (size_t i = 0; i < times; i++)
		sha_add(&h, s.p, s.n);
	sc->hash->out(&h.vtable, digest);
	for (size_t i = 0; i < n; i++)
		to[i] = digest[i % sc->n];
}

/* The first digest, of password, salt and their lengths. */
static void
sha_begin(const struct sha_scheme *sc, struct slice password, struct slice salt, unsigned char *out)
{
	br_hash_compat_context h;
	unsigned char b[SHA_BYTES_MAX];

	sc->hash->init(&h.vtable);
	sha_add(&h, password.p, password.n);
	sha_add(&h, salt.p, salt.n);
	sha_add(&h, password.p, password.n);
	sc->hash->out(&h.vtable, b);
	sc->hash->init(&h.vtable);
	sha_add(&h, password.p, password.n);
	sha_add(&h, salt.p, salt.n);
	sha_add_repeated(&h, b, sc->n, password.n);
	for (size_t n = password.n; n > 0; n >>= 1)
		if (n & 1)
			sha_add(&h, b, sc->n);
		else
			sha_add(&h, password.p, password.n);
	sc->hash->out(&h.vtable, out);
}

static void
sha_rounds(const struct sha_scheme *sc, struct slice password, struct slice salt, unsigned rounds,
    unsigned char *digest)
{
	unsigned char p[SHA_PASSWORD_MAX], s[SHA_SALT_MAX];
	br_hash_compat_context h;

	sha_fill(sc, password, password.n, p, password.n);
	sha_fill(sc, salt, 16u + digest[0], s, salt.n);
	for (unsigned i = 0; i < rounds; i++) {
		sc->hash->init(&h.vtable);
		sha_add(&h, i & 1 ? p : digest, i & 1 ? password.n : sc->n);
		if (i % 3)
			sha_add(&h, s, salt.n);
		if (i % 7)
			sha_add(&h, p, password.n);
		sha_add(&h, i & 1 ? digest : p, i & 1 ? sc->n : password.n);
		sc->hash->out(&h.vtable, digest);
	}
}

/* n characters of 6 bits each, lowest first. */
static void
sha_digits(struct text *t, unsigned v, int n)
{
	static const char digits[] =
	    "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

	for (; n > 0; n--, v >>= 6)
		text_char(t, digits[v & 63]);
}

static void
sha_encode(struct text *t, const struct sha_scheme *sc, const unsigned char *d)
{
	unsigned third = (unsigned)sc->n / 3, mod = 3 * third, at = 0;

	for (unsigned i = 0; i < third; i++, at = (at + sc->step) % mod)
		sha_digits(t, (unsigned)d[at] << 16 | (unsigned)d[(at + third) % mod] << 8 |
		    d[(at + 2 * third) % mod], 4);
	if (sc->n % 3 == 1)
		sha_digits(t, d[63], 2);
	else
		sha_digits(t, (unsigned)d[31] << 8 | d[30], 3);
}

/* `$5$[rounds=N$]salt$digest` taken apart. */
static bool
sha_split(struct slice hash, struct sha_scheme *sc, unsigned *rounds, struct slice *salt)
{
	struct slice rest, word;
	int64_t n;

	if (slice_starts(hash, S("$5$")))
		*sc = (struct sha_scheme){ &br_sha256_vtable, br_sha256_SIZE, 21 };
	else if (slice_starts(hash, S("$6$")))
		*sc = (struct sha_scheme){ &br_sha512_vtable, br_sha512_SIZE, 22 };
	else
		return false;
	rest = slice_from(hash, 3);
	*rounds = SHA_ROUNDS;
	if (slice_starts(rest, S("rounds="))) {
		slice_cut(&rest, '$', &word);
		n = slice_uint(slice_from(word, 7), SHA_ROUNDS_MAX);
		if (n < 0 || !rest.p)
			return false;
		*rounds = (unsigned)MAX(n, SHA_ROUNDS_MIN);
	}
	slice_cut(&rest, '$', salt);
	salt->n = MIN(salt->n, (size_t)SHA_SALT_MAX);
	return rest.p && rest.n == (sc->n == br_sha256_SIZE ? 43 : 86);
}

static bool
crypt_is_known(struct slice hash)
{
	struct sha_scheme sc;
	struct slice salt;
	unsigned rounds;

	return sha_split(hash, &sc, &rounds, &salt);
}

/* The password is the one that hash was made of. */
static bool
crypt_sha(struct slice password, struct slice hash)
{
	unsigned char digest[SHA_BYTES_MAX];
	char b[SHA_BYTES_MAX * 2];
	struct text t = { b, 0, sizeof b, false };
	struct sha_scheme sc;
	struct slice salt, rest = hash, word;
	unsigned rounds;

	if (password.n > SHA_PASSWORD_MAX || !sha_split(hash, &sc, &rounds, &salt))
		return false;
	sha_begin(&sc, password, salt, digest);
	sha_rounds(&sc, password, salt, rounds, digest);
	sha_encode(&t, &sc, digest);
	while (slice_cut(&rest, '$', &word))
		; /* the last word is the digest */
	return slice_eq_secret(text_slice(&t), word);
}

/* ==== keys ===================================================================
 * Owns    nothing: tables of every section and key, the operator's vocabulary.
 * Offers  sections[], key_find.
 * Calls   base. Parsing, presets, ranges, the environment, `-D`, the manual's
 *         tables and /config come from these rows: a new setting is one row
 *         and one field of a struct. */

enum key_kind {
	K_BOOL,
	K_INT,
	K_BYTES,
	K_SECS,    /* kept as ms */
	K_MODE,    /* of a file */
	K_CHOICE,  /* one of key.words; kept as its place there */
	K_SINK,    /* where log lines go */
	K_TEXT,
	K_SECRET,  /* never shown; not empty */
	K_PATH,    /* from the file's directory */
	K_TEXTS,
	K_ADDRS,
	K_CIDRS,
	K_NAMES,   /* of header fields */
	K_FIELDS,  /* { name, value } of header fields to be set */
	K_MATCHES, /* { name, value } of header fields to look for */
	K_PAIRS,   /* { name, value } of anything */
	K_USERS,   /* { user = "hash" } */
	K_TABLE,   /* a section of its own */
	K_TABLES,  /* a list of them; its reader looks into it */
	K_ANY,     /* of a key that is not supported yet */
	KINDS
};

/* How the environment says a value of some kind. */
enum key_words { NO_WORDS, ONE_VALUE, ONE_TEXT, A_LIST };

static const struct kind {
	const char *name; /* what errors and the manual call it */
	enum key_words words;
} kinds[KINDS] = {
	[K_BOOL] = { "true or false", ONE_VALUE },
	[K_INT] = { "a number", ONE_VALUE },
	[K_BYTES] = { "a number of bytes", ONE_VALUE },
	[K_SECS] = { "a number of seconds", ONE_VALUE },
	[K_MODE] = { "a file mode such as 0o660", ONE_TEXT },
	[K_CHOICE] = { "one of", ONE_TEXT },
	[K_SINK] = { "stdout, stderr, syslog, off or a file", ONE_TEXT },
	[K_TEXT] = { "a text", ONE_TEXT },
	[K_SECRET] = { "a text", ONE_TEXT },
	[K_PATH] = { "a path", ONE_TEXT },
	[K_TEXTS] = { "a list of texts", A_LIST },
	[K_ADDRS] = { "a list of addresses", A_LIST },
	[K_CIDRS] = { "a list of networks", A_LIST },
	[K_NAMES] = { "a list of header names", A_LIST },
	[K_FIELDS] = { "a list of { name, value }", NO_WORDS },
	[K_MATCHES] = { "{ name, value } or a list of them", NO_WORDS },
	[K_PAIRS] = { "{ name, value } or a list of them", NO_WORDS },
	[K_USERS] = { "a table of users and passwords", NO_WORDS },
	[K_TABLE] = { "a table", NO_WORDS },
	[K_TABLES] = { "a list of tables", NO_WORDS },
	[K_ANY] = { "a value", NO_WORDS },
};

/* Not supported yet: refused, but LATER_OFF may be false or 0. */
enum key_when { NOW, LATER, LATER_OFF };

enum section_id {
	SEC_ROOT,
	SEC_SERVER,
	SEC_UPSTREAM,
	SEC_INSTANCE,
	SEC_UPSTREAM_TLS,
	SEC_HEALTH,
	SEC_UPSTREAM_PROCESS,
	SEC_PROCESS,
	SEC_LIMITS,
	SEC_ROUTE,
	SEC_RESPOND,
	SEC_RATE,
	SEC_TLS,
	SEC_CERT,
	SEC_EAB,
	SEC_CACHE,
	SEC_POSTGRES,
	SEC_MIDDLEWARE,
	SEC_LOG,
	SEC_ADMIN,
	SEC_WEBSERVER,
	SEC_HOSTS,
	SEC_SITES,
	SEC_FASTROUTER,
	SEC_SHARED_SOCKETS,
	SECTIONS
};

struct key {
	const char *name;
	enum key_kind kind;
	enum key_when when;
	size_t at, size;      /* where it goes in the section's struct */
	const char *preset;   /* as the environment would say it; NULL: unset */
	double min, max;      /* of numbers */
	const char *words;    /* a|b|c of K_CHOICE; K_ADDRS: the word for none */
	enum section_id sub;  /* of K_TABLE, K_TABLES */
	const char *help;
};

#define AT(type, field) offsetof(type, field), sizeof(((type *)NULL)->field)
#define KEY(name, kind, at, preset, min, max, help) \
	{ name, kind, NOW, at, preset, min, max, NULL, SEC_ROOT, help }
#define PLAIN(name, kind, at, preset, help) \
	{ name, kind, NOW, at, preset, 0, 0, NULL, SEC_ROOT, help }
#define WORDS(name, kind, at, preset, words, help) \
	{ name, kind, NOW, at, preset, 0, 0, words, SEC_ROOT, help }
#define SUB(name, kind, when, sub, help) { name, kind, when, 0, 0, NULL, 0, 0, NULL, sub, help }
#define SOON(name, kind, when, preset, words, help) \
	{ name, kind, when, 0, 0, preset, 0, LIMIT_MAX, words, SEC_ROOT, help }

#define LIMIT_MAX       9007199254740992.0 /* 2^53: "no upper bound" */
#define SECS_MIN        0.001
#define SECS_MAX        DAY_S
#define TUNNEL_SECS_MAX (30.0 * DAY_S)
#define PORT_MAX        65535
#define MODE_MAX        0777
#define HEADER_BYTES_MIN 1024
#define HEADER_BYTES_MAX 65536 /* two of them fit in a large block */
#define CLIENTS_MAX     1000000
#define WEIGHT_MAX      65535
#define RETRIES_MAX     64     /* bits of exchange.tried */
#define PORT_PRESET     8080

struct addrs {
	struct addr *v;
	int n;
};

/* What a section says before it is lowered into the struct of warp.h. */
struct server_read {
	struct server_conf out;
	uint32_t http_port, https_port; /* 0: not said */
	struct addrs listen;
};

struct place {
	struct slice host, socket, url;
	uint32_t port, weight;
};

struct upstream_read {
	struct upstream out;
	struct place place;
	struct slice strategy, host_header;
	int protocol;
};

struct route_read {
	struct route out;
	struct slice host, path_prefix, path_exact, path_regex, upstream;
	struct slices methods;
	int respond_status, limit_key;
};

struct admin_read {
	struct addrs listen;
	struct slice token;
};

/* clang-format off */
static const struct key root_keys[] = {
	SOON("app", K_TEXT, LATER, NULL, NULL, "Fujin: name of the application."),
	SOON("app_name", K_TEXT, LATER, NULL, NULL, "Fujin: name of the application."),
	SOON("version", K_TEXT, LATER, NULL, NULL, "Fujin: version to deploy."),
	SOON("requirements", K_TEXT, LATER, NULL, NULL, "Fujin: the requirements file."),
	SOON("python_version", K_TEXT, LATER, NULL, NULL, "Fujin: version of Python."),
	SOON("build_command", K_TEXT, LATER, NULL, NULL, "Fujin: how to build it."),
	SOON("release_command", K_TEXT, LATER, NULL, NULL, "Fujin: run before a release."),
	SOON("distfile", K_TEXT, LATER, NULL, NULL, "Fujin: what is built."),
	SOON("installation_mode", K_TEXT, LATER, NULL, NULL, "Fujin: how it is installed."),
};

#define SERVER(field) AT(struct server_read, out.field)
static const struct key server_keys[] = {
	KEY("http_port", K_INT, AT(struct server_read, http_port), NULL, 1, PORT_MAX,
	    "Port to listen on, at every interface; 8080 if nothing else listens."),
	KEY("https_port", K_INT, AT(struct server_read, https_port), NULL, 1, PORT_MAX,
	    "Port for TLS; not bound unless [tls] is enabled."),
	PLAIN("listen", K_ADDRS, AT(struct server_read, listen), NULL,
	    "Addresses to listen on."),
	SOON("https_listen", K_ADDRS, LATER, NULL, NULL, "Addresses to listen on for TLS."),
	KEY("worker_threads", K_INT, SERVER(workers), "1", 1, WORKERS_MAX,
	    "Worker processes; one for each core is plenty."),
	PLAIN("user", K_TEXT, SERVER(user), NULL, "User that workers run as."),
	PLAIN("group", K_TEXT, SERVER(group), NULL,
	    "Group that workers run as; that of user if not said."),
	PLAIN("chroot", K_PATH, SERVER(chroot), NULL, "Directory that workers are locked into."),
	KEY("max_connections", K_INT, SERVER(max_connections), "1024", 1, CLIENTS_MAX,
	    "Clients at one time, all workers together; more wait in the backlog."),
	KEY("header_timeout_secs", K_SECS, SERVER(header_ms), "10", SECS_MIN, SECS_MAX,
	    "A request's head must be complete in this time."),
	KEY("body_timeout_secs", K_SECS, SERVER(body_ms), "60", SECS_MIN, SECS_MAX,
	    "Longest wait between two reads of a request's body."),
	KEY("keepalive_timeout_secs", K_SECS, SERVER(keepalive_ms), "75", SECS_MIN, SECS_MAX,
	    "A client connection is closed after being idle for this long."),
	KEY("keepalive_requests", K_INT, SERVER(keepalive_requests), "10000", 1, INT32_MAX,
	    "Requests on one client connection."),
	KEY("write_timeout_secs", K_SECS, SERVER(write_ms), "60", SECS_MIN, SECS_MAX,
	    "Longest wait between two writes to a client."),
	KEY("tunnel_timeout_secs", K_SECS, SERVER(tunnel_ms), "3600", SECS_MIN, TUNNEL_SECS_MAX,
	    "A WebSocket or other tunnel is closed after being idle for this long."),
	KEY("shutdown_timeout_secs", K_SECS, SERVER(shutdown_ms), "30", SECS_MIN, SECS_MAX,
	    "When draining, requests still running after this are cut."),
	KEY("max_header_bytes", K_BYTES, SERVER(max_header_bytes), "16384", HEADER_BYTES_MIN,
	    HEADER_BYTES_MAX, "Longest head of a request (431 beyond) or response (502 beyond)."),
	KEY("max_body_bytes", K_BYTES, SERVER(max_body_bytes), "0", 0, LIMIT_MAX,
	    "Longest request body (413 beyond); 0: no limit."),
	PLAIN("trusted_proxies", K_CIDRS, SERVER(trusted), NULL,
	    "Peers whose X-Forwarded-* and Forwarded are believed; others' are replaced."),
	PLAIN("proxy_protocol", K_BOOL, SERVER(proxy_protocol), "false",
	    "Clients start with a PROXY header, v1 or v2."),
	PLAIN("admin_token", K_SECRET, SERVER(admin_token), NULL,
	    "What X-Admin-Token must be on routes with require_auth."),
	KEY("no_route_status", K_INT, SERVER(no_route_status), "502", 400, 599,
	    "Answer to a request that no route takes."),
	PLAIN("request_id", K_BOOL, SERVER(request_id), "true",
	    "Send X-Request-Id upstream: a trusted proxy's own, else a new one."),
	KEY("socket_mode", K_MODE, SERVER(socket_mode), "0660", 0, MODE_MAX,
	    "Mode of unix sockets that are listened on."),
	PLAIN("show_errors", K_BOOL, SERVER(show_errors), "false",
	    "Say the cause in the pages of 502, 503 and 504."),
	PLAIN("error_dir", K_PATH, SERVER(error_dir), NULL,
	    "Directory of NNN.html and NNN.json, served for warp's own errors."),
	PLAIN("server_tokens", K_BOOL, SERVER(server_tokens), "false",
	    "Name warp and its version in answers of its own."),
};

#define PLACE_KEYS(type, in) \
	PLAIN("host", K_TEXT, AT(type, in host), NULL, "Name or address of the backend."), \
	KEY("port", K_INT, AT(type, in port), NULL, 1, PORT_MAX, "Its port."), \
	PLAIN("socket", K_TEXT, AT(type, in socket), NULL, "Its unix socket, instead."), \
	PLAIN("url", K_TEXT, AT(type, in url), NULL, "Its address as http:// or ws://, instead.")

#define UPSTREAM(field) AT(struct upstream_read, out.field)
static const struct key upstream_keys[] = {
	PLACE_KEYS(struct upstream_read, place.),
	SUB("instances", K_TABLES, NOW, SEC_INSTANCE, "Several backends, instead."),
	PLAIN("strategy", K_TEXT, AT(struct upstream_read, strategy), "round_robin",
	    "How an instance is picked: round_robin (smooth, weighted). Later: weighted, "
	    "least_conn, random, random_two, ip_hash, uri_hash, header_hash, cookie, "
	    "least_time, first."),
	SOON("hash_header", K_TEXT, LATER, NULL, NULL, "Header field of strategy header_hash."),
	SOON("sticky_cookie", K_TEXT, LATER, NULL, NULL, "Cookie of strategy cookie."),
	WORDS("protocol", K_CHOICE, AT(struct upstream_read, protocol), "http",
	    "http|https|uwsgi", "What is spoken to the backend. Later: https, uwsgi."),
	SOON("modifier1", K_INT, LATER_OFF, "0", NULL, "Of the uwsgi packet."),
	SOON("modifier2", K_INT, LATER_OFF, "0", NULL, "Of the uwsgi packet."),
	SOON("params", K_ANY, LATER, NULL, NULL, "Variables added to the uwsgi packet."),
	KEY("keepalive", K_INT, UPSTREAM(keepalive), "32", 0, CLIENTS_MAX,
	    "Idle connections kept for each instance, in each worker."),
	KEY("keepalive_timeout_secs", K_SECS, UPSTREAM(keepalive_ms), "60", SECS_MIN, SECS_MAX,
	    "An idle connection is closed after this long."),
	KEY("connect_timeout_secs", K_SECS, UPSTREAM(connect_ms), "5", SECS_MIN, SECS_MAX,
	    "Longest wait for a connection."),
	KEY("read_timeout_secs", K_SECS, UPSTREAM(read_ms), "60", SECS_MIN, SECS_MAX,
	    "Longest silence before the answer and inside it."),
	KEY("write_timeout_secs", K_SECS, UPSTREAM(write_ms), "60", SECS_MIN, SECS_MAX,
	    "Longest wait between two writes of the request."),
	KEY("retries", K_INT, UPSTREAM(retries), "2", 0, RETRIES_MAX,
	    "Further instances tried for one request."),
	SOON("hold_secs", K_SECS, LATER_OFF, "0", NULL,
	    "A request waits this long for an instance to come up."),
	KEY("max_fails", K_INT, UPSTREAM(max_fails), "3", 0, INT32_MAX,
	    "Failures within fail_timeout_secs that leave an instance out; 0: none do."),
	KEY("fail_timeout_secs", K_SECS, UPSTREAM(fail_ms), "10", SECS_MIN, SECS_MAX,
	    "How long it is left out; then one request is its trial."),
	WORDS("proxy_protocol", K_CHOICE, UPSTREAM(proxy_out), "off", "off|v1|v2",
	    "Start each connection with a PROXY header."),
	PLAIN("host_header", K_TEXT, AT(struct upstream_read, host_header), "preserve",
	    "Host sent upstream: preserve (the client's), upstream (the backend's), or a text."),
	SOON("slow_start_secs", K_SECS, LATER_OFF, "0", NULL,
	    "An instance that comes back gets its share over this time."),
	SOON("maintenance", K_PATH, LATER, NULL, NULL,
	    "A file: while it exists it is the answer, with 503."),
	SOON("subscription", K_TEXT, LATER, NULL, NULL,
	    "Subscription server whose nodes are the instances."),
	SUB("tls", K_TABLE, LATER, SEC_UPSTREAM_TLS, "TLS toward https backends."),
	SUB("health", K_TABLE, LATER, SEC_HEALTH, "Probes."),
	SUB("process", K_TABLE, LATER, SEC_UPSTREAM_PROCESS, "The program behind it, supervised."),
};

static const struct key instance_keys[] = {
	PLACE_KEYS(struct place, ),
	KEY("weight", K_INT, AT(struct place, weight), "1", 1, WEIGHT_MAX,
	    "Its share of the requests."),
	SOON("backup", K_BOOL, LATER_OFF, "false", NULL, "Used only when all others are down."),
	SOON("max_connections", K_INT, LATER_OFF, "0", NULL, "Requests at one time; 0: no limit."),
};

static const struct key upstream_tls_keys[] = {
	SOON("verify", K_BOOL, LATER, "true", NULL, "Check the backend's certificate."),
	SOON("ca_file", K_PATH, LATER, NULL, NULL, "Whom to trust for that."),
	SOON("server_name", K_TEXT, LATER, NULL, NULL, "Name to ask for and to check."),
	SOON("cert", K_PATH, LATER, NULL, NULL, "Client certificate."),
	SOON("key", K_PATH, LATER, NULL, NULL, "Its key."),
};

static const struct key health_keys[] = {
	SOON("path", K_TEXT, LATER, NULL, NULL, "What to ask for; none: only connect."),
	SOON("interval_secs", K_SECS, LATER, "10", NULL, "Time between probes."),
	SOON("timeout_secs", K_SECS, LATER, "2", NULL, "A probe fails after this."),
	SOON("unhealthy_threshold", K_INT, LATER, "3", NULL, "Failures in a row: down."),
	SOON("healthy_threshold", K_INT, LATER, "2", NULL, "Passes in a row: up."),
	SOON("expect_status", K_ANY, LATER, "200-399", NULL, "What passes."),
	SOON("host", K_TEXT, LATER, NULL, NULL, "Host of the probe."),
	SOON("method", K_TEXT, LATER, "GET", NULL, "Method of the probe."),
	SOON("port", K_INT, LATER, NULL, NULL, "Another port to probe."),
	SOON("jitter", K_BOOL, LATER, "true", NULL, "Spread probes in time."),
};

static const struct key process_keys[] = {
	SOON("command", K_TEXT, LATER, NULL, NULL, "Program; split into words without args."),
	SOON("args", K_TEXTS, LATER, NULL, NULL, "Its arguments."),
	SOON("env", K_ANY, LATER, NULL, NULL, "Added to the environment."),
	SOON("envfile", K_PATH, LATER, NULL, NULL, "File of such additions."),
	SOON("dir", K_PATH, LATER, NULL, NULL, "Directory to start in."),
	SOON("user", K_TEXT, LATER, NULL, NULL, "User to run as."),
	SOON("group", K_TEXT, LATER, NULL, NULL, "Group to run as."),
	SOON("replicas", K_INT, LATER, "1", NULL, "How many to run."),
	SOON("depends_on", K_TEXTS, LATER, NULL, NULL, "Started after these."),
	SOON("restart", K_CHOICE, LATER, "always", "always|on_failure|never", "When to restart."),
	SOON("backoff_secs", K_SECS, LATER, "0.5", NULL, "Wait before a restart, doubling."),
	SOON("backoff_max_secs", K_SECS, LATER, "30", NULL, "Up to this."),
	SOON("stop_signal", K_TEXT, LATER, "TERM", NULL, "How it is told to stop."),
	SOON("stop_timeout_secs", K_SECS, LATER, "10", NULL, "Then it is killed."),
	SOON("ready", K_CHOICE, LATER, "listen", "listen|health|exec", "When it counts as up."),
	SOON("ready_timeout_secs", K_SECS, LATER, "60", NULL, "It must be up within."),
	SOON("log", K_TEXT, LATER, "prefix", NULL, "Where its output goes."),
	SUB("limits", K_TABLE, LATER, SEC_LIMITS, "Resource limits."),
	SOON("oneshot", K_BOOL, LATER_OFF, "false", NULL, "Run to success, once."),
	SOON("start_on", K_CHOICE, LATER, "boot", "boot|request", "When it is started."),
	SOON("idle_stop_secs", K_SECS, LATER_OFF, "0", NULL, "Stopped after idling so long."),
	SOON("subscribe_to", K_TEXTS, LATER, NULL, NULL, "Subscription servers to announce to."),
	SOON("shared_sockets", K_ANY, LATER, NULL, NULL, "Numbers of [[shared_sockets]] it gets."),
};

static const struct key limits_keys[] = {
	SOON("nofile", K_INT, LATER, NULL, NULL, "Open files."),
	SOON("as_bytes", K_BYTES, LATER, NULL, NULL, "Address space."),
	SOON("core", K_BYTES, LATER, NULL, NULL, "Core file."),
};

#define ROUTE(field) AT(struct route_read, out.field)
static const struct key route_keys[] = {
	PLAIN("host", K_TEXT, AT(struct route_read, host), NULL,
	    "Condition: the host, without port; *.example.com: any below it."),
	PLAIN("path_prefix", K_TEXT, AT(struct route_read, path_prefix), NULL,
	    "Condition: the path starts with this text; a * at its end is ignored."),
	PLAIN("path_exact", K_TEXT, AT(struct route_read, path_exact), NULL,
	    "Condition: the path is this text."),
	PLAIN("path_regex", K_TEXT, AT(struct route_read, path_regex), NULL,
	    "Condition: a POSIX extended regular expression matches in the path."),
	PLAIN("methods", K_TEXTS, AT(struct route_read, methods), NULL,
	    "Condition: one of these methods; GET includes HEAD."),
	PLAIN("header", K_MATCHES, ROUTE(headers), NULL,
	    "Condition: a header field { name, value }, or all of a list; value \"*\": any."),
	PLAIN("query", K_PAIRS, ROUTE(queries), NULL,
	    "Condition: a query parameter { name, value }, or all of a list; value \"*\": any."),
	PLAIN("client", K_CIDRS, ROUTE(clients), NULL, "Condition: the client's address is here."),
	PLAIN("upstream", K_TEXT, AT(struct route_read, upstream), NULL,
	    "Action: this upstream answers."),
	PLAIN("redirect", K_TEXT, ROUTE(redirect), NULL,
	    "Action: redirect to this; {host}, {uri} and {path} are the request's."),
	KEY("status", K_INT, ROUTE(status), "308", 301, 308,
	    "Of redirect: 301, 302, 303, 307 or 308."),
	SUB("respond", K_TABLE, NOW, SEC_RESPOND,
	    "Action: answer with { status, body, content_type }."),
	SOON("static_dir", K_PATH, LATER, NULL, NULL, "Action: serve files from here."),
	SOON("index", K_TEXT, LATER, "index.html", NULL, "File served for a directory."),
	SOON("fallback", K_TEXT, LATER, NULL, NULL, "File served when there is none."),
	SOON("listing", K_BOOL, LATER_OFF, "false", NULL, "List directories."),
	SOON("cache_control", K_TEXT, LATER, NULL, NULL, "Cache-Control of files."),
	PLAIN("strip_prefix", K_BOOL, ROUTE(strip_prefix), "false",
	    "The upstream sees the path without what matched."),
	PLAIN("rewrite", K_TEXT, ROUTE(rewrite), NULL,
	    "This replaces what matched; $1 to $9 are groups of path_regex."),
	PLAIN("add_headers", K_FIELDS, ROUTE(add_headers), NULL,
	    "[{ name, value }] set on the request upstream."),
	PLAIN("remove_headers", K_NAMES, ROUTE(remove_headers), NULL,
	    "Names removed from the request upstream."),
	PLAIN("add_response_headers", K_FIELDS, ROUTE(add_response_headers), NULL,
	    "[{ name, value }] set on the response."),
	PLAIN("remove_response_headers", K_NAMES, ROUTE(remove_response_headers), NULL,
	    "Names removed from the response."),
	KEY("read_timeout_secs", K_SECS, ROUTE(read_ms), NULL, SECS_MIN, SECS_MAX,
	    "Instead of the upstream's."),
	KEY("connect_timeout_secs", K_SECS, ROUTE(connect_ms), NULL, SECS_MIN, SECS_MAX,
	    "Instead of the upstream's."),
	KEY("write_timeout_secs", K_SECS, ROUTE(write_ms), NULL, SECS_MIN, SECS_MAX,
	    "Instead of the upstream's."),
	PLAIN("require_auth", K_BOOL, ROUTE(require_auth), "false",
	    "401 unless X-Admin-Token is server.admin_token; it is not forwarded."),
	PLAIN("basic_auth", K_USERS, ROUTE(basic_auth), NULL,
	    "{ user = \"crypt(3) hash or text\" }: 401 for anybody else."),
	KEY("max_body_bytes", K_BYTES, ROUTE(max_body_bytes), NULL, 0, LIMIT_MAX,
	    "Instead of the server's; 0: no limit."),
	SUB("rate_limit", K_TABLE, NOW, SEC_RATE,
	    "{ requests, per_secs, burst, key }: 429 beyond."),
	KEY("buffer_request", K_BYTES, ROUTE(buffer_request), NULL, 0, LIMIT_MAX,
	    "The upstream sees a request when it is whole; bytes kept in memory, "
	    "the rest in a file."),
	PLAIN("websocket", K_BOOL, ROUTE(websocket), "true", "Let upgrades through; else 426."),
	SOON("cache", K_BOOL, LATER_OFF, NULL, NULL, "Cache answers; follows [cache]."),
	SOON("gzip", K_BOOL, LATER_OFF, NULL, NULL, "Compress answers; follows [middleware]."),
	PLAIN("description", K_TEXT, ROUTE(description), NULL, "For people and logs."),
};

static const struct key respond_keys[] = {
	KEY("status", K_INT, AT(struct route_read, respond_status), "200", 200, 599,
	    "Its status."),
	PLAIN("body", K_TEXT, ROUTE(body), "", "Its body."),
	PLAIN("content_type", K_TEXT, ROUTE(content_type), "text/plain; charset=utf-8",
	    "Its Content-Type."),
};

static const struct key rate_keys[] = {
	KEY("requests", K_INT, ROUTE(rate.requests), NULL, 1, INT32_MAX, "So many requests"),
	KEY("per_secs", K_SECS, ROUTE(rate.per_ms), "1", SECS_MIN, SECS_MAX, "in this time."),
	KEY("burst", K_INT, ROUTE(rate.burst), NULL, 1, INT32_MAX,
	    "At once; as many as requests if not said."),
	WORDS("key", K_CHOICE, AT(struct route_read, limit_key), "ip", "ip",
	    "What is counted: each client address."),
};

static const struct key tls_keys[] = {
	SOON("enabled", K_BOOL, LATER_OFF, "false", NULL, "Serve TLS."),
	SOON("cert", K_PATH, LATER, NULL, NULL, "Certificate chain, PEM."),
	SOON("key", K_PATH, LATER, NULL, NULL, "Its key, PEM."),
	SUB("certs", K_TABLES, LATER, SEC_CERT, "Several, chosen by name."),
	SOON("domains", K_TEXTS, LATER, NULL, NULL, "Names to get certificates for."),
	SOON("acme_directory", K_PATH, LATER, NULL, NULL, "Where ACME state and keys live."),
	SOON("acme_url", K_TEXT, LATER, NULL, NULL, "The ACME server; Let's Encrypt."),
	SOON("acme_email", K_TEXT, LATER, NULL, NULL, "Contact of the account."),
	SOON("acme_ca_file", K_PATH, LATER, NULL, NULL, "Whom to trust as ACME server."),
	SUB("acme_eab", K_TABLE, LATER, SEC_EAB, "External account binding."),
	SOON("redirect", K_BOOL, LATER_OFF, "true", NULL, "Redirect http to https."),
	SOON("hsts_secs", K_INT, LATER_OFF, "0", NULL, "Strict-Transport-Security."),
	SOON("session_cache", K_INT, LATER_OFF, NULL, NULL, "Sessions remembered."),
	SOON("client_ca_file", K_PATH, LATER, NULL, NULL, "Who may sign client certificates."),
	SOON("client_verify", K_CHOICE, LATER, "require", "require|optional", "Ask for them."),
	SOON("strict_sni", K_BOOL, LATER_OFF, "false", NULL, "Refuse unknown names."),
	SOON("legacy", K_BOOL, LATER_OFF, "false", NULL, "Old protocol versions."),
};

static const struct key cert_keys[] = {
	SOON("cert", K_PATH, LATER, NULL, NULL, "Certificate chain, PEM."),
	SOON("key", K_PATH, LATER, NULL, NULL, "Its key, PEM."),
};

static const struct key eab_keys[] = {
	SOON("kid", K_TEXT, LATER, NULL, NULL, "Key identifier."),
	SOON("hmac", K_SECRET, LATER, NULL, NULL, "HMAC key."),
};

static const struct key cache_keys[] = {
	SOON("size_bytes", K_BYTES, LATER_OFF, "0", NULL, "Memory of the cache; 0: none."),
	SOON("max_object_bytes", K_BYTES, LATER, NULL, NULL, "Largest answer stored."),
	SOON("redis_url", K_SECRET, LATER, NULL, NULL, "A second level in Redis."),
	SOON("default_ttl_secs", K_SECS, LATER_OFF, "0", NULL, "For answers that say nothing."),
	SOON("stale_secs", K_SECS, LATER, NULL, NULL, "Served so long after their time."),
	SOON("redis_timeout_ms", K_INT, LATER, "50", NULL, "Longest wait for Redis."),
};

static const struct key postgres_keys[] = {
	SOON("url", K_SECRET, LATER, NULL, NULL, "Database to LISTEN at."),
	SOON("channel", K_TEXT, LATER, NULL, NULL, "Its channel; payloads are purged."),
	SOON("on_reconnect", K_CHOICE, LATER, "purge", "purge|keep", "Messages may be missed."),
};

#define MIDDLEWARE(field) AT(struct middleware_conf, field)
static const struct key middleware_keys[] = {
	PLAIN("forward_headers", K_BOOL, MIDDLEWARE(forward_headers), "true",
	    "Send X-Forwarded-For, -Proto, -Host, -Port and X-Real-IP upstream."),
	PLAIN("forwarded", K_BOOL, MIDDLEWARE(forwarded), "false",
	    "Send Forwarded (RFC 7239) upstream."),
	PLAIN("via", K_BOOL, MIDDLEWARE(via), "false", "Add Via in both directions."),
	SOON("x_sendfile_enabled", K_BOOL, LATER_OFF, "false", NULL, "Obey X-Sendfile."),
	SOON("x_sendfile_root", K_PATH, LATER, NULL, NULL, "Only below this directory."),
	SOON("gzip_compression_enabled", K_BOOL, LATER_OFF, "false", NULL, "Compress answers."),
	SOON("gzip_min_bytes", K_BYTES, LATER, "1024", NULL, "From this size."),
	SOON("gzip_types", K_TEXTS, LATER, NULL, NULL, "Of these types."),
	SOON("gzip_level", K_INT, LATER, NULL, NULL, "This hard."),
	PLAIN("log_requests", K_BOOL, MIDDLEWARE(log_requests), "false",
	    "An access log on standard output, unless log.access says where."),
};

static const struct key log_keys[] = {
	PLAIN("access", K_SINK, AT(struct log_conf, access), NULL,
	    "Where a line for each request goes: stdout, stderr, a file, syslog, off."),
	PLAIN("format", K_TEXT, AT(struct log_conf, format), "combined",
	    "common, combined, json, or a pattern with $variables."),
	PLAIN("error", K_SINK, AT(struct log_conf, error), "stderr",
	    "Where warp's own messages go: stderr, stdout, a file, syslog, off."),
	WORDS("level", K_CHOICE, AT(struct log_conf, level), "info", "error|warn|info|debug",
	    "How much it says."),
};

static const struct key admin_keys[] = {
	WORDS("listen", K_ADDRS, AT(struct admin_read, listen), ADMIN_SOCKET, "off",
	    "Addresses of the admin interface, or off."),
	PLAIN("token", K_SECRET, AT(struct admin_read, token), NULL,
	    "What X-Admin-Token or Bearer must be over TCP; unix sockets need none."),
	SOON("expose", K_TEXT, LATER, NULL, NULL, "Reachable through routes at this path."),
};

/* name is what the manual calls it; upstreams.NAME is read for each NAME.
 * off: a LATER section with this key off is as if it were not there. */
struct section {
	const char *name;
	const struct key *keys;
	size_t n;
	enum key_when when;
	const char *off;
	const char *help;
};

#define SECTION(name, keys, when, off, help) { name, keys, LEN(keys), when, off, help }
#define DIALECT(name, help) { name, NULL, 0, LATER, NULL, help }
static const struct section sections[SECTIONS] = {
	[SEC_ROOT] = SECTION("", root_keys, LATER, NULL, "Deployment keys of Fujin."),
	[SEC_SERVER] = SECTION("server", server_keys, NOW, NULL, "Listening, limits, time."),
	[SEC_UPSTREAM] = SECTION("upstreams.NAME", upstream_keys, NOW, NULL,
	    "Backends that routes name: host and port, socket, url, or instances."),
	[SEC_INSTANCE] = SECTION("upstreams.NAME.instances", instance_keys, NOW, NULL,
	    "One of several backends."),
	[SEC_UPSTREAM_TLS] = SECTION("upstreams.NAME.tls", upstream_tls_keys, LATER, NULL, ""),
	[SEC_HEALTH] = SECTION("upstreams.NAME.health", health_keys, LATER, NULL, ""),
	[SEC_UPSTREAM_PROCESS] = SECTION("upstreams.NAME.process", process_keys, LATER, NULL, ""),
	[SEC_PROCESS] = SECTION("processes.NAME", process_keys, LATER, NULL, ""),
	[SEC_LIMITS] = SECTION("processes.NAME.limits", limits_keys, LATER, NULL, ""),
	[SEC_ROUTE] = SECTION("routes", route_keys, NOW, NULL,
	    "In order: the first whose conditions all hold takes the request. "
	    "Each has exactly one action."),
	[SEC_RESPOND] = SECTION("routes.respond", respond_keys, NOW, NULL,
	    "An answer of warp's own."),
	[SEC_RATE] = SECTION("routes.rate_limit", rate_keys, NOW, NULL, "Of all workers together."),
	[SEC_TLS] = SECTION("tls", tls_keys, LATER, "enabled", ""),
	[SEC_CERT] = SECTION("tls.certs", cert_keys, LATER, NULL, ""),
	[SEC_EAB] = SECTION("tls.acme_eab", eab_keys, LATER, NULL, ""),
	[SEC_CACHE] = SECTION("cache", cache_keys, LATER, "size_bytes", ""),
	[SEC_POSTGRES] = SECTION("postgres", postgres_keys, LATER, NULL, ""),
	[SEC_MIDDLEWARE] = SECTION("middleware", middleware_keys, NOW, NULL,
	    "Switches for all routes."),
	[SEC_LOG] = SECTION("log", log_keys, NOW, NULL, "What is written where."),
	[SEC_ADMIN] = SECTION("admin", admin_keys, NOW, NULL, "Status, metrics, and `warp -s`."),
	[SEC_WEBSERVER] = DIALECT("webserver", "Fujin's routes."),
	[SEC_HOSTS] = DIALECT("hosts", "Fujin's hosts."),
	[SEC_SITES] = DIALECT("sites", "BWS's sites."),
	[SEC_FASTROUTER] = DIALECT("fastrouter", "uWSGI's FastRouter."),
	[SEC_SHARED_SOCKETS] = DIALECT("shared_sockets", "Sockets bound for others."),
};
/* clang-format on */

static const struct key *
key_find(enum section_id id, struct slice name)
{
	for (size_t i = 0; i < sections[id].n; i++)
		if (slice_eq(name, slice_of(sections[id].keys[i].name)))
			return &sections[id].keys[i];
	return NULL;
}

/* The word that starts a section in the file: upstreams of upstreams.NAME. */
static struct slice
section_word(enum section_id id)
{
	const char *name = sections[id].name;

	return (struct slice){ name, strcspn(name, ".") };
}

/* Sections that stand in the file by themselves, not inside another one. */
static bool
section_is_top(enum section_id id)
{
	const char *dot = strchr(sections[id].name, '.');

	return id != SEC_ROOT && (!dot || strcmp(dot, ".NAME") == 0);
}

/* Its scalar keys can be set by the environment: not lists, not NAMEs. */
static bool
section_has_env(enum section_id id)
{
	return section_is_top(id) && id != SEC_ROUTE && !strchr(sections[id].name, '.');
}

/* ==== hints ==================================================================
 * Owns    nothing.
 * Offers  near_offer, near_text: which known word was meant.
 * Calls   base, arena. */

#define NEAR_MAX 48 /* bytes of a word that is compared */

struct near {
	struct slice word, best;
	size_t distance; /* of best */
};

/* Insertions, deletions, changes and swaps of neighbours from a to b
 * (Damerau-Levenshtein, optimal string alignment). */
static size_t
word_distance(struct slice a, struct slice b)
{
	size_t rows[3][NEAR_MAX + 1], *old = rows[0], *last = rows[1], *now = rows[2], *t;

	if (a.n > NEAR_MAX || b.n > NEAR_MAX)
		return SIZE_MAX;
	for (size_t j = 0; j <= b.n; j++)
		old[j] = last[j] = j;
	for (size_t i = 1; i <= a.n; i++) {
		now[0] = i;
		for (size_t j = 1; j <= b.n; j++) {
			now[j] = MIN(MIN(last[j], now[j - 1]) + 1,
			    last[j - 1] + (a.p[i - 1] != b.p[j - 1]));
			if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1])
				now[j] = MIN(now[j], old[j - 2] + 1);
		}
		t = old;
		old = last;
		last = now;
		now = t;
	}
	return last[b.n];
}

static void
near_offer(struct near *near, struct slice candidate)
{
	size_t d = word_distance(near->word, candidate);
	size_t limit = MAX(near->word.n / 3, (size_t)2);

	if (candidate.n == 0 || d > limit || d >= near->word.n)
		return;
	if (near->best.n > 0 && d >= near->distance)
		return;
	near->best = candidate;
	near->distance = d;
}

/* `, did you mean 'x'?`, or nothing. */
static const char *
near_text(struct arena *a, const struct near *near)
{
	return near->best.n == 0 ? "" : arena_fmt(a, ", did you mean '%.*s'?",
	    (int)near->best.n, near->best.p);
}

/* ==== values =================================================================
 * Owns    nothing: values go into the structs of the configuration being read.
 * Offers  kinds[], section_read.
 * Calls   base, arena, diag, toml, http, addr, hints, keys. */

#define SECRET_FILE_MAX 65536 /* bytes of what `file:` names */
#define GOT_MAX         40    /* bytes of a wrong text that are shown */
#define ENV_PREFIX      "WARPDRIVE_"

/* A configuration being read. */
struct reader {
	struct conf *conf;
	struct arena *a;   /* conf's */
	const char *where; /* section in hand, as errors call it */
	const char *env;   /* the variable whose text is in hand, NULL: the file's */
	const struct toml *secret; /* the first that stands in the file itself */
};

/* The whole of a file of at most max bytes, NUL behind it; NULL or why not. */
static const char *
file_read(struct arena *a, const char *path, size_t max, struct slice *out)
{
	FILE *f = fopen(path, "re");
	char *p = NULL;
	size_t n = 0, cap = 0;
	const char *why = NULL;

	if (!f)
		return strerror(errno);
	while (!feof(f) && !ferror(f) && n <= max) {
		if (n == cap) {
			cap = cap ? cap * 2 : 4096;
			if (!(p = realloc(p, cap)))
				die_memory();
		}
		n += fread(p + n, 1, cap - n, f);
	}
	if (ferror(f))
		why = strerror(errno);
	else if (n > max)
		why = "the file is too long";
	else
		*out = arena_dup(a, (struct slice){ p, n });
	free(p);
	fclose(f); /* only read from */
	return why;
}

/* path as it is if absolute, else below the configuration's directory. */
static const char *
conf_path(struct conf *c, struct slice path)
{
	if (path.n > 0 && path.p[0] == '/')
		return arena_dup(&c->arena, path).p;
	return arena_fmt(&c->arena, "%s/%.*s", strcmp(c->dir, "/") == 0 ? "" : c->dir,
	    (int)path.n, path.p);
}

/* What the operator wrote, in words. */
static const char *
value_text(struct arena *a, const struct toml *v)
{
	switch (v->kind) {
	case TOML_STRING:
		return arena_fmt(a, "the text \"%.*s%s\"", (int)MIN(v->text.n, (size_t)GOT_MAX),
		    v->text.p, v->text.n > GOT_MAX ? "..." : "");
	case TOML_INTEGER:
		return arena_fmt(a, "%lld", (long long)v->integer);
	case TOML_FLOAT:
		return arena_fmt(a, "%g", v->real);
	case TOML_BOOLEAN:
		return v->boolean ? "true" : "false";
	case TOML_ARRAY:
		return v->count == 0 ? "an empty list" : "a list";
	case TOML_TABLE:
		return "a table";
	default:
		return arena_fmt(a, "the date or time %.*s", (int)v->text.n, v->text.p);
	}
}

/* Notes an error in the value v of a key: at its place, or naming the
 * variable. Always false, so that a failing check is one line. */
__attribute__((format(printf, 4, 5))) static bool
value_error(struct reader *r, const char *key, const struct toml *v, const char *fmt, ...)
{
	struct conf *c = r->conf;
	const char *text;
	va_list ap;

	va_start(ap, fmt);
	text = arena_vfmt(&c->arena, fmt, ap);
	va_end(ap);
	if (r->env)
		diag_add(&c->diags, DIAG_ERROR, 0, 0, "%s: %s", r->env, text);
	else
		diag_add(&c->diags, DIAG_ERROR, v->vline, v->vcol, "%s%s%s: %s", r->where,
		    *r->where ? "." : "", key, text);
	return false;
}

/* Kind, range and choices of a key: "a number from 1 to 65535". */
static const char *
kind_text(struct arena *a, const struct key *k)
{
	const char *name = kinds[k->kind].name;
	bool number = k->kind == K_INT || k->kind == K_BYTES || k->kind == K_SECS;

	if (k->kind == K_CHOICE) {
		char *text = arena_fmt(a, "%s %s", name, k->words);
		for (char *bar = text; (bar = strchr(bar, '|')); )
			*bar = ' ';
		return text;
	}
	if (!number || (k->min <= 0 && k->max >= LIMIT_MAX))
		return name;
	if (k->max >= LIMIT_MAX)
		return arena_fmt(a, "%s of at least %.10g", name, k->min);
	return arena_fmt(a, "%s from %.10g to %.10g", name, k->min, k->max);
}

static bool
kind_error(struct reader *r, const struct key *k, const struct toml *v)
{
	struct arena *a = r->a;

	return value_error(r, k->name, v, "expected %s, got %s", kind_text(a, k),
	    value_text(a, v));
}

/* What env:NAME or file:/path stands for; any other text is itself. */
static bool
text_follow(struct reader *r, const struct key *k, const struct toml *v, struct slice *out)
{
	bool secret = k->kind == K_SECRET || k->kind == K_USERS;
	const char *why, *path;
	struct stat st;

	*out = v->text;
	if (slice_starts(v->text, S("env:"))) {
		*out = slice_of(getenv(v->text.p + 4));
		if (!out->p)
			return value_error(r, k->name, v, "the environment has no %s",
			    v->text.p + 4);
	} else if (slice_starts(v->text, S("file:"))) {
		path = conf_path(r->conf, slice_from(v->text, 5));
		if ((why = file_read(r->a, path, SECRET_FILE_MAX, out)))
			return value_error(r, k->name, v, "cannot read %s: %s", path, why);
		if (secret && stat(path, &st) == 0 && (st.st_mode & S_IROTH))
			diag_add(&r->conf->diags, DIAG_WARNING, v->vline, v->vcol,
			    "%s is readable by others; chmod 640", path);
		if (out->n > 0 && out->p[out->n - 1] == '\n')
			out->n--;
		if (out->n > 0 && out->p[out->n - 1] == '\r')
			out->n--;
	} else if (secret && !r->secret && !r->env &&
	    (k->kind == K_SECRET || !slice_starts(v->text, S("$")))) /* not a hash */
		r->secret = v;
	*out = arena_dup(r->a, *out); /* with a NUL behind it */
	return true;
}

/* The text of v, good as a C string as well. */
static bool
text_get(struct reader *r, const struct key *k, const struct toml *v, struct slice *out)
{
	if (v->kind != TOML_STRING)
		return kind_error(r, k, v);
	if (!text_follow(r, k, v, out))
		return false;
	if (out->n > 0 && memchr(out->p, '\0', out->n))
		return value_error(r, k->name, v, "a text cannot hold a NUL here");
	return true;
}

/* The members of a list; another value counts as a list of one. */
static const struct toml *
list_first(const struct toml *v, size_t *n)
{
	*n = v->kind == TOML_ARRAY ? v->count : 1;
	return v->kind == TOML_ARRAY ? v->first : v;
}

static void
store(void *to, size_t size, uint64_t n)
{
	uint32_t small = (uint32_t)n;

	if (size == sizeof small)
		memcpy(to, &small, sizeof small);
	else
		memcpy(to, &n, sizeof n);
}

/* ---- one setter for each kind ---- */

static bool
set_bool(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	if (v->kind != TOML_BOOLEAN)
		return kind_error(r, k, v);
	*(bool *)to = v->boolean;
	return true;
}

static bool
set_int(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	double n = (double)v->integer;

	if (v->kind != TOML_INTEGER || n < k->min || n > k->max)
		return kind_error(r, k, v);
	store(to, k->size, (uint64_t)v->integer);
	return true;
}

static bool
set_secs(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	double secs = v->kind == TOML_INTEGER ? (double)v->integer : v->real;

	if (v->kind != TOML_INTEGER && v->kind != TOML_FLOAT)
		return kind_error(r, k, v);
	if (!(secs >= k->min && secs <= k->max)) /* nan as well */
		return kind_error(r, k, v);
	store(to, k->size, (uint64_t)(secs * SECOND_MS + 0.5));
	return true;
}

/* A TOML integer (0o660), or octal digits as a text. */
static bool
set_mode(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	int64_t mode = v->integer;
	char *end;

	if (v->kind == TOML_STRING) {
		mode = strtol(v->text.p, &end, 8);
		if (v->text.n == 0 || *end || !isdigit((unsigned char)*v->text.p))
			return kind_error(r, k, v);
	} else if (v->kind != TOML_INTEGER)
		return kind_error(r, k, v);
	if (mode < 0 || mode > MODE_MAX)
		return kind_error(r, k, v);
	store(to, k->size, (uint64_t)mode);
	return true;
}

/* One of k->words; where the first is off, false is that and true the next. */
static bool
set_choice(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	struct slice rest = slice_of(k->words), word, said = S("");
	struct near near;

	if (v->kind == TOML_BOOLEAN && slice_starts(rest, S("off|"))) {
		store(to, k->size, v->boolean);
		return true;
	}
	if (v->kind == TOML_STRING && !text_get(r, k, v, &said))
		return false;
	near = (struct near){ .word = said };
	for (uint64_t i = 0; slice_cut(&rest, '|', &word); i++) {
		near_offer(&near, word);
		if (slice_eq(word, said)) {
			store(to, k->size, i);
			return true;
		}
	}
	return value_error(r, k->name, v, "expected %s, got %s%s",
	    kind_text(r->a, k), value_text(r->a, v),
	    near_text(r->a, &near));
}

static bool
set_sink(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	static const struct { const char *name; enum log_sink sink; } sinks[] = {
		{ "off", SINK_OFF }, { "stdout", SINK_STDOUT }, { "stderr", SINK_STDERR },
		{ "syslog", SINK_SYSLOG },
	};
	struct log_target *out = to;
	struct slice s;

	if (v->kind != TOML_STRING || v->text.n == 0)
		return kind_error(r, k, v);
	if (!text_get(r, k, v, &s))
		return false;
	*out = (struct log_target){ .sink = SINK_FILE, .fd = -1 };
	for (size_t i = 0; i < LEN(sinks); i++)
		if (slice_eq(s, slice_of(sinks[i].name))) {
			out->sink = sinks[i].sink;
			return true;
		}
	out->path = conf_path(r->conf, s);
	return true;
}

/* Into a struct slice or a const char *, by size. */
static bool
set_text(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	struct slice s;

	if (!text_get(r, k, v, &s))
		return false;
	if (s.n == 0 && k->kind != K_TEXT)
		return value_error(r, k->name, v, "must not be empty");
	if (k->kind == K_PATH)
		s = slice_of(conf_path(r->conf, s));
	if (k->size == sizeof s)
		memcpy(to, &s, sizeof s);
	else
		memcpy(to, &s.p, sizeof s.p);
	return true;
}

/* ---- members of lists ---- */

static bool
text_item(struct reader *r, const struct key *k, const struct toml *v, void *out)
{
	return text_get(r, k, v, out);
}

static bool
addr_item(struct reader *r, const struct key *k, const struct toml *v, void *out)
{
	const char *why;
	struct slice s;

	if (!text_get(r, k, v, &s))
		return false;
	return addr_parse(r->a, s, out, &why) ||
	    value_error(r, k->name, v, "%s: %s", s.p, why);
}

static bool
cidr_item(struct reader *r, const struct key *k, const struct toml *v, void *out)
{
	struct slice s;

	if (!text_get(r, k, v, &s))
		return false;
	return cidr_parse(s, out) || value_error(r, k->name, v,
	    "expected a network such as 10.0.0.0/8 or an address, got \"%s\"", s.p);
}

/* Fields whose change would break the framing or the connection. */
static bool
is_framing(struct slice name)
{
	static const enum field_id ids[] = { F_CONNECTION, F_CONTENT_LENGTH, F_HTTP2_SETTINGS,
		F_KEEP_ALIVE, F_PROXY_CONNECTION, F_TE, F_TRAILER, F_TRANSFER_ENCODING,
		F_UPGRADE };
	enum field_id id = field_id_of(name);

	for (size_t i = 0; i < LEN(ids); i++)
		if (ids[i] == id)
			return true;
	return false;
}

static bool
field_name_ok(struct reader *r, const struct key *k, const struct toml *v, struct slice name)
{
	if (!is_token(name))
		return value_error(r, k->name, v, "'%s' is no name of a header field", name.p);
	if (k->kind != K_MATCHES && is_framing(name))
		return value_error(r, k->name, v, "%s is warp's own to write", name.p);
	if (k->kind == K_NAMES && field_id_of(name) == F_HOST)
		return value_error(r, k->name, v, "a request without Host is none");
	return true;
}

static bool
name_item(struct reader *r, const struct key *k, const struct toml *v, void *out)
{
	return text_get(r, k, v, out) && field_name_ok(r, k, v, *(struct slice *)out);
}

/* { name = "…", value = "…" } and nothing else. */
static bool
pair_item(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	const struct toml *name, *value;
	struct pair *out = to;

	if (v->kind != TOML_TABLE)
		return kind_error(r, k, v);
	for (const struct toml *c = v->first; c; c = c->next)
		if (!slice_eq(c->key, S("name")) && !slice_eq(c->key, S("value")))
			return value_error(r, k->name, c, "expected name and value, got '%.*s'",
			    (int)c->key.n, c->key.p);
	name = toml_get(v, "name");
	value = toml_get(v, "value");
	if (!name || !value)
		return value_error(r, k->name, v, "%s is missing", name ? "value" : "name");
	if (!text_get(r, k, name, &out->name) || !text_get(r, k, value, &out->value))
		return false;
	if (k->kind == K_PAIRS)
		return true;
	if (!field_name_ok(r, k, name, out->name))
		return false;
	return is_field_value(out->value) ||
	    value_error(r, k->name, value, "a header field cannot hold control characters");
}

/* ---- one setter for each kind, continued ---- */

/* All lists of warp.h are like this. */
struct list {
	void *v;
	int n;
};
_Static_assert(sizeof(struct list) == sizeof(struct slices) &&
    offsetof(struct list, n) == offsetof(struct pairs, n), "lists are alike");

static bool
set_list(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	static const struct {
		size_t size;
		bool (*get)(struct reader *, const struct key *, const struct toml *, void *);
		bool lone; /* one may stand for a list of one */
	} items[KINDS] = {
		[K_TEXTS] = { sizeof(struct slice), text_item, false },
		[K_ADDRS] = { sizeof(struct addr), addr_item, true },
		[K_CIDRS] = { sizeof(struct cidr), cidr_item, false },
		[K_NAMES] = { sizeof(struct slice), name_item, false },
		[K_FIELDS] = { sizeof(struct pair), pair_item, false },
		[K_MATCHES] = { sizeof(struct pair), pair_item, true },
		[K_PAIRS] = { sizeof(struct pair), pair_item, true },
	};
	size_t n, size = items[k->kind].size;
	const struct toml *item = list_first(v, &n);
	struct list out = { arena_alloc(r->a, n * size), 0 };
	bool ok = true;

	if (v->kind != TOML_ARRAY && !items[k->kind].lone)
		return kind_error(r, k, v);
	if (k->words && v->kind == TOML_STRING && slice_eq(v->text, slice_of(k->words)))
		n = 0;
	for (; n-- > 0; item = item->next)
		if (items[k->kind].get(r, k, item, (char *)out.v + (size_t)out.n * size))
			out.n++;
		else
			ok = false;
	memcpy(to, &out, sizeof out);
	return ok;
}

/* A hash starts with `$` and is one that crypt_sha knows. */
static bool
password_ok(struct reader *r, const struct key *k, const struct toml *v, struct slice secret)
{
	if (secret.n == 0)
		return value_error(r, k->name, v, "an empty password");
	if (secret.p[0] != '$') {
		if (secret.n == v->text.n && memcmp(secret.p, v->text.p, secret.n) == 0)
			diag_add(&r->conf->diags, DIAG_WARNING, v->vline, v->vcol,
			    "the password of %.*s is plain text, a hash is safer "
			    "(openssl passwd -6)", (int)v->key.n, v->key.p);
		return true;
	}
	return crypt_is_known(secret) ||
	    value_error(r, k->name, v, "this kind of hash is not known; "
	    "use SHA-512 (openssl passwd -6)");
}

static bool
set_users(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	struct pairs *out = to;
	bool ok = true;

	if (v->kind != TOML_TABLE || v->count == 0)
		return kind_error(r, k, v);
	*out = (struct pairs){ arena_alloc(r->a, v->count * sizeof *out->v), 0 };
	for (const struct toml *u = v->first; u; u = u->next) {
		struct pair *p = &out->v[out->n];
		p->name = u->key;
		if (u->key.n == 0 || memchr(u->key.p, ':', u->key.n))
			ok = value_error(r, k->name, u, "a user's name cannot hold a colon");
		else if (text_get(r, k, u, &p->value) && password_ok(r, k, u, p->value))
			out->n++;
		else
			ok = false;
	}
	return ok;
}

static bool
set_tables(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	size_t n;
	const struct toml *item = list_first(v, &n);

	(void)to; /* their reader goes through them itself */
	if (v->kind != TOML_ARRAY || n == 0)
		return kind_error(r, k, v);
	for (; n-- > 0; item = item->next)
		if (item->kind != TOML_TABLE)
			return kind_error(r, k, item);
	return true;
}

static bool (*const setters[KINDS])(struct reader *, const struct key *, const struct toml *,
    void *) = {
	[K_BOOL] = set_bool,
	[K_INT] = set_int,
	[K_BYTES] = set_int,
	[K_SECS] = set_secs,
	[K_MODE] = set_mode,
	[K_CHOICE] = set_choice,
	[K_SINK] = set_sink,
	[K_TEXT] = set_text,
	[K_SECRET] = set_text,
	[K_PATH] = set_text,
	[K_TEXTS] = set_list,
	[K_ADDRS] = set_list,
	[K_CIDRS] = set_list,
	[K_NAMES] = set_list,
	[K_FIELDS] = set_list,
	[K_MATCHES] = set_list,
	[K_PAIRS] = set_list,
	[K_USERS] = set_users,
	[K_TABLES] = set_tables,
};

/* ---- sections ---- */

/* The value a word of the environment (or a preset) stands for. It has no
 * place in the file: line 0. */
static const struct toml *
word_value(struct arena *a, enum key_words words, struct slice s)
{
	struct toml *v = arena_alloc(a, sizeof *v), *item;
	struct slice piece;
	char *end;

	v->kind = words == A_LIST ? TOML_ARRAY : TOML_STRING;
	v->text = arena_dup(a, s);
	while (words == A_LIST && slice_list_next(&s, &piece)) {
		item = arena_alloc(a, sizeof *item);
		item->text = arena_dup(a, piece);
		if (v->last)
			v->last->next = item;
		else
			v->first = item;
		v->last = item;
		v->count++;
	}
	if (words != ONE_VALUE || v->text.n == 0)
		return v;
	if (slice_eq(v->text, S("true")) || slice_eq(v->text, S("false"))) {
		v->kind = TOML_BOOLEAN;
		v->boolean = v->text.n == 4;
	} else if (strspn(v->text.p, "+-0123456789.eE") == v->text.n) {
		v->real = strtod(v->text.p, &end);
		v->kind = *end ? TOML_STRING : TOML_FLOAT;
		v->integer = strtoll(v->text.p, &end, 10);
		if (!*end && llabs(v->integer) < (long long)LIMIT_MAX)
			v->kind = TOML_INTEGER;
	}
	return v;
}

static bool
value_is_off(const struct toml *v)
{
	return (v->kind == TOML_BOOLEAN && !v->boolean) ||
	    (v->kind == TOML_INTEGER && v->integer == 0) ||
	    (v->kind == TOML_FLOAT && v->real == 0);
}

/* WARPDRIVE_<SECTION>_<KEY>, and for [server] WARPDRIVE_<KEY>; NULL: the
 * environment cannot say this key. */
static const char *
env_name(struct arena *a, enum section_id id, const struct key *k)
{
	char *name;

	if (!section_has_env(id) || kinds[k->kind].words == NO_WORDS)
		return NULL;
	name = id == SEC_SERVER ? arena_fmt(a, ENV_PREFIX "%s", k->name)
	                        : arena_fmt(a, ENV_PREFIX "%s_%s", sections[id].name, k->name);
	for (char *c = name; *c; c++)
		*c = (char)toupper((unsigned char)*c);
	return name;
}

/* A key that is not there: which one was meant, or where does it belong? */
static void
key_unknown(struct reader *r, enum section_id id, const struct toml *v)
{
	struct arena *a = r->a;
	struct near near = { .word = v->key };
	const char *hint;

	for (size_t i = 0; i < sections[id].n; i++)
		near_offer(&near, slice_of(sections[id].keys[i].name));
	hint = near_text(a, &near);
	for (enum section_id s = SEC_SERVER; near.best.n == 0 && s < SECTIONS; s++)
		if (key_find(s, v->key)) {
			hint = arena_fmt(a, ", it belongs to [%s]", sections[s].name);
			break;
		}
	diag_add(&r->conf->diags, DIAG_ERROR, v->line, v->col, "unknown key '%.*s' in %s%s",
	    (int)v->key.n, v->key.p, r->where, hint);
}

/* Sections that are not supported yet: nothing in them may be asked for,
 * unless the key that switches them off does. */
static void
section_refuse(struct reader *r, enum section_id id, const struct toml *v)
{
	const struct section *s = &sections[id];
	const struct toml *off = s->off && v->kind == TOML_TABLE ? toml_get(v, s->off) : NULL;

	if ((off && value_is_off(off)) || (v->kind == TOML_TABLE && v->count == 0 && s->n > 0))
		return;
	diag_add(&r->conf->diags, DIAG_ERROR, v->line, v->col, "%s%s%.*s: not supported yet",
	    r->where, *r->where ? "." : "", (int)v->key.n, v->key.p);
}

static void
key_set(struct reader *r, const struct key *k, const struct toml *v, void *obj)
{
	if (k->when == NOW) {
		if (setters[k->kind])
			setters[k->kind](r, k, v, (char *)obj + k->at);
	} else if (k->kind == K_TABLE || k->kind == K_TABLES)
		section_refuse(r, k->sub, v);
	else if (k->when != LATER_OFF || !value_is_off(v))
		value_error(r, k->name, v, "not supported yet");
}

/* From the environment; else what the file says stays. */
static const struct toml *
key_from_env(struct reader *r, enum section_id id, const struct key *k, void *obj)
{
	const char *name = env_name(r->a, id, k);
	const char *word = name ? getenv(name) : NULL;
	const struct toml *v;

	if (!word)
		return NULL;
	v = word_value(r->a, k->words && strcmp(word, k->words) == 0 ? ONE_TEXT
	    : kinds[k->kind].words, slice_of(word));
	r->env = name;
	key_set(r, k, v, obj);
	r->env = NULL;
	return v;
}

/* Fills obj with presets, what the table says (NULL: there is none), and what
 * the environment says. */
static void
section_read(struct reader *r, enum section_id id, const char *where, const struct toml *table,
    void *obj)
{
	const char *outer = r->where;
	const struct toml *v, *env;
	bool scalars = section_has_env(id);

	r->where = where;
	for (size_t i = 0; i < sections[id].n; i++) {
		const struct key *k = &sections[id].keys[i];
		if (k->when == NOW && k->preset)
			key_set(r, k, word_value(r->a, kinds[k->kind].words,
			    slice_of(k->preset)), obj);
		if ((v = table ? toml_get(table, k->name) : NULL)) {
			key_set(r, k, v, obj);
			if (k->when == NOW && k->kind == K_TABLE && v->kind == TOML_TABLE)
				section_read(r, k->sub, arena_fmt(r->a, "%s.%s", where,
				    k->name), v, obj);
			else if (k->when == NOW && k->kind == K_TABLE)
				kind_error(r, k, v);
		}
		if ((env = key_from_env(r, id, k, obj)))
			v = env;
		if (scalars && kinds[k->kind].words != NO_WORDS)
			r->conf->origins[r->conf->n_origins++] = (struct origin){ sections[id].name,
				k, env ? env_name(r->a, id, k) : NULL, v };
	}
	for (v = table ? table->first : NULL; v; v = v->next)
		if (!key_find(id, v->key))
			key_unknown(r, id, v);
	r->where = outer;
}

/* ==== upstreams ==============================================================
 * Owns    nothing.
 * Offers  upstreams_read.
 * Calls   base, arena, diag, addr, balance, values. */

__attribute__((format(printf, 3, 4))) static bool
table_error(struct reader *r, const struct toml *at, const char *fmt, ...)
{
	struct conf *c = r->conf;
	const char *text;
	va_list ap;

	va_start(ap, fmt);
	text = arena_vfmt(&c->arena, fmt, ap);
	va_end(ap);
	diag_add(&c->diags, DIAG_ERROR, at->line, at->col, "%s%s%s", r->where,
	    *r->where ? ": " : "", text);
	return false;
}

/* The one way out of several that table takes; NULL after saying so. */
static const struct toml *
one_of(struct reader *r, const struct toml *table, const char *const *names, size_t n,
    const char *needs)
{
	const struct toml *found = NULL, *v;

	for (size_t i = 0; i < n; i++) {
		if (!(v = toml_get(table, names[i])))
			continue;
		if (found) {
			table_error(r, v, "%s and %s exclude each other", found->key.p, names[i]);
			return NULL;
		}
		found = v;
	}
	if (!found)
		table_error(r, table, "expected %s", needs);
	return found;
}

/* What an upstream can be reached at: not every address is one. */
static bool
addr_check(struct reader *r, const struct toml *at, struct addr *out)
{
	if (out->scheme == SCHEME_HTTPS || out->scheme == SCHEME_UWSGI)
		return table_error(r, at, "%s: %s not supported yet", out->text,
		    out->scheme == SCHEME_HTTPS ? "https and wss upstreams are"
		                                : "uwsgi upstreams are");
	if (out->kind == ADDR_FD)
		return table_error(r, at, "%s: a descriptor is no upstream", out->text);
	if (out->kind != ADDR_UNIX && out->kind != ADDR_ABSTRACT && out->port == 0)
		return table_error(r, at, "%s: a port from 1 to %d is needed", out->text,
		    PORT_MAX);
	return true;
}

/* s as the address of a backend. */
static bool
addr_read(struct reader *r, const struct toml *at, struct slice s, struct addr *out)
{
	struct arena *a = r->a;
	const char *why;

	if (slice_starts(s, S(":"))) /* every interface of this host: itself */
		s = slice_of(arena_fmt(a, "127.0.0.1%s", s.p));
	if (!addr_parse(a, s, out, &why))
		return table_error(r, at, "%s: %s", s.p, why);
	return addr_check(r, at, out);
}

/* A path, `@name`, or an address that says it is a unix socket. */
static bool
socket_read(struct reader *r, const struct toml *at, struct slice s, struct addr *out)
{
	bool whole = slice_starts(s, S("/")) || slice_starts(s, S("@")) ||
	    slice_starts(s, S("unix")) || slice_starts(s, S("\\0"));

	if (s.n == 0)
		return table_error(r, at, "a socket needs a path");
	if (!whole)
		s = slice_of(conf_path(r->conf, s));
	if (!addr_read(r, at, s, out))
		return false;
	return out->kind == ADDR_UNIX || out->kind == ADDR_ABSTRACT ||
	    table_error(r, at, "%s is no unix socket", s.p);
}

/* The address in table, whose texts are in p. */
static bool
place_read(struct reader *r, const struct toml *table, const struct place *p, struct addr *out)
{
	static const char *const ways[] = { "host", "socket", "url" };
	const struct toml *way, *port = toml_get(table, "port");
	bool v6;

	if (port && !toml_get(table, "host"))
		return table_error(r, port, "port needs host");
	if (!(way = one_of(r, table, ways, LEN(ways), "host and port, socket, or url")))
		return false;
	if (slice_eq(way->key, S("url")))
		return p->url.p && addr_read(r, way, p->url, out);
	if (slice_eq(way->key, S("socket")))
		return p->socket.p && socket_read(r, way, p->socket, out);
	if (!port)
		return table_error(r, way, "host needs port");
	if (!p->host.p || p->port == 0)
		return false; /* said already */
	if (p->host.n == 0 || strpbrk(p->host.p, "/@ "))
		return table_error(r, way, "'%s' is no host", p->host.p);
	v6 = p->host.p[0] != '[' && strchr(p->host.p, ':');
	return addr_read(r, way, slice_of(arena_fmt(r->a, v6 ? "[%s]:%u" : "%s:%u",
	    p->host.p, p->port)), out);
}

/* The board knows an instance by this. */
static bool
instance_key_fits(struct reader *r, const struct toml *at, const struct instance *in)
{
	return strlen(in->up->name) + 1 + strlen(in->addr.text) < INSTANCE_KEY_MAX ||
	    table_error(r, at, "name and address together are longer than %d bytes",
	        INSTANCE_KEY_MAX - 2);
}

static void
instance_add(struct reader *r, struct upstream *up, const struct toml *table,
    const struct place *p)
{
	struct instance *in = &up->instances[up->n_instances];

	*in = (struct instance){ .up = up, .weight = p->weight ? p->weight : 1 };
	if (place_read(r, table, p, &in->addr) && instance_key_fits(r, table, in))
		up->n_instances++;
}

/* One address of its own, or instances. */
static void
instances_read(struct reader *r, struct upstream *up, const struct toml *table,
    const struct place *own)
{
	static const char *const ways[] = { "instances", "host", "socket", "url" };
	const struct toml *list = toml_get(table, "instances");
	struct place p;

	if (!list && !toml_get(table, "port") &&
	    !one_of(r, table, ways, LEN(ways), "host and port, socket, url, or instances"))
		return;
	if (list && toml_get(table, "port"))
		table_error(r, toml_get(table, "port"), "instances and port exclude each other");
	if (list && (list->kind != TOML_ARRAY || !one_of(r, table, ways, LEN(ways), "")))
		return;
	up->instances = arena_alloc(r->a,
	    (list ? list->count : 1) * sizeof *up->instances);
	if (!list) {
		instance_add(r, up, table, own);
		return;
	}
	for (const struct toml *t = list->first; t; t = t->next) {
		p = (struct place){ 0 };
		if (t->kind != TOML_TABLE)
			continue; /* said already */
		section_read(r, SEC_INSTANCE, arena_fmt(r->a, "%s.instances",
		    r->where), t, &p);
		instance_add(r, up, t, &p);
	}
}

static void
strategy_read(struct reader *r, struct upstream_read *u, const struct toml *table)
{
	const struct toml *v = toml_get(table, "strategy");
	struct near near = { .word = u->strategy };
	const char *all = "";

	u->out.balance = balance_find(u->strategy);
	if (u->out.balance && !u->out.balance->pick)
		value_error(r, "strategy", v, "%s: not supported yet", u->strategy.p);
	if (u->out.balance)
		return;
	for (size_t i = 0; i < LEN(balances); i++) {
		near_offer(&near, slice_of(balances[i].name));
		near_offer(&near, slice_of(balances[i].alias));
		all = arena_fmt(r->a, "%s %s", all, balances[i].name);
	}
	value_error(r, "strategy", v, "expected one of%s, got '%s'%s", all, u->strategy.p,
	    near_text(r->a, &near));
}

static void
host_header_read(struct reader *r, struct upstream_read *u, const struct toml *table)
{
	struct upstream *up = &u->out;

	up->host_header = slice_eq(u->host_header, S("preserve")) ? HOST_PRESERVE
	    : slice_eq(u->host_header, S("upstream")) ? HOST_UPSTREAM : HOST_TEXT;
	up->host_text = u->host_header;
	if (u->host_header.n == 0 || strpbrk(u->host_header.p, " \t/,@") ||
	    !is_field_value(u->host_header))
		value_error(r, "host_header", toml_get(table, "host_header"), "'%s' is no host",
		    u->host_header.p);
}

static void
upstream_read(struct reader *r, struct upstream *out, const struct toml *table)
{
	struct upstream_read u = { .out = { .index = out->index, .line = table->line } };

	u.out.name = table->key.p;
	r->where = arena_fmt(r->a, "upstreams.%s", u.out.name);
	if (table->kind != TOML_TABLE) {
		table_error(r, table, "expected a table, got %s",
		    value_text(r->a, table));
		return;
	}
	if (table->key.n == 0 || strcspn(table->key.p, " /\t\r\n\"") != table->key.n)
		table_error(r, table, "a name cannot be empty or hold blanks, quotes or slashes");
	section_read(r, SEC_UPSTREAM, r->where, table, &u);
	if (u.protocol > 0)
		value_error(r, "protocol", toml_get(table, "protocol"), "not supported yet");
	strategy_read(r, &u, table);
	host_header_read(r, &u, table);
	*out = u.out;
	instances_read(r, out, table, &u.place);
}

static void
upstreams_read(struct reader *r, const struct toml *tables)
{
	struct conf *c = r->conf;
	int all = 0;

	if (!tables)
		return;
	if (tables->kind != TOML_TABLE) {
		diag_add(&c->diags, DIAG_ERROR, tables->line, tables->col,
		    "expected [upstreams.NAME], got %s", value_text(&c->arena, tables));
		return;
	}
	c->upstreams = arena_alloc(&c->arena, tables->count * sizeof *c->upstreams);
	for (const struct toml *t = tables->first; t; t = t->next) {
		struct upstream *up = &c->upstreams[c->n_upstreams];
		up->index = c->n_upstreams++;
		up->name = t->key.p;
		upstream_read(r, up, t);
		all += up->n_instances;
	}
	r->where = "";
	if (all > INSTANCES_MAX)
		diag_add(&c->diags, DIAG_ERROR, tables->line, tables->col,
		    "%d instances, at most %d fit", all, INSTANCES_MAX);
}

/* ==== routes =================================================================
 * Owns    the compiled expressions, until conf_free.
 * Offers  routes_read.
 * Calls   base, arena, diag, http, path, addr, route, values, upstreams. */

#define REGEX_WHY 128 /* bytes of what regerror says */

/* `*.example.com` becomes `.example.com`; `*` is every host. */
static void
route_host(struct reader *r, struct route_read *rr, const struct toml *t)
{
	const struct toml *v = toml_get(t, "host");
	struct route *out = &rr->out;
	struct slice host;

	if (!v || !rr->host.p || slice_eq(rr->host, S("*")))
		return;
	host = host_normal(rr->host);
	out->host_kind = slice_starts(host, S("*.")) ? HOST_WILD : HOST_EXACT;
	out->host = arena_dup(r->a, slice_from(host, out->host_kind == HOST_WILD));
	if (out->host.n < 1 + (size_t)(out->host_kind == HOST_WILD) ||
	    strcspn(out->host.p, "*/ \t,@\"") != out->host.n)
		value_error(r, "host", v, "expected a host such as example.com or *.example.com, "
		    "got %s", value_text(r->a, v));
}

/* The text of path_prefix or path_exact, as requests are seen. */
static void
route_path_text(struct reader *r, struct route *out, const struct toml *v, struct slice s)
{
	struct arena *a = r->a;
	struct path_view view;

	out->path = S("/"); /* whatever is wrong with it */
	if (out->path_kind == PATH_PREFIX && slice_ends(s, S("*")))
		s = arena_dup(a, (struct slice){ s.p, s.n - 1 }); /* as in Caddy */
	if (!slice_starts(s, S("/"))) {
		value_error(r, v->key.p, v, "a path starts with '/', got %s", value_text(a, v));
	} else if (s.n > TARGET_MAX || strpbrk(s.p, "?#")) {
		value_error(r, v->key.p, v, s.n > TARGET_MAX ? "the path is too long"
		    : "a path holds no '?' or '#'; see query");
	} else if (path_normalise(s, &view) < 0) {
		value_error(r, v->key.p, v, "%s is no path a request can have", value_text(a, v));
	} else {
		out->path = arena_dup(a, view.path);
		if (!slice_eq(s, out->path))
			diag_add(&r->conf->diags, DIAG_WARNING, v->vline, v->vcol,
			    "paths are compared in normal form: taken as \"%s\"", out->path.p);
	}
}

static void
route_regex(struct reader *r, struct route *out, const struct toml *v, struct slice s)
{
	char why[REGEX_WHY];
	int err = regcomp(&out->regex, s.p, REG_EXTENDED);

	out->path = s;
	if (err == 0)
		return;
	regerror(err, &out->regex, why, sizeof why);
	out->path_kind = PATH_ANY; /* nothing to free */
	value_error(r, v->key.p, v, "not a POSIX extended regular expression: %s", why);
}

static void
route_path(struct reader *r, struct route_read *rr, const struct toml *t)
{
	const struct { const char *name; enum path_kind kind; struct slice text; } ways[] = {
		{ "path_prefix", PATH_PREFIX, rr->path_prefix },
		{ "path_exact", PATH_EXACT, rr->path_exact },
		{ "path_regex", PATH_REGEX, rr->path_regex },
	};
	struct route *out = &rr->out;
	const struct toml *v, *said = NULL;

	for (size_t i = 0; i < LEN(ways); i++) {
		if (!(v = toml_get(t, ways[i].name)) || !ways[i].text.p)
			continue;
		if (said) {
			table_error(r, v, "%s and %s exclude each other", said->key.p,
			    ways[i].name);
			continue;
		}
		said = v;
		out->path_kind = ways[i].kind;
		if (ways[i].kind == PATH_REGEX)
			route_regex(r, out, v, ways[i].text);
		else
			route_path_text(r, out, v, ways[i].text);
	}
}

/* Methods are case-sensitive (RFC 9110 9.1); known ones in the wrong case are
 * surely meant. */
static void
route_methods(struct reader *r, struct route_read *rr, const struct toml *t)
{
	const struct toml *v = toml_get(t, "methods");
	struct arena *a = r->a;
	struct slices *other = &rr->out.methods_other;

	if (v && v->kind == TOML_ARRAY && v->count == 0)
		value_error(r, "methods", v, "expected at least one method");
	other->v = arena_alloc(a, (size_t)rr->methods.n * sizeof *other->v);
	for (int i = 0; i < rr->methods.n; i++) {
		struct slice s = rr->methods.v[i], upper = arena_dup(a, s);
		for (char *c = (char *)(uintptr_t)upper.p; *c; c++)
			*c = (char)toupper((unsigned char)*c);
		if (!is_token(s))
			value_error(r, "methods", v, "'%s' is no method", s.p);
		else if (method_of(upper) == M_OTHER)
			other->v[other->n++] = s;
		else
			rr->out.methods |= 1u << method_of(upper);
	}
	if (rr->out.methods >> M_GET & 1)
		rr->out.methods |= 1u << M_HEAD;
}

/* ---- actions ---- */

static void
route_upstream(struct reader *r, struct route_read *rr, const struct toml *v)
{
	struct conf *c = r->conf;
	struct near near = { .word = rr->upstream };

	rr->out.action = ACT_UPSTREAM;
	for (int i = 0; i < c->n_upstreams; i++) {
		struct slice name = slice_of(c->upstreams[i].name);
		near_offer(&near, name);
		if (slice_eq(name, rr->upstream))
			rr->out.upstream = &c->upstreams[i];
	}
	if (!rr->out.upstream)
		value_error(r, "upstream", v, "there is no [upstreams.%s]%s", rr->upstream.p,
		    near_text(&c->arena, &near));
}

static void
route_redirect(struct reader *r, struct route_read *rr, const struct toml *v)
{
	static const char *const names[] = { "{host}", "{uri}", "{path}" };
	static const int statuses[] = { 301, 302, 303, 307, 308 };
	struct slice rest = rr->out.redirect;
	bool ok = false;

	rr->out.action = ACT_REDIRECT;
	for (size_t i = 0; i < LEN(statuses); i++)
		ok |= rr->out.status == statuses[i];
	if (!ok)
		value_error(r, "status", v, "expected 301, 302, 303, 307 or 308");
	if (rest.n == 0 || strpbrk(rest.p, " \t") || !is_field_value(rest))
		value_error(r, "redirect", v, "expected a URL without blanks");
	for (const char *p = rest.p; (p = strchr(p, '{')); p++) {
		ok = false;
		for (size_t i = 0; i < LEN(names); i++)
			ok |= strncmp(p, names[i], strlen(names[i])) == 0;
		if (!ok)
			value_error(r, "redirect", v, "expected {host}, {uri} or {path}, "
			    "got %.*s", (int)strcspn(p, "} ") + 1, p);
	}
}

static void
route_respond(struct reader *r, struct route_read *rr, const struct toml *v)
{
	struct route *out = &rr->out;

	out->action = ACT_RESPOND;
	out->status = rr->respond_status;
	if ((out->status == 204 || out->status == 304) && out->body.n > 0)
		value_error(r, "respond", v, "an answer with status %d has no body", out->status);
	if (!is_field_value(out->content_type))
		value_error(r, "respond", v, "content_type cannot hold control characters");
	if (out->body.n == 0 && !toml_get(v, "content_type"))
		out->content_type = S("");
}

static void
route_action(struct reader *r, struct route_read *rr, const struct toml *t)
{
	static const char *const names[] = { "upstream", "redirect", "respond", "static_dir" };
	const struct toml *v = one_of(r, t, names, LEN(names), "an action: upstream, redirect or "
	    "respond"), *status = toml_get(t, "status");

	if (!v)
		return;
	if (slice_eq(v->key, S("upstream")) && rr->upstream.p)
		route_upstream(r, rr, v);
	if (slice_eq(v->key, S("redirect")) && rr->out.redirect.p)
		route_redirect(r, rr, status ? status : v);
	else if (status)
		table_error(r, status, "status belongs to redirect%s",
		    slice_eq(v->key, S("respond")) ? "; write it into respond" : "");
	if (slice_eq(v->key, S("respond")) && v->kind == TOML_TABLE)
		route_respond(r, rr, v);
}

/* ---- what happens on the way ---- */

/* `$1`: only what the expression has. */
static void
route_groups(struct reader *r, const struct route *out, const struct toml *v)
{
	for (const char *p = out->rewrite.p; (p = strchr(p, '$')); p++) {
		if (!isdigit((unsigned char)p[1]))
			continue;
		if (out->path_kind != PATH_REGEX)
			value_error(r, "rewrite", v, "$%c needs path_regex", p[1]);
		else if ((size_t)(p[1] - '0') > out->regex.re_nsub)
			value_error(r, "rewrite", v, "$%c: path_regex has %zu group%s", p[1],
			    out->regex.re_nsub, out->regex.re_nsub == 1 ? "" : "s");
	}
}

static void
route_rewrite(struct reader *r, struct route_read *rr, const struct toml *t)
{
	const struct toml *rewrite = toml_get(t, "rewrite"), *strip = toml_get(t, "strip_prefix");
	struct route *out = &rr->out;

	out->has_rewrite = rewrite && out->rewrite.p;
	if (out->strip_prefix && rewrite)
		table_error(r, rewrite, "strip_prefix and rewrite exclude each other");
	if (out->strip_prefix && !toml_get(t, "path_prefix") && !toml_get(t, "path_exact") &&
	    !toml_get(t, "path_regex"))
		table_error(r, strip, "strip_prefix needs path_prefix");
	if (!out->has_rewrite)
		return;
	if (strpbrk(out->rewrite.p, "?#") || !is_field_value(out->rewrite))
		value_error(r, "rewrite", rewrite, "expected a path, without query");
	route_groups(r, out, rewrite);
}

static void
route_limits(struct reader *r, struct route_read *rr, const struct toml *t)
{
	const struct toml *rate = toml_get(t, "rate_limit");
	struct route *out = &rr->out;

	if (!toml_get(t, "buffer_request"))
		out->buffer_request = -1;
	out->has_max_body = toml_get(t, "max_body_bytes");
	if (rate && rate->kind == TOML_TABLE && !toml_get(rate, "requests"))
		table_error(r, rate, "rate_limit needs requests");
	if (out->rate.burst == 0)
		out->rate.burst = out->rate.requests;
	if (out->require_auth && r->conf->server.admin_token.n == 0)
		diag_add(&r->conf->diags, DIAG_WARNING, t->line, t->col,
		    "require_auth without server.admin_token: every request gets 401");
}

static void
route_read(struct reader *r, struct route *out, const struct toml *t)
{
	struct route_read rr = { .out = { .line = t->line } };

	if (t->kind != TOML_TABLE) {
		table_error(r, t, "expected [[routes]], got %s", value_text(r->a, t));
		return;
	}
	section_read(r, SEC_ROUTE, "routes", t, &rr);
	route_host(r, &rr, t);
	route_path(r, &rr, t);
	route_methods(r, &rr, t);
	route_action(r, &rr, t);
	route_rewrite(r, &rr, t);
	route_limits(r, &rr, t);
	*out = rr.out;
}

/* One upstream and no routes: it takes everything. */
static void
route_only(struct conf *c)
{
	c->table.routes = arena_alloc(&c->arena, sizeof *c->table.routes);
	c->table.n = 1;
	c->table.routes[0] = (struct route){
		.line = c->upstreams[0].line,
		.action = ACT_UPSTREAM,
		.upstream = &c->upstreams[0],
		.buffer_request = -1,
		.websocket = true,
	};
}

static void
routes_read(struct reader *r, const struct toml *list)
{
	struct conf *c = r->conf;

	r->where = "routes";
	if (list && list->kind != TOML_ARRAY) {
		table_error(r, list, "expected [[routes]], got %s", value_text(&c->arena, list));
		return;
	}
	if (list) {
		c->table.routes = arena_alloc(&c->arena, list->count * sizeof *c->table.routes);
		for (const struct toml *t = list->first; t; t = t->next)
			route_read(r, &c->table.routes[c->table.n++], t);
	}
	if (c->table.n == 0 && c->n_upstreams == 1)
		route_only(c);
	else if (c->table.n == 0 && c->diags.errors == 0)
		diag_add(&c->diags, DIAG_ERROR, 0, 0, c->n_upstreams == 0
		    ? "nothing to do: no [[routes]] and no [upstreams.NAME]"
		    : "nothing to do: several upstreams and no [[routes]] to choose from them");
	r->where = "";
}

/* ==== conf ===================================================================
 * Owns    nothing: a configuration is its loader's.
 * Offers  conf_load, conf_simple, conf_free, conf_memory_bound.
 * Calls   base, arena, diag, toml, addr, route, values, upstreams, routes. */

extern char **environ;

/* Who said the key, when the preset did not; NULL. */
static const struct origin *
conf_said(const struct conf *c, const char *section, const char *key)
{
	for (int i = 0; i < c->n_origins; i++) {
		const struct origin *o = &c->origins[i];
		if (o->value && strcmp(o->section, section) == 0 && strcmp(o->key->name, key) == 0)
			return o;
	}
	return NULL;
}

/* A complaint about a key that somebody said: at its place in the file. */
__attribute__((format(printf, 5, 6))) static void
said_note(struct conf *c, enum diag_level level, const char *section, const char *key,
    const char *fmt, ...)
{
	const struct origin *o = conf_said(c, section, key);
	const char *text;
	va_list ap;

	va_start(ap, fmt);
	text = arena_vfmt(&c->arena, fmt, ap);
	va_end(ap);
	if (o && !o->env)
		diag_add(&c->diags, level, o->value->vline, o->value->vcol, "%s.%s: %s", section,
		    key, text);
	else
		diag_add(&c->diags, level, 0, 0, "%s%s%s: %s", o ? o->env : section,
		    o ? "" : ".", o ? "" : key, text);
}

/* ---- [server] ---- */

/* Adds a to the listeners, once. */
static void
listen_add(struct conf *c, const struct addr *a)
{
	struct server_conf *s = &c->server;

	for (int i = 0; i < s->n_listens; i++)
		if (strcmp(s->listens[i].text, a->text) == 0)
			return;
	if (a->scheme == SCHEME_HTTPS || a->scheme == SCHEME_UWSGI) {
		said_note(c, DIAG_ERROR, "server", "listen", "%s: not supported yet", a->text);
		return;
	}
	s->listens[s->n_listens++] = *a;
}

/* http_port and listen become one list; forced is -l's address. */
static void
listens_lower(struct conf *c, const struct server_read *sr, const char *forced)
{
	uint32_t port = sr->http_port;
	const char *why, *text = forced;
	struct addr a;

	c->server.listens = arena_alloc(&c->arena,
	    ((size_t)sr->listen.n + 1) * sizeof *c->server.listens);
	c->server.listen_is_default = !forced && port == 0 && sr->listen.n == 0;
	if (c->server.listen_is_default)
	{
		port = PORT_PRESET;
		c->server.listen_is_default = true;
	}
	if (!forced && port > 0)
		text = arena_fmt(&c->arena, ":%u", port);
	if (text && addr_parse(&c->arena, slice_of(text), &a, &why))
		listen_add(c, &a);
	else if (text)
		diag_add(&c->diags, DIAG_ERROR, 0, 0, "cannot listen on %s: %s", text, why);
	for (int i = 0; !forced && i < sr->listen.n; i++)
		listen_add(c, &sr->listen.v[i]);
}

static void
server_read(struct reader *r, const struct toml *table, const char *forced)
{
	struct conf *c = r->conf;
	struct server_read sr = { 0 };

	section_read(r, SEC_SERVER, "server", table, &sr);
	c->server = sr.out;
	listens_lower(c, &sr, forced);
	if (sr.https_port > 0)
		said_note(c, DIAG_WARNING, "server", "https_port",
		    "not bound, as TLS is not enabled (it is not supported yet)");
	if (c->server.user && !getpwnam(c->server.user))
		said_note(c, DIAG_WARNING, "server", "user", "this host has no user %s",
		    c->server.user);
	if (c->server.group && !getgrnam(c->server.group))
		said_note(c, DIAG_WARNING, "server", "group", "this host has no group %s",
		    c->server.group);
	if (!c->server.user && geteuid() == 0)
		diag_add(&c->diags, DIAG_WARNING, 0, 0, "workers run as root; set server.user");
}

/* ---- [log] ---- */

/* The variable at p, behind its `$`: known to the access log? */
static bool
log_variable_ok(struct conf *c, struct slice name)
{
	static const char *const names[] = { "client", "method", "uri", "host", "status", "bytes",
		"secs", "upstream", "instance", "upstream_secs", "request_id", "referer",
		"user_agent", "protocol", "time", "route" };
	struct near near = { .word = name };

	if (slice_starts(name, S("http_")) && name.n > 5)
		return true;
	for (size_t i = 0; i < LEN(names); i++) {
		if (slice_eq(name, slice_of(names[i])))
			return true;
		near_offer(&near, slice_of(names[i]));
	}
	said_note(c, DIAG_ERROR, "log", "format", "unknown variable '$%.*s'%s", (int)name.n,
	    name.p, near_text(&c->arena, &near));
	return false;
}

static void
log_format_check(struct conf *c)
{
	static const char *const names[] = { "common", "combined", "json" };
	struct slice format = slice_of(c->log.format), name;
	struct near near = { .word = format };

	for (size_t i = 0; i < LEN(names); i++) {
		near_offer(&near, slice_of(names[i]));
		if (slice_eq(format, slice_of(names[i])))
			return;
	}
	if (!strchr(c->log.format, '$'))
		said_note(c, DIAG_ERROR, "log", "format", "expected common, combined, json or a "
		    "pattern with $variables%s", near_text(&c->arena, &near));
	for (const char *p = c->log.format; (p = strchr(p, '$')); p++) {
		name = (struct slice){ p + 1, strspn(p + 1, "abcdefghijklmnopqrstuvwxyz"
		    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") };
		if (!log_variable_ok(c, name))
			return; /* one is enough */
	}
}

static void
log_read(struct reader *r, const struct toml *table)
{
	struct conf *c = r->conf;

	section_read(r, SEC_LOG, "log", table, &c->log);
	log_format_check(c);
	if (c->middleware.log_requests && !conf_said(c, "log", "access"))
		c->log.access.sink = SINK_STDOUT;
}

/* ---- [admin] ---- */

static void
admin_read(struct reader *r, const struct toml *table)
{
	struct conf *c = r->conf;
	struct admin_read ar = { 0 };

	section_read(r, SEC_ADMIN, "admin", table, &ar);
	c->admin = (struct admin_conf){ ar.listen.v, ar.listen.n,
		!conf_said(c, "admin", "listen"), ar.listen.n == 0, ar.token };
	for (int i = 0; i < ar.listen.n && ar.token.n == 0; i++)
		if (ar.listen.v[i].kind == ADDR_INET || ar.listen.v[i].kind == ADDR_NAME) {
			said_note(c, DIAG_WARNING, "admin", "listen",
			    "without admin.token anybody who reaches %s commands warp",
			    ar.listen.v[i].text);
			return;
		}
}

/* ---- the whole ---- */

/* The section a top-level key opens; SECTIONS: none. */
static enum section_id
section_find(struct slice word)
{
	for (enum section_id id = SEC_SERVER; id < SECTIONS; id++)
		if (section_is_top(id) && slice_eq(word, section_word(id)))
			return id;
	return SECTIONS;
}

static void
root_unknown(struct reader *r, const struct toml *v)
{
	struct near near = { .word = v->key };

	for (enum section_id id = SEC_SERVER; id < SECTIONS; id++)
		if (section_is_top(id))
			near_offer(&near, section_word(id));
	for (size_t i = 0; i < LEN(root_keys); i++)
		near_offer(&near, slice_of(root_keys[i].name));
	diag_add(&r->conf->diags, DIAG_ERROR, v->line, v->col, "unknown %s '%.*s'%s",
	    v->kind == TOML_TABLE || v->kind == TOML_ARRAY ? "section" : "key", (int)v->key.n,
	    v->key.p, near_text(r->a, &near));
}

/* Unknown names and what is not supported yet. */
static void
root_check(struct reader *r, const struct toml *root)
{
	for (const struct toml *v = root->first; v; v = v->next) {
		enum section_id id = section_find(v->key);
		const struct key *k = key_find(SEC_ROOT, v->key);

		if (k)
			key_set(r, k, v, NULL);
		else if (id == SECTIONS)
			root_unknown(r, v);
		else if (sections[id].when != NOW)
			section_refuse(r, id, v);
		else if (v->kind != TOML_TABLE && v->kind != TOML_ARRAY)
			table_error(r, v, "expected a section [%s]", sections[id].name);
	}
}

/* The table of a section; NULL: it is not there, or no table. */
static const struct toml *
root_table(struct reader *r, const struct toml *root, enum section_id id)
{
	const struct toml *t = toml_get(root, sections[id].name);

	if (t && t->kind == TOML_ARRAY)
		table_error(r, t, "expected one [%s], got a list", sections[id].name);
	return t && t->kind == TOML_TABLE ? t : NULL;
}

/* Variables that look like warp's and are not. */
static void
environ_check(struct conf *c)
{
	static const char *const others[] = { ENV_PREFIX "CONFIG", ENV_PREFIX "TARGET_HOST",
		ENV_PREFIX "TARGET_PORT" };

	for (char **e = environ; *e; e++) {
		struct near near = { .word = { *e, strcspn(*e, "=") } };
		if (!slice_starts(near.word, S(ENV_PREFIX)))
			continue;
		for (size_t i = 0; i < LEN(others); i++)
			near_offer(&near, slice_of(others[i]));
		for (enum section_id id = SEC_SERVER; id < SECTIONS; id++)
			for (size_t i = 0; i < sections[id].n; i++) {
				const char *name = env_name(&c->arena, id, &sections[id].keys[i]);
				if (name)
					near_offer(&near, slice_of(name));
			}
		if (near.best.n == 0 || near.distance > 0)
			diag_add(&c->diags, DIAG_WARNING, 0, 0, "unknown variable %.*s%s",
			    (int)near.word.n, near.word.p, near_text(&c->arena, &near));
	}
}

static bool
upstream_is_used(const struct conf *c, const struct upstream *up)
{
	for (int i = 0; i < c->table.n; i++)
		if (c->table.routes[i].upstream == up)
			return true;
	return false;
}

/* What is no error, yet hardly meant. */
static void
conf_warn(struct reader *r)
{
	struct conf *c = r->conf;
	const struct route *rs = c->table.routes;
	struct stat st;

	for (int i = 0; i < c->n_upstreams; i++)
		if (!upstream_is_used(c, &c->upstreams[i]))
			diag_add(&c->diags, DIAG_WARNING, c->upstreams[i].line, 1,
			    "no route uses upstream %s", c->upstreams[i].name);
	for (int i = 1; i < c->table.n; i++)
		for (int k = 0; k < i; k++)
			if (route_shadowed(&rs[i], &rs[k])) {
				diag_add(&c->diags, DIAG_WARNING, rs[i].line, 1,
				    "this route is never reached: the one at line %u takes "
				    "all that it could", rs[k].line);
				break;
			}
	if (r->secret && c->file && stat(c->file, &st) == 0 && (st.st_mode & S_IROTH))
		diag_add(&c->diags, DIAG_WARNING, r->secret->vline, r->secret->vcol,
		    "this secret is readable by others; chmod 640, or use env:NAME or "
		    "file:/path");
}

/* By line; what is in no line first; else in the order found. */
static void
diags_sort(struct diags *ds)
{
	struct diag *rest = ds->first, *d, **at;

	ds->first = NULL;
	while ((d = rest)) {
		rest = d->next;
		for (at = &ds->first; *at && ((*at)->line < d->line ||
		    ((*at)->line == d->line && (*at)->col <= d->col)); )
			at = &(*at)->next;
		d->next = *at;
		*at = d;
	}
	for (ds->last = ds->first; ds->last && ds->last->next; )
		ds->last = ds->last->next;
}

static struct conf *
conf_new(void)
{
	struct conf *c = xcalloc(1, sizeof *c);
	size_t n = 0;

	c->diags.arena = &c->arena;
	for (enum section_id id = SEC_SERVER; id < SECTIONS; id++)
		n += section_has_env(id) ? sections[id].n : 0;
	c->origins = arena_alloc(&c->arena, n * sizeof *c->origins);
	return c;
}

/* From the tree to the structs. */
static void
conf_read(struct reader *r, const char *forced_listen)
{
	const struct toml *root = r->conf->tree;

	r->where = "";
	root_check(r, root);
	server_read(r, root_table(r, root, SEC_SERVER), forced_listen);
	section_read(r, SEC_MIDDLEWARE, "middleware", root_table(r, root, SEC_MIDDLEWARE),
	    &r->conf->middleware);
	log_read(r, root_table(r, root, SEC_LOG));
	admin_read(r, root_table(r, root, SEC_ADMIN));
	for (enum section_id id = SEC_SERVER; id < SECTIONS; id++)
		if (sections[id].when != NOW && section_has_env(id))
			section_read(r, id, sections[id].name, NULL, NULL);
	environ_check(r->conf);
}

/* Sorts out what was found, and packs the routes when nothing was. */
static struct conf *
conf_finish(struct reader *r)
{
	struct conf *c = r->conf;

	if (c->diags.errors == 0) {
		conf_warn(r);
		route_table_build(&c->arena, &c->table);
	}
	diags_sort(&c->diags);
	return c;
}

/* The directory of an absolute path. */
static const char *
path_dir(struct arena *a, const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash != path ? arena_dup(a, (struct slice){ path,
	    (size_t)(slash - path) }).p : "/";
}

/* Never NULL: look at ->diags.errors. */
static struct conf *
conf_load(const char *file)
{
	struct conf *c = conf_new();
	struct reader r = { .conf = c, .a = &c->arena };
	struct arena *a = &c->arena;
	char *real = realpath(file, NULL);
	const char *why;

	c->diags.file = arena_dup(a, slice_of(file)).p;
	c->file = arena_dup(a, slice_of(real ? real : file)).p;
	free(real);
	c->dir = path_dir(a, c->file);
	if ((why = file_read(a, file, CONFIG_FILE_MAX, &c->diags.source))) {
		diag_add(&c->diags, DIAG_ERROR, 0, 0, "cannot read it: %s", why);
		return c;
	}
	c->tree = toml_parse(a, c->diags.source, &c->diags);
	if (c->diags.errors > 0) {
		diags_sort(&c->diags);
		return c;
	}
	conf_read(&r, NULL);
	upstreams_read(&r, toml_get(c->tree, "upstreams"));
	routes_read(&r, toml_get(c->tree, "routes"));
	return conf_finish(&r);
}

/* Without a file: everything goes to target. listen NULL: the environment's
 * or the preset. Never NULL: look at ->diags.errors. */
static struct conf *
conf_simple(const char *listen, const char *target)
{
	struct conf *c = conf_new();
	struct reader r = { .conf = c, .a = &c->arena };
	struct toml none = { .kind = TOML_TABLE };
	char *cwd = getcwd(NULL, 0);
	struct upstream_read u = { 0 };

	c->dir = cwd ? arena_dup(&c->arena, slice_of(cwd)).p : "/";
	free(cwd);
	c->tree = toml_parse(&c->arena, S(""), &c->diags);
	conf_read(&r, listen);
	section_read(&r, SEC_UPSTREAM, "target", NULL, &u);
	strategy_read(&r, &u, &none);
	c->upstreams = arena_alloc(&c->arena, sizeof *c->upstreams);
	c->n_upstreams = 1;
	u.out.name = "target";
	c->upstreams[0] = u.out;
	c->upstreams[0].instances = arena_alloc(&c->arena, sizeof(struct instance));
	r.where = "target";
	c->upstreams[0].instances[0] = (struct instance){ .up = &c->upstreams[0], .weight = 1 };
	if (addr_read(&r, &none, slice_of(target), &c->upstreams[0].instances[0].addr))
		c->upstreams[0].n_instances = 1;
	routes_read(&r, NULL);
	return conf_finish(&r);
}

static void
conf_free(struct conf *c)
{
	if (!c)
		return;
	for (int i = 0; i < c->table.n; i++)
		if (c->table.routes[i].path_kind == PATH_REGEX)
			regfree(&c->table.routes[i].regex);
	arena_free(&c->arena);
	free(c);
}

/* ==== conf out ===============================================================
 * Owns    nothing.
 * Offers  conf_print_keys, conf_print_man, conf_print_check, conf_print_json,
 *         conf_memory_bound.
 * Calls   base, http, keys, values, conf. */

/* ---- -D and the manual ---- */

static const char *
key_preset(const struct key *k)
{
	return k->preset && *k->preset ? k->preset : k->preset ? "\"\"" : "none";
}

static void
key_print(FILE *to, struct arena *a, enum section_id id, const struct key *k)
{
	const char *env = env_name(a, id, k);
	const char *name = *sections[id].name
	    ? arena_fmt(a, "%s.%s", sections[id].name, k->name) : k->name;

	fprintf(to, "%-42s  %-40s  %-12s  %s%s\n        %s\n", name, kind_text(a, k),
	    key_preset(k), env ? env : "-", k->when == NOW ? "" : "  (later)", k->help);
}

/* Every key with type and range, preset, variable, and help. */
static void
conf_print_keys(FILE *to)
{
	for (enum section_id id = SEC_ROOT; id < SECTIONS; id++) {
		struct arena a = { NULL };
		if (sections[id].n == 0)
			fprintf(to, "[%s]  (later)\n        %s\n", sections[id].name,
			    sections[id].help);
		for (size_t i = 0; i < sections[id].n; i++)
			key_print(to, &a, id, &sections[id].keys[i]);
		arena_free(&a);
	}
}

/* A text in man(7): nothing in it is a request or an escape. */
static void
man_text(FILE *to, const char *s)
{
	if (*s == '.' || *s == '\'')
		fputs("\\&", to);
	for (; *s; s++)
		fputs(*s == '\\' ? "\\e" : *s == '-' ? "\\-" : (char[]){ *s, '\0' }, to);
}

static void
man_key(FILE *to, struct arena *a, enum section_id id, const struct key *k)
{
	const char *env = env_name(a, id, k);

	fputs(".TP\n.B ", to);
	man_text(to, k->name);
	fputs("\n", to);
	man_text(to, k->help);
	fputs("\n.br\n", to);
	man_text(to, arena_fmt(a, "%c%s; default: %s%s%s%s", toupper((unsigned char)
	    *kind_text(a, k)), kind_text(a, k) + 1, key_preset(k), env ? "; " : "",
	    env ? env : "", k->when == NOW ? "." : ". Not supported yet."));
	fputs("\n", to);
}

/* The reference part of warp.toml(5). */
static void
conf_print_man(FILE *to)
{
	for (enum section_id id = SEC_ROOT; id < SECTIONS; id++) {
		const struct section *s = &sections[id];
		struct arena a = { NULL };

		fputs(".SS ", to);
		man_text(to, *s->name ? arena_fmt(&a, "\"[%s]\"", s->name)
		                      : "\"Before any section\"");
		fputs("\n", to);
		man_text(to, *s->help ? s->help : "Not supported yet.");
		fputs(*s->help && s->when != NOW ? "\nNot supported yet.\n" : "\n", to);
		for (size_t i = 0; i < s->n; i++)
			man_key(to, &a, id, &s->keys[i]);
		arena_free(&a);
	}
}

/* ---- memory ---- */

/* One large block; see blocks_open, whose head and tail room this rounds up. */
static uint64_t
memory_large(const struct conf *c)
{
	enum { ROOM = 64 };
	uint64_t head = c->server.max_header_bytes;

	return sizeof(struct block) + ROOM + MAX((uint64_t)RELAY_BYTES, head) + head +
	    HEAD_ADDED_MAX;
}

/* A client that says nothing, with its share of the upstream connections and
 * of the poll array. */
static uint64_t
memory_idle(void)
{
	return sizeof(struct conn) + 2 * sizeof(struct upconn) +
	    3 * (sizeof(struct pollfd) + sizeof(struct watch *));
}

/* What a client's request can hold on top: the exchange and two blocks of
 * trailers; a long head; both directions waiting at both ends; and what
 * buffer_request keeps in memory. */
static uint64_t
memory_busy(const struct conf *c)
{
	enum { SMALL = 3, LARGE = 5 };
	uint64_t spool = 0;

	for (int i = 0; i < c->table.n; i++)
		if (c->table.routes[i].buffer_request > 0)
			spool = MAX(spool, (uint64_t)c->table.routes[i].buffer_request);
	return SMALL * (uint64_t)BLOCK_SMALL_BYTES + LARGE * memory_large(c) + spool;
}

/* What a worker has before its first client. */
static uint64_t
memory_worker(const struct conf *c)
{
	return memory_large(c) + c->server.max_header_bytes + HEAD_ADDED_MAX + LOG_BUFFER +
	    2 * sizeof(struct head) + BLOCKS_KEPT_SMALL * (uint64_t)BLOCK_SMALL_BYTES +
	    BLOCKS_KEPT_LARGE * memory_large(c);
}

/* Bytes that all workers together can need while every client is busy and no
 * peer reads; program text and the kernel's socket buffers are not in it. */
static uint64_t
conf_memory_bound(const struct conf *c)
{
	uint64_t workers = (uint64_t)c->server.workers;
	uint64_t share = (c->server.max_connections + workers - 1) / workers;

	return sizeof(struct board) + workers * (memory_worker(c) +
	    share * (memory_idle() + memory_busy(c)));
}

/* ---- -t ---- */

static void
print_methods(FILE *to, const struct route *r)
{
	const char *sep = "";

	if (r->methods == 0 && r->methods_other.n == 0)
		return;
	fputs(" methods=", to);
	for (int m = M_GET; m < METHODS; m++)
		if (r->methods >> m & 1) {
			fprintf(to, "%s%.*s", sep, (int)method_names[m].n, method_names[m].p);
			sep = ",";
		}
	for (int i = 0; i < r->methods_other.n; i++, sep = ",")
		fprintf(to, "%s%s", sep, r->methods_other.v[i].p);
}

static void
print_pairs(FILE *to, const char *what, const struct pairs *p)
{
	for (int i = 0; i < p->n; i++)
		fprintf(to, " %s %s=%s", what, p->v[i].name.p, p->v[i].value.p);
}

static void
print_conditions(FILE *to, const struct route *r)
{
	static const char *const kinds_of_path[] = { "", "path_prefix", "path_exact",
		"path_regex" };

	if (r->host_kind != HOST_ANY)
		fprintf(to, " host=%s%s", r->host_kind == HOST_WILD ? "*" : "", r->host.p);
	if (r->path_kind != PATH_ANY)
		fprintf(to, " %s=%s", kinds_of_path[r->path_kind], r->path.p);
	print_methods(to, r);
	print_pairs(to, "header", &r->headers);
	print_pairs(to, "query", &r->queries);
	if (r->clients.n > 0)
		fprintf(to, " client in %d networks", r->clients.n);
	if (r->host_kind == HOST_ANY && r->path_kind == PATH_ANY && r->methods == 0 &&
	    r->methods_other.n + r->headers.n + r->queries.n + r->clients.n == 0)
		fputs(" everything", to);
}

static void
print_action(FILE *to, const struct route *r)
{
	if (r->action == ACT_UPSTREAM)
		fprintf(to, " -> upstream %s", r->upstream->name);
	else if (r->action == ACT_REDIRECT)
		fprintf(to, " -> %d %s", r->status, r->redirect.p);
	else
		fprintf(to, " -> %d, %zu bytes", r->status, r->body.n);
	if (r->strip_prefix)
		fputs(", strip_prefix", to);
	if (r->has_rewrite)
		fprintf(to, ", rewrite %s", r->rewrite.p);
	if (r->require_auth)
		fputs(", require_auth", to);
	if (r->basic_auth.n > 0)
		fprintf(to, ", basic_auth of %d", r->basic_auth.n);
	if (r->rate.requests > 0)
		fprintf(to, ", %u requests in %g s (burst %u)", r->rate.requests,
		    r->rate.per_ms / (double)SECOND_MS, r->rate.burst);
	if (r->buffer_request >= 0)
		fprintf(to, ", buffer_request %lld", (long long)r->buffer_request);
	if (!r->websocket)
		fputs(", no websocket", to);
	if (r->description.n > 0)
		fprintf(to, "  # %s", r->description.p);
	fputs("\n", to);
}

static void
print_upstream(FILE *to, const struct upstream *up)
{
	fprintf(to, "upstream %s: %s, connect %g s, read %g s, write %g s, %u retries, "
	    "%u idle connections for %g s\n", up->name, up->balance->name,
	    up->connect_ms / (double)SECOND_MS, up->read_ms / (double)SECOND_MS,
	    up->write_ms / (double)SECOND_MS, up->retries, up->keepalive,
	    up->keepalive_ms / (double)SECOND_MS);
	for (int i = 0; i < up->n_instances; i++)
		fprintf(to, "    %-32s weight %u\n", up->instances[i].addr.text,
		    up->instances[i].weight);
}

static void
print_memory(FILE *to, const struct conf *c)
{
	const uint64_t mb = 1024 * 1024;

	fprintf(to, "memory: at most %llu MB: %u clients x %llu KB, if all are busy and no peer "
	    "reads (%llu bytes each while idle); %d worker%s x %llu KB; shared %llu KB\n",
	    (unsigned long long)((conf_memory_bound(c) + mb - 1) / mb), c->server.max_connections,
	    (unsigned long long)((memory_idle() + memory_busy(c)) / 1024),
	    (unsigned long long)memory_idle(), c->server.workers,
	    c->server.workers == 1 ? "" : "s", (unsigned long long)(memory_worker(c) / 1024),
	    (unsigned long long)(sizeof(struct board) / 1024));
}

/* What a good configuration comes to, for `-t`. */
static void
conf_print_check(const struct conf *c, FILE *to)
{
	const struct server_conf *s = &c->server;

	for (int i = 0; i < s->n_listens; i++)
		fprintf(to, "listen %s\n", s->listens[i].text);
	for (int i = 0; i < c->admin.n_listens; i++)
		fprintf(to, "admin %s\n", c->admin.listens[i].text);
	fprintf(to, "workers %d, clients %u; head %g s, body %g s, keepalive %g s, write %g s, "
	    "tunnel %g s, shutdown %g s\n", s->workers, s->max_connections,
	    s->header_ms / (double)SECOND_MS, s->body_ms / (double)SECOND_MS,
	    s->keepalive_ms / (double)SECOND_MS, s->write_ms / (double)SECOND_MS,
	    s->tunnel_ms / (double)SECOND_MS, s->shutdown_ms / (double)SECOND_MS);
	for (int i = 0; i < c->table.n; i++) {
		fprintf(to, "route %d (line %u):", i + 1, c->table.routes[i].line);
		print_conditions(to, &c->table.routes[i]);
		print_action(to, &c->table.routes[i]);
	}
	for (int i = 0; i < c->n_upstreams; i++)
		print_upstream(to, &c->upstreams[i]);
	print_memory(to, c);
}

/* ---- /config ---- */

static void
json_text(FILE *to, struct slice s)
{
	fputc('"', to);
	for (size_t i = 0; i < s.n; i++) {
		unsigned char ch = (unsigned char)s.p[i];
		if (ch < ' ' || ch == 0x7f)
			fprintf(to, "\\u%04x", ch);
		else
			fprintf(to, "%s%c", ch == '"' || ch == '\\' ? "\\" : "", ch);
	}
	fputc('"', to);
}

/* Is that the name of a key whose value is never shown? */
static bool
key_is_secret(struct slice name)
{
	for (enum section_id id = SEC_SERVER; id < SECTIONS; id++) {
		const struct key *k = key_find(id, name);
		if (k && k->when == NOW && (k->kind == K_SECRET || k->kind == K_USERS))
			return true;
	}
	return false;
}

/* { name = "Authorization", value = … } is as secret as a password. */
static bool
pair_is_secret(const struct toml *table)
{
	const struct toml *name = toml_get(table, "name");
	enum field_id id = name && name->kind == TOML_STRING ? field_id_of(name->text) : F_OTHER;

	return id == F_AUTHORIZATION || id == F_COOKIE || id == F_X_ADMIN_TOKEN;
}

static void
json_scalar(FILE *to, const struct toml *v)
{
	if (v->kind == TOML_BOOLEAN)
		fputs(v->boolean ? "true" : "false", to);
	else if (v->kind == TOML_INTEGER)
		fprintf(to, "%lld", (long long)v->integer);
	else if (v->kind == TOML_FLOAT && isfinite(v->real))
		fprintf(to, "%.15g", v->real);
	else
		json_text(to, v->text);
}

/* v with all below it. A configuration that loaded is never deep. */
static void
json_value(FILE *to, const struct toml *v, bool secret)
{
	bool table = v->kind == TOML_TABLE;
	bool pair = table && pair_is_secret(v);

	if (!table && v->kind != TOML_ARRAY) {
		if (secret)
			fputs("\"***\"", to);
		else
			json_scalar(to, v);
		return;
	}
	fputc(table ? '{' : '[', to);
	for (const struct toml *c = v->first; c; c = c->next) {
		if (table) {
			json_text(to, c->key);
			fputs(": ", to);
		}
		json_value(to, c, secret || (table && key_is_secret(c->key)) ||
		    (pair && slice_eq(c->key, S("value"))));
		fputs(c->next ? ", " : "", to);
	}
	fputc(table ? '}' : ']', to);
}

/* A preset as JSON: numbers and true or false as they are. */
static void
json_preset(FILE *to, const struct key *k)
{
	if (!k->preset)
		fputs("null", to);
	else if (kinds[k->kind].words == ONE_VALUE)
		fputs(k->preset, to);
	else
		json_text(to, slice_of(k->preset));
}

/* "server": { "http_port": { "value": 80, "from": "file:2" }, … */
static void
json_origins(FILE *to, const struct conf *c)
{
	const char *section = NULL;

	for (int i = 0; i < c->n_origins; i++) {
		const struct origin *o = &c->origins[i];
		if (o->key->when != NOW)
			continue;
		if (!section || strcmp(section, o->section) != 0)
			fprintf(to, "%s  \"%s\": {", section ? "\n  },\n" : "", o->section);
		else
			fputc(',', to);
		section = o->section;
		fprintf(to, "\n    \"%s\": { \"value\": ", o->key->name);
		if (o->value)
			json_value(to, o->value, o->key->kind == K_SECRET);
		else
			json_preset(to, o->key);
		if (o->env)
			fprintf(to, ", \"from\": \"env:%s\" }", o->env);
		else if (o->value)
			fprintf(to, ", \"from\": \"file:%u\" }", o->value->vline);
		else
			fputs(", \"from\": \"preset\" }", to);
	}
	fputs(section ? "\n  },\n" : "", to);
}

static void
json_instances(FILE *to, const struct upstream *up)
{
	fputs("    ", to);
	json_text(to, slice_of(up->name));
	fputs(": [", to);
	for (int i = 0; i < up->n_instances; i++) {
		json_text(to, slice_of(up->instances[i].addr.text));
		fputs(i + 1 < up->n_instances ? ", " : "", to);
	}
	fputc(']', to);
}

/* The configuration in force, secrets masked, for /config. */
static void
conf_print_json(const struct conf *c, FILE *to)
{
	static const char *const trees[] = { "upstreams", "routes" };
	const struct toml *v;

	fputs("{\n  \"file\": ", to);
	if (c->file)
		json_text(to, slice_of(c->file));
	else
		fputs("null", to);
	fputs(",\n", to);
	json_origins(to, c);
	for (size_t i = 0; i < LEN(trees); i++) {
		if (!c->tree || !(v = toml_get(c->tree, trees[i])))
			continue;
		fprintf(to, "  \"%s\": ", trees[i]);
		json_value(to, v, false);
		fputs(",\n", to);
	}
	fputs("  \"instances\": {\n", to);
	for (int i = 0; i < c->n_upstreams; i++) {
		json_instances(to, &c->upstreams[i]);
		fputs(i + 1 < c->n_upstreams ? ",\n" : "\n", to);
	}
	fputs("  }\n}\n", to);
}

/* ==== pages ==================================================================
 * Owns    nothing: the pages are their configuration's.
 * Offers  pages_load.
 * Calls   base, arena, diag. NNN.html and NNN.json of server.error_dir are read
 *         with the configuration: workers may not be allowed to later. */

/* The page's bytes; false: said as a warning. */
static bool
page_read(struct conf *cf, const char *path, struct slice *body)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	ssize_t got = -1;
	char *p;

	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= ERROR_PAGE_MAX) {
		p = arena_alloc(&cf->arena, (size_t)st.st_size + 1);
		got = read(fd, p, (size_t)st.st_size);
		*body = (struct slice){ p, got > 0 ? (size_t)got : 0 };
	}
	if (got < 0)
		diag_add(&cf->diags, DIAG_WARNING, 0, 0,
		    "error_dir: %s is not a readable file of at most %d bytes", path,
		    ERROR_PAGE_MAX);
	if (fd >= 0)
		close(fd);
	return got >= 0;
}

/* Status of `NNN.html` or `NNN.json`; 0: another file. */
static int
page_name(const char *name, bool *json)
{
	struct slice s = slice_of(name);
	int64_t status = s.n > 3 ? slice_uint((struct slice){ s.p, 3 }, 599) : -1;

	*json = slice_eq(slice_from(s, MIN(s.n, 3)), S(".json"));
	if (status < 400 || (!*json && !slice_eq(slice_from(s, 3), S(".html"))))
		return 0;
	return (int)status;
}

/* Reads them all; a page that cannot be read is a warning. */
static void
pages_load(struct conf *cf)
{
	const char *dir = cf->server.error_dir;
	DIR *d = dir ? opendir(dir) : NULL;
	struct error_page page;
	struct dirent *e;

	if (dir && !d)
		diag_add(&cf->diags, DIAG_WARNING, 0, 0, "error_dir %s: %s", dir, strerror(errno));
	cf->pages = d ? arena_alloc(&cf->arena, ERROR_PAGES_MAX * sizeof *cf->pages) : NULL;
	while (d && cf->n_pages < ERROR_PAGES_MAX && (e = readdir(d)))
		if ((page.status = page_name(e->d_name, &page.json)) &&
		    page_read(cf, arena_fmt(&cf->arena, "%s/%s", dir, e->d_name), &page.body))
			cf->pages[cf->n_pages++] = page;
	if (d)
		closedir(d);
}

/* ==== board ==================================================================
 * Owns    the one mapping that master, workers and helpers share.
 * Offers  board_open, board_attach, board_addrs_set, board_addrs_get,
 *         board_worker_gone, COUNT, rate_take.
 * Calls   base, clock, log, addr. Who writes what is said in warp.h. */

static struct board *board;

/* Adds to a counter that has one writer: no locked instruction. */
#define COUNT(counter, n)                                                        \
	atomic_store_explicit(&(counter),                                        \
	    atomic_load_explicit(&(counter), memory_order_relaxed) + (n),        \
	    memory_order_relaxed)

/* Before the first fork. Pages are taken as they are touched. */
static void
board_open(void)
{
	board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED)
		die_memory();
	board->started_s = (long long)time(NULL);
}

/* The record of that key, or one that no living configuration names: those of
 * the generation before may still be draining. */
static struct board_instance *
board_record(const char *key, unsigned generation)
{
	struct board_instance *unused = NULL;

	for (size_t i = 0; i < INSTANCES_MAX; i++) {
		struct board_instance *b = &board->instances[i];
		if (strcmp(b->key, key) == 0)
			return b;
		if (!unused && (!b->key[0] || (b->generation + 1 < generation && b->in_flight == 0)))
			unused = b;
		if (!b->key[0])
			break; /* records fill up from the front */
	}
	if (unused) {
		memset(unused, 0, sizeof *unused);
		memcpy(unused->key, key, strlen(key) + 1);
	}
	return unused;
}

/* Gives each instance its record, an old one if it has one. -1: too many
 * instances, or a key too long; logged. */
static int
board_attach(struct conf *cf)
{
	unsigned generation = ++board->generation;

	for (int u = 0; u < cf->n_upstreams; u++)
		for (int i = 0; i < cf->upstreams[u].n_instances; i++) {
			struct instance *in = &cf->upstreams[u].instances[i];
			char key[INSTANCE_KEY_MAX];
			int n = snprintf(key, sizeof key, "%s %s", in->up->name, in->addr.text);

			if (n < 0 || (size_t)n >= sizeof key) {
				log_error("upstream %s: name and address are longer than %d bytes",
				    in->up->name, INSTANCE_KEY_MAX - 2);
				return -1;
			}
			if (!(in->board = board_record(key, generation))) {
				log_error("more than %d instances: make INSTANCES_MAX in config.h larger",
				    INSTANCES_MAX);
				return -1;
			}
			in->board->generation = generation;
		}
	return 0;
}

/* One writer at a time: the master before the workers start, the resolver
 * afterwards. */
static void
board_addrs_set(struct board_instance *b, const union sock *sock, const socklen_t *sock_n,
    unsigned n)
{
	struct board_addrs *a = &b->addrs;
	unsigned seq = a->seq | 1; /* odd already: a writer died here */

	n = MIN(n, INSTANCE_ADDRS);
	a->seq = seq;
	for (unsigned i = 0; i < n; i++) {
		a->sock[i] = sock[i];
		a->sock_n[i] = sock_n[i];
	}
	a->n = n;
	a->seq = seq + 1;
}

/* Address i of the instance, modulo how many it has; false: none yet, or
 * being written without end. */
static bool
board_addrs_get(struct board_instance *b, unsigned i, union sock *sock, socklen_t *sock_n)
{
	const struct board_addrs *a = &b->addrs;

	for (int tries = 0; tries < 1000; tries++) {
		unsigned seq = a->seq;
		if (seq & 1 || a->n == 0)
			continue;
		*sock = a->sock[i % a->n];
		*sock_n = a->sock_n[i % a->n];
		atomic_thread_fence(memory_order_acquire);
		if (a->seq == seq)
			return true;
	}
	return false;
}

/* A worker left: what it counted is kept, its slot is free. */
static void
board_worker_gone(int slot)
{
	struct board_worker *w = &board->workers[slot], *g = &board->gone;

	COUNT(g->accepted, w->accepted);
	COUNT(g->requests, w->requests);
	COUNT(g->bytes_in, w->bytes_in);
	COUNT(g->bytes_out, w->bytes_out);
	COUNT(g->retries, w->retries);
	COUNT(g->refused, w->refused);
	COUNT(g->latency_us, w->latency_us);
	COUNT(g->log_dropped, w->log_dropped);
	for (size_t i = 0; i < LEN(g->codes); i++)
		COUNT(g->codes[i], w->codes[i]);
	for (size_t i = 0; i < LEN(g->latency); i++)
		COUNT(g->latency[i], w->latency[i]);
	for (size_t i = 0; i < INSTANCES_MAX && board->instances[i].key[0]; i++)
		board->instances[i].in_flight -= atomic_exchange(&board->flights[slot][i], 0);
	memset(w, 0, sizeof *w);
}

/* 64 bits of a hash, never 0. */
static uint64_t
hash64(uint64_t h, const void *data, size_t n)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 0x100000001b3u; /* FNV-1a */
	h ^= h >> 32;
	return h ? h : 1;
}

/* GCRA: each request costs period / requests of time; a client may be burst
 * requests ahead. Returns 0 when it may pass, else seconds to wait, at least
 * 1. The cell whose debt ends first makes room for a new client. */
static unsigned
rate_take(const struct rate_limit *r, uint64_t tag)
{
	uint64_t cost = (uint64_t)r->per_ms * 1000 / r->requests;
	uint64_t room = cost * r->burst, now = (uint64_t)now_us, until;
	struct board_rate *cells = &board->rates[tag & (RATE_CELLS - RATE_WAYS)], *cell = cells;

	for (int i = 0; i < RATE_WAYS; i++) {
		if (cells[i].tag == tag) {
			cell = &cells[i];
			break;
		}
		if (cells[i].until_us < cell->until_us)
			cell = &cells[i];
	}
	if (cell->tag != tag) {
		cell->tag = tag;
		cell->until_us = 0;
	}
	until = MAX(now, cell->until_us) + cost;
	if (until > now + room)
		return (unsigned)((until - now - room + 999999) / 1000000);
	cell->until_us = until;
	return 0;
}

/* ==== timer ==================================================================
 * Owns    the timer lists, one for each duration in use.
 * Offers  timer_set, timer_clear, timer_keep, timers_run, timers_next_ms.
 * Calls   base, clock. */

static struct timer_list timer_lists[TIMER_LISTS];
static int n_timer_lists;

/* The list of that duration. When all are taken, the one just above it, or the
 * longest, round after round: a deadline may come late, never early. */
static struct timer_list *
timer_list_of(uint32_t ms)
{
	struct timer_list *above = NULL, *longest = NULL, *l;

	for (int i = 0; i < n_timer_lists; i++) {
		l = &timer_lists[i];
		if (l->ms == ms)
			return l;
		if (l->ms > ms && (!above || l->ms < above->ms))
			above = l;
		if (!longest || l->ms > longest->ms)
			longest = l;
	}
	if (n_timer_lists == TIMER_LISTS)
		return above ? above : longest;
	l = &timer_lists[n_timer_lists++];
	l->ms = ms;
	l->head.prev = l->head.next = &l->head;
	return l;
}

static void
timer_clear(struct timer *t)
{
	if (!t->list)
		return;
	t->prev->next = t->next;
	t->next->prev = t->prev;
	t->list = NULL;
}

static void
timer_link(struct timer *t, struct timer_list *l)
{
	t->list = l;
	t->due_ms = now_ms + l->ms;
	t->prev = l->head.prev;
	t->next = &l->head;
	t->prev->next = t;
	l->head.prev = t;
}

/* Fires ms from now; 0: never. */
static void
timer_set(struct timer *t, uint32_t ms)
{
	struct timer_list *l = t->list && t->ms == ms ? t->list : NULL;

	timer_clear(t);
	if (ms == 0)
		return;
	t->ms = ms;
	t->want_ms = now_ms + ms;
	timer_link(t, l ? l : timer_list_of(ms));
}

/* As timer_set, but one that already runs for ms goes on unchanged. */
static void
timer_keep(struct timer *t, uint32_t ms)
{
	if (!t->list || t->ms != ms)
		timer_set(t, ms);
}

static void
timers_run(void)
{
	for (int i = 0; i < n_timer_lists; i++) {
		struct timer *head = &timer_lists[i].head;
		while (head->next != head && head->next->due_ms <= now_ms) {
			struct timer *t = head->next;
			timer_clear(t);
			if (t->want_ms > now_ms)
				timer_link(t, &timer_lists[i]); /* a list too short for it */
			else
				t->fire(t);
		}
	}
}

/* Milliseconds to the next deadline; -1: there is none. */
static int
timers_next_ms(void)
{
	int64_t next = INT64_MAX;

	for (int i = 0; i < n_timer_lists; i++) {
		const struct timer *head = &timer_lists[i].head;
		if (head->next != head)
			next = MIN(next, head->next->due_ms);
	}
	if (next == INT64_MAX)
		return -1;
	return (int)MIN(MAX(next - now_ms, 0), INT_MAX);
}

/* ==== loop ===================================================================
 * Owns    the poll array, and the epoll set where quiet descriptors are parked.
 * Offers  loop_open, loop_watch, loop_unwatch, loop_is_ready, loop_turn.
 * Calls   base, clock, log, timer.
 *
 * Watching, changing and removing are memory writes: that is poll's strength.
 * Its weakness is that each descriptor costs each turn, busy or not. So one
 * that said nothing for PARK_TURNS turns, when watching it has cost as much as
 * parking it does, goes to epoll, which is one of poll's descriptors, and
 * comes back when it says something. Whatever the load, the cost is at most
 * twice that of the better of the two. One that is only watched for failing
 * (a client that waits for its answer) is in neither for UNPOLLED_MS, which
 * most answers take less than, then in epoll. */

static struct pollfd *poll_fds; /* [0] is the parking lot */
static struct watch **poll_owners;
static int n_polls;
static struct watch parking = { .fd = -1, .slot = -1 };
static struct watch quiet;      /* sentinel: those in poll, longest quiet first */
static struct watch unpolled;   /* sentinel: those in neither, oldest first */
static uint32_t loop_turns;

static void
quiet_unlink(struct watch *w)
{
	if (!w->next)
		return;
	w->prev->next = w->next;
	w->next->prev = w->prev;
	w->prev = w->next = NULL;
}

static void
quiet_append(struct watch *list, struct watch *w, uint32_t since)
{
	quiet_unlink(w);
	w->since = since;
	w->prev = list->prev;
	w->next = list;
	w->prev->next = w;
	list->prev = w;
}

/* It did something: the last to be parked. */
static void
quiet_touch(struct watch *w)
{
	quiet_append(&quiet, w, loop_turns);
}

/* Out of the poll array: the last one fills the gap. */
static void
poll_remove(struct watch *w)
{
	int last = n_polls - 1;

	quiet_unlink(w);
	if (w->slot < 0)
		return;
	if (w->slot != last) {
		poll_fds[w->slot] = poll_fds[last];
		poll_owners[w->slot] = poll_owners[last];
		poll_owners[w->slot]->slot = w->slot;
	}
	n_polls--;
	w->slot = -1;
}

static void
loop_unwatch(struct watch *w)
{
	poll_remove(w);
	w->parked = false; /* should epoll still say something, nobody listens */
}

/* Calls w->ready when w->fd is ready for events, or has failed. The caller
 * never has more watches than loop_open was told. */
static void
loop_watch(struct watch *w, short events)
{
	if (w->parked && w->events == events)
		return;
	w->parked = false;
	w->events = events;
	if (events == 0) {
		poll_remove(w);
		quiet_append(&unpolled, w, (uint32_t)now_ms);
		return;
	}
	if (w->slot < 0) {
		w->slot = n_polls++;
		poll_owners[w->slot] = w;
		poll_fds[w->slot] = (struct pollfd){ .fd = w->fd };
	}
	poll_fds[w->slot].events = events;
	quiet_touch(w);
}

/* Poll saw something on w in this turn that was not handled yet. */
static bool
loop_is_ready(const struct watch *w)
{
	return w->slot >= 0 && poll_fds[w->slot].revents != 0;
}

/* Watched without cost from now on, once: what epoll told is disarmed and need
 * not be taken back. It stays in poll if epoll does not want it. */
static void
loop_park(struct watch *w)
{
	struct epoll_event ev = { .events = (uint32_t)w->events | EPOLLONESHOT, .data.ptr = w };

	if (epoll_ctl(parking.fd, w->known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, w->fd, &ev) < 0) {
		if (w->slot >= 0)
			quiet_touch(w);
		else
			quiet_unlink(w);
		return;
	}
	poll_remove(w);
	w->known = w->parked = true;
}

static void
park_quiet(void)
{
	for (int i = 0; i < PARKED_BATCH && quiet.next != &quiet; i++) {
		if (loop_turns - quiet.next->since < PARK_TURNS)
			break;
		loop_park(quiet.next);
	}
	for (int i = 0; i < PARKED_BATCH && unpolled.next != &unpolled; i++) {
		if ((uint32_t)now_ms - unpolled.next->since < UNPOLLED_MS)
			break;
		loop_park(unpolled.next);
	}
}

/* wait_ms, or less when one waits to be parked. */
static int
park_wait(int wait_ms)
{
	uint32_t age;

	if (unpolled.next == &unpolled)
		return wait_ms;
	age = MIN((uint32_t)now_ms - unpolled.next->since, (uint32_t)UNPOLLED_MS);
	return wait_ms < 0 ? (int)(UNPOLLED_MS - age) : MIN(wait_ms, (int)(UNPOLLED_MS - age));
}

/* Some that were parked say something: back into the poll array, and on as if
 * poll had seen it. */
static void
parking_ready(struct watch *lot, short revents)
{
	struct epoll_event ev[PARKED_BATCH];
	int n = epoll_wait(lot->fd, ev, PARKED_BATCH, 0);

	(void)revents;
	for (int i = 0; i < n; i++) {
		struct watch *w = ev[i].data.ptr;
		if (!w->parked)
			continue; /* taken from there before it spoke */
		w->parked = false;
		if (w->events)
			loop_watch(w, w->events);
		w->ready(w, (short)(ev[i].events & (POLLIN | POLLOUT | POLLERR | POLLHUP)));
	}
}

static void *
map_zeroed(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die_memory();
	return p;
}

static void
loop_open(int watches)
{
	poll_fds = map_zeroed((size_t)(watches + 1) * sizeof *poll_fds);
	poll_owners = map_zeroed((size_t)(watches + 1) * sizeof *poll_owners);
	quiet.prev = quiet.next = &quiet;
	unpolled.prev = unpolled.next = &unpolled;
	parking.fd = epoll_create1(EPOLL_CLOEXEC);
	parking.ready = parking_ready;
	parking.slot = n_polls++;
	poll_owners[0] = &parking;
	poll_fds[0] = (struct pollfd){ .fd = parking.fd, .events = POLLIN }; /* poll skips -1 */
}

/* Ready entries are visited from the back, revents cleared first: removal
 * moves the last one, which has been visited, into the gap. */
static void
loop_dispatch(int ready)
{
	for (int i = n_polls - 1; i > 0 && ready > 0; i--) {
		struct watch *w;
		short revents;

		if (i >= n_polls || !(revents = poll_fds[i].revents))
			continue;
		poll_fds[i].revents = 0;
		ready--;
		w = poll_owners[i];
		quiet_touch(w);
		w->ready(w, revents);
	}
}

/* Waits at most wait_ms (-1: for ever), then calls whoever is ready or due. */
static void
loop_turn(int wait_ms)
{
	int due = timers_next_ms(), ready;

	if (due >= 0 && (wait_ms < 0 || due < wait_ms))
		wait_ms = due;
	ready = poll(poll_fds, (nfds_t)n_polls, park_wait(wait_ms));
	clock_turn();
	loop_turns++;
	if (ready > 0 && poll_fds[0].revents) {
		poll_fds[0].revents = 0;
		parking_ready(&parking, 0);
		ready--;
	}
	loop_dispatch(ready);
	timers_run();
	park_quiet();
}

/* ==== buf ====================================================================
 * Owns    free blocks of two sizes, and the scratch block that every read
 *         goes into first.
 * Offers  block_take, block_give, buf_free, scratch_*.
 * Calls   base. A block belongs to a connection only while bytes wait in it:
 *         on the usual way nothing but the scratch block is touched. */

#define HEADROOM 16 /* before what is read: for a chunk's size line */
#define TAILROOM 16 /* behind it: CRLF, the last chunk */

static struct block *blocks_free[BLOCK_CLASSES];
static unsigned n_blocks_free[BLOCK_CLASSES];
static uint32_t block_bytes[BLOCK_CLASSES] = {
	[BLOCK_SMALL] = BLOCK_SMALL_BYTES,
	[BLOCK_LARGE] = RELAY_BYTES,
};
static struct block *scratch;

/* Large blocks hold a piece of a body, or the longest head and that. */
static void
blocks_open(uint32_t head_bytes)
{
	block_bytes[BLOCK_LARGE] = (uint32_t)sizeof(struct block) + HEADROOM +
	    MAX((uint32_t)RELAY_BYTES, head_bytes) + head_bytes + HEAD_ADDED_MAX + TAILROOM +
	    BLOCK_SMALL_BYTES; /* trailers */
}

static struct block *
block_take(enum block_class k)
{
	struct block *b = blocks_free[k];

	if (b) {
		blocks_free[k] = b->next;
		n_blocks_free[k]--;
		return b;
	}
	if (!(b = malloc(block_bytes[k])))
		die_memory(); /* the master starts another worker */
	b->cap = block_bytes[k] - (uint32_t)sizeof *b;
	b->klass = (uint8_t)k;
	return b;
}

static void
block_give(struct block *b)
{
	static const unsigned kept[] = { BLOCKS_KEPT_SMALL, BLOCKS_KEPT_LARGE };

	if (!b)
		return;
	if (n_blocks_free[b->klass] >= kept[b->klass]) {
		free(b);
		return;
	}
	b->next = blocks_free[b->klass];
	blocks_free[b->klass] = b;
	n_blocks_free[b->klass]++;
}

static char *
buf_p(const struct buf *f)
{
	return f->b->data + f->off;
}

static struct slice
buf_slice(const struct buf *f)
{
	return f->b ? (struct slice){ buf_p(f), f->n } : S("");
}

static void
buf_free(struct buf *f)
{
	if (f->b != scratch)
		block_give(f->b);
	*f = (struct buf){ NULL, 0, 0 };
}

/* Drops n bytes from the front; the block goes with the last one. */
static void
buf_eat(struct buf *f, size_t n)
{
	f->off += (uint32_t)n;
	f->n -= (uint32_t)n;
	if (f->n == 0)
		buf_free(f);
}

/* The bytes of f go to a block of their own of that class. */
static void
buf_move(struct buf *f, enum block_class k)
{
	struct block *b = block_take(k);

	memcpy(b->data + HEADROOM, buf_p(f), f->n);
	if (f->b != scratch)
		block_give(f->b);
	f->b = b;
	f->off = HEADROOM;
}

/* A block that lay in scratch has a new owner: scratch is a fresh one. */
static void
scratch_leave(const struct block *b)
{
	if (b == scratch)
		scratch = block_take(BLOCK_LARGE);
}

/* f outlives the event: a few bytes are copied, many keep their block. */
static void
buf_settle(struct buf *f)
{
	if (f->b != scratch || !f->b)
		return;
	if (f->n + HEADROOM + TAILROOM <= block_bytes[BLOCK_SMALL] - sizeof(struct block))
		buf_move(f, BLOCK_SMALL);
	else
		scratch_leave(f->b);
}

/* ==== chan ===================================================================
 * Owns    what a chan owns: its descriptor and unsent bytes.
 * Offers  chan_open, chan_close, chan_send, chan_flush, side_fill, side_settle.
 * Calls   base, loop, buf. The only reads and writes of a connection. */

/* The side whose `in` lies in the scratch block now. */
static struct side *scratch_side;

static void
chan_open(struct chan *ch, int fd, void (*ready)(struct watch *, short))
{
	*ch = (struct chan){ .w = { .fd = fd, .slot = -1, .ready = ready } };
}

static void
side_close(struct side *s)
{
	loop_unwatch(&s->ch.w);
	timer_clear(&s->timer);
	if (scratch_side == s)
		scratch_side = NULL;
	buf_free(&s->in);
	buf_free(&s->ch.out);
	if (s->ch.w.fd >= 0)
		close(s->ch.w.fd);
	s->ch.w.fd = -1;
}

/* Before the event ends, or another side reads: what is in scratch moves. */
static void
side_settle(void)
{
	if (scratch_side)
		buf_settle(&scratch_side->in);
	scratch_side = NULL;
}

/* Makes room for at least one more byte behind s->in; false: head_max is
 * reached. */
static bool
side_room(struct side *s)
{
	struct buf *in = &s->in;

	if (in->n == 0) {
		side_settle();
		buf_free(in);
		*in = (struct buf){ scratch, HEADROOM, 0 };
		scratch_side = s;
		return true;
	}
	if (in->off + in->n + TAILROOM < in->b->cap)
		return true;
	if (in->off > HEADROOM) {
		memmove(in->b->data + HEADROOM, buf_p(in), in->n);
		in->off = HEADROOM;
		return true;
	}
	if (in->b->klass == BLOCK_LARGE)
		return false;
	buf_move(in, BLOCK_LARGE);
	return true;
}

/* Reads once, behind what is there. Returns bytes read, 0 when nothing came
 * (or nothing fits), -1 at the end or on failure: see ch.eof, ch.broken. */
static ssize_t
side_fill(struct side *s)
{
	struct buf *in = &s->in;
	ssize_t got;
	size_t room;

	if (!side_room(s))
		return 0;
	room = in->b->cap - in->off - in->n - TAILROOM;
	do
		got = recv(s->ch.w.fd, buf_p(in) + in->n, MIN(room, (size_t)RELAY_BYTES), 0);
	while (got < 0 && errno == EINTR);
	if (got > 0) {
		in->n += (uint32_t)got;
		return got;
	}
	if (in->n == 0)
		buf_free(in);
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	if (got < 0)
		s->ch.broken = true;
	s->ch.eof = true;
	return -1;
}

/* What the kernel takes now; -1: the peer is gone. */
static ssize_t
chan_writev(struct chan *ch, struct iovec *v, int n)
{
	struct msghdr m = { .msg_iov = v, .msg_iovlen = (size_t)n };
	ssize_t put;

	do
		put = n == 1 ? send(ch->w.fd, v[0].iov_base, v[0].iov_len, MSG_NOSIGNAL)
		             : sendmsg(ch->w.fd, &m, MSG_NOSIGNAL);
	while (put < 0 && errno == EINTR);
	if (put >= 0)
		return put;
	if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
		return 0;
	ch->broken = true;
	return -1;
}

/* Skips put bytes of v; returns the first piece that is left. */
static int
iov_skip(struct iovec *v, int n, size_t put)
{
	int i = 0;

	while (i < n && put >= v[i].iov_len)
		put -= v[i++].iov_len;
	if (i < n) {
		v[i].iov_base = (char *)v[i].iov_base + put;
		v[i].iov_len -= put;
	}
	return i;
}

/* Keeps what was not sent in out. A last piece that lies in `owner`, and only
 * that, takes the block along; anything else is copied. */
static bool
chan_keep(struct chan *ch, struct iovec *v, int n, struct buf *owner)
{
	struct buf *out = &ch->out;
	size_t total = 0;

	for (int i = 0; i < n; i++)
		total += v[i].iov_len;
	if (n == 1 && owner && owner->b) {
		scratch_leave(owner->b);
		*out = (struct buf){ owner->b,
		    (uint32_t)((char *)v[0].iov_base - owner->b->data), (uint32_t)total };
		*owner = (struct buf){ NULL, 0, 0 };
		return true;
	}
	out->b = block_take(total <= block_bytes[BLOCK_SMALL] - sizeof(struct block) ?
	    BLOCK_SMALL : BLOCK_LARGE);
	for (int i = 0; i < n && out->n + v[i].iov_len <= out->b->cap; i++) {
		memcpy(out->b->data + out->n, v[i].iov_base, v[i].iov_len);
		out->n += (uint32_t)v[i].iov_len;
	}
	return out->n == total;
}

/* Sends v[0 .. n), which together fit a large block, or keeps what is left.
 * owner: the buf whose block the last piece lies in and that is otherwise used
 * up, or NULL. Only while out is empty. -1: the peer is gone. */
static int
chan_send(struct chan *ch, struct iovec *v, int n, struct buf *owner)
{
	ssize_t put = chan_writev(ch, v, n);
	int i;

	if (put < 0)
		return -1;
	i = iov_skip(v, n, (size_t)put);
	if (i < n && !chan_keep(ch, v + i, n - i, owner))
		ch->broken = true;
	return ch->broken ? -1 : 0;
}

/* Sends what waits; true when nothing does any more. */
static bool
chan_flush(struct chan *ch)
{
	struct iovec v;
	ssize_t put;

	if (ch->out.n == 0)
		return true;
	v = (struct iovec){ buf_p(&ch->out), ch->out.n };
	put = chan_writev(ch, &v, 1);
	if (put > 0)
		buf_eat(&ch->out, (size_t)put);
	return ch->out.n == 0;
}

/* ==== listen =================================================================
 * Owns    listening sockets while they are opened and closed.
 * Offers  listen_open, listen_close.
 * Calls   base, log. Every message says what to do about it. */

#define SOCKET_MODE_BITS 0777

/* Nobody accepts on that unix socket any more. A full backlog, a socket of
 * another type or one that we may not touch is somebody's. */
static bool
unix_is_stale(const struct addr *a)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool stale = fd >= 0 && connect(fd, &a->sock.sa, a->sock_n) < 0 && errno == ECONNREFUSED;

	if (fd >= 0)
		close(fd);
	return stale;
}

/* Makes way for a unix socket: a stale file goes, anything else stays. */
static int
unix_clear(const struct addr *a)
{
	const char *path = a->sock.un.sun_path;
	struct stat st;

	if (lstat(path, &st) < 0)
		return 0;
	errno = EEXIST;
	if (!S_ISSOCK(st.st_mode))
		return log_errno("listen on %s: there is a file that is no socket", a->text);
	if (!unix_is_stale(a)) {
		errno = EADDRINUSE;
		return -1; /* the caller says it: the preset one is only a warning */
	}
	if (unlink(path) < 0)
		return log_errno("listen on %s: the old socket cannot be removed", a->text);
	return 0;
}

static int
bind_failed(const struct addr *a)
{
	if (errno == EADDRINUSE)
		return log_errno("listen on %s: another program listens there (`ss -lntp` names it), "
		    "stop it or listen elsewhere", a->text);
	if (errno == EACCES)
		return log_errno("listen on %s: not allowed; ports below 1024 need root or "
		    "CAP_NET_BIND_SERVICE", a->text);
	if (errno == ENOENT)
		return log_errno("listen on %s: its directory does not exist", a->text);
	return log_errno("listen on %s", a->text);
}

/* A unix socket is never more open than it shall be, not for a moment. */
static int
listen_bind(int fd, const struct addr *a, int mode)
{
	mode_t mask = umask((mode_t)(SOCKET_MODE_BITS & ~mode));
	int done = bind(fd, &a->sock.sa, a->sock_n), err = errno;

	umask(mask);
	errno = err;
	return done;
}

static void
listen_options(int fd, const struct addr *a)
{
	int on = 1, only_v6 = !a->any;

	if (a->sock.sa.sa_family == AF_UNIX)
		return;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* accepted ones inherit it */
	/* a client is accepted with its first bytes, or silent after a second: a third less CPU
	 * for a connection (45 to 27 us) */
	setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &on, sizeof on);
	if (a->sock.sa.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_v6, sizeof only_v6);
}

static int
listen_try(const struct addr *a, int mode)
{
	int fd = socket(a->sock.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), err;

	if (fd < 0)
		return -1;
	listen_options(fd, a);
	if (listen_bind(fd, a, mode) == 0 && listen(fd, LISTEN_BACKLOG) == 0)
		return fd;
	err = errno;
	close(fd);
	errno = err;
	return -1;
}

/* `:port` is both families, or IPv4 alone where there is no IPv6. */
static int
listen_fd(struct addr *a, int mode)
{
	int fd = listen_try(a, mode);

	if (fd >= 0 || !a->any || (errno != EAFNOSUPPORT && errno != EADDRNOTAVAIL))
		return fd;
	a->sock.in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(a->port) };
	a->sock_n = sizeof a->sock.in;
	return listen_try(a, mode);
}

/* An inherited descriptor: it must be a listening socket. */
static int
listen_inherited(struct listener *l, int fd)
{
	int on = 0;
	socklen_t n = sizeof on;

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &n) < 0 || !on)
		return log_errno("listen on %s: descriptor %d is no listening socket", l->addr.text, fd);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	l->fd = fd;
	l->inherited = true;
	return 0;
}

/* What the kernel made of it: the port, and which file is ours. */
static void
listen_note(struct listener *l)
{
	union sock here = { 0 };
	socklen_t n = sizeof here;
	struct stat st;

	if (getsockname(l->fd, &here.sa, &n) == 0)
		ip_of_sock(&here, &l->port);
	if (l->addr.kind == ADDR_UNIX && stat(l->addr.sock.un.sun_path, &st) == 0) {
		l->dev = st.st_dev;
		l->ino = st.st_ino;
	}
}

/* Binds l->addr. 0, or -1: logged, but for a unix socket that a live program
 * answers on (errno EADDRINUSE), of which the caller knows how bad it is. */
static int
listen_open(struct listener *l, int mode)
{
	l->fd = -1;
	if (l->addr.kind == ADDR_FD) {
		if (listen_inherited(l, l->addr.fd) < 0)
			return -1;
	} else if (l->addr.kind == ADDR_NAME) {
		errno = EINVAL;
		return log_errno("listen on %s: give an IP address, not a name", l->addr.text);
	} else {
		if (l->addr.kind == ADDR_UNIX && unix_clear(&l->addr) < 0)
			return -1;
		if ((l->fd = listen_fd(&l->addr, mode)) < 0)
			return bind_failed(&l->addr);
	}
	listen_note(l);
	return 0;
}

/* Closes it; with `gone` its own socket file is removed as well. */
static void
listen_close(struct listener *l, bool gone)
{
	struct stat st;
	const char *path = l->addr.sock.un.sun_path;

	if (l->fd < 0)
		return;
	close(l->fd);
	l->fd = -1;
	if (gone && l->addr.kind == ADDR_UNIX && !l->inherited && stat(path, &st) == 0 &&
	    st.st_dev == l->dev && st.st_ino == l->ino)
		unlink(path);
}

/* ==== privilege ==============================================================
 * Owns    nothing.
 * Offers  privilege_drop.
 * Calls   log. For good: there is no way back. */

struct identity {
	uid_t uid;
	gid_t gid;
	const char *name; /* for initgroups; NULL: no such account, or no user given */
	bool user, group;
};

static int
identity_user(const char *user, struct identity *id)
{
	int64_t n = slice_uint(slice_of(user), UINT32_MAX - 1);
	struct passwd *pw = getpwnam(user);

	if (!pw && n >= 0)
		pw = getpwuid((uid_t)n);
	if (!pw && n < 0) {
		log_error("server.user: there is no user %s", user);
		return -1;
	}
	id->user = true;
	id->group = pw != NULL;
	id->uid = pw ? pw->pw_uid : (uid_t)n;
	id->gid = pw ? pw->pw_gid : 0;
	id->name = pw ? pw->pw_name : NULL;
	return 0;
}

static int
identity_group(const char *group, struct identity *id)
{
	struct group *gr = getgrnam(group);
	int64_t n = gr ? (int64_t)gr->gr_gid : slice_uint(slice_of(group), UINT32_MAX - 1);

	if (n < 0) {
		log_error("server.group: there is no group %s", group);
		return -1;
	}
	id->gid = (gid_t)n;
	id->group = true;
	return 0;
}

/* Who [server] says that workers are; all zero: who they are already. */
static int
identity_find(const struct server_conf *sc, struct identity *id)
{
	*id = (struct identity){ 0 };
	if ((sc->user && identity_user(sc->user, id) < 0) ||
	    (sc->group && identity_group(sc->group, id) < 0))
		return -1;
	if (id->user && !id->group) {
		log_error("server.user: %s has no account, so give server.group as well", sc->user);
		return -1;
	}
	if ((!id->user || id->uid == geteuid()) && (!id->group || id->gid == getegid()))
		*id = (struct identity){ 0 }; /* needs no rights */
	return 0;
}

/* Before chroot: names of groups are looked up. */
static int
identity_groups(const struct identity *id)
{
	if (!id->group)
		return 0;
	if (id->name ? initgroups(id->name, id->gid) < 0 : setgroups(0, NULL) < 0)
		return log_errno("server.user, server.group: only root may change them");
	return 0;
}

static int
identity_take(const struct identity *id)
{
	if (id->group && (setresgid(id->gid, id->gid, id->gid) < 0 || getegid() != id->gid))
		return log_errno("server.group: group %u", (unsigned)id->gid);
	if (id->user && (setresuid(id->uid, id->uid, id->uid) < 0 || geteuid() != id->uid))
		return log_errno("server.user: user %u", (unsigned)id->uid);
	if (id->user && id->uid != 0 && setuid(0) == 0) {
		log_error("server.user: root could be had back");
		return -1;
	}
	return 0;
}

/* Groups, chroot, group, user as [server] says. 0 or -1, logged. */
static int
privilege_drop(const struct server_conf *sc)
{
	struct identity id;

	if (identity_find(sc, &id) < 0 || identity_groups(&id) < 0)
		return -1;
	if (sc->chroot && (chroot(sc->chroot) < 0 || chdir("/") < 0))
		return log_errno("server.chroot: %s", sc->chroot);
	if (identity_take(&id) < 0)
		return -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return log_errno("no_new_privs");
	return 0;
}

/* ==== logfile ================================================================
 * Owns    the descriptors of the log targets, which workers inherit.
 * Offers  logs_open, logs_close, logs_use.
 * Calls   log. */

#define LOG_FILE_MODE 0640

/* Every target has a descriptor, so that one can always be handed on. */
static int
log_target_open(struct log_target *t)
{
	const char *path = t->sink == SINK_FILE ? t->path : "/dev/null";

	if (t->sink == SINK_STDOUT || t->sink == SINK_STDERR)
		t->fd = fcntl(t->sink == SINK_STDOUT ? STDOUT_FILENO : STDERR_FILENO,
		    F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	else
		t->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, LOG_FILE_MODE);
	return t->fd < 0 ? log_errno("log to %s", path) : 0;
}

static void
logs_close(struct log_conf *lc)
{
	if (lc->access.fd > STDERR_FILENO)
		close(lc->access.fd);
	if (lc->error.fd > STDERR_FILENO)
		close(lc->error.fd);
	lc->access.fd = lc->error.fd = -1;
}

static int
logs_open(struct log_conf *lc)
{
	lc->access.fd = lc->error.fd = -1;
	if (log_target_open(&lc->access) == 0 && log_target_open(&lc->error) == 0)
		return 0;
	logs_close(lc);
	return -1;
}

/* From now on log_error and its like write there. */
static void
logs_use(const struct log_conf *lc)
{
	log_level = lc->level;
	log_to_syslog = lc->error.sink == SINK_SYSLOG;
	if (log_to_syslog || lc->access.sink == SINK_SYSLOG)
		openlog("warp", LOG_PID | LOG_NDELAY, LOG_DAEMON);
	log_fd = lc->error.fd >= 0 ? lc->error.fd : STDERR_FILENO;
}

/* ==== pool ===================================================================
 * Owns    every upstream connection's memory, and those that are idle.
 * Offers  pool_open, pool_take, pool_give, upconn_connect, upconn_close.
 * Calls   base, log, addr, board, timer, loop, chan. What is taken is the
 *         taker's, who hands down whom to call when it is ready or due. */

#define CONNECT_AGAIN_MS 20 /* a unix listener's backlog is full */

static struct upconn *upconns_free;
static struct upconn *upconns;
static uint32_t n_upconns, max_upconns, max_idle, n_idle_all;
static struct board_worker *me; /* this worker's counters */
static bool draining;           /* finish what runs, take nothing new */

/* Room for one busy and one idle connection for each client. */
static void
pool_open(uint32_t clients)
{
	max_idle = clients;
	max_upconns = 2 * clients;
	upconns = map_zeroed(max_upconns * sizeof *upconns);
}

static struct upconn *
upconn_new(struct instance *in)
{
	struct upconn *u = upconns_free;

	if (u)
		upconns_free = u->next;
	else if (n_upconns < max_upconns)
		u = &upconns[n_upconns++];
	else
		return NULL;
	*u = (struct upconn){ .inst = in };
	COUNT(me->upstream_connections, 1);
	return u;
}

static void
pool_unlink(struct upconn *u)
{
	if (u->prev)
		u->prev->next = u->next;
	else
		u->inst->idle = u->next;
	if (u->next)
		u->next->prev = u->prev;
	u->prev = u->next = NULL;
	u->inst->n_idle--;
	n_idle_all--;
}

static void
upconn_close(struct upconn *u)
{
	if (u->state == UP_IDLE)
		pool_unlink(u);
	side_close(&u->s);
	u->state = UP_FREE;
	u->next = upconns_free;
	upconns_free = u;
	COUNT(me->upstream_connections, -1u);
}

/* An idle connection must say nothing: end or rubbish, it goes. */
static void
pool_ready(struct watch *w, short revents)
{
	(void)revents;
	upconn_close((struct upconn *)w);
}

static void
pool_due(struct timer *t)
{
	upconn_close((struct upconn *)((char *)t - offsetof(struct upconn, s.timer)));
}

/* Takes over u, whose exchange is complete: into the pool, or closed. */
static void
pool_give(struct upconn *u)
{
	struct instance *in = u->inst;

	u->s.x = NULL;
	u->served++;
	if (draining || in->n_idle >= in->up->keepalive || n_idle_all >= max_idle ||
	    loop_is_ready(&u->s.ch.w)) {
		upconn_close(u);
		return;
	}
	u->state = UP_IDLE;
	u->prev = NULL;
	u->next = in->idle;
	if (in->idle)
		in->idle->prev = u;
	in->idle = u;
	in->n_idle++;
	n_idle_all++;
	u->s.ch.w.ready = pool_ready;
	u->s.timer.fire = pool_due;
	loop_watch(&u->s.ch.w, POLLIN);
	timer_set(&u->s.timer, in->up->keepalive_ms);
}

/* Poll has told of those it watches in this very turn; a parked one may have
 * been closed since, so it is asked. */
static bool
pool_is_alive(const struct upconn *u)
{
	char c;

	if (!u->s.ch.w.parked)
		return !loop_is_ready(&u->s.ch.w);
	return recv(u->s.ch.w.fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
	    (errno == EAGAIN || errno == EWOULDBLOCK);
}

/* The connection that was used last and is still open; NULL: none. */
static struct upconn *
pool_take(struct instance *in)
{
	struct upconn *u = in->idle, *next;

	for (; u; u = next) {
		next = u->next;
		if (!pool_is_alive(u))
			continue; /* its own event closes it */
		pool_unlink(u);
		u->state = UP_BUSY;
		return u;
	}
	return NULL;
}

static void
pool_drain(const struct conf *cf)
{
	for (int i = 0; i < cf->n_upstreams; i++)
		for (int k = 0; k < cf->upstreams[i].n_instances; k++)
			while (cf->upstreams[i].instances[k].idle)
				upconn_close(cf->upstreams[i].instances[k].idle);
}

/* Asks the kernel; false: failed at once, errno says why. */
static bool
upconn_dial(struct upconn *u)
{
	union sock to;
	socklen_t to_n;
	int done;

	if (!board_addrs_get(u->inst->board, u->addr_i, &to, &to_n)) {
		errno = EADDRNOTAVAIL;
		return false;
	}
	do
		done = connect(u->s.ch.w.fd, &to.sa, to_n);
	while (done < 0 && errno == EINTR);
	u->retry_connect = done < 0 && errno == EAGAIN && to.sa.sa_family == AF_UNIX;
	u->state = done == 0 ? UP_BUSY : UP_CONNECTING;
	return done == 0 || errno == EINPROGRESS || u->retry_connect;
}

/* A new connection to the instance's address number addr_i, on its way or
 * (state UP_BUSY) there already. NULL: failed at once, errno says why. */
static struct upconn *
upconn_connect(struct instance *in, uint8_t addr_i)
{
	int fd, family, on = 1, why;
	union sock to = { 0 };
	socklen_t to_n;
	struct upconn *u;

	if (!board_addrs_get(in->board, addr_i, &to, &to_n)) {
		errno = EADDRNOTAVAIL;
		return NULL;
	}
	family = to.sa.sa_family;
	if ((fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) < 0)
		return NULL;
	if (family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* an optimisation */
	if (!(u = upconn_new(in))) {
		close(fd);
		errno = EMFILE;
		return NULL;
	}
	chan_open(&u->s.ch, fd, NULL);
	u->addr_i = addr_i;
	if (upconn_dial(u))
		return u;
	why = errno;
	upconn_close(u);
	errno = why;
	return NULL;
}

/* ==== auth ===================================================================
 * Owns    a few passwords whose slow hash was checked already.
 * Offers  auth_token_ok, auth_basic_ok.
 * Calls   base, http, crypt. RFC 7617. */

#define CREDENTIALS_MAX 256 /* bytes of user:password; longer ones fail */

struct auth_seen {
	const char *secret; /* the hash that it was checked against */
	uint16_t n;
	char text[CREDENTIALS_MAX];
};
static struct auth_seen auth_cache[AUTH_CACHE];
static unsigned auth_next;

static int
base64_value(char c)
{
	static const char digits[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* Appends what s encodes; false when it is not base64. RFC 4648 4. */
static bool
base64_decode(struct text *t, struct slice s)
{
	unsigned bits = 0, n = 0;

	while (s.n > 0 && s.p[s.n - 1] == '=')
		s.n--;
	for (size_t i = 0; i < s.n; i++) {
		int v = base64_value(s.p[i]);
		if (v < 0)
			return false;
		bits = bits << 6 | (unsigned)v;
		n += 6;
		if (n >= 8) {
			n -= 8;
			text_char(t, (char)(bits >> n & 0xff));
		}
	}
	return !t->full;
}

/* The word behind the scheme: `Basic xyz`, `Bearer xyz`; empty: not that. */
static struct slice
auth_credentials(const struct head *h, const char *scheme)
{
	const struct field *f = head_field(h, F_AUTHORIZATION);
	struct slice rest, word;

	if (!f || h->count[F_AUTHORIZATION] != 1)
		return S("");
	rest = f->value;
	if (!slice_cut(&rest, ' ', &word) || !slice_ieq(word, slice_of(scheme)) || !rest.p)
		return S("");
	return slice_trim(rest);
}

static bool
auth_token_ok(const struct head *h, struct slice token)
{
	const struct field *f = head_field(h, F_X_ADMIN_TOKEN);

	return f && h->count[F_X_ADMIN_TOKEN] == 1 && slice_eq_secret(f->value, token);
}

static bool
auth_hash_ok(struct slice password, struct slice hash, struct slice credentials)
{
	struct auth_seen *seen;

	for (size_t i = 0; i < LEN(auth_cache); i++)
		if (auth_cache[i].secret == hash.p && slice_eq_secret(credentials,
		    (struct slice){ auth_cache[i].text, auth_cache[i].n }))
			return true;
	if (!crypt_sha(password, hash))
		return false;
	seen = &auth_cache[auth_next++ % AUTH_CACHE];
	seen->secret = hash.p;
	seen->n = (uint16_t)credentials.n;
	memcpy(seen->text, credentials.p, credentials.n);
	return true;
}

/* One of users with its password, which is a SHA-crypt hash if it starts
 * with `$`, else the text itself. */
static bool
auth_basic_ok(const struct head *h, const struct pairs *users)
{
	char b[CREDENTIALS_MAX];
	struct text t = { b, 0, sizeof b, false };
	struct slice all, rest, user;

	if (!base64_decode(&t, auth_credentials(h, "Basic")))
		return false;
	all = rest = text_slice(&t);
	if (!slice_cut(&rest, ':', &user) || !rest.p || memchr(rest.p, '\0', rest.n))
		return false;
	for (int i = 0; i < users->n; i++) {
		struct slice secret = users->v[i].value;
		if (!slice_eq(user, users->v[i].name))
			continue;
		return secret.n > 0 && secret.p[0] == '$' ? auth_hash_ok(rest, secret, all)
		                                          : slice_eq_secret(rest, secret);
	}
	return false;
}

/* ==== access =================================================================
 * Owns    the access log of this worker: its descriptor, and the lines that are
 *         not written yet.
 * Offers  access_on, access_start, access_line, access_flush, access_due_ms,
 *         access_fd.
 * Calls   base, clock, log, http, addr, auth. The format is compiled once into
 *         an array of ops. Never blocks: what the reader does not take waits
 *         in the buffer, what does not fit there is dropped and counted. */

#define TIME_TEXT    32 /* 10/Oct/2000:13:55:36 +0000 */
#define VALUE_TEXT   64 /* a value that is made here: a number, an address */
#define LOG_RETRY_MS 10 /* before a slow reader is tried again */

/* What a `$name` stands for. get returns nothing for an absent value; what it
 * returns is good until the next call. */
struct access_var {
	struct slice name;
	struct slice (*get)(const struct exchange *, const struct head *, struct slice arg);
	bool bare; /* a number: no quotes in JSON */
};

/* One step of a line: text as it is, then a variable. */
struct access_op {
	struct slice text;
	const struct access_var *var; /* NULL: only text */
	struct slice arg;             /* of http_NAME: the field's name */
};

static bool access_on;
static struct {
	enum log_sink sink;
	int fd;
	bool is_file;         /* no piece of it ever has to wait */
	bool is_socket;
	bool json;
	struct access_op *ops;
	size_t n_ops;
	char *p;              /* LOG_BUFFER bytes, n of them are lines to be written */
	size_t n, line_max;
	bool torn;            /* the first line has lost its beginning to the reader */
	bool blocked;         /* the reader is slow, or writing failed */
	int64_t due_ms;       /* of the next flush, while n > 0 */
	atomic_ullong *dropped;
	uint64_t lost;        /* dropped so far, for the warning */
} access_log = { .fd = -1 };

/* ---- variables ---- */

/* A buffer for one value. */
static struct text
made_text(void)
{
	static char b[VALUE_TEXT];

	return (struct text){ b, 0, sizeof b, false };
}

static struct slice
made_uint(uint64_t v)
{
	struct text t = made_text();

	text_uint(&t, v);
	return text_slice(&t);
}

/* Microseconds as 0.123. */
static struct slice
made_secs(int64_t us)
{
	struct text t = made_text();
	uint64_t ms = us > 0 ? (uint64_t)us / SECOND_MS : 0;
	unsigned rest = (unsigned)(ms % SECOND_MS);

	text_uint(&t, ms / SECOND_MS);
	text_char(&t, '.');
	text_char(&t, (char)('0' + rest / 100));
	text_char(&t, (char)('0' + rest / 10 % 10));
	text_char(&t, (char)('0' + rest % 10));
	return text_slice(&t);
}

/* now_s in local time, made once a second. */
static struct slice
access_time(bool iso)
{
	static struct { char b[TIME_TEXT]; size_t n; } clf, rfc3339;
	static time_t of = -1;
	struct tm tm;

	if (of != now_s) {
		localtime_r(&now_s, &tm);
		clf.n = strftime(clf.b, sizeof clf.b, "%d/%b/%Y:%H:%M:%S %z", &tm);
		rfc3339.n = strftime(rfc3339.b, sizeof rfc3339.b - 1, "%Y-%m-%dT%H:%M:%S%z", &tm);
		if (rfc3339.n > 2) { /* +0000 becomes +00:00 */
			memmove(rfc3339.b + rfc3339.n - 1, rfc3339.b + rfc3339.n - 2, 2);
			rfc3339.b[rfc3339.n++ - 2] = ':';
		}
		of = now_s;
	}
	return iso ? (struct slice){ rfc3339.b, rfc3339.n } : (struct slice){ clf.b, clf.n };
}

#define VAR(name)                                                                \
	static struct slice var_##name(const struct exchange *x,                 \
	    const struct head *h, struct slice arg)

VAR(client)
{
	struct text t = made_text();

	(void)h, (void)arg;
	ip_text(&t, &x->client);
	return text_slice(&t);
}

VAR(method)
{
	(void)h, (void)arg;
	return x->method_text;
}

VAR(uri)
{
	(void)h, (void)arg;
	return x->target;
}

VAR(host)
{
	(void)h, (void)arg;
	return x->host;
}

VAR(protocol)
{
	(void)h, (void)arg;
	if (x->method_text.n == 0)
		return S("");
	return x->minor ? S("HTTP/1.1") : S("HTTP/1.0");
}

/* The request line, as it came. */
VAR(request)
{
	struct slice rest = x->head_bytes, line;

	(void)h, (void)arg;
	if (x->method_text.n == 0)
		return S("");
	rest = slice_from(rest, (size_t)(x->method_text.p - rest.p)); /* empty lines */
	slice_cut(&rest, '\n', &line);
	line.n -= line.n > 0 && line.p[line.n - 1] == '\r';
	return line;
}

VAR(status)
{
	(void)h, (void)arg;
	return x->status > 0 ? made_uint((uint64_t)x->status) : S("");
}

VAR(bytes)
{
	(void)h, (void)arg;
	return made_uint(x->bytes_out);
}

VAR(secs)
{
	(void)h, (void)arg;
	return made_secs(now_us - x->start_us);
}

VAR(upstream)
{
	const struct upstream *up = x->inst ? x->inst->up : x->route ? x->route->upstream : NULL;

	(void)h, (void)arg;
	return slice_of(up ? up->name : NULL);
}

VAR(instance)
{
	(void)h, (void)arg;
	return slice_of(x->inst ? x->inst->addr.text : NULL);
}

/* up_us is set when the whole answer came. */
VAR(upstream_secs)
{
	(void)h, (void)arg;
	if (x->up_start_us == 0)
		return S("");
	return made_secs(x->up_us > 0 ? x->up_us : now_us - x->up_start_us);
}

VAR(request_id)
{
	(void)h, (void)arg;
	return slice_of(x->id);
}

/* Its description, else its line in the file. */
VAR(route)
{
	(void)h, (void)arg;
	if (!x->route || x->route->description.n > 0)
		return x->route ? x->route->description : S("");
	return x->route->line > 0 ? made_uint(x->route->line) : S("");
}

VAR(field)
{
	(void)x;
	for (int i = 0; h && i < h->n; i++)
		if (slice_ieq(h->f[i].name, arg))
			return h->f[i].value;
	return S("");
}

VAR(referer)
{
	const struct field *f = h ? head_field(h, F_REFERER) : NULL;

	(void)x, (void)arg;
	return f ? f->value : S("");
}

VAR(user_agent)
{
	const struct field *f = h ? head_field(h, F_USER_AGENT) : NULL;

	(void)x, (void)arg;
	return f ? f->value : S("");
}

/* The name of basic_auth, as the client said it. */
VAR(user)
{
	static char b[CREDENTIALS_MAX];
	struct text t = { b, 0, sizeof b, false };
	struct slice all, user;

	(void)x, (void)arg;
	if (!h || !base64_decode(&t, auth_credentials(h, "Basic")))
		return S("");
	all = text_slice(&t);
	slice_cut(&all, ':', &user);
	return all.p ? user : S("");
}

/* ISO 8601 in JSON, else as in the common format. */
VAR(time)
{
	(void)x, (void)h, (void)arg;
	return access_time(access_log.json);
}
#undef VAR

#define NAMED(name, bare) { { #name, sizeof #name - 1 }, var_##name, bare }

/* The first JSON_VARS are the keys of json, in this order. The last two are
 * for common and combined: no pattern of a file can name them. */
enum { JSON_VARS = 15 };
static const struct access_var access_vars[] = {
	NAMED(time, false),
	NAMED(client, false),
	NAMED(method, false),
	NAMED(uri, false),
	NAMED(host, false),
	NAMED(status, true),
	NAMED(bytes, true),
	NAMED(secs, true),
	NAMED(upstream, false),
	NAMED(instance, false),
	NAMED(upstream_secs, true),
	NAMED(request_id, false),
	NAMED(referer, false),
	NAMED(user_agent, false),
	NAMED(protocol, false),
	NAMED(route, false),
	NAMED(user, false),
	NAMED(request, false),
};
static const struct access_var access_field = { { "http_", 5 }, var_field, false };
#undef NAMED

/* ---- compiling ---- */

#define COMMON "$client - $user [$time] \"$request\" $status $bytes"

static const struct {
	const char *name, *pattern;
} access_formats[] = {
	{ "common", COMMON },
	{ "combined", COMMON " \"$referer\" \"$user_agent\"" },
};

/* Sets op's variable; http_x_forwarded_for is the field X-Forwarded-For. */
static void
op_name(struct access_op *op, struct slice name)
{
	char *field;

	for (size_t i = 0; i < LEN(access_vars); i++)
		if (slice_eq(name, access_vars[i].name)) {
			op->var = &access_vars[i];
			return;
		}
	if (!slice_starts(name, access_field.name))
		return; /* the configuration was refused for it */
	name = slice_from(name, access_field.name.n);
	op->var = &access_field;
	op->arg = (struct slice){ field = xcalloc(1, name.n + 1), name.n };
	for (size_t i = 0; i < name.n; i++)
		field[i] = name.p[i] == '_' ? '-' : name.p[i];
}

static void
access_compile(const char *pattern)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	    "0123456789_";
	size_t n = 1;

	for (const char *p = pattern; *p; p++)
		n += *p == '$';
	access_log.ops = xcalloc(n, sizeof *access_log.ops);
	access_log.n_ops = 0;
	while (*pattern) {
		struct access_op *op = &access_log.ops[access_log.n_ops++];
		op->text = (struct slice){ pattern, strcspn(pattern, "$") };
		pattern += op->text.n;
		if (*pattern != '$')
			break;
		n = strspn(++pattern, letters);
		op_name(op, (struct slice){ pattern, n });
		pattern += n;
	}
}

static void
access_compile_json(void)
{
	access_log.json = true;
	access_log.n_ops = JSON_VARS;
	access_log.ops = xcalloc(JSON_VARS, sizeof *access_log.ops);
	for (size_t i = 0; i < JSON_VARS; i++)
		access_log.ops[i].var = &access_vars[i];
}

/* ---- lines ---- */

static bool
is_plain(char c)
{
	return c >= ' ' && c < 0x7f && c != '"' && c != '\\';
}

/* Takes the bytes that need no escape off the front of *s and adds them. */
static void
plain_add(struct text *t, struct slice *s)
{
	size_t n = 0;

	while (n < s->n && is_plain(s->p[n]))
		n++;
	text_add(t, (struct slice){ s->p, n });
	*s = slice_from(*s, n);
}

static void
hex_add(struct text *t, struct slice prefix, char c)
{
	static const char digits[] = "0123456789ABCDEF";
	unsigned char b = (unsigned char)c;

	text_add(t, prefix);
	text_char(t, digits[b >> 4]);
	text_char(t, digits[b & 0xf]);
}

/* As nginx writes a value: what is not printable ASCII is \xXX. */
static void
value_add(struct text *t, struct slice s)
{
	for (plain_add(t, &s); s.n > 0 && !t->full; plain_add(t, &s)) {
		hex_add(t, S("\\x"), *s.p);
		s = slice_from(s, 1);
	}
}

/* UTF-8 stays; other bytes are taken for Latin-1. RFC 8259 7. */
static void
value_add_json(struct text *t, struct slice s)
{
	for (plain_add(t, &s); s.n > 0 && !t->full; plain_add(t, &s)) {
		const unsigned char *p = (const unsigned char *)s.p;
		size_t n = *p < 0x80 ? 0 : utf8_length(p, p + s.n);

		if (n > 0)
			text_add(t, (struct slice){ s.p, n });
		else if (*s.p == '"' || *s.p == '\\') {
			text_char(t, '\\');
			text_char(t, *s.p);
		} else
			hex_add(t, S("\\u00"), *s.p);
		s = slice_from(s, MAX(n, (size_t)1));
	}
}

static void
line_json(struct text *t, const struct access_op *op, struct slice v)
{
	if (v.n == 0)
		return;
	text_char(t, op == access_log.ops ? '{' : ',');
	text_char(t, '"');
	text_add(t, op->var->name);
	text_add(t, S("\":"));
	if (op->var->bare) {
		text_add(t, v);
		return;
	}
	text_char(t, '"');
	value_add_json(t, v);
	text_char(t, '"');
}

/* One line; of each value at most cut bytes. */
static void
line_add(struct text *t, const struct exchange *x, const struct head *h, size_t cut)
{
	for (size_t i = 0; i < access_log.n_ops && !t->full; i++) {
		const struct access_op *op = &access_log.ops[i];
		struct slice v = op->var ? op->var->get(x, h, op->arg) : S("");

		v.n = MIN(v.n, cut);
		text_add(t, op->text);
		if (access_log.json)
			line_json(t, op, v);
		else if (op->var)
			value_add(t, v.n > 0 ? v : S("-"));
	}
	text_str(t, access_log.json ? "}\n" : "\n");
}

/* ---- writing ---- */

/* At most one warning a minute. */
static void
access_complain(const char *why)
{
	static int64_t said_ms = -MINUTE_S * SECOND_MS;

	if (now_ms - said_ms < MINUTE_S * SECOND_MS)
		return;
	said_ms = now_ms;
	log_warn("access log: %s; %llu lines lost so far", why,
	    (unsigned long long)access_log.lost);
}

static void
access_drop(const char *why)
{
	COUNT(*access_log.dropped, 1);
	access_log.lost++;
	access_complain(why);
}

/* The first n bytes are done with. */
static void
access_eat(size_t n)
{
	if (n == 0)
		return;
	access_log.torn = access_log.p[n - 1] != '\n';
	access_log.n -= n;
	memmove(access_log.p, access_log.p + n, access_log.n);
}

/* What is written at once of rest: whole lines, as many as a pipe takes
 * without mixing them with those of other workers. */
static size_t
access_piece(struct slice rest)
{
	size_t n = MIN(rest.n, (size_t)PIPE_BUF);
	const char *end;

	if (access_log.is_file)
		return rest.n;
	end = memrchr(rest.p, '\n', n); /* always, as line_max is no more */
	return end ? (size_t)(end - rest.p) + 1 : n;
}

/* True: the descriptor takes something now. */
static bool
access_writable(void)
{
	struct pollfd p = { .fd = access_log.fd, .events = POLLOUT };

	return access_log.is_file || poll(&p, 1, 0) > 0;
}

static void
access_syslog(void)
{
	struct slice rest = { access_log.p, access_log.n }, line;

	while (slice_cut(&rest, '\n', &line) && rest.p)
		syslog(LOG_INFO, "%.*s", (int)line.n, line.p);
	access_log.n = 0;
}

/* Like write, to whatever kind of descriptor it is. */
static ssize_t
access_put(struct slice piece)
{
	ssize_t put;

	do
		put = access_log.is_socket
		    ? send(access_log.fd, piece.p, piece.n, MSG_DONTWAIT | MSG_NOSIGNAL)
		    : write(access_log.fd, piece.p, piece.n);
	while (put < 0 && errno == EINTR);
	if (put < 0 && errno != EAGAIN)
		access_complain(strerror(errno));
	return put;
}

/* Writes what the descriptor takes. */
static void
access_write(void)
{
	struct slice rest = { access_log.p, access_log.n };
	ssize_t put;

	while (rest.n > 0 && access_writable()) {
		if ((put = access_put((struct slice){ rest.p, access_piece(rest) })) <= 0)
			break;
		rest = slice_from(rest, (size_t)put);
	}
	access_eat(access_log.n - rest.n);
	access_log.blocked = rest.n > 0;
	access_log.due_ms = now_ms + LOG_RETRY_MS;
}

/* At the end of each turn of the loop: writes if it must, if there is much, or
 * if the first line has waited long enough. */
static void
access_flush(bool force)
{
	bool much = access_log.n > LOG_BUFFER / 2 && !access_log.blocked;

	if (access_log.n == 0 || !(force || much || now_ms >= access_log.due_ms))
		return;
	if (access_log.sink == SINK_SYSLOG)
		access_syslog();
	else
		access_write();
}

/* Milliseconds until a flush is due; -1: none. */
static int
access_due_ms(void)
{
	if (access_log.n == 0)
		return -1;
	return (int)MAX(access_log.due_ms - now_ms, 0);
}

/* One line for a finished exchange; h is its request head, or NULL when what
 * came was none. A line too long for its reader is written with its values
 * cut. */
static void
access_line(const struct exchange *x, const struct head *h)
{
	static const size_t cuts[] = { SIZE_MAX, 256, 48 };

	access_flush(false);
	if (LOG_BUFFER - access_log.n < access_log.line_max) {
		access_drop("its reader is too slow");
		return;
	}
	for (size_t i = 0; i < LEN(cuts); i++) {
		struct text t = { access_log.p + access_log.n, 0, access_log.line_max, false };

		line_add(&t, x, h, cuts[i]);
		if (t.full)
			continue;
		if (access_log.n == 0)
			access_log.due_ms = now_ms + LOG_FLUSH_MS;
		access_log.n += t.n;
		return;
	}
	access_drop("a line is too long");
}

/* ---- opening ---- */

/* Others share the descriptor's flags; one opened anew may be made so that it
 * never blocks. Where that is not allowed, poll alone must do. */
static int
access_own(int fd)
{
	char name[VALUE_TEXT];
	int own;

	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	own = open(name, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (own < 0)
		return fd;
	if (fd > STDERR_FILENO)
		close(fd);
	return own;
}

static void
access_use(int fd)
{
	struct stat st;

	if (access_log.sink == SINK_SYSLOG) {
		access_log.line_max = MIN(LOG_LINE / 2, LOG_BUFFER / 2); /* musl cuts at 1024 */
		return;
	}
	if (fstat(fd, &st) < 0)
		st.st_mode = 0;
	access_log.is_file = S_ISREG(st.st_mode);
	access_log.is_socket = S_ISSOCK(st.st_mode);
	access_log.line_max = MIN(access_log.is_file ? LOG_BUFFER : PIPE_BUF, LOG_BUFFER / 2);
	access_log.fd = access_log.is_file || access_log.is_socket ? fd : access_own(fd);
}

/* The log was reopened: what waits goes to the old descriptor, and what that
 * does not take to the new one, without the rest of a line that was begun. */
static void
access_fd(int fd)
{
	const char *end;

	if (!access_on || access_log.sink == SINK_SYSLOG) {
		close(fd);
		return;
	}
	access_flush(true);
	if (access_log.n > 0 && access_log.torn &&
	    (end = memchr(access_log.p, '\n', access_log.n)))
		access_eat((size_t)(end - access_log.p) + 1);
	if (access_log.fd > STDERR_FILENO)
		close(access_log.fd);
	access_use(fd);
}

/* Opens this worker's access log, if the configuration wants one. dropped
 * counts the lines that were lost. */
static void
access_start(const struct conf *cf, atomic_ullong *dropped)
{
	const char *pattern = cf->log.format;

	access_log.sink = cf->log.access.sink;
	access_log.dropped = dropped;
	access_on = access_log.sink != SINK_OFF;
	if (!access_on)
		return;
	access_log.p = map_zeroed(LOG_BUFFER);
	access_use(cf->log.access.fd);
	for (size_t i = 0; i < LEN(access_formats); i++)
		if (strcmp(pattern, access_formats[i].name) == 0)
			pattern = access_formats[i].pattern;
	if (strcmp(pattern, "json") == 0)
		access_compile_json();
	else
		access_compile(pattern);
}

/* ==== admin ==================================================================
 * Owns    nothing: an answer's body is its taker's.
 * Offers  admin_answer.
 * Calls   base, path, conf out (json_text), board. What /status and /metrics
 *         say is read off the board, whichever worker is asked. */

#define TEXT_TYPE "text/plain; charset=utf-8"
#define PROM_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define US_PER_S  1e6
#define ADMIN_ROUTES 1000 /* that /status shows */
#define US_PER_MS 1e3

static const char *const code_names[] = { "aborted", "1xx", "2xx", "3xx", "4xx", "5xx" };
static const char *const worker_states[] = {
	[WORKER_FREE] = "free",
	[WORKER_STARTING] = "starting",
	[WORKER_READY] = "ready",
	[WORKER_DRAINING] = "draining",
};

/* ---- facts ---- */

/* A number in each worker's record: its name in /status, in /metrics, what it
 * is. */
struct fact {
	const char *name, *metric, *help;
	size_t at;
};

/* Sums over all workers, those that left included. */
#define COUNTED(field) offsetof(struct board_worker, field)
static const struct fact counters[] = {
	{ "accepted", "accepted_total", "Client connections accepted.", COUNTED(accepted) },
	{ "refused", "accept_failures_total", "Accepts that failed for want of descriptors or memory.",
	  COUNTED(refused) },
	{ "retries", "retries_total", "Requests tried again on another instance.", COUNTED(retries) },
	{ "bytes_in", "received_bytes_total", "Bytes of request bodies.", COUNTED(bytes_in) },
	{ "bytes_out", "sent_bytes_total", "Bytes of response bodies.", COUNTED(bytes_out) },
	{ "log_dropped", "log_dropped_total", "Lines of the access log that were dropped.",
	  COUNTED(log_dropped) },
};

/* What is so now. */
static const struct fact gauges[] = {
	{ "connections", "connections", "Client connections now open.", COUNTED(connections) },
	{ "upstream_connections", "upstream_connections",
	  "Connections to instances now open, idle ones included.",
	  COUNTED(upstream_connections) },
};

static uint64_t
counter_of(const struct board_worker *w, size_t at)
{
	return *(const atomic_ullong *)((const char *)w + at);
}

static uint64_t
counter_sum(size_t at)
{
	uint64_t sum = counter_of(&board->gone, at);

	for (size_t i = 0; i < LEN(board->workers); i++)
		sum += counter_of(&board->workers[i], at);
	return sum;
}

static uint64_t
gauge_of(const struct board_worker *w, size_t at)
{
	return *(const atomic_uint *)((const char *)w + at);
}

static uint64_t
gauge_sum(size_t at)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < LEN(board->workers); i++)
		sum += gauge_of(&board->workers[i], at);
	return sum;
}

static uint64_t
code_sum(size_t class)
{
	return counter_sum(COUNTED(codes) + class * sizeof(atomic_ullong));
}

/* Of the newest configuration that was taken; the one at start is 1. */
static unsigned
generation(void)
{
	return board->reloads + 1;
}

/* What an instance is, and why if it is not up. */
enum instance_state { INST_UP, INST_UNRESOLVED, INST_FAILING, INST_TRIAL };
static const char *const instance_states[] = {
	[INST_UP] = "up",
	[INST_UNRESOLVED] = "unresolved",
	[INST_FAILING] = "failing", /* its breaker is open */
	[INST_TRIAL] = "trial",
};

static enum instance_state
instance_state(const struct instance *in, struct text *why)
{
	long long until = instance_open_until(in);

	if (in->board->addrs.n == 0) {
		text_str(why, "its name does not resolve");
		return INST_UNRESOLVED;
	}
	if (until == 0)
		return INST_UP;
	text_uint(why, in->board->fails);
	text_str(why, " failures");
	if (until <= now_ms) {
		text_str(why, ", the next request decides");
		return INST_TRIAL;
	}
	text_str(why, ", tried again in ");
	text_uint(why, (uint64_t)(until - now_ms + SECOND_MS - 1) / SECOND_MS);
	text_str(why, " s");
	return INST_FAILING;
}

/* Mean time to the answer's head. */
static double
instance_latency_ms(const struct instance *in)
{
	unsigned long long n = in->board->requests;

	return n > 0 ? (double)in->board->latency_us / (double)n / US_PER_MS : 0;
}

/* ---- JSON ---- */

/* An object being written: more says whether a comma is due. */
struct js {
	FILE *to;
	bool more;
	int depth;
};

enum { JS_LINES = 3 }; /* so deep a member has a line of its own */

static void
js_key(struct js *j, const char *key)
{
	if (j->more)
		fputc(',', j->to);
	if (j->depth > 0 && j->depth <= JS_LINES)
		fprintf(j->to, "\n%*s", 2 * j->depth, "");
	else if (j->more)
		fputc(' ', j->to);
	if (key)
		fprintf(j->to, "\"%s\": ", key);
	j->more = true;
}

static void
js_open(struct js *j, const char *key, char bracket)
{
	js_key(j, key);
	fputc(bracket, j->to);
	j->more = false;
	j->depth++;
}

static void
js_close(struct js *j, char bracket)
{
	j->depth--;
	if (j->more && j->depth < JS_LINES)
		fprintf(j->to, "\n%*s", 2 * j->depth, "");
	fputc(bracket, j->to);
	j->more = true;
}

static void
js_uint(struct js *j, const char *key, uint64_t v)
{
	js_key(j, key);
	fprintf(j->to, "%llu", (unsigned long long)v);
}

static void
js_text(struct js *j, const char *key, struct slice s)
{
	js_key(j, key);
	json_text(j->to, s);
}

/* Answers by class; of an instance: [0] counts those that never came. */
static void
js_codes(struct js *j, const struct board_instance *bi)
{
	js_open(j, "codes", '{');
	js_uint(j, bi ? "none" : code_names[0], bi ? bi->codes[0] : code_sum(0));
	for (size_t i = 1; i < LEN(code_names); i++)
		js_uint(j, code_names[i], bi ? bi->codes[i] : code_sum(i));
	js_close(j, '}');
}

/* ---- /status ---- */

static void
status_worker(struct js *j, const struct board_worker *w)
{
	js_open(j, NULL, '{');
	js_uint(j, "pid", (uint64_t)w->pid);
	js_text(j, "state", slice_of(worker_states[w->state]));
	for (size_t i = 0; i < LEN(gauges); i++)
		js_uint(j, gauges[i].name, gauge_of(w, gauges[i].at));
	js_uint(j, "requests", w->requests);
	for (size_t i = 0; i < LEN(counters); i++)
		js_uint(j, counters[i].name, counter_of(w, counters[i].at));
	js_close(j, '}');
}

static void
status_listeners(struct js *j, const char *kind, const struct addr *a, int n)
{
	for (int i = 0; i < n; i++) {
		js_open(j, NULL, '{');
		js_text(j, "address", slice_of(a[i].text));
		js_text(j, "kind", slice_of(kind));
		js_close(j, '}');
	}
}

static void
status_instance(struct js *j, const struct instance *in)
{
	char b[CAUSE_MAX];
	struct text why = { b, 0, sizeof b, false };
	const struct board_instance *bi = in->board;

	js_open(j, NULL, '{');
	js_text(j, "address", slice_of(in->addr.text));
	js_text(j, "state", slice_of(instance_states[instance_state(in, &why)]));
	js_text(j, "why", text_slice(&why));
	js_uint(j, "weight", in->weight);
	js_uint(j, "addresses", bi->addrs.n);
	js_uint(j, "in_flight", bi->in_flight);
	js_uint(j, "requests", bi->requests);
	js_uint(j, "failures", bi->failures);
	js_key(j, "latency_ms");
	fprintf(j->to, "%.3f", instance_latency_ms(in));
	js_codes(j, bi);
	js_close(j, '}');
}

static void
status_upstream(struct js *j, const struct upstream *up)
{
	js_open(j, NULL, '{');
	js_text(j, "name", slice_of(up->name));
	js_text(j, "strategy", slice_of(up->balance->name));
	js_open(j, "instances", '[');
	for (int i = 0; i < up->n_instances; i++)
		status_instance(j, &up->instances[i]);
	js_close(j, ']');
	js_close(j, '}');
}

/* What one of print_conditions and print_action writes, as a member. */
static void
status_printed(struct js *j, const char *key, void (*print)(FILE *, const struct route *),
    const struct route *r, struct slice lead)
{
	char *p = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&p, &n);
	struct slice s;

	if (!f)
		return;
	print(f, r);
	if (fclose(f) == 0) {
		s = (struct slice){ p, n };
		s = slice_from(s, slice_starts(s, lead) ? lead.n : 0);
		s.n -= s.n > 0 && s.p[s.n - 1] == '\n';
		js_text(j, key, s);
	}
	free(p);
}

static void
status_routes(struct js *j, const struct route_table *t)
{
	int n = MIN(t->n, ADMIN_ROUTES);

	js_open(j, "routes", '[');
	for (int i = 0; i < n; i++) {
		js_open(j, NULL, '{');
		js_uint(j, "line", t->routes[i].line);
		status_printed(j, "match", print_conditions, &t->routes[i], S(" "));
		status_printed(j, "action", print_action, &t->routes[i], S(" -> "));
		js_close(j, '}');
	}
	js_close(j, ']');
	if (n < t->n)
		js_uint(j, "routes_not_shown", (uint64_t)(t->n - n));
}

static void
status_json(const struct conf *cf, FILE *to)
{
	struct js j = { .to = to };

	js_open(&j, NULL, '{');
	js_text(&j, "version", slice_of(VERSION));
	js_uint(&j, "pid", (uint64_t)getppid());
	js_uint(&j, "uptime_secs", (uint64_t)MAX(now_s - board->started_s, 0));
	js_uint(&j, "generation", generation());
	js_uint(&j, "reloads", board->reloads);
	for (size_t i = 0; i < LEN(gauges); i++)
		js_uint(&j, gauges[i].name, gauge_sum(gauges[i].at));
	js_uint(&j, "requests", counter_sum(COUNTED(requests)));
	for (size_t i = 0; i < LEN(counters); i++)
		js_uint(&j, counters[i].name, counter_sum(counters[i].at));
	js_codes(&j, NULL);
	js_open(&j, "workers", '[');
	for (size_t i = 0; i < LEN(board->workers); i++)
		if (board->workers[i].pid > 0)
			status_worker(&j, &board->workers[i]);
	js_close(&j, ']');
	js_open(&j, "listeners", '[');
	status_listeners(&j, "http", cf->server.listens, cf->server.n_listens);
	status_listeners(&j, "admin", cf->admin.listens, cf->admin.n_listens);
	js_close(&j, ']');
	js_open(&j, "upstreams", '[');
	for (int i = 0; i < cf->n_upstreams; i++)
		status_upstream(&j, &cf->upstreams[i]);
	js_close(&j, ']');
	status_routes(&j, &cf->table);
	js_close(&j, '}');
	fputc('\n', to);
}

/* ---- /status?format=text: blanks part cells and nothing else ---- */

/* s without blanks; `-` for nothing. */
static void
cell(FILE *to, int width, const char *s)
{
	int n = 0;

	for (; *s; s++, n++)
		fputc((unsigned char)*s > ' ' ? *s : '_', to);
	if (n == 0)
		n = fputc('-', to) == '-';
	fprintf(to, "%*s", MAX(width - n, 0), "");
}

/* The widest name and address, so that the columns stand below each other. */
static void
status_widths(const struct conf *cf, int *name, int *address)
{
	for (int u = 0; u < cf->n_upstreams; u++) {
		const struct upstream *up = &cf->upstreams[u];
		*name = MAX(*name, (int)strlen(up->name));
		for (int i = 0; i < up->n_instances; i++)
			*address = MAX(*address, (int)strlen(up->instances[i].addr.text));
	}
}

static void
table_instance(FILE *to, const struct instance *in, int name, int address)
{
	char b[CAUSE_MAX] = "";
	struct text why = { b, 0, sizeof b - 1, false };
	const struct board_instance *bi = in->board;
	enum instance_state state = instance_state(in, &why);

	b[why.n] = '\0';
	cell(to, name + 1, in->up->name);
	cell(to, address + 1, in->addr.text);
	fprintf(to, "%-10s %6u %9u %10llu %8llu %10.3f ", instance_states[state], in->weight,
	    bi->in_flight, bi->requests, bi->failures, instance_latency_ms(in));
	cell(to, 0, b);
	fputc('\n', to);
}

static void
status_text_table(const struct conf *cf, FILE *to)
{
	int name = (int)sizeof "UPSTREAM" - 1, address = (int)sizeof "INSTANCE" - 1;

	fprintf(to, "VERSION PID        UPTIME_SECS GENERATION CONNECTIONS REQUESTS\n"
	    "%-7s %-10d %-11lld %-10u %-11llu %llu\n", VERSION, (int)getppid(),
	    (long long)MAX(now_s - board->started_s, 0), generation(),
	    (unsigned long long)gauge_sum(COUNTED(connections)),
	    (unsigned long long)counter_sum(COUNTED(requests)));
	fprintf(to, "\n%-10s %-8s %11s %10s %14s %14s\n", "WORKER", "STATE", "CONNECTIONS",
	    "REQUESTS", "BYTES_IN", "BYTES_OUT");
	for (size_t i = 0; i < LEN(board->workers); i++) {
		const struct board_worker *w = &board->workers[i];
		if (w->pid > 0)
			fprintf(to, "%-10d %-8s %11u %10llu %14llu %14llu\n", w->pid,
			    worker_states[w->state], w->connections, w->requests,
			    w->bytes_in, w->bytes_out);
	}
	status_widths(cf, &name, &address);
	fprintf(to, "\n%-*s %-*s %-10s %6s %9s %10s %8s %10s %s\n", name, "UPSTREAM", address,
	    "INSTANCE", "STATE", "WEIGHT", "IN_FLIGHT", "REQUESTS", "FAILURES", "LATENCY_MS", "WHY");
	for (int u = 0; u < cf->n_upstreams; u++)
		for (int i = 0; i < cf->upstreams[u].n_instances; i++)
			table_instance(to, &cf->upstreams[u].instances[i], name, address);
}

/* ---- /metrics: Prometheus text format 0.0.4 ---- */

static void
metric_head(FILE *to, const char *name, const char *type, const char *help)
{
	fprintf(to, "# HELP warp_%s %s\n# TYPE warp_%s %s\n", name, help, name, type);
}

static void
metric(FILE *to, const char *name, const char *type, const char *help, uint64_t v)
{
	metric_head(to, name, type, help);
	fprintf(to, "warp_%s %llu\n", name, (unsigned long long)v);
}

static void
label(FILE *to, const char *name, const char *s)
{
	fprintf(to, "%s=\"", name);
	for (; *s; s++)
		if (*s == '\n')
			fputs("\\n", to);
		else
			fprintf(to, "%s%c", *s == '"' || *s == '\\' ? "\\" : "", *s);
	fputc('"', to);
}

static void
metrics_requests(FILE *to)
{
	metric_head(to, "requests_total", "counter",
	    "Requests by class of the answer; aborted: the client left before one.");
	for (size_t i = 0; i < LEN(code_names); i++)
		fprintf(to, "warp_requests_total{code=\"%s\"} %llu\n", code_names[i],
		    (unsigned long long)code_sum(i));
}

/* The last cell of the board holds all that took longer than the one before,
 * so it is +Inf. */
static void
metrics_latency(FILE *to)
{
	static const unsigned limits[LATENCY_BUCKETS] = LATENCY_MS;
	static const char *const name = "warp_request_seconds";
	uint64_t sum = 0;

	metric_head(to, "request_seconds", "histogram",
	    "From the head of the request to the end of the answer.");
	for (size_t i = 0; i < LEN(limits); i++) {
		sum += counter_sum(COUNTED(latency) + i * sizeof(atomic_ullong));
		if (i + 1 < LEN(limits))
			fprintf(to, "%s_bucket{le=\"%g\"} %llu\n", name,
			    limits[i] / (double)SECOND_MS, (unsigned long long)sum);
	}
	fprintf(to, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.6f\n%s_count %llu\n", name,
	    (unsigned long long)sum, name,
	    (double)counter_sum(COUNTED(latency_us)) / US_PER_S, name, (unsigned long long)sum);
}

static double
inst_requests(const struct instance *in)
{
	return (double)in->board->requests;
}

static double
inst_failures(const struct instance *in)
{
	return (double)in->board->failures;
}

static double
inst_seconds(const struct instance *in)
{
	return (double)in->board->latency_us / US_PER_S;
}

static double
inst_in_flight(const struct instance *in)
{
	return (double)in->board->in_flight;
}

static double
inst_up(const struct instance *in)
{
	char b[CAUSE_MAX];
	struct text why = { b, 0, sizeof b, false };

	return instance_state(in, &why) == INST_UP;
}

static const struct {
	const char *name, *type, *help;
	double (*get)(const struct instance *);
} instance_metrics[] = {
	{ "instance_requests_total", "counter", "Answers that came from the instance.",
	  inst_requests },
	{ "instance_failures_total", "counter", "Failures of the instance.", inst_failures },
	{ "instance_response_seconds_total", "counter",
	  "Sum of the times until the head of its answer.", inst_seconds },
	{ "instance_in_flight", "gauge", "Requests now with the instance.", inst_in_flight },
	{ "instance_up", "gauge", "1 when it resolves and its breaker is closed.", inst_up },
};

/* An address that is given twice has one record: one sample. */
static bool
instance_is_twin(const struct instance *in)
{
	for (const struct instance *i = in->up->instances; i < in; i++)
		if (i->board == in->board)
			return true;
	return false;
}

static void
metrics_instances(const struct conf *cf, FILE *to, size_t m)
{
	if (cf->n_upstreams == 0)
		return;
	metric_head(to, instance_metrics[m].name, instance_metrics[m].type,
	    instance_metrics[m].help);
	for (int u = 0; u < cf->n_upstreams; u++)
		for (int i = 0; i < cf->upstreams[u].n_instances; i++) {
			const struct instance *in = &cf->upstreams[u].instances[i];
			if (instance_is_twin(in))
				continue;
			fprintf(to, "warp_%s{", instance_metrics[m].name);
			label(to, "upstream", in->up->name);
			fputc(',', to);
			label(to, "instance", in->addr.text);
			fprintf(to, "} %.15g\n", instance_metrics[m].get(in));
		}
}

static void
metrics_workers(FILE *to)
{
	metric_head(to, "workers", "gauge", "Worker processes by state.");
	for (int s = WORKER_STARTING; s <= WORKER_DRAINING; s++) {
		unsigned n = 0;
		for (size_t i = 0; i < LEN(board->workers); i++)
			n += board->workers[i].pid > 0 && board->workers[i].state == s;
		fprintf(to, "warp_workers{state=\"%s\"} %u\n", worker_states[s], n);
	}
}

static void
metrics(const struct conf *cf, FILE *to)
{
	metric_head(to, "build_info", "gauge", "Always 1; the version is its label.");
	fprintf(to, "warp_build_info{version=\"%s\"} 1\n", VERSION);
	metric(to, "start_time_seconds", "gauge", "When warp was started, Unix time.",
	    (uint64_t)board->started_s);
	metric(to, "reloads_total", "counter", "Configurations taken after the first.",
	    board->reloads);
	metrics_workers(to);
	for (size_t i = 0; i < LEN(gauges); i++)
		metric(to, gauges[i].metric, "gauge", gauges[i].help, gauge_sum(gauges[i].at));
	metrics_requests(to);
	metrics_latency(to);
	for (size_t i = 0; i < LEN(counters); i++)
		metric(to, counters[i].metric, "counter", counters[i].help,
		    counter_sum(counters[i].at));
	for (size_t m = 0; m < LEN(instance_metrics); m++)
		metrics_instances(cf, to, m);
}

/* ---- endpoints ---- */

static void
print_ok(const struct conf *cf, FILE *to)
{
	(void)cf;
	fputs("ok\n", to);
}

/* A row answers GET with what print writes, or is a verb to be POSTed. */
struct admin_end {
	const char *path, *help;
	const char *type;
	void (*print)(const struct conf *, FILE *);      /* NULL: the list of these */
	void (*print_text)(const struct conf *, FILE *); /* for ?format=text */
	bool is_verb, later; /* later: the master does not know it yet */
};

#define VERB(name, help)  { "/" name, help, .is_verb = true }
#define LATER(name, help) { "/" name, help, .is_verb = true, .later = true }

static const struct admin_end admin_ends[] = {
	{ "/", "this list", TEXT_TYPE, NULL, NULL, false, false },
	{ "/status", "what is going on, as JSON; ?format=text: as tables",
	  "application/json", status_json, status_text_table, false, false },
	{ "/metrics", "the same for Prometheus", PROM_TYPE, metrics, NULL, false, false },
	{ "/health", "ok", TEXT_TYPE, print_ok, NULL, false, false },
	{ "/config", "the configuration in force, secrets masked", "application/json",
	  conf_print_json, NULL, false, false },
	VERB("reload", "read the configuration again"),
	VERB("quit", "answer what was asked, then stop"),
	VERB("stop", "stop now"),
	VERB("upgrade", "run the binary that lies there now"),
	LATER("restart", "NAME: a process"),
	LATER("start", "NAME: a process"),
	LATER("drain", "UPSTREAM/INSTANCE: no new requests"),
	LATER("enable", "UPSTREAM/INSTANCE: requests again"),
	LATER("purge", "KEY or PREFIX*: out of the cache"),
};
#undef VERB
#undef LATER

static void
print_ends(FILE *to)
{
	for (size_t i = 0; i < LEN(admin_ends); i++)
		if (!admin_ends[i].later)
			fprintf(to, "%-4s %-9s %s\n", admin_ends[i].is_verb ? "POST" : "GET",
			    admin_ends[i].path, admin_ends[i].help);
}

/* NULL: there is none. What is to come takes a name behind it. */
static const struct admin_end *
admin_end_find(struct slice path)
{
	for (size_t i = 0; i < LEN(admin_ends); i++) {
		struct slice have = slice_of(admin_ends[i].path);
		if (slice_eq(path, have) || (admin_ends[i].later && slice_starts(path, have) &&
		    path.p[have.n] == '/'))
			return &admin_ends[i];
	}
	return NULL;
}

/* 200: e may answer. Who is not known learns nothing, not even what there is. */
static int
admin_judge(const struct admin_request *rq, const struct conf *cf, const struct admin_end *e)
{
	bool reads = rq->method == M_GET || rq->method == M_HEAD;

	if (!rq->is_unix && cf->admin.token.n == 0)
		return 403;
	if (!rq->is_unix && !slice_eq_secret(rq->token, cf->admin.token))
		return 401;
	if (!e)
		return 404;
	if (e->is_verb ? rq->method != M_POST : !reads)
		return 405;
	return e->later ? 501 : 200;
}

/* Says why not, and sets the lines that belong to such an answer. */
static void
admin_refuse(struct admin_reply *reply, const struct admin_end *e, FILE *to)
{
	static const struct {
		int status;
		const char *text;
	} why[] = {
		{ 401, "give admin.token, as X-Admin-Token or as a Bearer token" },
		{ 403, "admin.token is not set: without it only the unix socket answers" },
		{ 404, "not found; there is" },
		{ 405, "wrong method; there is" },
		{ 501, "not supported yet" },
	};

	for (size_t i = 0; i < LEN(why); i++)
		if (why[i].status == reply->status)
			fprintf(to, "%s\n", why[i].text);
	if (reply->status == 404 || reply->status == 405)
		print_ends(to);
	if (reply->status == 401)
		reply->extra = "WWW-Authenticate: Bearer\r\n";
	if (reply->status == 405)
		reply->extra = e->is_verb ? "Allow: POST\r\n" : "Allow: GET, HEAD\r\n";
}

static void
admin_print(const struct admin_request *rq, const struct conf *cf, const struct admin_end *e,
    struct admin_reply *reply, FILE *to)
{
	reply->content_type = e->type;
	if (e->print_text && query_has(rq->query, S("format"), S("text"))) {
		reply->content_type = TEXT_TYPE;
		e->print_text(cf, to);
	} else if (e->print)
		e->print(cf, to);
	else {
		fputs("warp " VERSION "\n\n", to);
		print_ends(to);
	}
}

/* Fills *reply; its body is the caller's to free. With a verb it has none: the
 * master's word is the answer. */
static void
admin_answer(const struct admin_request *rq, const struct conf *cf, struct admin_reply *reply)
{
	const struct admin_end *e = admin_end_find(rq->path);
	FILE *to;

	*reply = (struct admin_reply){ .status = admin_judge(rq, cf, e), .content_type = TEXT_TYPE };
	if (reply->status == 200 && e->is_verb) {
		reply->verb = e->path + 1;
		return;
	}
	if (!(to = open_memstream(&reply->body, &reply->n))) {
		reply->status = 503;
		return;
	}
	if (reply->status == 200)
		admin_print(rq, cf, e, reply, to);
	else
		admin_refuse(reply, e, to);
	if (fclose(to) != 0) { /* out of memory */
		free(reply->body);
		*reply = (struct admin_reply){ .status = 503, .content_type = TEXT_TYPE };
	}
}

/* ==== heads ==================================================================
 * Owns    the text of the head being written, and the heads being read.
 * Offers  heads_open, client_of, request_write, response_write, interim_write.
 * Calls   base, http, path, addr, clock. What one side said becomes what the
 *         other is told: RFC 9110 7.6, RFC 9112 3, RFC 7239. */

#define HTTP_PORT 80 /* not said in Host */

static const struct conf *conf;  /* this worker's */
static struct head req, res;     /* parsed last; see exchange_request */
static struct text head_out;     /* one head on its way into a send */

static void
heads_open(const struct conf *cf)
{
	conf = cf;
	head_out.cap = cf->server.max_header_bytes + HEAD_ADDED_MAX;
	head_out.p = map_zeroed(head_out.cap);
}

static void
line_write(struct text *t, struct slice name, struct slice value)
{
	text_add(t, name);
	text_add(t, S(": "));
	text_add(t, value);
	text_add(t, S("\r\n"));
}

/* The lines that travel on, neighbours copied at once. */
static void
fields_write(struct text *t, const struct head *h)
{
	const char *start = NULL, *end = NULL;

	for (int i = 0; i < h->n; i++) {
		const struct field *f = &h->f[i];
		if (f->drop)
			continue;
		if (f->start != end) {
			text_add(t, (struct slice){ start, (size_t)(end - start) });
			start = f->start;
		}
		end = f->end;
	}
	text_add(t, (struct slice){ start, (size_t)(end - start) });
}

static void
head_drop(struct head *h, enum field_id id)
{
	if (h->count[id] == 0)
		return;
	for (int i = h->first[id] - 1; i < h->n; i++)
		if (h->f[i].id == id)
			h->f[i].drop = true;
}

static void
head_drop_name(struct head *h, struct slice name)
{
	for (int i = 0; i < h->n; i++)
		if (slice_ieq(h->f[i].name, name))
			h->f[i].drop = true;
}

/* What the route replaces or removes does not come from the peer. */
static void
head_edit(struct head *h, const struct pairs *add, const struct slices *remove)
{
	for (int i = 0; i < add->n; i++)
		head_drop_name(h, add->v[i].name);
	for (int i = 0; i < remove->n; i++)
		head_drop_name(h, remove->v[i]);
}

static bool
is_named(struct slice name, const struct pairs *add, const struct slices *remove)
{
	for (int i = 0; i < add->n; i++)
		if (slice_ieq(add->v[i].name, name))
			return true;
	for (int i = 0; i < remove->n; i++)
		if (slice_ieq(remove->v[i], name))
			return true;
	return false;
}

/* ---- who asks ---- */

/* One member of X-Forwarded-For: an address, perhaps with a port. */
static bool
forwarded_ip(struct slice item, struct ip *ip)
{
	const char *colon = item.n ? memchr(item.p, ':', item.n) : NULL, *close;

	if (item.n > 0 && item.p[0] == '[') {
		close = memchr(item.p, ']', item.n);
		return close && ip_parse((struct slice){ item.p + 1,
		    (size_t)(close - item.p) - 1 }, ip);
	}
	if (colon && !memchr(colon + 1, ':', item.n - (size_t)(colon + 1 - item.p)))
		item.n = (size_t)(colon - item.p);
	return ip_parse(item, ip);
}

/* Takes the last member off a comma list. */
static bool
list_last(struct slice *list, struct slice *item)
{
	const char *comma;

	if (!list->p)
		return false;
	comma = list->n ? memrchr(list->p, ',', list->n) : NULL;
	if (comma) {
		*item = slice_trim(slice_from(*list, (size_t)(comma - list->p) + 1));
		list->n = (size_t)(comma - list->p);
	} else {
		*item = slice_trim(*list);
		*list = (struct slice){ NULL, 0 };
	}
	return true;
}

/* The address to believe: the peer's, or behind trusted proxies the last one
 * that is not itself trusted. */
static struct ip
client_of(const struct ip *peer, const struct head *h)
{
	struct ip client = *peer, ip;

	if (!cidrs_have(&conf->server.trusted, peer))
		return client;
	for (int i = h->n - 1; i >= 0; i--) {
		struct slice list = h->f[i].value, item;
		if (h->f[i].id != F_X_FORWARDED_FOR)
			continue;
		while (list_last(&list, &item)) {
			if (!forwarded_ip(item, &ip))
				return client;
			client = ip;
			if (!cidrs_have(&conf->server.trusted, &ip))
				return client;
		}
	}
	return client;
}

/* ---- request ---- */

struct forward {
	struct text *t;
	const struct exchange *x;
	const struct head *h;
	bool trusted, edited;
};

static bool
forward_skips(const struct forward *fw, struct slice name)
{
	return fw->edited && is_named(name, &fw->x->route->add_headers,
	    &fw->x->route->remove_headers);
}

/* A line warp vouches for; a trusted proxy's own word is kept. */
static void
forward_line(const struct forward *fw, struct slice name, enum field_id id, struct slice value)
{
	if (forward_skips(fw, name))
		return;
	if (fw->trusted && fw->h->count[id] == 1)
		value = head_field(fw->h, id)->value;
	if (value.n > 0)
		line_write(fw->t, name, value);
}

static void
forward_chain(const struct forward *fw, struct slice name, enum field_id id, struct slice own)
{
	bool first = true;

	if (forward_skips(fw, name) || (own.n == 0 && (!fw->trusted || !fw->h->count[id])))
		return;
	text_add(fw->t, name);
	text_add(fw->t, S(": "));
	for (int i = 0; fw->trusted && i < fw->h->n; i++) {
		if (fw->h->f[i].id != id || fw->h->f[i].value.n == 0)
			continue;
		text_add(fw->t, first ? S("") : S(", "));
		text_add(fw->t, fw->h->f[i].value);
		first = false;
	}
	if (own.n > 0) {
		text_add(fw->t, first ? S("") : S(", "));
		text_add(fw->t, own);
	}
	text_add(fw->t, S("\r\n"));
}

/* for=, host= and proto= of RFC 7239 4; v6 and odd hosts are quoted. */
static void
forwarded_write(struct text *t, const struct ip *peer, struct slice host)
{
	if (ip_is_none(peer))
		text_add(t, S("for=unknown"));
	else {
		text_str(t, ip_is_v4(peer) ? "for=" : "for=\"[");
		ip_text(t, peer);
		text_str(t, ip_is_v4(peer) ? "" : "]\"");
	}
	if (host.n > 0) {
		bool quote = !is_token(host);
		text_str(t, quote ? ";host=\"" : ";host=");
		text_add(t, host);
		text_str(t, quote ? "\"" : "");
	}
	text_add(t, S(";proto=http"));
}

#define FORWARD_TEXT 512 /* one address and one host */

static void
forward_write(const struct forward *fw)
{
	const struct conn *c = fw->x->c;
	char b[FORWARD_TEXT], port[8];
	struct text t = { b, 0, sizeof b, false }, pt = { port, 0, sizeof port, false };

	if (conf->middleware.forward_headers) {
		ip_text(&t, &c->peer);
		forward_chain(fw, S("X-Forwarded-For"), F_X_FORWARDED_FOR, text_slice(&t));
		forward_line(fw, S("X-Forwarded-Proto"), F_X_FORWARDED_PROTO, S("http"));
		forward_line(fw, S("X-Forwarded-Host"), F_X_FORWARDED_HOST, fw->x->host);
		if (c->listener->port > 0)
			text_uint(&pt, c->listener->port);
		forward_line(fw, S("X-Forwarded-Port"), F_X_FORWARDED_PORT, text_slice(&pt));
		t.n = 0;
		ip_text(&t, &fw->x->client);
		if (t.n > 0 && !forward_skips(fw, S("X-Real-IP")))
			line_write(fw->t, S("X-Real-IP"), text_slice(&t));
	}
	if (conf->middleware.forwarded) {
		t.n = 0;
		forwarded_write(&t, &c->peer, fw->x->host);
		forward_chain(fw, S("Forwarded"), F_FORWARDED, t.full ? S("") : text_slice(&t));
	}
}

#define TWIN_MAX 64 /* bytes of a name that may be a twin */

/* `X_Real_IP` and its like: backends that turn both signs into one would take
 * them for fields that warp vouches for, sets or removes. */
static void
head_drop_twins(struct head *h, const struct route *r)
{
	char b[TWIN_MAX];

	for (int i = 0; i < h->n; i++) {
		struct field *f = &h->f[i];
		struct slice name = { b, f->name.n };

		if (f->id != F_OTHER || name.n > sizeof b || !memchr(f->name.p, '_', name.n))
			continue;
		for (size_t k = 0; k < name.n; k++)
			b[k] = f->name.p[k] == '_' ? '-' : f->name.p[k];
		if (field_id_of(name) != F_OTHER ||
		    is_named(name, &r->add_headers, &r->remove_headers))
			f->drop = true;
	}
}

/* Fields that warp writes itself, or that only a trusted peer may send. */
static void
request_drop(struct head *h, const struct exchange *x, bool trusted)
{
	static const enum field_id forwards[] = { F_X_FORWARDED_FOR, F_X_FORWARDED_HOST,
		F_X_FORWARDED_PORT, F_X_FORWARDED_PROTO, F_X_REAL_IP };

	head_hop_by_hop(h);
	head_drop_twins(h, x->route);
	head_drop(h, F_HOST);
	for (size_t i = 0; i < LEN(forwards); i++)
		if (!trusted || conf->middleware.forward_headers)
			head_drop(h, forwards[i]);
	if (!trusted || conf->middleware.forwarded)
		head_drop(h, F_FORWARDED);
	if (conf->server.request_id)
		head_drop(h, F_X_REQUEST_ID);
	if (x->route->require_auth)
		head_drop(h, F_X_ADMIN_TOKEN);
	if (!x->expect || x->spool)
		head_drop(h, F_EXPECT);
	if (x->up.chunk_out || x->spool)
		head_drop(h, F_CONTENT_LENGTH);
	if (!x->up.chunk_out)
		head_drop(h, F_TRAILER);
	head_edit(h, &x->route->add_headers, &x->route->remove_headers);
}

/* The path behind the matched part, or with that part rewritten; false: it is
 * too long, or no longer a path. */
static bool
rewrite_apply(struct text *t, const struct route *r, struct slice path)
{
	enum { GROUPS = 10 };
	regmatch_t m[GROUPS];
	struct slice w = r->rewrite;
	size_t from = 0, to = r->path.n;

	if (r->path_kind == PATH_REGEX) {
		if (regexec(&r->regex, path.p, GROUPS, m, 0) != 0)
			return false;
		from = (size_t)m[0].rm_so;
		to = (size_t)m[0].rm_eo;
	} else if (r->path_kind == PATH_ANY)
		to = r->has_rewrite ? path.n : 0;
	text_add(t, (struct slice){ path.p, from });
	for (size_t i = 0; r->has_rewrite && i < w.n; i++) {
		unsigned g = i + 1 < w.n ? (unsigned)(unsigned char)w.p[i + 1] - '0' : GROUPS;
		if (w.p[i] != '$' || g >= GROUPS || r->path_kind != PATH_REGEX) {
			text_char(t, w.p[i]);
			continue;
		}
		if (m[g].rm_so >= 0)
			text_add(t, (struct slice){ path.p + m[g].rm_so,
			    (size_t)(m[g].rm_eo - m[g].rm_so) });
		i++;
	}
	text_add(t, slice_from(path, to));
	return !t->full;
}

/* The request target as the upstream gets it: the client's own bytes, unless
 * the route strips or rewrites; then the normalised path, encoded again. */
static bool
target_write(struct text *t, const struct exchange *x, const struct head *h)
{
	static char buf[TARGET_MAX];
	struct text path = { buf, 0, sizeof buf, false };
	struct path_view view;
	struct slice p;

	if (h->form == TARGET_ORIGIN && !x->route->strip_prefix && !x->route->has_rewrite) {
		text_add(t, h->target);
		return true;
	}
	if (!x->route->strip_prefix && !x->route->has_rewrite) {
		text_add(t, h->path);
	} else {
		if (path_normalise(h->path, &view) < 0 ||
		    !rewrite_apply(&path, x->route, view.path))
			return false;
		p = text_slice(&path);
		while (p.n > 1 && p.p[0] == '/' && p.p[1] == '/')
			p = slice_from(p, 1); /* would look like an authority */
		if (p.n == 0 || p.p[0] != '/')
			text_char(t, '/');
		path_encode(t, p);
	}
	if (h->has_query) {
		text_char(t, '?');
		text_add(t, h->query);
	}
	return true;
}

/* Host of the upstream's own name: a backend on a unix socket has none. */
static struct slice
upstream_host(const struct instance *in)
{
	const struct addr *a = &in->addr;

	if (!a->host)
		return S("localhost");
	return slice_of(a->port == HTTP_PORT && !strchr(a->host, ':') ? a->host : a->text);
}

static void
host_write(struct text *t, const struct exchange *x, bool edited)
{
	const struct upstream *up = x->inst->up;
	struct slice host = x->host;

	if (edited && is_named(S("Host"), &x->route->add_headers, &(struct slices){ 0 }))
		return;
	if (up->host_header == HOST_TEXT)
		host = up->host_text;
	else if (up->host_header == HOST_UPSTREAM || !host.p)
		host = upstream_host(x->inst);
	line_write(t, S("Host"), host);
}

static void
pairs_write(struct text *t, const struct pairs *p)
{
	for (int i = 0; i < p->n; i++)
		line_write(t, p->v[i].name, p->v[i].value);
}

/* How the body goes and what becomes of the connection. */
static void
request_framing(struct text *t, const struct exchange *x, const struct head *h)
{
	if (x->up.chunk_out)
		text_add(t, S("Transfer-Encoding: chunked\r\n"));
	if (x->spool) {
		text_add(t, S("Content-Length: "));
		text_uint(t, x->spool->size);
		text_add(t, S("\r\n"));
	}
	if (x->upgrade) {
		text_add(t, S("Connection: Upgrade\r\n"));
		line_write(t, S("Upgrade"), head_field(h, F_UPGRADE)->value);
	} else if (x->inst->up->keepalive == 0 || x->inst->up->proxy_out != PROXY_OUT_NONE)
		text_add(t, S("Connection: close\r\n"));
}

/* The head of x as x->inst is to see it. False: it does not fit, or its path
 * is none after rewriting. */
static bool
request_write(struct text *t, const struct exchange *x, struct head *h)
{
	const struct route *r = x->route;
	bool trusted = conf->server.trusted.n > 0 &&
	    cidrs_have(&conf->server.trusted, &x->c->peer);
	struct forward fw = { t, x, h, trusted, r->add_headers.n + r->remove_headers.n > 0 };

	request_drop(h, x, trusted);
	text_add(t, h->method_text);
	text_char(t, ' ');
	if (!target_write(t, x, h))
		return false;
	text_add(t, S(" HTTP/1.1\r\n"));
	host_write(t, x, fw.edited);
	fields_write(t, h);
	forward_write(&fw);
	if (conf->middleware.via)
		line_write(t, S("Via"), h->minor ? S("1.1 warp") : S("1.0 warp"));
	if (conf->server.request_id && !forward_skips(&fw, S("X-Request-Id")))
		line_write(t, S("X-Request-Id"), slice_of(x->id));
	pairs_write(t, &r->add_headers);
	request_framing(t, x, h);
	text_add(t, S("\r\n"));
	return !t->full;
}

/* ---- response ---- */

/* What the client is to know of the connection. RFC 9112 9.3. */
static void
connection_write(struct text *t, const struct exchange *x)
{
	if (!x->keep)
		text_add(t, S("Connection: close\r\n"));
	else if (x->minor == 0)
		text_add(t, S("Connection: keep-alive\r\n"));
}

static void
status_write(struct text *t, int status, struct slice reason)
{
	text_add(t, S("HTTP/1.1 "));
	text_uint(t, (unsigned)status);
	text_char(t, ' ');
	text_add(t, reason);
	text_add(t, S("\r\n"));
}

/* The response head as the client is to see it. False: it does not fit. */
static bool
response_write(struct text *t, const struct exchange *x, struct head *h)
{
	const struct route *r = x->route;

	head_hop_by_hop(h);
	if (x->down.chunk_out || x->down.body.kind == BODY_CHUNKED || h->status == 204)
		head_drop(h, F_CONTENT_LENGTH);
	if (!x->down.chunk_out)
		head_drop(h, F_TRAILER);
	head_edit(h, &r->add_response_headers, &r->remove_response_headers);
	status_write(t, h->status, h->reason);
	fields_write(t, h);
	if (h->count[F_DATE] == 0 && !is_named(S("Date"), &r->add_response_headers, &r->remove_response_headers))
		line_write(t, S("Date"), clock_date());
	if (conf->middleware.via)
		line_write(t, S("Via"), h->minor ? S("1.1 warp") : S("1.0 warp"));
	pairs_write(t, &r->add_response_headers);
	if (x->down.chunk_out)
		text_add(t, S("Transfer-Encoding: chunked\r\n"));
	if (h->status == 101) {
		text_add(t, S("Connection: Upgrade\r\n"));
		if (h->count[F_UPGRADE] > 0)
			line_write(t, S("Upgrade"), head_field(h, F_UPGRADE)->value);
	} else
		connection_write(t, x);
	text_add(t, S("\r\n"));
	return !t->full;
}

/* A 1xx on its way through. */
static bool
interim_write(struct text *t, struct head *h)
{
	head_hop_by_hop(h);
	head_drop(h, F_CONTENT_LENGTH);
	status_write(t, h->status, h->reason);
	fields_write(t, h);
	text_add(t, S("\r\n"));
	return !t->full;
}

/* ==== answers ================================================================
 * Owns    the text of the error page being made.
 * Offers  answer_error, answer_write.
 * Calls   base, http, heads. What warp says when no backend does. */

#define ERROR_TEXT_MAX 1024

static void
html_add(struct text *t, const char *s)
{
	for (; *s; s++)
		switch (*s) {
		case '<': text_add(t, S("&lt;")); break;
		case '>': text_add(t, S("&gt;")); break;
		case '&': text_add(t, S("&amp;")); break;
		default: text_char(t, *s);
		}
}

static void
json_add(struct text *t, const char *s)
{
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			text_char(t, '\\');
		text_char(t, (unsigned char)*s < ' ' ? ' ' : *s);
	}
}

/* JSON for who asks for it and not for HTML as well. */
static bool
wants_json(const struct head *h)
{
	bool json = false;

	for (int i = 0; h && i < h->n; i++) {
		if (h->f[i].id != F_ACCEPT)
			continue;
		if (memmem(h->f[i].value.p, h->f[i].value.n, "text/html", 9))
			return false;
		json |= memmem(h->f[i].value.p, h->f[i].value.n, "json", 4) != NULL;
	}
	return json;
}

static const struct error_page *
error_page(int status, bool json)
{
	for (int i = 0; i < conf->n_pages; i++)
		if (conf->pages[i].status == status && conf->pages[i].json == json)
			return &conf->pages[i];
	return NULL;
}

static void
error_text(struct text *t, int status, bool json, const char *cause)
{
	if (json) {
		text_fmt(t, "{\"status\":%d,\"error\":\"%s\"", status, status_text(status));
		if (*cause) {
			text_str(t, ",\"cause\":\"");
			json_add(t, cause);
			text_char(t, '"');
		}
		text_str(t, "}\n");
		return;
	}
	text_fmt(t, "<!doctype html>\n<title>%d %s</title>\n<h1>%d %s</h1>\n", status,
	    status_text(status), status, status_text(status));
	if (*cause) {
		text_str(t, "<p>");
		html_add(t, cause);
		text_str(t, "</p>\n");
	}
}

/* The error in the words and the form the client asked for. The body lies in
 * a static buffer: good until the next one. */
static struct answer
answer_error(const struct head *h, int status, const char *cause)
{
	static char buf[ERROR_TEXT_MAX];
	struct text t = { buf, 0, sizeof buf, false };
	bool json = wants_json(h);
	const struct error_page *page = error_page(status, json);

	if (!page)
		error_text(&t, status, json, conf->server.show_errors ? cause : "");
	return (struct answer){
		.status = status,
		.content_type = json ? S("application/json") : S("text/html; charset=utf-8"),
		.body = page ? page->body : text_slice(&t),
	};
}

/* A line that the route may replace or remove. */
static void
answer_line(struct text *t, const struct route *r, struct slice name, struct slice value)
{
	if (!r || !is_named(name, &r->add_response_headers, &r->remove_response_headers))
		line_write(t, name, value);
}

/* The head of a made-up answer. route is NULL before one is chosen. */
static bool
answer_write(struct text *t, const struct exchange *x, const struct answer *a)
{
	status_write(t, a->status, slice_of(status_text(a->status)));
	if (conf->server.server_tokens)
		answer_line(t, x->route, S("Server"), S("warp/" VERSION));
	answer_line(t, x->route, S("Date"), clock_date());
	if (a->content_type.n > 0)
		answer_line(t, x->route, S("Content-Type"), a->content_type);
	if (a->status != 204 && a->status != 304) {
		text_add(t, S("Content-Length: "));
		text_uint(t, a->body.n);
		text_add(t, S("\r\n"));
	}
	text_add(t, a->extra);
	if (x->route)
		pairs_write(t, &x->route->add_response_headers);
	connection_write(t, x);
	text_add(t, S("\r\n"));
	return !t->full;
}

/* ==== pipe ===================================================================
 * Owns    kernel pipes for splicing: big bodies go from socket to socket
 *         without passing through us, at 0.6 of the CPU that copying takes.
 * Offers  pipe_take, pipe_give, pipe_fill, pipe_drain.
 * Calls   chan. */

static struct pipe pipes[SPLICE_PIPES], *pipes_free;
static unsigned n_pipes;

/* An empty one; NULL: all are in use, or there are no descriptors. */
static struct pipe *
pipe_take(void)
{
	struct pipe *p = pipes_free;
	int fds[2];

	if (p) {
		pipes_free = p->next;
		return p;
	}
	if (n_pipes == SPLICE_PIPES || pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0)
		return NULL;
	fcntl(fds[1], F_SETPIPE_SZ, SPLICE_BYTES); /* smaller is only slower */
	p = &pipes[n_pipes++];
	*p = (struct pipe){ .r = fds[0], .w = fds[1] };
	return p;
}

/* Takes p back; bytes that nobody wants any more are thrown away. */
static void
pipe_give(struct pipe *p)
{
	char rest[BLOCK_SMALL_BYTES];

	if (!p)
		return;
	while (p->n > 0 && read(p->r, rest, sizeof rest) > 0)
		;
	p->n = 0;
	p->next = pipes_free;
	pipes_free = p;
}

/* From the socket, at most max bytes. As side_fill. */
static ssize_t
pipe_fill(struct pipe *p, struct side *from, size_t max)
{
	ssize_t got;

	do
		got = splice(from->ch.w.fd, NULL, p->w, NULL, max, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
	while (got < 0 && errno == EINTR);
	if (got > 0) {
		p->n += (uint32_t)got;
		return got;
	}
	if (got < 0 && errno == EAGAIN)
		return 0;
	from->ch.broken |= got < 0;
	from->ch.eof = true;
	return -1;
}

/* Into the socket, what it takes. False: the peer is gone. */
static bool
pipe_drain(struct pipe *p, struct chan *to)
{
	ssize_t put;

	do
		put = splice(p->r, NULL, to->w.fd, NULL, p->n, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
	while (put < 0 && errno == EINTR);
	if (put > 0)
		p->n -= (uint32_t)put;
	else if (put == 0 || errno != EAGAIN)
		to->broken = true;
	return !to->broken;
}

/* ==== flow ===================================================================
 * Owns    nothing: a flow is its exchange's.
 * Offers  flow_take, flow_relay, flow_tunnel.
 * Calls   http, buf, chan, pipe. One direction of an exchange: a body is read from
 *         one side, unframed, framed as the other needs it, and sent. What
 *         the taker does not take stops the reading: nothing piles up. */

enum { TAIL_PIECES = 3, FLOW_PIECES = 2 + TAIL_PIECES };

enum relay {
	RELAY_WAIT,     /* for either side */
	RELAY_DONE,     /* the body is with the taker's chan */
	RELAY_SHORT,    /* the giver left before the end */
	RELAY_BAD,      /* what comes is no body */
	RELAY_TOO_BIG,  /* or more than its limit */
	RELAY_REFUSED   /* the taker left */
};

/* Decodes chunks in place; brings memory when there are trailers. -1: bad. */
static ssize_t
flow_decode(struct flow *f, char *p, size_t n, size_t *content)
{
	struct text t = { NULL, 0, 0, false };
	size_t more = 0;
	ssize_t used, rest;

	if (f->trailers)
		t = (struct text){ f->trailers->data, f->trailers_n, f->trailers->cap, false };
	used = chunk_decode(&f->body, p, n, content, &t);
	f->trailers_n = (uint32_t)t.n;
	if (used < 0 || !f->body.need_trailers || f->trailers)
		return used;
	f->trailers = block_take(BLOCK_SMALL);
	f->body.need_trailers = false;
	rest = flow_decode(f, p + used, n - (size_t)used, &more);
	return rest < 0 ? -1 : used + rest;
}

/* Puts the chunk's size line before and CRLF behind *n bytes at p: there is
 * headroom, and what stood behind is used up or tailroom. */
static char *
flow_frame(char *p, size_t *n)
{
	char size[HEADROOM];
	struct text t = { size, 0, sizeof size, false };

	text_hex(&t, *n, 1);
	text_add(&t, S("\r\n"));
	memcpy(p + *n, "\r\n", 2);
	memcpy(p - t.n, size, t.n);
	*n += t.n + 2;
	return p - t.n;
}

static int
flow_tail(const struct flow *f, struct iovec *v)
{
	int n = 0;

	v[n++] = (struct iovec){ "0\r\n", 3 };
	if (f->trailers_n > 0)
		v[n++] = (struct iovec){ f->trailers->data, f->trailers_n };
	v[n++] = (struct iovec){ "\r\n", 2 };
	return n;
}

static bool
flow_is_too_big(const struct flow *f)
{
	return f->limit > 0 && f->body.total > f->limit;
}

/* Makes of what was read the pieces to send; *eaten bytes of in are used up
 * then. Returns how many pieces, -1 when the body is malformed or too big. */
static int
flow_take(struct flow *f, const struct side *from, struct iovec *v, size_t *eaten)
{
	size_t n = MIN(from->in.n, (uint32_t)RELAY_BYTES), content = 0;
	char *p = n > 0 ? buf_p(&from->in) : NULL;
	ssize_t used = 0;
	int k = 0;

	if (n > 0 && !f->body.done && f->body.kind == BODY_CHUNKED) {
		if ((used = flow_decode(f, p, n, &content)) < 0)
			return -1;
	} else if (n > 0 && !f->body.done)
		used = (ssize_t)(content = body_take(&f->body, n));
	*eaten = (size_t)used;
	if (flow_is_too_big(f))
		return -1;
	if (content > 0 && f->chunk_out)
		p = flow_frame(p, &content);
	if (content > 0)
		v[k++] = (struct iovec){ p, content };
	if (f->body.kind == BODY_CLOSE && from->ch.eof && !from->ch.broken &&
	    *eaten == from->in.n)
		f->body.done = true;
	if (f->body.done && f->chunk_out)
		k += flow_tail(f, v + k);
	return k;
}

/* Nothing is in hand, and enough is still to come in one piece. */
static bool
flow_may_splice(const struct flow *f, const struct side *from)
{
	return f->body.kind == BODY_LENGTH && f->body.left >= SPLICE_MIN && !f->chunk_out &&
	    from->in.n == 0 && from->ch.w.fd >= 0;
}

/* The pipe's bytes first, then at most one reading. */
static enum relay
flow_splice(struct flow *f, struct side *from, struct chan *to, bool *ready)
{
	struct pipe *p = f->pipe;
	ssize_t got = 0;

	if (p->n == 0 && *ready) {
		*ready = false;
		got = pipe_fill(p, from, (size_t)MIN(f->body.left, (uint64_t)SPLICE_BYTES));
		if (got > 0)
			body_take(&f->body, (size_t)got);
	}
	if (p->n > 0 && !pipe_drain(p, to))
		return RELAY_REFUSED;
	if (p->n > 0)
		return RELAY_WAIT;
	pipe_give(p);
	f->pipe = NULL;
	return f->body.done ? RELAY_DONE : got < 0 ? RELAY_SHORT : RELAY_WAIT;
}

/* Moves what there is, after head if that is given; reads once, and only when
 * *ready. */
static enum relay
flow_relay(struct flow *f, struct side *from, struct chan *to, const struct text *head,
    bool *ready)
{
	struct iovec v[1 + FLOW_PIECES];
	size_t eaten;
	int n, k;

	if (!f->pipe && !head && *ready && to->out.n == 0 && flow_may_splice(f, from))
		f->pipe = pipe_take();
	if (f->pipe)
		return flow_splice(f, from, to, ready);
	while (to->out.n == 0) {
		n = 0;
		if (from->in.n == 0 && !f->body.done && *ready) {
			*ready = false;
			side_fill(from);
		}
		if (head)
			v[n++] = (struct iovec){ head->p, head->n };
		head = NULL;
		if ((k = flow_take(f, from, v + n, &eaten)) < 0)
			return flow_is_too_big(f) ? RELAY_TOO_BIG : RELAY_BAD;
		n += k;
		if (n > 0 && chan_send(to, v, n, eaten == from->in.n && k == 1 ? &from->in : NULL) < 0)
			return RELAY_REFUSED;
		if (from->in.b)
			buf_eat(&from->in, eaten);
		if (f->body.done)
			return RELAY_DONE;
		if (from->in.n == 0)
			return from->ch.eof ? RELAY_SHORT : RELAY_WAIT;
	}
	return RELAY_WAIT;
}

/* Raw bytes; at the giver's end the taker is told so, once all is sent.
 * RELAY_BAD: the giver's end was a reset. */
static enum relay
flow_tunnel(struct flow *f, struct side *from, struct chan *to, bool *ready)
{
	enum relay r = flow_relay(f, from, to, NULL, ready);

	if (r == RELAY_WAIT || r == RELAY_REFUSED)
		return r;
	f->body.done = true;
	if (to->out.n > 0)
		return RELAY_WAIT;
	if (from->ch.broken)
		return RELAY_BAD;
	shutdown(to->w.fd, SHUT_WR); /* fails only when it is gone already */
	return RELAY_DONE;
}

/* ==== spool ==================================================================
 * Owns    request bodies that are kept until they are whole.
 * Offers  spool_new, spool_add, spool_rewind, spool_fill, spool_free.
 * Calls   base, log, buf, chan. Memory first, then an unlinked file. */

#define SPOOL_START 4096 /* first memory of a body; doubled as it grows */

static struct spool *
spool_new(void)
{
	struct spool *sp = xcalloc(1, sizeof *sp);

	sp->fd = -1;
	sp->s.ch.w = (struct watch){ .fd = -1, .slot = -1 };
	return sp;
}

static void
spool_free(struct spool *sp)
{
	if (!sp)
		return;
	if (scratch_side == &sp->s)
		scratch_side = NULL;
	buf_free(&sp->s.in);
	if (sp->fd >= 0)
		close(sp->fd);
	free(sp->mem);
	free(sp);
}

static int
spool_file(void)
{
	char name[] = SPOOL_DIR "/warp-XXXXXX";
	int fd = open(SPOOL_DIR, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0)
		return fd;
	if ((fd = mkostemp(name, O_CLOEXEC)) >= 0)
		unlink(name);
	return fd;
}

/* Room for n more bytes in memory, as far as max allows. */
static size_t
spool_grow(struct spool *sp, size_t n, size_t max)
{
	size_t cap = sp->mem_cap ? sp->mem_cap : SPOOL_START;
	char *mem;

	while (cap < sp->mem_n + n && cap < max)
		cap *= 2;
	cap = MIN(cap, max);
	if (cap > sp->mem_cap && (mem = realloc(sp->mem, cap))) {
		sp->mem = mem;
		sp->mem_cap = cap;
	}
	return MIN(n, sp->mem_cap - sp->mem_n);
}

/* -1: the disk is full or will not take it; logged. */
static int
spool_add(struct spool *sp, const char *p, size_t n, size_t max)
{
	size_t fits = sp->fd < 0 ? spool_grow(sp, n, max) : 0;
	ssize_t put;

	if (fits > 0)
		memcpy(sp->mem + sp->mem_n, p, fits);
	sp->mem_n += fits;
	sp->size += n;
	p += fits;
	n -= fits;
	if (n > 0 && sp->fd < 0 && (sp->fd = spool_file()) < 0)
		return log_errno("no file for a request body in " SPOOL_DIR);
	while (n > 0) {
		if ((put = write(sp->fd, p, n)) < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return log_errno("request body to a file in " SPOOL_DIR);
		p += put;
		n -= (size_t)put;
	}
	return 0;
}

static void
spool_rewind(struct spool *sp)
{
	sp->sent = 0;
	sp->s.ch.eof = false;
	if (scratch_side == &sp->s)
		scratch_side = NULL;
	buf_free(&sp->s.in);
}

/* The next piece into s.in, as side_fill does from a socket. */
static void
spool_fill(struct spool *sp)
{
	size_t max = RELAY_BYTES;
	ssize_t got;
	char *to;

	if (sp->s.in.n > 0 || !side_room(&sp->s))
		return;
	to = buf_p(&sp->s.in);
	if (sp->sent < sp->mem_n) {
		got = (ssize_t)MIN(max, sp->mem_n - (size_t)sp->sent);
		memcpy(to, sp->mem + sp->sent, (size_t)got);
	} else
		do
			got = sp->fd < 0 ? 0 : pread(sp->fd, to, max, (off_t)(sp->sent - sp->mem_n));
		while (got < 0 && errno == EINTR);
	if (got > 0) {
		sp->s.in.n = (uint32_t)got;
		sp->sent += (uint64_t)got;
		return;
	}
	buf_free(&sp->s.in);
	sp->s.ch.eof = true;
}

/* ==== exchange ===============================================================
 * Owns    a request and its answer, from a whole head to the last byte.
 * Offers  exchange_new, exchange_begin, exchange_answer, exchange_run,
 *         exchange_abort, and the doors' parts for events and deadlines.
 * Calls   everything below. Each step looks at one state; exchange_run takes
 *         steps until one has to wait, then says what for. */

enum step { STEP_WAIT, STEP_AGAIN, STEP_DONE };

enum lost {
	LOST_CONNECT, /* refused, no route, no such socket */
	LOST_CONNECT_TIMEOUT,
	LOST_WRITE_TIMEOUT,
	LOST_READ_TIMEOUT,
	LOST_CLOSED,  /* before the answer's head was whole */
	LOST_BAD,     /* its answer is none */
	LOSTS
};
static const struct {
	int status;
	bool again; /* another try may help */
} losts[LOSTS] = {
	[LOST_CONNECT]         = { 502, true },
	[LOST_CONNECT_TIMEOUT] = { 504, true },
	[LOST_WRITE_TIMEOUT]   = { 504, false },
	[LOST_READ_TIMEOUT]    = { 504, false },
	[LOST_CLOSED]          = { 502, true },
	[LOST_BAD]             = { 502, false },
};

#define STATUS_ABORTED 499 /* in the log: the client left first */
#define WARNS_PER_S    5   /* lines about failing upstreams */

static void (*upstream_door)(struct watch *, short); /* the front's */
static void (*upstream_due)(struct timer *);
static const struct exchange *req_of; /* whose head req is */
static uint64_t random_state[2];

/* xorshift128+: ids must differ, not be secret. */
static uint64_t
random_next(void)
{
	uint64_t a = random_state[0], b = random_state[1];

	random_state[0] = b;
	a ^= a << 23;
	random_state[1] = a ^ b ^ (a >> 17) ^ (b >> 26);
	return random_state[1] + b;
}

/* Its head, parsed; again when another came between. */
static struct head *
exchange_request(const struct exchange *x)
{
	if (req_of != x)
		request_parse(&req, x->head_bytes);
	req_of = x;
	return &req;
}

/* The head's slices follow its n bytes from one place to another. */
static void
head_move(struct head *h, const char *from, size_t n, const char *to)
{
	struct slice *s[] = { &h->method_text, &h->target, &h->path, &h->query, &h->host };

	for (size_t i = 0; i < LEN(s); i++)
		if (s[i]->p >= from && s[i]->p <= from + n)
			s[i]->p = to + (s[i]->p - from);
	for (int i = 0; i < h->n; i++) {
		struct field *f = &h->f[i];
		f->name.p = to + (f->name.p - from);
		f->value.p = to + (f->value.p - from);
		f->start = to + (f->start - from);
		f->end = to + (f->end - from);
	}
}

/* Takes over the n bytes of head (req) at the front of c's input; 0: what
 * came was no head. */
static struct exchange *
exchange_new(struct conn *c, size_t n)
{
	struct block *b = block_take(BLOCK_SMALL);
	struct exchange *x = (void *)b->data;
	char *to = b->data + sizeof *x;

	*x = (struct exchange){ .c = c, .block = b, .start_us = now_us };
	if (n > b->cap - sizeof *x) {
		x->head_block = block_take(BLOCK_LARGE);
		to = x->head_block->data;
	}
	if (n > 0) {
		memcpy(to, buf_p(&c->s.in), n);
		head_move(&req, buf_p(&c->s.in), n, to);
		buf_eat(&c->s.in, n);
		x->method = req.method;
		x->method_text = req.method_text;
		x->target = req.target;
		x->host = req.host;
		x->minor = (uint8_t)req.minor;
		req_of = x;
	}
	x->head_bytes = (struct slice){ to, n };
	x->client = c->peer;
	c->s.x = x;
	c->s.waits = WAIT_NOTHING;
	c->state = CONN_BUSY;
	timer_clear(&c->s.timer);
	return x;
}

static void
exchange_free(struct exchange *x)
{
	if (req_of == x)
		req_of = NULL;
	spool_free(x->spool);
	pipe_give(x->up.pipe);
	pipe_give(x->down.pipe);
	block_give(x->up.trailers);
	block_give(x->down.trailers);
	block_give(x->head_block);
	free(x->memory_owned);
	block_give(x->block);
}

/* On the instance's record, and noted as this worker's. */
static void
flight_count(const struct instance *in, bool begins)
{
	size_t i = (size_t)(in->board - board->instances), slot = (size_t)(me - board->workers);

	if (begins) {
		in->board->in_flight++;
		board->flights[slot][i]++;
	} else {
		board->flights[slot][i]--;
		in->board->in_flight--;
	}
}

/* Lets go of the upstream connection: kept for others, or closed. */
static void
upstream_leave(struct exchange *x, bool keep)
{
	struct upconn *u = x->u;

	if (!u)
		return;
	x->u = NULL;
	flight_count(x->inst, false);
	timer_clear(&u->s.timer);
	if (keep)
		pool_give(u);
	else
		upconn_close(u);
}

static void
exchange_count(const struct exchange *x)
{
	static const unsigned limits[] = LATENCY_MS;
	uint64_t us = (uint64_t)(now_us - x->start_us);
	size_t i = 0, class = (size_t)x->status / 100;

	while (i + 1 < LEN(limits) && us > limits[i] * UINT64_C(1000))
		i++;
	COUNT(me->requests, 1);
	COUNT(me->codes[x->status == STATUS_ABORTED || class > 5 ? 0 : class], 1);
	COUNT(me->latency[i], 1);
	COUNT(me->latency_us, us);
	COUNT(me->bytes_in, x->up.body.total);
	COUNT(me->bytes_out, x->bytes_out);
}

/* The last word: counted, logged, freed. The client's connection is idle
 * again, or to be closed. */
static enum step
exchange_over(struct exchange *x)
{
	struct conn *c = x->c;
	if (x->source == SOURCE_UPSTREAM)
		x->bytes_out = x->down.body.total;
	upstream_leave(x, false);
	if (!x->admin) {
		exchange_count(x);
		if (access_on)
			access_line(x, x->head_bytes.n ? exchange_request(x) : NULL);
	}
	c->served++;
	c->s.x = NULL;
	if (c->s.ch.broken || (x->wants_close && x->body_whole && c->s.in.n == 0))
		c->state = CONN_CLOSE;
	else
		c->state = x->keep && x->body_whole ? CONN_IDLE : CONN_LINGER;
	timer_clear(&c->s.timer);
	exchange_free(x);
	return STEP_DONE;
}

/* Ends here and now: the client left, or must see that the answer is cut. An
 * answer whose end is the connection's end is cut by a reset. */
static enum step
exchange_abort(struct exchange *x)
{
	struct linger reset = { 1, 0 };
	struct conn *c = x->c;

	if (x->status == 0)
		x->status = STATUS_ABORTED;
	if (x->source == SOURCE_UPSTREAM && x->down.body.kind != BODY_LENGTH && !x->down.chunk_out)
		setsockopt(c->s.ch.w.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	x->keep = false;
	c->s.ch.broken = true;
	return exchange_over(x);
}

/* ---- made-up answers ---- */

/* A body that is here already does not cost the connection. */
static void
request_settle(struct exchange *x)
{
	struct iovec v[FLOW_PIECES];
	struct side *s = &x->c->s;
	size_t eaten;

	x->up.chunk_out = false;
	x->up.limit = 0;
	while (!x->body_whole && !x->body_bad && s->in.n > 0) {
		if (flow_take(&x->up, s, v, &eaten) < 0 || eaten == 0)
			break;
		buf_eat(&s->in, eaten);
		x->body_whole = x->up.body.done;
	}
	if (!x->body_whole)
		x->keep = false; /* and nothing that follows is a request */
	x->up.state = FLOW_OFF;
}

static int
memory_send(struct exchange *x, const struct text *head)
{
	size_t n = MIN(x->memory.n, (size_t)RELAY_BYTES);
	struct iovec v[2];
	int k = 0;

	if (head)
		v[k++] = (struct iovec){ head->p, head->n };
	if (n > 0)
		v[k++] = (struct iovec){ (char *)(uintptr_t)x->memory.p, n };
	x->memory = slice_from(x->memory, n);
	x->bytes_out += n;
	return chan_send(&x->c->s.ch, v, k, NULL);
}

/* Answers with a; what an upstream was doing for x is dropped. */
static enum step
exchange_answer(struct exchange *x, const struct answer *a)
{
	upstream_leave(x, false);
	request_settle(x);
	x->source = SOURCE_MEMORY;
	x->status = a->status;
	x->state = X_ANSWER;
	x->memory_owned = a->owned;
	x->memory = a->body;
	if (x->method == M_HEAD || a->status == 204 || a->status == 304)
		x->memory = S("");
	head_out.n = 0;
	head_out.full = false;
	if (draining)
		x->keep = false;
	if (x->c->s.ch.out.n > 0 || !answer_write(&head_out, x, a) ||
	    memory_send(x, &head_out) < 0)
		return exchange_abort(x);
	return STEP_AGAIN;
}

static enum step
exchange_error(struct exchange *x, int status, const char *cause, struct slice extra)
{
	struct head *h = x->head_bytes.n ? exchange_request(x) : NULL;
	struct answer a = answer_error(h, status, cause);

	a.extra = extra;
	return exchange_answer(x, &a);
}

/* ---- an upstream that fails ---- */

__attribute__((format(printf, 1, 2))) static void
warn_calmly(const char *fmt, ...)
{
	static time_t second;
	static unsigned said, unsaid;
	char line[LOG_LINE / 2];
	va_list ap;

	if (second != now_s) {
		if (unsaid > 0)
			log_warn("%u more lines about upstreams not shown", unsaid);
		said = unsaid = 0;
		second = now_s;
	}
	if (said++ >= WARNS_PER_S) {
		unsaid++;
		return;
	}
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	log_warn("%s", line);
}

static bool
is_idempotent(enum method m)
{
	return m == M_GET || m == M_HEAD || m == M_OPTIONS || m == M_TRACE || m == M_PUT ||
	    m == M_DELETE;
}

/* Its body can be sent (again): none, kept, or not begun. */
static bool
body_is_here(const struct exchange *x)
{
	return x->spool || x->up.state == FLOW_OFF ||
	    (x->up.body.total == 0 && x->up.body.chunk == CHUNK_SIZE);
}

static enum step
exchange_failed(struct exchange *x, int status)
{
	return exchange_error(x, status, x->cause,
	    status == 503 ? S("Retry-After: 1\r\n") : S(""));
}

/* The instance did not do it: another try where the retry rule allows one,
 * else the error; in the middle of an answer, its end. */
static enum step
exchange_lost(struct exchange *x, enum lost why, const char *cause)
{
	struct instance *in = x->inst;
	bool stale = why == LOST_CLOSED && x->u->served > 0 && x->u->s.in.n == 0;
	bool next_addr = why <= LOST_CONNECT_TIMEOUT && x->addr_i + 1u < in->board->addrs.n;
	bool again = losts[why].again && !x->interim && body_is_here(x) &&
	    (!x->sent_any || is_idempotent(x->method));

	if (x->state >= X_ANSWER) {
		warn_calmly("upstream %s: %s %s in the middle of an answer to %.*s",
		    in->up->name, in->addr.text, cause, (int)MIN(x->target.n, 256), x->target.p);
		return exchange_abort(x);
	}
	snprintf(x->cause, sizeof x->cause, "%s %s: %s", in->up->name, in->addr.text, cause);
	upstream_leave(x, false);
	if (again && x->up.state == FLOW_CUT)
		x->up.state = FLOW_ON;
	x->same = again && (stale || next_addr);
	if (x->same) {
		x->addr_i = next_addr ? (uint8_t)(x->addr_i + 1) : x->addr_i;
		x->state = X_PICK;
		return STEP_AGAIN;
	}
	instance_failed(in);
	in->board->codes[0]++;
	warn_calmly("upstream %s: %s %s", in->up->name, in->addr.text, cause);
	x->addr_i = 0;
	x->tried |= UINT64_C(1) << ((size_t)(in - in->up->instances) % TRIED_BITS);
	if (again && x->tries <= in->up->retries &&
	    in->up->n_instances > 1) {
		COUNT(me->retries, 1);
		x->state = X_PICK;
		return STEP_AGAIN;
	}
	return exchange_failed(x, losts[why].status);
}

/* ---- steps toward the upstream ---- */

/* Hands u its exchange and the doors. */
static void
upstream_attach(struct exchange *x, struct upconn *u)
{
	x->u = u;
	u->s.x = x;
	u->s.hup = false;
	u->s.ch.w.ready = upstream_door;
	u->s.timer.fire = upstream_due;
	timer_clear(&u->s.timer);
	flight_count(x->inst, true);
	x->sent_any = false;
	u->s.waits = WAIT_NOTHING;
	x->connect_by_ms = now_ms +
	    (x->route->connect_ms ? x->route->connect_ms : x->inst->up->connect_ms);
}

static enum step
step_pick(struct exchange *x)
{
	struct upstream *up = x->route->upstream;
	struct instance *in = x->same ? x->inst : up->balance->pick(up, x->tried);
	struct upconn *u;

	if (!in) {
		if (!x->cause[0])
			snprintf(x->cause, sizeof x->cause, "upstream %s: no instance can be asked",
			    up->name);
		return exchange_failed(x, x->tries > 0 ? 502 : 503);
	}
	x->inst = in;
	x->tries += !x->same;
	u = x->same || up->keepalive == 0 || up->proxy_out ? NULL : pool_take(in);
	x->same = false;
	if (!u && !(u = upconn_connect(in, x->addr_i))) {
		if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
			return exchange_lost(x, LOST_CONNECT, strerror(errno));
		snprintf(x->cause, sizeof x->cause, "no descriptor left: %s", strerror(errno));
		warn_calmly("%s; raise the limit of open files", x->cause);
		return exchange_failed(x, 503);
	}
	upstream_attach(x, u);
	x->state = u->state == UP_BUSY ? X_SEND : X_CONNECT;
	return u->state == UP_BUSY ? STEP_AGAIN : STEP_WAIT;
}

/* Poll has said something about the connection on its way. */
static enum step
step_connect(struct exchange *x)
{
	socklen_t n = sizeof errno;
	int err = 0;

	if (!x->u_events)
		return STEP_WAIT;
	if (getsockopt(x->u->s.ch.w.fd, SOL_SOCKET, SO_ERROR, &err, &n) < 0)
		err = errno;
	if (err)
		return exchange_lost(x, LOST_CONNECT, strerror(err));
	x->u->state = UP_BUSY;
	x->u->s.hup = false;
	x->state = X_SEND;
	return STEP_AGAIN;
}

/* The request body is none, or more than it may be. */
static enum step
exchange_bad_body(struct exchange *x)
{
	x->body_bad = true;
	x->keep = false;
	if (flow_is_too_big(&x->up))
		return exchange_error(x, 413, "the request body is too big", S(""));
	return exchange_error(x, 400, "the request body is malformed", S(""));
}

/* The request body goes on; head first, if given. */
static enum step
exchange_up(struct exchange *x, const struct text *head)
{
	struct side *from = x->spool ? &x->spool->s : &x->c->s;
	bool ready = x->c_ready;
	enum relay r;

	if (!head && x->up.state != FLOW_ON)
		return STEP_WAIT;
	if (x->spool && !x->up.body.done) {
		spool_fill(x->spool);
		ready = false;
	}
	r = flow_relay(&x->up, from, &x->u->s.ch, head, &ready);
	if (!x->spool)
		x->c_ready = ready;
	if (r != RELAY_REFUSED)
		x->sent_any = true;
	switch (r) {
	case RELAY_DONE:
		x->up.state = x->up.state == FLOW_ON ? FLOW_DONE : x->up.state;
		x->body_whole = true;
		return STEP_WAIT;
	case RELAY_REFUSED: /* it may have answered before it left */
		if (x->up.state == FLOW_ON)
			x->up.state = FLOW_CUT;
		x->reusable = false;
		x->u->s.ch.broken = false;
		x->u->s.ch.eof = false;
		x->u_ready = true;
		buf_free(&x->u->s.ch.out);
		pipe_give(x->up.pipe);
		x->up.pipe = NULL;
		return STEP_WAIT;
	case RELAY_SHORT:
		return exchange_abort(x);
	case RELAY_BAD:
	case RELAY_TOO_BIG:
		return x->state >= X_ANSWER ? exchange_abort(x) : exchange_bad_body(x);
	default:
		return STEP_WAIT;
	}
}

static void
proxy_line(struct exchange *x)
{
	struct ip to = { { 0 } };
	uint16_t port = 0;
	union sock here = { 0 };
	socklen_t n = sizeof here;

	if (x->inst->up->proxy_out == PROXY_OUT_NONE)
		return;
	if (getsockname(x->c->s.ch.w.fd, &here.sa, &n) == 0)
		to = ip_of_sock(&here, &port);
	proxy_write(&head_out, x->inst->up->proxy_out == PROXY_OUT_V1 ? 1 : 2, &x->client,
	    x->c->peer_port, &to, port);
}

static enum step
step_send(struct exchange *x)
{
	struct head *h;
	enum step s;

	req_of = NULL; /* a try before this one may have marked lines */
	h = exchange_request(x);
	head_out.n = 0;
	head_out.full = false;
	proxy_line(x);
	if (!request_write(&head_out, x, h))
		return exchange_error(x, head_out.full ? 431 : 400,
		    "the request does not fit after rewriting", S(""));
	if (x->spool) {
		spool_rewind(x->spool);
		x->up.body = (struct body){ .kind = BODY_LENGTH, .left = x->spool->size,
			.done = x->spool->size == 0 };
		x->up.state = FLOW_ON;
	}
	x->up_start_us = now_us;
	x->state = X_WAIT;
	s = exchange_up(x, &head_out);
	return s == STEP_WAIT && x->u_ready ? STEP_AGAIN : s; /* it left: what did it say? */
}

/* ---- steps toward the client ---- */

/* The upstream has said all: its connection goes back, if both may keep it. */
static void
exchange_release(struct exchange *x)
{
	struct upconn *u = x->u;

	if (!u)
		return;
	x->up_us = (uint32_t)MIN(now_us - x->up_start_us, UINT32_MAX);
	upstream_leave(x, x->reusable && x->up.state != FLOW_ON && x->up.state != FLOW_CUT &&
	    u->s.in.n == 0 && u->s.ch.out.n == 0 && !u->s.ch.eof && !u->s.hup);
	if (x->up.state == FLOW_ON)
		x->up.state = FLOW_CUT; /* nobody takes the rest of the request */
}

static enum step
exchange_memory_down(struct exchange *x)
{
	while (x->c->s.ch.out.n == 0 && x->memory.n > 0)
		if (memory_send(x, NULL) < 0)
			return exchange_abort(x);
	return x->c->s.ch.out.n == 0 && x->memory.n == 0 ? exchange_over(x) : STEP_WAIT;
}

/* The response body goes on; head first, if given. */
static enum step
exchange_down(struct exchange *x, const struct text *head)
{
	struct chan *to = &x->c->s.ch;

	if (head || x->down.state == FLOW_ON)
		switch (flow_relay(&x->down, &x->u->s, to, head, &x->u_ready)) {
		case RELAY_DONE:
			x->down.state = FLOW_DONE;
			exchange_release(x);
			break;
		case RELAY_SHORT:
			return exchange_lost(x, LOST_CLOSED, "closed");
		case RELAY_BAD:
			return exchange_lost(x, LOST_BAD, "sent a malformed body");
		case RELAY_REFUSED:
			return exchange_abort(x);
		default:
			break;
		}
	return x->down.state == FLOW_DONE && to->out.n == 0 ? exchange_over(x) : STEP_WAIT;
}

static enum step
step_answer(struct exchange *x)
{
	enum step s = STEP_WAIT;

	if (x->source == SOURCE_MEMORY)
		return exchange_memory_down(x);
	if (x->u)
		s = exchange_up(x, NULL);
	return s == STEP_WAIT ? exchange_down(x, NULL) : s;
}

/* 1xx: passed on to who can read them, and the wait goes on. */
static enum step
exchange_interim(struct exchange *x, size_t n)
{
	struct iovec v;

	if (++x->interims > INTERIM_MAX)
		return exchange_lost(x, LOST_BAD, "sent 1xx without end");
	head_out.n = 0;
	head_out.full = false;
	if (x->minor > 0 && !x->spool) {
		if (!interim_write(&head_out, &res))
			return exchange_lost(x, LOST_BAD, "sent a 1xx too long");
		v = (struct iovec){ head_out.p, head_out.n };
		x->interim = true;
		if (chan_send(&x->c->s.ch, &v, 1, NULL) < 0)
			return exchange_abort(x);
	}
	buf_eat(&x->u->s.in, n);
	return STEP_AGAIN;
}

static enum step
exchange_tunnel(struct exchange *x)
{
	x->state = X_TUNNEL;
	x->keep = false;
	x->body_whole = true;
	x->up = (struct flow){ .body = { .kind = BODY_CLOSE }, .state = FLOW_ON };
	x->down = (struct flow){ .body = { .kind = BODY_CLOSE }, .state = FLOW_ON };
	x->c_ready = x->c->s.in.n > 0;
	return STEP_AGAIN;
}

/* Decides how the answer's body goes and what outlives it. */
static int
exchange_frame(struct exchange *x)
{
	struct body *b = &x->down.body;

	if (body_of_response(b, &res, x->method) < 0)
		return -1;
	/* some backends send a body to HEAD all the same, and late */
	x->reusable = res.minor > 0 && b->kind != BODY_CLOSE && x->method != M_HEAD &&
	    !head_has(&res, F_CONNECTION, "close") && x->inst->up->keepalive > 0 &&
	    x->inst->up->proxy_out == PROXY_OUT_NONE;
	x->down.chunk_out = x->minor > 0 && (b->kind == BODY_CHUNKED || b->kind == BODY_CLOSE);
	if (x->minor == 0 && (b->kind == BODY_CHUNKED || b->kind == BODY_CLOSE))
		x->keep = false;
	if (x->up.state == FLOW_ON || x->up.state == FLOW_CUT || draining)
		x->keep = false;
	return 0;
}

/* The final answer's head is here, n bytes of it. */
static enum step
exchange_respond(struct exchange *x, size_t n)
{
	bool tunnel = res.status == 101;

	if (tunnel && !x->upgrade)
		return exchange_lost(x, LOST_BAD, "switched protocols unasked");
	if (tunnel)
		x->keep = true; /* until the tunnel ends */
	else if (exchange_frame(x) < 0)
		return exchange_lost(x, LOST_BAD, "sent a head with bad framing");
	head_out.n = 0;
	head_out.full = false;
	if (!response_write(&head_out, x, &res))
		return exchange_lost(x, LOST_BAD, "sent a head too long");
	buf_eat(&x->u->s.in, n);
	x->source = SOURCE_UPSTREAM;
	x->status = res.status;
	x->state = X_ANSWER;
	instance_worked(x->inst);
	x->inst->board->requests++;
	x->inst->board->codes[res.status / 100]++;
	x->inst->board->latency_us += (unsigned long long)(now_us - x->up_start_us);
	if (tunnel)
		x->down.body.done = true;
	x->down.state = FLOW_ON;
	if (!tunnel)
		return exchange_down(x, &head_out);
	return memory_send(x, &head_out) < 0 ? exchange_abort(x) : exchange_tunnel(x);
}

/* The request is on its way; what the upstream says is a head, or part. */
static enum step
step_wait(struct exchange *x)
{
	struct side *u;
	enum step s;
	int n;

	if ((s = exchange_up(x, NULL)) != STEP_WAIT)
		return s;
	u = &x->u->s;
	if (x->c->s.ch.out.n > 0)
		return STEP_WAIT;
	if (x->u_ready) {
		x->u_ready = false;
		side_fill(u);
	}
	if (u->in.n == 0)
		return u->ch.eof ? exchange_lost(x, LOST_CLOSED, "closed before it answered")
		                 : STEP_WAIT;
	n = response_parse(&res, buf_slice(&u->in));
	if (n < 0)
		return exchange_lost(x, LOST_BAD, "sent a malformed head");
	if (n == 0 && u->ch.eof)
		return exchange_lost(x, LOST_CLOSED, "closed within its head");
	if ((n > 0 ? (uint32_t)n : u->in.n) > conf->server.max_header_bytes)
		return exchange_lost(x, LOST_BAD, "sent a head too long");
	if (n == 0)
		return STEP_WAIT;
	if (res.status < 200 && res.status != 101)
		return exchange_interim(x, (size_t)n);
	return exchange_respond(x, (size_t)n);
}

static enum step
step_tunnel(struct exchange *x)
{
	struct side *c = &x->c->s, *u = &x->u->s;
	enum relay r;

	if (x->up.state == FLOW_ON) {
		r = flow_tunnel(&x->up, c, &u->ch, &x->c_ready);
		if (r == RELAY_BAD)
			return exchange_over(x);
		if (r == RELAY_REFUSED) { /* its last words may still be on their way */
			u->ch.broken = false;
			buf_free(&u->ch.out);
			x->up.state = FLOW_CUT;
			x->u_ready = true;
		} else if (r == RELAY_DONE)
			x->up.state = FLOW_DONE;
	}
	if (x->down.state == FLOW_ON) {
		r = flow_tunnel(&x->down, u, &c->ch, &x->u_ready);
		if (r == RELAY_BAD || r == RELAY_REFUSED)
			return exchange_over(x);
		x->down.state = r == RELAY_DONE ? FLOW_DONE : FLOW_ON;
	}
	return x->up.state != FLOW_ON && x->down.state == FLOW_DONE ? exchange_over(x) : STEP_WAIT;
}

/* ---- keeping a request body until it is whole ---- */

static enum step
step_spool(struct exchange *x)
{
	static const struct iovec go_on = { "HTTP/1.1 100 Continue\r\n\r\n", 25 };
	struct side *c = &x->c->s;
	struct iovec v[FLOW_PIECES];
	size_t eaten;
	int k;

	if (x->expect && c->in.n == 0) {
		v[0] = go_on;
		if (chan_send(&c->ch, v, 1, NULL) < 0)
			return exchange_abort(x);
	}
	x->expect = false;
	if (c->in.n == 0 && x->c_ready && !x->up.body.done) {
		x->c_ready = false;
		side_fill(c);
	}
	while (c->in.n > 0 && !x->up.body.done) {
		if ((k = flow_take(&x->up, c, v, &eaten)) < 0)
			return exchange_bad_body(x);
		if (k > 0 && spool_add(x->spool, v[0].iov_base, v[0].iov_len,
		    (size_t)x->route->buffer_request) < 0)
			return exchange_error(x, 503, "no room for the request body", S(""));
		buf_eat(&c->in, eaten);
	}
	if (x->up.body.done) {
		x->body_whole = true;
		x->state = X_PICK;
		return STEP_AGAIN;
	}
	return c->ch.eof ? exchange_abort(x) : STEP_WAIT;
}

/* The master is asked, or all is over: nothing to do here. */
static enum step
step_rest(struct exchange *x)
{
	(void)x;
	return STEP_WAIT;
}

static enum step (*const exchange_steps[X_STATES])(struct exchange *) = {
	[X_START] = step_rest,
	[X_SPOOL] = step_spool,
	[X_PICK] = step_pick,
	[X_CONNECT] = step_connect,
	[X_SEND] = step_send,
	[X_WAIT] = step_wait,
	[X_ANSWER] = step_answer,
	[X_TUNNEL] = step_tunnel,
	[X_ASK] = step_rest,
	[X_END] = step_rest,
};

/* ---- waiting ---- */

/* Watches s for these events. One that hung up is watched only while it is
 * read or written: poll reports it without end. */
static void
side_watch(struct side *s, short want)
{
	if (s->hup && want == 0)
		loop_unwatch(&s->ch.w);
	else
		loop_watch(&s->ch.w, want);
}

/* Only what it waits for lets the deadline start anew: who sends without end
 * has not read anything yet. */
static void
side_deadline(struct side *s, enum wait what, uint32_t ms, short events)
{
	static const short moves[] = {
		[WAIT_READ] = POLLIN, [WAIT_WRITE] = POLLOUT, [WAIT_TUNNEL] = POLLIN | POLLOUT,
	};

	if (s->waits != what || events & moves[what])
		timer_set(&s->timer, ms);
	else
		timer_keep(&s->timer, ms);
	s->waits = (uint8_t)what;
}

static void
client_arm(struct exchange *x)
{
	struct side *c = &x->c->s;
	bool reads = x->state == X_SPOOL || x->state == X_TUNNEL || x->state == X_WAIT ||
	    (x->state == X_ANSWER && x->u);
	bool in = reads && (x->up.state == FLOW_ON || x->state == X_SPOOL) && !c->ch.eof &&
	    (!x->spool || x->state == X_SPOOL) && !(x->u && x->u->s.ch.out.n > 0) && !x->up.pipe;
	bool out = c->ch.out.n > 0 || x->down.pipe;

	side_watch(c, (short)((in ? POLLIN : 0) | (out ? POLLOUT : 0)));
	if (x->state == X_TUNNEL)
		side_deadline(c, WAIT_TUNNEL, conf->server.tunnel_ms, x->c_events | x->u_events);
	else if (out)
		side_deadline(c, WAIT_WRITE, conf->server.write_ms, x->c_events);
	else
		side_deadline(c, in ? WAIT_READ : WAIT_NOTHING, in ? conf->server.body_ms : 0,
		    x->c_events);
}

static uint32_t
route_ms(uint32_t own, uint32_t upstreams)
{
	return own ? own : upstreams;
}

static void
upstream_arm(struct exchange *x)
{
	struct side *u = &x->u->s;
	const struct upstream *up = x->inst->up;
	bool idle_client = x->c->s.ch.out.n == 0 && !x->down.pipe;
	bool in = idle_client && !u->ch.eof && (x->state == X_WAIT || x->down.state == FLOW_ON);
	bool out = u->ch.out.n > 0 || x->up.pipe || (x->spool && x->up.state == FLOW_ON && x->state >= X_WAIT);
	bool reads = in && x->up.state != FLOW_ON && x->state != X_TUNNEL;

	if (x->state == X_CONNECT) {
		if (x->u->retry_connect) {
			timer_set(&u->timer, CONNECT_AGAIN_MS);
			return;
		}
		loop_watch(&u->ch.w, POLLOUT);
		side_deadline(u, WAIT_CONNECT, route_ms(x->route->connect_ms, up->connect_ms), 0);
		return;
	}
	side_watch(u, (short)((in ? POLLIN : 0) | (out ? POLLOUT : 0)));
	if (out && x->state != X_TUNNEL)
		side_deadline(u, WAIT_WRITE, route_ms(x->route->write_ms, up->write_ms), x->u_events);
	else
		side_deadline(u, reads ? WAIT_READ : WAIT_NOTHING,
		    reads ? route_ms(x->route->read_ms, up->read_ms) : 0, x->u_events);
}

/* Takes steps until one waits. Afterwards x is gone if c->s.x says so. */
static void
exchange_run(struct exchange *x)
{
	struct conn *c = x->c;
	enum step s;

	do
		s = exchange_steps[x->state](x);
	while (s == STEP_AGAIN);
	if (s == STEP_DONE || c->s.x != x)
		return;
	client_arm(x);
	if (x->u)
		upstream_arm(x);
	x->c_ready = x->u_ready = false;
	x->c_events = x->u_events = 0;
}

/* ---- doors' parts ---- */

static void
exchange_client_event(struct exchange *x, short revents)
{
	struct side *c = &x->c->s;
	bool gone = revents & (POLLERR | POLLHUP | POLLNVAL);

	if (gone && x->state != X_TUNNEL) {
		exchange_abort(x);
		return;
	}
	c->hup |= gone;
	x->c_events = revents;
	x->c_ready = revents & (POLLIN | POLLHUP | POLLERR);
	if (revents & POLLOUT) {
		/* what waited is gone: the other side's turn, without another poll */
		x->u_ready = chan_flush(&c->ch) && x->u && x->source == SOURCE_UPSTREAM;
		if (c->ch.broken) {
			exchange_abort(x);
			return;
		}
	}
	exchange_run(x);
}

static void
exchange_upstream_event(struct exchange *x, short revents)
{
	struct side *u = &x->u->s;

	u->hup |= (revents & (POLLERR | POLLHUP | POLLNVAL)) != 0;
	x->u_events = revents;
	x->u_ready = revents & (POLLIN | POLLHUP | POLLERR);
	if (revents & POLLOUT && x->state != X_CONNECT && (u->ch.out.n > 0 || x->up.pipe)) {
		x->c_ready = chan_flush(&u->ch) && x->up.state == FLOW_ON;
		if (u->ch.broken) { /* it may have answered before it left */
			x->up.state = FLOW_CUT;
			u->ch.broken = false;
			buf_free(&u->ch.out);
		}
	}
	exchange_run(x);
}

static void
exchange_client_due(struct exchange *x)
{
	enum step s;

	if (x->state == X_TUNNEL)
		s = exchange_over(x);
	else if (x->c->s.ch.out.n == 0 && x->state < X_ANSWER)
		s = exchange_error(x, 408, "the request body did not come", S(""));
	else
		s = exchange_abort(x);
	if (s != STEP_DONE)
		exchange_run(x);
}

static enum step
exchange_upstream_late(struct exchange *x)
{
	if (x->state == X_CONNECT) {
		if (!x->u->retry_connect || now_ms >= x->connect_by_ms)
			return exchange_lost(x, LOST_CONNECT_TIMEOUT, "does not accept in time");
		if (!upconn_dial(x->u))
			return exchange_lost(x, LOST_CONNECT, strerror(errno));
		x->state = x->u->state == UP_BUSY ? X_SEND : X_CONNECT;
		return STEP_AGAIN;
	}
	if (x->u->s.ch.out.n > 0 || x->up.pipe)
		return exchange_lost(x, LOST_WRITE_TIMEOUT, "does not take the request in time");
	return exchange_lost(x, LOST_READ_TIMEOUT, "does not answer in time");
}

static void
exchange_upstream_due(struct exchange *x)
{
	if (exchange_upstream_late(x) != STEP_DONE)
		exchange_run(x);
}

/* ==== gate ===================================================================
 * Owns    the seed of what must not be guessed.
 * Offers  gate_open, gate_enter.
 * Calls   route, auth, board, answers, exchange. A request with a whole head
 *         passes here once: which route, may it, and what then. */

static uint64_t rate_seed; /* equal in all workers: the board is shared */

static void
gate_open(void)
{
	if (getrandom(random_state, sizeof random_state, 0) != sizeof random_state)
		random_state[0] = (uint64_t)now_us;
	random_state[1] |= 1; /* all zero would stay so */
	rate_seed = (uint64_t)board->started_s * UINT64_C(0x9e3779b97f4a7c15);
}

static bool
id_is_good(struct slice id)
{
	for (size_t i = 0; i < id.n; i++)
		if (id.p[i] <= ' ' || id.p[i] >= 0x7f)
			return false;
	return id.n > 0 && id.n <= REQUEST_ID_MAX;
}

/* X-Request-Id: a trusted proxy's, or made here. */
static void
request_id(struct exchange *x, const struct head *h)
{
	struct text t = { x->id, 0, sizeof x->id - 1, false };
	const struct field *f = head_field(h, F_X_REQUEST_ID);

	if (f && conf->server.trusted.n > 0 && id_is_good(f->value) &&
	    cidrs_have(&conf->server.trusted, &x->c->peer)) {
		text_add(&t, f->value);
		return;
	}
	text_hex(&t, random_next(), 16);
	text_hex(&t, random_next(), 16);
}

/* An upgrade that may be passed on: HTTP/1.1, no body, and not to HTTP/2,
 * which warp could not follow. RFC 9110 7.8. */
static bool
wants_upgrade(const struct exchange *x, const struct head *h)
{
	return h->minor > 0 && h->count[F_UPGRADE] == 1 && x->up.body.kind == BODY_NONE &&
	    head_field(h, F_UPGRADE)->value.n > 0 &&
	    head_has(h, F_CONNECTION, "upgrade") && !head_has(h, F_UPGRADE, "h2c");
}

static bool
client_keeps(const struct exchange *x, const struct head *h)
{
	if (h->minor == 0)
		return head_has(h, F_CONNECTION, "keep-alive") &&
		    !head_has(h, F_CONNECTION, "close");
	return !head_has(h, F_CONNECTION, "close") && x->c->served + 1 < conf->server.keepalive_requests;
}

static enum step
gate_limit(struct exchange *x)
{
	const struct route *r = x->route;
	uint64_t tag = hash64(rate_seed + r->line, x->client.b, sizeof x->client.b);
	char b[64];
	struct text t = { b, 0, sizeof b, false };
	unsigned wait = rate_take(&r->rate, tag);

	if (wait == 0)
		return STEP_WAIT;
	text_add(&t, S("Retry-After: "));
	text_uint(&t, wait);
	text_add(&t, S("\r\n"));
	return exchange_error(x, 429, "too many requests from this address", text_slice(&t));
}

/* Where the route redirects to: `{host}`, `{uri}` and `{path}` are the
 * request's own. */
static void
redirect_write(struct text *t, const struct exchange *x, const struct head *h)
{
	struct slice rest = x->route->redirect, bare = host_normal(x->host);
	const struct pair vars[] = {
		{ S("{host}"), bare.n > 0 && x->host.p[0] != '[' ? bare : x->host },
		{ S("{uri}"), h->form == TARGET_ORIGIN ? h->target : h->path },
		{ S("{path}"), h->path },
	};
	size_t i;

	while (rest.n > 0) {
		for (i = 0; i < LEN(vars) && !slice_starts(rest, vars[i].name); i++)
			;
		if (i < LEN(vars)) {
			text_add(t, vars[i].value);
			rest = slice_from(rest, vars[i].name.n);
			continue;
		}
		text_char(t, *rest.p);
		rest = slice_from(rest, 1);
	}
}

static enum step
gate_redirect(struct exchange *x, const struct head *h)
{
	static char buf[TARGET_MAX];
	struct text t = { buf, 0, sizeof buf, false };

	text_add(&t, S("Location: "));
	redirect_write(&t, x, h);
	text_add(&t, S("\r\n"));
	if (t.full)
		return exchange_error(x, 414, "the redirect is too long", S(""));
	return exchange_error(x, x->route->status, "", text_slice(&t));
}

static enum step
gate_respond(struct exchange *x)
{
	struct answer a = { .status = x->route->status, .content_type = x->route->content_type,
		.body = x->route->body };

	return exchange_answer(x, &a);
}

/* The route's upstream shall answer: at once, or when the body is whole. */
static enum step
gate_forward(struct exchange *x, const struct head *h)
{
	bool has_body = x->up.body.kind != BODY_NONE;

	x->expect = has_body && h->minor > 0 && h->count[F_EXPECT] > 0;
	x->upgrade = wants_upgrade(x, h);
	if (x->upgrade && !x->route->websocket)
		return exchange_error(x, 426, "this route takes no upgrade",
		    S("Upgrade: HTTP/1.1\r\nConnection: upgrade\r\n"));
	x->up.state = has_body ? FLOW_ON : FLOW_OFF;
	x->state = X_PICK;
	if (has_body && x->route->buffer_request >= 0) {
		x->spool = spool_new();
		x->state = X_SPOOL;
	} else
		x->up.chunk_out = x->up.body.kind == BODY_CHUNKED;
	return STEP_AGAIN;
}

/* What the route asks of who wants in. STEP_WAIT: nothing against it. */
static enum step
gate_guard(struct exchange *x, const struct head *h)
{
	const struct route *r = x->route;
	enum step s;

	if (r->rate.requests > 0 && (s = gate_limit(x)) != STEP_WAIT)
		return s;
	if (r->require_auth && !auth_token_ok(h, conf->server.admin_token))
		return exchange_error(x, 401, "a token is required",
		    S("WWW-Authenticate: Token\r\n"));
	if (r->basic_auth.n > 0 && !auth_basic_ok(h, &r->basic_auth))
		return exchange_error(x, 401, "a user and password are required",
		    S("WWW-Authenticate: Basic realm=\"warp\", charset=\"UTF-8\"\r\n"));
	x->up.limit = r->has_max_body ? r->max_body_bytes : conf->server.max_body_bytes;
	if (x->up.limit > 0 && x->up.body.kind == BODY_LENGTH && x->up.body.left > x->up.limit)
		return exchange_error(x, 413, "the request body is too big", S(""));
	return STEP_WAIT;
}

static enum step
gate_route(struct exchange *x, const struct head *h)
{
	struct path_view view;
	enum step s;

	if (h->path_plain)
		path_plain(h->path, &view);
	else if (path_normalise(h->path, &view) < 0)
		return exchange_error(x, 400, "the path is malformed", S(""));
	x->route = route_find(&conf->table, h, view.path, &x->client);
	if (!x->route)
		return exchange_error(x, conf->server.no_route_status, "no route matches", S(""));
	if ((s = gate_guard(x, h)) != STEP_WAIT)
		return s;
	switch (x->route->action) {
	case ACT_REDIRECT:
		return gate_redirect(x, h);
	case ACT_RESPOND:
		return gate_respond(x);
	default:
		return gate_forward(x, h);
	}
}

/* Routes x, whose head is req, or answers it. */
static enum step
gate_enter(struct exchange *x)
{
	struct head *h = exchange_request(x);
	int err = body_of_request(&x->up.body, h);
	const struct field *expect = head_field(h, F_EXPECT);

	x->wants_close = !client_keeps(x, h);
	x->keep = !x->wants_close && !draining && err >= 0;
	x->body_whole = err == 0 && x->up.body.done;
	request_id(x, h);
	if (err < 0)
		return exchange_error(x, -err, "the request's framing is refused", S(""));
	x->client = client_of(&x->c->peer, h);
	if (expect && (h->count[F_EXPECT] > 1 || !slice_ieq(expect->value, S("100-continue")))) {
		x->keep = false; /* does its body come or not? */
		return exchange_error(x, 417, "only 100-continue can be expected", S(""));
	}
	if (h->form == TARGET_ASTERISK)
		return exchange_answer(x, &(struct answer){ .status = 204,
		    .extra = S("Allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS\r\n") });
	return gate_route(x, h);
}

/* ==== admin front ============================================================
 * Owns    the one exchange that waits for the master's word.
 * Offers  admin_enter, admin_told.
 * Calls   admin, auth, exchange. */

static struct exchange *asking; /* NULL: it has left, or nobody asks */
static struct conn *asking_conn;
static bool verb_asked;         /* the master's answer is to come */
static int ctl_fd = -1; /* the master */

static enum step
admin_error(struct exchange *x, int status, const char *text)
{
	return exchange_answer(x, &(struct answer){ .status = status,
	    .content_type = S("text/plain; charset=utf-8"), .body = slice_of(text) });
}

static enum step
admin_ask(struct exchange *x, const char *verb)
{
	char b[64];
	int n = snprintf(b, sizeof b, "%c%s", CTL_VERB, verb);

	if (verb_asked)
		return admin_error(x, 503, "another command is under way\n");
	if (send(ctl_fd, b, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return admin_error(x, 503, "the master does not listen\n");
	verb_asked = true;
	asking = x;
	asking_conn = x->c;
	x->state = X_ASK;
	return STEP_AGAIN;
}

static enum step
admin_enter(struct exchange *x)
{
	struct head *h = exchange_request(x);
	const struct field *token = head_field(h, F_X_ADMIN_TOKEN);
	struct slice bearer = auth_credentials(h, "Bearer");
	struct admin_request rq = {
		.method = h->method, .path = h->path, .query = h->query,
		.is_unix = x->c->listener->addr.kind == ADDR_UNIX,
		.token = token ? token->value : bearer,
	};
	struct admin_reply reply = { 0 };

	x->admin = true;
	x->wants_close = !client_keeps(x, h);
	x->keep = !x->wants_close && !draining;
	if (body_of_request(&x->up.body, h) < 0)
		return exchange_error(x, 400, "bad framing", S(""));
	x->body_whole = x->up.body.done;
	admin_answer(&rq, conf, &reply);
	if (reply.verb)
		return admin_ask(x, reply.verb);
	return exchange_answer(x, &(struct answer){ .status = reply.status,
	    .content_type = slice_of(reply.content_type), .extra = slice_of(reply.extra),
	    .body = { reply.body, reply.n }, .owned = reply.body });
}

/* The master's answer to the verb: "ok", or what is wrong. Returns who asked,
 * NULL when it has left. */
static struct conn *
admin_told(struct slice word)
{
	struct exchange *x = asking;
	bool good = slice_eq(word, S("ok"));
	char *copy;

	verb_asked = false;
	asking = NULL;
	if (!x)
		return NULL;
	copy = xcalloc(1, word.n + 1);
	memcpy(copy, word.p, word.n);
	copy[word.n] = '\n';
	if (exchange_answer(x, &(struct answer){ .status = good ? 200 : 409,
	    .content_type = S("text/plain; charset=utf-8"),
	    .body = { copy, word.n + 1 }, .owned = copy }) != STEP_DONE)
		exchange_run(x);
	return asking_conn;
}

/* ==== http front =============================================================
 * Owns    client connections and the listeners' watches.
 * Offers  front_open, front_drain, front_told, n_conns.
 * Calls   gate, admin front, exchange, access, loop. The doors: what poll and
 *         the timers say arrives here first. */

static struct conn *conns, *conns_free, *conns_open;
static uint32_t n_conns, n_conns_made, max_conns;
static struct listener *listeners;
static int n_listeners;
static bool accepting;
static struct timer accept_again;

static void
accept_watch(bool on)
{
	accepting = on;
	for (int i = 0; i < n_listeners; i++)
		if (on)
			loop_watch(&listeners[i].w, POLLIN);
		else
			loop_unwatch(&listeners[i].w);
}

static void
accept_due(struct timer *t)
{
	(void)t;
	if (!draining && n_conns < max_conns)
		accept_watch(true);
}

static void
conn_close(struct conn *c)
{
	if (c == asking_conn)
		asking = NULL; /* its exchange went before it */
	side_close(&c->s);
	c->state = CONN_FREE;
	if (c->prev)
		c->prev->next = c->next;
	else
		conns_open = c->next;
	if (c->next)
		c->next->prev = c->prev;
	c->next = conns_free;
	conns_free = c;
	n_conns--;
	COUNT(me->connections, -1u);
	if (!accepting && !draining && !accept_again.list)
		accept_watch(true);
}

/* Between requests. */
static void
conn_rest(struct conn *c)
{
	uint32_t keep = c->served ? conf->server.keepalive_ms : conf->server.header_ms;

	if (c->state == CONN_HEAD)
		return;
	loop_watch(&c->s.ch.w, POLLIN);
	timer_set(&c->s.timer, draining ? MIN(keep, (uint32_t)DRAIN_IDLE_MS) : keep);
}

/* Answered while the client may still be sending: the answer would be lost if
 * the connection was reset now. RFC 9112 9.6. */
static void
conn_linger(struct conn *c)
{
	buf_free(&c->s.in);
	if (shutdown(c->s.ch.w.fd, SHUT_WR) < 0) {
		conn_close(c);
		return;
	}
	c->linger_by_ms = now_ms + LINGER_ALL_MS;
	loop_watch(&c->s.ch.w, POLLIN);
	timer_set(&c->s.timer, LINGER_MS);
}

static void
conn_linger_read(struct conn *c)
{
	ssize_t got = side_fill(&c->s);

	buf_free(&c->s.in);
	if (got < 0 || now_ms > c->linger_by_ms)
		conn_close(c);
	else
		timer_set(&c->s.timer, LINGER_MS);
}

/* What came is no request: said so, then the connection ends. */
static void
conn_refuse(struct conn *c, int status, const char *cause)
{
	struct exchange *x;

	buf_free(&c->s.in);
	x = exchange_new(c, 0);
	x->up.body.kind = BODY_CLOSE; /* unknown: the rest is not looked at */
	x->minor = 1;
	if (exchange_error(x, status, cause, S("")) != STEP_DONE)
		exchange_run(x);
}

/* Part of a head: more must come, in time. */
static void
conn_more(struct conn *c)
{
	struct slice in = buf_slice(&c->s.in);
	int n = head_scan(in, &c->scanned);

	if (n < 0)
		conn_refuse(c, 400, "the request head is malformed");
	else if (in.n > conf->server.max_header_bytes)
		conn_refuse(c, memchr(in.p, '\n', in.n) ? 431 : 414, "the request head is too long");
	else if (c->state != CONN_HEAD) {
		c->state = CONN_HEAD;
		loop_watch(&c->s.ch.w, POLLIN);
		timer_set(&c->s.timer, conf->server.header_ms);
	}
}

/* Takes a PROXY header off the front. False: not whole yet, or refused. */
static bool
conn_proxy(struct conn *c)
{
	struct ip src = { { 0 } }, dst;
	uint16_t sport = 0, dport;
	int n = proxy_parse(buf_slice(&c->s.in), &src, &sport, &dst, &dport);

	if (n < 0) {
		log_info("a client sent no PROXY header: closed");
		c->state = CONN_LINGER;
		return false;
	}
	if (n == 0) {
		loop_watch(&c->s.ch.w, POLLIN);
		timer_keep(&c->s.timer, conf->server.header_ms);
		return false;
	}
	if (!ip_is_none(&src)) {
		c->peer = src;
		c->peer_port = sport;
	}
	buf_eat(&c->s.in, (size_t)n);
	c->state = CONN_IDLE;
	return true;
}

/* Starts the next request, if its head is whole. False: not yet. */
static bool
conn_request(struct conn *c)
{
	struct slice in = buf_slice(&c->s.in);
	struct exchange *x;
	int n;

	if (c->state == CONN_PROXY)
		return conn_proxy(c);
	if (c->scanned > 0 && (n = head_scan(in, &c->scanned)) == 0) {
		conn_more(c);
		return c->s.x != NULL;
	}
	req_of = NULL;
	n = request_parse(&req, in);
	if (n == 0) {
		conn_more(c);
		return false;
	}
	c->scanned = 0;
	if (n < 0) {
		conn_refuse(c, -n, "the request head is malformed");
		return false;
	}
	if ((uint32_t)n > conf->server.max_header_bytes) {
		conn_refuse(c, 431, "the request head is too long");
		return false;
	}
	x = exchange_new(c, (size_t)n);
	if ((c->listener->kind == LISTEN_ADMIN ? admin_enter(x) : gate_enter(x)) != STEP_DONE)
		exchange_run(x);
	return true;
}

/* Goes on with c after whatever happened to it. */
static void
conn_go(struct conn *c)
{
	while (c->state != CONN_FREE && !c->s.x) {
		if (c->state == CONN_CLOSE) {
			conn_close(c);
			return;
		}
		if (c->state == CONN_LINGER) {
			conn_linger(c);
			return;
		}
		if (c->s.in.n == 0) {
			conn_rest(c);
			return;
		}
		if (!conn_request(c) && !c->s.x && c->state < CONN_CLOSE)
			return;
	}
}

static void
conn_ready(struct watch *w, short revents)
{
	struct conn *c = (struct conn *)w;

	if (c->s.x) {
		exchange_client_event(c->s.x, revents);
	} else if (c->state == CONN_LINGER) {
		conn_linger_read(c);
		side_settle();
		return;
	} else if (side_fill(&c->s) < 0)
		conn_close(c);
	conn_go(c);
	side_settle();
}

static void
conn_due(struct timer *t)
{
	struct conn *c = (struct conn *)((char *)t - offsetof(struct conn, s.timer));

	if (c->s.x)
		exchange_client_due(c->s.x);
	else if (c->state == CONN_HEAD)
		conn_refuse(c, 408, "the request head did not come in time");
	else
		conn_close(c);
	conn_go(c);
	side_settle();
}

static void
upconn_ready(struct watch *w, short revents)
{
	struct upconn *u = (struct upconn *)w;
	struct conn *c = u->s.x->c;

	exchange_upstream_event(u->s.x, revents);
	conn_go(c);
	side_settle();
}

static void
upconn_due(struct timer *t)
{
	struct upconn *u = (struct upconn *)((char *)t - offsetof(struct upconn, s.timer));
	struct conn *c = u->s.x->c;

	exchange_upstream_due(u->s.x);
	conn_go(c);
	side_settle();
}

static void
conn_open(struct listener *l, int fd, const union sock *peer)
{
	struct conn *c = conns_free;

	if (c)
		conns_free = c->next;
	else
		c = &conns[n_conns_made++];
	*c = (struct conn){ .listener = l, .next = conns_open };
	if (conns_open)
		conns_open->prev = c;
	conns_open = c;
	chan_open(&c->s.ch, fd, conn_ready);
	c->s.timer.fire = conn_due;
	if (peer->sa.sa_family != AF_UNIX)
		c->peer = ip_of_sock(peer, &c->peer_port);
	c->state = conf->server.proxy_protocol && l->kind == LISTEN_HTTP ? CONN_PROXY : CONN_IDLE;
	n_conns++;
	COUNT(me->connections, 1);
	COUNT(me->accepted, 1);
	conn_ready(&c->s.ch.w, POLLIN); /* the request is often here already */
}

/* Out of descriptors or memory: no new clients for a moment. */
static void
accept_pause(void)
{
	static int64_t said_ms = -MINUTE_S * SECOND_MS;

	COUNT(me->refused, 1);
	if (now_ms - said_ms >= MINUTE_S * SECOND_MS) {
		log_errno("accept; clients wait, raise the limit of open files");
		said_ms = now_ms;
	}
	accept_watch(false);
	timer_set(&accept_again, ACCEPT_RETRY_MS);
}

static void
listener_ready(struct watch *w, short revents)
{
	struct listener *l = (struct listener *)w;
	union sock peer;
	socklen_t n;
	int fd;

	(void)revents;
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		if (n_conns == max_conns) {
			accept_watch(false);
			return;
		}
		n = sizeof peer;
		peer.sa.sa_family = AF_UNIX;
		fd = accept4(l->fd, &peer.sa, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			conn_open(l, fd, &peer);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			accept_pause();
		if (errno != EINTR && errno != ECONNABORTED && errno != EPROTO)
			return;
	}
}

static void
front_open(struct listener *ls, int n, uint32_t clients)
{
	listeners = ls;
	n_listeners = n;
	max_conns = clients;
	conns = map_zeroed(clients * sizeof *conns);
	upstream_door = upconn_ready;
	upstream_due = upconn_due;
	accept_again.fire = accept_due;
	for (int i = 0; i < n; i++)
		ls[i].w = (struct watch){ .fd = ls[i].fd, .slot = -1, .ready = listener_ready };
	accept_watch(true);
}

/* No new clients; idle ones get a last chance to be closed in peace. */
static void
front_drain(void)
{
	draining = true;
	timer_clear(&accept_again);
	accept_watch(false);
	for (int i = 0; i < n_listeners; i++)
		close(listeners[i].fd);
	for (struct conn *c = conns_open, *next; c; c = next) {
		next = c->next;
		if (!c->s.x && c->state == CONN_IDLE)
			conn_rest(c);
	}
}

static void
front_told(struct slice word)
{
	struct conn *c = admin_told(word);

	if (c)
		conn_go(c);
}

/* ==== worker =================================================================
 * Owns    the process that carries traffic.
 * Offers  worker_run.
 * Calls   everything of the services. Told what to do by the master. */

#define CTL_MAX 512 /* bytes of one message */

static struct watch ctl_watch;
static bool worker_stops;

static void
worker_logs(const struct msghdr *m)
{
	const struct cmsghdr *cm = CMSG_FIRSTHDR(m);
	int fds[2]; /* access, error */

	if (!cm || cm->cmsg_type != SCM_RIGHTS || cm->cmsg_len != CMSG_LEN(sizeof fds))
		return;
	memcpy(fds, CMSG_DATA(cm), sizeof fds);
	access_fd(fds[0]);
	if (log_fd != STDERR_FILENO)
		close(log_fd);
	log_fd = fds[1];
}

/* A message from the master; its end means that it died, and a worker does
 * not outlive it. */
static void
worker_ctl(struct watch *w, short revents)
{
	char b[CTL_MAX];
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec v = { b, sizeof b };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control.space,
		.msg_controllen = sizeof control.space };
	ssize_t n = recvmsg(w->fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	(void)revents;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		worker_stops = true;
		return;
	}
	switch (b[0]) {
	case CTL_DRAIN:
		if (!draining) {
			front_drain();
			pool_drain(conf);
		}
		break;
	case CTL_STOP:
		worker_stops = true;
		break;
	case CTL_LOGS:
		worker_logs(&m);
		break;
	case CTL_VERB:
		front_told((struct slice){ b + 1, (size_t)n - 1 });
		break;
	default:
		log_error("the master said something unknown: %d", b[0]);
	}
}

static void
worker_open(struct conf *cf, struct listener *ls, int n, int ctl)
{
	uint32_t share = (cf->server.max_connections + (uint32_t)cf->server.workers - 1) /
	    (uint32_t)cf->server.workers;

	clock_turn();
	blocks_open(cf->server.max_header_bytes);
	scratch = block_take(BLOCK_LARGE);
	loop_open((int)(3 * share) + n + 1);
	pool_open(share);
	heads_open(cf);
	gate_open();
	access_start(cf, &me->log_dropped);
	ctl_fd = ctl;
	ctl_watch = (struct watch){ .fd = ctl, .slot = -1, .ready = worker_ctl };
	loop_watch(&ctl_watch, POLLIN);
	front_open(ls, n, share);
}

/* Lines of the last requests: a slow reader gets a moment to take them. */
static void
worker_flush(void)
{
	for (int i = 0; i < LOG_LAST_TRIES && access_due_ms() >= 0; i++) {
		if (i > 0)
			poll(NULL, 0, access_due_ms());
		clock_turn();
		access_flush(true);
	}
}

/* Carries traffic until the master says that it is enough. */
_Noreturn static void
worker_run(struct conf *cf, struct listener *ls, int n, int ctl, int slot)
{
	static const char ready = CTL_READY;

	log_who = "worker";
	me = &board->workers[slot];
	worker_open(cf, ls, n, ctl);
	if (send(ctl, &ready, 1, MSG_NOSIGNAL) < 0)
		_exit(EXIT_OTHER);
	while (!worker_stops && (!draining || n_conns > 0)) {
		loop_turn(access_due_ms());
		access_flush(false);
	}
	worker_flush();
	_exit(0);
}

/* ==== explain ================================================================
 * Owns    nothing.
 * Offers  explain.
 * Calls   route, heads. `warp -e`: what would become of a request, unsent. */

#define EXPLAIN_MAX 32768 /* bytes of the request made of the arguments */

/* `METHOD URL` and lines to a request head. False: it does not fit. */
static bool
explain_request(struct text *t, struct slice request, const char *const *headers, int n)
{
	struct slice rest = slice_trim(request), method, authority = { NULL, 0 };
	const char *at;

	if (memchr(rest.p, ' ', rest.n))
		slice_cut(&rest, ' ', &method);
	else
		method = S("GET");
	rest = slice_trim(rest);
	if ((at = memmem(rest.p, rest.n, "://", 3))) {
		authority = slice_from(rest, (size_t)(at - rest.p) + 3);
		at = memchr(authority.p, '/', authority.n);
		rest = at ? slice_from(authority, (size_t)(at - authority.p)) : S("/");
		authority.n = at ? (size_t)(at - authority.p) : authority.n;
	}
	text_add(t, method);
	text_char(t, ' ');
	text_add(t, rest);
	text_add(t, S(" HTTP/1.1\r\n"));
	if (authority.p)
		line_write(t, S("Host"), authority);
	for (int i = 0; i < n; i++) {
		text_str(t, headers[i]);
		text_add(t, S("\r\n"));
		if (strncasecmp(headers[i], "host:", 5) == 0)
			authority = S("given");
	}
	if (!authority.p)
		text_add(t, S("Host: localhost\r\n"));
	text_add(t, S("\r\n"));
	return !t->full;
}

static const struct route *
explain_routes(const struct conf *cf, const struct head *h, struct slice path,
    const struct ip *client, FILE *to)
{
	char hostbuf[HOST_MAX + 1];
	struct slice host = host_normal(h->host);

	if (host.n > 0)
		memcpy(hostbuf, host.p, host.n);
	host.p = hostbuf;
	for (int i = 0; i < cf->table.n; i++) {
		const struct route *r = &cf->table.routes[i];
		const char *why = route_why(r, h, host, path, client);
		fprintf(to, "route %d (line %u): %s%s\n", i + 1, r->line,
		    why ? "no, its condition fails: " : "taken", why ? why : "");
		if (!why)
			return r;
	}
	fprintf(to, "no route matches: %d\n", cf->server.no_route_status);
	return NULL;
}

static void
explain_guards(const struct route *r, const struct head *h, const struct conf *cf, FILE *to)
{
	if (r->rate.requests > 0)
		fprintf(to, "rate limit: %u requests per %u ms, burst %u\n", r->rate.requests,
		    r->rate.per_ms, r->rate.burst);
	if (r->require_auth)
		fprintf(to, "token: %s\n", auth_token_ok(h, cf->server.admin_token) ? "good" :
		    "missing or wrong: 401");
	if (r->basic_auth.n > 0)
		fprintf(to, "basic auth: %s\n", auth_basic_ok(h, &r->basic_auth) ? "good" :
		    "missing or wrong: 401");
}

/* The head as the first candidate would get it. */
static void
explain_upstream(struct exchange *x, struct head *h, FILE *to)
{
	struct upstream *up = x->route->upstream;

	fprintf(to, "upstream %s, %s; candidates:\n", up->name, up->balance->name);
	for (int i = 0; i < up->n_instances; i++)
		fprintf(to, "  %d %s weight %u\n", i, up->instances[i].addr.text,
		    up->instances[i].weight);
	x->inst = &up->instances[0];
	head_out.n = 0;
	head_out.full = false;
	if (request_write(&head_out, x, h))
		fprintf(to, "it is sent:\n%.*s", (int)head_out.n, head_out.p);
	else
		fputs("it cannot be sent: too long, or no path after rewriting\n", to);
	for (int i = 0; i < h->n; i++)
		if (h->f[i].drop && h->f[i].id != F_HOST)
			fprintf(to, "request loses %.*s as the client sent it\n",
			    (int)h->f[i].name.n, h->f[i].name.p);
	for (int i = 0; i < x->route->add_response_headers.n; i++)
		fprintf(to, "response gets %.*s: %.*s\n",
		    (int)x->route->add_response_headers.v[i].name.n,
		    x->route->add_response_headers.v[i].name.p,
		    (int)x->route->add_response_headers.v[i].value.n,
		    x->route->add_response_headers.v[i].value.p);
	for (int i = 0; i < x->route->remove_response_headers.n; i++)
		fprintf(to, "response loses %.*s\n", (int)x->route->remove_response_headers.v[i].n,
		    x->route->remove_response_headers.v[i].p);
}

static void
explain_action(struct exchange *x, struct head *h, FILE *to)
{
	const struct route *r = x->route;

	head_out.n = 0;
	if (r->action == ACT_REDIRECT) {
		redirect_write(&head_out, x, h);
		fprintf(to, "redirect %d to %.*s\n", r->status, (int)head_out.n, head_out.p);
	} else if (r->action == ACT_RESPOND)
		fprintf(to, "answer %d with %zu bytes of %.*s\n", r->status, r->body.n,
		    (int)r->content_type.n, r->content_type.p);
	else
		explain_upstream(x, h, to);
}

/* Says what would become of the request. 0, or 2: it is no request. */
static int
explain(struct conf *cf, const char *request, const char *const *headers, int n,
    const char *client, FILE *to)
{
	static char buf[EXPLAIN_MAX];
	static struct listener listener;
	static struct conn c = { .listener = &listener };
	static struct exchange x;
	struct text t = { buf, 0, sizeof buf, false };
	struct path_view view;
	int err;

	if (client && !ip_parse(slice_of(client), &c.peer)) {
		fprintf(stderr, "warp: -a %s: expected an IP address\n", client);
		return EXIT_USAGE;
	}
	if (!client)
		c.peer = (struct ip){ { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1 } };
	heads_open(cf);
	clock_turn();
	listener.port = cf->server.n_listens ? cf->server.listens[0].port : 0;
	if (!explain_request(&t, slice_of(request), headers, n) ||
	    (err = request_parse(&req, text_slice(&t))) <= 0) {
		fprintf(stderr, "warp: -e: expected 'METHOD URL', and -H 'Name: value'\n");
		return EXIT_USAGE;
	}
	if (path_normalise(req.path, &view) < 0) {
		fprintf(to, "the path is malformed: 400\n");
		return 0;
	}
	fprintf(to, "path %.*s\n", (int)view.path.n, view.path.p);
	x = (struct exchange){ .c = &c, .host = req.host, .minor = 1, .client = client_of(&c.peer, &req) };
	x.up.body.done = true;
	snprintf(x.id, sizeof x.id, "(made for each request)");
	x.route = explain_routes(cf, &req, view.path, &x.client, to);
	if (!x.route)
		return 0;
	explain_guards(x.route, &req, cf, to);
	explain_action(&x, &req, to);
	return 0;
}

/* ==== resolve ================================================================
 * Owns    the helper process that may block on DNS.
 * Offers  resolve_fixed, resolve_start.
 * Calls   base, log, board, privilege. Writes addresses to the board; workers
 *         read them there, and never wait. */

/* Addresses that need no looking up. True: there are names as well. */
static bool
resolve_fixed(struct conf *cf)
{
	bool names = false;

	for (int u = 0; u < cf->n_upstreams; u++)
		for (int i = 0; i < cf->upstreams[u].n_instances; i++) {
			struct instance *in = &cf->upstreams[u].instances[i];
			if (in->addr.kind == ADDR_NAME)
				names = true;
			else
				board_addrs_set(in->board, &in->addr.sock, &in->addr.sock_n, 1);
		}
	return names;
}

static bool
resolve_is_same(const struct board_addrs *a, const union sock *sock, const socklen_t *sock_n,
    unsigned n)
{
	if (a->n != n)
		return false;
	for (unsigned i = 0; i < n; i++)
		if (a->sock_n[i] != sock_n[i] || memcmp(&a->sock[i], &sock[i], sock_n[i]) != 0)
			return false;
	return true;
}

/* Looks one name up. False: it does not resolve; what was known stays. life:
 * when the master has closed it meanwhile, another resolver may be writing. */
static bool
resolve_one(const struct instance *in, int life, bool said)
{
	struct pollfd p = { .fd = life, .events = POLLIN };
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list, *ai;
	union sock sock[INSTANCE_ADDRS];
	socklen_t sock_n[INSTANCE_ADDRS];
	char port[8];
	unsigned n = 0;
	int err;

	snprintf(port, sizeof port, "%u", in->addr.port);
	err = getaddrinfo(in->addr.host, port, &hints, &list);
	if (poll(&p, 1, 0) > 0)
		_exit(0);
	if (err != 0) {
		if (!said)
			log_warn("upstream %s: %s does not resolve: %s", in->up->name,
			    in->addr.host, gai_strerror(err));
		return false;
	}
	memset(sock, 0, sizeof sock);
	for (ai = list; ai && n < INSTANCE_ADDRS; ai = ai->ai_next)
		if (ai->ai_addrlen <= sizeof sock[n]) {
			memcpy(&sock[n], ai->ai_addr, ai->ai_addrlen);
			sock_n[n++] = ai->ai_addrlen;
		}
	freeaddrinfo(list);
	if (!resolve_is_same(&in->board->addrs, sock, sock_n, n))
		board_addrs_set(in->board, sock, sock_n, n);
	if (said)
		log_info("upstream %s: %s resolves now", in->up->name, in->addr.host);
	return true;
}

/* Looks up all names, or those alone that failed before. failed has a byte for
 * each instance on the board. False: some do not resolve. */
static bool
resolve_round(const struct conf *cf, int life, char *failed, bool whole)
{
	bool all = true;

	for (int u = 0; u < cf->n_upstreams; u++)
		for (int i = 0; i < cf->upstreams[u].n_instances; i++) {
			const struct instance *in = &cf->upstreams[u].instances[i];
			char *f = &failed[in->board - board->instances];
			if (in->addr.kind != ADDR_NAME || (!whole && !*f))
				continue;
			*f = !resolve_one(in, life, *f);
			all &= !*f;
		}
	return all;
}

/* The helper's life: it ends when the master's end of the pipe does. */
_Noreturn static void
resolve_run(const struct conf *cf, int life)
{
	struct server_conf as = cf->server;
	struct pollfd p = { .fd = life, .events = POLLIN };
	char *failed = xcalloc(INSTANCES_MAX, 1), first = 1;
	int64_t whole_ms = 0;
	bool all, whole;

	log_who = "resolver";
	as.chroot = NULL; /* resolv.conf and hosts are outside */
	if (privilege_drop(&as) < 0)
		_exit(EXIT_OTHER);
	/* poll alone would not end a lookup that hangs */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || poll(&p, 1, 0) != 0)
		_exit(EXIT_OTHER);
	for (;;) {
		clock_turn();
		if ((whole = now_ms >= whole_ms))
			whole_ms = now_ms + DNS_TTL_SECS * SECOND_MS;
		all = resolve_round(cf, life, failed, whole);
		if (first && write(life, &first, 1) < 0)
			_exit(0);
		first = 0; /* nobody reads more than one: the pipe would fill up */
		if (poll(&p, 1, (all ? DNS_TTL_SECS : DNS_RETRY_SECS) * SECOND_MS) > 0)
			_exit(0); /* the master says nothing: it is gone, or done with us */
	}
}

/* Forks the helper; shed closes there what only the master shall have. Returns
 * its pid and, in *life, the descriptor that keeps it alive and says a byte
 * after the first round; -1: logged. */
static pid_t
resolve_start(const struct conf *cf, void (*shed)(void), int *life)
{
	int sv[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return log_errno("resolver");
	if ((pid = fork()) == 0) {
		close(sv[0]);
		shed();
		resolve_run(cf, sv[1]);
	}
	close(sv[1]);
	if (pid < 0) {
		close(sv[0]);
		return log_errno("resolver");
	}
	*life = sv[0];
	return pid;
}
/* ==== master =================================================================
 * Owns    the configuration, listening sockets, workers, resolver, signals.
 * Offers  master_run.
 * Calls   conf, listen, logfile, board, resolve, worker. Never touches
 *         traffic. A generation is one configuration's workers: the newest
 *         serves, older ones drain; a reload is a generation that gets ready
 *         before the one before it is told to drain. */

#define WORKER_SLOTS   (WORKERS_MAX * 2)
#define CHECK_WAIT_S   30   /* `-t` of a new binary */
#define STOP_WAIT_MS   1000 /* for workers told to stop */
#define ENV_INHERIT    "WARP_INHERIT"
#define ENV_OLD        "WARP_UPGRADE_FROM"
#define INHERIT_MAX    65536

enum master_state { M_STARTING, M_RUNNING, M_RELOADING, M_DRAINING, M_STOPPING, MASTER_STATES };

/* What happens to the master; master_do says who reacts. */
enum master_event {
	EV_RELOAD,  /* HUP, or asked over the admin socket, as the next three */
	EV_UPGRADE, /* USR2 */
	EV_QUIT,    /* QUIT */
	EV_STOP,    /* TERM, INT */
	EV_READY,   /* all workers of the newest generation accept */
	EV_DEATH,   /* one of them died before that */
	EV_LATE,    /* the deadline of this state is over */
	MASTER_EVENTS
};

struct listeners {
	struct listener v[LISTENERS_MAX];
	int n;
};

/* How warp was started: read again at each reload. */
struct start {
	char **argv;
	const char *file;            /* NULL: simple mode */
	const char *listen, *target; /* of simple mode */
	const char *pid_file;
	int notify_fd;  /* -n, or -1 */
	int daemon_fd;  /* the waiting parent of -d, or -1 */
};

static struct {
	const struct start *start;
	enum master_state state;
	struct conf *conf, *next;      /* next: being reloaded */
	struct listeners ls, next_ls;
	struct listeners had;          /* inherited, until all workers are ready */
	struct worker workers[WORKER_SLOTS];
	unsigned generation;           /* that serves */
	unsigned newest;               /* that was started last; numbers are not reused */
	int64_t respawn_ms;            /* when missing workers are started; 0: none miss */
	int64_t deadline_ms;           /* of starting, reloading, stopping */
	pid_t resolver;
	int resolver_life;
	int64_t resolver_again_ms, resolver_wait_ms;
	int signals;                   /* signalfd */
	int pid_fd, notify_fd, daemon_fd;
	int asker;                     /* slot whose client waits for a verb; -1 */
	bool reload_again;
	char exe[PATH_MAX];
	int code;                      /* exit status to be */
} m;

/* ---- telling others ---- */

/* One datagram to systemd. */
static void
notify_systemd(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	size_t n = path ? strlen(path) : 0;
	int fd;

	if (n < 2 || n >= sizeof un.sun_path ||
	    (fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) < 0)
		return;
	memcpy(un.sun_path, path, n);
	if (un.sun_path[0] == '@')
		un.sun_path[0] = '\0';
	if (sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&un,
	    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
		log_errno("NOTIFY_SOCKET %s", path);
	close(fd);
}

static void
notify_fmt(const char *what)
{
	char text[128];

	clock_turn();
	snprintf(text, sizeof text, "%s\nMONOTONIC_USEC=%lld\nMAINPID=%d", what,
	    (long long)now_us, (int)getpid());
	notify_systemd(text);
}

static void
worker_tell(const struct worker *w, char op, const char *text)
{
	char b[CTL_MAX];
	int n = snprintf(b, sizeof b, "%c%s", op, text);

	if (w->pid > 0 && w->ctl >= 0 && n > 0)
		send(w->ctl, b, MIN((size_t)n, sizeof b - 1), MSG_NOSIGNAL | MSG_DONTWAIT);
	/* one that does not listen is dying: it is reaped, or killed when late */
}

/* The result of a verb, to the worker that asked. */
static void
asker_told(const char *text)
{
	if (m.asker >= 0)
		worker_tell(&m.workers[m.asker], CTL_VERB, text);
	m.asker = -1;
}

static void
diags_log(const struct diags *ds)
{
	for (const struct diag *d = ds->first; d; d = d->next) {
		void (*say)(const char *, ...) = d->level == DIAG_ERROR ? log_error : log_warn;
		if (d->line > 0)
			say("%s:%u:%u: %s", ds->file, d->line, d->col, d->text);
		else
			say("%s: %s", ds->file ? ds->file : "warp", d->text);
	}
}

/* The first error, for who asked. */
static const char *
diags_first(const struct diags *ds)
{
	static char text[CTL_MAX - 1];

	for (const struct diag *d = ds->first; d; d = d->next)
		if (d->level == DIAG_ERROR) {
			snprintf(text, sizeof text, "%s:%u:%u: %s", ds->file ? ds->file : "warp",
			    d->line, d->col, d->text);
			return text;
		}
	return "the configuration is wrong";
}

/* ---- workers ---- */

static int
worker_slot(void)
{
	for (int i = 0; i < WORKER_SLOTS; i++)
		if (m.workers[i].pid == 0)
			return i;
	return -1;
}

/* ---- a new child ---- */

static struct listener *
listener_of(struct listeners *ls, const struct addr *a)
{
	for (int i = 0; i < ls->n; i++)
		if (strcmp(ls->v[i].addr.text, a->text) == 0)
			return &ls->v[i];
	return NULL;
}

static void
fd_close(int fd)
{
	if (fd >= 0)
		close(fd);
}

/* Closes the sockets of ls that are not among keep. */
static void
listeners_shed(const struct listeners *ls, struct listeners *keep)
{
	for (int i = 0; i < ls->n; i++)
		if (!listener_of(keep, &ls->v[i].addr))
			fd_close(ls->v[i].fd);
}

/* Nobody may wait for the end of a daemon's terminal or pipe; what was sent to
 * a file stays there. */
static void
stdio_release(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct stat st;

	for (int fd = STDOUT_FILENO; fd <= STDERR_FILENO && null >= 0; fd++)
		if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
			dup2(null, fd);
	fd_close(null);
}

/* In a new child: only keep stays open. A socket that a child forgot would be
 * bound for as long as that child lives. */
static void
child_shed(struct listeners *keep)
{
	const int mine[] = { m.signals, m.resolver_life, m.pid_fd, m.notify_fd, m.daemon_fd };

	for (int i = 0; i < WORKER_SLOTS; i++)
		if (m.workers[i].pid > 0)
			close(m.workers[i].ctl);
	listeners_shed(&m.ls, keep);
	listeners_shed(&m.next_ls, keep);
	listeners_shed(&m.had, keep);
	for (size_t i = 0; i < LEN(mine); i++)
		fd_close(mine[i]);
	if (m.daemon_fd >= 0)
		stdio_release(); /* the log still has its copy, until the start is over */
}

static void
resolver_shed(void)
{
	static struct listeners none;

	child_shed(&none);
}

/* In the new process: nothing of the master's stays but what is needed. */
_Noreturn static void
worker_child(struct conf *cf, struct listeners *ls, int slot, int ctl, pid_t parent)
{
	static const int ignored[] = { SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE };
	sigset_t none;

	child_shed(ls);
	logs_use(&cf->log);
	for (size_t i = 0; i < LEN(ignored); i++)
		signal(ignored[i], SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (privilege_drop(&cf->server) < 0)
		_exit(EXIT_OTHER);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		_exit(EXIT_OTHER);
	worker_run(cf, ls->v, ls->n, ctl, slot);
}

static int
worker_start(struct conf *cf, struct listeners *ls, unsigned generation)
{
	int slot = worker_slot(), sv[2];
	pid_t parent = getpid(), pid;

	if (slot < 0) {
		log_error("no slot for another worker: too many are still draining");
		return -1;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return log_errno("worker");
	if ((pid = fork()) == 0) {
		close(sv[0]);
		worker_child(cf, ls, slot, sv[1], parent);
	}
	close(sv[1]);
	if (pid < 0) {
		close(sv[0]);
		return log_errno("fork a worker");
	}
	board->workers[slot].state = WORKER_STARTING;
	board->workers[slot].pid = pid;
	m.workers[slot] = (struct worker){ .pid = pid, .ctl = sv[0], .generation = generation,
		.started_ms = now_ms };
	log_debug("worker %d of generation %u started", (int)pid, generation);
	return 0;
}

static int
workers_start(struct conf *cf, struct listeners *ls, unsigned generation)
{
	for (int i = 0; i < cf->server.workers; i++)
		if (worker_start(cf, ls, generation) < 0)
			return -1;
	return 0;
}

static int
workers_count(unsigned generation, bool only_ready)
{
	int n = 0;

	for (int i = 0; i < WORKER_SLOTS; i++)
		n += m.workers[i].pid > 0 && m.workers[i].generation == generation &&
		    (m.workers[i].ready || !only_ready);
	return n;
}

static int
workers_alive(void)
{
	int n = 0;

	for (int i = 0; i < WORKER_SLOTS; i++)
		n += m.workers[i].pid > 0;
	return n;
}

static void
worker_drain(struct worker *w, uint32_t shutdown_ms)
{
	if (w->pid <= 0 || w->draining)
		return;
	worker_tell(w, CTL_DRAIN, "");
	w->draining = true;
	w->kill_at_ms = now_ms + shutdown_ms;
	board->workers[w - m.workers].state = WORKER_DRAINING;
}

/* All of an older generation than this. */
static void
workers_drain(unsigned before)
{
	for (int i = 0; i < WORKER_SLOTS; i++)
		if (m.workers[i].generation < before)
			worker_drain(&m.workers[i], m.conf->server.shutdown_ms);
}

/* What they say at their end is no news. */
static void
workers_kill(unsigned generation)
{
	for (int i = 0; i < WORKER_SLOTS; i++)
		if (m.workers[i].pid > 0 && m.workers[i].generation == generation) {
			m.workers[i].killed = true;
			kill(m.workers[i].pid, SIGKILL);
		}
}

/* Brings the serving generation back to its number. */
static void
workers_respawn(void)
{
	int missing = m.conf->server.workers - workers_count(m.generation, false);

	m.respawn_ms = 0;
	for (; missing > 0; missing--)
		if (worker_start(m.conf, &m.ls, m.generation) < 0) {
			m.respawn_ms = now_ms + RESPAWN_MS;
			return;
		}
}

/* ---- resolver ---- */

static void
resolver_stop(void)
{
	if (m.resolver_life >= 0)
		close(m.resolver_life); /* that ends it */
	m.resolver_life = -1;
	m.resolver = 0;
}

static void
resolver_start(struct conf *cf)
{
	resolver_stop();
	m.resolver_again_ms = 0;
	if (resolve_fixed(cf) && (m.resolver = resolve_start(cf, resolver_shed, &m.resolver_life)) < 0)
		m.resolver = 0;
}

/* Starts it if there are names, and gives it a moment for the first round, so
 * that the first request finds its upstream. */
static void
resolver_first(struct conf *cf)
{
	struct pollfd p = { .events = POLLIN };

	resolver_start(cf);
	m.resolver_wait_ms = RESPAWN_MS;
	p.fd = m.resolver_life;
	if (p.fd >= 0)
		poll(&p, 1, RESOLVE_WAIT_MS);
	clock_turn();
}

/* It died: another one follows, later each time. */
static void
resolver_gone(void)
{
	resolver_stop();
	if (m.state >= M_DRAINING)
		return;
	log_warn("the resolver died; another one follows");
	m.resolver_again_ms = now_ms + m.resolver_wait_ms;
	m.resolver_wait_ms = MIN(2 * m.resolver_wait_ms, MINUTE_S * SECOND_MS);
}

/* ---- listening ---- */

/* One address of the new configuration: a socket that is open already, or a
 * new one. */
static int
listener_add(struct listeners *to, struct listeners *have, const struct addr *a,
    enum listener_kind kind, int mode)
{
	struct listener *old = listener_of(have, a), *l = &to->v[to->n];

	if (to->n == LISTENERS_MAX) {
		log_error("more than %d listening addresses", LISTENERS_MAX);
		return -1;
	}
	*l = (struct listener){ .addr = *a, .kind = kind, .fd = -1 };
	if (old) {
		*l = *old;
		l->addr.text = a->text;
		l->addr.host = a->host;
		l->kind = kind;
	} else if (listen_open(l, mode) < 0)
		return -1;
	to->n++;
	return 0;
}

#define ADMIN_MODE 0600

static bool
dir_is_writable(const char *path)
{
	const char *slash = strrchr(path, '/');
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];

	snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
	return access(dir, W_OK | X_OK) == 0;
}

/* The admin sockets. The preset one may be taken or forbidden: a warning. */
static int
admin_open(struct listeners *to, struct listeners *have, const struct admin_conf *ac)
{
	for (int i = 0; i < ac->n_listens && !ac->off; i++) {
		const struct addr *a = &ac->listens[i];
		if (ac->is_default && !listener_of(have, a) && !dir_is_writable(a->sock.un.sun_path)) {
			log_warn("no admin socket: the directory of %s is not writable", a->text);
			continue;
		}
		if (listener_add(to, have, a, LISTEN_ADMIN, ADMIN_MODE) == 0)
			continue;
		if (errno == EADDRINUSE && a->kind == ADDR_UNIX)
			(ac->is_default ? log_warn : log_error)("admin socket %s: another warp "
			    "answers there%s", a->text, ac->is_default ? "; running without" : "");
		if (!ac->is_default)
			return -1;
	}
	return 0;
}

/* Sockets that were given to us, if any, stand in for the preset address. */
static void
listeners_adopt(struct conf *cf, const struct listeners *have)
{
	struct server_conf *sc = &cf->server;
	struct addr *v = arena_alloc(&cf->arena, LISTENERS_MAX * sizeof *v);
	int n = 0;

	for (int i = 0; i < have->n && sc->listen_is_default; i++)
		if (have->v[i].activated) {
			v[n] = have->v[i].addr;
			v[n++].text = arena_dup(&cf->arena, slice_of(have->v[i].addr.text)).p;
		}
	if (n > 0) {
		sc->listens = v;
		sc->n_listens = n;
	}
}

/* Closes what is in had and not in keep; had is empty then. */
static void
listeners_close(struct listeners *had, struct listeners *keep)
{
	for (int i = 0; i < had->n; i++)
		if (!listener_of(keep, &had->v[i].addr))
			listen_close(&had->v[i], true);
	had->n = 0;
}

/* Every address of cf: those in have are kept, the others bound. On failure
 * nothing new stays open. */
static int
listeners_open(struct listeners *to, struct listeners *have, struct conf *cf)
{
	const struct server_conf *sc = &cf->server;
	int i;

	to->n = 0;
	listeners_adopt(cf, have);
	for (i = 0; i < sc->n_listens; i++) {
		if (listener_add(to, have, &sc->listens[i], LISTEN_HTTP, sc->socket_mode) == 0)
			continue;
		if (errno == EADDRINUSE && sc->listens[i].kind == ADDR_UNIX)
			log_error("listen on %s: another program answers there", sc->listens[i].text);
		break;
	}
	if (i == sc->n_listens && admin_open(to, have, &cf->admin) == 0)
		return 0;
	listeners_close(to, have);
	return -1;
}

/* Socket files that were kept get the mode that is configured now. */
static void
listeners_chmod(const struct listeners *ls, mode_t mode)
{
	for (int i = 0; i < ls->n; i++) {
		const struct listener *l = &ls->v[i];
		if (l->addr.kind == ADDR_UNIX && l->kind == LISTEN_HTTP && !l->inherited &&
		    chmod(l->addr.sock.un.sun_path, mode) < 0)
			log_errno("mode of %s", l->addr.text);
	}
}

/* ---- generations ---- */

static void
files_raise(const struct conf *cf)
{
	struct rlimit r;
	rlim_t want = 2 * (rlim_t)cf->server.max_connections + FILES_SPARE;

	if (getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur >= want)
		return;
	if (r.rlim_max < want && geteuid() == 0) { /* root may raise its own limit */
		struct rlimit more = { want, want };
		if (setrlimit(RLIMIT_NOFILE, &more) == 0)
			return;
	}
	r.rlim_cur = MIN(want, r.rlim_max);
	if (setrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur < want)
		log_warn("max_connections = %u needs %llu descriptors, the limit is %llu: "
		    "clients beyond it wait", cf->server.max_connections,
		    (unsigned long long)want, (unsigned long long)r.rlim_cur);
}

/* Everything a configuration needs before its workers can be forked. */
static int
generation_open(struct conf *cf, struct listeners *to, struct listeners *have)
{
	if (logs_open(&cf->log) < 0)
		return -1;
	if (listeners_open(to, have, cf) < 0)
		return -1;
	if (board_attach(cf) < 0)
		return -1;
	files_raise(cf);
	resolver_first(cf);
	return 0;
}

/* The configuration as it is said now, with its pages. */
static struct conf *
start_load(const struct start *s)
{
	struct conf *cf = s->file ? conf_load(s->file) : conf_simple(s->listen, s->target);

	if (cf->diags.errors == 0)
		pages_load(cf);
	return cf;
}

/* The new generation is ready: it is the one, the old drains. */
static void
reload_commit(void)
{
	struct conf *old = m.conf;

	logs_use(&m.next->log);
	logs_close(&old->log);
	listeners_close(&m.ls, &m.next_ls);
	m.ls = m.next_ls;
	m.next_ls.n = 0;
	m.conf = m.next;
	m.next = NULL;
	m.generation = m.newest;
	m.state = M_RUNNING;
	m.respawn_ms = 0;
	listeners_chmod(&m.ls, (mode_t)m.conf->server.socket_mode);
	board->reloads++;
	workers_drain(m.generation);
	if (!m.reload_again)
		asker_told("ok"); /* after its worker was told not to accept any more */
	conf_free(old);
	log_info("reloaded, generation %u", m.generation);
	notify_fmt("READY=1");
}

/* The old generation goes on as if nothing had been. */
static void
reload_cancel(const char *why)
{
	log_error("reload given up: %s; going on with the old configuration", why);
	workers_kill(m.newest);
	listeners_close(&m.next_ls, &m.ls);
	logs_close(&m.next->log);
	conf_free(m.next);
	m.next = NULL;
	m.state = M_RUNNING;
	board_attach(m.conf);
	files_raise(m.conf);
	resolver_start(m.conf);
	if (!m.reload_again)
		asker_told(why);
	notify_fmt("READY=1");
}

static void
reload_died(void)
{
	reload_cancel("a new worker died, the log says why");
}

static void
reload_late(void)
{
	reload_cancel("the new workers did not get ready in time");
}

static void
reload_later(void)
{
	m.reload_again = true;
}

static void
reload_begin(void)
{
	struct conf *cf;

	notify_fmt("RELOADING=1");
	cf = start_load(m.start);
	diags_log(&cf->diags);
	if (cf->diags.errors > 0) {
		log_error("reload: %d error%s, going on with the old configuration", cf->diags.errors,
		    cf->diags.errors == 1 ? "" : "s");
		asker_told(diags_first(&cf->diags));
		conf_free(cf);
		notify_fmt("READY=1");
		return;
	}
	m.next = cf;
	m.newest++;
	m.state = M_RELOADING;
	if (generation_open(cf, &m.next_ls, &m.ls) < 0)
		reload_cancel("its addresses, logs or upstreams cannot be opened, the log says why");
	else if (workers_start(cf, &m.next_ls, m.newest) < 0)
		reload_cancel("its workers cannot be started");
	m.deadline_ms = now_ms + READY_WAIT_MS;
}

/* ---- binary upgrade ---- */

enum { INHERITED = 1, ACTIVATED = 2 }; /* bits of a listen line */

/* Calls fn for each descriptor that the next binary takes over. */
static void
inherit_each(void (*fn)(int fd))
{
	for (int i = 0; i < m.ls.n; i++)
		fn(m.ls.v[i].fd);
	for (int i = 0; i < WORKER_SLOTS; i++)
		if (m.workers[i].pid > 0)
			fn(m.workers[i].ctl);
	if (m.pid_fd >= 0)
		fn(m.pid_fd);
}

static void
fd_keep(int fd)
{
	fcntl(fd, F_SETFD, 0);
}

static void
fd_keep_not(int fd)
{
	fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* What the next binary takes over: a line for each socket and worker. */
static bool
inherit_write(struct text *t)
{
	for (int i = 0; i < m.ls.n; i++)
		text_fmt(t, "listen %d %d %s\n", m.ls.v[i].fd,
		    (m.ls.v[i].inherited ? INHERITED : 0) | (m.ls.v[i].activated ? ACTIVATED : 0),
		    m.ls.v[i].addr.text);
	for (int i = 0; i < WORKER_SLOTS; i++)
		if (m.workers[i].pid > 0)
			text_fmt(t, "worker %d %d -\n", m.workers[i].ctl, (int)m.workers[i].pid);
	if (m.pid_fd >= 0)
		text_fmt(t, "pid %d 0 -\n", m.pid_fd);
	text_char(t, '\0');
	return !t->full;
}

/* The new binary judges the configuration before anything is given up. */
static bool
upgrade_check(void)
{
	char *argv[] = { m.exe, (char *)(uintptr_t)"-t", (char *)(uintptr_t)"-c",
		(char *)(uintptr_t)m.start->file, NULL };
	sigset_t none;
	int status = -1;
	pid_t pid;

	if (!m.start->file)
		argv[1] = (char *)(uintptr_t)"-V", argv[2] = NULL;
	if ((pid = fork()) == 0) {
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		alarm(CHECK_WAIT_S);
		if (dup2(STDERR_FILENO, STDOUT_FILENO) >= 0)
			execv(m.exe, argv);
		log_errno("%s", m.exe);
		_exit(EXIT_OTHER);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* What the new binary would open can be opened. */
static bool
upgrade_trial(void)
{
	static struct listeners trial;
	struct conf *cf = start_load(m.start);
	bool good = cf->diags.errors == 0 && logs_open(&cf->log) == 0;

	if (good) {
		good = listeners_open(&trial, &m.ls, cf) == 0;
		listeners_close(&trial, &m.ls);
		logs_close(&cf->log);
	}
	conf_free(cf);
	return good;
}

/* Becomes the binary at our path. Signals stay blocked, so that none is lost
 * on the way. Returns only if that failed; nothing has changed then. */
static void
upgrade_exec(void)
{
	static char lines[INHERIT_MAX];
	struct text t = { lines, 0, sizeof lines, false };
	int fd = open("/proc/self/exe", O_RDONLY);
	char old[16];

	snprintf(old, sizeof old, "%d", fd);
	if (!inherit_write(&t) || setenv(ENV_INHERIT, lines, 1) < 0 || setenv(ENV_OLD, old, 1) < 0) {
		log_error("upgrade: too much to hand over");
	} else {
		inherit_each(fd_keep);
		execv(m.exe, m.start->argv);
		log_errno("upgrade: %s", m.exe);
		inherit_each(fd_keep_not);
	}
	unsetenv(ENV_INHERIT);
	unsetenv(ENV_OLD);
	fd_close(fd);
}

/* Same process, same sockets, the workers drain under the new binary once its
 * own are ready. The old binary stays at hand, open, in case the new one cannot
 * start. */
static void
upgrade(void)
{
	if (!upgrade_check() || !upgrade_trial()) {
		log_error("upgrade: %s cannot run this configuration; going on", m.exe);
		asker_told("the new binary cannot run this configuration, the log says why");
		return;
	}
	asker_told("ok");
	log_info("upgrade: starting %s", m.exe);
	notify_fmt("RELOADING=1");
	resolver_stop();
	upgrade_exec();
	resolver_start(m.conf);
	notify_fmt("READY=1");
}

static void
upgrade_later(void)
{
	log_warn("upgrade: a start or reload is under way, try again");
	asker_told("a start or reload is under way, try again");
}

/* A new binary that cannot start gives way to the one before it. Returns if
 * there is none. */
static void
upgrade_back(char **argv)
{
	const char *old = getenv(ENV_OLD), *lines = getenv(ENV_INHERIT);
	struct slice rest = slice_of(lines), line, word;
	int fd = old ? atoi(old) : -1;

	if (fd < 0 || !lines)
		return;
	log_error("upgrade failed: back to the binary before");
	workers_kill(m.newest);
	while (slice_cut(&rest, '\n', &line))
		if (slice_cut(&line, ' ', &word) && slice_cut(&line, ' ', &word) &&
		    slice_uint(word, INT_MAX) >= 0)
			fd_keep((int)slice_uint(word, INT_MAX));
	unsetenv(ENV_OLD);
	fexecve(fd, argv, environ);
	log_errno("back to the binary before");
}

/* Where this binary lies, or the one that replaced it. */
static void
exe_find(const char *argv0)
{
	static const char gone[] = " (deleted)";
	ssize_t n = readlink("/proc/self/exe", m.exe, sizeof m.exe - 1);

	if (n <= 0) {
		snprintf(m.exe, sizeof m.exe, "%s", argv0);
		return;
	}
	m.exe[n] = '\0';
	if (slice_ends(slice_of(m.exe), slice_of(gone)))
		m.exe[(size_t)n - strlen(gone)] = '\0';
}

/* One line of WARP_INHERIT. */
static void
inherit_line(struct slice line, int *slot)
{
	struct slice what, a, b;
	struct listener *l = &m.had.v[m.had.n];
	const char *why;
	int fd, more;

	if (!slice_cut(&line, ' ', &what) || !slice_cut(&line, ' ', &a) ||
	    !slice_cut(&line, ' ', &b) || !line.p)
		return;
	fd = (int)slice_uint(a, INT_MAX);
	more = (int)slice_uint(b, INT_MAX);
	if (fd < 0 || more < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return;
	if (slice_eq(what, S("worker")) && *slot < WORKER_SLOTS) {
		m.workers[*slot] = (struct worker){ .pid = more, .ctl = fd, .ready = true };
		board->workers[*slot].state = WORKER_READY;
		board->workers[(*slot)++].pid = more;
	} else if (slice_eq(what, S("pid"))) {
		m.pid_fd = fd;
	} else if (slice_eq(what, S("listen")) && m.had.n < LISTENERS_MAX &&
	    addr_parse(&m.conf->arena, line, &l->addr, &why)) {
		l->addr.text = arena_dup(&m.conf->arena, line).p;
		l->fd = fd;
		l->inherited = more & INHERITED;
		l->activated = more & ACTIVATED;
		listen_note(l);
		m.had.n++;
	}
}

/* Sockets and workers of the binary before this one. */
static void
inherit_read(void)
{
	struct slice rest = slice_of(getenv(ENV_INHERIT)), line;
	int slot = 0;

	while (slice_cut(&rest, '\n', &line))
		inherit_line(line, &slot);
}

#define SYSTEMD_FIRST_FD 3

/* That socket is bound to a. `:port` may be any wildcard. */
static bool
addr_is_sock(const struct addr *a, const union sock *here)
{
	static const struct ip any_v6, any_v4 = { { [10] = 0xff, [11] = 0xff } };
	uint16_t port, want;
	struct ip is = ip_of_sock(here, &port), shall = ip_of_sock(&a->sock, &want);

	if (a->kind == ADDR_UNIX || a->kind == ADDR_ABSTRACT)
		return here->sa.sa_family == AF_UNIX &&
		    memcmp(here->un.sun_path, a->sock.un.sun_path, sizeof here->un.sun_path) == 0;
	if (a->kind != ADDR_INET || port != want)
		return false;
	return memcmp(&is, &shall, sizeof is) == 0 || (a->any &&
	    (memcmp(&is, &any_v6, sizeof is) == 0 || memcmp(&is, &any_v4, sizeof is) == 0));
}

/* The address of cf that a given socket has, or NULL. */
static const struct addr *
systemd_addr(const struct conf *cf, int fd)
{
	union sock here;
	socklen_t n = sizeof here;

	memset(&here, 0, sizeof here);
	if (getsockname(fd, &here.sa, &n) < 0)
		return NULL;
	for (int i = 0; i < cf->admin.n_listens; i++)
		if (addr_is_sock(&cf->admin.listens[i], &here))
			return &cf->admin.listens[i];
	for (int i = 0; i < cf->server.n_listens && !cf->server.listen_is_default; i++)
		if (addr_is_sock(&cf->server.listens[i], &here))
			return &cf->server.listens[i];
	return NULL;
}

static void
systemd_take(const struct conf *cf, int fd)
{
	struct listener *l = &m.had.v[m.had.n];
	const struct addr *a = systemd_addr(cf, fd);

	*l = (struct listener){ .addr = { .kind = ADDR_FD, .fd = fd,
	    .text = arena_fmt(&m.conf->arena, "fd://%d", fd) } };
	if (m.had.n == LISTENERS_MAX || listen_inherited(l, fd) < 0)
		return;
	if (!a && !cf->server.listen_is_default) {
		log_warn("LISTEN_FDS: descriptor %d is of no address in the configuration", fd);
		close(fd);
		return;
	}
	if (a)
		l->addr = *a;
	l->activated = !a;
	listen_note(l);
	m.had.n++;
}

/* Sockets that systemd opened for us: those of our addresses are taken. When
 * the configuration names no address itself, all are the listeners. */
static void
systemd_read(const struct conf *cf)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	int n = pid && fds && atoi(pid) == (int)getpid() ? atoi(fds) : 0;

	for (int i = 0; i < MIN(n, LISTENERS_MAX); i++)
		systemd_take(cf, SYSTEMD_FIRST_FD + i);
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
}

/* ---- pid file, readiness ---- */

static int
pid_open(const char *path)
{
	int fd;

	if (!path || m.pid_fd >= 0)
		return 0;
	if ((fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644)) < 0)
		return log_errno("pid file %s", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		log_errno("pid file %s: another warp holds it", path);
		close(fd);
		return -1;
	}
	if (ftruncate(fd, 0) < 0)
		log_errno("pid file %s", path);
	m.pid_fd = fd;
	return 0;
}

static void
pid_write(void)
{
	char b[16];
	int n = snprintf(b, sizeof b, "%d\n", (int)getpid());

	if (m.pid_fd < 0)
		return;
	if (pwrite(m.pid_fd, b, (size_t)n, 0) != n || ftruncate(m.pid_fd, n) < 0)
		log_errno("pid file");
}

/* Tells who waits at that descriptor; nobody does at -1. */
static void
fd_say(int *fd, char c)
{
	if (*fd < 0)
		return;
	if (write(*fd, &c, 1) < 0)
		log_errno("telling that warp is ready");
	close(*fd);
	*fd = -1;
}

static void
logs_reopen(void)
{
	struct log_conf lc = m.conf->log;
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control = { .space = { 0 } };
	char op = CTL_LOGS;
	struct iovec v = { &op, 1 };
	struct msghdr msg = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control.space,
		.msg_controllen = sizeof control.space };
	struct cmsghdr *cm = CMSG_FIRSTHDR(&msg);
	int fds[2];

	if (logs_open(&lc) < 0)
		return; /* logged; the old files stay */
	fds[0] = lc.access.fd;
	fds[1] = lc.error.fd;
	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(sizeof fds);
	memcpy(CMSG_DATA(cm), fds, sizeof fds);
	for (int i = 0; i < WORKER_SLOTS; i++)
		if (m.workers[i].pid > 0 &&
		    sendmsg(m.workers[i].ctl, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			log_errno("logs to worker %d", (int)m.workers[i].pid);
	logs_close(&m.conf->log);
	m.conf->log = lc;
	logs_use(&lc);
	if (m.resolver > 0)
		resolver_start(m.conf); /* it has the old files */
	log_info("logs reopened");
}

/* Once it accepts, nobody reads what a daemon says to its terminal. */
static void
daemon_ready(void)
{
	struct stat st;

	if (m.daemon_fd < 0)
		return;
	if (m.conf->log.error.sink == SINK_STDERR && fstat(STDERR_FILENO, &st) == 0 &&
	    !S_ISREG(st.st_mode))
		log_warn("in the background from here on: set log.error to see what warp says");
	stdio_release();
	logs_reopen();
	fd_say(&m.daemon_fd, 0);
}

/* All workers accept: everyone who waits for that is told. */
static void
master_ready(void)
{
	const char *old = getenv(ENV_OLD);

	m.state = M_RUNNING;
	pid_write();
	workers_drain(m.generation); /* those of the binary before */
	listeners_close(&m.had, &m.ls);
	if (old)
		close(atoi(old));
	unsetenv(ENV_OLD);
	unsetenv(ENV_INHERIT);
	log_info("warp %s ready, %d worker%s", VERSION, m.conf->server.workers,
	    m.conf->server.workers == 1 ? "" : "s");
	daemon_ready();
	fd_say(&m.notify_fd, '\n');
	notify_fmt("READY=1");
}

/* ---- ends ---- */

static void
master_leave(enum master_state state)
{
	m.state = state;
	notify_systemd("STOPPING=1");
	asker_told("warp is stopping");
	resolver_stop();
	for (int i = 0; i < m.ls.n; i++)
		listen_close(&m.ls.v[i], true);
	listeners_close(&m.next_ls, &m.ls);
	listeners_close(&m.had, &m.ls);
}

static void
master_stop(void)
{
	master_leave(M_STOPPING);
	m.deadline_ms = now_ms + STOP_WAIT_MS;
	for (int i = 0; i < WORKER_SLOTS; i++)
		worker_tell(&m.workers[i], CTL_STOP, "");
}

static void
master_drain(void)
{
	master_leave(M_DRAINING);
	workers_drain(m.newest + 1);
	log_info("draining: leaving when the last request is answered");
}

static void
stop_late(void)
{
	m.deadline_ms = now_ms + STOP_WAIT_MS;
	for (int i = 0; i < WORKER_SLOTS; i++)
		if (m.workers[i].pid > 0) {
			m.workers[i].killed = true;
			kill(m.workers[i].pid, SIGKILL);
		}
}

/* The first workers do not come up. After an upgrade the old binary gets its
 * process back; if that is the one that fails, its old workers go on and the
 * new ones are tried again. */
static void
start_failed(void)
{
	upgrade_back(m.start->argv);
	workers_kill(m.generation);
	if (workers_count(0, false) > 0) {
		m.respawn_ms = now_ms + RESPAWN_MS;
		m.deadline_ms = m.respawn_ms + READY_WAIT_MS;
		m.generation = ++m.newest;
		return;
	}
	m.code = EXIT_OTHER;
	master_stop();
}

static void
start_late(void)
{
	log_error("the workers did not get ready in time");
	start_failed();
}

/* ---- events ---- */

/* Who reacts to what; an empty cell: nobody. */
static void (*const master_do[MASTER_STATES][MASTER_EVENTS])(void) = {
	[M_STARTING] = { [EV_RELOAD] = reload_later, [EV_UPGRADE] = upgrade_later,
		[EV_QUIT] = master_stop, [EV_STOP] = master_stop,
		[EV_READY] = master_ready, [EV_DEATH] = start_failed, [EV_LATE] = start_late },
	[M_RUNNING] = { [EV_RELOAD] = reload_begin, [EV_UPGRADE] = upgrade,
		[EV_QUIT] = master_drain, [EV_STOP] = master_stop },
	[M_RELOADING] = { [EV_RELOAD] = reload_later, [EV_UPGRADE] = upgrade_later,
		[EV_QUIT] = master_drain, [EV_STOP] = master_stop,
		[EV_READY] = reload_commit, [EV_DEATH] = reload_died, [EV_LATE] = reload_late },
	[M_DRAINING] = { [EV_STOP] = master_stop },
	[M_STOPPING] = { [EV_LATE] = stop_late },
};

/* False: nobody reacts. */
static bool
master_event(enum master_event ev)
{
	void (*act)(void) = master_do[m.state][ev];

	if (act)
		act();
	return act != NULL;
}

/* Why a worker is no more; one that serves is replaced. */
static void
worker_gone(struct worker *w, int status)
{
	int slot = (int)(w - m.workers);
	struct worker was = *w;
	int64_t at = now_ms - was.started_ms < RESPAWN_YOUNG_MS ? now_ms + RESPAWN_MS : now_ms;

	if (WIFSIGNALED(status) && !was.killed)
		log_error("worker %d died of signal %d (%s)", (int)was.pid, WTERMSIG(status),
		    strsignal(WTERMSIG(status)));
	else if (!was.killed && !was.draining && m.state != M_STOPPING && (status || was.generation))
		log_error("worker %d left with status %d", (int)was.pid, WEXITSTATUS(status));
	close(was.ctl);
	if (m.asker == slot)
		m.asker = -1;
	*w = (struct worker){ 0 };
	board_worker_gone(slot);
	if (was.killed || was.draining)
		return;
	if (was.generation == m.newest && m.state != M_RUNNING)
		master_event(EV_DEATH);
	else if (was.generation == m.generation && m.state <= M_RELOADING)
		m.respawn_ms = m.respawn_ms ? MIN(m.respawn_ms, at) : at;
}

static void
children_reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == m.resolver)
			resolver_gone();
		for (int i = 0; i < WORKER_SLOTS; i++)
			if (m.workers[i].pid == pid) {
				worker_gone(&m.workers[i], status);
				break;
			}
	}
}

static void
master_signal(void)
{
	static const int events[] = { [SIGHUP] = EV_RELOAD, [SIGTERM] = EV_STOP, [SIGINT] = EV_STOP,
		[SIGQUIT] = EV_QUIT, [SIGUSR2] = EV_UPGRADE };
	struct signalfd_siginfo si;

	while (read(m.signals, &si, sizeof si) == sizeof si)
		if (si.ssi_signo == SIGCHLD)
			children_reap();
		else if (si.ssi_signo == SIGUSR1)
			logs_reopen();
		else
			master_event((enum master_event)events[si.ssi_signo]);
}

/* What an operator asked over the admin socket of that worker. */
static void
master_verb(int slot, struct slice verb)
{
	static const struct {
		const char *name;
		enum master_event event;
		bool later; /* who reacts tells the asker, when it is done */
	} verbs[] = {
		{ "reload", EV_RELOAD, true },
		{ "upgrade", EV_UPGRADE, true },
		{ "quit", EV_QUIT, false },
		{ "stop", EV_STOP, false },
	};

	if (m.asker >= 0) {
		worker_tell(&m.workers[slot], CTL_VERB, "another command is under way");
		return;
	}
	m.asker = slot;
	for (size_t i = 0; i < LEN(verbs); i++) {
		if (!slice_eq(verb, slice_of(verbs[i].name)))
			continue;
		if (!verbs[i].later)
			asker_told("ok");
		if (!master_event(verbs[i].event))
			asker_told("warp is stopping");
		return;
	}
	asker_told("unknown command");
}

static void
worker_says(struct worker *w)
{
	char b[CTL_MAX];
	ssize_t n = recv(w->ctl, b, sizeof b, MSG_DONTWAIT);

	if (n <= 0)
		return; /* it is dying: SIGCHLD says how */
	if (b[0] == CTL_VERB) {
		master_verb((int)(w - m.workers), (struct slice){ b + 1, (size_t)n - 1 });
		return;
	}
	if (b[0] != CTL_READY)
		return;
	w->ready = true;
	board->workers[w - m.workers].state = WORKER_READY;
	if (w->generation == m.newest &&
	    workers_count(m.newest, true) == (m.next ? m.next : m.conf)->server.workers)
		master_event(EV_READY);
}

/* ---- deadlines ---- */

static int64_t
sooner(int64_t a, int64_t b)
{
	return b > 0 && (a == 0 || b < a) ? b : a;
}

/* Milliseconds until something is due; -1: nothing is. */
static int
master_wait(void)
{
	int64_t due = master_do[m.state][EV_LATE] ? m.deadline_ms : 0;

	due = sooner(due, m.resolver_again_ms);
	due = sooner(due, m.respawn_ms);
	for (int i = 0; i < WORKER_SLOTS; i++)
		due = sooner(due, m.workers[i].pid > 0 ? m.workers[i].kill_at_ms : 0);
	return due == 0 ? -1 : (int)MIN(MAX(due - now_ms, 0), INT_MAX);
}

static bool
is_due(int64_t at_ms)
{
	return at_ms > 0 && at_ms <= now_ms;
}

/* It was told to finish and does not: told to stop, then killed. */
static void
worker_late(struct worker *w)
{
	if (w->killed) {
		kill(w->pid, SIGKILL);
		w->kill_at_ms = 0;
		return;
	}
	log_warn("worker %d still has requests after shutdown_timeout_secs: they are cut",
	    (int)w->pid);
	worker_tell(w, CTL_STOP, "");
	w->killed = true;
	w->kill_at_ms = now_ms + STOP_WAIT_MS;
}

static void
master_due(void)
{
	if (is_due(m.respawn_ms) && m.state <= M_RELOADING)
		workers_respawn();
	for (int i = 0; i < WORKER_SLOTS; i++)
		if (m.workers[i].pid > 0 && is_due(m.workers[i].kill_at_ms))
			worker_late(&m.workers[i]);
	if (is_due(m.resolver_again_ms))
		resolver_start(m.conf);
	if (is_due(m.deadline_ms))
		master_event(EV_LATE);
}

/* ---- life ---- */

static void
master_turn(void)
{
	struct pollfd p[1 + WORKER_SLOTS];
	int slots[1 + WORKER_SLOTS], n = 0;

	p[n++] = (struct pollfd){ .fd = m.signals, .events = POLLIN };
	for (int i = 0; i < WORKER_SLOTS; i++)
		if (m.workers[i].pid > 0) {
			slots[n] = i;
			p[n++] = (struct pollfd){ .fd = m.workers[i].ctl, .events = POLLIN };
		}
	n = poll(p, (nfds_t)n, master_wait()) > 0 ? n : 0;
	clock_turn();
	for (int i = 1; i < n; i++)
		if (p[i].revents & POLLIN && m.workers[slots[i]].ctl == p[i].fd)
			worker_says(&m.workers[slots[i]]);
	if (n > 0 && p[0].revents)
		master_signal();
	master_due();
	if (m.reload_again && m.state == M_RUNNING) {
		m.reload_again = false;
		reload_begin();
	}
}

static void
master_signals(void)
{
	static const int ours[] = { SIGHUP, SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGCHLD };
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < LEN(ours); i++)
		sigaddset(&set, ours[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	m.signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* Up to the workers' fork. 0, or the exit status. */
static int
master_start(struct conf *cf)
{
	exe_find(m.start->argv[0]);
	m.conf = cf;
	m.generation = m.newest = 1;
	m.notify_fd = m.start->notify_fd;
	m.daemon_fd = m.start->daemon_fd;
	board_open();
	clock_turn();
	master_signals();
	inherit_read();
	systemd_read(cf);
	if (logs_open(&cf->log) < 0)
		return EXIT_OTHER;
	logs_use(&cf->log);
	if (pid_open(m.start->pid_file) < 0)
		return EXIT_OTHER;
	if (listeners_open(&m.ls, &m.had, cf) < 0)
		return EXIT_BIND;
	listeners_chmod(&m.ls, (mode_t)cf->server.socket_mode);
	files_raise(cf);
	if (board_attach(cf) < 0)
		return EXIT_OTHER;
	resolver_first(cf);
	m.deadline_ms = now_ms + READY_WAIT_MS;
	return workers_start(cf, &m.ls, m.generation) < 0 ? EXIT_OTHER : 0;
}

/* Runs cf until it is told to end. Returns the exit status. */
static int
master_run(const struct start *s, struct conf *cf)
{
	m.start = s;
	m.resolver_life = m.pid_fd = m.notify_fd = m.daemon_fd = m.asker = -1;
	if ((m.code = master_start(cf)) != 0) {
		upgrade_back(m.start->argv);
		master_stop();
	}
	children_reap(); /* those that ended before signals were watched */
	while (workers_alive() > 0 || m.state < M_DRAINING)
		master_turn();
	if (m.pid_fd >= 0 && s->pid_file)
		unlink(s->pid_file);
	return m.code;
}
/* ==== main ===================================================================
 * Owns    the command line.
 * Calls   everything, to start it. */

static const char usage_text[] =
    "usage: warp -c FILE             run with a configuration (or $WARPDRIVE_CONFIG, or\n"
    "                                " CONFIG_PATH ")\n"
    "       warp [-l ADDR] -u ADDR   without one: listen on ADDR (:8080), pass on to ADDR\n"
    "       warp -t [-c FILE]        check the configuration and show what it means\n"
    "       warp -e 'METHOD URL' [-H 'Name: v']... [-a CLIENT_IP]\n"
    "                                explain what would become of a request\n"
    "       warp -s VERB [ARG]       tell the running warp: status, reload, quit, stop,\n"
    "                                upgrade\n"
    "  -d  into the background, once it accepts    -p FILE  pid file\n"
    "  -n FD  a newline to FD once it accepts      -D  every configuration key\n"
    "  -V  version                                 -h  this help\n"
    "Signals: HUP reload, QUIT drain and leave, TERM stop, USR1 reopen logs, USR2 upgrade.\n"
    "Exit status: 0 clean, 1 configuration, 2 usage, 3 cannot listen, 4 anything else.\n";

#define HEADERS_MAX 64 /* -H */

struct options {
	const char *file, *listen, *target, *explain, *verb, *arg, *client, *pid_file, *keys;
	const char *headers[HEADERS_MAX];
	int n_headers, notify_fd;
	bool check, daemon, list_keys;
};

static int
usage(const char *why, const char *what)
{
	fprintf(stderr, "warp: %s%s\n%s", why, what, usage_text);
	return EXIT_USAGE;
}

static int
version(void)
{
	printf("warp %s\n"
	       "built in: http/1.0 http/1.1 websocket proxy-protocol v1 v2\n"
	       "not in this build: tls gzip cache uwsgi static files process supervision\n"
	       "board for %d workers, %d instances; configuration %s, admin socket %s\n",
	    VERSION, WORKERS_MAX, INSTANCES_MAX, CONFIG_PATH, ADMIN_SOCKET);
	return 0;
}

/* The usual spellings of others, as ours. -1, or the exit status. */
static int
options_long(char **argv)
{
	static const char *const names[][2] = {
		{ "--config", "-c" }, { "--help", "-h" }, { "--version", "-V" },
		{ "--check", "-t" }, { "--test", "-t" },
	};
	size_t i;

	for (; *argv && strcmp(*argv, "--") != 0; argv++) {
		if (strncmp(*argv, "--", 2) != 0)
			continue;
		for (i = 0; i < LEN(names) && strcmp(*argv, names[i][0]) != 0; i++)
			;
		if (i == LEN(names))
			return usage(slice_starts(slice_of(*argv), S("--fastrouter"))
			    ? "not supported yet: " : "unknown option: ", *argv);
		*argv = (char *)(uintptr_t)names[i][1];
	}
	return -1;
}

/* One option. -1: go on; else the exit status. */
static int
option_read(struct options *o, int c)
{
	char name[] = { (char)optopt, '\0' };

	switch (c) {
	case 'c': o->file = optarg; break;
	case 'l': o->listen = optarg; break;
	case 'u': o->target = optarg; break;
	case 't': o->check = true; break;
	case 'e': o->explain = optarg; break;
	case 'a': o->client = optarg; break;
	case 's': o->verb = optarg; break;
	case 'd': o->daemon = true; break;
	case 'p': o->pid_file = optarg; break;
	case 'D': o->list_keys = true; break;
	case 'V': return version();
	case 'h': fputs(usage_text, stdout); return 0;
	case 'H':
		if (o->n_headers == HEADERS_MAX)
			return usage("too many -H", "");
		o->headers[o->n_headers++] = optarg;
		break;
	case 'n':
		if ((o->notify_fd = (int)slice_uint(slice_of(optarg), INT_MAX)) < 0)
			return usage("-n: expected a descriptor's number, got ", optarg);
		break;
	default:
		return usage("unknown option, or one without its value: -", name);
	}
	return -1;
}

/* -1: go on; else the exit status. */
static int
options_read(struct options *o, int argc, char **argv)
{
	int c, done = options_long(argv + 1);
	bool wrap = false;

	opterr = 0;
	while (done < 0 && optind < argc && !wrap) {
		if ((c = getopt(argc, argv, "+c:l:u:te:H:a:s:dp:n:DVh")) != -1)
			done = option_read(o, c);
		else if ((wrap = strcmp(argv[optind - 1], "--") == 0))
			done = usage("not supported yet: -- COMMAND", "");
		else if ((o->verb || o->list_keys) && !o->arg)
			o->arg = argv[optind++];
		else
			done = usage("one word too many: ", argv[optind]);
	}
	if (done < 0 && o->listen && !o->target)
		done = usage("-l needs -u: a configuration says itself where to listen", "");
	if (done < 0 && o->file && o->target)
		done = usage("-c and -u: give one of them", "");
	return done;
}

/* Where the configuration comes from: -c, then the environment, then a file
 * at the usual place. False: from nowhere. */
static bool
options_source(struct options *o)
{
	static char target[300];
	const char *host = getenv("WARPDRIVE_TARGET_HOST"), *port = getenv("WARPDRIVE_TARGET_PORT");

	if (o->file || o->target)
		return true;
	if (getenv("WARPDRIVE_CONFIG")) {
		o->file = getenv("WARPDRIVE_CONFIG");
		return true;
	}
	if (port || host) {
		bool v6 = host && strchr(host, ':') && host[0] != '[';
		snprintf(target, sizeof target, "%s%s%s:%s", v6 ? "[" : "", host ? host : "127.0.0.1",
		    v6 ? "]" : "", port ? port : "80");
		o->target = target;
		return true;
	}
	if (access(CONFIG_PATH, F_OK) == 0)
		o->file = CONFIG_PATH;
	return o->file != NULL;
}

static struct conf *
options_conf(const struct options *o)
{
	return start_load(&(struct start){ .file = o->file, .listen = o->listen, .target = o->target });
}

/* -t: every error and warning, then what the configuration means. */
static int
check(const struct options *o)
{
	struct conf *cf = options_conf(o);
	int bad = cf->diags.errors;

	diags_print(&cf->diags, stderr);
	if (!bad)
		conf_print_check(cf, stdout);
	conf_free(cf);
	return bad ? EXIT_CONFIG : 0;
}

/* ---- -s ---- */

#define VERB_WAIT_S 30   /* a reload takes READY_WAIT_MS at most */
#define VERB_LINE   4096 /* bytes of the request, and of an answer's header line */

/* The admin address of cf; the preset one if a broken file hides it; NULL: it
 * is off. */
static const struct addr *
verb_addr(struct conf *cf)
{
	static struct addr preset;
	const char *why;

	if (cf->admin.off)
		return NULL;
	if (cf->admin.n_listens > 0)
		return &cf->admin.listens[0];
	return addr_parse(&cf->arena, S(ADMIN_SOCKET), &preset, &why) ? &preset : NULL;
}

static int
verb_connect(const struct addr *a)
{
	struct timeval limit = { .tv_sec = VERB_WAIT_S };
	int fd = socket(a->sock.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), err;

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	if (connect(fd, &a->sock.sa, a->sock_n) == 0)
		return fd;
	err = errno;
	close(fd);
	errno = err;
	return -1;
}

static bool
verb_send(int fd, const struct conf *cf, const struct options *o)
{
	bool status = strcmp(o->verb, "status") == 0;
	char b[VERB_LINE];
	struct text t = { b, 0, sizeof b, false };

	text_str(&t, status ? "GET /" : "POST /");
	path_encode(&t, slice_of(o->verb));
	if (o->arg) {
		text_char(&t, '/');
		path_encode(&t, slice_of(o->arg));
	}
	text_str(&t, status ? "?format=text" : "");
	text_str(&t, " HTTP/1.0\r\nHost: warp\r\nContent-Length: 0\r\n");
	if (cf->admin.token.n > 0) {
		text_str(&t, "X-Admin-Token: ");
		text_add(&t, cf->admin.token);
		text_str(&t, "\r\n");
	}
	text_str(&t, "\r\n");
	return !t.full && write(fd, t.p, t.n) == (ssize_t)t.n;
}

/* Prints the answer's body. True: it was a 2xx. */
static bool
verb_print(FILE *f)
{
	char b[VERB_LINE];
	bool good = false, body = false;
	size_t got;

	if (fgets(b, sizeof b, f))
		good = strncmp(b, "HTTP/1.1 2", 10) == 0;
	while (!body && fgets(b, sizeof b, f))
		body = strcmp(b, "\r\n") == 0;
	if (!body)
		fprintf(stderr, "warp: no answer; the log of the running warp may say why\n");
	while ((got = fread(b, 1, sizeof b, f)) > 0)
		fwrite(b, 1, got, good ? stdout : stderr);
	return good && body;
}

static int
verb(const struct options *o)
{
	struct conf *cf = options_conf(o);
	const struct addr *a = verb_addr(cf);
	bool good = false;
	FILE *f;
	int fd;

	if (cf->diags.errors > 0)
		diags_print(&cf->diags, stderr);
	if (!a) {
		fprintf(stderr, "warp: admin.listen is off: nobody can be asked\n");
		conf_free(cf);
		return EXIT_OTHER;
	}
	if ((fd = verb_connect(a)) < 0) {
		fprintf(stderr, "warp: no warp listens on %s: is it running? (connect: %s)\n", a->text,
		    strerror(errno));
		conf_free(cf);
		return EXIT_OTHER;
	}
	if (!(f = fdopen(fd, "r")))
		die_memory();
	if (verb_send(fd, cf, o))
		good = verb_print(f);
	else
		fprintf(stderr, "warp: %s cannot be asked\n", a->text);
	fclose(f);
	conf_free(cf);
	return good ? 0 : EXIT_OTHER;
}

/* ---- -d ---- */

/* The parent waits until the child accepts, and leaves with the truth. */
static int
daemonise(int *tell)
{
	unsigned char code = EXIT_OTHER;
	int fds[2], status = 0, null;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		log_errno("into the background");
		return EXIT_OTHER;
	}
	if (pid > 0) {
		close(fds[1]);
		if (read(fds[0], &code, 1) != 1 && waitpid(pid, &status, 0) == pid && WIFEXITED(status))
			code = (unsigned char)WEXITSTATUS(status);
		_exit(code);
	}
	close(fds[0]);
	*tell = fds[1];
	setsid();
	if ((null = open("/dev/null", O_RDWR)) >= 0) {
		dup2(null, STDIN_FILENO);
		if (null > STDERR_FILENO)
			close(null);
	}
	return 0;
}

static int
run(const struct options *o, char **argv)
{
	static char file[PATH_MAX];
	struct start s = { .argv = argv, .file = o->file, .listen = o->listen, .target = o->target,
		.pid_file = o->pid_file, .notify_fd = o->notify_fd, .daemon_fd = -1 };
	struct conf *cf = options_conf(o);
	bool upgraded = getenv("WARP_INHERIT") != NULL;
	int err;

	diags_print(&cf->diags, stderr);
	if (cf->diags.errors > 0) {
		upgrade_back(argv);
		conf_free(cf);
		return EXIT_CONFIG;
	}
	if (o->file) {
		snprintf(file, sizeof file, "%s", cf->file);
		s.file = file; /* absolute, and it outlives cf */
	}
	if (upgraded)
		s.notify_fd = -1;
	else if (o->daemon && (err = daemonise(&s.daemon_fd)) != 0)
		return err;
	return master_run(&s, cf);
}

/* No socket of ours may end up as standard output. */
static void
stdio_open(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	fd_close(fd);
}

int
main(int argc, char **argv)
{
	struct options o = { .notify_fd = -1 };
	int done;

	stdio_open();
	signal(SIGPIPE, SIG_IGN);
	if ((done = options_read(&o, argc, argv)) >= 0)
		return done;
	if (o.list_keys) {
		if (o.arg && strcmp(o.arg, "man") == 0)
			conf_print_man(stdout);
		else
			conf_print_keys(stdout);
		return 0;
	}
	if (!options_source(&o)) {
		if (!o.verb)
			return usage("nothing to run: give -c FILE, or -u ADDR, or set "
			    "WARPDRIVE_TARGET_PORT", "");
		o.target = "127.0.0.1:80"; /* any: only [admin] is looked at */
	}
	if (o.verb)
		return verb(&o);
	if (o.check)
		return check(&o);
	if (o.explain) {
		struct conf *cf = options_conf(&o);
		diags_print(&cf->diags, stderr);
		return cf->diags.errors ? EXIT_CONFIG
		    : explain(cf, o.explain, o.headers, o.n_headers, o.client, stdout);
	}
	return run(&o, argv);
}
