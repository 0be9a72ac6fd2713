/* Heads, framing and chunks: what is taken, what is refused, and that it does
 * not matter in which pieces it comes. RFC 9110, 9112. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

enum { TRAILER_MAX = 4096 }; /* room the tests give for trailers */

#define GET  "GET / HTTP/1.1\r\n"
#define HOST "Host: a\r\n"
#define END  "\r\n"

enum { ALL = 1 /* the whole row is a head */ };

static struct head head;

/* A head full of rubbish, so that what is not set is noticed. */
static int
parse(int (*parser)(struct head *, struct slice), struct slice in)
{
	memset(&head, 0x5a, sizeof head);
	return parser(&head, in);
}

struct row {
	struct slice in;
	int want; /* ALL, 0 unfinished, or minus the status */
	const char *why;
};

/* Every shorter text is unfinished or an error, and an error stays one. */
static void
cut_short(int (*parser)(struct head *, struct slice), const struct row *r)
{
	bool failed = false;

	for (size_t n = 0; n < r->in.n; n++) {
		struct slice in = exact((struct slice){ r->in.p, n });
		uint32_t scanned = 0;
		int got = parse(parser, in), end = head_scan(in, &scanned);

		if (got > 0 || (got < 0 && r->want == ALL) || (failed && got >= 0))
			row_bad(r->why, in, "cut short at %zu: %d", n, got);
		if (end > 0 && got == 0)
			row_bad(r->why, in, "cut at %zu: head_scan sees an end at %d, the parser none",
			    n, end);
		failed = got < 0;
		exact_free(in);
	}
}

/* Byte by byte, as a slow client sends it. */
static void
scan(const struct row *r)
{
	struct slice in = exact(r->in);
	uint32_t scanned = 0;
	int got = 0;

	for (size_t n = 0; n <= in.n && got == 0; n++)
		got = head_scan((struct slice){ in.p, n }, &scanned);
	if (r->want == ALL)
		row_int(r->why, in, "head_scan", got, (int)in.n);
	if (r->want == 0)
		row_int(r->why, in, "head_scan", got, 0);
	exact_free(in);
}

static void
rows_run(int (*parser)(struct head *, struct slice), const struct row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct row *r = &rows[i];
		struct slice in = exact(r->in);

		row_int(r->why, in, "result", parse(parser, in), r->want == ALL ? (int)in.n : r->want);
		exact_free(in);
		cut_short(parser, r);
		scan(r);
	}
	rows_end();
}

/* ---- requests ---- */

/* clang-format off */
static const struct row requests[] = {
	/* forms; RFC 9112 3.2 */
	{ T(GET HOST END), ALL, "plain" },
	{ T("GET /a/b?c=d&e HTTP/1.1\r\n" HOST END), ALL, "path and query" },
	{ T("GET /? HTTP/1.1\r\n" HOST END), ALL, "empty query" },
	{ T("GET http://h/p?q HTTP/1.1\r\n" HOST END), ALL, "absolute form" },
	{ T("GET HTTP://h HTTP/1.1\r\n" HOST END), ALL, "scheme in capitals, no path" },
	{ T("GET https://h:1/ HTTP/1.1\r\n" HOST END), ALL, "absolute with https" },
	{ T("GET http://h?q HTTP/1.1\r\n" HOST END), ALL, "absolute, query without path" },
	{ T("GET http://[::1]:80/ HTTP/1.1\r\n" HOST END), ALL, "absolute with IPv6" },
	{ T("GET http:// HTTP/1.1\r\n" HOST END), -400, "absolute without authority" },
	{ T("GET http://h/ HTTP/1.1\r\nHost:\r\n" END), ALL, "absolute, empty Host: RFC 9112 3.2.2" },
	{ T("GET http:///p HTTP/1.1\r\n" HOST END), -400, "absolute with empty authority" },
	{ T("GET http://u@h/ HTTP/1.1\r\n" HOST END), -400, "user info" },
	{ T("GET http://h:99999/ HTTP/1.1\r\n" HOST END), -400, "port too large" },
	{ T("GET http://:80/ HTTP/1.1\r\n" HOST END), -400, "port alone" },
	{ T("GET http://h/ HTTP/1.1\r\n" END), -400, "absolute, no Host" },
	{ T("GET http://h/ HTTP/1.0\r\n" END), ALL, "absolute in 1.0" },
	{ T("GET ftp://h/ HTTP/1.1\r\n" HOST END), -400, "unknown scheme" },
	{ T("GET a HTTP/1.1\r\n" HOST END), -400, "relative target" },
	{ T("GET ?a HTTP/1.1\r\n" HOST END), -400, "query alone" },
	{ T("OPTIONS * HTTP/1.1\r\n" HOST END), ALL, "asterisk form" },
	{ T("GET * HTTP/1.1\r\n" HOST END), -400, "asterisk but for OPTIONS" },
	{ T("OPTIONS ** HTTP/1.1\r\n" HOST END), -400, "two asterisks" },
	{ T("CONNECT h:443 HTTP/1.1\r\n" HOST END), -501, "CONNECT" },
	{ T("CONNECT / HTTP/1.1\r\n" HOST END), -501, "CONNECT, whatever the target" },
	{ T("GET /a#b HTTP/1.1\r\n" HOST END), -400, "fragment" },
	{ T("GET /\x01 HTTP/1.1\r\n" HOST END), -400, "control byte in the target" },
	{ T("GET /\x7f HTTP/1.1\r\n" HOST END), -400, "DEL in the target" },
	{ T("GET /\0 HTTP/1.1\r\n" HOST END), -400, "NUL in the target" },
	{ T("GET /\t HTTP/1.1\r\n" HOST END), -400, "tab in the target" },
	{ T("GET /\xc3\xa4 HTTP/1.1\r\n" HOST END), ALL, "bytes of UTF-8 in the target" },

	/* request line; RFC 9112 3 */
	{ T("\r\n" GET HOST END), ALL, "an empty line in front" },
	{ T("\r\n\r\n" GET HOST END), ALL, "two empty lines in front" },
	{ T("\r\n\r\n\r\n" GET HOST END), -400, "three empty lines in front" },
	{ T("\n" GET HOST END), -400, "bare LF in front" },
	{ T(" " GET HOST END), -400, "space in front" },
	{ T("GET  / HTTP/1.1\r\n" HOST END), -400, "two spaces" },
	{ T("GET /  HTTP/1.1\r\n" HOST END), -400, "two spaces before the version" },
	{ T("GET / HTTP/1.1 \r\n" HOST END), -400, "space behind the version" },
	{ T("GET\t/\tHTTP/1.1\r\n" HOST END), -400, "tabs for spaces" },
	{ T("GET /\r\n" HOST END), -400, "HTTP/0.9" },
	{ T("GET\r\n" HOST END), -400, "method alone" },
	{ T("GET / http/1.1\r\n" HOST END), -400, "version in small letters" },
	{ T("GET / HTTP/1\r\n" HOST END), -400, "version without minor" },
	{ T("GET / HTTP/1.10\r\n" HOST END), -400, "two digits of minor" },
	{ T("GET / HTTP/01.1\r\n" HOST END), -400, "two digits of major" },
	{ T("GET / HTTP/1,1\r\n" HOST END), -400, "comma in the version" },
	{ T("GET / HTTP/a.1\r\n" HOST END), -400, "letter in the version" },
	{ T("GET / HTTPS/1.1\r\n" HOST END), -400, "another protocol" },
	{ T("GET / HTTP/0.9\r\n" HOST END), -505, "0.9 by name" },
	{ T("GET / HTTP/2.0\r\n" HOST END), -505, "2.0" },
	{ T("GET / HTTP/9.9\r\n" HOST END), -505, "9.9" },
	{ T("GET / HTTP/1.2\r\n" HOST END), ALL, "1.2 is taken for 1.1" },
	{ T("GET / HTTP/1.0\r\n" END), ALL, "1.0 needs no Host" },
	{ T("GET / HTTP/1.0\r\n" HOST HOST END), -400, "1.0 with two Hosts" },
	{ T("get / HTTP/1.1\r\n" HOST END), ALL, "methods are case-sensitive: some other method" },
	{ T("A-b!#$%&'*+.^_`|~0 / HTTP/1.1\r\n" HOST END), ALL, "every token byte" },
	{ T("G(T / HTTP/1.1\r\n" HOST END), -400, "no token byte in the method" },
	{ T("G\xc3T / HTTP/1.1\r\n" HOST END), -400, "high byte in the method" },
	{ T("M234567890123456789012345678901234567890123456789012345678901234 / HTTP/1.1\r\n"
	    HOST END), ALL, "method of 64 bytes" },
	{ T("M2345678901234567890123456789012345678901234567890123456789012345 / HTTP/1.1\r\n"
	    HOST END), -400, "method of 65 bytes" },
	{ T(" / HTTP/1.1\r\n" HOST END), -400, "empty method" },

	/* what cannot become a request is refused before it is whole */
	{ T("\x16\x03\x01\0\x2d\x01"), -400, "TLS" },
	{ T("SSH-2.0-OpenSSH_9.2p1"), 0, "SSH, which may be a method so far" },
	{ T("SSH-2.0-OpenSSH_9.2p1\r\n"), -400, "but not at the end of its line" },
	{ T("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), -505, "HTTP/2" },
	{ T("G\0T"), -400, "NUL in an unfinished method" },
	{ T("GET /\x01"), -400, "control byte in an unfinished target" },
	{ T("GET / HTTX"), -400, "another protocol, unfinished" },
	{ T("GET / HTTP/1.1\n"), -400, "bare LF in an unfinished head" },
	{ T("GET / HTTP/1.1\rX"), -400, "bare CR in an unfinished head" },
	{ T("GET / HTTP/1.1\r\nX: \x01"), -400, "control byte in an unfinished field" },
	{ T("\r"), 0, "half an empty line in front" },
	{ T("\r\n\r\n\r"), -400, "half of a third" },
	{ T("\rGET"), -400, "bare CR in front" },

	/* lines; RFC 9112 2.2 */
	{ T("GET / HTTP/1.1\n" HOST END), -400, "bare LF behind the request line" },
	{ T(GET "Host: a\n\r\n"), -400, "bare LF behind a field" },
	{ T(GET HOST "\n"), -400, "bare LF at the end" },
	{ T(GET HOST "X: a\rb\r\n" END), -400, "bare CR in a value" },
	{ T(GET HOST "X: a\r\r\n" END), -400, "two CRs" },
	{ T(GET HOST "\r\r\n" END), -400, "CR for an empty line" },
	{ T("GET / HTTP/1.1\r\r\n" HOST END), -400, "CR in the version" },
	{ T(GET HOST "X: a\r\n b\r\n" END), -400, "obs-fold" },
	{ T(GET HOST "X: a\r\n\tb\r\n" END), -400, "obs-fold with a tab" },
	{ T(GET " X: a\r\n" HOST END), -400, "space before the first field" },
	{ T(""), 0, "nothing" },
	{ T("\r\n"), 0, "an empty line alone" },
	{ T(GET HOST), 0, "no empty line yet" },

	/* fields; RFC 9112 5 */
	{ T(GET "Host : a\r\n" END), -400, "space before colon" },
	{ T(GET HOST "X\t: a\r\n" END), -400, "tab before colon" },
	{ T(GET HOST ": a\r\n" END), -400, "empty name" },
	{ T(GET HOST "X\r\n" END), -400, "no colon" },
	{ T(GET HOST "X(: a\r\n" END), -400, "no token byte in the name" },
	{ T(GET HOST "X\0: a\r\n" END), -400, "NUL in the name" },
	{ T(GET HOST "\xc3: a\r\n" END), -400, "high byte in the name" },
	{ T(GET HOST "X: a\0b\r\n" END), -400, "NUL in the value" },
	{ T(GET HOST "X: a\x0b\r\n" END), -400, "VT in the value" },
	{ T(GET HOST "X: a\x7f\r\n" END), -400, "DEL in the value" },
	{ T(GET HOST "X: a\xc3\xa4\tb\r\n" END), ALL, "high bytes and a tab in the value" },
	{ T(GET HOST "X:\r\n" END), ALL, "empty value" },
	{ T(GET HOST "X: \t \r\n" END), ALL, "value of blanks" },
	{ T(GET HOST "X:a\r\n" END), ALL, "no blank behind the colon" },
	{ T(GET HOST "X: a: b:\r\n" END), ALL, "colons in the value" },

	/* Host; RFC 9112 3.2, 9110 7.2 */
	{ T(GET END), -400, "no Host" },
	{ T(GET HOST HOST END), -400, "Host twice, alike" },
	{ T(GET "Host: a\r\nhost: b\r\n" END), -400, "Host twice" },
	{ T(GET "Host:\r\n" END), ALL, "empty Host" },
	{ T(GET "HOST: a\r\n" END), ALL, "name in capitals" },
	{ T(GET "Host: a.b-c_d.:8080\r\n" END), ALL, "port" },
	{ T(GET "Host: a:\r\n" END), ALL, "empty port" },
	{ T(GET "Host: :80\r\n" END), -400, "port alone" },
	{ T(GET "Host: a:b\r\n" END), -400, "port of letters" },
	{ T(GET "Host: a:65536\r\n" END), -400, "port too large" },
	{ T(GET "Host: a:80:80\r\n" END), -400, "two ports" },
	{ T(GET "Host: a b\r\n" END), -400, "blank in Host" },
	{ T(GET "Host: a,b\r\n" END), -400, "list in Host" },
	{ T(GET "Host: a/b\r\n" END), -400, "slash in Host" },
	{ T(GET "Host: a@b\r\n" END), -400, "user info in Host" },
	{ T(GET "Host: a\\b\r\n" END), -400, "backslash in Host" },
	{ T(GET "Host: a?b\r\n" END), -400, "query in Host" },
	{ T(GET "Host: \xc3\xa4\r\n" END), -400, "UTF-8 in Host" },
	{ T(GET "Host: [::1]\r\n" END), ALL, "IPv6" },
	{ T(GET "Host: [::1]:80\r\n" END), ALL, "IPv6 and port" },
	{ T(GET "Host: [::ffff:1.2.3.4]\r\n" END), ALL, "IPv6 with a dotted end" },
	{ T(GET "Host: [::1\r\n" END), -400, "IPv6 not closed" },
	{ T(GET "Host: [::1]x\r\n" END), -400, "something behind IPv6" },
	{ T(GET "Host: [g]\r\n" END), -400, "no IPv6" },
	{ T(GET "Host: [\r\n" END), -400, "a bracket" },
	{ T(GET "Host: []\r\n" END), -400, "empty brackets" },
	{ T(GET "Host: [1::2::3]\r\n" END), -400, "IPv6 with two gaps" },
	{ T(GET "Host: [1.2.3.4]\r\n" END), -400, "IPv4 in brackets" },
	{ T(GET "Host: [::1%25lo]\r\n" END), -400, "zone" },
	{ T(GET "Host: [::1\0]\r\n" END), -400, "NUL in IPv6" },
	{ T(GET "Host: ::1\r\n" END), -400, "IPv6 without brackets" },
	{ T(GET "Host: A-b_c.d~!$&'*+=1:65535\r\n" END), ALL, "every byte of a host" },
	{ T(GET "Host: a;b\r\n" END), -400, "semicolon in Host" },
	{ T(GET "Host: a%2Db\r\n" END), ALL, "escape in Host" },
	{ T(GET "Host: a%2\r\n" END), -400, "escape cut by the end" },
	{ T(GET "Host: a%2x\r\n" END), -400, "no escape" },
	{ T(GET "Host: a\tb\r\n" END), -400, "tab in Host" },
	{ T(GET "Host: a#b\r\n" END), -400, "fragment in Host" },
	{ T("GET http://h/ HTTP/1.1\r\nHost: a/b\r\n" END), -400, "absolute, bad Host" },
};

static const struct {
	struct slice in;
	enum method method;
	enum target_form form;
	int minor, n;
	const char *target, *path, *query, *host; /* query NULL: none */
	bool plain;
	const char *why;
} requests_seen[] = {
	{ T(GET HOST END), M_GET, TARGET_ORIGIN, 1, 1, "/", "/", NULL, "a", true, "plain" },
	{ T("HEAD /x?y?z HTTP/1.0\r\n" END), M_HEAD, TARGET_ORIGIN, 0, 0, "/x?y?z", "/x", "y?z", "",
	    true, "question mark in a query" },
	{ T("POST /? HTTP/1.1\r\nA: b\r\n" HOST END), M_POST, TARGET_ORIGIN, 1, 2, "/?", "/", "", "a",
	    true, "empty query" },
	{ T("PUT http://H:81/p?q HTTP/1.1\r\n" HOST END), M_PUT, TARGET_ABSOLUTE, 1, 1,
	    "http://H:81/p?q", "/p", "q", "H:81", true, "the authority wins over Host" },
	{ T("DELETE http://h HTTP/1.1\r\n" HOST END), M_DELETE, TARGET_ABSOLUTE, 1, 1, "http://h", "/",
	    NULL, "h", true, "absolute without path" },
	{ T("PATCH http://h?q HTTP/1.1\r\n" HOST END), M_PATCH, TARGET_ABSOLUTE, 1, 1, "http://h?q",
	    "/", "q", "h", true, "absolute, query alone" },
	{ T("OPTIONS * HTTP/1.1\r\n" HOST END), M_OPTIONS, TARGET_ASTERISK, 1, 1, "*", "/", NULL, "a",
	    true, "asterisk" },
	{ T("TRACE / HTTP/1.1\r\nHost: \t A \t\r\n" END), M_TRACE, TARGET_ORIGIN, 1, 1, "/", "/", NULL,
	    "A", true, "value trimmed" },
	{ T("get / HTTP/1.1\r\n" HOST END), M_OTHER, TARGET_ORIGIN, 1, 1, "/", "/", NULL, "a", true,
	    "methods are case-sensitive" },
	{ T("GET /a%62 HTTP/1.1\r\n" HOST END), M_GET, TARGET_ORIGIN, 1, 1, "/a%62", "/a%62", NULL, "a",
	    false, "an escape is not plain" },
	{ T("GET /a//b HTTP/1.1\r\n" HOST END), M_GET, TARGET_ORIGIN, 1, 1, "/a//b", "/a//b", NULL, "a",
	    false, "two slashes are not plain" },
	{ T("GET /a/.b HTTP/1.1\r\n" HOST END), M_GET, TARGET_ORIGIN, 1, 1, "/a/.b", "/a/.b", NULL, "a",
	    false, "a dot may be a dot segment" },
	{ T("GET /a?/../%2f HTTP/1.1\r\n" HOST END), M_GET, TARGET_ORIGIN, 1, 1, "/a?/../%2f", "/a",
	    "/../%2f", "a", true, "the query is not looked at" },
};
/* clang-format on */

static void
test_requests(void **state)
{
	(void)state;
	rows_run(request_parse, requests, LEN(requests));
}

static void
test_requests_seen(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(requests_seen); i++) {
		const char *why = requests_seen[i].why, *query = requests_seen[i].query;
		struct slice in = exact(requests_seen[i].in);

		row_int(why, in, "result", parse(request_parse, in), (int)in.n);
		row_int(why, in, "method", head.method, requests_seen[i].method);
		row_int(why, in, "form", head.form, requests_seen[i].form);
		row_int(why, in, "minor", head.minor, requests_seen[i].minor);
		row_int(why, in, "number of fields", head.n, requests_seen[i].n);
		row_int(why, in, "has_query", head.has_query, query != NULL);
		row_int(why, in, "path_plain", head.path_plain, requests_seen[i].plain);
		row_slice(why, in, "target", head.target, slice_of(requests_seen[i].target));
		row_slice(why, in, "path", head.path, slice_of(requests_seen[i].path));
		row_slice(why, in, "query", head.query, slice_of(query));
		row_slice(why, in, "host", head.host, slice_of(requests_seen[i].host));
		exact_free(in);
	}
	rows_end();
}

/* What stands behind the head is not the head's. */
static void
test_request_then_more(void **state)
{
	struct slice in = exact(S(GET HOST END "POST / HTTP/1.1\r\n\n"));
	uint32_t scanned = 0;

	(void)state;
	assert_int_equal(parse(request_parse, in), sizeof GET HOST END - 1);
	assert_int_equal(head_scan(in, &scanned), sizeof GET HOST END - 1);
	exact_free(in);
}

/* A path that counts as plain is its own normalised view: routes see the same
 * whichever way was taken. */
static void
test_plain_is_normal(void **state)
{
	static const char bytes[] = "/..\\%2fFe5Cab?;";
	struct path_view view;

	(void)state;
	for (int i = 0; i < 200000 && rows_bad < 5; i++) {
		char text[64] = "GET /";
		size_t n = 5, more = dice(10);
		struct slice in;

		while (more-- > 0)
			text[n++] = bytes[dice(sizeof bytes - 1)];
		n += (size_t)snprintf(text + n, sizeof text - n, " HTTP/1.0\r\n\r\n");
		in = (struct slice){ text, n };
		if (parse(request_parse, in) <= 0 || !head.path_plain)
			continue;
		if (path_normalise(head.path, &view) < 0)
			row_bad("plain path", in, "path_normalise refuses it");
		else
			row_slice("plain path", in, "view", view.path, head.path);
	}
	rows_end();
}

static struct slice
repeated(struct text *t, size_t times, const char *s)
{
	while (times-- > 0)
		text_str(t, s);
	return text_slice(t);
}

static void
test_request_too_much(void **state)
{
	static char b[4 * TARGET_MAX];
	const struct { int fields, want; } rows[] = {
		{ FIELDS_MAX - 1, 1 }, { FIELDS_MAX, -431 }, { FIELDS_MAX + 9, -431 } };
	const struct { size_t target; int want; const char *end; } targets[] = {
		{ TARGET_MAX, 1, " HTTP/1.1\r\n" HOST END },
		{ TARGET_MAX + 1, -414, " HTTP/1.1\r\n" HOST END },
		{ TARGET_MAX + 1, -414, " HTTP/1.1\r\n" },
		{ TARGET_MAX - 1, 0, "" },
		{ TARGET_MAX, 0, "" },
		{ TARGET_MAX + 1, -414, "" },
		{ 2 * TARGET_MAX, -414, "" },
		{ 2 * TARGET_MAX, -414, " HTTP/2.0\r\n" HOST END },
	};

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		struct text t = { b, 0, sizeof b, false };
		struct slice in;
		int got;

		text_str(&t, GET HOST);
		repeated(&t, (size_t)rows[i].fields, "X: y\r\n");
		text_str(&t, END);
		in = exact(text_slice(&t));
		got = parse(request_parse, in);
		row_int("number of fields", in, "result", got > 0 ? 1 : got, rows[i].want);
		exact_free(in);
	}
	for (size_t i = 0; i < LEN(targets); i++) {
		struct text t = { b, 0, sizeof b, false };
		struct slice in;
		int got;

		text_str(&t, "GET /");
		repeated(&t, targets[i].target - 1, "x");
		text_str(&t, targets[i].end);
		in = exact(text_slice(&t));
		got = parse(request_parse, in);
		row_int("length of the target", in, "result", got > 0 ? 1 : got, targets[i].want);
		exact_free(in);
	}
	rows_end();
}

/* What removing hop-by-hop fields costs is bounded. */
static void
test_connection_options(void **state)
{
	char b[1024];
	struct text t = { b, 0, sizeof b, false };

	(void)state;
	text_str(&t, GET HOST "Connection: x");
	repeated(&t, CONNECTION_OPTIONS - 2, ",x");
	text_str(&t, "\r\nConnection: y\r\n" END);
	assert_int_equal(parse(request_parse, text_slice(&t)), t.n);
	t.n -= 4;
	text_str(&t, ",z\r\n" END);
	assert_int_equal(parse(request_parse, text_slice(&t)), -400);
}

/* What was looked at is not looked at again; empty lines in front are not the
 * end, and more than two of them are no head. */
static void
test_head_scan(void **state)
{
	static const struct row rows[] = {
		{ T("A\r\nB\r\n"), 0, "not yet" },
		{ T("\r\nA\r\n\r\n"), ALL, "an empty line in front" },
		{ T("\r\n\r\nA\r\n\r\n"), ALL, "two" },
		{ T("\r\n\r\n"), 0, "two, and nothing behind" },
	};
	struct slice in = S("A\r\nB\r\n\r\nnext");
	uint32_t scanned = 0;

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++)
		scan(&rows[i]);
	rows_end();
	assert_int_equal(head_scan((struct slice){ in.p, 5 }, &scanned), 0);
	assert_int_equal(scanned, 5);
	assert_int_equal(head_scan(in, &scanned), 8);
	scanned = 0;
	assert_int_equal(head_scan(S("\r\n\r\n\r\n"), &scanned), -400);
	assert_int_equal(head_scan(S("A\r\n\n"), &scanned), -400);
	assert_int_equal(head_scan(S("\n"), &scanned), -400);
	assert_int_equal(head_scan(S("\r\n\n"), &scanned), -400);
}

/* ---- responses ---- */

/* clang-format off */
static const struct row responses[] = {
	{ T("HTTP/1.1 200 OK\r\n\r\n"), ALL, "plain" },
	{ T("HTTP/1.0 200 OK\r\nA: b\r\n\r\n"), ALL, "1.0" },
	{ T("HTTP/1.1 200 \r\n\r\n"), ALL, "no reason" },
	{ T("HTTP/1.1 200\r\n\r\n"), ALL, "nor a space" },
	{ T("HTTP/1.1 404 Not  found\t\xc3\xa4\r\n\r\n"), ALL, "any text as reason" },
	{ T("HTTP/1.7 200 OK\r\n\r\n"), ALL, "1.7 is 1.1" },
	{ T("HTTP/1.1 100 Continue\r\n\r\n"), ALL, "interim" },
	{ T("HTTP/1.1 599 x\r\n\r\n"), ALL, "the last status" },
	{ T("HTTP/1.1 600 x\r\n\r\n"), -502, "beyond it" },
	{ T("HTTP/1.1 099 x\r\n\r\n"), -502, "below the first status" },
	{ T("HTTP/1.1 000 x\r\n\r\n"), -502, "zeros" },
	{ T("HTTP/1.1 20 OK\r\n\r\n"), -502, "two digits" },
	{ T("HTTP/1.1 2000 OK\r\n\r\n"), -502, "four digits" },
	{ T("HTTP/1.1 2x0 OK\r\n\r\n"), -502, "letters" },
	{ T("HTTP/1.1 +20 OK\r\n\r\n"), -502, "sign" },
	{ T("HTTP/1.1 200OK\r\n\r\n"), -502, "no space before the reason" },
	{ T("HTTP/1.1  200 OK\r\n\r\n"), -502, "two spaces" },
	{ T("HTTP/1.1\t200 OK\r\n\r\n"), -502, "tab" },
	{ T("HTTP/2.0 200 OK\r\n\r\n"), -502, "another version" },
	{ T("HTTP/1.x 200 OK\r\n\r\n"), -502, "letter for minor" },
	{ T("HTTP/1.10 200 OK\r\n\r\n"), -502, "two digits of minor" },
	{ T("http/1.1 200 OK\r\n\r\n"), -502, "small letters" },
	{ T("ICY 200 OK\r\n\r\n"), -502, "another protocol" },
	{ T("<html>\r\n\r\n"), -502, "HTTP/0.9" },
	{ T("\r\nHTTP/1.1 200 OK\r\n\r\n"), -502, "empty line in front" },
	{ T("HTTP/1.1 200 O\0K\r\n\r\n"), -502, "NUL in the reason" },
	{ T("HTTP/1.1 200 O\rK\r\n\r\n"), -502, "CR in the reason" },
	{ T("HTTP/1.1 200 OK\nA: b\n c\n\n"), -502, "obs-fold behind a bare LF" },
	{ T("HTTP/1.1 200 OK\nA: b\r\r\n\n"), -502, "two CRs" },
	{ T("HTTP/1.1 200 O\rK\n\n"), -502, "CR in the reason, bare LF behind" },
	{ T("\nHTTP/1.1 200 OK\n\n"), -502, "a bare LF in front" },
	{ T("HTTP/1.1 200 OK\r\nA : b\r\n\r\n"), -502, "space before colon" },
	{ T("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"), -502, "obs-fold" },
	{ T("HTTP/1.1 200 OK\r\nA\r\n\r\n"), -502, "no colon" },
	{ T("HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n"), -502, "NUL in a value" },
	{ T(""), 0, "nothing" },
	{ T("HTTP/1.1 200 OK\r\n"), 0, "no empty line yet" },
	{ T("SSH-2"), -502, "another protocol, unfinished" },
	{ T("HTTP/1.1\r\n"), -502, "no status" },
	{ T("HTTP/1.1 \n"), -502, "no status, bare LF" },
	{ T("HTTP/1.1 200\tOK\r\n\r\n"), -502, "tab behind the status" },
	{ T("HTTP/1.1 200 OK\r\nA: \x01"), -502, "control byte in an unfinished field" },
};
/* clang-format on */

static void
test_responses(void **state)
{
	(void)state;
	rows_run(response_parse, responses, LEN(responses));
}

/* Bare LF ends a line of a response, and only of a response. RFC 9112 2.2. */
static void
test_responses_lf(void **state)
{
	/* clang-format off */
	static const struct {
		struct slice in;
		int n;
		const char *reason, *value; /* of the field A */
		const char *why;
	} rows[] = {
		{ T("HTTP/1.1 200 OK\n\n"), 0, "OK", NULL, "a status line alone" },
		{ T("HTTP/1.1 200\n\n"), 0, "", NULL, "no reason" },
		{ T("HTTP/1.1 200 \n\n"), 0, "", NULL, "an empty one" },
		{ T("HTTP/1.1 200 OK\n\r\n"), 0, "OK", NULL, "LF, CRLF" },
		{ T("HTTP/1.1 200 OK\r\n\n"), 0, "OK", NULL, "CRLF, LF" },
		{ T("HTTP/1.1 200 OK\nA: b\nC: d\n\n"), 2, "OK", "b", "every line" },
		{ T("HTTP/1.1 200 OK\nA: b\r\nC: d\r\n\r\n"), 2, "OK", "b", "the first" },
		{ T("HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n"), 2, "OK", "b", "the second" },
		{ T("HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n\n"), 2, "OK", "b", "the last" },
		{ T("HTTP/1.1 200 OK\nA:\t b \t\n\n"), 1, "OK", "b", "blanks before it" },
		{ T("HTTP/1.1 200 OK\nA:\n\n"), 1, "OK", "", "an empty value" },
	};
	/* clang-format on */

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		const char *why = rows[i].why;
		struct slice in = exact(rows[i].in);
		int got;

		got = parse(response_parse, in);
		row_int(why, in, "result", got, (int)in.n);
		if (got > 0) {
			row_int(why, in, "number of fields", head.n, rows[i].n);
			row_slice(why, in, "reason", head.reason, slice_of(rows[i].reason));
		}
		if (got > 0 && head.n > 0)
			row_slice(why, in, "value", head.f[0].value, slice_of(rows[i].value));
		exact_free(in);
		for (size_t n = 0; n < rows[i].in.n; n++) {
			in = exact((struct slice){ rows[i].in.p, n });
			row_int(why, in, "cut short", parse(response_parse, in), 0);
			exact_free(in);
		}
	}
	rows_end();
}

static void
test_responses_seen(void **state)
{
	static const struct {
		struct slice in;
		int status, minor, n;
		const char *reason;
	} rows[] = {
		{ T("HTTP/1.1 200 OK\r\n\r\n"), 200, 1, 0, "OK" },
		{ T("HTTP/1.0 404 Not found \r\nA:b\r\nC:d\r\n\r\n"), 404, 0, 2, "Not found " },
		{ T("HTTP/1.1 599\r\n\r\n"), 599, 1, 0, "" },
		{ T("HTTP/1.1 101 \r\n\r\n"), 101, 1, 0, "" },
	};

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		struct slice in = exact(rows[i].in);

		row_int("seen", in, "result", parse(response_parse, in), (int)in.n);
		row_int("seen", in, "status", head.status, rows[i].status);
		row_int("seen", in, "minor", head.minor, rows[i].minor);
		row_int("seen", in, "number of fields", head.n, rows[i].n);
		row_slice("seen", in, "reason", head.reason, slice_of(rows[i].reason));
		exact_free(in);
	}
	rows_end();
}

static void
test_response_too_much(void **state)
{
	static char b[8 * FIELDS_MAX];
	struct text t = { b, 0, sizeof b, false };

	(void)state;
	text_str(&t, "HTTP/1.1 200 OK\r\n");
	repeated(&t, FIELDS_MAX, "X: y\r\n");
	text_str(&t, END);
	assert_int_equal(parse(response_parse, text_slice(&t)), t.n);
	assert_int_equal(head.n, FIELDS_MAX);
	t.n -= 2;
	text_str(&t, "X: y\r\n" END);
	assert_int_equal(parse(response_parse, text_slice(&t)), -502);
}

/* ---- where bodies end ---- */

/* clang-format off */
static const struct {
	const char *fields;
	int minor, want;
	enum body_kind kind;
	uint64_t left;
	const char *why;
} request_bodies[] = {
	{ "", 1, 0, BODY_NONE, 0, "none" },
	{ "Content-Length: 0\r\n", 1, 0, BODY_LENGTH, 0, "empty" },
	{ "Content-Length: 5\r\n", 1, 0, BODY_LENGTH, 5, "length" },
	{ "Content-Length: 5\r\n", 0, 0, BODY_LENGTH, 5, "length in 1.0" },
	{ "Content-Length: 007\r\n", 1, 0, BODY_LENGTH, 7, "leading zeros" },
	{ "content-length:\t5 \r\n", 1, 0, BODY_LENGTH, 5, "blanks around" },
	{ "Content-Length: 9223372036854775807\r\n", 1, 0, BODY_LENGTH, INT64_MAX, "the longest" },
	{ "Content-Length: 9223372036854775808\r\n", 1, -400, BODY_NONE, 0, "one more" },
	{ "Content-Length: 18446744073709551616\r\n", 1, -400, BODY_NONE, 0, "2^64" },
	{ "Content-Length: 99999999999999999999999\r\n", 1, -400, BODY_NONE, 0, "far too long" },
	{ "Content-Length:\r\n", 1, -400, BODY_NONE, 0, "empty value" },
	{ "Content-Length: -1\r\n", 1, -400, BODY_NONE, 0, "negative" },
	{ "Content-Length: +1\r\n", 1, -400, BODY_NONE, 0, "sign" },
	{ "Content-Length: 1 2\r\n", 1, -400, BODY_NONE, 0, "blank within" },
	{ "Content-Length: 0x10\r\n", 1, -400, BODY_NONE, 0, "hexadecimal" },
	{ "Content-Length: 1.0\r\n", 1, -400, BODY_NONE, 0, "fraction" },
	{ "Content-Length: 5, 5\r\n", 1, -400, BODY_NONE, 0, "list, stricter than RFC 9110 8.6" },
	{ "Content-Length: 5\r\nContent-Length: 5\r\n", 1, -400, BODY_NONE, 0, "twice, alike" },
	{ "Content-Length: 5\r\nContent-Length: 6\r\n", 1, -400, BODY_NONE, 0, "twice" },
	{ "Transfer-Encoding: chunked\r\n", 1, 0, BODY_CHUNKED, 0, "chunked" },
	{ "transfer-encoding:CHUNKED\r\n", 1, 0, BODY_CHUNKED, 0, "codings are case-insensitive" },
	{ "Transfer-Encoding: chunked\r\n", 0, -400, BODY_NONE, 0, "chunked in 1.0" },
	{ "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 1, -400, BODY_NONE, 0, "both" },
	{ "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 1, -400, BODY_NONE, 0, "both, turned" },
	{ "Transfer-Encoding: identity\r\nContent-Length: 5\r\n", 1, -400, BODY_NONE, 0, "identity, length" },
	{ "Transfer-Encoding:\r\n", 1, -400, BODY_NONE, 0, "empty coding" },
	{ "Transfer-Encoding: \r\nContent-Length: 5\r\n", 1, -400, BODY_NONE, 0, "empty coding, length" },
	{ "Transfer-Encoding: identity\r\n", 1, -501, BODY_NONE, 0, "a coding of old: RFC 9112 6.1" },
	{ "Transfer-Encoding: IDENTITY \r\n", 1, -501, BODY_NONE, 0, "in capitals" },
	{ "Transfer-Encoding: identity, chunked\r\n", 1, -501, BODY_NONE, 0, "before chunked" },
	{ "Transfer-Encoding: chunked, identity\r\n", 1, -501, BODY_NONE, 0, "behind it" },
	{ "Transfer-Encoding: identity\r\n", 0, -400, BODY_NONE, 0, "in 1.0" },
	{ "Transfer-Encoding: gzip\r\n", 1, -400, BODY_NONE, 0, "not chunked at the end" },
	{ "Transfer-Encoding: chunked, gzip\r\n", 1, -400, BODY_NONE, 0, "chunked is not last" },
	{ "Transfer-Encoding: chunked, chunked\r\n", 1, -400, BODY_NONE, 0, "chunked twice" },
	{ "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 1, -400, BODY_NONE, 0, "chunked twice" },
	{ "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 1, -501, BODY_NONE, 0, "over two lines" },
	{ "Transfer-Encoding: chunked, chunked, identity\r\n", 1, -400, BODY_NONE, 0, "chunked twice, even so" },
	{ "Transfer-Encoding: gzip, chunked\r\n", 1, -501, BODY_CHUNKED, 0, "a coding we cannot decode" },
	{ "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 1, -501, BODY_CHUNKED, 0, "over two lines" },
	{ "Transfer-Encoding: , chunked\r\n", 1, -400, BODY_NONE, 0, "empty member" },
	{ "Transfer-Encoding: xchunked\r\n", 1, -400, BODY_NONE, 0, "another name" },
	{ "Transfer-Encoding: chunked;a=b\r\n", 1, -400, BODY_NONE, 0, "parameter" },
	{ "Transfer-Encoding: \"chunked\"\r\n", 1, -400, BODY_NONE, 0, "quoted" },
	{ "Transfer-Encoding: chunked \r\n", 1, 0, BODY_CHUNKED, 0, "blank behind" },
	{ "Transfer-Encoding: chun ked\r\n", 1, -400, BODY_NONE, 0, "blank within" },
	{ "Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", 1, 0, BODY_LENGTH, 5, "underscore: another field" },
};

static const struct {
	const char *fields;
	int status, want;
	enum method method;
	enum body_kind kind;
	uint64_t left;
	const char *why;
} response_bodies[] = {
	{ "", 200, 0, M_GET, BODY_CLOSE, 0, "until it closes" },
	{ "Content-Length: 5\r\n", 200, 0, M_GET, BODY_LENGTH, 5, "length" },
	{ "Content-Length: 0\r\n", 200, 0, M_GET, BODY_LENGTH, 0, "empty" },
	{ "Transfer-Encoding: chunked\r\n", 200, 0, M_GET, BODY_CHUNKED, 0, "chunked" },
	{ "Content-Length: 5\r\n", 200, 0, M_HEAD, BODY_NONE, 0, "HEAD" },
	{ "Transfer-Encoding: chunked\r\n", 200, 0, M_HEAD, BODY_NONE, 0, "HEAD, chunked" },
	{ "", 200, 0, M_HEAD, BODY_NONE, 0, "HEAD, neither" },
	{ "Content-Length: 5\r\n", 304, 0, M_GET, BODY_NONE, 0, "304" },
	{ "Content-Length: 5\r\n", 204, 0, M_GET, BODY_NONE, 0, "204" },
	{ "", 204, 0, M_GET, BODY_NONE, 0, "204, neither" },
	{ "", 100, 0, M_POST, BODY_NONE, 0, "100" },
	{ "Content-Length: 5\r\n", 101, 0, M_GET, BODY_NONE, 0, "101" },
	{ "Content-Length: 5\r\n", 205, 0, M_GET, BODY_LENGTH, 5, "205 is none of them" },
	{ "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 200, -502, M_GET, BODY_NONE, 0, "both" },
	{ "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 304, -502, M_GET, BODY_NONE, 0, "both, even so" },
	{ "Content-Length: 5\r\nContent-Length: 5\r\n", 200, -502, M_GET, BODY_NONE, 0, "twice" },
	{ "Content-Length: 5\r\nContent-Length: 6\r\n", 200, -502, M_HEAD, BODY_NONE, 0, "twice, HEAD" },
	{ "Content-Length: x\r\n", 200, -502, M_GET, BODY_NONE, 0, "no number" },
	{ "Content-Length: x\r\n", 204, -502, M_GET, BODY_NONE, 0, "no number, 204" },
	{ "Transfer-Encoding: gzip\r\n", 200, -502, M_GET, BODY_NONE, 0, "a coding we never asked for" },
	{ "Transfer-Encoding: gzip, chunked\r\n", 200, -502, M_GET, BODY_NONE, 0, "and chunked" },
	{ "Transfer-Encoding: chunked, gzip\r\n", 200, -502, M_GET, BODY_NONE, 0, "chunked is not last" },
	{ "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 200, -502, M_GET, BODY_NONE, 0, "chunked twice" },
	{ "Transfer-Encoding:\r\n", 200, -502, M_GET, BODY_NONE, 0, "empty coding" },
};
/* clang-format on */

static void
body_is(const char *why, const char *fields, const struct body *b, enum body_kind kind,
    uint64_t left)
{
	struct slice in = slice_of(fields);

	row_int(why, in, "kind", b->kind, kind);
	row_int(why, in, "left", (long long)b->left, (long long)left);
	row_int(why, in, "done", b->done,
	    kind == BODY_NONE || (kind == BODY_LENGTH && left == 0));
}

static void
test_request_bodies(void **state)
{
	char text[512];
	struct body b;

	(void)state;
	for (size_t i = 0; i < LEN(request_bodies); i++) {
		const char *fields = request_bodies[i].fields, *why = request_bodies[i].why;

		snprintf(text, sizeof text, "POST / HTTP/1.%d\r\n" HOST "%s" END,
		    request_bodies[i].minor, fields);
		assert_true(parse(request_parse, slice_of(text)) > 0);
		row_int(why, slice_of(fields), "result", body_of_request(&b, &head),
		    request_bodies[i].want);
		if (request_bodies[i].want == 0)
			body_is(why, fields, &b, request_bodies[i].kind, request_bodies[i].left);
	}
	rows_end();
}

static void
test_response_bodies(void **state)
{
	char text[512];
	struct body b;

	(void)state;
	for (size_t i = 0; i < LEN(response_bodies); i++) {
		const char *fields = response_bodies[i].fields, *why = response_bodies[i].why;

		snprintf(text, sizeof text, "HTTP/1.1 %d X\r\n%s" END, response_bodies[i].status, fields);
		assert_true(parse(response_parse, slice_of(text)) > 0);
		row_int(why, slice_of(fields), "result",
		    body_of_response(&b, &head, response_bodies[i].method), response_bodies[i].want);
		if (response_bodies[i].want == 0)
			body_is(why, fields, &b, response_bodies[i].kind, response_bodies[i].left);
	}
	rows_end();
}

static void
test_body_take(void **state)
{
	struct body b;

	(void)state;
	body_set(&b, BODY_LENGTH, 10);
	assert_int_equal(body_take(&b, 4), 4);
	assert_false(b.done);
	assert_int_equal(body_take(&b, 7), 6);
	assert_true(b.done);
	assert_int_equal(b.total, 10);
	body_set(&b, BODY_LENGTH, INT64_MAX);
	assert_int_equal(body_take(&b, SIZE_MAX), INT64_MAX);
	body_set(&b, BODY_NONE, 0);
	assert_int_equal(body_take(&b, 7), 0);
	body_set(&b, BODY_CLOSE, 0);
	assert_int_equal(body_take(&b, 7), 7);
	assert_false(b.done);
	assert_int_equal(b.total, 7);
}

/* ---- chunks ---- */

#define X8   "xxxxxxxx"
#define X64  X8 X8 X8 X8 X8 X8 X8 X8
#define X512 X64 X64 X64 X64 X64 X64 X64 X64

enum { BAD = -1 };

struct chunked {
	struct slice in;
	const char *content;
	int used; /* ALL, BAD, or so many */
	bool done;
	const char *trailers; /* that are kept */
	const char *why;
};

/* clang-format off */
static const struct chunked chunks[] = {
	{ T("0\r\n\r\n"), "", ALL, true, "", "empty body" },
	{ T("5\r\nhello\r\n0\r\n\r\n"), "hello", ALL, true, "", "one chunk" },
	{ T("1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\n"), "abcdef", ALL, true, "", "three chunks" },
	{ T("A\r\n0123456789\r\n0\r\n\r\n"), "0123456789", ALL, true, "", "digit in capitals" },
	{ T("a\r\n0123456789\r\n0\r\n\r\n"), "0123456789", ALL, true, "", "small digit" },
	{ T("0005\r\nhello\r\n000\r\n\r\n"), "hello", ALL, true, "", "leading zeros" },
	{ T("2\r\n\r\n\r\n0\r\n\r\n"), "\r\n", ALL, true, "", "CRLF as content" },
	{ T("5\r\n0\r\n\r\n\r\n0\r\n\r\n"), "0\r\n\r\n", ALL, true, "", "content like an end" },
	{ T("0\r\n\r\nGET"), "", 5, true, "", "what follows is left" },
	{ T("1\r\na\r\n0\r\n\r\n0\r\n\r\n"), "a", 11, true, "", "an end behind the end" },
	{ T("5\r\nhel"), "hel", ALL, false, "", "unfinished" },
	{ T("5"), "", ALL, false, "", "size unfinished" },
	{ T("0000000000000001\r\na\r\n0\r\n\r\n"), "a", ALL, true, "", "sixteen digits" },
	{ T("00000000000000001\r\na\r\n0\r\n\r\n"), "", BAD, false, "", "seventeen digits" },
	{ T("7fffffffffffffff\r\nab"), "ab", ALL, false, "", "the longest chunk" },
	{ T("8000000000000000\r\n"), "", BAD, false, "", "2^63" },
	{ T("ffffffffffffffff\r\n"), "", BAD, false, "", "2^64 - 1" },
	{ T("10000000000000000\r\n"), "", BAD, false, "", "2^64" },

	/* sizes */
	{ T("\r\n"), "", BAD, false, "", "no size" },
	{ T("x\r\n"), "", BAD, false, "", "no digit" },
	{ T("0x5\r\nhello\r\n"), "", BAD, false, "", "0x" },
	{ T("-1\r\n"), "", BAD, false, "", "negative" },
	{ T("+1\r\n"), "", BAD, false, "", "sign" },
	{ T(" 1\r\n"), "", BAD, false, "", "blank before the size" },
	{ T("1 \r\na\r\n"), "", BAD, false, "", "blank behind the size" },
	{ T("1_0\r\n"), "", BAD, false, "", "underscore" },
	{ T(";a=b\r\n"), "", BAD, false, "", "extension without a size" },
	{ T("5\nhello\r\n"), "", BAD, false, "", "bare LF" },
	{ T("5\rhello\r\n"), "", BAD, false, "", "bare CR" },
	{ T("5\r\r\nhello\r\n"), "", BAD, false, "", "two CRs" },

	/* behind the data */
	{ T("1\r\nab"), "a", BAD, false, "", "more than the size" },
	{ T("1\r\na\n"), "a", BAD, false, "", "bare LF behind data" },
	{ T("1\r\na\rb"), "a", BAD, false, "", "bare CR behind data" },
	{ T("1\r\na0\r\n\r\n"), "a", BAD, false, "", "no CRLF behind data" },

	/* extensions */
	{ T("5;a\r\nhello\r\n0\r\n\r\n"), "hello", ALL, true, "", "extension" },
	{ T("5;a=b;c=\"d\"\r\nhello\r\n0;x\r\n\r\n"), "hello", ALL, true, "", "extensions" },
	{ T("5;a=\"\\\"\\\\;\"\r\nhello\r\n0\r\n\r\n"), "hello", ALL, true, "", "escapes in quotes" },
	{ T("5; a = b\r\nhello\r\n0\r\n\r\n"), "hello", ALL, true, "", "blanks in an extension" },
	{ T("5;a=\"b\r\nhello\r\n"), "", BAD, false, "", "CR in quotes" },
	{ T("5;a=\"b\\\r\nhello\r\n"), "", BAD, false, "", "CR escaped" },
	{ T("5;a\nhello\r\n"), "", BAD, false, "", "bare LF in an extension" },
	{ T("5;a=\"\n\"\r\nhello\r\n"), "", BAD, false, "", "bare LF in quotes" },
	{ T("5;a\rb\r\nhello\r\n"), "", BAD, false, "", "bare CR in an extension" },
	{ T("5;\0\r\nhello\r\n"), "", BAD, false, "", "NUL in an extension" },
	{ T("5 \t;\ta = b ; c = \"d\" ;e\r\nhello\r\n0\r\n\r\n"), "hello", ALL, true, "", "blanks wherever they may be" },
	{ T("5;a=\"; =\xe9 \\\"\";b\r\nhello\r\n0\r\n\r\n"), "hello", ALL, true, "", "any text in quotes" },
	{ T("5;\r\nhello\r\n"), "", BAD, false, "", "empty extension" },
	{ T("5;a;\r\nhello\r\n"), "", BAD, false, "", "empty extension behind one" },
	{ T("5;a=\r\nhello\r\n"), "", BAD, false, "", "empty value" },
	{ T("5;=b\r\nhello\r\n"), "", BAD, false, "", "value without a name" },
	{ T("5 a\r\nhello\r\n"), "", BAD, false, "", "name without a semicolon" },
	{ T("5;a b\r\nhello\r\n"), "", BAD, false, "", "two names" },
	{ T("5;a=b c\r\nhello\r\n"), "", BAD, false, "", "two values" },
	{ T("5;a=b=c\r\nhello\r\n"), "", BAD, false, "", "two equals signs" },
	{ T("5;a=\"b\"c\r\nhello\r\n"), "", BAD, false, "", "text behind quotes" },
	{ T("5;a \r\nhello\r\n"), "", BAD, false, "", "blank behind a name" },
	{ T("5;a=b \r\nhello\r\n"), "", BAD, false, "", "blank behind a value" },
	{ T("5;a=\"\x7f\"\r\nhello\r\n"), "", BAD, false, "", "DEL in quotes" },
	{ T("5;a\xe9\r\nhello\r\n"), "", BAD, false, "", "high byte in a name" },

	/* the end, and trailers */
	{ T("0\r\nx"), "", ALL, false, "x", "trailer unfinished" },
	{ T("0\r\n\n"), "", BAD, false, "", "bare LF at the end" },
	{ T("0\r\n\rx"), "", BAD, false, "", "bare CR at the end" },
	{ T("0\r\nA: b\r\n\r\n"), "", ALL, true, "A: b\r\n", "trailer" },
	{ T("1\r\nz\r\n0\r\nA: b\r\nC:d\r\n\r\nrest"), "z", 22, true, "A: b\r\nC:d\r\n", "two trailers" },
	{ T("0\r\nA:\r\n\r\n"), "", ALL, true, "A:\r\n", "empty trailer" },
	{ T("0\r\nX-Checksum: \xc3\xa4\t1\r\n\r\n"), "", ALL, true, "X-Checksum: \xc3\xa4\t1\r\n", "any value" },
	{ T("0\r\nContent-Length: 5\r\nA: b\r\n\r\n"), "", ALL, true, "A: b\r\n", "Content-Length is dropped" },
	{ T("0\r\nA: b\r\ntransfer-encoding: chunked\r\n\r\n"), "", ALL, true, "A: b\r\n", "framing is dropped" },
	{ T("0\r\nHost: x\r\nA: b\r\nHost: y\r\n\r\n"), "", ALL, true, "A: b\r\n", "Host is dropped" },
	{ T("0\r\nAuthorization: x\r\n\r\n"), "", ALL, true, "", "Authorization is dropped" },
	{ T("0\r\nSet-Cookie: x\r\n\r\n"), "", ALL, true, "", "Set-Cookie is dropped" },
	{ T("0\r\nCache-Control: x\r\nContent-Range: y\r\n\r\n"), "", ALL, true, "", "what changes the head's meaning" },
	{ T("0\r\nConnection: x\r\nTE: x\r\nUpgrade: y\r\nKeep-Alive: z\r\n\r\n"), "", ALL, true, "", "hop-by-hop" },
	{ T("0\r\nTrailer: A\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"), "", ALL, true, "", "and whom the backend believes" },
	{ T("0\r\nX-Forwarded-Xyz: 1\r\nProxy-Authorization: 1\r\ncontent-foo: 1\r\n\r\n"), "", ALL, true, "", "families of names" },
	{ T("0\r\nVia: 1\r\nDate: 1\r\nX-Request-Id: 1\r\nX-Admin-Token: 1\r\nCookie: 1\r\n\r\n"), "", ALL, true, "", "and more of them" },
	{ T("0\r\nA\r\n\r\n"), "", BAD, false, "", "no colon" },
	{ T("0\r\nA : b\r\n\r\n"), "", BAD, false, "", "space before colon" },
	{ T("0\r\n: b\r\n\r\n"), "", BAD, false, "", "no name" },
	{ T("0\r\n A: b\r\n\r\n"), "", BAD, false, "", "blank before the name" },
	{ T("0\r\nA: b\r\n c\r\n\r\n"), "", BAD, false, "", "obs-fold" },
	{ T("0\r\nA: b\n\r\n"), "", BAD, false, "", "bare LF" },
	{ T("0\r\nA: b\rc\r\n\r\n"), "", BAD, false, "", "bare CR" },
	{ T("0\r\nA: b\r\r\n\r\n"), "", BAD, false, "", "two CRs" },
	{ T("0\r\nA: \0\r\n\r\n"), "", BAD, false, "", "NUL" },
	{ T("0\r\nSet-Cookie: \0\r\n\r\n"), "", BAD, false, "", "NUL in one that is dropped" },
};
/* clang-format on */

struct decoded {
	char content[CHUNK_EXT_MAX * 2], trailers[TRAILER_MAX];
	size_t content_n, used;
	struct text t;
	struct body body;
	bool bad, stuck;
	int asked; /* for memory */
};

static struct decoded whole, split;

static void
decode_start(struct decoded *d)
{
	d->content_n = d->used = 0;
	d->t = (struct text){ NULL, 0, 0, false };
	body_set(&d->body, BODY_CHUNKED, 0);
	d->bad = d->stuck = false;
	d->asked = 0;
}

/* One piece, from memory of its own; trailers get theirs when it is asked for,
 * as in flow_decode. */
static void
decode_piece(struct decoded *d, struct slice in)
{
	struct slice copy = exact(in);
	char *p = (char *)(uintptr_t)copy.p;
	size_t at = 0, n;
	ssize_t used;

	while (!d->bad && !d->body.done && at < copy.n) {
		used = chunk_decode(&d->body, p + at, copy.n - at, &n, &d->t);
		d->bad = used < 0;
		if (used < 0)
			break;
		memcpy(d->content + d->content_n, p + at, n);
		d->content_n += n;
		d->used += (size_t)used;
		at += (size_t)used;
		if (d->body.need_trailers && d->t.cap == 0) {
			d->asked++;
			d->body.need_trailers = false;
			d->t = (struct text){ d->trailers, 0, sizeof d->trailers, false };
		} else if (at < copy.n && !d->body.done) {
			d->stuck = true;
			break;
		}
	}
	exact_free(copy);
}

static void
decode(struct decoded *d, struct slice in, const size_t *cuts, size_t n)
{
	size_t from = 0;

	decode_start(d);
	for (size_t i = 0; i <= n; i++) {
		size_t to = i < n ? cuts[i] : in.n;
		decode_piece(d, (struct slice){ in.p + from, to - from });
		from = to;
	}
}

/* d says what `whole` says. What a bad body had before the fault may differ:
 * a piece that is refused gives nothing. */
static void
decoded_alike(const struct chunked *c, const struct decoded *d, size_t a, size_t b)
{
	const struct decoded *w = &whole;
	bool same = d->bad == w->bad && !d->stuck;

	if (same && !d->bad)
		same = d->used == w->used && d->content_n == w->content_n &&
		    memcmp(d->content, w->content, d->content_n) == 0 &&
		    slice_eq(text_slice(&d->t), text_slice(&w->t)) &&
		    d->body.done == w->body.done && d->body.total == w->body.total &&
		    d->body.chunk == w->body.chunk && d->body.left == w->body.left &&
		    d->asked == w->asked;
	if (!same)
		row_bad(c->why, c->in, "split at %zu and %zu: bad %d, used %zu, content '%s', "
		    "trailers '%s'; whole: bad %d, used %zu, content '%s', trailers '%s'", a, b,
		    d->bad, d->used, shown((struct slice){ d->content, d->content_n }),
		    shown(text_slice(&d->t)), w->bad, w->used,
		    shown((struct slice){ w->content, w->content_n }), shown(text_slice(&w->t)));
}

static void
test_chunks(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(chunks); i++) {
		const struct chunked *c = &chunks[i];

		decode(&whole, c->in, NULL, 0);
		row_int(c->why, c->in, "bad", whole.bad, c->used == BAD);
		if (whole.bad || c->used == BAD)
			continue;
		row_int(c->why, c->in, "used", (long long)whole.used,
		    c->used == ALL ? (long long)c->in.n : c->used);
		row_int(c->why, c->in, "done", whole.body.done, c->done);
		row_slice(c->why, c->in, "content",
		    (struct slice){ whole.content, whole.content_n }, slice_of(c->content));
		row_int(c->why, c->in, "total", (long long)whole.body.total,
		    (long long)strlen(c->content));
		row_slice(c->why, c->in, "trailers", text_slice(&whole.t), slice_of(c->trailers));
	}
	rows_end();
}

/* Every row in two pieces, in three, and in single bytes. */
static void
test_chunks_split(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(chunks) && rows_bad < 5; i++) {
		const struct chunked *c = &chunks[i];
		size_t each[128];

		decode(&whole, c->in, NULL, 0);
		for (size_t a = 0; a <= c->in.n; a++)
			for (size_t b = a; b <= c->in.n; b++) {
				decode(&split, c->in, (size_t[]){ a, b }, 2);
				decoded_alike(c, &split, a, b);
			}
		assert_true(c->in.n < LEN(each));
		for (size_t n = 0; n < c->in.n; n++)
			each[n] = n;
		decode(&split, c->in, each, c->in.n);
		decoded_alike(c, &split, 0, 0);
	}
	rows_end();
}

/* Any row cut short is unfinished or bad, never done. */
static void
test_chunks_cut(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(chunks); i++)
		for (size_t n = 0; n < chunks[i].in.n; n++) {
			bool before_end = chunks[i].used == ALL || n < (size_t)chunks[i].used;

			decode(&whole, (struct slice){ chunks[i].in.p, n }, NULL, 0);
			if (whole.stuck || (before_end && whole.body.done && !whole.bad))
				row_bad(chunks[i].why, chunks[i].in, "cut at %zu: stuck or done", n);
			if (chunks[i].used != BAD && whole.bad)
				row_bad(chunks[i].why, chunks[i].in, "cut at %zu: bad", n);
		}
	rows_end();
}

static void
test_chunks_too_much(void **state)
{
	static char b[4 * CHUNK_EXT_MAX];
	const struct {
		const char *before, *again;
		size_t times;
		const char *after;
		bool bad;
		const char *why;
	} rows[] = {
		{ "1;", "x", CHUNK_EXT_MAX - 8, "\r\na\r\n0\r\n\r\n", false, "a long extension" },
		{ "1;", "x", CHUNK_EXT_MAX, "\r\na\r\n0\r\n\r\n", true, "too long an extension" },
		{ "1;", "x", CHUNK_EXT_MAX + 1, "", true, "seen before it ends" },
		{ "", "1;xxxxxxx\r\na\r\n", CHUNK_EXT_MAX / 4, "0\r\n\r\n", false, "each chunk anew" },
		{ "", "1;name=value;other=\"quoted\"\r\na\r\n", 500, "0\r\n\r\n", false, "no small ones" },
		{ "", "1;xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\na\r\n", 500, "", true,
		  "more extensions than content, for too long" },
		{ "0\r\n", "A: b\r\n", TRAILER_MAX / 6, "\r\n", false, "as many trailers as fit" },
		{ "0\r\n", "A: b\r\n", TRAILER_MAX / 6 + 1, "\r\n", true, "more than fit" },
		{ "0\r\nA:", "b", TRAILER_MAX, "\r\n\r\n", true, "one that does not fit" },
		{ "0\r\n", "Host: b\r\n", CHUNK_EXT_MAX / 9, "\r\n", false, "dropped ones take no room" },
		{ "0\r\n", "Host: b\r\n", CHUNK_EXT_MAX / 9 + 1, "\r\n", true, "but are counted" },
	};

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		struct text t = { b, 0, sizeof b, false };
		struct chunked c = { .why = rows[i].why };
		size_t middle;

		text_str(&t, rows[i].before);
		repeated(&t, rows[i].times, rows[i].again);
		text_str(&t, rows[i].after);
		assert_false(t.full);
		c.in = text_slice(&t);
		decode(&whole, c.in, NULL, 0);
		row_int(rows[i].why, c.in, "bad", whole.bad, rows[i].bad);
		middle = c.in.n / 2;
		decode(&split, c.in, &middle, 1);
		decoded_alike(&c, &split, middle, 0);
	}
	rows_end();
}

/* Blanks behind the size are taken in the chunks of a response, never in those of a
 * request. */
static void
test_chunks_blanks(void **state)
{
	static const char *const sizes[] = { "5 ", "5\t", "5  \t ", "5;a=b ", "5;a ", "5;a=\"b\" ", "05 " };
	static const char *const bad[] = { " 5", "5 5", "5 x", "5 \r", "5;a=b c" };
	const struct slice heads[] = { S("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
		S("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n") };
	char in[128];
	size_t n, content;

	(void)state;
	for (size_t i = 0; i < 2 * (LEN(sizes) + LEN(bad)); i++) {
		bool request = i % 2, good = i / 2 < LEN(sizes);
		const char *size = good ? sizes[i / 2] : bad[i / 2 - LEN(sizes)];
		struct text t = { NULL, 0, 0, false };
		struct body b;
		ssize_t got;

		assert_true(parse(request ? request_parse : response_parse, heads[request]) > 0);
		assert_int_equal(request ? body_of_request(&b, &head)
		    : body_of_response(&b, &head, M_GET), 0);
		n = (size_t)snprintf(in, sizeof in, "%s\r\nhello\r\n0%s\r\n\r\n", size, good ? " " : "");
		got = chunk_decode(&b, in, n, &content, &t);
		row_int(request ? "request" : "response", slice_of(size), "result", got,
		    good && !request ? (ssize_t)n : -1);
		if (got == (ssize_t)n)
			row_slice("response", slice_of(size), "content", (struct slice){ in, content }, S("hello"));
	}
	rows_end();
}

/* Without room nothing of the first trailer is used, and asking again helps
 * only when room came. */
static void
test_chunks_need_trailers(void **state)
{
	char in[] = "1\r\na\r\n0\r\nA: b\r\n\r\n", room[16];
	struct text t = { NULL, 0, 0, false };
	struct body b;
	size_t content;

	(void)state;
	body_set(&b, BODY_CHUNKED, 0);
	assert_int_equal(chunk_decode(&b, in, sizeof in - 1, &content, &t), 9);
	assert_int_equal(content, 1);
	assert_true(b.need_trailers);
	assert_false(b.done);
	assert_int_equal(chunk_decode(&b, in + 9, sizeof in - 10, &content, &t), 0);
	assert_true(b.need_trailers);
	t = (struct text){ room, 0, sizeof room, false };
	assert_int_equal(chunk_decode(&b, in + 9, sizeof in - 10, &content, &t), 8);
	assert_int_equal(content, 0);
	assert_true(b.done);
	assert_true(slice_eq(text_slice(&t), S("A: b\r\n")));
}

/* The final CRLF needs no room. */
static void
test_chunks_no_trailers(void **state)
{
	char in[] = "0\r\n\r\n";
	struct text t = { NULL, 0, 0, false };
	struct body b;
	size_t content;

	(void)state;
	body_set(&b, BODY_CHUNKED, 0);
	assert_int_equal(chunk_decode(&b, in, sizeof in - 1, &content, &t), 5);
	assert_false(b.need_trailers);
	assert_true(b.done);
}

/* ---- what is asked of a head ---- */

/* clang-format off */
static const struct {
	const char *fields, *kept; /* names, with a space behind each */
	const char *why;
} hops[] = {
	{ "A: b\r\n", "Host A ", "nothing to drop" },
	{ "Connection: close\r\nA: b\r\n", "Host A ", "Connection itself" },
	{ "Connection: x-a, X-B\r\nX-A: 1\r\nx-b: 2\r\nX-C: 3\r\n", "Host X-C ", "named fields" },
	{ "X-A: 1\r\nConnection: X-A\r\nX-A: 2\r\n", "Host ", "before and behind" },
	{ "Connection: a\r\nConnection: b\r\nA: 1\r\nB: 2\r\n", "Host ", "two Connection lines" },
	{ "Connection: ,, a ,\r\nA: 1\r\n", "Host ", "empty members" },
	{ "Keep-Alive: 1\r\nProxy-Connection: x\r\nTE: x\r\nTransfer-Encoding: chunked\r\nUpgrade: x\r\n"
	    "HTTP2-Settings: x\r\n", "Host ", "hop-by-hop, named or not" },
	{ "Connection: Host, Content-Length, Content-Type\r\nContent-Length: 1\r\nContent-Type: x\r\n",
	    "Host Content-Length Content-Type ", "end-to-end ones are kept" },
	{ "Connection: Content-Language\r\nContent-Language: x\r\n", "Host Content-Language ",
	    "all of Content-" },
	{ "Connection: Authorization, Cookie, Set-Cookie, Cache-Control\r\nAuthorization: x\r\n"
	    "Cookie: x\r\nSet-Cookie: x\r\nCache-Control: x\r\n",
	    "Host Authorization Cookie Set-Cookie Cache-Control ", "who one is" },
	{ "Connection: X-Forwarded-For, X-Real-IP, Forwarded, X-Forwarded-Proto, X-Forwarded-Host\r\n"
	    "X-Forwarded-For: x\r\nX-Real-IP: x\r\nForwarded: x\r\nX-Forwarded-Proto: x\r\n"
	    "X-Forwarded-Host: x\r\n",
	    "Host X-Forwarded-For X-Real-IP Forwarded X-Forwarded-Proto X-Forwarded-Host ",
	    "whom a proxy spoke for" },
	{ "Connection: X-Forwarded-Any\r\nX-Forwarded-Any: x\r\n", "Host X-Forwarded-Any ",
	    "all of X-Forwarded-" },
	{ "Proxy-Authenticate: x\r\nProxy-Authorization: x\r\n", "Host ", "between proxies" },
	{ "Connection: If-Match, Range, Expect, Via, Max-Forwards\r\nIf-Match: x\r\nRange: x\r\nExpect: x\r\n"
	    "Via: x\r\nMax-Forwards: 1\r\n", "Host If-Match Range Expect Via Max-Forwards ",
	    "conditions" },
	{ "Connection: User-Agent, Accept\r\nUser-Agent: x\r\nAccept: x\r\nReferer: x\r\n",
	    "Host Referer ", "harmless ones may be named" },
};
/* clang-format on */

static void
test_hop_by_hop(void **state)
{
	char text[1024], kept[1024];

	(void)state;
	for (size_t i = 0; i < LEN(hops); i++) {
		size_t n = 0;

		snprintf(text, sizeof text, GET HOST "%s" END, hops[i].fields);
		assert_true(parse(request_parse, slice_of(text)) > 0);
		head_drop(&head, 0);
		for (int k = 0; k < head.n; k++)
			if (!head.f[k].drop)
				n += (size_t)snprintf(kept + n, sizeof kept - n, "%.*s ",
				    (int)head.f[k].name.n, head.f[k].name.p);
		row_slice(hops[i].why, slice_of(hops[i].fields), "kept", (struct slice){ kept, n },
		    slice_of(hops[i].kept));
	}
	rows_end();
}

static void
test_head_has(void **state)
{
	static const struct {
		const char *fields, *token;
		bool want;
	} rows[] = {
		{ "", "close", false },
		{ "Connection: close\r\n", "close", true },
		{ "Connection: CLOSE\r\n", "close", true },
		{ "Connection: keep-alive , close\r\n", "close", true },
		{ "Connection: closed\r\n", "close", false },
		{ "Connection: not close\r\n", "close", false },
		{ "Connection: a\r\nX: close\r\n", "close", false },
		{ "Connection: a\r\nX: y\r\nConnection: close\r\n", "close", true },
		{ "Connection: ,,close,,\r\n", "close", true },
		{ "Connection:\r\n", "close", false },
	};
	char text[256];

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		snprintf(text, sizeof text, GET HOST "%s" END, rows[i].fields);
		assert_true(parse(request_parse, slice_of(text)) > 0);
		row_int("head_has", slice_of(rows[i].fields), "result",
		    head_has(&head, F_CONNECTION, rows[i].token), rows[i].want);
	}
	rows_end();
}

/* Each line of a head is a view from its first byte to behind its CRLF. */
static void
test_field_lines(void **state)
{
	struct slice in = exact(S(GET "Host:a\r\nX-Y: \t z z \t\r\nhost2: b\r\n" END));

	(void)state;
	assert_true(parse(request_parse, in) > 0);
	assert_int_equal(head.n, 3);
	assert_true(slice_eq(head.f[1].name, S("X-Y")));
	assert_true(slice_eq(head.f[1].value, S("z z")));
	assert_ptr_equal(head.f[0].end, head.f[1].start);
	assert_ptr_equal(head.f[1].end, head.f[2].start);
	assert_ptr_equal(head.f[2].end + 2, in.p + in.n);
	assert_int_equal(head.f[0].id, F_HOST);
	assert_int_equal(head.f[2].id, F_OTHER);
	exact_free(in);
}

/* A name ends where it should, whatever stands there, and is plain or not. */
static void
test_token_end(void **state)
{
	enum { LONGEST = 20 };
	char b[LONGEST + 1 + sizeof(uint64_t)];

	(void)state;
	for (size_t n = 1; n <= LONGEST; n++)
		for (size_t at = 0; at < n; at++)
			for (int c = 0; c < 256; c++) {
				bool plain, want = isalpha(c) || c == '-', token;
				size_t end;

				memset(b, "aZ-"[(n + at) % 3], n);
				memset(b + n, ':', sizeof b - n);
				b[at] = (char)c;
				token = is_token((struct slice){ b + at, 1 });
				end = token_end((struct slice){ b, sizeof b }, 0, &plain);
				assert_int_equal(end, token ? n : at);
				assert_int_equal(plain, want || !token);
			}
}

/* Names and ids belong together, whatever the case. */
static void
test_field_ids(void **state)
{
	char name[32];

	(void)state;
	for (int i = F_OTHER + 1; i < FIELD_IDS; i++) {
		struct slice s = field_names[i];

		assert_int_equal(s.n, strlen(s.p));
		assert_int_equal(field_id_of(s), i);
		for (size_t k = 0; k < s.n; k++)
			name[k] = (char)(k % 2 ? toupper(s.p[k]) : tolower(s.p[k]));
		assert_int_equal(field_id_of((struct slice){ name, s.n }), i);
		assert_int_equal(field_id_of((struct slice){ name, s.n - 1 }), F_OTHER);
		for (size_t k = 0; k < s.n; k++) { /* no other byte of a token passes for one of it */
			char was = name[k];
			for (int c = 1; c < 256; c++) {
				name[k] = (char)c;
				if (is_token((struct slice){ name + k, 1 }))
					assert_int_equal(field_id_of((struct slice){ name, s.n }),
					    tolower(c) == tolower(was) ? i : F_OTHER);
			}
			name[k] = was;
		}
	}
	for (int i = M_OTHER + 1; i < METHODS; i++)
		assert_int_equal(method_of(method_names[i]), i);
}

/* chars[] against the grammar. RFC 9110 5.6.2, 5.5; 3986 3.2.2. */
static void
test_chars(void **state)
{
	(void)state;
	for (int c = 0; c < 256; c++) {
		bool alnum = c < 128 && isalnum(c);
		bool token = alnum || (c && c < 128 && strchr("!#$%&'*+-.^_`|~", c));
		bool value = c == '\t' || (c >= ' ' && c != 127);
		bool target = c > ' ' && c != 127 && c != '#';
		struct slice in = { (char[]){ (char)c }, 1 };

		row_int("token", in, "chars", (chars[c] & CH_TOKEN) != 0, token);
		row_int("value", in, "chars", (chars[c] & CH_VALUE) != 0, value);
		row_int("target", in, "chars", (chars[c] & CH_TARGET) != 0, target);
		if (chars[c] & CH_HOST && !alnum && (!c || !strchr("-._~!$&'()*+,;=%", c)))
			row_bad("host", in, "is no byte of a reg-name");
	}
	rows_end();
}

/* One odd byte at each place of a text longer than a word. */
static void
test_value_end(void **state)
{
	char b[24];

	(void)state;
	for (int c = 0; c < 256; c++)
		for (size_t at = 0; at < sizeof b; at++) {
			memset(b, c % 2 ? 'x' : 0xff, sizeof b);
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
	assert_string_equal(status_text(511), "Network Authentication Required");
	assert_string_equal(status_text(299), "Status");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_requests_seen),
		cmocka_unit_test(test_request_then_more),
		cmocka_unit_test(test_plain_is_normal),
		cmocka_unit_test(test_request_too_much),
		cmocka_unit_test(test_connection_options),
		cmocka_unit_test(test_head_scan),
		cmocka_unit_test(test_responses),
		cmocka_unit_test(test_responses_lf),
		cmocka_unit_test(test_responses_seen),
		cmocka_unit_test(test_response_too_much),
		cmocka_unit_test(test_request_bodies),
		cmocka_unit_test(test_response_bodies),
		cmocka_unit_test(test_body_take),
		cmocka_unit_test(test_chunks),
		cmocka_unit_test(test_chunks_split),
		cmocka_unit_test(test_chunks_cut),
		cmocka_unit_test(test_chunks_too_much),
		cmocka_unit_test(test_chunks_blanks),
		cmocka_unit_test(test_chunks_need_trailers),
		cmocka_unit_test(test_chunks_no_trailers),
		cmocka_unit_test(test_hop_by_hop),
		cmocka_unit_test(test_head_has),
		cmocka_unit_test(test_field_lines),
		cmocka_unit_test(test_token_end),
		cmocka_unit_test(test_field_ids),
		cmocka_unit_test(test_chars),
		cmocka_unit_test(test_value_end),
		cmocka_unit_test(test_status_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
