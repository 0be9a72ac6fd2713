/* Any bytes as a response, to any method: views stay inside, its body ends in
 * one way, and however its lines ended, those that travel on end in CRLF. The
 * first byte says what was asked. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

static struct head h;

/* Each LF follows a CR, and there is a line for each field that is kept. */
static void
lines_are_strict(void)
{
	static char b[1 << 20];
	struct text t = { b, 0, sizeof b, false };
	int lines = 0;

	fields_write(&t, &h);
	if (t.full)
		return;
	for (size_t i = 0; i < t.n; i++)
		if (b[i] == '\n') {
			MUST(i > 0 && b[i - 1] == '\r');
			lines++;
		}
	for (int i = 0; i < h.n; i++)
		lines -= !h.f[i].drop;
	MUST(lines == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in, less;
	enum method to_what;
	struct body b;
	int n, k;

	if (size == 0)
		return 0;
	to_what = (enum method)(data[0] % METHODS);
	in = exact(data + 1, size - 1);
	memset(&h, 0x5a, sizeof h);
	n = response_parse(&h, in);
	MUST(n <= (int)in.n && (n >= 0 || n == -502));
	if (n > 0) {
		MUST(h.status >= 100 && h.status <= 599);
		MUST(lies_in(h.reason, in) && is_field_value(h.reason));
		MUST(in.p[n - 1] == '\n');
		for (int i = 0; i < h.n; i++)
			MUST(is_token(h.f[i].name) && is_field_value(h.f[i].value) &&
			    lies_in(h.f[i].value, in));
		k = body_of_response(&b, &h, to_what);
		MUST(k == 0 || k == -502);
		if (k == 0 && (to_what == M_HEAD || h.status < 200 || h.status == 204 || h.status == 304))
			MUST(b.kind == BODY_NONE && b.done);
		else if (k == 0)
			MUST(b.kind != BODY_NONE);
		lines_are_strict();
		head_drop(&h, 0);
		lines_are_strict();
		less = exact(in.p, (size_t)n - 1);
		MUST(response_parse(&h, less) == 0);
		exact_free(less);
	}
	exact_free(in);
	return 0;
}
