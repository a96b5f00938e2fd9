// The CUDA sources without a GPU: the threads of a block as coroutines that take turns, so that
// each shuffle and each barrier is a turn. It shows that the kernels index, reduce and dispatch as
// they must; it says nothing of their speed or of what nvcc makes of them.
#include <ucontext.h>

#include <cstring>

#define __CUDACC__
#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(threads)

struct Dim {
  unsigned x;
};
Dim threadIdx, blockIdx;

namespace {

constexpr int kMostThreads = 256;
ucontext_t scheduler, threads[kMostThreads];
alignas(16) char stacks[kMostThreads][64 * 1024];
bool done[kMostThreads];
char slots[kMostThreads][16];

void wait_for_the_others() {
  const unsigned me = threadIdx.x;
  swapcontext(&threads[me], &scheduler);
  threadIdx.x = me;
}

}  // namespace

void __syncthreads() { wait_for_the_others(); }

template <class X>
X __shfl_xor_sync(unsigned, X value, int step) {
  const unsigned me = threadIdx.x;
  std::memcpy(slots[me], &value, sizeof value);
  wait_for_the_others();
  std::memcpy(&value, slots[me ^ step], sizeof value);
  wait_for_the_others();
  return value;
}

// The threads take turns at barriers alone, so that nothing comes between the parts of an addition.
template <class X>
X atomicAdd(X* to, X value) {
  const X before = *to;
  *to += value;
  return before;
}

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess };
cudaError_t cudaGetDevice(int*) { return cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return ""; }

template <class Kernel>
struct Launch {
  Kernel kernel;
  unsigned blocks, count;

  template <class Batch>
  void operator()(const Batch& batch, int* flags) const {
    static const Launch* launch;
    static const Batch* given;
    static int* marks;
    launch = this, given = &batch, marks = flags;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
      for (unsigned i = 0; i < count; ++i) {
        done[i] = false;
        getcontext(&threads[i]);
        threads[i].uc_stack.ss_sp = stacks[i];
        threads[i].uc_stack.ss_size = sizeof stacks[i];
        threads[i].uc_link = &scheduler;
        makecontext(
            &threads[i],
            +[] {
              const unsigned me = threadIdx.x;
              launch->kernel(*given, marks);
              done[me] = true;
            },
            0);
      }
      for (bool left = true; left;) {
        left = false;
        for (unsigned i = 0; i < count; ++i) {
          if (done[i]) continue;
          threadIdx.x = i;
          swapcontext(&scheduler, &threads[i]);
          left = left || !done[i];
        }
      }
    }
  }
};
template <class Kernel>
Launch<Kernel> make_launch(Kernel kernel, unsigned blocks, unsigned count) {
  return {kernel, blocks, count};
}
#define NLBENCH_LAUNCH(kernel, blocks, threads, stream) make_launch(kernel, blocks, threads)

#include "../../csrc/augment.cu"
#include "../../csrc/losses.cu"
#include "../../csrc/strong.cu"
#include "batches.h"

using namespace nlbench;

namespace {

const LossBatch* at(Data& data) {
  static LossBatch batch;
  batch = data.batch();
  return &batch;
}

void fail(const char* what, const Pictures& of) {
  std::fprintf(stderr, "images: %s: H %lld, W %lld, padding %lld, bytes %d, planar %d\n", what,
               (long long)of.H, (long long)of.W, (long long)of.padding, of.pixel_bytes,
               int(of.planar));
  std::exit(1);
}

void launch_augment(Pictures& pictures, int* flags) {
  static AugmentBatch batch;
  batch = pictures.batch();
  if (nlbench_augment_cuda(&batch, flags, 0, nullptr) != nullptr) fail("not launched", pictures);
}

// An image is NaN throughout, which are all bits but the sign, or equals another.
bool is_spoilt(const Pictures& of, const Pictures& want, int64_t b) {
  const size_t size = of.out.size() / of.B;
  const char *got = &of.out[b * size], *good = &want.out[b * size];
  if (std::memcmp(got, good, size) == 0) return false;
  for (size_t i = 0; i < size; ++i) {
    const bool top = i % of.pixel_bytes == size_t(of.pixel_bytes) - 1;
    if (uint8_t(got[i]) != (top ? 0x7f : 0xff)) fail("neither the image nor NaN", of);
  }
  return true;
}

int augmentation() {
  int count = 0;
  each_picture([&](const Pictures& of) {
    Pictures gpu = of, cpu = of;
    int flags[kFlags] = {};
    launch_augment(gpu, flags);
    augment_cpu(cpu.batch(), 1);
    if (gpu.out != cpu.out) fail("images differ", of);
    if (flags[kAugmentFlag] != 0) fail("a mark without a fault", of);
    ++count;

    if (of.draws.empty()) return;
    Pictures bad = of;  // a fault spoils its image alone
    bad.draws[3 * of.index[0] + 2] = 2;
    bad.index[4] = of.N;
    launch_augment(bad, flags);
    for (int64_t b = 0; b < of.B; ++b) {
      if (is_spoilt(bad, cpu, b) != (b == 0 || b == 4)) fail("NaN in the wrong place", of);
    }
    if (flags[kAugmentFlag] == 0) fail("no mark", of);
    for (int i = 0; i < kAugmentFlag; ++i) {
      if (flags[i] != 0) fail("another op's mark", of);
    }
  });
  return count;
}

void launch_strong(Views& views, uint64_t seed, int* flags) {
  static StrongBatch batch;
  batch = views.batch(seed);
  if (nlbench_strong_cuda(&batch, flags, 0, nullptr) != nullptr) {
    fail("not launched", views.pictures);
  }
}

int strong_views() {
  int count = 0;
  each_view([&](const Views& of) {
    Views gpu = of, cpu = of, other = of;
    int flags[kFlags] = {};
    launch_strong(gpu, 0x123456789ABCDEF0 + count, flags);
    strong_cpu(cpu.batch(0x123456789ABCDEF0 + count), 1);
    if (gpu.pictures.out != cpu.pictures.out) fail("views differ", of.pictures);
    // Blocks run one after another here, so that only an untouched part shows a shared one.
    const size_t part = gpu.scratch.size() / of.pictures.B;
    for (size_t b = 0; part != 0 && b < size_t(of.pictures.B); ++b) {
      const auto begin = gpu.scratch.begin() + b * part;
      if (std::count(begin, begin + part / 2, 0) == int64_t(part / 2))
        fail("a block has no scratch of its own", of.pictures);
    }
    if (flags[kStrongFlag] != 0) fail("a mark without a fault", of.pictures);
    strong_cpu(other.batch(0x123456789ABCDEF0), 1);
    if (count > 0 && of.pictures.H > 9 && other.pictures.out == cpu.pictures.out)
      fail("the seed does not count", of.pictures);
    ++count;

    if (of.pictures.draws.empty()) return;
    Views bad = of;  // a fault spoils its image alone
    bad.pictures.draws[3 * of.pictures.index[0] + 2] = 2;
    bad.pictures.index[4] = -1;
    launch_strong(bad, 0x123456789ABCDEF0 + count - 1, flags);
    for (int64_t b = 0; b < of.pictures.B; ++b) {
      if (is_spoilt(bad.pictures, cpu.pictures, b) != (b == 0 || b == 4))
        fail("NaN in the wrong place", of.pictures);
    }
    if (flags[kStrongFlag] == 0) fail("no mark", of.pictures);
    for (int i = 0; i < kStrongFlag; ++i) {
      if (flags[i] != 0) fail("another op's mark", of.pictures);
    }
  });
  return count;
}

}  // namespace

int main() {
  int count = augmentation() + strong_views();
  set_isa("portable");
  each_case({{1, 1}, {9, 10}, {3, 33}, {2, 100}, {1, 513}, {2, 1000}}, [&](const Case& of) {
    Data gpu(of, 5), cpu(of, 5), again(of, 5);
    int flags[kFlags] = {};
    if (nlbench_loss_cuda(at(gpu), flags, 0, nullptr) != nullptr) fail("not launched", of);
    nlbench_loss_cuda(at(again), flags, 0, nullptr);
    loss_cpu(cpu.batch(), 1);
    const double tolerance = of.logits_type == Type::bfloat16 ? 1e-2 : of.size > 1 ? 1e-3 : 1e-5;
    if (!close(gpu.rows, cpu.rows, 1e-5)) fail("losses differ", of);
    if (!close(gpu.dlogits, cpu.dlogits, tolerance)) fail("gradients differ", of);
    if (!close(gpu.targets, cpu.targets, 1e-5)) fail("targets differ", of);
    if (gpu.rows.bytes != again.rows.bytes || gpu.dlogits.bytes != again.dlogits.bytes)
      fail("two runs differ", of);
    for (int flag : flags) {
      if (flag != 0) fail("a mark without a fault", of);
    }
    ++count;
  });

  // A fault spoils its row alone.
  for (int64_t C : {10, 600}) {
    const Case of{Op::elr, Type::float32, Type::float32, 5, C, 8, 1.0, true};
    Data bad(of, 2), good(of, 2);
    int flags[kFlags] = {};
    bad.labels[1] = C;
    bad.index[3] = -1;
    nlbench_loss_cuda(at(bad), flags, 0, nullptr);
    if (flags[0] == 0) fail("no mark", of);
    std::memset(flags, 0, sizeof flags);
    nlbench_loss_cuda(at(good), flags, 0, nullptr);
    for (int64_t b = 0; b < of.B; ++b) {
      const bool spoilt = b == 1 || b == 3;
      if (std::isnan(bad.rows.at(b)) != spoilt) fail("NaN in the wrong place", of);
      for (int64_t c = 0; c < C; ++c) {
        const double want = spoilt ? 0 : good.dlogits.at(b * C + c);
        if (bad.dlogits.at(b * C + c) != want) fail("gradient of a batch with faults", of);
      }
    }
  }
  std::printf("%d batches\nall done\n", count);
}
