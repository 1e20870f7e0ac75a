#include "train/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"

namespace th::train {
namespace {

namespace fs = std::filesystem;
constexpr size_t kDigestLetters = 64;  // sha256 in hex, one float a letter on its way to rank 0
constexpr int64_t kFormatVersion = 3;

std::string shard_name(int rank) { return fmt::format("shard-{:05}.bin", rank); }

tl::unexpected<Error> damaged(const fs::path& what, std::string_view problem) {
  return fail(Code::kDataLoss, fmt::format("{}: {}", what.string(), problem));
}

struct Manifest {
  CheckpointMeta meta;
  std::vector<int64_t> units;        // their sizes
  std::vector<std::string> digests;  // by rank of the world that wrote it
};

Result<Manifest> read_manifest(const fs::path& folder, const std::string& fingerprint) {
  const fs::path path = folder / "manifest.json";
  TH_TRY(std::string text, read_file(path, size_t{16} << 20));
  TH_TRY(Json json, parse_json(text, path.string()));
  Manifest manifest;
  TH_TRY(int64_t version, get_int(json, "version"));
  if (version != kFormatVersion) return damaged(path, fmt::format("format version {} is not known", version));
  TH_TRY(manifest.meta.step, get_int(json, "step"));
  TH_TRY(manifest.meta.sequences, get_int(json, "sequences"));
  TH_TRY(double first_loss, get_double(json, "first_loss"));
  TH_TRY(double last_loss, get_double(json, "last_loss"));
  manifest.meta.first_loss = static_cast<float>(first_loss);
  manifest.meta.last_loss = static_cast<float>(last_loss);
  TH_TRY(manifest.meta.fingerprint, get_string(json, "fingerprint"));
  if (manifest.meta.fingerprint != fingerprint) return damaged(path, "it is of another model or tokenizer");
  if (!json.contains("units") || !json["units"].is_array())
    return damaged(path, "field 'units': want a list");
  for (const Json& size : json["units"]) {
    if (!size.is_number_integer()) return damaged(path, "field 'units': want whole numbers");
    manifest.units.push_back(size.get<int64_t>());
  }
  if (!json.contains("shards") || !json["shards"].is_array() || json["shards"].empty()) {
    return damaged(path, "field 'shards': want a list");
  }
  for (const Json& shard : json["shards"]) {
    TH_TRY(std::string digest, get_string(shard, "sha256"));
    manifest.digests.push_back(std::move(digest));
  }
  return manifest;
}

}  // namespace

std::optional<int64_t> step_of_name(std::string_view name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  int64_t step = 0;
  auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size() || step < 0) return std::nullopt;
  return step;
}

std::vector<int64_t> list_checkpoints(const fs::path& folder) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (auto step = step_of_name(it->path().filename().string())) steps.push_back(*step);
  }
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

fs::path Checkpoints::path_of(int64_t step) const { return folder_ / fmt::format("step-{:06}", step); }

/// Turns one rank's failure into everyone's.
Status Checkpoints::agree(const Status& mine) {
  float failures[] = {mine ? 0.f : 1.f};
  if (Status status = group_.all_reduce(failures); !status) {
    is_group_error_ = true;
    return status;
  }
  if (!mine) return mine;
  if (failures[0] > 0) return fail(Code::kUnavailable, "another rank could not write its shard");
  return {};
}

Status Checkpoints::prepare(const fs::path& temporary) {
  std::error_code error;
  fs::remove_all(temporary, error);
  if (!error) fs::create_directories(temporary, error);
  if (error) return fail(errno_error(temporary.string(), error.value()));
  return {};
}

Status Checkpoints::begin(const CheckpointMeta& meta, std::vector<StatePart> share, DoneWith done_with) {
  TH_CHECK(!is_writing());
  meta_ = meta;
  const fs::path temporary = path_of(meta.step).string() + ".tmp";
  TH_RETURN_IF_ERROR(agree(group_.rank() == 0 ? prepare(temporary) : Status()));
  writer_ = std::make_unique<ShardWriter>(temporary / shard_name(group_.rank()), std::move(share),
                                          std::move(done_with));
  return {};
}

void Checkpoints::wait_part(int index) {
  if (writer_) writer_->wait_part(static_cast<size_t>(index));
}

Status Checkpoints::finish() {
  TH_CHECK(is_writing());
  const fs::path temporary = path_of(meta_.step).string() + ".tmp";
  const bool is_first = group_.rank() == 0;
  const Result<std::string> digest = writer_->finish();
  writer_.reset();
  Status status = agree(digest ? Status() : fail(digest.error()));
  if (is_group_error_) return status;
  if (status) {
    std::vector<float> digests(kDigestLetters * group_.world_size());
    std::copy(digest->begin(), digest->end(), digests.begin() + kDigestLetters * group_.rank());
    if (status = group_.all_gather(digests); !status) {
      is_group_error_ = true;
      return status;
    }
    status = agree(is_first ? publish(temporary, digests) : Status());
  }
  if (is_first) {
    std::error_code ignored;
    if (!status) fs::remove_all(temporary, ignored);
    if (status) remove_old();
  }
  return status;
}

Status Checkpoints::publish(const fs::path& temporary, std::span<const float> digests) {
  Json manifest = {{"version", kFormatVersion},    {"step", meta_.step},
                   {"sequences", meta_.sequences}, {"first_loss", meta_.first_loss},
                   {"last_loss", meta_.last_loss}, {"fingerprint", meta_.fingerprint},
                   {"units", Json::array()},       {"shards", Json::array()}};
  for (const model::Unit& unit : layout_.units) manifest["units"].push_back(unit.size);
  for (int rank = 0; rank < group_.world_size(); ++rank) {
    const auto letters = digests.subspan(kDigestLetters * rank, kDigestLetters);
    manifest["shards"].push_back(
        {{"file", shard_name(rank)}, {"sha256", std::string(letters.begin(), letters.end())}});
  }
  TH_RETURN_IF_ERROR(write_file_durable(temporary / "manifest.json", manifest.dump(1) + "\n"));
  const fs::path path = path_of(meta_.step);
  std::error_code error;
  fs::remove_all(path,
                 error);  // one of this step that was damaged; else training would have gone on behind it
  if (!error) fs::rename(temporary, path, error);
  if (error) return fail(errno_error(path.string(), error.value()));
  return sync_folder(folder_);
}

void Checkpoints::remove_old() {
  const std::vector<int64_t> steps = list_checkpoints(folder_);
  for (size_t i = keep_; i < steps.size(); ++i) {
    std::error_code error;
    fs::remove_all(path_of(steps[i]), error);
    if (error) log_warn("{}: cannot be removed: {}", path_of(steps[i]).string(), error.message());
  }
}

Result<CheckpointMeta> Checkpoints::load(int64_t step, const std::string& fingerprint,
                                         std::span<const StatePart> state, const DoneWith& done_with) {
  const fs::path folder = path_of(step);
  TH_TRY(Manifest manifest, read_manifest(folder, fingerprint));
  if (!std::ranges::equal(manifest.units, layout_.units, {}, {}, &model::Unit::size))
    return damaged(folder, "its model has another shape");
  if (manifest.meta.step != step) return damaged(folder, "the manifest is of another step");
  const int world_size = static_cast<int>(manifest.digests.size());
  std::vector<ShardFile> shards;  // all are good before the first number is changed
  for (int rank = 0; rank < world_size; ++rank) {
    TH_TRY(ShardFile shard, ShardFile::open(folder / shard_name(rank), owned_parts(layout_, rank, world_size),
                                            manifest.digests[rank]));
    shards.push_back(std::move(shard));
  }
  for (const ShardFile& shard : shards) shard.copy_into(state, done_with);
  return manifest.meta;
}

Result<std::optional<CheckpointMeta>> Checkpoints::load_newest(const std::string& fingerprint,
                                                               std::span<const StatePart> state,
                                                               const DoneWith& done_with) {
  // Rank 0 chooses, so that all load the same one. Steps stay below 2^24, where float32 counts exactly.
  constexpr float kNone = -1;
  float chosen[] = {kNone};
  std::optional<CheckpointMeta> meta;
  if (group_.rank() == 0) {
    for (int64_t step : list_checkpoints(folder_)) {
      auto loaded = load(step, fingerprint, state, done_with);
      if (loaded) {
        meta = *loaded;
        chosen[0] = static_cast<float>(step);
        break;
      }
      log_warn("checkpoint {} is passed over: {}", path_of(step).string(), loaded.error().message);
    }
  }
  TH_RETURN_IF_ERROR(group_.broadcast(chosen, 0));
  if (chosen[0] == kNone) return std::optional<CheckpointMeta>();
  if (group_.rank() != 0) {
    TH_TRY(meta, load(static_cast<int64_t>(chosen[0]), fingerprint, state, done_with));
  }
  TH_RETURN_IF_ERROR(group_.barrier());
  return meta;
}

}  // namespace th::train
