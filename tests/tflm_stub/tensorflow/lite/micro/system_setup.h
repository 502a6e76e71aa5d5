// A stand-in: see micro_mutable_op_resolver.h.
#pragma once

namespace tflite {
inline void InitializeTarget() {}
}  // namespace tflite
