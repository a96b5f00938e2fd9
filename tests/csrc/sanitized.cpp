// Runs the CPU kernels on arrays that end where they must, for AddressSanitizer and
// UndefinedBehaviorSanitizer to watch. Each instruction set that the processor has is compared with
// the portable one.
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
      if (!close(data.rows, portable.rows, 1e-5) ||
          !close(data.dlogits, portable.dlogits, tolerance) ||
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
    if (outcome.fault != Fault::index_repeated || outcome.row != 7)
      fail("repeat not refused", data.of);
    if (data.targets.bytes != before) fail("written before everything is checked", data.of);
  }
}

void augmentation() {
  each_picture([](const Pictures& of) {
    for (int threads : {1, 2}) {
      Pictures pictures = of;
      if (augment_cpu(pictures.batch(), threads).fault != Fault::none) std::exit(1);
    }
  });
  for (int64_t bad : {int64_t(-1), int64_t(9), INT64_MIN, INT64_MAX}) {
    Pictures pictures(4, 5, 2, 4, true, true);
    pictures.draws[3 * pictures.index[2] + 1] = bad;
    const Outcome outcome = augment_cpu(pictures.batch(), 1);
    if (outcome.fault != Fault::draw_range || outcome.row != 2) std::exit(1);
    pictures.index[1] = bad;
    if (augment_cpu(pictures.batch(), 1).fault != Fault::index_range) std::exit(1);
  }
}

void strong_views() {
  each_view([](const Views& of) {
    for (int threads : {1, 2}) {
      Views views = of;
      if (strong_cpu(views.batch(3), threads).fault != Fault::none) std::exit(1);
    }
  });
  for (int64_t bad : {int64_t(-1), int64_t(9), INT64_MIN, INT64_MAX}) {
    Views views(Pictures(4, 5, 2, 4, true, true), false, false);
    views.pictures.draws[3 * views.pictures.index[2] + 1] = bad;
    const Outcome outcome = strong_cpu(views.batch(3), 1);
    if (outcome.fault != Fault::draw_range || outcome.row != 2) std::exit(1);
    views.pictures.index[1] = bad;
    if (strong_cpu(views.batch(3), 1).fault != Fault::index_range) std::exit(1);
  }
}

}  // namespace

int main() {
  losses();
  bad_values();
  faults();
  augmentation();
  strong_views();
  std::puts("all done");
}
