/* ==== board ==================================================================
 * Owns    the one mapping that master, workers and helpers share.
 * Offers  board_open, board_attach, board_addrs_set, board_addrs_get,
 *         board_worker_gone, COUNT, rate_take.
 * Calls   base, clock, log, addr. Who writes what is said in warp.h. */

static struct board *board;

/* Adds to a counter that has one writer: no locked instruction. */
#define COUNT(counter, n)                                                        \
	atomic_store_explicit(&(counter),                                        \
	    atomic_load_explicit(&(counter), memory_order_relaxed) + (n),        \
	    memory_order_relaxed)

/* Before the first fork. Pages are taken as they are touched. */
static void
board_open(void)
{
	board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED)
		die_memory();
	board->started_s = (long long)time(NULL);
}

/* The record of that key, or one that no living configuration names: those of
 * the generation before may still be draining. */
static struct board_instance *
board_record(const char *key, unsigned generation)
{
	struct board_instance *unused = NULL;

	for (size_t i = 0; i < INSTANCES_MAX; i++) {
		struct board_instance *b = &board->instances[i];
		if (strcmp(b->key, key) == 0)
			return b;
		if (!unused && (!b->key[0] || b->generation + 1 < generation))
			unused = b;
		if (!b->key[0])
			break; /* records fill up from the front */
	}
	if (unused) {
		memset(unused, 0, sizeof *unused);
		memcpy(unused->key, key, strlen(key) + 1);
	}
	return unused;
}

/* Gives each instance its record, an old one if it has one. -1: too many
 * instances, or a key too long; logged. */
static int
board_attach(struct conf *cf)
{
	unsigned generation = ++board->generation;

	for (int u = 0; u < cf->n_upstreams; u++)
		for (int i = 0; i < cf->upstreams[u].n_instances; i++) {
			struct instance *in = &cf->upstreams[u].instances[i];
			char key[INSTANCE_KEY_MAX];
			int n = snprintf(key, sizeof key, "%s %s", in->up->name, in->addr.text);

			if (n < 0 || (size_t)n >= sizeof key) {
				log_error("upstream %s: name and address are longer than %d bytes",
				    in->up->name, INSTANCE_KEY_MAX - 2);
				return -1;
			}
			if (!(in->board = board_record(key, generation))) {
				log_error("more than %d instances: make INSTANCES_MAX in config.h larger",
				    INSTANCES_MAX);
				return -1;
			}
			in->board->generation = generation;
		}
	return 0;
}

/* One writer at a time: the master before the workers start, the resolver
 * afterwards. */
static void
board_addrs_set(struct board_instance *b, const union sock *sock, const socklen_t *sock_n,
    unsigned n)
{
	struct board_addrs *a = &b->addrs;

	n = MIN(n, INSTANCE_ADDRS);
	a->seq++;
	for (unsigned i = 0; i < n; i++) {
		a->sock[i] = sock[i];
		a->sock_n[i] = sock_n[i];
	}
	a->n = n;
	a->seq++;
}

/* Address i of the instance, modulo how many it has; false: none yet, or
 * being written without end. */
static bool
board_addrs_get(struct board_instance *b, unsigned i, union sock *sock, socklen_t *sock_n)
{
	const struct board_addrs *a = &b->addrs;

	for (int tries = 0; tries < 1000; tries++) {
		unsigned seq = a->seq;
		if (seq & 1 || a->n == 0)
			continue;
		*sock = a->sock[i % a->n];
		*sock_n = a->sock_n[i % a->n];
		atomic_thread_fence(memory_order_acquire);
		if (a->seq == seq)
			return true;
	}
	return false;
}

/* A worker left: what it counted is kept, its slot is free. */
static void
board_worker_gone(int slot)
{
	struct board_worker *w = &board->workers[slot], *g = &board->gone;

	COUNT(g->accepted, w->accepted);
	COUNT(g->requests, w->requests);
	COUNT(g->bytes_in, w->bytes_in);
	COUNT(g->bytes_out, w->bytes_out);
	COUNT(g->retries, w->retries);
	COUNT(g->refused, w->refused);
	COUNT(g->latency_us, w->latency_us);
	COUNT(g->log_dropped, w->log_dropped);
	for (size_t i = 0; i < LEN(g->codes); i++)
		COUNT(g->codes[i], w->codes[i]);
	for (size_t i = 0; i < LEN(g->latency); i++)
		COUNT(g->latency[i], w->latency[i]);
	memset(w, 0, sizeof *w);
}

/* 64 bits of a hash, never 0. */
static uint64_t
hash64(uint64_t h, const void *data, size_t n)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 0x100000001b3u; /* FNV-1a */
	h ^= h >> 32;
	return h ? h : 1;
}

/* GCRA: each request costs period / requests of time; a client may be burst
 * requests ahead. Returns 0 when it may pass, else seconds to wait, at least
 * 1. The cell whose debt ends first makes room for a new client. */
static unsigned
rate_take(const struct rate_limit *r, uint64_t tag)
{
	uint64_t cost = (uint64_t)r->per_ms * 1000 / r->requests;
	uint64_t room = cost * r->burst, now = (uint64_t)now_us, until;
	struct board_rate *cells = &board->rates[tag & (RATE_CELLS - RATE_WAYS)], *cell = cells;

	for (int i = 0; i < RATE_WAYS; i++) {
		if (cells[i].tag == tag) {
			cell = &cells[i];
			break;
		}
		if (cells[i].until_us < cell->until_us)
			cell = &cells[i];
	}
	if (cell->tag != tag) {
		cell->tag = tag;
		cell->until_us = 0;
	}
	until = MAX(now, cell->until_us) + cost;
	if (until > now + room)
		return (unsigned)((until - now - room + 999999) / 1000000);
	cell->until_us = until;
	return 0;
}

