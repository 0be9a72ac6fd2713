/* Any bytes as a request: views stay inside, a shorter text is never a longer
 * head, framing is one way or none, and what is plain is normal. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

static struct head h;

static void
check_fields(struct slice in, int n)
{
	struct slice bytes = { in.p, (size_t)n };

	MUST(h.n >= 0 && h.n <= FIELDS_MAX);
	for (int i = 0; i < h.n; i++) {
		const struct field *f = &h.f[i];

		MUST(is_token(f->name) && is_field_value(f->value));
		MUST(lies_in(f->name, bytes) && lies_in(f->value, bytes));
		MUST(f->start == f->name.p && f->end <= in.p + n && f->end[-1] == '\n');
		MUST(f->id < FIELD_IDS);
	}
}

/* A head that is whole ends where head_scan says it does. */
static void
check_scan(struct slice in, int n)
{
	uint32_t scanned = 0;
	int end = 0;

	if (in.p[0] == '\r')
		return;
	for (size_t k = 0; k <= in.n && end == 0; k++)
		end = head_scan((struct slice){ in.p, k }, &scanned);
	MUST(end == n);
}

static void
check_path(void)
{
	static struct path_view v;

	if (path_normalise(h.path, &v) < 0) {
		MUST(!h.path_plain);
		return;
	}
	if (h.path_plain)
		MUST(slice_eq(v.path, h.path));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = exact(data, size), less;
	struct body b;
	int n, k;

	memset(&h, 0x5a, sizeof h);
	n = request_parse(&h, in);
	MUST(n <= (int)size);
	MUST(n >= 0 || n == -400 || n == -414 || n == -431 || n == -501 || n == -505);
	if (n > 0) {
		check_fields(in, n);
		check_scan(in, n);
		check_path();
		MUST(lies_in(h.target, in) && lies_in(h.host, in) && lies_in(h.query, in));
		k = body_of_request(&b, &h);
		MUST(k == 0 || k == -400 || k == -501);
		if (k == 0 && h.count[F_TRANSFER_ENCODING] > 0)
			MUST(b.kind == BODY_CHUNKED && h.count[F_CONTENT_LENGTH] == 0);
		if (k == 0 && h.count[F_CONTENT_LENGTH] > 0)
			MUST(b.kind == BODY_LENGTH && b.left <= INT64_MAX);
		head_drop(&h, 0);
		for (int i = 0; i < h.n; i++)
			if (h.f[i].id == F_HOST || h.f[i].id == F_CONTENT_LENGTH)
				MUST(!h.f[i].drop);
		host_normal(h.host);
		query_has(h.query, S("a"), S("b"));
		less = exact(data, (size_t)n - 1); /* without its last byte: not yet */
		MUST(request_parse(&h, less) == 0);
		exact_free(less);
	} else if (n < 0) { /* more bytes do not mend it */
		less = exact(data, size / 2);
		MUST(request_parse(&h, less) <= 0);
		exact_free(less);
	}
	exact_free(in);
	return 0;
}
