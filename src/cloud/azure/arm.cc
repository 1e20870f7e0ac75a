#include "cloud/azure/arm.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/units.h"
#include "cloud/azure/requests.h"
#include "http/url.h"

namespace th::cloud::azure {
namespace {

constexpr int64_t kCallNs = 60 * kSecond;  // one answer
constexpr int64_t kFirstRetryNs = kSecond, kLastRetryNs = 30 * kSecond;
constexpr int64_t kPollNs = 5 * kSecond, kMaxRetryAfterNs = kHour;
constexpr int64_t kSliceNs = kSecond;  // between looks whether to go on
constexpr int64_t kTokenSlackNs = 5 * kMinute;
constexpr const char* kResource = "https://management.azure.com/";
constexpr const char* kScope = "https://management.azure.com/.default";

/// None: the answer does not say.
std::optional<int64_t> retry_after_ns(const http::Response& response, int64_t now_ns) {
  const auto text = response.header("Retry-After");
  if (!text) return std::nullopt;
  int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), seconds);
  if (error == std::errc() && end == text->data() + text->size() && seconds >= 0)
    return std::min(seconds, kMaxRetryAfterNs / kSecond) * kSecond;
  if (const auto date = parse_http_date_ns(*text))
    return std::clamp<int64_t>(*date - now_ns, 0, kMaxRetryAfterNs);
  return std::nullopt;
}

void replace_all(std::string& text, const std::string& secret) {
  if (secret.size() < 4) return;
  for (size_t at; (at = text.find(secret)) != std::string::npos;) text.replace(at, secret.size(), "(secret)");
}

}  // namespace

bool Arm::wait(int64_t ns, int64_t deadline_ns) {
  if (now_ns() + ns >= deadline_ns) return false;
  for (int64_t left_ns = ns; left_ns > 0 && !interrupted_; left_ns -= kSliceNs)
    world_.wait(std::min(left_ns, kSliceNs));
  return !interrupted_;
}

Error Arm::without_secrets(Error error) {
  replace_all(error.message, options_.client_secret);
  replace_all(error.message, options_.node_secret);
  std::scoped_lock lock(mutex_);
  replace_all(error.message, token_.secret);
  return error;
}

bool Arm::is_ours(const std::string& url) const { return url.starts_with(options_.arm_url + "/"); }

Result<http::Response> Arm::send(const Ask& ask, Key key, const http::Headers& headers, int64_t deadline_ns) {
  int64_t retry_ns = kFirstRetryNs;
  bool renewed = false;
  while (true) {
    const int64_t left_ns = deadline_ns - now_ns();
    if (left_ns <= 0)
      return fail(Code::kDeadlineExceeded, "Azure, " + ask.what + ": no time left; try again");
    http::Call call{ask.method, ask.url.starts_with('/') ? options_.arm_url + ask.url : ask.url, headers,
                    ask.body, std::min(left_ns, kCallNs)};
    if (key == Key::kToken) {
      TH_TRY(const std::string secret, token(deadline_ns));
      call.headers.emplace_back("Authorization", "Bearer " + secret);
    }
    const auto response = world_.fetch(call);
    if (response && response->status >= 200 && response->status <= 299) return *response;
    Error error = response ? error_of_fault(response->status, read_fault(response->body), ask.what, ask.spot)
                           : response.error();
    error = without_secrets(std::move(error));
    if (response && response->status == 401 && key == Key::kToken && !renewed) {
      std::scoped_lock lock(mutex_);
      token_expires_ns_ = 0, renewed = true;
      continue;
    }
    const bool lost = !response && error.code == Code::kDeadlineExceeded;
    if (error.code != Code::kUnavailable && !lost) return fail(error);
    const auto told_ns = response ? retry_after_ns(*response, now_ns()) : std::nullopt;
    if (!wait(told_ns.value_or(retry_ns), deadline_ns)) {
      if (told_ns) error.message += fmt::format(" after {}", format_duration(*told_ns));
      return fail(error);
    }
    retry_ns = std::min(retry_ns * 2, kLastRetryNs);
  }
}

Result<http::Response> Arm::ask(const Ask& ask, int64_t deadline_ns) {
  if (!ask.url.starts_with('/') && !is_ours(ask.url))
    return fail(Code::kInternal,
                "Azure, " + ask.what + ": is told to go on at an address that is not Azure's");
  http::Headers headers;
  if (!ask.body.empty()) headers.emplace_back("Content-Type", "application/json");
  if (ask.only_new) headers.emplace_back("If-None-Match", "*");
  return send(ask, Key::kToken, headers, deadline_ns);
}

Result<http::Response> Arm::ask_openly(const Ask& ask, int64_t deadline_ns) {
  http::Headers headers;
  if (!ask.body.empty()) headers.emplace_back("Content-Type", "application/json");
  if (ask.url.starts_with(options_.metadata_url)) headers.emplace_back("Metadata", "true");
  return send(ask, Key::kNone, headers, deadline_ns);
}

Status Arm::carry_out(const Ask& ask, int64_t deadline_ns) {
  TH_TRY(const http::Response first, this->ask(ask, deadline_ns));
  return follow(ask, first, deadline_ns);
}

/// Azure-AsyncOperation where there is one, else Location (learn.microsoft.com, asynchronous operations).
Status Arm::follow(const Ask& ask, const http::Response& first, int64_t deadline_ns) {
  const auto operation = first.header("Azure-AsyncOperation");
  const auto location = first.status == 202 ? first.header("Location") : std::nullopt;
  if (!operation && !location) return {};
  Ask poll{ask.what, "GET", operation ? *operation : *location};
  int64_t next_ns = retry_after_ns(first, now_ns()).value_or(kPollNs);
  while (wait(std::max(next_ns, kSecond), deadline_ns)) {
    TH_TRY(const http::Response answer, this->ask(poll, deadline_ns));
    if (operation) {
      TH_TRY(const Operation state, read_operation(answer.body));
      if (state.state == Operation::State::kSucceeded) return {};
      if (state.state == Operation::State::kFailed)
        return fail(without_secrets(error_of_fault(0, state.fault, ask.what, ask.spot)));
    } else if (answer.status != 202) {
      return {};
    }
    next_ns = retry_after_ns(answer, now_ns()).value_or(kPollNs);
  }
  return fail(Code::kDeadlineExceeded, "Azure, " + ask.what + ": takes longer; ask again");
}

Result<std::string> Arm::token(int64_t deadline_ns) {
  {
    std::scoped_lock lock(mutex_);
    if (now_ns() < token_expires_ns_) return token_.secret;
  }
  TH_TRY(const http::Response answer, ask_for_token(deadline_ns));
  TH_TRY(Token token, read_token(answer.body));
  std::scoped_lock lock(mutex_);
  token_ = std::move(token);
  token_expires_ns_ =
      now_ns() + std::clamp<int64_t>(token_.lifetime_s, 0, kDay / kSecond) * kSecond - kTokenSlackNs;
  return token_.secret;
}

Result<http::Response> Arm::ask_for_token(int64_t deadline_ns) {
  using http::percent_encode;
  if (options_.client_secret.empty()) {
    std::string url = fmt::format("{}/metadata/identity/oauth2/token?api-version={}&resource={}",
                                  options_.metadata_url, kIdentityVersion, percent_encode(kResource));
    if (!options_.client_id.empty()) url += "&client_id=" + percent_encode(options_.client_id);
    return ask_openly({"asking for the managed identity's token", "GET", url}, deadline_ns);
  }
  Ask ask{fmt::format("signing in as {} of tenant {}", options_.client_id, options_.tenant), "POST",
          fmt::format("{}/{}/oauth2/v2.0/token", options_.login_url, percent_encode(options_.tenant))};
  ask.body = fmt::format("grant_type=client_credentials&client_id={}&client_secret={}&scope={}",
                         percent_encode(options_.client_id), percent_encode(options_.client_secret),
                         percent_encode(kScope));
  return send(ask, Key::kNone, {{"Content-Type", "application/x-www-form-urlencoded"}}, deadline_ns);
}

}  // namespace th::cloud::azure
