#include "completion.h"

#include <fmt/format.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/files.h"
#include "base/units.h"
#include "http/client.h"
#include "http/url.h"
#include "terminal.h"

namespace th::cli {
namespace {

constexpr int64_t kLearnNs = 10 * kSecond;  // the gateway hears of keys and deployments by polling
constexpr int64_t kIdleNs = 60 * kSecond;
constexpr int kKeyTries = 2;

std::string text_of_choice(const Json& answer) {
  const Json& choices = list_of(answer, "choices");
  if (choices.empty()) return "";
  const Json& choice = choices.front();
  for (const char* field : {"delta", "message"}) {
    if (const Json& message = object_of(choice, field); !message.empty()) return text_of(message, "content");
  }
  return text_of(choice, "text");
}

void read_usage(const Json& answer, Completion& completion) {
  const Json& usage = object_of(answer, "usage");
  if (usage.empty()) return;
  completion.prompt_tokens = int_of(usage, "prompt_tokens");
  completion.completion_tokens = int_of(usage, "completion_tokens");
}

Result<Completion> complete_at_once(const http::Call& call,
                                    const std::function<void(std::string_view)>& on_text) {
  TH_TRY(Json answer, http::fetch_json(call));
  Completion completion{.text = text_of_choice(answer)};
  read_usage(answer, completion);
  on_text(completion.text);
  return completion;
}

/// One streamed answer; the callbacks fill it on the client's thread.
class StreamedAnswer {
 public:
  Result<Completion> run(http::Call call, const std::function<void(std::string_view)>& on_text) {
    http::Client client;
    auto handle =
        client.start(std::move(call),
                     {.on_head = [this](int status, const http::Headers&) { refusal_.status = status; },
                      .on_data = [this, &on_text](std::string_view piece) { return take(piece, on_text); },
                      .on_end =
                          [this](Status end) {
                            std::scoped_lock lock(mutex_);
                            end_ = std::move(end);
                            ended_.notify_one();
                          }});
    std::unique_lock lock(mutex_);
    while (!end_) {
      ended_.wait_for(lock, std::chrono::milliseconds(100));
      if (interrupted()) http::Client::cancel(handle);
    }
    if (refusal_.status != 200 && !refusal_.body.empty()) return fail(http::error_of(refusal_));
    if (problem_) return fail(*problem_);
    if (!*end_) return fail(std::move(*end_).error());
    return completion_;
  }

 private:
  bool take(std::string_view piece, const std::function<void(std::string_view)>& on_text) {
    if (refusal_.status != 200) {
      refusal_.body += piece;
      return refusal_.body.size() < size_t{1} << 20;
    }
    auto events = reader_.feed(piece);
    if (!events) return stop(events.error());
    for (const auto& event : *events) {
      if (event.data == "[DONE]") continue;
      auto chunk = parse_json(event.data, "event of the stream");
      if (!chunk) return stop(chunk.error());
      if (!object_of(*chunk, "error").empty()) return stop(http::error_of({500, {}, event.data}));
      read_usage(*chunk, completion_);
      std::string text = text_of_choice(*chunk);
      completion_.text += text;
      if (!text.empty()) on_text(text);
    }
    return true;
  }
  bool stop(Error error) {
    problem_ = std::move(error);
    return false;
  }

  std::mutex mutex_;
  std::condition_variable ended_;
  std::optional<Status> end_;  // by mutex_; the rest is read after it is set
  http::Response refusal_;
  std::optional<Error> problem_;
  http::EventReader reader_;
  Completion completion_;
};

}  // namespace

Result<Completion> complete(const Context& context, const std::string& url, const http::Headers& headers,
                            const Json& body, const std::function<void(std::string_view)>& on_text) {
  bool streamed = get_bool(body, "stream", false).value_or(false);
  http::Call call{.method = "POST", .url = url, .headers = headers, .body = dump_json(body)};
  call.authority_pem = context.authority_pem();
  call.timeout_ns = 2 * kMinute;
  call.idle_timeout_ns = kIdleNs;
  call.headers.emplace_back("Content-Type", "application/json");
  int64_t begin = monotonic_now_ns();
  bool any_text = false;
  auto pass_on = [&](std::string_view text) {
    any_text = true;
    on_text(text);
  };
  while (true) {
    int64_t asked = monotonic_now_ns();
    auto completion = streamed ? StreamedAnswer().run(call, pass_on) : complete_at_once(call, pass_on);
    if (completion) {
      completion->seconds = double(monotonic_now_ns() - asked) / kSecond;
      return completion;
    }
    Code code = completion.error().code;
    bool may_learn = code == Code::kUnauthenticated || code == Code::kNotFound || code == Code::kUnavailable;
    if (!may_learn || any_text || monotonic_now_ns() - begin > kLearnNs || !pause_ms(200)) return completion;
  }
}

Result<Json> create_key(const Context& context, const Json& body) {
  // Where the first answer was lost, the repeat is told of the key but not its secret: nobody has that one.
  for (int i = 0; i < kKeyTries; ++i) {
    TH_TRY(Json made, context.post("/keys", body));
    if (!text_of(made, "key").empty()) return made;
    TH_TRY(Json revoked, context.del("/keys/" + http::percent_encode(text_of(made, "id"))));
  }
  return fail(Code::kUnavailable,
              "the connection to the controller broke whenever it told a new key; try again");
}

Result<std::string> gateway_key(const Context& context) {
  const char* variable = std::getenv("TH_KEY");
  std::string given = !context.key_option.empty() ? context.key_option : variable != nullptr ? variable : "";
  auto keys = context.get("/keys");  // for admins only; the gateway knows users' keys only
  if (!keys) {
    Code code = keys.error().code;
    bool of_user = code == Code::kPermissionDenied || code == Code::kUnavailable;
    if (of_user && !given.empty()) return given;
    return fail(std::move(keys).error());
  }
  auto file = context.state / "chat.key";
  if (auto kept = read_file(file, 4096)) {
    auto json = parse_json(*kept, file.string());
    // It may have been revoked since.
    for (const Json& key : list_of(*keys)) {
      bool revoked = get_bool(key, "revoked", false).value_or(false);
      if (json && !revoked && text_of(key, "id") == text_of(*json, "id")) return text_of(*json, "key");
    }
  }
  TH_TRY(Json made, create_key(context, {{"name", "th-chat"}}));
  TH_RETURN_IF_ERROR(write_file_durable(
      file, dump_json({{"id", text_of(made, "id")}, {"key", text_of(made, "key")}}), 0600));
  return text_of(made, "key");
}

}  // namespace th::cli
