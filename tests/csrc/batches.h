// Batches for the drivers beside this file: random, each array of its own and exactly as long as it
// must be.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "../../csrc/bfloat16.h"
#include "../../csrc/ops.h"

namespace nlbench {

inline size_t bytes_of(Type type) {
  return type == Type::float64 ? 8 : type == Type::float32 ? 4 : 2;
}

struct Array {
  Type type;
  std::vector<char> bytes;
  Array(Type type, int64_t size) : type(type), bytes(size * bytes_of(type)) {}
  int64_t size() const { return bytes.size() / bytes_of(type); }
  void set(int64_t i, double value) {
    if (type == Type::float64) reinterpret_cast<double*>(bytes.data())[i] = value;
    if (type == Type::float32) reinterpret_cast<float*>(bytes.data())[i] = float(value);
    if (type == Type::bfloat16)
      reinterpret_cast<BFloat16*>(bytes.data())[i] = rounded(float(value));
  }
  double at(int64_t i) const {
    if (type == Type::float64) return reinterpret_cast<const double*>(bytes.data())[i];
    if (type == Type::float32) return reinterpret_cast<const float*>(bytes.data())[i];
    return widened(reinterpret_cast<const BFloat16*>(bytes.data())[i]);
  }
};

struct Case {
  Op op;
  Type logits_type, targets_type;
  int64_t B, C, N;
  double size;  // of the logits: 1 early in training, 12 late
  bool grad;
};

struct Data {
  Case of;
  Array logits, soft_labels, targets, dlogits, rows;
  std::vector<int64_t> labels, index;

  explicit Data(const Case& of, unsigned seed)
      : of(of),
        logits(of.logits_type, of.B * of.C),
        soft_labels(of.targets_type, of.op == Op::elr_soft ? of.B * of.C : 0),
        targets(of.targets_type, (of.op == Op::elr_soft ? of.B : of.N) * of.C),
        dlogits(of.logits_type, of.grad && of.op != Op::update_targets ? of.B * of.C : 0),
        rows(of.logits_type == Type::float64 ? Type::float64 : Type::float32,
             of.op == Op::update_targets ? 0 : of.B),
        labels(of.op == Op::elr ? of.B : 0),
        index(of.op == Op::elr_soft ? 0 : of.N) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal(0, of.size);
    std::uniform_real_distribution<double> uniform(0, 1.0 / of.C);
    for (int64_t i = 0; i < logits.size(); ++i) logits.set(i, normal(random));
    for (int64_t i = 0; i < targets.size(); ++i) targets.set(i, uniform(random));
    for (int64_t i = 0; i < soft_labels.size(); ++i) soft_labels.set(i, uniform(random));
    for (int64_t& label : labels) label = random() % of.C;
    for (size_t n = 0; n < index.size(); ++n) index[n] = n;
    std::shuffle(index.begin(), index.end(), random);
    index.resize(std::min<size_t>(index.size(), of.B));
    index.shrink_to_fit();
  }

  LossBatch batch() {
    return {of.op,
            of.logits_type,
            of.targets_type,
            logits.bytes.data(),
            labels.data(),
            soft_labels.bytes.data(),
            index.data(),
            targets.bytes.data(),
            dlogits.size() ? dlogits.bytes.data() : nullptr,
            rows.size() ? rows.bytes.data() : nullptr,
            of.B,
            of.C,
            of.N,
            0.7,
            3.0,
            1.0 / of.B,
            true};
  }
};

// Every op, type and stage over the shapes given.
template <class F>
void each_case(const std::vector<std::pair<int64_t, int64_t>>& shapes, F f) {
  for (const auto& [B, C] : shapes) {
    for (int op = 0; op < kOps; ++op) {
      for (Type logits : {Type::float32, Type::bfloat16, Type::float64}) {
        for (Type targets : {Type::float32, Type::float64}) {
          for (double size : {1.0, 12.0}) {
            for (bool grad : {true, false})
              f(Case{Op(op), logits, targets, B, C, B + 2, size, grad});
          }
        }
      }
    }
  }
}

// A batch of pictures; the table's entries are all different, so that a wrong one shows.
struct Pictures {
  int64_t B = 6, N = 5, H, W, padding;
  int pixel_bytes;
  bool planar;
  std::vector<uint8_t> images;
  std::vector<int64_t> index, draws;
  std::vector<char> table, out;

  Pictures(int64_t H, int64_t W, int64_t padding, int pixel_bytes, bool planar, bool drawn)
      : H(H),
        W(W),
        padding(padding),
        pixel_bytes(pixel_bytes),
        planar(planar),
        images(N * H * W * 3),
        index{3, 0, 1, 1, 2, 4},
        draws(drawn ? N * 3 : 0),
        table(3 * 256 * pixel_bytes),
        out(B * H * W * 3 * pixel_bytes) {
    std::mt19937 random(unsigned(H * W + padding));
    for (uint8_t& byte : images) byte = uint8_t(random());
    for (size_t i = 0; i < draws.size(); ++i)
      draws[i] = random() % (i % 3 == 2 ? 2 : 2 * padding + 1);
    for (int i = 0; i < 3 * 256; ++i)
      std::memcpy(&table[i * pixel_bytes], &i, std::min(pixel_bytes, 4));
  }

  AugmentBatch batch() {
    return {images.data(),
            index.data(),
            draws.empty() ? nullptr : draws.data(),
            table.data(),
            out.data(),
            B,
            N,
            H,
            W,
            padding,
            pixel_bytes,
            planar};
  }
};

// Every size of a pixel and form over some shapes, with draws and without.
template <class F>
void each_picture(F f) {
  for (const auto& [H, W, padding] :
       {std::array<int64_t, 3>{32, 32, 4}, {8, 8, 0}, {3, 5, 2}, {1, 1, 3}, {7, 16, 20}}) {
    for (int pixel_bytes : {2, 4, 8}) {
      for (bool planar : {true, false}) {
        for (bool drawn : {true, false}) f(Pictures(H, W, padding, pixel_bytes, planar, drawn));
      }
    }
  }
}

// A batch of strong views. The policy has two rounds of two operations, of which an entry has one
// of every kind and the other of the next kind, with a number of strengths.
struct Views {
  static constexpr int kinds = 13, strengths = 3, width = 3 + 6 * strengths;
  Pictures pictures;
  bool crop_first, reflect;
  std::vector<int64_t> examples{5, 1, 1000000007, -3, 4, 1};
  std::vector<double> policy;
  std::vector<uint8_t> scratch;

  Views(const Pictures& pictures, bool crop_first, bool reflect)
      : pictures(pictures),
        crop_first(crop_first),
        reflect(reflect),
        policy(6 + kinds * 2 * width),
        scratch(3 * pictures.H * pictures.W > kSharedValues
                    ? pictures.B * 6 * pictures.H * pictures.W
                    : 0) {
    const double last[] = {pictures.H / 4.0, 1, pictures.H / 2.0, 3, crop_first ? 1.0 : 0.0, -1};
    std::copy(last, last + 6, policy.begin());
    if (crop_first) policy[5] = 127;
    for (int entry = 0; entry < kinds; ++entry) {
      for (int slot = 0; slot < 2; ++slot) fill(entry, slot);
    }
  }

  void fill(int entry, int slot) {
    const int kind = (entry + slot) % kinds;
    double* row = &policy[6 + (2 * entry + slot) * width];
    row[0] = kind, row[1] = slot == 0 ? 1 : 0.7, row[2] = strengths;
    for (int i = 0; i < strengths; ++i) {
      double* p = row + 3 + 6 * i;
      const double unit = 4294967296.0;
      const double moves[] = {(1 - 0.1 * i) * unit, 0.3 * unit, (i - 1.5) * unit,
                              -0.3 * unit,          0.9 * unit, (0.5 + i) * unit};
      const double square[] = {0.5 * i, 0.5 * i, i + 1.0, i + 1.0, double(i % 2), 127};
      if (kind == 1) std::copy(moves, moves + 6, p);
      if (kind == 2) p[0] = 256 - (16 << i);
      if (kind == 3) p[0] = 60.5 + 80 * i;
      if (kind == 4) p[0] = 70 * i - 70, p[1] = 128;
      if (kind >= 8 && kind <= 11) p[0] = 0.1 + 0.9 * i;
      if (kind == 12) std::copy(square, square + 6, p);
    }
    for (int i = 3; i < width; ++i) row[i] = kind == 1 ? std::floor(row[i]) : row[i];
  }

  StrongBatch batch(uint64_t seed) {
    Pictures& of = pictures;
    return {of.images.data(),
            of.index.data(),
            examples.data(),
            of.draws.empty() ? nullptr : of.draws.data(),
            policy.data(),
            of.table.data(),
            of.out.data(),
            scratch.data(),
            of.B,
            of.N,
            of.H,
            of.W,
            of.padding,
            seed,
            2,
            kinds,
            2,
            strengths,
            of.pixel_bytes,
            of.planar,
            crop_first,
            reflect};
  }
};

// Every size of a pixel and form over some shapes, one of which a GPU's block cannot keep itself.
template <class F>
void each_view(F f) {
  for (const auto& [H, W, padding] : {std::array<int64_t, 3>{32, 32, 4},
                                      {8, 8, 0},
                                      {3, 5, 2},
                                      {1, 1, 0},
                                      {7, 16, 6},
                                      {2, 9, 1},
                                      {65, 64, 3}}) {
    for (int pixel_bytes : {2, 4, 8}) {
      for (int form = 0; form < 8; ++form) {
        const Pictures of(H, W, padding, pixel_bytes, form & 1, true);
        f(Views(of, form & 2, form & 4));
        if (form == 0) f(Views(Pictures(H, W, padding, pixel_bytes, true, false), false, false));
      }
    }
  }
}

inline void fail(const char* what, const Case& of) {
  std::fprintf(stderr, "%s: op %d, logits %d, targets %d, B %lld, C %lld, size %g, grad %d\n", what,
               int(of.op), int(of.logits_type), int(of.targets_type), (long long)of.B,
               (long long)of.C, of.size, int(of.grad));
  std::exit(1);
}

// Within `tolerance` of the largest entry; NaN equals NaN.
inline bool close(const Array& got, const Array& want, double tolerance) {
  double largest = 0;
  for (int64_t i = 0; i < want.size(); ++i) largest = std::max(largest, std::fabs(want.at(i)));
  for (int64_t i = 0; i < want.size(); ++i) {
    if (std::isnan(got.at(i)) && std::isnan(want.at(i))) continue;
    if (!(std::fabs(got.at(i) - want.at(i)) <= tolerance * largest)) return false;
  }
  return true;
}

}  // namespace nlbench
