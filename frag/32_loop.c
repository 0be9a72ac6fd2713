/* ==== loop ===================================================================
 * Owns    the poll array, and the epoll set that idle descriptors are parked
 *         in: poll's cost grows with each descriptor it is given, so what
 *         says nothing for long is watched by epoll, itself one of poll's.
 * Offers  loop_open, loop_watch, loop_unwatch, loop_park, loop_is_ready,
 *         loop_turn.
 * Calls   base, clock, log, timer.
 *
 * Watching, changing and removing are memory writes. Ready entries are visited
 * from the back: removal moves the last one, which has been visited, into the
 * gap. revents is cleared first, so nothing is called twice. */

static struct pollfd *poll_fds;     /* [0] is the parking lot */
static struct watch **poll_owners;
static int n_polls, max_polls;
static struct watch parking = { .fd = -1, .slot = -1 };

/* A parked descriptor says something, or went away: back into the poll array
 * and on as if poll had seen it. */
static void
parking_ready(struct watch *lot, short revents)
{
	struct epoll_event ev[PARKED_BATCH];
	int n = epoll_wait(lot->fd, ev, PARKED_BATCH, 0);

	(void)revents;
	for (int i = 0; i < n; i++) {
		struct watch *w = ev[i].data.ptr;
		if (!w->parked)
			continue; /* an earlier one of this batch took it */
		w->ready(w, (short)(ev[i].events & (POLLIN | POLLERR | POLLHUP)));
	}
}

static void
loop_unwatch(struct watch *w)
{
	int last = n_polls - 1;

	if (w->parked) {
		epoll_ctl(parking.fd, EPOLL_CTL_DEL, w->fd, NULL);
		w->parked = false;
	}
	if (w->slot < 0)
		return;
	if (w->slot != last) {
		poll_fds[w->slot] = poll_fds[last];
		poll_owners[w->slot] = poll_owners[last];
		poll_owners[w->slot]->slot = w->slot;
	}
	n_polls--;
	w->slot = -1;
}

/* Calls w->ready when w->fd is ready for events, or has failed. The caller
 * never has more watches than loop_open was told. */
static void
loop_watch(struct watch *w, short events)
{
	if (w->parked)
		loop_unwatch(w);
	if (w->slot < 0) {
		w->slot = n_polls++;
		poll_owners[w->slot] = w;
		poll_fds[w->slot] = (struct pollfd){ .fd = w->fd };
	}
	poll_fds[w->slot].events = events;
}

/* Waits for input without costing each turn. Stays where it is when epoll
 * does not take it. */
static void
loop_park(struct watch *w)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = w };

	if (w->parked || epoll_ctl(parking.fd, EPOLL_CTL_ADD, w->fd, &ev) < 0)
		return;
	loop_unwatch(w);
	w->parked = true;
}

/* Poll saw something on w in this turn that was not handled yet. */
static bool
loop_is_ready(const struct watch *w)
{
	return w->slot >= 0 && poll_fds[w->slot].revents != 0;
}

static void
loop_open(int watches)
{
	max_polls = watches + 1;
	poll_fds = mmap(NULL, (size_t)max_polls * sizeof *poll_fds, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	poll_owners = mmap(NULL, (size_t)max_polls * sizeof *poll_owners, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (poll_fds == MAP_FAILED || poll_owners == MAP_FAILED)
		die_memory();
	parking.fd = epoll_create1(EPOLL_CLOEXEC);
	parking.ready = parking_ready;
	loop_watch(&parking, parking.fd >= 0 ? POLLIN : 0); /* poll skips -1 */
}

/* Waits at most wait_ms (-1: for ever), then calls whoever is ready or due. */
static void
loop_turn(int wait_ms)
{
	int due = timers_next_ms(), ready;

	if (due >= 0 && (wait_ms < 0 || due < wait_ms))
		wait_ms = due;
	ready = poll(poll_fds, (nfds_t)n_polls, wait_ms);
	clock_turn();
	if (ready > 0 && poll_fds[0].revents) {
		poll_fds[0].revents = 0;
		parking_ready(&parking, 0);
		ready--;
	}
	for (int i = n_polls - 1; i > 0 && ready > 0; i--) {
		short revents;
		if (i >= n_polls || !(revents = poll_fds[i].revents))
			continue;
		poll_fds[i].revents = 0;
		ready--;
		poll_owners[i]->ready(poll_owners[i], revents);
	}
	timers_run();
}

