#include "http/client.h"

namespace th::http {
namespace {
constexpr size_t kMaxEventBytes = size_t{1} << 20;
}

Result<std::vector<EventReader::Event>> EventReader::feed(std::string_view piece) {
  std::vector<Event> complete;
  for (size_t at = 0; at < piece.size();) {
    if (skip_line_feed_ && piece[at] == '\n') ++at;
    skip_line_feed_ = false;
    size_t end = piece.find_first_of("\r\n", at);
    line_ += piece.substr(at, end == std::string_view::npos ? end : end - at);
    if (line_.size() + event_.data.size() > kMaxEventBytes) {
      return fail(Code::kInvalidArgument, "a server-sent event is over 1 MiB");
    }
    if (end == std::string_view::npos) break;
    skip_line_feed_ = piece[end] == '\r';
    at = end + 1;
    end_line(complete);
  }
  return complete;
}

void EventReader::end_line(std::vector<Event>& complete) {
  std::string line = std::exchange(line_, {});
  if (line.empty()) {
    Event event = std::exchange(event_, {});
    if (std::exchange(has_data_, false)) complete.push_back(std::move(event));
    return;
  }
  size_t colon = line.find(':');
  std::string_view name = std::string_view(line).substr(0, colon);
  std::string_view value =
      colon == std::string::npos ? std::string_view() : std::string_view(line).substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (name == "data") {
    if (std::exchange(has_data_, true)) event_.data += '\n';
    event_.data += value;
  } else if (name == "event") {
    event_.event = value;
  } else if (name == "id") {
    event_.id = value;
  }
}

}  // namespace th::http
