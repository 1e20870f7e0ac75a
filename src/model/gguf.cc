#include "model/gguf.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <span>
#include <vector>

#include "base/bf16.h"
#include "base/files.h"
#include "model/gguf_metadata.h"

namespace th::model {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kAlignment = 32, kChunkValues = int64_t{1} << 20, kBlock = 32;

// Numbers that the format has for a tensor's type (ggml_type) and for what most of a file is
// (general.file_type).
struct TypeFacts {
  GgufType type;
  std::string_view name;
  uint32_t tensor_type, file_type;
};
constexpr TypeFacts kTypes[] = {{GgufType::kF32, "f32", 0, 0},
                                {GgufType::kF16, "f16", 1, 1},
                                {GgufType::kBf16, "bf16", 30, 32},
                                {GgufType::kQ8_0, "q8_0", 8, 7}};

const TypeFacts& facts(GgufType type) { return *std::ranges::find(kTypes, type, &TypeFacts::type); }

struct Entry {
  std::string name;
  const Parameter* parameter;
  GgufType type;
  bool rotary;      // rows of q or k
  int64_t columns;  // values of a row, what GGUF names first
  uint64_t offset;  // from the begin of the tensors
};

// Hugging Face's names without ".weight" and ".bias", and GGUF's.
constexpr std::pair<std::string_view, std::string_view> kOutside[] = {
    {"model.embed_tokens", "token_embd"}, {"lm_head", "output"},
    {"model.norm", "output_norm"},        {"transformer.wte", "token_embd"},
    {"transformer.wpe", "position_embd"}, {"transformer.ln_f", "output_norm"}};
constexpr std::pair<std::string_view, std::string_view> kInLayer[] = {
    {"input_layernorm", "attn_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
    {"ln_1", "attn_norm"},
    {"attn.c_attn", "attn_qkv"},
    {"attn.c_proj", "attn_output"},
    {"ln_2", "ffn_norm"},
    {"mlp.c_fc", "ffn_up"},
    {"mlp.c_proj", "ffn_down"}};

std::string gguf_name(std::string_view name) {
  const size_t dot = name.rfind('.');
  std::string_view stem = name.substr(0, dot), kind = name.substr(dot);
  for (const std::string_view prefix : {"model.layers.", "transformer.h."}) {
    if (!stem.starts_with(prefix)) continue;
    stem.remove_prefix(prefix.size());
    const std::string_view layer = stem.substr(0, stem.find('.'));
    const auto* found = std::ranges::find(kInLayer, stem.substr(layer.size() + 1),
                                          &std::pair<std::string_view, std::string_view>::first);
    TH_CHECK(found != std::end(kInLayer));
    return fmt::format("blk.{}.{}{}", layer, found->second, kind);
  }
  const auto* found =
      std::ranges::find(kOutside, stem, &std::pair<std::string_view, std::string_view>::first);
  TH_CHECK(found != std::end(kOutside));
  return fmt::format("{}{}", found->second, kind);
}

uint64_t stored_bytes(GgufType type, int64_t values) {
  const auto n = static_cast<uint64_t>(values);
  if (type == GgufType::kF32) return 4 * n;
  return type == GgufType::kQ8_0 ? n / kBlock * (2 + kBlock) : 2 * n;
}

uint64_t aligned(uint64_t at) { return (at + kAlignment - 1) / kAlignment * kAlignment; }

std::vector<Entry> plan(const ParameterLayout& layout, GgufType wanted, uint64_t& size) {
  std::vector<Entry> entries;
  size = 0;
  for (const Parameter& p : layout.parameters) {
    const std::string name = gguf_name(p.name);
    const bool is_wide = p.shape.size() == 1 || name == "position_embd.weight";
    GgufType type = is_wide ? GgufType::kF32 : wanted;
    if (type == GgufType::kQ8_0 && p.shape.back() % kBlock != 0) type = GgufType::kF16;
    const bool rotary = p.name.ends_with("q_proj.weight") || p.name.ends_with("k_proj.weight");
    entries.push_back({name, &p, type, rotary, p.shape.back(), size});
    size = aligned(size + stored_bytes(type, p.size));
  }
  return entries;
}

/// IEEE half precision, to the nearest, of two as near to the even one; 65520 and beyond: infinity.
uint16_t to_half(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  uint32_t half = 0;
  if (magnitude >= 0x477ff000) {
    half = 0x7c00;
  } else if (magnitude >= 0x38800000) {  // 2^-14, the smallest normal one
    half = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
  } else {
    half = static_cast<uint32_t>(std::nearbyint(std::ldexp(std::bit_cast<float>(magnitude), 24)));
  }
  return static_cast<uint16_t>(sign | half);
}

bool is_infinite(uint16_t half) { return (half & 0x7fff) == 0x7c00; }

/// Nothing when a value is beyond the type; else appends the bytes.
bool append_q8_0(std::string& bytes, std::span<const float> block) {
  float largest = 0;
  for (const float value : block) largest = std::max(largest, std::abs(value));
  const float scale = largest / 127, inverse = scale != 0 ? 1 / scale : 0;
  append_value(bytes, to_half(scale));
  for (const float value : block)
    bytes += static_cast<char>(static_cast<int8_t>(std::round(value * inverse)));
  return !is_infinite(to_half(scale));
}

bool append_values(std::string& bytes, GgufType type, std::span<const float> values) {
  bool fits = true;
  if (type == GgufType::kF32) {
    bytes.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  } else if (type == GgufType::kQ8_0) {
    for (size_t i = 0; i < values.size(); i += kBlock) fits &= append_q8_0(bytes, values.subspan(i, kBlock));
  } else {
    for (const float value : values) {
      const uint16_t narrow = type == GgufType::kF16 ? to_half(value) : to_bf16(value).bits;
      fits &= !is_infinite(narrow) || type == GgufType::kBf16;
      append_value(bytes, narrow);
    }
  }
  return fits;
}

/// The rows of whole heads as llama.cpp rotates them. Hugging Face turns element i of a head with element
/// i + head_dim/2, llama.cpp neighbours 2i and 2i + 1 (LlamaModel.permute of its converter): row 2i + j of a
/// head is Hugging Face's row j·head_dim/2 + i.
void interleave_heads(std::span<float> rows, int64_t columns, int64_t head_dim, std::vector<float>& scratch) {
  scratch.assign(rows.begin(), rows.end());
  const int64_t count = static_cast<int64_t>(rows.size()) / columns;
  for (int64_t row = 0; row < count; ++row) {
    const int64_t in_head = row % head_dim;
    const int64_t from = row - in_head + in_head % 2 * (head_dim / 2) + in_head / 2;
    std::copy_n(scratch.begin() + from * columns, columns, rows.begin() + row * columns);
  }
}

/// A temporary file beside `path`, which takes its place at the end.
class Output {
 public:
  explicit Output(const fs::path& path)
      : path_(path), temporary_(path.string() + fmt::format(".tmp-{}", ::getpid())) {}
  ~Output() {
    if (fd_) ::unlink(temporary_.c_str());
  }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  Status open() {
    fd_ = UniqueFd(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    return fd_ ? Status{} : failed("opening");
  }
  Status write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_.get(), bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return failed("writing");
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return {};
  }
  Status finish() {
    if (::fsync(fd_.get()) != 0) return failed("syncing");
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) return failed("renaming");
    fd_ = UniqueFd();
    return sync_folder(path_.has_parent_path() ? path_.parent_path() : ".");
  }

 private:
  Status failed(std::string_view doing) const {
    return fail(errno_error(fmt::format("{} {}", doing, temporary_.string()), errno));
  }
  fs::path path_, temporary_;
  UniqueFd fd_;
};

/// Magic, version, counts, metadata, where each tensor lies; filled up to where the first begins.
std::string header_of(const GgufMetadata& metadata, std::span<const Entry> entries) {
  std::string bytes = "GGUF";
  append_value<uint32_t>(bytes, 3);
  append_value<uint64_t>(bytes, entries.size());
  append_value<uint64_t>(bytes, metadata.count());
  bytes += metadata.bytes();
  for (const Entry& entry : entries) {
    append_text(bytes, entry.name);
    const std::vector<int64_t>& shape = entry.parameter->shape;
    append_value(bytes, static_cast<uint32_t>(shape.size()));
    for (auto dimension = shape.rbegin(); dimension != shape.rend(); ++dimension)
      append_value(bytes, static_cast<uint64_t>(*dimension));
    append_value(bytes, facts(entry.type).tensor_type);
    append_value(bytes, entry.offset);
  }
  bytes.resize(aligned(bytes.size()), '\0');
  return bytes;
}

Status write_tensor(Output& out, const Entry& entry, const ModelConfig& config, const WeightFolder& weights,
                    const std::function<void(int64_t)>& written) {
  const Parameter& p = *entry.parameter;
  int64_t rows = std::max(kChunkValues / entry.columns, int64_t{1});
  if (entry.rotary) rows = (rows + config.head_dim - 1) / config.head_dim * config.head_dim;
  std::vector<float> values, scratch;
  std::string bytes;
  for (int64_t at = 0; at < p.size; at += static_cast<int64_t>(values.size())) {
    values.resize(static_cast<size_t>(std::min(rows * entry.columns, p.size - at)));
    TH_RETURN_IF_ERROR(weights.read(p.offset + at, values));
    if (entry.rotary) interleave_heads(values, entry.columns, config.head_dim, scratch);
    bytes.clear();
    if (!append_values(bytes, entry.type, values))
      return fail(Code::kInvalidArgument,
                  fmt::format("tensor '{}' has a value that {} cannot hold; export as bf16 or f32", p.name,
                              facts(entry.type).name));
    TH_RETURN_IF_ERROR(out.write(bytes));
    written(static_cast<int64_t>(bytes.size()));
  }
  const uint64_t size = stored_bytes(entry.type, p.size);
  return out.write(std::string(aligned(size) - size, '\0'));
}

}  // namespace

Result<GgufType> parse_gguf_type(std::string_view text) {
  const auto* found = std::ranges::find(kTypes, text, &TypeFacts::name);
  if (found != std::end(kTypes)) return found->type;
  return fail(Code::kInvalidArgument, fmt::format("type '{}': want f32, f16, bf16 or q8_0", text));
}

Result<GgufFile> write_gguf(const fs::path& path, const ModelConfig& config, const ParameterLayout& layout,
                            const WeightFolder& weights, const Tokenizer& tokenizer,
                            const GgufOptions& options) {
  uint64_t size = 0;
  const std::vector<Entry> entries = plan(layout, options.type, size);
  GgufMetadata metadata;
  metadata.text("general.architecture", config.family == Family::kLlama ? "llama" : "gpt2");
  metadata.text("general.type", "model");
  metadata.text("general.name", options.name);
  metadata.u32("general.alignment", kAlignment);
  metadata.u32("general.file_type", facts(options.type).file_type);
  if (options.type == GgufType::kQ8_0) metadata.u32("general.quantization_version", 2);
  add_model_keys(metadata, config);
  TH_RETURN_IF_ERROR(add_tokenizer_keys(metadata, tokenizer, config, options.add_bos));
  if (!options.chat_template.empty()) metadata.text("tokenizer.chat_template", options.chat_template);

  Output out(path);
  TH_RETURN_IF_ERROR(out.open());
  const std::string header = header_of(metadata, entries);
  TH_RETURN_IF_ERROR(out.write(header));
  int64_t done = 0;
  for (const Entry& entry : entries) {
    TH_RETURN_IF_ERROR(write_tensor(out, entry, config, weights, [&](int64_t bytes) {
      done += bytes;
      if (options.progress) options.progress(done, static_cast<int64_t>(size));
    }));
  }
  TH_RETURN_IF_ERROR(out.finish());
  return GgufFile{static_cast<int64_t>(entries.size()), static_cast<int64_t>(header.size() + size)};
}

}  // namespace th::model
