/* A disk that takes no more: preloaded into a process, it lets the n-th write below a folder fail.

   Counted are what needs space on a disk: to open a file for writing or a new one, write, fsync,
   rename, mkdir. It stands between the program and the C library, so that it reaches what Python,
   NumPy and torch write alike.

     cc -shared -fPIC -O1 -o full_disk.so full_disk.c -ldl
     LD_PRELOAD=./full_disk.so DISK_ROOT=/folder DISK_AT=7 DISK_ERRNO=28 DISK_STAYS=1 program

   A program that loads it with ctypes calls disk_arm instead. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST_FILES 65536

static char root[PATH_MAX];
static long fail_at; /* the first one is 1; 0 for none */
static long counted;
static int failing_errno = ENOSPC;
static int stays; /* the disk stays full */
static char watched[MOST_FILES];

void disk_arm(const char* folder, long at, int number, int stay) {
  strncpy(root, folder, sizeof root - 1);
  fail_at = at;
  counted = 0;
  failing_errno = number;
  stays = stay;
}

long disk_counted(void) { return counted; }

__attribute__((constructor)) static void begin(void) {
  const char* folder = getenv("DISK_ROOT");
  const char* at = getenv("DISK_AT");
  if (!folder || !at) return;
  const char* number = getenv("DISK_ERRNO");
  const char* stay = getenv("DISK_STAYS");
  disk_arm(folder, atol(at), number ? atoi(number) : ENOSPC, stay ? atoi(stay) : 0);
}

static int is_below(const char* path) {
  size_t length = strlen(root);
  return length && path && strncmp(path, root, length) == 0;
}

/* Count one operation. Returns whether it fails; errno is set then. */
static int fails(void) {
  long number = __sync_add_and_fetch(&counted, 1);
  if (!fail_at || (stays ? number < fail_at : number != fail_at)) return 0;
  errno = failing_errno;
  return 1;
}

static int is_watched(int file) { return file >= 0 && file < MOST_FILES && watched[file]; }

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int note(int file, const char* path) {
  if (file >= 0 && file < MOST_FILES) watched[file] = is_below(path);
  return file;
}

static int needs_space(int flags) {
  return (flags & (O_WRONLY | O_RDWR | O_CREAT)) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
}

#define OPENING(name)                                               \
  int name(const char* path, int flags, ...) {                      \
    va_list more;                                                   \
    va_start(more, flags);                                          \
    mode_t mode = va_arg(more, mode_t);                             \
    va_end(more);                                                   \
    if (is_below(path) && needs_space(flags) && fails()) return -1; \
    return note(REAL(name)(path, flags, mode), path);               \
  }

#define OPENING_AT(name)                                            \
  int name(int folder, const char* path, int flags, ...) {          \
    va_list more;                                                   \
    va_start(more, flags);                                          \
    mode_t mode = va_arg(more, mode_t);                             \
    va_end(more);                                                   \
    if (is_below(path) && needs_space(flags) && fails()) return -1; \
    return note(REAL(name)(folder, path, flags, mode), path);       \
  }

OPENING(open)
OPENING(open64)
OPENING_AT(openat)
OPENING_AT(openat64)

ssize_t write(int file, const void* data, size_t size) {
  if (is_watched(file) && fails()) return -1;
  return REAL(write)(file, data, size);
}

ssize_t writev(int file, const struct iovec* parts, int count) {
  if (is_watched(file) && fails()) return -1;
  return REAL(writev)(file, parts, count);
}

int fsync(int file) {
  if (is_watched(file) && fails()) return -1;
  return REAL(fsync)(file);
}

int close(int file) {
  if (is_watched(file)) watched[file] = 0;
  return REAL(close)(file);
}

int rename(const char* from, const char* to) {
  if (is_below(to) && fails()) return -1;
  return REAL(rename)(from, to);
}

int mkdir(const char* path, mode_t mode) {
  if (is_below(path) && fails()) return -1;
  return REAL(mkdir)(path, mode);
}
