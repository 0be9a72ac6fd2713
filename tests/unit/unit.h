/* unit.h: what the tables have in common. Included behind warp.c. */

#ifndef UNIT_H
#define UNIT_H

#include <setjmp.h>

#include <cmocka.h>

/* A slice in a table, where S() is no constant. */
#define T(lit) { "" lit, sizeof(lit) - 1 }

/* A copy with nothing behind it, so that reading on is seen; to be freed. */
static struct slice
exact(struct slice s)
{
	char *p = malloc(s.n);

	if (s.n > 0)
		memcpy(p, s.p, s.n);
	return (struct slice){ p, s.n };
}

static void
exact_free(struct slice s)
{
	free((void *)(uintptr_t)s.p);
}

/* s with its control bytes spelled out, shortened; one of four buffers. */
static const char *
shown(struct slice s)
{
	static char bufs[4][512];
	static unsigned turn;
	char *b = bufs[turn++ % LEN(bufs)];
	size_t n = 0;

	for (size_t i = 0; i < s.n && n + 8 < sizeof bufs[0]; i++) {
		unsigned char c = (unsigned char)s.p[i];
		if (c == '\r' || c == '\n')
			n += (size_t)snprintf(b + n, 8, c == '\r' ? "\\r" : "\\n");
		else if (c < ' ' || c > '~')
			n += (size_t)snprintf(b + n, 8, "\\x%02x", c);
		else
			b[n++] = (char)c;
	}
	b[n] = '\0';
	return b;
}

/* What is read from a file of that name once it has that text. */
static struct conf *
conf_from(const char *file, const char *text)
{
	FILE *f = fopen(file, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
	return conf_load(file);
}

/* All that is said of c, to be freed. */
static char *
complaints(const struct conf *c)
{
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	assert_non_null(f);
	diags_print(&c->diags, f);
	fclose(f);
	return text;
}

/* Rows that failed: all of them are told before the test does. */
static int rows_bad;

__attribute__((format(printf, 3, 4))) static void
row_bad(const char *why, struct slice in, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	print_error("%s: %s\n    %s\n", why, text, shown(in));
	rows_bad++;
}

static void
rows_end(void)
{
	int bad = rows_bad;

	rows_bad = 0;
	assert_int_equal(bad, 0);
}

static void
row_slice(const char *why, struct slice in, const char *what, struct slice got,
    struct slice want)
{
	if (!slice_eq(got, want))
		row_bad(why, in, "%s is '%s', expected '%s'", what, shown(got), shown(want));
}

static void
row_int(const char *why, struct slice in, const char *what, long long got, long long want)
{
	if (got != want)
		row_bad(why, in, "%s is %lld, expected %lld", what, got, want);
}

/* Numbers for random rows, the same in each run. */
static uint32_t unit_seed = 1;

static uint32_t
dice(uint32_t n)
{
	unit_seed = unit_seed * 1664525u + 1013904223u;
	return (unit_seed >> 8) % n;
}

#endif
