/* What an upstream says of where things are, as its client has it. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

static struct instance instances[] = {
	{ .addr = { .host = "127.0.0.1", .port = 3000 } }, { .addr = { .host = "app.internal", .port = 80 } },
};
static struct instance nowhere[] = { { .addr = { .host = NULL } } };
static struct instance secure[] = { { .addr = { .host = "app.internal", .port = 443, .scheme = SCHEME_HTTPS } } };
static struct upstream ups[] = {
	{ .instances = instances, .n_instances = 2 },
	{ .instances = nowhere, .n_instances = 1, .host_header = HOST_TEXT, .host_text = T("real.example:81") },
	{ .instances = secure, .n_instances = 1 },
};

enum { STRIP, STRIP_S, REWRITE, NONE, UNIX, DEEP, FRONT, TLS, MOUNTS };
static const struct mount mounts[MOUNTS] = {
	[STRIP] = { T("/app"), T(""), T("site.example:8080"), false, &ups[0] },
	[STRIP_S] = { T("/app"), T(""), T("site.example"), true, &ups[0] },
	[REWRITE] = { T("/old"), T("/new"), T("site.example"), true, &ups[0] },
	[NONE] = { T(""), T(""), T("site.example"), true, &ups[0] },
	[UNIX] = { T("/app"), T(""), T("[::1]:8080"), false, &ups[1] },
	[DEEP] = { T("/app"), T("/app/v2"), T(""), false, &ups[0] },
	[FRONT] = { T(""), T("/new"), T("site.example"), false, &ups[0] },
	[TLS] = { T("/app"), T(""), T("site.example"), false, &ups[2] },
};

static bool (*const ways[])(struct text *, const struct mount *, struct slice) = { mount_url, mount_refresh, mount_cookie };
enum { URL, REFRESH, COOKIE };

static const struct {
	const char *why;
	int way, mount;
	const char *in, *want; /* NULL: it stays */
} rows[] = {
	{ "a path", URL, STRIP, "/login?a=/b#c", "/app/login?a=/b#c" },
	{ "the root", URL, STRIP, "/", "/app/" },
	{ "the root's query", URL, STRIP, "/?x", "/app/?x" },
	{ "prefixed already", URL, STRIP, "/app/x", NULL },
	{ "prefixed already, all of it", URL, STRIP, "/app", NULL },
	{ "prefixed already, and a query", URL, STRIP, "/app?x", NULL },
	{ "another name that begins so", URL, STRIP, "/apple", "/app/apple" },
	{ "relative", URL, STRIP, "login", NULL },
	{ "relative, up", URL, STRIP, "../login", NULL },
	{ "a query alone", URL, STRIP, "?x", NULL },
	{ "nothing", URL, STRIP, "", NULL },
	{ "below what was rewritten", URL, REWRITE, "/new/x", "/old/x" },
	{ "what was rewritten", URL, REWRITE, "/new", "/old" },
	{ "beside it", URL, REWRITE, "/newer/x", NULL },
	{ "above it", URL, REWRITE, "/", NULL },
	{ "the client's own view", URL, REWRITE, "/old/x", NULL },
	{ "no prefix on the client's side", URL, FRONT, "/new/x", "/x" },
	{ "no prefix, and no path", URL, FRONT, "/new", "/" },
	{ "no prefix, a query", URL, FRONT, "/new?x", "/?x" },
	{ "would be an authority", URL, FRONT, "/new//evil.example", NULL },
	{ "would be one to browsers", URL, FRONT, "/new/\\evil.example", NULL },
	{ "would be one without the tab", URL, FRONT, "/new/\t/evil.example", NULL },
	{ "one prefix is the other's begin", URL, DEEP, "/app/v2/x", "/app/x" },
	{ "that one alone", URL, DEEP, "/app/x", NULL },
	{ "the upstream's address", URL, STRIP, "http://127.0.0.1:3000/x", "http://site.example:8080/app/x" },
	{ "its name, the usual port", URL, STRIP_S, "http://app.internal/x", "https://site.example/app/x" },
	{ "its name, the port said", URL, STRIP_S, "http://APP.internal:80/x", "https://site.example/app/x" },
	{ "another port", URL, STRIP, "http://127.0.0.1:3001/x", NULL },
	{ "the usual port of another scheme", URL, STRIP, "https://app.internal/x", NULL },
	{ "no path", URL, STRIP, "http://127.0.0.1:3000", "http://site.example:8080/app" },
	{ "no path, a query", URL, STRIP, "http://127.0.0.1:3000?x", "http://site.example:8080/app?x" },
	{ "its address, prefixed already", URL, STRIP, "http://127.0.0.1:3000/app/x", "http://site.example:8080/app/x" },
	{ "its address, beside the mount", URL, REWRITE, "http://app.internal/x", "https://site.example/x" },
	{ "the client's host", URL, STRIP, "http://site.example:8080/x", "http://site.example:8080/app/x" },
	{ "the client's host, the upstream does not know of TLS", URL, STRIP_S, "http://site.example/x",
	    "https://site.example/app/x" },
	{ "the client's host, right", URL, STRIP_S, "https://site.example/app/x", "https://site.example/app/x" },
	{ "the upstream wants https", URL, FRONT, "https://site.example/new/x", "https://site.example/x" },
	{ "the upstream speaks https, the client not", URL, TLS, "https://app.internal/x", "http://site.example/app/x" },
	{ "the scheme in capitals", URL, STRIP, "HTTP://127.0.0.1:3000/x", "http://site.example:8080/app/x" },
	{ "no scheme", URL, STRIP, "//127.0.0.1:3000/x", "//site.example:8080/app/x" },
	{ "no scheme, another host", URL, STRIP, "//evil.example/x", NULL },
	{ "another host", URL, STRIP, "http://other.example/x", NULL },
	{ "another host that begins so", URL, STRIP_S, "http://app.internal.evil.example/x", NULL },
	{ "another host behind a user", URL, STRIP_S, "http://app.internal@evil.example/x", NULL },
	{ "another scheme", URL, STRIP, "ftp://127.0.0.1:3000/x", NULL },
	{ "nobody to be named", URL, DEEP, "http://127.0.0.1:3000/x", NULL },
	{ "nothing but the host", URL, NONE, "http://app.internal/x", "https://site.example/x" },
	{ "nothing but the host, a path", URL, NONE, "/x", "/x" },
	{ "the host that it is asked for", URL, UNIX, "http://real.example:81/x", "http://[::1]:8080/app/x" },
	{ "a socket's host", URL, UNIX, "http://localhost/x", "http://[::1]:8080/app/x" },
	{ "the client's address", URL, UNIX, "http://[::1]:8080/x", "http://[::1]:8080/app/x" },
	{ "half an address", URL, UNIX, "http://[::1/x", NULL },
	{ "refresh", REFRESH, STRIP, "5; url=/x", "5; url=/app/x" },
	{ "refresh, in quotes", REFRESH, STRIP, "0;URL='/x'", "0;URL='/app/x'" },
	{ "refresh, double ones, a blank", REFRESH, STRIP, "5, Url= \"/x\" ", "5, Url= \"/app/x\" " },
	{ "refresh, the same page", REFRESH, STRIP, "5", NULL },
	{ "refresh, another host", REFRESH, STRIP, "5; url=http://other.example/", NULL },
	{ "refresh, nowhere", REFRESH, STRIP, "5; url=", NULL },
	{ "cookie", COOKIE, STRIP, "a=b; Path=/x; HttpOnly", "a=b; Path=/app/x; HttpOnly" },
	{ "cookie, for all", COOKIE, STRIP, "a=b; Path=/", "a=b; Path=/app" },
	{ "cookie, for all, in the middle", COOKIE, STRIP, "a=b;path=/;Secure", "a=b;path=/app;Secure" },
	{ "cookie, prefixed already", COOKIE, STRIP, "a=b; Path=/app", NULL },
	{ "cookie, no path", COOKIE, STRIP, "a=b; Max-Age=5", NULL },
	{ "cookie, an empty path", COOKIE, STRIP, "a=b; Path=; x", NULL },
	{ "cookie, whose value looks so", COOKIE, STRIP, "Path=/x", NULL },
	{ "cookie, of a host", COOKIE, STRIP, "__Host-a=b; Path=/; Secure", NULL },
	{ "cookie, of a host, a blank before it", COOKIE, STRIP, " __host-a=b; Path=/; Secure", NULL },
	{ "cookie, almost", COOKIE, STRIP, "__Host=b; Path=/", "__Host=b; Path=/app" },
	{ "cookie, rewritten", COOKIE, REWRITE, "a=b; Path=/new/", "a=b; Path=/old/" },
	{ "cookie, for more than the mount", COOKIE, REWRITE, "a=b; Path=/", NULL },
	{ "cookie, to the root", COOKIE, FRONT, "a=b; Path=/new", "a=b; Path=/" },
	{ "cookie, the upstream's domain", COOKIE, STRIP, "a=b; Domain=app.internal", "a=b; Domain=site.example" },
	{ "cookie, a dot before it", COOKIE, STRIP, "a=b; domain=.APP.internal; Path=/", "a=b; domain=site.example; Path=/app" },
	{ "cookie, above the upstream's", COOKIE, STRIP, "a=b; Domain=internal", "a=b; Domain=site.example" },
	{ "cookie, the client's domain", COOKIE, STRIP, "a=b; Domain=site.example", NULL },
	{ "cookie, above the client's", COOKIE, STRIP, "a=b; Domain=example", NULL },
	{ "cookie, another domain", COOKIE, STRIP, "a=b; Domain=other.example", NULL },
	{ "cookie, half a name", COOKIE, STRIP, "a=b; Domain=ternal", NULL },
	{ "cookie, the host that is asked for", COOKIE, UNIX, "a=b; Domain=real.example", "a=b; Domain=[::1]" },
};

static void
test_rows(void **state)
{
	char b[512];

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		const struct mount *at = &mounts[rows[i].mount];
		struct slice in = slice_of(rows[i].in), want = slice_of(rows[i].want ? rows[i].want : "(it stays)");
		for (size_t n = 0; n <= in.n; n++) { /* cut short anywhere, nothing behind it is read */
			struct text t = { b, 0, sizeof b, false };
			struct slice cut = exact((struct slice){ in.p, n });
			bool mapped = ways[rows[i].way](&t, at, cut);
			if (n == in.n)
				row_slice(rows[i].why, in, "mapped", mapped ? text_slice(&t) : S("(it stays)"), want);
			exact_free(cut);
		}
	}
	rows_end();
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_rows) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
