#pragma once
// Text from a deployment, through the gateway.

#include <functional>
#include <string>
#include <string_view>

#include "context.h"
#include "http/message.h"

namespace th::cli {

struct Completion {
  std::string text;
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  double seconds = 0;  // of the answer, from the request to its end
};

/// POSTs to a completions or chat route of the gateway; with "stream":true in the body the text comes piece
/// by piece. A gateway that does not know the key or the deployment yet is asked again for a few seconds.
/// Errors: the gateway's, kUnavailable, kCancelled (interrupted).
Result<Completion> complete(const std::string& url, const http::Headers& headers, const Json& body,
                            const std::function<void(std::string_view)>& on_text);

/// A user key for the gateway: TH_KEY, else one that is made at need and kept in STATE/chat.key (0600).
Result<std::string> gateway_key(Context& context);

}  // namespace th::cli
