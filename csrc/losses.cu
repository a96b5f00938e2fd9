// The losses on a GPU, in one launch per step: a warp per row for few classes, a block per row for
// many. cuda_library.h has the contract.
#include "cuda_lanes.h"
#include "cuda_launch.h"
#include "cuda_library.h"

namespace nlbench {
namespace {

constexpr int kWarps = 8;  // of a block
// Up to this many classes a row is the work of one warp.
constexpr int64_t kClassesPerWarp = 512;

// Skips the row, but defines all its outputs.
template <class Real, class Z>
__device__ void refuse_row(const LossBatch& batch, int64_t b, Fault fault, int32_t* flags,
                           int thread, int threads) {
  if (thread == 0) {
    flags[int(batch.op)] = int(fault);
    if (batch.rows != nullptr) static_cast<Real*>(batch.rows)[b] = Real(NAN);
  }
  if (batch.dlogits == nullptr) return;
  Z* grad = static_cast<Z*>(batch.dlogits) + b * batch.C;
  for (int64_t c = thread; c < batch.C; c += threads) grad[c] = Z{};
}

template <Op op, class Z, class T, int width, int warps>
__global__ void __launch_bounds__(32 * kWarps) loss_kernel(LossBatch batch, int32_t* flags) {
  using Real = std::conditional_t<std::is_same_v<Z, double>, double, float>;
  using G = CudaLanes<Real, width, warps>;
  constexpr int rows_per_block = kWarps / warps;
  __shared__ double shared[8 * kWarps];
  const int64_t b = int64_t(blockIdx.x) * rows_per_block + threadIdx.x / G::kThreads;
  // Only whole warps return here, and never a part of a block that shares a row.
  if (b >= batch.B) return;
  G group{int(threadIdx.x) % G::kThreads, shared};

  if constexpr (op != Op::elr_soft) {
    Fault fault = Fault::none;
    if (op == Op::elr && uint64_t(batch.labels[b]) >= uint64_t(batch.C)) fault = Fault::label_range;
    if (uint64_t(batch.index[b]) >= uint64_t(batch.N)) fault = Fault::index_range;
    if (fault != Fault::none)
      return refuse_row<Real, Z>(batch, b, fault, flags, group.thread, G::kThreads);
  }

  const int64_t C = batch.C;
  const Z* z = static_cast<const Z*>(batch.logits) + b * C;
  T* t = static_cast<T*>(batch.targets) + (op == Op::elr_soft ? b : batch.index[b]) * C;
  Z* grad = batch.dlogits == nullptr ? nullptr : static_cast<Z*>(batch.dlogits) + b * C;
  double loss = 0;
  if constexpr (op == Op::elr) {
    loss = elr_row(group, z, HardLabel{batch.labels[b]}, t, grad, C, batch.beta, batch.lam,
                   batch.scale);
  } else if constexpr (op == Op::elr_soft) {
    const SoftLabel<T> label{static_cast<const T*>(batch.soft_labels) + b * C};
    loss = elr_row(group, z, label, t, grad, C, 1.0, batch.lam, batch.scale);
  } else if constexpr (op == Op::alr) {
    loss = alr_row(group, z, t, grad, C, batch.beta, batch.lam, batch.scale);
  } else {
    update_row(group, z, t, C, batch.beta, batch.clamp);
  }
  if (op != Op::update_targets && group.thread == 0) static_cast<Real*>(batch.rows)[b] = Real(loss);
}

template <Op op, class Z, class T, int width>
void launch(const LossBatch& batch, int32_t* flags, cudaStream_t stream) {
  if (batch.C <= kClassesPerWarp) {
    const auto kernel = loss_kernel<op, Z, T, width, 1>;
    NLBENCH_LAUNCH(kernel, unsigned((batch.B + kWarps - 1) / kWarps), 32 * kWarps, stream)(batch,
                                                                                           flags);
  } else {
    const auto kernel = loss_kernel<op, Z, T, width, kWarps>;
    NLBENCH_LAUNCH(kernel, unsigned(batch.B), 32 * kWarps, stream)(batch, flags);
  }
}

template <Op op, class Z, class T>
void launch_widest(const LossBatch& batch, int32_t* flags, cudaStream_t stream) {
  // A null pointer counts as aligned, since it is not used.
  if constexpr (std::is_same_v<T, float> && !std::is_same_v<Z, double>) {
    if (batch.C % 4 == 0 && aligned(batch.logits, 4 * sizeof(Z)) &&
        aligned(batch.dlogits, 4 * sizeof(Z)) && aligned(batch.targets, 16) &&
        aligned(batch.soft_labels, 16)) {
      return launch<op, Z, T, 4>(batch, flags, stream);
    }
  }
  launch<op, Z, T, 1>(batch, flags, stream);
}

template <Op op, class Z>
void launch_targets(const LossBatch& batch, int32_t* flags, cudaStream_t stream) {
  if (batch.targets_type == Type::float32) return launch_widest<op, Z, float>(batch, flags, stream);
  launch_widest<op, Z, double>(batch, flags, stream);
}

template <Op op>
void launch_op(const LossBatch& batch, int32_t* flags, cudaStream_t stream) {
  if (batch.logits_type == Type::float32) return launch_targets<op, float>(batch, flags, stream);
  if (batch.logits_type == Type::bfloat16)
    return launch_targets<op, BFloat16>(batch, flags, stream);
  launch_targets<op, double>(batch, flags, stream);
}

void launch_any(const LossBatch& batch, int32_t* flags, cudaStream_t stream) {
  switch (batch.op) {
    case Op::elr:
      return launch_op<Op::elr>(batch, flags, stream);
    case Op::elr_soft:
      return launch_op<Op::elr_soft>(batch, flags, stream);
    case Op::alr:
      return launch_op<Op::alr>(batch, flags, stream);
    case Op::update_targets:
      return launch_op<Op::update_targets>(batch, flags, stream);
  }
}

}  // namespace
}  // namespace nlbench

NLBENCH_EXPORT const char* nlbench_loss_cuda(const nlbench::LossBatch* batch, int32_t* flags,
                                             int device, void* stream) {
  if (batch->B == 0 || batch->C == 0) return nullptr;
  if (batch->B > 0x7FFFFFFF) return "more than 2^31 - 1 rows";
  return nlbench::on_device(
      device, [&] { nlbench::launch_any(*batch, flags, static_cast<cudaStream_t>(stream)); });
}

NLBENCH_EXPORT const char* nlbench_source_hash() { return NLBENCH_SOURCE_HASH; }
