#include "collective/gloo/frames.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace th::collective {
namespace {

constexpr size_t kHeadBytes = 9;

void append_u32(std::string& bytes, uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(value >> shift & 0xff);
}

uint32_t read_u32(std::string_view bytes) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

Result<int32_t> get_int32(const Json& json, const char* field) {
  TH_TRY(int64_t value, get_int(json, field));
  if (value < 0 || value > std::numeric_limits<int32_t>::max())
    return fail(Code::kInvalidArgument, std::string("field '") + field + "': out of range");
  return static_cast<int32_t>(value);
}

}  // namespace

std::string to_payload(const Hello& h) {
  return dump_json({{"rank", h.rank},
                    {"world_size", h.world_size},
                    {"job", h.job_id},
                    {"attempt", h.attempt},
                    {"node", h.node},
                    {"memory", h.memory}});
}

std::string to_payload(const Welcome& welcome) {
  Json places = Json::array();
  for (const Place& place : welcome.places)
    places.push_back({{"node", place.node}, {"memory", place.memory}});
  return dump_json({{"address", welcome.address}, {"places", std::move(places)}});
}

std::string to_payload(const Beat& beat) {
  return dump_json({{"round", beat.round}, {"operation", beat.operation}, {"count", beat.count}});
}

std::string to_payload(const Error& error) {
  return std::string(code_name(error.code)) + ":" + error.message;
}

Error parse_error(std::string_view payload) {
  const size_t colon = std::min(payload.find(':'), payload.size());
  const std::string_view rest = payload.substr(std::min(colon + 1, payload.size()));
  return {code_from_name(payload.substr(0, colon)), std::string(rest)};
}

Result<Hello> parse_hello(std::string_view payload) {
  TH_TRY(Json json, parse_json(payload, "hello"));
  Hello hello;
  TH_TRY(hello.rank, get_int32(json, "rank"));
  TH_TRY(hello.world_size, get_int32(json, "world_size"));
  TH_TRY(hello.job_id, get_string(json, "job"));
  TH_TRY(hello.attempt, get_int32(json, "attempt"));
  TH_TRY(hello.node, get_string(json, "node"));
  TH_TRY(hello.memory, get_string(json, "memory"));
  return hello;
}

Result<Welcome> parse_welcome(std::string_view payload) {
  TH_TRY(Json json, parse_json(payload, "welcome"));
  Welcome welcome;
  TH_TRY(welcome.address, get_string(json, "address"));
  if (!json.contains("places") || !json["places"].is_array())
    return fail(Code::kInvalidArgument, "welcome: field 'places': want a list");
  for (const Json& item : json["places"]) {
    Place place;
    TH_TRY(place.node, get_string(item, "node"));
    TH_TRY(place.memory, get_int32(item, "memory"));
    welcome.places.push_back(std::move(place));
  }
  return welcome;
}

Result<Beat> parse_beat(std::string_view payload) {
  TH_TRY(Json json, parse_json(payload, "beat"));
  Beat beat;
  TH_TRY(beat.round, get_int(json, "round"));
  TH_TRY(beat.operation, get_int32(json, "operation"));
  TH_TRY(beat.count, get_int(json, "count"));
  return beat;
}

void append_frame(std::string& bytes, const Frame& frame) {
  append_u32(bytes, static_cast<uint32_t>(frame.payload.size()));
  bytes += static_cast<char>(frame.kind);
  append_u32(bytes, static_cast<uint32_t>(frame.rank));
  bytes += frame.payload;
}

Result<std::optional<Frame>> FrameReader::next() {
  if (bytes_.size() < kHeadBytes) return std::optional<Frame>();
  const size_t size = read_u32(bytes_);
  const auto kind = static_cast<FrameKind>(bytes_[4]);
  if (kind < FrameKind::kHello || kind > FrameKind::kLeave || size > max_bytes_)
    return fail(Code::kInvalidArgument, "what arrived is not of a rank");
  if (bytes_.size() < kHeadBytes + size) return std::optional<Frame>();
  Frame frame{kind, static_cast<int32_t>(read_u32(std::string_view(bytes_).substr(5))),
              bytes_.substr(kHeadBytes, size)};
  bytes_.erase(0, kHeadBytes + size);
  return std::optional<Frame>(std::move(frame));
}

}  // namespace th::collective
