// Strong views on the CPU. An image is copied to planes that stay in the cache. Operations whose
// result depends on the value alone are not carried out, but put into a map of the values, which
// the next operation that looks at neighbours, or the last step, applies while it reads.
#include <algorithm>
#include <cstring>
#include <vector>

#include "checks.h"
#include "ops.h"
#include "strong_view.h"
#include "threads.h"

namespace nlbench {
namespace {

// The planes of an image and the values that they stand for.
class Picture {
 public:
  Picture(int64_t H, int64_t W) : H_(H), W_(W), memory_(6 * H * W), columns_(W) {
    now_ = memory_.data();
    next_ = now_ + 3 * H * W;
  }

  // Reads an image. A draw, if there is one, crops and flips it.
  void read(const uint8_t* image, const int64_t* draw, const StrongBatch& batch) {
    mapped_ = false;
    const int64_t size = H_ * W_;
    uint8_t *red = now_, *green = now_ + size, *blue = now_ + 2 * size;
    if (draw == nullptr) {
      for (int64_t i = 0; i < size; ++i) {
        red[i] = image[3 * i], green[i] = image[3 * i + 1], blue[i] = image[3 * i + 2];
      }
      return;
    }
    find_columns(draw, batch);
    for (int64_t y = 0; y < H_; ++y) {
      const int64_t row = padded(y + draw[0] - batch.padding, H_, batch.reflect);
      for (int64_t x = 0; x < W_; ++x) {
        const bool inside = row >= 0 && columns_[x] >= 0;
        const uint8_t* from = image + (inside ? 3 * (row * W_ + columns_[x]) : 0);
        const int64_t i = y * W_ + x;
        red[i] = inside ? from[0] : 0, green[i] = inside ? from[1] : 0,
        blue[i] = inside ? from[2] : 0;
      }
    }
  }

  void apply(const Drawn& drawn) {
    const double* p = drawn.parameters;
    if (is_pointwise(drawn.op)) {
      uint8_t map[256];
      for (int v = 0; v < 256; ++v) map[v] = pointwise(drawn.op, p, v);
      then(map, map, map);
    } else if (drawn.op == ViewOp::autocontrast || drawn.op == ViewOp::equalize) {
      spread(drawn.op);
    } else if (drawn.op == ViewOp::contrast) {
      change_contrast(Mix(p));
    } else if (drawn.op == ViewOp::color) {
      change_color(Mix(p));
    } else if (drawn.op == ViewOp::sharpness) {
      sharpen(Mix(p));
    } else if (drawn.op == ViewOp::affine) {
      move(Affine(p));
    } else if (drawn.op == ViewOp::square) {
      fill(place_square(p, drawn.y, drawn.x, H_, W_), uint8_t(int(p[5])));
    }
  }

  // Writes the values that `table` gives, cropped and flipped if there is a draw. At the same time
  // it prefetches `next`, the image after this one.
  template <class Pixel, bool planar>
  void write(const Pixel* table, const int64_t* draw, const StrongBatch& batch, const uint8_t* next,
             Pixel* out) {
    Pixel mapped[3 * 256];
    const Pixel* values = table;
    if (mapped_) {
      for (int c = 0; c < 3; ++c) {
        for (int v = 0; v < 256; ++v) mapped[256 * c + v] = table[256 * c + map_[c][v]];
      }
      values = mapped;
    }

    if (draw != nullptr) find_columns(draw, batch);
    const int64_t size = H_ * W_, step = planar ? 1 : 3, channel = planar ? size : 1;
    for (int64_t y = 0; y < H_; ++y, next += 3 * W_, out += step * W_) {
      for (int64_t i = 0; i < 3 * W_; i += 64) __builtin_prefetch(next + i);
      const int64_t row =
          draw == nullptr ? y : padded(y + draw[0] - batch.padding, H_, batch.reflect);
      const uint8_t* from = now_ + row * W_;
      for (int64_t x = 0; x < W_; ++x) {
        const int64_t column = draw == nullptr ? x : columns_[x];
        Pixel* at = out + step * x;
        if (row < 0 || column < 0) {
          // The border is black before normalisation, and no operation changes it.
          at[0] = table[0], at[channel] = table[256], at[2 * channel] = table[512];
          continue;
        }
        at[0] = values[from[column]];
        at[channel] = values[256 + from[size + column]];
        at[2 * channel] = values[512 + from[2 * size + column]];
      }
    }
  }

 private:
  // Finds the columns of the image that a draw shows. A column of the border is -1.
  void find_columns(const int64_t* draw, const StrongBatch& batch) {
    for (int64_t x = 0; x < W_; ++x) {
      const int64_t at = (draw[2] ? W_ - 1 - x : x) + draw[1] - batch.padding;
      columns_[x] = padded(at, W_, batch.reflect);
    }
  }

  // Lets maps of the channels' values follow what the planes stand for.
  void then(const uint8_t* red, const uint8_t* green, const uint8_t* blue) {
    const uint8_t* maps[] = {red, green, blue};
    for (int c = 0; c < 3; ++c) {
      for (int v = 0; v < 256; ++v) map_[c][v] = maps[c][mapped_ ? map_[c][v] : v];
    }
    mapped_ = true;
  }

  // Makes the planes hold what they stand for.
  void settle() {
    if (!mapped_) return;
    for (int c = 0; c < 3; ++c) {
      uint8_t* plane = now_ + c * H_ * W_;
      for (int64_t i = 0; i < H_ * W_; ++i) plane[i] = map_[c][plane[i]];
    }
    mapped_ = false;
  }

  void spread(ViewOp op) {
    uint8_t maps[3][256];
    for (int c = 0; c < 3; ++c) {
      int histogram[256];
      count(c, histogram);
      if (op == ViewOp::equalize) {
        fill_equalize(histogram, int(H_ * W_), maps[c]);
      } else {
        fill_stretch(histogram, maps[c]);
      }
    }
    then(maps[0], maps[1], maps[2]);
  }

  void count(int c, int (&histogram)[256]) const {
    // Equal values often follow each other, and an addition would wait for the last one's result.
    int counts[4][256] = {};
    const uint8_t* plane = now_ + c * H_ * W_;
    int64_t i = 0;
    for (; i + 4 <= H_ * W_; i += 4) {
      for (int k = 0; k < 4; ++k) ++counts[k][plane[i + k]];
    }
    for (; i < H_ * W_; ++i) ++counts[0][plane[i]];

    std::memset(histogram, 0, sizeof histogram);
    for (int v = 0; v < 256; ++v) {
      const int total = counts[0][v] + counts[1][v] + counts[2][v] + counts[3][v];
      histogram[mapped_ ? map_[c][v] : v] += total;
    }
  }

  void change_contrast(const Mix& mix) {
    settle();
    const int64_t size = H_ * W_;
    const uint8_t *red = now_, *green = now_ + size, *blue = now_ + 2 * size;
    int64_t sum = 0;
    for (int64_t i = 0; i < size; ++i) sum += grey(red[i], green[i], blue[i]);

    const float mean = float(sum) / float(size);
    uint8_t map[256];
    for (int v = 0; v < 256; ++v) map[v] = mix.blend(v, mean);
    then(map, map, map);
  }

  void change_color(const Mix& mix) {
    settle();
    const int64_t size = H_ * W_;
    uint8_t *red = now_, *green = now_ + size, *blue = now_ + 2 * size;
    for (int64_t i = 0; i < size; ++i) {
      const float other = float(grey(red[i], green[i], blue[i]));
      red[i] = mix.blend(red[i], other);
      green[i] = mix.blend(green[i], other);
      blue[i] = mix.blend(blue[i], other);
    }
  }

  void sharpen(const Mix& mix) {
    if (H_ < 3 || W_ < 3) return;
    settle();
    std::memcpy(next_, now_, 3 * H_ * W_);
    for (int c = 0; c < 3; ++c) {
      for (int64_t y = 1; y + 1 < H_; ++y) {
        const uint8_t* row = now_ + (c * H_ + y) * W_;
        const uint8_t *above = row - W_, *below = row + W_;
        uint8_t* to = next_ + (c * H_ + y) * W_;
        for (int64_t x = 1; x + 1 < W_; ++x) {
          int sum = above[x - 1] + above[x] + above[x + 1] + row[x - 1] + row[x];
          sum += row[x + 1] + below[x - 1] + below[x] + below[x + 1];
          to[x] = mix.sharpen(row[x], blurred(sum, row[x]));
        }
      }
    }
    std::swap(now_, next_);
  }

  void move(const Affine& from) {
    settle();
    const int64_t size = H_ * W_;
    for (int64_t y = 0; y < H_; ++y) {
      for (int64_t x = 0; x < W_; ++x) {
        const int64_t at = from.at(y, x, H_, W_), to = y * W_ + x;
        for (int c = 0; c < 3; ++c) next_[c * size + to] = at < 0 ? 0 : now_[c * size + at];
      }
    }
    std::swap(now_, next_);
  }

  void fill(const Area& area, uint8_t level) {
    settle();
    if (area.left >= area.right) return;
    for (int c = 0; c < 3; ++c) {
      for (int64_t y = area.top; y < area.bottom; ++y) {
        std::memset(now_ + (c * H_ + y) * W_ + area.left, level, area.right - area.left);
      }
    }
  }

  int64_t H_, W_;
  std::vector<uint8_t> memory_;
  std::vector<int64_t> columns_;
  uint8_t *now_, *next_;
  // The values that the planes stand for, by channel and value in the plane.
  bool mapped_ = false;
  uint8_t map_[3][256];
};

template <class Pixel, bool planar>
void write_square(const StrongBatch& batch, uint64_t example, const Pixel* table, Pixel* out) {
  const int64_t H = batch.H, W = batch.W;
  const int64_t step = planar ? 1 : 3, channel = planar ? H * W : 1;
  const int level = int(batch.policy[5]);
  const Area area = draw_square(batch, example);
  for (int c = 0; c < 3; ++c) {
    // Zero has no bit set in any format.
    const Pixel value = level < 0 ? Pixel(0) : table[256 * c + level];
    for (int64_t y = area.top; y < area.bottom; ++y) {
      for (int64_t x = area.left; x < area.right; ++x) {
        out[step * (y * W + x) + channel * c] = value;
      }
    }
  }
}

template <class Pixel, bool planar>
void write_images(void* data, int64_t begin, int64_t end) {
  const StrongBatch& batch = *static_cast<const StrongBatch*>(data);
  const int64_t size = 3 * batch.H * batch.W;
  const Pixel* table = static_cast<const Pixel*>(batch.table);
  Picture picture(batch.H, batch.W);
  for (int64_t b = begin; b < end; ++b) {
    const uint8_t* image = batch.images + batch.index[b] * size;
    const uint8_t* next = b + 1 < end ? batch.images + batch.index[b + 1] * size : image;
    const int64_t* draw = batch.draws == nullptr ? nullptr : batch.draws + 3 * batch.index[b];
    const uint64_t example = uint64_t(batch.examples[b]);
    Pixel* out = static_cast<Pixel*>(batch.out) + b * size;

    picture.read(image, batch.crop_first ? draw : nullptr, batch);
    for (int round = 0; round < batch.rounds; ++round) {
      const int64_t entry = draw_entry(batch, example, round);
      for (int slot = 0; slot < batch.slots; ++slot) {
        picture.apply(draw_slot(batch, example, round, entry, slot));
      }
    }
    picture.write<Pixel, planar>(table, batch.crop_first ? nullptr : draw, batch, next, out);
    write_square<Pixel, planar>(batch, example, table, out);
  }
}

template <class Pixel>
void write_batch(const StrongBatch& batch, int threads) {
  StrongBatch job = batch;
  in_pieces(batch.B, threads, batch.planar ? write_images<Pixel, true> : write_images<Pixel, false>,
            &job);
}

// Below this many values per thread a second thread costs more time than it saves.
constexpr int64_t kValuesPerThread = 8192;

}  // namespace

Outcome strong_cpu(const StrongBatch& batch, int threads) {
  const Outcome outcome = check_images(batch.index, batch.draws, batch.B, batch.N, batch.padding);
  if (outcome.fault != Fault::none || batch.H * batch.W == 0) return outcome;

  const int64_t paying = 3 * batch.B * batch.H * batch.W / kValuesPerThread;
  const int used = paying < threads ? int(paying) : threads;
  if (batch.pixel_bytes == 2) write_batch<uint16_t>(batch, used);
  if (batch.pixel_bytes == 4) write_batch<uint32_t>(batch, used);
  if (batch.pixel_bytes == 8) write_batch<uint64_t>(batch, used);
  return outcome;
}

}  // namespace nlbench
