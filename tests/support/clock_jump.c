/* A clock that jumps: preloaded into a program, the time of day jumps while the program runs.

     cc -shared -fPIC -O1 -o clock_jump.so clock_jump.c -ldl
     LD_PRELOAD=./clock_jump.so CLOCK_JUMP=-3600 CLOCK_AFTER=5 program

   From the moment on at which the machine has been up for CLOCK_UP seconds, the time of day is
   CLOCK_JUMP seconds later; without CLOCK_UP, CLOCK_AFTER seconds after the program has started.
   The monotonic clock and the times of files stay as they are. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static double up_then = -1;
static long jump;

static double up(void) {
  struct timespec now;
  REAL(clock_gettime)(CLOCK_MONOTONIC, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

__attribute__((constructor)) static void begin(void) {
  const char* seconds = getenv("CLOCK_JUMP");
  const char* when = getenv("CLOCK_UP");
  const char* after = getenv("CLOCK_AFTER");
  if (!seconds) return;
  jump = atol(seconds);
  up_then = when ? atof(when) : up() + (after ? atof(after) : 0);
}

static long shift(void) { return up_then >= 0 && up() >= up_then ? jump : 0; }

int clock_gettime(clockid_t clock, struct timespec* now) {
  int result = REAL(clock_gettime)(clock, now);
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += shift();
  return result;
}

int gettimeofday(struct timeval* restrict now, void* restrict zone) {
  int result = REAL(gettimeofday)(now, zone);
  now->tv_sec += shift();
  return result;
}

time_t time(time_t* out) {
  time_t now = REAL(time)(NULL) + shift();
  if (out) *out = now;
  return now;
}
