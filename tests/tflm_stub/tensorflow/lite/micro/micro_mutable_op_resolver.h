// A stand-in for TensorFlow Lite Micro, for tests of what is generated: it declares what that uses, and computes
// nothing.
#pragma once

#include <cstddef>
#include <cstdint>

enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
enum TfLiteType { kTfLiteNoType = 0, kTfLiteInt8 = 9 };

struct TfLiteTensor {
  TfLiteType type;
  struct {
    int8_t* int8;
  } data;
  struct {
    float scale;
    int32_t zero_point;
  } params;
  size_t bytes;
};

namespace tflite {

template <unsigned int kOperators>
class MicroMutableOpResolver {
 public:
  TfLiteStatus AddAdd() { return Add(); }
  TfLiteStatus AddAveragePool2D() { return Add(); }
  TfLiteStatus AddConv2D() { return Add(); }
  TfLiteStatus AddDepthwiseConv2D() { return Add(); }
  TfLiteStatus AddFullyConnected() { return Add(); }
  TfLiteStatus AddReshape() { return Add(); }
  TfLiteStatus AddSoftmax() { return Add(); }
  unsigned int added() const { return added_; }

 private:
  TfLiteStatus Add() { return ++added_ > kOperators ? kTfLiteError : kTfLiteOk; }
  unsigned int added_ = 0;
};

}  // namespace tflite
