// Runs model_id on its test vector with TensorFlow Lite Micro, and compares the output with the golden one.
//
// With TFLM's library, as its own makefile builds it in its checkout:
//
//   cmake -S . -B build -DTFLM_DIR=/path/to/tflite-micro && cmake --build build && build/model_id_example
//
// In a firmware project, compile this file with the .c files beside it, and print to what your board has.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "labels.h"
#include "model_id.h"
#include "model_id_arena.h"
#include "model_id_ops.h"
#include "model_id_test_vector.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

#ifndef MODEL_ID_ARENA_SIZE
#error "no arena was measured: INSTALL_TFLM, then python -m pipeline cortex-m"
#endif
static_assert(LABELS_COUNT == MODEL_ID_OUTPUT_BYTES, "the labels belong to another model");

namespace {

alignas(MODEL_ID_ARENA_ALIGNMENT) uint8_t arena[MODEL_ID_ARENA_SIZE];

// CRC-32 as in zlib and PNG, without a table, as it is computed once.
unsigned long crc32(const unsigned char* data, std::size_t size) {
  uint32_t crc = 0xffffffff;
  for (std::size_t i = 0; i < size; ++i) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? 0xedb88320 : 0);
  }
  return crc ^ 0xffffffff;
}

bool has(const TfLiteTensor* tensor, std::size_t bytes, float scale, int zero_point) {
  return tensor->type == kTfLiteInt8 && tensor->bytes == bytes && tensor->params.scale == scale &&
         tensor->params.zero_point == zero_point;
}

int fail(const char* what) {
  std::printf("FAIL: %s\n", what);
  return 1;
}

}  // namespace

int main() {
  tflite::InitializeTarget();
  // A linker script may place the model where there is no memory, and reading it may not fault.
  if (crc32(model_id_data, MODEL_ID_SIZE) != MODEL_ID_CRC32) return fail("the model is not where it was linked to");

  tflite::MicroMutableOpResolver<MODEL_ID_OPERATORS> resolver;
  if (model_id_add_operators(resolver) != kTfLiteOk) return fail("an operator could not be registered");
  tflite::MicroInterpreter interpreter(tflite::GetModel(model_id_data), resolver, arena, sizeof(arena));
  if (interpreter.AllocateTensors() != kTfLiteOk) return fail("the arena is too small");

  TfLiteTensor* input = interpreter.input(0);
  const TfLiteTensor* output = interpreter.output(0);
  if (!has(input, MODEL_ID_INPUT_BYTES, MODEL_ID_INPUT_SCALE, MODEL_ID_INPUT_ZERO_POINT) ||
      !has(output, MODEL_ID_OUTPUT_BYTES, MODEL_ID_OUTPUT_SCALE, MODEL_ID_OUTPUT_ZERO_POINT))
    return fail("the header belongs to another model");

  // For a picture of your own, use model_id_input_levels[level] of model_id_input_levels.h for each byte.
  std::memcpy(input->data.int8, model_id_test_input, MODEL_ID_INPUT_BYTES);
  if (interpreter.Invoke() != kTfLiteOk) return fail("the model did not run");

  const int8_t* scores = output->data.int8;
  int best = 0, differing = 0;
  for (int i = 0; i < LABELS_COUNT; ++i) {
    if (scores[i] > scores[best]) best = i;
    if (scores[i] != model_id_test_output[i]) ++differing;
  }
  const float probability = (scores[best] - MODEL_ID_OUTPUT_ZERO_POINT) * MODEL_ID_OUTPUT_SCALE;
  std::printf("class %d, %s, %d in a thousand\n", best, labels[best], static_cast<int>(probability * 1000));
  std::printf("arena: %lu of %lu bytes\n", static_cast<unsigned long>(interpreter.arena_used_bytes()),
              MODEL_ID_ARENA_SIZE);
  if (differing != 0) return fail("the output is not the golden one");
  std::printf("PASS: all %d scores equal those of the reference kernels\n", LABELS_COUNT);
  return 0;
}
