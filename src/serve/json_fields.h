#pragma once
// Reads the fields of a request one after another and keeps the first thing that is wrong, in OpenAI's words.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "serve/openai.h"

namespace th::serve {

/// A field that is null counts as not given, as with OpenAI. What a reader returns after an error does not
/// matter: the caller asks error() at the end. Keeps a reference to the object. Thread: one owner.
class JsonFields {
 public:
  explicit JsonFields(const Json& object) : object_(object) {}

  const Json* find(const char* name) const;  // nullptr: not given
  const Json* required(const char* name);

  std::optional<std::string> string(const char* name);
  std::optional<bool> boolean(const char* name);
  std::optional<int64_t> integer(const char* name, int64_t min, int64_t max);
  std::optional<double> number(const char* name, double min, double max);
  /// Fields that are known but not supported: allowed only where they say nothing.
  void only_false(const char* name);
  void only_empty(const char* name);

  void refuse(const std::string& param, std::string code, std::string message);
  void wrong_type(const std::string& param, std::string_view want, const Json& got);

  const std::optional<ApiError>& error() const { return error_; }

 private:
  void out_of_range(const char* name, const std::string& range, const Json& got);

  const Json& object_;
  std::optional<ApiError> error_;
};

}  // namespace th::serve
