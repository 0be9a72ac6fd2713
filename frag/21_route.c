/* ==== route ==================================================================
 * Owns    nothing: a table is its configuration's.
 * Offers  route_table_build, route_find, route_why, route_shadowed.
 * Calls   base, arena, http, path, addr.
 *
 * Routes are tried in order, the first whose conditions all hold wins. What is
 * scanned is one 32-bit key a route: the last four bytes of its path, and its
 * host if that is exact. Neighbours whose paths have the same length share a
 * run, so that the request's own key is made once for all of them. */

#define HOST_MAX    255
#define FNV_BASIS   2166136261u
#define FNV_PRIME   16777619u
#define KEY_BYTES   4 /* <= PATH_PAD */

/* Lower case, without port and the root's dot; views a static buffer. */
static struct slice
host_normal(struct slice host)
{
	static char buf[HOST_MAX + 1];
	size_t n = 0, end = host.n;
	const char *colon = host.n ? memchr(host.p, ':', host.n) : NULL;

	if (host.n > 0 && host.p[0] == '[') {
		const char *close = memchr(host.p, ']', host.n);
		colon = close && close + 1 < host.p + host.n ? close + 1 : NULL;
	}
	if (colon)
		end = (size_t)(colon - host.p);
	if (end > 0 && host.p[end - 1] == '.')
		end--;
	if (end > HOST_MAX)
		return S("");
	for (; n < end; n++)
		buf[n] = lower(host.p[n]);
	return (struct slice){ buf, n };
}

static uint32_t
host_hash(struct slice host)
{
	uint32_t h = FNV_BASIS;

	for (size_t i = 0; i < host.n; i++)
		h = (h ^ (unsigned char)host.p[i]) * FNV_PRIME;
	return h;
}

/* The four bytes that end at p; there are PATH_PAD readable ones before it. */
static uint32_t
key_before(const char *p)
{
	uint32_t k;

	memcpy(&k, p - KEY_BYTES, sizeof k);
	return k;
}

static size_t
route_path_n(const struct route *r)
{
	return r->path_kind == PATH_PREFIX || r->path_kind == PATH_EXACT ? r->path.n : 0;
}

static uint32_t
route_key(const struct route *r)
{
	char b[KEY_BYTES] = { 0 };
	size_t n = MIN(route_path_n(r), sizeof b);

	if (n > 0)
		memcpy(b + sizeof b - n, r->path.p + r->path.n - n, n);
	return key_before(b + sizeof b) ^
	    (r->host_kind == HOST_EXACT ? host_hash(r->host) : 0);
}

/* Fills keys and runs from routes[0 .. n). */
static void
route_table_build(struct arena *a, struct route_table *t)
{
	struct route_run *run = NULL;

	t->keys = arena_alloc(a, (size_t)t->n * sizeof *t->keys);
	t->runs = arena_alloc(a, (size_t)t->n * sizeof *t->runs);
	for (int i = 0; i < t->n; i++) {
		const struct route *r = &t->routes[i];
		bool by_host = r->host_kind == HOST_EXACT;
		uint16_t path_n = (uint16_t)route_path_n(r);

		t->keys[i] = route_key(r);
		t->by_host |= r->host_kind != HOST_ANY;
		if (!run || run->path_n != path_n || run->by_host != by_host) {
			run = &t->runs[t->n_runs++];
			*run = (struct route_run){ path_n, by_host, (uint32_t)i, 0 };
		}
		run->n++;
	}
}

static bool
route_host_fits(const struct route *r, struct slice host)
{
	switch (r->host_kind) {
	case HOST_EXACT:
		return slice_eq(host, r->host);
	case HOST_WILD:
		return host.n > r->host.n && slice_ends(host, r->host);
	default:
		return true;
	}
}

/* path has a NUL behind it, see path_normalise. */
static bool
route_path_fits(const struct route *r, struct slice path)
{
	switch (r->path_kind) {
	case PATH_PREFIX:
		return slice_starts(path, r->path);
	case PATH_EXACT:
		return slice_eq(path, r->path);
	case PATH_REGEX:
		return regexec(&r->regex, path.p, 0, NULL, 0) == 0;
	default:
		return true;
	}
}

static bool
route_method_fits(const struct route *r, const struct head *h)
{
	if (r->methods == 0 && r->methods_other.n == 0)
		return true;
	if (r->methods >> h->method & 1)
		return true;
	for (int i = 0; i < r->methods_other.n; i++)
		if (slice_eq(r->methods_other.v[i], h->method_text))
			return true;
	return false;
}

/* Any line of that name with that value, or any value when it is `*`. */
static bool
head_line_is(const struct head *h, const struct pair *p)
{
	bool any = slice_eq(p->value, S("*"));

	for (int i = 0; i < h->n; i++)
		if (slice_ieq(h->f[i].name, p->name) && (any || slice_eq(h->f[i].value, p->value)))
			return true;
	return false;
}

static bool
route_headers_fit(const struct route *r, const struct head *h)
{
	for (int i = 0; i < r->headers.n; i++)
		if (!head_line_is(h, &r->headers.v[i]))
			return false;
	return true;
}

static bool
route_queries_fit(const struct route *r, const struct head *h)
{
	for (int i = 0; i < r->queries.n; i++)
		if (!query_has(h->query, r->queries.v[i].name, r->queries.v[i].value))
			return false;
	return true;
}

/* Why r does not take this request: the condition's name; NULL: it does. */
static const char *
route_why(const struct route *r, const struct head *h, struct slice host, struct slice path,
    const struct ip *client)
{
	if (!route_path_fits(r, path))
		return "path";
	if (!route_host_fits(r, host))
		return "host";
	if (!route_method_fits(r, h))
		return "method";
	if (!route_headers_fit(r, h))
		return "header";
	if (!route_queries_fit(r, h))
		return "query";
	if (r->clients.n > 0 && !cidrs_have(&r->clients, client))
		return "client";
	return NULL;
}

/* The first route that takes the request, NULL: none. path is the normalised
 * view, with its pad in front. */
static const struct route *
route_find(const struct route_table *t, const struct head *h, struct slice path,
    const struct ip *client)
{
	struct slice host = t->by_host ? host_normal(h->host) : S("");
	uint32_t hash = t->by_host ? host_hash(host) : 0;

	for (int k = 0; k < t->n_runs; k++) {
		const struct route_run *run = &t->runs[k];
		uint32_t end = run->first + run->n, key;

		if (path.n < run->path_n)
			continue;
		key = key_before(path.p + run->path_n) ^ (run->by_host ? hash : 0);
		for (uint32_t i = run->first; i < end; i++)
			if (t->keys[i] == key &&
			    !route_why(&t->routes[i], h, host, path, client))
				return &t->routes[i];
	}
	return NULL;
}

static bool
route_path_covers(const struct route *wide, const struct route *narrow)
{
	bool text = narrow->path_kind == PATH_PREFIX || narrow->path_kind == PATH_EXACT;

	switch (wide->path_kind) {
	case PATH_PREFIX:
		return (text && slice_starts(narrow->path, wide->path)) || wide->path.n <= 1;
	case PATH_EXACT:
		return narrow->path_kind == PATH_EXACT && slice_eq(narrow->path, wide->path);
	case PATH_REGEX:
		return narrow->path_kind == PATH_REGEX && slice_eq(narrow->path, wide->path);
	default:
		return true;
	}
}

static bool
route_host_covers(const struct route *wide, const struct route *narrow)
{
	if (wide->host_kind == HOST_ANY)
		return true;
	if (wide->host_kind == HOST_EXACT)
		return narrow->host_kind == HOST_EXACT && slice_eq(wide->host, narrow->host);
	return narrow->host_kind != HOST_ANY && slice_ends(narrow->host, wide->host) &&
	    (narrow->host_kind == HOST_WILD || narrow->host.n > wide->host.n);
}

/* earlier takes all that later could: later is never reached. Only what is
 * certain counts; conditions on head lines and clients are never compared. */
static bool
route_shadowed(const struct route *later, const struct route *earlier)
{
	bool any_method = earlier->methods == 0 && earlier->methods_other.n == 0;
	bool same_methods = later->methods != 0 && later->methods_other.n == 0 &&
	    (later->methods & ~earlier->methods) == 0;

	return earlier->headers.n == 0 && earlier->queries.n == 0 && earlier->clients.n == 0 &&
	    (any_method || same_methods) && route_path_covers(earlier, later) &&
	    route_host_covers(earlier, later);
}

