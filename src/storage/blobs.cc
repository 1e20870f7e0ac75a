#include "storage/blobs.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/base64.h"
#include "base/env.h"
#include "base/json.h"
#include "base/text.h"
#include "http/url.h"
#include "storage/digest.h"

namespace th::storage {
namespace {

constexpr const char* kVersion = "2021-12-02";
constexpr int64_t kFirstRetryNs = kSecond / 2, kLastRetryNs = 15 * kSecond;
constexpr int64_t kSliceNs = kSecond / 10;  // between looks whether to go on
constexpr int64_t kTokenSlackNs = 5 * kMinute;
constexpr int kMaxPages = 10'000;

int64_t now_ns() { return Env::real().monotonic_ns(); }

std::string http_date() {
  return fmt::format("{:%a, %d %b %Y %H:%M:%S GMT}", fmt::gmtime(std::time(nullptr)));
}

/// Each part encoded, the slashes between them kept.
std::string encode_path(std::string_view name) {
  std::vector<std::string> parts = split(name, '/');
  for (std::string& part : parts) part = http::percent_encode(part);
  return join(parts, "/");
}

std::optional<int64_t> retry_after_ns(const http::Response& response) {
  const auto text = response.header("Retry-After");
  int64_t seconds = 0;
  if (!text) return std::nullopt;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), seconds);
  if (error != std::errc() || end != text->data() + text->size() || seconds < 0) return std::nullopt;
  return std::min<int64_t>(seconds, 3600) * kSecond;
}

void hide(std::string& text, std::string_view secret) {
  if (secret.size() < 8) return;
  for (size_t at; (at = text.find(secret)) != std::string::npos;) text.replace(at, secret.size(), "(secret)");
}

}  // namespace

std::string string_to_sign(const std::string& method, const http::Headers& headers, size_t body_bytes,
                           const std::string& account, const std::string& path,
                           const std::map<std::string, std::string>& query) {
  const auto header = [&](const char* name) { return http::find_header(headers, name).value_or(""); };
  std::string out = method + "\n";
  for (const char* name : {"Content-Encoding", "Content-Language"}) out += header(name) + "\n";
  out += (body_bytes > 0 ? std::to_string(body_bytes) : "") + "\n";
  for (const char* name : {"Content-MD5", "Content-Type", "Date", "If-Modified-Since", "If-Match",
                           "If-None-Match", "If-Unmodified-Since", "Range"})
    out += header(name) + "\n";
  std::map<std::string, std::string> canonical;
  for (const auto& [name, value] : headers) {
    std::string lower = name;
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    if (lower.starts_with("x-ms-")) canonical[lower] = value;
  }
  for (const auto& [name, value] : canonical) out += name + ":" + value + "\n";
  out += "/" + account + path;
  for (const auto& [name, value] : query) out += "\n" + name + ":" + value;
  return out;
}

Blobs::Blobs(Account account, std::string container, BlobsOptions options)
    : account_(std::move(account)), container_(std::move(container)), options_(std::move(options)) {
  TH_CHECK(options_.connections > 0 && options_.block_bytes > 0);
}

std::string Blobs::place_of(const std::string& name) const { return "az://" + container_ + "/" + name; }

void Blobs::note_moved(int64_t bytes) const {
  if (options_.moved) options_.moved(bytes);
}

Error Blobs::without_secrets(Error error) {
  hide(error.message, account_.sas);
  hide(error.message, account_.client_secret);
  const size_t sig = account_.sas.find("sig=");
  if (sig != std::string::npos) hide(error.message, account_.sas.substr(sig + 4));
  if (!account_.key.empty()) hide(error.message, to_base64(account_.key));
  std::scoped_lock lock(mutex_);
  hide(error.message, token_);
  return error;
}

/// Returns: whether there was time to.
bool Blobs::wait(int64_t ns, int64_t deadline_ns) const {
  const int64_t end_ns = now_ns() + ns;
  if (end_ns >= deadline_ns) return false;
  while (now_ns() < end_ns && !stopped()) std::this_thread::sleep_for(std::chrono::nanoseconds(kSliceNs));
  return !stopped();
}

http::Call Blobs::call_for_token() const {
  http::Call call;
  call.timeout_ns = 10 * kSecond;
  if (account_.client_secret.empty()) {
    call.url = account_.metadata_url + "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=" +
               http::percent_encode("https://storage.azure.com/");
    if (!account_.client_id.empty()) call.url += "&client_id=" + http::percent_encode(account_.client_id);
    call.headers = {{"Metadata", "true"}};
    return call;
  }
  call.method = "POST";
  call.url =
      fmt::format("{}/{}/oauth2/v2.0/token", account_.login_url, http::percent_encode(account_.tenant));
  call.headers = {{"Content-Type", "application/x-www-form-urlencoded"}};
  call.body =
      fmt::format("grant_type=client_credentials&client_id={}&client_secret={}&scope={}",
                  http::percent_encode(account_.client_id), http::percent_encode(account_.client_secret),
                  http::percent_encode("https://storage.azure.com/.default"));
  return call;
}

Result<std::string> Blobs::token() {
  std::scoped_lock lock(mutex_);
  if (!token_.empty() && now_ns() < token_expires_ns_) return token_;
  auto response = http::fetch(call_for_token());
  if (!response || response->status >= 500 || response->status == 429)
    return fail(Code::kUnavailable, fmt::format("no token from {}: {}", account_.source,
                                                response ? fmt::format("status {}", response->status)
                                                         : response.error().message));
  auto json = parse_json(response->body, "token");
  auto secret = json ? get_string(*json, "access_token") : fail(json.error());
  if (response->status != 200 || !secret || secret->empty())
    return fail(
        Code::kUnauthenticated,
        fmt::format(
            "no token for storage from {} (status {}); give this machine a managed identity, or check "
            "AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and AZURE_TENANT_ID, or set AZURE_STORAGE_KEY",
            account_.source, response->status));
  // A number from one service, its digits from the other.
  const auto number = get_int(*json, "expires_in");
  const int64_t lifetime_s =
      number ? *number : std::atoll(get_string(*json, "expires_in", "3600").value_or("3600").c_str());
  token_ = *std::move(secret);
  token_expires_ns_ = now_ns() + std::clamp<int64_t>(lifetime_s, 600, 86'400) * kSecond - kTokenSlackNs;
  return token_;
}

Result<http::Call> Blobs::call_of(const Ask& ask) {
  http::Call call;
  call.method = ask.method, call.headers = ask.headers, call.body = ask.body;
  call.timeout_ns = options_.call_ns, call.max_body_bytes = ask.max_body_bytes;
  call.headers.emplace_back("x-ms-version", kVersion);
  call.headers.emplace_back("x-ms-date", http_date());
  const std::string below = "/" + container_ + (ask.name.empty() ? "" : "/" + encode_path(ask.name));
  call.url = account_.endpoint + below;
  char separator = '?';
  for (const auto& [name, value] : ask.query) {
    call.url += separator + name + "=" + http::percent_encode(value);
    separator = '&';
  }
  if (!account_.sas.empty()) call.url += separator + account_.sas;
  if (account_.identity) {
    TH_TRY(const std::string secret, token());
    call.headers.emplace_back("Authorization", "Bearer " + secret);
  }
  if (account_.key.empty()) return call;
  TH_TRY(const http::Url url, http::parse_url(account_.endpoint));
  const std::string path = (url.target == "/" ? "" : url.target) + below;
  const std::string text =
      string_to_sign(ask.method, call.headers, ask.body.size(), account_.name, path, ask.query);
  call.headers.emplace_back("Authorization", fmt::format("SharedKey {}:{}", account_.name,
                                                         to_base64(hmac_sha256(account_.key, text))));
  return call;
}

Result<http::Response> Blobs::send(const Ask& ask) {
  const int64_t deadline_ns = now_ns() + options_.retry_ns;
  int64_t retry_ns = kFirstRetryNs;
  while (true) {
    if (stopped()) return fail(Code::kCancelled, ask.what + ": stopped");
    auto call = call_of(ask);
    Result<http::Response> response = call ? http::fetch(*call) : fail(call.error());
    if (response && response->status >= 200 && response->status <= 299) return response;
    std::optional<int64_t> told_ns;
    Error error;
    if (response) {
      Fault fault = read_fault(response->body);
      if (fault.code.empty()) fault.code = response->header("x-ms-error-code").value_or("");
      error = error_of_fault(response->status, fault, ask.what, account_.source);
      told_ns = retry_after_ns(*response);
    } else {
      error = {response.error().code, ask.what + ": " + response.error().message};
    }
    error = without_secrets(std::move(error));
    if (error.code != Code::kUnavailable && error.code != Code::kDeadlineExceeded) return fail(error);
    if (!wait(told_ns.value_or(retry_ns), deadline_ns)) return fail(error);
    retry_ns = std::min(retry_ns * 2, kLastRetryNs);
  }
}

Status Blobs::put(const std::string& name, std::string_view bytes, bool only_new) {
  Ask ask{.what = "writing " + place_of(name), .method = "PUT", .name = name, .body = std::string(bytes)};
  ask.headers = {{"x-ms-blob-type", "BlockBlob"},
                 {"Content-Type", "application/octet-stream"},
                 {"Content-MD5", to_base64(md5(bytes))},
                 {"x-ms-meta-sha256", sha256_hex(bytes)}};
  if (only_new) ask.headers.emplace_back("If-None-Match", "*");
  TH_TRY(const auto response, send(ask));
  static_cast<void>(response);
  return {};
}

Result<std::string> Blobs::get(const std::string& name, size_t max_bytes) {
  Ask ask{.what = "reading " + place_of(name), .name = name, .max_body_bytes = max_bytes};
  auto response = send(ask);
  if (!response && response.error().code == Code::kResourceExhausted)
    return fail(Code::kDataLoss, response.error().message);
  if (!response) return fail(response.error());
  return std::move(response->body);
}

Result<std::optional<Blob>> Blobs::find(const std::string& name) {
  const auto response = send({.what = "looking for " + place_of(name), .method = "HEAD", .name = name});
  // A HEAD's answer has no body: that the container is missing stands in its header alone.
  if (!response && response.error().code == Code::kNotFound &&
      response.error().message.find("ContainerNotFound") == std::string::npos)
    return std::optional<Blob>();
  if (!response) return fail(response.error());
  const std::string length = response->header("Content-Length").value_or("0");
  return Blob{name, std::atoll(length.c_str()), response->header("x-ms-meta-sha256").value_or("")};
}

Result<std::vector<Blob>> Blobs::list(const std::string& prefix) {
  Ask ask{.what = "listing " + place_of(prefix)};
  ask.query = {{"restype", "container"}, {"comp", "list"}, {"prefix", prefix}};
  std::vector<Blob> all;
  for (int i = 0; i < kMaxPages; ++i) {
    TH_TRY(const http::Response response, send(ask));
    TH_TRY(ListPage page, read_list(response.body));
    std::move(page.blobs.begin(), page.blobs.end(), std::back_inserter(all));
    if (page.next.empty()) return all;
    ask.query["marker"] = page.next;
  }
  return fail(Code::kUnavailable, ask.what + ": a list without end");
}

Status Blobs::remove(const std::string& name) {
  const auto response = send({.what = "removing " + place_of(name), .method = "DELETE", .name = name});
  if (!response && response.error().code != Code::kNotFound) return fail(response.error());
  return {};
}

}  // namespace th::storage
