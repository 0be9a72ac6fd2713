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
#include <crypt.h>
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
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

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
		if (d > 9 || v > (max - d) / 10)
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
