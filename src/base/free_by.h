#pragma once
// Deleters for what C libraries allocate.

namespace th {

/// std::unique_ptr<BIO, FreeBy<BIO_free>>
template <auto kFree>
struct FreeBy {
  template <class T>
  void operator()(T* object) const {
    kFree(object);
  }
};

}  // namespace th
