/* pick_bench: what picking an instance costs, by strategy. Prints the median
 * of several rounds, and what a new roster costs after a change. */

#define main warp_main
#include "../../warp.c"
#undef main

enum { ROUNDS = 21, LOOPS = 20000, REFRESHES = 500 };

static struct arena arena;

static struct upstream *
upstream_make(const struct balance *balance, int n, bool even)
{
	static struct conf cf;
	struct upstream *up = arena_alloc(&arena, sizeof *up);

	*up = (struct upstream){ .name = "u", .n_instances = n, .balance = balance,
		.instances = arena_alloc(&arena, (size_t)n * sizeof *up->instances),
		.fail_ms = SECOND_MS };
	for (int i = 0; i < n; i++)
		up->instances[i] = (struct instance){ .up = up, .replica = -1,
			.weight = even ? 1 : 1 + (unsigned)i % 5,
			.addr.text = arena_fmt(&arena, "10.0.%d.%d:80", i / 256, i % 256) };
	cf.upstreams = up;
	cf.n_upstreams = 1;
	memset(board->instances, 0, sizeof board->instances);
	if (board_attach(&cf) < 0)
		exit(1);
	for (int i = 0; i < n; i++) {
		up->instances[i].board->addrs.n = 1;
		up->instances[i].board->in_flight = (unsigned)i % 3;
		up->instances[i].board->average_us = 1000 + (unsigned)i % 7;
	}
	rosters_open(&cf);
	return up;
}

static double
since_ns(const struct timespec *a)
{
	struct timespec b;

	clock_gettime(CLOCK_MONOTONIC, &b);
	return (double)(b.tv_sec - a->tv_sec) * 1e9 + (double)(b.tv_nsec - a->tv_nsec);
}

static double
round_ns(struct upstream *up)
{
	struct timespec a;

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < LOOPS; i++) {
		struct pick p = { 0, (uint64_t)i, &up->instances[up->n_instances - 1] };
		if (!balance_pick(up, &p))
			exit(1);
	}
	return since_ns(&a) / LOOPS;
}

static double
refresh_ns(struct upstream *up)
{
	struct timespec a;

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < REFRESHES; i++) {
		board_changed();
		roster_refresh(up);
	}
	return since_ns(&a) / REFRESHES;
}

static int
by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double
median(struct upstream *up, double (*once)(struct upstream *))
{
	double ns[ROUNDS];

	for (int i = 0; i < ROUNDS; i++)
		ns[i] = once(up);
	qsort(ns, ROUNDS, sizeof ns[0], by_size);
	return ns[ROUNDS / 2];
}

int
main(void)
{
	static const struct {
		int n;
		bool even;
	} sizes[] = { { 3, true }, { 3, false }, { 100, true }, { 100, false } };

	board_open();
	clock_turn();
	random_state[0] = 1;
	printf("ns per pick       3, even 3, weights   100, even 100, weights\n");
	for (size_t k = 0; k <= LEN(balances); k++) {
		const struct balance *b = &balances[k % LEN(balances)];
		printf("%-14s", k < LEN(balances) ? b->name : "(new roster)");
		for (size_t i = 0; i < LEN(sizes); i++)
			printf(" %11.1f", median(upstream_make(b, sizes[i].n, sizes[i].even),
			    k < LEN(balances) ? round_ns : refresh_ns));
		printf("\n");
	}
	return 0;
}
