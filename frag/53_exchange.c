/* ==== flow ===================================================================
 * Owns    nothing: a flow is its exchange's.
 * Offers  flow_take, flow_relay, flow_tunnel.
 * Calls   http, buf, chan. One direction of an exchange: a body is read from
 *         one side, unframed, framed as the other needs it, and sent. What
 *         the taker does not take stops the reading: nothing piles up. */

enum { TAIL_PIECES = 3, FLOW_PIECES = 2 + TAIL_PIECES };

enum relay {
	RELAY_WAIT,     /* for either side */
	RELAY_DONE,     /* the body is with the taker's chan */
	RELAY_SHORT,    /* the giver left before the end */
	RELAY_BAD,      /* what comes is no body */
	RELAY_REFUSED   /* the taker left */
};

/* Decodes chunks in place; brings memory when there are trailers. -1: bad. */
static ssize_t
flow_decode(struct flow *f, char *p, size_t n, size_t *content)
{
	struct text t = { NULL, 0, 0, false };
	size_t more = 0;
	ssize_t used, rest;

	if (f->trailers)
		t = (struct text){ f->trailers->data, f->trailers_n, f->trailers->cap, false };
	used = chunk_decode(&f->body, p, n, content, &t);
	f->trailers_n = (uint32_t)t.n;
	if (used < 0 || !f->body.need_trailers || f->trailers)
		return used;
	f->trailers = block_take(BLOCK_SMALL);
	f->body.need_trailers = false;
	rest = flow_decode(f, p + used, n - (size_t)used, &more);
	return rest < 0 ? -1 : used + rest;
}

/* Puts the chunk's size line before and CRLF behind *n bytes at p: there is
 * headroom, and what stood behind is used up or tailroom. */
static char *
flow_frame(char *p, size_t *n)
{
	char size[HEADROOM];
	struct text t = { size, 0, sizeof size, false };

	text_hex(&t, *n, 1);
	text_add(&t, S("\r\n"));
	memcpy(p + *n, "\r\n", 2);
	memcpy(p - t.n, size, t.n);
	*n += t.n + 2;
	return p - t.n;
}

static int
flow_tail(const struct flow *f, struct iovec *v)
{
	int n = 0;

	v[n++] = (struct iovec){ "0\r\n", 3 };
	if (f->trailers_n > 0)
		v[n++] = (struct iovec){ f->trailers->data, f->trailers_n };
	v[n++] = (struct iovec){ "\r\n", 2 };
	return n;
}

/* Makes of what was read the pieces to send; *eaten bytes of in are used up
 * then. Returns how many pieces, -1 when the body is malformed. */
static int
flow_take(struct flow *f, const struct side *from, struct iovec *v, size_t *eaten)
{
	size_t n = MIN(from->in.n, (uint32_t)RELAY_BYTES), content = 0;
	char *p = n > 0 ? buf_p(&from->in) : NULL;
	ssize_t used = 0;
	int k = 0;

	if (n > 0 && !f->body.done && f->body.kind == BODY_CHUNKED) {
		if ((used = flow_decode(f, p, n, &content)) < 0)
			return -1;
	} else if (n > 0 && !f->body.done)
		used = (ssize_t)(content = body_take(&f->body, n));
	*eaten = (size_t)used;
	if (content > 0 && f->chunk_out)
		p = flow_frame(p, &content);
	if (content > 0)
		v[k++] = (struct iovec){ p, content };
	if (f->body.kind == BODY_CLOSE && from->ch.eof && !from->ch.broken &&
	    *eaten == from->in.n)
		f->body.done = true;
	if (f->body.done && f->chunk_out)
		k += flow_tail(f, v + k);
	return k;
}

/* Moves what there is, after head if that is given; reads once, and only when
 * *ready. */
static enum relay
flow_relay(struct flow *f, struct side *from, struct chan *to, const struct text *head,
    bool *ready)
{
	struct iovec v[1 + FLOW_PIECES];
	size_t eaten;
	int n, k;

	while (to->out.n == 0) {
		n = 0;
		if (from->in.n == 0 && !f->body.done && *ready) {
			*ready = false;
			side_fill(from);
		}
		if (head)
			v[n++] = (struct iovec){ head->p, head->n };
		head = NULL;
		if ((k = flow_take(f, from, v + n, &eaten)) < 0)
			return RELAY_BAD;
		n += k;
		if (n > 0 && chan_send(to, v, n, eaten == from->in.n && k == 1 ? &from->in : NULL) < 0)
			return RELAY_REFUSED;
		if (from->in.b)
			buf_eat(&from->in, eaten);
		if (f->body.done)
			return RELAY_DONE;
		if (from->in.n == 0)
			return from->ch.eof ? RELAY_SHORT : RELAY_WAIT;
	}
	return RELAY_WAIT;
}

/* Raw bytes; at the giver's end the taker is told so, once all is sent. */
static enum relay
flow_tunnel(struct flow *f, struct side *from, struct chan *to, bool *ready)
{
	enum relay r = flow_relay(f, from, to, NULL, ready);

	if (r == RELAY_WAIT || r == RELAY_REFUSED)
		return r;
	f->body.done = true;
	if (to->out.n > 0)
		return RELAY_WAIT;
	shutdown(to->w.fd, SHUT_WR); /* fails only when it is gone already */
	return RELAY_DONE;
}

/* ==== spool ==================================================================
 * Owns    request bodies that are kept until they are whole.
 * Offers  spool_new, spool_add, spool_rewind, spool_fill, spool_free.
 * Calls   base, log, buf, chan. Memory first, then an unlinked file. */

#define SPOOL_START 4096 /* first memory of a body; doubled as it grows */

static struct spool *
spool_new(void)
{
	struct spool *sp = xcalloc(1, sizeof *sp);

	sp->fd = -1;
	sp->s.ch.w = (struct watch){ .fd = -1, .slot = -1 };
	return sp;
}

static void
spool_free(struct spool *sp)
{
	if (!sp)
		return;
	if (scratch_side == &sp->s)
		scratch_side = NULL;
	buf_free(&sp->s.in);
	if (sp->fd >= 0)
		close(sp->fd);
	free(sp->mem);
	free(sp);
}

static int
spool_file(void)
{
	char name[] = SPOOL_DIR "/warp-XXXXXX";
	int fd = open(SPOOL_DIR, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0)
		return fd;
	if ((fd = mkostemp(name, O_CLOEXEC)) >= 0)
		unlink(name);
	return fd;
}

/* Room for n more bytes in memory, as far as max allows. */
static size_t
spool_grow(struct spool *sp, size_t n, size_t max)
{
	size_t cap = sp->mem_cap ? sp->mem_cap : SPOOL_START;
	char *mem;

	while (cap < sp->mem_n + n && cap < max)
		cap *= 2;
	cap = MIN(cap, max);
	if (cap > sp->mem_cap && (mem = realloc(sp->mem, cap))) {
		sp->mem = mem;
		sp->mem_cap = cap;
	}
	return MIN(n, sp->mem_cap - sp->mem_n);
}

/* -1: the disk is full or will not take it; logged. */
static int
spool_add(struct spool *sp, const char *p, size_t n, size_t max)
{
	size_t fits = sp->fd < 0 ? spool_grow(sp, n, max) : 0;
	ssize_t put;

	if (fits > 0)
		memcpy(sp->mem + sp->mem_n, p, fits);
	sp->mem_n += fits;
	sp->size += n;
	p += fits;
	n -= fits;
	if (n > 0 && sp->fd < 0 && (sp->fd = spool_file()) < 0)
		return log_errno("no file for a request body in " SPOOL_DIR);
	while (n > 0) {
		if ((put = write(sp->fd, p, n)) < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return log_errno("request body to a file in " SPOOL_DIR);
		p += put;
		n -= (size_t)put;
	}
	return 0;
}

static void
spool_rewind(struct spool *sp)
{
	sp->sent = 0;
	sp->s.ch.eof = false;
	if (scratch_side == &sp->s)
		scratch_side = NULL;
	buf_free(&sp->s.in);
}

/* The next piece into s.in, as side_fill does from a socket. */
static void
spool_fill(struct spool *sp)
{
	size_t max = RELAY_BYTES;
	ssize_t got;
	char *to;

	if (sp->s.in.n > 0 || !side_room(&sp->s))
		return;
	to = buf_p(&sp->s.in);
	if (sp->sent < sp->mem_n) {
		got = (ssize_t)MIN(max, sp->mem_n - (size_t)sp->sent);
		memcpy(to, sp->mem + sp->sent, (size_t)got);
	} else
		do
			got = sp->fd < 0 ? 0 : pread(sp->fd, to, max, (off_t)(sp->sent - sp->mem_n));
		while (got < 0 && errno == EINTR);
	if (got > 0) {
		sp->s.in.n = (uint32_t)got;
		sp->sent += (uint64_t)got;
		return;
	}
	buf_free(&sp->s.in);
	sp->s.ch.eof = true;
}

/* ==== exchange ===============================================================
 * Owns    a request and its answer, from a whole head to the last byte.
 * Offers  exchange_new, exchange_begin, exchange_answer, exchange_run,
 *         exchange_abort, and the doors' parts for events and deadlines.
 * Calls   everything below. Each step looks at one state; exchange_run takes
 *         steps until one has to wait, then says what for. */

enum step { STEP_WAIT, STEP_AGAIN, STEP_DONE };

enum lost {
	LOST_CONNECT, /* refused, no route, no such socket */
	LOST_CONNECT_TIMEOUT,
	LOST_WRITE_TIMEOUT,
	LOST_READ_TIMEOUT,
	LOST_CLOSED,  /* before the answer's head was whole */
	LOST_BAD,     /* its answer is none */
	LOSTS
};
static const struct {
	int status;
	bool again; /* another try may help */
} losts[LOSTS] = {
	[LOST_CONNECT]         = { 502, true },
	[LOST_CONNECT_TIMEOUT] = { 504, true },
	[LOST_WRITE_TIMEOUT]   = { 504, false },
	[LOST_READ_TIMEOUT]    = { 504, false },
	[LOST_CLOSED]          = { 502, true },
	[LOST_BAD]             = { 502, false },
};

#define STATUS_ABORTED 499 /* in the log: the client left first */
#define WARNS_PER_S    5   /* lines about failing upstreams */

static void (*upstream_door)(struct watch *, short); /* the front's */
static void (*upstream_due)(struct timer *);
static const struct exchange *req_of; /* whose head req is */
static uint64_t random_state[2];

/* xorshift128+: ids must differ, not be secret. */
static uint64_t
random_next(void)
{
	uint64_t a = random_state[0], b = random_state[1];

	random_state[0] = b;
	a ^= a << 23;
	random_state[1] = a ^ b ^ (a >> 17) ^ (b >> 26);
	return random_state[1] + b;
}

/* Its head, parsed; again when another came between. */
static struct head *
exchange_request(const struct exchange *x)
{
	if (req_of != x)
		request_parse(&req, x->head_bytes);
	req_of = x;
	return &req;
}

/* The head's slices follow its n bytes from one place to another. */
static void
head_move(struct head *h, const char *from, size_t n, const char *to)
{
	struct slice *s[] = { &h->method_text, &h->target, &h->path, &h->query, &h->host };

	for (size_t i = 0; i < LEN(s); i++)
		if (s[i]->p >= from && s[i]->p <= from + n)
			s[i]->p = to + (s[i]->p - from);
	for (int i = 0; i < h->n; i++) {
		struct field *f = &h->f[i];
		f->name.p = to + (f->name.p - from);
		f->value.p = to + (f->value.p - from);
		f->start = to + (f->start - from);
		f->end = to + (f->end - from);
	}
}

/* Takes over the n bytes of head (req) at the front of c's input; 0: what
 * came was no head. */
static struct exchange *
exchange_new(struct conn *c, size_t n)
{
	struct block *b = block_take(BLOCK_SMALL);
	struct exchange *x = (void *)b->data;
	char *to = b->data + sizeof *x;

	*x = (struct exchange){ .c = c, .block = b, .start_us = now_us };
	if (n > b->cap - sizeof *x) {
		x->head_block = block_take(BLOCK_LARGE);
		to = x->head_block->data;
	}
	if (n > 0) {
		memcpy(to, buf_p(&c->s.in), n);
		head_move(&req, buf_p(&c->s.in), n, to);
		buf_eat(&c->s.in, n);
		x->method = req.method;
		x->method_text = req.method_text;
		x->target = req.target;
		x->host = req.host;
		x->minor = (uint8_t)req.minor;
		req_of = x;
	}
	x->head_bytes = (struct slice){ to, n };
	x->client = c->peer;
	c->s.x = x;
	c->state = CONN_BUSY;
	timer_clear(&c->s.timer);
	return x;
}

static void
exchange_free(struct exchange *x)
{
	if (req_of == x)
		req_of = NULL;
	spool_free(x->spool);
	block_give(x->up.trailers);
	block_give(x->down.trailers);
	block_give(x->head_block);
	free(x->memory_owned);
	block_give(x->block);
}

/* Lets go of the upstream connection: kept for others, or closed. */
static void
upstream_leave(struct exchange *x, bool keep)
{
	struct upconn *u = x->u;

	if (!u)
		return;
	x->u = NULL;
	x->inst->board->in_flight--;
	timer_clear(&u->s.timer);
	if (keep)
		pool_give(u);
	else
		upconn_close(u);
}

static void
exchange_count(const struct exchange *x)
{
	static const unsigned limits[] = LATENCY_MS;
	uint64_t us = (uint64_t)(now_us - x->start_us);
	size_t i = 0, class = (size_t)x->status / 100;

	while (i + 1 < LEN(limits) && us > limits[i] * UINT64_C(1000))
		i++;
	COUNT(me->requests, 1);
	COUNT(me->codes[x->status == STATUS_ABORTED || class > 5 ? 0 : class], 1);
	COUNT(me->latency[i], 1);
	COUNT(me->latency_us, us);
	COUNT(me->bytes_in, x->up.body.total);
	COUNT(me->bytes_out, x->bytes_out);
}

/* The last word: counted, logged, freed. The client's connection is idle
 * again, or to be closed. */
static enum step
exchange_over(struct exchange *x)
{
	struct conn *c = x->c;
	bool whole = x->up.state != FLOW_ON && x->up.state != FLOW_CUT;

	if (x->source == SOURCE_UPSTREAM)
		x->bytes_out = x->down.body.total;
	upstream_leave(x, false);
	if (!x->admin) {
		exchange_count(x);
		if (access_on)
			access_line(x, x->head_bytes.n ? exchange_request(x) : NULL);
	}
	c->served++;
	c->s.x = NULL;
	if (c->s.ch.broken || (x->wants_close && whole && c->s.in.n == 0))
		c->state = CONN_CLOSE;
	else
		c->state = x->keep && whole ? CONN_IDLE : CONN_LINGER;
	timer_clear(&c->s.timer);
	exchange_free(x);
	return STEP_DONE;
}

/* Ends here and now: the client left, or must see that the answer is cut. An
 * answer whose end is the connection's end is cut by a reset. */
static enum step
exchange_abort(struct exchange *x)
{
	struct linger reset = { 1, 0 };
	struct conn *c = x->c;

	if (x->status == 0)
		x->status = STATUS_ABORTED;
	if (x->source == SOURCE_UPSTREAM && x->down.body.kind == BODY_CLOSE && !x->down.chunk_out)
		setsockopt(c->s.ch.w.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	x->keep = false;
	c->s.ch.broken = true;
	return exchange_over(x);
}

/* ---- made-up answers ---- */

/* A body that is here already does not cost the connection. */
static void
request_settle(struct exchange *x)
{
	struct iovec v[FLOW_PIECES];
	struct side *s = &x->c->s;
	size_t eaten;

	x->up.chunk_out = false;
	while (!x->up.body.done && s->in.n > 0) {
		if (flow_take(&x->up, s, v, &eaten) < 0 || eaten == 0)
			break;
		buf_eat(&s->in, eaten);
	}
	if (!x->up.body.done)
		x->keep = false;
	x->up.state = x->up.body.done ? FLOW_DONE : FLOW_CUT;
}

static int
memory_send(struct exchange *x, const struct text *head)
{
	size_t n = MIN(x->memory.n, (size_t)RELAY_BYTES);
	struct iovec v[2];
	int k = 0;

	if (head)
		v[k++] = (struct iovec){ head->p, head->n };
	if (n > 0)
		v[k++] = (struct iovec){ (char *)(uintptr_t)x->memory.p, n };
	x->memory = slice_from(x->memory, n);
	x->bytes_out += n;
	return chan_send(&x->c->s.ch, v, k, NULL);
}

/* Answers with a; what an upstream was doing for x is dropped. */
static enum step
exchange_answer(struct exchange *x, const struct answer *a)
{
	upstream_leave(x, false);
	request_settle(x);
	x->source = SOURCE_MEMORY;
	x->status = a->status;
	x->state = X_ANSWER;
	x->memory_owned = a->owned;
	x->memory = a->body;
	if (x->method == M_HEAD || a->status == 204 || a->status == 304)
		x->memory = S("");
	head_out.n = 0;
	head_out.full = false;
	if (draining)
		x->keep = false;
	if (x->c->s.ch.out.n > 0 || !answer_write(&head_out, x, a) ||
	    memory_send(x, &head_out) < 0)
		return exchange_abort(x);
	return STEP_AGAIN;
}

static enum step
exchange_error(struct exchange *x, int status, const char *cause, struct slice extra)
{
	struct head *h = x->head_bytes.n ? exchange_request(x) : NULL;
	struct answer a = answer_error(h, status, cause);

	a.extra = extra;
	return exchange_answer(x, &a);
}

/* ---- an upstream that fails ---- */

__attribute__((format(printf, 1, 2))) static void
warn_calmly(const char *fmt, ...)
{
	static time_t second;
	static unsigned said, unsaid;
	char line[LOG_LINE / 2];
	va_list ap;

	if (second != now_s) {
		if (unsaid > 0)
			log_warn("%u more lines about upstreams not shown", unsaid);
		said = unsaid = 0;
		second = now_s;
	}
	if (said++ >= WARNS_PER_S) {
		unsaid++;
		return;
	}
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	log_warn("%s", line);
}

static bool
is_idempotent(enum method m)
{
	return m == M_GET || m == M_HEAD || m == M_OPTIONS || m == M_TRACE || m == M_PUT ||
	    m == M_DELETE;
}

/* Its body can be sent (again): none, kept, or not begun. */
static bool
body_is_here(const struct exchange *x)
{
	return x->spool || x->up.state == FLOW_OFF ||
	    (x->up.body.total == 0 && x->up.body.chunk == CHUNK_SIZE);
}

static enum step
exchange_failed(struct exchange *x, int status)
{
	return exchange_error(x, status, x->cause,
	    status == 503 ? S("Retry-After: 1\r\n") : S(""));
}

/* The instance did not do it: another try where the retry rule allows one,
 * else the error; in the middle of an answer, its end. */
static enum step
exchange_lost(struct exchange *x, enum lost why, const char *cause)
{
	struct instance *in = x->inst;
	bool stale = why == LOST_CLOSED && x->u->served > 0 && x->u->s.in.n == 0;
	bool next_addr = why <= LOST_CONNECT_TIMEOUT && x->addr_i + 1u < in->board->addrs.n;
	bool again = losts[why].again && !x->interim && body_is_here(x) &&
	    (!x->sent_any || is_idempotent(x->method));

	if (x->state >= X_ANSWER) {
		warn_calmly("upstream %s: %s %s in the middle of an answer to %.*s",
		    in->up->name, in->addr.text, cause, (int)MIN(x->target.n, 256), x->target.p);
		return exchange_abort(x);
	}
	snprintf(x->cause, sizeof x->cause, "%s %s: %s", in->up->name, in->addr.text, cause);
	upstream_leave(x, false);
	x->same = again && (stale || next_addr);
	if (x->same) {
		x->addr_i = next_addr ? (uint8_t)(x->addr_i + 1) : x->addr_i;
		x->state = X_PICK;
		return STEP_AGAIN;
	}
	instance_failed(in);
	in->board->codes[0]++;
	warn_calmly("upstream %s: %s %s", in->up->name, in->addr.text, cause);
	x->addr_i = 0;
	x->tried |= UINT64_C(1) << ((size_t)(in - in->up->instances) % TRIED_BITS);
	if (again && x->tries <= in->up->retries &&
	    in->up->n_instances > 1) {
		COUNT(me->retries, 1);
		x->state = X_PICK;
		return STEP_AGAIN;
	}
	return exchange_failed(x, losts[why].status);
}

/* ---- steps toward the upstream ---- */

/* Hands u its exchange and the doors. */
static void
upstream_attach(struct exchange *x, struct upconn *u)
{
	x->u = u;
	u->s.x = x;
	u->s.hup = false;
	u->s.ch.w.ready = upstream_door;
	u->s.timer.fire = upstream_due;
	timer_clear(&u->s.timer);
	x->inst->board->in_flight++;
	x->sent_any = false;
	x->connect_by_ms = now_ms +
	    (x->route->connect_ms ? x->route->connect_ms : x->inst->up->connect_ms);
}

static enum step
step_pick(struct exchange *x)
{
	struct upstream *up = x->route->upstream;
	struct instance *in = x->same ? x->inst : up->balance->pick(up, x->tried);
	struct upconn *u;

	if (!in) {
		if (!x->cause[0])
			snprintf(x->cause, sizeof x->cause, "upstream %s: no instance can be asked",
			    up->name);
		return exchange_failed(x, x->tries > 0 ? 502 : 503);
	}
	x->inst = in;
	x->tries += !x->same;
	u = x->same || up->keepalive == 0 || up->proxy_out ? NULL : pool_take(in);
	x->same = false;
	if (!u && !(u = upconn_connect(in, x->addr_i))) {
		if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
			return exchange_lost(x, LOST_CONNECT, strerror(errno));
		snprintf(x->cause, sizeof x->cause, "no descriptor left: %s", strerror(errno));
		warn_calmly("%s; raise the limit of open files", x->cause);
		return exchange_failed(x, 503);
	}
	upstream_attach(x, u);
	x->state = u->state == UP_BUSY ? X_SEND : X_CONNECT;
	return u->state == UP_BUSY ? STEP_AGAIN : STEP_WAIT;
}

/* Poll has said something about the connection on its way. */
static enum step
step_connect(struct exchange *x)
{
	socklen_t n = sizeof errno;
	int err = 0;

	if (!x->u_moved)
		return STEP_WAIT;
	if (getsockopt(x->u->s.ch.w.fd, SOL_SOCKET, SO_ERROR, &err, &n) < 0)
		err = errno;
	if (err)
		return exchange_lost(x, LOST_CONNECT, strerror(err));
	x->u->state = UP_BUSY;
	x->u->s.hup = false;
	x->state = X_SEND;
	return STEP_AGAIN;
}

static uint64_t
body_limit(const struct exchange *x)
{
	return x->route && x->route->has_max_body ? x->route->max_body_bytes
	                                          : conf->server.max_body_bytes;
}

static bool
body_is_too_big(const struct exchange *x, uint64_t n)
{
	uint64_t limit = body_limit(x);

	return limit > 0 && n > limit;
}

/* The request body goes on; head first, if given. */
static enum step
exchange_up(struct exchange *x, const struct text *head)
{
	struct side *from = x->spool ? &x->spool->s : &x->c->s;
	bool ready = x->c_ready;
	enum relay r;

	if (!head && x->up.state != FLOW_ON)
		return STEP_WAIT;
	if (x->spool && !x->up.body.done) {
		spool_fill(x->spool);
		ready = false;
	}
	r = flow_relay(&x->up, from, &x->u->s.ch, head, &ready);
	if (!x->spool)
		x->c_ready = ready;
	if (r != RELAY_REFUSED)
		x->sent_any = true;
	if (body_is_too_big(x, x->up.body.total) && x->state < X_ANSWER)
		return exchange_error(x, 413, "the request body is too big", S(""));
	switch (r) {
	case RELAY_DONE:
		x->up.state = x->up.state == FLOW_ON ? FLOW_DONE : x->up.state;
		return STEP_WAIT;
	case RELAY_REFUSED: /* it may have answered before it left */
		x->up.state = FLOW_CUT;
		x->u->s.ch.broken = false;
		x->u_ready = true;
		buf_free(&x->u->s.ch.out);
		return STEP_WAIT;
	case RELAY_SHORT:
		return exchange_abort(x);
	case RELAY_BAD:
		if (x->state >= X_ANSWER)
			return exchange_abort(x);
		return exchange_error(x, 400, "the request body is malformed", S(""));
	default:
		return STEP_WAIT;
	}
}

static void
proxy_line(struct exchange *x)
{
	struct ip to = { { 0 } };
	uint16_t port = 0;
	union sock here = { 0 };
	socklen_t n = sizeof here;

	if (x->inst->up->proxy_out == PROXY_OUT_NONE)
		return;
	if (getsockname(x->c->s.ch.w.fd, &here.sa, &n) == 0)
		to = ip_of_sock(&here, &port);
	proxy_write(&head_out, x->inst->up->proxy_out == PROXY_OUT_V1 ? 1 : 2, &x->client,
	    x->c->peer_port, &to, port);
}

static enum step
step_send(struct exchange *x)
{
	struct head *h;
	enum step s;

	req_of = NULL; /* a try before this one may have marked lines */
	h = exchange_request(x);
	head_out.n = 0;
	head_out.full = false;
	proxy_line(x);
	if (!request_write(&head_out, x, h))
		return exchange_error(x, head_out.full ? 431 : 400,
		    "the request does not fit after rewriting", S(""));
	if (x->spool) {
		spool_rewind(x->spool);
		x->up.body = (struct body){ .kind = BODY_LENGTH, .left = x->spool->size,
			.done = x->spool->size == 0 };
		x->up.state = FLOW_ON;
	}
	x->up_start_us = now_us;
	x->state = X_WAIT;
	s = exchange_up(x, &head_out);
	return s == STEP_WAIT && x->up.state == FLOW_CUT ? STEP_AGAIN : s;
}

/* ---- steps toward the client ---- */

/* The upstream has said all: its connection goes back, if both may keep it. */
static void
exchange_release(struct exchange *x)
{
	struct upconn *u = x->u;

	if (!u)
		return;
	x->up_us = (uint32_t)MIN(now_us - x->up_start_us, UINT32_MAX);
	upstream_leave(x, x->reusable && x->up.state != FLOW_ON && x->up.state != FLOW_CUT &&
	    u->s.in.n == 0 && u->s.ch.out.n == 0 && !u->s.ch.eof && !u->s.hup);
}

static enum step
exchange_memory_down(struct exchange *x)
{
	if (x->c->s.ch.out.n == 0 && x->memory.n > 0 && memory_send(x, NULL) < 0)
		return exchange_abort(x);
	return x->c->s.ch.out.n == 0 && x->memory.n == 0 ? exchange_over(x) : STEP_WAIT;
}

/* The response body goes on; head first, if given. */
static enum step
exchange_down(struct exchange *x, const struct text *head)
{
	struct chan *to = &x->c->s.ch;

	if (head || x->down.state == FLOW_ON)
		switch (flow_relay(&x->down, &x->u->s, to, head, &x->u_ready)) {
		case RELAY_DONE:
			x->down.state = FLOW_DONE;
			exchange_release(x);
			break;
		case RELAY_SHORT:
			return exchange_lost(x, LOST_CLOSED, "closed");
		case RELAY_BAD:
			return exchange_lost(x, LOST_BAD, "sent a malformed body");
		case RELAY_REFUSED:
			return exchange_abort(x);
		default:
			break;
		}
	return x->down.state == FLOW_DONE && to->out.n == 0 ? exchange_over(x) : STEP_WAIT;
}

static enum step
step_answer(struct exchange *x)
{
	enum step s = STEP_WAIT;

	if (x->source == SOURCE_MEMORY)
		return exchange_memory_down(x);
	if (x->u)
		s = exchange_up(x, NULL);
	return s == STEP_WAIT ? exchange_down(x, NULL) : s;
}

/* 1xx: passed on to who can read them, and the wait goes on. */
static enum step
exchange_interim(struct exchange *x, size_t n)
{
	struct iovec v;

	if (++x->interims > INTERIM_MAX)
		return exchange_lost(x, LOST_BAD, "sent 1xx without end");
	head_out.n = 0;
	head_out.full = false;
	if (x->minor > 0 && !x->spool) {
		if (!interim_write(&head_out, &res))
			return exchange_lost(x, LOST_BAD, "sent a 1xx too long");
		v = (struct iovec){ head_out.p, head_out.n };
		x->interim = true;
		if (chan_send(&x->c->s.ch, &v, 1, NULL) < 0)
			return exchange_abort(x);
	}
	buf_eat(&x->u->s.in, n);
	return STEP_AGAIN;
}

static enum step
exchange_tunnel(struct exchange *x)
{
	x->state = X_TUNNEL;
	x->keep = false;
	x->up = (struct flow){ .body = { .kind = BODY_CLOSE }, .state = FLOW_ON };
	x->down = (struct flow){ .body = { .kind = BODY_CLOSE }, .state = FLOW_ON };
	x->c_ready = x->c->s.in.n > 0;
	return STEP_AGAIN;
}

/* Decides how the answer's body goes and what outlives it. */
static int
exchange_frame(struct exchange *x)
{
	struct body *b = &x->down.body;

	if (body_of_response(b, &res, x->method) < 0)
		return -1;
	x->reusable = res.minor > 0 && b->kind != BODY_CLOSE &&
	    !head_has(&res, F_CONNECTION, "close") && x->inst->up->keepalive > 0 &&
	    x->inst->up->proxy_out == PROXY_OUT_NONE;
	x->down.chunk_out = x->minor > 0 && (b->kind == BODY_CHUNKED || b->kind == BODY_CLOSE);
	if (x->minor == 0 && (b->kind == BODY_CHUNKED || b->kind == BODY_CLOSE))
		x->keep = false;
	if (x->up.state == FLOW_ON || x->up.state == FLOW_CUT || draining)
		x->keep = false;
	return 0;
}

/* The final answer's head is here, n bytes of it. */
static enum step
exchange_respond(struct exchange *x, size_t n)
{
	bool tunnel = res.status == 101;

	if (tunnel && !x->upgrade)
		return exchange_lost(x, LOST_BAD, "switched protocols unasked");
	if (tunnel)
		x->keep = true; /* until the tunnel ends */
	else if (exchange_frame(x) < 0)
		return exchange_lost(x, LOST_BAD, "sent a head with bad framing");
	head_out.n = 0;
	head_out.full = false;
	if (!response_write(&head_out, x, &res))
		return exchange_lost(x, LOST_BAD, "sent a head too long");
	buf_eat(&x->u->s.in, n);
	x->source = SOURCE_UPSTREAM;
	x->status = res.status;
	x->state = X_ANSWER;
	instance_worked(x->inst);
	x->inst->board->requests++;
	x->inst->board->codes[res.status / 100]++;
	x->inst->board->latency_us += (unsigned long long)(now_us - x->up_start_us);
	if (tunnel)
		x->down.body.done = true;
	x->down.state = FLOW_ON;
	if (!tunnel)
		return exchange_down(x, &head_out);
	return memory_send(x, &head_out) < 0 ? exchange_abort(x) : exchange_tunnel(x);
}

/* The request is on its way; what the upstream says is a head, or part. */
static enum step
step_wait(struct exchange *x)
{
	struct side *u;
	enum step s;
	int n;

	if ((s = exchange_up(x, NULL)) != STEP_WAIT)
		return s;
	u = &x->u->s;
	if (x->c->s.ch.out.n > 0)
		return STEP_WAIT;
	if (x->u_ready) {
		x->u_ready = false;
		side_fill(u);
	}
	if (u->in.n == 0)
		return u->ch.eof ? exchange_lost(x, LOST_CLOSED, "closed before it answered")
		                 : STEP_WAIT;
	n = response_parse(&res, buf_slice(&u->in));
	if (n < 0)
		return exchange_lost(x, LOST_BAD, "sent a malformed head");
	if (n == 0 && u->ch.eof)
		return exchange_lost(x, LOST_CLOSED, "closed within its head");
	if ((n > 0 ? (uint32_t)n : u->in.n) > conf->server.max_header_bytes)
		return exchange_lost(x, LOST_BAD, "sent a head too long");
	if (n == 0)
		return STEP_WAIT;
	if (res.status < 200 && res.status != 101)
		return exchange_interim(x, (size_t)n);
	return exchange_respond(x, (size_t)n);
}

static enum step
step_tunnel(struct exchange *x)
{
	struct side *c = &x->c->s, *u = &x->u->s;
	enum relay r;

	if (x->up.state == FLOW_ON) {
		if ((r = flow_tunnel(&x->up, c, &u->ch, &x->c_ready)) == RELAY_REFUSED)
			return exchange_over(x);
		x->up.state = r == RELAY_DONE ? FLOW_DONE : FLOW_ON;
	}
	if (x->down.state == FLOW_ON) {
		if ((r = flow_tunnel(&x->down, u, &c->ch, &x->u_ready)) == RELAY_REFUSED)
			return exchange_over(x);
		x->down.state = r == RELAY_DONE ? FLOW_DONE : FLOW_ON;
	}
	return x->up.state == FLOW_DONE && x->down.state == FLOW_DONE ? exchange_over(x)
	                                                               : STEP_WAIT;
}

/* ---- keeping a request body until it is whole ---- */

static enum step
step_spool(struct exchange *x)
{
	static const struct iovec go_on = { "HTTP/1.1 100 Continue\r\n\r\n", 25 };
	struct side *c = &x->c->s;
	struct iovec v[FLOW_PIECES];
	size_t eaten;
	int k;

	if (x->expect && c->in.n == 0) {
		v[0] = go_on;
		if (chan_send(&c->ch, v, 1, NULL) < 0)
			return exchange_abort(x);
	}
	x->expect = false;
	if (c->in.n == 0 && x->c_ready && !x->up.body.done) {
		x->c_ready = false;
		side_fill(c);
	}
	while (c->in.n > 0 && !x->up.body.done) {
		if ((k = flow_take(&x->up, c, v, &eaten)) < 0)
			return exchange_error(x, 400, "the request body is malformed", S(""));
		if (body_is_too_big(x, x->up.body.total))
			return exchange_error(x, 413, "the request body is too big", S(""));
		if (k > 0 && spool_add(x->spool, v[0].iov_base, v[0].iov_len,
		    (size_t)x->route->buffer_request) < 0)
			return exchange_error(x, 503, "no room for the request body", S(""));
		buf_eat(&c->in, eaten);
	}
	if (x->up.body.done) {
		x->state = X_PICK;
		return STEP_AGAIN;
	}
	return c->ch.eof ? exchange_abort(x) : STEP_WAIT;
}

/* The master is asked, or all is over: nothing to do here. */
static enum step
step_rest(struct exchange *x)
{
	(void)x;
	return STEP_WAIT;
}

static enum step (*const exchange_steps[X_STATES])(struct exchange *) = {
	[X_START] = step_rest,
	[X_SPOOL] = step_spool,
	[X_PICK] = step_pick,
	[X_CONNECT] = step_connect,
	[X_SEND] = step_send,
	[X_WAIT] = step_wait,
	[X_ANSWER] = step_answer,
	[X_TUNNEL] = step_tunnel,
	[X_ASK] = step_rest,
	[X_END] = step_rest,
};

/* ---- waiting ---- */

/* Watches s for these events. One that hung up is watched only while it is
 * read or written: poll reports it without end. */
static void
side_watch(struct side *s, short want)
{
	if (s->hup && want == 0)
		loop_unwatch(&s->ch.w);
	else
		loop_watch(&s->ch.w, want);
}

static void
side_deadline(struct side *s, uint32_t ms, bool moved)
{
	if (moved)
		timer_set(&s->timer, ms);
	else
		timer_keep(&s->timer, ms);
}

static void
client_arm(struct exchange *x)
{
	struct side *c = &x->c->s;
	bool reads = x->state == X_SPOOL || x->state == X_TUNNEL || x->state == X_WAIT ||
	    (x->state == X_ANSWER && x->source == SOURCE_UPSTREAM);
	bool in = reads && (x->up.state == FLOW_ON || x->state == X_SPOOL) && !c->ch.eof &&
	    (!x->spool || x->state == X_SPOOL) && !(x->u && x->u->s.ch.out.n > 0);
	bool out = c->ch.out.n > 0;
	uint32_t ms = out ? conf->server.write_ms : in ? conf->server.body_ms : 0;

	if (x->state == X_TUNNEL)
		ms = conf->server.tunnel_ms;
	side_watch(c, (short)((in ? POLLIN : 0) | (out ? POLLOUT : 0)));
	side_deadline(c, ms, x->c_moved || (x->state == X_TUNNEL && x->u_moved));
}

static uint32_t
route_ms(uint32_t own, uint32_t upstreams)
{
	return own ? own : upstreams;
}

static void
upstream_arm(struct exchange *x)
{
	struct side *u = &x->u->s;
	const struct upstream *up = x->inst->up;
	bool idle_client = x->c->s.ch.out.n == 0;
	bool in = idle_client && !u->ch.eof && (x->state == X_WAIT || x->down.state == FLOW_ON);
	bool out = u->ch.out.n > 0 || (x->spool && x->up.state == FLOW_ON && x->state >= X_WAIT);
	uint32_t ms = 0;

	if (x->state == X_CONNECT) {
		if (x->u->retry_connect) {
			timer_set(&u->timer, CONNECT_AGAIN_MS);
			return;
		}
		loop_watch(&u->ch.w, POLLOUT);
		timer_keep(&u->timer, route_ms(x->route->connect_ms, up->connect_ms));
		return;
	}
	if (x->state != X_TUNNEL)
		ms = out ? route_ms(x->route->write_ms, up->write_ms)
		    : in && x->up.state != FLOW_ON ? route_ms(x->route->read_ms, up->read_ms) : 0;
	side_watch(u, (short)((in ? POLLIN : 0) | (out ? POLLOUT : 0)));
	side_deadline(u, ms, x->u_moved);
}

/* Takes steps until one waits. Afterwards x is gone if c->s.x says so. */
static void
exchange_run(struct exchange *x)
{
	struct conn *c = x->c;
	enum step s;

	do
		s = exchange_steps[x->state](x);
	while (s == STEP_AGAIN);
	if (s == STEP_DONE || c->s.x != x)
		return;
	client_arm(x);
	if (x->u)
		upstream_arm(x);
	x->c_ready = x->u_ready = x->c_moved = x->u_moved = false;
}

/* ---- doors' parts ---- */

static void
exchange_client_event(struct exchange *x, short revents)
{
	struct side *c = &x->c->s;
	bool gone = revents & (POLLERR | POLLHUP | POLLNVAL);

	if (gone && x->state != X_TUNNEL) {
		exchange_abort(x);
		return;
	}
	c->hup |= gone;
	x->c_moved = true;
	x->c_ready = revents & (POLLIN | POLLHUP | POLLERR);
	if (revents & POLLOUT) {
		/* what waited is gone: the other side's turn, without another poll */
		x->u_ready = chan_flush(&c->ch) && x->u && x->source == SOURCE_UPSTREAM;
		if (c->ch.broken) {
			exchange_abort(x);
			return;
		}
	}
	exchange_run(x);
}

static void
exchange_upstream_event(struct exchange *x, short revents)
{
	struct side *u = &x->u->s;

	u->hup |= (revents & (POLLERR | POLLHUP | POLLNVAL)) != 0;
	x->u_moved = true;
	x->u_ready = revents & (POLLIN | POLLHUP | POLLERR);
	if (revents & POLLOUT && x->state != X_CONNECT && u->ch.out.n > 0) {
		x->c_ready = chan_flush(&u->ch) && x->up.state == FLOW_ON;
		if (u->ch.broken) { /* it may have answered before it left */
			x->up.state = FLOW_CUT;
			u->ch.broken = false;
			buf_free(&u->ch.out);
		}
	}
	exchange_run(x);
}

static void
exchange_client_due(struct exchange *x)
{
	enum step s;

	if (x->state == X_TUNNEL)
		s = exchange_over(x);
	else if (x->c->s.ch.out.n == 0 && x->state < X_ANSWER)
		s = exchange_error(x, 408, "the request body did not come", S(""));
	else
		s = exchange_abort(x);
	if (s != STEP_DONE)
		exchange_run(x);
}

static enum step
exchange_upstream_late(struct exchange *x)
{
	if (x->state == X_CONNECT) {
		if (!x->u->retry_connect || now_ms >= x->connect_by_ms)
			return exchange_lost(x, LOST_CONNECT_TIMEOUT, "does not accept in time");
		if (!upconn_dial(x->u))
			return exchange_lost(x, LOST_CONNECT, strerror(errno));
		x->state = x->u->state == UP_BUSY ? X_SEND : X_CONNECT;
		return STEP_AGAIN;
	}
	if (x->u->s.ch.out.n > 0)
		return exchange_lost(x, LOST_WRITE_TIMEOUT, "does not take the request in time");
	return exchange_lost(x, LOST_READ_TIMEOUT, "does not answer in time");
}

static void
exchange_upstream_due(struct exchange *x)
{
	if (exchange_upstream_late(x) != STEP_DONE)
		exchange_run(x);
}

