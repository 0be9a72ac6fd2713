/* Any text with variables, and any request: nothing of the request ends a line, gets out of
 * the quotes of JSON or becomes markup, climbs in a path, or chooses the host of a redirect.
 * Input: how it is written, the text, a target and a field, a line each. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

#define OURS "new.example"

/* Redirects whose host is ours, or the request's own. */
static const char *const redirects[] = { "$1", "/$1", "{path}", "{query}", "{query.a}{query.b}",
	"/{query.a}/$1", "https://" OURS "$1", "https://" OURS "{query.a}{uri}", "https://{query.a}." OURS "/$1",
	"//" OURS "{query.a}", "https://{query.a}{query.b}." OURS, "https://" OURS ":8080$1", "?{query.a}",
	"{query.a}://$1" };

/* Where a browser would go: empty, it stays. It drops slashes, and takes `\` for one. */
static struct slice
host_of(struct slice url)
{
	size_t n = 0, slashes = 0;

	while (n < url.n && (isalnum((unsigned char)url.p[n]) || memchr("+-.", url.p[n], 3)))
		n++;
	n = n > 0 && n < url.n && url.p[n] == ':' ? n + 1 : 0;
	for (url = slice_from(url, n); url.n > 0 && memchr("/\\", *url.p, 2); url = slice_from(url, 1))
		slashes++;
	if (n == 0 && slashes < 2)
		return S("");
	for (n = 0; n < url.n && !memchr("/?#\\", url.p[n], 4); n++)
		;
	return (struct slice){ url.p, n };
}

/* As variable_name_n of any length. */
static bool
is_name(struct slice s)
{
	size_t n;

	for (; s.n > 0; s = slice_from(s, n))
		if ((n = variable_name_n(s, true)) == 0)
			return false;
	return true;
}

static void
written(enum escape as, struct slice value)
{
	for (size_t i = 0; i < value.n; i++) {
		MUST((unsigned char)value.p[i] >= ' ' && value.p[i] != 0x7f);
		MUST(as != TO_HTML || !memchr("<>\"'", value.p[i], 4));
		MUST(as != TO_PATH || !memchr("?# ", value.p[i], 3)); /* a `\` of the client's path stays */
		if (as == TO_JSON && value.p[i] == '\\')
			i++;
		else
			MUST(as != TO_JSON || value.p[i] != '"');
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct listener listener = { .port = 80 };
	static struct conn c = { .listener = &listener };
	static struct route r = { .path_kind = PATH_REGEX };
	static struct arena forever;
	static struct head h;
	static char head[65536], out[1 << 20];
	struct slice in = exact(data, size), rest = in, kind, target, host;
	struct text t = { head, 0, sizeof head, false }, to = { out, 0, sizeof out, false };
	struct exchange x = { .c = &c, .route = &r };
	struct expansion e = { .x = &x, .h = &h };
	struct template w = { .text = { NULL, 0 } };
	struct arena a = { NULL };
	struct path_view view;
	const char *why;
	size_t at, n = 0;

	if (!r.regex.v)
		MUST(!regex_read(&forever, &r.regex, S("^/([^/]*)/?(.*)$"), &at));
	if (!slice_cut(&rest, '\n', &kind) || kind.n == 0 || !slice_cut(&rest, '\n', &w.text) || !slice_cut(&rest, '\n', &target))
		goto out;
	e.as = (enum escape)((unsigned char)*kind.p % (TO_PATH + 1));
	if (e.as == TO_LOCATION)
		w.text = slice_of(redirects[(unsigned char)kind.p[kind.n - 1] % LEN(redirects)]);
	text_str(&t, "GET ");
	text_add(&t, target);
	text_str(&t, " HTTP/1.1\r\nHost: a.example\r\nX: ");
	text_add(&t, rest);
	text_str(&t, "\r\n\r\n");
	if (request_parse(&h, text_slice(&t)) <= 0 || path_normalise(h.path, &view) < 0)
		goto out;
	x.method_text = h.method_text;
	x.target = h.target;
	x.host = h.host;
	e.view = &view;
	for (struct slice left = w.text; (why = variable_doubt(&a, &left, IN_TEXT, r.regex.groups + 1));)
		MUST(++n <= w.text.n && *why);
	template_read(&a, &w, IN_TEXT, r.regex.groups + 1);
	for (size_t i = 0; i < w.n; i++)
		MUST(lies_in(w.v[i].text, w.text) && lies_in(w.v[i].arg, w.text));
	for (size_t i = 0; i < w.n && e.as != TO_LOCATION; i++) {
		at = to.n;
		if (w.v[i].var != VAR_NONE && w.v[i].var != VAR_TIME && value_write(&to, at, &w.v[i], &e))
			written(e.as, (struct slice){ out + at, to.n - at });
	}
	if (e.as == TO_LOCATION && expand(&to, &w, &e)) {
		written(e.as, text_slice(&to));
		host = host_of(text_slice(&to));
		at = host.n > S(":8080").n && slice_ends(host, S(":8080")) ? S(":8080").n : 0;
		host.n -= at;
		MUST(host.n == 0 || slice_eq(host, S(OURS)) || (slice_ends(host, S("." OURS)) && is_name(host)));
	}
out:
	arena_free(&a);
	exact_free(in);
	return 0;
}
