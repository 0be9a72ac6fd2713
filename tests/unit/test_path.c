/* The normalised view of a path, and back again; conditions on the query. */

#define main warp_main
#include "../../warp.c"
#undef main

#include <setjmp.h>

#include <cmocka.h>

#define BYTES(lit) { "" lit, sizeof(lit) - 1 }
#define TEXT(s)    (int)(s).n, (s).p

/* An exact copy, so that a read behind its end is seen. To be freed. */
static char *
exact(struct slice s)
{
	char *p = malloc(s.n ? s.n : 1);

	assert_non_null(p);
	if (s.n > 0)
		memcpy(p, s.p, s.n);
	return p;
}

static int
normalise(struct slice raw, struct path_view *v)
{
	char *p = exact(raw);
	int got = path_normalise((struct slice){ p, raw.n }, v);

	free(p);
	return got;
}

/* What is promised of every view. */
static void
view_check(struct slice path, const char *why)
{
	static const char zeros[PATH_PAD];

	if (path.n == 0 || path.p[0] != '/' || path.p[path.n] != '\0' ||
	    memcmp(path.p - PATH_PAD, zeros, PATH_PAD) != 0 || memchr(path.p, '\0', path.n))
		fail_msg("%s: no view: \"%.*s\"", why, TEXT(path));
}

/* A view, encoded, has that view. */
static void
view_again(struct slice path, const char *why)
{
	static char kept[TARGET_MAX], coded[3 * TARGET_MAX];
	struct text t = { coded, 0, sizeof coded, false };
	struct path_view v;

	memcpy(kept, path.p, path.n);
	path.p = kept;
	path_encode(&t, path);
	if (t.full || path_normalise(text_slice(&t), &v) < 0 || !slice_eq(v.path, path))
		fail_msg("%s: \"%.*s\" is not its own view", why, TEXT(path));
}

#define REFUSED { NULL, 0 }

static const struct {
	struct slice raw, want;
	const char *why;
} paths[] = {
	{ BYTES("/"), BYTES("/"), "the root" },
	{ BYTES("/a/b.c/~d-_"), BYTES("/a/b.c/~d-_"), "plain" },
	{ BYTES("/a/"), BYTES("/a/"), "a slash at the end stays" },
	{ BYTES("//a///b//"), BYTES("/a/b/"), "slashes are merged" },
	{ BYTES("///"), BYTES("/"), "slashes alone" },
	{ BYTES("/a/./b/."), BYTES("/a/b/"), "single dots" },
	{ BYTES("/./"), BYTES("/"), "a single dot" },
	{ BYTES("/a/../b"), BYTES("/b"), "two dots" },
	{ BYTES("/a/b/.."), BYTES("/a/"), "two dots at the end" },
	{ BYTES("/a/b/../"), BYTES("/a/"), "two dots and a slash at the end" },
	{ BYTES("/a/b/../../c"), BYTES("/c"), "up twice" },
	{ BYTES("/a//../b"), BYTES("/b"), "an empty segment is none to leave" },
	{ BYTES("/a/.."), BYTES("/"), "up to the root" },
	{ BYTES("/..."), BYTES("/..."), "three dots" },
	{ BYTES("/.a/..b/c./d.."), BYTES("/.a/..b/c./d.."), "names with dots" },
	{ BYTES("/%61%2e%7E"), BYTES("/a.~"), "decoded" },
	{ BYTES("/%2e/a"), BYTES("/a"), "an encoded dot" },
	{ BYTES("/a/%2E%2e/b"), BYTES("/b"), "two encoded dots" },
	{ BYTES("/a/.%2e/b"), BYTES("/b"), "a mixed pair" },
	{ BYTES("/%25%32%35"), BYTES("/%2525"), "%25 stays, what is behind it too" },
	{ BYTES("/a%2fb"), BYTES("/a%2Fb"), "%2f stays, in upper case" },
	{ BYTES("/%252f"), BYTES("/%252f"), "twice encoded is decoded once" },
	{ BYTES("/%252e%252e/a"), BYTES("/%252e%252e/a"), "twice encoded dots are a name" },
	{ BYTES("/..%252fa"), BYTES("/..%252fa"), "and hide none" },
	{ BYTES("/a;b=c/d"), BYTES("/a;b=c/d"), "parameters are part of the name" },
	{ BYTES("/..;/a"), BYTES("/..;/a"), "dots with a parameter are a name" },
	{ BYTES("/a\\b%5C"), BYTES("/a\\b\\"), "a backslash" },
	{ BYTES("/\xe9%E9%ff%01%7f"), BYTES("/\xe9\xe9\xff\x01\x7f"), "any other byte" },
	{ BYTES("/%3f%23"), BYTES("/?#"), "delimiters that were encoded" },
	{ BYTES("/a%2f"), BYTES("/a%2F"), "an encoded slash at the end" },
	{ BYTES("/a%2f%2fb"), BYTES("/a%2F%2Fb"), "encoded slashes are not merged" },
	{ BYTES("/a%2f...%2f..b"), BYTES("/a%2F...%2F..b"), "names beside an encoded slash" },

	{ BYTES(""), REFUSED, "empty" },
	{ BYTES("a"), REFUSED, "no slash first" },
	{ BYTES("%2fa"), REFUSED, "an encoded one" },
	{ BYTES("/.."), REFUSED, "above the root" },
	{ BYTES("/../"), REFUSED, "above the root, with a slash" },
	{ BYTES("/a/../.."), REFUSED, "above the root, later" },
	{ BYTES("//../a"), REFUSED, "above the root: merged first" },
	{ BYTES("/a/../../a"), REFUSED, "above the root and back" },
	{ BYTES("/%2e%2e/a"), REFUSED, "above the root, encoded" },
	{ BYTES("/a\0b"), REFUSED, "a NUL" },
	{ BYTES("/a%00b"), REFUSED, "an encoded NUL" },
	{ BYTES("/%"), REFUSED, "a percent sign alone" },
	{ BYTES("/%4"), REFUSED, "one digit" },
	{ BYTES("/%4/a"), REFUSED, "one digit and a slash" },
	{ BYTES("/%4g"), REFUSED, "no digit" },
	{ BYTES("/%%41"), REFUSED, "two percent signs" },
	{ BYTES("/a/..%2fb"), REFUSED, "dots before an encoded slash" },
	{ BYTES("/a/%2e%2e%2Fb"), REFUSED, "encoded dots before an encoded slash" },
	{ BYTES("/a%2f.."), REFUSED, "dots behind an encoded slash" },
	{ BYTES("/a%2f../b"), REFUSED, "dots behind an encoded slash, and more" },
	{ BYTES("/a%2f.%2fb"), REFUSED, "a dot between encoded slashes" },
	{ BYTES("/.%2f"), REFUSED, "a dot and an encoded slash" },
	{ BYTES("/a/..\\b"), REFUSED, "dots before a backslash" },
	{ BYTES("/a%5c.."), REFUSED, "dots behind an encoded backslash" },
};

static void
test_normalise(void **state)
{
	struct path_view v;

	(void)state;
	for (size_t i = 0; i < LEN(paths); i++) {
		int got = normalise(paths[i].raw, &v);
		if (got != (paths[i].want.p ? 0 : -400))
			fail_msg("%s: %d", paths[i].why, got);
		if (got < 0)
			continue;
		if (!slice_eq(v.path, paths[i].want))
			fail_msg("%s: \"%.*s\", not \"%.*s\"", paths[i].why, TEXT(v.path),
			    TEXT(paths[i].want));
		view_check(v.path, paths[i].why);
		view_again(v.path, paths[i].why);
	}
}

static void
test_normalise_cut(void **state)
{
	struct path_view v;

	(void)state;
	for (size_t i = 0; i < LEN(paths); i++)
		for (size_t n = 0; n < paths[i].raw.n; n++)
			if (normalise((struct slice){ paths[i].raw.p, n }, &v) == 0)
				view_check(v.path, paths[i].why);
}

/* The longest path fits, in either spelling. */
static void
test_longest(void **state)
{
	static char raw[TARGET_MAX + 1];
	struct path_view v;

	(void)state;
	memset(raw, 'a', sizeof raw);
	raw[0] = '/';
	assert_int_equal(normalise((struct slice){ raw, TARGET_MAX }, &v), 0);
	assert_int_equal(v.path.n, TARGET_MAX);
	assert_int_equal(normalise((struct slice){ raw, TARGET_MAX + 1 }, &v), -400);
	for (size_t i = 1; i + 3 <= TARGET_MAX; i += 3)
		memcpy(raw + i, "%2f", 3);
	assert_int_equal(normalise((struct slice){ raw, TARGET_MAX }, &v), 0);
	assert_int_equal(v.path.n, TARGET_MAX);
	view_check(v.path, "encoded slashes");
}

/* path_plain, where request_parse says so, is path_normalise. */
static void
test_plain(void **state)
{
	static struct head h;
	static char line[512], full[256];
	struct path_view v;

	(void)state;
	for (size_t i = 0; i < LEN(paths); i++) {
		struct text t = { line, 0, sizeof line, false };
		text_str(&t, "GET ");
		text_add(&t, paths[i].raw);
		text_str(&t, " HTTP/1.0\r\n\r\n");
		if (request_parse(&h, text_slice(&t)) <= 0 || !h.path_plain)
			continue;
		assert_int_equal(path_normalise(h.path, &v), 0);
		memcpy(full, v.path.p, v.path.n);
		path_plain(h.path, &v);
		view_check(v.path, paths[i].why);
		assert_memory_equal(full, v.path.p, v.path.n);
	}
}

static void
test_encode(void **state)
{
	static const struct {
		struct slice in, want;
	} rows[] = {
		{ BYTES("/a-._~!$&'()*+,;=:@Z09"), BYTES("/a-._~!$&'()*+,;=:@Z09") },
		{ BYTES("/ \"#<>?[\\]^`{|}"), BYTES("/%20%22%23%3C%3E%3F%5B%5C%5D%5E%60%7B%7C%7D") },
		{ BYTES("/\x01\x7f\xc3\xa9\0"), BYTES("/%01%7F%C3%A9%00") },
		{ BYTES("/%2F%25"), BYTES("/%2F%25") },
		{ BYTES("/100%"), BYTES("/100%25") },
		{ BYTES("/%4/%zz"), BYTES("/%254/%25zz") },
	};
	char b[256];

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		struct text t = { b, 0, sizeof b, false };
		path_encode(&t, rows[i].in);
		if (!slice_eq(text_slice(&t), rows[i].want))
			fail_msg("\"%.*s\": \"%.*s\"", TEXT(rows[i].in), TEXT(text_slice(&t)));
		t = (struct text){ b, 0, rows[i].want.n - 1, false };
		path_encode(&t, rows[i].in);
		assert_true(t.full);
	}
}

static void
test_query(void **state)
{
	static const struct {
		struct slice query;
		const char *name, *value;
		bool want;
		const char *why;
	} rows[] = {
		{ BYTES("a=1"), "a", "1", true, "plain" },
		{ BYTES("b=2&a=1&c"), "a", "1", true, "among others" },
		{ BYTES("a=2&a=1"), "a", "1", true, "the second of two" },
		{ BYTES("a=1"), "a", "*", true, "any value" },
		{ BYTES("a"), "a", "*", true, "present without a value" },
		{ BYTES("a="), "a", "", true, "an empty value" },
		{ BYTES("a"), "a", "", true, "no value is an empty one" },
		{ BYTES("x&a&y"), "a", "*", true, "present among others" },
		{ BYTES("%61%2b=%31+2"), "a+", "1 2", true, "both are decoded" },
		{ BYTES("a=x%3Dy%26z"), "a", "x=y&z", true, "encoded delimiters" },
		{ BYTES("a=b=c"), "a", "b=c", true, "the first equals sign divides" },
		{ BYTES("a=100%"), "a", "100%", true, "a bad percent is itself" },
		{ BYTES("a=%4"), "a", "%4", true, "one digit is itself" },
		{ BYTES("a=%zz"), "a", "%zz", true, "no digit is itself" },
		{ BYTES("a=%ff\xff"), "a", "\xff\xff", true, "8-bit bytes" },
		{ BYTES("&&a=1&"), "a", "1", true, "empty pairs" },
		{ BYTES(""), "a", "*", false, "no query" },
		{ BYTES("a=1"), "A", "1", false, "names have case" },
		{ BYTES("a=1"), "a", "12", false, "a shorter value" },
		{ BYTES("a=12"), "a", "1", false, "a longer value" },
		{ BYTES("aa=1"), "a", "1", false, "a longer name" },
		{ BYTES("b=a=1"), "a", "1", false, "a name within a value" },
		{ BYTES("a=1%00"), "a", "1", false, "a NUL" },
		{ BYTES("a;b=1"), "b", "1", false, "a semicolon divides nothing" },
	};

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		char *p = exact(rows[i].query);
		struct slice q = { p, rows[i].query.n };
		if (query_has(q, slice_of(rows[i].name), slice_of(rows[i].value)) != rows[i].want)
			fail_msg("%s: %s", rows[i].why, rows[i].want ? "not found" : "found");
		free(p);
	}
	assert_false(query_has((struct slice){ NULL, 0 }, S("a"), S("*")));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_normalise),
		cmocka_unit_test(test_normalise_cut),
		cmocka_unit_test(test_longest),
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_encode),
		cmocka_unit_test(test_query),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
