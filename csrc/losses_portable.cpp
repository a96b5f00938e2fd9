#include "loss_loop.h"
#include "scalar_lanes.h"

namespace nlbench {

void fill_portable(LossTable& table) {
  fill_ops<ScalarLanes<float>, float>(table, Type::float32);
  fill_ops<ScalarLanes<float>, BFloat16>(table, Type::bfloat16);
  fill_ops<ScalarLanes<double>, double>(table, Type::float64);
}

}  // namespace nlbench
