/* Any fields of a response: what is stored of it reads as it did, and no-store, were it
 * the last word, forbids it. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

enum { ROOM = 1 << 16 };

static struct head req, res, back, anew;

static bool
read_res(struct head *h, struct slice fields, const char *last, char *b)
{
	struct text t = { b, 0, ROOM, false };
	int n;

	text_str(&t, "HTTP/1.1 200 OK\r\n");
	text_add(&t, fields);
	text_fmt(&t, "\r\n%s\r\n", last);
	n = t.full ? 0 : response_parse(h, text_slice(&t));
	if (n > 0)
		head_drop(h, 0);
	return n == (int)t.n;
}

static void
same(const struct policy *a, const struct policy *b)
{
	MUST(a->age_s == b->age_s && a->fresh_s == b->fresh_s && a->while_s == b->while_s);
	MUST(a->error_s == b->error_s && a->shared == b->shared && a->validates == b->validates);
}

static void
varies(void)
{
	static char b[ROOM], k[4 * ROOM];
	struct text t = { b, 0, sizeof b, false }, key = { k, 0, sizeof k, false };

	vary_names(&t, &res);
	vary_key(&key, text_slice(&t), &res); /* any head has fields */
	MUST(!t.full);
}

/* With a 304 that brings nothing, only Age and Date change; with one that brings all,
 * nothing does but what belongs to the body. */
static void
writes(const struct policy *p, const struct cache_rules *rules)
{
	static char b[ROOM], again[ROOM];
	struct text t = { b, 0, sizeof b, false }, u = { again, 0, sizeof again, false };
	struct policy q;

	policy_write(&t, &res, NULL);
	if (t.full)
		return;
	MUST(response_parse(&back, text_slice(&t)) == (int)t.n);
	MUST(back.count[F_SET_COOKIE] == 0 && !(back.count[F_CONNECTION]));
	MUST(policy_store(&q, rules, &req, &back, 0));
	same(p, &q);
	head_drop(&back, 0);
	policy_write(&u, &back, NULL);
	MUST(slice_eq(text_slice(&t), text_slice(&u)));
	u.n = 0;
	policy_write(&u, &res, &res);
	MUST(u.full || response_parse(&anew, text_slice(&u)) == (int)u.n);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char b[ROOM], forbidden[ROOM], keys[ROOM];
	struct cache_rules rules = { 0, 0 };
	struct slice in, got[KEYS_SPOILT];
	struct text t = { keys, 0, sizeof keys, false };
	struct cache_control cc;
	struct policy p;

	if (size == 0)
		return 0;
	now_s = 1790000000;
	in = S("POST /d/p HTTP/1.1\r\nHost: a\r\n\r\n");
	MUST(request_parse(&req, in) == (int)in.n);
	in = exact(data + 1, size - 1);
	rules.default_ttl_s = data[0] & 1 ? 30 : 0;
	rules.stale_s = data[0] & 2 ? 9 : 0;
	if (read_res(&res, in, "", b)) {
		varies();
		if (policy_store(&p, &rules, &req, &res, 0)) {
			MUST(p.validates || policy_left(&p) > 0);
			writes(&p, &rules);
		}
		for (int i = policy_spoilt(&t, got, false, &req, &res) - 1; i >= 0; i--)
			MUST(slice_starts(got[i], S("http://a/")) && lies_in(got[i], text_slice(&t)));
	}
	if (read_res(&res, in, "Cache-Control: no-store\r\n", forbidden)) {
		cache_control_of(&cc, &res);
		MUST(res.count[F_CDN_CACHE_CONTROL] > 0 || cc.has & DIRECTIVE(D_NO_STORE));
		if (cc.has & DIRECTIVE(D_NO_STORE) && !(cc.has & DIRECTIVE(D_MUST_UNDERSTAND)))
			MUST(!policy_store(&p, &rules, &req, &res, 0));
	}
	exact_free(in);
	return 0;
}
