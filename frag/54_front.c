/* ==== gate ===================================================================
 * Owns    the seed of what must not be guessed.
 * Offers  gate_open, gate_enter.
 * Calls   route, auth, board, answers, exchange. A request with a whole head
 *         passes here once: which route, may it, and what then. */

static uint64_t rate_seed; /* equal in all workers: the board is shared */

static void
gate_open(void)
{
	if (getrandom(random_state, sizeof random_state, 0) != sizeof random_state)
		random_state[0] = (uint64_t)now_us;
	random_state[1] |= 1; /* all zero would stay so */
	rate_seed = (uint64_t)board->started_s * UINT64_C(0x9e3779b97f4a7c15);
}

static bool
id_is_good(struct slice id)
{
	for (size_t i = 0; i < id.n; i++)
		if (id.p[i] <= ' ' || id.p[i] >= 0x7f)
			return false;
	return id.n > 0 && id.n <= REQUEST_ID_MAX;
}

/* X-Request-Id: a trusted proxy's, or made here. */
static void
request_id(struct exchange *x, const struct head *h)
{
	struct text t = { x->id, 0, sizeof x->id - 1, false };
	const struct field *f = head_field(h, F_X_REQUEST_ID);

	if (f && conf->server.trusted.n > 0 && id_is_good(f->value) &&
	    cidrs_have(&conf->server.trusted, &x->c->peer)) {
		text_add(&t, f->value);
		return;
	}
	text_hex(&t, random_next(), 16);
	text_hex(&t, random_next(), 16);
}

/* An upgrade that may be passed on: HTTP/1.1, no body, and not to HTTP/2,
 * which warp could not follow. RFC 9110 7.8. */
static bool
wants_upgrade(const struct exchange *x, const struct head *h)
{
	return h->minor > 0 && h->count[F_UPGRADE] == 1 && x->up.body.kind == BODY_NONE &&
	    head_field(h, F_UPGRADE)->value.n > 0 &&
	    head_has(h, F_CONNECTION, "upgrade") && !head_has(h, F_UPGRADE, "h2c");
}

static bool
client_keeps(const struct exchange *x, const struct head *h)
{
	if (h->minor == 0)
		return head_has(h, F_CONNECTION, "keep-alive") &&
		    !head_has(h, F_CONNECTION, "close");
	return !head_has(h, F_CONNECTION, "close") && x->c->served + 1 < conf->server.keepalive_requests;
}

static enum step
gate_limit(struct exchange *x)
{
	const struct route *r = x->route;
	uint64_t tag = hash64(rate_seed + r->line, x->client.b, sizeof x->client.b);
	char b[64];
	struct text t = { b, 0, sizeof b, false };
	unsigned wait = rate_take(&r->rate, tag);

	if (wait == 0)
		return STEP_WAIT;
	text_add(&t, S("Retry-After: "));
	text_uint(&t, wait);
	text_add(&t, S("\r\n"));
	return exchange_error(x, 429, "too many requests from this address", text_slice(&t));
}

/* `{host}`, `{uri}` and `{path}` are the request's own. */
static enum step
gate_redirect(struct exchange *x, const struct head *h)
{
	static char buf[TARGET_MAX];
	struct text t = { buf, 0, sizeof buf, false };
	struct slice rest = x->route->redirect, bare;
	struct { struct slice name, value; } vars[] = {
		{ S("{host}"), x->host },
		{ S("{uri}"), h->form == TARGET_ORIGIN ? h->target : h->path },
		{ S("{path}"), h->path },
	};
	size_t i;

	bare = host_normal(x->host);
	vars[0].value = bare.n > 0 && x->host.n > 0 && x->host.p[0] != '[' ? bare : x->host;
	text_add(&t, S("Location: "));
	while (rest.n > 0) {
		for (i = 0; i < LEN(vars) && !slice_starts(rest, vars[i].name); i++)
			;
		if (i < LEN(vars)) {
			text_add(&t, vars[i].value);
			rest = slice_from(rest, vars[i].name.n);
			continue;
		}
		text_char(&t, *rest.p);
		rest = slice_from(rest, 1);
	}
	text_add(&t, S("\r\n"));
	if (t.full)
		return exchange_error(x, 414, "the redirect is too long", S(""));
	return exchange_error(x, x->route->status, "", text_slice(&t));
}

static enum step
gate_respond(struct exchange *x)
{
	struct answer a = { .status = x->route->status, .content_type = x->route->content_type,
		.body = x->route->body };

	return exchange_answer(x, &a);
}

/* The route's upstream shall answer: at once, or when the body is whole. */
static enum step
gate_forward(struct exchange *x, const struct head *h)
{
	bool has_body = x->up.body.kind != BODY_NONE;

	x->expect = has_body && h->minor > 0 && h->count[F_EXPECT] > 0;
	x->upgrade = wants_upgrade(x, h);
	if (x->upgrade && !x->route->websocket)
		return exchange_error(x, 426, "this route takes no upgrade",
		    S("Upgrade: HTTP/1.1\r\nConnection: upgrade\r\n"));
	x->up.state = has_body ? FLOW_ON : FLOW_OFF;
	x->state = X_PICK;
	if (has_body && x->route->buffer_request >= 0) {
		x->spool = spool_new();
		x->state = X_SPOOL;
	} else
		x->up.chunk_out = x->up.body.kind == BODY_CHUNKED;
	return STEP_AGAIN;
}

/* What the route asks of who wants in. STEP_WAIT: nothing against it. */
static enum step
gate_guard(struct exchange *x, const struct head *h)
{
	const struct route *r = x->route;
	enum step s;

	if (r->rate.requests > 0 && (s = gate_limit(x)) != STEP_WAIT)
		return s;
	if (r->require_auth && !auth_token_ok(h, conf->server.admin_token))
		return exchange_error(x, 401, "a token is required",
		    S("WWW-Authenticate: Token\r\n"));
	if (r->basic_auth.n > 0 && !auth_basic_ok(h, &r->basic_auth))
		return exchange_error(x, 401, "a user and password are required",
		    S("WWW-Authenticate: Basic realm=\"warp\", charset=\"UTF-8\"\r\n"));
	if (x->up.body.kind == BODY_LENGTH && body_is_too_big(x, x->up.body.left))
		return exchange_error(x, 413, "the request body is too big", S(""));
	return STEP_WAIT;
}

static enum step
gate_route(struct exchange *x, const struct head *h)
{
	struct path_view view;
	enum step s;

	if (h->path_plain)
		path_plain(h->path, &view);
	else if (path_normalise(h->path, &view) < 0)
		return exchange_error(x, 400, "the path is malformed", S(""));
	x->route = route_find(&conf->table, h, view.path, &x->client);
	if (!x->route)
		return exchange_error(x, conf->server.no_route_status, "no route matches", S(""));
	if ((s = gate_guard(x, h)) != STEP_WAIT)
		return s;
	switch (x->route->action) {
	case ACT_REDIRECT:
		return gate_redirect(x, h);
	case ACT_RESPOND:
		return gate_respond(x);
	default:
		return gate_forward(x, h);
	}
}

/* Routes x, whose head is req, or answers it. */
static enum step
gate_enter(struct exchange *x)
{
	struct head *h = exchange_request(x);
	int err = body_of_request(&x->up.body, h);
	const struct field *expect = head_field(h, F_EXPECT);

	x->wants_close = !client_keeps(x, h);
	x->keep = !x->wants_close && !draining && err >= 0;
	request_id(x, h);
	if (err < 0)
		return exchange_error(x, -err, "the request's framing is refused", S(""));
	x->client = client_of(&x->c->peer, h);
	if (expect && (h->count[F_EXPECT] > 1 || !slice_ieq(expect->value, S("100-continue")))) {
		x->keep = false; /* does its body come or not? */
		return exchange_error(x, 417, "only 100-continue can be expected", S(""));
	}
	if (h->form == TARGET_ASTERISK)
		return exchange_answer(x, &(struct answer){ .status = 204,
		    .extra = S("Allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS\r\n") });
	return gate_route(x, h);
}

/* ==== admin front ============================================================
 * Owns    the one exchange that waits for the master's word.
 * Offers  admin_enter, admin_told.
 * Calls   admin, auth, exchange. */

static struct exchange *asking;
static struct conn *asking_conn;
static int ctl_fd = -1; /* the master */

static enum step
admin_error(struct exchange *x, int status, const char *text)
{
	return exchange_answer(x, &(struct answer){ .status = status,
	    .content_type = S("text/plain; charset=utf-8"), .body = slice_of(text) });
}

static enum step
admin_ask(struct exchange *x, const char *verb)
{
	char b[64];
	int n = snprintf(b, sizeof b, "%c%s", CTL_VERB, verb);

	if (asking)
		return admin_error(x, 503, "another command is under way\n");
	if (send(ctl_fd, b, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return admin_error(x, 503, "the master does not listen\n");
	asking = x;
	asking_conn = x->c;
	x->state = X_ASK;
	return STEP_AGAIN;
}

static enum step
admin_enter(struct exchange *x)
{
	struct head *h = exchange_request(x);
	const struct field *token = head_field(h, F_X_ADMIN_TOKEN);
	struct slice bearer = auth_credentials(h, "Bearer");
	struct admin_request rq = {
		.method = h->method, .path = h->path, .query = h->query,
		.is_unix = x->c->listener->addr.kind != ADDR_INET,
		.token = token ? token->value : bearer,
	};
	struct admin_reply reply = { 0 };

	x->admin = true;
	x->wants_close = !client_keeps(x, h);
	x->keep = !x->wants_close && !draining;
	if (body_of_request(&x->up.body, h) < 0)
		return exchange_error(x, 400, "bad framing", S(""));
	admin_answer(&rq, conf, &reply);
	if (reply.verb)
		return admin_ask(x, reply.verb);
	return exchange_answer(x, &(struct answer){ .status = reply.status,
	    .content_type = slice_of(reply.content_type),
	    .body = { reply.body, reply.n }, .owned = reply.body });
}

/* The master's answer to the verb: "ok", or what is wrong. Returns who asked,
 * NULL when it has left. */
static struct conn *
admin_told(struct slice word)
{
	struct exchange *x = asking;
	bool good = slice_eq(word, S("ok"));
	char *copy;

	asking = NULL;
	if (!x)
		return NULL;
	copy = xcalloc(1, word.n + 1);
	memcpy(copy, word.p, word.n);
	copy[word.n] = '\n';
	if (exchange_answer(x, &(struct answer){ .status = good ? 200 : 409,
	    .content_type = S("text/plain; charset=utf-8"),
	    .body = { copy, word.n + 1 }, .owned = copy }) != STEP_DONE)
		exchange_run(x);
	return asking_conn;
}

/* ==== http front =============================================================
 * Owns    client connections and the listeners' watches.
 * Offers  front_open, front_drain, front_told, n_conns.
 * Calls   gate, admin front, exchange, access, loop. The doors: what poll and
 *         the timers say arrives here first. */

static struct conn *conns, *conns_free, *conns_open;
static uint32_t n_conns, n_conns_made, max_conns;
static struct listener *listeners;
static int n_listeners;
static bool accepting;
static struct timer accept_again;

static void
accept_watch(bool on)
{
	accepting = on;
	for (int i = 0; i < n_listeners; i++)
		if (on)
			loop_watch(&listeners[i].w, POLLIN);
		else
			loop_unwatch(&listeners[i].w);
}

static void
accept_due(struct timer *t)
{
	(void)t;
	if (!draining && n_conns < max_conns)
		accept_watch(true);
}

static void
conn_close(struct conn *c)
{
	if (c == asking_conn)
		asking = NULL; /* its exchange went before it */
	side_close(&c->s);
	c->state = CONN_FREE;
	if (c->prev)
		c->prev->next = c->next;
	else
		conns_open = c->next;
	if (c->next)
		c->next->prev = c->prev;
	c->next = conns_free;
	conns_free = c;
	n_conns--;
	COUNT(me->connections, -1u);
	if (!accepting && !draining && !accept_again.list)
		accept_watch(true);
}

/* Between requests: watched by poll, later parked, then closed. */
static void
conn_rest(struct conn *c)
{
	uint32_t keep = c->served ? conf->server.keepalive_ms : conf->server.header_ms;

	if (c->state == CONN_HEAD)
		return;
	loop_watch(&c->s.ch.w, POLLIN);
	timer_set(&c->s.timer, draining ? MIN(keep, (uint32_t)DRAIN_IDLE_MS)
	                                : MIN(keep, (uint32_t)PARK_AFTER_MS));
}

/* Answered while the client may still be sending: the answer would be lost if
 * the connection was reset now. RFC 9112 9.6. */
static void
conn_linger(struct conn *c)
{
	buf_free(&c->s.in);
	if (shutdown(c->s.ch.w.fd, SHUT_WR) < 0) {
		conn_close(c);
		return;
	}
	c->drained = 0;
	loop_watch(&c->s.ch.w, POLLIN);
	timer_set(&c->s.timer, LINGER_MS);
}

static void
conn_linger_read(struct conn *c)
{
	ssize_t got = side_fill(&c->s);

	c->drained += c->s.in.n;
	buf_free(&c->s.in);
	if (got < 0 || c->drained > LINGER_BYTES)
		conn_close(c);
}

/* What came is no request: said so, then the connection ends. */
static void
conn_refuse(struct conn *c, int status, const char *cause)
{
	struct exchange *x;

	buf_free(&c->s.in);
	x = exchange_new(c, 0);
	x->up.body.kind = BODY_CLOSE; /* unknown: the rest is not looked at */
	x->minor = 1;
	if (exchange_error(x, status, cause, S("")) != STEP_DONE)
		exchange_run(x);
}

/* Part of a head: more must come, in time. */
static void
conn_more(struct conn *c)
{
	struct slice in = buf_slice(&c->s.in);
	int n = head_scan(in, &c->scanned);

	if (n < 0)
		conn_refuse(c, 400, "the request head is malformed");
	else if (in.n > conf->server.max_header_bytes)
		conn_refuse(c, memchr(in.p, '\n', in.n) ? 431 : 414, "the request head is too long");
	else if (c->state != CONN_HEAD) {
		c->state = CONN_HEAD;
		loop_watch(&c->s.ch.w, POLLIN);
		timer_set(&c->s.timer, conf->server.header_ms);
	}
}

/* Takes a PROXY header off the front. False: not whole yet, or refused. */
static bool
conn_proxy(struct conn *c)
{
	struct ip src = { { 0 } }, dst;
	uint16_t sport = 0, dport;
	int n = proxy_parse(buf_slice(&c->s.in), &src, &sport, &dst, &dport);

	if (n < 0) {
		log_info("a client sent no PROXY header: closed");
		conn_close(c);
		return false;
	}
	if (n == 0)
		return false;
	if (!ip_is_none(&src)) {
		c->peer = src;
		c->peer_port = sport;
	}
	buf_eat(&c->s.in, (size_t)n);
	c->state = CONN_IDLE;
	return true;
}

/* Starts the next request, if its head is whole. False: not yet. */
static bool
conn_request(struct conn *c)
{
	struct slice in = buf_slice(&c->s.in);
	struct exchange *x;
	int n;

	if (c->state == CONN_PROXY)
		return conn_proxy(c);
	if (c->scanned > 0 && (n = head_scan(in, &c->scanned)) == 0) {
		conn_more(c);
		return c->s.x != NULL;
	}
	req_of = NULL;
	n = request_parse(&req, in);
	if (n == 0) {
		conn_more(c);
		return false;
	}
	c->scanned = 0;
	if (n < 0) {
		conn_refuse(c, -n, "the request head is malformed");
		return false;
	}
	if ((uint32_t)n > conf->server.max_header_bytes) {
		conn_refuse(c, 431, "the request head is too long");
		return false;
	}
	x = exchange_new(c, (size_t)n);
	if ((c->listener->kind == LISTEN_ADMIN ? admin_enter(x) : gate_enter(x)) != STEP_DONE)
		exchange_run(x);
	return true;
}

/* Goes on with c after whatever happened to it. */
static void
conn_go(struct conn *c)
{
	while (c->state != CONN_FREE && !c->s.x) {
		if (c->state == CONN_CLOSE) {
			conn_close(c);
			return;
		}
		if (c->state == CONN_LINGER) {
			conn_linger(c);
			return;
		}
		if (c->s.in.n == 0) {
			conn_rest(c);
			return;
		}
		if (!conn_request(c) && !c->s.x && c->state != CONN_LINGER && c->state != CONN_CLOSE)
			return;
	}
}

static void
conn_ready(struct watch *w, short revents)
{
	struct conn *c = (struct conn *)w;

	if (c->s.x) {
		exchange_client_event(c->s.x, revents);
	} else if (c->state == CONN_LINGER) {
		conn_linger_read(c);
		side_settle();
		return;
	} else if (side_fill(&c->s) < 0)
		conn_close(c);
	conn_go(c);
	side_settle();
}

static void
conn_due(struct timer *t)
{
	struct conn *c = (struct conn *)((char *)t - offsetof(struct conn, s.timer));
	uint32_t keep = c->served ? conf->server.keepalive_ms : conf->server.header_ms;

	if (c->s.x)
		exchange_client_due(c->s.x);
	else if (c->state == CONN_HEAD)
		conn_refuse(c, 408, "the request head did not come in time");
	else if (c->state == CONN_IDLE && !c->s.ch.w.parked && !draining && keep > PARK_AFTER_MS) {
		loop_park(&c->s.ch.w);
		timer_set(&c->s.timer, keep - PARK_AFTER_MS);
		return;
	} else
		conn_close(c);
	conn_go(c);
	side_settle();
}

static void
upconn_ready(struct watch *w, short revents)
{
	struct upconn *u = (struct upconn *)w;
	struct conn *c = u->s.x->c;

	exchange_upstream_event(u->s.x, revents);
	conn_go(c);
	side_settle();
}

static void
upconn_due(struct timer *t)
{
	struct upconn *u = (struct upconn *)((char *)t - offsetof(struct upconn, s.timer));
	struct conn *c = u->s.x->c;

	exchange_upstream_due(u->s.x);
	conn_go(c);
	side_settle();
}

static void
conn_open(struct listener *l, int fd, const union sock *peer)
{
	struct conn *c = conns_free;

	if (c)
		conns_free = c->next;
	else
		c = &conns[n_conns_made++];
	*c = (struct conn){ .listener = l, .next = conns_open };
	if (conns_open)
		conns_open->prev = c;
	conns_open = c;
	chan_open(&c->s.ch, fd, conn_ready);
	c->s.timer.fire = conn_due;
	if (peer->sa.sa_family != AF_UNIX)
		c->peer = ip_of_sock(peer, &c->peer_port);
	c->state = conf->server.proxy_protocol && l->kind == LISTEN_HTTP ? CONN_PROXY : CONN_IDLE;
	n_conns++;
	COUNT(me->connections, 1);
	COUNT(me->accepted, 1);
	conn_ready(&c->s.ch.w, POLLIN); /* the request is often here already */
}

/* Out of descriptors or memory: no new clients for a moment. */
static void
accept_pause(void)
{
	static int64_t said_ms = -MINUTE_S * SECOND_MS;

	COUNT(me->refused, 1);
	if (now_ms - said_ms >= MINUTE_S * SECOND_MS) {
		log_errno("accept; clients wait, raise the limit of open files");
		said_ms = now_ms;
	}
	accept_watch(false);
	timer_set(&accept_again, ACCEPT_RETRY_MS);
}

static void
listener_ready(struct watch *w, short revents)
{
	struct listener *l = (struct listener *)w;
	union sock peer;
	socklen_t n;
	int fd;

	(void)revents;
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		if (n_conns == max_conns) {
			accept_watch(false);
			return;
		}
		n = sizeof peer;
		peer.sa.sa_family = AF_UNIX;
		fd = accept4(l->fd, &peer.sa, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			conn_open(l, fd, &peer);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			accept_pause();
		if (errno != EINTR && errno != ECONNABORTED && errno != EPROTO)
			return;
	}
}

static void
front_open(struct listener *ls, int n, uint32_t clients)
{
	listeners = ls;
	n_listeners = n;
	max_conns = clients;
	conns = map_zeroed(clients * sizeof *conns);
	upstream_door = upconn_ready;
	upstream_due = upconn_due;
	accept_again.fire = accept_due;
	for (int i = 0; i < n; i++)
		ls[i].w = (struct watch){ .fd = ls[i].fd, .slot = -1, .ready = listener_ready };
	accept_watch(true);
}

/* No new clients; idle ones get a last chance to be closed in peace. */
static void
front_drain(void)
{
	draining = true;
	timer_clear(&accept_again);
	accept_watch(false);
	for (int i = 0; i < n_listeners; i++)
		close(listeners[i].fd);
	for (struct conn *c = conns_open, *next; c; c = next) {
		next = c->next;
		if (!c->s.x && c->state == CONN_IDLE)
			conn_rest(c);
	}
}

static void
front_told(struct slice word)
{
	struct conn *c = admin_told(word);

	if (c)
		conn_go(c);
}

