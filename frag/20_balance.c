/* ==== balance ================================================================
 * Owns    nothing: what it weighs is the worker's (current) or the board's.
 * Offers  balances[], balance_find, instance_failed, instance_worked.
 * Calls   base, clock. Every strategy is a row: name, alias, pick. */

#define TRIED_BITS 64 /* of exchange.tried; instance 64 shares a bit with 0 */

static bool
instance_tried(const struct instance *in, uint64_t tried)
{
	return tried >> ((size_t)(in - in->up->instances) % TRIED_BITS) & 1;
}

/* Has an address and may be asked now, as far as this try is concerned. */
static bool
instance_usable(const struct instance *in, uint64_t tried)
{
	return in->board && in->board->addrs.n > 0 && !instance_tried(in, tried);
}

/* When its breaker lets a trial through; 0: closed. The only instance of an
 * upstream is never shut out. */
static int64_t
instance_open_until(const struct instance *in)
{
	return in->up->n_instances > 1 ? in->board->open_until_ms : 0;
}

/* The breaker is half-open: the first to come is the trial, the others find
 * it open again until the trial's outcome is known. */
static bool
instance_claim(const struct instance *in)
{
	long long until = in->board->open_until_ms;

	if (until == 0 || in->up->n_instances == 1)
		return true;
	return atomic_compare_exchange_strong(&in->board->open_until_ms, &until,
	    now_ms + in->up->fail_ms);
}

static void
instance_failed(const struct instance *in)
{
	struct board_instance *b = in->board;
	const struct upstream *up = in->up;

	b->failures++;
	if (up->max_fails == 0)
		return;
	if (now_ms - b->window_ms > up->fail_ms) {
		b->window_ms = now_ms;
		b->fails = 0;
	}
	if (++b->fails < up->max_fails && b->open_until_ms == 0)
		return;
	if (b->open_until_ms == 0 && up->n_instances > 1)
		log_warn("upstream %s: %s failed %u times, left out for %u ms", up->name,
		    in->addr.text, b->fails, up->fail_ms);
	b->open_until_ms = now_ms + up->fail_ms;
}

static void
instance_worked(const struct instance *in)
{
	struct board_instance *b = in->board;

	if (b->open_until_ms != 0) {
		if (in->up->n_instances > 1)
			log_info("upstream %s: %s answers again", in->up->name, in->addr.text);
		b->open_until_ms = 0;
	}
	if (b->fails != 0)
		b->fails = 0;
}

/* All are open: the one that failed longest ago gets the trial. */
static struct instance *
balance_last_resort(struct upstream *up, uint64_t tried)
{
	struct instance *best = NULL;

	for (int i = 0; i < up->n_instances; i++) {
		struct instance *in = &up->instances[i];
		if (instance_usable(in, tried) &&
		    (!best || in->board->open_until_ms < best->board->open_until_ms))
			best = in;
	}
	return best;
}

/* Smooth weighted round robin: each gains its weight, the richest pays all. */
static struct instance *
pick_round_robin(struct upstream *up, uint64_t tried)
{
	struct instance *best = NULL;
	int total = 0;

	for (int i = 0; i < up->n_instances; i++) {
		struct instance *in = &up->instances[i];
		if (!instance_usable(in, tried) || instance_open_until(in) > now_ms)
			continue;
		in->current += (int)in->weight;
		total += (int)in->weight;
		if (!best || in->current > best->current)
			best = in;
	}
	if (!best)
		return balance_last_resort(up, tried);
	best->current -= total;
	return instance_claim(best) ? best : balance_last_resort(up, tried);
}

/* pick returns an instance that is not in tried, NULL when there is none.
 * Strategies without a function are refused when the configuration is read. */
static const struct balance {
	const char *name, *alias;
	struct instance *(*pick)(struct upstream *, uint64_t tried);
} balances[] = {
	{ "round_robin", NULL, pick_round_robin },
	{ "weighted", NULL, NULL },
	{ "least_conn", "least_connections", NULL },
	{ "random", NULL, NULL },
	{ "random_two", NULL, NULL },
	{ "ip_hash", NULL, NULL },
	{ "uri_hash", NULL, NULL },
	{ "header_hash", NULL, NULL },
	{ "cookie", NULL, NULL },
	{ "least_time", NULL, NULL },
	{ "first", NULL, NULL },
};

static const struct balance *
balance_find(struct slice name)
{
	for (size_t i = 0; i < LEN(balances); i++)
		if (slice_eq(name, slice_of(balances[i].name)) ||
		    (balances[i].alias && slice_eq(name, slice_of(balances[i].alias))))
			return &balances[i];
	return NULL;
}

