/* Routes: the scan finds what trying each in turn would find, shadowed ones are
 * never reached; and hosts. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

static struct arena arena;
static struct head head;

/* ---- hosts ---- */

static void
test_host_normal(void **state)
{
	/* clang-format off */
	static const struct {
		struct slice in;
		const char *want, *why;
	} rows[] = {
		{ T("a.example"), "a.example", "as it is" },
		{ T("A.ExAmPlE"), "a.example", "small letters" },
		{ T("a.example:80"), "a.example", "no port" },
		{ T("a.example."), "a.example", "no dot at the end" },
		{ T("a.example.:80"), "a.example", "no dot before the port" },
		{ T("a.."), "a.", "one dot is the root's" },
		{ T("a:"), "a", "empty port" },
		{ T("[::1]"), "[::1]", "IPv6" },
		{ T("[::A]:80"), "[::a]", "IPv6 with a port" },
		{ T("[::1"), "[::1", "not closed" },
		{ T("["), "[", "a bracket" },
		{ T("[]"), "[]", "brackets" },
		{ T(""), "", "nothing" },
		{ T("."), "", "a dot" },
		{ T(":80"), "", "port alone" },
		{ T("\xc3\x84"), "\xc3\x84", "ASCII only" },
	};
	/* clang-format on */
	char b[300];

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++)
		for (size_t n = 0; n <= rows[i].in.n; n++) {
			struct slice in = exact((struct slice){ rows[i].in.p, n });
			struct slice got = host_normal(in);

			if (n == rows[i].in.n)
				row_slice(rows[i].why, in, "host_normal", got, slice_of(rows[i].want));
			exact_free(in);
		}
	assert_int_equal(host_normal((struct slice){ NULL, 0 }).n, 0);
	memset(b, 'a', sizeof b);
	assert_int_equal(host_normal((struct slice){ b, HOST_MAX }).n, HOST_MAX);
	assert_int_equal(host_normal((struct slice){ b, HOST_MAX + 1 }).n, 0);
	rows_end();
}

/* ---- single conditions ---- */

static const struct ip nobody;

/* A table of these routes; request and path as of a client. */
static struct route_table
table_of(struct route *routes, int n)
{
	struct route_table t = { .routes = routes, .n = n };

	route_table_build(&arena, &t);
	return t;
}

static const struct route *
find(const struct route_table *t, const char *request, const struct ip *client)
{
	struct path_view view;

	assert_true(request_parse(&head, slice_of(request)) > 0);
	if (path_normalise(head.path, &view) < 0)
		return NULL;
	return route_find(t, &head, view.path, client, 8080);
}

#define R(...) (&(struct route){ __VA_ARGS__ })
#define PATH(k, text) .path_kind = PATH_##k, .path = { "" text, sizeof(text) - 1 }
#define HOSTED(k, text) .host_kind = HOST_##k, .host = { "" text, sizeof(text) - 1 }

static struct pair pair_x1[] = { { { "x", 1 }, { "1", 1 } } };
static struct pair pair_any[] = { { { "X", 1 }, { "*", 1 } } };
static struct pair pair_two[] = { { { "x", 1 }, { "1", 1 } }, { { "y", 1 }, { "2", 1 } } };
static struct slice purge[] = { { "PURGE", 5 } };

static void
test_conditions(void **state)
{
	/* clang-format off */
	const struct {
		const struct route *route;
		const char *request;
		const char *why; /* the condition that fails; NULL: taken */
	} rows[] = {
		{ R(.line = 1), "GET /x HTTP/1.0\r\n\r\n", NULL },
		{ R(PATH(PREFIX, "/")), "GET /x HTTP/1.0\r\n\r\n", NULL },
		{ R(PATH(PREFIX, "/a")), "GET /a HTTP/1.0\r\n\r\n", NULL },
		{ R(PATH(PREFIX, "/a")), "GET /abc HTTP/1.0\r\n\r\n", NULL },
		{ R(PATH(PREFIX, "/a/")), "GET /a HTTP/1.0\r\n\r\n", "path" },
		{ R(PATH(PREFIX, "/a")), "GET /b HTTP/1.0\r\n\r\n", "path" },
		{ R(PATH(PREFIX, "/a")), "GET /A HTTP/1.0\r\n\r\n", "path" },
		{ R(PATH(PREFIX, "/a")), "GET /x/../a HTTP/1.0\r\n\r\n", NULL },
		{ R(PATH(PREFIX, "/a")), "GET /%61 HTTP/1.0\r\n\r\n", NULL },
		{ R(PATH(PREFIX, "/a")), "GET /a/../b HTTP/1.0\r\n\r\n", "path" },
		{ R(PATH(PREFIX, "/abcdefgh")), "GET /abcdefgh/i HTTP/1.0\r\n\r\n", NULL },
		{ R(PATH(PREFIX, "/abcdefgh")), "GET /xbcdefgh/i HTTP/1.0\r\n\r\n", "path" },
		{ R(PATH(EXACT, "/a")), "GET /a HTTP/1.0\r\n\r\n", NULL },
		{ R(PATH(EXACT, "/a")), "GET /a?b HTTP/1.0\r\n\r\n", NULL },
		{ R(PATH(EXACT, "/a")), "GET /ab HTTP/1.0\r\n\r\n", "path" },
		{ R(PATH(EXACT, "/a")), "GET /a/ HTTP/1.0\r\n\r\n", "path" },
		{ R(PATH(EXACT, "/a")), "GET / HTTP/1.0\r\n\r\n", "path" },
		{ R(HOSTED(EXACT, "a.b")), "GET / HTTP/1.0\r\nHost: A.b:80\r\n\r\n", NULL },
		{ R(HOSTED(EXACT, "a.b")), "GET http://a.b./ HTTP/1.1\r\nHost: c\r\n\r\n", NULL },
		{ R(HOSTED(EXACT, "a.b")), "GET / HTTP/1.0\r\nHost: x.a.b\r\n\r\n", "host" },
		{ R(HOSTED(EXACT, "a.b")), "GET / HTTP/1.0\r\n\r\n", "host" },
		{ R(HOSTED(WILD, ".a.b")), "GET / HTTP/1.0\r\nHost: x.a.b\r\n\r\n", NULL },
		{ R(HOSTED(WILD, ".a.b")), "GET / HTTP/1.0\r\nHost: x.y.A.B:1\r\n\r\n", NULL },
		{ R(HOSTED(WILD, ".a.b")), "GET / HTTP/1.0\r\nHost: a.b\r\n\r\n", "host" },
		{ R(HOSTED(WILD, ".a.b")), "GET / HTTP/1.0\r\nHost: .a.b\r\n\r\n", "host" },
		{ R(HOSTED(WILD, ".a.b")), "GET / HTTP/1.0\r\nHost: xa.b\r\n\r\n", "host" },
		{ R(HOSTED(STEM, "www.")), "GET / HTTP/1.0\r\nHost: www.A.b:80\r\n\r\n", NULL },
		{ R(HOSTED(STEM, "www.")), "GET / HTTP/1.0\r\nHost: www.a\r\n\r\n", NULL },
		{ R(HOSTED(STEM, "www.")), "GET / HTTP/1.0\r\nHost: www\r\n\r\n", "host" },
		{ R(HOSTED(STEM, "www.")), "GET / HTTP/1.0\r\nHost: wwwa.b\r\n\r\n", "host" },
		{ R(HOSTED(STEM, "www.")), "GET / HTTP/1.0\r\nHost: a.www.b\r\n\r\n", "host" },
		{ R(HOSTED(STEM, "www.")), "GET / HTTP/1.0\r\n\r\n", "host" },
		{ R(.port = 8080), "GET / HTTP/1.0\r\n\r\n", NULL },
		{ R(.port = 80), "GET / HTTP/1.0\r\nHost: a:80\r\n\r\n", "port" },
		{ R(.methods = 1u << M_GET), "GET / HTTP/1.0\r\n\r\n", NULL },
		{ R(.methods = 1u << M_GET), "POST / HTTP/1.0\r\n\r\n", "method" },
		{ R(.methods = 1u << M_GET), "get / HTTP/1.0\r\n\r\n", "method" },
		{ R(.methods_other = { purge, 1 }), "PURGE / HTTP/1.0\r\n\r\n", NULL },
		{ R(.methods_other = { purge, 1 }), "purge / HTTP/1.0\r\n\r\n", "method" },
		{ R(.methods_other = { purge, 1 }), "GET / HTTP/1.0\r\n\r\n", "method" },
		{ R(.headers = { pair_x1, 1 }), "GET / HTTP/1.0\r\nX: 1\r\n\r\n", NULL },
		{ R(.headers = { pair_x1, 1 }), "GET / HTTP/1.0\r\nX: 2\r\nx: 1\r\n\r\n", NULL },
		{ R(.headers = { pair_x1, 1 }), "GET / HTTP/1.0\r\nX: 11\r\n\r\n", "header" },
		{ R(.headers = { pair_any, 1 }), "GET / HTTP/1.0\r\nx:\r\n\r\n", NULL },
		{ R(.headers = { pair_any, 1 }), "GET / HTTP/1.0\r\nxx: 1\r\n\r\n", "header" },
		{ R(.headers = { pair_two, 2 }), "GET / HTTP/1.0\r\nY: 2\r\nX: 1\r\n\r\n", NULL },
		{ R(.headers = { pair_two, 2 }), "GET / HTTP/1.0\r\nX: 1\r\n\r\n", "header" },
		{ R(.queries = { pair_x1, 1 }), "GET /?x=1 HTTP/1.0\r\n\r\n", NULL },
		{ R(.queries = { pair_x1, 1 }), "GET /?X=1 HTTP/1.0\r\n\r\n", "query" },
		{ R(.queries = { pair_x1, 1 }), "GET / HTTP/1.0\r\n\r\n", "query" },
		{ R(.queries = { pair_two, 2 }), "GET /?y=2&x=1 HTTP/1.0\r\n\r\n", NULL },
		{ R(.queries = { pair_two, 2 }), "GET /?y=2 HTTP/1.0\r\n\r\n", "query" },
	};
	/* clang-format on */

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		struct slice in = slice_of(rows[i].request);
		struct route r = *rows[i].route;
		struct route_table t = table_of(&r, 1);
		const struct route *got = find(&t, rows[i].request, &nobody);
		struct path_view view;
		const char *why;

		row_int("row", in, "taken", got == &r, rows[i].why == NULL);
		if (path_normalise(head.path, &view) < 0)
			continue;
		why = route_why(&r, &head, host_normal(head.host), view.path, &nobody, 8080);
		row_slice("row", in, "why", slice_of(why ? why : "taken"),
		    slice_of(rows[i].why ? rows[i].why : "taken"));
	}
	rows_end();
}

static void
test_client(void **state)
{
	struct cidr v[2];
	struct route r = { .clients = { v, 2 } };
	struct route_table t = table_of(&r, 1);
	struct ip ip;

	(void)state;
	assert_true(cidr_parse(S("10.0.0.0/8"), &v[0]) && cidr_parse(S("::1"), &v[1]));
	assert_true(ip_parse(S("10.2.3.4"), &ip));
	assert_ptr_equal(find(&t, "GET / HTTP/1.0\r\n\r\n", &ip), &r);
	assert_true(ip_parse(S("::1"), &ip));
	assert_ptr_equal(find(&t, "GET / HTTP/1.0\r\n\r\n", &ip), &r);
	assert_true(ip_parse(S("11.2.3.4"), &ip));
	assert_null(find(&t, "GET / HTTP/1.0\r\n\r\n", &ip));
	assert_null(find(&t, "GET / HTTP/1.0\r\n\r\n", &nobody));
}

/* ---- tables ---- */

static void
test_order(void **state)
{
	struct route r[] = {
		{ PATH(EXACT, "/a/b") },
		{ PATH(PREFIX, "/a"), HOSTED(EXACT, "h") },
		{ PATH(PREFIX, "/a"), HOSTED(WILD, ".h") },
		{ PATH(REGEX, "^/[0-9]+$") },
		{ PATH(PREFIX, "/a/") },
		{ PATH(PREFIX, "/") },
		{ PATH(EXACT, "/never") },
	};
	const struct { const char *request; int want; } rows[] = {
		{ "GET /a/b HTTP/1.0\r\nHost: h\r\n\r\n", 0 },
		{ "GET /a/bc HTTP/1.0\r\nHost: h\r\n\r\n", 1 },
		{ "GET /ac HTTP/1.0\r\nHost: h\r\n\r\n", 1 },
		{ "GET /a/c HTTP/1.0\r\nHost: x.h\r\n\r\n", 2 },
		{ "GET /a/c HTTP/1.0\r\nHost: i\r\n\r\n", 4 },
		{ "GET /a HTTP/1.0\r\nHost: i\r\n\r\n", 5 },
		{ "GET /12 HTTP/1.0\r\n\r\n", 3 },
		{ "GET /12a HTTP/1.0\r\n\r\n", 5 },
		{ "GET /never HTTP/1.0\r\n\r\n", 5 },
	};
	struct route_table t;
	size_t at;

	(void)state;
	assert_null(regex_read(&arena, &r[3].regex, r[3].path, &at));
	t = table_of(r, LEN(r));
	for (size_t i = 0; i < LEN(rows); i++) {
		const struct route *got = find(&t, rows[i].request, &nobody);
		row_int("order", slice_of(rows[i].request), "route", got ? got - r : -1, rows[i].want);
	}
	arena_free(&arena);
	rows_end();
}

static void
test_empty_table(void **state)
{
	struct route_table t = table_of(NULL, 0);

	(void)state;
	assert_null(find(&t, "GET / HTTP/1.0\r\nHost: a\r\n\r\n", &nobody));
}

/* What the words of the manual say, one route after the other. */
static bool
takes(const struct route *r, struct slice host, struct slice path, enum method method)
{
	struct slice tail = host;

	if (r->path_kind == PATH_PREFIX && (path.n < r->path.n || memcmp(path.p, r->path.p, r->path.n)))
		return false;
	if (r->path_kind == PATH_EXACT && (path.n != r->path.n || memcmp(path.p, r->path.p, path.n)))
		return false;
	if (r->path_kind == PATH_REGEX && !regex_matches(&r->regex, path))
		return false;
	if (r->host_kind == HOST_EXACT && (host.n != r->host.n || memcmp(host.p, r->host.p, host.n)))
		return false;
	if (r->host_kind == HOST_REGEX && !regex_matches(&r->host_regex, host))
		return false;
	if (r->host_kind == HOST_STEM && (host.n <= r->host.n || memcmp(host.p, r->host.p, r->host.n)))
		return false;
	if (r->host_kind == HOST_WILD) {
		if (host.n <= r->host.n)
			return false;
		tail = slice_from(host, host.n - r->host.n);
		if (memcmp(tail.p, r->host.p, tail.n) != 0)
			return false;
	}
	return r->methods == 0 || (r->methods >> method & 1);
}

static struct slice
random_path(void)
{
	char b[16] = "/";
	size_t n = 1;

	for (uint32_t k = dice(7); k > 0; k--)
		b[n++] = "aab/"[dice(4)];
	for (size_t i = 1; i < n; i++)
		if (b[i] == '/' && b[i - 1] == '/')
			b[i] = 'a';
	return arena_dup(&arena, (struct slice){ b, n });
}

static const char *const random_hosts[] = { "a", "b", "a.a", "b.a", "a.b.a", "a.b", "x.a.b" };

static void
random_route(struct route *r)
{
	static const char *const wild[] = { ".a", ".b", ".b.a" };
	static const char *const stems[] = { "a.", "b.", "a.b." };
	static const char *const hosts[] = { "a$", "^a", "b" };
	static const char *const regexes[] = { "^/a", "b$", "a/b" };
	size_t at;

	*r = (struct route){ .host_kind = (enum host_kind)dice(5), .path_kind = (enum path_kind)dice(4) };
	if (dice(3) > 0 && r->path_kind == PATH_REGEX)
		r->path_kind = PATH_EXACT;
	if (r->host_kind == HOST_EXACT)
		r->host = slice_of(random_hosts[dice(LEN(random_hosts))]);
	if (r->host_kind == HOST_WILD)
		r->host = slice_of(wild[dice(LEN(wild))]);
	if (r->host_kind == HOST_STEM)
		r->host = slice_of(stems[dice(LEN(stems))]);
	if (r->host_kind == HOST_REGEX) {
		r->host = slice_of(hosts[dice(LEN(hosts))]);
		assert_null(regex_read(&arena, &r->host_regex, r->host, &at));
	}
	if (r->path_kind == PATH_REGEX) {
		r->path = slice_of(regexes[dice(LEN(regexes))]);
		assert_null(regex_read(&arena, &r->regex, r->path, &at));
	} else if (r->path_kind != PATH_ANY)
		r->path = random_path();
	if (dice(4) == 0)
		r->methods = 1u << M_GET | (dice(2) ? 1u << M_POST : 0);
}

/* Random tables, random requests: the same route as without keys and runs; and
 * a route that counts as shadowed takes nothing its shadow does not take. */
static void
test_random_tables(void **state)
{
	struct route r[24];
	unsigned hits = 0, shadows = 0;

	(void)state;
	for (int round = 0; round < 400 && rows_bad < 5; round++) {
		int n = 1 + (int)dice(LEN(r));
		struct route_table t;

		for (int i = 0; i < n; i++)
			random_route(&r[i]);
		t = table_of(r, n);
		for (int q = 0; q < 100; q++) {
			struct slice host = slice_of(random_hosts[dice(LEN(random_hosts))]);
			struct slice path = random_path();
			char request[128];
			const struct route *got, *want = NULL;
			enum method method = dice(2) ? M_GET : M_POST;

			snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: %s\r\n\r\n",
			    method_names[method].p, path.p, host.p);
			for (int i = n - 1; i >= 0; i--)
				if (takes(&r[i], host, path, method))
					want = &r[i];
			got = find(&t, request, &nobody);
			hits += got != NULL;
			if (got != want)
				row_bad("random", slice_of(request), "route %d, expected %d",
				    got ? (int)(got - r) : -1, want ? (int)(want - r) : -1);
			for (int i = 0; i < n; i++)
				for (int k = 0; k < i; k++)
					if (takes(&r[i], host, path, method) && !takes(&r[k], host, path, method) &&
					    route_shadowed(&r[i], &r[k]))
						row_bad("random", slice_of(request),
						    "taken by '%s', but not by '%s', which shadows it",
						    r[i].path.p, r[k].path.p);
		}
		for (int i = 0; i < n; i++)
			for (int k = 0; k < i; k++)
				shadows += route_shadowed(&r[i], &r[k]);
		arena_free(&arena);
	}
	assert_true(hits > 1000 && shadows > 100);
	rows_end();
}

static void
test_shadowed(void **state)
{
	/* clang-format off */
	const struct {
		const struct route *later, *earlier;
		bool want;
		const char *why;
	} rows[] = {
		{ R(.line = 1), R(.line = 2), true, "both take all" },
		{ R(PATH(PREFIX, "/a")), R(.line = 1), true, "all before a prefix" },
		{ R(PATH(PREFIX, "/a")), R(PATH(PREFIX, "/")), true, "root before a prefix" },
		{ R(PATH(REGEX, "a")), R(PATH(PREFIX, "/")), true, "root before an expression" },
		{ R(.line = 1), R(PATH(PREFIX, "/")), true, "root before all" },
		{ R(PATH(PREFIX, "/ab")), R(PATH(PREFIX, "/a")), true, "shorter prefix first" },
		{ R(PATH(PREFIX, "/a")), R(PATH(PREFIX, "/ab")), false, "longer prefix first" },
		{ R(PATH(EXACT, "/ab")), R(PATH(PREFIX, "/a")), true, "prefix before exact" },
		{ R(PATH(PREFIX, "/a")), R(PATH(EXACT, "/a")), false, "exact before prefix" },
		{ R(PATH(EXACT, "/a")), R(PATH(EXACT, "/a")), true, "twice" },
		{ R(PATH(REGEX, "a")), R(PATH(REGEX, "a")), true, "the same expression" },
		{ R(PATH(REGEX, "a")), R(PATH(REGEX, "b")), false, "another expression" },
		{ R(PATH(PREFIX, "/a")), R(PATH(REGEX, "^/")), false, "expressions are not understood" },
		{ R(.line = 1), R(HOSTED(EXACT, "a")), false, "host first" },
		{ R(HOSTED(EXACT, "a")), R(.line = 1), true, "host behind all" },
		{ R(HOSTED(EXACT, "a")), R(HOSTED(EXACT, "a")), true, "same host" },
		{ R(HOSTED(EXACT, "b")), R(HOSTED(EXACT, "a")), false, "another host" },
		{ R(HOSTED(EXACT, "b.a")), R(HOSTED(WILD, ".a")), true, "host below a wildcard" },
		{ R(HOSTED(EXACT, "a")), R(HOSTED(WILD, ".a")), false, "the wildcard's own name" },
		{ R(HOSTED(WILD, ".a")), R(HOSTED(EXACT, "b.a")), false, "wildcard behind a host" },
		{ R(HOSTED(WILD, ".b.a")), R(HOSTED(WILD, ".a")), true, "wildcard below a wildcard" },
		{ R(HOSTED(WILD, ".a")), R(HOSTED(WILD, ".b.a")), false, "wildcard above a wildcard" },
		{ R(HOSTED(WILD, ".a")), R(HOSTED(WILD, ".a")), true, "the same wildcard" },
		{ R(HOSTED(EXACT, "a.b")), R(HOSTED(STEM, "a.")), true, "host below a stem" },
		{ R(HOSTED(EXACT, "a.")), R(HOSTED(STEM, "a.")), false, "the stem's own name" },
		{ R(HOSTED(STEM, "a.b.")), R(HOSTED(STEM, "a.")), true, "stem below a stem" },
		{ R(HOSTED(STEM, "a.")), R(HOSTED(STEM, "a.b.")), false, "stem above a stem" },
		{ R(HOSTED(STEM, ".a")), R(HOSTED(WILD, ".a")), false, "stem behind a wildcard" },
		{ R(HOSTED(WILD, "a.")), R(HOSTED(STEM, "a.")), false, "wildcard behind a stem" },
		{ R(HOSTED(REGEX, "a.")), R(HOSTED(STEM, "a.")), false, "expression behind a stem" },
		{ R(HOSTED(REGEX, "a")), R(HOSTED(REGEX, "a")), true, "the same expression" },
		{ R(.methods = 2), R(.methods = 6), true, "fewer methods" },
		{ R(.methods = 6), R(.methods = 2), false, "more methods" },
		{ R(.line = 1), R(.methods = 2), false, "any method" },
		{ R(.methods = 2), R(.line = 1), true, "behind any method" },
		{ R(.methods_other = { purge, 1 }), R(.methods = 2), false, "a method of its own" },
		{ R(.methods_other = { purge, 1 }), R(.line = 1), true, "behind any" },
		{ R(.line = 1), R(.headers = { pair_x1, 1 }), false, "header line first" },
		{ R(.headers = { pair_x1, 1 }), R(.line = 1), true, "header line behind all" },
		{ R(.line = 1), R(.queries = { pair_x1, 1 }), false, "query first" },
		{ R(.line = 1), R(.clients = { NULL, 1 }), false, "client first" },
		{ R(.line = 1), R(.port = 80), false, "port first" },
		{ R(.port = 80), R(.line = 1), true, "port behind all" },
		{ R(.port = 80), R(.port = 80), true, "same port" },
		{ R(.port = 80), R(.port = 81), false, "another port" },
	};
	/* clang-format on */

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++)
		row_int(rows[i].why, S(""), "route_shadowed",
		    route_shadowed(rows[i].later, rows[i].earlier), rows[i].want);
	rows_end();
}

static int
teardown(void **state)
{
	(void)state;
	arena_free(&arena);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_host_normal),
		cmocka_unit_test(test_conditions),
		cmocka_unit_test(test_client),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_empty_table),
		cmocka_unit_test(test_random_tables),
		cmocka_unit_test(test_shadowed),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
