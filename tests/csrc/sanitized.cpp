// Runs the CPU kernels on arrays that end where they must, for AddressSanitizer and UndefinedBehaviorSanitizer to
// watch. Each instruction set that the processor has is compared with the portable one.
#include <cstring>

#include "batches.h"

using namespace nlbench;

namespace {

void losses() {
  const std::vector<std::pair<int64_t, int64_t>> shapes = {
      {0, 3},  {1, 1},  {3, 2},   {2, 7},   {2, 8},    {3, 10},   {2, 16},   {2, 17},
      {5, 31}, {3, 33}, {2, 100}, {1, 257}, {1, 2032}, {1, 2049}, {1, 5000}, {700, 60}};
  for (const char* name : {"portable", "avx2", "avx512"}) {
    if (!set_isa(name)) {
      std::printf("%s: not on this processor\n", name);
      continue;
    }
    int count = 0;
    each_case(shapes, [&](const Case& of) {
      Data data(of, 7), portable(of, 7);
      set_isa(name);
      if (loss_cpu(data.batch(), 2).fault != Fault::none) fail("refused", of);
      set_isa("portable");
      loss_cpu(portable.batch(), 1);
      const double tolerance = of.logits_type == Type::bfloat16 ? 1e-2 : 1e-4;
      if (!close(data.rows, portable.rows, 1e-5) || !close(data.dlogits, portable.dlogits, tolerance) ||
          !close(data.targets, portable.targets, 1e-5)) {
        fail(name, of);
      }
      ++count;
    });
    std::printf("%s: %d batches\n", name, count);
  }
}

void bad_values() {
  for (const char* name : {"portable", "avx2", "avx512"}) {
    if (!set_isa(name)) continue;
    for (double value : {double(NAN), double(INFINITY), -double(INFINITY), 3e38, -3e38, 1e-40}) {
      each_case({{3, 1}, {3, 10}, {2, 37}}, [&](const Case& of) {
        Data data(of, 3);
        for (int64_t c = 0; c < of.C; ++c) data.logits.set(of.C + c, value);
        if (loss_cpu(data.batch(), 1).fault != Fault::none) fail("refused", of);
      });
    }
  }
}

void faults() {
  for (int64_t bad : {int64_t(-1), int64_t(12), INT64_MIN, INT64_MAX}) {
    Data data({Op::elr, Type::float32, Type::float32, 10, 12, 12, 1.0, true}, 1);
    const std::vector<char> before = data.targets.bytes;
    data.labels[4] = bad;
    Outcome outcome = loss_cpu(data.batch(), 1);
    if (outcome.fault != Fault::label_range || outcome.row != 4) fail("label not refused", data.of);
    data.labels[4] = 0;
    data.index[7] = bad;
    outcome = loss_cpu(data.batch(), 1);
    if (outcome.fault != Fault::index_range || outcome.row != 7) fail("index not refused", data.of);
    data.index[7] = data.index[2];
    outcome = loss_cpu(data.batch(), 1);
    if (outcome.fault != Fault::index_repeated || outcome.row != 7) fail("repeat not refused", data.of);
    if (data.targets.bytes != before) fail("written before everything is checked", data.of);
  }
}

void augmentation() {
  const int64_t B = 5, N = 4, H = 3, W = 5, padding = 2;
  std::vector<uint8_t> images(N * H * W * 3, 9);
  std::vector<float> table(3 * 256, 1.0f), out(B * H * W * 3);
  std::vector<int64_t> index = {3, 0, 1, 1, 2}, draws = {0, 0, 0, 4, 4, 1, 2, 1, 1, 0, 4, 0};
  std::vector<uint32_t> words(table.size()), pixels(out.size());
  std::memcpy(words.data(), table.data(), table.size() * 4);
  const AugmentRows<uint32_t> batch{images.data(), index.data(), draws.data(), words.data(), pixels.data(), B, N, H, W,
                                    padding};
  if (augment_cpu(batch).fault != Fault::none) std::exit(1);
}

}  // namespace

int main() {
  losses();
  bad_values();
  faults();
  augmentation();
  std::puts("all done");
}
