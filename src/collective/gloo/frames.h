#pragma once
// What ranks and the meeting at rank 0 say to each other over TCP: a length (4 bytes, little endian), a kind,
// a rank (4 bytes), a payload.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace th::collective {

enum class FrameKind : uint8_t {
  kHello = 1,  // to the meeting: Hello
  kWelcome,    // from it, once all are here: Welcome
  kAddress,    // to (from) the rank: where the sender is reached
  kBeat,       // a sign of life; to the meeting: Beat
  kBroken,     // the group is, and why: an Error
  kLeave,      // the rank is done
};

inline constexpr int32_t kNoRank = -1;

struct Frame {
  FrameKind kind = FrameKind::kBeat;
  int32_t rank = kNoRank;
  std::string payload;
};

/// Who a rank is. `memory` is the same on ranks that can share memory.
struct Hello {
  int32_t rank = 0;
  int32_t world_size = 0;
  std::string job_id;
  int32_t attempt = 0;
  std::string node;
  std::string memory;
  bool operator==(const Hello&) const = default;
};

/// Where a rank is; `memory` counts the places of shared memory in the order of their first rank.
struct Place {
  std::string node;
  int32_t memory = 0;
  bool operator==(const Place&) const = default;
};

/// Who is here, by rank, and the address at which others reach the receiver.
struct Welcome {
  std::string address;
  std::vector<Place> places;
  bool operator==(const Welcome&) const = default;
};

/// Which operation a rank is in: `round` counts them.
struct Beat {
  int64_t round = 0;
  int32_t operation = 0;
  int64_t count = 0;
  bool operator==(const Beat&) const = default;
};

std::string to_payload(const Hello& hello);
std::string to_payload(const Welcome& welcome);
std::string to_payload(const Beat& beat);
std::string to_payload(const Error& error);
// Errors: kInvalidArgument, naming the field.
Result<Hello> parse_hello(std::string_view payload);
Result<Welcome> parse_welcome(std::string_view payload);
Result<Beat> parse_beat(std::string_view payload);
Error parse_error(std::string_view payload);  // of anything: what is no code is kInternal

void append_frame(std::string& bytes, const Frame& frame);

/// Cuts a stream into frames. Errors of next(): kInvalidArgument (a kind that there is none of, over
/// `max_bytes`).
class FrameReader {
 public:
  explicit FrameReader(size_t max_bytes) : max_bytes_(max_bytes) {}
  void feed(std::string_view bytes) { bytes_ += bytes; }
  /// The next whole frame; none: more bytes are needed.
  Result<std::optional<Frame>> next();

 private:
  size_t max_bytes_;
  std::string bytes_;
};

}  // namespace th::collective
