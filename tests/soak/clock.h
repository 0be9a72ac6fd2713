/* For build/warp-clock: its wall clock is so many seconds away as the file $SOAK_CLOCK says, which soak.py changes while
 * warp runs. Nothing else is moved: a clock that somebody sets leaves the monotonic one alone too. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const int32_t *volatile soak_away;

__attribute__((constructor)) static void
soak_clock(void)
{
	const char *path = getenv("SOAK_CLOCK");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *soak_away, PROT_READ, MAP_SHARED, fd, 0);

	if (p != MAP_FAILED)
		soak_away = p;
	if (fd >= 0)
		close(fd);
}

static int
soak_gettime(clockid_t clock, struct timespec *t)
{
	int r = clock_gettime(clock, t);

	if (soak_away && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		t->tv_sec += *(const volatile int32_t *)soak_away;
	return r;
}

static time_t
soak_time(time_t *p)
{
	struct timespec t;

	soak_gettime(CLOCK_REALTIME, &t);
	if (p)
		*p = t.tv_sec;
	return t.tv_sec;
}

#define clock_gettime soak_gettime
#define time(p)       soak_time(p)
