/* ==== pool ===================================================================
 * Owns    every upstream connection's memory, and those that are idle.
 * Offers  pool_open, pool_take, pool_give, upconn_connect, upconn_close.
 * Calls   base, log, addr, board, timer, loop, chan. What is taken is the
 *         taker's, who hands down whom to call when it is ready or due. */

#define CONNECT_AGAIN_MS 20 /* a unix listener's backlog is full */

static struct upconn *upconns_free;
static struct upconn *upconns;
static uint32_t n_upconns, max_upconns, max_idle, n_idle_all;
static struct board_worker *me; /* this worker's counters */
static bool draining;           /* finish what runs, take nothing new */

static void *
map_zeroed(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die_memory();
	return p;
}

/* Room for one busy and one idle connection for each client. */
static void
pool_open(uint32_t clients)
{
	max_idle = clients;
	max_upconns = 2 * clients;
	upconns = map_zeroed(max_upconns * sizeof *upconns);
}

static struct upconn *
upconn_new(struct instance *in)
{
	struct upconn *u = upconns_free;

	if (u)
		upconns_free = u->next;
	else if (n_upconns < max_upconns)
		u = &upconns[n_upconns++];
	else
		return NULL;
	*u = (struct upconn){ .inst = in };
	COUNT(me->upstream_connections, 1);
	return u;
}

static void
pool_unlink(struct upconn *u)
{
	if (u->prev)
		u->prev->next = u->next;
	else
		u->inst->idle = u->next;
	if (u->next)
		u->next->prev = u->prev;
	u->prev = u->next = NULL;
	u->inst->n_idle--;
	n_idle_all--;
}

static void
upconn_close(struct upconn *u)
{
	if (u->state == UP_IDLE)
		pool_unlink(u);
	side_close(&u->s);
	u->state = UP_FREE;
	u->next = upconns_free;
	upconns_free = u;
	COUNT(me->upstream_connections, -1u);
}

/* An idle connection must say nothing: end or rubbish, it goes. */
static void
pool_ready(struct watch *w, short revents)
{
	(void)revents;
	upconn_close((struct upconn *)w);
}

/* Idle for a while: parked; for keepalive_ms: closed. */
static void
pool_due(struct timer *t)
{
	struct upconn *u = (struct upconn *)((char *)t - offsetof(struct upconn, s.timer));
	uint32_t keep = u->inst->up->keepalive_ms;

	if (u->s.ch.w.parked || keep <= PARK_AFTER_MS) {
		upconn_close(u);
		return;
	}
	loop_park(&u->s.ch.w);
	timer_set(&u->s.timer, keep - PARK_AFTER_MS);
}

/* Takes over u, whose exchange is complete: into the pool, or closed. */
static void
pool_give(struct upconn *u)
{
	struct instance *in = u->inst;

	u->s.x = NULL;
	u->served++;
	if (draining || in->n_idle >= in->up->keepalive || n_idle_all >= max_idle ||
	    loop_is_ready(&u->s.ch.w)) {
		upconn_close(u);
		return;
	}
	u->state = UP_IDLE;
	u->prev = NULL;
	u->next = in->idle;
	if (in->idle)
		in->idle->prev = u;
	in->idle = u;
	in->n_idle++;
	n_idle_all++;
	u->s.ch.w.ready = pool_ready;
	u->s.timer.fire = pool_due;
	loop_watch(&u->s.ch.w, POLLIN);
	timer_set(&u->s.timer, MIN(in->up->keepalive_ms, (uint32_t)PARK_AFTER_MS));
}

/* Poll has told of those it watches in this very turn; a parked one may have
 * been closed since, so it is asked. */
static bool
pool_is_alive(const struct upconn *u)
{
	char c;

	if (!u->s.ch.w.parked)
		return !loop_is_ready(&u->s.ch.w);
	return recv(u->s.ch.w.fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
	    (errno == EAGAIN || errno == EWOULDBLOCK);
}

/* The connection that was used last and is still open; NULL: none. */
static struct upconn *
pool_take(struct instance *in)
{
	struct upconn *u = in->idle, *next;

	for (; u; u = next) {
		next = u->next;
		if (!pool_is_alive(u))
			continue; /* its own event closes it */
		pool_unlink(u);
		u->state = UP_BUSY;
		return u;
	}
	return NULL;
}

static void
pool_drain(const struct conf *cf)
{
	for (int i = 0; i < cf->n_upstreams; i++)
		for (int k = 0; k < cf->upstreams[i].n_instances; k++)
			while (cf->upstreams[i].instances[k].idle)
				upconn_close(cf->upstreams[i].instances[k].idle);
}

/* Asks the kernel; false: failed at once, errno says why. */
static bool
upconn_dial(struct upconn *u)
{
	union sock to;
	socklen_t to_n;
	int done;

	if (!board_addrs_get(u->inst->board, u->addr_i, &to, &to_n)) {
		errno = EADDRNOTAVAIL;
		return false;
	}
	do
		done = connect(u->s.ch.w.fd, &to.sa, to_n);
	while (done < 0 && errno == EINTR);
	u->retry_connect = done < 0 && errno == EAGAIN && to.sa.sa_family == AF_UNIX;
	u->state = done == 0 ? UP_BUSY : UP_CONNECTING;
	return done == 0 || errno == EINPROGRESS || u->retry_connect;
}

/* A new connection to the instance's address number addr_i, on its way or
 * (state UP_BUSY) there already. NULL: failed at once, errno says why. */
static struct upconn *
upconn_connect(struct instance *in, uint8_t addr_i)
{
	int fd, family, on = 1, why;
	union sock to = { 0 };
	socklen_t to_n;
	struct upconn *u;

	if (!board_addrs_get(in->board, addr_i, &to, &to_n)) {
		errno = EADDRNOTAVAIL;
		return NULL;
	}
	family = to.sa.sa_family;
	if ((fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) < 0)
		return NULL;
	if (family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* an optimisation */
	if (!(u = upconn_new(in))) {
		close(fd);
		errno = EMFILE;
		return NULL;
	}
	chan_open(&u->s.ch, fd, NULL);
	u->addr_i = addr_i;
	if (upconn_dial(u))
		return u;
	why = errno;
	upconn_close(u);
	errno = why;
	return NULL;
}

