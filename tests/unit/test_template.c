/* Texts with variables: how they are taken apart, what only looks like one, and what comes
 * of a request's values where they go. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

/* ---- taking apart ---- */

#define LONG "x123456789012345678901234567890123456789012345678901234567890123"

/* The pieces, each variable as <number:argument>. */
static const struct {
	const char *text;
	unsigned in, groups;
	const char *want;
} cuts[] = {
	{ "", IN_TEXT, 0, "" },
	{ "no variables", IN_TEXT, 0, "" },
	{ "{host}", IN_TEXT, 0, "<host>" },
	{ "a{host}b{path}c", IN_TEXT, 0, "a<host>b<path>c" },
	{ "{host}{path}", IN_TEXT, 0, "<host><path>" },
	{ "{header.X-A}{cookie.a_b}{query.q.r}", IN_TEXT, 0, "<header.:X-A><cookie.:a_b><query.:q.r>" },
	{ "{tls.version}{tls.serial}", IN_TEXT, 0, "<tls.version><tls.serial>" },
	{ "{header.} {cookie.} {query.}", IN_TEXT, 0, "" },
	{ "{ host } {Host} {} { {host {host", IN_TEXT, 0, "" },
	{ "{{host}}", IN_TEXT, 0, "{<host>}" },
	{ "{\"a\":{\"host\":1}}", IN_TEXT, 0, "" },
	{ "${host} $${host}", IN_TEXT, 0, "" },
	{ "{header.a b}{header.a\"}", IN_TEXT, 0, "" },
	{ "{header." LONG "}", IN_TEXT, 0, "" },
	{ "$1$2 $0", IN_TEXT, 0, "" },
	{ "$1$2 $0$", IN_TEXT, 2, "<:1>$2 <:0>$" },
	{ "$12", IN_TEXT, 10, "<:1>2" },
	{ "$1{host}", IN_TEXT, 2, "<:1><host>" },
	{ "$host", IN_TEXT, 0, "" },
	{ "{status} {request} {http_a}", IN_TEXT, 0, "" },
	{ "$host{host}$status.", IN_TEXT | IN_LOG, 0, "<host><host><status>." },
	{ "$http_x_a-{http_x_a}", IN_TEXT | IN_LOG, 0, "<header.:x-a>-<header.:x-a>" },
	{ "$hosts $request $1", IN_TEXT | IN_LOG, 0, "" },
	{ "$user", IN_TEXT | IN_LOG | IN_FORMAT, 0, "<user>" },
};

static void
test_cut(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(cuts); i++) {
		char b[512];
		struct text t = { b, 0, sizeof b, false };
		struct slice in = exact(slice_of(cuts[i].text));
		struct template w = { .text = in };
		struct arena a = { NULL };

		template_read(&a, &w, cuts[i].in, cuts[i].groups);
		for (size_t k = 0; k < w.n; k++) {
			const struct piece *p = &w.v[k];
			text_add(&t, p->text);
			if (p->var == VAR_NONE)
				continue;
			text_fmt(&t, "<%s", p->var == VAR_GROUP ? "" : variables_known[p->var].name);
			if (p->var == VAR_GROUP || strchr("._", variables_known[p->var].name[strlen(variables_known[p->var].name) - 1]))
				text_fmt(&t, ":%.*s", (int)p->arg.n, p->arg.p);
			text_char(&t, '>');
		}
		row_slice(cuts[i].text, in, "pieces", text_slice(&t), slice_of(cuts[i].want));
		arena_free(&a);
		exact_free(in);
	}
	rows_end();
}

/* What looks like a variable and is none; all that is said, with ` | ` between. */
static const struct {
	const char *text;
	unsigned in, groups;
	const char *want;
} doubts[] = {
	{ "{host} {\"a\": {\"hots\": 1}} {} { } {name} {title} {x} a{margin}", IN_TEXT, 0, "" },
	{ "US$ 5, $x, $5.00, $15", IN_TEXT, 0, "" },
	{ "{hots}{pth}", IN_TEXT, 0, "unknown variable '{hots}', did you mean '{host}'? | "
	  "unknown variable '{pth}', did you mean '{path}'?" },
	{ "{HOST} {Client}", IN_TEXT, 0, "unknown variable '{HOST}', did you mean '{host}'? | "
	  "unknown variable '{Client}', did you mean '{client}'?" },
	{ "{remote_addr} $args", IN_TEXT, 0, "unknown variable '{remote_addr}', did you mean '{client}'? | "
	  "unknown variable '$args', did you mean '{query}'?" },
	{ "$http_x_a", IN_TEXT, 0, "unknown variable '$http_x_a', did you mean '{header.NAME}'?" },
	{ "$host ${host}", IN_TEXT, 0, "unknown variable '$host', did you mean '{host}'? | "
	  "unknown variable '${host}', did you mean '{host}'?" },
	{ "{headers.X-A} {cokie.a}", IN_TEXT, 0, "unknown variable '{headers.X-A}', did you mean '{header.}'? | "
	  "unknown variable '{cokie.a}', did you mean '{cookie.}'?" },
	{ "{tls.suject} {tls.x}", IN_TEXT, 0, "unknown variable '{tls.suject}', did you mean '{tls.subject}'? | "
	  "unknown variable '{tls.x}'" },
	{ "$1 $2", IN_TEXT, 0, "$1 needs path_regex | $2 needs path_regex" },
	{ "$1 $2 $3", IN_TEXT, 2, "$2: path_regex has 1 group | $3: path_regex has 1 group" },
	{ "$metod $", IN_TEXT | IN_LOG, 0, "unknown variable '$metod', did you mean 'method'? | unknown variable '$'" },
	{ "$xyzzy {clinet} {xyzzy}", IN_TEXT | IN_LOG, 0, "unknown variable '$xyzzy' | "
	  "unknown variable '{clinet}', did you mean 'client'?" },
	{ "$proxy_add_x_forwarded_for $upstream_addr", IN_TEXT, 0, "unknown variable '$proxy_add_x_forwarded_for', did you mean '{client}'? | "
	  "unknown variable '$upstream_addr', did you mean '{instance}'?" },
	{ "$cookie_a $arg_b", IN_TEXT, 0, "unknown variable '$cookie_a', did you mean '{cookie.NAME}'? | "
	  "unknown variable '$arg_b', did you mean '{query.NAME}'?" },
	{ "$request_time $time_local", IN_TEXT | IN_LOG, 0, "unknown variable '$request_time', did you mean 'secs'? | "
	  "unknown variable '$time_local', did you mean 'time'?" },
	{ "$request_time $body_bytes_sent", IN_TEXT, 0, "" },
	{ "$cookie_a $ssl_protocol", IN_TEXT | IN_LOG, 0, "unknown variable '$cookie_a', did you mean '{cookie.NAME}'? | "
	  "unknown variable '$ssl_protocol', did you mean '{tls.version}'?" },
	{ "{http.request.host}{http.request.uri.path}", IN_TEXT, 0, "unknown variable '{http.request.host}', did you mean '{host}'? | "
	  "unknown variable '{http.request.uri.path}', did you mean '{path}'?" },
	{ "{http.request.header.X-A} {http.vars.a}", IN_TEXT, 0, "unknown variable '{http.request.header.X-A}', did you mean '{header.}'? | "
	  "unknown variable '{http.vars.a}'" },
	{ "{status} {user_agent} $status", IN_TEXT, 0, "unknown variable '{status}' | unknown variable '{user_agent}'" },
	{ "%[$time] 5%[", IN_TEXT | IN_LOG, 0, "" },
	{ "%[src] 5%", IN_TEXT, 0, "'%[' is HAProxy's, a variable here is as {client}" },
	{ "$request $1", IN_TEXT | IN_LOG, 0, "unknown variable '$request' | unknown variable '$1'" },
};

static void
test_doubts(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(doubts); i++) {
		char b[512];
		struct text t = { b, 0, sizeof b, false };
		struct slice in = exact(slice_of(doubts[i].text)), rest = in;
		struct arena a = { NULL };
		const char *why;

		while ((why = variable_doubt(&a, &rest, doubts[i].in, doubts[i].groups)))
			text_fmt(&t, "%s%s", t.n > 0 ? " | " : "", why);
		row_slice(doubts[i].text, in, "doubts", text_slice(&t), slice_of(doubts[i].want));
		arena_free(&a);
		exact_free(in);
	}
	rows_end();
}

/* ---- writing ---- */

#define EVIL "\"'<&>\\\t\xff"
/* NULL: refused */
static const struct {
	const char *text;
	enum escape as;
	const char *target, *want;
} rows[] = {
	{ "{method} {uri} {path} {query}", TO_FIELD, "/a/../b?c=d", "GET /a/../b?c=d /a/../b c=d" },
	{ "{uri} {path} {query}", TO_FIELD, "http://h.example/a?c", "/a?c /a c" },
	{ "{uri} {path} {query}", TO_FIELD, "http://h.example", "/ / " },
	{ "{host}|{scheme}|{port}|{client}|{client_port}", TO_FIELD, "/", "h.example|http|8080|192.0.2.1|4321" },
	{ "{header.x-evil}", TO_FIELD, "/", "\"'<&>\\?\xff" },
	{ "{header.X-Evil}", TO_TEXT, "/", "\"'<&>\\?\xff" },
	{ "<{header.X-Evil}>", TO_HTML, "/", "<&quot;&#39;&lt;&amp;&gt;\\?\xff>" },
	{ "{\"a\":\"{header.X-Evil}\"}", TO_JSON, "/", "{\"a\":\"\\\"'<&>\\\\\\u0009\\ufffd\"}" },
	{ "{cookie.a} {cookie.b} {cookie.c}", TO_FIELD, "/", "1 two " },
	{ "{query.a}|{query.b}|{query.c}|{query.d}", TO_FIELD, "/?a=1%20&b=&d&c=x=y&a=2", "1%20||x=y|" },
	{ "$1-$2", TO_FIELD, "/g/a%2Fb/c", "a%2Fb-c" },
	{ "[$1]", TO_FIELD, "/none", "[]" },
	/* paths */
	{ "/x/{query.a}/y", TO_PATH, "/?a=b%2fc/d", "/x/b%2fc%2Fd/y" },
	{ "/x/{query.a}", TO_PATH, "/?a=b?c", "/x/b%3Fc" },
	{ "/x/{header.X-Evil}", TO_PATH, "/", "/x/%22'%3C&%3E%5C%09%FF" },
	{ "/x/{query.a}/y", TO_PATH, "/?a=..", NULL },
	{ "/x/{query.a}/y", TO_PATH, "/?a=%2E.", NULL },
	{ "/x/{query.a}/y", TO_PATH, "/?a=.", NULL },
	{ "/x/{query.a}/y", TO_PATH, "/?a=...", "/x/.../y" },
	{ "/x/{query.a}/y", TO_PATH, "/?a=../..", "/x/..%2F../y" },
	{ "/x/{query.a}/y", TO_PATH, "/", "/x//y" },
	{ "/x{path}", TO_PATH, "/a/../b%20c", "/x/b%20c" },
	/* redirects */
	{ "/plain", TO_LOCATION, "/", "/plain" },
	{ "https://new.example{uri}", TO_LOCATION, "//a/..?b", "https://new.example//a/..?b" },
	{ "{path}", TO_LOCATION, "//evil.example", "/evil.example" },
	{ "{path}", TO_LOCATION, "/\\/evil.example", "/evil.example" },
	{ "{query.a}", TO_LOCATION, "/?a=//evil.example", "/evil.example" },
	{ "{query.a}", TO_LOCATION, "/?a=https://evil.example", "/https://evil.example" },
	{ "{query.a}", TO_LOCATION, "/?a=?b", "?b" },
	{ "{query.a}", TO_LOCATION, "/?a=", "" },
	{ "/{query.a}/{query.b}", TO_LOCATION, "/?b=evil.example", "/evil.example" },
	{ "/a/{query.a}", TO_LOCATION, "/?a=//b", "/a///b" },
	{ "//new.example{query.a}", TO_LOCATION, "/?a=/b", "//new.example/b" },
	{ "//new.example{query.a}", TO_LOCATION, "/?a=.evil.example", NULL },
	{ "https://new.example{query.a}", TO_LOCATION, "/?a=@evil.example", NULL },
	{ "https://new.example:{query.a}", TO_LOCATION, "/?a=80@evil.example", NULL },
	{ "https://{query.a}.new.example", TO_LOCATION, "/?a=b-c", "https://b-c.new.example" },
	{ "https://{query.a}.new.example", TO_LOCATION, "/?a=evil.example/", NULL },
	{ "https://{query.a}.new.example", TO_LOCATION, "/?a=/evil.example", NULL },
	{ "https://{query.a}/", TO_LOCATION, "/?a=evil.example", NULL },
	{ "https:{query.a}", TO_LOCATION, "/?a=evil.example", NULL },
	{ "https:/{query.a}", TO_LOCATION, "/?a=evil.example", NULL },
	{ "page-{query.a}", TO_LOCATION, "/?a=1", "page-1" },
	{ "page-{query.a}", TO_LOCATION, "/?a=1://x", NULL },
	{ "?a={query.a}", TO_LOCATION, "/?a=//b", "?a=//b" },
	{ "{scheme}://www.{host}{uri}", TO_LOCATION, "/a", "http://www.h.example/a" },
	{ "{header.X-Proto}://{host}{uri}", TO_LOCATION, "/a", "https://h.example/a" },
};

static void
test_expand(void **state)
{
	static struct listener listener = { .port = 8080 };
	static struct conn c = { .listener = &listener, .peer_port = 4321 };
	static struct route r = { .path_kind = PATH_REGEX };
	static struct head h;
	struct exchange x = { .c = &c, .route = &r };
	struct arena a = { NULL };
	size_t at;

	(void)state;
	assert_null(regex_read(&a, &r.regex, S("^/g/([^/]*)/(.*)$"), &at));
	assert_true(ip_parse(S("192.0.2.1"), &c.peer));
	x.client = c.peer;
	for (size_t i = 0; i < LEN(rows); i++) {
		char b[512], want[512];
		struct text t = { b, 0, sizeof b, false };
		struct slice in;
		struct template w = { .text = slice_of(rows[i].text) };
		struct expansion e = { .x = &x, .h = &h, .as = rows[i].as };
		struct path_view view;
		bool good;

		text_fmt(&t, "GET %s HTTP/1.1\r\nHost: H.example:8080\r\nX-Evil: " EVIL "\r\nX-Evil: 2\r\n"
		    "X-Proto: https\r\nCookie: a=1; b=\"two\"\r\n\r\n", rows[i].target);
		in = exact(text_slice(&t));
		assert_true(request_parse(&h, in) > 0);
		x.method_text = h.method_text;
		x.target = h.target;
		x.host = h.host;
		if (rows[i].as == TO_PATH) {
			assert_int_equal(path_normalise(h.path, &view), 0);
			e.view = &view;
		}
		template_read(&a, &w, IN_TEXT, r.regex.groups + 1);
		t.n = 0;
		good = expand(&t, &w, &e);
		snprintf(want, sizeof want, "%s", rows[i].want ? rows[i].want : "");
		row_int(rows[i].text, slice_of(rows[i].target), "allowed", good, rows[i].want != NULL);
		if (good)
			row_slice(rows[i].text, slice_of(rows[i].target), "text", text_slice(&t), slice_of(want));
		exact_free(in);
	}
	arena_free(&a);
	rows_end();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_doubts),
		cmocka_unit_test(test_expand),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
