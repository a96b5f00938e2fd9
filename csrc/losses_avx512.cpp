#include "avx512_lanes.h"
#include "loss_loop.h"

namespace nlbench {

void fill_avx512(LossTable& table) {
  fill_ops<Avx512Lanes, float>(table, Type::float32);
  fill_ops<Avx512Lanes, BFloat16>(table, Type::bfloat16);
}

}  // namespace nlbench
