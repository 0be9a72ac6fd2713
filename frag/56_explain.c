/* ==== explain ================================================================
 * Owns    nothing.
 * Offers  explain.
 * Calls   route, heads. `warp -e`: what would become of a request, unsent. */

#define EXPLAIN_MAX 32768 /* bytes of the request made of the arguments */

/* `METHOD URL` and lines to a request head. False: it does not fit. */
static bool
explain_request(struct text *t, struct slice request, const char *const *headers, int n)
{
	struct slice rest = slice_trim(request), method, authority = { NULL, 0 };
	const char *at;

	if (memchr(rest.p, ' ', rest.n))
		slice_cut(&rest, ' ', &method);
	else
		method = S("GET");
	rest = slice_trim(rest);
	if ((at = memmem(rest.p, rest.n, "://", 3))) {
		authority = slice_from(rest, (size_t)(at - rest.p) + 3);
		at = memchr(authority.p, '/', authority.n);
		rest = at ? slice_from(authority, (size_t)(at - authority.p)) : S("/");
		authority.n = at ? (size_t)(at - authority.p) : authority.n;
	}
	text_add(t, method);
	text_char(t, ' ');
	text_add(t, rest);
	text_add(t, S(" HTTP/1.1\r\n"));
	if (authority.p)
		line_write(t, S("Host"), authority);
	for (int i = 0; i < n; i++) {
		text_str(t, headers[i]);
		text_add(t, S("\r\n"));
		if (strncasecmp(headers[i], "host:", 5) == 0)
			authority = S("given");
	}
	if (!authority.p)
		text_add(t, S("Host: localhost\r\n"));
	text_add(t, S("\r\n"));
	return !t->full;
}

static const struct route *
explain_routes(const struct conf *cf, const struct head *h, struct slice path,
    const struct ip *client, FILE *to)
{
	char hostbuf[HOST_MAX + 1];
	struct slice host = host_normal(h->host);

	if (host.n > 0)
		memcpy(hostbuf, host.p, host.n);
	host.p = hostbuf;
	for (int i = 0; i < cf->table.n; i++) {
		const struct route *r = &cf->table.routes[i];
		const char *why = route_why(r, h, host, path, client);
		fprintf(to, "route %d (line %u): %s%s\n", i + 1, r->line,
		    why ? "no, its condition fails: " : "taken", why ? why : "");
		if (!why)
			return r;
	}
	fprintf(to, "no route matches: %d\n", cf->server.no_route_status);
	return NULL;
}

static void
explain_guards(const struct route *r, const struct head *h, const struct conf *cf, FILE *to)
{
	if (r->rate.requests > 0)
		fprintf(to, "rate limit: %u requests per %u ms, burst %u\n", r->rate.requests,
		    r->rate.per_ms, r->rate.burst);
	if (r->require_auth)
		fprintf(to, "token: %s\n", auth_token_ok(h, cf->server.admin_token) ? "good" :
		    "missing or wrong: 401");
	if (r->basic_auth.n > 0)
		fprintf(to, "basic auth: %s\n", auth_basic_ok(h, &r->basic_auth) ? "good" :
		    "missing or wrong: 401");
}

/* The head as the first candidate would get it. */
static void
explain_upstream(struct exchange *x, struct head *h, FILE *to)
{
	struct upstream *up = x->route->upstream;

	fprintf(to, "upstream %s, %s; candidates:\n", up->name, up->balance->name);
	for (int i = 0; i < up->n_instances; i++)
		fprintf(to, "  %d %s weight %u\n", i, up->instances[i].addr.text,
		    up->instances[i].weight);
	x->inst = &up->instances[0];
	head_out.n = 0;
	head_out.full = false;
	if (request_write(&head_out, x, h))
		fprintf(to, "it is sent:\n%.*s", (int)head_out.n, head_out.p);
	else
		fputs("it cannot be sent: too long, or no path after rewriting\n", to);
	for (int i = 0; i < x->route->add_response_headers.n; i++)
		fprintf(to, "response gets %.*s: %.*s\n",
		    (int)x->route->add_response_headers.v[i].name.n,
		    x->route->add_response_headers.v[i].name.p,
		    (int)x->route->add_response_headers.v[i].value.n,
		    x->route->add_response_headers.v[i].value.p);
	for (int i = 0; i < x->route->remove_response_headers.n; i++)
		fprintf(to, "response loses %.*s\n", (int)x->route->remove_response_headers.v[i].n,
		    x->route->remove_response_headers.v[i].p);
}

static void
explain_action(struct exchange *x, struct head *h, FILE *to)
{
	const struct route *r = x->route;

	if (r->action == ACT_REDIRECT)
		fprintf(to, "redirect %d to %.*s\n", r->status, (int)r->redirect.n, r->redirect.p);
	else if (r->action == ACT_RESPOND)
		fprintf(to, "answer %d with %zu bytes of %.*s\n", r->status, r->body.n,
		    (int)r->content_type.n, r->content_type.p);
	else
		explain_upstream(x, h, to);
}

/* Says what would become of the request. 0, or 2: it is no request. */
static int
explain(struct conf *cf, const char *request, const char *const *headers, int n,
    const char *client, FILE *to)
{
	static char buf[EXPLAIN_MAX];
	static struct listener listener;
	static struct conn c = { .listener = &listener };
	static struct exchange x;
	struct text t = { buf, 0, sizeof buf, false };
	struct path_view view;
	int err;

	if (client && !ip_parse(slice_of(client), &c.peer)) {
		fprintf(stderr, "warp: -a %s: expected an IP address\n", client);
		return EXIT_USAGE;
	}
	if (!client)
		c.peer = (struct ip){ { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1 } };
	heads_open(cf);
	clock_turn();
	listener.port = cf->server.n_listens ? cf->server.listens[0].port : 0;
	if (!explain_request(&t, slice_of(request), headers, n) ||
	    (err = request_parse(&req, text_slice(&t))) <= 0) {
		fprintf(stderr, "warp: -e: expected 'METHOD URL', and -H 'Name: value'\n");
		return EXIT_USAGE;
	}
	if (path_normalise(req.path, &view) < 0) {
		fprintf(to, "the path is malformed: 400\n");
		return 0;
	}
	fprintf(to, "path %.*s\n", (int)view.path.n, view.path.p);
	x = (struct exchange){ .c = &c, .host = req.host, .minor = 1, .client = client_of(&c.peer, &req) };
	x.up.body.done = true;
	snprintf(x.id, sizeof x.id, "(made for each request)");
	x.route = explain_routes(cf, &req, view.path, &x.client, to);
	if (!x.route)
		return 0;
	explain_guards(x.route, &req, cf, to);
	explain_action(&x, &req, to);
	return 0;
}

