/* Any bytes as a block of variables, an announcement and each form of a cache command:
 * slices lie in them, what is written says the same. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

static void
block(struct slice in)
{
	struct text t = { malloc(in.n), 0, in.n, false };
	struct slice rest = in, found[ROUTER_VARS], key, empty = S("");
	struct packet_var v;

	while (vars_next(&rest, &v)) {
		MUST(v.name.n > 0 && lies_in(v.name, in) && lies_in(v.value, in) && lies_in(rest, in));
		var_put(&t, v.name, v.value);
	}
	MUST(!t.full && router_vars(in.n ? in : empty, found) == (in.n == 0 || rest.p != NULL));
	MUST(memcmp(t.p, in.p, t.n) == 0 && (!rest.p || t.n == in.n)); /* byte for byte */
	key = router_key(found);
	if (key.p)
		MUST(key.n > 0 && key.n <= KEY_MAX && lies_in(key, in));
	free(t.p);
}

static void
announcement(struct slice in)
{
	static char out[ANNOUNCED_MAX];
	struct announcement a, b;
	size_t n;

	if (!announcement_parse(in, &a))
		return;
	MUST(in.n <= ANNOUNCED_MAX && a.key.n > 0 && a.key.n <= KEY_MAX && a.address.n > 0);
	MUST(a.address.n <= NODE_ADDRESS_MAX && a.modifier1 <= 255 && a.modifier2 <= 255);
	MUST(lies_in(a.key, in) && lies_in(a.address, in) && lies_in(a.notify, in));
	MUST(lies_in(a.sign, in) && lies_in(a.is_signed, in));
	if (a.sign.n > 0)
		MUST(a.is_signed.p == in.p + PACKET_HEAD &&
		    a.is_signed.n + 8 + a.sign.n + PACKET_HEAD == in.n);
	if ((n = announcement_write(out, sizeof out, &a)) == 0)
		return; /* numbers with zeros in front are shorter, modifiers may be added: it fits */
	MUST(announcement_parse((struct slice){ out, n }, &b));
	MUST(slice_eq(a.key, b.key) && slice_eq(a.address, b.address) && a.leaves == b.leaves);
	MUST(a.modifier1 == b.modifier1 && a.weight == b.weight && a.load == b.load && a.cores == b.cores);
	MUST(a.unix == b.unix && slice_eq(a.notify, b.notify) && a.backup == b.backup);
	MUST(a.unix == 0 || slice_eq(a.sign, b.sign));
}

static void
command(struct slice in, unsigned modifier2)
{
	char out[CACHE_REPLY_MAX + 3];
	struct text t = { out, 0, sizeof out, false };
	struct cache_command c;

	if (!cache_command_parse(in, modifier2, &c))
		return;
	MUST(c.verb < CACHE_VERBS && (c.key.n > 0 || c.verb == CACHE_CLEAR));
	MUST(lies_in(c.key, in) && lies_in(c.value, in) && lies_in(c.cache, in));
	MUST(c.size == 0 || (c.value.n == 0 && (c.verb == CACHE_SET || c.verb == CACHE_UPDATE)));
	cache_reply(&t, &c, in.n & 1, S("val"), UINT32_MAX);
	MUST(!t.full && (c.form != CACHE_MUTE || t.n == 0));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = exact(data, size);

	block(in);
	announcement(in);
	for (unsigned modifier2 = 0; modifier2 < 18; modifier2++)
		command(in, modifier2);
	exact_free(in);
	return 0;
}
