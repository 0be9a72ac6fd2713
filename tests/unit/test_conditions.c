/* Dates, conditions and ranges. RFC 9110 5.6.7, 13, 14. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

enum { TODAY = 1790000000 /* September 2026 */, CHANGED = 1000000000 };

#define LM      "Sun, 09 Sep 2001 01:46:40 GMT" /* CHANGED */
#define LM_EARLIER "Sun, 09 Sep 2001 01:46:39 GMT"
#define LM_LATER   "Sun, 09 Sep 2001 01:46:41 GMT"

/* clang-format off */
static const struct {
	struct slice in;
	int64_t want;
	const char *why;
} dates[] = {
	{ T(LM), CHANGED, "IMF-fixdate" },
	{ T("Sunday, 09-Sep-01 01:46:40 GMT"), CHANGED, "RFC 850" },
	{ T("Sun Sep  9 01:46:40 2001"), CHANGED, "asctime" },
	{ T("Sun Sep 19 01:46:40 2001"), CHANGED + 10 * DAY_S, "asctime, two digits" },
	{ T("sUN, 09 SEP 2001 01:46:40 gmt"), CHANGED, "case" },
	{ T("Thu, 01 Jan 1970 00:00:00 GMT"), 0, "the first second" },
	{ T("Wed, 31 Dec 1969 23:59:59 GMT"), 0, "before it" },
	{ T("Tue, 19 Jan 2038 14:14:08 GMT"), 2147523248, "more than 31 bits" },
	{ T("Fri, 31 Dec 9999 23:59:59 GMT"), 253402300799, "the last second" },
	{ T("Thursday, 18-Aug-50 02:01:18 GMT"), 2544400878, "24 years ahead" },
	{ T("Thursday, 18-Aug-94 02:01:18 GMT"), 777175278, "not 68 years ahead" },
	{ T("Sat, 31 Dec 2016 23:59:60 GMT"), 1483228799, "a leap second" },
	{ T("Mon, 29 Feb 2016 00:00:00 GMT"), 1456704000, "a leap day" },
	{ T("Sun, 29 Feb 2015 00:00:00 GMT"), -1, "no leap day" },
	{ T("Sun, 00 Sep 2001 01:46:40 GMT"), -1, "day 0" },
	{ T("Sun, 31 Sep 2001 01:46:40 GMT"), -1, "day 31 of 30" },
	{ T("Sun, 09 Sep 2001 24:00:00 GMT"), -1, "hour 24" },
	{ T("Sun, 09 Sep 2001 01:60:00 GMT"), -1, "minute 60" },
	{ T("Sun, 09 Sep 2001 01:46:61 GMT"), -1, "second 61" },
	{ T("Sun, 09 Sip 2001 01:46:40 GMT"), -1, "no month" },
	{ T("Sun, 09 anF 2001 01:46:40 GMT"), -1, "letters of two months" },
	{ T("Sun, 09 Sep 2001 01:46:40 UTC"), -1, "another zone" },
	{ T("Sun, 09 Sep 2001 01:46:40 +0000"), -1, "a numeric zone" },
	{ T("Sun, 09 Sep 2001 01:46:40"), -1, "no zone" },
	{ T("Sun, 09 Sep 01 01:46:40 GMT"), -1, "two digits of a year" },
	{ T("Sun, 09-Sep-01 01:46:40 GMT"), -1, "RFC 850 with a short day" },
	{ T("Sun, 09-Sep-2001 01:46:40 GMT"), -1, "dashes" },
	{ T("Sun 09 Sep 2001 01:46:40 GMT"), -1, "no comma" },
	{ T("Sun, 09  Sep  2001 01:46:40 GMT"), -1, "two blanks" },
	{ T("Sun, 9 Sep 2001 01:46:40 GMT"), -1, "one digit of a day" },
	{ T("Sun, 09 Sep 2001 1:46:40 GMT"), -1, "one digit of an hour" },
	{ T("Sun, 09 Sep 2001 01.46.40 GMT"), -1, "dots" },
	{ T("0"), -1, "a number" },
	{ T("-1"), -1, "a negative number" },
	{ T(""), -1, "nothing" },
	{ T(","), -1, "a comma" },
	{ T("Sun,"), -1, "a day" },
	{ T(" " LM), -1, "a blank before" },
};
/* clang-format on */

static void
test_dates(void **state)
{
	(void)state;
	now_s = TODAY;
	for (size_t i = 0; i < LEN(dates); i++)
		for (size_t n = 0; n <= dates[i].in.n; n++) {
			struct slice in = exact((struct slice){ dates[i].in.p, n });

			row_int(dates[i].why, in, "date_read", date_read(in),
			    n == dates[i].in.n ? dates[i].want : -1);
			exact_free(in);
		}
	rows_end();
}

static void
test_dates_written(void **state)
{
	char b[DATE_LEN + 1];

	(void)state;
	for (int i = 0; i < 10000; i++) {
		int64_t t = (int64_t)dice(1u << 24) * (1 + dice(15000));
		struct slice in = date_write(b, (time_t)t);
		row_int("written and read", in, "date_read", date_read(in), t);
	}
	rows_end();
}

/* clang-format off */
static const struct {
	struct slice in;
	int64_t max, want;
	const char *why;
} deltas[] = {
	{ T("0"), 100, 0, "nothing" },
	{ T("007"), 100, 7, "zeros before" },
	{ T("100"), 100, 100, "the greatest" },
	{ T("101"), 100, 100, "a greater one" },
	{ T("99999999999999999999999999999999"), INT64_MAX, INT64_MAX, "far too great" },
	{ T("99999999999999999999999x"), 100, -1, "a letter far behind" },
	{ T(""), 100, -1, "empty" },
	{ T("-1"), 100, -1, "negative" },
	{ T("+1"), 100, -1, "a sign" },
	{ T("1.0"), 100, -1, "a fraction" },
	{ T(" 1"), 100, -1, "a blank" },
};
/* clang-format on */

static void
test_deltas(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(deltas); i++)
		row_int(deltas[i].why, deltas[i].in, "delta_read",
		    delta_read(deltas[i].in, deltas[i].max), deltas[i].want);
	rows_end();
}

/* ---- conditions ---- */

#define L(name, value) name ": " value "\r\n"
#define INM(v)   L("If-None-Match", v)
#define IM(v)    L("If-Match", v)
#define IMS(v)   L("If-Modified-Since", v)
#define IUS(v)   L("If-Unmodified-Since", v)
#define RANGE    L("Range", "bytes=0-1")
#define IFR(v)   L("If-Range", v)

/* clang-format off */
static const struct {
	const char *method, *fields, *etag;
	int64_t modified_s;
	int want;
	const char *why;
} conditions[] = {
	{ "GET", "", "\"a\"", CHANGED, 200, "no conditions" },
	/* RFC 9110 13.1.2 */
	{ "GET", INM("\"a\""), "\"a\"", CHANGED, 304, "the same" },
	{ "HEAD", INM("\"a\""), "\"a\"", CHANGED, 304, "HEAD" },
	{ "PUT", INM("\"a\""), "\"a\"", CHANGED, 412, "a method that writes" },
	{ "GET", INM("\"b\""), "\"a\"", CHANGED, 200, "another" },
	{ "GET", INM("W/\"a\""), "\"a\"", CHANGED, 304, "weak here" },
	{ "GET", INM("\"a\""), "W/\"a\"", CHANGED, 304, "weak there" },
	{ "GET", INM("w/\"a\""), "W/\"a\"", CHANGED, 200, "a small w" },
	{ "GET", INM("\"b\", W/\"a\""), "\"a\"", CHANGED, 304, "a list" },
	{ "GET", INM("\"b\",,\t\"a\""), "\"a\"", CHANGED, 304, "an empty member" },
	{ "GET", INM("\"b\"\"a\""), "\"a\"", CHANGED, 304, "no comma" },
	{ "GET", INM("\"b\"") INM("\"a\""), "\"a\"", CHANGED, 304, "two lines" },
	{ "GET", INM("\"b,\"a\""), "\"a\"", CHANGED, 200, "malformed" },
	{ "GET", INM("\"a"), "\"a\"", CHANGED, 200, "no end" },
	{ "GET", INM("W/"), "\"a\"", CHANGED, 200, "a flag alone" },
	{ "GET", INM(""), "", -1, 200, "an empty one, and none" },
	{ "GET", INM("\"a,b\""), "\"a,b\"", CHANGED, 304, "a comma in it" },
	{ "GET", INM("a"), "a", CHANGED, 304, "without quotes, as it was said" },
	{ "GET", INM("a"), "\"a\"", CHANGED, 200, "without quotes" },
	{ "GET", INM("*"), "", -1, 304, "any" },
	{ "GET", INM("\"*\""), "\"a\"", CHANGED, 200, "a star as a tag" },
	{ "GET", INM("\"\""), "\"\"", CHANGED, 304, "an empty tag" },
	{ "GET", INM("\"\""), "", CHANGED, 200, "an empty tag, and none" },
	/* 13.1.3 */
	{ "GET", IMS(LM), "", CHANGED, 304, "not since" },
	{ "HEAD", IMS(LM), "", CHANGED, 304, "HEAD" },
	{ "GET", IMS(LM_LATER), "", CHANGED, 304, "not since later" },
	{ "GET", IMS(LM_EARLIER), "", CHANGED, 200, "since" },
	{ "GET", IMS("yesterday"), "", CHANGED, 200, "no date" },
	{ "GET", IMS(LM) IMS(LM), "", CHANGED, 200, "two" },
	{ "GET", IMS(LM), "", -1, 200, "nobody knows" },
	{ "POST", IMS(LM), "", CHANGED, 200, "a method that writes" },
	{ "GET", INM("\"b\"") IMS(LM), "\"a\"", CHANGED, 200, "If-None-Match goes before" },
	{ "GET", INM("\"a\"") IMS(LM_EARLIER), "\"a\"", CHANGED, 304, "also when it is met" },
	{ "GET", INM("\"b\"") IMS(LM), "", CHANGED, 200, "also when there is no tag" },
	/* 13.1.1, 13.1.4 */
	{ "GET", IM("\"a\""), "\"a\"", CHANGED, 200, "as expected" },
	{ "GET", IM("\"b\""), "\"a\"", CHANGED, 412, "not as expected" },
	{ "GET", IM("\"b\", \"a\""), "\"a\"", CHANGED, 200, "in a list" },
	{ "GET", IM("W/\"a\""), "W/\"a\"", CHANGED, 412, "weak ones are never the same" },
	{ "GET", IM("a"), "a", CHANGED, 412, "without quotes" },
	{ "GET", IM("*"), "", -1, 200, "anything" },
	{ "GET", IM("\"a\""), "", -1, 412, "no tag" },
	{ "GET", IUS(LM), "", CHANGED, 200, "unmodified" },
	{ "GET", IUS(LM_LATER), "", CHANGED, 200, "unmodified since later" },
	{ "GET", IUS(LM_EARLIER), "", CHANGED, 412, "modified" },
	{ "POST", IUS(LM_EARLIER), "", CHANGED, 412, "modified, any method" },
	{ "GET", IUS(LM_EARLIER), "", -1, 200, "nobody knows" },
	{ "GET", IUS("x"), "", CHANGED, 200, "no date" },
	{ "GET", IM("\"a\"") IUS(LM_EARLIER), "\"a\"", CHANGED, 200, "If-Match goes before" },
	{ "GET", IM("\"b\"") INM("\"a\""), "\"a\"", CHANGED, 412, "412 goes before 304" },
	{ "GET", IM("\"a\"") INM("\"a\""), "\"a\"", CHANGED, 304, "then 304" },
	{ "GET", IUS(LM_EARLIER) IMS(LM), "", CHANGED, 412, "so with dates" },
	/* 13.1.5 */
	{ "GET", RANGE, "\"a\"", CHANGED, 206, "a range" },
	{ "HEAD", RANGE, "\"a\"", CHANGED, 200, "a range for HEAD" },
	{ "POST", RANGE, "\"a\"", CHANGED, 200, "a range for POST" },
	{ "GET", RANGE RANGE, "\"a\"", CHANGED, 200, "two lines" },
	{ "GET", IFR("\"a\""), "\"a\"", CHANGED, 200, "If-Range without Range" },
	{ "GET", RANGE IFR("\"a\""), "\"a\"", CHANGED, 206, "the same" },
	{ "GET", RANGE IFR("\"b\""), "\"a\"", CHANGED, 200, "another" },
	{ "GET", RANGE IFR("W/\"a\""), "W/\"a\"", CHANGED, 200, "weak" },
	{ "GET", RANGE IFR("\"a\", \"a\""), "\"a\"", CHANGED, 200, "a list" },
	{ "GET", RANGE IFR("\"a\"") IFR("\"a\""), "\"a\"", CHANGED, 200, "two lines" },
	{ "GET", RANGE IFR(""), "", -1, 200, "empty, and none" },
	{ "GET", RANGE IFR(LM), "", CHANGED, 206, "the very date" },
	{ "GET", RANGE IFR(LM_LATER), "", CHANGED, 200, "a later date" },
	{ "GET", RANGE IFR(LM), "", -1, 200, "nobody knows" },
	{ "GET", RANGE IFR("x"), "", -1, 200, "no date, and none" },
	{ "GET", RANGE IFR("Mon, 21 Sep 2026 14:13:20 GMT"), "", TODAY, 200, "in this very second" },
	{ "GET", RANGE IFR("Mon, 21 Sep 2026 14:13:19 GMT"), "", TODAY - 1, 206, "a second ago" },
	{ "GET", RANGE INM("\"a\""), "\"a\"", CHANGED, 304, "304 goes before 206" },
	{ "GET", RANGE IFR("\"b\"") INM("\"a\""), "\"a\"", CHANGED, 304, "whatever If-Range" },
	{ "GET", RANGE IM("\"b\""), "\"a\"", CHANGED, 412, "412 goes before 206" },
};
/* clang-format on */

static void
test_conditions(void **state)
{
	static struct head h;
	char b[1024];

	(void)state;
	now_s = TODAY;
	for (size_t i = 0; i < LEN(conditions); i++) {
		struct slice in, etag = exact(slice_of(conditions[i].etag));

		snprintf(b, sizeof b, "%s / HTTP/1.1\r\nHost: a\r\n%s\r\n", conditions[i].method,
		    conditions[i].fields);
		in = exact(slice_of(b));
		row_int(conditions[i].why, in, "request_parse", request_parse(&h, in), (int)in.n);
		row_int(conditions[i].why, in, "conditions_check",
		    conditions_check(&h, etag, conditions[i].modified_s), conditions[i].want);
		exact_free(in);
		exact_free(etag);
	}
	rows_end();
}

/* ---- ranges ---- */

#define R16 "0-0,1-1,2-2,3-3,4-4,5-5,6-6,7-7,8-8,9-9,10-10,11-11,12-12,13-13,14-14,15-15"

/* clang-format off */
static const struct {
	struct slice in;
	uint64_t size;
	int want;
	const char *parts; /* first+n ... */
	const char *why;
} ranges[] = {
	{ T("bytes=0-0"), 10, 206, "0+1", "the first byte" },
	{ T("bytes=0-"), 10, 206, "0+10", "all" },
	{ T("bytes=9-"), 10, 206, "9+1", "the last byte" },
	{ T("bytes=2-5"), 10, 206, "2+4", "in the middle" },
	{ T("bytes=2-99"), 10, 206, "2+8", "beyond the end" },
	{ T("bytes=2-99999999999999999999999"), 10, 206, "2+8", "far beyond" },
	{ T("bytes=-3"), 10, 206, "7+3", "the last three" },
	{ T("bytes=-99"), 10, 206, "0+10", "more than there are" },
	{ T("bytes=-99999999999999999999999"), 10, 206, "0+10", "far more" },
	{ T("BYTES=0-1"), 10, 206, "0+2", "capitals; 14.1" },
	{ T("bytes=0-1,4-5"), 10, 206, "0+2 4+2", "two" },
	{ T("bytes= 4-5\t, ,0-1,"), 10, 206, "4+2 0+2", "as the client orders them, blanks" },
	{ T("bytes=0-1,20-30"), 10, 206, "0+2", "one of them is not there" },
	{ T("bytes=0-4,3-6"), 10, 206, "0+5 3+4", "overlapping a little" },
	{ T("bytes=0-4,5-"), 10, 206, "0+5 5+5", "all, in two parts" },
	{ T("bytes=" R16), 99, 206, "0+1 1+1 2+1 3+1 4+1 5+1 6+1 7+1 8+1 9+1 10+1 11+1 12+1 13+1 14+1 15+1",
	  "as many as are served" },
	{ T("bytes=" R16 ",20-20"), 99, 200, "", "one more" },
	{ T("bytes=" R16 ",200-"), 99, 200, "", "one more that is not there" },
	{ T("bytes=0-,0-"), 10, 200, "", "twice all" },
	{ T("bytes=0-5,0-5"), 10, 200, "", "more than all" },
	{ T("bytes=0-,-1"), 10, 200, "", "more than all, by a byte" },
	{ T("bytes=10-"), 10, 416, "", "behind the end" },
	{ T("bytes=10-12,99-"), 10, 416, "", "both" },
	{ T("bytes=99999999999999999999999-"), 10, 416, "", "far behind" },
	{ T("bytes=-0"), 10, 416, "", "the last none" },
	{ T("bytes=0-"), 0, 416, "", "of nothing" },
	{ T("bytes=-5"), 0, 200, "", "the last ones of nothing" },
	{ T("bytes=5-4"), 10, 200, "", "backwards: to be ignored" },
	{ T("bytes=20-19"), 10, 200, "", "backwards behind the end" },
	{ T("bytes=0-1,5-4"), 10, 200, "", "one is malformed" },
	{ T("bytes=0-1,x"), 10, 200, "", "one is none" },
	{ T("bytes=-"), 10, 200, "", "a dash" },
	{ T("bytes=--1"), 10, 200, "", "two dashes" },
	{ T("bytes=1"), 10, 200, "", "no dash" },
	{ T("bytes=0 - 1"), 10, 200, "", "blanks within" },
	{ T("bytes=+0-1"), 10, 200, "", "a sign" },
	{ T("bytes=0x1-2"), 10, 200, "", "hexadecimal" },
	{ T("bytes="), 10, 200, "", "no range" },
	{ T("bytes=,"), 10, 200, "", "empty ones" },
	{ T("bytes"), 10, 200, "", "a unit" },
	{ T("bytes 0-1"), 10, 200, "", "no =" },
	{ T("bytes =0-1"), 10, 200, "", "a blank before =" },
	{ T("items=0-1"), 10, 200, "", "another unit" },
	{ T("=0-1"), 10, 200, "", "no unit" },
	{ T(""), 10, 200, "", "empty" },
	{ T("bytes=9223372036854775807-"), UINT64_MAX, 206, "9223372036854775807+1", "the largest offset" },
};
/* clang-format on */

static void
test_ranges(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(ranges); i++) {
		struct slice in = exact(ranges[i].in);
		char b[512];
		struct text t = { b, 0, sizeof b, false };
		struct ranges r;
		uint64_t total = 0;
		int got = ranges_parse(&r, in, ranges[i].size);

		row_int(ranges[i].why, in, "ranges_parse", got, ranges[i].want);
		for (int k = 0; got == 206 && k < r.n; k++) {
			text_fmt(&t, "%s%llu+%llu", k ? " " : "", (unsigned long long)r.v[k].first,
			    (unsigned long long)r.v[k].n);
			total += r.v[k].n;
		}
		row_slice(ranges[i].why, in, "parts", text_slice(&t), slice_of(ranges[i].parts));
		if (got == 206)
			row_int(ranges[i].why, in, "total", (long long)r.total, (long long)total);
		exact_free(in);
	}
	rows_end();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dates),
		cmocka_unit_test(test_dates_written),
		cmocka_unit_test(test_deltas),
		cmocka_unit_test(test_conditions),
		cmocka_unit_test(test_ranges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
