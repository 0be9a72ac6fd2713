/* ==== worker =================================================================
 * Owns    the process that carries traffic.
 * Offers  worker_run.
 * Calls   everything of the services. Told what to do by the master. */

#define CTL_MAX 512 /* bytes of one message */

static struct watch ctl_watch;
static bool worker_stops;

static void
worker_logs(const struct msghdr *m)
{
	const struct cmsghdr *cm = CMSG_FIRSTHDR(m);
	int fds[2]; /* access, error */

	if (!cm || cm->cmsg_type != SCM_RIGHTS || cm->cmsg_len != CMSG_LEN(sizeof fds))
		return;
	memcpy(fds, CMSG_DATA(cm), sizeof fds);
	access_fd(fds[0]);
	if (log_fd != STDERR_FILENO)
		close(log_fd);
	log_fd = fds[1];
}

/* A message from the master; its end means that it died, and a worker does
 * not outlive it. */
static void
worker_ctl(struct watch *w, short revents)
{
	char b[CTL_MAX];
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec v = { b, sizeof b };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control.space,
		.msg_controllen = sizeof control.space };
	ssize_t n = recvmsg(w->fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	(void)revents;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		worker_stops = true;
		return;
	}
	switch (b[0]) {
	case CTL_DRAIN:
		if (!draining) {
			front_drain();
			pool_drain(conf);
		}
		break;
	case CTL_STOP:
		worker_stops = true;
		break;
	case CTL_LOGS:
		worker_logs(&m);
		break;
	case CTL_VERB:
		front_told((struct slice){ b + 1, (size_t)n - 1 });
		break;
	default:
		log_error("the master said something unknown: %d", b[0]);
	}
}

static void
worker_open(struct conf *cf, struct listener *ls, int n, int ctl)
{
	uint32_t share = (cf->server.max_connections + (uint32_t)cf->server.workers - 1) /
	    (uint32_t)cf->server.workers;

	clock_turn();
	blocks_open(cf->server.max_header_bytes);
	scratch = block_take(BLOCK_LARGE);
	loop_open((int)(3 * share) + n + 1);
	pool_open(share);
	heads_open(cf);
	gate_open();
	access_start(cf, &me->log_dropped);
	ctl_fd = ctl;
	ctl_watch = (struct watch){ .fd = ctl, .slot = -1, .ready = worker_ctl };
	loop_watch(&ctl_watch, POLLIN);
	front_open(ls, n, share);
}

/* Carries traffic until the master says that it is enough. */
_Noreturn static void
worker_run(struct conf *cf, struct listener *ls, int n, int ctl, int slot)
{
	static const char ready = CTL_READY;

	log_who = "worker";
	me = &board->workers[slot];
	worker_open(cf, ls, n, ctl);
	if (send(ctl, &ready, 1, MSG_NOSIGNAL) < 0)
		_exit(EXIT_OTHER);
	while (!worker_stops && (!draining || n_conns > 0)) {
		loop_turn(access_due_ms());
		access_flush(false);
	}
	access_flush(true);
	_exit(0);
}

