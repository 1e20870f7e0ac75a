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
Result<Completion> complete(const Context& context, const std::string& url, const http::Headers& headers,
                            const Json& body, const std::function<void(std::string_view)>& on_text);

/// Creates a key of what POST /keys takes; returns its answer, the key never empty. Errors: the controller's;
/// kUnavailable when the answer that holds the secret was lost each time (such keys are revoked).
Result<Json> create_key(const Context& context, const Json& body);

/// A user's key for the gateway: --key or TH_KEY, unless that is an admin's, which the gateway does not know;
/// then, and without either, one that is made at need and kept in STATE/chat.key (0600).
Result<std::string> gateway_key(const Context& context);

}  // namespace th::cli
