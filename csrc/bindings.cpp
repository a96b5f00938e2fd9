// The only file that knows Python. The arguments are data pointers and sizes, which nlbench.ops has
// checked. A kernel on the CPU returns the fault that it found, and nlbench.ops raises the
// exception.
#include <pybind11/pybind11.h>

#include <string>

#include "cuda_build.h"  // written by CMake
#include "cuda_library.h"
#include "ops.h"

namespace py = pybind11;

namespace {

using Address = uintptr_t;  // torch.Tensor.data_ptr()

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// Packs fault and row into one integer (fault + 8 * row; 0 is no fault), so that the usual step
// creates no other Python object.
int64_t packed(nlbench::Outcome outcome) {
  return static_cast<int64_t>(outcome.fault) + 8 * outcome.row;
}

// Makes the struct from the arguments of both devices, which have its order.
nlbench::LossBatch loss_batch(int op, int logits_type, int targets_type, Address logits,
                              Address labels, Address soft_labels, Address index, Address targets,
                              Address dlogits, Address rows, int64_t B, int64_t C, int64_t N,
                              double beta, double lam, double scale, bool clamp) {
  return {static_cast<nlbench::Op>(op),
          static_cast<nlbench::Type>(logits_type),
          static_cast<nlbench::Type>(targets_type),
          at<const void>(logits),
          at<const int64_t>(labels),
          at<const void>(soft_labels),
          at<const int64_t>(index),
          at<void>(targets),
          at<void>(dlogits),
          at<void>(rows),
          B,
          C,
          N,
          beta,
          lam,
          scale,
          clamp};
}

int64_t loss_cpu(int op, int logits_type, int targets_type, Address logits, Address labels,
                 Address soft_labels, Address index, Address targets, Address dlogits, Address rows,
                 int64_t B, int64_t C, int64_t N, double beta, double lam, double scale, bool clamp,
                 int threads) {
  const nlbench::LossBatch batch =
      loss_batch(op, logits_type, targets_type, logits, labels, soft_labels, index, targets,
                 dlogits, rows, B, C, N, beta, lam, scale, clamp);
  py::gil_scoped_release unlocked;
  return packed(nlbench::loss_cpu(batch, threads));
}

std::string loss_cuda(int op, int logits_type, int targets_type, Address logits, Address labels,
                      Address soft_labels, Address index, Address targets, Address dlogits,
                      Address rows, int64_t B, int64_t C, int64_t N, double beta, double lam,
                      double scale, bool clamp, Address flags, int device, Address stream) {
  const nlbench::LossBatch batch =
      loss_batch(op, logits_type, targets_type, logits, labels, soft_labels, index, targets,
                 dlogits, rows, B, C, N, beta, lam, scale, clamp);
  py::gil_scoped_release unlocked;
  return nlbench::loss_cuda(batch, at<int32_t>(flags), device, at<void>(stream));
}

nlbench::AugmentBatch augment_batch(Address images, Address index, Address draws, Address table,
                                    Address out, int64_t B, int64_t N, int64_t H, int64_t W,
                                    int64_t padding, int pixel_bytes, bool planar) {
  return {at<const uint8_t>(images),
          at<const int64_t>(index),
          at<const int64_t>(draws),
          at<const void>(table),
          at<void>(out),
          B,
          N,
          H,
          W,
          padding,
          pixel_bytes,
          planar};
}

int64_t augment_cpu(Address images, Address index, Address draws, Address table, Address out,
                    int64_t B, int64_t N, int64_t H, int64_t W, int64_t padding, int pixel_bytes,
                    bool planar, int threads) {
  const nlbench::AugmentBatch batch =
      augment_batch(images, index, draws, table, out, B, N, H, W, padding, pixel_bytes, planar);
  py::gil_scoped_release unlocked;
  return packed(nlbench::augment_cpu(batch, threads));
}

std::string augment_cuda(Address images, Address index, Address draws, Address table, Address out,
                         int64_t B, int64_t N, int64_t H, int64_t W, int64_t padding,
                         int pixel_bytes, bool planar, Address flags, int device, Address stream) {
  const nlbench::AugmentBatch batch =
      augment_batch(images, index, draws, table, out, B, N, H, W, padding, pixel_bytes, planar);
  py::gil_scoped_release unlocked;
  return nlbench::augment_cuda(batch, at<int32_t>(flags), device, at<void>(stream));
}

nlbench::StrongBatch strong_batch(Address images, Address index, Address examples, Address draws,
                                  Address policy, Address table, Address out, Address scratch,
                                  int64_t B, int64_t N, int64_t H, int64_t W, int64_t padding,
                                  uint64_t seed, int rounds, int entries, int slots, int strengths,
                                  int pixel_bytes, bool planar, bool crop_first, bool reflect) {
  return {at<const uint8_t>(images),
          at<const int64_t>(index),
          at<const int64_t>(examples),
          at<const int64_t>(draws),
          at<const double>(policy),
          at<const void>(table),
          at<void>(out),
          at<uint8_t>(scratch),
          B,
          N,
          H,
          W,
          padding,
          seed,
          rounds,
          entries,
          slots,
          strengths,
          pixel_bytes,
          planar,
          crop_first,
          reflect};
}

int64_t strong_cpu(Address images, Address index, Address examples, Address draws, Address policy,
                   Address table, Address out, Address scratch, int64_t B, int64_t N, int64_t H,
                   int64_t W, int64_t padding, uint64_t seed, int rounds, int entries, int slots,
                   int strengths, int pixel_bytes, bool planar, bool crop_first, bool reflect,
                   int threads) {
  const nlbench::StrongBatch batch = strong_batch(
      images, index, examples, draws, policy, table, out, scratch, B, N, H, W, padding, seed,
      rounds, entries, slots, strengths, pixel_bytes, planar, crop_first, reflect);
  py::gil_scoped_release unlocked;
  return packed(nlbench::strong_cpu(batch, threads));
}

std::string strong_cuda(Address images, Address index, Address examples, Address draws,
                        Address policy, Address table, Address out, Address scratch, int64_t B,
                        int64_t N, int64_t H, int64_t W, int64_t padding, uint64_t seed, int rounds,
                        int entries, int slots, int strengths, int pixel_bytes, bool planar,
                        bool crop_first, bool reflect, Address flags, int device, Address stream) {
  const nlbench::StrongBatch batch = strong_batch(
      images, index, examples, draws, policy, table, out, scratch, B, N, H, W, padding, seed,
      rounds, entries, slots, strengths, pixel_bytes, planar, crop_first, reflect);
  py::gil_scoped_release unlocked;
  return nlbench::strong_cuda(batch, at<int32_t>(flags), device, at<void>(stream));
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() =
      "Compiled kernels of nlbench. nlbench.ops is their only caller: it checks what they trust.";
  m.attr("source_hash") = NLBENCH_SOURCE_HASH;

  m.def("loss_cpu", loss_cpu);
  m.def("loss_cuda", loss_cuda);
  m.def("load_cuda", nlbench::load_cuda);
  // Why the build has no CUDA kernels; "" if it has them.
  m.attr("cuda_build") = kWhyNoCuda;
  m.attr("cuda_architectures") = kCudaArchitectures;
  m.def("isa", nlbench::isa);
  m.def("set_isa", nlbench::set_isa);
  m.def("has_threads", nlbench::has_threads);

  m.def("augment_cpu", augment_cpu);
  m.def("augment_cuda", augment_cuda);
  m.def("strong_cpu", strong_cpu);
  m.def("strong_cuda", strong_cuda);
  m.attr("SHARED_VALUES") = nlbench::kSharedValues;

  m.attr("LABEL_RANGE") = static_cast<int>(nlbench::Fault::label_range);
  m.attr("INDEX_RANGE") = static_cast<int>(nlbench::Fault::index_range);
  m.attr("INDEX_REPEATED") = static_cast<int>(nlbench::Fault::index_repeated);
  m.attr("DRAW_RANGE") = static_cast<int>(nlbench::Fault::draw_range);
  m.attr("FLAGS") = nlbench::kFlags;
}
