/* What a shared cache may store, send and forget. RFC 9111, 5861, 9213. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

enum { TODAY = 1790000000 };

#define DATE   "Date: Mon, 21 Sep 2026 14:13:20 GMT\r\n" /* TODAY */
#define AGO_10 "Mon, 21 Sep 2026 14:13:10 GMT"
#define IN_10  "Mon, 21 Sep 2026 14:13:30 GMT"
#define IN_20  "Mon, 21 Sep 2026 14:13:40 GMT"
#define CC(v)  "Cache-Control: " v "\r\n"
#define CDN(v) "CDN-Cache-Control: " v "\r\n"
#define EXP(v) "Expires: " v "\r\n"
#define LM     "Last-Modified: " AGO_10 "\r\n"
#define ETAG   "ETag: \"a\"\r\n"
#define AUTH   "Authorization: Basic eA==\r\n"

static struct head req, res;

/* Heads whose bytes stay until the next one. */
static void
head_of(struct head *h, const char *first, const char *fields)
{
	static char bufs[3][8192];
	char *b = bufs[h == &req ? 0 : h == &res ? 1 : 2];
	int n = snprintf(b, sizeof bufs[0], "%s\r\n%s%s\r\n", first, h == &req ? "Host: a\r\n" : "", fields);
	struct slice in = { b, (size_t)n };

	assert_int_equal(h == &req ? request_parse(h, in) : response_parse(h, in), n);
}

static void
request_of(const char *fields)
{
	head_of(&req, "GET /d/p?q HTTP/1.1", fields);
}

static void
response_of(int status, const char *fields)
{
	char first[64];

	snprintf(first, sizeof first, "HTTP/1.1 %d OK", status);
	head_of(&res, first, fields);
}

/* ---- Cache-Control ---- */

/* clang-format off */
static const struct {
	const char *fields, *want;
	const char *why;
} controls[] = {
	{ "", "", "none" },
	{ CC(""), "", "empty" },
	{ CC("max-age=60"), "max-age=60", "a time" },
	{ CC("Max-AGE=60, NO-Store"), "max-age=60 no-store", "case" },
	{ CC("max-age=60,,\t ,public"), "max-age=60 public", "empty members" },
	{ CC("max-age=60") CC("s-maxage=5"), "max-age=60 s-maxage=5", "two lines" },
	{ CC("max-age=007"), "max-age=7", "zeros before" },
	{ CC("max-age=99999999999999999999"), "max-age=2147483647", "too large" },
	{ CC("max-age=2147483648"), "max-age=2147483647", "a little too large" },
	{ CC("max-age=\"60\""), "max-age=60 bad", "quoted; not in a targeted field" },
	{ CC("max-age=60, max-age=5"), "max-age=5", "the shorter of two" },
	{ CC("max-age=5, max-age=60"), "max-age=5", "whichever comes first" },
	{ CC("max-age=60, max-age=x"), "max-age=0 bad", "one of two is none" },
	{ CC("max-age=-1"), "max-age=0 bad", "negative" },
	{ CC("max-age=1.5"), "max-age=0 bad", "a fraction" },
	{ CC("max-age='60'"), "max-age=0 bad", "single quotes" },
	{ CC("max-age=60a"), "max-age=0 bad", "a letter" },
	{ CC("max-age"), "max-age=0 bad", "no time" },
	{ CC("max-age="), "max-age=0 bad", "an empty time" },
	{ CC("max-age =60"), "max-age=0 bad", "a blank before =" },
	{ CC("max-age= 60"), "max-age=0 bad", "a blank behind =" },
	{ CC("max-age=60 public"), "max-age=0 bad", "no comma" },
	{ CC("max-age=60; public"), "max-age=0 bad", "a semicolon" },
	{ CC("max-ages=60"), "", "another name" },
	{ CC("x=\"max-age=60\", max-age=1"), "max-age=1", "in quotes before" },
	{ CC("max-age=1, x=\"max-age=60\""), "max-age=1", "in quotes behind" },
	{ CC("x=\"a, max-age=60\", public"), "public", "a comma in quotes" },
	{ CC("x=\"a\\\", no-store\", public"), "public", "an escaped quote" },
	{ CC("x=\"a, no-store"), "no-store bad", "a quote without end hides nothing" },
	{ CC("x=\"a\\"), "bad", "nor one with a backslash at the end" },
	{ CC("\"no-store\""), "bad", "a quoted name" },
	{ CC("=5, public"), "public bad", "no name" },
	{ CC("&&&, public"), "public bad", "an odd name" },
	{ CC("[], public"), "public bad", "no token" },
	{ CC("no-store x"), "no-store bad", "what forbids, forbids with rubbish behind it" },
	{ CC("private; max-age=60"), "private bad", "so here" },
	{ CC("public x, must-understand \"y\""), "bad", "what allows, does not" },
	{ CC("no-store=1"), "no-store", "and with a value" },
	{ CC("private"), "private", "of all fields" },
	{ CC("private=\"a\""), "", "of one field" },
	{ CC("private=a"), "", "of one field, without quotes" },
	{ CC("private=\"a, b\", public"), "public", "of two fields" },
	{ CC("private=\"\""), "private", "of no field: of all" },
	{ CC("private=\""), "private bad", "a broken list: of all" },
	{ CC("private=a b"), "private bad", "so here" },
	{ CC("no-cache, no-cache=\"a\""), "no-cache", "both" },
	{ CC("stale-while-revalidate=1, stale-if-error=2, must-revalidate, proxy-revalidate, "
	  "must-understand, only-if-cached"), "stale-while-revalidate=1 stale-if-error=2 "
	  "must-revalidate proxy-revalidate only-if-cached must-understand", "the others" },
};
/* clang-format on */

static void
test_controls(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(controls); i++) {
		struct cache_control cc;
		char b[512];
		struct text t = { b, 0, sizeof b, false };

		response_of(200, controls[i].fields);
		cache_control_read(&cc, &res, F_CACHE_CONTROL);
		for (unsigned d = 0; d < DIRECTIVES; d++) {
			if (!(cc.has & DIRECTIVE(d)))
				continue;
			text_str(&t, t.n ? " " : "");
			text_add(&t, directive_names[d]);
			if (d < DELTAS)
				text_fmt(&t, "=%u", cc.delta[d]);
		}
		if (cc.bad)
			text_str(&t, t.n ? " bad" : "bad");
		row_slice(controls[i].why, slice_of(controls[i].fields), "directives",
		    text_slice(&t), slice_of(controls[i].want));
	}
	rows_end();
}

/* ---- requests ---- */

enum { ALL = CACHE_LOOK | CACHE_STORE };

/* clang-format off */
static const struct {
	const char *first, *fields;
	unsigned want;
	const char *why;
} asked[] = {
	{ "GET / HTTP/1.1", "", ALL, "GET" },
	{ "HEAD / HTTP/1.1", "", ALL, "HEAD" },
	{ "POST / HTTP/1.1", "", 0, "POST" },
	{ "OPTIONS / HTTP/1.1", "", 0, "OPTIONS" },
	{ "get / HTTP/1.1", "", 0, "another method" },
	{ "GET / HTTP/1.1", "Content-Length: 0\r\n", ALL, "an empty body" },
	{ "GET / HTTP/1.1", "Content-Length: 3\r\n", 0, "a body" },
	{ "GET / HTTP/1.1", "Transfer-Encoding: chunked\r\n", 0, "a body of any length" },
	{ "GET / HTTP/1.1", "Upgrade: websocket\r\n", 0, "another protocol" },
	{ "GET / HTTP/1.1", "If-Match: \"a\"\r\n", 0, "whether nobody else has changed it" },
	{ "GET / HTTP/1.1", "If-Unmodified-Since: " AGO_10 "\r\n", 0, "so with a date" },
	{ "GET / HTTP/1.1", "If-None-Match: \"a\"\r\nRange: bytes=0-1\r\n" AUTH "Cookie: a\r\n", ALL, "what is looked at later" },
	{ "GET / HTTP/1.1", "X-Original-URL: /b\r\n", 0, "another path" },
	{ "GET / HTTP/1.1", "x_rewrite_url: /b\r\n", 0, "as CGI reads it" },
	{ "GET / HTTP/1.1", "X-HTTP-Method-Override: PUT\r\n", 0, "another method" },
	{ "GET / HTTP/1.1", "X-Host: b\r\n", 0, "another host" },
	{ "GET / HTTP/1.1", "X-Hos: b\r\nX-Original: c\r\nX: d\r\n", ALL, "none of them" },
	{ "GET / HTTP/1.1", CC("no-store"), CACHE_LOOK, "no-store" },
	{ "GET / HTTP/1.1", CC("only-if-cached"), ALL | CACHE_ONLY, "only-if-cached" },
	{ "GET / HTTP/1.1", CC("no-cache, max-age=0, min-fresh=9") "Pragma: no-cache\r\n", ALL, "no client empties the cache" },
};
/* clang-format on */

static void
test_asked(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(asked); i++) {
		head_of(&req, asked[i].first, asked[i].fields);
		row_int(asked[i].why, slice_of(asked[i].fields), "policy_asked",
		    policy_asked(&req), asked[i].want);
	}
	rows_end();
}

/* ---- storing ---- */

/* clang-format off */
static const struct {
	int status;
	const char *fields, *want; /* fresh while error age; shared, validates; no */
	const char *request;
	struct cache_rules rules;
	uint32_t delay_s;
	const char *why;
} stored[] = {
	/* freshness */
	{ 200, "", "no", "", { 0, 0 }, 0, "nothing is said" },
	{ 200, ETAG LM, "no", "", { 0, 0 }, 0, "nothing but validators" },
	{ 200, CC("public"), "no", "", { 0, 0 }, 0, "but public" },
	{ 200, CC("max-age=60"), "60 0 0 0", "", { 0, 0 }, 0, "max-age" },
	{ 200, CC("max-age=60, s-maxage=5"), "5 0 0 0 s", "", { 0, 0 }, 0, "s-maxage goes before" },
	{ 200, CC("max-age=0, s-maxage=5") EXP(AGO_10), "5 0 0 0 s", "", { 0, 0 }, 0, "before all" },
	{ 200, CC("max-age=60") EXP(AGO_10), "60 0 0 0", "", { 0, 0 }, 0, "max-age before Expires" },
	{ 200, CC("max-age=60") EXP("0"), "60 0 0 0", "", { 0, 0 }, 0, "one that is no date, too" },
	{ 200, CC("max-age=0"), "no", "", { 0, 0 }, 0, "stale at once" },
	{ 200, CC("max-age=0") ETAG, "0 0 0 0 v", "", { 0, 0 }, 0, "but the upstream can be asked" },
	{ 200, CC("max-age=0") LM, "0 0 0 0 v", "", { 0, 0 }, 0, "with a date as well" },
	{ 200, CC("max-age=x"), "no", "", { 0, 0 }, 0, "a time that is none" },
	{ 200, CC("max-age=x") EXP(IN_20), "no", "", { 0, 0 }, 0, "whatever Expires" },
	{ 200, CC("max-age=99999999999"), "2147483647 0 0 0", "", { 0, 0 }, 0, "68 years" },
	{ 200, EXP(IN_20), "20 0 0 0", "", { 0, 0 }, 0, "Expires, no Date" },
	{ 200, EXP(IN_20) DATE, "20 0 0 0", "", { 0, 0 }, 0, "Expires" },
	{ 200, EXP(IN_20) "Date: " AGO_10 "\r\n", "30 0 0 10", "", { 0, 0 }, 0, "by the upstream's clock" },
	{ 200, EXP(IN_20) "Date: " IN_10 "\r\n", "10 0 0 0", "", { 0, 0 }, 0, "which is fast" },
	{ 200, EXP(IN_10) "Date: " IN_20 "\r\n", "no", "", { 0, 0 }, 0, "before Date" },
	{ 200, EXP(IN_10) "Date: foo\r\n", "10 0 0 0", "", { 0, 0 }, 0, "Date is none" },
	{ 200, EXP("Mon, 21 Sep 2026 14:13:20 GMT") DATE, "no", "", { 0, 0 }, 0, "Expires now" },
	{ 200, EXP("0") DATE, "no", "", { 0, 0 }, 0, "Expires is no date" },
	{ 200, EXP(IN_10) EXP(IN_20), "no", "", { 0, 0 }, 0, "two of them" },
	{ 200, EXP("Fri, 31 Dec 9999 23:59:59 GMT"), "2147483647 0 0 0", "", { 0, 0 }, 0, "never expires" },
	/* age: 4.2.3 */
	{ 200, CC("max-age=60") "Age: 30\r\n", "60 0 0 30", "", { 0, 0 }, 0, "Age" },
	{ 200, CC("max-age=60") "Age: 60\r\n", "no", "", { 0, 0 }, 0, "stale when it comes" },
	{ 200, CC("max-age=60") "Age: 30\r\n", "60 0 0 35", "", { 0, 0 }, 5, "Age and the way" },
	{ 200, CC("max-age=60") "Age: 3, 40\r\n", "60 0 0 3", "", { 0, 0 }, 0, "the first of a list" },
	{ 200, CC("max-age=60") "Age: 3\r\nAge: 40\r\n", "60 0 0 3", "", { 0, 0 }, 0, "the first line" },
	{ 200, CC("max-age=60") "Age: x\r\n", "60 0 0 0", "", { 0, 0 }, 0, "no age" },
	{ 200, CC("max-age=60") "Age: -7\r\n", "60 0 0 0", "", { 0, 0 }, 0, "a negative one" },
	{ 200, CC("max-age=60") "Age: 7.0\r\n", "60 0 0 0", "", { 0, 0 }, 0, "a fraction" },
	{ 200, CC("max-age=60") "Age: 2147483648\r\n", "no", "", { 0, 0 }, 0, "older than can be told" },
	{ 200, CC("max-age=60") "Date: " AGO_10 "\r\n", "60 0 0 10", "", { 0, 0 }, 0, "an old date" },
	{ 200, CC("max-age=60") "Date: " AGO_10 "\r\nAge: 3\r\n", "60 0 0 10", "", { 0, 0 }, 0, "the larger" },
	{ 200, CC("max-age=60") "Date: " IN_10 "\r\nAge: 3\r\n", "60 0 0 3", "", { 0, 0 }, 0, "of both" },
	/* status: 3 */
	{ 404, CC("max-age=60"), "60 0 0 0", "", { 0, 0 }, 0, "404" },
	{ 503, CC("max-age=60"), "60 0 0 0", "", { 0, 0 }, 0, "503, if it says so" },
	{ 599, CC("max-age=60"), "60 0 0 0", "", { 0, 0 }, 0, "unknown" },
	{ 206, CC("max-age=60"), "no", "", { 0, 0 }, 0, "a part" },
	{ 304, CC("max-age=60"), "no", "", { 0, 0 }, 0, "304" },
	{ 103, CC("max-age=60"), "no", "", { 0, 0 }, 0, "not final" },
	{ 599, CC("max-age=60, must-understand"), "no", "", { 0, 0 }, 0, "not understood" },
	{ 599, CC("max-age=60, must-understand, no-store"), "no", "", { 0, 0 }, 0, "nor so" },
	{ 200, CC("max-age=60, must-understand, no-store"), "60 0 0 0", "", { 0, 0 }, 0, "understood: 5.2.2.3" },
	/* what forbids */
	{ 200, CC("max-age=60, no-store"), "no", "", { 0, 0 }, 0, "no-store" },
	{ 200, CC("max-age=60, private"), "no", "", { 0, 0 }, 0, "private" },
	{ 200, CC("max-age=60, private, must-understand"), "no", "", { 0, 0 }, 0, "private all the same" },
	{ 200, CC("max-age=60, private=\"x\"") "X: 1\r\n", "60 0 0 0", "", { 0, 0 }, 0, "a private field" },
	{ 200, CC("max-age=60") "Set-Cookie: a=b\r\n", "no", "", { 0, 0 }, 0, "a cookie" },
	{ 200, CC("max-age=60, no-cache=\"set-cookie\"") "Set-Cookie: a=b\r\n", "60 0 0 0", "", { 0, 0 }, 0, "a cookie that is left out" },
	{ 200, CC("max-age=60") "Vary: *\r\n", "no", "", { 0, 0 }, 0, "Vary: *" },
	{ 200, CC("max-age=60") "Vary: a,\r\nVary: b , *\r\n", "no", "", { 0, 0 }, 0, "in a list" },
	{ 200, CC("max-age=60") "Vary: a\r\n", "60 0 0 0", "", { 0, 0 }, 0, "Vary" },
	/* Authorization: 3.5 */
	{ 200, CC("max-age=60"), "no", AUTH, { 0, 0 }, 0, "of one user" },
	{ 200, CC("max-age=60, public"), "60 0 0 0 s", AUTH, { 0, 0 }, 0, "public" },
	{ 200, CC("s-maxage=60"), "60 0 0 0 s", AUTH, { 0, 0 }, 0, "s-maxage" },
	{ 200, CC("max-age=60, must-revalidate"), "60 0 0 0 s", AUTH, { 0, 0 }, 0, "must-revalidate" },
	/* no-cache: 5.2.2.4 */
	{ 200, CC("no-cache"), "no", "", { 0, 0 }, 0, "never good" },
	{ 200, CC("no-cache") ETAG, "0 0 0 0 v", "", { 9, 9 }, 0, "good when asked for" },
	{ 200, CC("max-age=60, no-cache, stale-while-revalidate=5") LM, "0 0 0 0 v", "", { 0, 9 }, 0, "with a time, too" },
	/* stale: 4.2.4, RFC 5861 */
	{ 200, CC("max-age=60, stale-while-revalidate=5, stale-if-error=7"), "60 5 7 0", "", { 0, 9 }, 0, "RFC 5861" },
	{ 200, CC("max-age=0, stale-while-revalidate=5"), "0 5 0 0", "", { 0, 0 }, 0, "stale, and still good" },
	{ 200, CC("max-age=60"), "60 0 9 0", "", { 0, 9 }, 0, "stale_secs" },
	{ 200, CC("max-age=60, stale-if-error=0"), "60 0 0 0", "", { 0, 9 }, 0, "said otherwise" },
	{ 200, CC("max-age=60, stale-if-error=5, stale-while-revalidate=5, must-revalidate"), "60 0 0 0 s", "", { 0, 9 }, 0, "must-revalidate" },
	{ 200, CC("max-age=60, stale-if-error=5, stale-while-revalidate=5, proxy-revalidate"), "60 0 0 0", "", { 0, 9 }, 0, "proxy-revalidate" },
	{ 200, CC("s-maxage=60"), "60 0 0 0 s", "", { 0, 9 }, 0, "s-maxage: not by preset" },
	{ 200, CC("s-maxage=60, stale-if-error=5, stale-while-revalidate=6"), "60 6 5 0 s", "", { 0, 9 }, 0, "but if it says so" },
	/* default_ttl_secs */
	{ 200, "", "30 0 0 0", "", { 30, 0 }, 0, "by preset" },
	{ 404, CC("public"), "30 0 0 0 s", "", { 30, 0 }, 0, "a lasting status" },
	{ 500, "", "no", "", { 30, 0 }, 0, "500 does not last" },
	{ 302, "", "no", "", { 30, 0 }, 0, "302 does not" },
	{ 200, "", "no", "Cookie: a\r\n", { 30, 0 }, 0, "not with a cookie" },
	{ 200, CC("max-age=60"), "60 0 0 0", "Cookie: a\r\n", { 30, 0 }, 0, "unless it says so" },
	{ 200, CC("max-age=60"), "60 0 0 0", "", { 30, 0 }, 0, "no preset needed" },
	{ 200, EXP("0"), "no", "", { 30, 0 }, 0, "expired" },
	{ 200, CC("no-store"), "no", "", { 30, 0 }, 0, "no-store" },
	/* CDN-Cache-Control: RFC 9213 */
	{ 200, CDN("max-age=60"), "60 0 0 0", "", { 0, 0 }, 0, "for a CDN" },
	{ 200, CDN("max-age=60") CC("no-store, private") EXP(AGO_10) DATE, "60 0 0 0", "", { 0, 0 }, 0, "goes before all" },
	{ 200, CDN("max-age=0") EXP(IN_10), "no", "", { 0, 0 }, 0, "also when it is stale" },
	{ 200, CDN("no-store") CC("max-age=60"), "no", "", { 0, 0 }, 0, "or forbids" },
	{ 200, CDN("private") CC("max-age=60"), "no", "", { 0, 0 }, 0, "so" },
	{ 200, CDN("no-cache") CC("max-age=60") EXP(IN_10), "no", "", { 0, 0 }, 0, "and so" },
	{ 200, CDN("foo") EXP(IN_10), "no", "", { 0, 0 }, 0, "or says nothing" },
	{ 200, CDN("") CC("max-age=60"), "60 0 0 0", "", { 0, 0 }, 0, "unless it is empty" },
	{ 200, CDN("max-age=60, [") CC("no-store"), "no", "", { 0, 0 }, 0, "or malformed" },
	{ 200, CDN("max-age=60, &&&&&") CC("no-store"), "no", "", { 0, 0 }, 0, "or has a name that is none" },
	{ 200, CDN("*a=1, max-age=60") CC("no-store"), "60 0 0 0", "", { 0, 0 }, 0, "not one that is not known" },
	{ 200, CDN("max-age=\"60\"") CC("no-store"), "no", "", { 0, 0 }, 0, "or of another type" },
	{ 200, CDN("max-age =60") CC("max-age=1"), "1 0 0 0", "", { 0, 0 }, 0, "or has a blank" },
	{ 200, CDN("max-age=9") CC("no-cache=set-cookie") "Set-Cookie: a\r\n", "no", "", { 0, 0 }, 0, "the other field counts for nothing" },
};
/* clang-format on */

static void
test_stored(void **state)
{
	(void)state;
	now_s = TODAY;
	for (size_t i = 0; i < LEN(stored); i++) {
		struct policy p;
		char b[128];
		struct text t = { b, 0, sizeof b, false };

		request_of(stored[i].request);
		response_of(stored[i].status, stored[i].fields);
		if (policy_store(&p, &stored[i].rules, &req, &res, stored[i].delay_s))
			text_fmt(&t, "%u %u %u %u%s%s%s", p.fresh_s, p.while_s, p.error_s, p.age_s,
			    p.shared || p.validates ? " " : "", p.shared ? "s" : "",
			    p.validates ? "v" : "");
		else
			text_str(&t, "no");
		row_slice(stored[i].why, slice_of(stored[i].fields), "policy", text_slice(&t),
		    slice_of(stored[i].want));
	}
	rows_end();
}

/* What is stored is read again, with a Date; then it still must not have too many lines. */
static void
test_many_lines(void **state)
{
	(void)state;
	now_s = TODAY;
	for (int i = 0; i < 2; i++) {
		char b[FIELDS_MAX * 8];
		struct text t = { b, 0, sizeof b - 1, false };
		struct policy p;

		text_str(&t, i == 0 ? CC("max-age=60") "B: 1\r\n" : CC("max-age=60") DATE);
		for (int n = 2; n < FIELDS_MAX; n++)
			text_str(&t, "A: 1\r\n");
		b[t.n] = '\0';
		request_of("");
		response_of(200, b);
		row_int("as many lines as may be", i == 0 ? S("no Date") : S("Date"), "stored",
		    policy_store(&p, &(struct cache_rules){ 0, 0 }, &req, &res, 0), i);
	}
	rows_end();
}

/* ---- using ---- */

/* clang-format off */
static const struct {
	const char *fields;
	int after_s;
	uint32_t age, left;
	enum cache_use use, authorised;
	bool saves;
	const char *why;
} used[] = {
	{ CC("max-age=60"), 0, 0, 60, USE_FRESH, USE_NOT, true, "at once" },
	{ CC("max-age=60"), 59, 59, 1, USE_FRESH, USE_NOT, true, "the last second" },
	{ CC("max-age=60"), 60, 60, 0, USE_NOT, USE_NOT, false, "stale" },
	{ CC("max-age=60"), -9, 0, 60, USE_FRESH, USE_NOT, true, "the clock was set back" },
	{ CC("max-age=60"), -61, INT32_MAX, 0, USE_NOT, USE_NOT, false, "the clock was far ahead" },
	{ CC("max-age=60") ETAG, -61, INT32_MAX, 0, USE_VALIDATE, USE_NOT, false, "far ahead, with a tag" },
	{ CC("max-age=60") ETAG, 60, 60, 0, USE_VALIDATE, USE_NOT, false, "stale, with a tag" },
	{ CC("max-age=60, public") ETAG, 60, 60, 0, USE_VALIDATE, USE_VALIDATE, false, "public" },
	{ CC("max-age=60, public"), 5, 5, 55, USE_FRESH, USE_FRESH, true, "public and fresh" },
	{ CC("max-age=60") "Age: 30\r\n", 20, 50, 10, USE_FRESH, USE_NOT, true, "it was old" },
	{ CC("max-age=60") "Age: 30\r\n", 30, 60, 0, USE_NOT, USE_NOT, false, "too old" },
	{ CC("max-age=60, stale-while-revalidate=5"), 64, 64, 1, USE_STALE, USE_NOT, false, "meanwhile" },
	{ CC("max-age=60, stale-while-revalidate=5") LM, 65, 65, 0, USE_VALIDATE, USE_NOT, false, "no longer" },
	{ CC("max-age=60, stale-if-error=5"), 64, 64, 1, USE_NOT, USE_NOT, true, "an error" },
	{ CC("max-age=60, stale-if-error=5"), 65, 65, 0, USE_NOT, USE_NOT, false, "later" },
	{ CC("max-age=60, stale-if-error=5, stale-while-revalidate=9"), 62, 62, 7, USE_STALE, USE_NOT, true, "both" },
	{ CC("no-cache") ETAG, 0, 0, 0, USE_VALIDATE, USE_NOT, false, "no-cache" },
	{ CC("max-age=99999999999, stale-if-error=99999999999"), 2000000000, 2000000000, 2294967294, USE_FRESH, USE_NOT, true, "sums" },
	{ CC("max-age=99999999999") "Age: 2147483000\r\n", 2000000000, INT32_MAX, 0, USE_NOT, USE_NOT, false, "the oldest" },
};
/* clang-format on */

static void
test_used(void **state)
{
	static const struct cache_rules none;

	(void)state;
	for (size_t i = 0; i < LEN(used); i++) {
		struct slice in = slice_of(used[i].fields);
		struct policy p;

		now_s = TODAY;
		request_of("");
		response_of(200, used[i].fields);
		row_int(used[i].why, in, "policy_store", policy_store(&p, &none, &req, &res, 0), true);
		now_s += used[i].after_s;
		row_int(used[i].why, in, "age", policy_age(&p), used[i].age);
		row_int(used[i].why, in, "left", policy_left(&p), used[i].left);
		row_int(used[i].why, in, "use", policy_use(&p, &req), used[i].use);
		row_int(used[i].why, in, "saves from 0", policy_saves(&p, 0), used[i].saves);
		row_int(used[i].why, in, "saves from 503", policy_saves(&p, 503), used[i].saves);
		row_int(used[i].why, in, "saves from 501", policy_saves(&p, 501), false);
		row_int(used[i].why, in, "saves from 404", policy_saves(&p, 404), false);
		request_of(AUTH);
		row_int(used[i].why, in, "authorised use", policy_use(&p, &req), used[i].authorised);
	}
	rows_end();
}

/* ---- heads ---- */

/* clang-format off */
static const struct {
	const char *fields, *anew, *want; /* anew NULL: no 304 */
	const char *why;
} written[] = {
	{ DATE "A: 1\r\n", NULL, DATE "A: 1\r\n", "as it came" },
	{ "A: 1\r\n", NULL, "A: 1\r\n" DATE, "without Date: RFC 9110 6.6.1" },
	{ DATE "Connection: b\r\nKeep-Alive: 1\r\nA: 1\r\nB: 2\r\nTrailer: c\r\nUpgrade: x\r\nTE: x\r\n"
	  "Proxy-Authenticate: x\r\nProxy-Authentication-Info: x\r\n", NULL, DATE "A: 1\r\n", "hop by hop: 3.1" },
	{ DATE "Age: 3\r\nContent-Length: 4\r\n", NULL, DATE "Age: 3\r\nContent-Length: 4\r\n", "what policy_store reads again" },
	{ DATE CC("no-cache=\"a, set-cookie\", private=b") "A: 1\r\nb: 2\r\nC: 3\r\nSet-Cookie: d\r\n", NULL,
	  DATE CC("no-cache=\"a, set-cookie\", private=b") "C: 3\r\n", "withheld" },
	{ DATE CC("no-cache=a") CDN("private=c") "A: 1\r\nC: 2\r\n", NULL,
	  DATE CC("no-cache=a") CDN("private=c") "A: 1\r\n", "withheld from a CDN" },
	{ DATE CC("no-cache=\"vary, etag, cache-control\"") ETAG "Vary: a\r\n", NULL,
	  DATE CC("no-cache=\"vary, etag, cache-control\"") ETAG "Vary: a\r\n", "not what is needed to decide" },
	/* 3.2 */
	{ "Date: " AGO_10 "\r\nA: 1\r\nB: 2\r\n", "Date: " IN_10 "\r\nA: 3\r\n", "B: 2\r\nDate: " IN_10 "\r\nA: 3\r\n", "one is new" },
	{ "Date: " AGO_10 "\r\nAge: 5\r\n", "", DATE, "it comes now" },
	{ "Age: 5\r\n" DATE, DATE "Age: 2\r\n", DATE "Age: 2\r\n", "and has an age of its own" },
	{ DATE "A: 1\r\na: 2\r\nB: 3\r\n", DATE "A: 4\r\n", "B: 3\r\n" DATE "A: 4\r\n", "one for two" },
	{ DATE "A: 1\r\n", DATE "A: 2\r\nA: 3\r\n", DATE "A: 2\r\nA: 3\r\n", "two for one" },
	{ DATE "Content-Length: 9\r\nContent-Type: a\r\nContent-Encoding: b\r\nContent-Range: c\r\nContent-Foo: d\r\n",
	  DATE "Content-Length: 0\r\nContent-Type: A\r\nContent-Encoding: B\r\nContent-Range: C\r\nContent-Foo: D\r\n",
	  "Content-Length: 9\r\nContent-Type: a\r\nContent-Encoding: b\r\nContent-Range: c\r\n" DATE "Content-Foo: D\r\n", "of the body" },
	{ DATE, DATE "Content-Type: A\r\nContent-Encoding: B\r\n", DATE, "also if it had none" },
	{ DATE "A: 1\r\n", DATE "Connection: a, b\r\na: 2\r\nB: 3\r\nSet-Cookie: x\r\n", "A: 1\r\n" DATE, "hop by hop in a 304" },
	{ DATE "A: 1\r\n", DATE CC("private=\"a\"") "A: 2\r\n", DATE CC("private=\"a\""), "withheld from now on" },
	{ DATE CC("max-age=1"), DATE CC("max-age=2"), DATE CC("max-age=2"), "a new lease" },
};
/* clang-format on */

static void
test_written(void **state)
{
	static struct head anew, back;

	(void)state;
	now_s = TODAY;
	for (size_t i = 0; i < LEN(written); i++) {
		char b[4096], want[4096];
		struct text t = { b, 0, sizeof b, false };
		struct slice in = slice_of(written[i].fields);

		response_of(200, written[i].fields);
		head_drop(&res, 0);
		head_of(&anew, "HTTP/1.1 304 Not Modified", written[i].anew ? written[i].anew : "");
		head_drop(&anew, 0);
		policy_write(&t, &res, written[i].anew ? &anew : NULL);
		snprintf(want, sizeof want, "HTTP/1.1 200 OK\r\n%s\r\n", written[i].want);
		row_slice(written[i].why, in, "head", text_slice(&t), slice_of(want));
		row_int(written[i].why, in, "response_parse", response_parse(&back, text_slice(&t)),
		    (int)t.n);
	}
	rows_end();
}

/* ---- keys ---- */

/* clang-format off */
static const struct {
	const char *vary, *fields, *want;
	const char *why;
} varies[] = {
	{ "", "A: 1\r\n", "", "no Vary" },
	{ "Vary: A\r\n", "A: 1\r\n", "a:1\n", "one field" },
	{ "Vary: A\r\n", "", "a\n", "that is not there" },
	{ "Vary: A\r\n", "A:\r\n", "a:\n", "that is empty" },
	{ "Vary: a, , B\r\nVary: C\r\n", "c: 3\r\nb: 2\r\n", "a\nb:2\nc:3\n", "lists" },
	{ "Vary: A\r\n", "A: 1,2\r\n", "a:1,2\n", "a list" },
	{ "Vary: A\r\n", "A:  1 ,  2 \r\n", "a:1,2\n", "with blanks" },
	{ "Vary: A\r\n", "A: 1\r\nB: 2\r\nA: 2\r\n", "a:1,2\n", "in two lines" },
	{ "Vary: A\r\n", "A: x y\r\n", "a:x y\n", "blanks within" },
	{ "Vary: A\r\n", "A: \"1, 2\"\r\n", "a:\"1, 2\"\n", "quoted" },
	{ "Vary: A\r\n", "A: \"1,2\"\r\n", "a:\"1,2\"\n", "quoted without a blank" },
	{ "Vary: A\r\n", "A: 0\r\nA: \"1, 2\"\r\n", "a:0,\"1, 2\"\n", "quoted behind another" },
	{ "Vary: Accept-Encoding\r\n", "", "accept-encoding:\n", "no codings" },
	{ "Vary: Accept-Encoding\r\n", "Accept-Encoding: identity\r\n", "accept-encoding:\n", "identity" },
	{ "Vary: Accept-Encoding\r\n", "Accept-Encoding: deflate, gzip\r\n", "accept-encoding:gzip\n", "gzip" },
	{ "Vary: Accept-Encoding\r\n", "Accept-Encoding: GZIP;q=0.5\r\n", "accept-encoding:gzip\n", "with a weight" },
	{ "Vary: Accept-Encoding\r\n", "Accept-Encoding: zstd, br ,gzip\r\n", "accept-encoding:br, gzip\n", "both" },
	{ "Vary: Accept-Encoding\r\n", "Accept-Encoding: gzip\r\nAccept-Encoding: br\r\n", "accept-encoding:br, gzip\n", "in two lines" },
	{ "Vary: Accept-Encoding\r\n", "Accept-Encoding: br, gzip; q=0\r\n", "accept-encoding:br\n", "not gzip" },
	{ "Vary: Accept-Encoding\r\n", "Accept-Encoding: *\r\n", "accept-encoding:br, gzip\n", "any" },
	{ "Vary: Accept-Encoding\r\n", "Accept-Encoding: *;q=0, gzip;Q=0.001\r\n", "accept-encoding:gzip\n", "none but gzip" },
	{ "Vary: Accept-Encoding\r\n", "Accept-Encoding: gzip;q=0.000, *\r\n", "accept-encoding:br\n", "any but gzip" },
};
/* clang-format on */

static void
test_varies(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(varies); i++) {
		char b[512], n[512];
		struct text t = { b, 0, sizeof b, false }, names = { n, 0, sizeof n, false };

		request_of(varies[i].fields);
		response_of(200, varies[i].vary);
		vary_names(&names, &res);
		vary_key(&t, text_slice(&names), &req);
		row_slice(varies[i].why, slice_of(varies[i].fields), "vary_key", text_slice(&t),
		    slice_of(varies[i].want));
	}
	rows_end();
}

/* clang-format off */
static const struct {
	const char *in;
	bool https;
	const char *want;
	const char *why;
} keys[] = {
	{ "GET /a?b HTTP/1.1\r\nHost: H.x\r\n\r\n", false, "http://h.x/a?b", "plain" },
	{ "HEAD /a?b HTTP/1.1\r\nHost: h.x\r\n\r\n", false, "http://h.x/a?b", "HEAD" },
	{ "GET /a HTTP/1.1\r\nHost: h:80\r\n\r\n", false, "http://h/a", "the usual port" },
	{ "GET /a HTTP/1.1\r\nHost: h:80\r\n\r\n", true, "https://h:80/a", "which is another here" },
	{ "GET /a HTTP/1.1\r\nHost: h:443\r\n\r\n", true, "https://h/a", "the usual port" },
	{ "GET /a HTTP/1.1\r\nHost: h:\r\n\r\n", true, "https://h/a", "an empty port" },
	{ "GET /a HTTP/1.1\r\nHost: h:8080\r\n\r\n", false, "http://h:8080/a", "a port" },
	{ "GET /a HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", false, "http://[::1]/a", "IPv6" },
	{ "GET /a HTTP/1.1\r\nHost: [FE::]\r\n\r\n", false, "http://[fe::]/a", "IPv6 without a port" },
	{ "GET http://Q/a HTTP/1.1\r\nHost: h\r\n\r\n", false, "http://q/a", "absolute" },
	{ "GET http://q HTTP/1.1\r\nHost: h\r\n\r\n", false, "http://q/", "without a path" },
	{ "GET /A/%2e%2E/b//c HTTP/1.1\r\nHost: h\r\n\r\n", false, "http://h/A/%2e%2E/b//c", "byte by byte" },
	{ "GET /a? HTTP/1.1\r\nHost: h\r\n\r\n", false, "http://h/a?", "an empty query" },
	{ "GET / HTTP/1.0\r\n\r\n", false, "http:///", "no host" },
};
/* clang-format on */

static void
test_keys(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(keys); i++) {
		char b[512];
		struct text t = { b, 0, sizeof b, false };
		struct slice in = slice_of(keys[i].in);

		row_int(keys[i].why, in, "request_parse", request_parse(&req, in), (int)in.n);
		policy_key(&t, keys[i].https, &req);
		row_slice(keys[i].why, in, "policy_key", text_slice(&t), slice_of(keys[i].want));
	}
	rows_end();
}

#define LOC(v) "Location: " v "\r\n"
#define TARGET    "http://a/d/p?q"

/* clang-format off */
static const struct {
	const char *method;
	int status;
	const char *fields, *want;
	const char *why;
} spoilt[] = {
	{ "GET", 200, LOC("/x"), "", "GET" },
	{ "HEAD", 200, "", "", "HEAD" },
	{ "OPTIONS", 200, "", "", "OPTIONS" },
	{ "TRACE", 200, "", "", "TRACE" },
	{ "POST", 200, "", TARGET, "POST" },
	{ "PUT", 204, "", TARGET, "PUT" },
	{ "DELETE", 302, "", TARGET, "a redirection" },
	{ "M-SEARCH", 200, "", TARGET, "a method unknown" },
	{ "POST", 404, LOC("/x"), "", "refused" },
	{ "POST", 500, LOC("/x"), "", "failed" },
	{ "POST", 201, LOC("/x?y#z"), TARGET " http://a/x?y", "Location" },
	{ "POST", 201, "Content-Location: /x\r\n", TARGET " http://a/x", "Content-Location" },
	{ "POST", 201, LOC("/x") "Content-Location: /y\r\n", TARGET " http://a/x http://a/y", "both" },
	{ "POST", 201, LOC("http://A:80/x"), TARGET " http://a/x", "absolute" },
	{ "POST", 201, LOC("HTTP://a"), TARGET " http://a/", "without a path" },
	{ "POST", 201, LOC("http://a?x"), TARGET " http://a/?x", "with a query alone" },
	{ "POST", 201, LOC("https://a/x"), TARGET, "another scheme" },
	{ "POST", 201, LOC("http://b/x"), TARGET, "another host" },
	{ "POST", 201, LOC("http://a:81/x"), TARGET, "another port" },
	{ "POST", 201, LOC("http://a@b/x"), TARGET, "a user" },
	{ "POST", 201, LOC("//a/x"), TARGET " http://a/x", "without a scheme" },
	{ "POST", 201, LOC("//b/x"), TARGET, "another host without one" },
	{ "POST", 201, LOC("x"), TARGET " http://a/d/x", "relative" },
	{ "POST", 201, LOC("?x"), TARGET " http://a/d/p?x", "another query" },
	{ "POST", 201, LOC(""), TARGET " http://a/d/p", "empty" },
	{ "POST", 201, LOC("http:"), TARGET " http://a/d/p", "a scheme alone" },
	{ "POST", 201, LOC("//"), TARGET, "an empty host" },
};
/* clang-format on */

static void
test_spoilt(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(spoilt); i++) {
		char b[512], w[512], first[64];
		struct text t = { b, 0, sizeof b, false }, all = { w, 0, sizeof w, false };
		struct slice got[KEYS_SPOILT], in = slice_of(spoilt[i].fields);
		int n;

		snprintf(first, sizeof first, "%s /d/p?q HTTP/1.1", spoilt[i].method);
		head_of(&req, first, "");
		response_of(spoilt[i].status, spoilt[i].fields);
		n = policy_spoilt(&t, got, false, &req, &res);
		for (int k = 0; k < n; k++) {
			text_str(&all, k ? " " : "");
			text_add(&all, got[k]);
		}
		row_slice(spoilt[i].why, in, "keys", text_slice(&all), slice_of(spoilt[i].want));
		t = (struct text){ b, 0, sizeof TARGET - 1, false }; /* room for one */
		if (n > 0 && policy_spoilt(&t, got, false, &req, &res) != 1)
			row_bad(spoilt[i].why, in, "without room it is not one");
	}
	rows_end();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_controls),
		cmocka_unit_test(test_asked),
		cmocka_unit_test(test_stored),
		cmocka_unit_test(test_many_lines),
		cmocka_unit_test(test_used),
		cmocka_unit_test(test_written),
		cmocka_unit_test(test_varies),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_spoilt),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
