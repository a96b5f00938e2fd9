// Adjacent values that a thread of a GPU reads or writes in one access, up to 16 bytes.
#pragma once

namespace nlbench {

template <class X, int width>
struct alignas(sizeof(X) * width <= 16 ? sizeof(X) * width : 16) Pack {
  X v[width];
};

}  // namespace nlbench
