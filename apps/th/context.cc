#include "context.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/files.h"
#include "base/text.h"
#include "http/client.h"

namespace th::cli {
namespace {

constexpr int64_t kTimeoutNs = 60 * kSecond;
constexpr int kTries = 3;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// "url" of STATE/controld.json or gateway.json.
std::string url_in(const std::filesystem::path& file) {
  auto text = read_file(file, 4096);
  if (!text) return "";
  auto json = parse_json(*text, file.string());
  return json ? text_of(*json, "url") : "";
}

Result<Json> call_controller(const Context& context, const char* method, const std::string& path,
                             const Json* body, bool with_key = true) {
  http::Call call{.method = method, .url = context.url() + "/api/v1" + path, .timeout_ns = kTimeoutNs};
  call.authority_pem = context.authority_pem();
  if (with_key) {
    TH_TRY(call, context.call(method, path));
  }
  bool write = call.method != "GET";
  if (write) call.headers.emplace_back("Idempotency-Key", random_token());
  if (body != nullptr) {
    call.headers.emplace_back("Content-Type", "application/json");
    call.body = dump_json(*body);
  }
  Result<http::Response> response = http::fetch(call);
  for (int i = 1; i < kTries && !response && response.error().code == Code::kUnavailable; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200 * i));
    response = http::fetch(call);
  }
  if (!response) {
    Error error = std::move(response).error();
    if (error.code == Code::kUnavailable) {
      error.message = fmt::format("cannot reach the controller at {}: {}; start it with: th up --fleet FILE",
                                  context.url(), error.message);
    }
    return fail(std::move(error));
  }
  if (response->status < 200 || response->status > 299) return fail(http::error_of(*response));
  if (response->body.empty()) return Json::object();
  return parse_json(response->body, call.url);
}

}  // namespace

void Context::say(std::string_view text) const { put(fmt::format("{}\n", text)); }

void Context::put(std::string_view text) const {
  std::FILE* out = json ? stderr : stdout;
  std::fwrite(text.data(), 1, text.size(), out);
  std::fflush(out);
}

std::string Context::url() const {
  std::string url = !url_option.empty() ? url_option : environment("TH_URL");
  if (url.empty()) url = url_in(state / "controld.json");
  if (url.empty()) url = "http://127.0.0.1:7070";
  while (url.ends_with('/')) url.pop_back();
  return url;
}

std::string Context::gateway_url() const {
  std::string url = environment("TH_GATEWAY_URL");
  if (url.empty()) url = url_in(state / "gateway.json");
  if (url.empty()) url = "http://127.0.0.1:7080";
  while (url.ends_with('/')) url.pop_back();
  return url;
}

Result<std::string> Context::key() const {
  if (!key_option.empty()) return key_option;
  if (std::string key = environment("TH_KEY"); !key.empty()) return key;
  auto file = state / "admin.key";
  auto text = read_file(file, 4096);
  if (!text) {
    bool never_started = text.error().code == Code::kNotFound;
    return fail(
        never_started ? Code::kUnavailable : Code::kUnauthenticated,
        fmt::format("no key: {} {}; pass --key or TH_KEY, choose the state folder with --state, or start a "
                    "controller with: th up --fleet FILE",
                    file.string(), never_started ? "does not exist" : "cannot be read"));
  }
  while (!text->empty() && (text->back() == '\n' || text->back() == ' ')) text->pop_back();
  return *text;
}

Result<http::Call> Context::call(std::string method, const std::string& path) const {
  TH_TRY(const std::string secret, key());
  http::Call call{.method = std::move(method), .url = url() + "/api/v1" + path, .timeout_ns = kTimeoutNs};
  call.headers.emplace_back("Authorization", "Bearer " + secret);
  call.authority_pem = authority_pem();
  return call;
}

std::string Context::authority_pem() const {
  std::filesystem::path file = authority_option;
  if (file.empty()) file = environment("TH_CA");
  if (file.empty()) file = state / "authority.pem";
  return read_file(file, size_t{1} << 20).value_or("");
}

Result<Json> Context::get(const std::string& path) const {
  return call_controller(*this, "GET", path, nullptr);
}
Result<Json> Context::post(const std::string& path, const Json& body) const {
  return call_controller(*this, "POST", path, &body);
}
Result<Json> Context::post_without_key(const std::string& path, const Json& body) const {
  return call_controller(*this, "POST", path, &body, false);
}
Result<Json> Context::patch(const std::string& path, const Json& body) const {
  return call_controller(*this, "PATCH", path, &body);
}
Result<Json> Context::del(const std::string& path) const {
  return call_controller(*this, "DELETE", path, nullptr);
}

std::string text_of(const Json& object, const char* field) {
  return object.is_object() ? get_string(object, field, "").value_or("") : "";
}
int64_t int_of(const Json& object, const char* field) {
  return object.is_object() ? get_int(object, field, 0).value_or(0) : 0;
}
double double_of(const Json& object, const char* field) {
  return object.is_object() ? get_double(object, field, 0).value_or(0) : 0;
}

const Json& list_of(const Json& object, const char* field) {
  static const Json kEmpty = Json::array();
  if (!object.is_object()) return kEmpty;
  auto it = object.find(field);
  return it != object.end() && it->is_array() ? *it : kEmpty;
}

const Json& object_of(const Json& object, const char* field) {
  static const Json kEmpty = Json::object();
  if (!object.is_object()) return kEmpty;
  auto it = object.find(field);
  return it != object.end() && it->is_object() ? *it : kEmpty;
}

tl::unexpected<Error> fail_with(std::string_view what, Error error) {
  error.message = fmt::format("{}: {}", what, error.message);
  return fail(std::move(error));
}

}  // namespace th::cli
