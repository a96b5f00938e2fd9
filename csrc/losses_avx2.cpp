#include "avx2_lanes.h"
#include "loss_loop.h"

namespace nlbench {

void fill_avx2(LossTable& table) {
  fill_ops<Avx2Lanes, float>(table, Type::float32);
  fill_ops<Avx2Lanes, BFloat16>(table, Type::bfloat16);
}

}  // namespace nlbench
