/* route_bench: what choosing a route costs, the last one matching.
 * Prints the median of several rounds; goals: 100 ns for 100, 1 us for 1000. */

#define main warp_main
#include "../../warp.c"
#undef main

enum { ROUNDS = 21, LOOPS = 20000 };

static struct arena arena;

static void
table_make(struct route_table *t, int n, bool by_host)
{
	t->n = n;
	t->routes = arena_alloc(&arena, (size_t)n * sizeof *t->routes);
	for (int i = 0; i < n; i++) {
		struct route *r = &t->routes[i];
		if (by_host) {
			r->host_kind = HOST_EXACT;
			r->host = slice_of(arena_fmt(&arena, "h%04d.example.com", i));
		}
		r->path_kind = PATH_PREFIX;
		r->path = slice_of(by_host ? "/" : arena_fmt(&arena, "/app%04d/", i));
	}
	route_table_build(&arena, t);
}

static double
round_ns(const struct route_table *t, const char *text, int n)
{
	struct slice in = slice_of(text);
	struct ip client = { { 0 } };
	struct path_view view;
	struct timespec a, b;
	volatile int wrong = 0;

	if (request_parse(&req, in) <= 0)
		exit(1);
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < LOOPS; i++) {
		path_plain(req.path, &view);
		wrong += route_find(t, &req, view.path, &client, 8080) != &t->routes[n - 1];
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	if (wrong)
		exit(1);
	return ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / LOOPS;
}

static int
by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void
measure(int n, bool by_host)
{
	struct route_table t = { 0 };
	double ns[ROUNDS];
	char text[256];

	table_make(&t, n, by_host);
	if (by_host)
		snprintf(text, sizeof text, "GET /x/index.html HTTP/1.1\r\nHost: h%04d.example.com\r\n\r\n", n - 1);
	else
		snprintf(text, sizeof text, "GET /app%04d/index.html HTTP/1.1\r\nHost: a\r\n\r\n", n - 1);
	for (int i = 0; i < ROUNDS; i++)
		ns[i] = round_ns(&t, text, n);
	qsort(ns, ROUNDS, sizeof ns[0], by_size);
	printf("%5d routes by %s: %7.1f ns (min %.1f)\n", n, by_host ? "host" : "path",
	    ns[ROUNDS / 2], ns[0]);
}

int
main(void)
{
	static const int sizes[] = { 1, 10, 100, 1000 };

	for (size_t i = 0; i < LEN(sizes); i++) {
		measure(sizes[i], false);
		measure(sizes[i], true);
	}
	return 0;
}
