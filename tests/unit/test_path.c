/* The normalised view of a path, its way back into a request line, and
 * conditions on a query. RFC 3986 6.2.2. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

/* clang-format off */
static const struct {
	struct slice raw;
	const char *normal; /* NULL: refused */
	const char *why;
} paths[] = {
	{ T("/"), "/", "root" },
	{ T("/a"), "/a", "plain" },
	{ T("/a/"), "/a/", "the last slash stays" },
	{ T("//"), "/", "slashes alone" },
	{ T("//a"), "/a", "two slashes in front" },
	{ T("/a//b///c"), "/a/b/c", "slashes are merged" },
	{ T("/a//"), "/a/", "and at the end" },
	{ T("/a/./b"), "/a/b", "dot segment" },
	{ T("/."), "/", "dot at the root" },
	{ T("/a/."), "/a/", "dot at the end" },
	{ T("/a/b/../c"), "/a/c", "up" },
	{ T("/a/.."), "/", "up to the root" },
	{ T("/a/../"), "/", "up to the root, with slash" },
	{ T("/a/b/.."), "/a/", "up at the end" },
	{ T("/a/b/../.."), "/", "up twice" },
	{ T("/a/b/../../c"), "/c", "up twice, down once" },
	{ T("/a//../b"), "/b", "up over merged slashes" },
	{ T("/a/./../b"), "/b", "up over a dot" },
	{ T("/.."), NULL, "above the root" },
	{ T("/../a"), NULL, "above the root, then down" },
	{ T("/a/../.."), NULL, "above the root, later" },
	{ T("/a/../../b"), NULL, "above the root, and down" },
	{ T("/./.."), NULL, "above the root, behind a dot" },
	{ T("//.."), NULL, "above the root, behind slashes" },
	{ T("/..."), "/...", "three dots are a name" },
	{ T("/.a/..b/c."), "/.a/..b/c.", "dots in names" },
	{ T("/%41%5a%7E"), "/AZ~", "unreserved bytes" },
	{ T("/%20%3F%23"), "/ ?#", "reserved bytes" },
	{ T("/%c3%a4"), "/\xc3\xa4", "UTF-8" },
	{ T("/\xc3\xa4"), "/\xc3\xa4", "UTF-8 as it is" },
	{ T("/%01"), "/\x01", "control byte" },
	{ T("/a%2fb"), "/a%2Fb", "an encoded slash stays, in capitals" },
	{ T("/a%2Fb"), "/a%2Fb", "and in capitals" },
	{ T("/a%25b"), "/a%25b", "an encoded percent sign stays" },
	{ T("/a%252fb"), "/a%252fb", "encoded twice is decoded never" },
	{ T("/%252e%252e/a"), "/%252e%252e/a", "dots encoded twice" },
	{ T("/%2e"), "/", "encoded dot" },
	{ T("/a/%2e%2E/b"), "/b", "encoded dots" },
	{ T("/a/.%2e/b"), "/b", "half encoded dots" },
	{ T("/%2e%2e"), NULL, "encoded, above the root" },
	{ T("/a/..%2fb"), NULL, "dots before an encoded slash" },
	{ T("/a/..%2Fb"), NULL, "in capitals" },
	{ T("/a/%2e%2e%2fb"), NULL, "all encoded" },
	{ T("/a%2f.."), NULL, "dots behind an encoded slash" },
	{ T("/a%2f..%2fb"), NULL, "dots between encoded slashes" },
	{ T("/a%2f.%2fb"), NULL, "one dot between encoded slashes" },
	{ T("/..%5ca"), NULL, "dots before an encoded backslash" },
	{ T("/..\\a"), NULL, "dots before a backslash" },
	{ T("/a\\..\\b"), NULL, "dots between backslashes" },
	{ T("/a\\.."), NULL, "dots behind a backslash" },
	{ T("/a\\b"), "/a\\b", "a backslash alone" },
	{ T("/a%2f...%2fb"), "/a%2F...%2Fb", "three dots between encoded slashes" },
	{ T("/%2f"), "/%2F", "an encoded slash alone" },
	{ T("/%"), NULL, "percent sign at the end" },
	{ T("/%4"), NULL, "one digit" },
	{ T("/%4/"), NULL, "one digit, slash" },
	{ T("/%zz"), NULL, "no digits" },
	{ T("/%u0041"), NULL, "IIS's escape" },
	{ T("/%%41"), NULL, "percent sign before an escape" },
	{ T("/%00"), NULL, "encoded NUL" },
	{ T("/a%00/b"), NULL, "encoded NUL within" },
	{ T("/a\0b"), NULL, "a bare NUL" },
	{ T("/a/%2"), NULL, "escape cut by the end" },
	{ T("/a;b=c/d,e"), "/a;b=c/d,e", "parameters are part of the name" },
	{ T(""), NULL, "nothing" },
	{ T("a"), NULL, "no slash in front" },
	{ T("*"), NULL, "asterisk" },
	{ T("/a/b.c/~d-_"), "/a/b.c/~d-_", "many plain bytes" },
	{ T("/%25%32%35"), "/%2525", "%25 stays, what is behind it too" },
	{ T("/..%252fa"), "/..%252fa", "an encoded slash encoded again hides nothing" },
	{ T("/b/..;/a"), NULL, "dots with a parameter: to some servers dots, to others a name" },
	{ T("/b/..%3b/a"), NULL, "with an encoded one" },
	{ T("/b/..%3B"), NULL, "in capitals, at the end" },
	{ T("/b/%2e.;x=y/a"), NULL, "half encoded dots and a value" },
	{ T("/b/.;/a"), NULL, "one dot with a parameter" },
	{ T("/b%2f..;%2fa"), NULL, "between encoded slashes" },
	{ T("/b\\..;\\a"), NULL, "between backslashes" },
	{ T("/b;/..;c"), NULL, "at the end, behind another parameter" },
	{ T("/b/...;/a"), "/b/...;/a", "three dots with a parameter are a name" },
	{ T("/b/;/a"), NULL, "a parameter alone: to some servers nothing stands there" },
	{ T("/b/%3bc=d/a"), NULL, "and one with a value" },
	{ T("/;s=1"), "/;s=1", "behind the last slash it changes nothing" },
	{ T("/b/..a;/a"), "/b/..a;/a", "so is what begins with dots" },
	{ T("/b/a;../a"), "/b/a;../a", "dots in a parameter are its own" },
	{ T("/\xe9%E9%ff%7f"), "/\xe9\xe9\xff\x7f", "bytes that are no UTF-8, and DEL" },
	{ T("/a%2f"), "/a%2F", "an encoded slash at the end" },
	{ T("/a%2f%2fb"), "/a%2F%2Fb", "encoded slashes are not merged" },
	{ T("/a%2f..b"), "/a%2F..b", "a name that begins with dots" },
	{ T("/.%2f"), NULL, "a dot before an encoded slash" },
	{ T("/a%2f../b"), NULL, "dots behind an encoded slash, and a segment" },
	{ T("/a%5c.."), NULL, "dots behind an encoded backslash" },
	{ T("%2fa"), NULL, "an encoded slash in front" },
	{ T("/a\x00" "b"), NULL, "a NUL" },
};

static const struct {
	struct slice normal;
	const char *encoded;
} encodings[] = {
	{ T("/"), "/" },
	{ T("/a-z._~!$&'()*+,;=:@"), "/a-z._~!$&'()*+,;=:@" },
	{ T("/a b"), "/a%20b" },
	{ T("/?#[]"), "/%3F%23%5B%5D" },
	{ T("/\xc3\xa4"), "/%C3%A4" },
	{ T("/a%2Fb%25"), "/a%2Fb%25" },
	{ T("/\x01\x7f\""), "/%01%7F%22" },
	{ T("/\r\nX: y"), "/%0D%0AX:%20y" },
	{ T("/a\x00" "b"), "/a%00b" },
	{ T("/<>\\^`{|}"), "/%3C%3E%5C%5E%60%7B%7C%7D" },
	{ T("/100%"), "/100%25" },
	{ T("/%4/%zz"), "/%254/%25zz" },
	{ T("/%20%c3"), "/%20%c3" },
};

static const struct {
	struct slice query;
	const char *name, *value;
	bool want;
	const char *why;
} queries[] = {
	{ T("a=b"), "a", "b", true, "one" },
	{ T("a=b&c=d"), "c", "d", true, "the second" },
	{ T("a=b&a=c"), "a", "c", true, "the same name twice" },
	{ T("a=b"), "a", "*", true, "any value" },
	{ T("a="), "a", "*", true, "any, empty" },
	{ T("a"), "a", "*", true, "any, none" },
	{ T("a"), "a", "", true, "no value is an empty one" },
	{ T("a="), "a", "", true, "empty value" },
	{ T("a=b"), "a", "", false, "value, expected none" },
	{ T("a=b"), "b", "*", false, "another name" },
	{ T("ab=c"), "a", "*", false, "longer name" },
	{ T("a=b"), "ab", "*", false, "shorter name" },
	{ T("a=bc"), "a", "b", false, "longer value" },
	{ T("a=b"), "a", "bc", false, "shorter value" },
	{ T("A=b"), "a", "b", false, "case-sensitive" },
	{ T("a=B"), "a", "b", false, "case-sensitive value" },
	{ T("a=b=c"), "a", "b=c", true, "an equals sign in the value" },
	{ T("a=b+c"), "a", "b c", true, "plus is a space" },
	{ T("a=b%20c"), "a", "b c", true, "escape" },
	{ T("%61=%62"), "a", "b", true, "escapes in both" },
	{ T("a=%26b"), "a", "&b", true, "escaped ampersand" },
	{ T("a%3Db"), "a", "*", false, "escaped equals sign is part of the name" },
	{ T("a%3Db"), "a=b", "*", true, "which then is that" },
	{ T("a=%"), "a", "%", true, "no escape" },
	{ T("a=%4"), "a", "%4", true, "no escape either" },
	{ T("a=%zz"), "a", "%zz", true, "nor this" },
	{ T("a=%2B"), "a", "+", true, "escaped plus" },
	{ T("a=%ff"), "a", "\xff", true, "high byte" },
	{ T("a=\xff"), "a", "\xff", true, "high byte as it is" },
	{ T("a=%00"), "a", "", false, "NUL is a byte" },
	{ T("&&a=b&&"), "a", "b", true, "empty pairs" },
	{ T(""), "a", "*", false, "nothing" },
	{ T("?a=b"), "a", "b", false, "a question mark is part of the name" },
	{ T("a;b=c"), "b", "c", false, "a semicolon separates nothing" },
	{ T("a=*"), "a", "*", true, "an asterisk" },
	{ T("b=2&a=1&c"), "a", "1", true, "among others" },
	{ T("a=x%3Dy%26z"), "a", "x=y&z", true, "escaped separators" },
	{ T("a=1%00"), "a", "1", false, "a NUL behind the value" },
	{ T("%61%2b=%31+2"), "a+", "1 2", true, "both, decoded" },
};
/* clang-format on */

/* What is promised of every view: it starts at the root, has no dot segments
 * and no double slash, the pad before it and a NUL behind. */
static void
view_check(struct slice raw, struct slice path, const char *why)
{
	static const char pad[PATH_PAD];
	struct slice rest = slice_from(path, 1), seg;

	if (path.p[0] != '/' || path.p[path.n] != '\0' || memchr(path.p, '\0', path.n) ||
	    memcmp(path.p - PATH_PAD, pad, PATH_PAD) != 0)
		row_bad(why, raw, "'%s' is no view", shown(path));
	while (slice_cut(&rest, '/', &seg))
		if ((seg.n == 0 && rest.p) || slice_eq(seg, S(".")) || slice_eq(seg, S("..")))
			row_bad(why, raw, "'%s' has a segment '%s'", shown(path), shown(seg));
}

/* The view, sent on, has that view again. */
static void
idempotent(struct slice path, const char *why)
{
	static char kept[TARGET_MAX], sent[3 * TARGET_MAX];
	struct text t = { sent, 0, sizeof sent, false };
	struct path_view v;

	memcpy(kept, path.p, path.n);
	path.p = kept;
	path_encode(&t, path);
	if (t.n > TARGET_MAX)
		return;
	if (path_normalise(text_slice(&t), &v) < 0)
		row_bad(why, text_slice(&t), "is refused the second time");
	else
		row_slice(why, text_slice(&t), "second view", v.path, path);
}

/* The answer for raw, in memory that ends with it, when it keeps its promises. */
static int
normalise(struct slice raw, struct path_view *v, const char *why)
{
	struct slice in = exact(raw);
	int got = path_normalise(in, v);

	exact_free(in);
	if (got == 0)
		view_check(raw, v->path, why);
	else
		row_int(why, raw, "result", got, -400);
	return got;
}

static void
test_normalise(void **state)
{
	struct path_view v;

	(void)state;
	for (size_t i = 0; i < LEN(paths); i++) {
		const char *why = paths[i].why;
		int got = normalise(paths[i].raw, &v, why);

		row_int(why, paths[i].raw, "result", got, paths[i].normal ? 0 : -400);
		if (got == 0 && paths[i].normal) {
			row_slice(why, paths[i].raw, "view", v.path, slice_of(paths[i].normal));
			idempotent(v.path, why);
		}
		for (size_t n = 0; n < paths[i].raw.n; n++)
			if (normalise((struct slice){ paths[i].raw.p, n }, &v, why) == 0)
				idempotent(v.path, why);
	}
	rows_end();
}

static void
test_normalise_random(void **state)
{
	static const char *const parts[] = { "/", "/", "/", ".", ".", "..", "%2e", "%2F", "%2f",
		"%25", "%5c", "\\", "a", "%61", "%", "%0", ";", "\xc3" };
	struct path_view v;
	char b[64];

	(void)state;
	for (int i = 0; i < 200000 && rows_bad < 5; i++) {
		struct text t = { b, 0, sizeof b, false };

		text_char(&t, '/');
		for (uint32_t n = dice(9); n > 0; n--)
			text_str(&t, parts[dice(LEN(parts))]);
		if (normalise(text_slice(&t), &v, "random path") == 0)
			idempotent(v.path, "random path");
	}
	rows_end();
}

/* The longest path fits, however it is spelled; a longer one is refused. */
static void
test_normalise_long(void **state)
{
	static const char *const spellings[] = { "a", "%2f", "/a", "%61", "\xff" };
	static char raw[TARGET_MAX + 1];
	struct path_view v;

	(void)state;
	for (size_t i = 0; i < LEN(spellings); i++) {
		size_t n = strlen(spellings[i]);

		memset(raw, 'a', sizeof raw);
		raw[0] = '/';
		for (size_t at = 1; at + n <= TARGET_MAX; at += n)
			memcpy(raw + at, spellings[i], n);
		assert_int_equal(normalise((struct slice){ raw, TARGET_MAX }, &v, "long"), 0);
		idempotent(v.path, "long");
		assert_int_equal(path_normalise((struct slice){ raw, TARGET_MAX + 1 }, &v), -400);
	}
	rows_end();
}

/* Where request_parse says that a path is plain, path_plain and path_normalise
 * are one. */
static void
test_plain(void **state)
{
	static struct head h;
	static char line[TARGET_MAX], full[TARGET_MAX];
	struct path_view v;

	(void)state;
	for (size_t i = 0; i < LEN(paths); i++) {
		struct text t = { line, 0, sizeof line, false };
		struct slice want;

		text_str(&t, "GET ");
		text_add(&t, paths[i].raw);
		text_str(&t, " HTTP/1.0\r\n\r\n");
		if (request_parse(&h, text_slice(&t)) <= 0 || !h.path_plain)
			continue;
		assert_int_equal(path_normalise(h.path, &v), 0);
		memcpy(full, v.path.p, v.path.n);
		want = (struct slice){ full, v.path.n };
		path_plain(h.path, &v);
		view_check(h.path, v.path, paths[i].why);
		row_slice(paths[i].why, h.path, "plain view", v.path, want);
	}
	rows_end();
}

static void
test_encode(void **state)
{
	char b[256];

	(void)state;
	for (size_t i = 0; i < LEN(encodings); i++) {
		struct slice in = exact(encodings[i].normal), want = slice_of(encodings[i].encoded);
		struct text t = { b, 0, sizeof b, false };

		path_encode(&t, in);
		row_slice("encoded", in, "path", text_slice(&t), want);
		t = (struct text){ b, 0, want.n - 1, false };
		path_encode(&t, in);
		row_int("encoded", in, "full with a byte less", t.full, true);
		exact_free(in);
	}
	rows_end();
}

static void
test_query(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(queries); i++) {
		struct slice in = exact(queries[i].query), value = slice_of(queries[i].value);

		row_int(queries[i].why, in, "query_has",
		    query_has(in, slice_of(queries[i].name), value), queries[i].want);
		exact_free(in);
		for (size_t n = 0; n < queries[i].query.n; n++) {
			in = exact((struct slice){ queries[i].query.p, n });
			query_has(in, slice_of(queries[i].name), value);
			exact_free(in);
		}
	}
	assert_false(query_has((struct slice){ NULL, 0 }, S("a"), S("*")));
	rows_end();
}

/* clang-format off */
static const struct {
	struct slice raw;
	const char *from, *to; /* what of the view: from there, up to there */
	const char *want;
	const char *why;
} pieces[] = {
	{ T("/a/b"), "/a/b", "", "/a/b", "all of it" },
	{ T("/a/b"), "/b", "", "/b", "the end" },
	{ T("/a/b"), "b", "", "b", "within" },
	{ T("/a/b"), "/a/b", "/b", "/a", "the start" },
	{ T("/a/b"), "/b", "/b", "", "nothing" },
	{ T("/a%3Bb"), ";b", "", "%3Bb", "escaped" },
	{ T("/a%3Bb"), "/a;b", "b", "/a%3B", "up to behind an escape" },
	{ T("/%61%62"), "b", "", "%62", "an escape behind an escape" },
	{ T("/%61b"), "b", "", "b", "a byte behind an escape" },
	{ T("/a%2fb"), "%2Fb", "", "%2fb", "a slash that stays escaped" },
	{ T("/a%2fb"), "b", "", "b", "what is behind it" },
	{ T("/a%25b"), "/a%25b", "b", "/a%25", "a percent sign that stays so" },
	{ T("/a//b"), "/b", "", "//b", "two slashes" },
	{ T("/a//b"), "b", "", "b", "behind two slashes" },
	{ T("//a"), "/a", "", "//a", "in front" },
	{ T("/app/https://x"), "/https:/x", "", "/https://x", "a URL as a path" },
	{ T("/a/b//"), "/b/", "", "/b/", "at the end" },
	{ T("/a/./b"), "/b", "", "/./b", "a dot" },
	{ T("/a/x/../b"), "/b", "", "/x/../b", "up again" },
	{ T("/x/../a/b"), "/a/b", "", "/x/../a/b", "up again before" },
	{ T("/x/../a/b"), "/b", "", "/b", "behind that" },
	{ T("/x/../a/b"), "a", "", "a/b", "within" },
	{ T("/a/../a/b"), "/b", "", "/b", "twice the same name" },
	{ T("/a/b/x/.."), "/b/", "", "/b/", "up at the end" },
	{ T("/a/b/%2e%2E/c"), "/c", "", "/b/%2e%2E/c", "escaped dots" },
	{ T("/\xc3\xa4/%c3%a4"), "/\xc3\xa4", "/\xc3\xa4/", "", "the first of two" },
};
/* clang-format on */

static void
test_raw(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(pieces); i++) {
		struct slice in = exact(pieces[i].raw);
		struct path_view v;
		const char *from, *to;

		assert_int_equal(path_normalise(in, &v), 0);
		from = strstr(v.path.p, pieces[i].from);
		to = *pieces[i].to ? strstr(v.path.p, pieces[i].to) : v.path.p + v.path.n;
		assert_true(from && to);
		row_slice(pieces[i].why, in, "piece", path_raw(&v, (size_t)(from - v.path.p),
		    (size_t)(to - v.path.p)), slice_of(pieces[i].want));
		exact_free(in);
	}
	rows_end();
}

/* Cut at a slash, the client's bytes mean what the view behind it says. */
static void
test_raw_random(void **state)
{
	static const char *const parts[] = { "/", "/", "a", "b", ".", "..", "/../", "/./", "%2e", "%2F", "%61", "%", "2",
		";", "\\", "//" };
	static char kept[TARGET_MAX];
	unsigned cuts = 0;

	(void)state;
	for (int round = 0; round < 50000; round++) {
		char b[80];
		struct text t = { b, 0, sizeof b, false };
		struct slice in, view, piece;
		struct path_view v;

		for (unsigned n = 1 + dice(12); n > 0; n--)
			text_str(&t, parts[dice(LEN(parts))]);
		in = exact(text_slice(&t));
		if (path_normalise(in, &v) == 0) {
			size_t k = dice((uint32_t)v.path.n);
			memcpy(kept, v.path.p, v.path.n);
			view = slice_from((struct slice){ kept, v.path.n }, k);
			piece = path_raw(&v, k, v.path.n);
			if (piece.p < in.p || piece.p + piece.n > in.p + in.n)
				row_bad("random", in, "a piece from outside");
			else if (view.p[0] == '/' && ++cuts && (path_normalise(piece, &v) < 0 || !slice_eq(v.path, view)))
				row_bad("random", in, "cut at %zu: '%s'", k, shown(piece));
		}
		exact_free(in);
	}
	assert_true(cuts > 1000);
	rows_end();
}

/* ---- rewriting ---- */

/* clang-format off */
static const struct {
	enum path_kind kind;
	const char *path, *rewrite; /* NULL: strip_prefix */
	struct slice raw;
	const char *want;
	const char *why;
} rewrites[] = {
	{ PATH_PREFIX, "/a", NULL, T("/a/b"), "/b", "stripped" },
	{ PATH_PREFIX, "/a", NULL, T("/a"), "", "all of it" },
	{ PATH_PREFIX, "/a", NULL, T("/%61//b%3B"), "//b%3B", "the client's bytes" },
	{ PATH_PREFIX, "/a", NULL, T("/x/../a/b/../c"), "/b/../c", "dots" },
	{ PATH_PREFIX, "/a/", NULL, T("/a/b"), "b", "a slash at its end" },
	{ PATH_PREFIX, "/a", "/n", T("/a/b"), "/n/b", "rewritten" },
	{ PATH_PREFIX, "/a", "/n", T("/a//b/"), "/n//b/", "slashes stay" },
	{ PATH_PREFIX, "/a/", "/n/", T("/a//b"), "/n//b", "so behind a slash" },
	{ PATH_EXACT, "/a", "/n", T("/%61"), "/n", "exact" },
	{ PATH_EXACT, "/a", "/n", T("/x/../a"), "/n", "exact, dots" },
	{ PATH_REGEX, "^/a/([^/]*)", "/n/$1", T("/a/b%3Bc/d"), "/n/b%3Bc/d", "a group" },
	{ PATH_REGEX, "b", "c", T("/a/b/d"), "/a/c/d", "in the middle" },
	{ PATH_REGEX, "^/a/(.*)$", "/n?$1", T("/a/x/../b"), "/n%3Fb", "a group behind dots" },
	{ PATH_ANY, "", "/n", T("/a/b"), "/n", "everything" },
	/* what the view has not climbs nowhere */
	{ PATH_PREFIX, "/a/", "/n", T("/a/x/../s"), "/ns", "dots behind the slash of what matched" },
	{ PATH_REGEX, "^/t/", "/tenant-", T("/t/x/../admin"), "/tenant-admin", "so with a regex" },
	{ PATH_REGEX, "^/t/", "/tenant-", T("/t/./admin"), "/tenant-admin", "and with one dot" },
	{ PATH_EXACT, "/a/", "/n/page", T("/a/x/.."), "/n/page", "so at the end" },
	{ PATH_ANY, "", "/n/page", T("/a/b/.."), "/n/page", "of everything" },
};
/* clang-format on */

static void
test_rewrite(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(rewrites); i++) {
		struct route r = { .path_kind = rewrites[i].kind, .path = slice_of(rewrites[i].path),
			.strip_prefix = !rewrites[i].rewrite, .has_rewrite = rewrites[i].rewrite != NULL,
			.rewrite.text = slice_of(rewrites[i].rewrite ? rewrites[i].rewrite : "") };
		struct exchange x = { .route = &r };
		struct slice in = exact(rewrites[i].raw);
		char b[256];
		struct text t = { b, 0, sizeof b, false };
		struct path_view v;
		struct arena a = { 0 };
		size_t at;

		if (r.path_kind == PATH_REGEX)
			assert_null(regex_read(&a, &r.regex, r.path, &at));
		template_read(&a, &r.rewrite, IN_TEXT, r.path_kind == PATH_REGEX ? r.regex.groups + 1 : 0);
		assert_int_equal(path_normalise(in, &v), 0);
		row_int(rewrites[i].why, in, "rewrite_apply", rewrite_apply(&t, &x, NULL, &v), true);
		row_slice(rewrites[i].why, in, "target", text_slice(&t), slice_of(rewrites[i].want));
		arena_free(&a);
		exact_free(in);
	}
	rows_end();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_normalise),
		cmocka_unit_test(test_normalise_random),
		cmocka_unit_test(test_normalise_long),
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_raw),
		cmocka_unit_test(test_raw_random),
		cmocka_unit_test(test_rewrite),
		cmocka_unit_test(test_encode),
		cmocka_unit_test(test_query),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
