#include "http/websocket.h"

#include <openssl/evp.h>

#include <array>

#include "base/base64.h"

namespace th::http {
namespace {

constexpr unsigned kFinal = 0x80, kMasked = 0x80, kReserved = 0x70;
constexpr size_t kMaxControlBytes = 125;

void append_big_endian(std::string& out, uint64_t value, int bytes) {
  for (int i = bytes - 1; i >= 0; --i) out.push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t big_endian(std::string_view bytes) {
  uint64_t value = 0;
  for (const char byte : bytes) value = value << 8 | static_cast<unsigned char>(byte);
  return value;
}

void apply_mask(std::string& data, size_t from, std::string_view mask) {
  for (size_t i = from; i < data.size(); ++i) data[i] = static_cast<char>(data[i] ^ mask[(i - from) % 4]);
}

bool is_control(Opcode opcode) { return static_cast<unsigned>(opcode) >= 8; }

bool is_known(unsigned opcode) { return opcode <= 2 || (opcode >= 8 && opcode <= 10); }

}  // namespace

std::string socket_frame(Opcode opcode, std::string_view data, std::optional<uint32_t> mask) {
  std::string out;
  out.push_back(static_cast<char>(kFinal | static_cast<unsigned>(opcode)));
  const unsigned masked = mask ? kMasked : 0;
  const int length_bytes = data.size() < 126 ? 0 : data.size() <= 0xffff ? 2 : 8;
  const auto length = static_cast<unsigned>(data.size());
  out.push_back(static_cast<char>(masked | (length_bytes == 0 ? length : length_bytes == 2 ? 126U : 127U)));
  append_big_endian(out, data.size(), length_bytes);
  std::string key;
  if (mask) append_big_endian(key, *mask, 4);
  out += key;
  const size_t begin = out.size();
  out += data;
  if (mask) apply_mask(out, begin, key);
  return out;
}

std::string socket_accept(std::string_view key) {
  // The constant is RFC 6455's own.
  const std::string text = std::string(key) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  std::array<unsigned char, 20> digest{};
  TH_CHECK(EVP_Digest(text.data(), text.size(), digest.data(), nullptr, EVP_sha1(), nullptr) == 1);
  return to_base64({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

Result<std::vector<SocketMessage>> SocketReader::feed(std::string_view bytes) {
  if (broken_) return fail(*broken_);
  input_ += bytes;
  std::vector<SocketMessage> whole;
  while (true) {
    const Result<bool> taken = take_frame(whole);
    if (!taken) broken_ = taken.error();
    if (!taken && whole.empty()) return fail(*broken_);
    if (!taken || !*taken) return whole;  // what came before the fault is still handed out
  }
}

/// Returns: there was a whole frame.
Result<bool> SocketReader::take_frame(std::vector<SocketMessage>& whole) {
  if (input_.size() < 2) return false;
  const auto first = static_cast<unsigned char>(input_[0]), second = static_cast<unsigned char>(input_[1]);
  const auto opcode = static_cast<Opcode>(first & 0x0f);
  const bool final = first & kFinal;
  if ((first & kReserved) != 0 || !is_known(first & 0x0f) || ((second & kMasked) != 0) != masked_)
    return fail(Code::kInvalidArgument, "what came is no WebSocket frame");
  size_t at = 2;
  uint64_t length = second & 0x7f;
  const size_t length_bytes = length == 126 ? 2 : length == 127 ? 8 : 0;
  if (is_control(opcode) && (!final || length > kMaxControlBytes))
    return fail(Code::kInvalidArgument, "a WebSocket control frame is too long or in pieces");
  if (input_.size() < at + length_bytes) return false;
  if (length_bytes) length = big_endian(std::string_view(input_).substr(at, length_bytes));
  at += length_bytes;
  const size_t before = is_control(opcode) ? 0 : partial_.data.size();
  if (length > max_bytes_ || before + length > max_bytes_)
    return fail(Code::kResourceExhausted,
                "a WebSocket message is over " + std::to_string(max_bytes_) + " bytes");
  const size_t mask_at = at;
  if (masked_) at += 4;
  if (input_.size() < at + length) return false;
  std::string data = input_.substr(at, length);
  if (masked_) apply_mask(data, 0, std::string_view(input_).substr(mask_at, 4));
  input_.erase(0, at + length);
  if (is_control(opcode)) {
    whole.push_back({opcode, std::move(data)});
    return true;
  }
  if ((opcode == Opcode::kContinuation) != in_message_)
    return fail(Code::kInvalidArgument, "a WebSocket message's frames are out of order");
  if (!in_message_) partial_ = {opcode, {}};
  partial_.data += data;
  in_message_ = !final;
  if (final) whole.push_back(std::exchange(partial_, {}));
  return true;
}

}  // namespace th::http
