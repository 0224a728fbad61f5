/* A clock that runs as fast as a test wishes, loaded before the C library into a program that knows nothing of it.
 *
 * HURRY_FILE names the phases, in order: since when, in nanoseconds of the machine's CLOCK_MONOTONIC, the clocks run at
 * which speed; a speed of 0 ends them. The test adds phases while the program runs (hurry.rs).
 *
 * Scaled is what the agent's timers rest on: clock_gettime, the time-out of epoll_wait, and that of the futex on which an
 * idle thread waits for work. A wait that a new phase overtakes may end early; whoever waits asks the clock again.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SECOND INT64_C(1000000000)
#define MOST 16

struct phase {
    volatile int64_t since, speed;
};

static const struct phase none[MOST];
static const struct phase *phases = none;
static int (*real_gettime)(clockid_t, struct timespec *);
static long (*real_syscall)(long, ...);

__attribute__((constructor)) static void begin(void)
{
    real_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    real_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    const char *path = getenv("HURRY_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *there = mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (there != MAP_FAILED)
        phases = there;
}

static int64_t nanos(const struct timespec *time)
{
    return time->tv_sec * SECOND + time->tv_nsec;
}

static struct timespec timespec(int64_t nanos)
{
    return (struct timespec){.tv_sec = nanos / SECOND, .tv_nsec = nanos % SECOND};
}

/* How far the clocks are ahead of the machine's now, and how fast they run. */
static int64_t ahead(int64_t *speed)
{
    struct timespec time;
    real_gettime(CLOCK_MONOTONIC, &time);
    int64_t now = nanos(&time), sum = 0;
    *speed = 1;
    for (int i = 0; i < MOST && phases[i].speed; i++) {
        int64_t end = i + 1 < MOST && phases[i + 1].speed ? phases[i + 1].since : now;
        sum += (end - phases[i].since) * (phases[i].speed - 1);
        *speed = phases[i].speed;
    }
    return sum;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int64_t speed;
    int status = real_gettime(clock, time);
    if (status == 0 && clock != CLOCK_PROCESS_CPUTIME_ID && clock != CLOCK_THREAD_CPUTIME_ID)
        *time = timespec(nanos(time) + ahead(&speed));
    return status;
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
    int64_t speed;
    ahead(&speed);
    struct timespec wait = timespec(timeout * (SECOND / 1000) / speed);
    /* To the nanosecond: a time-out that is cut to whole milliseconds would turn a short wait into a busy loop. */
    return (int)real_syscall(SYS_epoll_pwait2, epoll, events, most, timeout < 0 ? NULL : &wait, NULL, 8L);
}

/* Rust's standard library waits until an instant of CLOCK_MONOTONIC: the one that was read above. */
long syscall(long number, ...)
{
    long of[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        of[i] = va_arg(list, long);
    va_end(list);
    struct timespec until;
    int bitset = number == SYS_futex && (of[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET;
    if (bitset && !(of[1] & FUTEX_CLOCK_REALTIME) && of[3]) {
        int64_t speed, lead = ahead(&speed);
        struct timespec now;
        real_gettime(CLOCK_MONOTONIC, &now);
        int64_t left = nanos((const struct timespec *)of[3]) - lead - nanos(&now);
        until = timespec(nanos(&now) + (left > 0 ? left / speed : 0));
        of[3] = (long)&until;
    }
    return real_syscall(number, of[0], of[1], of[2], of[3], of[4], of[5]);
}
