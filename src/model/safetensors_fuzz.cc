// Bytes as a safetensors file: an error, or tensors that can all be read.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "model/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace th::model;
  auto file = SafetensorsFile::parse({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (!file) return 0;
  volatile unsigned sum = 0;
  for (const SafeTensor& tensor : file->tensors()) {
    TH_CHECK(file->find(tensor.name) == &tensor && tensor.size() >= 0);
    for (std::byte byte : tensor.data) sum = sum + static_cast<unsigned>(byte);
    (void)file->f32(tensor.name, tensor.shape);
  }
  return 0;
}
