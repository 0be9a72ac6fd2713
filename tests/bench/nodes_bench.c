/* What choosing a node costs: 1,000 subscribed keys with 3 nodes each. */

#define main warp_main
#include "../../warp.c"
#undef main

enum { KEYS = 1000, NODES_EACH = 3, PICKS = 2000000 };

static char keys[KEYS][32];

static int64_t
cpu_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static double
pick_ns(const struct router_conf *rc, const struct ip *from)
{
	int64_t began = cpu_us();

	for (unsigned i = 0; i < PICKS; i++) {
		struct node_pick p = { .nth = 0 };
		if (nodes_pick(rc, slice_of(keys[i * 7919u % KEYS]), from, 0, &p) != PICKED)
			abort();
		nodes_done(&p, 1000, 500);
	}
	return (double)(cpu_us() - began) * 1000 / PICKS;
}

int
main(void)
{
	struct addr at = { .text = "127.0.0.1:4040" };
	struct router_conf rc = { .subscription_server = { &at, 1 }, .tolerance_ms = 17000 };
	struct conf cf = { .routers = &rc, .n_routers = 1, .n_servers = 1 };
	char address[32];
	struct ip from;
	int64_t began;

	board_open();
	clock_turn();
	nodes_attach(&cf);
	nodes_join(0);
	nodes_open();
	ip_parse(S("10.1.2.3"), &from);
	began = cpu_us();
	for (int k = 0; k < KEYS; k++)
		for (int n = 0; n < NODES_EACH; n++) {
			struct announcement a = { .weight = (uint32_t)n + 1 };
			snprintf(keys[k], sizeof keys[k], "site%d.example.com:8000", k);
			snprintf(address, sizeof address, "10.0.%d.%d:3031", k % 250, n);
			a.key = slice_of(keys[k]);
			a.address = slice_of(address);
			nodes_announce(&rc, &a, NULL);
		}
	printf("announcing: %.0f ns\n", (double)(cpu_us() - began) * 1000 / KEYS / NODES_EACH);
	printf("table: %u KB for %d nodes\n", (NODES->fresh * NODE_UNIT +
	    (unsigned)sizeof NODES->buckets + NODES->fresh * 2) / 1024, KEYS * NODES_EACH);
	began = cpu_us();
	nodes_sweep(&cf);
	printf("a sweep: %.0f us\n", (double)(cpu_us() - began));
	for (rc.algo = 0; rc.algo < NODE_ALGOS; rc.algo++)
		printf("%.*s: %.0f ns a request\n", (int)node_algos[rc.algo].name.n, node_algos[rc.algo].name.p,
		    pick_ns(&rc, &from));
	return 0;
}
