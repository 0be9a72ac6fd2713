/* warp: a reverse proxy, load balancer and process supervisor in one file.
 *
 * Each room opens with a sign: what it owns, offers and calls; `grep '==== '
 * warp.c` lists the rooms. A function calls only functions above it: there are
 * no forward declarations. Types are in warp.h, numbers in config.def.h.
 *
 * Begin at the end, with main; then worker_run, the loop of a worker; then the
 * way of a request: conn_ready (bytes came), conn_request (the head is whole),
 * gate_enter (the route), exchange_run (the steps, listed in states[]). */

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <grp.h>
#include <limits.h>
#include <math.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <wctype.h>

#include <bearssl.h>

#include "warp.h"

/* make compiles for size; between FAST and FAST_END, in the rooms through which
 * each request passes byte by byte, gcc compiles for speed. Other compilers take
 * one level for all. */
#if defined __OPTIMIZE_SIZE__ && !defined __clang__
#define FAST     _Pragma("GCC push_options") _Pragma("GCC optimize(\"O2\")")
#define FAST_END _Pragma("GCC pop_options")
#else
#define FAST
#define FAST_END
#endif

FAST

/* ==== base ===================================================================
 * Owns    the state of random_next.
 * Offers  LEN, MIN, MAX, slice_*, text_*, hash64, mix64, random_next, fd_close,
 *         clock_us, user_find, hex_value, utf8_*, base64_*, sha256, OWNER,
 *         link_*, slot_*.
 * Calls   libc, BearSSL's hash. */

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

/* s without its first n bytes. */
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

/* s without spaces and tabs at both ends. */
static struct slice
slice_trim(struct slice s)
{
	while (s.n > 0 && is_blank(s.p[0]))
		s = slice_from(s, 1);
	while (s.n > 0 && is_blank(s.p[s.n - 1]))
		s.n--;
	return s;
}

/* Takes the text before the first sep, or all, off *rest. False: at the end. */
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

/* The next member of a comma list, trimmed, not empty. RFC 9110 5.6.1. */
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

/* Equal and not empty; the time does not tell where they differ. */
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
text_lower(struct text *t, struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		text_char(t, lower(s.p[i]));
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

/* Replaces control characters: foreign text must not forge lines or move a cursor. */
static void
text_clean(char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)p[i] < ' ' || p[i] == 0x7f)
			p[i] = '?';
}

/* The value of a hexadecimal digit; -1: c is none. */
static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = lower(c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* fd may be -1. errno stays as it is. */
static void
fd_close(int fd)
{
	int err = errno;

	if (fd >= 0)
		close(fd);
	errno = err;
}

/* Monotonic. */
static int64_t
clock_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* The account of that name or number; NULL: there is none. */
static struct passwd *
user_find(const char *user)
{
	int64_t n = slice_uint(slice_of(user), UINT32_MAX - 1);
	struct passwd *pw = getpwnam(user);

	return pw || n < 0 ? pw : getpwuid((uid_t)n);
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

static uint64_t random_state[2]; /* seeded once in each worker */

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

/* ---- rings and slots ---- */

#define OWNER(p, type, member) ((type *)((char *)(uintptr_t)(p) - offsetof(type, member)))

/* Puts l behind `at`: a place, or the ring, whose first place l then is. */
static void
link_add(struct link *at, struct link *l)
{
	if (!at->next)
		at->prev = at->next = at;
	l->prev = at;
	l->next = at->next;
	l->next->prev = at->next = l;
}

static void
link_add_last(struct link *ring, struct link *l)
{
	link_add(ring->prev ? ring->prev : ring, l);
}

/* NULL: the ring is empty. */
static struct link *
link_first(const struct link *ring)
{
	return ring->next != ring ? ring->next : NULL;
}

static void
link_drop(struct link *l)
{
	if (!l->next)
		return;
	l->prev->next = l->next;
	l->next->prev = l->prev;
	l->prev = l->next = NULL;
}

/* A record, as it was given back or all zero; NULL: all are taken. */
static void *
slot_take(struct slots *s)
{
	char *p = s->given;

	if (p)
		memcpy(&s->given, p + s->next_at, sizeof s->given);
	else if (s->n < s->most)
		p = s->v + s->size * s->n++;
	return p;
}

static void
slot_give(struct slots *s, void *p)
{
	memcpy((char *)p + s->next_at, &s->given, sizeof s->given);
	s->given = p;
}

/* Spreads a difference in any bit over all bits (splitmix64). */
static uint64_t
mix64(uint64_t h)
{
	h = (h ^ h >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	h = (h ^ h >> 27) * UINT64_C(0x94d049bb133111eb);
	return h ^ h >> 31;
}

FAST_END

/* ---- encodings of bytes ---- */

/* Steps over n hexadecimal digits at *p and returns their value; -1: not so many. */
static int64_t
hex_read(const char **p, const char *end, int n)
{
	int64_t v = 0;

	for (int digit; n > 0; n--, (*p)++) {
		if (*p == end || (digit = hex_value(**p)) < 0)
			return -1;
		v = v << 4 | digit;
	}
	return v;
}

/* Adds prefix, then c as two capital hexadecimal digits. */
static void
text_byte(struct text *t, const char *prefix, char c)
{
	text_str(t, prefix);
	text_char(t, "0123456789ABCDEF"[(unsigned char)c >> 4]);
	text_char(t, "0123456789ABCDEF"[c & 15]);
}

static void
utf8_add(struct text *t, uint32_t c)
{
	static const unsigned char lead[] = { 0, 0xc0, 0xe0, 0xf0 };
	int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;

	text_char(t, (char)(lead[more] | c >> 6 * more));
	while (more-- > 0)
		text_char(t, (char)(0x80 | (c >> 6 * more & 0x3f)));
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

/* Takes bytes off the front of *s and returns them as JSON writes them: as they
 * are, or as one escape in b. A byte that is not UTF-8 becomes U+FFFD or, in a
 * log, its Latin-1 character. RFC 8259 7. */
static struct slice
json_piece(struct slice *s, bool log, char b[8])
{
	const unsigned char *p = (const unsigned char *)s->p, *end = p + s->n, *from = p;
	size_t n = 1;

	for (; n > 0; p += n) {
		while (p < end && *p >= ' ' && *p < 0x7f && *p != '"' && *p != '\\')
			p++;
		n = p < end && *p >= 0x80 ? utf8_length(p, end) : 0;
	}
	n = (size_t)(p - from);
	*s = slice_from(*s, MAX(n, (size_t)1));
	if (n > 0)
		return (struct slice){ (const char *)from, n };
	if (*p == '"' || *p == '\\')
		snprintf(b, 8, "\\%c", *p);
	else
		snprintf(b, 8, log ? "\\u%04X" : "\\u%04x", *p < 0x80 || log ? *p : 0xfffdu);
	return slice_of(b);
}

/* s as HTML text. */
static void
text_html(struct text *t, struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		switch (s.p[i]) {
		case '<': text_add(t, S("&lt;")); break;
		case '>': text_add(t, S("&gt;")); break;
		case '&': text_add(t, S("&amp;")); break;
		default: text_char(t, s.p[i]);
		}
}

/* s as it stands in a JSON string. */
static void
text_json(struct text *t, struct slice s, bool log)
{
	char b[8];

	while (s.n > 0 && !t->full)
		text_add(t, json_piece(&s, log, b));
}

/* The value of a base64 digit; -1: c is none. RFC 4648 4. */
static int
base64_value(char c)
{
	return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26
	    : c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* RFC 4648 4; url: 5, without padding. */
static void
base64_write(struct text *t, struct slice s, bool url)
{
	static const char digits[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_";

	for (size_t i = 0; i < s.n; i += 3) {
		size_t n = MIN(s.n - i, (size_t)3);
		uint32_t v = 0;
		for (size_t k = 0; k < 3; k++)
			v = v << 8 | (k < n ? (unsigned char)s.p[i + k] : 0);
		for (size_t k = 0; k < 4; k++) {
			unsigned digit = v >> (18 - 6 * k) & 63;
			if (k <= n)
				text_char(t, digits[digit + (url && digit > 61 ? 2 : 0)]);
			else if (!url)
				text_char(t, '=');
		}
	}
}

/* Appends the bytes that s encodes, padded or not; ignores characters of `skip`.
 * False: s is no base64, or too long for t. */
static bool
base64_read(struct text *t, struct slice s, const char *skip)
{
	size_t digits = 0, pads = 0;
	uint32_t bits = 0;

	for (size_t i = 0; i < s.n; i++) {
		int v = base64_value(s.p[i]);
		if (s.p[i] && strchr(skip, s.p[i]))
			continue;
		pads += s.p[i] == '=';
		if (v < 0 ? s.p[i] != '=' || pads > 2 : pads > 0)
			return false;
		if (v < 0)
			continue;
		bits = bits << 6 | (uint32_t)v;
		if (++digits % 4 != 1)
			text_char(t, (char)(bits >> (6 - 2 * ((digits - 1) % 4)) & 0xff));
	}
	return digits % 4 != 1 && !t->full;
}

static void
sha256(struct slice s, unsigned char out[br_sha256_SIZE])
{
	br_sha256_context h;

	br_sha256_init(&h);
	br_sha256_update(&h, s.p, s.n);
	br_sha256_out(&h, out);
}

/* ==== arena ==================================================================
 * Owns    blocks that are freed together.
 * Offers  arena_alloc, arena_dup, arena_fmt, arena_free. Never fails: a
 *         configuration that does not fit in memory ends the program.
 * Calls   base. */

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

/* ==== walk ===================================================================
 * Owns    nothing.
 * Offers  walk_dir, walk_open, walk_error, file_read, source_read, walk_read.
 * Calls   base, arena. Files by name. Root checks each step of the path: where
 *         another user can change it, the file must belong to that user, so
 *         that root touches no file for a user who could not. */

#define WALK_MODE  0640
#define WALK_PROC  0x9fa0 /* PROC_SUPER_MAGIC */
#define ROOT        ((uid_t)0)
#define ANYBODY     ((uid_t)-1)

/* Notes that user `who` can change the path. */
static void
walk_say(struct walk *w, uid_t who)
{
	if (who != ROOT)
		w->who = w->who == ROOT || w->who == who ? who : ANYBODY;
}

/* Enters the directory fd, which w owns from then on. */
static bool
walk_enter(struct walk *w, int fd)
{
	struct stat st;

	if (fd < 0)
		return false;
	fd_close(w->dir);
	w->dir = fd;
	if (fstat(fd, &st) < 0)
		return false;
	walk_say(w, st.st_uid);
	if ((st.st_mode & S_IWOTH) && !(st.st_mode & S_ISVTX))
		w->who = ANYBODY;
	w->shared = st.st_mode & S_IWOTH || (st.st_mode & S_IWGRP && st.st_gid != 0);
	return true;
}

/* Follows the link `name` (its stat: st) in w->dir; `rest` of the path comes behind. */
static bool
walk_follow(struct walk *w, const char *name, const struct stat *st, const char *rest)
{
	char to[PATH_MAX], left[PATH_MAX];
	ssize_t n = readlinkat(w->dir, name, to, sizeof to - 1);

	if (n <= 0)
		return false;
	to[n] = '\0';
	walk_say(w, st->st_uid);
	w->linked |= st->st_uid != ROOT;
	if ((size_t)snprintf(left, sizeof left, "%s%s%s", to, *rest ? "/" : "", rest) >=
	    sizeof left) {
		errno = ENAMETOOLONG;
		return false;
	}
	strcpy(w->name, left);
	return *to != '/' || walk_enter(w, open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
}

/* Goes one step along the path. 1: it was the last; -1: errno. */
static int
walk_step(struct walk *w)
{
	char name[NAME_MAX + 1];
	const char *at = w->name + strspn(w->name, "/");
	size_t n = strcspn(at, "/");
	const char *rest = at + n + strspn(at + n, "/");
	bool last = !*rest;
	struct statfs fs;
	struct stat st;

	if (n > NAME_MAX || n == 0) {
		errno = n ? ENAMETOOLONG : EISDIR;
		return -1;
	}
	snprintf(name, sizeof name, "%.*s", (int)n, at);
	if (fstatat(w->dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		w->magic = last && fstatfs(w->dir, &fs) == 0 && (long)fs.f_type == WALK_PROC;
		if (S_ISLNK(st.st_mode) && !w->magic) /* /proc/self/fd leads nowhere by name */
			return walk_follow(w, name, &st, rest) ? 0 : -1;
	} else if (!last)
		return -1;
	memmove(w->name, last ? at : rest, strlen(last ? at : rest) + 1);
	if (last)
		return 1;
	return walk_enter(w, openat(w->dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC))
	    ? 0 : -1;
}

/* The directory of path, and its name there; the caller closes w->dir. False: errno. */
static bool
walk_dir(struct walk *w, const char *path)
{
	int done = -1;

	*w = (struct walk){ .dir = -1, .who = ROOT };
	if ((size_t)snprintf(w->name, sizeof w->name, "%s", path) >= sizeof w->name)
		errno = ENAMETOOLONG;
	else if (walk_enter(w, open(*path == '/' ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC)))
		for (int i = done = 0; i < PATH_MAX && done == 0; i++)
			done = walk_step(w);
	if (done > 0)
		return true;
	fd_close(w->dir);
	w->dir = -1;
	if (done == 0)
		errno = ELOOP;
	return false;
}

/* Whether root may use the open file, whose stat is st. */
static bool
walk_is_good(const struct walk *w, const struct stat *st)
{
	bool own_name = !w->linked && st->st_nlink == 1; /* the file was made here */

	if (w->shared && S_ISREG(st->st_mode) && st->st_nlink != 1)
		return false; /* a hard link to another user's file */
	if (w->who == ANYBODY)
		return own_name && S_ISREG(st->st_mode) &&
		    (st->st_uid == ROOT || st->st_uid == w->own);
	return w->who == ROOT || st->st_uid == w->who ||
	    ((st->st_uid == ROOT || st->st_uid == w->own) && own_name);
}

/* Whether root may make a file there: a user's link must lead to that user's dir. */
static bool
walk_may_make(const struct walk *w)
{
	struct stat st;

	return !w->linked || (fstat(w->dir, &st) == 0 && st.st_uid == w->who);
}

/* As open(), but never waits. The file may also be of user own. -1: see walk_error. */
static int
walk_open(struct walk *w, const char *path, int flags, uid_t own)
{
	int fd = -1, err = 0, first;
	struct stat st;

	flags |= O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	w->made = false;
	if (geteuid() != ROOT)
		return open(path, flags, WALK_MODE);
	if (!walk_dir(w, path))
		return -1;
	w->own = own;
	errno = EPERM;
	if (flags & O_CREAT && walk_may_make(w))
		fd = openat(w->dir, w->name, flags | O_EXCL, WALK_MODE);
	first = errno;
	w->made = fd >= 0;
	if (w->made && w->linked && fchown(fd, w->who, (gid_t)-1) < 0)
		err = errno; /* walk_is_good refuses such a file */
	if (fd < 0) /* a link made since the look is not followed */
		fd = openat(w->dir, w->name, (flags & ~O_CREAT) | (w->magic ? 0 : O_NOFOLLOW));
	if (fd < 0)
		err = errno == ENOENT && flags & O_CREAT ? first : errno;
	else if (fstat(fd, &st) < 0 || !walk_is_good(w, &st)) {
		close(fd);
		fd = -1;
		err = EPERM;
	}
	fd_close(w->dir);
	errno = err;
	return fd;
}

/* As fchmod, for a descriptor opened with O_PATH. */
static int
fd_chmod(int fd, mode_t mode)
{
	char path[32];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return chmod(path, mode);
}

/* Why walk_open failed. */
static const char *
walk_error(void)
{
	return errno == EPERM ? "another user can change this path, and the file is not that user's"
	    : errno == ENXIO ? "nobody reads this pipe" : strerror(errno);
}

/* Reads all of fd (max bytes, PIPE_WAIT_MS), adds a NUL, closes fd. NULL or why not. */
static const char *
fd_read(struct arena *a, int fd, size_t max, struct slice *out)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	int64_t until_us = clock_us() + PIPE_WAIT_MS * 1000;
	const char *why = NULL;
	char *p = NULL;
	size_t n = 0, cap = 0;
	ssize_t got = 1;

	while (got != 0 && n <= max && !why) {
		if (n == cap) {
			cap = cap ? cap * 2 : 4096;
			if (!(p = realloc(p, cap)))
				die_memory();
		}
		got = read(fd, p + n, cap - n);
		if (got < 0 && errno == EAGAIN &&
		    poll(&wait, 1, (int)(MAX(until_us - clock_us(), 0) / 1000)) == 0)
			why = "not all of it has come by this pipe";
		else if (got < 0 && errno != EINTR && errno != EAGAIN)
			why = strerror(errno);
		n += got > 0 ? (size_t)got : 0;
	}
	if (!why && n > max)
		why = "the file is too long";
	if (!why)
		*out = arena_dup(a, (struct slice){ p, n });
	free(p);
	close(fd);
	return why;
}

/* As fd_read, of a file or, with `pipe`, a pipe; a device could take for ever. */
static const char *
fd_read_file(struct arena *a, int fd, bool pipe, size_t max, struct slice *out)
{
	const char *why = NULL;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		why = walk_error();
	else if (!S_ISREG(st.st_mode) && !(pipe && S_ISFIFO(st.st_mode)))
		why = S_ISDIR(st.st_mode) ? "it is a directory" : "it is not a regular file";
	if (!why)
		return fd_read(a, fd, max, out);
	fd_close(fd);
	return why;
}

/* A file of the configuration that only warp sees. NULL or why not. */
static const char *
file_read(struct arena *a, const char *path, size_t max, struct slice *out)
{
	return fd_read_file(a, open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), false,
	    max, out);
}

/* The configuration itself, which may come by a pipe: `-c /dev/stdin`. */
static const char *
source_read(struct arena *a, const char *path, size_t max, struct slice *out)
{
	return fd_read_file(a, open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), true,
	    max, out);
}

/* A file that clients or programs get to see. */
static const char *
walk_read(struct arena *a, const char *path, size_t max, uid_t own, struct slice *out)
{
	struct walk w;

	return fd_read_file(a, walk_open(&w, path, O_RDONLY, own), false, max, out);
}

/* ==== clock ==================================================================
 * Owns    now_ms, now_us, now_s and the Date text, read once a turn.
 * Offers  clock_turn, clock_is_right, clock_date, date_write.
 * Calls   libc. */

static int64_t now_ms; /* monotonic */
static int64_t now_us; /* monotonic */
static time_t now_s;   /* wall clock */

static void
clock_turn(void)
{
	struct timespec t;

	now_us = clock_us();
	now_ms = now_us / 1000;
	clock_gettime(CLOCK_REALTIME_COARSE, &t); /* a tick late; reads no counter */
	now_s = t.tv_sec;
}

/* A time as processes share it: 32 bits, never 0; wraps every 49 days. */
static uint32_t
clock_low(int64_t ms)
{
	return (uint32_t)ms ? (uint32_t)ms : 1;
}

/* Milliseconds since then; 0 if it is ahead, by the time of another process. */
static uint32_t
clock_ago(uint32_t then)
{
	uint32_t ago = (uint32_t)now_ms - then;

	return ago > UINT32_MAX - MINUTE_S * SECOND_MS ? 0 : ago;
}

/* The day of BUILD_DATE, wall clock. */
static int64_t
clock_built_s(void)
{
	struct tm tm = { .tm_year = BUILD_DATE / 10000 - 1900,
		.tm_mon = BUILD_DATE / 100 % 100 - 1, .tm_mday = BUILD_DATE % 100 };

	return (int64_t)timegm(&tm);
}

/* False while a router does not know the date: certificates cannot be judged then. */
static bool
clock_is_right(void)
{
	return now_s >= clock_built_s();
}

static const char month_names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

/* s of the wall clock as HTTP writes it, with a NUL behind. RFC 9110 5.6.7. */
static struct slice
date_write(char text[DATE_LEN + 1], time_t s)
{
	static const char days[] = "SunMonTueWedThuFriSat";
	struct tm tm;

	gmtime_r(&s, &tm);
	snprintf(text, DATE_LEN + 1, "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT",
	    days + tm.tm_wday * 3, (unsigned)tm.tm_mday % 100,
	    month_names + tm.tm_mon * 3, (unsigned)(tm.tm_year + 1900) % 10000,
	    (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100,
	    (unsigned)tm.tm_sec % 100);
	return (struct slice){ text, DATE_LEN };
}

/* The value of Date for now_s. */
static struct slice
clock_date(void)
{
	static char text[DATE_LEN + 1];
	static time_t of;

	if (of != now_s || !text[0])
		date_write(text, of = now_s);
	return (struct slice){ text, DATE_LEN };
}

/* ==== sink ===================================================================
 * Owns    the connection to the host's syslog.
 * Offers  sink_use, sink_move, sink_add, sink_flush, sink_waits, sinks_finish,
 *         stream_own.
 * Calls   base, clock. Lines on their way out. Writers never wait: what the reader
 *         does not take stays in the buffer. Whole lines are written, so that
 *         lines of several processes never mix. */

#define SYSLOG_PATH     "/dev/log"
#define SYSLOG_LINE     1024 /* bytes of a datagram; RFC 3164 4.1 */
#define SYSLOG_FACILITY 3    /* daemon */
#define SOCKET_PIECE    1536 /* a socket takes so many bytes whole, or none */

static int syslog_fd = -1;
static bool syslog_streams; /* by a stream socket: a record ends in a NUL */

/* Connects with datagrams, else a stream. If nobody listens, the next line retries. */
static void
syslog_open(void)
{
	static const int types[] = { SOCK_DGRAM, SOCK_STREAM };
	struct sockaddr_un un = { .sun_family = AF_UNIX, .sun_path = SYSLOG_PATH };

	fd_close(syslog_fd);
	syslog_fd = -1;
	for (size_t i = 0; i < LEN(types) && syslog_fd < 0; i++) {
		syslog_fd = socket(AF_UNIX, types[i] | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		syslog_streams = types[i] == SOCK_STREAM;
		if (syslog_fd >= 0 && connect(syslog_fd, (struct sockaddr *)&un, sizeof un) < 0) {
			close(syslog_fd);
			syslog_fd = -1;
		}
	}
}

/* As write(), one line behind its priority. Reconnects to a restarted daemon. */
static ssize_t
syslog_put(struct slice line)
{
	char b[SYSLOG_LINE];
	struct text t = { b, 0, sizeof b - 1, false };
	time_t s = time(NULL);
	struct tm tm;
	ssize_t put = -1;

	localtime_r(&s, &tm);
	text_fmt(&t, "<%d>%.3s %2d %02d:%02d:%02d warp[%d]: ", SYSLOG_FACILITY * 8 + line.p[0] - '0',
	    &"JanFebMarAprMayJunJulAugSepOctNovDec"[tm.tm_mon * 3], tm.tm_mday, tm.tm_hour,
	    tm.tm_min, tm.tm_sec, (int)getpid());
	text_add(&t, (struct slice){ line.p + 1, MIN(line.n - 1, t.cap - t.n) });
	t.p[t.n] = '\0';
	for (int i = 0; i < 2 && put < 0; i++) {
		put = send(syslog_fd, t.p, t.n + syslog_streams, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (put >= 0 || errno == EAGAIN || errno == ENOBUFS)
			break;
		syslog_open();
	}
	return put;
}

/* Reopens fd as our own, which never blocks; or returns fd, and poll must do. */
static int
stream_own(int fd)
{
	char name[32];
	struct stat st;
	int own;

	if (fstat(fd, &st) < 0 || S_ISREG(st.st_mode))
		return fd; /* a file: others append to it as well */
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	own = open(name, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (own < 0)
		return fd;
	if (fd > STDERR_FILENO)
		close(fd);
	return own;
}

/* From now on s writes to fd or, with to_syslog, to the host's syslog. */
static void
sink_use(struct sink *s, int fd, bool to_syslog)
{
	struct stat st;

	s->fd = fd;
	if (to_syslog && syslog_fd < 0)
		syslog_open(); /* now: there may be a chroot later */
	if (to_syslog)
		s->kind = SINK_DGRAM;
	else if (fstat(fd, &st) < 0 || S_ISFIFO(st.st_mode) || isatty(fd))
		s->kind = SINK_STREAM;
	else
		s->kind = S_ISSOCK(st.st_mode) ? SINK_SOCKET : SINK_PLAIN;
}

/* Drops the first n bytes. */
static void
sink_eat(struct sink *s, size_t n)
{
	if (n == 0)
		return;
	s->torn = s->buf[n - 1] != '\n';
	s->n -= n;
	memmove(s->buf, s->buf + n, s->n);
}

/* How much of rest to write at once: whole lines, so that processes do not mix. */
static size_t
sink_piece(const struct sink *s, struct slice rest)
{
	size_t n = s->kind == SINK_PLAIN ? rest.n
	    : MIN(rest.n, (size_t)(s->kind == SINK_SOCKET ? SOCKET_PIECE : PIPE_BUF));
	const char *end = s->kind == SINK_DGRAM ? memchr(rest.p, '\n', rest.n)
	    : memrchr(rest.p, '\n', n);

	return end ? (size_t)(end - rest.p) + 1 : n;
}

/* As write(), to any kind of sink. */
static ssize_t
sink_put(struct sink *s, struct slice piece)
{
	struct pollfd p = { .fd = s->fd, .events = POLLOUT };
	ssize_t put;

	if (s->kind == SINK_DGRAM) {
		put = syslog_put((struct slice){ piece.p, piece.n - 1 });
		if (put < 0 && (errno == EAGAIN || errno == ENOBUFS))
			return -1;
		s->lost += put < 0; /* nobody listens */
		return (ssize_t)piece.n;
	}
	if (s->kind == SINK_STREAM && poll(&p, 1, 0) <= 0) {
		errno = EAGAIN;
		return -1;
	}
	do
		put = s->kind == SINK_SOCKET
		    ? send(s->fd, piece.p, piece.n, MSG_DONTWAIT | MSG_NOSIGNAL)
		    : write(s->fd, piece.p, piece.n);
	while (put < 0 && errno == EINTR);
	return put;
}

/* Writes what the reader takes now. False: it failed (errno); the rest stays. */
static bool
sink_flush(struct sink *s)
{
	struct slice rest = { s->buf, s->n };
	ssize_t put = 0;

	errno = EAGAIN;
	while (rest.n > 0 && (put = sink_put(s,
	    (struct slice){ rest.p, sink_piece(s, rest) })) > 0)
		rest = slice_from(rest, (size_t)put);
	sink_eat(s, s->n - rest.n);
	s->blocked = s->n > 0;
	return s->n == 0 || errno == EAGAIN || errno == ENOBUFS;
}

/* Adds a whole line with its LF; the line is lost where there is no room. */
static void
sink_add(struct sink *s, struct slice line)
{
	if (line.n > s->cap - s->n) {
		s->lost++;
		return;
	}
	memcpy(s->buf + s->n, line.p, line.n);
	s->n += line.n;
}

/* From now on s writes to fd: first the waiting lines, but not a half-written one. */
static void
sink_move(struct sink *s, int fd, bool to_syslog)
{
	const char *end;

	sink_flush(s);
	if (s->torn && s->n > 0 && (end = memchr(s->buf, '\n', s->n)))
		sink_eat(s, (size_t)(end - s->buf) + 1);
	s->torn = s->blocked = false;
	sink_use(s, fd, to_syslog);
}

/* The descriptor whose POLLOUT is waited for; -1: nothing waits. */
static int
sink_waits(const struct sink *s)
{
	return !s->blocked ? -1 : s->kind == SINK_DGRAM ? syslog_fd : s->fd;
}

/* At the end of a process: slow readers get limit_ms for what waits. */
static void
sinks_finish(struct sink *a, struct sink *b, int limit_ms)
{
	struct sink *const v[] = { a, b };
	struct pollfd p[LEN(v)];
	int64_t until = now_ms + limit_ms;
	bool waits = true;

	while (waits && now_ms < until) {
		waits = false;
		for (size_t i = 0; i < LEN(v); i++) {
			if (!sink_flush(v[i])) /* it can never be written */
				v[i]->n = v[i]->blocked = 0;
			p[i] = (struct pollfd){ .fd = sink_waits(v[i]), .events = POLLOUT };
			waits |= v[i]->blocked;
		}
		if (waits)
			poll(p, LEN(p), (int)(until - now_ms));
		clock_turn();
	}
}

/* ==== log ====================================================================
 * Owns    the error log: its sink, level and this process's name.
 * Offers  log_error, log_warn, log_info, log_debug, log_errno, log_flush,
 *         log_add, log_forked, log_leave, log_sink, log_level.
 * Calls   base, sink. */

#define LOG_LINE 1024 /* bytes of one line; a longer line is cut */

static char log_ring[LOG_RING];
static atomic_uint log_lost_own;        /* until there is a board */
static atomic_uint *log_lost = &log_lost_own; /* then of all processes */
static struct sink log_sink = { .kind = SINK_STREAM, .fd = STDERR_FILENO, .buf = log_ring,
	.cap = sizeof log_ring };
static enum log_level log_level = LOG_LVL_INFO;
static const char *log_who = "warp"; /* "warp", "worker", "resolver" */

/* In a new child: the parent writes the lines that wait. */
static void
log_forked(const char *who)
{
	log_who = who;
	log_sink.n = 0;
	log_sink.blocked = false;
}

/* At the end of this process: lines that nobody took count as lost. */
static void
log_leave(void)
{
	for (size_t i = 0; i < log_sink.n; i++)
		*log_lost += log_sink.buf[i] == '\n';
	log_sink.n = 0;
}

/* A whole line, as it is. */
static void
log_add(struct slice line)
{
	sink_add(&log_sink, line);
	*log_lost += (unsigned)log_sink.lost;
	log_sink.lost = 0;
}

static void
log_line(enum log_level level, const char *text)
{
	static const char *const names[] = { "error", "warn", "info", "debug" };
	static const char priority[] = { '3', '4', '6', '7' };
	char line[LOG_LINE];
	struct text t = { line, 0, sizeof line - 1, false };
	struct slice rest = slice_of(text);
	time_t s = time(NULL);
	struct tm tm;

	localtime_r(&s, &tm);
	if (log_sink.kind == SINK_DGRAM)
		text_char(&t, priority[level]);
	else
		text_fmt(&t, "%04d-%02d-%02d %02d:%02d:%02d %s[%d] %s: ", tm.tm_year + 1900,
		    tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, log_who,
		    (int)getpid(), names[level]);
	text_add(&t, (struct slice){ rest.p, MIN(rest.n, t.cap - t.n) });
	text_clean(line, t.n);
	line[t.n++] = '\n';
	log_add((struct slice){ line, t.n });
}

/* Writes what waits, and how much was lost; a full disk only loses lines. */
static void
log_flush(void)
{
	char b[LOG_LINE];
	unsigned lost;

	if (!sink_flush(&log_sink))
		log_sink.n = 0;
	log_sink.blocked = log_sink.n > 0;
	if (*log_lost == 0 || log_sink.blocked || (lost = atomic_exchange(log_lost, 0)) == 0)
		return;
	snprintf(b, sizeof b, "the reader of this log was too slow: %u line%s lost", lost,
	    lost == 1 ? "" : "s");
	log_line(LOG_LVL_WARN, b);
	sink_flush(&log_sink);
}

__attribute__((format(printf, 2, 0))) static void
log_v(enum log_level level, const char *fmt, va_list ap)
{
	char b[LOG_LINE];
	int err = errno;

	if (level > log_level)
		return;
	log_flush();
	vsnprintf(b, sizeof b, fmt, ap);
	log_line(level, b);
	if (!log_sink.blocked)
		log_flush();
	errno = err;
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
 * Offers  diag_add, diags_print, diags_say, diags_log.
 * Calls   base, arena, log. */

#define DIAGS_MAX 100 /* complaints that are kept; the rest is counted */

/* Notes a fault at line:col; line 0 when it is not in the file. */
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
	text_clean(d->text, strlen(d->text));
	*(ds->last ? &ds->last->next : &ds->first) = d;
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

static bool
is_word_char(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

/* Whether s has word, by itself. */
static bool
has_word(struct slice s, struct slice word)
{
	const char *at, *end = s.p + s.n;

	while ((at = s.n > 0 ? memmem(s.p, s.n, word.p, word.n) : NULL)) {
		const char *behind = at + word.n;
		if ((at == s.p || !is_word_char(at[-1])) &&
		    (behind == end || !is_word_char(*behind)))
			return true;
		s = (struct slice){ behind, (size_t)(end - behind) };
	}
	return false;
}

/* How much of the line may be shown: not the value of a secret, which may have
 * begun above, in the first line of a list or a text. */
static size_t
diag_shown(const struct diags *ds, const struct diag *d, struct slice line)
{
	bool table = line.n > 0 && line.p[0] == '[', secret = false;
	const char *equals = line.n > 0 ? memchr(line.p, '=', line.n) : NULL;
	struct slice above = S("");

	for (unsigned n = d->line; n > 1; n--) {
		above = text_line(ds->source, n - 1);
		if (above.n > 0 && (above.p[0] == '[' || is_word_char(above.p[0])))
			break;
	}
	for (int i = 0; ds->secrets && i < ds->secrets->n && !table; i++)
		secret |= has_word(line, ds->secrets->v[i]) || has_word(above, ds->secrets->v[i]);
	if (!secret)
		return line.n;
	return equals ? (size_t)(equals - line.p) + 1 : 0;
}

/* The line with a caret below the column; controls show as spaces, tabs keep their width. */
static void
diag_quote(const struct diags *ds, const struct diag *d, FILE *to)
{
	struct slice line = text_line(ds->source, d->line);
	size_t shown = diag_shown(ds, d, line);

	fputs("    ", to);
	for (size_t i = 0; i < shown; i++)
		fputc(line.p[i] == '\t' || (unsigned char)line.p[i] >= ' ' ? line.p[i] : ' ', to);
	fputs(shown < line.n ? " ***\n    " : "\n    ", to);
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
		if (d->line == 0) {
			fprintf(to, "%s: %s: %s\n", ds->file ? ds->file : "warp",
			    names[d->level], d->text);
			continue;
		}
		fprintf(to, "%s:%u:%u: %s: %s\n", ds->file, d->line, d->col, names[d->level],
		    d->text);
		diag_quote(ds, d, to);
	}
	if (ds->errors + ds->warnings > DIAGS_MAX)
		fprintf(to, "... and %d more\n", ds->errors + ds->warnings - DIAGS_MAX);
}

/* Prints all for the person who started warp, never waiting for a slow reader. */
static void
diags_say(const struct diags *ds)
{
	char *text = NULL;
	size_t n = 0;
	FILE *to = open_memstream(&text, &n);
	struct slice rest, line;

	if (!to)
		die_memory();
	diags_print(ds, to);
	fclose(to);
	for (rest = (struct slice){ text, n }; rest.n > 0 && slice_cut(&rest, '\n', &line); ) {
		log_flush();
		log_add((struct slice){ line.p, line.n + 1 });
	}
	log_flush();
	free(text);
}

/* Writes all to the error log. */
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

/* ==== toml ===================================================================
 * Owns    nothing: the tree is in the caller's arena.
 * Offers  toml_parse, toml_get.
 * Calls   base, arena, diag. All of TOML 1.0.0. After an error the parser goes
 *         on with the next line, so that all errors are reported at once.
 * Keys of a table are looked up one by one: fast enough for files of people. */

#define TOML_ERRORS_MAX 20 /* of the parser, in one text */
#define TOML_SHOWN_MAX  40 /* bytes of a key or value in an error's text */
#define DATE_CHARS      10 /* YYYY-MM-DD */

static const char *const toml_kind_names[TOML_KINDS] = {
	[TOML_STRING] = "a text", [TOML_INTEGER] = "an integer", [TOML_FLOAT] = "a float",
	[TOML_BOOLEAN] = "true or false", [TOML_DATETIME] = "a date and time",
	[TOML_DATETIME_LOCAL] = "a local date and time", [TOML_DATE_LOCAL] = "a date",
	[TOML_TIME_LOCAL] = "a time", [TOML_ARRAY] = "an array", [TOML_TABLE] = "a table",
};

static struct toml *
toml_find(const struct toml *t, struct slice key)
{
	for (struct toml *v = t->first; v; v = v->next)
		if (slice_eq(v->key, key))
			return v;
	return NULL;
}

static const struct toml *
toml_get(const struct toml *t, const char *key)
{
	return t && t->kind == TOML_TABLE ? toml_find(t, slice_of(key)) : NULL;
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

/* Steps over one line end; false: there is none. */
static bool
toml_newline(struct toml_parser *tp)
{
	if (!toml_at_newline(tp))
		return false;
	tp->p += *tp->p == '\r' ? 2 : 1;
	tp->line++;
	tp->line_start = tp->p;
	return true;
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
	return toml_newline(tp) || tp->p == tp->end ||
	    toml_error(tp, tp->p, "expected the end of the line");
}

/* Blanks, comments and line ends inside an array. */
static bool
toml_space(struct toml_parser *tp)
{
	do {
		toml_blanks(tp);
		if (!toml_comment(tp))
			return false;
	} while (toml_newline(tp));
	return true;
}

/* ---- strings ---- */

/* \uXXXX or \UXXXXXXXX, behind the letter. */
static bool
toml_unicode(struct toml_parser *tp, struct text *t, int digits)
{
	const char *at = tp->p - 2;
	int64_t c = hex_read(&tp->p, tp->end, digits);

	if (c < 0)
		return toml_error(tp, at, "expected %d hexadecimal digits", digits);
	if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return toml_error(tp, at, "this is no Unicode character");
	utf8_add(t, (uint32_t)c);
	return true;
}

/* Behind a backslash. */
static bool
toml_escape(struct toml_parser *tp, struct text *t)
{
	static const char letters[] = "btnfr\"\\", bytes[] = "\b\t\n\f\r\"\\";
	char c = tp->p < tp->end ? *tp->p : '\0';
	const char *at = c ? strchr(letters, c) : NULL;

	if (!at && c != 'u' && c != 'U')
		return toml_error(tp, tp->p - 1, "unknown escape; use \\\\ for a backslash");
	tp->p++;
	if (!at)
		return toml_unicode(tp, t, c == 'u' ? 4 : 8);
	text_char(t, bytes[at - letters]);
	return true;
}

/* Behind a backslash: skips a line end and white space. False: no line end there. */
static bool
toml_joins_lines(struct toml_parser *tp)
{
	const char *p = tp->p;

	toml_blanks(tp);
	if (!toml_at_newline(tp)) {
		tp->p = p;
		return false;
	}
	while (toml_newline(tp))
		toml_blanks(tp);
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
	char c = toml_newline(tp) ? '\n' : *tp->p++;

	if (toml_is_control(c) && c != '\n')
		return toml_error(tp, tp->p - 1, "a text holds a control character; use \\u00XX");
	if (basic && c == '\\')
		return (lines && toml_joins_lines(tp)) || toml_escape(tp, t);
	text_char(t, c);
	return true;
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

/* At a quote: decodes the string; a NUL follows. */
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
	if (lines)
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

static const struct number_base number_bases[] = {
	{ 'x', 16, "0123456789abcdefABCDEF" }, { 'o', 8, "01234567" }, { 'b', 2, "01" },
};

/* Copies digits at *p to t, without the single underscores between them. */
static bool
number_digits(const char **p, const char *digits, struct text *t)
{
	size_t n;

	do {
		if ((n = strspn(*p, digits)) == 0)
			return false;
		text_add(t, (struct slice){ *p, n });
		*p += n;
	} while (**p == '_' && *++*p);
	return (*p)[-1] != '_';
}

/* Copies a sign at *p to t. */
static bool
number_sign(const char **p, struct text *t)
{
	if (**p != '-' && **p != '+')
		return false;
	text_char(t, *(*p)++);
	return true;
}

/* text is a sign, if any, and digits; false: out of range. */
static bool
number_integer(const char *text, int base, struct toml *v)
{
	int64_t n;

	errno = 0;
	n = strtoll(text, NULL, base);
	if (errno != 0)
		return false;
	v->kind = TOML_INTEGER;
	v->integer = n;
	return true;
}

/* Sign, digits, and either a fraction or an exponent or both in a float. */
static bool
number_parse(struct toml_parser *tp, struct slice s, struct toml *v)
{
	static const char decimal[] = "0123456789";
	const char *p = arena_dup(tp->arena, s).p;
	struct text t = { arena_alloc(tp->arena, s.n + 1), 0, s.n, false };
	bool sign = number_sign(&p, &t), zero = *p == '0';

	v->kind = TOML_FLOAT;
	v->real = (double)NAN;
	if (strcmp(p, "inf") == 0)
		v->real = *t.p == '-' ? -HUGE_VAL : HUGE_VAL;
	if (strcmp(p, "inf") == 0 || strcmp(p, "nan") == 0)
		return true;
	for (size_t i = 0; zero && !sign && i < LEN(number_bases); i++)
		if (p[1] == number_bases[i].letter) {
			p += 2;
			return number_digits(&p, number_bases[i].digits, &t) && !*p &&
			    number_integer(t.p, number_bases[i].base, v);
		}
	if (!number_digits(&p, decimal, &t) || (zero && t.n > 1u + sign))
		return false;
	if (!*p)
		return number_integer(t.p, 10, v);
	if (*p == '.') {
		text_char(&t, *p++);
		if (!number_digits(&p, decimal, &t))
			return false;
	}
	if (lower(*p) == 'e') {
		text_char(&t, *p++);
		number_sign(&p, &t);
		if (!number_digits(&p, decimal, &t))
			return false;
	}
	v->real = strtod(t.p, NULL);
	return !*p && isfinite(v->real); /* stricter than TOML: 1e999 is a slip */
}

/* Takes pattern off the front of *s: a 0 is a digit of the number at v, any other
 * character stands for itself, in either case, and ends that number. False: s does
 * not match. */
static bool
date_take(struct slice *s, const char *pattern, int *v)
{
	for (; *pattern; pattern++, *s = slice_from(*s, 1)) {
		char c = s->n > 0 ? lower(s->p[0]) : '\0';
		if (*pattern == '0' ? c < '0' || c > '9' : c != *pattern)
			return false;
		if (*pattern == '0')
			*v = *v * 10 + c - '0';
		else
			v++;
	}
	return true;
}

static bool
date_day(struct slice *s)
{
	static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	int v[3] = { 0 }; /* year, month, day */
	bool leap;

	if (!date_take(s, "0000-00-00", v) || v[1] < 1 || v[1] > 12)
		return false;
	leap = (v[0] % 4 == 0 && v[0] % 100 != 0) || v[0] % 400 == 0;
	return v[2] >= 1 && v[2] <= days[v[1] - 1] + (v[1] == 2 && leap);
}

static bool
date_time(struct slice *s)
{
	int v[3] = { 0 }; /* hours, minutes, seconds */

	if (!date_take(s, "00:00:00", v) || v[0] > 23 || v[1] > 59 || v[2] > 60)
		return false;
	if (!date_take(s, ".", v))
		return true;
	if (s->n == 0 || !isdigit((unsigned char)s->p[0]))
		return false;
	while (s->n > 0 && isdigit((unsigned char)s->p[0]))
		*s = slice_from(*s, 1);
	return true;
}

static bool
date_zone(struct slice *s)
{
	int v[3] = { 0 }; /* nothing, hours, minutes */

	if (date_take(s, "z", v))
		return true;
	return date_take(s, s->p[0] == '+' ? "+00:00" : "-00:00", v) && v[1] <= 23 && v[2] <= 59;
}

static bool
date_parse(struct toml_parser *tp, struct slice s, struct toml *v)
{
	v->text = arena_dup(tp->arena, s);
	if (s.n > 2 && s.p[2] == ':') {
		v->kind = TOML_TIME_LOCAL;
		return date_time(&s) && s.n == 0;
	}
	if (!date_day(&s))
		return false;
	v->kind = TOML_DATE_LOCAL;
	if (s.n == 0)
		return true;
	if (lower(s.p[0]) != 't' && s.p[0] != ' ')
		return false;
	s = slice_from(s, 1);
	if (!date_time(&s))
		return false;
	v->kind = s.n == 0 ? TOML_DATETIME_LOCAL : TOML_DATETIME;
	return s.n == 0 || (date_zone(&s) && s.n == 0);
}

/* Whether s begins like a date or a time. */
static bool
date_begins(struct slice s)
{
	struct slice t = s;
	int v[2] = { 0 };

	return date_take(&s, "0000-", v) || date_take(&t, "00:", v);
}

static bool
toml_is_bare(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '-';
}

/* Skips the characters of a number, date, or word. */
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
	v->text = S(""); /* kept if the value is an error */
	v->line = v->vline = tp->line;
	v->col = v->vcol = toml_col(tp, at);
	*(to->last ? &to->last->next : &to->first) = v;
	to->last = v;
	to->count++;
	return v;
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

static bool
toml_twice(struct toml_parser *tp, const char *at, const struct toml *first)
{
	return toml_error(tp, at, "'%.*s' is defined twice, first in line %u",
	    toml_shown(first->key), first->key.p, first->line);
}

/* A table outside the tree, for lines that have no place in it but may have errors. */
static struct toml *
toml_scratch(struct toml_parser *tp)
{
	struct toml *v = arena_alloc(tp->arena, sizeof *v);

	v->kind = TOML_TABLE;
	return v;
}

/* One level down; limited, since users of the tree recurse over it. */
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
	bool more = true;

	v->kind = TOML_ARRAY;
	while (toml_space(tp) && !toml_at(tp, ']')) {
		if (!more)
			return toml_error(tp, tp->p, "expected ',' or ']' in the array begun in line %u",
			    v->vline);
		if (!tp->value(tp, toml_add(tp, v, S(""), tp->p, TOML_STRING)) || !toml_space(tp))
			return false;
		more = toml_at(tp, ',');
		tp->p += more;
	}
	if (!toml_at(tp, ']'))
		return false; /* a comment was bad */
	tp->p++;
	return true;
}

/* One step along a dotted key, into its table or that of another dotted key
 * (TOML_DOTTED), or toward a header's last key (TOML_IMPLICIT). NULL: an error. */
static struct toml *
toml_step(struct toml_parser *tp, struct toml *to, struct slice key, const char *at,
    uint8_t how)
{
	struct toml *v = toml_find(to, key);

	if (!v) {
		v = toml_add(tp, to, key, at, TOML_TABLE);
		v->flags = how;
		return v;
	}
	if (how == TOML_IMPLICIT && v->kind == TOML_ARRAY && v->flags & TOML_TABLES)
		return v->last;
	if (v->kind == TOML_TABLE &&
	    (how == TOML_IMPLICIT ? !(v->flags & TOML_CLOSED) : v->flags & TOML_DOTTED))
		return v;
	if (how == TOML_DOTTED)
		toml_error(tp, at, "'%.*s' was defined in line %u and cannot be added to here",
		    toml_shown(key), key.p, v->line);
	else
		toml_error(tp, at, "'%.*s' was defined in line %u as %s, nothing can go below it",
		    toml_shown(key), key.p, v->line,
		    v->kind == TOML_TABLE ? "an inline table" : toml_kind_names[v->kind]);
	return NULL;
}

/* Keys with dots between them. *key is the last, which begins at *at; *to its table,
 * NULL if nothing can be added there. False: an error that ends the statement. */
static bool
toml_keys(struct toml_parser *tp, struct toml **to, struct slice *key, const char **at,
    uint8_t how)
{
	for (*at = tp->p; toml_key(tp, key); *at = tp->p) {
		toml_blanks(tp);
		if (!toml_at(tp, '.'))
			return true;
		tp->p++;
		toml_blanks(tp);
		if (!toml_deeper(tp, *at))
			return false;
		if (*to && !(*to = toml_step(tp, *to, *key, *at, how)) && how == TOML_IMPLICIT)
			return false; /* reported; a pair goes on, to skip its value */
	}
	return false;
}

/* key = value, into table `to`; makes the tables of a dotted key. */
static bool
toml_pair(struct toml_parser *tp, struct toml *to)
{
	unsigned depth = tp->depth;
	const char *at;
	struct slice key;
	struct toml *v;
	bool good;

	if (!toml_keys(tp, &to, &key, &at, TOML_DOTTED))
		return false;
	v = to ? toml_find(to, key) : NULL;
	good = to && (!v || toml_twice(tp, at, v));
	if (!good)
		to = toml_scratch(tp);
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

/* The table that [key] or [[key]] opens in `to`. */
static struct toml *
toml_open(struct toml_parser *tp, struct toml *to, struct slice key, const char *at,
    bool many)
{
	struct toml *v = toml_find(to, key);

	if (v && (many ? v->kind != TOML_ARRAY || !(v->flags & TOML_TABLES)
	               : v->kind != TOML_TABLE || v->flags != TOML_IMPLICIT)) {
		toml_twice(tp, at, v);
		return NULL;
	}
	if (!v) {
		v = toml_add(tp, to, key, at, many ? TOML_ARRAY : TOML_TABLE);
		v->flags = TOML_TABLES;
	}
	if (many)
		v = toml_add(tp, v, S(""), at, TOML_TABLE);
	v->line = v->vline = tp->line;
	v->col = v->vcol = toml_col(tp, at);
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
	if (!toml_keys(tp, &to, &key, &at, TOML_IMPLICIT))
		return false;
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

/* Whether a line begins here that is hardly part of an array: `key =`, `[letters]`. */
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

/* Skips to the next line; counts brackets outside quotes, to find an array's end. */
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
	toml_newline(tp);
	toml_blanks(tp);
}

/* After an error in a statement begun in line `began`: skips to the next statement. */
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

/* Reports the first bad byte of every line. */
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
		if (!toml_newline(&tp))
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

/* Parses text into a tree in a; errors go to ds. Never NULL. */
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

FAST

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

/* How many of the eight bytes at p stand before the first control byte, at
 * least. Bytes above 0x7f are no control bytes. */
static size_t
word_controls(const char *p)
{
	const uint64_t ones = UINT64_MAX / UINT8_MAX, high = ones << 7;
	uint64_t w, del;

	memcpy(&w, p, sizeof w);
	del = w ^ ones * 0x7f;
	w = (((w - ones * ' ') & ~w) | ((del - ones) & ~del)) & high;
	if (w == 0)
		return sizeof w;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return (size_t)__builtin_ctzll(w) / 8; /* borrows spoil only later bytes */
#else
	return 0;
#endif
}

/* Where a field value ends: at the first byte that it may not hold, or at s.n. */
static size_t
value_end(struct slice s, size_t at)
{
	size_t n = sizeof(uint64_t);

	while (n == sizeof(uint64_t) && s.n - at >= n)
		at += n = word_controls(s.p + at);
	while (at < s.n && chars[(unsigned char)s.p[at]] & CH_VALUE)
		at++;
	return at;
}

/* How many of the eight bytes at p, from the first on, are letters, digits or '-'.
 * No sum carries from one byte to the next. */
static size_t
word_plain(const char *p)
{
	const uint64_t ones = UINT64_MAX / UINT8_MAX, high = ones << 7;
	uint64_t w, low, letter, digit, dash;

	memcpy(&w, p, sizeof w);
	low = w & ~high;
	letter = low | ones * 0x20;
	letter = (letter + ones * (0x80 - 'a')) & ~(letter + ones * (0x7f - 'z'));
	digit = (low + ones * (0x80 - '0')) & ~(low + ones * (0x7f - '9'));
	dash = ~((low ^ ones * '-') + ones * 0x7f);
	w = ~((letter | digit | dash) & ~w) & high;
	if (w == 0)
		return sizeof w;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return (size_t)__builtin_ctzll(w) / 8;
#else
	return (size_t)__builtin_clzll(w) / 8;
#endif
}

/* Where the name that begins at `at` ends; *plain: it has nothing but letters,
 * digits and '-'. */
static size_t
token_end(struct slice s, size_t at, bool *plain)
{
	size_t n = sizeof(uint64_t), from;

	while (n == sizeof(uint64_t) && s.n - at >= n)
		at += n = word_plain(s.p + at);
	for (from = at; at < s.n && chars[(unsigned char)s.p[at]] & CH_TOKEN; at++)
		;
	*plain = at == from;
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

/* ---- names ---- */

static const struct slice field_names[FIELD_IDS] = {
	[F_ACCEPT]            = { "Accept", 6 },
	[F_ACCEPT_ENCODING]   = { "Accept-Encoding", 15 },
	[F_AGE]               = { "Age", 3 },
	[F_AUTHORIZATION]     = { "Authorization", 13 },
	[F_CACHE_CONTROL]     = { "Cache-Control", 13 },
	[F_CDN_CACHE_CONTROL] = { "CDN-Cache-Control", 17 },
	[F_CONNECTION]        = { "Connection", 10 },
	[F_CONTENT_ENCODING]  = { "Content-Encoding", 16 },
	[F_CONTENT_LENGTH]    = { "Content-Length", 14 },
	[F_CONTENT_LOCATION]  = { "Content-Location", 16 },
	[F_CONTENT_RANGE]     = { "Content-Range", 13 },
	[F_CONTENT_TYPE]      = { "Content-Type", 12 },
	[F_COOKIE]            = { "Cookie", 6 },
	[F_DATE]              = { "Date", 4 },
	[F_ETAG]              = { "ETag", 4 },
	[F_EXPECT]            = { "Expect", 6 },
	[F_EXPIRES]           = { "Expires", 7 },
	[F_FORWARDED]         = { "Forwarded", 9 },
	[F_HOST]              = { "Host", 4 },
	[F_HTTP2_SETTINGS]    = { "HTTP2-Settings", 14 },
	[F_IF_MATCH]          = { "If-Match", 8 },
	[F_IF_MODIFIED_SINCE] = { "If-Modified-Since", 17 },
	[F_IF_NONE_MATCH]     = { "If-None-Match", 13 },
	[F_IF_RANGE]          = { "If-Range", 8 },
	[F_IF_UNMODIFIED_SINCE] = { "If-Unmodified-Since", 19 },
	[F_KEEP_ALIVE]        = { "Keep-Alive", 10 },
	[F_LAST_MODIFIED]     = { "Last-Modified", 13 },
	[F_LOCATION]          = { "Location", 8 },
	[F_PROXY_AUTHENTICATE] = { "Proxy-Authenticate", 18 },
	[F_PROXY_AUTHORIZATION] = { "Proxy-Authorization", 19 },
	[F_PROXY_CONNECTION]  = { "Proxy-Connection", 16 },
	[F_RANGE]             = { "Range", 5 },
	[F_REFERER]           = { "Referer", 7 },
	[F_SERVER]            = { "Server", 6 },
	[F_SET_COOKIE]        = { "Set-Cookie", 10 },
	[F_TE]                = { "TE", 2 },
	[F_TRAILER]           = { "Trailer", 7 },
	[F_TRANSFER_ENCODING] = { "Transfer-Encoding", 17 },
	[F_UPGRADE]           = { "Upgrade", 7 },
	[F_USER_AGENT]        = { "User-Agent", 10 },
	[F_VARY]              = { "Vary", 4 },
	[F_VIA]               = { "Via", 3 },
	[F_X_ADMIN_TOKEN]     = { "X-Admin-Token", 13 },
	[F_X_CLIENT_CERT_SUBJECT] = { "X-Client-Cert-Subject", 21 },
	[F_X_FORWARDED_FOR]   = { "X-Forwarded-For", 15 },
	[F_X_FORWARDED_HOST]  = { "X-Forwarded-Host", 16 },
	[F_X_FORWARDED_PORT]  = { "X-Forwarded-Port", 16 },
	[F_X_FORWARDED_PROTO] = { "X-Forwarded-Proto", 17 },
	[F_X_ACCEL_REDIRECT]  = { "X-Accel-Redirect", 16 },
	[F_X_REAL_IP]         = { "X-Real-IP", 9 },
	[F_X_REQUEST_ID]      = { "X-Request-Id", 12 },
	[F_X_SENDFILE]        = { "X-Sendfile", 10 },
};

/* Sets of known fields: sums of FIELD(id). */
#define FIELD(id) (UINT64_C(1) << (id))
_Static_assert(FIELD_IDS <= 64, "a set of fields is one word");

static const uint64_t fields_hop = FIELD(F_CONNECTION) | FIELD(F_HTTP2_SETTINGS) |
    FIELD(F_KEEP_ALIVE) | FIELD(F_PROXY_AUTHENTICATE) | FIELD(F_PROXY_AUTHORIZATION) |
    FIELD(F_PROXY_CONNECTION) | FIELD(F_TE) | FIELD(F_TRANSFER_ENCODING) | FIELD(F_UPGRADE);
/* Of the known fields, Connection may name only these. */
static const uint64_t fields_free = FIELD(F_ACCEPT) | FIELD(F_ACCEPT_ENCODING) |
    FIELD(F_REFERER) | FIELD(F_USER_AGENT);

/* Fields without an id that Connection may not name and no trailer may be. */
static const struct slice kept_names[] = {
	{ "WWW-Authenticate", 16 }, { "Max-Forwards", 12 }, { "Pragma", 6 },
	{ "Retry-After", 11 },
};

static const struct slice kept_prefixes[] = { { "Content-", 8 }, { "X-Forwarded-", 12 } };

/* Length, first letter and last but one tell all names of field_names[] apart;
 * if a new name falls on a taken slot, the compiler says so. */
#define FIELD_SLOT(n, first, near_last) (((n) + (first) * 11u + (near_last) * 30u) % 256u)

/* clang-format off */
static const uint8_t field_slots[256] = {
	[FIELD_SLOT(6, 'a', 'p')] = F_ACCEPT,
	[FIELD_SLOT(15, 'a', 'n')] = F_ACCEPT_ENCODING,
	[FIELD_SLOT(3, 'a', 'g')] = F_AGE,
	[FIELD_SLOT(13, 'a', 'o')] = F_AUTHORIZATION,
	[FIELD_SLOT(13, 'c', 'o')] = F_CACHE_CONTROL,
	[FIELD_SLOT(17, 'c', 'o')] = F_CDN_CACHE_CONTROL,
	[FIELD_SLOT(10, 'c', 'o')] = F_CONNECTION,
	[FIELD_SLOT(16, 'c', 'n')] = F_CONTENT_ENCODING,
	[FIELD_SLOT(14, 'c', 't')] = F_CONTENT_LENGTH,
	[FIELD_SLOT(16, 'c', 'o')] = F_CONTENT_LOCATION,
	[FIELD_SLOT(13, 'c', 'g')] = F_CONTENT_RANGE,
	[FIELD_SLOT(12, 'c', 'p')] = F_CONTENT_TYPE,
	[FIELD_SLOT(6, 'c', 'i')] = F_COOKIE,
	[FIELD_SLOT(4, 'd', 't')] = F_DATE,
	[FIELD_SLOT(4, 'e', 'a')] = F_ETAG,
	[FIELD_SLOT(6, 'e', 'c')] = F_EXPECT,
	[FIELD_SLOT(7, 'e', 'e')] = F_EXPIRES,
	[FIELD_SLOT(9, 'f', 'e')] = F_FORWARDED,
	[FIELD_SLOT(4, 'h', 's')] = F_HOST,
	[FIELD_SLOT(14, 'h', 'g')] = F_HTTP2_SETTINGS,
	[FIELD_SLOT(8, 'i', 'c')] = F_IF_MATCH,
	[FIELD_SLOT(17, 'i', 'c')] = F_IF_MODIFIED_SINCE,
	[FIELD_SLOT(13, 'i', 'c')] = F_IF_NONE_MATCH,
	[FIELD_SLOT(8, 'i', 'g')] = F_IF_RANGE,
	[FIELD_SLOT(19, 'i', 'c')] = F_IF_UNMODIFIED_SINCE,
	[FIELD_SLOT(10, 'k', 'v')] = F_KEEP_ALIVE,
	[FIELD_SLOT(13, 'l', 'e')] = F_LAST_MODIFIED,
	[FIELD_SLOT(8, 'l', 'o')] = F_LOCATION,
	[FIELD_SLOT(18, 'p', 't')] = F_PROXY_AUTHENTICATE,
	[FIELD_SLOT(19, 'p', 'o')] = F_PROXY_AUTHORIZATION,
	[FIELD_SLOT(16, 'p', 'o')] = F_PROXY_CONNECTION,
	[FIELD_SLOT(5, 'r', 'g')] = F_RANGE,
	[FIELD_SLOT(7, 'r', 'e')] = F_REFERER,
	[FIELD_SLOT(6, 's', 'e')] = F_SERVER,
	[FIELD_SLOT(10, 's', 'i')] = F_SET_COOKIE,
	[FIELD_SLOT(2, 't', 't')] = F_TE,
	[FIELD_SLOT(7, 't', 'e')] = F_TRAILER,
	[FIELD_SLOT(17, 't', 'n')] = F_TRANSFER_ENCODING,
	[FIELD_SLOT(7, 'u', 'd')] = F_UPGRADE,
	[FIELD_SLOT(10, 'u', 'n')] = F_USER_AGENT,
	[FIELD_SLOT(4, 'v', 'r')] = F_VARY,
	[FIELD_SLOT(3, 'v', 'i')] = F_VIA,
	[FIELD_SLOT(13, 'x', 'e')] = F_X_ADMIN_TOKEN,
	[FIELD_SLOT(21, 'x', 'c')] = F_X_CLIENT_CERT_SUBJECT,
	[FIELD_SLOT(15, 'x', 'o')] = F_X_FORWARDED_FOR,
	[FIELD_SLOT(16, 'x', 's')] = F_X_FORWARDED_HOST,
	[FIELD_SLOT(16, 'x', 'r')] = F_X_FORWARDED_PORT,
	[FIELD_SLOT(17, 'x', 't')] = F_X_FORWARDED_PROTO,
	[FIELD_SLOT(9, 'x', 'i')] = F_X_REAL_IP,
	[FIELD_SLOT(12, 'x', 'i')] = F_X_REQUEST_ID,
	[FIELD_SLOT(16, 'x', 'c')] = F_X_ACCEL_REDIRECT,
	[FIELD_SLOT(10, 'x', 'l')] = F_X_SENDFILE,
};
/* clang-format on */

/* Whether eight, or four, bytes differ otherwise than letters in their case: bit 0x20
 * makes nothing else of a token a letter, digit or '-'. */
static bool
word_differs(const char *a, const char *b)
{
	uint64_t v, w;

	memcpy(&v, a, sizeof v);
	memcpy(&w, b, sizeof w);
	return (v ^ w) & ~(UINT64_MAX / UINT8_MAX * 0x20);
}

static bool
half_differs(const char *a, const char *b)
{
	uint32_t v, w;

	memcpy(&v, a, sizeof v);
	memcpy(&w, b, sizeof w);
	return (v ^ w) & ~(UINT32_MAX / UINT8_MAX * 0x20);
}

/* Whether token is name, of letters, digits and '-', in any case. */
static bool
name_is(struct slice token, struct slice name)
{
	const size_t whole = sizeof(uint64_t), half = sizeof(uint32_t), n = name.n;

	if (token.n != n || n < half)
		return slice_ieq(token, name);
	if (n < whole)
		return !half_differs(token.p, name.p) &&
		    !half_differs(token.p + n - half, name.p + n - half);
	for (size_t i = 0; i + whole < n; i += whole)
		if (word_differs(token.p + i, name.p + i))
			return false;
	return !word_differs(token.p + n - whole, name.p + n - whole);
}

static enum field_id
field_id_of(struct slice name)
{
	unsigned first, near_last;
	enum field_id id;

	if (name.n < 2)
		return F_OTHER;
	first = (unsigned char)name.p[0] | 0x20u; /* in lower case, if it is a letter */
	near_last = (unsigned char)name.p[name.n - 2] | 0x20u;
	id = field_slots[FIELD_SLOT(name.n, first, near_last)];
	return name_is(name, field_names[id]) ? id : F_OTHER;
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

static char head_fault[128]; /* what was wrong with the last head that was refused */

/* Returns code, so that a refusal is one line. name: the field's, or empty. */
__attribute__((cold, noinline)) static int
head_bad(int code, const char *why, struct slice name)
{
	enum { NAME_SHOWN = 40 };
	int n = snprintf(head_fault, sizeof head_fault, name.n > 0 ? "a malformed head: %s: '%.*s'"
	    : "a malformed head: %s", why, (int)MIN(name.n, (size_t)NAME_SHOWN), name.p);

	text_clean(head_fault, (size_t)MIN(n, (int)sizeof head_fault - 1));
	return code;
}

/* Looks for the empty line that ends a head, from *scanned on. Returns the bytes
 * up to its end, 0 while it is not there, -400 for a bare LF or a head that
 * begins with too many empty lines. */
static int
head_scan(struct slice in, uint32_t *scanned)
{
	size_t start = lines_empty(in), at = MAX((size_t)*scanned, start), i;
	const char *lf;

	for (; at < in.n && (lf = memchr(in.p + at, '\n', in.n - at)); at = i + 1) {
		i = (size_t)(lf - in.p);
		if (i < start + 2 || in.p[i - 1] != '\r')
			return head_bad(-400, "a line end that is not CR LF", S(""));
		if (in.p[i - 2] == '\n')
			return (int)(i + 1);
	}
	*scanned = (uint32_t)in.n;
	return 0;
}

/* Steps over the CRLF at *at, or with lf a bare LF: 1, 0 while it is not there, -1
 * when something else is. Without lf stricter than RFC 9112 2.2. */
static int
line_end(struct slice in, size_t *at, bool lf)
{
	if (in.n - *at >= 2 && in.p[*at] == '\r' && in.p[*at + 1] == '\n') {
		*at += 2;
		return 1;
	}
	if (*at == in.n)
		return 0;
	if (lf && in.p[*at] == '\n') {
		++*at;
		return 1;
	}
	return in.p[*at] == '\r' && *at + 1 == in.n ? 0 : -1;
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

static void
head_clear(struct head *h)
{
	h->n = 0;
	memset(h->first, 0, sizeof h->first);
	memset(h->count, 0, sizeof h->count);
}

/* A field that did not come as a line. */
static void
head_add(struct head *h, struct slice name, struct slice value)
{
	h->f[h->n++] = (struct field){ .name = name, .value = value,
		.id = (uint8_t)field_id_of(name) };
	field_count(h, field_id_of(name));
}

/* Complains of c, which stands where the colon should. */
__attribute__((cold, noinline)) static int
field_bad(struct slice name, char c)
{
	return head_bad(-1, name.n == 0 ? "a line without a field's name"
	    : is_blank(c) ? "a blank before the colon of a field"
	    : c == '\r' || c == '\n' ? "no colon behind the name of a field"
	    : "a byte that no name of a field may have, behind", name);
}

/* The field line at *at: 1, 0 unfinished, -1 malformed. RFC 9112 5; obs-fold
 * is refused. */
static int
field_parse(struct head *h, struct slice in, size_t *at, bool lf)
{
	struct field *f = &h->f[h->n];
	size_t start = *at, colon = token_end(in, start, &f->plain), value, end;
	int got;

	if (colon == in.n)
		return 0;
	if (colon == start || in.p[colon] != ':')
		return field_bad((struct slice){ in.p + start, colon - start }, in.p[colon]);
	for (value = colon + 1; value < in.n && is_blank(in.p[value]); value++)
		;
	end = *at = value_end(in, value);
	if (in.n - end >= 2 && in.p[end] == '\r' && in.p[end + 1] == '\n') {
		*at += 2;
		got = 1;
	} else if ((got = line_end(in, at, lf)) < 0)
		return head_bad(-1, "a control byte, or a line end that is none, in a field",
		    (struct slice){ in.p + start, colon - start });
	if (got == 0)
		return 0;
	while (end > value && is_blank(in.p[end - 1]))
		end--;
	f->name = (struct slice){ in.p + start, colon - start };
	f->value = (struct slice){ in.p + value, end - value };
	f->start = lf && in.p[*at - 2] != '\r' ? NULL : in.p + start;
	f->end = in.p + *at;
	f->drop = f->kept = false;
	f->id = (uint8_t)field_id_of(f->name);
	h->n++;
	field_count(h, (enum field_id)f->id);
	return 1;
}

/* All field lines at *at and the empty line: 1, 0 unfinished, -1 malformed, -2
 * too many. */
static int
fields_parse(struct head *h, struct slice in, size_t *at, bool lf)
{
	int got;

	head_clear(h);
	while (*at < in.n && in.p[*at] != '\r' && !(lf && in.p[*at] == '\n')) {
		if (h->n == FIELDS_MAX) {
			snprintf(head_fault, sizeof head_fault, "more than %d fields", FIELDS_MAX);
			return -2;
		}
		if ((got = field_parse(h, in, at, lf)) <= 0)
			return got;
	}
	if ((got = line_end(in, at, lf)) < 0)
		return head_bad(-1, "a line end that is none", S(""));
	return got;
}

/* Takes the fields of set out of h. */
static void
head_cut(struct head *h, uint64_t set)
{
	int n = h->n;

	head_clear(h);
	for (int i = 0; i < n; i++) {
		if (set >> h->f[i].id & 1)
			continue;
		h->f[h->n++] = h->f[i];
		field_count(h, (enum field_id)h->f[i].id);
	}
}

static const struct field *
head_field(const struct head *h, enum field_id id)
{
	return h->first[id] ? &h->f[h->first[id] - 1] : NULL;
}

/* The value of the first field of that name; p NULL: there is none. */
static struct slice
head_value(const struct head *h, struct slice name)
{
	for (int i = 0; i < h->n; i++)
		if (slice_ieq(h->f[i].name, name))
			return h->f[i].value;
	return (struct slice){ NULL, 0 };
}

/* The value of the next field of that id, from the one at *at on, which is 0 at first. */
static bool
head_next(const struct head *h, enum field_id id, int *at, struct slice *value)
{
	if (h->count[id] == 0)
		return false;
	while (*at < h->n && h->f[*at].id != id)
		++*at;
	if (*at == h->n)
		return false;
	*value = h->f[(*at)++].value;
	return true;
}

/* Whether token is in the comma lists of the fields of that id. */
static bool
head_has(const struct head *h, enum field_id id, const char *token)
{
	struct slice want = slice_of(token), rest, item;

	for (int at = 0; head_next(h, id, &at, &rest);)
		while (slice_list_next(&rest, &item))
			if (slice_ieq(item, want))
				return true;
	return false;
}

/* The weight in the parameters of a list's member, of a thousand. RFC 9110 12.4.2. */
static int
weight_read(struct slice params)
{
	struct slice item, name, digits;
	int w = 0;

	while (params.p && slice_cut(&params, ';', &item)) {
		slice_cut(&item, '=', &name);
		if (!slice_ieq(slice_trim(name), S("q")) || !item.p)
			continue;
		digits = slice_trim(item);
		for (size_t i = 0, unit = 1000; i < digits.n && unit > 0; i++)
			if (isdigit((unsigned char)digits.p[i])) {
				w += (digits.p[i] - '0') * (int)unit;
				unit /= 10;
			}
		return MIN(w, 1000);
	}
	return 1000;
}

/* How much the client wants a coding, of a thousand; without Accept-Encoding nothing is
 * wanted but identity. RFC 9110 12.5.3. */
static int
coding_weight(const struct head *h, const char *coding)
{
	struct slice want = slice_of(coding), rest, item, name;
	int any = 0;

	for (int at = 0; head_next(h, F_ACCEPT_ENCODING, &at, &rest);)
		while (slice_list_next(&rest, &item)) {
			slice_cut(&item, ';', &name);
			if (slice_ieq(slice_trim(name), want))
				return weight_read(item);
			if (slice_eq(slice_trim(name), S("*")))
				any = weight_read(item);
		}
	return any;
}

/* The value of that cookie in a Cookie field, without quotes; false: it is not
 * there. RFC 6265 4.2.1. */
static bool
cookie_find(struct slice cookies, struct slice name, struct slice *value)
{
	struct slice pair, key;

	while (slice_cut(&cookies, ';', &pair)) {
		if (!slice_cut(&pair, '=', &key) || !pair.p || !slice_eq(slice_trim(key), name))
			continue;
		*value = slice_trim(pair);
		if (value->n > 1 && value->p[0] == '"' && value->p[value->n - 1] == '"')
			*value = (struct slice){ value->p + 1, value->n - 2 };
		return true;
	}
	return false;
}

static bool
name_is_kept(const struct field *f)
{
	if (f->id != F_OTHER)
		return !((fields_hop | fields_free) & FIELD(f->id));
	for (size_t i = 0; i < LEN(kept_prefixes); i++)
		if (f->name.n > kept_prefixes[i].n &&
		    slice_ieq((struct slice){ f->name.p, kept_prefixes[i].n }, kept_prefixes[i]))
			return true;
	for (size_t i = 0; i < LEN(kept_names); i++)
		if (slice_ieq(f->name, kept_names[i]))
			return true;
	return false;
}

/* Whether Connection names at most CONNECTION_OPTIONS options. */
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

/* Marks anew the fields that do not travel on: those of set, hop-by-hop ones, and
 * those that Connection names, unless an attacker would gain by stripping them.
 * RFC 9110 7.6.1. */
static void
head_drop(struct head *h, uint64_t set)
{
	set |= fields_hop;
	for (int i = 0; i < h->n; i++) {
		h->f[i].drop = set >> h->f[i].id & 1;
		h->f[i].kept = false;
	}
	if (h->count[F_CONNECTION] == 0)
		return;
	for (int i = 0; i < h->n; i++) {
		struct slice rest = h->f[i].value, item;
		if (h->f[i].id != F_CONNECTION)
			continue;
		while (slice_list_next(&rest, &item))
			for (int k = 0; k < h->n; k++) {
				struct field *f = &h->f[k];
				if (!f->drop && !f->kept && slice_ieq(f->name, item))
					*(name_is_kept(f) ? &f->kept : &f->drop) = true;
			}
	}
}

/* Adds a field. */
static void
line_write(struct text *t, struct slice name, struct slice value)
{
	char *p = t->p + t->n;

	if (name.n + value.n + 4 > t->cap - t->n) {
		t->full = true;
		return;
	}
	memcpy(p, name.p, name.n);
	p += name.n;
	memcpy(p, ": ", 2);
	p += 2;
	if (value.n > 0)
		memcpy(p, value.p, value.n);
	memcpy(p + value.n, "\r\n", 2);
	t->n += name.n + value.n + 4;
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

/* Whether s is empty or a uri-host with an optional port. RFC 9110 7.2. Refuses the
 * delimiters of a reg-name, such as "," and ";": stricter than RFC 3986. */
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
	char c, last = 0;
	size_t n;

	h->path_plain = true;
	for (n = 0; n < t.n && (c = t.p[n]) != '?'; n++, last = c)
		if (c == '%' || c == '\\' || (last == '/' && (c == '/' || c == '.' || c == ';')))
			h->path_plain = false;
	h->has_query = n < t.n;
	h->path = n > 0 ? (struct slice){ t.p, n } : S("/");
	h->query = h->has_query ? slice_from(t, n + 1) : (struct slice){ "", 0 };
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

	if (v.n < VERSION_LEN)
		return memcmp(v.p, "HTTP/", MIN(v.n, (size_t)5)) == 0 ? 0 : -400;
	if (memcmp(v.p, "HTTP/", 5) != 0)
		return -400;
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
	if ((got = line_end(in, at, false)) <= 0)
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
		return head_bad(-400, f ? "Host is no host, or there are several" : "no Host",
		    S(""));
	if (f && h->form != TARGET_ABSOLUTE) {
		h->host = f->value;
		h->has_host = true;
	}
	return 0;
}

/* A request head at the front of in. Returns bytes eaten, 0 unfinished, or
 * minus the status to answer with, as soon as it cannot become a request. */
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
		return got == 0 ? 0 : head_bad(got, got == -414 ? "its target is too long"
		    : got == -400 ? "its request line" : "its version, method or form", S(""));
	if ((got = fields_parse(h, in, &at, false)) <= 0)
		return got == 0 ? 0 : got == -2 ? -431 : -400;
	if (host_parse(h) < 0)
		return -400;
	return connection_is_short(h) ? (int)at
	    : head_bad(-400, "too many options", S("Connection"));
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
	if (code.p[0] != ' ' || h->status < 100 || !memchr(" \r\n", code.p[4], 3))
		return -1;
	*at += code.p[4] == ' ' ? STATUS_LEN : STATUS_LEN - 1;
	from = *at;
	*at = value_end(in, from);
	h->reason = (struct slice){ in.p + from, *at - from };
	return line_end(in, at, true);
}

/* A response head at the front of in. Bytes eaten, 0 unfinished, -502. */
static int
response_parse(struct head *h, struct slice in)
{
	size_t at = 0;
	int got;

	if ((got = status_line(h, in, &at)) <= 0) {
		if (got < 0 && slice_starts(in, S("HTTP/")))
			head_bad(0, "its status line", S(""));
		else if (got < 0)
			snprintf(head_fault, sizeof head_fault, "no HTTP");
		return got == 0 ? 0 : -502;
	}
	if ((got = fields_parse(h, in, &at, true)) <= 0)
		return got == 0 ? 0 : -502;
	return connection_is_short(h) ? (int)at
	    : head_bad(-502, "too many options", S("Connection"));
}

/* ---- bodies ---- */

/* What all Transfer-Encoding fields say: 1 chunked alone, 0 other codings before
 * it, -1 malformed, or chunked twice or not last. RFC 9112 6.1. */
static int
coding_of(const struct head *h)
{
	struct slice rest, item;
	int chunked = 0, others = 0;
	bool identity = false;

	for (int i = 0; i < h->n; i++) {
		if (h->f[i].id != F_TRANSFER_ENCODING)
			continue;
		rest = h->f[i].value;
		while (slice_cut(&rest, ',', &item)) {
			item = slice_trim(item);
			if (slice_ieq(item, S("identity"))) {
				identity = true;
				continue;
			}
			if (chunked || !is_token(item))
				return -1;
			if (slice_ieq(item, S("chunked")))
				chunked++;
			else
				others++;
		}
	}
	return identity ? 0 : !chunked ? -1 : others ? 0 : 1;
}

/* Content-Length; -1: not one field of digits. Stricter than RFC 9110 8.6, which
 * lets equal ones be merged. */
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

/* How the body of a response to method m ends: 0 or -502, and head_fault says
 * why. */
static int
body_of_response(struct body *b, const struct head *h, enum method m)
{
	int64_t n = 0;

	body_set(b, BODY_NONE, 0);
	if (h->count[F_TRANSFER_ENCODING] > 0 && h->count[F_CONTENT_LENGTH] > 0)
		return head_bad(-502, "also a Content-Length beside", S("Transfer-Encoding"));
	if (h->count[F_TRANSFER_ENCODING] > 0 && coding_of(h) != 1)
		return head_bad(-502, "not chunked alone", S("Transfer-Encoding"));
	if (h->count[F_CONTENT_LENGTH] > 0 && (n = length_of(h)) < 0)
		return head_bad(-502, "not one number", S("Content-Length"));
	if (m == M_HEAD || h->status < 200 || h->status == 204 || h->status == 304)
		return 0;
	if (h->count[F_TRANSFER_ENCODING] > 0)
		body_set(b, BODY_CHUNKED, 0);
	else if (h->count[F_CONTENT_LENGTH] > 0)
		body_set(b, BODY_LENGTH, (uint64_t)n);
	else
		body_set(b, BODY_CLOSE, 0);
	b->lenient = true;
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

/* Checks a whole trailer line, and drops a field that may not be a trailer.
 * RFC 9110 6.5.1. -1: malformed. */
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
	if (name_is_kept(&f) || fields_hop & FIELD(f.id))
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

/* The grammar of extensions, *( BWS ; BWS token [ BWS = BWS ( token /
 * quoted-string ) ] ): what each byte leads to; CHUNK_SIZE: the byte is wrong.
 * RFC 9112 7.1.1. */
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
	if (c == '\r' && b->lenient && (b->chunk == CHUNK_BWS || b->chunk == CHUNK_EXT_NAMED))
		b->chunk = CHUNK_SIZE_LF;
	else
		b->chunk = (enum chunk_state)ext_next[b->chunk][ext_class_of(c)];
	return b->chunk == CHUNK_SIZE || ++b->ext_bytes > CHUNK_EXT_MAX ? -1 : 0;
}

/* The end of a size line. Content pays for extensions, so that small chunks with
 * long extensions cannot go on for ever. */
static int
chunk_size_end(struct body *b, char c)
{
	uint64_t paid = CHUNK_EXT_FREE + b->left;

	b->ext_bytes = b->left > 0 && b->ext_bytes > paid ? b->ext_bytes - (uint32_t)paid : 0;
	b->digits = 0;
	b->chunk = b->left > 0 ? CHUNK_DATA : CHUNK_TRAILER;
	return c == '\n' ? 0 : -1;
}

/* Takes one byte of framing. -1: malformed. */
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
 * Returns how many bytes were used; the bytes behind them stay in place. -1:
 * malformed. Stops before the first trailer line, with need_trailers set, when
 * trailers has no room at all: the caller makes room and calls again. */
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
 * Offers  path_plain, path_normalise, path_raw, path_encode, query_has.
 * Calls   base. Routes match this view, so that no spelling of a path evades
 *         its route; RFC 3986 6.2.2. */

static char path_buf[PATH_PAD + TARGET_MAX + 1]; /* the pad stays zero */
static uint16_t path_ends[TARGET_MAX + 1];

/* The view of a path that is normal already. */
static void
path_plain(struct slice raw, struct path_view *v)
{
	char *to = path_buf + PATH_PAD;

	memcpy(to, raw.p, raw.n);
	to[raw.n] = '\0';
	v->path = (struct slice){ to, raw.n };
}

/* The byte that %XX at the front of s stands for; -1: no %XX is there. */
static int
percent_value(struct slice s)
{
	int high, low;

	if (s.n < 3 || s.p[0] != '%' || (high = hex_value(s.p[1])) < 0 ||
	    (low = hex_value(s.p[2])) < 0)
		return -1;
	return high << 4 | low;
}

/* Decodes one segment to to + *n, except %2F and %25. -1: malformed, or a NUL. */
static int
segment_decode(struct slice s, const char *raw, char *to, size_t *n)
{
	size_t from;
	int c;

	for (size_t i = 0; i < s.n; i++) {
		c = s.p[i] == '%' ? percent_value(slice_from(s, i)) : (unsigned char)s.p[i];
		if (c <= 0)
			return -1;
		if (s.p[i] == '%')
			i += 2;
		from = *n;
		if (c != '/' && c != '%') {
			to[(*n)++] = (char)c;
		} else {
			memcpy(to + *n, c == '/' ? "%2F" : "%25", 3);
			*n += 3;
		}
		for (; from < *n; from++)
			path_ends[from] = (uint16_t)(s.p + i + 1 - raw);
	}
	return 0;
}

/* `.` or `..`, also with a parameter, which some servers cut off first: `..;x`. */
static bool
is_dots(struct slice s)
{
	const char *semicolon = s.n > 0 ? memchr(s.p, ';', s.n) : NULL;

	if (semicolon)
		s.n = (size_t)(semicolon - s.p);
	return slice_eq(s, S(".")) || slice_eq(s, S(".."));
}

/* Whether a dot segment is beside an encoded slash or a backslash, which some
 * backends take for a slash: `..%2F`, `..\`. */
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
	path_ends[n] = 1;
	to[n++] = '/';
	rest = slice_from(raw, 1);
	while (slice_cut(&rest, '/', &seg)) {
		start = n;
		if (segment_decode(seg, raw.p, to, &n) < 0)
			return -400;
		done = (struct slice){ to + start, n - start };
		if (hides_dots(done) || (is_dots(done) && memchr(done.p, ';', done.n)))
			return -400;
		if (rest.p && slice_starts(done, S(";")))
			return -400; /* some servers cut `;x`: `/;x/admin` */
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
		if (rest.p) {
			path_ends[n] = (uint16_t)(rest.p - raw.p);
			to[n++] = '/';
		}
	}
	to[n] = '\0';
	*v = (struct path_view){ { to, n }, raw, path_ends };
	return 0;
}

/* The bytes of raw that the normalised bytes from..to came from. */
static struct slice
path_raw(const struct path_view *v, size_t from, size_t to)
{
	size_t start, end = to > 0 ? v->ends[to - 1] : 0;

	if (from >= to)
		return S("");
	start = v->ends[from] - 1u;
	if (start >= 2 && v->raw.p[start - 2] == '%')
		start -= 2; /* the byte was %XX */
	return (struct slice){ v->raw.p + start, end - start };
}

/* raw behind the first `from` normalised bytes, but not dot segments right there. */
static struct slice
path_rest(const struct path_view *v, size_t from)
{
	size_t cut = from > 0 ? v->ends[from - 1] : 0, next = v->raw.n;

	if (from < v->path.n)
		next = (size_t)(path_raw(v, from, from + 1).p - v->raw.p);
	for (size_t i = cut; i < next; i++)
		if (v->raw.p[i] != '/')
			cut = next;
	return slice_from(v->raw, cut);
}

/* Adds a normalised or rewritten path for a request line; keeps %XX as it is. */
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
		text_byte(t, "%", (char)c);
	}
}

/* Whether s, form-decoded, is want. */
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

/* Whether query has name with value; `*` is any value. */
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

FAST_END

/* ==== conditions =============================================================
 * Owns    nothing.
 * Offers  delta_read, date_read, head_date, conditions_check, ranges_parse,
 *         coding_accepted.
 * Calls   base, clock, http. What of a body a client has already and what part of it
 *         the client wants, of files and of what is stored alike. RFC 9110 13, 14. */

/* s as a number, of max at most: what is greater is max. -1: it is no number. */
static int64_t
delta_read(struct slice s, int64_t max)
{
	int64_t v = slice_uint(s, (uint64_t)max);

	for (size_t i = 0; i < s.n; i++)
		if (!isdigit((unsigned char)s.p[i]))
			return -1;
	return s.n > 0 && v < 0 ? max : v;
}

/* ---- dates ---- */

/* Reads s by a form: Y, D, h, m, s are digits of v[0], v[2] to v[5], B.. a month's name
 * for v[1], a dot is any byte and _ a digit of the day or a blank. */
static bool
date_parts(struct slice s, const char *form, int v[6])
{
	static const char parts[] = "YBDhms";
	const char *part;

	if (s.n != strlen(form))
		return false;
	for (size_t i = 0; i < s.n; i++) {
		char f = form[i] == '_' ? s.p[i] == ' ' ? ' ' : 'D' : form[i];
		if (f == 'B') {
			while (month_names[v[1]] && strncasecmp(month_names + v[1], s.p + i, 3) != 0)
				v[1] += 3;
			if (!month_names[v[1]])
				return false;
		} else if ((part = strchr(parts, f))) {
			if (!isdigit((unsigned char)s.p[i]))
				return false;
			v[part - parts] = v[part - parts] * 10 + s.p[i] - '0';
		} else if (f != '.' && lower(s.p[i]) != lower(f))
			return false;
	}
	return true;
}

/* A date in any of the three forms as wall clock, 0 before 1970; -1: it is none.
 * RFC 9110 5.6.7. */
static int64_t
date_read(struct slice s)
{
	enum { SHORT_DAY = 3, LONG_DAY = 6, CENTURY = 100 };
	const char *comma = s.n > 0 ? memchr(s.p, ',', s.n) : NULL;
	ptrdiff_t day = comma ? comma - s.p : 0;
	int v[6] = { 0 };
	struct tm tm;
	time_t t;

	if (day >= LONG_DAY)
		s = slice_from(s, (size_t)day);
	if (!date_parts(s, day >= LONG_DAY ? ", DD-B..-YY hh:mm:ss GMT" : day == SHORT_DAY
	    ? "..., DD B.. YYYY hh:mm:ss GMT" : "... B.. _D hh:mm:ss YYYY", v))
		return -1;
	gmtime_r(&now_s, &tm);
	if (day >= LONG_DAY) /* the year that is at most 50 ahead */
		v[0] += (tm.tm_year + 1900 + CENTURY / 2 - v[0]) / CENTURY * CENTURY;
	v[5] -= v[5] == 60; /* a leap second */
	tm = (struct tm){ .tm_year = v[0] - 1900, .tm_mon = v[1] / 3, .tm_mday = v[2],
		.tm_hour = v[3], .tm_min = v[4], .tm_sec = v[5] };
	t = timegm(&tm);
	if (tm.tm_mday != v[2] || tm.tm_hour != v[3] || tm.tm_min != v[4])
		return -1; /* one was too large */
	return MAX((int64_t)t, 0);
}

/* The date in the only field of that id; -1: there is none. */
static int64_t
head_date(const struct head *h, enum field_id id)
{
	return h->count[id] == 1 ? date_read(head_field(h, id)->value) : -1;
}

/* ---- conditions ---- */

static bool
etag_is_weak(struct slice etag)
{
	return slice_starts(etag, S("W/"));
}

/* Takes the next entity-tag off a list; false: none, or none that is well-formed. */
static bool
etag_next(struct slice *rest, struct slice *etag)
{
	const char *close;
	size_t open;

	while (rest->n > 0 && (is_blank(rest->p[0]) || rest->p[0] == ','))
		*rest = slice_from(*rest, 1);
	open = etag_is_weak(*rest) ? 2 : 0;
	if (rest->n <= open || rest->p[open] != '"' ||
	    !(close = memchr(rest->p + open + 1, '"', rest->n - open - 1)))
		return false;
	*etag = (struct slice){ rest->p, (size_t)(close + 1 - rest->p) };
	*rest = slice_from(*rest, etag->n);
	return true;
}

/* RFC 9110 8.8.3.2; weak: how well a is the same does not matter. */
static bool
etag_eq(struct slice a, struct slice b, bool weak)
{
	if (!weak)
		return a.n > 0 && a.p[0] == '"' && slice_eq(a, b);
	return slice_eq(slice_from(a, etag_is_weak(a) ? 2 : 0),
	    slice_from(b, etag_is_weak(b) ? 2 : 0));
}

/* Whether the fields of that id name etag; it may be empty. */
static bool
etag_listed(const struct head *h, enum field_id id, struct slice etag, bool weak)
{
	struct slice rest, item;

	for (int at = 0; head_next(h, id, &at, &rest);) {
		if (slice_eq(rest, S("*")))
			return true;
		if (weak && etag.n > 0 && slice_eq(rest, etag))
			return true; /* also one without quotes, as some write them */
		while (etag_next(&rest, &item))
			if (etag_eq(item, etag, weak))
				return true;
	}
	return false;
}

/* RFC 9110 13.1.5. What changed in this second may change in it once more. */
static bool
if_range_holds(const struct head *h, struct slice etag, int64_t modified_s)
{
	const struct field *f = head_field(h, F_IF_RANGE);

	if (!f)
		return true;
	return h->count[F_IF_RANGE] == 1 && (etag_eq(f->value, etag, false) ||
	    (modified_s >= 0 && modified_s < now_s && date_read(f->value) == modified_s));
}

/* What the conditions of a request come to where the answer would be 200: 412, 304, 206
 * (see ranges_parse), or 200. etag may be empty, modified_s -1: it has none. RFC 9110
 * 13.2.2. */
static int
conditions_check(const struct head *h, struct slice etag, int64_t modified_s)
{
	bool reads = h->method == M_GET || h->method == M_HEAD;
	int64_t since;

	if (h->count[F_IF_MATCH] > 0) {
		if (!etag_listed(h, F_IF_MATCH, etag, false))
			return 412;
	} else if ((since = head_date(h, F_IF_UNMODIFIED_SINCE)) >= 0 && modified_s > since)
		return 412;
	if (h->count[F_IF_NONE_MATCH] > 0) {
		if (etag_listed(h, F_IF_NONE_MATCH, etag, true))
			return reads ? 304 : 412;
	} else if (reads && modified_s >= 0 && head_date(h, F_IF_MODIFIED_SINCE) >= modified_s)
		return 304;
	return h->method == M_GET && h->count[F_RANGE] == 1 &&
	    if_range_holds(h, etag, modified_s) ? 206 : 200;
}

/* ---- ranges ---- */

/* One range of a body of that size: 1, 0 it has no such bytes, -1 malformed. */
static int
range_read(struct slice item, uint64_t size, struct range *r)
{
	struct slice first;
	int64_t from, to;

	if (!slice_cut(&item, '-', &first) || !item.p)
		return -1;
	to = item.n > 0 || first.n == 0 ? delta_read(item, INT64_MAX) : INT64_MAX;
	if (first.n == 0) { /* the last bytes; of nothing they cannot be told */
		r->n = MIN((uint64_t)to, size);
		r->first = size - r->n;
		return to < 0 || (to > 0 && size == 0) ? -1 : to > 0;
	}
	from = delta_read(first, INT64_MAX);
	if (from < 0 || to < from)
		return -1;
	if ((uint64_t)from >= size)
		return 0;
	r->first = (uint64_t)from;
	r->n = MIN((uint64_t)to, size - 1) - r->first + 1;
	return 1;
}

/* The value of Range for a body of that size: 206, 416, or 200: all of it. More than
 * RANGES_MAX are not served, nor those that come to more than all of it: overlapping
 * ones would make a little request a huge answer. RFC 9110 14.2. */
static int
ranges_parse(struct ranges *r, struct slice value, uint64_t size)
{
	struct slice unit, item;
	struct range one;
	int asked = 0, got;

	r->n = 0;
	r->total = 0;
	if (!slice_cut(&value, '=', &unit) || !slice_ieq(unit, S("bytes")))
		return 200;
	while (slice_list_next(&value, &item)) {
		got = range_read(item, size, &one);
		if (got < 0 || ++asked > RANGES_MAX || (got > 0 && one.n > size - r->total))
			return 200;
		if (got == 0)
			continue;
		r->v[r->n++] = one;
		r->total += one.n;
	}
	return r->n > 0 ? 206 : asked > 0 ? 416 : 200;
}

/* ==== addr ===================================================================
 * Owns    nothing.
 * Offers  addr_parse, url_split, ip_*, cidr_*.
 * Calls   base, arena, path. One grammar for every address, see CONFIG.md. */

static const uint8_t v4_mapped[IP_V4_PREFIX] = { [10] = 0xff, [11] = 0xff };

static bool
ip_eq(const struct ip *a, const struct ip *b)
{
	uint64_t x[2], y[2];

	memcpy(x, a->b, sizeof x);
	memcpy(y, b->b, sizeof y);
	return x[0] == y[0] && x[1] == y[1];
}

static bool
ip_is_none(const struct ip *ip)
{
	static const struct ip none;

	return ip_eq(ip, &none);
}

static bool
ip_is_v4(const struct ip *ip)
{
	uint64_t first;

	memcpy(&first, ip->b, sizeof first);
	return first == 0 && memcmp(ip->b + sizeof first, v4_mapped + sizeof first,
	    IP_V4_PREFIX - sizeof first) == 0;
}

/* Bytes that tell clients apart: a client with IPv6 has a whole /64 network. */
static size_t
ip_own_bytes(const struct ip *ip)
{
	return ip_is_v4(ip) ? sizeof ip->b : sizeof ip->b / 2;
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
	char b[sizeof "255.255.255.255"], *p = b;

	for (int i = IP_V4_PREFIX; i < IP_BYTES; i++) {
		unsigned v = ip->b[i];
		if (v >= 100)
			*p++ = (char)('0' + v / 100);
		if (v >= 10)
			*p++ = (char)('0' + v / 10 % 10);
		*p++ = (char)('0' + v % 10);
		*p++ = '.';
	}
	text_add(t, (struct slice){ b, (size_t)(p - b) - 1 });
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
	for (unsigned i = 0, left = c->bits; i < IP_BYTES; i++, left -= MIN(left, 8u))
		c->ip.b[i] &= (uint8_t)(0xff00u >> MIN(left, 8u));
	return true;
}

/* c as a.b.c.d/n, or with IPv6. */
static void
cidr_text(struct text *t, const struct cidr *c)
{
	ip_text(t, &c->ip);
	text_char(t, '/');
	text_uint(t, ip_is_v4(&c->ip) ? c->bits - IP_V4_PREFIX * 8u : c->bits);
}

/* Whether a listener on a hears b: same address, all of its family, or of both. */
static bool
addr_covers(const struct addr *a, const struct addr *b)
{
	static const struct in6_addr any6;

	if (strcmp(a->text, b->text) == 0)
		return true;
	if (a->kind != ADDR_INET || b->kind != ADDR_INET || a->port != b->port || a->port == 0)
		return false;
	if (a->any)
		return true;
	if (b->any || a->sock.sa.sa_family != b->sock.sa.sa_family)
		return false;
	return a->sock.sa.sa_family == AF_INET ? a->sock.in.sin_addr.s_addr == htonl(INADDR_ANY)
	    : memcmp(&a->sock.in6.sin6_addr, &any6, sizeof any6) == 0;
}

static bool
cidr_has(const struct cidr *c, const struct ip *ip)
{
	size_t whole = c->bits / 8;
	unsigned rest = c->bits % 8, mask = (0xff00u >> rest) & 0xff;

	if (c->bits < IP_V4_PREFIX * 8 && ip_is_v4(ip))
		return false; /* no IPv4 address is in an IPv6 network */
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

/* The address and port of s; none for a unix socket. */
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

/* A name whose last part is all digits is a mistyped IPv4 address. */
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

static const struct addr_scheme addr_schemes[] = {
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
	return !out->any || sc->scheme == SCHEME_HTTPS; /* a listener may have no host */
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
	if (slice_starts(s, S("fd://")) || slice_starts(s, S("=")))
		return addr_fd(a, slice_from(s, s.p[0] == '=' ? 1 : 5), out, why);
	return addr_inet(a, s, -1, out, why);
}

/* ---- URLs of services ---- */

/* s with its %XX decoded. False: malformed, or a NUL. */
static bool
url_decode(struct arena *a, struct slice s, struct slice *out)
{
	char *to = arena_alloc(a, s.n + 1);
	int c;

	*out = (struct slice){ to, 0 };
	for (size_t i = 0; i < s.n; i += s.p[i] == '%' ? 3 : 1) {
		c = s.p[i] == '%' ? percent_value(slice_from(s, i)) : (unsigned char)s.p[i];
		if (c <= 0)
			return false;
		to[out->n++] = (char)c;
	}
	return true;
}

/* Parses [[user][:password]@]host[:port][/path][?query], what stands behind a scheme. */
static bool
url_split(struct arena *a, struct slice s, struct service_url *out, const char **why)
{
	struct slice all = s, who;
	size_t n = 0;
	const char *at;

	*out = (struct service_url){ .host = s };
	while (n < s.n && s.p[n] != '/' && s.p[n] != '?')
		n++;
	all = slice_from(s, n);
	out->host.n = n;
	if (n > 0 && (at = memrchr(s.p, '@', n))) {
		who = (struct slice){ s.p, (size_t)(at - s.p) };
		out->host = slice_from(out->host, who.n + 1);
		slice_cut(&who, ':', &out->user);
		out->password = who;
	}
	slice_cut(&all, '?', &out->path);
	out->query = all;
	*why = "a %XX in it is malformed";
	return url_decode(a, out->user, &out->user) && url_decode(a, out->host, &out->host) &&
	    url_decode(a, out->path, &out->path) &&
	    (!out->password.p || url_decode(a, out->password, &out->password));
}

/* ==== proxy ==================================================================
 * Owns    nothing.
 * Offers  proxy_parse, proxy_write.
 * Calls   base, addr. The PROXY protocol, versions 1 and 2, which puts the
 *         client's address in front of a connection. */

static const struct slice proxy_v2_mark = { "\r\n\r\n\0\r\nQUIT\n", 12 };

/* PROXY TCP4 src dst sport dport CRLF; or UNKNOWN and anything. */
static int
proxy_parse_v1(struct slice in, struct ip *src, uint16_t *sport, struct ip *dst,
    uint16_t *dport)
{
	const char *lf = memchr(in.p, '\n', MIN(in.n, (size_t)PROXY_V1_MAX));
	struct ip *const ips[] = { src, dst };
	uint16_t *const ports[] = { sport, dport };
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
	if (!v6 && !slice_eq(part[1], S("TCP4")))
		return -1;
	for (int i = 0; i < 2; i++) {
		struct slice ip = part[2 + i], port = part[4 + i];
		int64_t number = slice_uint(port, UINT16_MAX);
		if (!ip_parse(ip, ips[i]) || v6 != (memchr(ip.p, ':', ip.n) != NULL) ||
		    number < 0 || (port.n > 1 && port.p[0] == '0'))
			return -1;
		*ports[i] = (uint16_t)number;
	}
	return (int)(lf - in.p) + 1;
}

/* TLVs behind the addresses are skipped. */
static int
proxy_parse_v2(struct slice in, struct ip *src, uint16_t *sport, struct ip *dst,
    uint16_t *dport)
{
	static const size_t need[] = { 0, 12, 36, PROXY_V2_UNIX }; /* by family */
	const unsigned char *p = (const unsigned char *)in.p;
	size_t n, family, size;

	if (in.n < PROXY_V2_HEAD)
		return 0;
	n = PROXY_V2_HEAD + (size_t)two_bytes(p + 14);
	if ((p[12] != PROXY_V2_LOCAL && p[12] != PROXY_V2_PROXY) || n > PROXY_V2_MAX)
		return -1;
	if (in.n < n)
		return 0;
	if (p[12] == PROXY_V2_LOCAL)
		return (int)n;
	family = p[13] >> 4;
	if (family >= LEN(need) || (p[13] & 15) > 2 || n - PROXY_V2_HEAD < need[family])
		return -1;
	if ((p[13] & 15) == 0 || family == 0 || need[family] == PROXY_V2_UNIX)
		return (int)n;
	size = (need[family] - 4) / 2;
	p += PROXY_V2_HEAD;
	memcpy(src->b, v4_mapped, IP_V4_PREFIX);
	memcpy(dst->b, v4_mapped, IP_V4_PREFIX);
	memcpy(src->b + IP_BYTES - size, p, size);
	memcpy(dst->b + IP_BYTES - size, p + size, size);
	*sport = two_bytes(p + 2 * size);
	*dport = two_bytes(p + 2 * size + 2);
	return (int)n;
}

/* Bytes of the PROXY header that begins in; 0: not whole, -1: bad. May set no address. */
static int
proxy_parse(struct slice in, struct ip *src, uint16_t *sport, struct ip *dst, uint16_t *dport)
{
	if (in.n == 0)
		return 0;
	if (memcmp(in.p, proxy_v2_mark.p, MIN(in.n, proxy_v2_mark.n)) == 0)
		return proxy_parse_v2(in, src, sport, dst, dport);
	if (memcmp(in.p, "PROXY ", MIN(in.n, (size_t)6)) == 0)
		return proxy_parse_v1(in, src, sport, dst, dport);
	return -1;
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

/* Writes a PROXY header of version 1 or 2. */
static void
proxy_write(struct text *t, int version, const struct ip *src, uint16_t sport,
    const struct ip *dst, uint16_t dport)
{
	bool v4 = ip_is_v4(src) && ip_is_v4(dst);

	if (version == 2) {
		proxy_write_v2(t, src, sport, dst, dport);
		return;
	}
	if (ip_is_none(src) || ip_is_none(dst)) {
		text_add(t, S("PROXY UNKNOWN\r\n"));
		return;
	}
	text_str(t, v4 ? "PROXY TCP4 " : "PROXY TCP6 ");
	text_str(t, !v4 && ip_is_v4(src) ? "::ffff:" : "");
	ip_text(t, src);
	text_str(t, !v4 && ip_is_v4(dst) ? " ::ffff:" : " ");
	ip_text(t, dst);
	text_char(t, ' ');
	text_uint(t, sport);
	text_char(t, ' ');
	text_uint(t, dport);
	text_str(t, "\r\n");
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
 * Offers  crypt_rounds, crypt_begin, sha_rounds, crypt_matches.
 * Calls   base, BearSSL's hashes. The crypt(3) schemes $5$ and $6$ (SHA-crypt),
 *         which musl on Debian lacks. */

#define SHA_ROUNDS       5000 /* presets and bounds of the scheme */
#define SHA_ROUNDS_MIN   1000
#define SHA_ROUNDS_MAX   999999999

static const struct sha_scheme sha_schemes[] = {
	{ { "$5$", 3 }, &br_sha256_vtable, br_sha256_SIZE, 21, 43 },
	{ { "$6$", 3 }, &br_sha512_vtable, br_sha512_SIZE, 22, 86 },
};

static void
sha_add(br_hash_compat_context *h, const void *p, size_t n)
{
	h->vtable->update(&h->vtable, p, n);
}

/* The digest of `times` copies of s, repeated to fill n bytes. */
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
sha_begin(const struct sha_scheme *sc, struct slice password, struct slice salt,
    unsigned char *out)
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
	for (size_t at = 0; at < password.n; at += sc->n)
		sha_add(&h, b, MIN(sc->n, password.n - at));
	for (size_t n = password.n; n > 0; n >>= 1)
		sha_add(&h, n & 1 ? (const void *)b : password.p, n & 1 ? sc->n : password.n);
	sc->hash->out(&h.vtable, out);
}

/* n more rounds. */
static void
sha_rounds(struct sha_job *j, unsigned n)
{
	const struct sha_scheme *sc = j->scheme;
	br_hash_compat_context h;

	for (; n > 0 && j->round < j->rounds; n--, j->round++) {
		bool odd = j->round & 1;
		sc->hash->init(&h.vtable);
		sha_add(&h, odd ? j->password : j->digest, odd ? j->password_n : sc->n);
		if (j->round % 3)
			sha_add(&h, j->salt, j->salt_n);
		if (j->round % 7)
			sha_add(&h, j->password, j->password_n);
		sha_add(&h, odd ? j->digest : j->password, odd ? sc->n : j->password_n);
		sc->hash->out(&h.vtable, j->digest);
	}
}

/* n characters of 6 bits each, lowest first. */
static void
sha_digits(struct text *t, unsigned v, int n)
{
	for (; n > 0; n--, v >>= 6)
		text_char(t, "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[v & 63]);
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

/* Takes `$5$[rounds=N$]salt$digest` apart; returns the salt. want.p NULL: no such hash. */
static struct slice
sha_split(struct slice hash, struct sha_job *j)
{
	struct slice rest, word, salt;
	int64_t n = SHA_ROUNDS;

	*j = (struct sha_job){ .scheme = NULL };
	for (size_t i = 0; i < LEN(sha_schemes); i++)
		if (slice_starts(hash, sha_schemes[i].prefix))
			j->scheme = &sha_schemes[i];
	if (!j->scheme)
		return S("");
	rest = slice_from(hash, j->scheme->prefix.n);
	if (slice_starts(rest, S("rounds="))) {
		slice_cut(&rest, '$', &word);
		n = slice_uint(slice_from(word, 7), SHA_ROUNDS_MAX);
		if (n < 0 || !rest.p)
			return S("");
	}
	j->rounds = (unsigned)MAX(n, SHA_ROUNDS_MIN);
	slice_cut(&rest, '$', &salt);
	salt.n = MIN(salt.n, (size_t)SHA_SALT_MAX);
	if (rest.p && rest.n == j->scheme->digits)
		j->want = rest;
	return salt;
}

/* The rounds that a hash takes; 0: it is no SHA-crypt hash. */
static unsigned
crypt_rounds(struct slice hash)
{
	struct sha_job j;

	sha_split(hash, &j);
	return j.want.p ? j.rounds : 0;
}

/* Begins to check the password. False: the hash is unknown, or the password too long. */
static bool
crypt_begin(struct sha_job *j, struct slice password, struct slice hash)
{
	struct slice salt = sha_split(hash, j);

	if (!j->want.p || password.n > SHA_PASSWORD_MAX)
		return false;
	j->password_n = password.n;
	j->salt_n = salt.n;
	sha_begin(j->scheme, password, salt, j->digest);
	sha_fill(j->scheme, password, password.n, j->password, password.n);
	sha_fill(j->scheme, salt, 16u + j->digest[0], j->salt, salt.n);
	return true;
}

/* Whether the password was right, after all rounds. */
static bool
crypt_matches(const struct sha_job *j)
{
	char b[SHA_BYTES_MAX * 2];
	struct text t = { b, 0, sizeof b, false };

	sha_encode(&t, j->scheme, j->digest);
	return slice_eq_secret(text_slice(&t), j->want);
}

/* ==== json ===================================================================
 * Owns    nothing: the tree is in the caller's arena.
 * Offers  json_parse, json_get, json_text, json_quote, json_item, json_key,
 *         json_open, json_close.
 * Calls   base, arena. RFC 8259, strict. */

static void
json_blanks(struct json_reader *r)
{
	r->p += strspn(r->p, " \t\n\r");
}

/* Steps over blanks, and over c if it comes next. */
static bool
json_sign(struct json_reader *r, char c)
{
	bool is;

	json_blanks(r);
	is = *r->p == c;
	r->p += is;
	return is;
}

/* Behind \u: a character, or both halves of a pair; one half alone is an error. */
static bool
json_unicode(struct json_reader *r, struct text *t)
{
	enum { HIGH = 0xd800, LOW = 0xdc00, PAIRS_END = 0xe000, PLANE_1 = 0x10000 };
	int64_t c = hex_read(&r->p, r->end, 4), low;

	if (c < 0 || (c >= LOW && c < PAIRS_END))
		return false;
	if (c >= HIGH && c < LOW) {
		if (r->end - r->p < 2 || memcmp(r->p, "\\u", 2) != 0)
			return false;
		r->p += 2;
		low = hex_read(&r->p, r->end, 4);
		if (low < LOW || low >= PAIRS_END)
			return false;
		c = PLANE_1 + (c - HIGH) * (PAIRS_END - LOW) + (low - LOW);
	}
	utf8_add(t, (uint32_t)c);
	return true;
}

/* Behind a backslash. */
static bool
json_escape(struct json_reader *r, struct text *t)
{
	static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
	char c = r->p < r->end ? *r->p++ : '\0';
	const char *at = c ? strchr(letters, c) : NULL;

	if (at)
		text_char(t, meant[at - letters]);
	return at || (c == 'u' && json_unicode(r, t));
}

/* Behind the opening quote. */
static bool
json_string(struct json_reader *r, struct slice *out)
{
	struct text t = { (char *)(uintptr_t)r->p, 0, (size_t)(r->end - r->p), false };

	while (*r->p != '"') {
		size_t n = utf8_length((const unsigned char *)r->p, (const unsigned char *)r->end);
		if (n == 0 || (unsigned char)*r->p < ' ')
			return false;
		if (*r->p == '\\') {
			r->p++;
			if (!json_escape(r, &t))
				return false;
			continue;
		}
		for (; n > 0; n--)
			text_char(&t, *r->p++);
	}
	r->p++;
	t.p[t.n] = '\0';
	*out = text_slice(&t);
	return true;
}

/* Steps over digits; false: there are none. */
static bool
json_digits(struct json_reader *r)
{
	size_t n = strspn(r->p, "0123456789");

	r->p += n;
	return n > 0;
}

static bool
json_number(struct json_reader *r, struct slice *out)
{
	const char *start = r->p, *digits;

	r->p += *r->p == '-';
	digits = r->p;
	if (!json_digits(r) || (*digits == '0' && r->p - digits > 1))
		return false;
	if (*r->p == '.') {
		r->p++;
		if (!json_digits(r))
			return false;
	}
	if (lower(*r->p) == 'e') {
		r->p += r->p[1] == '+' || r->p[1] == '-' ? 2 : 1;
		if (!json_digits(r))
			return false;
	}
	*out = arena_dup(r->arena, (struct slice){ start, (size_t)(r->p - start) });
	return true;
}

/* null, true or false. */
static bool
json_word(struct json_reader *r, struct json *v)
{
	static const struct slice words[] = { { "null", 4 }, { "true", 4 }, { "false", 5 } };

	for (size_t i = 0; i < LEN(words); i++)
		if (strncmp(r->p, words[i].p, words[i].n) == 0) {
			v->kind = i == 0 ? JSON_NULL : JSON_BOOL;
			v->boolean = i == 1;
			r->p += words[i].n;
			return true;
		}
	return false;
}

/* A value, or the bracket that opens one; NULL: neither. */
static struct json *
json_begin(struct json_reader *r)
{
	struct json *v = arena_alloc(r->arena, sizeof *v);
	bool good = true;

	json_blanks(r);
	if (*r->p == '{' || *r->p == '[') {
		v->kind = *r->p++ == '{' ? JSON_OBJECT : JSON_ARRAY;
	} else if (json_sign(r, '"')) {
		v->kind = JSON_STRING;
		good = json_string(r, &v->text);
	} else if (!json_word(r, v)) {
		v->kind = JSON_NUMBER;
		good = json_number(r, &v->text);
	}
	return good ? v : NULL;
}

/* A value with all that is in it; NULL: malformed, or too deep. */
static struct json *
json_value_at(struct json_reader *r, int depth)
{
	struct json *v = json_begin(r), *child;
	char close;

	if (!v || (v->kind != JSON_OBJECT && v->kind != JSON_ARRAY))
		return v;
	close = v->kind == JSON_OBJECT ? '}' : ']';
	if (depth > JSON_DEPTH_MAX)
		return NULL;
	if (json_sign(r, close))
		return v;
	do {
		struct slice name = { NULL, 0 };
		if (v->kind == JSON_OBJECT &&
		    (!json_sign(r, '"') || !json_string(r, &name) || !json_sign(r, ':')))
			return NULL;
		if (!(child = json_value_at(r, depth + 1)))
			return NULL;
		child->name = name;
		*(v->last ? &v->last->next : &v->first) = child;
		v->last = child;
	} while (json_sign(r, ','));
	return json_sign(r, close) ? v : NULL;
}

/* NULL: text is malformed, too deep, or goes on behind the value. */
static struct json *
json_parse(struct arena *a, struct slice text)
{
	struct slice own = arena_dup(a, text);
	struct json_reader r = { a, own.p, own.p + own.n };
	struct json *v = json_value_at(&r, 1);

	json_blanks(&r);
	return r.p == r.end ? v : NULL;
}

/* The last member of that name; NULL: there is none, or v is no object. */
static const struct json *
json_get(const struct json *v, const char *name)
{
	const struct json *found = NULL;

	if (!v || v->kind != JSON_OBJECT)
		return NULL;
	for (const struct json *m = v->first; m; m = m->next)
		if (slice_eq(m->name, slice_of(name)))
			found = m;
	return found;
}

/* The member of that name if it is a string; else empty. */
static struct slice
json_text(const struct json *v, const char *name)
{
	const struct json *m = json_get(v, name);

	return m && m->kind == JSON_STRING ? m->text : S("");
}

/* ---- written ---- */

static void
json_quote(FILE *to, struct slice s)
{
	char b[8];

	fputc('"', to);
	while (s.n > 0) {
		struct slice piece = json_piece(&s, false, b);
		fwrite(piece.p, 1, piece.n, to);
	}
	fputc('"', to);
}

/* What comes next is an element of a list, or json_key gives it a name. */
static void
json_item(struct json_out *o)
{
	if (o->more)
		fputc(',', o->to);
	if (o->depth > 0 && o->depth <= o->lines)
		fprintf(o->to, "\n%*s", 2 * o->depth, "");
	else if (o->more)
		fputc(' ', o->to);
	o->more = true;
}

static void
json_key(struct json_out *o, struct slice name)
{
	json_item(o);
	json_quote(o->to, name);
	fputs(": ", o->to);
}

static void
json_open(struct json_out *o, char bracket)
{
	fputc(bracket, o->to);
	o->more = false;
	o->depth++;
}

static void
json_close(struct json_out *o, char bracket)
{
	o->depth--;
	if (o->more && o->depth < o->lines)
		fprintf(o->to, "\n%*s", 2 * o->depth, "");
	fputc(bracket, o->to);
	o->more = true;
}

/* ==== pem ====================================================================
 * Owns    nothing: what it makes is in the caller's arena.
 * Offers  pem_of, pem_next, pem_count, pem_is_cert.
 * Calls   base, arena, BearSSL. Lengths in it are never trusted. RFC 7468. */

static struct slice
pem_of(struct arena *a, const char *what, const void *der, size_t n)
{
	size_t len = br_pem_encode(NULL, der, n, what, BR_PEM_LINE64);
	char *p = arena_alloc(a, len + 1); /* BearSSL adds a NUL */

	br_pem_encode(p, der, n, what, BR_PEM_LINE64);
	return (struct slice){ p, len };
}

#define PEM_DASHES S("-----")
#define PEM_BEGIN  S("-----BEGIN ")
#define PEM_END    S("-----END ")

/* Takes a line off *rest, without its end and blanks around it. */
static bool
pem_line(struct slice *rest, struct slice *line)
{
	if (!slice_cut(rest, '\n', line))
		return false;
	if (slice_starts(*line, S("\xef\xbb\xbf"))) /* a byte order mark */
		*line = slice_from(*line, 3);
	while (line->n > 0 && (is_blank(line->p[line->n - 1]) || line->p[line->n - 1] == '\r'))
		line->n--;
	*line = slice_trim(*line);
	return true;
}

/* The name between mark and dashes; false: line is no such mark. */
static bool
pem_mark(struct slice line, struct slice mark, struct slice *name)
{
	if (!slice_starts(line, mark) || !slice_ends(line, PEM_DASHES) ||
	    line.n < mark.n + PEM_DASHES.n)
		return false;
	*name = (struct slice){ line.p + mark.n, line.n - mark.n - PEM_DASHES.n };
	return true;
}

/* Takes the next object off *rest: 1; 0: the end, -1: damaged. Text between is skipped. */
static int
pem_next(struct arena *a, struct slice *rest, struct pem *out)
{
	struct slice line, name, body;
	struct text der;

	*out = (struct pem){ .encrypted = false };
	do
		if (!pem_line(rest, &line))
			return 0;
	while (!pem_mark(line, PEM_BEGIN, &out->name));
	body = *rest;
	for (;;) {
		if (!pem_line(rest, &line))
			return -1; /* the file is cut short */
		if (pem_mark(line, PEM_END, &name))
			break;
		if (slice_starts(line, S("Proc-Type:")) && slice_ends(line, S("ENCRYPTED")))
			out->encrypted = true;
	}
	body.n = (size_t)(line.p - body.p);
	if (!slice_eq(name, out->name))
		return -1;
	if (out->encrypted)
		return 1;
	der = (struct text){ arena_alloc(a, body.n), 0, body.n, false };
	if (!base64_read(&der, body, " \t\r\n"))
		return -1;
	out->der = text_slice(&der);
	return der.n > 0 ? 1 : -1;
}

/* The most objects that text can hold. */
static size_t
pem_count(struct slice text)
{
	struct slice line, name;
	size_t n = 0;

	while (pem_line(&text, &line))
		n += pem_mark(line, PEM_BEGIN, &name);
	return n;
}

static bool
pem_is_cert(const struct pem *o)
{
	return slice_eq(o->name, S("CERTIFICATE")) || slice_eq(o->name, S("X509 CERTIFICATE"));
}

/* ==== der ====================================================================
 * Owns    nothing: what it makes is in the caller's arena.
 * Offers  key_new, key_point, key_pem, csr_der, cert_make_pem.
 * Calls   base, arena, pem, BearSSL. Keys of P-256, and certificates for them: X.690,
 *         RFC 2986, 5280, 5480, 8737. */

/* Self-signed certificates; valid from the past on, for clocks that are slow. */
#define MADE_BEFORE_S (2 * DAY_S)
#define MADE_FOR_S    (30 * DAY_S)

/* ecdsa-with-SHA256; RFC 5758 3.2. */
static const unsigned char der_ecdsa_sha256[] = { 0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
	0x3d, 0x04, 0x03, 0x02 };
/* The bytes before the point of a public key of P-256; RFC 5480 2. */
static const unsigned char der_p256[] = { 0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
	0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03,
	0x42, 0x00 };
/* extensionRequest; RFC 2985 5.4.2. */
static const unsigned char der_requested[] = { 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d,
	0x01, 0x09, 0x0e };
static const unsigned char der_alt_name[] = { 0x06, 0x03, 0x55, 0x1d, 0x11 };
/* id-pe-acmeIdentifier, critical; RFC 8737 3. */
static const unsigned char der_acme[] = { 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01,
	0x1f, 0x01, 0x01, 0xff };
/* CN=warp */
static const unsigned char der_warp[] = { 0x30, 0x0f, 0x31, 0x0d, 0x30, 0x0b, 0x06, 0x03, 0x55,
	0x04, 0x03, DER_UTF8, 0x04, 'w', 'a', 'r', 'p' };
static const unsigned char der_version_1[] = { DER_INTEGER, 1, 0 };
static const unsigned char der_version_3[] = { DER_0, 3, DER_INTEGER, 1, 2 };

static struct der
der_new(struct arena *a, size_t cap)
{
	return (struct der){ arena_alloc(a, cap), cap, cap, false };
}

/* Puts n bytes in front of what is there. */
static void
der_put(struct der *d, const void *p, size_t n)
{
	if (n > d->at) {
		d->full = true;
		return;
	}
	d->at -= n;
	memcpy(d->p + d->at, p, n);
}

/* Bytes written so far. */
static size_t
der_n(const struct der *d)
{
	return d->cap - d->at;
}

/* Makes the bytes written since there were `since` the content of a tag. */
static void
der_wrap(struct der *d, unsigned tag, size_t since)
{
	size_t n = der_n(d) - since, bytes = n <= INT8_MAX ? 0 : n <= UINT8_MAX ? 1 : 2;
	unsigned char low = (unsigned char)(n & UINT8_MAX), high = (unsigned char)(n >> 8 & UINT8_MAX);
	unsigned char b[DER_HEADER_MAX] = { (unsigned char)tag, low };

	d->full |= n > DER_MAX;
	if (bytes > 0) { /* so many bytes of length follow */
		b[1] = (unsigned char)(0x80 | bytes);
		b[2] = bytes == 2 ? high : low;
		b[3] = low;
	}
	der_put(d, b, 2 + bytes);
}

/* ---- keys ---- */

static bool
random_fill(void *p, size_t n)
{
	ssize_t got;

	do
		got = getrandom(p, n, 0);
	while (got < 0 && errno == EINTR);
	return got == (ssize_t)n;
}

/* A new key of P-256, its number in x. */
static bool
key_new(br_ec_private_key *out, unsigned char x[EC_KEY_BYTES])
{
	unsigned char seed[EC_KEY_BYTES], b[BR_EC_KBUF_PRIV_MAX_SIZE];
	br_hmac_drbg_context rng;
	size_t n;

	if (!random_fill(seed, sizeof seed))
		return false;
	br_hmac_drbg_init(&rng, &br_sha256_vtable, seed, sizeof seed);
	n = br_ec_keygen(&rng.vtable, br_ec_get_default(), out, b, BR_EC_secp256r1);
	if (n != EC_KEY_BYTES)
		return false;
	memcpy(x, b, EC_KEY_BYTES);
	out->x = x;
	return true;
}

/* The public half of key, uncompressed. */
static bool
key_point(const br_ec_private_key *key, unsigned char q[EC_POINT_BYTES])
{
	unsigned char b[BR_EC_KBUF_PUB_MAX_SIZE];

	if (br_ec_compute_pub(br_ec_get_default(), NULL, b, key) != EC_POINT_BYTES)
		return false;
	memcpy(q, b, EC_POINT_BYTES);
	return true;
}

/* key as PKCS#8; empty: it is no key of P-256. */
static struct slice
key_pem(struct arena *a, const br_ec_private_key *key)
{
	unsigned char q[EC_POINT_BYTES], *der;
	br_ec_public_key pub = { key->curve, q, sizeof q };
	size_t n;

	if (key->curve != BR_EC_secp256r1 || !key_point(key, q) ||
	    (n = br_encode_ec_pkcs8_der(NULL, key, &pub)) == 0)
		return S("");
	der = arena_alloc(a, n);
	br_encode_ec_pkcs8_der(der, key, &pub);
	return pem_of(a, BR_ENCODE_PEM_PKCS8, der, n);
}

/* ---- what is signed ---- */

/* SubjectPublicKeyInfo. */
static bool
der_key(struct der *d, const br_ec_private_key *key)
{
	unsigned char q[EC_POINT_BYTES];

	if (!key_point(key, q))
		return false;
	der_put(d, q, sizeof q);
	der_put(d, der_p256, sizeof der_p256);
	return true;
}

/* The extension with all names, the first in front. RFC 5280 4.2.1.6. */
static void
der_names(struct der *d, const struct slices *names)
{
	size_t start = der_n(d), since;

	for (int i = names->n - 1; i >= 0; i--) {
		since = der_n(d);
		der_put(d, names->v[i].p, names->v[i].n);
		der_wrap(d, DER_DNS_NAME, since);
	}
	der_wrap(d, DER_SEQUENCE, start);
	der_wrap(d, DER_OCTETS, start);
	der_put(d, der_alt_name, sizeof der_alt_name);
	der_wrap(d, DER_SEQUENCE, start);
}

/* *cap is room for a certificate with names. NULL, or why there can be none. */
static const char *
der_room(const struct slices *names, size_t *cap)
{
	*cap = DER_ROOM;
	if (names->n == 0)
		return "there is no name to put into it";
	for (int i = 0; i < names->n; i++) {
		struct slice s = names->v[i];
		if (s.n == 0 || s.n > DNS_NAME_MAX)
			return "a name is empty, or longer than 253 bytes";
		for (size_t k = 0; k < s.n; k++)
			if (s.p[k] <= ' ' || s.p[k] >= 0x7f)
				return "a name has characters that DNS names do not have";
		*cap += s.n + DER_HEADER_MAX;
	}
	return *cap > DER_MAX ? "there are too many names" : NULL;
}

/* The body, how it is signed, and the signature. */
static const char *
der_sign(struct arena *a, const br_ec_private_key *key, const struct der *body, struct slice *out)
{
	struct der d = der_new(a, der_n(body) + DER_ROOM);
	unsigned char hash[br_sha256_SIZE], signature[SIGNATURE_MAX];
	size_t n;

	sha256((struct slice){ (const char *)body->p + body->at, der_n(body) }, hash);
	n = br_ecdsa_sign_asn1_get_default()(br_ec_get_default(), &br_sha256_vtable, hash, key,
	    signature);
	if (n == 0)
		return "the key cannot sign";
	der_put(&d, signature, n);
	der_put(&d, "", 1); /* no unused bits */
	der_wrap(&d, DER_BITS, 0);
	der_put(&d, der_ecdsa_sha256, sizeof der_ecdsa_sha256);
	der_put(&d, body->p + body->at, der_n(body));
	der_wrap(&d, DER_SEQUENCE, 0);
	*out = (struct slice){ (const char *)d.p + d.at, der_n(&d) };
	return d.full || body->full ? "there are too many names" : NULL;
}

/* A signing request of key for names, without a subject. NULL, or why not. RFC 2986 4. */
static const char *
csr_der(struct arena *a, const br_ec_private_key *key, const struct slices *names,
    struct slice *der)
{
	size_t cap;
	const char *why = der_room(names, &cap);
	struct der d;

	if (why)
		return why;
	d = der_new(a, cap);
	der_names(&d, names);
	der_wrap(&d, DER_SEQUENCE, 0);
	der_wrap(&d, DER_SET, 0);
	der_put(&d, der_requested, sizeof der_requested);
	der_wrap(&d, DER_SEQUENCE, 0);
	der_wrap(&d, DER_0, 0);
	if (!der_key(&d, key))
		return "that is no key of P-256";
	der_wrap(&d, DER_SEQUENCE, der_n(&d)); /* an empty subject */
	der_put(&d, der_version_1, sizeof der_version_1);
	der_wrap(&d, DER_SEQUENCE, 0);
	return der_sign(a, key, &d, der);
}

/* Two digits of the year until 2049, four from then on. RFC 5280 4.1.2.5. */
static void
der_time(struct der *d, time_t when)
{
	char b[sizeof "YYYYmmddHHMMSSZ"];
	struct tm tm;
	size_t since = der_n(d), skip;

	gmtime_r(&when, &tm);
	strftime(b, sizeof b, "%Y%m%d%H%M%SZ", &tm);
	skip = tm.tm_year >= 50 && tm.tm_year < 150 ? 2 : 0; /* 1950 to 2049 */
	der_put(d, b + skip, strlen(b) - skip);
	der_wrap(d, skip ? DER_UTC_TIME : DER_TIME, since);
}

/* The signed part, back to front. False: no key, or nothing random. RFC 5280 4.1. */
static bool
der_cert(struct der *d, const br_ec_private_key *key, const struct slices *names,
    const unsigned char *acme_hash)
{
	unsigned char serial[SERIAL_BYTES];
	time_t now = time(NULL);
	size_t since;

	if (!random_fill(serial, sizeof serial))
		return false;
	serial[0] = (unsigned char)((serial[0] & 0x7f) | 0x40); /* positive, 16 bytes */
	if (acme_hash) { /* for tls-alpn-01 */
		der_put(d, acme_hash, ACME_HASH);
		der_wrap(d, DER_OCTETS, 0);
		der_wrap(d, DER_OCTETS, 0);
		der_put(d, der_acme, sizeof der_acme);
		der_wrap(d, DER_SEQUENCE, 0);
	}
	der_names(d, names);
	der_wrap(d, DER_SEQUENCE, 0);
	der_wrap(d, DER_3, 0);
	if (!der_key(d, key))
		return false;
	der_put(d, der_warp, sizeof der_warp);
	since = der_n(d);
	der_time(d, now + MADE_FOR_S);
	der_time(d, now - MADE_BEFORE_S);
	der_wrap(d, DER_SEQUENCE, since);
	der_put(d, der_warp, sizeof der_warp);
	der_put(d, der_ecdsa_sha256, sizeof der_ecdsa_sha256);
	since = der_n(d);
	der_put(d, serial, sizeof serial);
	der_wrap(d, DER_INTEGER, since);
	der_put(d, der_version_3, sizeof der_version_3);
	der_wrap(d, DER_SEQUENCE, 0);
	return true;
}

/* A new key and a self-signed certificate, as PEM; with acme_hash (32 bytes) it
 * answers tls-alpn-01. NULL, or why not. */
static const char *
cert_make_pem(struct arena *a, const struct slices *names, const unsigned char *acme_hash,
    struct slice *pem)
{
	unsigned char x[EC_KEY_BYTES];
	br_ec_private_key key;
	struct slice der, k, c;
	struct der d;
	size_t cap;
	const char *why = der_room(names, &cap);

	if (why)
		return why;
	d = der_new(a, cap);
	if (!key_new(&key, x) || !der_cert(&d, &key, names, acme_hash))
		return "there is nothing random to make a key of";
	if ((why = der_sign(a, &key, &d, &der)))
		return why;
	k = key_pem(a, &key);
	c = pem_of(a, "CERTIFICATE", der.p, der.n);
	pem->p = arena_fmt(a, "%s%s", k.p, c.p);
	pem->n = k.n + c.n;
	return NULL;
}

/* ==== x509 ===================================================================
 * Owns    nothing: what it makes is in the caller's arena.
 * Offers  asn1_next, asn1_take, x509_split, x509_names, x509_host, x509_who.
 * Calls   base, arena. The parts of a certificate, whose lengths are never
 *         trusted. RFC 5280, X.690. */

/* Object identifiers, encoded. */
#define OID_CN        S("\x55\x04\x03")
#define OID_O         S("\x55\x04\x0a")
#define OID_ALT_NAMES S("\x55\x1d\x11")
#define OID_ISSUER_ID S("\x55\x1d\x23")

/* Takes the next element off *rest; false: none is there, or none whole. X.690 8.1. */
static bool
asn1_next(struct slice *rest, unsigned *tag, struct slice *in)
{
	const unsigned char *p = (const unsigned char *)rest->p;
	size_t head = 2, n, bytes;

	if (rest->n < head || (p[0] & ASN1_LONG_TAG) == ASN1_LONG_TAG)
		return false;
	n = p[1];
	if (n >= ASN1_LONG) {
		bytes = n - ASN1_LONG;
		if (bytes == 0 || bytes > ASN1_LENGTH_BYTES || rest->n < head + bytes)
			return false;
		for (n = 0; bytes > 0; bytes--)
			n = n << 8 | p[head++];
	}
	if (n > rest->n - head)
		return false;
	*tag = p[0];
	*in = (struct slice){ rest->p + head, n };
	*rest = slice_from(*rest, head + n);
	return true;
}

/* Takes the next element if its tag is `want`; else *rest stays. */
static bool
asn1_take(struct slice *rest, unsigned want, struct slice *in)
{
	struct slice left = *rest, got;
	unsigned tag;

	if (!asn1_next(&left, &tag, &got) || tag != want)
		return false;
	*rest = left;
	*in = got;
	return true;
}

/* RFC 5280 4.1. */
static bool
x509_split(struct slice der, struct x509 *out)
{
	struct slice cert, rest, skip;
	unsigned tag;

	*out = (struct x509){ .serial = { NULL, 0 } };
	if (!asn1_take(&der, DER_SEQUENCE, &cert) || !asn1_take(&cert, DER_SEQUENCE, &rest))
		return false;
	asn1_take(&rest, DER_0, &skip);
	if (!asn1_take(&rest, DER_INTEGER, &out->serial) ||
	    !asn1_take(&rest, DER_SEQUENCE, &skip) || /* signature's algorithm */
	    !asn1_take(&rest, DER_SEQUENCE, &out->issuer) ||
	    !asn1_take(&rest, DER_SEQUENCE, &skip) || /* validity */
	    !asn1_take(&rest, DER_SEQUENCE, &out->subject) ||
	    !asn1_take(&rest, DER_SEQUENCE, &skip)) /* public key */
		return false;
	while (asn1_next(&rest, &tag, &skip))
		if (tag == DER_3)
			asn1_take(&skip, DER_SEQUENCE, &out->extensions);
	return true;
}

/* The value of an extension; false: it is not there. */
static bool
x509_extension(const struct x509 *x, struct slice oid, struct slice *value)
{
	struct slice rest = x->extensions, ext, id, critical;

	while (asn1_take(&rest, DER_SEQUENCE, &ext)) {
		if (!asn1_take(&ext, DER_OID, &id) || !slice_eq(id, oid))
			continue;
		asn1_take(&ext, DER_BOOLEAN, &critical);
		return asn1_take(&ext, DER_OCTETS, value);
	}
	return false;
}

/* The last attribute oid of a distinguished name, as text; empty: none. */
static struct slice
x509_attribute(struct arena *a, struct slice dn, struct slice oid)
{
	struct slice set, pair, id, value, found = S("");
	unsigned tag;

	while (asn1_take(&dn, DER_SET, &set))
		while (asn1_take(&set, DER_SEQUENCE, &pair))
			if (asn1_take(&pair, DER_OID, &id) && slice_eq(id, oid) &&
			    asn1_next(&pair, &tag, &value) && (tag == DER_UTF8 ||
			    tag == DER_PRINTABLE || tag == DER_T61 || tag == DER_IA5))
				found = value;
	found = arena_dup(a, found);
	text_clean((char *)(uintptr_t)found.p, found.n);
	return found;
}

/* A distinguished name for people: organisation and common name. */
static struct slice
x509_who(struct arena *a, struct slice dn)
{
	struct slice o = x509_attribute(a, dn, OID_O), cn = x509_attribute(a, dn, OID_CN);

	if (o.n > 0 && cn.n > 0)
		return slice_of(arena_fmt(a, "%s, %s", o.p, cn.p));
	return o.n > 0 ? o : cn.n > 0 ? cn : S("somebody without a name");
}

/* name in lower case, as clients ask for it; empty: they cannot. */
static struct slice
x509_host(struct arena *a, struct slice name)
{
	char *p;

	for (size_t i = 0; i < name.n; i++)
		if (name.p[i] <= ' ' || name.p[i] > '~')
			return S("");
	name = arena_dup(a, name);
	p = (char *)(uintptr_t)name.p;
	for (size_t i = 0; i < name.n; i++)
		p[i] = lower(p[i]);
	return name;
}

/* The dNSNames of x or, without any, its common name. RFC 6125 6.4.4. */
static struct slices
x509_names(struct arena *a, const struct x509 *x)
{
	struct slice value, list = S(""), name;
	struct slices out = { NULL, 0 };
	bool any = false;
	unsigned tag;

	if (x509_extension(x, OID_ALT_NAMES, &value))
		asn1_take(&value, DER_SEQUENCE, &list);
	out.v = arena_alloc(a, (list.n / 2 + 1) * sizeof *out.v); /* tag and length, at least */
	while (asn1_next(&list, &tag, &name)) {
		any |= tag == DER_DNS_NAME;
		if (tag == DER_DNS_NAME && (name = x509_host(a, name)).n > 0)
			out.v[out.n++] = name;
	}
	if (!any && (name = x509_host(a, x509_attribute(a, x->subject, OID_CN))).n > 0)
		out.v[out.n++] = name;
	return out;
}

/* ==== jose ===================================================================
 * Owns    nothing: texts are in the caller's arena.
 * Offers  b64url, b64url_decode, json_quoted, jwk_text, jwk_thumbprint,
 *         jws_ecdsa, jws_mac.
 * Calls   base, arena, der, BearSSL. JSON that is signed: RFC 7515, 7517, 7638. */

enum { JOSE_SIGNATURE = 2 * EC_KEY_BYTES }; /* ES256: r, s; RFC 7518 3.4 */

/* s in base64url, without padding; a NUL follows. */
static struct slice
b64url(struct arena *a, struct slice s)
{
	size_t cap = s.n / 3 * 4 + 4;
	struct text t = { arena_alloc(a, cap), 0, cap, false };

	base64_write(&t, s, true);
	return text_slice(&t);
}

/* Also takes padding and plain base64, which operators paste. False: s is neither. */
static bool
b64url_decode(struct arena *a, struct slice s, struct slice *out)
{
	struct text t = { arena_alloc(a, s.n + 1), 0, s.n, false };
	char *p = (char *)(uintptr_t)arena_dup(a, s).p;

	for (size_t i = 0; i < s.n; i++)
		p[i] = p[i] == '-' ? '+' : p[i] == '_' ? '/' : p[i];
	if (!base64_read(&t, (struct slice){ p, s.n }, ""))
		return false;
	*out = text_slice(&t);
	return true;
}

/* s as a JSON string, with its quotes. */
static const char *
json_quoted(struct arena *a, struct slice s)
{
	size_t cap = s.n * sizeof "\\u0000" + 3;
	struct text t = { arena_alloc(a, cap), 0, cap, false };

	text_char(&t, '"');
	text_json(&t, s, false);
	text_char(&t, '"');
	return t.p;
}

/* The public half of key in the order of RFC 7638 3.2; empty: it is not on P-256. */
static struct slice
jwk_text(struct arena *a, const br_ec_private_key *key)
{
	unsigned char q[EC_POINT_BYTES];
	struct slice x = { (char *)q + 1, EC_KEY_BYTES };
	struct slice y = { (char *)q + 1 + EC_KEY_BYTES, EC_KEY_BYTES };

	if (key->curve != BR_EC_secp256r1 || !key_point(key, q))
		return S("");
	return slice_of(arena_fmt(a, "{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"%s\",\"y\":\"%s\"}",
	    b64url(a, x).p, b64url(a, y).p));
}

static struct slice
jwk_thumbprint(struct arena *a, struct slice jwk)
{
	unsigned char hash[br_sha256_SIZE];

	sha256(jwk, hash);
	return b64url(a, (struct slice){ (char *)hash, sizeof hash });
}

/* header and payload as they are signed. RFC 7515 5.1. */
static struct slice
jws_signed(struct arena *a, struct slice header, struct slice payload)
{
	return slice_of(arena_fmt(a, "%s.%s", b64url(a, header).p, b64url(a, payload).p));
}

/* The flattened form. RFC 7515 7.2.2. */
static struct slice
jws_text(struct arena *a, struct slice header, struct slice payload, const void *signature,
    size_t n)
{
	return slice_of(arena_fmt(a, "{\"protected\":\"%s\",\"payload\":\"%s\","
	    "\"signature\":\"%s\"}", b64url(a, header).p, b64url(a, payload).p,
	    b64url(a, (struct slice){ signature, n }).p));
}

/* ES256. Empty: the key cannot sign. */
static struct slice
jws_ecdsa(struct arena *a, const br_ec_private_key *key, struct slice header, struct slice payload)
{
	struct slice text = jws_signed(a, header, payload);
	unsigned char hash[br_sha256_SIZE], signature[JOSE_SIGNATURE];

	sha256(text, hash);
	if (key->curve != BR_EC_secp256r1 || br_ecdsa_sign_raw_get_default()(br_ec_get_default(),
	    &br_sha256_vtable, hash, key, signature) != sizeof signature)
		return S("");
	return jws_text(a, header, payload, signature, sizeof signature);
}

/* HS256. */
static struct slice
jws_mac(struct arena *a, struct slice key, struct slice header, struct slice payload)
{
	struct slice text = jws_signed(a, header, payload);
	unsigned char mac[br_sha256_SIZE];
	br_hmac_key_context k;
	br_hmac_context h;

	br_hmac_key_init(&k, &br_sha256_vtable, key.p, key.n);
	br_hmac_init(&h, &k, 0);
	br_hmac_update(&h, text.p, text.n);
	br_hmac_out(&h, mac);
	return jws_text(a, header, payload, mac, sizeof mac);
}

/* ==== resp ===================================================================
 * Owns    nothing.
 * Offers  redis_url_parse, resp_next, resp_count, resp_bulk, redis_key, stored_write,
 *         stored_read.
 * Calls   base, addr, BearSSL's hash. What is said to Redis, and what it says:
 *         RESP2, https://redis.io/docs/reference/protocol-spec. */

#define REDIS_PORT 6379

/* redis://, rediss:// (TLS) or unix:/path. A host that begins with a slash, percent-encoded,
 * is a unix socket too. */
static bool
redis_url_parse(struct arena *a, struct slice s, struct redis_url *out, const char **why)
{
	struct service_url url;
	int64_t db = 0;
	bool tls = slice_starts(s, S("rediss://"));

	*out = (struct redis_url){ .tls = tls };
	if (slice_starts(s, S("unix:/")))
		return addr_parse(a, s, &out->addr, why);
	*why = "expected redis://[[user]:password@]host[:port][/database], rediss:// or unix:/path";
	if (!tls && !slice_starts(s, S("redis://")))
		return false;
	if (!url_split(a, slice_from(s, tls ? 9 : 8), &url, why))
		return false;
	out->user = url.user;
	out->password = url.password;
	*why = "a user has a password: redis://user:password@host";
	if (url.user.n > 0 && url.password.n == 0)
		return false;
	*why = "the user or the password is too long";
	if (url.user.n > REDIS_SECRET_MAX || url.password.n > REDIS_SECRET_MAX)
		return false;
	*why = "the number of a database is all that may stand behind the address";
	if (url.query.p || (url.path.n > 1 &&
	    (db = slice_uint(slice_from(url.path, 1), INT32_MAX)) < 0))
		return false;
	out->db = (uint32_t)db;
	out->addr = (struct addr){ .fd = -1 };
	if (slice_starts(url.host, S("/")))
		return addr_unix(a, url.host, false, &out->addr, why);
	if (!addr_inet(a, url.host, REDIS_PORT, &out->addr, why))
		return false;
	*why = "a URL names its host and a port above 0";
	return !out->addr.any && out->addr.port > 0;
}

/* ---- replies ---- */

static enum resp_event
resp_refuse(struct resp *r)
{
	r->in = RESP_IN_BAD;
	return RESP_BAD;
}

/* An element has ended, and with it perhaps the arrays around it. */
static enum resp_event
resp_end(struct resp *r, enum resp_event e)
{
	r->in = RESP_IN_LINE;
	while (r->depth > 0 && --r->due[r->depth - 1] == 0)
		r->depth--;
	r->whole = r->depth == 0;
	return e;
}

/* An element of that many bytes or elements begins. */
static enum resp_event
resp_begin(struct resp *r, char type)
{
	if (type == '$' && (uint64_t)r->n <= r->max) {
		r->in = RESP_IN_BULK;
		r->left = (uint64_t)r->n;
		return RESP_BULK;
	}
	if (type == '$' || r->n > RESP_ELEMENTS_MAX - r->elements || r->depth == RESP_DEPTH_MAX)
		return resp_refuse(r);
	r->elements += (uint32_t)r->n;
	if (r->n == 0)
		return resp_end(r, RESP_ARRAY);
	r->due[r->depth++] = (uint32_t)r->n;
	return RESP_ARRAY;
}

/* A line is whole that begins an element. */
static enum resp_event
resp_line(struct resp *r)
{
	bool cut = r->line_n > RESP_KEPT;
	struct slice s = { r->line + 1, (cut ? RESP_KEPT : r->line_n - 1) - 1 };
	char type = r->line[0];
	bool minus = s.n > 0 && s.p[0] == '-';

	r->text = s;
	r->line_n = 0;
	if (type == '+' || type == '-')
		return resp_end(r, type == '+' ? RESP_TEXT : RESP_ERROR);
	r->n = cut ? -1 : slice_uint(slice_from(s, minus), INT64_MAX);
	if (r->n < 0 || !memchr(":$*", type, 3) || (minus && type != ':' && r->n != 1))
		return resp_refuse(r);
	if (minus)
		r->n = -r->n;
	if (type == ':' || minus)
		return resp_end(r, minus && type != ':' ? RESP_NIL : RESP_INTEGER);
	return resp_begin(r, type);
}

/* Adds to the line; only its first bytes are kept. */
static enum resp_event
resp_line_next(struct resp *r, struct slice *in)
{
	const char *end = memchr(in->p, '\n', in->n);
	size_t n = end ? (size_t)(end - in->p) : in->n;

	if (n > RESP_LINE_MAX - r->line_n)
		return resp_refuse(r);
	if (r->line_n < RESP_KEPT)
		memcpy(r->line + r->line_n, in->p, MIN(n, (size_t)RESP_KEPT - r->line_n));
	if (n > 0)
		r->last = in->p[n - 1];
	if (r->line_n == 0 && n > 0) {
		r->at = r->depth;
		if (r->depth == 0)
			r->type = in->p[0];
	}
	r->line_n += (uint32_t)n;
	*in = slice_from(*in, n + (end != NULL));
	if (!end)
		return RESP_MORE;
	if (r->line_n < 2 || r->last != '\r')
		return resp_refuse(r);
	return resp_line(r);
}

/* Takes bytes of a string, or the CRLF behind it. */
static enum resp_event
resp_bulk_next(struct resp *r, struct slice *in)
{
	size_t n = (size_t)MIN(r->left, (uint64_t)in->n);

	if (n > 0) {
		r->text = (struct slice){ in->p, n };
		r->left -= n;
		*in = slice_from(*in, n);
		return RESP_PIECE;
	}
	if (in->p[0] != (r->in == RESP_IN_BULK ? '\r' : '\n'))
		return resp_refuse(r);
	*in = slice_from(*in, 1);
	if (r->in == RESP_IN_LF)
		return resp_end(r, RESP_END);
	r->in = RESP_IN_LF;
	return RESP_MORE;
}

/* Takes bytes off the front of *in, up to the next event. RESP_MORE: call again if there
 * are more. A piece lies in *in, another text in r: good until the next call. */
static enum resp_event
resp_next(struct resp *r, struct slice *in)
{
	if (r->in == RESP_IN_BAD || in->n == 0)
		return r->in == RESP_IN_BAD ? RESP_BAD : RESP_MORE;
	if (r->whole)
		r->elements = 0;
	r->whole = false;
	if (r->in != RESP_IN_LINE)
		return resp_bulk_next(r, in);
	return resp_line_next(r, in);
}

/* ---- requests ---- */

/* Begins an array ('*') of n strings, or a string ('$') of n bytes: CRLF goes behind it. */
static void
resp_count(struct text *t, char type, uint64_t n)
{
	text_char(t, type);
	text_uint(t, n);
	text_str(t, "\r\n");
}

static void
resp_bulk(struct text *t, struct slice s)
{
	resp_count(t, '$', s.n);
	text_add(t, s);
	text_str(t, "\r\n");
}

/* ---- keys and values ---- */

#define REDIS_PATH_MAX (REDIS_KEY_MAX - (sizeof REDIS_PREFIX - 1) - 1 - 2 * br_sha256_SIZE)

/* The name in Redis of what the cache calls key; path_n: so many bytes of key are scheme, host
 * and path. A long key is cut behind its path, and a hash tells it from others: what begins
 * with a path can still be looked for. t has room for REDIS_KEY_MAX. */
static void
redis_key(struct text *t, struct slice key, size_t path_n)
{
	unsigned char hash[br_sha256_SIZE];

	text_str(t, REDIS_PREFIX);
	if (key.n <= REDIS_KEY_MAX - (sizeof REDIS_PREFIX - 1)) {
		text_add(t, key);
		return;
	}
	text_add(t, (struct slice){ key.p, MIN(path_n, REDIS_PATH_MAX) });
	text_char(t, '#'); /* no request target has one */
	sha256(key, hash);
	for (size_t i = 0; i < sizeof hash; i++)
		text_hex(t, hash[i], 2);
}

#define STORED_MAGIC 0x57415250 /* WARP */
#define STORED_SUM   8

/* Adds the lowest n bytes of v, big-endian. */
static void
number_write(struct text *t, uint64_t v, unsigned n)
{
	while (n-- > 0)
		text_char(t, (char)(v >> 8 * n & 0xff));
}

static uint64_t
number_read(const char **p, unsigned n)
{
	uint64_t v = 0;

	while (n-- > 0)
		v = v << 8 | (unsigned char)*(*p)++;
	return v;
}

/* All of the front but the checksum. The key counts too: a value is good under its own
 * name only. */
static void
stored_sum(char sum[STORED_SUM], struct slice key, const struct slice *parts, int n)
{
	unsigned char hash[br_sha256_SIZE];
	br_sha256_context h;

	br_sha256_init(&h);
	br_sha256_update(&h, key.p, key.n);
	for (int i = 0; i < n; i++)
		br_sha256_update(&h, parts[i].p, parts[i].n);
	br_sha256_out(&h, hash);
	memcpy(sum, hash, STORED_SUM);
}

/* Writes the front of a value, STORED_FRONT bytes, to out and makes it parts[0]. The others,
 * parts[1 .. n), are the head and pieces of the body. False: too long. */
static bool
stored_write(char out[STORED_FRONT], const struct stored *s, struct slice key,
    struct slice *parts, int n)
{
	struct text t = { out, 0, STORED_FRONT - STORED_SUM, false };
	uint64_t body_n = 0;

	for (int i = 2; i < n; i++)
		body_n += parts[i].n;
	number_write(&t, STORED_MAGIC, 4);
	number_write(&t, STORED_VERSION, 4);
	number_write(&t, parts[1].n, 4);
	number_write(&t, body_n, 4);
	for (size_t i = 0; i < STORED_TIMES; i++)
		number_write(&t, (uint64_t)s->times[i], 8);
	for (size_t i = 0; i < STORED_FACTS; i++)
		number_write(&t, s->facts[i], 4);
	parts[0] = text_slice(&t);
	stored_sum(out + t.n, key, parts, n);
	parts[0].n += STORED_SUM;
	return parts[1].n <= UINT32_MAX && body_n <= UINT32_MAX;
}

/* Takes apart what stored_write made; slices lie in value. False: it is not that, or was
 * stored for another key. */
static bool
stored_read(struct stored *s, struct slice value, struct slice key)
{
	const char *p = value.p;
	struct slice parts[] = { { p, STORED_FRONT - STORED_SUM }, { p + STORED_FRONT, 0 } };
	char sum[STORED_SUM];
	uint64_t head_n;

	if (value.n < STORED_FRONT || number_read(&p, 4) != STORED_MAGIC ||
	    number_read(&p, 4) != STORED_VERSION)
		return false;
	head_n = number_read(&p, 4);
	parts[1].n = value.n - STORED_FRONT;
	if (head_n + number_read(&p, 4) != parts[1].n)
		return false;
	stored_sum(sum, key, parts, LEN(parts));
	if (memcmp(sum, value.p + STORED_FRONT - STORED_SUM, STORED_SUM) != 0)
		return false;
	for (size_t i = 0; i < STORED_TIMES; i++)
		s->times[i] = (int64_t)number_read(&p, 8);
	for (size_t i = 0; i < STORED_FACTS; i++)
		s->facts[i] = (uint32_t)number_read(&p, 4);
	s->head = (struct slice){ value.p + STORED_FRONT, (size_t)head_n };
	s->body = slice_from(parts[1], (size_t)head_n);
	return true;
}

FAST

/* ==== deflate ================================================================
 * Owns    the tables of the piece at hand, which the streams of a worker share.
 * Offers  gzip_begin, gzip_bound, gzip_add.
 * Calls   base. Compresses alone: RFC 1951 (whose sections are named below), 1952.
 *         A piece becomes tokens: literals, and matches, which chains of equal
 *         hashes find. Each block of tokens has codes of its own. */

enum { MATCH_MIN = 4, MATCH_BASE = 3, MATCH_MAX = 258 }; /* matches of 3 bytes hardly pay */
enum { END_OF_BLOCK = 256, LENGTHS, CODE_BITS = 15, RUN_BITS = 7, STORED_MAX = 65535 };
enum { BLOCK_STORED, BLOCK_FIXED, BLOCK_DYNAMIC }; /* 3.2.3 */
enum { OF_DISTANCE = 1, OF_LENGTH };               /* bits of a value in its code; 3.2.5 */

static const struct effort efforts[] = { GZIP_EFFORTS };
static struct deflate packer;
static struct code fixed[2]; /* 3.2.6; made, like the next, for the first stream */
static uint32_t crc_table[8][256];

static void
crc_make(void)
{
	for (uint32_t i = 0; i < 256; i++)
		for (uint32_t crc = i, bit = 0; bit < 64; bit++)
			crc_table[bit / 8][i] = crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
}

/* RFC 1952 8, eight bytes at a time. */
static uint32_t
crc_add(uint32_t crc, const unsigned char *p, size_t n)
{
	uint32_t(*t)[256] = crc_table;

	crc = ~crc;
	for (; n >= 8; n -= 8, p += 8) {
		crc ^= p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
		crc = t[7][crc & 255] ^ t[6][crc >> 8 & 255] ^ t[5][crc >> 16 & 255] ^
		    t[4][crc >> 24] ^ t[3][p[4]] ^ t[2][p[5]] ^ t[1][p[6]] ^ t[0][p[7]];
	}
	while (n-- > 0)
		crc = crc >> 8 ^ t[0][(crc ^ *p++) & 255];
	return ~crc;
}

/* Adds the n low bits of v. Writes eight bytes, of which the whole ones count. */
static void
bits_put(struct bits *b, uint64_t v, unsigned n)
{
	b->held |= v << b->n;
	b->n += n;
	for (unsigned i = 0; i < 8; i++)
		b->to[i] = (unsigned char)(b->held >> 8 * i);
	b->to += b->n / 8;
	b->held >>= b->n & ~7u;
	b->n &= 7;
}

/* ---- codes ---- */

/* Numbers the codes by length, then by symbol. They go out highest bit first, so
 * they are counted, and kept, reversed. 3.2.2. */
static void
code_number(struct code *c)
{
	unsigned code = 0, bit;

	for (unsigned len = 1; len <= CODE_BITS; len++)
		for (unsigned i = 0; i < c->n; i++) {
			if (c->len[i] != len)
				continue;
			c->bits[i] = (uint16_t)code;
			for (bit = 1u << (len - 1); code & bit; bit >>= 1)
				code ^= bit;
			code |= bit;
		}
}

/* Makes a code of at most `most` bits for symbols that occur so often. A length is
 * log2(sum / count) rounded up; what room is left shortens first where rounding lost
 * most. Measured: 0.1 % longer than by Huffman's tree, in half the lines. */
static void
code_make(struct code *c, const uint32_t *count, unsigned most)
{
	uint32_t weight[SYMBOLS_MAX], sum = 0, least, room = 1u << most;

	for (unsigned i = 0; i < c->n; i++)
		sum += count[i];
	least = sum / (room - c->n) + 1; /* so that `most` bits are enough */
	for (unsigned i = sum = 0; i < c->n; i++)
		sum += weight[i] = count[i] > 0 ? MAX(count[i], least) : 0;
	for (unsigned i = 0; i < c->n; i++) {
		c->len[i] = weight[i] > 0;
		while (weight[i] > 0 && weight[i] << c->len[i] < sum)
			c->len[i]++;
		room -= weight[i] > 0 ? 1u << (most - c->len[i]) : 0;
	}
	for (unsigned lost = 16; lost-- > 0;) /* eighths */
		for (unsigned i = 0; i < c->n; i++)
			while (c->len[i] > 1 && 1u << (most - c->len[i]) <= room &&
			    (weight[i] << c->len[i]) * 8 >= sum * lost)
				room -= 1u << (most - c->len[i]--);
	code_number(c);
}

static void
fixed_make(void)
{
	fixed[0].n = SYMBOLS_MAX;
	for (unsigned i = 0; i < SYMBOLS_MAX; i++)
		fixed[0].len[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
	fixed[1].n = DISTANCES;
	memset(fixed[1].len, 5, DISTANCES);
	code_number(&fixed[0]);
	code_number(&fixed[1]);
}

/* Bits of the symbols that occur. */
static size_t
code_cost(const struct code *c, const uint32_t *count)
{
	size_t bits = 0;

	for (unsigned i = 0; i < c->n; i++)
		bits += (size_t)count[i] * c->len[i];
	return bits;
}

/* The number among its kind of the code for v; *more: how many of its low bits follow. */
static unsigned
value_code(unsigned v, unsigned kind, unsigned *more)
{
	bool longest = kind == OF_LENGTH && v == MATCH_MAX - MATCH_BASE;

	*more = v >> kind && !longest ? 31 - (unsigned)__builtin_clz(v) - kind : 0;
	return longest ? 28 : (*more << kind) + (v >> *more);
}

/* Puts the symbol's code, and the low bits of v. */
static void
code_put(struct bits *b, const struct code *c, unsigned symbol, unsigned v, unsigned more)
{
	bits_put(b, c->bits[symbol] | (v & ((UINT64_C(1) << more) - 1)) << c->len[symbol], c->len[symbol] + more);
}

/* ---- blocks ---- */

/* Puts the lengths of both codes: as runs, in a code of their own. 3.2.7. */
static void
codes_put(struct bits *b, const struct code *codes)
{
	enum { REPEAT = 16, LONGEST = 138 };
	static const uint8_t run_min[] = { 3, 3, 11 }, run_max[] = { 6, 10, LONGEST }, run_bits[] = { 2, 3, 7 };
	static const uint8_t order[] = { 16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15 };
	struct code c = { .n = LEN(order) };
	uint32_t count[LEN(order)] = { 0 };
	uint8_t len[LITERALS + DISTANCES], symbol[LEN(len)], more[LEN(len)];
	unsigned n = 0, run, kind;

	memcpy(len, codes[0].len, LITERALS);
	memcpy(len + LITERALS, codes[1].len, DISTANCES);
	for (unsigned i = 0; i < LEN(len); i += run, n++) {
		for (run = 1; i + run < LEN(len) && run < LONGEST && len[i + run] == len[i]; run++)
			;
		kind = len[i] > 0 ? 0 : run < run_min[2] ? 1 : 2;
		if (run < 3 || (kind == 0 && (i == 0 || len[i - 1] != len[i]))) {
			run = 1;
			symbol[n] = len[i];
		} else {
			run = MIN(run, (unsigned)run_max[kind]);
			symbol[n] = (uint8_t)(REPEAT + kind);
			more[n] = (uint8_t)(run - run_min[kind]);
		}
		count[symbol[n]]++;
	}
	code_make(&c, count, RUN_BITS);
	bits_put(b, (LITERALS - LENGTHS) | (DISTANCES - 1) << 5 | (LEN(order) - 4) << 10, 14);
	for (unsigned i = 0; i < LEN(order); i++)
		bits_put(b, c.len[order[i]], 3);
	for (unsigned i = 0; i < n; i++)
		code_put(b, &c, symbol[i], more[i], symbol[i] < REPEAT ? 0 : run_bits[symbol[i] - REPEAT]);
}

static void
tokens_put(struct bits *to, const struct deflate *d, const struct code *codes)
{
	struct bits b = *to;
	unsigned more, symbol;

	for (const uint16_t *t = d->token, *end = t + d->tokens; t < end; t++) {
		if (*t < END_OF_BLOCK) {
			code_put(&b, &codes[0], *t, 0, 0);
			continue;
		}
		symbol = LENGTHS + value_code(*t - END_OF_BLOCK, OF_LENGTH, &more);
		code_put(&b, &codes[0], symbol, *t - END_OF_BLOCK, more);
		symbol = value_code(*++t, OF_DISTANCE, &more);
		code_put(&b, &codes[1], symbol, *t, more);
	}
	code_put(&b, &codes[0], END_OF_BLOCK, 0, 0);
	*to = b;
}

/* Puts n bytes as they are. Without any, it makes what was put before whole bytes. 3.2.4. */
static void
stored_put(struct bits *b, const unsigned char *p, size_t n, bool last)
{
	do {
		size_t some = MIN(n, (size_t)STORED_MAX);
		n -= some;
		bits_put(b, (last && n == 0) | BLOCK_STORED << 1, 3);
		bits_put(b, 0, -b->n & 7);
		bits_put(b, some | (uint64_t)(some ^ STORED_MAX) << 16, 32);
		memcpy(b->to, p, some);
		b->to += some;
		p += some;
	} while (n > 0);
}

/* Puts the tokens, which are the n bytes at text, as the shortest kind of block. */
static void
block_put(struct bits *b, struct deflate *d, const unsigned char *text, size_t n, bool last)
{
	struct bits begin = *b;
	size_t bits, bits_fixed;

	d->count[0][END_OF_BLOCK] = 1;
	code_make(&d->code[0], d->count[0], CODE_BITS);
	code_make(&d->code[1], d->count[1], CODE_BITS);
	bits_put(b, last | BLOCK_DYNAMIC << 1, 3);
	codes_put(b, d->code);
	bits = 8 * (size_t)(b->to - begin.to) + code_cost(&d->code[0], d->count[0]) + code_cost(&d->code[1], d->count[1]);
	bits_fixed = code_cost(&fixed[0], d->count[0]) + code_cost(&fixed[1], d->count[1]);
	if (bits < bits_fixed && bits + d->bits < 8 * n) {
		tokens_put(b, d, d->code);
	} else if (bits_fixed + d->bits < 8 * n + 40) {
		*b = begin;
		bits_put(b, last | BLOCK_FIXED << 1, 3);
		tokens_put(b, d, fixed);
	} else {
		*b = begin;
		stored_put(b, text, n, last);
	}
	memset(d->count, 0, sizeof d->count);
	d->tokens = d->bits = 0;
}

/* ---- matches ---- */

static uint32_t
load32(const unsigned char *p)
{
	uint32_t w;

	memcpy(&w, p, sizeof w);
	return w;
}

/* How many bytes are equal at a and b, at most `most`; reads up to seven more. */
static unsigned
equal_bytes(const unsigned char *a, const unsigned char *b, unsigned most)
{
	uint64_t v, w;

	for (unsigned n = 0; n < most; n += sizeof v) {
		memcpy(&v, a + n, sizeof v);
		memcpy(&w, b + n, sizeof w);
		if (v != w)
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
			return MIN(most, n + (unsigned)__builtin_ctzll(v ^ w) / 8);
#else
			return MIN(most, n + (unsigned)__builtin_clzll(v ^ w) / 8);
#endif
	}
	return most;
}

/* Adds the place `at` to its chain. Returns, modulo 2^16, the place before it. */
static unsigned
chain_add(struct deflate *d, unsigned at)
{
	uint16_t *head = &d->head[load32(d->text + at) * 0x9e3779b1 >> d->shift], before = *head;

	d->before[at % LEN(d->before)] = before;
	*head = (uint16_t)at;
	return before;
}

/* Adds `at` to its chain, and returns the longest match there, or m if none is longer. */
static struct match
match_find(struct deflate *d, unsigned at, unsigned end, struct match m)
{
	const unsigned char *p = d->text + at;
	unsigned most = MIN(end - at, (unsigned)MATCH_MAX), before = chain_add(d, at), distance, nearer = 0, n;

	for (unsigned looks = d->effort.looks; looks > 0 && m.n < most; looks--) {
		distance = (at - before) & UINT16_MAX;
		if (distance <= nearer || distance > at || distance >= LEN(d->before))
			break; /* such an entry is from another text, or none */
		if (load32(p + m.n - 3) == load32(p + m.n - 3 - distance) &&
		    (n = equal_bytes(p, p - distance, most)) > m.n)
			m = (struct match){ n, distance };
		if (m.n >= d->effort.enough) 
			break;
		nearer = distance;
		before = d->before[before % LEN(d->before)];
	}
	return m;
}

/* The next token is a match or, without one, the literal at `at`. Returns its bytes. */
static unsigned
token_add(struct deflate *d, unsigned at, struct match m)
{
	unsigned length = m.n - MATCH_BASE, distance = m.distance - 1, more;

	if (m.distance == 0) {
		d->count[0][d->text[at]]++;
		d->token[d->tokens++] = d->text[at];
		return 1;
	}
	d->count[0][LENGTHS + value_code(length, OF_LENGTH, &more)]++;
	d->bits += more;
	d->count[1][value_code(distance, OF_DISTANCE, &more)]++;
	d->bits += more;
	d->token[d->tokens++] = (uint16_t)(END_OF_BLOCK + length);
	d->token[d->tokens++] = (uint16_t)distance;
	return m.n;
}

/* Compresses the text from at to end; matches may begin before. */
static void
deflate_text(struct deflate *d, struct bits *b, unsigned at, unsigned end, bool last)
{
	static const struct match none = { MATCH_MIN - 1, 0 };
	unsigned block = at, known = 0, next;
	struct match m, later;

	for (; known < at; known++)
		chain_add(d, known);
	for (; at < end; at = next) {
		if (d->tokens > LEN(d->token) - MATCH_MAX - 2) {
			block_put(b, d, d->text + block, at - block, false);
			block = at;
		}
		m = match_find(d, known++, end, none);
		while (m.distance > 0 && m.n < d->effort.enough) { /* is a later one better? */
			later = match_find(d, known++, end, m);
			if (later.n == m.n)
				break;
			at += token_add(d, at, none);
			m = later;
		}
		for (next = at + token_add(d, at, m); known < next; known++)
			chain_add(d, known);
	}
	if (block < end || last)
		block_put(b, d, d->text + block, end - block, last);
}

/* ---- streams ---- */

/* level is from 1 to 9. */
static void
gzip_begin(struct gzip *g, int level)
{
	g->effort = efforts[level - 1];
	g->crc = g->total = 0;
	g->begun = false;
	g->kept = 0;
	if (fixed[0].n == 0) {
		packer.code[0].n = LITERALS;
		packer.code[1].n = DISTANCES;
		crc_make();
		fixed_make();
	}
}

/* What gzip_add may write for n bytes, with what it writes in vain. */
static size_t
gzip_bound(size_t n)
{
	return n + n / 1024 + GZIP_SPARE;
}

/* Keeps the end of what was compressed, for the next piece to refer to. */
static void
gzip_keep(struct gzip *g, struct slice in)
{
	size_t fresh = MIN(in.n, sizeof g->window), old = MIN(g->kept, sizeof g->window - fresh);

	memmove(g->window, g->window + g->kept - old, old);
	memcpy(g->window + old, in.p + in.n - fresh, fresh);
	g->kept = old + fresh;
}

/* Compresses a piece of at most RELAY_BYTES, so that all of it can be read from what
 * is out then; the last one may be empty. Returns how many bytes are at out. */
static size_t
gzip_add(struct gzip *g, struct slice in, bool last, char *out)
{
	static const char head[10] = "\x1f\x8b\x08\0\0\0\0\0\0\xff"; /* RFC 1952 2.3: no name, no time */
	struct bits b = { .to = (unsigned char *)out };
	size_t past = MIN(g->kept, GZIP_RECALL * in.n);
	struct deflate *d = &packer;

	if (!g->begun) {
		memcpy(b.to, head, sizeof head);
		b.to += sizeof head;
	}
	g->begun = true;
	memcpy(d->text, g->window + g->kept - past, past);
	if (in.n > 0)
		memcpy(d->text + past, in.p, in.n);
	d->effort = g->effort;
	d->shift = 32 - GZIP_HASH_BITS;
	while (d->shift < 24 && past + in.n < 1u << (31 - d->shift))
		d->shift++; /* little text: few chains to clear */
	memset(d->head, 0, sizeof d->head[0] << (32 - d->shift));
	deflate_text(d, &b, (unsigned)past, (unsigned)(past + in.n), last);
	g->crc = crc_add(g->crc, d->text + past, in.n);
	g->total += (uint32_t)in.n;
	if (last) {
		bits_put(&b, 0, -b.n & 7);
		bits_put(&b, g->crc, 32);
		bits_put(&b, g->total, 32);
	} else if (in.n > 0) {
		stored_put(&b, d->text, 0, false);
		gzip_keep(g, in);
	}
	return (size_t)(b.to - (unsigned char *)out);
}

/* ==== balance ================================================================
 * Owns    nothing: a roster is its upstream's.
 * Offers  balances[], balance_find, instance_tried, instance_may, instance_full.
 * Calls   base, clock. Every strategy is a row: name, alias, what its key is
 *         made of, pick. Picks look only at the roster, which the room roster
 *         makes. */

#define TRIED_BITS 64 /* of exchange.tried; instance 64 shares a bit with 0 */

static bool
instance_tried(const struct instance *in, uint64_t tried)
{
	return tried >> ((size_t)(in - in->up->instances) % TRIED_BITS) & 1;
}

static bool
instance_full(const struct instance *in)
{
	return in->max_connections > 0 && in->board->in_flight >= in->max_connections;
}

/* Whether in may be picked: neither tried nor full. */
static bool
instance_may(const struct instance *in, const struct pick *p)
{
	return !instance_tried(in, p->tried) && !instance_full(in);
}

/* ---- turns ---- */

/* The greatest common divisor of all weights. */
static uint32_t
roster_unit(const struct roster *r)
{
	uint32_t unit = 0;

	for (int i = 0; i < r->n; i++)
		for (uint32_t a = r->weight[i], rest; a > 0; a = rest) {
			rest = unit % a;
			unit = a;
		}
	return unit;
}

/* Sets each one's turns in a round, 1 or more; returns the sum, up to about RING_MAX. */
static int
roster_shares(struct roster *r)
{
	uint64_t unit = roster_unit(r), all = 0, turns;
	int n = 0;

	for (int i = 0; i < r->n; i++)
		all += r->weight[i] / unit;
	for (int i = 0; i < r->n; i++) {
		turns = r->weight[i] / unit;
		if (all > RING_MAX)
			turns = MAX(turns * RING_MAX / all, 1);
		r->turns[i] = (int)turns;
		n += (int)turns;
	}
	return n;
}

/* Smooth weighted round robin: each gains its share, the richest pays all. */
static void
roster_deal(struct roster *r)
{
	r->n_ring = r->even ? r->n : roster_shares(r);
	for (int i = 0; i < r->n; i++)
		r->ready[i]->current = 0;
	for (int k = 0; k < r->n_ring; k++) {
		int best = r->even ? k : 0;
		for (int i = 0; i < r->n && !r->even; i++) {
			r->ready[i]->current += r->turns[i];
			if (r->ready[i]->current > r->ready[best]->current)
				best = i;
		}
		r->ready[best]->current -= r->n_ring;
		r->ring[k] = (uint16_t)best;
	}
}

/* Enters a new round as far as the old one was, at due or the next one in the file. */
static void
roster_resume(struct roster *r, const struct instance *due, int at, int n)
{
	r->ring_at = r->even || n == 0 ? 0 : (int)((int64_t)at * r->n_ring / n);
	if (!due)
		return;
	for (int i = 0; i < r->n_ring; i++) {
		int k = (r->ring_at + i) % r->n_ring;
		if (r->ready[r->ring[k]] >= due) {
			r->ring_at = k;
			return;
		}
	}
}

/* The instance whose turn it is. */
static struct instance *
pick_turn(struct roster *r, const struct pick *p)
{
	for (int i = 0; i < r->n_ring; i++) {
		struct instance *in = r->ready[r->ring[r->ring_at]];
		r->ring_at = r->ring_at + 1 < r->n_ring ? r->ring_at + 1 : 0;
		if (instance_may(in, p))
			return in;
	}
	return NULL;
}

/* ---- at random ---- */

/* Draws a place on the roster by weight, but not place `but`; -1: none. */
static int
roster_draw(const struct roster *r, const struct pick *p, int but)
{
	uint64_t all = 0, at;
	int last = -1;

	for (int i = 0; i < r->n; i++)
		if (i != but && instance_may(r->ready[i], p))
			all += r->weight[i];
	if (all == 0)
		return -1;
	at = random_next() % all;
	for (int i = 0; i < r->n; i++) {
		if (i == but || !instance_may(r->ready[i], p))
			continue;
		if (at < r->weight[i])
			return i;
		at -= r->weight[i];
		last = i; /* others have filled up since */
	}
	return last;
}

static struct instance *
pick_random(struct roster *r, const struct pick *p)
{
	int i = roster_draw(r, p, -1);

	return i < 0 ? NULL : r->ready[i];
}

static double
load_of(const struct instance *in)
{
	return in->board->in_flight;
}

/* The power of two choices. */
static struct instance *
pick_random_two(struct roster *r, const struct pick *p)
{
	int a = roster_draw(r, p, -1), b;

	if (a < 0)
		return NULL;
	b = roster_draw(r, p, a);
	if (b >= 0 && load_of(r->ready[b]) / r->weight[b] < load_of(r->ready[a]) / r->weight[a])
		return r->ready[b];
	return r->ready[a];
}

/* ---- the least ---- */

/* The instance that costs least for its weight; of several, by turn. */
static struct instance *
roster_least(struct roster *r, const struct pick *p, double (*cost)(const struct instance *))
{
	struct instance *best = NULL;
	double least = 0, c;
	bool tied = false;

	for (int i = 0; i < r->n; i++) {
		if (!instance_may(r->ready[i], p))
			continue;
		c = cost(r->ready[i]) / r->weight[i];
		if (best && c >= least) {
			tied |= c <= least;
			continue;
		}
		best = r->ready[i];
		least = c;
		tied = false;
	}
	for (int i = 0; i < r->n_ring && tied; i++) {
		int k = (r->ring_at + i) % r->n_ring, at = r->ring[k];
		if (!instance_may(r->ready[at], p) || cost(r->ready[at]) / r->weight[at] > least)
			continue;
		r->ring_at = (k + 1) % r->n_ring;
		return r->ready[at];
	}
	return best;
}

static struct instance *
pick_least_conn(struct roster *r, const struct pick *p)
{
	return roster_least(r, p, load_of);
}

#define HALVINGS_MAX 31

/* How long a request would take there, in us. An instance that never answered
 * goes first, but not with many at once. An old average counts for less and
 * less, or one slow answer would shut an instance out for good. */
static double
time_of(const struct instance *in)
{
	const struct board_instance *b = in->board;
	unsigned in_flight = b->in_flight;
	unsigned used = b->used_ms;
	unsigned us = b->average_us;

	if (us == 0)
		return (double)TIME_GUESS_US * in_flight;
	if (in_flight == 0 && used > 0)
		us >>= MIN(clock_ago(used) / TIME_HALVES_MS, HALVINGS_MAX);
	return (double)us * (in_flight + 1);
}

static struct instance *
pick_least_time(struct roster *r, const struct pick *p)
{
	return roster_least(r, p, time_of);
}

/* ---- by a key ---- */

#define LN_TERMS  11 /* the last power of its series: 9 digits are good */
#define LN_FROM   (2.0 / 3) /* the series is best from here to 4/3 */
#define LN_2      0.69314718055994530942
#define HASH_BITS 52 /* a double holds these bits and half a unit more */

/* Natural logarithm of x in (0, 1): libm would be linked for this alone. */
static double
ln(double x)
{
	double sum = 0, s, square;
	int e = 0;

	while (x < LN_FROM) {
		x *= 2;
		e--;
	}
	s = (x - 1) / (x + 1);
	square = s * s;
	for (int k = LN_TERMS; k > 0; k -= 2)
		sum = sum * square + 1.0 / k;
	return 2 * s * sum + e * LN_2;
}

/* Weighted rendezvous: an instance that comes or goes moves only its own keys. */
static struct instance *
pick_hash(struct roster *r, const struct pick *p)
{
	struct instance *best = NULL;
	double most = 0, score;

	for (int i = 0; i < r->n; i++) {
		uint64_t draw = mix64(p->key ^ r->ready[i]->hash) >> (64 - HASH_BITS);
		if (!instance_may(r->ready[i], p))
			continue;
		score = ((double)draw + 0.5) / (double)(UINT64_C(1) << HASH_BITS);
		if (!r->even)
			score = r->weight[i] / -ln(score);
		if (!best || score > most) {
			best = r->ready[i];
			most = score;
		}
	}
	return best;
}

/* The instance that the client's cookie names, if it is on the roster. */
static struct instance *
pick_stuck(struct roster *r, const struct pick *p)
{
	for (int i = 0; i < r->n && p->stuck; i++)
		if (r->ready[i] == p->stuck && instance_may(p->stuck, p))
			return p->stuck;
	return pick_turn(r, p);
}

static struct instance *
pick_first(struct roster *r, const struct pick *p)
{
	for (int i = 0; i < r->n; i++)
		if (instance_may(r->ready[i], p))
			return r->ready[i];
	return NULL;
}

static const struct balance balances[] = {
	{ "round_robin", NULL, BY_NOTHING, true, pick_turn },
	{ "weighted", NULL, BY_NOTHING, false, pick_random },
	{ "least_conn", "least_connections", BY_NOTHING, true, pick_least_conn },
	{ "random", NULL, BY_NOTHING, false, pick_random },
	{ "random_two", NULL, BY_NOTHING, false, pick_random_two },
	{ "ip_hash", NULL, BY_IP, false, pick_hash },
	{ "uri_hash", NULL, BY_URI, false, pick_hash },
	{ "header_hash", NULL, BY_HEADER, false, pick_hash },
	{ "cookie", NULL, BY_COOKIE, true, pick_stuck },
	{ "least_time", NULL, BY_NOTHING, true, pick_least_time },
	{ "first", NULL, BY_NOTHING, false, pick_first },
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
 * Calls   base, arena, path, addr.
 *
 * Routes are tried in order; the first whose conditions all hold wins. The scan
 * reads one 32-bit key per route: the last four bytes of its path, and its host
 * if that is exact. Neighbours whose paths have the same length share a run, so
 * that the request's own key is made once for all of them. */

#define HOST_MAX    255
#define FNV_BASIS   2166136261u
#define FNV_PRIME   16777619u
#define KEY_BYTES   4 /* <= PATH_PAD */

/* host in lower case, without port and final dot; in a static buffer. */
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

static bool route_fault; /* an expression was not matched for want of memory */

/* path has a NUL behind it, see path_normalise. */
static bool
route_path_fits(const struct route *r, struct slice path)
{
	int done;

	switch (r->path_kind) {
	case PATH_PREFIX:
		return slice_starts(path, r->path);
	case PATH_EXACT:
		return slice_eq(path, r->path);
	case PATH_REGEX:
		done = regexec(&r->regex, path.p, 0, NULL, 0);
		route_fault = done != 0 && done != REG_NOMATCH;
		return done != REG_NOMATCH;
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

/* Whether a line has that name and that value; `*` is any value. */
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

/* The first route that takes the request; NULL: there is none, or route_fault is
 * set. path is the normalised view, with its pad in front. */
static const struct route *
route_find(const struct route_table *t, const struct head *h, struct slice path,
    const struct ip *client)
{
	struct slice host = t->by_host ? host_normal(h->host) : S("");
	uint32_t hash = t->by_host ? host_hash(host) : 0;

	route_fault = false;
	for (int k = 0; k < t->n_runs; k++) {
		const struct route_run *run = &t->runs[k];
		uint32_t end = run->first + run->n, key;

		if (path.n < run->path_n)
			continue;
		key = key_before(path.p + run->path_n) ^ (run->by_host ? hash : 0);
		for (uint32_t i = run->first; i < end; i++)
			if (t->keys[i] == key &&
			    !route_why(&t->routes[i], h, host, path, client))
				return route_fault ? NULL : &t->routes[i];
	}
	route_fault = false;
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

/* Whether later is never reached, since earlier takes all that later could, for
 * certain: conditions on head lines and clients are never compared. */
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

FAST_END

/* ==== policy =================================================================
 * Owns    nothing.
 * Offers  policy_asked, policy_store, policy_age, policy_left, policy_use,
 *         policy_saves, policy_write, policy_key, policy_spoilt, vary_names, vary_key,
 *         encoding_class.
 * Calls   base, clock, http, conditions. What a shared cache may do: RFC 9111, 5861,
 *         9213. It stores nothing itself.
 *
 * Of requests, only no-store and only-if-cached are obeyed: no client makes the cache
 * go to the upstream with no-cache, max-age or Pragma. RFC 9111 5.2.1 lets a cache. */

/* ---- Cache-Control ---- */

static const struct slice directive_names[DIRECTIVES] = {
	[D_MAX_AGE]          = { "max-age", 7 },
	[D_S_MAXAGE]         = { "s-maxage", 8 },
	[D_STALE_WHILE]      = { "stale-while-revalidate", 22 },
	[D_STALE_IF_ERROR]   = { "stale-if-error", 14 },
	[D_NO_CACHE]         = { "no-cache", 8 },
	[D_PRIVATE]          = { "private", 7 },
	[D_NO_STORE]         = { "no-store", 8 },
	[D_MUST_REVALIDATE]  = { "must-revalidate", 15 },
	[D_PROXY_REVALIDATE] = { "proxy-revalidate", 16 },
	[D_ONLY_IF_CACHED]   = { "only-if-cached", 14 },
	[D_PUBLIC]           = { "public", 6 },
	[D_MUST_UNDERSTAND]  = { "must-understand", 15 },
};

/* Where the first member of a list ends, in which quotes hide commas. A quote that stays
 * open hides none: what stands behind it may forbid something. */
static size_t
member_end(struct slice s, bool *open)
{
	size_t n;

	*open = false;
	for (n = 0; n < s.n && (*open || s.p[n] != ','); n++)
		if (s.p[n] == '"')
			*open = !*open;
		else if (*open && s.p[n] == '\\' && n + 1 < s.n)
			n++;
	if (*open)
		for (n = 0; n < s.n && s.p[n] != ','; n++)
			;
	return n;
}

/* Takes the next directive off a list. */
static bool
directive_next(struct slice *rest, struct directive *d)
{
	struct slice s;
	size_t n;

	do {
		if (rest->n == 0)
			return false;
		n = member_end(*rest, &d->bad);
		s = slice_trim((struct slice){ rest->p, n });
		*rest = slice_from(*rest, MIN(n + 1, rest->n));
	} while (s.n == 0);
	for (n = 0; n < s.n && chars[(unsigned char)s.p[n]] & CH_TOKEN; n++)
		;
	d->value = slice_from(s, n);
	for (d->is = 0; d->is < DIRECTIVES; d->is++)
		if (slice_ieq((struct slice){ s.p, n }, directive_names[d->is]))
			break;
	d->bad |= n == 0 || (d->value.n > 0 && d->value.p[0] != '=');
	d->quoted = false;
	if (d->bad || d->value.n == 0) {
		d->value.n = 0;
		return true;
	}
	d->value = slice_from(d->value, 1);
	n = d->value.n;
	if (n > 1 && d->value.p[0] == '"' && d->value.p[n - 1] == '"') {
		d->value = (struct slice){ d->value.p + 1, n - 2 };
		d->quoted = true;
	} else
		d->bad = !is_token(d->value);
	return true;
}

/* Whether d is no-cache or private, of some fields only. */
static bool
directive_names_fields(const struct directive *d)
{
	return (d->is == D_NO_CACHE || d->is == D_PRIVATE) && !d->bad && d->value.n > 0;
}

/* The directives of all fields of that id. What is malformed forbids, but allows nothing:
 * a time that is none is 0, and of two the shorter one counts. */
static void
cache_control_read(struct cache_control *cc, const struct head *h, enum field_id id)
{
	struct directive d;
	struct slice rest;
	int64_t v;

	*cc = (struct cache_control){ .bad = false };
	for (int at = 0; head_next(h, id, &at, &rest);)
		while (directive_next(&rest, &d)) {
			cc->any = true;
			cc->bad |= d.bad;
			if (d.is == DIRECTIVES || directive_names_fields(&d) ||
			    (d.bad && d.is >= D_PUBLIC))
				continue;
			if (d.is < DELTAS) {
				v = delta_read(d.value, DELTA_MAX);
				cc->bad |= v < 0 || d.quoted;
				v = MAX(v, 0);
				cc->delta[d.is] = (uint32_t)(cc->has & DIRECTIVE(d.is)
				    ? MIN(v, (int64_t)cc->delta[d.is]) : v);
			}
			cc->has |= DIRECTIVE(d.is);
		}
}

/* The directives that count for a response, and in which fields they stand. A
 * CDN-Cache-Control that is malformed counts for nothing. RFC 9213 2.1, 2.2. */
static enum field_id
cache_control_of(struct cache_control *cc, const struct head *res)
{
	cache_control_read(cc, res, F_CDN_CACHE_CONTROL);
	if (cc->any && !cc->bad)
		return F_CDN_CACHE_CONTROL;
	cache_control_read(cc, res, F_CACHE_CONTROL);
	return F_CACHE_CONTROL;
}

/* Whether no-cache or private keep that field from being stored. They say nothing of
 * the fields that this room reads itself. RFC 9111 5.2.2.4. */
static bool
field_is_withheld(const struct head *h, enum field_id by, enum field_id id, struct slice name)
{
	const uint64_t read = FIELD(F_AGE) | FIELD(F_CACHE_CONTROL) | FIELD(F_CDN_CACHE_CONTROL) |
	    FIELD(F_DATE) | FIELD(F_ETAG) | FIELD(F_EXPIRES) | FIELD(F_LAST_MODIFIED) | FIELD(F_VARY);
	struct directive d;
	struct slice rest, item;

	for (int at = 0; !(read >> id & 1) && head_next(h, by, &at, &rest);)
		while (directive_next(&rest, &d))
			while (directive_names_fields(&d) && slice_list_next(&d.value, &item))
				if (slice_ieq(item, name))
					return true;
	return false;
}

/* ---- storing ---- */

/* Whether some frameworks would take another method, host or path from the fields of h:
 * what they answer is not the target's, and others must not get it. */
static bool
head_overrides(const struct head *h)
{
	static const char *const names[] = { "x-original-url", "x-rewrite-url", "x-http-method",
		"x-method-override", "x-host" };

	for (int i = 0; i < h->n; i++)
		for (size_t k = 0, n; h->f[i].id == F_OTHER && k < LEN(names); k++) {
			struct slice s = h->f[i].name;
			for (n = 0; n < s.n && lower(s.p[n] == '_' ? '-' : s.p[n]) == names[k][n]; n++)
				;
			if (!names[k][n])
				return true;
		}
	return false;
}

/* What a request allows: a sum of CACHE_, 0: it passes the cache by. Only the upstream
 * knows what a body means to it, and whether nobody else has changed a thing. */
static unsigned
policy_asked(const struct head *req)
{
	struct cache_control cc;

	if ((req->method != M_GET && req->method != M_HEAD) || req->count[F_UPGRADE] > 0 ||
	    req->count[F_TRANSFER_ENCODING] > 0 ||
	    (req->count[F_CONTENT_LENGTH] > 0 && length_of(req) != 0) ||
	    req->count[F_IF_MATCH] > 0 || req->count[F_IF_UNMODIFIED_SINCE] > 0 ||
	    head_overrides(req))
		return 0;
	cache_control_read(&cc, req, F_CACHE_CONTROL);
	return CACHE_LOOK | (cc.has & DIRECTIVE(D_NO_STORE) ? 0 : CACHE_STORE) |
	    (cc.has & DIRECTIVE(D_ONLY_IF_CACHED) ? CACHE_ONLY : 0);
}

/* RFC 9110 15.1: those that may be stored without a word of the upstream. */
static bool
status_is_lasting(int status)
{
	switch (status) {
	case 200: case 203: case 204: case 300: case 301: case 308:
	case 404: case 405: case 410: case 414: case 501:
		return true;
	}
	return false;
}

/* Seconds that a response stays fresh, -1: it does not say. The preset is not for
 * requests with a cookie: what a stranger makes one's browser ask for stays one's own. */
static int64_t
fresh_of(const struct cache_control *cc, enum field_id by, const struct cache_rules *rules,
    const struct head *req, const struct head *res)
{
	int64_t date, expires;

	if (cc->has & DIRECTIVE(D_S_MAXAGE))
		return cc->delta[D_S_MAXAGE];
	if (cc->has & DIRECTIVE(D_MAX_AGE))
		return cc->delta[D_MAX_AGE];
	if (by == F_CACHE_CONTROL && res->count[F_EXPIRES] > 0) {
		expires = head_date(res, F_EXPIRES);
		date = head_date(res, F_DATE);
		return MAX(MIN(expires - (date < 0 ? now_s : date), DELTA_MAX), 0);
	}
	return rules->default_ttl_s > 0 && req->count[F_COOKIE] == 0 &&
	    status_is_lasting(res->status) ? (int64_t)rules->default_ttl_s : -1;
}

/* How old a response is that came now, delay_s after it was asked for. RFC 9111 4.2.3. */
static uint32_t
age_of(const struct head *res, uint32_t delay_s)
{
	const struct field *f = head_field(res, F_AGE);
	struct slice rest = f ? f->value : S(""), first = S("");
	int64_t date = head_date(res, F_DATE), age;

	slice_list_next(&rest, &first);
	age = MAX(delta_read(first, DELTA_MAX), 0) + delay_s;
	if (date >= 0)
		age = MAX(age, now_s - date);
	return (uint32_t)MIN(age, DELTA_MAX);
}

/* Seconds, for the field Age. RFC 9111 4.2.3. */
static uint32_t
policy_age(const struct policy *p)
{
	return (uint32_t)MIN(p->age_s + MAX(now_s - p->came_s, (int64_t)0), DELTA_MAX);
}

/* Seconds for which it may still be sent, fresh or stale. */
static uint32_t
policy_left(const struct policy *p)
{
	uint32_t until = p->fresh_s + MAX(p->while_s, p->error_s), age = policy_age(p);

	return until > age ? until - age : 0;
}

/* Whether a response that is whole may be stored, and for what; it came now. RFC 9111 3,
 * 3.5, 5.2.2. */
static bool
policy_store(struct policy *p, const struct cache_rules *rules, const struct head *req,
    const struct head *res, uint32_t delay_s)
{
	enum { SHARED = DIRECTIVE(D_PUBLIC) | DIRECTIVE(D_S_MAXAGE) | DIRECTIVE(D_MUST_REVALIDATE),
		STRICT = DIRECTIVE(D_NO_CACHE) | DIRECTIVE(D_MUST_REVALIDATE) |
		    DIRECTIVE(D_PROXY_REVALIDATE) };
	struct cache_control cc;
	enum field_id by = cache_control_of(&cc, res);
	int64_t fresh = fresh_of(&cc, by, rules, req, res);
	bool known = status_text(res->status) != status_text(0);

	if (res->status < 200 || res->status == 206 || res->status == 304 ||
	    cc.has & DIRECTIVE(D_PRIVATE) ||
	    (cc.has & DIRECTIVE(D_MUST_UNDERSTAND) ? !known : cc.has & DIRECTIVE(D_NO_STORE)) ||
	    (req->count[F_AUTHORIZATION] > 0 && !(cc.has & SHARED)) ||
	    (res->count[F_SET_COOKIE] > 0 &&
	    !field_is_withheld(res, by, F_SET_COOKIE, S("Set-Cookie"))) ||
	    head_has(res, F_VARY, "*"))
		return false;
	*p = (struct policy){ .came_s = now_s, .age_s = age_of(res, delay_s),
		.shared = cc.has & SHARED,
		.validates = res->count[F_ETAG] > 0 || res->count[F_LAST_MODIFIED] > 0 };
	if (cc.has & DIRECTIVE(D_NO_CACHE))
		fresh = 0;
	if (fresh < 0)
		return false;
	p->fresh_s = (uint32_t)fresh;
	if (!(cc.has & STRICT)) {
		/* what stands beside s-maxage is meant; what is preset is not. 5.2.2.10 */
		p->while_s = cc.delta[D_STALE_WHILE];
		p->error_s = cc.has & DIRECTIVE(D_STALE_IF_ERROR) ? cc.delta[D_STALE_IF_ERROR]
		    : cc.has & DIRECTIVE(D_S_MAXAGE) ? 0 : rules->stale_s;
	}
	return p->validates || policy_left(p) > 0;
}

/* ---- using what is stored ---- */

/* What a stored response is good for in answer to req. */
static enum cache_use
policy_use(const struct policy *p, const struct head *req)
{
	uint32_t age = policy_age(p);

	if (req->count[F_AUTHORIZATION] > 0 && !p->shared)
		return USE_NOT; /* stricter than RFC 9111 3.5 */
	if (age < p->fresh_s)
		return USE_FRESH;
	if (age < p->fresh_s + p->while_s)
		return USE_STALE;
	return p->validates ? USE_VALIDATE : USE_NOT;
}

/* Whether a stored response may be sent since the upstream did not answer (0), or
 * answered with such a status. RFC 5861 4. */
static bool
policy_saves(const struct policy *p, int status)
{
	bool failed = status == 0 || status == 500 || (status >= 502 && status <= 504);

	return failed && policy_age(p) < p->fresh_s + p->error_s;
}

/* ---- heads to be stored ---- */

/* A 304 says nothing of the body that is there. RFC 9111 3.2. */
static const uint64_t fields_of_body = FIELD(F_CONTENT_ENCODING) | FIELD(F_CONTENT_LENGTH) |
    FIELD(F_CONTENT_RANGE) | FIELD(F_CONTENT_TYPE);

/* Fields of h that may be stored, but those of `not`, and those that `over` has too.
 * RFC 9111 3.1. */
static void
policy_fields(struct text *t, const struct head *h, uint64_t not, const struct head *over)
{
	struct cache_control cc;
	enum field_id by = cache_control_of(&cc, h);

	for (int i = 0, k; i < h->n; i++) {
		const struct field *f = &h->f[i];
		if (f->drop || not >> f->id & 1 || field_is_withheld(h, by, f->id, f->name) ||
		    slice_ieq(f->name, S("Proxy-Authentication-Info")))
			continue;
		for (k = 0; over && k < over->n; k++)
			if (!over->f[k].drop && slice_ieq(over->f[k].name, f->name))
				break;
		if (!over || k == over->n || fields_of_body >> f->id & 1)
			line_write(t, f->name, f->value);
	}
}

/* Writes the head of a stored response as response_parse reads it: res, and what a 304
 * has brought anew, or NULL. What does not travel on is dropped already (head_drop).
 * With the head parsed again, policy_store says what it is good for from now on. */
static void
policy_write(struct text *t, const struct head *res, const struct head *anew)
{
	const uint64_t never = FIELD(F_SET_COOKIE) | FIELD(F_TRAILER);

	text_add(t, S("HTTP/1.1 "));
	text_uint(t, (uint64_t)res->status);
	text_char(t, ' ');
	text_add(t, res->reason);
	text_add(t, S("\r\n"));
	policy_fields(t, res, anew ? never | FIELD(F_AGE) | FIELD(F_DATE) : never, anew);
	if (anew)
		policy_fields(t, anew, never | fields_of_body, NULL);
	if ((anew ? anew : res)->count[F_DATE] == 0)
		line_write(t, S("Date"), clock_date()); /* RFC 9110 6.6.1 */
	text_add(t, S("\r\n"));
}

/* ---- keys ---- */

/* What stands for Accept-Encoding in a key. The upstream must be told this and no more:
 * it could choose a coding that others of the same class cannot read. */
static struct slice
encoding_class(const struct head *req)
{
	static const struct slice classes[] = { { "", 0 }, { "gzip", 4 }, { "br", 2 },
		{ "br, gzip", 8 } };

	return classes[(coding_weight(req, "gzip") > 0) + 2 * (coding_weight(req, "br") > 0)];
}

/* The names in Vary, for vary_key. */
static void
vary_names(struct text *t, const struct head *res)
{
	struct slice rest, item;
	size_t start = t->n;

	for (int at = 0; head_next(res, F_VARY, &at, &rest);)
		while (slice_list_next(&rest, &item)) {
			if (t->n > start)
				text_char(t, ',');
			text_lower(t, item);
		}
}

/* Adds the value of a field: lines joined, blanks around commas gone, unless quotes could
 * hide a comma. Nothing where there is no such field. RFC 9111 4.1. */
static void
vary_value(struct text *t, const struct head *req, struct slice name)
{
	struct slice rest, item;
	char before = ':';

	for (int i = 0; i < req->n; i++) {
		if (!slice_ieq(req->f[i].name, name))
			continue;
		rest = req->f[i].value;
		if (rest.n == 0 || memchr(rest.p, '"', rest.n)) {
			text_char(t, before);
			text_add(t, rest);
			before = ',';
			continue;
		}
		for (; slice_list_next(&rest, &item); before = ',') {
			text_char(t, before);
			text_add(t, item);
		}
	}
}

/* What tells apart the answers to one policy_key: the fields that Vary names, in req. */
static void
vary_key(struct text *t, struct slice names, const struct head *req)
{
	struct slice name;

	while (names.n > 0 && slice_cut(&names, ',', &name)) {
		text_add(t, name);
		if (field_id_of(name) == F_ACCEPT_ENCODING) {
			text_char(t, ':');
			text_add(t, encoding_class(req));
		} else
			vary_value(t, req, name);
		text_char(t, '\n');
	}
}

/* Scheme and host, without a port that goes without saying. */
static void
origin_write(struct text *t, bool https, struct slice host)
{
	struct slice port = https ? S(":443") : S(":80");

	text_add(t, https ? S("https://") : S("http://"));
	if (slice_ends(host, port) || slice_ends(host, S(":")))
		host.n -= slice_ends(host, port) ? port.n : 1;
	text_lower(t, host);
}

static void
target_add(struct text *t, const struct head *req)
{
	text_add(t, req->path);
	if (req->has_query) {
		text_char(t, '?');
		text_add(t, req->query);
	}
}

/* The key of a request. The target is the client's, byte by byte, as the upstream gets
 * it: what two servers could read differently has two keys. GET and HEAD have one. */
static void
policy_key(struct text *t, bool https, const struct head *req)
{
	origin_write(t, https, req->host);
	target_add(t, req);
}

/* Takes a scheme off *to; https: what it is. */
static void
scheme_take(struct slice *to, bool *https)
{
	static const struct slice schemes[] = { { "http:", 5 }, { "https:", 6 } };

	for (size_t i = 0; i < LEN(schemes); i++)
		if (to->n >= schemes[i].n &&
		    slice_ieq((struct slice){ to->p, schemes[i].n }, schemes[i])) {
			*https = i > 0;
			*to = slice_from(*to, schemes[i].n);
			return;
		}
}

/* Adds the key that a reference in an answer to req leads to; false: it leads away from
 * origin. Dot segments stay as they are. RFC 3986 5.2.2. */
static bool
reference_key(struct text *t, struct slice origin, const struct head *req, struct slice to)
{
	bool https = slice_starts(origin, S("https:"));
	struct slice rest = to, base = req->path;
	size_t start = t->n, n = 2;

	slice_cut(&rest, '#', &to);
	scheme_take(&to, &https);
	if (slice_starts(to, S("//"))) {
		while (n < to.n && to.p[n] != '/' && to.p[n] != '?')
			n++;
		origin_write(t, https, (struct slice){ to.p + 2, n - 2 });
		if (!slice_eq((struct slice){ t->p + start, t->n - start }, origin)) {
			t->n = start;
			return false;
		}
		to = slice_from(to, n);
		base = S("/");
	} else
		text_add(t, origin);
	if (to.n > 0 && to.p[0] == '/')
		base.n = 0;
	else if (to.n > 0 && to.p[0] != '?')
		while (base.n > 0 && base.p[base.n - 1] != '/')
			base.n--;
	text_add(t, base);
	text_add(t, to);
	return true;
}

/* The keys under which nothing is right any more after that answer; they are in t.
 * Returns how many. RFC 9111 4.4. */
static int
policy_spoilt(struct text *t, struct slice keys[KEYS_SPOILT], bool https,
    const struct head *req, const struct head *res)
{
	static const enum field_id ids[] = { F_LOCATION, F_CONTENT_LOCATION };
	struct slice origin = { t->p + t->n, 0 }, key = origin;
	int n = 0;

	if (req->method == M_GET || req->method == M_HEAD || req->method == M_OPTIONS ||
	    req->method == M_TRACE || res->status < 200 || res->status >= 400)
		return 0;
	origin_write(t, https, req->host);
	origin.n = (size_t)(t->p + t->n - origin.p);
	target_add(t, req);
	for (size_t i = 0; !t->full; i++) {
		key.n = (size_t)(t->p + t->n - key.p);
		if (key.n > 0)
			keys[n++] = key;
		key.p = t->p + t->n;
		if (i == LEN(ids))
			break;
		if (res->count[ids[i]] > 0)
			reference_key(t, origin, req, head_field(res, ids[i])->value);
	}
	return n;
}

/* ==== certs ==================================================================
 * Owns    nothing: a set of certificates is its loader's.
 * Offers  certs_load, certs_pair, certs_pack,
 *         certs_unpack, certs_are_less, certs_keep, certs_free, certs_print,
 *         cert_covers, cert_date.
 * Calls   base, arena, walk, pem, der, x509, BearSSL. Lengths that a file states are
 *         never trusted. RFC 7468, RFC 5280. */

/* ---- one certificate with its key ---- */

#define CERT_FILE_MAX   1048576
#define RSA_SLOW_BITS   3072 /* beyond, a handshake costs six times as much */
#define RSA_WEAK_BITS   2048
#define RSA_FACTOR_MAX  260  /* bytes; BearSSL's limit for 4096 bits and some */
#define DAYS_TO_1970    719528 /* BearSSL counts days from the year 0 */
#define PEM_LINES       64     /* bytes of the two lines around an object */
#define CERT_PACK_MARK  "warp certificates 1"

/* Always false, so that a failing check is one line. */
__attribute__((format(printf, 3, 4))) static bool
certs_say(const struct certs_reader *r, enum diag_level level, const char *fmt, ...)
{
	va_list ap;

	if (!r->say)
		return false;
	va_start(ap, fmt);
	r->say(r->to, r->mild ? DIAG_WARNING : level, r->pair, arena_vfmt(r->a, fmt, ap));
	va_end(ap);
	return false;
}

/* The date of s, in UTC. */
static const char *
cert_date(struct arena *a, int64_t s)
{
	time_t t = (time_t)s;
	struct tm tm;

	if (!gmtime_r(&t, &tm))
		return "a day that no calendar has";
	return arena_fmt(a, "%04d-%02d-%02d", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday);
}

/* All certificates in text, in its order; the first is taken for the leaf. */
static bool
cert_chain(const struct certs_reader *r, struct cert *c, struct slice text)
{
	struct pem o;
	int got;

	c->chain = arena_alloc(r->a, pem_count(text) * sizeof *c->chain);
	while ((got = pem_next(r->a, &text, &o)) > 0)
		if (pem_is_cert(&o) && o.der.n > 0)
			c->chain[c->n_chain++] = (br_x509_certificate){
				(unsigned char *)(uintptr_t)o.der.p, o.der.n };
	if (got < 0)
		return certs_say(r, DIAG_ERROR, "%s is damaged: '%.*s' in it has no end or is no "
		    "base64", c->cert_file, (int)MIN(o.name.n, (size_t)40), o.name.p);
	return c->n_chain > 0 || certs_say(r, DIAG_ERROR, "%s holds no certificate (PEM, "
	    "-----BEGIN CERTIFICATE-----)", c->cert_file);
}

/* The first private key in text. */
static bool
cert_key_find(const struct certs_reader *r, const struct cert *c, struct slice text,
    struct pem *key)
{
	int got;

	while ((got = pem_next(r->a, &text, key)) > 0)
		if (slice_ends(key->name, S("PRIVATE KEY")))
			break;
	if (got < 0)
		return certs_say(r, DIAG_ERROR, "%s is damaged: '%.*s' in it has no end or is no "
		    "base64", c->key_file, (int)MIN(key->name.n, (size_t)40), key->name.p);
	if (got == 0)
		return certs_say(r, DIAG_ERROR, "%s holds no private key (PEM, "
		    "-----BEGIN PRIVATE KEY-----)", c->key_file);
	if (key->encrypted || slice_starts(key->name, S("ENCRYPTED")))
		return certs_say(r, DIAG_ERROR, "the key in %s is encrypted, and warp cannot ask "
		    "for the passphrase; decrypt it: openssl pkey -in %s -out NEWFILE",
		    c->key_file, c->key_file);
	return true;
}

/* A number without its leading zeros, in the arena. */
static unsigned char *
number_dup(struct arena *a, const unsigned char *p, size_t *n)
{
	while (*n > 0 && *p == 0) {
		p++;
		(*n)--;
	}
	return (unsigned char *)(uintptr_t)arena_dup(a, (struct slice){ (const char *)p, *n }).p;
}

/* The bits of a curve; 0: warp cannot use it. */
static unsigned
curve_bits(int curve)
{
	return curve == BR_EC_secp256r1 ? 256 : curve == BR_EC_secp384r1 ? 384
	    : curve == BR_EC_secp521r1 ? 521 : 0;
}

static bool
cert_key(const struct certs_reader *r, struct cert *c, struct slice der)
{
	br_skey_decoder_context d;
	br_rsa_private_key *k;

	br_skey_decoder_init(&d);
	br_skey_decoder_push(&d, der.p, der.n);
	c->key_type = br_skey_decoder_key_type(&d);
	if (c->key_type == BR_KEYTYPE_RSA) {
		k = &c->rsa;
		*k = *br_skey_decoder_get_rsa(&d);
		k->p = number_dup(r->a, k->p, &k->plen);
		k->q = number_dup(r->a, k->q, &k->qlen);
		k->dp = number_dup(r->a, k->dp, &k->dplen);
		k->dq = number_dup(r->a, k->dq, &k->dqlen);
		k->iq = number_dup(r->a, k->iq, &k->iqlen);
		c->key_bits = k->n_bitlen;
	} else if (c->key_type == BR_KEYTYPE_EC) {
		c->ec = *br_skey_decoder_get_ec(&d);
		c->ec.x = number_dup(r->a, c->ec.x, &c->ec.xlen);
		c->key_bits = curve_bits(c->ec.curve);
	}
	if (c->key_bits == 0 || (c->key_type == BR_KEYTYPE_EC &&
	    (c->ec.xlen == 0 || c->ec.xlen > (c->key_bits + 7) / 8)))
		return certs_say(r, DIAG_ERROR, "the key in %s cannot be used: warp knows RSA up "
		    "to 4096 bits and the curves P-256, P-384, P-521 (best: P-256, as by "
		    "openssl ecparam -name prime256v1 -genkey -noout)", c->key_file);
	if (c->key_type == BR_KEYTYPE_RSA && (c->rsa.plen == 0 || c->rsa.qlen == 0 ||
	    c->rsa.plen > RSA_FACTOR_MAX || c->rsa.qlen > RSA_FACTOR_MAX ||
	    !(c->rsa.p[c->rsa.plen - 1] & 1) || !(c->rsa.q[c->rsa.qlen - 1] & 1)))
		return certs_say(r, DIAG_ERROR, "the key in %s is no RSA key that can be used",
		    c->key_file);
	return true;
}

/* Whether pk is the public half of c's key. */
static bool
cert_has_key(const struct cert *c, const br_x509_pkey *pk)
{
	unsigned char b[2 * RSA_FACTOR_MAX]; /* of EC less */
	br_ec_public_key pub;
	const unsigned char *p;
	size_t n, left;

	if (pk->key_type != c->key_type)
		return false;
	if (c->key_type == BR_KEYTYPE_EC)
		return pk->key.ec.curve == c->ec.curve &&
		    (n = br_ec_compute_pub(br_ec_get_default(), &pub, b, &c->ec)) > 0 &&
		    n == pk->key.ec.qlen && memcmp(b, pk->key.ec.q, n) == 0;
	/* the default, i31, has no room for 4096 bits in BearSSL 0.6 */
	n = br_rsa_i15_compute_modulus(NULL, &c->rsa);
	if (n == 0 || n > sizeof b)
		return false;
	n = br_rsa_i15_compute_modulus(b, &c->rsa);
	p = pk->key.rsa.n;
	for (left = pk->key.rsa.nlen; left > 0 && *p == 0; left--)
		p++;
	return n > 0 && n == left && memcmp(b, p, n) == 0;
}

static const br_x509_pkey *
x509_key(br_x509_decoder_context *d, const br_x509_certificate *x)
{
	br_x509_decoder_init(d, NULL, NULL);
	br_x509_decoder_push(d, x->data, x->data_len);
	return br_x509_decoder_get_pkey(d);
}

/* The key is not the leaf's: says whose it is, if of this chain. */
static bool
cert_mismatch(const struct certs_reader *r, const struct cert *c)
{
	br_x509_decoder_context d;
	const br_x509_pkey *pk;

	for (size_t i = 1; i < c->n_chain; i++)
		if ((pk = x509_key(&d, &c->chain[i])) && cert_has_key(c, pk))
			return certs_say(r, DIAG_ERROR, "the chain in %s is in the wrong order: "
			    "the key in %s belongs to certificate %zu, which must be the first",
			    c->cert_file, c->key_file, i + 1);
	return certs_say(r, DIAG_ERROR, "%s and %s do not belong together: the key is not that of "
	    "the certificate", c->cert_file, c->key_file);
}

/* Key, dates and signer of the leaf. */
static bool
cert_leaf(const struct certs_reader *r, struct cert *c)
{
	br_x509_decoder_context d;
	const br_x509_pkey *pk = x509_key(&d, &c->chain[0]);
	struct slice value, id, der = { (char *)c->chain[0].data, c->chain[0].data_len };
	struct x509 x;

	if (!pk || !x509_split(der, &x))
		return certs_say(r, DIAG_ERROR, "the first certificate in %s cannot be read "
		    "(BearSSL's error %d)", c->cert_file, br_x509_decoder_last_error(&d));
	if (!cert_has_key(c, pk))
		return cert_mismatch(r, c);
	c->from_s = ((int64_t)d.notbefore_days - DAYS_TO_1970) * DAY_S + d.notbefore_seconds;
	c->until_s = ((int64_t)d.notafter_days - DAYS_TO_1970) * DAY_S + d.notafter_seconds;
	c->issuer_key_type = br_x509_decoder_get_signer_key_type(&d);
	c->names = x509_names(r->a, &x);
	c->issuer = x509_who(r->a, x.issuer);
	c->serial = arena_dup(r->a, x.serial);
	if (x509_extension(&x, OID_ISSUER_ID, &value) &&
	    asn1_take(&value, DER_SEQUENCE, &id) && asn1_take(&id, DER_KEY_ID, &value))
		c->issuer_id = arena_dup(r->a, value);
	return true;
}

/* What certs_pack sends: the key and the chain, and nothing else of the files. */
static void
cert_pem(struct arena *a, struct cert *c, const struct pem *key)
{
	struct slice k = pem_of(a, arena_dup(a, key->name).p, key->der.p, key->der.n);
	size_t room = k.n;
	struct text t;

	for (size_t i = 0; i < c->n_chain; i++)
		room += 2 * c->chain[i].data_len + PEM_LINES;
	t = (struct text){ arena_alloc(a, room), 0, room, false };
	text_add(&t, k);
	for (size_t i = 0; i < c->n_chain; i++)
		text_add(&t, pem_of(a, "CERTIFICATE", c->chain[i].data, c->chain[i].data_len));
	c->pem = text_slice(&t);
}

/* Warns where a certificate is not signed by the next one. RFC 5246 7.4.2. */
static void
cert_order(const struct certs_reader *r, const struct cert *c)
{
	struct x509 x, next;

	for (size_t i = 0; i + 1 < c->n_chain; i++) {
		const br_x509_certificate *v = &c->chain[i];
		if (!x509_split((struct slice){ (char *)v[0].data, v[0].data_len }, &x) ||
		    !x509_split((struct slice){ (char *)v[1].data, v[1].data_len }, &next))
			certs_say(r, DIAG_WARNING, "certificate %zu or %zu in %s cannot be read",
			    i + 1, i + 2, c->cert_file);
		else if (!slice_eq(x.issuer, next.subject))
			certs_say(r, DIAG_WARNING, "the chain in %s is out of order: '%s' was "
			    "signed by '%s', but '%s' follows", c->cert_file,
			    x509_who(r->a, x.subject).p, x509_who(r->a, x.issuer).p,
			    x509_who(r->a, next.subject).p);
	}
}

/* Warns of what is no error, but probably a mistake. */
static void
cert_judge(const struct certs_reader *r, const struct cert *c)
{
	int64_t now = (int64_t)time(NULL);

	cert_order(r, c);
	if (c->until_s < now)
		certs_say(r, DIAG_WARNING, "the certificate in %s has expired on %s; renew it",
		    c->cert_file, cert_date(r->a, c->until_s));
	if (c->from_s > now)
		certs_say(r, DIAG_WARNING, "the certificate in %s is not valid before %s; is this "
		    "host's clock right?", c->cert_file, cert_date(r->a, c->from_s));
	if (c->names.n == 0)
		certs_say(r, DIAG_WARNING, "the certificate in %s names no host: clients will "
		    "refuse it", c->cert_file);
	if (c->key_type == BR_KEYTYPE_RSA && c->key_bits > RSA_SLOW_BITS)
		certs_say(r, DIAG_WARNING, "the RSA key in %s has %u bits: handshakes are slow, a "
		    "P-256 key is as strong and ten times faster", c->key_file, c->key_bits);
	if (c->key_type == BR_KEYTYPE_RSA && c->key_bits < RSA_WEAK_BITS)
		certs_say(r, DIAG_WARNING, "the RSA key in %s has only %u bits: clients will "
		    "refuse it", c->key_file, c->key_bits);
	if (c->key_type == BR_KEYTYPE_EC && c->ec.curve == BR_EC_secp521r1)
		certs_say(r, DIAG_WARNING, "the key in %s is on P-521, which few clients take; "
		    "use P-256", c->key_file);
}

/* Makes c from the texts of its two files (one file: the same text). */
static bool
cert_read(const struct certs_reader *r, struct cert *c, struct slice cert_text,
    struct slice key_text)
{
	struct pem key;

	if (!cert_chain(r, c, cert_text) || !cert_key_find(r, c, key_text, &key) ||
	    !cert_key(r, c, key.der) || !cert_leaf(r, c))
		return false;
	cert_pem(r->a, c, &key);
	cert_judge(r, c);
	return true;
}

/* 2: c names it; 1: a wildcard of c does, for its first label; 0: neither. RFC 6125 6.4.3. */
static int
cert_covers(const struct cert *c, struct slice name)
{
	struct slice left = name, label, wild;
	int found = 0;

	if (!slice_cut(&left, '.', &label) || label.n == 0)
		left = S("");
	for (int i = 0; i < c->names.n; i++) {
		if (slice_eq(c->names.v[i], name))
			return 2;
		wild = c->names.v[i];
		if (left.n > 0 && slice_starts(wild, S("*.")) &&
		    slice_eq(slice_from(wild, 2), left))
			found = 1;
	}
	return found;
}

/* ---- files ---- */

static bool
cert_file_read(const struct certs_reader *r, const char *file, struct slice *out)
{
	const char *why = file_read(r->a, file, CERT_FILE_MAX, out);

	return !why || certs_say(r, DIAG_ERROR, "cannot read %s: %s", file, why);
}

/* Both files of c. */
static bool
cert_load(const struct certs_reader *r, struct cert *c)
{
	struct slice cert, key;
	struct stat st;

	if (!cert_file_read(r, c->cert_file, &cert))
		return false;
	key = cert;
	if (strcmp(c->cert_file, c->key_file) != 0 && !cert_file_read(r, c->key_file, &key))
		return false;
	if (!cert_read(r, c, cert, key))
		return false;
	if (stat(c->key_file, &st) == 0 && (st.st_mode & (S_IRWXG | S_IRWXO)))
		certs_say(r, DIAG_WARNING, "the key in %s can be read by others; chmod 600 %s",
		    c->key_file, c->key_file);
	return true;
}

static void
certs_free(struct cert_set *set)
{
	if (!set)
		return;
	arena_free(&set->arena);
	free(set);
}

static struct cert_set *
certs_new(struct arena **a, int room)
{
	struct cert_set *set = xcalloc(1, sizeof *set);

	*a = &set->arena;
	set->v = arena_alloc(&set->arena, (size_t)room * sizeof *set->v);
	return set;
}

/* The next certificate of set, not counted in n yet; copies the file names. */
static struct cert *
certs_add(struct cert_set *set, enum cert_origin origin, const char *cert, const char *key)
{
	struct cert *c = &set->v[set->n];

	*c = (struct cert){ .origin = origin };
	c->cert_file = arena_dup(&set->arena, slice_of(cert)).p;
	c->key_file = arena_dup(&set->arena, slice_of(key)).p;
	return c;
}

/* Where c comes from, in words. */
static const char *
cert_name(const struct cert *c)
{
	return c->cert_file ? c->cert_file : "the one that warp has signed itself";
}

/* Warns of two certificates of one key type for one name: the second is not used. */
static void
certs_twins(struct certs_reader *r, const struct cert_set *set)
{
	for (int i = 1; i < set->n; i++)
		for (int k = 0; k < i; k++) {
			const struct cert *c = &set->v[i], *first = &set->v[k];
			int same = 0;
			while (same < c->names.n && cert_covers(first, c->names.v[same]) < 2)
				same++;
			r->pair = c->origin == CERT_FILE ? i : -1;
			if (same < c->names.n && c->key_type == first->key_type)
				certs_say(r, DIAG_WARNING, "%s and %s are both for %s: the first "
				    "is used", cert_name(first), cert_name(c), c->names.v[same].p);
		}
}

/* How many of the names c is for. */
static int
cert_covered(const struct cert *c, const struct slices *names)
{
	int n = 0;

	for (int i = 0; i < names->n; i++)
		n += cert_covers(c, names->v[i]) == 2;
	return n;
}

/* Whether c is for these names and no others. */
static bool
cert_is_for(const struct cert *c, const struct slices *names)
{
	return cert_covered(c, names) == names->n && c->names.n == names->n;
}

/* The file of the certificate by ACME, key and chain in one. */
static const char *
acme_file(struct arena *a, const struct tls_conf *t)
{
	return arena_fmt(a, "%s/%s.pem", t->acme_dir, t->domains.v[0].p);
}

/* Adds the certificate by ACME if it has any of the names. True: it has all. */
static bool
certs_acme(struct certs_reader *r, struct cert_set *set, const struct tls_conf *t)
{
	const char *file = acme_file(r->a, t);
	struct cert *c = certs_add(set, CERT_ACME, file, file);
	bool good;

	if (access(file, F_OK) < 0 && errno == ENOENT)
		return false;
	r->mild = true;
	good = cert_load(r, c);
	if (good && !cert_is_for(c, &t->domains))
		certs_say(r, DIAG_WARNING, "%s is not for exactly the names of tls.domains: a "
		    "new one will be asked for", file);
	r->mild = false;
	if (!good || cert_covered(c, &t->domains) == 0)
		return false;
	set->n++;
	return cert_covered(c, &t->domains) == t->domains.n;
}

/* Adds a self-signed certificate, until there is one by ACME. */
static bool
certs_made(const struct certs_reader *r, struct cert_set *set, const struct tls_conf *t)
{
	struct cert *c = certs_add(set, CERT_MADE, "what warp signs itself",
	    "what warp signs itself");
	const char *why;
	struct slice pem;

	if ((why = cert_make_pem(r->a, &t->domains, NULL, &pem)))
		return certs_say(r, DIAG_ERROR, "no certificate can be made for %s: %s",
		    t->domains.v[0].p, why);
	if (!cert_read(r, c, pem, pem))
		return false;
	c->cert_file = c->key_file = NULL;
	set->n++;
	return true;
}

/* All certificates of t; NULL: one is bad, or none. say gets the pair; -1: by ACME. */
static struct cert_set *
certs_load(const struct tls_conf *t,
    void (*say)(void *to, enum diag_level level, int pair, const char *text), void *to)
{
	struct certs_reader r = { .say = say, .to = to };
	struct cert_set *set = certs_new(&r.a, t->n_files + 2);
	bool good = true;

	for (; r.pair < t->n_files; r.pair++) {
		const struct cert_files *f = &t->files[r.pair];
		struct cert *c = certs_add(set, CERT_FILE, f->cert, f->key);
		if (cert_load(&r, c))
			set->n++;
		else
			good = false;
	}
	r.pair = -1;
	if (good && t->domains.n > 0 && !certs_acme(&r, set, t))
		good = certs_made(&r, set, t);
	if (good && set->n == 0 && t->domains.n == 0)
		good = certs_say(&r, DIAG_ERROR, "there is no certificate");
	if (good) {
		certs_twins(&r, set);
		return set;
	}
	certs_free(set);
	return NULL;
}

/* A set of one certificate, for connections to upstreams. */
static struct cert_set *
certs_pair(const char *cert, const char *key,
    void (*say)(void *to, enum diag_level level, int pair, const char *text), void *to)
{
	struct cert_files f = { .cert = cert, .key = key };
	struct tls_conf t = { .files = &f, .n_files = 1 };

	return certs_load(&t, say, to);
}

/* A hash that changes when a file that t names has changed. */
static uint64_t
certs_print(const struct tls_conf *t)
{
	struct arena a = { NULL };
	uint64_t h = 1;

	for (int i = 0; i <= 2 * t->n_files; i++) {
		const char *file = i == 2 * t->n_files
		    ? (t->domains.n > 0 ? acme_file(&a, t) : NULL)
		    : i % 2 ? t->files[i / 2].key : t->files[i / 2].cert;
		struct stat st;
		if (file && stat(file, &st) == 0) {
			int64_t of[] = { i, (int64_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
				(int64_t)st.st_size, (int64_t)st.st_ino };
			h = hash64(h, of, sizeof of);
		}
	}
	arena_free(&a);
	return h;
}

/* ---- from the master to workers, which may not open the files ---- */

/* For each certificate a line (origin, three lengths), then file names and PEM. */
static struct slice
certs_pack(const struct cert_set *set, struct arena *a)
{
	struct text t = { NULL, 0, sizeof CERT_PACK_MARK, false };

	for (int i = 0; i < set->n; i++)
		t.cap += 4 * sizeof "18446744073709551615" + slice_of(set->v[i].cert_file).n +
		    slice_of(set->v[i].key_file).n + set->v[i].pem.n;
	t.p = arena_alloc(a, ++t.cap);
	text_str(&t, CERT_PACK_MARK "\n");
	for (int i = 0; i < set->n; i++) {
		const struct cert *c = &set->v[i];
		text_fmt(&t, "%d %zu %zu %zu\n", (int)c->origin, slice_of(c->cert_file).n,
		    slice_of(c->key_file).n, c->pem.n);
		text_str(&t, c->cert_file);
		text_str(&t, c->key_file);
		text_add(&t, c->pem);
	}
	return text_slice(&t);
}

/* Takes n bytes off the front of *rest. */
static bool
slice_take(struct slice *rest, int64_t n, struct slice *out)
{
	if (n < 0 || (uint64_t)n > rest->n)
		return false;
	*out = (struct slice){ rest->p, (size_t)n };
	*rest = slice_from(*rest, (size_t)n);
	return true;
}

/* One certificate off the front of *rest. */
static bool
cert_unpack(struct certs_reader *r, struct slice *rest, struct cert *c)
{
	struct slice line, word, cert, key, pem;
	int64_t v[4];

	if (!slice_cut(rest, '\n', &line) || !rest->p)
		return false;
	for (size_t i = 0; i < LEN(v); i++)
		if (!slice_cut(&line, ' ', &word) || (v[i] = slice_uint(word, INT32_MAX)) < 0)
			return false;
	if (line.p || v[0] > CERT_MADE || !slice_take(rest, v[1], &cert) ||
	    !slice_take(rest, v[2], &key) || !slice_take(rest, v[3], &pem))
		return false;
	c->origin = (enum cert_origin)v[0];
	c->cert_file = cert.n > 0 ? arena_dup(r->a, cert).p : NULL;
	c->key_file = key.n > 0 ? arena_dup(r->a, key).p : NULL;
	return cert_read(r, c, pem, pem);
}

/* The set that was packed; NULL: packed is none. */
static struct cert_set *
certs_unpack(struct slice packed)
{
	struct certs_reader r = { .say = NULL };
	struct slice mark, rest = packed;
	struct cert_set *set;
	bool good = slice_cut(&rest, '\n', &mark) && slice_eq(mark, S(CERT_PACK_MARK)) && rest.p;
	size_t room = good ? pem_count(rest) : 0;

	if (!good)
		return NULL;
	set = certs_new(&r.a, (int)MIN(room, (size_t)INT_MAX) + 1);
	while (good && rest.n > 0 && (size_t)set->n <= room)
		if ((good = cert_unpack(&r, &rest, &set->v[set->n])))
			set->n++;
	if (good && rest.n == 0 && set->n > 0)
		return set;
	certs_free(set);
	return NULL;
}

/* Whether old has a certificate by ACME, and new has none. */
static bool
certs_are_less(const struct cert_set *old, const struct cert_set *new)
{
	bool had = false;

	for (int i = 0; i < old->n; i++)
		had |= old->v[i].origin == CERT_ACME;
	for (int i = 0; i < new->n; i++)
		had &= new->v[i].origin != CERT_ACME;
	return had;
}

/* set or, if only old has a certificate by ACME for domains, a new set with it added. */
static struct cert_set *
certs_keep(struct cert_set *set, const struct cert_set *old, const struct slices *domains)
{
	struct arena a = { NULL };
	struct cert_set both = { .n = 0 }, *joined;

	if (!set || !old || domains->n == 0 || !certs_are_less(old, set))
		return set;
	both.v = arena_alloc(&a, (size_t)(old->n + set->n) * sizeof *both.v);
	for (int i = 0; i < set->n; i++)
		if (set->v[i].origin == CERT_FILE)
			both.v[both.n++] = set->v[i];
	for (int i = 0; i < old->n; i++)
		if (old->v[i].origin == CERT_ACME && cert_covered(&old->v[i], domains) > 0)
			both.v[both.n++] = old->v[i];
	for (int i = 0; i < set->n; i++)
		if (set->v[i].origin != CERT_FILE)
			both.v[both.n++] = set->v[i];
	joined = both.n > set->n ? certs_unpack(certs_pack(&both, &a)) : NULL;
	arena_free(&a);
	if (!joined)
		return set;
	certs_free(set);
	return joined;
}

/* ==== trust ==================================================================
 * Owns    nothing: anchors are in the caller's arena.
 * Offers  trust_load.
 * Calls   base, arena, walk, pem, certs, BearSSL. */

#define TRUST_FILE_MAX 8388608
#define TRUST_DN_MAX   2048

/* Where systems keep the certificates that they trust. */
static const char *const trust_files[] = {
	"/etc/ssl/certs/ca-certificates.crt", /* Debian, Alpine, OpenWrt */
	"/etc/ssl/cert.pem",                  /* Alpine, BSD */
	"/etc/pki/tls/certs/ca-bundle.crt",   /* Red Hat */
};

/* A distinguished name that the decoder hands out in pieces. */
static void
trust_dn(void *to, const void *p, size_t n)
{
	text_add(to, (struct slice){ p, n });
}

/* Makes der an anchor; false: BearSSL cannot use it. */
static bool
trust_add(struct arena *a, struct slice der, br_x509_trust_anchor *out)
{
	br_x509_decoder_context d;
	char name[TRUST_DN_MAX];
	struct text dn = { name, 0, sizeof name, false };
	const br_x509_pkey *pk;

	br_x509_decoder_init(&d, trust_dn, &dn);
	br_x509_decoder_push(&d, der.p, der.n);
	if (!(pk = br_x509_decoder_get_pkey(&d)) || dn.full)
		return false;
	*out = (br_x509_trust_anchor){ .pkey = *pk };
	out->dn.data = (unsigned char *)(uintptr_t)arena_dup(a, text_slice(&dn)).p;
	out->dn.len = dn.n;
	out->flags = br_x509_decoder_isCA(&d) ? BR_X509_TA_CA : 0;
	if (pk->key_type == BR_KEYTYPE_EC) {
		out->pkey.key.ec.q = (unsigned char *)(uintptr_t)arena_dup(a,
		    (struct slice){ (char *)pk->key.ec.q, pk->key.ec.qlen }).p;
		return curve_bits(pk->key.ec.curve) > 0;
	}
	out->pkey.key.rsa.n = number_dup(a, pk->key.rsa.n, &out->pkey.key.rsa.nlen);
	out->pkey.key.rsa.e = number_dup(a, pk->key.rsa.e, &out->pkey.key.rsa.elen);
	return true;
}

/* Reads file (NULL: the system's own) into *out. NULL, or why not. */
static const char *
trust_load(struct arena *a, const char *file, struct trust **out)
{
	struct arena scratch = { NULL };
	struct trust *t = arena_alloc(a, sizeof *t);
	struct slice text = S("");
	const char *why = NULL;
	struct pem o;
	int got;

	for (size_t i = 0; !file && i < LEN(trust_files); i++)
		if (access(trust_files[i], R_OK) == 0)
			file = trust_files[i];
	if (!file)
		return "this host has no bundle of trusted certificates; install ca-certificates "
		    "or name a file";
	t->file = arena_dup(a, slice_of(file)).p;
	if ((why = file_read(&scratch, file, TRUST_FILE_MAX, &text)))
		why = arena_fmt(a, "cannot read %s: %s", file, why);
	t->v = arena_alloc(a, pem_count(text) * sizeof *t->v);
	while ((got = pem_next(&scratch, &text, &o)) > 0)
		if (pem_is_cert(&o) && trust_add(a, o.der, &t->v[t->n]))
			t->n++;
	if (!why && got < 0)
		why = arena_fmt(a, "%s is damaged: '%.*s' in it has no end or is no base64", file,
		    (int)MIN(o.name.n, (size_t)40), o.name.p);
	else if (!why && t->n == 0)
		why = arena_fmt(a, "%s holds no certificate that can be used (PEM)", file);
	arena_free(&scratch);
	*out = t;
	return why;
}

/* ==== keys ===================================================================
 * Owns    nothing: tables of every section and key, the operator's vocabulary.
 * Offers  sections[], key_find.
 * Calls   base. Parsing, presets, ranges, the environment, `-D`, the manual's
 *         tables and /config come from these rows: a new setting is one row
 *         and one field of a struct. */

static const struct kind {
	const char *name; /* what errors and the manual call it */
	enum key_words words;
} kinds[KINDS] = {
	[K_BOOL] = { "true or false", ONE_VALUE },
	[K_INT] = { "a number", ONE_VALUE },
	[K_BYTES] = { "a number of bytes", ONE_VALUE },
	[K_SECS] = { "a number of seconds", ONE_VALUE }, /* kept as ms */
	[K_MODE] = { "a file mode such as 0o660", ONE_TEXT },
	[K_CHOICE] = { "one of", ONE_TEXT }, /* of key.words; kept as its index there */
	[K_SINK] = { "stdout, stderr, syslog, off or a file", ONE_TEXT },
	[K_SIGNAL] = { "a value", NO_WORDS }, /* its name or number */
	[K_TEXT] = { "a text", ONE_TEXT },
	[K_SECRET] = { "a text", ONE_TEXT }, /* never shown; not empty */
	[K_PATH] = { "a path", ONE_TEXT }, /* from the file's directory */
	[K_TEXTS] = { "a list of texts", A_LIST },
	[K_NAMES_OF_FILES] = { "a name or a list of names", A_LIST },
	[K_TYPES] = { "a table of extensions and types", NO_WORDS }, /* { ext = "type" } */
	[K_ADDRS] = { "a list of addresses", A_LIST },
	[K_CIDRS] = { "a list of networks", A_LIST },
	[K_NAMES] = { "a list of header names", A_LIST },
	[K_FIELDS] = { "a list of { name, value }", NO_WORDS }, /* to be set */
	[K_MATCHES] = { "{ name, value } or a list of them", NO_WORDS }, /* fields to look for */
	[K_PAIRS] = { "{ name, value } or a list of them", NO_WORDS }, /* of anything */
	[K_USERS] = { "a table of users and passwords", NO_WORDS }, /* { user = "hash" } */
	[K_ENV] = { "a value", NO_WORDS }, /* { NAME = value } */
	[K_STATUSES] = { "a value", NO_WORDS }, /* its reader sets it */
	[K_TABLE] = { "a table", NO_WORDS }, /* a section of its own */
	[K_TABLES] = { "a list of tables", NO_WORDS }, /* their reader looks into them */
	[K_OWN] = { "a table", NO_WORDS }, /* its reader looks into it */
	[K_ANY] = { "a value", NO_WORDS }, /* its reader looks at it */
};

#define AT(type, field) offsetof(type, field), sizeof(((type *)NULL)->field)
#define KEY(name, kind, at, preset, min, max, help) \
	{ name, kind, NOW, at, preset, min, max, NULL, SEC_ROOT, help }
#define PLAIN(name, kind, at, preset, help) \
	{ name, kind, NOW, at, preset, 0, 0, NULL, SEC_ROOT, help }
#define FLAG(name, at, preset, help) \
	{ name, K_BOOL, NOW, at, preset, 0, 1, NULL, SEC_ROOT, help }
#define TEXT(name, at, preset, help) \
	{ name, K_TEXT, NOW, at, preset, 0, 0, NULL, SEC_ROOT, help }
#define PATH(name, at, help) { name, K_PATH, NOW, at, NULL, 0, 0, NULL, SEC_ROOT, help }
#define SECS(name, at, preset, help) \
	{ name, K_SECS, NOW, at, preset, SECS_MIN, SECS_MAX, NULL, SEC_ROOT, help }
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
#define OBJECT_BYTES_MAX 268435456 /* half of what Redis takes */
#define PORT_PRESET     8080

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
	PLAIN("mime", K_TYPES, AT(struct conf, types), NULL,
	    "The section [mime]: types of files by extension, such as md = \"text/markdown\"."),
	SOON("installation_mode", K_TEXT, LATER, NULL, NULL, "Fujin: how it is installed."),
};

#define SERVER(field) AT(struct server_read, field)
static const struct key server_keys[] = {
	KEY("http_port", K_INT, SERVER(http_port), NULL, 1, PORT_MAX,
	    "Port to listen on, at every interface; 8080 if nothing else listens."),
	KEY("https_port", K_INT, SERVER(https_port), NULL, 1, PORT_MAX,
	    "Port for TLS; not bound unless [tls] is enabled."),
	PLAIN("listen", K_ADDRS, SERVER(listen), NULL,
	    "Addresses to listen on; https://... for TLS."),
	PLAIN("https_listen", K_ADDRS, SERVER(https_listen), NULL,
	    "Addresses to listen on for TLS; not bound unless [tls] is enabled."),
	KEY("worker_threads", K_INT, SERVER(out.workers), "1", 1, WORKERS_MAX,
	    "Worker processes; one for each core is plenty."),
	TEXT("user", SERVER(out.user), NULL, "User that workers run as."),
	TEXT("group", SERVER(out.group), NULL,
	    "Group that workers run as; that of user if not said."),
	PATH("chroot", SERVER(out.chroot), "Directory that workers are locked into."),
	KEY("max_connections", K_INT, SERVER(out.max_connections), "1024", 1, CLIENTS_MAX,
	    "Clients at one time, all workers together; more wait in the backlog."),
	SECS("header_timeout_secs", SERVER(out.header_ms), "10",
	    "A request's head must be complete in this time."),
	SECS("body_timeout_secs", SERVER(out.body_ms), "60",
	    "Longest wait between two reads of a request's body."),
	SECS("keepalive_timeout_secs", SERVER(out.keepalive_ms), "75",
	    "A client connection is closed after being idle for this long."),
	KEY("keepalive_requests", K_INT, SERVER(out.keepalive_requests), "10000", 1, INT32_MAX,
	    "Requests on one client connection."),
	SECS("write_timeout_secs", SERVER(out.write_ms), "60",
	    "Longest wait between two writes to a client."),
	KEY("tunnel_timeout_secs", K_SECS, SERVER(out.tunnel_ms), "3600", SECS_MIN, TUNNEL_SECS_MAX,
	    "A WebSocket or other tunnel is closed after being idle for this long."),
	SECS("shutdown_timeout_secs", SERVER(out.shutdown_ms), "30",
	    "When draining, requests still running after this are cut."),
	KEY("max_header_bytes", K_BYTES, SERVER(out.max_header_bytes), "16384", HEADER_BYTES_MIN,
	    HEADER_BYTES_MAX, "Longest head of a request (431 beyond) or response (502 beyond)."),
	KEY("max_body_bytes", K_BYTES, SERVER(out.max_body_bytes), "0", 0, LIMIT_MAX,
	    "Longest request body (413 beyond); 0: no limit."),
	PLAIN("trusted_proxies", K_CIDRS, SERVER(out.trusted), NULL,
	    "Peers whose X-Forwarded-* and Forwarded are believed; others' are replaced."),
	FLAG("proxy_protocol", SERVER(out.proxy_protocol), "false",
	    "Clients start with a PROXY header, v1 or v2."),
	PLAIN("admin_token", K_SECRET, SERVER(out.admin_token), NULL,
	    "What X-Admin-Token must be on routes with require_auth."),
	KEY("no_route_status", K_INT, SERVER(out.no_route_status), "502", 400, 599,
	    "Answer to a request that no route takes."),
	FLAG("request_id", SERVER(out.request_id), "true",
	    "Send X-Request-Id upstream: a trusted proxy's own, else a new one."),
	KEY("socket_mode", K_MODE, SERVER(out.socket_mode), "0660", 0, MODE_MAX,
	    "Mode of unix sockets that are listened on."),
	FLAG("show_errors", SERVER(out.show_errors), "false",
	    "Say the cause in the pages of 502, 503 and 504."),
	PATH("error_dir", SERVER(out.error_dir),
	    "Directory of NNN.html and NNN.json, served for warp's own errors."),
	FLAG("server_tokens", SERVER(out.server_tokens), "false",
	    "Name warp and its version in answers of its own."),
};

#define PLACE_KEYS(type, in) \
	TEXT("host", AT(type, in host), NULL, "Name or address of the backend."), \
	KEY("port", K_INT, AT(type, in port), NULL, 1, PORT_MAX, "Its port."), \
	TEXT("socket", AT(type, in socket), NULL, "Its unix socket, instead."), \
	TEXT("url", AT(type, in url), NULL, \
	    "Its address as http://, https://, ws:// or wss://, instead.")

#define UPSTREAM(field) AT(struct upstream_read, field)
static const struct key upstream_keys[] = {
	PLACE_KEYS(struct upstream_read, place.),
	SUB("instances", K_TABLES, NOW, SEC_INSTANCE, "Several backends, instead."),
	TEXT("strategy", UPSTREAM(strategy), "round_robin",
	    "How an instance is picked: round_robin (smooth, weighted), weighted (at random), "
	    "least_conn, random, random_two, ip_hash, uri_hash, header_hash, cookie, "
	    "least_time, first."),
	TEXT("hash_header", UPSTREAM(out.hash_header), NULL,
	    "Header field of strategy header_hash."),
	TEXT("sticky_cookie", UPSTREAM(out.sticky_cookie), "warp_instance",
	    "Cookie of strategy cookie."),
	WORDS("protocol", K_CHOICE, UPSTREAM(protocol), "http",
	    "http https uwsgi", "What is spoken to the backend. Later: uwsgi."),
	SOON("modifier1", K_INT, LATER_OFF, "0", NULL, "Of the uwsgi packet."),
	SOON("modifier2", K_INT, LATER_OFF, "0", NULL, "Of the uwsgi packet."),
	SOON("params", K_ANY, LATER, NULL, NULL, "Variables added to the uwsgi packet."),
	KEY("keepalive", K_INT, UPSTREAM(out.keepalive), "32", 0, CLIENTS_MAX,
	    "Idle connections kept for each instance, in each worker."),
	SECS("keepalive_timeout_secs", UPSTREAM(out.keepalive_ms), "60",
	    "An idle connection is closed after this long."),
	SECS("connect_timeout_secs", UPSTREAM(out.connect_ms), "5",
	    "Longest wait for a connection."),
	SECS("read_timeout_secs", UPSTREAM(out.read_ms), "60",
	    "Longest silence before the answer and inside it."),
	SECS("write_timeout_secs", UPSTREAM(out.write_ms), "60",
	    "Longest wait between two writes of the request."),
	KEY("retries", K_INT, UPSTREAM(out.retries), "2", 0, RETRIES_MAX,
	    "Further instances tried for one request."),
	KEY("hold_secs", K_SECS, UPSTREAM(out.hold_ms), NULL, 0, SECS_MAX,
	    "A request waits this long for an instance to come up; 0, or 10 where there are processes."),
	KEY("max_fails", K_INT, UPSTREAM(out.max_fails), "3", 0, INT32_MAX,
	    "Failures within fail_timeout_secs that leave an instance out; 0: none do."),
	SECS("fail_timeout_secs", UPSTREAM(out.fail_ms), "10",
	    "How long it is left out; then one request is its trial."),
	WORDS("proxy_protocol", K_CHOICE, UPSTREAM(out.proxy_out), "off", "off v1 v2",
	    "Start each connection with a PROXY header."),
	TEXT("host_header", UPSTREAM(host_header), "preserve",
	    "Host sent upstream: preserve (the client's), upstream (the backend's), or a text."),
	KEY("slow_start_secs", K_SECS, UPSTREAM(out.slow_start_ms), "0", 0, SECS_MAX,
	    "An instance that comes back gets its share over this time."),
	PATH("maintenance", UPSTREAM(out.maintenance),
	    "A file: while it exists it is the answer, with 503."),
	SOON("subscription", K_TEXT, LATER, NULL, NULL,
	    "Subscription server whose nodes are the instances."),
	SUB("tls", K_TABLE, NOW, SEC_UPSTREAM_TLS, "TLS toward https backends."),
	SUB("health", K_TABLE, NOW, SEC_HEALTH, "Probes."),
	SUB("process", K_OWN, NOW, SEC_UPSTREAM_PROCESS, "The program behind it, supervised."),
};

static const struct key instance_keys[] = {
	PLACE_KEYS(struct place, ),
	KEY("weight", K_INT, AT(struct place, weight), "1", 1, WEIGHT_MAX,
	    "Its share of the requests."),
	FLAG("backup", AT(struct place, backup), "false", "Used only when no other can be asked."),
	KEY("max_connections", K_INT, AT(struct place, max_connections), "0", 0, CLIENTS_MAX,
	    "Requests at one time, of all workers; more wait. 0: no limit."),
};

static const struct key upstream_tls_keys[] = {
	FLAG("verify", UPSTREAM(out.tls.verify), "true",
	    "Refuse a backend whose certificate is not good, or not for its name."),
	PATH("ca_file", UPSTREAM(ca_file),
	    "Whom to trust for that, PEM; the system's bundle if not said."),
	TEXT("server_name", UPSTREAM(out.tls.server_name), NULL,
	    "Name to ask for (SNI) and to check; the instance's host if not said."),
	PATH("cert", UPSTREAM(cert), "Certificate chain to show to the backend, PEM."),
	PATH("key", UPSTREAM(key), "Its key, PEM; in the file of cert if not said."),
};

static const struct key health_keys[] = {
	TEXT("path", UPSTREAM(out.health.path), NULL, "What to ask for; none: only connect."),
	SECS("interval_secs", UPSTREAM(out.health.interval_ms), "10", "Time between probes."),
	SECS("timeout_secs", UPSTREAM(out.health.timeout_ms), "2", "A probe fails after this."),
	KEY("unhealthy_threshold", K_INT, UPSTREAM(out.health.unhealthy), "3", 1, INT32_MAX,
	    "Failures in a row: down."),
	KEY("healthy_threshold", K_INT, UPSTREAM(out.health.healthy), "2", 1, INT32_MAX,
	    "Passes in a row: up."),
	{ "expect_status", K_STATUSES, NOW, 0, 0, "200-399", 0, 0, NULL, SEC_ROOT,
	    "What passes: a status, a range such as \"200-399\", or a list of these." },
	TEXT("host", UPSTREAM(out.health.host), NULL, "Host of the probe; its address if not said."),
	TEXT("method", UPSTREAM(out.health.method), "GET", "Method of the probe."),
	KEY("port", K_INT, UPSTREAM(out.health.port), NULL, 1, PORT_MAX, "Another port to probe."),
	FLAG("jitter", UPSTREAM(out.health.jitter), "true", "Spread probes in time."),
};

#define PROCESS(field) AT(struct process_read, field)
static const struct key process_keys[] = {
	TEXT("command", PROCESS(command), NULL,
	    "The program; without args split into words as a shell would, but no shell is run."),
	PLAIN("args", K_TEXTS, PROCESS(args), NULL,
	    "Its arguments; {index}, {port} and {socket} are filled in."),
	PLAIN("env", K_ENV, PROCESS(out.env), NULL,
	    "A table added to its environment; {index}, {port} and {socket} as in args."),
	PATH("envfile", PROCESS(out.envfile),
	    "A file of NAME=value lines (systemd's format); env wins over it."),
	PATH("dir", PROCESS(out.dir),
	    "Directory to start in; the configuration file's if not said."),
	TEXT("user", PROCESS(out.user), NULL, "User to run as."),
	TEXT("group", PROCESS(out.group), NULL, "Group to run as; that of user if not said."),
	KEY("replicas", K_INT, PROCESS(out.replicas), "1", 1, PROCS_MAX,
	    "How many to run; each is an instance of its upstream."),
	PLAIN("depends_on", K_TEXTS, PROCESS(depends_on), NULL,
	    "Started when these processes are ready, stopped before them."),
	WORDS("restart", K_CHOICE, PROCESS(out.restart), "always", "always on_failure never",
	    "When to start it again after it ended."),
	SECS("backoff_secs", PROCESS(out.backoff_ms), "0.5",
	    "Wait before that, doubling; after 10 s up it starts over."),
	SECS("backoff_max_secs", PROCESS(out.backoff_max_ms), "30", "Longest wait."),
	PLAIN("stop_signal", K_SIGNAL, PROCESS(out.stop_signal), "TERM",
	    "How its process group is told to stop: a signal's name or number."),
	SECS("stop_timeout_secs", PROCESS(out.stop_ms), "10", "The group is killed after this."),
	WORDS("ready", K_CHOICE, PROCESS(out.ready), "listen", "listen health exec",
	    "It is ready when its instance accepts, when its health checks pass, or at once."),
	SECS("ready_timeout_secs", PROCESS(out.ready_ms), "60",
	    "Not ready by then: stopped, and started again."),
	TEXT("log", PROCESS(log), "prefix",
	    "Its output: prefix (lines on warp's stderr, with its name), a file, syslog, null."),
	SUB("limits", K_TABLE, NOW, SEC_LIMITS, "Resource limits."),
	FLAG("oneshot", PROCESS(out.oneshot), "false",
	    "Run to success once, before what depends on it."),
	WORDS("start_on", K_CHOICE, PROCESS(out.start_on), "boot", "boot request",
	    "Started with warp, or by the first request for its upstream."),
	KEY("idle_stop_secs", K_SECS, PROCESS(out.idle_stop_ms), "0", 0, SECS_MAX,
	    "With start_on = \"request\": stopped after so long without a request; 0: never."),
	SOON("subscribe_to", K_TEXTS, LATER, NULL, NULL, "Subscription servers to announce to."),
	SOON("shared_sockets", K_ANY, LATER, NULL, NULL, "Numbers of [[shared_sockets]] it gets."),
};

static const struct key limits_keys[] = {
	KEY("nofile", K_INT, PROCESS(out.nofile), NULL, 1, LIMIT_MAX, "Open files."),
	KEY("as_bytes", K_BYTES, PROCESS(out.as_bytes), NULL, 1, LIMIT_MAX, "Address space."),
	KEY("core", K_BYTES, PROCESS(out.core), NULL, 0, LIMIT_MAX, "Core file; 0: none."),
};

#define ROUTE(field) AT(struct route_read, field)
static const struct key route_keys[] = {
	TEXT("host", ROUTE(host), NULL,
	    "Condition: the host, without port; *.example.com: any below it."),
	TEXT("path_prefix", ROUTE(path[PATH_PREFIX]), NULL,
	    "Condition: the path starts with this text; a * at its end is ignored."),
	TEXT("path_exact", ROUTE(path[PATH_EXACT]), NULL, "Condition: the path is this text."),
	TEXT("path_regex", ROUTE(path[PATH_REGEX]), NULL,
	    "Condition: a POSIX extended regular expression matches in the path."),
	PLAIN("methods", K_TEXTS, ROUTE(methods), NULL,
	    "Condition: one of these methods; GET includes HEAD."),
	PLAIN("header", K_MATCHES, ROUTE(out.headers), NULL,
	    "Condition: a header field { name, value }, or all of a list; value \"*\": any."),
	PLAIN("query", K_PAIRS, ROUTE(out.queries), NULL,
	    "Condition: a query parameter { name, value }, or all of a list; value \"*\": any."),
	PLAIN("client", K_CIDRS, ROUTE(out.clients), NULL, "Condition: the client's address is here."),
	TEXT("upstream", ROUTE(upstream), NULL, "Action: this upstream answers."),
	TEXT("redirect", ROUTE(out.redirect), NULL,
	    "Action: redirect to this; {host}, {uri} and {path} are the request's."),
	KEY("status", K_INT, ROUTE(out.status), "308", 301, 308,
	    "Of redirect: 301, 302, 303, 307 or 308."),
	SUB("respond", K_TABLE, NOW, SEC_RESPOND,
	    "Action: answer with { status, body, content_type }."),
	PATH("static_dir", ROUTE(out.files.dir), "Action: serve the files below this directory."),
	PLAIN("index", K_NAMES_OF_FILES, ROUTE(out.files.index), "index.html",
	    "Files served for a directory: the first that is there."),
	TEXT("fallback", ROUTE(out.files.fallback), NULL,
	    "File of static_dir served where there is none, such as /index.html."),
	FLAG("listing", ROUTE(out.files.listing), "false", "List directories without an index."),
	FLAG("dot_files", ROUTE(out.files.dot_files), "false",
	    "Serve names that begin with a dot; else only .well-known."),
	TEXT("cache_control", ROUTE(out.files.cache_control), NULL, "Cache-Control of files."),
	FLAG("strip_prefix", ROUTE(out.strip_prefix), "false",
	    "The upstream, or static_dir, sees the path without what matched."),
	TEXT("rewrite", ROUTE(out.rewrite), NULL,
	    "This replaces what matched; $1 to $9 are groups of path_regex."),
	PLAIN("add_headers", K_FIELDS, ROUTE(out.add_headers), NULL,
	    "[{ name, value }] set on the request upstream."),
	PLAIN("remove_headers", K_NAMES, ROUTE(out.remove_headers), NULL,
	    "Names removed from the request upstream."),
	PLAIN("add_response_headers", K_FIELDS, ROUTE(out.add_response_headers), NULL,
	    "[{ name, value }] set on the response."),
	PLAIN("remove_response_headers", K_NAMES, ROUTE(out.remove_response_headers), NULL,
	    "Names removed from the response."),
	SECS("read_timeout_secs", ROUTE(out.read_ms), NULL, "Instead of the upstream's."),
	SECS("connect_timeout_secs", ROUTE(out.connect_ms), NULL, "Instead of the upstream's."),
	SECS("write_timeout_secs", ROUTE(out.write_ms), NULL, "Instead of the upstream's."),
	FLAG("require_auth", ROUTE(out.require_auth), "false",
	    "401 unless X-Admin-Token is server.admin_token; it is not forwarded."),
	PLAIN("basic_auth", K_USERS, ROUTE(out.basic_auth), NULL,
	    "{ user = \"crypt(3) hash or text\" }: 401 for anybody else."),
	KEY("max_body_bytes", K_BYTES, ROUTE(out.max_body_bytes), NULL, 0, LIMIT_MAX,
	    "Instead of the server's; 0: no limit."),
	SUB("rate_limit", K_TABLE, NOW, SEC_RATE,
	    "{ requests, per_secs, burst, key }: 429 beyond."),
	KEY("buffer_request", K_BYTES, ROUTE(out.buffer_request), NULL, 0, LIMIT_MAX,
	    "The upstream sees a request when it is whole; bytes kept in memory, "
	    "the rest in a file."),
	FLAG("websocket", ROUTE(out.websocket), "true", "Let upgrades through; else 426."),
	SOON("cache", K_BOOL, LATER_OFF, NULL, NULL, "Cache answers; follows [cache]."),
	FLAG("gzip", ROUTE(out.gzip), NULL,
	    "Compress answers, or do not; middleware.gzip_compression_enabled if not said."),
	TEXT("description", ROUTE(out.description), NULL, "For people and logs."),
};

static const struct key respond_keys[] = {
	KEY("status", K_INT, ROUTE(respond_status), "200", 200, 599, "Its status."),
	TEXT("body", ROUTE(out.body), "", "Its body."),
	TEXT("content_type", ROUTE(out.content_type), "text/plain; charset=utf-8",
	    "Its Content-Type."),
};

static const struct key rate_keys[] = {
	KEY("requests", K_INT, ROUTE(out.rate.requests), NULL, 1, INT32_MAX, "So many requests"),
	SECS("per_secs", ROUTE(out.rate.per_ms), "1", "in this time."),
	KEY("burst", K_INT, ROUTE(out.rate.burst), NULL, 1, INT32_MAX,
	    "At once; as many as requests if not said."),
	WORDS("key", K_CHOICE, ROUTE(limit_key), "ip", "ip",
	    "What is counted: each client address."),
};

#define TLS(field) AT(struct tls_read, field)
static const struct key tls_keys[] = {
	FLAG("enabled", TLS(enabled), "false",
	    "Serve TLS at https_port and https_listen; true where cert, certs or domains are given."),
	PATH("cert", TLS(cert), "Certificate chain, PEM, the server's own first."),
	PATH("key", TLS(key), "Its key, PEM; in the file of cert if not said."),
	SUB("certs", K_TABLES, NOW, SEC_CERT,
	    "More of them, chosen by the name that the client asks for."),
	PLAIN("domains", K_TEXTS, TLS(domains), NULL,
	    "Names to get one certificate for, by ACME."),
	PLAIN("acme_directory", K_PATH, TLS(out.acme_dir), ACME_DIR,
	    "Where the ACME account's key and the certificate live."),
	TEXT("acme_url", TLS(out.acme_url), ACME_URL,
	    "Directory of the ACME server; Let's Encrypt's."),
	TEXT("acme_email", TLS(out.acme_email), NULL, "Contact of the account."),
	PATH("acme_ca_file", TLS(acme_ca_file),
	    "Whom to trust as ACME server, PEM; the system's bundle if not said."),
	SUB("acme_eab", K_TABLE, NOW, SEC_EAB,
	    "External account binding, for ACME servers that ask for it."),
	FLAG("redirect", TLS(out.redirect), "true", "Answer http with a redirect (308) to https."),
	KEY("hsts_secs", K_INT, TLS(out.hsts_secs), "0", 0, INT32_MAX,
	    "Send Strict-Transport-Security with this max-age; 0: do not."),
	KEY("session_cache", K_INT, TLS(out.sessions), "2048", 0, SESSIONS_MAX,
	    "Sessions remembered, by all workers together; 0: none."),
	PATH("client_ca_file", TLS(client_ca_file),
	    "Clients must show a certificate that one of these has signed, PEM."),
	WORDS("client_verify", K_CHOICE, TLS(client_verify), "require",
	    "require optional", "Whether a client may come without one."),
	FLAG("strict_sni", TLS(out.strict_sni), "false",
	    "Refuse clients that ask for a name in no certificate; else they get the first."),
	FLAG("legacy", TLS(out.legacy), "false",
	    "Also speak TLS 1.0 and 1.1, CBC and RSA key exchange, for very old clients."),
};

static const struct key cert_keys[] = {
	PATH("cert", AT(struct cert_files, cert),
	    "Certificate chain, PEM, the server's own first."),
	PATH("key", AT(struct cert_files, key), "Its key, PEM; in the file of cert if not said."),
};

static const struct key eab_keys[] = {
	TEXT("kid", TLS(out.eab_kid), NULL, "Key identifier, as the CA says it."),
	PLAIN("hmac", K_SECRET, TLS(out.eab_hmac), NULL, "Its key, base64url, as the CA says it."),
};

#define CACHE(field) AT(struct cache_conf, field)
static const struct key cache_keys[] = {
	KEY("size_bytes", K_BYTES, CACHE(size_bytes), "0", 0, LIMIT_MAX,
	    "Memory of the cache; 0: none."),
	KEY("max_object_bytes", K_BYTES, CACHE(max_object_bytes), "1048576", 1, OBJECT_BYTES_MAX,
	    "Largest answer stored."),
	PLAIN("redis_url", K_SECRET, CACHE(redis_url), NULL, "A second level in Redis: "
	    "redis://[[user]:password@]host[:port][/database], rediss:// (TLS) or unix:/path."),
	KEY("default_ttl_secs", K_SECS, CACHE(default_ttl_ms), "0", 0, SECS_MAX,
	    "For answers that say nothing."),
	KEY("stale_secs", K_SECS, CACHE(stale_ms), "0", 0, SECS_MAX,
	    "Served so long after their time."),
	KEY("redis_timeout_ms", K_INT, CACHE(redis_timeout_ms), "50", 1, REDIS_SLOW_MS,
	    "Longest wait for Redis."),
};

static const struct key postgres_keys[] = {
	SOON("url", K_SECRET, LATER, NULL, NULL, "Database to LISTEN at."),
	SOON("channel", K_TEXT, LATER, NULL, NULL, "Its channel; payloads are purged."),
	SOON("on_reconnect", K_CHOICE, LATER, "purge", "purge keep", "Messages may be missed."),
};

#define MIDDLEWARE(field) AT(struct middleware_conf, field)
static const struct key middleware_keys[] = {
	FLAG("forward_headers", MIDDLEWARE(forward_headers), "true",
	    "Send X-Forwarded-For, -Proto, -Host, -Port and X-Real-IP upstream."),
	FLAG("forwarded", MIDDLEWARE(forwarded), "false", "Send Forwarded (RFC 7239) upstream."),
	FLAG("via", MIDDLEWARE(via), "false", "Add Via in both directions."),
	FLAG("x_sendfile_enabled", MIDDLEWARE(x_sendfile), "false",
	    "Send the file that an upstream names in X-Sendfile or X-Accel-Redirect."),
	PATH("x_sendfile_root", MIDDLEWARE(sendfile.dir), "Such files lie below this directory."),
	FLAG("gzip_compression_enabled", MIDDLEWARE(gzip), "false",
	    "Compress answers with gzip, for clients that accept it."),
	KEY("gzip_min_bytes", K_BYTES, MIDDLEWARE(gzip_min), "1024", 0, LIMIT_MAX,
	    "Answers known to be shorter stay as they are."),
	PLAIN("gzip_types", K_TEXTS, MIDDLEWARE(gzip_types), GZIP_TYPES,
	    "Types that are compressed; text/* are all that begin so."),
	KEY("gzip_level", K_INT, MIDDLEWARE(gzip_level), "6", 1, 9,
	    "From 1, the least time, to 9, the fewest bytes."),
	FLAG("log_requests", MIDDLEWARE(log_requests), "false",
	    "An access log on standard output, unless log.access says where."),
};

static const struct key log_keys[] = {
	PLAIN("access", K_SINK, AT(struct log_conf, access), NULL,
	    "Where a line for each request goes: stdout, stderr, a file, syslog, off."),
	TEXT("format", AT(struct log_conf, format), "combined",
	    "common, combined, json, or a pattern with $variables."),
	PLAIN("error", K_SINK, AT(struct log_conf, error), "stderr",
	    "Where warp's own messages go: stderr, stdout, a file, syslog, off."),
	WORDS("level", K_CHOICE, AT(struct log_conf, level), "info", "error warn info debug",
	    "How much it says."),
};

static const struct key admin_keys[] = {
	WORDS("listen", K_ADDRS, AT(struct admin_read, listen), ADMIN_SOCKET, "off",
	    "Addresses of the admin interface, or off."),
	PLAIN("token", K_SECRET, AT(struct admin_read, token), NULL,
	    "What X-Admin-Token or Bearer must be over TCP; unix sockets need none."),
	TEXT("expose", AT(struct admin_read, expose), NULL,
	    "Also served to clients below this path, who need server.admin_token."),
};

#define SECTION(name, keys, help) { name, keys, LEN(keys), NOW, NULL, help }
#define LATER_SECTION(name, keys, off, help) { name, keys, LEN(keys), LATER, off, help }
#define DIALECT(name, help) { name, NULL, 0, LATER, NULL, help }
static const struct section sections[SECTIONS] = {
	[SEC_ROOT] = LATER_SECTION("", root_keys, NULL, "Deployment keys of Fujin."),
	[SEC_SERVER] = SECTION("server", server_keys, "Listening, limits, time."),
	[SEC_UPSTREAM] = SECTION("upstreams.NAME", upstream_keys,
	    "Backends that routes name: host and port, socket, url, or instances."),
	[SEC_INSTANCE] = SECTION("upstreams.NAME.instances", instance_keys,
	    "One of several backends."),
	[SEC_UPSTREAM_TLS] = SECTION("upstreams.NAME.tls", upstream_tls_keys,
	    "For instances that are spoken to by https or wss."),
	[SEC_HEALTH] = SECTION("upstreams.NAME.health", health_keys, "Probes of each instance."),
	[SEC_UPSTREAM_PROCESS] = SECTION("upstreams.NAME.process", process_keys,
	    "The program behind an upstream, started and watched by warp."),
	[SEC_PROCESS] = SECTION("processes.NAME", process_keys,
	    "A program that serves no upstream. The same keys."),
	[SEC_LIMITS] = SECTION("processes.NAME.limits", limits_keys,
	    "Resource limits of a process, and of upstreams.NAME.process."),
	[SEC_ROUTE] = SECTION("routes", route_keys,
	    "In order: the first whose conditions all hold takes the request. "
	    "Each has exactly one action."),
	[SEC_RESPOND] = SECTION("routes.respond", respond_keys, "An answer of warp's own."),
	[SEC_RATE] = SECTION("routes.rate_limit", rate_keys, "Of all workers together."),
	[SEC_TLS] = SECTION("tls", tls_keys, "TLS toward clients, and ACME."),
	[SEC_CERT] = SECTION("tls.certs", cert_keys, "One certificate of several, with its key."),
	[SEC_EAB] = SECTION("tls.acme_eab", eab_keys, "Both keys are needed."),
	[SEC_CACHE] = SECTION("cache", cache_keys, "Answers kept, and shared through Redis."),
	[SEC_POSTGRES] = LATER_SECTION("postgres", postgres_keys, NULL, ""),
	[SEC_MIDDLEWARE] = SECTION("middleware", middleware_keys, "Switches for all routes."),
	[SEC_LOG] = SECTION("log", log_keys, "What is written where."),
	[SEC_ADMIN] = SECTION("admin", admin_keys, "Status, metrics, and `warp -s`."),
	[SEC_WEBSERVER] = DIALECT("webserver", "Fujin's routes."),
	[SEC_HOSTS] = DIALECT("hosts", "Fujin's hosts."),
	[SEC_SITES] = DIALECT("sites", "BWS's sites."),
	[SEC_FASTROUTER] = DIALECT("fastrouter", "uWSGI's FastRouter."),
	[SEC_SHARED_SOCKETS] = DIALECT("shared_sockets", "Sockets bound for others."),
};
/* clang-format on */
#undef PATH /* a common name */

static const struct key *
key_find(enum section_id id, struct slice name)
{
	for (size_t i = 0; i < sections[id].n; i++)
		if (slice_eq(name, slice_of(sections[id].keys[i].name)))
			return &sections[id].keys[i];
	return NULL;
}

/* The word that starts a section in the file, upstreams of upstreams.NAME; NULL: the
 * root, or inside another section. */
static struct slice
section_word(enum section_id id)
{
	struct slice name = slice_of(sections[id].name);
	size_t n = strcspn(name.p, ".");

	if (id == SEC_ROOT || (n < name.n && strcmp(name.p + n, ".NAME") != 0))
		return (struct slice){ NULL, 0 };
	return (struct slice){ name.p, n };
}

/* Can the environment set keys of the section? Not of lists or NAMEs. */
static bool
section_has_env(enum section_id id)
{
	return id != SEC_ROOT && id != SEC_ROUTE && !strchr(sections[id].name, '.');
}

/* ==== hints ==================================================================
 * Owns    nothing.
 * Offers  near_offer, near_find, near_text: which known word was meant; LOWER,
 *         ALNUM.
 * Calls   base, arena. */

#define NEAR_MAX 48 /* bytes of a word that is compared */
#define LOWER    "abcdefghijklmnopqrstuvwxyz"
#define ALNUM    LOWER "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

/* Insertions, deletions, changes and swaps of neighbours from a to b
 * (Damerau-Levenshtein, optimal string alignment). */
static size_t
word_distance(struct slice a, struct slice b)
{
	unsigned d[NEAR_MAX + 1][NEAR_MAX + 1]; /* of the first i bytes of a and j of b */

	if (a.n > NEAR_MAX || b.n > NEAR_MAX)
		return SIZE_MAX;
	for (size_t i = 0; i <= a.n; i++)
		for (size_t j = 0; j <= b.n; j++) {
			d[i][j] = (unsigned)(i + j);
			if (i == 0 || j == 0)
				continue;
			d[i][j] = MIN(MIN(d[i - 1][j], d[i][j - 1]) + 1,
			    d[i - 1][j - 1] + (a.p[i - 1] != b.p[j - 1]));
			if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1])
				d[i][j] = MIN(d[i][j], d[i - 2][j - 2] + 1);
		}
	return d[a.n][b.n];
}

/* Is candidate the word? Notes it if it is the nearest so far. */
static bool
near_offer(struct near *near, struct slice candidate)
{
	size_t d = word_distance(near->word, candidate);
	size_t limit = MAX(near->word.n / 3, (size_t)2);

	if (candidate.n > 0 && d <= limit && d < near->word.n &&
	    (near->best.n == 0 || d < near->distance)) {
		near->best = candidate;
		near->distance = d;
	}
	return slice_eq(near->word, candidate);
}

/* The index of near's word in words, a blank apart; -1: none. */
static int
near_find(struct near *near, const char *words)
{
	struct slice rest = slice_of(words), word;

	for (int i = 0; slice_cut(&rest, ' ', &word); i++)
		if (slice_eq(word, near->word))
			return i;
	for (rest = slice_of(words); slice_cut(&rest, ' ', &word);)
		near_offer(near, word);
	return -1;
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
 * Offers  section_read, key_set, complain, value_error, table_error, key_error,
 *         rules_check, value_text.
 * Calls   base, arena, walk, diag, toml, http, addr, crypt, trust, keys, hints. */

#define SECRET_FILE_MAX 65536 /* bytes of what `file:` names */
#define GOT_MAX         40    /* bytes of a wrong text that are shown */
#define ENV_PREFIX      "WARPDRIVE_"
#define ENV_ADMIN_TOKEN ENV_PREFIX "ADMIN_API_TOKEN"

/* The bundle in file, read once. NULL: *why says what is wrong. */
static struct trust *
trust_get(struct reader *r, const char *file, const char **why)
{
	struct trusted *t = r->trusted;

	while (t && !slice_eq(slice_of(t->asked), slice_of(file)))
		t = t->next;
	if (!t) {
		t = arena_alloc(r->a, sizeof *t);
		*t = (struct trusted){ .next = r->trusted, .asked = file };
		t->why = trust_load(r->a, file, &t->trust);
		r->trusted = t;
	}
	*why = t->why;
	return t->why ? NULL : t->trust;
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

/* No error may show a value of k. */
static bool
key_hides(const struct key *k)
{
	return k->kind == K_SECRET || k->kind == K_USERS || k->kind == K_FIELDS;
}

/* What the operator wrote, in words. */
static const char *
value_text(struct arena *a, const struct toml *v)
{
	if (v->kind == TOML_STRING)
		return arena_fmt(a, "the text \"%.*s%s\"", (int)MIN(v->text.n, (size_t)GOT_MAX),
		    v->text.p, v->text.n > GOT_MAX ? "..." : "");
	if (v->kind == TOML_INTEGER)
		return arena_fmt(a, "%lld", (long long)v->integer);
	if (v->kind == TOML_FLOAT)
		return arena_fmt(a, "%g", v->real);
	if (v->kind == TOML_BOOLEAN)
		return v->boolean ? "true" : "false";
	if (v->kind == TOML_ARRAY)
		return v->count == 0 ? "an empty list" : "a list";
	return v->kind == TOML_TABLE ? "a table"
	    : arena_fmt(a, "the date or time %.*s", (int)v->text.n, v->text.p);
}

/* ---- complaints ---- */

/* The origin of key; NULL: the preset, or none. */
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

/* Notes what is wrong with key of the section in hand: at its value v, or naming
 * the variable that holds it. v NULL: at the section's value, else at its table.
 * key NULL: v as a whole, at its name. Always false, so that a failing check is one
 * line. */
__attribute__((format(printf, 5, 6))) static bool
complain(struct reader *r, enum diag_level level, const char *key, const struct toml *v,
    const char *fmt, ...)
{
	const struct origin *o = key && !v ? conf_said(r->conf, r->where, key) : NULL;
	const char *env = o ? o->env : r->env, *text;
	bool whole;
	va_list ap;

	va_start(ap, fmt);
	text = arena_vfmt(r->a, fmt, ap);
	va_end(ap);
	if (key && !v)
		v = o ? o->value : toml_get(r->table, key);
	whole = !key || !v;
	v = v ? v : r->table;
	if (env)
		diag_add(&r->conf->diags, level, 0, 0, "%s: %s", env, text);
	else
		diag_add(&r->conf->diags, level, !v ? 0 : whole ? v->line : v->vline,
		    !v ? 0 : whole ? v->col : v->vcol, "%s%s%s%s%s", r->where,
		    key && *r->where ? "." : "", key ? key : "",
		    key || *r->where ? ": " : "", text);
	return false;
}

#define value_error(r, key, v, ...) complain(r, DIAG_ERROR, key, v, __VA_ARGS__)
#define table_error(r, at, ...)     complain(r, DIAG_ERROR, NULL, at, __VA_ARGS__)
#define key_error(r, key, ...)      complain(r, DIAG_ERROR, key, NULL, __VA_ARGS__)
#define key_warn(r, key, ...)       complain(r, DIAG_WARNING, key, NULL, __VA_ARGS__)
/* At a value; the text names its key itself. */
#define value_warn(r, v, ...) \
	diag_add(&(r)->conf->diags, DIAG_WARNING, (v)->vline, (v)->vcol, __VA_ARGS__)

static void
rules_check(struct reader *r, const struct rule *rules, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (rules[i].broken)
			key_error(r, rules[i].key, rules[i].words, rules[i].arg);
}

/* Kind, range and choices of a key: "a number from 1 to 65535". */
static const char *
kind_text(struct arena *a, const struct key *k)
{
	const char *name = kinds[k->kind].name;
	bool number = k->kind == K_INT || k->kind == K_BYTES || k->kind == K_SECS;

	if (k->kind == K_CHOICE)
		return arena_fmt(a, "%s %s", name, k->words);
	if (!number || (k->min <= 0 && k->max >= LIMIT_MAX))
		return name;
	if (k->max >= LIMIT_MAX)
		return arena_fmt(a, "%s of at least %.10g", name, k->min);
	return arena_fmt(a, "%s from %.10g to %.10g", name, k->min, k->max);
}

static bool
kind_error(struct reader *r, const struct key *k, const struct toml *v)
{
	bool hidden = key_hides(k) && v->kind != TOML_ARRAY && v->kind != TOML_TABLE;

	return value_error(r, k->name, v, "expected %s, got %s", kind_text(r->a, k),
	    hidden ? "something else" : value_text(r->a, v));
}

/* ---- texts ---- */

/* The text of v, NUL behind it, into a struct slice. env:NAME and file:/path are
 * replaced by what is there. */
static bool
text_get(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	bool secret = k->kind == K_SECRET || k->kind == K_USERS;
	struct slices *ours = &r->conf->env_names, all; /* programs do not get these */
	struct slice *out = to;
	const char *why, *path;
	struct stat st;

	if (v->kind != TOML_STRING)
		return kind_error(r, k, v);
	*out = v->text;
	if (slice_starts(v->text, S("env:"))) {
		*out = slice_of(getenv(v->text.p + 4));
		all.v = arena_alloc(r->a, ((size_t)ours->n + 1) * sizeof *all.v);
		for (all.n = 0; all.n < ours->n; all.n++)
			all.v[all.n] = ours->v[all.n];
		all.v[all.n++] = arena_dup(r->a, slice_from(v->text, 4));
		*ours = all;
		if (!out->p)
			return value_error(r, k->name, v, "the environment has no %s",
			    v->text.p + 4);
	} else if (slice_starts(v->text, S("file:"))) {
		path = conf_path(r->conf, slice_from(v->text, 5));
		if ((why = file_read(r->a, path, SECRET_FILE_MAX, out)))
			return value_error(r, k->name, v, "cannot read %s: %s", path, why);
		if (secret && stat(path, &st) == 0 && (st.st_mode & S_IROTH))
			value_warn(r, v, "%s is readable by others; chmod 640", path);
		out->n -= out->n > 0 && out->p[out->n - 1] == '\n';
		out->n -= out->n > 0 && out->p[out->n - 1] == '\r';
	} else if (secret && !r->secret && !r->env &&
	    (k->kind == K_SECRET || !slice_starts(v->text, S("$")))) /* not a hash */
		r->secret = v;
	*out = arena_dup(r->a, *out); /* with a NUL behind it */
	if (out->n > 0 && memchr(out->p, '\0', out->n))
		return value_error(r, k->name, v, "a text cannot hold a NUL here");
	return true;
}

/* ---- one setter for each kind ---- */

static void
store(void *to, size_t size, uint64_t n)
{
	uint32_t small = (uint32_t)n;
	bool flag = n > 0;

	memcpy(to, size == sizeof flag ? (void *)&flag : size == sizeof small ? (void *)&small
	    : (void *)&n, size);
}

/* A number, or true or false: seconds may have a fraction, a mode may be a text of
 * octal digits. */
static bool
set_number(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	bool secs = k->kind == K_SECS;
	const char *digits = v->kind == TOML_STRING && k->kind == K_MODE ? v->text.p : "";
	double n = v->kind == TOML_BOOLEAN && k->kind == K_BOOL ? v->boolean
	    : v->kind == TOML_INTEGER && k->kind != K_BOOL ? (double)v->integer
	    : v->kind == TOML_FLOAT && secs ? v->real : NAN;
	char *end;

	digits += strncasecmp(digits, "0o", 2) == 0 ? 2 : 0;
	if (isdigit((unsigned char)*digits)) {
		n = (double)strtol(digits, &end, 8);
		n = *end ? NAN : n;
	}
	if (!(n >= k->min && n <= k->max)) /* nan as well */
		return kind_error(r, k, v);
	store(to, k->size, (uint64_t)(secs ? n * SECOND_MS + 0.5 : n));
	return true;
}

/* One of k->words; if the first is off, false means off, true the second. */
static bool
set_choice(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	struct near near = { .word = S("") };
	int i;

	if (v->kind == TOML_BOOLEAN && slice_starts(slice_of(k->words), S("off ")))
		i = v->boolean;
	else if (v->kind == TOML_STRING && !text_get(r, k, v, &near.word))
		return false;
	else if ((i = near_find(&near, k->words)) < 0)
		return value_error(r, k->name, v, "expected %s, got %s%s", kind_text(r->a, k),
		    value_text(r->a, v), near_text(r->a, &near));
	store(to, k->size, (uint64_t)i);
	return true;
}

static bool
set_sink(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	static const char words[] = "off stdout stderr  syslog"; /* enum log_sink: a file has none */
	struct log_target *out = to;
	struct near near = { .word = S("") };
	int i;

	if (v->kind != TOML_STRING || v->text.n == 0)
		return kind_error(r, k, v);
	if (!text_get(r, k, v, &near.word))
		return false;
	i = near_find(&near, words);
	*out = (struct log_target){ .sink = i < 0 ? SINK_FILE : (enum log_sink)i, .fd = -1 };
	if (out->sink == SINK_FILE)
		out->path = conf_path(r->conf, near.word);
	return true;
}

/* TERM, SIGTERM, 15 or "15". */
static bool
set_signal(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	static const char names[] = "TERM INT QUIT HUP USR1 USR2 KILL WINCH ABRT ALRM CONT PIPE "
	    "TSTP TTIN TTOU URG";
	static const int numbers[] = { SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGKILL,
		SIGWINCH, SIGABRT, SIGALRM, SIGCONT, SIGPIPE, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG };
	struct near near = { .word = S("") };
	int64_t n = v->kind == TOML_INTEGER ? v->integer : -1;
	int i;

	if (v->kind == TOML_STRING && !text_get(r, k, v, &near.word))
		return false;
	if (v->kind == TOML_STRING)
		n = slice_uint(near.word, NSIG - 1);
	if (slice_starts(near.word, S("SIG")))
		near.word = slice_from(near.word, 3);
	if ((i = near_find(&near, names)) >= 0)
		n = numbers[i];
	if (n < 1 || n >= NSIG)
		return value_error(r, k->name, v, "expected a signal such as "
		    "TERM, INT, QUIT, HUP or USR1, or a number from 1 to %d, got %s%s", NSIG - 1,
		    value_text(r->a, v), near_text(r->a, &near));
	*(int *)to = (int)n;
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
	if (k->kind == K_PATH && memchr(s.p, '\n', s.n)) /* may be a secret */
		return value_error(r, k->name, v, "expected a path, got a text of several lines; "
		    "the path itself is meant, without file: or env:");
	if (k->kind == K_PATH)
		s = slice_of(conf_path(r->conf, s));
	if (k->size == sizeof s)
		memcpy(to, &s, sizeof s);
	else
		memcpy(to, &s.p, sizeof s.p);
	return true;
}

/* Checks a table, or a list of them; others read them. */
static bool
set_table(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	bool list = k->kind == K_TABLES;

	(void)to;
	if (v->kind != (list ? TOML_ARRAY : TOML_TABLE))
		return kind_error(r, k, v);
	if (list && v->count == 0)
		return value_error(r, k->name, v, "expected at least one of them");
	for (const struct toml *item = list ? v->first : NULL; item; item = item->next)
		if (item->kind != TOML_TABLE)
			return kind_error(r, k, item);
	return true;
}

/* ---- members of lists ---- */

static bool
addr_item(struct reader *r, const struct key *k, const struct toml *v, void *out)
{
	const char *why;
	struct slice s;

	return text_get(r, k, v, &s) && (addr_parse(r->a, s, out, &why) ||
	    value_error(r, k->name, v, "%s: %s", s.p, why));
}

static bool
cidr_item(struct reader *r, const struct key *k, const struct toml *v, void *out)
{
	struct slice s;

	return text_get(r, k, v, &s) && (cidr_parse(s, out) || value_error(r, k->name, v,
	    "expected a network such as 10.0.0.0/8 or an address, got \"%s\"", s.p));
}

/* Is name a field name? Not if changing it would break the framing or the
 * connection. */
static bool
field_name_ok(struct reader *r, const struct key *k, const struct toml *v, struct slice name)
{
	static const enum field_id framing[] = { F_CONNECTION, F_CONTENT_LENGTH, F_HTTP2_SETTINGS,
		F_KEEP_ALIVE, F_PROXY_CONNECTION, F_TE, F_TRAILER, F_TRANSFER_ENCODING,
		F_UPGRADE };
	enum field_id id = field_id_of(name);

	if (!is_token(name))
		return value_error(r, k->name, v, "'%s' is no name of a header field", name.p);
	for (size_t i = 0; i < LEN(framing) && k->kind != K_MATCHES; i++)
		if (framing[i] == id)
			return value_error(r, k->name, v, "%s is warp's own to write", name.p);
	if (k->kind == K_NAMES && id == F_HOST)
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
	const struct toml *name = toml_get(v, "name"), *value = toml_get(v, "value");
	struct pair *out = to;

	if (v->kind != TOML_TABLE)
		return kind_error(r, k, v);
	for (const struct toml *c = v->first; c; c = c->next)
		if (c != name && c != value)
			return value_error(r, k->name, c, "expected name and value, got '%.*s'",
			    (int)c->key.n, c->key.p);
	if (!name || !value)
		return value_error(r, k->name, v, "%s is missing", name ? "value" : "name");
	if (!text_get(r, k, name, &out->name) || !text_get(r, k, value, &out->value))
		return false;
	if (k->kind == K_PAIRS)
		return true;
	if (!field_name_ok(r, k, name, out->name))
		return false;
	if (k->kind == K_FIELDS && field_id_of(out->name) == F_HOST &&
	    (out->value.n == 0 || !is_host(out->value)))
		return value_error(r, k->name, value, "this is no host");
	if (k->kind == K_MATCHES && slice_trim(out->value).n < out->value.n)
		value_warn(r, value, "no field has blanks at its ends: this never matches");
	return is_field_value(out->value) ||
	    value_error(r, k->name, value, "a header field cannot hold control characters");
}

enum { STATUS_FIRST = 100, STATUS_LAST = 599 };

/* A status, or from-to. */
static bool
status_item(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	struct slice rest = S(""), piece;
	int64_t first, last;

	if (v->kind == TOML_INTEGER)
		rest = slice_of(value_text(r->a, v));
	else if (v->kind == TOML_STRING && !text_get(r, k, v, &rest))
		return false;
	slice_cut(&rest, '-', &piece);
	first = last = slice_uint(slice_trim(piece), STATUS_LAST);
	if (rest.p)
		last = slice_uint(slice_trim(rest), STATUS_LAST);
	*(struct status_range *)to = (struct status_range){ (uint16_t)first, (uint16_t)last };
	return (first >= STATUS_FIRST && last >= first) || value_error(r, k->name, v,
	    "expected a status from %d to %d, a range such as \"200-399\", or a list of these, "
	    "got %s", STATUS_FIRST, STATUS_LAST, value_text(r->a, v));
}

#define HASH_UNKNOWN "this kind of hash is not known; use SHA-512 (openssl passwd -6)"

/* A user of a table, into a struct pair. A password is a text, or a hash: starts with
 * `$`, and crypt knows it; `{SHA}…` and the like, of LDAP and htpasswd, are refused. */
static bool
user_item(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	struct pair *out = to;
	const char *secret;
	unsigned rounds;
	size_t n;

	out->name = v->key;
	if (v->key.n == 0 || memchr(v->key.p, ':', v->key.n))
		return value_error(r, k->name, v, "a user's name cannot hold a colon");
	if (!text_get(r, k, v, &out->value))
		return false;
	secret = out->value.p;
	if (*secret == '\0')
		return value_error(r, k->name, v, "an empty password");
	n = *secret == '{' ? strspn(secret + 1, ALNUM "-_.") : 0;
	if (n > 0 && secret[n + 1] == '}' && secret[n + 2])
		return value_error(r, k->name, v, HASH_UNKNOWN);
	if (*secret != '$' && slice_eq(out->value, v->text))
		value_warn(r, v, "the password of %.*s is plain text, a hash is safer "
		    "(openssl passwd -6)", (int)v->key.n, v->key.p);
	if (*secret != '$')
		return true;
	if ((rounds = crypt_rounds(out->value)) > AUTH_ROUNDS_WARN)
		value_warn(r, v, "%u rounds: each password that is tried costs a good part of a "
		    "second of the processor; %d are usual", rounds, SHA_ROUNDS);
	return rounds > 0 || value_error(r, k->name, v, HASH_UNKNOWN);
}

static bool
is_env_name(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!isalnum((unsigned char)s.p[i]) && s.p[i] != '_')
			return false;
	return s.n > 0 && !isdigit((unsigned char)s.p[0]);
}

/* The shortest text that reads back as d, and as a float. */
static const char *
float_text(struct arena *a, double d)
{
	char b[32];

	for (int digits = DBL_DIG; digits <= DBL_DECIMAL_DIG; digits++) {
		snprintf(b, sizeof b, "%.*g", digits, d);
		if (strtod(b, NULL) == d)
			break;
	}
	return arena_fmt(a, "%s%s", b, isfinite(d) && !strpbrk(b, ".e") ? ".0" : "");
}

/* A variable of a table, into a struct pair. */
static bool
env_item(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	struct pair *out = to;

	out->name = v->key;
	if (!is_env_name(v->key))
		return value_error(r, k->name, v, "'%.*s' is no name of a variable",
		    (int)v->key.n, v->key.p);
	if (v->kind == TOML_STRING)
		return text_get(r, k, v, &out->value);
	if (v->kind > TOML_BOOLEAN)
		return value_error(r, k->name, v, "%.*s: expected a text, a number, true or "
		    "false, got %s", (int)v->key.n, v->key.p, value_text(r->a, v));
	out->value = slice_of(v->kind == TOML_FLOAT ? float_text(r->a, v->real)
	    : value_text(r->a, v));
	return true;
}

/* A name below a directory. */
static bool
file_item(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	struct slice *out = to;

	return text_get(r, k, v, out) && ((out->n > 0 && out->p[0] != '/' && out->p[0] != '.') ||
	    value_error(r, k->name, v, "expected a name below the directory, got %s",
	    value_text(r->a, v)));
}

/* An extension, without its dot, and the type of such files; into a struct pair. */
static bool
type_item(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	struct pair *out = to;

	out->name = v->key.n > 1 && v->key.p[0] == '.' ? slice_from(v->key, 1) : v->key;
	return text_get(r, k, v, &out->value) && ((memchr(out->value.p, '/', out->value.n) &&
	    is_field_value(out->value)) || value_error(r, k->name, v,
	    "expected a type such as text/plain, got %s", value_text(r->a, v)));
}

_Static_assert(sizeof(struct list) == sizeof(struct slices) &&
    offsetof(struct list, n) == offsetof(struct pairs, n), "lists are alike");

/* How a value of each kind is set; of lists and tables, how a member is. */
static const struct setter {
	bool (*set)(struct reader *, const struct key *, const struct toml *, void *);
	size_t item; /* bytes of a member */
	enum toml_kind many; /* TOML_TABLE: its members are { name = value } */
	bool lone;   /* one member may stand for a list */
} setters[KINDS] = {
	[K_BOOL] = { .set = set_number },
	[K_INT] = { .set = set_number },
	[K_BYTES] = { .set = set_number },
	[K_SECS] = { .set = set_number },
	[K_MODE] = { .set = set_number },
	[K_CHOICE] = { .set = set_choice },
	[K_SINK] = { .set = set_sink },
	[K_SIGNAL] = { .set = set_signal },
	[K_TEXT] = { .set = set_text },
	[K_SECRET] = { .set = set_text },
	[K_PATH] = { .set = set_text },
	[K_TABLE] = { .set = set_table },
	[K_TABLES] = { .set = set_table },
	[K_OWN] = { .set = set_table },
	[K_TEXTS] = { text_get, sizeof(struct slice), TOML_ARRAY, false },
	[K_NAMES_OF_FILES] = { file_item, sizeof(struct slice), TOML_ARRAY, true },
	[K_TYPES] = { type_item, sizeof(struct pair), TOML_TABLE, false },
	[K_ADDRS] = { addr_item, sizeof(struct addr), TOML_ARRAY, true },
	[K_CIDRS] = { cidr_item, sizeof(struct cidr), TOML_ARRAY, false },
	[K_NAMES] = { name_item, sizeof(struct slice), TOML_ARRAY, false },
	[K_FIELDS] = { pair_item, sizeof(struct pair), TOML_ARRAY, false },
	[K_MATCHES] = { pair_item, sizeof(struct pair), TOML_ARRAY, true },
	[K_PAIRS] = { pair_item, sizeof(struct pair), TOML_ARRAY, true },
	[K_STATUSES] = { status_item, sizeof(struct status_range), TOML_ARRAY, true },
	[K_USERS] = { user_item, sizeof(struct pair), TOML_TABLE, false },
	[K_ENV] = { env_item, sizeof(struct pair), TOML_TABLE, false },
};

/* The members of v, or v as the only member, into a struct list with room for one
 * more. */
static bool
set_list(struct reader *r, const struct key *k, const struct toml *v, void *to)
{
	const struct setter *s = &setters[k->kind];
	bool many = v->kind == s->many, ok = true;
	const struct toml *item = many ? v->first : v;
	size_t n = many ? v->count : 1;
	struct list out = { arena_alloc(r->a, (n + 1) * s->item), 0 };

	if (!many && k->kind == K_ENV)
		return value_error(r, k->name, v, "expected a table of NAME = value, got %s",
		    value_text(r->a, v));
	if (!many && !s->lone)
		return kind_error(r, k, v);
	if (n == 0 && k->kind == K_USERS)
		return value_error(r, k->name, v, "expected at least one user");
	if (k->words && v->kind == TOML_STRING && slice_eq(v->text, slice_of(k->words)))
		n = 0;
	for (; n-- > 0; item = item->next)
		if (s->set(r, k, item, (char *)out.v + (size_t)out.n * s->item))
			out.n++;
		else
			ok = false;
	memcpy(to, &out, sizeof out);
	return ok;
}

/* ---- sections ---- */

/* The value that s, from the environment or a preset, stands for; line 0: not in the
 * file. */
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
		*(v->last ? &v->last->next : &v->first) = item;
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
	if (id == SEC_ADMIN && strcmp(k->name, "token") == 0)
		return ENV_ADMIN_TOKEN; /* server.admin_token has the other name */
	name = id == SEC_SERVER ? arena_fmt(a, ENV_PREFIX "%s", k->name)
	    : arena_fmt(a, ENV_PREFIX "%s_%s", sections[id].name, k->name);
	for (char *c = name; *c; c++)
		*c = (char)toupper((unsigned char)*c);
	return name;
}

/* Refuses an unknown key: which one was meant, or where does it belong? */
static void
key_unknown(struct reader *r, enum section_id id, const struct toml *v)
{
	struct near near = { .word = v->key };
	bool top = id == SEC_ROOT;
	const char *hint;

	for (enum section_id s = SEC_SERVER; top && s < SECTIONS; s++)
		near_offer(&near, section_word(s));
	for (size_t i = 0; i < sections[id].n; i++)
		near_offer(&near, slice_of(sections[id].keys[i].name));
	hint = near_text(r->a, &near);
	for (enum section_id s = SEC_SERVER; !top && near.best.n == 0 && s < SECTIONS; s++)
		if (key_find(s, v->key)) {
			hint = arena_fmt(r->a, ", it belongs to [%s]", sections[s].name);
			break;
		}
	diag_add(&r->conf->diags, DIAG_ERROR, v->line, v->col, "unknown %s '%.*s'%s%s%s",
	    top && (v->kind == TOML_TABLE || v->kind == TOML_ARRAY) ? "section" : "key",
	    (int)v->key.n, v->key.p, top ? "" : " in ", top ? "" : r->where, hint);
}

/* Refuses a section that is not supported yet, unless it is empty or its key named by
 * section.off is off. */
static void
section_refuse(struct reader *r, enum section_id id, const struct toml *v)
{
	const struct section *s = &sections[id];
	const struct toml *off = s->off ? toml_get(v, s->off) : NULL;

	if ((off && value_is_off(off)) || (v->kind == TOML_TABLE && v->count == 0 && s->n > 0))
		return;
	diag_add(&r->conf->diags, DIAG_ERROR, v->line, v->col, "%s%s%.*s: not supported yet",
	    r->where, *r->where ? "." : "", (int)v->key.n, v->key.p);
}

static void
key_set(struct reader *r, const struct key *k, const struct toml *v, void *obj)
{
	if (k->when == NOW) {
		if (setters[k->kind].item > 0 && k->size > 0)
			set_list(r, k, v, (char *)obj + k->at);
		else if (setters[k->kind].item == 0 && setters[k->kind].set)
			setters[k->kind].set(r, k, v, (char *)obj + k->at);
	} else if (k->kind == K_TABLE || k->kind == K_TABLES)
		section_refuse(r, k->sub, v);
	else if (k->when != LATER_OFF || !value_is_off(v))
		value_error(r, k->name, v, "not supported yet");
}

/* Fills obj with presets, then from the table (NULL: none), then from the
 * environment. */
static void
section_read(struct reader *r, enum section_id id, const char *where, const struct toml *table,
    void *obj)
{
	const struct reader outer = *r;
	const struct toml *v;
	const char *env, *word;

	r->where = where;
	r->table = table;
	for (size_t i = 0; i < sections[id].n; i++) {
		const struct key *k = &sections[id].keys[i];
		enum key_words words = kinds[k->kind].words;
		if (k->when == NOW && k->preset)
			key_set(r, k, word_value(r->a, words, slice_of(k->preset)), obj);
		if ((v = toml_get(table, k->name)))
			key_set(r, k, v, obj);
		if (v && k->when == NOW && k->kind == K_TABLE && v->kind == TOML_TABLE)
			section_read(r, k->sub, arena_fmt(r->a, "%s.%s", where, k->name), v, obj);
		env = env_name(r->a, id, k);
		if ((word = env ? getenv(env) : NULL)) {
			r->env = env;
			v = word_value(r->a, k->words && strcmp(word, k->words) == 0 ? ONE_TEXT
			    : words, slice_of(word));
			key_set(r, k, v, obj);
			r->env = NULL;
		}
		if (section_has_env(id))
			r->conf->origins[r->conf->n_origins++] = (struct origin){ sections[id].name,
				k, word ? env : NULL, v };
	}
	for (v = table ? table->first : NULL; v; v = v->next)
		if (!key_find(id, v->key))
			key_unknown(r, id, v);
	r->where = outer.where;
	r->table = outer.table;
}

/* ==== upstreams ==============================================================
 * Owns    nothing.
 * Offers  upstreams_read, upstream_tls_read, upstream_is_https,
 *         upstream_find, name_is_dns.
 * Calls   base, arena, toml, http, addr, balance, certs, keys, hints,
 *         values. */

#define DNS_LABEL_MAX 63 /* RFC 1035 2.3.4 */

/* The only key of ways in table; NULL: none or several, said. */
static const struct toml *
one_of(struct reader *r, const struct toml *table, const char *const *ways, const char *needs)
{
	const struct toml *found = NULL, *v;

	for (; *ways; ways++) {
		if (!(v = toml_get(table, *ways)))
			continue;
		if (found) {
			table_error(r, v, "%s and %s exclude each other", found->key.p, *ways);
			return NULL;
		}
		found = v;
	}
	if (!found)
		table_error(r, table, "expected %s", needs);
	return found;
}

static bool
addr_is_unix(const struct addr *a)
{
	return a->kind == ADDR_UNIX || a->kind == ADDR_ABSTRACT;
}

/* s as a backend's address; refuses what cannot be one. */
static bool
addr_read(struct reader *r, const struct toml *at, struct slice s, struct addr *out)
{
	const char *why;

	if (slice_starts(s, S(":"))) /* no host named: this host */
		s = slice_of(arena_fmt(r->a, "127.0.0.1%s", s.p));
	if (!addr_parse(r->a, s, out, &why))
		return table_error(r, at, "%s: %s", s.p, why);
	if (out->scheme == SCHEME_UWSGI)
		return table_error(r, at, "%s: uwsgi upstreams are not supported yet", out->text);
	if (out->any)
		return table_error(r, at, "%s: a URL names its host", out->text);
	if (out->kind == ADDR_FD)
		return table_error(r, at, "%s: a descriptor is no upstream", out->text);
	return addr_is_unix(out) || out->port > 0 || table_error(r, at,
	    "%s: a port from 1 to %d is needed", out->text, PORT_MAX);
}

/* The address in table, whose texts are in p. */
static bool
place_read(struct reader *r, const struct toml *table, const struct place *p,
    const char *needs, struct addr *out)
{
	static const char *const ways[] = { "host", "socket", "url", NULL };
	const struct toml *way, *port = toml_get(table, "port");
	struct slice socket = p->socket;
	bool v6;

	if (port && !toml_get(table, "host"))
		return table_error(r, port, "port needs host");
	if (!(way = one_of(r, table, ways, needs)))
		return false;
	if (slice_eq(way->key, S("url")))
		return p->url.p && addr_read(r, way, p->url, out);
	if (slice_eq(way->key, S("socket"))) { /* a path, `@name`, or unix:... */
		if (socket.p && socket.n == 0)
			return table_error(r, way, "a socket needs a path");
		if (socket.p && !slice_starts(socket, S("@")) && !slice_starts(socket, S("unix")) &&
		    !slice_starts(socket, S("\\0")))
			socket = slice_of(conf_path(r->conf, socket));
		return socket.p && addr_read(r, way, socket, out) && (addr_is_unix(out) ||
		    table_error(r, way, "%s is no unix socket", socket.p));
	}
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

/* Does the board key of in fit? */
static bool
instance_key_fits(struct reader *r, const struct toml *at, const struct instance *in)
{
	return strlen(in->up->name) + 1 + strlen(in->addr.text) < INSTANCE_KEY_MAX ||
	    table_error(r, at, "name and address together are longer than %d bytes",
	        INSTANCE_KEY_MAX - 2);
}

/* The upstream's own address, or instances; a process needs neither. */
static void
instances_read(struct reader *r, struct upstream *up, const struct place *own)
{
	static const char *const ways[] = { "instances", "host", "socket", "url", NULL };
	const struct toml *table = r->table, *list = toml_get(table, "instances");
	const struct toml *port = toml_get(table, "port");
	const char *needs = list ? "host and port, socket, or url"
	    : "host and port, socket, url, or instances";
	size_t backups = 0, all = 0;

	if (list && (list->kind != TOML_ARRAY || list->count == 0))
		return; /* said already */
	if (toml_get(table, "process") && !list && !port && !toml_get(table, "host") &&
	    !toml_get(table, "socket") && !toml_get(table, "url"))
		return;
	if (list && port)
		table_error(r, port, "instances and port exclude each other");
	if (list && !one_of(r, table, ways, needs))
		return;
	up->instances = arena_alloc(r->a, (list ? list->count : 1) * sizeof *up->instances);
	for (const struct toml *t = list ? list->first : table; t; t = list ? t->next : NULL) {
		struct instance *in = &up->instances[up->n_instances];
		struct place p = *own;
		if (t->kind != TOML_TABLE)
			continue; /* said already */
		if (list)
			section_read(r, SEC_INSTANCE, arena_fmt(r->a, "%s.instances", r->where), t,
			    &p);
		*in = (struct instance){ .up = up, .weight = p.weight ? p.weight : 1,
			.backup = p.backup, .max_connections = p.max_connections, .replica = -1 };
		if (place_read(r, t, &p, needs, &in->addr) && instance_key_fits(r, t, in))
			up->n_instances++;
		backups += p.backup;
		all++;
	}
	if (all > 0 && backups == all)
		table_error(r, list, "every instance is a backup: at least one must not be");
}

/* The strategy, and the keys that only one strategy needs or uses. */
static void
strategy_read(struct reader *r, struct upstream *up, struct slice name)
{
	const struct toml *header = toml_get(r->table, "hash_header");
	enum pick_by by;
	struct near near = { .word = name };
	const char *all = "";

	up->balance = balance_find(name);
	for (size_t i = 0; i < LEN(balances) && !up->balance; i++) {
		near_offer(&near, slice_of(balances[i].name));
		near_offer(&near, slice_of(balances[i].alias));
		all = arena_fmt(r->a, "%s %s", all, balances[i].name);
	}
	if (!up->balance) {
		key_error(r, "strategy", "expected one of%s, got '%s'%s", all, name.p,
		    near_text(r->a, &near));
		return;
	}
	by = up->balance->by;
	name = slice_of(up->balance->name);
	if (by == BY_HEADER && !header)
		value_error(r, "hash_header", toml_get(r->table, "strategy"),
		    "strategy %s needs it: the name of a header field", name.p);
	const struct rule rules[] = {
		{ by != BY_HEADER && header, "hash_header",
		    "only strategy header_hash uses it, this one is %s", name.p },
		{ by == BY_HEADER && up->hash_header.p && !is_token(up->hash_header), "hash_header",
		    "expected the name of a header field, got '%s'", up->hash_header.p },
		{ by != BY_COOKIE && toml_get(r->table, "sticky_cookie"), "sticky_cookie",
		    "only strategy cookie uses it, this one is %s", name.p },
		{ by == BY_COOKIE && !is_token(up->sticky_cookie), "sticky_cookie",
		    "expected the name of a cookie, got '%s'", up->sticky_cookie.p },
	};
	rules_check(r, rules, LEN(rules));
}

/* Labels of letters, digits, - (RFC 1123 2.1) and _: what certificates are for. */
static bool
name_is_dns(struct slice name)
{
	struct slice rest = name, label;

	if (name.n == 0 || name.n >= ACME_NAME_MAX - 2)
		return false;
	while (slice_cut(&rest, '.', &label))
		if (label.n == 0 || label.n > DNS_LABEL_MAX || label.p[0] == '-' ||
		    label.p[label.n - 1] == '-' || strspn(label.p, ALNUM "-_") < label.n)
			return false;
	return true;
}

/* ---- health ---- */

#define NEEDS_PATH "needs path; without one a probe only connects"

/* [upstreams.NAME.health], if any; section_read has set presets and single keys. */
static void
health_read(struct reader *r, struct upstream *up)
{
	const struct toml *table = toml_get(r->table, "health");
	const struct toml *statuses = toml_get(table, "expect_status");
	const struct key *expect = key_find(SEC_HEALTH, S("expect_status"));
	struct health_conf *h = &up->health;
	struct slice path = slice_of(h->path);
	struct reader in = *r;

	if (!table || table->kind != TOML_TABLE)
		return; /* said already */
	in.where = arena_fmt(r->a, "%s.health", r->where);
	in.table = table;
	h->on = true;
	const struct rule rules[] = {
		{ !path.p && statuses, "expect_status", NEEDS_PATH, NULL },
		{ !path.p && toml_get(table, "host"), "host", NEEDS_PATH, NULL },
		{ !path.p && toml_get(table, "method"), "method", NEEDS_PATH, NULL },
		{ path.p && (*path.p != '/' || !all_are(path, CH_TARGET) || path.n > PROBE_TEXT_MAX),
		    "path", "expected a path that starts with / and holds no blanks, at most %s "
		    "bytes", arena_fmt(r->a, "%d", PROBE_TEXT_MAX) },
		{ h->host.p && (h->host.n == 0 || h->host.n > PROBE_TEXT_MAX || !is_host(h->host)),
		    "host", "'%s' is no host", h->host.p },
		{ !is_token(h->method) || h->method.n > PROBE_TEXT_MAX ||
		    method_of(h->method) == M_CONNECT, "method",
		    "'%s' is no method that a path can be asked with", h->method.p },
		{ statuses && statuses->kind == TOML_ARRAY && statuses->count == 0,
		    "expect_status", "an empty list: no answer would pass", NULL },
	};
	rules_check(&in, rules, LEN(rules));
	set_list(&in, expect, statuses ? statuses : word_value(r->a, ONE_TEXT,
	    slice_of(expect->preset)), &h->expect);
	for (int i = 0; i < up->n_instances && h->port > 0; i++)
		if (addr_is_unix(&up->instances[i].addr))
			key_error(&in, "port", "%s is a unix socket, it has no port",
			    up->instances[i].addr.text);
}

/* ---- tls ---- */

enum { PROTOCOL_HTTP, PROTOCOL_HTTPS, PROTOCOL_UWSGI }; /* words of its key */

static bool
upstream_is_https(const struct upstream *up)
{
	bool is = up->scheme == SCHEME_HTTPS;

	for (int i = 0; i < up->n_instances; i++)
		is |= up->instances[i].addr.scheme == SCHEME_HTTPS;
	return is;
}

/* Says what is wrong with the client certificate; pair: only one. */
static void
upstream_say(void *to, enum diag_level level, int pair, const char *text)
{
	(void)pair;
	complain(to, level, "cert", NULL, "%s", text);
}

/* Reports instances that no certificate names. */
static void
upstream_names_check(struct reader *r, const struct upstream *up, const struct toml *at)
{
	if (up->n_instances == 0)
		table_error(r, at, "an address that warp chooses has no name that its certificate "
		    "can be checked for: set tls.server_name");
	for (int i = 0; i < up->n_instances; i++) {
		const struct addr *a = &up->instances[i].addr;
		if (a->scheme == SCHEME_HTTPS && addr_is_unix(a))
			table_error(r, at, "%s has no name that its certificate can be checked "
			    "for: set tls.server_name", a->text);
		else if (a->scheme == SCHEME_HTTPS && a->kind == ADDR_INET)
			complain(r, DIAG_WARNING, NULL, at, "%s is an address, but only names are "
			    "looked for in its certificate: set tls.server_name", a->text);
	}
}

/* [upstreams.NAME.tls], if any, after section_read: whom to trust, for which name,
 * and which certificate to show. */
static void
upstream_tls_read(struct reader *r, struct upstream *up, const struct upstream_read *u,
    const struct toml *upstream)
{
	const struct toml *table = toml_get(upstream, "tls");
	const char *name = up->tls.server_name, *why = NULL;
	bool https = upstream_is_https(up);
	struct ip ip;

	if (table && table->kind != TOML_TABLE)
		return; /* said already */
	if (https && up->tls.verify) {
		if (!name)
			upstream_names_check(r, up, upstream);
		up->tls.trust = trust_get(r, u->ca_file, &why);
		if (why && !u->ca_file)
			table_error(r, upstream, "https backends cannot be verified: %s", why);
	}
	if (!table)
		return;
	struct reader in = *r;
	in.where = arena_fmt(r->a, "%s.tls", r->where);
	in.table = table;
	if (!https)
		complain(&in, DIAG_WARNING, NULL, table, "not used, as no instance is spoken to by "
		    "https (see protocol)");
	const struct rule rules[] = {
		{ why && u->ca_file, "ca_file", "%s", why },
		{ name && (!name_is_dns(slice_of(name)) || ip_parse(slice_of(name), &ip)),
		    "server_name", "'%s' is no name of a host", name },
		{ u->key && !u->cert, "key", "needs cert", NULL },
	};
	rules_check(&in, rules, https ? LEN(rules) : 0);
	if (https && !up->tls.verify)
		key_warn(&in, "verify", "anybody on the way can pose as this backend; better name its "
		    "certificate in ca_file");
	if (https && u->cert)
		up->tls.client = certs_pair(u->cert, u->key ? u->key : u->cert, upstream_say, &in);
}

/* The upstream that near's word names; NULL: none. */
static struct upstream *
upstream_find(const struct conf *c, struct near *near)
{
	for (int i = 0; i < c->n_upstreams; i++)
		if (slice_eq(slice_of(c->upstreams[i].name), near->word))
			return &c->upstreams[i];
	for (int i = 0; i < c->n_upstreams; i++) /* slow: each of many routes may ask */
		near_offer(near, slice_of(c->upstreams[i].name));
	return NULL;
}

static void
name_check(struct reader *r, const struct toml *table)
{
	if (table->key.n == 0 || strcspn(table->key.p, " /\t\r\n\"") != table->key.n)
		table_error(r, table, "a name cannot be empty or hold blanks, quotes or slashes");
}

static void
upstream_read(struct reader *r, struct upstream *out, const struct toml *table)
{
	struct upstream_read u = { .out = { .index = out->index, .line = table->line,
		.name = table->key.p, .tls.verify = true } };
	bool https, said = toml_get(table, "protocol");
	struct slice host;

	r->where = arena_fmt(r->a, "upstreams.%s", out->name);
	r->table = table;
	if (table->kind != TOML_TABLE) {
		table_error(r, table, "expected a table, got %s", value_text(r->a, table));
		return;
	}
	name_check(r, table);
	section_read(r, SEC_UPSTREAM, r->where, table, &u);
	*out = u.out;
	strategy_read(r, out, u.strategy);
	host = out->host_text = u.host_header;
	out->host_header = slice_eq(host, S("preserve")) ? HOST_PRESERVE
	    : slice_eq(host, S("upstream")) ? HOST_UPSTREAM : HOST_TEXT;
	if (host.n == 0 || strpbrk(host.p, " \t/,@") || !is_field_value(host))
		key_error(r, "host_header", "'%s' is no host", host.p);
	instances_read(r, out, &u.place);
	https = u.protocol == PROTOCOL_HTTPS;
	out->scheme = https ? SCHEME_HTTPS : SCHEME_NONE;
	if (u.protocol == PROTOCOL_UWSGI)
		key_error(r, "protocol", "not supported yet");
	for (int i = 0; i < out->n_instances; i++) { /* no scheme: protocol's */
		struct addr *a = &out->instances[i].addr;
		if (a->scheme == SCHEME_NONE)
			a->scheme = out->scheme;
		else if (said && (a->scheme == SCHEME_HTTPS) != https)
			key_error(r, "protocol", "the url of %s says another one", a->text);
	}
	upstream_tls_read(r, out, &u, table);
	health_read(r, out);
}

static void
upstreams_read(struct reader *r, const struct toml *tables)
{
	struct conf *c = r->conf;
	int all = 0;

	if (tables && tables->kind != TOML_TABLE) {
		table_error(r, tables, "expected [upstreams.NAME], got %s",
		    value_text(r->a, tables));
		tables = NULL;
	}
	c->upstreams = arena_alloc(r->a, ((tables ? tables->count : 0) + 1) * sizeof *c->upstreams);
	for (const struct toml *t = tables ? tables->first : NULL; t; t = t->next) {
		struct upstream *up = &c->upstreams[c->n_upstreams];
		up->index = c->n_upstreams++;
		up->name = t->key.p;
		upstream_read(r, up, t);
		all += up->n_instances;
	}
	r->where = "";
	r->table = NULL;
	if (all > INSTANCES_MAX)
		table_error(r, tables, "%d instances, at most %d fit", all, INSTANCES_MAX);
}

/* ==== processes ==============================================================
 * Owns    nothing.
 * Offers  processes_read, process_wrap, envfile_parse.
 * Calls   base, arena, walk, toml, addr, keys, hints, values, upstreams. */

/* ---- words ---- */

static bool
is_newline(char c)
{
	return c == '\n' || c == '\r';
}

/* Takes a word off the front of *s, as a shell would: up to a blank outside of
 * quotes. value: of an envfile, it ends with its line; quotes count only before
 * unquoted text, blanks at both ends of that text do not. Returns NULL, or what is
 * wrong at w->bad. */
static const char *
word_lex(struct words *w, struct slice *s, bool value, struct slice *out)
{
	size_t from = w->bytes.n, end = from;
	bool begun = false, shell = false, escaped;
	char c, quote = '\0';

	while (s->n > 0 && (quote || (!is_newline(*s->p) && (value || !is_blank(*s->p))))) {
		c = *s->p;
		*s = slice_from(*s, 1);
		if (quote ? c == quote : (c == '\'' || c == '"') && !(value && begun)) {
			w->bad = s->p - 1;
			quote = quote ? '\0' : c;
			end = w->bytes.n;
			continue;
		}
		if (value && !quote && !begun && is_blank(c))
			continue;
		begun = begun || !quote;
		escaped = c == '\\' && (!quote ||
		    (quote == '"' && s->n > 0 && memchr("\"\\$`\n", *s->p, 5)));
		if (escaped && s->n == 0 && value)
			break;
		if (escaped && s->n == 0) {
			w->bad = s->p - 1;
			return "has nothing behind it";
		}
		if (escaped) {
			c = *s->p;
			*s = slice_from(*s, 1 + (size_t)(value && slice_starts(*s, S("\r\n"))));
			if (c == '\n' || (value && c == '\r'))
				continue;
		}
		text_char(&w->bytes, c);
		shell = shell || (!quote && !escaped && strchr("|&;<>$`", c));
		if (quote || escaped || !is_blank(c))
			end = w->bytes.n;
	}
	w->bytes.n = end;
	*out = (struct slice){ w->bytes.p + from, end - from };
	text_char(&w->bytes, '\0');
	if (shell && !w->shell.p)
		w->shell = *out;
	return quote ? "is never closed" : NULL;
}

/* Splits s, which holds no NUL, as a shell would: quotes and backslashes are special,
 * nothing else is. Returns NULL, or what is wrong with the character at w->bad. */
static const char *
words_split(struct arena *a, struct slice s, struct words *w)
{
	const char *why = NULL;

	*w = (struct words){ .bytes = { arena_alloc(a, s.n + 1), 0, s.n + 1, false } };
	w->out.v = arena_alloc(a, (s.n / 2 + 1) * sizeof *w->out.v);
	while (!why && s.n > 0) {
		if (is_blank(*s.p) || is_newline(*s.p))
			s = slice_from(s, 1);
		else if (slice_starts(s, S("\\\n")))
			s = slice_from(s, 2);
		else if (!(why = word_lex(w, &s, false, &w->out.v[w->out.n])))
			w->out.n++;
	}
	return why;
}

/* ---- envfile ---- */

/* The index of name in all; all->n: it is not there. */
static int
pairs_find(const struct pairs *all, struct slice name)
{
	int i = 0;

	while (i < all->n && !slice_eq(all->v[i].name, name))
		i++;
	return i;
}

/* One NAME=value at the front of *s; values are written to w. */
static const char *
envfile_pair(struct arena *a, struct slice *s, struct words *w, struct pair *out)
{
	struct slice name = { s->p, 0 };

	while (name.n < s->n && s->p[name.n] != '=' && !is_newline(s->p[name.n]))
		name.n++;
	if (name.n == s->n || s->p[name.n] != '=')
		return "expected NAME=value";
	out->name = slice_trim(name);
	if (slice_starts(out->name, S("export ")) || slice_starts(out->name, S("export\t")))
		out->name = slice_trim(slice_from(out->name, sizeof "export"));
	if (!is_env_name(out->name))
		return "expected a name of letters, digits and _ before the =";
	out->name = arena_dup(a, out->name);
	*s = slice_from(*s, name.n + 1);
	return word_lex(w, s, true, &out->value) ? "a quote is never closed" : NULL;
}

/* NAME=value lines, as systemd's EnvironmentFile= has them: # and ; start comments, a
 * backslash joins lines, values may be quoted; `export ` before a name is skipped; the
 * last of a name wins. Returns NULL, or why not; *bad: what is wrong with the first
 * line left out; *line: of either. Texts are in a. */
static const char *
envfile_parse(struct arena *a, struct slice text, struct pairs *out, unsigned *line,
    const char **bad)
{
	struct words w = { .bytes = { arena_alloc(a, text.n + 1), 0, text.n + 1, false } };
	const char *at = text.n > 0 ? memchr(text.p, '\0', text.n) : NULL, *bad_at = NULL;
	const char *why = at ? "a NUL has no place here" : NULL;
	struct slice rest = text, skipped;
	bool comment = false;
	struct pair pair;
	size_t most = 0;
	int i;

	for (size_t k = 0; k < text.n; k++)
		most += text.p[k] == '=';
	*out = (struct pairs){ arena_alloc(a, most * sizeof *out->v), 0 };
	*bad = NULL;
	while (!why && rest.n > 0) {
		at = rest.p;
		if (comment || is_blank(*at) || is_newline(*at) || *at == '#' || *at == ';') {
			comment = !is_newline(*at) && (comment || !is_blank(*at));
			rest = slice_from(rest, 1);
		} else if (!(why = envfile_pair(a, &rest, &w, &pair))) {
			i = pairs_find(out, pair.name);
			out->v[i] = pair;
			out->n += i == out->n;
		} else if (rest.p == at) { /* no NAME=: skips that line */
			bad_at = *bad ? bad_at : at;
			*bad = *bad ? *bad : why;
			slice_cut(&rest, '\n', &skipped);
			why = NULL;
		}
	}
	at = why ? at : bad_at;
	*line = 1;
	for (const char *p = text.p; at && p < at; p++)
		*line += *p == '\n';
	return why;
}

/* ---- keys ---- */

/* The program and its arguments. */
static bool
command_read(struct reader *r, struct process_read *pr)
{
	struct words w = { .out = pr->args };
	bool split = !toml_get(pr->table, "args");
	const char *why;
	size_t n = 0;

	if (!toml_get(pr->table, "command"))
		return table_error(r, pr->table, "command is missing");
	if (!pr->command.p)
		return false; /* said already */
	if (split && (why = words_split(r->a, pr->command, &w)))
		return key_error(r, "command", "the %c at character %td of it %s", *w.bad,
		    w.bad - pr->command.p + 1, why);
	pr->out.argv = arena_alloc(r->a, ((size_t)w.out.n + 2) * sizeof *pr->out.argv);
	if (!split)
		pr->out.argv[n++] = (char *)(uintptr_t)pr->command.p;
	for (int i = 0; i < w.out.n; i++)
		pr->out.argv[n++] = (char *)(uintptr_t)w.out.v[i].p;
	if (n == 0 || !*pr->out.argv[0])
		return key_error(r, "command", "names no program");
	if (w.shell.p)
		key_warn(r, "command", "no shell is run, so '%s' is passed on "
		    "as it stands; command = \"sh\" with args = [\"-c\", ...] runs one", w.shell.p);
	return true;
}

/* Where the output goes. Words of other keys are no file names. */
static void
sink_read(struct reader *r, struct process_read *pr)
{
	static const char words[] = "prefix  syslog null"; /* enum child_sink: a file has none */
	struct near near = { .word = pr->log }, other = near;
	int i = near_find(&near, words);

	pr->out.sink = i < 0 ? CHILD_FILE : (enum child_sink)i;
	if (pr->out.sink != CHILD_FILE)
		return;
	if (pr->log.n == 0 || near.best.n > 0 || near_find(&other, "off none stdout stderr") >= 0)
		key_error(r, "log", "expected prefix, syslog, null or a file (./%s for one of that "
		    "name), got \"%s\"%s", pr->log.p, pr->log.p, near_text(r->a, &near));
	else
		pr->out.log_path = conf_path(r->conf, pr->log);
}

/* Rules between keys, and presets that follow from other keys. */
static void
process_rules(struct reader *r, struct process_read *pr)
{
	struct process *p = &pr->out;
	bool once = p->oneshot, asked = p->start_on == START_REQUEST;
	bool restart = toml_get(pr->table, "restart");
	const struct rule rules[] = {
		{ once && p->up, "oneshot", "what serves an upstream goes on running; "
		    "[processes.NAME] can be run once, before it (depends_on)", NULL },
		{ once && !p->up && asked, "start_on",
		    "oneshot and start_on = \"request\" exclude each other", NULL },
		{ !once && !p->up && asked, "start_on",
		    "no request can start it: it serves no upstream", NULL },
		{ once && p->replicas > 1, "replicas", "oneshot and %s replicas exclude each other",
		    arena_fmt(r->a, "%d", p->replicas) },
		{ once && restart && p->restart == RESTART_ALWAYS, "restart",
		    "oneshot is run to success once: expected \"on_failure\" or \"never\"", NULL },
		{ p->idle_stop_ms > 0 && !asked, "idle_stop_secs",
		    "needs start_on = \"request\", or nothing would start it again", NULL },
		{ toml_get(pr->table, "backoff_max_secs") && p->backoff_max_ms < p->backoff_ms,
		    "backoff_max_secs", "%s", arena_fmt(r->a, "%g is less than backoff_secs, "
		    "which is %g", p->backoff_max_ms / (double)SECOND_MS,
		    p->backoff_ms / (double)SECOND_MS) },
		{ p->user && !*p->user, "user", "must not be empty", NULL },
		{ p->group && !*p->group, "group", "must not be empty", NULL },
		{ p->ready == READY_HEALTH && p->up && !toml_get(pr->upstream, "health"), "ready",
		    "\"health\" needs [upstreams.%s.health]", p->name },
	};

	rules_check(r, rules, LEN(rules));
	if (once && !restart)
		p->restart = RESTART_ON_FAILURE; /* tried again until it succeeds */
	if (!p->up || once)
		p->ready = READY_EXEC; /* no address to probe */
	p->backoff_max_ms = MAX(p->backoff_max_ms, p->backoff_ms);
	p->dir = p->dir ? p->dir : r->conf->dir;
}

/* ---- this host ---- */

/* A name with a slash: from the process's dir; else: in its PATH. */
static bool
program_found(struct arena *a, const struct process_read *pr)
{
	const struct pairs *from[] = { &pr->envfile, &pr->out.env };
	const char *name = pr->out.argv[0], *path = getenv("PATH");
	struct slice rest, dir;
	struct stat st;
	int k;

	for (size_t i = 0; i < LEN(from); i++)
		if ((k = pairs_find(from[i], S("PATH"))) < from[i]->n)
			path = from[i]->v[k].value.p;
	rest = slice_of(*name == '/' ? "/" : strchr(name, '/') ? "" : path ? path
	    : "/usr/local/bin:/bin:/usr/bin");
	while (slice_cut(&rest, ':', &dir)) {
		const char *file = arena_fmt(a, "%s/%.*s/%s", slice_starts(dir, S("/")) ? ""
		    : pr->out.dir, (int)dir.n, dir.p, name);
		if (stat(file, &st) == 0 && S_ISREG(st.st_mode) && access(file, X_OK) == 0)
			return true;
	}
	return false;
}

/* Warns of what this host lacks: the file may be meant for another host. The master
 * reads the envfile again at each start. */
static void
host_check(struct reader *r, struct process_read *pr)
{
	const struct process *p = &pr->out;
	struct passwd *pw = p->user && *p->user ? user_find(p->user) : NULL;
	const char *file = p->envfile, *why, *bad = NULL;
	const char *program = p->argv ? p->argv[0] : NULL;
	bool inside = program && strchr(program, '/') && *program != '/';
	unsigned line;
	struct stat st;

	if (file && (why = walk_read(r->a, file, ENVFILE_MAX, pw ? pw->pw_uid : ROOT,
	    &pr->envfile_text)))
		key_warn(r, "envfile", "cannot read %s: %s", file, why);
	else if (file && ((why = envfile_parse(r->a, pr->envfile_text, &pr->envfile, &line,
	    &bad)) || bad))
		key_warn(r, "envfile", "%s:%u: %s", file, line, why ? why : bad);
	if (stat(p->dir, &st) < 0 || !S_ISDIR(st.st_mode))
		key_warn(r, "dir", "this host has no directory %s", p->dir);
	else if (program && !strchr(program, '{') && !program_found(r->a, pr))
		key_warn(r, "command", "this host has no program %s%s%s", program,
		    inside ? " in " : "", inside ? p->dir : "");
	if (p->user && *p->user && !pw)
		key_warn(r, "user", "this host has no user %s", p->user);
	if (p->group && *p->group && !getgrnam(p->group))
		key_warn(r, "group", "this host has no group %s", p->group);
}

/* ---- instances ---- */

/* Gives a replica its instance: fills in {index}, adds step to the port. */
static bool
replica_place(struct reader *r, const struct process_read *pr, struct instance *in, int replica,
    int step)
{
	struct addr *ad = &in->addr;
	enum scheme scheme = ad->scheme;
	const char *text = ad->text, *why, *at;

	in->replica = replica;
	if (ad->kind == ADDR_NONE) {
		ad->text = arena_fmt(r->a, "#%d", replica);
		return instance_key_fits(r, pr->upstream, in);
	}
	while (addr_is_unix(ad) && (at = strstr(text, "{index}")))
		text = arena_fmt(r->a, "%.*s%d%s", (int)(at - text), text, replica,
		    at + strlen("{index}"));
	if (!addr_is_unix(ad) && step > 0) {
		if (ad->port + step > PORT_MAX)
			return table_error(r, toml_get(pr->upstream, "port"),
			    "%d replicas from port %u on: the last port is %d", pr->out.replicas,
			    ad->port, PORT_MAX);
		text = arena_fmt(r->a, "%.*s:%d", (int)(strrchr(text, ':') - text), text,
		    ad->port + step);
	}
	if (text != ad->text && !addr_parse(r->a, slice_of(text), ad, &why))
		return table_error(r, pr->upstream, "%s: %s", text, why);
	ad->scheme = scheme;
	return instance_key_fits(r, pr->upstream, in);
}

/* Which replica serves which instance. One address for all replicas, or none: each
 * gets an instance. */
static void
process_instances(struct reader *r, const struct process_read *pr)
{
	struct upstream *up = pr->out.up;
	const struct toml *table = pr->upstream;
	struct instance first = { .up = up, .weight = 1,
		.addr = { .fd = -1, .scheme = up->scheme } };
	bool listed = toml_get(table, "instances"), url = toml_get(table, "url");
	int n = pr->out.replicas, all = listed ? up->n_instances : n;

	if (!listed && up->n_instances == 0 && (url || toml_get(table, "host") ||
	    toml_get(table, "port") || toml_get(table, "socket")))
		return; /* said already */
	if (up->n_instances > 0)
		first = up->instances[0];
	if (n > 1 && listed && n != all)
		key_error(r, "replicas", "%d replicas and %d instances: say as many "
		    "instances as replicas, or no instances at all", n, all);
	else if (n > 1 && !listed && url)
		key_error(r, "replicas", "%d replicas cannot share one url; give "
		    "host and port (and it is port + 0 to %d), a socket with {index} in it, or no "
		    "address: warp chooses", n, n - 1);
	else if (n > 1 && !listed && addr_is_unix(&first.addr) &&
	    !strstr(first.addr.text, "{index}"))
		key_error(r, "replicas", "%d replicas cannot share one socket; put "
		    "{index} into its name, or give no address: warp chooses", n);
	else {
		if (!listed) {
			up->instances = arena_alloc(r->a, (size_t)n * sizeof *up->instances);
			up->n_instances = 0;
		}
		r->where = arena_fmt(r->a, "upstreams.%s", up->name);
		for (int i = 0; i < all; i++) {
			if (!listed)
				up->instances[i] = first;
			if (!replica_place(r, pr, &up->instances[i], n > 1 ? i : 0, listed ? 0 : i))
				break;
			up->n_instances = MAX(up->n_instances, i + 1);
		}
		r->where = pr->where;
	}
}

/* ---- placeholders ---- */

/* Is word, {port} or {socket}, in argv or env? Complains if it has no value. */
static bool
placeholder_find(struct reader *r, const struct process_read *pr, struct slice word, bool port)
{
	const struct process *p = &pr->out;
	const char *key = NULL, *why = NULL;
	int n = p->up ? p->up->n_instances : 0;

	for (char **arg = p->argv; *arg && !key; arg++)
		if (strstr(*arg, word.p))
			key = arg > p->argv && toml_get(pr->table, "args") ? "args" : "command";
	for (int i = 0; i < p->env.n && !key; i++)
		if (memmem(p->env.v[i].value.p, p->env.v[i].value.n, word.p, word.n))
			key = "env";
	if (!key)
		return false;
	if (!p->up)
		why = "it serves no upstream, so there is no address";
	else if (n > p->replicas)
		why = arena_fmt(r->a, "its upstream has %d instances; write out which one is meant",
		    n);
	for (int i = 0; i < n && !why; i++) {
		const struct addr *ad = &p->up->instances[i].addr;
		if (port && ad->kind == ADDR_NONE && p->names_socket)
			why = "with {socket} warp chooses a unix socket, which has no port";
		else if (port && addr_is_unix(ad))
			why = arena_fmt(r->a, "its instance is the unix socket %s, {socket} is its "
			    "path", ad->text);
		else if (!port && ad->kind != ADDR_NONE && !addr_is_unix(ad))
			why = arena_fmt(r->a, "its instance is %s, {port} is its port", ad->text);
	}
	if (why)
		key_error(r, key, "%s: %s", word.p, why);
	return true;
}

/* {port} and {socket}. Sets PORT, if not set, to a port that warp chooses, or to that
 * of a wrapped process. */
static void
placeholders_read(struct reader *r, struct process_read *pr)
{
	struct process *p = &pr->out;
	const struct addr *ad;

	p->names_socket = placeholder_find(r, pr, S("{socket}"), false);
	p->names_port = placeholder_find(r, pr, S("{port}"), true);
	if (!p->up || p->up->n_instances == 0 ||
	    pairs_find(&p->env, S("PORT")) < p->env.n ||
	    pairs_find(&pr->envfile, S("PORT")) < pr->envfile.n)
		return;
	ad = &p->up->instances[0].addr;
	if (ad->kind == ADDR_NONE ? p->names_socket : !p->wrapped || addr_is_unix(ad))
		return;
	if (!p->env.v) /* else there is room for one more */
		p->env.v = arena_alloc(r->a, sizeof *p->env.v);
	p->env.v[p->env.n++] = (struct pair){ S("PORT"), S("{port}") };
	p->names_port = true;
}

/* ---- one process ---- */

static uint64_t
print_text(uint64_t h, struct slice s)
{
	return hash64(hash64(h, &s.n, sizeof s.n), s.p, s.n);
}

/* A hash of what pr is started with. */
static uint64_t
process_print(const struct process_read *pr)
{
	const struct process *p = &pr->out;
	const char *const texts[] = { p->envfile, p->dir, p->user, p->group };
	const int64_t limits[] = { p->nofile, p->as_bytes, p->core };
	uint64_t h = hash64(0, limits, sizeof limits);

	for (char **arg = p->argv; *arg; arg++)
		h = print_text(h, slice_of(*arg));
	for (int i = 0; i < p->env.n; i++)
		h = print_text(print_text(h, p->env.v[i].name), p->env.v[i].value);
	for (size_t i = 0; i < LEN(texts); i++)
		h = print_text(h, slice_of(texts[i] ? texts[i] : ""));
	return print_text(h, pr->envfile_text);
}

static void
process_enter(struct reader *r, const struct process_read *pr)
{
	r->where = pr->where;
	r->table = pr->table;
}

/* Reads pr, whose upstream and section are known; argv, borrowed, replaces its
 * command. */
static void
process_read(struct reader *r, struct process_read *pr, char **argv)
{
	struct process *p = &pr->out;

	process_enter(r, pr);
	if (pr->table && pr->table->kind != TOML_TABLE) {
		table_error(r, pr->table, "expected a table, got %s", value_text(r->a, pr->table));
		return;
	}
	if (!p->up)
		name_check(r, pr->table);
	p->line = pr->table ? pr->table->line : 0;
	p->nofile = p->as_bytes = p->core = -1;
	section_read(r, p->up ? SEC_UPSTREAM_PROCESS : SEC_PROCESS, pr->where, pr->table, pr);
	if (strlen(p->name) > PROC_NAME_MAX - PROC_NUMBER_MAX)
		table_error(r, pr->table, "a name has at most %d bytes",
		    PROC_NAME_MAX - PROC_NUMBER_MAX);
	p->argv = argv;
	if (!argv && !command_read(r, pr))
		p->argv = NULL;
	sink_read(r, pr);
	process_rules(r, pr);
	host_check(r, pr);
	if (pr->upstream)
		process_instances(r, pr);
	if (!p->argv)
		return;
	placeholders_read(r, pr);
	p->print = process_print(pr);
}

/* ---- all ---- */

static void
process_add(struct process_list *all, const struct toml *table, struct process_read pr)
{
	int i = all->n++;

	pr.table = table;
	for (; i > 0 && all->v[i - 1].table->line > table->line; i--)
		all->v[i] = all->v[i - 1];
	all->v[i] = pr;
}

/* Lists the tables of processes. False: too many. */
static bool
processes_collect(struct reader *r, struct process_list *all)
{
	struct conf *c = r->conf;
	const struct toml *own = toml_get(c->tree, "processes"), *up, *v;

	if (own && own->kind == TOML_ARRAY)
		table_error(r, own, "expected [processes.NAME], got a list");
	if (own && own->kind != TOML_TABLE)
		own = NULL; /* said already */
	if (own && own->count > PROCS_MAX)
		return table_error(r, own, "%zu processes, at most %d fit", own->count, PROCS_MAX);
	all->v = arena_alloc(r->a, ((size_t)c->n_upstreams + (own ? own->count : 0)) *
	    sizeof *all->v);
	up = c->n_upstreams > 0 ? toml_get(c->tree, "upstreams")->first : NULL;
	for (int i = 0; i < c->n_upstreams; i++, up = up->next)
		if ((v = toml_get(up, "process")) && v->kind == TOML_TABLE)
			process_add(all, v, (struct process_read){ .upstream = up, .out = {
			    .name = up->key.p, .up = &c->upstreams[i] }, .where =
			    arena_fmt(r->a, "upstreams.%s.process", up->key.p) });
	for (v = own ? own->first : NULL; v; v = v->next)
		process_add(all, v, (struct process_read){ .out = { .name = v->key.p },
		    .where = arena_fmt(r->a, "processes.%s", v->key.p) });
	return true;
}

static struct process_read *
process_find(const struct process_list *all, struct slice name)
{
	for (int i = 0; i < all->n; i++)
		if (slice_eq(name, slice_of(all->v[i].out.name)))
			return &all->v[i];
	return NULL;
}

/* Names of processes differ, also from NAME.1 of a replica. */
static void
names_check(struct reader *r, const struct process_list *all)
{
	for (int i = 0; i < all->n; i++) {
		struct process_read *pr = &all->v[i], *other;
		struct slice name = slice_of(pr->out.name);
		const char *dot = strrchr(name.p, '.');
		int64_t replica = dot ? slice_uint(slice_of(dot + 1), INT_MAX) : -1;

		if ((other = process_find(all, name)) != pr) {
			process_enter(r, pr->out.up ? other : pr);
			table_error(r, r->table, "the process of upstream %s has that name", name.p);
		}
		name.n = dot ? (size_t)(dot - name.p) : 0;
		other = process_find(all, name);
		process_enter(r, pr);
		if (other && other->out.replicas > MAX(replica, 1) && replica >= 0)
			table_error(r, r->table, "a replica of %s has that name", other->out.name);
	}
}

/* What pr waits for, each once. */
static void
after_read(struct reader *r, const struct process_list *all, struct process_read *pr)
{
	struct process *p = &pr->out;
	int k;

	process_enter(r, pr);
	p->after = arena_alloc(r->a, (size_t)pr->depends_on.n * sizeof *p->after);
	for (int i = 0; i < pr->depends_on.n; i++) {
		struct near near = { .word = pr->depends_on.v[i] }, up = near;
		struct process_read *found = process_find(all, near.word);

		for (k = 0; k < all->n && !found; k++)
			near_offer(&near, slice_of(all->v[k].out.name));
		if (!found && upstream_find(r->conf, &up))
			key_error(r, "depends_on", "upstream %s has no process", near.word.p);
		else if (!found)
			key_error(r, "depends_on", "there is no process '%s'%s", near.word.p,
			    near_text(r->a, &near));
		else if (found->out.start_on == START_REQUEST && p->start_on == START_BOOT)
			key_error(r, "depends_on", "%s is started by a request, so this one would "
			    "wait for one", near.word.p);
		for (k = 0; k < p->n_after && found && p->after[k] != &found->out; k++)
			;
		if (found && k == p->n_after)
			p->after[p->n_after++] = &found->out;
	}
}

/* Puts p into the start order, behind all that it depends on; path leads to p.
 * False: a cycle, said. */
static bool
order_visit(struct reader *r, struct process *p, struct process **path, int depth)
{
	struct process_read *pr = (struct process_read *)p;
	struct conf *c = r->conf;
	const char *text = p->name;

	if (pr->ordered)
		return true;
	for (int i = depth - 1; i >= 0; i--) {
		text = arena_fmt(r->a, "%s -> %s", path[i]->name, text);
		if (path[i] == p) {
			process_enter(r, pr);
			return key_error(r, "depends_on", "a cycle: %s", text);
		}
	}
	path[depth] = p;
	for (int i = 0; i < p->n_after; i++)
		if (!order_visit(r, p->after[i], path, depth + 1))
			return false;
	pr->ordered = true;
	c->processes[c->n_processes++] = p;
	return true;
}

/* All must fit on the board. */
static void
processes_count(struct reader *r, const struct process_list *all)
{
	const struct conf *c = r->conf;
	int replicas = 0, instances = 0;

	r->where = "";
	for (int i = 0; i < all->n; i++)
		replicas += all->v[i].out.replicas;
	for (int i = 0; i < c->n_upstreams; i++)
		instances += c->upstreams[i].n_instances;
	if (all->n > 0 && replicas > PROCS_MAX)
		table_error(r, all->v[0].table, "%d processes with their replicas, at most %d fit",
		    replicas, PROCS_MAX);
	if (all->n > 0 && instances > INSTANCES_MAX && c->diags.errors == 0)
		table_error(r, all->v[0].table, "%d instances with those of replicas, at most %d "
		    "fit", instances, INSTANCES_MAX);
}

/* All processes, and the instances that they serve; after upstreams_read. Processes
 * start after what they depend on, otherwise in file order. If there are any, requests
 * to every upstream wait: a process may serve one that does not name it. */
static void
processes_read(struct reader *r)
{
	struct conf *c = r->conf;
	const struct toml *up = toml_get(c->tree, "upstreams");
	struct process_list all = { 0 };
	struct process **path;

	if (!processes_collect(r, &all))
		return;
	up = up ? up->first : NULL;
	for (int i = 0; i < c->n_upstreams && all.n > 0; i++, up = up->next)
		if (up->kind == TOML_TABLE && !toml_get(up, "hold_secs"))
			c->upstreams[i].hold_ms = HOLD_PROCESS_MS;
	for (int i = 0; i < all.n; i++) {
		if (all.v[i].out.up)
			all.v[i].out.up->process = &all.v[i].out;
		process_read(r, &all.v[i], NULL);
	}
	for (int i = 0; i < all.n; i++)
		after_read(r, &all, &all.v[i]);
	names_check(r, &all);
	processes_count(r, &all);
	path = arena_alloc(r->a, ((size_t)all.n + 1) * sizeof *path);
	c->processes = arena_alloc(r->a, (size_t)all.n * sizeof *c->processes);
	for (int i = 0; i < all.n && order_visit(r, &all.v[i].out, path, 0); i++)
		;
	r->where = "";
	r->table = NULL;
}

/* Makes argv the process behind up, which has one instance; its output goes to warp's.
 * For `warp -- CMD`. */
static void
process_wrap(struct reader *r, struct upstream *up, char **argv)
{
	struct conf *c = r->conf;
	struct process_read *pr = arena_alloc(r->a, sizeof *pr);

	*pr = (struct process_read){ .where = up->name, .out = { .name = up->name, .up = up,
	    .wrapped = true } };
	up->process = &pr->out;
	up->instances[0].replica = 0;
	up->hold_ms = HOLD_PROCESS_MS;
	process_read(r, pr, argv);
	c->processes = arena_alloc(r->a, sizeof *c->processes);
	c->processes[c->n_processes++] = &pr->out;
}

/* ==== routes =================================================================
 * Owns    the compiled expressions, until conf_free.
 * Offers  routes_read, path_words[].
 * Calls   base, arena, diag, toml, http, path, route, hints, values, upstreams. */

#define REGEX_WHY 128 /* bytes of what regerror says */

/* ---- hosts in other letters; RFC 3492 ---- */

enum { PUNY_BASE = 36, PUNY_MIN = 1, PUNY_MAX = 26, PUNY_SKEW = 38, PUNY_DAMP = 700,
	PUNY_BIAS = 72, PUNY_FIRST = 0x80, LABEL_MAX = 63 };

/* A generalized variable-length integer. */
static void
puny_number(struct text *t, uint32_t q, uint32_t bias)
{
	static const char digits[] = LOWER "0123456789";

	for (uint32_t k = PUNY_BASE;; k += PUNY_BASE) {
		uint32_t least = k <= bias ? PUNY_MIN : MIN(k - bias, (uint32_t)PUNY_MAX);
		if (q < least)
			break;
		text_char(t, digits[least + (q - least) % (PUNY_BASE - least)]);
		q = (q - least) / (PUNY_BASE - least);
	}
	text_char(t, digits[q]);
}

/* Writes the label of n code points: behind `xn--`, unless all are ASCII. */
static void
label_write(struct text *t, const uint32_t *c, uint32_t n)
{
	uint32_t done, basic = 0, delta = 0, bias = PUNY_BIAS, at = PUNY_FIRST, next;

	for (uint32_t i = 0; i < n; i++)
		basic += c[i] < PUNY_FIRST;
	text_str(t, basic < n ? "xn--" : "");
	for (uint32_t i = 0; i < n; i++)
		if (c[i] < PUNY_FIRST)
			text_char(t, (char)c[i]);
	text_str(t, basic > 0 && basic < n ? "-" : "");
	for (done = basic; done < n; delta++, at++) {
		next = UINT32_MAX;
		for (uint32_t i = 0; i < n; i++)
			if (c[i] >= at && c[i] < next)
				next = c[i];
		delta += (next - at) * (done + 1);
		at = next;
		for (uint32_t i = 0; i < n; i++) {
			delta += c[i] < at;
			if (c[i] != at)
				continue;
			puny_number(t, delta, bias);
			delta /= done == basic ? PUNY_DAMP : 2; /* 6.1: adapt */
			delta += delta / ++done;
			for (bias = 0; delta > (PUNY_BASE - PUNY_MIN) * PUNY_MAX / 2; bias += PUNY_BASE)
				delta /= PUNY_BASE - PUNY_MIN;
			bias += (PUNY_BASE - PUNY_MIN + 1) * delta / (delta + PUNY_SKEW);
			delta = 0;
		}
	}
}

/* host as browsers send it: `bücher.example` is xn--bcher-kva.example. Empty: host is
 * no UTF-8, or too long. */
static struct slice
host_ascii(struct arena *a, struct slice host)
{
	static const unsigned char lead[] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
	char b[HOST_MAX + 1];
	struct text t = { b, 0, sizeof b, false };
	struct slice rest = host, label;
	uint32_t c[LABEL_MAX], n;
	size_t bytes;

	while (slice_cut(&rest, '.', &label)) {
		const unsigned char *p = (const unsigned char *)label.p, *end = p + label.n;
		while (p < end && *p < PUNY_FIRST)
			p++;
		if (p == end)
			text_add(&t, label);
		p = p == end ? end : (const unsigned char *)label.p;
		for (n = 0; p < end; p += bytes, n++) {
			if ((bytes = utf8_length(p, end)) == 0 || n == LABEL_MAX)
				return S("");
			c[n] = p[0] & lead[bytes];
			for (size_t i = 1; i < bytes; i++)
				c[n] = c[n] << 6 | (p[i] & 0x3fu);
			c[n] = (uint32_t)towlower((wint_t)c[n]); /* as browsers do */
		}
		label_write(&t, c, n);
		if (rest.p)
			text_char(&t, '.');
	}
	return t.full ? S("") : arena_dup(a, text_slice(&t));
}

/* ---- conditions ---- */

/* `*.example.com` becomes `.example.com`; `*` is every host. Only a port may stand
 * behind a colon: `http://x` is refused. */
static void
route_host(struct reader *r, struct route_read *rr)
{
	const char *end = rr->host.p, *colon;
	struct route *out = &rr->out;
	struct slice host;
	bool wild;

	if (!end || slice_eq(rr->host, S("*")))
		return;
	end = *end == '[' ? strchr(end, ']') : end;
	colon = end ? strchr(end, ':') : NULL;
	host = host_normal(host_ascii(r->a, rr->host));
	wild = slice_starts(host, S("*."));
	out->host_kind = wild ? HOST_WILD : HOST_EXACT;
	out->host = arena_dup(r->a, slice_from(host, wild));
	if (out->host.n < 1 + (size_t)wild || strcspn(out->host.p, "*/ \t,@\"") != out->host.n ||
	    (colon && slice_uint(slice_of(colon + 1), PORT_MAX) < 0))
		key_error(r, "host", "expected a host such as example.com or *.example.com, "
		    "got %s", value_text(r->a, toml_get(r->table, "host")));
}

/* path_prefix or path_exact, normalised as requests are. */
static void
route_path_text(struct reader *r, struct route *out, const struct toml *v, struct slice s)
{
	struct path_view view;

	out->path = S("/"); /* if s is wrong */
	if (out->path_kind == PATH_PREFIX && slice_ends(s, S("*")))
		s = arena_dup(r->a, (struct slice){ s.p, s.n - 1 }); /* as in Caddy */
	if (!slice_starts(s, S("/"))) {
		value_error(r, v->key.p, v, "a path starts with '/', got %s", value_text(r->a, v));
	} else if (s.n > TARGET_MAX || strpbrk(s.p, "?#")) {
		value_error(r, v->key.p, v, s.n > TARGET_MAX ? "the path is too long"
		    : "a path holds no '?' or '#'; see query");
	} else if (path_normalise(s, &view) < 0) {
		value_error(r, v->key.p, v, "%s is no path a request can have",
		    value_text(r->a, v));
	} else {
		out->path = arena_dup(r->a, view.path);
		if (memchr(s.p, '*', s.n))
			value_warn(r, v,
			    "'*' is no wildcard here: only paths with that character match");
		if (!slice_eq(s, out->path))
			value_warn(r, v, "paths are compared in normal form: taken as \"%s\"",
			    out->path.p);
	}
}

/* Names in the file and in -t. */
static const char *const path_words[] = { [PATH_ANY] = "", [PATH_PREFIX] = "path_prefix",
	[PATH_EXACT] = "path_exact", [PATH_REGEX] = "path_regex" };

static void
route_path(struct reader *r, struct route_read *rr)
{
	struct route *out = &rr->out;
	const struct toml *v, *said = NULL;
	char why[REGEX_WHY];
	int err;

	for (enum path_kind kind = PATH_PREFIX; kind <= PATH_REGEX; kind++) {
		struct slice s = rr->path[kind];
		if (!(v = toml_get(r->table, path_words[kind])) || !s.p)
			continue;
		if (said) {
			table_error(r, v, "%s and %s exclude each other", said->key.p, v->key.p);
			continue;
		}
		said = v;
		out->path_kind = kind;
		if (kind != PATH_REGEX) {
			route_path_text(r, out, v, s);
			continue;
		}
		out->path = s;
		if (s.n > 1 && s.p[0] == '^' && isalnum((unsigned char)s.p[1]))
			value_warn(r, v, "paths begin with '/': this matches none");
		if ((err = regcomp(&out->regex, s.p, REG_EXTENDED)) == 0)
			continue;
		regerror(err, &out->regex, why, sizeof why);
		out->path_kind = PATH_ANY; /* nothing to free */
		value_error(r, v->key.p, v, "not a POSIX extended regular expression: %s", why);
	}
}

/* Methods are case-sensitive (RFC 9110 9.1); here known ones may be in any case. */
static void
route_methods(struct reader *r, struct route_read *rr)
{
	const struct toml *v = toml_get(r->table, "methods");
	struct slices *other = &rr->out.methods_other;

	if (v && v->kind == TOML_ARRAY && v->count == 0)
		value_error(r, "methods", v, "expected at least one method");
	other->v = arena_alloc(r->a, (size_t)rr->methods.n * sizeof *other->v);
	for (int i = 0; i < rr->methods.n; i++) {
		struct slice s = rr->methods.v[i], upper = arena_dup(r->a, s);
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
route_redirect(struct reader *r, struct route *out, const struct toml *v)
{
	struct slice to = out->redirect;

	out->action = ACT_REDIRECT;
	if (out->status > 303 && out->status < 307) /* of 301 to 308 */
		value_error(r, "status", v, "expected 301, 302, 303, 307 or 308");
	if (to.n == 0 || strpbrk(to.p, " \t") || !is_field_value(to))
		value_error(r, "redirect", v, "expected a URL without blanks");
	for (const char *p = to.p; (p = strchr(p, '{')); p++) {
		struct near near = { .word = { p + 1, strcspn(p + 1, "}") } };
		if (near_find(&near, "host uri path") < 0 || !p[near.word.n + 1])
			value_error(r, "redirect", v, "expected {host}, {uri} or {path}, "
			    "got %.*s", (int)strcspn(p, "} ") + 1, p);
	}
}

/* What belongs to static_dir, and only there. */
static void
route_files(struct reader *r, const struct route *out)
{
	static const char *const keys[] = { "index", "fallback", "listing", "dot_files",
		"cache_control" };
	const struct toml *v;
	struct stat st;

	for (size_t i = 0; i < LEN(keys); i++)
		if (out->action != ACT_FILES && (v = toml_get(r->table, keys[i])))
			table_error(r, v, "%s belongs to static_dir", keys[i]);
	if (out->action != ACT_FILES)
		return;
	if (out->files.fallback.p && (out->files.fallback.n < 2 || strstr(out->files.fallback.p, "..")))
		key_error(r, "fallback", "expected a file of static_dir");
	if (!is_field_value(out->files.cache_control))
		key_error(r, "cache_control", "a header field cannot hold control characters");
	v = toml_get(r->table, "static_dir");
	if (out->files.dir && !r->conf->server.chroot && (stat(out->files.dir, &st) < 0 ||
	    !S_ISDIR(st.st_mode)))
		value_warn(r, v, "there is no directory %s now", out->files.dir);
}

static void
route_action(struct reader *r, struct route_read *rr)
{
	static const char *const ways[] = { "upstream", "redirect", "respond", "static_dir", NULL };
	const struct toml *v = one_of(r, r->table, ways, "an action: upstream, static_dir, "
	    "redirect or respond"), *status = toml_get(r->table, "status");
	bool respond = v && slice_eq(v->key, S("respond"));
	struct near near = { .word = rr->upstream };
	struct route *out = &rr->out;

	if (!v)
		return;
	if (slice_eq(v->key, S("upstream")) && rr->upstream.p) {
		out->action = ACT_UPSTREAM;
		if (!(out->upstream = upstream_find(r->conf, &near)))
			key_error(r, "upstream", "there is no [upstreams.%s]%s", rr->upstream.p,
			    near_text(r->a, &near));
	}
	if (slice_eq(v->key, S("static_dir")))
		out->action = ACT_FILES;
	route_files(r, out);
	if (slice_eq(v->key, S("redirect")) && out->redirect.p)
		route_redirect(r, out, status ? status : v);
	else if (status)
		table_error(r, status, "status belongs to redirect%s",
		    respond ? "; write it into respond" : "");
	if (!respond || v->kind != TOML_TABLE)
		return;
	out->action = ACT_RESPOND;
	out->status = rr->respond_status;
	if ((out->status == 204 || out->status == 304) && out->body.n > 0)
		value_error(r, "respond", v, "an answer with status %d has no body", out->status);
	if (!is_field_value(out->content_type))
		value_error(r, "respond", v, "content_type cannot hold control characters");
	if (out->body.n == 0 && !toml_get(v, "content_type"))
		out->content_type = S("");
}

/* ---- what happens on the way ---- */

/* Bytes of what looks like a variable of warp or nginx at p in text. `$5.00` has one
 * only where there are groups. */
static size_t
literal_len(struct slice text, const char *p, bool groups)
{
	static const char *const names[] = { "host", "path", "query", "uri", "scheme", "port",
		"method", "client", "client_port", "request_id", "route", "upstream", "instance",
		"time", "args", "remote_addr", "request_uri", "server_name" };
	static const char *const kinds_of[] = { "header.", "cookie.", "query.", "tls." };
	bool braces = *p == '{';
	struct slice in = { p + 1, braces ? strcspn(p + 1, "}") : strspn(p + 1, LOWER "_") };
	bool is = !braces && slice_starts(in, S("http_"));

	if (!braces && p[1] >= '1' && p[1] <= '9')
		return groups || (p[2] != '.' && !isdigit((unsigned char)p[2])) ? 2 : 0;
	if (braces && (!in.p[in.n] || (p > text.p && p[-1] == '$'))) /* of a script */
		return 0;
	for (size_t i = 0; i < LEN(names); i++)
		is |= slice_ieq(in, slice_of(names[i]));
	for (size_t i = 0; braces && i < LEN(kinds_of); i++)
		is |= slice_starts(in, slice_of(kinds_of[i])) &&
		    is_token(slice_from(in, strlen(kinds_of[i])));
	return is ? in.n + (braces ? 2 : 1) : 0;
}

/* Warns of what looks like a variable, with one of signs, but goes out as it is; v:
 * where text is said, NULL: nowhere. */
static void
literal_warn(struct reader *r, const struct toml *v, const char *key, const struct route *out,
    struct slice text, const char *signs)
{
	const char *p = v && text.n > 0 ? text.p : "";
	size_t n;

	for (; (p = strpbrk(p, signs)); p++)
		if ((n = literal_len(text, p, out->path_kind == PATH_REGEX)) > 0)
			value_warn(r, v, "%s: variables are not supported yet here: %.*s goes out "
			    "as it stands", key, (int)n, p);
}

/* `$1` to `$9` need their groups. */
static void
route_rewrite(struct reader *r, struct route_read *rr)
{
	const struct toml *t = r->table, *rewrite = toml_get(t, "rewrite");
	struct route *out = &rr->out;

	out->has_rewrite = rewrite && out->rewrite.p;
	if (out->strip_prefix && rewrite)
		table_error(r, rewrite, "strip_prefix and rewrite exclude each other");
	if (out->strip_prefix && !toml_get(t, "path_prefix") && !toml_get(t, "path_exact") &&
	    !toml_get(t, "path_regex"))
		table_error(r, toml_get(t, "strip_prefix"), "strip_prefix needs path_prefix");
	if (out->has_rewrite && (strpbrk(out->rewrite.p, "?#") || !is_field_value(out->rewrite)))
		key_error(r, "rewrite", "expected a path, without query");
	for (const char *p = out->has_rewrite ? out->rewrite.p : ""; (p = strchr(p, '$')); p++) {
		if (!isdigit((unsigned char)p[1]))
			continue;
		if (out->path_kind != PATH_REGEX)
			key_error(r, "rewrite", "$%c needs path_regex", p[1]);
		else if ((size_t)(p[1] - '0') > out->regex.re_nsub)
			key_error(r, "rewrite", "$%c: path_regex has %zu group%s", p[1],
			    out->regex.re_nsub, out->regex.re_nsub == 1 ? "" : "s");
	}
}

static void
route_read(struct reader *r, struct route *out, const struct toml *t)
{
	const struct { const char *key; const struct pairs *pairs; } fields[] = {
		{ "add_headers", &out->add_headers },
		{ "add_response_headers", &out->add_response_headers },
	};
	const struct toml *rate = toml_get(t, "rate_limit");
	struct route_read rr = { .out = { .line = t->line } };

	if (t->kind != TOML_TABLE) {
		table_error(r, t, "expected [[routes]], got %s", value_text(r->a, t));
		return;
	}
	r->table = t;
	section_read(r, SEC_ROUTE, "routes", t, &rr);
	route_host(r, &rr);
	route_path(r, &rr);
	route_methods(r, &rr);
	route_action(r, &rr);
	route_rewrite(r, &rr);
	*out = rr.out;
	if (!toml_get(t, "buffer_request"))
		out->buffer_request = -1;
	out->has_max_body = toml_get(t, "max_body_bytes");
	if (!toml_get(t, "gzip"))
		out->gzip = r->conf->middleware.gzip;
	if (rate && rate->kind == TOML_TABLE && !toml_get(rate, "requests"))
		table_error(r, rate, "rate_limit needs requests");
	if (out->rate.burst == 0)
		out->rate.burst = out->rate.requests;
	if (out->require_auth && r->conf->server.admin_token.n == 0)
		diag_add(&r->conf->diags, DIAG_WARNING, t->line, t->col,
		    "require_auth without server.admin_token: every request gets 401");
	for (size_t i = 0; i < LEN(fields); i++)
		for (int k = 0; k < fields[i].pairs->n; k++)
			literal_warn(r, toml_get(t, fields[i].key), fields[i].key, out,
			    fields[i].pairs->v[k].value, "${");
	literal_warn(r, toml_get(t, "redirect"), "redirect", out, out->redirect, "$");
	literal_warn(r, toml_get(t, "rewrite"), "rewrite", out, out->rewrite, "{");
	literal_warn(r, toml_get(t, "respond"), "respond.body", out, out->body, "{");
}

/* Without routes a lone upstream takes all. */
static void
routes_read(struct reader *r, const struct toml *list)
{
	struct conf *c = r->conf;
	size_t n = list ? list->count : 0;

	r->where = "routes";
	if (list && list->kind != TOML_ARRAY) {
		table_error(r, list, "expected [[routes]], got %s", value_text(r->a, list));
		return;
	}
	c->table.routes = arena_alloc(r->a, MAX(n, (size_t)1) * sizeof *c->table.routes);
	for (const struct toml *t = list ? list->first : NULL; t; t = t->next)
		route_read(r, &c->table.routes[c->table.n++], t);
	if (n == 0 && c->n_upstreams == 1)
		c->table.routes[c->table.n++] = (struct route){
			.line = c->upstreams[0].line,
			.action = ACT_UPSTREAM,
			.upstream = &c->upstreams[0],
			.buffer_request = -1,
			.websocket = true,
		};
	r->where = "";
	r->table = NULL;
	if (c->table.n == 0 && c->n_processes == 0 && c->diags.errors == 0)
		table_error(r, r->table, "nothing to do: %s", c->n_upstreams == 0
		    ? "no [[routes]] and no [upstreams.NAME]"
		    : "several upstreams and no [[routes]] to choose from them");
}

/* ==== conf ===================================================================
 * Owns    nothing: the caller owns a configuration.
 * Offers  conf_load, conf_simple, conf_free.
 * Calls   base, arena, walk, diag, toml, path, addr, resp, route, x509, certs, keys, hints,
 *         values, upstreams, processes, routes. */

#define HTTPS_PORT 443

/* Reads a top-level section into obj and makes it the section in hand. Returns its
 * table; NULL: not there, or no table. */
static const struct toml *
top_read(struct reader *r, enum section_id id, void *obj)
{
	const char *name = sections[id].name;
	const struct toml *t = toml_get(r->conf->tree, name);

	r->where = "";
	if (t && t->kind == TOML_ARRAY)
		table_error(r, t, "expected one [%s], got a list", name);
	t = t && t->kind == TOML_TABLE ? t : NULL;
	section_read(r, id, name, t, obj);
	r->where = name;
	return t;
}

/* ---- [server] ---- */

/* Can address a be listened on? False: said. */
static bool
listen_ok(struct reader *r, const struct addr *a, const char *key)
{
	if (a->scheme == SCHEME_UWSGI)
		return key_error(r, key, "%s: not supported yet", a->text);
	return a->kind != ADDR_NAME ||
	    key_error(r, key, "%s: give an IP address, not a name", a->text);
}

/* Adds a to the listeners, once. A wider address serves those that it covers, as in
 * nginx. */
static void
listen_add(struct reader *r, const struct addr *a, const char *key)
{
	struct server_conf *s = &r->conf->server;
	int n = 0;

	if (!listen_ok(r, a, key))
		return;
	for (int i = 0; i < s->n_listens; i++) {
		const struct addr *old = &s->listens[i];
		bool covers = addr_covers(old, a);
		if ((covers || addr_covers(a, old)) &&
		    (old->scheme == SCHEME_HTTPS) != (a->scheme == SCHEME_HTTPS)) {
			key_error(r, key, strcmp(old->text, a->text) == 0
			    ? "%s cannot be for http and https"
			    : "%s is for http, and the other one of that port for https", a->text);
			return;
		}
		if (covers)
			return;
	}
	for (int i = 0; i < s->n_listens; i++)
		if (!addr_covers(a, &s->listens[i]))
			s->listens[n++] = s->listens[i];
	s->listens[n++] = *a;
	s->n_listens = n;
}

/* Adds address a, which key says; for TLS only if that is on. */
static void
listen_say(struct reader *r, const struct addr *a, const char *key)
{
	const struct tls_conf *t = &r->conf->tls;
	struct addr https = *a;

	https.scheme = SCHEME_HTTPS;
	if (a->scheme != SCHEME_HTTPS && !slice_starts(slice_of(key), S("https_")))
		listen_add(r, a, key);
	else if (a->scheme == SCHEME_HTTP || a->scheme == SCHEME_UWSGI)
		key_error(r, key, "%s is not said to be https", a->text);
	else if (t->on)
		listen_add(r, &https, key);
	else if (!t->broken) /* what is wrong is said already */
		key_warn(r, key, "%s%snot bound, as %s",
		    strcmp(key, "https_port") == 0 ? "" : a->text,
		    strcmp(key, "https_port") == 0 ? "" : ": ", t->enabled
		    ? "[tls] has neither cert nor domains" : "TLS is not enabled (tls.enabled)");
}

static void
listen_say_text(struct reader *r, const char *text, const char *key)
{
	const char *why;
	struct addr a;

	if (addr_parse(r->a, slice_of(text), &a, &why))
		listen_say(r, &a, key);
	else
		diag_add(&r->conf->diags, DIAG_ERROR, 0, 0, "cannot listen on %s: %s", text, why);
}

/* Lists all addresses to listen on; forced, -l's address, replaces http_port and
 * listen. */
static void
server_read(struct reader *r, const char *forced)
{
	struct conf *c = r->conf;
	struct server_conf *s = &c->server;
	struct server_read sr = { 0 };

	top_read(r, SEC_SERVER, &sr);
	*s = sr.out;
	s->listens = arena_alloc(r->a,
	    ((size_t)sr.listen.n + (size_t)sr.https_listen.n + 3) * sizeof *s->listens);
	if (forced)
		listen_say_text(r, forced, "listen");
	else if (sr.http_port > 0)
		listen_say_text(r, arena_fmt(r->a, ":%u", sr.http_port), "http_port");
	for (int i = 0; !forced && i < sr.listen.n; i++)
		listen_say(r, &sr.listen.v[i], "listen");
	if (sr.https_port > 0)
		listen_say_text(r, arena_fmt(r->a, ":%u", sr.https_port), "https_port");
	for (int i = 0; i < sr.https_listen.n; i++)
		listen_say(r, &sr.https_listen.v[i], "https_listen");
	if (!forced && s->n_listens == 0 && c->diags.errors == 0) {
		s->listen_is_default = true;
		listen_say_text(r, arena_fmt(r->a, ":%d", PORT_PRESET), "http_port");
	}
	if (s->user && !user_find(s->user))
		key_warn(r, "user", "this host has no user %s", s->user);
	if (s->group && !getgrnam(s->group))
		key_warn(r, "group", "this host has no group %s", s->group);
	if (!s->user && geteuid() == 0)
		diag_add(&c->diags, DIAG_WARNING, 0, 0, "workers run as root; set server.user");
}

/* ---- [tls] ---- */

/* The names that ACME is asked for, in lower case, each once. */
static void
domains_lower(struct reader *r, const struct slices *said)
{
	struct slices *out = &r->conf->tls.domains;

	out->v = arena_alloc(r->a, (size_t)said->n * sizeof *out->v);
	for (int i = 0; i < said->n; i++) {
		struct slice name = x509_host(r->a, said->v[i]);
		bool twice = false;
		for (int k = 0; k < out->n; k++)
			twice |= slice_eq(out->v[k], name);
		if (slice_starts(name, S("*.")))
			key_error(r, "domains", "%s: a wildcard is proved by "
			    "DNS, which warp does not write; name each host", name.p);
		else if (!name_is_dns(name) || memchr(name.p, '_', name.n) ||
		    !strpbrk(name.p, LOWER))
			key_error(r, "domains", "'%s' is no name of a host", said->v[i].p);
		else if (!twice)
			out->v[out->n++] = name;
	}
	if (out->n > ACME_NAMES_MAX)
		key_error(r, "domains", "%d names, at most %d fit in a certificate", out->n,
		    ACME_NAMES_MAX);
}

/* Adds a pair of files, whose cert is said at v; without key, cert's file has it. */
static void
files_add(struct tls_conf *t, struct cert_files f, const struct toml *v)
{
	f.key = f.key ? f.key : f.cert;
	f.line = v->vline;
	f.col = v->vcol;
	t->files[t->n_files++] = f;
}

/* cert and key, then certs. */
static void
files_lower(struct reader *r, const struct tls_read *tr, const struct toml *certs)
{
	struct conf *c = r->conf;
	size_t n = certs && certs->kind == TOML_ARRAY ? certs->count : 0;
	struct cert_files f = { tr->cert, tr->key, 0, 0 };

	c->tls.files = arena_alloc(r->a, (n + 1) * sizeof *c->tls.files);
	if (tr->cert)
		files_add(&c->tls, f, conf_said(c, "tls", "cert")->value);
	else if (tr->key)
		key_error(r, "key", "needs tls.cert, the certificate");
	r->where = "tls.certs";
	for (const struct toml *v = n > 0 ? certs->first : NULL; v; v = v->next) {
		if (v->kind != TOML_TABLE)
			continue; /* said already */
		f = (struct cert_files){ .cert = NULL };
		section_read(r, SEC_CERT, "tls.certs", v, &f);
		if (f.cert)
			files_add(&c->tls, f, toml_get(v, "cert"));
		else if (!toml_get(v, "cert"))
			table_error(r, v, "expected cert, the certificate");
	}
	r->where = "tls";
}

/* The bundle at a key of [tls]; NULL: said why not. */
static struct trust *
tls_trust(struct reader *r, const char *key, const char *file)
{
	const char *why;
	struct trust *t = trust_get(r, file, &why);

	if (why)
		key_error(r, key, "%s", why);
	return t;
}

/* Reads the keys of [tls]; tls_load loads the certificates. */
static void
tls_read(struct reader *r)
{
	struct conf *c = r->conf;
	struct tls_read tr = { .enabled = false };
	int errors = c->diags.errors;
	const struct toml *certs = toml_get(top_read(r, SEC_TLS, &tr), "certs");
	const struct tls_conf *t = &tr.out;
	const char *url = t->acme_url.p, *mail = t->acme_email.p, *hmac = t->eab_hmac.p;
	const char *at = mail ? strchr(mail, '@') : NULL;
	const struct rule acme[] = { /* what the ACME server is told must be valid */
		{ !slice_starts(t->acme_url, S("https://")) || t->acme_url.n == 8 ||
		    strpbrk(url, " \t\r\n\"\\"), "acme_url",
		    "expected the https:// URL of an ACME directory, got \"%s\"", url },
		{ mail && (!at || at == mail || !at[1] || strpbrk(mail, " \t\r\n\",;:<>\\")),
		    "acme_email", "'%s' is no mail address", mail },
		{ (t->eab_kid.n > 0) != (t->eab_hmac.n > 0), "acme_eab",
		    "%s is missing: the CA gives both", t->eab_kid.n > 0 ? "hmac" : "kid" },
		{ hmac && hmac[strspn(hmac, ALNUM "-_=")], "acme_eab",
		    "hmac is no base64url text", NULL },
	};

	c->tls = tr.out;
	c->tls.enabled = conf_said(c, "tls", "enabled") ? tr.enabled
	    : tr.cert || tr.key || tr.domains.n > 0 || certs;
	c->tls.client_optional = tr.client_verify != 0;
	domains_lower(r, &tr.domains);
	files_lower(r, &tr, certs);
	rules_check(r, acme, LEN(acme));
	c->tls.broken = c->diags.errors > errors;
	if (conf_said(c, "tls", "client_verify") && !tr.client_ca_file)
		key_error(r, "client_verify",
		    "needs client_ca_file: who may sign certificates of clients");
	c->tls.on = c->tls.enabled && (c->tls.n_files > 0 || c->tls.domains.n > 0);
	if (c->tls.on && tr.client_ca_file)
		c->tls.clients = tls_trust(r, "client_ca_file", tr.client_ca_file);
	if (c->tls.on && c->tls.domains.n > 0)
		c->tls.acme_trust = tls_trust(r, "acme_ca_file", tr.acme_ca_file);
}

static void
tls_say(void *to, enum diag_level level, int pair, const char *text)
{
	struct reader *r = to;
	const struct cert_files *files = r->conf->tls.files;

	if (pair < 0)
		complain(r, level, "domains", NULL, "%s", text);
	else
		diag_add(&r->conf->diags, level, files[pair].line, files[pair].col, "tls: %s",
		    text);
}

/* After server_read: where TLS is served, and with which certificates. */
static void
tls_load(struct reader *r)
{
	static const char *const keys[] = { "cert", "domains", "certs" };
	struct conf *c = r->conf;
	const struct addr *first = NULL;
	const char *key = "enabled"; /* that turned TLS on */

	r->where = "tls";
	for (int i = c->server.n_listens - 1; i >= 0; i--)
		if (c->server.listens[i].scheme == SCHEME_HTTPS)
			first = &c->server.listens[i];
	for (size_t i = 0; i < LEN(keys) && !conf_said(c, "tls", key); i++)
		key = keys[i];
	if (c->tls.enabled && !c->tls.on && !c->tls.broken)
		key_warn(r, "enabled", "TLS is not served: set cert and key, [[tls.certs]] or "
		    "domains");
	if (!c->tls.on)
		return;
	if (first)
		c->tls.redirect_port = first->port > 0 ? first->port : HTTPS_PORT;
	else if (!c->tls.broken)
		key_error(r, key, "there is no address to serve TLS at: "
		    "set server.https_port, for example to 443");
	c->tls.print = certs_print(&c->tls);
	c->tls.set = certs_load(&c->tls, tls_say, r);
}

/* ---- [cache] ---- */

/* The upstream that stands for Redis: behind all others, so that its name is looked up and its
 * addresses are on the board, but nothing else sees it. No user's has a blank in its name. */
static void
redis_lower(struct reader *r)
{
	struct conf *c = r->conf;
	struct cache_conf *cc = &c->cache;
	struct upstream *up = &c->upstreams[c->n_upstreams];
	const char *why;

	r->where = "cache";
	if (!cc->redis_url.p)
		return;
	if (!redis_url_parse(r->a, cc->redis_url, &cc->redis, &why)) {
		key_error(r, "redis_url", "%s", why);
		return;
	}
	*up = (struct upstream){ .name = "cache redis", .tls.verify = true, .n_instances = 1,
		.instances = arena_alloc(r->a, sizeof *up->instances) };
	up->instances[0] = (struct instance){ .up = up, .addr = cc->redis.addr, .replica = -1 };
	cc->redis_at = &up->instances[0];
	if (strlen(up->name) + strlen(cc->redis.addr.text) + 2 > INSTANCE_KEY_MAX)
		key_error(r, "redis_url", "its address is too long");
	if (!cc->redis.tls)
		return;
	if (cc->redis.addr.kind != ADDR_NAME)
		key_error(r, "redis_url", "rediss needs the name of a host, which its certificate is "
		    "checked for");
	else if (!(up->tls.trust = trust_get(r, NULL, &why)))
		key_error(r, "redis_url", "rediss cannot be verified: %s", why);
}

/* ---- [log] ---- */

static void
log_read(struct reader *r)
{
	static const char variables[] = "client method uri host status bytes secs upstream instance "
	    "upstream_secs request_id referer user_agent protocol time route";
	struct conf *c = r->conf;
	struct near near = { .best = S("") };

	top_read(r, SEC_LOG, &c->log);
	if (c->middleware.log_requests && !conf_said(c, "log", "access"))
		c->log.access.sink = SINK_STDOUT;
	near.word = slice_of(c->log.format);
	if (near_find(&near, "common combined json") >= 0)
		return;
	if (!strchr(c->log.format, '$'))
		key_error(r, "format", "expected common, combined, json or a "
		    "pattern with $variables%s", near_text(r->a, &near));
	for (const char *p = c->log.format; (p = strchr(p, '$')); p++) {
		near = (struct near){ .word = { p + 1, strspn(p + 1, ALNUM "_") } };
		if ((slice_starts(near.word, S("http_")) && near.word.n > 5) ||
		    near_find(&near, variables) >= 0)
			continue;
		key_error(r, "format", "unknown variable '$%.*s'%s", (int)near.word.n,
		    near.word.p, near_text(r->a, &near));
		return; /* one is enough */
	}
}

/* ---- [admin] ---- */

static void
admin_read(struct reader *r)
{
	struct conf *c = r->conf;
	struct admin_read ar = { 0 };
	const struct addr *a;

	top_read(r, SEC_ADMIN, &ar);
	c->admin = (struct admin_conf){ ar.listen.v, ar.listen.n,
		!conf_said(c, "admin", "listen"), ar.listen.n == 0, ar.token, ar.expose };
	for (int i = 0; i < ar.listen.n; i++) {
		a = &ar.listen.v[i];
		listen_ok(r, a, "listen");
		for (int k = 0; k < c->server.n_listens; k++)
			if (addr_covers(&c->server.listens[k], a) ||
			    addr_covers(a, &c->server.listens[k]))
				key_error(r, "listen", "%s is an address of [server] as well",
				    a->text);
	}
	for (int i = 0; i < ar.listen.n; i++)
		if (ar.listen.v[i].scheme == SCHEME_HTTPS)
			key_error(r, "listen", "%s: the admin interface is served without TLS; "
			    "admin.expose can be asked over https", ar.listen.v[i].text);
	for (int i = 0; i < ar.listen.n && ar.token.n == 0; i++) {
		a = &ar.listen.v[i];
		if (a->kind != ADDR_INET && a->kind != ADDR_NAME)
			continue;
		key_warn(r, "listen", "without admin.token nobody can ask at %s: over TCP one is "
		    "needed", a->text);
		return;
	}
}

/* admin.expose, normalised and without a slash at its end, becomes the first two
 * routes: PATH redirects to PATH/, and PATH/ is a prefix. So /warp does not take
 * /warped. */
static void
expose_lower(struct reader *r)
{
	struct conf *c = r->conf;
	const struct origin *o = conf_said(c, "admin", "expose");
	struct slice said = c->admin.expose, below;
	struct path_view view;
	struct route *rs;

	r->where = "admin";
	if (said.n == 0 && !o)
		return;
	if (c->server.admin_token.n == 0)
		key_error(r, "expose", "needs server.admin_token: who asks there must give it");
	while (said.n > 1 && said.p[said.n - 1] == '/')
		said.n--;
	if (!slice_starts(said, S("/")) || said.n == 1 || said.n > TARGET_MAX ||
	    strpbrk(said.p, "?#") || path_normalise(said, &view) < 0) {
		key_error(r, "expose", "expected a path such as \"/warp\", below \"/\", got \"%s\"",
		    c->admin.expose.p);
		c->admin.expose = S("");
		return;
	}
	c->admin.expose = arena_dup(r->a, view.path);
	below = slice_of(arena_fmt(r->a, "%s/", c->admin.expose.p));
	rs = arena_alloc(r->a, ((size_t)c->table.n + 2) * sizeof *rs);
	rs[0] = (struct route){ .line = o->value->line, .path_kind = PATH_EXACT,
		.path = c->admin.expose, .action = ACT_REDIRECT, .status = 308,
		.redirect = below, .buffer_request = -1 };
	rs[1] = (struct route){ .line = o->value->line, .path_kind = PATH_PREFIX,
		.path = below, .action = ACT_ADMIN, .buffer_request = -1 };
	if (c->table.n > 0)
		memcpy(rs + 2, c->table.routes, (size_t)c->table.n * sizeof *rs);
	c->table.routes = rs;
	c->table.n += 2;
}

/* ---- the whole ---- */

/* Warns of unknown WARPDRIVE_ variables. */
static void
environ_check(struct conf *c)
{
	static const char others[] = ENV_PREFIX "CONFIG " ENV_PREFIX "TARGET_HOST " ENV_PREFIX
	    "TARGET_PORT";

	for (char **e = environ; *e; e++) {
		struct near near = { .word = { *e, strcspn(*e, "=") } };
		bool known;

		if (!slice_starts(near.word, S(ENV_PREFIX)))
			continue;
		known = near_find(&near, others) >= 0;
		for (enum section_id id = SEC_SERVER; id < SECTIONS; id++)
			for (size_t i = 0; i < sections[id].n && !known; i++)
				known = near_offer(&near,
				    slice_of(env_name(&c->arena, id, &sections[id].keys[i])));
		if (!known)
			diag_add(&c->diags, DIAG_WARNING, 0, 0, "unknown variable %.*s%s",
			    (int)near.word.n, near.word.p, near_text(&c->arena, &near));
	}
}

/* Warns of what is hardly meant. */
static void
conf_warn(struct reader *r)
{
	struct conf *c = r->conf;
	const struct route *rs = c->table.routes;
	struct stat st;
	int k;

	for (int i = 0; i < c->n_upstreams; i++) {
		for (k = 0; k < c->table.n && rs[k].upstream != &c->upstreams[i]; k++)
			;
		if (k == c->table.n)
			diag_add(&c->diags, DIAG_WARNING, c->upstreams[i].line, 1,
			    "no route uses upstream %s", c->upstreams[i].name);
	}
	for (int i = 1; i < c->table.n; i++) {
		for (k = 0; k < i && !route_shadowed(&rs[i], &rs[k]); k++)
			;
		if (k < i)
			diag_add(&c->diags, DIAG_WARNING, rs[i].line, 1, "this route is never "
			    "reached: the one at line %u takes all that it could", rs[k].line);
	}
	if (r->secret && c->file && stat(c->file, &st) == 0 && (st.st_mode & S_IROTH))
		value_warn(r, r->secret, "this secret is readable by others; chmod 640, or use "
		    "env:NAME or file:/path");
}

/* By line (none: first) and column, else in the order found. */
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

/* An empty configuration. Errors show no values of keys that hold secrets, users,
 * header fields or the environment of programs. */
static struct conf *
conf_new(void)
{
	struct conf *c = xcalloc(1, sizeof *c);
	struct slices *secrets = arena_alloc(&c->arena, sizeof *secrets);
	size_t n = 0, with_env = 0;

	for (enum section_id id = SEC_ROOT; id < SECTIONS; id++) {
		n += sections[id].n;
		with_env += section_has_env(id) ? sections[id].n : 0;
	}
	c->origins = arena_alloc(&c->arena, with_env * sizeof *c->origins);
	secrets->v = arena_alloc(&c->arena, (n + 1) * sizeof *secrets->v);
	secrets->v[secrets->n++] = S("value");
	for (enum section_id id = SEC_ROOT; id < SECTIONS; id++)
		for (size_t i = 0; i < sections[id].n; i++) {
			const struct key *k = &sections[id].keys[i];
			if ((key_hides(k) && k->when == NOW) || k->kind == K_ENV)
				secrets->v[secrets->n++] = slice_of(k->name);
		}
	c->diags.arena = &c->arena;
	c->diags.secrets = secrets;
	return c;
}

static void
middleware_read(struct reader *r)
{
	struct middleware_conf *m = &r->conf->middleware;
	const struct toml *v = toml_get(toml_get(r->conf->tree, "middleware"), "x_sendfile_enabled");

	top_read(r, SEC_MIDDLEWARE, m);
	if (m->x_sendfile && !m->sendfile.dir)
		diag_add(&r->conf->diags, DIAG_WARNING, v ? v->line : 0, v ? v->col : 0,
		    "x_sendfile_enabled without x_sendfile_root: nothing is sent");
}

/* Reads the sections that stand by themselves, from tree to structs. */
static void
conf_read(struct reader *r, const char *forced_listen)
{
	r->where = "";
	for (const struct toml *v = r->conf->tree->first; v; v = v->next) {
		const struct key *k = key_find(SEC_ROOT, v->key);
		enum section_id id = SEC_SERVER;

		while (id < SECTIONS && !(section_word(id).p && slice_eq(v->key, section_word(id))))
			id++;
		if (k)
			key_set(r, k, v, r->conf);
		else if (id == SECTIONS)
			key_unknown(r, SEC_ROOT, v);
		else if (sections[id].when != NOW)
			section_refuse(r, id, v);
		else if (v->kind != TOML_TABLE && v->kind != TOML_ARRAY)
			table_error(r, v, "expected a section [%s]", sections[id].name);
	}
	tls_read(r);
	server_read(r, forced_listen);
	middleware_read(r);
	top_read(r, SEC_CACHE, &r->conf->cache);
	tls_load(r);
	log_read(r);
	admin_read(r);
	for (enum section_id id = SEC_SERVER; id < SECTIONS; id++)
		if (sections[id].when != NOW && section_has_env(id))
			section_read(r, id, sections[id].name, NULL, NULL);
	environ_check(r->conf);
	r->where = "";
}

/* Reads the routes, packs them if there is no error, and sorts the complaints. */
static struct conf *
conf_finish(struct reader *r)
{
	struct conf *c = r->conf;

	redis_lower(r);
	routes_read(r, toml_get(c->tree, "routes"));
	c->has_gzip = c->middleware.gzip;
	for (int i = 0; i < c->table.n; i++)
		c->has_gzip |= c->table.routes[i].gzip;
	expose_lower(r);
	if (c->diags.errors == 0) {
		conf_warn(r);
		route_table_build(&c->arena, &c->table);
	}
	diags_sort(&c->diags);
	return c;
}

/* The directory that warp was started in, as the shell calls it: a link in that path
 * may lead elsewhere later. */
static const char *
path_here(struct arena *a)
{
	const char *pwd = getenv("PWD");
	struct stat there, here;
	char *cwd;

	if (pwd && *pwd == '/' && stat(pwd, &there) == 0 && stat(".", &here) == 0 &&
	    there.st_dev == here.st_dev && there.st_ino == here.st_ino)
		return arena_dup(a, slice_of(pwd)).p;
	cwd = getcwd(NULL, 0);
	pwd = cwd ? arena_dup(a, slice_of(cwd)).p : "/";
	free(cwd);
	return pwd;
}

/* Never NULL: look at ->diags.errors. */
static struct conf *
conf_load(const char *file)
{
	struct conf *c = conf_new();
	struct reader r = { .conf = c, .a = &c->arena };
	const char *why, *slash;

	c->diags.file = arena_dup(r.a, slice_of(file)).p;
	c->file = *file == '/' ? c->diags.file : arena_fmt(r.a, "%s/%s", path_here(r.a), file);
	slash = strrchr(c->file, '/');
	c->dir = slash == c->file ? "/" : arena_fmt(r.a, "%.*s", (int)(slash - c->file), c->file);
	if ((why = source_read(r.a, file, CONFIG_FILE_MAX, &c->diags.source))) {
		diag_add(&c->diags, DIAG_ERROR, 0, 0, "cannot read it: %s", why);
		return c;
	}
	c->tree = toml_parse(r.a, c->diags.source, &c->diags);
	if (c->diags.errors > 0) {
		diags_sort(&c->diags);
		return c;
	}
	conf_read(&r, NULL);
	upstreams_read(&r, toml_get(c->tree, "upstreams"));
	processes_read(&r);
	return conf_finish(&r);
}

/* Without a file: everything goes to target. argv, borrowed: the program that
 * listens on target; target NULL: where warp chooses. listen NULL: the
 * environment's or the preset. Never NULL: look at ->diags.errors. */
static struct conf *
conf_simple(const char *listen, const char *target, char **argv)
{
	struct conf *c = conf_new();
	struct reader r = { .conf = c, .a = &c->arena };
	struct toml none = { .kind = TOML_TABLE };
	struct upstream_read u = { .out = { .name = argv ? "app" : "target", .tls.verify = true } };
	struct upstream *up = arena_alloc(r.a, 2 * sizeof *up); /* and redis_lower's */

	c->dir = path_here(r.a);
	c->tree = toml_parse(r.a, S(""), &c->diags);
	conf_read(&r, listen);
	r.where = u.out.name;
	section_read(&r, SEC_UPSTREAM, r.where, NULL, &u);
	strategy_read(&r, &u.out, u.strategy);
	c->upstreams = up;
	c->n_upstreams = 1;
	*up = u.out;
	up->instances = arena_alloc(r.a, sizeof *up->instances);
	up->instances[0] = (struct instance){ .up = up, .weight = 1, .replica = -1,
		.addr = { .text = "#0", .fd = -1 } };
	if (!target || addr_read(&r, &none, slice_of(target), &up->instances[0].addr))
		up->n_instances = 1;
	upstream_tls_read(&r, up, &u, &none);
	if (argv)
		process_wrap(&r, up, argv);
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
	for (int i = 0; i < c->n_upstreams; i++)
		certs_free(c->upstreams[i].tls.client);
	certs_free(c->tls.set);
	arena_free(&c->arena);
	free(c);
}

/* ==== conf out ===============================================================
 * Owns    nothing.
 * Offers  conf_print_keys, conf_print_man, conf_print_check, conf_print_json.
 * Calls   base, arena, toml, http, json, certs, keys, values, upstreams, routes. */

/* ---- -D and the manual ---- */

static const char *
key_preset(const struct key *k)
{
	return k->preset && *k->preset ? k->preset : k->preset ? "\"\"" : "none";
}

/* Every key with type and range, preset, variable, and help. */
static void
conf_print_keys(FILE *to)
{
	for (enum section_id id = SEC_ROOT; id < SECTIONS; id++) {
		const struct section *s = &sections[id];
		struct arena a = { NULL };

		if (s->n == 0)
			fprintf(to, "[%s]  (later)\n        %s\n", s->name, s->help);
		for (size_t i = 0; i < s->n; i++) {
			const struct key *k = &s->keys[i];
			const char *env = env_name(&a, id, k);
			fprintf(to, "%-42s  %-40s  %-12s  %s%s\n        %s\n",
			    arena_fmt(&a, "%s%s%s", s->name, *s->name ? "." : "", k->name),
			    kind_text(&a, k), key_preset(k), env ? env : "-",
			    k->when == NOW ? "" : "  (later)", k->help);
		}
		arena_free(&a);
	}
}

/* A line of plain text in man(7): no request, no escape. */
static void
man_line(FILE *to, const char *s)
{
	if (*s == '.' || *s == '\'')
		fputs("\\&", to);
	for (; *s; s++)
		fputs(*s == '\\' ? "\\e" : *s == '-' ? "\\-" : (char[]){ *s, '\0' }, to);
	fputc('\n', to);
}

/* The reference part of warp.toml(5). */
static void
conf_print_man(FILE *to)
{
	for (enum section_id id = SEC_ROOT; id < SECTIONS; id++) {
		const struct section *s = &sections[id];
		struct arena a = { NULL };

		fputs(".SS ", to);
		man_line(to, *s->name ? arena_fmt(&a, "\"[%s]\"", s->name)
		                      : "\"Before any section\"");
		man_line(to, *s->help ? s->help : "Not supported yet.");
		fputs(*s->help && s->when != NOW ? "Not supported yet.\n" : "", to);
		for (size_t i = 0; i < s->n; i++) {
			const struct key *k = &s->keys[i];
			const char *env = env_name(&a, id, k), *kind = kind_text(&a, k);
			fputs(".TP\n.B ", to);
			man_line(to, k->name);
			man_line(to, k->help);
			fputs(".br\n", to);
			man_line(to, arena_fmt(&a, "%c%s; default: %s%s%s%s",
			    toupper((unsigned char)*kind), kind + 1, key_preset(k),
			    env ? "; " : "", env ? env : "",
			    k->when == NOW ? "." : ". Not supported yet."));
		}
		arena_free(&a);
	}
}

/* ---- memory ---- */

/* Does some upstream speak TLS? */
static bool
conf_has_https(const struct conf *cf)
{
	for (int i = 0; i < cf->n_upstreams; i++)
		if (upstream_is_https(&cf->upstreams[i]))
			return true;
	return false;
}

static struct memory
conf_memory(const struct conf *c)
{
	enum { ROOM = 64, SMALL = 3, LARGE = 5 };
	uint64_t head = c->server.max_header_bytes, workers = (uint64_t)c->server.workers;
	uint64_t share = (c->server.max_connections + workers - 1) / workers;
	/* see blocks_open, whose head and tail room this rounds up */
	uint64_t large = sizeof(struct block) + ROOM + MAX((uint64_t)RELAY_BYTES, head) + head +
	    HEAD_ADDED_MAX;
	uint64_t down = c->tls.on, up = conf_has_https(c);
	struct memory m = { .worker = large + 2 * (head + HEAD_ADDED_MAX) + LOG_BUFFER +
	    2 * sizeof(struct head) + BLOCKS_KEPT_SMALL * (uint64_t)BLOCK_SMALL_BYTES +
	    BLOCKS_KEPT_LARGE * large };

	for (int i = 0; i < c->table.n; i++)
		if (c->table.routes[i].buffer_request > 0)
			m.busy = MAX(m.busy, (uint64_t)c->table.routes[i].buffer_request);
	m.idle = sizeof(struct conn) + 2 * sizeof(struct upconn) +
	    (down + 2 * up) * sizeof(struct tls) +
	    3 * (sizeof(struct pollfd) + sizeof(struct watch *));
	/* the exchange and two blocks of trailers; a long head; both directions
	 * waiting at both ends */
	m.busy += SMALL * (uint64_t)BLOCK_SMALL_BYTES + LARGE * large +
	    (down + up) * (sizeof(struct tls_bufs) + TLS_FLIGHT);
	m.all = sizeof(struct board) + workers * (m.worker + share * (m.idle + m.busy));
	return m;
}

/* ---- -t ---- */

static void
print_methods(FILE *to, const struct route *r)
{
	const char *sep = " methods=";

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
	if (r->host_kind != HOST_ANY)
		fprintf(to, " host=%s%s", r->host_kind == HOST_WILD ? "*" : "", r->host.p);
	if (r->path_kind != PATH_ANY)
		fprintf(to, " %s=%s", path_words[r->path_kind], r->path.p);
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
	else if (r->action == ACT_FILES)
		fprintf(to, " -> files of %s%s", r->files.dir, r->files.listing ? ", listed" : "");
	else if (r->action == ACT_REDIRECT)
		fprintf(to, " -> %d %s", r->status, r->redirect.p);
	else if (r->action == ACT_ADMIN)
		fputs(" -> admin endpoints, for who gives server.admin_token", to);
	else
		fprintf(to, " -> %d, %zu bytes", r->status, r->body.n);
	fputs(r->strip_prefix ? ", strip_prefix" : "", to);
	if (r->has_rewrite)
		fprintf(to, ", rewrite %s", r->rewrite.p);
	fputs(r->require_auth ? ", require_auth" : "", to);
	if (r->basic_auth.n > 0)
		fprintf(to, ", basic_auth of %d", r->basic_auth.n);
	if (r->rate.requests > 0)
		fprintf(to, ", %u requests in %g s (burst %u)", r->rate.requests,
		    r->rate.per_ms / (double)SECOND_MS, r->rate.burst);
	if (r->buffer_request >= 0)
		fprintf(to, ", buffer_request %lld", (long long)r->buffer_request);
	fputs(r->websocket ? "" : ", no websocket", to);
	if (r->description.n > 0)
		fprintf(to, "  # %s", r->description.p);
	fputs("\n", to);
}

/* What stands in front of an address: https:// for TLS. */
static const char *
scheme_text(const struct addr *a)
{
	return a->scheme == SCHEME_HTTPS ? "https://" : "";
}

/* How TLS is served, and each certificate: whose, by whom, until when. */
static void
print_tls(FILE *to, const struct tls_conf *t)
{
	static const char *const origins[] = { "", " (ACME)", " (signed by itself)" };
	struct arena a = { NULL };

	if (t->on) {
		fprintf(to, "TLS 1.2%s, sessions %u%s", t->legacy
		    ? " and older, with old ciphers" : "", t->sessions,
		    t->redirect ? ", http goes to https" : "");
		if (t->hsts_secs > 0)
			fprintf(to, ", HSTS %u s", t->hsts_secs);
		fputs(t->strict_sni ? ", unknown names are refused" : "", to);
		if (t->clients)
			fprintf(to, ", clients %s show a certificate by one of the %zu in %s",
			    t->client_optional ? "may" : "must", t->clients->n,
			    t->clients->file);
		fputc('\n', to);
	}
	for (int i = 0; t->set && i < t->set->n; i++) {
		const struct cert *c = &t->set->v[i];
		fprintf(to, "certificate%s %s", origins[c->origin], c->cert_file ? c->cert_file
		    : "until ACME has got one");
		for (int k = 0; k < c->names.n; k++)
			fprintf(to, "%s %s", k == 0 ? ":" : ",", c->names.v[k].p);
		fprintf(to, "; %s %u, by %s, until %s\n", c->key_type == BR_KEYTYPE_EC ? "EC"
		    : "RSA", c->key_bits, c->issuer.p, cert_date(&a, c->until_s));
	}
	arena_free(&a);
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
		fprintf(to, "    %s%-*s weight %u\n", scheme_text(&up->instances[i].addr),
		    32 - (int)strlen(scheme_text(&up->instances[i].addr)),
		    up->instances[i].addr.text, up->instances[i].weight);
	if (upstream_is_https(up) && up->tls.trust)
		fprintf(to, "    verified by the %zu certificates in %s%s%s\n", up->tls.trust->n,
		    up->tls.trust->file, up->tls.server_name ? ", for the name " : "",
		    up->tls.server_name ? up->tls.server_name : "");
}

/* Word i of those that key may have. */
static const char *
print_choice(struct arena *a, const char *key, int i)
{
	struct slice rest = slice_of(key_find(SEC_PROCESS, slice_of(key))->words), word;

	while (slice_cut(&rest, ' ', &word) && i > 0)
		i--;
	return arena_dup(a, word).p;
}

/* What is run, and which replica serves what. */
static void
print_process(FILE *to, const struct process *p)
{
	struct arena a = { NULL };

	fprintf(to, "process %s", p->name);
	if (p->line > 0)
		fprintf(to, " (line %u)", p->line);
	fprintf(to, ": %d replica%s, restart %s, ready %s%s%s", p->replicas,
	    p->replicas == 1 ? "" : "s", print_choice(&a, "restart", (int)p->restart),
	    print_choice(&a, "ready", (int)p->ready), p->oneshot ? ", oneshot" : "",
	    p->start_on == START_REQUEST ? ", start on request" : "");
	arena_free(&a);
	if (p->idle_stop_ms > 0)
		fprintf(to, ", stop after %g s idle", p->idle_stop_ms / (double)SECOND_MS);
	for (int i = 0; i < p->n_after; i++)
		fprintf(to, "%s%s", i == 0 ? ", after " : ", ", p->after[i]->name);
	fputc(';', to);
	for (char **arg = p->argv; *arg; arg++) { /* as a shell would take it */
		bool plain = **arg && (*arg)[strspn(*arg, ALNUM "%+,-./:=@_{}")] == '\0';
		fputs(plain ? " " : " '", to);
		for (const char *s = *arg; *s; s++)
			fputs(*s == '\'' ? "'\\''" : (char[]){ *s, '\0' }, to);
		fputs(plain ? "" : "'", to);
	}
	fputc('\n', to);
	for (int i = 0; p->up && i < p->up->n_instances; i++) {
		const struct instance *in = &p->up->instances[i];
		fprintf(to, "    %s", p->name);
		if (p->replicas > 1)
			fprintf(to, ".%d", in->replica);
		if (in->addr.kind == ADDR_NONE)
			fprintf(to, " serves %s that warp chooses\n",
			    p->names_socket ? "a unix socket" : "a port");
		else
			fprintf(to, " serves %s\n", in->addr.text);
	}
}

/* What a good configuration means, for `-t`. */
static void
conf_print_check(const struct conf *c, FILE *to)
{
	const struct server_conf *s = &c->server;
	const unsigned long long kb = 1024, mb = kb * kb;
	const struct memory m = conf_memory(c);

	for (int i = 0; i < s->n_listens; i++)
		fprintf(to, "listen %s%s\n", scheme_text(&s->listens[i]), s->listens[i].text);
	print_tls(to, &c->tls);
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
	for (int i = 0; i < c->n_processes; i++)
		print_process(to, c->processes[i]);
	fprintf(to, "memory: at most %llu MB: %u clients x %llu KB, if all are busy and no peer "
	    "reads (%llu bytes each while idle); %d worker%s x %llu KB; shared %llu KB\n",
	    (m.all + mb - 1) / mb, s->max_connections, (m.idle + m.busy) / kb,
	    (unsigned long long)m.idle, s->workers, s->workers == 1 ? "" : "s", m.worker / kb,
	    sizeof(struct board) / kb);
}

/* ---- /config ---- */

/* Is name that of a key whose value is never shown? */
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

/* { name = "X-Key", value = … } may be as secret as a password. */
static bool
pair_is_secret(const struct toml *table)
{
	return toml_get(table, "name") && toml_get(table, "value");
}

/* env = { NAME = "value" } beside a command may hold secrets. */
static bool
env_is_secret(const struct toml *table, const struct toml *v)
{
	return slice_eq(v->key, S("env")) && toml_get(table, "command");
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
		json_quote(to, v->text);
}

/* v with all below it. A valid configuration is never deep. */
static void
json_value(struct json_out *o, const struct toml *v, bool secret)
{
	bool table = v->kind == TOML_TABLE;
	bool pair = table && pair_is_secret(v);

	if (!table && v->kind != TOML_ARRAY) {
		if (secret)
			fputs("\"***\"", o->to);
		else
			json_scalar(o->to, v);
		return;
	}
	json_open(o, table ? '{' : '[');
	for (const struct toml *c = v->first; c; c = c->next) {
		if (table)
			json_key(o, c->key);
		else
			json_item(o);
		json_value(o, c, secret || (table && key_is_secret(c->key)) ||
		    (table && env_is_secret(v, c)) || (pair && slice_eq(c->key, S("value"))));
	}
	json_close(o, table ? '}' : ']');
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
		json_quote(to, slice_of(k->preset));
}

/* A key, its value, and where that is from: { "value": 80, "from": "file:2" }. v NULL:
 * the preset. The environment of a process is as secret as a password. */
static void
json_said(struct json_out *o, const struct key *k, const struct toml *v, const char *env)
{
	struct json_out in_line = { .to = o->to };

	json_key(o, slice_of(k->name));
	fputs("{ \"value\": ", o->to);
	if (v)
		json_value(&in_line, v, key_is_secret(slice_of(k->name)) ||
		    strcmp(k->name, "env") == 0);
	else
		json_preset(o->to, k);
	if (env)
		fprintf(o->to, ", \"from\": \"env:%s\" }", env);
	else if (v)
		fprintf(o->to, ", \"from\": \"file:%u\" }", v->vline);
	else
		fputs(", \"from\": \"preset\" }", o->to);
}

/* "server": { "http_port": { "value": 80, "from": "file:2" }, … */
static void
json_origins(struct json_out *o, const struct conf *c)
{
	const char *section = NULL;

	for (int i = 0; i < c->n_origins; i++) {
		const struct origin *from = &c->origins[i];
		if (from->key->when != NOW)
			continue;
		if (!section || strcmp(section, from->section) != 0) {
			if (section)
				json_close(o, '}');
			json_key(o, slice_of(from->section));
			json_open(o, '{');
		}
		section = from->section;
		json_said(o, from->key, from->value, from->env);
	}
	if (section)
		json_close(o, '}');
}

/* A table of that section, or a list of them: the keys in it, and the presets of
 * those that are not. Sections nest only a few deep. */
static void
json_section(struct json_out *o, enum section_id id, const struct toml *t)
{
	bool list = t->kind == TOML_ARRAY;

	json_open(o, list ? '[' : '{');
	for (const struct toml *item = list ? t->first : NULL; item; item = item->next) {
		json_item(o);
		json_section(o, id, item);
	}
	for (size_t i = 0; !list && i < sections[id].n; i++) {
		const struct key *k = &sections[id].keys[i];
		const struct toml *v = toml_get(t, k->name);
		if (k->when != NOW || (!v && !k->preset))
			continue;
		if (k->kind == K_TABLE || k->kind == K_TABLES || k->kind == K_OWN) {
			json_key(o, slice_of(k->name));
			json_section(o, k->sub, v);
		} else
			json_said(o, k, v, NULL);
	}
	json_close(o, list ? ']' : '}');
}

/* `[upstreams.NAME]` and the like: each NAME. `[[routes]]`: the list. */
static void
json_sections(struct json_out *o, const struct conf *c, const char *name, enum section_id id)
{
	const struct toml *t = c->tree ? toml_get(c->tree, name) : NULL;

	if (!t)
		return;
	json_key(o, slice_of(name));
	if (t->kind == TOML_ARRAY) {
		json_section(o, id, t);
		return;
	}
	json_open(o, '{');
	for (const struct toml *v = t->first; v; v = v->next) {
		json_key(o, v->key);
		json_section(o, id, v);
	}
	json_close(o, '}');
}

/* The configuration in force, secrets masked, for /config. */
static void
conf_print_json(const struct conf *c, FILE *to)
{
	struct json_out o = { .to = to, .lines = INT_MAX };

	json_open(&o, '{');
	json_key(&o, S("file"));
	if (c->file)
		json_quote(to, slice_of(c->file));
	else
		fputs("null", to);
	json_origins(&o, c);
	json_sections(&o, c, "upstreams", SEC_UPSTREAM);
	json_sections(&o, c, "processes", SEC_PROCESS);
	json_sections(&o, c, "routes", SEC_ROUTE);
	json_key(&o, S("instances"));
	json_open(&o, '{');
	for (int u = 0; u < c->n_upstreams; u++) {
		struct json_out in_line = { .to = to };
		json_key(&o, slice_of(c->upstreams[u].name));
		json_open(&in_line, '[');
		for (int i = 0; i < c->upstreams[u].n_instances; i++) {
			json_item(&in_line);
			json_quote(to, slice_of(c->upstreams[u].instances[i].addr.text));
		}
		json_close(&in_line, ']');
	}
	json_close(&o, '}');
	json_close(&o, '}');
	fputc('\n', to);
}

/* ==== pages ==================================================================
 * Owns    nothing: the pages are their configuration's.
 * Offers  pages_load.
 * Calls   base, arena, walk, diag. NNN.html and NNN.json of server.error_dir
 *         are read with the configuration: workers may not be allowed to later. */

/* Reads a page; false: a warning was noted. */
static bool
page_read(struct conf *cf, const char *path, struct slice *body)
{
	const char *why = walk_read(&cf->arena, path, ERROR_PAGE_MAX, ROOT, body);

	if (why)
		diag_add(&cf->diags, DIAG_WARNING, 0, 0,
		    "error_dir: %s is not a readable file of at most %d bytes: %s", path,
		    ERROR_PAGE_MAX, why);
	return !why;
}

/* The status of `NNN.html` or `NNN.json`; 0: name is another file. */
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

/* Reads all pages; one that cannot be read is a warning. */
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
 * Offers  board_open, board_adopt, conf_peers, board_attach, board_addrs_set, board_addrs_get,
 *         board_hits_clear, board_changed, board_text_set, board_text_get,
 *         board_worker_gone, COUNT, rate_take, challenge_set, challenge_answer.
 * Calls   base, arena, clock, log, addr. The writers are named in warp.h. */

#define ADDR_TEXT 128 /* bytes of an address with its port, or of a socket's path */

static struct board *board;

/* Adds to a gauge that has one writer: no locked instruction. */
#define COUNT(counter, n)                                                        \
	atomic_store_explicit(&(counter),                                        \
	    atomic_load_explicit(&(counter), memory_order_relaxed) + (n),        \
	    memory_order_relaxed)

/* Adds n in pieces of at most half of lo; hi counts the halves passed. */
__attribute__((always_inline)) static inline void
wide_grow(struct wide *w, uint64_t n, bool alone)
{
	for (uint32_t piece, was; n > 0; n -= piece) {
		piece = (uint32_t)MIN(n, (uint64_t)INT32_MAX);
		was = alone ? atomic_load_explicit(&w->lo, memory_order_relaxed)
		            : atomic_fetch_add_explicit(&w->lo, piece, memory_order_relaxed);
		if (alone)
			atomic_store_explicit(&w->lo, was + piece, memory_order_relaxed);
		if ((was ^ (was + piece)) >> 31)
			atomic_fetch_add_explicit(&w->hi, 1, memory_order_release);
	}
}

/* For any process. */
static void
wide_add(struct wide *w, uint64_t n)
{
	wide_grow(w, n, false);
}

/* For an only writer: no locked instruction. */
static void
wide_count(struct wide *w, uint64_t n)
{
	wide_grow(w, n, true);
}

/* For an only writer. */
static void
wide_set(struct wide *w, int64_t to)
{
	atomic_store_explicit(&w->lo, (uint32_t)to, memory_order_relaxed);
	atomic_store_explicit(&w->hi, (uint32_t)(to >> 31), memory_order_release);
}

static uint64_t
wide_get(const struct wide *w)
{
	uint32_t hi = atomic_load_explicit(&w->hi, memory_order_acquire);
	uint32_t lo = atomic_load_explicit(&w->lo, memory_order_relaxed);

	hi += (hi ^ lo >> 31) & 1;
	return (uint64_t)hi << 31 | (lo & INT32_MAX);
}

/* ---- sequence locks ---- */

/* Makes seq odd: what it guards may be written. False: another writer was faster. (If
 * seq was odd already, its writer had died.) */
static bool
seq_take(atomic_uint *seq, unsigned was)
{
	bool taken = atomic_compare_exchange_strong(seq, &was, (was + 1) | 1);

	atomic_thread_fence(memory_order_release);
	return taken;
}

static void
seq_give(atomic_uint *seq)
{
	atomic_fetch_add_explicit(seq, 1, memory_order_release);
}

/* Copies what seq guards, whole. False: it never was; its writer has died. */
static bool
seq_copy(const atomic_uint *seq, void *to, const void *from, size_t n)
{
	for (int tries = 0; tries < 1000; tries++) {
		unsigned was = *seq;
		memcpy(to, from, n);
		atomic_thread_fence(memory_order_acquire);
		if (!(was & 1) && *seq == was)
			return true;
	}
	return false;
}

/* ---- the mapping ---- */

static int board_fd = -1; /* for the next binary; -1: none */

/* A hash of all that must be the same for two binaries to share a board. */
static uint64_t
board_layout(void)
{
	const size_t parts[] = { sizeof(struct board), sizeof(struct board_instance),
		sizeof(struct board_worker), sizeof(struct board_proc),
		offsetof(struct board, instances), offsetof(struct board, flights),
		offsetof(struct board_instance, run), offsetof(struct board_instance, in_flight),
		offsetof(struct board_instance, health), offsetof(struct board_worker, codes),
		RUN_DRAINING, HEALTH_DOWN, WORKER_DRAINING, INSTANCE_ADDRS, FLIGHT_EPOCHS };

	return hash64(0, parts, sizeof parts);
}

static bool
board_map(int fd)
{
	board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE,
	    MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
	return board != MAP_FAILED;
}

/* Before the first fork. Pages are taken as they are touched. */
static void
board_open(void)
{
	board_fd = memfd_create("warp board", MFD_CLOEXEC);
	if (board_fd >= 0 && ftruncate(board_fd, sizeof *board) < 0) {
		close(board_fd);
		board_fd = -1;
	}
	if (!board_map(board_fd))
		die_memory();
	board->layout = board_layout();
	board->started_s = (int64_t)time(NULL);
	log_lost = &board->log_lost;
}

/* The previous binary's board, if of the same layout: its workers still count there. */
static bool
board_adopt(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || st.st_size != sizeof *board || !board_map(fd))
		return false;
	if (board->layout != board_layout()) {
		munmap(board, sizeof *board);
		close(fd);
		return false;
	}
	board_fd = fd;
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	for (size_t i = 0; i < PROCS_MAX && board->procs[i].name[0]; i++)
		memset(&board->procs[i], 0, sizeof board->procs[i]);
	log_lost = &board->log_lost;
	return true;
}

/* The record of key, else one that no worker can name any more; NULL: full. */
static struct board_instance *
board_record(const char *key)
{
	struct board_instance *unused = NULL;

	for (size_t i = 0; i < INSTANCES_MAX; i++) {
		struct board_instance *b = &board->instances[i];
		if (strcmp(b->key, key) == 0)
			return b;
		if (!unused && (!b->key[0] || (b->generation < board->oldest && b->in_flight == 0)))
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

/* How many instances before in, in its upstream, have in's address. */
static int
instance_twin(const struct instance *in)
{
	int n = 0;

	for (const struct instance *i = in->up->instances; i < in; i++)
		n += strcmp(i->addr.text, in->addr.text) == 0;
	return n;
}

/* The key of in on the board: upstream, address, number as a twin. False: too long. */
static bool
instance_key(const struct instance *in, char key[INSTANCE_KEY_MAX])
{
	char which[16] = "";
	int twin = instance_twin(in);

	if (twin > 0)
		snprintf(which, sizeof which, " %d", twin + 1);
	return snprintf(key, INSTANCE_KEY_MAX, "%s %s%s", in->up->name, in->addr.text, which) <
	    INSTANCE_KEY_MAX;
}

/* All upstreams, and Redis, which stands behind them: their addresses are on the board. */
static int
conf_peers(const struct conf *cf)
{
	return cf->n_upstreams + (cf->cache.redis_at != NULL);
}

/* Gives each instance its record. -1: too many instances, or too long a key; logged. */
static int
board_attach(struct conf *cf)
{
	unsigned generation = cf->attached = ++board->generation;

	for (int u = 0; u < conf_peers(cf); u++)
		for (int i = 0; i < cf->upstreams[u].n_instances; i++) {
			struct instance *in = &cf->upstreams[u].instances[i];
			char key[INSTANCE_KEY_MAX];

			if (!instance_key(in, key)) {
				log_error("upstream %s: name and address are longer than %d bytes",
				    in->up->name, INSTANCE_KEY_MAX - 2);
				return -1;
			}
			if (!(in->board = board_record(key))) {
				log_error("more than %d instances: make INSTANCES_MAX in config.h larger",
				    INSTANCES_MAX);
				return -1;
			}
			in->board->generation = generation;
		}
	return 0;
}

/* One writer at a time: the master at start, then the resolver. */
static void
board_addrs_set(struct board_instance *b, const union sock *sock, const socklen_t *sock_n,
    unsigned n)
{
	struct board_addrs *a = &b->addrs;

	n = MIN(n, INSTANCE_ADDRS);
	seq_take(&a->seq, a->seq);
	for (unsigned i = 0; i < n; i++) {
		a->sock[i] = sock[i];
		a->sock_n[i] = sock_n[i];
	}
	a->n = n;
	seq_give(&a->seq);
}

/* Address i, modulo how many the instance has; false: none, or never whole. */
static bool
board_addrs_get(struct board_instance *b, unsigned i, union sock *sock, socklen_t *sock_n)
{
	struct board_addrs got;

	if (!seq_copy(&b->addrs.seq, &got, &b->addrs, sizeof got) || got.n == 0)
		return false;
	i %= MIN(got.n, INSTANCE_ADDRS);
	*sock = got.sock[i];
	*sock_n = got.sock_n[i];
	return true;
}

/* Clears a half of hits before workers of another configuration use it. */
static void
board_hits_clear(unsigned half)
{
	for (size_t i = 0; i < ROUTE_HITS; i++)
		wide_set(&board->hits[half][i], 0);
}

/* The standing of some instance has changed. */
static void
board_changed(void)
{
	board->epoch++;
}

/* One writer at a time. A long text is cut. */
static void
board_text_set(struct board_text *t, struct slice s)
{
	size_t n = MIN(s.n, sizeof t->s - 1);

	seq_take(&t->seq, t->seq);
	if (n > 0)
		memcpy(t->s, s.p, n);
	t->s[n] = '\0';
	seq_give(&t->seq);
}

/* A copy of t; empty if its writer has died writing. */
static const char *
board_text_get(const struct board_text *t, char out[WHY_MAX])
{
	if (!seq_copy(&t->seq, out, t->s, WHY_MAX))
		out[0] = '\0';
	out[WHY_MAX - 1] = '\0';
	return out;
}

/* The address of in now: configured, or of its process; "-": none. May be in out. */
static const char *
instance_address(const struct instance *in, char out[ADDR_TEXT])
{
	struct text t = { out, 0, ADDR_TEXT - 1, false };
	socklen_t n;
	union sock s;
	struct ip ip;
	uint16_t port;

	if (in->replica < 0 || in->addr.kind == ADDR_NAME || !in->board)
		return in->addr.text;
	if (in->board->addrs.n == 0 || !board_addrs_get(in->board, 0, &s, &n))
		return "-";
	if (s.sa.sa_family == AF_UNIX) {
		bool abstract = s.un.sun_path[0] == '\0';
		size_t most = n - offsetof(struct sockaddr_un, sun_path) - abstract;
		text_str(&t, abstract ? "@" : "unix:");
		text_add(&t, (struct slice){ s.un.sun_path + abstract,
		    strnlen(s.un.sun_path + abstract, most) });
	} else {
		ip = ip_of_sock(&s, &port);
		text_str(&t, ip_is_v4(&ip) ? "" : "[");
		ip_text(&t, &ip);
		text_fmt(&t, ip_is_v4(&ip) ? ":%u" : "]:%u", port);
	}
	out[t.n] = '\0';
	return out;
}

/* For messages: good until the next call. */
static const char *
instance_text(const struct instance *in)
{
	static char b[ADDR_TEXT];

	return instance_address(in, b);
}

/* Takes n places away, or all: a killed worker may have noted more than it took. */
static unsigned
places_less(atomic_uint *places, unsigned n)
{
	unsigned had = *places;

	while (!atomic_compare_exchange_weak(places, &had, had - MIN(n, had)))
		;
	return had - MIN(n, had);
}

/* A worker left: keeps its sums in board->gone and frees its slot. */
static void
board_worker_gone(int slot)
{
	struct board_worker *w = &board->workers[slot], *g = &board->gone;

	for (size_t at = offsetof(struct board_worker, accepted);
	    at <= offsetof(struct board_worker, log_dropped); at += sizeof(struct wide))
		wide_count((struct wide *)((char *)g + at), wide_get((struct wide *)((char *)w + at)));
	for (size_t i = 0; i < INSTANCES_MAX && board->instances[i].key[0]; i++) {
		struct board_instance *b = &board->instances[i];
		for (size_t k = 0; k < FLIGHT_EPOCHS; k++) {
			unsigned n = atomic_exchange(&board->flights[slot][i][k], 0);
			places_less(&b->flights[k], n);
			places_less(&b->in_flight, n);
		}
		places_less(&b->held, atomic_exchange(&board->flights[slot][i][FLIGHT_EPOCHS], 0));
	}
	memset(w, 0, sizeof *w);
}

static uint64_t
rate_until(const struct board_rate *cell)
{
	return (uint64_t)cell->until_hi << 32 | cell->until_lo;
}

/* GCRA: each request costs period / requests of time; a client may be burst
 * requests ahead. Returns 0: the request may pass; else seconds to wait, 1 or
 * more. The cell whose debt ends first makes room for a new client. */
static unsigned
rate_take(const struct rate_limit *r, uint64_t tag)
{
	uint64_t cost = (uint64_t)r->per_ms * 1000 / r->requests;
	uint64_t room = cost * r->burst, now = (uint64_t)now_us, until, next;
	struct board_rate *cells = &board->rates[tag & (RATE_CELLS - RATE_WAYS)], *cell = cells;

	for (int i = 0; i < RATE_WAYS; i++) {
		if (cells[i].tag == tag >> 32) {
			cell = &cells[i];
			break;
		}
		if (rate_until(&cells[i]) < rate_until(cell))
			cell = &cells[i];
	}
	if (cell->tag != tag >> 32) {
		cell->tag = (uint32_t)(tag >> 32);
		cell->until_lo = cell->until_hi = 0;
	}
	/* more is no true debt: another clock, two writers at once, a limit lowered */
	until = MIN(rate_until(cell), now + room);
	next = MAX(now, until) + cost;
	if (next <= now + room)
		until = next;
	cell->until_lo = (uint32_t)until;
	cell->until_hi = (uint32_t)(until >> 32);
	return until == next ? 0 : (unsigned)((next - now - room + 999999) / 1000000);
}

/* Record i is the answer that the CA gets for domain: at `/.well-known/…/token` or, with
 * token "", in the handshake. domain NULL frees i. One writer. False: too long. */
static bool
challenge_set(int i, const char *domain, const char *token, const char *answer)
{
	struct board_challenge *c = &board->challenges[i];
	bool good = !domain || (strlen(domain) < sizeof c->domain &&
	    strlen(token) < sizeof c->token && strlen(answer) < sizeof c->answer);

	if (!domain || !good)
		domain = token = answer = "";
	seq_take(&c->seq, c->seq);
	snprintf(c->domain, sizeof c->domain, "%s", domain);
	snprintf(c->token, sizeof c->token, "%s", token);
	snprintf(c->answer, sizeof c->answer, "%s", answer);
	seq_give(&c->seq);
	return good;
}

/* The answer for that token (http-01, RFC 8555 8.3), or for domain without one (the
 * handshake of tls-alpn-01, RFC 8737). False: there is none, or none yet. */
static bool
challenge_answer(struct slice domain, struct slice token, char out[ACME_TOKEN_MAX])
{
	struct board_challenge c;

	for (size_t i = 0; i < LEN(board->challenges) && domain.n + token.n > 0; i++) {
		if (!seq_copy(&board->challenges[i].seq, &c, &board->challenges[i], sizeof c) ||
		    !c.domain[0] || !slice_eq(token, slice_of(c.token)) ||
		    (domain.n > 0 && !slice_eq(domain, slice_of(c.domain))))
			continue;
		memcpy(out, c.answer, sizeof c.answer);
		return true;
	}
	return false;
}

/* ==== store ==================================================================
 * Owns    the cache's memory, which workers share; what this process knows of it.
 * Offers  store_open, store_close, store_bells_open, store_join, store_bell,
 *         store_bell_drain, store_key, store_find, store_begin, store_head, store_add,
 *         store_finish, store_drop, store_look, store_read, store_skip, store_wait,
 *         store_update, store_purge_key, store_purge_some, store_purge_all,
 *         store_repair, store_stats.
 * Calls   base, clock, log, board (COUNT, wide_*). Knows bytes, not HTTP.
 *
 * One lock guards the index, the chains of blocks and the pins; whoever takes it does a
 * few microseconds' work, and whoever does not get it in time does without the cache.
 * A worker may be killed at any instruction: store_repair makes everything anew from
 * three things that are right at all times. These are the bits of `heads` (an entry
 * begins here), the chains that hang from such entries, and the pin logs. A chain grows
 * by one store, of a link to blocks that are linked already; `linked` is false, in the
 * index or not, while an entry's parts do not fit each other. settled() keeps the
 * compiler from moving stores across. */

#define STORE_LINE 16 /* words of a line of the sketch: 64 bytes */
#define STORE_PINS (STORE_BLOCK / sizeof(struct store_pin)) /* cells of a block */
#define ALWAYS     UINT_MAX /* as the worth of a newcomer */

_Static_assert(STORE_SLOTS % 32 == 0 && STORE_SLOTS < 255, "bits of waiters; writer");
_Static_assert(sizeof(struct store_entry) <= STORE_BLOCK, "an entry fits a block");

static struct {
	struct store *s;
	uint32_t *sketch, *buckets, *links, *heads, *marks;
	char *blocks;
	unsigned slot;       /* of the master: STORE_SLOTS */
	uint32_t pins, owed; /* cells of the pin log: free ones; those to be given back */
	uint32_t rings[STORE_SLOTS / 32]; /* bells to be rung when the lock is free */
	int bells[STORE_SLOTS][2];        /* where to listen, and to ring; the same for all
	                                     stores */
	unsigned n_bells;
} shelf = { .slot = STORE_SLOTS };

static void
settled(void)
{
	atomic_signal_fence(memory_order_seq_cst);
}

static bool
bit_get(const uint32_t *bits, uint32_t i)
{
	return bits[i / 32] >> i % 32 & 1;
}

static void
bit_set(uint32_t *bits, uint32_t i, bool on)
{
	bits[i / 32] = (bits[i / 32] & ~(UINT32_C(1) << i % 32)) | (uint32_t)on << i % 32;
}

/* The first bit that is set, from `from` on; end: none is, before. */
static uint32_t
bits_next(const uint32_t *bits, uint32_t from, uint32_t end)
{
	for (; from < end; from = (from | 31) + 1) {
		uint32_t word = bits[from / 32] >> from % 32;
		if (word)
			return MIN(from + (uint32_t)__builtin_ctz(word), end);
	}
	return end;
}

static char *
block_at(uint32_t b)
{
	return shelf.blocks + (size_t)(b - 1) * STORE_BLOCK;
}

static struct store_entry *
entry_at(uint32_t b)
{
	return (void *)block_at(b);
}

/* Cells count from 1, through all blocks. */
static struct store_pin *
pin_at(uint32_t i)
{
	return (struct store_pin *)(void *)shelf.blocks + (i - 1);
}

/* ---- chains ---- */

/* The next bytes that lie together, at most n; *p moves behind them. n > 0. */
static struct slice
place_next(struct store_place *p, size_t n)
{
	struct slice s = { NULL, 0 };

	if (p->at == STORE_BLOCK)
		*p = (struct store_place){ shelf.links[p->block], 0 };
	s.p = block_at(p->block) + p->at;
	s.n = MIN(n, STORE_BLOCK - p->at);
	p->at += (uint32_t)s.n;
	while (s.n < n && shelf.links[p->block] == p->block + 1) {
		p->block++;
		p->at = (uint32_t)MIN(n - s.n, (size_t)STORE_BLOCK);
		s.n += p->at;
	}
	return s;
}

static void
place_put(struct store_place *p, struct slice from)
{
	for (struct slice to; from.n > 0; from = slice_from(from, to.n)) {
		to = place_next(p, from.n);
		memcpy((char *)(uintptr_t)to.p, from.p, to.n);
	}
}

/* Whether s stands at *p, which then is behind it. */
static bool
place_is(struct store_place *p, struct slice s)
{
	for (struct slice at; s.n > 0; s = slice_from(s, at.n)) {
		at = place_next(p, s.n);
		if (memcmp(at.p, s.p, at.n) != 0)
			return false;
	}
	return true;
}

static void
place_get(struct store_place p, size_t n, struct text *to)
{
	for (struct slice s; n > 0; n -= s.n) {
		s = place_next(&p, n);
		text_add(to, s);
	}
}

static uint32_t
blocks_for(size_t n)
{
	return (uint32_t)((n + STORE_BLOCK - 1) / STORE_BLOCK);
}

static uint32_t
blocks_left(void)
{
	return shelf.s->n_free + shelf.s->n_blocks + 1 - shelf.s->fresh;
}

/* So many blocks are left. Those that were freed together come together, in order. */
static uint32_t
chain_take(uint32_t n, uint32_t *last)
{
	struct store *s = shelf.s;
	uint32_t first = 0, *to = &first, b;

	for (; n > 0; n--) {
		if ((b = s->free) != 0) {
			s->free = shelf.links[b];
			COUNT(s->n_free, -1u);
		} else {
			b = s->fresh;
			COUNT(s->fresh, 1);
		}
		*to = *last = b;
		to = &shelf.links[b];
	}
	*to = 0;
	settled();
	return first;
}

static void
chain_free(uint32_t first)
{
	uint32_t n = 1, last = first;

	if (!first)
		return;
	for (; shelf.links[last]; n++)
		last = shelf.links[last];
	shelf.links[last] = shelf.s->free;
	shelf.s->free = first;
	COUNT(shelf.s->n_free, n);
}

/* ---- how often keys were asked for ---- */

/* Of four counters in one cache line, of 4 bits, the least counts: others are shared
 * with more keys. All are halved from time to time. Returns it as it was. */
static unsigned
sketch_count(uint64_t hash, unsigned more)
{
	uint32_t *line = shelf.sketch + (hash >> 16 & (shelf.s->lines - 1)) * STORE_LINE;
	unsigned least = 15;

	for (int i = 36; i < 64; i += 7)
		least = MIN(least, line[hash >> (i + 3) & 15] >> (hash >> i & 7) * 4 & 15);
	for (int i = 36; i < 64 && least < 15; i += 7) {
		unsigned shift = (hash >> i & 7) * 4;
		uint32_t *word = &line[hash >> (i + 3) & 15];
		if ((*word >> shift & 15) == least)
			*word += (uint32_t)more << shift;
	}
	return least;
}

static void
sketch_fade(void)
{
	struct store *s = shelf.s;
	uint32_t *word = &shelf.sketch[s->faded & (s->lines * STORE_LINE - 1)];

	if (++s->finds % STORE_FADE == 0) {
		*word = *word >> 1 & 0x77777777;
		s->faded++;
	}
}

/* ---- waking ---- */

/* A bell that rings need not be rung again. */
static void
bell_ring(unsigned slot)
{
	static const uint64_t one = 1;

	if (slot >= shelf.n_bells || atomic_exchange(&shelf.s->workers[slot].rung, 1))
		return;
	if (write(shelf.bells[slot][1], &one, sizeof one) < 0)
		return; /* full: it rings */
}

static void
bells_ring(void)
{
	for (unsigned i = 0; i < STORE_SLOTS; i = (i | 31) + 1) {
		uint32_t *word = &shelf.rings[i / 32];
		for (; *word; *word &= *word - 1)
			bell_ring(i + (unsigned)__builtin_ctz(*word));
	}
}

/* Something about e is new: bells_ring then tells those that wait. */
static void
entry_wake(struct store_entry *e)
{
	e->turn++;
	for (size_t i = 0; i < LEN(e->waiters); i++)
		if (e->waiters[i])
			shelf.rings[i] |= atomic_exchange(&e->waiters[i], 0);
}

/* ---- entries, under the lock ---- */

/* Whether nobody may find e any more. */
static bool
entry_gone(const struct store_entry *e)
{
	return !e->linked || e->generation != shelf.s->generation || e->state == STORE_CUT;
}

static uint32_t *
bucket_of(uint64_t hash)
{
	return &shelf.buckets[hash & (shelf.s->buckets - 1)];
}

static void
entry_free(uint32_t b)
{
	bit_set(shelf.heads, b, false);
	settled();
	chain_free(entry_at(b)->head_chain);
	chain_free(b);
}

/* Takes b out of the index. Its memory goes with its last pin. */
static void
entry_unlink(uint32_t b)
{
	struct store_entry *e = entry_at(b);
	uint32_t *at = bucket_of(e->hash);

	if (e->linked) {
		e->linked = false;
		while (*at != b)
			at = &entry_at(*at)->next;
		*at = e->next;
		if (e->generation == shelf.s->generation)
			COUNT(shelf.s->entries, -1u);
		entry_wake(e);
	}
	if (e->pins == 0)
		entry_free(b);
}

static void
entry_link(uint32_t b)
{
	struct store_entry *e = entry_at(b);
	uint32_t *bucket = bucket_of(e->hash), oldest = 0, n = 0;

	for (uint32_t i = *bucket; i; i = entry_at(i)->next, n++)
		if (!oldest || (int32_t)(entry_at(i)->serial - entry_at(oldest)->serial) < 0)
			oldest = i;
	if (n >= STORE_CHAIN)
		entry_unlink(oldest);
	e->next = *bucket;
	*bucket = b;
	e->linked = true;
	COUNT(shelf.s->entries, e->generation == shelf.s->generation);
}

/* Sees to it that n blocks are left. The hand goes round the entries; one that nobody
 * has asked for since it came by last, or that is gone, makes way, unless it has been
 * asked for more than `worth` times. False: refused, or nothing to be had in so few
 * steps; the next call goes on from there. */
static bool
room_make(uint32_t n, unsigned worth)
{
	struct store *s = shelf.s;

	for (int looks = STORE_LOOKS; blocks_left() < n; looks--) {
		uint32_t end = MIN(s->fresh, s->hand + STORE_STRIDE);
		uint32_t b = bits_next(shelf.heads, s->hand, end);
		struct store_entry *e = entry_at(b);
		if (looks == 0)
			return false;
		s->hand = b < end ? b + 1 : end < s->fresh ? end : 1;
		if (b == end || e->pins > 0)
			continue;
		if (!entry_gone(e) && e->hot) {
			e->hot = false;
			continue;
		}
		if (!entry_gone(e) && sketch_count(e->hash, 0) > worth) {
			wide_count(&s->refused, 1);
			return false;
		}
		if (!entry_gone(e))
			wide_count(&s->evicted, 1);
		entry_unlink(b);
	}
	return true;
}

/* ---- the lock, and pins ---- */

/* Gives back what store_drop owes. */
static void
pins_settle(void)
{
	while (shelf.owed) {
		struct store_pin *pin = pin_at(shelf.owed);
		uint32_t b = pin->entry, i = shelf.owed;
		shelf.owed = pin->next;
		pin->entry = 0;
		pin->next = shelf.pins;
		shelf.pins = i;
		if (--entry_at(b)->pins == 0 && entry_gone(entry_at(b)))
			entry_unlink(b);
	}
}

/* False: it is held for longer than it should be, as by one that was killed. */
static bool
store_enter(void)
{
	for (int i = 0; i < STORE_SPINS + STORE_YIELDS; i++) {
		unsigned none = 0;
		if (atomic_load_explicit(&shelf.s->lock, memory_order_relaxed) == 0 &&
		    atomic_compare_exchange_strong(&shelf.s->lock, &none, shelf.slot + 1)) {
			pins_settle();
			return true;
		}
		if (i >= STORE_SPINS)
			sched_yield();
	}
	wide_add(&shelf.s->missed_lock, 1);
	return false;
}

static void
store_leave(void)
{
	atomic_store_explicit(&shelf.s->lock, 0, memory_order_release);
	bells_ring();
}

/* Sees to it that a cell of the pin log is free. */
static bool
pins_ready(void)
{
	struct store_worker *w = &shelf.s->workers[shelf.slot];
	uint32_t b, i;

	if (shelf.pins)
		return true;
	if (!room_make(1, ALWAYS))
		return false;
	b = chain_take(1, &b);
	memset(block_at(b), 0, STORE_BLOCK);
	i = (uint32_t)((b - 1) * STORE_PINS + 1);
	for (uint32_t end = i + (uint32_t)STORE_PINS; i < end; i++) {
		pin_at(i)->next = shelf.pins;
		shelf.pins = i;
	}
	shelf.links[b] = w->log;
	settled();
	w->log = b;
	return true;
}

/* pins_ready has seen to the cell. */
static void
pin_take(struct store_ref *r, uint32_t b)
{
	struct store_pin *pin = pin_at(shelf.pins);

	*r = (struct store_ref){ .entry = b, .pin = shelf.pins };
	shelf.pins = pin->next;
	pin->entry = b;
	entry_at(b)->pins++;
}

/* ---- the index ---- */

/* Texts for the calls below. vary "": the sole variant, or what the cache notes about
 * the variants. */
static struct store_key
store_key(struct slice key, struct slice vary)
{
	return (struct store_key){ key, vary, mix64(hash64(shelf.s->seed, key.p, key.n)) };
}

/* Whether b is of that key, and variant unless k->vary.p is NULL. */
static bool
entry_is(uint32_t b, const struct store_key *k)
{
	struct store_entry *e = entry_at(b);
	struct store_place p = { b, sizeof *e };

	return e->hash == k->hash && e->key_n == k->key.n && place_is(&p, k->key) &&
	    (!k->vary.p || (e->vary_n == k->vary.n && place_is(&p, k->vary)));
}

/* The newest whole entry of k, or else the newest; filling: only one that is being
 * filled. 0: none. */
static uint32_t
index_find(const struct store_key *k, bool filling)
{
	uint32_t best = 0;
	bool best_whole = false;

	for (uint32_t b = *bucket_of(k->hash); b; b = entry_at(b)->next) {
		struct store_entry *e = entry_at(b);
		bool whole = e->state == STORE_WHOLE;
		if (entry_gone(e) || (filling && whole) || !entry_is(b, k))
			continue;
		if (!best || (whole == best_whole ? (int32_t)(e->serial - entry_at(best)->serial) > 0
		                                  : whole)) {
			best = b;
			best_whole = whole;
		}
	}
	return best;
}

/* Copies what is known of r's entry; all but a state of STORE_BEGUN tells the head. */
static void
ref_look(struct store_ref *r, struct policy *facts, struct text *head)
{
	struct store_entry *e = entry_at(r->entry);

	r->turn = e->turn;
	r->state = e->state;
	if (r->state == STORE_BEGUN || !e->head.block)
		return;
	*facts = e->facts;
	place_get(e->head, e->head_n, head);
	if (!r->place.block)
		r->place = e->body;
}

/* ---- reading ---- */

/* Finds and pins k's newest whole entry, or else the one that is being filled (if
 * `filling`: only that), and looks at it as store_look does. False: none, or bypass. */
static bool
store_find(const struct store_key *k, bool filling, struct store_ref *r,
    struct policy *facts, struct text *head)
{
	uint32_t b;

	*r = (struct store_ref){ 0 };
	if (!store_enter())
		return false;
	sketch_count(k->hash, 1);
	sketch_fade();
	if (pins_ready() && (b = index_find(k, filling)) != 0) {
		entry_at(b)->hot = true;
		pin_take(r, b);
		ref_look(r, facts, head);
	}
	store_leave();
	return r->entry != 0;
}

/* Facts and head of r's entry, as they belong together, from r->state STORE_HEAD on.
 * The head is added to *head, whose `full` tells that it is too long. STORE_CUT: there
 * is nothing to be had, or nothing more. False: try again. */
static bool
store_look(struct store_ref *r, struct policy *facts, struct text *head)
{
	if (!store_enter())
		return false;
	ref_look(r, facts, head);
	store_leave();
	return true;
}

/* The next bytes of the body, at most `most` in n pieces, which stay where they are
 * until store_drop; r->state is the state before. Returns how many pieces. Without the
 * lock. None, and STORE_WHOLE: that was all. None, and STORE_CUT: more will not come. */
static int
store_read(struct store_ref *r, struct iovec *v, int n, size_t most)
{
	struct store_entry *e = entry_at(r->entry);
	struct store_place p = r->place;
	int got = 0;

	r->turn = e->turn;
	r->state = e->state;
	most = p.block ? MIN(most, e->n - r->pos) : 0;
	while (got < n && most > 0) {
		struct slice s = place_next(&p, most);
		v[got++] = (struct iovec){ (char *)(uintptr_t)s.p, s.n };
		most -= s.n;
	}
	return got;
}

/* Steps over n bytes that are there. */
static void
store_skip(struct store_ref *r, size_t n)
{
	r->pos += (uint32_t)n;
	while (n > 0)
		n -= place_next(&r->place, n).n;
}

/* The bytes of the body so far; all of them, of a whole entry. */
static uint32_t
store_length(const struct store_ref *r)
{
	return entry_at(r->entry)->n;
}

/* Asks for the bell when anything about r's entry is new. False: something is already,
 * since the last look or read. The bell may ring for nothing. */
static bool
store_wait(const struct store_ref *r)
{
	struct store_entry *e = entry_at(r->entry);

	atomic_fetch_or(&e->waiters[shelf.slot / 32], UINT32_C(1) << shelf.slot % 32);
	return e->turn == r->turn;
}

/* ---- writing ---- */

/* Sees to it that r's chain has room for n bytes. The lock is held for a batch. */
static bool
ref_reserve(struct store_ref *r, size_t n)
{
	struct store_entry *e = entry_at(r->entry);

	if (n > (size_t)shelf.s->n_blocks * STORE_BLOCK)
		return false;
	while (r->room < n) {
		uint32_t more = MIN(blocks_for(n - r->room), (uint32_t)STORE_BATCH), last;
		bool good;
		if (!store_enter())
			return false;
		good = room_make(more, sketch_count(e->hash, 0));
		if (good) {
			shelf.links[r->tail] = chain_take(more, &last);
			r->tail = last;
			r->room += more * STORE_BLOCK;
		}
		store_leave();
		if (!good)
			return false;
	}
	return true;
}

/* A new entry of k, pinned by *r, which writes it. */
static void
entry_make(struct store_ref *r, const struct store_key *k)
{
	uint32_t texts = (uint32_t)(sizeof(struct store_entry) + k->key.n + k->vary.n), last;
	uint32_t n = blocks_for(texts), b;
	struct store_entry *e;

	if (!room_make(n, sketch_count(k->hash, 0)))
		return;
	b = chain_take(n, &last);
	e = entry_at(b);
	memset(e, 0, sizeof *e);
	e->hash = k->hash;
	e->serial = ++shelf.s->serial;
	e->generation = shelf.s->generation;
	e->key_n = (uint32_t)k->key.n;
	e->vary_n = (uint32_t)k->vary.n;
	e->writer = (uint8_t)(shelf.slot + 1);
	pin_take(r, b);
	settled();
	bit_set(shelf.heads, b, true);
	r->writing = true;
	r->tail = last;
	r->room = n * STORE_BLOCK - texts;
	r->place = (struct store_place){ b, sizeof *e };
	place_put(&r->place, k->key);
	place_put(&r->place, k->vary);
	if ((r->older = index_find(k, false)) != 0)
		r->older_serial = entry_at(r->older)->serial;
	entry_link(b);
}

/* Begins an entry of k, which others find at once. An older whole one is found until
 * this one is whole, and then replaced. r->writing: the caller is to fill it, by
 * store_head, store_add..., store_finish. Else somebody fills it already, and r reads.
 * False: it cannot be stored. */
static bool
store_begin(const struct store_key *k, struct store_ref *r)
{
	uint32_t b;

	*r = (struct store_ref){ 0 };
	if (k->key.n > STORE_KEY_MAX || k->vary.n > STORE_KEY_MAX - k->key.n || !store_enter())
		return false;
	if (pins_ready()) {
		if ((b = index_find(k, true)) != 0)
			pin_take(r, b);
		else
			entry_make(r, k);
	}
	store_leave();
	return r->entry != 0;
}

/* The head is known, and a body of `expect` bytes announced: room is made for all of it
 * now, so that store_add will not fail for want of it. False: it is not to be stored;
 * store_finish. */
static bool
store_head(struct store_ref *r, const struct policy *facts, struct slice head,
    size_t expect)
{
	struct store_entry *e = entry_at(r->entry);

	if (expect > shelf.s->size || !ref_reserve(r, head.n + expect))
		return false;
	e->head = r->place;
	place_put(&r->place, head);
	e->head_n = e->head_room = (uint32_t)head.n;
	e->body = r->place;
	e->facts = *facts;
	r->room -= (uint32_t)head.n;
	e->state = STORE_HEAD;
	entry_wake(e);
	bells_ring();
	return true;
}

/* More of the body. False: no room; store_finish, and readers see it as cut. */
static bool
store_add(struct store_ref *r, struct slice s)
{
	struct store_entry *e = entry_at(r->entry);

	if (!ref_reserve(r, s.n))
		return false;
	place_put(&r->place, s);
	r->room -= (uint32_t)s.n;
	atomic_store_explicit(&e->n, e->n + (uint32_t)s.n, memory_order_release);
	entry_wake(e);
	bells_ring();
	return true;
}

/* Gives back what of r's chain was not written, and unlinks what r replaces. */
static void
ref_tidy(struct store_ref *r)
{
	uint32_t *last = &shelf.links[r->place.block], rest = *last, old = r->older;

	*last = 0;
	settled();
	chain_free(rest);
	if (old && bit_get(shelf.heads, old) && entry_at(old)->serial == r->older_serial)
		entry_unlink(old);
}

/* The end of writing. whole: from now on the entry is found instead of older ones; else
 * it is cut, and found no more. r stays pinned. */
static void
store_finish(struct store_ref *r, bool whole)
{
	struct store_entry *e = entry_at(r->entry);

	e->state = whole ? STORE_WHOLE : STORE_CUT;
	r->writing = false;
	if (store_enter()) {
		if (whole)
			ref_tidy(r);
		else
			entry_unlink(r->entry);
		store_leave();
	}
	entry_wake(e);
	bells_ring();
}

/* The end of r; of its entry too, if it is not finished. Any number of times. */
static void
store_drop(struct store_ref *r)
{
	if (r->writing)
		store_finish(r, false);
	if (r->entry) {
		pin_at(r->pin)->next = shelf.owed;
		shelf.owed = r->pin;
		if (store_enter())
			store_leave();
	}
	*r = (struct store_ref){ 0 };
}

/* New facts and a new head for r's whole entry, which ends a claim. Who has looked keeps
 * the old ones. False: no room, or the entry was purged. */
static bool
store_update(struct store_ref *r, const struct policy *facts, struct slice head)
{
	struct store_entry *e = entry_at(r->entry);
	uint32_t more = head.n > e->head_room ? blocks_for(head.n) : 0, old = 0, last;
	struct store_place p;
	bool good;

	if (!store_enter())
		return false;
	good = !entry_gone(e) && e->state == STORE_WHOLE && room_make(more, ALWAYS);
	if (good) {
		e->linked = false; /* killed here: the entry goes */
		settled();
		if (more) {
			old = e->head_chain;
			e->head_chain = chain_take(more, &last);
			e->head = (struct store_place){ e->head_chain, 0 };
			e->head_room = more * STORE_BLOCK;
		}
		p = e->head;
		place_put(&p, head);
		e->head_n = (uint32_t)head.n;
		e->facts = *facts;
		settled();
		e->linked = true;
		chain_free(old);
		entry_wake(e);
	}
	store_leave();
	return good;
}

/* ---- purging ---- */

/* Purges all variants of key, also what is being filled: that goes on for those who read
 * it, and is not stored. -1: the lock is busy, try again; else how many. */
static int
store_purge_key(struct slice key)
{
	struct store_key k = store_key(key, (struct slice){ NULL, 0 });
	int n = 0;

	if (!store_enter())
		return -1;
	for (uint32_t b = *bucket_of(k.hash), next; b; b = next) {
		next = entry_at(b)->next;
		if (entry_is(b, &k)) {
			n += !entry_gone(entry_at(b));
			entry_unlink(b);
		}
	}
	store_leave();
	return n;
}

/* Purges what match says, among some entries from *cursor on (0: from the first one), as
 * store_purge_key does, and adds their number to *n. True: there are more; call again.
 * match gets the key, and must be quick. */
static bool
store_purge_some(uint32_t *cursor, bool (*match)(const void *arg, struct slice key),
    const void *arg, unsigned *n)
{
	char copy[STORE_KEY_MAX];
	bool more = true;

	if (!store_enter())
		return true;
	for (int i = 0; i < STORE_BATCH && more; i++) {
		uint32_t end = MIN(shelf.s->fresh, *cursor + STORE_STRIDE);
		uint32_t b = bits_next(shelf.heads, MAX(*cursor, 1u), end);
		struct text key = { copy, 0, sizeof copy, false };
		if (b < end && !entry_gone(entry_at(b))) {
			place_get((struct store_place){ b, sizeof(struct store_entry) },
			    entry_at(b)->key_n, &key);
			if (match(arg, text_slice(&key))) {
				entry_unlink(b);
				++*n;
			}
		}
		*cursor = MIN(b + 1, end);
		more = *cursor < shelf.s->fresh;
	}
	store_leave();
	return more;
}

/* At once, however many they are. -1: the lock is busy, try again. */
static int
store_purge_all(void)
{
	int n;

	if (!store_enter())
		return -1;
	n = (int)shelf.s->entries;
	shelf.s->generation++;
	shelf.s->entries = 0;
	store_leave();
	return n;
}

/* ---- the mapping ---- */

/* Where the parts of a store begin; returns the bytes of all. */
static size_t
store_use(struct store *s)
{
	size_t words = s->n_blocks / 32 + 1;
	uint32_t *p = (uint32_t *)(void *)s + (sizeof *s + 63) / 64 * 16;

	shelf.s = s;
	shelf.sketch = p;
	shelf.buckets = shelf.sketch + (size_t)s->lines * STORE_LINE;
	shelf.links = shelf.buckets + s->buckets;
	shelf.heads = shelf.links + s->n_blocks + 1;
	shelf.marks = shelf.heads + words;
	p = shelf.marks + words;
	p += (16 - (size_t)(p - shelf.sketch) % 16) % 16;
	shelf.blocks = (char *)p;
	return (size_t)(shelf.blocks - (char *)s) + (size_t)s->n_blocks * STORE_BLOCK;
}

/* The largest power of 2 that is at most n. */
static uint32_t
power_below(uint32_t n)
{
	uint32_t p = 1;

	while (p <= n / 2)
		p *= 2;
	return p;
}

/* A store that takes size bytes in all, of which it touches what it needs. For the
 * master, before it forks the workers that will share it. NULL: logged. */
static struct store *
store_open(size_t size)
{
	struct store *s = size < STORE_MIN ? MAP_FAILED
	    : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (s == MAP_FAILED) {
		log_error("cache: no memory for %zu bytes", size);
		return NULL;
	}
	s->size = size;
	/* for each a link, two bits, 1 byte of the buckets, 2 of the sketch; 256: rounding */
	s->n_blocks = (uint32_t)((size - sizeof *s - 256) / (STORE_BLOCK + 8));
	s->buckets = power_below(s->n_blocks / 4);
	s->lines = power_below(s->n_blocks / 32);
	s->fresh = s->hand = 1;
	if (getrandom(&s->seed, sizeof s->seed, GRND_NONBLOCK) < 0)
		s->seed = mix64((uint64_t)now_us);
	store_use(s);
	return s;
}

static void
store_close(struct store *s)
{
	munmap(s, s->size);
}

/* The bells of the first n slots, before the first fork; more when there are more. 0; or
 * -1: logged. A worker rings only those that were there when it was forked. */
static int
store_bells_open(unsigned n)
{
	for (; shelf.n_bells < n; shelf.n_bells++) {
		int *bell = shelf.bells[shelf.n_bells];
		bell[0] = bell[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (bell[0] < 0 && pipe2(bell, O_CLOEXEC | O_NONBLOCK) < 0)
			return log_errno("cache: a bell");
	}
	return 0;
}

/* For a new worker: s is the store of that slot, which store_repair has cleared. */
static void
store_join(struct store *s, unsigned slot)
{
	store_use(s);
	shelf.slot = slot;
	shelf.pins = shelf.owed = 0;
	s->workers[slot].rung = 0;
}

/* What to poll for reading. When it rings, store_bell_drain, then see who waits. */
static int
store_bell(void)
{
	return shelf.bells[shelf.slot][0];
}

static void
store_bell_drain(void)
{
	uint64_t b[8];

	if (read(store_bell(), b, sizeof b) > 0)
		shelf.s->workers[shelf.slot].rung = 0;
}

/* ---- repair ---- */

/* Marks a chain; false: it meets one that is marked. */
static void
chain_mark(uint32_t b)
{
	for (; b && !bit_get(shelf.marks, b); b = shelf.links[b])
		bit_set(shelf.marks, b, true);
}

/* Counts the pins of all workers anew, and marks their logs. */
static void
pins_recount(void)
{
	for (size_t i = 0; i < STORE_SLOTS; i++) {
		uint32_t log = shelf.s->workers[i].log;
		chain_mark(log);
		for (; log; log = shelf.links[log])
			for (size_t k = 0; k < STORE_PINS; k++) {
				struct store_pin *pin = (struct store_pin *)(void *)block_at(log) + k;
				if (!bit_get(shelf.heads, pin->entry))
					pin->entry = 0; /* of one that was killed beginning it */
				else
					entry_at(pin->entry)->pins++;
			}
	}
}

/* Makes everything anew from entries, chains and pin logs. */
static void
store_rebuild(void)
{
	struct store *s = shelf.s;
	uint32_t end = s->fresh;

	memset(shelf.marks, 0, (s->n_blocks / 32 + 1) * sizeof *shelf.marks);
	memset(shelf.buckets, 0, s->buckets * sizeof *shelf.buckets);
	s->free = 0;
	s->n_free = 0;
	s->entries = 0;
	for (uint32_t b = 0; (b = bits_next(shelf.heads, b + 1, end)) < end;)
		entry_at(b)->pins = 0;
	pins_recount();
	for (uint32_t b = 0; (b = bits_next(shelf.heads, b + 1, end)) < end;) {
		struct store_entry *e = entry_at(b);
		if (e->pins == 0 && (entry_gone(e) || e->state < STORE_WHOLE)) {
			bit_set(shelf.heads, b, false);
			continue;
		}
		chain_mark(b);
		chain_mark(e->head_chain);
		if (e->linked)
			entry_link(b);
	}
	for (uint32_t b = end; --b > 0;)
		if (!bit_get(shelf.marks, b)) {
			shelf.links[b] = s->free;
			s->free = b;
			s->n_free++;
		}
}

/* Drops what a worker pinned, and cuts what it was filling. */
static void
worker_drop(unsigned slot)
{
	struct store_worker *w = &shelf.s->workers[slot];
	uint32_t log = w->log;

	for (uint32_t b = log; b; b = shelf.links[b])
		for (size_t k = 0; k < STORE_PINS; k++) {
			struct store_pin *pin = (struct store_pin *)(void *)block_at(b) + k;
			struct store_entry *e = entry_at(pin->entry);
			if (!pin->entry)
				continue;
			if (e->writer == slot + 1 && e->state < STORE_WHOLE)
				e->state = STORE_CUT;
			if (--e->pins == 0 || e->state == STORE_CUT)
				if (entry_gone(e))
					entry_unlink(pin->entry);
			pin->entry = 0;
		}
	w->log = 0;
	chain_free(log);
}

/* For the master, when the worker of that slot of s has ended, however it did: what it
 * had pinned is free, what it was filling is cut, and the lock is free of it. A lock that
 * it held tells that it was killed amid a change. False: another worker holds the lock;
 * call again, and repair others that have ended before. */
static bool
store_repair(struct store *s, unsigned slot)
{
	unsigned dead = slot + 1;

	store_use(s);
	if (atomic_compare_exchange_strong(&s->lock, &dead, shelf.slot + 1))
		store_rebuild();
	else if (!store_enter())
		return false;
	worker_drop(slot);
	store_leave();
	for (unsigned i = 0; i < shelf.n_bells; i++) {
		s->workers[i].rung = 0; /* by one that did not live to ring it */
		bell_ring(i);
	}
	return true;
}

/* For any process; figures of about now. */
static struct store_stats
store_stats(struct store *s)
{
	store_use(s);
	return (struct store_stats){
		.size = s->size,
		.used = s->size - (uint64_t)blocks_left() * STORE_BLOCK,
		.entries = s->entries,
		.evicted = wide_get(&s->evicted),
		.refused = wide_get(&s->refused),
		.missed_lock = wide_get(&s->missed_lock),
	};
}

/* ==== roster =================================================================
 * Owns    each upstream's roster: who may be asked now.
 * Offers  instance_standing, standing_names, instance_why, instance_failed,
 *         instance_worked, instance_timed, rosters_open,
 *         balance_pick, balance_stuck, stuck_value.
 * Calls   base, arena, clock, log, balance, board. The roster is made anew when
 *         the board's epoch has moved or its own time has come; a pick is only
 *         a look at it. */

#define PERCENT   100
#define STUCK_LEN 16 /* digits of the cookie's value */

static const char *const standing_names[STANDINGS] = {
	[STAND_UP]         = "up",
	[STAND_TRIAL]      = "trial",
	[STAND_FAILING]    = "failing",
	[STAND_UNRESOLVED] = "unresolved",
	[STAND_UNHEALTHY]  = "unhealthy",
	[STAND_CHECKING]   = "checking",
	[STAND_DRAINED]    = "drained",
	[STAND_STARTING]   = "starting",
	[STAND_DRAINING]   = "draining",
	[STAND_OFF]        = "off",
};

/* When in's breaker lets a trial through; 0: closed, always so for a sole instance. */
static int64_t
instance_open_until(const struct instance *in)
{
	uint32_t until = in->up->n_instances > 1 ? in->board->open_until_ms : 0;
	int32_t left = (int32_t)(until - (uint32_t)now_ms);

	if (until == 0)
		return 0; /* below: further ahead than it is ever set means long past */
	return left > (int64_t)in->up->fail_ms + SECOND_MS ? 1 : MAX(now_ms + left, 1);
}

static enum standing
instance_standing(const struct instance *in)
{
	const struct board_instance *b = in->board;
	int run = b->run, health = in->up->health.on ? b->health : HEALTH_UP;
	int64_t until = instance_open_until(in);

	if (b->addrs.n == 0)
		return run == RUN_OFF ? STAND_OFF : run == RUN_STARTING ? STAND_STARTING
		    : STAND_UNRESOLVED;
	if (b->drained)
		return STAND_DRAINED;
	if (run == RUN_OFF)
		return STAND_OFF;
	if (run == RUN_STARTING || run == RUN_DRAINING)
		return run == RUN_STARTING ? STAND_STARTING : STAND_DRAINING;
	if (health == HEALTH_DOWN)
		return STAND_UNHEALTHY;
	if (health == HEALTH_UNKNOWN && in->up->process)
		return STAND_CHECKING;
	if (until == 0)
		return STAND_UP;
	return until > now_ms ? STAND_FAILING : STAND_TRIAL;
}

/* ---- in words ---- */

static void
why_failing(const struct instance *in, struct text *why)
{
	int64_t wait = instance_open_until(in) - now_ms;
	unsigned fails = in->board->fails;

	text_fmt(why, "%u failure%s", fails, fails == 1 ? "" : "s");
	if (wait <= 0)
		text_str(why, ", the next request decides");
	else
		text_fmt(why, ", tried again in %u s", (unsigned)((wait + SECOND_MS - 1) / SECOND_MS));
}

/* "connect refused, 3 of 3, 12 s ago", or on its way back "passed 1 of 2, 3 s ago". */
static void
why_checks(const struct instance *in, struct text *why)
{
	const struct board_instance *b = in->board;
	const struct health_conf *h = &in->up->health;
	bool passes = b->check_fails == 0;
	unsigned n, of;
	char said[WHY_MAX];

	if (b->checked_ms == 0) {
		text_str(why, "not checked yet");
		return;
	}
	n = passes ? b->check_passes : b->check_fails;
	of = passes ? h->healthy : h->unhealthy;
	board_text_get(&b->check_why, said);
	text_str(why, passes ? "passed" : said[0] ? said : "failed");
	text_fmt(why, "%s%u of %u, %u s ago", passes ? " " : ", ", MIN(n, of), of,
	    clock_ago(b->checked_ms) / SECOND_MS);
}

/* The reason for the standing of in; nothing while it is up. */
static void
instance_why(const struct instance *in, struct text *why)
{
	static const char *const words[STANDINGS] = {
		[STAND_UNRESOLVED] = "it has no address yet",
		[STAND_DRAINED] = "drained by the operator",
		[STAND_STARTING] = "its process is starting",
		[STAND_DRAINING] = "its process is to be stopped",
		[STAND_OFF] = "its process does not run",
	};
	enum standing s = instance_standing(in);

	if (s == STAND_TRIAL || s == STAND_FAILING)
		why_failing(in, why);
	else if (s == STAND_UNHEALTHY || s == STAND_CHECKING)
		why_checks(in, why);
	else if (s == STAND_UNRESOLVED && in->addr.kind == ADDR_NAME)
		text_str(why, "its name does not resolve");
	else
		text_str(why, words[s]);
}

/* ---- the breaker ---- */

static void
instance_failed(const struct instance *in)
{
	struct board_instance *b = in->board;
	const struct upstream *up = in->up;
	bool was_open = b->open_until_ms != 0;

	wide_add(&b->failures, 1);
	if (up->max_fails == 0)
		return;
	if (b->window_ms == 0 || clock_ago(b->window_ms) > up->fail_ms) {
		b->window_ms = clock_low(now_ms);
		b->fails = 0;
	}
	if (++b->fails < up->max_fails && !was_open)
		return;
	b->open_until_ms = clock_low(now_ms + up->fail_ms);
	if (was_open || up->n_instances == 1)
		return;
	log_warn("upstream %s: %s failed %u times, left out for %u ms", up->name,
	    instance_text(in), b->fails, up->fail_ms);
	board_changed();
}

static void
instance_worked(const struct instance *in)
{
	struct board_instance *b = in->board;

	if (b->open_until_ms == 0)
		return;
	b->open_until_ms = 0;
	b->fails = 0;
	if (in->up->n_instances == 1)
		return;
	log_info("upstream %s: %s answers again", in->up->name, instance_text(in));
	b->up_since_ms = clock_low(now_ms);
	board_changed();
}

/* Adds the time of one answer to the moving average. */
static void
instance_timed(const struct instance *in, int64_t us)
{
	int64_t average = in->board->average_us;

	us = MIN(MAX(us, 1), INT32_MAX);
	if (average > 0)
		us = MAX(average + (us - average) / AVERAGE_PART, 1);
	atomic_store_explicit(&in->board->average_us, (unsigned)us, memory_order_relaxed);
}

/* Takes a due trial, and opens the breaker for others. False: it is another's. */
static bool
instance_claim(const struct instance *in)
{
	unsigned until = in->board->open_until_ms;

	if (until == 0 || in->up->n_instances == 1)
		return true;
	if (instance_open_until(in) > now_ms || !atomic_compare_exchange_strong(
	    &in->board->open_until_ms, &until, clock_low(now_ms + in->up->fail_ms)))
		return false;
	board_changed();
	return true;
}

/* ---- the roster ---- */

/* Room for a round of turns. */
static size_t
roster_ring_max(const struct upstream *up)
{
	bool even = up->slow_start_ms == 0;

	for (int i = 1; i < up->n_instances; i++)
		even &= up->instances[i].weight == up->instances[0].weight;
	return (size_t)up->n_instances + (even ? 0 : RING_MAX);
}

static void
roster_open(struct upstream *up)
{
	struct roster *r = xcalloc(1, sizeof *r);
	size_t n = (size_t)MAX(up->n_instances, 1);

	r->ready = xcalloc(n, sizeof(struct instance *));
	r->weight = xcalloc(n, sizeof *r->weight);
	r->turns = xcalloc(n, sizeof *r->turns);
	if (up->balance->turns)
		r->ring = xcalloc(MAX(roster_ring_max(up), 1), sizeof *r->ring);
	r->epoch = board->epoch - 1; /* ready is to be made */
	up->roster = r;
}

/* Once in each worker, which keeps its rosters as long as it lives. */
static void
rosters_open(struct conf *cf)
{
	for (int u = 0; u < cf->n_upstreams; u++) {
		struct upstream *up = &cf->upstreams[u];
		for (int i = 0; i < up->n_instances; i++) {
			struct instance *in = &up->instances[i];
			in->hash = mix64(hash64((uint64_t)instance_twin(in) + 1, in->addr.text,
			    strlen(in->addr.text)));
		}
		roster_open(up);
	}
}

/* The weight of in now, in hundredths; see slow_start_secs. */
static uint32_t
roster_weight(struct roster *r, const struct instance *in)
{
	int64_t slow = in->up->slow_start_ms, ago = clock_ago(in->board->up_since_ms);
	int64_t step = MAX(slow / PERCENT, SLOW_START_MS), part;

	if (in->board->up_since_ms == 0 || ago >= slow) {
		in->board->up_since_ms = 0; /* or it would seem new again in 49 days */
		return in->weight * PERCENT;
	}
	if (r->until_ms == 0 || now_ms + step < r->until_ms)
		r->until_ms = now_ms + step;
	part = ago * PERCENT / slow;
	return in->weight * (uint32_t)MAX(part, 1);
}

/* Adds the instances, backups or not, that can be asked. */
static void
roster_list(struct upstream *up, bool backup)
{
	struct roster *r = up->roster;

	for (int i = 0; i < up->n_instances; i++) {
		struct instance *in = &up->instances[i];
		enum standing s = instance_standing(in);
		int64_t until = instance_open_until(in);

		if (s == STAND_FAILING && (r->until_ms == 0 || until < r->until_ms))
			r->until_ms = until;
		if (in->backup != backup || (s != STAND_UP && s != STAND_TRIAL))
			continue;
		r->weight[r->n] = roster_weight(r, in);
		r->ready[r->n++] = in;
	}
}

/* Makes the roster anew if it may have changed. */
static void
roster_refresh(struct upstream *up)
{
	struct roster *r = up->roster;
	const struct instance *due = r->n_ring ? r->ready[r->ring[r->ring_at]] : NULL;
	int at = r->ring_at, n = r->n_ring;

	if (r->epoch == board->epoch && (r->until_ms == 0 || now_ms < r->until_ms))
		return;
	r->epoch = board->epoch; /* before anything is looked at */
	r->until_ms = 0;
	r->n = 0;
	roster_list(up, false);
	if (r->n == 0)
		roster_list(up, true);
	r->even = true;
	for (int i = 1; i < r->n; i++)
		r->even &= r->weight[i] == r->weight[0];
	if (r->ring) {
		roster_deal(r);
		roster_resume(r, due, at, n);
	}
}

/* ---- picking ---- */

/* The least busy of the backups that this request may be sent to. */
static struct instance *
roster_backup(struct upstream *up, const struct pick *p)
{
	struct instance *best = NULL;

	for (int i = 0; i < up->n_instances; i++) {
		struct instance *in = &up->instances[i];
		if (in->backup && instance_may(in, p) && instance_standing(in) == STAND_UP &&
		    (!best || in->board->in_flight < best->board->in_flight))
			best = in;
	}
	return best;
}

/* Gives the trial to the instance, with an open breaker, that failed longest ago. */
static struct instance *
roster_last_resort(struct upstream *up, const struct pick *p)
{
	for (int tries = 0; tries < up->n_instances; tries++) {
		struct instance *best = NULL;
		int64_t least = 0, until;
		unsigned was = 0, word;

		for (int i = 0; i < up->n_instances; i++) {
			struct instance *in = &up->instances[i];
			word = in->board->open_until_ms;
			until = instance_open_until(in);
			if (until == 0 || !instance_may(in, p) ||
			    (best && until >= least) || instance_standing(in) > STAND_FAILING)
				continue;
			best = in;
			least = until;
			was = word;
		}
		if (!best || atomic_compare_exchange_strong(&best->board->open_until_ms, &was,
		    clock_low(now_ms + up->fail_ms)))
			return best;
	}
	return NULL;
}

/* Nothing on the roster will do. NULL: one is only full; else a backup, or a trial. */
static struct instance *
roster_other(struct upstream *up, const struct pick *p)
{
	const struct roster *r = up->roster;
	struct instance *in;

	for (int i = 0; i < r->n; i++)
		if (!instance_tried(r->ready[i], p->tried))
			return NULL;
	in = roster_backup(up, p);
	return in ? in : roster_last_resort(up, p);
}

/* The instance that gets this request; NULL: none can be asked. */
static struct instance *
balance_pick(struct upstream *up, const struct pick *p)
{
	struct instance *in;

	for (int tries = 0; tries <= up->n_instances; tries++) {
		roster_refresh(up);
		if (!(in = up->balance->pick(up->roster, p)))
			return roster_other(up, p);
		if (instance_claim(in))
			return in;
		up->roster->until_ms = now_ms; /* the trial is another's: look again */
	}
	return NULL;
}

/* The cookie's value for in: the same in every worker and after a restart. */
static uint64_t
stuck_value(const struct instance *in)
{
	return mix64(in->hash);
}

/* The instance that a cookie names; NULL: none (any more). */
static struct instance *
balance_stuck(struct upstream *up, struct slice value)
{
	char b[STUCK_LEN];

	for (int i = 0; i < up->n_instances && value.n == STUCK_LEN; i++) {
		struct text t = { b, 0, sizeof b, false };
		text_hex(&t, stuck_value(&up->instances[i]), STUCK_LEN);
		if (slice_eq(text_slice(&t), value))
			return &up->instances[i];
	}
	return NULL;
}

/* ==== timer ==================================================================
 * Owns    the timer lists, one for each duration in use.
 * Offers  timer_set, timer_clear, timer_keep, timers_run, timers_next_ms.
 * Calls   base, clock. */

static struct timer_list timer_lists[TIMER_LISTS];
static int n_timer_lists;

/* The list of duration ms. When all lists are taken: the next longer one, or the
 * longest, several times over. A deadline may come late, never early. */
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
	return l;
}

static void
timer_clear(struct timer *t)
{
	if (!t->list)
		return;
	link_drop(&t->link);
	t->list = NULL;
}

static void
timer_link(struct timer *t, struct timer_list *l)
{
	t->list = l;
	t->due_ms = now_ms + l->ms;
	link_add_last(&l->ring, &t->link);
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

/* As timer_set, but a timer that already runs for ms goes on unchanged. */
static void
timer_keep(struct timer *t, uint32_t ms)
{
	if (!t->list || t->ms != ms)
		timer_set(t, ms);
}

static void
timers_run(void)
{
	struct link *first;

	for (int i = 0; i < n_timer_lists; i++)
		while ((first = link_first(&timer_lists[i].ring))) {
			struct timer *t = OWNER(first, struct timer, link);
			if (t->due_ms > now_ms)
				break;
			timer_clear(t);
			if (t->want_ms > now_ms)
				timer_link(t, &timer_lists[i]); /* a list too short for it */
			else
				t->fire(t);
		}
}

/* Milliseconds to the next deadline; -1: there is none. */
static int
timers_next_ms(void)
{
	int64_t next = INT64_MAX;

	for (int i = 0; i < n_timer_lists; i++) {
		struct link *first = link_first(&timer_lists[i].ring);
		if (first)
			next = MIN(next, OWNER(first, struct timer, link)->due_ms);
	}
	if (next == INT64_MAX)
		return -1;
	return (int)MIN(MAX(next - now_ms, 0), INT_MAX);
}

/* ==== loop ===================================================================
 * Owns    the poll array, and the epoll set where quiet descriptors are parked.
 * Offers  loop_open, loop_watch, loop_unwatch, loop_inside, loop_is_ready,
 *         loop_first, loop_turn, loop_aim, loop_park_none, loop_forked.
 * Calls   base, arena, clock, timer.
 *
 * Watching, changing and removing are memory writes: that is poll's strength.
 * Its weakness is that each descriptor costs each turn, busy or not. So a
 * descriptor without an event for PARK_TURNS turns, when watching it has cost
 * as much as parking it does, goes to epoll, which is one of poll's descriptors,
 * and comes back at its next event. Under any load the cost is at most twice
 * that of the better of the two. A descriptor that is only watched for failing
 * (a client that waits for its answer) is in neither for UNPOLLED_MS, longer
 * than most answers take, then in epoll. */

static struct pollfd *poll_fds; /* [0] is the parking lot */
static struct watch **poll_owners;
static int n_polls;
static struct watch parking = { .fd = -1, .slot = -1 };
/* Rings of watches, the oldest first. */
static struct link quiet;       /* those in poll */
static struct link unpolled;    /* those in neither */
static struct link insides;     /* those in poll that are ready whatever poll says */
static struct watch *loop_first; /* called before all others that are ready */
static uint32_t loop_turns;

static void
quiet_append(struct link *ring, struct watch *w, uint32_t since)
{
	link_drop(&w->link);
	w->since = since;
	link_add_last(ring, &w->link);
}

/* w did something: it is the last to be parked. */
static void
quiet_touch(struct watch *w)
{
	quiet_append(&quiet, w, loop_turns);
}

/* Out of the poll array: the last entry fills the gap. */
static void
poll_remove(struct watch *w)
{
	int last = n_polls - 1;

	link_drop(&w->link);
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
	w->parked = false; /* an event that epoll still reports is ignored */
}

/* Calls w->ready when w->fd is ready for events, or has failed. The caller
 * never has more watches than loop_open was told. */
static void
loop_watch(struct watch *w, short events)
{
	if (w->parked && w->events == events && !w->inside)
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
	if (w->inside && events & POLLIN)
		quiet_append(&insides, w, loop_turns);
	else
		quiet_touch(w);
}

/* are: bytes that were read for w wait above poll. While they do, w is ready
 * whenever it is watched for reading. */
static void
loop_inside(struct watch *w, bool are)
{
	w->inside = are;
	if (are && w->slot >= 0 && w->events & POLLIN)
		quiet_append(&insides, w, loop_turns);
}

/* Whether w has an event that was not handled yet. */
static bool
loop_is_ready(const struct watch *w)
{
	return w->inside || (w->slot >= 0 && poll_fds[w->slot].revents != 0);
}

/* Moves w to epoll, where watching is free, for one event: that disarms it, so
 * nothing need be undone. w stays in poll if epoll refuses it. */
static void
loop_park(struct watch *w)
{
	struct epoll_event ev = { .events = (uint32_t)w->events | EPOLLONESHOT, .data.ptr = w };

	if (epoll_ctl(parking.fd, w->known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, w->fd, &ev) < 0) {
		if (w->slot >= 0)
			quiet_touch(w);
		else
			link_drop(&w->link);
		return;
	}
	poll_remove(w);
	w->known = w->parked = true;
}

/* The oldest of a ring; NULL: it is empty. */
static struct watch *
quiet_oldest(const struct link *ring)
{
	struct link *l = link_first(ring);

	return l ? OWNER(l, struct watch, link) : NULL;
}

static void
park_quiet(void)
{
	struct watch *w;

	for (int i = 0; i < PARKED_BATCH && (w = quiet_oldest(&quiet)); i++) {
		if (loop_turns - w->since < PARK_TURNS)
			break;
		loop_park(w);
	}
	for (int i = 0; i < PARKED_BATCH && (w = quiet_oldest(&unpolled)); i++) {
		if ((uint32_t)now_ms - w->since < UNPOLLED_MS)
			break;
		loop_park(w);
	}
}

/* wait_ms, or less when a watch is to be parked. */
static int
park_wait(int wait_ms)
{
	const struct watch *w = quiet_oldest(&unpolled);
	uint32_t age;

	if (!w)
		return wait_ms;
	age = MIN((uint32_t)now_ms - w->since, (uint32_t)UNPOLLED_MS);
	return wait_ms < 0 ? (int)(UNPOLLED_MS - age) : MIN(wait_ms, (int)(UNPOLLED_MS - age));
}

/* Parked watches have events: they go back into the poll array, and on as if
 * poll had seen them. */
static void
parking_ready(struct watch *lot, short revents)
{
	struct epoll_event ev[PARKED_BATCH];
	int n = epoll_wait(lot->fd, ev, PARKED_BATCH, 0);

	(void)revents;
	for (int i = 0; i < n; i++) {
		struct watch *w = ev[i].data.ptr;
		if (!w->parked)
			continue; /* taken out of epoll before the event */
		w->parked = false;
		if (w->events)
			loop_watch(w, w->events);
		w->ready(w, (short)(ev[i].events & (POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP)));
	}
}

static void *
map_zeroed(size_t n)
{
	void *p = mmap(NULL, MAX(n, 1u), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die_memory();
	return p;
}

static void
loop_open(int watches)
{
	poll_fds = map_zeroed((size_t)(watches + 1) * sizeof *poll_fds);
	poll_owners = map_zeroed((size_t)(watches + 1) * sizeof *poll_owners);
	parking.fd = epoll_create1(EPOLL_CLOEXEC);
	parking.ready = parking_ready;
	parking.slot = n_polls++;
	poll_owners[0] = &parking;
	poll_fds[0] = (struct pollfd){ .fd = parking.fd, .events = POLLIN }; /* poll skips -1 */
}

/* Calls the watch at slot if poll found it ready; returns 1 then, else 0. */
static int
loop_call(int slot)
{
	struct watch *w = poll_owners[slot];
	short revents = poll_fds[slot].revents;

	if (!revents)
		return 0;
	poll_fds[slot].revents = 0;
	quiet_touch(w);
	w->ready(w, revents);
	return 1;
}

/* Visits ready entries from the back: a removal moves the last entry, which has
 * been visited, into the gap. */
static void
loop_dispatch(int ready)
{
	for (int i = n_polls - 1; i > 0 && ready > 0; i--)
		if (i < n_polls)
			ready -= loop_call(i);
}

/* Calls the watches that have bytes inside, which poll does not see. */
static void
loop_insides(void)
{
	struct link now = { NULL, NULL }, *l;
	struct watch *w;

	while ((l = link_first(&insides))) {
		link_drop(l);
		link_add_last(&now, l);
	}
	while ((w = quiet_oldest(&now))) {
		short revents = poll_fds[w->slot].revents;

		poll_fds[w->slot].revents = 0; /* it is handled with this */
		quiet_touch(w);
		w->ready(w, (short)(revents | POLLIN));
	}
}

/* Waits at most wait_ms (-1: for ever), then calls what is ready or due. */
static void
loop_turn(int wait_ms)
{
	int due = timers_next_ms(), ready;
	int64_t due_ms = due < 0 ? INT64_MAX : now_ms + due; /* new timers are later */

	if (due >= 0 && (wait_ms < 0 || due < wait_ms))
		wait_ms = due;
	if (link_first(&insides))
		wait_ms = 0;
	ready = poll(poll_fds, (nfds_t)n_polls, park_wait(wait_ms));
	clock_turn();
	loop_turns++;
	if (ready > 0 && loop_first && loop_first->slot > 0)
		ready -= loop_call(loop_first->slot);
	if (ready > 0 && poll_fds[0].revents) { /* in the order in which it came */
		poll_fds[0].revents = 0;
		parking_ready(&parking, 0);
		ready--;
	}
	loop_insides();
	loop_dispatch(ready);
	if (due_ms <= now_ms)
		timers_run();
	park_quiet();
}

/* From now on w watches fd, which may be another one than before, for events;
 * -1: none. */
static void
loop_aim(struct watch *w, int fd, short events)
{
	bool on = w->slot >= 0 || w->parked;

	if (on && w->fd == fd && w->events == events)
		return;
	if (on)
		loop_unwatch(w);
	w->fd = fd;
	w->known = false;
	if (fd >= 0)
		loop_watch(w, events);
}

/* In a process that forks nobody is parked: while a child still has what was
 * closed here, the epoll set would speak of it. */
static void
loop_park_none(void)
{
	close(parking.fd);
	parking.fd = poll_fds[0].fd = -1;
}

/* In a new child: its parent's watches and timers are not its own. */
static void
loop_forked(void)
{
	memset(timer_lists, 0, sizeof timer_lists);
	quiet = unpolled = insides = (struct link){ NULL, NULL };
	n_polls = n_timer_lists = 0;
}

/* ==== buf ====================================================================
 * Owns    free blocks of two sizes, and the scratch block that every read
 *         goes into first.
 * Offers  block_take, block_give, buf_*, scratch_*.
 * Calls   base, arena, timer. A block belongs to a connection only while bytes
 *         wait in it: usually only the scratch block is touched. */

#define HEADROOM 16 /* before what is read: for a chunk's size line */
#define TAILROOM 16 /* behind it: CRLF, the last chunk */

static struct block *blocks_free[BLOCK_CLASSES];
static unsigned n_blocks_free[BLOCK_CLASSES];
static unsigned n_blocks_spare[BLOCK_CLASSES]; /* of these: not taken since the last look */
static uint32_t block_bytes[BLOCK_CLASSES] = {
	[BLOCK_SMALL] = BLOCK_SMALL_BYTES,
	[BLOCK_LARGE] = RELAY_BYTES,
};
static struct block *scratch;
static struct buf *scratch_user; /* the buf in it now */

/* A large block holds the longest head and a piece of a body. */
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
		n_blocks_spare[k] = MIN(n_blocks_spare[k], n_blocks_free[k]);
		return b;
	}
	if (!(b = malloc(block_bytes[k])))
		die_memory(); /* the master starts another worker */
	b->cap = block_bytes[k] - (uint32_t)sizeof *b;
	b->klass = (uint8_t)k;
	return b;
}

/* Looks at the free blocks, again and again while there are some: blocks that
 * were not taken since the last look go back to the system. */
static void
blocks_shed(struct timer *t)
{
	unsigned left = 0;

	for (size_t k = 0; k < BLOCK_CLASSES; k++) {
		for (unsigned i = 0; i < n_blocks_spare[k]; i++) {
			struct block *b = blocks_free[k];
			blocks_free[k] = b->next;
			free(b);
		}
		n_blocks_free[k] -= n_blocks_spare[k];
		n_blocks_spare[k] = n_blocks_free[k];
		left += n_blocks_free[k];
	}
	if (left > 0)
		timer_set(t, BLOCKS_REST_MS);
}

static struct timer blocks_timer = { .fire = blocks_shed };

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
	if (!blocks_timer.list)
		timer_set(&blocks_timer, BLOCKS_REST_MS);
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
	if (f == scratch_user)
		scratch_user = NULL;
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

/* Moves the bytes of f to a block of its own, of class k. */
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

/* b has a new owner: if b was scratch, scratch is a fresh block. */
static void
scratch_leave(const struct block *b)
{
	if (b == scratch)
		scratch = block_take(BLOCK_LARGE);
}

/* f outlives the event: few bytes are copied, many take scratch along. */
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

/* Moves what is in scratch, before the event ends or something else is read. */
static void
scratch_settle(void)
{
	if (scratch_user)
		buf_settle(scratch_user);
	scratch_user = NULL;
}

/* Makes room for at least one more byte behind f; false: it is full. */
static bool
buf_room(struct buf *f)
{
	if (f->n == 0) {
		buf_free(f);
		scratch_settle();
		*f = (struct buf){ scratch, HEADROOM, 0 };
		scratch_user = f;
		return true;
	}
	if (f->off + f->n + TAILROOM < f->b->cap)
		return true;
	if (f->off > HEADROOM) {
		memmove(f->b->data + HEADROOM, buf_p(f), f->n);
		f->off = HEADROOM;
		return true;
	}
	if (f->b->klass == BLOCK_LARGE)
		return false;
	buf_move(f, BLOCK_LARGE);
	return true;
}

/* ==== tls ====================================================================
 * Owns    the engines of all TLS connections, record buffers between uses, and
 *         the certificates that handshakes are given.
 * Offers  tls_open, tls_certs_use, tls_server, tls_client, tls_shake, tls_take,
 *         tls_writev, tls_push, tls_pending, tls_close, tls_free, tls_oldest,
 *         tls_why.
 * Calls   base, arena, clock, addr, der, x509, certs, board, loop, BearSSL. BearSSL's
 *         engine does no I/O: this room reads and writes for it. A connection
 *         has record buffers only while bytes lie in them, and a verifier of
 *         the peer only during its handshake. */

#define TLS_RECORD 0x16 /* first byte of a handshake record */
#define TLS_ALERT  0x15 /* and of an alert record */
#define ALERT_BYTES 7   /* of an alert record; RFC 5246 7.2 */
#define ALERT_FATAL 2
#define BAD_CERTIFICATE 42
#define UNRECOGNIZED_NAME 112 /* RFC 6066 3 */
#define TLS_RECORD_HEAD 5
#define TLS_SEED 32
#define TLS_SHAKE_READS 4 /* in one turn */
#define SUBJECT_MAX 512 /* bytes of a client certificate's subject */
#define EC_SIGNATURE_MAX 139 /* bytes, in ASN.1 */
#define TLS_ALPN_ACME "acme-tls/1" /* RFC 8737 */

static const struct tls_conf *tls_conf; /* this worker's */
static struct cert_set *tls_certs;      /* for new handshakes */
static struct slots tls_slots = { .size = sizeof(struct tls),
	.next_at = offsetof(struct tls, link) };
static struct tls_bufs *tls_bufs_free;
static unsigned n_tls_bufs_free;
static struct link handshakes; /* of servers, running; oldest first */
static unsigned n_handshakes;
static uint64_t tls_settings; /* hash of the settings that sessions depend on */
static br_ssl_server_context server_made; /* each server begins as a copy */
static br_ssl_client_context client_made;

/* ---- the socket below ---- */

/* Bytes of v that the kernel took; 0: none now, -1: never again. */
static ssize_t
socket_put(struct chan *ch, struct iovec *v, int n)
{
	int flags = MSG_NOSIGNAL | (ch->more ? MSG_MORE : 0);
	struct msghdr m;
	ssize_t put;

	if (n > 1)
		m = (struct msghdr){ .msg_iov = v, .msg_iovlen = (uint16_t)n }; /* an int in musl */
	do
		put = n == 1 ? send(ch->w.fd, v[0].iov_base, v[0].iov_len, flags)
		             : sendmsg(ch->w.fd, &m, flags);
	while (put < 0 && errno == EINTR);
	if (put >= 0)
		return put;
	if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
		return 0;
	ch->broken = true;
	return -1;
}

/* Bytes read; 0: none now, -1: the end, or it failed. */
static ssize_t
socket_get(struct chan *ch, void *to, size_t room)
{
	ssize_t got;

	do
		got = recv(ch->w.fd, to, room, 0);
	while (got < 0 && errno == EINTR);
	if (got > 0)
		return got;
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	ch->broken |= got < 0;
	ch->eof = true;
	return -1;
}

/* ---- memory ---- */

/* Lends t buffers. BearSSL 0.6 needs only its two pointers set. */
static void
tls_wake(struct tls *t)
{
	struct tls_bufs *b = tls_bufs_free;

	if (t->bufs)
		return;
	if (b) {
		tls_bufs_free = b->next;
		n_tls_bufs_free--;
	} else if (!(b = malloc(sizeof *b)))
		die_memory();
	t->bufs = b;
	t->c.eng.ibuf = b->in;
	t->c.eng.obuf = b->out;
}

static void
tls_bufs_give(struct tls *t)
{
	if (!t->bufs)
		return;
	if (n_tls_bufs_free >= TLS_BUFS_KEPT)
		free(t->bufs);
	else {
		t->bufs->next = tls_bufs_free;
		tls_bufs_free = t->bufs;
		n_tls_bufs_free++;
	}
	t->bufs = NULL;
	t->c.eng.ibuf = t->c.eng.obuf = NULL; /* use without tls_wake crashes */
}

/* Gives the buffers back, if nothing lies in them. */
static void
tls_rest(struct tls *t)
{
	size_t n;

	if (t->state != TLS_OPEN || t->have > 0 ||
	    br_ssl_engine_current_state(&t->c.eng) != (BR_SSL_RECVREC | BR_SSL_SENDAPP))
		return;
	if (br_ssl_engine_recvrec_buf(&t->c.eng, &n) == t->bufs->in && n == TLS_RECORD_HEAD)
		tls_bufs_give(t);
}

static struct tls *
tls_new(struct chan *ch)
{
	struct tls *t = slot_take(&tls_slots);

	if (!t)
		return NULL;
	memset((char *)t + sizeof t->c, 0, sizeof *t - sizeof t->c);
	ch->tls = t;
	t->ch = ch;
	return t;
}

/* This handshake needs no certificate of its set any more. */
static void
tls_certs_leave(struct tls *t)
{
	struct cert_set *set = t->set;

	t->set = NULL;
	t->cert = NULL;
	if (set && --set->handshakes == 0 && set->replaced)
		certs_free(set);
}

/* Gives back what t had for its handshake, whatever came of that. */
static void
tls_shaken(struct tls *t)
{
	n_handshakes -= t->link.next != NULL;
	link_drop(&t->link);
	tls_certs_leave(t);
	free(t->verify);
	t->verify = NULL;
}

/* Forgets all of ch's TLS; the descriptor stays. */
static void
tls_free(struct chan *ch)
{
	struct tls *t = ch->tls;

	if (!t)
		return;
	ch->tls = NULL;
	tls_shaken(t);
	tls_bufs_give(t);
	free(t->subject);
	free(t->left);
	memset(t, 0, sizeof *t); /* it had keys */
	slot_give(&tls_slots, t);
}

/* The chan with the oldest handshake of a server; NULL: there is room for another. */
static struct chan *
tls_oldest(void)
{
	return n_handshakes < TLS_HANDSHAKES_MAX ? NULL
	    : OWNER(handshakes.next, struct tls, link)->ch;
}

/* ---- what both sides speak ---- */

/* ChaCha20 suites come first where the CPU has no AES instructions. */
static void
tls_algorithms(br_ssl_engine_context *e)
{
	static const uint16_t suites[] = {
		BR_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, BR_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		BR_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		BR_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		BR_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, BR_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	};
	bool aes = br_aes_x86ni_ctr_get_vtable() || br_aes_pwr8_ctr_get_vtable();
	uint16_t v[LEN(suites)];

	for (size_t i = 0; i < LEN(suites); i++)
		v[i] = suites[aes || i >= 4 ? i : i ^ 2]; /* the first two pairs change places */
	br_ssl_engine_set_suites(e, v, LEN(v));
	br_ssl_engine_set_versions(e, BR_TLS12, BR_TLS12);
	br_ssl_engine_set_hash(e, br_sha256_ID, &br_sha256_vtable);
	br_ssl_engine_set_hash(e, br_sha384_ID, &br_sha384_vtable);
	br_ssl_engine_set_hash(e, br_sha512_ID, &br_sha512_vtable);
	br_ssl_engine_set_prf_sha256(e, &br_tls12_sha256_prf);
	br_ssl_engine_set_prf_sha384(e, &br_tls12_sha384_prf);
	br_ssl_engine_set_default_ec(e);
	br_ssl_engine_set_default_aes_gcm(e);
	br_ssl_engine_set_default_chapol(e);
	br_ssl_engine_add_flags(e, BR_OPT_NO_RENEGOTIATION);
}

/* tls.legacy: adds what was usual before 2015, behind all that is better. */
static void
tls_legacy(br_ssl_engine_context *e)
{
	static const uint16_t old[] = {
		BR_TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, BR_TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256,
		BR_TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384, BR_TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384,
		BR_TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, BR_TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
		BR_TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, BR_TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
		BR_TLS_RSA_WITH_AES_128_GCM_SHA256, BR_TLS_RSA_WITH_AES_256_GCM_SHA384,
		BR_TLS_RSA_WITH_AES_128_CBC_SHA256, BR_TLS_RSA_WITH_AES_256_CBC_SHA256,
		BR_TLS_RSA_WITH_AES_128_CBC_SHA, BR_TLS_RSA_WITH_AES_256_CBC_SHA,
	};
	uint16_t all[BR_MAX_CIPHER_SUITES];
	size_t n = e->suites_num;

	memcpy(all, e->suites_buf, n * sizeof *all);
	memcpy(all + n, old, sizeof old);
	br_ssl_engine_set_suites(e, all, n + LEN(old));
	br_ssl_engine_set_versions(e, BR_TLS10, BR_TLS12);
	br_ssl_engine_set_hash(e, br_md5_ID, &br_md5_vtable);
	br_ssl_engine_set_hash(e, br_sha1_ID, &br_sha1_vtable);
	br_ssl_engine_set_prf10(e, &br_tls10_prf);
	br_ssl_engine_set_default_aes_cbc(e);
}

/* Buffers and entropy, before an engine starts. False: the host has nothing random. */
static bool
tls_ready(struct tls *t)
{
	unsigned char seed[TLS_SEED];

	tls_wake(t);
	br_ssl_engine_set_buffers_bidi(&t->c.eng, t->bufs->in, sizeof t->bufs->in, t->bufs->out,
	    sizeof t->bufs->out);
	if (getrandom(seed, sizeof seed, 0) != sizeof seed)
		return false;
	br_ssl_engine_inject_entropy(&t->c.eng, seed, sizeof seed);
	return true;
}

/* ---- the peer's certificate ---- */

static void
verify_start_chain(const br_x509_class **ctx, const char *name)
{
	struct tls_verify *v = (struct tls_verify *)ctx;

	(void)name; /* of SNI: NULL for an IP address; v->name is not */
	if (!v->any)
		v->x.vtable->start_chain(&v->x.vtable, v->name);
}

static void
verify_start_cert(const br_x509_class **ctx, uint32_t n)
{
	struct tls_verify *v = (struct tls_verify *)ctx;

	if (!v->any)
		v->x.vtable->start_cert(&v->x.vtable, n);
}

static void
verify_append(const br_x509_class **ctx, const unsigned char *p, size_t n)
{
	struct tls_verify *v = (struct tls_verify *)ctx;
	size_t k = v->n == 0 ? MIN(n, sizeof v->leaf - v->leaf_n) : 0;

	memcpy(v->leaf + v->leaf_n, p, k);
	v->leaf_n += k;
	if (!v->any)
		v->x.vtable->append(&v->x.vtable, p, n);
	else if (v->n == 0)
		br_x509_decoder_push(&v->x.key, p, n);
}

static void
verify_end_cert(const br_x509_class **ctx)
{
	struct tls_verify *v = (struct tls_verify *)ctx;

	v->n++;
	if (!v->any)
		v->x.vtable->end_cert(&v->x.vtable);
}

static unsigned
verify_end_chain(const br_x509_class **ctx)
{
	struct tls_verify *v = (struct tls_verify *)ctx;

	return v->verdict = v->any ? (unsigned)br_x509_decoder_last_error(&v->x.key)
	                           : v->x.vtable->end_chain(&v->x.vtable);
}

static const br_x509_pkey *
verify_get_pkey(const br_x509_class *const *ctx, unsigned *usages)
{
	struct tls_verify *v = (struct tls_verify *)(uintptr_t)ctx;

	if (!v->any)
		return v->x.vtable->get_pkey(&v->x.vtable, usages);
	if (usages)
		*usages = BR_KEYTYPE_KEYX | BR_KEYTYPE_SIGN;
	return br_x509_decoder_get_pkey(&v->x.key);
}

static const br_x509_class verify_class = {
	sizeof(struct tls_verify), verify_start_chain, verify_start_cert, verify_append,
	verify_end_cert, verify_end_chain, verify_get_pkey,
};

/* Lends t a verifier of its peer against trust; NULL: any peer will do. */
static void
tls_verify(struct tls *t, const struct trust *trust, const char *name)
{
	struct tls_verify *v = xcalloc(1, sizeof *v);
	int64_t now = now_s;

	t->verify = v;
	v->vtable = &verify_class;
	v->name = name;
	v->any = !trust;
	br_ssl_engine_set_default_rsavrfy(&t->c.eng);
	br_ssl_engine_set_default_ecdsa(&t->c.eng);
	br_ssl_engine_set_x509(&t->c.eng, &v->vtable);
	if (!trust) {
		br_x509_decoder_init(&v->x.key, NULL, NULL);
		return;
	}
	br_x509_minimal_init(&v->x.minimal, &br_sha256_vtable, trust->v, trust->n);
	br_x509_minimal_set_rsa(&v->x.minimal, br_rsa_pkcs1_vrfy_get_default());
	br_x509_minimal_set_ecdsa(&v->x.minimal, br_ec_get_default(), br_ecdsa_vrfy_asn1_get_default());
	br_x509_minimal_set_hash(&v->x.minimal, br_sha256_ID, &br_sha256_vtable);
	br_x509_minimal_set_hash(&v->x.minimal, br_sha384_ID, &br_sha384_vtable);
	br_x509_minimal_set_hash(&v->x.minimal, br_sha512_ID, &br_sha512_vtable);
	br_x509_minimal_set_minrsa(&v->x.minimal, TLS_RSA_MIN / 8);
	br_x509_minimal_set_time(&v->x.minimal, (uint32_t)(now / DAY_S + DAYS_TO_1970),
	    (uint32_t)(now % DAY_S));
}

/* ---- the server's certificate ---- */

/* How well c suits name. The first, and its twin of the other key type, suit any name. */
static int
cert_rank(const struct cert_set *set, const struct cert *c, struct slice name)
{
	int covers = name.n > 0 ? cert_covers(c, name) : 0;

	if (covers > 0)
		return covers > 1 ? RANK_EXACT : RANK_WILD;
	return c == set->v || (set->v[0].names.n > 0 && cert_covers(c, set->v[0].names.v[0]) > 1)
	    ? RANK_FIRST : RANK_OTHER;
}

/* The rank of the certificate that is shown for the name. */
static int
cert_best(const struct cert_set *set, struct slice name)
{
	int best = RANK_OTHER;

	for (int i = 0; i < set->n; i++)
		best = MAX(best, cert_rank(set, &set->v[i], name));
	return best;
}

/* A certificate of that rank for name, with a key of that type on one of the curves. */
static const struct cert *
cert_choose(const struct cert_set *set, struct slice name, int rank, int key_type,
    uint32_t curves)
{
	for (int i = 0; i < set->n; i++) {
		const struct cert *c = &set->v[i];
		if (c->key_type == key_type && cert_rank(set, c, name) == rank &&
		    (key_type == BR_KEYTYPE_RSA || curves >> c->ec.curve & 1))
			return c;
	}
	return NULL;
}

/* The name that the client asked for, in lower case. */
static struct slice
tls_name(const br_ssl_engine_context *e, char out[256])
{
	size_t n = 0;

	for (; n < 255 && e->server_name[n]; n++)
		out[n] = lower(e->server_name[n]);
	return (struct slice){ out, n };
}

/* A hash for a signature that the client can check; 0: none. */
static unsigned
hash_choose(uint32_t hashes, bool ec)
{
	static const int order[] = { br_sha256_ID, br_sha384_ID, br_sha512_ID, br_sha1_ID };

	for (size_t i = 0; i < LEN(order); i++)
		if (hashes >> (order[i] + (ec ? 8 : 0)) & 1)
			return (unsigned)order[i];
	return 0;
}

/* The key type that a suite needs in the certificate; 0: neither EC nor RSA. */
static int
suite_key_type(uint16_t translated)
{
	unsigned keyx = translated >> 12;

	return keyx == BR_SSLKEYX_ECDHE_ECDSA ? BR_KEYTYPE_EC
	    : keyx == BR_SSLKEYX_RSA || keyx == BR_SSLKEYX_ECDHE_RSA ? BR_KEYTYPE_RSA : 0;
}

/* A certificate for this handshake alone, which proves name to an ACME server. NULL: no
 * challenge for name is open. RFC 8737 3. */
static const struct cert *
cert_of_challenge(struct tls *t, struct slice name)
{
	struct slices names = { &name, 1 };
	struct certs_reader r = { .say = NULL };
	char answer[ACME_TOKEN_MAX];
	unsigned char hash[br_sha256_SIZE];
	struct cert_set *set;
	struct slice pem;

	if (name.n == 0 || !challenge_answer(name, S(""), answer))
		return NULL;
	sha256(slice_of(answer), hash);
	set = certs_new(&r.a, 1);
	certs_add(set, CERT_MADE, "", "");
	if (cert_make_pem(r.a, &names, hash, &pem) || !cert_read(&r, &set->v[0], pem, pem)) {
		certs_free(set);
		return NULL;
	}
	set->n = 1;
	tls_certs_leave(t);
	t->set = set;
	set->handshakes = 1;
	set->replaced = true;
	return &set->v[0];
}

/* The first of the client's suites for a certificate of that rank, or for `only`. */
static bool
policy_fit(struct tls *t, const br_ssl_server_context *cc, struct slice name, int rank,
    const struct cert *only, br_ssl_server_choices *out)
{
	uint32_t hashes = br_ssl_server_get_client_hashes(cc);
	uint32_t curves = br_ssl_server_get_client_curves(cc);
	const br_suite_translated *suites;
	size_t n;

	suites = br_ssl_server_get_client_suites(cc, &n);
	for (size_t i = 0; i < n; i++) {
		int key = suite_key_type(suites[i][1]);
		unsigned hash = hash_choose(hashes, key == BR_KEYTYPE_EC);
		const struct cert *c = only ? only : cert_choose(t->set, name, rank, key, curves);
		if (!c || c->key_type != key)
			continue;
		if (cc->eng.session.version < BR_TLS12) /* prescribed by older TLS */
			hash = key == BR_KEYTYPE_EC ? br_sha1_ID : 0;
		else if (hash == 0 && suites[i][1] >> 12 != BR_SSLKEYX_RSA)
			continue;
		t->cert = c;
		*out = (br_ssl_server_choices){ suites[i][0], 0xff00 + hash, c->chain, c->n_chain };
		return true;
	}
	return false;
}

/* Chooses certificate and suite: the name counts before the suite. */
static int
policy_choose(const br_ssl_server_policy_class **ctx, const br_ssl_server_context *cc,
    br_ssl_server_choices *out)
{
	struct tls *t = OWNER(ctx, struct tls, policy);
	char text[256];
	struct slice name = tls_name(&cc->eng, text);
	const char *alpn = br_ssl_engine_get_selected_protocol(&t->c.eng);
	bool challenge = alpn && strcmp(alpn, TLS_ALPN_ACME) == 0;
	const struct cert *only = challenge ? cert_of_challenge(t, name) : NULL;

	if (challenge ? !only : tls_conf->strict_sni && name.n > 0 &&
	    cert_best(t->set, name) < RANK_WILD) {
		t->unserved = true;
		return 0;
	}
	for (int rank = RANK_EXACT; rank >= RANK_OTHER; rank--)
		if (policy_fit(t, cc, name, rank, only, out))
			return 1;
	return 0;
}

static uint32_t
policy_do_keyx(const br_ssl_server_policy_class **ctx, unsigned char *data, size_t *n)
{
	struct tls *t = OWNER(ctx, struct tls, policy);

	return br_rsa_ssl_decrypt(br_rsa_private_get_default(), &t->cert->rsa, data, *n);
}

static size_t
policy_do_sign(const br_ssl_server_policy_class **ctx, unsigned algo, unsigned char *data,
    size_t hash_n, size_t room)
{
	static const unsigned char *const oids[] = {
		[br_sha1_ID] = BR_HASH_OID_SHA1, [br_sha256_ID] = BR_HASH_OID_SHA256,
		[br_sha384_ID] = BR_HASH_OID_SHA384, [br_sha512_ID] = BR_HASH_OID_SHA512,
	};
	const struct tls *t = OWNER(ctx, struct tls, policy);
	const struct cert *c = t->cert;
	unsigned id = algo & 0xff;
	unsigned char hash[64];
	const br_hash_class *made_by;

	if (hash_n > sizeof hash || id >= LEN(oids))
		return 0;
	memcpy(hash, data, hash_n);
	if (c->key_type == BR_KEYTYPE_RSA) {
		size_t n = (c->rsa.n_bitlen + 7) / 8;
		return n <= room && br_rsa_pkcs1_sign_get_default()(id ? oids[id] : NULL, hash,
		    hash_n, &c->rsa, data) ? n : 0;
	}
	made_by = id > 0 ? br_multihash_getimpl(&t->c.eng.mhash, (int)id) : NULL;
	if (room < EC_SIGNATURE_MAX || !made_by)
		return 0;
	return br_ecdsa_sign_asn1_get_default()(br_ec_get_default(), made_by, hash, &c->ec, data);
}

static const br_ssl_server_policy_class policy_class = {
	sizeof(struct tls), policy_choose, policy_do_keyx, policy_do_sign,
};

/* ---- sessions, shared by all workers ---- */

/* A session is good for its name and settings. BearSSL looks it up before the name is
 * known: see tls_shake_end. */
static uint64_t
session_scope(const br_ssl_engine_context *e)
{
	char text[256];
	struct slice name = tls_name(e, text);

	return hash64(0, name.p, name.n);
}

static struct board_session *
session_slot(const br_ssl_session_parameters *p)
{
	return &board->sessions[hash64(0, p->session_id, sizeof p->session_id) % tls_conf->sessions];
}

static void
session_save(const br_ssl_session_cache_class **ctx, br_ssl_server_context *cc,
    const br_ssl_session_parameters *p)
{
	struct board_session *s = session_slot(p);
	unsigned seq = s->seq;

	(void)ctx;
	if (seq & 1 && s->until_s > now_s)
		return; /* being written, or its writer was killed: only a cache */
	if (!seq_take(&s->seq, seq))
		return;
	s->scope = session_scope(&cc->eng);
	s->settings = tls_settings;
	s->until_s = (uint32_t)(now_s + SESSION_SECS);
	s->params = *p;
	seq_give(&s->seq);
}

static int
session_load(const br_ssl_session_cache_class **ctx, br_ssl_server_context *cc,
    br_ssl_session_parameters *p)
{
	const struct board_session *s = session_slot(p);
	struct board_session got;

	(void)ctx;
	if (!seq_copy(&s->seq, &got, s, sizeof got) || got.until_s <= now_s ||
	    got.settings != tls_settings || got.params.session_id_len != p->session_id_len ||
	    memcmp(got.params.session_id, p->session_id, sizeof p->session_id) != 0)
		return 0;
	((struct tls *)cc)->scope = got.scope;
	*p = got.params;
	return 1;
}

static const br_ssl_session_cache_class session_class = {
	sizeof(br_ssl_session_cache_class *), session_save, session_load,
};

/* ---- beginning ---- */

/* New handshakes get set; the last handshake that may use the old one frees it. */
static void
tls_certs_use(struct cert_set *set)
{
	struct cert_set *old = tls_certs;

	tls_certs = set;
	if (!old || old == set)
		return;
	old->replaced = true;
	if (old->handshakes == 0)
		certs_free(old);
}

/* Once: asking the CPU for its algorithms takes 20 us in a virtual machine. tls_ready
 * adds entropy to each context, so BearSSL need not look for any. */
static void
tls_make(void)
{
	static const char *protocols[] = { "http/1.1", TLS_ALPN_ACME };
	br_ssl_engine_context *e = &server_made.eng;

	br_ssl_server_zero(&server_made);
	tls_algorithms(e);
	br_ssl_engine_add_flags(e,
	    BR_OPT_ENFORCE_SERVER_PREFERENCES | BR_OPT_FAIL_ON_ALPN_MISMATCH);
	br_ssl_engine_set_protocol_names(e, protocols, tls_conf->domains.n > 0 ? 2 : 1);
	if (tls_conf->legacy)
		tls_legacy(e);
	e->rng_os_rand_done = 1;
	br_ssl_client_zero(&client_made);
	tls_algorithms(&client_made.eng);
	client_made.eng.rng_os_rand_done = 1;
}

/* Room for that many connections with TLS at one time. */
static void
tls_open(const struct tls_conf *tc, uint32_t most)
{
	tls_conf = tc;
	tls_certs = tc->set;
	tls_settings = hash64(tc->strict_sni, &tc->legacy, sizeof tc->legacy);
	if (most == 0)
		return;
	tls_slots.most = most;
	tls_slots.v = map_zeroed(most * tls_slots.size);
	tls_make();
}

/* Starts TLS on a client's ch; n bytes at p came already. Where clients are asked for a
 * certificate no session is resumed, since that shows none. */
static bool
tls_server(struct chan *ch, const char *p, size_t n)
{
	static const br_ssl_session_cache_class *cache = &session_class;
	const struct trust *clients = tls_conf->clients;
	struct tls *t = tls_new(ch);

	if (!t || n > sizeof t->bufs->in)
		return false;
	link_add_last(&handshakes, &t->link);
	n_handshakes++;
	t->c.server = server_made;
	t->policy = &policy_class;
	br_ssl_server_set_policy(&t->c.server, &t->policy);
	t->set = tls_certs;
	t->set->handshakes++;
	if (clients) { /* they must, or may, show a certificate */
		tls_verify(t, clients, NULL);
		br_ssl_server_set_trust_anchor_names_alt(&t->c.server, clients->v, clients->n);
		if (tls_conf->client_optional)
			br_ssl_engine_add_flags(&t->c.eng, BR_OPT_TOLERATE_NO_CLIENT_AUTH);
	} else if (tls_conf->sessions > 0)
		br_ssl_server_set_cache(&t->c.server, &cache);
	if (!tls_ready(t) || !br_ssl_server_reset(&t->c.server))
		return false;
	memcpy(t->bufs->in, p, n);
	t->have = (uint32_t)n;
	return true;
}

/* Starts TLS on ch, just connected, to peer; what peer points to outlives ch. */
static bool
tls_client(struct chan *ch, const struct tls_peer *peer)
{
	struct tls *t = tls_new(ch);
	bool resume = peer->session && peer->session->session_id_len > 0;
	const struct cert *cert = peer->client;
	struct ip ip;

	if (!t)
		return false;
	t->is_client = true;
	t->session = peer->session;
	t->c.client = client_made;
	tls_verify(t, peer->trust, peer->name);
	if (cert && cert->key_type == BR_KEYTYPE_RSA)
		br_ssl_client_set_single_rsa(&t->c.client, cert->chain, cert->n_chain, &cert->rsa,
		    br_rsa_pkcs1_sign_get_default());
	else if (cert)
		br_ssl_client_set_single_ec(&t->c.client, cert->chain, cert->n_chain, &cert->ec,
		    BR_KEYTYPE_KEYX | BR_KEYTYPE_SIGN, (unsigned)cert->issuer_key_type,
		    br_ec_get_default(), br_ecdsa_sign_asn1_get_default());
	if (resume)
		br_ssl_engine_set_session_parameters(&t->c.eng, peer->session);
	return tls_ready(t) && br_ssl_client_reset(&t->c.client,
	    peer->name && !ip_parse(slice_of(peer->name), &ip) ? peer->name : NULL, resume);
}

/* ---- bytes ---- */

/* Records on their way from an engine to its socket; empty between calls. */
static unsigned char flight[TLS_FLIGHT];
static size_t n_flight;

/* Sends the flight. False: some of it is not with the kernel, and waits in left. */
static bool
flight_send(struct chan *ch)
{
	struct tls *t = ch->tls;
	size_t n = n_flight;
	ssize_t put;

	n_flight = 0;
	if (n == 0 || (put = socket_put(ch, &(struct iovec){ flight, n }, 1)) == (ssize_t)n)
		return true;
	if (put >= 0) {
		t->left_at = 0;
		t->left_n = (uint32_t)(n - (size_t)put);
		if (!(t->left = malloc(t->left_n)))
			die_memory();
		memcpy(t->left, flight + put, t->left_n);
	}
	return false;
}

/* Adds the records that are due. Several are sent together: the peer is woken
 * once for a handshake (15 of 110 us), and once for 64 KB. */
static bool
flight_add(struct chan *ch)
{
	br_ssl_engine_context *e = &ch->tls->c.eng;
	unsigned char *p;
	size_t n;

	while ((p = br_ssl_engine_sendrec_buf(e, &n))) {
		if (n > sizeof flight - n_flight && !flight_send(ch))
			return false;
		memcpy(flight + n_flight, p, n);
		if (ch->tls->unserved && n == ALERT_BYTES && p[0] == TLS_ALERT &&
		    p[5] == ALERT_FATAL)
			flight[n_flight + 6] = UNRECOGNIZED_NAME; /* BearSSL lacks it */
		n_flight += n;
		br_ssl_engine_sendrec_ack(e, n);
	}
	return true;
}

/* Sends the rest of a flight. False: some is still left. */
static bool
tls_push_left(struct chan *ch)
{
	struct tls *t = ch->tls;
	ssize_t put = socket_put(ch, &(struct iovec){ t->left + t->left_at, t->left_n }, 1);

	if (put <= 0)
		return false;
	t->left_at += (uint32_t)put;
	t->left_n -= (uint32_t)put;
	if (t->left_n > 0)
		return false;
	free(t->left);
	t->left = NULL;
	return true;
}

/* Sends the records that are due. False: the kernel takes no more now, or ever (broken). */
static bool
tls_push(struct chan *ch)
{
	if (ch->broken || (ch->tls->left && !tls_push_left(ch)))
		return false;
	return flight_add(ch) && flight_send(ch);
}

/* Receives at p, perhaps part of a next record too. False: nothing; see eof, broken. */
static bool
tls_recv(struct chan *ch, unsigned char *p, unsigned *reads)
{
	struct tls *t = ch->tls;
	size_t room = (size_t)(t->bufs->in + sizeof t->bufs->in - p);
	ssize_t got;

	if (*reads == 0)
		return false;
	--*reads;
	if ((got = socket_get(ch, p, room)) <= 0) {
		ch->broken |= got < 0; /* cut off without close_notify */
		return false;
	}
	if ((size_t)got < room)
		*reads = 0; /* that was all */
	t->have = (uint32_t)got;
	t->have_at = (uint32_t)(p - t->bufs->in);
	return true;
}

/* Gives the engine what came with the last record, or what the socket has. False: nothing. */
static bool
tls_feed(struct chan *ch, unsigned *reads)
{
	struct tls *t = ch->tls;
	unsigned char *in = t->bufs->in, *p;
	size_t room;

	if (!(p = br_ssl_engine_recvrec_buf(&t->c.eng, &room)))
		return false;
	if (t->have == 0 && !tls_recv(ch, p, reads))
		return false;
	if (!t->spoken && !t->is_client && in[t->have_at] != TLS_RECORD)
		return false; /* see tls_shake */
	if (p != in + t->have_at)
		memmove(p, in + t->have_at, t->have);
	room = MIN(room, t->have);
	t->have -= (uint32_t)room;
	t->have_at = (uint32_t)(p - in + (ptrdiff_t)room);
	t->spoken = true;
	br_ssl_engine_recvrec_ack(&t->c.eng, room);
	return true;
}

/* The engine is closed, or the peer sends no more and needs no answer. */
static void
tls_closed(struct chan *ch)
{
	struct tls *t = ch->tls;

	tls_push(ch);
	t->err = br_ssl_engine_last_error(&t->c.eng);
	t->state = TLS_ENDED;
	ch->eof = true;
	ch->broken = t->err != 0;
}

/* Reads plain text: its bytes, 0: none now, -1: the end, or failed. Tells the loop what stays. */
static ssize_t
tls_take(struct chan *ch, char *to, size_t room)
{
	br_ssl_engine_context *e = &ch->tls->c.eng;
	unsigned state, reads = RELAY_BYTES / TLS_RECORD_MAX + 1;
	size_t n = 0, k;
	bool more = true;

	tls_wake(ch->tls);
	while (more && n < room) {
		state = br_ssl_engine_current_state(e);
		if (state & BR_SSL_RECVAPP) {
			unsigned char *p = br_ssl_engine_recvapp_buf(e, &k);
			k = MIN(k, room - n);
			memcpy(to + n, p, k);
			br_ssl_engine_recvapp_ack(e, k);
			n += k;
		} else if (state & BR_SSL_CLOSED || e->shutdown_recv) {
			tls_closed(ch);
			more = false;
		} else
			more = state & BR_SSL_RECVREC ? tls_feed(ch, &reads) : tls_push(ch);
	}
	state = br_ssl_engine_current_state(e);
	if (state & BR_SSL_SENDREC && !ch->eof)
		tls_push(ch);
	loop_inside(&ch->w, n > 0 && (state & BR_SSL_RECVAPP || ch->tls->have > 0 || ch->eof));
	if (n > 0)
		ch->eof = ch->broken = false; /* the next reading says so */
	tls_rest(ch->tls);
	return n > 0 ? (ssize_t)n : ch->eof || ch->broken ? -1 : 0;
}

/* Sends what fits of v in few records; returns how much. -1: the peer is gone. */
static ssize_t
tls_writev(struct chan *ch, const struct iovec *v, int n)
{
	struct tls *t = ch->tls;
	ssize_t taken = 0;
	unsigned char *p;
	size_t room;

	tls_wake(t);
	if (!tls_push(ch))
		return ch->broken ? -1 : 0;
	for (int i = 0; i < n; i++)
		for (size_t at = 0; at < v[i].iov_len; at += room) {
			if (!flight_add(ch))
				return ch->broken ? -1 : taken;
			if (!(p = br_ssl_engine_sendapp_buf(&t->c.eng, &room))) {
				flight_send(ch);
				ch->broken = true; /* it has been closed */
				return -1;
			}
			room = MIN(room, v[i].iov_len - at);
			memcpy(p, (const char *)v[i].iov_base + at, room);
			br_ssl_engine_sendapp_ack(&t->c.eng, room);
			taken += (ssize_t)room;
		}
	br_ssl_engine_flush(&t->c.eng, 0);
	tls_push(ch);
	tls_rest(t);
	return ch->broken ? -1 : taken;
}

/* Whether the kernel has not taken all that was written. */
static bool
tls_pending(const struct tls *t)
{
	return t->left || (t->bufs &&
	    br_ssl_engine_current_state(&t->c.eng) & BR_SSL_SENDREC);
}

/* Ends writing: sends close_notify, unless something is still pending. */
static void
tls_close(struct chan *ch)
{
	struct tls *t = ch->tls;

	if (ch->broken || t->state != TLS_OPEN || tls_pending(t))
		return;
	tls_wake(t);
	br_ssl_engine_close(&t->c.eng);
	tls_push(ch);
}

/* ---- handshakes ---- */

/* The kind of a part of a name: by its short name, or as 1.2.3. RFC 4514 2.3. */
static void
dn_kind_write(struct text *t, struct slice oid)
{
	static const struct dn_kind kinds_known[] = {
		{ { "\x55\x04\x03", 3 }, "CN" }, { { "\x55\x04\x0a", 3 }, "O" },
		{ { "\x55\x04\x0b", 3 }, "OU" }, { { "\x55\x04\x06", 3 }, "C" },
		{ { "\x55\x04\x07", 3 }, "L" }, { { "\x55\x04\x08", 3 }, "ST" },
		{ { "\x55\x04\x05", 3 }, "serialNumber" },
		{ { "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01", 9 }, "emailAddress" },
		{ { "\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x01", 10 }, "UID" },
		{ { "\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x19", 10 }, "DC" },
	};
	const char *name = NULL;
	uint64_t part = 0;
	bool first = true;

	for (size_t i = 0; i < LEN(kinds_known); i++)
		if (slice_eq(oid, kinds_known[i].oid))
			name = kinds_known[i].name;
	text_str(t, name);
	for (size_t i = 0; i < oid.n && !name; i++) {
		unsigned char c = (unsigned char)oid.p[i];
		part = part << 7 | (c & 0x7f);
		if (c & 0x80)
			continue;
		if (first) { /* two in one */
			text_uint(t, MIN(part / 40, 2u));
			part -= MIN(part / 40, 2u) * 40;
		}
		text_char(t, '.');
		text_uint(t, part);
		first = false;
		part = 0;
	}
}

/* Escaped so that no two values look alike. RFC 4514 2.4. */
static void
dn_value_write(struct text *t, struct slice value)
{
	for (size_t k = 0; k < value.n; k++) {
		char c = value.p[k];
		bool edge = k == 0 || k + 1 == value.n;
		if (c < ' ' || c > '~')
			text_byte(t, "\\", c);
		else if (strchr(",+\"\\<>;=", c) || (c == ' ' && edge) || (c == '#' && k == 0))
			text_fmt(t, "\\%c", c);
		else
			text_char(t, c);
	}
}

/* A distinguished name as RFC 4514 writes it, the last part first. */
static void
dn_write(struct text *t, struct slice dn)
{
	struct slice set, pair, id, value;
	const char *between;
	unsigned tag;

	if (!asn1_take(&dn, DER_SET, &set))
		return;
	dn_write(t, dn);
	between = t->n > 0 ? "," : "";
	while (asn1_take(&set, DER_SEQUENCE, &pair)) {
		if (!asn1_take(&pair, DER_OID, &id) || !asn1_next(&pair, &tag, &value))
			continue;
		text_str(t, between);
		dn_kind_write(t, id);
		text_char(t, '=');
		dn_value_write(t, value);
		between = "+";
	}
}

/* The subject of the leaf, for applications; NULL: unreadable, or too long. */
static char *
leaf_subject(const struct tls_verify *v)
{
	char b[SUBJECT_MAX];
	struct text t = { b, 0, sizeof b - 1, false };
	struct x509 x;

	if (!x509_split((struct slice){ (const char *)v->leaf, v->leaf_n }, &x))
		return NULL;
	dn_write(&t, x.subject);
	b[t.n] = '\0';
	return t.full ? NULL : strdup(b);
}

static const struct tls_failure tls_whys[] = {
	{ BR_ERR_UNSUPPORTED_VERSION, "it does not speak TLS 1.2", 70 },
	{ BR_ERR_BAD_VERSION, "it does not speak TLS", 0 },
	{ BR_ERR_BAD_LENGTH, "it sent a bad record", 0 },
	{ BR_ERR_TOO_LARGE, "it sent a record that is too large", 0 },
	{ BR_ERR_BAD_MAC, "it sent a record that was tampered with", 0 },
	{ BR_ERR_UNKNOWN_TYPE, "it sent a record of an unknown kind", 0 },
	{ BR_ERR_UNEXPECTED, "it sent a message out of order", 0 },
	{ BR_ERR_BAD_HANDSHAKE, "it sent a malformed handshake", 50 },
	{ BR_ERR_BAD_CIPHER_SUITE, "it chose a cipher suite that was not offered", 0 },
	{ BR_ERR_BAD_SIGNATURE, "its signature is wrong", 0 },
	{ BR_ERR_BAD_FINISHED, "the handshake was tampered with", 0 },
	{ BR_ERR_RESUME_MISMATCH, "it goes on with another name's session", 0 },
	{ BR_ERR_NO_CLIENT_AUTH, "no certificate was shown", 40 },
	{ BR_ERR_X509_EMPTY_CHAIN, "no certificate was shown", 40 },
	{ BR_ERR_X509_BAD_DN, "its certificate is too large, or its subject too long", 0 },
	{ BR_ERR_X509_NOT_CA, "its chain has a link that is no authority", 0 },
	{ BR_ERR_X509_DN_MISMATCH, "its chain is out of order", 0 },
	{ BR_ERR_X509_CRITICAL_EXTENSION, "its certificate has an extension that is not known", 0 },
	{ BR_ERR_X509_FORBIDDEN_KEY_USAGE, "its certificate is not meant for this", 0 },
	{ BR_ERR_X509_WEAK_PUBLIC_KEY, "its key is too short", 0 },
	{ BR_ERR_X509_UNSUPPORTED, "its certificate is signed in a way that is not supported", 43 },
	{ BR_ERR_X509_BAD_SIGNATURE, "a signature in its chain is wrong", 0 },
	{ BR_ERR_X509_TIME_UNKNOWN, "the time is not known", 0 },
	{ BR_ERR_RECV_FATAL_ALERT + 40, "it says that there is no common cipher suite", 0 },
	{ BR_ERR_RECV_FATAL_ALERT + 42, "it refuses the certificate", 0 },
	{ BR_ERR_RECV_FATAL_ALERT + 43, "it does not support the certificate's kind", 0 },
	{ BR_ERR_RECV_FATAL_ALERT + 45, "it says that the certificate has expired", 0 },
	{ BR_ERR_RECV_FATAL_ALERT + 46, "it refuses the certificate", 0 },
	{ BR_ERR_RECV_FATAL_ALERT + 48, "it does not know who signed the certificate", 0 },
	{ BR_ERR_RECV_FATAL_ALERT + 70, "it does not speak TLS 1.2", 0 },
	{ BR_ERR_RECV_FATAL_ALERT + 112, "it does not know the name", 0 },
	{ BR_ERR_RECV_FATAL_ALERT + 116, "it wants a client certificate", 0 },
	{ BR_ERR_SEND_FATAL_ALERT + 40, "there is no common cipher suite", 0 },
	{ BR_ERR_SEND_FATAL_ALERT + 70, "it offers no TLS 1.2", 0 },
	{ BR_ERR_SEND_FATAL_ALERT + 112, "it asks for a name that is not served", 0 },
	{ BR_ERR_X509_EXPIRED, NULL, 45 },
	{ BR_ERR_X509_NOT_TRUSTED, NULL, 48 },
};

/* Tells the peer why, where BearSSL only closes. While nothing is encrypted, an
 * alert is seven plain bytes. RFC 5246 7.2.2. */
static void
tls_alert(struct chan *ch)
{
	const struct tls *t = ch->tls;
	bool x509 = t->err >= BR_ERR_X509_OK && t->err <= BR_ERR_X509_NOT_TRUSTED;
	unsigned char b[] = { TLS_ALERT, 3, 3, 0, 2, ALERT_FATAL, x509 ? BAD_CERTIFICATE : 0 };

	if (t->left || t->c.eng.out.vtable != &br_sslrec_out_clear_vtable)
		return;
	for (size_t i = 0; i < LEN(tls_whys); i++)
		if (tls_whys[i].err == t->err && tls_whys[i].alert)
			b[6] = tls_whys[i].alert;
	if (b[6])
		socket_put(ch, &(struct iovec){ b, sizeof b }, 1); /* best effort */
}

/* Checks a finished handshake. An optional certificate must be good if shown. */
static enum shake
tls_shake_end(struct chan *ch)
{
	struct tls *t = ch->tls;
	struct tls_verify *v = t->verify;

	if (v && v->n > 0)
		t->err = (int)v->verdict;
	if (v && v->n > 0 && t->err == 0 && !t->is_client && !(t->subject = leaf_subject(v)))
		t->err = BR_ERR_X509_BAD_DN;
	if (t->err != 0)
		return SHAKE_FAILED;
	if (t->session)
		br_ssl_engine_get_session_parameters(&t->c.eng, t->session);
	t->resumed = !t->is_client && !t->cert;
	if (t->resumed && t->scope != session_scope(&t->c.eng)) {
		session_slot(&t->c.eng.session)->until_s = 0; /* the next try begins anew */
		br_ssl_engine_close(&t->c.eng);
		tls_push(ch);
		t->err = BR_ERR_RESUME_MISMATCH; /* RFC 6066 3 */
		return SHAKE_FAILED;
	}
	t->state = TLS_OPEN;
	tls_shaken(t);
	loop_inside(&ch->w, t->have > 0 ||
	    br_ssl_engine_current_state(&t->c.eng) & BR_SSL_RECVAPP);
	return SHAKE_DONE;
}

/* Goes on with the handshake. WAITS: to write if ch->waits, else to read. DONE: bytes
 * that came behind it can be read. */
static enum shake
tls_shake(struct chan *ch)
{
	struct tls *t = ch->tls;
	unsigned state, reads = TLS_SHAKE_READS;

	for (;;) {
		state = br_ssl_engine_current_state(&t->c.eng);
		if (state & BR_SSL_CLOSED) {
			tls_closed(ch);
			tls_alert(ch);
			return SHAKE_FAILED;
		}
		ch->waits = tls_pending(t) && !tls_push(ch);
		if (ch->broken)
			return SHAKE_FAILED;
		if (ch->waits)
			return SHAKE_WAITS;
		if (state & BR_SSL_SENDREC)
			continue; /* that may have been the last record */
		if (state & BR_SSL_SENDAPP)
			return tls_shake_end(ch);
		if (state & BR_SSL_RECVREC && !tls_feed(ch, &reads))
			return ch->broken ? SHAKE_FAILED : t->have > 0 ? SHAKE_PLAIN : SHAKE_WAITS;
	}
}

/* ---- words ---- */

/* The fault of the peer's certificate, with names from it. False: no words for it. */
static bool
tls_why_cert(const struct tls_verify *v, int err, char *out, size_t n)
{
	struct arena a = { NULL };
	struct slices names;
	const char *name;
	struct x509 x;
	bool said = true;

	if (v->leaf_n == 0 || !x509_split((struct slice){ (const char *)v->leaf, v->leaf_n }, &x))
		return false;
	names = x509_names(&a, &x);
	name = names.n ? names.v[0].p : "no name";
	if (err == BR_ERR_X509_BAD_SERVER_NAME)
		snprintf(out, n, "its certificate is for %s%s, not for %s", name,
		    names.n > 1 ? " and others" : "", v->name ? v->name : "us");
	else if (err == BR_ERR_X509_NOT_TRUSTED)
		snprintf(out, n, "its certificate is not trusted: nobody in the CA file signed for %s",
		    x509_who(&a, x.issuer).p);
	else if (err == BR_ERR_X509_EXPIRED)
		snprintf(out, n, "a certificate of its chain (%s, by %s) has expired or is not yet valid",
		    name, x509_who(&a, x.issuer).p);
	else
		said = false;
	arena_free(&a);
	return said;
}

/* Why TLS failed, for the log. */
static void
tls_why(const struct chan *ch, char *out, size_t n)
{
	const struct tls *t = ch->tls;
	const char *known = NULL;

	for (size_t i = 0; i < LEN(tls_whys); i++)
		if (tls_whys[i].err == t->err)
			known = tls_whys[i].why;
	if (t->unserved)
		snprintf(out, n, "it asks for %.100s, which is not served",
		    t->c.eng.server_name[0] ? t->c.eng.server_name : "no name");
	else if (t->err == 0)
		snprintf(out, n, "it closed the connection");
	else if (t->verify && tls_why_cert(t->verify, t->err, out, n))
		return;
	else if (known)
		snprintf(out, n, "%s (%d)", known, t->err);
	else if (t->err > BR_ERR_RECV_FATAL_ALERT && t->err < BR_ERR_SEND_FATAL_ALERT)
		snprintf(out, n, "it ended the handshake with alert %d",
		    t->err - BR_ERR_RECV_FATAL_ALERT);
	else
		snprintf(out, n, "BearSSL's error %d", t->err);
}

/* ==== chan ===================================================================
 * Owns    what a chan owns: its descriptor and unsent bytes.
 * Offers  chan_open, chan_send, chan_flush, chan_forget, chan_shutdown,
 *         side_open, side_of, side_fill, side_tls, side_plain, side_close.
 * Calls   base, timer, loop, buf, tls. All reads and writes of connections;
 *         rooms above do not know whether there is TLS on one. */

static void
chan_open(struct chan *ch, int fd, void (*ready)(struct watch *, short))
{
	*ch = (struct chan){ .w = { .fd = fd, .slot = -1, .ready = ready } };
}

/* Drops what was not sent. */
static void
chan_forget(struct chan *ch)
{
	buf_free(&ch->out);
	ch->waits = false;
}

/* Ends writing. With TLS the peer may write nothing more either. */
static int
chan_shutdown(struct chan *ch)
{
	if (ch->tls)
		tls_close(ch);
	return shutdown(ch->w.fd, SHUT_WR);
}

static void
side_close(struct side *s)
{
	if (s->ch.tls && !s->ch.eof && !s->ch.waits)
		tls_close(&s->ch);
	tls_free(&s->ch);
	loop_unwatch(&s->ch.w);
	timer_clear(&s->timer);
	buf_free(&s->src.in);
	buf_free(&s->ch.out);
	if (s->ch.w.fd >= 0)
		close(s->ch.w.fd);
	s->ch.w.fd = -1;
}

/* Reads once. Returns bytes read, 0 when nothing came, -1 at the end or on
 * failure: see eof, broken. */
static ssize_t
chan_read(struct chan *ch, char *to, size_t room)
{
	ssize_t got;

	if (ch->tls) {
		got = tls_take(ch, to, room);
		ch->waits = ch->out.n > 0 || tls_pending(ch->tls);
		return got;
	}
	return socket_get(ch, to, room);
}

/* Reads once, behind what is there. Returns bytes read, 0 when nothing came
 * (or nothing fits), -1 at the end or on failure: see src.end. */
static ssize_t
side_fill(struct side *s)
{
	struct buf *in = &s->src.in;
	ssize_t got;
	size_t room;

	if (!buf_room(in))
		return 0;
	room = in->b->cap - in->off - in->n - TAILROOM;
	got = chan_read(&s->ch, buf_p(in) + in->n, MIN(room, (size_t)RELAY_BYTES));
	if (got > 0)
		in->n += (uint32_t)got;
	else if (in->n == 0)
		buf_free(in);
	if (got < 0)
		s->src.end = s->ch.broken ? SOURCE_CUT : SOURCE_ENDED;
	return got;
}

/* The side that src is part of. */
static struct side *
side_of(struct source *src)
{
	return OWNER(src, struct side, src);
}

static ssize_t
side_source_fill(struct source *src)
{
	return side_fill(side_of(src));
}

static void
side_open(struct side *s, int fd, void (*ready)(struct watch *, short))
{
	chan_open(&s->ch, fd, ready);
	s->src = (struct source){ .fill = side_source_fill };
}

/* Begins TLS on s, as the server, with the bytes that were read so far. False:
 * there is no room for TLS. */
static bool
side_tls(struct side *s)
{
	struct slice in = buf_slice(&s->src.in);
	bool good = tls_server(&s->ch, in.p, in.n);

	buf_free(&s->src.in);
	return good;
}

/* The peer speaks no TLS: s goes on without it, with the bytes that came. */
static void
side_plain(struct side *s)
{
	struct tls *t = s->ch.tls;
	struct buf *in = &s->src.in;

	if (buf_room(in) && t->bufs) {
		memcpy(buf_p(in), t->bufs->in + t->have_at, MIN(t->have, (uint32_t)RELAY_BYTES));
		in->n = MIN(t->have, (uint32_t)RELAY_BYTES);
	}
	tls_free(&s->ch);
}

/* All of v in one piece, if that is short: the copy takes less time than the
 * kernel takes to look at several (150 ns of an answer of 1 KiB). */
static bool
iov_gather(struct iovec *one, const struct iovec *v, int n)
{
	static char bytes[GATHER_BYTES];
	size_t at = 0;

	for (int i = 0; i < n; at += v[i++].iov_len)
		if (v[i].iov_len > sizeof bytes - at)
			return false;
	*one = (struct iovec){ bytes, at };
	at = 0;
	for (int i = 0; i < n; at += v[i++].iov_len)
		memcpy(bytes + at, v[i].iov_base, v[i].iov_len);
	return true;
}

/* What the kernel takes now; -1: the peer is gone. */
static ssize_t
chan_writev(struct chan *ch, struct iovec *v, int n)
{
	struct iovec one;

	if (ch->tls)
		return tls_writev(ch, v, n);
	return n > 1 && iov_gather(&one, v, n) ? socket_put(ch, &one, 1) : socket_put(ch, v, n);
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

/* Keeps what was not sent in out. If only the last piece is left and lies in
 * `owner`, its block is taken over; anything else is copied. */
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

/* Sends v[0 .. n), which together fit a large block, and keeps what is left.
 * owner: the buf in which the last piece, and nothing else, lies; or NULL. Only
 * while nothing waits. -1: the peer is gone. */
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
	ch->waits = i < n || (ch->tls && tls_pending(ch->tls));
	return ch->broken ? -1 : 0;
}

/* Sends what waits; true when nothing waits any more. */
static bool
chan_flush(struct chan *ch)
{
	struct iovec v;
	ssize_t put;

	if (!ch->waits)
		return true;
	if (ch->out.n > 0) {
		v = (struct iovec){ buf_p(&ch->out), ch->out.n };
		put = chan_writev(ch, &v, 1);
		if (put > 0)
			buf_eat(&ch->out, (size_t)put);
	} else
		tls_push(ch);
	ch->waits = ch->out.n > 0 || (ch->tls && tls_pending(ch->tls));
	if (ch->tls && !ch->waits)
		tls_rest(ch->tls);
	return !ch->waits;
}

/* ==== listen =================================================================
 * Owns    listening sockets while they are opened and closed.
 * Offers  listen_open, listen_close.
 * Calls   base, walk, log, addr. Every message says what to do about it. */

#define SOCKET_MODE_BITS 0777

/* Removes a stale socket file, where nobody accepts. Any other stays: a full backlog,
 * another type of socket or no permission means that it is in use. */
static int
unix_clear(const struct addr *a)
{
	struct walk w;
	struct stat st;
	int err = 0, fd;

	if (!walk_dir(&w, a->sock.un.sun_path))
		return errno == ENOENT ? 0 : log_errno("listen on %s", a->text);
	if (fstatat(w.dir, w.name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (!S_ISSOCK(st.st_mode))
			err = EEXIST;
		else if (fd < 0 || connect(fd, &a->sock.sa, a->sock_n) == 0 || errno != ECONNREFUSED)
			err = EADDRINUSE;
		else if (unlinkat(w.dir, w.name, 0) < 0)
			err = errno;
		fd_close(fd);
	}
	close(w.dir);
	errno = err;
	if (err == EEXIST)
		log_errno("listen on %s: there is a file that is no socket", a->text);
	else if (err && err != EADDRINUSE) /* EADDRINUSE: the caller logs it */
		log_errno("listen on %s: the old socket cannot be removed", a->text);
	return err ? -1 : 0;
}

/* Opens l's socket file with O_PATH; -1: it is not the file that was made. */
static int
unix_file(const struct listener *l)
{
	struct stat st;
	int fd = open(l->addr.sock.un.sun_path, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
		return fd;
	fd_close(fd);
	return -1;
}

static int
bind_failed(const struct addr *a)
{
	return log_errno(errno == EADDRINUSE ? "listen on %s: another program listens there "
	    "(`ss -lntp` names it), stop it or listen elsewhere"
	    : errno == EACCES ? "listen on %s: not allowed; ports below 1024 need root or "
	    "CAP_NET_BIND_SERVICE"
	    : errno == ENOENT ? "listen on %s: its directory does not exist"
	    : "listen on %s", a->text);
}

/* Binds fd. A unix socket has its final mode from the start. */
static int
listen_bind(int fd, const struct addr *a, int mode)
{
	struct walk w = { .dir = -1 };
	bool bad = geteuid() == ROOT && a->kind == ADDR_UNIX &&
	    walk_dir(&w, a->sock.un.sun_path) && !walk_may_make(&w);
	mode_t mask = umask((mode_t)(SOCKET_MODE_BITS & ~mode));
	int done = bad ? -1 : bind(fd, &a->sock.sa, a->sock_n);
	int err = bad ? EPERM : errno; /* a user's link to a directory of another */

	umask(mask);
	fd_close(w.dir);
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
	/* a client is accepted with its first bytes, or silent after a second: that takes
	 * 27 us of CPU for a connection, not 45 */
	setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &on, sizeof on);
	if (a->sock.sa.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_v6, sizeof only_v6);
}

static int
listen_try(const struct addr *a, int mode, int shared)
{
	int off = 0;
	int fd = socket(a->sock.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	listen_options(fd, a);
	if (shared)
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &shared, sizeof shared);
	if (listen_bind(fd, a, mode) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
		fd_close(fd);
		return -1;
	}
	if (shared) /* our own socket shared it; no other may */
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &off, sizeof off);
	return fd;
}

/* `:port` is both families, or IPv4 alone where there is no IPv6. */
static int
listen_fd(struct addr *a, int mode, bool shared)
{
	int fd = listen_try(a, mode, shared);

	if (fd >= 0 || !a->any || (errno != EAFNOSUPPORT && errno != EADDRNOTAVAIL))
		return fd;
	a->sock.in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(a->port) };
	a->sock_n = sizeof a->sock.in;
	return listen_try(a, mode, shared);
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

/* Notes the port that was bound, and which file is ours. */
static void
listen_note(struct listener *l)
{
	union sock here = { 0 };
	socklen_t n = sizeof here;
	struct stat st;

	if (getsockname(l->fd, &here.sa, &n) == 0)
		ip_of_sock(&here, &l->port);
	l->is_unix = here.sa.sa_family == AF_UNIX && here.un.sun_path[0];
	if (l->addr.kind == ADDR_UNIX && lstat(l->addr.sock.un.sun_path, &st) == 0 &&
	    S_ISSOCK(st.st_mode)) {
		l->dev = st.st_dev;
		l->ino = st.st_ino;
	}
}

/* Binds l->addr; shared: beside sockets that allow it. -1: logged, unless a live program
 * answers on a unix socket (EADDRINUSE): the caller logs that. */
static int
listen_open(struct listener *l, int mode, bool shared)
{
	l->fd = -1;
	if (l->addr.kind == ADDR_NAME) {
		errno = EINVAL;
		return log_errno("listen on %s: give an IP address, not a name", l->addr.text);
	}
	if (l->addr.kind == ADDR_UNIX && unix_clear(&l->addr) < 0)
		return -1;
	if (l->addr.kind == ADDR_FD && listen_inherited(l, l->addr.fd) < 0)
		return -1;
	if (l->addr.kind != ADDR_FD && (l->fd = listen_fd(&l->addr, mode, shared)) < 0)
		return bind_failed(&l->addr);
	listen_note(l);
	return 0;
}

/* Closes l; with `gone` removes the socket file that it made as well. */
static void
listen_close(struct listener *l, bool gone)
{
	int fd;

	if (l->fd < 0)
		return;
	close(l->fd);
	l->fd = -1;
	if (gone && l->addr.kind == ADDR_UNIX && !l->inherited && (fd = unix_file(l)) >= 0) {
		unlink(l->addr.sock.un.sun_path);
		close(fd);
	}
}

/* ==== privilege ==============================================================
 * Owns    nothing.
 * Offers  privilege_drop, identity_find, identity_groups, identity_take.
 * Calls   log. For good: there is no way back. */


/* Ids of user and group (or NULL); all zero: no change. -1: unknown, logged for who. */
static int
identity_find(const char *who, const char *user, const char *group, struct identity *id)
{
	struct passwd *pw = user ? user_find(user) : NULL;
	struct group *gr = group ? getgrnam(group) : NULL;
	int64_t uid = pw ? (int64_t)pw->pw_uid
	    : user ? slice_uint(slice_of(user), UINT32_MAX - 1) : -1;
	int64_t gid = gr ? (int64_t)gr->gr_gid
	    : group ? slice_uint(slice_of(group), UINT32_MAX - 1) : pw ? (int64_t)pw->pw_gid : -1;

	*id = (struct identity){ (uid_t)uid, (gid_t)gid, "", user != NULL, gid >= 0 };
	if (user && uid < 0)
		log_error("%s: there is no user %s", who, user);
	else if (group && gid < 0)
		log_error("%s: there is no group %s", who, group);
	else if (user && gid < 0)
		log_error("%s: user %s has no account, so give a group as well", who, user);
	if ((user && uid < 0) || ((user || group) && gid < 0))
		return -1;
	snprintf(id->name, sizeof id->name, "%s", pw ? pw->pw_name : "");
	if ((!id->user || id->uid == geteuid()) && (!id->group || id->gid == getegid()))
		*id = (struct identity){ 0 }; /* no change: needs no rights */
	return 0;
}

/* Sets the groups, before chroot: their names are looked up. */
static int
identity_groups(const struct identity *id)
{
	if (!id->group)
		return 0;
	if (*id->name ? initgroups(id->name, id->gid) < 0 : setgroups(0, NULL) < 0)
		return log_errno("only root may change user and group");
	return 0;
}

static int
identity_take(const struct identity *id)
{
	if (id->group && (setresgid(id->gid, id->gid, id->gid) < 0 || getegid() != id->gid))
		return log_errno("group %u", (unsigned)id->gid);
	if (id->user && (setresuid(id->uid, id->uid, id->uid) < 0 || geteuid() != id->uid))
		return log_errno("user %u", (unsigned)id->uid);
	if (id->user && id->uid != 0 && setuid(0) == 0) {
		log_error("root could be had back");
		return -1;
	}
	return 0;
}

/* Groups, chroot, group, user as [server] says. 0 or -1, logged. */
static int
privilege_drop(const struct server_conf *sc)
{
	struct identity id;

	if (identity_find("server", sc->user, sc->group, &id) < 0 || identity_groups(&id) < 0)
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
 * Offers  logs_open, logs_close, logs_use, log_file_open.
 * Calls   walk, sink, log. */

/* A file to append to, for own; *made: it is new. A pipe needs a reader. -1: logged. */
static int
log_file_open(const char *what, const char *path, uid_t own, bool *made)
{
	struct walk w;
	int fd = walk_open(&w, path, O_WRONLY | O_APPEND | O_CREAT, own);

	*made = w.made;
	if (fd < 0)
		log_error("%s %s: %s", what, path, walk_error());
	return fd;
}

/* Every target gets a descriptor, so that workers always inherit one. */
static int
log_target_open(struct log_target *t)
{
	const char *path = t->sink == SINK_FILE ? t->path : "/dev/null";
	bool made;

	if (t->sink == SINK_STDOUT || t->sink == SINK_STDERR)
		t->fd = stream_own(fcntl(t->sink == SINK_STDOUT ? STDOUT_FILENO : STDERR_FILENO,
		    F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
	else
		t->fd = log_file_open("log to", path, ROOT, &made);
	return t->fd < 0 ? -1 : 0;
}

static void
logs_close(struct log_conf *lc)
{
	fd_close(lc->access.fd > STDERR_FILENO ? lc->access.fd : -1);
	fd_close(lc->error.fd > STDERR_FILENO ? lc->error.fd : -1);
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

/* From now on log_error and the like write to lc->error. */
static void
logs_use(const struct log_conf *lc)
{
	log_level = lc->level;
	sink_move(&log_sink, lc->error.fd >= 0 ? lc->error.fd : STDERR_FILENO,
	    lc->error.sink == SINK_SYSLOG);
}

/* ==== pool ===================================================================
 * Owns    every upstream connection's memory, and those that are idle.
 * Offers  pool_open, pool_take, pool_give, upconn_connect, upconn_close.
 * Calls   base, clock, board, timer, loop, chan. The taker owns a taken
 *         connection and sets the functions that its events call. How long
 *         idle connections may be kept is learned from each backend. */

#define CONNECT_AGAIN_MS 20 /* a unix listener's backlog is full */
#define IDLE_MARGIN 10 /* a tenth of a learned idle life is not used */
#define IDLE_STEPS  8  /* limits learned are 4..7 times a power of 2 */
#define IDLE_APART  4  /* idle lives are alike within a quarter */

static struct slots upconns = { .size = sizeof(struct upconn),
	.next_at = offsetof(struct upconn, link) };
static uint32_t max_idle, n_idle_all;
static struct board_worker *me; /* this worker's counters */
static bool draining;           /* finish what runs, take nothing new */
static int ctl_fd = -1;         /* to the master */

#define CTL_MAX   512 /* bytes of a message to or from the master */
#define CTL_BATCH 64  /* messages in a turn */

/* A message to the master; false: it does not take it now. */
static bool
master_tell(enum ctl_op op, const char *text)
{
	char b[CTL_MAX];
	int n = snprintf(b, sizeof b, "%c%s", op, text);

	return send(ctl_fd, b, MIN((size_t)n, sizeof b - 1), MSG_NOSIGNAL | MSG_DONTWAIT) > 0;
}

/* Room for one busy and one idle connection for each client. */
static void
pool_open(uint32_t clients)
{
	max_idle = clients;
	upconns.most = 2 * clients;
	upconns.v = map_zeroed(upconns.most * upconns.size);
}

static void
pool_unlink(struct upconn *u)
{
	link_drop(&u->link);
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
	slot_give(&upconns, u);
	COUNT(me->upstream_connections, -1u);
}

/* The backend closed a connection that idled for life_ms. Two like times at different
 * moments are its limit, and the shortest counts; many at once may be a restart. */
static void
idle_life_learn(struct instance *in, uint32_t life_ms)
{
	uint32_t longer = MAX(life_ms, in->closed_life_ms);
	uint32_t shorter = MIN(life_ms, in->closed_life_ms);
	bool together = now_ms - in->closed_ms <= IDLE_MASS_MS;
	unsigned known = in->board->idle_life_ms;

	if (!together && shorter >= IDLE_LIFE_MIN_MS && longer - shorter <= longer / IDLE_APART &&
	    (known == 0 || shorter < known))
		in->board->idle_life_ms = shorter;
	in->closed_ms = now_ms;
	in->closed_life_ms = life_ms;
}

/* How long idle connections of in are kept: a tenth less than the backend keeps
 * them. Rounded down to few different values, since each needs a timer list. */
static uint32_t
idle_limit_ms(const struct instance *in)
{
	uint32_t life = in->board->idle_life_ms, ms = life - life / IDLE_MARGIN, unit = 1;

	if (life == 0 || ms >= in->up->keepalive_ms)
		return in->up->keepalive_ms;
	while (ms / unit >= IDLE_STEPS)
		unit *= 2;
	return ms / unit * unit;
}

/* A connection reached the learned limit. If the instance has closed none for long, its
 * limit may be longer by now: tries a longer one. */
static void
idle_life_forget(struct instance *in)
{
	unsigned known = in->board->idle_life_ms, more = known + known / 4 + 1;

	if (in->closed_ms == 0)
		in->closed_ms = now_ms; /* nothing was seen yet, since a reload */
	if (now_ms - in->closed_ms < IDLE_LIFE_TRUST * (int64_t)known)
		return;
	in->closed_ms = now_ms;
	in->board->idle_life_ms = more < in->up->keepalive_ms ? more : 0;
}

/* Whether u goes to an address that its instance has now. */
static bool
upconn_fits(struct upconn *u)
{
	struct board_instance *b = u->inst->board;
	unsigned seq = b->addrs.seq;
	union sock to;
	socklen_t n;

	if (seq & 1)
		return true; /* nothing is known while they are written */
	for (unsigned i = 0; u->addrs_seq != seq && i < INSTANCE_ADDRS; i++)
		if (board_addrs_get(b, i, &to, &n) && hash64(0, &to, n) == u->to)
			u->addrs_seq = seq;
	return u->addrs_seq == seq;
}

/* Closes idle connections to addresses that the instance no longer has. */
static void
pool_sweep(struct instance *in)
{
	unsigned seq = in->board->addrs.seq;

	if (in->addrs_seq == seq)
		return;
	in->addrs_seq = seq;
	for (struct link *l = in->idle.next, *next; l && l != &in->idle; l = next) {
		next = l->next;
		if (!upconn_fits(OWNER(l, struct upconn, link)))
			upconn_close(OWNER(l, struct upconn, link));
	}
}

/* An idle connection has an event, its end or stray bytes: closes it. */
static void
pool_ready(struct watch *w, short revents)
{
	struct upconn *u = (struct upconn *)w;
	ssize_t got;
	char c;

	(void)revents;
	got = recv(w->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
	if (got == 0 || (got > 0 && u->s.ch.tls && c == TLS_ALERT))
		idle_life_learn(u->inst, (uint32_t)(now_ms - u->idle_since_ms));
	upconn_close(u);
}

static void
pool_due(struct timer *t)
{
	struct upconn *u = OWNER(t, struct upconn, s.timer);

	if (u->inst->board->idle_life_ms > 0)
		idle_life_forget(u->inst);
	upconn_close(u);
}

/* Takes over u, whose exchange is complete: into the pool, or closed. */
static void
pool_give(struct upconn *u)
{
	struct instance *in = u->inst;

	u->s.x = NULL;
	u->served++;
	if (draining || in->n_idle >= in->up->keepalive || n_idle_all >= max_idle ||
	    u->epoch != in->board->epoch || !upconn_fits(u) || loop_is_ready(&u->s.ch.w)) {
		upconn_close(u);
		return;
	}
	u->state = UP_IDLE;
	u->idle_since_ms = now_ms;
	link_add(&in->idle, &u->link);
	in->n_idle++;
	n_idle_all++;
	u->s.ch.w.ready = pool_ready;
	u->s.timer.fire = pool_due;
	loop_watch(&u->s.ch.w, POLLIN);
	timer_set(&u->s.timer, idle_limit_ms(in));
}

/* Whether u is still open. poll has just told; if u is parked, asks the kernel. */
static bool
pool_is_alive(const struct upconn *u)
{
	char c;

	if (!u->s.ch.w.parked)
		return !loop_is_ready(&u->s.ch.w);
	return recv(u->s.ch.w.fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
	    (errno == EAGAIN || errno == EWOULDBLOCK);
}

/* The open connection that was used last; NULL: none. Closes connections to a former
 * address, and those that idled too long. */
static struct upconn *
pool_take(struct instance *in)
{
	struct upconn *u;

	pool_sweep(in);
	for (struct link *l = in->idle.next, *next; l && l != &in->idle; l = next) {
		next = l->next;
		u = OWNER(l, struct upconn, link);
		if (u->epoch != in->board->epoch ||
		    now_ms - u->idle_since_ms > (int64_t)idle_limit_ms(in)) {
			upconn_close(u);
			continue;
		}
		if (u->head && now_ms - u->idle_since_ms < HEAD_REST_MS)
			continue;
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
		for (int k = 0; k < cf->upstreams[i].n_instances; k++) {
			struct instance *in = &cf->upstreams[i].instances[k];
			while (in->n_idle > 0)
				upconn_close(OWNER(in->idle.next, struct upconn, link));
		}
}

/* Connects u. False: failed at once, errno says why. */
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

/* The peer of a TLS connection to in. */
static struct tls_peer
instance_peer(struct instance *in)
{
	const struct upstream_tls *ut = &in->up->tls;

	return (struct tls_peer){ ut->server_name ? ut->server_name : in->addr.host,
		ut->verify ? ut->trust : NULL, ut->client ? &ut->client->v[0] : NULL, &in->session };
}

/* A new connection to address addr_i, under way or (UP_BUSY) there. NULL: errno says why. */
static struct upconn *
upconn_connect(struct instance *in, uint8_t addr_i)
{
	int fd, family, on = 1, why;
	unsigned epoch = in->board->epoch; /* before its address is read */
	unsigned seq = in->board->addrs.seq;
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
	if (!(u = slot_take(&upconns))) {
		close(fd);
		errno = EMFILE;
		return NULL;
	}
	*u = (struct upconn){ .inst = in, .addr_i = addr_i, .epoch = epoch, .addrs_seq = seq,
		.to = hash64(0, &to, to_n) };
	COUNT(me->upstream_connections, 1);
	side_open(&u->s, fd, NULL);
	if (upconn_dial(u))
		return u;
	why = errno;
	upconn_close(u);
	errno = why;
	return NULL;
}

/* ==== auth ===================================================================
 * Owns    the passwords being hashed, and digests of those that were good.
 * Offers  auth_open, auth_token_ok, auth_basic, auth_leave, auth_work, auth_busy.
 * Calls   base, clock, http, addr, crypt, BearSSL. RFC 7617. A hash is slow on
 *         purpose: it is made in pieces, passwords take turns, and once for all
 *         requests with the same credentials. */

#define CREDENTIALS_MAX 256 /* bytes of user:password; longer ones fail */
#define AUTH_ROUNDS     16  /* between two looks at the clock */

static unsigned char auth_key[br_sha256_SIZE]; /* random; of this worker */
static unsigned char auth_good[AUTH_CACHE][br_sha256_SIZE]; /* all zero: none */
static unsigned auth_next;
static struct auth_job auth_jobs[AUTH_JOBS];
static struct link auth_queue = { &auth_queue, &auth_queue };

static void
auth_open(void)
{
	if (getrandom(auth_key, sizeof auth_key, 0) != sizeof auth_key)
		memcpy(auth_key, &now_us, sizeof now_us);
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

/* The digest that stands for credentials, their secret, and whether the name is known. */
static void
auth_print(struct slice secret, bool known, struct slice credentials, unsigned char *out)
{
	unsigned char k = known;
	br_sha256_context h;

	br_sha256_init(&h);
	br_sha256_update(&h, auth_key, sizeof auth_key);
	br_sha256_update(&h, &k, sizeof k);
	br_sha256_update(&h, secret.p, secret.n + 1); /* a NUL ends it */
	br_sha256_update(&h, credentials.p, credentials.n);
	br_sha256_out(&h, out);
}

/* Lets x wait for the hash of these credentials, perhaps with other requests. */
static enum auth
auth_wait(struct exchange *x, struct slice password, struct slice secret,
    const unsigned char *print, bool known)
{
	struct auth_job *j = NULL;
	unsigned same = 0;

	for (size_t i = 0; i < LEN(auth_jobs); i++) {
		struct auth_job *a = &auth_jobs[i];
		if (a->first && memcmp(a->print, print, sizeof j->print) == 0)
			j = a;
		else if (!j && !a->first)
			j = a;
		same += a->first &&
		    memcmp(a->first->client.b, x->client.b, ip_own_bytes(&x->client)) == 0;
	}
	if (!j || (!j->first && same >= AUTH_JOBS_OF_ONE))
		return AUTH_BUSY;
	if (!j->first) {
		if (!crypt_begin(&j->sha, password, secret))
			return AUTH_NO;
		memcpy(j->print, print, sizeof j->print);
		j->known = known;
		link_add_last(&auth_queue, &j->link);
	}
	x->auth_next = j->first;
	j->first = x;
	x->auth = j;
	return AUTH_LATER;
}

/* Whether h names one of users and its password: a SHA-crypt hash if it starts with `$`,
 * else plain text. An unknown user costs as much. AUTH_LATER: auth_work returns x. */
static enum auth
auth_basic(struct exchange *x, const struct head *h, const struct pairs *users)
{
	char b[CREDENTIALS_MAX];
	struct text t = { b, 0, sizeof b, false };
	unsigned char print[br_sha256_SIZE];
	struct slice rest, user, secret = S("");
	bool known = false;

	if (!base64_read(&t, auth_credentials(h, "Basic"), ""))
		return AUTH_NO;
	rest = text_slice(&t);
	if (!slice_cut(&rest, ':', &user) || !rest.p || memchr(rest.p, '\0', rest.n))
		return AUTH_NO;
	for (int i = 0; i < users->n && !known; i++) {
		known = slice_eq(user, users->v[i].name);
		if (known || (secret.n == 0 && users->v[i].value.p[0] == '$'))
			secret = users->v[i].value;
	}
	if (secret.n == 0 || secret.p[0] != '$')
		return known && slice_eq_secret(rest, secret) ? AUTH_YES : AUTH_NO;
	auth_print(secret, known, text_slice(&t), print);
	for (size_t i = 0; i < LEN(auth_good); i++)
		if (memcmp(auth_good[i], print, sizeof print) == 0)
			return AUTH_YES;
	return auth_wait(x, rest, secret, print, known);
}

/* x is answered, or left: it no longer waits. */
static void
auth_leave(struct exchange *x)
{
	struct exchange **at;

	if (!x->auth)
		return;
	for (at = &x->auth->first; *at != x; at = &(*at)->auth_next)
		;
	*at = x->auth_next;
	if (!x->auth->first)
		link_drop(&x->auth->link);
	x->auth = NULL;
}

static bool
auth_busy(void)
{
	return auth_queue.next != &auth_queue;
}

/* Hashes for AUTH_TURN_US. Returns the requests that need not wait; good: they pass. */
static struct exchange *
auth_work(bool *good)
{
	struct auth_job *j;
	struct exchange *first;
	int64_t until = now_us + AUTH_TURN_US;

	if (!auth_busy())
		return NULL;
	j = OWNER(auth_queue.next, struct auth_job, link);
	for (clock_turn(); now_us < until && j->sha.round < j->sha.rounds; clock_turn())
		sha_rounds(&j->sha, AUTH_ROUNDS);
	link_drop(&j->link);
	if (j->sha.round < j->sha.rounds) {
		link_add_last(&auth_queue, &j->link);
		return NULL;
	}
	*good = crypt_matches(&j->sha) && j->known;
	if (*good)
		memcpy(auth_good[auth_next++ % AUTH_CACHE], j->print, sizeof j->print);
	first = j->first;
	j->first = NULL;
	return first;
}

/* ==== access =================================================================
 * Owns    the access log of this worker: its descriptor, and the lines that are
 *         not written yet.
 * Offers  access_on, access_start, access_line, access_flush, access_due_ms,
 *         access_fd.
 * Calls   base, arena, clock, sink, log, http, addr, board, loop, auth.
 *         The format is compiled once into an array of ops. Never blocks: lines
 *         that the reader does not take wait in the buffer; lines that do not
 *         fit there are dropped and counted. */

#define TIME_TEXT    32 /* 10/Oct/2000:13:55:36 +0000 */
#define VALUE_TEXT   64 /* a value that is made here: a number, an address */
#define LOG_RETRY_MS 10 /* before a slow reader is tried again */

static const char *const access_vars[VARS] = {
	[VAR_TIME] = "time", [VAR_CLIENT] = "client", [VAR_METHOD] = "method",
	[VAR_URI] = "uri", [VAR_HOST] = "host", [VAR_STATUS] = "status", [VAR_BYTES] = "bytes",
	[VAR_SECS] = "secs", [VAR_UPSTREAM] = "upstream", [VAR_INSTANCE] = "instance",
	[VAR_UPSTREAM_SECS] = "upstream_secs", [VAR_REQUEST_ID] = "request_id",
	[VAR_REFERER] = "referer", [VAR_USER_AGENT] = "user_agent",
	[VAR_PROTOCOL] = "protocol", [VAR_ROUTE] = "route", [VAR_USER] = "user",
	[VAR_REQUEST] = "request",
};

static bool access_on;
static struct access_log access_log = { .sink.fd = -1 };

/* ---- variables ---- */

/* A buffer for one value. */
static struct text
made_text(void)
{
	static char b[VALUE_TEXT];

	return (struct text){ b, 0, sizeof b, false };
}

/* Bytes of content that went to the client. */
static uint64_t
bytes_sent(const struct exchange *x)
{
	return x->down.zip ? x->down.squeezed : x->down.body.total;
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
	size_t point;

	text_uint(&t, ms / SECOND_MS);
	point = t.n;
	text_uint(&t, SECOND_MS + ms % SECOND_MS); /* 1123 becomes .123 */
	t.p[point] = '.';
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

static struct slice
made_ip(const struct ip *ip)
{
	struct text t = made_text();

	ip_text(&t, ip);
	return text_slice(&t);
}

/* The request line, as it came. */
static struct slice
var_request(const struct exchange *x)
{
	struct slice rest = x->head_bytes, line;

	if (x->method_text.n == 0)
		return S("");
	rest = slice_from(rest, (size_t)(x->method_text.p - rest.p)); /* empty lines */
	slice_cut(&rest, '\n', &line);
	line.n -= line.n > 0 && line.p[line.n - 1] == '\r';
	return line;
}

static struct slice
var_upstream(const struct exchange *x)
{
	const struct upstream *up = x->inst ? x->inst->up : x->route ? x->route->upstream : NULL;

	return slice_of(up ? up->name : NULL);
}

/* The description of r, else its line in the file. */
static struct slice
var_route(const struct route *r)
{
	if (!r || r->description.n > 0)
		return r ? r->description : S("");
	return r->line > 0 ? made_uint(r->line) : S("");
}

static struct slice
var_field(const struct head *h, struct slice name)
{
	for (int i = 0; h && i < h->n; i++)
		if (slice_ieq(h->f[i].name, name))
			return h->f[i].value;
	return S("");
}

static struct slice
var_known(const struct head *h, enum field_id id)
{
	const struct field *f = h ? head_field(h, id) : NULL;

	return f ? f->value : S("");
}

/* The user name for basic_auth, as the client gave it. */
static struct slice
var_user(const struct head *h)
{
	static char b[CREDENTIALS_MAX];
	struct text t = { b, 0, sizeof b, false };
	struct slice all, user;

	if (!h || !base64_read(&t, auth_credentials(h, "Basic"), ""))
		return S("");
	all = text_slice(&t);
	slice_cut(&all, ':', &user);
	return all.p ? user : S("");
}

/* The value of op's variable, or empty; good until the next call. */
static struct slice
var_get(const struct access_op *op, const struct exchange *x, const struct head *h)
{
	switch (op->var) {
	case VAR_TIME:
		return access_time(access_log.json);
	case VAR_CLIENT:
		return made_ip(&x->client);
	case VAR_METHOD:
		return x->method_text;
	case VAR_URI:
		return x->target;
	case VAR_HOST:
		return x->host;
	case VAR_STATUS:
		return x->status > 0 ? made_uint((uint64_t)x->status) : S("");
	case VAR_BYTES:
		return made_uint(bytes_sent(x));
	case VAR_SECS:
		return made_secs(now_us - x->start_us);
	case VAR_UPSTREAM:
		return var_upstream(x);
	case VAR_INSTANCE:
		return slice_of(x->inst ? instance_text(x->inst) : NULL);
	case VAR_UPSTREAM_SECS: /* up_us is set when the whole answer came */
		return x->up_start_us == 0 ? S("")
		    : made_secs(x->up_us > 0 ? x->up_us : now_us - x->up_start_us);
	case VAR_REQUEST_ID:
		return slice_of(x->id);
	case VAR_REFERER:
		return var_known(h, F_REFERER);
	case VAR_USER_AGENT:
		return var_known(h, F_USER_AGENT);
	case VAR_PROTOCOL:
		return x->method_text.n == 0 ? S("") : x->minor ? S("HTTP/1.1") : S("HTTP/1.0");
	case VAR_ROUTE:
		return var_route(x->route);
	case VAR_USER:
		return var_user(h);
	case VAR_REQUEST:
		return var_request(x);
	default:
		return var_field(h, op->arg);
	}
}

/* ---- compiling ---- */

#define COMMON "$client - $user [$time] \"$request\" $status $bytes"

static const struct {
	const char *name, *pattern;
} access_formats[] = {
	{ "common", COMMON },
	{ "combined", COMMON " \"$referer\" \"$user_agent\"" },
};

/* Sets op's variable: one in the table, or http_x_forwarded_for, the field X-Forwarded-For. */
static void
op_name(struct access_op *op, struct slice name)
{
	char *field;

	for (op->var = VAR_TIME; op->var < VAR_FIELD; op->var++)
		if (slice_eq(name, slice_of(access_vars[op->var])))
			break;
	if (op->var != VAR_FIELD)
		return;
	name = slice_from(name, MIN(name.n, sizeof "http_" - 1));
	op->arg = (struct slice){ field = xcalloc(1, name.n + 1), name.n };
	for (size_t i = 0; i < name.n; i++)
		field[i] = name.p[i] == '_' ? '-' : name.p[i];
}

static void
access_compile(const char *pattern)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	    "0123456789_";
	size_t n;

	access_log.ops = xcalloc(strlen(pattern) + 1, sizeof *access_log.ops);
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
	access_log.n_ops = VAR_PROTOCOL;
	access_log.ops = xcalloc(VAR_PROTOCOL, sizeof *access_log.ops);
	for (enum access_var v = VAR_TIME; v <= VAR_PROTOCOL; v++)
		access_log.ops[v - VAR_TIME] = (struct access_op){ .var = v,
			.text = slice_of(access_vars[v]) };
}

/* ---- lines ---- */

/* Adds a value as nginx does: `"`, `\` and all but printable ASCII become \xXX. */
static void
value_add(struct text *t, struct slice s)
{
	for (size_t n = 0; s.n > 0 && !t->full; s = slice_from(s, n)) {
		for (n = 0; n < s.n && s.p[n] >= ' ' && s.p[n] < 0x7f && s.p[n] != '"' &&
		    s.p[n] != '\\'; n++)
			;
		text_add(t, (struct slice){ s.p, n });
		if (n < s.n)
			text_byte(t, "\\x", s.p[n++]);
	}
}

static void
line_json(struct text *t, const struct access_op *op, struct slice v)
{
	bool bare = op->var == VAR_STATUS || op->var == VAR_BYTES || op->var == VAR_SECS ||
	    op->var == VAR_UPSTREAM_SECS; /* numbers */

	if (v.n == 0)
		return;
	text_add(t, op == access_log.ops ? S("{\"") : S(",\""));
	text_add(t, op->text);
	text_add(t, bare ? S("\":") : S("\":\""));
	if (bare) {
		text_add(t, v);
		return;
	}
	text_json(t, v, true);
	text_char(t, '"');
}

/* One line; of each value at most cut bytes. */
static void
line_add(struct text *t, const struct exchange *x, const struct head *h, size_t cut)
{
	if (access_log.sink.kind == SINK_DGRAM)
		text_char(t, '6'); /* informational */
	for (size_t i = 0; i < access_log.n_ops && !t->full; i++) {
		const struct access_op *op = &access_log.ops[i];
		struct slice v = op->var ? var_get(op, x, h) : S("");

		v.n = MIN(v.n, cut);
		if (access_log.json) {
			line_json(t, op, v);
			continue;
		}
		text_add(t, op->text);
		if (op->var)
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
	    (unsigned long long)access_log.sink.lost);
}

static void
access_drop(const char *why)
{
	wide_count(access_log.dropped, 1);
	access_log.sink.lost++;
	access_complain(why);
}

/* After each turn: writes if forced, if there is much, or if a line has waited enough. */
static void
access_flush(bool force)
{
	struct sink *s = &access_log.sink;
	bool due = !s->blocked && (s->n > LOG_BUFFER / 2 || now_ms >= access_log.due_ms);

	if (s->n == 0 || !(force || due))
		return;
	if (!sink_flush(s)) { /* poll cannot tell when that gets better */
		access_complain(strerror(errno));
		s->blocked = false;
	}
	access_log.due_ms = now_ms + LOG_RETRY_MS;
}

/* Milliseconds until a flush is due; -1: none. */
static int
access_due_ms(void)
{
	if (access_log.sink.n == 0 || access_log.sink.blocked)
		return -1;
	return (int)MAX(access_log.due_ms - now_ms, 0);
}

/* Logs an exchange; h NULL: it had no head. Values of a long line are cut. */
static void
access_line(const struct exchange *x, const struct head *h)
{
	static const size_t cuts[] = { SIZE_MAX, 256, 48 };
	struct sink *s = &access_log.sink;

	access_flush(false);
	if (s->cap - s->n < access_log.line_max) {
		access_drop("its reader is too slow");
		return;
	}
	for (size_t i = 0; i < LEN(cuts); i++) {
		struct text t = { s->buf + s->n, 0, access_log.line_max, false };

		line_add(&t, x, h, cuts[i]);
		if (t.full)
			continue;
		if (s->n == 0)
			access_log.due_ms = now_ms + LOG_FLUSH_MS;
		s->n += t.n;
		return;
	}
	access_drop("a line is too long");
}

/* ---- opening ---- */

static void
access_lines(void)
{
	const struct sink *s = &access_log.sink;

	access_log.line_max = MIN(s->kind == SINK_DGRAM ? SYSLOG_LINE / 2
	    : s->kind == SINK_PLAIN ? s->cap : PIPE_BUF, s->cap / 2);
}

/* The log was reopened; takes over fd. */
static void
access_fd(int fd)
{
	struct sink *s = &access_log.sink;
	int old = s->fd;

	if (!access_on || s->kind == SINK_DGRAM) {
		close(fd);
		return;
	}
	sink_move(s, fd, false);
	access_lines();
	if (old > STDERR_FILENO)
		close(old);
}

/* Opens the access log if there is one; dropped counts lost lines. */
static void
access_start(const struct conf *cf, struct wide *dropped)
{
	const char *pattern = cf->log.format;

	access_log.dropped = dropped;
	access_on = cf->log.access.sink != SINK_OFF;
	if (!access_on)
		return;
	access_log.sink.buf = map_zeroed(LOG_BUFFER);
	access_log.sink.cap = LOG_BUFFER;
	sink_use(&access_log.sink, cf->log.access.fd, cf->log.access.sink == SINK_SYSLOG);
	access_lines();
	for (size_t i = 0; i < LEN(access_formats); i++)
		if (strcmp(pattern, access_formats[i].name) == 0)
			pattern = access_formats[i].pattern;
	if (strcmp(pattern, "json") == 0)
		access_compile_json();
	else
		access_compile(pattern);
}

/* ==== usage ==================================================================
 * Owns    a descriptor of /proc, opened while it can be.
 * Offers  usage_open, usage_of.
 * Calls   base. What a process has used of processor and memory. */

#define STAT_BYTES 1024 /* of /proc/PID/stat */
#define STAT_STATE 3    /* field numbers, proc(5): the first behind the name */
#define STAT_UTIME 14   /* ticks */
#define STAT_STIME 15
#define STAT_RSS   24   /* pages */
#ifndef OPEN_TREE_CLONE /* open_tree(2); not in every libc */
#define OPEN_TREE_CLONE 1
#endif

static int proc_dir = -1; /* -1: there is none, and nothing is known */

/* A directory that stays in reach. For a chroot (locked) it is a mount: a plain
 * descriptor would lead back to the root. -1: errno says why. */
static int
outside_open(const char *path, bool locked)
{
#ifdef SYS_open_tree /* Linux 5.2 */
	if (locked)
		return (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | O_CLOEXEC);
#endif
	errno = ENOSYS;
	return locked ? -1 : open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Before chroot and the change of user. */
static void
usage_open(bool locked)
{
	proc_dir = outside_open("/proc", locked);
}

/* The fields of a stat line behind the name, which may hold anything. */
static void
usage_read(struct slice stat, struct usage *u)
{
	const char *at = memrchr(stat.p, ')', stat.n);
	struct slice rest, word;
	int64_t ticks = 0, v;

	if (!at || (size_t)(at + 2 - stat.p) >= stat.n)
		return;
	rest = slice_from(stat, (size_t)(at + 2 - stat.p));
	for (int i = STAT_STATE; i <= STAT_RSS && slice_cut(&rest, ' ', &word); i++) {
		v = slice_uint(word, INT64_MAX);
		if (i == STAT_UTIME || i == STAT_STIME)
			ticks += MAX(v, 0);
		u->known = i == STAT_RSS && v >= 0;
	}
	if (!u->known)
		return;
	u->cpu_s = (double)ticks / (double)sysconf(_SC_CLK_TCK);
	u->rss = (uint64_t)slice_uint(word, INT64_MAX) * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* pid 0: no process. */
static struct usage
usage_of(int pid)
{
	struct usage u = { 0 };
	char path[32], b[STAT_BYTES];
	ssize_t n;
	int fd;

	snprintf(path, sizeof path, "%d/stat", pid);
	if (pid <= 0 || proc_dir < 0 || (fd = openat(proc_dir, path, O_RDONLY | O_CLOEXEC)) < 0)
		return u;
	if ((n = read(fd, b, sizeof b)) > 0)
		usage_read((struct slice){ b, (size_t)n }, &u);
	close(fd);
	return u;
}

/* ==== dashboard ==============================================================
 * Owns    nothing.
 * Offers  dashboard_print, dashboard_head.
 * Calls   base, BearSSL's hash. The page at `/` asks for status every two seconds
 *         and shows it as text, never as markup. The page asks nobody else, holds
 *         no secret, and may run no script but its own. It is in parts because a
 *         string literal holds 4095 bytes. */

/* clang-format off */
static const char page_top[] =
	"<!doctype html>\n"
	"<html lang=en>\n"
	"<meta charset=utf-8>\n"
	"<meta name=viewport content='width=device-width, initial-scale=1'>\n"
	"<link rel=icon href=data:,>\n"
	"<title>warp</title>\n"
	"<style>";

static const char page_style[] =
	":root { color-scheme: light dark; --bg: #f6f6f3; --card: #fff; --ink: #1d2126;\n"
	  "--dim: #666d75; --line: #e3e3dd; --key: #2458c5; --good: #1b7f4b; --warn: #946200; "
	      "--bad: #b7302b; }\n"
	"@media (prefers-color-scheme: dark) { :root { --bg: #14171a; --card: #1c2024;\n"
	  "--ink: #e5e7e9; --dim: #98a0a8; --line: #2c3238; --key: #86abff; --good: #5fc990; "
	      "--warn: #e0b04a;\n"
	  "--bad: #ff8a80; } }\n"
	"* { box-sizing: border-box; }\n"
	"body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--bg);\n"
	  "color: var(--ink); font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }\n"
	"header { display: flex; flex-wrap: wrap; align-items: baseline; gap: .2rem .8rem; }\n"
	"h1 { font-size: 1.35rem; margin: 0; }\n"
	"h2 { font-size: 1rem; margin: 1.8rem 0 .5rem; }\n"
	"h3, p { font-size: 1rem; margin: 0; }\n"
	"small, .dim, dt { color: var(--dim); font-size: .82rem; }\n"
	"[hidden] { display: none !important; }\n"
	".num { font-variant-numeric: tabular-nums; }\n"
	".card, .tiles, form { background: var(--card); border: 1px solid var(--line);\n"
	  "border-radius: 10px; margin-bottom: .7rem; }\n"
	".tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr));\n"
	  "margin-top: 1rem; }\n"
	".tiles div { padding: .7rem .9rem; }\n"
	".tiles b { display: block; font-size: 1.25rem; line-height: 1.3; }\n"
	".top { padding: .6rem .9rem; display: flex; flex-wrap: wrap; gap: .2rem .8rem;\n"
	  "align-items: baseline; }\n"
	".row { display: grid; grid-template-columns: 6.5rem minmax(0, 1fr) 7.5rem 7.5rem auto;\n"
	  "gap: .3rem 1rem; align-items: center; padding: .55rem .9rem;\n"
	  "border-top: 1px solid var(--line); }\n"
	".row.proc { grid-template-columns: 6.5rem minmax(0, 1fr) auto; }\n"
	".row.route { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr) 6rem; }\n"
	".card > .row:first-child { border: 0; }\n"
	".route b, .acts { text-align: right; }\n"
	".top .acts { margin-left: auto; }\n"
	".state { font-size: .82rem; font-weight: 600; color: var(--warn); white-space: nowrap; }\n"
	".state::before { content: ''; display: inline-block; width: .55em; height: .55em;\n"
	  "border-radius: 50%; background: currentColor; margin-right: .5em; }\n"
	".up, .done, .live { color: var(--good); }\n"
	".off, .drained { color: var(--dim); }\n"
	".failing, .unhealthy, .unresolved, .failed, .backoff, .lost { color: var(--bad); }\n"
	"svg { display: block; width: 100%; height: 26px; border-bottom: 1px solid var(--line); }\n"
	"polyline { fill: none; stroke: var(--key); stroke-width: 1.5;\n"
	  "vector-effect: non-scaling-stroke; }\n"
	"button, input { font: inherit; color: inherit; background: var(--bg); padding: .3rem "
	    ".8rem;\n"
	  "border: 1px solid var(--line); border-radius: 7px; min-height: 2.1rem; }\n"
	"button { cursor: pointer; margin-left: .3rem; }\n"
	"button:disabled { opacity: .5; cursor: wait; }\n"
	":focus-visible { outline: 2px solid var(--key); outline-offset: 2px; }\n"
	"pre { margin: 0; padding: .5rem .9rem; border-top: 1px solid var(--line); overflow-x: "
	    "auto;\n"
	  "max-height: 11rem; font: 12px/1.5 ui-monospace, monospace; color: var(--dim); }\n"
	"form { padding: 1rem; margin-top: 1rem; }\n"
	"#said { position: fixed; left: 50%; bottom: 1rem; transform: translateX(-50%); "
	    "max-width: 90vw;\n"
	  "background: var(--ink); color: var(--bg); padding: .5rem 1rem; border-radius: 8px; }\n"
	"#said:empty { display: none; }\n"
	"@media (max-width: 42rem) {\n"
	  ".row, .row.proc { grid-template-columns: 1fr 1fr; }\n"
	  ".row > .wide { grid-column: 1 / -1; order: 1; }\n"
	  ".row > .num { order: 2; }\n"
	  "button { min-height: 2.6rem; }\n"
	  ".row.route { grid-template-columns: minmax(0, 1fr) auto; }\n"
	  ".row > b.num { order: 0; }\n"
	"}\n";

static const char page_body[] =
	"</style>\n"
	"<header><h1>warp</h1> <span class='dim num' id=about></span>\n"
	"<span class=state id=link>connecting</span></header>\n"
	"<form id=ask hidden><p id=why></p>\n"
	"<label for=token>Admin token</label>\n"
	"<input id=token type=password autocomplete=current-password required>\n"
	"<button>Show</button></form>\n"
	"<main id=main hidden>\n"
	"<div class='tiles num' id=tiles></div>\n"
	"<section><h2>Upstreams</h2><div id=ups></div></section>\n"
	"<section><h2>Processes</h2><div id=procs></div></section>\n"
	"<section><h2>Routes</h2><div class=card id=routes></div></section>\n"
	"<section><h2>Workers</h2><div class=card id=workers></div></section>\n"
	"<section><h2>Certificates</h2><div class=card id=certs></div></section>\n"
	"</main>\n"
	"<p id=said role=status aria-live=polite></p>\n"
	"<script>";

static const char page_script_1[] =
	"'use strict';\n"
	"const POLLS = 60, EVERY = 2000, SVG = 'http://www.w3.org/2000/svg';\n"
	"const $ = id => document.getElementById(id), past = new Map(), made = new Map();\n"
	"let seen, before, at, hush;\n"
	/* The element of that key below parent, made once, so that the focus stays. */
	"function el(parent, key, tag, cls) {\n"
	  "key = parent.key + '/' + key;\n"
	  "let e = made.get(key);\n"
	  "if (!e) {\n"
	    "e = tag === 'svg' ? document.createElementNS(SVG, tag) : "
	        "document.createElement(tag);\n"
	    "e.key = key;\n"
	    "parent.append(e);\n"
	    "made.set(key, e);\n"
	  "}\n"
	  "if (cls !== undefined && e.getAttribute('class') !== cls) e.setAttribute('class', "
	      "cls);\n"
	  "seen.add(key);\n"
	  "return e;\n"
	"}\n"
	"function say(parent, key, tag, cls, text) {\n"
	  "const e = el(parent, key, tag, cls);\n"
	  "if (e.textContent !== String(text)) e.textContent = text;\n"
	  "return e;\n"
	"}\n"
	"function sweep() {\n"
	  "for (const [key, e] of made)\n"
	    "if (!seen.has(key)) { e.remove(); made.delete(key); }\n"
	"}\n"
	"const join = (...all) => all.filter(x => x).join(' · ');\n"
	"const count = n => n.toLocaleString('en');\n"
	"const bytes = n => n < 1e6 ? Math.ceil(n / 1e3) + ' KB'\n"
	  ": n < 1e9 ? (n / 1e6).toFixed(1) + ' MB' : (n / 1e9).toFixed(2) + ' GB';\n"
	"const ms = n => (n < 10 ? n.toFixed(1) : Math.round(n)) + ' ms';\n"
	"const ago = s => s < 90 ? Math.floor(s) + ' s' : s < 5400 ? Math.floor(s / 60) + ' min'\n"
	  ": s < 129600 ? Math.floor(s / 3600) + ' h' : Math.floor(s / 86400) + ' d';\n"
	"function note(key, value) {\n"
	  "const list = past.get(key) || [];\n"
	  "list.push(value);\n"
	  "if (list.length > POLLS) list.shift();\n"
	  "past.set(key, list);\n"
	  "return list;\n"
	"}\n"
	/* How much a counter grew per second; null: it is new, or was reset. */
	"function rate(key, n) {\n"
	  "const old = before.get(key);\n"
	  "before.set(key, n);\n"
	  "return old === undefined || old > n ? null : (n - old) / at.took;\n"
	"}\n"
	"function plot(parent, key, name, list, text) {\n"
	  "const box = el(parent, key, 'div', 'num'), top = Math.max(...list, 1e-9);\n"
	  "say(box, 't', 'small', '', name + ' ' + text);\n"
	  "const svg = el(box, 's', 'svg');\n"
	  "svg.setAttribute('viewBox', '0 0 59 26');\n"
	  "svg.setAttribute('preserveAspectRatio', 'none');\n"
	  "svg.setAttribute('aria-hidden', 'true');\n"
	  "if (!svg.firstChild) svg.append(document.createElementNS(SVG, 'polyline'));\n"
	  "svg.firstChild.setAttribute('points', list.map((v, i) =>\n"
	    "(POLLS - list.length + i) + ',' + (24.5 - v / top * 22).toFixed(1)).join(' '));\n"
	"}\n"
	"function button(parent, key, text, about, verb, ask) {\n"
	  "const b = say(parent, key, 'button', '', text);\n"
	  "b.type = 'button';\n"
	  "b.setAttribute('aria-label', text + ' ' + about);\n"
	  "b.onclick = async () => {\n"
	    "if (ask && !confirm(text + ' ' + about + '?')) return;\n"
	    "b.disabled = true;\n"
	    "tell(text + ' ' + about + ' …');\n"
	    "try {\n"
	      "const r = await get(verb.map(encodeURIComponent).join('/'), 'POST');\n"
	      "tell(text + ' ' + about + ': ' + (await r.text()).trim());\n"
	    "} catch (e) { tell(text + ' ' + about + ': ' + e.message); }\n"
	    "b.disabled = false;\n"
	    "b.focus();\n"
	    "poll();\n"
	  "};\n"
	"}\n"
	"function tell(text) {\n"
	  "$('said').textContent = text;\n"
	  "clearTimeout(hush);\n"
	  "hush = setTimeout(() => $('said').textContent = '', 9000);\n"
	"}\n"
	"function get(path, method) {\n"
	  "const token = sessionStorage.getItem('warp');\n"
	  "return fetch(path, { method, headers: token ? { 'X-Admin-Token': token } : {} });\n"
	"}\n"
	"function used(row, p) {\n"
	  "say(row, 'u', 'small', 'num', p.cpu_secs === null ? ''\n"
	    ": p.cpu_secs.toFixed(1) + ' s cpu, ' + bytes(p.rss_bytes));\n"
	"}\n";

static const char page_script_2[] =
	"function tile(key, name, value) {\n"
	  "const d = el($('tiles'), key, 'div');\n"
	  "say(d, 'v', 'b', '', value);\n"
	  "say(d, 'n', 'small', '', name);\n"
	"}\n"
	"function instance(card, up, i) {\n"
	  "const key = up.name + '/' + i.index, row = el(card, i.index, 'div', 'row');\n"
	  "const r = rate(key, i.requests), s = rate(key + '!', i.latency_ms * i.requests);\n"
	  "const h = i.health;\n"
	  "say(row, 's', 'span', 'state ' + i.state, i.state);\n"
	  "const mid = el(row, 'm', 'div', 'wide');\n"
	  "say(mid, 'a', 'div', '', i.address + (i.backup ? ' (backup)' : ''));\n"
	  "say(mid, 'd', 'small', 'num', join(i.in_flight + ' in flight', count(i.requests) + ' "
	      "answers',\n"
	    "i.failures > 0 && i.failures + ' failed', i.why, h && h.why));\n"
	  "plot(row, 'l', 'Latency', note(key + ' l', r ? s / r : 0), r ? ms(s / r) : '–');\n"
	  "plot(row, 'r', 'Rate', note(key + ' r', r || 0), (r || 0).toFixed(1) + '/s');\n"
	  "const name = up.name + '/' + (i.address === '-' ? i.index : i.address);\n"
	  "button(el(row, 'b', 'div', 'acts'), 'd', i.drained ? 'Enable' : 'Drain', name,\n"
	    "[i.drained ? 'enable' : 'drain', up.name, i.index]);\n"
	"}\n"
	"function upstream(up) {\n"
	  "const card = el($('ups'), up.name, 'div', 'card'), top = el(card, 'top', 'div', "
	      "'top');\n"
	  "say(top, 'n', 'h3', '', up.name);\n"
	  "say(top, 's', 'small', '', join(up.strategy, up.hold_secs > 0 && 'holds ' + "
	      "up.hold_secs + ' s',\n"
	    "up.maintenance && 'maintenance file ' + up.maintenance));\n"
	  "for (const i of up.instances) instance(card, up, i);\n"
	"}\n"
	"function proc(p) {\n"
	  "const card = el($('procs'), p.process, 'div', 'card'), top = el(card, 'top', 'div', "
	      "'top');\n"
	  "say(top, 'n', 'h3', '', p.process);\n"
	  "say(top, 's', 'small', '', p.upstream ? 'of upstream ' + p.upstream : '');\n"
	  "const acts = el(top, 'a', 'div', 'acts');\n"
	  "for (const [text, verb] of [['Restart', 'restart'], ['Stop', 'stop'], ['Start', "
	      "'start']])\n"
	    "button(acts, verb, text, p.process, [verb, p.process], verb === 'stop');\n"
	  "const box = el(card, p.name, 'div'), row = el(box, 'r', 'div', 'row proc');\n"
	  "say(row, 's', 'span', 'state ' + p.state, p.state);\n"
	  "const mid = el(row, 'm', 'div', 'wide');\n"
	  "say(mid, 'a', 'div', '', p.name + (p.pid ? ' · pid ' + p.pid : ''));\n"
	  "say(mid, 'd', 'small', 'num', join('for ' + ago(p.since_secs), p.restarts > 0 && "
	      "p.restarts + ' restarts', p.why));\n"
	  "used(row, p);\n"
	  "if (p.lines.length) {\n"
	    "const pre = say(box, 'log', 'pre', '', p.lines.join('\\n'));\n"
	    "pre.tabIndex = 0;\n"
	    "pre.setAttribute('aria-label', 'last lines of ' + p.name);\n"
	  "}\n"
	"}\n"
	"function show(s) {\n"
	  "const r = rate('all', s.requests), bad = rate('bad', s.codes['5xx']);\n"
	  "seen = new Set();\n"
	  "say($('about'), '', 'span', '', s.version + ' · up ' + ago(s.uptime_secs) + ' · "
	      "configuration '\n"
	    "+ s.generation);\n"
	  "tile('r', 'requests a second', (r || 0).toFixed(1));\n"
	  "tile('e', 'of these 5xx', (bad || 0).toFixed(1));\n"
	  "tile('c', 'connections', count(s.connections));\n"
	  "tile('f', 'in flight', count(s.upstreams.flatMap(u => u.instances)\n"
	    ".reduce((n, i) => n + i.in_flight, 0)));\n"
	  "tile('a', 'requests', count(s.requests));\n"
	  "s.upstreams.forEach(upstream);\n"
	  "if (!s.upstreams.length) say($('ups'), 'none', 'p', 'dim', 'none');\n"
	  "s.processes.forEach(proc);\n"
	  "if (!s.processes.length) say($('procs'), 'none', 'p', 'dim', 'none');\n"
	  "s.routes.forEach((t, i) => {\n"
	    "const row = el($('routes'), i, 'div', 'row route');\n"
	    "say(row, 'm', 'div', '', t.match);\n"
	    "say(row, 'a', 'div', 'dim wide', t.action);\n"
	    "say(row, 'h', 'b', 'num', t.hits === undefined ? '' : count(t.hits));\n"
	  "});\n"
	  "for (const w of s.workers) {\n"
	    "const row = el($('workers'), w.pid, 'div', 'row proc');\n"
	    "say(row, 's', 'span', 'state ' + (w.state === 'ready' ? 'up' : ''), w.state);\n"
	    "say(row, 'd', 'div', 'num wide', 'pid ' + w.pid + ' · ' + count(w.requests) + ' "
	        "requests · '\n"
	      "+ w.connections + ' connections');\n"
	    "used(row, w);\n"
	  "}\n"
	  "certs(s);\n"
	  "sweep();\n"
	"}\n"
	"function link(cls, text) {\n"
	  "$('link').className = 'state ' + cls;\n"
	  "if ($('link').textContent !== text) $('link').textContent = text;\n"
	"}\n";

static const char page_script_3[] =
	"function certs(s) {\n"
	  "const box = $('certs'), a = s.acme, day = t => t ? t.slice(0, 10) : '';\n"
	  "s.certificates.forEach((c, i) => {\n"
	    "const row = el(box, i, 'div', 'row proc'), d = c.days_left;\n"
	    "say(row, 's', 'span', 'state ' + (d < 0 ? 'failed' : d < 14 ? '' : 'up'),\n"
	      "d < 0 ? 'expired' : d + (d === 1 ? ' day left' : ' days left'));\n"
	    "const mid = el(row, 'm', 'div', 'wide');\n"
	    "say(mid, 'n', 'div', '', c.names.join(', '));\n"
	    "say(mid, 'i', 'small', 'num', join(c.origin, c.issuer && 'by ' + c.issuer, c.key));\n"
	    "say(row, 'u', 'small', 'num', 'until ' + day(c.until));\n"
	  "});\n"
	  "if (a.state !== 'off') {\n"
	    "const row = el(box, 'acme', 'div', 'row proc');\n"
	    "say(row, 's', 'span', 'state ' + (a.state === 'waiting' ? 'up' : a.state), a.state);\n"
	    "const mid = el(row, 'm', 'div', 'wide');\n"
	    "say(mid, 'n', 'div', '', 'ACME');\n"
	    "say(mid, 'w', 'small', '', a.why);\n"
	    "say(row, 'u', 'small', 'num', a.next && 'next ' + a.next.slice(0, 16));\n"
	  "} else if (!s.certificates.length) say(box, 'none', 'p', 'row dim', 'none');\n"
	"}\n"
	"async function poll() {\n"
	  "try {\n"
	    "const r = await get('status'), now = performance.now();\n"
	    "if (r.status === 401 || r.status === 403) {\n"
	      "$('why').textContent = (await r.text()).trim();\n"
	      "$('ask').hidden = false;\n"
	      "$('main').hidden = true;\n"
	      "link('lost', 'locked');\n"
	      "return;\n"
	    "}\n"
	    "if (!r.ok) throw Error(r.status + ' ' + r.statusText);\n"
	    "const s = await r.json();\n"
	    "at = { when: now, took: at ? Math.max((now - at.when) / 1000, 0.001) : 1 };\n"
	    "$('ask').hidden = true;\n"
	    "$('main').hidden = false;\n"
	    "show(s);\n"
	    "link('live', 'live');\n"
	  "} catch (e) { link('lost', 'no answer: ' + e.message); }\n"
	"}\n"
	"before = new Map();\n"
	"for (const id of ['tiles', 'ups', 'procs', 'routes', 'workers', 'certs', 'about'])\n"
	  "$(id).key = id;\n"
	"$('ask').onsubmit = e => {\n"
	  "e.preventDefault();\n"
	  "sessionStorage.setItem('warp', $('token').value);\n"
	  "$('token').value = '';\n"
	  "poll();\n"
	"};\n"
	"setInterval(() => { if (!document.hidden && $('ask').hidden) poll(); }, EVERY);\n"
	"poll();\n";

static const char page_end[] =
	"</script>\n"
	"</html>\n";

#define PIECE(name, kind) { { name, sizeof name - 1 }, kind }
static const struct {
	struct slice text;
	enum page_kind kind;
} page_parts[] = {
	PIECE(page_top, PAGE_MARKUP), PIECE(page_style, PAGE_STYLE), PIECE(page_body, PAGE_MARKUP),
	PIECE(page_script_1, PAGE_SCRIPT),
	PIECE(page_script_2, PAGE_SCRIPT),
	PIECE(page_script_3, PAGE_SCRIPT), PIECE(page_end, PAGE_MARKUP),
};
#undef PIECE
/* clang-format on */

_Static_assert(sizeof page_top + sizeof page_style + sizeof page_body + sizeof page_script_1 +
    sizeof page_script_2 + sizeof page_script_3 +
    sizeof page_end < PAGE_MAX, "the dashboard has become too long");

#define NO_STORE "Cache-Control: no-store\r\n"

static void
dashboard_print(FILE *to)
{
	for (size_t i = 0; i < LEN(page_parts); i++)
		fwrite(page_parts[i].text.p, 1, page_parts[i].text.n, to);
}

/* 'sha256-…' of the page's parts of that kind, as a policy names them. */
static void
page_hash(struct text *t, enum page_kind kind)
{
	unsigned char hash[br_sha256_SIZE];
	br_sha256_context sha;

	br_sha256_init(&sha);
	for (size_t i = 0; i < LEN(page_parts); i++)
		if (page_parts[i].kind == kind)
			br_sha256_update(&sha, page_parts[i].text.p, page_parts[i].text.n);
	br_sha256_out(&sha, hash);
	text_str(t, "'sha256-");
	base64_write(t, (struct slice){ (const char *)hash, sizeof hash }, false);
	text_str(t, "'");
}

/* Header lines of the page: it runs only what warp wrote, no other page frames it,
 * and it talks to warp alone. */
static const char *
dashboard_head(void)
{
	static char lines[512];
	struct text t = { lines, 0, sizeof lines - 1, false };

	text_str(&t, NO_STORE "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
	    "Content-Security-Policy: default-src 'none'; connect-src 'self'; img-src data:; "
	    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src ");
	page_hash(&t, PAGE_STYLE);
	text_str(&t, "; script-src ");
	page_hash(&t, PAGE_SCRIPT);
	text_str(&t, "\r\n");
	lines[t.n] = '\0';
	return lines;
}

/* ==== admin ==================================================================
 * Owns    the texts of an answer; the caller owns its body.
 * Offers  admin_answer.
 * Calls   base, arena, clock, path, addr, json, keys (AT), hints, upstreams
 *         (upstream_find), conf out, board, roster, tls, usage, dashboard. Figures
 *         are read off the board, whichever worker is asked. A new figure is one
 *         row: in counters[] if each worker counts it, else a SAY beside its like.
 *         A row names the value, then where it is shown: as a member of /status,
 *         as a metric with its help, as a column of the tables; any of these may
 *         be left out. */

#define TEXT_TYPE "text/plain; charset=utf-8"
#define PROM_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define HTML_TYPE "text/html; charset=utf-8"
#define JSON_TYPE "application/json"
#define US_PER_S  1e6
#define US_PER_MS 1e3
#define KB        1024
#define FIT       SHRT_MIN /* a column as wide as what is in it */

enum { STATUS_LINES = 3 }; /* levels whose members have own lines */

static struct arena scrap; /* texts, until the answer is written */

/* ---- values ---- */

#define v_none     ((struct value){ .kind = V_NONE })
#define v_null     ((struct value){ .kind = V_NULL })
#define v_bool(b)  ((struct value){ .kind = V_BOOL, .i = b })
#define v_int(n)   ((struct value){ .kind = V_INT, .i = (int64_t)(n) })
#define v_real(x)  ((struct value){ .kind = V_REAL, .real = x })
#define v_text(s)  ((struct value){ .kind = V_TEXT, .text = s })
#define v_texts(s) ((struct value){ .kind = V_TEXTS, .texts = s })

/* s NULL: null. */
static struct value
v_str(const char *s)
{
	return s ? v_text(s) : v_null;
}

static struct value
v_note(const struct board_text *t)
{
	return v_str(board_text_get(t, arena_alloc(&scrap, WHY_MAX)));
}

/* Seconds from then to now; 0 if then is 0: never. */
static struct value
v_since(const struct wide *then)
{
	int64_t ms = (int64_t)wide_get(then);

	return v_real(ms > 0 ? (double)MAX(now_ms - ms, 0) / SECOND_MS : 0);
}

/* Unix time s in the form of RFC 3339; 0: none. */
static struct value
v_time(int64_t s)
{
	char *out = arena_alloc(&scrap, TIME_TEXT);
	time_t t = (time_t)s;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || strftime(out, TIME_TEXT, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		out[0] = '\0'; /* out of range */
	return s == 0 ? v_null : v_str(out);
}

static void
value_json(struct json_out *o, struct value v)
{
	if (v.kind == V_INT)
		fprintf(o->to, "%lld", (long long)v.i);
	else if (v.kind == V_REAL)
		fprintf(o->to, "%.3f", v.real);
	else if (v.kind == V_TEXT)
		json_quote(o->to, slice_of(v.text));
	else if (v.kind != V_TEXTS)
		fputs(v.kind == V_NULL ? "null" : v.i ? "true" : "false", o->to);
	else {
		json_open(o, '[');
		for (int i = 0; i < v.texts->n; i++) {
			json_item(o);
			json_quote(o->to, v.texts->v[i]);
		}
		json_close(o, ']');
	}
}

/* The value in a table: `_` for blanks, which part cells; `-` for nothing. */
static const char *
value_cell(struct value v, int digits)
{
	const char *s = v.kind == V_TEXT ? v.text : "";
	char *cell;

	if (v.kind == V_INT)
		return arena_fmt(&scrap, "%lld", (long long)v.i);
	if (v.kind == V_REAL)
		return arena_fmt(&scrap, "%.*f", digits, v.real);
	for (int i = 0; v.kind == V_TEXTS && i < v.texts->n; i++)
		s = arena_fmt(&scrap, "%s%s%s", s, i > 0 ? "," : "", v.texts->v[i].p);
	cell = arena_fmt(&scrap, "%s", *s ? s : "-");
	for (char *c = cell; *c; c++)
		if ((unsigned char)*c <= ' ')
			*c = '_';
	return cell;
}

/* ---- how facts are said ---- */

#define FACT(...)          (&(const struct fact){ .name = __VA_ARGS__ })
#define COLUMN(head, wide) .column = head, .width = wide
#define SAY(t, value, ...) say_fact(t, value, FACT(__VA_ARGS__))

/* Where samples of f's metric go, behind their head. Names are compared as pointers:
 * a metric's is one literal. type NULL: told by the name. */
static FILE *
family_of(struct teller *t, const struct fact *f, const char *type)
{
	struct family **at = &t->families, *m;

	for (; (m = *at); at = &m->next)
		if (m->metric == f->metric)
			return m->to;
	m = *at = arena_alloc(&scrap, sizeof *m);
	m->metric = f->metric;
	if (!(m->to = open_memstream(&m->text, &m->n)))
		die_memory();
	if (!type)
		type = slice_ends(slice_of(f->metric), S("_total")) ? "counter" : "gauge";
	fprintf(m->to, "# HELP warp_%s %s\n# TYPE warp_%s %s\n", f->metric, f->help, f->metric,
	    type);
	return m->to;
}

/* One sample; none without a number. */
static void
say_metric(struct teller *t, struct value v, const struct fact *f)
{
	FILE *to = family_of(t, f, NULL);

	if (v.kind == V_NONE || v.kind == V_NULL)
		return;
	fprintf(to, *t->labels ? "warp_%s{%s} " : "warp_%s%s ", f->metric, t->labels);
	if (v.kind != V_REAL)
		fprintf(to, "%lld\n", (long long)v.i);
	else
		fprintf(to, f->digits > 0 ? "%.*f\n" : "%.*g\n", f->digits > 0 ? f->digits : 15,
		    v.real);
}

/* Notes the column, and how wide it must be. */
static void
say_head(struct teller *t, struct value v, const struct fact *f)
{
	struct column *c = *t->at;

	if (!c) {
		c = *t->at = arena_alloc(&scrap, sizeof *c);
		c->name = f->column;
		c->width = f->width == FIT ? -(int)strlen(f->column) : f->width;
	}
	if (f->width == FIT)
		c->width = MIN(c->width, -(int)strlen(value_cell(v, f->digits)));
	t->at = &c->next;
}

static void
say_fact(struct teller *t, struct value v, const struct fact *f)
{
	if (t->as == AS_JSON && f->name && v.kind != V_NONE) {
		json_key(&t->json, slice_of(f->name));
		value_json(&t->json, v);
	}
	if (t->as == AS_METRICS && f->metric)
		say_metric(t, v, f);
	if (t->as == AS_HEADS && f->column)
		say_head(t, v, f);
	if (t->as == AS_ROWS && f->column) {
		fprintf(t->json.to, "%s%*s", *t->at == t->columns ? "" : " ", (*t->at)->width,
		    value_cell(v, f->digits));
		t->at = &(*t->at)->next;
	}
}

/* Begins an object or a list in JSON: a member of that name, or an item. */
static void
say_open(struct teller *t, const char *name, char bracket)
{
	if (t->as != AS_JSON)
		return;
	if (name)
		json_key(&t->json, slice_of(name));
	else
		json_item(&t->json);
	json_open(&t->json, bracket);
}

static void
say_close(struct teller *t, char bracket)
{
	if (t->as == AS_JSON)
		json_close(&t->json, bracket);
}

/* Begins the facts of one thing: an object, a line of a table, samples. */
static void
row_begin(struct teller *t, const char *name)
{
	t->at = &t->columns;
	t->labels = "";
	say_open(t, name, '{');
}

static void
row_end(struct teller *t)
{
	say_close(t, '}');
	if (t->as == AS_ROWS)
		fputc('\n', t->json.to);
}

/* A label of the metrics that follow in this row. */
static void
say_label(struct teller *t, const char *name, const char *s)
{
	struct text to = { 0 };

	if (t->as != AS_METRICS)
		return;
	to.cap = strlen(t->labels) + strlen(name) + 2 * strlen(s) + sizeof ",=\"\"";
	to.p = arena_alloc(&scrap, to.cap);
	text_fmt(&to, "%s%s%s=\"", t->labels, *t->labels ? "," : "", name);
	for (; *s; s++) {
		text_str(&to, *s == '"' || *s == '\\' || *s == '\n' ? "\\" : "");
		text_char(&to, *s == '\n' ? 'n' : *s);
	}
	text_char(&to, '"');
	t->labels = to.p;
}

/* One of several values of f: a member called name, a sample labelled with it. */
static void
say_part(struct teller *t, const char *label, const char *name, struct value v,
    const struct fact *f)
{
	const char *labels = t->labels;
	struct fact part = *f;

	part.name = f->name ? name : NULL;
	say_label(t, label, name);
	say_fact(t, v, &part);
	t->labels = labels;
}

/* ---- workers ---- */

static const char *const code_names[] = { NULL, "1xx", "2xx", "3xx", "4xx", "5xx" };
static const char *const worker_states[] = {
	[WORKER_FREE] = "free", [WORKER_STARTING] = "starting",
	[WORKER_READY] = "ready", [WORKER_DRAINING] = "draining",
};

/* A counter or gauge in rec. NULL: the sum of all workers, also of those gone. */
static uint64_t
count_of(const void *rec, size_t at, size_t size)
{
	const void *p = (const char *)(rec ? rec : &board->gone) + at;
	uint64_t n = size == sizeof(struct wide) ? wide_get(p) : *(const atomic_uint *)p;

	for (size_t i = 0; !rec && i < LEN(board->workers); i++)
		n += count_of(&board->workers[i], at, size);
	return n;
}

#define COUNT_OF(w, field) count_of(w, AT(struct board_worker, field))
#define COUNTED(w, field)  v_int(COUNT_OF(w, field))
#define WORKER(field)      .at = offsetof(struct board_worker, field), \
	                   .size = sizeof board->gone.field

/* Answers by class. none: the name for no answer. */
static void
say_codes(struct teller *t, const void *rec, size_t at, const char *none, const struct fact *f)
{
	if (f->name)
		say_open(t, f->name, '{');
	for (size_t i = 0; i < LEN(code_names); i++)
		say_part(t, "code", i > 0 ? code_names[i] : none, v_int(count_of(rec,
		    at + i * sizeof(struct wide), sizeof(struct wide))), f);
	if (f->name)
		say_close(t, '}');
}

/* The last cell on the board is +Inf: it has all that exceeded the cell before. */
static void
say_latency(struct teller *t, const struct board_worker *w)
{
	static const unsigned limits[LATENCY_BUCKETS] = LATENCY_MS;
	static const char *const name = "warp_request_seconds";
	unsigned long long sum = 0;
	FILE *to;

	if (t->as != AS_METRICS)
		return;
	to = family_of(t, FACT(NULL, "request_seconds",
	    "From the head of the request to the end of the answer."), "histogram");
	for (size_t i = 0; i < LEN(limits); i++) {
		sum += COUNT_OF(w, latency[i]);
		if (i + 1 < LEN(limits))
			fprintf(to, "%s_bucket{le=\"%g\"} %llu\n", name,
			    limits[i] / (double)SECOND_MS, sum);
	}
	fprintf(to, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.6f\n%s_count %llu\n", name, sum, name,
	    (double)COUNT_OF(w, latency_us) / US_PER_S, name, sum);
}

/* State of a worker, or of all. */
static const struct fact gauges[] = {
	{ "connections", "connections", "Client connections now open.", WORKER(connections) },
	{ "upstream_connections", "upstream_connections",
	  "Connections to instances now open, idle ones included.",
	  WORKER(upstream_connections) },
};

/* Counts of the same. */
static const struct fact counters[] = {
	{ "accepted", "accepted_total", "Client connections accepted.", WORKER(accepted) },
	{ "refused", "accept_failures_total",
	  "Accepts that failed for want of descriptors or memory.", WORKER(refused) },
	{ "handshakes", "tls_handshakes_total", "TLS handshakes of clients that succeeded.",
	  WORKER(handshakes) },
	{ "resumed", "tls_resumed_total", "Of these, sessions that were resumed.",
	  WORKER(resumed) },
	{ "handshakes_failed", "tls_handshakes_failed_total",
	  "TLS handshakes of clients that failed.", WORKER(handshakes_failed) },
	{ "retries", "retries_total", "Requests tried again on another instance.",
	  WORKER(retries) },
	{ "bytes_in", "received_bytes_total", "Bytes of request bodies.", WORKER(bytes_in) },
	{ "bytes_out", "sent_bytes_total", "Bytes of response bodies.", WORKER(bytes_out) },
	{ "log_dropped", "log_dropped_total", "Lines of the access log that were dropped.",
	  WORKER(log_dropped) },
};

static void
say_counted(struct teller *t, const struct board_worker *w, const struct fact *f, size_t n)
{
	for (; n > 0; n--, f++)
		say_fact(t, v_int(count_of(w, f->at, f->size)), f);
}

static void
say_requests(struct teller *t, const struct board_worker *w)
{
	SAY(t, COUNTED(w, requests), "requests");
	say_codes(t, w, offsetof(struct board_worker, codes), "aborted",
	    FACT(NULL, "requests_total",
	    "Requests by class of the answer; aborted: the client left before one."));
	say_latency(t, w);
	say_counted(t, w, counters, LEN(counters));
}

/* The metrics are for processes; tell_own has warp's own. */
static void
say_usage(struct teller *t, int pid)
{
	struct usage u = usage_of(pid);
	struct value cpu = u.known ? v_real(u.cpu_s) : v_null;
	struct value rss = u.known ? v_int(u.rss) : v_null;

	SAY(t, cpu, "cpu_secs", "process_cpu_seconds_total",
	    "Processor time of the running one.");
	SAY(t, rss, "rss_bytes", "process_resident_memory_bytes", "Memory of the running one.");
	SAY(t, cpu, NULL, COLUMN("CPU_SECS", 9), .digits = 2);
	SAY(t, u.known ? v_int(u.rss / KB) : v_null, NULL, COLUMN("RSS_KB", 10));
}

/* Each worker; metrics have the sums, see tell_warp. */
static void
tell_workers(struct teller *t)
{
	say_open(t, "workers", '[');
	for (size_t i = 0; i < LEN(board->workers) && t->as != AS_METRICS; i++) {
		const struct board_worker *w = &board->workers[i];
		if (w->pid <= 0)
			continue;
		row_begin(t, NULL);
		SAY(t, v_int(w->pid), "pid", COLUMN("WORKER", -10));
		SAY(t, v_str(worker_states[w->state]), "state", COLUMN("STATE", -8));
		say_counted(t, w, gauges, LEN(gauges));
		SAY(t, COUNTED(w, connections), NULL, COLUMN("CONNECTIONS", 11));
		SAY(t, COUNTED(w, requests), NULL, COLUMN("REQUESTS", 10));
		SAY(t, COUNTED(w, bytes_in), NULL, COLUMN("BYTES_IN", 14));
		SAY(t, COUNTED(w, bytes_out), NULL, COLUMN("BYTES_OUT", 14));
		say_usage(t, w->pid);
		say_requests(t, w);
		row_end(t);
	}
	say_close(t, ']');
}

/* warp's own processes: the master, and each worker by its slot. */
static void
tell_own(struct teller *t)
{
	for (int slot = -1; t->as == AS_METRICS && slot < (int)LEN(board->workers); slot++) {
		struct usage u = usage_of(slot < 0 ? (int)getppid() : board->workers[slot].pid);
		if (slot < 0 && !u.known)
			return;
		row_begin(t, NULL);
		say_label(t, "role", slot < 0 ? "master" : "worker");
		say_label(t, "slot", slot < 0 ? "" : arena_fmt(&scrap, "%d", slot));
		SAY(t, u.known ? v_int(u.rss) : v_null, NULL, "resident_memory_bytes",
		    "Memory of warp's own processes; what they share is in each.");
		SAY(t, u.known ? v_real(u.cpu_s) : v_null, NULL, "cpu_seconds_total",
		    "Processor time of warp's own processes.", .digits = 2);
		row_end(t);
	}
}

/* ---- instances and their upstreams ---- */

static const char *const run_names[] = {
	[RUN_NONE] = "none", [RUN_OFF] = "off", [RUN_STARTING] = "starting",
	[RUN_UP] = "up", [RUN_DRAINING] = "draining",
};
static const char *const health_names[] = {
	[HEALTH_UNKNOWN] = "unknown", [HEALTH_UP] = "up", [HEALTH_DOWN] = "down",
};

/* An address that warp chooses may change: its label is the place. */
static void
say_instance_labels(struct teller *t, const struct instance *in)
{
	char b[ADDR_TEXT];
	const char *name = in->addr.kind == ADDR_NONE ? in->addr.text : instance_address(in, b);
	int twin = t->as == AS_METRICS ? instance_twin(in) : 0;

	say_label(t, "upstream", in->up->name);
	say_label(t, "instance", twin > 0 ? arena_fmt(&scrap, "%s %d", name, twin + 1) : name);
}

static void
say_health(struct teller *t, const struct board_instance *bi)
{
	say_open(t, "health", '{');
	SAY(t, v_str(health_names[bi->health]), "state");
	SAY(t, v_note(&bi->check_why), "why");
	SAY(t, bi->checked_ms > 0 ? v_real((double)clock_ago(bi->checked_ms) / SECOND_MS) : v_null,
	    "checked_secs_ago");
	SAY(t, v_int(bi->check_passes), "passes");
	SAY(t, v_int(bi->check_fails), "fails");
	say_close(t, '}');
}

/* What keeps requests away, as numbers. */
static void
say_instance_flags(struct teller *t, const struct instance *in)
{
	enum standing s = instance_standing(in);
	int64_t until = instance_open_until(in);

	SAY(t, v_bool(s == STAND_UP), NULL, "instance_up", "1 when any request may go to it.");
	/* also 1 without checks, and before the first ends */
	SAY(t, v_bool(s != STAND_UNHEALTHY), NULL, "instance_healthy",
	    "0 when its health checks fail.");
	SAY(t, v_bool(in->board->drained), NULL, "instance_drained",
	    "1 while the operator keeps requests from it.");
	SAY(t, v_int(until == 0 ? 0 : until <= now_ms ? 1 : 2), NULL, "instance_breaker",
	    "Its breaker: 0 closed, 1 half-open, 2 open.");
}

/* What an instance was asked, and how fast it was. */
static void
say_instance_counts(struct teller *t, const struct board_instance *bi)
{
	uint64_t n = wide_get(&bi->requests);
	double us = (double)wide_get(&bi->latency_us);

	SAY(t, v_int(bi->in_flight), "in_flight", COLUMN("IN_FLIGHT", 9));
	SAY(t, v_int(n), "requests", "instance_requests_total",
	    "Answers that came from the instance.", COLUMN("REQUESTS", 10));
	SAY(t, v_int(wide_get(&bi->failures)), "failures", "instance_failures_total",
	    "Failures of the instance.", COLUMN("FAILURES", 8));
	SAY(t, v_real(us / US_PER_S), NULL, "instance_response_seconds_total",
	    "Sum of the times until the head of its answer.");
	SAY(t, v_int(bi->in_flight), NULL, "instance_in_flight",
	    "Requests now with the instance.");
	SAY(t, v_real(n > 0 ? us / (double)n / US_PER_MS : 0), "latency_ms",
	    COLUMN("LATENCY_MS", 10), .digits = 3);
	SAY(t, v_real(bi->average_us / US_PER_MS), "average_ms");
	SAY(t, v_real(bi->average_us / US_PER_S), NULL, "instance_average_seconds",
	    "Moving average of the time to its answer.");
	SAY(t, v_int(bi->idle_life_ms), "idle_life_ms");
}

static void
say_instance(struct teller *t, const struct instance *in, int i)
{
	struct text why = { arena_alloc(&scrap, WHY_MAX), 0, WHY_MAX - 1, false };
	const char *address = instance_address(in, arena_alloc(&scrap, ADDR_TEXT));
	const struct board_instance *bi = in->board;

	instance_why(in, &why);
	row_begin(t, NULL);
	say_instance_labels(t, in);
	SAY(t, v_str(in->up->name), NULL, COLUMN("UPSTREAM", FIT));
	SAY(t, v_int(i), "index");
	SAY(t, v_str(address), "address", COLUMN("INSTANCE", FIT));
	SAY(t, v_str(standing_names[instance_standing(in)]), "state", COLUMN("STANDING", -10));
	SAY(t, in->up->health.on ? v_str(health_names[bi->health]) : v_null, NULL,
	    COLUMN("HEALTH", -8));
	SAY(t, v_text(why.p), "why");
	SAY(t, v_bool(bi->drained), "drained");
	SAY(t, v_str(run_names[bi->run]), "run");
	SAY(t, v_int(in->weight), "weight", COLUMN("WEIGHT", 6));
	SAY(t, v_bool(in->backup), "backup");
	SAY(t, v_int(in->max_connections), "max_connections");
	SAY(t, v_int(bi->addrs.n), "addresses");
	say_instance_counts(t, bi);
	say_instance_flags(t, in);
	say_codes(t, bi, offsetof(struct board_instance, codes), "none",
	    FACT("codes", "instance_answers_total",
	    "Answers by class; none: the request failed or was cut before one."));
	if (in->up->health.on)
		say_health(t, bi);
	SAY(t, v_text(why.p), NULL, COLUMN("WHY", 0));
	row_end(t);
}

/* The variable nobody gives the heads: they need no upstream. */
static void
tell_upstreams(struct teller *t)
{
	static struct upstream nowhere = { .name = "" };
	static struct board_instance off;
	static const struct instance nobody = { .up = &nowhere, .replica = -1, .addr.text = "",
		.board = &off };

	if (t->as == AS_HEADS)
		say_instance(t, &nobody, 0);
	say_open(t, "upstreams", '[');
	for (int u = 0; u < t->cf->n_upstreams; u++) {
		const struct upstream *up = &t->cf->upstreams[u];
		say_open(t, NULL, '{');
		SAY(t, v_str(up->name), "name");
		SAY(t, v_str(up->balance->name), "strategy");
		SAY(t, v_real(up->hold_ms / (double)SECOND_MS), "hold_secs");
		SAY(t, v_str(up->maintenance), "maintenance");
		say_open(t, "instances", '[');
		for (int i = 0; i < up->n_instances; i++)
			say_instance(t, &up->instances[i], i);
		say_close(t, ']');
		say_close(t, '}');
	}
	say_close(t, ']');
}

/* ---- processes ---- */

static const char *const proc_states[PROC_STATES] = {
	[PROC_OFF] = "off", [PROC_WAITING] = "waiting", [PROC_STARTING] = "starting",
	[PROC_UP] = "up", [PROC_DRAINING] = "draining", [PROC_STOPPING] = "stopping",
	[PROC_BACKOFF] = "backoff", [PROC_DONE] = "done", [PROC_FAILED] = "failed",
};

/* The process of replica name: web of web or web.1. NULL: of another
 * configuration. */
static const struct process *
proc_of(const struct conf *cf, const char *name)
{
	struct slice s = slice_of(name), own;

	for (int i = 0; i < cf->n_processes; i++) {
		own = slice_of(cf->processes[i]->name);
		if (slice_eq(s, own) || (slice_starts(s, own) && name[own.n] == '.' &&
		    slice_uint(slice_from(s, own.n + 1), PROCS_MAX) >= 0))
			return cf->processes[i];
	}
	return NULL;
}

/* The last lines, oldest first. */
static struct value
v_lines(const struct board_proc *p)
{
	unsigned n = p->n_lines, kept = MIN(n, PROC_LINES);
	struct slices *s = arena_alloc(&scrap, sizeof *s);

	s->v = arena_alloc(&scrap, PROC_LINES * sizeof *s->v);
	for (unsigned i = n - kept; i != n; i++)
		s->v[s->n++] = slice_of(v_note(&p->lines[i % PROC_LINES]).text);
	return v_texts(s);
}

/* Used records come first. */
static void
tell_procs(struct teller *t)
{
	say_open(t, "processes", '[');
	for (size_t i = 0; i < LEN(board->procs) && board->procs[i].name[0]; i++) {
		const struct board_proc *p = &board->procs[i];
		const struct process *of = proc_of(t->cf, p->name);
		row_begin(t, NULL);
		say_label(t, "process", p->name);
		SAY(t, v_str(p->name), "name", COLUMN("PROCESS", FIT));
		SAY(t, v_str(of ? of->name : p->name), "process");
		SAY(t, v_str(of && of->up ? of->up->name : NULL), "upstream");
		SAY(t, v_str(proc_states[p->state]), "state", COLUMN("STATE", -8));
		SAY(t, v_note(&p->why), "why");
		SAY(t, v_int(p->pid), "pid", COLUMN("PID", 7));
		SAY(t, v_bool(p->state == PROC_UP), NULL, "process_up",
		    "1 when it runs and is ready.");
		SAY(t, v_int(p->restarts), "restarts", "process_restarts_total",
		    "Starts after the first.", COLUMN("RESTARTS", 8));
		SAY(t, v_since(&p->since_ms), "since_secs", COLUMN("SINCE", 8));
		SAY(t, v_since(&p->started_ms), "uptime_secs");
		say_usage(t, p->pid);
		SAY(t, v_note(&p->why), NULL, COLUMN("WHY", 0));
		SAY(t, v_lines(p), "lines");
		row_end(t);
	}
	say_close(t, ']');
}

/* ---- routes ---- */

/* What print writes (print_conditions or print_action), without lead. */
static struct value
v_printed(const struct teller *t, void (*print)(FILE *, const struct route *),
    const struct route *r, struct slice lead)
{
	char *p = NULL;
	size_t n = 0;
	FILE *f = t->as == AS_JSON || t->as == AS_ROWS ? open_memstream(&p, &n) : NULL;
	struct slice s = S("");

	if (f)
		print(f, r);
	if (f && fclose(f) == 0)
		s = (struct slice){ p, n };
	if (slice_starts(s, lead))
		s = slice_from(s, lead.n);
	if (slice_ends(s, S("\n")))
		s.n--;
	s = arena_dup(&scrap, s);
	free(p);
	return v_text(s.p);
}

/* By place and line: a route has no name. */
static void
say_route(struct teller *t, const struct route *r, int i)
{
	struct value match = v_printed(t, print_conditions, r, S(" "));
	struct value action = v_printed(t, print_action, r, S(" -> "));
	struct value hits = i >= ROUTE_HITS ? v_none
	    : v_int(wide_get(&board->hits[t->cf->hits_half][i]));

	row_begin(t, NULL);
	say_label(t, "route", arena_fmt(&scrap, "%d", i + 1));
	say_label(t, "line", arena_fmt(&scrap, "%u", r->line));
	SAY(t, v_int(i + 1), NULL, COLUMN("ROUTE", -5));
	SAY(t, v_int(r->line), "line", COLUMN("LINE", 6));
	SAY(t, match, "match");
	SAY(t, action, "action");
	SAY(t, hits, "hits", "route_hits_total",
	    "Requests that the route took, since its configuration was loaded.",
	    COLUMN("HITS", 12));
	SAY(t, action, NULL, COLUMN("ACTION", -23));
	SAY(t, match, NULL, COLUMN("MATCH", 0));
	row_end(t);
}

/* Without routes there are heads, too. */
static void
tell_routes(struct teller *t)
{
	static const struct route nowhere = { .line = 0 };

	if (t->cf->table.n == 0 && (t->as == AS_HEADS || t->as == AS_METRICS))
		say_route(t, &nowhere, ROUTE_HITS);
	say_open(t, "routes", '[');
	for (int i = 0; i < MIN(t->cf->table.n, ADMIN_ROUTES); i++)
		say_route(t, &t->cf->table.routes[i], i);
	say_close(t, ']');
	if (t->as == AS_JSON && t->cf->table.n > ADMIN_ROUTES)
		SAY(t, v_int(t->cf->table.n - ADMIN_ROUTES), "routes_not_shown");
}

/* ---- certificates, and ACME, which gets them ---- */

static const char *const cert_origins[] = {
	[CERT_FILE] = "file", [CERT_ACME] = "acme", [CERT_MADE] = "self-signed",
};
static const char *const acme_states[] = {
	[ACME_OFF] = "off", [ACME_WAITING] = "waiting",
	[ACME_ASKING] = "asking", [ACME_FAILED] = "failed",
};

static const char *
cert_first(const struct cert *c)
{
	return c->names.n > 0 ? c->names.v[0].p : "";
}

/* One before c has the same labels. */
static bool
cert_is_twin(const struct cert_set *set, const struct cert *c)
{
	for (const struct cert *b = set->v; b < c; b++)
		if (b->key_type == c->key_type && b->key_bits == c->key_bits &&
		    b->origin == c->origin && strcmp(cert_first(b), cert_first(c)) == 0)
			return true;
	return false;
}

static void
say_cert(struct teller *t, const struct cert *c)
{
	const char *origin = cert_origins[c->origin];
	const char *issuer = c->issuer.n > 0 ? c->issuer.p : "";
	const char *type = c->key_type == BR_KEYTYPE_EC ? "EC" : "RSA";
	const char *key = arena_fmt(&scrap, "%s %u", type, c->key_bits);
	struct slices others = { c->names.n > 1 ? c->names.v + 1 : NULL, MAX(c->names.n - 1, 0) };
	int64_t left = c->until_s - now_s, days = left / DAY_S - (left % DAY_S < 0);

	row_begin(t, NULL);
	say_label(t, "name", cert_first(c));
	say_label(t, "key", key);
	say_label(t, "origin", origin);
	SAY(t, v_str(cert_first(c)), NULL, COLUMN("CERTIFICATE", FIT));
	SAY(t, v_texts(&c->names), "names");
	SAY(t, v_str(issuer), "issuer");
	SAY(t, v_str(origin), "origin", COLUMN("ORIGIN", -11));
	SAY(t, v_str(key), "key");
	SAY(t, v_str(arena_fmt(&scrap, "%s-%u", type, c->key_bits)), NULL, COLUMN("KEY", -8));
	SAY(t, v_time(c->from_s), "from");
	SAY(t, v_time(c->until_s), "until", COLUMN("UNTIL", -20));
	SAY(t, v_int(days), "days_left", COLUMN("DAYS_LEFT", 9)); /* below 0: since it expired */
	SAY(t, v_texts(&others), NULL, COLUMN("OTHER_NAMES", -1));
	SAY(t, v_str(issuer), NULL, COLUMN("ISSUER", 0));
	SAY(t, cert_is_twin(t->cf->tls.set, c) ? v_none : v_int(c->until_s), NULL,
	    "certificate_expiry_seconds",
	    "When the certificate expires, Unix time; by its first name.");
	row_end(t);
}

static void
tell_certs(struct teller *t)
{
	const struct cert_set *set = t->cf->tls.on ? t->cf->tls.set : NULL;

	say_open(t, "certificates", '[');
	for (int i = 0; set && i < set->n; i++)
		say_cert(t, &set->v[i]);
	say_close(t, ']');
}

/* If ACME is off, only JSON says so. */
static void
tell_acme(struct teller *t)
{
	if (board->acme.state == ACME_OFF && t->as != AS_JSON)
		return;
	row_begin(t, "acme");
	SAY(t, v_str(acme_states[board->acme.state]), "state", COLUMN("ACME", -8));
	SAY(t, v_time(board->acme.next_s), "next", COLUMN("NEXT", -20));
	SAY(t, v_note(&board->acme.why), "why", COLUMN("WHY", 0));
	row_end(t);
}

/* ---- warp as a whole ---- */

static void
tell_listeners(struct teller *t)
{
	int http = t->cf->server.n_listens;

	say_open(t, "listeners", '[');
	for (int i = 0; t->as == AS_JSON && i < http + t->cf->admin.n_listens; i++) {
		const struct addr *a = i < http ? &t->cf->server.listens[i]
		                                : &t->cf->admin.listens[i - http];
		row_begin(t, NULL);
		SAY(t, v_str(a->text), "address");
		SAY(t, v_str(a->scheme == SCHEME_HTTPS ? "https" : i < http ? "http" : "admin"),
		    "kind");
		row_end(t);
	}
	say_close(t, ']');
}

static int
workers_in(int state)
{
	int n = 0;

	for (size_t i = 0; i < LEN(board->workers); i++)
		n += board->workers[i].pid > 0 && board->workers[i].state == state;
	return n;
}

/* In JSON, members of the outermost object. */
static void
tell_warp(struct teller *t)
{
	const struct board_worker *all = NULL;

	if (t->as != AS_JSON)
		row_begin(t, NULL);
	say_part(t, "version", VERSION, v_int(1), FACT(NULL, "build_info",
	    "Always 1; the version is its label."));
	SAY(t, v_str(VERSION), "version", COLUMN("VERSION", -7));
	SAY(t, v_int(getppid()), "pid", COLUMN("PID", -10));
	if (t->as == AS_JSON)
		say_usage(t, (int)getppid());
	SAY(t, v_int(MAX(now_s - board->started_s, 0)), "uptime_secs",
	    COLUMN("UPTIME_SECS", -11));
	SAY(t, v_int(board->started_s), NULL, "start_time_seconds",
	    "When warp was started, Unix time.");
	/* of the newest configuration taken; the first is 1 */
	SAY(t, v_int(board->reloads + 1), "generation", COLUMN("GENERATION", -10));
	SAY(t, v_int(board->reloads), "reloads", "reloads_total",
	    "Configurations taken after the first.");
	for (int i = WORKER_STARTING; i <= WORKER_DRAINING; i++)
		say_part(t, "state", worker_states[i], v_int(workers_in(i)), FACT(NULL, "workers",
		    "Worker processes by state."));
	SAY(t, COUNTED(all, connections), NULL, COLUMN("CONNECTIONS", -11));
	SAY(t, COUNTED(all, requests), NULL, COLUMN("REQUESTS", 0));
	say_counted(t, all, gauges, LEN(gauges));
	say_requests(t, all);
	say_codes(t, all, offsetof(struct board_worker, codes), "aborted", FACT("codes"));
	if (t->as != AS_JSON)
		row_end(t);
}

/* ---- JSON, tables, metrics ---- */

static void (*const subjects[])(struct teller *) = {
	tell_warp, tell_workers, tell_listeners, tell_upstreams, tell_procs, tell_routes,
	tell_certs, tell_acme, tell_own,
};

static void
print_status(const struct conf *cf, FILE *to)
{
	struct teller t = { .as = AS_JSON, .cf = cf, .json = { to, STATUS_LINES, 0, false } };

	json_open(&t.json, '{');
	for (size_t i = 0; i < LEN(subjects); i++)
		subjects[i](&t);
	json_close(&t.json, '}');
	fputc('\n', to);
}

static void
print_tables(const struct conf *cf, FILE *to)
{
	for (size_t i = 0; i < LEN(subjects); i++) {
		struct teller t = { .as = AS_HEADS, .cf = cf, .json.to = to };
		subjects[i](&t);
		if (!t.columns)
			continue;
		fputs(i > 0 ? "\n" : "", to);
		for (const struct column *c = t.columns; c; c = c->next)
			fprintf(to, "%*s%c", c->width, c->name, c->next ? ' ' : '\n');
		t.as = AS_ROWS;
		subjects[i](&t);
	}
}

/* Prometheus text format 0.0.4: each metric with all its samples. */
static void
print_metrics(const struct conf *cf, FILE *to)
{
	struct teller t = { .as = AS_METRICS, .cf = cf };

	for (size_t i = 0; i < LEN(subjects); i++)
		subjects[i](&t);
	for (struct family *m = t.families; m; m = m->next) {
		if (fclose(m->to) == 0)
			fwrite(m->text, 1, m->n, to);
		free(m->text);
	}
}

/* ---- endpoints ---- */

static void
print_ok(const struct conf *cf, FILE *to)
{
	(void)cf;
	fputs("ok\n", to);
}

/* Says what is not there, and what may be meant. */
static const char *
no_such(FILE *to, const char *what, const struct near *near)
{
	fprintf(to, "no %s '%.*s'%s\n", what, (int)near->word.n, near->word.p,
	    near_text(&scrap, near));
	return NULL;
}

/* Is name the address of in, used or configured, in any form, or its index? */
static bool
instance_is(const struct instance *in, struct slice name)
{
	char b[ADDR_TEXT];
	struct addr addr;
	const char *why;

	return slice_eq(name, slice_of(instance_address(in, b))) ||
	    slice_eq(name, slice_of(in->addr.text)) ||
	    slice_uint(name, INSTANCES_MAX) == in - in->up->instances ||
	    (addr_parse(&scrap, name, &addr, &why) && strcmp(addr.text, in->addr.text) == 0);
}

/* UPSTREAM/INSTANCE becomes UPSTREAM/INDEX, for the master. */
static const char *
find_instance(const struct conf *cf, struct slice name, FILE *to)
{
	struct near near = { .word = name };
	const struct upstream *up;

	slice_cut(&name, '/', &near.word);
	if (!(up = upstream_find(cf, &near)))
		return no_such(to, "upstream", &near);
	near = (struct near){ .word = name.p ? name : S("") };
	for (int i = 0; i < up->n_instances; i++) {
		const struct instance *in = &up->instances[i];
		if (instance_is(in, near.word))
			return arena_fmt(&scrap, "%s/%d", up->name, i);
		near_offer(&near, slice_of(instance_address(in,
		    arena_alloc(&scrap, ADDR_TEXT))));
	}
	fprintf(to, "upstream %s: ", up->name);
	return no_such(to, "instance", &near);
}

/* A process, with all its replicas. */
static const char *
find_process(const struct conf *cf, struct slice name, FILE *to)
{
	struct near near = { .word = name };

	for (int i = 0; i < cf->n_processes; i++)
		if (near_offer(&near, slice_of(cf->processes[i]->name)))
			return cf->processes[i]->name;
	return no_such(to, "process", &near);
}

#define READ        .is_verb = false
#define VERB        .is_verb = true
#define OF_PROCESS  .is_verb = true, .takes = "/NAME", .find = find_process
#define OF_INSTANCE .is_verb = true, .takes = "/UPSTREAM/INSTANCE", .find = find_instance
static const struct admin_end admin_ends[] = {
	{ "/", "this list; to a browser: the dashboard", TEXT_TYPE, READ },
	{ "/status", "what is going on, as JSON; ?format=text: as tables", JSON_TYPE,
	  print_status, print_tables, READ },
	{ "/metrics", "the same for Prometheus", PROM_TYPE, print_metrics, READ },
	{ "/health", "ok", TEXT_TYPE, print_ok, READ },
	{ "/config", "the configuration in force, secrets masked", JSON_TYPE,
	  conf_print_json, READ },
	{ "/reload", "read the configuration again", VERB },
	{ "/quit", "answer what was asked, then stop", VERB },
	{ "/stop", "stop now; /NAME: only that process", OF_PROCESS, .alone = true },
	{ "/start", "/NAME: that process", OF_PROCESS },
	{ "/restart", "/NAME: that process, one replica after the other", OF_PROCESS },
	{ "/drain", "/UPSTREAM/INSTANCE: no new requests", OF_INSTANCE },
	{ "/enable", "/UPSTREAM/INSTANCE: requests again", OF_INSTANCE },
	{ "/upgrade", "run the binary that lies there now", VERB },
	{ "/purge", "/KEY or /PREFIX*: out of the cache", VERB, .takes = "/KEY", .later = true },
};
#undef READ
#undef VERB

static void
print_ends(FILE *to)
{
	for (size_t i = 0; i < LEN(admin_ends); i++)
		if (!admin_ends[i].later)
			fprintf(to, "%-4s %-9s %s\n", admin_ends[i].is_verb ? "POST" : "GET",
			    admin_ends[i].path, admin_ends[i].help);
}

/* The endpoint of path; NULL: none. *arg: the text behind it; p NULL: none. */
static const struct admin_end *
admin_end_find(struct slice path, struct slice *arg)
{
	*arg = (struct slice){ NULL, 0 };
	for (const struct admin_end *e = admin_ends; e < admin_ends + LEN(admin_ends); e++) {
		struct slice have = slice_of(e->path);
		if (slice_eq(path, have))
			return e;
		if (e->takes && slice_starts(path, have) && path.p[have.n] == '/') {
			*arg = slice_from(path, have.n + 1);
			return e;
		}
	}
	return NULL;
}

/* Decodes %XX in s, NUL behind it; false: malformed, or too long. */
static bool
arg_decode(struct slice s, char *out, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++, n++) {
		int c = s.p[i] == '%' ? percent_value(slice_from(s, i)) : (unsigned char)s.p[i];
		if (c < ' ' || n + 1 >= max)
			return false;
		i += s.p[i] == '%' ? 2 : 0;
		out[n] = (char)c;
	}
	out[n] = '\0';
	return true;
}

/* ---- the answer ---- */

/* Says why not. Returns the status. */
static int
admin_no(FILE *to, int status, const char *why)
{
	fprintf(to, "%s\n", why);
	if (status == 404 || status == 405)
		print_ends(to);
	return status;
}

/* 200: e may answer. Without the token a client learns nothing, not even what exists,
 * and gets only the dashboard. */
static int
admin_judge(const struct admin_request *rq, const struct admin_end *e,
    struct admin_reply *reply, FILE *to)
{
	bool reads = rq->method == M_GET || rq->method == M_HEAD;
	bool page = e == &admin_ends[0] && reads && rq->wants_html;
	bool known = rq->is_unix || page || slice_eq_secret(rq->token, rq->secret);

	if (!known && rq->secret.n == 0)
		return admin_no(to, 403,
		    "admin.token is not set: without it only the unix socket answers");
	if (!known) {
		reply->extra = NO_STORE "WWW-Authenticate: Bearer\r\n";
		return admin_no(to, 401,
		    "give the admin token, as X-Admin-Token or as a Bearer token");
	}
	if (!e)
		return admin_no(to, 404, "not found; there is");
	if (e->is_verb ? rq->method != M_POST : !reads) {
		reply->extra = e->is_verb ? NO_STORE "Allow: POST\r\n"
		                          : NO_STORE "Allow: GET, HEAD\r\n";
		return admin_no(to, 405, "wrong method; there is");
	}
	return e->later ? admin_no(to, 501, "not supported yet") : 200;
}

/* 200: reply->verb is for the master. */
static int
admin_verb(const struct admin_request *rq, const struct conf *cf, const struct admin_end *e,
    struct slice arg, struct admin_reply *reply, FILE *to)
{
	static char verb[VERB_MAX];
	char name[VERB_MAX / 2];
	const char *who = "";

	if (rq->cross_site)
		return admin_no(to, 403, "a page of another site had this sent: refused");
	if (arg.p || (e->takes && !e->alone)) {
		if (arg.n == 0) {
			fprintf(to, "%s needs a name: %s%s\n", e->path + 1, e->path, e->takes);
			return 400;
		}
		if (!arg_decode(arg, name, sizeof name))
			return admin_no(to, 400, "the name is malformed or too long");
		if (!(who = e->find(cf, slice_of(name), to)))
			return 404;
	}
	snprintf(verb, sizeof verb, *who ? "%s %s" : "%s%s", e->path + 1, who);
	reply->verb = verb;
	return 200;
}

static void
admin_print(const struct admin_request *rq, const struct conf *cf, const struct admin_end *e,
    struct admin_reply *reply, FILE *to)
{
	bool text = query_has(rq->query, S("format"), S("text"));

	if (e->print_text && text)
		e->print_text(cf, to);
	else if (e->print) {
		reply->content_type = e->type;
		e->print(cf, to);
	} else if (rq->wants_html && !text) {
		reply->content_type = HTML_TYPE;
		reply->extra = dashboard_head();
		dashboard_print(to);
	} else {
		fputs("warp " VERSION "\n\n", to);
		print_ends(to);
	}
}

/* Fills *reply; the caller frees its body. A verb has none: the master's result is
 * the answer. */
static void
admin_answer(const struct admin_request *rq, const struct conf *cf, struct admin_reply *reply)
{
	struct slice arg;
	const struct admin_end *e = admin_end_find(rq->path, &arg);
	FILE *to;

	*reply = (struct admin_reply){ .status = 503, .content_type = TEXT_TYPE,
		.extra = NO_STORE };
	if (!(to = open_memstream(&reply->body, &reply->n)))
		return;
	reply->status = admin_judge(rq, e, reply, to);
	if (reply->status == 200 && e->is_verb)
		reply->status = admin_verb(rq, cf, e, arg, reply, to);
	else if (reply->status == 200)
		admin_print(rq, cf, e, reply, to);
	arena_free(&scrap);
	if (fclose(to) != 0) /* out of memory */
		*reply = (struct admin_reply){ .status = 503, .content_type = TEXT_TYPE,
			.body = reply->body };
	if (reply->verb || reply->n == 0) {
		free(reply->body);
		reply->body = NULL;
	}
}

/* ==== heads ==================================================================
 * Owns    the text of the head being written, and the heads being read.
 * Offers  heads_open, conn_is_tls, client_of, request_write, answer_write,
 *         interim_write.
 * Calls   base, clock, http, path, addr, roster, loop. Makes the head for one
 *         side from the other's: RFC 9110 7.6, RFC 9112 3, RFC 7239. */

#define HTTP_PORT  80 /* not said in Host */
#define HTTPS_PORT 443

static const struct conf *conf;  /* this worker's */
static struct head req, res;     /* parsed last; see exchange_request */
static struct text head_out;     /* the head being written */
static struct text chain;        /* a list of proxies for that head */

static void
heads_open(const struct conf *cf)
{
	conf = cf;
	head_out.cap = cf->server.max_header_bytes + HEAD_ADDED_MAX;
	head_out.p = map_zeroed(head_out.cap);
	chain.cap = head_out.cap;
	chain.p = map_zeroed(chain.cap);
}

/* head_out, empty. */
static struct text *
head_begin(void)
{
	head_out.n = 0;
	head_out.full = false;
	return &head_out;
}

static bool
conn_is_tls(const struct conn *c)
{
	return c->s.ch.tls != NULL;
}

/* The URL scheme that c speaks. */
static struct slice
scheme_of(const struct conn *c)
{
	return conn_is_tls(c) ? S("https") : S("http");
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
		if (!f->start) {
			text_add(t, (struct slice){ start, (size_t)(end - start) });
			line_write(t, f->name, f->value);
			start = end = NULL;
			continue;
		}
		if (f->start != end) {
			if (start)
				text_add(t, (struct slice){ start, (size_t)(end - start) });
			start = f->start;
		}
		end = f->end;
	}
	text_add(t, (struct slice){ start, (size_t)(end - start) });
}

static void
head_drop_name(struct head *h, struct slice name)
{
	for (int i = 0; i < h->n; i++)
		if (slice_ieq(h->f[i].name, name))
			h->f[i].drop = true;
}

/* Drops the peer's fields that the route replaces or removes. */
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

/* ---- the client ---- */

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

/* Takes a token or a quoted string off the front; false: it is neither. */
static bool
forwarded_value(struct slice *rest, struct slice *value)
{
	size_t n = 0;

	if (rest->n == 0 || rest->p[0] != '"') { /* colons and brackets as many write them */
		while (n < rest->n && (memchr(":[]", rest->p[n], 3) ||
		    is_token((struct slice){ rest->p + n, 1 })))
			n++;
		*value = (struct slice){ rest->p, n };
		*rest = slice_from(*rest, n);
		return n > 0;
	}
	for (n = 1; n < rest->n && rest->p[n] != '"'; n++)
		if (rest->p[n] == '\\')
			n++;
	if (n >= rest->n)
		return false;
	*value = (struct slice){ rest->p + 1, n - 1 };
	*rest = slice_from(*rest, n + 1);
	return true;
}

/* Takes the next element off the list; false: it is malformed. */
static bool
forwarded_next(struct slice *rest, struct forwarded *f)
{
	struct slice name, value;
	const char *equals;

	*f = (struct forwarded){ .who = { NULL, 0 } };
	for (*rest = slice_trim(*rest); rest->n > 0; *rest = slice_trim(*rest)) {
		char c = rest->p[0];
		if (c == ';' || c == ',')
			*rest = slice_from(*rest, 1);
		if (c == ',')
			break;
		if (c == ';')
			continue;
		if (!(equals = memchr(rest->p, '=', rest->n)))
			return false;
		name = (struct slice){ rest->p, (size_t)(equals - rest->p) };
		*rest = slice_from(*rest, name.n + 1);
		if (!is_token(name) || !forwarded_value(rest, &value))
			return false;
		if (slice_ieq(name, S("for")))
			f->who = value;
		else if (slice_ieq(name, S("proto")))
			f->proto = value;
		else if (slice_ieq(name, S("host")))
			f->host = value;
		*rest = slice_trim(*rest);
		if (rest->n > 0 && rest->p[0] != ';' && rest->p[0] != ',')
			return false;
	}
	return (f->proto.n == 0 || is_token(f->proto)) && is_host(f->host);
}

/* Reads Forwarded from trusted proxies: *out is the last element whose address is
 * not trusted, *client that address, or, if it is hidden, that of the proxy which
 * saw it. False: there is no element that can be believed. */
static bool
forwarded_find(const struct head *h, struct forwarded *out, struct ip *client)
{
	bool any = false, hides = false, good;
	const struct ip peer = *client;
	struct forwarded f;
	struct ip ip;

	if (h->count[F_FORWARDED] == 0)
		return false;
	for (int i = 0; i < h->n; i++) {
		struct slice rest = h->f[i].value, before;
		while (h->f[i].id == F_FORWARDED && rest.n > 0) {
			before = rest;
			if (!forwarded_next(&rest, &f)) { /* believe only what follows */
				any = hides = false;
				*client = peer;
				if (!slice_cut(&before, ',', &rest) || !before.p)
					break;
				rest = before;
				continue;
			}
			good = forwarded_ip(f.who, &ip);
			if (!good || !any || !cidrs_have(&conf->server.trusted, &ip)) {
				*out = f;
				*client = good ? ip : peer;
				hides = !good;
			} else if (hides) {
				*client = ip;
				hides = false;
			}
			any = true;
		}
	}
	return any;
}

static bool
peer_is_trusted(const struct conn *c)
{
	return conf->server.trusted.n > 0 && cidrs_have(&conf->server.trusted, &c->peer);
}

/* The address to believe: the peer's, or, behind trusted proxies, the last
 * address that is not trusted. */
static struct ip
client_of(const struct ip *peer, const struct head *h)
{
	struct ip client = *peer, ip;
	struct forwarded said;

	if (!cidrs_have(&conf->server.trusted, peer))
		return client;
	if (h->count[F_X_FORWARDED_FOR] == 0) {
		forwarded_find(h, &said, &client);
		return client;
	}
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

static bool
forward_skips(const struct forward *fw, struct slice name)
{
	return fw->edited && is_named(name, &fw->x->route->add_headers,
	    &fw->x->route->remove_headers);
}

/* A line warp vouches for; a trusted proxy's value is kept. */
static void
forward_line(const struct forward *fw, struct slice name, enum field_id id, struct slice value)
{
	if (forward_skips(fw, name))
		return;
	if (fw->trusted && fw->h->count[id] == 1)
		value = head_field(fw->h, id)->value;
	if (value.n > 0)
		fw->put(fw->t, name, value);
}

/* The list of a trusted proxy, and our own part behind it. */
static void
forward_chain(const struct forward *fw, struct slice name, enum field_id id, struct slice own)
{
	if (forward_skips(fw, name) || (own.n == 0 && (!fw->trusted || !fw->h->count[id])))
		return;
	if (!fw->trusted || !fw->h->count[id]) {
		fw->put(fw->t, name, own);
		return;
	}
	chain.n = 0;
	chain.full = false;
	for (int i = 0; i < fw->h->n; i++) {
		if (fw->h->f[i].id != id || fw->h->f[i].value.n == 0)
			continue;
		text_add(&chain, chain.n == 0 ? S("") : S(", "));
		text_add(&chain, fw->h->f[i].value);
	}
	text_add(&chain, chain.n == 0 || own.n == 0 ? S("") : S(", "));
	text_add(&chain, own);
	fw->put(fw->t, name, text_slice(&chain));
	fw->t->full |= chain.full;
}

/* for=, host= and proto= of RFC 7239 4; v6 and odd hosts are quoted. */
static void
forwarded_write(struct text *t, const struct ip *peer, struct slice host, struct slice proto)
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
	text_add(t, S(";proto="));
	text_add(t, proto);
}

#define FORWARD_TEXT 512 /* one address and one host */

static void
forward_write(const struct forward *fw)
{
	const struct conn *c = fw->x->c;
	char b[FORWARD_TEXT], port[8];
	struct text t = { b, 0, sizeof b, false }, pt = { port, 0, sizeof port, false };
	struct slice client;
	bool same = ip_eq(&fw->x->client, &c->peer);

	if (conf->middleware.forward_headers) {
		ip_text(&t, &fw->x->client);
		client = text_slice(&t);
		text_add(&t, same ? S("") : S(", "));
		if (!same)
			ip_text(&t, &c->peer);
		forward_chain(fw, S("X-Forwarded-For"), F_X_FORWARDED_FOR, same || fw->said.who.p
		    ? text_slice(&t) : slice_from(text_slice(&t), client.n + 2));
		forward_line(fw, S("X-Forwarded-Proto"), F_X_FORWARDED_PROTO,
		    fw->said.proto.n > 0 ? fw->said.proto : scheme_of(c));
		forward_line(fw, S("X-Forwarded-Host"), F_X_FORWARDED_HOST,
		    fw->said.host.n > 0 ? fw->said.host : fw->x->host);
		if (c->listener->port > 0)
			text_uint(&pt, ip_is_none(&c->dest) ? c->listener->port : c->dest_port);
		forward_line(fw, S("X-Forwarded-Port"), F_X_FORWARDED_PORT, text_slice(&pt));
		if (client.n > 0 && !forward_skips(fw, S("X-Real-IP")))
			fw->put(fw->t, S("X-Real-IP"), client);
	}
	if (conf->middleware.forwarded) {
		t.n = 0;
		forwarded_write(&t, &c->peer, fw->x->host, scheme_of(c));
		forward_chain(fw, S("Forwarded"), F_FORWARDED, t.full ? S("") : text_slice(&t));
	}
}

/* Writes the subject of the client's certificate, if a field may hold it. */
static void
subject_write(const struct forward *fw)
{
	const struct tls *tls = fw->x->c->s.ch.tls;
	struct slice subject = slice_of(tls ? tls->subject : NULL);

	if (subject.n > 0 && is_field_value(subject) &&
	    !forward_skips(fw, S("X-Client-Cert-Subject")))
		fw->put(fw->t, S("X-Client-Cert-Subject"), subject);
}

#define TWIN_MAX 256 /* bytes of a name that may be a twin */

/* Drops twins such as `X_Real_IP`, which backends that read '_' as '-' would take
 * for fields that warp vouches for, sets or removes; and from an untrusted peer
 * all that only a proxy could know. */
static void
head_drop_twins(struct head *h, const struct route *r, bool trusted)
{
	static const struct slice proxies[] = { { "X-Forwarded-", 12 }, { "X-Client-Cert-", 14 } };
	char b[TWIN_MAX];

	for (int i = 0; i < h->n; i++) {
		struct field *f = &h->f[i];
		struct slice name = { b, MIN(f->name.n, sizeof b) };
		bool twin = f->id == F_OTHER && !f->plain && memchr(f->name.p, '_', name.n);

		if (!twin && (f->id != F_OTHER || trusted || lower(f->name.p[0]) != 'x'))
			continue;
		for (size_t k = 0; k < name.n; k++)
			b[k] = f->name.p[k] == '_' ? '-' : f->name.p[k];
		for (size_t k = 0; !trusted && k < LEN(proxies); k++)
			f->drop |= name.n > proxies[k].n &&
			    slice_ieq((struct slice){ b, proxies[k].n }, proxies[k]);
		if (twin && (field_id_of(name) != F_OTHER ||
		    is_named(name, &r->add_headers, &r->remove_headers)))
			f->drop = true;
	}
}

/* Fields that warp writes itself, or that only a trusted peer may send. */
static void
request_drop(struct head *h, const struct exchange *x, bool trusted)
{
	uint64_t set = FIELD(F_HOST) | FIELD(F_X_CLIENT_CERT_SUBJECT);

	if (!trusted || conf->middleware.forward_headers)
		set |= FIELD(F_X_FORWARDED_FOR) | FIELD(F_X_FORWARDED_HOST) |
		    FIELD(F_X_FORWARDED_PORT) | FIELD(F_X_FORWARDED_PROTO) | FIELD(F_X_REAL_IP);
	if (!trusted || conf->middleware.forwarded)
		set |= FIELD(F_FORWARDED);
	if (conf->server.request_id)
		set |= FIELD(F_X_REQUEST_ID);
	if (x->route->require_auth)
		set |= FIELD(F_X_ADMIN_TOKEN);
	if (!x->expect || x->spool)
		set |= FIELD(F_EXPECT);
	if (x->up.chunk_out || x->spool)
		set |= FIELD(F_CONTENT_LENGTH);
	if (!x->up.chunk_out)
		set |= FIELD(F_TRAILER);
	head_drop(h, set);
	head_drop_twins(h, x->route, trusted);
	head_edit(h, &x->route->add_headers, &x->route->remove_headers);
}

/* The path without the part that matched, or with it rewritten: the rest is the
 * client's own bytes. False: it is too long, or no longer a path. */
static bool
rewrite_apply(struct text *t, const struct route *r, const struct path_view *view)
{
	enum { GROUPS = 10 };
	struct slice path = view->path;
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
	text_add(t, path_raw(view, 0, from));
	for (size_t i = 0, n; r->has_rewrite && i < w.n; i += n) {
		unsigned g = i + 1 < w.n ? (unsigned)(unsigned char)w.p[i + 1] - '0' : GROUPS;
		bool group = w.p[i] == '$' && g < GROUPS && r->path_kind == PATH_REGEX;
		n = group ? 2 : w.p[i] == '%' ? MIN(w.n - i, (size_t)3) : 1;
		if (!group)
			path_encode(t, (struct slice){ w.p + i, n });
		else if (m[g].rm_so >= 0)
			text_add(t, path_raw(view, (size_t)m[g].rm_so, (size_t)m[g].rm_eo));
	}
	text_add(t, path_rest(view, to));
	return !t->full;
}

/* The request target as the upstream gets it: the client's own bytes, but for
 * what the route strips or rewrites. */
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
		    !rewrite_apply(&path, x->route, &view))
			return false;
		p = text_slice(&path);
		while (p.n > 1 && p.p[0] == '/' && p.p[1] == '/')
			p = slice_from(p, 1); /* would look like an authority */
		if (p.n == 0 || p.p[0] != '/')
			text_char(t, '/');
		text_add(t, p);
	}
	if (h->has_query) {
		text_char(t, '?');
		text_add(t, h->query);
	}
	return true;
}

/* The Host of the instance's own name; a unix socket has none. */
static struct slice
upstream_host(const struct instance *in)
{
	const struct addr *a = &in->addr;
	uint16_t usual = a->scheme == SCHEME_HTTPS ? HTTPS_PORT : HTTP_PORT;

	if (!a->host)
		return S("localhost");
	return slice_of(a->port == usual && !strchr(a->host, ':') ? a->host : a->text);
}

static void
host_write(const struct forward *fw)
{
	const struct exchange *x = fw->x;
	const struct upstream *up = x->inst->up;
	struct slice host = x->host;

	if (fw->edited && is_named(S("Host"), &x->route->add_headers, &(struct slices){ 0 }))
		return;
	if (up->host_header == HOST_TEXT)
		host = up->host_text;
	else if (up->host_header == HOST_UPSTREAM || !host.p)
		host = upstream_host(x->inst);
	fw->put(fw->t, S("Host"), host);
}

/* Writes fields about the client, about warp, and from the route. */
static void
added_write(const struct forward *fw)
{
	const struct pairs *add = &fw->x->route->add_headers;

	forward_write(fw);
	subject_write(fw);
	if (conf->middleware.via && !forward_skips(fw, S("Via")))
		fw->put(fw->t, S("Via"), fw->h->minor ? S("1.1 warp") : S("1.0 warp"));
	if (conf->server.request_id && !forward_skips(fw, S("X-Request-Id")))
		fw->put(fw->t, S("X-Request-Id"), slice_of(fw->x->id));
	for (int i = 0; i < add->n; i++)
		fw->put(fw->t, add->v[i].name, add->v[i].value);
}

/* How the body is framed and what becomes of the connection. */
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

/* Writes the head of x for x->inst. False: it does not fit, or its path is
 * malformed after rewriting. */
static bool
request_write(struct text *t, const struct exchange *x, struct head *h)
{
	const struct route *r = x->route;
	bool trusted = peer_is_trusted(x->c);
	struct forward fw = { .t = t, .put = line_write, .x = x, .h = h, .trusted = trusted,
		.edited = r->add_headers.n + r->remove_headers.n > 0 };
	struct ip client = x->c->peer;

	if (trusted && h->count[F_FORWARDED] > 0 && h->count[F_X_FORWARDED_FOR] == 0 &&
	    !forwarded_find(h, &fw.said, &client))
		fw.said = (struct forwarded){ .who = { NULL, 0 } };
	request_drop(h, x, trusted);
	text_add(t, h->method_text);
	text_char(t, ' ');
	if (!target_write(t, x, h))
		return false;
	text_add(t, S(" HTTP/1.1\r\n"));
	host_write(&fw);
	fields_write(t, h);
	added_write(&fw);
	request_framing(t, x, h);
	text_add(t, S("\r\n"));
	return !t->full;
}

/* ---- response ---- */

/* Says whether the connection stays open. RFC 9112 9.3. */
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

/* The cookie that leads back to this instance. RFC 6265 4.1. */
static void
cookie_write(struct text *t, const struct instance *in, bool secure)
{
	text_add(t, S("Set-Cookie: "));
	text_add(t, in->up->sticky_cookie);
	text_char(t, '=');
	text_hex(t, stuck_value(in), STUCK_LEN);
	text_add(t, S("; Path=/; HttpOnly; SameSite=Lax"));
	text_add(t, secure ? S("; Secure\r\n") : S("\r\n"));
}

#define HSTS_NAME S("Strict-Transport-Security")

static bool
hsts_is_due(const struct exchange *x)
{
	return conf->tls.hsts_secs > 0 && conn_is_tls(x->c);
}

/* A line that warp adds, unless the route replaces or removes it. */
static void
answer_line(struct text *t, const struct route *r, struct slice name, struct slice value)
{
	if (!is_named(name, &r->add_response_headers, &r->remove_response_headers))
		line_write(t, name, value);
}

/* Never without TLS: RFC 6797 7.2. */
static void
hsts_write(struct text *t, const struct route *r)
{
	char b[32];
	struct text v = { b, 0, sizeof b, false };

	text_add(&v, S("max-age="));
	text_uint(&v, conf->tls.hsts_secs);
	answer_line(t, r, HSTS_NAME, text_slice(&v));
}

/* The upstream wants another protocol, and says which. RFC 9110 15.5.22. */
static void
upgrade_write(struct text *t, const struct exchange *x, const struct head *h)
{
	text_add(t, x->keep ? S("Connection: upgrade\r\n") : S("Connection: close, upgrade\r\n"));
	for (int i = 0; i < h->n; i++)
		if (h->f[i].id == F_UPGRADE)
			line_write(t, S("Upgrade"), h->f[i].value);
}

/* Drops fields that do not reach the client. */
static void
answer_drop(struct head *h, const struct exchange *x, const struct route *r)
{
	uint64_t set = FIELD(F_X_SENDFILE) | FIELD(F_X_ACCEL_REDIRECT);

	if (!x->down.chunk_out)
		set |= FIELD(F_TRAILER);
	if (x->down.chunk_out || x->down.body.kind == BODY_CHUNKED || h->status == 204)
		set |= FIELD(F_CONTENT_LENGTH);
	head_drop(h, set);
	if (hsts_is_due(x))
		head_drop_name(h, HSTS_NAME);
	head_edit(h, &r->add_response_headers, &r->remove_response_headers);
}

/* Writes the head of an answer, x->u's or one that warp made, for the client.
 * False: it does not fit. */
static bool
answer_write(struct text *t, const struct exchange *x, struct head *h)
{
	static const struct route none; /* for an answer without a route */
	const struct route *r = x->route ? x->route : &none;

	answer_drop(h, x, r);
	status_write(t, h->status, h->reason);
	fields_write(t, h);
	if (h->count[F_DATE] == 0)
		answer_line(t, r, S("Date"), clock_date());
	if (conf->middleware.via && x->u)
		answer_line(t, r, S("Via"), h->minor ? S("1.1 warp") : S("1.0 warp"));
	if (hsts_is_due(x))
		hsts_write(t, r);
	for (int i = 0; i < r->add_response_headers.n; i++)
		line_write(t, r->add_response_headers.v[i].name, r->add_response_headers.v[i].value);
	if (x->sticks && x->u && !is_named(S("Set-Cookie"), &none.add_headers, &r->remove_response_headers))
		cookie_write(t, x->inst, conn_is_tls(x->c));
	if (x->down.chunk_out)
		text_add(t, S("Transfer-Encoding: chunked\r\n"));
	if (h->status == 101) {
		text_add(t, S("Connection: Upgrade\r\n"));
		if (h->count[F_UPGRADE] > 0)
			line_write(t, S("Upgrade"), head_field(h, F_UPGRADE)->value);
	} else if (h->status == 426 && h->count[F_UPGRADE] > 0)
		upgrade_write(t, x, h);
	else
		connection_write(t, x);
	text_add(t, S("\r\n"));
	return !t->full;
}

/* A 1xx on its way through. */
static bool
interim_write(struct text *t, struct head *h)
{
	head_drop(h, FIELD(F_CONTENT_LENGTH));
	status_write(t, h->status, h->reason);
	fields_write(t, h);
	text_add(t, S("\r\n"));
	return !t->full;
}

/* ==== answers ================================================================
 * Owns    the text of the error page being made.
 * Offers  answer_error, answer_head.
 * Calls   base, clock, http, heads. What warp says when no backend does. */

#define ERROR_CAUSE_MAX 2048
#define ERROR_TEXT_MAX  (6 * ERROR_CAUSE_MAX) /* a character may become &amp; */

/* Whether JSON is asked for, and not HTML as well. */
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
			text_json(t, slice_of(cause), false);
			text_char(t, '"');
		}
		text_str(t, "}\n");
		return;
	}
	text_fmt(t, "<!doctype html>\n<title>%d %s</title>\n<h1>%d %s</h1>\n", status,
	    status_text(status), status, status_text(status));
	if (*cause) {
		text_str(t, "<p>");
		text_html(t, slice_of(cause));
		text_str(t, "</p>\n");
	}
}

/* The error page, in the form the client asked for. The body lies in a static
 * buffer: good until the next call. */
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

/* The head of a made-up answer. Its slices are a's, or good until the next call. */
static void
answer_head(struct head *h, const struct answer *a)
{
	static char length[24];
	struct text t = { length, 0, sizeof length, false };
	struct slice rest = a->extra, line, name;

	head_clear(h);
	h->status = a->status;
	h->reason = slice_of(status_text(a->status));
	if (conf->server.server_tokens)
		head_add(h, S("Server"), S("warp/" VERSION));
	head_add(h, S("Date"), clock_date());
	if (a->content_type.n > 0)
		head_add(h, S("Content-Type"), a->content_type);
	text_uint(&t, a->body.n);
	if (a->status != 204 && a->status != 304)
		head_add(h, S("Content-Length"), text_slice(&t));
	while (slice_cut(&rest, '\n', &line) && line.n > 1) {
		line.n--; /* CR */
		slice_cut(&line, ':', &name);
		head_add(h, name, slice_trim(line));
	}
}

/* ==== maintenance ============================================================
 * Owns    what the upstreams' maintenance files said last, and the directories
 *         they are in.
 * Offers  maintenance_open, maintenance_answer.
 * Calls   base, arena, clock, log, usage, heads. While the file is there it is
 *         the answer. Requests look for it, at most every MAINTENANCE_MS. */

static struct notice *notices; /* by upstream.index */

/* Before chroot and before rights are dropped. */
static void
maintenance_open(const struct conf *cf)
{
	char dir[PATH_MAX];
	const char *path;

	notices = xcalloc((size_t)cf->n_upstreams + 1, sizeof *notices);
	for (int i = 0; i < cf->n_upstreams; i++) {
		notices[i].dir = -1;
		if (!(path = cf->upstreams[i].maintenance))
			continue;
		snprintf(dir, sizeof dir, "%.*s/", (int)(strrchr(path, '/') - path), path);
		notices[i].dir = outside_open(dir, cf->server.chroot != NULL);
		if (notices[i].dir < 0 && errno == ENOSYS)
			log_warn("maintenance %s: not seen from server.chroot, this kernel is too old",
			    path);
	}
}

/* Whether the file exists: *st is its status, *fd is -1 if it cannot be read.
 * False: errno says why. */
static bool
notice_at(int dir, const char *path, int *fd, struct stat *st)
{
	if ((*fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)) >= 0)
		return fstat(*fd, st) == 0;
	return fstatat(dir, path, st, 0) == 0;
}

/* Without chroot the path is looked up anew where rights allow: a directory on
 * the way may have been replaced. */
static bool
notice_find(const struct notice *no, const char *path, int *fd, struct stat *st)
{
	bool jailed = no->dir >= 0 && conf->server.chroot;

	if (!jailed && notice_at(AT_FDCWD, path, fd, st))
		return true;
	if (no->dir < 0 || (!jailed && errno != EACCES))
		return false;
	return notice_at(no->dir, strrchr(path, '/') + 1, fd, st);
}

static bool
stat_is_same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	    a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
	    a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* Reads as much of the file as is shown; empty if it cannot be read. */
static void
notice_read(struct notice *no, const char *path, int fd, const struct stat *st)
{
	ssize_t got = -1;

	if (no->body && stat_is_same(st, &no->st))
		return;
	free(no->body);
	no->body = xcalloc(1, MAINTENANCE_BYTES);
	no->st = *st;
	if (fd >= 0 && S_ISREG(st->st_mode))
		got = read(fd, no->body, MAINTENANCE_BYTES);
	no->n = got > 0 ? (size_t)got : 0;
	if (got < 0)
		log_warn("maintenance %s: not a file that can be read, only its status is shown",
		    path);
	else if (st->st_size > MAINTENANCE_BYTES)
		log_warn("maintenance %s: more than %d bytes, the rest is not shown", path,
		    MAINTENANCE_BYTES);
}

/* Looks for the file, if the last look is old enough. */
static void
notice_look(struct notice *no, const char *path)
{
	struct stat st;
	int fd = -1, why;

	if (no->looked_ms != 0 && now_ms - no->looked_ms < MAINTENANCE_MS)
		return;
	no->looked_ms = now_ms;
	no->out = notice_find(no, path, &fd, &st);
	why = no->out || errno == ENOENT || errno == ENOTDIR ? 0 : errno;
	if (why != 0 && why != no->why)
		log_errno("maintenance %s: cannot be looked for", path);
	no->why = why;
	if (no->out)
		notice_read(no, path, fd, &st);
	if (fd >= 0)
		close(fd);
}

/* By the file name's end. */
static struct slice
notice_type(const char *path)
{
	const struct pair types[] = {
		{ S(".html"), S("text/html; charset=utf-8") },
		{ S(".json"), S("application/json") },
	};
	struct slice s = slice_of(path);

	for (size_t i = 0; i < LEN(types); i++)
		if (s.n > types[i].name.n && slice_eq(slice_from(s, s.n - types[i].name.n), types[i].name))
			return types[i].value;
	return S("text/plain; charset=utf-8");
}

/* Whether up is under maintenance: then *a is the answer. Its body is a copy: the
 * file may change while a slow client reads. */
static bool
maintenance_answer(const struct upstream *up, struct answer *a)
{
	struct notice *no = &notices[up->index];
	char *copy;

	if (!up->maintenance)
		return false;
	notice_look(no, up->maintenance);
	if (!no->out)
		return false;
	copy = xcalloc(1, no->n + 1);
	if (no->n > 0)
		memcpy(copy, no->body, no->n);
	*a = (struct answer){ .status = 503, .content_type = notice_type(up->maintenance),
		.body = { copy, no->n }, .owned = copy,
		.extra = S("Retry-After: " MAINTENANCE_RETRY "\r\n") };
	return true;
}

/* ==== files ==================================================================
 * Owns    the directories that are served, and what was found at paths below
 *         them: open files, the bytes of small ones, or why there is none.
 * Offers  files_open, file_find, file_give, file_list.
 * Calls   base, arena, clock, log, usage, heads. No path leads out of its directory:
 *         links inside are followed, others refused. A path is looked at anew
 *         after FILES_LOOK_MS. A disk that blocks is all a worker waits for. */

static struct root *roots;            /* by route; behind them x_sendfile_root's */
static struct file *file_slots[FILES_SLOTS];
static struct link files_used = { &files_used, &files_used }; /* newest first */
static unsigned n_files;

#define FILE_FLAGS (O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

/* Before chroot and before rights are dropped. */
static void
files_open(const struct conf *cf)
{
	roots = xcalloc((size_t)cf->table.n + 1, sizeof *roots);
	for (int i = 0; i <= cf->table.n; i++) {
		struct root *r = &roots[i];
		r->conf = i < cf->table.n ? &cf->table.routes[i].files : &cf->middleware.sendfile;
		r->fd = r->conf->dir ? outside_open(r->conf->dir, cf->server.chroot != NULL) : -1;
		if (r->conf->dir && r->fd < 0)
			log_errno("files of %s", r->conf->dir);
	}
}

/* The directory, opened anew where that can be: deployments replace it. */
static int
root_fd(struct root *r)
{
	int fd;

	errno = ENOENT; /* if it was not there */
	if (conf->server.chroot || (r->looked_ms != 0 && now_ms - r->looked_ms < FILES_LOOK_MS))
		return r->fd;
	r->looked_ms = now_ms;
	fd = open(r->conf->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == EACCES)
		return r->fd; /* as it was opened before rights were dropped */
	fd_close(r->fd);
	r->fd = fd;
	return fd;
}

/* ---- below a directory ---- */

/* Follows a link: what is left of the path begins with its text. An absolute link must
 * lead below the root's own name. Sets errno if it leads nowhere. */
static void
beneath_follow(struct beneath *b, const char *link, const char *rest)
{
	char left[PATH_MAX];
	size_t n = strlen(b->root);

	if (++b->links > BENEATH_LINKS)
		errno = ELOOP;
	else if (*link == '/' && (strncmp(link, b->root, n) != 0 || (link[n] && link[n] != '/')))
		errno = EXDEV;
	else if ((size_t)snprintf(left, sizeof left, "%s/%s", *link == '/' ? link + n : link,
	    rest) >= sizeof left)
		errno = ENAMETOOLONG;
	else
		strcpy(b->path, left);
	while (*link == '/' && b->n > 0)
		close(b->dirs[--b->n]); /* a descriptor of warp's own: errno stays */
}

/* Goes one step. Returns a descriptor at the path's end, -1: not there yet, errno 0, or
 * it leads nowhere. */
static int
beneath_step(struct beneath *b)
{
	char name[NAME_MAX + 1], link[PATH_MAX];
	const char *at = b->path + strspn(b->path, "/");
	size_t n = strcspn(at, "/");
	const char *rest = at + n + strspn(at + n, "/");
	int dir = b->n > 0 ? b->dirs[b->n - 1] : b->dir, fd;
	ssize_t got;

	errno = n > NAME_MAX ? ENAMETOOLONG : b->n == BENEATH_DEPTH ? ELOOP : 0;
	if (errno)
		return -1;
	snprintf(name, sizeof name, "%.*s", n ? (int)n : 1, n ? at : ".");
	if (strcmp(name, "..") == 0) {
		errno = b->n == 0 ? EXDEV : 0;
		if (b->n > 0)
			close(b->dirs[--b->n]);
	} else if ((got = readlinkat(dir, name, link, sizeof link - 1)) > 0) {
		link[got] = '\0';
		errno = 0;
		beneath_follow(b, link, rest);
		return -1;
	} else {
		if (errno != EINVAL) /* that is: no link */
			return -1;
		fd = openat(dir, name, O_NOFOLLOW | (*rest ? O_PATH | O_DIRECTORY | O_CLOEXEC
		    : FILE_FLAGS));
		if (fd < 0 || !*rest)
			return fd;
		b->dirs[b->n++] = fd;
		errno = 0;
	}
	memmove(b->path, rest, strlen(rest) + 1);
	return -1;
}

/* As openat2 with RESOLVE_BENEATH, for kernels without it, and for absolute links. */
static int
beneath_walk(int dir, const char *root, const char *path)
{
	struct beneath b = { .dir = dir, .root = root };
	int fd = -1, err;

	snprintf(b.path, sizeof b.path, "%s", path);
	for (int i = 0; i < PATH_MAX && fd < 0; i++)
		if ((fd = beneath_step(&b)) < 0 && errno != 0)
			break;
	err = errno;
	while (b.n > 0)
		close(b.dirs[--b.n]);
	errno = err;
	return fd;
}

#ifdef SYS_openat2
#ifndef RESOLVE_BENEATH /* linux/openat2.h, which not every libc brings */
#define RESOLVE_NO_MAGICLINKS 2
#define RESOLVE_BENEATH       8
#endif
#endif

/* Opens path (relative, not empty) for reading, never outside of r, without waiting
 * for a FIFO. -1: errno; EXDEV: it leads out. */
static int
beneath_open(struct root *r, const char *path)
{
	int dir = root_fd(r);
#ifdef SYS_openat2 /* Linux 5.6 */
	const struct { uint64_t flags, mode, resolve; } how = {
		FILE_FLAGS, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };

	int fd = dir < 0 ? -1 : (int)syscall(SYS_openat2, dir, path, &how, sizeof how);

	if (fd >= 0 || (errno != ENOSYS && errno != EPERM && errno != EAGAIN && errno != EXDEV))
		return fd;
#endif
	return dir < 0 ? -1 : beneath_walk(dir, r->conf->dir, path);
}

/* ---- what is at a path ---- */

/* The type of a file, by the end of its name. */
static struct slice
file_type(struct slice path)
{
	struct slice rest = S(MIME_TYPES), row, type, word;
	const char *dot = memrchr(path.p, '.', path.n);
	struct slice end = dot && !memchr(dot, '/', path.n - (size_t)(dot - path.p))
	    ? slice_from(path, (size_t)(dot + 1 - path.p)) : S("");

	for (int i = 0; i < conf->types.n; i++)
		if (slice_ieq(conf->types.v[i].name, end))
			return conf->types.v[i].value;
	while (end.n > 0 && slice_cut(&rest, '|', &row)) {
		slice_cut(&row, ';', &type);
		while (slice_cut(&row, ' ', &word))
			if (slice_ieq(word, end))
				return type;
	}
	return S("application/octet-stream");
}

/* Reads all of a small file. False: it changes meanwhile. */
static bool
file_load(struct file *f, int fd)
{
	ssize_t got = -1;

	f->bytes = xcalloc(1, (size_t)f->st.st_size + 1);
	do
		got = pread(fd, f->bytes, (size_t)f->st.st_size + 1, 0);
	while (got < 0 && errno == EINTR);
	return got == f->st.st_size;
}

static void
file_close(struct file *f)
{
	fd_close(f->fd);
	free(f->bytes);
	f->fd = -1;
	f->bytes = NULL;
}

/* Whether there is a neighbour whose name ends so; file_find then looks closely. */
static bool
file_beside(const struct root *r, const struct file *f, const char *end)
{
	char name[PATH_MAX];
	struct stat st;

	return (size_t)snprintf(name, sizeof name, "%s%s", f->path, end) < sizeof name &&
	    fstatat(r->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Text is UTF-8, unless [mime] says otherwise. */
static struct slice
type_full(struct slice type, char *b, size_t n)
{
	if (!slice_starts(type, S("text/")) || memchr(type.p, ';', type.n))
		return type;
	snprintf(b, n, "%.*s; charset=utf-8", (int)type.n, type.p);
	return slice_of(b);
}

/* Fills f, fresh, with what is at its path: fd, which f owns from then on. */
static void
file_fill(struct file *f, struct root *r, int fd)
{
	struct text t = { f->etag, 0, sizeof f->etag, false };

	f->fd = fd;
	f->err = fd < 0 || fstat(fd, &f->st) < 0 ? errno : S_ISDIR(f->st.st_mode) ? EISDIR
	    : !S_ISREG(f->st.st_mode) ? EACCES : 0;
	if (f->err == 0 && f->st.st_size <= FILE_SMALL && !file_load(f, fd))
		f->err = errno ? errno : EAGAIN;
	if (f->err || f->bytes) {
		fd_close(f->fd);
		f->fd = -1;
	}
	if (f->err)
		return;
	text_char(&t, '"');
	text_hex(&t, f->bytes ? hash64(0, f->bytes, (size_t)f->st.st_size)
	    : (uint64_t)f->st.st_mtim.tv_sec << 30 ^ (uint64_t)f->st.st_mtim.tv_nsec, 16);
	text_char(&t, '-');
	text_hex(&t, (uint64_t)f->st.st_size, 1);
	text_char(&t, '"');
	f->etag_n = (uint8_t)t.n;
	date_write(f->modified, MIN(f->st.st_mtim.tv_sec, now_s));
	f->type = type_full(file_type(slice_of(f->path)), f->type_text, sizeof f->type_text);
	f->br = file_beside(r, f, ".br");
	f->gz = file_beside(r, f, ".gz");
}

/* The name of a file by a normalised path: without its slash, decoded to the end. */
static bool
file_name(struct text *t, struct slice path)
{
	for (size_t i = 1; i < path.n; i++) {
		text_char(t, path.p[i]);
		if (path.p[i] != '%')
			continue;
		if (path.p[i + 2] != '5') /* %2F: no name has a slash */
			return false;
		i += 2;
	}
	return !t->full;
}

/* Whether a name on the way begins with a dot. */
static bool
file_is_hidden(struct slice path)
{
	struct slice name;

	while (slice_cut(&path, '/', &name))
		if (slice_starts(name, S(".")) && !slice_eq(name, S(".well-known")))
			return true;
	return false;
}

/* ---- the table ---- */

static struct file **
file_slot(unsigned root, struct slice path)
{
	struct file **at = &file_slots[hash64(root, path.p, path.n) % FILES_SLOTS];

	while (*at && !((*at)->root == root && slice_eq(slice_of((*at)->path), path)))
		at = &(*at)->next;
	return at;
}

/* Lets go of f, which file_find gave. */
static void
file_give(struct file *f)
{
	if (--f->uses > 0)
		return;
	file_close(f);
	free(f);
}

/* Out of the table; who sends it goes on. */
static void
file_forget(struct file *f)
{
	struct file **at = file_slot(f->root, slice_of(f->path));

	*at = f->next;
	link_drop(&f->used);
	n_files--;
	file_give(f);
}

/* Whether f is still what fd is (-1: nothing, because of err). */
static bool
file_is_same(const struct file *f, int fd, int err)
{
	struct stat st;

	if (fd < 0)
		return f->err == err;
	return f->err == 0 && fstat(fd, &st) == 0 && stat_is_same(&st, &f->st);
}

static struct file *
file_new(unsigned root, struct slice path, int fd, int err)
{
	struct file *f = xcalloc(1, sizeof *f + path.n + 1), **at;

	if (n_files == FILES_KEPT)
		file_forget(OWNER(files_used.prev, struct file, used));
	f->root = root;
	memcpy(f->path, path.p, path.n);
	errno = err;
	file_fill(f, &roots[root], fd);
	at = file_slot(root, path);
	*at = f;
	link_add(&files_used, &f->used);
	f->uses = 1; /* the table's */
	n_files++;
	return f;
}

/* What is at path (relative, decoded) below that root: see f->err. The caller gives it
 * back with file_give. */
static struct file *
file_find(unsigned root, struct slice path)
{
	char name[PATH_MAX];
	struct file *f = *file_slot(root, path);
	int fd, err;

	if (!f || now_ms - f->looked_ms >= FILES_LOOK_MS) {
		snprintf(name, sizeof name, "%.*s", (int)path.n, path.n > 0 ? path.p : ".");
		fd = path.n < sizeof name ? beneath_open(&roots[root], path.n ? name : ".") : -1;
		err = path.n < sizeof name ? errno : ENAMETOOLONG;
		if (f && !file_is_same(f, fd, err)) {
			file_forget(f);
			f = NULL;
		} else if (f)
			fd_close(fd);
		if (!f)
			f = file_new(root, path, fd, err);
		f->looked_ms = now_ms;
	}
	link_drop(&f->used);
	link_add(&files_used, &f->used);
	f->uses++;
	return f;
}

/* ---- listings ---- */

/* Directories first, then by name. */
static int
entry_order(const void *a, const void *b)
{
	const struct entry *const *p = a, *const *q = b;

	return (*p)->dir != (*q)->dir ? (*q)->dir - (*p)->dir : strcmp((*p)->name, (*q)->name);
}

/* What d has that is served, at most LISTING_MAX: how many. */
static size_t
entries_read(struct arena *a, DIR *d, bool dot_files, struct entry **list)
{
	const struct dirent *e;
	struct stat st;
	size_t n = 0;

	while (n < LISTING_MAX && (e = readdir(d))) {
		if ((e->d_name[0] == '.' && (!dot_files || is_dots(slice_of(e->d_name)))) ||
		    fstatat(dirfd(d), e->d_name, &st, 0) < 0 ||
		    (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode)))
			continue;
		list[n] = arena_alloc(a, sizeof **list);
		*list[n++] = (struct entry){ arena_dup(a, slice_of(e->d_name)).p, S_ISDIR(st.st_mode),
			(uint64_t)st.st_size, st.st_mtim.tv_sec };
	}
	qsort(list, n, sizeof *list, entry_order);
	return n;
}

/* A file name in a link: a colon would make it a URL, a percent sign an escape. */
static void
href_write(struct text *t, const char *name)
{
	for (; *name; name++)
		if (*name == '%' || *name == ':')
			text_byte(t, "%", *name);
		else
			path_encode(t, (struct slice){ name, 1 });
}

static void
entry_write(struct text *t, const struct entry *e)
{
	char when[32];
	struct tm tm;

	gmtime_r(&e->mtime, &tm);
	strftime(when, sizeof when, "%Y-%m-%d %H:%M", &tm);
	text_str(t, "<tr><td><a href=\"");
	href_write(t, e->name);
	text_str(t, e->dir ? "/\">" : "\">");
	text_html(t, slice_of(e->name));
	text_str(t, e->dir ? "/</a><td>" : "</a><td>");
	text_str(t, when);
	if (e->dir)
		text_str(t, "<td>-\n");
	else
		text_fmt(t, "<td>%llu\n", (unsigned long long)e->size);
}

/* The page of the directory at path, which clients see as `shown`; *page is the
 * caller's to free. False: errno. */
static bool
file_list(unsigned root, struct slice path, struct slice shown, struct slice *page)
{
	enum { ENTRY_TEXT = 160, NAME_TEXT = 9 }; /* a byte may become %XX and &quot; */
	struct entry **list;
	struct arena a = { NULL };
	struct text t = { NULL, 0, 0, false };
	size_t n, bytes;
	int fd = beneath_open(&roots[root], path.n > 0 ? arena_dup(&a, path).p : ".");
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d) {
		fd_close(fd);
		arena_free(&a);
		return false;
	}
	list = arena_alloc(&a, LISTING_MAX * sizeof(struct entry *));
	n = entries_read(&a, d, roots[root].conf->dot_files, list);
	closedir(d);
	bytes = 4 * ENTRY_TEXT + 2 * NAME_TEXT * shown.n;
	for (size_t i = 0; i < n; i++)
		bytes += ENTRY_TEXT + NAME_TEXT * strlen(list[i]->name);
	t = (struct text){ xcalloc(1, bytes), 0, bytes, false };
	text_str(&t, "<!doctype html>\n<meta charset=utf-8>\n<title>");
	text_html(&t, shown);
	text_str(&t, "</title>\n<style>td{padding-right:2em}</style>\n<h1>");
	text_html(&t, shown);
	text_str(&t, "</h1>\n<table>\n");
	text_str(&t, path.n > 0 ? "<tr><td><a href=\"../\">../</a>\n" : "");
	for (size_t i = 0; i < n; i++)
		entry_write(&t, list[i]);
	if (n == LISTING_MAX)
		text_fmt(&t, "<tr><td>only the first %d names are shown\n", LISTING_MAX);
	text_str(&t, "</table>\n");
	arena_free(&a);
	*page = text_slice(&t);
	return true;
}

/* ==== pipe ===================================================================
 * Owns    kernel pipes for splicing: big bodies go from socket to socket
 *         without passing through us, at 0.6 of the CPU that copying takes.
 * Offers  pipe_take, pipe_give, pipe_fill, pipe_drain.
 * Calls   libc. */

static struct pipe pipes[SPLICE_PIPES], *pipes_free;
static unsigned n_pipes;

/* An empty pipe; NULL: all are in use, or there are no descriptors. */
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

/* Takes p back; bytes that are left in it are thrown away. */
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

/* Reads at most max bytes. Returns as side_fill. */
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
	from->src.end = got < 0 ? SOURCE_CUT : SOURCE_ENDED;
	return -1;
}

/* Writes what the socket takes. False: the peer is gone. */
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
 * Owns    nothing: a flow is its exchange's, as are its source and its taker.
 * Offers  flow_begin, flow_end, flow_owes, flow_unframe, flow_relay, flow_tunnel.
 * Calls   http, buf, chan, pipe. One direction of an exchange: a body is read from
 *         a source, unframed, framed as the taker needs it, and sent. What
 *         the taker does not take stops the reading: nothing piles up. */

enum { TAIL_PIECES = 3, FLOW_PIECES = 2 + TAIL_PIECES };

static unsigned n_zips; /* streams being compressed; at most GZIP_STREAMS */

/* Compresses what passes through f from now on. False: too many are. */
static bool
flow_zip(struct flow *f, int level)
{
	if (n_zips == GZIP_STREAMS || !(f->zip = malloc(sizeof *f->zip)))
		return false;
	n_zips++;
	gzip_begin(f->zip, level);
	return true;
}

/* Compresses a piece into a block of its own; nothing makes nothing. */
static struct slice
flow_squeeze(struct flow *f, struct slice piece, struct buf *to)
{
	if (piece.n == 0 && !f->body.done)
		return piece;
	*to = (struct buf){ block_take(BLOCK_LARGE), HEADROOM, 0 };
	to->n = (uint32_t)gzip_add(f->zip, piece, f->body.done, buf_p(to));
	f->squeezed += to->n;
	return buf_slice(to);
}

/* Gives back the pipe, the block and the stream that f holds. */
static void
flow_end(struct flow *f)
{
	pipe_give(f->pipe);
	block_give(f->trailers);
	n_zips -= f->zip != NULL;
	free(f->zip);
	f->zip = NULL;
	f->pipe = NULL;
	f->trailers = NULL;
	f->trailers_n = 0;
}

/* Prepares f for that body from that source; still off. */
static void
flow_begin(struct flow *f, struct source *from, enum body_kind kind, uint64_t length)
{
	flow_end(f);
	*f = (struct flow){ .from = from };
	body_set(&f->body, kind, length);
}

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

/* Puts the chunk's size line before and CRLF behind the *n bytes at p: headroom is
 * there, and used-up bytes or tailroom. */
static char *
chunk_frame(char *p, size_t *n)
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

/* Takes the next content out of its framing: *piece lies in f->from->in. Returns
 * how many bytes of that are then used up; -1: the body is malformed or too big. */
static ssize_t
flow_unframe(struct flow *f, struct slice *piece)
{
	const struct source *from = f->from;
	size_t n = MIN(from->in.n, (uint32_t)RELAY_BYTES), content = 0;
	char *p = n > 0 ? buf_p(&from->in) : NULL;
	ssize_t used = 0;

	if (n > 0 && !f->body.done && f->body.kind == BODY_CHUNKED)
		used = flow_decode(f, p, n, &content);
	else if (n > 0 && !f->body.done)
		used = (ssize_t)(content = body_take(&f->body, n));
	if (used < 0 || flow_is_too_big(f))
		return -1;
	if (f->body.kind == BODY_CLOSE && from->end == SOURCE_ENDED && (size_t)used == from->in.n)
		f->body.done = true;
	*piece = (struct slice){ p, content };
	return used;
}

/* Fills v with the piece as the taker needs it, and the end behind the last piece.
 * The source left room for a chunk's frame. Returns how many of v are set. */
static int
flow_frame(const struct flow *f, struct slice piece, struct iovec *v)
{
	char *p = (char *)(uintptr_t)piece.p;
	int k = 0;

	if (piece.n > 0 && f->chunk_out)
		p = chunk_frame(p, &piece.n);
	if (piece.n > 0)
		v[k++] = (struct iovec){ p, piece.n };
	if (f->body.done && f->chunk_out)
		k += flow_tail(f, v + k);
	return k;
}

/* Whether POLLOUT of the taker is waited for: bytes are on their way to it, or the
 * source pulls. */
static bool
flow_owes(const struct flow *f, const struct chan *to)
{
	return to->waits || f->pipe || (f->state == FLOW_ON && f->from->pulls);
}

/* Nothing is buffered, and enough is still to come unframed. */
static bool
flow_may_splice(const struct flow *f, const struct chan *to)
{
	return f->body.kind == BODY_LENGTH && f->body.left >= SPLICE_MIN && !f->chunk_out &&
	    !f->zip && !f->from->pulls && f->from->in.n == 0 && !side_of(f->from)->ch.tls && !to->tls;
}

/* Whether the kernel can pass the next piece from the source to the taker. */
static bool
flow_may_pass(const struct flow *f, const struct chan *to)
{
	return f->from->pass && !f->chunk_out && !f->zip && !to->tls && f->from->in.n == 0 &&
	    f->body.left >= SENDFILE_MIN;
}

/* Passes one piece. */
static enum relay
flow_pass(struct flow *f, struct chan *to)
{
	ssize_t put = f->from->pass(f->from, to);

	if (put < 0)
		return to->broken ? RELAY_REFUSED : RELAY_SHORT;
	body_take(&f->body, (size_t)put);
	return f->body.done ? RELAY_DONE : RELAY_WAIT;
}

/* Fills an empty pipe with at most one read; drains it. */
static enum relay
flow_splice(struct flow *f, struct chan *to, bool *ready)
{
	struct pipe *p = f->pipe;
	ssize_t got = 0;

	if (p->n == 0 && *ready) {
		*ready = false;
		got = pipe_fill(p, side_of(f->from), (size_t)MIN(f->body.left, (uint64_t)SPLICE_BYTES));
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

/* Sends head, if given, then what there is of the body. Reads once: when *ready,
 * or if the source pulls. */
static enum relay
flow_relay(struct flow *f, struct chan *to, const struct text *head, bool *ready)
{
	struct source *from = f->from;
	bool pulls = from->pulls, *ask = pulls ? &pulls : ready, first, sent;
	struct buf squeezed = { NULL, 0, 0 };
	struct iovec v[1 + FLOW_PIECES];
	struct slice piece;
	ssize_t used;
	int n, k;

	if (!f->pipe && !head && *ready && !to->waits && flow_may_splice(f, to))
		f->pipe = pipe_take();
	if (f->pipe)
		return flow_splice(f, to, ready);
	if (!to->waits && flow_may_pass(f, to)) {
		to->more = true;
		sent = !head || chan_send(to, &(struct iovec){ head->p, head->n }, 1, NULL) == 0;
		to->more = false;
		return !sent ? RELAY_REFUSED : to->waits ? RELAY_WAIT : flow_pass(f, to);
	}
	while (!to->waits) {
		n = 0;
		if (from->in.n == 0 && !f->body.done && *ask) {
			*ask = false;
			from->fill(from);
		}
		if (head)
			v[n++] = (struct iovec){ head->p, head->n };
		first = head != NULL;
		head = NULL;
		if ((used = flow_unframe(f, &piece)) < 0)
			return flow_is_too_big(f) ? RELAY_TOO_BIG : first ? RELAY_BAD_FIRST : RELAY_BAD;
		if (f->zip)
			piece = flow_squeeze(f, piece, &squeezed);
		k = flow_frame(f, piece, v + n);
		n += k;
		sent = n == 0 || chan_send(to, v, n, k != 1 ? NULL : f->zip ? &squeezed
		    : (size_t)used == from->in.n ? &from->in : NULL) == 0;
		if (squeezed.b)
			buf_free(&squeezed);
		if (from->in.b) /* sent or not: the body has counted it */
			buf_eat(&from->in, (size_t)used);
		if (!sent)
			return RELAY_REFUSED;
		if (f->body.done)
			return RELAY_DONE;
		if (from->in.n == 0)
			return from->end ? RELAY_SHORT : RELAY_WAIT;
	}
	return RELAY_WAIT;
}

/* Raw bytes; shuts the taker down when the source has ended and all is sent.
 * RELAY_BAD: it ended with a reset. */
static enum relay
flow_tunnel(struct flow *f, struct chan *to, bool *ready)
{
	enum relay r = flow_relay(f, to, NULL, ready);

	if (r == RELAY_WAIT || r == RELAY_REFUSED)
		return r;
	f->body.done = true;
	if (to->waits)
		return RELAY_WAIT;
	if (f->from->end == SOURCE_CUT)
		return RELAY_BAD;
	chan_shutdown(to); /* fails only if the taker is gone */
	return RELAY_DONE;
}

/* ==== spool ==================================================================
 * Owns    request bodies that are kept until they are whole.
 * Offers  spool_new, spool_add, spool_rewind, spool_of, spool_drop.
 * Calls   base, arena, log, buf, usage. Memory first, then an unlinked file. A
 *         made-up answer's body is read in the same way. */

#define SPOOL_START 4096 /* first memory of a body; doubled as it grows */

/* Reads a piece from what is here; see struct source. */
static ssize_t
spool_fill(struct source *src)
{
	struct spool *sp = (struct spool *)src;
	ssize_t got = 0;
	char *to;

	if (src->in.n > 0 || !buf_room(&src->in))
		return 0;
	to = buf_p(&src->in);
	if (sp->sent == sp->size && sp->next)
		sp->next(sp);
	if (sp->sent < sp->mem_n) {
		got = (ssize_t)MIN((size_t)RELAY_BYTES, sp->mem_n - (size_t)sp->sent);
		memcpy(to, sp->mem + sp->sent, (size_t)got);
	} else if (sp->fd >= 0)
		do
			got = pread(sp->fd, to, (size_t)MIN((uint64_t)RELAY_BYTES, sp->size - sp->sent),
			    (off_t)(sp->at + sp->sent - sp->mem_n));
		while (got < 0 && errno == EINTR);
	if (got > 0) {
		src->in.n = (uint32_t)got;
		sp->sent += (uint64_t)got;
		return got;
	}
	buf_free(&src->in);
	src->end = got < 0 ? SOURCE_CUT : SOURCE_ENDED;
	return -1;
}

/* Passes the file's next bytes to the taker; see struct source. */
static ssize_t
spool_pass(struct source *src, struct chan *to)
{
	struct spool *sp = (struct spool *)src;
	off_t at = (off_t)(sp->at + sp->sent - sp->mem_n);
	ssize_t put;

	do
		put = sendfile(to->w.fd, sp->fd, &at, (size_t)MIN((uint64_t)SENDFILE_BYTES,
		    sp->size - sp->sent));
	while (put < 0 && errno == EINTR);
	if (put > 0) {
		sp->sent += (uint64_t)put;
		return put;
	}
	if (put < 0 && (errno == EINVAL || errno == ENOSYS))
		src->pass = NULL; /* not of this file system */
	if (put < 0 && (errno == EAGAIN || !src->pass))
		return 0;
	to->broken = put < 0 && errno != EIO;
	src->end = put < 0 ? SOURCE_CUT : SOURCE_ENDED;
	return -1;
}

/* A spool of text; own: its memory, to be freed, or NULL. */
static struct spool
spool_of(struct slice text, void *own)
{
	return (struct spool){ .src = { .fill = spool_fill, .pulls = true }, .mem = text.p,
		.mem_n = text.n, .size = text.n, .own = own, .fd = -1 };
}

/* A spool of n bytes of f from `first`; f is the spool's from then on. */
static struct spool
spool_of_file(struct file *f, uint64_t first, uint64_t n)
{
	struct spool sp = spool_of(S(""), NULL);

	sp.file = f;
	sp.size = n;
	sp.fd = f->fd;
	sp.at = first;
	if (f->bytes && n > 0) {
		sp.mem = f->bytes + first;
		sp.mem_n = (size_t)n;
	} else if (f->fd >= 0) {
		sp.src.pass = spool_pass;
		posix_fadvise(f->fd, (off_t)first, (off_t)MIN(n, (uint64_t)READ_AHEAD),
		    POSIX_FADV_WILLNEED); /* advice: it may fail */
	}
	return sp;
}

static struct spool *
spool_new(void)
{
	struct spool *sp = xcalloc(1, sizeof *sp);

	*sp = spool_of(S(""), NULL);
	return sp;
}

/* Back to the first byte. */
static void
spool_rewind(struct spool *sp)
{
	sp->sent = 0;
	sp->src.end = SOURCE_OPEN;
	buf_free(&sp->src.in);
}

/* Gives back what it holds. */
static void
spool_drop(struct spool *sp)
{
	buf_free(&sp->src.in);
	if (sp->file)
		file_give(sp->file);
	else
		fd_close(sp->fd);
	free(sp->own);
}

static void
spool_free(struct spool *sp)
{
	if (sp)
		spool_drop(sp);
	free(sp);
}

static int spool_dir = -1; /* -1: bodies stay in memory */

/* Before chroot and the change of user. */
static void
spool_open(bool locked)
{
	if ((spool_dir = outside_open(SPOOL_DIR, locked)) < 0)
		log_warn("request bodies stay in memory: " SPOOL_DIR ": %s", strerror(errno));
}

/* A file without a name, or one that is unlinked at once. */
static int
spool_file(void)
{
	char name[32];
	int fd;

	if (spool_dir < 0)
		return memfd_create("body", MFD_CLOEXEC);
	if ((fd = openat(spool_dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)) >= 0)
		return fd;
	snprintf(name, sizeof name, "warp-%016llx", (unsigned long long)random_next());
	fd = openat(spool_dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0)
		unlinkat(spool_dir, name, 0);
	return fd;
}

/* Room for n more bytes, up to max in all; returns how many. */
static size_t
spool_grow(struct spool *sp, size_t n, size_t max)
{
	size_t cap = sp->mem_cap ? sp->mem_cap : SPOOL_START;
	void *mem;

	while (cap < sp->mem_n + n && cap < max)
		cap *= 2;
	cap = MIN(cap, max);
	if (cap > sp->mem_cap && (mem = realloc(sp->own, cap))) {
		sp->mem = sp->own = mem;
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
		memcpy((char *)sp->own + sp->mem_n, p, fits);
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

/* ==== flight =================================================================
 * Owns    quiet_due.
 * Offers  flight_begin, flight_end.
 * Calls   clock, board, pool. Counts the requests on each instance: the master
 *         stops a draining instance when none is left. */

static bool quiet_due; /* the master is to be told CTL_QUIET */

/* n more of this worker's requests are on the instance, in an epoch of that parity,
 * or (FLIGHT_EPOCHS) held for its upstream. While the worker lives, only it writes
 * here. This record grows before the shared count and shrinks after it: no place is
 * lost if the worker is killed in between. */
static void
flight_own(const struct instance *in, size_t which, int n)
{
	atomic_ushort *own = &board->flights[me - board->workers][in->board - board->instances][which];

	atomic_store_explicit(own, (unsigned short)(atomic_load_explicit(own,
	    memory_order_relaxed) + n), memory_order_relaxed);
}

/* x leaves its epoch. seen: the master may have looked while x was in it. */
static void
flight_leave(const struct exchange *x, const struct instance *in, bool seen)
{
	struct board_instance *b = in->board;

	if (places_less(&b->flights[x->parity], 1) == 0 &&
	    (seen || b->run == RUN_DRAINING || b->epoch % FLIGHT_EPOCHS != x->parity))
		quiet_due = true;
	flight_own(in, x->parity, -1);
}

static void
flight_end(const struct exchange *x, const struct instance *in)
{
	atomic_store_explicit(&in->board->used_ms, clock_low(now_ms), memory_order_relaxed);
	places_less(&in->board->in_flight, 1);
	flight_leave(x, in, false);
}

/* Counts x in the current epoch: on the program that listens there now. */
static void
flight_epoch(struct exchange *x, const struct instance *in)
{
	struct board_instance *b = in->board;

	for (;;) {
		unsigned epoch = b->epoch;
		x->parity = epoch % FLIGHT_EPOCHS;
		flight_own(in, x->parity, 1);
		b->flights[x->parity]++;
		if (b->epoch == epoch)
			return;
		flight_leave(x, in, true);
	}
}

/* A place for one more request. False: there is none, or the instance is to be
 * stopped. The master sets run, then reads in_flight; a worker does the reverse,
 * so at least one of them sees what the other did. */
static bool
flight_begin(struct exchange *x, const struct instance *in)
{
	struct board_instance *b = in->board;
	unsigned n = b->in_flight, max = in->max_connections ? in->max_connections : UINT_MAX;

	if (n >= max)
		return false;
	flight_epoch(x, in);
	do
		if (n >= max) {
			flight_leave(x, in, true);
			return false;
		}
	while (!atomic_compare_exchange_weak(&b->in_flight, &n, n + 1));
	atomic_store_explicit(&b->used_ms, clock_low(now_ms), memory_order_relaxed);
	if (b->run == RUN_NONE || b->run == RUN_UP)
		return true;
	flight_end(x, in);
	return false;
}

/* ==== hold ===================================================================
 * Owns    held_news.
 * Offers  queue_*, hold_*.
 * Calls   base, clock, log, balance, timer, board, roster, pool, flight.
 *
 * Requests wait here until an instance of their upstream may be asked. A request
 * joins when none can be asked, in the place of its turn: a request that tried
 * in vain stands where it stood. When there is news, `go` requests try again: the
 * oldest leaves the queue and is out, and new requests queue behind it. It is
 * settled when it has an instance or its answer, or is back in the queue. A
 * request that has waited too long leaves too, and is answered. The first part
 * knows nothing of upstreams: a queue, its turns and its timer. */

static bool held_news; /* held requests may try again: see queue.go */

/* Puts w in its place: the queue is in the order of turns. */
static void
queue_put(struct queue *q, struct waiter *w)
{
	struct link *at = q->ring.prev ? q->ring.prev : &q->ring;

	while (at != &q->ring && OWNER(at, struct waiter, link)->turn > w->turn)
		at = at->prev;
	link_add(at, &w->link);
	q->n++;
}

/* Lets n more of q try, when this turn of the loop is over. */
static void
queue_wake(struct queue *q, unsigned n)
{
	q->go = MIN(q->go + n, q->n);
	held_news |= q->go > 0;
}

/* There was no news for HELD_AGAIN_MS: the oldest tries again. */
static void
queue_due(struct timer *t)
{
	struct queue *q = OWNER(t, struct queue, timer);

	q->go = MAX(q->go, 1);
	held_news = true;
	timer_set(t, HELD_AGAIN_MS);
}

/* ---- for an instance ---- */

static struct queue *
hold_queue(const struct exchange *x)
{
	return &x->route->upstream->roster->queue;
}

/* Counts the requests that wait for up, in all workers, on the record of its
 * first instance. */
static void
held_count(const struct upstream *up, bool joins)
{
	const struct instance *first = &up->instances[0];

	if (joins) {
		flight_own(first, FLIGHT_EPOCHS, 1);
		first->board->held++;
	} else {
		places_less(&first->board->held, 1);
		flight_own(first, FLIGHT_EPOCHS, -1);
	}
}

/* x is back in the queue, on an instance, or answered: not out. */
static void
hold_settle(struct exchange *x)
{
	if (x->wait.out)
		hold_queue(x)->n_out--;
	x->wait.out = false;
}

static void
hold_join(struct exchange *x)
{
	struct queue *q = hold_queue(x);

	hold_settle(x);
	if (x->wait.since_ms == 0)
		x->wait.since_ms = now_ms;
	queue_put(q, &x->wait);
	held_count(x->route->upstream, true);
	q->timer.fire = queue_due;
	timer_keep(&q->timer, HELD_AGAIN_MS);
}

/* Out of the queue, to try anew. */
static void
hold_leave(struct exchange *x)
{
	struct queue *q = hold_queue(x);

	link_drop(&x->wait.link);
	held_count(x->route->upstream, false);
	if (--q->n == 0)
		timer_clear(&q->timer);
	x->wait.out = true;
	q->n_out++;
	x->tried = 0;
	x->tries = 0;
	x->passed = false;
}

/* in may be asked, if it has a place. */
static bool
instance_is_open(const struct instance *in)
{
	enum standing s = instance_standing(in);

	return s == STAND_UP || s == STAND_TRIAL;
}

/* Whether some instance would take x if it had a place. */
static bool
hold_is_full(const struct exchange *x)
{
	const struct upstream *up = x->route->upstream;

	for (int i = 0; i < up->n_instances; i++) {
		const struct instance *in = &up->instances[i];
		if (in->max_connections > 0 && instance_is_open(in) &&
		    (x->passed || !instance_tried(in, x->tried)))
			return true;
	}
	return false;
}

/* False: all its instances were stopped, or failed for good. */
static bool
upstream_can_come(const struct upstream *up)
{
	if (up->process && up->process->start_on == START_REQUEST)
		return true;
	for (int i = 0; i < up->n_instances; i++)
		if (up->instances[i].board->run != RUN_OFF)
			return true;
	return false;
}

/* How long x may wait altogether. */
static uint32_t
hold_ms(const struct exchange *x)
{
	const struct upstream *up = x->route->upstream;

	if (!upstream_can_come(up))
		return 0;
	return hold_is_full(x) ? MAX(up->hold_ms, up->connect_ms) : up->hold_ms;
}

static bool
hold_is_over(const struct exchange *x)
{
	return now_ms - (x->wait.since_ms ? x->wait.since_ms : now_ms) >= hold_ms(x);
}

/* Asks for a process that starts on request, at most once a second. */
static void
hold_start(const struct upstream *up)
{
	struct roster *r = up->roster;

	if (!up->process || up->process->start_on != START_REQUEST ||
	    (r->asked_ms != 0 && now_ms - r->asked_ms < SECOND_MS))
		return;
	for (int i = 0; i < up->n_instances; i++)
		if (up->instances[i].board->run == RUN_OFF) {
			r->asked_ms = now_ms;
			if (!master_tell(CTL_START, up->process->name))
				log_errno("the master was not told to start %s", up->process->name);
			return;
		}
}

/* A place is free: for this worker's oldest request, or for another worker's, in
 * proportion to how many wait there. */
static void
hold_place(const struct upstream *up)
{
	unsigned all = up->instances[0].board->held, own = up->roster->queue.n;

	if (all > own && random_next() % all >= own && master_tell(CTL_WAKE, ""))
		return;
	queue_wake(&up->roster->queue, 1);
}

/* ==== exchange ===============================================================
 * Owns    a request and its answer, from a whole head to the last byte.
 * Offers  exchange_new, exchange_enter, exchange_answer, exchange_error,
 *         exchange_run, exchange_client_event, exchange_client_due,
 *         exchange_upstream_late.
 * Calls   everything below. Each step looks at one state; exchange_run takes
 *         steps until one has to wait, then says what for. */

static const struct {
	int status;
	bool again; /* another try may help */
} losts[LOSTS] = {
	[LOST_CONNECT]         = { 502, true },
	[LOST_CONNECT_TIMEOUT] = { 504, true },
	[LOST_TLS]             = { 502, true },
	[LOST_WRITE_TIMEOUT]   = { 504, false },
	[LOST_READ_TIMEOUT]    = { 504, false },
	[LOST_CLOSED]          = { 502, true },
	[LOST_BAD]             = { 502, false },
};

#define STATUS_ABORTED 499 /* in the log: the client left first */
#define WARNS_PER_S    5   /* lines of one kind, such as about one failing upstream */

static struct calm calm_local; /* about this host */

static void (*upstream_door)(struct watch *, short); /* the front's */
static void (*upstream_due)(struct timer *);
static const struct exchange *req_of; /* whose head req is */

/* x's head, parsed; anew if another came between. */
static struct head *
exchange_request(const struct exchange *x)
{
	uint32_t scanned = 0;

	if (req_of != x)
		x->c->listener->front->parse(&req, x->head_bytes, &scanned);
	req_of = x;
	return &req;
}

/* The n bytes of head h have moved: its slices follow. */
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

	*x = (struct exchange){ .c = c, .to = &c->s.ch, .block = b, .start_us = now_us,
		.up.from = &c->s.src, .made.fd = -1 };
	if (n > b->cap - sizeof *x) {
		x->head_block = block_take(BLOCK_LARGE);
		to = x->head_block->data;
	}
	if (n > 0) {
		memcpy(to, buf_p(&c->s.src.in), n);
		head_move(&req, buf_p(&c->s.src.in), n, to);
		buf_eat(&c->s.src.in, n);
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

/* Sets what x does next; see states[]. */
static void
exchange_enter(struct exchange *x, enum exchange_state state)
{
	x->state = state;
}

static void
exchange_free(struct exchange *x)
{
	if (req_of == x)
		req_of = NULL;
	spool_free(x->spool);
	spool_drop(&x->made);
	flow_end(&x->up);
	flow_end(&x->down);
	block_give(x->head_block);
	block_give(x->block);
}

/* Lets go of the upstream connection: kept for others, or closed. */
static void
upstream_leave(struct exchange *x, bool keep)
{
	struct upconn *u = x->u;

	if (!u)
		return;
	x->u = NULL;
	flight_end(x, x->inst);
	if (x->inst->max_connections > 0 && u->state == UP_BUSY)
		hold_place(x->inst->up); /* a refusing instance has no place */
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
	wide_count(&me->requests, 1);
	wide_count(&me->codes[x->status == STATUS_ABORTED || class > 5 ? 0 : class], 1);
	wide_count(&me->latency[i], 1);
	wide_count(&me->latency_us, us);
	wide_count(&me->bytes_in, x->up.body.total);
	wide_count(&me->bytes_out, bytes_sent(x));
}

/* Ends x: counts, logs and frees it. The client's connection is idle again, or to
 * be closed. */
static enum step
exchange_over(struct exchange *x)
{
	struct conn *c = x->c;

	upstream_leave(x, false);
	if (x->state == X_HOLD)
		hold_leave(x);
	hold_settle(x);
	auth_leave(x);
	if (!x->admin) {
		exchange_count(x);
		if (access_on)
			access_line(x, x->head_bytes.n ? exchange_request(x) : NULL);
	}
	c->served++;
	c->s.x = NULL;
	if (c->s.ch.broken || (x->wants_close && x->body_whole && c->s.src.in.n == 0))
		c->state = CONN_CLOSE;
	else
		c->state = x->keep && x->body_whole ? CONN_IDLE : CONN_LINGER;
	timer_clear(&c->s.timer);
	exchange_free(x);
	return STEP_DONE;
}

/* Ends x at once: the client left, or must see that the answer is cut. An answer
 * that ends with the connection is cut by a reset. */
static enum step
exchange_abort(struct exchange *x)
{
	struct linger reset = { 1, 0 };
	struct conn *c = x->c;

	if (x->status == 0)
		x->status = STATUS_ABORTED;
	if (x->state >= X_ANSWER && x->down.body.kind != BODY_LENGTH && !x->down.chunk_out)
		setsockopt(c->s.ch.w.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	x->keep = false;
	c->s.ch.broken = true;
	return exchange_over(x);
}

/* ---- made-up answers ---- */

/* Skips a body that is here, to keep the connection. */
static void
request_settle(struct exchange *x)
{
	struct buf *in = &x->c->s.src.in;
	struct slice piece;
	ssize_t used;

	x->up.limit = 0;
	while (!x->body_whole && !x->body_bad && in->n > 0) {
		if ((used = flow_unframe(&x->up, &piece)) <= 0)
			break;
		buf_eat(in, (size_t)used);
		x->body_whole = x->up.body.done;
	}
	if (!x->body_whole)
		x->keep = false; /* and nothing that follows is a request */
	x->up.state = FLOW_OFF;
}

/* Sends the answer's head, as written, with what there is of the body. */
static enum relay
answer_start(struct exchange *x)
{
	enum relay r = flow_relay(&x->down, x->to, &head_out, &x->u_ready);

	if (r == RELAY_BAD_FIRST)
		return r;
	exchange_enter(x, X_ANSWER);
	x->down.state = r == RELAY_DONE ? FLOW_DONE : FLOW_ON;
	return r;
}

/* ---- compression ---- */

/* want may have a star for anything. */
static bool
type_is_like(struct slice type, struct slice want)
{
	struct slice begin;

	slice_cut(&want, '*', &begin);
	if (!want.p)
		return slice_ieq(type, begin);
	return type.n >= begin.n + want.n && slice_ieq((struct slice){ type.p, begin.n }, begin) &&
	    slice_ieq(slice_from(type, type.n - want.n), want);
}

/* Whether the answer's type is one of those that are compressed. */
static bool
type_is_zipped(const struct head *h)
{
	const struct slices *types = &conf->middleware.gzip_types;
	const struct field *f = head_field(h, F_CONTENT_TYPE);
	struct slice rest = f ? f->value : S(""), type;

	slice_cut(&rest, ';', &type);
	for (int i = 0; i < types->n; i++)
		if (type_is_like(slice_trim(type), types->v[i]))
			return true;
	return false;
}

/* Whether the answer h could be compressed, for who accepts that: its body, of that
 * kind, and its fields allow it. */
static bool
answer_may_zip(const struct exchange *x, const struct head *h, enum body_kind kind, uint64_t n)
{
	bool wanted = x->route ? x->route->gzip : conf->middleware.gzip && !x->admin;

	return wanted && (kind != BODY_NONE || x->method == M_HEAD) && h->status >= 200 &&
	    h->status != 204 && h->status != 206 && h->status != 304 &&
	    (kind != BODY_LENGTH || n >= MAX(conf->middleware.gzip_min, 1)) &&
	    h->count[F_CONTENT_ENCODING] == 0 && h->count[F_CONTENT_RANGE] == 0 &&
	    !head_has(h, F_CACHE_CONTROL, "no-transform") && type_is_zipped(h);
}

/* A tag of other bytes is weak. RFC 9110 8.8.1. */
static void
tag_weaken(struct head *h)
{
	static char buf[TAG_MAX];
	struct text t = { buf, 0, sizeof buf, false };
	struct field *f = h->count[F_ETAG] ? &h->f[h->first[F_ETAG] - 1] : NULL;

	if (!f || slice_starts(f->value, S("W/")))
		return;
	text_add(&t, S("W/"));
	text_add(&t, f->value);
	if (t.full) {
		head_cut(h, FIELD(F_ETAG));
		return;
	}
	f->value = text_slice(&t);
	f->start = NULL;
}

/* Lets the body of the answer h pass compressed if the client wants that; says so, and
 * that it depends on the client. n: bytes of that body, if it is of BODY_LENGTH. */
static void
answer_zip(struct exchange *x, struct head *h, uint64_t n)
{
	enum body_kind kind = x->method == M_HEAD && h->count[F_CONTENT_LENGTH] ? BODY_LENGTH
	    : x->down.body.kind;
	const struct head *rq;
	int weight;

	if (x->method == M_HEAD && kind == BODY_LENGTH)
		n = (uint64_t)slice_uint(head_field(h, F_CONTENT_LENGTH)->value, INT64_MAX);
	if (!answer_may_zip(x, h, kind, n) || h->n + 2 > FIELDS_MAX || x->head_bytes.n == 0)
		return;
	rq = exchange_request(x);
	weight = coding_weight(rq, "gzip");
	if (!head_has(h, F_VARY, "Accept-Encoding") && !head_has(h, F_VARY, "*"))
		head_add(h, S("Vary"), S("Accept-Encoding"));
	if (x->minor == 0 || weight == 0 || weight < coding_weight(rq, "identity") ||
	    (x->method != M_HEAD && !flow_zip(&x->down, conf->middleware.gzip_level)))
		return;
	x->down.chunk_out = x->method != M_HEAD;
	tag_weaken(h);
	head_cut(h, FIELD(F_CONTENT_LENGTH));
	head_add(h, S("Content-Encoding"), S("gzip"));
}

/* Sends head h and n bytes of what is in x->made. */
static enum step
exchange_start(struct exchange *x, struct head *h, uint64_t n)
{
	hold_settle(x);
	request_settle(x);
	flow_begin(&x->down, &x->made.src, BODY_LENGTH, n);
	x->status = h->status;
	if (draining)
		x->keep = false;
	if (conf->has_gzip)
		answer_zip(x, h, n);
	if (x->to->waits || !answer_write(head_begin(), x, h) || answer_start(x) == RELAY_REFUSED)
		return exchange_abort(x);
	return STEP_AGAIN;
}

/* Answers with a; what an upstream was doing for x is dropped. */
static enum step
exchange_answer(struct exchange *x, const struct answer *a)
{
	bool bare = x->method == M_HEAD || a->status == 204 || a->status == 304;

	upstream_leave(x, false);
	x->made = spool_of(bare ? S("") : a->body, a->owned);
	answer_head(&res, a);
	return exchange_start(x, &res, x->made.size);
}

static enum step
exchange_error(struct exchange *x, int status, const char *cause, struct slice extra)
{
	struct head *h = x->head_bytes.n ? exchange_request(x) : NULL;
	struct answer a = answer_error(h, status, cause);

	a.extra = extra;
	return exchange_answer(x, &a);
}

/* ---- files ---- */

/* What an attempt to open a file comes to. */
static int
file_status(int err)
{
	switch (err) {
	case 0:
		return 200;
	case ENOENT: case ENOTDIR: case ENAMETOOLONG: case ELOOP: case EXDEV:
		return 404;
	case EACCES: case EPERM: case EISDIR: case ENXIO:
		return 403;
	case EMFILE: case ENFILE: case ENOMEM: case EAGAIN:
		return 503;
	default:
		return 500;
	}
}

/* "bytes 0-9/100" */
static void
range_write(struct text *t, const struct range *r, uint64_t size)
{
	text_fmt(t, "bytes %llu-%llu/%llu", (unsigned long long)r->first,
	    (unsigned long long)(r->first + r->n - 1), (unsigned long long)size);
}

/* The next part of several ranges, into sp: its head in memory, then its bytes. */
static void
parts_next(struct spool *sp)
{
	struct parts *p = sp->own;
	struct text t = { p->text, 0, sizeof p->text, false };
	const struct range *r = &p->ranges.v[p->i];

	sp->sent = 0;
	sp->mem = p->text;
	text_fmt(&t, "\r\n--%s", p->boundary);
	if (p->i == p->ranges.n) {
		text_add(&t, S("--\r\n"));
		sp->mem_n = sp->size = t.n;
		sp->next = NULL;
		return;
	}
	text_fmt(&t, "\r\nContent-Type: %s\r\nContent-Range: ", p->type);
	range_write(&t, r, (uint64_t)sp->file->st.st_size);
	text_add(&t, S("\r\n\r\n"));
	sp->at = r->first;
	sp->size = t.n + r->n;
	if (sp->file->bytes)
		text_add(&t, (struct slice){ sp->file->bytes + r->first, (size_t)r->n });
	sp->mem_n = t.n;
	p->i++;
}

/* A spool of several ranges of f, which is said to be of that type; *n: how long. */
static struct spool
spool_of_parts(struct file *f, const struct ranges *ranges, struct slice type, uint64_t *n)
{
	struct spool sp = spool_of_file(f, 0, 0);
	struct parts *p = xcalloc(1, sizeof *p);
	struct text t = { p->boundary, 0, sizeof p->boundary - 1, false };

	text_hex(&t, random_next(), sizeof p->boundary - 1);
	snprintf(p->type, sizeof p->type, "%.*s", (int)type.n, type.p);
	p->ranges = *ranges;
	sp.own = p;
	sp.src.pass = NULL;
	*n = 0;
	for (sp.next = parts_next; sp.next; *n += sp.size)
		parts_next(&sp);
	p->i = 0;
	sp.next = parts_next;
	parts_next(&sp);
	return sp;
}

/* Adds to res, whose status is set, what is said of c: n bytes, in parts if there is a
 * boundary. What an application has said stays. Good until the next call. */
static void
content_head(const struct content *c, uint64_t n, const char *boundary)
{
	static char buf[128];
	struct text t = { buf, 0, sizeof buf, false }, range = { buf + 32, 0, sizeof buf - 32, false };
	bool whole = res.status != 304;
	const struct { bool due; struct slice name, value; } lines[] = {
		{ res.count[F_DATE] == 0, S("Date"), clock_date() },
		{ res.count[F_LAST_MODIFIED] == 0, S("Last-Modified"), slice_of(c->f->modified) },
		{ res.count[F_ETAG] == 0, S("ETag"), c->etag },
		{ res.count[F_CACHE_CONTROL] == 0, S("Cache-Control"), c->cache_control },
		{ c->vary, S("Vary"), S("Accept-Encoding") },
		{ whole && !boundary && res.count[F_CONTENT_TYPE] == 0, S("Content-Type"), c->type },
		{ whole, S("Content-Encoding"), c->coding },
		{ whole && !head_value(&res, S("Accept-Ranges")).p, S("Accept-Ranges"), S("bytes") },
	};

	for (size_t i = 0; i < LEN(lines); i++)
		if (lines[i].due && lines[i].value.n > 0)
			head_add(&res, lines[i].name, lines[i].value);
	text_uint(&t, n);
	if (whole)
		head_add(&res, S("Content-Length"), text_slice(&t));
	if (boundary)
		text_fmt(&range, "multipart/byteranges; boundary=%s", boundary);
	else if (res.status == 206)
		range_write(&range, &c->ranges.v[0], (uint64_t)c->f->st.st_size);
	if (range.n > 0)
		head_add(&res, boundary ? S("Content-Type") : S("Content-Range"), text_slice(&range));
}

/* No bytes of the file are where the client wants them. */
static enum step
exchange_unranged(struct exchange *x, uint64_t size)
{
	char b[64];
	struct text t = { b, 0, sizeof b, false };

	text_fmt(&t, "Content-Range: bytes */%llu\r\n", (unsigned long long)size);
	return exchange_error(x, 416, "", text_slice(&t));
}

/* Sends what the request h wants of c, with that status if it is not 200. The fields in
 * res go along; c->f is given back. STEP_AGAIN: the answer has begun. */
static enum step
exchange_content(struct exchange *x, const struct head *h, struct content *c, int status)
{
	uint64_t size = (uint64_t)c->f->st.st_size, n = size;
	bool parts;

	if (status == 200)
		status = conditions_check(h, c->etag, c->modified_s);
	if (status == 206)
		status = ranges_parse(&c->ranges, head_field(h, F_RANGE)->value, size);
	if (status == 412 || status == 416) {
		file_give(c->f);
		return status == 416 ? exchange_unranged(x, size) : exchange_error(x, 412, "", S(""));
	}
	parts = status == 206 && c->ranges.n > 1;
	if (status == 304)
		n = 0;
	else if (status == 206 && !parts)
		n = c->ranges.v[0].n;
	x->made = parts ? spool_of_parts(c->f, &c->ranges, c->type, &n) :
	    spool_of_file(c->f, status == 206 ? c->ranges.v[0].first : 0, x->method == M_HEAD ? 0 : n);
	res.status = status;
	res.reason = slice_of(status_text(status));
	content_head(c, n, parts ? ((struct parts *)x->made.own)->boundary : NULL);
	return exchange_start(x, &res, x->method == M_HEAD ? 0 : n);
}

/* The compressed neighbour of c->f that the request prefers, instead of it, which stays
 * the caller's to give back. */
static void
content_choose(struct content *c, const struct head *h)
{
	static const struct { const char *coding, *end; } kinds_of[] = {
		{ "gzip", ".gz" }, { "br", ".br" } };
	const struct file *plain = c->f;
	int best = coding_weight(h, "identity"), w;
	char name[PATH_MAX];
	struct file *f;
	size_t n;

	c->vary = plain->br || plain->gz;
	for (size_t i = 0; i < LEN(kinds_of); i++) {
		if (!(i == 0 ? plain->gz : plain->br) ||
		    (w = coding_weight(h, kinds_of[i].coding)) == 0 || w < best)
			continue;
		n = (size_t)snprintf(name, sizeof name, "%s%s", plain->path, kinds_of[i].end);
		f = file_find(plain->root, (struct slice){ name, MIN(n, sizeof name) });
		if (f->err == 0) {
			best = w;
			c->coding = slice_of(kinds_of[i].coding);
			if (c->f != plain)
				file_give(c->f);
			c->f = f;
		} else
			file_give(f);
	}
}

/* Answers with f, which exchange_file is given, as the route says. */
static enum step
exchange_file(struct exchange *x, const struct head *h, struct file *f, const struct files_conf *fc)
{
	struct content c = { .f = f, .type = f->type, .cache_control = fc->cache_control };

	content_choose(&c, h);
	if (c.f != f)
		file_give(f);
	c.etag = (struct slice){ c.f->etag, c.f->etag_n };
	c.modified_s = c.f->st.st_mtim.tv_sec;
	head_clear(&res);
	if (conf->server.server_tokens)
		head_add(&res, S("Server"), S("warp/" VERSION));
	return exchange_content(x, h, &c, 200);
}

/* ---- an upstream that fails ---- */

/* Warns at most WARNS_PER_S times a second for each c. */
__attribute__((format(printf, 2, 3))) static void
warn_calmly(struct calm *c, const char *fmt, ...)
{
	char line[LOG_LINE / 2];
	va_list ap;

	if (c->second != now_s) {
		if (c->unsaid > 0)
			log_warn("%u more lines like the next one were not shown", c->unsaid);
		*c = (struct calm){ .second = now_s };
	}
	if (c->said++ >= WARNS_PER_S) {
		c->unsaid++;
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

/* The body can be sent (again): none, kept, or not begun. */
static bool
body_is_here(const struct exchange *x)
{
	return x->spool || x->up.state == FLOW_OFF ||
	    (x->up.body.total == 0 && x->up.body.chunk == CHUNK_SIZE);
}

/* Whether bp is a replica of the process: NAME, or NAME.i. */
static bool
proc_is_of(const struct board_proc *bp, const char *name)
{
	size_t n = strlen(name);

	return strncmp(bp->name, name, n) == 0 && (!bp->name[n] ||
	    (bp->name[n] == '.' && strspn(bp->name + n + 1, "0123456789") == strlen(bp->name + n + 1)));
}

/* How replicas that are not up ended, and their last words. */
static void
cause_of_process(struct text *t, const struct process *p)
{
	char why[WHY_MAX], line[WHY_MAX];

	for (size_t i = 0; i < PROCS_MAX && board->procs[i].name[0]; i++) {
		const struct board_proc *bp = &board->procs[i];
		unsigned n = bp->n_lines;

		if (!proc_is_of(bp, p->name) || bp->state == PROC_UP)
			continue;
		text_fmt(t, "; process %s", bp->name);
		if (*board_text_get(&bp->why, why))
			text_fmt(t, ": %s", why);
		if (n > 0 && *board_text_get(&bp->lines[(n - 1) % PROC_LINES], line))
			text_fmt(t, ", its last words: %s", line);
	}
}

/* No instance answered. The page says why, if show_errors. */
static enum step
exchange_failed(struct exchange *x, int status)
{
	static char buf[ERROR_CAUSE_MAX];
	const struct process *p = x->route->upstream->process;
	struct text t = { buf, 0, sizeof buf - 1, false };

	text_str(&t, x->cause);
	if (p && conf->server.show_errors)
		cause_of_process(&t, p);
	buf[t.n] = '\0';
	return exchange_error(x, status, buf, status == 503 ? S("Retry-After: 1\r\n") : S(""));
}

/* x waits for an instance if that may help, else status is the answer. */
static enum step
exchange_hold(struct exchange *x, int status)
{
	struct upstream *up = x->route->upstream;
	const struct queue *q = hold_queue(x);

	hold_start(up);
	if (hold_is_over(x))
		return exchange_failed(x, status);
	if (x->wait.since_ms == 0 && q->n + q->n_out >= HELD_MAX) {
		snprintf(x->cause, sizeof x->cause, "upstream %s: too many requests wait",
		    up->name);
		return exchange_failed(x, 503);
	}
	x->held_status = status;
	hold_join(x);
	exchange_enter(x, X_HOLD);
	return STEP_WAIT;
}

static void
exchange_tried(struct exchange *x, const struct instance *in)
{
	x->tried |= UINT64_C(1) << ((size_t)(in - in->up->instances) % TRIED_BITS);
}

/* The instance failed x: another try if the retry rule allows one, else the
 * error; in the middle of an answer, x ends. */
static enum step
exchange_lost(struct exchange *x, enum lost why, const char *cause)
{
	struct instance *in = x->inst;
	bool stale = why == LOST_CLOSED && x->u->served > 0 && x->u->s.src.in.n == 0;
	bool next_addr = why <= LOST_CONNECT_TIMEOUT && x->addr_i + 1u < in->board->addrs.n;
	bool again = losts[why].again && !x->interim && body_is_here(x) &&
	    (!x->sent_any || is_idempotent(x->method));

	if (x->state >= X_ANSWER) {
		warn_calmly(&in->up->calm, "upstream %s: %s %s in the middle of an answer to %.*s",
		    in->up->name, instance_text(in), cause, (int)MIN(x->target.n, 256), x->target.p);
		return exchange_abort(x);
	}
	snprintf(x->cause, sizeof x->cause, "%s %s: %s", in->up->name, instance_text(in), cause);
	upstream_leave(x, false);
	if (again && x->up.state == FLOW_CUT)
		x->up.state = FLOW_ON;
	x->same = again && (stale || next_addr);
	if (x->same) {
		x->addr_i = next_addr ? (uint8_t)(x->addr_i + 1) : x->addr_i;
		exchange_enter(x, X_PICK);
		return STEP_AGAIN;
	}
	if (stale) /* allowed, even under a POST */
		warn_calmly(&in->up->calm, "upstream %s: %s %s, as a kept connection may; a %.*s is "
		    "not sent twice", in->up->name, instance_text(in), cause,
		    (int)MIN(x->method_text.n, 32), x->method_text.p);
	else if (x->wait.since_ms == 0 || why > LOST_CONNECT_TIMEOUT) { /* else it is known to be away */
		instance_failed(in);
		wide_add(&in->board->codes[0], 1);
		warn_calmly(&in->up->calm, "upstream %s: %s %s", in->up->name, instance_text(in), cause);
	}
	x->addr_i = 0;
	exchange_tried(x, in);
	x->lost += x->sent_any;
	if (!again || x->lost > in->up->retries)
		return exchange_failed(x, losts[why].status);
	if (x->tries > in->up->retries || in->up->n_instances == 1)
		return why == LOST_TLS ? exchange_failed(x, 502)
		                       : exchange_hold(x, losts[why].status);
	wide_count(&me->retries, 1);
	exchange_enter(x, X_PICK);
	return STEP_AGAIN;
}

/* ---- steps toward the upstream ---- */

/* Hands u its exchange and the doors. */
static void
upstream_attach(struct exchange *x, struct upconn *u)
{
	x->u = u;
	u->parsed = 0;
	u->s.x = x;
	u->s.hup = false;
	u->s.ch.w.ready = upstream_door;
	u->s.timer.fire = upstream_due;
	timer_clear(&u->s.timer);
	u->s.waits = WAIT_NOTHING;
	x->connect_by_ms = now_ms +
	    (x->route->connect_ms ? x->route->connect_ms : x->inst->up->connect_ms);
}

/* The hash of all lines of that name, in order; 0: there is none. */
static uint64_t
header_key(const struct head *h, struct slice name)
{
	uint64_t key = 0;

	for (int i = 0; i < h->n; i++)
		if (slice_ieq(h->f[i].name, name))
			key = hash64(key, h->f[i].value.p, h->f[i].value.n);
	return key;
}

static struct instance *
cookie_instance(struct upstream *up, const struct head *h)
{
	struct slice value;

	for (int i = 0; i < h->n; i++)
		if (h->f[i].id == F_COOKIE && cookie_find(h->f[i].value, up->sticky_cookie, &value))
			return balance_stuck(up, value);
	return NULL;
}

/* What the strategy needs of this request. */
static void
pick_of(struct exchange *x, struct pick *p)
{
	struct upstream *up = x->route->upstream;
	const struct head *h;

	*p = (struct pick){ .tried = x->tried };
	switch (up->balance->by) {
	case BY_IP:
		p->key = hash64(0, x->client.b, sizeof x->client.b);
		break;
	case BY_URI:
		h = exchange_request(x);
		p->key = hash64(hash64(0, h->path.p, h->path.n), h->query.p, h->query.n);
		break;
	case BY_HEADER:
		p->key = header_key(exchange_request(x), up->hash_header);
		break;
	case BY_COOKIE:
		p->stuck = cookie_instance(up, exchange_request(x));
		break;
	default:
		break;
	}
}

/* The instance for the next try; NULL: none can be asked. */
static struct instance *
exchange_pick(struct exchange *x)
{
	struct upstream *up = x->route->upstream;
	struct instance *in;
	struct pick p;

	if (x->same)
		return x->inst;
	pick_of(x, &p);
	in = balance_pick(up, &p);
	/* a full instance keeps its clients */
	x->sticks = up->balance->by == BY_COOKIE && in != p.stuck &&
	    !(p.stuck && instance_full(p.stuck));
	return in;
}

/* Others wait already: x goes behind them, with the cause of the last one. */
static enum step
exchange_queue(struct exchange *x)
{
	const struct queue *q = hold_queue(x);
	const struct exchange *last;

	if (q->n == 0)
		return exchange_hold(x, 503);
	last = OWNER(q->ring.prev, struct exchange, wait.link);
	memcpy(x->cause, last->cause, sizeof x->cause);
	return exchange_hold(x, last->held_status);
}

/* No instance can be asked now. */
static enum step
exchange_stuck(struct exchange *x)
{
	const char *name = x->route->upstream->name;

	if (hold_is_full(x))
		snprintf(x->cause, sizeof x->cause,
		    "upstream %s: its instances have all the requests they may have", name);
	else if (!x->cause[0])
		snprintf(x->cause, sizeof x->cause, "upstream %s: no instance can be asked", name);
	return exchange_hold(x, x->tries > 0 ? 502 : 503);
}

/* A connection to x->inst could not begin, because of err. */
static enum step
exchange_undialled(struct exchange *x, int err)
{
	flight_end(x, x->inst);
	if (err != EMFILE && err != ENFILE && err != ENOBUFS && err != ENOMEM)
		return exchange_lost(x, LOST_CONNECT, strerror(err));
	snprintf(x->cause, sizeof x->cause, "no descriptor left: %s", strerror(err));
	warn_calmly(&calm_local, "%s; raise the limit of open files", x->cause);
	return exchange_failed(x, 503);
}

static enum step
step_pick(struct exchange *x)
{
	static uint64_t turns;
	struct upstream *up = x->route->upstream;
	struct instance *in;
	struct upconn *u;

	if (x->wait.turn == 0) {
		x->wait.turn = ++turns;
		if (hold_queue(x)->n + hold_queue(x)->n_out > 0 && hold_ms(x) > 0)
			return exchange_queue(x);
	}
	if (!(in = exchange_pick(x)))
		return exchange_stuck(x);
	if (!flight_begin(x, in)) {
		x->same = false;
		x->passed = true;
		exchange_tried(x, in);
		return STEP_AGAIN;
	}
	x->inst = in;
	x->tries += !x->same;
	x->sent_any = false;
	u = x->same || up->keepalive == 0 || up->proxy_out ? NULL : pool_take(in);
	x->same = false;
	if (!u && !(u = upconn_connect(in, x->addr_i)))
		return exchange_undialled(x, errno);
	upstream_attach(x, u);
	if (up->roster->n > 1)
		hold_settle(x); /* others need not wait for this try */
	exchange_enter(x, X_CONNECT);
	return u->state == UP_BUSY ? STEP_AGAIN : STEP_WAIT;
}

static void
proxy_line(struct exchange *x)
{
	struct ip to = { { 0 } };
	uint16_t port = 0;
	union sock here;
	socklen_t n = sizeof here;

	if (x->inst->up->proxy_out == PROXY_OUT_NONE)
		return;
	if (!ip_is_none(&x->c->dest)) {
		to = x->c->dest;
		port = x->c->dest_port;
	} else if (getsockname(x->c->s.ch.w.fd, &here.sa, &n) == 0)
		to = ip_of_sock(&here, &port);
	proxy_write(&head_out, x->inst->up->proxy_out == PROXY_OUT_V1 ? 1 : 2, &x->client,
	    x->c->peer_port, &to, port);
}

/* Begins TLS to the upstream, after a PROXY header if one is due. */
static bool
upstream_tls(struct exchange *x)
{
	struct tls_peer peer = instance_peer(x->inst);
	struct chan *ch = &x->u->s.ch;
	struct iovec v;

	if (x->inst->up->proxy_out != PROXY_OUT_NONE) {
		head_begin();
		proxy_line(x);
		v = (struct iovec){ head_out.p, head_out.n };
		if (chan_send(ch, &v, 1, NULL) < 0 || ch->waits)
			return false;
	}
	return tls_client(ch, &peer);
}

/* No certificate can be judged yet: x waits, the instance is not blamed. */
static enum step
exchange_early(struct exchange *x)
{
	snprintf(x->cause, sizeof x->cause, "%s %s: this host's clock is wrong",
	    x->inst->up->name, instance_text(x->inst));
	warn_calmly(&calm_local, "%s: it is before the day warp was built; https upstreams wait "
	    "until it is set",
	    x->cause);
	upstream_leave(x, false);
	return exchange_hold(x, 503);
}

/* The connection is there: the request can be sent, after the TLS handshake. */
static enum step
upstream_connected(struct exchange *x)
{
	struct chan *ch = &x->u->s.ch;
	char why[WHY_MAX];

	if (x->inst->addr.scheme == SCHEME_HTTPS && !ch->tls) {
		if (x->inst->up->tls.trust && !clock_is_right())
			return exchange_early(x);
		if (!upstream_tls(x))
			return exchange_lost(x, LOST_TLS, "TLS cannot begin");
	}
	if (ch->tls && ch->tls->state == TLS_HANDSHAKE)
		switch (tls_shake(ch)) {
		case SHAKE_WAITS:
			return STEP_WAIT;
		case SHAKE_DONE:
			break;
		default:
			x->inst->session.session_id_len = 0;
			tls_why(ch, why, sizeof why);
			return exchange_lost(x, LOST_TLS, why);
		}
	exchange_enter(x, X_SEND);
	return STEP_AGAIN;
}

/* Poll has an event for the connection that is being made. */
static enum step
step_connect(struct exchange *x)
{
	socklen_t n = sizeof errno;
	int err = 0;

	if (x->u->state == UP_BUSY)
		return upstream_connected(x);
	if (!x->u_events)
		return STEP_WAIT;
	if (getsockopt(x->u->s.ch.w.fd, SOL_SOCKET, SO_ERROR, &err, &n) < 0)
		err = errno;
	if (err)
		return exchange_lost(x, LOST_CONNECT, strerror(err));
	x->u->state = UP_BUSY;
	x->u->s.hup = false;
	return upstream_connected(x);
}

/* The request body is malformed or too big. */
static enum step
exchange_bad_body(struct exchange *x)
{
	x->body_bad = true;
	x->keep = false;
	if (flow_is_too_big(&x->up))
		return exchange_error(x, 413, "the request body is too big", S(""));
	return exchange_error(x, 400, "the request body is malformed", S(""));
}

/* Sends head, if given, then more of the request body. */
static enum step
exchange_up(struct exchange *x, const struct text *head)
{
	enum relay r;

	if (!head && x->up.state != FLOW_ON)
		return STEP_WAIT;
	r = flow_relay(&x->up, &x->u->s.ch, head, &x->c_ready);
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
		x->u->s.src.end = SOURCE_OPEN;
		x->u_ready = true;
		buf_free(&x->u->s.ch.out);
		pipe_give(x->up.pipe);
		x->up.pipe = NULL;
		return STEP_WAIT;
	case RELAY_SHORT:
		return exchange_abort(x);
	case RELAY_BAD_FIRST:
	case RELAY_BAD:
	case RELAY_TOO_BIG:
		return x->state >= X_ANSWER ? exchange_abort(x) : exchange_bad_body(x);
	default:
		return STEP_WAIT;
	}
}

static enum step
step_send(struct exchange *x)
{
	struct head *h;
	enum step s;

	hold_settle(x);
	if (x->wait.since_ms != 0) /* an instance is there: for all that wait */
		queue_wake(hold_queue(x), hold_queue(x)->n);
	h = exchange_request(x);
	head_begin();
	if (!x->u->s.ch.tls) /* else it was sent before the handshake */
		proxy_line(x);
	if (!request_write(&head_out, x, h))
		return exchange_error(x, head_out.full ? 431 : 400,
		    "the request does not fit after rewriting", S(""));
	if (x->spool) {
		spool_rewind(x->spool);
		flow_begin(&x->up, &x->spool->src, BODY_LENGTH, x->spool->size);
		x->up.state = FLOW_ON;
	}
	x->up_start_us = now_us;
	exchange_enter(x, X_WAIT);
	s = exchange_up(x, &head_out);
	return s == STEP_WAIT && x->u_ready ? STEP_AGAIN : s; /* it left: any answer? */
}

/* ---- steps toward the client ---- */

/* The answer is whole: the upstream connection goes back, if it may be kept. */
static void
exchange_release(struct exchange *x)
{
	struct upconn *u = x->u;

	if (!u)
		return;
	x->up_us = (uint32_t)MIN(now_us - x->up_start_us, UINT32_MAX);
	upstream_leave(x, x->reusable && x->up.state != FLOW_ON && x->up.state != FLOW_CUT &&
	    u->s.src.in.n == 0 && !u->s.ch.waits && !u->s.src.end && !u->s.hup);
	if (x->up.state == FLOW_ON)
		x->up.state = FLOW_CUT; /* the rest of the request goes nowhere */
}

/* Counts an answer that has begun. */
static void
upstream_answered(struct exchange *x)
{
	struct board_instance *b = x->inst->board;
	int64_t us = now_us - x->up_start_us;

	instance_worked(x->inst);
	wide_add(&b->requests, 1);
	wide_add(&b->codes[x->status / 100], 1);
	wide_add(&b->latency_us, (uint64_t)us);
	instance_timed(x->inst, us);
}

/* A file has become shorter while it was sent, or the disk fails. */
static enum step
exchange_cut(struct exchange *x)
{
	warn_calmly(&calm_local, "the file for %.*s: %s while it was sent", (int)MIN(x->target.n, 256),
	    x->target.p, x->made.src.end == SOURCE_CUT ? "cannot be read" : "became shorter");
	return exchange_abort(x);
}

/* Goes on after relaying the body, as r says. */
static enum step
exchange_down(struct exchange *x, enum relay r)
{
	switch (r) {
	case RELAY_DONE:
		x->down.state = FLOW_DONE;
		exchange_release(x);
		return x->to->waits ? STEP_WAIT : exchange_over(x);
	case RELAY_SHORT:
		return x->u ? exchange_lost(x, LOST_CLOSED, "closed") : exchange_cut(x);
	case RELAY_BAD:
		return exchange_lost(x, LOST_BAD, "sent a malformed body");
	case RELAY_REFUSED:
		return exchange_abort(x);
	default:
		return STEP_WAIT;
	}
}

static enum step
step_answer(struct exchange *x)
{
	enum step s = x->u ? exchange_up(x, NULL) : STEP_WAIT;

	if (s != STEP_WAIT)
		return s;
	return exchange_down(x, x->down.state == FLOW_DONE ? RELAY_DONE
	    : flow_relay(&x->down, x->to, NULL, &x->u_ready));
}

/* Passes a 1xx on to a client that can read it, and waits on. */
static enum step
exchange_interim(struct exchange *x, size_t n)
{
	struct iovec v;

	if (++x->interims > INTERIM_MAX)
		return exchange_lost(x, LOST_BAD, "sent 1xx without end");
	if (x->minor > 0 && !x->spool) {
		if (!interim_write(head_begin(), &res))
			return exchange_lost(x, LOST_BAD, "sent a 1xx too long");
		v = (struct iovec){ head_out.p, head_out.n };
		x->interim = true;
		if (chan_send(x->to, &v, 1, NULL) < 0)
			return exchange_abort(x);
	}
	buf_eat(&x->u->s.src.in, n);
	return STEP_AGAIN;
}

static enum step
exchange_tunnel(struct exchange *x)
{
	exchange_enter(x, X_TUNNEL);
	x->keep = false;
	x->body_whole = true;
	spool_free(x->spool);
	x->spool = NULL;
	flow_begin(&x->up, &x->c->s.src, BODY_CLOSE, 0);
	flow_begin(&x->down, &x->u->s.src, BODY_CLOSE, 0);
	x->up.state = x->down.state = FLOW_ON;
	x->c_ready = x->c->s.src.in.n > 0;
	return STEP_AGAIN;
}

/* Decides the answer's framing and which connections stay. */
static int
exchange_frame(struct exchange *x)
{
	struct body *b = &x->down.body;

	if (body_of_response(b, &res, x->method) < 0)
		return -1;
	/* a backend that answers HEAD without a length may send a body all the same */
	x->u->head = x->method == M_HEAD;
	x->reusable = res.minor > 0 && b->kind != BODY_CLOSE && (x->method != M_HEAD ||
	    res.count[F_CONTENT_LENGTH] + res.count[F_TRANSFER_ENCODING] > 0) &&
	    !head_has(&res, F_CONNECTION, "close") && x->inst->up->keepalive > 0 &&
	    x->inst->up->proxy_out == PROXY_OUT_NONE;
	x->down.chunk_out = x->minor > 0 && (b->kind == BODY_CHUNKED || b->kind == BODY_CLOSE);
	if (x->minor == 0 && (b->kind == BODY_CHUNKED || b->kind == BODY_CLOSE))
		x->keep = false;
	if (x->up.state == FLOW_ON || x->up.state == FLOW_CUT || draining)
		x->keep = false;
	return 0;
}

/* The upstream's head is bad, as head_fault says. */
static enum step
exchange_head_bad(struct exchange *x)
{
	char why[sizeof head_fault + 8];

	snprintf(why, sizeof why, "sent %s", head_fault);
	return exchange_lost(x, LOST_BAD, why);
}

/* ---- files that upstreams name ---- */

/* The name of the file below x_sendfile_root that the upstream's answer (res) wants sent.
 * False: there can be none. */
static bool
sendfile_name(struct text *t)
{
	const struct field *f = head_field(&res, F_X_SENDFILE);
	const char *dir = conf->middleware.sendfile.dir;
	size_t n = dir ? strlen(dir) : 0;
	struct slice path, rest;
	struct path_view view;

	if (!dir)
		return false;
	if (f) { /* a path of this host, or below the root */
		path = f->value;
		if (slice_starts(path, S("/"))) {
			if (path.n <= n || memcmp(path.p, dir, n) != 0 || path.p[n] != '/')
				return false;
			path = slice_from(path, n + 1);
		}
		text_add(t, path);
		return path.n > 0 && !file_is_hidden(path) && !t->full;
	}
	rest = head_field(&res, F_X_ACCEL_REDIRECT)->value;
	slice_cut(&rest, '?', &path);
	return path_normalise(path, &view) == 0 && file_name(t, view.path) &&
	    !file_is_hidden(text_slice(t));
}

/* Whether what is left of the upstream's answer, which nobody wants, is here: then
 * its connection can be kept. */
static bool
upstream_drained(struct flow *rest)
{
	struct slice piece;
	ssize_t used;

	while (!rest->body.done && rest->from->in.n > 0) {
		if ((used = flow_unframe(rest, &piece)) <= 0)
			return false;
		buf_eat(&rest->from->in, (size_t)used);
	}
	return rest->body.done;
}

/* Answers with the file that the upstream names in its answer: a head of n bytes, res,
 * whose other fields stay. The upstream's connection is given back. */
static enum step
exchange_sendfile(struct exchange *x, size_t n)
{
	static char buf[TARGET_MAX];
	struct text t = { buf, 0, sizeof buf, false };
	struct flow rest = x->down;
	bool sent = x->up.state == FLOW_OFF || x->up.state == FLOW_DONE;
	struct file *f = sendfile_name(&t) ? file_find((unsigned)conf->table.n, text_slice(&t)) : NULL;
	struct content c = { .f = f };
	int err = f ? f->err : ENOENT;

	if (err) {
		warn_calmly(&x->inst->up->calm, "upstream %s wants a file sent that cannot be: %s; see "
		    "x_sendfile_root", x->inst->up->name, strerror(err));
		if (f)
			file_give(f);
		return exchange_error(x, file_status(err), "the file cannot be sent", S(""));
	}
	head_cut(&res, FIELD(F_CONTENT_LENGTH) | FIELD(F_CONTENT_RANGE));
	c.type = res.count[F_CONTENT_TYPE] ? head_field(&res, F_CONTENT_TYPE)->value : f->type;
	c.etag = res.count[F_ETAG] ? head_field(&res, F_ETAG)->value
	    : (struct slice){ f->etag, f->etag_n };
	c.modified_s = res.count[F_LAST_MODIFIED] ? head_date(&res, F_LAST_MODIFIED)
	    : f->st.st_mtim.tv_sec;
	if (exchange_content(x, exchange_request(x), &c, res.status) == STEP_DONE)
		return STEP_DONE;
	if (!x->u)
		return STEP_AGAIN; /* 412 or 416 */
	upstream_answered(x);
	buf_eat(&x->u->s.src.in, n);
	x->reusable = x->reusable && sent && upstream_drained(&rest);
	exchange_release(x);
	return STEP_AGAIN;
}

/* The final answer's head is here, n bytes of it. */
static enum step
exchange_respond(struct exchange *x, size_t n)
{
	bool tunnel = res.status == 101;
	enum relay r;

	if (tunnel && !x->upgrade)
		return exchange_lost(x, LOST_BAD, "switched protocols unasked");
	flow_begin(&x->down, &x->u->s.src, BODY_NONE, 0);
	if (tunnel)
		x->keep = true; /* until the tunnel ends */
	else if (exchange_frame(x) < 0)
		return exchange_head_bad(x);
	else if (conf->middleware.x_sendfile && (res.count[F_X_SENDFILE] ||
	    res.count[F_X_ACCEL_REDIRECT]))
		return exchange_sendfile(x, n);
	if (conf->has_gzip && !tunnel)
		answer_zip(x, &res, x->down.body.left);
	if (!answer_write(head_begin(), x, &res))
		return exchange_lost(x, LOST_BAD, "sent a head too long");
	buf_eat(&x->u->s.src.in, n);
	x->status = res.status;
	if ((r = answer_start(x)) == RELAY_BAD_FIRST) {
		x->status = 0; /* the client has seen nothing of it */
		return exchange_lost(x, LOST_BAD, "sent a malformed body");
	}
	upstream_answered(x);
	return tunnel && r != RELAY_REFUSED ? exchange_tunnel(x) : exchange_down(x, r);
}

/* The request is on its way; the upstream sends a head, or part of one. */
static enum step
step_wait(struct exchange *x)
{
	struct side *u;
	enum step s;
	int n;

	if ((s = exchange_up(x, NULL)) != STEP_WAIT)
		return s;
	u = &x->u->s;
	if (x->to->waits)
		return STEP_WAIT;
	if (x->u_ready) {
		x->u_ready = false;
		side_fill(u);
	}
	if (u->src.in.n == 0)
		return u->src.end ? exchange_lost(x, LOST_CLOSED, "closed before it answered")
		                  : STEP_WAIT;
	if (x->u->parsed > 0 && !u->src.end && u->src.in.n <= conf->server.max_header_bytes &&
	    !memchr(buf_p(&u->src.in) + x->u->parsed, '\n', u->src.in.n - x->u->parsed))
		n = 0; /* no line more: parse later */
	else
		n = response_parse(&res, buf_slice(&u->src.in));
	x->u->parsed = n == 0 ? u->src.in.n : 0;
	if (n < 0)
		return exchange_head_bad(x);
	if (n == 0 && u->src.end)
		return exchange_lost(x, LOST_CLOSED, "closed within its head");
	if ((n > 0 ? (uint32_t)n : u->src.in.n) > conf->server.max_header_bytes)
		return exchange_lost(x, LOST_BAD, "sent a head too long");
	if (n == 0)
		return STEP_WAIT;
	x->early = res.status == 101 && x->upgrade && x->up.state == FLOW_ON;
	if (x->early)
		return STEP_WAIT;
	if (res.status < 200 && res.status != 101)
		return exchange_interim(x, (size_t)n);
	return exchange_respond(x, (size_t)n);
}

static enum step
step_tunnel(struct exchange *x)
{
	struct chan *u = &x->u->s.ch;
	enum relay r;

	if (x->up.state == FLOW_ON) {
		r = flow_tunnel(&x->up, u, &x->c_ready);
		if (r == RELAY_BAD)
			return exchange_over(x);
		if (r == RELAY_REFUSED) { /* its last words may still be on their way */
			u->broken = false;
			chan_forget(u);
			x->up.state = FLOW_CUT;
			x->u_ready = true;
		} else if (r == RELAY_DONE)
			x->up.state = FLOW_DONE;
	}
	if (x->down.state == FLOW_ON) {
		r = flow_tunnel(&x->down, x->to, &x->u_ready);
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
	struct iovec v = go_on;
	struct slice piece;
	ssize_t used;
	bool kept;

	if (x->expect && c->src.in.n == 0 && chan_send(x->to, &v, 1, NULL) < 0)
		return exchange_abort(x);
	x->expect = false;
	if (c->src.in.n == 0 && x->c_ready && !x->up.body.done) {
		x->c_ready = false;
		side_fill(c);
	}
	while (c->src.in.n > 0 && !x->up.body.done) {
		if ((used = flow_unframe(&x->up, &piece)) < 0)
			return exchange_bad_body(x);
		kept = spool_add(x->spool, piece.p, piece.n, (size_t)x->route->buffer_request) == 0;
		buf_eat(&c->src.in, (size_t)used); /* the body has counted it */
		if (!kept)
			return exchange_error(x, 503, "no room for the request body", S(""));
	}
	if (x->up.body.done) {
		x->body_whole = true;
		exchange_enter(x, X_PICK);
		return STEP_AGAIN;
	}
	return c->src.end ? exchange_abort(x) : STEP_WAIT;
}

/* Nothing to do: x waits for its password, for the master, or for an instance. */
static enum step
step_rest(struct exchange *x)
{
	(void)x;
	return STEP_WAIT;
}

/* Of each state: its step, the events that are watched on either side (as far as
 * a flow is ready for them), and what both deadlines are for; WAIT_NOTHING: for
 * the reads and writes there. */
static const struct {
	enum step (*step)(struct exchange *);
	short client, upstream;
	enum wait wait;
} states[X_STATES] = {
	[X_AUTH]    = { step_rest,    0,         0,      WAIT_NOTHING },
	[X_ASK]     = { step_rest,    0,         0,      WAIT_NOTHING },
	[X_SPOOL]   = { step_spool,   POLLIN,    0,      WAIT_NOTHING },
	[X_PICK]    = { step_pick,    0,         0,      WAIT_NOTHING },
	[X_HOLD]    = { step_rest,    POLLRDHUP, 0,      WAIT_NOTHING },
	[X_CONNECT] = { step_connect, 0,         0,      WAIT_CONNECT },
	[X_SEND]    = { step_send,    0,         0,      WAIT_NOTHING },
	[X_WAIT]    = { step_wait,    POLLIN,    POLLIN, WAIT_NOTHING },
	[X_ANSWER]  = { step_answer,  POLLIN,    POLLIN, WAIT_NOTHING },
	[X_TUNNEL]  = { step_tunnel,  POLLIN,    POLLIN, WAIT_TUNNEL },
};

/* ---- waiting ---- */

/* Watches s for these events. A side that hung up is watched only while it is
 * read or written: poll reports that without end. */
static void
side_watch(struct side *s, short want)
{
	if (s->hup && want == 0)
		loop_unwatch(&s->ch.w);
	else
		loop_watch(&s->ch.w, want);
}

/* Only what s waits for starts the deadline anew: a peer that sends without end
 * has read nothing yet. */
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
	bool busy = x->u && flow_owes(&x->up, &x->u->s.ch);
	bool in = x->up.state == FLOW_ON && !x->up.from->pulls && !c->src.end && !busy;
	bool out = flow_owes(&x->down, x->to);
	short want = states[x->state].client;

	if (!in)
		want &= ~POLLIN;
	side_watch(c, (short)(want | (out ? POLLOUT : 0)));
	if (states[x->state].wait == WAIT_TUNNEL)
		side_deadline(c, WAIT_TUNNEL, conf->server.tunnel_ms, x->c_events | x->u_events);
	else if (out)
		side_deadline(c, WAIT_WRITE, conf->server.write_ms, x->c_events);
	else if (want & POLLIN)
		side_deadline(c, WAIT_READ, conf->server.body_ms, x->c_events);
	else
		side_deadline(c, WAIT_NOTHING, 0, x->c_events);
}

static uint32_t
route_ms(uint32_t own, uint32_t upstreams)
{
	return own ? own : upstreams;
}

static void
upstream_arm(struct exchange *x)
{
	const struct upstream *up = x->inst->up;
	const struct route *r = x->route;
	struct side *u = &x->u->s;
	bool in = x->down.state != FLOW_DONE && !flow_owes(&x->down, x->to) && !u->src.end && !x->early;
	bool out = flow_owes(&x->up, &u->ch);
	short want = in ? states[x->state].upstream : 0;
	enum wait wait = states[x->state].wait;

	if (wait == WAIT_CONNECT && x->u->retry_connect) {
		timer_set(&u->timer, CONNECT_AGAIN_MS);
		return;
	}
	if (wait == WAIT_CONNECT) {
		loop_watch(&u->ch.w, !u->ch.tls || u->ch.waits ? POLLOUT : POLLIN);
		side_deadline(u, wait, route_ms(r->connect_ms, up->connect_ms), 0);
		return;
	}
	side_watch(u, (short)(want | (out ? POLLOUT : 0)));
	if (out && wait != WAIT_TUNNEL)
		side_deadline(u, WAIT_WRITE, route_ms(r->write_ms, up->write_ms), x->u_events);
	else if (want && x->up.state != FLOW_ON && wait != WAIT_TUNNEL)
		side_deadline(u, WAIT_READ, route_ms(r->read_ms, up->read_ms), x->u_events);
	else
		side_deadline(u, WAIT_NOTHING, 0, x->u_events);
}

/* Takes steps until one waits. Afterwards x is gone unless c->s.x is x. */
static void
exchange_run(struct exchange *x)
{
	struct conn *c = x->c;
	enum step s;

	do
		s = states[x->state].step(x);
	while (s == STEP_AGAIN);
	if (s == STEP_DONE || c->s.x != x)
		return;
	client_arm(x);
	if (x->u)
		upstream_arm(x);
	x->c_ready = x->u_ready = false;
	x->c_events = x->u_events = 0;
}

/* ---- events and deadlines ---- */

static void
exchange_client_event(struct exchange *x, short revents)
{
	struct side *c = &x->c->s;
	/* a client that closes while it waits for an instance counts as gone */
	bool gone = revents & (POLLERR | POLLHUP | POLLNVAL) ||
	    (x->state == X_HOLD && revents & POLLRDHUP);

	if (gone && x->state != X_TUNNEL) {
		exchange_abort(x);
		return;
	}
	c->hup |= gone;
	x->c_events = revents;
	x->c_ready = revents & (POLLIN | POLLHUP | POLLERR);
	if (revents & POLLOUT) {
		/* what waited is sent: the other side's turn, without another poll */
		x->u_ready = chan_flush(&c->ch) && x->u && x->down.state == FLOW_ON;
		if (c->ch.broken) {
			exchange_abort(x);
			return;
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
	else if (!x->c->s.ch.waits && x->state < X_ANSWER)
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
		if (x->u->s.ch.tls) {
			x->inst->session.session_id_len = 0;
			return exchange_lost(x, LOST_CONNECT_TIMEOUT,
			    "does not finish the TLS handshake in time");
		}
		if (!x->u->retry_connect || now_ms >= x->connect_by_ms)
			return exchange_lost(x, LOST_CONNECT_TIMEOUT, "does not accept in time");
		if (!upconn_dial(x->u))
			return exchange_lost(x, LOST_CONNECT, strerror(errno));
		return STEP_AGAIN;
	}
	if (flow_owes(&x->up, &x->u->s.ch))
		return exchange_lost(x, LOST_WRITE_TIMEOUT, "does not take the request in time");
	return exchange_lost(x, LOST_READ_TIMEOUT, "does not answer in time");
}

/* ==== admin front ============================================================
 * Owns    the verbs that wait for the master's word.
 * Offers  admin_serve, admin_told, admin_left.
 * Calls   arena, http, pool, auth, admin, heads, exchange. */

static struct ask asks[VERBS_MAX];
static int n_asks; /* taken */

static enum step
admin_error(struct exchange *x, int status, const char *text)
{
	return exchange_answer(x, &(struct answer){ .status = status,
	    .content_type = S(TEXT_TYPE), .body = slice_of(text) });
}

static enum step
admin_ask(struct exchange *x, const char *verb)
{
	char b[VERB_MAX + sizeof "00 "];
	int i;

	for (i = 0; i < VERBS_MAX && asks[i].taken; i++)
		;
	if (i == VERBS_MAX)
		return admin_error(x, 503, "too many commands are under way\n");
	snprintf(b, sizeof b, "%d %s", i, verb);
	if (!master_tell(CTL_VERB, b))
		return admin_error(x, 503, "the master does not listen\n");
	asks[i] = (struct ask){ true, x, x->c };
	n_asks++;
	exchange_enter(x, X_ASK);
	return STEP_AGAIN;
}

/* A page of another site asks: Sec-Fetch-Site says so, or, from an old browser or
 * without TLS, Origin. */
static bool
is_cross_site(const struct head *h)
{
	struct slice site = head_value(h, S("Sec-Fetch-Site"));
	struct slice origin = head_value(h, S("Origin"));
	const char *at;

	if (site.p)
		return !slice_eq(site, S("same-origin")) && !slice_eq(site, S("none"));
	if (!origin.p)
		return false;
	at = memmem(origin.p, origin.n, "://", 3);
	return !at || !slice_ieq(slice_from(origin, (size_t)(at - origin.p) + 3), h->host);
}

/* A socket file that warp made is guarded by its mode. At an inherited one, only
 * root and our own user need no token. */
static bool
admin_knows(const struct conn *c)
{
	struct ucred who = { .pid = 0 };
	socklen_t n = sizeof who;

	return !c->listener->inherited || (getsockopt(c->s.ch.w.fd, SOL_SOCKET, SO_PEERCRED, &who,
	    &n) == 0 && n == sizeof who && (who.uid == ROOT || who.uid == geteuid()));
}

/* Serves path. exposed: x came through a route, path is below admin.expose, and the
 * token is server.admin_token; else it is admin.token. */
static enum step
admin_serve(struct exchange *x, const struct head *h, struct slice path, bool exposed)
{
	const struct field *token = head_field(h, F_X_ADMIN_TOKEN);
	const struct field *accept = head_field(h, F_ACCEPT);
	struct slice bearer = auth_credentials(h, "Bearer");
	struct admin_request rq = {
		.method = h->method, .path = path, .query = h->query,
		.is_unix = !exposed && x->c->listener->is_unix && admin_knows(x->c),
		.wants_html = accept && memmem(accept->value.p, accept->value.n, "text/html", 9),
		.cross_site = is_cross_site(h),
		.token = token ? token->value : bearer,
		.secret = exposed ? conf->server.admin_token : conf->admin.token,
	};
	struct admin_reply reply = { 0 };

	admin_answer(&rq, conf, &reply);
	if (reply.verb)
		return admin_ask(x, reply.verb);
	return exchange_answer(x, &(struct answer){ .status = reply.status,
	    .content_type = slice_of(reply.content_type), .extra = slice_of(reply.extra),
	    .body = { reply.body, reply.n }, .owned = reply.body });
}

/* The master's answer to a verb: its number, then "ok", or what is wrong.
 * Returns the client that asked; NULL: it has left. */
static struct conn *
admin_told(struct slice word)
{
	struct slice number;
	struct ask a;
	bool good;
	char *copy;
	int64_t i;

	slice_cut(&word, ' ', &number);
	if ((i = slice_uint(number, VERBS_MAX - 1)) < 0 || !word.p || !asks[i].taken)
		return NULL;
	a = asks[i];
	asks[i] = (struct ask){ 0 };
	n_asks--;
	if (!a.x)
		return NULL;
	good = slice_eq(word, S("ok"));
	copy = xcalloc(1, word.n + 1);
	memcpy(copy, word.p, word.n);
	copy[word.n] = '\n';
	if (exchange_answer(a.x, &(struct answer){ .status = good ? 200 : 409,
	    .content_type = S(TEXT_TYPE), .body = { copy, word.n + 1 },
	    .owned = copy }) != STEP_DONE)
		exchange_run(a.x);
	return a.c;
}

/* c is closed: the answer to its verb goes nowhere. */
static void
admin_left(const struct conn *c)
{
	for (int i = 0; n_asks > 0 && i < VERBS_MAX; i++)
		if (asks[i].c == c) {
			asks[i].x = NULL;
			asks[i].c = NULL;
		}
}

/* ==== gate ===================================================================
 * Owns    the seed of what must not be guessed.
 * Offers  gate_open, gate_enter, gate_admit, admin_enter.
 * Calls   arena, clock, http, path, addr, route, certs, board, tls, pool, auth,
 *         heads, maintenance, spool, exchange, admin front. A request with a
 *         whole head passes here once: its route, its checks, its action. */

static uint64_t rate_seed; /* equal in all workers: the board is shared */

static void
gate_open(void)
{
	if (getrandom(random_state, sizeof random_state, 0) != sizeof random_state)
		random_state[0] = (uint64_t)now_us;
	random_state[1] |= 1; /* all zero would stay zero */
	auth_open();
	rate_seed = (uint64_t)board->started_s * UINT64_C(0x9e3779b97f4a7c15);
}

/* The 16 digits that all request ids of this worker begin with. */
static struct slice
id_prefix(void)
{
	static char digits[16];
	static struct text t = { digits, 0, sizeof digits, false };

	if (t.n == 0)
		text_hex(&t, random_next(), sizeof digits);
	return text_slice(&t);
}

/* X-Request-Id: a trusted proxy's, or made here. */
static void
request_id(struct exchange *x, const struct head *h)
{
	struct text t = { x->id, 0, sizeof x->id - 1, false };
	const struct field *f = head_field(h, F_X_REQUEST_ID);
	struct slice said = f ? f->value : S("");
	size_t good = 0;

	while (good < said.n && said.p[good] > ' ' && said.p[good] < 0x7f)
		good++;
	if (good > 0 && good == said.n && good <= REQUEST_ID_MAX && peer_is_trusted(x->c)) {
		text_add(&t, said);
		return;
	}
	text_add(&t, id_prefix());
	text_hex(&t, random_next(), 16);
}

/* An upgrade that may be passed on: HTTP/1.1, and not to HTTP/2, which warp could
 * not follow. RFC 9110 7.8. */
static bool
wants_upgrade(const struct head *h)
{
	return h->minor > 0 && h->count[F_UPGRADE] == 1 &&
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
	uint64_t tag = hash64(rate_seed + (uint64_t)(r - conf->table.routes), x->client.b,
	    ip_own_bytes(&x->client));
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

/* Hands x to the route's upstream, at once or when the body is whole. */
static enum step
gate_forward(struct exchange *x, const struct head *h)
{
	bool has_body = x->up.body.kind != BODY_NONE;
	struct answer notice;

	if (maintenance_answer(x->route->upstream, &notice))
		return exchange_answer(x, &notice);
	x->expect = has_body && h->minor > 0 && h->count[F_EXPECT] > 0;
	x->upgrade = wants_upgrade(h);
	if (x->upgrade && !x->route->websocket)
		return exchange_error(x, 426, "this route takes no upgrade",
		    S("Upgrade: HTTP/1.1\r\nConnection: upgrade\r\n"));
	x->up.state = has_body ? FLOW_ON : FLOW_OFF;
	if (has_body && x->route->buffer_request >= 0)
		x->spool = spool_new();
	else
		x->up.chunk_out = x->up.body.kind == BODY_CHUNKED;
	exchange_enter(x, x->spool ? X_SPOOL : X_PICK);
	return STEP_AGAIN;
}

/* Acts on a password check. STEP_WAIT: it is good. */
static enum step
gate_password(struct exchange *x, enum auth said)
{
	switch (said) {
	case AUTH_YES:
		return STEP_WAIT;
	case AUTH_LATER:
		exchange_enter(x, X_AUTH); /* gate_admit follows */
		return STEP_AGAIN;
	case AUTH_BUSY:
		return exchange_error(x, 503, "too many passwords are being checked",
		    S("Retry-After: 1\r\n"));
	default:
		return exchange_error(x, 401, "a user and password are required",
		    S("WWW-Authenticate: Basic realm=\"warp\", charset=\"UTF-8\"\r\n"));
	}
}

/* Checks x against the route's limits; authed: its password was good. STEP_WAIT: x
 * may pass. */
static enum step
gate_guard(struct exchange *x, const struct head *h, bool authed)
{
	const struct route *r = x->route;
	enum step s;

	if (r->rate.requests > 0 && !authed && (s = gate_limit(x)) != STEP_WAIT)
		return s;
	if (r->require_auth && !auth_token_ok(h, conf->server.admin_token))
		return exchange_error(x, 401, "a token is required",
		    S("WWW-Authenticate: Token\r\n"));
	if (r->basic_auth.n > 0 && !authed && (s = gate_password(x, auth_basic(x, h,
	    &r->basic_auth))) != STEP_WAIT)
		return s;
	x->up.limit = r->has_max_body ? r->max_body_bytes : conf->server.max_body_bytes;
	if (x->up.limit > 0 && x->up.body.kind == BODY_LENGTH && x->up.body.left > x->up.limit)
		return exchange_error(x, 413, "the request body is too big", S(""));
	return STEP_WAIT;
}

/* ---- files ---- */

/* False: the path is malformed. */
static bool
path_of(const struct head *h, struct path_view *view)
{
	if (h->path_plain)
		path_plain(h->path, view);
	return h->path_plain || path_normalise(h->path, view) == 0;
}

/* The name of the file that x asks for, below the route's directory: its path without
 * what the route strips. False: there can be none. */
static bool
route_file(struct text *t, const struct exchange *x, struct slice path)
{
	static char buf[TARGET_MAX];
	struct text raw = { buf, 0, sizeof buf, false };
	struct path_view view = { .path = path };

	if (x->route->strip_prefix || x->route->has_rewrite) {
		text_char(&raw, '/');
		if (path_normalise(path, &view) < 0 || !rewrite_apply(&raw, x->route, &view) ||
		    path_normalise(text_slice(&raw), &view) < 0)
			return false;
	}
	return file_name(t, view.path);
}

/* To the same path with a slash at its end. It begins with one slash: never an
 * address. */
static enum step
gate_slash(struct exchange *x, const struct head *h)
{
	static char buf[TARGET_MAX];
	struct text t = { buf, 0, sizeof buf, false };
	struct path_view view;

	text_add(&t, S("Location: "));
	if (path_of(h, &view))
		path_encode(&t, view.path);
	text_char(&t, '/');
	if (h->has_query) {
		text_char(&t, '?');
		text_add(&t, h->query);
	}
	text_add(&t, S("\r\n"));
	return exchange_error(x, t.full ? 414 : 308, "", t.full ? S("") : text_slice(&t));
}

/* The names in a directory. */
static enum step
gate_listing(struct exchange *x, const struct head *h, unsigned root, struct slice path)
{
	struct path_view view;
	struct answer a = { .status = 200, .content_type = S("text/html; charset=utf-8") };

	if (!path_of(h, &view) || !file_list(root, path, view.path, &a.body))
		return exchange_error(x, file_status(errno), strerror(errno), S(""));
	a.owned = (void *)(uintptr_t)a.body.p;
	return exchange_answer(x, &a);
}

/* What is served for the directory `path`, which is empty or ends with a slash. */
static struct file *
file_of_directory(unsigned root, const struct files_conf *fc, struct text *path)
{
	size_t n = path->n;
	struct file *f;

	for (int i = 0; i < fc->index.n; i++) {
		path->n = n;
		text_add(path, fc->index.v[i]);
		f = file_find(root, text_slice(path));
		if (f->err != ENOENT && f->err != EISDIR)
			return f;
		file_give(f);
	}
	path->n = n;
	return file_find(root, text_slice(path));
}

/* Answers with the file at path, which is normal. */
static enum step
gate_files(struct exchange *x, const struct head *h, struct slice path)
{
	static char buf[TARGET_MAX];
	struct text t = { buf, 0, sizeof buf - NAME_MAX, false };
	const struct files_conf *fc = &x->route->files;
	unsigned root = (unsigned)(x->route - conf->table.routes);
	struct file *f = NULL;
	int err = ENOENT;

	if (h->method != M_GET && h->method != M_HEAD)
		return exchange_error(x, 405, "files can be read, not changed", S("Allow: GET, HEAD\r\n"));
	if (route_file(&t, x, path) && (fc->dot_files || !file_is_hidden(text_slice(&t)))) {
		f = t.n == 0 || t.p[t.n - 1] == '/' ? file_of_directory(root, fc, &t)
		    : file_find(root, text_slice(&t));
		err = f->err;
	}
	if (err == EISDIR && t.n > 0 && t.p[t.n - 1] != '/') {
		file_give(f);
		return gate_slash(x, h);
	}
	if (err == EISDIR && fc->listing) {
		file_give(f);
		return gate_listing(x, h, root, text_slice(&t));
	}
	if (err != 0 && f)
		file_give(f);
	if ((file_status(err) == 404 || err == EISDIR) && fc->fallback.n > 0) {
		f = file_find(root, slice_from(fc->fallback, fc->fallback.p[0] == '/'));
		if ((err = f->err) != 0)
			file_give(f);
	}
	return err ? exchange_error(x, file_status(err), strerror(err), S(""))
	    : exchange_file(x, h, f, fc);
}

/* ---- before any route ---- */

/* host may be requested on a connection whose handshake named `asked`, or nothing:
 * host is that name, or the certificate shown covers it as well. An address cannot
 * be named. */
static bool
host_is_served(const struct cert_set *set, struct slice asked, struct slice host)
{
	bool v6 = host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';
	struct ip ip;
	int best;

	if (host.n == 0 || slice_eq(asked, host))
		return true; /* without a Host no other host is reached */
	if (asked.n == 0 &&
	    ip_parse(v6 ? (struct slice){ host.p + 1, host.n - 2 } : host, &ip))
		return true;
	best = cert_best(set, asked);
	for (int i = 0; i < set->n; i++)
		if (cert_rank(set, &set->v[i], asked) == best && cert_covers(&set->v[i], host) > 0)
			return true;
	return false;
}

/* Where certificates decide who may see what, a connection made for one host
 * does not lead to another. RFC 9110 7.4. */
static bool
gate_misdirects(const struct exchange *x)
{
	const struct tls *tls = x->c->s.ch.tls;
	char name[256];

	if (!tls || !conf->tls.set || (!conf->tls.strict_sni && !conf->tls.clients))
		return false;
	return !host_is_served(conf->tls.set, tls_name(&tls->c.eng, name), host_normal(x->host));
}

/* Whether a good certificate is shown for that host, not the one that warp signed
 * itself until ACME gets another. */
static bool
host_has_cert(const struct cert_set *set, struct slice host)
{
	int best = set ? cert_best(set, host) : RANK_OTHER;

	if (conf->tls.strict_sni && best < RANK_WILD)
		return false; /* its handshake would be refused */
	for (int i = 0; set && i < set->n; i++)
		if (cert_rank(set, &set->v[i], host) == best && set->v[i].origin != CERT_MADE)
			return true;
	return false;
}

/* Whether a trusted proxy says that its client came by https: a redirect to https
 * would never end. */
static bool
came_by_https(const struct exchange *x, const struct head *h)
{
	struct forwarded said;
	struct ip client = x->c->peer;

	if (!peer_is_trusted(x->c))
		return false;
	if (h->count[F_X_FORWARDED_PROTO] == 0 && h->count[F_X_FORWARDED_FOR] == 0)
		return forwarded_find(h, &said, &client) && slice_ieq(said.proto, S("https"));
	return h->count[F_X_FORWARDED_PROTO] == 1 &&
	    slice_ieq(head_field(h, F_X_FORWARDED_PROTO)->value, S("https"));
}

/* Whether x came by plain http and is sent to https. In front of a unix socket (no
 * port) is a proxy, which decides that itself. */
static bool
gate_to_https(const struct exchange *x, const struct head *h)
{
	const struct tls_conf *t = &conf->tls;

	return t->on && t->redirect && t->redirect_port > 0 && !conn_is_tls(x->c) &&
	    x->c->listener->port > 0 && (h->form == TARGET_ORIGIN || h->form == TARGET_ABSOLUTE) &&
	    !came_by_https(x, h) && host_has_cert(t->set, host_normal(x->host));
}

/* The same target's URL by https. */
static void
https_write(struct text *t, const struct exchange *x, const struct head *h)
{
	struct slice host = host_normal(x->host);

	text_add(t, S("https://"));
	text_add(t, host);
	if (conf->tls.redirect_port != HTTPS_PORT) {
		text_char(t, ':');
		text_uint(t, conf->tls.redirect_port);
	}
	text_add(t, h->form == TARGET_ORIGIN ? h->target : h->path);
	if (h->form != TARGET_ORIGIN && h->has_query) {
		text_char(t, '?');
		text_add(t, h->query);
	}
}

static enum step
gate_secure(struct exchange *x, const struct head *h)
{
	static char buf[TARGET_MAX + HOST_MAX];
	struct text t = { buf, 0, sizeof buf, false };

	if (host_normal(x->host).n == 0)
		return exchange_error(x, 400, "it says no Host, which https needs", S(""));
	text_add(&t, S("Location: "));
	https_write(&t, x, h);
	text_add(&t, S("\r\n"));
	if (t.full)
		return exchange_error(x, 414, "the redirect to https is too long", S(""));
	return exchange_error(x, 308, "", text_slice(&t));
}

/* Answers an ACME challenge, whatever the routes say. STEP_WAIT: it is none of
 * ours. RFC 8555 8.3. */
static enum step
gate_challenge(struct exchange *x, const struct head *h)
{
	struct slice dir = S("/.well-known/acme-challenge/");
	char b[ACME_TOKEN_MAX], *copy;
	size_t n;

	if ((h->method != M_GET && h->method != M_HEAD) || !slice_starts(h->path, dir) ||
	    !challenge_answer(S(""), slice_from(h->path, dir.n), b))
		return STEP_WAIT;
	n = strlen(b);
	copy = xcalloc(1, n + 1);
	memcpy(copy, b, n);
	return exchange_answer(x, &(struct answer){ .status = 200, .body = { copy, n },
	    .content_type = S("application/octet-stream"), .owned = copy });
}

/* Answers what no route decides. STEP_WAIT: the route does. */
static enum step
gate_before(struct exchange *x, const struct head *h)
{
	enum step s = gate_challenge(x, h);

	if (s != STEP_WAIT)
		return s;
	if (gate_misdirects(x))
		return exchange_error(x, 421, "this connection was made for another host", S(""));
	return gate_to_https(x, h) ? gate_secure(x, h) : STEP_WAIT;
}

/* x->route is chosen; path is the normalised one. */
static enum step
gate_pass(struct exchange *x, const struct head *h, struct slice path, bool authed)
{
	enum step s = gate_guard(x, h, authed);

	if (s != STEP_WAIT)
		return s;
	switch (x->route->action) {
	case ACT_FILES:
		return gate_files(x, h, path);
	case ACT_REDIRECT:
		return gate_redirect(x, h);
	case ACT_RESPOND:
		return exchange_answer(x, &(struct answer){ .status = x->route->status,
		    .content_type = x->route->content_type, .body = x->route->body });
	case ACT_ADMIN:
		return admin_serve(x, h, slice_from(path, conf->admin.expose.n), true);
	default:
		return gate_forward(x, h);
	}
}

static enum step
gate_route(struct exchange *x, const struct head *h)
{
	struct path_view view;
	size_t i;

	if (!path_of(h, &view))
		return exchange_error(x, 400, "the path is malformed", S(""));
	x->route = route_find(&conf->table, h, view.path, &x->client);
	if (route_fault)
		return exchange_error(x, 503, "no memory to choose a route",
		    S("Retry-After: 1\r\n"));
	if (!x->route)
		return exchange_error(x, conf->server.no_route_status, "no route matches", S(""));
	i = (size_t)(x->route - conf->table.routes);
	if (i < ROUTE_HITS && !draining) /* else its half of the hits may be another configuration's */
		wide_add(&board->hits[conf->hits_half][i], 1);
	return gate_pass(x, h, view.path, false);
}

/* Goes on with x, whose password was checked. */
static enum step
gate_admit(struct exchange *x, bool good)
{
	const struct head *h = exchange_request(x);
	struct path_view view;

	x->auth = NULL;
	if (!good || !path_of(h, &view)) /* it was good before */
		return gate_password(x, AUTH_NO);
	return gate_pass(x, h, view.path, true);
}

/* Routes x, whose head is req, or answers it. */
static enum step
gate_enter(struct exchange *x)
{
	struct head *h = exchange_request(x);
	int err = body_of_request(&x->up.body, h);
	const struct field *expect = head_field(h, F_EXPECT);
	enum step s;

	x->wants_close = !client_keeps(x, h);
	x->keep = !x->wants_close && !draining && err >= 0;
	x->body_whole = err == 0 && x->up.body.done;
	request_id(x, h);
	if (err < 0)
		return exchange_error(x, -err, "the request's framing is refused", S(""));
	x->client = client_of(&x->c->peer, h);
	if (expect && (h->count[F_EXPECT] > 1 || !slice_ieq(expect->value, S("100-continue")))) {
		x->keep = false; /* its body may come or not */
		return exchange_error(x, 417, "only 100-continue can be expected", S(""));
	}
	if (h->form == TARGET_ASTERISK)
		return exchange_answer(x, &(struct answer){ .status = 204,
		    .extra = S("Allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS\r\n") });
	return (s = gate_before(x, h)) != STEP_WAIT ? s : gate_route(x, h);
}

/* The same for the admin listener, which has no routes. */
static enum step
admin_enter(struct exchange *x)
{
	struct head *h = exchange_request(x);

	x->admin = true;
	x->wants_close = !client_keeps(x, h);
	x->keep = !x->wants_close && !draining;
	if (body_of_request(&x->up.body, h) < 0)
		return exchange_error(x, 400, "bad framing", S(""));
	x->body_whole = x->up.body.done;
	return admin_serve(x, h, h->path, false);
}

/* ==== http front =============================================================
 * Owns    client connections and the listeners' watches.
 * Offers  front_open, front_drain, front_told, front_wake, front_settle, n_conns.
 * Calls   clock, log, http, addr, proxy, board, timer, loop, buf, tls, chan, pool,
 *         auth, heads, flight, hold, exchange, admin front, gate. The doors: what poll and
 *         the timers say arrives here first. */

#define EVICT_TRIES 16 /* idle clients looked at to find a silent one */

static struct slots conns = { .size = sizeof(struct conn),
	.next_at = offsetof(struct conn, link) };
static uint32_t n_conns;
static struct listener *listeners;
static int n_listeners;
static struct timer accept_again; /* runs: out of descriptors, no accept */

static struct seats seats[LISTENER_KINDS];

static struct seats *
seats_of(const struct conn *c)
{
	return &seats[c->listener->kind];
}

/* Watches listeners of this kind while a new client could have a place. */
static void
accept_settle(enum listener_kind kind)
{
	struct seats *p = &seats[kind];
	bool on = !draining && !accept_again.list && (p->n < p->max || link_first(&p->idle));

	if (on == p->accepting)
		return;
	p->accepting = on;
	for (int i = 0; i < n_listeners; i++)
		if (listeners[i].kind == kind && on)
			loop_watch(&listeners[i].w, POLLIN);
		else if (listeners[i].kind == kind)
			loop_unwatch(&listeners[i].w);
}

static void
accept_due(struct timer *t)
{
	(void)t;
	for (int i = 0; i < LISTENER_KINDS; i++)
		accept_settle((enum listener_kind)i);
}

static void
conn_turns(struct conn *c, bool idles)
{
	if ((c->link.next != NULL) == idles)
		return;
	if (idles)
		link_add(&seats_of(c)->idle, &c->link);
	else
		link_drop(&c->link);
	if (seats_of(c)->n >= seats_of(c)->max)
		accept_settle(c->listener->kind);
}

static void
conn_close(struct conn *c)
{
	enum listener_kind kind = c->listener->kind;

	admin_left(c);
	side_close(&c->s);
	wide_count(&me->handshakes_failed, c->state == CONN_TLS);
	c->state = CONN_FREE;
	link_drop(&c->link);
	slot_give(&conns, c);
	n_conns--;
	seats[kind].n--;
	COUNT(me->connections, -1u);
	accept_settle(kind);
}

/* c is between requests. */
static void
conn_rest(struct conn *c)
{
	uint32_t keep = c->served ? conf->server.keepalive_ms : conf->server.header_ms;

	if (c->state == CONN_HEAD)
		return;
	conn_turns(c, c->state == CONN_IDLE);
	loop_watch(&c->s.ch.w, POLLIN);
	timer_set(&c->s.timer, draining ? MIN(keep, (uint32_t)DRAIN_IDLE_MS) : keep);
}

/* c is answered, but the client may still be sending: a reset now would lose the
 * answer. RFC 9112 9.6. */
static void
conn_linger(struct conn *c)
{
	buf_free(&c->s.src.in);
	if (chan_shutdown(&c->s.ch) < 0) {
		conn_close(c);
		return;
	}
	tls_free(&c->s.ch); /* what comes is not looked at */
	c->linger_by_ms = now_ms + LINGER_ALL_MS;
	loop_watch(&c->s.ch.w, POLLIN);
	timer_set(&c->s.timer, LINGER_MS);
}

static void
conn_linger_read(struct conn *c)
{
	ssize_t got = side_fill(&c->s);

	buf_free(&c->s.src.in);
	if (got < 0 || now_ms > c->linger_by_ms)
		conn_close(c);
	else
		timer_set(&c->s.timer, LINGER_MS);
}

/* ---- HTTP/1 ---- */

/* See struct front; within max_header_bytes. */
static int
http_parse(struct head *h, struct slice in, uint32_t *scanned)
{
	uint32_t max = conf->server.max_header_bytes;
	int n = *scanned > 0 ? head_scan(in, scanned) : -1;

	if (n != 0 && (n = request_parse(h, in)) == 0 && head_scan(in, scanned) < 0)
		return -400;
	if ((n == 0 ? in.n : (size_t)MAX(n, 0)) <= max)
		return n;
	snprintf(head_fault, sizeof head_fault, "the request head is too long");
	return n > 0 || memchr(in.p, '\n', in.n) ? -431 : -414;
}

/* What came is no request: answers so, then ends the connection. */
static void
conn_refuse(struct conn *c, int status, const char *cause)
{
	struct exchange *x;

	buf_free(&c->s.src.in);
	x = exchange_new(c, 0);
	x->up.body.kind = BODY_CLOSE; /* unknown: the rest is not looked at */
	x->minor = 1;
	if (exchange_error(x, status, cause, S("")) != STEP_DONE)
		exchange_run(x);
}

/* Goes on with the TLS handshake; the first request may have come with it. */
static void
conn_shake(struct conn *c)
{
	static time_t said_s;
	char why[WHY_MAX], ip[INET6_ADDRSTRLEN];
	struct text t = { ip, 0, sizeof ip, false };
	const char *name;

	switch (tls_shake(&c->s.ch)) {
	case SHAKE_DONE:
		wide_count(&me->handshakes, 1);
		wide_count(&me->resumed, c->s.ch.tls->resumed);
		c->state = CONN_IDLE;
		if (side_fill(&c->s) < 0)
			conn_close(c);
		return;
	case SHAKE_WAITS:
		loop_watch(&c->s.ch.w, c->s.ch.waits ? POLLOUT : POLLIN);
		timer_keep(&c->s.timer, conf->server.header_ms); /* for all of it */
		return;
	case SHAKE_PLAIN:
		side_plain(&c->s);
		c->listener->front->refuse(c, 400, "plain HTTP was sent to an https port");
		return;
	case SHAKE_FAILED:
		ip_text(&t, &c->peer);
		if (c->s.ch.tls->err && said_s != now_s) { /* scanners never end */
			said_s = now_s;
			tls_why(&c->s.ch, why, sizeof why);
			name = c->s.ch.tls->c.eng.server_name;
			log_info("no TLS with %.*s%s%s: %s", (int)t.n, t.p,
			    *name ? ", who asked for " : "", name, why);
		}
		conn_close(c);
	}
}

/* Begins TLS on c. At TLS_HANDSHAKES_MAX the oldest handshake makes way. */
static void
conn_tls(struct conn *c)
{
	struct chan *oldest = tls_oldest();

	if (oldest) {
		warn_calmly(&calm_local, "%d TLS handshakes are under way: the oldest are dropped",
		    TLS_HANDSHAKES_MAX);
		conn_close((struct conn *)oldest);
	}
	c->state = CONN_TLS;
	if (side_tls(&c->s)) {
		timer_set(&c->s.timer, conf->server.header_ms);
		return;
	}
	warn_calmly(&calm_local, "no room for one more TLS connection");
	conn_close(c);
}

/* Part of a head: more must come, in time. */
static void
conn_more(struct conn *c)
{
	if (c->state == CONN_HEAD)
		return;
	c->state = CONN_HEAD;
	loop_watch(&c->s.ch.w, POLLIN);
	timer_set(&c->s.timer, conf->server.header_ms);
}

/* Takes a PROXY header off the front. False: not whole yet, or refused. */
static bool
conn_proxy(struct conn *c)
{
	struct ip src = { { 0 } }, dst = { { 0 } };
	uint16_t sport = 0, dport = 0;
	int n = proxy_parse(buf_slice(&c->s.src.in), &src, &sport, &dst, &dport);

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
		c->dest = dst;
		c->dest_port = dport;
	}
	buf_eat(&c->s.src.in, (size_t)n);
	c->state = CONN_IDLE;
	if (c->listener->tls)
		conn_tls(c);
	return true;
}

/* Starts the next request, if its head is whole. False: not yet. */
static bool
conn_request(struct conn *c)
{
	const struct front *front = c->listener->front;
	struct exchange *x;
	int n;

	if (c->state == CONN_PROXY)
		return conn_proxy(c);
	req_of = NULL;
	n = front->parse(&req, buf_slice(&c->s.src.in), &c->scanned);
	if (n == 0) {
		conn_more(c);
		return false;
	}
	c->scanned = 0;
	if (n < 0) {
		front->refuse(c, -n, head_fault);
		return false;
	}
	x = exchange_new(c, (size_t)n);
	if (front->enter(x) != STEP_DONE)
		exchange_run(x);
	return true;
}

static const struct front fronts[LISTENER_KINDS] = {
	[LISTEN_HTTP] = { http_parse, conn_refuse, gate_enter },
	[LISTEN_ADMIN] = { http_parse, conn_refuse, admin_enter },
};

/* c has more requests: other connections come first. */
static void
conn_yield(struct conn *c)
{
	loop_watch(&c->s.ch.w, POLLIN);
	loop_inside(&c->s.ch.w, true);
	timer_keep(&c->s.timer, conf->server.header_ms);
}

/* Goes on with c after whatever happened to it. */
static void
conn_go(struct conn *c)
{
	uint32_t until = c->served + PIPELINE_TURN;

	while (c->state != CONN_FREE && !c->s.x) {
		if (c->state == CONN_CLOSE) {
			conn_close(c);
			return;
		}
		if (c->state == CONN_LINGER) {
			conn_linger(c);
			return;
		}
		if (c->state == CONN_TLS) {
			conn_shake(c);
			if (c->state == CONN_TLS)
				return;
			continue;
		}
		if (c->s.src.in.n == 0) {
			conn_rest(c);
			return;
		}
		if (c->served == until && c->state == CONN_IDLE) {
			conn_yield(c);
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
	bool more = c->state == CONN_IDLE && c->s.src.in.n > 0; /* since conn_yield */
	ssize_t got = 1;

	conn_turns(c, false);
	if (!c->s.ch.tls)
		loop_inside(w, false); /* after conn_yield */
	if (c->s.x) {
		exchange_client_event(c->s.x, revents);
	} else if (c->state == CONN_LINGER) {
		conn_linger_read(c);
		got = 0;
	} else if (c->state != CONN_TLS && (got = side_fill(&c->s)) < 0)
		conn_close(c);
	if (got != 0 || more || !c->s.timer.list) /* part of a record lets no deadline start anew */
		conn_go(c);
	else if (c->state == CONN_IDLE)
		conn_turns(c, true); /* it has said nothing yet */
	scratch_settle();
}

static void
conn_due(struct timer *t)
{
	struct conn *c = OWNER(t, struct conn, s.timer);

	if (c->s.x)
		exchange_client_due(c->s.x);
	else if (c->state == CONN_HEAD)
		c->listener->front->refuse(c, 408, "the request head did not come in time");
	else
		conn_close(c);
	conn_go(c);
	scratch_settle();
}

static void
upconn_ready(struct watch *w, short revents)
{
	struct side *u = (struct side *)w;
	struct exchange *x = u->x;
	struct conn *c = x->c;

	u->hup |= (revents & (POLLERR | POLLHUP | POLLNVAL)) != 0;
	x->u_events = revents;
	x->u_ready = revents & (POLLIN | POLLHUP | POLLERR);
	if (revents & POLLOUT && x->state != X_CONNECT && (u->ch.waits || x->up.pipe)) {
		x->c_ready = chan_flush(&u->ch) && x->up.state == FLOW_ON;
		if (u->ch.broken) { /* it may have answered before it left */
			x->up.state = FLOW_CUT;
			u->ch.broken = false;
			chan_forget(&u->ch);
		}
	}
	exchange_run(x);
	conn_go(c);
	scratch_settle();
}

static void
upconn_due(struct timer *t)
{
	struct exchange *x = OWNER(t, struct side, timer)->x;
	struct conn *c = x->c;

	if (exchange_upstream_late(x) != STEP_DONE)
		exchange_run(x);
	conn_go(c);
	scratch_settle();
}

static void
conn_open(struct listener *l, int fd, const union sock *peer)
{
	struct conn *c = slot_take(&conns);

	*c = (struct conn){ .listener = l };
	side_open(&c->s, fd, conn_ready);
	c->s.timer.fire = conn_due;
	if (peer->sa.sa_family != AF_UNIX)
		c->peer = ip_of_sock(peer, &c->peer_port);
	c->state = conf->server.proxy_protocol && l->kind == LISTEN_HTTP ? CONN_PROXY : CONN_IDLE;
	n_conns++;
	seats[l->kind].n++;
	COUNT(me->connections, 1);
	wide_count(&me->accepted, 1);
	if (l->tls && c->state == CONN_IDLE)
		conn_tls(c);
	if (c->state == CONN_FREE)
		return;
	conn_ready(&c->s.ch.w, POLLIN); /* the request is often here already */
}

/* The client idle for longest makes way, unless it has just spoken. False: none
 * is idle. */
static bool
conn_evict(enum listener_kind kind)
{
	struct link *idle = &seats[kind].idle, *l = idle->prev;
	char byte;

	if (!link_first(idle))
		return false;
	for (int i = 0; i < EVICT_TRIES && l->prev != idle && recv(OWNER(l, struct conn,
	    link)->s.ch.w.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0; i++)
		l = l->prev;
	conn_close(OWNER(l, struct conn, link));
	return true;
}

/* Out of descriptors or memory: an idle client makes way, or none is accepted for
 * ACCEPT_RETRY_MS. */
static void
accept_pause(void)
{
	static int64_t said_ms = -MINUTE_S * SECOND_MS;

	if (conn_evict(LISTEN_HTTP))
		return;
	wide_count(&me->refused, 1);
	if (now_ms - said_ms >= MINUTE_S * SECOND_MS) {
		log_errno("accept; clients wait, raise the limit of open files");
		said_ms = now_ms;
	}
	timer_set(&accept_again, ACCEPT_RETRY_MS);
	accept_due(NULL);
}

/* Accepts one batch at l: whether there may be more. */
static bool
listener_take(struct listener *l)
{
	struct seats *p = &seats[l->kind];
	union sock peer;
	socklen_t n;
	int fd;

	for (int i = 0; i < ACCEPT_BATCH; i++) {
		if (p->n == p->max && !link_first(&p->idle)) {
			accept_settle(l->kind);
			return false;
		}
		n = sizeof peer;
		peer.sa.sa_family = AF_UNIX;
		fd = accept4(l->fd, &peer.sa, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			if (p->n == p->max)
				conn_evict(l->kind);
			conn_open(l, fd, &peer);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			accept_pause();
		if (errno != EINTR && errno != ECONNABORTED && errno != EPROTO)
			return false;
	}
	return true;
}

static void
listener_ready(struct watch *w, short revents)
{
	(void)revents;
	listener_take((struct listener *)w);
}

static void
front_open(struct listener *ls, int n, uint32_t clients)
{
	listeners = ls;
	n_listeners = n;
	seats[LISTEN_HTTP].max = clients;
	seats[LISTEN_ADMIN].max = ADMIN_PLACES;
	conns.most = clients + ADMIN_PLACES;
	conns.v = map_zeroed(conns.most * conns.size);
	upstream_door = upconn_ready;
	upstream_due = upconn_due;
	accept_again.fire = accept_due;
	for (int i = 0; i < n; i++) {
		ls[i].w = (struct watch){ .fd = ls[i].fd, .slot = -1, .ready = listener_ready };
		ls[i].front = &fronts[ls[i].kind];
	}
	accept_due(NULL);
}

/* Accepts no more clients, except those that wait at listeners which are gone (the
 * bits): no other worker would take them. Idle clients may close in peace. */
static void
front_drain(uint64_t gone)
{
	for (int i = 0; i < n_listeners; i++)
		for (int left = LISTEN_BACKLOG; gone >> i & 1 && left > 0; left -= ACCEPT_BATCH)
			if (!listener_take(&listeners[i]))
				break;
	draining = true;
	timer_clear(&accept_again);
	accept_due(NULL);
	for (int i = 0; i < n_listeners; i++)
		close(listeners[i].fd);
	for (int i = 0; i < LISTENER_KINDS; i++)
		for (struct link *l = seats[i].idle.next; l && l != &seats[i].idle; l = l->next)
			conn_rest(OWNER(l, struct conn, link));
}

/* x was held: it goes on, or (over) is answered, for it waited too long. Returns
 * whether it has to wait on. */
static bool
front_go_on(struct exchange *x, bool over)
{
	struct conn *c = x->c;
	bool waits;

	hold_leave(x);
	exchange_enter(x, X_PICK);
	if (!over || exchange_failed(x, x->held_status) != STEP_DONE)
		exchange_run(x);
	waits = c->s.x == x && x->state == X_HOLD;
	conn_go(c);
	scratch_settle();
	return waits;
}

/* Releases requests that waited too long and q->go more, the oldest first. When
 * one has to wait on, so do those behind it. */
static void
front_release(struct queue *q)
{
	struct link *first;

	while ((first = link_first(&q->ring))) {
		struct exchange *x = OWNER(first, struct exchange, wait.link);
		bool over = hold_is_over(x);
		if (!over && q->go == 0)
			break;
		q->go -= !over;
		if (front_go_on(x, over))
			q->go = 0;
	}
	q->go = 0;
}

/* Lets the oldest held request of each upstream try again. */
static void
front_wake(const struct conf *cf)
{
	for (int i = 0; i < cf->n_upstreams; i++)
		queue_wake(&cf->upstreams[i].roster->queue, 1);
}

/* Passwords get their share of this turn. */
static void
front_admit(void)
{
	bool good = false;

	if (!auth_busy())
		return;
	for (struct exchange *x = auth_work(&good), *next; x; x = next) {
		struct conn *c = x->c;
		next = x->auth_next;
		if (gate_admit(x, good) != STEP_DONE)
			exchange_run(x);
		conn_go(c);
		scratch_settle();
	}
}

/* After a turn of the loop: goes on with requests that waited. Returns ms until
 * it wants to be called again; -1: after the next event. */
static int
front_settle(const struct conf *cf)
{
	while (held_news) {
		held_news = false;
		for (int i = 0; i < cf->n_upstreams; i++)
			front_release(&cf->upstreams[i].roster->queue);
	}
	front_admit();
	quiet_due = quiet_due && !master_tell(CTL_QUIET, "");
	return auth_busy() ? 0 : quiet_due ? HELD_AGAIN_MS : -1;
}

static void
front_told(struct slice word)
{
	struct conn *c = admin_told(word);

	if (c)
		conn_go(c);
}

/* ==== health =================================================================
 * Owns    the probes: one for each instance whose upstream has checks.
 * Offers  health_count, health_look, health_stop.
 * Calls   base, arena, clock, log, http, proxy, board, timer, loop, buf, tls,
 *         chan, pool, heads, exchange. Only one worker checks, the one that
 *         the master chose. Results are on the board, so that the next worker
 *         to check goes on from them. */

static struct probe *probes; /* NULL: this worker does not check */
static int n_probes;
static struct timer health_timer; /* for all probes; see health_arm */
static bool health_untold; /* the master has still to be told of a change */

/* Probes that may run at one time. */
static int
health_count(const struct conf *cf)
{
	int n = 0;

	for (int i = 0; i < cf->n_upstreams; i++)
		n += cf->upstreams[i].health.on ? cf->upstreams[i].n_instances : 0;
	return n;
}

/* The longest of a few waits that is not too long for left_ms: few lengths take
 * few timer lists. */
static uint32_t
tick_ms(int64_t left_ms)
{
	uint32_t ms = PROBE_TICK_MS;

	while (2 * ms <= PROBE_TICK_MAX_MS && 2 * (int64_t)ms <= left_ms)
		ms *= 2;
	return ms;
}

/* Wakes when the first probe is due, or before. */
static void
health_arm(void)
{
	int64_t next = INT64_MAX;

	for (int i = 0; i < n_probes; i++)
		next = MIN(next, probes[i].due_ms);
	if (n_probes > 0)
		timer_set(&health_timer, tick_ms(next - now_ms));
}

/* ---- verdicts ---- */

/* Time from one probe to the next. first: any part of an interval, so that probes
 * that began together spread. */
static uint32_t
interval_ms(const struct health_conf *h, bool first)
{
	uint32_t ms = h->interval_ms, off = ms / PROBE_JITTER;

	if (!h->jitter)
		return ms;
	if (first)
		return (uint32_t)(random_next() % ms) + 1;
	return ms - off + (uint32_t)(random_next() % (2 * off + 1));
}

/* Whether p's process waits for its first good check. */
static bool
probe_hurries(const struct probe *p)
{
	const struct board_instance *b = p->in->board;

	return (b->run == RUN_STARTING && b->health != HEALTH_UP) ||
	    (b->run == RUN_UP && b->health == HEALTH_UNKNOWN);
}

/* Whether p is not asked now: its process is off or draining. */
static bool
probe_pauses(const struct probe *p)
{
	int run = p->in->board->run;

	return run == RUN_OFF || run == RUN_DRAINING;
}

/* Closes p's connection; the next probe starts an interval after this one began,
 * or at once if it took longer. */
static void
probe_rest(struct probe *p)
{
	const struct health_conf *h = &p->in->up->health;
	uint32_t wait = interval_ms(h, p->spreads);

	side_close(&p->s);
	p->state = PROBE_REST;
	if (probe_hurries(p))
		wait = MIN(h->interval_ms, (uint32_t)PROBE_AGAIN_MS);
	else
		p->spreads = false;
	p->due_ms = MAX(now_ms, p->began_ms + wait);
}

/* Tells the master of a change; see health_untold. */
static void
health_tell(void)
{
	health_untold = !master_tell(CTL_HEALTH, "");
}

/* When an instance is back, slow_start_secs count from now. */
static void
health_set(struct board_instance *b, enum health to)
{
	if (to == HEALTH_UP && (b->health == HEALTH_DOWN || b->run != RUN_NONE))
		b->up_since_ms = clock_low(now_ms);
	b->health = (int)to;
	board_changed();
	health_tell();
}

static void
probe_passed(struct probe *p)
{
	struct instance *in = p->in;
	struct board_instance *b = in->board;

	if (!probe_pauses(p)) {
		b->check_fails = 0;
		b->check_passes++;
		p->said = false;
		board_text_set(&b->check_why, S(""));
		b->checked_ms = clock_low(now_ms);
		if (b->health != HEALTH_UP && b->check_passes >= in->up->health.healthy) {
			bool again = b->health == HEALTH_DOWN;
			health_set(b, HEALTH_UP);
			if (again)
				log_info("upstream %s: %s is up again", in->up->name,
				    instance_text(in));
		}
	}
	probe_rest(p);
}

/* Records why. An instance whose process has not been up yet gets no requests: it
 * does not go down, it stays unknown. */
__attribute__((format(printf, 2, 3))) static void
probe_failed(struct probe *p, const char *fmt, ...)
{
	struct instance *in = p->in;
	struct board_instance *b = in->board;
	const struct health_conf *h = &in->up->health;
	bool fresh = b->health == HEALTH_UNKNOWN && b->run != RUN_NONE;
	char why[WHY_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof why, fmt, ap);
	va_end(ap);
	if (!probe_pauses(p)) {
		b->check_passes = 0;
		b->check_fails++;
		board_text_set(&b->check_why, slice_of(why));
		b->checked_ms = clock_low(now_ms);
		if (fresh && !p->said && b->check_fails >= h->unhealthy && b->run == RUN_UP) {
			log_warn("upstream %s: %s runs, but its checks fail: %s (%u times)",
			    in->up->name, instance_text(in), why, b->check_fails);
			p->said = true;
		}
		if (!fresh && b->health != HEALTH_DOWN && b->check_fails >= h->unhealthy) {
			health_set(b, HEALTH_DOWN);
			log_warn("upstream %s: %s is down: %s (%u of %u)", in->up->name,
			    instance_text(in), why, b->check_fails, h->unhealthy);
		}
	}
	probe_rest(p);
}

/* The time of p is over: says what did not come. */
static void
probe_late(struct probe *p)
{
	double s = (double)p->in->up->health.timeout_ms / SECOND_MS;

	if (p->state == PROBE_CONNECT)
		probe_failed(p, "no connection in %g s", s);
	else if (p->state == PROBE_SHAKE)
		probe_failed(p, "no TLS handshake in %g s", s);
	else if (p->s.src.in.n > 0 || p->skipped > 0)
		probe_failed(p, "no whole answer in %g s", s);
	else
		probe_failed(p, "no answer in %g s", s);
}

/* ---- the answer ---- */

static bool
status_expected(const struct health_conf *h, int status)
{
	for (int i = 0; i < h->n_expect; i++)
		if (status >= h->expect[i].from && status <= h->expect[i].to)
			return true;
	return false;
}

/* The connection ended before a whole head came. */
static void
probe_cut(struct probe *p)
{
	probe_failed(p, p->s.src.in.n + p->skipped > 0 ? "closed within its answer"
	                                            : "closed without an answer");
}

/* Looks at what is there: a final head decides, its body is not read. The
 * parsed head (res) is shared with the exchanges: nothing is kept in it beyond
 * one event, and this is an event of its own. */
static void
probe_parse(struct probe *p)
{
	const struct health_conf *h = &p->in->up->health;
	struct buf *in = &p->s.src.in;
	struct body body;
	int n;

	while ((n = response_parse(&res, buf_slice(in))) > 0) {
		p->skipped += (uint32_t)n;
		if ((uint32_t)n > conf->server.max_header_bytes || p->skipped > PROBE_HEADS_MAX)
			break;
		if (res.status >= 200 || res.status == 101) {
			if (res.status >= 200 && body_of_response(&body, &res, M_GET) < 0)
				probe_failed(p, "sent %s", head_fault);
			else if (status_expected(h, res.status))
				probe_passed(p);
			else
				probe_failed(p, "status %d", res.status);
			return;
		}
		buf_eat(in, (size_t)n);
	}
	if (n < 0)
		probe_failed(p, "sent %s", head_fault);
	else if (MAX(in->n, (uint32_t)n) > conf->server.max_header_bytes)
		probe_failed(p, "sent a head too long");
	else if (p->skipped > PROBE_HEADS_MAX)
		probe_failed(p, "sent 1xx without end");
	else if (p->s.src.end)
		probe_cut(p);
	else
		loop_watch(&p->s.ch.w, p->s.ch.waits ? POLLIN | POLLOUT : POLLIN);
}

/* Sends what waits, reads what came: a backend that no longer reads may have
 * answered before. */
static void
probe_answer(struct probe *p)
{
	ssize_t got;

	chan_flush(&p->s.ch);
	got = side_fill(&p->s);
	if (p->s.src.in.n > 0)
		probe_parse(p);
	else if (got < 0)
		probe_cut(p);
	else
		loop_watch(&p->s.ch.w, p->s.ch.waits ? POLLIN | POLLOUT : POLLIN);
}

/* ---- the request ---- */

/* Host: health.host, or the own name with the probed port. */
static void
probe_host_write(struct text *t, const struct probe *p)
{
	const struct health_conf *h = &p->in->up->health;
	const struct addr *a = &p->in->addr;

	text_str(t, "Host: ");
	if (h->host.n > 0)
		text_add(t, h->host);
	else if (h->port > 0 && a->host)
		text_fmt(t, strchr(a->host, ':') ? "[%s]:%u" : "%s:%u", a->host, h->port);
	else
		text_add(t, upstream_host(p->in));
	text_str(t, "\r\n");
}

static void
probe_proxy_write(struct text *t, const struct probe *p)
{
	static const struct ip nobody;
	const struct upstream *up = p->in->up;

	if (up->proxy_out != PROXY_OUT_NONE)
		proxy_write(t, up->proxy_out == PROXY_OUT_V1 ? 1 : 2, &nobody, 0, &nobody, 0);
}

static void
probe_request_write(struct text *t, const struct probe *p)
{
	const struct upstream *up = p->in->up;

	if (!p->s.ch.tls)
		probe_proxy_write(t, p);
	text_add(t, up->health.method);
	text_char(t, ' ');
	text_str(t, up->health.path);
	text_str(t, " HTTP/1.1\r\n");
	probe_host_write(t, p);
	text_str(t, "User-Agent: warp/" VERSION " (health)\r\nConnection: close\r\n\r\n");
}

/* Sends what `write` makes of p. The head being written (head_out) is shared with
 * the exchanges, as res is. */
static bool
probe_send(struct probe *p, void (*write)(struct text *, const struct probe *))
{
	struct iovec v;

	write(head_begin(), p);
	v = (struct iovec){ head_out.p, head_out.n };
	return !head_out.full && (v.iov_len == 0 || chan_send(&p->s.ch, &v, 1, NULL) == 0);
}

/* The connection is there, with TLS if due: that is all, or the request is
 * sent. */
static void
probe_ask(struct probe *p)
{
	if (!p->in->up->health.path) {
		probe_passed(p);
		return;
	}
	p->state = PROBE_ANSWER;
	if (!probe_send(p, probe_request_write)) {
		if (head_out.full)
			probe_failed(p, "its request does not fit"); /* see PROBE_TEXT_MAX */
		else
			probe_answer(p); /* it may have answered */
		return;
	}
	loop_watch(&p->s.ch.w, p->s.ch.waits ? POLLIN | POLLOUT : POLLIN);
}

/* Goes on with the handshake. */
static void
probe_shake(struct probe *p)
{
	char why[WHY_MAX];

	switch (tls_shake(&p->s.ch)) {
	case SHAKE_DONE:
		probe_ask(p);
		return;
	case SHAKE_WAITS:
		loop_watch(&p->s.ch.w, p->s.ch.waits ? POLLOUT : POLLIN);
		return;
	default:
		tls_why(&p->s.ch, why, sizeof why);
		probe_failed(p, "TLS: %s", why);
	}
}

/* Probes again later; `why` is no fault of the instance: this probe does not
 * count. */
static void
probe_put_off(struct probe *p, const char *why)
{
	warn_calmly(&p->in->up->calm, "upstream %s: %s is not checked now: %s", p->in->up->name,
	    instance_text(p->in), why);
	side_close(&p->s);
	p->state = PROBE_REST;
	p->due_ms = now_ms + PROBE_AGAIN_MS;
}

/* The instance accepts: TLS begins, if it speaks TLS. */
static void
probe_connected(struct probe *p)
{
	struct tls_peer peer = instance_peer(p->in);

	if (p->in->addr.scheme != SCHEME_HTTPS) {
		probe_ask(p);
		return;
	}
	if (peer.trust && !clock_is_right()) {
		probe_put_off(p, "this host's clock is wrong");
		return;
	}
	peer.session = NULL; /* resuming would not show the certificate */
	p->state = PROBE_SHAKE;
	if (probe_send(p, probe_proxy_write) && tls_client(&p->s.ch, &peer))
		probe_shake(p);
	else
		probe_put_off(p, "there is no room for TLS");
}

/* Where the instance is now; false: nowhere, and the probe has failed. */
static bool
probe_address(struct probe *p, union sock *to, socklen_t *n)
{
	struct board_instance *b = p->in->board;
	uint32_t port = p->in->up->health.port;

	if (b->addrs.n == 0 || !board_addrs_get(b, p->addr_i, to, n)) {
		probe_failed(p, p->in->addr.kind == ADDR_NAME ? "its name does not resolve"
		                                              : "it has no address yet");
		return false;
	}
	if (port > 0 && to->sa.sa_family == AF_INET)
		to->in.sin_port = htons((uint16_t)port);
	else if (port > 0 && to->sa.sa_family == AF_INET6)
		to->in6.sin6_port = htons((uint16_t)port);
	else if (port > 0) {
		probe_failed(p, "a unix socket has no port");
		return false;
	}
	return true;
}

/* Connects to one address, on a new socket if none is open. 0 when the connection
 * is there, else errno. */
static int
probe_dial(struct probe *p, const union sock *to, socklen_t n)
{
	int fd = p->s.ch.w.fd, done;

	if (fd < 0) {
		fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (fd < 0)
			return errno;
		side_open(&p->s, fd, p->s.ch.w.ready);
	}
	do
		done = connect(fd, &to->sa, n);
	while (done < 0 && errno == EINTR);
	return done < 0 ? errno : 0;
}

/* Connecting has ended, well or with errno err. True: there is one more
 * address to try. */
static bool
probe_dialled(struct probe *p, int err)
{
	if (err == EMFILE || err == ENFILE || err == ENOBUFS || err == ENOMEM)
		probe_put_off(p, strerror(err));
	else if (err == 0)
		probe_connected(p);
	else if (p->addr_i + 1u < p->in->board->addrs.n) {
		side_close(&p->s);
		p->addr_i++;
		return true;
	} else if (err == ECONNREFUSED)
		probe_failed(p, "connect refused");
	else
		probe_failed(p, "connect: %s", strerror(err));
	return false;
}

/* Connects to the instance's address, or to the next one if that refuses. */
static void
probe_connect(struct probe *p)
{
	union sock to;
	socklen_t n;
	int err;

	p->state = PROBE_CONNECT;
	p->due_ms = p->by_ms;
	do {
		if (!probe_address(p, &to, &n))
			return;
		err = probe_dial(p, &to, n);
		if (err == EINPROGRESS) {
			loop_watch(&p->s.ch.w, POLLOUT);
			return;
		}
		if (err == EAGAIN) { /* the backlog of a unix socket is full */
			p->due_ms = MIN(now_ms + CONNECT_AGAIN_MS, p->by_ms);
			return;
		}
	} while (probe_dialled(p, err));
}

/* ---- all of them ---- */

/* Poll has an event for a running probe. */
static void
probe_ready(struct watch *w, short revents)
{
	struct probe *p = (struct probe *)w;
	socklen_t n = sizeof errno;
	int err = 0;

	(void)revents;
	if (p->state == PROBE_ANSWER)
		probe_answer(p);
	else if (p->state == PROBE_SHAKE)
		probe_shake(p);
	else {
		if (getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &err, &n) < 0)
			err = errno;
		if (probe_dialled(p, err))
			probe_connect(p);
	}
	scratch_settle();
	health_arm();
}

/* p's process was stopped: nothing is known of the next one. */
static void
probe_forget(struct probe *p)
{
	struct board_instance *b = p->in->board;

	if (b->health == HEALTH_UNKNOWN && b->check_passes + b->check_fails == 0)
		return;
	b->check_passes = b->check_fails = 0;
	board_text_set(&b->check_why, S(""));
	b->health = HEALTH_UNKNOWN;
	board_changed();
}

static void
probe_due(struct probe *p)
{
	if (p->state != PROBE_REST && now_ms >= p->by_ms)
		probe_late(p);
	else if (p->state != PROBE_REST)
		probe_connect(p); /* its backlog was full */
	else if (probe_pauses(p)) {
		if (p->in->board->run == RUN_OFF)
			probe_forget(p);
		p->due_ms = now_ms + p->in->up->health.interval_ms;
	} else {
		p->began_ms = now_ms;
		p->by_ms = now_ms + p->in->up->health.timeout_ms;
		p->addr_i = 0;
		p->skipped = 0;
		probe_connect(p);
	}
}

static void
health_due(struct timer *t)
{
	(void)t;
	for (int i = 0; i < n_probes; i++)
		if (probes[i].due_ms <= now_ms)
			probe_due(&probes[i]);
	scratch_settle();
	if (health_untold)
		health_tell();
	health_arm();
}

/* An instance that was checked before goes on with its interval; a fresh one is
 * probed soon, but not all of them in the same moment. */
static void
probe_open(struct probe *p, struct instance *in)
{
	const struct health_conf *h = &in->up->health;
	uint32_t spread = h->jitter ? (uint32_t)(random_next() % PROBE_SPREAD_MS) : 0;

	*p = (struct probe){ .in = in };
	side_open(&p->s, -1, probe_ready);
	p->spreads = in->board->checked_ms == 0;
	p->due_ms = now_ms + spread;
	if (!p->spreads)
		p->due_ms = MAX(p->due_ms, now_ms - clock_ago(in->board->checked_ms) +
		    interval_ms(h, false));
}

/* Instances that are not checked (any more) keep no verdict. */
static void
health_start(const struct conf *cf)
{
	probes = xcalloc((size_t)MAX(health_count(cf), 1), sizeof *probes);
	health_timer.fire = health_due;
	for (int i = 0; i < cf->n_upstreams; i++)
		for (int k = 0; k < cf->upstreams[i].n_instances; k++) {
			struct instance *in = &cf->upstreams[i].instances[k];
			if (in->up->health.on)
				probe_open(&probes[n_probes++], in);
			else if (in->board->health != HEALTH_UNKNOWN)
				in->board->health = HEALTH_UNKNOWN;
		}
}

/* The master says: check from now on, or probe now where a process has just
 * started; a probe that runs there may be of the process before. */
static void
health_look(const struct conf *cf)
{
	if (draining)
		return; /* another worker is told, or will be */
	if (!probes)
		health_start(cf);
	for (int i = 0; i < n_probes; i++) {
		struct probe *p = &probes[i];
		if (!probe_hurries(p))
			continue;
		side_close(&p->s);
		p->state = PROBE_REST;
		p->due_ms = now_ms;
		p->said = false;
	}
	health_due(&health_timer);
}

/* Ends all checks; running ones are dropped. */
static void
health_stop(void)
{
	for (int i = 0; i < n_probes; i++)
		side_close(&probes[i].s);
	n_probes = 0;
	timer_clear(&health_timer);
}

/* ==== worker =================================================================
 * Owns    the process that carries traffic.
 * Offers  worker_run.
 * Calls   everything of the services. Told what to do by the master. */

#define WATCHES_SPARE 3 /* the master's, two logs */

static struct watch ctl_watch;
static bool worker_stops;
static struct cert_set **worker_set; /* where the configuration has it */

static void
worker_logs(const struct msghdr *m)
{
	const struct cmsghdr *cm = CMSG_FIRSTHDR(m);
	int fds[2], old; /* access, error */

	if (!cm || cm->cmsg_type != SCM_RIGHTS || cm->cmsg_len != CMSG_LEN(sizeof fds)) {
		log_error("the new log files did not arrive, raise the limit of open files; "
		    "the old ones are written on");
		return;
	}
	memcpy(fds, CMSG_DATA(cm), sizeof fds);
	access_fd(fds[0]);
	old = log_sink.fd;
	sink_move(&log_sink, fds[1], log_sink.kind == SINK_DGRAM);
	if (old > STDERR_FILENO)
		close(old);
}

static void
log_ready(struct watch *w, short revents)
{
	(void)revents;
	loop_unwatch(w);
	log_flush();
	access_flush(true);
}

/* Takes new certificates, in a file that cannot change. If anything is wrong with
 * it, the old ones stay. */
static void
worker_certs(const struct msghdr *m)
{
	const struct cmsghdr *cm = CMSG_FIRSTHDR(m);
	struct cert_set *set = NULL;
	struct stat st;
	void *p;
	int fd = -1;

	if (cm && cm->cmsg_type == SCM_RIGHTS && cm->cmsg_len == CMSG_LEN(sizeof fd))
		memcpy(&fd, CMSG_DATA(cm), sizeof fd);
	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0 && (p = mmap(NULL,
	    (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0)) != MAP_FAILED) {
		set = certs_unpack((struct slice){ p, (size_t)st.st_size });
		munmap(p, (size_t)st.st_size);
	}
	if (fd >= 0)
		close(fd);
	if (!set) {
		log_error("new certificates did not arrive: raise the limit of open files; those "
		    "before stay in use until they do");
		master_tell(CTL_CERTS, "");
		return;
	}
	tls_certs_use(set);
	*worker_set = set; /* the configuration shows it */
}

/* Does what the master says: b, n bytes of it, and what m brings along. */
static void
ctl_obey(const char *b, ssize_t n, struct msghdr *m)
{
	switch (n > 0 ? b[0] : CTL_STOP) {
	case CTL_DRAIN:
		if (draining)
			break;
		front_drain(strtoull(b + 1, NULL, 16)); /* what runs is finished, nothing else */
		pool_drain(conf);
		health_stop();
		break;
	case CTL_STOP:
		worker_stops = true;
		break;
	case CTL_LOGS:
		worker_logs(m);
		break;
	case CTL_CERTS:
		worker_certs(m);
		break;
	case CTL_VERB:
		front_told((struct slice){ b + 1, (size_t)n - 1 });
		break;
	case CTL_WAKE:
		front_wake(conf);
		break;
	case CTL_CHECK:
		health_look(conf);
		break;
	default:
		log_error("the master said something unknown: %d", b[0]);
	}
}

/* A message from the master; its end means that it died, and a worker does
 * not outlive it. */
static bool
ctl_take(int fd)
{
	char b[CTL_MAX];
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec v = { b, sizeof b - 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control.space,
		.msg_controllen = sizeof control.space };
	ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	b[MAX(n, 0)] = '\0';
	ctl_obey(b, n, &m);
	return !worker_stops;
}

static void
worker_ctl(struct watch *w, short revents)
{
	(void)revents;
	for (int i = 0; i < CTL_BATCH && ctl_take(w->fd); i++)
		;
}

static void
worker_open(struct conf *cf, struct listener *ls, int n, int ctl)
{
	uint32_t share = (cf->server.max_connections + (uint32_t)cf->server.workers - 1) /
	    (uint32_t)cf->server.workers;

	clock_turn();
	blocks_open(cf->server.max_header_bytes);
	scratch = block_take(BLOCK_LARGE);
	loop_open((int)(3 * share + ADMIN_PLACES) + n + WATCHES_SPARE + health_count(cf));
	pool_open(share);
	tls_open(&cf->tls, cf->tls.on || conf_has_https(cf)
	    ? 3 * share + (uint32_t)health_count(cf) : 0);
	heads_open(cf);
	rosters_open(cf);
	gate_open();
	access_start(cf, &me->log_dropped);
	worker_set = &cf->tls.set;
	ctl_fd = ctl;
	ctl_watch = (struct watch){ .fd = ctl, .slot = -1, .ready = worker_ctl };
	loop_watch(&ctl_watch, POLLIN);
	loop_first = &ctl_watch; /* a leaving worker accepts no more */
	front_open(ls, n, share);
}

/* Carries traffic until the master stops it, or it has drained. */
_Noreturn static void
worker_run(struct conf *cf, struct listener *ls, int n, int ctl, int slot)
{
	static const char ready = CTL_READY;
	struct watch logs[] = { { .slot = -1, .ready = log_ready },
		{ .slot = -1, .ready = log_ready } };
	bool waits = false, waited;
	int wait_ms = -1;

	me = &board->workers[slot];
	worker_open(cf, ls, n, ctl);
	if (send(ctl, &ready, 1, MSG_NOSIGNAL) < 0)
		_exit(EXIT_OTHER);
	while (!worker_stops && (!draining || n_conns > 0)) {
		loop_turn(wait_ms < 0 ? access_due_ms() : wait_ms);
		access_flush(false);
		wait_ms = front_settle(cf);
		waited = waits;
		if ((waits = log_sink.blocked || access_log.sink.blocked) || waited) {
			/* lines are written as soon as their readers take them */
			loop_aim(&logs[0], sink_waits(&log_sink), POLLOUT);
			loop_aim(&logs[1], sink_waits(&access_log.sink), POLLOUT);
		}
	}
	sinks_finish(&access_log.sink, &log_sink, LOG_LAST_MS);
	log_leave();
	_exit(0);
}

/* ==== explain ================================================================
 * Owns    nothing.
 * Offers  explain.
 * Calls   clock, http, path, addr, route, conf out, auth, heads, gate. `warp
 *         -e`: what would become of a request, unsent. */

#define EXPLAIN_MAX 32768 /* bytes of the request made of the arguments */

/* Whether the URL of the request goes over TLS. */
static bool
explain_is_tls(struct slice request)
{
	struct slice url = slice_trim(request), method;

	if (memchr(url.p, ' ', url.n))
		slice_cut(&url, ' ', &method);
	url = slice_trim(url);
	return slice_ieq((struct slice){ url.p, MIN(url.n, S("https://").n) }, S("https://")) ||
	    slice_ieq((struct slice){ url.p, MIN(url.n, S("wss://").n) }, S("wss://"));
}

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

/* Prints the first pair that the request lacks, and what it has instead. */
static void
explain_pairs(const char *what, const struct pairs *pairs, const struct head *h, bool query,
    FILE *to)
{
	for (int i = 0; i < pairs->n; i++) {
		const struct pair *p = &pairs->v[i];
		struct slice is = { NULL, 0 }, rest = h->query, pair, name;

		if (query ? query_has(h->query, p->name, p->value) : head_line_is(h, p))
			continue;
		for (int k = 0; !query && k < h->n; k++)
			if (slice_ieq(h->f[k].name, p->name))
				is = h->f[k].value;
		while (query && slice_cut(&rest, '&', &pair))
			if (slice_cut(&pair, '=', &name) && slice_eq(name, p->name))
				is = pair.p ? pair : S("");
		fprintf(to, "%s %s ", what, p->name.p);
		if (is.p)
			fprintf(to, "is \"%.*s\", wanted \"%s\"\n", (int)is.n, is.p, p->value.p);
		else
			fprintf(to, "is not there, wanted \"%s\"\n", p->value.p);
		return;
	}
}

/* What was compared: `host is "a", wanted "b"`. */
static void
explain_why(const struct route *r, const char *why, const struct head *h, struct slice host,
    struct slice path, const struct ip *client, FILE *to)
{
	char b[INET6_ADDRSTRLEN + sizeof "/128"];
	struct text t = { b, 0, sizeof b, false };

	if (strcmp(why, "header") == 0) {
		explain_pairs("header", &r->headers, h, false, to);
	} else if (strcmp(why, "query") == 0) {
		explain_pairs("query", &r->queries, h, true, to);
	} else if (strcmp(why, "path") == 0) {
		fprintf(to, "path is \"%.*s\", wanted \"%s\"%s\n", (int)path.n, path.p, r->path.p,
		    r->path_kind == PATH_PREFIX ? " in front"
		    : r->path_kind == PATH_REGEX ? " to match" : "");
	} else if (strcmp(why, "host") == 0) {
		fprintf(to, "host is \"%.*s\", wanted \"%s%s\"\n", (int)host.n, host.p,
		    r->host_kind == HOST_WILD ? "*" : "", r->host.p);
	} else if (strcmp(why, "method") == 0) {
		fprintf(to, "method is \"%.*s\", wanted", (int)h->method_text.n, h->method_text.p);
		print_methods(to, r);
		fputc('\n', to);
	} else {
		ip_text(&t, client);
		fprintf(to, "client is %.*s, wanted", (int)t.n, b);
		for (int i = 0; i < r->clients.n; i++) {
			t.n = 0;
			cidr_text(&t, &r->clients.v[i]);
			fprintf(to, " %.*s", (int)t.n, b);
		}
		fputc('\n', to);
	}
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
		fprintf(to, "route %d (line %u): %s", i + 1, r->line, why ? "no: " : "taken\n");
		if (!why)
			return r;
		explain_why(r, why, h, host, path, client, to);
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
	if (r->basic_auth.n > 0) {
		enum auth said = auth_basic(&(struct exchange){ .auth = NULL }, h, &r->basic_auth);
		bool good = said == AUTH_YES;
		while (said == AUTH_LATER && auth_busy())
			auth_work(&good);
		fprintf(to, "basic auth: %s\n", good ? "good" : "missing or wrong: 401");
	}
}

/* The head as the first candidate would get it. */
static void
explain_upstream(struct exchange *x, struct head *h, FILE *to)
{
	struct upstream *up = x->route->upstream;
	const struct pairs *add = &x->route->add_response_headers;
	const struct slices *remove = &x->route->remove_response_headers;

	fprintf(to, "upstream %s, %s; candidates:\n", up->name, up->balance->name);
	for (int i = 0; i < up->n_instances; i++) {
		const struct instance *in = &up->instances[i];
		fprintf(to, "  %d %s weight %u%s", i, in->addr.text, in->weight,
		    in->backup ? ", backup" : "");
		if (in->max_connections > 0)
			fprintf(to, ", at most %u requests at one time", in->max_connections);
		fputc('\n', to);
	}
	x->inst = &up->instances[0];
	if (request_write(head_begin(), x, h))
		fprintf(to, "it is sent:\n%.*s", (int)head_out.n, head_out.p);
	else
		fputs("it cannot be sent: too long, or no path after rewriting\n", to);
	for (int i = 0; i < h->n; i++)
		if (h->f[i].drop && h->f[i].id != F_HOST)
			fprintf(to, "request loses %.*s as the client sent it\n",
			    (int)h->f[i].name.n, h->f[i].name.p);
	for (int i = 0; i < add->n; i++)
		fprintf(to, "response gets %.*s: %.*s\n", (int)add->v[i].name.n, add->v[i].name.p,
		    (int)add->v[i].value.n, add->v[i].value.p);
	for (int i = 0; i < remove->n; i++)
		fprintf(to, "response loses %.*s\n", (int)remove->v[i].n, remove->v[i].p);
}

static void
explain_file(const struct exchange *x, const struct head *h, FILE *to)
{
	const struct files_conf *fc = &x->route->files;
	struct path_view view;
	struct text *t = head_begin();

	if (!path_of(h, &view) || !route_file(t, x, view.path))
		fprintf(to, "no file can have this path: 404\n");
	else if (!fc->dot_files && file_is_hidden(text_slice(t)))
		fprintf(to, "names that begin with a dot are not served: 404\n");
	else
		fprintf(to, "the file %.*s of %s\n", (int)t->n, t->p, fc->dir);
}

static void
explain_action(struct exchange *x, struct head *h, const struct conf *cf, FILE *to)
{
	const struct route *r = x->route;

	if (r->action == ACT_FILES) {
		explain_file(x, h, to);
	} else if (r->action == ACT_REDIRECT) {
		redirect_write(head_begin(), x, h);
		fprintf(to, "redirect %d to %.*s\n", r->status, (int)head_out.n, head_out.p);
	} else if (r->action == ACT_RESPOND)
		fprintf(to, "answer %d with %zu bytes of %.*s\n", r->status, r->body.n,
		    (int)r->content_type.n, r->content_type.p);
	else if (r->action == ACT_ADMIN)
		fprintf(to, "admin endpoints; token: %s\n", auth_token_ok(h,
		    cf->server.admin_token) ? "good" : "missing or wrong: 401, but for the page /");
	else
		explain_upstream(x, h, to);
}

/* The connection that the request would come on. */
static void
explain_conn(struct conn *c, const struct conf *cf, bool over_tls)
{
	static struct listener listener;
	static struct tls tls;

	for (int i = cf->server.n_listens - 1; i >= 0; i--)
		if ((cf->server.listens[i].scheme == SCHEME_HTTPS) == over_tls)
			listener.port = cf->server.listens[i].port; /* the first wins */
	if (over_tls)
		c->s.ch.tls = &tls;
	c->listener = &listener;
}

/* Prints what would become of the request. 0, or EXIT_USAGE: it is none. */
static int
explain(struct conf *cf, const char *request, const char *const *headers, int n,
    const char *client, FILE *to)
{
	static char buf[EXPLAIN_MAX];
	static struct conn c;
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
	explain_conn(&c, cf, explain_is_tls(slice_of(request)));
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
	if (gate_to_https(&x, &req)) { /* before any route is looked at */
		https_write(head_begin(), &x, &req);
		fprintf(to, "tls.redirect: 308 to %.*s\n", (int)head_out.n, head_out.p);
		return 0;
	}
	if (!(x.route = explain_routes(cf, &req, view.path, &x.client, to)))
		return 0;
	explain_guards(x.route, &req, cf, to);
	explain_action(&x, &req, cf, to);
	return 0;
}

/* ==== helper =================================================================
 * Owns    nothing: a helper is its starter's.
 * Offers  fds_close, stdio_release, helper_start, helper_settle, helper_mute.
 * Calls   base, sink, log, loop, privilege. A child of the master has only what it was
 *         given, and dies with it: a forgotten socket would stay bound. */

#define HELPER_KEEPS 4 /* room for two logs, syslog and the pair */

static bool helper_mute;    /* helpers let go of a daemon's standard output */
static pid_t helper_parent; /* in a helper: the master */

static void
fds_close_range(int from, int to)
{
	struct rlimit files;

	if (from > to || syscall(SYS_close_range, from, to, 0) == 0 ||
	    getrlimit(RLIMIT_NOFILE, &files) < 0)
		return;
	to = MIN(to, (int)MIN(files.rlim_cur, (rlim_t)INHERIT_FILES) - 1);
	for (int fd = from; fd <= to; fd++)
		close(fd);
}

/* Closes descriptors from `from` on, but the n of keep (-1: none). */
static void
fds_close(int from, const int *keep, int n)
{
	int next = INT_MAX;

	for (int i = 0; i < n; i++)
		if (keep[i] >= from)
			next = MIN(next, keep[i]);
	fds_close_range(from, next - 1);
	if (next < INT_MAX)
		fds_close(next + 1, keep, n);
}

/* stdout and stderr become /dev/null, unless they are files: nobody waits for the
 * end of a daemon's terminal or pipe. */
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

/* Forks a helper, which runs run(arg, fd) with fd, its end of a socketpair, and the n
 * descriptors of keep. Returns its pid and, in *end, the other end; -1: logged. */
static pid_t
helper_start(const char *name, void (*run)(void *arg, int fd), void *arg, int *keep, int n,
    int *end)
{
	pid_t parent = getpid(), pid;
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return log_errno("%s", name);
	if ((pid = fork()) == 0) {
		keep[n++] = sv[1];
		keep[n++] = syslog_fd;
		fds_close(STDERR_FILENO + 1, keep, n);
		if (helper_mute)
			stdio_release(); /* the log still has its copy, until the start is over */
		log_forked(name);
		loop_forked();
		helper_parent = parent;
		run(arg, sv[1]);
		_exit(0);
	}
	close(sv[1]);
	if (pid < 0) {
		close(sv[0]);
		return log_errno("%s", name);
	}
	*end = sv[0];
	return pid;
}

/* In a helper: drops to the rights that [server] gives; ends with the master, even if
 * it hangs. outside: stays out of the chroot, to find resolv.conf and hosts. */
static void
helper_settle(const struct server_conf *sc, bool outside)
{
	struct server_conf as = *sc;

	if (outside)
		as.chroot = NULL;
	/* a change of user would have cleared the signal */
	if (privilege_drop(&as) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ||
	    getppid() != helper_parent)
		_exit(EXIT_OTHER);
}

/* ==== resolve ================================================================
 * Owns    the helper process that may block on DNS.
 * Offers  resolve_fixed, resolve_run.
 * Calls   base, arena, clock, log, board, helper. Writes addresses to the board;
 *         workers read them there, and never wait. */

/* Sets addresses that need no lookup. True: there are names as well. */
static bool
resolve_fixed(struct conf *cf)
{
	bool names = false;

	for (int u = 0; u < conf_peers(cf); u++)
		for (int i = 0; i < cf->upstreams[u].n_instances; i++) {
			struct instance *in = &cf->upstreams[u].instances[i];
			if (in->addr.kind == ADDR_NAME)
				names = true;
			else if (in->replica < 0) /* else where its process listens */
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

/* Looks up the name of in. False: it does not resolve; known addresses stay. Exits if
 * the master closed life meanwhile: another resolver may be writing. */
static bool
resolve_one(const struct instance *in, int life, bool said)
{
	struct pollfd p = { .fd = life, .events = POLLIN };
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list, *ai;
	union sock sock[INSTANCE_ADDRS];
	socklen_t sock_n[INSTANCE_ADDRS];
	char port[8];
	unsigned n = 0, had = in->board->addrs.n;
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
	if ((had == 0) != (n == 0))
		board_changed(); /* the instance can be asked now */
	if (said)
		log_info("upstream %s: %s resolves now", in->up->name, in->addr.host);
	return true;
}

/* Looks up all names or, unless whole, only those that failed before. failed has a
 * byte for each instance on the board. False: some do not resolve. */
static bool
resolve_round(const struct conf *cf, int life, char *failed, bool whole)
{
	bool all = true;

	for (int u = 0; u < conf_peers(cf); u++)
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

/* The helper: writes a byte to life after the first round, and ends when the master
 * closes life. */
static void
resolve_run(void *conf_of, int life)
{
	const struct conf *cf = conf_of;
	struct pollfd p = { .fd = life, .events = POLLIN };
	char *failed = xcalloc(INSTANCES_MAX, 1), first = 1;
	int64_t whole_ms = 0;
	bool all, whole;

	helper_settle(&cf->server, true);
	for (;;) {
		clock_turn();
		if ((whole = now_ms >= whole_ms))
			whole_ms = now_ms + DNS_TTL_SECS * SECOND_MS;
		all = resolve_round(cf, life, failed, whole);
		if (first && write(life, &first, 1) < 0)
			_exit(0);
		first = 0; /* the master reads one: more would fill the socket */
		if (poll(&p, 1, (all ? DNS_TTL_SECS : DNS_RETRY_SECS) * SECOND_MS) > 0)
			_exit(0); /* closed: the master is gone, or done with us */
	}
}

/* ==== acme ===================================================================
 * Owns    the helper process that gets a certificate, and all that is in it.
 * Offers  acme_run, acme_clear.
 * Calls   base, arena, clock, log, http, addr, json, der, jose, certs, board,
 *         tls, chan, helper, admin front. The helper may block, and opens no
 *         files: keys and anchors are in its memory, its result goes to a socket.
 *         RFC 8555, 8737, 9773. */

#define ACME_HTTP  S("http-01")
#define ACME_TLS   S("tls-alpn-01")
#define ACME_ERROR "urn:ietf:params:acme:error:"

/* Notes why; false, so that a failing step is one line. */
__attribute__((format(printf, 2, 3))) static bool
acme_fail(struct acme *j, const char *fmt, ...)
{
	va_list ap;
	char *p;

	va_start(ap, fmt);
	j->why = p = arena_vfmt(&j->arena, fmt, ap);
	va_end(ap);
	for (; *p; p++)
		if ((unsigned char)*p < ' ')
			*p = ' '; /* the master reads lines */
	return false;
}

/* ---- time ---- */

/* s read by format, in UTC; -1: it is no date. */
static int64_t
acme_time_as(const char *s, const char *format, const char **end)
{
	struct tm tm = { .tm_mday = 1 };

	*end = strptime(s, format, &tm);
	return *end ? (int64_t)timegm(&tm) : -1;
}

/* 2026-11-21T10:00:00.5+01:00 as wall clock; -1: it is no date. RFC 3339 5.6. */
static int64_t
acme_time(const char *s)
{
	const char *at;
	int64_t t = acme_time_as(s, "%Y-%m-%dT%H:%M:%S", &at), h, min;

	if (!at || t < 0)
		return -1;
	if (*at == '.')
		at += 1 + strspn(at + 1, "0123456789");
	if (*at == 'Z' || *at == 'z')
		return at[1] ? -1 : t;
	if ((*at != '+' && *at != '-') || strlen(at) != sizeof "+hh:mm" - 1 || at[3] != ':')
		return -1;
	h = slice_uint((struct slice){ at + 1, 2 }, 23);
	min = slice_uint((struct slice){ at + 4, 2 }, 59);
	if (h < 0 || min < 0)
		return -1;
	h = h * HOUR_S + min * MINUTE_S;
	return *at == '+' ? t - h : t + h;
}

/* Retry-After as seconds from now; -1: it says none. RFC 9110 10.2.3. */
static int64_t
acme_retry(struct slice value, int64_t now)
{
	int64_t s = slice_uint(value, INT32_MAX);
	const char *end;

	if (s < 0 && value.n == DATE_LEN) {
		char b[DATE_LEN + 1] = { 0 };
		memcpy(b, value.p, DATE_LEN);
		s = acme_time_as(b, "%a, %d %b %Y %H:%M:%S GMT", &end);
		s = s < 0 ? -1 : MAX(s - now, 0);
	}
	return MIN(s, (int64_t)ACME_RETRY_MAX_S);
}

/* ---- the connection ---- */

/* Splits url, https://host[:port]/path; false: it is none. */
static bool
acme_place(struct arena *a, struct slice url, struct acme_place *to)
{
	struct slice rest = url, host, port;
	size_t n = 0;
	bool v6;

	for (size_t i = 0; i < url.n; i++)
		if (url.p[i] <= ' ' || url.p[i] > '~' || url.p[i] == '@')
			return false;
	if (!slice_starts(url, S("https://")))
		return false;
	rest = slice_from(url, 8);
	while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?')
		n++;
	if (!addr_split((struct slice){ rest.p, n }, &host, &port, &v6) || host.n == 0 ||
	    (port.n > 0 && slice_uint(port, UINT16_MAX) < 0))
		return false;
	to->authority = arena_dup(a, (struct slice){ rest.p, n }).p;
	to->host = arena_dup(a, host).p;
	to->port = port.n > 0 ? arena_dup(a, port).p : "443";
	to->path = n < rest.n ? slice_from(rest, n) : S("/");
	return true;
}

static void
acme_hang_up(struct acme *j)
{
	struct chan *ch = &j->ca.ch;

	if (ch->w.fd < 0)
		return;
	tls_close(ch);
	tls_free(ch);
	close(ch->w.fd);
	ch->w.fd = -1;
}

/* Calls on fd in direction way wait ms at most. */
static void
acme_wait(int fd, int way, int64_t ms)
{
	struct timeval t = { .tv_sec = ms / SECOND_MS, .tv_usec = ms % SECOND_MS * 1000 };

	setsockopt(fd, SOL_SOCKET, way, &t, sizeof t);
}

/* A connection to one address, whose calls wait as long as a request may take;
 * -1: errno says why not. */
static int
acme_dial_one(const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	if (fd < 0)
		return -1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	acme_wait(fd, SO_SNDTIMEO, ACME_CONNECT_MS);
	if (connect(fd, ai->ai_addr, ai->ai_addrlen) < 0) {
		if (errno == EINPROGRESS)
			errno = ETIMEDOUT;
		fd_close(fd);
		return -1;
	}
	acme_wait(fd, SO_SNDTIMEO, ACME_REQUEST_MS);
	acme_wait(fd, SO_RCVTIMEO, ACME_REQUEST_MS);
	return fd;
}

/* Whether this request has time left. */
static bool
acme_in_time(const struct acme *j)
{
	clock_turn();
	return now_ms < j->by_ms;
}

/* Connects to the first address of `to` that answers; -1: see why. */
static int
acme_dial(struct acme *j, const struct acme_place *to)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list;
	int err = getaddrinfo(to->host, to->port, &hints, &list), fd = -1;

	if (err != 0) {
		j->advice = "is tls.acme_url right, and does this host resolve names?";
		acme_fail(j, "%s does not resolve: %s", to->host, gai_strerror(err));
		return -1;
	}
	errno = ETIMEDOUT;
	for (const struct addrinfo *ai = list; ai && fd < 0 && acme_in_time(j); ai = ai->ai_next)
		fd = acme_dial_one(ai);
	err = errno;
	freeaddrinfo(list);
	if (fd >= 0)
		return fd;
	j->advice = "is tls.acme_url right, and may this host connect to it?";
	acme_fail(j, "%s cannot be reached: %s", to->authority, strerror(err));
	return -1;
}

/* The connection failed, or the CA took too long. */
static bool
acme_lost(struct acme *j, const char *doing)
{
	const struct chan *ch = &j->ca.ch;
	char why[WHY_MAX] = "it closed the connection";

	if (!ch->broken && !ch->eof)
		snprintf(why, sizeof why, "it took longer than %d s", ACME_REQUEST_MS / SECOND_MS);
	else if (ch->tls && ch->tls->err != 0)
		tls_why(ch, why, sizeof why);
	return acme_fail(j, "%s %s: %s", j->ca.host, doing, why);
}

/* Connects to `to`, or keeps the connection that leads there. */
static bool
acme_connect(struct acme *j, const struct acme_place *to)
{
	struct acme_ca *ca = &j->ca;
	struct tls_peer peer = { .name = to->host, .trust = j->task->t->acme_trust };
	enum shake got;
	int fd;

	ca->heard = false;
	if (ca->ch.w.fd >= 0 && strcmp(ca->host, to->host) == 0 && strcmp(ca->port, to->port) == 0)
		return true;
	acme_hang_up(j);
	if ((fd = acme_dial(j, to)) < 0)
		return false;
	chan_open(&ca->ch, fd, NULL);
	ca->host = to->host;
	ca->port = to->port;
	if (!tls_client(&ca->ch, &peer)) {
		close(fd);
		ca->ch.w.fd = -1;
		return acme_fail(j, "TLS cannot be started: this host has no random numbers");
	}
	while ((got = tls_shake(&ca->ch)) == SHAKE_WAITS && acme_in_time(j))
		;
	if (got == SHAKE_DONE)
		return true;
	j->advice = "is tls.acme_url right, and does tls.acme_ca_file (without it: the system's "
	    "bundle) hold who signed for that server?";
	return acme_lost(j, "fails the TLS handshake");
}

/* ---- requests ---- */

static bool
acme_send(struct acme *j, struct slice s)
{
	struct chan *ch = &j->ca.ch;
	ssize_t put;

	while (s.n > 0 || tls_pending(ch->tls)) {
		put = tls_writev(ch, &(struct iovec){ (char *)(uintptr_t)s.p, s.n }, s.n > 0);
		if (put < 0 || !acme_in_time(j))
			return acme_lost(j, "does not take the request");
		s = slice_from(s, (size_t)put);
	}
	return true;
}

/* Reads more of the answer: its bytes; 0: that was all; -1: see why. */
static ssize_t
acme_recv(struct acme *j)
{
	struct chan *ch = &j->ca.ch;
	struct text *in = &j->in;
	ssize_t got = 0;

	if (in->n == in->cap) {
		acme_fail(j, "%s answers with more than %zu bytes", j->ca.host, in->cap);
		return -1;
	}
	while (got == 0 && acme_in_time(j))
		got = chan_read(ch, in->p + in->n, in->cap - in->n);
	if (got > 0) {
		j->ca.heard = true;
		in->n += (size_t)got;
		return got;
	}
	if (got < 0 && ch->eof && !ch->broken)
		return 0;
	acme_lost(j, "does not answer");
	return -1;
}

/* Reads an answer's head, after interim ones: its bytes; -1: see why. */
static int
acme_head(struct acme *j)
{
	int n;

	for (;;) {
		n = response_parse(&j->head, text_slice(&j->in));
		if (n > 0 && j->head.status >= 200)
			return n;
		if (n > 0) {
			j->in.n -= (size_t)n;
			memmove(j->in.p, j->in.p + n, j->in.n);
		} else if (n < 0 || acme_recv(j) <= 0) {
			if (n < 0)
				acme_fail(j, "%s does not speak HTTP", j->ca.host);
			else if (j->ca.ch.eof)
				acme_lost(j, "does not answer");
			return -1;
		}
	}
}

/* Reads the body behind the head of `at` bytes. */
static bool
acme_body(struct acme *j, enum method m, size_t at, struct slice *out)
{
	char space[ACME_TRAILERS_MAX];
	struct text *in = &j->in, trailers = { space, 0, sizeof space, false };
	size_t start = at, content; /* start: of bytes that were not looked at */
	struct body b;
	ssize_t n;

	if (body_of_response(&b, &j->head, m) < 0)
		return acme_fail(j, "%s does not say how long its answer is", j->ca.host);
	for (;;) {
		trailers.n = 0;
		if (b.kind != BODY_CHUNKED)
			content = body_take(&b, in->n - start);
		else if (chunk_decode(&b, in->p + start, in->n - start, &content, &trailers) < 0 ||
		    trailers.full)
			return acme_fail(j, "%s answers with malformed chunks", j->ca.host);
		in->n = start += content;
		if (b.done)
			break;
		if ((n = acme_recv(j)) == 0 && b.kind == BODY_CLOSE)
			break;
		if (n == 0)
			acme_lost(j, "cuts its answer short");
		if (n <= 0)
			return false;
	}
	*out = arena_dup(&j->arena, (struct slice){ in->p + at, start - at });
	return true;
}

/* The answer's field of that name; empty: none. */
static struct slice
acme_field(struct acme *j, const char *name)
{
	struct slice s = head_value(&j->head, slice_of(name));

	return s.p ? arena_dup(&j->arena, s) : S("");
}

/* Reads the answer to a request that was sent. */
static bool
acme_read(struct acme *j, enum method m, struct acme_answer *an)
{
	struct slice nonce;
	int at;

	j->in.n = 0;
	if ((at = acme_head(j)) < 0)
		return false;
	clock_turn();
	*an = (struct acme_answer){ .status = j->head.status, .location = acme_field(j, "Location"),
		.retry_s = acme_retry(acme_field(j, "Retry-After"), now_s) };
	nonce = acme_field(j, "Replay-Nonce");
	if (!acme_body(j, m, (size_t)at, &an->body))
		return false;
	if (nonce.n > 0)
		j->nonce = nonce;
	an->json = json_parse(&j->arena, an->body);
	if (j->head.minor == 0 || head_has(&j->head, F_CONNECTION, "close") || j->ca.ch.eof)
		acme_hang_up(j);
	return true;
}

/* One request with its answer; once more, on a new connection, if the CA has closed
 * the kept one. */
static bool
acme_ask(struct acme *j, enum method m, struct slice url, struct slice body, struct acme_answer *an)
{
	static const char *const names[METHODS] = {
		[M_GET] = "GET", [M_HEAD] = "HEAD", [M_POST] = "POST",
	};
	struct acme_place to;
	struct slice text;
	bool kept;

	*an = (struct acme_answer){ .retry_s = -1 };
	if (!acme_place(&j->arena, url, &to))
		return acme_fail(j, "the CA names '%.*s' as the place to go on, which is no https "
		    "URL", (int)MIN(url.n, (size_t)WHY_MAX), url.p);
	text = slice_of(arena_fmt(&j->arena, "%s %.*s HTTP/1.1\r\nHost: %s\r\nUser-Agent: warp/"
	    VERSION "\r\n%sContent-Length: %zu\r\n\r\n%.*s", names[m], (int)to.path.n,
	    to.path.p, to.authority, m == M_POST ? "Content-Type: application/jose+json\r\n" : "",
	    body.n, (int)body.n, body.p));
	do {
		clock_turn();
		j->by_ms = MIN(now_ms + ACME_REQUEST_MS, j->end_ms);
		kept = j->ca.ch.w.fd >= 0;
		if (acme_connect(j, &to) && acme_send(j, text) && acme_read(j, m, an)) {
			j->advice = NULL; /* the failure is overcome */
			return true;
		}
		acme_hang_up(j);
	} while (kept && !j->ca.heard && now_ms < j->by_ms);
	return false;
}

/* ---- what the CA refuses ---- */

/* By error type; RFC 8555 6.7. */
static const struct {
	const char *type, *advice;
} acme_advices[] = {
	{ "rateLimited", "the CA gives no more of them for a while" },
	{ "caa", "a CAA record of the domain keeps this CA from signing" },
	{ "connection", "the CA must reach this host by that name, from the outside: port 80 for "
	    "http-01, port 443 for tls-alpn-01" },
	{ "dns", "does the name lead to this host, for everybody?" },
	{ "unauthorized", "does the name lead to this host, with nothing before warp that answers "
	    "in its place?" },
	{ "incorrectResponse", "does the name lead to this host, with nothing before warp that "
	    "answers in its place?" },
	{ "tls", "does the name lead to this host, with nothing before warp that speaks TLS in its "
	    "place?" },
	{ "rejectedIdentifier", "this CA signs for no such name: see tls.domains" },
	{ "unsupportedIdentifier", "this CA signs for no such name: see tls.domains" },
	{ "externalAccountRequired", "this CA wants tls.acme_eab" },
	{ "unsupportedContact", "see tls.acme_email" },
	{ "invalidContact", "see tls.acme_email" },
	{ "accountDoesNotExist", "the CA does not know account.key any more: remove it" },
	{ "userActionRequired", "the CA wants its terms to be read and agreed to" },
};

/* Notes what v, an error of the CA, says; false. about: the name in question, or
 * empty. RFC 7807. */
static bool
acme_refused(struct acme *j, const struct json *v, struct slice about, int64_t retry_s)
{
	struct slice type = json_text(v, "type"), detail = json_text(v, "detail"), name;
	const struct json *sub = json_get(v, "subproblems");
	const char *more = "";

	if (slice_starts(type, S(ACME_ERROR)))
		type = slice_from(type, sizeof ACME_ERROR - 1);
	if (sub && sub->kind == JSON_ARRAY && sub->first) {
		name = json_text(json_get(sub->first, "identifier"), "value");
		more = arena_fmt(&j->arena, "; %s: %s", name.p, json_text(sub->first, "detail").p);
	}
	j->retry_s = MAX(retry_s, j->retry_s);
	for (size_t i = 0; i < LEN(acme_advices); i++)
		if (slice_eq(type, slice_of(acme_advices[i].type)))
			j->advice = acme_advices[i].advice;
	if (slice_eq(type, S("rateLimited")) && j->retry_s < 0)
		j->retry_s = ACME_LIMITED_S;
	return acme_fail(j, "%s%sthe CA says: %s (%s)%s", about.p, about.n > 0 ? ": " : "",
	    detail.n > 0 ? detail.p : "nothing more", type.n > 0 ? type.p : "no type", more);
}

/* The CA answered with an error, or uselessly. */
static bool
acme_bad(struct acme *j, const char *what, const struct acme_answer *an)
{
	if (an->json && json_get(an->json, "type"))
		return acme_refused(j, an->json, S(""), an->retry_s);
	j->retry_s = MAX(an->retry_s, j->retry_s);
	return acme_fail(j, "the CA answers %s with status %d%s", what, an->status,
	    an->status < 400 ? " and nothing that can be used" : "");
}

/* A signed request; an empty payload makes it a signed GET. True: it succeeded.
 * RFC 8555 6.2, 6.5. */
static bool
acme_post(struct acme *j, const char *what, struct slice url, struct slice payload,
    struct acme_answer *an)
{
	const char *key = j->kid.n > 0
	    ? arena_fmt(&j->arena, "\"kid\":%s", json_quoted(&j->arena, j->kid))
	    : arena_fmt(&j->arena, "\"jwk\":%s", j->jwk.p);
	struct slice header, jws;

	for (int i = 0; i < ACME_NONCES; i++) {
		if (j->nonce.n == 0 && !acme_ask(j, M_HEAD, j->urls[URL_NONCE], S(""), an))
			return false;
		if (j->nonce.n == 0)
			return acme_bad(j, "newNonce", an);
		header = slice_of(arena_fmt(&j->arena, "{\"alg\":\"ES256\",\"nonce\":%s,"
		    "\"url\":%s,%s}", json_quoted(&j->arena, j->nonce),
		    json_quoted(&j->arena, url), key));
		j->nonce = S("");
		jws = jws_ecdsa(&j->arena, j->task->account, header, payload);
		if (jws.n == 0)
			return acme_fail(j, "account.key cannot sign");
		if (!acme_ask(j, M_POST, url, jws, an))
			return false;
		if (an->status < 300)
			return true;
		if (!slice_eq(json_text(an->json, "type"), S(ACME_ERROR "badNonce")))
			break;
	}
	return acme_bad(j, what, an);
}

/* ---- account ---- */

/* RFC 8555 7.1.1. */
static bool
acme_directory(struct acme *j)
{
	static const char *const names[ACME_URLS] = {
		[URL_NONCE] = "newNonce", [URL_ACCOUNT] = "newAccount", [URL_ORDER] = "newOrder",
		[URL_RENEWAL] = "renewalInfo",
	};
	const struct json *v;
	struct acme_answer an;

	if (!acme_ask(j, M_GET, j->task->t->acme_url, S(""), &an))
		return false;
	for (int i = 0; i < ACME_URLS; i++) {
		j->urls[i] = json_text(an.json, names[i]);
		if (i != URL_RENEWAL && (an.status != 200 || j->urls[i].n == 0)) {
			j->advice = "tls.acme_url must be the URL of an ACME directory";
			return acme_bad(j, "for its directory", &an);
		}
	}
	v = json_get(json_get(an.json, "meta"), "externalAccountRequired");
	j->wants_eab = v && v->boolean;
	return true;
}

/* Finds or makes the account, bound to a customer's account of the CA if need be.
 * RFC 8555 7.3, 7.3.4. */
static bool
acme_account(struct acme *j)
{
	const struct tls_conf *t = j->task->t;
	const char *eab = "", *contact = "";
	struct acme_answer an;
	struct slice key;

	if (t->eab_kid.n > 0 && !b64url_decode(&j->arena, t->eab_hmac, &key))
		return acme_fail(j, "tls.acme_eab: hmac is no base64url text");
	if (t->eab_kid.n > 0)
		eab = arena_fmt(&j->arena, ",\"externalAccountBinding\":%s", jws_mac(&j->arena, key,
		    slice_of(arena_fmt(&j->arena, "{\"alg\":\"HS256\",\"kid\":%s,\"url\":%s}",
		    json_quoted(&j->arena, t->eab_kid), json_quoted(&j->arena,
		    j->urls[URL_ACCOUNT]))), j->jwk).p);
	else if (j->wants_eab) {
		j->advice = "set tls.acme_eab to the kid and hmac that the CA gives";
		return acme_fail(j, "the CA serves only customers that it knows");
	}
	if (t->acme_email.n > 0)
		contact = arena_fmt(&j->arena, ",\"contact\":[%s]", json_quoted(&j->arena,
		    slice_of(arena_fmt(&j->arena, "mailto:%s", t->acme_email.p))));
	if (!acme_post(j, "newAccount", j->urls[URL_ACCOUNT], slice_of(arena_fmt(&j->arena,
	    "{\"termsOfServiceAgreed\":true%s%s}", contact, eab)), &an))
		return false;
	j->kid = an.location;
	return j->kid.n > 0 || acme_bad(j, "newAccount", &an);
}

/* ---- order ---- */

/* The certificate's name in ARI; empty: it has none. RFC 9773 4.1. */
static struct slice
acme_cert_id(struct arena *a, const struct cert *c)
{
	if (!c || c->issuer_id.n == 0 || c->serial.n == 0)
		return S("");
	return slice_of(arena_fmt(a, "%s.%s", b64url(a, c->issuer_id).p, b64url(a, c->serial).p));
}

/* Orders; once more without `replaces` if the CA refuses that. RFC 8555 7.4. */
static bool
acme_order(struct acme *j, struct acme_answer *an)
{
	struct slice id = acme_cert_id(&j->arena, j->task->cert);
	const struct slices *domains = &j->task->t->domains;
	const char *names = "", *replaces = "";

	for (int i = 0; i < domains->n; i++)
		names = arena_fmt(&j->arena, "%s%s{\"type\":\"dns\",\"value\":%s}", names,
		    i > 0 ? "," : "", json_quoted(&j->arena, domains->v[i]));
	if (id.n > 0 && j->urls[URL_RENEWAL].n > 0)
		replaces = arena_fmt(&j->arena, ",\"replaces\":%s", json_quoted(&j->arena, id));
	while (!acme_post(j, "newOrder", j->urls[URL_ORDER], slice_of(arena_fmt(&j->arena,
	    "{\"identifiers\":[%s]%s}", names, replaces)), an)) {
		if (!*replaces || an->status < 400 || an->status >= 500 || j->retry_s >= 0)
			return false;
		replaces = "";
	}
	j->order = an->location;
	return j->order.n > 0 || acme_bad(j, "newOrder", an);
}

/* ---- challenges ---- */

/* The challenge of auth that warp can meet; NULL: none, see why. */
static const struct json *
acme_choose(struct acme *j, const struct json *auth, struct slice name)
{
	const struct acme_task *k = j->task;
	const struct json *list = json_get(auth, "challenges"), *c;

	for (int tls = !k->plain; tls <= k->tls; tls++)
		for (c = list ? list->first : NULL; c; c = c->next)
			if (slice_eq(json_text(c, "type"), tls ? ACME_TLS : ACME_HTTP))
				return c;
	j->advice = k->plain ? "this CA cannot be used with warp"
	    : "let warp listen for http as well (server.http_port = 80): http-01 needs that";
	acme_fail(j, "%s: the CA offers no challenge that warp can meet (%s)", name.p,
	    k->plain && k->tls ? "http-01, tls-alpn-01" : k->plain ? "http-01" : "tls-alpn-01");
	return NULL;
}

/* Puts the proof on the board, and tells the CA to look. */
static bool
acme_publish(struct acme *j, int i, const struct json *auth, struct slice name)
{
	const struct json *c = acme_choose(j, auth, name);
	struct slice token = json_text(c, "token"), url = json_text(c, "url");
	struct acme_answer an;
	bool http;

	if (!c)
		return false;
	http = slice_eq(json_text(c, "type"), ACME_HTTP);
	for (size_t k = 0; k < token.n; k++)
		if (base64_value(token.p[k]) < 0 && token.p[k] != '-' && token.p[k] != '_')
			token.n = 0;
	if (token.n == 0 || !challenge_set(i, name.p, http ? token.p : "",
	    arena_fmt(&j->arena, "%s.%s", token.p, j->thumb.p)))
		return acme_fail(j, "%s: the CA's token is no token, or too long", name.p);
	log_info("%s: proving it with %s", name.p, http ? "http-01" : "tls-alpn-01");
	return acme_post(j, "to the challenge", url, S("{}"), &an);
}

/* Waits until the status of an authorization or order is none of busy any more. Asks
 * as often as the CA says, or at intervals that double. */
static bool
acme_await(struct acme *j, struct slice url, const char *const busy[2], struct acme_answer *an)
{
	struct slice status;
	int64_t until, ms, wait_ms = ACME_POLL_MS;

	clock_turn();
	for (until = now_ms + ACME_PROOF_MS; ; wait_ms = MIN(2 * wait_ms, (int64_t)ACME_POLL_MAX_MS)) {
		if (!acme_post(j, "a look at the order", url, S(""), an))
			return false;
		status = json_text(an->json, "status");
		if (!slice_eq(status, slice_of(busy[0])) && !slice_eq(status, slice_of(busy[1])))
			return true;
		if (now_ms >= until)
			return acme_fail(j, "the CA has been thinking for %d s and says '%s' still",
			    ACME_PROOF_MS / SECOND_MS, status.p);
		ms = an->retry_s > 0 ? an->retry_s * SECOND_MS : wait_ms;
		clock_turn();
		if (now_ms + ms >= j->end_ms)
			return acme_fail(j, "not done within %d minutes",
			    ACME_JOB_MS / SECOND_MS / MINUTE_S);
		poll(NULL, 0, (int)ms);
	}
}

/* Whether the CA accepts the proof of name. */
static bool
acme_judged(struct acme *j, const struct json *auth, struct slice name)
{
	struct slice status = json_text(auth, "status");
	const struct json *list = json_get(auth, "challenges");

	if (slice_eq(status, S("valid")))
		return true;
	for (const struct json *c = list ? list->first : NULL; c; c = c->next)
		if (json_get(c, "error"))
			return acme_refused(j, json_get(c, "error"), name, -1);
	return acme_fail(j, "%s: the CA says that its authorization is %s", name.p,
	    status.n > 0 ? status.p : "nothing");
}

/* Proves all names of an order at one time. RFC 8555 7.5. */
static bool
acme_prove(struct acme *j, const struct json *order)
{
	static const char *const busy[2] = { "pending", "processing" };
	const struct json *list = json_get(order, "authorizations"), *v;
	struct slice asked[ACME_NAMES_MAX], names[ACME_NAMES_MAX], status;
	struct acme_answer an;
	int n = 0;

	for (v = list ? list->first : NULL; v; v = v->next) {
		if (n == ACME_NAMES_MAX)
			return acme_fail(j, "the CA wants more than %d proofs", ACME_NAMES_MAX);
		if (v->kind != JSON_STRING)
			return acme_fail(j, "the CA's order has an authorization that is no URL");
		if (!acme_post(j, "for an authorization", v->text, S(""), &an))
			return false;
		status = json_text(an.json, "status");
		names[n] = json_text(json_get(an.json, "identifier"), "value");
		if (slice_eq(status, S("valid")))
			continue;
		if (!slice_eq(status, S("pending")))
			return acme_judged(j, an.json, names[n]);
		asked[n] = v->text;
		if (!acme_publish(j, n, an.json, names[n]))
			return false;
		n++;
	}
	for (int i = 0; i < n; i++)
		if (!acme_await(j, asked[i], busy, &an) || !acme_judged(j, an.json, names[i]))
			return false;
	return true;
}

static void
acme_clear(void)
{
	for (int i = 0; i < ACME_NAMES_MAX; i++)
		challenge_set(i, NULL, NULL, NULL);
}

/* ---- certificate ---- */

/* Whether the order has the status `due`. */
static bool
acme_is(struct acme *j, const struct acme_answer *an, const char *due)
{
	struct slice status = json_text(an->json, "status");

	if (slice_eq(status, slice_of(due)))
		return true;
	if (json_get(an->json, "error"))
		return acme_refused(j, json_get(an->json, "error"), S(""), an->retry_s);
	return acme_fail(j, "the CA says that the order is %s, not %s",
	    status.n > 0 ? status.p : "nothing", due);
}

/* Has the CA sign for key. RFC 8555 7.4. */
static bool
acme_finish(struct acme *j, const br_ec_private_key *key, struct acme_answer *an)
{
	static const char *const pending[2] = { "pending", "pending" };
	static const char *const busy[2] = { "ready", "processing" };
	const char *why;
	struct slice csr, url;

	if (!acme_await(j, j->order, pending, an))
		return false;
	if (slice_eq(json_text(an->json, "status"), S("valid"))) /* its key is lost */
		return acme_fail(j, "the CA gave an order that has been finished before");
	if (!acme_is(j, an, "ready"))
		return false;
	if ((why = csr_der(&j->arena, key, &j->task->t->domains, &csr)))
		return acme_fail(j, "%s", why);
	url = json_text(an->json, "finalize");
	return acme_post(j, "finalize", url, slice_of(arena_fmt(&j->arena, "{\"csr\":\"%s\"}",
	    b64url(&j->arena, csr).p)), an) && acme_await(j, j->order, busy, an) &&
	    acme_is(j, an, "valid");
}

static void
acme_hear(void *to, enum diag_level level, int pair, const char *text)
{
	(void)pair;
	if (level == DIAG_ERROR)
		acme_fail(to, "%s", text);
}

/* Whether pem (key, then chain) is what was asked for. */
static bool
acme_accept(struct acme *j, struct slice pem)
{
	struct certs_reader r = { .a = &j->arena, .say = acme_hear, .to = j };
	struct cert c = { .cert_file = "what the CA sent", .key_file = "what the CA sent" };

	if (!cert_read(&r, &c, pem, pem))
		return false;
	if (!cert_is_for(&c, &j->task->t->domains))
		return acme_fail(j, "the CA's certificate is not for exactly the names of "
		    "tls.domains");
	clock_turn();
	if (c.until_s > now_s)
		return true;
	j->advice = "is this host's clock right?";
	return acme_fail(j, "the CA's certificate expired on %s already",
	    cert_date(&j->arena, c.until_s));
}

/* From the directory to the certificate; *pem is its key and the chain. */
static bool
acme_obtain(struct acme *j, struct slice *pem)
{
	unsigned char x[EC_KEY_BYTES];
	br_ec_private_key key;
	struct acme_answer an;

	if (!acme_account(j) || !acme_order(j, &an) || !acme_prove(j, an.json))
		return false;
	if (!key_new(&key, x))
		return acme_fail(j, "there is nothing random to make a key of");
	if (!acme_finish(j, &key, &an) ||
	    !acme_post(j, "for the certificate", json_text(an.json, "certificate"), S(""), &an))
		return false;
	*pem = slice_of(arena_fmt(&j->arena, "%s%s", key_pem(&j->arena, &key).p, an.body.p));
	return acme_accept(j, *pem);
}

/* ---- when to renew ---- */

/* When the CA suggests to renew: `window FROM UNTIL ASK_AGAIN`, in seconds; zeros:
 * it does not. RFC 9773 4.2, 4.3. */
static const char *
acme_window(struct acme *j)
{
	struct slice id = acme_cert_id(&j->arena, j->task->cert), url = j->urls[URL_RENEWAL];
	const struct json *w;
	struct acme_answer an;
	int64_t from, until, again;

	if (id.n == 0 || url.n == 0 || !acme_ask(j, M_GET, slice_of(arena_fmt(&j->arena,
	    slice_ends(url, S("/")) ? "%s%s" : "%s/%s", url.p, id.p)), S(""), &an))
		return "window 0 0 0\n";
	again = an.retry_s < 0 ? ACME_ASK_S
	    : MIN(MAX(an.retry_s, (int64_t)MINUTE_S), (int64_t)DAY_S);
	w = json_get(an.json, "suggestedWindow");
	from = acme_time(json_text(w, "start").p);
	until = acme_time(json_text(w, "end").p);
	if (an.status != 200 || from < 0 || until <= from)
		from = until = 0;
	else if (json_text(an.json, "explanationURL").n > 0)
		log_info("the CA says why it suggests when to renew: %s",
		    json_text(an.json, "explanationURL").p);
	return arena_fmt(&j->arena, "window %lld %lld %lld\n", (long long)from, (long long)until,
	    (long long)again);
}

/* ---- the helper ---- */

/* The helper. At its end life gets one message: `done` with key and chain; `window`;
 * or `failed SECONDS` with why and what to do, a line each. */
static void
acme_run(void *task, int life)
{
	const struct acme_task *k = task;
	struct acme *j = xcalloc(1, sizeof *j);
	struct slice result, pem;
	bool good;

	helper_settle(k->server, true);
	clock_turn();
	tls_open(k->t, 1);
	*j = (struct acme){ .task = k, .end_ms = now_ms + ACME_JOB_MS, .retry_s = -1,
		.why = "", .nonce = S(""), .kid = S(""), .ca.ch.w.fd = -1,
		.in = { xcalloc(1, ACME_ANSWER_MAX), 0, ACME_ANSWER_MAX, false } };
	j->jwk = jwk_text(&j->arena, k->account);
	j->thumb = jwk_thumbprint(&j->arena, j->jwk);
	good = acme_directory(j);
	if (k->ask)
		result = slice_of(good ? acme_window(j)
		    : arena_fmt(&j->arena, "window 0 0 %d\n", ACME_ASK_S));
	else if (good && acme_obtain(j, &pem))
		result = slice_of(arena_fmt(&j->arena, "done\n%s", pem.p));
	else
		result = slice_of(arena_fmt(&j->arena, "failed %lld\n%s\n%s\n",
		    (long long)j->retry_s, j->why, j->advice ? j->advice : ""));
	acme_hang_up(j);
	acme_clear();
	if (send(life, result.p, result.n, MSG_NOSIGNAL) < 0)
		log_errno("what came of it cannot be told");
}

/* ==== endpoint ===============================================================
 * Owns    nothing.
 * Offers  replica_instance, endpoint_of, endpoint_unix, endpoint_tcp,
 *         endpoint_dial, endpoint_is_free, endpoint_holder, endpoint_share,
 *         dir_remove, file_head.
 * Calls   base, walk, clock, log, listen, privilege. Where a replica listens:
 *         as the configuration says, or as warp chooses. */

#define SOCKET_SHARED 0660 /* for its program and the workers */
#define DIR_MODE      0755

/* The replica's next instance behind after (NULL: its first); NULL: none. */
static struct instance *
replica_instance(const struct process *ps, int index, const struct instance *after)
{
	struct upstream *up = ps->up;

	for (int i = after ? (int)(after - up->instances) + 1 : 0; up && i < up->n_instances; i++)
		if (up->instances[i].replica == index)
			return &up->instances[i];
	return NULL;
}

/* Whether nobody listens at port on this host. */
static bool
port_is_free(uint16_t port)
{
	const union sock any[] = {
		{ .in = { .sin_family = AF_INET, .sin_port = htons(port) } },
		{ .in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) } },
	};
	bool taken = false;
	int on = 1;

	for (size_t i = 0; i < LEN(any); i++) {
		int fd = socket(any[i].sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0)
			continue; /* this host has no such addresses */
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
		if (any[i].sa.sa_family == AF_INET6)
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
		taken |= bind(fd, &any[i].sa, sizeof any[i]) < 0 && errno == EADDRINUSE;
		close(fd);
	}
	return !taken;
}

/* A free port that is not taken; 0: none is left. */
static uint16_t
port_choose(bool (*taken)(uint16_t, const char *))
{
	enum { PORTS = PORT_CHOSEN_MAX - PORT_CHOSEN_MIN + 1 };
	unsigned at = (unsigned)now_us;

	/* random: another warp's choice may not be bound yet */
	if (getrandom(&at, sizeof at, GRND_NONBLOCK) < 0)
		log_debug("no randomness yet for a port");
	for (unsigned i = 0; i < PORTS; i++) {
		uint16_t port = (uint16_t)(PORT_CHOSEN_MIN + (at + i) % PORTS);
		if (!taken(port, NULL) && port_is_free(port))
			return port;
	}
	log_error("no free port from %d to %d", PORT_CHOSEN_MIN, PORT_CHOSEN_MAX);
	return 0;
}

/* port at the address of in, or at both that localhost may mean. */
static void
endpoint_tcp(struct endpoint *e, const struct instance *in, uint16_t port)
{
	*e = (struct endpoint){ .port = port, .sock_n = sizeof e->sock.in };
	e->sock.in = (struct sockaddr_in){ .sin_family = AF_INET,
		.sin_addr = { htonl(INADDR_LOOPBACK) } };
	if (in && in->addr.kind == ADDR_INET) {
		e->sock = in->addr.sock;
		e->sock_n = in->addr.sock_n;
	} else {
		e->other.in6 = (struct sockaddr_in6){ .sin6_family = AF_INET6,
			.sin6_addr = IN6ADDR_LOOPBACK_INIT, .sin6_port = htons(port) };
		e->other_n = sizeof e->other.in6;
	}
	if (e->sock.sa.sa_family == AF_INET6)
		e->sock.in6.sin6_port = htons(port);
	else
		e->sock.in.sin_port = htons(port);
}

/* The program is at the other address: it is first from now on. */
static void
endpoint_turn(struct endpoint *e)
{
	union sock sock = e->sock;
	socklen_t n = e->sock_n;

	e->sock = e->other;
	e->sock_n = e->other_n;
	e->other = sock;
	e->other_n = n;
}

/* Makes a directory of our own; false: in /tmp another user had it first. With as:
 * one inside ours, for that user. */
static bool
dir_make(const char *path, const struct identity *as)
{
	struct stat st;

	if ((mkdir(path, DIR_MODE) < 0 && errno != EEXIST) || lstat(path, &st) < 0 ||
	    !S_ISDIR(st.st_mode))
		return false;
	return !as || geteuid() != ROOT ? st.st_uid == geteuid() : lchown(path,
	    as->user ? as->uid : 0, as->group ? as->gid : 0) == 0;
}

/* Removes path and the files in it or, if deep, directories in it. */
static void
dir_remove(const char *path, bool deep)
{
	char name[PATH_MAX];
	struct dirent *e;
	DIR *d = opendir(path);

	while (d && (e = readdir(d))) {
		if (e->d_name[0] == '.' ||
		    (size_t)snprintf(name, sizeof name, "%s/%s", path, e->d_name) >= sizeof name)
			continue;
		if (deep)
			dir_remove(name, false);
		else
			unlink(name); /* a directory stays: it is none of ours */
	}
	if (d)
		closedir(d);
	rmdir(path);
}

static char run_dir_made[sizeof RUN_DIR + 32]; /* empty: not needed yet */

/* The directory of sockets that warp chooses, made on demand. */
static const char *
run_dir(void)
{
	static const char *const bases[] = { RUN_DIR, "/tmp/warp" };
	char *dir = run_dir_made;

	for (size_t i = 0; i < LEN(bases) && !*dir; i++) {
		if (i > 0 || !dir_make(bases[i], NULL))
			snprintf(dir, sizeof run_dir_made, "%s-%d", bases[i], (int)getpid());
		else
			snprintf(dir, sizeof run_dir_made, "%s/%d", bases[i], (int)getpid());
		if (!dir_make(dir, NULL))
			*dir = '\0';
	}
	return dir;
}

/* A socket in a directory that the program may write to, with a new name: an old
 * program may still drain. */
static int
endpoint_unix(struct endpoint *e, const char *label, const struct identity *as,
    bool (*taken)(uint16_t, const char *))
{
	char dir[sizeof e->socket];
	int n = snprintf(dir, sizeof dir, "%s/%s", run_dir(), label);

	*e = (struct endpoint){ .sock_n = sizeof e->sock.un };
	e->sock.un.sun_family = AF_UNIX;
	if (n > 0 && (size_t)n < sizeof dir && dir_make(dir, as))
		for (int i = 1; i < PROCS_MAX; i++) {
			n = snprintf(e->socket, sizeof e->socket, "%s/%d.sock", dir, i);
			if (n < 0 || (size_t)n >= sizeof e->socket)
				break;
			if (taken(0, e->socket) || access(e->socket, F_OK) == 0)
				continue;
			memcpy(e->sock.un.sun_path, e->socket, sizeof e->socket);
			return 0;
		}
	log_error("process %s: no place for its socket in %s", label, dir);
	*e = (struct endpoint){ 0 };
	return -1;
}

/* The endpoint as configured; false: warp has to choose. */
static bool
endpoint_of(struct endpoint *e, const struct instance *in)
{
	*e = (struct endpoint){ 0 };
	if (!in)
		return true;
	if (in->addr.kind == ADDR_NONE)
		return false;
	if (in->addr.kind == ADDR_UNIX || in->addr.kind == ADDR_ABSTRACT)
		snprintf(e->socket, sizeof e->socket, "%s", in->addr.kind == ADDR_UNIX
		    ? in->addr.sock.un.sun_path : in->addr.text);
	else
		e->port = in->addr.port;
	if (in->addr.kind != ADDR_NAME) {
		e->sock = in->addr.sock;
		e->sock_n = in->addr.sock_n;
	}
	return true;
}

/* Begins to connect: the descriptor; -1: see errno. EISCONN: somebody accepts, and
 * the connection is closed. */
static int
endpoint_dial(const union sock *to, socklen_t n)
{
	int fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), done;

	if (fd < 0)
		return -1;
	if ((done = connect(fd, &to->sa, n)) < 0 && errno == EINPROGRESS)
		return fd;
	/* a unix socket whose backlog is full listens */
	if (done == 0 || (errno == EAGAIN && to->sa.sa_family == AF_UNIX))
		errno = EISCONN;
	fd_close(fd);
	return -1;
}

/* Before a program starts: whether nobody listens at e. Removes a socket file that
 * nobody listens at. */
static bool
endpoint_is_free(const struct endpoint *e)
{
	struct addr a = { .kind = ADDR_UNIX, .text = e->socket, .sock = e->sock,
		.sock_n = e->sock_n };
	struct pollfd p = { .events = POLLOUT };
	socklen_t n = sizeof errno;
	int err = 0;

	if (e->socket[0] == '/')
		return unix_clear(&a) == 0;
	if (e->sock_n == 0 || (p.fd = endpoint_dial(&e->sock, e->sock_n)) < 0)
		return e->sock_n == 0 || errno != EISCONN;
	if (poll(&p, 1, 1) <= 0 || getsockopt(p.fd, SOL_SOCKET, SO_ERROR, &err, &n) < 0)
		err = EINPROGRESS;
	close(p.fd);
	return err != 0;
}

/* Whether at, of /proc/net/tcp, is sock's address or a wildcard. */
static bool
tcp_text_is(const char *at, const union sock *sock)
{
	char want[33];
	const uint32_t *w = sock->sa.sa_family == AF_INET ? &sock->in.sin_addr.s_addr
	    : (const uint32_t *)(const void *)&sock->in6.sin6_addr;
	int n = sock->sa.sa_family == AF_INET ? 1 : 4;

	for (int i = 0; i < n; i++)
		snprintf(want + 8 * i, 9, "%08X", (unsigned)w[i]);
	return strcmp(at, want) == 0 || strspn(at, "0") == strlen(at);
}

/* The inode of the socket that listens at e; 0: not found. */
static unsigned long long
port_inode(const struct endpoint *e)
{
	static const char *const tables[] = { "/proc/net/tcp", "/proc/net/tcp6" };
	enum { LISTEN = 10 };
	unsigned long long inode = 0, of;
	unsigned port, state;
	char line[512], at[33];

	for (size_t i = 0; i < LEN(tables) && inode == 0; i++) {
		FILE *f = fopen(tables[i], "re");
		while (f && inode == 0 && fgets(line, sizeof line, f))
			if (sscanf(line, " %*d: %32[0-9A-F]:%x %*32[0-9A-F]:%*x %x %*s %*s %*s %*u %*u "
			    "%llu", at, &port, &state, &of) == 4 && state == LISTEN && port == e->port &&
			    tcp_text_is(at, &e->sock))
				inode = of;
		if (f)
			fclose(f);
	}
	return inode;
}

/* A pid that has that socket; 0: none that we may look at. */
static pid_t
inode_holder(unsigned long long inode)
{
	char want[64], path[NAME_MAX + 32], to[64];
	DIR *d = opendir("/proc"), *fds;
	struct dirent *e, *f;
	pid_t pid = 0;
	ssize_t n;

	snprintf(want, sizeof want, "socket:[%llu]", inode);
	while (d && pid == 0 && (e = readdir(d))) {
		snprintf(path, sizeof path, "/proc/%s/fd", e->d_name);
		if (slice_uint(slice_of(e->d_name), INT_MAX) <= 0 || !(fds = opendir(path)))
			continue;
		while (pid == 0 && (f = readdir(fds)))
			if ((n = readlinkat(dirfd(fds), f->d_name, to, sizeof to)) > 0 &&
			    slice_eq((struct slice){ to, (size_t)n }, slice_of(want)))
				pid = (pid_t)slice_uint(slice_of(e->d_name), INT_MAX);
		closedir(fds);
	}
	if (d)
		closedir(d);
	return pid;
}

/* At most the first size bytes of a file; -1: it cannot be read. */
static ssize_t
file_head(int dir, const char *path, char *b, size_t size)
{
	int fd = openat(dir, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, b, size) : -1;

	fd_close(fd);
	return n;
}

/* The program at e, in words. */
static void
endpoint_holder(const struct endpoint *e, char *out, size_t size)
{
	int fd = e->port > 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	unsigned long long inode = e->port > 0 ? port_inode(e) : 0;
	struct ucred who = { .pid = inode > 0 ? inode_holder(inode) : 0 };
	char path[32], name[32] = "";
	socklen_t n = sizeof who;

	if (fd >= 0 && connect(fd, &e->sock.sa, e->sock_n) == 0)
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n);
	fd_close(fd);
	snprintf(path, sizeof path, "/proc/%d/comm", (int)who.pid);
	file_head(AT_FDCWD, path, name, sizeof name - 1);
	name[strcspn(name, "\n")] = '\0';
	if (who.pid > 0)
		snprintf(out, size, "pid %d (%s)", (int)who.pid, name);
	else
		snprintf(out, size, "`ss -lntxp` names it");
}

/* Opens the program's socket to the workers, which may be another user. By
 * descriptor, and only if it is a socket of owner: the program can put anything at
 * that path. */
static void
endpoint_share(const struct endpoint *e, uid_t owner, const struct server_conf *sc)
{
	struct identity workers;
	struct stat st;
	int fd;

	if (geteuid() != 0 || e->socket[0] != '/' || identity_find("server", sc->user, sc->group,
	    &workers) < 0 || (!workers.user && !workers.group))
		return;
	if ((fd = open(e->socket, O_PATH | O_NOFOLLOW | O_CLOEXEC)) < 0)
		return;
	if (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_uid == owner &&
	    (fchownat(fd, "", (uid_t)-1, workers.gid, AT_EMPTY_PATH) < 0 ||
	    fd_chmod(fd, SOCKET_SHARED) < 0))
		log_errno("%s: opening it to the workers", e->socket);
	close(fd);
}

/* ==== child ==================================================================
 * Owns    warden_program: a warden's.
 * Offers  child_start, child_mark, child_files, children_read, child_next,
 *         children_kill.
 * Calls   base, arena, walk, sink, log, processes, privilege, helper, endpoint.
 *         Starts the program of a process, with nothing of warp's, below a warden
 *         of its own. */

#define EXIT_NOT_RUN   126 /* as a shell says it */
#define EXIT_NOT_THERE 127
#define FD_FIRST       3
#define SIGNAL_SET     8 /* bytes of the kernel's signal mask */
#define ENV_MARK       "WARP_PROC"
#define ENV_ADDED      4 /* three of the user, the mark */

static struct rlimit child_files; /* warp's at its start, before it raised its own */
static char child_mark[128];      /* NAME=value in the environment of all programs of this warp */

/* text with {index}, {port} and {socket} filled in. */
static char *
child_text(const struct child_start *cs, struct slice text)
{
	char index[16], port[16];
	const struct { struct slice name; const char *value; } vars[] = {
		{ S("{index}"), index },
		{ S("{port}"), port },
		{ S("{socket}"), cs->at->socket },
	};
	struct text t = { arena_alloc(cs->a, text.n * sizeof cs->at->socket + 1), 0,
		text.n * sizeof cs->at->socket + 1, false };
	size_t i;

	snprintf(index, sizeof index, "%d", cs->index);
	snprintf(port, sizeof port, "%u", cs->at->port);
	while (text.n > 0) {
		for (i = 0; i < LEN(vars) && !slice_starts(text, vars[i].name); i++)
			;
		if (i == LEN(vars)) {
			text_char(&t, *text.p);
			text = slice_from(text, 1);
			continue;
		}
		text_str(&t, vars[i].value);
		text = slice_from(text, vars[i].name.n);
	}
	text_char(&t, '\0');
	return t.p;
}

/* Sets NAME=value in env, in place of an older NAME. */
static void
env_put(char **env, size_t *n, char *entry)
{
	size_t name = strcspn(entry, "=") + 1;

	for (size_t i = 0; i < *n; i++)
		if (strncmp(env[i], entry, name) == 0) {
			env[i] = entry;
			return;
		}
	env[(*n)++] = entry;
}

static const struct slices *env_hidden; /* the configuration's own variables */

/* Whether a variable is warp's own; it may be secret. */
static bool
env_is_ours(const char *entry)
{
	static const char *const names[] = { "WARP_INHERIT=", "WARP_UPGRADE_FROM=", ENV_MARK "=",
		"NOTIFY_SOCKET=",
		"LISTEN_PID=", "LISTEN_FDS=", "LISTEN_FDNAMES=", ENV_PREFIX };

	for (size_t i = 0; i < LEN(names); i++)
		if (strncmp(entry, names[i], strlen(names[i])) == 0)
			return true;
	for (int i = 0; env_hidden && i < env_hidden->n; i++)
		if (strncmp(entry, env_hidden->v[i].p, env_hidden->v[i].n) == 0 &&
		    entry[env_hidden->v[i].n] == '=')
			return true;
	return false;
}

/* warp's environment, the envfile, then env. NULL: the file is wrong, logged. */
static char **
child_env(const struct child_start *cs)
{
	const struct process *ps = cs->conf;
	struct pairs file = { NULL, 0 };
	struct slice text;
	const char *why, *bad = NULL;
	unsigned line = 0;
	size_t n = 0, old = 0;
	struct passwd *pw;
	char **env;

	if (ps->envfile && ((why = walk_read(cs->a, ps->envfile, ENVFILE_MAX, cs->uid, &text)) ||
	    (why = envfile_parse(cs->a, text, &file, &line, &bad)))) {
		log_error(line > 0 ? "process %s: %s: %s, line %u" : "process %s: %s: %s", cs->label,
		    ps->envfile, why, line);
		return NULL;
	}
	if (bad)
		log_warn("process %s: %s:%u: %s; the line is left out", cs->label, ps->envfile, line,
		    bad);
	while (environ[old])
		old++;
	env = arena_alloc(cs->a, (old + (size_t)file.n + (size_t)ps->env.n + ENV_ADDED + 1) *
	    sizeof *env);
	for (size_t i = 0; i < old; i++)
		if (!env_is_ours(environ[i]))
			env[n++] = environ[i];
	pw = ps->user ? user_find(ps->user) : NULL;
	if (pw) { /* a program of another user looks for its files at that user's place */
		env_put(env, &n, arena_fmt(cs->a, "HOME=%s", pw->pw_dir));
		env_put(env, &n, arena_fmt(cs->a, "USER=%s", pw->pw_name));
		env_put(env, &n, arena_fmt(cs->a, "LOGNAME=%s", pw->pw_name));
	}
	env_put(env, &n, child_mark);
	for (int i = 0; i < file.n; i++)
		env_put(env, &n, arena_fmt(cs->a, "%s=%s", file.v[i].name.p, file.v[i].value.p));
	for (int i = 0; i < ps->env.n; i++)
		env_put(env, &n, arena_fmt(cs->a, "%s=%s", ps->env.v[i].name.p,
		    child_text(cs, ps->env.v[i].value)));
	return env;
}

/* In the child: rids it of what is warp's. */
static void
child_clean(int out)
{
	static const long preset[8]; /* the kernel's struct: all zero is SIG_DFL */
	int null = open("/dev/null", O_RDONLY);
	sigset_t none;

	for (int s = 1; s < NSIG; s++)
		if (signal(s, SIG_DFL) == SIG_ERR) /* libc's own, or never caught: ask the kernel */
			syscall(SYS_rt_sigaction, s, preset, NULL, SIGNAL_SET);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 ||
	    dup2(out, STDERR_FILENO) < 0)
		_exit(EXIT_NOT_RUN);
	fds_close(FD_FIRST, NULL, 0); /* ours close on exec; inherited ones may not */
}

static int
child_limits(const struct process *ps)
{
	const struct rlimit files = { (rlim_t)ps->nofile, (rlim_t)ps->nofile },
		as = { (rlim_t)ps->as_bytes, (rlim_t)ps->as_bytes },
		core = { (rlim_t)ps->core, (rlim_t)ps->core };
	struct rlimit now;

	/* the limit before warp raised it; less if it was lowered meanwhile */
	if (getrlimit(RLIMIT_NOFILE, &now) < 0)
		return -1;
	now.rlim_max = MIN(now.rlim_max, child_files.rlim_max);
	now.rlim_cur = MIN(now.rlim_max, child_files.rlim_cur);
	return setrlimit(RLIMIT_NOFILE, &now) < 0 ||
	    (ps->nofile >= 0 && setrlimit(RLIMIT_NOFILE, &files) < 0) ||
	    (ps->as_bytes >= 0 && setrlimit(RLIMIT_AS, &as) < 0) ||
	    (ps->core >= 0 && setrlimit(RLIMIT_CORE, &core) < 0) ? -1 : 0;
}

/* Ends a child that could not become its program; why goes where its output
 * goes. */
__attribute__((format(printf, 1, 2))) _Noreturn static void
child_die(const char *fmt, ...)
{
	int err = errno;
	va_list ap;

	va_start(ap, fmt);
	fputs("warp: ", stderr);
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, ": %s\n", strerror(err));
	fflush(stderr);
	_exit(err == ENOENT ? EXIT_NOT_THERE : EXIT_NOT_RUN);
}

/* What a script names behind `#!`, a CR made visible; false: no script. */
static bool
interpreter_of(const char *file, char *out, size_t size)
{
	char b[128], path[PATH_MAX];
	struct slice dirs = slice_of(getenv("PATH")), dir = S(""), line;
	struct text t = { out, 0, size - 1, false };
	ssize_t n = strchr(file, '/') ? file_head(AT_FDCWD, file, b, sizeof b) : -1;

	while (!strchr(file, '/') && n < 0 && slice_cut(&dirs, ':', &dir)) {
		snprintf(path, sizeof path, "%.*s/%s", (int)dir.n, dir.p, file);
		n = file_head(AT_FDCWD, path, b, sizeof b);
	}
	line = (struct slice){ b, n > 0 ? (size_t)n : 0 };
	if (!slice_starts(line, S("#!")))
		return false;
	line = slice_trim(slice_from(line, 2));
	for (size_t i = 0; i < line.n && line.p[i] != '\n' && !is_blank(line.p[i]); i++)
		if (line.p[i] == '\r')
			text_add(&t, S("\\r"));
		else
			text_char(&t, line.p[i]);
	out[t.n] = '\0';
	return true;
}

_Noreturn static void
child_run(const struct child_start *cs, const struct identity *as, char **argv, char **env)
{
	const struct process *ps = cs->conf;
	char line[256];

	setpgid(0, 0);
	child_clean(cs->out);
	sink_use(&log_sink, STDERR_FILENO, false);
	if (child_limits(ps) < 0)
		child_die("limits");
	if (identity_groups(as) < 0 || identity_take(as) < 0)
		_exit(EXIT_NOT_RUN);
	if (chdir(ps->dir) < 0)
		child_die("dir %s", ps->dir);
	/* the change of user clears it */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != cs->parent)
		_exit(EXIT_NOT_RUN);
	environ = env;
	execvp(argv[0], argv);
	if (errno == ENOENT && interpreter_of(argv[0], line, sizeof line))
		child_die("cannot run %s: its interpreter '%s' is missing%s", argv[0], line,
		    strstr(line, "\\r") ? " (the file has CR LF line ends)" : "");
	child_die("cannot run %s", argv[0]);
}

/* ---- the warden ---- */

enum { STAT_PARENT = 2, STAT_STARTED = 20 }; /* words behind the name; proc_pid_stat(5) */

/* A word of /proc/PID/stat, as a number; 0: no such process. */
static uint64_t
stat_word(pid_t pid, int which)
{
	char path[32], b[1024];
	struct slice rest, word = S("");
	const char *at;
	ssize_t n;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	n = file_head(AT_FDCWD, path, b, sizeof b);
	if (n <= 0 || !(at = memrchr(b, ')', (size_t)n)))
		return 0;
	rest = (struct slice){ at + 1, (size_t)(b + n - at) - 1 };
	for (int i = 0; i <= which && slice_cut(&rest, ' ', &word); i++)
		;
	return (uint64_t)MAX(slice_uint(word, INT64_MAX), 0);
}

/* As children_read, where the kernel has no such list. */
static struct slice
children_scan(char *b, size_t size)
{
	struct text t = { b, 0, size, false };
	DIR *d = opendir("/proc");
	struct dirent *e;

	while (d && (e = readdir(d))) {
		int64_t pid = slice_uint(slice_of(e->d_name), INT_MAX);
		if (pid > 1 && stat_word((pid_t)pid, STAT_PARENT) == (uint64_t)getpid())
			text_fmt(&t, "%d ", (int)pid);
	}
	if (d)
		closedir(d);
	return text_slice(&t);
}

/* The pids of the calling process's children, in b. */
static struct slice
children_read(char *b, size_t size)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
	if ((n = file_head(AT_FDCWD, path, b, size)) < 0)
		return children_scan(b, size);
	while (n > 0 && b[n - 1] != ' ')
		n--; /* a number that was cut */
	return (struct slice){ b, (size_t)n };
}

/* The next pid of rest; 0: none. */
static pid_t
child_next(struct slice *rest)
{
	struct slice word;
	int64_t pid = rest->n > 0 && slice_cut(rest, ' ', &word) ? slice_uint(word, INT_MAX) : 0;

	return pid > 1 ? (pid_t)pid : 0; /* 0 and -1 mean several to kill() */
}

#define SWEEP_WAITS 5 /* of two seconds each, for processes slow to die */

static pid_t warden_program;

static bool
is_program(pid_t pid)
{
	return pid == warden_program;
}

/* Reaps or kills the children that one reading shows, but those to be spared. False:
 * there was none; else a next reading may show more. */
static bool
children_kill(bool (*spared)(pid_t), int *killed)
{
	char pids[4096];
	struct slice rest;
	int reaped = 0;
	pid_t pid, got;

	*killed = 0;
	for (rest = children_read(pids, sizeof pids); (pid = child_next(&rest)) > 0; ) {
		got = spared(pid) ? -1 : waitpid(pid, NULL, WNOHANG);
		reaped += got > 0;
		*killed += got == 0 && kill(pid, SIGKILL) == 0;
	}
	return reaped + *killed > 0;
}

/* Kills the warden's children, also those that come to it when their parents die,
 * until only the program is left, which has ended, or processes that cannot be
 * killed. */
static void
warden_sweep(pid_t program)
{
	static const struct timespec patience = { .tv_sec = 2 };
	siginfo_t who = { 0 };
	sigset_t ended;
	int killed, waits = 0;
	bool any;

	warden_program = program;
	sigemptyset(&ended);
	sigaddset(&ended, SIGCHLD);
	/* a program's children become ours as it ends */
	while (waitid(P_PID, (id_t)program, &who, WEXITED | WNOHANG | WNOWAIT) == 0 &&
	    who.si_pid == 0 && sigtimedwait(&ended, NULL, &patience) >= 0)
		;
	do {
		any = children_kill(is_program, &killed);
		/* killed, but slow to die */
		if (killed > 0 && sigtimedwait(&ended, NULL, &patience) < 0 && ++waits == SWEEP_WAITS)
			return;
	} while (any);
}

/* Ends as the program did. */
_Noreturn static void
warden_end(int status)
{
	sigset_t set;

	if (WIFSIGNALED(status)) {
		sigfillset(&set);
		prctl(PR_SET_DUMPABLE, 0); /* a core piped to a program ignores RLIMIT_CORE */
		signal(WTERMSIG(status), SIG_DFL);
		sigprocmask(SIG_UNBLOCK, &set, NULL);
		raise(WTERMSIG(status));
	}
	_exit(WEXITSTATUS(status));
}

/* The warden of one program, between it and warp: its parent, and the reaper of all
 * that it leaves behind, whatever session, user or environment that has. Ends after
 * the program or warp, when nobody is left. */
_Noreturn static void
warden_run(const struct child_start *cs, const struct identity *as, char **argv, char **env,
    int tell)
{
	struct child_start below = *cs;
	siginfo_t who = { 0 };
	int status = 0, signal_seen;
	bool over = false;
	sigset_t all;
	pid_t pid;

	setsid();
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	below.parent = getpid();
	if (prctl(PR_SET_PDEATHSIG, SIGUSR1) < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 ||
	    getppid() != cs->parent)
		_exit(EXIT_NOT_RUN);
	if ((pid = fork()) == 0)
		child_run(&below, as, argv, env);
	if (pid > 0)
		setpgid(pid, pid); /* the child does it too */
	if (pid < 0 || write(tell, &pid, sizeof pid) != sizeof pid)
		_exit(EXIT_NOT_RUN);
	prctl(PR_SET_NAME, "warden");
	fds_close(0, NULL, 0);
	while (!over && getppid() == cs->parent) {
		sigwait(&all, &signal_seen);
		/* a zombie's pid is not reused while warp knows the program */
		while (!over && waitid(P_ALL, 0, &who, WEXITED | WNOHANG | WNOWAIT) == 0 &&
		    who.si_pid > 0)
			if (!(over = who.si_pid == pid))
				waitpid(who.si_pid, NULL, 0);
	}
	kill(-pid, SIGKILL);
	kill(pid, SIGKILL); /* in whatever group; its pid is not reused yet */
	warden_sweep(pid);
	waitpid(pid, &status, WNOHANG);
	warden_end(status);
}

/* Starts a warden and its program: the program's pid, or -1. */
static pid_t
warden_start(const struct child_start *cs, const struct identity *as, char **argv, char **env,
    pid_t *warden)
{
	int up[2];
	pid_t pid = -1;

	if (pipe2(up, O_CLOEXEC) < 0)
		return -1;
	if ((*warden = fork()) == 0)
		warden_run(cs, as, argv, env, up[1]);
	close(up[1]);
	if (*warden > 0 && read(up[0], &pid, sizeof pid) != sizeof pid)
		pid = -1; /* the warden ended */
	close(up[0]);
	return pid;
}

/* Starts a program; *out: reading end of its output. -1: logged. */
static pid_t
child_start(const struct process *ps, const char *label, int index, const struct endpoint *at,
    const struct identity *as, int *out, pid_t *warden)
{
	struct arena a = { NULL };
	struct child_start cs = { .conf = ps, .label = label, .index = index, .at = at, .a = &a,
		.uid = as->user ? as->uid : ROOT, .parent = getpid() };
	char **env = child_env(&cs), **argv;
	size_t n = 0;
	int fds[2];
	pid_t pid = -1;

	while (ps->argv[n])
		n++;
	argv = arena_alloc(&a, (n + 1) * sizeof *argv);
	for (size_t i = 0; i < n; i++)
		argv[i] = child_text(&cs, slice_of(ps->argv[i]));
	if (env && pipe2(fds, O_CLOEXEC) == 0) {
		cs.out = fds[1];
		if (fchown(fds[1], as->user ? as->uid : (uid_t)-1,
		        as->group ? as->gid : (gid_t)-1) < 0)
			log_errno("process %s: its output", label); /* for /dev/stdout */
		if ((pid = warden_start(&cs, as, argv, env, warden)) < 0)
			log_errno("process %s: fork", label);
		close(fds[1]);
		fcntl(fds[0], F_SETFL, O_NONBLOCK);
		*out = fds[0];
		if (pid < 0)
			close(fds[0]);
	} else if (env)
		log_errno("process %s", label);
	arena_free(&a);
	return pid;
}

/* ==== output =================================================================
 * Owns    what programs write: each pipe until its end, also when its program
 *         has ended before.
 * Offers  output_open, output_close, outputs_turn, outputs_flush,
 *         outputs_reopen, output_last.
 * Calls   base, arena, clock, sink, log, board, loop, privilege, logfile. A line
 *         is one write, so lines never tear; a full log stops the program that
 *         writes, never warp. */

#define CHILD_PIECE (CHILD_LINE - PROC_NAME_MAX - 4) /* with its name: one atomic write */

static struct output *outputs;

/* Where o's lines go; the file is opened anew. */
static void
output_aim(struct output *o, const struct process *ps)
{
	char what[PROC_NAME_MAX + 32];
	struct identity as = { .uid = ROOT };
	bool made;

	fd_close(o->file);
	o->file = -1;
	o->sink = ps->sink;
	if (o->sink != CHILD_FILE)
		return;
	snprintf(what, sizeof what, "process %s: log", o->label);
	if (geteuid() == ROOT && identity_find(what, ps->user, ps->group, &as) < 0)
		return; /* the start fails too */
	o->file = log_file_open(what, ps->log_path, as.uid, &made);
	if (o->file >= 0 && made && (as.user || as.group) &&
	    fchown(o->file, as.user ? as.uid : (uid_t)-1, as.gid) < 0)
		log_errno("%s: giving it to its user", what); /* for its user to read */
}

static void
output_free(struct output *o)
{
	struct output **at = &outputs;

	while (*at != o)
		at = &(*at)->next;
	*at = o->next;
	if (o->p)
		o->p->output = NULL;
	loop_unwatch(&o->w);
	fd_close(o->fd);
	fd_close(o->file);
	free(o);
}

/* The sink of lines for the error log or the host's syslog; NULL: they go
 * elsewhere. */
static struct sink *
output_sink(const struct output *o)
{
	static char ring[2 * SYSLOG_LINE];
	static struct sink host = { .kind = SINK_DGRAM, .fd = -1, .buf = ring, .cap = sizeof ring };

	return o->sink == CHILD_PREFIX ? &log_sink : o->sink == CHILD_SYSLOG ? &host : NULL;
}

/* The descriptor that lines go to; -1: they never wait. */
static int
output_target(const struct output *o)
{
	const struct sink *s = output_sink(o);

	if (s)
		return s->kind == SINK_DGRAM ? syslog_fd : s->fd;
	return o->sink == CHILD_FILE ? o->file : -1;
}

static bool
output_flows(const struct output *o)
{
	struct pollfd p = { .fd = output_target(o), .events = POLLOUT };
	struct sink *s = output_sink(o);

	if (s && s->blocked)
		sink_flush(s);
	return s && s->blocked ? false : p.fd < 0 || poll(&p, 1, 0) > 0;
}

/* A line among those of others, with its label. */
static void
output_say(struct sink *s, const char *label, struct slice line)
{
	char b[CHILD_LINE + 1];
	struct text t = { b, 0, sizeof b, false };

	if (s->kind == SINK_DGRAM) {
		text_char(&t, '6'); /* informational */
		line.n = MIN(line.n, (size_t)SYSLOG_LINE);
	}
	text_str(&t, label);
	text_str(&t, ": ");
	text_add(&t, line);
	text_clean(t.p, t.n);
	text_char(&t, '\n');
	sink_add(s, text_slice(&t));
	*log_lost += (unsigned)s->lost;
	s->lost = 0;
	if (!sink_flush(s))
		s->n = 0;
}

static void
output_line(struct output *o, struct slice line)
{
	struct iovec v[] = { { (void *)(uintptr_t)line.p, line.n },
		{ (void *)(uintptr_t)"\n", 1 } };

	v[0].iov_len -= line.n > 0 && line.p[line.n - 1] == '\r';
	line.n = v[0].iov_len;
	if (output_sink(o))
		output_say(output_sink(o), o->label, line);
	else if (o->sink == CHILD_FILE && o->file >= 0)
		while (writev(o->file, v, LEN(v)) < 0 && errno == EINTR)
			; /* a full disk loses lines only */
}

/* The next line, from o->line + at; empty: none yet. ends: no bytes will follow. */
static struct slice
output_next(const struct output *o, size_t at, bool ends)
{
	const char *p = o->line + at;
	size_t n = MIN(o->n - at, (size_t)CHILD_PIECE);
	const char *nl = n > 0 ? memchr(p, '\n', n) : NULL;

	if (nl)
		return (struct slice){ p, (size_t)(nl - p) + 1 };
	return (struct slice){ p, ends || n == CHILD_PIECE ? n : 0 };
}

/* Writes whole lines, as long as the log takes them. */
static void
output_lines(struct output *o, bool ends)
{
	struct slice line;
	size_t at = 0;

	o->stuck = false;
	while ((line = output_next(o, at, ends)).n > 0) {
		if (!output_flows(o)) {
			o->stuck = true;
			break;
		}
		at += line.n;
		line.n -= line.p[line.n - 1] == '\n';
		output_line(o, line);
	}
	memmove(o->line, o->line + at, o->n - at);
	o->n -= at;
	o->seen -= MIN(at, o->seen);
}

/* Keeps lines of the last read for status, without what a terminal would obey,
 * whether or not the log takes them. */
static void
output_notice(struct output *o, bool ends)
{
	struct board_proc *to = o->p ? o->p->board : NULL;
	struct slice line;
	char b[WHY_MAX];

	while ((line = output_next(o, o->seen, ends)).n > 0) {
		o->seen += line.n;
		line.n -= line.p[line.n - 1] == '\n';
		if (!to || line.n == 0)
			continue;
		line.n = MIN(line.n, sizeof b - 1);
		memcpy(b, line.p, line.n);
		text_clean(b, line.n);
		board_text_set(&to->lines[to->n_lines % PROC_LINES], (struct slice){ b, line.n });
		to->n_lines++;
	}
}

/* Reads once. False: nothing came, o is full, or the pipe has ended. */
static bool
output_read(struct output *o)
{
	ssize_t n;

	if (o->fd < 0 || o->n == sizeof o->line)
		return false;
	n = read(o->fd, o->line + o->n, sizeof o->line - o->n);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		close(o->fd);
		o->fd = -1;
	} else
		o->n += (size_t)n;
	output_notice(o, o->fd < 0);
	output_lines(o, o->fd < 0);
	return n > 0;
}

/* Reads what there is, and frees o if the log takes it all. Other holders of the
 * pipe write to nobody then. */
static void
output_finish(struct output *o)
{
	for (int i = 0; i < OUTPUT_READS && output_read(o); i++)
		;
	if (o->stuck)
		return;
	fd_close(o->fd);
	o->fd = -1;
	output_notice(o, true);
	output_lines(o, true);
	if (!o->stuck)
		output_free(o);
}

/* o's program has ended. Lines that the log does not take now stay with o. */
static void
output_close(struct output *o)
{
	struct proc *p = o->p;

	output_finish(o);
	if (p->output) {
		p->output = NULL;
		o->p = NULL;
	}
}

static void
output_ready(struct watch *w, short revents)
{
	struct output *o = (struct output *)w;

	(void)revents;
	if (!o->stuck)
		output_read(o);
}

/* For a program of p; the pipe comes later. */
static struct output *
output_open(struct proc *p)
{
	struct output *o = xcalloc(1, sizeof *o), *oldest = NULL;
	int n = 0;

	for (struct output *i = outputs; i; i = i->next, n++)
		oldest = i->p ? oldest : i;
	if (n + 1 >= OUTPUTS_MAX && oldest)
		output_free(oldest); /* the log has taken nothing for long */
	*o = (struct output){ .w = { .fd = -1, .slot = -1, .ready = output_ready }, .p = p, .fd = -1,
		.file = -1, .next = outputs };
	snprintf(o->label, sizeof o->label, "%s", p->label);
	outputs = o;
	output_aim(o, p->conf);
	return o;
}

/* Each turn: writes lines that waited, finishes what ended programs left, and
 * watches each output for what it waits for. */
static void
outputs_turn(void)
{
	struct output *o, *next;

	for (o = outputs; o; o = next) {
		next = o->next;
		if (o->stuck)
			output_lines(o, o->fd < 0);
		if (!o->p && !o->stuck)
			output_finish(o);
	}
	for (o = outputs; o; o = o->next)
		loop_aim(&o->w, o->stuck ? output_target(o) : o->fd, o->stuck ? POLLOUT : POLLIN);
}

/* Writes the last lines of all, within CHILD_LAST_MS. */
static void
outputs_flush(void)
{
	int64_t until = now_ms + CHILD_LAST_MS;

	for (outputs_turn(); outputs && now_ms < until; outputs_turn())
		loop_turn((int)(until - now_ms));
}

static void
outputs_reopen(void)
{
	for (struct output *o = outputs; o; o = o->next)
		if (o->sink == CHILD_FILE && o->p && o->p->conf)
			output_aim(o, o->p->conf);
}

/* The program's last line; empty: there is none. */
static const char *
output_last(const struct board_proc *b, char out[WHY_MAX])
{
	unsigned n = b->n_lines;

	out[0] = '\0';
	return n == 0 ? out : board_text_get(&b->lines[(n - 1) % PROC_LINES], out);
}

/* ==== proc ===================================================================
 * Owns    the replicas of all processes.
 * Offers  procs_take, procs_preview, procs_settle, procs_due, procs_next_ms,
 *         procs_reaped, procs_run, procs_end,
 *         procs_resume, procs_sweep, proc_below,
 *         process_of, process_want, and
 *         for jobs: proc_find, proc_new, proc_attach, proc_event, proc_leave.
 * Calls   base, arena, clock, log, board, loop, privilege, endpoint, child,
 *         output. A state x event table; proc_enter alone assigns state. What is
 *         wanted stands apart from it: boot, requests and the operator say that. */

static struct proc *procs[PROCS_MAX];
static int n_procs;
static bool procs_ending;   /* warp stops: nothing is started any more */
static bool procs_news;     /* a program got ready: held requests may go on */
static bool procs_moved;    /* a state changed: something may follow */
static bool procs_look;     /* a program started: the checks shall look at once */
static bool procs_lost;     /* a warden was killed: its children are the master's now */
static bool procs_hopeless; /* the wrapped command cannot be run at all */
static int procs_wrapped = -1; /* exit status of the wrapped command */
static const struct server_conf *procs_server; /* sockets are opened to its user */
static uint32_t procs_drain_ms;

static bool
proc_runs(const struct proc *p)
{
	return p->pid > 0;
}

/* The proc that is replica index of the process now. */
static struct proc *
proc_find(struct slice name, int index)
{
	for (int i = 0; i < n_procs; i++)
		if (!procs[i]->leaves && !procs[i]->old && procs[i]->index == index &&
		    slice_eq(name, slice_of(procs[i]->name)))
			return procs[i];
	return NULL;
}

/* ---- on the board ---- */

/* Writes the state to p's instances, but not if p is to replace another proc, or
 * leaves: another one may have those records. */
static void
proc_publish(const struct proc *p)
{
	static const int runs[PROC_STATES] = {
		[PROC_OFF] = RUN_OFF, [PROC_WAITING] = RUN_STARTING, [PROC_STARTING] = RUN_STARTING,
		[PROC_UP] = RUN_UP, [PROC_DRAINING] = RUN_DRAINING, [PROC_STOPPING] = RUN_OFF,
		[PROC_BACKOFF] = RUN_STARTING, [PROC_DONE] = RUN_OFF, [PROC_FAILED] = RUN_OFF,
	};
	bool again = p->state == PROC_STOPPING && (p->again || p->broken);

	for (int i = 0; i < p->n_on && !p->old && !p->leaves; i++)
		p->on[i]->run = again ? RUN_STARTING : runs[p->state];
	board_changed();
}

static void
proc_enter(struct proc *p, enum proc_state state, uint32_t limit_ms)
{
	procs_moved |= p->state != state;
	p->state = state;
	p->due_ms = limit_ms > 0 ? now_ms + limit_ms : 0;
	p->board->state = state;
	wide_set(&p->board->since_ms, now_ms);
	proc_publish(p);
}

__attribute__((format(printf, 2, 3))) static void
proc_why(struct proc *p, const char *fmt, ...)
{
	char b[WHY_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(b, sizeof b, fmt, ap);
	va_end(ap);
	board_text_set(&p->board->why, slice_of(b));
}

/* ---- starting ---- */

/* Whether a proc has path or, if NULL, port. */
static bool
place_is_ours(uint16_t port, const char *path)
{
	for (int i = 0; i < n_procs; i++)
		if (path ? strcmp(procs[i]->at.socket, path) == 0 : procs[i]->at.port == port)
			return true;
	return false;
}

/* Whether a program of ours is still at e. */
static bool
proc_is_there(const struct endpoint *e)
{
	for (int i = 0; i < n_procs; i++)
		if (proc_runs(procs[i]) && e->sock_n > 0 && procs[i]->at.sock_n == e->sock_n &&
		    memcmp(&procs[i]->at.sock, &e->sock, e->sock_n) == 0)
			return true;
	return false;
}

/* Sets where p listens: as configured, unless an old program is there; else
 * where it was; else somewhere new. */
static int
proc_place(struct proc *p, const struct identity *as)
{
	const struct process *ps = p->conf;
	struct endpoint said;
	uint16_t port;

	if (!p->old && endpoint_of(&said, replica_instance(ps, p->index, NULL)) &&
	    !(p->chosen && proc_is_there(&said))) {
		p->at = said;
		p->chosen = false;
		return 0;
	}
	if (p->chosen && p->at.sock_n > 0 && (p->at.port == 0) == ps->names_socket)
		return 0;
	p->chosen = true;
	p->at = (struct endpoint){ 0 };
	if (ps->names_socket) {
		int err = endpoint_unix(&said, p->label, as, place_is_ours);
		p->at = said;
		return err;
	}
	if ((port = port_choose(place_is_ours)) == 0)
		return -1;
	endpoint_tcp(&p->at, replica_instance(ps, p->index, NULL), port);
	return 0;
}

static void
proc_addrs_set(const struct proc *p, struct board_instance *b)
{
	const union sock sock[] = { p->at.sock, p->at.other };
	const socklen_t n[] = { p->at.sock_n, p->at.other_n };

	board_addrs_set(b, sock, n, p->at.other_n > 0 ? 2 : 1);
}

/* The board says where p listens; what it knew of the old program is cleared. */
static void
proc_bind(struct proc *p)
{
	struct instance *in = NULL;

	for (int i = 0; i < p->n_on; i++) {
		if (!(in = replica_instance(p->conf, p->index, in)))
			return;
		if (p->chosen)
			proc_addrs_set(p, p->on[i]);
		else if (in->addr.kind != ADDR_NAME)
			board_addrs_set(p->on[i], &in->addr.sock, &in->addr.sock_n, 1);
		p->on[i]->epoch++;
		p->on[i]->idle_life_ms = 0;
		p->on[i]->open_until_ms = 0;
		p->on[i]->fails = 0;
	}
}

static void
proc_unchecked(struct proc *p)
{
	for (int i = 0; i < p->n_on; i++) {
		p->on[i]->health = HEALTH_UNKNOWN;
		p->on[i]->check_passes = p->on[i]->check_fails = 0;
		p->on[i]->checked_ms = 0;
	}
	procs_look = true;
}

/* A hash of its instances' configured addresses. */
static uint64_t
place_print(const struct process *ps, int index)
{
	struct instance *in = NULL;
	uint64_t h = 0;

	while ((in = replica_instance(ps, index, in)))
		h = hash64(h, in->addr.text, strlen(in->addr.text) + 1);
	return h;
}

static void
proc_backoff(struct proc *p)
{
	uint32_t wait = p->backoff_ms;

	if (p->old) { /* the job that wanted it decides */
		proc_enter(p, PROC_FAILED, 0);
		return;
	}
	if (p->started_ms > 0 && now_ms - p->started_ms >= STABLE_MS)
		wait = p->conf->backoff_ms;
	p->backoff_ms = MIN(2 * wait, p->conf->backoff_max_ms);
	proc_enter(p, PROC_BACKOFF, wait);
}

/* The program runs; now it has to get ready. */
static void
proc_await(struct proc *p)
{
	p->probe_ms = p->conf->ready != READY_EXEC && p->n_on > 0 ? now_ms : 0;
	p->probe_wait_ms = PROBE_FIRST_MS;
	proc_enter(p, PROC_STARTING, p->conf->oneshot ? 0 : p->conf->ready_ms);
}

/* Another program is where p shall listen. */
static void
proc_occupied(struct proc *p)
{
	char b[sizeof p->at.socket], who[WHY_MAX / 2];

	snprintf(b, sizeof b, "port %u", p->at.port);
	endpoint_holder(&p->at, who, sizeof who);
	proc_why(p, "another program is at %s: %s", *p->at.socket ? p->at.socket : b, who);
	log_error("process %s: another program is at %s: %s", p->label,
	    *p->at.socket ? p->at.socket : b, who);
}

/* Starts the program: what it depends on is ready. */
static void
proc_spawn(struct proc *p)
{
	char who[PROC_NAME_MAX + 16];
	struct identity as;

	p->again = p->broken = p->idles = false;
	p->started_ms = 0;
	if (p->waited)
		proc_why(p, "%s", "");
	p->waited = false;
	p->output = output_open(p);
	p->print = p->conf->print;
	snprintf(who, sizeof who, "process %s", p->label);
	if (identity_find(who, p->conf->user, p->conf->group, &as) < 0)
		proc_why(p, "cannot be started as user %s, group %s",
		    p->conf->user ? p->conf->user : "-", p->conf->group ? p->conf->group : "-");
	else if (proc_place(p, &as) < 0)
		proc_why(p, "has no place to listen, the log says why");
	else if (!endpoint_is_free(&p->at))
		proc_occupied(p);
	else if ((p->pid = child_start(p->conf, p->label, p->index, &p->at, &as, &p->output->fd,
	    &p->warden)) < 0)
		proc_why(p, "cannot be started, the log says why");
	if (p->pid <= 0) {
		p->pid = 0;
		p->spawns++;
		output_free(p->output);
		proc_backoff(p);
		return;
	}
	p->uid = as.user ? as.uid : geteuid();
	p->place = place_print(p->conf, p->index);
	p->started_ms = now_ms;
	wide_set(&p->board->started_ms, now_ms);
	p->board->pid = p->pid;
	p->board->restarts = p->spawns++;
	proc_await(p);
	if (!p->old) {
		proc_bind(p);
		proc_unchecked(p);
	}
}

/* ---- ready ---- */

/* Whether all instances have passed their checks. */
static bool
proc_is_healthy(const struct proc *p)
{
	if (!p->conf || !p->conf->up || !p->conf->up->health.on)
		return true;
	for (int i = 0; i < p->n_on; i++)
		if (p->on[i]->health != HEALTH_UP)
			return false;
	return true;
}

static bool
proc_is_ready(const struct proc *p)
{
	if (p->conf->oneshot)
		return false;
	if (p->n_on == 0 || p->conf->ready == READY_EXEC)
		return true;
	return p->conf->ready == READY_HEALTH && !p->old && proc_is_healthy(p);
}

static void
probe_close(struct proc *p)
{
	loop_unwatch(&p->probe);
	fd_close(p->probe.fd);
	p->probe.fd = -1;
	p->probe_ms = 0;
}

/* The configuration has no p any more: it stops when the workers before generation
 * have left. generation 0: another proc has its instances. */
static void
proc_leave(struct proc *p, unsigned generation)
{
	p->conf = NULL;
	p->leaves = true;
	p->replaced |= generation == 0;
	p->wanted = p->again = false;
	p->generation = generation;
	p->old = NULL;
	probe_close(p);
	if (p->state == PROC_STARTING || p->state == PROC_UP)
		p->due_ms = 0;
}

/* p is ready: requests go there from now on, old finishes. */
static void
proc_take_over(struct proc *p, struct proc *old)
{
	p->old = NULL;
	proc_leave(old, 0);
	snprintf(old->board->name, sizeof old->board->name, "%.*s.old", PROC_NAME_MAX - 5, old->label);
	if (old->n_on > 0)
		old->parity = old->on[0]->epoch % FLIGHT_EPOCHS;
	proc_bind(p);
	log_info("process %s: pid %d takes over from pid %d", p->label, (int)p->pid, (int)old->pid);
}

/* The wait until p is checked for idling; 0: never. */
static uint32_t
proc_idle_ms(const struct proc *p)
{
	return p->conf->start_on == START_REQUEST ? p->conf->idle_stop_ms : 0;
}

static void
proc_mark_up(struct proc *p)
{
	bool first = p->spawns == 1 && !p->old;

	probe_close(p);
	if (p->old)
		proc_take_over(p, p->old);
	endpoint_share(&p->at, p->uid, procs_server);
	for (int i = 0; i < p->n_on; i++)
		p->on[i]->up_since_ms = first ? 0 : clock_low(now_ms);
	log_info("process %s is ready after %.1f s, pid %d", p->label,
	    (double)(now_ms - p->started_ms) / SECOND_MS, (int)p->pid);
	procs_news = procs_look = true;
	proc_enter(p, PROC_UP, proc_idle_ms(p));
}

/* ---- stopping ---- */

static void
proc_stop(struct proc *p)
{
	probe_close(p);
	if (p->leaves)
		p->n_on = 0; /* other instances may have its records from now on */
	kill(-p->pid, p->stop_signal);
	kill(-p->pid, SIGCONT); /* a stopped program could not obey */
	proc_enter(p, PROC_STOPPING, p->stop_ms);
}

static void
proc_kill(struct proc *p)
{
	log_warn("process %s did not stop in %g s: killed", p->label, p->stop_ms / (double)SECOND_MS);
	kill(-p->pid, SIGKILL);
	p->due_ms = 0;
}

/* Whether nothing is in flight on p. */
static bool
proc_is_quiet(const struct proc *p)
{
	for (int i = 0; i < p->n_on; i++)
		if (p->replaced ? p->on[i]->flights[p->parity] > 0 : p->on[i]->in_flight > 0)
			return false;
	return true;
}

static void
proc_drain(struct proc *p)
{
	const struct upstream *up = p->conf ? p->conf->up : NULL;
	uint32_t limit_ms = procs_drain_ms;

	/* while the only instance drains, requests are held: not for too long */
	if (up && p->again && up->n_instances == p->n_on && up->hold_ms > 0)
		limit_ms = MIN(limit_ms, MAX(up->hold_ms / 2, 1));
	proc_enter(p, PROC_DRAINING, limit_ms);
	if (procs_ending || proc_is_quiet(p))
		proc_stop(p);
}

/* warp stops: what drains gets no more time. */
static void
proc_hurry(struct proc *p)
{
	if (procs_ending)
		proc_stop(p);
}

static void
proc_cut(struct proc *p)
{
	log_warn("process %s: requests are still in flight; it is stopped all the same", p->label);
	proc_stop(p);
}

/* Whether a running program needs p. */
static bool
proc_is_needed(const struct proc *p)
{
	for (int i = 0; i < n_procs; i++) {
		const struct process *ps = procs[i]->conf;
		for (int k = 0; ps && proc_runs(procs[i]) && k < ps->n_after; k++)
			if (ps->after[k] == p->conf)
				return true;
	}
	return false;
}

/* Stops p if idle for idle_stop_secs. */
static void
proc_idle(struct proc *p)
{
	int64_t used = p->started_ms, due;

	for (int i = 0; i < p->n_on; i++)
		if (p->on[i]->used_ms != 0)
			used = MAX(used, now_ms - clock_ago(p->on[i]->used_ms));
	due = used + p->conf->idle_stop_ms;
	if (due > now_ms || !proc_is_quiet(p) || proc_is_needed(p)) {
		p->due_ms = MAX(due, now_ms + 1);
		if (due <= now_ms)
			p->due_ms = now_ms + p->conf->idle_stop_ms;
		return;
	}
	log_info("process %s: no request for %g s, stopped", p->label,
	    p->conf->idle_stop_ms / (double)SECOND_MS);
	p->wanted = false;
	p->idles = true;
	proc_why(p, "idle");
	proc_drain(p);
}

static void
proc_late(struct proc *p)
{
	char why[WHY_MAX] = "";

	if (p->conf->ready == READY_HEALTH && p->n_on > 0)
		board_text_get(&p->on[0]->check_why, why);
	proc_why(p, "not ready in %g s%s%s", p->conf->ready_ms / (double)SECOND_MS, *why ? ": " : "",
	    why);
	log_error("process %s is not ready after ready_timeout_secs (%g s)%s%s: stopped", p->label,
	    p->conf->ready_ms / (double)SECOND_MS, *why ? ": " : "", why);
	p->broken = true;
	proc_stop(p);
}

static void
proc_off(struct proc *p)
{
	proc_enter(p, PROC_OFF, 0);
}

static void
proc_wait(struct proc *p)
{
	if (p->state != PROC_BACKOFF)
		p->backoff_ms = p->conf->backoff_ms;
	proc_enter(p, PROC_WAITING, 0);
}

static void
proc_again(struct proc *p)
{
	p->again = true;
	proc_publish(p);
}

/* ---- its end ---- */

/* All below the warden have ended: the output is read to its end. */
static void
proc_bury(struct proc *p)
{
	char why[WHY_MAX], words[WHY_MAX];
	bool told = p->state == PROC_STOPPING && !p->broken;
	double lived = (double)(now_ms - p->started_ms) / SECOND_MS;
	int sig = WIFSIGNALED(p->status) ? WTERMSIG(p->status) : 0, code = WEXITSTATUS(p->status);

	probe_close(p);
	if (p->output)
		output_close(p->output);
	if (sig)
		snprintf(why, sizeof why, "killed by signal %d (%s) after %.1f s", sig,
		    strsignal(sig), lived);
	else
		snprintf(why, sizeof why, "exited with status %d after %.1f s", code, lived);
	output_last(p->board, words);
	if (!p->broken && !p->idles)
		proc_why(p, "%s", why);
	if (told || (p->conf && p->conf->restart != RESTART_ALWAYS && p->status == 0))
		log_info("process %s (pid %d) %s", p->label, (int)p->pid, why);
	else
		log_error("process %s (pid %d) %s%s%s", p->label, (int)p->pid, why,
		    *words ? "; its last words: " : "", words);
	if (p->conf && p->conf->wrapped)
		procs_wrapped = sig ? 128 + sig : code;
	p->pid = 0;
	p->board->pid = 0;
	wide_set(&p->board->started_ms, 0);
}

/* The program ended unasked; its configuration says whether it starts again. */
static void
proc_ended(struct proc *p)
{
	bool good = p->status == 0, again;

	proc_bury(p);
	if (p->leaves || !p->conf || !p->wanted || procs_ending) {
		proc_enter(p, PROC_OFF, 0);
		return;
	}
	if (p->conf->wrapped && p->spawns == 1 && procs_wrapped >= EXIT_NOT_RUN &&
	    procs_wrapped <= EXIT_NOT_THERE)
		procs_hopeless = true;
	again = p->conf->restart == RESTART_ALWAYS || (p->conf->restart == RESTART_ON_FAILURE && !good);
	if (p->conf->oneshot && good)
		proc_enter(p, PROC_DONE, 0);
	else if (again || p->again || p->old)
		proc_backoff(p);
	else
		proc_enter(p, good ? PROC_DONE : PROC_FAILED, 0);
}

/* The program was told to end, and did. */
static void
proc_stopped(struct proc *p)
{
	proc_bury(p);
	if (p->leaves || !p->conf || procs_ending)
		proc_enter(p, PROC_OFF, 0);
	else if (p->broken && p->wanted)
		proc_backoff(p);
	else
		proc_enter(p, p->again && p->wanted ? PROC_WAITING : PROC_OFF, 0);
}

/* By state, what each event does; empty: nothing. */
static void (*const proc_do[PROC_STATES][PROC_EVENTS])(struct proc *) = {
	[PROC_OFF]      = { [PE_START] = proc_wait },
	[PROC_WAITING]  = { [PE_DEPS] = proc_spawn, [PE_STOP] = proc_off },
	[PROC_STARTING] = { [PE_READY] = proc_mark_up, [PE_EXIT] = proc_ended, [PE_DUE] = proc_late,
		[PE_STOP] = proc_stop },
	[PROC_UP]       = { [PE_EXIT] = proc_ended, [PE_DUE] = proc_idle, [PE_STOP] = proc_drain },
	[PROC_DRAINING] = { [PE_QUIET] = proc_stop, [PE_DUE] = proc_cut, [PE_EXIT] = proc_stopped,
		[PE_START] = proc_again, [PE_STOP] = proc_hurry },
	[PROC_STOPPING] = { [PE_EXIT] = proc_stopped, [PE_DUE] = proc_kill, [PE_START] = proc_again },
	[PROC_BACKOFF]  = { [PE_DUE] = proc_wait, [PE_START] = proc_wait, [PE_STOP] = proc_off },
	[PROC_DONE]     = { [PE_START] = proc_wait, [PE_STOP] = proc_off },
	[PROC_FAILED]   = { [PE_START] = proc_wait, [PE_STOP] = proc_off },
};

static void
proc_event(struct proc *p, enum proc_event ev)
{
	void (*act)(struct proc *) = proc_do[p->state][ev];

	if (act)
		act(p);
}

/* ---- all of them ---- */

/* A proc with a place on the board; NULL: there is none, logged. */
static struct proc *
proc_new(const struct process *ps, int index)
{
	struct proc *p;
	struct board_proc *b = NULL;

	for (size_t i = 0; i < LEN(board->procs) && !b; i++)
		if (!board->procs[i].name[0])
			b = &board->procs[i];
	if (!b || n_procs == PROCS_MAX) {
		log_error("process %s: more than %d replicas; make PROCS_MAX in config.h larger",
		    ps->name, PROCS_MAX);
		return NULL;
	}
	p = procs[n_procs++] = xcalloc(1, sizeof *p);
	*p = (struct proc){ .probe = { .fd = -1, .slot = -1 }, .index = index, .board = b };
	memset(b, 0, sizeof *b);
	snprintf(p->name, sizeof p->name, "%s", ps->name);
	snprintf(b->name, sizeof b->name, "%s", ps->name); /* proc_attach says more */
	return p;
}

static void (*proc_forgotten)(const struct proc *); /* job_forget */

static void
proc_free(struct proc *p)
{
	struct board_proc *last = p->board;

	for (int i = 0; i < n_procs; i++)
		if (procs[i]->old == p)
			proc_leave(procs[i], 0);
	proc_forgotten(p);
	for (int i = 0; i < n_procs; i++)
		if (procs[i] == p)
			procs[i] = procs[--n_procs];
	if (p->output)
		output_close(p->output);
	probe_close(p);
	if (p->chosen && p->at.socket[0] == '/')
		unlink(p->at.socket); /* ENOENT: its program has done it */
	/* the last record moves into the gap: readers stop at the first free one */
	while (last + 1 < board->procs + PROCS_MAX && last[1].name[0])
		last++;
	for (int i = 0; i < n_procs; i++)
		if (procs[i]->board == last)
			procs[i]->board = p->board;
	if (last != p->board)
		memcpy(p->board, last, sizeof *last);
	last->name[0] = '\0';
	free(p->on);
	free(p);
}

/* From now on ps says what p is. */
static void
proc_attach(struct proc *p, const struct process *ps)
{
	struct instance *in = NULL;
	int n = 0;

	p->conf = ps;
	snprintf(p->label, sizeof p->label, ps->replicas > 1 ? "%s.%d" : "%s", ps->name, p->index);
	snprintf(p->board->name, sizeof p->board->name, "%s", p->label);
	p->stop_signal = ps->stop_signal;
	p->stop_ms = ps->stop_ms;
	if (p->backoff_ms == 0)
		p->backoff_ms = ps->backoff_ms;
	while ((in = replica_instance(ps, p->index, in)))
		n++;
	free(p->on);
	p->on = xcalloc((size_t)n, sizeof(struct board_instance *));
	for (p->n_on = 0; (in = replica_instance(ps, p->index, in)); )
		p->on[p->n_on++] = in->board;
}

static const struct process *
process_of(const struct conf *cf, struct slice name)
{
	for (int i = 0; i < cf->n_processes; i++)
		if (slice_eq(name, slice_of(cf->processes[i]->name)))
			return cf->processes[i];
	return NULL;
}

/* Procs that cf also has go on under it, unless it moves a running one. */
static void
procs_keep(const struct conf *cf, unsigned generation)
{
	for (int i = 0; i < n_procs; i++) {
		struct proc *p = procs[i];
		const struct process *ps = process_of(cf, slice_of(p->name));

		if (p->leaves)
			continue;
		if (!ps || p->index >= ps->replicas ||
		    (proc_runs(p) && p->place != place_print(ps, p->index)))
			proc_leave(p, generation);
		else
			proc_attach(p, ps);
	}
	/* a proc that was to replace a leaving one leaves too */
	for (int i = 0; i < n_procs; i++)
		if (procs[i]->old && procs[i]->old->leaves)
			proc_leave(procs[i], 0);
}

/* p has a new configuration, maybe a new reason to run. If its program ended or
 * failed under an older one, it is run again. */
static void
proc_retune(struct proc *p)
{
	bool ended = p->state == PROC_DONE || p->state == PROC_FAILED || p->state == PROC_BACKOFF;

	proc_publish(p);
	if (p->output)
		output_aim(p->output, p->conf);
	if (p->state == PROC_UP)
		p->due_ms = proc_idle_ms(p) > 0 ? now_ms + proc_idle_ms(p) : 0;
	if (p->conf->start_on == START_BOOT && !p->wanted && !p->stopped) {
		p->wanted = true;
		proc_event(p, PE_START);
	} else if (ended && p->wanted && p->print != p->conf->print && p->spawns > 0) {
		log_info("process %s has changed: run again", p->label);
		p->backoff_ms = p->conf->backoff_ms;
		proc_event(p, PE_START);
	}
}

/* cf is in force: makes, keeps and ends procs as it says. changed restarts those that
 * run an older configuration. */
static void
procs_take(const struct conf *cf, unsigned generation, void (*changed)(const char *name))
{
	procs_server = &cf->server;
	env_hidden = &cf->env_names;
	procs_drain_ms = cf->server.shutdown_ms;
	procs_keep(cf, generation);
	for (int i = 0; i < cf->n_processes; i++) {
		const struct process *ps = cf->processes[i];
		bool stale = false;

		for (int k = 0; k < ps->replicas; k++) {
			struct proc *p = proc_find(slice_of(ps->name), k);
			if (p) {
				stale |= p->print != ps->print && proc_runs(p) && p->wanted;
				proc_retune(p);
				continue;
			}
			if (!(p = proc_new(ps, k)))
				return;
			proc_attach(p, ps);
			p->wanted = ps->start_on == START_BOOT;
			proc_off(p);
			if (p->wanted)
				proc_event(p, PE_START);
		}
		if (stale)
			changed(ps->name);
	}
}

/* Before the workers of cf start: their instances get the state of the programs that
 * serve them, or will. */
static void
procs_preview(const struct conf *cf)
{
	for (int u = 0; u < cf->n_upstreams; u++)
		for (int i = 0; i < cf->upstreams[u].n_instances; i++) {
			const struct instance *in = &cf->upstreams[u].instances[i];
			const struct process *ps = in->up->process;
			struct proc *p = ps ? proc_find(slice_of(ps->name), in->replica) : NULL;

			if (!ps)
				in->board->run = RUN_NONE;
			else if (!p || p->place != place_print(ps, in->replica))
				in->board->run = p || ps->start_on == START_BOOT ? RUN_STARTING : RUN_OFF;
		}
	board_changed();
}

/* A request or another process waits for ps: all its replicas shall run. */
static void
process_want(const struct process *ps)
{
	for (int i = 0; i < ps->replicas; i++) {
		struct proc *p = proc_find(slice_of(ps->name), i);
		if (!p || procs_ending)
			continue;
		p->wanted = true;
		proc_event(p, PE_START);
	}
}

/* ---- dependencies ---- */

static bool
process_is_ready(const struct process *ps)
{
	for (int i = 0; i < ps->replicas; i++) {
		const struct proc *p = proc_find(slice_of(ps->name), i);
		if (p && p->state != PROC_UP && p->state != PROC_DONE && p->state != PROC_DRAINING)
			return false;
	}
	return true;
}

static bool
proc_may_start(struct proc *p)
{
	const struct process *dep = NULL;

	for (int i = 0; i < p->conf->n_after && !dep; i++)
		if (!process_is_ready(p->conf->after[i]))
			dep = p->conf->after[i];
	if (!dep)
		return true;
	if (dep->start_on == START_REQUEST)
		process_want(dep);
	proc_why(p, "waits for %s", dep->name);
	p->waited = true;
	return false;
}

/* What follows for p from the state of others. */
static void
proc_settle(struct proc *p, unsigned oldest)
{
	enum proc_state was = p->state;

	if (p->leaves && !proc_runs(p))
		return; /* to be freed */
	if (procs_ending && !proc_runs(p) && was != PROC_OFF)
		proc_enter(p, PROC_OFF, 0);
	else if (procs_ending && !proc_is_needed(p))
		proc_event(p, PE_STOP);
	else if (was == PROC_WAITING && proc_may_start(p))
		proc_event(p, PE_DEPS);
	else if (was == PROC_STARTING && p->conf && proc_is_ready(p))
		proc_event(p, PE_READY);
	else if (was == PROC_DRAINING && proc_is_quiet(p))
		proc_event(p, PE_QUIET);
	else if (p->leaves && (p->replaced || oldest >= p->generation) &&
	    (was == PROC_UP || was == PROC_STARTING))
		proc_event(p, PE_STOP);
}

/* Settles all, until no state changes any more. oldest: generation of the oldest
 * worker. False: none changed. */
static bool
procs_settle(unsigned oldest)
{
	bool any = false;

	do {
		any |= procs_moved;
		procs_moved = false;
		for (int i = 0; i < n_procs; i++)
			proc_settle(procs[i], oldest);
		for (int i = n_procs - 1; i >= 0; i--)
			if (procs[i]->leaves && !proc_runs(procs[i])) {
				proc_free(procs[i]);
				i = n_procs; /* it may have taken others with it */
				procs_moved = true;
			}
	} while (procs_moved);
	return any;
}

/* ---- descriptors and deadlines ---- */

/* Probes again later, soon at first. */
static void
probe_again(struct proc *p)
{
	probe_close(p);
	p->probe_ms = now_ms + p->probe_wait_ms;
	p->probe_wait_ms = MIN(2 * p->probe_wait_ms, (uint32_t)PROBE_AGAIN_MS);
}

/* p accepts: it is ready, or its checks have to pass as well, for which the checker
 * must be able to connect. */
static void
probe_good(struct proc *p)
{
	if (p->conf->ready == READY_LISTEN || p->old) {
		proc_event(p, PE_READY);
		return;
	}
	probe_close(p);
	endpoint_share(&p->at, p->uid, procs_server);
	procs_look = true;
}

/* The connection stands, or failed. One to itself does not count: it can happen at a
 * port in the kernel's own range. */
static void
probe_done(struct watch *w, short revents)
{
	struct proc *p = (struct proc *)w;
	union sock here = { 0 }, there = { 0 };
	socklen_t here_n = sizeof here, there_n = sizeof there, n = sizeof errno;
	int err = 0;

	(void)revents;
	if (getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &err, &n) < 0 || err != 0 ||
	    getsockname(w->fd, &here.sa, &here_n) < 0 ||
	    getpeername(w->fd, &there.sa, &there_n) < 0 ||
	    (here_n == there_n && memcmp(&here, &there, here_n) == 0)) {
		probe_again(p);
		return;
	}
	if (p->probe_other) {
		endpoint_turn(&p->at);
		for (int i = 0; i < p->n_on && !p->old; i++)
			proc_addrs_set(p, p->on[i]);
	}
	probe_good(p);
}

/* Connects to p: to its instances in turn, or where the only one is. */
static void
probe_start(struct proc *p)
{
	union sock to = p->at.sock;
	socklen_t n = p->at.sock_n;
	struct board_instance *b = p->on[p->probe_i++ % (unsigned)p->n_on];

	p->probe_ms = 0;
	p->probe_other = p->n_on == 1 && p->at.other_n > 0 && p->probe_i % 2 == 0;
	if (p->probe_other) {
		to = p->at.other;
		n = p->at.other_n;
	} else if ((p->n_on > 1 || n == 0) &&
	    !board_addrs_get(b, p->probe_i / (unsigned)p->n_on, &to, &n)) {
		probe_again(p);
		return;
	}
	p->probe.ready = probe_done;
	if ((p->probe.fd = endpoint_dial(&to, n)) >= 0)
		loop_watch(&p->probe, POLLOUT);
	else if (errno == EISCONN)
		probe_good(p);
	else
		probe_again(p);
}

static void
procs_due(void)
{
	for (int i = 0; i < n_procs; i++) {
		struct proc *p = procs[i];
		if (p->probe_ms > 0 && p->probe_ms <= now_ms && p->state == PROC_STARTING)
			probe_start(p);
		if (p->due_ms > 0 && p->due_ms <= now_ms) {
			p->due_ms = 0;
			proc_event(p, PE_DUE);
		}
	}
}

/* The next deadline; 0: there is none. */
static int64_t
procs_next_ms(void)
{
	int64_t next = 0;

	for (int i = 0; i < n_procs; i++) {
		const int64_t due[] = { procs[i]->due_ms, procs[i]->probe_ms };
		for (size_t k = 0; k < LEN(due); k++)
			if (due[k] > 0 && (next == 0 || due[k] < next))
				next = due[k];
	}
	return next;
}

/* The proc of that warden; NULL: there is none. */
static struct proc *
proc_below(pid_t warden)
{
	for (int i = 0; i < n_procs; i++)
		if (proc_runs(procs[i]) && procs[i]->warden == warden)
			return procs[i];
	return NULL;
}

/* False: pid is no warden of ours. */
static bool
procs_reaped(pid_t pid, int status)
{
	struct proc *p = proc_below(pid);

	if (!p)
		return false;
	p->status = status;
	/* our child by now: its warden died before reaping it */
	procs_lost |= waitpid(p->pid, NULL, WNOHANG) >= 0;
	proc_event(p, PE_EXIT);
	return true;
}

static bool
procs_run(void)
{
	bool any = false;

	for (int i = 0; i < n_procs; i++)
		any |= proc_runs(procs[i]);
	return any;
}

static void
procs_end(void)
{
	procs_ending = true;
	for (int i = 0; i < n_procs; i++)
		procs[i]->wanted = procs[i]->again = false;
}

/* ---- programs of a warp that was killed ---- */

/* Whether pid has the mark of key, from a warp that is gone. */
static bool
is_left_over(int dir, const char *pid, unsigned long long key)
{
	static char b[ENVFILE_MAX];
	char path[NAME_MAX + 16];
	unsigned long long of, ticks;
	struct slice rest, entry;
	ssize_t n;
	int master;

	snprintf(path, sizeof path, "%s/environ", pid);
	n = MAX(file_head(dir, path, b, sizeof b - 1), 0);
	b[n] = '\0';
	for (rest = (struct slice){ b, (size_t)n }; slice_cut(&rest, '\0', &entry); )
		if (sscanf(entry.p, ENV_MARK "=%16llx:%d:%llu", &of, &master, &ticks) == 3 &&
		    of == key)
			return master > 1 && stat_word(master, STAT_STARTED) != ticks;
	return false;
}

/* Before any start: sets our programs' mark and, if any, kills those of a warp that
 * was killed with its wardens: they would hold what ours need. key: of configuration
 * and user, which have one warp at a time. */
static void
procs_sweep(uint64_t key, bool any)
{
	struct dirent *e;
	int hit = any;

	snprintf(child_mark, sizeof child_mark, ENV_MARK "=%016llx:%d:%llu",
	    (unsigned long long)key, (int)getpid(),
	    (unsigned long long)stat_word(getpid(), STAT_STARTED));
	for (int round = 0; round < ORPHAN_ROUNDS && hit > 0; round++) {
		DIR *d = opendir("/proc");
		hit = 0;
		while (d && (e = readdir(d))) {
			int64_t pid = slice_uint(slice_of(e->d_name), INT_MAX);
			if (pid <= 1 || !is_left_over(dirfd(d), e->d_name, key))
				continue;
			if (kill((pid_t)pid, SIGKILL) == 0 && ++hit && round == 0)
				log_warn("pid %d was left by a warp that was killed: ended", (int)pid);
		}
		if (d)
			closedir(d);
		if (hit > 0)
			poll(NULL, 0, ORPHAN_WAIT_MS);
	}
}

/* ---- binary upgrade ---- */

enum { KEEP_WANTED = 1, KEEP_LEAVES = 2, KEEP_CHOSEN = 4, KEEP_STOPPED = 8, KEEP_TURNED = 16 };

/* A line for each proc that the next binary takes over. No word holds a blank:
 * socket paths of ours and names have none. */
static void
procs_inherit_write(struct text *t)
{
	for (int i = 0; i < n_procs; i++) {
		const struct proc *p = procs[i];
		text_fmt(t, "proc %d %d %d %u %s %d %d %d %u %llu %llu %lld %u %d %u %s\n",
		    p->output ? MAX(p->output->fd, 0) : 0,
		    (int)p->pid, (int)p->warden, (unsigned)p->uid, p->name, p->index, (int)p->state,
		    (p->wanted ? KEEP_WANTED : 0) | (p->leaves ? KEEP_LEAVES : 0) |
		    (p->chosen ? KEEP_CHOSEN : 0) | (p->stopped ? KEEP_STOPPED : 0) |
		    (p->at.other.sa.sa_family == AF_INET ? KEEP_TURNED : 0), p->at.port,
		    (unsigned long long)p->print, (unsigned long long)p->place,
		    (long long)(now_ms - p->started_ms), p->spawns, p->stop_signal, p->stop_ms,
		    p->chosen && *p->at.socket ? p->at.socket : "-");
	}
}

static void
procs_inherit_mark(int flags)
{
	for (int i = 0; i < n_procs; i++)
		if (procs[i]->output && procs[i]->output->fd >= 0)
			fcntl(procs[i]->output->fd, F_SETFD, flags);
}

/* Takes the pipe; proc_resume says where lines go. */
static void
inherit_output(struct proc *p, int fd)
{
	static const struct process prefixed = { .sink = CHILD_PREFIX };

	if (fd <= 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return;
	p->conf = &prefixed;
	p->output = output_open(p);
	p->output->fd = fd;
	p->conf = NULL;
}

/* proc_resume adds the address of a port. */
static void
inherit_endpoint(struct endpoint *e, uint16_t port, struct slice path)
{
	e->port = port;
	if (port > 0 || path.n < 2 || path.n >= sizeof e->socket)
		return;
	run_dir(); /* to be removed at the end */
	memcpy(e->socket, path.p, path.n);
	e->sock.un.sun_family = AF_UNIX;
	memcpy(e->sock.un.sun_path, path.p, path.n);
	e->sock_n = sizeof e->sock.un;
}

/* Takes over a proc from its line, of which `proc ` is cut off. */
static void
procs_inherit_line(struct slice line)
{
	int out, pid, warden, from = 0, to = 0, index, state, flags, signo, at = 0;
	unsigned uid, port, spawns, stop_ms;
	unsigned long long print, place;
	char label[PROC_NAME_MAX];
	struct process as = { .name = label, .replicas = 1 };
	long long age_ms;
	struct proc *p;

	if (sscanf(line.p, "%d %d %d %u %n%*s%n %d %d %d %u %llu %llu %lld %u %d %u %n", &out,
	    &pid, &warden, &uid, &from, &to, &index, &state, &flags, &port, &print, &place,
	    &age_ms, &spawns, &signo, &stop_ms, &at) != 14 || (size_t)at > line.n)
		return;
	snprintf(label, sizeof label, "%.*s", to - from, line.p + from);
	if (!(p = proc_new(&as, index)))
		return;
	snprintf(p->label, sizeof p->label, "%s", label);
	inherit_output(p, out);
	p->state = state >= 0 && state < PROC_STATES ? (enum proc_state)state : PROC_OFF;
	p->pid = pid;
	p->warden = warden;
	p->uid = uid;
	p->wanted = flags & KEEP_WANTED;
	p->leaves = flags & KEEP_LEAVES;
	p->chosen = flags & KEEP_CHOSEN;
	p->stopped = flags & KEEP_STOPPED;
	p->print = print;
	p->place = place;
	p->started_ms = MAX(now_ms - age_ms, 1);
	p->spawns = spawns;
	p->stop_signal = signo;
	p->stop_ms = stop_ms;
	if (p->chosen)
		inherit_endpoint(&p->at, (uint16_t)port, slice_from(line, (size_t)at));
	/* see proc_resume */
	p->at.other.sa.sa_family = flags & KEEP_TURNED ? AF_INET : AF_UNSPEC;
}

/* A running program stays in its state. */
static void
proc_resume(struct proc *p)
{
	bool turned = p->at.other.sa.sa_family == AF_INET;

	p->again = p->wanted && p->state >= PROC_DRAINING;
	p->board->pid = p->pid;
	wide_set(&p->board->started_ms, p->started_ms);
	p->board->restarts = p->spawns - 1;
	if (p->output)
		output_aim(p->output, p->conf);
	if (!p->chosen)
		endpoint_of(&p->at, replica_instance(p->conf, p->index, NULL));
	else if (p->at.port > 0)
		endpoint_tcp(&p->at, replica_instance(p->conf, p->index, NULL), p->at.port);
	if (turned && p->at.other_n > 0)
		endpoint_turn(&p->at);
	proc_bind(p);
	proc_unchecked(p);
	if (p->state == PROC_STARTING)
		proc_await(p);
	else
		proc_enter(p, p->state, p->state == PROC_UP ? proc_idle_ms(p)
		    : p->state == PROC_DRAINING ? procs_drain_ms : p->stop_ms);
}

/* After procs_take: resumes procs of the binary before. Leaving ones stop when its
 * workers are gone. generation: ours. */
static void
procs_resume(unsigned generation)
{
	for (int i = 0; i < n_procs; i++) {
		struct proc *p = procs[i];
		bool runs = proc_runs(p);

		if (p->leaves || !p->conf) {
			p->leaves = true;
			p->generation = generation;
			p->board->pid = p->pid;
			proc_enter(p, p->state == PROC_STOPPING ? PROC_STOPPING : PROC_UP,
			    p->state == PROC_STOPPING ? p->stop_ms : 0);
		} else if (runs)
			proc_resume(p);
		else
			proc_enter(p, p->wanted && p->state <= PROC_BACKOFF ? PROC_WAITING
			    : p->state, 0);
		if (runs && waitpid(p->warden, &p->status, WNOHANG) != 0)
			proc_event(p, PE_EXIT); /* ended meanwhile */
	}
}

/* ==== jobs ===================================================================
 * Owns    what operators asked of processes and is not done yet.
 * Offers  job_add, jobs_step, jobs_busy.
 * Calls   clock, log, board, endpoint, output, proc. A restart goes replica by
 *         replica: drain, stop, start, ready; a lone replica that can listen
 *         elsewhere starts beside the old one. */

#define JOBS_MAX 32

static struct job jobs[JOBS_MAX];
static void (*job_told)(const struct asker *, const char *text); /* verb_told */

/* The next deadline; 0: there is none. */
static int64_t
jobs_next_ms(void)
{
	int64_t next = 0;

	for (int i = 0; i < JOBS_MAX; i++)
		if (jobs[i].due_ms > 0 && (next == 0 || jobs[i].due_ms < next))
			next = jobs[i].due_ms + 1;
	return next;
}

static bool
jobs_busy(void)
{
	for (int i = 0; i < JOBS_MAX; i++)
		if (jobs[i].name[0])
			return true;
	return false;
}

/* p is freed; the proc in its place counts. */
static void
job_forget(const struct proc *p)
{
	for (int i = 0; i < JOBS_MAX; i++) {
		if (jobs[i].fresh == p)
			jobs[i].fresh = NULL;
		if (jobs[i].proc == p)
			jobs[i].proc = NULL;
	}
}

static void
job_end(struct job *j, const char *text)
{
	if (j->fresh && j->fresh->old) /* it never got ready */
		proc_leave(j->fresh, 0);
	if (strcmp(text, "ok") != 0)
		log_error("%s: %s", j->name, text);
	job_told(&j->asker, text);
	*j = (struct job){ 0 };
}

__attribute__((format(printf, 2, 3))) static void
job_fail(struct job *j, const char *fmt, ...)
{
	char b[2 * WHY_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(b, sizeof b, fmt, ap);
	va_end(ap);
	job_end(j, b);
}

/* The job of a process, or NULL. */
static struct job *
job_of(const char *name)
{
	for (int i = 0; i < JOBS_MAX; i++)
		if (strcmp(jobs[i].name, name) == 0)
			return &jobs[i];
	return NULL;
}

/* A verb for all replicas of a process, in place of a job under way. False: too
 * many. */
static bool
job_add(const char *name, enum job_kind kind, const struct asker *asker)
{
	struct job *j = job_of(name);

	if (!j && !(j = job_of(""))) /* a free one */
		return false;
	if (j->name[0])
		job_end(j, "another command for it came in between");
	*j = (struct job){ .kind = kind, .asker = *asker };
	snprintf(j->name, sizeof j->name, "%s", name);
	return true;
}

/* A reload has changed the process: restarts it. A restart under way for the same
 * reason goes on, and then looks at all replicas once more. */
static bool
job_reload(const char *name)
{
	static const struct asker nobody;
	struct job *j = job_of(name);

	if (j && j->reload) {
		j->over = true;
		return true;
	}
	if (!job_add(name, JOB_RESTART, &nobody))
		return false;
	job_of(name)->reload = true;
	return true;
}

/* Whether p, alone in its upstream, can listen elsewhere. */
static bool
proc_can_move(const struct proc *p)
{
	const struct process *ps = p->conf;
	const struct instance *in = replica_instance(ps, p->index, NULL);

	return p->state == PROC_UP && ps->replicas == 1 && (ps->names_port || ps->names_socket) &&
	    in && ps->up->n_instances == 1 && in->addr.kind != ADDR_NAME &&
	    in->addr.kind != ADDR_ABSTRACT;
}

/* How long the job may take with p. */
static void
job_limit(struct job *j, const struct proc *p)
{
	j->due_ms = now_ms + procs_drain_ms + p->stop_ms + p->conf->ready_ms;
}

/* Starts the restart of one replica. */
static void
job_restart(struct job *j, struct proc *p)
{
	j->begun = true;
	j->proc = p;
	j->starts = p->spawns;
	job_limit(j, p);
	p->wanted = true;
	p->stopped = false;
	if (proc_can_move(p) && (j->fresh = proc_new(p->conf, p->index))) {
		j->fresh->old = p;
		proc_attach(j->fresh, p->conf);
		j->fresh->wanted = true;
		proc_off(j->fresh);
		proc_event(j->fresh, PE_START);
		return;
	}
	p->again = proc_runs(p);
	proc_event(p, proc_runs(p) ? PE_STOP : PE_START);
}

/* Whether the restart of a replica is done. */
static bool
job_restarted(struct job *j, struct proc *p)
{
	struct proc *fresh = j->fresh; /* beside the old one */
	char why[WHY_MAX], words[WHY_MAX];

	if (now_ms > j->due_ms) {
		job_fail(j, "%s takes too long: %s", p->label,
		    board_text_get(&p->board->why, why));
		return false;
	}
	if (fresh && fresh->state == PROC_FAILED) {
		board_text_get(&fresh->board->why, why);
		output_last(fresh->board, words);
		job_fail(j, "the new one did not get ready, the old one goes on: %s%s%s", why,
		    *words ? "; its last words: " : "", words);
		return false;
	}
	if (fresh) {
		j->fresh = fresh->old ? fresh : NULL; /* fresh took over */
		return !j->fresh;
	}
	if (j->proc != p) { /* a reload has put another proc there */
		j->proc = p;
		j->starts = 0;
	}
	if (p->spawns == j->starts)
		return false;
	if (p->state == PROC_DONE || (p->state == PROC_UP && proc_is_healthy(p)))
		return true;
	if (p->state == PROC_BACKOFF || p->state == PROC_FAILED)
		job_fail(j, "%s does not start: %s", p->label, board_text_get(&p->board->why, why));
	else if (!p->wanted)
		job_fail(j, "%s was stopped meanwhile", p->label);
	return false;
}

static void
job_step_restart(struct job *j)
{
	struct proc *p;

	while (j->name[0] && (p = proc_find(slice_of(j->name), j->next))) {
		bool asleep = (p->state == PROC_OFF && p->conf->start_on == START_REQUEST) ||
		    (j->reload && !j->begun && p->state == PROC_UP && p->print == p->conf->print);
		if (!j->begun && !asleep)
			job_restart(j, p);
		if (!asleep && !job_restarted(j, p))
			return;
		j->next++;
		j->begun = false;
		if (j->over && !proc_find(slice_of(j->name), j->next)) {
			j->next = 0;
			j->over = false;
		}
	}
	if (j->name[0])
		job_end(j, j->next > 0 ? "ok" : "the configuration does not have it any more");
}

/* Starts or stops all replicas at one time. */
static void
job_step_all(struct job *j)
{
	bool start = j->kind == JOB_START, all = true;
	char why[WHY_MAX];
	struct proc *p;

	for (int i = 0; (p = proc_find(slice_of(j->name), i)); i++) {
		if (!j->begun) {
			p->wanted = start;
			p->stopped = !start;
			p->again &= start;
			if (start)
				job_limit(j, p);
			proc_event(p, start ? PE_START : PE_STOP);
		} else if (start && (p->state == PROC_BACKOFF || p->state == PROC_FAILED ||
		    now_ms > j->due_ms)) {
			job_fail(j, "%s does not start: %s", p->label,
			    board_text_get(&p->board->why, why));
			return;
		}
		all &= start ? p->state == PROC_UP || p->state == PROC_DONE : !proc_runs(p);
	}
	j->begun = true;
	if (all)
		job_end(j, "ok");
}

/* Each job does what it can do now. */
static void
jobs_step(void)
{
	for (int i = 0; i < JOBS_MAX; i++)
		if (jobs[i].name[0] && jobs[i].kind == JOB_RESTART)
			job_step_restart(&jobs[i]);
		else if (jobs[i].name[0])
			job_step_all(&jobs[i]);
}

/* ==== renew ==================================================================
 * Owns    the certificate by ACME as the master sees it: when it is due, the
 *         helper that gets it, account.key and the certificate's file; when files
 *         of certificates are looked at.
 * Offers  renew_take, renew_stop, renew_settle, renew_next_ms, renew_reaped.
 * Calls   base, arena, walk, clock, log, diag, pem, der, certs, board, helper, acme,
 *         BearSSL. One job at a time; a certificate that is there stays in use
 *         whatever happens. */

#define RENEW_DIR_MODE  0700
#define RENEW_FILE_MODE 0600
#define RENEW_RESULT_MAX (2 * ACME_ANSWER_MAX)

static struct renew rn;

/* ---- when ---- */

/* When the certificate is to be replaced, wall clock; 0: at once. The CA's window
 * wins, but a sixth of the lifetime is a reserve. */
static int64_t
renew_at(const struct renew_facts *f)
{
	int64_t life = f->until_s - f->from_s, at;

	if (f->until_s == 0 || life <= 0)
		return 0;
	if (f->window_until_s > f->window_from_s)
		return MIN(f->window_from_s + f->dice % (f->window_until_s - f->window_from_s),
		    f->until_s - life / 6);
	at = f->until_s - life / 3;
	return life > DAY_S ? at + f->dice % HOUR_S : at;
}

/* The wait after a failure, given the one before. */
static int64_t
renew_backoff(int64_t before_ms)
{
	return before_ms == 0 ? ACME_RETRY_MS
	    : MIN(ACME_RETRY_TIMES * before_ms, (int64_t)ACME_RETRY_MOST_MS);
}

static uint32_t
renew_dice(void)
{
	uint32_t v = 0;

	return random_fill(&v, sizeof v) ? v : (uint32_t)now_us;
}

/* The certificate to be renewed; NULL: there is none. */
static const struct cert *
renew_cert(void)
{
	for (int i = 0; rn.t->set && i < rn.t->set->n; i++)
		if (rn.t->set->v[i].origin == CERT_ACME &&
		    cert_is_for(&rn.t->set->v[i], &rn.t->domains))
			return &rn.t->set->v[i];
	return NULL;
}

/* ---- results ---- */

static void
renew_state(enum acme_state state, int64_t next_s, struct slice why)
{
	board->acme.state = (int)state;
	board->acme.next_s = (uint32_t)next_s;
	board_text_set(&board->acme.why, why);
}

/* `a.example` or `a.example and 2 more`. */
static const char *
renew_names(struct arena *a)
{
	const struct slices *v = &rn.t->domains;

	return v->n == 1 ? v->v[0].p : arena_fmt(a, "%s and %d more", v->v[0].p, v->n - 1);
}

/* Logs a failure. Next try: later each time, after retry_s (-1: not said). */
static void
renew_failed(const char *why, const char *advice, int64_t retry_s)
{
	struct arena a = { NULL };
	const char *all = arena_fmt(&a, "%s%s%s", why, *advice ? "; " : "", advice);
	int64_t wait;

	rn.wait_ms = wait = renew_backoff(rn.wait_ms);
	wait += renew_dice() % (wait / 4 + 1);
	if (retry_s > 0) {
		rn.limit_ms = now_ms + retry_s * SECOND_MS;
		wait = MAX(wait, retry_s * SECOND_MS);
	}
	rn.again_ms = now_ms + wait;
	rn.look_ms = 0;
	renew_state(ACME_FAILED, now_s + wait / SECOND_MS, slice_of(all));
	log_error("no certificate for %s: %s; next try in %lld s%s", renew_names(&a), all,
	    (long long)(wait / SECOND_MS), renew_cert() ? ", the present one stays in use" : "");
	arena_free(&a);
}

/* ---- files ---- */

/* Makes path and its parents. NULL, or why not. */
static const char *
acme_dir_make(struct arena *a, const char *path)
{
	char *p = arena_fmt(a, "%s", path);
	struct stat st;
	int fd;

	for (size_t i = 1; p[i]; i++)
		if (p[i] == '/') {
			p[i] = '\0';
			if (mkdir(p, 0755) < 0 && errno != EEXIST)
				return arena_fmt(a, "cannot make %s: %s", p, strerror(errno));
			p[i] = '/';
		}
	if (mkdir(p, RENEW_DIR_MODE) < 0 && errno != EEXIST)
		return arena_fmt(a, "cannot make %s: %s", p, strerror(errno));
	if ((fd = open(p, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 || fstat(fd, &st) < 0)
		return arena_fmt(a, "cannot look at %s: %s", p, strerror(errno));
	if (st.st_uid != geteuid())
		log_warn("%s belongs to another user (uid %u), who can read and change what warp "
		    "keeps there: chown it", p, (unsigned)st.st_uid);
	else if (st.st_mode & (S_IWGRP | S_IWOTH))
		log_warn("others can write to %s, where warp keeps keys: chmod 700", p);
	close(fd);
	return NULL;
}

/* Replaces dir/name by s, all of it or not at all. NULL, or why not. */
static const char *
file_replace(struct arena *a, const char *dir, const char *name, struct slice s)
{
	const char *path = arena_fmt(a, "%s/%s", dir, name), *new = arena_fmt(a, "%s.new", path);
	ssize_t put = 0;
	int fd, at;

	if (unlink(new) < 0 && errno != ENOENT)
		return arena_fmt(a, "cannot remove %s: %s", new, strerror(errno));
	fd = open(new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, RENEW_FILE_MODE);
	if (fd < 0)
		return arena_fmt(a, "cannot make %s: %s", new, strerror(errno));
	for (; put >= 0 && s.n > 0; s = slice_from(s, (size_t)MAX(put, 0)))
		while ((put = write(fd, s.p, s.n)) < 0 && errno == EINTR)
			;
	if (put < 0 || fsync(fd) < 0 || rename(new, path) < 0) {
		const char *why = arena_fmt(a, "cannot write %s: %s", path, strerror(errno));
		unlink(new);
		close(fd);
		return why;
	}
	close(fd);
	if ((at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0 && fsync(at) < 0)
		log_errno("%s", dir); /* it is in place, but may not survive a power cut */
	fd_close(at);
	return NULL;
}

/* Tries to make a file in dir, before the CA is asked. NULL, or why not. */
static const char *
acme_dir_try(struct arena *a, const char *dir)
{
	const char *path = arena_fmt(a, "%s/try.new", dir);
	int fd;

	unlink(path);
	if ((fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, RENEW_FILE_MODE)) < 0)
		return arena_fmt(a, "cannot write to %s: %s", dir, strerror(errno));
	close(fd);
	unlink(path);
	return NULL;
}

/* The account's key from a file's text; false: none that ACME takes. */
static bool
account_read(struct arena *a, struct slice text)
{
	br_skey_decoder_context d;
	const br_ec_private_key *ec;
	struct pem o;

	while (pem_next(a, &text, &o) > 0)
		if (slice_ends(o.name, S("PRIVATE KEY")) && !o.encrypted && o.der.n > 0) {
			br_skey_decoder_init(&d);
			br_skey_decoder_push(&d, o.der.p, o.der.n);
			ec = br_skey_decoder_get_ec(&d);
			if (!ec || ec->curve != BR_EC_secp256r1 || ec->xlen > sizeof rn.x)
				return false;
			memset(rn.x, 0, sizeof rn.x);
			memcpy(rn.x + sizeof rn.x - ec->xlen, ec->x, ec->xlen);
			rn.account = (br_ec_private_key){ ec->curve, rn.x, sizeof rn.x };
			return true;
		}
	return false;
}

/* Reads the account's key or, at first, makes it. NULL, or why not. */
static const char *
account_load(struct arena *a, const char *dir)
{
	const char *path = arena_fmt(a, "%s/account.key", dir), *why;
	struct slice text;
	struct stat st;

	if (stat(path, &st) == 0) {
		if (st.st_mode & (S_IRWXG | S_IRWXO))
			log_warn("%s can be read by others: chmod 600", path);
		if ((why = file_read(a, path, RENEW_RESULT_MAX, &text)))
			return arena_fmt(a, "cannot read %s: %s", path, why);
		return account_read(a, text) ? NULL : arena_fmt(a, "%s holds no key of P-256 "
		    "(PEM); without that file warp makes another one", path);
	}
	if (!key_new(&rn.account, rn.x))
		return "there is nothing random to make a key of";
	if ((why = file_replace(a, dir, "account.key", key_pem(a, &rn.account))))
		return why;
	log_info("%s made: it is who warp is to the CA", path);
	return NULL;
}

/* Begins a certificate's file: PEM lets any text stand there. */
#define RENEW_FROM "warp got this from "

/* Whether the certificate's file is of another CA than the one to ask now, as after
 * a trial with a test CA. */
static bool
renew_is_from_other(const struct tls_conf *t)
{
	struct arena a = { NULL };
	struct slice text, line;
	bool other = false;

	if (!file_read(&a, acme_file(&a, t), RENEW_RESULT_MAX, &text) &&
	    slice_cut(&text, '\n', &line) && slice_starts(line, S(RENEW_FROM)))
		other = !slice_eq(slice_from(line, sizeof RENEW_FROM - 1), t->acme_url);
	arena_free(&a);
	return other;
}

/* The certificate is in its file. If it cannot be loaded from there, another one
 * would not help: when the next is due follows from rn.pem. */
static void
renew_saved(struct arena *a)
{
	struct certs_reader r = { .a = a };
	struct cert c = { .cert_file = "", .key_file = "" };

	if (cert_read(&r, &c, rn.pem, rn.pem)) {
		rn.got_from_s = c.from_s;
		rn.got_until_s = c.until_s;
		log_info("new certificate for %s, by %.*s, until %s", renew_names(a),
		    (int)c.issuer.n, c.issuer.p, cert_date(a, c.until_s));
	}
	arena_free(&rn.kept);
	rn.pem = S("");
	rn.other_ca = false;
	rn.wait_ms = rn.limit_ms = 0;
	rn.again_ms = now_ms + ACME_RETRY_MS;
	rn.look_ms = 0;
	rn.ask_ms = now_ms + ACME_ASK_S * SECOND_MS;
	rn.facts = (struct renew_facts){ .dice = renew_dice() };
	renew_state(ACME_WAITING, 0, S("")); /* next_s follows in a moment */
	rn.certs_ms = now_ms; /* the file is to be used */
}

/* Writes the new certificate to its file. If that fails it is kept until it can be
 * written: another one would cost the CA's patience. */
static void
renew_save(void)
{
	struct arena a = { NULL };
	const char *why = acme_dir_make(&a, rn.t->acme_dir);

	if (!why)
		why = file_replace(&a, rn.t->acme_dir,
		    arena_fmt(&a, "%s.pem", rn.t->domains.v[0].p), rn.pem);
	if (why) {
		renew_failed(why, "see tls.acme_directory; the new certificate is kept in memory",
		    -1);
	} else {
		renew_saved(&a);
	}
	arena_free(&a);
}

/* ---- jobs ---- */

/* A hash of what jobs depend on; a change makes a running one useless. */
static uint64_t
renew_print(const struct tls_conf *t)
{
	const struct slice v[] = { slice_of(t->acme_dir), t->acme_url, t->acme_email, t->eab_kid,
		t->eab_hmac, slice_of(t->acme_trust ? t->acme_trust->file : "") };
	uint64_t h = (uint64_t)rn.plain << 1 | rn.tls;

	for (size_t i = 0; i < LEN(v); i++)
		h = hash64(hash64(h, v[i].p, v[i].n), "", 1);
	for (int i = 0; i < t->domains.n; i++)
		h = hash64(hash64(h, t->domains.v[i].p, t->domains.v[i].n), "", 1);
	return h;
}

/* The helper has ended: takes its proofs off the board. */
static void
renew_over(void)
{
	close(rn.life);
	rn.pid = 0;
	acme_clear();
}

/* Ends the job; the next one follows when it is due. */
static void
renew_stop(void)
{
	if (rn.pid == 0)
		return;
	kill(rn.pid, SIGKILL);
	while (waitpid(rn.pid, NULL, 0) < 0 && errno == EINTR)
		;
	renew_over();
	rn.look_ms = rn.again_ms;
}

/* cf serves from now on, with these kinds of listeners. A reload has failures tried
 * again at once; only the CA may ask for patience. */
static void
renew_take(struct conf *cf, bool plain, bool tls)
{
	const struct tls_conf *t = cf->tls.on && cf->tls.domains.n > 0 ? &cf->tls : NULL;
	uint64_t was = rn.of;

	rn.t = t;
	rn.serves = &cf->tls;
	rn.certs_ms = cf->tls.on ? now_ms + CERTS_WATCH_SECS * SECOND_MS : 0;
	rn.server = &cf->server;
	rn.plain = plain;
	rn.tls = tls;
	rn.of = t ? renew_print(t) : 0;
	if (rn.of != was) {
		renew_stop();
		arena_free(&rn.kept);
		rn.pem = S("");
		rn.limit_ms = rn.ask_ms = rn.wait_ms = 0;
		rn.facts = (struct renew_facts){ .dice = renew_dice() };
	}
	rn.again_ms = rn.look_ms = rn.limit_ms;
	rn.got_from_s = rn.got_until_s = 0;
	rn.other_ca = t && renew_is_from_other(t);
	if (!t || rn.of != was)
		renew_state(t ? ACME_WAITING : ACME_OFF, 0, S(""));
}

/* FROM UNTIL AGAIN: when the CA wants a renewal. */
static void
renew_window(struct slice line)
{
	int64_t v[3];
	struct slice word;

	for (size_t i = 0; i < LEN(v); i++)
		v[i] = slice_cut(&line, ' ', &word) ? slice_uint(word, INT64_MAX) : -1;
	if (v[0] < 0 || v[1] < 0 || v[2] < 0)
		return;
	rn.ask_ms = now_ms + (v[2] > 0 ? v[2] : DAY_S) * SECOND_MS;
	if (v[1] == 0 || (v[0] == rn.facts.window_from_s && v[1] == rn.facts.window_until_s))
		return;
	log_info("the CA suggests to renew the certificate for %s in %lld to %lld minutes",
	    rn.t->domains.v[0].p, (long long)((v[0] - now_s) / MINUTE_S),
	    (long long)((v[1] - now_s) / MINUTE_S));
	rn.facts.window_from_s = v[0];
	rn.facts.window_until_s = v[1];
}

/* Handles the helper's message. */
static void
renew_result(struct slice said, bool only_asks)
{
	struct slice line, word, why, advice;
	struct arena a = { NULL };

	rn.look_ms = 0;
	if (!slice_cut(&said, '\n', &line))
		line = S("");
	slice_cut(&line, ' ', &word);
	if (slice_eq(word, S("window"))) {
		renew_window(line);
	} else if (slice_eq(word, S("done")) && said.n > 0) {
		arena_free(&rn.kept);
		rn.pem = slice_of(arena_fmt(&rn.kept, RENEW_FROM "%s\n%.*s", rn.t->acme_url.p,
		    (int)said.n, said.p));
		renew_save();
	} else if (slice_eq(word, S("failed")) && slice_cut(&said, '\n', &why) &&
	    slice_cut(&said, '\n', &advice)) {
		renew_failed(arena_dup(&a, why).p, arena_dup(&a, advice).p,
		    slice_uint(line, ACME_RETRY_MAX_S));
	} else if (!only_asks) {
		renew_failed("the helper died", "the log says why", -1);
	}
	arena_free(&a);
}

static void
renew_begin(bool ask)
{
	struct acme_task task = { .server = rn.server, .t = rn.t, .account = &rn.account,
		.cert = rn.other_ca ? NULL : renew_cert(), .ask = ask,
		.plain = rn.plain, .tls = rn.tls };
	const char *why = NULL, *dir = rn.t->acme_dir;
	struct arena a = { NULL };
	int keep[HELPER_KEEPS] = { log_sink.fd };

	if (ask)
		rn.ask_ms = now_ms + ACME_ASK_S * SECOND_MS; /* in case it fails */
	else if (!(why = acme_dir_make(&a, dir)) && !(why = acme_dir_try(&a, dir)))
		why = account_load(&a, dir);
	if (why) {
		renew_failed(why, "see tls.acme_directory", -1);
	} else if ((rn.pid = helper_start("acme", acme_run, &task, keep, 1, &rn.life)) < 0) {
		rn.pid = 0;
		if (!ask)
			renew_failed("the helper cannot be started", "the log says why", -1);
	} else {
		rn.only_asks = ask;
		rn.kill_ms = now_ms + ACME_JOB_MS + ACME_REQUEST_MS;
		if (!ask) {
			log_info("asking %s for a certificate for %s", rn.t->acme_url.p,
			    renew_names(&a));
			renew_state(ACME_ASKING, 0, S(""));
		}
	}
	arena_free(&a);
}

/* A child of the master was reaped; true: it was the helper, and its message is
 * handled. */
static bool
renew_reaped(pid_t pid)
{
	struct arena a = { NULL };
	ssize_t n;
	char *b;

	if (pid != rn.pid)
		return false;
	b = arena_alloc(&a, RENEW_RESULT_MAX);
	n = recv(rn.life, b, RENEW_RESULT_MAX, MSG_DONTWAIT);
	renew_over();
	renew_result((struct slice){ b, (size_t)MAX(n, 0) }, rn.only_asks);
	arena_free(&a);
	return true;
}

/* ---- files of certificates ---- */

/* set as a file in memory that nobody can change; -1: logged. */
static int
certs_file(const struct cert_set *set)
{
	struct arena a = { NULL };
	struct slice rest = certs_pack(set, &a);
	int fd = memfd_create("warp certificates", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	ssize_t done = 0;

	for (; fd >= 0 && rest.n > 0; rest = slice_from(rest, (size_t)done))
		if ((done = write(fd, rest.p, rest.n)) <= 0)
			break;
	if (fd >= 0 && (rest.n > 0 || fcntl(fd, F_ADD_SEALS,
	    F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)) {
		close(fd);
		fd = -1;
	}
	arena_free(&a);
	return fd >= 0 ? fd : log_errno("certificates cannot be handed to the workers");
}

static void
certs_note(void *to, enum diag_level level, int pair, const char *text)
{
	struct certs_said *said = to;

	diag_add(&said->ds, level, 0, 0, "%s", text);
	if (!said->why && (level == DIAG_ERROR || pair < 0))
		said->why = said->ds.last->text;
}

/* Logs certificates of new that old lacks. */
static void
certs_news(const struct cert_set *old, const struct cert_set *new)
{
	struct arena a = { NULL };

	for (int i = 0; i < new->n; i++) {
		const struct cert *c = &new->v[i];
		bool known = false;
		for (int k = 0; k < old->n; k++)
			known |= slice_eq(old->v[k].pem, c->pem);
		if (!known)
			log_info("new certificate in use: %s%s, by %s, until %s (%s)",
			    c->names.n > 0 ? c->names.v[0].p : "nobody",
			    c->names.n > 1 ? " and others" : "", c->issuer.p,
			    cert_date(&a, c->until_s), cert_name(c));
	}
	arena_free(&a);
}

/* The certificates of the files as they are now; NULL: not usable, logged. */
static struct cert_set *
certs_again(const struct tls_conf *t)
{
	static bool unusable;
	struct arena a = { NULL };
	struct certs_said said = { .ds.arena = &a };
	struct cert_set *set = certs_load(t, certs_note, &said);
	bool lost = set && certs_are_less(t->set, set);

	if (!set || lost) {
		unusable = true;
		log_error("certificates have changed, but cannot be used: %s; those before stay "
		    "in use", said.why ? said.why : "the one by ACME has gone");
		set = certs_keep(set, t->set, &t->domains); /* others may be new */
	} else {
		diags_log(&said.ds);
		if (unusable)
			log_info("the certificates can be used again");
		unusable = false;
	}
	arena_free(&a);
	return set;
}

/* Gives certificates whose files have changed, maybe by us, to the workers;
 * connections stay. */
static void
certs_look(bool (*give)(int fd))
{
	struct tls_conf *t = rn.serves;
	uint64_t print = certs_print(t);
	struct cert_set *set;
	int fd;

	rn.certs_ms = now_ms + CERTS_WATCH_SECS * SECOND_MS;
	if (print == t->print)
		return;
	t->print = print; /* logged once */
	if (!(set = certs_again(t)))
		return;
	if ((fd = certs_file(set)) < 0) {
		certs_free(set);
		t->print = 0; /* the next look tries again */
		return;
	}
	certs_news(t->set, set);
	certs_free(t->set);
	t->set = set;
	if (!give(fd))
		t->print = 0;
	close(fd);
}

/* ---- in the master's turn ---- */

/* Milliseconds on the clock of now_ms; 0: nothing is due. */
static int64_t
renew_next_ms(void)
{
	int64_t next = !rn.t ? 0 : rn.pid > 0 ? rn.kill_ms : MAX(MAX(rn.again_ms, rn.look_ms), 1);

	return next > 0 && (rn.certs_ms == 0 || next < rn.certs_ms) ? next : rn.certs_ms;
}

/* False: ACME waits for the clock; logged once. */
static bool
renew_clock_is_right(void)
{
	if (clock_is_right()) {
		rn.clock_said = false;
		return true;
	}
	if (!rn.clock_said) {
		log_warn("this host's clock is before the day warp was built: certificates are "
		    "asked for when it is right");
		renew_state(ACME_WAITING, 0, S("this host's clock is wrong"));
	}
	rn.clock_said = true;
	return false;
}

/* Starts the ACME job that is due. The wall clock may be set at any time, so it is
 * looked at every now and then. */
static void
renew_start(void)
{
	const struct cert *c;
	int64_t at;

	if (rn.t && rn.pid > 0 && now_ms >= rn.kill_ms) {
		renew_stop();
		renew_failed("the helper hangs", "it was killed", -1);
	}
	if (!rn.t || rn.pid > 0 || now_ms < rn.again_ms || now_ms < rn.look_ms)
		return;
	rn.look_ms = now_ms + ACME_LOOK_MS;
	if (!renew_clock_is_right())
		return;
	if (rn.pem.n > 0) {
		renew_save();
		return;
	}
	c = renew_cert();
	rn.facts.from_s = c ? c->from_s : 0;
	rn.facts.until_s = c ? c->until_s : 0;
	if (rn.got_until_s > rn.facts.until_s) {
		rn.facts.from_s = rn.got_from_s;
		rn.facts.until_s = rn.got_until_s;
	}
	at = rn.other_ca ? 0 : renew_at(&rn.facts);
	if (at <= now_s) {
		renew_begin(false);
		return;
	}
	if (now_ms >= rn.ask_ms && c && c->issuer_id.n > 0)
		renew_begin(true);
	rn.look_ms = now_ms + MIN((at - now_s) * SECOND_MS, (int64_t)ACME_LOOK_MS);
	renew_state(ACME_WAITING, at, S(""));
}

/* Does what is due. give hands a file of certificates to the workers; false: one of
 * them did not take it. */
static void
renew_settle(bool (*give)(int fd))
{
	renew_start();
	if (rn.certs_ms > 0 && now_ms >= rn.certs_ms)
		certs_look(give);
}

/* ==== generation =============================================================
 * Owns    what the master is: its configuration, listening sockets, workers and
 *         the resolver.
 * Offers  workers_*, worker_tell, listeners_*, listener_of, resolver_*,
 *         generation_open, start_load, systemd_read, notify_fmt, verb_told,
 *         asker_told.
 * Calls   arena, walk, clock, log, addr, conf, pages, board, timer, listen, logfile,
 *         usage, maintenance, spool, health, worker, helper, resolve, proc, jobs.
 *         A generation is one configuration's workers: the newest serves, older
 *         ones drain. */

#define STOP_WAIT_MS 1000 /* for workers told to stop */

static struct master m;

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
	if (sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&un,
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

/* The next live worker behind w (NULL: the first); NULL: there is none. */
static struct worker *
worker_next(struct worker *w)
{
	for (w = w ? w + 1 : m.workers; w < m.workers + WORKER_SLOTS; w++)
		if (w->pid > 0)
			return w;
	return NULL;
}

static struct worker *
worker_of(pid_t pid)
{
	struct worker *w = NULL;

	while ((w = worker_next(w)) && w->pid != pid)
		;
	return w;
}

static void
worker_tell(const struct worker *w, char op, const char *text)
{
	char b[CTL_MAX];
	int n = snprintf(b, sizeof b, "%c%s", op, text);

	if (w->pid > 0 && w->ctl.fd >= 0 && n > 0)
		send(w->ctl.fd, b, MIN((size_t)n, sizeof b - 1), MSG_NOSIGNAL | MSG_DONTWAIT);
	/* a worker that does not listen is dying: reaped, or killed when late */
}

/* To all but one (NULL: all). */
static void
workers_tell(char op, const struct worker *but)
{
	for (struct worker *w = NULL; (w = worker_next(w)); )
		if (w != but)
			worker_tell(w, op, "");
}

/* The result of a verb, to the worker that asked, if that lives. */
static void
verb_told(const struct asker *a, const char *text)
{
	char b[CTL_MAX];

	if (a->pid == 0 || m.workers[a->slot].pid != a->pid)
		return;
	snprintf(b, sizeof b, "%u %s", a->id, text);
	worker_tell(&m.workers[a->slot], CTL_VERB, b);
}

/* As verb_told; a is done then. */
static void
asker_told(struct asker *a, const char *text)
{
	verb_told(a, text);
	a->pid = 0;
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

/* In the new process. */
static void
worker_child(void *task, int ctl)
{
	/* TERM as well: it may be for the whole group, the master says what follows */
	static const int ignored[] = { SIGINT, SIGHUP, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGPIPE };
	const struct worker_task *k = task;
	sigset_t none;

	logs_use(&k->cf->log);
	usage_open(k->cf->server.chroot != NULL);
	spool_open(k->cf->server.chroot != NULL);
	tzset(); /* while /etc/localtime can be read */
	for (size_t i = 0; i < LEN(ignored); i++)
		signal(ignored[i], SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	maintenance_open(k->cf);
	files_open(k->cf);
	helper_settle(&k->cf->server, false);
	worker_run(k->cf, k->ls->v, k->ls->n, ctl, k->slot);
}

/* ---- workers ---- */

static int
worker_start(struct conf *cf, struct listeners *ls, unsigned generation)
{
	int keep[HELPER_KEEPS + LISTENERS_MAX] = { cf->log.access.fd, cf->log.error.fd }, n = 2;
	int slot = 0, ctl;
	pid_t pid;

	while (slot < WORKER_SLOTS && m.workers[slot].pid > 0)
		slot++;
	if (slot == WORKER_SLOTS) {
		log_error("no slot for another worker: too many are still draining");
		return -1;
	}
	for (int i = 0; i < ls->n; i++)
		keep[n++] = ls->v[i].fd;
	if ((pid = helper_start("worker", worker_child, &(struct worker_task){ cf, ls, slot }, keep,
	    n, &ctl)) < 0)
		return -1;
	board->workers[slot].state = WORKER_STARTING;
	board->workers[slot].pid = pid;
	m.workers[slot] = (struct worker){ .ctl = { .fd = ctl, .slot = -1 }, .pid = pid,
		.generation = generation, .attached = cf->attached, .started_ms = now_ms };
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

	for (struct worker *w = NULL; (w = worker_next(w)); )
		n += w->generation == generation && (w->ready || !only_ready);
	return n;
}

/* w was told to finish but is late: told to stop, then killed. */
static void
worker_late(struct timer *t)
{
	struct worker *w = OWNER(t, struct worker, late);

	if (w->killed) {
		kill(w->pid, SIGKILL);
		return;
	}
	log_warn("worker %d still has requests after shutdown_timeout_secs: they are cut",
	    (int)w->pid);
	worker_tell(w, CTL_STOP, "");
	w->killed = true;
	timer_set(t, STOP_WAIT_MS);
}

/* Drains workers older than generation before. gone: bits of listeners of generation
 * serving that are closed. */
static void
workers_drain(unsigned before, unsigned serving, uint64_t gone)
{
	char bits[17];

	for (struct worker *w = NULL; (w = worker_next(w)); ) {
		if (w->generation >= before || w->draining)
			continue;
		snprintf(bits, sizeof bits, "%llx",
		    (unsigned long long)(w->generation == serving ? gone : 0));
		worker_tell(w, CTL_DRAIN, bits);
		w->draining = true;
		w->late.fire = worker_late;
		timer_set(&w->late, MAX(m.conf->server.shutdown_ms, 1));
		board->workers[w - m.workers].state = WORKER_DRAINING;
	}
}

/* Kills workers of generation from and later; their end is not logged. */
static void
workers_kill(unsigned from)
{
	for (struct worker *w = NULL; (w = worker_next(w)); )
		if (w->generation >= from) {
			w->killed = true;
			kill(w->pid, SIGKILL);
		}
}

/* Starts workers that the serving generation lacks. */
static void
workers_respawn(struct timer *t)
{
	int missing = m.conf->server.workers - workers_count(m.generation, false);

	for (; missing > 0 && m.state <= M_RELOADING; missing--)
		if (worker_start(m.conf, &m.ls, m.generation) < 0) {
			timer_set(t, RESPAWN_MS);
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
	int keep[HELPER_KEEPS] = { log_sink.fd };

	resolver_stop();
	timer_clear(&m.resolver_again);
	if (resolve_fixed(cf) && (m.resolver = helper_start("resolver", resolve_run, cf, keep, 1,
	    &m.resolver_life)) < 0)
		m.resolver = 0;
}

/* Starts the resolver if there are names, and waits a moment for its first round: the
 * first request is to find its upstream. */
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

static void
resolver_due(struct timer *t)
{
	(void)t;
	resolver_start(m.conf);
}

/* The resolver died: another follows, later each time. */
static void
resolver_gone(void)
{
	resolver_stop();
	if (m.state >= M_DRAINING)
		return;
	log_warn("the resolver died; another one follows");
	m.resolver_again.fire = resolver_due;
	timer_set(&m.resolver_again, m.resolver_wait_ms);
	m.resolver_wait_ms = MIN(2 * m.resolver_wait_ms, (uint32_t)MINUTE_S * SECOND_MS);
}

/* ---- listening ---- */

/* Lets a be bound beside open sockets that overlap it (on), as 127.0.0.1:80 does :80
 * during a reload, or no longer. False: none overlaps. */
static bool
listeners_share(const struct listeners *have, const struct addr *a, int on)
{
	bool any = false;

	for (int i = 0; i < have->n; i++)
		if (addr_covers(a, &have->v[i].addr) || addr_covers(&have->v[i].addr, a))
			any |= setsockopt(have->v[i].fd, SOL_SOCKET, SO_REUSEPORT, &on,
			    sizeof on) == 0;
	return any;
}

/* Adds a socket for one address of the new configuration: an open one, or a new
 * one. */
static int
listener_add(struct listeners *to, struct listeners *have, const struct addr *a,
    enum listener_kind kind, int mode)
{
	struct listener *old = listener_of(have, a), *l = &to->v[to->n];
	int done, err;
	bool shared;

	if (to->n == LISTENERS_MAX) {
		log_error("more than %d listening addresses", LISTENERS_MAX);
		return -1;
	}
	*l = (struct listener){ .addr = *a, .kind = kind, .fd = -1 };
	if (old) {
		*l = *old;
		l->addr.text = a->text;
		l->addr.host = a->host;
		l->addr.scheme = a->scheme;
		l->kind = kind;
	} else {
		shared = listeners_share(have, a, true);
		done = listen_open(l, mode, shared);
		err = errno;
		if (shared)
			listeners_share(have, a, false);
		errno = err;
		if (done < 0)
			return -1;
	}
	l->tls = kind == LISTEN_HTTP && a->scheme == SCHEME_HTTPS;
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

/* The admin sockets. A preset one that is taken or forbidden: a warning. */
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

/* Sockets that systemd gave us, if any, replace the preset address. */
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

/* Closes listeners of had that keep lacks; had is empty then. */
static void
listeners_close(struct listeners *had, struct listeners *keep)
{
	for (int i = 0; i < had->n; i++)
		if (!listener_of(keep, &had->v[i].addr))
			listen_close(&had->v[i], true);
	had->n = 0;
}

/* Opens all addresses of cf: sockets in have are kept, others bound. On failure
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

/* Kept socket files get the mode that is configured now. */
static void
listeners_chmod(const struct listeners *ls, mode_t mode)
{
	for (int i = 0; i < ls->n; i++) {
		const struct listener *l = &ls->v[i];
		int fd = l->addr.kind == ADDR_UNIX && l->kind == LISTEN_HTTP && !l->inherited
		    ? unix_file(l) : -1;
		if (fd >= 0 && fd_chmod(fd, mode) < 0)
			log_errno("mode of %s", l->addr.text);
		fd_close(fd);
	}
}

/* ---- generations ---- */

static void
files_raise(const struct conf *cf)
{
	struct rlimit r;
	rlim_t want = 2 * (rlim_t)cf->server.max_connections + (rlim_t)health_count(cf) +
	    FILES_SPARE;

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

/* Opens what cf needs before its workers can be forked. */
static int
generation_open(struct conf *cf, struct listeners *to, struct listeners *have)
{
	unsigned oldest = m.conf->attached;

	if (logs_open(&cf->log) < 0)
		return -1;
	if (listeners_open(to, have, cf) < 0)
		return -1;
	for (struct worker *w = NULL; (w = worker_next(w)); )
		oldest = MIN(oldest, w->attached);
	board->oldest = oldest; /* records that no worker knows may serve others */
	if (board_attach(cf) < 0)
		return -1;
	procs_preview(cf);
	files_raise(cf);
	resolver_first(cf);
	return 0;
}

/* A running program's configuration has changed. */
static void
proc_changed(const char *name)
{
	log_info("process %s has changed: restarted", name);
	if (!job_reload(name))
		log_error("process %s: too many restarts at one time", name);
}

/* Loads the configuration, with its pages. */
static struct conf *
start_load(const struct start *s)
{
	struct conf *cf = s->file && !s->wrapped ? conf_load(s->file)
	    : conf_simple(s->listen, s->target, s->wrapped);

	if (cf->diags.errors == 0)
		pages_load(cf);
	return cf;
}

/* ---- systemd's sockets ---- */

#define SYSTEMD_FIRST_FD 3

/* Whether a is here, the address of socket fd. `:port` may be any wildcard. */
static bool
addr_is_sock(const struct addr *a, int fd, const union sock *here)
{
	static const struct ip any_v6, any_v4 = { { [10] = 0xff, [11] = 0xff } };
	uint16_t port, want;
	struct ip is = ip_of_sock(here, &port), shall = ip_of_sock(&a->sock, &want);

	if (a->kind == ADDR_FD)
		return a->fd == fd;
	if (a->kind == ADDR_UNIX || a->kind == ADDR_ABSTRACT)
		return here->sa.sa_family == AF_UNIX &&
		    memcmp(here->un.sun_path, a->sock.un.sun_path, sizeof here->un.sun_path) == 0;
	if (a->kind != ADDR_INET || port != want)
		return false;
	return memcmp(&is, &shall, sizeof is) == 0 || (a->any &&
	    (memcmp(&is, &any_v6, sizeof is) == 0 || memcmp(&is, &any_v4, sizeof is) == 0));
}

/* The address of cf that the socket fd has, or NULL. */
static const struct addr *
systemd_addr(const struct conf *cf, int fd)
{
	union sock here;
	socklen_t n = sizeof here;

	memset(&here, 0, sizeof here);
	if (getsockname(fd, &here.sa, &n) < 0)
		return NULL;
	for (int i = 0; i < cf->admin.n_listens; i++)
		if (addr_is_sock(&cf->admin.listens[i], fd, &here))
			return &cf->admin.listens[i];
	for (int i = 0; i < cf->server.n_listens && !cf->server.listen_is_default; i++)
		if (addr_is_sock(&cf->server.listens[i], fd, &here))
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

/* Takes sockets that systemd opened for us: those of configured addresses or, if
 * none is configured, all. */
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

/* ==== upgrade ================================================================
 * Owns    the new binary while it judges the configuration, and what one binary
 *         hands on to the next.
 * Offers  upgrade, upgrade_*, exe_find, inherit_read, ENV_INHERIT, ENV_OLD.
 * Calls   base, arena, log, addr, conf, board, timer, listen, logfile, child, proc,
 *         jobs, renew, generation. Same process, same sockets and programs; old
 *         workers drain when those of the new binary accept. */

#define CHECK_WAIT_S 30 /* `-t` of a new binary */
#define ENV_INHERIT  "WARP_INHERIT"
#define ENV_OLD      "WARP_UPGRADE_FROM"
#define INHERIT_MAX  120000 /* the kernel's limit is 131072 */

static struct upgrade ug = { .says = -1 };

enum { INHERITED = 1, ACTIVATED = 2 }; /* bits of a listen line */

/* Lets descriptors for the next binary stay open, or (FD_CLOEXEC) close. */
static void
inherit_mark(int flags)
{
	for (int i = 0; i < m.ls.n; i++)
		fcntl(m.ls.v[i].fd, F_SETFD, flags);
	for (struct worker *w = NULL; (w = worker_next(w)); )
		fcntl(w->ctl.fd, F_SETFD, flags);
	fcntl(m.pid_fd, F_SETFD, flags); /* this and the next may be -1 */
	fcntl(board_fd, F_SETFD, flags);
	procs_inherit_mark(flags);
}

/* A line for all that the next binary takes over. */
static bool
inherit_write(struct text *t)
{
	for (int i = 0; i < m.ls.n; i++)
		text_fmt(t, "listen %d %d %s\n", m.ls.v[i].fd,
		    (m.ls.v[i].inherited ? INHERITED : 0) | (m.ls.v[i].activated ? ACTIVATED : 0),
		    m.ls.v[i].addr.text);
	for (struct worker *w = NULL; (w = worker_next(w)); )
		text_fmt(t, "worker %d %d %d\n", w->ctl.fd, (int)w->pid, (int)(w - m.workers));
	if (board_fd >= 0)
		text_fmt(t, "board %d 0 -\n", board_fd);
	if (m.pid_fd >= 0)
		text_fmt(t, "pid %d 0 -\n", m.pid_fd);
	for (int i = 0; i < m.n_strangers; i++)
		text_fmt(t, "stranger 0 %d -\n", (int)m.strangers[i]);
	text_fmt(t, "files 0 %lld %lld\n", (long long)child_files.rlim_cur,
	    (long long)child_files.rlim_max);
	procs_inherit_write(t);
	text_char(t, '\0');
	return !t->full;
}

static void
upgrade_check_end(void)
{
	timer_clear(&ug.late);
	if (ug.check > 0)
		kill(ug.check, SIGKILL);
}

static void
upgrade_check_late(struct timer *t)
{
	(void)t;
	if (ug.check > 0)
		log_error("upgrade: %s does not answer within %d s: killed", ug.exe, CHECK_WAIT_S);
	upgrade_check_end();
}

/* Has the new binary check the configuration before anything is given up;
 * upgrade_checked hears the result. */
static void
upgrade(void)
{
	char *argv[] = { ug.exe, (char *)(uintptr_t)"-t", (char *)(uintptr_t)"-c",
		(char *)(uintptr_t)m.start->file, NULL };
	sigset_t none;

	if (ug.check > 0)
		return; /* its result answers this one too */
	if ((ug.again = jobs_busy())) {
		log_info("upgrade: follows when the restart of a process is done");
		return;
	}
	if (!m.start->file)
		argv[1] = (char *)(uintptr_t)"-V", argv[2] = NULL;
	ug.late.fire = upgrade_check_late;
	timer_set(&ug.late, CHECK_WAIT_S * SECOND_MS);
	ug.says = memfd_create("warp upgrade", MFD_CLOEXEC);
	if ((ug.check = fork()) == 0) {
		log_forked("upgrade");
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && ug.says >= 0 &&
		    dup2(ug.says, STDERR_FILENO) >= 0 &&
		    dup2(ug.says, STDOUT_FILENO) >= 0)
			execv(ug.exe, argv);
		log_errno("%s", ug.exe);
		_exit(EXIT_OTHER);
	}
	if (ug.check < 0) {
		log_errno("upgrade");
		fd_close(ug.says);
		ug.says = -1;
		asker_told(&ug.asker, "the new binary cannot be started");
	}
}

/* Whether a new binary could open all it needs. */
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

/* Becomes the binary at our path; ours stays open, in case the new one cannot
 * start. Signals stay blocked, so that none is lost. Returns only on failure; nothing
 * has changed then. */
static void
upgrade_exec(void)
{
	static char lines[INHERIT_MAX];
	struct text t = { lines, 0, sizeof lines, false };
	int fd = open("/proc/self/exe", O_RDONLY);
	char old[16];

	asker_told(&ug.asker, "ok");
	log_info("upgrade: starting %s", ug.exe);
	notify_fmt("RELOADING=1");
	resolver_stop();
	renew_stop();
	snprintf(old, sizeof old, "%d", fd);
	if (!inherit_write(&t) || setenv(ENV_INHERIT, lines, 1) < 0 || setenv(ENV_OLD, old, 1) < 0) {
		log_error("upgrade: too much to hand over");
	} else {
		inherit_mark(0);
		execv(ug.exe, m.start->argv);
		log_errno("upgrade: %s", ug.exe);
		inherit_mark(FD_CLOEXEC);
	}
	unsetenv(ENV_INHERIT);
	unsetenv(ENV_OLD);
	fd_close(fd);
	resolver_start(m.conf);
	notify_fmt("READY=1");
}

/* The new binary has checked the configuration; status is from wait. */
static void
upgrade_checked(int status)
{
	bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	char b[CHILD_LINE];
	ssize_t n = ug.says >= 0 ? pread(ug.says, b, sizeof b, 0) : 0;
	struct slice rest = { b, n > 0 ? (size_t)n : 0 }, line;

	ug.check = 0;
	while (!good && m.state <= M_RELOADING && rest.n > 0 && slice_cut(&rest, '\n', &line))
		log_error("upgrade: %.*s", (int)line.n, line.p);
	fd_close(ug.says);
	ug.says = -1;
	if (m.state > M_RELOADING) {
		asker_told(&ug.asker, "warp is stopping");
	} else if (good && (m.state != M_RUNNING || jobs_busy())) {
		ug.again = true;
	} else if (!good || !upgrade_trial()) {
		log_error("upgrade: %s cannot run this configuration; going on", ug.exe);
		asker_told(&ug.asker, "the new binary cannot run this configuration, the log says "
		    "why");
	} else
		upgrade_exec();
}

static void
upgrade_later(void)
{
	log_warn("upgrade: a start or reload is under way, try again");
	asker_told(&ug.asker, "a start or reload is under way, try again");
}

/* If a new binary cannot start, the one before it gets back what it gave, but its
 * programs as they are now. Returns if there is no such binary. */
static void
upgrade_back(char **argv)
{
	static char b[INHERIT_MAX];
	const char *old = getenv(ENV_OLD), *given = getenv(ENV_INHERIT);
	struct text t = { b, 0, sizeof b, false };
	struct slice rest = slice_of(given), line, word;
	int fd = old ? atoi(old) : -1;

	if (fd < 0 || !given)
		return;
	log_error("upgrade failed: back to the binary before");
	workers_kill(m.newest);
	while (m.conf && slice_cut(&rest, '\n', &line)) /* else not taken yet */
		if (!slice_starts(line, S("proc "))) {
			text_add(&t, line);
			text_char(&t, '\n');
		}
	procs_inherit_write(&t);
	text_char(&t, '\0');
	procs_inherit_mark(0);
	setenv(ENV_INHERIT, m.conf && !t.full ? b : given, 1);
	for (rest = slice_of(getenv(ENV_INHERIT)); slice_cut(&rest, '\n', &line); )
		if (slice_cut(&line, ' ', &word) && slice_cut(&line, ' ', &word) &&
		    slice_uint(word, INT_MAX) >= 0)
			fcntl((int)slice_uint(word, INT_MAX), F_SETFD, 0);
	unsetenv(ENV_OLD);
	fexecve(fd, argv, environ);
	log_errno("back to the binary before");
}

/* Sets ug.exe to dir/name; true: that is this binary. */
static bool
exe_is(struct slice dir, const char *name)
{
	struct stat there, self;
	int n = snprintf(ug.exe, sizeof ug.exe, "%.*s/%s", (int)dir.n, dir.p, name);

	return n > 0 && (size_t)n < sizeof ug.exe && stat(ug.exe, &there) == 0 &&
	    stat("/proc/self/exe", &self) == 0 && there.st_dev == self.st_dev &&
	    there.st_ino == self.st_ino;
}

/* Sets ug.exe: the name warp was called by, as that may be a link to what replaces
 * this binary; else where this binary lies. */
static void
exe_find(const char *argv0)
{
	static const char gone[] = " (deleted)";
	struct slice rest = slice_of(getenv("PATH")), dir = S("");
	ssize_t n;

	if (*argv0 != '/' && strchr(argv0, '/'))
		dir = slice_of(path_here(&m.conf->arena));
	if (strchr(argv0, '/') && exe_is(dir, argv0 + (*argv0 == '/')))
		return;
	while (!strchr(argv0, '/') && slice_cut(&rest, ':', &dir))
		if (dir.n > 0 && dir.p[0] == '/' && exe_is(dir, argv0))
			return;
	if ((n = readlink("/proc/self/exe", ug.exe, sizeof ug.exe - 1)) <= 0) {
		snprintf(ug.exe, sizeof ug.exe, "%s", argv0);
		return;
	}
	ug.exe[n] = '\0';
	if (slice_ends(slice_of(ug.exe), slice_of(gone)))
		ug.exe[(size_t)n - strlen(gone)] = '\0';
}

/* One line of WARP_INHERIT. */
static void
inherit_line(struct slice line)
{
	struct slice what, a, b;
	struct listener *l = &m.had.v[m.had.n];
	const char *why;
	int fd, more;
	int64_t slot;

	if (!slice_cut(&line, ' ', &what))
		return;
	if (slice_eq(what, S("proc"))) {
		procs_inherit_line(line);
		return;
	}
	if (!slice_cut(&line, ' ', &a) || !slice_cut(&line, ' ', &b) || !line.p)
		return;
	if (slice_eq(what, S("stranger")) && m.n_strangers < STRANGERS_MAX)
		m.strangers[m.n_strangers++] = (pid_t)slice_uint(b, INT_MAX);
	if (slice_eq(what, S("files"))) /* -1 is no limit */
		child_files = (struct rlimit){ (rlim_t)strtoll(b.p, NULL, 10),
			(rlim_t)strtoll(line.p, NULL, 10) };
	fd = (int)slice_uint(a, INT_MAX);
	more = (int)slice_uint(b, INT_MAX);
	if (fd <= STDERR_FILENO || more < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return;
	if (slice_eq(what, S("worker"))) {
		if ((slot = slice_uint(line, WORKER_SLOTS - 1)) < 0)
			return;
		m.workers[slot] = (struct worker){ .ctl = { .fd = fd, .slot = -1 }, .pid = more,
			.ready = true };
		board->workers[slot].state = WORKER_READY;
		board->workers[slot].pid = more;
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

/* Takes over what the binary before us had; the board first, which knows the
 * workers. Children from before `exec warp` are not ours. */
static void
inherit_read(void)
{
	struct slice lines = slice_of(getenv(ENV_INHERIT)), rest = lines, line, word;
	bool adopted = false;
	char b[4096];
	pid_t pid;

	for (word = children_read(b, sizeof b); !lines.p && m.n_strangers < STRANGERS_MAX &&
	    (pid = child_next(&word)) > 0; )
		m.strangers[m.n_strangers++] = pid;
	while (!adopted && slice_cut(&rest, '\n', &line))
		adopted = slice_cut(&line, ' ', &word) && slice_eq(word, S("board")) &&
		    slice_cut(&line, ' ', &word) && slice_uint(word, INT_MAX) >= 0 &&
		    board_adopt((int)slice_uint(word, INT_MAX));
	if (!adopted)
		board_open();
	while (slice_cut(&lines, '\n', &line))
		inherit_line(line);
}

/* ==== master =================================================================
 * Owns    signals, the pid file, who waits for the start.
 * Offers  master_run.
 * Calls   everything of the process that supervises. Never touches traffic. A
 *         reload starts a new generation; when that is ready the old one drains. */

#define MASTER_WATCHES (WORKER_SLOTS + PROCS_MAX + OUTPUTS_MAX + 2) /* signals, log */

/* ---- reload ---- */

/* Has the serving certificate renewed from now on. */
static void
acme_take(void)
{
	bool plain = false, tls = false;

	for (int i = 0; i < m.ls.n; i++)
		if (m.ls.v[i].kind == LISTEN_HTTP) {
			plain |= !m.ls.v[i].tls;
			tls |= m.ls.v[i].tls;
		}
	renew_take(m.conf, plain, tls);
}

/* The new generation is ready: it serves, the old drains. */
static void
reload_commit(void)
{
	struct conf *old = m.conf;
	unsigned served = m.generation;
	uint64_t gone = 0;

	for (int i = 0; i < m.ls.n; i++)
		if (!listener_of(&m.next_ls, &m.ls.v[i].addr))
			gone |= UINT64_C(1) << i;
	logs_use(&m.next->log);
	logs_close(&old->log);
	listeners_close(&m.ls, &m.next_ls);
	m.ls = m.next_ls;
	m.next_ls.n = 0;
	m.conf = m.next;
	m.next = NULL;
	m.generation = m.newest;
	m.state = M_RUNNING;
	timer_clear(&m.respawn);
	listeners_chmod(&m.ls, (mode_t)m.conf->server.socket_mode);
	procs_take(m.conf, m.generation, proc_changed);
	acme_take();
	board->reloads++;
	workers_drain(m.generation, served, gone);
	if (!m.reload_again)
		asker_told(&m.asker, "ok"); /* after its worker was told to drain */
	conf_free(old);
	log_info("reloaded, generation %u", m.generation);
	notify_fmt("READY=1");
}

/* Gives up: the old generation goes on. */
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
	procs_take(m.conf, m.generation, proc_changed);
	files_raise(m.conf);
	resolver_start(m.conf);
	if (!m.reload_again)
		asker_told(&m.asker, why);
	notify_fmt("READY=1");
}

/* A new worker died, or the deadline is over: its timer is unset then. */
static void
reload_failed(void)
{
	reload_cancel(m.deadline.list ? "a new worker died, the log says why"
	    : "the new workers did not get ready in time");
}

static void
reload_later(void)
{
	m.reload_again = true;
}

static void
reload_begin(void)
{
	const struct diag *d;
	char text[CTL_MAX - 1] = "the configuration is wrong";
	struct conf *cf;

	notify_fmt("RELOADING=1");
	cf = start_load(m.start);
	diags_log(&cf->diags);
	if (cf->diags.errors > 0) {
		for (d = cf->diags.first; d && d->level != DIAG_ERROR; d = d->next)
			;
		if (d)
			snprintf(text, sizeof text, "%s:%u:%u: %s",
			    cf->diags.file ? cf->diags.file : "warp", d->line, d->col, d->text);
		log_error("reload: %d error%s, going on with the old configuration", cf->diags.errors,
		    cf->diags.errors == 1 ? "" : "s");
		asker_told(&m.asker, text); /* the first error */
		conf_free(cf);
		notify_fmt("READY=1");
		return;
	}
	m.next = cf;
	cf->tls.set = certs_keep(cf->tls.set, m.conf->tls.set, &cf->tls.domains);
	cf->hits_half = !m.conf->hits_half;
	board_hits_clear(cf->hits_half);
	m.newest++;
	m.state = M_RELOADING;
	if (generation_open(cf, &m.next_ls, &m.ls) < 0)
		reload_cancel("its addresses, logs or upstreams cannot be opened, the log says why");
	else if (workers_start(cf, &m.next_ls, m.newest) < 0)
		reload_cancel("its workers cannot be started");
	timer_set(&m.deadline, READY_WAIT_MS);
}

/* ---- pid file, readiness ---- */

#define PID_FILE_MODE 0644

static int
pid_open(const char *path)
{
	struct walk w;
	int fd;

	if (!path || m.pid_fd >= 0)
		return 0;
	if ((fd = walk_open(&w, path, O_RDWR | O_CREAT, ROOT)) < 0) {
		log_error("pid file %s: %s", path, walk_error());
		return -1;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		log_errno("pid file %s: another warp holds it", path);
		close(fd);
		return -1;
	}
	if (ftruncate(fd, 0) < 0 || fchmod(fd, PID_FILE_MODE) < 0)
		log_errno("pid file %s", path);
	m.pid_fd = fd;
	return 0;
}

/* Tells the process that waits at *fd; -1: none does. */
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

/* Hands copies of n descriptors to a worker. */
static bool
worker_pass(const struct worker *w, char op, const int *fds, size_t n)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control = { .space = { 0 } };
	struct iovec v = { &op, 1 };
	struct msghdr msg = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control.space,
		.msg_controllen = (socklen_t)CMSG_SPACE(n * sizeof(int)) };
	struct cmsghdr *cm = CMSG_FIRSTHDR(&msg);

	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = (socklen_t)CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(cm), fds, n * sizeof(int));
	if (sendmsg(w->ctl.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
		return true;
	log_errno("files to worker %d", (int)w->pid);
	return false;
}

/* Gives new certificates to serving workers. False: one did not take them. */
static bool
workers_certs(int fd)
{
	bool all = true;

	for (struct worker *w = NULL; (w = worker_next(w)); )
		if (w->generation == m.generation)
			all &= worker_pass(w, CTL_CERTS, &fd, 1);
	return all;
}

/* Opens log files of cf anew, for its workers as well. False: logged; the old files
 * stay. */
static bool
logs_renew(struct conf *cf)
{
	struct log_conf lc = cf->log;
	int fds[2];

	if (logs_open(&lc) < 0)
		return false;
	fds[0] = lc.access.fd;
	fds[1] = lc.error.fd;
	for (struct worker *w = NULL; (w = worker_next(w)); )
		if (!m.next || (w->generation == m.newest) == (cf == m.next))
			worker_pass(w, CTL_LOGS, fds, LEN(fds));
	if (cf == m.conf)
		logs_use(&lc);
	logs_close(&cf->log);
	cf->log = lc;
	return true;
}

static void
logs_reopen(void)
{
	if ((m.next && !logs_renew(m.next)) || !logs_renew(m.conf))
		return;
	outputs_reopen();
	if (m.resolver > 0)
		resolver_start(m.conf); /* it has the old files */
	log_info("logs reopened");
}

/* All workers accept: tells all that wait for that. */
static void
master_ready(void)
{
	const char *old = getenv(ENV_OLD);
	struct stat st;
	char b[16];
	int n = snprintf(b, sizeof b, "%d\n", (int)getpid());

	m.state = M_RUNNING;
	if (m.pid_fd >= 0 && (pwrite(m.pid_fd, b, (size_t)n, 0) != n || ftruncate(m.pid_fd, n) < 0))
		log_errno("pid file");
	workers_drain(m.generation, 0, 0); /* those of the binary before */
	listeners_close(&m.had, &m.ls);
	if (old)
		close(atoi(old));
	unsetenv(ENV_OLD);
	unsetenv(ENV_INHERIT);
	log_info("warp %s ready, %d worker%s", VERSION, m.conf->server.workers,
	    m.conf->server.workers == 1 ? "" : "s");
	if (m.daemon_fd >= 0) { /* from now on the terminal gets nothing */
		if (m.conf->log.error.sink == SINK_STDERR && fstat(STDERR_FILENO, &st) == 0 &&
		    !S_ISREG(st.st_mode))
			log_warn("in the background from here on: set log.error to see what warp "
			    "says");
		stdio_release();
		helper_mute = false;
		logs_reopen();
		fd_say(&m.daemon_fd, 0);
	}
	fd_say(&m.notify_fd, '\n');
	notify_fmt("READY=1");
}

/* ---- ends ---- */

static void
master_leave(enum master_state state)
{
	m.state = state;
	notify_systemd("STOPPING=1");
	asker_told(&m.asker, "warp is stopping");
	asker_told(&ug.asker, "warp is stopping");
	resolver_stop();
	renew_stop();
	upgrade_check_end();
	for (int i = 0; i < m.ls.n; i++)
		listen_close(&m.ls.v[i], true);
	listeners_close(&m.next_ls, &m.ls);
	listeners_close(&m.had, &m.ls);
}

static void
master_stop(void)
{
	master_leave(M_STOPPING);
	timer_set(&m.deadline, STOP_WAIT_MS);
	workers_tell(CTL_STOP, NULL);
	procs_end();
}

static void
master_drain(void)
{
	master_leave(M_DRAINING);
	workers_drain(m.newest + 1, m.generation, UINT64_MAX);
	log_info("draining: leaving when the last request is answered");
}

static void
stop_late(void)
{
	timer_set(&m.deadline, STOP_WAIT_MS);
	workers_kill(0);
}

/* The first workers do not come up. After an upgrade the old binary takes over again;
 * if it fails too, its old workers go on and the new ones are tried again. */
static void
start_failed(void)
{
	if (!m.deadline.list)
		log_error("the workers did not get ready in time");
	upgrade_back(m.start->argv);
	workers_kill(m.generation);
	if (workers_count(0, false) > 0) {
		timer_set(&m.respawn, RESPAWN_MS);
		timer_set(&m.deadline, RESPAWN_MS + READY_WAIT_MS);
		m.generation = ++m.newest;
		return;
	}
	m.code = EXIT_OTHER;
	master_stop();
}

/* ---- events ---- */

/* By state, what each event does; empty: nothing. */
static void (*const master_do[MASTER_STATES][MASTER_EVENTS])(void) = {
	[M_STARTING] = { [EV_RELOAD] = reload_later, [EV_UPGRADE] = upgrade_later,
		[EV_QUIT] = master_stop, [EV_STOP] = master_stop,
		[EV_READY] = master_ready, [EV_DEATH] = start_failed, [EV_LATE] = start_failed },
	[M_RUNNING] = { [EV_RELOAD] = reload_begin, [EV_UPGRADE] = upgrade,
		[EV_QUIT] = master_drain, [EV_STOP] = master_stop },
	[M_RELOADING] = { [EV_RELOAD] = reload_later, [EV_UPGRADE] = upgrade_later,
		[EV_QUIT] = master_drain, [EV_STOP] = master_stop,
		[EV_READY] = reload_commit, [EV_DEATH] = reload_failed, [EV_LATE] = reload_failed },
	[M_DRAINING] = { [EV_STOP] = master_stop, [EV_DRAINED] = master_stop },
	[M_STOPPING] = { [EV_LATE] = stop_late },
};

/* False: ev is ignored. */
static bool
master_event(enum master_event ev)
{
	void (*act)(void) = master_do[m.state][ev];

	if (act)
		act();
	return act != NULL;
}

static void
master_late(struct timer *t)
{
	(void)t;
	master_event(EV_LATE);
}

/* A worker ended: logs how, replaces one that served. */
static void
worker_gone(struct worker *w, int status)
{
	int slot = (int)(w - m.workers);
	struct worker was = *w;
	bool young = now_ms - was.started_ms < RESPAWN_YOUNG_MS;

	if (WIFSIGNALED(status) && !was.killed)
		log_error("worker %d died of signal %d (%s)", (int)was.pid, WTERMSIG(status),
		    strsignal(WTERMSIG(status)));
	else if (!was.killed && !was.draining && m.state != M_STOPPING && (status || was.generation))
		log_error("worker %d left with status %d", (int)was.pid, WEXITSTATUS(status));
	loop_unwatch(&w->ctl);
	timer_clear(&w->late);
	close(was.ctl.fd);
	*w = (struct worker){ 0 };
	board_worker_gone(slot);
	if (was.killed || was.draining)
		return;
	if (was.generation == m.newest && m.state != M_RUNNING)
		master_event(EV_DEATH);
	else if (was.generation == m.generation && m.state <= M_RELOADING &&
	    !(young && m.respawn.list)) /* it is due already, maybe at once */
		timer_set(&m.respawn, young ? RESPAWN_MS : 1);
}

/* Whether we started pid, or it was there before. */
static bool
child_is_known(pid_t pid)
{
	for (int i = 0; i < m.n_strangers; i++)
		if (m.strangers[i] == pid)
			return true;
	return worker_of(pid) || pid == m.resolver || pid == ug.check || pid == rn.pid || proc_below(pid);
}

/* A warden was killed, and its program with it. Kills the other processes below it,
 * which come to us. */
static void
orphans_kill(void)
{
	int killed;

	for (int i = 0; i < ORPHAN_ROUNDS && children_kill(child_is_known, &killed); i++)
		if (killed > 0)
			poll(NULL, 0, ORPHAN_WAIT_MS);
}

static void
children_reap(void)
{
	struct worker *w;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == m.resolver)
			resolver_gone();
		if (pid == ug.check)
			upgrade_checked(status);
		if (!renew_reaped(pid) && !procs_reaped(pid, status) && (w = worker_of(pid)))
			worker_gone(w, status);
	}
	if (procs_lost)
		orphans_kill();
	procs_lost = false;
}

static void
master_signal(struct watch *w, short revents)
{
	static const int events[] = { [SIGHUP] = EV_RELOAD, [SIGTERM] = EV_STOP, [SIGINT] = EV_STOP,
		[SIGQUIT] = EV_QUIT, [SIGUSR2] = EV_UPGRADE };
	struct signalfd_siginfo si;

	(void)revents;
	while (read(w->fd, &si, sizeof si) == sizeof si)
		if (si.ssi_signo == SIGCHLD)
			children_reap();
		else if (si.ssi_signo == SIGUSR1)
			logs_reopen();
		else
			master_event((enum master_event)events[si.ssi_signo]);
}

static void
asked_master(const struct verb *v, struct slice name, const struct asker *a)
{
	(void)name;
	if (v->told && v->told->pid > 0) {
		verb_told(a, "another command is under way");
		return;
	}
	if (v->told)
		*v->told = *a;
	else
		verb_told(a, "ok");
	if (!master_event((enum master_event)v->what) && v->told)
		asker_told(v->told, "warp is stopping");
}

static void
asked_process(const struct verb *v, struct slice name, const struct asker *a)
{
	const struct process *ps = process_of(m.conf, name);

	if (!ps)
		verb_told(a, "there is no such process");
	else if (m.state > M_RELOADING)
		verb_told(a, "warp is stopping");
	else if (!job_add(ps->name, (enum job_kind)v->what, a))
		verb_told(a, "too many commands are under way");
}

static void
asked_instance(const struct verb *v, struct slice name, const struct asker *a)
{
	struct instance *in = NULL;
	struct slice of;
	int64_t place;

	slice_cut(&name, '/', &of); /* UPSTREAM/PLACE, as the worker says it */
	place = slice_uint(name, INT_MAX);
	for (int u = 0; u < m.conf->n_upstreams; u++) {
		struct upstream *up = &m.conf->upstreams[u];
		if (slice_eq(of, slice_of(up->name)) && place >= 0 && place < up->n_instances)
			in = &up->instances[place];
	}
	if (in) {
		in->board->drained = v->what;
		log_info("upstream %s: %s is %s by the operator", in->up->name, in->addr.text,
		    v->what ? "drained" : "enabled");
		board_changed();
		procs_news = true;
	}
	verb_told(a, in ? "ok" : "there is no such instance");
}

/* A verb for the master from a worker's admin socket: a number that names the
 * request, a verb, maybe a name. */
static void
master_verb(int slot, struct slice text)
{
	static const struct verb verbs[] = {
		{ "reload", false, asked_master, EV_RELOAD, &m.asker },
		{ "upgrade", false, asked_master, EV_UPGRADE, &ug.asker },
		{ "quit", false, asked_master, EV_QUIT, NULL },
		{ "stop", false, asked_master, EV_STOP, NULL },
		{ "restart", true, asked_process, JOB_RESTART, NULL },
		{ "start", true, asked_process, JOB_START, NULL },
		{ "stop", true, asked_process, JOB_STOP, NULL },
		{ "drain", true, asked_instance, true, NULL },
		{ "enable", true, asked_instance, false, NULL },
	};
	struct asker a = { .slot = slot, .pid = m.workers[slot].pid };
	struct slice id, verb;

	if (!slice_cut(&text, ' ', &id) || !slice_cut(&text, ' ', &verb))
		return;
	a.id = (unsigned)slice_uint(id, INT_MAX);
	for (size_t i = 0; i < LEN(verbs); i++)
		if (slice_eq(verb, slice_of(verbs[i].name)) && verbs[i].names == (text.n > 0)) {
			verbs[i].act(&verbs[i], text, &a);
			return;
		}
	verb_told(&a, "unknown command");
}

static void
worker_says(struct watch *ctl, short revents)
{
	struct worker *w = (struct worker *)ctl;
	char b[CTL_MAX];
	ssize_t n = recv(ctl->fd, b, sizeof b, MSG_DONTWAIT);
	struct slice text = { b + 1, (size_t)MAX(n - 1, 0) };
	const struct process *ps = process_of(m.conf, text);

	(void)revents;
	if (n <= 0)
		return; /* it is dying: SIGCHLD says how */
	if (b[0] == CTL_VERB)
		master_verb((int)(w - m.workers), text);
	else if (b[0] == CTL_START && ps && ps->start_on == START_REQUEST && m.state < M_STOPPING)
		process_want(ps); /* a request waits for the process */
	else if (b[0] == CTL_WAKE)
		workers_tell(CTL_WAKE, w);
	else if (b[0] == CTL_CERTS)
		m.conf->tls.print = 0; /* the next look sends them again */
	if (b[0] != CTL_READY)
		return;
	w->ready = true;
	board->workers[w - m.workers].state = WORKER_READY;
	if (w->generation == m.newest &&
	    workers_count(m.newest, true) == (m.next ? m.next : m.conf)->server.workers)
		master_event(EV_READY);
}

/* ---- deadlines ---- */

/* Milliseconds until what has no timer is due; -1: nothing is. */
static int
master_wait(void)
{
	const int64_t dues[] = { procs_next_ms(), jobs_next_ms(),
		m.state == M_RUNNING ? renew_next_ms() : 0 };
	int64_t due = 0;

	for (size_t i = 0; i < LEN(dues); i++)
		if (dues[i] > 0 && (due == 0 || dues[i] < due))
			due = dues[i];
	return due == 0 ? -1 : (int)MIN(MAX(due - now_ms, 0), INT_MAX);
}

/* ---- life ---- */

static unsigned
workers_oldest(void)
{
	unsigned oldest = m.generation;

	for (struct worker *w = NULL; (w = worker_next(w)); )
		oldest = MIN(oldest, w->generation);
	return oldest;
}

/* Names the serving worker that does the health checks, or tells it again, to look at
 * once. */
static void
checker_name(void)
{
	struct worker *w = NULL;

	for (struct worker *v = NULL; (v = worker_next(v)); )
		if (v->ready && !v->draining && v->generation == m.generation &&
		    (!w || v->pid == m.checker))
			w = v;
	if (!w || (w->pid == m.checker && !procs_look))
		return;
	m.checker = w->pid;
	procs_look = false;
	worker_tell(w, CTL_CHECK, "");
}

/* Does what follows from the last events. */
static void
master_settle(void)
{
	procs_settle(workers_oldest());
	do
		jobs_step();
	while (procs_settle(workers_oldest()));
	if (procs_news)
		workers_tell(CTL_WAKE, NULL);
	procs_news = false;
	checker_name();
	if (m.state == M_RUNNING)
		renew_settle(workers_certs); /* workers accept: challenges can be met */
	if (m.state == M_DRAINING && !worker_next(NULL))
		master_event(EV_DRAINED);
	if (procs_hopeless && m.state < M_STOPPING)
		master_event(EV_STOP);
}

static void
master_turn(void)
{
	static struct watch log = { .fd = -1, .slot = -1, .ready = log_ready };

	for (struct worker *w = NULL; (w = worker_next(w)); ) {
		w->ctl.ready = worker_says;
		loop_aim(&w->ctl, w->ctl.fd, POLLIN);
	}
	outputs_turn();
	loop_aim(&log, sink_waits(&log_sink), POLLOUT);
	loop_turn(master_wait());
	procs_due();
	if (m.reload_again && m.state == M_RUNNING) {
		m.reload_again = false;
		reload_begin();
	}
	master_settle();
	if (ug.again && m.state == M_RUNNING && !jobs_busy())
		upgrade();
}

/* Signals come over a descriptor. It is watched first, so it is called last: messages
 * of children come before their ends. */
static void
master_signals(void)
{
	static struct watch w = { .slot = -1, .ready = master_signal };
	static const int ours[] = { SIGHUP, SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGCHLD };
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < LEN(ours); i++)
		sigaddset(&set, ours[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGCHLD, SIG_DFL); /* our parent may ignore it */
	w.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	loop_watch(&w, POLLIN);
}

/* A hash: the same for each warp that this user starts in this way. */
static uint64_t
start_key(const struct start *s)
{
	uint64_t h = hash64(geteuid(), "warp", 4);
	struct stat pids;

	if (stat("/proc/self/ns/pid", &pids) == 0) /* pids are of a namespace */
		h = hash64(h, &pids.st_ino, sizeof pids.st_ino);

	if (s->file)
		return hash64(h, s->file, strlen(s->file));
	for (char **arg = s->argv + 1; *arg; arg++)
		h = hash64(h, *arg, strlen(*arg) + 1);
	return h;
}

/* Up to the workers' fork. 0, or the exit status. */
static int
master_start(struct conf *cf)
{
	getrlimit(RLIMIT_NOFILE, &child_files);
	m.conf = cf;
	exe_find(m.start->argv[0]);
	m.generation = m.newest = 1;
	m.notify_fd = m.start->notify_fd;
	m.daemon_fd = m.start->daemon_fd;
	helper_mute = m.daemon_fd >= 0;
	job_told = verb_told;
	proc_forgotten = job_forget;
	clock_turn();
	loop_open(MASTER_WATCHES);
	loop_park_none();
	m.respawn.fire = workers_respawn;
	m.deadline.fire = master_late;
	master_signals();
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		log_errno("what programs leave behind is not reaped");
	inherit_read();
	board_hits_clear(cf->hits_half);
	systemd_read(cf);
	if (logs_open(&cf->log) < 0)
		return EXIT_OTHER;
	logs_use(&cf->log);
	if (pid_open(m.start->pid_file) < 0)
		return EXIT_OTHER;
	if (listeners_open(&m.ls, &m.had, cf) < 0)
		return EXIT_BIND;
	procs_sweep(start_key(m.start), !getenv(ENV_INHERIT) && cf->n_processes > 0);
	listeners_chmod(&m.ls, (mode_t)cf->server.socket_mode);
	files_raise(cf);
	if (board_attach(cf) < 0)
		return EXIT_OTHER;
	procs_take(cf, m.generation, proc_changed);
	procs_resume(m.generation);
	acme_take();
	resolver_first(cf);
	timer_set(&m.deadline, READY_WAIT_MS);
	return workers_start(cf, &m.ls, m.generation) < 0 ? EXIT_OTHER : 0;
}

/* Runs cf until warp is told to end. Returns the exit status. */
static int
master_run(const struct start *s, struct conf *cf)
{
	struct stat ours, there;

	m.start = s;
	m.resolver_life = m.pid_fd = m.notify_fd = m.daemon_fd = -1;
	if ((m.code = master_start(cf)) != 0) {
		upgrade_back(m.start->argv);
		master_stop();
	}
	children_reap(); /* those that ended before signals were watched */
	while (worker_next(NULL) || procs_run() || m.state < M_STOPPING)
		master_turn();
	outputs_flush();
	sinks_finish(&log_sink, &log_sink, LOG_LAST_MS);
	if (*run_dir_made)
		dir_remove(run_dir_made, true);
	if (procs_wrapped >= 0 && m.code == 0)
		m.code = procs_wrapped;
	if (m.pid_fd >= 0 && s->pid_file && fstat(m.pid_fd, &ours) == 0 &&
	    lstat(s->pid_file, &there) == 0 && ours.st_dev == there.st_dev &&
	    ours.st_ino == there.st_ino)
		unlink(s->pid_file); /* else another file is there */
	return m.code;
}

/* ==== main ===================================================================
 * Owns    the command line.
 * Calls   everything, to start it. */

static const char usage_text[] =
    "usage: warp -c FILE             run with a configuration (or $WARPDRIVE_CONFIG, or\n"
    "                                " CONFIG_PATH ")\n"
    "       warp [-l ADDR] -u ADDR   without one: listen on ADDR (:8080), pass on to ADDR\n"
    "       warp [-l ADDR] [-u ADDR] -- CMD ARG...\n"
    "                                run CMD with $PORT (or that of -u), pass on to it\n"
    "       warp -t [-c FILE]        check the configuration and show what it means\n"
    "       warp -e 'METHOD URL' [-H 'Name: v']... [-a CLIENT_IP]\n"
    "                                explain what would become of a request\n"
    "       warp -s VERB [ARG]       tell the running warp: status, reload, quit, stop,\n"
    "                                upgrade; restart, start or stop NAME (a process);\n"
    "                                drain or enable UPSTREAM/INSTANCE\n"
    "  -d  into the background, once it accepts    -p FILE  pid file\n"
    "  -n FD  a newline to FD once it accepts      -D  every configuration key\n"
    "  -V  version                                 -h  this help\n"
    "Signals: HUP reload, QUIT drain and leave, TERM stop, USR1 reopen logs, USR2 upgrade.\n"
    "Exit status: 0 clean, 1 configuration, 2 usage, 3 cannot listen, 4 anything else;\n"
    "with --, that of CMD (128+n for a signal).\n";

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
	       "built in: http/1.0 http/1.1 websocket proxy-protocol v1 v2, tls 1.2, acme,\n"
	       "health checks, process supervision, status page and metrics\n"
	       "not in this build: tls 1.3 http/2 gzip cache uwsgi static files, other dialects\n"
	       "board for %d workers, %d instances, %d processes; configuration %s,\n"
	       "admin socket %s\n",
	    VERSION, WORKERS_MAX, INSTANCES_MAX, PROCS_MAX, CONFIG_PATH, ADMIN_SOCKET);
	return 0;
}

/* Turns usual long options into ours. -1, or the exit status. */
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
	case 'c': o->s.file = optarg; break;
	case 'l': o->s.listen = optarg; break;
	case 'u': o->s.target = optarg; break;
	case 't': o->check = true; break;
	case 'e': o->explain = optarg; break;
	case 'a': o->client = optarg; break;
	case 's': o->verb = optarg; break;
	case 'd': o->daemon = true; break;
	case 'p': o->s.pid_file = optarg; break;
	case 'D': o->list_keys = true; break;
	case 'V': return version();
	case 'h': fputs(usage_text, stdout); return 0;
	case 'H':
		if (o->n_headers == HEADERS_MAX)
			return usage("too many -H", "");
		o->headers[o->n_headers++] = optarg;
		break;
	case 'n':
		if ((o->s.notify_fd = (int)slice_uint(slice_of(optarg), INT_MAX)) < 0)
			return usage("-n: expected a descriptor's number, got ", optarg);
		break;
	default:
		return usage("unknown option, or one without its value: -", name);
	}
	return -1;
}

/* Options that exclude or need others. -1: go on; else the exit status. */
static int
options_check(const struct options *o)
{
	if (o->s.wrapped && (!*o->s.wrapped || !**o->s.wrapped))
		return usage("-- needs the command to run behind it", "");
	if (o->s.wrapped && o->s.file)
		return usage("-c and --: a configuration says itself what to run", "");
	if (o->s.listen && !o->s.target && !o->s.wrapped)
		return usage("-l needs -u: a configuration says itself where to listen", "");
	if (o->s.file && o->s.target)
		return usage("-c and -u: give one of them", "");
	return -1;
}

/* -1: go on; else the exit status. */
static int
options_read(struct options *o, int argc, char **argv)
{
	int c, done = options_long(argv + 1);

	opterr = 0;
	while (done < 0 && optind < argc && !o->s.wrapped) {
		if ((c = getopt(argc, argv, "+c:l:u:te:H:a:s:dp:n:DVh")) != -1)
			done = option_read(o, c);
		else if (strcmp(argv[optind - 1], "--") == 0)
			o->s.wrapped = argv + optind;
		else if ((o->verb || o->list_keys) && !o->arg)
			o->arg = argv[optind++];
		else
			done = usage("one word too many: ", argv[optind]);
	}
	return done < 0 ? options_check(o) : done;
}

/* Where the configuration comes from: -c, the environment, or a file at the usual
 * place. False: from nowhere. */
static bool
options_source(struct options *o)
{
	static char target[300];
	const char *host = getenv("WARPDRIVE_TARGET_HOST"), *port = getenv("WARPDRIVE_TARGET_PORT");

	if (o->s.file || o->s.target)
		return true;
	if (getenv("WARPDRIVE_CONFIG") && !o->s.wrapped) {
		o->s.file = getenv("WARPDRIVE_CONFIG");
		return true;
	}
	if (port || host) {
		bool v6 = host && strchr(host, ':') && host[0] != '[';
		snprintf(target, sizeof target, "%s%s%s:%s", v6 ? "[" : "", host ? host : "127.0.0.1",
		    v6 ? "]" : "", port ? port : "80");
		o->s.target = target;
		return true;
	}
	if (!o->s.wrapped && access(CONFIG_PATH, F_OK) == 0)
		o->s.file = CONFIG_PATH;
	return o->s.file || o->s.wrapped;
}

/* -t: every error and warning, then what the configuration means. */
static int
check(const struct options *o)
{
	struct conf *cf = start_load(&o->s);
	int bad = cf->diags.errors;

	diags_print(&cf->diags, stderr);
	if (!bad)
		conf_print_check(cf, stdout);
	conf_free(cf);
	return bad ? EXIT_CONFIG : 0;
}

/* ---- -s ---- */

#define VERB_CONNECT_S 5
#define VERB_STATUS_S 10
#define VERB_WAIT_S 40   /* a reload takes READY_WAIT_MS at most, an upgrade CHECK_WAIT_S */
#define VERB_LONG_S 300  /* processes take their time to stop and to get ready */
#define VERB_LINE   4096 /* bytes of the request, and of an answer's header line */

/* The admin address of cf; the preset one if a broken file hides it; NULL: off. */
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

static struct slice verb_late_text;

/* Time is up, however much has come. */
static void
verb_late(int sig)
{
	(void)sig;
	if (write(STDERR_FILENO, verb_late_text.p, verb_late_text.n) < 0)
		_exit(EXIT_OTHER);
	_exit(EXIT_OTHER);
}

/* -1: printed. */
static int
verb_connect(const struct addr *a)
{
	struct timeval soon = { .tv_sec = VERB_CONNECT_S };
	int fd = socket(a->sock.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool full;

	if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof soon) == 0 &&
	    connect(fd, &a->sock.sa, a->sock_n) == 0)
		return fd;
	full = errno == EAGAIN || errno == EINPROGRESS;
	fprintf(stderr, full ? "warp: the warp at %s takes no more questions: it hangs, or "
	    "too many are asked (connect: %s)\n"
	    : "warp: no warp listens on %s: is it running? (connect: %s)\n", a->text,
	    full ? "not within 5 s" : strerror(errno));
	fd_close(fd);
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

/* Prints the answer's body, on stderr unless it is a 2xx. True: it is one. */
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
	if (body && !good)
		fputs("warp: ", stderr);
	while ((got = fread(b, 1, sizeof b, f)) > 0)
		fwrite(b, 1, got, good ? stdout : stderr);
	return good && body;
}

static int
verb(const struct options *o)
{
	struct conf *cf = start_load(&o->s);
	const struct addr *a = verb_addr(cf);
	bool good = false;
	FILE *f = NULL;
	int fd = -1;

	if (cf->diags.errors > 0)
		diags_print(&cf->diags, stderr);
	verb_late_text = slice_of(arena_fmt(&cf->arena, "warp: no answer from %s in time; its log "
	    "may say why\n", a ? a->text : ""));
	signal(SIGALRM, verb_late);
	alarm(o->arg ? VERB_LONG_S : strcmp(o->verb, "status") == 0 ? VERB_STATUS_S : VERB_WAIT_S);
	if (!a)
		fprintf(stderr, "warp: admin.listen is off: nobody can be asked\n");
	else if ((fd = verb_connect(a)) >= 0 && !(f = fdopen(fd, "r")))
		die_memory();
	if (f && verb_send(fd, cf, o))
		good = verb_print(f);
	else if (f)
		fprintf(stderr, "warp: %s cannot be asked\n", a->text);
	if (f)
		fclose(f);
	conf_free(cf);
	return good ? 0 : EXIT_OTHER;
}

/* ---- -d ---- */

/* The parent waits until the child accepts, and exits with its status. */
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
run(struct options *o)
{
	static char file[PATH_MAX];
	struct conf *cf = start_load(&o->s);
	int err;

	diags_say(&cf->diags);
	if (cf->diags.errors > 0) {
		upgrade_back(o->s.argv);
		conf_free(cf);
		return EXIT_CONFIG;
	}
	if (o->s.file) {
		snprintf(file, sizeof file, "%s", cf->file);
		o->s.file = file; /* absolute, and it outlives cf */
	}
	if (getenv(ENV_INHERIT))
		o->s.notify_fd = -1;
	else if (o->daemon && (err = daemonise(&o->s.daemon_fd)) != 0)
		return err;
	return master_run(&o->s, cf);
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
	struct options o = { .s = { .argv = argv, .notify_fd = -1, .daemon_fd = -1 } };
	int done;

	stdio_open();
	signal(SIGPIPE, SIG_IGN); /* writing fails instead */
	signal(SIGXFSZ, SIG_IGN);
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
		o.s.target = "127.0.0.1:80"; /* any: only [admin] is looked at */
	}
	if (o.verb)
		return verb(&o);
	if (o.check)
		return check(&o);
	if (o.explain) {
		struct conf *cf = start_load(&o.s);
		diags_print(&cf->diags, stderr);
		return cf->diags.errors ? EXIT_CONFIG
		    : explain(cf, o.explain, o.headers, o.n_headers, o.client, stdout);
	}
	return run(&o);
}
