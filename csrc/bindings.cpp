// The only file that knows Python. Arguments are data pointers and sizes that nlbench.ops has checked; each function
// returns (fault, row), which nlbench.ops turns into an exception.
#include <pybind11/pybind11.h>

#include <utility>

#include "ops.h"

namespace py = pybind11;

namespace {

using Address = uintptr_t;  // torch.Tensor.data_ptr()

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

template <class Logit, class Target>
std::pair<int, int64_t> elr_step(Address logits, Address labels, Address index, Address targets, Address dlogits,
                                 Address rows, int64_t B, int64_t C, int64_t N, double beta, double lam, double scale) {
  const nlbench::ElrRows<Logit, Target> batch{at<const Logit>(logits),
                                              at<const int64_t>(labels),
                                              at<const int64_t>(index),
                                              at<Target>(targets),
                                              at<Logit>(dlogits),
                                              at<Logit>(rows),
                                              B,
                                              C,
                                              N,
                                              beta,
                                              lam,
                                              scale};
  py::gil_scoped_release unlocked;
  const nlbench::Outcome outcome = nlbench::elr_step_cpu(batch);
  return {static_cast<int>(outcome.fault), outcome.row};
}

template <class Pixel>
std::pair<int, int64_t> augment(Address images, Address index, Address draws, Address table, Address out, int64_t B,
                                int64_t N, int64_t H, int64_t W, int64_t padding) {
  const nlbench::AugmentRows<Pixel> batch{at<const uint8_t>(images),
                                          at<const int64_t>(index),
                                          at<const int64_t>(draws),
                                          at<const Pixel>(table),
                                          at<Pixel>(out),
                                          B,
                                          N,
                                          H,
                                          W,
                                          padding};
  py::gil_scoped_release unlocked;
  const nlbench::Outcome outcome = nlbench::augment_cpu(batch);
  return {static_cast<int>(outcome.fault), outcome.row};
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "Compiled kernels of nlbench. nlbench.ops is their only caller: it checks what they trust.";
  m.attr("source_hash") = NLBENCH_SOURCE_HASH;

  // Named by the types of logits and targets.
  m.def("elr_step_f32_f32", elr_step<float, float>);
  m.def("elr_step_f32_f64", elr_step<float, double>);
  m.def("elr_step_f64_f32", elr_step<double, float>);
  m.def("elr_step_f64_f64", elr_step<double, double>);

  // Named by the bytes of a pixel.
  m.def("augment_2", augment<uint16_t>);
  m.def("augment_4", augment<uint32_t>);
  m.def("augment_8", augment<uint64_t>);

  m.attr("LABEL_RANGE") = static_cast<int>(nlbench::Fault::label_range);
  m.attr("INDEX_RANGE") = static_cast<int>(nlbench::Fault::index_range);
  m.attr("INDEX_REPEATED") = static_cast<int>(nlbench::Fault::index_repeated);
  m.attr("DRAW_RANGE") = static_cast<int>(nlbench::Fault::draw_range);
}
