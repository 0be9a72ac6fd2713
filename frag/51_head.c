/* ==== heads ==================================================================
 * Owns    the text of the head being written, and the heads being read.
 * Offers  heads_open, client_of, request_write, response_write, interim_write.
 * Calls   base, http, path, addr, clock. What one side said becomes what the
 *         other is told: RFC 9110 7.6, RFC 9112 3, RFC 7239. */

#define HTTP_PORT 80 /* not said in Host */

static const struct conf *conf;  /* this worker's */
static struct head req, res;     /* parsed last; see exchange_request */
static struct text head_out;     /* one head on its way into a send */

static void
heads_open(const struct conf *cf)
{
	conf = cf;
	head_out.cap = cf->server.max_header_bytes + HEAD_ADDED_MAX;
	head_out.p = map_zeroed(head_out.cap);
}

static void
line_write(struct text *t, struct slice name, struct slice value)
{
	text_add(t, name);
	text_add(t, S(": "));
	text_add(t, value);
	text_add(t, S("\r\n"));
}

/* The lines that travel on, neighbours copied at once. */
static void
fields_write(struct text *t, const struct head *h)
{
	const char *start = NULL, *end = NULL;

	for (int i = 0; i < h->n; i++) {
		const struct field *f = &h->f[i];
		if (f->drop)
			continue;
		if (f->start != end) {
			text_add(t, (struct slice){ start, (size_t)(end - start) });
			start = f->start;
		}
		end = f->end;
	}
	text_add(t, (struct slice){ start, (size_t)(end - start) });
}

static void
head_drop(struct head *h, enum field_id id)
{
	if (h->count[id] == 0)
		return;
	for (int i = h->first[id] - 1; i < h->n; i++)
		if (h->f[i].id == id)
			h->f[i].drop = true;
}

static void
head_drop_name(struct head *h, struct slice name)
{
	for (int i = 0; i < h->n; i++)
		if (slice_ieq(h->f[i].name, name))
			h->f[i].drop = true;
}

/* What the route replaces or removes does not come from the peer. */
static void
head_edit(struct head *h, const struct pairs *add, const struct slices *remove)
{
	for (int i = 0; i < add->n; i++)
		head_drop_name(h, add->v[i].name);
	for (int i = 0; i < remove->n; i++)
		head_drop_name(h, remove->v[i]);
}

static bool
is_named(struct slice name, const struct pairs *add, const struct slices *remove)
{
	for (int i = 0; i < add->n; i++)
		if (slice_ieq(add->v[i].name, name))
			return true;
	for (int i = 0; i < remove->n; i++)
		if (slice_ieq(remove->v[i], name))
			return true;
	return false;
}

/* ---- who asks ---- */

/* One member of X-Forwarded-For: an address, perhaps with a port. */
static bool
forwarded_ip(struct slice item, struct ip *ip)
{
	const char *colon = item.n ? memchr(item.p, ':', item.n) : NULL, *close;

	if (item.n > 0 && item.p[0] == '[') {
		close = memchr(item.p, ']', item.n);
		return close && ip_parse((struct slice){ item.p + 1,
		    (size_t)(close - item.p) - 1 }, ip);
	}
	if (colon && !memchr(colon + 1, ':', item.n - (size_t)(colon + 1 - item.p)))
		item.n = (size_t)(colon - item.p);
	return ip_parse(item, ip);
}

/* Takes the last member off a comma list. */
static bool
list_last(struct slice *list, struct slice *item)
{
	const char *comma;

	if (!list->p)
		return false;
	comma = list->n ? memrchr(list->p, ',', list->n) : NULL;
	if (comma) {
		*item = slice_trim(slice_from(*list, (size_t)(comma - list->p) + 1));
		list->n = (size_t)(comma - list->p);
	} else {
		*item = slice_trim(*list);
		*list = (struct slice){ NULL, 0 };
	}
	return true;
}

/* The address to believe: the peer's, or behind trusted proxies the last one
 * that is not itself trusted. */
static struct ip
client_of(const struct ip *peer, const struct head *h)
{
	struct ip client = *peer, ip;

	if (!cidrs_have(&conf->server.trusted, peer))
		return client;
	for (int i = h->n - 1; i >= 0; i--) {
		struct slice list = h->f[i].value, item;
		if (h->f[i].id != F_X_FORWARDED_FOR)
			continue;
		while (list_last(&list, &item)) {
			if (!forwarded_ip(item, &ip))
				return client;
			client = ip;
			if (!cidrs_have(&conf->server.trusted, &ip))
				return client;
		}
	}
	return client;
}

/* ---- request ---- */

struct forward {
	struct text *t;
	const struct exchange *x;
	const struct head *h;
	bool trusted, edited;
};

static bool
forward_skips(const struct forward *fw, struct slice name)
{
	return fw->edited && is_named(name, &fw->x->route->add_headers,
	    &fw->x->route->remove_headers);
}

/* A line warp vouches for; a trusted proxy's own word is kept. */
static void
forward_line(const struct forward *fw, struct slice name, enum field_id id, struct slice value)
{
	if (forward_skips(fw, name))
		return;
	if (fw->trusted && fw->h->count[id] == 1)
		value = head_field(fw->h, id)->value;
	if (value.n > 0)
		line_write(fw->t, name, value);
}

static void
forward_chain(const struct forward *fw, struct slice name, enum field_id id, struct slice own)
{
	bool first = true;

	if (forward_skips(fw, name) || (own.n == 0 && (!fw->trusted || !fw->h->count[id])))
		return;
	text_add(fw->t, name);
	text_add(fw->t, S(": "));
	for (int i = 0; fw->trusted && i < fw->h->n; i++) {
		if (fw->h->f[i].id != id || fw->h->f[i].value.n == 0)
			continue;
		text_add(fw->t, first ? S("") : S(", "));
		text_add(fw->t, fw->h->f[i].value);
		first = false;
	}
	if (own.n > 0) {
		text_add(fw->t, first ? S("") : S(", "));
		text_add(fw->t, own);
	}
	text_add(fw->t, S("\r\n"));
}

/* for=, host= and proto= of RFC 7239 4; v6 and odd hosts are quoted. */
static void
forwarded_write(struct text *t, const struct ip *peer, struct slice host)
{
	if (ip_is_none(peer))
		text_add(t, S("for=unknown"));
	else {
		text_str(t, ip_is_v4(peer) ? "for=" : "for=\"[");
		ip_text(t, peer);
		text_str(t, ip_is_v4(peer) ? "" : "]\"");
	}
	if (host.n > 0) {
		bool quote = !is_token(host);
		text_str(t, quote ? ";host=\"" : ";host=");
		text_add(t, host);
		text_str(t, quote ? "\"" : "");
	}
	text_add(t, S(";proto=http"));
}

#define FORWARD_TEXT 512 /* one address and one host */

static void
forward_write(const struct forward *fw)
{
	const struct conn *c = fw->x->c;
	char b[FORWARD_TEXT], port[8];
	struct text t = { b, 0, sizeof b, false }, pt = { port, 0, sizeof port, false };

	if (conf->middleware.forward_headers) {
		ip_text(&t, &c->peer);
		forward_chain(fw, S("X-Forwarded-For"), F_X_FORWARDED_FOR, text_slice(&t));
		forward_line(fw, S("X-Forwarded-Proto"), F_X_FORWARDED_PROTO, S("http"));
		forward_line(fw, S("X-Forwarded-Host"), F_X_FORWARDED_HOST, fw->x->host);
		if (c->listener->port > 0)
			text_uint(&pt, c->listener->port);
		forward_line(fw, S("X-Forwarded-Port"), F_X_FORWARDED_PORT, text_slice(&pt));
		t.n = 0;
		ip_text(&t, &fw->x->client);
		if (t.n > 0 && !forward_skips(fw, S("X-Real-IP")))
			line_write(fw->t, S("X-Real-IP"), text_slice(&t));
	}
	if (conf->middleware.forwarded) {
		t.n = 0;
		forwarded_write(&t, &c->peer, fw->x->host);
		forward_chain(fw, S("Forwarded"), F_FORWARDED, t.full ? S("") : text_slice(&t));
	}
}

/* Fields that warp writes itself, or that only a trusted peer may send. */
static void
request_drop(struct head *h, const struct exchange *x, bool trusted)
{
	static const enum field_id forwards[] = { F_X_FORWARDED_FOR, F_X_FORWARDED_HOST,
		F_X_FORWARDED_PORT, F_X_FORWARDED_PROTO, F_X_REAL_IP };

	head_hop_by_hop(h);
	head_drop(h, F_HOST);
	for (size_t i = 0; i < LEN(forwards); i++)
		if (!trusted || conf->middleware.forward_headers)
			head_drop(h, forwards[i]);
	if (!trusted || conf->middleware.forwarded)
		head_drop(h, F_FORWARDED);
	if (conf->server.request_id)
		head_drop(h, F_X_REQUEST_ID);
	if (x->route->require_auth)
		head_drop(h, F_X_ADMIN_TOKEN);
	if (!x->expect || x->spool)
		head_drop(h, F_EXPECT);
	if (x->up.chunk_out || x->spool)
		head_drop(h, F_CONTENT_LENGTH);
	if (!x->up.chunk_out)
		head_drop(h, F_TRAILER);
	head_edit(h, &x->route->add_headers, &x->route->remove_headers);
}

/* The path behind the matched part, or with that part rewritten; false: it is
 * too long, or no longer a path. */
static bool
rewrite_apply(struct text *t, const struct route *r, struct slice path)
{
	enum { GROUPS = 10 };
	regmatch_t m[GROUPS];
	struct slice w = r->rewrite;
	size_t from = 0, to = r->path.n;

	if (r->path_kind == PATH_REGEX) {
		if (regexec(&r->regex, path.p, GROUPS, m, 0) != 0)
			return false;
		from = (size_t)m[0].rm_so;
		to = (size_t)m[0].rm_eo;
	} else if (r->path_kind == PATH_ANY)
		to = r->has_rewrite ? path.n : 0;
	text_add(t, (struct slice){ path.p, from });
	for (size_t i = 0; r->has_rewrite && i < w.n; i++) {
		unsigned g = i + 1 < w.n ? (unsigned)(unsigned char)w.p[i + 1] - '0' : GROUPS;
		if (w.p[i] != '$' || g >= GROUPS || r->path_kind != PATH_REGEX) {
			text_char(t, w.p[i]);
			continue;
		}
		if (m[g].rm_so >= 0)
			text_add(t, (struct slice){ path.p + m[g].rm_so,
			    (size_t)(m[g].rm_eo - m[g].rm_so) });
		i++;
	}
	text_add(t, slice_from(path, to));
	return !t->full;
}

/* The request target as the upstream gets it: the client's own bytes, unless
 * the route strips or rewrites; then the normalised path, encoded again. */
static bool
target_write(struct text *t, const struct exchange *x, const struct head *h)
{
	static char buf[TARGET_MAX];
	struct text path = { buf, 0, sizeof buf, false };
	struct path_view view;
	struct slice p;

	if (h->form == TARGET_ORIGIN && !x->route->strip_prefix && !x->route->has_rewrite) {
		text_add(t, h->target);
		return true;
	}
	if (!x->route->strip_prefix && !x->route->has_rewrite) {
		text_add(t, h->path);
	} else {
		if (path_normalise(h->path, &view) < 0 ||
		    !rewrite_apply(&path, x->route, view.path))
			return false;
		p = text_slice(&path);
		if (p.n == 0 || p.p[0] != '/')
			text_char(t, '/');
		path_encode(t, p);
	}
	if (h->has_query) {
		text_char(t, '?');
		text_add(t, h->query);
	}
	return true;
}

/* Host of the upstream's own name: a backend on a unix socket has none. */
static struct slice
upstream_host(const struct instance *in)
{
	const struct addr *a = &in->addr;

	if (!a->host)
		return S("localhost");
	return slice_of(a->port == HTTP_PORT && !strchr(a->host, ':') ? a->host : a->text);
}

static void
host_write(struct text *t, const struct exchange *x, bool edited)
{
	const struct upstream *up = x->inst->up;
	struct slice host = x->host;

	if (edited && is_named(S("Host"), &x->route->add_headers, &(struct slices){ 0 }))
		return;
	if (up->host_header == HOST_TEXT)
		host = up->host_text;
	else if (up->host_header == HOST_UPSTREAM || !host.p)
		host = upstream_host(x->inst);
	line_write(t, S("Host"), host);
}

static void
pairs_write(struct text *t, const struct pairs *p)
{
	for (int i = 0; i < p->n; i++)
		line_write(t, p->v[i].name, p->v[i].value);
}

/* How the body goes and what becomes of the connection. */
static void
request_framing(struct text *t, const struct exchange *x, const struct head *h)
{
	if (x->up.chunk_out)
		text_add(t, S("Transfer-Encoding: chunked\r\n"));
	if (x->spool) {
		text_add(t, S("Content-Length: "));
		text_uint(t, x->spool->size);
		text_add(t, S("\r\n"));
	}
	if (x->upgrade) {
		text_add(t, S("Connection: Upgrade\r\n"));
		line_write(t, S("Upgrade"), head_field(h, F_UPGRADE)->value);
	} else if (x->inst->up->keepalive == 0 || x->inst->up->proxy_out != PROXY_OUT_NONE)
		text_add(t, S("Connection: close\r\n"));
}

/* The head of x as x->inst is to see it. False: it does not fit, or its path
 * is none after rewriting. */
static bool
request_write(struct text *t, const struct exchange *x, struct head *h)
{
	const struct route *r = x->route;
	bool trusted = conf->server.trusted.n > 0 &&
	    cidrs_have(&conf->server.trusted, &x->c->peer);
	struct forward fw = { t, x, h, trusted, r->add_headers.n + r->remove_headers.n > 0 };

	request_drop(h, x, trusted);
	text_add(t, h->method_text);
	text_char(t, ' ');
	if (!target_write(t, x, h))
		return false;
	text_add(t, S(" HTTP/1.1\r\n"));
	host_write(t, x, fw.edited);
	fields_write(t, h);
	forward_write(&fw);
	if (conf->middleware.via)
		line_write(t, S("Via"), h->minor ? S("1.1 warp") : S("1.0 warp"));
	if (conf->server.request_id && !forward_skips(&fw, S("X-Request-Id")))
		line_write(t, S("X-Request-Id"), slice_of(x->id));
	pairs_write(t, &r->add_headers);
	request_framing(t, x, h);
	text_add(t, S("\r\n"));
	return !t->full;
}

/* ---- response ---- */

/* What the client is to know of the connection. RFC 9112 9.3. */
static void
connection_write(struct text *t, const struct exchange *x)
{
	if (!x->keep)
		text_add(t, S("Connection: close\r\n"));
	else if (x->minor == 0)
		text_add(t, S("Connection: keep-alive\r\n"));
}

static void
status_write(struct text *t, int status, struct slice reason)
{
	text_add(t, S("HTTP/1.1 "));
	text_uint(t, (unsigned)status);
	text_char(t, ' ');
	text_add(t, reason);
	text_add(t, S("\r\n"));
}

/* The response head as the client is to see it. False: it does not fit. */
static bool
response_write(struct text *t, const struct exchange *x, struct head *h)
{
	const struct route *r = x->route;

	head_hop_by_hop(h);
	if (x->down.chunk_out || x->down.body.kind == BODY_CHUNKED)
		head_drop(h, F_CONTENT_LENGTH);
	if (!x->down.chunk_out)
		head_drop(h, F_TRAILER);
	head_edit(h, &r->add_response_headers, &r->remove_response_headers);
	status_write(t, h->status, h->reason);
	fields_write(t, h);
	if (h->count[F_DATE] == 0)
		line_write(t, S("Date"), clock_date());
	if (conf->middleware.via)
		line_write(t, S("Via"), h->minor ? S("1.1 warp") : S("1.0 warp"));
	pairs_write(t, &r->add_response_headers);
	if (x->down.chunk_out)
		text_add(t, S("Transfer-Encoding: chunked\r\n"));
	if (h->status == 101) {
		text_add(t, S("Connection: Upgrade\r\n"));
		if (h->count[F_UPGRADE] > 0)
			line_write(t, S("Upgrade"), head_field(h, F_UPGRADE)->value);
	} else
		connection_write(t, x);
	text_add(t, S("\r\n"));
	return !t->full;
}

/* A 1xx on its way through. */
static bool
interim_write(struct text *t, struct head *h)
{
	head_hop_by_hop(h);
	head_drop(h, F_CONTENT_LENGTH);
	status_write(t, h->status, h->reason);
	fields_write(t, h);
	text_add(t, S("\r\n"));
	return !t->full;
}

