/* Heads, framing and chunks: tables of what is taken and what is refused. Each
 * row is also fed cut short at every byte, in memory that ends with it. */

#define main warp_main
#include "../../warp.c"
#undef main

#include <setjmp.h>

#include <cmocka.h>

#define BYTES(lit) { "" lit, sizeof(lit) - 1 }
#define TEXT(s)    (int)(s).n, (s).p

static struct head head;

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

static void
expect_slice(struct slice got, struct slice want, const char *why)
{
	if (!slice_eq(got, want))
		fail_msg("%s: got \"%.*s\", not \"%.*s\"", why, TEXT(got), TEXT(want));
}

struct row {
	struct slice in;
	int want;
	const char *why;
};

typedef int parser(struct head *, struct slice);

/* Every slice of h lies in in. */
static void
expect_inside(const struct head *h, struct slice in, const char *why)
{
	for (int i = 0; i < h->n; i++) {
		const struct field *f = &h->f[i];
		if (f->start < in.p || f->end > in.p + in.n || f->name.p != f->start ||
		    f->value.p < f->name.p + f->name.n + 1 ||
		    f->value.p + f->value.n > f->end - 2)
			fail_msg("%s: field %d is not in the head", why, i);
	}
}

/* The first n bytes alone: unfinished, or the row's error, or (a request line
 * that is refused before its fields are) another. Nothing behind them is read. */
static void
row_cut(const struct row *r, parser *parse, size_t n)
{
	char *p = exact((struct slice){ r->in.p, n });
	int got = parse(&head, (struct slice){ p, n });

	if (got > 0 && (r->want <= 0 || (int)n < r->want))
		fail_msg("%s: %d bytes are a head when cut after %zu", r->why, got, n);
	if (got < 0 && r->want >= 0 && (r->want == 0 || (int)n < r->want))
		fail_msg("%s: %d when cut after %zu", r->why, got, n);
	free(p);
}

/* Byte by byte, the end is found where the parser found it. */
static void
row_scan(const struct row *r)
{
	uint32_t scanned = 0;
	int got = 0;
	size_t n;

	for (n = 1; n <= r->in.n && got == 0; n++) {
		char *p = exact((struct slice){ r->in.p, n });
		got = head_scan((struct slice){ p, n }, &scanned);
		free(p);
	}
	if (got != r->want)
		fail_msg("%s: head_scan says %d, not %d", r->why, got, r->want);
}

static void
row_check(const struct row *r, parser *parse)
{
	char *p = exact(r->in);
	int got = parse(&head, (struct slice){ p, r->in.n });

	if (got != r->want)
		fail_msg("%s: %d, not %d: \"%.*s\"", r->why, got, r->want, TEXT(r->in));
	if (got > 0)
		expect_inside(&head, (struct slice){ p, r->in.n }, r->why);
	free(p);
	for (size_t n = 0; n < r->in.n; n++)
		row_cut(r, parse, n);
	if (r->want > 0 && parse == request_parse)
		row_scan(r);
}

/* ---- requests ---- */

#define END   "Host: a\r\n\r\n"
#define GOOD(lit, why)      { BYTES(lit), sizeof(lit) - 1, why }
#define BAD(lit, code, why) { BYTES(lit), -(code), why }
#define PART(lit, why)      { BYTES(lit), 0, why }

/* clang-format off */
static const struct row requests[] = {
	GOOD("GET / HTTP/1.1\r\n" END, "plain"),
	GOOD("GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 needs no Host"),
	GOOD("GET / HTTP/1.3\r\n" END, "a higher minor version"),
	GOOD("FROB!#$%&'*+-.^_`|~09 /x HTTP/1.1\r\n" END, "any token is a method"),
	GOOD("\r\nGET / HTTP/1.1\r\n" END, "one empty line before it"),
	GOOD("\r\n\r\nGET / HTTP/1.1\r\n" END, "two empty lines before it"),
	BAD("\r\n\r\n\r\nGET / HTTP/1.1\r\n" END, 400, "three empty lines before it"),
	BAD("\nGET / HTTP/1.1\r\n" END, 400, "a bare LF before it"),
	BAD("\rGET / HTTP/1.1\r\n" END, 400, "a bare CR before it"),
	{ BYTES("GET / HTTP/1.1\r\n" END "GET /next"), 16 + 11, "the next request stays" },
	PART("", "nothing"),
	PART("\r", "half an empty line"),
	PART("\r\n", "an empty line alone"),
	PART("GET / HTTP/1.1\r\nHost: a\r\n", "no empty line"),
	PART("GET / HTTP/1.1\r\nHost: a\r\n\r", "half an empty line at the end"),
	PART("SSH-2.0-OpenSSH_9.2p1", "a greeting of another protocol, no line yet"),
	BAD("SSH-2.0-OpenSSH_9.2p1\r\n", 400, "a greeting of another protocol"),
	BAD("\x16\x03\x01\x00\x2d\x01", 400, "a TLS hello, at once"),
	BAD("G\0T / HTTP/1.1", 400, "a NUL in an unfinished request line"),
	BAD("GET /\x01", 400, "a control in an unfinished target"),
	BAD("GET / HTTP/1.1\n", 400, "a bare LF in an unfinished head"),
	BAD("GET / HTTX", 400, "not HTTP, at once"),

	BAD(" GET / HTTP/1.1\r\n" END, 400, "a blank before the method"),
	BAD("GE(T / HTTP/1.1\r\n" END, 400, "a delimiter in the method"),
	BAD("GET: / HTTP/1.1\r\n" END, 400, "a colon in the method"),
	BAD("G\x80T / HTTP/1.1\r\n" END, 400, "an 8-bit byte in the method"),
	BAD("GET  / HTTP/1.1\r\n" END, 400, "two spaces before the target"),
	BAD("GET /  HTTP/1.1\r\n" END, 400, "two spaces behind the target"),
	BAD("GET\t/ HTTP/1.1\r\n" END, 400, "a tab as separator"),
	BAD("GET /\tHTTP/1.1\r\n" END, 400, "a tab behind the target"),
	BAD("GET /a b HTTP/1.1\r\n" END, 400, "a space in the target"),
	BAD("GET / HTTP/1.1 \r\n" END, 400, "a space behind the version"),
	BAD("GET /\r\n" END, 400, "HTTP/0.9"),
	BAD("GET\r\n" END, 400, "a method alone"),
	BAD("GET / HTTP/1.1\rX" END, 400, "CR without LF"),
	BAD("GET / HTTP/1.1\r\r\n" END, 400, "CR CR LF"),
	BAD("GET / HTTP/1.1\n" END, 400, "a bare LF behind the version"),

	BAD("GET / http/1.1\r\n" END, 400, "HTTP-name is case-sensitive"),
	BAD("GET / HTTP/1.10\r\n" END, 400, "two digits of minor"),
	BAD("GET / HTTP/11.1\r\n" END, 400, "two digits of major"),
	BAD("GET / HTTP/1\r\n" END, 400, "no minor"),
	BAD("GET / HTTP/1,1\r\n" END, 400, "no dot"),
	BAD("GET / HTTP/1.x\r\n" END, 400, "a letter"),
	BAD("GET / HTTP/-1.1\r\n" END, 400, "a sign"),
	BAD("GET / HTTP/2.0\r\n" END, 505, "major 2"),
	BAD("GET / HTTP/0.9\r\n" END, 505, "major 0"),
	BAD("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "the preface of HTTP/2"),

	GOOD("GET /caf\xe9\xff HTTP/1.1\r\n" END, "8-bit bytes in the target"),
	GOOD("GET /a|b\\c^{}\"<>`[] HTTP/1.1\r\n" END, "any visible byte in the target"),
	GOOD("GET //b//?x=/../ HTTP/1.1\r\n" END, "slashes and dots"),
	BAD("GET /a#b HTTP/1.1\r\n" END, 400, "a fragment"),
	BAD("GET /a\0b HTTP/1.1\r\n" END, 400, "a NUL in the target"),
	BAD("GET /a\x7f HTTP/1.1\r\n" END, 400, "DEL in the target"),
	BAD("GET index.html HTTP/1.1\r\n" END, 400, "no form of a target"),
	BAD("GET ?x HTTP/1.1\r\n" END, 400, "a query alone"),
	BAD("GET a:80 HTTP/1.1\r\n" END, 400, "an authority without CONNECT"),
	BAD("CONNECT a:80 HTTP/1.1\r\n" END, 501, "CONNECT"),
	BAD("CONNECT / HTTP/1.1\r\n" END, 501, "CONNECT with a path"),
	GOOD("OPTIONS * HTTP/1.1\r\n" END, "asterisk form"),
	BAD("GET * HTTP/1.1\r\n" END, 400, "asterisk is for OPTIONS"),
	BAD("OPTIONS ** HTTP/1.1\r\n" END, 400, "two asterisks"),
	GOOD("GET http://b HTTP/1.1\r\n" END, "absolute form, no path"),
	GOOD("GET HTTPS://b:443/p?q HTTP/1.1\r\n" END, "the scheme has no case"),
	GOOD("GET http://b?q HTTP/1.1\r\n" END, "absolute form, a query alone"),
	BAD("GET http:// HTTP/1.1\r\n" END, 400, "no authority"),
	BAD("GET http:///p HTTP/1.1\r\n" END, 400, "an empty authority"),
	BAD("GET http://:80/p HTTP/1.1\r\n" END, 400, "a port alone"),
	BAD("GET http://u:p@b/ HTTP/1.1\r\n" END, 400, "userinfo"),
	BAD("GET http://u@b/ HTTP/1.1\r\n" END, 400, "a user"),
	BAD("GET ftp://b/ HTTP/1.1\r\n" END, 400, "another scheme"),
	BAD("GET http:/b HTTP/1.1\r\n" END, 400, "one slash"),
	BAD("GET http://b/ HTTP/1.1\r\n\r\n", 400, "absolute form needs Host too"),
	BAD("GET http://b/ HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "absolute form, a bad Host"),

	BAD("GET / HTTP/1.1\r\n\r\n", 400, "no Host"),
	BAD("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "two Hosts"),
	BAD("GET / HTTP/1.0\r\nHost: a\r\nhOST: b\r\n\r\n", 400, "two Hosts in HTTP/1.0"),
	GOOD("GET / HTTP/1.1\r\nHost:\r\n\r\n", "an empty Host"),
	GOOD("GET / HTTP/1.1\r\nHost: \t\r\n\r\n", "an empty Host in blanks"),
	GOOD("GET / HTTP/1.1\r\nHost: A-b_c.d~!$&'*+=1:65535\r\n\r\n", "a reg-name and port"),
	GOOD("GET / HTTP/1.1\r\nHost: a%2Db\r\n\r\n", "a percent-encoded byte in Host"),
	BAD("GET / HTTP/1.1\r\nHost: a%2\r\n\r\n", 400, "half of one"),
	BAD("GET / HTTP/1.1\r\nHost: a%2x\r\n\r\n", 400, "no hexadecimal"),
	GOOD("GET / HTTP/1.1\r\nHost: a:\r\n\r\n", "an empty port"),
	GOOD("GET / HTTP/1.1\r\nHost: [2001:db8::7]:8080\r\n\r\n", "IPv6 and port"),
	GOOD("GET / HTTP/1.1\r\nHost: [::ffff:1.2.3.4]\r\n\r\n", "IPv6 with IPv4 in it"),
	BAD("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, "an open bracket"),
	BAD("GET / HTTP/1.1\r\nHost: []\r\n\r\n", 400, "empty brackets"),
	BAD("GET / HTTP/1.1\r\nHost: [1::2::3]\r\n\r\n", 400, "no IPv6"),
	BAD("GET / HTTP/1.1\r\nHost: [1.2.3.4]\r\n\r\n", 400, "IPv4 in brackets"),
	BAD("GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", 400, "text behind the bracket"),
	BAD("GET / HTTP/1.1\r\nHost: [::1%25lo]\r\n\r\n", 400, "a zone"),
	BAD("GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", 400, "IPv6 without brackets"),
	BAD("GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400, "a port alone"),
	BAD("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400, "port 65536"),
	BAD("GET / HTTP/1.1\r\nHost: a:8o\r\n\r\n", 400, "a letter in the port"),
	BAD("GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", 400, "two ports"),
	BAD("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "a space in Host"),
	BAD("GET / HTTP/1.1\r\nHost: a\tb\r\n\r\n", 400, "a tab in Host"),
	BAD("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400, "a comma in Host"),
	BAD("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "a user in Host"),
	BAD("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "a slash in Host"),
	BAD("GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", 400, "a backslash in Host"),
	BAD("GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", 400, "a question mark in Host"),
	BAD("GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", 400, "a hash in Host"),
	BAD("GET / HTTP/1.1\r\nHost: <a>\r\n\r\n", 400, "angle brackets in Host"),
	BAD("GET / HTTP/1.1\r\nHost: a\xe9\r\n\r\n", 400, "an 8-bit byte in Host"),

	GOOD("GET / HTTP/1.1\r\nX:\r\nY: \r\nZ:\t a\tb \t\r\n" END, "blanks around values"),
	GOOD("GET / HTTP/1.1\r\nX: caf\xc3\xa9 12345678 \x80\xff\r\n" END, "8-bit values"),
	GOOD("GET / HTTP/1.1\r\nX_y: 1\r\n!#$%&'*+-.^_`|~: 1\r\n" END, "any token is a name"),
	BAD("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "space before colon"),
	BAD("GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", 400, "tab before colon"),
	BAD("GET / HTTP/1.1\r\n X: a\r\n" END, 400, "a blank before the first field"),
	BAD("GET / HTTP/1.1\r\nX: a\r\n b\r\n" END, 400, "a folded line"),
	BAD("GET / HTTP/1.1\r\nX: a\r\n\tb\r\n" END, 400, "a line folded by a tab"),
	BAD("GET / HTTP/1.1\r\n" "Host: a\r\n \r\n\r\n", 400, "a line of one space"),
	BAD("GET / HTTP/1.1\r\nX\r\n" END, 400, "no colon"),
	BAD("GET / HTTP/1.1\r\n: a\r\n" END, 400, "no name"),
	BAD("GET / HTTP/1.1\r\nX y: a\r\n" END, 400, "a space in the name"),
	BAD("GET / HTTP/1.1\r\n\"X\": a\r\n" END, 400, "a quoted name"),
	BAD("GET / HTTP/1.1\r\nX\0: a\r\n" END, 400, "a NUL in the name"),
	BAD("GET / HTTP/1.1\r\nX\x80: a\r\n" END, 400, "an 8-bit byte in the name"),
	BAD("GET / HTTP/1.1\r\nX\r: a\r\n" END, 400, "a CR in the name"),
	BAD("GET / HTTP/1.1\r\nX: a\0b\r\n" END, 400, "a NUL in the value"),
	BAD("GET / HTTP/1.1\r\nX: 12345678\0\r\n" END, 400, "a NUL behind eight bytes"),
	BAD("GET / HTTP/1.1\r\nX: 1234567\x7f\r\n" END, 400, "DEL in the value"),
	BAD("GET / HTTP/1.1\r\nX: a\x1f\r\n" END, 400, "a control in the value"),
	BAD("GET / HTTP/1.1\r\nX: a\x0b\r\n" END, 400, "a vertical tab in the value"),
	BAD("GET / HTTP/1.1\r\nX: a\rb\r\n" END, 400, "a bare CR in the value"),
	BAD("GET / HTTP/1.1\r\nX: a\r\r\n" END, 400, "CR CR LF behind the value"),
	BAD("GET / HTTP/1.1\r\nX: a\nY: b\r\n" END, 400, "a bare LF behind the value"),
	BAD("GET / HTTP/1.1\r\nHost: a\r\n\n", 400, "a bare LF as empty line"),
	BAD("GET / HTTP/1.1\r\nHost: a\r\n\rX", 400, "a CR and no LF as empty line"),
};
/* clang-format on */

static void
test_requests(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(requests); i++)
		row_check(&requests[i], request_parse);
}

/* What stands where. */
static void
test_request_parts(void **state)
{
	static const struct {
		const char *in, *method, *path, *query, *host;
		bool has_query, plain, has_host;
		enum method id;
		enum target_form form;
		int minor;
	} rows[] = {
		{ "GET /a?b=c?d HTTP/1.1\r\nHost: h:1\r\n\r\n", "GET", "/a", "b=c?d", "h:1",
		  true, true, true, M_GET, TARGET_ORIGIN, 1 },
		{ "get /a? HTTP/1.0\r\n\r\n", "get", "/a", "", "", true, true, false, M_OTHER,
		  TARGET_ORIGIN, 0 },
		{ "HEAD /%61 HTTP/1.9\r\nHost:\r\n\r\n", "HEAD", "/%61", "", "", false, false, true,
		  M_HEAD, TARGET_ORIGIN, 1 },
		{ "POST /a//b HTTP/1.1\r\nHost: h\r\n\r\n", "POST", "/a//b", "", "h", false, false,
		  true, M_POST, TARGET_ORIGIN, 1 },
		{ "PUT /a/.b HTTP/1.1\r\nHost: h\r\n\r\n", "PUT", "/a/.b", "", "h", false, false,
		  true, M_PUT, TARGET_ORIGIN, 1 },
		{ "DELETE /a.b/?//.% HTTP/1.1\r\nHost: h\r\n\r\n", "DELETE", "/a.b/", "//.%", "h",
		  true, true, true, M_DELETE, TARGET_ORIGIN, 1 },
		{ "PATCH http://B:8/p?q HTTP/1.1\r\nHost: h\r\n\r\n", "PATCH", "/p", "q", "B:8",
		  true, true, true, M_PATCH, TARGET_ABSOLUTE, 1 },
		{ "TRACE https://b?q HTTP/1.1\r\nHost: h\r\n\r\n", "TRACE", "/", "q", "b", true, true,
		  true, M_TRACE, TARGET_ABSOLUTE, 1 },
		{ "OPTIONS http://[::1] HTTP/1.0\r\n\r\n", "OPTIONS", "/", "", "[::1]", false, true,
		  true, M_OPTIONS, TARGET_ABSOLUTE, 0 },
		{ "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS", "/", "", "h", false, true, true,
		  M_OPTIONS, TARGET_ASTERISK, 1 },
	};

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		const char *in = rows[i].in;
		assert_int_equal(request_parse(&head, slice_of(in)), (int)strlen(in));
		expect_slice(head.method_text, slice_of(rows[i].method), in);
		expect_slice(head.path, slice_of(rows[i].path), in);
		expect_slice(head.query, slice_of(rows[i].query), in);
		expect_slice(head.host, slice_of(rows[i].host), in);
		assert_int_equal(head.has_query, rows[i].has_query);
		assert_int_equal(head.path_plain, rows[i].plain);
		assert_int_equal(head.has_host, rows[i].has_host);
		assert_int_equal(head.method, rows[i].id);
		assert_int_equal(head.form, rows[i].form);
		assert_int_equal(head.minor, rows[i].minor);
	}
}

static void
test_request_fields(void **state)
{
	static const char in[] = "GET / HTTP/1.1\r\nHOST: a\r\nX: \t1 2\t \r\n"
		"accept: b\r\nConnection: close, X\r\nACCEPT:\r\n\r\n";
	int n = request_parse(&head, (struct slice){ in, sizeof in - 1 });

	(void)state;
	assert_int_equal(n, sizeof in - 1);
	assert_int_equal(head.n, 5);
	expect_slice(head.f[1].name, S("X"), "name");
	expect_slice(head.f[1].value, S("1 2"), "a value without its blanks");
	expect_slice((struct slice){ head.f[1].start, (size_t)(head.f[1].end - head.f[1].start) },
	    S("X: \t1 2\t \r\n"), "the whole line");
	assert_int_equal(head.count[F_ACCEPT], 2);
	assert_int_equal(head.first[F_ACCEPT], 3);
	assert_int_equal(head.count[F_COOKIE], 0);
	assert_null(head_field(&head, F_COOKIE));
	expect_slice(head_field(&head, F_ACCEPT)->value, S("b"), "the first of two");
	expect_slice(head_field(&head, F_HOST)->value, S("a"), "names have no case");
	assert_true(head_has(&head, F_CONNECTION, "CLOSE"));
	assert_true(head_has(&head, F_CONNECTION, "x"));
	assert_false(head_has(&head, F_CONNECTION, "clos"));
	assert_false(head_has(&head, F_UPGRADE, "x"));
}

/* A head of n fields, or with a long part. To be freed. */
static char *
request_long(const char *before, char fill, size_t n, const char *after, size_t *size)
{
	size_t b = strlen(before), a = strlen(after);
	char *p = malloc(b + n + a + 1);

	assert_non_null(p);
	memcpy(p, before, b);
	memset(p + b, fill, n);
	memcpy(p + b + n, after, a + 1);
	*size = b + n + a;
	return p;
}

static void
expect_long(const char *before, size_t n, const char *after, int want, const char *why)
{
	size_t size;
	char *p = request_long(before, 'a', n, after, &size);
	int got = request_parse(&head, (struct slice){ p, size });

	if (got != (want > 0 ? (int)size : want))
		fail_msg("%s: %d", why, got);
	free(p);
}

static void
test_request_limits(void **state)
{
	static const char tail[] = " HTTP/1.1\r\nHost: a\r\n\r\n";

	(void)state;
	expect_long("GET /", TARGET_MAX - 1, tail, 1, "the longest target");
	expect_long("GET /", TARGET_MAX, tail, -414, "a longer one");
	expect_long("GET /", TARGET_MAX, "", -414, "a longer one, unfinished");
	expect_long("GET /", TARGET_MAX - 1, "", 0, "the longest target, unfinished");
	expect_long("", METHOD_MAX, " / HTTP/1.1\r\nHost: a\r\n\r\n", 1, "the longest method");
	expect_long("", METHOD_MAX + 1, " / HTTP/1.1\r\nHost: a\r\n\r\n", -400, "a longer one");
	expect_long("", METHOD_MAX + 1, "", -400, "a longer one, unfinished");
	expect_long("", METHOD_MAX, "", 0, "the longest method, unfinished");
}

static void
test_field_limits(void **state)
{
	static char b[32 * (FIELDS_MAX + 2)];
	struct text t = { b, 0, sizeof b, false };

	(void)state;
	text_str(&t, "GET / HTTP/1.1\r\nHost: a\r\n");
	for (int i = 1; i < FIELDS_MAX; i++)
		text_str(&t, "Accept: x\r\n");
	assert_int_equal(request_parse(&head, text_slice(&t)), 0);
	text_str(&t, "\r\n");
	assert_int_equal(request_parse(&head, text_slice(&t)), t.n);
	assert_int_equal(head.n, FIELDS_MAX);
	assert_int_equal(head.count[F_ACCEPT], UINT8_MAX);
	t.n -= 2;
	text_str(&t, "Accept: x\r\n\r\n");
	assert_int_equal(request_parse(&head, text_slice(&t)), -431);
	memcpy(b, "HTTP/1.1 200\r\nA:", 16);
	assert_int_equal(response_parse(&head, text_slice(&t)), -502);
}

/* The cost of hop-by-hop removal stays bounded. */
static void
test_connection_limit(void **state)
{
	char b[1024];
	struct text t = { b, 0, sizeof b, false };
	size_t n;

	(void)state;
	text_str(&t, "GET / HTTP/1.1\r\nHost: a\r\nConnection: x");
	for (int i = 1; i < CONNECTION_OPTIONS - 1; i++)
		text_str(&t, ",x");
	text_str(&t, "\r\nConnection: y");
	n = t.n;
	text_str(&t, "\r\n\r\n");
	assert_int_equal(request_parse(&head, text_slice(&t)), t.n);
	t.n = n;
	text_str(&t, ",z\r\n\r\n");
	assert_int_equal(request_parse(&head, text_slice(&t)), -400);
}

/* ---- responses ---- */

#define OK "HTTP/1.1 200 OK\r\n"

/* clang-format off */
static const struct row responses[] = {
	GOOD(OK "\r\n", "plain"),
	GOOD("HTTP/1.0 204\r\n\r\n", "no reason, no space"),
	GOOD("HTTP/1.1 404 \r\n\r\n", "no reason"),
	GOOD("HTTP/1.9 599 a\tb \xe9\r\nX: 1\r\n\r\n", "any reason"),
	GOOD("HTTP/1.1 100 Continue\r\n\r\n", "the least status"),
	{ BYTES(OK "\r\nHTTP/1.1 200 OK\r\n"), 19, "the next response stays" },
	PART("", "nothing"),
	PART("HTTP/1.1 20", "half a status"),
	PART(OK "X: 1\r\n", "no empty line"),
	BAD("\r\n" OK "\r\n", 502, "an empty line before it"),
	BAD("HTTP/2 200 OK\r\n\r\n", 502, "HTTP/2"),
	BAD("HTTP/2.0 200 OK\r\n\r\n", 502, "HTTP/2.0"),
	BAD("HTTP/0.9 200 OK\r\n\r\n", 502, "HTTP/0.9"),
	BAD("http/1.1 200 OK\r\n\r\n", 502, "lower case"),
	BAD("ICY 200 OK\r\n\r\n", 502, "another protocol"),
	BAD("SSH-2", 502, "another protocol, at once"),
	BAD("<html>", 502, "HTTP/0.9 without a head, at once"),
	BAD("HTTP/1.1  200 OK\r\n\r\n", 502, "two spaces"),
	BAD("HTTP/1.1\t200 OK\r\n\r\n", 502, "a tab"),
	BAD("HTTP/1.1 20 OK\r\n\r\n", 502, "two digits"),
	BAD("HTTP/1.1 2000 OK\r\n\r\n", 502, "four digits"),
	BAD("HTTP/1.1 099 OK\r\n\r\n", 502, "099"),
	BAD("HTTP/1.1 600 OK\r\n\r\n", 502, "600"),
	BAD("HTTP/1.1 2x0 OK\r\n\r\n", 502, "a letter"),
	BAD("HTTP/1.1 +20 OK\r\n\r\n", 502, "a sign"),
	BAD("HTTP/1.1\r\n\r\n", 502, "no status"),
	BAD("HTTP/1.1 \n", 502, "no status, a bare LF"),
	BAD("HTTP/1.1 200\tOK\r\n\r\n", 502, "a tab behind the status"),
	BAD("HTTP/1.1 200 O\0K\r\n\r\n", 502, "a NUL in the reason"),
	BAD("HTTP/1.1 200 O\rK\r\n\r\n", 502, "a bare CR in the reason"),
	BAD("HTTP/1.1 200 OK\n\r\n", 502, "a bare LF"),
	BAD("HTTP/1.1 200\n\r\n", 502, "a bare LF behind the status"),
	BAD(OK "X : 1\r\n\r\n", 502, "space before colon"),
	BAD(OK "X: 1\r\n 2\r\n\r\n", 502, "a folded line"),
	BAD(OK " X: 1\r\n\r\n", 502, "a blank before the first field"),
	BAD(OK "X\r\n\r\n", 502, "no colon"),
	BAD(OK ": 1\r\n\r\n", 502, "no name"),
	BAD(OK "X: \x01\r\n\r\n", 502, "a control in the value"),
	BAD(OK "X: 1\n\r\n", 502, "a bare LF behind the value"),
	BAD(OK "\n", 502, "a bare LF as empty line"),
};
/* clang-format on */

static void
test_responses(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(responses); i++)
		row_check(&responses[i], response_parse);
	response_parse(&head, S("HTTP/1.7 418 I'm a teapot\r\nServer: x\r\n\r\n"));
	assert_int_equal(head.status, 418);
	assert_int_equal(head.minor, 1);
	expect_slice(head.reason, S("I'm a teapot"), "reason");
	assert_int_equal(head.count[F_SERVER], 1);
	response_parse(&head, S("HTTP/1.0 200\r\n\r\n"));
	expect_slice(head.reason, S(""), "no reason");
	assert_int_equal(head.minor, 0);
}

/* ---- scanning a slow head ---- */

static void
test_head_scan(void **state)
{
	static const struct row rows[] = {
		PART("GET / HTTP/1.1\r\nHost: a\r\n", "not yet"),
		GOOD("A\r\nB\r\n\r\n", "the end"),
		GOOD("\r\nA\r\n\r\n", "an empty line before it is no end"),
		GOOD("\r\n\r\nA\r\n\r\n", "nor are two"),
		BAD("\r\n\r\n\r\n", 400, "three are too many"),
		BAD("A\n", 400, "a bare LF"),
		BAD("A\r\n\n", 400, "a bare LF as empty line"),
		BAD("\n", 400, "a bare LF first"),
		BAD("\r\n\n", 400, "a bare LF behind an empty line"),
	};
	struct slice in = S("A\r\nB\r\n\r\nnext");
	uint32_t scanned = 0;

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++)
		row_scan(&rows[i]);
	assert_int_equal(head_scan((struct slice){ in.p, 5 }, &scanned), 0);
	assert_int_equal(scanned, 5);
	assert_int_equal(head_scan(in, &scanned), 8);
}

/* ---- names ---- */

static void
test_names(void **state)
{
	char b[32];

	(void)state;
	for (int i = F_OTHER + 1; i < FIELD_IDS; i++) {
		struct slice name = http_fields[i].name;
		assert_int_equal(strlen(name.p), name.n);
		assert_int_equal(field_id_of(name), i);
		for (size_t k = 0; k < name.n; k++)
			b[k] = (char)toupper((unsigned char)name.p[k]);
		assert_int_equal(field_id_of((struct slice){ b, name.n }), i);
		b[0] = '~';
		assert_int_equal(field_id_of((struct slice){ b, name.n }), F_OTHER);
		assert_int_equal(field_id_of((struct slice){ name.p, name.n - 1 }), F_OTHER);
	}
	assert_int_equal(field_id_of(S("")), F_OTHER);
	assert_int_equal(field_id_of(S("X-Unknown")), F_OTHER);
	for (int i = M_OTHER + 1; i < METHODS; i++)
		assert_int_equal(method_of(method_names[i]), i);
	assert_int_equal(method_of(S("get")), M_OTHER);
	assert_int_equal(method_of(S("")), M_OTHER);
}

/* The classes of chars[], said again in words. RFC 9110 5.5, 5.6.2. */
static void
test_chars(void **state)
{
	(void)state;
	for (int c = 0; c < 256; c++) {
		bool alnum = c < 0x80 && isalnum(c), visible = c > 0x20 && c != 0x7f;
		bool token = alnum || (c && strchr("!#$%&'*+-.^_`|~", c));
		bool host = alnum || (c && strchr("!$%&'*+-._=~", c));
		char b = (char)c;
		assert_int_equal(is_token((struct slice){ &b, 1 }), token);
		assert_int_equal(is_field_value((struct slice){ &b, 1 }),
		    visible || c == ' ' || c == '\t');
		assert_int_equal((chars[c] & CH_TARGET) != 0, visible && c != '#');
		assert_int_equal((chars[c] & CH_HOST) != 0, host);
	}
	assert_false(is_token(S("")));
	assert_true(is_field_value(S("")));
}

/* One odd byte at each place of a text longer than a word. */
static void
test_value_end(void **state)
{
	char b[24];

	(void)state;
	for (int c = 0; c < 256; c++)
		for (size_t at = 0; at < sizeof b; at++) {
			memset(b, c & 1 ? 'x' : 0xff, sizeof b);
			b[at] = (char)c;
			assert_int_equal(value_end((struct slice){ b, sizeof b }, 0),
			    chars[c] & CH_VALUE ? sizeof b : at);
		}
}

static void
test_status_text(void **state)
{
	(void)state;
	assert_string_equal(status_text(200), "OK");
	assert_string_equal(status_text(431), "Request Header Fields Too Large");
	assert_string_equal(status_text(505), "HTTP Version Not Supported");
	assert_string_equal(status_text(299), "Status");
}

/* ---- hop-by-hop ---- */

static void
test_hop_by_hop(void **state)
{
	static const struct {
		const char *line;
		bool drop;
	} rows[] = {
		{ "Connection: x-named, HOST, Cookie, content-encoding, Set-Cookie", true },
		{ "Connection: Via, X-Forwarded-For, X-Forwarded-Any, Cache-Control, Accept", true },
		{ "Connection: Transfer-Encoding, Authorization, Trailer, Expect, Date", true },
		{ "Keep-Alive: timeout=5", true },
		{ "Proxy-Connection: close", true },
		{ "Proxy-Authenticate: Basic", true },
		{ "Proxy-Authorization: Basic eA==", true },
		{ "TE: trailers", true },
		{ "Transfer-Encoding: chunked", true },
		{ "Upgrade: websocket", true },
		{ "HTTP2-Settings: x", true },
		{ "X-Named: 1", true },
		{ "x-NAMED: 2", true },
		{ "Accept: named, and harmless", true },
		{ "X-Named-Not: 1", false },
		{ "Host: a", false },
		{ "Cookie: a", false },
		{ "Set-Cookie: a", false },
		{ "Content-Encoding: gzip", false },
		{ "Content-Length: 1", false },
		{ "Via: 1.1 x", false },
		{ "X-Forwarded-For: 1.2.3.4", false },
		{ "X-Forwarded-Any: 1", false },
		{ "Cache-Control: private", false },
		{ "Authorization: x", false },
		{ "Trailer: X-Sum", false },
		{ "Expect: 100-continue", false },
		{ "Date: x", false },
	};
	char b[2048];
	struct text t = { b, 0, sizeof b, false };

	(void)state;
	text_str(&t, OK);
	for (size_t i = 0; i < LEN(rows); i++)
		text_fmt(&t, "%s\r\n", rows[i].line);
	text_str(&t, "\r\n");
	assert_true(response_parse(&head, text_slice(&t)) > 0);
	head_hop_by_hop(&head);
	for (size_t i = 0; i < LEN(rows); i++)
		if (head.f[i].drop != rows[i].drop)
			fail_msg("%s: %s", rows[i].line, head.f[i].drop ? "dropped" : "kept");
}

/* ---- framing ---- */

static void
test_body_of_request(void **state)
{
	static const struct {
		const char *fields;
		int minor, want;
		enum body_kind kind;
		uint64_t left;
		const char *why;
	} rows[] = {
		{ "", 1, 0, BODY_NONE, 0, "no framing" },
		{ "Content-Length: 0\r\n", 1, 0, BODY_LENGTH, 0, "no bytes" },
		{ "Content-Length: 0010\r\n", 0, 0, BODY_LENGTH, 10, "leading zeros" },
		{ "Content-Length: 9223372036854775807\r\n", 1, 0, BODY_LENGTH, INT64_MAX, "most" },
		{ "Content-Length: 9223372036854775808\r\n", 1, -400, 0, 0, "more" },
		{ "Content-Length: 18446744073709551621\r\n", 1, -400, 0, 0, "2^64 and 5" },
		{ "Content-Length:\r\n", 1, -400, 0, 0, "empty" },
		{ "Content-Length: -1\r\n", 1, -400, 0, 0, "negative" },
		{ "Content-Length: +1\r\n", 1, -400, 0, 0, "a sign" },
		{ "Content-Length: 0x1\r\n", 1, -400, 0, 0, "hexadecimal" },
		{ "Content-Length: 1 2\r\n", 1, -400, 0, 0, "a space inside" },
		{ "Content-Length: 5, 5\r\n", 1, -400, 0, 0, "equal lengths in a list" },
		{ "Content-Length: 5\r\nContent-Length: 5\r\n", 1, -400, 0, 0, "two equal lengths" },
		{ "Content-Length: 5\r\nContent-Length: 6\r\n", 1, -400, 0, 0, "two lengths" },
		{ "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 1, -400, 0, 0, "both" },
		{ "Transfer-Encoding: chunked\r\nContent-Length: x\r\n", 1, -400, 0, 0, "both, bad" },
		{ "Transfer-Encoding: Chunked\r\n", 1, 0, BODY_CHUNKED, 0, "chunked" },
		{ "Transfer-Encoding: chunked\r\n", 0, -400, 0, 0, "chunked in HTTP/1.0" },
		{ "Transfer-Encoding: gzip, chunked\r\n", 1, -501, 0, 0, "gzip before it" },
		{ "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 1, -501, 0, 0, "lines" },
		{ "Transfer-Encoding: chunked, gzip\r\n", 1, -400, 0, 0, "gzip behind it" },
		{ "Transfer-Encoding: gzip\r\n", 1, -400, 0, 0, "not chunked" },
		{ "Transfer-Encoding: identity\r\n", 1, -400, 0, 0, "identity" },
		{ "Transfer-Encoding: chunked, chunked\r\n", 1, -400, 0, 0, "twice" },
		{ "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 1, -400, 0, 0,
		  "twice in two lines" },
		{ "Transfer-Encoding:\r\n", 1, -400, 0, 0, "empty" },
		{ "Transfer-Encoding: ,chunked\r\n", 1, -400, 0, 0, "an empty member before" },
		{ "Transfer-Encoding: chunked,\r\n", 1, -400, 0, 0, "an empty member behind" },
		{ "Transfer-Encoding: chunked;q=1\r\n", 1, -400, 0, 0, "a parameter" },
		{ "Transfer-Encoding: \"chunked\"\r\n", 1, -400, 0, 0, "quoted" },
		{ "Transfer-Encoding: xchunked\r\n", 1, -400, 0, 0, "another word" },
		{ "Transfer-Encoding: \x80" "chunked\r\n", 1, -400, 0, 0, "8-bit blank" },
	};
	struct body b;
	char in[256];

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		snprintf(in, sizeof in, "POST / HTTP/1.%d\r\nHost: a\r\n%s\r\n", rows[i].minor,
		    rows[i].fields);
		assert_int_equal(request_parse(&head, slice_of(in)), strlen(in));
		int got = body_of_request(&b, &head);
		if (got != rows[i].want)
			fail_msg("%s: %d, not %d", rows[i].why, got, rows[i].want);
		if (got == 0 && (b.kind != rows[i].kind || b.left != rows[i].left ||
		    b.done != (b.kind != BODY_CHUNKED && b.left == 0)))
			fail_msg("%s: kind %d, left %llu, done %d", rows[i].why, b.kind,
			    (unsigned long long)b.left, b.done);
	}
}

static void
test_body_of_response(void **state)
{
	static const struct {
		const char *in;
		enum method m;
		int want;
		enum body_kind kind;
		uint64_t left;
		const char *why;
	} rows[] = {
		{ OK "\r\n", M_GET, 0, BODY_CLOSE, 0, "until the end" },
		{ OK "Content-Length: 7\r\n\r\n", M_GET, 0, BODY_LENGTH, 7, "a length" },
		{ OK "Content-Length: 0\r\n\r\n", M_POST, 0, BODY_LENGTH, 0, "no bytes" },
		{ OK "Transfer-Encoding: chunked\r\n\r\n", M_GET, 0, BODY_CHUNKED, 0, "chunked" },
		{ OK "Content-Length: 7\r\n\r\n", M_HEAD, 0, BODY_NONE, 0, "HEAD" },
		{ OK "Transfer-Encoding: chunked\r\n\r\n", M_HEAD, 0, BODY_NONE, 0, "HEAD, chunked" },
		{ "HTTP/1.1 204 No\r\nContent-Length: 7\r\n\r\n", M_GET, 0, BODY_NONE, 0, "204" },
		{ "HTTP/1.1 304 No\r\nContent-Length: 7\r\n\r\n", M_GET, 0, BODY_NONE, 0, "304" },
		{ "HTTP/1.1 100 Go\r\n\r\n", M_POST, 0, BODY_NONE, 0, "100" },
		{ "HTTP/1.1 205 No\r\n\r\n", M_GET, 0, BODY_CLOSE, 0, "205 is as any other" },
		{ OK "Transfer-Encoding: gzip, chunked\r\n\r\n", M_GET, -502, 0, 0, "gzip, chunked" },
		{ OK "Transfer-Encoding: gzip\r\n\r\n", M_GET, -502, 0, 0, "gzip until the end" },
		{ OK "Transfer-Encoding:\r\n\r\n", M_GET, -502, 0, 0, "an empty coding" },
		{ OK "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n", M_GET, -502, 0, 0,
		  "both" },
		{ OK "Content-Length: 7\r\nContent-Length: 7\r\n\r\n", M_GET, -502, 0, 0, "twice" },
		{ OK "Content-Length: 7, 7\r\n\r\n", M_GET, -502, 0, 0, "a list" },
		{ OK "Content-Length: 7x\r\n\r\n", M_GET, -502, 0, 0, "no number" },
		{ OK "Content-Length: x\r\n\r\n", M_HEAD, -502, 0, 0, "no number, HEAD" },
	};
	struct body b;

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		assert_int_equal(response_parse(&head, slice_of(rows[i].in)), strlen(rows[i].in));
		int got = body_of_response(&b, &head, rows[i].m);
		if (got != rows[i].want)
			fail_msg("%s: %d, not %d", rows[i].why, got, rows[i].want);
		if (got == 0 && (b.kind != rows[i].kind || b.left != rows[i].left))
			fail_msg("%s: kind %d, left %llu", rows[i].why, b.kind,
			    (unsigned long long)b.left);
	}
}

static void
test_body_take(void **state)
{
	struct body b = { .kind = BODY_LENGTH, .left = 10 };

	(void)state;
	assert_int_equal(body_take(&b, 4), 4);
	assert_false(b.done);
	assert_int_equal(body_take(&b, 9), 6);
	assert_true(b.done);
	assert_int_equal(b.total, 10);
	assert_int_equal(body_take(&b, 1), 0);
	b = (struct body){ .kind = BODY_CLOSE };
	assert_int_equal(body_take(&b, 9), 9);
	assert_false(b.done);
	assert_int_equal(b.total, 9);
	b = (struct body){ .kind = BODY_NONE, .done = true };
	assert_int_equal(body_take(&b, 9), 0);
}

/* ---- chunks ---- */

enum { TRAILERS = 256, CHUNKED_MAX = 4096 };

struct chunked {
	struct slice in;
	ssize_t want; /* bytes used; -1 malformed */
	struct slice content, trailers;
	const char *why;
};

/* What came out, of pieces that end at the cuts. */
struct decoded {
	struct body body;
	ssize_t used;
	char content[CHUNKED_MAX], trailers[TRAILERS];
	size_t n;
	struct text t;
	bool brought;
};

/* Decodes the n bytes at p, in memory of that size. As flow_decode does it:
 * what is not used up comes again, and memory for trailers when asked. */
static bool
decode_piece(struct decoded *d, const char *p, size_t n)
{
	char *copy = exact((struct slice){ p, n });
	size_t at = 0, content;
	ssize_t used;
	bool again;

	do {
		used = chunk_decode(&d->body, copy + at, n - at, &content, &d->t);
		if (used < 0)
			break;
		assert_true((size_t)used <= n - at && content <= (size_t)used);
		assert_true(d->n + content <= sizeof d->content);
		memcpy(d->content + d->n, copy + at, content);
		d->n += content;
		at += (size_t)used;
		again = d->body.need_trailers;
		if (again) {
			assert_false(d->brought);
			d->brought = true;
			d->t = (struct text){ d->trailers, 0, sizeof d->trailers, false };
		}
	} while (again);
	assert_memory_equal(copy + at, p + at, used < 0 ? 0 : n - at);
	free(copy);
	d->used = used < 0 ? -1 : d->used + (ssize_t)at;
	return used >= 0 && !d->body.done;
}

/* Decodes in, cut at two places. */
static void
decode(struct decoded *d, struct slice in, size_t a, size_t b)
{
	memset(d, 0, sizeof *d);
	d->body.kind = BODY_CHUNKED;
	if (decode_piece(d, in.p, a) && decode_piece(d, in.p + a, b - a))
		decode_piece(d, in.p + b, in.n - b);
}

static void
chunked_expect(const struct chunked *r, const struct decoded *d, size_t a, size_t b)
{
	if (d->used != r->want)
		fail_msg("%s, cut at %zu and %zu: %zd used", r->why, a, b, d->used);
	if (r->want < 0)
		return;
	expect_slice((struct slice){ d->content, d->n }, r->content, r->why);
	expect_slice(text_slice(&d->t), r->trailers, r->why);
	assert_int_equal(d->body.total, d->n);
	assert_int_equal(d->brought, d->t.cap > 0);
}

#define PIECE "5\r\nhello\r\n"
#define LAST  "0\r\n\r\n"
#define TAKEN(lit, content, trailers, why) \
	{ BYTES(lit), sizeof(lit) - 1, BYTES(content), BYTES(trailers), why }
#define REFUSED(lit, why) { BYTES(lit), -1, BYTES(""), BYTES(""), why }

/* clang-format off */
static const struct chunked chunks[] = {
	TAKEN(PIECE LAST, "hello", "", "one chunk"),
	TAKEN(LAST, "", "", "none"),
	TAKEN("0000000000000000\r\n\r\n", "", "", "sixteen zeros"),
	TAKEN("1A\r\n01234567890123456789012345\r\n1\r\n!\r\n" LAST,
	    "01234567890123456789012345!", "", "two chunks, upper case"),
	TAKEN("c\r\nhello\r\n0\r\n\r\n\r\n" LAST, "hello\r\n0\r\n\r\n", "",
	    "content that looks like framing"),
	{ BYTES(PIECE LAST "GET /next"), 15, BYTES("hello"), BYTES(""), "what comes next stays" },
	TAKEN("5;a\r\nhello\r\n" LAST, "hello", "", "an extension"),
	TAKEN("5;a=b;c=\"; =\\\"\\\\\xe9 \";d\r\nhello\r\n0;e=f\r\n\r\n", "hello", "",
	    "extensions, quoted and not"),
	TAKEN("5 \t;\ta = b ; c = \"d\" ;e\r\nhello\r\n" LAST, "hello", "", "bad whitespace"),
	TAKEN(PIECE "0\r\nX-Sum: 1\r\n\r\n", "hello", "X-Sum: 1\r\n", "a trailer"),
	TAKEN("0\r\nA:\r\nB: c\td\xe9 \r\n\r\n", "", "A:\r\nB: c\td\xe9 \r\n", "two trailers"),
	TAKEN("0\r\nA: 1\r\nContent-Length: 5\r\ncontent-foo: 1\r\nB: 2\r\n\r\n", "",
	    "A: 1\r\nB: 2\r\n", "content fields are dropped"),
	TAKEN("0\r\nTransfer-Encoding: chunked\r\nHost: a\r\nCookie: a\r\nSet-Cookie: a\r\n"
	    "TE: a\r\nTrailer: a\r\nVia: a\r\nDate: a\r\nExpect: a\r\n\r\n", "", "",
	    "framing and routing fields are dropped"),
	TAKEN("0\r\nX-Forwarded-For: 1\r\nX-Forwarded-Xyz: 1\r\nX-Real-IP: 1\r\n"
	    "X-Admin-Token: 1\r\nX-Request-Id: 1\r\nAuthorization: 1\r\nCache-Control: 1\r\n"
	    "Connection: X\r\nKeep-Alive: 1\r\nProxy-Authorization: 1\r\n\r\n", "", "",
	    "fields that are believed are dropped"),

	REFUSED("\r\n", "no size"),
	REFUSED(";a\r\n", "an extension and no size"),
	REFUSED(" 5\r\nhello\r\n" LAST, "a blank before the size"),
	REFUSED("5 \r\nhello\r\n" LAST, "a blank behind the size"),
	REFUSED("5\t\r\nhello\r\n" LAST, "a tab behind the size"),
	REFUSED("0x5\r\nhello\r\n" LAST, "0x"),
	REFUSED("+5\r\nhello\r\n" LAST, "a sign"),
	REFUSED("-0\r\n\r\n", "minus"),
	REFUSED("5g\r\nhello\r\n" LAST, "a letter"),
	REFUSED("5,5\r\nhello\r\n" LAST, "a comma"),
	REFUSED("5\0\r\nhello\r\n" LAST, "a NUL"),
	REFUSED("5\xa0\r\nhello\r\n" LAST, "an 8-bit blank"),
	REFUSED("00000000000000005\r\nhello\r\n" LAST, "seventeen digits"),
	REFUSED("8000000000000000\r\n", "2^63"),
	REFUSED("ffffffffffffffff\r\n", "2^64 - 1"),
	REFUSED("10000000000000005\r\nhello\r\n", "2^64 and 5"),
	REFUSED("5\nhello\r\n" LAST, "a bare LF behind the size"),
	REFUSED("5\rhello\r\n" LAST, "a bare CR behind the size"),
	REFUSED("5\r\nhello\n" LAST, "a bare LF behind the data"),
	REFUSED("5\r\nhello\rX" LAST, "a bare CR behind the data"),
	REFUSED("5\r\nhello!\r\n" LAST, "more data than the size says"),
	REFUSED("5\r\nhello0\r\n\r\n", "no CRLF behind the data"),
	REFUSED(PIECE "\r\n" LAST, "an empty line between chunks"),
	REFUSED("5;\r\nhello\r\n" LAST, "an empty extension"),
	REFUSED("5;a=\r\nhello\r\n" LAST, "an empty value"),
	REFUSED("5;=b\r\nhello\r\n" LAST, "a value without a name"),
	REFUSED("5;a b\r\nhello\r\n" LAST, "two names"),
	REFUSED("5 a\r\nhello\r\n" LAST, "a name without a semicolon"),
	REFUSED("5;a=b c\r\nhello\r\n" LAST, "two values"),
	REFUSED("5;a=b=c\r\nhello\r\n" LAST, "two equals signs"),
	REFUSED("5;a=\"b\"c\r\nhello\r\n" LAST, "text behind the quote"),
	REFUSED("5;a \r\nhello\r\n" LAST, "a blank at the end"),
	REFUSED("5;a=b \r\nhello\r\n" LAST, "a blank behind the value"),
	REFUSED("5;a=\"b\r\nhello\r\n" LAST, "a quote never closed"),
	REFUSED("5;a=\"\\\r\nhello\r\n" LAST, "an escaped CR"),
	REFUSED("5;a\nb\r\nhello\r\n" LAST, "a bare LF in an extension"),
	REFUSED("5;a\rb\r\nhello\r\n" LAST, "a bare CR in an extension"),
	REFUSED("5;\nhello\r\n" LAST, "a bare LF behind the semicolon"),
	REFUSED("5;a=\0\r\nhello\r\n" LAST, "a NUL in an extension"),
	REFUSED("5;a=\"\x7f\"\r\nhello\r\n" LAST, "DEL in an extension"),
	REFUSED("5;a\xe9\r\nhello\r\n" LAST, "an 8-bit byte in a name"),
	REFUSED("0\r\nXX\r\n\r\n", "a trailer without colon"),
	REFUSED("0\r\nGET / HTTP/1.1\r\n\r\n", "a request as trailer"),
	REFUSED("0\r\n: a\r\n\r\n", "a trailer without name"),
	REFUSED("0\r\nX : a\r\n\r\n", "space before colon in a trailer"),
	REFUSED("0\r\nX: a\r\n b\r\n\r\n", "a folded trailer"),
	REFUSED("0\r\n X: a\r\n\r\n", "a blank before a trailer"),
	REFUSED("0\r\nX: a\0\r\n\r\n", "a NUL in a trailer"),
	REFUSED("0\r\nX: a\nY: b\r\n\r\n", "a bare LF in a trailer"),
	REFUSED("0\r\nX: a\rb\r\n\r\n", "a bare CR in a trailer"),
	REFUSED("0\r\nContent-Length: \x01\r\n\r\n", "a control in a trailer to be dropped"),
	REFUSED("0\r\nX: a\r\n\n", "a bare LF as empty line"),
	REFUSED("0\r\n\n", "a bare LF at the end"),
	REFUSED("0\r\n\rX", "a bare CR at the end"),
};
/* clang-format on */

/* Any split gives the same. */
static void
test_chunks(void **state)
{
	static struct decoded d;

	(void)state;
	for (size_t i = 0; i < LEN(chunks); i++)
		for (size_t a = 0; a <= chunks[i].in.n; a++)
			for (size_t b = a; b <= chunks[i].in.n; b++) {
				decode(&d, chunks[i].in, a, b);
				chunked_expect(&chunks[i], &d, a, b);
			}
}

/* No shorter text is a whole body. */
static void
test_chunks_cut(void **state)
{
	static struct decoded d;

	(void)state;
	for (size_t i = 0; i < LEN(chunks); i++)
		for (size_t n = 0; chunks[i].want > 0 && n < (size_t)chunks[i].want; n++) {
			decode(&d, (struct slice){ chunks[i].in.p, n }, n, n);
			if (d.body.done || d.used != (ssize_t)n)
				fail_msg("%s: done when cut after %zu", chunks[i].why, n);
		}
}

static void
test_chunk_size_most(void **state)
{
	struct body b = { .kind = BODY_CHUNKED };
	struct text t = { 0 };
	char in[] = "7fffffffffffffff\r\nx";
	size_t content;

	(void)state;
	assert_int_equal(chunk_decode(&b, in, sizeof in - 1, &content, &t), sizeof in - 1);
	assert_int_equal(b.left, INT64_MAX - 1);
	assert_int_equal(content, 1);
	assert_int_equal(in[0], 'x');
}

/* in, n times over, and then: how many bytes were taken; -1. */
static ssize_t
flood(struct slice in, int n)
{
	struct body b = { .kind = BODY_CHUNKED };
	struct text t = { 0 };
	ssize_t used = 0;
	size_t content;

	for (int i = 0; i < n && used >= 0; i++) {
		char *p = exact(in);
		used = chunk_decode(&b, p, in.n, &content, &t);
		free(p);
	}
	return used;
}

static void
test_chunk_floods(void **state)
{
	static char line[CHUNK_EXT_MAX + 64];
	struct text t = { line, 0, sizeof line, false };

	(void)state;
	assert_true(flood(S("1\r\nx\r\n"), 100000) > 0);
	assert_true(flood(S("1;0123456789012345\r\nx\r\n"), 100000) > 0);
	assert_int_equal(flood(S("1;01234567890123456789\r\nx\r\n"), 100000), -1);
	assert_true(flood(S("1;name=value;other=\"quoted\"\r\ne\r\n"), 500) > 0);
	text_str(&t, "1;");
	while (t.n < CHUNK_EXT_MAX + 1)
		text_char(&t, 'x');
	text_str(&t, "\r\nx\r\n");
	assert_true(flood(text_slice(&t), 1) > 0);
	t.n -= 5;
	text_str(&t, "x\r\nx\r\n");
	assert_int_equal(flood(text_slice(&t), 1), -1);
}

/* Trailers that do not fit are an error, dropped ones count as read. */
static void
test_trailer_limits(void **state)
{
	char room[8], in[] = "0\r\nAb: 1\r\nC:2\r\n\r\n";
	static const char drop[] = "Via: 5678901234567890\r\n";
	struct text t = { room, 0, sizeof room, false };
	struct body b = { .kind = BODY_CHUNKED };
	static char big[TRAILER_MAX];
	char copy[sizeof drop];
	size_t content;
	ssize_t used;

	(void)state;
	assert_int_equal(chunk_decode(&b, in, sizeof in - 1, &content, &t), -1);
	b = (struct body){ .kind = BODY_CHUNKED, .chunk = CHUNK_TRAILER };
	t = (struct text){ big, 0, sizeof big, false };
	for (int i = 0; i < (int)(CHUNK_EXT_MAX / (sizeof drop - 1)); i++) {
		memcpy(copy, drop, sizeof drop);
		used = chunk_decode(&b, copy, sizeof drop - 1, &content, &t);
		assert_int_equal(used, sizeof drop - 1);
		assert_int_equal(t.n, 0);
	}
	memcpy(copy, drop, sizeof drop);
	assert_int_equal(chunk_decode(&b, copy, sizeof drop - 1, &content, &t), -1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_request_parts),
		cmocka_unit_test(test_request_fields),
		cmocka_unit_test(test_request_limits),
		cmocka_unit_test(test_field_limits),
		cmocka_unit_test(test_connection_limit),
		cmocka_unit_test(test_responses),
		cmocka_unit_test(test_head_scan),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_chars),
		cmocka_unit_test(test_value_end),
		cmocka_unit_test(test_status_text),
		cmocka_unit_test(test_hop_by_hop),
		cmocka_unit_test(test_body_of_request),
		cmocka_unit_test(test_body_of_response),
		cmocka_unit_test(test_body_take),
		cmocka_unit_test(test_chunks),
		cmocka_unit_test(test_chunks_cut),
		cmocka_unit_test(test_chunk_size_most),
		cmocka_unit_test(test_chunk_floods),
		cmocka_unit_test(test_trailer_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
