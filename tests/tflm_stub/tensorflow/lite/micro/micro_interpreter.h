// A stand-in: see micro_mutable_op_resolver.h. It accepts an arena of STUB_ARENA bytes or more, and its output is that
// of the test vector, STUB_OUTPUT, with STUB_ERROR added to the last score. Tensors are as the macros of the test say.
#pragma once

#include <cstring>

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

namespace tflite {

struct Model;

class MicroInterpreter {
 public:
  template <unsigned int kOperators>
  MicroInterpreter(const Model*, const MicroMutableOpResolver<kOperators>& resolver, uint8_t* arena, size_t arena_size)
      : fits_(arena != nullptr && arena_size >= STUB_ARENA && resolver.added() == kOperators) {}

  TfLiteStatus AllocateTensors() { return fits_ ? kTfLiteOk : kTfLiteError; }
  TfLiteTensor* input(size_t) { return &input_; }
  TfLiteTensor* output(size_t) { return &output_; }
  size_t arena_used_bytes() const { return STUB_ARENA; }

  TfLiteStatus Invoke() {
    if (std::memcmp(input_bytes_, STUB_INPUT, sizeof(input_bytes_)) != 0) return kTfLiteError;
    std::memcpy(output_bytes_, STUB_OUTPUT, sizeof(output_bytes_));
    int8_t& last = output_bytes_[sizeof(output_bytes_) - 1];
    last = static_cast<int8_t>(last + STUB_ERROR);
    return kTfLiteOk;
  }

 private:
  bool fits_;
  int8_t input_bytes_[STUB_INPUT_BYTES] = {};
  int8_t output_bytes_[STUB_OUTPUT_BYTES] = {};
  TfLiteTensor input_ = {kTfLiteInt8, {input_bytes_}, {STUB_INPUT_SCALE, STUB_INPUT_ZERO_POINT}, STUB_INPUT_BYTES};
  TfLiteTensor output_ = {kTfLiteInt8, {output_bytes_}, {1.0F / 256, -128}, STUB_OUTPUT_BYTES};
};

}  // namespace tflite
