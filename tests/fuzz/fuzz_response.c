/* A response head and what it says about its body. */

#include "fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct head h;
	struct slice in = { (const char *)data, n };
	struct body b;
	int got = response_parse(&h, in);

	MUST(got <= (int)n && (got >= 0 || got == -502));
	if (got <= 0)
		return 0;
	MUST(h.status >= 100 && h.status < 600 && h.n <= FIELDS_MAX);
	for (int i = 0; i < METHODS; i++)
		if (body_of_response(&b, &h, (enum method)i) == 0)
			MUST(b.kind != BODY_LENGTH || !b.done || b.left == 0);
	head_hop_by_hop(&h);
	in.n = (size_t)got - 1;
	MUST(response_parse(&h, in) <= 0);
	return 0;
}
